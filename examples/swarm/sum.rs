//! What many runs come to.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use quorate::sim::{FaultKind, swarm::Report};

/// The sum of many runs.
pub(super) struct Sum {
    /// Runs that are to be made.
    all: u64,
    started: Instant,
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
    pub(super) fn of(all: u64) -> Self {
        let (nothing, never) = (Duration::ZERO, (Duration::ZERO, 0));
        Self {
            all,
            started: clock(),
            runs: 0,
            simulated: nothing,
            answered: 0,
            told: 0,
            acquired: 0,
            changes: 0,
            moves: 0,
            exchanged: 0,
            shown: 0,
            faults: BTreeMap::new(),
            slowest_leader: never,
            slowest: never,
            stuck: 0,
            undecided: 0,
        }
    }

    pub(super) fn add(&mut self, seed: u64, report: &Report) {
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

    /// A bar for who looks on, and a line for each tenth of the way otherwise.
    pub(super) fn progress(&self) {
        let looked_at = io::stderr().is_terminal();
        let tenth = |runs: u64| runs * 10 / self.all.max(1);
        if !looked_at && tenth(self.runs) == tenth(self.runs.saturating_sub(1)) {
            return;
        }
        let seconds = (clock() - self.started).as_secs_f64().max(0.001);
        let (rate, speed) = (self.runs as f64 / seconds, self.simulated.as_secs_f64() / seconds);
        let done = format!("{}/{}  {rate:.1} seeds/s  {speed:.0} x real time", self.runs, self.all);
        if !looked_at {
            eprintln!("{done}");
            return;
        }
        let bar = "#".repeat((self.runs * 30 / self.all.max(1)) as usize);
        eprint!("\r[{bar:<30}] {done} ");
        let _ = io::stderr().flush();
    }

    /// Whether there was each kind of fault, where there were runs enough for it.
    pub(super) fn tells_of_all(&self) -> bool {
        let mut drawn = FaultKind::ALL.into_iter().filter(|kind| kind.is_survivable());
        self.runs < RUNS_FOR_ALL || drawn.all(|kind| self.faults.contains_key(&kind))
    }

    pub(super) fn table(&self) {
        let simulated = self.simulated.as_secs_f64();
        let seconds = (clock() - self.started).as_secs_f64().max(0.001);
        println!(
            "\n\n{} runs in {seconds:.1} s: {:.1} seeds/s",
            self.runs,
            self.runs as f64 / seconds
        );
        println!(
            "{:.2} simulated hours, {:.0} x real time",
            simulated / 3600.0,
            simulated / seconds
        );
        println!("{} answers, {} transactions watched", self.answered, self.told);
        println!("{} transactions of several nodes, {} secrets shown", self.exchanged, self.shown);
        println!("{} locks won, {} sessions moved", self.acquired, self.moves);
        println!("{} changes of the membership", self.changes);
        println!("{} histories undecided", self.undecided);
        println!("{} ended in need of an operator's decision (a cut tail)", self.stuck);
        let ((leader, seed), (write, other)) = (self.slowest_leader, self.slowest);
        println!("slowest failover: {:.3} s to a leader (seed {seed})", leader.as_secs_f64());
        println!("                  {:.3} s to a write (seed {other})\n", write.as_secs_f64());
        for kind in FaultKind::ALL {
            match self.faults.get(&kind).copied().unwrap_or(0) {
                0 if !kind.is_survivable() => println!("{kind:<18} {:>8}", "apart"),
                count => println!("{kind:<18} {count:>8}"),
            }
        }
        println!("{:<18} {:>8}", "faults", self.faults.values().sum::<u64>());
    }
}

#[expect(clippy::disallowed_methods, reason = "it measures how fast the simulator is")]
pub(super) fn clock() -> Instant {
    Instant::now()
}

/// In so many runs every kind of fault comes up, with room to spare.
const RUNS_FOR_ALL: u64 = 1_000;
