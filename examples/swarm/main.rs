//! The simulator over many seeds: members, clients, every kind of fault, and all checks.
//!
//! `cargo run --release --features sim --example swarm -- --seeds 2000`
//!
//! Options: `--seeds N` (1000), `--from SEED` (0), `--nodes N` (1, 3, 5 and 7 in turns), `--seconds
//! N` of faults (40), `--threads N` (2), `--calm 1` for none. A failure is made small and shown
//! with the line that repeats it: `QUORATE_SIM="17 crash:0" cargo run ..` makes that run alone.

mod again;
#[cfg(quorate_mutants)]
mod mutants;
mod sum;

use std::{
    collections::BTreeMap,
    env,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use quorate::sim::{Faults, Plan, swarm::Swarm};

use sum::Sum;

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
    let (next, stop) = (AtomicU64::new(first), AtomicBool::new(false));
    let (sum, failure) = (Mutex::new(Sum::of(end - first)), Mutex::new(None));
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
                    sum.lock().expect("no panic").progress();
                }
            });
        }
    });
    let failure = failure.into_inner().expect("no panic");
    sum.into_inner().expect("no panic").table();
    failure.map_or(ExitCode::SUCCESS, |violation| again::fail(&swarm, violation))
}
