//! Every crash point and every damaged byte of a member's storage.
//!
//! `cargo run --release --example storage_faults -- --every-point`
//!
//! A run of 2,000 operations is recorded. Then it is replayed, and the power goes at each boundary
//! of the disk's work, with each prefix of what was not synced kept, and again at each boundary of
//! the recovery; the same for a member that follows. Then each bit of a log, a snapshot and a
//! manifest flips, each byte is where a file ends, sectors and batches change places, and each bit
//! of the state in a snapshot flips before its checksum is made.
//!
//! Options: `--every-point` for all of it, else `--stride N` (20) for every N-th; `--threads N`
//! (2); `--only alone`, `follower` or `damage`. It panics where something is lost or wrong.

#[path = "../tests/storage/damage.rs"]
mod damage;
#[path = "../tests/storage/model.rs"]
mod model;
#[path = "../tests/storage/points.rs"]
mod points;
#[path = "../tests/storage/script.rs"]
mod script;

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use damage::Store;
use points::Stride;
use script::Plan;

const ALONE: Plan =
    Plan { members: 1, operations: 2_000, payload_bytes_max: 60, snapshot_log_bytes: 6 << 10 };
const FOLLOWS: Plan = Plan { members: 3, payload_bytes_max: 600, ..ALONE };
const LARGE: Plan =
    Plan { members: 1, operations: 500, payload_bytes_max: 4_000, snapshot_log_bytes: 128 << 10 };
const OPTIONS: [&str; 4] = ["--every-point", "--stride", "--threads", "--only"];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let after = |name: &str| {
        let at = arguments.iter().position(|it| it == name)?;
        arguments.get(at + 1).cloned()
    };
    let mut names = arguments.iter().filter(|it| it.starts_with('-'));
    assert!(names.all(|it| OPTIONS.contains(&&**it)), "the options are {OPTIONS:?}");
    let number = |name, default| after(name).and_then(|it| it.parse().ok()).unwrap_or(default);
    let stride = if arguments.contains(&OPTIONS[0].into()) { 1 } else { number("--stride", 20) };
    let threads = number("--threads", 2);
    let only = after("--only").unwrap_or_default();
    let wanted = |part| only.is_empty() || only == part;
    if wanted("alone") {
        crash("one member", ALONE, stride, threads);
    }
    if wanted("follower") {
        crash("a follower", FOLLOWS, stride, threads);
    }
    if wanted("damage") {
        let script = script::record(LARGE);
        for segment_bytes in [68 << 10, 4096] {
            let store = || Store::of(&script, segment_bytes, 64 << 10);
            damage("at rest", &store(), stride, threads);
            damage("opened since", &store().sealed(), stride, threads);
        }
    }
    ExitCode::SUCCESS
}

fn crash(name: &str, plan: Plan, stride: u64, threads: u64) {
    let script = script::record(plan);
    let look = |run, share, done: &AtomicU64| {
        points::crash(&script, 4096, Stride { run, recovery: 1, share }, done)
    };
    let all = look(u64::MAX, (0, 1), &AtomicU64::new(0)).boundaries;
    let sum = Mutex::new(points::Report::default());
    shared(name, all * threads, threads, |share, done| {
        let report = look(stride, share, done);
        sum.lock().expect("no panic").add(&report);
    });
    let sum = sum.into_inner().expect("no panic");
    println!("  {} boundaries, every {stride}.: {} images opened", sum.boundaries, sum.images);
    println!("  {} images of crashed recoveries, {} nodes made", sum.again, sum.nodes);
}

fn damage(when: &str, store: &Store, stride: u64, threads: u64) {
    let (log, snapshot) = store.sizes();
    let name = format!("{log} bytes of log, {snapshot} of snapshot, and the manifest, {when}");
    let sum = Mutex::new([damage::Report::default(); 2]);
    shared(&name, store.cases() / stride, threads, |share, done| {
        let files = store.damage(stride, share, done);
        sum.lock().expect("no panic")[0].add(&files);
        let state = store.damage_state(stride, share, done);
        sum.lock().expect("no panic")[1].add(&state);
    });
    for (what, it) in ["files", "state"].iter().zip(sum.into_inner().expect("no panic")) {
        print!("  {what}: {} cases, {} refused, {} whole", it.cases, it.refused, it.whole);
        println!(", {} cut and told, {} torn", it.cut, it.torn);
    }
}

/// Runs the shares of a piece of work on threads, and shows how far they are.
fn shared(name: &str, all: u64, threads: u64, work: impl Fn((u64, u64), &AtomicU64) + Sync) {
    let (done, over, started) = (AtomicU64::new(0), AtomicBool::new(false), clock());
    println!("{name}");
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|share| {
                scope.spawn({
                    let (work, done) = (&work, &done);
                    move || work((share, threads), done)
                })
            })
            .collect();
        let bar = scope.spawn(|| progress(&done, &over, all));
        let ended: Vec<_> = workers.into_iter().map(|it| it.join()).collect();
        over.store(true, Ordering::Relaxed);
        bar.join().expect("it prints");
        assert!(ended.iter().all(Result::is_ok), "something is lost or wrong: see above");
    });
    println!("  in {:.1} s", (clock() - started).as_secs_f64());
}

/// A bar on a terminal, else a line for each tenth.
fn progress(done: &AtomicU64, over: &AtomicBool, all: u64) {
    let mut told = 0;
    while !over.load(Ordering::Relaxed) {
        thread::park_timeout(Duration::from_millis(200));
        let percent = done.load(Ordering::Relaxed) * 100 / all.max(1);
        if io::stdout().is_terminal() {
            print!("\r  [{:<50}] {percent} % ", "#".repeat(percent.min(100) as usize / 2));
            let _ = io::stdout().flush();
        } else if percent / 10 > told {
            told = percent / 10;
            println!("  {percent} %");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "it measures how long it takes")]
fn clock() -> Instant {
    Instant::now()
}
