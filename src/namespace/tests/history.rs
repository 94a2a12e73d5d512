//! The history: what a change was, the tree at any retained zxid, and what it costs.

use super::*;
use crate::op::{Acl, Detail, Event, Filter, Grant, Principal, Rights};

/// The newest change as a watch is told of it.
fn newest(ns: &Namespace, detail: Detail) -> Event {
    let last = Zxid::new(ns.zxid().as_u64() - 1);
    let mut changes = ns.history_after(last).unwrap();
    changes.next().unwrap().event(detail).unwrap()
}

#[test]
fn an_event_says_what_was_before_and_after_if_it_is_asked_to() {
    let mut it = Fixture::new();
    it.plain(create("/a", "1", CreateMode::Persistent));
    it.plain(create("/a/b", "", CreateMode::Persistent));
    let data = |content: &Option<Box<crate::Content>>| {
        content.as_ref().map(|content| (content.data.clone(), content.stat.version))
    };
    let (one, two) = (Some((Bytes::from("1"), 0)), Some((Bytes::from("2"), 1)));
    it.plain(set("/a", "2", None));
    for ns in [&it.ns, &restored(&it.ns, 64)] {
        let event = newest(ns, Detail::Path);
        assert_eq!((&event.before, &event.after), (&None, &None));
        let event = newest(ns, Detail::After);
        assert_eq!((data(&event.before), data(&event.after)), (None, two.clone()));
        let event = newest(ns, Detail::BeforeAndAfter);
        assert_eq!((data(&event.before), data(&event.after)), (one.clone(), two.clone()));
        assert_eq!(Ok(event.after.map(|it| it.stat)), ns.view().stat(&path("/a")));
        assert_eq!(event.before.map(|it| (it.stat.children, it.stat.data_length)), Some((1, 1)));
    }
    it.plain(Op::DeleteTree { path: path("/a") });
    let event = newest(&restored(&it.ns, 64), Detail::BeforeAndAfter);
    assert_eq!((data(&event.before), data(&event.after)), (Some((Bytes::new(), 0)), None));
    let changes = it.ns.history_after(Zxid::new(3)).unwrap();
    let events: Vec<_> = changes.filter_map(|it| it.event(Detail::BeforeAndAfter)).collect();
    assert_eq!(data(&events[1].before), two);
    assert_eq!(events[1].before.as_ref().unwrap().stat.children, 1, "as before the operation");
}

#[test]
fn a_replaced_list_is_an_event_of_the_node_and_not_of_its_parent() {
    let mut it = Fixture::new();
    it.plain(create("/a", "", CreateMode::Persistent));
    let grant = Grant { principal: Principal::World, rights: Rights::ALL };
    let acl = Acl::new([Grant { rights: Rights::READ, ..grant }]).unwrap();
    it.plain(Op::SetAcl { path: path("/a"), acl, version: None });
    let event = newest(&it.ns, Detail::BeforeAndAfter);
    assert_eq!(event.kind, EventKind::AclChanged);
    let aversion = |content: Option<Box<crate::Content>>| content.unwrap().stat.aversion;
    assert_eq!((aversion(event.before.clone()), aversion(event.after.clone())), (0, 1));
    for (filter, sees) in [
        (Filter::Node(path("/a")), true),
        (Filter::Subtree(path("/")), true),
        (Filter::Children(path("/")), false),
    ] {
        assert_eq!(filter.matches(&event), sees, "{filter:?}");
    }
    // Nobody may read less of the past than now, but what was granted then was granted.
    let past = it.ns.past().at(Zxid::new(1)).unwrap();
    assert!(past.clone().seen_by(Identities::none()).allows(&path("/a"), Rights::WRITE));
    assert!(!it.ns.view().seen_by(Identities::none()).allows(&path("/a"), Rights::WRITE));
}

/// Data that was replaced counts: what the history keeps alive is bounded.
#[test]
fn rule_12_the_history_is_bounded_by_the_data_that_it_keeps() {
    let bytes_max = 100_000;
    let mut it = Fixture::with(Parameters { history_bytes_max: bytes_max, ..parameters() });
    it.plain(create("/a", "", CreateMode::Persistent));
    let data = "x".repeat(10_000);
    for _ in 0..30 {
        it.plain(set("/a", &data, None));
    }
    let kept = |ns: &Namespace| {
        let changes = ns.history_after(ns.history_floor()).unwrap();
        changes.map(|it| it.before.as_ref().map_or(0, |value| value.data().len())).sum::<usize>()
    };
    assert_eq!(kept(&it.ns), 90_000);
    assert_eq!(kept(&restored(&it.ns, 4096)), 90_000);
    // What is put in place of it is kept by the tree.
    it.plain(set("/a", "", None));
    for _ in 0..30 {
        it.plain(set("/a", "", None));
    }
    assert_eq!(kept(&it.ns), 90_000 - 2 * 10_000 + 10_000);
}

#[test]
fn the_past_is_read_down_to_the_floor_and_no_further() {
    let mut it = Fixture::with(Parameters { history_count_max: 3, ..parameters() });
    it.plain(create("/a", "0", CreateMode::Persistent));
    for n in 1..=5 {
        it.plain(set("/a", &n.to_string(), None));
    }
    for ns in [&it.ns, &restored(&it.ns, 64)] {
        let past = ns.past();
        assert_eq!((past.oldest(), past.newest()), (Zxid::new(3), Zxid::new(6)));
        for zxid in 3..=6 {
            let view = past.at(Zxid::new(zxid)).unwrap();
            assert_eq!(view.zxid(), Zxid::new(zxid));
            let (data, stat) = view.read(&path("/a")).unwrap();
            assert_eq!(data, (zxid - 1).to_string());
            assert_eq!((stat.version, stat.mzxid), (zxid - 1, Zxid::new(zxid)));
        }
        let (zxid, oldest) = (Zxid::new(2), Zxid::new(3));
        let compacted = Some(PastError::Compacted { zxid, oldest });
        assert_eq!(past.at(zxid).err(), compacted);
        assert_eq!(past.diff(zxid, oldest).err(), compacted);
        let (zxid, applied) = (Zxid::new(7), Zxid::new(6));
        assert_eq!(past.at(zxid).err(), Some(PastError::Behind { zxid, applied }));
    }
}

/// A parent that only lost or got children is told of by them.
#[test]
fn a_diff_tells_of_each_node_once() {
    let mut it = Fixture::new();
    for at in ["/a", "/b", "/c", "/c/gone", "/d"] {
        it.plain(create(at, "1", CreateMode::Persistent));
    }
    let from = it.ns.zxid();
    it.plain(set("/a", "2", None));
    it.plain(set("/a", "1", None));
    it.plain(delete("/b", None));
    it.plain(create("/b", "1", CreateMode::Persistent));
    it.plain(delete("/c/gone", None));
    it.plain(create("/c/new", "1", CreateMode::Persistent));
    it.plain(create("/c/short", "1", CreateMode::Persistent));
    it.plain(delete("/c/short", None));
    it.plain(Op::SetAcl { path: path("/d"), acl: Acl::open(), version: None });
    let past = it.ns.past();
    let told = |from, to| {
        let diff = past.diff(from, to).unwrap();
        let told = diff.map(|it| (it.path.to_string(), it.kind));
        told.collect::<Vec<_>>()
    };
    let (changed, made) = (|data, acl| DifferenceKind::Changed { data, acl }, "/c/new".to_string());
    let expected = [
        ("/a".into(), changed(true, false)),
        ("/b".into(), DifferenceKind::Recreated),
        ("/c/gone".into(), DifferenceKind::Deleted),
        (made.clone(), DifferenceKind::Created),
        ("/d".into(), changed(false, true)),
    ];
    assert_eq!(told(from, past.newest()), expected);
    let back = told(past.newest(), from);
    assert_eq!(back[3], (made, DifferenceKind::Deleted));
    assert_eq!(told(from, from), []);
    let first = past.diff(from, past.newest()).unwrap().next().unwrap();
    let version = |content: Option<crate::Content>| content.map(|it| it.stat.version);
    assert_eq!((version(first.before), version(first.after)), (Some(0), Some(2)));
}
