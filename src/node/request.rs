//! What clients ask of a node, and what it answers.

use std::{num::NonZeroU32, time::Duration};

use bytes::Bytes;
use thiserror::Error;

use crate::{
    id::{LeaseId, Lineage, NodeId, Secret, SessionId, Zxid},
    namespace::{Change, View},
    node::error::RequestError,
    op::{
        Acl, Detail, Event, EventKind, Filter, Identities, LeaseStat, List, Outcome, Owned, Page,
        Quota, Stat, Txn, Usage,
    },
    path::Path,
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
        /// Who the client is, as the application has verified it. A repeat for the same attachment
        /// has the same ones, in the same order, or is refused
        /// ([`OpError::OtherIdentities`](crate::OpError::OtherIdentities)): attach the session to
        /// replace them.
        identities: Identities,
    },
    /// Attaches an existing session to this node. Answered by [`Output::Session`].
    Attach {
        /// The session.
        session: SessionId,
        /// Its secret.
        secret: Secret,
        /// Must be greater than that of every earlier attachment.
        epoch: u64,
        /// Who the client is, as the application has verified it. They take the place of those
        /// that the session had.
        identities: Identities,
    },
    /// A session's transaction, with the rights of its identities. Answered by [`Output::Reply`].
    SessionTxn {
        /// Its place in the session.
        seq: Seq,
        /// The transaction.
        txn: Txn,
    },
    /// A transaction outside any session, which cannot be retried. Answered by [`Output::Reply`].
    Txn {
        /// Who the client is, as the application has verified it.
        identities: Identities,
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
    /// Says that a lease of a session lives on, beside the session's own. Answered by
    /// [`Output::LeaseRenewed`], not by ticket.
    KeepLeaseAlive {
        /// The session.
        session: SessionId,
        /// The attachment's epoch.
        epoch: u64,
        /// The lease, as [`Op::Grant`](crate::Op::Grant) gave it.
        lease: LeaseId,
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

/// On whose behalf a node is asked: decides what it shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Caller {
    /// A session that is attached to this node. It has the identities that its attachment was made
    /// with, as this node has applied it. A read waits for the attachment's earlier writes; a watch
    /// ends with the attachment.
    Session(SessionId),
    /// Somebody outside any session, with these identities, as the application has verified them.
    Plain(Identities),
}

impl Caller {
    /// Nobody in particular, outside any session: may read what the world may.
    pub fn world() -> Self {
        Self::Plain(Identities::none())
    }

    pub(crate) fn session(&self) -> Option<SessionId> {
        match self {
            Self::Session(session) => Some(*session),
            Self::Plain(_) => None,
        }
    }
}

/// A look at the tree. Answered by [`Output::Read`].
#[derive(Clone, PartialEq, Debug)]
pub struct Read {
    /// Who looks.
    pub caller: Caller,
    /// What to look at.
    pub op: ReadOp,
    /// How fresh the answer must be.
    pub consistency: Consistency,
}

/// What a [`Read`] looks at. What it shows is what its [`Caller`] may read: without
/// [`Rights::READ`](crate::Rights::READ) on a node that is there it ends with
/// [`OpError::NoAuth`](crate::OpError::NoAuth), unless it says otherwise.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ReadOp {
    /// A node's data and stat.
    Get(Path),
    /// A node's stat, if there is one.
    Exists(Path),
    /// A page of a node's children; see [`View::list`].
    List(List),
    /// A node's access control list. Who may not replace it sees no hashes in it; who may need not
    /// have the right to read.
    GetAcl(Path),
    /// The quota that is set on a node, and what it counts.
    Quota(Path),
    /// What is left of a lease of the session that reads: its own, or another one.
    Lease(LeaseId),
    /// A page of the ephemeral nodes of a lease. Those that may not be read are left out.
    Owned {
        /// The lease: a session's own ([`SessionId::lease`]), or another one.
        lease: LeaseId,
        /// Only paths after this one.
        after: Option<Path>,
    },
    /// How many nodes lie below a node.
    Descendants {
        /// The node, itself not counted.
        path: Path,
        /// At most this many are counted, and never more than [`ReadOp::DESCENDANTS_MAX`].
        max: u64,
    },
    /// The whole tree, frozen, as the caller may see it: for what takes long to read, or must be
    /// read at one zxid.
    View,
    /// Nothing, which needs no right: the answer's zxid says what is to be known.
    Barrier,
}

impl ReadOp {
    /// The most nodes that [`ReadOp::Descendants`] counts; a [`View`] counts on, elsewhere.
    pub const DESCENDANTS_MAX: u64 = 10_000;
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
    /// Of [`ReadOp::List`].
    Listed(Page),
    /// Of [`ReadOp::GetAcl`].
    Acl {
        /// The node's list.
        acl: Acl,
        /// Its stat.
        stat: Stat,
    },
    /// Of [`ReadOp::Quota`]; `None` if none is set on the node.
    Quota(Option<(Quota, Usage)>),
    /// Of [`ReadOp::Lease`].
    Lease(LeaseStat),
    /// Of [`ReadOp::Owned`].
    Owned(Owned),
    /// Of [`ReadOp::Descendants`].
    Descendants {
        /// How many were counted.
        nodes: u64,
        /// Whether there are more.
        more: bool,
    },
    /// Of [`ReadOp::View`].
    View(Box<View>),
    /// Of [`ReadOp::Barrier`].
    Barrier,
}

/// A cursor over what happens to some nodes; one of a [`Filter::Subtree`] that goes on is what
/// ZooKeeper calls a persistent recursive watch.
///
/// It needs no right, and tells only what its caller may learn: an event of a node that the caller
/// could read then (before a deletion, after anything else) and, if that very node still lives when
/// it is told, can read now. The others are passed over in silence: also children whose names a
/// [`List`] of their parent shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Watch {
    /// Who watches.
    pub caller: Caller,
    /// Which nodes.
    pub filter: Filter,
    /// Only events of these kinds; none listed: of all kinds.
    pub kinds: Vec<EventKind>,
    /// How much it tells of each event.
    pub detail: Detail,
    /// Whether it ends with [`WatchEnd::Fired`] after the first transaction that it tells of, as
    /// ZooKeeper's one-shot watches do.
    pub once: bool,
    /// After so many ticks in which it told nothing, it says how far it has come, by
    /// [`Output::Progress`]; that costs one of its credit.
    pub progress_ticks: Option<NonZeroU32>,
    /// Resume after this transaction; `None` starts at what the node has applied.
    pub from: Option<Zxid>,
    /// Of which history `from` is. Of another one there is nothing to resume: it ends
    /// `Compacted`. `None` is for a zxid that did not outlive the node that told of it.
    pub lineage: Option<Lineage>,
    /// Events that may be handed out before [`Node::credit`](crate::node::Node::credit) asks for
    /// more.
    pub credit: u32,
}

impl Watch {
    /// A watch of [the world](Caller::world) on what happens from now on, told by path alone.
    ///
    /// ```
    /// use quorate::{EventKind, Filter, node::Watch};
    /// let filter = Filter::Node("/config".parse()?);
    /// // ZooKeeper's one-shot watch of a node's data.
    /// let (kinds, once) = (vec![EventKind::DataChanged, EventKind::Deleted], true);
    /// let watch = Watch { kinds, once, ..Watch::of(filter, 1) };
    /// # Ok::<(), quorate::PathError>(())
    /// ```
    pub fn of(filter: Filter, credit: u32) -> Self {
        Self {
            caller: Caller::world(),
            filter,
            kinds: Vec::new(),
            detail: Detail::Path,
            once: false,
            progress_ticks: None,
            from: None,
            lineage: None,
            credit,
        }
    }

    /// Whether it tells of this.
    pub(crate) fn sees(&self, change: &Change) -> bool {
        let wanted = |kind| self.kinds.is_empty() || self.kinds.contains(&kind);
        change.kind.is_some_and(|kind| wanted(kind) && self.filter.sees(kind, &change.path))
    }
}

/// A watch that was armed, and the tree at the same moment: nothing falls between the two.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Armed {
    /// The watch.
    pub id: WatchId,
    /// The tree when the watch was armed, as the caller may see it. Without [`Watch::from`] the
    /// first events come after it; a watch that resumes is first told of what led there.
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
    /// A keep-alive of a lease was committed: the lease cannot end before `until`, unless its
    /// session does, or revokes it.
    LeaseRenewed {
        /// The session.
        session: SessionId,
        /// The attachment's epoch.
        epoch: u64,
        /// The lease.
        lease: LeaseId,
        /// On the caller's monotonic clock.
        until: Duration,
    },
    /// A lease of a session that is attached here is over, and its ephemeral nodes are gone: it was
    /// revoked, or no keep-alive came in time. Those that end with their session are not told of.
    LeaseEnded {
        /// The session.
        session: SessionId,
        /// The attachment's epoch.
        epoch: u64,
        /// The lease.
        lease: LeaseId,
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
    /// All that a watch has to tell up to a transaction was handed out before this: a later watch
    /// resumes from there.
    Progress {
        /// The watch.
        watch: WatchId,
        /// The transaction.
        zxid: Zxid,
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
    /// Of which history the cluster's zxids are.
    pub lineage: Lineage,
}

/// Why an attachment is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Error)]
#[non_exhaustive]
pub enum Detach {
    /// The session was closed.
    #[error("it was closed")]
    Closed,
    /// No keep-alive came in time.
    #[error("it expired, for no keep-alive came in time")]
    Expired,
    /// The session attached elsewhere with a later epoch, or was left for that.
    #[error("it has moved to another attachment, or was left for one")]
    Moved,
}

/// Why a watch is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Error)]
#[non_exhaustive]
pub enum WatchEnd {
    /// Events after the cursor are no longer kept: read the tree again, and watch from there.
    #[error("events were missed and are no longer kept (the oldest: {resume_at}); read again")]
    Compacted {
        /// The oldest zxid that a watch can resume from.
        resume_at: Zxid,
    },
    /// It was to tell of one transaction, and has.
    #[error("it has fired")]
    Fired,
    /// The attachment that the watch belongs to is over: watch elsewhere from the last zxid on.
    #[error("its session's attachment is over")]
    Detached,
    /// The node ended: see its status.
    #[error("the node has ended")]
    NodeEnded,
}
