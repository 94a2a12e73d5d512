//! Handles of the lock and the election.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    client::{Completion, Error, Session, Written, call::Call},
    id::Zxid,
    mutant::Mutant,
    node::RequestError,
    op::{Check, Guard, Op, OpError, Txn},
    path::Path,
    recipes::State,
};

/// A wait for a lock or for the leadership. Dropping it gives up the place in the queue.
///
/// ```no_run
/// # fn example(session: quorate::client::Session) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// match session.lock(&"/locks/a".parse()?).wait_timeout(Duration::from_secs(5))? {
///     Some(guard) => println!("held with token {}", guard.token()),
///     None => println!("somebody else holds it; we no longer wait"),
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping it gives up the place in the queue"]
pub struct Acquire<T> {
    completion: Completion<T>,
    place: Option<Place>,
}

impl<T> Acquire<T> {
    pub(crate) fn new(completion: Completion<T>, place: Place) -> Self {
        Self { completion, place: Some(place) }
    }

    /// Blocks until the turn has come, and the lock or the leadership is held.
    ///
    /// # Errors
    ///
    /// When the place was lost, the session or the node has ended, or the cluster refused it.
    pub fn wait(mut self) -> Result<T, Error> {
        let result = std::mem::replace(&mut self.completion, Completion::ready(Err(Error::Taken)));
        let result = result.wait();
        self.keep();
        result
    }

    /// Blocks until the turn has come, at most for `timeout`; then it gives up, and the place in
    /// the queue is removed.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(mut self, timeout: Duration) -> Result<Option<T>, Error> {
        match self.completion.wait_timeout(timeout) {
            Some(result) => {
                self.keep();
                result.map(Some)
            }
            None => Ok(None),
        }
    }

    /// What it waited for, if the turn has come; `None` also when it was taken before.
    pub fn try_take(&mut self) -> Option<Result<T, Error>> {
        let result = self.completion.try_take()?;
        self.keep();
        Some(result)
    }

    /// How many were before it when the host last looked, or `None` before the first look and
    /// once the turn has come.
    pub fn ahead(&self) -> Option<usize> {
        match self.place.as_ref()?.cell.phase.lock().clone() {
            PlacePhase::Waiting(ahead) => ahead,
            _ => None,
        }
    }

    /// From here on the guard gives the place up.
    fn keep(&mut self) {
        if let Some(mut place) = self.place.take() {
            place.given_up = true;
        }
    }
}

impl<T> Future for Acquire<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = Pin::new(&mut self.completion).poll(cx);
        if result.is_ready() {
            self.keep();
        }
        result
    }
}

impl<T> fmt::Debug for Acquire<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire").field("place", &self.place).finish()
    }
}

/// A lock that was acquired. Dropping it releases the lock, without blocking.
///
/// Before each step that only the holder may take, ask [`state`](Self::state), or put the step
/// into a transaction of [`txn`](Self::txn), which the cluster refuses once the lock is another's.
/// A system outside of the cluster is fenced by the token: hand it
/// [`token`](Self::token)`.as_u64()` with each request, and let it refuse a smaller one than it has
/// seen.
///
/// ```no_run
/// # fn example(session: quorate::client::Session) -> Result<(), Box<dyn std::error::Error>> {
/// use quorate::{Op, recipes::State};
/// let guard = session.lock(&"/locks/a".parse()?).wait()?;
/// while let State::Held { token, .. } = guard.state() {
///     println!("working under token {token}");
///     let path = "/work".parse()?;
///     guard.txn(Op::Set { path, data: "done".into(), version: None }.into()).wait()?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping it releases the lock"]
pub struct LockGuard {
    held: Held,
}

/// The leadership of an election. Dropping it resigns, without blocking.
///
/// ```no_run
/// # fn example(session: quorate::client::Session) -> Result<(), Box<dyn std::error::Error>> {
/// let leader = session.campaign(&"/app/leader".parse()?, "10.0.0.1:4000").wait()?;
/// leader.proclaim("10.0.0.1:4001").wait()?;
/// leader.resign().wait()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping it resigns"]
pub struct LeaderGuard {
    held: Held,
}

impl LockGuard {
    pub(crate) fn new(held: Held) -> Self {
        Self { held }
    }

    /// Whether the lock is still held, by the clock of [`Client::now`]: decided here, with no
    /// packet. Never [`State::Held`] when another can hold it, as long as this handle and its
    /// clones alone decide over the session. What somebody else does with its secret, or who
    /// deletes the lock's own node, shows only once this member has applied it: against that
    /// [`fence`](Self::fence) each step.
    ///
    /// [`Client::now`]: crate::client::Client::now
    pub fn state(&self) -> State {
        self.held.state()
    }

    /// The fencing token: grows with each holder. Hand it to whatever the lock protects.
    pub fn token(&self) -> Zxid {
        self.held.token
    }

    /// A guard for transactions: it holds as long as the lock is this holder's.
    pub fn fence(&self) -> Guard {
        self.held.fence()
    }

    /// Submits a transaction that changes nothing once the lock is another's.
    pub fn txn(&self, txn: Txn) -> Completion<Written> {
        self.held.txn(txn)
    }

    /// Releases the lock; answered when the own node is gone.
    pub fn release(self) -> Completion<()> {
        self.held.give_up()
    }
}

impl LeaderGuard {
    pub(crate) fn new(held: Held) -> Self {
        Self { held }
    }

    /// Whether it still leads, by the clock of [`Client::now`]: decided here, with no packet.
    /// Never [`State::Held`] when another can lead, as long as this handle and its clones alone
    /// decide over the session. What somebody else does with its secret, or who deletes the
    /// leader's own node, shows only once this member has applied it: against that
    /// [`fence`](Self::fence) each step.
    ///
    /// [`Client::now`]: crate::client::Client::now
    pub fn state(&self) -> State {
        self.held.state()
    }

    /// The fencing token: grows with each leader.
    pub fn token(&self) -> Zxid {
        self.held.token
    }

    /// A guard for transactions: it holds as long as this is the leader.
    pub fn fence(&self) -> Guard {
        self.held.fence()
    }

    /// Submits a transaction that changes nothing once another leads.
    pub fn txn(&self, txn: Txn) -> Completion<Written> {
        self.held.txn(txn)
    }

    /// Replaces the proposal that observers see; changes nothing once another leads.
    pub fn proclaim(&self, proposal: impl Into<Bytes>) -> Completion<Written> {
        self.held.txn(Txn::new(Op::Set {
            path: self.held.path.clone(),
            data: proposal.into(),
            version: None,
        }))
    }

    /// Resigns; answered when the own node is gone.
    pub fn resign(self) -> Completion<()> {
        self.held.give_up()
    }
}

/// A place in a queue that has become first.
#[derive(Debug)]
pub(crate) struct Held {
    place: Place,
    path: Path,
    token: Zxid,
}

impl Held {
    pub(crate) fn new(place: Place, path: Path, token: Zxid) -> Self {
        Self { place, path, token }
    }

    fn state(&self) -> State {
        let session = self.place.session.cell();
        let token = self.token;
        // A session that is closed, or left to be attached elsewhere, may be over there before this
        // member hears of it.
        if session.over().is_some() || session.is_closing() {
            return State::Lost;
        }
        match &*self.place.cell.phase.lock() {
            PlacePhase::Held => {}
            PlacePhase::Left => return State::Idle,
            _ => return State::Lost,
        }
        // The clock is read after everything else: it may only be late.
        let until = session.until();
        let sure = Mutant::HeldPastLease.active();
        match self.place.session.client().now() < until || sure {
            true => State::Held { token, until },
            false => State::Suspended { token },
        }
    }

    fn fence(&self) -> Guard {
        Guard { path: self.path.clone(), check: Check::Czxid(self.token) }
    }

    fn txn(&self, txn: Txn) -> Completion<Written> {
        self.place.session.txn(txn.guard(self.fence()))
    }

    fn give_up(mut self) -> Completion<()> {
        self.place.given_up = true;
        let cell = Arc::clone(&self.place.cell);
        let release = |promise| Call::Release { cell, promise: Some(promise) };
        self.place.session.client().ask(release)
    }
}

/// A place in a queue; given up when it is dropped.
pub(crate) struct Place {
    cell: Arc<PlaceCell>,
    session: Session,
    given_up: bool,
}

impl Place {
    pub(crate) fn new(cell: Arc<PlaceCell>, session: Session) -> Self {
        Self { cell, session, given_up: false }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.given_up {
            let cell = Arc::clone(&self.cell);
            let promise = None;
            self.session.client().call(Call::Release { cell, promise });
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cell.fmt(f)
    }
}

/// What the host and the handle of one place share.
#[derive(Debug)]
pub(crate) struct PlaceCell {
    pub(crate) id: u64,
    phase: Mutex<PlacePhase>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum PlacePhase {
    Waiting(Option<usize>),
    Held,
    Lost,
    Left,
    Failed(OpError),
}

impl PlaceCell {
    pub(crate) fn new(id: u64) -> Self {
        Self { id, phase: Mutex::new(PlacePhase::Waiting(None)) }
    }

    pub(crate) fn set(&self, phase: PlacePhase) {
        *self.phase.lock() = phase;
    }
}

impl PlacePhase {
    /// Why a wait has ended without success.
    pub(crate) fn error(&self) -> Error {
        match self {
            Self::Failed(error) => Error::Request(RequestError::Op(error.clone())),
            _ => Error::PlaceLost,
        }
    }
}
