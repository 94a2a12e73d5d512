//! The client-visible nouns: operations, their outcomes, and what a watch tells.
//!
//! Everything here is data. An [`OpError`] is decided at apply, alike on every replica, and is
//! cached like any other reply.

use bytes::Bytes;
use thiserror::Error;

use crate::{
    id::{SessionId, Zxid},
    path::{Path, PathPrefix},
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

/// A condition that must hold for a transaction to change anything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Guard {
    /// The node that is looked at.
    pub path: Path,
    /// What must be true of it.
    pub check: Check,
}

/// What a [`Guard`] asks of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Check {
    /// The node exists, or does not.
    Exists(bool),
    /// Its data is at this version.
    Version(u64),
    /// It was created by this transaction: the fencing token is still the holder's.
    Czxid(Zxid),
    /// It is an ephemeral node of this session.
    Owner(SessionId),
}

/// An operation that takes effect only if all its guards hold.
///
/// ```
/// use quorate::{Check, Guard, Op, Path, Txn, Zxid};
/// let lock: Path = "/locks/a/x-0000000000".parse()?;
/// let fenced = Txn::new(Op::Set {
///     path: "/owner".parse()?,
///     data: "me".into(),
///     version: None,
/// })
/// .guard(Guard { path: lock, check: Check::Czxid(Zxid::new(17)) });
/// assert_eq!(fenced.guards().len(), 1);
/// # Ok::<(), quorate::PathError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Txn {
    guards: Vec<Guard>,
    op: Op,
}

impl Txn {
    /// The most guards of one transaction.
    pub const GUARDS_MAX: usize = 64;

    /// A transaction without guards.
    pub fn new(op: Op) -> Self {
        Self { guards: Vec::new(), op }
    }

    /// Adds a condition.
    #[must_use]
    pub fn guard(mut self, guard: Guard) -> Self {
        self.guards.push(guard);
        self
    }

    /// The conditions, in the order in which they are looked at.
    pub fn guards(&self) -> &[Guard] {
        &self.guards
    }

    /// What happens if they hold.
    pub fn op(&self) -> &Op {
        &self.op
    }
}

impl From<Op> for Txn {
    fn from(op: Op) -> Self {
        Self::new(op)
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

/// Why a command changed nothing; decided at apply, alike on every replica.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum OpError {
    /// The node, or the parent of the node to be made, does not exist.
    #[error("no node {path}")]
    NoNode {
        /// The missing node.
        path: Path,
    },
    /// The node to be made exists.
    #[error("node {path} exists")]
    NodeExists {
        /// The node.
        path: Path,
    },
    /// The node is at another version.
    #[error("node {path} is at version {actual}, not {expected}")]
    BadVersion {
        /// The node.
        path: Path,
        /// The version that was asked for.
        expected: u64,
        /// The node's version.
        actual: u64,
    },
    /// Only a node without children can be deleted.
    #[error("node {path} has {children} children")]
    NotEmpty {
        /// The node.
        path: Path,
        /// How many it has.
        children: u64,
    },
    /// An ephemeral node has no children.
    #[error("node {path} is ephemeral and has no children")]
    NoChildrenForEphemerals {
        /// The ephemeral parent.
        path: Path,
    },
    /// The root is not created, and not deleted.
    #[error("the root cannot be created or deleted")]
    Root,
    /// An ephemeral node needs a session to live with.
    #[error("an ephemeral node needs a session")]
    EphemeralWithoutSession,
    /// A guard did not hold.
    #[error("guard {index} on {path} does not hold")]
    GuardFailed {
        /// Which guard, from 0.
        index: u64,
        /// The node it looks at.
        path: Path,
    },
    /// A limit of the cluster was passed.
    #[error("{limit} is limited to {max}, not {value}")]
    Limit {
        /// The limit's name.
        limit: LimitName,
        /// The value that was refused.
        value: u64,
        /// The limit.
        max: u64,
    },
    /// The session does not exist: it expired or was closed.
    #[error("session {session} has ended")]
    SessionEnded {
        /// The session.
        session: SessionId,
    },
    /// The session is attached elsewhere under a later epoch.
    #[error("session {session} has moved to attachment {epoch}")]
    Moved {
        /// The session.
        session: SessionId,
        /// The epoch in force.
        epoch: u64,
    },
    /// The secret is not the session's.
    #[error("the secret of session {session} does not match")]
    BadSecret {
        /// The session.
        session: SessionId,
    },
    /// A number was skipped; nothing happened, and the commands are sent again in order.
    #[error("sequence number {expected} is next, not {actual}")]
    Gap {
        /// The next number.
        expected: u64,
        /// The number that came.
        actual: u64,
    },
    /// The reply was acknowledged by the client and is no longer kept.
    #[error("the reply to sequence number {seq} was acknowledged and is gone")]
    AlreadyAcknowledged {
        /// The number.
        seq: u64,
    },
}

/// The limits that are checked at apply, by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum LimitName {
    /// Bytes of one node's data.
    PayloadBytes,
    /// Bytes of a path.
    PathBytes,
    /// Replies that a session has not acknowledged.
    WindowCount,
    /// Bytes of replies that a session has not acknowledged.
    WindowBytes,
    /// Sessions.
    Sessions,
    /// Guards of one transaction.
    Guards,
}

impl LimitName {
    /// Whether it bounds the replies that wait for an acknowledgement.
    pub(crate) fn is_window(self) -> bool {
        matches!(self, Self::WindowCount | Self::WindowBytes)
    }
}

impl std::fmt::Display for LimitName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::PayloadBytes => "payload bytes",
            Self::PathBytes => "path bytes",
            Self::WindowCount => "unacknowledged replies",
            Self::WindowBytes => "unacknowledged reply bytes",
            Self::Sessions => "sessions",
            Self::Guards => "guards",
        })
    }
}

/// What a watch tells of one node in one transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Event {
    /// The transaction.
    pub zxid: Zxid,
    /// What happened.
    pub kind: EventKind,
    /// To which node.
    pub path: Path,
    /// The transaction that created the node.
    pub czxid: Zxid,
}

/// What happened to a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum EventKind {
    /// It was made.
    Created,
    /// Its data was replaced.
    DataChanged,
    /// It was removed.
    Deleted,
}

/// Which nodes a watch looks at.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Filter {
    /// The node itself.
    Node(Path),
    /// The creation and deletion of the node's children.
    Children(Path),
    /// The node and everything below it.
    Subtree(Path),
}

impl Filter {
    /// The path that the filter names.
    pub fn path(&self) -> &Path {
        match self {
            Self::Node(path) | Self::Children(path) | Self::Subtree(path) => path,
        }
    }

    /// Whether the watch tells of this event.
    pub fn matches(&self, event: &Event) -> bool {
        match self {
            Self::Node(path) => *path == event.path,
            Self::Subtree(path) => path.contains(&event.path),
            Self::Children(path) => {
                event.kind != EventKind::DataChanged
                    && event.path.parent_str() == Some(path.as_str())
            }
        }
    }
}
