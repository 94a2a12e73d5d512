//! Rights at a node: every kind of read and watch, as every kind of principal; and what a session
//! may ask for.

use super::*;
use crate::{
    Path,
    id::Zxid,
    op::{
        Acl, Detail, DigestId, EventKind, Filter, Grant, Guard, Identity, List, OpError, Principal,
        Quota, Rights, Subject,
    },
};

const TTL: Duration = Duration::from_secs(10);

fn path(text: &str) -> Path {
    text.parse().expect("valid")
}

fn who(identities: &[Identity]) -> Identities {
    Identities::new(identities.iter().cloned()).expect("few")
}

/// What a read needs: one of these rights on the node. A new read does not compile without a row.
fn needed(op: &ReadOp) -> &'static [Rights] {
    match op {
        ReadOp::Get(_)
        | ReadOp::Exists(_)
        | ReadOp::List(_)
        | ReadOp::Quota(_)
        | ReadOp::Descendants { .. } => &[Rights::READ],
        ReadOp::GetAcl(_) => &[Rights::READ, Rights::ADMIN],
        // What may not be read is left out: see below.
        ReadOp::Owned { .. } => &[],
        // It is of a session, and only for that one: see `granted`.
        ReadOp::Lease(_) => &[],
        ReadOp::View | ReadOp::Barrier => &[],
    }
}

fn reads(at: &Path, session: SessionId) -> Vec<ReadOp> {
    vec![
        ReadOp::Get(at.clone()),
        ReadOp::Exists(at.clone()),
        ReadOp::List(List::of(at.clone())),
        ReadOp::GetAcl(at.clone()),
        ReadOp::Quota(at.clone()),
        ReadOp::Owned { lease: session.lease(), after: None },
        ReadOp::Descendants { path: at.clone(), max: 10 },
        ReadOp::View,
        ReadOp::Barrier,
    ]
}

/// What a watch is told when its node's child `c`, of the same list, is made, set and deleted. A
/// new kind of watch does not compile without a row.
fn told_of(filter: &Filter) -> &'static [EventKind] {
    match filter {
        Filter::Node(_) | Filter::Subtree(_) => {
            &[EventKind::Created, EventKind::DataChanged, EventKind::Deleted]
        }
        Filter::Children(_) => &[EventKind::Created, EventKind::Deleted],
    }
}

fn filters(at: &Path) -> Vec<Filter> {
    let child = at.join("c").expect("valid");
    vec![Filter::Node(child), Filter::Children(at.clone()), Filter::Subtree(at.clone())]
}

/// Each kind of principal, an identity that is it, and one of the same kind that is not.
fn principals() -> Vec<(Principal, Vec<Identity>, Vec<Identity>)> {
    let digest = |hash| Identity::Digest(DigestId::new("ann", hash).expect("short"));
    let subject = |text| Subject::new(text).expect("short");
    let ip = |last| Identity::Ip([10, 0, last, 7].into());
    let ann = Principal::Digest(DigestId::new("ann", "right").expect("short"));
    let x509 = |text| Identity::X509(subject(text));
    vec![
        (Principal::World, vec![], vec![]),
        (Principal::Auth, vec![x509("CN=ann"), ip(1)], vec![x509("CN=bob"), ip(1)]),
        (ann, vec![ip(9), digest("right")], vec![digest("wrong"), ip(1)]),
        (Principal::Ip { addr: [10, 0, 1, 0].into(), bits: 24 }, vec![ip(1)], vec![ip(2)]),
        (Principal::X509(subject("CN=ann")), vec![x509("CN=ann")], vec![digest("right")]),
    ]
}

/// The lists of the table: who reads, and with which rights, if any.
fn cases() -> Vec<(Acl, Vec<Identity>, Rights)> {
    let mut cases = Vec::new();
    for (principal, own, other) in principals() {
        let acl = |rights| Acl::new([Grant { principal: principal.clone(), rights }]);
        let others = [Rights::WRITE, Rights::CREATE, Rights::DELETE, Rights::ADMIN];
        for rights in [Rights::READ, Rights::ALL, Rights::NONE].into_iter().chain(others) {
            let acl = acl(rights).expect("one grant");
            let world = if principal == Principal::World { rights } else { Rights::NONE };
            cases.push((acl.clone(), own.clone(), rights));
            cases.push((acl.clone(), other.clone(), world));
            cases.push((acl.clone(), vec![], world));
            cases.push((acl, vec![Identity::Super], Rights::ALL));
        }
    }
    cases
}

struct Fixture {
    cluster: Cluster,
    /// Owns an ephemeral node of each list.
    owner: SessionId,
    seq: u64,
}

impl Fixture {
    fn new() -> Self {
        let mut cluster = Cluster::elected(1);
        let request = Request::OpenSession {
            secret: Secret::from_bytes([200; 16]),
            ttl: TTL,
            identities: Identities::superuser(),
        };
        let owner = opened(&mut cluster, request);
        Self { cluster, owner, seq: 0 }
    }

    fn write(&mut self, identities: Identities, txn: Txn) {
        let ticket = self.cluster.submit(id(1), Request::Txn { identities, txn });
        self.cluster.settle();
        self.cluster.reply(id(1), ticket).expect("written");
    }

    /// A node with this list, [`Principal::Auth`] being `own`, and an ephemeral child of it.
    fn guarded(&mut self, name: &str, acl: &Acl, own: &[Identity]) -> Path {
        let at = path(name);
        let mut setter = own.to_vec();
        setter.push(Identity::Super);
        self.write(who(&setter), create_with(name, acl));
        self.seq += 1;
        let child = create_as(&format!("{at}/e"), CreateMode::Ephemeral);
        let ticket = self.cluster.submit_seq(id(1), self.owner, self.seq, child);
        self.cluster.settle();
        self.cluster.reply(id(1), ticket.expect("taken")).expect("made");
        at
    }

    fn read(&mut self, caller: Caller, op: ReadOp) -> Result<ReadOutcome, RequestError> {
        let read = Read { caller, op, consistency: Consistency::Local };
        let ticket = self.cluster.node(id(1)).read(read).expect("taken");
        self.cluster.settle();
        match self.cluster.answer(id(1), ticket) {
            Some(Output::Read { result, .. }) => result.clone(),
            other => panic!("{other:?}"),
        }
    }
}

fn create_with(name: &str, acl: &Acl) -> Txn {
    let (path, data, mode) = (path(name).into(), Bytes::new(), CreateMode::Persistent);
    Op::Create { path, data, mode, acl: Some(acl.clone()) }.into()
}

fn opened(cluster: &mut Cluster, request: Request) -> SessionId {
    let ticket = cluster.submit(id(1), request);
    cluster.settle();
    match cluster.answer(id(1), ticket) {
        Some(Output::Session { result: Ok(attachment), .. }) => attachment.session,
        other => panic!("no session: {other:?}"),
    }
}

/// The identities of whoever asks, outside any session, in one that was opened with them, and in
/// one that was attached with them.
fn callers(cluster: &mut Cluster, number: u64, identities: &Identities) -> [Caller; 3] {
    let secret = |kind: u64| Secret::from_bytes(u128::from(number * 2 + kind).to_le_bytes());
    let open = |secret, identities| Request::OpenSession { secret, ttl: TTL, identities };
    let opened_with = opened(cluster, open(secret(0), identities.clone()));
    let session = opened(cluster, open(secret(1), Identities::superuser()));
    let secret = secret(1);
    let attach = Request::Attach { session, secret, epoch: 2, identities: identities.clone() };
    let attached = opened(cluster, attach);
    [Caller::Plain(identities.clone()), Caller::Session(opened_with), Caller::Session(attached)]
}

#[test]
fn every_read_needs_its_right_whoever_reads() {
    let mut it = Fixture::new();
    let (mut refused, mut allowed) = (0, 0);
    for (number, (acl, identities, held)) in (0..).zip(cases()) {
        let own = principals().into_iter().find(|own| own.0 == acl.grants()[0].principal);
        let at = it.guarded(&format!("/n{number}"), &acl, &own.expect("one of them").1);
        let child = at.join("e").expect("valid");
        let no = OpError::NoAuth { path: at.clone(), right: Rights::READ };
        for caller in callers(&mut it.cluster, number, &who(&identities)) {
            let view = it.cluster.nodes[&id(1)].view_of(&caller).expect("attached");
            for op in reads(&at, it.owner) {
                let any = needed(&op);
                let may = any.is_empty() || any.iter().any(|right| held.contains(*right));
                let result = it.read(caller.clone(), op.clone());
                let error = result.as_ref().err().cloned();
                let expected = (!may).then(|| RequestError::Op(no.clone()));
                assert_eq!(error, expected, "{op:?} as {caller:?}, list {acl:?}");
                refused += usize::from(!may);
                allowed += usize::from(may);
                // A view shows the same.
                let seen = match &op {
                    ReadOp::Get(path) => view.read(path).map(drop),
                    ReadOp::Exists(path) => view.stat(path).map(drop),
                    ReadOp::List(list) => view.list(list).map(drop),
                    ReadOp::GetAcl(path) => view.acl(path).map(drop),
                    ReadOp::Quota(path) => view.quota(path).map(drop),
                    ReadOp::Owned { lease, .. } => view.owned(*lease, None).map(drop),
                    ReadOp::Descendants { path, max } => view.descendants(path, *max).map(drop),
                    ReadOp::Lease(_) | ReadOp::View | ReadOp::Barrier => Ok(()),
                };
                assert_eq!(seen.err().map(RequestError::Op), expected, "{op:?} as {caller:?}");
                if let Ok(ReadOutcome::Owned(owned)) = result {
                    let shown = owned.paths.contains(&child);
                    assert_eq!(shown, held.contains(Rights::READ), "{acl:?} as {caller:?}");
                }
            }
        }
    }
    assert!(refused > 500 && allowed > 500, "{refused} {allowed}");
    // What is not there is nobody's secret.
    let nothing = it.read(Caller::world(), ReadOp::Exists(path("/none")));
    assert_eq!(nothing, Ok(ReadOutcome::Exists(None)));
}

#[test]
fn every_watch_tells_what_may_be_read_whoever_watches() {
    let mut it = Fixture::new();
    for (number, (acl, identities, held)) in (0..).zip(cases()) {
        let own = principals().into_iter().find(|own| own.0 == acl.grants()[0].principal);
        let own = own.expect("one of them").1;
        let at = path(&format!("/n{number}"));
        it.write(Identities::superuser(), create_with(at.as_str(), &Acl::open()));
        let mut watches = Vec::new();
        for caller in callers(&mut it.cluster, number, &who(&identities)) {
            for filter in filters(&at) {
                for credit in [0, 100] {
                    let (caller, from) = (caller.clone(), None);
                    let watch = Watch { caller, from, ..Watch::of(filter.clone(), credit) };
                    let armed = it.cluster.node(id(1)).watch(watch).expect("needs no right");
                    watches.push((filter.clone(), armed.id));
                }
            }
        }
        let mut setter = own.clone();
        setter.push(Identity::Super);
        let child = at.join("c").expect("valid");
        it.write(who(&setter), create_with(child.as_str(), &acl));
        let set = Op::Set { path: child.clone(), data: "1".into(), version: None };
        it.write(Identities::superuser(), set.into());
        it.write(Identities::superuser(), Op::Delete { path: child, version: None }.into());
        for (filter, watch) in watches {
            it.cluster.node(id(1)).credit(watch, 100);
            it.cluster.settle();
            let may = held.contains(Rights::READ);
            let expected = if may { told_of(&filter) } else { &[] };
            let told = told(&it.cluster, watch);
            let kinds: Vec<EventKind> = told.iter().map(|event| event.0).collect();
            assert_eq!(kinds, expected, "{filter:?} as {identities:?}, list {acl:?}");
            it.cluster.node(id(1)).unwatch(watch);
        }
        it.cluster.outputs.values_mut().for_each(Vec::clear);
    }
}

fn told(cluster: &Cluster, id: WatchId) -> Vec<(EventKind, String)> {
    let outputs = cluster.outputs.values().flatten();
    let events = outputs.filter_map(|output| match output {
        Output::Events { watch, events, .. } if *watch == id => Some(events),
        _ => None,
    });
    events.flatten().map(|event| (event.kind, event.path.to_string())).collect()
}

fn shut() -> Acl {
    let ip = Principal::Ip { addr: [10, 0, 0, 1].into(), bits: 32 };
    Acl::new([Grant { principal: ip, rights: Rights::ALL }]).expect("one grant")
}

/// The list that counts is the one then and, of a node that still lives, the one now.
#[test]
fn rule_12_a_list_that_is_replaced_hides_what_was_not_told_yet() {
    let mut it = Fixture::new();
    let arm = |it: &mut Fixture, credit| {
        let (caller, filter) = (Caller::world(), Filter::Subtree(Path::root()));
        let watch = Watch { caller, ..Watch::of(filter, credit) };
        it.cluster.node(id(1)).watch(watch).expect("armed").id
    };
    let (keeps_up, lags) = (arm(&mut it, 100), arm(&mut it, 0));
    let set = |at: &str| Op::Set { path: path(at), data: "1".into(), version: None };
    let set_acl = |at: &str, acl| Op::SetAcl { path: path(at), acl, version: None };
    let all = Identities::superuser;
    for at in ["/a", "/b", "/c"] {
        it.write(all(), create_with(at, &Acl::open()));
    }
    // Open when it was set, and shut when the transaction is told of.
    it.write(all(), Txn::all([set("/a"), set_acl("/a", shut())]));
    it.write(all(), set_acl("/b", shut()).into());
    it.write(all(), set("/b").into());
    // It is gone: what was open then is told again.
    it.write(all(), set_acl("/c", shut()).into());
    it.write(all(), set("/c").into());
    it.write(all(), Op::Delete { path: path("/c"), version: None }.into());
    let made = |names: &[&str]| -> Vec<(EventKind, String)> {
        names.iter().map(|name| (EventKind::Created, name.to_string())).collect()
    };
    assert_eq!(told(&it.cluster, keeps_up), made(&["/a", "/b", "/c"]));
    it.cluster.node(id(1)).credit(lags, 1);
    it.cluster.settle();
    assert_eq!(told(&it.cluster, lags), made(&["/c"]));
    // What was passed over has used no credit, and both have kept up.
    it.write(all(), set_acl("/b", Acl::open()).into());
    it.cluster.node(id(1)).credit(lags, 2);
    it.write(all(), set("/b").into());
    let changed = (EventKind::DataChanged, "/b".to_string());
    for watch in [keeps_up, lags] {
        assert_eq!(told(&it.cluster, watch).last(), Some(&changed));
    }
    assert_eq!((told(&it.cluster, keeps_up).len(), told(&it.cluster, lags).len()), (5, 3));
    // Also after a restart.
    it.cluster.restart(id(1));
    it.cluster.elect();
    it.cluster.outputs.values_mut().for_each(Vec::clear);
    let (caller, filter) = (Caller::world(), Filter::Subtree(Path::root()));
    let watch = Watch { caller, from: Some(Zxid::ZERO), ..Watch::of(filter, 100) };
    let again = it.cluster.node(id(1)).watch(watch).expect("armed").id;
    it.cluster.settle();
    let opened = (EventKind::AclChanged, "/b".to_string());
    let expected = [made(&["/b", "/c"]), vec![opened, changed]].concat();
    assert_eq!(told(&it.cluster, again), expected);
}

/// What stood between two operations of a transaction was never there for anybody to see.
#[test]
fn rule_12_a_list_inside_a_transaction_opens_nothing() {
    let mut it = Fixture::new();
    let arm = |it: &mut Fixture, from| {
        let (caller, filter) = (Caller::world(), Filter::Subtree(Path::root()));
        let detail = Detail::BeforeAndAfter;
        let watch = Watch { caller, from, detail, ..Watch::of(filter, 100) };
        it.cluster.node(id(1)).watch(watch).expect("armed").id
    };
    let first = arm(&mut it, None);
    let set = |at: &str| Op::Set { path: path(at), data: "public".into(), version: None };
    let set_acl = |at: &str, acl| Op::SetAcl { path: path(at), acl, version: None };
    let delete = |at: &str| Txn::new(Op::Delete { path: path(at), version: None });
    let all = Identities::superuser;
    let make = Op::Create {
        path: path("/made").into(),
        data: "secret".into(),
        mode: CreateMode::Persistent,
        acl: None,
    };
    // Open for one operation, and shut again, and gone when somebody asks.
    it.write(all(), Txn::all([make, set_acl("/made", shut())]));
    it.write(all(), delete("/made"));
    // Shut until here: what was before stays hidden though the list was opened first.
    it.write(all(), create_with("/opened", &shut()));
    it.write(all(), Txn::all([set_acl("/opened", Acl::open()), set("/opened")]));
    let again = arm(&mut it, Some(Zxid::ZERO));
    it.cluster.settle();
    for watch in [first, again] {
        let outputs = it.cluster.outputs.values().flatten();
        let events: Vec<_> = outputs
            .filter_map(|output| match output {
                Output::Events { watch: of, events, .. } if *of == watch => Some(events),
                _ => None,
            })
            .flatten()
            .collect();
        let kinds: Vec<_> = events.iter().map(|it| (it.kind, it.path.as_str())).collect();
        let opened = [EventKind::AclChanged, EventKind::DataChanged].map(|it| (it, "/opened"));
        assert_eq!(kinds, opened);
        let data: Vec<_> = events.iter().map(|it| (&it.before, it.after.is_some())).collect();
        assert_eq!(data, [(&None, false), (&None, true)], "{events:?}");
    }
}

#[test]
fn what_is_shown_when_a_watch_is_armed_is_for_the_same_eyes() {
    let mut it = Fixture::new();
    it.write(Identities::superuser(), create_with("/shut", &shut()));
    let reader = who(&[Identity::Ip([10, 0, 0, 1].into())]);
    let (no, at) = (OpError::NoAuth { path: path("/shut"), right: Rights::READ }, path("/shut"));
    for (identities, expected) in [(Identities::none(), Err(no)), (reader, Ok(()))] {
        for caller in callers(&mut it.cluster, u64::from(expected.is_ok()), &identities) {
            let (filter, from, credit) = (Filter::Node(at.clone()), None, 1);
            let armed =
                it.cluster.node(id(1)).watch(Watch { caller, from, ..Watch::of(filter, credit) });
            assert_eq!(armed.expect("armed").view.read(&at).map(drop), expected);
        }
    }
    assert!(it.cluster.nodes[&id(1)].view().read(&at).is_ok(), "the application sees everything");
    let none = SessionId::new(77).expect("valid");
    let refused = it.cluster.nodes[&id(1)].view_of(&Caller::Session(none)).map(drop);
    assert_eq!(refused, Err(SubmitError::NotAttached { session: none, epoch: 0 }));
}

/// The session moves to an attachment with more rights while the old one's read waits.
#[test]
fn a_read_has_the_rights_of_the_attachment_that_asked() {
    let mut cluster = Cluster::elected(3);
    let leader = cluster.leader().expect("elected");
    let at = (1..=3).map(id).find(|&it| it != leader).expect("a follower");
    let txn = create_with("/shut", &shut());
    let ticket = cluster.submit(at, Request::Txn { identities: Identities::superuser(), txn });
    cluster.settle();
    cluster.reply(at, ticket).expect("made");
    let session = cluster.open_session(at, 1, TTL).session;
    cluster.lose = Box::new(|frame| matches!(frame.body, Body::ReadIndexReply { .. }));
    let (caller, op) = (Caller::Session(session), ReadOp::Get(path("/shut")));
    let read = Read { caller, op, consistency: Consistency::Linearizable };
    let ticket = cluster.node(at).read(read).expect("taken");
    cluster.settle();
    let (secret, identities) = (Secret::from_bytes([1; 16]), Identities::superuser());
    // At the same node, so that it is attached here when the read is answered.
    cluster.submit(at, Request::Attach { session, secret, epoch: 2, identities });
    cluster.settle();
    assert!(cluster.answer(at, ticket).is_none(), "its round is out");
    cluster.lose = Box::new(|_| false);
    cluster.run(12);
    let moved = OpError::Moved { session, epoch: 2 };
    match cluster.answer(at, ticket) {
        Some(Output::Read { result, .. }) => assert_eq!(*result, Err(RequestError::Op(moved))),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_new_reads_tell_what_is_there() {
    let mut it = Fixture::new();
    let all = Identities::superuser;
    let at = it.guarded("/q", &Acl::open(), &[]);
    for n in 0..3 {
        it.write(all(), create_with(&format!("/q/{n}"), &Acl::open()));
    }
    let quota = Quota { nodes_soft: Some(3), ..Quota::default() };
    it.write(all(), Op::SetQuota { path: at.clone(), quota: Some(quota) }.into());
    let world = Caller::world;
    let found = it.read(world(), ReadOp::Quota(at.clone()));
    let Ok(ReadOutcome::Quota(Some((set, usage)))) = found else { panic!("{found:?}") };
    assert!(set == quota && usage.nodes == 5 && usage.warns(&quota));
    assert_eq!(it.read(world(), ReadOp::Quota(Path::root())), Ok(ReadOutcome::Quota(None)));
    for (max, nodes, more) in [(2, 2, true), (4, 4, false), (u64::MAX, 4, false)] {
        let found = it.read(world(), ReadOp::Descendants { path: at.clone(), max });
        assert_eq!(found, Ok(ReadOutcome::Descendants { nodes, more }));
    }
    let found = it.read(world(), ReadOp::List(List::of(at.clone()).limit(2).with_stat()));
    let Ok(ReadOutcome::Listed(page)) = found else { panic!("{found:?}") };
    let names: Vec<_> = page.children.iter().map(|it| (&it.name[..], it.stat.is_some())).collect();
    assert_eq!((names, page.resume.as_deref()), (vec![("0", true), ("1", true)], Some("1")));
    // A page of a session's nodes says where to go on though none of it may be read.
    let closed = create_with("/closed", &shut());
    it.write(all(), closed);
    let below = |n| format!("/closed/e{n:04}");
    for n in 0..crate::View::OWNED_MAX {
        it.seq += 1;
        let txn = create_as(&below(n), CreateMode::Ephemeral);
        it.cluster.submit_seq(id(1), it.owner, it.seq, txn).expect("taken");
        it.cluster.settle();
    }
    let lease = it.owner.lease();
    let found = it.read(world(), ReadOp::Owned { lease, after: None });
    let Ok(ReadOutcome::Owned(first)) = found else { panic!("{found:?}") };
    let last = path(&below(crate::View::OWNED_MAX - 1));
    assert_eq!((first.paths, first.resume), (vec![], Some(last.clone())));
    let found = it.read(world(), ReadOp::Owned { lease, after: Some(last) });
    let Ok(ReadOutcome::Owned(second)) = found else { panic!("{found:?}") };
    assert_eq!((second.paths, second.resume), (vec![path("/q/e")], None));
    let lease = crate::LeaseId::new(77).expect("valid");
    let ended = RequestError::Op(OpError::NoLease { lease });
    assert_eq!(it.read(world(), ReadOp::Owned { lease, after: None }), Err(ended));
}

/// A node alone with these limits, and a session.
fn limited(limits: Limits, rate: Option<(u32, u32)>) -> (Cluster, SessionId) {
    let mut cluster = Cluster::with_limits(1, limits);
    cluster.session_rate = rate;
    cluster.restart(id(1));
    cluster.elect();
    let session = cluster.open_session(id(1), 1, TTL).session;
    (cluster, session)
}

fn barrier(session: SessionId) -> Read {
    let (caller, op) = (Caller::Session(session), ReadOp::Barrier);
    Read { caller, op, consistency: Consistency::Linearizable }
}

#[test]
fn rule_7_a_session_has_so_many_requests_under_way_and_a_refused_number_comes_again() {
    let limits = Limits {
        session_pending_count_max: 3,
        session_pending_bytes_max: 1 << 10,
        ..Limits::default()
    };
    let (mut cluster, session) = limited(limits, None);
    let at = id(1);
    let second = cluster.open_session(at, 2, TTL).session;
    let make = |n: u64| create(&format!("/n{n}"));
    for n in 1..=3 {
        cluster.submit_seq(at, session, n, make(n)).expect("taken");
        cluster.node(at).read(barrier(session)).expect("taken");
    }
    let full = SubmitError::Overloaded { what: "session_pending_count_max", max: 3 };
    assert!(full.is_retryable());
    assert_eq!(cluster.submit_seq(at, session, 4, make(4)), Err(full.clone()));
    assert_eq!(cluster.node(at).read(barrier(session)), Err(full));
    let hole = SubmitError::OutOfSequence { expected: 4, actual: 5 };
    assert_eq!(cluster.submit_seq(at, session, 5, make(5)), Err(hole), "nothing behind a hole");
    cluster.submit_seq(at, second, 1, make(7)).expect("another session has its own");
    cluster.settle();
    cluster.submit_seq(at, session, 4, make(4)).expect("there is room");
    cluster.submit_seq(at, session, 5, make(5)).expect("in order");
    cluster.node(at).read(barrier(session)).expect("there is room");
    cluster.settle();
    // By bytes: one of any size, and then no more.
    let set = |bytes: usize| -> Txn {
        Op::Set { path: path("/n1"), data: vec![1; bytes].into(), version: None }.into()
    };
    cluster.submit_seq(at, session, 6, set(4 << 10)).expect("alone");
    let full = SubmitError::Overloaded { what: "session_pending_bytes_max", max: 1 << 10 };
    assert_eq!(cluster.submit_seq(at, session, 7, set(1)), Err(full));
    let seq = Seq { session, epoch: 1, seq: 7, acked: 6 };
    cluster.submit(at, Request::CloseSession { seq });
    cluster.settle();
    let closed =
        |it: &Output| matches!(it, Output::Detached { session: its, .. } if *its == session);
    assert!(cluster.outputs[&at].iter().any(closed), "what gives back is not refused");
}

#[test]
fn rule_7_a_session_that_asks_too_often_is_told_when_to_come_again() {
    // A tick has 50 ms, so that it fills half an operation.
    let (mut cluster, session) = limited(Limits::default(), Some((10, 2)));
    let at = id(1);
    let second = cluster.open_session(at, 2, TTL).session;
    cluster.submit_seq(at, session, 1, create("/1")).expect("taken");
    cluster.node(at).read(barrier(session)).expect("taken");
    let retry_after = 2 * TICK;
    let (what, max) = ("operations a second", 10);
    let early = SubmitError::RateLimited { session, what, max, retry_after };
    let watch = || {
        let (caller, filter) = (Caller::Session(session), Filter::Node(Path::root()));
        Watch { caller, ..Watch::of(filter, 1) }
    };
    assert_eq!(cluster.submit_seq(at, session, 2, create("/2")), Err(early.clone()));
    assert_eq!(cluster.node(at).read(barrier(session)), Err(early.clone()));
    assert_eq!(cluster.node(at).watch(watch()).map(drop), Err(early.clone()));
    assert!(early.is_retryable() && early.retry_after() == Some(retry_after));
    let hole = SubmitError::OutOfSequence { expected: 2, actual: 3 };
    assert_eq!(cluster.submit_seq(at, session, 3, create("/3")), Err(hole));
    cluster.submit_seq(at, second, 1, create("/s")).expect("each session has its own");
    cluster.node(at).read(Read { caller: Caller::world(), ..barrier(session) }).expect("nobody's");
    let keep_alive = Request::KeepAlive { session, epoch: 1, acked: 0 };
    cluster.submit(at, keep_alive);
    cluster.run(1);
    let retry_after = TICK;
    let early = SubmitError::RateLimited { session, what, max, retry_after };
    assert_eq!(cluster.submit_seq(at, session, 2, create("/2")), Err(early));
    cluster.run(1);
    cluster.submit_seq(at, session, 2, create("/2")).expect("as was said");
    cluster.settle();
    assert!(cluster.submit_seq(at, session, 3, create("/3")).is_err(), "one, not two");
    // A rest fills it up, and no more than that.
    cluster.run(100);
    for n in 3..5 {
        cluster.submit_seq(at, session, n, create(&format!("/{n}"))).expect("a burst");
    }
    assert!(cluster.submit_seq(at, session, 5, create("/5")).is_err());
    cluster.run(2);
    let guard = Guard { path: path("/none"), check: crate::Check::Exists(true) };
    let refused = cluster.submit_seq(at, session, 5, create("/5").guard(guard)).expect("taken");
    cluster.settle();
    assert!(cluster.reply(at, refused).is_err(), "what the cluster refuses counts, too");
    assert!(cluster.submit_seq(at, session, 6, create("/6")).is_err());
}
