//! What was durable is not any more what was written: bits flip, files are cut, sectors go back to
//! zeros or change places. A store that is damaged says so with a typed error and leaves its files
//! as they are, or gives back a prefix that it is known to be.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use quorate::{
    LogEntry,
    node::{Node, Restored, RestoredSnapshot},
    wal::{Fs, MemoryFs, Wal, WalError},
};

use crate::{
    model::Model,
    script::{Plan, Script, Step, dir},
};

/// A store at rest, and what it holds: with its last batch, and without.
pub(super) struct Store {
    plan: Plan,
    segment_bytes: u64,
    fs: MemoryFs,
    whole: Model,
    before: Model,
    old: BTreeMap<u64, LogEntry>,
    /// The last batch: its file, where it begins and ends.
    last: (PathBuf, usize, usize),
    files: Vec<(PathBuf, Vec<u8>)>,
    snapshot: RestoredSnapshot,
    /// Whether it was opened since: then its manifest knows of the last batch.
    sealed: bool,
    /// The checksum of the state in the snapshot.
    state: u32,
}

/// What was tried, and what came of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Report {
    pub(super) cases: u64,
    /// A typed error.
    pub(super) refused: u64,
    /// Nothing that counts was hit.
    pub(super) whole: u64,
    /// The last batch was cut off, and the store says so.
    pub(super) cut: u64,
    /// The last batch looks as if it had never been written whole: whole sectors of it went.
    pub(super) torn: u64,
}

impl Report {
    pub(super) fn add(&mut self, other: &Self) {
        self.cases += other.cases;
        self.refused += other.refused;
        self.whole += other.whole;
        self.cut += other.cut;
        self.torn += other.torn;
    }
}

/// What came of one case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    Refused,
    Whole,
    Cut,
    Torn,
}

impl Store {
    /// The store that a script leaves, at a moment with a long log and a large snapshot: both of at
    /// least `bytes_min`, sectors that count alone.
    pub(super) fn of(script: &Script, segment_bytes: u64, bytes_min: usize) -> Self {
        let fs = MemoryFs::new();
        let (mut wal, _) = script.plan.open(&fs, segment_bytes).expect("a sound disk");
        let (mut model, mut old) = (Model::default(), BTreeMap::new());
        for step in &script.steps {
            let Step::Write { write, .. } = step else {
                drop(wal);
                wal = script.plan.open(&fs, segment_bytes).expect("a sound disk").0;
                continue;
            };
            let states = model.through(write, &mut old);
            wal.persist(write).expect("a sound disk");
            let plain = write.snapshot.is_empty() && write.compact_to.is_none();
            let whole = states.last().expect("there is one").clone();
            let before = std::mem::replace(&mut model, whole);
            // Chores may wait: what they take away is what can be damaged.
            let status = wal.status();
            if status.segments > SEGMENTS_MAX || write.compact_to.is_some() {
                run_chores(&mut wal);
            }
            if !plain || write.entries.is_empty() || status.snapshot_index <= 1 {
                continue;
            }
            if log_bytes(&fs) >= bytes_min && snapshot_bytes(&fs) >= bytes_min {
                drop(wal);
                let models = [before, model];
                return Self::new(script, segment_bytes, &fs, models, old);
            }
        }
        panic!("no moment has so large files");
    }

    fn new(
        script: &Script,
        segment_bytes: u64,
        fs: &MemoryFs,
        [before, whole]: [Model; 2],
        old: BTreeMap<u64, LogEntry>,
    ) -> Self {
        let plan = script.plan;
        let restored = plan.open(&fs.fork(), segment_bytes).expect("a sound disk").1;
        assert!(whole.is(&restored, &old), "the store is what was written");
        let snapshot = restored.snapshot.expect("there is one");
        let state = script.states[&snapshot.index];
        let files = files(fs);
        let (path, bytes) = files.iter().rfind(|it| is_log(&it.0)).expect("there is a log");
        let at = *batches(bytes).last().expect("there is a batch");
        let last = (path.clone(), at, end_of(bytes));
        let fs = fs.fork();
        let sealed = false;
        Self { plan, segment_bytes, fs, whole, before, old, last, files, snapshot, sealed, state }
    }

    /// The same, opened once more: nothing of it may be cut any more.
    pub(super) fn sealed(mut self) -> Self {
        self.open(&self.fs).expect("a sound disk");
        self.files = files(&self.fs);
        self.sealed = true;
        self
    }

    /// How many bytes of log and of snapshot are there.
    pub(super) fn sizes(&self) -> (usize, usize) {
        (log_bytes(&self.fs), snapshot_bytes(&self.fs))
    }

    /// How many cases there are, of files and of the state in the snapshot.
    pub(super) fn cases(&self) -> u64 {
        let files = self.files.iter().map(|(path, sound)| changes(path, sound).len());
        let bits = self.snapshot.chunks.iter().map(|chunk| chunk.len() * 8);
        files.chain(bits).sum::<usize>() as u64
    }

    /// Every `stride`-th case, of which this is share `share.0` of `share.1`; panics where a state
    /// is wrong.
    pub(super) fn damage(&self, stride: u64, share: (u64, u64), done: &AtomicU64) -> Report {
        let mut report = Report::default();
        let mut number = 0;
        for (path, sound) in &self.files {
            for change in changes(path, sound) {
                number += 1;
                if number % stride != 0 || number / stride % share.1 != share.0 {
                    continue;
                }
                done.fetch_add(1, Ordering::Relaxed);
                report.cases += 1;
                let bytes = change.of(sound);
                if bytes == *sound {
                    report.whole += 1;
                    continue;
                }
                match self.check(path, bytes, change) {
                    Found::Refused => report.refused += 1,
                    Found::Whole => report.whole += 1,
                    Found::Cut => report.cut += 1,
                    Found::Torn => report.torn += 1,
                }
            }
        }
        report
    }

    fn open(&self, fs: &MemoryFs) -> Result<(Wal, Restored), WalError> {
        self.plan.open(fs, self.segment_bytes)
    }

    fn check(&self, path: &Path, bytes: Vec<u8>, change: Change) -> Found {
        let what = || format!("{}: {change:?}", path.display());
        let fs = self.fs.fork();
        fs.put(path, &bytes);
        let mut restored = match self.open(&fs) {
            Ok((_, restored)) => restored,
            Err(error) => {
                let typed = matches!(
                    error,
                    WalError::Corrupt { .. } | WalError::Version { .. } | WalError::Missing { .. }
                );
                assert!(typed, "{}: {error}", what());
                assert_eq!(fs.contents(path), Some(bytes), "{}: touched", what());
                return Found::Refused;
            }
        };
        let cut = std::mem::take(&mut restored.tail_cut);
        if cut {
            let (_, again) = self.open(&fs).expect("it was opened before");
            assert!(again.tail_cut, "{}: a cut is not forgotten", what());
        }
        if self.whole.is(&restored, &self.old) {
            return Found::Whole;
        }
        let prefix = !self.sealed && self.before.is(&restored, &self.old);
        assert!(prefix, "{}: {restored:#?}", what());
        if cut {
            return Found::Cut;
        }
        // Nothing tells a sector that was lost from one that was never written.
        let (last, from, to) = &self.last;
        let lost = change.is_of_sectors() && path == last.as_path() && change.touches(*from, *to);
        assert!(lost, "{}: an acknowledged batch is gone, and nobody is told", what());
        Found::Torn
    }

    /// Every `stride`-th bit of the state in the snapshot flips before its checksum is made: what
    /// is inside is checked for itself.
    pub(super) fn damage_state(&self, stride: u64, share: (u64, u64), done: &AtomicU64) -> Report {
        let mut report = Report::default();
        let bytes = self.snapshot.chunks.concat();
        let mut sound = self.open(&self.fs.fork()).expect("a sound disk").1;
        let (index, term) = (self.snapshot.index, self.snapshot.term);
        sound.entries.clear();
        sound.hard_state.iter_mut().for_each(|it| it.commit = index);
        let step = (stride * share.1) as usize;
        for bit in ((stride * share.0) as usize..bytes.len() * 8).step_by(step) {
            done.fetch_add(1, Ordering::Relaxed);
            report.cases += 1;
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let chunks = vec![Bytes::from(bytes)];
            let mut restored = sound.clone();
            restored.snapshot = Some(RestoredSnapshot::new(index, term, chunks));
            match Node::open(self.plan.config(), restored) {
                Err(_) => report.refused += 1,
                Ok(node) => {
                    assert_eq!(node.image().checksum(), self.state, "bit {bit}");
                    report.whole += 1;
                }
            }
        }
        report
    }
}

/// One kind of damage, at one place.
#[derive(Clone, Copy, Debug)]
enum Change {
    Flip {
        bit: usize,
    },
    Byte {
        at: usize,
        to: u8,
    },
    Cut {
        length: usize,
    },
    Zero {
        sector: usize,
    },
    Swap {
        one: usize,
        other: usize,
    },
    Copy {
        from: usize,
        to: usize,
    },
    /// Two batches, by number.
    Batches {
        one: usize,
        other: usize,
    },
}

impl Change {
    fn of(self, sound: &[u8]) -> Vec<u8> {
        let mut bytes = sound.to_vec();
        match self {
            Self::Flip { bit } => bytes[bit / 8] ^= 1 << (bit % 8),
            Self::Byte { at, to } => bytes[at] = to,
            Self::Cut { length } => bytes.truncate(length),
            Self::Zero { sector } => bytes[sector * 512..][..512].fill(0),
            Self::Swap { one, other } => {
                bytes[one * 512..][..512].copy_from_slice(&sound[other * 512..][..512]);
                bytes[other * 512..][..512].copy_from_slice(&sound[one * 512..][..512]);
            }
            Self::Copy { from, to } => {
                bytes[to * 512..][..512].copy_from_slice(&sound[from * 512..][..512]);
            }
            Self::Batches { one, other } => {
                let mut starts = batches(sound);
                let end = end_of(sound);
                starts.push(end);
                let batch = |nth: usize| &sound[starts[nth]..starts[nth + 1]];
                let mut order: Vec<usize> = (0..starts.len() - 1).collect();
                order.swap(one, other);
                let all = order.into_iter().map(batch).collect::<Vec<_>>().concat();
                bytes[starts[0]..end].copy_from_slice(&all);
            }
        }
        bytes
    }

    fn is_of_sectors(self) -> bool {
        !matches!(self, Self::Flip { .. } | Self::Byte { .. } | Self::Cut { .. })
    }

    /// Whether it changes something from byte `from` to byte `to`.
    fn touches(self, from: usize, to: usize) -> bool {
        let inside = |sector: usize| (from..to).contains(&(sector * 512));
        match self {
            Self::Flip { bit } => (from..to).contains(&(bit / 8)),
            Self::Byte { at, .. } => (from..to).contains(&at),
            Self::Cut { length } => length < to,
            Self::Zero { sector } | Self::Copy { to: sector, .. } => inside(sector),
            Self::Swap { one, other } => inside(one) || inside(other),
            Self::Batches { .. } => true,
        }
    }
}

/// All damage to one file that is tried.
fn changes(path: &Path, sound: &[u8]) -> Vec<Change> {
    let mut all: Vec<Change> = (0..sound.len() * 8).map(|bit| Change::Flip { bit }).collect();
    for at in 0..sound.len() {
        all.push(Change::Cut { length: at });
        all.extend([0, 0xff].map(|to| Change::Byte { at, to }));
    }
    let sectors = sound.len() / 512;
    for one in 0..sectors {
        all.push(Change::Zero { sector: one });
        for other in 0..sectors {
            if one < other {
                all.push(Change::Swap { one, other });
            }
            if one != other {
                all.push(Change::Copy { from: one, to: other });
            }
        }
    }
    if is_log(path) {
        let count = batches(sound).len();
        for one in 0..count {
            all.extend((one + 1..count).map(|other| Change::Batches { one, other }));
        }
    }
    all
}

/// The files that count: segments, snapshots, the manifest.
fn files(fs: &MemoryFs) -> Vec<(PathBuf, Vec<u8>)> {
    let names = fs.list(dir()).expect("a sound disk");
    let counts = |name: &&String| {
        is_log(&dir().join(name)) || name.ends_with(".snap") || *name == "MANIFEST"
    };
    let read = |name: &String| {
        let path = dir().join(name);
        let bytes = fs.contents(&path).expect("it is there");
        (path, bytes)
    };
    names.iter().filter(counts).map(read).collect()
}

fn is_log(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("wal-"))
}

/// Bytes of the log that were written.
fn log_bytes(fs: &MemoryFs) -> usize {
    files(fs).iter().filter(|it| is_log(&it.0)).map(|it| end_of(&it.1)).sum()
}

/// Bytes of the newest snapshot.
fn snapshot_bytes(fs: &MemoryFs) -> usize {
    let files = files(fs);
    let snapshots = files.iter().filter(|it| it.0.extension().is_some_and(|it| it == "snap"));
    snapshots.map(|it| it.1.len()).next_back().unwrap_or_default()
}

/// Where batches begin: each follows the one before, and has the next number. What stands behind
/// the last one is of an older life of the file.
fn batches(bytes: &[u8]) -> Vec<usize> {
    let number = |at: usize| u64::from_le_bytes(*bytes[at + 24..].first_chunk().expect("inside"));
    let (mut at, mut starts) = (512, Vec::<usize>::new());
    while bytes.get(at + 8..at + 12) == Some(b"QRB1") {
        if starts.last().is_some_and(|last| number(*last) + 1 != number(at)) {
            break;
        }
        starts.push(at);
        at += extent(bytes, at);
    }
    starts
}

/// The bytes of a batch in its segment.
fn extent(bytes: &[u8], at: usize) -> usize {
    let body = u32::from_le_bytes(*bytes[at + 16..].first_chunk().expect("inside")) as usize;
    (56 + body).div_ceil(504) * 512
}

/// Where the last batch ends.
fn end_of(bytes: &[u8]) -> usize {
    batches(bytes).last().map_or(0, |last| last + extent(bytes, *last))
}

fn run_chores(wal: &mut Wal) {
    while let Some(chore) = wal.chore() {
        wal.chore_done(chore.run()).expect("a sound disk");
    }
}

/// From here on the log is made shorter.
const SEGMENTS_MAX: usize = 64;
