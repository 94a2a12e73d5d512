//! Time as the core sees it: handed in by the caller, never read.

use std::time::Duration;

/// The caller's clocks at one moment.
///
/// ```
/// use std::time::Duration;
/// use quorate::Now;
/// let now = Now { mono: Duration::from_millis(50), wall_ms: 1_700_000_000_000 };
/// assert!(now.mono < Duration::from_secs(1));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// A monotonic clock since any fixed moment of this process; it may only run slow.
    pub mono: Duration,
    /// Milliseconds since the Unix epoch. Stamps ctime and mtime and decides nothing.
    pub wall_ms: u64,
}

/// Microseconds of a duration, saturating after 584,000 years.
pub(crate) fn as_micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
