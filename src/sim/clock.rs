//! A member's clocks: they drift, and they jump.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{client::Clock, time::Now};

/// The clocks of one machine, over the time of the world.
#[derive(Debug)]
pub(super) struct LocalClock {
    /// What the handles read, in nanoseconds.
    shown: Arc<AtomicU64>,
    /// At this moment of the world it showed that.
    base: (Duration, Duration),
    drift_ppm: i64,
    wall_skew_ms: i64,
}

impl LocalClock {
    /// Starts at zero.
    pub(super) fn start(now: Duration) -> Self {
        let base = (now, Duration::ZERO);
        Self { shown: Arc::default(), base, drift_ppm: 0, wall_skew_ms: 0 }
    }

    /// The machine has been started again: the monotonic clock starts at zero.
    pub(super) fn restart(&mut self, now: Duration) {
        self.shown = Arc::default();
        self.base = (now, Duration::ZERO);
    }

    pub(super) fn handle(&self) -> Clock {
        let shown = Arc::clone(&self.shown);
        Clock::new(move || Duration::from_nanos(shown.load(Ordering::Relaxed)))
    }

    /// What it shows at this moment of the world; the handles see it from now on.
    pub(super) fn show(&self, now: Duration) -> Now {
        let mono = self.at(now);
        self.shown.store(mono.as_nanos() as u64, Ordering::Relaxed);
        let wall = WALL_MS + now.as_millis() as i64 + self.wall_skew_ms;
        Now { mono, wall_ms: wall.max(0) as u64 }
    }

    /// What it shows at this moment of the world.
    pub(super) fn at(&self, now: Duration) -> Duration {
        let passed = now.saturating_sub(self.base.0);
        if self.drift_ppm == 0 {
            return self.base.1 + passed;
        }
        let nanos = passed.as_nanos() as i128;
        let shown = nanos + nanos * i128::from(self.drift_ppm) / 1_000_000;
        self.base.1 + Duration::from_nanos(shown.max(0) as u64)
    }

    /// When in the world it will show `mono`.
    pub(super) fn when(&self, mono: Duration) -> Duration {
        let left = mono.saturating_sub(self.base.1);
        if self.drift_ppm == 0 {
            return self.base.0 + left;
        }
        let left = left.as_nanos() as i128;
        let nanos = left * 1_000_000 / (1_000_000 + i128::from(self.drift_ppm));
        // Rather a little late than a moment too early.
        self.base.0 + Duration::from_nanos(nanos.max(0) as u64 + 1)
    }

    pub(super) fn set_drift(&mut self, now: Duration, ppm: i64) {
        self.base = (now, self.at(now));
        self.drift_ppm = ppm;
    }

    pub(super) fn jump(&mut self, now: Duration, by: Duration) {
        self.base = (now, self.at(now) + by);
    }

    pub(super) fn set_wall_skew(&mut self, ms: i64) {
        self.wall_skew_ms = ms;
    }
}

/// The wall clock of the world at its beginning.
const WALL_MS: i64 = 1_700_000_000_000;
