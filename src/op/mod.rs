//! The client-visible nouns: operations, their outcomes, and what a watch tells.
//!
//! Everything here is data. An [`OpError`] is decided at apply, alike on every replica, and is
//! cached like any other reply.

mod error;
mod event;
mod txn;

use bytes::Bytes;

use crate::{
    id::{SessionId, Zxid},
    path::{Path, PathPrefix},
};

pub use self::{
    error::{LimitName, OpError},
    event::{Event, EventKind, Filter},
    txn::{Check, Guard, Txn},
};

/// One change of the tree.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Op {
    /// Makes a node below an existing parent.
    Create {
        /// The node's path; of a sequential node, what stands before its number.
        path: PathPrefix,
        /// Its data.
        data: Bytes,
        /// How long it lives and how it is named.
        mode: CreateMode,
    },
    /// Replaces a node's data.
    Set {
        /// The node.
        path: Path,
        /// The new data.
        data: Bytes,
        /// If given, the node must be at this version.
        version: Option<u64>,
    },
    /// Removes a node that has no children.
    Delete {
        /// The node.
        path: Path,
        /// If given, the node must be at this version.
        version: Option<u64>,
    },
}

/// How long a node lives and how it is named (ZooKeeper's `CreateMode`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum CreateMode {
    /// Lives until it is deleted.
    Persistent,
    /// Lives until it is deleted or its session ends; has no children.
    Ephemeral,
    /// Persistent, its name followed by the parent's next number, at least ten digits.
    PersistentSequential,
    /// Ephemeral, its name followed by the parent's next number, at least ten digits.
    EphemeralSequential,
}

impl CreateMode {
    /// Whether the node ends with its session.
    pub fn is_ephemeral(self) -> bool {
        matches!(self, Self::Ephemeral | Self::EphemeralSequential)
    }

    /// Whether the parent's next number is appended to the name.
    pub fn is_sequential(self) -> bool {
        matches!(self, Self::PersistentSequential | Self::EphemeralSequential)
    }
}

/// What ZooKeeper's `Stat` tells of a node; counters are 64 bits wide here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Stat {
    /// The transaction that created the node: its fencing token.
    pub czxid: Zxid,
    /// The transaction that last changed its data.
    pub mzxid: Zxid,
    /// The transaction that last changed its list of children.
    pub pzxid: Zxid,
    /// Wall-clock milliseconds of the creation, as the leader saw it.
    pub ctime_ms: u64,
    /// Wall-clock milliseconds of the last change of data.
    pub mtime_ms: u64,
    /// Changes of the data.
    pub version: u64,
    /// Changes of the list of children.
    pub cversion: u64,
    /// Changes of the access control list.
    pub aversion: u64,
    /// The session that an ephemeral node lives with.
    pub owner: Option<SessionId>,
    /// Bytes of data.
    pub data_length: u64,
    /// Number of children.
    pub children: u64,
}

/// What an operation did.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The node was made; a sequential one has its full name here.
    Created {
        /// Its path.
        path: Path,
        /// Its stat; `czxid` is the fencing token.
        stat: Stat,
    },
    /// The data was replaced.
    Set {
        /// The stat after it.
        stat: Stat,
    },
    /// The node is gone.
    Deleted,
    /// The session is closed and its ephemeral nodes are gone.
    Closed,
}

/// A reply of the replicated state machine: where it stands in the order, and what happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The cluster's zxid after the command.
    pub zxid: Zxid,
    /// The outcome, or why nothing changed.
    pub result: Result<Outcome, OpError>,
}
