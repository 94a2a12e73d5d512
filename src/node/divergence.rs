//! States that differ: they are compared, and a bad one is replaced (ARCHITECTURE.md, rule 2).
//!
//! A member whose state is not that of most voters is in quarantine: its consensus stands still, as
//! if the process had been stopped, so it gives no vote and acknowledges nothing; it answers
//! nothing and serves no snapshot. Its log is what it was, and raft ignores a snapshot of what a
//! log has. So the state alone is replaced: by that of a peer, after an entry that this member may
//! not have in its log yet, once most voters have said that theirs was the same there. Entries up
//! to it then change the members only. Until a snapshot of the new state is durable, the member's
//! own record says that the one on the disk is not to be used.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Ended, Node, StepError,
    digests::{Minority, majority},
    transfer::{Incoming, Outgoing, Received},
};
use crate::{
    id::{NodeId, Zxid},
    mutant::Mutant,
    namespace::{Digest, Namespace},
    node::status::{Divergence, Mismatch},
    wire::{Body, Chunk, DigestReport, MARKS_MAX},
};

/// A state that is not to be used, and what is done about it.
#[derive(Debug)]
pub(crate) struct Quarantine {
    mismatch: Mismatch,
    /// The last transaction that the comparison was about.
    zxid: Zxid,
    phase: Phase,
    /// Who is asked now.
    peer: Option<NodeId>,
    asked_tick: u64,
    tries: u32,
    /// What the others' states came to after the entry whose state is taken over.
    votes: BTreeMap<NodeId, u64>,
}

#[derive(Debug)]
enum Phase {
    /// The marks of a member of the majority after this transaction are looked for.
    Search(Zxid),
    /// A peer is asked for its state.
    Ask,
    /// Its state comes, chunk by chunk.
    Fetch(Box<Incoming>),
    /// It is there, and most of these voters have to say that it is theirs.
    Verify(Box<Staged>),
}

#[derive(Debug)]
struct Staged {
    index: u64,
    digest: u64,
    namespace: Namespace,
    voters: BTreeSet<NodeId>,
}

impl Quarantine {
    /// An earlier opening found the state to be bad.
    pub(crate) fn reopened(index: u64) -> Self {
        let mismatch = Mismatch { index, last_good: None, first_bad: None };
        Self::new(mismatch, Zxid::ZERO, Phase::Ask, None)
    }

    fn new(mismatch: Mismatch, zxid: Zxid, phase: Phase, peer: Option<NodeId>) -> Self {
        let votes = BTreeMap::new();
        Self { mismatch, zxid, phase, peer, asked_tick: 0, tries: 0, votes }
    }

    /// The entry whose state is taken over.
    fn index(&self) -> Option<u64> {
        match &self.phase {
            Phase::Search(_) | Phase::Ask => None,
            Phase::Fetch(incoming) => Some(incoming.index),
            Phase::Verify(staged) => Some(staged.index),
        }
    }

    /// Looks for the first difference in a peer's marks. Returns where to go on, if anywhere.
    fn search(&mut self, own: &super::digests::Digests, items: &[(Zxid, u64)]) -> Option<Zxid> {
        for &(zxid, mark) in items.iter().take_while(|item| item.0 <= self.zxid) {
            match own.mark(zxid) {
                Some(own) if own == mark => self.mismatch.last_good = Some(zxid),
                None if own.is_before_marks(zxid) => {}
                _ => {
                    self.mismatch.first_bad = Some(zxid);
                    return None;
                }
            }
        }
        let next = items.last().filter(|last| items.len() == MARKS_MAX && last.0 < self.zxid);
        if next.is_none() {
            // It went bad after the last transaction, or nobody remembers so far back.
            self.mismatch.first_bad = Some(self.zxid);
        }
        next.map(|last| last.0)
    }
}

impl Node {
    /// Whether this member's state differs from that of most voters: it neither votes nor answers
    /// before it has taken over the state of another member.
    pub fn is_quarantined(&self) -> bool {
        self.quarantine.is_some()
    }

    pub(super) fn divergence(&self) -> Option<Divergence> {
        if let Some(quarantine) = &self.quarantine {
            return Some(Divergence::Quarantined(quarantine.mismatch));
        }
        if let Some((index, digests)) = self.digests.unresolved() {
            return Some(Divergence::Unresolved { index: *index, digests: digests.clone() });
        }
        self.replaced.map(|(mismatch, index)| Divergence::Replaced { mismatch, index })
    }

    /// Whether the state is that after this entry already, or after a later one.
    pub(super) fn is_covered(&self, index: u64) -> bool {
        self.replaced.is_some_and(|(_, replaced)| index <= replaced)
    }

    /// The state is one that was read.
    pub(super) fn restart_digests(&mut self) {
        let (zxid, digest) = (self.namespace.zxid(), self.namespace.digest().value);
        self.digests.restart(self.applied, zxid, digest);
    }

    /// A leader asks for a comparison when it is time: nothing if nothing has changed.
    pub(super) fn ask_to_compare(&mut self) {
        let patience = u64::from(self.config.election_ticks) * COMPARE_ELECTIONS;
        let entries_max = self.config.limits.compare_entries_max;
        let due = self.digests.is_due(entries_max, self.tick, patience);
        if !due || self.membership.members.len() < 2 || !self.consensus.committed_in_term() {
            return;
        }
        let asked = self.digests.compared();
        if let (Some(leadership), Some((index, digest))) =
            (&mut self.leadership, self.digests.last())
        {
            leadership.compare(asked, (index, Digest::VERSION, digest));
        }
    }

    /// The log asks for a comparison: everyone hears what this node's state comes to.
    pub(super) fn compare_states(&mut self, report: DigestReport) {
        let own = self.config.id;
        let place = (own, self.membership.voters());
        let Some(digest) = self.digests.open_point(report.index, place, self.tick) else {
            return;
        };
        if report.version == Digest::VERSION && report.digest != digest {
            slog::warn!(
                self.config.logger, "the state differs from that of the leader of that time";
                "index" => report.index, "own" => digest, "leader" => report.digest
            );
        }
        self.report_digest(None, report.index, digest);
    }

    /// Looks at what is known of the others' states, and answers who waited for this node's.
    pub(super) fn compare_digests(&mut self) {
        // A snapshot that raft has taken replaces the state anyway.
        if self.is_out() || self.consensus.installs() || Mutant::DigestNotCompared.active() {
            return;
        }
        for (to, index, digest) in self.digests.take_answers() {
            self.report_digest(Some(to), index, digest);
        }
        let patience = u64::from(self.config.election_ticks) * UNRESOLVED_ELECTIONS;
        if let Some(minority) = self.digests.compare(self.tick, patience) {
            self.quarantine(minority);
        }
    }

    /// Asks again for what seems to be lost, and lets go what nobody pulls.
    pub(super) fn tick_divergence(&mut self) {
        let election = u64::from(self.config.election_ticks);
        if self.is_out() {
            return self.tick_quarantine(election);
        }
        for (to, index) in self.digests.silent(self.config.id, self.tick, election) {
            self.send(to, Body::DigestAsk { index });
        }
        self.compare_digests();
        let (tick, stalled) = (self.tick, u64::from(self.config.limits.transfer_ticks_max));
        let states = std::mem::take(&mut self.transfers.states);
        let (kept, over) = states.into_iter().partition(|(_, it)| !it.stalls(tick, stalled));
        self.transfers.states = kept;
        let over: BTreeMap<NodeId, Outgoing> = over;
        self.drop_elsewhere(Some(over).filter(|over| !over.is_empty()));
    }

    /// What a peer says of states, to a node whose own is good.
    pub(super) fn take_state_body(&mut self, from: NodeId, body: Body) {
        match body {
            Body::DigestReport(it) if it.version == Digest::VERSION => {
                self.digests.take_report(from, it.index, it.digest);
                self.compare_digests();
            }
            Body::DigestAsk { index } => match self.digests.after(index) {
                Some(digest) => self.report_digest(Some(from), index, digest),
                None if index > self.applied => self.digests.ask_later(from, index),
                None => {}
            },
            Body::MarksAsk { after } => {
                let items = self.digests.marks_after(after);
                self.send(from, Body::Marks { after, items });
            }
            Body::StateAsk { index } => self.offer_state(from, index),
            _ => {}
        }
    }

    /// What a peer says to a node in quarantine: nothing but what mends its state counts.
    pub(super) fn take_in_quarantine(&mut self, from: NodeId, body: Body) -> Result<(), StepError> {
        let Some(quarantine) = &mut self.quarantine else {
            return Ok(());
        };
        let asked = quarantine.peer == Some(from);
        let asks = matches!(quarantine.phase, Phase::Ask);
        let searched = match quarantine.phase {
            Phase::Search(after) => Some(after),
            _ => None,
        };
        match body {
            Body::Marks { after, items } if asked && searched == Some(after) => {
                let next = quarantine.search(&self.digests, &items);
                quarantine.phase = next.map_or(Phase::Ask, Phase::Search);
                self.ask(true);
            }
            Body::StateOffer { index, term } if asked && asks && index >= self.applied => {
                let incoming = Incoming::new(from, (index, term), self.config.cluster, self.tick);
                quarantine.phase = Phase::Fetch(Box::new(incoming));
                quarantine.votes.clear();
                self.ask_digests(index);
                self.ask(true);
            }
            Body::DigestReport(it)
                if it.version == Digest::VERSION && quarantine.index() == Some(it.index) =>
            {
                quarantine.votes.insert(from, it.digest);
                self.verify();
            }
            Body::SnapshotChunk(chunk) if asked => return self.take_state_chunk(from, chunk),
            _ => {}
        }
        Ok(())
    }

    /// Sends the digest after an entry to one member, or to all.
    fn report_digest(&mut self, to: Option<NodeId>, index: u64, digest: u64) {
        let version = Digest::VERSION;
        let to = to.map_or_else(|| self.others(), |to| vec![to]);
        for to in to {
            self.send(to, Body::DigestReport(DigestReport { index, version, digest }));
        }
    }

    fn ask_digests(&mut self, index: u64) {
        for to in self.others() {
            self.send(to, Body::DigestAsk { index });
        }
    }

    fn others(&self) -> Vec<NodeId> {
        let members = self.membership.members.keys().copied();
        members.filter(|&id| id != self.config.id).collect()
    }

    /// This node's state is bad. From here on its consensus stands still.
    fn quarantine(&mut self, it: Minority) {
        slog::error!(
            self.config.logger, "the state differs from that of most voters: it is replaced";
            "index" => it.index, "own" => it.own, "majority" => it.digest
        );
        let Minority { index, zxid, last_good, ref voters, .. } = it;
        self.identity.set_diverged_at(index);
        self.leadership = None;
        self.reads.abandon_round();
        self.reads.drop_remote();
        self.messages.clear();
        self.drop_staging();
        let transfers = std::mem::take(&mut self.transfers);
        self.drop_elsewhere(Some(transfers));
        let mismatch = Mismatch { index, last_good, first_bad: None };
        let phase = Phase::Search(last_good.unwrap_or(Zxid::ZERO));
        let peer = voters.iter().copied().find(|&id| id != self.config.id);
        self.quarantine = Some(Quarantine::new(mismatch, zxid, phase, peer));
        self.ask(true);
    }

    /// Asks the peer for what comes next.
    fn ask(&mut self, fresh: bool) {
        let (tick, applied) = (self.tick, self.applied);
        let Some(quarantine) = &mut self.quarantine else {
            return;
        };
        quarantine.asked_tick = tick;
        if fresh {
            quarantine.tries = 0;
        }
        let body = match &quarantine.phase {
            Phase::Search(after) => Body::MarksAsk { after: *after },
            Phase::Ask => Body::StateAsk { index: applied },
            Phase::Fetch(it) => {
                Body::SnapshotPull { index: it.index, term: it.term, offset: it.offset }
            }
            Phase::Verify(staged) => {
                let index = staged.index;
                return self.ask_digests(index);
            }
        };
        if let Some(peer) = quarantine.peer {
            self.send(peer, body);
        }
    }

    /// Begins anew with the next member.
    fn ask_next(&mut self) {
        let others = self.others();
        if let Some(quarantine) = &mut self.quarantine {
            let next = others.iter().copied().find(|&id| quarantine.peer < Some(id));
            quarantine.peer = next.or(others.first().copied());
            let old = std::mem::replace(&mut quarantine.phase, Phase::Ask);
            self.drop_elsewhere(Some(old));
            self.ask(true);
        }
    }

    /// Asks again, and another one in the end.
    fn tick_quarantine(&mut self, election: u64) {
        let Some(quarantine) = &mut self.quarantine else {
            return;
        };
        if self.tick - quarantine.asked_tick < election {
            return;
        }
        quarantine.tries += 1;
        let tries_max = match quarantine.phase {
            // Who was asked may not have applied as much yet.
            Phase::Search(_) | Phase::Fetch(_) => 3,
            Phase::Ask => 1,
            Phase::Verify(_) => 20,
        };
        match quarantine.tries < tries_max {
            true => self.ask(false),
            false => self.ask_next(),
        }
    }

    /// Holds this node's state for a member whose own is bad.
    fn offer_state(&mut self, to: NodeId, index: u64) {
        let Some(term) = self.consensus.term_at(self.applied) else {
            return;
        };
        if self.applied < index || self.consensus.applied_index() < self.applied {
            return;
        }
        let (place, chunk_bytes) = ((self.applied, term), self.config.limits.snapshot_chunk_bytes);
        let kept = self.transfers.states.get(&to).is_some_and(|it| (it.index, it.term) == place);
        if !kept {
            let outgoing = Outgoing::new(place, self.source(), chunk_bytes, self.tick);
            let old = self.transfers.states.insert(to, outgoing);
            self.drop_elsewhere(old);
        }
        self.send(to, Body::StateOffer { index: place.0, term });
    }

    fn take_state_chunk(&mut self, from: NodeId, chunk: Chunk) -> Result<(), StepError> {
        let Some(quarantine) = &mut self.quarantine else {
            return Ok(());
        };
        let Phase::Fetch(incoming) = &mut quarantine.phase else {
            return Ok(());
        };
        match incoming.receive(chunk, self.tick) {
            Received::Stale => {}
            Received::More(_) => self.ask(true),
            Received::Finished(_) => {
                let index = incoming.index;
                let phase = std::mem::replace(&mut quarantine.phase, Phase::Ask);
                let staged = match phase {
                    Phase::Fetch(incoming) => incoming.into_staged(),
                    _ => None,
                };
                let Some((namespace, membership)) = staged else {
                    return Ok(());
                };
                let (digest, voters) = (namespace.digest().value, membership.voters());
                let staged = Staged { index, digest, namespace, voters };
                quarantine.phase = Phase::Verify(Box::new(staged));
                (quarantine.asked_tick, quarantine.tries) = (self.tick, 0);
                self.verify();
            }
            Received::Corrupt(why) => {
                self.ask_next();
                return Err(StepError::Message { from, why: format!("its state is bad: {why}") });
            }
        }
        Ok(())
    }

    /// Whether most voters have the state that was received; then this node has it, too.
    fn verify(&mut self) {
        let Some(quarantine) = &mut self.quarantine else {
            return;
        };
        let Phase::Verify(staged) = &quarantine.phase else {
            return;
        };
        let votes = quarantine.votes.iter().map(|(id, digest)| (*id, *digest));
        let votes: BTreeMap<NodeId, u64> =
            votes.filter(|(id, _)| staged.voters.contains(id)).collect();
        match majority(&votes, staged.voters.len()) {
            None => {}
            Some(digest) if digest == staged.digest => self.replace_state(),
            Some(_) => self.ask_next(),
        }
    }

    fn replace_state(&mut self) {
        let Some(Quarantine { mismatch, phase: Phase::Verify(staged), .. }) =
            self.quarantine.take()
        else {
            return;
        };
        let Staged { index, namespace, .. } = *staged;
        if let Some(other) = namespace.parameters().difference(&self.config.parameters()) {
            return self.end(Ended::OtherParameters(other));
        }
        slog::warn!(
            self.config.logger, "the state is that of another member from here on";
            "index" => index, "first_bad" => ?mismatch.first_bad
        );
        let before = self.namespace.zxid().min(namespace.zxid());
        let old = std::mem::replace(&mut self.namespace, namespace);
        self.drop_elsewhere(Some(old));
        self.applied = index;
        self.replaced = Some((mismatch, index));
        self.restart_digests();
        // A snapshot is due as soon as the log has come here.
        (self.snapshot_index, self.log_bytes) = (0, self.snapshot_due_bytes());
        self.end_attachments_that_are_over();
        self.cursors.installed(before);
        self.unanswered_before = Some(self.next_ticket);
        // Who led, and was not missed, leads on with what a new leader begins with.
        self.following = (None, 0);
    }
}

/// Election timeouts after a change by which the states are compared at the latest.
const COMPARE_ELECTIONS: u64 = 20;
/// Election timeouts after which states that differ, and no majority, are said to be unresolved
/// though voters have not told theirs.
const UNRESOLVED_ELECTIONS: u64 = 2;
