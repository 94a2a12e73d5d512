//! What can go wrong with a store, and what to do about it.

use std::{
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::{
    id::{ClusterId, NodeId},
    node::{DiskError, DiskFault},
};

/// Why a store cannot be opened, or why a write did not become durable.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WalError {
    /// The operating system refused an operation.
    #[error(
        "cannot {op} {}: {source}; check the disk, then open the store again",
        path.display()
    )]
    Io {
        /// What was tried.
        op: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The disk is full.
    #[error(
        "no space left to {op} {}: {source}; free space, then open the store again",
        path.display()
    )]
    NoSpace {
        /// What was tried.
        op: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another node has the directory open.
    #[error("{} is locked: stop the node that uses it, or give this one its own", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// Bytes that were durable are not what was written. Nothing was changed.
    #[error(
        "{} is corrupt at byte {offset}: {reason}; nothing was changed; keep the directory for \
         analysis and let the member join again under a new id",
        file.display()
    )]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// A file that the manifest names is not there.
    #[error(
        "{} is missing although the manifest names it: put it back, or let the member join again \
         under a new id",
        file.display()
    )]
    Missing {
        /// The file.
        file: PathBuf,
    },
    /// There are logs or snapshots, but no manifest.
    #[error(
        "{} has {file} but no MANIFEST: put the manifest back; only if the data is not needed, \
         give an empty directory and let the member join again under a new id",
        dir.display()
    )]
    ManifestMissing {
        /// The directory.
        dir: PathBuf,
        /// A file that shows that there was a store.
        file: String,
    },
    /// A file has a format that this release does not know.
    #[error(
        "{} has format version {found}, this release reads {supported}: use the release that \
         wrote it",
        file.display()
    )]
    Version {
        /// The file.
        file: PathBuf,
        /// The version that it has.
        found: u32,
        /// The version that is known here.
        supported: u32,
    },
    /// The store belongs to another cluster.
    #[error(
        "{} belongs to cluster {found}, not to {expected}: give the right directory or the right \
         cluster",
        dir.display()
    )]
    OtherCluster {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        found: ClusterId,
        /// Who asked.
        expected: ClusterId,
    },
    /// The store belongs to another member.
    #[error(
        "{} belongs to node {found}, not to {expected}: give the right directory or the right id",
        dir.display()
    )]
    OtherNode {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// Who asked.
        expected: NodeId,
    },
    /// An earlier error ended this log: nobody knows any more what the disk holds.
    #[error("the log is poisoned: {cause}; drop it and open the store again")]
    Poisoned {
        /// The earlier error.
        cause: String,
    },
    /// A write breaks the contract of [`Write`](crate::node::Write), or an option is out of range.
    #[error("misuse of the log: {reason}; this is a bug of the caller")]
    Misuse {
        /// Which rule, with the values.
        reason: String,
    },
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system: {reason}; pass entropy in the options")]
    Entropy {
        /// What it said.
        reason: String,
    },
}

impl From<WalError> for DiskError {
    /// What a node is told; the remedy is the node's to say.
    fn from(error: WalError) -> Self {
        use WalError as E;
        let fault = match &error {
            E::NoSpace { .. } => DiskFault::Full,
            E::Corrupt { .. } | E::Missing { .. } | E::ManifestMissing { .. } => DiskFault::Damaged,
            _ => DiskFault::Failed,
        };
        let why = match &error {
            E::Io { op, path, source } | E::NoSpace { op, path, source } => {
                format!("cannot {op} {}: {source}", path.display())
            }
            E::Corrupt { file, offset, reason } => {
                format!("{} is corrupt at byte {offset}: {reason}", file.display())
            }
            E::Missing { file } => format!("{} is missing", file.display()),
            error => error.to_string(),
        };
        Self { fault, why }
    }
}

impl WalError {
    pub(super) fn io(op: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { op, path, source }
            }
            _ => Self::Io { op, path, source },
        }
    }

    pub(super) fn corrupt(file: &Path, offset: u64, reason: impl Into<String>) -> Self {
        Self::Corrupt { file: file.to_path_buf(), offset, reason: reason.into() }
    }

    pub(super) fn misuse(reason: impl Into<String>) -> Self {
        Self::Misuse { reason: reason.into() }
    }
}
