//! The steps of a snapshot, and what may be dropped once it stands.
//!
//! Invariant: the manifest's rename is the one moment at which a snapshot, or a later first
//! segment, begins to count; what it replaces is dropped only after it.

use crate::{
    node::{SnapshotWrite, Write},
    wal::{
        WalError,
        log::{SNAPSHOTS_KEPT, Spare, Wal},
        manifest::{SNAPSHOTS_MAX, SnapshotFile},
        recover::segment_name,
        sector::{SECTOR, sectors_for},
        segment::{self, HEADER},
        snapshot::{self, Staging},
    },
};

impl Wal {
    pub(super) fn snapshot_step(&mut self, step: &SnapshotWrite) -> Result<(), WalError> {
        match step {
            SnapshotWrite::Begin { index, term } => {
                self.discard();
                let serial = self.manifest.next_serial;
                self.manifest.next_serial += 1;
                let (fs, store) = (&*self.fs, self.manifest.store);
                let staging = Staging::begin(fs, &self.dir, store, *index, *term, serial)?;
                self.staging = Some(staging);
                Ok(())
            }
            SnapshotWrite::Chunk { offset, bytes } => match &mut self.staging {
                Some(staging) => staging.chunk(*offset, bytes),
                None => Err(WalError::misuse("a chunk without a begin")),
            },
            SnapshotWrite::Finish { length, crc } => match self.staging.take() {
                Some(staging) => {
                    self.staged = Some(staging.finish(&*self.fs, &self.dir, *length, *crc)?);
                    Ok(())
                }
                None => Err(WalError::misuse("a finish without a begin")),
            },
            SnapshotWrite::Install { index, term, reset_log } => {
                self.install(*index, *term, *reset_log)
            }
            SnapshotWrite::Discard => {
                self.discard();
                Ok(())
            }
        }
    }

    /// Forgets what is staged; the files go later.
    fn discard(&mut self) {
        if let Some(staging) = self.staging.take() {
            let name = staging.path().file_name().and_then(|name| name.to_str());
            self.garbage.extend(name.map(str::to_owned));
        }
        if let Some(staged) = self.staged.take() {
            self.garbage.push(snapshot::file_name(&staged));
        }
    }

    /// Switches to the staged snapshot (S8). The manifest's rename is the one moment at which both
    /// the snapshot and, with `reset_log`, the fresh log begin to count; what they replace is
    /// removed only after it.
    fn install(&mut self, index: u64, term: u64, reset_log: bool) -> Result<(), WalError> {
        let Some(staged) = self.staged.take() else {
            return Err(WalError::misuse("an install without a finished snapshot"));
        };
        let current = self.snapshot_index();
        if (staged.index, staged.term) != (index, term) || index < current {
            return Err(WalError::misuse(format!(
                "an install of {index}, term {term}; staged is {}, term {}; current is {current}",
                staged.index, staged.term
            )));
        }
        if !reset_log && index > self.last_index {
            return Err(WalError::misuse(format!(
                "a snapshot at {index} over a log that ends at {} and shall stay",
                self.last_index
            )));
        }
        if self.manifest.snapshots.len() >= SNAPSHOTS_MAX {
            // No chore ran: look now, or the older ones would pile up.
            let newest = self.manifest.snapshots[0];
            snapshot::read(&*self.fs, &self.dir, self.manifest.store, &newest, drop)?;
            self.forget_older_snapshots();
        }
        let first_lsn = self.next_lsn;
        if reset_log {
            // The fresh log's first batch has what must outlive the old one.
            let body = segment::body_bytes(&Write::default(), &self.carried);
            let sectors = 1 + sectors_for(HEADER + body);
            self.next_segment((sectors * SECTOR) as u64)?;
            self.write_batch(&Write::default())?;
            self.manifest.first_segment = self.manifest.active_segment;
            self.manifest.first_lsn = first_lsn;
            self.last_index = index;
        }
        self.manifest.snapshots.insert(0, staged);
        self.write_manifest()?;
        self.verified = false;
        if reset_log {
            self.compact_to = 0;
            self.drop_segments();
        }
        Ok(())
    }

    pub(super) fn snapshot_verified(&mut self, file: &SnapshotFile) -> Result<(), WalError> {
        if self.manifest.snapshots.first() != Some(file) {
            return Ok(());
        }
        self.verified = true;
        let before = self.manifest.clone();
        self.forget_older_snapshots();
        self.raise_first_segment();
        if self.manifest != before {
            self.write_manifest()?;
            self.drop_segments();
        }
        Ok(())
    }

    /// Keeps the newest and the one before; the manifest is yet to be written, and the files are
    /// removed by a chore that is handed out only after that.
    fn forget_older_snapshots(&mut self) {
        let kept = SNAPSHOTS_KEPT.min(self.manifest.snapshots.len());
        let older = self.manifest.snapshots.split_off(kept);
        self.garbage.extend(older.iter().map(snapshot::file_name));
    }

    pub(super) fn compact(&mut self, index: u64) -> Result<(), WalError> {
        if index > self.snapshot_index() {
            return Err(WalError::misuse(format!(
                "compaction to {index}, while the snapshot ends at {}",
                self.snapshot_index()
            )));
        }
        self.compact_to = self.compact_to.max(index);
        // As long as the snapshot was not read back, the log is what it could be made from again.
        if self.verified && self.raise_first_segment() {
            self.write_manifest()?;
            self.drop_segments();
        }
        Ok(())
    }

    /// Moves the manifest's first segment past those that are wholly below the compaction.
    fn raise_first_segment(&mut self) -> bool {
        let full = self.segments.len().saturating_sub(1);
        let below = self
            .segments
            .iter()
            .take(full)
            .take_while(|segment| segment.index_max <= self.compact_to)
            .count();
        let Some(first) = self.segments.get(below).filter(|_| below > 0) else {
            return false;
        };
        self.manifest.first_segment = first.sequence;
        self.manifest.first_lsn = first.first_lsn;
        true
    }

    /// Gives the files of dropped segments another life, or to the chore that removes files.
    fn drop_segments(&mut self) {
        while let Some(segment) = self.segments.front().copied() {
            if segment.sequence >= self.manifest.first_segment {
                break;
            }
            self.segments.pop_front();
            let name = segment_name(segment.sequence);
            let wanted = segment.length == self.options.segment_bytes
                && self.spares.len() < self.options.spares_max;
            let spare = self.spare_name();
            let (from, to) = (self.dir.join(&name), self.dir.join(&spare));
            // Its name need not be durable: below the first segment it counts as little.
            if wanted && self.fs.rename(&from, &to).is_ok() {
                self.spares.push(Spare { name: spare, length: segment.length });
            } else {
                self.garbage.push(name);
            }
        }
    }
}
