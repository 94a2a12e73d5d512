//! What the simulator looks at after each turn, cheap, because it does so very often; and the
//! faults that it has inside of a node.

use bytes::Bytes;

use crate::{
    consensus::Role,
    id::NodeId,
    node::Node,
    wire::{Body, RaftMessage},
};

/// Where a node stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Glimpse {
    pub(crate) term: u64,
    /// For whom in this term; 0 for nobody.
    pub(crate) vote: u64,
    pub(crate) leads: bool,
    pub(crate) commit: u64,
    pub(crate) applied: u64,
    pub(crate) last_index: u64,
    pub(crate) zxid: u64,
    /// Of everything that is replicated, after `applied`.
    pub(crate) digest: u64,
}

impl Node {
    pub(crate) fn glimpse(&self) -> Glimpse {
        Glimpse {
            term: self.consensus.term(),
            vote: self.consensus.vote(),
            leads: self.consensus.role() == Role::Leader,
            commit: self.consensus.commit(),
            applied: self.applied,
            last_index: self.consensus.last_index(),
            zxid: self.namespace.zxid().as_u64(),
            digest: self.namespace.digest().value,
        }
    }

    /// Term and checksum of an entry, if it is in memory.
    pub(crate) fn entry(&self, index: u64) -> Option<(u64, u32)> {
        self.consensus.entry(index)
    }

    /// Whether this node has durably pinned the present opening of that one.
    pub(crate) fn has_pinned(&self, other: &Self) -> bool {
        self.identity.has_pinned(other.config.id, other.identity.own())
    }

    /// A frame in this node's name that no node sends: a heartbeat of term 0.
    pub(crate) fn forge(&self, to: NodeId, commit: u64) -> Bytes {
        let message = RaftMessage { kind: HEARTBEAT, commit, ..RaftMessage::default() };
        self.frame(to, Body::Raft(message)).bytes
    }

    /// A bit of the state flips.
    pub(crate) fn rot_memory(&mut self) {
        self.namespace.corrupt_time();
    }

    /// The term of an entry, as far back as the one before the first in memory.
    pub(crate) fn entry_term(&self, index: u64) -> Option<u64> {
        self.consensus.term_at(index)
    }
}

/// `eraftpb::MessageType::MsgHeartbeat`.
const HEARTBEAT: u32 = 8;
