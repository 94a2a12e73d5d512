//! What a log should hold, and a script of writes that a node could make.

use bytes::Bytes;

use super::{entries, snapshot_bytes, staged};
use crate::{
    node::{Restored, SnapshotWrite, Write},
    wire::{HardState, LogEntry},
};

/// The state that a sequence of writes leads to.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Model {
    pub(super) entries: Vec<LogEntry>,
    pub(super) hard_state: Option<HardState>,
    pub(super) local: Option<Bytes>,
    pub(super) snapshot: Option<(u64, u64, Vec<u8>)>,
    staged: Option<(u64, u64, Vec<u8>)>,
}

impl Model {
    pub(super) fn step(&mut self, step: &SnapshotWrite) {
        match step {
            SnapshotWrite::Begin { index, term } => {
                self.staged = Some((*index, *term, Vec::new()));
            }
            SnapshotWrite::Chunk { bytes, .. } => {
                if let Some(staged) = &mut self.staged {
                    staged.2.extend_from_slice(bytes);
                }
            }
            SnapshotWrite::Finish { .. } => {}
            SnapshotWrite::Install { reset_log, .. } => {
                self.snapshot = self.staged.take();
                if *reset_log {
                    self.entries.clear();
                }
            }
            SnapshotWrite::Discard => self.staged = None,
        }
    }

    pub(super) fn batch(&mut self, write: &Write) {
        if let Some(local) = &write.local {
            self.local = Some(local.clone());
        }
        if let Some(first) = write.entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
            self.entries.extend(write.entries.iter().cloned());
        }
        self.hard_state = write.hard_state.or(self.hard_state);
    }

    pub(super) fn snapshot_index(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |snapshot| snapshot.0)
    }

    pub(super) fn last_index(&self) -> u64 {
        let last = self.entries.last().map_or(0, |entry| entry.index);
        last.max(self.snapshot_index())
    }

    /// All states that a crash during `write` may leave: before it, after each part, after it.
    pub(super) fn through(&self, write: &Write) -> Vec<Self> {
        let mut states = vec![self.clone()];
        let mut now = self.clone();
        for step in &write.snapshot {
            now.step(step);
            states.push(now.clone());
        }
        now.batch(write);
        states.push(now);
        states
    }

    /// Whether that is what was restored; entries below the snapshot may be missing.
    pub(super) fn is(&self, restored: &Restored) -> bool {
        let floor = self.snapshot_index();
        let above = |entries: &[LogEntry]| {
            let above = entries.iter().filter(|entry| entry.index > floor);
            above.cloned().collect::<Vec<_>>()
        };
        let below = restored.entries.iter().filter(|entry| entry.index <= floor);
        let same_below = below.clone().all(|entry| {
            // What is kept below the snapshot is what was written there.
            self.entries.iter().any(|known| known == entry)
        });
        let gapless = restored.entries.windows(2).all(|pair| pair[0].index + 1 == pair[1].index);
        gapless
            && same_below
            && above(&restored.entries) == above(&self.entries)
            && restored.hard_state == self.hard_state
            && restored.local == self.local
            && snapshot_bytes(restored) == self.snapshot
            && !restored.tail_cut
    }
}

/// A script of `count` writes: appends, overwritten ends, hard states, own and foreign snapshots,
/// compactions, each allowed at its place.
pub(super) fn script(seed: u64, count: usize) -> Vec<Write> {
    let mut random = seed;
    let mut model = Model::default();
    let mut term = 1;
    let mut commit = 0;
    let mut writes = Vec::new();
    while writes.len() < count {
        let mut write = Write::default();
        let last = model.last_index();
        let floor = model.snapshot_index().max(commit);
        match draw(&mut random, 12) {
            0..=4 => {
                let many = 1 + draw(&mut random, 6);
                write = entries(last + 1..=last + many, term);
                if draw(&mut random, 3) == 0 {
                    commit = last + many;
                    write.hard_state = Some(HardState::new(term, 1, commit));
                }
            }
            5 => {
                term += 1;
                let from = floor + 1 + draw(&mut random, last - floor + 1);
                write = entries(from..=from + draw(&mut random, 3), term);
                write.hard_state = Some(HardState::new(term, 2, commit));
            }
            6 => {
                commit = floor + draw(&mut random, last - floor + 1);
                write.hard_state = Some(HardState::new(term, draw(&mut random, 4), commit));
            }
            7 => {
                let length = draw(&mut random, 900) as usize;
                write.local = Some(vec![random as u8; length].into());
            }
            8 if last > 0 => {
                commit = floor;
                let index = floor.max(1);
                write.snapshot = with_install(&mut random, index, term, false);
                write.hard_state = Some(HardState::new(term, 1, commit.max(index)));
                commit = commit.max(index);
            }
            9 if draw(&mut random, 4) == 0 => {
                let index = last + 1 + draw(&mut random, 20);
                write = entries(index + 1..=index + draw(&mut random, 3), term);
                write.snapshot = with_install(&mut random, index, term, true);
                commit = index;
                write.hard_state = Some(HardState::new(term, 0, commit));
            }
            10 => {
                let index = model.snapshot_index();
                let below = draw(&mut random, 3).min(index);
                write.compact_to = Some(index - below);
            }
            11 => {
                write.snapshot = staged(last + 5, term, &[3; 1000]);
                write.snapshot.push(SnapshotWrite::Discard);
            }
            _ => continue,
        }
        write.snapshot.iter().for_each(|step| model.step(step));
        model.batch(&write);
        writes.push(write);
    }
    writes
}

fn with_install(random: &mut u64, index: u64, term: u64, reset_log: bool) -> Vec<SnapshotWrite> {
    let data: Vec<u8> = (0..draw(random, 2500)).map(|at| (at ^ index) as u8).collect();
    let mut steps = staged(index, term, &data);
    steps.push(SnapshotWrite::Install { index, term, reset_log });
    steps
}

/// A number below `below` (SplitMix64).
pub(super) fn draw(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) % below.max(1)
}
