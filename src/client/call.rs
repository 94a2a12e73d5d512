//! What handles ask of a host.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    client::{
        Error, LeaderGuard, Lease, LockGuard, Session, SessionKey, Watcher, Written,
        answer::ReadPromise,
        completion::{Adopt, Promise},
        gateway::{Ask, GatewayCell},
        recipe::PlaceCell,
        session::SessionCell,
        watcher::Stream,
    },
    id::{LeaseId, NodeId, Secret},
    namespace::{Past, View},
    node::{Caller, Image, Read, Request, Status, Watch, WatchId},
    op::{Identities, Txn},
    path::Path,
    recipes::{Layout, Leadership},
};

/// One call. The host answers every promise in it.
#[derive(Debug)]
pub(crate) enum Call {
    Txn {
        identities: Identities,
        txn: Txn,
        promise: Promise<Written>,
    },
    SessionTxn {
        session: Arc<SessionCell>,
        /// What the handle had seen when it submitted.
        generation: u64,
        txn: Txn,
        promise: Promise<Written>,
    },
    /// Grants the session a lease.
    Grant {
        session: Session,
        /// What the handle had seen when it submitted.
        generation: u64,
        ttl: Duration,
        promise: Promise<Lease>,
    },
    /// Keeps a lease alive that was granted to the session before.
    KeepLease {
        session: Session,
        lease: LeaseId,
        promise: Promise<Lease>,
    },
    Read {
        read: Read,
        promise: ReadPromise,
    },
    Watch {
        watch: Watch,
        promise: Promise<Watcher>,
    },
    Progress(WatchId),
    Past {
        caller: Caller,
        promise: Promise<Past>,
    },
    Credit(WatchId, u32),
    Unwatch(WatchId),
    Open {
        /// Drawn by the host unless given.
        secret: Option<Secret>,
        ttl: Duration,
        identities: Identities,
        promise: Promise<Session>,
    },
    Attach {
        key: SessionKey,
        identities: Identities,
        promise: Promise<Session>,
    },
    Close {
        session: Arc<SessionCell>,
        promise: Option<Promise<()>>,
    },
    /// Stops the keep-alives; the session lives on.
    Leave(Arc<SessionCell>),
    Lock {
        /// Keeps the session open until the place is given up.
        session: Session,
        layout: Layout,
        path: Path,
        data: Bytes,
        cell: Arc<PlaceCell>,
        promise: Promise<LockGuard>,
    },
    Campaign {
        session: Session,
        layout: Layout,
        path: Path,
        proposal: Bytes,
        cell: Arc<PlaceCell>,
        promise: Promise<LeaderGuard>,
    },
    /// Gives up a place in a queue; answered when the own node is gone.
    Release {
        cell: Arc<PlaceCell>,
        promise: Option<Promise<()>>,
    },
    Observe {
        id: u64,
        who: Identities,
        path: Path,
        cell: Arc<Stream<Leadership>>,
    },
    Unobserve(u64),
    Member {
        request: Request,
        promise: Promise<()>,
    },
    Transfer {
        to: NodeId,
        promise: Promise<()>,
    },
    Status(Promise<Status>),
    View {
        caller: Caller,
        promise: Promise<View>,
    },
    Image(Promise<Image>),
    /// What guests of a gateway ask; the first call makes it known.
    Asks {
        gateway: Arc<GatewayCell>,
        asks: Vec<(u64, Ask)>,
    },
    /// A gateway is gone.
    Ungate(u64),
}

impl Call {
    /// Whether it may be refused because there are too many; what gives something back may not.
    pub(crate) fn is_bounded(&self) -> bool {
        !matches!(
            self,
            Self::Credit(..)
                | Self::Unwatch(_)
                | Self::Close { .. }
                | Self::Leave(_)
                | Self::Release { .. }
                | Self::Unobserve(_)
                | Self::Ungate(_)
        )
    }

    /// The session whose sequence it is a part of, if it is a write of one.
    pub(crate) fn session(&self) -> Option<&SessionCell> {
        match self {
            Self::SessionTxn { session, .. } => Some(session),
            Self::Grant { session, .. } => Some(session.cell()),
            _ => None,
        }
    }

    /// Answers it without having done anything; whoever looks at a session's write adopts what the
    /// refusal says of its sequence.
    pub(crate) fn refuse_adopting(self, error: Error, adopt: Option<Adopt>) {
        match self {
            Self::SessionTxn { promise, .. } => promise.fill_adopting(Err(error), adopt),
            Self::Grant { promise, .. } => promise.fill_adopting(Err(error), adopt),
            call => call.refuse(error),
        }
    }

    /// Answers it without having done anything.
    pub(crate) fn refuse(self, error: Error) {
        match self {
            Self::Txn { promise, .. } | Self::SessionTxn { promise, .. } => {
                promise.fill(Err(error));
            }
            Self::Grant { promise, .. } | Self::KeepLease { promise, .. } => {
                promise.fill(Err(error));
            }
            Self::Read { promise, .. } => promise.refuse(error),
            Self::Watch { promise, .. } => promise.fill(Err(error)),
            Self::Open { promise, .. } | Self::Attach { promise, .. } => promise.fill(Err(error)),
            Self::Lock { promise, .. } => promise.fill(Err(error)),
            Self::Campaign { promise, .. } => promise.fill(Err(error)),
            Self::Observe { cell, .. } => cell.end(error),
            Self::Member { promise, .. } | Self::Transfer { promise, .. } => {
                promise.fill(Err(error));
            }
            Self::Close { promise, .. } | Self::Release { promise, .. } => {
                if let Some(promise) = promise {
                    promise.fill(Err(error));
                }
            }
            Self::Status(promise) => promise.fill(Err(error)),
            Self::View { promise, .. } => promise.fill(Err(error)),
            Self::Image(promise) => promise.fill(Err(error)),
            Self::Past { promise, .. } => promise.fill(Err(error)),
            // Some of its questions are lost: nothing after them may be answered.
            Self::Asks { gateway, .. } => gateway.end(error),
            Self::Progress(_)
            | Self::Credit(..)
            | Self::Unwatch(_)
            | Self::Leave(_)
            | Self::Unobserve(_)
            | Self::Ungate(_) => {}
        }
    }
}
