//! Reads that wait: for their session's writes, for a read round, for the apply.
//!
//! One read round is out and one is forming. A read joins only a round whose request has not left
//! this node, so it cannot miss a write that was acknowledged before it (ARCHITECTURE.md, rule 6).

use std::collections::{BTreeMap, VecDeque};

use crate::{
    id::{NodeId, SessionId, Zxid},
    mutant::Mutant,
    node::request::{Consistency, Read, Ticket},
};

/// A read that is not answered.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Waiting {
    pub(crate) ticket: Ticket,
    pub(crate) read: Read,
    place: Place,
    tick: u64,
}

/// Where a session stands when it reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Place {
    /// The attachment that reads; 0 outside any session.
    pub(crate) epoch: u64,
    /// The session's writes up to here come first.
    pub(crate) after_seq: u64,
    /// The last of them that was answered.
    pub(crate) answered: u64,
}

impl Waiting {
    pub(crate) fn session(&self) -> Option<SessionId> {
        self.read.caller.session()
    }

    /// The attachment that reads; 0 outside any session.
    pub(crate) fn epoch(&self) -> u64 {
        self.place.epoch
    }
}

/// The reads of one node.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// By session: reads that wait for earlier writes or reads of theirs.
    blocked: BTreeMap<SessionId, VecDeque<Waiting>>,
    /// By session: how many are past `blocked`, and whether they are linearizable.
    running: BTreeMap<SessionId, (usize, bool)>,
    forming: Vec<Waiting>,
    /// Rounds that other nodes ask this one, the leader, to make.
    forming_remote: Vec<(NodeId, [u8; 16])>,
    out: Option<Round>,
    at_index: BTreeMap<u64, Vec<Waiting>>,
    at_zxid: BTreeMap<Zxid, Vec<Waiting>>,
    ready: Vec<Waiting>,
    count: usize,
    next_round: u64,
}

/// A round whose request has left.
#[derive(Debug)]
struct Round {
    context: [u8; 16],
    term: u64,
    tick: u64,
    reads: Vec<Waiting>,
    remote: Vec<(NodeId, [u8; 16])>,
}

impl Reads {
    /// Takes a read.
    pub(crate) fn push(&mut self, ticket: Ticket, read: Read, place: Place, tick: u64) {
        self.count += 1;
        let waiting = Waiting { ticket, read, place, tick };
        let Some(session) = waiting.session() else {
            self.start(waiting);
            return;
        };
        let blocked = self.blocked.get(&session).is_some_and(|queue| !queue.is_empty());
        let behind = place.after_seq > place.answered && !Mutant::OwnWriteUnread.active();
        if blocked || behind || !self.may_run(session, &waiting) {
            self.blocked.entry(session).or_default().push_back(waiting);
        } else {
            self.run(session, waiting);
        }
    }

    /// A session's writes were answered, or one of its reads: what waited for that may go on.
    pub(crate) fn unblock(&mut self, session: SessionId, answered: u64) {
        while let Some(queue) = self.blocked.get_mut(&session) {
            let Some(front) = queue.front() else {
                self.blocked.remove(&session);
                return;
            };
            if front.place.after_seq > answered {
                return;
            }
            let front = front.clone();
            if !self.may_run(session, &front) {
                return;
            }
            if let Some(queue) = self.blocked.get_mut(&session) {
                queue.pop_front();
            }
            self.run(session, front);
        }
    }

    /// The leader asks for a round on behalf of another node.
    pub(crate) fn push_remote(&mut self, from: NodeId, context: [u8; 16], max: usize) {
        self.forming_remote.retain(|&(node, _)| node != from);
        if self.forming_remote.len() < max {
            self.forming_remote.push((from, context));
        }
    }

    /// Whether a round is to be made: none is out, and one has reads.
    pub(crate) fn wants_round(&self) -> bool {
        self.out.is_none() && !(self.forming.is_empty() && self.forming_remote.is_empty())
    }

    /// Closes the forming round: from here on nothing joins it. The context is never used again.
    pub(crate) fn begin_round(&mut self, boot_nonce: u64, term: u64, tick: u64) -> [u8; 16] {
        self.next_round += u64::from(!Mutant::ContextReused.active());
        let mut context = [0; 16];
        context[..8].copy_from_slice(&boot_nonce.to_le_bytes());
        context[8..].copy_from_slice(&self.next_round.to_le_bytes());
        let reads = std::mem::take(&mut self.forming);
        let remote = std::mem::take(&mut self.forming_remote);
        self.out = Some(Round { context, term, tick, reads, remote });
        context
    }

    /// The round is confirmed: its reads wait for `index`. Returns whom else to tell.
    pub(crate) fn confirm(
        &mut self,
        context: [u8; 16],
        term: u64,
        index: u64,
    ) -> Vec<(NodeId, [u8; 16])> {
        match self.out.take_if(|round| round.context == context && round.term == term) {
            Some(round) => {
                self.at_index.entry(index).or_default().extend(round.reads);
                round.remote
            }
            None => Vec::new(),
        }
    }

    /// The round that is out is void: its reads join the next one, under another context.
    pub(crate) fn abandon_round(&mut self) {
        if let Some(round) = self.out.take() {
            let joined = std::mem::replace(&mut self.forming, round.reads);
            self.forming.extend(joined);
        }
    }

    /// This node does not lead (any more): the others ask the next leader.
    pub(crate) fn drop_remote(&mut self) {
        self.forming_remote.clear();
        if let Some(round) = &mut self.out {
            round.remote.clear();
        }
    }

    /// Gives up a round that nobody answers, and reads that are past their time.
    pub(crate) fn tick(&mut self, tick: u64, round_ticks: u64, give_up_ticks: u64) -> Vec<Waiting> {
        if self.out.as_ref().is_some_and(|round| tick - round.tick >= round_ticks) {
            self.abandon_round();
        }
        let mut late = Vec::new();
        let keep = |waiting: &Waiting| tick - waiting.tick < give_up_ticks;
        let mut sweep = |queue: &mut Vec<Waiting>| {
            late.extend(extract(queue, |waiting| !keep(waiting)));
        };
        sweep(&mut self.forming);
        self.at_index.values_mut().for_each(&mut sweep);
        self.at_zxid.values_mut().for_each(&mut sweep);
        self.at_index.retain(|_, queue| !queue.is_empty());
        self.at_zxid.retain(|_, queue| !queue.is_empty());
        let mut never_ran = Vec::new();
        for queue in self.blocked.values_mut() {
            while queue.front().is_some_and(|waiting| !keep(waiting)) {
                never_ran.extend(queue.pop_front());
            }
        }
        for waiting in &late {
            self.finish(waiting);
        }
        self.count -= never_ran.len();
        late.extend(never_ran);
        late
    }

    /// Takes the reads that can be answered from the tree as it is now.
    pub(crate) fn take_ready(&mut self, applied: u64, zxid: Zxid) -> Vec<Waiting> {
        let mut ready = std::mem::take(&mut self.ready);
        let early = Mutant::ReadBeforeApplied.active();
        let due = |index: u64| index <= applied || early;
        while let Some(first) = self.at_index.first_entry().filter(|it| due(*it.key())) {
            ready.extend(first.remove());
        }
        while let Some(first) = self.at_zxid.first_entry().filter(|it| *it.key() <= zxid) {
            ready.extend(first.remove());
        }
        for waiting in &ready {
            self.finish(waiting);
        }
        ready
    }

    /// The node or the session has ended: these are not answered any more.
    pub(crate) fn drain_session(&mut self, session: SessionId) -> Vec<Waiting> {
        let blocked: Vec<Waiting> = self.blocked.remove(&session).into_iter().flatten().collect();
        self.count -= blocked.len();
        blocked
    }

    pub(crate) fn drain_all(&mut self) -> Vec<Waiting> {
        self.abandon_round();
        let this = std::mem::take(self);
        self.next_round = this.next_round;
        let mut all = this.forming;
        all.extend(this.ready);
        all.extend(this.at_index.into_values().flatten());
        all.extend(this.at_zxid.into_values().flatten());
        all.extend(this.blocked.into_values().flatten());
        all
    }

    /// Whether some wait for nothing any more.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// How many of a session wait.
    pub(crate) fn of_session(&self, session: SessionId) -> usize {
        let blocked = self.blocked.get(&session).map_or(0, VecDeque::len);
        blocked + self.running.get(&session).map_or(0, |running| running.0)
    }

    fn may_run(&self, session: SessionId, waiting: &Waiting) -> bool {
        let linearizable = waiting.read.consistency == Consistency::Linearizable;
        match self.running.get(&session) {
            None => true,
            Some(&(_, running)) => linearizable && running,
        }
    }

    fn run(&mut self, session: SessionId, waiting: Waiting) {
        let linearizable = waiting.read.consistency == Consistency::Linearizable;
        let running = self.running.entry(session).or_insert((0, linearizable));
        running.0 += 1;
        self.start(waiting);
    }

    fn start(&mut self, waiting: Waiting) {
        match waiting.read.consistency {
            Consistency::Local => self.ready.push(waiting),
            Consistency::AtLeast(zxid) => self.at_zxid.entry(zxid).or_default().push(waiting),
            Consistency::Linearizable => match &mut self.out {
                Some(round) if Mutant::ReadJoinsRound.active() => round.reads.push(waiting),
                _ => self.forming.push(waiting),
            },
        }
    }

    fn finish(&mut self, waiting: &Waiting) {
        self.count -= 1;
        let Some(session) = waiting.session() else {
            return;
        };
        if let Some(running) = self.running.get_mut(&session) {
            running.0 -= 1;
            if running.0 == 0 {
                self.running.remove(&session);
            }
        }
    }
}

/// Takes out what fits, in order; `Vec::extract_if` is younger than our minimum Rust.
fn extract(queue: &mut Vec<Waiting>, take: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
    let (taken, kept) = std::mem::take(queue).into_iter().partition(take);
    *queue = kept;
    taken
}
