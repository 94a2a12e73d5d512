//! What the simulator looks at after each turn; cheap, because it does so very often.

use crate::{consensus::Role, node::Node};

/// Where a node stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Glimpse {
    pub(crate) term: u64,
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

    /// The term of an entry, as far back as the one before the first in memory.
    pub(crate) fn entry_term(&self, index: u64) -> Option<u64> {
        self.consensus.term_at(index)
    }
}
