//! Watches: cursors that resume, lag within the history, and never skip silently.

use super::*;
use crate::{
    id::Zxid,
    op::{Detail, Event, EventKind, Filter},
};
use std::num::NonZeroU32;

fn subtree(path: &str, from: Option<Zxid>, credit: u32) -> Watch {
    Watch { from, ..Watch::of(Filter::Subtree(path.parse().expect("valid")), credit) }
}

/// What a watch was told: each transaction's zxid and the paths of its events.
fn told(cluster: &Cluster, at: NodeId, id: WatchId) -> Vec<(u64, Vec<String>)> {
    let outputs = cluster.outputs[&at].iter();
    outputs
        .filter_map(|output| match output {
            Output::Events { watch, zxid, events } if *watch == id => {
                let paths = events.iter().map(|event| event.path.to_string()).collect();
                Some((zxid.as_u64(), paths))
            }
            _ => None,
        })
        .collect()
}

#[test]
fn a_watch_tells_each_change_once_and_before_the_reply() {
    let mut cluster = Cluster::elected(3);
    let at = id(1);
    cluster.write(at, create("/a")).expect("written");
    let armed = cluster.node(at).watch(subtree("/a", None, 100)).expect("armed");
    assert!(
        armed.view.stat(&"/a".parse().expect("valid")).is_ok_and(|it| it.is_some()),
        "read and armed at once"
    );
    let ticket = cluster.submit(at, plain(create("/a/b")));
    cluster.write(at, create("/other")).expect("written");
    cluster.settle();
    assert_eq!(told(&cluster, at, armed.id).len(), 1);
    let position = |wanted: &dyn Fn(&Output) -> bool| {
        cluster.outputs[&at].iter().position(wanted).expect("it is there")
    };
    let event = position(&|output| matches!(output, Output::Events { .. }));
    let reply = position(&|it| matches!(it, Output::Reply { ticket: its, .. } if *its == ticket));
    assert!(event < reply);
}

#[test]
fn a_watch_resumes_on_another_member_without_a_gap() {
    let mut cluster = Cluster::elected(3);
    let first = cluster.node(id(1)).watch(subtree("/", None, 100)).expect("armed");
    for n in 0..5 {
        cluster.write(id(1), create(&format!("/n{n}"))).expect("written");
    }
    let last = told(&cluster, id(1), first.id).last().expect("events").0;
    cluster.kill(id(1));
    cluster.elect();
    for n in 5..9 {
        cluster.write(id(2), create(&format!("/n{n}"))).expect("written");
    }
    cluster.run(2);
    let from = Some(Zxid::new(last));
    let second = cluster.node(id(3)).watch(subtree("/", from, 100)).expect("armed");
    cluster.settle();
    let paths: Vec<String> =
        told(&cluster, id(3), second.id).into_iter().flat_map(|(_, paths)| paths).collect();
    assert_eq!(paths, ["/n5", "/n6", "/n7", "/n8"]);
}

/// The member that a client comes to has not applied what the client has seen elsewhere.
#[test]
fn rule_8_a_watch_from_a_later_transaction_waits_for_it() {
    let mut cluster = Cluster::elected(3);
    let leader = cluster.leader().expect("elected");
    let behind = (1..=3).map(id).find(|&it| it != leader).expect("a follower");
    cluster.lose = Box::new(move |frame| frame.to == behind);
    let Ok(Outcome::Created { stat, .. }) = cluster.write(leader, create("/seen")) else {
        panic!("written")
    };
    let from = stat.czxid;
    let applied = cluster.nodes[&behind].status().zxid;
    let refused = cluster.node(behind).watch(subtree("/", Some(from), 100)).map(|_| ());
    assert_eq!(refused, Err(SubmitError::Behind { from, applied }));
    cluster.lose = Box::new(|_| false);
    let consistency = Consistency::AtLeast(from);
    let read = Read { caller: Caller::world(), op: ReadOp::Barrier, consistency };
    let ticket = cluster.node(behind).read(read).expect("taken");
    cluster.run(4);
    assert!(matches!(cluster.answer(behind, ticket), Some(Output::Read { result: Ok(_), .. })));
    let armed = cluster.node(behind).watch(subtree("/", Some(from), 100)).expect("armed");
    assert!(armed.view.stat(&"/seen".parse().expect("valid")).is_ok_and(|it| it.is_some()));
    cluster.write(leader, create("/next")).expect("written");
    cluster.run(2);
    assert_eq!(told(&cluster, behind, armed.id).len(), 1);
}

#[test]
fn rule_9_a_session_that_moves_leaves_no_watch_behind() {
    let mut cluster = Cluster::elected(3);
    let (first, second) = (id(1), id(2));
    let session = cluster.open_session(first, 5, Duration::from_secs(10)).session;
    let its = |session| Watch { caller: Caller::Session(session), ..subtree("/", None, 100) };
    let watch = cluster.node(first).watch(its(session)).expect("armed").id;
    let other = cluster.node(first).watch(subtree("/", None, 100)).expect("armed").id;
    let refused = cluster.node(second).watch(its(session)).map(|_| ());
    assert_eq!(refused, Err(SubmitError::NotAttached { session, epoch: 0 }));
    cluster.write(second, create("/before")).expect("written");
    let secret = Secret::from_bytes([5; 16]);
    cluster.submit(second, attach(session, secret, 2));
    cluster.run(2);
    cluster.write(second, create("/after")).expect("written");
    cluster.run(2);
    assert_eq!(told(&cluster, first, watch).len(), 1, "nothing after it moved");
    let ended = Output::WatchEnded { watch, cause: WatchEnd::Detached };
    assert_eq!(cluster.outputs[&first].iter().filter(|it| **it == ended).count(), 1);
    assert_eq!(told(&cluster, first, other).len(), 2, "others go on");
    assert_eq!(cluster.nodes[&first].status().watches, 1);
}

#[test]
fn a_slow_consumer_lags_and_reads_on() {
    let mut cluster = Cluster::elected(1);
    let armed = cluster.node(id(1)).watch(subtree("/", None, 2)).expect("armed");
    for n in 0..10 {
        cluster.write(id(1), create(&format!("/n{n}"))).expect("written");
    }
    assert_eq!(told(&cluster, id(1), armed.id).len(), 2, "as many as it has credit for");
    cluster.node(id(1)).credit(armed.id, 3);
    cluster.settle();
    assert_eq!(told(&cluster, id(1), armed.id).len(), 5);
    cluster.node(id(1)).credit(armed.id, 100);
    cluster.write(id(1), create("/last")).expect("written");
    let paths: Vec<String> =
        told(&cluster, id(1), armed.id).into_iter().flat_map(|(_, paths)| paths).collect();
    assert_eq!(paths.len(), 11);
    assert_eq!(paths.last().map(String::as_str), Some("/last"));
}

#[test]
fn past_the_history_a_watch_ends_compacted_and_never_skips() {
    let limits = Limits { history_count_max: 5, ..Limits::default() };
    let mut cluster = Cluster::with_limits(1, limits);
    cluster.elect();
    let quiet = cluster.node(id(1)).watch(subtree("/quiet", None, 1)).expect("armed");
    let slow = cluster.node(id(1)).watch(subtree("/", None, 1)).expect("armed");
    for n in 0..20 {
        cluster.write(id(1), create(&format!("/n{n}"))).expect("written");
    }
    cluster.node(id(1)).credit(slow.id, 1);
    cluster.settle();
    let ended = cluster.outputs[&id(1)].iter().find_map(|output| match output {
        Output::WatchEnded { watch, cause } if *watch == slow.id => Some(*cause),
        _ => None,
    });
    let Some(WatchEnd::Compacted { resume_at }) = ended else { panic!("{ended:?}") };
    assert!(matches!(
        cluster.node(id(1)).watch(subtree("/", Some(Zxid::new(1)), 1)),
        Err(SubmitError::Compacted { .. })
    ));
    let again = cluster.node(id(1)).watch(subtree("/", Some(resume_at), 100)).expect("armed");
    cluster.settle();
    assert_eq!(told(&cluster, id(1), again.id).len(), 5);
    // A watch that had nothing to tell has kept up, whatever was trimmed.
    cluster.write(id(1), create("/quiet")).expect("written");
    assert_eq!(told(&cluster, id(1), quiet.id).len(), 1);
}

#[test]
fn filters_tell_what_they_name() {
    let mut cluster = Cluster::elected(1);
    cluster.write(id(1), create("/a")).expect("written");
    let path: crate::Path = "/a".parse().expect("valid");
    let mut arm = |filter| cluster.node(id(1)).watch(Watch::of(filter, 100)).expect("armed").id;
    let node = arm(Filter::Node(path.clone()));
    let children = arm(Filter::Children(path.clone()));
    let below = arm(Filter::Subtree(path.clone()));
    let ended = arm(Filter::Subtree(path.clone()));
    cluster.node(id(1)).unwatch(ended);
    cluster.write(id(1), create("/a/b")).expect("written");
    cluster.write(id(1), create("/a/b/c")).expect("written");
    cluster.write(id(1), set("/a", "")).expect("written");
    cluster.write(id(1), set("/a/b", "")).expect("written");
    cluster.write(id(1), create("/ab")).expect("written");
    let of = |watch| -> Vec<(EventKind, String)> {
        let outputs = cluster.outputs[&id(1)].iter();
        outputs
            .filter_map(|output| match output {
                Output::Events { watch: it, events, .. } if *it == watch => Some(events),
                _ => None,
            })
            .flatten()
            .map(|event| (event.kind, event.path.to_string()))
            .collect()
    };
    let (created, changed) = (EventKind::Created, EventKind::DataChanged);
    assert_eq!(of(node), [(changed, "/a".into())]);
    assert_eq!(of(children), [(created, "/a/b".into())]);
    assert_eq!(
        of(below),
        [
            (created, "/a/b".into()),
            (created, "/a/b/c".into()),
            (changed, "/a".into()),
            (changed, "/a/b".into())
        ]
    );
    assert!(of(ended).is_empty());
}

#[test]
fn watches_that_catch_up_leave_time_for_ticks() {
    let mut cluster = Cluster::elected(1);
    let at = id(1);
    for n in 0..2_000 {
        cluster.write(at, create(&format!("/n{n}"))).expect("written");
    }
    let watches: Vec<WatchId> = (0..30)
        .map(|_| cluster.node(at).watch(subtree("/", Some(Zxid::ZERO), 10_000)).expect("armed").id)
        .collect();
    let mut drains = 0;
    loop {
        let before = cluster.outputs[&at].len();
        cluster.drain(at);
        let events = cluster.outputs[&at].len() - before;
        assert!(events <= 16_384, "{events} events in one drain");
        drains += 1;
        cluster.now += TICK;
        let now = Now { mono: cluster.now, wall_ms: 1 };
        cluster.node(at).tick(now).expect("drained, so it is ticked in between");
        if !cluster.nodes[&at].has_more() {
            break;
        }
    }
    assert!(drains > 3, "{drains}");
    for watch in watches {
        assert_eq!(told(&cluster, at, watch).len(), 2_000, "none left out");
    }
}

fn set(path: &str, data: &'static str) -> Txn {
    let path = path.parse().expect("valid");
    Op::Set { path, data: Bytes::from_static(data.as_bytes()), version: None }.into()
}

/// All events that a watch was told.
fn events(cluster: &Cluster, at: NodeId, id: WatchId) -> Vec<Event> {
    let outputs = cluster.outputs[&at].iter();
    let told = outputs.filter_map(|output| match output {
        Output::Events { watch, events, .. } if *watch == id => Some(events.clone()),
        _ => None,
    });
    told.flatten().collect()
}

/// What a watch was told, without the events themselves.
fn marks(cluster: &Cluster, at: NodeId, id: WatchId) -> Vec<String> {
    let outputs = cluster.outputs[&at].iter();
    let mark = |output: &Output| match output {
        Output::Events { watch, zxid, .. } if *watch == id => Some(format!("{}", zxid.as_u64())),
        Output::Progress { watch, zxid } if *watch == id => Some(format!("to {}", zxid.as_u64())),
        Output::WatchEnded { watch, cause } if *watch == id => Some(format!("{cause:?}")),
        _ => None,
    };
    outputs.filter_map(mark).collect()
}

/// ZooKeeper's watches of data, of existence and of children: each ends with its first event.
#[test]
fn a_one_shot_watch_fires_once_and_is_gone() {
    let mut cluster = Cluster::elected(1);
    let at = id(1);
    cluster.write(at, create("/a")).expect("written");
    let path = |text: &str| -> crate::Path { text.parse().expect("valid") };
    let once = |filter, kinds: &[EventKind]| Watch {
        once: true,
        kinds: kinds.to_vec(),
        ..Watch::of(filter, 100)
    };
    let (changed, deleted) = (EventKind::DataChanged, EventKind::Deleted);
    let data = once(Filter::Node(path("/a")), &[changed, deleted]);
    let child = once(Filter::Children(path("/a")), &[]);
    let exists = once(Filter::Node(path("/b")), &[EventKind::Created, changed, deleted]);
    let again = Watch { from: Some(Zxid::ZERO), ..once(Filter::Subtree(path("/")), &[]) };
    let mut arm = |watch: &Watch| cluster.node(at).watch(watch.clone()).expect("armed").id;
    let ids = [arm(&data), arm(&child), arm(&exists), arm(&again)];
    let acl = crate::Acl::open();
    cluster.write(at, Op::SetAcl { path: path("/a"), acl, version: None }.into()).expect("set");
    for _ in 0..2 {
        cluster.write(at, set("/a", "")).expect("written");
    }
    for name in ["/b", "/a/1", "/a/2"] {
        cluster.write(at, create(name)).expect("written");
    }
    let told: Vec<_> = ids.iter().map(|id| marks(&cluster, at, *id)).collect();
    assert_eq!(told, [["3", "Fired"], ["6", "Fired"], ["5", "Fired"], ["1", "Fired"]]);
    assert_eq!(cluster.nodes[&at].status().watches, 0);
    // From the history, too, it is told of one transaction alone.
    let again = cluster.node(at).watch(again).expect("armed").id;
    cluster.settle();
    assert_eq!(marks(&cluster, at, again), ["1", "Fired"]);
    // The end of the parent is an event of its children's watch, too.
    let child = cluster.node(at).watch(child).expect("armed").id;
    let path = path("/a");
    cluster.write(at, Op::DeleteTree { path }.into()).expect("deleted");
    assert_eq!(marks(&cluster, at, child), ["8", "Fired"]);
    assert_eq!(events(&cluster, at, child).len(), 3);
}

#[test]
fn a_watch_tells_of_the_kinds_and_in_the_detail_that_it_asks_for() {
    let mut cluster = Cluster::elected(3);
    let at = id(1);
    let filter = Filter::Subtree(crate::Path::root());
    let kinds = vec![EventKind::DataChanged];
    let watch = Watch { kinds, detail: Detail::BeforeAndAfter, ..Watch::of(filter, 1) };
    let watch = cluster.node(at).watch(watch).expect("armed").id;
    let plain = cluster.node(at).watch(subtree("/", None, 100)).expect("armed").id;
    cluster.write(at, create("/a")).expect("written");
    cluster.write(at, set("/a", "1")).expect("written");
    // It lags, and what comes from the history is as full as what comes at once.
    cluster.write(at, set("/a", "2")).expect("written");
    cluster.node(at).credit(watch, 10);
    cluster.settle();
    let data = |content: &Option<Box<crate::Content>>| {
        content.as_ref().map(|it| String::from_utf8_lossy(&it.data).into_owned())
    };
    let told: Vec<_> = events(&cluster, at, watch)
        .iter()
        .map(|event| (data(&event.before), data(&event.after)))
        .collect();
    let some = |text: &str| Some(text.to_string());
    assert_eq!(told, [(some("x"), some("1")), (some("1"), some("2"))]);
    let told = events(&cluster, at, plain);
    assert_eq!(told.len(), 3);
    assert!(told.iter().all(|event| event.before.is_none() && event.after.is_none()));
}

#[test]
fn a_watch_says_how_far_it_has_come() {
    let mut cluster = Cluster::elected(1);
    let at = id(1);
    let filter = Filter::Subtree("/quiet".parse().expect("valid"));
    let quiet = Watch { progress_ticks: NonZeroU32::new(4), ..Watch::of(filter.clone(), 3) };
    let quiet = cluster.node(at).watch(quiet).expect("armed").id;
    let asked = cluster.node(at).watch(Watch::of(filter, 2)).expect("armed").id;
    cluster.run(10);
    assert!(marks(&cluster, at, quiet).is_empty(), "there is nothing new to say");
    for name in ["/a", "/b"] {
        cluster.write(at, create(name)).expect("written");
    }
    cluster.run(4);
    assert_eq!(marks(&cluster, at, quiet), ["to 2"], "after four ticks");
    cluster.write(at, create("/quiet")).expect("written");
    cluster.run(3);
    assert_eq!(marks(&cluster, at, quiet), ["to 2", "3"]);
    cluster.write(at, create("/c")).expect("written");
    cluster.run(2);
    assert_eq!(marks(&cluster, at, quiet), ["to 2", "3", "to 4"]);
    // Its credit is used up; the other one, too, when it was asked once.
    cluster.write(at, create("/d")).expect("written");
    cluster.run(10);
    assert_eq!(marks(&cluster, at, quiet).len(), 3);
    for _ in 0..2 {
        cluster.node(at).progress(asked);
        cluster.settle();
        assert_eq!(marks(&cluster, at, asked), ["3", "to 5"]);
    }
    cluster.write(at, create("/quiet/e")).expect("written");
    cluster.node(at).credit(asked, 2);
    cluster.settle();
    assert_eq!(marks(&cluster, at, asked), ["3", "to 5", "6", "to 6"], "behind the event");
}
