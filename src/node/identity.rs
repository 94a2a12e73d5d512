//! Who a member is, and whom it listens to (ARCHITECTURE.md, rule 1).
//!
//! A store is pinned durably by its peers, together with its newest opening. Another store under a
//! known member is a wiped disk. An opening that does not come after those that are known, or that
//! lacks what an earlier one has promised, is a disk that was rolled back: it says both in its
//! greeting, and until then nobody listens to it. Founders take no part in consensus before each
//! has seen that all of them have durably pinned each other.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use thiserror::Error;

use crate::{
    id::{Incarnation, NodeId, StoreId},
    mutant::Mutant,
    node::{
        membership::Membership,
        status::{Ended, Waiting},
    },
    proto,
    record::put_delimited,
    wire::{Hello, Opening, Openings, Pin, Promise, Refusal},
};

/// What a member knows of its own store and of those of its peers.
#[derive(Debug)]
pub(crate) struct Identity {
    id: NodeId,
    own: Incarnation,
    /// What this opening starts from.
    opening: Opening,
    /// CRC32C of the bootstrap snapshot; founders must agree on it.
    bootstrap: u32,
    /// CRC32C of the backup that it was made from.
    backup: Option<u32>,
    /// The founding members, while this member is a founder.
    founders: Option<BTreeSet<NodeId>>,
    founded: bool,
    /// Newest incarnation of each member that has spoken, this one included.
    pins: BTreeMap<NodeId, Incarnation>,
    /// Newer ones that others have told of.
    rumours: BTreeMap<NodeId, Incarnation>,
    /// Whom members have told of that this member's log does not know yet.
    introduced: BTreeMap<NodeId, StoreId>,
    /// What each member was heard to have on its disk, in this opening of ours.
    promises: BTreeMap<NodeId, Promise>,
    /// What of `pins` is on the disk.
    durable: BTreeMap<NodeId, Incarnation>,
    /// Founders whose durable pins were seen to be complete.
    confirmed: BTreeSet<NodeId>,
    other_bootstrap: Option<NodeId>,
    /// Who has said hello to this opening.
    greeted: BTreeSet<NodeId>,
    recovering: bool,
    /// The entry after which the state was found to be bad, until a good one is durable; or 0.
    diverged_at: u64,
    rolled_back: bool,
    changed: bool,
}

/// Why a restored local record is refused.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum LocalRecordError {
    /// The bytes are no local record of this release.
    #[error(
        "the member's own record is damaged or of version {version}, which needs another release"
    )]
    Malformed {
        /// The version that it claims.
        version: u32,
    },
    /// The store was founded with other members, intervals or limits.
    #[error(
        "the store was founded with other members, intervals or replicated limits (bootstrap \
         {stored:08x}, now {configured:08x}); start with those that it was founded with"
    )]
    OtherBootstrap {
        /// As it was founded.
        stored: u32,
        /// As it is set up now.
        configured: u32,
    },
    /// The store was founded empty, or from another backup.
    #[error(
        "the store was founded {}, and is now to be founded from another backup \
         ({configured:08x}): start with an empty directory, or without the backup",
        stored.map_or("empty".into(), |stored| format!("from the backup {stored:08x}"))
    )]
    OtherBackup {
        /// CRC32C of what it was founded from.
        stored: Option<u32>,
        /// CRC32C of what it is to be founded from now.
        configured: u32,
    },
    /// Peers have found that the store lacks what it once had.
    #[error(
        "the store was put back from an older image, as its peers have found; remove this member \
         and add a new id as a learner with an empty directory"
    )]
    RolledBack,
    /// A founder remains one for ever, and so does a member that joined.
    #[error(
        "the store {}; start with the kind of configuration that it was made with",
        match founder {
            true => "founded the cluster, and the configuration says that it joins one",
            false => "joined a cluster, and the configuration says that it founds one",
        }
    )]
    OtherKind {
        /// Whether the store is that of a founder.
        founder: bool,
    },
}

impl Identity {
    pub(crate) fn new(
        id: NodeId,
        own: Incarnation,
        (bootstrap, backup): (u32, Option<u32>),
        founders: Option<BTreeSet<NodeId>>,
    ) -> Self {
        let founded = founders.as_ref().is_none_or(|founders| founders.len() == 1);
        Self {
            id,
            own,
            opening: Opening::default(),
            bootstrap,
            backup,
            founders,
            founded,
            pins: BTreeMap::from([(id, own)]),
            rumours: BTreeMap::new(),
            introduced: BTreeMap::new(),
            promises: BTreeMap::new(),
            durable: BTreeMap::new(),
            confirmed: BTreeSet::new(),
            other_bootstrap: None,
            greeted: BTreeSet::new(),
            recovering: false,
            diverged_at: 0,
            rolled_back: false,
            changed: true,
        }
    }

    /// Takes up what an earlier opening has written.
    pub(crate) fn restore(&mut self, record: Bytes) -> Result<(), LocalRecordError> {
        let malformed = |version| LocalRecordError::Malformed { version };
        let record = proto::LocalRecord::decode(record).map_err(|_| malformed(0))?;
        if record.version != RECORD_VERSION {
            return Err(malformed(record.version));
        }
        if record.founder != self.founders.is_some() {
            return Err(LocalRecordError::OtherKind { founder: record.founder });
        }
        if let Some(configured) = self.backup.filter(|it| record.backup != Some(*it)) {
            return Err(LocalRecordError::OtherBackup { stored: record.backup, configured });
        }
        if record.backup.is_some() {
            // The backup need not be there any more, and without it nobody can say.
            (self.bootstrap, self.backup) = (record.bootstrap, record.backup);
        }
        if record.founder && record.bootstrap != self.bootstrap {
            let (stored, configured) = (record.bootstrap, self.bootstrap);
            return Err(LocalRecordError::OtherBootstrap { stored, configured });
        }
        if record.rolled_back {
            return Err(LocalRecordError::RolledBack);
        }
        let pins = Pin::decode_all(record.pins).map_err(|_| malformed(record.version))?;
        let earlier = Openings::from_bytes(&record.earlier, record.since);
        self.opening.before = earlier.ok_or(malformed(record.version))?;
        let before = pins.iter().find(|pin| pin.node == self.id);
        before.into_iter().for_each(|pin| self.opening.before.push(pin.incarnation.boot));
        self.pins.extend(pins.into_iter().map(|pin| (pin.node, pin.incarnation)));
        self.pins.insert(self.id, self.own);
        self.founded |= record.founded;
        self.recovering |= record.recovering;
        self.diverged_at = record.diverged_at;
        Ok(())
    }

    /// A tail was cut off the log, and with it maybe an earlier form of the record.
    pub(crate) fn set_tail_cut(&mut self) {
        self.set_recovering(true);
        self.opening.before.since = self.own.boot.counter;
    }

    /// With what on the disk this opening starts.
    pub(crate) fn set_start(&mut self, term: u64, vote: u64, last_index: u64) {
        let recovering = self.recovering;
        let before = std::mem::take(&mut self.opening.before);
        self.opening = Opening { before, term, vote, last_index, recovering };
    }

    /// Members were removed: nobody hears of their ids again.
    pub(crate) fn forget(&mut self, removed: &BTreeSet<NodeId>) {
        let known = self.pins.len();
        self.pins.retain(|id, _| *id == self.id || !removed.contains(id));
        self.changed |= self.pins.len() != known;
        self.durable.retain(|id, _| !removed.contains(id));
        self.rumours.retain(|id, _| !removed.contains(id));
        self.introduced.retain(|id, _| !removed.contains(id));
        self.promises.retain(|id, _| !removed.contains(id));
        self.greeted.retain(|id| !removed.contains(id));
    }

    pub(crate) fn set_recovering(&mut self, recovering: bool) {
        self.changed |= self.recovering != recovering;
        self.recovering = recovering;
    }

    /// Notes durably that neither the state nor the snapshot here is to be used; 0: that they are.
    pub(crate) fn set_diverged_at(&mut self, index: u64) {
        self.changed |= self.diverged_at != index;
        self.diverged_at = index;
    }

    pub(crate) fn diverged_at(&self) -> u64 {
        self.diverged_at
    }

    /// The record to write, if it has changed since the last call.
    pub(crate) fn take_record(&mut self) -> Option<Bytes> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let mut pins = BytesMut::new();
        for pin in pins_of(&self.pins) {
            put_delimited(&mut pins, &pin.to_record());
        }
        let record = proto::LocalRecord {
            version: RECORD_VERSION,
            bootstrap: self.bootstrap,
            founder: self.founders.is_some(),
            founded: self.founded,
            recovering: self.recovering,
            pins: pins.freeze(),
            diverged_at: self.diverged_at,
            backup: self.backup,
            earlier: self.opening.before.to_bytes(),
            since: self.opening.before.since,
            rolled_back: self.rolled_back,
        };
        Some(record.encode_to_vec().into())
    }

    /// The last record is on the disk.
    pub(crate) fn persisted(&mut self) {
        if !self.changed {
            self.durable.clone_from(&self.pins);
        }
        self.conclude();
    }

    /// Whether nothing may come of a frame before a greeting of that opening of its sender.
    pub(crate) fn awaits_greeting(&self, from: NodeId, sender: Incarnation) -> bool {
        let known = self.pins.get(&from).filter(|known| known.store == sender.store);
        known.is_some_and(|known| sender.boot.counter > known.boot.counter)
    }

    /// Checks who sent a frame, by its greeting if it is one. `Ok` pins the sender's store or its
    /// newer opening.
    pub(crate) fn admit(
        &mut self,
        from: NodeId,
        sender: Incarnation,
        membership: &Membership,
        hello: Option<&Hello>,
    ) -> Result<(), Refusal> {
        if membership.removed.contains(&from) {
            return Err(Refusal::Removed);
        }
        let other = |store| store != sender.store && !Mutant::WipedAccepted.active();
        if membership.store(from).is_some_and(other) {
            return Err(Refusal::Wiped);
        }
        if let Some(&known) = self.pins.get(&from) {
            if other(known.store) && membership.store(from).is_none() {
                return Err(Refusal::Wiped);
            }
            let rumour = self.rumours.get(&from).filter(|it| it.store == sender.store);
            let told = rumour.is_none_or(|it| is_newer_or_same(*it, sender));
            let newest = told && is_newer_or_same(known, sender);
            let newest = newest || Mutant::RolledBackAccepted.active();
            if known.store == sender.store && !newest {
                return Err(Refusal::RolledBack);
            }
            if known == sender {
                return Ok(());
            }
            if let Some(hello) = hello.filter(|_| known.store == sender.store) {
                self.judge(from, sender, hello)?;
            }
        } else if !self.expects(from, membership) && !self.is_introduced(from, sender.store) {
            return Err(Refusal::NotAMember);
        }
        self.pins.insert(from, sender);
        self.changed = true;
        Ok(())
    }

    /// Whether a newer opening comes after those that are known, with all that they have promised.
    fn judge(&mut self, from: NodeId, sender: Incarnation, hello: &Hello) -> Result<(), Refusal> {
        if hello.opening.recovering {
            // It knows that it lacks something, and does not vote until it has it again.
            self.promises.remove(&from);
            return Ok(());
        }
        let before = &hello.opening.before;
        let known = self.pins.get(&from).into_iter().chain(self.rumours.get(&from));
        let mut known = known.filter(|known| known.store == sender.store);
        let descends = known.all(|known| before.descends(sender.boot, known.boot));
        let lost = self.promise(from).is_lost(&hello.opening);
        let whole = descends && !lost || Mutant::RolledBackAccepted.active();
        if whole { Ok(()) } else { Err(Refusal::RolledBack) }
    }

    /// A frame of a member says that so much is on its disk.
    pub(crate) fn promised(&mut self, from: NodeId, told: Promise) {
        let promise = self.promises.entry(from).or_default();
        if told.term > promise.term {
            *promise = told;
        } else if told.term == promise.term {
            promise.index = promise.index.max(told.index);
            promise.vote = promise.vote.max(told.vote);
        }
    }

    pub(crate) fn promise(&self, of: NodeId) -> Promise {
        self.promises.get(&of).copied().unwrap_or_default()
    }

    /// Takes a peer's word for what it has pinned: newer openings of others, and its confirmation
    /// of the founding.
    pub(crate) fn hello(&mut self, from: NodeId, hello: &Hello) -> Result<(), Refusal> {
        self.greeted.insert(from);
        for pin in hello.pins.iter().filter(|pin| pin.node != self.id) {
            let told = pin.incarnation;
            let known = self.known(pin.node).filter(|known| known.incarnation.store == told.store);
            if known.is_some_and(|it| told.boot.counter > it.incarnation.boot.counter) {
                self.rumours.insert(pin.node, told);
            }
            if !self.pins.contains_key(&pin.node) && self.introduced.len() < INTRODUCED_MAX {
                self.introduced.insert(pin.node, told.store);
            }
        }
        let Some(founders) = self.founders.as_ref() else {
            return Ok(());
        };
        if self.founded || !hello.founder || !founders.contains(&from) {
            return Ok(());
        }
        if hello.bootstrap != self.bootstrap {
            self.other_bootstrap = Some(from);
            return Err(Refusal::OtherBootstrap);
        }
        self.other_bootstrap = self.other_bootstrap.filter(|&peer| peer != from);
        let told: BTreeMap<NodeId, StoreId> =
            hello.pins.iter().map(|pin| (pin.node, pin.incarnation.store)).collect();
        let agrees = founders.iter().all(|id| {
            let ours = self.pins.get(id).map(|pin| pin.store);
            ours.is_some() && ours == told.get(id).copied()
        });
        if agrees {
            self.confirmed.insert(from);
        }
        self.conclude();
        Ok(())
    }

    /// What it means for this member that a peer has pinned it so: an opening of its store that
    /// this one does not come after.
    pub(crate) fn told(&self, hello: &Hello) -> Option<Ended> {
        let known = hello.pins.iter().find(|pin| pin.node == self.id)?;
        let same = known.incarnation.store == self.own.store;
        let promise = Promise::default();
        same.then(|| self.refused(Refusal::RolledBack, Some(*known), promise)).flatten()
    }

    /// What a peer's refusal means for this member.
    pub(crate) fn refused(
        &self,
        reason: Refusal,
        known: Option<Pin>,
        promise: Promise,
    ) -> Option<Ended> {
        let known = known.filter(|pin| pin.node == self.id).map(|pin| pin.incarnation);
        let (id, store, own) = (self.id, self.own.store, self.own.boot);
        if Mutant::RolledBackAccepted.active() && reason == Refusal::RolledBack {
            return None;
        }
        match (reason, known) {
            (Refusal::Wiped, Some(known)) if known.store != store => {
                Some(Ended::Wiped { id, known: known.store, own: store })
            }
            // A frame of an earlier opening that came late is refused by the same words.
            (Refusal::RolledBack, Some(known)) if known.store == store && !self.is_cut() => {
                let before = &self.opening.before;
                if !before.descends(own, known.boot) {
                    return Some(Ended::RolledBack { id, store, known: known.boot, own });
                }
                let Promise { term, index, .. } = promise;
                promise.is_lost(&self.opening).then_some(Ended::Forgot { id, store, term, index })
            }
            (Refusal::Removed, _) => Some(Ended::Removed { id }),
            _ => None,
        }
    }

    /// Whether this opening knows that it lacks something.
    fn is_cut(&self) -> bool {
        self.opening.recovering
    }

    /// Whether this opening of a member is pinned on the disk.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn has_pinned(&self, id: NodeId, opening: Incarnation) -> bool {
        self.durable.get(&id) == Some(&opening)
    }

    /// Remembers that this store is to be used no more.
    pub(crate) fn set_rolled_back(&mut self) {
        self.changed |= !self.rolled_back;
        self.rolled_back = true;
    }

    /// Whether this opening is counted on the disk: it says nothing before.
    pub(crate) fn speaks(&self) -> bool {
        self.durable.contains_key(&self.id)
    }

    /// Whether this member may campaign, vote and acknowledge.
    pub(crate) fn takes_part(&self) -> bool {
        self.founded || Mutant::FounderHurries.active()
    }

    pub(crate) fn is_recovering(&self) -> bool {
        self.recovering
    }

    pub(crate) fn own(&self) -> Incarnation {
        self.own
    }

    pub(crate) fn pin(&self, id: NodeId) -> Option<Pin> {
        self.pins.get(&id).map(|&incarnation| Pin { node: id, incarnation })
    }

    /// The newest opening of a member that was heard of.
    pub(crate) fn known(&self, id: NodeId) -> Option<Pin> {
        let rumour = self.rumours.get(&id);
        let pin = self.pin(id)?;
        let newer = rumour.filter(|it| {
            let known = pin.incarnation;
            it.store == known.store && it.boot.counter > known.boot.counter
        });
        Some(Pin { incarnation: newer.copied().unwrap_or(pin.incarnation), ..pin })
    }

    /// What this member has durably pinned, for its peers.
    pub(crate) fn greeting(&self, reply: bool) -> Hello {
        Hello {
            bootstrap: self.bootstrap,
            founder: self.founders.is_some(),
            founded: self.founded,
            pins: pins_of(&self.durable).collect(),
            reply,
            opening: self.opening.clone(),
        }
    }

    /// Members that have not answered a greeting of this opening.
    pub(crate) fn ungreeted(&self, membership: &Membership) -> Vec<NodeId> {
        let others = membership.members.keys().copied().filter(|&id| id != self.id);
        others.filter(|id| !self.greeted.contains(id)).collect()
    }

    /// The founders to greet while founding goes on.
    pub(crate) fn unconfirmed(&self) -> Vec<NodeId> {
        match &self.founders {
            Some(founders) if !self.founded => {
                founders.iter().copied().filter(|&id| id != self.id).collect()
            }
            _ => Vec::new(),
        }
    }

    pub(crate) fn waiting(&self) -> Option<Waiting> {
        if let Some(peer) = self.other_bootstrap {
            return Some(Waiting::OtherBootstrap(peer));
        }
        if !self.founded {
            let unconfirmed = self.unconfirmed().into_iter();
            let missing = unconfirmed.filter(|id| !self.confirmed.contains(id)).collect();
            return Some(Waiting::Founders(missing));
        }
        self.recovering.then_some(Waiting::CatchUp)
    }

    /// Whether a member has told of a store that this member's log does not know yet: its leader
    /// may have joined since, and nobody else sends it the entries that say so.
    fn is_introduced(&self, from: NodeId, store: StoreId) -> bool {
        self.introduced.get(&from) == Some(&store)
    }

    /// Whether a first frame from `from` may pin its store.
    fn expects(&self, from: NodeId, membership: &Membership) -> bool {
        if membership.members.contains_key(&from) {
            return true;
        }
        // A joiner knows nobody yet, and learns the stores with its first snapshot.
        membership.members.is_empty()
    }

    fn conclude(&mut self) {
        let Some(founders) = &self.founders else {
            return;
        };
        if self.founded {
            return;
        }
        let pinned = founders.iter().all(|id| {
            let durable = self.durable.get(id).map(|pin| pin.store);
            durable.is_some() && durable == self.pins.get(id).map(|pin| pin.store)
        });
        let confirmed = founders.iter().all(|id| *id == self.id || self.confirmed.contains(id));
        if pinned && confirmed {
            self.founded = true;
            self.changed = true;
        }
    }
}

fn is_newer_or_same(known: Incarnation, sender: Incarnation) -> bool {
    known == sender || sender.boot.counter > known.boot.counter
}

fn pins_of(pins: &BTreeMap<NodeId, Incarnation>) -> impl Iterator<Item = Pin> {
    pins.iter().map(|(&node, &incarnation)| Pin { node, incarnation })
}

const RECORD_VERSION: u32 = 1;
/// Strangers that members have told of; a member whose log lags knows of the rest later.
const INTRODUCED_MAX: usize = 64;
