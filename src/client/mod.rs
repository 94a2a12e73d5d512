//! Handles of a running node: cheap to clone, usable from any thread, with no thread of their own.
//!
//! Each call returns a [`Completion`] at once. Wait for it ([`Completion::wait`]), or await it on
//! any runtime. Everything that waits ends: when the node stops or ends, with [`Error::Closed`].
//!
//! A [`Client`] writes outside any session: such a write has no identity for a retry, and after a
//! failure nobody may know its outcome. A [`Session`] writes exactly once and in order, and owns
//! ephemeral nodes, locks and leaderships.
//!
//! What a handle may do and see is what its identities may, which the application hands in and this
//! library does not check: [`Client::with_identities`]. A session has those of the client that
//! opened or attached it. A client without any is the world.

pub(crate) mod answer;
pub(crate) mod call;
mod calls;
pub(crate) mod completion;
mod error;
pub(crate) mod gateway;
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
    client::{
        answer::ReadPromise,
        call::Call,
        calls::{WATCH_BUFFER, calls},
        completion::Promise,
        mailbox::Mailbox,
        watcher::Stream,
    },
    id::{LeaseId, NodeId, Secret, Zxid},
    namespace::{Past, View},
    node::{Caller, Consistency, Image, Read, ReadOp, Request, Status, Watch},
    op::{
        Acl, CreateMode, Filter, Identities, List, Op, Outcome, Owned, Page, Quota, Stat, Txn,
        Usage,
    },
    path::{Path, PathPrefix},
};

pub use answer::Answer;
pub use completion::Completion;
pub use error::Error;
pub use gateway::{Ask, Gateway, GuestAnswer, Told};
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
    who: Identities,
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

    /// The stat of the node that was made or set, or whose list was.
    pub fn stat(&self) -> Option<&Stat> {
        match &self.outcome {
            Outcome::Created { stat, .. } | Outcome::Set { stat } | Outcome::AclSet { stat } => {
                Some(stat)
            }
            _ => None,
        }
    }
}

impl Client {
    pub(crate) fn new(shared: Arc<Shared>, who: Identities) -> Self {
        Self { shared, who }
    }

    /// The same node, for somebody with these identities; they replace those of this handle.
    ///
    /// The application has verified them: whoever has such a handle has their rights, and so have
    /// the sessions that it opens or attaches. They bound what becomes of nodes, and what is seen
    /// of them; members, status and image are for every handle.
    ///
    /// ```no_run
    /// # fn example(client: quorate::client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use quorate::{Acl, CreateMode, DigestId, Identities, Identity};
    /// let ann = Identity::Digest(DigestId::new("ann", "what stands for the password")?);
    /// let ann = client.with_identities(Identities::new([ann])?);
    /// let path = "/ann".parse()?;
    /// ann.create(&path, "", CreateMode::Persistent).wait()?;
    /// ann.set_acl(&path, Acl::creator(), None).wait()?; // nobody else, from here on
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_identities(&self, identities: Identities) -> Self {
        Self { shared: Arc::clone(&self.shared), who: identities }
    }

    /// Who the handle speaks for.
    pub fn identities(&self) -> &Identities {
        &self.who
    }

    /// Submits a transaction outside any session; an ephemeral node needs a [`Session`].
    pub fn txn(&self, txn: Txn) -> Completion<Written> {
        let identities = self.who.clone();
        self.ask(|promise| Call::Txn { identities, txn, promise })
    }

    calls!();

    /// Follows an election of any layout.
    pub fn observe(&self, path: &Path) -> Observation {
        let cell = Arc::new(Stream::new());
        let (id, who) = (self.next_id(), self.who.clone());
        self.call(Call::Observe { id, who, path: path.clone(), cell: Arc::clone(&cell) });
        Observation::new(id, cell, Arc::clone(&self.shared.mailbox))
    }

    /// Opens a session that lives for `ttl` without renewal; the handle renews it. A `ttl` outside
    /// of 2 s to 1 h, or what the cluster's [`Limits`](crate::Limits::session_ttl_min) say, is
    /// moved to that bound: [`Session::ttl`] tells.
    pub fn open_session(&self, ttl: Duration) -> Completion<Session> {
        let identities = self.who.clone();
        self.ask(|promise| Call::Open { secret: None, ttl, identities, promise })
    }

    /// Opens a session with a secret of one's own, which nobody else may guess: 16 random bytes.
    ///
    /// When the outcome is unknown, the same call with the same secret at the same node gives the
    /// session that was opened, or opens it. One that is given up ends by itself. A handle with
    /// other identities than those that the session has is refused
    /// ([`OpError::OtherIdentities`](crate::OpError::OtherIdentities)): it may
    /// [`attach`](Self::attach) it.
    pub fn open_session_with(&self, secret: Secret, ttl: Duration) -> Completion<Session> {
        let identities = self.who.clone();
        self.ask(|promise| Call::Open { secret: Some(secret), ttl, identities, promise })
    }

    /// Attaches a session that was left by [`Session::leave`], or that another process opened. The
    /// epoch must be greater than that of every earlier attachment; whoever has it elsewhere loses
    /// it there. From here on the session has this handle's identities.
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
        let identities = self.who.clone();
        self.ask(|promise| Call::Attach { key, identities, promise })
    }

    /// The node's tree, frozen, at most one turn old, as these identities may see it. While
    /// somebody asks, each turn publishes one, and the answer is there at once; the first to ask
    /// waits for a turn.
    pub fn view(&self) -> Completion<View> {
        if let Some(view) = self.published_view() {
            return Completion::ready(Ok(view.seen_by(self.who.clone())));
        }
        let caller = self.caller();
        self.ask(|promise| Call::View { caller, promise })
    }

    /// The whole state as the node has applied it, frozen, to be compared with other members' or
    /// kept as a backup.
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

    /// The newest view that the host has published, which sees everything.
    pub(crate) fn published_view(&self) -> Option<View> {
        self.shared.published.view()
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

    fn caller(&self) -> Caller {
        Caller::Plain(self.who.clone())
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
