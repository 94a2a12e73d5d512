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
mod options;
mod sum;

use std::{
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

use options::Options;
use sum::Sum;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    #[cfg(quorate_mutants)]
    if arguments.first().is_some_and(|it| it == "--mutants") {
        return mutants::table(&arguments[1..]);
    }
    #[cfg(not(quorate_mutants))]
    if arguments.first().is_some_and(|it| it == "--mutants") {
        println!("mutants are compiled in with RUSTFLAGS=\"--cfg quorate_mutants\"");
        return ExitCode::FAILURE;
    }
    let options = match Options::parse(&arguments, &OPTIONS) {
        Ok(options) => options,
        Err(why) => {
            println!("{why}");
            return ExitCode::FAILURE;
        }
    };
    let mut swarm = Swarm::default();
    swarm.nodes = options.get("--nodes");
    swarm.faulty = Duration::from_secs(options.or("--seconds", 40));
    if options.or("--calm", 0) != 0 {
        swarm.faults = Faults::none();
    }
    if let Ok(text) = env::var("QUORATE_SIM") {
        return again::again(&swarm, &text);
    }
    let first = options.or("--from", 0);
    let end = first + options.or("--seeds", 1000);
    let threads = options.or("--threads", 2);
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
    let sum = sum.into_inner().expect("no panic");
    sum.table();
    if failure.is_none() && options.or("--calm", 0) == 0 && !sum.tells_of_all() {
        println!("a kind of fault has not come up: the run says nothing of it");
        return ExitCode::FAILURE;
    }
    failure.map_or(ExitCode::SUCCESS, |violation| again::fail(&swarm, violation))
}

const OPTIONS: [&str; 6] = ["--seeds", "--from", "--nodes", "--seconds", "--threads", "--calm"];
