//! Sessions: leases on the replicated clock, and exactly-once execution in sequence.
//!
//! ARCHITECTURE.md, rules 3, 4, 7 and 9.
//!
//! Invariants:
//! - A session keeps exactly the replies to the numbers after `acked`, up to `last_seq`.
//! - A session's `ephemerals` are exactly the nodes that name its own lease as their owner.

use std::sync::Arc;

use imbl::{OrdSet, Vector};

use crate::{
    config::Parameters,
    id::{LeaseId, NodeId, SecretHash, SessionId, Zxid},
    mutant::Mutant,
    namespace::{
        digest::{self, Sum},
        list::child_bytes,
    },
    op::{Identities, LimitName, OpError, Outcome, Reply, Txn},
    path::Path,
};

/// The opening of a node where a session was opened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Opener {
    pub(super) node: NodeId,
    pub(super) boot_nonce: u64,
}

/// One session; its id is the map's key.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) secret: SecretHash,
    pub(super) ttl_us: u64,
    pub(super) deadline_us: u64,
    pub(super) epoch: u64,
    /// The number of the last command that was applied.
    pub(super) last_seq: u64,
    /// Every reply up to this number has reached the client. Invariant: at most `last_seq`.
    pub(super) acked: u64,
    /// The number of the newest keep-alive of this attachment.
    pub(super) keep_alive: u64,
    pub(super) opened: Zxid,
    /// Where it was opened under the epoch in force; `None` once it was attached.
    pub(super) opener: Option<Opener>,
    /// `None` for nobody in particular.
    who: Option<Arc<Who>>,
    pub(super) ephemerals: OrdSet<Arc<str>>,
    /// Beside the session's own.
    pub(super) leases: OrdSet<LeaseId>,
    /// Ephemeral nodes of the session and of its leases.
    pub(super) owned: u64,
    replies: Vector<Arc<Reply>>,
    reply_bytes: u64,
    /// Of the replies that are kept.
    kept: Sum,
}

impl Session {
    pub(super) fn new(secret: SecretHash, ttl_us: u64, deadline_us: u64, opened: Zxid) -> Self {
        Self {
            secret,
            ttl_us,
            deadline_us,
            epoch: FIRST_EPOCH,
            last_seq: 0,
            acked: 0,
            keep_alive: 0,
            opened,
            opener: None,
            who: None,
            ephemerals: OrdSet::new(),
            leases: OrdSet::new(),
            owned: 0,
            replies: Vector::new(),
            reply_bytes: 0,
            kept: Sum::default(),
        }
    }

    /// As they were handed in with the attachment.
    pub(super) fn identities(&self) -> &Identities {
        self.who.as_ref().map_or(&NOBODY, |who| &who.identities)
    }

    pub(super) fn set_identities(&mut self, identities: Identities) {
        let somebody = !identities.as_slice().is_empty();
        let who = || Who { hash: digest::of_identities(&identities), identities };
        self.who = somebody.then(who).map(Arc::new);
    }

    /// What they come to in the digest.
    pub(super) fn identities_hash(&self) -> u64 {
        self.who.as_ref().map_or(0, |who| who.hash)
    }

    /// What becomes of a command (rule 7). `keeps` is the client's watermark, and the room that the
    /// reply may need; a close has none, and is held back by no window, for it keeps no reply.
    pub(super) fn admit(
        &mut self,
        id: SessionId,
        epoch: u64,
        seq: u64,
        keeps: Option<(u64, u64)>,
        parameters: &Parameters,
    ) -> Admission {
        if epoch != self.epoch && !Mutant::MovedGoesOn.active() {
            return Admission::Refuse(OpError::Moved { session: id, epoch: self.epoch });
        }
        if Mutant::GapTaken.active() && seq > self.last_seq + 1 {
            self.acknowledge(self.last_seq);
            (self.acked, self.last_seq) = (seq - 1, seq - 1);
        }
        let expected = self.last_seq + 1;
        if seq > expected {
            return Admission::Refuse(OpError::Gap { expected, actual: seq });
        }
        if let Some((acked, _)) = keeps {
            self.acknowledge(acked);
        }
        if seq < expected && !Mutant::RepeatApplied.active() {
            return match self.cached(seq) {
                Some(reply) => Admission::Cached(reply.clone()),
                None => Admission::Refuse(OpError::AlreadyAcknowledged { seq }),
            };
        }
        match keeps {
            Some((_, room_bytes)) => self.check_window(room_bytes, parameters),
            None => Admission::Next,
        }
    }

    /// Drops the replies that have reached the client.
    pub(super) fn acknowledge(&mut self, acked: u64) {
        let acked = acked.min(self.last_seq);
        while self.acked < acked {
            self.acked += 1;
            if let Some(reply) = self.replies.pop_front() {
                self.reply_bytes -= weight(&reply);
                self.kept.remove(digest::of_reply(self.acked, &reply));
            }
        }
    }

    /// Keeps the reply to the next number.
    pub(super) fn record(&mut self, reply: Reply) {
        if Mutant::RepliesDropped.active() {
            self.acknowledge(self.last_seq);
        }
        self.last_seq += 1;
        self.restore(reply);
    }

    /// Keeps the reply to a number that is consumed already.
    pub(super) fn restore(&mut self, reply: Reply) {
        self.reply_bytes += weight(&reply);
        let seq = self.acked + self.replies.len() as u64 + 1;
        self.kept.add(digest::of_reply(seq, &reply));
        self.replies.push_back(Arc::new(reply));
    }

    /// The kept reply to a number.
    pub(super) fn cached(&self, seq: u64) -> Option<&Reply> {
        let index = seq.checked_sub(self.acked)?.checked_sub(1)?;
        let reply = self.replies.get(usize::try_from(index).ok()?)?;
        Some(reply)
    }

    pub(super) fn kept(&self) -> Sum {
        self.kept
    }

    pub(super) fn window_count(&self) -> u64 {
        self.replies.len() as u64
    }

    pub(super) fn window_bytes(&self) -> u64 {
        self.reply_bytes
    }

    pub(super) fn state(&self, id: SessionId) -> SessionState {
        SessionState {
            id,
            epoch: self.epoch,
            ttl_us: self.ttl_us,
            deadline_us: self.deadline_us,
            last_seq: self.last_seq,
            acked: self.acked,
            keep_alive: self.keep_alive,
            window_count: self.window_count(),
            window_bytes: self.window_bytes(),
        }
    }

    fn check_window(&self, room_bytes: u64, parameters: &Parameters) -> Admission {
        let count = self.window_count() + 1;
        if count > parameters.window_count_max {
            return Admission::Refuse(OpError::Limit {
                limit: LimitName::WindowCount,
                value: count,
                max: parameters.window_count_max,
            });
        }
        // The reply is not known yet, so there must be room for the largest.
        let bytes = self.reply_bytes + room_bytes;
        if bytes > parameters.window_bytes_max {
            return Admission::Refuse(OpError::Limit {
                limit: LimitName::WindowBytes,
                value: bytes,
                max: parameters.window_bytes_max,
            });
        }
        Admission::Next
    }

    /// Changes the oldest kept reply as a broken memory would.
    #[cfg(test)]
    pub(super) fn corrupt(&mut self) {
        let reply = Arc::make_mut(self.replies.front_mut().expect("there is one"));
        reply.zxid = Zxid::new(reply.zxid.as_u64() ^ 1);
    }
}

/// Identities, and what they come to in the digest, worked out once.
struct Who {
    identities: Identities,
    hash: u64,
}

/// What becomes of a sequenced command.
pub(super) enum Admission {
    /// It is the next one.
    Next,
    /// It was applied before.
    Cached(Reply),
    /// It has no effect, and its number is not consumed.
    Refuse(OpError),
}

/// A session as the node sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SessionState {
    pub(crate) id: SessionId,
    pub(crate) epoch: u64,
    pub(crate) ttl_us: u64,
    /// On the replicated clock.
    pub(crate) deadline_us: u64,
    pub(crate) last_seq: u64,
    pub(crate) acked: u64,
    /// The newest keep-alive of this attachment.
    pub(crate) keep_alive: u64,
    /// Replies that are kept, and what they count for.
    pub(crate) window_count: u64,
    pub(crate) window_bytes: u64,
}

/// Room that the largest reply to a transaction needs.
pub(super) fn room_bytes(txn: &Txn, parameters: &Parameters) -> u64 {
    match txn.is_verbose() {
        true => REPLY_BYTES_MAX.max(REPLY_BYTES + parameters.window_bytes_max / 2),
        false => REPLY_BYTES_MAX,
    }
}

/// What a reply counts for against `window_bytes_max`.
fn weight(reply: &Reply) -> u64 {
    let bytes = match &reply.result {
        Ok(outcome) => outcome_bytes(outcome),
        Err(error) => error_bytes(error),
    };
    REPLY_BYTES + bytes
}

/// What the outcome of one operation of a transaction counts for.
pub(super) fn in_txn_bytes(outcome: &Outcome) -> u64 {
    REPLY_BYTES + outcome_bytes(outcome)
}

/// What an outcome counts for beyond the reply that it stands in.
pub(super) fn outcome_bytes(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Created { path, .. } => path.as_str().len() as u64,
        Outcome::Node { data, .. } => data.len() as u64,
        Outcome::Listed(page) => {
            let children = page.children.iter().map(child_bytes).sum::<usize>();
            children as u64 + page.resume.as_ref().map_or(0, |it| it.len() as u64)
        }
        Outcome::Txn { results, .. } => results.iter().map(in_txn_bytes).sum(),
        Outcome::Acl { acl, .. } => acl.bytes() as u64,
        Outcome::Set { .. }
        | Outcome::AclSet { .. }
        | Outcome::QuotaSet
        | Outcome::Granted { .. }
        | Outcome::Revoked { .. }
        | Outcome::Deleted
        | Outcome::DeletedTree { .. }
        | Outcome::Checked
        | Outcome::Exists(_)
        | Outcome::Closed => 0,
    }
}

fn error_bytes(error: &OpError) -> u64 {
    match error {
        OpError::NoNode { path }
        | OpError::NodeExists { path }
        | OpError::BadVersion { path, .. }
        | OpError::NotEmpty { path, .. }
        | OpError::NoChildrenForEphemerals { path }
        | OpError::NoAuth { path, .. }
        | OpError::InvalidAcl { path }
        | OpError::Quota { path, .. }
        | OpError::GuardFailed { path, .. } => path.as_str().len() as u64,
        OpError::InTxn { cause, .. } => error_bytes(cause),
        _ => 0,
    }
}

static NOBODY: Identities = Identities::none();
/// About what a reply takes in memory beyond its path's text.
const REPLY_BYTES: u64 = 192;
/// What the largest reply counts for.
const REPLY_BYTES_MAX: u64 = REPLY_BYTES + Path::BYTES_MAX as u64;
/// The epoch of a session that was never attached elsewhere.
pub(super) const FIRST_EPOCH: u64 = 1;
