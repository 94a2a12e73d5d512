//! Draining a node: what leaves, what must be durable first, and what its token releases.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::{DiskError, Ended, MembershipError, Misuse, Node, SubmitError};
use crate::{
    command::{Batch, Command, Entry, KEEP_ALIVES_MAX},
    consensus::{ChangeError, RaftWrite},
    id::NodeId,
    node::{
        error::{RequestError, Unknown},
        leader::Leadership,
        ready::{Message, Ready, SnapshotWrite, Token, Write},
        request::Output,
        transfer::{Outgoing, Source},
    },
    wire::{Body, FRAME_BYTES_MAX, Forward, SnapshotMeta},
};

/// What a write that is out will have made durable.
#[derive(Debug)]
pub(crate) struct InFlight {
    number: u64,
    /// When it went out.
    tick: u64,
    /// Nothing is taken until it is durable.
    barrier: bool,
    raft: bool,
    local_record: bool,
    /// The snapshot that is being received is whole with this write.
    staged: bool,
    install: Option<SnapshotMeta>,
    /// It has bytes of the snapshot that this node writes for itself, for which nothing waits.
    own_bytes: bool,
}

impl Node {
    /// Takes what the node has to say, or `None` when it is drained.
    ///
    /// Returns `None` while the node [is blocked](Self::is_blocked). A drain is bounded: see
    /// [`has_more`](Self::has_more).
    pub fn ready(&mut self) -> Option<Ready> {
        if self.token_dropped.load(Ordering::Acquire) {
            self.in_flight.clear();
            self.end(Ended::TokenDropped);
        }
        if self.is_blocked() {
            return None;
        }
        if let Some((write, token, in_flight)) = self.held_write.take() {
            self.in_flight.push_back(in_flight);
            return Some(Ready { write: Some((write, token)), ..Ready::default() });
        }
        if !self.is_out() {
            self.answer_from_snapshot();
            self.follow_leader();
            self.ask_to_compare();
            self.lead();
            self.follow();
        }
        let (raft, install) = self.drain_consensus();
        self.answer_reads();
        self.read_on();
        let mut write = self.take_write(raft, install);
        if !self.outputs.is_empty() {
            // What is answered was durable before: it does not wait for the next fsync.
            self.held_write = write.take();
        }
        let write = write.map(|(write, token, in_flight)| {
            self.in_flight.push_back(in_flight);
            (write, token)
        });
        // An opening is counted before it speaks.
        let speaks = self.identity.speaks();
        let ready = Ready {
            messages: if speaks { std::mem::take(&mut self.messages) } else { Vec::new() },
            write,
            outputs: std::mem::take(&mut self.outputs),
            garbage: std::mem::take(&mut self.garbage),
        };
        let quiet = ready.messages.is_empty()
            && ready.write.is_none()
            && ready.outputs.is_empty()
            && ready.garbage.is_empty();
        if quiet && self.held_write.is_none() && !self.may_answer_from_snapshot() {
            self.undrained = false;
            self.catch_up_left = CATCH_UP_MAX;
            return None;
        }
        Some(ready)
    }

    /// Says that the write of `token` is durable, and with it all that came out before. Returns the
    /// messages that may leave only now.
    ///
    /// # Errors
    ///
    /// [`Misuse::ForeignToken`] when the token is not that of the oldest write that is out. If it
    /// is that of a later one, the node has ended as if it had been dropped.
    pub fn persisted(&mut self, token: Token) -> Result<Vec<Message>, Misuse> {
        let in_flight = self.redeem(token)?;
        if in_flight.raft && self.ended.is_none() {
            let acknowledged = self.consensus.persisted();
            if !self.is_quarantined() {
                for (to, message) in acknowledged {
                    self.send(to, Body::Raft(message));
                }
            }
            self.check_consensus();
        }
        if in_flight.local_record {
            self.identity.persisted();
        }
        if in_flight.staged {
            self.staged();
        }
        if let Some(meta) = in_flight.install {
            self.install(&meta);
        }
        self.undrained = true;
        Ok(std::mem::take(&mut self.messages))
    }

    /// Says that the write of `token` failed. The node ends: it votes no more and acknowledges
    /// nothing, and every pending request is answered `Unknown`. Tokens of later writes are void.
    pub fn failed(&mut self, token: Token, why: impl Into<DiskError>) {
        if self.redeem(token).is_ok() {
            self.in_flight.clear();
            self.end_with_disk(why.into());
        }
        self.undrained = true;
    }

    /// Says that the disk failed while no write was out: what was durable is so no more, or work
    /// for the log met an error. The node ends as after [`failed`](Self::failed).
    pub fn disk_failed(&mut self, why: impl Into<DiskError>) {
        if let Some((_, token, _)) = self.held_write.take() {
            token.spend();
        }
        self.end_with_disk(why.into());
        self.undrained = true;
    }

    fn end_with_disk(&mut self, DiskError { fault, why }: DiskError) {
        self.end(Ended::DiskFailed { fault, why });
    }

    /// The node ends here: what waits is answered, and nothing leaves any more.
    pub(super) fn end(&mut self, ended: Ended) {
        if self.ended.is_some() {
            return;
        }
        slog::error!(self.config.logger, "the node has ended"; "why" => %ended);
        let only_refused = matches!(ended, Ended::TokenDropped | Ended::DiskFailed { .. });
        if only_refused {
            self.messages.clear();
        }
        self.ended = Some(ended);
        self.leadership = None;
        let zxid = self.namespace.zxid();
        self.origin.fail_all(zxid, &mut self.outputs);
        for waiting in self.reads.drain_all() {
            let result = Err(RequestError::Unknown(Unknown::NodeEnded));
            self.outputs.push(Output::Read { ticket: waiting.ticket, zxid, result });
        }
        if let Some(change) = self.change.take() {
            let result = Err(RequestError::Unknown(Unknown::NodeEnded));
            self.outputs.push(Output::Reply { ticket: change.ticket, zxid, result });
        }
        self.cursors.end_all(&mut self.outputs);
    }

    /// Ends the node if consensus has.
    pub(super) fn check_consensus(&mut self) {
        if let Some(ended) = self.consensus.ended() {
            let why = ended.to_string();
            self.end(Ended::Consensus { why });
        }
    }

    /// The bytes of the frozen state are those at `applied`.
    pub(super) fn source(&self) -> Source {
        Source {
            frozen: self.namespace.freeze(),
            cluster: self.config.cluster,
            membership: self.membership.clone(),
        }
    }

    fn redeem(&mut self, token: Token) -> Result<InFlight, Misuse> {
        let own = self.identity.own().boot;
        let ours = token.node == self.config.id && token.boot == own;
        let is_its = |out: &InFlight| ours && out.number == token.number;
        if self.in_flight.iter().skip(1).any(is_its) {
            // Whether the writes before it are durable is not known: it is dropped.
            return Err(Misuse::ForeignToken);
        }
        let matches = self.in_flight.front().is_some_and(is_its);
        if ours {
            token.spend();
        }
        if !matches {
            return Err(Misuse::ForeignToken);
        }
        self.in_flight.pop_front().ok_or(Misuse::ForeignToken)
    }

    /// Whether inputs are refused, and nothing comes out, until a write is durable.
    ///
    /// Entries of the log, and bytes of a snapshot of its own, are written behind the node's back,
    /// up to a number of writes; it waits for all others (a term, a vote, a snapshot that comes or
    /// counts, its own record), and for a disk that has taken an election timeout for one: whoever
    /// has such a disk should not lead.
    pub fn is_blocked(&self) -> bool {
        let too_many = self.in_flight.len() >= WRITES_OUT_MAX;
        let barrier = self.in_flight.back().is_some_and(|out| out.barrier);
        barrier || too_many || self.disk_ticks() >= u64::from(self.config.election_ticks)
    }

    /// Whether bytes of a snapshot of this node's own are out.
    pub(super) fn stages(&self) -> bool {
        self.in_flight.iter().any(|out| out.own_bytes)
    }

    /// For how long the oldest write has been out.
    pub(super) fn disk_ticks(&self) -> u64 {
        self.in_flight.front().map_or(0, |out| self.tick - out.tick)
    }

    /// Whether there is more to be drained though [`ready`](Self::ready) has returned `None`: a
    /// drain lets watches that lag read on within a bound. Tick if it is time, and drain again at
    /// once.
    pub fn has_more(&self) -> bool {
        !self.is_out() && !self.is_blocked() && self.cursors.wants_catch_up()
    }

    /// Notices that the leader or the term has changed.
    fn follow_leader(&mut self) {
        let now = (self.consensus.leader(), self.consensus.term());
        if now == self.following {
            return;
        }
        self.following = now;
        self.reads.abandon_round();
        self.leadership = None;
        let (leader, term) = now;
        if leader == Some(self.config.id) {
            self.leadership = Some(Leadership::new());
            self.pin_members();
        } else {
            self.reads.drop_remote();
        }
        if leader.is_some() {
            self.origin.leader_changed();
        }
        slog::info!(self.config.logger, "following"; "leader" => ?leader, "term" => term);
    }

    /// A leader records the stores that the log does not know yet.
    pub(super) fn pin_members(&mut self) {
        let Some(leadership) = &mut self.leadership else {
            return;
        };
        for (&id, member) in &self.membership.members {
            if let Some(pin) = self.identity.pin(id).filter(|_| member.store.is_none()) {
                leadership.pin(id, pin.incarnation.store);
            }
        }
    }

    /// A leader's part: its own and the others' commands go into the log.
    fn lead(&mut self) {
        let Some(leadership) = &mut self.leadership else {
            return;
        };
        if self.origin.has_outbox() {
            // Without room they stay with their origin, which bounds them, and are not sent again.
            let has_room = leadership.has_room(self.config.limits.pending_bytes_max);
            let (commands, keep_alives) =
                self.origin.take_outbox((self.tick, self.following.1), has_room);
            for part in commands {
                leadership.push(part, usize::MAX);
            }
            keep_alives.into_iter().for_each(|it| leadership.hold(it));
        }
        // As long as the disk or the others are behind, commands gather: fewer and larger entries.
        let room = self.consensus.has_room(self.config.limits.entry_bytes_max);
        if room && self.in_flight.len() < PROPOSALS_AHEAD {
            self.propose_waiting();
        }
        if self.reads.wants_round() && self.consensus.committed_in_term() {
            let nonce = self.identity.own().boot.nonce;
            let context = self.reads.begin_round(nonce, self.consensus.term(), self.tick);
            if self.consensus.read_index(context).is_err() {
                self.reads.abandon_round();
            }
        }
        self.check_consensus();
    }

    /// Proposes what waits, with the keep-alives and the expiries that are due.
    fn propose_waiting(&mut self) {
        let Some(leadership) = &mut self.leadership else {
            return;
        };
        let renewal_us = self.namespace.parameters().renewal_us;
        let mut clock_due = leadership.renewal_due(renewal_us, self.namespace.has_deadlines());
        if clock_due {
            let clock_us = self.namespace.clock_us() + leadership.waiting_us();
            let (expiries_max, reaps_max) =
                (self.config.limits.expiries_max, self.config.limits.reaps_max);
            let (due, due_nodes) = match leadership.may_expire(renewal_us) {
                true => (
                    self.namespace.due(clock_us, expiries_max),
                    self.namespace.due_nodes(clock_us, reaps_max),
                ),
                false => (Vec::new(), Vec::new()),
            };
            leadership.renew(due, due_nodes);
        }
        let (bytes_max, wall_ms) = (self.config.limits.entry_bytes_max, self.now.wall_ms);
        while self.consensus.has_room(bytes_max) {
            let Some(entry) = leadership.take_entry(bytes_max, wall_ms, clock_due) else {
                return;
            };
            clock_due = false;
            debug_assert!(entry.len() < FRAME_BYTES_MAX, "a follower takes its frame");
            if self.consensus.propose(entry.clone()).is_err() {
                // The ticks are lost; the commands wait for room, or for the next leader.
                if let Ok(Entry { commands: Batch(commands), .. }) = Entry::decode(entry) {
                    leadership.put_back(commands);
                }
                return;
            }
        }
    }

    /// A follower's part: commands and read rounds go to the leader.
    fn follow(&mut self) {
        let leader = match self.following.0 {
            Some(leader) if leader != self.config.id => leader,
            _ => return,
        };
        if self.origin.has_outbox() {
            let (commands, keep_alives) =
                self.origin.take_outbox((self.tick, self.following.1), true);
            self.forward(leader, &commands);
            for items in keep_alives.chunks(KEEP_ALIVES_MAX) {
                let command = Command::KeepAlives(items.to_vec()).encode();
                self.send_forward(leader, command);
            }
        }
        if self.reads.wants_round() {
            let nonce = self.identity.own().boot.nonce;
            let context = self.reads.begin_round(nonce, self.consensus.term(), self.tick);
            self.send(leader, Body::ReadIndex { context });
        }
    }

    fn forward(&mut self, leader: NodeId, commands: &[Bytes]) {
        let bytes_max = self.config.limits.message_bytes_max;
        let mut from = 0;
        while from < commands.len() {
            let mut bytes = 0;
            let fits = |part: &&Bytes| {
                bytes += part.len();
                bytes <= bytes_max
            };
            let count = commands[from..].iter().take_while(fits).count().max(1);
            let parts = &commands[from..from + count];
            self.send_forward(leader, parts.concat().into());
            from += count;
        }
    }

    fn send_forward(&mut self, leader: NodeId, commands: Bytes) {
        self.forwards += 1;
        let (term, number) = (self.following.1, self.forwards);
        self.send(leader, Body::Forward(Forward { commands, term, number }));
    }

    /// Drains consensus once: sends, applies, and returns what raft wants to be durable.
    fn drain_consensus(&mut self) -> (Option<RaftWrite>, Option<SnapshotMeta>) {
        if self.is_out() || !self.identity.takes_part() {
            return (None, None);
        }
        let Some(batch) = self.consensus.drain() else {
            self.check_consensus();
            return (None, None);
        };
        for (to, message) in batch.messages {
            self.send(to, Body::Raft(message));
        }
        for (to, meta) in batch.snapshots_needed {
            self.offer_snapshot(to, &meta);
        }
        self.apply_all(batch.committed);
        for (context, index) in batch.reads {
            let term = self.consensus.term();
            for (node, context) in self.reads.confirm(context, term, index) {
                self.send(node, Body::ReadIndexReply { context, index, term });
            }
        }
        self.check_consensus();
        let install = batch.write.as_ref().and_then(|write| write.install.clone());
        (batch.write, install)
    }

    /// Raft wants to send a snapshot: its bytes go first, and raft's message when they are there.
    fn offer_snapshot(&mut self, to: NodeId, meta: &SnapshotMeta) {
        let (first, tick) = (self.consensus.first_index(), self.tick);
        let matched = self.consensus.progress(to).map_or(0, |it| it.matched);
        let helps = |index: u64| index + 1 >= first && index > matched;
        let kept = self.transfers.outgoing.get_mut(&to).filter(|it| helps(it.index));
        let (index, term) = match kept {
            Some(outgoing) => {
                outgoing.resume(tick);
                (outgoing.index, outgoing.term)
            }
            None if meta.index == self.applied => {
                let place = (meta.index, meta.term);
                let chunk_bytes = self.config.limits.snapshot_chunk_bytes;
                let outgoing = Outgoing::new(place, self.source(), chunk_bytes, tick);
                let old = self.transfers.outgoing.insert(to, outgoing);
                self.drop_elsewhere(old);
                place
            }
            None => {
                // What would be frozen here is not what raft's metadata names: it asks again.
                return self.consensus.report_snapshot(to, false);
            }
        };
        self.send(to, Body::SnapshotOffer { index, term });
    }

    /// Hands out state that may be dear to drop, if there is any.
    pub(super) fn drop_elsewhere<T: std::any::Any + Send>(&mut self, old: Option<T>) {
        self.garbage.items.extend(old.map(|old| Box::new(old) as Box<dyn std::any::Any + Send>));
    }

    /// Puts together what must be durable, and makes the token for it.
    fn take_write(
        &mut self,
        raft: Option<RaftWrite>,
        install: Option<SnapshotMeta>,
    ) -> Option<(Write, Token, InFlight)> {
        if matches!(self.ended, Some(Ended::TokenDropped | Ended::DiskFailed { .. })) {
            return None;
        }
        let mut write = std::mem::take(&mut self.next_write);
        let whole = |step: &SnapshotWrite| matches!(step, SnapshotWrite::Finish { .. });
        let staged = self.transfers.incoming.is_some() && write.snapshot.iter().any(whole);
        let record = self.identity.take_record();
        let local_record = record.is_some();
        if local_record {
            write.local = record;
        }
        let has_raft = raft.is_some();
        let steps = self.transfers.local.is_some() && !write.snapshot.is_empty();
        let own_bytes = steps && write.only_stages();
        let plain = (write.is_empty() || own_bytes) && install.is_none();
        let barrier = !plain || raft.as_ref().is_some_and(|raft| raft.barrier);
        if let Some(raft) = raft {
            self.log_bytes += raft.entries.iter().map(|entry| entry.data.len()).sum::<usize>();
            write.entries = raft.entries;
            write.hard_state = raft.hard_state.or(write.hard_state);
        }
        if let Some(meta) = &install {
            let (index, term) = (meta.index, meta.term);
            write.snapshot.push(SnapshotWrite::Install { index, term, reset_log: true });
        }
        if write.is_empty() && !has_raft {
            return None;
        }
        let number = self.next_number;
        self.next_number += 1;
        let raft = has_raft;
        let tick = self.tick;
        let in_flight =
            InFlight { number, tick, barrier, raft, local_record, staged, install, own_bytes };
        let boot = self.identity.own().boot;
        let token = Token::new(self.config.id, boot, number, self.token_dropped.clone());
        Some((write, token, in_flight))
    }
}

/// What consensus says of a change of membership, in the client's words.
pub(super) fn change_error(error: ChangeError, leader: Option<NodeId>) -> SubmitError {
    SubmitError::Membership(match error {
        ChangeError::Propose(_) => return SubmitError::NotLeader { leader },
        ChangeError::AlreadyMember(id) => MembershipError::AlreadyMember(id),
        ChangeError::NotALearner(id) => MembershipError::NotALearner(id),
        ChangeError::NotAMember(id) => MembershipError::NotAMember(id),
        ChangeError::NotCaughtUp { node, behind } => MembershipError::NotCaughtUp { node, behind },
        ChangeError::RemovesLeader => MembershipError::RemovesLeader,
        ChangeError::LastVoter => MembershipError::LastVoter,
        ChangeError::TooMany(max) => MembershipError::TooMany(max),
        _ => MembershipError::UnderWay,
    })
}

/// Writes that are out at once. A leader holds its commands back long before that.
const WRITES_OUT_MAX: usize = 64;
/// Writes that are out while a leader still proposes.
const PROPOSALS_AHEAD: usize = 2;
/// Changes that lagging watches read in one drain.
pub(super) const CATCH_UP_MAX: usize = 16_384;
