//! A session: a lease with a client on it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;

use crate::{
    client::{
        Acquire, Answer, Client, Completion, Error, Lease, Watcher, Written,
        answer::ReadPromise,
        call::Call,
        calls::{WATCH_BUFFER, calls},
        completion::{Adopt, Promise},
        recipe::{LeaderGuard, LockGuard, Place, PlaceCell},
    },
    id::{LeaseId, Secret, SessionId, Zxid},
    namespace::{Past, View},
    node::{Caller, Consistency, Detach, Read, ReadOp, Watch},
    op::{Acl, CreateMode, Filter, List, Op, Owned, Page, Quota, Stat, Txn, Usage},
    path::{Path, PathPrefix},
    recipes::Layout,
    time::as_micros,
};

/// A session, kept alive as long as any clone of this handle, or any guard made with it, lives.
///
/// Writes take effect exactly once and in the order in which they were submitted, even while
/// leaders change. After one that the node or its inbox refused, later ones are withheld until the
/// application has looked at its answer, so what took effect is a prefix of what was submitted. One
/// whose outcome is unknown, because no answer came in time, keeps its place and is sent on: it
/// takes effect once, or not at all if the session ends first, and later ones after it. A read of
/// the session waits for the writes before it, so it tells what became of them.
///
/// When a session has expired ([`over`](Self::over)), its ephemeral nodes, locks and leaderships
/// are gone, and so is everything that was made on the strength of them: open another one, register
/// and contend anew. Nothing carries over.
///
/// Dropping the last handle closes the session, and its ephemeral nodes go; it never blocks. To
/// let the session live on and attach it elsewhere, use [`leave`](Self::leave).
///
/// ```no_run
/// # fn example(client: quorate::client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use quorate::CreateMode;
/// let session = client.open_session(Duration::from_secs(10)).wait()?;
/// session.create(&"/here/me".parse()?, "10.0.0.1", CreateMode::Ephemeral).wait()?;
/// let guard = session.lock(&"/locks/a".parse()?).wait()?;
/// println!("held with token {}", guard.token());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Session {
    handle: Arc<SessionHandle>,
}

/// What it takes to attach a session elsewhere. Keep the secret as you would a password.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SessionKey {
    /// The session.
    pub session: SessionId,
    /// Proves that it is yours.
    pub secret: Secret,
    /// The newest attachment; the next one needs a greater epoch.
    pub epoch: u64,
}

impl Session {
    pub(crate) fn new(cell: Arc<SessionCell>, client: Client) -> Self {
        Self { handle: Arc::new(SessionHandle { cell, client }) }
    }

    /// Submits a transaction.
    ///
    /// What it reads, it reads after all writes that this session has submitted before; so do the
    /// other calls that read, and they see what the session may.
    pub fn txn(&self, txn: Txn) -> Completion<Written> {
        let session = Arc::clone(&self.handle.cell);
        let generation = session.generation.load(Ordering::Acquire);
        self.client().ask(|promise| Call::SessionTxn { session, generation, txn, promise })
    }

    calls!();

    /// Grants the session a lease beside its own, which lives for `ttl` without renewal; the handle
    /// renews it. The lease says what was granted, within the bounds of the cluster.
    pub fn grant_lease(&self, ttl: Duration) -> Completion<Lease> {
        let session = self.clone();
        let generation = session.cell().generation.load(Ordering::Acquire);
        self.client().ask(|promise| Call::Grant { session, generation, ttl, promise })
    }

    /// A handle of a lease that the session was granted before it was attached here. Nothing is
    /// promised before its first renewal: see [`Lease::state`].
    pub fn lease(&self, lease: LeaseId) -> Completion<Lease> {
        let session = self.clone();
        self.client().ask(|promise| Call::KeepLease { session, lease, promise })
    }

    /// The node's tree, frozen, at most one turn old, as the session may see it; see
    /// [`Client::view`]. It does not wait for what the session has submitted.
    pub fn view(&self) -> Completion<View> {
        let (id, epoch) = (self.id(), self.handle.cell.epoch.load(Ordering::Acquire));
        let published = self.client().published_view();
        // One that is older than the session cannot tell who it is.
        match published.and_then(|view| view.seen_by_session(id, epoch).ok()) {
            Some(view) => Completion::ready(Ok(view)),
            None => {
                let caller = self.caller();
                self.ask(|promise| Call::View { caller, promise })
            }
        }
    }

    /// Waits for the fair lock at `path`, in Curator's layout. It is not reentrant: a second call
    /// waits for the first, of the same session too. See [`lock_with`](Self::lock_with).
    pub fn lock(&self, path: &Path) -> Acquire<LockGuard> {
        self.lock_with(Layout::Curator, path, Bytes::new())
    }

    /// Waits for the fair lock at `path`: first come, first served. Missing parents are made.
    /// Others can read `data`, which should say who waits.
    ///
    /// Dropping the result gives up the wait.
    pub fn lock_with(
        &self,
        layout: Layout,
        path: &Path,
        data: impl Into<Bytes>,
    ) -> Acquire<LockGuard> {
        let (path, data) = (path.clone(), data.into());
        self.acquire(|session, cell, promise| Call::Lock {
            session,
            layout,
            path,
            data,
            cell,
            promise,
        })
    }

    /// Stands for election at `path`, in Curator's `LeaderLatch` layout. A lock and an election
    /// need paths of their own, for they would wait for each other. See
    /// [`campaign_with`](Self::campaign_with).
    pub fn campaign(&self, path: &Path, proposal: impl Into<Bytes>) -> Acquire<LeaderGuard> {
        self.campaign_with(Layout::Curator, path, proposal)
    }

    /// Stands for election at `path`: who has waited longest leads. Missing parents are made.
    /// `proposal` is what [observers](Client::observe) see.
    ///
    /// Dropping the result gives up the candidacy.
    pub fn campaign_with(
        &self,
        layout: Layout,
        path: &Path,
        proposal: impl Into<Bytes>,
    ) -> Acquire<LeaderGuard> {
        let (path, proposal) = (path.clone(), proposal.into());
        self.acquire(|session, cell, promise| Call::Campaign {
            session,
            layout,
            path,
            proposal,
            cell,
            promise,
        })
    }

    /// Ends the session after everything submitted before; its ephemeral nodes go.
    pub fn close(self) -> Completion<()> {
        let session = Arc::clone(&self.handle.cell);
        session.closing.store(1, Ordering::Release);
        self.client().ask(|promise| Call::Close { session, promise: Some(promise) })
    }

    /// Stops keeping the session alive, and leaves it to be attached elsewhere before its time to
    /// live is over.
    pub fn leave(self) -> SessionKey {
        let cell = &self.handle.cell;
        cell.closing.store(1, Ordering::Release);
        self.client().call(Call::Leave(Arc::clone(cell)));
        self.key()
    }

    /// How long it lives without a keep-alive: what was granted, which is what was asked for within
    /// the bounds of the cluster.
    pub fn ttl(&self) -> Duration {
        self.handle.cell.ttl
    }

    /// The session.
    pub fn id(&self) -> SessionId {
        self.handle.cell.id
    }

    /// What it takes to attach it elsewhere.
    pub fn key(&self) -> SessionKey {
        let cell = &self.handle.cell;
        SessionKey {
            session: cell.id,
            secret: cell.secret,
            epoch: cell.epoch.load(Ordering::Acquire),
        }
    }

    /// The moment, on the clock of [`Client::now`], before which the session cannot end. Moves on
    /// with each renewal that the cluster acknowledged.
    pub fn until(&self) -> Duration {
        self.handle.cell.until()
    }

    /// Why the session is over, once that is known.
    pub fn over(&self) -> Option<Detach> {
        self.handle.cell.over()
    }

    /// The client that it was made with. What is asked of that one is outside the session, with the
    /// same identities.
    pub fn client(&self) -> &Client {
        &self.handle.client
    }

    pub(crate) fn cell(&self) -> &Arc<SessionCell> {
        &self.handle.cell
    }

    fn caller(&self) -> Caller {
        Caller::Session(self.id())
    }

    fn ask<T>(&self, call: impl FnOnce(Promise<T>) -> Call) -> Completion<T> {
        match self.cell().over_error() {
            Some(over) => Completion::ready(Err(over)),
            None => self.client().ask(call),
        }
    }

    /// Takes a place in a queue; the call that asks for it is made of its parts.
    fn acquire<T>(
        &self,
        call: impl FnOnce(Self, Arc<PlaceCell>, Promise<T>) -> Call,
    ) -> Acquire<T> {
        let cell = Arc::new(PlaceCell::new(self.client().next_id()));
        let place = Place::new(Arc::clone(&cell), self.clone());
        let completion = self.client().ask(|promise| call(self.clone(), cell, promise));
        Acquire::new(completion, place)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.handle.cell.fmt(f)
    }
}

struct SessionHandle {
    cell: Arc<SessionCell>,
    client: Client,
}

impl Drop for SessionHandle {
    fn drop(&mut self) {
        if self.cell.closing.swap(1, Ordering::AcqRel) == 0 && self.cell.over().is_none() {
            let session = Arc::clone(&self.cell);
            let promise = None;
            self.client.call(Call::Close { session, promise });
        }
    }
}

/// What the host and the handles of one session share.
pub(crate) struct SessionCell {
    pub(crate) id: SessionId,
    pub(crate) secret: Secret,
    pub(crate) ttl: Duration,
    pub(crate) epoch: AtomicU64,
    /// What the application has seen of the host's refusals; see there.
    pub(crate) generation: Arc<AtomicU64>,
    /// Writes that the inbox refused, and how many of these refusals the application has seen.
    overflows: AtomicU64,
    overflows_seen: Arc<AtomicU64>,
    until_us: AtomicU64,
    /// 0, or why it is over.
    over: AtomicU8,
    /// 1 once a handle has closed or left it.
    closing: AtomicU8,
}

impl SessionCell {
    pub(crate) fn new(key: SessionKey, ttl: Duration, until: Duration) -> Self {
        Self {
            id: key.session,
            secret: key.secret,
            ttl,
            epoch: AtomicU64::new(key.epoch),
            generation: Arc::default(),
            overflows: AtomicU64::new(0),
            overflows_seen: Arc::default(),
            until_us: AtomicU64::new(as_micros(until)),
            over: AtomicU8::new(0),
            closing: AtomicU8::new(0),
        }
    }

    /// The inbox has refused a write: to be called under its lock.
    pub(crate) fn overflow(&self) -> Adopt {
        let generation = self.overflows.fetch_add(1, Ordering::AcqRel) + 1;
        Adopt { handle: Arc::clone(&self.overflows_seen), generation }
    }

    /// Whether a write is withheld, for the application has not seen that the inbox refused an
    /// earlier one.
    pub(crate) fn has_unseen_overflow(&self) -> bool {
        self.overflows_seen.load(Ordering::Acquire) < self.overflows.load(Ordering::Acquire)
    }

    /// Whether a handle has closed or left it: then another can have what it held.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire) != 0
    }

    pub(crate) fn renew(&self, until: Duration) {
        self.until_us.fetch_max(as_micros(until), Ordering::AcqRel);
    }

    pub(crate) fn end(&self, cause: Detach) {
        let code = match cause {
            Detach::Closed => 1,
            Detach::Expired => 2,
            Detach::Moved => 3,
        };
        let _ = self.over.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
    }

    pub(crate) fn until(&self) -> Duration {
        Duration::from_micros(self.until_us.load(Ordering::Acquire))
    }

    pub(crate) fn over(&self) -> Option<Detach> {
        match self.over.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Detach::Closed),
            2 => Some(Detach::Expired),
            _ => Some(Detach::Moved),
        }
    }

    /// What a write gets once the session is over.
    pub(crate) fn over_error(&self) -> Option<Error> {
        let session = self.id;
        self.over().map(|cause| Error::SessionOver { session, cause })
    }
}

impl fmt::Debug for SessionCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("epoch", &self.epoch)
            .field("until", &self.until())
            .field("over", &self.over())
            .finish()
    }
}

impl SessionKey {
    /// The key with these parts.
    pub fn new(session: SessionId, secret: Secret, epoch: u64) -> Self {
        Self { session, secret, epoch }
    }
}
