//! Why a command changed nothing, and the limits that are checked at apply.

use std::fmt;

use thiserror::Error;

use crate::{
    id::{LeaseId, SessionId},
    op::Rights,
    path::Path,
};

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
    #[error("node {path} is at {}, not {expected}", version(*actual))]
    BadVersion {
        /// The node.
        path: Path,
        /// The version that was asked for.
        expected: u64,
        /// The node's version, for those who may read it.
        actual: Option<u64>,
    },
    /// Only a node without children can be deleted.
    #[error("node {path} has {}children", counted(*children))]
    NotEmpty {
        /// The node.
        path: Path,
        /// How many it has, for those who may read it.
        children: Option<u64>,
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
    /// A lease is granted to a session, and revoked by it.
    #[error("a lease needs a session")]
    LeaseWithoutSession,
    /// The lease has ended, or was never granted to this session.
    #[error("the session has no lease {lease}")]
    NoLease {
        /// The lease.
        lease: LeaseId,
    },
    /// A guard did not hold.
    #[error("guard {index} on {path} does not hold")]
    GuardFailed {
        /// Which guard, from 0.
        index: u64,
        /// The node it looks at.
        path: Path,
    },
    /// Nobody that the client is has this right on the node.
    #[error("no right {right} on node {path}")]
    NoAuth {
        /// The node.
        path: Path,
        /// The right that is missing.
        right: Rights,
    },
    /// The access control list names the setter, and nobody has verified who that is.
    #[error("the access control list for {path} grants its setter, who has no verified identity")]
    InvalidAcl {
        /// The node that was to get it.
        path: Path,
    },
    /// A subtree is at its bound.
    #[error("{limit} below {path} are limited to {max}, not {value}")]
    Quota {
        /// The node that the quota is set on.
        path: Path,
        /// The bound.
        limit: LimitName,
        /// The value that was refused; `max + 1` for those who may not read the node.
        value: u64,
        /// The bound's value.
        max: u64,
    },
    /// An operation of a transaction was refused, and with it the whole transaction.
    #[error("operation {index} of the transaction: {cause}")]
    InTxn {
        /// Which operation of the branch that was taken, from 0.
        index: u64,
        /// Why.
        cause: Box<OpError>,
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
    /// The opening of a session was repeated with other identities than those that it has.
    #[error("session {session} was opened with other identities: attach it with these")]
    OtherIdentities {
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

fn version(actual: Option<u64>) -> String {
    actual.map_or("another version".into(), |actual| format!("version {actual}"))
}

fn counted(children: Option<u64>) -> String {
    children.map_or(String::new(), |children| format!("{children} "))
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
    /// Leases of one session, beside its own.
    SessionLeases,
    /// Leases of all sessions, beside their own.
    Leases,
    /// Ephemeral nodes of one session, those of its leases included.
    Ephemerals,
    /// Nodes of the whole tree.
    Nodes,
    /// Guards of one transaction.
    Guards,
    /// Operations of one transaction, both branches together.
    Operations,
    /// Bytes that a transaction brings along, beside its paths.
    TxnBytes,
    /// Bytes of a transaction's results.
    ResultBytes,
    /// Nodes that the operations of one transaction remove as subtrees, and count for quotas.
    SubtreeNodes,
    /// Milliseconds that a node lives without a change.
    NodeTtl,
    /// Nodes of a subtree with a quota.
    QuotaNodes,
    /// Bytes of data of a subtree with a quota.
    QuotaBytes,
    /// Quotas above each other.
    NestedQuotas,
}

impl LimitName {
    /// Whether it bounds the replies that wait for an acknowledgement.
    pub(crate) fn is_window(self) -> bool {
        matches!(self, Self::WindowCount | Self::WindowBytes)
    }
}

impl fmt::Display for LimitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PayloadBytes => "payload bytes",
            Self::PathBytes => "path bytes",
            Self::WindowCount => "unacknowledged replies",
            Self::WindowBytes => "unacknowledged reply bytes",
            Self::Sessions => "sessions",
            Self::SessionLeases => "leases of a session",
            Self::Leases => "leases",
            Self::Ephemerals => "ephemeral nodes of a session",
            Self::Nodes => "nodes of the tree",
            Self::Guards => "guards",
            Self::Operations => "operations",
            Self::TxnBytes => "bytes of a transaction",
            Self::ResultBytes => "bytes of a transaction's results",
            Self::SubtreeNodes => "nodes of a transaction's subtrees",
            Self::NodeTtl => "milliseconds of a node's time to live",
            Self::QuotaNodes => "nodes",
            Self::QuotaBytes => "bytes of data",
            Self::NestedQuotas => "quotas above each other",
        })
    }
}
