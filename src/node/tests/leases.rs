//! ARCHITECTURE.md, rules 3, 4 and 10: which keep-alive was acknowledged, and replicated time.

use super::*;
use crate::{LeaseId, wire::Body};

const TTL: Duration = Duration::from_secs(2);

fn renewals(cluster: &Cluster, at: NodeId) -> Vec<Duration> {
    let outputs = cluster.outputs[&at].iter();
    outputs
        .filter_map(|output| match output {
            Output::Renewed { until, .. } => Some(*until),
            _ => None,
        })
        .collect()
}

fn keep_alive(cluster: &mut Cluster, at: NodeId, session: SessionId) {
    cluster.submit(at, Request::KeepAlive { session, epoch: 1, acked: 0 });
}

fn follower(cluster: &Cluster) -> NodeId {
    let leader = cluster.leader().expect("elected");
    (1..=3).map(id).find(|&it| it != leader).expect("a follower")
}

/// A dropped keep-alive is not the one that was acknowledged: `until` names the older one.
#[test]
fn rule_3_until_counts_from_the_keep_alive_that_was_committed() {
    let mut cluster = Cluster::elected(3);
    let at = follower(&cluster);
    let session = cluster.open_session(at, 1, TTL).session;
    keep_alive(&mut cluster, at, session);
    let sent = cluster.now;
    cluster.settle();
    // Held by the leader for its next renewal; the newer one is lost on its way.
    cluster.run(4);
    keep_alive(&mut cluster, at, session);
    cluster.lose = Box::new(|frame| matches!(frame.body, Body::Forward(_)));
    cluster.run(10);
    let safe = TTL.mul_f64(0.99);
    assert_eq!(renewals(&cluster, at), [sent + safe]);
    // The session ends on the cluster, and not before that moment.
    let mut ended = None;
    for _ in 0..60 {
        cluster.run(1);
        if ended.is_none() && cluster.nodes[&at].status().sessions == 0 {
            ended = Some(cluster.now);
        }
    }
    assert!(ended.expect("expires") >= sent + safe);
}

/// Random keep-alives, losses, kills and transfers: no session ends before its TTL has passed
/// since the last acknowledged keep-alive was sent, and each one ends once they stop.
#[test]
fn rules_3_4_10_no_lease_ends_early_and_each_ends() {
    for seed in 1..40u64 {
        let mut state = seed;
        let mut draw = move |n: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % n
        };
        let mut cluster = Cluster::elected(3);
        let at = follower(&cluster);
        let opened = cluster.open_session(at, 1, TTL);
        let (session, mut until) = (opened.session, opened.until);
        let mut lost = draw(4);
        cluster.lose = Box::new(move |_| {
            lost = lost.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            lost >> 61 == 0
        });
        let quiet_from = 60 + draw(100);
        let mut lived = true;
        for tick in 0..600 {
            if lived && tick < quiet_from && draw(6) == 0 {
                keep_alive(&mut cluster, at, session);
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
            let gone = cluster.nodes.values().any(|node| node.status().sessions == 0);
            // Of a restarted node, the state is replayed: only what was committed counts.
            let gone = gone && cluster.nodes[&at].status().sessions == 0;
            if lived && gone {
                lived = false;
                assert!(cluster.now >= until, "seed {seed}: {:?} before {until:?}", cluster.now);
            }
        }
        assert!(!lived, "seed {seed}: it ends once nobody keeps it alive");
        cluster.lose = Box::new(|_| false);
        cluster.run(20);
        cluster.assert_agreement();
    }
}

/// A renewal of very many sessions goes into entries that every follower takes.
#[test]
fn rule_10_keep_alives_of_any_number_fit_into_frames() {
    let mut cluster = Cluster::elected(3);
    let leader = cluster.leader().expect("elected");
    let at = follower(&cluster);
    let session = cluster.open_session(at, 1, Duration::from_secs(60)).session;
    let before = cluster.nodes[&at].namespace.clock_us();
    for n in 0..200_000 {
        let held = crate::command::KeepAlive {
            session: SessionId::new((1 << 55) + n).expect("valid"),
            lease: Some(LeaseId::new((1 << 54) + n).expect("valid")),
            epoch: 1 << 40,
            number: 1 << 40,
            acked: 1 << 40,
        };
        cluster.node(leader).leadership.as_mut().expect("leads").hold(held);
    }
    cluster.run(12);
    assert!(cluster.nodes[&at].namespace.clock_us() > before, "the clock moves");
    cluster.write(at, create("/a")).expect("commits go on");
    let refused: Vec<u64> = cluster.nodes.values().map(|it| it.status().refused_frames).collect();
    assert_eq!(refused, [0, 0, 0]);
    assert!(cluster.nodes[&at].namespace.session(session).is_some());
}

/// What a follower forwards in one frame becomes entries of the leader's size.
#[test]
fn forwarded_commands_are_split_into_entries_that_fit() {
    let limits = Limits { entry_bytes_max: 1 << 10, ..Limits::default() };
    let mut cluster = Cluster::with_limits(3, limits);
    cluster.elect();
    let at = follower(&cluster);
    let session = cluster.open_session(at, 1, TTL).session;
    let tickets: Vec<Ticket> = (1..=300)
        .map(|n| cluster.submit_seq(at, session, n, create(&format!("/n{n}"))).expect("taken"))
        .collect();
    cluster.run(3);
    for ticket in tickets {
        assert!(cluster.reply(at, ticket).is_ok());
    }
    let longest = cluster.disks[&at].entries.iter().map(|entry| entry.data.len()).max();
    assert!(longest.is_some_and(|bytes| bytes < 1_100), "{longest:?}");
}

/// A renewal 1 ms before a tick, then a transfer: the new leader's first tick does not count.
#[test]
fn rule_4_a_leaders_first_tick_does_not_count() {
    let mut cluster = Cluster::elected(3);
    let leader = cluster.leader().expect("elected");
    let at = follower(&cluster);
    let session = cluster.open_session(at, 1, TTL).session;
    let clock = |cluster: &Cluster, member| cluster.nodes[&member].namespace.clock_us();
    keep_alive(&mut cluster, at, session);
    cluster.run(11);
    let before = clock(&cluster, leader);
    // Time that this leader has measured and not proposed is lost with it.
    cluster.node(leader).transfer_leader(at).expect("a voter");
    cluster.settle();
    assert_eq!(cluster.leader(), Some(at));
    cluster.run(1);
    cluster.write(at, create("/a")).expect("written");
    let after = clock(&cluster, at);
    assert!(after - before <= 11 * 50_000, "{}", after - before);
    let carried = after;
    cluster.write(at, create("/b")).expect("written");
    assert_eq!(clock(&cluster, at), carried, "no time has passed since the last entry");
    cluster.run(1);
    cluster.write(at, create("/c")).expect("written");
    assert_eq!(clock(&cluster, at), carried + 50_000, "its second tick counts");
}

/// A driver that was held up for an hour ticks once: one tick interval passes.
#[test]
fn rule_4_missed_ticks_are_not_made_up_for() {
    let mut cluster = Cluster::elected(1);
    let session = cluster.open_session(id(1), 1, TTL).session;
    cluster.run(20);
    let before = cluster.nodes[&id(1)].namespace.clock_us();
    cluster.now += Duration::from_secs(3_600);
    cluster.run(1);
    cluster.write(id(1), create("/a")).expect("written");
    assert!(cluster.nodes[&id(1)].namespace.clock_us() - before <= 11 * 50_000);
    assert!(cluster.nodes[&id(1)].namespace.session(session).is_some());
}

#[test]
fn rule_10_the_clock_moves_while_a_deadline_exists_and_an_idle_cluster_writes_nothing() {
    let mut cluster = Cluster::elected(3);
    cluster.run(20);
    let idle = cluster.disks[&id(1)].writes;
    let last = cluster.nodes[&id(1)].status().last_index;
    cluster.run(200);
    assert_eq!(cluster.nodes[&id(1)].status().last_index, last, "no deadline, no entry");
    assert_eq!(cluster.disks[&id(1)].writes, idle);
    let at = follower(&cluster);
    cluster.open_session(at, 1, Duration::from_secs(3_600));
    let last = cluster.nodes[&at].status().last_index;
    cluster.run(200);
    let entries = cluster.nodes[&at].status().last_index - last;
    // 200 ticks of 50 ms are 20 renewal intervals of 500 ms.
    assert!((18..=21).contains(&entries), "{entries}");
}

/// A lease with little left whose keep-alive the old leader has not put into the log: hands over
/// the leadership, and tells to whom and how much was left.
fn lost_keep_alive(cluster: &mut Cluster, at: NodeId, session: SessionId) -> (NodeId, Duration) {
    let old = cluster.leader().expect("elected");
    let new = (1..=3).map(id).find(|&it| it != old && it != at).expect("a third");
    let left_us = |cluster: &Cluster| {
        let node = &cluster.nodes[&old];
        let waiting = node.leadership.as_ref().expect("leads").waiting_us();
        let deadline_us = node.namespace.session(session).expect("lives").deadline_us;
        deadline_us - node.namespace.clock_us() - waiting
    };
    while left_us(cluster) > 100_000 {
        cluster.run(1);
        // So that the time that has passed is in the log, and not lost with its leader.
        let path = crate::Path::root();
        cluster
            .write(old, Op::Set { path, data: Bytes::new(), version: None }.into())
            .expect("set");
    }
    keep_alive(cluster, at, session);
    cluster.settle();
    let state = cluster.nodes[&old].namespace.session(session).expect("lives");
    assert_eq!(state.keep_alive, 0, "it is held, and not in the log");
    cluster.node(old).transfer_leader(new).expect("a voter");
    (new, cluster.now)
}

#[test]
fn rule_10_an_origin_sends_its_newest_keep_alives_to_a_new_leader() {
    let mut cluster = Cluster::elected(3);
    let at = follower(&cluster);
    let session = cluster.open_session(at, 1, TTL).session;
    let (new, sent) = lost_keep_alive(&mut cluster, at, session);
    cluster.settle();
    assert_eq!(cluster.leader(), Some(new));
    while cluster.now + TICK < sent + TTL.mul_f64(0.99) {
        cluster.run(1);
        assert!(cluster.nodes[&new].namespace.session(session).is_some(), "{:?}", cluster.now);
    }
    assert_eq!(renewals(&cluster, at), [sent + TTL.mul_f64(0.99)]);
    cluster.run(40);
    assert!(cluster.nodes[&new].namespace.session(session).is_none());
}

/// What the origin has sent to the new leader is lost, too, and its next ones come in time.
#[test]
fn rule_10_a_new_leader_expires_nothing_before_a_renewal_interval_after_its_first_commit() {
    let mut cluster = Cluster::elected(3);
    let at = follower(&cluster);
    let session = cluster.open_session(at, 1, TTL).session;
    let (new, _) = lost_keep_alive(&mut cluster, at, session);
    cluster.lose = Box::new(|frame| matches!(frame.body, Body::Forward(_)));
    cluster.settle();
    assert_eq!(cluster.leader(), Some(new));
    // Its own renewal is due once in this time, and the deadline has passed.
    cluster.run(12);
    let node = &cluster.nodes[&new];
    let deadline_us = node.namespace.session(session).expect("lives").deadline_us;
    assert!(node.namespace.clock_us() > deadline_us);
    cluster.lose = Box::new(|_| false);
    keep_alive(&mut cluster, at, session);
    cluster.run(12);
    assert!(cluster.nodes[&new].namespace.session(session).is_some());
    assert_eq!(renewals(&cluster, at).len(), 1);
}

/// The clock stands still while there is no leader, and the lease goes on with what is left.
#[test]
fn rule_10_a_lease_survives_an_outage_and_still_ends() {
    let mut cluster = Cluster::elected(3);
    let at = follower(&cluster);
    let session = cluster.open_session(at, 1, TTL).session;
    cluster.run(20);
    for member in 1..=3 {
        cluster.kill(id(member));
    }
    cluster.now += Duration::from_secs(3_600);
    for member in 1..=3 {
        cluster.start(id(member));
    }
    let leader = cluster.elect();
    cluster.run(5);
    assert!(cluster.nodes[&leader].namespace.session(session).is_some(), "an outage ends nothing");
    // What was left, the deadline's tick, the grace and the spread: it ends.
    cluster.run(80);
    assert!(cluster.nodes[&leader].namespace.session(session).is_none());
}

#[test]
fn ephemeral_nodes_end_with_their_session() {
    let mut cluster = Cluster::elected(3);
    let at = follower(&cluster);
    let session = cluster.open_session(at, 1, TTL).session;
    let txn = create_as("/mine", CreateMode::Ephemeral);
    cluster.submit_seq(at, session, 1, txn).expect("taken");
    cluster.run(2);
    assert!(cluster.exists(at, "/mine"));
    cluster.run(70);
    assert!(!cluster.exists(at, "/mine"));
    let ended = Output::Detached { session, epoch: 1, cause: Detach::Expired };
    assert!(cluster.outputs[&at].contains(&ended));
    let refused = cluster.submit_seq(at, session, 2, create("/late"));
    assert_eq!(refused, Err(SubmitError::NotAttached { session, epoch: 1 }));
}

/// The leader proposes what is due, a few in each renewal interval; the clock goes on for it.
#[test]
fn rule_10_containers_and_ttl_nodes_go_on_replicated_time() {
    let container_grace = Duration::from_secs(1);
    let limits = Limits { container_grace, reaps_max: 2, ..Limits::default() };
    let mut cluster = Cluster::with_limits(3, limits);
    let leader = cluster.elect();
    let at = follower(&cluster);
    for n in 0..5 {
        let mode = CreateMode::Ttl(Duration::from_secs(2));
        cluster.write(at, create_as(&format!("/t{n}"), mode)).expect("made");
    }
    cluster.write(at, create_as("/c", CreateMode::Container)).expect("made");
    cluster.write(at, create("/c/x")).expect("made");
    let delete = crate::Op::Delete { path: "/c/x".parse().expect("valid"), version: None };
    cluster.write(at, delete.into()).expect("deleted");
    let left = |cluster: &Cluster| (0..5).filter(|n| cluster.exists(at, &format!("/t{n}"))).count();
    cluster.run(19);
    assert!(cluster.exists(at, "/c") && left(&cluster) == 5, "nothing goes early");
    cluster.run(20);
    assert!(!cluster.exists(at, "/c"), "the grace, and an interval, are over");
    assert_eq!(left(&cluster), 5);
    // A new leader goes on with the time that is left.
    cluster.kill(leader);
    cluster.elect();
    let mut seen = vec![left(&cluster)];
    for _ in 0..100 {
        cluster.run(1);
        let now = left(&cluster);
        if Some(&now) != seen.last() {
            seen.push(now);
        }
    }
    assert_eq!(seen, [5, 3, 1, 0], "at most two an interval");
    let applied = cluster.nodes[&at].status().applied;
    cluster.run(50);
    assert_eq!(cluster.nodes[&at].status().applied, applied, "an idle cluster writes nothing");
}

#[test]
fn rule_4_a_leader_without_room_makes_no_entries_and_loses_no_ticks() {
    let limits =
        Limits { uncommitted_bytes_max: 4_096, entry_bytes_max: 1_024, ..Limits::default() };
    let mut cluster = Cluster::with_limits(3, limits);
    let leader = cluster.elect();
    cluster.lose = Box::new(|_| true);
    for n in 0..100 {
        let txn = create(&format!("/a-name-of-some-length-{n}"));
        cluster.submit(leader, plain(txn));
    }
    cluster.run(1);
    let waiting = |cluster: &Cluster| {
        let leadership = cluster.nodes[&leader].leadership.as_ref();
        u128::from(leadership.expect("it leads").waiting_us())
    };
    let before = waiting(&cluster);
    for _ in 0..3 {
        cluster.run(1);
    }
    assert_eq!(waiting(&cluster) - before, 3 * TICK.as_micros(), "nothing has carried them");
    cluster.lose = Box::new(|_| false);
    cluster.run(20);
    assert!(cluster.exists(leader, "/a-name-of-some-length-99"), "they were only held back");
    cluster.assert_agreement();
}
