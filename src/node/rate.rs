//! How often a session may ask for something: a bucket that each tick fills a little.

use crate::{
    config::{Config, SessionRate},
    time::as_micros,
};

/// What one session has asked for lately.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    /// How far it was from full at `tick`, in millionths of an operation.
    missing: u64,
    tick: u64,
}

impl Bucket {
    /// How many ticks later the next operation is allowed; 0 if it is now.
    pub(crate) fn wait_ticks(&self, rate: &SessionRate, config: &Config, tick: u64) -> u64 {
        let missing = self.missing(rate, config, tick) + OPERATION;
        let excess = missing.saturating_sub(u64::from(rate.burst) * OPERATION);
        excess.div_ceil(filled(rate, config))
    }

    /// An operation was allowed.
    pub(crate) fn take(&mut self, rate: &SessionRate, config: &Config, tick: u64) {
        self.missing = self.missing(rate, config, tick) + OPERATION;
        self.tick = tick;
    }

    fn missing(&self, rate: &SessionRate, config: &Config, tick: u64) -> u64 {
        let passed = tick.saturating_sub(self.tick);
        self.missing.saturating_sub(filled(rate, config).saturating_mul(passed))
    }
}

/// What a tick fills in, in millionths of an operation; at least one.
fn filled(rate: &SessionRate, config: &Config) -> u64 {
    u64::from(rate.per_second) * as_micros(config.tick_interval)
}

/// Millionths.
const OPERATION: u64 = 1_000_000;
