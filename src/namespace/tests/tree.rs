//! The tree: ZooKeeper's rules for nodes, guards, sequences, listing, limits; and the history.

use super::*;
use crate::op::{Check, Guard, List};

#[test]
fn a_refused_operation_changes_nothing() {
    let mut it = Fixture::with(Parameters { payload_bytes_max: 4, ..parameters() });
    let id = it.open(1, 0);
    it.txn(id, 1, 0, create("/e", "", CreateMode::Ephemeral));
    it.plain(create("/a", "", CreateMode::Persistent));
    it.plain(create("/a/b", "", CreateMode::Persistent));
    let before = snapshot(&it.ns);
    it.ns.drain_changes();
    let (p, e, s) =
        (CreateMode::Persistent, CreateMode::Ephemeral, CreateMode::PersistentSequential);
    let payload = |value| OpError::Limit { limit: LimitName::PayloadBytes, value, max: 4 };
    let version =
        |actual| OpError::BadVersion { path: path("/a"), expected: 7, actual: Some(actual) };
    let no_node = |at| OpError::NoNode { path: path(at) };
    for (op, error) in [
        (create("/", "", p), OpError::Root),
        (delete("/", None), OpError::Root),
        (create("/x/y", "", p), no_node("/x")),
        (create("/x/", "", s), no_node("/x")),
        (create("/a/b", "", p), OpError::NodeExists { path: path("/a/b") }),
        (create("/e/x", "", p), OpError::NoChildrenForEphemerals { path: path("/e") }),
        (create("/e/x", "", s), OpError::NoChildrenForEphemerals { path: path("/e") }),
        (create("/x", "", e), OpError::EphemeralWithoutSession),
        (create("/x", "12345", p), payload(5)),
        (set("/a", "12345", None), payload(5)),
        (set("/a", "", Some(7)), version(0)),
        (set("/x", "", None), no_node("/x")),
        (set("/x", "", Some(7)), no_node("/x")),
        (delete("/a", Some(7)), version(0)),
        (delete("/x", None), no_node("/x")),
        (delete("/a", None), OpError::NotEmpty { path: path("/a"), children: Some(1) }),
    ] {
        let reply = it.plain(op);
        assert_eq!((reply.zxid, reply.result), (Zxid::new(4), Err(error)));
    }
    assert!(it.ns.drain_changes().is_empty());
    assert_eq!(snapshot(&it.ns), before);
}

#[test]
fn a_number_can_make_a_path_too_long() {
    let mut it = Fixture::new();
    it.plain(create("/s", "", CreateMode::Persistent));
    let prefix = format!("/s/{}", "x".repeat(Path::BYTES_MAX - 3 - 10));
    let fits = it.plain(create(&prefix, "", CreateMode::PersistentSequential));
    assert!(fits.result.is_ok());
    let node = it.ns.state.tree.get("/s").unwrap().clone();
    it.ns.state.tree.place(
        "/s".into(),
        crate::namespace::znode::Znode {
            listing: crate::namespace::znode::Listing {
                next_sequence: 10_000_000_000,
                ..node.listing
            },
            ..node
        },
    );
    let refused = it.plain(create(&prefix, "", CreateMode::PersistentSequential));
    let limit = OpError::Limit { limit: LimitName::PathBytes, value: 4097, max: 4096 };
    assert_eq!(refused.result, Err(limit));
    // Past ten digits the number just grows.
    let eleven = it.plain(create("/s/x-", "", CreateMode::PersistentSequential));
    assert_eq!(created(&eleven), "/s/x-10000000000");
}

/// ZooKeeper's number is the parent's count of all children ever made.
#[test]
fn children_of_any_name_count_for_the_next_number() {
    let mut it = Fixture::new();
    it.plain(create("/q", "", CreateMode::Persistent));
    it.plain(create("/q/x", "", CreateMode::Persistent));
    it.plain(create("/q/y", "", CreateMode::Container));
    it.plain(delete("/q/x", None));
    let made = it.plain(create("/q/n-", "", CreateMode::PersistentSequential));
    assert_eq!(created(&made), "/q/n-0000000002");
}

#[test]
fn a_sequence_number_never_comes_twice() {
    let mut it = Fixture::new();
    it.plain(create("/q", "", CreateMode::Persistent));
    let next = |it: &mut Fixture, prefix: &str| {
        created(&it.plain(create(prefix, "", CreateMode::PersistentSequential)))
    };
    assert_eq!(next(&mut it, "/q/a-"), "/q/a-0000000000");
    assert_eq!(next(&mut it, "/q/b-"), "/q/b-0000000001");
    it.plain(delete("/q/b-0000000001", None));
    it.plain(delete("/q/a-0000000000", None));
    assert_eq!(next(&mut it, "/q/"), "/q/0000000002");
    it.plain(create("/q/plain", "", CreateMode::Persistent));
    assert_eq!(next(&mut it, "/q/a-"), "/q/a-0000000004");
    // A name that somebody took by hand is passed over, not in the way for ever.
    it.plain(create("/q/a-0000000006", "", CreateMode::Persistent));
    assert_eq!(next(&mut it, "/q/a-"), "/q/a-0000000007");
    assert_eq!(next(&mut it, "/top-"), "/top-0000000001");
}

#[test]
fn guards_are_looked_at_in_order_and_all_must_hold() {
    let mut it = Fixture::new();
    let id = it.open(1, 0);
    it.txn(id, 1, 0, create("/e", "", CreateMode::Ephemeral));
    let guard = |at: &str, check| Guard { path: path(at), check };
    let holding = [
        guard("/e", Check::Exists(true)),
        guard("/x", Check::Exists(false)),
        guard("/e", Check::Version(0)),
        guard("/e", Check::Czxid(Zxid::new(2))),
        guard("/e", Check::Owner(id.lease())),
    ];
    let other = SessionId::new(9).unwrap();
    for failing in [
        guard("/e", Check::Exists(false)),
        guard("/x", Check::Exists(true)),
        guard("/e", Check::Version(1)),
        guard("/x", Check::Version(0)),
        guard("/e", Check::Czxid(Zxid::new(3))),
        guard("/x", Check::Czxid(Zxid::ZERO)),
        guard("/e", Check::Owner(other.lease())),
        guard("/", Check::Owner(id.lease())),
    ] {
        // The operation would fail, too: the guards come first.
        let mut txn = Txn::new(set("/none", "", None));
        for guard in &holding {
            txn = txn.guard(guard.clone());
        }
        let txn = txn.guard(failing.clone()).guard(failing.clone());
        let error = OpError::GuardFailed { index: 5, path: failing.path.clone() };
        assert_eq!(it.plain(txn).result, Err(error));
    }
    let mut txn = Txn::new(set("/e", "x", None));
    for guard in holding {
        txn = txn.guard(guard);
    }
    assert!(it.plain(txn).result.is_ok());
    let mut txn = Txn::new(set("/e", "x", None));
    for _ in 0..=Txn::GUARDS_MAX {
        txn = txn.guard(guard("/e", Check::Exists(true)));
    }
    assert!(matches!(it.plain(txn).result, Err(OpError::Limit { .. })));
}

#[test]
fn children_come_in_byte_order_and_in_pages() {
    let mut it = Fixture::new();
    it.plain(create("/d", "", CreateMode::Persistent));
    it.plain(create("/d!", "", CreateMode::Persistent));
    for name in ["b", "a/x", "a", "a-", "a/y", "c d", "B"] {
        it.plain(create(&format!("/d/{name}"), "", CreateMode::Persistent));
    }
    let view = it.ns.view();
    let page = |after: Option<&str>, limit| {
        let after = after.map(str::to_string);
        let page = view.list(&List { after, ..List::of(path("/d")) }.limit(limit)).unwrap();
        let names: Vec<_> = page.children.into_iter().map(|child| child.name).collect();
        (names.join(" "), page.resume.is_some())
    };
    assert_eq!(page(None, 9), ("B a a- b c d".to_string(), false));
    assert_eq!(page(None, 2), ("B a".to_string(), true));
    assert_eq!(page(Some("a"), 2), ("a- b".to_string(), true));
    assert_eq!(page(Some("b"), 2), ("c d".to_string(), false));
    assert_eq!(page(Some("zz"), 2), (String::new(), false));
    let root = view.list(&List::of(Path::root())).unwrap();
    let names: Vec<_> = root.children.iter().map(|child| &child.name[..]).collect();
    assert_eq!(names, ["d", "d!"]);
    let no_node = OpError::NoNode { path: path("/none") };
    assert_eq!(view.list(&List::of(path("/none"))), Err(no_node));
    for index in 0..List::LIMIT_MAX {
        it.plain(create(&format!("/d/b/{index}"), "", CreateMode::Persistent));
    }
    it.plain(create("/d/b/z", "", CreateMode::Persistent));
    let page = it.ns.view().list(&List::of(path("/d/b")).limit(u32::MAX)).unwrap();
    let resume = page.resume.is_some();
    assert_eq!((page.children.len(), resume, page.stat.children), (1024, true, 1025));
}

#[test]
fn a_payload_is_held_in_an_allocation_of_its_own() {
    let mut it = Fixture::new();
    let entry = Bytes::from(vec![7; 1 << 20]);
    it.plain(Op::Set { path: Path::root(), data: entry.slice(10..20), version: None });
    assert!(entry.try_into_mut().is_ok(), "the tree keeps the log entry alive");
    assert_eq!(it.ns.view().read(&Path::root()).unwrap().0, [7; 10][..]);
}

#[test]
fn views_and_frozen_states_go_to_other_threads() {
    fn shared<T: Send + Sync + Clone>() {}
    shared::<View>();
    shared::<Frozen>();
}

/// ARCHITECTURE.md, rule 12: a transaction's events are kept together or not at all.
#[test]
fn rule_12_the_history_is_trimmed_by_whole_transactions() {
    let mut it = Fixture::with(Parameters { history_count_max: 4, ..parameters() });
    let id = it.open(1, 0);
    for seq in 1..=3 {
        it.txn(id, seq, 0, create("/e-", "", CreateMode::EphemeralSequential));
    }
    it.ns.apply(Command::CloseSession { session: id, epoch: 1, seq: 4 });
    // Three deletions at zxid 5 and one creation at zxid 4 are left.
    assert_eq!(it.ns.history_floor(), Zxid::new(3));
    let after = |it: &Fixture, zxid| {
        let events = it.ns.history_after(Zxid::new(zxid));
        events.map(|events| events.map(|event| event.zxid.as_u64()).collect::<Vec<_>>())
    };
    assert_eq!(after(&it, 3), Ok(vec![4, 5, 5, 5]));
    assert_eq!(after(&it, 4), Ok(vec![5, 5, 5]));
    assert_eq!(after(&it, 5), Ok(vec![]));
    assert_eq!(after(&it, 2), Err(Zxid::new(3)));
    it.plain(set("/", "", None));
    assert_eq!(after(&it, 4), Ok(vec![5, 5, 5, 6]));
    it.plain(set("/", "", None));
    assert_eq!(after(&it, 5), Ok(vec![6, 7]));
    assert_eq!(it.ns.history_floor(), Zxid::new(5));
    // By bytes, too; and the live watches get even what is too large to keep.
    let mut it = Fixture::with(Parameters { history_bytes_max: 60, ..parameters() });
    it.plain(set("/", "", None));
    assert_eq!(it.ns.drain_changes().len(), 1);
    assert_eq!(it.ns.history_floor(), Zxid::new(1));
}

pub(super) fn created(reply: &Reply) -> String {
    match &reply.result {
        Ok(Outcome::Created { path, .. }) => path.to_string(),
        other => panic!("{other:?}"),
    }
}
