//! What a log is told when it is opened, and what it tells of itself.

use crate::wal::{WalError, sector::SECTOR};

/// How a store is kept.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WalOptions {
    /// Replaces the operating system's random bytes, so that a simulated run repeats. Every store
    /// needs its own.
    pub entropy: Option<[u8; 32]>,
    /// The size of a segment file: a multiple of 512, from 4096 to 2^40.
    pub segment_bytes: u64,
    /// How many segments that are no longer needed are kept to be written again.
    pub spares_max: usize,
}

/// What a log looks like from outside.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct WalStatus {
    /// Segment files that count.
    pub segments: usize,
    /// Their size, used or not.
    pub bytes: u64,
    /// How many batches were synced since the log was opened.
    pub syncs: u64,
    /// The last entry that is durable.
    pub synced_index: u64,
    /// The last entry that the current snapshot covers; 0 without one.
    pub snapshot_index: u64,
    /// The size of the snapshots that are kept.
    pub snapshot_bytes: u64,
    /// A snapshot that is finished and not yet installed: index and term.
    pub staged: Option<(u64, u64)>,
    /// Segments that are ready to be written.
    pub spares: usize,
    /// Whether a spare segment could not be made for lack of space: stop taking proposals.
    pub no_space: bool,
    /// Why the log is at its end, if it is.
    pub poisoned: Option<String>,
}

impl WalOptions {
    pub(super) fn check(&self) -> Result<(), WalError> {
        let bytes = self.segment_bytes;
        if bytes % SECTOR as u64 != 0 || !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes) {
            return Err(WalError::misuse(format!(
                "segments of {bytes} bytes; multiples of {SECTOR} from {SEGMENT_BYTES_MIN} to \
                 {SEGMENT_BYTES_MAX} are possible"
            )));
        }
        Ok(())
    }
}

impl Default for WalOptions {
    /// Random bytes of the operating system, segments of 64 MiB, four spares.
    fn default() -> Self {
        Self { entropy: None, segment_bytes: 64 << 20, spares_max: 4 }
    }
}

const SEGMENT_BYTES_MIN: u64 = 4096;
const SEGMENT_BYTES_MAX: u64 = 1 << 40;
