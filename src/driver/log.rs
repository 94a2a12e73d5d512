//! Where a host persists: the durable log, or nowhere.

use std::{path::Path, sync::Arc};

use crate::{
    id::{ClusterId, NodeId},
    node::{DiskError, DiskUse, Restored, Write},
    wal::{Chore, ChoreDone, Fs, Wal, WalError},
};

/// Where a host persists what its node writes.
#[derive(Debug)]
#[non_exhaustive]
pub enum Log {
    /// The durable log.
    Wal(Box<Wal>),
    /// Nowhere: for tests and measurements. A member that is opened again on it has forgotten what
    /// it acknowledged, so it must never be.
    Memory,
}

impl Log {
    /// Opens the durable log in `dir`, and gives back what it holds.
    ///
    /// # Errors
    ///
    /// Those of [`Wal::open`].
    pub fn open(
        fs: Arc<dyn Fs>,
        dir: &Path,
        cluster: ClusterId,
        node: NodeId,
    ) -> Result<(Self, Restored), WalError> {
        let (wal, restored) = Wal::open(fs, dir, cluster, node)?;
        Ok((Self::Wal(Box::new(wal)), restored))
    }

    /// Makes `write` durable.
    pub(super) fn persist(&mut self, write: &Write) -> Result<(), DiskError> {
        match self {
            Self::Wal(wal) => wal.persist(write).map_err(DiskError::from),
            Self::Memory => Ok(()),
        }
    }

    pub(super) fn chore(&mut self) -> Option<Chore> {
        match self {
            Self::Wal(wal) => wal.chore(),
            Self::Memory => None,
        }
    }

    pub(super) fn scrub(&mut self) -> Option<Chore> {
        match self {
            Self::Wal(wal) => wal.scrub(),
            Self::Memory => None,
        }
    }

    /// An error poisons the log: nothing can be made durable any more.
    pub(super) fn chore_done(&mut self, done: ChoreDone) -> Result<(), DiskError> {
        match self {
            Self::Wal(wal) => wal.chore_done(done).map_err(DiskError::from),
            Self::Memory => Ok(()),
        }
    }

    /// What the disk holds; `was_full` says whether it was full before. It stays so while the log
    /// tries again, until there is a spare segment.
    pub(super) fn disk_use(&self, was_full: bool) -> DiskUse {
        let mut disk = DiskUse::default();
        if let Self::Wal(wal) = self {
            let status = wal.status();
            (disk.log_bytes, disk.snapshot_bytes) = (status.bytes, status.snapshot_bytes);
            disk.is_full = status.no_space || (was_full && status.spares == 0);
        }
        disk
    }
}
