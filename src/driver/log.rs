//! Where a host persists: the durable log, or nowhere.

use crate::node::Write;

/// Where a host persists what its node writes.
#[derive(Debug)]
#[non_exhaustive]
pub enum Log {
    /// Nowhere: for tests and measurements. A member that is opened again on it has forgotten what
    /// it acknowledged, so it must never be.
    Memory,
}

impl Log {
    /// Makes `write` durable.
    pub(super) fn persist(&mut self, _write: &Write) -> Result<(), String> {
        match self {
            Self::Memory => Ok(()),
        }
    }
}
