//! Disks that lose, tear and change what is on them, over a recorded run of a member. Here at a
//! stride; `examples/storage_faults.rs` takes every point.

mod damage;
mod model;
mod points;
mod script;

use std::sync::atomic::AtomicU64;

use damage::Store;
use points::{Report, Stride};
use script::{Plan, Script, Step};

const ALONE: Plan =
    Plan { members: 1, operations: 2_000, payload_bytes_max: 60, snapshot_log_bytes: 6 << 10 };
const FOLLOWS: Plan = Plan { members: 3, operations: 600, payload_bytes_max: 600, ..ALONE };
const LARGE: Plan =
    Plan { members: 1, operations: 500, payload_bytes_max: 4_000, snapshot_log_bytes: 128 << 10 };

fn crash(script: &Script, run: u64, share: (u64, u64)) -> Report {
    let stride = Stride { run, recovery: 5, share };
    points::crash(script, 4096, stride, &AtomicU64::new(0))
}

/// What was acknowledged is there after a crash at any boundary, and after another crash in the
/// recovery from that.
#[test]
fn g5_a_crash_at_any_boundary_loses_nothing_acknowledged() {
    let script = script::record(ALONE);
    let mut report = Report::default();
    for share in 0..2 {
        report.add(&crash(&script, 13, (share, 2)));
    }
    println!("{report:?}");
    assert!(report.boundaries > 8_000 && report.images > 1_500, "{report:?}");
    assert!(report.again > 20_000 && report.nodes > 300, "{report:?}");
}

/// The same of a member that follows: snapshots of a leader take the place of its log, and another
/// leader that of its log's end.
#[test]
fn g5_a_follower_that_crashes_at_any_boundary_keeps_what_it_acknowledged() {
    let script = script::record(FOLLOWS);
    let (mut resets, mut replaced, mut last) = (0, 0, 0);
    for step in &script.steps {
        let Step::Write { write, .. } = step else { continue };
        resets += usize::from(format!("{:?}", write.snapshot).contains("reset_log true"));
        if let (Some(first), Some(end)) = (write.entries.first(), write.entries.last()) {
            replaced += usize::from(first.index <= last);
            last = end.index;
        }
    }
    assert!(resets > 2 && replaced > 0, "{resets} snapshots of a leader, {replaced} lost ends");
    let report = crash(&script, 13, (0, 1));
    println!("{report:?}");
    assert!(report.boundaries > 1_500 && report.again > 10_000, "{report:?}");
}

/// A log, a snapshot and a manifest in which anything may have changed: a typed error, or a prefix
/// that is told of.
#[test]
fn g6_damage_is_refused_or_told_of() {
    let script = script::record(LARGE);
    let (mut files, mut states) = (damage::Report::default(), damage::Report::default());
    let store = |segment_bytes| Store::of(&script, segment_bytes, 64 << 10);
    let (one, many) = (store(68 << 10), store(4096));
    for (store, stride) in [(store(68 << 10).sealed(), 307), (one, 97), (many, 197)] {
        let (log, snapshot) = store.sizes();
        assert!(log >= 60 << 10 && snapshot >= 64 << 10, "{log} and {snapshot} bytes");
        assert!(store.cases() > 1_000_000, "{}", store.cases());
        files.add(&store.damage(stride, (0, 1), &AtomicU64::new(0)));
        states.add(&store.damage_state(4 * stride, (0, 1), &AtomicU64::new(0)));
    }
    println!("{files:?}\n{states:?}");
    assert!(files.cases > 30_000 && files.refused * 2 > files.cases, "{files:?}");
    assert!(states.cases > 2_000 && states.refused * 10 > states.cases * 9, "{states:?}");
}
