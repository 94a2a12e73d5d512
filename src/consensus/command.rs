//! What the node asks of consensus: proposals, reads, transfers, and what it has applied.
//!
//! raft answers most refusals with one word, or with silence; here each has its own error, checked
//! before raft is asked (ARCHITECTURE.md, L6).

use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use thiserror::Error;

use crate::{
    config::MEMBERS_MAX,
    id::NodeId,
    mutant::Mutant,
    wire::{EntryKind, LogEntry, RaftMessage, SnapshotMeta},
};

use super::{
    AppliedChange, Consensus, Ended, MembershipChange, Role, convert, membership::Refused,
    status::Replication,
};

/// Why a proposal was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub(crate) enum ProposeError {
    /// Only the leader proposes.
    #[error("this node is not the leader")]
    NotLeader {
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// The leadership is on its way to another node.
    #[error("the leadership is being transferred")]
    Transferring,
    /// Too much is proposed and not committed.
    #[error("{bytes} bytes are proposed and not committed; the limit is {max}")]
    Overloaded {
        /// What would be under way.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A write is out.
    #[error("a write is out")]
    WriteOut,
    /// The room has ended.
    #[error("the consensus has ended")]
    Ended,
}

/// Why a change of the membership was not proposed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub(crate) enum ChangeError {
    /// As for any proposal.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// Another change, or the leader's first entry, is not applied yet.
    #[error("another change is under way")]
    UnderWay,
    /// The node is a member already, or a voter.
    #[error("node {0} is a member already")]
    AlreadyMember(NodeId),
    /// The node is no learner.
    #[error("node {0} is not a learner")]
    NotALearner(NodeId),
    /// The node is no member.
    #[error("node {0} is not a member")]
    NotAMember(NodeId),
    /// A learner votes only when it has nearly all of the log, and follows it.
    #[error("learner {node} is {behind} entries behind")]
    NotCaughtUp {
        /// The learner.
        node: NodeId,
        /// How many entries it lacks.
        behind: u64,
    },
    /// A leader does not remove itself.
    #[error("the leader does not remove itself")]
    RemovesLeader,
    /// Somebody must vote.
    #[error("the last voter cannot be removed")]
    LastVoter,
    /// There are as many members as there can be.
    #[error("a cluster has at most {0} members")]
    TooMany(u64),
}

/// Why a read index was not asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub(crate) enum ReadError {
    /// Only the leader knows.
    #[error("this node is not the leader")]
    NotLeader {
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// The leader has committed nothing in its term, and may not know all commits.
    #[error("the leader has not committed in its term")]
    NotReady,
    /// A context is used once: an old answer must not confirm a new question.
    #[error("the read context was used before")]
    UsedContext,
    /// Too many rounds are out.
    #[error("{max} read rounds are out")]
    Overloaded {
        /// The limit.
        max: usize,
    },
    /// A write is out.
    #[error("a write is out")]
    WriteOut,
    /// The room has ended.
    #[error("the consensus has ended")]
    Ended,
}

/// Why the leadership is not transferred.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub(crate) enum TransferError {
    /// Only the leader does.
    #[error("this node is not the leader")]
    NotLeader {
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// The receiver is no voter, or leads already.
    #[error("node {0} is not another voter")]
    NotAnotherVoter(NodeId),
    /// A write is out.
    #[error("a write is out")]
    WriteOut,
    /// The room has ended.
    #[error("the consensus has ended")]
    Ended,
}

/// Why the node does not campaign.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub(crate) enum CampaignError {
    /// It leads.
    #[error("this node leads already")]
    Leads,
    /// It is no voter, or lost a part of its log and has not caught up.
    #[error("this node may not vote")]
    MayNotVote,
    /// A write is out, or something waits to be drained.
    #[error("entries are not durable yet")]
    WriteOut,
    /// The room has ended.
    #[error("the consensus has ended")]
    Ended,
}

/// Why an entry cannot be applied as a change of the membership.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub(crate) enum ApplyError {
    /// Entries are applied once, in order.
    #[error("entry {index} was applied before; everything up to {applied} is")]
    OutOfOrder {
        /// The entry.
        index: u64,
        /// What is applied.
        applied: u64,
    },
    /// The room has ended, maybe because nobody can read this entry.
    #[error("the consensus has ended")]
    Ended,
}

impl Consensus {
    /// Puts one entry into the log.
    ///
    /// # Errors
    ///
    /// If it was not taken; then it has no effect, ever.
    pub(crate) fn propose(&mut self, data: Bytes) -> Result<(), ProposeError> {
        self.check_propose(data.len())?;
        self.propose_entry(Entry { data, ..Entry::default() })
    }

    /// Whether an entry of so many bytes would be taken.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.check_propose(bytes).is_ok()
    }

    /// Puts one change of the membership into the log; `context` comes back when it is applied.
    ///
    /// # Errors
    ///
    /// If it is not possible now. It may still be replaced by an empty entry, or be impossible
    /// when it is applied: only `applied_change` tells.
    pub(crate) fn propose_change(
        &mut self,
        change: MembershipChange,
        context: Bytes,
    ) -> Result<(), ChangeError> {
        let data = change.encode(context);
        self.check_propose(data.len())?;
        // Without a commit in its term a leader may not know the last change (the flaw in the
        // single-server change that Raft's author reported in 2015).
        if !self.committed_in_term() || self.raw.raft.has_pending_conf() || !self.changes.is_empty()
        {
            return Err(ChangeError::UnderWay);
        }
        self.raw.store().members().check(change)?;
        match change {
            MembershipChange::Remove(node) if node == self.id => {
                return Err(ChangeError::RemovesLeader);
            }
            MembershipChange::Promote(node) => self.check_caught_up(node)?,
            _ => {}
        }
        Ok(self.propose_entry(Entry {
            entry_type: EntryType::EntryConfChange,
            data,
            ..Entry::default()
        })?)
    }

    /// Asks for a read index; it comes with `context` in a later batch, or never.
    ///
    /// # Errors
    ///
    /// If this node cannot answer, or the context was used before.
    pub(crate) fn read_index(&mut self, context: [u8; 16]) -> Result<(), ReadError> {
        if self.ended.is_some() {
            return Err(ReadError::Ended);
        }
        if self.is_blocked() {
            return Err(ReadError::WriteOut);
        }
        if self.role() != Role::Leader {
            return Err(ReadError::NotLeader { leader: self.leader() });
        }
        if !self.committed_in_term() {
            return Err(ReadError::NotReady);
        }
        if self.contexts.contains(&context) && !Mutant::ContextReused.active() {
            return Err(ReadError::UsedContext);
        }
        if self.raw.raft.pending_read_count() >= READS_MAX {
            return Err(ReadError::Overloaded { max: READS_MAX });
        }
        if self.contexts.len() == CONTEXTS_KEPT {
            self.contexts.pop_front();
        }
        self.contexts.push_back(context);
        self.call("read_index", |raw| raw.read_index(context.to_vec())).ok_or(ReadError::Ended)
    }

    /// Hands the leadership to another voter; proposals are refused until it is there, or an
    /// election timeout has passed.
    ///
    /// # Errors
    ///
    /// If this node does not lead, or `to` is not another voter.
    pub(crate) fn transfer_leader(&mut self, to: NodeId) -> Result<(), TransferError> {
        if self.ended.is_some() {
            return Err(TransferError::Ended);
        }
        if self.is_blocked() {
            return Err(TransferError::WriteOut);
        }
        if self.role() != Role::Leader {
            return Err(TransferError::NotLeader { leader: self.leader() });
        }
        if to == self.id || !self.raw.raft.prs().conf().voters().contains(to.as_u64()) {
            return Err(TransferError::NotAnotherVoter(to));
        }
        self.call("transfer_leader", |raw| raw.transfer_leader(to.as_u64()))
            .ok_or(TransferError::Ended)
    }

    /// Starts an election, without waiting for the timeout.
    ///
    /// # Errors
    ///
    /// If this node cannot be elected now.
    pub(crate) fn campaign(&mut self) -> Result<(), CampaignError> {
        if self.ended.is_some() {
            return Err(CampaignError::Ended);
        }
        if self.undrained() {
            return Err(CampaignError::WriteOut);
        }
        if self.role() == Role::Leader {
            return Err(CampaignError::Leads);
        }
        if !self.may_vote || !self.raw.raft.promotable() {
            return Err(CampaignError::MayNotVote);
        }
        match self.call("campaign", |raw| raw.campaign()) {
            Some(_) => Ok(()),
            None => Err(CampaignError::Ended),
        }
    }

    /// Applies a committed membership entry: each of them, in order, before `applied` of its index.
    ///
    /// All members decide alike, by what the log made of the membership so far.
    ///
    /// # Errors
    ///
    /// If it is not the next one, or nobody can read it: then the room has ended.
    pub(crate) fn applied_change(&mut self, entry: &LogEntry) -> Result<AppliedChange, ApplyError> {
        if self.ended.is_some() {
            return Err(ApplyError::Ended);
        }
        let (index, applied) = (entry.index, self.applied_index());
        if index <= applied.max(self.raw.store().members_since()) {
            return Err(ApplyError::OutOfOrder { index, applied });
        }
        // raft replaces a change that it ignores by an empty entry (H10).
        if entry.kind != EntryKind::Membership || entry.data.is_empty() {
            return Ok(AppliedChange { change: None, context: Bytes::new(), removed_self: false });
        }
        let Some((change, context)) = MembershipChange::decode(entry.data.clone()) else {
            let what = format!("the committed change of the membership at {index} is unreadable");
            self.ended = Some(Ended::Corrupt { what });
            return Err(ApplyError::Ended);
        };
        let mut members = self.raw.store().members().clone();
        if members.apply(change).is_err() {
            return Ok(AppliedChange { change: None, context, removed_self: false });
        }
        self.raw.mut_store().set_members(index, members);
        if self.is_blocked() {
            self.changes.push((index, change));
        } else {
            self.tell_change(index, change);
        }
        let removed_self = change == MembershipChange::Remove(self.id);
        Ok(AppliedChange { change: Some(change), context, removed_self })
    }

    /// Everything up to `index` is applied.
    pub(crate) fn applied(&mut self, index: u64) {
        self.call("applied", |raw| {
            let log = &raw.raft.raft_log;
            let index = index.min(log.committed).min(log.persisted);
            if index > log.applied {
                raw.advance_apply_to(index);
                raw.mut_store().set_applied(index);
            }
        });
    }

    /// Drops the log up to and including `to` from memory, but nothing that is not applied.
    pub(crate) fn compact(&mut self, to: u64) {
        self.call("compact", |raw| raw.mut_store().compact(to));
    }

    /// The message that makes `to` install the snapshot (index, term), which it has staged.
    ///
    /// Any leader whose log goes on after the snapshot may hand it out, whoever made it. `None` if
    /// this node does not lead, or its log does not, or the snapshot does not name its receiver.
    pub(crate) fn snapshot_message(
        &self,
        to: NodeId,
        index: u64,
        term: u64,
    ) -> Option<RaftMessage> {
        let store = self.raw.store();
        let leads = self.role() == Role::Leader && !self.is_blocked() && self.ended.is_none();
        let durable = (self.durable.term, self.durable.vote) == (self.term(), self.vote());
        let fits = index > 0 && index <= store.applied() && store.term_at(index) == Some(term);
        let members = store.members_at(index)?;
        if !leads || !durable || !fits || !members.contains(to) {
            return None;
        }
        let meta: SnapshotMeta = convert::meta(index, term, members);
        Some(RaftMessage {
            kind: MessageType::MsgSnapshot as u32,
            term: self.term(),
            snapshot: Some(meta),
            ..RaftMessage::default()
        })
    }

    fn check_propose(&self, bytes: usize) -> Result<(), ProposeError> {
        if self.ended.is_some() {
            return Err(ProposeError::Ended);
        }
        if self.is_blocked() {
            return Err(ProposeError::WriteOut);
        }
        if self.role() != Role::Leader {
            return Err(ProposeError::NotLeader { leader: self.leader() });
        }
        if self.is_transferring() {
            return Err(ProposeError::Transferring);
        }
        let (under_way, max) =
            (self.raw.raft.uncommitted_size(), self.options.uncommitted_bytes_max);
        if under_way > 0 && under_way + bytes > max {
            return Err(ProposeError::Overloaded { bytes: under_way + bytes, max });
        }
        Ok(())
    }

    fn propose_entry(&mut self, entry: Entry) -> Result<(), ProposeError> {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.id.as_u64();
        message.entries = vec![entry].into();
        match self.call("propose", |raw| raw.step(message)) {
            Some(Ok(())) => Ok(()),
            // All reasons were checked before; this one is nearest to the truth.
            Some(Err(_)) => Err(ProposeError::NotLeader { leader: self.leader() }),
            None => Err(ProposeError::Ended),
        }
    }

    fn check_caught_up(&self, node: NodeId) -> Result<(), ChangeError> {
        let last_index = self.last_index();
        let progress = self.progress(node).ok_or(ChangeError::NotALearner(node))?;
        let behind = last_index.saturating_sub(progress.matched);
        let fed = progress.matched > 0 && progress.replication != Replication::Snapshot;
        let follows = progress.active && fed;
        if behind > PROMOTE_BEHIND_MAX || !follows {
            return Err(ChangeError::NotCaughtUp { node, behind });
        }
        Ok(())
    }
}

impl From<Refused> for ChangeError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::AlreadyMember(node) => Self::AlreadyMember(node),
            Refused::NotALearner(node) => Self::NotALearner(node),
            Refused::NotAMember(node) => Self::NotAMember(node),
            Refused::LastVoter => Self::LastVoter,
            Refused::TooMany => Self::TooMany(MEMBERS_MAX as u64),
        }
    }
}

/// Read contexts that are remembered, to refuse a repeat.
const CONTEXTS_KEPT: usize = 64;
/// Read rounds that are out at once.
const READS_MAX: usize = 64;
/// Entries that a learner may lack and still become a voter.
const PROMOTE_BEHIND_MAX: u64 = 256;
