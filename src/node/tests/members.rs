//! Elections, failover, and changes of the membership.

use super::*;

#[test]
fn three_founders_elect_one_leader_and_every_member_takes_writes() {
    let mut cluster = Cluster::elected(3);
    for member in 1..=3 {
        let path = format!("/from-{member}");
        assert!(matches!(cluster.write(id(member), create(&path)), Ok(Outcome::Created { .. })));
        assert!(cluster.exists(id(member), &path), "the origin reads its own write");
    }
    cluster.run(3);
    cluster.assert_agreement();
}

#[test]
fn a_single_member_is_a_cluster() {
    let mut cluster = Cluster::elected(1);
    assert!(cluster.write(id(1), create("/a")).is_ok());
    cluster.restart(id(1));
    cluster.elect();
    assert!(cluster.exists(id(1), "/a"));
}

#[test]
fn nothing_acknowledged_is_lost_when_the_leader_dies() {
    let mut cluster = Cluster::elected(3);
    let mut acknowledged = Vec::new();
    for round in 0..12 {
        let leader = cluster.elect();
        let at = id(1 + round % 3);
        for n in 0..5 {
            let path = format!("/r{round}-{n}");
            if cluster.nodes.contains_key(&at) && cluster.write(at, create(&path)).is_ok() {
                acknowledged.push(path);
            }
        }
        cluster.kill(leader);
        let next = cluster.elect();
        assert_ne!(leader, next);
        cluster.start(leader);
        cluster.run(5);
        for member in 1..=3 {
            for path in &acknowledged {
                assert!(cluster.exists(id(member), path), "{path} at {member}");
            }
        }
    }
    assert!(acknowledged.len() >= 50, "most rounds write: {}", acknowledged.len());
    cluster.assert_agreement();
}

#[test]
fn a_lost_member_is_replaced_by_a_learner_that_is_promoted() {
    let mut cluster = Cluster::elected(3);
    let leader = cluster.leader().expect("elected");
    for n in 0..20 {
        cluster.write(leader, create(&format!("/n{n}"))).expect("written");
    }
    let lost = (1..=3).map(id).find(|&it| it != leader).expect("a follower");
    cluster.kill(lost);
    cluster.join(4);
    assert_eq!(cluster.nodes[&id(4)].status().waiting, Some(Waiting::Admission));
    let added = cluster.submit(leader, Request::AddLearner(id(4)));
    cluster.run(30);
    assert!(matches!(cluster.answer(leader, added), Some(Output::Reply { result: Ok(None), .. })));
    assert_eq!(cluster.nodes[&id(4)].status().role, Role::Learner);
    // Whoever is down does not keep up, and only the leader knows.
    let synced = (1..=4).map(id).filter(|it| ![leader, lost].contains(it)).collect();
    assert_eq!(cluster.nodes[&leader].status().synced, synced);
    assert!(cluster.nodes[&id(4)].status().synced.is_empty());
    let state = |id| (cluster.nodes[&id].status().applied, cluster.nodes[&id].status().digest);
    assert_eq!(state(leader), state(id(4)));
    assert_ne!(state(leader).1, 0);
    assert!(cluster.exists(id(4), "/n19"), "{:?}", cluster.nodes[&id(4)].status());
    let promoted = cluster.submit(leader, Request::Promote(id(4)));
    cluster.run(3);
    assert!(matches!(
        cluster.answer(leader, promoted),
        Some(Output::Reply { result: Ok(None), .. })
    ));
    let removed = cluster.submit(leader, Request::Remove(lost));
    cluster.run(3);
    assert!(matches!(
        cluster.answer(leader, removed),
        Some(Output::Reply { result: Ok(None), .. })
    ));
    let again = cluster.node(leader).submit(Request::AddLearner(lost));
    assert_eq!(again, Err(SubmitError::Membership(MembershipError::IdReused(lost))));
    cluster.start(lost);
    cluster.run(30);
    assert_eq!(cluster.nodes[&lost].ended(), Some(&Ended::Removed { id: lost }));
    cluster.kill(lost);
    cluster.write(id(4), create("/by-the-new-one")).expect("written");
    cluster.run(2);
    cluster.assert_agreement();
    // The new member's vote counts: the two others cannot elect without it.
    cluster.kill(leader);
    cluster.elect();
}

/// Found by seed 68 of the swarm with members that come and go: a member that was down while
/// another one joined and became the leader refused that leader as a stranger, and nobody else
/// sends it the entries that would have told it. Those who know both introduce them now.
#[test]
fn a_member_that_was_away_follows_a_leader_that_joined_meanwhile() {
    for restarted in [true, false] {
        let mut cluster = Cluster::elected(3);
        let leader = cluster.leader().expect("elected");
        let away = (1..=3).map(id).find(|&it| it != leader).expect("a follower");
        cluster.run(3);
        if restarted {
            cluster.kill(away);
        } else {
            cluster.lose = Box::new(move |frame| frame.from == away || frame.to == away);
        }
        cluster.join(4);
        cluster.submit(leader, Request::AddLearner(id(4)));
        cluster.run(10);
        cluster.submit(leader, Request::Promote(id(4)));
        cluster.run(10);
        cluster.node(leader).transfer_leader(id(4)).expect("it can lead");
        cluster.run(20);
        assert_eq!(cluster.leader(), Some(id(4)));
        if restarted {
            cluster.start(away);
        }
        cluster.lose = Box::new(|_| false);
        cluster.run(60);
        let status = cluster.nodes[&away].status();
        assert_eq!(status.leader, Some(id(4)), "restarted: {restarted}, {status:?}");
        cluster.assert_agreement();
    }
}

/// Instances come and go, each under a new id: what a member remembers of them does not grow.
#[test]
fn rule_1_pins_go_with_the_members_that_were_removed() {
    let mut cluster = Cluster::elected(3);
    let leader = cluster.leader().expect("elected");
    for member in 4..=75 {
        cluster.join(member);
        cluster.submit(leader, Request::AddLearner(id(member)));
        cluster.run(12);
        assert_eq!(cluster.nodes[&id(member)].status().role, Role::Learner, "{member}");
        cluster.submit(leader, Request::Remove(id(member)));
        cluster.run(1);
        cluster.kill(id(member));
    }
    for member in (1..=3).map(id) {
        assert_eq!(cluster.nodes[&member].identity.greeting(false).pins.len(), 3);
        cluster.restart(member);
        cluster.run(3);
    }
    cluster.elect();
    cluster.write(id(1), create("/a")).expect("written");
    // A member that learns of the removals from a snapshot.
    cluster.join(76);
    cluster.submit(cluster.leader().expect("elected"), Request::AddLearner(id(76)));
    cluster.run(12);
    cluster.assert_agreement();
}

/// It would keep time, and take entries, by other rules than those that keep it alive.
#[test]
fn rule_4_a_joiner_with_other_intervals_or_limits_ends_before_it_takes_part() {
    let mut cluster = Cluster::elected(3);
    let leader = cluster.leader().expect("elected");
    let own = cluster.limits.payload_bytes_max;
    cluster.limits.payload_bytes_max = 1_000;
    cluster.join(4);
    cluster.limits.payload_bytes_max = own;
    let restored = Disk::new(5).open();
    cluster.disks.insert(id(5), Disk::new(5));
    cluster.outputs.insert(id(5), Vec::new());
    let slow = Config::joining(ClusterId::named("test"), id(5));
    let slow = slow.tick_interval(Duration::from_millis(200)).build().expect("valid");
    cluster.nodes.insert(id(5), Node::open(slow, restored).expect("opens"));
    for (member, setting, theirs, mine) in [
        (id(4), "payload bytes", 1_048_575, 1_000),
        (id(5), "tick interval in us", 50_000, 200_000),
    ] {
        cluster.submit(leader, Request::AddLearner(member));
        cluster.run(12);
        let other = OtherParameters { setting, cluster: theirs, own: mine };
        let ended = Ended::OtherParameters(other);
        assert_eq!(cluster.nodes[&member].ended(), Some(&ended));
        assert!(cluster.disks[&member].snapshot.is_none(), "nothing was installed");
    }
    // With those of the cluster the same store joins, and is not opened with others any more.
    cluster.restart(id(4));
    cluster.run(400);
    assert!(cluster.disks[&id(4)].snapshot.is_some());
    cluster.kill(id(4));
    cluster.limits.payload_bytes_max = 1_000;
    let restored = cluster.disks.get_mut(&id(4)).expect("a disk").open();
    let refused = Node::open(cluster.config(id(4)), restored).map(|_| ());
    let setting = "payload bytes";
    let other = OtherParameters { setting, cluster: 1_048_575, own: 1_000 };
    assert_eq!(refused, Err(OpenError::OtherParameters(other)));
}

#[test]
fn a_change_that_is_not_possible_when_its_turn_comes_is_answered() {
    use prost::Message as _;
    let mut cluster = Cluster::elected(3);
    let leader = cluster.leader().expect("elected");
    let context = Bytes::from_static(b"ours");
    let node = cluster.node(leader);
    let ticket = Ticket(99);
    let change = MembershipChange::Remove(id(9));
    node.change = Some(PendingChange { ticket, change, context: context.clone(), tick: 0 });
    let record = crate::proto::ChangeMember { id: 0, change_type: 1, node_id: 9, context };
    let data = record.encode_to_vec().into();
    let (index, term) = (node.applied + 1, node.consensus.term());
    node.apply_change(&LogEntry::new(index, term, crate::EntryKind::Membership, data));
    let result = Err(RequestError::Membership(MembershipError::NotAMember(id(9))));
    let zxid = node.namespace.zxid();
    assert_eq!(node.outputs, [Output::Reply { ticket, zxid, result }]);
    assert!(node.change.is_none(), "the next change need not wait");
}

#[test]
fn the_leadership_is_transferred() {
    let mut cluster = Cluster::elected(3);
    let leader = cluster.leader().expect("elected");
    let to = (1..=3).map(id).find(|&it| it != leader).expect("a follower");
    cluster.node(leader).transfer_leader(leader).expect("it leads already");
    cluster.run(2);
    assert_eq!(cluster.leader(), Some(leader));
    cluster.node(leader).transfer_leader(to).expect("a voter");
    cluster.run(2);
    assert_eq!(cluster.leader(), Some(to));
    assert!(matches!(
        cluster.node(leader).transfer_leader(leader),
        Err(SubmitError::NotLeader { leader: Some(it) }) if it == to
    ));
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let run = || {
        let mut cluster = Cluster::new(3);
        cluster.record = true;
        let mut count = 0u64;
        cluster.lose = Box::new(move |_| {
            count += 1;
            count.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60 == 0
        });
        for round in 0..300 {
            cluster.run(1);
            if round % 10 == 5 {
                let at = id(1 + round % 3);
                let txn = create(&format!("/{round}"));
                cluster.submit(at, plain(txn));
            }
            if round == 150 {
                let leader = cluster.nodes.values().find(|node| node.is_leader());
                if let Some(leader) = leader.map(|node| node.config.id) {
                    cluster.restart(leader);
                }
            }
        }
        cluster.sent
    };
    let (first, second) = (run(), run());
    assert!(first.len() > 500, "{}", first.len());
    assert!(first == second, "every byte that was sent is the same");
}

#[test]
fn a_member_takes_what_others_send_whatever_its_own_limits_are() {
    let limits = Limits { payload_bytes_max: 1_000, ..Limits::default() };
    let mut cluster = Cluster::with_limits(3, limits.clone());
    let leader = cluster.elect();
    let at = (1..=3).map(id).find(|&it| it != leader).expect("a follower");
    cluster.limits = Limits { message_bytes_max: 1 << 10, entry_bytes_max: 1 << 10, ..limits };
    cluster.restart(at);
    cluster.run(5);
    // One entry of half a megabyte, in one message.
    for n in 0..600 {
        let path = crate::Path::sequential_prefix(&format!("/n{n}")).expect("valid");
        let data = Bytes::from(vec![7; 900]);
        let txn = Op::Create { path, data, mode: CreateMode::Persistent, acl: None }.into();
        cluster.submit(leader, plain(txn));
    }
    cluster.run(20);
    assert!(cluster.exists(at, "/n599"), "{:?}", cluster.nodes[&at].status());
    assert_eq!(cluster.nodes[&at].status().refused_frames, 0);
    cluster.assert_agreement();
}
