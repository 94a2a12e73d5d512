//! Nodes that the cluster removes: containers, and nodes with a time to live.

use std::time::Duration;

use super::tree::created;
use super::*;
use crate::op::Lifetime;

#[test]
fn a_container_goes_once_it_had_children_and_is_empty() {
    let mut it = Fixture::with(Parameters { container_grace_us: 300, ..quick() });
    let czxid = it.plain(create("/c", "", CreateMode::Container)).zxid;
    it.advance(10_000);
    assert!(it.due().is_empty(), "a container that had no child yet stays");
    it.plain(create("/c/x", "", CreateMode::Persistent));
    it.plain(create("/c/y", "", CreateMode::Persistent));
    it.plain(delete("/c/x", None));
    it.advance(10_000);
    assert!(it.due().is_empty() && !it.ns.has_deadlines(), "it has a child");
    assert!(!it.reap("/c", czxid), "whatever a leader proposes");
    it.plain(delete("/c/y", None));
    assert!(it.ns.has_deadlines());
    it.advance(299);
    assert!(it.due().is_empty() && !it.reap("/c", czxid), "the grace is not over");
    // Its data does not matter.
    it.plain(set("/c", "x", None));
    it.advance(1);
    assert_eq!(it.due(), [(path("/c"), czxid)]);
    // It was used again between the proposal and the apply.
    it.plain(create("/c/z", "", CreateMode::Persistent));
    assert!(!it.reap("/c", czxid));
    it.plain(delete("/c/z", None));
    it.advance(300);
    let zxid = it.ns.zxid();
    it.ns.drain_changes();
    assert!(it.reap("/c", czxid));
    let changes = it.ns.drain_changes();
    assert_eq!((changes.len(), changes[0].kind), (1, Some(EventKind::Deleted)));
    assert_eq!((it.ns.zxid(), changes[0].zxid), (zxid.next(), zxid.next()));
    assert!(it.ns.view().stat(&path("/c")) == Ok(None) && !it.ns.has_deadlines());
}

#[test]
fn a_ttl_counts_from_the_last_change_of_data_on_the_replicated_clock() {
    let mut it = Fixture::with(quick());
    let ttl = CreateMode::Ttl(Duration::from_millis(1));
    let reply = it.plain(create("/t", "", ttl));
    let Ok(Outcome::Created { stat, .. }) = reply.result else {
        panic!("{reply:?}");
    };
    assert_eq!(stat.lifetime, Lifetime::Ttl(Duration::from_millis(1)));
    it.advance(900);
    it.plain(set("/t", "x", None));
    it.advance(999);
    assert!(it.due().is_empty() && !it.reap("/t", reply.zxid));
    // The wall clock decides nothing.
    it.ns.begin_entry(0, 1 << 50);
    assert!(it.due().is_empty());
    it.plain(create("/t/x", "", CreateMode::Persistent));
    it.advance(10_000);
    assert!(it.due().is_empty() && !it.reap("/t", reply.zxid), "it has a child");
    it.plain(delete("/t/x", None));
    assert_eq!(it.due(), [(path("/t"), reply.zxid)], "nothing but the child held it");
    assert!(!it.reap("/t", reply.zxid.next()), "another node of this name is not meant");
    assert!(!it.reap("/none", reply.zxid));
    assert!(it.reap("/t", reply.zxid));
    assert!(!it.reap("/t", reply.zxid), "a repeat does nothing");
    let names = created(&it.plain(create("/t-", "", CreateMode::SequentialTtl(SECOND))));
    assert_eq!(names, "/t-0000000001");
}

#[test]
fn a_time_to_live_is_bounded() {
    let mut it = Fixture::new();
    let max = CreateMode::TTL_MAX;
    assert!(it.plain(create("/longest", "", CreateMode::Ttl(max))).result.is_ok());
    for (ttl, value) in [
        (Duration::ZERO, 0),
        (Duration::from_micros(999), 0),
        (max + Duration::from_millis(1), 1 << 40),
        (Duration::MAX, u64::MAX),
    ] {
        let reply = it.plain(create("/x", "", CreateMode::Ttl(ttl)));
        let (limit, max) = (LimitName::NodeTtl, (1 << 40) - 1);
        assert_eq!(reply.result, Err(OpError::Limit { limit, value, max }));
    }
}

/// What waited longest goes first, and no more than asked for at once.
#[test]
fn due_nodes_come_in_pages() {
    let mut it = Fixture::with(quick());
    for name in ["/c", "/a", "/b"] {
        it.plain(create(name, "", CreateMode::Ttl(Duration::from_millis(1))));
        it.advance(1);
    }
    it.advance(1_000);
    let all = [(path("/c"), Zxid::new(1)), (path("/a"), Zxid::new(2)), (path("/b"), Zxid::new(3))];
    assert_eq!(it.due(), all);
    assert_eq!(it.ns.due_nodes(it.ns.clock_us(), 2), all[..2]);
    assert_eq!(it.ns.due_nodes(1_000, 9), all[..1]);
    check_indexes(&restored(&it.ns, 64));
}

const SECOND: Duration = Duration::from_secs(1);

fn quick() -> Parameters {
    Parameters { advance_us_max: 1 << 40, ..parameters() }
}

impl Fixture {
    fn advance(&mut self, us: u64) {
        self.ns.begin_entry(us, 0);
    }

    fn due(&self) -> Vec<(Path, Zxid)> {
        self.ns.due_nodes(self.ns.clock_us(), 9)
    }

    fn reap(&mut self, at: &str, czxid: Zxid) -> bool {
        match self.ns.apply(Command::ReapNode { path: path(at), czxid }) {
            Applied::Reaped { path: it } if it == path(at) => true,
            Applied::NotReaped { path: it } if it == path(at) => false,
            other => panic!("{other:?}"),
        }
    }
}
