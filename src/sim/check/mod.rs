//! What must always hold, one promise a file.
//!
//! `Agreement` looks at every member after each of its turns, whatever the application does; the
//! others judge what clients have seen, and are for any test: record what was asked and answered,
//! and ask for the verdict. They know nothing of the simulator: a test of real processes records
//! what its clients saw in the order in which it saw it, and what nobody answered stays open.
//!
//! ```
//! use quorate::sim::check::{Linear, Operation, Seen};
//! let mut history = Linear::new();
//! // Before a request is sent, so that it began at the latest then ..
//! let write = history.begin(1, Operation::Create { value: 7 });
//! let _killed = history.begin(1, Operation::Set { value: 8, expected: None });
//! // .. and after its answer was read; the process that was asked the other one was killed.
//! history.end(write, Seen::Done);
//! let read = history.begin(1, Operation::Read);
//! history.end(read, Seen::Found(8, 1));
//! assert!(history.check().is_ok(), "the write that nobody answered was done");
//! ```

mod election;
mod fifo;
mod lease;
mod linear;
mod lock;
mod log;
mod monotone;
mod moves;
mod order;
mod rights;
mod state;
mod transactions;
mod watch;

use bytes::Bytes;

use crate::{
    id::NodeId,
    node::{Glimpse, Node},
};

pub use fifo::Fifo;
pub use lease::Leases;
pub use linear::{Linear, Operation, Seen};
pub use lock::Locks;
pub use moves::Moves;
pub use rights::Leaks;
pub use transactions::{Test, Told, Transaction, Transactions};
pub use watch::Watches;

/// The promises that hold between members.
#[derive(Debug, Default)]
pub(super) struct Agreement {
    election: election::Election,
    log: log::Log,
    monotone: monotone::Monotone,
    state: state::States,
}

impl Agreement {
    /// Looks at a member after a turn; `life` counts its starts.
    pub(super) fn observe(
        &mut self,
        id: NodeId,
        life: u64,
        seen: &Glimpse,
        node: &Node,
    ) -> Result<(), String> {
        self.monotone.observe(id, life, seen)?;
        self.election.observe(id, seen)?;
        self.log.observe(id, life, seen, node)?;
        self.state.observe(id, seen)
    }

    /// A member has sent this in its last turn.
    pub(super) fn sent(&mut self, id: NodeId, frame: &Bytes) {
        self.monotone.sent(id, frame);
    }

    /// The memory of a member has gone bad: from now on states may differ, until they are compared.
    pub(super) fn expect_rot(&mut self) {
        self.state.expect_rot();
        self.monotone.expect_rot();
    }

    /// A member has lost its disk.
    pub(super) fn forget(&mut self, id: NodeId) {
        self.monotone.forget(id);
    }
}

#[cfg(test)]
fn glimpse(term: u64, commit: u64, applied: u64) -> Glimpse {
    Glimpse {
        term,
        vote: 0,
        leads: false,
        commit,
        applied,
        last_index: commit,
        zxid: applied,
        digest: applied,
    }
}

#[cfg(test)]
fn id(id: u64) -> NodeId {
    NodeId::new(id).expect("small")
}
