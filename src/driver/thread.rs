//! The threads around a host.

use std::{
    io,
    sync::Arc,
    thread::{Builder, JoinHandle},
};

use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;

use crate::{
    client::{Client, mailbox::Mailbox},
    driver::{Host, Housework, HouseworkDone, SystemClock},
    node::Ended,
};

/// A running node: a thread that turns its [`Host`], one that writes its log, and one for
/// housework.
///
/// Stopping says no goodbye: to the other members it looks like a crash. Hand the leadership over
/// first ([`Client::transfer_leader`]) to spare them an election. Dropping it stops it, too.
///
/// ```no_run
/// # fn example(host: quorate::driver::Host) -> Result<(), Box<dyn std::error::Error>> {
/// use quorate::driver::Driver;
/// let driver = Driver::spawn(host)?;
/// let client = driver.client().clone();
/// println!("{:?}", client.status().wait()?);
/// driver.stop();
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Driver {
    client: Client,
    thread: Option<JoinHandle<Option<Ended>>>,
}

impl Driver {
    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// When the system gives no thread.
    pub fn spawn(mut host: Host) -> io::Result<Self> {
        let client = host.client();
        let name = host.id();
        let mailbox = Arc::clone(client.mailbox());
        let (work, tasks) = crossbeam_channel::bounded(HOUSEWORK_MAX);
        let done = Arc::new(Mutex::new(Vec::new()));
        let keeper = Keeper { tasks, done: Arc::clone(&done), mailbox: Arc::clone(&mailbox) };
        let housekeeper =
            Builder::new().name(format!("quorate-{name}-house")).spawn(move || keeper.run())?;
        let writer = match host.move_disk_away() {
            Some((queue, worker)) => {
                let mailbox = Arc::clone(&mailbox);
                let thread = Builder::new().name(format!("quorate-{name}-disk"));
                Some(thread.spawn(move || queue.work(worker, &mailbox))?)
            }
            None => None,
        };
        let thread = Builder::new().name(format!("quorate-{name}")).spawn(move || {
            let ended = run(host, &mailbox, &work, &done);
            drop(work);
            // What they were given last may be half of a file: let them finish.
            let _ = housekeeper.join();
            writer.map(JoinHandle::join);
            ended
        })?;
        Ok(Self { client, thread: Some(thread) })
    }

    /// A handle of the node.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the node still runs; one that has ended says why in [`stop`](Self::stop).
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|it| !it.is_finished())
    }

    /// Stops the node and waits until its files and sockets are closed. Everything that waits for
    /// it is answered. Returns why the node had ended, if it had.
    pub fn stop(mut self) -> Option<Ended> {
        self.join()
    }

    fn join(&mut self) -> Option<Ended> {
        self.client.mailbox().stop();
        self.thread.take()?.join().ok()?
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.join();
    }
}

fn run(
    mut host: Host,
    mailbox: &Mailbox,
    work: &Sender<Housework>,
    done: &Mutex<Vec<HouseworkDone>>,
) -> Option<Ended> {
    let clock: SystemClock = host.system_clock();
    while !mailbox.is_stopped() {
        for it in done.lock().drain(..) {
            host.housework_done(it);
        }
        let turn = host.turn(clock.now());
        for task in turn.housework {
            if let Err(refused) = work.try_send(task) {
                // Better late than on top of a pile.
                if let Some(it) = refused.into_inner().run() {
                    host.housework_done(it);
                }
            }
        }
        if let Some(ended) = turn.ended {
            return Some(ended);
        }
        if !turn.more {
            let left = turn.next_tick.saturating_sub(clock.now().mono);
            mailbox.wait(left);
        }
    }
    None
}

/// The housekeeping thread's side.
struct Keeper {
    tasks: Receiver<Housework>,
    done: Arc<Mutex<Vec<HouseworkDone>>>,
    mailbox: Arc<Mailbox>,
}

impl Keeper {
    fn run(self) {
        for task in self.tasks {
            if let Some(it) = task.run() {
                self.done.lock().push(it);
                self.mailbox.nudge();
            }
        }
    }
}

/// Tasks that wait for the housekeeping thread.
const HOUSEWORK_MAX: usize = 64;
