//! What a node tells of itself, and how it ends.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::{
    command::{CommandError, Release},
    consensus::Replication,
    id::{Boot, Incarnation, Lineage, NodeId, StoreId, Zxid},
    node::Node,
};

/// What a node knows of itself and its cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Status {
    /// This member.
    pub id: NodeId,
    /// This opening of its store.
    pub incarnation: Incarnation,
    /// What it does.
    pub role: Role,
    /// The latest term that it has seen.
    pub term: u64,
    /// The leader, if one is known.
    pub leader: Option<NodeId>,
    /// The highest index that it knows to be committed.
    pub commit: u64,
    /// The highest index that it has applied.
    pub applied: u64,
    /// The last index of its log.
    pub last_index: u64,
    /// The last transaction that it has applied.
    pub zxid: Zxid,
    /// Of which history its zxids are.
    pub lineage: Lineage,
    /// The members as of `applied`.
    pub members: BTreeMap<NodeId, Member>,
    /// What it waits for before it takes part, if anything.
    pub waiting: Option<Waiting>,
    /// Why it has ended, if it has.
    pub ended: Option<Ended>,
    /// What the last comparison of states that did not end well said, if that still matters.
    pub divergence: Option<Divergence>,
    /// Frames from peers that were refused.
    pub refused_frames: u64,
    /// Messages of consensus that were not taken, by reason; late ones are ordinary.
    pub rejected_messages: BTreeMap<String, u64>,
    /// Requests that wait for an answer.
    pub pending: usize,
    /// Watches.
    pub watches: usize,
    /// Sessions of the cluster.
    pub sessions: usize,
    /// Nodes of the tree, the root included.
    pub znodes: usize,
    /// Nodes of the tree that are owned by sessions and leases.
    pub ephemerals: u64,
    /// Bytes of the paths and the data of all nodes.
    pub tree_bytes: u64,
    /// What the state comes to; members that have applied the same entries have the same one.
    pub digest: u64,
    /// Of a leader, the other members that keep up: heard of since the last check of the quorum,
    /// and sent entries as they come.
    pub synced: BTreeSet<NodeId>,
    /// What the member's disk holds, as the driver has said.
    pub disk: DiskUse,
}

/// What a member has on its disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct DiskUse {
    /// Bytes of the log's segments.
    pub log_bytes: u64,
    /// Bytes of the snapshots.
    pub snapshot_bytes: u64,
    /// There is hardly space for more: what makes the state grow is refused.
    pub is_full: bool,
}

/// What a member does in the current term.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether it could win an election.
    PreCandidate,
    /// Campaigns.
    Candidate,
    /// Leads.
    Leader,
    /// Follows without a vote.
    Learner,
}

/// A member as the replicated log knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Member {
    /// Whether it votes; otherwise it is a learner.
    pub voter: bool,
    /// Its store, once it is known.
    pub store: Option<StoreId>,
}

impl Member {
    pub(crate) fn new(voter: bool, store: Option<StoreId>) -> Self {
        Self { voter, store }
    }
}

/// What a node waits for before it takes part.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Waiting {
    /// These founders have not yet confirmed every founder's store.
    Founders(Vec<NodeId>),
    /// This founder was set up with other members, intervals or limits.
    OtherBootstrap(NodeId),
    /// A damaged tail was cut off the log: the node votes once it has caught up with the leader.
    CatchUp,
    /// A damaged tail was cut off the log, and there is nobody to catch up with: this is the only
    /// voter, or there has been no leader for ten election timeouts. Start the members that are
    /// down. If no leader can be elected then, because too many voters are in this state, see
    /// [`accept_cut_tail`](crate::ConfigBuilder::accept_cut_tail).
    CutTail,
    /// A leader must add this node as a learner.
    Admission,
    /// Its state differs from that of most voters: it neither votes nor answers before it has taken
    /// over the state of another member, which needs most voters to be up. See
    /// [`Status::divergence`].
    GoodState,
}

/// States that differ where they must not: a memory that went bad, or a bug.
///
/// The log is what it was; the state that was made from it is not. What was answered from a bad
/// state before it was found stays answered.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Divergence {
    /// The voters' states differ, and no majority has one and the same: nobody is picked, and
    /// nobody stops. If voters are down, start them. Otherwise stop the members one at a time and
    /// start them again, so that each makes its state anew from its snapshot and its log; if they
    /// still differ, restore a backup, and look for broken memory or report a bug.
    Unresolved {
        /// The entry after which they were compared.
        index: u64,
        /// What each voter's state came to, of those that have told.
        digests: BTreeMap<NodeId, u64>,
    },
    /// Most voters have one and the same state, and this member another: it takes over theirs. If
    /// that goes on for long, start the voters that are down. Check the memory of this machine.
    Quarantined(Mismatch),
    /// This member has taken over the state of another one, and takes part again. Check the memory
    /// of this machine.
    Replaced {
        /// What had been wrong.
        mismatch: Mismatch,
        /// The entry after which the state was taken over.
        index: u64,
    },
}

/// Where a state began to differ from that of most voters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Mismatch {
    /// The entry after which the states were compared.
    pub index: u64,
    /// The last transaction after which they were the same, if it is known.
    pub last_good: Option<Zxid>,
    /// The first transaction after which they are known to have differed: the very first, if it
    /// follows on `last_good`. `None` while it is looked for, and if the node was restarted since.
    pub first_bad: Option<Zxid>,
}

/// What is wrong with a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum DiskFault {
    /// It refused an operation: what is on it is not known.
    Failed,
    /// It has no space left.
    Full,
    /// What was durable has changed or is gone.
    Damaged,
}

impl DiskFault {
    fn what(self) -> &'static str {
        match self {
            Self::Failed => "the disk failed",
            Self::Full => "the disk is full",
            Self::Damaged => "what was durable is damaged",
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::Failed => "mend it and start the process again on the same data",
            Self::Full => "free space and start the process again on the same data",
            Self::Damaged => {
                "keep the directory for analysis, and let the member join again with an empty one, \
                 under a new id"
            }
        }
    }
}

/// Why a write did not become durable, or what was durable is so no more.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{why}")]
pub struct DiskError {
    /// Of what kind.
    pub fault: DiskFault,
    /// What happened, and where.
    pub why: String,
}

impl<T: Into<String>> From<T> for DiskError {
    /// A failure that says no more than these words.
    fn from(why: T) -> Self {
        Self { fault: DiskFault::Failed, why: why.into() }
    }
}

/// Why a node has ended: it votes no more, acknowledges nothing and answers nothing.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum Ended {
    /// A write or fsync failed, or what was durable is so no more.
    #[error("{}: {why}; {}", fault.what(), fault.remedy())]
    DiskFailed {
        /// Of what kind the first error was.
        fault: DiskFault,
        /// The first error.
        why: String,
    },
    /// A token was dropped: what is on the disk is not known.
    #[error(
        "a write's token was dropped, so nobody knows what is on the disk; start the process again"
    )]
    TokenDropped,
    /// The peers know this member by another store: its data was lost or exchanged.
    #[error(
        "node {id} is known by store {known}, not {own}: its data directory was wiped or \
         exchanged; put the old one back, or remove node {id} and add a new id as a learner"
    )]
    Wiped {
        /// This member.
        id: NodeId,
        /// The store that the peers have pinned.
        known: StoreId,
        /// The store that it has.
        own: StoreId,
    },
    /// The peers have seen an opening of this store that it does not know: it was put back from an
    /// older image.
    #[error(
        "store {store} was seen at boot {}, which boot {} does not come after: it was rolled back \
         to an older image; remove node {id} and add a new id as a learner with an empty directory",
        known.counter, own.counter
    )]
    RolledBack {
        /// This member.
        id: NodeId,
        /// Its store.
        store: StoreId,
        /// The newest opening that a peer has seen.
        known: Boot,
        /// This opening.
        own: Boot,
    },
    /// A peer has been told of what this opening has not got: the store was put back from an image
    /// that was taken since it was last opened.
    #[error(
        "store {store} has promised a vote or entry {index} of term {term} and opens without it: \
         it was rolled back to an older image; remove node {id} and add a new id as a learner with \
         an empty directory"
    )]
    Forgot {
        /// This member.
        id: NodeId,
        /// Its store.
        store: StoreId,
        /// The last term in which it has promised something.
        term: u64,
        /// The last entry that it has acknowledged in that term, or 0.
        index: u64,
    },
    /// The cluster removed this member; its id is never used again.
    #[error("node {id} was removed from the cluster; to return, join as a learner under a new id")]
    Removed {
        /// This member.
        id: NodeId,
    },
    /// The member joined with other intervals or replicated limits than those of the cluster.
    #[error(transparent)]
    OtherParameters(crate::config::OtherParameters),
    /// The log holds what this release does not know.
    #[error("log entry {index} cannot be applied: {error}{}", start_with(*needs))]
    Command {
        /// Where it stands.
        index: u64,
        /// What is wrong with it.
        error: CommandError,
        /// The first release that can apply it, if the entry names it.
        needs: Option<Release>,
    },
    /// The log or what a leader says of it contradicts what was committed here.
    #[error("{why}")]
    Consensus {
        /// What happened, and the remedy.
        why: String,
    },
}

fn start_with(needs: Option<Release>) -> String {
    needs.map_or(String::new(), |release| {
        format!("; start this member with release {release} or later, on the same data")
    })
}

impl Node {
    /// What the node knows of itself and its cluster.
    pub fn status(&self) -> Status {
        let waiting = match self.identity.waiting() {
            _ if self.is_quarantined() => Some(Waiting::GoodState),
            _ if self.membership.members.is_empty() => Some(Waiting::Admission),
            Some(Waiting::CatchUp) if self.is_stuck() => Some(Waiting::CutTail),
            waiting => waiting,
        };
        let (znodes, ephemerals) = self.namespace.znodes();
        Status {
            id: self.config.id,
            incarnation: self.identity.own(),
            role: self.role(),
            term: self.consensus.term(),
            leader: self.consensus.leader().filter(|_| !self.is_out()),
            commit: self.consensus.commit(),
            applied: self.applied,
            last_index: self.consensus.last_index(),
            zxid: self.namespace.zxid(),
            lineage: self.namespace.lineage(),
            members: self.membership.members.clone(),
            waiting,
            ended: self.ended.clone(),
            divergence: self.divergence(),
            refused_frames: self.refused_frames,
            rejected_messages: self.rejected(),
            pending: self.origin.pending() + self.reads.len(),
            watches: self.cursors.len(),
            sessions: self.namespace.sessions(),
            znodes,
            ephemerals,
            tree_bytes: self.namespace.tree_bytes(),
            digest: self.namespace.digest().value,
            synced: self.synced(),
            disk: self.disk,
        }
    }

    fn synced(&self) -> BTreeSet<NodeId> {
        let keeps_up = |id: &NodeId| {
            let progress = self.consensus.progress(*id).filter(|_| *id != self.config.id);
            progress.is_some_and(|it| it.active && it.replication == Replication::Replicate)
        };
        let leads = self.role() == Role::Leader;
        let members = self.membership.members.keys().copied().filter(|_| leads);
        members.filter(keeps_up).collect()
    }

    fn role(&self) -> Role {
        use crate::consensus::Role as Raft;
        let learner = !self.membership.members.get(&self.config.id).is_some_and(|it| it.voter);
        match self.consensus.role() {
            Raft::Follower if learner => Role::Learner,
            Raft::Follower => Role::Follower,
            Raft::PreCandidate => Role::PreCandidate,
            Raft::Candidate => Role::Candidate,
            Raft::Leader if self.is_quarantined() => Role::Follower,
            Raft::Leader => Role::Leader,
        }
    }

    /// Whether there is no leader to catch up with, and maybe cannot be.
    fn is_stuck(&self) -> bool {
        let mut voters = self.membership.members.iter().filter(|(_, member)| member.voter);
        let alone = voters.all(|(&id, _)| id == self.config.id);
        let long = u64::from(self.config.election_ticks) * LEADERLESS_ELECTIONS;
        alone || self.tick - self.led_tick >= long
    }

    fn rejected(&self) -> BTreeMap<String, u64> {
        let counters = self.consensus.counters().iter();
        counters.map(|(reason, &count)| (reason.to_string(), count)).collect()
    }
}

/// Election timeouts without a leader after which a node without its tail says that it is stuck.
const LEADERLESS_ELECTIONS: u64 = 10;
