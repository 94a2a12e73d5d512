//! Snapshots: written locally, sent, resumed, installed (ARCHITECTURE.md, rules 8 and 11).

use std::{cell::Cell, rc::Rc};

use super::*;
use crate::{consensus::Replication, id::Zxid, op::Filter, wire::Body};

/// The log in memory holds next to nothing, so whoever lags needs a snapshot.
pub(super) fn small() -> Limits {
    Limits {
        log_tail_bytes_max: 2_000,
        snapshot_chunk_bytes: 512,
        snapshot_log_bytes: 1 << 30,
        transfer_ticks_max: 60,
        ..Limits::default()
    }
}

pub(super) fn cluster() -> Cluster {
    let mut cluster = Cluster::with_limits(3, small());
    cluster.elect();
    cluster
}

pub(super) fn fill(cluster: &mut Cluster, at: NodeId, name: &str, count: usize) {
    for n in 0..count {
        cluster.write(at, create(&format!("/{name}-{n}"))).expect("written");
    }
}

fn watch_all(credit: u32) -> Watch {
    let filter = Filter::Subtree(crate::Path::root());
    Watch::of(filter, credit)
}

/// A follower that has missed more than the log holds.
pub(super) fn lagging(cluster: &mut Cluster) -> (NodeId, NodeId) {
    let leader = cluster.leader().expect("elected");
    let lagging = (1..=3).map(id).find(|&it| it != leader).expect("a follower");
    cluster.kill(lagging);
    fill(cluster, leader, "missed", 100);
    (leader, lagging)
}

#[test]
fn a_member_behind_the_log_catches_up_by_a_snapshot_in_chunks() {
    let mut cluster = cluster();
    let (leader, lagging) = lagging(&mut cluster);
    let chunks = Rc::new(Cell::new(0));
    let count = chunks.clone();
    cluster.lose = Box::new(move |frame| {
        count.set(count.get() + usize::from(matches!(frame.body, Body::SnapshotChunk(_))));
        false
    });
    cluster.start(lagging);
    cluster.run(10);
    assert!(chunks.get() > 5, "{}", chunks.get());
    assert!(cluster.exists(lagging, "/missed-99"));
    cluster.write(leader, create("/after")).expect("written");
    cluster.run(2);
    cluster.assert_agreement();
    cluster.restart(lagging);
    cluster.run(5);
    cluster.assert_agreement();
}

/// A leader in quarantine drops its transfers, and leads again if its state is replaced soon.
#[test]
fn a_snapshot_that_its_leader_has_dropped_is_begun_anew() {
    let mut cluster = cluster();
    let (leader, lagging) = lagging(&mut cluster);
    cluster.start(lagging);
    let pulls = |frame: &Frame| matches!(frame.body, Body::SnapshotPull { .. });
    cluster.lose = Box::new(pulls);
    cluster.run(10);
    let waits = cluster.nodes[&leader].consensus.progress(lagging);
    assert!(waits.is_some_and(|it| it.replication == Replication::Snapshot), "{waits:?}");
    cluster.node(leader).transfers = Transfers::default();
    cluster.lose = Box::new(|_| false);
    cluster.run(30);
    assert_eq!(cluster.leader(), Some(leader));
    assert!(cluster.exists(lagging, "/missed-99"));
    cluster.assert_agreement();
}

#[test]
fn rule_11_a_transfer_survives_losses_and_changes_of_term() {
    let mut cluster = cluster();
    let (leader, lagging) = lagging(&mut cluster);
    let other = (1..=3).map(id).find(|&it| it != leader && it != lagging).expect("a third");
    cluster.start(lagging);
    let budget = Rc::new(Cell::new(3));
    let left = budget.clone();
    let from_zero = Rc::new(Cell::new(0));
    let zeros = from_zero.clone();
    cluster.lose = Box::new(move |frame| match &frame.body {
        Body::SnapshotPull { offset, .. } => {
            zeros.set(zeros.get() + usize::from(*offset == 0));
            // Three chunks get through, then the link is silent until the budget is raised.
            let lost = left.get() == 0;
            left.set(left.get().max(1) - 1);
            lost
        }
        _ => false,
    });
    for round in 0..40 {
        // The leadership goes back and forth; each time the term moves.
        let now = cluster.leader().unwrap_or(leader);
        let to = if now == leader { other } else { leader };
        let _ = cluster.node(now).transfer_leader(to);
        budget.set(3);
        cluster.run(4);
        if cluster.exists(lagging, "/missed-99") {
            assert!(round > 2, "it takes several rounds: {round}");
            assert!(from_zero.get() <= 4, "it resumes: {} starts", from_zero.get());
            cluster.lose = Box::new(|_| false);
            cluster.run(10);
            cluster.assert_agreement();
            return;
        }
    }
    panic!("the transfer never ends: {:?}", cluster.nodes[&lagging].status());
}

/// The origin's pending command lies inside the snapshot that is installed.
#[test]
fn rule_8_pending_commands_are_answered_from_an_installed_snapshot() {
    let mut cluster = cluster();
    let leader = cluster.leader().expect("elected");
    let at = (1..=3).map(id).find(|&it| it != leader).expect("a follower");
    let session = cluster.open_session(at, 1, Duration::from_secs(600)).session;
    let watch = cluster.node(at).watch(watch_all(10_000)).expect("armed").id;
    // What the origin sends arrives; what the leader sends does not.
    cluster.lose = Box::new(move |frame| frame.to == at);
    let first = cluster.submit_seq(at, session, 1, create("/mine-1")).expect("taken");
    let second = cluster.submit_seq(at, session, 2, create("/mine-1")).expect("taken");
    let plain = cluster.submit(at, plain(create("/plain")));
    cluster.settle();
    assert!(cluster.exists(leader, "/mine-1") && cluster.exists(leader, "/plain"));
    fill(&mut cluster, leader, "more", 100);
    let third = cluster.submit_seq(at, session, 3, create("/mine-3")).expect("taken");
    cluster.lose = Box::new(move |frame| frame.from == at);
    cluster.settle();
    cluster.lose = Box::new(|_| false);
    cluster.run(20);
    assert!(matches!(cluster.reply(at, first), Ok(Outcome::Created { .. })));
    let exists = cluster.reply(at, second).expect_err("the second time it exists");
    assert!(matches!(exists, RequestError::Op(crate::OpError::NodeExists { .. })));
    let plain = cluster.reply(at, plain).expect_err("nobody knows");
    assert_eq!(plain, RequestError::Unknown(Unknown::SnapshotInstalled));
    assert!(matches!(cluster.reply(at, third), Ok(Outcome::Created { .. })));
    // The watch was told of everything inside the snapshot, once, in order.
    let mut zxids: Vec<Zxid> = Vec::new();
    for output in &cluster.outputs[&at] {
        match output {
            Output::Events { watch: it, zxid, .. } if *it == watch => zxids.push(*zxid),
            _ => {}
        }
    }
    assert!(zxids.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(zxids.len(), 103, "mine-1, plain, 100 more, mine-3");
}

/// The watches have more to catch up with than one drain does: the replies come after it.
#[test]
fn rule_8_what_an_installed_snapshot_answers_comes_after_the_events_before_it() {
    let limits = Limits { log_tail_bytes_max: 2_000, ..Limits::default() };
    let mut cluster = Cluster::with_limits(3, limits);
    let leader = cluster.elect();
    let at = (1..=3).map(id).find(|&it| it != leader).expect("a follower");
    let ttl = Duration::from_secs(600);
    let busy = cluster.open_session(leader, 2, ttl).session;
    let session = cluster.open_session(at, 1, ttl).session;
    cluster.submit_seq(leader, busy, 1, create("/busy")).expect("taken");
    cluster.run(2);
    let watches: Vec<WatchId> =
        (0..3).map(|_| cluster.node(at).watch(watch_all(100_000)).expect("armed").id).collect();
    cluster.lose = Box::new(move |frame| frame.to == at);
    let first = cluster.submit_seq(at, session, 1, create("/mine")).expect("taken");
    let plain = cluster.submit(at, plain(create("/plain")));
    cluster.settle();
    for seq in 2..=7_000 {
        let path = crate::Path::new("/busy").expect("valid");
        let set = Op::Set { path, data: Bytes::new(), version: None };
        cluster.submit_seq(leader, busy, seq, set.into()).expect("taken");
    }
    cluster.settle();
    let second = cluster.submit_seq(at, session, 2, create("/mine-2")).expect("taken");
    cluster.lose = Box::new(move |frame| frame.from == at);
    cluster.settle();
    cluster.lose = Box::new(|_| false);
    cluster.run(40);
    let outputs = &cluster.outputs[&at];
    let place = |wanted: &dyn Fn(&Output) -> bool| outputs.iter().position(wanted);
    let replied =
        |ticket| place(&|it| matches!(it, Output::Reply { ticket: its, .. } if *its == ticket));
    let zxid = |ticket| match &outputs[replied(ticket).expect("answered")] {
        Output::Reply { zxid, .. } => *zxid,
        other => panic!("{other:?}"),
    };
    for watch in watches {
        // The second one was applied after the snapshot: its own event comes before it, too.
        let installed = zxid(second).before();
        for (ticket, until) in [(first, installed), (plain, installed), (second, zxid(second))] {
            let late = outputs.iter().rposition(|it| match it {
                Output::Events { watch: its, zxid: at, .. } => *its == watch && *at <= until,
                _ => false,
            });
            assert!(replied(ticket) > late, "{:?} before {late:?}", replied(ticket));
        }
        let count = |it: &&Output| matches!(it, Output::Events { watch: its, .. } if *its == watch);
        assert_eq!(outputs.iter().filter(count).count(), 7_002);
    }
    assert!(cluster.reply(at, first).is_ok() && cluster.reply(at, second).is_ok());
    let unknown = Err(RequestError::Unknown(Unknown::SnapshotInstalled));
    assert_eq!(cluster.reply(at, plain), unknown);
}

#[test]
fn rule_8_a_session_that_expired_meanwhile_answers_unknown() {
    let mut cluster = cluster();
    let leader = cluster.leader().expect("elected");
    let at = (1..=3).map(id).find(|&it| it != leader).expect("a follower");
    let session = cluster.open_session(at, 1, Duration::from_secs(2)).session;
    cluster.lose = Box::new(move |frame| frame.to == at);
    let ticket = cluster.submit_seq(at, session, 1, create("/mine")).expect("taken");
    cluster.run(80);
    fill(&mut cluster, leader, "more", 100);
    assert_eq!(cluster.nodes[&leader].status().sessions, 0);
    cluster.lose = Box::new(|_| false);
    cluster.run(30);
    let error = cluster.reply(at, ticket).expect_err("the session has ended");
    assert!(error.outcome_unknown(), "{error}");
}

/// The simulator found it, with seed 229: a member took over a state in which a session had long
/// moved elsewhere, and told the session's old watch of all that had come since.
#[test]
fn rule_8_a_watch_of_a_session_that_moved_meanwhile_tells_nothing_of_what_came_after_that() {
    let mut cluster = cluster();
    let leader = cluster.leader().expect("elected");
    let at = (1..=3).map(id).find(|&it| it != leader).expect("a follower");
    let session = cluster.open_session(at, 1, Duration::from_secs(600)).session;
    let mine = Watch { caller: Caller::Session(session), ..watch_all(10_000) };
    let mine = cluster.node(at).watch(mine).expect("armed").id;
    let other = cluster.node(at).watch(watch_all(10_000)).expect("armed").id;
    cluster.lose = Box::new(move |frame| frame.to == at || frame.from == at);
    let secret = Secret::from_bytes([1; 16]);
    let moved = cluster.submit(leader, attach(session, secret, 2));
    cluster.settle();
    assert!(cluster.answer(leader, moved).is_some());
    fill(&mut cluster, leader, "more", 100);
    cluster.lose = Box::new(|_| false);
    cluster.run(30);
    let told = |watch| {
        let of = |it: &&Output| matches!(it, Output::Events { watch: its, .. } if *its == watch);
        cluster.outputs[&at].iter().filter(of).count()
    };
    assert_eq!((told(mine), told(other)), (0, 100));
    let ended = Output::WatchEnded { watch: mine, cause: WatchEnd::Detached };
    assert!(cluster.outputs[&at].contains(&ended));
}

#[test]
fn a_local_snapshot_shortens_the_log_and_restores_the_state() {
    let limits = Limits { snapshot_log_bytes: 4_000, ..small() };
    let mut cluster = Cluster::with_limits(3, limits);
    let leader = cluster.elect();
    let session = cluster.open_session(leader, 1, Duration::from_secs(600));
    fill(&mut cluster, leader, "n", 200);
    cluster.run(100);
    for disk in cluster.disks.values() {
        let (index, ..) = disk.snapshot.as_ref().expect("a snapshot");
        assert!(*index > 100, "{index}");
        assert!(disk.entries.len() < 150, "{}", disk.entries.len());
    }
    for member in 1..=3 {
        cluster.restart(id(member));
    }
    cluster.elect();
    cluster.run(5);
    assert!(cluster.exists(id(1), "/n-199"));
    assert_eq!(cluster.nodes[&id(1)].status().sessions, 1);
    assert_eq!(session.epoch, 1);
    cluster.assert_agreement();
}

/// Or a large state would be written again for each small piece of log.
#[test]
fn the_log_grows_by_as_much_as_the_last_snapshot_had_before_the_next() {
    let limits = Limits { snapshot_log_bytes: 1_024, history_count_max: 1, ..small() };
    let mut cluster = Cluster::with_limits(1, limits);
    let only = cluster.elect();
    let write = |cluster: &mut Cluster, path: String| {
        cluster.write(only, create(&path)).expect("written");
        cluster.run(60);
        cluster.nodes[&only].snapshot_bytes
    };
    let large = (0..1_000).find(|n| write(&mut cluster, format!("/{n:0>200}")) > 20_000);
    let bytes = cluster.nodes[&only].snapshot_bytes;
    cluster.restart(only);
    cluster.elect();
    assert_eq!(cluster.nodes[&only].snapshot_bytes, bytes, "it knows it from its disk");
    let before = cluster.nodes[&only].snapshot_index;
    for n in 0..50 {
        write(&mut cluster, format!("/n{n:0>50}"));
    }
    assert_eq!(cluster.nodes[&only].snapshot_index, before, "5,000 bytes after {large:?}");
    let more = (0..1_000).find(|n| write(&mut cluster, format!("/m{n:0>200}")) > bytes);
    assert!(cluster.nodes[&only].snapshot_index > before && more > Some(40), "{more:?}");
}

/// A snapshot is written while the state changes, and yet it is the state at its index.
#[test]
fn s10_a_snapshot_has_the_digest_of_the_state_at_its_index() {
    let limits = Limits { snapshot_log_bytes: 1_024, history_count_max: 16, ..small() };
    let mut cluster = Cluster::with_limits(3, limits);
    let leader = cluster.elect();
    let member = (1..=3).map(id).find(|&it| it != leader).expect("a follower");
    let mut digests = BTreeMap::new();
    let mut snapshots = BTreeSet::new();
    for n in 0..1_000 {
        cluster.write(leader, create(&format!("/n{n}"))).expect("written");
        cluster.run(3 * (n % 2));
        let node = &cluster.nodes[&member];
        digests.insert(node.applied, node.namespace.freeze().digest());
        let Some((index, _, chunks)) = &cluster.disks[&member].snapshot else { continue };
        if snapshots.insert(*index) && digests.contains_key(index) {
            let mut decoder = crate::namespace::Decoder::new(ClusterId::named("test"));
            chunks.iter().for_each(|chunk| decoder.feed(chunk.clone()).expect("well formed"));
            let (restored, ..) = decoder.finish().expect("whole");
            assert_eq!(restored.freeze().digest(), digests[index], "at {index}");
        }
    }
    let seen = snapshots.iter().filter(|index| digests.contains_key(index)).count();
    assert!(seen > 3, "{seen} of {} snapshots were compared", snapshots.len());
}

/// What was applied is saved nowhere but in the snapshot: to replay the log, and once more, gives
/// the same state.
#[test]
fn s6_a_log_that_is_replayed_twice_gives_the_same_state() {
    let mut cluster = cluster();
    let leader = cluster.leader().expect("elected");
    let member = (1..=3).map(id).find(|&it| it != leader).expect("a follower");
    let session = cluster.open_session(leader, 1, Duration::from_secs(60)).session;
    for seq in 1..=50 {
        let txn = create_as("/s-", CreateMode::PersistentSequential);
        cluster.submit_seq(leader, session, seq, txn).expect("taken");
    }
    cluster.settle();
    for _ in 0..2 {
        cluster.restart(member);
        cluster.run(5);
        cluster.assert_agreement();
    }
    let page = cluster.nodes[&member].view().list(&List::of(crate::Path::root()));
    assert_eq!(page.expect("the root").children.len(), 50, "each once");
}
