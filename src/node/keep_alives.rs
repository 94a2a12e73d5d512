//! The origin's keep-alives: numbered, and remembered with when they were asked for.
//!
//! ARCHITECTURE.md, rule 3: what is acknowledged is a number, and the promise counts from the
//! moment at which that number was first asked for.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::{
    command::KeepAlive,
    id::{LeaseId, SessionId},
    mutant::Mutant,
};

/// Keep-alives of the sessions that are attached here, and of their leases.
#[derive(Debug, Default)]
pub(crate) struct KeepAlives {
    beats: BTreeMap<(SessionId, Option<LeaseId>), Beats>,
    /// Those that are to go to the leader.
    outbox: BTreeMap<(SessionId, Option<LeaseId>), KeepAlive>,
}

/// The keep-alives of one session or lease.
#[derive(Debug)]
struct Beats {
    epoch: u64,
    ttl_us: u64,
    /// Of the newest one.
    number: u64,
    /// When each one that is not committed was first asked for.
    sent: VecDeque<(u64, Duration)>,
}

impl KeepAlives {
    /// From now on the session's own keep-alives may be asked for, or a lease's.
    pub(crate) fn begin(
        &mut self,
        session: SessionId,
        lease: Option<LeaseId>,
        epoch: u64,
        ttl_us: u64,
    ) {
        let beats = Beats { epoch, ttl_us, number: 0, sent: VecDeque::new() };
        self.beats.entry((session, lease)).or_insert(beats);
    }

    /// Numbers the next one and sends it; there is nothing to send for what has not begun.
    pub(crate) fn ask(
        &mut self,
        session: SessionId,
        lease: Option<LeaseId>,
        acked: u64,
        now: Duration,
    ) {
        let Some(beats) = self.beats.get_mut(&(session, lease)) else {
            return;
        };
        beats.number += 1;
        if beats.sent.len() == SENT_MAX {
            // The oldest is the most conservative, and the newest the most useful: drop the second.
            beats.sent.remove(1);
        }
        beats.sent.push_back((beats.number, now));
        let (epoch, number) = (beats.epoch, beats.number);
        let keep_alive = KeepAlive { session, lease, epoch, number, acked };
        self.outbox.insert((session, lease), keep_alive);
    }

    /// The newest of each that are not committed go once more: a new leader has none of them.
    pub(crate) fn ask_again(&mut self, acked: impl Fn(SessionId) -> u64) {
        for (&(session, lease), beats) in &self.beats {
            if let Some(&(number, _)) = beats.sent.back() {
                let (epoch, acked) = (beats.epoch, acked(session));
                let keep_alive = KeepAlive { session, lease, epoch, number, acked };
                self.outbox.insert((session, lease), keep_alive);
            }
        }
    }

    /// One was committed: when was the newest that it covers first asked for, and what is the time
    /// to live?
    pub(crate) fn committed(&mut self, it: &KeepAlive) -> Option<(Duration, u64)> {
        let beats = self.beats.get_mut(&(it.session, it.lease))?;
        if beats.epoch != it.epoch {
            return None;
        }
        let mut asked = None;
        while let Some(&(number, at)) = beats.sent.front() {
            if number > it.number && !Mutant::NewestAcknowledged.active() {
                break;
            }
            asked = Some(at);
            beats.sent.pop_front();
        }
        asked.map(|at| (at, beats.ttl_us))
    }

    /// A lease has ended.
    pub(crate) fn end_lease(&mut self, session: SessionId, lease: LeaseId) {
        self.beats.remove(&(session, Some(lease)));
        self.outbox.remove(&(session, Some(lease)));
    }

    /// The attachment is over.
    pub(crate) fn end_session(&mut self, session: SessionId) {
        let leases: Vec<LeaseId> = self.leases_of(session).collect();
        leases.into_iter().for_each(|lease| self.end_lease(session, lease));
        self.beats.remove(&(session, None));
        self.outbox.remove(&(session, None));
    }

    /// The leases of a session for which keep-alives were asked here.
    pub(crate) fn leases_of(&self, session: SessionId) -> impl Iterator<Item = LeaseId> + '_ {
        let all = self.beats.range((session, None)..);
        all.map_while(move |(&(of, lease), _)| (of == session).then_some(lease)).flatten()
    }

    pub(crate) fn take_outbox(&mut self) -> Vec<KeepAlive> {
        std::mem::take(&mut self.outbox).into_values().collect()
    }

    pub(crate) fn has_outbox(&self) -> bool {
        !self.outbox.is_empty()
    }
}

/// Keep-alives of one session or lease that are not committed.
const SENT_MAX: usize = 32;
