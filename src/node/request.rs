//! What clients ask of a node, and what it answers.

use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use crate::{
    id::{NodeId, Secret, SessionId, Zxid},
    namespace::View,
    op::{Event, Filter, LimitName, OpError, Outcome, Stat, Txn},
    path::{Path, PathError},
};

/// Names a request until its answer; unique for one opening of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub(crate) u64);

/// Names a watch; unique for one opening of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WatchId(pub(crate) u64);

/// A command for the cluster.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Request {
    /// Makes a session, attached here with epoch 1. Answered by [`Output::Session`].
    ///
    /// A repeat with the same secret gives the same session: at this node the same attachment; at
    /// another one, or after a restart, the next one, and the first is over.
    OpenSession {
        /// Drawn by the client; proves later that the session is its own.
        secret: Secret,
        /// How long the session lives without a keep-alive.
        ttl: Duration,
    },
    /// Attaches an existing session to this node. Answered by [`Output::Session`].
    Attach {
        /// The session.
        session: SessionId,
        /// Its secret.
        secret: Secret,
        /// Must be greater than that of every earlier attachment.
        epoch: u64,
    },
    /// A transaction. Answered by [`Output::Reply`].
    Txn {
        /// Its place in a session, or `None`: then it has no identity for a retry.
        seq: Option<Seq>,
        /// The transaction.
        txn: Txn,
    },
    /// Ends a session and its ephemeral nodes. Answered by [`Output::Reply`].
    CloseSession {
        /// Its place in the session.
        seq: Seq,
    },
    /// Says that the client lives. Answered by [`Output::Renewed`], not by ticket.
    KeepAlive {
        /// The session.
        session: SessionId,
        /// The attachment's epoch.
        epoch: u64,
        /// Every reply up to this sequence number has reached the client.
        acked: u64,
    },
    /// Adds a learner, with an id that was never used. Leader only. Answered by [`Output::Reply`].
    AddLearner(NodeId),
    /// Makes a learner that has caught up a voter. Leader only. Answered by [`Output::Reply`].
    Promote(NodeId),
    /// Removes a member for ever. Leader only, and not itself. Answered by [`Output::Reply`].
    Remove(NodeId),
}

/// A command's place in its session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seq {
    /// The session.
    pub session: SessionId,
    /// The attachment's epoch.
    pub epoch: u64,
    /// 1 for the session's first command, and 1 more for each next one.
    pub seq: u64,
    /// Every reply up to this sequence number has reached the client.
    pub acked: u64,
}

/// A look at the tree. Answered by [`Output::Read`].
#[derive(Clone, PartialEq, Debug)]
pub struct Read {
    /// If given, the read waits for the earlier writes of this session's attachment.
    pub session: Option<SessionId>,
    /// What to look at.
    pub op: ReadOp,
    /// How fresh the answer must be.
    pub consistency: Consistency,
}

/// What a [`Read`] looks at.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ReadOp {
    /// A node's data and stat.
    Get(Path),
    /// A node's stat, if there is one.
    Exists(Path),
    /// A page of a node's children, in byte order.
    Children {
        /// The node.
        path: Path,
        /// Only names after this one.
        after: Option<String>,
        /// At most this many, and never more than [`View::CHILDREN_MAX`].
        limit: usize,
    },
    /// Nothing: the answer's zxid and view say what is to be known.
    Barrier,
}

/// How fresh a read must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Consistency {
    /// What this node has applied; may be stale, never goes back.
    Local,
    /// At least as fresh as this transaction; waits until the node has applied it.
    AtLeast(Zxid),
    /// At least as fresh as every write acknowledged anywhere before the read was asked for.
    Linearizable,
}

/// What a [`Read`] found.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ReadOutcome {
    /// Of [`ReadOp::Get`].
    Node {
        /// The node's data.
        data: Bytes,
        /// Its stat.
        stat: Stat,
    },
    /// Of [`ReadOp::Exists`].
    Exists(Option<Stat>),
    /// Of [`ReadOp::Children`].
    Children {
        /// The names of this page.
        names: Vec<String>,
        /// Whether more follow.
        more: bool,
        /// The node's stat.
        stat: Stat,
    },
    /// Of [`ReadOp::Barrier`].
    Barrier,
}

/// A cursor over what happens to some nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Watch {
    /// If given, the watch ends with this session's attachment to the node.
    pub session: Option<SessionId>,
    /// Which nodes.
    pub filter: Filter,
    /// Resume after this transaction; `None` starts at what the node has applied.
    pub from: Option<Zxid>,
    /// Events that may be handed out before [`Node::credit`](crate::node::Node::credit) asks for
    /// more.
    pub credit: u32,
}

/// A watch that was armed, and the tree at the same moment: nothing falls between the two.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Armed {
    /// The watch.
    pub id: WatchId,
    /// The tree at the zxid after which the first events come.
    pub view: View,
}

/// What a node tells its clients, in apply order.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Output {
    /// The answer to a transaction, a close or a change of membership.
    Reply {
        /// The request.
        ticket: Ticket,
        /// The zxid after it; of an unknown outcome, what the node has applied.
        zxid: Zxid,
        /// What it did; `None` for a change of membership.
        result: Result<Option<Outcome>, RequestError>,
    },
    /// The answer to opening or attaching a session.
    Session {
        /// The request.
        ticket: Ticket,
        /// The session.
        result: Result<Attachment, RequestError>,
    },
    /// The answer to a read.
    Read {
        /// The request.
        ticket: Ticket,
        /// The zxid at which the tree was read.
        zxid: Zxid,
        /// What was found.
        result: Result<ReadOutcome, RequestError>,
    },
    /// A keep-alive was committed: the session cannot end before `until`.
    Renewed {
        /// The session.
        session: SessionId,
        /// The attachment's epoch.
        epoch: u64,
        /// On the caller's monotonic clock.
        until: Duration,
    },
    /// An attachment to this node is over.
    Detached {
        /// The session.
        session: SessionId,
        /// The attachment's epoch.
        epoch: u64,
        /// Why.
        cause: Detach,
    },
    /// The events of one transaction that a watch looks at.
    Events {
        /// The watch.
        watch: WatchId,
        /// The transaction.
        zxid: Zxid,
        /// At least one; all of this transaction.
        events: Vec<Event>,
    },
    /// A watch is over.
    WatchEnded {
        /// The watch.
        watch: WatchId,
        /// Why.
        cause: WatchEnd,
    },
}

/// A session, attached to this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Attachment {
    /// The session.
    pub session: SessionId,
    /// The attachment's epoch.
    pub epoch: u64,
    /// The session's time to live.
    pub ttl: Duration,
    /// It cannot end before this moment of the caller's monotonic clock.
    pub until: Duration,
    /// The sequence number of the last command that was applied.
    pub last_seq: u64,
}

/// Why an attachment is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Detach {
    /// The session was closed.
    Closed,
    /// No keep-alive came in time.
    Expired,
    /// The session attached elsewhere with a later epoch.
    Moved,
}

/// Why a watch is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum WatchEnd {
    /// Events after the cursor are no longer kept: read the tree again, and watch from there.
    Compacted {
        /// The oldest zxid that a watch can resume from.
        resume_at: Zxid,
    },
    /// The attachment that the watch belongs to is over: watch elsewhere from the last zxid on.
    Detached,
    /// The node ended: see its status.
    NodeEnded,
}

/// Why a request was not taken. Nothing happened, and nothing will.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The session is not attached to this node under that epoch.
    #[error("session {session} is not attached here under epoch {epoch}")]
    NotAttached {
        /// The session.
        session: SessionId,
        /// The epoch.
        epoch: u64,
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
    /// [`Consistency::AtLeast`], and then watch.
    #[error("a watch from {from} has to wait: this node has applied {applied}")]
    Behind {
        /// Where the watch was to start.
        from: Zxid,
        /// What the node has applied.
        applied: Zxid,
    },
    /// A transaction that a watch is to start from lies before the history.
    #[error(
        "events after {from} are no longer kept; the oldest zxid to resume from is {resume_at}"
    )]
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
                | Self::DiskFull
                | Self::Quarantined
                | Self::NotLeader { .. }
                | Self::Membership(_)
                | Self::Behind { .. }
        )
    }

    /// Whether the request may have taken effect: never, for one that was not taken.
    pub fn outcome_unknown(&self) -> bool {
        false
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
    /// It was not sent, and did nothing.
    #[error("no leader was found in time")]
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
