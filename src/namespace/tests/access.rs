//! Rights and quotas: every operation, alone and inside a transaction, as every kind of principal.

use super::*;
use crate::op::{
    Acl, Check, Children, DigestId, Grant, Guard, Identity, List, Principal, Quota, Rights, Subject,
};

/// One row for each operation: what it asks for, of which node. A new operation does not compile
/// without a row.
fn needed(op: &Op) -> Option<(&'static str, Rights)> {
    match op {
        Op::Create { .. } => Some(("/p", Rights::CREATE)),
        Op::Set { .. } => Some(("/p/n", Rights::WRITE)),
        Op::Delete { .. } | Op::DeleteTree { .. } => Some(("/p", Rights::DELETE)),
        Op::Check(_) | Op::Get { .. } | Op::Exists { .. } => Some(("/p/n", Rights::READ)),
        Op::List(_) => Some(("/p/n", Rights::READ)),
        Op::SetAcl { .. } => Some(("/p/n", Rights::ADMIN)),
        // Either of two: see below.
        Op::GetAcl { .. } => None,
        // A session's own business, whoever it is.
        Op::Grant { .. } | Op::Revoke { .. } => None,
        Op::SetQuota { .. } => Some(("/p", Rights::ADMIN)),
    }
}

fn operations() -> Vec<Op> {
    let at = || path("/p/n");
    vec![
        create("/p/new", "", CreateMode::Persistent),
        create("/p/new-", "", CreateMode::PersistentSequential),
        set("/p/n", "x", None),
        delete("/p/n", None),
        Op::DeleteTree { path: at() },
        Op::Check(Guard { path: at(), check: Check::Exists(true) }),
        Op::Get { path: at() },
        Op::Exists { path: at() },
        Op::List(List::of(at())),
        Op::SetAcl { path: at(), acl: Acl::open(), version: None },
        Op::SetQuota { path: at(), quota: Some(Quota::default()) },
    ]
}

/// Each kind of principal, an identity that is it, and one of the same kind that is not.
fn principals() -> Vec<(Principal, Vec<Identity>, Vec<Identity>)> {
    let digest = |hash| DigestId::new("ann", hash).unwrap();
    let subject = |text| Subject::new(text).unwrap();
    let ip = |last| Identity::Ip([10, 0, last, 7].into());
    vec![
        (Principal::World, vec![], vec![]),
        (
            Principal::Digest(digest("right")),
            vec![ip(9), Identity::Digest(digest("right"))],
            vec![Identity::Digest(digest("wrong")), ip(1)],
        ),
        (Principal::Ip { addr: [10, 0, 1, 0].into(), bits: 24 }, vec![ip(1)], vec![ip(2)]),
        (
            Principal::X509(subject("CN=ann")),
            vec![Identity::X509(subject("CN=ann"))],
            vec![Identity::X509(subject("CN=bob")), Identity::Digest(digest("right"))],
        ),
    ]
}

#[test]
fn every_operation_needs_its_right_alone_and_in_a_transaction() {
    let everything = [Rights::READ, Rights::WRITE, Rights::CREATE, Rights::DELETE, Rights::ADMIN];
    let mut refused = 0;
    for (principal, own, other) in principals() {
        let is_world = principal == Principal::World;
        for op in operations() {
            let (at, right) = needed(&op).unwrap();
            let others = everything.into_iter().filter(|it| *it != right);
            let others = others.fold(Rights::NONE, |all, it| all | it);
            let grant = |rights| Grant { principal: principal.clone(), rights };
            let mut expect = |acl: &Acl, who: &[Identity], allowed: bool| {
                for txn in ways(&op) {
                    let mut it = guarded(at, acl);
                    let before = snapshot(&it.ns);
                    let reply = run(&mut it, who, &txn);
                    if allowed {
                        assert!(reply.result.is_ok(), "{txn:?} as {who:?}: {reply:?}");
                        continue;
                    }
                    refused += 1;
                    let no = OpError::NoAuth { path: path(at), right };
                    let (index, cause) = (1, Box::new(no.clone()));
                    let expected = match txn.ops().count() {
                        1 => no,
                        _ => OpError::InTxn { index, cause },
                    };
                    assert_eq!(reply.result, Err(expected), "{txn:?} as {who:?}");
                    assert!(snapshot(&it.ns) == before, "what is refused changes nothing");
                }
            };
            expect(&Acl::new([grant(right)]).unwrap(), &own, true);
            expect(&Acl::new([grant(others)]).unwrap(), &own, false);
            expect(&Acl::new([grant(right)]).unwrap(), &other, is_world);
            expect(&Acl::new([grant(right)]).unwrap(), &[], is_world);
            expect(&Acl::new([grant(Rights::NONE)]).unwrap(), &[Identity::Super], true);
        }
    }
    assert!(refused > 200, "{refused}");
}

/// Each refusal that has numbers or names, for those who may read what it tells of and for those
/// who may do everything else.
#[test]
fn an_error_tells_no_more_of_a_node_than_its_caller_may_read() {
    let at = |text: &str| path(text);
    let quota = Quota { bytes_hard: Some(9), ..Quota::default() };
    let bytes = LimitName::QuotaBytes;
    let version = |actual| OpError::BadVersion { path: at("/p/n"), expected: 7, actual };
    let aversion = |actual| OpError::BadVersion { path: at("/p/n"), expected: 9, actual };
    let full = |limit, value, max| OpError::Quota { path: at("/p/n"), limit, value, max };
    let no = |path, right| OpError::NoAuth { path, right };
    let unread = || no(at("/p/n"), Rights::READ);
    let check = |check| Op::Check(Guard { path: at("/p/n"), check });
    let guard = OpError::GuardFailed { index: 0, path: at("/p/n") };
    let children = |children| OpError::NotEmpty { path: at("/p/n"), children };
    let set_acl = Op::SetAcl { path: at("/p/n"), acl: Acl::open(), version: Some(9) };
    let rows = [
        (delete("/p/n", None), children(Some(1)), children(None)),
        (delete("/p/n", Some(7)), version(Some(1)), version(None)),
        (set("/p/n", "", Some(7)), version(Some(1)), version(None)),
        (set_acl, aversion(Some(1)), aversion(None)),
        (create("/p/n/new", "123", CreateMode::Persistent), full(bytes, 11, 9), full(bytes, 10, 9)),
        (set("/p/n", "123456789", None), full(bytes, 12, 9), full(bytes, 10, 9)),
        (check(Check::Version(7)), guard.clone(), unread()),
        (check(Check::Exists(false)), guard, unread()),
        // Nobody may delete below `/p/n/child`, whose name only a reader of `/p/n` may know.
        (
            Op::DeleteTree { path: at("/p/n") },
            no(at("/p/n/child"), Rights::DELETE),
            no(at("/p/n"), Rights::DELETE),
        ),
    ];
    let grant = |rights| Acl::new([Grant { principal: Principal::World, rights }]).unwrap();
    let blind = Rights::from_bits(Rights::ALL.bits() ^ Rights::READ.bits()).unwrap();
    let undeletable = Rights::from_bits(Rights::ALL.bits() ^ Rights::DELETE.bits()).unwrap();
    for (op, told, hidden) in rows {
        for (rights, expected) in [(Rights::ALL, told), (blind, hidden)] {
            let mut it = guarded("/p/n", &grant(rights));
            for op in [
                set("/p/n", "12345", None),
                create("/p/n/child", "123", CreateMode::Persistent),
                Op::SetQuota { path: at("/p/n"), quota: Some(quota) },
                Op::SetAcl { path: at("/p/n/child"), acl: grant(undeletable), version: None },
                create("/p/n/child/x", "", CreateMode::Persistent),
            ] {
                it.plain_as(Identities::superuser(), op).result.unwrap();
            }
            let before = snapshot(&it.ns);
            assert_eq!(it.plain(op.clone()).result, Err(expected), "{op:?} with {rights:?}");
            assert!(snapshot(&it.ns) == before, "what is refused changes nothing");
        }
    }
}

/// As a session, its identities handed in when it was opened, and as nobody's.
fn run(it: &mut Fixture, who: &[Identity], txn: &Txn) -> Reply {
    let who = Identities::new(who.iter().cloned()).unwrap();
    it.plain_as(who, txn.clone())
}

/// Alone, among others, and in the branch that is taken when a guard fails.
fn ways(op: &Op) -> [Txn; 3] {
    let first = || set("/other", "", None);
    let no = Guard { path: path("/other"), check: Check::Exists(false) };
    [
        Txn::new(op.clone()),
        Txn::all([first(), op.clone()]),
        Txn::all([]).guard(no).or_else([first(), op.clone()]),
    ]
}

/// `/p/n`, everything open but `at`.
fn guarded(at: &str, acl: &Acl) -> Fixture {
    let mut it = Fixture::new();
    for made in ["/p", "/p/n", "/other"] {
        let Op::Create { path, data, mode, .. } = create(made, "", CreateMode::Persistent) else {
            panic!("a creation");
        };
        it.plain(Op::Create { path, data, mode, acl: Some(Acl::open()) });
    }
    let (path, acl) = (path(at), acl.clone());
    it.plain(Op::SetAcl { path, acl, version: Some(0) }).result.unwrap();
    it
}

/// What a subtree held is taken off the quotas above it at once, however deep they lie.
#[test]
fn a_deep_subtree_leaves_its_quotas_in_one_step() {
    let mut it = Fixture::new();
    let mut at = String::new();
    for _ in 0..1_000 {
        at += "/d";
        it.plain(create(&at, "12", CreateMode::Persistent)).result.unwrap();
    }
    let quota = Some(Quota::default());
    for at in ["/d", "/d/d", &at[..200]] {
        it.plain(Op::SetQuota { path: path(at), quota }).result.unwrap();
    }
    let looks = crate::namespace::quota::tests::LOOKS.get();
    let nodes = it.plain(Op::DeleteTree { path: path("/d/d/d") }).result;
    assert_eq!(nodes, Ok(Outcome::DeletedTree { nodes: 998 }));
    let looks = crate::namespace::quota::tests::LOOKS.get() - looks;
    assert!(looks < 10, "{looks} looks for 998 nodes");
    let usage = it.ns.view().quota(&path("/d")).unwrap().unwrap().1;
    assert_eq!(usage, Usage { nodes: 2, bytes: 4 });
    check_indexes(&restored(&it.ns, 1000));
    let then = it.ns.past().at(Zxid::new(it.ns.zxid().as_u64() - 1)).unwrap();
    let usage = |at: &str| then.quota(&path(at)).unwrap().unwrap().1;
    assert_eq!(usage("/d/d"), Usage { nodes: 999, bytes: 1998 });
    assert_eq!(usage(&at[..200]), Usage { nodes: 901, bytes: 1802 });
}

/// A long list is kept once for all nodes below, whether they ask for it or not.
#[test]
fn a_list_that_is_the_parents_is_kept_once() {
    let grants = (0..64).map(|n| Grant {
        principal: Principal::X509(Subject::new(&format!("CN={n}")).unwrap()),
        rights: Rights::ALL,
    });
    let acl = Acl::new(grants).unwrap();
    let mut it = Fixture::new();
    let made = |at: &str, acl| match create(at, "", CreateMode::Container) {
        Op::Create { path, data, mode, .. } => Op::Create { path, data, mode, acl },
        other => other,
    };
    let again = Acl::new(acl.grants().to_vec()).unwrap();
    for (at, acl) in [("/a", Some(acl)), ("/a/b", None), ("/a/c", Some(again))] {
        it.plain_as(Identities::superuser(), made(at, acl)).result.unwrap();
    }
    for ns in [&it.ns, &restored(&it.ns, 1000)] {
        let grants = |at: &str| ns.state.tree.get(at).unwrap().acl().unwrap().grants().as_ptr();
        assert_eq!([grants("/a/b"), grants("/a/c")], [grants("/a"); 2]);
    }
}

#[test]
fn a_session_has_the_identities_of_its_newest_attachment() {
    let ann = || Identities::new([Identity::Digest(DigestId::new("ann", "h").unwrap())]).unwrap();
    let mut it = Fixture::new();
    let id = it.open_as(1, 0, ann());
    let path_and_acl = |at: &str, acl| match create(at, "", CreateMode::Persistent) {
        Op::Create { path, data, mode, .. } => Op::Create { path, data, mode, acl: Some(acl) },
        other => other,
    };
    // Whoever sets the list is meant; nobody in particular is nobody.
    it.txn(id, 1, 0, path_and_acl("/mine", Acl::creator())).result.unwrap();
    let invalid = OpError::InvalidAcl { path: path("/x") };
    assert_eq!(it.plain(path_and_acl("/x", Acl::creator())).result, Err(invalid));
    let no = |right| Err(OpError::NoAuth { path: path("/mine"), right });
    assert_eq!(it.plain(set("/mine", "", None)).result, no(Rights::WRITE));
    // A child has its parent's list, unless it gets its own.
    it.txn(id, 2, 0, create("/mine/child", "", CreateMode::Persistent)).result.unwrap();
    let child = Err(OpError::NoAuth { path: path("/mine/child"), right: Rights::READ });
    assert_eq!(it.plain(Op::Get { path: path("/mine/child") }).result, child);
    let kept = it.ns.state.tree.get("/mine/child").unwrap();
    let above = it.ns.state.tree.get("/mine").unwrap();
    let [kept, above] = [kept, above].map(|it| it.special.as_ref().unwrap());
    assert!(Arc::ptr_eq(kept, above), "it is kept once");
    let it = &mut Fixture { ns: restored(&it.ns, 100), counter: 0, epoch: 1 };
    assert!(it.txn(id, 3, 0, set("/mine", "", None)).result.is_ok(), "they are in the snapshot");
    let attach = |epoch, identities| Command::AttachSession {
        origin: origin(0),
        session: id,
        secret: secret(1),
        epoch,
        identities,
    };
    it.ns.apply(attach(2, Identities::none()));
    it.epoch = 2;
    assert_eq!(it.txn(id, 4, 0, set("/mine", "", None)).result, no(Rights::WRITE));
    it.ns.apply(attach(3, ann()));
    it.epoch = 3;
    assert!(it.txn(id, 5, 0, set("/mine", "", None)).result.is_ok());
    // A guard tells of a node, and so does its absence of an answer: it needs the right to read.
    let guard = Guard { path: path("/mine"), check: Check::Version(0) };
    let asked = Txn::new(set("/", "", None)).guard(guard).or_else([]);
    assert_eq!(it.plain(asked).result, no(Rights::READ));
}

#[test]
fn a_list_is_replaced_by_its_version_and_shown_without_its_secrets() {
    let mut it = Fixture::new();
    it.plain(create("/a", "", CreateMode::Persistent));
    let ann = Identity::Digest(DigestId::new("ann", "secret").unwrap());
    let who = || Identities::new([ann.clone()]).unwrap();
    let all = Principal::Digest(DigestId::new("ann", "secret").unwrap());
    let acl = Acl::new([
        Grant { principal: all, rights: Rights::ALL },
        Grant { principal: Principal::World, rights: Rights::READ },
    ])
    .unwrap();
    let set_acl = |version| Op::SetAcl { path: path("/a"), acl: acl.clone(), version };
    let reply = it.plain(set_acl(Some(0)));
    let Ok(Outcome::AclSet { stat }) = reply.result else {
        panic!("{reply:?}");
    };
    assert_eq!(
        (stat.aversion, stat.version, stat.mzxid, reply.zxid.as_u64()),
        (1, 0, stat.czxid, 2)
    );
    let stale = OpError::BadVersion { path: path("/a"), expected: 0, actual: Some(1) };
    assert_eq!(it.plain_as(who(), set_acl(Some(0))).result, Err(stale));
    let get = || Op::GetAcl { path: path("/a") };
    let shown = it.plain_as(who(), get()).result.unwrap();
    assert_eq!(shown, Outcome::Acl { acl: acl.clone(), stat });
    let reply = it.plain(get());
    assert_eq!(reply.result, Ok(Outcome::Acl { acl: acl.masked(), stat }));
    let texts = [format!("{reply:?}"), format!("{shown:?}"), format!("{:?}", set_acl(None))];
    assert!(texts.iter().all(|text| text.contains("ann") && !text.contains("secret")));
    // Neither to read nor to administrate: not even that it is there is said twice.
    let hidden = Acl::new([Grant { principal: Principal::World, rights: Rights::WRITE }]).unwrap();
    it.plain_as(who(), Op::SetAcl { path: path("/a"), acl: hidden, version: None }).result.unwrap();
    let no = OpError::NoAuth { path: path("/a"), right: Rights::READ };
    assert_eq!(it.plain(get()).result, Err(no));
}

#[test]
fn a_page_shows_of_unreadable_children_only_their_names() {
    let mut it = Fixture::new();
    for at in ["/open", "/shut"] {
        it.plain(create(at, "data", CreateMode::Persistent));
    }
    let acl = Acl::new([Grant { principal: Principal::World, rights: Rights::WRITE }]).unwrap();
    it.plain(Op::SetAcl { path: path("/shut"), acl, version: None }).result.unwrap();
    let view = it.ns.view().seen_by(Identities::none());
    let list = || List::of(Path::root()).with_data().with_stat();
    let page = view.list(&list()).unwrap();
    let seen: Vec<_> = page
        .children
        .iter()
        .map(|it| (it.name.as_str(), it.stat.is_some(), it.data.is_some()))
        .collect();
    assert_eq!(seen, [("open", true, true), ("shut", false, false)]);
    let page = view.list(&list().only(Children::Persistent)).unwrap();
    assert_eq!(page.children.len(), 1);
    assert!(it.ns.view().list(&list()).unwrap().children.iter().all(|it| it.data.is_some()));
}

/// An event is for those who could read the node then, and, if it still lives, can now.
#[test]
fn rule_12_an_event_is_told_to_those_who_could_read_the_node() {
    let mut it = Fixture::new();
    let reader = || Identities::new([Identity::Ip([10, 0, 0, 1].into())]).unwrap();
    let principal = Principal::Ip { addr: [10, 0, 0, 1].into(), bits: 32 };
    let closed = |rights| Acl::new([Grant { principal: principal.clone(), rights }]).unwrap();
    let (all, none) = (closed(Rights::ALL), closed(Rights::ADMIN | Rights::WRITE));
    let set_acl = |acl: &Acl| Op::SetAcl { path: path("/a"), acl: acl.clone(), version: None };
    it.plain(create("/a", "", CreateMode::Persistent));
    it.plain(set_acl(&all));
    it.plain_as(reader(), set("/a", "1", None));
    it.plain_as(reader(), set_acl(&none));
    it.plain_as(reader(), set("/a", "2", None));
    let restored = restored(&it.ns, 50);
    let told = |ns: &Namespace, who: &Identities| {
        let changes: Vec<_> = ns.history_after(Zxid::ZERO).unwrap().cloned().collect();
        let learns = |change: &&Change| {
            let same = |it: &&Change| it.zxid == change.zxid;
            ns.learns(&Lists::new(changes.iter().filter(same)), change, who).is_some()
        };
        let told = changes.iter().filter(learns);
        told.map(|event| event.zxid.as_u64()).collect::<Vec<_>>()
    };
    for ns in [&it.ns, &restored] {
        assert!(told(ns, &Identities::none()).is_empty() && told(ns, &reader()).is_empty());
    }
    // It is gone, and what was open then is told again; what was shut, and its end, are not.
    it.plain(delete("/a", None));
    assert_eq!(told(&it.ns, &Identities::none()), [1]);
    assert_eq!(told(&it.ns, &reader()), [1, 2, 3]);
    // Another node of this name changes nothing.
    it.plain(create("/a", "", CreateMode::Persistent));
    it.plain(set_acl(&none));
    assert_eq!(told(&it.ns, &reader()), [1, 2, 3]);
    let all = Identities::new([Identity::Super]).unwrap();
    assert_eq!(told(&it.ns, &all), [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn a_quota_bounds_a_subtree_and_warns_before() {
    let mut it = Fixture::with(Parameters { subtree_nodes_max: 4, ..parameters() });
    let id = it.open(1, 0);
    for at in ["/q", "/q/a", "/q-not"] {
        it.plain(create(at, "12", CreateMode::Persistent));
    }
    let hard = Quota { nodes_hard: Some(4), bytes_hard: Some(8), ..Quota::default() };
    let quota = Quota { nodes_soft: Some(2), bytes_soft: Some(5), ..hard };
    let set_quota = |at: &str, quota| Op::SetQuota { path: path(at), quota };
    assert_eq!(it.plain(set_quota("/q", Some(quota))).result, Ok(Outcome::QuotaSet));
    let usage = |it: &Fixture| it.ns.view().quota(&path("/q")).unwrap().unwrap().1;
    assert_eq!(usage(&it), Usage { nodes: 2, bytes: 4 });
    assert!(!usage(&it).warns(&quota));
    it.txn(id, 1, 0, create("/q/a/e", "12", CreateMode::Ephemeral)).result.unwrap();
    assert_eq!(usage(&it), Usage { nodes: 3, bytes: 6 });
    assert!(usage(&it).warns(&quota) && !usage(&it).warns(&hard));
    let refused = |limit, value, max| Err(OpError::Quota { path: path("/q"), limit, value, max });
    let bytes = |value| refused(LimitName::QuotaBytes, value, 8);
    assert_eq!(it.plain(set("/q/a", "12345", None)).result, bytes(9));
    assert_eq!(it.plain(create("/q/b", "123", CreateMode::Persistent)).result, bytes(9));
    it.plain(create("/q/b", "12", CreateMode::Persistent)).result.unwrap();
    let nodes = refused(LimitName::QuotaNodes, 5, 4);
    assert_eq!(it.plain(create("/q/c", "", CreateMode::Persistent)).result, nodes);
    // What goes, goes, and what does not add may stay as it is.
    it.plain(set("/q/a", "1", None)).result.unwrap();
    it.plain(set("/q/b", "34", None)).result.unwrap();
    check_indexes(&restored(&it.ns, 64));
    it.ns.apply(Command::CloseSession { session: id, epoch: 1, seq: 2 });
    assert_eq!(usage(&it), Usage { nodes: 3, bytes: 5 });
    // In a transaction each sees what those before it took.
    let both = [("/q/x", ""), ("/q/y", "")].map(|it| create(it.0, it.1, CreateMode::Persistent));
    let cause = Box::new(nodes.unwrap_err());
    assert_eq!(it.plain(Txn::all(both)).result, Err(OpError::InTxn { index: 1, cause }));
    assert_eq!(usage(&it), Usage { nodes: 3, bytes: 5 });
    // One below another: both hold, and each counts its own.
    let one = Quota { nodes_hard: Some(1), ..Quota::default() };
    it.plain(set_quota("/q/a", Some(one))).result.unwrap();
    let (path_a, limit) = (path("/q/a"), LimitName::QuotaNodes);
    let below = OpError::Quota { path: path_a, limit, value: 2, max: 1 };
    assert_eq!(it.plain(create("/q/a/x", "", CreateMode::Persistent)).result, Err(below));
    it.plain(set_quota("/q/a", None)).result.unwrap();
    it.plain(create("/q/a/x", "", CreateMode::Persistent)).result.unwrap();
    let too_many = OpError::Limit { limit: LimitName::SubtreeNodes, value: 5, max: 4 };
    assert_eq!(it.plain(set_quota("/", Some(one))).result, Err(too_many));
    it.plain(Op::DeleteTree { path: path("/q") }).result.unwrap();
    assert!(it.ns.state.tree.metered("/q").is_none(), "it goes with its node");
    check_indexes(&it.ns);
}
