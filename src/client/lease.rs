//! A lease that a session was granted beside its own.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;

use crate::{
    client::{Completion, Session, Written, answer::ReadPromise},
    id::LeaseId,
    node::{Consistency, ReadOp},
    op::{CreateMode, LeaseStat, Op, Owned, Txn},
    path::{Path, PathPrefix},
    time::as_micros,
};

/// A lease, kept alive as long as any clone of this handle lives; it keeps its session open, too.
///
/// Ephemeral nodes that are made with it end with it, all at once: when it is
/// [revoked](Self::revoke), when no keep-alive has reached the cluster for its time to live, or
/// with its session. Dropping the last handle stops the keep-alives, and the lease ends by itself.
///
/// ```no_run
/// # fn example(session: quorate::client::Session) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// let lease = session.grant_lease(Duration::from_secs(5)).wait()?;
/// lease.create(&"/jobs/17/worker".parse()?, "me").wait()?;
/// println!("{:?} of {:?} are left", lease.remaining().wait()?.remaining, lease.ttl());
/// lease.revoke().wait()?; // the node is gone, and the session lives on
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Lease {
    cell: Arc<LeaseCell>,
}

/// Where a [`Lease`] stands, by the clock of its client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LeaseState {
    /// It lives, and its nodes with it.
    Held {
        /// Safe until this moment of the client's clock, with no packet needed.
        until: Duration,
    },
    /// It may have ended: no renewal came in time. One may come yet.
    Suspended,
    /// It has ended, was revoked here, or its session is over here.
    Lost,
}

impl Lease {
    pub(crate) fn new(cell: Arc<LeaseCell>) -> Self {
        Self { cell }
    }

    /// The lease, as nodes name it as their [owner](crate::Stat::owner).
    pub fn id(&self) -> LeaseId {
        self.cell.id
    }

    /// How long it lives without a keep-alive: what was granted, not what was asked for.
    pub fn ttl(&self) -> Duration {
        self.cell.ttl
    }

    /// Its session.
    pub fn session(&self) -> &Session {
        &self.cell.session
    }

    /// The moment, on the clock of [`Client::now`](crate::client::Client::now), before which
    /// neither the lease nor its session can end.
    pub fn until(&self) -> Duration {
        let own = Duration::from_micros(self.cell.until_us.load(Ordering::Acquire));
        own.min(self.cell.session.until())
    }

    /// Where it stands now; asks nobody.
    pub fn state(&self) -> LeaseState {
        let session = self.cell.session.cell();
        if self.cell.is_over() || session.over().is_some() || session.is_closing() {
            return LeaseState::Lost;
        }
        // The clock is read after everything else: it may only be late.
        let until = self.until();
        match self.cell.session.client().now() < until {
            true => LeaseState::Held { until },
            false => LeaseState::Suspended,
        }
    }

    /// Makes a node that ends with the lease.
    pub fn create(&self, path: &Path, data: impl Into<Bytes>) -> Completion<Written> {
        self.cell.session.create(path, data, CreateMode::Leased(self.cell.id))
    }

    /// Makes a node that ends with the lease, its name followed by the parent's next number.
    pub fn create_sequential(
        &self,
        prefix: PathPrefix,
        data: impl Into<Bytes>,
    ) -> Completion<Written> {
        let mode = CreateMode::SequentialLeased(self.cell.id);
        self.cell.session.create_sequential(prefix, data, mode)
    }

    /// What is left of it on the cluster, after all writes that were submitted before.
    pub fn remaining(&self) -> Completion<LeaseStat> {
        let (op, consistency) = (ReadOp::Lease(self.cell.id), Consistency::Linearizable);
        self.cell.session.look(op, consistency, ReadPromise::Lease)
    }

    /// A page of its nodes in path order; see [`Session::owned`].
    pub fn owned(&self, after: Option<&Path>) -> Completion<Owned> {
        self.cell.session.owned(self.cell.id, after, Consistency::Linearizable)
    }

    /// Ends it after everything submitted before; its nodes go.
    pub fn revoke(self) -> Completion<Written> {
        self.cell.end();
        self.cell.session.txn(Txn::new(Op::Revoke { lease: self.cell.id }))
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cell.fmt(f)
    }
}

/// What the handles of one lease share; the host holds it weakly.
pub(crate) struct LeaseCell {
    pub(crate) id: LeaseId,
    pub(crate) ttl: Duration,
    session: Session,
    until_us: AtomicU64,
    /// Whether it has ended, or a handle has revoked it.
    over: AtomicBool,
}

impl LeaseCell {
    pub(crate) fn new(id: LeaseId, ttl: Duration, session: Session, until: Duration) -> Self {
        let (until_us, over) = (AtomicU64::new(as_micros(until)), AtomicBool::new(false));
        Self { id, ttl, session, until_us, over }
    }

    pub(crate) fn renew(&self, until: Duration) {
        self.until_us.fetch_max(as_micros(until), Ordering::AcqRel);
    }

    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Release);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

impl fmt::Debug for LeaseCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("id", &self.id)
            .field("session", &self.session.id())
            .field("over", &self.is_over())
            .finish_non_exhaustive()
    }
}
