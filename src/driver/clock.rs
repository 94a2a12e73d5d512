//! The clocks of this machine: the one file of the room that reads them.

use std::time::{Duration, SystemTime};

use crate::{client::Clock, time::Now};

/// The machine's clocks, for ticks and for handles alike.
///
/// The monotonic one goes on while the machine sleeps, where the platform can tell
/// (`CLOCK_BOOTTIME`): after a sleep a handle knows at once that its lease is over, while the
/// node's logical time advances by no more than a tick.
///
/// ```
/// let clock = quorate::driver::SystemClock::start();
/// assert!(clock.now().mono <= clock.now().mono);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Moment,
}

impl SystemClock {
    /// Starts at zero.
    pub fn start() -> Self {
        Self { start: Moment::now() }
    }

    /// The time since the start, and the wall clock.
    #[expect(clippy::disallowed_methods, reason = "the driver is where time comes from")]
    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let wall_ms = wall.map_or(0, |wall| u64::try_from(wall.as_millis()).unwrap_or(u64::MAX));
        Now { mono: self.start.elapsed(), wall_ms }
    }

    /// The monotonic clock, as handles read it.
    pub fn handle(&self) -> Clock {
        let start = self.start;
        Clock::new(move || start.elapsed())
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[derive(Clone, Copy, Debug)]
struct Moment(Duration);

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Moment {
    fn now() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0));
        Self(seconds + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0)))
    }

    fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[derive(Clone, Copy, Debug)]
struct Moment(std::time::Instant);

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Moment {
    #[expect(clippy::disallowed_methods, reason = "the driver is where time comes from")]
    fn now() -> Self {
        Self(std::time::Instant::now())
    }

    fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}
