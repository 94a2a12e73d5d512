//! Handles of a running node: cheap to clone, usable from any thread, with no thread of their own.
//!
//! Each call returns a [`Completion`] at once. Wait for it ([`Completion::wait`]), or await it on
//! any runtime. Everything that waits ends: when the node stops or ends, with [`Error::Closed`].
//!
//! A [`Client`] writes outside any session: such a write has no identity for a retry, and after a
//! failure nobody may know its outcome. A [`Session`] writes exactly once and in order, and owns
//! ephemeral nodes, locks and leaderships.

pub(crate) mod call;
pub(crate) mod completion;
mod error;
pub(crate) mod lease;
pub(crate) mod mailbox;
pub(crate) mod recipe;
pub(crate) mod session;
pub(crate) mod watcher;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    client::{call::Call, completion::Promise, mailbox::Mailbox, watcher::Stream},
    id::{NodeId, Secret, Zxid},
    namespace::View,
    node::{Consistency, Image, Read, ReadOp, ReadOutcome, Request, Status},
    op::{CreateMode, Filter, Op, Outcome, Stat, Txn},
    path::{Path, PathPrefix},
};

pub use completion::Completion;
pub use error::Error;
pub use lease::{Lease, LeaseState};
pub use recipe::{Acquire, LeaderGuard, LockGuard};
pub use session::{Session, SessionKey};
pub use watcher::{Changes, Observation, Watcher};

/// A handle of one node; see the [module](self).
///
/// ```no_run
/// # fn example(client: quorate::client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use quorate::{CreateMode, node::Consistency};
/// let path = "/config".parse()?;
/// client.create(&path, "v1", CreateMode::Persistent).wait()?;
/// let (data, stat) = client.get(&path, Consistency::Linearizable).wait()?;
/// client.set(&path, "v2", Some(stat.version)).wait()?; // only if nobody was faster
/// # drop(data);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

/// What the handles of a node share with its host.
pub(crate) struct Shared {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) clock: Clock,
    pub(crate) published: Published,
    next_id: AtomicU64,
}

/// What a write did.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Written {
    /// The cluster's zxid after it; a read elsewhere with [`Consistency::AtLeast`] sees it.
    pub zxid: Zxid,
    /// What it did.
    pub outcome: Outcome,
}

impl Written {
    /// The path of the node that was made.
    pub fn path(&self) -> Option<&Path> {
        match &self.outcome {
            Outcome::Created { path, .. } => Some(path),
            _ => None,
        }
    }

    /// The stat of the node that was made or set.
    pub fn stat(&self) -> Option<&Stat> {
        match &self.outcome {
            Outcome::Created { stat, .. } | Outcome::Set { stat } => Some(stat),
            _ => None,
        }
    }
}

/// What a read found.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// The zxid at which the tree was read.
    pub zxid: Zxid,
    /// What was found.
    pub outcome: ReadOutcome,
}

impl Client {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Submits a transaction outside any session.
    pub fn txn(&self, txn: Txn) -> Completion<Written> {
        self.ask(|promise| Call::Txn { txn, promise })
    }

    /// Makes a node; an ephemeral one needs a [`Session`].
    pub fn create(
        &self,
        path: &Path,
        data: impl Into<Bytes>,
        mode: CreateMode,
    ) -> Completion<Written> {
        self.txn(create(path.clone().into(), data.into(), mode))
    }

    /// Replaces a node's data; if given, only at this version.
    pub fn set(
        &self,
        path: &Path,
        data: impl Into<Bytes>,
        version: Option<u64>,
    ) -> Completion<Written> {
        self.txn(set(path, data.into(), version))
    }

    /// Removes a node without children; if given, only at this version.
    pub fn delete(&self, path: &Path, version: Option<u64>) -> Completion<Written> {
        self.txn(delete(path, version))
    }

    /// Looks at the tree.
    pub fn read(&self, op: ReadOp, consistency: Consistency) -> Completion<Answer> {
        self.read_any(Read { session: None, op, consistency })
    }

    /// A node's data and stat.
    pub fn get(&self, path: &Path, consistency: Consistency) -> Completion<(Bytes, Stat)> {
        let path = path.clone();
        self.ask(|promise| Call::Get { path, consistency, promise })
    }

    /// A node's stat, or `None` if there is no such node.
    pub fn exists(&self, path: &Path, consistency: Consistency) -> Completion<Option<Stat>> {
        let path = path.clone();
        self.ask(|promise| Call::Exists { path, consistency, promise })
    }

    /// Watches, from now on or from after the transaction `from`. What was read at or before
    /// `from` and the changes of the watch have no gap between them; it waits until this member has
    /// applied `from`.
    pub fn watch(&self, filter: Filter, from: Option<Zxid>) -> Completion<Watcher> {
        self.ask(|promise| Call::Watch { filter, from, buffer: WATCH_BUFFER, promise })
    }

    /// Follows an election of any layout.
    pub fn observe(&self, path: &Path) -> Observation {
        let cell = Arc::new(Stream::new());
        let id = self.next_id();
        self.call(Call::Observe { id, path: path.clone(), cell: Arc::clone(&cell) });
        Observation::new(id, cell, Arc::clone(&self.shared.mailbox))
    }

    /// Opens a session that lives for `ttl` without renewal; the handle renews it.
    pub fn open_session(&self, ttl: Duration) -> Completion<Session> {
        self.ask(|promise| Call::Open { secret: None, ttl, promise })
    }

    /// Opens a session with a secret of one's own, which nobody else may guess: 16 random bytes.
    ///
    /// When the outcome is unknown, the same call with the same secret at the same node gives the
    /// session that was opened, or opens it. One that is given up ends by itself.
    pub fn open_session_with(&self, secret: Secret, ttl: Duration) -> Completion<Session> {
        self.ask(|promise| Call::Open { secret: Some(secret), ttl, promise })
    }

    /// Attaches a session that was left by [`Session::leave`], or that another process opened. The
    /// epoch must be greater than that of every earlier attachment; whoever has it elsewhere loses
    /// it there.
    ///
    /// ```no_run
    /// # fn example(here: quorate::client::Session, there: quorate::client::Client)
    /// # -> Result<(), Box<dyn std::error::Error>> {
    /// use quorate::client::SessionKey;
    /// let key = here.leave();
    /// let next = SessionKey::new(key.session, key.secret, key.epoch + 1);
    /// let session = there.attach(next).wait()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn attach(&self, key: SessionKey) -> Completion<Session> {
        let SessionKey { session, secret, epoch } = key;
        self.ask(|promise| Call::Attach { session, secret, epoch, promise })
    }

    /// The node's tree, frozen, at most one turn old. While somebody asks, each turn publishes
    /// one, and the answer is there at once; the first to ask waits for a turn.
    pub fn view(&self) -> Completion<View> {
        if let Some(view) = self.shared.published.view() {
            return Completion::ready(Ok(view));
        }
        self.ask(Call::View)
    }

    /// The whole state as the node has applied it, frozen, to be compared with other members'.
    pub fn image(&self) -> Completion<Image> {
        self.ask(Call::Image)
    }

    /// What the node knows of itself and its cluster.
    pub fn status(&self) -> Completion<Status> {
        self.ask(Call::Status)
    }

    /// Adds a learner, with an id that was never used. The node must be the leader.
    pub fn add_learner(&self, id: NodeId) -> Completion<()> {
        self.change(Request::AddLearner(id))
    }

    /// Makes a learner that has caught up a voter. The node must be the leader.
    pub fn promote(&self, id: NodeId) -> Completion<()> {
        self.change(Request::Promote(id))
    }

    /// Removes a member for ever. The node must be the leader, and another one.
    pub fn remove(&self, id: NodeId) -> Completion<()> {
        self.change(Request::Remove(id))
    }

    /// Starts to hand the leadership to another voter. The node must be the leader.
    pub fn transfer_leader(&self, to: NodeId) -> Completion<()> {
        self.ask(|promise| Call::Transfer { to, promise })
    }

    /// The clock by which sessions and guards are measured: it goes on while the machine sleeps,
    /// where the platform can tell.
    pub fn now(&self) -> Duration {
        self.shared.clock.now()
    }

    pub(crate) fn read_any(&self, read: Read) -> Completion<Answer> {
        self.ask(|promise| Call::Read { read, promise })
    }

    /// Makes a call that is answered.
    pub(crate) fn ask<T>(&self, call: impl FnOnce(Promise<T>) -> Call) -> Completion<T> {
        let (completion, promise) = Completion::pair();
        self.call(call(promise));
        completion
    }

    pub(crate) fn call(&self, call: Call) {
        self.shared.mailbox.call(call);
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.shared.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.shared.mailbox
    }

    fn change(&self, request: Request) -> Completion<()> {
        self.ask(|promise| Call::Member { request, promise })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(mailbox: Arc<Mailbox>, clock: Clock) -> Self {
        Self { mailbox, clock, published: Published::default(), next_id: AtomicU64::new(1) }
    }
}

/// The monotonic clock of the handles: the same as the one of the node's ticks.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Duration + Send + Sync>);

impl Clock {
    /// The clock that this function reads; it must never go back, and may only run fast.
    ///
    /// ```
    /// use std::time::Duration;
    /// let stopped = quorate::client::Clock::new(|| Duration::from_secs(7));
    /// assert_eq!(stopped.now(), Duration::from_secs(7));
    /// ```
    pub fn new(read: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// What it shows.
    pub fn now(&self) -> Duration {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({:?})", self.now())
    }
}

/// The newest view, while somebody reads it: sharing the tree makes each write dearer.
#[derive(Default)]
pub(crate) struct Published {
    view: Mutex<Option<View>>,
    wanted: AtomicBool,
}

impl Published {
    fn view(&self) -> Option<View> {
        if !self.wanted.load(Ordering::Relaxed) {
            self.wanted.store(true, Ordering::Relaxed);
        }
        self.view.lock().clone()
    }

    /// Whether somebody has read since the last call.
    pub(crate) fn take_wanted(&self) -> bool {
        self.wanted.swap(false, Ordering::Relaxed)
    }

    /// Replaces the view, and gives back the old one to be dropped outside the lock.
    pub(crate) fn publish(&self, view: Option<View>) -> Option<View> {
        std::mem::replace(&mut *self.view.lock(), view)
    }
}

pub(crate) fn create(path: PathPrefix, data: Bytes, mode: CreateMode) -> Txn {
    Txn::new(Op::Create { path, data, mode, acl: None })
}

pub(crate) fn set(path: &Path, data: Bytes, version: Option<u64>) -> Txn {
    let path = path.clone();
    Txn::new(Op::Set { path, data, version })
}

pub(crate) fn delete(path: &Path, version: Option<u64>) -> Txn {
    let path = path.clone();
    Txn::new(Op::Delete { path, version })
}

/// Events that a watch's buffer holds.
const WATCH_BUFFER: u32 = 1024;
