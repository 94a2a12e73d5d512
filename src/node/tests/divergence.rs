//! ARCHITECTURE.md, rule 2: states that went bad are found by a majority, and replaced.

use super::*;
use crate::{
    id::Zxid,
    wire::{Body, DigestReport},
};

const FEW: usize = 4;

/// States are compared after few entries.
fn cluster(voters: u64) -> (Cluster, NodeId) {
    with_limits(voters, Limits::default())
}

fn with_limits(voters: u64, limits: Limits) -> (Cluster, NodeId) {
    let limits = Limits { compare_entries_max: FEW, snapshot_chunk_bytes: 512, ..limits };
    let mut cluster = Cluster::with_limits(voters, limits);
    let leader = cluster.elect();
    for path in ["/a", "/b"] {
        cluster.write(leader, create(path)).expect("written");
    }
    write_some(&mut cluster, leader);
    (cluster, leader)
}

fn set(path: &str) -> Txn {
    let path = path.parse().expect("valid");
    Op::Set { path, data: Bytes::from_static(b"new"), version: None }.into()
}

/// As many entries as a comparison needs.
fn write_some(cluster: &mut Cluster, at: NodeId) {
    for _ in 0..2 * FEW {
        cluster.write(at, set("/b")).expect("written");
    }
}

fn flip(cluster: &mut Cluster, member: NodeId, data: &'static [u8]) {
    cluster.node(member).namespace.corrupt_data("/a", Bytes::from_static(data));
}

fn followers(cluster: &Cluster, leader: NodeId) -> Vec<NodeId> {
    cluster.nodes.keys().copied().filter(|&it| it != leader).collect()
}

fn divergence(cluster: &Cluster, member: NodeId) -> Option<Divergence> {
    cluster.nodes[&member].status().divergence
}

fn quarantined(cluster: &Cluster) -> Vec<NodeId> {
    let nodes = cluster.nodes.iter().filter(|it| it.1.is_quarantined());
    nodes.map(|it| *it.0).collect()
}

/// Nobody gives a state away.
fn hold_states(cluster: &mut Cluster) {
    cluster.lose = Box::new(|frame| matches!(frame.body, Body::StateOffer { .. }));
}

fn assert_replaced(cluster: &mut Cluster, member: NodeId, first_bad: Option<Zxid>) {
    match divergence(cluster, member) {
        Some(Divergence::Replaced { mismatch, .. }) if first_bad.is_some() => {
            assert_eq!(mismatch.first_bad, first_bad, "named exactly");
            assert_eq!(mismatch.last_good, first_bad.map(Zxid::before), "named exactly");
        }
        Some(Divergence::Replaced { .. }) => {}
        other => panic!("{member} has no other state: {other:?}"),
    }
    assert_eq!(cluster.nodes[&member].status().waiting, None);
    cluster.assert_agreement();
}

#[test]
fn rule_2_a_bit_in_a_followers_tree_is_found_and_the_state_replaced() {
    let (mut cluster, leader) = cluster(3);
    let bad = followers(&cluster, leader)[0];
    hold_states(&mut cluster);
    flip(&mut cluster, bad, b"y");
    write_some(&mut cluster, leader);
    assert_eq!(quarantined(&cluster), [], "nothing has looked at it yet");
    cluster.write(leader, set("/a")).expect("written");
    let first_bad = cluster.nodes[&leader].namespace.zxid();
    write_some(&mut cluster, leader);
    assert_eq!(quarantined(&cluster), [bad]);
    let status = cluster.nodes[&bad].status();
    assert_eq!((status.waiting, status.leader), (Some(Waiting::GoodState), None));
    let Some(Divergence::Quarantined(mismatch)) = status.divergence else {
        panic!("{:?}", status.divergence);
    };
    let last_good = Some(first_bad.before());
    assert_eq!((mismatch.last_good, mismatch.first_bad), (last_good, Some(first_bad)));
    // It has no part in anything.
    let write = plain(set("/b"));
    assert_eq!(cluster.node(bad).submit(write), Err(SubmitError::Quarantined));
    let read =
        Read { caller: Caller::world(), op: ReadOp::Barrier, consistency: Consistency::Local };
    assert_eq!(cluster.node(bad).read(read), Err(SubmitError::Quarantined));
    cluster.record = true;
    write_some(&mut cluster, leader);
    cluster.run(30);
    assert_eq!(cluster.nodes[&bad].status().role, Role::Follower, "its time stands still");
    let sent = cluster.sent.iter().map(|it| Frame::decode(it, usize::MAX).expect("ours"));
    let said = sent.filter(|it| it.from == bad).map(|it| it.body);
    let allowed =
        |it: &Body| matches!(it, Body::StateAsk { .. } | Body::MarksAsk { .. } | Body::Hello(_));
    assert_eq!(said.filter(|it| !allowed(it)).collect::<Vec<_>>(), [], "no vote, no answer");
    // A good state comes.
    cluster.lose = Box::new(|_| false);
    cluster.run(30);
    assert_replaced(&mut cluster, bad, Some(first_bad));
    cluster.write(bad, create("/by-it")).expect("it takes part again");
    write_some(&mut cluster, leader);
    cluster.run(5);
    assert_replaced(&mut cluster, bad, Some(first_bad));
}

#[test]
fn rule_2_a_bad_leader_stops_and_the_healthy_majority_goes_on() {
    let (mut cluster, bad) = cluster(3);
    hold_states(&mut cluster);
    flip(&mut cluster, bad, b"y");
    cluster.write(bad, set("/a")).expect("written");
    let first_bad = cluster.nodes[&bad].namespace.zxid();
    for _ in 0..2 * FEW {
        let write = plain(set("/b"));
        if cluster.node(bad).submit(write).is_err() {
            break;
        }
        cluster.settle();
    }
    assert_eq!(quarantined(&cluster), [bad]);
    assert!(!cluster.nodes[&bad].is_leader());
    let leader = cluster.elect();
    assert_ne!(leader, bad);
    write_some(&mut cluster, leader);
    cluster.lose = Box::new(|_| false);
    cluster.run(30);
    assert_replaced(&mut cluster, bad, Some(first_bad));
}

/// It is so quick that nobody has missed it.
#[test]
fn rule_2_a_leader_whose_state_is_replaced_at_once_leads_on() {
    let (mut cluster, bad) = cluster(3);
    cluster.node(bad).namespace.corrupt_clock();
    for _ in 0..4 * FEW {
        let write = plain(set("/b"));
        cluster.node(bad).submit(write).expect("taken");
        cluster.settle();
    }
    assert_eq!(quarantined(&cluster), []);
    assert_eq!(cluster.leader(), Some(bad));
    write_some(&mut cluster, bad);
    cluster.run(40);
    assert_eq!(cluster.leader(), Some(bad));
    assert_replaced(&mut cluster, bad, None);
}

/// The entry is on its disk only after its state was found to be bad.
#[test]
fn rule_2_nothing_is_acknowledged_in_quarantine() {
    let (mut cluster, leader) = cluster(3);
    let bad = followers(&cluster, leader)[0];
    let ticket = plain(set("/b"));
    cluster.submit(leader, ticket);
    cluster.drain(leader);
    while let Some((from, to, bytes)) = cluster.network.pop_front() {
        if to == bad {
            cluster.node(bad).step(from, bytes).expect("taken");
        }
    }
    let node = cluster.node(bad);
    let (write, token) = node.ready().and_then(|ready| ready.write).expect("an entry");
    assert!(!write.entries.is_empty());
    node.quarantine = Some(Quarantine::reopened(node.applied));
    assert_eq!(node.persisted(token), Ok(Vec::new()));
}

#[test]
fn rule_2_who_asks_too_early_is_answered_later() {
    // Nothing is compared so early.
    let mut cluster = Cluster::elected(3);
    let leader = cluster.leader().expect("elected");
    cluster.write(leader, create("/b")).expect("written");
    let [asked, asking] = followers(&cluster, leader)[..] else {
        panic!("two followers");
    };
    let index = cluster.nodes[&asked].applied + 1;
    cluster.node(asked).take_state_body(asking, Body::DigestAsk { index });
    cluster.record = true;
    cluster.write(leader, set("/b")).expect("written");
    let sent = cluster.sent.iter().map(|it| Frame::decode(it, usize::MAX).expect("ours"));
    let told = |it: &Frame| matches!(it.body, Body::DigestReport(it) if it.index == index);
    assert_eq!(sent.filter(|it| it.to == asking && told(it)).count(), 1);
}

#[test]
fn rule_2_without_a_majority_nobody_is_picked_and_nobody_halts() {
    let (mut cluster, leader) = cluster(3);
    let bad = followers(&cluster, leader);
    flip(&mut cluster, bad[0], b"y");
    flip(&mut cluster, bad[1], b"z");
    cluster.write(leader, set("/a")).expect("written");
    write_some(&mut cluster, leader);
    for (&member, node) in &cluster.nodes {
        let Some(Divergence::Unresolved { digests, .. }) = node.status().divergence else {
            panic!("{member}: {:?}", node.status().divergence);
        };
        let distinct: std::collections::BTreeSet<u64> = digests.values().copied().collect();
        assert_eq!((digests.len(), distinct.len()), (3, 3));
    }
    write_some(&mut cluster, leader);
    cluster.run(50);
    assert_eq!(quarantined(&cluster), []);
    assert_eq!(cluster.leader(), Some(leader));
    // One makes its state anew: now there is a majority, and the other is in quarantine.
    cluster.restart(bad[0]);
    cluster.run(30);
    assert_eq!((divergence(&cluster, leader), divergence(&cluster, bad[0])), (None, None));
    assert_replaced(&mut cluster, bad[1], None);
}

/// Two of three disagree, and the third is down: no majority, and it is said.
#[test]
fn rule_2_a_difference_without_a_majority_is_told_though_a_voter_is_down() {
    let (mut cluster, leader) = cluster(3);
    let others = followers(&cluster, leader);
    cluster.kill(others[1]);
    cluster.node(others[0]).namespace.corrupt_clock();
    write_some(&mut cluster, leader);
    cluster.run(25);
    let told = divergence(&cluster, leader);
    assert!(matches!(told, Some(Divergence::Unresolved { .. })), "{told:?}");
    assert_eq!(quarantined(&cluster), []);
    // With the third there is a majority.
    cluster.start(others[1]);
    cluster.run(5);
    write_some(&mut cluster, leader);
    cluster.run(40);
    assert_replaced(&mut cluster, others[0], None);
    assert_eq!(divergence(&cluster, leader), None);
}

#[test]
fn rule_2_reports_that_are_lost_are_asked_for() {
    let (mut cluster, leader) = cluster(3);
    let bad = followers(&cluster, leader)[0];
    cluster.node(bad).namespace.corrupt_clock();
    let mut lost = 0;
    cluster.lose = Box::new(move |frame| {
        let report = matches!(frame.body, Body::DigestReport(_)) && frame.to == bad;
        lost += usize::from(report);
        report && lost <= 6
    });
    for _ in 0..FEW {
        cluster.write(leader, set("/b")).expect("written");
    }
    assert_eq!(quarantined(&cluster), [], "it has heard nothing");
    cluster.run(60);
    assert_replaced(&mut cluster, bad, None);
    // All are asked for a bounded number of times.
    cluster.lose = Box::new(|frame| matches!(frame.body, Body::DigestReport(_)));
    write_some(&mut cluster, leader);
    cluster.run(400);
    cluster.record = true;
    cluster.sent.clear();
    cluster.run(100);
    let sent = cluster.sent.iter().map(|it| Frame::decode(it, usize::MAX).expect("ours"));
    assert_eq!(sent.filter(|it| matches!(it.body, Body::DigestAsk { .. })).count(), 0);
}

#[test]
fn rule_2_who_passes_by_a_snapshot_skips() {
    let limits = Limits { log_tail_bytes_max: 2_000, ..Limits::default() };
    let (mut cluster, leader) = with_limits(3, limits);
    let other = followers(&cluster, leader)[0];
    cluster.kill(other);
    for _ in 0..20 {
        write_some(&mut cluster, leader);
    }
    cluster.start(other);
    cluster.run(40);
    assert!(cluster.nodes[&other].snapshot_index > 100, "it came by a snapshot");
    assert!(cluster.nodes.values().all(|node| node.status().divergence.is_none()));
    // What was asked for before it, and comes late, finds nothing to compare.
    let node = cluster.node(other);
    let asked = DigestReport { index: 20, version: 1, digest: 7 };
    node.compare_states(asked);
    for from in [id(1), id(2), id(3)].into_iter().filter(|&it| it != other) {
        node.digests.take_report(from, 20, 7);
    }
    node.compare_digests();
    assert!(!node.is_quarantined());
    write_some(&mut cluster, leader);
    cluster.assert_agreement();
}

#[test]
fn rule_2_two_of_five_that_are_bad_differently() {
    let (mut cluster, leader) = cluster(5);
    let bad = followers(&cluster, leader)[..2].to_vec();
    hold_states(&mut cluster);
    flip(&mut cluster, bad[0], b"y");
    flip(&mut cluster, bad[1], b"z");
    cluster.write(leader, set("/a")).expect("written");
    let first_bad = cluster.nodes[&leader].namespace.zxid();
    write_some(&mut cluster, leader);
    assert_eq!(quarantined(&cluster), bad);
    write_some(&mut cluster, leader);
    cluster.lose = Box::new(|_| false);
    cluster.run(40);
    for member in bad {
        assert_replaced(&mut cluster, member, Some(first_bad));
    }
}

/// The state that a peer gives away is believed only if most voters have it.
#[test]
fn rule_2_a_bad_state_is_not_replaced_by_another_bad_one() {
    let (mut cluster, leader) = cluster(5);
    let [bad, peer, ..] = followers(&cluster, leader)[..] else {
        panic!("four followers");
    };
    hold_states(&mut cluster);
    cluster.node(bad).namespace.corrupt_clock();
    write_some(&mut cluster, leader);
    assert_eq!(quarantined(&cluster), [bad]);
    // One alone gives its state away; it goes bad, too, and nobody has noticed yet.
    cluster.node(peer).namespace.corrupt_clock();
    cluster.lose =
        Box::new(move |frame| matches!(frame.body, Body::StateAsk { .. }) && frame.to != peer);
    cluster.record = true;
    cluster.run(100);
    let sent = cluster.sent.iter().map(|it| Frame::decode(it, usize::MAX).expect("ours"));
    let chunks = sent.filter(|it| it.to == bad && matches!(it.body, Body::SnapshotChunk(_)));
    assert!(chunks.count() > 1, "its state came");
    assert_eq!(quarantined(&cluster), [bad], "and was refused");
    cluster.lose = Box::new(|_| false);
    cluster.run(60);
    write_some(&mut cluster, leader);
    cluster.run(60);
    assert_replaced(&mut cluster, bad, None);
    assert_replaced(&mut cluster, peer, None);
}

#[test]
fn rule_2_whatever_is_flipped_is_found() {
    let limits = Limits { history_count_max: 8, ..Limits::default() };
    for part in ["reply", "clock", "history"] {
        let (mut cluster, leader) = with_limits(3, limits.clone());
        let bad = followers(&cluster, leader)[0];
        let session = cluster.open_session(leader, 7, Duration::from_secs(60)).session;
        for seq in 1..=2 {
            cluster.submit_seq(leader, session, seq, set("/a")).expect("taken");
            cluster.settle();
        }
        let namespace = &mut cluster.node(bad).namespace;
        match part {
            "reply" => namespace.corrupt_reply(session),
            "clock" => namespace.corrupt_clock(),
            _ => namespace.corrupt_history(),
        }
        // The reply is acknowledged, and the change leaves the history.
        let (seq, txn) = (Seq { session, epoch: 1, seq: 3, acked: 2 }, set("/a"));
        cluster.submit(leader, Request::SessionTxn { seq, txn });
        cluster.settle();
        for _ in 0..4 {
            write_some(&mut cluster, leader);
        }
        cluster.run(30);
        assert_replaced(&mut cluster, bad, None);
    }
}

#[test]
fn rule_2_a_learner_compares_and_does_not_vote() {
    let (mut cluster, leader) = cluster(2);
    cluster.join(3);
    cluster.submit(leader, Request::AddLearner(id(3)));
    cluster.run(10);
    let other = followers(&cluster, leader)[0];
    // Against the learner there is a majority of voters.
    cluster.node(id(3)).namespace.corrupt_clock();
    write_some(&mut cluster, leader);
    cluster.run(30);
    assert_replaced(&mut cluster, id(3), None);
    // With the learner there would be one against this voter.
    cluster.node(other).namespace.corrupt_clock();
    write_some(&mut cluster, leader);
    cluster.run(30);
    assert_eq!(quarantined(&cluster), []);
    let told = divergence(&cluster, id(3));
    assert!(matches!(told, Some(Divergence::Unresolved { .. })), "{told:?}");
}

#[test]
fn rule_2_a_restart_does_not_end_a_quarantine() {
    let (mut cluster, leader) = cluster(3);
    let bad = followers(&cluster, leader)[0];
    hold_states(&mut cluster);
    // The snapshot on its disk is of the bad state.
    flip(&mut cluster, bad, b"y");
    cluster.write(leader, set("/a")).expect("written");
    cluster.node(bad).log_bytes = 1 << 40;
    cluster.run(1);
    cluster.node(bad).log_bytes = 0;
    write_some(&mut cluster, leader);
    assert_eq!(quarantined(&cluster), [bad]);
    cluster.restart(bad);
    cluster.run(15);
    assert_eq!(quarantined(&cluster), [bad], "its disk says so");
    write_some(&mut cluster, leader);
    cluster.lose = Box::new(|_| false);
    cluster.run(40);
    assert_replaced(&mut cluster, bad, None);
    // What it opens next is the good state.
    cluster.restart(bad);
    assert_eq!(quarantined(&cluster), []);
    cluster.run(15);
    write_some(&mut cluster, leader);
    cluster.run(15);
    assert!(cluster.nodes.values().all(|node| node.status().divergence.is_none()));
    cluster.assert_agreement();
}

/// A state that is ahead of the log is not applied to again, and answers what waited.
#[test]
fn rule_2_what_waited_is_answered_from_the_state_that_came() {
    let (mut cluster, leader) = cluster(3);
    let bad = followers(&cluster, leader)[0];
    let session = cluster.open_session(bad, 7, Duration::from_secs(60)).session;
    cluster.lose = Box::new(move |frame| {
        // Its appends are lost for a while, so its log stays behind.
        matches!(frame.body, Body::StateOffer { .. })
            || (matches!(frame.body, Body::Raft(_)) && frame.to == bad)
    });
    let ticket = cluster.submit_seq(bad, session, 1, create("/once")).expect("taken");
    cluster.settle();
    write_some(&mut cluster, leader);
    let index = cluster.nodes[&bad].applied;
    cluster.node(bad).quarantine = Some(Quarantine::reopened(index));
    cluster.lose = Box::new(move |frame| matches!(frame.body, Body::Raft(_)) && frame.to == bad);
    cluster.run(25);
    assert!(!cluster.nodes[&bad].is_quarantined());
    assert!(cluster.nodes[&bad].applied > cluster.nodes[&bad].consensus.applied_index());
    assert!(cluster.reply(bad, ticket).is_ok(), "answered from the session table");
    cluster.lose = Box::new(|_| false);
    cluster.run(25);
    let leader = cluster.elect();
    cluster.join(4);
    cluster.submit(leader, Request::AddLearner(id(4)));
    cluster.run(25);
    cluster.assert_agreement();
}

#[test]
fn rule_2_an_idle_cluster_writes_nothing() {
    let (mut cluster, leader) = cluster(3);
    cluster.run(250);
    let last = cluster.nodes[&leader].status().last_index;
    cluster.record = true;
    cluster.sent.clear();
    cluster.run(2_000);
    assert_eq!(cluster.nodes[&leader].status().last_index, last);
    let sent = cluster.sent.iter().map(|it| Frame::decode(it, usize::MAX).expect("ours"));
    assert!(sent.into_iter().all(|it| matches!(it.body, Body::Raft(_) | Body::Hello(_))));
    // One change is compared, in time, and then it is quiet again.
    cluster.write(leader, set("/a")).expect("written");
    cluster.run(2_000);
    assert_eq!(cluster.nodes[&leader].status().last_index, last + 2);
}
