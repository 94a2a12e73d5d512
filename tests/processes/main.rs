//! Clusters of real processes, each an `examples/member`, under load.
//!
//! `QUORATE_SEED=7 cargo test --test processes` repeats the choices of a run, not its timing.
//! Processes are stopped and killed by their ids; everything stays on the loopback.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // real processes

#[cfg(all(unix, feature = "sim"))]
mod faults;
mod kills;
mod member;
#[cfg(all(unix, feature = "sim"))]
mod proxy;
