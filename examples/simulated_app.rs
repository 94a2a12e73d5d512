//! A job scheduler on a lock, with a mistake, and the simulator that finds it.
//!
//! Each member runs a worker. Whoever holds the lock takes the next job, runs it, and writes down
//! that it did. The first version looks at its lock before the job; while that runs the lease can
//! end, another worker takes the same job, and it is done twice. In the second version the cluster
//! refuses what a stale holder writes, by the lock's fencing token.
//!
//! `cargo run --release --features sim --example simulated_app`

use std::{cell::RefCell, collections::BTreeMap, process::ExitCode, rc::Rc, time::Duration};

use quorate::{
    CreateMode, Op, Path, Txn,
    client::{Acquire, Completion, LockGuard, Session, Written},
    node::Consistency,
    recipes::State,
    sim::{Application, Cluster, FaultKind, Faults, Instance, Plan, Violation, search},
};

/// Which job was written down by how many workers: what the test looks at.
type Ledger = Rc<RefCell<BTreeMap<u64, u32>>>;

/// A worker. Each step waits for one thing.
enum Step {
    Start,
    Opening(Completion<Session>),
    Locking(Acquire<LockGuard>),
    /// Looks which job is next.
    Looking(LockGuard, Completion<(bytes::Bytes, quorate::Stat)>),
    /// Runs it, until then.
    Running(LockGuard, u64, Duration),
    /// Writes down that it is done.
    Writing(LockGuard, u64, Completion<Written>),
}

struct Worker {
    fenced: bool,
    ledger: Ledger,
    step: Step,
}

impl Worker {
    /// The end of a job: the next one is the one after it.
    fn write(&self, guard: &LockGuard, job: u64, at: &Instance<'_>) -> Completion<Written> {
        let (path, data) = (next_job(), (job + 1).to_string().into());
        let txn = Txn::new(Op::Set { path, data, version: None });
        match self.fenced {
            true => guard.txn(txn),
            // The mistake: "I looked before I began, it is mine."
            false => at.client.txn(txn),
        }
    }
}

impl Application for Worker {
    fn poll(&mut self, at: &mut Instance<'_>) {
        let look = |at: &Instance<'_>| at.client.get(&next_job(), Consistency::Linearizable);
        self.step = match std::mem::replace(&mut self.step, Step::Start) {
            Step::Start => {
                // Whoever comes first makes the node; for the others it is there.
                drop(at.client.create(&next_job(), "1", CreateMode::Persistent));
                Step::Opening(at.client.open_session(Duration::from_secs(2)))
            }
            Step::Opening(mut opening) => match opening.try_take() {
                None => Step::Opening(opening),
                Some(Ok(session)) => Step::Locking(session.lock(&lock())),
                Some(Err(_)) => Step::Start,
            },
            Step::Locking(mut locking) => match locking.try_take() {
                None => Step::Locking(locking),
                Some(Ok(guard)) => Step::Looking(guard, look(at)),
                Some(Err(_)) => Step::Start,
            },
            Step::Looking(guard, mut read) => match read.try_take() {
                None => Step::Looking(guard, read),
                Some(Ok((job, _))) if matches!(guard.state(), State::Held { .. }) => {
                    let job = String::from_utf8_lossy(&job).parse().unwrap_or(1);
                    Step::Running(guard, job, at.now + Duration::from_millis(200))
                }
                Some(_) => Step::Start,
            },
            Step::Running(guard, job, until) if at.now < until => Step::Running(guard, job, until),
            Step::Running(guard, job, _) => {
                let write = self.write(&guard, job, at);
                Step::Writing(guard, job, write)
            }
            Step::Writing(guard, job, mut write) => match write.try_take() {
                None => Step::Writing(guard, job, write),
                Some(Ok(_)) => {
                    *self.ledger.borrow_mut().entry(job).or_default() += 1;
                    Step::Looking(guard, look(at))
                }
                Some(Err(_)) => Step::Start,
            },
        };
    }
}

fn next_job() -> Path {
    "/next-job".parse().expect("valid")
}

fn lock() -> Path {
    "/lock".parse().expect("valid")
}

fn run(plan: &Plan, fenced: bool) -> Result<(), Violation> {
    let ledger = Ledger::default();
    let (shared, looked_at) = (Rc::clone(&ledger), Rc::clone(&ledger));
    let faults = Faults::none()
        .every(FaultKind::Pause, Duration::from_secs(10))
        .every(FaultKind::Isolation, Duration::from_secs(10))
        .every(FaultKind::Crash, Duration::from_secs(20));
    let mut cluster = Cluster::builder()
        .plan(plan)
        .faults(faults)
        .application(move |_| Worker { fenced, ledger: Rc::clone(&shared), step: Step::Start })
        .invariant("each job is written down once", move |_| {
            let ledger = looked_at.borrow();
            let twice = ledger.iter().find(|(_, workers)| **workers > 1);
            twice.map_or(Ok(()), |(job, _)| Err(format!("job {job} was done twice")))
        })
        .build()
        .expect("the defaults are possible");
    cluster.run_for(Duration::from_secs(60))
}

fn main() -> ExitCode {
    let found = search(0..200, |plan| run(plan, false));
    println!("without a fence: {}", found.as_ref().err().map_or("?".into(), Violation::to_string));
    let fixed = search(0..50, |plan| run(plan, true));
    println!("with a fence: {}", fixed.as_ref().err().map_or("ok".into(), Violation::to_string));
    if found.is_err() && fixed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
