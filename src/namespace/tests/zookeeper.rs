//! What only ZooKeeper's clients ask for: null data, and counters of 32 bits.

use super::*;
use crate::op::{Acl, Body, Check, Guard, OpError, Step};

fn null(op: Op) -> Txn {
    Txn::with_body(Body::One(Step { op, null: true }))
}

fn narrow(op: Op) -> Txn {
    Txn::new(op).for_zookeeper()
}

#[test]
fn null_data_reads_as_empty_and_stays_null_until_it_is_replaced() {
    let mut it = Fixture::new();
    it.plain(null(create("/a", "", CreateMode::Persistent)));
    it.plain(set("/a", "x", None));
    it.plain(null(set("/a", "", None)));
    it.plain(set("/a", "", None));
    it.plain(null(create("/b", "", CreateMode::Persistent)));
    it.plain(delete("/b", None));
    for ns in [restored(&it.ns, 100), it.ns] {
        let seen = |zxid, at| {
            let (data, stat) = ns.past().at(Zxid::new(zxid)).unwrap().read(&path(at)).unwrap();
            assert_eq!(stat.data_length, data.len() as u64);
            (data.len(), stat.null)
        };
        assert_eq!(seen(1, "/"), (0, false), "the root is empty");
        let all = [(0, true), (1, false), (0, true), (0, false)];
        assert_eq!([1, 2, 3, 4].map(|zxid| seen(zxid, "/a")), all);
        assert_eq!(seen(5, "/b"), (0, true));
        assert_eq!(ns.view().stat(&path("/a")).unwrap().map(|it| it.null), Some(false));
    }
}

/// ARCHITECTURE.md, rule 2: members that differ in it alone differ.
#[test]
fn rule_2_null_and_empty_data_are_two_states() {
    let digests = [true, false].map(|is_null| {
        let mut it = Fixture::new();
        let op = create("/a", "", CreateMode::Persistent);
        it.plain(if is_null { null(op) } else { Txn::new(op) });
        let now = it.ns.digest();
        it.plain(set("/a", "x", None));
        [now, it.ns.digest()]
    });
    assert!(digests[0][0] != digests[1][0], "in the tree");
    assert!(digests[0][1] != digests[1][1], "in the history");
}

#[test]
fn a_number_wraps_for_zookeeper_alone() {
    let mut it = Fixture::new();
    it.plain(create("/q", "", CreateMode::Persistent));
    let next = |it: &mut Fixture, sequence, is_narrow| {
        it.ns.state.tree.change("/q", |znode| znode.listing.next_sequence = sequence).unwrap();
        let op = create("/q/n", "", CreateMode::PersistentSequential);
        match it.plain(if is_narrow { narrow(op) } else { Txn::new(op) }).result {
            Ok(Outcome::Created { path, .. }) => path.as_str()["/q/n".len()..].to_string(),
            other => panic!("{other:?}"),
        }
    };
    for (sequence, theirs, ours) in [
        (0x7fff_ffff, "2147483647", "2147483648"),
        (0x8000_0000, "-2147483648", "2147483649"),
        (0xffff_fff9, "-000000007", "4294967290"),
        (0xffff_ffff, "-000000001", "4294967296"),
        (0x1_0000_0007, "0000000007", "4294967304"),
    ] {
        assert_eq!(next(&mut it, sequence, true), theirs);
        let counter = it.ns.state.tree.get("/q").unwrap().listing.next_sequence;
        assert_eq!(next(&mut it, counter, false), ours, "the counter goes on");
    }
}

/// As ZooKeeper does, until another child moves the counter on.
#[test]
fn a_number_that_is_taken_is_refused_to_zookeeper_alone() {
    let mut it = Fixture::new();
    it.plain(create("/n0000000001", "", CreateMode::Persistent));
    let op = || create("/n", "", CreateMode::PersistentSequential);
    let taken = OpError::NodeExists { path: path("/n0000000001") };
    assert_eq!(it.plain(narrow(op())).result, Err(taken.clone()));
    assert_eq!(it.plain(narrow(op())).result, Err(taken));
    let made = it.plain(op());
    assert!(
        matches!(made.result, Ok(Outcome::Created { path, .. }) if path.name() == "n0000000002")
    );
}

#[test]
fn versions_beyond_32_bits_are_compared_as_zookeeper_sees_them() {
    const WIDE: u64 = (1 << 32) + 5;
    let mut it = Fixture::new();
    it.plain(create("/a", "", CreateMode::Persistent));
    it.plain(Op::SetAcl { path: path("/a"), acl: Acl::creator(), version: None });
    it.plain(Op::SetAcl { path: path("/a"), acl: Acl::open(), version: None });
    it.ns.state.tree.change("/a", |znode| {
        let mut value = crate::namespace::znode::Value::clone(&znode.value);
        value.version = WIDE;
        let special = value.special.as_deref().cloned().unwrap();
        value.special = Some(crate::namespace::znode::Special { aversion: WIDE, ..special }.into());
        znode.value = value.into();
    });
    let check = |version| Op::Check(Guard { path: path("/a"), check: Check::Version(version) });
    let set_acl =
        |version| Op::SetAcl { path: path("/a"), acl: Acl::open(), version: Some(version) };
    let ops = |low: u64| {
        [check(low), set("/a", "", Some(low)), set_acl(low), delete("/a", Some(low + 1))]
    };
    for op in ops(5) {
        assert!(it.plain(Txn::new(op)).result.is_err(), "the crate's handles see all of it");
    }
    for op in ops(6) {
        assert!(it.plain(narrow(op)).result.is_err());
    }
    let guard = Guard { path: path("/a"), check: Check::Version(5) };
    let guarded = Txn::all([]).guard(guard);
    assert!(it.plain(guarded.clone()).result.is_err());
    it.plain(guarded.for_zookeeper()).result.unwrap();
    for op in ops(5) {
        it.plain(narrow(op)).result.unwrap();
    }
}
