//! The client-visible nouns: operations, their outcomes, and what a watch tells.
//!
//! Everything here is data. An [`OpError`] is decided at apply, alike on every replica, and is
//! cached like any other reply.

mod access;
mod error;
mod event;
mod txn;

use std::time::Duration;

use bytes::Bytes;

use crate::{
    id::{LeaseId, SessionId, Zxid},
    path::{Path, PathPrefix},
};

pub(crate) use self::txn::{Body, Step};
pub use self::{
    access::{
        AccessError, Acl, DigestId, Grant, Identities, Identity, Principal, Quota, Rights, Subject,
        Usage,
    },
    error::{LimitName, OpError},
    event::{Content, Detail, Event, EventKind, Filter},
    txn::{Check, Field, Guard, Relation, Txn},
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
        /// Who may do what; without it, as its parent's says at that moment.
        acl: Option<Acl>,
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
    /// Removes a node and everything below it, up to
    /// [`subtree_nodes_max`](crate::Limits::subtree_nodes_max) nodes; each after those below it.
    DeleteTree {
        /// The topmost node; not the root.
        path: Path,
    },
    /// Fails the transaction unless the guard holds here, after the operations before it.
    Check(Guard),
    /// A node's data and stat.
    Get {
        /// The node.
        path: Path,
    },
    /// A node's stat, if there is one.
    Exists {
        /// The node.
        path: Path,
    },
    /// A page of a node's children.
    List(List),
    /// Replaces a node's access control list.
    SetAcl {
        /// The node.
        path: Path,
        /// The new list.
        acl: Acl,
        /// If given, the node's list must be at this version.
        version: Option<u64>,
    },
    /// A node's access control list; without [`Rights::ADMIN`] the hashes in it are masked.
    GetAcl {
        /// The node.
        path: Path,
    },
    /// Grants the session of this transaction a lease beside its own: with a time to live, a
    /// deadline and keep-alives of its own. It ends by itself, by [`Op::Revoke`], or with its
    /// session.
    Grant {
        /// How long the lease lives without a keep-alive; from
        /// [`session_ttl_min`](crate::Limits::session_ttl_min) to
        /// [`session_ttl_max`](crate::Limits::session_ttl_max); the outcome says what was granted.
        ttl: Duration,
    },
    /// Ends a lease that the session of this transaction was granted, and its ephemeral nodes.
    Revoke {
        /// The lease; not the session's own, which ends when the session is closed.
        lease: LeaseId,
    },
    /// Bounds a node and everything below it; a right of whoever administers the node's parent.
    SetQuota {
        /// The topmost node, with at most
        /// [`subtree_nodes_max`](crate::Limits::subtree_nodes_max) nodes at that moment.
        path: Path,
        /// The bounds; none takes them away, if there are any. What is there already may be past
        /// them.
        quota: Option<Quota>,
    },
}

impl Op {
    /// Whether it can change the tree.
    pub fn is_write(&self) -> bool {
        match self {
            Self::Create { .. }
            | Self::Set { .. }
            | Self::Delete { .. }
            | Self::DeleteTree { .. }
            | Self::SetAcl { .. }
            | Self::SetQuota { .. }
            | Self::Grant { .. }
            | Self::Revoke { .. } => true,
            Self::GetAcl { .. }
            | Self::Check(_)
            | Self::Get { .. }
            | Self::Exists { .. }
            | Self::List(_) => false,
        }
    }

    /// Bytes that it brings along, beside its paths.
    pub(crate) fn data_bytes(&self) -> usize {
        match self {
            Self::Create { data, .. } | Self::Set { data, .. } => data.len(),
            Self::Check(guard) => guard.check.data_bytes(),
            Self::SetAcl { acl, .. } => acl.bytes(),
            Self::GetAcl { .. }
            | Self::SetQuota { .. }
            | Self::Grant { .. }
            | Self::Revoke { .. }
            | Self::List(_)
            | Self::Delete { .. }
            | Self::DeleteTree { .. }
            | Self::Get { .. }
            | Self::Exists { .. } => 0,
        }
    }
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
    /// Persistent, and removed by the cluster some time after its last child has gone.
    Container,
    /// Persistent, and removed by the cluster when it has no children and its data was not
    /// replaced for this time, rounded to milliseconds, from 1 ms to [`CreateMode::TTL_MAX`].
    Ttl(Duration),
    /// As [`CreateMode::Ttl`], its name followed by the parent's next number.
    SequentialTtl(Duration),
    /// Ephemeral, and ends with this lease of its session instead of the session's own.
    Leased(LeaseId),
    /// As [`CreateMode::Leased`], its name followed by the parent's next number.
    SequentialLeased(LeaseId),
}

impl CreateMode {
    /// The longest time to live of a node, ZooKeeper's: about 34 years.
    pub const TTL_MAX: Duration = Duration::from_millis((1 << 40) - 1);

    /// Whether the node ends with its session, or with a lease of it.
    pub fn is_ephemeral(self) -> bool {
        matches!(
            self,
            Self::Ephemeral
                | Self::EphemeralSequential
                | Self::Leased(_)
                | Self::SequentialLeased(_)
        )
    }

    /// The lease that the node ends with, if it is named.
    pub fn lease(self) -> Option<LeaseId> {
        match self {
            Self::Leased(lease) | Self::SequentialLeased(lease) => Some(lease),
            _ => None,
        }
    }

    /// The same with the parent's next number appended to the name; a container has none.
    pub fn sequential(self) -> Self {
        match self {
            Self::Persistent => Self::PersistentSequential,
            Self::Ephemeral => Self::EphemeralSequential,
            Self::Ttl(ttl) => Self::SequentialTtl(ttl),
            Self::Leased(lease) => Self::SequentialLeased(lease),
            other => other,
        }
    }

    /// Whether the parent's next number is appended to the name.
    pub fn is_sequential(self) -> bool {
        matches!(
            self,
            Self::PersistentSequential
                | Self::EphemeralSequential
                | Self::SequentialTtl(_)
                | Self::SequentialLeased(_)
        )
    }

    /// When the cluster removes such a node by itself.
    pub fn lifetime(self) -> Lifetime {
        match self {
            Self::Container => Lifetime::Container,
            Self::Ttl(ttl) | Self::SequentialTtl(ttl) => {
                let ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
                Lifetime::Ttl(Duration::from_millis(ms))
            }
            Self::Persistent
            | Self::Ephemeral
            | Self::PersistentSequential
            | Self::EphemeralSequential
            | Self::Leased(_)
            | Self::SequentialLeased(_) => Lifetime::Unlimited,
        }
    }
}

/// When the cluster removes a node by itself, beside the end of a lease that owns it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
#[non_exhaustive]
pub enum Lifetime {
    /// Never.
    #[default]
    Unlimited,
    /// Some time after its last child has gone; not while it never had one.
    Container,
    /// When it has no children and its data was not replaced for this time.
    Ttl(Duration),
}

/// A page of a node's children to be read: in byte order of their names, at one zxid.
///
/// ```
/// use quorate::{Children, List, Path};
/// let list = List::of("/locks/a".parse()?)
///     .prefix("lock-")
///     .only(Children::Ephemeral)
///     .limit(100)
///     .with_stat();
/// assert_eq!(list.limit, 100);
/// # Ok::<(), quorate::PathError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct List {
    /// The parent.
    pub path: Path,
    /// Only names after this one.
    pub after: Option<String>,
    /// Only names that begin so.
    pub prefix: String,
    /// Only children that live so.
    pub only: Children,
    /// At most this many; 0 and anything above mean [`List::LIMIT_MAX`].
    pub limit: u32,
    /// Whether each child comes with its stat.
    pub with_stat: bool,
    /// Whether each child comes with its data.
    pub with_data: bool,
}

impl List {
    /// The most children of one page.
    pub const LIMIT_MAX: u32 = 1024;
    /// Bytes of names, stats and data after which a page ends.
    pub const BYTES_MAX: usize = 1 << 20;

    /// The names of all children, from the first one on.
    pub fn of(path: Path) -> Self {
        Self {
            path,
            after: None,
            prefix: String::new(),
            only: Children::All,
            limit: Self::LIMIT_MAX,
            with_stat: false,
            with_data: false,
        }
    }

    /// Only names after this one: the next page, given [`Page::resume`].
    #[must_use]
    pub fn after(mut self, name: impl Into<String>) -> Self {
        self.after = Some(name.into());
        self
    }

    /// Only names that begin so.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Only children that live so.
    #[must_use]
    pub fn only(mut self, only: Children) -> Self {
        self.only = only;
        self
    }

    /// At most this many.
    #[must_use]
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }

    /// Each child with its stat.
    #[must_use]
    pub fn with_stat(mut self) -> Self {
        self.with_stat = true;
        self
    }

    /// Each child with its data; those that may not be read come without.
    #[must_use]
    pub fn with_data(mut self) -> Self {
        self.with_data = true;
        self
    }

    /// The limit in force.
    pub(crate) fn limit_in_force(&self) -> usize {
        match self.limit {
            0 => Self::LIMIT_MAX as usize,
            limit => limit.min(Self::LIMIT_MAX) as usize,
        }
    }
}

/// Which children a [`List`] looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
#[non_exhaustive]
pub enum Children {
    /// All of them.
    #[default]
    All,
    /// Those that no lease owns.
    Persistent,
    /// Those that end with a session, or another lease.
    Ephemeral,
}

/// What a [`List`] found.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Page {
    /// The children, in byte order of their names.
    pub children: Vec<Child>,
    /// If more may follow: the name to go on [`after`](List::after).
    pub resume: Option<String>,
    /// The parent's stat.
    pub stat: Stat,
}

/// One child of a [`Page`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Child {
    /// The last component of its path.
    pub name: String,
    /// Its stat, if asked for.
    pub stat: Option<Stat>,
    /// Its data, if asked for.
    pub data: Option<Bytes>,
}

/// A page of the ephemeral nodes of a session.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Owned {
    /// Those that may be read, in path order.
    pub paths: Vec<Path>,
    /// If more may follow: the path after which to go on.
    pub resume: Option<Path>,
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
    /// The lease that an ephemeral node lives with: its session's own, or another one.
    pub owner: Option<LeaseId>,
    /// When the cluster removes the node by itself.
    pub lifetime: Lifetime,
    /// Bytes of data.
    pub data_length: u64,
    /// Whether the data is null, which reads as empty: only ZooKeeper's clients tell them apart.
    pub null: bool,
    /// Number of children.
    pub children: u64,
}

/// What is to be known of a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LeaseStat {
    /// The lease.
    pub lease: LeaseId,
    /// Whose it is.
    pub session: SessionId,
    /// How long it lives without a keep-alive.
    pub ttl: Duration,
    /// What is left of that on the replicated clock, which moves at least once in each renewal
    /// interval. With its session it may end earlier.
    pub remaining: Duration,
    /// How many ephemeral nodes it owns.
    pub nodes: u64,
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
    /// The node is gone, and all that was below it.
    DeletedTree {
        /// How many nodes.
        nodes: u64,
    },
    /// The guard holds.
    Checked,
    /// The access control list was replaced.
    AclSet {
        /// The stat after it.
        stat: Stat,
    },
    /// Of [`Op::GetAcl`].
    Acl {
        /// The node's list.
        acl: Acl,
        /// Its stat.
        stat: Stat,
    },
    /// The quota was set, or taken away.
    QuotaSet,
    /// The lease was granted.
    Granted {
        /// The new lease.
        lease: LeaseId,
        /// How long it lives without a keep-alive.
        ttl: Duration,
    },
    /// The lease has ended, and its ephemeral nodes are gone.
    Revoked {
        /// The lease.
        lease: LeaseId,
        /// How many nodes it had.
        nodes: u64,
    },
    /// Of [`Op::Get`].
    Node {
        /// The node's data.
        data: Bytes,
        /// Its stat.
        stat: Stat,
    },
    /// Of [`Op::Exists`].
    Exists(Option<Stat>),
    /// Of [`Op::List`].
    Listed(Page),
    /// Of a transaction of several operations.
    Txn {
        /// Whether the guards held; if not, the other branch was taken.
        held: bool,
        /// What each operation of the branch did, in order.
        results: Vec<Outcome>,
    },
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
