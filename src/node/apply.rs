//! Applying committed entries, and answering from the apply.
//!
//! The order of the outputs is the order of the log; a transaction's events come before its reply.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{Ended, Node, PendingChange};
use crate::{
    command::{Batch, Command, CommandError, Entry, KeepAlive, Release},
    consensus::{MembershipChange, Replication},
    id::{LeaseId, Origin as OriginId, SessionId},
    mutant::Mutant,
    namespace::{Applied, SessionState},
    node::{
        error::{RequestError, Unknown},
        reads::Waiting,
        ready::SnapshotWrite,
        request::{Attachment, Caller, Detach, Output, ReadOp, ReadOutcome},
        transfer::Local,
    },
    op::{OpError, Outcome, Reply},
    time::as_micros,
    wire::{Body, DigestReport, EntryKind, LogEntry},
};

impl Node {
    pub(super) fn apply_all(&mut self, entries: Vec<LogEntry>) {
        let Some(last) = entries.last().map(|entry| entry.index) else {
            return;
        };
        // Most of what waits here is answered now: the answers shall not be moved as they grow.
        self.outputs.reserve(self.origin.pending().min(ANSWERS_MAX));
        for entry in entries {
            let (index, bytes) = (entry.index, entry.data.len() + ENTRY_OVERHEAD);
            if entry.term > self.applied_term && !self.is_covered(index) {
                self.applied_term = entry.term;
                self.origin.earlier_terms_ended(entry.term, self.unanswered_before.unwrap_or(0));
            }
            if Mutant::EntryAppliedTwice.active() && index == self.snapshot_index + 1 {
                self.apply_entry(index, entry.data.clone());
            }
            let changes = match entry.kind {
                EntryKind::Normal => self.apply_entry(index, entry.data),
                EntryKind::Membership => {
                    self.apply_change(&entry);
                    false
                }
            };
            if self.ended.is_some() {
                return;
            }
            if !self.is_covered(index) {
                self.applied = index;
                let place = (index, self.namespace.zxid(), self.namespace.digest().value);
                self.digests.push_entry(place, changes, self.tick);
            }
            self.tail.push_back((index, bytes));
            self.tail_bytes += bytes;
        }
        self.consensus.applied(last);
        self.compact_tail();
        self.compare_digests();
    }

    /// Answers reads that the tree as it is now can answer.
    pub(super) fn answer_reads(&mut self) {
        if self.is_out() || self.reads.len() == 0 {
            return;
        }
        loop {
            let ready = self.reads.take_ready(self.applied, self.namespace.zxid());
            if ready.is_empty() {
                return;
            }
            let (mut view, zxid) = (self.namespace.view(), self.namespace.zxid());
            let mut unblocked: Vec<SessionId> = Vec::new();
            for waiting in ready {
                unblocked.extend(waiting.session());
                let who = match &waiting.read.caller {
                    Caller::Plain(identities) => Ok(identities),
                    Caller::Session(id) => self.namespace.identities(*id, waiting.epoch()),
                };
                let result = who.and_then(|who| {
                    view.show_to(who.clone());
                    look(&view, waiting.session(), &waiting.read.op)
                });
                let (ticket, result) = (waiting.ticket, result.map_err(RequestError::Op));
                self.outputs.push(Output::Read { ticket, zxid, result });
            }
            unblocked.dedup();
            unblocked.into_iter().for_each(|session| self.unblock(session));
        }
    }

    /// Lets watches that lag read on.
    pub(super) fn read_on(&mut self) {
        if self.is_out() || !self.cursors.wants_catch_up() {
            return;
        }
        let (namespace, left) = (&self.namespace, &mut self.catch_up_left);
        self.cursors.catch_up(namespace, left, &mut self.outputs);
    }

    /// Requests that are past their time, rounds that nobody answers, membership changes that were
    /// lost with a leader.
    pub(super) fn tick_waiting(&mut self) {
        let zxid = self.namespace.zxid();
        let give_up = u64::from(self.config.limits.request_ticks_max);
        let election = u64::from(self.config.election_ticks);
        let resend = (!self.is_leader()).then_some(election);
        self.origin.tick(self.tick, resend, give_up, zxid, &mut self.outputs);
        for waiting in self.reads.tick(self.tick, election / 2 + 1, give_up) {
            let (ticket, result) = (waiting.ticket, Err(RequestError::TimedOut));
            self.outputs.push(Output::Read { ticket, zxid, result });
            waiting.session().into_iter().for_each(|session| self.unblock(session));
        }
        if let Some(change) = self.change.take_if(|change| self.tick - change.tick >= give_up) {
            let result = Err(RequestError::Unknown(Unknown::TimedOut));
            self.outputs.push(Output::Reply { ticket: change.ticket, zxid, result });
        }
        self.cursors.tick(self.tick, zxid, &mut self.outputs);
        self.pin_members();
        if self.consensus.leader().is_some() {
            self.led_tick = self.tick;
        }
        if self.identity.is_recovering() && self.consensus.may_vote() {
            self.identity.set_recovering(false);
        }
    }

    /// What an origin lets go when its session has ended or moved.
    pub(super) fn detach(&mut self, session: SessionId, cause: Detach) {
        let zxid = self.namespace.zxid();
        let unknown = Unknown::SessionEnded;
        let Some(epoch) = self.origin.detach(session, unknown, zxid, &mut self.outputs) else {
            return;
        };
        self.cursors.detach(session, &mut self.outputs);
        for Waiting { ticket, .. } in self.reads.drain_session(session) {
            let result = Err(RequestError::Op(OpError::SessionEnded { session }));
            self.outputs.push(Output::Read { ticket, zxid, result });
        }
        self.outputs.push(Output::Detached { session, epoch, cause });
    }

    /// A lease of a session has ended; whoever holds it here is told.
    pub(super) fn end_lease(&mut self, session: SessionId, lease: LeaseId) {
        if let Some(epoch) = self.origin.end_lease(session, lease) {
            self.outputs.push(Output::LeaseEnded { session, epoch, lease });
        }
    }

    /// The earliest moment of ending of a session or a lease, on this node's clock, if it was
    /// opened, granted or renewed by what was asked for at `sent`.
    pub(crate) fn until(&self, sent: std::time::Duration, ttl_us: u64) -> std::time::Duration {
        let drift = u128::from(self.config.max_drift_ppm);
        let safe_us = u128::from(ttl_us) * (1_000_000 - drift) / 1_000_000;
        sent + std::time::Duration::from_micros(u64::try_from(safe_us).unwrap_or(0))
    }

    /// Returns whether it does more than to ask for a comparison of states.
    fn apply_entry(&mut self, index: u64, data: Bytes) -> bool {
        if data.is_empty() {
            // A new leader's own entry, or a membership change that raft has replaced (H10).
            return false;
        }
        let needs = |error: CommandError| (error, Entry::needs(data.clone()));
        let entry = match Entry::decode(data.clone()) {
            Ok(entry) => entry,
            Err(error) => {
                self.cannot_apply(index, needs(error));
                return false;
            }
        };
        let covered = self.is_covered(index);
        let Entry { commands: mut batch, mut advance_us, mut wall_ms, .. } = entry;
        if Mutant::OwnClock.active() {
            advance_us = as_micros(self.now.mono).saturating_sub(self.namespace.clock_us());
        } else if Mutant::OwnWallClock.active() {
            wall_ms = self.now.wall_ms;
        }
        if !covered {
            self.namespace.begin_entry(advance_us, wall_ms);
        }
        let mut changes = batch.0.is_empty();
        while let Some(command) = Batch::next_command(&mut batch) {
            match command {
                Ok(command @ Command::PinStore { node, store }) => {
                    self.membership.pin(node, store);
                    if !covered {
                        self.namespace.apply(command);
                    }
                }
                // The state holds what it did.
                Ok(_) if covered => {}
                Ok(Command::CompareStates { index, version, digest }) => {
                    self.compare_states(DigestReport { index, version, digest });
                }
                Ok(command) => {
                    changes = true;
                    self.apply_command(command);
                }
                // Of a known kind, and no member may ever apply it: all go past it alike.
                Err(error @ CommandError::Field(_)) => {
                    slog::warn!(
                        self.config.logger, "a command has no effect";
                        "index" => index, "why" => %error
                    );
                }
                Err(error) => {
                    self.cannot_apply(index, needs(error));
                    return false;
                }
            }
        }
        changes
    }

    fn cannot_apply(&mut self, index: u64, (error, needs): (CommandError, Option<Release>)) {
        self.end(Ended::Command { index, error, needs });
    }

    fn apply_command(&mut self, command: Command) {
        let before = self.namespace.zxid();
        let applied = self.namespace.apply(command);
        let zxid = self.namespace.zxid();
        if zxid != before {
            self.digests.push_mark(zxid, self.namespace.mark());
        }
        let changes = self.namespace.drain_changes();
        if !changes.is_empty() {
            self.cursors.fire(&changes, &self.namespace, &mut self.outputs);
        }
        match applied {
            Applied::Sequenced { session, epoch, seq, reply, ended } => {
                self.answer_seq(session, epoch, seq, reply);
                if ended {
                    self.detach(session, Detach::Closed);
                }
            }
            Applied::Plain { origin, reply: Reply { zxid, result } } => {
                if let Some((ticket, _)) = self.take_plain(&origin) {
                    let result = result.map(Some).map_err(RequestError::Op);
                    self.outputs.push(Output::Reply { ticket, zxid, result });
                }
            }
            Applied::Session { origin, result, .. } => self.answer_session(&origin, result),
            Applied::KeepAlives { accepted, .. } => {
                for it in accepted {
                    if let Some((sent, ttl_us)) = self.origin.renewed(&it) {
                        let late = Mutant::PromiseFromArrival.active();
                        let until = self.until(if late { self.now.mono } else { sent }, ttl_us);
                        let KeepAlive { session, lease, epoch, .. } = it;
                        self.outputs.push(match lease {
                            None => Output::Renewed { session, epoch, until },
                            Some(lease) => Output::LeaseRenewed { session, epoch, lease, until },
                        });
                    }
                }
            }
            Applied::Expired { session, .. } => self.detach(session, Detach::Expired),
            Applied::LeaseExpired { lease, session } => self.end_lease(session, lease),
            _ => {}
        }
    }

    fn answer_seq(&mut self, session: SessionId, epoch: u64, seq: u64, reply: Reply) {
        match &reply.result {
            // Nothing happened, and the number is not consumed: it is sent again, in order. A full
            // window empties with the acknowledgements that keep-alives carry.
            Err(OpError::Gap { .. }) => {
                let attached = self.origin.attachment(session);
                if attached.is_some_and(|attachment| attachment.epoch == epoch) {
                    self.origin.gap(session);
                }
                return;
            }
            Err(OpError::Limit { limit, .. }) if limit.is_window() => return,
            Err(OpError::Moved { .. }) => {
                let attached = self.origin.attachment(session);
                if attached.is_some_and(|attachment| attachment.epoch == epoch) {
                    self.detach(session, Detach::Moved);
                }
                return;
            }
            Err(OpError::SessionEnded { .. }) => return self.detach(session, Detach::Expired),
            _ => {}
        }
        if self.unanswered_before.is_some() && self.namespace.cached_reply(session, seq).is_some() {
            // It is answered from there, behind the events that come before it.
            return;
        }
        if self.origin.attachment(session).is_some() {
            revoked(&reply, |lease| self.end_lease(session, lease));
        }
        self.outputs.extend(self.origin.answer_seq(session, epoch, seq, reply));
        self.unblock(session);
        if self.reads.has_ready() {
            // Before the next command: a read sees nothing of what its session writes after it.
            self.answer_reads();
        }
    }

    fn answer_session(&mut self, origin: &OriginId, result: Result<SessionState, OpError>) {
        if let Ok(state) = &result {
            let older = self.origin.attachment(state.id).map(|it| it.epoch);
            if older.is_some_and(|epoch| epoch < state.epoch) {
                self.detach(state.id, Detach::Moved);
            }
        }
        let Some((ticket, Some(asked))) = self.take_plain(origin) else {
            return;
        };
        let result = result.map_err(RequestError::Op).map(|state| {
            if self.origin.attachment(state.id).is_none() {
                let lease = (state.epoch, state.ttl_us);
                self.origin.attach(state.id, lease, state.last_seq);
            }
            let tick_us = self.namespace.parameters().tick_us;
            let fresh = self.namespace.clock_us() + state.ttl_us + tick_us;
            // A repeat of an opening renews nothing: it promises nothing.
            let until = match state.deadline_us == fresh {
                true => self.until(asked, state.ttl_us),
                false => asked,
            };
            let ttl = std::time::Duration::from_micros(state.ttl_us);
            let (session, epoch, last_seq) = (state.id, state.epoch, state.last_seq);
            let lineage = self.namespace.lineage();
            Attachment { session, epoch, ttl, until, last_seq, lineage }
        });
        self.outputs.push(Output::Session { ticket, result });
    }

    /// The command without a sequence that was made here, in this opening, if it still waits.
    fn take_plain(
        &mut self,
        origin: &OriginId,
    ) -> Option<(super::Ticket, Option<std::time::Duration>)> {
        let ours =
            origin.node == self.config.id && origin.boot_nonce == self.identity.own().boot.nonce;
        let plain = ours.then(|| self.origin.take_plain(origin.counter)).flatten()?;
        Some((plain.ticket, plain.session))
    }

    pub(super) fn unblock(&mut self, session: SessionId) {
        let answered = self.origin.attachment(session).map_or(u64::MAX, |it| it.answered());
        self.reads.unblock(session, answered);
    }

    pub(super) fn apply_change(&mut self, entry: &LogEntry) {
        let applied = match self.consensus.applied_change(entry) {
            Ok(applied) => applied,
            Err(error) => {
                let why = error.to_string();
                return self.end(Ended::Consensus { why });
            }
        };
        match applied.change {
            Some(MembershipChange::AddLearner(id)) => self.membership.add_learner(id),
            Some(MembershipChange::Promote(id)) => self.membership.promote(id),
            Some(MembershipChange::Remove(id)) => {
                self.membership.remove(id);
                self.identity.forget(&BTreeSet::from([id]));
                self.digests.forget(id);
                let outgoing = self.transfers.outgoing.remove(&id);
                self.drop_elsewhere(outgoing);
                let state = self.transfers.states.remove(&id);
                self.drop_elsewhere(state);
            }
            None => {}
        }
        let ours = |change: &mut PendingChange| change.context == applied.context;
        if let Some(PendingChange { ticket, change, .. }) = self.change.take_if(ours) {
            let zxid = self.namespace.zxid();
            let result = match applied.change {
                Some(_) => Ok(None),
                None => Err(RequestError::Membership(self.membership.refusal(change))),
            };
            self.outputs.push(Output::Reply { ticket, zxid, result });
        }
        // A member that learns of its own removal goes on: the others may need its vote until they
        // know of it, too. Those that do refuse it, and that ends it.
    }

    /// Drops the part of the log in memory that is past its bound, unless a transfer needs it.
    fn compact_tail(&mut self) {
        let bytes_max = self.config.limits.log_tail_bytes_max;
        if self.tail_bytes <= bytes_max {
            return;
        }
        if self.tail_bytes > bytes_max.saturating_mul(2) {
            // A transfer that lags so far behind begins anew.
            for (&to, outgoing) in self.transfers.outgoing.iter_mut().filter(|it| it.1.awaited) {
                outgoing.awaited = false;
                self.consensus.report_snapshot(to, false);
            }
        }
        let pinned = self.transfers.pinned().unwrap_or(u64::MAX);
        let mut to = None;
        while let Some(&(index, bytes)) = self.tail.front() {
            if self.tail_bytes <= bytes_max || index > pinned {
                break;
            }
            self.tail.pop_front();
            self.tail_bytes -= bytes;
            to = Some(index);
        }
        if let Some(to) = to {
            self.consensus.compact(to);
            // Nobody can go on after these any more.
            let outgoing = std::mem::take(&mut self.transfers.outgoing);
            let (kept, passed) = outgoing.into_iter().partition(|(_, it)| it.index >= to);
            self.transfers.outgoing = kept;
            let passed: BTreeMap<_, _> = passed;
            self.drop_elsewhere(Some(passed).filter(|passed| !passed.is_empty()));
        }
    }

    /// Goes on with snapshots that are on their way, and begins one when the log has grown.
    pub(super) fn tick_transfers(&mut self) {
        if self.is_quarantined() {
            return;
        }
        let resumes = !Mutant::TransferNotResumed.active();
        if resumes {
            self.tick_outgoing();
        }
        let (tick, election) = (self.tick, u64::from(self.config.election_ticks));
        match &mut self.transfers.incoming {
            // The log has brought it here meanwhile.
            Some(it) if it.index <= self.consensus.applied_index() => self.drop_incoming(),
            Some(incoming)
                if !incoming.is_whole() && tick - incoming.asked_tick >= election && resumes =>
            {
                // What was asked for, or the answer, seems to be lost.
                incoming.asked_tick = tick;
                let (index, term, offset) = (incoming.index, incoming.term, incoming.offset);
                let from = incoming.from;
                self.send(from, Body::SnapshotPull { index, term, offset });
            }
            _ => {}
        }
        self.write_snapshot();
    }

    /// Offers again what nobody pulls, gives up the log for what stalls, and lets go what is done.
    fn tick_outgoing(&mut self) {
        let stalled = u64::from(self.config.limits.transfer_ticks_max);
        let (tick, election) = (self.tick, u64::from(self.config.election_ticks));
        let (mut done, mut unheard) = (Vec::new(), Vec::new());
        for (&to, outgoing) in &mut self.transfers.outgoing {
            let progress = self.leadership.as_ref().and_then(|_| self.consensus.progress(to));
            if progress.is_some_and(|it| it.matched >= outgoing.index) {
                done.push(to);
            } else if outgoing.awaited && outgoing.stalls(tick, stalled) {
                outgoing.awaited = false;
                self.consensus.report_snapshot(to, false);
            } else if outgoing.is_unheard(tick, election)
                && progress.is_some_and(|it| it.replication == Replication::Snapshot)
            {
                outgoing.resume(tick);
                unheard.push((to, outgoing.index, outgoing.term));
            }
        }
        for to in done {
            let outgoing = self.transfers.outgoing.remove(&to);
            self.drop_elsewhere(outgoing);
        }
        for (to, index, term) in unheard {
            self.send(to, Body::SnapshotOffer { index, term });
        }
        self.report_lost();
    }

    /// Raft sends nothing to a member for which it waits for a snapshot. There may be none any
    /// more: the member has come past it by its log, or this node was in quarantine meanwhile.
    fn report_lost(&mut self) {
        if self.leadership.is_none() {
            return;
        }
        let (consensus, outgoing) = (&mut self.consensus, &self.transfers.outgoing);
        for &to in self.membership.members.keys() {
            let waits =
                consensus.progress(to).is_some_and(|it| it.replication == Replication::Snapshot);
            if waits && !outgoing.get(&to).is_some_and(|it| it.awaited) {
                consensus.report_snapshot(to, false);
            }
        }
    }

    /// How far the log grows before a snapshot: by as much as the last one had, at least, or a
    /// large state would be written again and again for a few changes of it.
    pub(super) fn snapshot_due_bytes(&self) -> usize {
        self.config.limits.snapshot_log_bytes.max(self.snapshot_bytes)
    }

    /// Writes on at the local snapshot, by a bounded number of chunks a tick.
    fn write_snapshot(&mut self) {
        let chunk_bytes = self.config.limits.snapshot_chunk_bytes;
        let grown = self.log_bytes >= self.snapshot_due_bytes();
        let idle = self.transfers.local.is_none() && self.transfers.incoming.is_none();
        let caught_up = self.consensus.applied_index() >= self.applied;
        if grown && idle && caught_up && self.applied > self.snapshot_index {
            let Some(term) = self.consensus.term_at(self.applied) else {
                return;
            };
            let (place, source) = ((self.applied, term), self.source());
            let log_bytes = std::mem::take(&mut self.log_bytes);
            self.transfers.local = Some(Local::new(place, log_bytes, &source, chunk_bytes));
        }
        // The disk shall not be given more of it than it takes beside the log.
        let staged = !self.stages();
        let Some(local) = self.transfers.local.as_mut().filter(|_| staged) else {
            return;
        };
        if local.write(CHUNKS_PER_TICK, chunk_bytes, &mut self.next_write.snapshot) {
            let (index, term) = (local.index, local.term);
            self.snapshot_bytes = local.bytes();
            let install = SnapshotWrite::Install { index, term, reset_log: false };
            self.next_write.snapshot.push(install);
            self.next_write.compact_to = Some(index);
            self.snapshot_index = index;
            // It is of the state in use, and durable before what follows on it.
            self.identity.set_diverged_at(0);
            let local = self.transfers.local.take();
            self.drop_elsewhere(local);
        }
    }
}

/// The leases that a reply says were revoked.
fn revoked(reply: &Reply, mut each: impl FnMut(LeaseId)) {
    let outcomes = match &reply.result {
        Ok(Outcome::Txn { results, .. }) => &results[..],
        Ok(outcome) => std::slice::from_ref(outcome),
        Err(_) => &[],
    };
    for outcome in outcomes {
        if let Outcome::Revoked { lease, .. } = outcome {
            each(*lease);
        }
    }
}

/// Reads the tree, as far as the view shows it.
fn look(
    view: &super::View,
    session: Option<SessionId>,
    op: &ReadOp,
) -> Result<ReadOutcome, OpError> {
    Ok(match op {
        ReadOp::Get(path) => {
            let (data, stat) = view.read(path)?;
            ReadOutcome::Node { data, stat }
        }
        ReadOp::Exists(path) => ReadOutcome::Exists(view.stat(path)?),
        ReadOp::List(list) => ReadOutcome::Listed(view.list(list)?),
        ReadOp::GetAcl(path) => {
            let (acl, stat) = view.acl(path)?;
            ReadOutcome::Acl { acl, stat }
        }
        ReadOp::Quota(path) => ReadOutcome::Quota(view.quota(path)?),
        ReadOp::Lease(lease) => {
            // Others' are none of its business.
            let own = view.lease(*lease).filter(|stat| Some(stat.session) == session);
            ReadOutcome::Lease(own.ok_or(OpError::NoLease { lease: *lease })?)
        }
        ReadOp::Owned { lease, after } => ReadOutcome::Owned(view.owned(*lease, after.as_ref())?),
        ReadOp::Descendants { path, max } => {
            let (nodes, more) = view.descendants(path, (*max).min(ReadOp::DESCENDANTS_MAX))?;
            ReadOutcome::Descendants { nodes, more }
        }
        ReadOp::View => ReadOutcome::View(Box::new(view.clone())),
        ReadOp::Barrier => ReadOutcome::Barrier,
    })
}

/// What an entry costs in memory beside its data.
const ENTRY_OVERHEAD: usize = 64;
/// Answers that room is made for before they come.
const ANSWERS_MAX: usize = 256;
/// Chunks of the local snapshot that one tick writes: 10 MiB a second by default. Clients notice
/// twice as many.
const CHUNKS_PER_TICK: usize = 8;
