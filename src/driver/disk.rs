//! Where a host's writes become durable: within its turn, or on a thread of their own.
//!
//! On the thread, all that came while the last fsync ran becomes durable with the next one.
//! Invariant: jobs are done, and their ends told, in the order in which they came.

use std::{collections::VecDeque, mem, sync::Arc};

use parking_lot::{Condvar, Mutex};

use crate::{
    client::mailbox::Mailbox,
    driver::Log,
    node::{DiskError, DiskUse, Token, Write},
    wal::{Chore, ChoreDone},
};

/// A host's side of its log.
#[derive(Debug)]
pub(super) enum Disk {
    Here(Worker, VecDeque<End>),
    Away(Away),
}

/// The queue of the thread that writes, which ends with it.
#[derive(Debug)]
pub(super) struct Away(Arc<Queue>);

/// What the log is to do.
#[derive(Debug)]
pub(super) enum Job {
    Write(Write, Token),
    ChoreDone(ChoreDone),
    Scrub,
}

/// What came of a job.
#[derive(Debug)]
pub(super) enum End {
    Durable(Token),
    Failed(Token, DiskError),
    /// A chore failed, and the log with it.
    Broken(DiskError),
    Chore(Chore),
}

/// The log, and who does its jobs.
#[derive(Debug)]
pub(super) struct Worker {
    log: Log,
    disk_use: DiskUse,
}

/// Between a host and the thread that writes for it.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Bounded by the writes that a node has out, and by the chores that a log hands out.
    jobs: Vec<Job>,
    ends: VecDeque<End>,
    disk_use: DiskUse,
    closed: bool,
}

impl Disk {
    pub(super) fn new(log: Log) -> Self {
        Self::Here(Worker::new(log), VecDeque::new())
    }

    /// From now on somebody else does the jobs: calls [`Queue::work`] with the worker.
    pub(super) fn move_away(&mut self) -> Option<(Arc<Queue>, Worker)> {
        let disk_use = self.disk_use();
        let state = Mutex::new(State { disk_use, ..State::default() });
        let queue = Arc::new(Queue { state, changed: Condvar::new() });
        match mem::replace(self, Self::Away(Away(Arc::clone(&queue)))) {
            Self::Here(worker, _) if !matches!(worker.log, Log::Memory) => Some((queue, worker)),
            before => {
                *self = before;
                None
            }
        }
    }

    /// Gives a job; its end comes out of [`ended`](Self::ended).
    pub(super) fn give(&mut self, job: Job) {
        match self {
            Self::Here(worker, ends) => worker.run([job], ends),
            Self::Away(Away(queue)) => {
                queue.state.lock().jobs.push(job);
                queue.changed.notify_one();
            }
        }
    }

    /// What has ended since the last call, in order.
    pub(super) fn ended(&mut self) -> VecDeque<End> {
        match self {
            Self::Here(_, ends) => mem::take(ends),
            Self::Away(Away(queue)) => mem::take(&mut queue.state.lock().ends),
        }
    }

    /// What the disk holds.
    pub(super) fn disk_use(&self) -> DiskUse {
        match self {
            Self::Here(worker, _) => worker.disk_use,
            Self::Away(Away(queue)) => queue.state.lock().disk_use,
        }
    }

    #[cfg(test)]
    pub(super) fn log(&self) -> Option<&Log> {
        match self {
            Self::Here(worker, _) => Some(&worker.log),
            Self::Away(_) => None,
        }
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        self.0.state.lock().closed = true;
        self.0.changed.notify_one();
    }
}

impl Queue {
    /// Does what comes, until the host is gone; `mailbox` is nudged when there is news for it.
    pub(super) fn work(&self, mut worker: Worker, mailbox: &Mailbox) {
        let mut ends = VecDeque::new();
        loop {
            let mut state = self.state.lock();
            state.ends.append(&mut ends);
            state.disk_use = worker.disk_use;
            if !state.ends.is_empty() {
                drop(state);
                mailbox.nudge();
                state = self.state.lock();
            }
            while state.jobs.is_empty() && !state.closed {
                self.changed.wait(&mut state);
            }
            // What was given before the end is still done: it may say why.
            if state.jobs.is_empty() {
                return;
            }
            let jobs = mem::take(&mut state.jobs);
            drop(state);
            worker.run(jobs, &mut ends);
        }
    }
}

impl Worker {
    fn new(log: Log) -> Self {
        let disk_use = log.disk_use(false);
        Self { log, disk_use }
    }

    /// Does the jobs; writes that follow each other share an fsync where they can.
    fn run(&mut self, jobs: impl IntoIterator<Item = Job>, ends: &mut VecDeque<End>) {
        let mut jobs = jobs.into_iter().peekable();
        while let Some(job) = jobs.next() {
            match job {
                Job::Write(mut write, token) => {
                    let mut tokens = vec![token];
                    while let Some(next) = jobs.next_if(|next| match next {
                        Job::Write(next, _) => write.takes(next),
                        _ => false,
                    }) {
                        if let Job::Write(next, token) = next {
                            write.append(next);
                            tokens.push(token);
                        }
                    }
                    self.persist(&write, tokens, ends);
                }
                Job::ChoreDone(done) => {
                    let result = self.log.chore_done(done);
                    ends.extend(result.err().map(End::Broken));
                }
                Job::Scrub => ends.extend(self.log.scrub().map(End::Chore)),
            }
        }
        while let Some(chore) = self.log.chore() {
            ends.push_back(End::Chore(chore));
        }
        self.disk_use = self.log.disk_use(self.disk_use.is_full);
    }

    fn persist(&mut self, write: &Write, tokens: Vec<Token>, ends: &mut VecDeque<End>) {
        let result = self.log.persist(write);
        for token in tokens {
            ends.push_back(match &result {
                Ok(()) => End::Durable(token),
                Err(why) => End::Failed(token, why.clone()),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::atomic::AtomicBool};

    use bytes::Bytes;

    use super::*;
    use crate::{
        id::{Boot, ClusterId, NodeId},
        node::{SnapshotWrite, Write},
        wal::{Fault, MemoryFs},
        wire::{EntryKind, LogEntry},
    };

    fn worker(fs: &MemoryFs) -> Worker {
        let (cluster, node) = (ClusterId::named("disk"), NodeId::new(1).unwrap());
        let opened = Log::open(Arc::new(fs.clone()), Path::new("/d"), cluster, node);
        Worker::new(opened.unwrap().0)
    }

    fn job(number: u64, write: Write) -> Job {
        let boot = Boot { counter: 1, nonce: 1 };
        let dropped = Arc::new(AtomicBool::new(false));
        Job::Write(write, Token::new(NodeId::new(1).unwrap(), boot, number, dropped))
    }

    fn entries(from: u64, to: u64) -> Write {
        let entry = |index| LogEntry::new(index, 2, EntryKind::Normal, Bytes::from_static(b"x"));
        Write { entries: (from..=to).map(entry).collect(), ..Write::default() }
    }

    fn syncs(worker: &Worker) -> u64 {
        match &worker.log {
            Log::Wal(wal) => wal.status().syncs,
            Log::Memory => 0,
        }
    }

    fn told(ends: VecDeque<End>) -> Vec<String> {
        let tell = |end| match end {
            End::Durable(token) => {
                let told = format!("durable {}", token.number);
                token.spend();
                Some(told)
            }
            End::Failed(token, _) => {
                let told = format!("failed {}", token.number);
                token.spend();
                Some(told)
            }
            End::Broken(_) => Some("broken".into()),
            End::Chore(_) => None,
        };
        ends.into_iter().filter_map(tell).collect()
    }

    #[test]
    fn writes_that_follow_each_other_share_an_fsync_and_others_do_not() {
        let fs = MemoryFs::new();
        let mut worker = worker(&fs);
        let mut ends = VecDeque::new();
        let snapshot = vec![SnapshotWrite::Begin { index: 9, term: 2 }];
        let step = Write { snapshot, ..Write::default() };
        let local = Write { local: Some("me".into()), ..Write::default() };
        let jobs = [entries(1, 2), entries(3, 3), entries(4, 6), step, local, entries(7, 7)];
        let jobs = jobs.into_iter().zip(1..).map(|(write, number)| job(number, write));
        worker.run(jobs.collect::<Vec<_>>(), &mut ends);
        assert_eq!(syncs(&worker), 3, "1 to 6; the record; 7");
        let in_order: Vec<_> = (1..=6).map(|number| format!("durable {number}")).collect();
        assert_eq!(told(ends), in_order);
        // Nothing waits for bytes that are staged before the entries of a write.
        let begin = vec![SnapshotWrite::Begin { index: 9, term: 2 }];
        let staging = Write { snapshot: begin, ..entries(8, 8) };
        let mut ends = VecDeque::new();
        worker.run([job(9, staging), job(10, entries(9, 9))], &mut ends);
        assert_eq!((syncs(&worker), told(ends).len()), (4, 2));
        // What replaces the end of the log is no continuation of it.
        let mut ends = VecDeque::new();
        worker.run([job(11, entries(10, 11)), job(12, entries(11, 11))], &mut ends);
        assert_eq!((syncs(&worker), told(ends).len()), (6, 2));
    }

    #[test]
    fn a_failed_fsync_fails_all_that_shared_it_and_all_that_follows() {
        let fs = MemoryFs::new();
        let mut worker = worker(&fs);
        fs.arm(&[Fault::FailSync(1)]);
        let mut ends = VecDeque::new();
        worker.run([job(1, entries(1, 1)), job(2, entries(2, 2))], &mut ends);
        worker.run([job(3, entries(3, 3))], &mut ends);
        assert_eq!(told(ends), ["failed 1", "failed 2", "failed 3"]);
    }
}
