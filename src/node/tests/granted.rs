//! ARCHITECTURE.md, rules 3, 4 and 10, of leases beside a session's own; and how many entries it
//! takes to keep many alive, and to end them.

use super::*;
use crate::{
    LeaseId, LeaseStat,
    command::{Batch, Entry, KeepAlive},
    wire::Body,
};

const TTL: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(3_600);

fn follower(cluster: &Cluster) -> NodeId {
    let leader = cluster.leader().expect("elected");
    (1..=3).map(id).find(|&it| it != leader).expect("a follower")
}

fn grant(cluster: &mut Cluster, at: NodeId, session: SessionId, seq: u64) -> LeaseId {
    let txn = Op::Grant { ttl: TTL }.into();
    let ticket = cluster.submit_seq(at, session, seq, txn).expect("taken");
    cluster.settle();
    match cluster.reply(at, ticket) {
        Ok(Outcome::Granted { lease, ttl: TTL }) => lease,
        other => panic!("{other:?}"),
    }
}

fn keep_alive(cluster: &mut Cluster, at: NodeId, session: SessionId, epoch: u64, lease: LeaseId) {
    cluster.submit(at, Request::KeepLeaseAlive { session, epoch, lease });
}

fn renewals(cluster: &Cluster, at: NodeId) -> Vec<Duration> {
    let outputs = cluster.outputs[&at].iter();
    outputs
        .filter_map(|output| match output {
            Output::LeaseRenewed { until, .. } => Some(*until),
            _ => None,
        })
        .collect()
}

fn look(cluster: &mut Cluster, at: NodeId, session: SessionId, op: ReadOp) -> Output {
    let consistency = Consistency::Linearizable;
    let read = Read { caller: Caller::Session(session), op, consistency };
    let ticket = cluster.node(at).read(read).expect("taken");
    cluster.settle();
    cluster.answer(at, ticket).expect("answered").clone()
}

fn stat(cluster: &mut Cluster, at: NodeId, session: SessionId, lease: LeaseId) -> LeaseStat {
    match look(cluster, at, session, ReadOp::Lease(lease)) {
        Output::Read { result: Ok(ReadOutcome::Lease(stat)), .. } => stat,
        other => panic!("{other:?}"),
    }
}

fn lives(cluster: &Cluster, at: NodeId, lease: LeaseId) -> bool {
    cluster.nodes[&at].namespace.lease(lease).is_some()
}

#[test]
fn rule_3_a_leases_until_counts_from_the_keep_alive_that_was_committed() {
    let mut cluster = Cluster::elected(3);
    let at = follower(&cluster);
    let session = cluster.open_session(at, 1, LONG).session;
    let lease = grant(&mut cluster, at, session, 1);
    keep_alive(&mut cluster, at, session, 1, lease);
    let sent = cluster.now;
    cluster.settle();
    // Held by the leader for its next renewal; the newer one is lost on its way.
    cluster.run(4);
    keep_alive(&mut cluster, at, session, 1, lease);
    cluster.lose = Box::new(|frame| matches!(frame.body, Body::Forward(_)));
    cluster.run(10);
    let safe = TTL.mul_f64(0.99);
    assert_eq!(renewals(&cluster, at), [sent + safe]);
    let mut ended = None;
    for _ in 0..60 {
        cluster.run(1);
        if ended.is_none() && !lives(&cluster, at, lease) {
            ended = Some(cluster.now);
        }
    }
    assert!(ended.expect("expires") >= sent + safe);
    let told = Output::LeaseEnded { session, epoch: 1, lease };
    assert!(cluster.outputs[&at].contains(&told));
    assert_eq!(cluster.nodes[&at].status().sessions, 1, "its session lives on");
    // What has ended is refused at once, and so is what never was.
    let node = cluster.node(at);
    let gone = node.submit(Request::KeepLeaseAlive { session, epoch: 1, lease });
    assert_eq!(gone, Err(SubmitError::NoLease { session, lease }));
    let lease = session.lease();
    let own = node.submit(Request::KeepLeaseAlive { session, epoch: 1, lease });
    assert_eq!(own, Err(SubmitError::NoLease { session, lease }));
}

/// Random keep-alives, losses, kills and transfers: no lease ends before its TTL has passed since
/// its last acknowledged keep-alive was sent, and each one ends once they stop.
#[test]
fn rules_3_4_10_no_granted_lease_ends_early_and_each_ends() {
    for seed in 1..25u64 {
        let mut state = seed;
        let mut draw = move |n: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % n
        };
        let mut cluster = Cluster::elected(3);
        let at = follower(&cluster);
        let session = cluster.open_session(at, 1, LONG).session;
        let lease = grant(&mut cluster, at, session, 1);
        let mut until = Duration::ZERO;
        let mut lost = draw(4);
        cluster.lose = Box::new(move |_| {
            lost = lost.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            lost >> 61 == 0
        });
        let quiet_from = 60 + draw(100);
        let mut lived = true;
        for tick in 0..400 {
            let here = lived && lives(&cluster, at, lease);
            if here && tick < quiet_from && draw(6) == 0 {
                keep_alive(&mut cluster, at, session, 1, lease);
            }
            if tick < quiet_from && draw(25) == 0 {
                let leader = cluster.nodes.values().find(|node| node.is_leader());
                match leader.map(|node| node.config.id) {
                    Some(leader) if leader != at && draw(2) == 0 => cluster.restart(leader),
                    Some(leader) => {
                        let to = id(1 + draw(3));
                        let _ = cluster.node(leader).transfer_leader(to);
                    }
                    None => {}
                }
            }
            cluster.run(1);
            until = renewals(&cluster, at).into_iter().fold(until, Duration::max);
            if lived && !lives(&cluster, at, lease) {
                lived = false;
                assert!(cluster.now >= until, "seed {seed}: {:?} before {until:?}", cluster.now);
            }
        }
        assert!(!lived, "seed {seed}: it ends once nobody keeps it alive");
        assert!(cluster.nodes[&at].namespace.session(session).is_some());
        cluster.lose = Box::new(|_| false);
        cluster.run(20);
        cluster.assert_agreement();
    }
}

/// A keep-alive that the old leader has not put into the log goes to the new one at once, and what
/// is left is what was left.
#[test]
fn rule_10_a_new_leader_goes_on_with_what_is_left_of_a_lease() {
    let mut cluster = Cluster::elected(3);
    let old = cluster.leader().expect("elected");
    let at = follower(&cluster);
    let session = cluster.open_session(at, 1, LONG).session;
    let (lease, other) = (grant(&mut cluster, at, session, 1), grant(&mut cluster, at, session, 2));
    cluster.run(30);
    let left = stat(&mut cluster, at, session, other).remaining;
    assert!(left < Duration::from_millis(1_100), "{left:?}");
    keep_alive(&mut cluster, at, session, 1, lease);
    let sent = cluster.now;
    cluster.settle();
    assert_eq!(renewals(&cluster, at), [], "it is held, and not in the log");
    let new = (1..=3).map(id).find(|&it| it != old && it != at).expect("a third");
    cluster.node(old).transfer_leader(new).expect("a voter");
    cluster.settle();
    assert_eq!(cluster.leader(), Some(new));
    let now = stat(&mut cluster, at, session, other).remaining;
    assert!(now <= left, "nothing is armed anew: {now:?} of {left:?}");
    cluster.run(25);
    assert_eq!(renewals(&cluster, at), [sent + TTL.mul_f64(0.99)]);
    cluster.run(12);
    assert!(lives(&cluster, at, lease) && !lives(&cluster, at, other));
}

#[test]
fn a_lease_outlives_a_move_of_its_session_and_ends_with_it() {
    let mut cluster = Cluster::elected(3);
    let (at, leader) = (follower(&cluster), cluster.leader().expect("elected"));
    let session = cluster.open_session(at, 1, TTL).session;
    let lease = grant(&mut cluster, at, session, 1);
    let txn = create_as("/mine", CreateMode::Leased(lease));
    cluster.submit_seq(at, session, 2, txn).expect("taken");
    keep_alive(&mut cluster, at, session, 1, lease);
    cluster.run(12);
    let secret = Secret::from_bytes([1; 16]);
    cluster.submit(leader, attach(session, secret, 5));
    cluster.run(1);
    let node = cluster.node(at);
    let moved = node.submit(Request::KeepLeaseAlive { session, epoch: 1, lease });
    assert_eq!(moved, Err(SubmitError::NotAttached { session, epoch: 1 }));
    for _ in 0..12 {
        cluster.run(8);
        keep_alive(&mut cluster, leader, session, 5, lease);
        cluster.submit(leader, Request::KeepAlive { session, epoch: 5, acked: 0 });
    }
    assert!(renewals(&cluster, leader).len() > 5);
    assert!(cluster.exists(at, "/mine"));
    let stat = stat(&mut cluster, leader, session, lease);
    assert_eq!((stat.session, stat.nodes, stat.ttl), (session, 1, TTL));
    let owned = look(&mut cluster, leader, session, ReadOp::Owned { lease, after: None });
    let paths = vec!["/mine".parse().expect("valid")];
    let page = Ok(ReadOutcome::Owned(crate::Owned { paths, resume: None }));
    assert!(matches!(owned, Output::Read { result, .. } if result == page));
    // What is not the session's is none of its business.
    let other = cluster.open_session(leader, 2, LONG).session;
    let refused = look(&mut cluster, leader, other, ReadOp::Lease(lease));
    let no = Err(RequestError::Op(crate::OpError::NoLease { lease }));
    assert!(matches!(refused, Output::Read { result, .. } if result == no));
    // The session ends for want of keep-alives, whatever the lease gets.
    for _ in 0..12 {
        cluster.run(5);
        let _ = cluster.node(leader).submit(Request::KeepLeaseAlive { session, epoch: 5, lease });
    }
    assert!(cluster.nodes[&at].namespace.session(session).is_none());
    assert!(!lives(&cluster, at, lease) && !cluster.exists(at, "/mine"));
    cluster.assert_agreement();
}

/// Its expiry lies inside a snapshot, and never applies here.
#[test]
fn rule_8_a_lease_that_ended_before_an_installed_snapshot_is_told_of() {
    let mut cluster = super::snapshots::cluster();
    let (at, leader) = (follower(&cluster), cluster.leader().expect("elected"));
    let session = cluster.open_session(at, 1, LONG).session;
    let (ends, stays) = (grant(&mut cluster, at, session, 1), grant(&mut cluster, at, session, 2));
    keep_alive(&mut cluster, at, session, 1, ends);
    cluster.run(12);
    cluster.outputs.get_mut(&at).expect("runs").clear();
    cluster.lose = Box::new(move |frame| frame.to == at);
    for _ in 0..8 {
        // Whoever holds the other one comes to the leader in another way.
        cluster.run(8);
        let number = 1_000 + cluster.nodes[&leader].applied;
        let (lease, epoch, acked) = (Some(stays), 1, 0);
        let renewal = KeepAlive { session, lease, epoch, number, acked };
        cluster.node(leader).leadership.as_mut().expect("leads").hold(renewal);
    }
    super::snapshots::fill(&mut cluster, leader, "more", 100);
    assert!(!lives(&cluster, leader, ends) && lives(&cluster, leader, stays));
    assert!(lives(&cluster, at, ends), "it has heard nothing");
    cluster.lose = Box::new(|_| false);
    cluster.run(30);
    assert!(cluster.exists(at, "/more-99") && !lives(&cluster, at, ends));
    let told: Vec<_> =
        cluster.outputs[&at].iter().filter(|it| matches!(it, Output::LeaseEnded { .. })).collect();
    assert_eq!(told, [&Output::LeaseEnded { session, epoch: 1, lease: ends }]);
}

#[test]
fn a_revoked_lease_is_told_of_before_its_reply() {
    let mut cluster = Cluster::elected(3);
    let at = follower(&cluster);
    let session = cluster.open_session(at, 1, LONG).session;
    let (lease, other) = (grant(&mut cluster, at, session, 1), grant(&mut cluster, at, session, 2));
    keep_alive(&mut cluster, at, session, 1, lease);
    let txn = Txn::all([Op::Revoke { lease }, Op::Revoke { lease: other }]);
    let ticket = cluster.submit_seq(at, session, 3, txn).expect("taken");
    cluster.outputs.get_mut(&at).expect("runs").clear();
    cluster.run(12);
    let outputs = &cluster.outputs[&at];
    let ended = |lease| Output::LeaseEnded { session, epoch: 1, lease };
    assert_eq!(outputs[..2], [ended(lease), ended(other)]);
    assert!(matches!(outputs[2], Output::Reply { ticket: it, .. } if it == ticket));
    assert_eq!(renewals(&cluster, at), [], "nothing is promised any more");
    assert_eq!(cluster.nodes[&at].status().sessions, 1);
}

/// Ten thousand sessions with a timeout of ten seconds: at most two entries a second.
#[test]
fn rule_10_keep_alives_of_ten_thousand_sessions_are_two_entries_a_second() {
    let mut cluster = Cluster::elected(3);
    let at = follower(&cluster);
    let ttl = Duration::from_secs(10);
    let open = |n: u64| open(Secret::from_bytes(u128::from(n).to_le_bytes()), ttl);
    let tickets: Vec<_> = (0..10_000).map(|n| cluster.submit(at, open(n))).collect();
    cluster.run(20);
    let mut sessions = Vec::new();
    for output in &cluster.outputs[&at] {
        if let Output::Session { result: Ok(it), .. } = output {
            sessions.push(it.session);
        }
    }
    assert_eq!(sessions.len(), tickets.len());
    let first = cluster.nodes[&at].status().last_index;
    cluster.outputs.get_mut(&at).expect("runs").clear();
    // Each asks every third of its timeout, as handles do: some of them in each tick.
    let (seconds, each) = (20, 3_333 / 50);
    for tick in 0..seconds * 20 {
        for session in sessions.iter().skip(tick % each).step_by(each) {
            let (session, epoch, acked) = (*session, 1, 0);
            cluster.submit(at, Request::KeepAlive { session, epoch, acked });
        }
        cluster.run(1);
    }
    let entries = cluster.nodes[&at].status().last_index - first;
    // And one that compares the members' states.
    assert!(entries <= 2 * seconds as u64 + 1, "{entries} in {seconds} s");
    let renewed = |it: &&Output| matches!(it, Output::Renewed { .. });
    let renewed = cluster.outputs[&at].iter().filter(renewed).count();
    assert!(renewed > 50_000, "{renewed}");
    assert_eq!(cluster.nodes[&at].status().sessions, 10_000, "and all of them live");
}

/// No lease, no session: nothing is written; with the last one the entries end.
#[test]
fn rule_10_an_idle_cluster_whose_leases_have_ended_writes_nothing() {
    let mut cluster = Cluster::elected(3);
    let at = follower(&cluster);
    let session = cluster.open_session(at, 1, TTL).session;
    grant(&mut cluster, at, session, 1);
    cluster.run(80);
    assert!(!cluster.nodes[&at].namespace.has_deadlines());
    // The last change is followed by one comparison of states.
    cluster.run(300);
    let (last, writes) = (cluster.nodes[&at].status().last_index, cluster.disks[&at].writes);
    cluster.run(200);
    assert_eq!(cluster.nodes[&at].status().last_index, last);
    assert_eq!(cluster.disks[&at].writes, writes);
}

/// All are due at once: in each renewal interval a few end, the earliest deadline first, and no
/// more than own the nodes of one session.
#[test]
fn rule_10_piled_up_expiries_are_spread() {
    let limits = Limits { expiries_max: 4, ephemerals_max: 6, ..Limits::default() };
    let mut cluster = Cluster::with_limits(3, limits);
    cluster.elect();
    let at = follower(&cluster);
    let mut sessions = Vec::new();
    for n in 1..=10 {
        let session = cluster.open_session(at, n, TTL).session;
        sessions.push(session);
        for node in 1..=if n <= 2 { 5 } else { 0 } {
            let txn = create_as(&format!("/n{n}-{node}"), CreateMode::Ephemeral);
            cluster.submit_seq(at, session, node, txn).expect("taken");
        }
    }
    cluster.settle();
    let last = cluster.disks[&at].entries.last().expect("some").index;
    cluster.run(100);
    assert_eq!(cluster.nodes[&at].status().sessions, 0);
    let mut spread = Vec::new();
    let mut ended = Vec::new();
    for entry in cluster.disks[&at].entries.iter().filter(|it| it.index > last) {
        let mut commands = match Entry::decode(entry.data.clone()) {
            Ok(entry) => entry.commands,
            Err(_) => continue,
        };
        let before = ended.len();
        while let Some(Ok(command)) = Batch::next_command(&mut commands) {
            if let Command::Expire { lease } = command {
                ended.push(lease);
            }
        }
        spread.extend((ended.len() > before).then_some(ended.len() - before));
    }
    assert_eq!(spread, [1, 4, 4, 1], "two with five nodes, and four at a time");
    let expected: Vec<_> = sessions.iter().map(|it| it.lease()).collect();
    assert_eq!(ended, expected);
}
