//! What a log must give back after a sequence of writes.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate::{
    HardState, LogEntry,
    node::{Restored, SnapshotWrite, Write},
};

/// The state that a sequence of writes leads to.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    /// Those after the last compaction.
    entries: Vec<LogEntry>,
    hard_state: Option<HardState>,
    local: Option<Bytes>,
    snapshot: Option<Snapshot>,
    staged: Option<Snapshot>,
}

/// Index, term and chunks.
#[derive(Clone, Debug, Default)]
struct Snapshot {
    index: u64,
    term: u64,
    chunks: Vec<Bytes>,
}

impl Model {
    /// All states that a crash during `write` may leave: before it, after each part, after it. What
    /// is compacted away goes into `old`.
    pub(super) fn through(&self, write: &Write, old: &mut BTreeMap<u64, LogEntry>) -> Vec<Self> {
        let mut states = vec![self.clone()];
        let mut now = self.clone();
        for step in &write.snapshot {
            now.step(step);
            states.push(now.clone());
        }
        if let Some(local) = &write.local {
            now.local = Some(local.clone());
        }
        if let Some(first) = write.entries.first() {
            now.entries.retain(|entry| entry.index < first.index);
            now.entries.extend(write.entries.iter().cloned());
        }
        now.hard_state = write.hard_state.or(now.hard_state);
        if let Some(index) = write.compact_to {
            let kept = now.entries.partition_point(|entry| entry.index <= index);
            old.extend(now.entries.drain(..kept).map(|entry| (entry.index, entry)));
        }
        states.push(now);
        states
    }

    fn step(&mut self, step: &SnapshotWrite) {
        match step {
            SnapshotWrite::Begin { index, term } => {
                self.staged = Some(Snapshot { index: *index, term: *term, chunks: Vec::new() });
            }
            SnapshotWrite::Chunk { bytes, .. } => {
                self.staged.iter_mut().for_each(|it| it.chunks.push(bytes.clone()));
            }
            SnapshotWrite::Install { reset_log, .. } => {
                self.snapshot = self.staged.take();
                if *reset_log {
                    self.entries.clear();
                }
            }
            SnapshotWrite::Discard => self.staged = None,
            _ => {}
        }
    }

    /// The last entry, or the last one that the snapshot covers.
    pub(super) fn last_index(&self) -> u64 {
        let last = self.entries.last().map_or(0, |entry| entry.index);
        last.max(self.floor())
    }

    fn floor(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |snapshot| snapshot.index)
    }

    /// Whether that is what was restored; of the entries below the snapshot, any end may be left,
    /// compacted or not.
    pub(super) fn is(&self, restored: &Restored, old: &BTreeMap<u64, LogEntry>) -> bool {
        let floor = self.floor();
        let below = restored.entries.partition_point(|entry| entry.index <= floor);
        let (below, above) = restored.entries.split_at(below);
        let known = |entry: &LogEntry| {
            let at = self.entries.binary_search_by_key(&entry.index, |it| it.index);
            at.map_or_else(|_| old.get(&entry.index), |at| self.entries.get(at)) == Some(entry)
        };
        let from = self.entries.partition_point(|entry| entry.index <= floor);
        let gapless = restored.entries.windows(2).all(|pair| pair[0].index + 1 == pair[1].index);
        gapless
            && below.iter().all(known)
            && above == &self.entries[from..]
            && restored.hard_state == self.hard_state
            && restored.local == self.local
            && self.has_snapshot_of(restored)
    }

    fn has_snapshot_of(&self, restored: &Restored) -> bool {
        match (&self.snapshot, &restored.snapshot) {
            (None, None) => true,
            (Some(own), Some(found)) => {
                (own.index, own.term) == (found.index, found.term)
                    && own.chunks.concat() == found.chunks.concat()
            }
            _ => false,
        }
    }
}
