//! What became of the nodes, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

/// What became of a node.
#[derive(Clone, Copy)]
pub(crate) enum Found {
    Made,
    Changed,
    Same,
    Ephemeral,
    Gone,
    Equal,
    OtherVersion,
    LowerSequence,
    Differing,
    Unknown,
    Failed,
}

/// How many nodes of each kind there were.
#[derive(Default)]
pub(crate) struct Tally([AtomicU64; TEXTS.len()]);

impl Tally {
    pub(crate) fn count(&self, found: Found) {
        self.0[found as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts it, and says of which node it is.
    pub(crate) fn report(&self, found: Found, path: &str, what: &str) {
        eprintln!("{path}: {what}");
        self.count(found);
    }

    /// Prints all; `false` if the trees are not equal.
    pub(crate) fn print(&self) -> bool {
        for (text, count) in TEXTS.iter().zip(&self.0) {
            println!("{text:<44} {:>10}", count.load(Ordering::Relaxed));
        }
        let none = |found: Found| self.0[found as usize].load(Ordering::Relaxed) == 0;
        [Found::Differing, Found::Unknown, Found::Failed].into_iter().all(none)
    }
}

/// In the order of [`Found`].
const TEXTS: [&str; 11] = [
    "copied: made",
    "copied: changed",
    "equal already",
    "skipped: ephemeral, its session is elsewhere",
    "skipped: deleted while it was copied",
    "verified: equal",
    "verified: of these, with another version",
    "verified: of these, with a lower next number",
    "differing: see above",
    "only in the target: see above",
    "failed: see above",
];
