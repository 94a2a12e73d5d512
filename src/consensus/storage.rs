//! What raft sees of the durable log: its tail, in memory.
//!
//! Every answer comes from memory, so none can fail: bytes and checksums are the disk's business
//! (ARCHITECTURE.md, C2). What is in it is durable, or in a write that is out. The term before the
//! first entry is always kept (P10), and entries above what is applied are never dropped.

use std::collections::VecDeque;

use raft::{
    GetEntriesContext, RaftState, Storage, StorageError,
    eraftpb::{Entry, HardState, Snapshot},
};

use crate::wire::SnapshotMeta;

use super::{
    convert::{self, ENTRY_OVERHEAD},
    membership::Members,
};

/// The tail of the log, and who belonged to the cluster along it.
#[derive(Debug)]
pub(super) struct TailStore {
    /// Index and term of the entry before the first; (0, 0) in a store that holds nothing yet.
    base: (u64, u64),
    /// Invariant: contiguous from `base.0 + 1`.
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Invariant: `base.0 <= applied <= last_index`.
    applied: u64,
    /// The members from each index on, ascending; as far back as `base` where that is known.
    members: VecDeque<(u64, Members)>,
    /// What raft starts from; not kept up to date.
    start: HardState,
}

impl TailStore {
    pub(super) fn new(base: (u64, u64), applied: (u64, Members), start: HardState) -> Self {
        Self {
            base,
            entries: VecDeque::new(),
            bytes: 0,
            applied: applied.0,
            members: VecDeque::from([applied]),
            start,
        }
    }

    /// Takes entries that are durable or on their way; they replace what stands at the first one
    /// and after.
    pub(super) fn append(&mut self, entries: Vec<Entry>) {
        let Some(first) = entries.first() else {
            return;
        };
        assert!(first.index > self.base.0, "raft rewrote compacted entries");
        assert!(first.index <= self.last() + 1, "raft left a gap");
        while self.last() >= first.index {
            if let Some(entry) = self.entries.pop_back() {
                self.bytes -= bytes_of(&entry);
            }
        }
        self.bytes += entries.iter().map(bytes_of).sum::<usize>();
        self.entries.extend(entries);
    }

    /// Goes on from a snapshot that is durable now.
    pub(super) fn install(&mut self, meta: &SnapshotMeta, members: Members) {
        self.entries.clear();
        self.bytes = 0;
        self.base = (meta.index, meta.term);
        self.applied = meta.index;
        self.members = VecDeque::from([(meta.index, members)]);
    }

    /// Starts from a snapshot that may lie inside the tail: it is what is applied, and nothing is
    /// known of the members before it.
    pub(super) fn restore_members(&mut self, index: u64, members: Members) {
        self.applied = index;
        self.members = VecDeque::from([(index, members)]);
    }

    /// Everything up to `index` is applied.
    pub(super) fn set_applied(&mut self, index: u64) {
        self.applied = self.applied.max(index.min(self.last()));
    }

    /// From `index` on, these are the members.
    pub(super) fn set_members(&mut self, index: u64, members: Members) {
        if self.members.len() == MEMBERSHIPS_MAX {
            self.members.pop_front();
        }
        self.members.push_back((index, members));
    }

    /// Drops entries up to and including `to`, but none above what is applied.
    pub(super) fn compact(&mut self, to: u64) {
        let to = to.min(self.applied);
        while self.base.0 < to {
            let Some(entry) = self.entries.pop_front() else {
                return;
            };
            self.bytes -= bytes_of(&entry);
            self.base = (entry.index, entry.term);
        }
        while self.members.get(1).is_some_and(|next| next.0 <= self.base.0) {
            self.members.pop_front();
        }
    }

    pub(super) fn first(&self) -> u64 {
        self.base.0 + 1
    }

    pub(super) fn last(&self) -> u64 {
        self.base.0 + self.entries.len() as u64
    }

    pub(super) fn applied(&self) -> u64 {
        self.applied
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The term of an entry, or of the one before the first.
    pub(super) fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.base.0 {
            return Some(self.base.1);
        }
        Some(self.entries.get(self.place(index)?)?.term)
    }

    /// Term and checksum of an entry.
    #[cfg(feature = "sim")]
    pub(super) fn entry(&self, index: u64) -> Option<(u64, u32)> {
        let entry = self.entries.get(self.place(index)?)?;
        Some((entry.term, crc32c::crc32c(&entry.data)))
    }

    /// The members after the entry at `index` was applied, where that is still known.
    pub(super) fn members_at(&self, index: u64) -> Option<&Members> {
        if index < self.base.0 || index > self.applied {
            return None;
        }
        let after = self.members.partition_point(|(from, _)| *from <= index);
        Some(&self.members.get(after.checked_sub(1)?)?.1)
    }

    /// The members after everything that was applied.
    pub(super) fn members(&self) -> &Members {
        &self.members[self.members.len() - 1].1
    }

    /// The index from which on [`members`](Self::members) are what they are.
    pub(super) fn members_since(&self) -> u64 {
        self.members[self.members.len() - 1].0
    }

    fn place(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.first())?).ok()
    }
}

impl Storage for TailStore {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let meta = convert::meta(0, 0, self.members());
        let mut snapshot = convert::snapshot_to_raft(&meta);
        let conf = snapshot.mut_metadata().take_conf_state();
        Ok(RaftState::new(self.start.clone(), conf))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let Some(from) = self.place(low) else {
            return Err(StorageError::Compacted.into());
        };
        if high > self.last() + 1 || low > high {
            return Err(StorageError::Unavailable.into());
        }
        let to = from + usize::try_from(high - low).unwrap_or(usize::MAX);
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            let first = bytes == 0;
            bytes += bytes_of(entry) as u64;
            first || bytes <= bytes_max
        };
        Ok(self.entries.range(from..to).take_while(fits).cloned().collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        match self.term_at(index) {
            Some(term) => Ok(term),
            None if index < self.first() => Err(StorageError::Compacted.into()),
            None => Err(StorageError::Unavailable.into()),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// Metadata only: the bytes are streamed by the node (ARCHITECTURE.md, rule 11).
    ///
    /// A snapshot that does not name its receiver would be ignored for ever (ARCHITECTURE.md, L2):
    /// raft asks again once the change that added it is applied.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let (index, members) = (self.applied, self.members_at(self.applied));
        let named = |members: &&Members| {
            members.voters.binary_search(&to).is_ok() || members.learners.binary_search(&to).is_ok()
        };
        match (self.term_at(index), members.filter(named)) {
            (Some(term), Some(members)) if index > 0 && index >= request_index => {
                let meta = convert::meta(index, term, members);
                Ok(convert::snapshot_to_raft(&meta))
            }
            _ => Err(StorageError::SnapshotTemporarilyUnavailable.into()),
        }
    }
}

fn bytes_of(entry: &Entry) -> usize {
    entry.data.len() + ENTRY_OVERHEAD
}

/// Changes of the membership that are remembered along the tail.
const MEMBERSHIPS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> TailStore {
        let members =
            |learners: &[u64]| Members { voters: vec![1, 2], learners: learners.to_vec() };
        let mut store = TailStore::new((1, 1), (1, members(&[])), HardState::default());
        let entry = |index| Entry { index, term: 2, data: vec![0; 36].into(), ..Entry::default() };
        store.append((2..=9).map(entry).collect());
        store.set_applied(4);
        store.set_members(5, members(&[3]));
        store
    }

    #[test]
    fn l2_a_snapshot_waits_until_the_change_that_names_its_receiver_is_applied() {
        let mut store = store();
        let unavailable = StorageError::SnapshotTemporarilyUnavailable.into();
        assert_eq!(store.snapshot(0, 3), Err(unavailable));
        let snapshot = store.snapshot(0, 2).unwrap();
        assert_eq!(snapshot.get_metadata().index, 4);
        assert!(snapshot.get_metadata().get_conf_state().learners.is_empty());
        store.set_applied(5);
        let snapshot = store.snapshot(0, 3).unwrap();
        assert_eq!(snapshot.get_metadata().get_conf_state().learners, [3]);
    }

    #[test]
    fn c2_the_tail_is_cut_at_both_ends_and_counted() {
        let mut store = store();
        assert_eq!(store.bytes(), 800);
        store.append(vec![Entry { index: 7, term: 3, ..Entry::default() }]);
        assert_eq!((store.last(), store.bytes()), (7, 564));
        store.compact(9);
        assert_eq!((store.first(), store.bytes()), (5, 264));
        assert_eq!(store.term_at(4), Some(2), "kept for the place before");
        assert_eq!(store.term_at(3), None);
        assert_eq!(store.members_at(3), None);
        assert_eq!(store.members_at(4).map(|m| m.learners.len()), Some(0));
        let context = || GetEntriesContext::empty(false);
        assert_eq!(store.entries(5, 8, Some(150), context()).unwrap().len(), 1);
        assert_eq!(store.entries(5, 8, None, context()).unwrap().len(), 3);
        let compacted = StorageError::Compacted.into();
        assert_eq!(store.entries(4, 6, None, context()), Err(compacted));
    }
}
