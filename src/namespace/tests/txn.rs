//! Transactions: all or nothing, in order, in one zxid.

use std::time::Duration;

use super::*;
use crate::op::{
    Acl, Check, Children, Field, Grant, Guard, List, Owned, Page, Principal, Quota, Relation,
    Rights,
};

/// ZooKeeper's `multi`: results one by one, one zxid, and each operation sees those before it.
#[test]
fn operations_happen_together_and_see_each_other() {
    let mut it = Fixture::new();
    let id = it.open(1, 0);
    let txn = Txn::all([
        create("/a", "1", CreateMode::Persistent),
        create("/a/n-", "", CreateMode::PersistentSequential),
        create("/a/n-", "", CreateMode::EphemeralSequential),
        set("/a", "22", Some(0)),
        Op::Check(guard("/a", Check::Version(1))),
        Op::Get { path: path("/a") },
        Op::Exists { path: path("/b") },
        Op::List(List::of(path("/a"))),
        delete("/a/n-0000000000", None),
    ]);
    let reply = it.txn(id, 1, 0, txn);
    let zxid = Zxid::new(2);
    let Ok(Outcome::Txn { held: true, results }) = &reply.result else {
        panic!("{reply:?}");
    };
    assert_eq!(reply.zxid, zxid);
    let Outcome::Node { data, stat } = &results[5] else {
        panic!("{results:?}");
    };
    assert_eq!((&data[..], stat.version, stat.children, stat.mzxid), (&b"22"[..], 1, 2, zxid));
    assert_eq!(results[4], Outcome::Checked);
    assert_eq!(results[6], Outcome::Exists(None));
    let Outcome::Listed(Page { children, resume: None, .. }) = &results[7] else {
        panic!("{results:?}");
    };
    let names: Vec<_> = children.iter().map(|child| child.name.as_str()).collect();
    assert_eq!(names, ["n-0000000000", "n-0000000001"]);
    assert_eq!(results[8], Outcome::Deleted);
    let changes = it.ns.drain_changes();
    assert_eq!(changes.len(), 5);
    assert!(changes.iter().all(|event| event.zxid == zxid));
    assert_eq!(it.ns.history_after(Zxid::ZERO).unwrap().count(), 5);
    assert_eq!(it.txn(id, 1, 0, set("/a", "", None)), reply, "a retry gets the kept reply");
    check_indexes(&it.ns);
}

#[test]
fn what_is_refused_changes_nothing_and_names_the_operation() {
    let mut it = Fixture::new();
    let id = it.open(1, 0);
    it.txn(id, 1, 0, create("/e", "", CreateMode::Ephemeral));
    it.plain(create("/a", "", CreateMode::Container));
    it.plain(create("/a/x", "", CreateMode::Persistent));
    it.ns.drain_changes();
    let before = snapshot(&it.ns);
    let busy = [
        set("/a", "x", None),
        delete("/e", None),
        create("/e", "", CreateMode::Persistent),
        create("/e/q", "", CreateMode::Persistent),
        Op::DeleteTree { path: path("/a") },
        create("/s-", "", CreateMode::PersistentSequential),
    ];
    let version = OpError::BadVersion { path: path("/e"), expected: 5, actual: Some(0) };
    let failed = OpError::GuardFailed { index: 0, path: path("/a") };
    for (op, cause) in [
        (set("/e", "", Some(5)), version),
        (Op::Get { path: path("/a/x") }, OpError::NoNode { path: path("/a/x") }),
        (Op::Check(guard("/a", Check::Exists(true))), failed),
        (Op::DeleteTree { path: Path::root() }, OpError::Root),
        (create("/l", "", CreateMode::Ephemeral), OpError::EphemeralWithoutSession),
    ] {
        let txn = busy.iter().cloned().fold(Txn::all([]), Txn::then).then(op).then(busy[0].clone());
        let reply = it.plain(txn);
        let (index, cause) = (6, Box::new(cause));
        assert_eq!(reply.result, Err(OpError::InTxn { index, cause }));
        assert!(it.ns.drain_changes().is_empty());
        assert!(snapshot(&it.ns) == before);
        check_indexes(&it.ns);
    }
}

/// Whatever the operations before the refused one did, to nodes, lists, quotas, leases and
/// deadlines, is taken back to the last bit; also what a later transaction builds on.
#[test]
fn what_was_done_before_a_refusal_is_taken_back() {
    let acl = || Acl::new([Grant { principal: Principal::World, rights: Rights::READ }]).unwrap();
    let quota = |max| Some(Quota { nodes_hard: Some(max), ..Quota::default() });
    let ttl = Duration::from_millis(5);
    let done = |lease: LeaseId| {
        [
            create("/c/n-", "", CreateMode::PersistentSequential),
            create("/c/l", "", CreateMode::Leased(lease)),
            create("/c/t", "", CreateMode::Ttl(ttl)),
            Op::SetQuota { path: path("/c"), quota: quota(20) },
            Op::SetQuota { path: path("/q"), quota: None },
            set("/q/r", "longer", None),
            Op::SetAcl { path: path("/q/r"), acl: acl(), version: Some(0) },
            set("/ttl", "", None),
            delete("/c/x", None),
            Op::Revoke { lease },
            Op::Grant { ttl: Duration::ZERO },
            delete("/c/n-0000000001", None),
            delete("/c/t", None),
            Op::DeleteTree { path: path("/q") },
            create("/q", "again", CreateMode::Container),
            create("/q/r", "", CreateMode::Ephemeral),
            Op::SetQuota { path: path("/q"), quota: quota(3) },
            create("/q/s", "", CreateMode::Persistent),
        ]
    };
    let mut it = Fixture::new();
    let id = it.open(1, 0);
    it.plain(create("/c", "", CreateMode::Container));
    it.txn(id, 1, 0, create("/c/x", "", CreateMode::Ephemeral)).result.unwrap();
    it.plain(create("/ttl", "1", CreateMode::Ttl(ttl)));
    for at in ["/q", "/q/r", "/q/r/s"] {
        it.plain(create(at, "12", CreateMode::Persistent));
    }
    for at in ["/q", "/q/r"] {
        it.plain(Op::SetQuota { path: path(at), quota: quota(9) }).result.unwrap();
    }
    let granted = it.txn(id, 2, 1, Op::Grant { ttl: Duration::ZERO }).result;
    let Ok(Outcome::Granted { lease, .. }) = granted else {
        panic!("{granted:?}");
    };
    it.txn(id, 3, 2, create("/leased", "", CreateMode::Leased(lease))).result.unwrap();
    it.ns.begin_entry(100, 5);
    it.ns.drain_changes();
    let actor = Actor { session: Some(id), who: Identities::superuser() };
    let (before, digest) = (snapshot(&it.ns), it.ns.digest());
    for count in 1..=done(lease).len() {
        let ops = done(lease).into_iter().take(count);
        let refused = it.ns.execute(&Txn::all(ops).then(delete("/none", None)), &actor);
        let (index, cause) = (count as u64, Box::new(OpError::NoNode { path: path("/none") }));
        assert_eq!(refused, Err(OpError::InTxn { index, cause }));
        assert!(it.ns.drain_changes().is_empty());
        assert!(it.ns.digest() == digest && snapshot(&it.ns) == before, "after {count}");
        check_indexes(&it.ns);
    }
    it.ns.execute(&Txn::all(done(lease)), &actor).unwrap();
    check_indexes(&restored(&it.ns, 1000));
}

/// etcd's transaction: guards choose between two branches.
#[test]
fn guards_choose_the_branch() {
    let mut it = Fixture::new();
    it.plain(create("/a", "old", CreateMode::Persistent));
    let swap = |expected: &'static str| {
        let is = Relation::Equal;
        Txn::all([set("/a", "new", None)])
            .guard(guard("/a", Check::Value { is, to: expected.into() }))
            .or_else([Op::Get { path: path("/a") }])
    };
    let reply = it.plain(swap("other"));
    let Ok(Outcome::Txn { held: false, results }) = &reply.result else {
        panic!("{reply:?}");
    };
    assert!(matches!(&results[..], [Outcome::Node { data, .. }] if data == "old"));
    assert_eq!(reply.zxid, Zxid::new(1), "what only reads takes no zxid");
    let reply = it.plain(swap("old"));
    assert!(
        matches!(&reply.result, Ok(Outcome::Txn { held: true, results }) if results.len() == 1)
    );
    assert_eq!(reply.zxid, Zxid::new(2));
    let nothing =
        Txn::new(set("/a", "", None)).guard(guard("/a", Check::Exists(false))).or_else([]);
    let reply = it.plain(nothing);
    assert_eq!(reply.result, Ok(Outcome::Txn { held: false, results: Vec::new() }));
    // Without a second branch it is an error.
    let refused = Txn::all([]).guard(guard("/b", Check::Exists(true)));
    let error = OpError::GuardFailed { index: 0, path: path("/b") };
    assert_eq!(it.plain(refused).result, Err(error));
}

#[test]
fn numbers_and_values_are_compared() {
    let mut it = Fixture::new();
    it.plain(create("/a", "m", CreateMode::Persistent));
    it.plain(set("/a", "mm", None));
    it.plain(create("/a/x", "", CreateMode::Persistent));
    it.plain(create("/a/y", "", CreateMode::Persistent));
    let holds = |it: &mut Fixture, at: &str, check: Check| {
        it.plain(Txn::all([]).guard(guard(at, check))).result.is_ok()
    };
    for (field, value) in [
        (Field::Version, 1_u64),
        (Field::Cversion, 2),
        (Field::Aversion, 0),
        (Field::Czxid, 1),
        (Field::Mzxid, 2),
        (Field::Pzxid, 4),
        (Field::Children, 2),
        (Field::DataLength, 2),
    ] {
        for to in [value, value + 1, value.wrapping_sub(1)] {
            for (is, expected) in [
                (Relation::Equal, value == to),
                (Relation::NotEqual, value != to),
                (Relation::Less, value < to),
                (Relation::Greater, value > to),
            ] {
                let check = Check::Compare { field, is, to };
                assert_eq!(holds(&mut it, "/a", check.clone()), expected, "{check:?}");
                assert!(!holds(&mut it, "/none", check), "there is nothing to compare");
            }
        }
    }
    for (is, to, expected) in [
        (Relation::Equal, "mm", true),
        (Relation::Equal, "m", false),
        (Relation::NotEqual, "m", true),
        (Relation::Less, "n", true),
        (Relation::Less, "mm", false),
        (Relation::Greater, "m", true),
        (Relation::Greater, "z", false),
    ] {
        let check = Check::Value { is, to: to.into() };
        assert_eq!(holds(&mut it, "/a", check.clone()), expected, "{check:?}");
        assert!(!holds(&mut it, "/none", check));
    }
}

/// A write that carries its owner's token takes effect only while that is the owner.
#[test]
fn a_stale_fencing_token_changes_nothing() {
    let mut it = Fixture::new();
    let (first, second) = (it.open(1, 0), it.open(2, 0));
    it.plain(create("/data", "", CreateMode::Persistent));
    let token = it.txn(first, 1, 0, create("/lock", "", CreateMode::Ephemeral)).zxid;
    let fenced = |token| {
        let ops = [set("/data", "x", None), create("/log-", "", CreateMode::PersistentSequential)];
        Txn::all(ops).guard(guard("/lock", Check::Czxid(token)))
    };
    assert!(it.txn(first, 2, 0, fenced(token)).result.is_ok());
    it.ns.apply(Command::CloseSession { session: first, epoch: 1, seq: 3 });
    let next = it.txn(second, 1, 0, create("/lock", "", CreateMode::Ephemeral)).zxid;
    assert!(next > token, "tokens grow");
    let before = snapshot(&it.ns);
    let refused = OpError::GuardFailed { index: 0, path: path("/lock") };
    assert_eq!(it.plain(fenced(token)).result, Err(refused));
    assert!(snapshot(&it.ns) == before);
    assert!(it.plain(fenced(next)).result.is_ok());
}

#[test]
fn every_bound_of_a_transaction_is_refused_with_its_name_and_value() {
    let small = Parameters { txn_ops_max: 3, payload_bytes_max: 8, ..parameters() };
    let mut it = Fixture::with(Parameters { window_bytes_max: 1 << 16, ..small });
    it.plain(create("/a", "", CreateMode::Persistent));
    let before = snapshot(&it.ns);
    let ops = |count: usize, data: &'static str| vec![set("/a", data, None); count];
    let value = Check::Value { is: Relation::Equal, to: "1234".into() };
    let after = "x".repeat(Path::BYTES_MAX + 1);
    for (txn, limit, value, max) in [
        (Txn::all(ops(4, "")), LimitName::Operations, 4, 3),
        // Both branches count, whichever is taken.
        (Txn::all(ops(2, "")).or_else(ops(2, "")), LimitName::Operations, 4, 3),
        (Txn::all(ops(1, "123456789")), LimitName::PayloadBytes, 9, 8),
        (Txn::all([]).or_else(ops(1, "123456789")), LimitName::PayloadBytes, 9, 8),
        (Txn::all(ops(2, "12345")), LimitName::TxnBytes, 10, 8),
        (Txn::all(ops(1, "12345")).or_else(ops(1, "1234")), LimitName::TxnBytes, 9, 8),
        (Txn::new(set("/a", "12345", None)).guard(guard("/a", value)), LimitName::TxnBytes, 9, 8),
        (Op::List(List::of(path("/")).after(after)).into(), LimitName::PathBytes, 4097, 4096),
    ] {
        let refused = Err(OpError::Limit { limit, value, max });
        assert_eq!(it.plain(txn.clone()).result, refused, "{txn:?}");
    }
    assert!(snapshot(&it.ns) == before);
    // Results are bounded, too, and what was written is taken back.
    let mut it = Fixture::with(Parameters { window_bytes_max: 1 << 16, ..parameters() });
    it.plain(create("/big", &"x".repeat(20_000), CreateMode::Persistent));
    let before = snapshot(&it.ns);
    let get = || Op::Get { path: path("/big") };
    assert!(it.plain(get()).result.is_ok());
    let (limit, value, max) = (LimitName::ResultBytes, 40_576, 1 << 15);
    let refused = Err(OpError::Limit { limit, value, max });
    assert_eq!(it.plain(Txn::all([set("/", "x", None), get(), get()])).result, refused);
    assert!(snapshot(&it.ns) == before);
}

#[test]
fn a_tree_is_deleted_at_once_within_its_bound() {
    let mut it = Fixture::with(Parameters { subtree_nodes_max: 6, ..parameters() });
    let id = it.open(1, 0);
    for at in ["/t", "/t/a", "/t/a/x", "/t/b", "/t-not", "/t/c"] {
        it.plain(create(at, "", CreateMode::Persistent));
    }
    it.txn(id, 1, 0, create("/t/a/e", "", CreateMode::Ephemeral));
    let before = it.ns.view().stat(&Path::root()).unwrap().unwrap();
    it.ns.drain_changes();
    let delete_tree = || Op::DeleteTree { path: path("/t") };
    let reply = it.plain(delete_tree());
    assert_eq!(reply.result, Ok(Outcome::DeletedTree { nodes: 6 }));
    let paths: Vec<_> = it.ns.drain_changes().iter().map(|it| it.path.to_string()).collect();
    assert_eq!(paths, ["/t/c", "/t/b", "/t/a/x", "/t/a/e", "/t/a", "/t"]);
    let after = it.ns.view().stat(&Path::root()).unwrap().unwrap();
    assert_eq!((after.children, after.cversion), (before.children - 1, before.cversion + 1));
    assert_eq!(it.ns.view().owned(id.lease(), None), Ok(Owned { paths: Vec::new(), resume: None }));
    check_indexes(&it.ns);
    for at in ["/t", "/t/1", "/t/2", "/t/3", "/t/4", "/t/5", "/t/6"] {
        it.plain(create(at, "", CreateMode::Persistent));
    }
    let bytes = snapshot(&it.ns);
    let refused = OpError::Limit { limit: LimitName::SubtreeNodes, value: 7, max: 6 };
    assert_eq!(it.plain(delete_tree()).result, Err(refused));
    assert!(snapshot(&it.ns) == bytes);
    assert_eq!(it.ns.view().descendants(&path("/t"), 9), Ok((6, false)));
    assert_eq!(it.ns.view().descendants(&path("/t"), 5), Ok((5, true)));
    let no_node = OpError::NoNode { path: path("/none") };
    assert_eq!(it.ns.view().descendants(&path("/none"), 5), Err(no_node));
}

#[test]
fn a_page_ends_by_count_and_by_bytes_and_says_where_to_go_on() {
    let mut it = Fixture::new();
    let id = it.open(1, 0);
    it.plain(create("/d", "", CreateMode::Persistent));
    for n in 0..5 {
        it.plain(create(&format!("/d/a{n}"), &"x".repeat(400_000), CreateMode::Persistent));
        it.txn(id, n + 1, 0, create(&format!("/d/b{n}"), "", CreateMode::Ephemeral));
    }
    let view = it.ns.view();
    let names = |list: &List| {
        let page = view.list(list).unwrap();
        let names = page.children.into_iter().map(|child| child.name).collect::<Vec<_>>();
        (names.join(" "), page.resume)
    };
    let list = || List::of(path("/d"));
    let all = "a0 a1 a2 a3 a4 b0 b1 b2 b3 b4";
    assert_eq!(names(&list()), (all.into(), None));
    assert_eq!(names(&list().limit(0)), (all.into(), None), "no limit is the largest");
    assert_eq!(names(&list().limit(2).after("a4")), ("b0 b1".into(), Some("b1".into())));
    assert_eq!(names(&list().prefix("b").after("a1").limit(9)), ("b0 b1 b2 b3 b4".into(), None));
    let only = list().only(Children::Ephemeral).limit(1);
    assert_eq!(names(&only), ("b0".into(), Some("b0".into())));
    assert_eq!(names(&list().only(Children::Persistent)), ("a0 a1 a2 a3 a4".into(), None));
    assert_eq!(names(&list().with_data()), ("a0 a1".into(), Some("a1".into())));
    let page = view.list(&list().with_data().with_stat().after("a3").limit(1)).unwrap();
    let child = &page.children[0];
    assert_eq!(child.stat.map(|stat| stat.data_length), Some(400_000));
    assert_eq!(child.data.as_ref().map(Bytes::len), Some(400_000));
}

fn guard(at: &str, check: Check) -> Guard {
    Guard { path: path(at), check }
}

/// What one operation may remove or count, many of them in one transaction may not either.
#[test]
fn subtrees_of_one_transaction_share_a_bound() {
    let mut it = Fixture::with(Parameters { subtree_nodes_max: 5, ..parameters() });
    for top in ["/a", "/b"] {
        it.plain(create(top, "", CreateMode::Persistent));
        (0..2).for_each(|n| {
            drop(it.plain(create(&format!("{top}/{n}"), "", CreateMode::Persistent)))
        });
    }
    let before = snapshot(&it.ns);
    let delete = |at: &str| Op::DeleteTree { path: path(at) };
    let count = |at: &str| Op::SetQuota { path: path(at), quota: Some(Quota::default()) };
    let (limit, value, max) = (LimitName::SubtreeNodes, 6, 5);
    let cause = Box::new(OpError::Limit { limit, value, max });
    for ops in
        [[delete("/a"), delete("/b")], [count("/a"), count("/b")], [count("/a"), delete("/b")]]
    {
        let refused = Err(OpError::InTxn { index: 1, cause: cause.clone() });
        assert_eq!(it.plain(Txn::all(ops)).result, refused);
    }
    assert!(snapshot(&it.ns) == before);
    assert!(it.plain(delete("/a")).result.is_ok() && it.plain(delete("/b")).result.is_ok());
}

/// The results of a transaction are given up as soon as they are too many, not after all are there.
#[test]
fn results_are_counted_while_they_are_made() {
    let mut it = Fixture::with(Parameters { window_bytes_max: 1 << 16, ..parameters() });
    it.plain(create("/big", &"x".repeat(20_000), CreateMode::Persistent));
    let get = || Op::Get { path: path("/big") };
    // The third operation would fail; the second one is too much already.
    let ops = [get(), get(), Op::Get { path: path("/none") }];
    let result = it.plain(Txn::all(ops)).result;
    assert!(
        matches!(result, Err(OpError::Limit { limit: LimitName::ResultBytes, .. })),
        "{result:?}"
    );
}

#[test]
fn names_made_by_hand_do_not_end_a_sequence() {
    let mut it = Fixture::new();
    it.plain(create("/q", "", CreateMode::Persistent));
    for n in 0..200 {
        it.plain(create(&format!("/q/n-{n:010}"), "", CreateMode::Persistent));
    }
    let made = it.plain(create("/q/n-", "", CreateMode::PersistentSequential));
    let Ok(Outcome::Created { path: made, .. }) = made.result else { panic!("{made:?}") };
    assert_eq!(made.as_str(), "/q/n-0000000200");
}

/// Every write counts in each quota above it.
#[test]
fn few_quotas_lie_above_each_other() {
    let mut it = Fixture::new();
    let at = |depth: usize| "/d".repeat(depth);
    let quota = |depth| Op::SetQuota { path: path(&at(depth)), quota: Some(Quota::default()) };
    (1..=12).for_each(|depth| drop(it.plain(create(&at(depth), "", CreateMode::Persistent))));
    // From both ends: above, below, and between those that are there.
    for depth in [12, 1, 11, 2, 10, 3, 9, 4] {
        assert_eq!(it.plain(quota(depth)).result, Ok(Outcome::QuotaSet), "{depth}");
    }
    let refused = OpError::Limit { limit: LimitName::NestedQuotas, value: 9, max: 8 };
    for depth in 5..=8 {
        assert_eq!(it.plain(quota(depth)).result, Err(refused.clone()), "{depth}");
    }
    assert_eq!(it.plain(quota(4)).result, Ok(Outcome::QuotaSet), "it is there already");
    it.plain(create("/other", "", CreateMode::Persistent));
    let beside = Op::SetQuota { path: path("/other"), quota: Some(Quota::default()) };
    assert_eq!(it.plain(beside).result, Ok(Outcome::QuotaSet));
}
