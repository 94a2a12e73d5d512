//! The simulator over many seeds: members, clients, every kind of fault, and all checks.
//!
//! `cargo run --release --features sim --example swarm -- --seeds 2000`
//!
//! Options: `--seeds N` (1000), `--from SEED` (0), `--nodes N` (1, 3, 5 and 7 in turns), `--seconds
//! N` of faults (40), `--threads N` (2), `--calm 1` for none. A failure is made small and shown with the line
//! that repeats it: `QUORATE_SIM="17 crash:0" cargo run ..` makes that run alone.

use std::{
    collections::BTreeMap,
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

use quorate::sim::{
    FaultKind, Faults, Plan, PlanError, Violation, shrink,
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
    changes: u64,
    moves: u64,
    exchanged: u64,
    shown: u64,
    faults: BTreeMap<FaultKind, u64>,
    /// From the end of the faults to a leader, and to a write, and of which seed.
    slowest_leader: (Duration, u64),
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
        self.changes += report.changes;
        self.moves += report.moves;
        self.exchanged += report.exchanged;
        self.shown += report.shown;
        match report.recovery {
            Some((leader, write)) => {
                self.slowest_leader = self.slowest_leader.max((leader, seed));
                self.slowest = self.slowest.max((write, seed));
            }
            None => self.stuck += 1,
        }
        for (kind, count) in &report.faults {
            *self.faults.entry(*kind).or_default() += count;
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let options: BTreeMap<_, _> = arguments.chunks_exact(2).map(|it| (&*it[0], &*it[1])).collect();
    let option = |name| options.get(name).and_then(|text| text.parse::<u64>().ok());
    let mut swarm = Swarm::default();
    swarm.nodes = option("--nodes");
    swarm.faulty = Duration::from_secs(option("--seconds").unwrap_or(40));
    if option("--calm").is_some() {
        swarm.faults = Faults::none();
    }
    if let Ok(text) = env::var("QUORATE_SIM") {
        return again(&swarm, &text);
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
    failure.map_or(ExitCode::SUCCESS, |violation| fail(&swarm, violation))
}

/// One run, as a violation says that it is to be repeated.
fn again(swarm: &Swarm, text: &str) -> ExitCode {
    let plan = text.parse().map_err(|error: PlanError| error.to_string());
    match plan.and_then(|plan| swarm.run(&plan).map_err(|violation| violation.to_string())) {
        Ok(report) => {
            println!("{report:#?}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn fail(swarm: &Swarm, violation: Violation) -> ExitCode {
    println!("\n{violation}\n\nmaking it small ..");
    println!("{}", shrink(violation, |plan| swarm.run(plan).map(drop)));
    ExitCode::FAILURE
}

/// A bar for who looks on, and a line for each tenth of the way otherwise.
fn progress(sum: &Sum, all: u64, started: Instant) {
    let looked_at = io::stderr().is_terminal();
    let tenth = |runs: u64| runs * 10 / all.max(1);
    if !looked_at && tenth(sum.runs) == tenth(sum.runs.saturating_sub(1)) {
        return;
    }
    let seconds = (clock() - started).as_secs_f64().max(0.001);
    let (rate, speed) = (sum.runs as f64 / seconds, sum.simulated.as_secs_f64() / seconds);
    let done = format!("{}/{all}  {rate:.1} seeds/s  {speed:.0} x real time", sum.runs);
    if !looked_at {
        eprintln!("{done}");
        return;
    }
    let bar = "#".repeat((sum.runs * 30 / all.max(1)) as usize);
    eprint!("\r[{bar:<30}] {done} ");
    let _ = io::stderr().flush();
}

fn table(sum: &Sum, started: Instant) {
    let simulated = sum.simulated.as_secs_f64();
    let seconds = (clock() - started).as_secs_f64().max(0.001);
    println!("\n\n{} runs in {seconds:.1} s: {:.1} seeds/s", sum.runs, sum.runs as f64 / seconds);
    println!("{:.2} simulated hours, {:.0} x real time", simulated / 3600.0, simulated / seconds);
    println!("{} answers, {} transactions watched", sum.answered, sum.told);
    println!("{} transactions of several nodes, {} secrets shown", sum.exchanged, sum.shown);
    println!("{} locks won, {} sessions moved", sum.acquired, sum.moves);
    println!("{} changes of the membership", sum.changes);
    println!("{} histories undecided", sum.undecided);
    println!("{} ended in need of an operator's decision (a cut tail)", sum.stuck);
    let ((leader, seed), (write, other)) = (sum.slowest_leader, sum.slowest);
    println!("slowest failover: {:.3} s to a leader (seed {seed})", leader.as_secs_f64());
    println!("                  {:.3} s to a write (seed {other})\n", write.as_secs_f64());
    for kind in FaultKind::ALL.into_iter().filter(|kind| kind.is_survivable()) {
        println!("{kind:<18} {:>8}", sum.faults.get(&kind).copied().unwrap_or(0));
    }
    println!("{:<18} {:>8}", "faults", sum.faults.values().sum::<u64>());
}

#[expect(clippy::disallowed_methods, reason = "it measures how fast the simulator is")]
fn clock() -> Instant {
    Instant::now()
}
