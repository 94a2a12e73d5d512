//! The simulator over many seeds: members, clients, every kind of fault, and all checks.
//!
//! `cargo run --release --features sim --example swarm -- --seeds 2000`
//!
//! Options: `--seeds N` (1000), `--from SEED` (0), `--nodes N` (drawn), `--seconds N` of faults
//! (40), `--threads N` (2), `--calm 1` for none. A failure is made small and shown with the line
//! that repeats it: `QUORATE_SIM="17 crash:0" cargo run ..` makes that run alone. Built with
//! `RUSTFLAGS="--cfg quorate_mutants"` it takes `--mutants` and `--mutants NAME`: see `mutants`.

mod again;
#[cfg(quorate_mutants)]
mod mutants;

use std::{
    collections::BTreeMap,
    env, io,
    io::Write as _,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use quorate::sim::{
    FaultKind, Faults, Plan,
    swarm::{Report, Swarm},
};

/// The sum of many runs.
#[derive(Default)]
struct Sum {
    runs: u64,
    simulated: Duration,
    answered: u64,
    told: u64,
    acquired: u64,
    faults: BTreeMap<FaultKind, u64>,
    slowest: (Duration, u64),
    stuck: u64,
    undecided: u64,
}

impl Sum {
    fn add(&mut self, seed: u64, report: &Report) {
        self.runs += 1;
        self.simulated += report.simulated;
        self.undecided += report.undecided;
        self.answered += report.answered;
        self.told += report.told;
        self.acquired += report.acquired;
        match report.recovery {
            Some((_, write)) => self.slowest = self.slowest.max((write, seed)),
            None => self.stuck += 1,
        }
        for (kind, count) in &report.faults {
            *self.faults.entry(*kind).or_default() += count;
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    #[cfg(quorate_mutants)]
    if arguments.first().is_some_and(|it| it == "--mutants") {
        return mutants::table(&arguments[1..]);
    }
    let options: BTreeMap<_, _> = arguments.chunks_exact(2).map(|it| (&*it[0], &*it[1])).collect();
    let option = |name| options.get(name).and_then(|text| text.parse::<u64>().ok());
    let mut swarm = Swarm::default();
    swarm.nodes = option("--nodes");
    swarm.faulty = Duration::from_secs(option("--seconds").unwrap_or(40));
    if option("--calm").is_some() {
        swarm.faults = Faults::none();
    }
    if let Ok(text) = env::var("QUORATE_SIM") {
        return again::again(&swarm, &text);
    }
    let first = option("--from").unwrap_or(0);
    let end = first + option("--seeds").unwrap_or(1000);
    let threads = option("--threads").unwrap_or(2);
    let (next, stop, started) = (AtomicU64::new(first), AtomicBool::new(false), clock());
    let (sum, failure) = (Mutex::new(Sum::default()), Mutex::new(None));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    match swarm.run(&Plan::new(seed)) {
                        Ok(report) => sum.lock().expect("no panic").add(seed, &report),
                        Err(violation) => {
                            stop.store(true, Ordering::Relaxed);
                            *failure.lock().expect("no panic") = Some(violation);
                        }
                    }
                    progress(&sum.lock().expect("no panic"), end - first, started);
                }
            });
        }
    });
    let failure = failure.into_inner().expect("no panic");
    table(&sum.into_inner().expect("no panic"), started);
    failure.map_or(ExitCode::SUCCESS, |violation| again::fail(&swarm, violation))
}

fn progress(sum: &Sum, all: u64, started: Instant) {
    let seconds = (clock() - started).as_secs_f64().max(0.001);
    let bar = "#".repeat((sum.runs * 30 / all.max(1)) as usize);
    let (rate, speed) = (sum.runs as f64 / seconds, sum.simulated.as_secs_f64() / seconds);
    print!("\r[{bar:<30}] {}/{all}  {rate:.1} seeds/s  {speed:.0} x real time ", sum.runs);
    let _ = io::stdout().flush();
}

fn table(sum: &Sum, started: Instant) {
    let hours = sum.simulated.as_secs_f64() / 3600.0;
    let seconds = (clock() - started).as_secs_f64();
    println!("\n\n{} runs, {hours:.2} simulated hours in {seconds:.1} s", sum.runs);
    println!("{} answers, {} transactions watched", sum.answered, sum.told);
    println!("{} locks won, {} histories undecided", sum.acquired, sum.undecided);
    println!("{} ended in need of an operator's decision (a cut tail)", sum.stuck);
    let (slowest, seed) = sum.slowest;
    println!("slowest recovery: {:.3} s (seed {seed})\n", slowest.as_secs_f64());
    for (kind, count) in &sum.faults {
        println!("{kind:<18} {count:>8}");
    }
    println!("{:<18} {:>8}", "faults", sum.faults.values().sum::<u64>());
}

#[expect(clippy::disallowed_methods, reason = "it measures how fast the simulator is")]
fn clock() -> Instant {
    Instant::now()
}
