//! The durable log and the snapshot files of one member.
//!
//! [`Wal::open`] gives back what a crash left, [`Wal::persist`] makes a
//! [`Write`](crate::node::Write) durable. Everything on disk goes through [`Fs`]; ARCHITECTURE.md
//! this file, has every byte and what is expected of the medium.
//!
//! **What `persist` said `Ok` to is there after a crash, or `open` fails with a typed error.**
//! After the first error nobody knows what the disk holds: the log is poisoned and says so from
//! then on.

mod chore;
mod error;
mod fs;
mod log;
mod manifest;
mod memory;
mod open;
mod options;
mod recover;
mod sector;
mod segment;
mod snapshot;
#[cfg(test)]
mod tests;

pub use chore::{Chore, ChoreDone};
pub use error::WalError;
pub use fs::{Fs, FsFile, OsFs};
pub use log::Wal;
pub use memory::{Fault, Keep, MemoryFs, Unsynced};
pub use options::{WalOptions, WalStatus};
