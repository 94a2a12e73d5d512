//! The power of the simulator: each seeded mistake, and how many seeds it takes to see it.
//!
//! `RUSTFLAGS="--cfg quorate_mutants" cargo run --release --features sim --example swarm --
//! --mutants [NAME ..] [--seeds N] [--from SEED] [--threads N]`
//!
//! Every seed is a run of the standard swarm. A mistake that 2,000 seeds do not show is a hole in
//! the checks: the command fails.

use std::{
    panic,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use quorate::{
    mutant::Mutant,
    sim::{Plan, Violation, swarm::Swarm},
};

use crate::options::Options;

/// Runs the mutants that are named, or all.
pub(super) fn table(arguments: &[String]) -> ExitCode {
    let split = arguments.iter().position(|it| it.starts_with("--")).unwrap_or(arguments.len());
    let (names, options) = arguments.split_at(split);
    let options = match Options::parse(options, &["--seeds", "--from", "--threads"]) {
        Ok(options) => options,
        Err(why) => {
            println!("{why}");
            return ExitCode::FAILURE;
        }
    };
    let (seeds, threads) = (options.or("--seeds", 2000), options.or("--threads", 2));
    let from = options.or("--from", 0);
    if let Some(name) = names.iter().find(|name| Mutant::ALL.iter().all(|it| it.name() != *name)) {
        println!("no mutant is called {name}");
        return ExitCode::FAILURE;
    }
    let chosen = |it: &&Mutant| names.is_empty() || names.iter().any(|name| name == it.name());
    let (began, mut missed, mut within) = (super::sum::clock(), Vec::new(), 0);
    // Some mistakes end in a panic, which the table tells in one line.
    panic::set_hook(Box::new(|_| {}));
    println!("{:<24} {:>6} {:>6}  {:<16} what was seen", "mutant", "seeds", "s", "checker");
    for &mutant in Mutant::ALL.iter().filter(chosen) {
        let started = super::sum::clock();
        Mutant::choose(Some(mutant));
        let found = search(from, from + seeds, threads);
        Mutant::choose(None);
        let seconds = (super::sum::clock() - started).as_secs_f64();
        let name = mutant.name();
        match found {
            Some((seed, violation)) => {
                within += u32::from(seed < 100);
                let why: String = violation.why.chars().take(100).collect();
                println!(
                    "{name:<24} {:>6} {seconds:>6.1}  {:<16} {why}",
                    seed + 1,
                    violation.check
                );
            }
            None => {
                println!("{name:<24} {:>6} {seconds:>6.1}  NOT CAUGHT", format!(">{seeds}"));
                missed.push(mutant);
            }
        }
    }
    let all = Mutant::ALL.iter().filter(chosen).count();
    let seconds = (super::sum::clock() - began).as_secs_f64();
    println!(
        "\n{} of {all} caught, {within} by the first 100 seeds; {seconds:.0} s",
        all - missed.len()
    );
    for mutant in &missed {
        println!("not caught: {} ({}, {})", mutant.name(), mutant.breaks(), mutant.source());
    }
    if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The first seed that shows something, and what.
fn search(from: u64, end: u64, threads: u64) -> Option<(u64, Violation)> {
    let (next, found) = (AtomicU64::new(from), Mutex::new(None::<(u64, Violation)>));
    let swarm = Swarm::default();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let first = found.lock().expect("no panic").as_ref().map(|it| it.0);
                    if seed >= end.min(first.unwrap_or(end)) {
                        return;
                    }
                    if let Err(violation) = swarm.run(&Plan::new(seed)) {
                        let mut found = found.lock().expect("no panic");
                        if found.as_ref().is_none_or(|it| seed < it.0) {
                            *found = Some((seed, violation));
                        }
                    }
                }
            });
        }
    });
    found.into_inner().expect("no panic")
}
