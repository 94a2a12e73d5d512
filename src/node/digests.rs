//! What the members' states come to, and what follows from comparing them (ARCHITECTURE.md,
//! rule 2).
//!
//! An entry that was applied is the same on every member, and so must be the state after it: an
//! index alone says what is compared, in whatever term and by whichever leader it was asked for.
//! Only a majority of the voters decides, and each member decides for itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{
    id::{NodeId, Zxid},
    wire::MARKS_MAX,
};

/// What a state comes to, after each of the last entries and transactions; and what the others
/// said of theirs. All of it is bounded.
#[derive(Debug, Default)]
pub(crate) struct Digests {
    /// After the last entries, without a gap.
    entries: VecDeque<AtEntry>,
    /// After the last transactions; a peer may ask for those before the last comparison, too.
    marks: VecDeque<(Zxid, u64)>,
    /// Comparisons without a result, oldest first.
    points: VecDeque<Point>,
    /// The newest reports of each voter, this node's too: index and digest.
    reports: BTreeMap<NodeId, VecDeque<(u64, u64)>>,
    /// Who waits for what this node has not applied yet.
    asked: BTreeMap<NodeId, u64>,
    /// The last entry and transaction after which a majority had this node's state.
    agreed: (u64, Option<Zxid>),
    unresolved: Option<(u64, BTreeMap<NodeId, u64>)>,
    /// Up to which entry the log asks for comparisons.
    compared: u64,
    /// When the first entry after that which changed something was applied, if there is one.
    changed_tick: Option<u64>,
    /// The last entry that changed something.
    changed: u64,
    transactions: usize,
}

/// The state after one entry.
#[derive(Clone, Copy, Debug)]
struct AtEntry {
    index: u64,
    zxid: Zxid,
    digest: u64,
}

/// A comparison that the log asks for.
#[derive(Debug)]
struct Point {
    at: AtEntry,
    /// As of the entry that asks for it: the same on every member.
    voters: BTreeSet<NodeId>,
    tick: u64,
    asked_tick: u64,
    tries: u32,
}

/// This node's state is another than that of a majority.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Minority {
    pub(crate) index: u64,
    pub(crate) zxid: Zxid,
    pub(crate) own: u64,
    pub(crate) digest: u64,
    /// Who has the majority's state.
    pub(crate) voters: BTreeSet<NodeId>,
    pub(crate) last_good: Option<Zxid>,
}

impl Digests {
    /// The state is one that was read, at this entry: what was kept of the one before is void.
    pub(crate) fn restart(&mut self, index: u64, zxid: Zxid, digest: u64) {
        let reports = std::mem::take(&mut self.reports);
        let asked = std::mem::take(&mut self.asked);
        let entries = VecDeque::from([AtEntry { index, zxid, digest }]);
        *self = Self { entries, reports, asked, compared: index, ..Self::default() };
    }

    /// A transaction was applied.
    pub(crate) fn push_mark(&mut self, zxid: Zxid, mark: u64) {
        if self.marks.len() == MARKS_KEPT {
            self.marks.pop_front();
        }
        self.marks.push_back((zxid, mark));
        self.transactions += 1;
    }

    /// An entry was applied; `changes` says whether it does more than to ask for a comparison.
    pub(crate) fn push_entry(
        &mut self,
        (index, zxid, digest): (u64, Zxid, u64),
        changes: bool,
        tick: u64,
    ) {
        if self.entries.len() == ENTRIES_KEPT {
            self.entries.pop_front();
        }
        self.entries.push_back(AtEntry { index, zxid, digest });
        if changes {
            self.changed = index;
            self.changed_tick.get_or_insert(tick);
        }
    }

    /// Whether the leader is to ask for a comparison after the last entry. Never if nothing has
    /// changed since the last one.
    pub(crate) fn is_due(&self, entries_max: usize, tick: u64, ticks_max: u64) -> bool {
        let entries = self.changed.saturating_sub(self.compared);
        let waited = self.changed_tick.map_or(0, |since| tick - since);
        entries > 0
            && (entries >= entries_max as u64
                || self.transactions >= TRANSACTIONS_MAX
                || waited >= ticks_max)
    }

    /// The last entry, and the digest after it.
    pub(crate) fn last(&self) -> Option<(u64, u64)> {
        self.entries.back().map(|it| (it.index, it.digest))
    }

    /// The digest after an entry, if it is still known.
    pub(crate) fn after(&self, index: u64) -> Option<u64> {
        self.at(index).map(|it| it.digest)
    }

    /// The log asks for a comparison after an earlier entry. Returns this node's digest; `None` if
    /// it has passed that entry by a snapshot, or too long ago: then it takes no part in this one.
    pub(crate) fn open_point(
        &mut self,
        index: u64,
        (own, voters): (NodeId, BTreeSet<NodeId>),
        tick: u64,
    ) -> Option<u64> {
        self.compared = self.compared.max(index);
        self.transactions = 0;
        self.changed_tick = (self.changed > self.compared).then_some(tick);
        let at = self.at(index)?;
        let known = self.points.iter().any(|point| point.at.index == index);
        if known || index <= self.agreed.0 {
            return None;
        }
        if self.points.len() == POINTS_MAX {
            self.points.pop_front();
        }
        if voters.contains(&own) {
            self.take_report(own, index, at.digest);
        }
        self.points.push_back(Point { at, voters, tick, asked_tick: tick, tries: 0 });
        Some(at.digest)
    }

    /// What a member's state came to. A repeat takes the place of what it said before.
    pub(crate) fn take_report(&mut self, from: NodeId, index: u64, digest: u64) {
        let reports = self.reports.entry(from).or_default();
        reports.retain(|it| it.0 != index);
        reports.push_back((index, digest));
        if reports.len() > REPORTS_MAX {
            reports.pop_front();
        }
    }

    /// A member has started anew, or is gone: what it said is void.
    pub(crate) fn forget(&mut self, member: NodeId) {
        self.reports.remove(&member);
        self.asked.remove(&member);
    }

    /// Compares what is known. Returns how this node differs from a majority, if it does.
    pub(crate) fn compare(&mut self, tick: u64, patience: u64) -> Option<Minority> {
        let mut agreed = None;
        for point in &self.points {
            let votes = self.votes(point.at.index, &point.voters);
            let Some(digest) = majority(&votes, point.voters.len()) else {
                let distinct: BTreeSet<u64> = votes.values().copied().collect();
                let missing = point.voters.len() - votes.len();
                let most = distinct.iter().map(|it| count(&votes, *it)).max().unwrap_or(0);
                let hopeless = most + missing <= point.voters.len() / 2;
                if distinct.len() > 1 && (hopeless || tick - point.tick >= patience) {
                    self.unresolved = Some((point.at.index, votes));
                }
                continue;
            };
            let AtEntry { index, zxid, digest: own } = point.at;
            if own == digest {
                agreed = Some((index, zxid));
                continue;
            }
            let voters = votes.iter().filter(|it| *it.1 == digest).map(|it| *it.0).collect();
            let last_good = agreed.map(|it| it.1).or(self.agreed.1);
            return Some(Minority { index, zxid, own, digest, voters, last_good });
        }
        if let Some((index, zxid)) = agreed {
            self.agreed = (index, Some(zxid));
            self.points.retain(|point| point.at.index > index);
            self.unresolved.take_if(|it| it.0 <= index);
        }
        None
    }

    /// Who has not told what a comparison waits for, if its report may be lost: whom to ask.
    pub(crate) fn silent(&mut self, own: NodeId, tick: u64, every: u64) -> Vec<(NodeId, u64)> {
        let mut silent = Vec::new();
        let reports = &self.reports;
        for point in &mut self.points {
            if tick - point.asked_tick < every || point.tries == TRIES_MAX {
                continue;
            }
            (point.asked_tick, point.tries) = (tick, point.tries + 1);
            let index = point.at.index;
            let told = |id: &NodeId| {
                let its = reports.get(id);
                its.is_some_and(|its| its.iter().any(|report| report.0 == index))
            };
            let missing = point.voters.iter().filter(|id| **id != own && !told(id));
            silent.extend(missing.map(|id| (*id, index)));
        }
        silent
    }

    /// A member asks for the digest after an entry that this node has yet to apply.
    pub(crate) fn ask_later(&mut self, from: NodeId, index: u64) {
        self.asked.insert(from, index);
    }

    /// Who waited for what has been applied meanwhile.
    pub(crate) fn take_answers(&mut self) -> Vec<(NodeId, u64, u64)> {
        let last = match self.entries.back() {
            Some(last) if !self.asked.is_empty() => last.index,
            _ => return Vec::new(),
        };
        let due: Vec<_> = self.asked.iter().filter(|it| *it.1 <= last).map(|it| *it.0).collect();
        let answer = |id: NodeId| {
            let index = self.asked.remove(&id)?;
            Some((id, index, self.at(index)?.digest))
        };
        due.into_iter().filter_map(answer).collect()
    }

    /// The oldest marks after a transaction.
    pub(crate) fn marks_after(&self, zxid: Zxid) -> Vec<(Zxid, u64)> {
        let from = self.marks.partition_point(|mark| mark.0 <= zxid);
        self.marks.range(from..).take(MARKS_MAX).copied().collect()
    }

    /// The mark of a transaction, if it is still known.
    pub(crate) fn mark(&self, zxid: Zxid) -> Option<u64> {
        let at = self.marks.binary_search_by_key(&zxid, |mark| mark.0).ok()?;
        self.marks.get(at).map(|mark| mark.1)
    }

    /// Whether this transaction lies before all whose mark is known.
    pub(crate) fn is_before_marks(&self, zxid: Zxid) -> bool {
        self.marks.front().is_none_or(|first| zxid < first.0)
    }

    /// Up to which entry the log has asked for comparisons.
    pub(crate) fn compared(&self) -> u64 {
        self.compared
    }

    /// The entry after which no majority has one state, and what each voter's came to.
    pub(crate) fn unresolved(&self) -> Option<&(u64, BTreeMap<NodeId, u64>)> {
        self.unresolved.as_ref()
    }

    fn at(&self, index: u64) -> Option<AtEntry> {
        let first = self.entries.front()?.index;
        let at = usize::try_from(index.checked_sub(first)?).ok()?;
        self.entries.get(at).copied()
    }

    fn votes(&self, index: u64, voters: &BTreeSet<NodeId>) -> BTreeMap<NodeId, u64> {
        let vote = |id: &NodeId| {
            let report = self.reports.get(id)?.iter().find(|report| report.0 == index)?;
            Some((*id, report.1))
        };
        voters.iter().filter_map(vote).collect()
    }
}

/// The digest that more than half of the voters have.
pub(crate) fn majority(votes: &BTreeMap<NodeId, u64>, voters: usize) -> Option<u64> {
    votes.values().copied().find(|&digest| count(votes, digest) > voters / 2)
}

fn count(votes: &BTreeMap<NodeId, u64>, digest: u64) -> usize {
    votes.values().filter(|it| **it == digest).count()
}

/// Entries after which the digest is known: more than lie between two comparisons.
const ENTRIES_KEPT: usize = 8_192;
/// Transactions after which the mark is known.
const MARKS_KEPT: usize = 65_536;
/// Transactions after which the states are compared: several comparisons fit into what is kept.
const TRANSACTIONS_MAX: usize = 16_384;
/// Comparisons that wait for their result.
const POINTS_MAX: usize = 8;
/// Reports of one voter.
const REPORTS_MAX: usize = 8;
/// How often a report that does not come is asked for.
const TRIES_MAX: u32 = 8;
