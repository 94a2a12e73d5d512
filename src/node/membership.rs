//! Who belongs to the cluster, as the replicated log says: voters, learners, their stores, and the
//! ids that are never used again.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, Bytes, BytesMut};
use prost::Message as _;

use crate::{
    config::MEMBERS_MAX,
    consensus::MembershipChange,
    id::{NodeId, StoreId},
    node::{error::MembershipError, status::Member},
    proto,
    record::put_delimited,
    wire::SnapshotMeta,
};

/// The members at one index of the log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Membership {
    pub(crate) members: BTreeMap<NodeId, Member>,
    pub(crate) removed: BTreeSet<NodeId>,
}

impl Membership {
    /// The founders, all voters, their stores not known yet.
    pub(crate) fn founding(founders: &BTreeSet<NodeId>) -> Self {
        let members = founders.iter().map(|&id| (id, Member::new(true, None))).collect();
        Self { members, removed: BTreeSet::new() }
    }

    pub(crate) fn add_learner(&mut self, id: NodeId) {
        self.members.entry(id).or_insert(Member::new(false, None));
    }

    pub(crate) fn promote(&mut self, id: NodeId) {
        if let Some(member) = self.members.get_mut(&id) {
            member.voter = true;
        }
    }

    pub(crate) fn remove(&mut self, id: NodeId) {
        self.members.remove(&id);
        self.removed.insert(id);
    }

    /// Why a change was not possible here.
    pub(crate) fn refusal(&self, change: MembershipChange) -> MembershipError {
        match change {
            MembershipChange::AddLearner(id) if self.removed.contains(&id) => {
                MembershipError::IdReused(id)
            }
            MembershipChange::AddLearner(id) if self.members.contains_key(&id) => {
                MembershipError::AlreadyMember(id)
            }
            MembershipChange::AddLearner(_) => MembershipError::TooMany(MEMBERS_MAX as u64),
            MembershipChange::Promote(id) if self.members.contains_key(&id) => {
                MembershipError::AlreadyMember(id)
            }
            MembershipChange::Promote(id) => MembershipError::NotALearner(id),
            MembershipChange::Remove(id) if self.members.contains_key(&id) => {
                MembershipError::LastVoter
            }
            MembershipChange::Remove(id) => MembershipError::NotAMember(id),
        }
    }

    /// Records a member's store, once: a known store never changes.
    pub(crate) fn pin(&mut self, id: NodeId, store: StoreId) {
        if let Some(member) = self.members.get_mut(&id) {
            member.store.get_or_insert(store);
        }
    }

    pub(crate) fn store(&self, id: NodeId) -> Option<StoreId> {
        self.members.get(&id).and_then(|member| member.store)
    }

    pub(crate) fn voters(&self) -> BTreeSet<NodeId> {
        self.members.iter().filter(|(_, member)| member.voter).map(|(&id, _)| id).collect()
    }

    /// Where a snapshot with these members stands.
    pub(crate) fn meta(&self, index: u64, term: u64) -> SnapshotMeta {
        let ids = |voter: bool| {
            let of_kind = self.members.iter().filter(move |(_, member)| member.voter == voter);
            of_kind.map(|(id, _)| id.as_u64()).collect()
        };
        SnapshotMeta { index, term, voters: ids(true), learners: ids(false) }
    }

    pub(crate) fn encode(&self) -> (Bytes, Bytes) {
        let mut members = BytesMut::new();
        for (id, member) in &self.members {
            let store =
                member.store.map_or(Bytes::new(), |store| Bytes::copy_from_slice(store.as_bytes()));
            let record = proto::MemberRecord { node: id.as_u64(), voter: member.voter, store };
            put_delimited(&mut members, &record);
        }
        let removed: Vec<u8> =
            self.removed.iter().flat_map(|id| id.as_u64().to_le_bytes()).collect();
        (members.freeze(), removed.into())
    }

    /// Reads what a snapshot says; `None` if it says something that cannot be.
    pub(crate) fn decode(mut members: Bytes, removed: &Bytes) -> Option<Self> {
        let mut this = Self::default();
        while members.has_remaining() {
            let record = proto::MemberRecord::decode_length_delimited(&mut members).ok()?;
            let store = match record.store.len() {
                0 => None,
                _ => Some(StoreId::from_bytes(record.store[..].try_into().ok()?)),
            };
            let id = NodeId::new(record.node)?;
            let known = this.members.insert(id, Member::new(record.voter, store));
            if known.is_some() || this.members.len() > MEMBERS_MAX {
                return None;
            }
        }
        if removed.len() % 8 != 0 {
            return None;
        }
        for mut id in removed.chunks_exact(8) {
            let id = NodeId::new(id.get_u64_le())?;
            if this.members.contains_key(&id) || !this.removed.insert(id) {
                return None;
            }
        }
        Some(this)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u64) -> NodeId {
        NodeId::new(id).expect("not 0")
    }

    #[test]
    fn survives_its_encoding() {
        let mut membership = Membership::founding(&BTreeSet::from([id(1), id(2), id(3)]));
        membership.pin(id(2), StoreId::from_bytes([7; 16]));
        membership.pin(id(2), StoreId::from_bytes([8; 16]));
        assert_eq!(membership.store(id(2)), Some(StoreId::from_bytes([7; 16])));
        membership.add_learner(id(4));
        membership.remove(id(1));
        let (members, removed) = membership.encode();
        assert_eq!(Membership::decode(members, &removed), Some(membership.clone()));
        let meta = membership.meta(9, 2);
        assert_eq!((meta.voters, meta.learners), (vec![2, 3], vec![4]));
    }

    #[test]
    fn refuses_what_cannot_be() {
        let membership = Membership::founding(&BTreeSet::from([id(1)]));
        let (members, _) = membership.encode();
        let twice: Bytes = [&members[..], &members[..]].concat().into();
        assert_eq!(Membership::decode(twice, &Bytes::new()), None);
        assert_eq!(Membership::decode(members.clone(), &Bytes::from_static(&[1])), None);
        let one: Bytes = 1u64.to_le_bytes().to_vec().into();
        assert_eq!(Membership::decode(members.clone(), &one), None, "a member was removed");
        assert_eq!(Membership::decode(members.slice(1..), &Bytes::new()), None);
    }
}
