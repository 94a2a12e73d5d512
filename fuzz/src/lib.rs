//! What every target does: the decoders that belong to it, whose allocations are counted, and then
//! all of it.

use peak_alloc::PeakAlloc;
use quorate::fuzz::{READERS, TARGETS};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// Runs a target on one input.
///
/// # Panics
///
/// When something is wrong, or there is no such target.
pub fn run(name: &str, data: &[u8]) {
    for reader in READERS.iter().filter(|it| it.target == name) {
        let reading = (reader.read)(data);
        let (bytes, max) = (reading.bytes, reader.times * reading.bytes + (1 << 20));
        ALLOCATED.reset_peak_usage();
        let before = ALLOCATED.current_usage();
        (reading.run)();
        let peak = ALLOCATED.peak_usage() - before;
        assert!(peak <= max, "{}: {peak} bytes for {bytes}, at most {max}", reader.name);
    }
    match TARGETS.iter().find(|it| it.name == name) {
        Some(target) => (target.run)(data),
        None => panic!("there is no target {name}"),
    }
}
