//! Leader election and a fair lock, as state machines over znodes.
//!
//! Sans-IO: each is fed with what the node answers, and asked for the next [`Action`]. They know
//! no handle, no clock and no node; the driver drives them for [`client`](crate::client), and an
//! application with its own loop drives them itself (see `examples/embed.rs`).
//!
//! **Feed an [`Input`], then take actions until there are none.** At most one action that has an
//! answer is out at a time.
//!
//! Invariants: a contender waits for its predecessor only (no herd); a token is the czxid of the
//! own node and grows with each holder; a token that was lost is never held again.
//!
//! Layouts and order are those of the ZooKeeper recipes (Curator `LockInternals`, kazoo `Lock`):
//! the number at the end of the name decides, whoever made the node.

pub(crate) mod contender;
mod election;
mod layout;
mod lock;
mod observer;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;

use crate::{
    id::Zxid,
    op::{Event, Filter, OpError, Outcome, Stat, Txn},
    path::Path,
};

pub use election::Election;
pub use layout::Layout;
pub use lock::Lock;
pub use observer::{Leadership, Observer};

/// What a recipe wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Action {
    /// Submit this in the contender's session. Answer with [`Input::Replied`].
    Submit(Txn),
    /// List a page of children. Answer with [`Input::Listed`].
    List {
        /// The parent.
        path: Path,
        /// Only names after this one.
        after: Option<String>,
        /// The answer must be at least this fresh; any replica will do.
        at_least: Zxid,
    },
    /// Read a node. Answer with [`Input::Read`].
    Get {
        /// The node.
        path: Path,
        /// The answer must be at least this fresh; any replica will do.
        at_least: Zxid,
    },
    /// Watch from this transaction on, and feed [`Input::Event`] and [`Input::WatchEnded`]. If it
    /// cannot be armed, feed [`Input::WatchEnded`].
    Watch {
        /// What to watch; names the watch.
        filter: Filter,
        /// Events after this transaction.
        from: Zxid,
    },
    /// Drop the watch of that name.
    Unwatch(Filter),
}

impl Action {
    /// Whether it has an answer that must be fed back before the next such action.
    pub fn has_answer(&self) -> bool {
        !matches!(self, Self::Watch { .. } | Self::Unwatch(_))
    }
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Input {
    /// The answer to [`Action::Submit`].
    Replied {
        /// The reply's zxid.
        zxid: Zxid,
        /// What it did.
        result: Result<Outcome, Failure>,
    },
    /// The answer to [`Action::List`].
    Listed {
        /// The zxid at which the tree was read.
        zxid: Zxid,
        /// The names of the page, and whether more follow.
        result: Result<(Vec<String>, bool), Failure>,
    },
    /// The answer to [`Action::Get`].
    Read {
        /// The zxid at which the tree was read.
        zxid: Zxid,
        /// The node, if there is one.
        result: Result<Option<(Bytes, Stat)>, Failure>,
    },
    /// A watch told of an event.
    Event(Event),
    /// A watch is over, and events may have been missed.
    WatchEnded(Filter),
    /// The session cannot end before this moment of the caller's monotonic clock.
    Renewed(Duration),
    /// The session has ended here: closed, expired, or moved elsewhere. An answer that is still
    /// out must not be fed after this.
    SessionOver {
        /// Whether it lives on elsewhere, and its nodes with it.
        moved: bool,
    },
}

/// Why an action did not do what it asked.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Failure {
    /// The replicated state machine refused it.
    Op(OpError),
    /// It may have taken effect. To be fed only when it is settled: it has taken effect, or never
    /// will (attach the session again with a higher epoch, which fences off what is under way).
    Unknown,
    /// It did nothing; the recipe asks again.
    NotDone,
}

/// Where a contender stands, by the caller's clock.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum State {
    /// It does not contend.
    Idle,
    /// It contends.
    Waiting {
        /// How many were before it when it last looked, or `None` before the first look.
        ahead: Option<usize>,
    },
    /// It is the only holder.
    Held {
        /// The fencing token: the czxid of the own node; grows with each holder.
        token: Zxid,
        /// Safe until this moment of the caller's monotonic clock, with no packet needed.
        until: Duration,
    },
    /// It may have lost what it held: no renewal came in time. Stop, and wait for what comes.
    Suspended {
        /// The token, should the session prove alive.
        token: Zxid,
    },
    /// It has lost its place, for good.
    Lost,
    /// The cluster refused it.
    Failed(OpError),
}
