//! raft-rs, contained: bytes in, bytes out.
//!
//! **Feed messages and ticks, drain until there is nothing, persist each write, in order.** This is
//! the only room that names `raft::`. raft 0.7 trusts its peers, its caller and its disk; this room
//! trusts none of the first, and owes the duties of ARCHITECTURE.md, section 5, for the others.
//! What it must not know: znodes, sessions, stores, frames, time.
//!
//! Invariants: writes become durable in the order in which they were handed out. While a barrier (a
//! write of a term, a vote or a snapshot) is out, raft is not stepped (C3); behind plain entries it
//! goes on. A campaign starts only when all entries are durable (C4). No vote, no acknowledgement,
//! and no message of a term that is not durable, leaves before `persisted` (ARCHITECTURE.md, rule
//! 5). After every call to raft the election timeout is a
//! function of (seed, id, term, role) (H20). A fault of our own state ends the room, for good, in a
//! typed state; a panic of raft, should one be left, is caught and ends it, too.

mod command;
mod convert;
mod ended;
mod membership;
mod open;
mod status;
mod storage;
#[cfg(test)]
mod tests;
mod timeout;
mod validate;

use std::{
    any::Any,
    collections::{BTreeMap, VecDeque},
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
};

use raft::{
    RawNode, Ready, SnapshotStatus, StateRole,
    eraftpb::{ConfChange, ConfChangeType, Entry, Message, MessageType},
};

use crate::{
    id::NodeId,
    mutant::Mutant,
    wire::{HardState, LogEntry, RaftMessage, SnapshotMeta},
};

use self::{
    membership::Members,
    storage::TailStore,
    validate::{Ignored, Verdict},
};

pub(crate) use self::{
    command::ChangeError,
    ended::Ended,
    membership::{AppliedChange, MembershipChange},
    open::{OpenError, Options, RestoredLog},
    status::{Replication, Role},
    validate::Rejected,
};

/// One member's part in the consensus.
pub(crate) struct Consensus {
    id: NodeId,
    options: Options,
    raw: RawNode<TailStore>,
    /// The hard state on the disk.
    durable: HardState,
    /// The writes that are out, oldest first; a barrier is the last one.
    out: VecDeque<Out>,
    /// What became possible with the last write, for the next batch.
    pending: Pending,
    /// Changes of the membership to tell raft as soon as it may be called.
    changes: Vec<(u64, MembershipChange)>,
    /// The last snapshot that raft took its members from.
    members_floor: u64,
    /// The snapshot that the node has staged and verified.
    staged: Option<(u64, u64)>,
    /// The last term whose leader is known, and that leader.
    term_leader: Option<(u64, NodeId)>,
    may_vote: bool,
    /// Until the node may vote: a leader's term, and the highest commit that it announced.
    announced: (u64, u64),
    /// The term in which the node started, and who leads in it, once that is known.
    opened: (u64, Option<NodeId>),
    /// The last read contexts; a fresh one is none of them.
    contexts: VecDeque<[u8; 16]>,
    ended: Option<Ended>,
    rejected: BTreeMap<Rejected, u64>,
}

/// One drain.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Batch {
    /// May leave at once.
    pub(crate) messages: Vec<(NodeId, RaftMessage)>,
    /// Who needs a snapshot, and from where on the log could follow it; nothing was sent.
    pub(crate) snapshots_needed: Vec<(NodeId, SnapshotMeta)>,
    /// What must be durable: then call `persisted`, once for each write and in their order.
    pub(crate) write: Option<RaftWrite>,
    /// To apply now, in order, before an install in `write`; durable here.
    pub(crate) committed: Vec<LogEntry>,
    /// Reads that may be served once the index is applied.
    pub(crate) reads: Vec<([u8; 16], u64)>,
}

/// What must be durable, all of it: the snapshot first, then the entries, then the hard state.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct RaftWrite {
    pub(crate) hard_state: Option<HardState>,
    pub(crate) entries: Vec<LogEntry>,
    /// The staged snapshot becomes the current one, and the log before it is dropped.
    pub(crate) install: Option<SnapshotMeta>,
    /// Nothing is taken until this write is durable.
    pub(crate) barrier: bool,
}

/// A write that is out.
struct Out {
    /// raft's number of it.
    number: u64,
    hard_state: HardState,
    held: Vec<(NodeId, RaftMessage)>,
    barrier: Option<Barrier>,
}

/// What raft learns of only when it is durable.
struct Barrier {
    ready: Ready,
    entries: Vec<Entry>,
    install: Option<(SnapshotMeta, Members)>,
}

#[derive(Default)]
struct Pending {
    messages: Vec<Message>,
    committed: Vec<Entry>,
}

impl Consensus {
    /// Starts from what the disk gave back.
    ///
    /// # Errors
    ///
    /// If the options are not possible, or what is restored does not fit together.
    pub(crate) fn open(options: Options, restored: RestoredLog) -> Result<Self, OpenError> {
        let durable = restored.hard_state;
        let may_vote = restored.may_vote;
        let (store, hard_state) = restored.into_store()?;
        let config = options.to_raft(store.applied())?;
        let members_floor = store.applied();
        let logger = options.logger_for_raft();
        let raw = catch_unwind(AssertUnwindSafe(|| RawNode::new(&config, store, &logger)))
            .map_err(|panic| OpenError::Raft(panic_message(&*panic)))?
            .map_err(|error| OpenError::Raft(error.to_string()))?;
        let mut consensus = Self {
            id: options.id,
            options,
            raw,
            durable,
            out: VecDeque::new(),
            pending: Pending::default(),
            changes: Vec::new(),
            members_floor,
            staged: None,
            term_leader: None,
            may_vote,
            announced: (0, hard_state.commit),
            opened: (hard_state.term, None),
            contexts: VecDeque::new(),
            ended: None,
            rejected: BTreeMap::new(),
        };
        consensus.settle();
        Ok(consensus)
    }

    // Feed.

    /// One tick has passed. While something waits to be drained, time stands still.
    pub(crate) fn tick(&mut self) {
        let undrained = self.undrained();
        if self.is_blocked() || (undrained && self.role() != Role::Leader) {
            return;
        }
        if self.may_vote {
            self.call("tick", |raw| raw.tick());
        } else if !undrained {
            self.leave_opening_term();
        }
    }

    /// A peer's message, of a frame that was checked.
    ///
    /// # Errors
    ///
    /// If it had no effect. If it showed a fault of this node's own state, the room has ended.
    pub(crate) fn step(&mut self, from: NodeId, message: RaftMessage) -> Result<(), Rejected> {
        self.try_step(from, message).inspect_err(|&rejected| {
            *self.rejected.entry(rejected).or_default() += 1;
        })
    }

    /// Messages to `peer` get lost.
    pub(crate) fn unreachable(&mut self, peer: NodeId) {
        self.call("unreachable", |raw| raw.report_unreachable(peer.as_u64()));
    }

    /// The one snapshot (index, term) that is staged and verified, if any; forgotten once it is
    /// installed.
    pub(crate) fn expect_snapshot(&mut self, staged: Option<(u64, u64)>) {
        self.staged = staged;
    }

    /// How a transfer ended. Each needed snapshot must be reported: raft sends nothing until then.
    pub(crate) fn report_snapshot(&mut self, to: NodeId, delivered: bool) {
        let status = if delivered { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.call("report_snapshot", |raw| raw.report_snapshot(to.as_u64(), status));
    }

    // Drain.

    /// What there is to do, or nothing. While a barrier is out there is nothing.
    pub(crate) fn drain(&mut self) -> Option<Batch> {
        if self.is_blocked() {
            return None;
        }
        let mut batch = Batch::default();
        while batch.is_empty() {
            let pending = mem::take(&mut self.pending);
            if pending.messages.is_empty() && pending.committed.is_empty() {
                self.call("has_ready", |raw| raw.has_ready()).filter(|&ready| ready)?;
            }
            let ready = self.call("ready", RawNode::ready)?;
            self.fill(&mut batch, pending, ready);
            if self.ended.is_some() {
                return None;
            }
        }
        Some(batch)
    }

    /// The oldest write that is out is durable: what was held until then.
    pub(crate) fn persisted(&mut self) -> Vec<(NodeId, RaftMessage)> {
        let Some(out) = self.out.pop_front() else {
            return Vec::new();
        };
        self.durable = out.hard_state;
        match out.barrier {
            Some(barrier) => self.barrier_persisted(barrier),
            None => drop(self.call("persisted", |raw| raw.on_persist_ready(out.number))),
        }
        self.settle();
        if self.ended.is_some() { Vec::new() } else { out.held }
    }

    // Private.

    fn barrier_persisted(&mut self, barrier: Barrier) {
        let Barrier { ready, entries, install } = barrier;
        let light = self.call("persisted", |raw| {
            let index = install.as_ref().map(|(meta, _)| meta.index);
            if let Some((meta, members)) = install {
                raw.mut_store().install(&meta, members);
            }
            raw.mut_store().append(entries);
            let light = raw.advance_append(ready);
            if let Some(index) = index {
                raw.advance_apply_to(index);
            }
            light
        });
        if let Some(mut light) = light {
            self.pending.messages.extend(light.take_messages());
            self.pending.committed.extend(light.take_committed_entries());
            for (index, change) in mem::take(&mut self.changes) {
                self.tell_change(index, change);
            }
        }
    }

    fn try_step(&mut self, from: NodeId, mut message: RaftMessage) -> Result<(), Rejected> {
        if self.ended.is_some() {
            return Err(Rejected::Ignored(Ignored::Ended));
        }
        if self.is_blocked() {
            return Err(Rejected::Ignored(Ignored::WriteOut));
        }
        let kind = match self.judge(from, &message) {
            Verdict::Accept(kind) => kind,
            Verdict::Reject(rejected) => return Err(rejected),
            Verdict::End(ended) => {
                self.ended = Some(ended);
                return Err(Rejected::Ignored(Ignored::Ended));
            }
        };
        if !self.may_vote {
            self.note_announced(kind, &mut message);
        }
        match kind {
            MessageType::MsgHeartbeat if Mutant::TailCommitted.active() => {
                message.commit = self.last_index();
            }
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote
                if Mutant::AnyLogElected.active() =>
            {
                message.log_term = message.term;
            }
            _ => {}
        }
        let message = convert::incoming(kind, from, self.id, message);
        match self.call("step", |raw| raw.step(message)) {
            Some(Ok(())) => Ok(()),
            Some(Err(raft::Error::StepPeerNotFound)) => Err(Rejected::Ignored(Ignored::NotAMember)),
            Some(Err(_)) => Err(Rejected::Ignored(Ignored::Dropped)),
            None => Err(Rejected::Ignored(Ignored::Ended)),
        }
    }

    fn judge(&self, from: NodeId, message: &RaftMessage) -> Verdict {
        let raft = &self.raw.raft;
        let view = validate::View {
            id: self.id,
            term: raft.term,
            leads: raft.state == StateRole::Leader,
            leader: self.leader(),
            term_leader: self.term_leader,
            commit: raft.raft_log.committed,
            last_index: raft.raft_log.last_index(),
            term_at: &|index| self.term_at(index),
            staged: self.staged,
            may_vote: self.may_vote,
            trusted: self.opened.1,
            joiner: self.raw.store().members().is_empty(),
            undrained: self.undrained(),
        };
        validate::validate(&view, from, message)
    }

    /// A node without its tail learns how far it must catch up, and takes no commit beyond its log.
    fn note_announced(&mut self, kind: MessageType, message: &mut RaftMessage) {
        use MessageType::{MsgAppend, MsgHeartbeat};
        if matches!(kind, MsgAppend | MsgHeartbeat) && message.term >= self.term() {
            if message.term > self.announced.0 {
                self.announced = (message.term, 0);
            }
            self.announced.1 = self.announced.1.max(message.commit);
        }
        if kind == MsgHeartbeat {
            message.commit = message.commit.min(self.last_index());
        }
    }

    /// Moves what raft has ready into the batch, or into the write that is then out.
    fn fill(&mut self, batch: &mut Batch, pending: Pending, mut ready: Ready) {
        let raft = &self.raw.raft;
        let vote = if Mutant::VoteForgotten.active() { 0 } else { raft.vote };
        let hard_state = HardState::new(raft.term, vote, raft.raft_log.committed);
        let elected = (hard_state.term, hard_state.vote) != (self.durable.term, self.durable.vote);
        let bytes_max = self.options.message_bytes_max;
        let entries = ready.take_entries();
        let install = self.take_install(&ready);
        let mut committed = pending.committed;
        committed.extend(ready.take_committed_entries());
        batch.committed.extend(committed.into_iter().map(convert::entry_from_raft));
        batch.take_reads(&mut ready);
        let mut messages = pending.messages;
        messages.extend(ready.take_messages());
        let mut held = ready.take_persisted_messages();
        if elected {
            // Whoever leads in a term that is not durable yet may forget it, and what it sent
            // (rule 5).
            held.splice(0..0, mem::take(&mut messages));
        } else {
            // These acknowledge nothing but the term.
            let at_once = |it: &Message| it.get_msg_type() == MessageType::MsgHeartbeatResponse;
            let (now, later): (Vec<_>, Vec<_>) = held.into_iter().partition(at_once);
            messages.extend(now);
            held = later;
        }
        let early = if elected { Mutant::VoteBeforeSync } else { Mutant::AckBeforeSync };
        if early.active() {
            messages.append(&mut held);
        }
        batch.messages = batch.sort(messages, bytes_max);
        let mut held = batch.sort(held, bytes_max);
        self.tell_durable(batch.messages.iter_mut().chain(&mut held));
        let number = ready.number();
        if !elected && entries.is_empty() && install.is_none() {
            // Nothing must be durable, so raft goes on at once. A commit rides on the next write.
            // An answer may acknowledge what is in the last write that is out.
            match self.out.back_mut() {
                Some(last) => last.held.extend(held),
                None => batch.messages.extend(held),
            }
            let all_durable = self.out.is_empty();
            self.call("advance", |raw| {
                raw.advance_append_async(ready);
                if all_durable {
                    raw.on_persist_ready(number);
                }
            });
            return;
        }
        let barrier = elected || (install.is_some() && !Mutant::InstallNoBarrier.active());
        batch.write = Some(RaftWrite {
            hard_state: (hard_state != self.durable && !Mutant::TermForgotten.active())
                .then_some(hard_state),
            entries: entries.iter().cloned().map(convert::entry_from_raft).collect(),
            install: install.as_ref().map(|(meta, _)| meta.clone()),
            barrier,
        });
        let barrier = if barrier {
            Some(Barrier { ready, entries, install })
        } else {
            self.call("append", |raw| {
                raw.mut_store().append(entries);
                raw.advance_append_async(ready);
            });
            None
        };
        self.out.push_back(Out { number, hard_state, held, barrier });
    }

    /// A leader says up to where its log is on its disk.
    fn tell_durable<'a>(&self, messages: impl Iterator<Item = &'a mut (NodeId, RaftMessage)>) {
        let (append, heartbeat) = (MessageType::MsgAppend, MessageType::MsgHeartbeat);
        for (_, message) in messages.filter(|it| it.1.term == self.term()) {
            if [append as u32, heartbeat as u32].contains(&message.kind) {
                message.durable = self.durable_index();
            }
        }
    }

    fn take_install(&mut self, ready: &Ready) -> Option<(SnapshotMeta, Members)> {
        if ready.snapshot().is_empty() {
            return None;
        }
        let meta = convert::snapshot_from_raft(ready.snapshot().get_metadata());
        self.members_floor = self.members_floor.max(meta.index);
        self.staged = None;
        let members = Members { voters: meta.voters.clone(), learners: meta.learners.clone() };
        Some((meta, members))
    }

    /// Tells raft of a change that was applied, unless raft has it from a later snapshot.
    fn tell_change(&mut self, index: u64, change: MembershipChange) {
        let pending_snapshot = self.raw.snap().map_or(0, |snap| snap.get_metadata().index);
        if index <= self.members_floor.max(pending_snapshot) {
            return;
        }
        let record = ConfChange {
            node_id: change.node().as_u64(),
            change_type: match change {
                MembershipChange::AddLearner(_) => ConfChangeType::AddLearnerNode,
                MembershipChange::Promote(_) => ConfChangeType::AddNode,
                MembershipChange::Remove(_) => ConfChangeType::RemoveNode,
            },
            ..ConfChange::default()
        };
        let removed_self = change == MembershipChange::Remove(self.id);
        let told = self.call("apply_conf_change", |raw| {
            // raft panics on a leader that is no member (C5).
            if removed_self {
                let term = raw.raft.term;
                raw.raft.become_follower(term, raft::INVALID_ID);
            }
            raw.apply_conf_change(&record)
        });
        if let Some(Err(error)) = told {
            let what = format!("raft refuses the change {change:?} at {index}: {error}");
            self.ended = Some(Ended::Corrupt { what });
        }
    }

    /// The only way to raft: nothing after the end, no panic gets out, and time stays a function.
    fn call<R>(
        &mut self,
        during: &'static str,
        f: impl FnOnce(&mut RawNode<TailStore>) -> R,
    ) -> Option<R> {
        if self.ended.is_some() {
            return None;
        }
        match catch_unwind(AssertUnwindSafe(|| f(&mut self.raw))) {
            Ok(result) => {
                self.settle();
                Some(result)
            }
            Err(panic) => {
                let message = panic_message(&*panic);
                self.ended = Some(Ended::Panicked { during, message });
                None
            }
        }
    }

    /// After each call: the timeout, who leads, and whether the node has caught up to vote.
    fn settle(&mut self) {
        let raft = &mut self.raw.raft;
        let (id, term, role) = (raft.id, raft.term, raft.state as u64);
        let election_ticks = self.options.election_ticks;
        let ticks = timeout::timeout_ticks(self.options.seed, id, term, role, election_ticks);
        raft.set_randomized_election_timeout(ticks as usize);
        if let Some(leader) = NodeId::new(raft.leader_id) {
            self.term_leader = Some((term, leader));
        }
        if term == self.opened.0 && self.opened.1.is_none() {
            self.opened.1 = NodeId::new(raft.leader_id);
        }
        if !self.may_vote {
            self.may_vote = self.has_caught_up() && term > self.opened.0;
        }
    }

    /// Whether all is durable here that the leader of this term has committed, by an entry of its
    /// own term: only then does its commit cover all that was ever committed before.
    fn has_caught_up(&self) -> bool {
        let (announced_term, commit) = self.announced;
        let reached = self.raw.store().term_at(commit) == Some(announced_term);
        announced_term > 0 && announced_term == self.term() && reached && self.out.is_empty()
    }

    /// A node that lost its tail moves on from the term in which it started, when it has caught up.
    ///
    /// The leader of that term may still count an acknowledgement of what was lost, also for
    /// entries that it commits later, so to have caught up with it proves nothing. A leader of a
    /// later term starts to count from nothing. To wait for one would leave the cluster with a
    /// voter less, and nobody would know.
    fn leave_opening_term(&mut self) {
        let same_term = self.term() == self.opened.0;
        if same_term && self.has_caught_up() && self.raw.raft.promotable() {
            self.call("leave_opening_term", |raw| {
                let term = raw.raft.term + 1;
                raw.raft.become_follower(term, raft::INVALID_ID);
            });
        }
    }

    /// Whether there are entries, or a snapshot, that are not durable yet.
    fn undrained(&self) -> bool {
        let unstable = self.raw.raft.raft_log.unstable();
        !unstable.entries.is_empty() || unstable.snapshot.is_some() || !self.out.is_empty()
    }
}

impl Batch {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Converts raft's messages; those with a snapshot become a need of one, and are not sent.
    fn sort(&mut self, messages: Vec<Message>, bytes_max: usize) -> Vec<(NodeId, RaftMessage)> {
        let mut sorted = Vec::with_capacity(messages.len());
        for message in messages {
            match NodeId::new(message.to) {
                Some(to) if message.has_snapshot() => {
                    let meta = message.get_snapshot().get_metadata();
                    self.snapshots_needed.push((to, convert::snapshot_from_raft(meta)));
                }
                _ => convert::outgoing(message, bytes_max, &mut sorted),
            }
        }
        sorted
    }

    fn take_reads(&mut self, ready: &mut Ready) {
        for read in ready.take_read_states() {
            if let Ok(context) = <[u8; 16]>::try_from(read.request_ctx.as_slice()) {
                self.reads.push((context, read.index));
            }
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a message".into())
}
