//! What raft may see of a peer's message (ARCHITECTURE.md, section 5).
//!
//! raft 0.7 trusts its input: it panics on some of it, and acts unsafely on more. `validate` is a
//! total function of what this node knows and the message; it changes nothing. The frame's
//! checksum, cluster, sender and receiver are checked before (`wire`, `node`).

use raft::eraftpb::MessageType;

use crate::{
    id::NodeId,
    mutant::Mutant,
    wire::{EntryKind, LogEntry, RaftMessage},
};

use super::{
    ended::{Divergence, Ended},
    membership::{Members, MembershipChange},
};

/// What the node knows, as far as a message may clash with it.
pub(super) struct View<'a> {
    pub(super) id: NodeId,
    pub(super) term: u64,
    /// Whether this node leads in `term`.
    pub(super) leads: bool,
    /// Whom this node follows now.
    pub(super) leader: Option<NodeId>,
    /// The last term whose leader is known, and that leader.
    pub(super) term_leader: Option<(u64, NodeId)>,
    pub(super) commit: u64,
    pub(super) last_index: u64,
    /// The terms of the entries that are still in memory.
    pub(super) term_at: &'a dyn Fn(u64) -> Option<u64>,
    /// The snapshot that the node has staged and verified.
    pub(super) staged: Option<(u64, u64)>,
    pub(super) may_vote: bool,
    /// Whom a node without its tail may vote for all the same: the leader of the term in which it
    /// started has everything that it ever acknowledged.
    pub(super) trusted: Option<NodeId>,
    /// A joiner knows no members, and nothing that its votes could stand for.
    pub(super) joiner: bool,
    /// Whether the node holds entries or a snapshot that are not durable yet.
    pub(super) undrained: bool,
}

/// What becomes of a message.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Verdict {
    Accept(MessageType),
    Reject(Rejected),
    /// The message shows that this node's own state is at fault.
    End(Ended),
}

/// Why a message had no effect.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Rejected {
    /// It is fine, but of no use to this node now.
    #[error("ignored: {0}")]
    Ignored(Ignored),
    /// No correct peer sends it.
    #[error("misbehaving peer: {0}")]
    Misbehaving(Misbehaving),
}

/// Why a message is of no use now.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Ignored {
    /// The node has ended, maybe by this message.
    #[error("the node has ended")]
    Ended,
    /// A write is out.
    #[error("a write is out")]
    WriteOut,
    /// A response of somebody who is no member.
    #[error("the sender is not a member")]
    NotAMember,
    /// The node lost an ambiguous tail, or knows no members: it does not vote.
    #[error("this node may not vote")]
    MayNotVote,
    /// Entries must be durable before a campaign.
    #[error("entries are not durable yet")]
    Undrained,
    /// The snapshot is not the one that is staged and verified.
    #[error("the snapshot is not the staged one")]
    NotStaged,
    /// The snapshot does not name this node.
    #[error("the snapshot does not name this node")]
    NotInSnapshot,
    /// A wish of somebody who is not the leader, or of another term.
    #[error("not from the leader of this term")]
    NotTheLeader,
    /// An answer to a question of another term.
    #[error("it belongs to another term")]
    Stale,
    /// raft had no use for it.
    #[error("raft dropped it")]
    Dropped,
}

/// What is wrong with a message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Misbehaving {
    /// A number that is no message type.
    #[error("unknown message type")]
    UnknownKind,
    /// A type that members do not send each other.
    #[error("forbidden message type")]
    ForbiddenKind,
    /// The sender has this node's own id.
    #[error("the sender has this node's id")]
    FromSelf,
    /// Term 0, a term from 2^62 on, or 2^32 ahead.
    #[error("term out of range")]
    Term,
    /// An index from 2^62 on.
    #[error("index out of range")]
    Index,
    /// A priority, which nobody has.
    #[error("a priority")]
    Priority,
    /// A snapshot is asked for, which nobody does.
    #[error("a request for a snapshot")]
    RequestSnapshot,
    /// A context that the type does not have.
    #[error("unexpected context")]
    Context,
    /// A field that the type does not have.
    #[error("unexpected {0}")]
    Unexpected(&'static str),
    /// The term of the entry before does not fit.
    #[error("impossible log term")]
    LogTerm,
    /// Entries with gaps, or terms that fall or are not the sender's.
    #[error("impossible entries")]
    Entries,
    /// Something acknowledged that was never sent.
    #[error("acknowledges what this leader never had")]
    Acknowledgement,
    /// A snapshot that no leader makes.
    #[error("impossible snapshot")]
    Snapshot,
}

/// Judges a message.
pub(super) fn validate(view: &View<'_>, from: NodeId, message: &RaftMessage) -> Verdict {
    match check(view, from, message) {
        Ok(kind) => Verdict::Accept(kind),
        Err(verdict) => verdict,
    }
}

fn check(view: &View<'_>, from: NodeId, message: &RaftMessage) -> Result<MessageType, Verdict> {
    let kind = allowed_kind(message.kind)?;
    check_common(view, from, message)?;
    check_fields(kind, message)?;
    if message.term >= view.term {
        match kind {
            MessageType::MsgAppend => check_append(view, from, message)?,
            MessageType::MsgHeartbeat => check_heartbeat(view, from, message)?,
            MessageType::MsgSnapshot => check_snapshot(view, from, message)?,
            MessageType::MsgAppendResponse => check_append_response(view, message)?,
            MessageType::MsgTimeoutNow => check_timeout_now(view, from, message)?,
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => {
                check_vote_request(view, from, message)?;
            }
            MessageType::MsgRequestPreVoteResponse => check_pre_vote(view, message)?,
            _ => {}
        }
    }
    Ok(kind)
}

fn allowed_kind(kind: u32) -> Result<MessageType, Verdict> {
    Ok(match kind {
        3 => MessageType::MsgAppend,
        4 => MessageType::MsgAppendResponse,
        5 => MessageType::MsgRequestVote,
        6 => MessageType::MsgRequestVoteResponse,
        7 => MessageType::MsgSnapshot,
        8 => MessageType::MsgHeartbeat,
        9 => MessageType::MsgHeartbeatResponse,
        14 => MessageType::MsgTimeoutNow,
        17 => MessageType::MsgRequestPreVote,
        18 => MessageType::MsgRequestPreVoteResponse,
        0..=18 => return Err(misbehaving(Misbehaving::ForbiddenKind)),
        _ => return Err(misbehaving(Misbehaving::UnknownKind)),
    })
}

fn check_common(view: &View<'_>, from: NodeId, message: &RaftMessage) -> Result<(), Verdict> {
    require(from != view.id, Misbehaving::FromSelf)?;
    // Term 0 would pass as a local message, and put a candidate back to term 0 (H1).
    let term = message.term;
    let first = u64::from(!Mutant::TermZeroTaken.active());
    require((first..NUMBER_END).contains(&term), Misbehaving::Term)?;
    require(term.saturating_sub(view.term) < TERMS_AHEAD_END, Misbehaving::Term)?;
    let terms = [message.log_term, message.commit_term];
    require(terms.iter().all(|&other| other <= term), Misbehaving::LogTerm)?;
    let numbers = [message.index, message.commit, message.reject_hint, message.durable];
    require(numbers.iter().all(|&number| number < NUMBER_END), Misbehaving::Index)?;
    require(message.priority == 0, Misbehaving::Priority)?;
    require(message.request_snapshot == 0, Misbehaving::RequestSnapshot)
}

/// Each type has its own fields, and no others.
fn check_fields(kind: MessageType, message: &RaftMessage) -> Result<(), Verdict> {
    use MessageType as M;
    let only = |kinds: &[M], given: bool, name| {
        require(!given || kinds.contains(&kind), Misbehaving::Unexpected(name))
    };
    only(&[M::MsgAppend], !message.entries.is_empty(), "entries")?;
    only(&[M::MsgSnapshot], message.snapshot.is_some(), "snapshot")?;
    only(&[M::MsgAppendResponse], message.reject_hint != 0, "reject hint")?;
    only(&[M::MsgAppend, M::MsgHeartbeat], message.durable != 0, "durable index")?;
    let responses = [M::MsgAppendResponse, M::MsgRequestVoteResponse, M::MsgRequestPreVoteResponse];
    only(&responses, message.reject, "reject")?;
    let fits = match kind {
        M::MsgHeartbeat | M::MsgHeartbeatResponse => {
            matches!(message.context.len(), 0 | READ_CONTEXT_BYTES)
        }
        M::MsgRequestVote => message.context.is_empty() || message.context == *CAMPAIGN_TRANSFER,
        _ => message.context.is_empty(),
    };
    require(fits, Misbehaving::Context)
}

fn check_append(view: &View<'_>, from: NodeId, message: &RaftMessage) -> Result<(), Verdict> {
    check_leader(view, from, message.term)?;
    // Every log starts after a snapshot with index and term from 1 on (H12), so nothing is ever
    // appended after index 0; raft would take it as a match anywhere beyond the log (H3).
    require(message.index != 0 && message.log_term != 0, Misbehaving::LogTerm)?;
    let (mut index, mut term) = (message.index, message.log_term);
    check_committed(view, from, index, term)?;
    for entry in &message.entries {
        let follows = entry.index == index + 1 && entry.index < NUMBER_END;
        let in_term = entry.term >= term && entry.term <= message.term;
        require(follows && in_term && readable(entry), Misbehaving::Entries)?;
        (index, term) = (entry.index, entry.term);
        check_committed(view, from, index, term)?;
    }
    Ok(())
}

fn check_heartbeat(view: &View<'_>, from: NodeId, message: &RaftMessage) -> Result<(), Verdict> {
    check_leader(view, from, message.term)?;
    let (commit, last_index) = (message.commit, view.last_index);
    // A leader announces no more than this node has acknowledged to it. Without its cut tail a
    // node has less, knows it, and does not vote until it has it again.
    if commit > last_index && view.may_vote {
        let leader = from;
        return Err(Verdict::End(Ended::LogLost { leader, commit, last_index }));
    }
    Ok(())
}

fn check_snapshot(view: &View<'_>, from: NodeId, message: &RaftMessage) -> Result<(), Verdict> {
    check_leader(view, from, message.term)?;
    let wrong = misbehaving(Misbehaving::Snapshot);
    let Some(meta) = &message.snapshot else {
        return Err(wrong);
    };
    let in_range = (1..NUMBER_END).contains(&meta.index) && (1..=message.term).contains(&meta.term);
    let members = Members::of_snapshot(meta).filter(|_| in_range).ok_or(wrong)?;
    if !members.contains(view.id) {
        return Err(ignored(Ignored::NotInSnapshot));
    }
    check_committed(view, from, meta.index, meta.term)?;
    if view.staged != Some((meta.index, meta.term)) {
        return Err(ignored(Ignored::NotStaged));
    }
    Ok(())
}

fn check_append_response(view: &View<'_>, message: &RaftMessage) -> Result<(), Verdict> {
    let of_this_term = view.leads && message.term == view.term;
    let known = message.index <= view.last_index && message.commit <= view.last_index;
    require(!of_this_term || known, Misbehaving::Acknowledgement)
}

fn check_timeout_now(view: &View<'_>, from: NodeId, message: &RaftMessage) -> Result<(), Verdict> {
    if message.term != view.term || view.leader != Some(from) || view.leads {
        return Err(ignored(Ignored::NotTheLeader));
    }
    if view.joiner || !view.may_vote {
        return Err(ignored(Ignored::MayNotVote));
    }
    if view.undrained {
        return Err(ignored(Ignored::Undrained));
    }
    Ok(())
}

fn check_vote_request(view: &View<'_>, from: NodeId, message: &RaftMessage) -> Result<(), Verdict> {
    let standing = message.index > 0 && message.log_term > 0 && message.log_term < message.term;
    require(standing, Misbehaving::LogTerm)?;
    if view.joiner || !(view.may_vote || view.trusted == Some(from)) {
        return Err(ignored(Ignored::MayNotVote));
    }
    Ok(())
}

fn check_pre_vote(view: &View<'_>, message: &RaftMessage) -> Result<(), Verdict> {
    // raft counts a grant whatever its term, also one of an earlier campaign.
    if !message.reject && message.term != view.term + 1 {
        return Err(ignored(Ignored::Stale));
    }
    Ok(())
}

/// One term has one leader (H6).
fn check_leader(view: &View<'_>, from: NodeId, term: u64) -> Result<(), Verdict> {
    match view.term_leader {
        Some((known_term, known)) if known_term == term && known != from => {
            let divergence = Divergence::TwoLeaders { term, known, other: from };
            Err(Verdict::End(Ended::Divergence(divergence)))
        }
        _ => Ok(()),
    }
}

/// What is committed here is committed everywhere.
fn check_committed(
    view: &View<'_>,
    leader: NodeId,
    index: u64,
    leader_term: u64,
) -> Result<(), Verdict> {
    if index > view.commit {
        return Ok(());
    }
    match (view.term_at)(index) {
        Some(local_term) if local_term != leader_term => {
            let divergence = Divergence::Committed { index, local_term, leader_term, leader };
            Err(Verdict::End(Ended::Divergence(divergence)))
        }
        _ => Ok(()),
    }
}

/// What is committed is applied everywhere, so what nobody can read is stopped before.
fn readable(entry: &LogEntry) -> bool {
    match entry.kind {
        EntryKind::Normal => true,
        EntryKind::Membership => {
            entry.data.is_empty() || MembershipChange::decode(entry.data.clone()).is_some()
        }
    }
}

fn require(holds: bool, otherwise: Misbehaving) -> Result<(), Verdict> {
    if holds { Ok(()) } else { Err(misbehaving(otherwise)) }
}

fn misbehaving(reason: Misbehaving) -> Verdict {
    Verdict::Reject(Rejected::Misbehaving(reason))
}

fn ignored(reason: Ignored) -> Verdict {
    Verdict::Reject(Rejected::Ignored(reason))
}

/// Terms and indexes end here, so that sums and steps on them never overflow (P9).
pub(super) const NUMBER_END: u64 = 1 << 62;
/// How far ahead another's term may be.
const TERMS_AHEAD_END: u64 = 1 << 32;
const READ_CONTEXT_BYTES: usize = 16;
/// raft's mark on the vote requests of a leadership transfer.
const CAMPAIGN_TRANSFER: &[u8] = b"CampaignTransfer";
