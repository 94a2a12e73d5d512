//! The open log: batches into segments, and the work that is handed out.

mod install;

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    id::{ClusterId, NodeId},
    mutant::Mutant,
    node::{Restored, Write},
    wal::{
        WalError, WalOptions, WalStatus,
        chore::{self, Chore, ChoreDone, Scrub, SegmentScrub, SnapshotScrub, Work},
        fs::{Fs, FsFile},
        manifest::{Manifest, SnapshotFile},
        open,
        recover::{Recovered, Segment, segment_name},
        sector::{SECTOR, Sectors, Stamps, sectors_for},
        segment::{
            self, BODY_BYTES_MAX, BatchHeader, Carried, HEADER, SegmentHeader, encode_batch,
        },
        snapshot::Staging,
    },
};

/// The durable log of one member. One thread owns it; [`Chore`]s run elsewhere.
///
/// ```
/// use std::sync::Arc;
/// use quorate::{ClusterId, NodeId, node::Write, wal::{MemoryFs, Wal, WalError}};
///
/// let fs = Arc::new(MemoryFs::new());
/// let (cluster, node) = (ClusterId::named("orders"), NodeId::new(1).expect("from 1 on"));
/// let (mut wal, restored) = Wal::open(fs, "data".as_ref(), cluster, node)?;
/// assert_eq!(restored.boot.counter, 1);
/// wal.persist(&Write::default())?;
/// # Ok::<(), WalError>(())
/// ```
#[derive(Debug)]
pub struct Wal {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    options: WalOptions,
    /// Held as long as the log is open.
    _lock: Box<dyn FsFile>,
    manifest: Manifest,
    stamps: Stamps,
    /// Oldest first; the last one is the active one.
    segments: VecDeque<Segment>,
    active: Option<Active>,
    next_lsn: u64,
    chain: u32,
    carried: Carried,
    /// Invariant: durable, and never below the current snapshot's index.
    last_index: u64,
    staging: Option<Staging>,
    staged: Option<SnapshotFile>,
    spares: Vec<Spare>,
    spares_made: u64,
    /// Whether the current snapshot was read back since it was written.
    verified: bool,
    compact_to: u64,
    garbage: Vec<String>,
    out: Vec<Work>,
    scrub_next: Option<Scrub>,
    no_space: bool,
    poisoned: Option<String>,
    buffer: Sectors,
    syncs: u64,
}

/// The segment that is written to.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) file: Box<dyn FsFile>,
    pub(super) offset: u64,
}

/// A segment file that waits for its next life.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Spare {
    pub(super) name: String,
    pub(super) length: u64,
}

impl Wal {
    /// Opens the store in `dir`, or makes one if the directory is empty or not there.
    ///
    /// Everything is read, checked and synced, and the opening is counted durably, before this
    /// returns. See [`open_with`](Self::open_with) for other than the default options.
    ///
    /// # Errors
    /// Every [`WalError`] but `Poisoned`; each says what to do. Damaged files are left untouched.
    pub fn open(
        fs: Arc<dyn Fs>,
        dir: &Path,
        cluster: ClusterId,
        node: NodeId,
    ) -> Result<(Self, Restored), WalError> {
        Self::open_with(fs, dir, cluster, node, WalOptions::default())
    }

    /// [`open`](Self::open) with options.
    ///
    /// # Errors
    /// As [`open`](Self::open), and `Misuse` for an option out of its range.
    pub fn open_with(
        fs: Arc<dyn Fs>,
        dir: &Path,
        cluster: ClusterId,
        node: NodeId,
        options: WalOptions,
    ) -> Result<(Self, Restored), WalError> {
        open::open(fs, dir, cluster, node, options)
    }

    pub(super) fn assemble(
        (fs, dir, lock, options): (Arc<dyn Fs>, PathBuf, Box<dyn FsFile>, WalOptions),
        mut manifest: Manifest,
        recovered: Recovered,
        active: Option<Active>,
        staged: Option<SnapshotFile>,
        spares: Vec<Spare>,
    ) -> Result<Self, WalError> {
        if let Some(staged) = &staged {
            manifest.next_serial = manifest.next_serial.max(staged.serial + 1);
        }
        let snapshot = manifest.snapshots.first().map_or(0, |file| file.index);
        let (buffer, stamps) = open::tools(manifest.key);
        let mut log = Self {
            fs,
            dir,
            options,
            _lock: lock,
            stamps,
            segments: recovered.segments.into(),
            active,
            next_lsn: recovered.next_lsn,
            chain: recovered.chain,
            carried: recovered.carried,
            last_index: recovered.last_index.max(snapshot),
            staging: None,
            staged,
            spares,
            spares_made: 0,
            verified: true,
            compact_to: 0,
            garbage: Vec::new(),
            out: Vec::new(),
            scrub_next: None,
            no_space: false,
            poisoned: None,
            buffer,
            syncs: 0,
            manifest,
        };
        if log.active.is_none() && log.spares.is_empty() {
            // A new store: the first write shall not wait for a whole segment of zeros.
            log.make_spare(log.options.segment_bytes)?;
        }
        Ok(log)
    }

    /// Makes a write durable, part by part in the order of its fields. Local record, entries and
    /// hard state are one batch: after a crash all of it is there or nothing. An empty part costs
    /// nothing; a batch costs one write and one `fdatasync`, now and then also a new segment.
    ///
    /// # Errors
    /// Any error poisons the log: the write, or parts of it, may or may not be on the disk.
    pub fn persist(&mut self, write: &Write) -> Result<(), WalError> {
        self.guarded(|log| {
            for step in &write.snapshot {
                log.snapshot_step(step)?;
            }
            if write.local.is_some() || !write.entries.is_empty() || write.hard_state.is_some() {
                log.append(write)?;
            }
            match write.compact_to {
                Some(index) => log.compact(index),
                None => Ok(()),
            }
        })
    }

    /// The next piece of work that is due, for another thread; `None` when nothing is.
    pub fn chore(&mut self) -> Option<Chore> {
        if self.poisoned.is_some() {
            return None;
        }
        let idle = |out: &[Work], kind: fn(&Work) -> bool| !out.iter().any(kind);
        let current = self.manifest.snapshots.first().copied();
        let work = if self.spares.is_empty()
            && idle(&self.out, |work| matches!(work, Work::Prepare { .. }))
            && !self.no_space
        {
            Work::Prepare { name: self.spare_name(), length: self.options.segment_bytes }
        } else if !self.verified && idle(&self.out, |work| matches!(work, Work::Verify(_))) {
            Work::Verify(current?)
        } else if !self.garbage.is_empty() {
            Work::Remove(std::mem::take(&mut self.garbage))
        } else {
            return None;
        };
        Some(self.hand_out(work))
    }

    /// A bounded piece of reading back what is at rest, against bit rot: full segments, and the
    /// snapshots that are kept. The caller sets the pace. `None` while the last piece is out, or
    /// when nothing is at rest yet.
    /// After a lack of space it tries again to make a spare segment first.
    pub fn scrub(&mut self) -> Option<Chore> {
        if std::mem::take(&mut self.no_space) {
            return self.chore();
        }
        let busy = self.out.iter().any(|work| matches!(work, Work::Scrub(_)));
        if busy || self.poisoned.is_some() {
            return None;
        }
        let next = self.scrub_next.take().filter(|place| self.counts(place));
        let place = next.or_else(|| self.scrub_segment(0)).or_else(|| self.scrub_snapshot(0))?;
        Some(self.hand_out(Work::Scrub(place)))
    }

    /// Takes over what a chore did.
    ///
    /// # Errors
    /// What the chore met; it poisons the log. Only lack of space for a spare segment does not: it
    /// shows in [`WalStatus::no_space`], and is tried again when the space is needed.
    pub fn chore_done(&mut self, done: ChoreDone) -> Result<(), WalError> {
        self.guarded(|log| {
            if let Some(at) = log.out.iter().position(|work| same_kind(work, &done.work)) {
                log.out.swap_remove(at);
            }
            match (done.work, done.result) {
                (Work::Prepare { .. }, Err(WalError::NoSpace { .. })) => {
                    log.no_space = true;
                    Ok(())
                }
                // The log moved on and dropped what was being read.
                (Work::Verify(file), Err(_)) if !log.manifest.snapshots.contains(&file) => Ok(()),
                (Work::Scrub(place), Err(_)) if !log.counts(&place) => Ok(()),
                (_, Err(error)) => Err(error),
                (Work::Prepare { name, length }, Ok(())) => {
                    log.spares.push(Spare { name, length });
                    Ok(())
                }
                (Work::Verify(file), Ok(())) => log.snapshot_verified(&file),
                (Work::Remove(_), Ok(())) => {
                    log.no_space = false;
                    Ok(())
                }
                (Work::Scrub(place), Ok(())) => {
                    log.scrub_next = log.scrub_after(place);
                    Ok(())
                }
            }
        })
    }

    /// What the log looks like now.
    pub fn status(&self) -> WalStatus {
        WalStatus {
            segments: self.segments.len(),
            bytes: self.segments.iter().map(|segment| segment.length).sum(),
            syncs: self.syncs,
            synced_index: self.last_index,
            snapshot_index: self.snapshot_index(),
            snapshot_bytes: self.manifest.snapshots.iter().map(|file| file.length).sum(),
            staged: self.staged.map(|file| (file.index, file.term)),
            spares: self.spares.len(),
            no_space: self.no_space,
            poisoned: self.poisoned.clone(),
        }
    }

    /// Runs `work` unless the log is poisoned, and poisons it when `work` fails (S1).
    fn guarded(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), WalError>,
    ) -> Result<(), WalError> {
        if let Some(cause) = &self.poisoned {
            return Err(WalError::Poisoned { cause: cause.clone() });
        }
        let result = match work(self) {
            Err(_) if Mutant::DiskErrorForgiven.active() => Ok(()),
            result => result,
        };
        if let Err(error) = &result {
            self.poisoned = Some(error.to_string());
        }
        result
    }

    fn append(&mut self, write: &Write) -> Result<(), WalError> {
        self.check_entries(write)?;
        let bytes = |carried: &Carried| {
            let body = segment::body_bytes(write, carried);
            if body > BODY_BYTES_MAX {
                let reason = format!("a write of {body} bytes, the limit is {BODY_BYTES_MAX}");
                return Err(WalError::misuse(reason));
            }
            Ok((body, (sectors_for(HEADER + body) * SECTOR) as u64))
        };
        let (_, extent) = bytes(&Carried::default())?;
        let room = match (&self.active, self.segments.back()) {
            (Some(active), Some(segment)) => segment.length - active.offset,
            _ => 0,
        };
        if room < extent {
            let (_, extent) = bytes(&self.carried)?;
            self.next_segment(SECTOR as u64 + extent)?;
        }
        self.write_batch(write)
    }

    /// Entries follow each other and what is there, or replace its end (S9).
    fn check_entries(&self, write: &Write) -> Result<(), WalError> {
        let Some(first) = write.entries.first() else {
            return Ok(());
        };
        let floor = self.snapshot_index();
        if first.index <= floor || first.index > self.last_index + 1 {
            return Err(WalError::misuse(format!(
                "entries from {} on, while the log ends at {} and the snapshot at {floor}",
                first.index, self.last_index
            )));
        }
        let mut pairs = write.entries.windows(2);
        if let Some(pair) = pairs.find(|pair| pair[0].index + 1 != pair[1].index) {
            return Err(WalError::misuse(format!(
                "entry {} follows entry {}",
                pair[1].index, pair[0].index
            )));
        }
        Ok(())
    }

    /// Writes one batch where the active segment goes on, and syncs it.
    fn write_batch(&mut self, write: &Write) -> Result<(), WalError> {
        let (Some(active), Some(segment)) = (&mut self.active, self.segments.back_mut()) else {
            return Err(WalError::misuse("there is no segment"));
        };
        let begins = active.offset == 0;
        let stamp = self.stamps.of(self.next_lsn);
        self.buffer.restart(stamp);
        let nothing = Carried::default();
        let repeats = begins && !Mutant::HardStateNotCarried.active();
        let carried = if repeats { &self.carried } else { &nothing };
        if begins {
            // The stamp of the sector is put by the buffer.
            let header = SegmentHeader {
                store: self.manifest.store,
                sequence: segment.sequence,
                length: segment.length,
                first_lsn: self.next_lsn,
                chain: self.chain,
            };
            self.buffer.put(&header.encode(stamp)[8..]);
        }
        let header = BatchHeader {
            body_bytes: segment::body_bytes(write, carried) as u32,
            records: 0,
            lsn: self.next_lsn,
            sequence: segment.sequence,
            synced_index: self.last_index,
            offset: active.offset + self.buffer.as_slice().len() as u64,
            chain: self.chain,
            crc: 0,
        };
        let chain = encode_batch(&mut self.buffer, header, write, carried);
        let bytes = self.buffer.as_slice();
        let path = || self.dir.join(segment_name(segment.sequence));
        active
            .file
            .write_at(bytes, active.offset)
            .map_err(|error| WalError::io("write", &path(), error))?;
        active.file.sync_data().map_err(|error| WalError::io("sync", &path(), error))?;
        active.offset += bytes.len() as u64;
        self.syncs += 1;
        self.chain = chain;
        self.next_lsn += 1;
        if let Some(last) = write.entries.last() {
            self.last_index = last.index;
            segment.index_max = segment.index_max.max(last.index);
        }
        if write.hard_state.is_some() {
            self.carried.hard_state = write.hard_state;
        }
        if let Some(local) = &write.local {
            self.carried.local = Some(local.clone());
            self.manifest.tail_cut_lsn = 0;
        }
        Ok(())
    }

    /// Goes on in another segment of at least `bytes`. The manifest names it, durably, before its
    /// first record is written: so a segment that is gone is missed.
    fn next_segment(&mut self, bytes: u64) -> Result<(), WalError> {
        let bytes = bytes.max(self.options.segment_bytes);
        let fits = |spare: &Spare| spare.length >= bytes;
        let spare = match self.spares.iter().position(fits) {
            Some(at) => self.spares.swap_remove(at),
            None => {
                self.make_spare(bytes)?;
                match self.spares.pop() {
                    Some(spare) => spare,
                    None => return Err(WalError::misuse("a spare that was made is gone")),
                }
            }
        };
        let sequence = self.manifest.active_segment + 1;
        let from = self.dir.join(&spare.name);
        let path = self.dir.join(segment_name(sequence));
        self.fs.rename(&from, &path).map_err(|error| WalError::io("rename to", &path, error))?;
        self.fs.sync_dir(&self.dir).map_err(|error| WalError::io("sync", &self.dir, error))?;
        self.manifest.active_segment = sequence;
        self.manifest.active_length = spare.length;
        self.write_manifest()?;
        let file = self.fs.open(&path).map_err(|error| WalError::io("open", &path, error))?;
        self.active = Some(Active { file, offset: 0 });
        self.segments.push_back(Segment {
            sequence,
            length: spare.length,
            index_max: 0,
            first_lsn: self.next_lsn,
            first_chain: self.chain,
        });
        Ok(())
    }

    fn make_spare(&mut self, bytes: u64) -> Result<(), WalError> {
        let name = self.spare_name();
        let length = bytes.next_multiple_of(SECTOR as u64);
        chore::prepare(&*self.fs, &self.dir, &name, length)?;
        self.spares.push(Spare { name, length });
        Ok(())
    }

    fn spare_name(&mut self) -> String {
        self.spares_made += 1;
        let (boot, made) = (self.manifest.boot.counter, self.spares_made);
        format!("{SPARE_PREFIX}{boot:x}-{made:x}.log")
    }

    /// Writes the manifest; what was synced so far goes in.
    fn write_manifest(&mut self) -> Result<(), WalError> {
        self.manifest.synced_lsn = self.next_lsn - 1;
        self.manifest.write(&*self.fs, &self.dir)
    }

    fn snapshot_index(&self) -> u64 {
        self.manifest.snapshots.first().map_or(0, |file| file.index)
    }

    fn hand_out(&mut self, work: Work) -> Chore {
        self.out.push(work.clone());
        Chore { fs: Arc::clone(&self.fs), dir: self.dir.clone(), store: self.manifest.store, work }
    }

    /// Whether what a scrub reads still counts.
    fn counts(&self, place: &Scrub) -> bool {
        match place {
            Scrub::Segment(place) => place.sequence >= self.manifest.first_segment,
            Scrub::Snapshot(place) => self.manifest.snapshots.contains(&place.file),
        }
    }

    /// A scrub of the first full segment from `sequence` on.
    fn scrub_segment(&self, sequence: u64) -> Option<Scrub> {
        let full = self.segments.len().saturating_sub(1);
        let mut segments = self.segments.iter().enumerate().take(full);
        let (nth, segment) = segments.find(|(_, segment)| segment.sequence >= sequence)?;
        Some(Scrub::Segment(SegmentScrub {
            sequence: segment.sequence,
            offset: 0,
            lsn: segment.first_lsn,
            chain: segment.first_chain,
            end_lsn: self.segments.get(nth + 1)?.first_lsn,
        }))
    }

    /// A scrub of the oldest snapshot whose serial is at least this.
    fn scrub_snapshot(&self, serial: u64) -> Option<Scrub> {
        let snapshots = self.manifest.snapshots.iter().filter(|file| file.serial >= serial);
        let file = *snapshots.min_by_key(|file| file.serial)?;
        Some(Scrub::Snapshot(SnapshotScrub { file, at: 0, crc: 0 }))
    }

    fn scrub_after(&self, place: Scrub) -> Option<Scrub> {
        match place {
            Scrub::Segment(it) if it.lsn < it.end_lsn => Some(place),
            Scrub::Segment(it) => {
                self.scrub_segment(it.sequence + 1).or_else(|| self.scrub_snapshot(0))
            }
            Scrub::Snapshot(it) if it.at < it.file.length => Some(place),
            Scrub::Snapshot(it) => self.scrub_snapshot(it.file.serial + 1),
        }
    }
}

fn same_kind(one: &Work, other: &Work) -> bool {
    match (one, other) {
        (Work::Scrub(_), Work::Scrub(_)) => true,
        _ => one == other,
    }
}

pub(super) const SPARE_PREFIX: &str = "spare-";
/// The current snapshot and the one before (S7).
const SNAPSHOTS_KEPT: usize = 2;
