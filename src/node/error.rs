//! Why a node refuses a request, or cannot do what it asks.

use std::time::Duration;

use thiserror::Error;

use crate::{
    id::{LeaseId, NodeId, SessionId, Zxid},
    op::{LimitName, OpError},
    path::PathError,
};

/// Why a request was not taken. Nothing happened, and nothing will.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The session is not attached to this node under that epoch.
    #[error("session {session} is not attached here{}", under(*epoch))]
    NotAttached {
        /// The session.
        session: SessionId,
        /// The epoch that was named, or 0.
        epoch: u64,
    },
    /// The lease has ended, or is none of this session beside its own.
    #[error("session {session} has no lease {lease}")]
    NoLease {
        /// The session.
        session: SessionId,
        /// The lease.
        lease: LeaseId,
    },
    /// A session's commands come in order.
    #[error("sequence number {expected} is next, not {actual}")]
    OutOfSequence {
        /// The next number.
        expected: u64,
        /// The number that came.
        actual: u64,
    },
    /// A limit of the cluster would be passed.
    #[error("{limit} is limited to {max}, not {value}")]
    Limit {
        /// The limit.
        limit: LimitName,
        /// The value.
        value: u64,
        /// What is allowed.
        max: u64,
    },
    /// A node that is not sequential needs a whole path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The node has too much to do; try again later.
    #[error("the node is overloaded: {what} is at its limit of {max}")]
    Overloaded {
        /// The limit in `Config`.
        what: &'static str,
        /// Its value.
        max: u64,
    },
    /// The session asks for more than [it may](crate::ConfigBuilder::session_rate).
    #[error("session {session} is limited to {max} {what}: try again in {retry_after:?}")]
    RateLimited {
        /// The session.
        session: SessionId,
        /// The limit.
        what: &'static str,
        /// Its value.
        max: u64,
        /// When the same request is taken, if the session asks for nothing else until then.
        retry_after: Duration,
    },
    /// This node's disk is nearly full: deletes and closes are taken, nothing that grows the tree.
    #[error(
        "the disk of this node is nearly full: free space there; deletes and closes still pass"
    )]
    DiskFull,
    /// This node's state differs from that of most voters; it takes over the state of another
    /// member, and then goes on. Ask another node meanwhile.
    #[error("the state of this node differs from that of most voters, and is being replaced")]
    Quarantined,
    /// Only the leader does this.
    #[error("this node is not the leader{}", named(*leader))]
    NotLeader {
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// The change of membership is not possible now.
    #[error("the membership cannot change: {0}")]
    Membership(MembershipError),
    /// This node has not applied the transaction that a watch is to start from: read there with
    /// [`Consistency::AtLeast`](crate::node::Consistency::AtLeast), and then watch.
    #[error("a watch from {from} has to wait: this node has applied {applied}")]
    Behind {
        /// Where the watch was to start.
        from: Zxid,
        /// What the node has applied.
        applied: Zxid,
    },
    /// A transaction that a watch is to start from lies before the history, or in that of another
    /// [`Lineage`](crate::Lineage): read the tree again, and watch from there.
    #[error("events after {from} are not kept here; the oldest zxid to resume from is {resume_at}")]
    Compacted {
        /// Where the watch was to start.
        from: Zxid,
        /// The oldest that is possible.
        resume_at: Zxid,
    },
    /// The run loop was not kept to.
    #[error(transparent)]
    Misuse(#[from] Misuse),
    /// The node has ended: its status says why, and what to do.
    #[error("the node has ended: {0}")]
    Ended(String),
}

impl SubmitError {
    /// Whether the same request may be taken later, or by another node.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Overloaded { .. }
                | Self::RateLimited { .. }
                | Self::DiskFull
                | Self::Quarantined
                | Self::NotLeader { .. }
                | Self::Membership(_)
                | Self::Behind { .. }
        )
    }

    /// How long to wait before the same request is taken, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    /// Whether the request may have taken effect: never, for one that was not taken.
    pub fn outcome_unknown(&self) -> bool {
        false
    }
}

fn under(epoch: u64) -> String {
    match epoch {
        0 => String::new(),
        epoch => format!(" under epoch {epoch}"),
    }
}

fn named(leader: Option<NodeId>) -> String {
    leader.map_or(String::new(), |id| format!("; {id} is"))
}

/// Why the membership cannot change as asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum MembershipError {
    /// One change at a time.
    #[error("another change is under way")]
    UnderWay,
    /// A removed id is never used again.
    #[error("node {0} was removed; ids are never used again")]
    IdReused(NodeId),
    /// The node is a member already.
    #[error("node {0} is a member already")]
    AlreadyMember(NodeId),
    /// The node is no member, or no learner.
    #[error("node {0} is not a learner")]
    NotALearner(NodeId),
    /// The node is no member.
    #[error("node {0} is not a member")]
    NotAMember(NodeId),
    /// A learner votes only after it has caught up.
    #[error("learner {node} is {behind} entries behind")]
    NotCaughtUp {
        /// The learner.
        node: NodeId,
        /// How many entries it lacks.
        behind: u64,
    },
    /// A leader does not remove itself: transfer the leadership first.
    #[error("the leader does not remove itself: transfer the leadership first")]
    RemovesLeader,
    /// A cluster keeps a voter.
    #[error("the last voter cannot be removed")]
    LastVoter,
    /// There are as many members as there can be.
    #[error("a cluster has at most {0} members")]
    TooMany(u64),
}

/// Why a request that was taken did not do what it asked.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The replicated state machine refused it.
    #[error(transparent)]
    Op(#[from] OpError),
    /// It may have taken effect, or may yet.
    #[error("the outcome is unknown: {0}")]
    Unknown(Unknown),
    /// The membership is as it was: the change was not possible when its turn came.
    #[error("the membership did not change: {0}")]
    Membership(MembershipError),
    /// It was not sent, or it is certain that it was lost, and did nothing: no leader was found in
    /// time. [`Status::waiting`](crate::node::Status::waiting) says what the node waits for, if it
    /// is set up otherwise than its peers, and the transport's status whether they can be reached.
    #[error("no leader was found in time: the status says what the node waits for")]
    NoLeader,
    /// A read was not answered in time.
    #[error("the read was not answered in time")]
    TimedOut,
}

impl RequestError {
    /// Whether the request did nothing and may simply be asked again. False when the
    /// [outcome is unknown](Self::outcome_unknown): a repeat might do the same thing twice.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::NoLeader | Self::TimedOut)
    }

    /// Whether the request may have taken effect.
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }
}

/// Why nobody knows whether a request took effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Error)]
#[non_exhaustive]
pub enum Unknown {
    /// Nothing was heard of it in time.
    #[error("nothing was heard of it in time")]
    TimedOut,
    /// It may lie inside a snapshot that this node installed.
    #[error("it may lie inside a snapshot that this node installed")]
    SnapshotInstalled,
    /// The session ended before its reply came.
    #[error("the session ended before the reply came")]
    SessionEnded,
    /// The node ended before the reply came.
    #[error("the node ended before the reply came")]
    NodeEnded,
}

/// The run loop was not kept to: a bug of the caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum Misuse {
    /// The node [is blocked](crate::node::Node::is_blocked): hand the token of the write back
    /// first.
    #[error("a write is out: persist it and hand its token back first")]
    WriteOut,
    /// A node that has a write to give is given nothing but requests, and ticked only when drained.
    #[error("drain `ready` first")]
    NotDrained,
    /// The token is of another node, opening or write, or not that of the oldest write.
    #[error("the token does not belong to the oldest write that is out")]
    ForeignToken,
    /// A token was dropped: nobody knows what is on the disk, and the node has ended.
    #[error("a token was dropped: nobody knows what is on the disk, and the node has ended")]
    TokenDropped,
}
