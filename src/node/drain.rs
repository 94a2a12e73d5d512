//! Draining a node: what leaves, what must be durable first, and what its token releases.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::{Ended, MembershipError, Misuse, Node, SubmitError};
use crate::{
    command::{Batch, Command, Entry},
    consensus::{ChangeError, RaftWrite},
    id::NodeId,
    node::{
        leader::Leadership,
        ready::{Message, Ready, SnapshotWrite, Token, Write},
        request::{Output, RequestError, Unknown},
        transfer::{Outgoing, Source},
    },
    wire::{Body, SnapshotMeta},
};

/// What the write that is out will have made durable.
#[derive(Debug)]
pub(crate) struct InFlight {
    number: u64,
    raft: bool,
    local_record: bool,
    /// The snapshot that is being received is whole with this write.
    staged: bool,
    install: Option<SnapshotMeta>,
}

impl Node {
    /// Takes what the node has to say, or `None` when it is drained.
    ///
    /// Returns `None` while a write is out.
    pub fn ready(&mut self) -> Option<Ready> {
        if self.token_dropped.load(Ordering::Acquire) {
            self.in_flight = None;
            self.end(Ended::TokenDropped);
        }
        if self.in_flight.is_some() {
            return None;
        }
        if let Some((write, token, in_flight)) = self.held_write.take() {
            self.in_flight = Some(in_flight);
            return Some(Ready { write: Some((write, token)), ..Ready::default() });
        }
        if self.ended.is_none() {
            self.follow_leader();
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
            self.in_flight = Some(in_flight);
            (write, token)
        });
        let ready = Ready {
            messages: std::mem::take(&mut self.messages),
            write,
            outputs: std::mem::take(&mut self.outputs),
            garbage: std::mem::take(&mut self.garbage),
        };
        let quiet = ready.messages.is_empty()
            && ready.write.is_none()
            && ready.outputs.is_empty()
            && ready.garbage.is_empty();
        if quiet && !self.has_more() {
            self.undrained = false;
            return None;
        }
        Some(ready)
    }

    /// Says that the write of `token` is durable. Returns the messages that may leave only now.
    ///
    /// # Errors
    ///
    /// [`Misuse::ForeignToken`] when the token is not that of the write that is out.
    pub fn persisted(&mut self, token: Token) -> Result<Vec<Message>, Misuse> {
        let in_flight = self.redeem(token)?;
        if in_flight.raft && self.ended.is_none() {
            for (to, message) in self.consensus.persisted() {
                self.send(to, Body::Raft(message));
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
    /// nothing, and every pending request is answered `Unknown`.
    pub fn failed(&mut self, token: Token, why: impl Into<String>) {
        if self.redeem(token).is_ok() {
            self.end(Ended::DiskFailed { why: why.into() });
        }
        self.undrained = true;
    }

    /// Says that the disk failed while no write was out: what was durable is so no more, or work
    /// for the log met an error. The node ends as after [`failed`](Self::failed).
    pub fn disk_failed(&mut self, why: impl Into<String>) {
        if let Some((_, token, _)) = self.held_write.take() {
            token.spend();
        }
        self.end(Ended::DiskFailed { why: why.into() });
        self.undrained = true;
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
        let number = token.number;
        let matches = self.in_flight.as_ref().is_some_and(|out| ours && out.number == number);
        if ours {
            token.spend();
        }
        if !matches {
            return Err(Misuse::ForeignToken);
        }
        self.in_flight.take().ok_or(Misuse::ForeignToken)
    }

    /// Whether another call of `ready` may find more.
    fn has_more(&self) -> bool {
        self.ended.is_none() && self.cursors.wants_catch_up() || self.held_write.is_some()
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
            let (commands, keep_alives) = self.origin.take_outbox(self.tick);
            for part in commands {
                leadership.push(part, usize::MAX);
            }
            keep_alives.into_iter().for_each(|it| leadership.hold(it));
        }
        let renewal_us = self.namespace.parameters().renewal_us;
        let clock_due = leadership.renewal_due(renewal_us, self.namespace.has_deadlines());
        if clock_due {
            let clock_us = self.namespace.clock_us() + leadership.waiting_us();
            let reaps_max = self.config.limits.reaps_max;
            let (due, due_nodes) = match leadership.may_expire(renewal_us) {
                true => (
                    self.namespace.due(clock_us, EXPIRIES_MAX),
                    self.namespace.due_nodes(clock_us, reaps_max),
                ),
                false => (Vec::new(), Vec::new()),
            };
            leadership.renew(due, due_nodes);
        }
        let mut clock_due = clock_due;
        let entry_bytes_max = self.config.limits.entry_bytes_max;
        while let Some(entry) = leadership.take_entry(entry_bytes_max, self.now.wall_ms, clock_due)
        {
            clock_due = false;
            if self.consensus.propose(entry.clone()).is_err() {
                // The ticks are lost; the commands wait for room, or for the next leader.
                if let Ok(Entry { commands: Batch(commands), .. }) = Entry::decode(entry) {
                    leadership.put_back(commands);
                }
                break;
            }
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

    /// A follower's part: commands and read rounds go to the leader.
    fn follow(&mut self) {
        let leader = match self.following.0 {
            Some(leader) if leader != self.config.id => leader,
            _ => return,
        };
        if self.origin.has_outbox() {
            let (commands, keep_alives) = self.origin.take_outbox(self.tick);
            self.forward(leader, &commands);
            for items in keep_alives.chunks(KEEP_ALIVES_PER_FRAME) {
                let command = Command::KeepAlives(items.to_vec()).encode();
                self.send(leader, Body::Forward(command));
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
            self.send(leader, Body::Forward(parts.concat().into()));
            from += count;
        }
    }

    /// Drains consensus once: sends, applies, and returns what raft wants to be durable.
    fn drain_consensus(&mut self) -> (Option<RaftWrite>, Option<SnapshotMeta>) {
        if self.ended.is_some() || !self.identity.takes_part() {
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
        let first = self.consensus.first_index();
        let usable = |outgoing: &Outgoing| outgoing.index + 1 >= first;
        if !self.transfers.outgoing.get(&to).is_some_and(usable) {
            // Frozen at `applied`, which is where raft's metadata stands.
            let place = (meta.index, meta.term);
            let chunk_bytes = self.config.limits.snapshot_chunk_bytes;
            let outgoing = Outgoing::new(place, self.source(), chunk_bytes, self.tick);
            self.transfers.outgoing.insert(to, outgoing);
        }
        if let Some(&Outgoing { index, term, .. }) = self.transfers.outgoing.get(&to) {
            self.send(to, Body::SnapshotOffer { index, term });
        }
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
        let in_flight = InFlight { number, raft, local_record, staged, install };
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

/// Sessions whose expiry one entry proposes.
const EXPIRIES_MAX: usize = 1_000;
/// Keep-alives of one frame to the leader.
const KEEP_ALIVES_PER_FRAME: usize = 10_000;
