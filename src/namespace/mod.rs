//! The replicated state machine: a tree of znodes, the sessions, and the last changes.
//!
//! Pure and deterministic: the same commands give the same state, byte for byte, on every replica.
//! There is no clock (time comes in with each entry), no randomness, no IO, and no map is iterated
//! in hash order. It knows nothing of raft, of members and of other nodes.
//!
//! Invariants, on top of those that the parts state:
//! - A command that fails changes neither the tree nor the set of sessions, and takes no zxid.
//! - All that one command changed carries one zxid.
//! - Every part is persistent (structural sharing), so that a view or a frozen state is O(1).

mod access;
mod digest;
mod execute;
mod history;
mod lease;
mod list;
mod numbering;
mod past;
mod quota;
mod record;
mod replica;
mod session;
mod sessions;
mod snapshot;
mod tree;
mod view;
mod walk;
mod weight;
mod znode;

#[cfg(any(test, fuzzing))]
#[allow(clippy::unwrap_used, reason = "what does not hold fails the test")]
pub(crate) mod model;
#[cfg(test)]
mod tests;

use std::{fmt, mem, sync::Arc};

pub(crate) use self::{
    access::Lists,
    digest::Digest,
    history::Change,
    session::SessionState,
    snapshot::{Decoder, Encoder},
};
pub use self::{
    past::{Diff, Difference, DifferenceKind, Past, PastError},
    replica::Replica,
    view::View,
};

use crate::{
    command::{Command, KeepAlive},
    config::Parameters,
    id::{LeaseId, Lineage, Origin, SecretHash, SessionId, Zxid},
    mutant::Mutant,
    op::{Acl, Detail, Identities, LimitName, OpError, Outcome, Reply, Txn},
    path::Path,
};

use self::{
    access::Actor,
    digest::Sum,
    history::History,
    session::{Admission, Opener},
    sessions::Sessions,
    tree::Tree,
    znode::Stamp,
};

/// The state of one replica.
///
/// It is fed entries in log order: [`begin_entry`](Self::begin_entry), then each command to
/// [`apply`](Self::apply), then [`drain_changes`](Self::drain_changes).
pub(crate) struct Namespace {
    state: Frozen,
    changes: Vec<Change>,
    /// No access control list was replaced after this transaction. Not part of the state: after a
    /// restart it may be later than it need be.
    lists_replaced: Zxid,
}

impl Namespace {
    /// The state before the first command: the root, no session, zxid 0.
    pub(crate) fn new(parameters: Parameters) -> Self {
        Self::thaw(Frozen {
            parameters,
            lineage: Lineage::NONE,
            zxid: Zxid::ZERO,
            clock_us: 0,
            wall_ms: 0,
            tree: Tree::new(parameters.container_grace_us),
            sessions: Sessions::new(),
            history: History::new(Zxid::ZERO),
        })
    }

    /// The state goes on from here.
    pub(crate) fn thaw(state: Frozen) -> Self {
        Self { lists_replaced: state.zxid, state, changes: Vec::new() }
    }

    /// The state that a cluster begins with that is founded from this one.
    ///
    /// No zxid, and no id of a session or lease, that this cluster gave after this state comes
    /// again. Its sessions end, for nobody knows what they were told after this state; with them
    /// go their nodes. Nobody can resume from before it.
    ///
    /// # Errors
    ///
    /// What is at its end, after about four million restores on top of each other.
    pub(crate) fn into_restored(mut self) -> Result<Self, &'static str> {
        let next_id = self.state.sessions.next_id() + RESTORE_JUMP;
        let zxid = self.state.zxid.as_u64() + RESTORE_JUMP;
        if LeaseId::new(next_id).is_none() {
            return Err("it has no ids for sessions left");
        }
        if zxid >= snapshot::COUNTER_MAX {
            return Err("it has no zxids left");
        }
        self.state.zxid = Zxid::new(zxid);
        while let Some((id, _)) = self.state.sessions.after(None) {
            self.end_session(id);
        }
        let state = &mut self.state;
        state.sessions = Sessions::starting_at(next_id);
        state.history = History::new(state.zxid);
        state.lineage = Lineage::NONE;
        Ok(Self::thaw(self.state))
    }

    /// Moves the clocks before the commands of an entry (ARCHITECTURE.md, rule 4).
    ///
    /// One advance is at most an election timeout. The wall clock never goes back.
    pub(crate) fn begin_entry(&mut self, advance_us: u64, wall_ms: u64) {
        let state = &mut self.state;
        let advance_us = advance_us.min(state.parameters.advance_us_max);
        state.clock_us = state.clock_us.saturating_add(advance_us);
        state.wall_ms = state.wall_ms.max(wall_ms);
    }

    /// Applies one command; checks are made here, alike on every replica.
    pub(crate) fn apply(&mut self, command: Command) -> Applied {
        match command {
            Command::SessionTxn { session, epoch, seq, acked, txn } => Applied::Sequenced {
                session,
                epoch,
                seq,
                reply: self.apply_session_txn(session, epoch, seq, acked, txn),
                ended: false,
            },
            Command::PlainTxn { origin, identities, txn } => {
                let result = self.execute(&txn, &Actor { session: None, who: identities });
                let reply = self.reply(result);
                Applied::Plain { origin, reply }
            }
            Command::OpenSession { origin, secret, ttl_us, identities } => {
                match self.open_session(&origin, (secret, identities), ttl_us) {
                    Ok((opened, old)) => self.session_applied(origin, Ok(opened), old),
                    Err(error) => self.session_applied(origin, Err(error), None),
                }
            }
            Command::AttachSession { origin, session, secret, epoch, identities } => {
                let (deadline_us, sessions) = (self.deadline_base(), &mut self.state.sessions);
                match sessions.attach(session, secret, (epoch, identities), deadline_us) {
                    Ok((attached, old)) => self.session_applied(origin, Ok(attached), Some(old)),
                    Err(error) => self.session_applied(origin, Err(error), None),
                }
            }
            Command::CloseSession { session, epoch, seq } => {
                let (reply, ended) = self.close_session(session, epoch, seq);
                Applied::Sequenced { session, epoch, seq, reply, ended }
            }
            Command::KeepAlives(items) => self.apply_keep_alives(items),
            Command::Expire { lease } => self.expire(lease),
            Command::ReapNode { path, czxid } => self.reap_node(path, czxid),
            Command::PinStore { store, .. } => {
                if self.state.lineage == Lineage::NONE {
                    self.state.lineage = Lineage::of(store);
                }
                Applied::Nothing
            }
            Command::CompareStates { .. } => Applied::Nothing,
        }
    }

    /// Takes what the commands changed that were applied since the last call, in zxid order.
    pub(crate) fn drain_changes(&mut self) -> Vec<Change> {
        mem::take(&mut self.changes)
    }

    /// How much somebody may learn of a change (ARCHITECTURE.md, rule 12): who could read the node
    /// under every list of its transaction and, if that very node still lives, can now.
    pub(crate) fn learns(
        &self,
        lists: &Lists<'_>,
        it: &Change,
        who: &Identities,
    ) -> Option<Detail> {
        let then = lists.allow(it, who)?;
        // Most changes are told at once: a node's list is what it was then.
        (it.zxid > self.lists_replaced || self.state.tree.shows(it, who)).then_some(then)
    }

    /// The list of the parent of a change's node; of one that has gone with its child, the last.
    /// Without one, everything is granted to everybody.
    pub(crate) fn acl_above<'a>(&'a self, lists: &Lists<'a>, it: &Change) -> Option<&'a Acl> {
        let above = it.path.parent_str()?;
        match self.state.tree.get(above) {
            Some(znode) => znode.acl(),
            None => lists.last(above)?.acl(),
        }
    }

    /// Who a session is, as the attachment in force has it.
    ///
    /// # Errors
    ///
    /// [`OpError::SessionEnded`], or [`OpError::Moved`] when another attachment is in force.
    pub(crate) fn identities(&self, id: SessionId, epoch: u64) -> Result<&Identities, OpError> {
        self.state.sessions.identities(id, epoch)
    }

    /// The tree as it is now, for somebody who may see everything; O(1).
    pub(crate) fn view(&self) -> View {
        let Frozen { lineage, zxid, clock_us, tree, sessions, .. } = &self.state;
        View::new((*lineage, *zxid, *clock_us), tree.clone(), sessions.clone())
    }

    /// The tree as it is now, and as it was; O(1).
    pub(crate) fn past(&self) -> Past {
        Past::new(self.view(), self.state.history.clone())
    }

    /// Everything as it is now; O(1).
    pub(crate) fn freeze(&self) -> Frozen {
        self.state.clone()
    }

    /// What everything comes to; O(1).
    pub(crate) fn digest(&self) -> Digest {
        self.state.digest()
    }

    /// What everything but the parameters comes to; cheaper, for it is asked after each
    /// transaction.
    pub(crate) fn mark(&self) -> u64 {
        self.state.mark()
    }

    /// The last transaction.
    pub(crate) fn zxid(&self) -> Zxid {
        self.state.zxid
    }

    /// Of which history its zxids are.
    pub(crate) fn lineage(&self) -> Lineage {
        self.state.lineage
    }

    /// The replicated clock.
    pub(crate) fn clock_us(&self) -> u64 {
        self.state.clock_us
    }

    /// What all replicas agreed on.
    pub(crate) fn parameters(&self) -> &Parameters {
        &self.state.parameters
    }

    /// How many sessions live.
    pub(crate) fn sessions(&self) -> usize {
        self.state.sessions.len()
    }

    /// How many znodes there are, the root included, and how many of them have an owner.
    pub(crate) fn znodes(&self) -> (usize, u64) {
        (self.state.tree.len(), self.state.tree.weight.owned)
    }

    /// Bytes of all paths and data.
    pub(crate) fn tree_bytes(&self) -> u64 {
        self.state.tree.weight.bytes
    }

    /// Whether anything waits for the clock.
    pub(crate) fn has_deadlines(&self) -> bool {
        !self.state.sessions.is_empty() || self.state.tree.has_deadlines()
    }

    /// The sessions and leases whose deadline is `clock_us` or earlier, earliest first: at most
    /// `max`, and no more than own the nodes of one session, but at least one.
    pub(crate) fn due(&self, clock_us: u64, max: usize) -> Vec<LeaseId> {
        self.state.sessions.due(clock_us, max, self.state.parameters.ephemerals_max)
    }

    /// The nodes that may be removed at `clock_us`, each with the transaction that created it:
    /// those that waited longest first, at most `max`.
    pub(crate) fn due_nodes(&self, clock_us: u64, max: usize) -> Vec<(Path, Zxid)> {
        let tree = &self.state.tree;
        let named = |path: &Arc<str>| {
            let znode = tree.get(path)?;
            Some((Path::from_shared_checked(Arc::clone(path)), znode.czxid))
        };
        tree.due(clock_us).take(max).filter_map(named).collect()
    }

    /// A session, if it lives.
    pub(crate) fn session(&self, id: SessionId) -> Option<SessionState> {
        self.state.sessions.get(id).map(|it| it.state(id))
    }

    /// Whose a lease beside the session's own is, and its time to live.
    pub(crate) fn lease(&self, id: LeaseId) -> Option<(SessionId, u64)> {
        self.state.sessions.lease(id).map(|it| (it.session, it.ttl_us))
    }

    /// The kept reply to a session's command (ARCHITECTURE.md, rule 8).
    pub(crate) fn cached_reply(&self, id: SessionId, seq: u64) -> Option<Reply> {
        self.state.sessions.get(id)?.cached(seq).cloned()
    }

    /// The last transaction whose changes are no longer all kept: a watch resumes from here on.
    pub(crate) fn history_floor(&self) -> Zxid {
        self.state.history.floor()
    }

    /// The changes after `zxid`, in order; starts in O(log n).
    ///
    /// # Errors
    ///
    /// The floor, when `zxid` lies below it.
    pub(crate) fn history_after(&self, zxid: Zxid) -> Result<impl Iterator<Item = &Change>, Zxid> {
        self.state.history.after(zxid)
    }

    fn apply_session_txn(
        &mut self,
        id: SessionId,
        epoch: u64,
        seq: u64,
        acked: u64,
        txn: Txn,
    ) -> Reply {
        let state = &mut self.state;
        let room_bytes = session::room_bytes(&txn, &state.parameters);
        let keeps = (acked, room_bytes);
        match state.sessions.begin(id, epoch, seq, keeps, &state.parameters) {
            (Admission::Refuse(error), _) => self.reply(Err(error)),
            (Admission::Cached(reply), _) => reply,
            (Admission::Next, who) => {
                let result = self.execute(&txn, &Actor { session: Some(id), who });
                let reply = self.reply(result);
                self.state.sessions.record(id, reply.clone());
                reply
            }
        }
    }

    /// Also gives the epoch of the attachment that this one ended.
    fn open_session(
        &mut self,
        origin: &Origin,
        (secret, identities): (SecretHash, Identities),
        ttl_us: u64,
    ) -> Result<(SessionState, Option<u64>), OpError> {
        let opener = (Opener { node: origin.node, boot_nonce: origin.boot_nonce }, identities);
        let base_us = self.deadline_base();
        let state = &mut self.state;
        if let Some(id) = state.sessions.with_secret(secret) {
            return state.sessions.reopen(id, opener, base_us);
        }
        let at = (base_us, state.zxid.next());
        let opened = state.sessions.open(secret, opener, ttl_us, at, &state.parameters)?;
        state.zxid = at.1;
        Ok((opened, None))
    }

    fn close_session(&mut self, id: SessionId, epoch: u64, seq: u64) -> (Reply, bool) {
        let state = &mut self.state;
        let admission = state.sessions.admit(id, epoch, seq, None, &state.parameters);
        match admission {
            Admission::Refuse(error) => (self.reply(Err(error)), false),
            Admission::Cached(reply) => (reply, false),
            Admission::Next => {
                self.end_session(id);
                (self.reply(Ok(Outcome::Closed)), true)
            }
        }
    }

    fn apply_keep_alives(&mut self, items: Vec<KeepAlive>) -> Applied {
        let base_us = self.deadline_base();
        let (accepted, refused) =
            items.into_iter().partition(|item| self.state.sessions.keep_alive(item, base_us));
        Applied::KeepAlives { accepted, refused }
    }

    fn expire(&mut self, lease: LeaseId) -> Applied {
        let clock_us = self.state.clock_us;
        let over = |deadline_us| clock_us >= deadline_us || Mutant::ExpiryUnchecked.active();
        let id = lease.session();
        if let Some(session) = self.session(id).filter(|it| over(it.deadline_us)) {
            self.end_session(id);
            return Applied::Expired { session: id, epoch: session.epoch };
        }
        let granted = self.state.sessions.lease(lease).filter(|it| over(it.deadline_us));
        let Some(session) = granted.map(|it| it.session) else {
            return Applied::NotExpired { lease };
        };
        let ended = self.state.sessions.remove_lease(lease);
        self.remove_owned(ended.into_iter().flat_map(|(_, ephemerals)| ephemerals));
        Applied::LeaseExpired { lease, session }
    }

    /// Removes a node that is due, if it is still the same.
    fn reap_node(&mut self, path: Path, czxid: Zxid) -> Applied {
        let at = self.stamp();
        let due = self.state.tree.is_due(&path, czxid, at.clock_us);
        if !due {
            return Applied::NotReaped { path };
        }
        let change = self.state.tree.remove_leaf(Arc::clone(path.shared()), at);
        self.publish(change);
        self.state.zxid = at.zxid;
        self.state.history.trim(&self.state.parameters);
        Applied::Reaped { path }
    }

    /// Removes the session, its leases and their ephemeral nodes, all in one transaction.
    fn end_session(&mut self, id: SessionId) {
        let mut ephemerals = self.state.sessions.remove(id);
        if Mutant::OwnedStays.active() {
            ephemerals.clear();
        }
        self.remove_owned(ephemerals);
    }

    /// Removes nodes whose owner is gone, in one transaction.
    fn remove_owned(&mut self, ephemerals: impl IntoIterator<Item = Arc<str>>) {
        let at = self.stamp();
        for path in ephemerals {
            let change = self.state.tree.remove_leaf(path, at);
            self.publish(change);
        }
        self.state.zxid = at.zxid;
        self.state.history.trim(&self.state.parameters);
    }

    fn publish(&mut self, change: Change) {
        self.state.history.push(change.clone());
        self.changes.push(change);
    }

    /// When the next transaction happens.
    fn stamp(&self) -> Stamp {
        let Frozen { zxid, wall_ms, clock_us, .. } = self.state;
        Stamp { zxid: zxid.next(), wall_ms, clock_us }
    }

    /// What the TTL of a session or a lease is added to (ARCHITECTURE.md, rule 4: one tick more).
    fn deadline_base(&self) -> u64 {
        self.state.clock_us.saturating_add(self.state.parameters.tick_us)
    }

    fn reply(&self, result: Result<Outcome, OpError>) -> Reply {
        Reply { zxid: self.state.zxid, result }
    }

    fn session_applied(
        &self,
        origin: Origin,
        result: Result<SessionState, OpError>,
        moved_from: Option<u64>,
    ) -> Applied {
        Applied::Session { origin, zxid: self.state.zxid, result, moved_from }
    }
}

/// What a broken memory does: nothing that is counted notices.
#[cfg(any(test, feature = "sim"))]
impl Namespace {
    /// A time that decides nothing, so that nobody is told anything else before it is found.
    pub(crate) fn corrupt_time(&mut self) {
        self.state.tree.corrupt_time();
    }
}

#[cfg(test)]
impl Namespace {
    pub(crate) fn corrupt_clock(&mut self) {
        self.state.clock_us += 1;
    }

    pub(crate) fn corrupt_data(&mut self, path: &str, data: bytes::Bytes) {
        self.state.tree.corrupt(path, data);
    }

    pub(crate) fn corrupt_reply(&mut self, session: SessionId) {
        self.state.sessions.corrupt(session);
    }

    pub(crate) fn corrupt_history(&mut self) {
        self.state.history.corrupt();
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state.fmt(f)
    }
}

/// The whole state at one moment; a clone is O(1), and the last one to go may be dear to drop.
#[derive(Clone)]
pub(crate) struct Frozen {
    parameters: Parameters,
    /// Set by the first entry that names a store, which is the first one with commands.
    lineage: Lineage,
    zxid: Zxid,
    clock_us: u64,
    wall_ms: u64,
    tree: Tree,
    sessions: Sessions,
    history: History,
}

impl Frozen {
    /// What everything comes to; O(1).
    pub(crate) fn digest(&self) -> Digest {
        let head = digest::Head {
            parameters: &self.parameters,
            lineage: self.lineage,
            zxid: self.zxid,
            clock_us: self.clock_us,
            wall_ms: self.wall_ms,
            next_session: self.sessions.next_id(),
            floor: self.history.floor(),
        };
        digest::digest(&head, self.sums())
    }

    fn mark(&self) -> u64 {
        let numbers = [self.zxid.as_u64(), self.clock_us, self.wall_ms, self.sessions.next_id()];
        digest::mark(numbers, self.sums())
    }

    fn sums(&self) -> [Sum; 3] {
        [self.tree.sum, self.sessions.sum(), self.history.sum()]
    }

    /// The last transaction.
    pub(crate) fn zxid(&self) -> Zxid {
        self.zxid
    }

    /// Of which history its zxids are.
    pub(crate) fn lineage(&self) -> Lineage {
        self.lineage
    }
}

impl fmt::Debug for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Namespace({:?}, clock {} us, {} znodes, {} sessions, {} changes after {:?})",
            self.zxid,
            self.clock_us,
            self.tree.len(),
            self.sessions.len(),
            self.history.len(),
            self.history.floor(),
        )
    }
}

/// What a command did, and whom to tell.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Applied {
    /// A session's transaction, or its close.
    Sequenced {
        session: SessionId,
        epoch: u64,
        seq: u64,
        reply: Reply,
        /// Whether this command ended the session.
        ended: bool,
    },
    /// A transaction outside any session.
    Plain { origin: Origin, reply: Reply },
    /// A session was opened or attached, or was not.
    Session {
        origin: Origin,
        zxid: Zxid,
        result: Result<SessionState, OpError>,
        /// The epoch of the attachment that this one ended.
        moved_from: Option<u64>,
    },
    /// Keep-alives; a refused one names no attachment in force, or is not the newest.
    KeepAlives { accepted: Vec<KeepAlive>, refused: Vec<KeepAlive> },
    /// The session and its ephemeral nodes are gone; `epoch` is that of its last attachment.
    Expired { session: SessionId, epoch: u64 },
    /// The lease of this session and its ephemeral nodes are gone.
    LeaseExpired { lease: LeaseId, session: SessionId },
    /// The deadline has moved, or the session or lease has ended before.
    NotExpired { lease: LeaseId },
    /// The node is gone.
    Reaped { path: Path },
    /// The node is gone already, another one, or not due.
    NotReaped { path: Path },
    /// The command is not for this state machine.
    Nothing,
}

/// Zxids, and ids of sessions and leases, that a restored cluster leaves to the one before it.
const RESTORE_JUMP: u64 = 1 << 40;

fn limit(limit: LimitName, value: usize, max: usize) -> OpError {
    OpError::Limit { limit, value: value as u64, max: max as u64 }
}
