//! The origin's side of commands: attachments of sessions, and what waits for its own apply.
//!
//! A sequenced command is sent again until this node's own apply answers it: the replicated session
//! table makes a repeat harmless. A command without a sequence is sent again only when it is
//! certain that it never took effect (ARCHITECTURE.md, rules 7 and 9). Everything is kept in the
//! order of its ids, so that a run repeats.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;

use crate::{
    command::KeepAlive,
    config::{Config, Limits},
    id::{LeaseId, SessionId, Zxid},
    mutant::Mutant,
    node::{
        error::{RequestError, SubmitError, Unknown},
        keep_alives::KeepAlives,
        rate::Bucket,
        request::{Output, Ticket},
    },
    op::Reply,
};

/// Commands that were submitted here and are not answered.
#[derive(Debug, Default)]
pub(crate) struct Origin {
    attachments: BTreeMap<SessionId, Attachment>,
    /// Invariant: exactly the sessions with commands that are pending.
    waiting: BTreeSet<SessionId>,
    /// By counter, which is the ticket's number.
    plain: BTreeMap<u64, Plain>,
    count: usize,
    bytes: usize,
    /// Sessions whose commands are to be sent again.
    resend: BTreeSet<SessionId>,
    /// What is to go to the leader, in order.
    outbox: Vec<Unsent>,
    tick: u64,
    keep_alives: KeepAlives,
}

/// A session that is attached to this node.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) epoch: u64,
    next_seq: u64,
    /// Every command up to here was answered.
    answered: u64,
    acked: u64,
    /// Invariant: the numbers follow each other.
    pending: VecDeque<Sequenced>,
    pending_bytes: usize,
    /// What it has asked for lately.
    bucket: Bucket,
    /// When something of it was sent for the first time, sent again, or answered.
    sent_tick: u64,
    /// How often it was sent again since the last answer.
    repeats: u32,
    /// The first number of the last repeat.
    repeated_from: u64,
}

#[derive(Debug)]
struct Sequenced {
    /// `None` once the client was told that the outcome is unknown.
    ticket: Option<Ticket>,
    seq: u64,
    command: Bytes,
    tick: u64,
}

/// A command for the leader.
#[derive(Clone, Copy, Debug)]
enum Unsent {
    Sequenced(SessionId, u64),
    Plain(u64),
}

/// A command without a sequence.
#[derive(Debug)]
pub(crate) struct Plain {
    pub(crate) ticket: Ticket,
    /// `None` for a transaction; else when the session was asked for: it may be sent again.
    pub(crate) session: Option<Duration>,
    command: Bytes,
    /// To the leader of this term, which puts it into entries of no other.
    sent: Option<u64>,
    tick: u64,
}

impl Origin {
    /// Takes a session's command, which must be the next one.
    pub(crate) fn check_seq(
        &self,
        session: SessionId,
        epoch: u64,
        seq: u64,
        acked: u64,
        window_max: u64,
    ) -> Result<(), SubmitError> {
        let attached = self.attachments.get(&session).filter(|it| it.epoch == epoch);
        let Some(attachment) = attached else {
            return Err(SubmitError::NotAttached { session, epoch });
        };
        if seq != attachment.next_seq {
            return Err(SubmitError::OutOfSequence { expected: attachment.next_seq, actual: seq });
        }
        let window = seq - attachment.acked.max(acked.min(attachment.answered)).min(seq);
        if window > window_max {
            // Until the client acknowledges replies, which it does as they come.
            return Err(SubmitError::Overloaded { what: "window_count_max", max: window_max });
        }
        Ok(())
    }

    pub(crate) fn check_room(&self, bytes: usize, limits: &Limits) -> Result<(), SubmitError> {
        if self.count >= limits.pending_count_max {
            let max = limits.pending_count_max as u64;
            return Err(SubmitError::Overloaded { what: "pending_count_max", max });
        }
        if self.bytes + bytes > limits.pending_bytes_max {
            let max = limits.pending_bytes_max as u64;
            return Err(SubmitError::Overloaded { what: "pending_bytes_max", max });
        }
        Ok(())
    }

    /// Leaves room for the commands of others. A command that is alone may be of any size, and a
    /// session can always be closed.
    pub(crate) fn check_session_room(
        &self,
        session: SessionId,
        bytes: usize,
        limits: &Limits,
    ) -> Result<(), SubmitError> {
        let attachment = self.attached(session)?;
        let full = |what, max: usize| Err(SubmitError::Overloaded { what, max: max as u64 });
        let (count_max, bytes_max) =
            (limits.session_pending_count_max, limits.session_pending_bytes_max);
        if attachment.pending.len() >= count_max {
            return full("session_pending_count_max", count_max);
        }
        if attachment.pending_bytes > 0 && attachment.pending_bytes + bytes > bytes_max {
            return full("session_pending_bytes_max", bytes_max);
        }
        Ok(())
    }

    /// Refuses what the session asks for too early; [`charge`](Self::charge) follows when it was
    /// taken.
    pub(crate) fn check_rate(
        &self,
        session: SessionId,
        config: &Config,
        tick: u64,
    ) -> Result<(), SubmitError> {
        let Some(rate) = &config.session_rate else {
            return Ok(());
        };
        let ticks = self.attached(session)?.bucket.wait_ticks(rate, config, tick);
        if ticks == 0 {
            return Ok(());
        }
        let ticks = u32::try_from(ticks).unwrap_or(u32::MAX);
        let retry_after = config.tick_interval.saturating_mul(ticks);
        let (what, max) = ("operations a second", rate.per_second.into());
        Err(SubmitError::RateLimited { session, what, max, retry_after })
    }

    /// The session was given what it asked for.
    pub(crate) fn charge(&mut self, session: SessionId, config: &Config, tick: u64) {
        let attachment = self.attachments.get_mut(&session);
        if let (Some(rate), Some(attachment)) = (&config.session_rate, attachment) {
            attachment.bucket.take(rate, config, tick);
        }
    }

    /// Keeps and sends a command that passed the checks.
    pub(crate) fn push_seq(
        &mut self,
        ticket: Ticket,
        session: SessionId,
        (seq, acked): (u64, u64),
        command: Bytes,
        tick: u64,
    ) {
        let Some(attachment) = self.attachments.get_mut(&session) else {
            return;
        };
        attachment.next_seq = seq + 1;
        attachment.acked = attachment.acked.max(acked.min(attachment.answered));
        if attachment.pending.is_empty() {
            attachment.sent_tick = tick;
            self.waiting.insert(session);
        }
        attachment.pending_bytes += command.len();
        self.count += 1;
        self.bytes += command.len();
        self.outbox.push(Unsent::Sequenced(session, seq));
        let ticket = Some(ticket);
        attachment.pending.push_back(Sequenced { ticket, seq, command, tick });
    }

    /// Keeps and sends a command without a sequence.
    pub(crate) fn push_plain(
        &mut self,
        ticket: Ticket,
        session: Option<Duration>,
        command: Bytes,
        tick: u64,
    ) {
        self.count += 1;
        self.bytes += command.len();
        self.outbox.push(Unsent::Plain(ticket.0));
        self.plain.insert(ticket.0, Plain { ticket, session, command, sent: None, tick });
    }

    /// Numbers a keep-alive and sends it with the next ones.
    pub(crate) fn keep_alive(
        &mut self,
        session: SessionId,
        epoch: u64,
        acked: u64,
        now: Duration,
    ) -> Result<(), SubmitError> {
        let attached = self.attachments.get_mut(&session).filter(|it| it.epoch == epoch);
        let Some(attachment) = attached else {
            return Err(SubmitError::NotAttached { session, epoch });
        };
        attachment.acked = attachment.acked.max(acked.min(attachment.answered));
        self.keep_alives.ask(session, None, attachment.acked, now);
        Ok(())
    }

    /// As [`Origin::keep_alive`], for a lease of a session that lives, with this time to live.
    pub(crate) fn keep_lease_alive(
        &mut self,
        session: SessionId,
        epoch: u64,
        (lease, ttl_us): (LeaseId, u64),
        now: Duration,
    ) -> Result<(), SubmitError> {
        if self.attachments.get(&session).is_none_or(|it| it.epoch != epoch) {
            return Err(SubmitError::NotAttached { session, epoch });
        }
        self.keep_alives.begin(session, Some(lease), epoch, ttl_us);
        self.keep_alives.ask(session, Some(lease), 0, now);
        Ok(())
    }

    /// A lease has ended; gives the epoch if its session is attached here.
    pub(crate) fn end_lease(&mut self, session: SessionId, lease: LeaseId) -> Option<u64> {
        self.keep_alives.end_lease(session, lease);
        self.attachments.get(&session).map(|it| it.epoch)
    }

    /// The leases for which keep-alives were asked here, with their sessions.
    pub(crate) fn leases(&self) -> Vec<(SessionId, LeaseId)> {
        let of =
            |&session: &SessionId| self.keep_alives.leases_of(session).map(move |it| (session, it));
        self.attachments.keys().flat_map(of).collect()
    }

    /// A new leader is known: everything that may be sent again is, the newest keep-alives first.
    pub(crate) fn leader_changed(&mut self) {
        self.outbox.clear();
        self.resend.extend(&self.waiting);
        self.attachments.values_mut().for_each(|attachment| attachment.repeats = 0);
        let attachments = &self.attachments;
        self.keep_alives.ask_again(|session| attachments.get(&session).map_or(0, |it| it.acked));
        for (&counter, plain) in &self.plain {
            if plain.sent.is_none() || plain.session.is_some() || Mutant::PlainSentAgain.active() {
                self.outbox.push(Unsent::Plain(counter));
            }
        }
    }

    /// An entry of this term was applied, so none of an earlier one comes any more: what was sent
    /// to earlier leaders and is not answered had no effect, never will, and goes to the next one.
    /// Of counters below `known_from` that is not known: they may lie inside an installed snapshot.
    pub(crate) fn earlier_terms_ended(&mut self, term: u64, known_from: u64) {
        for (&counter, plain) in self.plain.range_mut(known_from..) {
            if plain.session.is_none() && plain.sent.is_some_and(|sent| sent < term) {
                plain.sent = None;
                self.outbox.push(Unsent::Plain(counter));
            }
        }
    }

    /// A session's commands are to be sent again, in order.
    pub(crate) fn resend(&mut self, session: SessionId) {
        self.resend.insert(session);
    }

    /// A command of the session came before those that it follows: it has no effect, and all are
    /// sent again, unless a repeat from the same number on is under way.
    pub(crate) fn gap(&mut self, session: SessionId) {
        let Some(attachment) = self.attachments.get(&session) else {
            return;
        };
        let first = attachment.pending.front().map(|it| it.seq);
        if first.is_some_and(|seq| seq != attachment.repeated_from) {
            self.resend.insert(session);
        }
    }

    /// What is to go to the leader of this term now, each command once, and the keep-alives among
    /// it. Without `room` at the leader the commands stay here.
    pub(crate) fn take_outbox(
        &mut self,
        (tick, term): (u64, u64),
        room: bool,
    ) -> (Vec<Bytes>, Vec<KeepAlive>) {
        let keep_alives = self.keep_alives.take_outbox();
        if !room {
            return (Vec::new(), keep_alives);
        }
        let mut commands = Vec::with_capacity(self.outbox.len());
        for unsent in self.outbox.drain(..) {
            match unsent {
                Unsent::Sequenced(session, _) if self.resend.contains(&session) => {}
                Unsent::Sequenced(session, seq) => {
                    commands.extend(self.attachments.get(&session).and_then(|it| it.command(seq)));
                }
                Unsent::Plain(counter) => {
                    if let Some(plain) = self.plain.get_mut(&counter) {
                        plain.sent = Some(term);
                        commands.push(plain.command.clone());
                    }
                }
            }
        }
        for session in std::mem::take(&mut self.resend) {
            if let Some(attachment) = self.attachments.get_mut(&session) {
                attachment.sent_tick = tick;
                attachment.repeats += 1;
                attachment.repeated_from = attachment.pending.front().map_or(0, |it| it.seq);
                commands.extend(attachment.pending.iter().map(|it| it.command.clone()));
            }
        }
        (commands, keep_alives)
    }

    pub(crate) fn has_outbox(&self) -> bool {
        !(self.outbox.is_empty() && self.resend.is_empty()) || self.keep_alives.has_outbox()
    }

    /// Sends again the commands of a session that was not answered for `resend_ticks`, and longer
    /// with each repeat; `None` at a leader, which loses nothing of its own. Gives up what is past
    /// its time.
    pub(crate) fn tick(
        &mut self,
        tick: u64,
        resend_ticks: Option<u64>,
        give_up_ticks: u64,
        zxid: Zxid,
        out: &mut Vec<Output>,
    ) {
        self.tick = tick;
        // Not all that are attached: there may be a million, and few of them wait.
        for &session in &self.waiting {
            let Some(attachment) = self.attachments.get_mut(&session) else {
                continue;
            };
            let wait = resend_ticks.map(|ticks| ticks << attachment.repeats.min(DOUBLINGS_MAX));
            if wait.is_some_and(|wait| tick - attachment.sent_tick >= wait) {
                self.resend.insert(session);
            }
            for it in &mut attachment.pending {
                if tick - it.tick < give_up_ticks {
                    break;
                }
                // It stays in the sequence; only its client is told.
                if let Some(ticket) = it.ticket.take() {
                    let result = Err(RequestError::Unknown(Unknown::TimedOut));
                    out.push(Output::Reply { ticket, zxid, result });
                }
            }
        }
        let late = self.plain.iter().filter(|(_, it)| tick - it.tick >= give_up_ticks);
        for counter in late.map(|(&counter, _)| counter).collect::<Vec<_>>() {
            let sent = self.plain.get(&counter).is_some_and(|it| it.sent.is_some());
            let error = match sent {
                true => RequestError::Unknown(Unknown::TimedOut),
                false => RequestError::NoLeader,
            };
            self.fail_plain(counter, error, zxid, out);
        }
    }

    /// A session is attached here from now on.
    pub(crate) fn attach(
        &mut self,
        session: SessionId,
        (epoch, ttl_us): (u64, u64),
        last_seq: u64,
    ) {
        self.keep_alives.end_session(session);
        self.keep_alives.begin(session, None, epoch, ttl_us);
        self.attachments.insert(
            session,
            Attachment {
                epoch,
                next_seq: last_seq + 1,
                answered: last_seq,
                acked: 0,
                pending: VecDeque::new(),
                pending_bytes: 0,
                bucket: Bucket::default(),
                sent_tick: 0,
                repeats: 0,
                repeated_from: 0,
            },
        );
    }

    /// The attachment is over; what it still waits for has an unknown outcome.
    pub(crate) fn detach(
        &mut self,
        session: SessionId,
        unknown: Unknown,
        zxid: Zxid,
        out: &mut Vec<Output>,
    ) -> Option<u64> {
        let attachment = self.attachments.remove(&session)?;
        self.keep_alives.end_session(session);
        self.waiting.remove(&session);
        for it in attachment.pending {
            self.count -= 1;
            self.bytes -= it.command.len();
            if let Some(ticket) = it.ticket {
                let result = Err(RequestError::Unknown(unknown));
                out.push(Output::Reply { ticket, zxid, result });
            }
        }
        Some(attachment.epoch)
    }

    /// The apply of a session's command answers it. Numbers at or below it that are still pending
    /// were answered before a snapshot was installed.
    pub(crate) fn answer_seq(
        &mut self,
        session: SessionId,
        epoch: u64,
        seq: u64,
        reply: Reply,
    ) -> Option<Output> {
        let attachment = self.attachments.get_mut(&session).filter(|it| it.epoch == epoch)?;
        if attachment.pending.front()?.seq != seq {
            return None;
        }
        let it = attachment.pending.pop_front()?;
        attachment.pending_bytes -= it.command.len();
        attachment.answered = seq;
        attachment.sent_tick = self.tick;
        attachment.repeats = 0;
        if attachment.pending.is_empty() {
            self.waiting.remove(&session);
        }
        self.count -= 1;
        self.bytes -= it.command.len();
        let result = reply.result.map(Some).map_err(RequestError::Op);
        Some(Output::Reply { ticket: it.ticket?, zxid: reply.zxid, result })
    }

    /// Takes the command without a sequence that this apply answers.
    pub(crate) fn take_plain(&mut self, counter: u64) -> Option<Plain> {
        let plain = self.plain.remove(&counter)?;
        self.count -= 1;
        self.bytes -= plain.command.len();
        Some(plain)
    }

    /// A keep-alive was committed: when was the newest one that it covers first asked for?
    pub(crate) fn renewed(&mut self, it: &KeepAlive) -> Option<(Duration, u64)> {
        self.keep_alives.committed(it)
    }

    /// After a snapshot was installed: the first command of each session that is not answered.
    pub(crate) fn unanswered(&self) -> Vec<(SessionId, u64, Vec<u64>)> {
        let seqs = |it: &Attachment| it.pending.iter().map(|it| it.seq).collect();
        let attachments = self.attachments.iter();
        attachments.map(|(&session, it)| (session, it.epoch, seqs(it))).collect()
    }

    /// Every command without a sequence that was sent may lie inside an installed snapshot, if its
    /// counter is below `before`.
    pub(crate) fn fail_sent_plain(
        &mut self,
        before: u64,
        unknown: Unknown,
        zxid: Zxid,
        out: &mut Vec<Output>,
    ) {
        let sent = self.plain.range(..before).filter(|(_, it)| it.sent.is_some());
        let sent: Vec<u64> = sent.map(|(&counter, _)| counter).collect();
        for counter in sent {
            // Opening and attaching are repeated without harm (rule 9).
            let harmless = self.plain.get(&counter).is_some_and(|it| it.session.is_some());
            if harmless || Mutant::PlainInstalledAgain.active() {
                self.outbox.push(Unsent::Plain(counter));
                continue;
            }
            self.fail_plain(counter, RequestError::Unknown(unknown), zxid, out);
        }
    }

    /// The node has ended: nobody knows what becomes of what was sent.
    pub(crate) fn fail_all(&mut self, zxid: Zxid, out: &mut Vec<Output>) {
        for session in self.attachments.keys().copied().collect::<Vec<_>>() {
            self.detach(session, Unknown::NodeEnded, zxid, out);
        }
        for counter in self.plain.keys().copied().collect::<Vec<_>>() {
            let error = RequestError::Unknown(Unknown::NodeEnded);
            self.fail_plain(counter, error, zxid, out);
        }
        *self = Self::default();
    }

    pub(crate) fn attachment(&self, session: SessionId) -> Option<&Attachment> {
        self.attachments.get(&session)
    }

    /// The session's attachment here.
    pub(crate) fn attached(&self, session: SessionId) -> Result<&Attachment, SubmitError> {
        self.attachments.get(&session).ok_or(SubmitError::NotAttached { session, epoch: 0 })
    }

    pub(crate) fn pending(&self) -> usize {
        self.count
    }

    fn fail_plain(&mut self, counter: u64, error: RequestError, zxid: Zxid, out: &mut Vec<Output>) {
        let Some(plain) = self.take_plain(counter) else {
            return;
        };
        let ticket = plain.ticket;
        out.push(match plain.session {
            Some(_) => Output::Session { ticket, result: Err(error) },
            None => Output::Reply { ticket, zxid, result: Err(error) },
        });
    }
}

impl Attachment {
    /// The last number that was submitted.
    pub(crate) fn submitted(&self) -> u64 {
        self.next_seq - 1
    }

    /// Every command up to here was answered.
    pub(crate) fn answered(&self) -> u64 {
        self.answered
    }

    /// A command that is not answered.
    fn command(&self, seq: u64) -> Option<Bytes> {
        let at = seq.checked_sub(self.pending.front()?.seq)?;
        let it = self.pending.get(usize::try_from(at).ok()?)?;
        Some(it.command.clone())
    }
}

/// How often the wait for an answer doubles.
const DOUBLINGS_MAX: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Zxid;

    const RESEND: u64 = 10;

    fn attached() -> (Origin, SessionId) {
        let session = SessionId::new(1).expect("valid");
        let mut origin = Origin::default();
        origin.attach(session, (1, 1_000_000), 0);
        (origin, session)
    }

    fn push(origin: &mut Origin, session: SessionId, seq: u64, tick: u64) {
        let command = Bytes::copy_from_slice(&seq.to_le_bytes());
        origin.push_seq(Ticket(seq), session, (seq, 0), command, tick);
    }

    fn answer(origin: &mut Origin, session: SessionId, seq: u64) {
        let reply = Reply { zxid: Zxid::ZERO, result: Ok(crate::op::Outcome::Deleted) };
        assert!(origin.answer_seq(session, 1, seq, reply).is_some());
    }

    fn tick(origin: &mut Origin, tick: u64) {
        origin.tick(tick, Some(RESEND), 200, Zxid::ZERO, &mut Vec::new());
    }

    /// What leaves now, as numbers.
    fn sent(origin: &mut Origin, tick: u64) -> Vec<u64> {
        let (commands, _) = origin.take_outbox((tick, 1), true);
        let number = |it: &Bytes| u64::from_le_bytes(it[..].try_into().expect("8 bytes"));
        commands.iter().map(number).collect()
    }

    #[test]
    fn rule_7_a_session_that_is_being_answered_sends_nothing_again() {
        let (mut origin, session) = attached();
        for now in 1..=100 {
            tick(&mut origin, now);
            push(&mut origin, session, now, now);
            assert_eq!(sent(&mut origin, now), [now]);
            if now > 8 {
                answer(&mut origin, session, now - 8);
            }
        }
        // The answers stop: what is left is sent again, once in a while.
        let resent: Vec<u64> = (101..=200)
            .filter(|&now| {
                tick(&mut origin, now);
                let sent = sent(&mut origin, now);
                assert!(sent.is_empty() || sent == (93..=100).collect::<Vec<_>>(), "{sent:?}");
                !sent.is_empty()
            })
            .collect();
        assert_eq!(resent, [110, 130, 170], "a repeat without an answer doubles the wait");
    }

    #[test]
    fn rule_7_a_repeat_has_each_command_once_and_one_gap_asks_for_one() {
        let (mut origin, session) = attached();
        (1..=3).for_each(|seq| push(&mut origin, session, seq, 0));
        assert_eq!(sent(&mut origin, 0), [1, 2, 3]);
        (4..=6).for_each(|seq| push(&mut origin, session, seq, 0));
        origin.gap(session);
        assert_eq!(sent(&mut origin, 0), [1, 2, 3, 4, 5, 6]);
        // The others that were behind the gap: the repeat is on its way.
        origin.gap(session);
        assert_eq!(sent(&mut origin, 0), []);
        answer(&mut origin, session, 1);
        origin.gap(session);
        assert_eq!(sent(&mut origin, 0), [2, 3, 4, 5, 6]);
    }

    #[test]
    fn what_waits_for_room_stays_here_and_is_given_up_unsent() {
        let (mut origin, _) = attached();
        origin.push_plain(Ticket(1), None, Bytes::from_static(b"12345678"), 0);
        assert!(origin.take_outbox((0, 1), false).0.is_empty());
        let mut out = Vec::new();
        origin.tick(200, None, 200, Zxid::ZERO, &mut out);
        let unsent = Err(RequestError::NoLeader);
        let reply = Output::Reply { ticket: Ticket(1), zxid: Zxid::ZERO, result: unsent };
        assert_eq!(out, [reply]);
        assert!(origin.take_outbox((200, 1), true).0.is_empty(), "it was said to do nothing");
    }
}
