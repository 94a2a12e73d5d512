//! Who belongs to the cluster, and single changes of it, decided alike on every member.
//!
//! A change is judged twice: before it is proposed, and when it is applied, against the members
//! that the log itself made. Only the second counts. Joint changes are never made (a leader that
//! steps down inside one may never leave it), so one change moves one member.

use bytes::Bytes;
use prost::Message as _;

use crate::{config::MEMBERS_MAX, id::NodeId, proto, wire::SnapshotMeta};

/// The voters and learners at one point of the log.
///
/// Invariant: both ascend, share no id, and every id is one of a [`NodeId`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Members {
    pub(super) voters: Vec<u64>,
    pub(super) learners: Vec<u64>,
}

impl Members {
    /// The members of a snapshot; `None` unless they are canonical and someone votes.
    pub(super) fn of_snapshot(meta: &SnapshotMeta) -> Option<Self> {
        let members = Self { voters: meta.voters.clone(), learners: meta.learners.clone() };
        members.is_canonical().then_some(members)
    }

    /// Makes the change, if it is possible here.
    pub(super) fn apply(&mut self, change: MembershipChange) -> Result<(), Refused> {
        self.check(change)?;
        let id = change.node().as_u64();
        remove(&mut self.voters, id);
        remove(&mut self.learners, id);
        match change {
            MembershipChange::AddLearner(_) => insert(&mut self.learners, id),
            MembershipChange::Promote(_) => insert(&mut self.voters, id),
            MembershipChange::Remove(_) => {}
        }
        Ok(())
    }

    /// Whether the change is possible here.
    pub(super) fn check(&self, change: MembershipChange) -> Result<(), Refused> {
        let node = change.node();
        match change {
            MembershipChange::AddLearner(_) if self.contains(node) => {
                Err(Refused::AlreadyMember(node))
            }
            MembershipChange::AddLearner(_) if self.len() >= MEMBERS_MAX => Err(Refused::TooMany),
            MembershipChange::Promote(_) if self.is_voter(node) => {
                Err(Refused::AlreadyMember(node))
            }
            MembershipChange::Promote(_) if !self.contains(node) => Err(Refused::NotALearner(node)),
            MembershipChange::Remove(_) if !self.contains(node) => Err(Refused::NotAMember(node)),
            MembershipChange::Remove(_) if self.voters == [node.as_u64()] => {
                Err(Refused::LastVoter)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn contains(&self, node: NodeId) -> bool {
        self.is_voter(node) || self.learners.binary_search(&node.as_u64()).is_ok()
    }

    pub(super) fn is_voter(&self, node: NodeId) -> bool {
        self.voters.binary_search(&node.as_u64()).is_ok()
    }

    /// Nobody: a joiner that has not got its first snapshot.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.voters.len() + self.learners.len()
    }

    fn is_canonical(&self) -> bool {
        let ascends = |ids: &[u64]| ids.windows(2).all(|pair| pair[0] < pair[1]);
        let known = |id: &u64| NodeId::new(*id).is_some();
        !self.voters.is_empty()
            && self.len() <= MEMBERS_MAX
            && ascends(&self.voters)
            && ascends(&self.learners)
            && self.voters.iter().all(known)
            && self.learners.iter().all(known)
            && !self.learners.iter().any(|id| self.voters.binary_search(id).is_ok())
    }
}

/// One step of the membership.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MembershipChange {
    /// A new member that gets the log and does not vote.
    AddLearner(NodeId),
    /// A learner becomes a voter.
    Promote(NodeId),
    /// A member leaves, for ever.
    Remove(NodeId),
}

impl MembershipChange {
    /// The member that the change is about.
    pub(crate) fn node(self) -> NodeId {
        match self {
            Self::AddLearner(node) | Self::Promote(node) | Self::Remove(node) => node,
        }
    }

    /// The content of a membership entry: raft parses what it proposed itself, field by field.
    pub(crate) fn encode(self, context: Bytes) -> Bytes {
        let change_type = match self {
            Self::Promote(_) => ADD_VOTER,
            Self::Remove(_) => REMOVE,
            Self::AddLearner(_) => ADD_LEARNER,
        };
        let record =
            proto::ChangeMember { id: 0, change_type, node_id: self.node().as_u64(), context };
        record.encode_to_vec().into()
    }

    /// The change and its context in a membership entry; `None` if it is not one.
    pub(super) fn decode(data: Bytes) -> Option<(Self, Bytes)> {
        let record = proto::ChangeMember::decode(data).ok()?;
        let node = NodeId::new(record.node_id)?;
        let change = match record.change_type {
            ADD_VOTER => Self::Promote(node),
            REMOVE => Self::Remove(node),
            ADD_LEARNER => Self::AddLearner(node),
            _ => return None,
        };
        Some((change, record.context))
    }
}

/// What a committed membership entry did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AppliedChange {
    /// The change; `None` if the entry is empty, or the change was not possible any more.
    pub(crate) change: Option<MembershipChange>,
    /// What the proposer gave along; opaque here.
    pub(crate) context: Bytes,
    /// Whether this node itself was removed: it is to stop, but if it just led, only after the
    /// others had an election: until they know of the removal, they may need its vote.
    pub(crate) removed_self: bool,
}

/// Why a change is not possible with these members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    AlreadyMember(NodeId),
    NotALearner(NodeId),
    NotAMember(NodeId),
    LastVoter,
    TooMany,
}

fn insert(ids: &mut Vec<u64>, id: u64) {
    if let Err(at) = ids.binary_search(&id) {
        ids.insert(at, id);
    }
}

fn remove(ids: &mut Vec<u64>, id: u64) {
    if let Ok(at) = ids.binary_search(&id) {
        ids.remove(at);
    }
}

/// `eraftpb.ConfChangeType`.
const ADD_VOTER: i32 = 0;
const REMOVE: i32 = 1;
const ADD_LEARNER: i32 = 2;
