//! Transfers of snapshots when messages get lost, and at odd moments (ARCHITECTURE.md, rule 11).

use std::{cell::Cell, rc::Rc};

use super::{
    snapshots::{cluster, fill, lagging, small},
    *,
};
use crate::wire::{Body, Chunk};

/// A part of a transfer that the network may lose; raft knows nothing of them.
fn is_transfer(body: &Body) -> bool {
    let pulled = matches!(body, Body::SnapshotPull { .. } | Body::SnapshotChunk(_));
    pulled || matches!(body, Body::SnapshotOffer { .. } | Body::SnapshotStaged { .. })
}

fn begun(cluster: &Cluster, at: NodeId) -> usize {
    cluster.disks[&at].begun
}

#[test]
fn rule_11_losses_under_a_stable_leader_delay_a_transfer_and_restart_nothing() {
    for every in [2, 3, 7] {
        let mut cluster = cluster();
        let (leader, lagging) = lagging(&mut cluster);
        let before = begun(&cluster, lagging);
        let mut count = 0u64;
        cluster.lose = Box::new(move |frame| {
            count += u64::from(is_transfer(&frame.body));
            // Not a pattern that the alternation of pull and chunk could fall in with.
            is_transfer(&frame.body) && (count * count / 5) % every == 0
        });
        cluster.start(lagging);
        let mut ticks = 0;
        while !cluster.exists(lagging, "/missed-99") {
            ticks += 10;
            assert!(ticks < 2_000, "it never ends: {:?}", cluster.nodes[&lagging].status());
            cluster.run(10);
        }
        assert_eq!(cluster.leader(), Some(leader), "nobody was elected meanwhile");
        assert_eq!(begun(&cluster, lagging) - before, 1, "it never began anew");
    }
}

#[test]
fn rule_11_a_transfer_goes_on_where_it_stopped_after_a_long_silence() {
    let mut cluster = cluster();
    let (leader, lagging) = lagging(&mut cluster);
    let before = begun(&cluster, lagging);
    let chunks = Rc::new(Cell::new(0));
    let count = chunks.clone();
    cluster.lose = Box::new(move |frame| {
        count.set(count.get() + usize::from(matches!(frame.body, Body::SnapshotChunk(_))));
        count.get() > 5 && is_transfer(&frame.body)
    });
    cluster.start(lagging);
    // Longer than any deadline of a transfer, while the cluster goes on a little.
    cluster.run(200);
    assert!(!cluster.exists(lagging, "/missed-99"));
    let offsets = Rc::new(Cell::new(u64::MAX));
    let least = offsets.clone();
    cluster.lose = Box::new(move |frame| {
        if let Body::SnapshotPull { offset, .. } = frame.body {
            least.set(least.get().min(offset));
        }
        false
    });
    cluster.run(40);
    assert!(cluster.exists(lagging, "/missed-99"), "{:?}", cluster.nodes[&lagging].status());
    assert_eq!(cluster.leader(), Some(leader));
    assert_eq!(begun(&cluster, lagging) - before, 1, "it never began anew");
    assert!(offsets.get() > 1_000, "it went on at {}", offsets.get());
}

#[test]
fn rule_11_a_transfer_that_nobody_pulls_holds_the_log_no_longer_than_its_deadline() {
    let mut cluster = cluster();
    let (leader, lagging) = lagging(&mut cluster);
    cluster.lose = Box::new(|frame| is_transfer(&frame.body));
    cluster.start(lagging);
    cluster.run(5);
    assert!(cluster.nodes[&leader].transfers.pinned().is_some(), "the log is kept for it");
    cluster.run(60);
    cluster.kill(lagging);
    cluster.run(60);
    assert_eq!(cluster.nodes[&leader].transfers.pinned(), None);
    fill(&mut cluster, leader, "on", 60);
    assert!(cluster.nodes[&leader].transfers.outgoing.is_empty(), "the log has moved on");
}

#[test]
fn rule_11_a_finished_transfer_lets_go_of_the_log_at_once() {
    let mut cluster = cluster();
    let (leader, lagging) = lagging(&mut cluster);
    cluster.start(lagging);
    cluster.run(15);
    assert!(cluster.exists(lagging, "/missed-99"));
    assert_eq!(cluster.nodes[&leader].transfers.pinned(), None);
    assert!(cluster.nodes[&leader].transfers.outgoing.is_empty());
    assert!(cluster.garbage > 0, "the frozen state is dropped elsewhere");
}

/// A receiver that has everything and was not told to install it, though the leader did tell it.
fn staged(cluster: &mut Cluster) -> (NodeId, NodeId, crate::wire::RaftMessage) {
    let (leader, lagging) = lagging(cluster);
    cluster.lose = Box::new(|frame| match &frame.body {
        Body::Raft(message) => message.snapshot.is_some(),
        _ => false,
    });
    cluster.start(lagging);
    cluster.run(30);
    let incoming = cluster.nodes[&lagging].transfers.incoming.as_ref().expect("it is here");
    assert!(incoming.durable);
    let (index, term) = (incoming.index, incoming.term);
    let consensus = &cluster.nodes[&leader].consensus;
    let message = consensus.snapshot_message(lagging, index, term).expect("its log goes on there");
    cluster.lose = Box::new(|_| false);
    (leader, lagging, message)
}

fn tell(cluster: &mut Cluster, from: NodeId, to: NodeId, body: Body) {
    let frame = cluster.nodes[&from].frame(to, body);
    let _ = cluster.node(to).step(from, frame.bytes);
}

#[test]
fn rule_11_an_offer_behind_the_leaders_word_does_not_undo_what_is_staged() {
    let mut cluster = cluster();
    let (leader, lagging, message) = staged(&mut cluster);
    let (index, term) = (message.snapshot.as_ref().expect("it is one").index, message.term);
    tell(&mut cluster, leader, lagging, Body::Raft(message));
    tell(&mut cluster, leader, lagging, Body::SnapshotOffer { index: index + 50, term });
    cluster.drain(lagging);
    assert_eq!(cluster.nodes[&lagging].ended(), None);
    assert!(cluster.exists(lagging, "/missed-99"));
    cluster.run(10);
    cluster.assert_agreement();
}

#[test]
fn rule_11_members_that_differ_from_those_that_were_staged_end_the_node_before_it_installs() {
    let mut cluster = cluster();
    let (leader, lagging, mut message) = staged(&mut cluster);
    message.snapshot.as_mut().expect("it is one").learners.push(9);
    tell(&mut cluster, leader, lagging, Body::Raft(message));
    cluster.drain(lagging);
    let ended = cluster.nodes[&lagging].ended();
    assert!(
        matches!(ended, Some(Ended::Consensus { why }) if why.contains("members")),
        "{ended:?}"
    );
    assert!(cluster.disks[&lagging].snapshot.as_ref().expect("the founding").0 == 1);
}

#[test]
fn rule_11_a_transfer_that_is_dropped_takes_no_local_snapshot_with_it() {
    let mut cluster = Cluster::with_limits(3, Limits { snapshot_log_bytes: 4_000, ..small() });
    let leader = cluster.elect();
    let at = (1..=3).map(id).find(|&it| it != leader).expect("a follower");
    fill(&mut cluster, leader, "n", 200);
    let mono = cluster.now;
    for _ in 0..100 {
        cluster.drain(at);
        cluster.node(at).tick(Now { mono, wall_ms: 1 }).expect("drained");
        if cluster.nodes[&at].next_write.compact_to.is_some() {
            break;
        }
    }
    assert!(cluster.nodes[&at].next_write.compact_to.is_some(), "a snapshot of its own");
    // In the same drain another begins to arrive, and is damaged.
    let (index, term) = (cluster.nodes[&at].applied + 100, 2);
    tell(&mut cluster, leader, at, Body::SnapshotOffer { index, term });
    let bytes = Bytes::from_static(&[0xff; 512]);
    let chunk = Chunk { index, term, offset: 0, bytes, crc: None };
    tell(&mut cluster, leader, at, Body::SnapshotChunk(chunk));
    assert!(cluster.nodes[&at].transfers.incoming.is_none(), "it was refused");
    cluster.drain(at);
    let snapshot = cluster.disks[&at].snapshot.as_ref().expect("its own");
    assert_eq!(snapshot.0, cluster.nodes[&at].snapshot_index);
    cluster.restart(at);
    cluster.run(10);
    cluster.assert_agreement();
}

/// Else the log would grow to twice its bound before the next one.
#[test]
fn a_local_snapshot_that_gave_way_to_a_transfer_is_begun_again_when_the_transfer_is_dropped() {
    let limits = Limits { snapshot_log_bytes: 30_000, snapshot_chunk_bytes: 1_024, ..small() };
    let mut cluster = Cluster::with_limits(3, limits);
    let leader = cluster.elect();
    let at = (1..=3).map(id).find(|&it| it != leader).expect("a follower");
    let mut n = 0;
    while cluster.nodes[&at].transfers.local.is_none() {
        n += 1;
        assert!(n < 1_000, "a snapshot is due");
        fill(&mut cluster, leader, &format!("n{n}"), 10);
        cluster.run(1);
    }
    let before = cluster.nodes[&at].snapshot_index;
    let (index, term) = (cluster.nodes[&at].applied + 100, 2);
    tell(&mut cluster, leader, at, Body::SnapshotOffer { index, term });
    assert!(cluster.nodes[&at].transfers.local.is_none(), "it gave way");
    let bytes = Bytes::from_static(&[0xff; 512]);
    let chunk = Chunk { index, term, offset: 0, bytes, crc: None };
    tell(&mut cluster, leader, at, Body::SnapshotChunk(chunk));
    assert!(cluster.nodes[&at].transfers.incoming.is_none(), "it was refused");
    cluster.run(60);
    assert!(cluster.nodes[&at].snapshot_index > before, "though the log grew by nothing");
}

#[test]
fn rule_11_a_lost_offer_and_a_lost_answer_cost_an_election_timeout_each() {
    let limits = Limits { transfer_ticks_max: 10_000, ..small() };
    let mut cluster = Cluster::with_limits(3, limits);
    cluster.elect();
    let (_, lagging) = lagging(&mut cluster);
    let (mut offers, mut answers) = (0, 0);
    cluster.lose = Box::new(move |frame| {
        offers += usize::from(matches!(frame.body, Body::SnapshotOffer { .. }));
        answers += usize::from(matches!(frame.body, Body::SnapshotStaged { .. }));
        match &frame.body {
            Body::SnapshotOffer { .. } => offers == 1,
            Body::SnapshotStaged { .. } => answers == 1,
            _ => false,
        }
    });
    cluster.start(lagging);
    cluster.run(35);
    assert!(cluster.exists(lagging, "/missed-99"), "{:?}", cluster.nodes[&lagging].status());
}
