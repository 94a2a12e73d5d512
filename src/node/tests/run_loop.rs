//! ARCHITECTURE.md, rule 5: the token, the order of the loop, and what may leave before a write.

use super::*;
use crate::wire::Body;

fn single() -> (Node, Disk) {
    let mut disk = Disk::new(1);
    let config = Config::founding(ClusterId::named("test"), id(1), [id(1)]).build();
    let node = Node::open(config.expect("valid"), disk.open()).expect("opens");
    (node, disk)
}

fn drain(node: &mut Node, disk: &mut Disk) -> Vec<Output> {
    let mut outputs = Vec::new();
    while let Some(ready) = node.ready() {
        if let Some((write, token)) = ready.write {
            disk.persist(&write);
            node.persisted(token).expect("its own token");
        }
        outputs.extend(ready.outputs);
    }
    outputs
}

/// Persists up to a write that `stop` names; that one is out.
fn drain_until(
    node: &mut Node,
    disk: &mut Disk,
    stop: impl Fn(&Write) -> bool,
) -> Option<(Write, Token)> {
    while let Some(ready) = node.ready() {
        if let Some((write, token)) = ready.write {
            if stop(&write) {
                return Some((write, token));
            }
            disk.persist(&write);
            node.persisted(token).expect("its own token");
        }
    }
    None
}

fn lead(node: &mut Node, disk: &mut Disk) {
    drain(node, disk);
    for n in 1..100 {
        node.tick(Now { mono: TICK * n, wall_ms: 0 }).expect("drained");
        drain(node, disk);
    }
    assert!(node.is_leader());
}

/// A write that is out, and its token.
fn write_out(node: &mut Node) -> (Write, Token) {
    node.submit(plain(create("/a"))).expect("taken");
    loop {
        if let Some(write) = node.ready().expect("something to write").write {
            return write;
        }
    }
}

/// A leader's next term: a barrier that is out.
fn barrier_out(node: &mut Node, disk: &mut Disk) -> (Write, Token) {
    for n in 1.. {
        let votes = |write: &Write| write.hard_state.is_some_and(|it| it.term > 1);
        if let Some(barrier) = drain_until(node, disk, votes) {
            return barrier;
        }
        node.tick(Now { mono: TICK * n, wall_ms: 0 }).expect("drained");
    }
    unreachable!("it campaigns")
}

#[test]
fn rule_5_inputs_are_refused_while_a_barrier_is_out() {
    let (mut node, mut disk) = single();
    let (write, token) = barrier_out(&mut node, &mut disk);
    assert!(node.is_blocked());
    let now = Now { mono: Duration::from_secs(60), wall_ms: 0 };
    assert_eq!(node.tick(now), Err(Misuse::WriteOut));
    assert!(matches!(node.step(id(2), Bytes::new()), Err(StepError::Misuse(Misuse::WriteOut))));
    let request = plain(create("/b"));
    assert_eq!(node.submit(request.clone()), Err(SubmitError::Misuse(Misuse::WriteOut)));
    assert!(node.ready().is_none(), "nothing comes out before the token is back");
    disk.persist(&write);
    node.persisted(token).expect("its own token");
    drain(&mut node, &mut disk);
    node.submit(request).expect("taken");
    let outputs = drain(&mut node, &mut disk);
    assert!(matches!(outputs[..], [Output::Reply { result: Ok(Some(_)), .. }]));
}

#[test]
fn rule_5_behind_plain_entries_the_node_goes_on_and_answers_in_order() {
    let (mut node, mut disk) = single();
    lead(&mut node, &mut disk);
    let mut out = VecDeque::new();
    for path in ["/a", "/b", "/c"] {
        node.submit(plain(create(path))).expect("taken");
        while let Some(ready) = node.ready() {
            assert!(ready.outputs.is_empty(), "answered before it is durable");
            out.extend(ready.write);
        }
    }
    assert_eq!(out.len(), 2, "the third waits for room, to share an entry with what comes");
    node.tick(Now { mono: TICK * 100, wall_ms: 0 }).expect("drained");
    let mut replies = 0;
    while let Some((write, token)) = out.pop_front() {
        disk.persist(&write);
        node.persisted(token).expect("the oldest");
        while let Some(ready) = node.ready() {
            replies += ready.outputs.len();
            out.extend(ready.write);
        }
    }
    assert_eq!(replies, 3);
    let restored = disk.entries.len();
    assert_eq!(restored as u64, node.status().applied - 1, "all that was answered is on the disk");
}

/// Up to the step that makes it count, nothing waits for the snapshot that a node writes.
#[test]
fn rule_5_bytes_of_its_own_snapshot_delay_nothing() {
    let limits = Limits { snapshot_log_bytes: 20_000, ..snapshots::small() };
    let mut disk = Disk::new(1);
    let config = Config::founding(ClusterId::named("test"), id(1), [id(1)]).limits(limits);
    let mut node = Node::open(config.build().expect("valid"), disk.open()).expect("opens");
    lead(&mut node, &mut disk);
    for n in 0..400 {
        node.submit(plain(create(&format!("/n{n:0>50}")))).expect("taken");
        drain(&mut node, &mut disk);
    }
    let mut mono = TICK * 100;
    let mut tick = |node: &mut Node| {
        mono += TICK;
        node.tick(Now { mono, wall_ms: 0 }).expect("not blocked");
    };
    tick(&mut node);
    let stages = |write: &Write| !write.snapshot.is_empty();
    let staged = drain_until(&mut node, &mut disk, stages).expect("it is due");
    let finish = |step: &SnapshotWrite| matches!(step, SnapshotWrite::Finish { .. });
    assert!(!staged.0.snapshot.iter().any(finish), "it takes more than a tick");
    let mut out = VecDeque::from([staged]);
    node.submit(plain(create("/meanwhile"))).expect("taken");
    for _ in 0..5 {
        while let Some(ready) = node.ready() {
            assert!(ready.outputs.is_empty(), "answered before it is durable");
            out.extend(ready.write);
        }
        tick(&mut node);
    }
    let bytes = out.iter().filter(|(write, _)| stages(write)).count();
    assert_eq!((bytes, out.len()), (1, 2), "the entry goes out behind it, and no more of it");
    for (write, token) in out {
        disk.persist(&write);
        node.persisted(token).expect("in order");
    }
    assert_eq!(drain(&mut node, &mut disk).len(), 1, "/meanwhile is answered");
    let ends = |write: &Write| write.snapshot.iter().any(finish);
    let (write, token) = loop {
        tick(&mut node);
        if let Some(last) = drain_until(&mut node, &mut disk, ends) {
            break last;
        }
    };
    assert!(node.is_blocked() && write.compact_to.is_some(), "the log is cut for it");
    disk.persist(&write);
    node.persisted(token).expect("its own token");
    assert!(disk.snapshot.is_some());
}

#[test]
fn rule_5_a_token_out_of_order_ends_the_node() {
    let (mut node, mut disk) = single();
    lead(&mut node, &mut disk);
    let (_, first) = write_out(&mut node);
    let (_, second) = write_out(&mut node);
    assert_eq!(node.persisted(second).err(), Some(Misuse::ForeignToken));
    assert_eq!(node.persisted(first).err(), None);
    assert!(node.ready().is_some_and(|ready| ready.messages.is_empty() && ready.write.is_none()));
    assert_eq!(node.ended(), Some(&Ended::TokenDropped));
}

/// Heartbeats of a leader whose disk hangs would keep a better one from being elected.
#[test]
fn rule_5_a_node_waits_for_a_disk_that_takes_an_election_timeout() {
    let mut cluster = Cluster::elected(3);
    let leader = cluster.leader().expect("elected");
    let hung = write_out(cluster.node(leader));
    for n in 1..=10 {
        while let Some(ready) = cluster.node(leader).ready() {
            assert!(ready.write.is_none());
        }
        let now = Now { mono: cluster.now + TICK * n, wall_ms: 0 };
        cluster.node(leader).tick(now).expect("not blocked yet");
    }
    assert!(cluster.nodes[&leader].is_blocked());
    let now = Now { mono: cluster.now + TICK * 11, wall_ms: 0 };
    assert_eq!(cluster.node(leader).tick(now), Err(Misuse::WriteOut));
    assert!(cluster.node(leader).ready().is_none());
    cluster.disks.get_mut(&leader).expect("a disk").persist(&hung.0);
    cluster.node(leader).persisted(hung.1).expect("its own token");
    assert!(!cluster.nodes[&leader].is_blocked());
    cluster.settle();
    assert!(cluster.exists(leader, "/a"));
}

#[test]
fn rule_5_a_node_that_is_not_drained_is_not_ticked() {
    let (mut node, mut disk) = single();
    lead(&mut node, &mut disk);
    let now = Now { mono: Duration::from_secs(60), wall_ms: 0 };
    node.tick(now).expect("drained");
    assert_eq!(node.tick(now), Err(Misuse::NotDrained));
    drain(&mut node, &mut disk);
    node.tick(now).expect("drained");
}

#[test]
fn rule_5_a_dropped_token_ends_the_node() {
    let (mut node, mut disk) = single();
    lead(&mut node, &mut disk);
    let (_, token) = write_out(&mut node);
    drop(token);
    let request = plain(create("/b"));
    assert_eq!(node.submit(request), Err(SubmitError::Misuse(Misuse::TokenDropped)));
    assert_eq!(node.tick(Now { mono: TICK, wall_ms: 0 }), Err(Misuse::TokenDropped));
    let ready = node.ready().expect("the pending request is answered");
    assert!(ready.messages.is_empty() && ready.write.is_none());
    assert!(matches!(
        ready.outputs[..],
        [Output::Reply { result: Err(RequestError::Unknown(Unknown::NodeEnded)), .. }]
    ));
    assert_eq!(node.ended(), Some(&Ended::TokenDropped));
}

#[test]
fn rule_5_a_foreign_or_older_token_is_refused() {
    let (mut node, mut disk) = single();
    let (mut other, mut other_disk) = single();
    lead(&mut node, &mut disk);
    other_disk.open();
    lead(&mut other, &mut other_disk);
    let (write, token) = write_out(&mut node);
    disk.persist(&write);
    // The same node in a later opening: another boot.
    let config = Config::founding(ClusterId::named("test"), id(1), [id(1)]).build();
    let mut reopened = Node::open(config.expect("valid"), disk.open()).expect("opens");
    assert_eq!(reopened.persisted(token).err(), Some(Misuse::ForeignToken));
}

#[test]
fn rule_5_a_failed_write_ends_the_node_and_leaves_requests_unknown() {
    let (mut node, mut disk) = single();
    lead(&mut node, &mut disk);
    let (_, token) = write_out(&mut node);
    node.failed(token, "fsync: input/output error");
    let ready = node.ready().expect("the pending request is answered");
    let Output::Reply { result: Err(error), .. } = &ready.outputs[0] else { panic!("a reply") };
    assert!(error.outcome_unknown());
    assert!(ready.messages.is_empty() && ready.write.is_none());
    let ended = node.ended().expect("ended").to_string();
    assert!(ended.contains("input/output error"), "{ended}");
    let refused = node.submit(plain(create("/b")));
    assert!(matches!(refused, Err(SubmitError::Ended(_))));
}

/// A single voter wins a term within one turn: nothing of that term may leave before it is durable,
/// or a learner keeps an entry that never was.
#[test]
fn rule_5_a_new_term_releases_nothing_before_it_is_durable() {
    let mut cluster = Cluster::elected(1);
    cluster.join(2);
    cluster.submit(id(1), Request::AddLearner(id(2)));
    cluster.run(5);
    assert_eq!(cluster.nodes[&id(2)].status().role, Role::Learner);
    cluster.restart(id(1));
    let mut term = cluster.nodes[&id(1)].status().term;
    let mut elections = 0;
    for _ in 0..60 {
        cluster.now += TICK;
        let now = Now { mono: cluster.now, wall_ms: 0 };
        cluster.node(id(1)).tick(now).expect("drained");
        while let Some(ready) = cluster.node(id(1)).ready() {
            let hard_state = ready.write.as_ref().and_then(|(write, _)| write.hard_state);
            if hard_state.is_some_and(|it| it.term > term) {
                elections += 1;
                for message in &ready.messages {
                    let frame = Frame::decode(&message.bytes, usize::MAX).expect("ours");
                    assert!(!matches!(frame.body, Body::Raft(_)), "left too early: {frame:?}");
                }
            }
            if let Some((write, token)) = ready.write {
                cluster.disks.get_mut(&id(1)).expect("a disk").persist(&write);
                cluster.node(id(1)).persisted(token).expect("its own token");
            }
        }
        term = cluster.nodes[&id(1)].status().term;
    }
    assert_eq!(elections, 1);
}
