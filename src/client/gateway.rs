//! Many clients elsewhere over one ordered stream: for adapters of other protocols.
//!
//! A gateway is the node's own run loop at a distance: what its guests ask goes there in batches,
//! and all that the node has to tell them comes back in the node's order, changes of the tree
//! among it. So an adapter on another thread knows of each answer what came before it.

use std::{
    fmt, mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;

use crate::{
    client::{Changes, Client, Error, call::Call},
    id::{Secret, SessionId, Zxid},
    node::{Attachment, Consistency, Detach, ReadOp, ReadOutcome},
    op::{Identities, Outcome, Txn},
};

/// A handle that speaks for many clients at once, its guests: for adapters of other protocols.
///
/// What its guests ask goes to the node in batches, and all that the node has to tell them comes
/// back as one stream in the node's order, changes of the tree among it.
///
/// A guest is a number that the adapter gives. It opens or attaches one session, and from then on
/// its requests are one FIFO: answers come in the order of the requests, and a read sees exactly
/// the guest's writes before it.
///
/// Dropping it leaves the sessions of its guests to themselves.
pub struct Gateway {
    client: Client,
    cell: Arc<GatewayCell>,
}

/// What a guest asks for. Each but [`Ask::KeepAlive`] and [`Ask::Leave`] is answered once.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Ask {
    /// Opens a session. Answered by [`GuestAnswer::Session`].
    Open {
        /// Proves later that the session is the client's own.
        secret: Secret,
        /// How long the session lives without a keep-alive.
        ttl: Duration,
        /// Who the client is, as the adapter has verified it.
        identities: Identities,
        /// The client has seen this: a node that has not is refused as
        /// [`Behind`](crate::node::SubmitError::Behind).
        seen: Zxid,
    },
    /// Attaches a session under the epoch that is next. Answered by [`GuestAnswer::Session`].
    Attach {
        /// The session.
        session: SessionId,
        /// Its secret.
        secret: Secret,
        /// Who the client is, as the adapter has verified it.
        identities: Identities,
        /// As in [`Ask::Open`].
        seen: Zxid,
    },
    /// A transaction of the guest's session. Answered by [`GuestAnswer::Reply`].
    Txn(Txn),
    /// Ends the guest's session. Answered by [`GuestAnswer::Reply`].
    Close,
    /// A read of the guest's session. Answered by [`GuestAnswer::Read`].
    Read(ReadOp, Consistency),
    /// Says that the client lives.
    KeepAlive,
    /// The guest is gone; its session lives on, without keep-alives.
    Leave,
}

/// What a guest is answered.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum GuestAnswer {
    /// The session, attached to this node, or why not.
    Session(Result<Attachment, Error>),
    /// Of a transaction or a close.
    Reply {
        /// What the node has applied with it.
        zxid: Zxid,
        /// What it did.
        result: Result<Outcome, Error>,
    },
    /// Of a read.
    Read {
        /// The zxid at which the tree was read.
        zxid: Zxid,
        /// What was found.
        result: Result<ReadOutcome, Error>,
    },
    /// The guest's attachment is over; it is no guest any more.
    Over(Detach),
}

/// What a gateway is told, in the node's order.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Told {
    /// Something for one guest.
    Guest(u64, GuestAnswer),
    /// What one transaction changed, whoever made it: before any answer that shows it.
    Changes(Changes),
    /// The gateway is over, and with it all that its guests waited for: the node has ended, changes
    /// were lost, or what was told was not taken.
    Gone(Error),
}

impl Client {
    /// A gateway to this node. `wake` is called, from the node's thread, when there is something
    /// to [`take`](Gateway::take) after there was nothing.
    pub fn gateway(&self, wake: impl Fn() + Send + Sync + 'static) -> Gateway {
        let cell = GatewayCell {
            id: self.next_id(),
            told: Mutex::default(),
            over: AtomicBool::new(false),
            wake: Box::new(wake),
        };
        let (client, cell) = (self.clone(), Arc::new(cell));
        client.call(Call::Asks { gateway: Arc::clone(&cell), asks: Vec::new() });
        Gateway { client, cell }
    }
}

impl Gateway {
    /// Hands over what guests ask, in this order.
    pub fn send(&self, asks: Vec<(u64, Ask)>) {
        if !asks.is_empty() {
            self.client.call(Call::Asks { gateway: Arc::clone(&self.cell), asks });
        }
    }

    /// Swaps what was told since the last call for `empty`, whose buffer is used again.
    pub fn take(&self, empty: &mut Vec<Told>) {
        mem::swap(&mut *self.cell.told.lock(), empty);
    }

    /// A handle of the same node.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.client.call(Call::Ungate(self.cell.id));
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cell.fmt(f)
    }
}

/// What a gateway and its host share.
pub(crate) struct GatewayCell {
    pub(crate) id: u64,
    told: Mutex<Vec<Told>>,
    over: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl GatewayCell {
    /// Hands over what there is to tell; `false` if so much waits there that nobody takes it.
    pub(crate) fn tell(&self, news: &mut Vec<Told>) -> bool {
        if news.is_empty() {
            return true;
        }
        let mut told = self.told.lock();
        let first = told.is_empty();
        if told.len().saturating_add(news.len()) > TOLD_MAX {
            return false;
        }
        match first {
            true => mem::swap(&mut *told, news),
            false => told.append(news),
        }
        drop(told);
        if first {
            (self.wake)();
        }
        true
    }

    /// The gateway is over; said once, behind all that was told.
    pub(crate) fn end(&self, why: Error) {
        if !self.over.swap(true, Ordering::AcqRel) {
            self.told.lock().push(Told::Gone(why));
            (self.wake)();
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

impl fmt::Debug for GatewayCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("id", &self.id).field("over", &self.is_over()).finish()
    }
}

/// Answers and changes that wait to be taken. Answers are bounded by what was asked.
const TOLD_MAX: usize = 1 << 20;
