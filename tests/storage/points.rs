//! A crash at every boundary of the disk's work, and again at every boundary of the recovery.
//!
//! The script is replayed against a disk that keeps a copy of itself after each change. Each copy
//! is what a crash can find; of what was not synced in it, each prefix is kept in turn (sector by
//! sector, name by name, so nothing, everything and every torn write are among them), and random
//! subsets. Each such image is opened: it must hold a state that the writes so far may have left,
//! and nothing less than what was acknowledged. Then the same is done to the recovery, and to a
//! write after it. And a process is killed at each boundary while its machine goes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use quorate::{
    EntryKind, LogEntry, Now, Zxid,
    node::{Node, Restored, Write},
    wal::{Chore, ChoreDone, Keep, MemoryFs, Wal},
};

use crate::{
    model::Model,
    script::{Draw, Plan, Script, Step},
};

/// Which of the boundaries are looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stride {
    /// Every so many of the run's.
    pub(super) run: u64,
    /// Every so many of each recovery's.
    pub(super) recovery: u64,
    /// This share of them: number, and of how many.
    pub(super) share: (u64, u64),
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Report {
    /// Boundaries of the run, those that were passed over included.
    pub(super) boundaries: u64,
    /// Images of a crash of the run.
    pub(super) images: u64,
    /// Images of a crash of one of their recoveries, or of what came after it.
    pub(super) again: u64,
    /// Different states of which a node was made.
    pub(super) nodes: u64,
}

impl Report {
    pub(super) fn add(&mut self, other: &Self) {
        self.boundaries = self.boundaries.max(other.boundaries);
        self.images += other.images;
        self.again += other.again;
        self.nodes += other.nodes;
    }
}

/// Replays a script and crashes it; panics where something is lost. `done` counts the boundaries
/// that were looked at or passed over.
pub(super) fn crash(
    script: &Script,
    segment_bytes: u64,
    stride: Stride,
    done: &AtomicU64,
) -> Report {
    let mut run = Replay {
        script,
        segment_bytes,
        stride,
        done,
        model: Model::default(),
        old: BTreeMap::new(),
        acked: Zxid::ZERO,
        seen: BTreeSet::new(),
        report: Report::default(),
        draw: Draw(1),
    };
    let fs = MemoryFs::new();
    fs.record();
    let mut wal = run.start(&fs);
    let mut chores = Chores::default();
    for (nth, step) in script.steps.iter().enumerate() {
        let what = format!("step {nth}");
        match step {
            Step::Restart => {
                drop(wal);
                wal = run.start(&fs);
                chores = Chores::default();
            }
            Step::Write { write, acked } => {
                let mut states = run.model.through(write, &mut run.old);
                wal.persist(write).expect("a sound disk");
                run.visit(&fs, &states, &what);
                run.model = states.pop().expect("there is a last one");
                run.acked = run.acked.max(*acked);
                run.chores(&fs, &mut wal, &mut chores, &what);
            }
        }
    }
    assert_eq!(wal.status().poisoned, None);
    run.report
}

struct Replay<'a> {
    script: &'a Script,
    segment_bytes: u64,
    stride: Stride,
    done: &'a AtomicU64,
    model: Model,
    /// Entries that were compacted away, and may be there still.
    old: BTreeMap<u64, LogEntry>,
    /// The last transaction that was acknowledged.
    acked: Zxid,
    /// States of which a node was made already.
    seen: BTreeSet<(u64, Zxid)>,
    report: Report,
    draw: Draw,
}

/// Work that is out: it runs and is taken back at any time, as another thread would do it.
#[derive(Default)]
struct Chores {
    waiting: Option<Chore>,
    done: Option<ChoreDone>,
}

impl Replay<'_> {
    fn plan(&self) -> &Plan {
        &self.script.plan
    }

    fn start(&mut self, fs: &MemoryFs) -> Wal {
        let (wal, restored) = self.plan().open(fs, self.segment_bytes).expect("a sound disk");
        assert!(self.model.is(&restored, &self.old), "a process that starts again");
        let states = [self.model.clone()];
        self.visit(fs, &states, "a start");
        wal
    }

    fn chores(&mut self, fs: &MemoryFs, wal: &mut Wal, out: &mut Chores, what: &str) {
        let states = [self.model.clone()];
        for _ in 0..3 {
            if let Some(done) = out.done.take() {
                wal.chore_done(done).expect("a sound disk");
                self.visit(fs, &states, what);
            }
            if self.draw.below(2) == 0 {
                return;
            }
            out.done = out.waiting.take().map(Chore::run);
            self.visit(fs, &states, what);
            out.waiting = match self.draw.below(20) {
                0 => wal.scrub(),
                _ => wal.chore(),
            };
        }
    }

    /// Crashes at each boundary that was passed since the last call.
    fn visit(&mut self, fs: &MemoryFs, states: &[Model], what: &str) {
        for moment in fs.recorded() {
            self.report.boundaries += 1;
            self.done.fetch_add(1, Ordering::Relaxed);
            let boundary = self.report.boundaries;
            let (share, shares) = self.stride.share;
            if boundary % self.stride.run != 0 || boundary / self.stride.run % shares != share {
                continue;
            }
            self.kill(&moment, states, &format!("{what}, boundary {boundary}, killed"));
            for keep in keeps(&moment, boundary) {
                let what = format!("{what}, boundary {boundary}, {keep:?}");
                self.check(&crashed(&moment, keep), states, &what);
            }
        }
    }

    /// Opens what a crash left, and crashes that again.
    fn check(&mut self, image: &MemoryFs, states: &[Model], what: &str) {
        self.report.images += 1;
        let recovery = image.fork();
        recovery.record();
        let (mut wal, restored) = match self.plan().open(&recovery, self.segment_bytes) {
            Ok(opened) => opened,
            Err(error) => panic!("{what}: {error}"),
        };
        let is = |state: &&Model| state.is(&restored, &self.old) && !restored.tail_cut;
        let Some(found) = states.iter().rev().find(is) else {
            panic!("{what}: restored {restored:#?}");
        };
        let moments = recovery.recorded();
        self.go_on(&recovery, &mut wal, found, what);
        drop(wal);
        self.make_node(restored, found, what);
        for (nth, moment) in (0..).zip(moments) {
            if nth % self.stride.recovery != self.report.images % self.stride.recovery {
                continue;
            }
            for keep in keeps(&moment, self.report.images) {
                self.report.again += 1;
                let what = format!("{what}, then at {nth}, {keep:?}");
                self.found(&crashed(&moment, keep), std::slice::from_ref(found), &what);
            }
        }
    }

    /// The process ends and the machine goes on: what the next one gives back it has made durable,
    /// though the one before may not have.
    fn kill(&mut self, moment: &MemoryFs, states: &[Model], what: &str) {
        self.report.again += 1;
        let fs = moment.fork();
        let found = self.found(&fs, states, what).clone();
        self.found(&crashed(&fs, Keep::Nothing), &[found], what);
    }

    /// Opens an image, which must hold one of `states`; says which.
    fn found<'a>(&self, image: &MemoryFs, states: &'a [Model], what: &str) -> &'a Model {
        let (_, restored) = match self.plan().open(image, self.segment_bytes) {
            Ok(opened) => opened,
            Err(error) => panic!("{what}: {error}"),
        };
        let is = |state: &&Model| state.is(&restored, &self.old) && !restored.tail_cut;
        let found = states.iter().rev().find(is);
        found.unwrap_or_else(|| panic!("{what}: restored {restored:#?}"))
    }

    /// What is restored is a log that can be written on, and crashed again at that.
    fn go_on(&mut self, fs: &MemoryFs, wal: &mut Wal, found: &Model, what: &str) {
        let mut write = Write::default();
        let index = found.last_index() + 1;
        let data = vec![9; 700].into();
        write.entries = vec![LogEntry::new(index, u64::MAX >> 8, EntryKind::Normal, data)];
        wal.persist(&write).expect("a sound disk");
        let states = found.through(&write, &mut BTreeMap::new());
        for (nth, moment) in (0..).zip(fs.recorded()) {
            for keep in keeps(&moment, self.report.images) {
                self.report.again += 1;
                let what = format!("{what}, went on to {nth}, {keep:?}");
                self.found(&crashed(&moment, keep), &states, &what);
            }
        }
        let last = &states[states.len() - 1..];
        self.found(&crashed(fs, Keep::Nothing), last, what);
    }

    /// A node that is made of it is in the state that the log says, and knows all that it had
    /// acknowledged.
    fn make_node(&mut self, restored: Restored, found: &Model, what: &str) {
        if self.script.states.is_empty() || restored.snapshot.is_none() {
            return;
        }
        if !self.seen.insert((fingerprint(&restored), self.acked)) {
            return;
        }
        self.report.nodes += 1;
        let last = found.last_index();
        let mut node = match Node::open(self.plan().config(), restored) {
            Ok(node) => node,
            Err(error) => panic!("{what}: {error}"),
        };
        let (mut now, alone) = (Duration::ZERO, self.plan().members == 1);
        loop {
            let ready = node.ready();
            let (status, image) = (node.status(), node.image());
            assert_eq!(status.ended, None, "{what}");
            if last < FOUNDED && image.index() > last + 1 {
                // It founds the cluster once more; nothing was acknowledged yet.
                return drop((ready, node));
            }
            // The first entry of a new leader is empty: it changes nothing.
            let known = self.script.states.get(&image.index().min(last));
            assert_eq!(known, Some(&image.checksum()), "{what}: after {}", image.index());
            let led = alone && status.applied > last;
            if led || !alone && ready.is_none() {
                assert!(!alone || status.zxid >= self.acked, "{what}");
                return drop((ready, node));
            }
            match ready {
                Some(ready) => {
                    if let Some((_, token)) = ready.write {
                        node.persisted(token).expect("its own token");
                    }
                }
                None => {
                    now += Duration::from_millis(50);
                    assert!(now < Duration::from_secs(60), "{what}: {status:?}");
                    node.tick(Now { mono: now, wall_ms: 0 }).expect("drained");
                }
            }
        }
    }
}

/// What may be left of what is not synced: every prefix of it, and some of its subsets.
fn keeps(moment: &MemoryFs, seed: u64) -> Vec<Keep> {
    let unsynced = moment.unsynced();
    let mut keeps = Vec::new();
    for names in 0..=unsynced.names {
        keeps.extend((0..=unsynced.sectors).map(|sectors| Keep::First { sectors, names }));
    }
    if unsynced.sectors + unsynced.names > 1 {
        keeps.extend([Keep::Random { seed }, Keep::Random { seed: !seed }]);
    }
    keeps
}

fn crashed(moment: &MemoryFs, keep: Keep) -> MemoryFs {
    let image = moment.fork();
    image.crash(keep);
    image
}

fn fingerprint(restored: &Restored) -> u64 {
    let mut hash = DefaultHasher::new();
    for entry in &restored.entries {
        (entry.index, entry.term, &entry.data).hash(&mut hash);
    }
    let state = restored.hard_state.map(|it| (it.term, it.vote, it.commit));
    (state, &restored.local).hash(&mut hash);
    if let Some(snapshot) = &restored.snapshot {
        (snapshot.index, snapshot.term, &snapshot.chunks).hash(&mut hash);
    }
    hash.finish()
}

/// The bootstrap snapshot, a leader's empty entry, and the one that records the stores.
const FOUNDED: u64 = 3;
