//! What can be seen of consensus.

use std::{collections::BTreeMap, fmt};

use raft::{ProgressState, StateRole, eraftpb::MessageType};

use crate::{
    id::NodeId,
    wire::{Promise, RaftMessage},
};

use super::{Consensus, Ended, Rejected};

/// What a member does in its term.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// Follows, or waits for a leader.
    Follower,
    /// Asks whether an election could be won.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// How far a leader has come with one member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Progress {
    /// What the member is known to have.
    pub(crate) matched: u64,
    /// What it is sent next.
    pub(crate) next: u64,
    /// Whether it was heard of since the last check of the quorum.
    pub(crate) active: bool,
    /// How it is fed.
    pub(crate) replication: Replication,
}

/// How a leader feeds a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Replication {
    /// It looks for the place where the logs agree.
    Probe,
    /// It sends entries as they come.
    Replicate,
    /// It waits for the report on a snapshot.
    Snapshot,
}

impl Consensus {
    pub(crate) fn role(&self) -> Role {
        match self.raw.raft.state {
            StateRole::Follower => Role::Follower,
            StateRole::PreCandidate => Role::PreCandidate,
            StateRole::Candidate => Role::Candidate,
            StateRole::Leader => Role::Leader,
        }
    }

    pub(crate) fn term(&self) -> u64 {
        self.raw.raft.term
    }

    /// Whom this node voted for in its term; 0 for nobody.
    pub(crate) fn vote(&self) -> u64 {
        self.raw.raft.vote
    }

    /// The leader of this term, if known; it may be this node.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        NodeId::new(self.raw.raft.leader_id)
    }

    pub(crate) fn commit(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    pub(crate) fn applied_index(&self) -> u64 {
        self.raw.store().applied()
    }

    /// What a message of `from` says that it has on its disk, if it says so.
    pub(crate) fn promise(&self, from: NodeId, message: &RaftMessage) -> Option<Promise> {
        use MessageType as M;
        let is = |kind: M| message.kind == kind as u32;
        // What is asked for or granted before a campaign is of a term that nobody is in yet.
        if is(M::MsgRequestPreVote) || is(M::MsgRequestPreVoteResponse) {
            return None;
        }
        let index = match () {
            () if is(M::MsgAppendResponse) && !message.reject => message.index,
            () => message.durable,
        };
        let vote = match () {
            () if is(M::MsgRequestVote) => from.as_u64(),
            () if is(M::MsgRequestVoteResponse) && !message.reject => self.id.as_u64(),
            () => 0,
        };
        Some(Promise { term: message.term, vote, index })
    }

    /// Up to here the log is on the disk.
    pub(crate) fn durable_index(&self) -> u64 {
        self.raw.raft.raft_log.persisted
    }

    /// The first entry in memory.
    pub(crate) fn first_index(&self) -> u64 {
        self.raw.raft.raft_log.first_index()
    }

    pub(crate) fn last_index(&self) -> u64 {
        self.raw.raft.raft_log.last_index()
    }

    /// Term and checksum of an entry, if it is in memory.
    #[cfg(feature = "sim")]
    pub(crate) fn entry(&self, index: u64) -> Option<(u64, u32)> {
        self.raw.store().entry(index)
    }

    /// The term of an entry in memory, or of the one before the first.
    pub(crate) fn term_at(&self, index: u64) -> Option<u64> {
        let log = &self.raw.raft.raft_log;
        if index > log.last_index() || index < log.first_index() - 1 {
            return None;
        }
        log.term(index).ok()
    }

    /// Whether this node leads, and knows all that was committed before its term.
    pub(crate) fn committed_in_term(&self) -> bool {
        self.role() == Role::Leader && self.raw.raft.commit_to_current_term()
    }

    #[cfg(test)]
    /// The voters after everything that was applied, ascending.
    pub(crate) fn voters(&self) -> Vec<NodeId> {
        self.raw.store().members().voters.iter().copied().filter_map(NodeId::new).collect()
    }

    #[cfg(test)]
    /// The learners after everything that was applied, ascending.
    pub(crate) fn learners(&self) -> Vec<NodeId> {
        self.raw.store().members().learners.iter().copied().filter_map(NodeId::new).collect()
    }

    /// How far this leader has come with `peer`; of no meaning elsewhere.
    pub(crate) fn progress(&self, peer: NodeId) -> Option<Progress> {
        let progress = self.raw.raft.prs().get(peer.as_u64())?;
        Some(Progress {
            matched: progress.matched,
            next: progress.next_idx,
            active: progress.recent_active || peer == self.id,
            replication: match progress.state {
                ProgressState::Probe => Replication::Probe,
                ProgressState::Replicate => Replication::Replicate,
                ProgressState::Snapshot => Replication::Snapshot,
            },
        })
    }

    /// Whether the leadership is on its way to another node.
    pub(crate) fn is_transferring(&self) -> bool {
        self.raw.raft.lead_transferee.is_some()
    }

    /// False until a node that lost an ambiguous tail has caught up; to be kept durably until then.
    pub(crate) fn may_vote(&self) -> bool {
        self.may_vote
    }

    /// Whether raft has taken a leader's word for the staged snapshot, and installs it.
    pub(crate) fn installs(&self) -> bool {
        self.raw.snap().is_some()
    }

    /// Whether a barrier is out: then nothing is taken.
    pub(crate) fn is_blocked(&self) -> bool {
        self.out.back().is_some_and(|out| out.barrier.is_some())
    }

    /// Why the room has ended, if it has.
    pub(crate) fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }

    /// How many messages had no effect, by reason.
    pub(crate) fn counters(&self) -> &BTreeMap<Rejected, u64> {
        &self.rejected
    }
}

impl fmt::Debug for Consensus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consensus")
            .field("id", &self.id)
            .field("role", &self.role())
            .field("term", &self.term())
            .field("leader", &self.leader())
            .field("log", &(self.first_index()..=self.last_index()))
            .field("commit", &self.commit())
            .field("applied", &self.applied_index())
            .field("members", self.raw.store().members())
            .field("may_vote", &self.may_vote)
            .field("writes_out", &self.out.len())
            .field("blocked", &self.is_blocked())
            .field("ended", &self.ended)
            .field("rejected", &self.rejected)
            .finish_non_exhaustive()
    }
}
