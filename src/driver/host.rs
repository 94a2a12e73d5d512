//! One turn of the run loop.
//!
//! Invariants: what must be durable first is sent only after its fsync; a tick is taken on a
//! drained node and never made up for; no turn takes more than its share of what has arrived, and
//! none takes anything while the node waits for its disk.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use thiserror::Error;

use crate::{
    client::{Client, Clock, Shared, mailbox::Arrivals},
    config::Config,
    driver::{
        Differs, Inbox, Log, SystemClock, Transport,
        desk::{Desk, Entropy},
        disk::{Disk, End, Job, Queue, Worker},
    },
    id::NodeId,
    node::{Ended, Garbage, Node, OpenError, Restored},
    op::Identities,
    time::Now,
    wal::{OsFs, WalError},
};

/// A node with its log, its transport and the requests of its handles.
///
/// [`Driver::spawn`](crate::driver::Driver::spawn) gives it a thread. To drive it by hand, call
/// [`turn`](Self::turn) when something has arrived, and when the next tick is due.
///
/// ```
/// use std::time::Duration;
/// use quorate::{ClusterId, Config, NodeId, Now};
/// use quorate::driver::{Host, Inbox, Log, Switchboard};
/// # use quorate::{Boot, StoreId, node::Restored};
/// let id = NodeId::new(1).expect("not 0");
/// let config = Config::founding(ClusterId::named("alone"), id, [id]).build()?;
/// let inbox = Inbox::new();
/// let line = Switchboard::new().connect(id, inbox.clone());
/// # let (log, restored) = (Log::Memory, Restored::new(
/// #     StoreId::from_bytes([1; 16]), Boot { counter: 1, nonce: 1 }));
/// // `log` and `restored` come from opening the data directory.
/// let mut host = Host::new(config, log, restored, line, inbox)?;
/// let client = host.client();
/// let write = client.create(&"/a".parse()?, "1", quorate::CreateMode::Persistent);
/// let mut mono = Duration::ZERO;
/// while !write.is_done() {
///     let turn = host.turn(Now { mono, wall_ms: 0 });
///     mono = turn.next_tick; // virtual time: nobody waits for it
/// }
/// assert!(write.wait().is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Host {
    node: Node,
    disk: Disk,
    transport: Box<dyn Transport>,
    shared: Arc<Shared>,
    desk: Desk,
    clock: SystemClock,
    tick_interval: Duration,
    next_tick: Duration,
    id: NodeId,
    arrivals: Arrivals,
    housework: Vec<Housework>,
    /// Until when views are published though nobody reads them.
    publish_until: Option<Duration>,
    /// Chores of the log that were handed out and have not come back.
    chores_out: usize,
    next_scrub: Duration,
    over: bool,
}

/// Why a host cannot be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HostError {
    /// The data directory cannot be opened.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// What it holds does not fit the configuration.
    #[error(transparent)]
    Node(#[from] OpenError),
    /// An inbox belongs to one host: make a new one for each, also to open a host again.
    #[error("the inbox belongs to another host already: make one for each")]
    InboxTaken,
    /// The transport was made for another host.
    #[error(transparent)]
    Transport(#[from] Differs),
}

/// What a turn has led to.
#[derive(Debug)]
#[non_exhaustive]
pub struct Turn {
    /// Whether there is more to do than one turn takes: turn again at once.
    pub more: bool,
    /// When the next tick is due, on the clock of [`Now::mono`].
    pub next_tick: Duration,
    /// Work for another thread; or run it here, when it delays nobody.
    pub housework: Vec<Housework>,
    /// Why the node has ended, if it has; further turns do nothing.
    pub ended: Option<Ended>,
}

/// Work that takes long and is not urgent.
#[derive(Debug)]
#[must_use = "housework is to be run, and what it returns handed back"]
pub struct Housework {
    chore: Chore,
}

#[derive(Debug)]
enum Chore {
    Drop(Garbage),
    Log(crate::wal::Chore),
}

/// What came of [`Housework`]: to be handed to [`Host::housework_done`].
#[derive(Debug)]
pub struct HouseworkDone {
    done: crate::wal::ChoreDone,
}

impl Housework {
    /// Does it.
    pub fn run(self) -> Option<HouseworkDone> {
        match self.chore {
            Chore::Drop(garbage) => {
                drop(garbage);
                None
            }
            Chore::Log(chore) => Some(HouseworkDone { done: chore.run() }),
        }
    }
}

impl Host {
    /// A host for the member that `config` describes, on the data directory `dir`, which is made
    /// if it is not there. `inbox` is where the transport delivers.
    ///
    /// # Errors
    ///
    /// [`HostError`] says what is wrong with the directory or the configuration, and the remedy.
    pub fn open(
        config: Config,
        dir: &Path,
        transport: impl Transport + 'static,
        inbox: Inbox,
    ) -> Result<Self, HostError> {
        let (log, restored) = Log::open(Arc::new(OsFs), dir, config.cluster(), config.id())?;
        Self::new(config, log, restored, transport, inbox)
    }

    /// A host for the member that `config` describes, as `log` has restored it. `inbox` is where
    /// the transport delivers.
    ///
    /// # Errors
    ///
    /// [`HostError`] when what was restored does not fit the configuration, or the inbox has a
    /// host.
    pub fn new(
        config: Config,
        log: Log,
        restored: Restored,
        transport: impl Transport + 'static,
        inbox: Inbox,
    ) -> Result<Self, HostError> {
        let made_for = transport.made_for();
        made_for.differs(config.id(), config.cluster(), &inbox).map_or(Ok(()), Err)?;
        if !inbox.mailbox.occupy() {
            return Err(HostError::InboxTaken);
        }
        let clock = SystemClock::start();
        let tick_interval = config.tick_interval();
        let id = config.id();
        let node = Node::open(config, restored)?;
        let shared = Arc::new(Shared::new(inbox.mailbox, clock.handle()));
        let desk = Desk::new(Arc::clone(&shared), Entropy::new(random_bytes));
        Ok(Self {
            node,
            disk: Disk::new(log),
            transport: Box::new(transport),
            shared,
            desk,
            clock,
            tick_interval,
            next_tick: Duration::ZERO,
            id,
            arrivals: Arrivals::default(),
            housework: Vec::new(),
            publish_until: None,
            chores_out: 0,
            next_scrub: Duration::ZERO,
            over: false,
        })
    }

    /// Replaces what a simulator has its own of: the clock of the handles, which must be the one
    /// of the turns, and the source of session secrets and recipe ids. To be called before
    /// [`client`](Self::client).
    #[must_use]
    pub fn simulated(
        mut self,
        clock: Clock,
        mut entropy: impl FnMut() -> [u8; 16] + Send + 'static,
    ) -> Self {
        let mailbox = Arc::clone(&self.shared.mailbox);
        self.shared = Arc::new(Shared::new(mailbox, clock));
        self.desk = Desk::new(Arc::clone(&self.shared), Entropy::new(move || Ok(entropy())));
        self
    }

    /// One turn: takes what has arrived, ticks when it is time, drains the node, and answers.
    /// Blocks for nothing but the log, and under a [`Driver`](crate::driver::Driver) not for that.
    pub fn turn(&mut self, now: Now) -> Turn {
        if !self.over {
            self.node.set_disk(self.disk.disk_use());
            if self.settle_disk() {
                self.drain(now);
            }
            self.tick(now);
            let more = self.node.ended().is_none() && self.take();
            let more = self.drain(now) || more || (self.node.has_more() && !self.node.is_blocked());
            self.publish(now.mono);
            self.scrub(now.mono);
            self.end_with_node();
            return self.done(more, now.mono);
        }
        self.done(false, now.mono)
    }

    /// Takes back what [`Housework::run`] returned. An error ends the node, with the next turn.
    pub fn housework_done(&mut self, done: HouseworkDone) {
        self.chores_out = self.chores_out.saturating_sub(1);
        self.disk.give(Job::ChoreDone(done.done));
    }

    /// A handle without identities, which may do what the world may; see
    /// [`client`](crate::client).
    pub fn client(&self) -> Client {
        Client::new(Arc::clone(&self.shared), Identities::none())
    }

    /// The node, to look at.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The member's id.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The node, to make its memory go bad.
    #[cfg(feature = "sim")]
    pub(crate) fn node_mut(&mut self) -> &mut Node {
        &mut self.node
    }

    #[cfg(test)]
    pub(super) fn without_entropy(mut self) -> Self {
        self.desk = Desk::new(Arc::clone(&self.shared), Entropy::new(|| Err("none".into())));
        self
    }

    #[cfg(test)]
    pub(super) fn next_due(&self) -> Duration {
        self.next_tick
    }

    #[cfg(test)]
    pub(super) fn log_status(&self) -> Option<crate::wal::WalStatus> {
        match self.disk.log()? {
            Log::Wal(wal) => Some(wal.status()),
            Log::Memory => None,
        }
    }

    pub(super) fn system_clock(&self) -> SystemClock {
        self.clock
    }

    /// From now on its writes are done by who calls [`Queue::work`].
    pub(super) fn move_disk_away(&mut self) -> Option<(Arc<Queue>, Worker)> {
        self.disk.move_away()
    }

    fn tick(&mut self, now: Now) {
        if now.mono < self.next_tick {
            return;
        }
        if self.node.tick(now).is_err() {
            return;
        }
        // A tick that comes late moves the next one: missed ones are not made up for.
        let due = self.next_tick.saturating_add(self.tick_interval);
        self.next_tick = match due > now.mono {
            true => due,
            false => now.mono.saturating_add(self.tick_interval),
        };
        self.desk.tick(&mut self.node, now.mono);
    }

    /// Takes a bounded share of what has arrived. Returns whether there is more.
    fn take(&mut self) -> bool {
        if self.node.is_blocked() {
            return false;
        }
        if self.arrivals.frames.is_empty() && self.arrivals.calls.is_empty() {
            self.shared.mailbox.take(&mut self.arrivals);
        }
        let frames = self.arrivals.frames.len().min(FRAMES_PER_TURN);
        for (from, bytes) in self.arrivals.frames.drain(..frames) {
            // The node counts what it refuses, and its logger says why.
            let _ = self.node.step(from, bytes);
        }
        let calls = self.arrivals.calls.len().min(CALLS_PER_TURN);
        for call in self.arrivals.calls.drain(..calls) {
            self.desk.call(call, &mut self.node);
        }
        !(self.arrivals.frames.is_empty() && self.arrivals.calls.is_empty())
    }

    /// Returns whether there is more to drain.
    fn drain(&mut self, now: Now) -> bool {
        let more = self.drain_node(now);
        self.hand_over();
        more
    }

    /// What was sent and answered leaves: in one go, before this thread does something long.
    fn hand_over(&mut self) {
        self.transport.flush();
        self.desk.wake(&mut self.node);
    }

    /// A recipe that is answered at once may ask again: so often in one turn, and then others have
    /// theirs.
    fn drain_node(&mut self, now: Now) -> bool {
        for _ in 0..ROUNDS_PER_TURN {
            while let Some(ready) = self.node.ready() {
                self.send(ready.messages);
                if let Some((write, token)) = ready.write {
                    // Followers write at the same time.
                    self.hand_over();
                    self.disk.give(Job::Write(write, token));
                    self.settle_disk();
                }
                for output in ready.outputs {
                    self.desk.deliver(output, &mut self.node, now.mono);
                }
                if !ready.garbage.is_empty() {
                    let chore = Chore::Drop(ready.garbage);
                    self.housework.push(Housework { chore });
                }
            }
            if self.node.is_blocked() || !self.desk.pump(&mut self.node) {
                return false;
            }
        }
        true
    }

    /// Takes what the disk has done. Returns whether the node has to be drained.
    fn settle_disk(&mut self) -> bool {
        let mut settled = false;
        for end in self.disk.ended() {
            settled = true;
            match end {
                End::Durable(token) => {
                    if let Ok(messages) = self.node.persisted(token) {
                        self.send(messages);
                    }
                }
                End::Failed(token, why) => self.node.failed(token, why),
                End::Broken(why) => self.node.disk_failed(why),
                End::Chore(chore) => {
                    self.chores_out += 1;
                    let chore = Chore::Log(chore);
                    self.housework.push(Housework { chore });
                }
            }
        }
        settled
    }

    fn send(&mut self, messages: Vec<crate::node::Message>) {
        for message in messages {
            self.transport.send(message);
        }
    }

    /// Shares the tree with readers, as long as there are any: sharing makes writes dearer.
    fn publish(&mut self, now: Duration) {
        let published = &self.shared.published;
        if published.take_wanted() {
            self.publish_until = Some(now.saturating_add(self.tick_interval * PUBLISH_TICKS));
        }
        match self.publish_until {
            None => {}
            Some(until) if now < until && !self.node.is_quarantined() => {
                drop(published.publish(Some(self.node.view())))
            }
            Some(_) => {
                self.publish_until = None;
                drop(published.publish(None));
            }
        }
    }

    /// Reading back what is at rest is the least urgent: only when nothing else is to be done.
    fn scrub(&mut self, now: Duration) {
        if now < self.next_scrub || self.chores_out > 0 {
            return;
        }
        self.next_scrub = now.saturating_add(SCRUB_INTERVAL);
        self.disk.give(Job::Scrub);
    }

    fn end_with_node(&mut self) {
        if let Some(ended) = self.node.ended() {
            let why = ended.to_string();
            self.end(&why);
        }
    }

    /// Answers everything, and takes nothing more.
    fn end(&mut self, why: &str) {
        self.over = true;
        self.shared.mailbox.close(why);
        self.shared.published.publish(None);
        let left = std::mem::take(&mut self.arrivals);
        for call in left.calls {
            let (why, submitted) = (why.to_owned(), false);
            call.refuse(crate::client::Error::Closed { why, submitted });
        }
        self.desk.end(why);
    }

    fn done(&mut self, more: bool, now: Duration) -> Turn {
        let next_tick = match self.node.is_blocked() {
            // There is nothing to do before the disk is done, and that is news of its own.
            true => self.next_tick.max(now.saturating_add(self.tick_interval)),
            false => self.next_tick,
        };
        Turn {
            more,
            next_tick,
            housework: std::mem::take(&mut self.housework),
            ended: self.node.ended().cloned(),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if !self.over {
            self.end(match std::thread::panicking() {
                true => "a panic ended the node: see the standard error of the process",
                false => "the node was stopped",
            });
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("id", &self.id)
            .field("next_tick", &self.next_tick)
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}

/// Sixteen bytes from the system.
fn random_bytes() -> Result<[u8; 16], String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// Frames that one turn takes.
const FRAMES_PER_TURN: usize = 4096;
/// Times that recipes are answered in one turn.
const ROUNDS_PER_TURN: usize = 64;
/// Requests that one turn takes.
const CALLS_PER_TURN: usize = 8192;
/// From one scrub, of at most 4 MiB, to the next; also how often a full disk is tried again.
const SCRUB_INTERVAL: Duration = Duration::from_secs(1);
/// For how many ticks views are published after the last one was read.
const PUBLISH_TICKS: u32 = 4;
