//! ARCHITECTURE.md, rule 1: stores are pinned, and lost or exchanged ones are refused.

use super::*;
use crate::wire::{Body, Forward};

#[test]
fn rule_1_no_founder_takes_part_before_all_have_pinned_all() {
    let mut cluster = Cluster::new(3);
    // Member 3 hears nobody, so nobody sees that it has pinned the others.
    cluster.lose = Box::new(|frame| frame.to == id(3));
    cluster.run(100);
    for node in cluster.nodes.values() {
        assert_eq!(node.status().term, 1, "nobody campaigns: {:?}", node.status());
        assert!(matches!(node.status().waiting, Some(Waiting::Founders(_))));
    }
    cluster.lose = Box::new(|_| false);
    cluster.elect();
    cluster.run(5);
    for node in cluster.nodes.values() {
        assert_eq!(node.status().waiting, None);
        let members = node.status().members;
        assert!(members.values().all(|member| member.store.is_some()), "the log records them");
    }
}

#[test]
fn rule_1_the_first_committed_entry_records_the_stores() {
    let mut cluster = Cluster::elected(3);
    cluster.run(2);
    let entries = &cluster.disks[&id(1)].entries;
    let first = entries.iter().find(|entry| !entry.data.is_empty()).expect("an entry");
    let entry = crate::command::Entry::decode(first.data.clone()).expect("decodes");
    let mut batch = entry.commands;
    let mut pinned = Vec::new();
    while let Some(command) = batch.next_command() {
        match command.expect("decodes") {
            Command::PinStore { node, .. } => pinned.push(node),
            other => panic!("the stores come first: {other:?}"),
        }
    }
    assert_eq!(pinned.len(), 3);
}

#[test]
fn rule_1_h4_a_founder_wiped_in_the_middle_of_the_first_election_is_refused() {
    let mut refused = 0;
    for after in 1..40 {
        let mut cluster = Cluster::new(3);
        cluster.run(after);
        let wiped = id(2);
        let pinned_by = |cluster: &Cluster, peer| {
            let pin = cluster.nodes[&peer].identity.pin(wiped);
            pin.is_some_and(|pin| pin.incarnation.store == StoreId::from_bytes([2; 16]))
        };
        let pinned = pinned_by(&cluster, id(1)) || pinned_by(&cluster, id(3));
        let voted = cluster.disks[&wiped].hard_state.map(|it| (it.term, it.vote));
        cluster.kill(wiped);
        cluster.disks.insert(wiped, Disk::new(99));
        cluster.start(wiped);
        cluster.run(60);
        let status = cluster.nodes[&wiped].status();
        if !pinned {
            // Nobody had heard of the first store, which has never voted: the new one founds.
            assert!(voted.is_none_or(|(term, _)| term == 1));
            cluster.elect();
            continue;
        }
        refused += 1;
        assert!(
            matches!(status.ended, Some(Ended::Wiped { .. })),
            "after {after} ticks, voted {voted:?}: {status:?}"
        );
        assert_eq!(status.term, 1, "it never votes again");
        let remedy = status.ended.expect("ended").to_string();
        assert!(remedy.contains("remove node 2"), "{remedy}");
        // Whoever took part before goes on without it.
        if voted.is_some_and(|(term, _)| term > 1) {
            cluster.kill(wiped);
            cluster.elect();
        }
    }
    assert!(refused > 30);
}

#[test]
fn rule_1_a_rolled_back_disk_is_refused() {
    let mut cluster = Cluster::elected(3);
    let leader = cluster.leader().expect("elected");
    let victim = (1..=3).map(id).find(|&it| it != leader).expect("a follower");
    cluster.run(3);
    let mut image = cluster.disks[&victim].clone();
    cluster.restart(victim);
    cluster.run(5);
    cluster.kill(victim);
    // The older image counts its next opening with the number that the peers have seen.
    image.image = 1;
    cluster.disks.insert(victim, image);
    cluster.start(victim);
    cluster.run(20);
    let ended = cluster.nodes[&victim].ended().cloned();
    assert!(matches!(ended, Some(Ended::RolledBack { .. })), "{ended:?}");
    cluster.kill(victim);
    assert!(cluster.write(leader, create("/b")).is_ok());
}

#[test]
fn rule_1_the_newest_opening_is_durable_at_the_peers() {
    let mut cluster = Cluster::elected(3);
    let leader = cluster.leader().expect("elected");
    let victim = (1..=3).map(id).find(|&it| it != leader).expect("a follower");
    let mut image = cluster.disks[&victim].clone();
    cluster.restart(victim);
    cluster.run(5);
    cluster.kill(victim);
    for peer in cluster.nodes.keys().copied().collect::<Vec<_>>() {
        cluster.restart(peer);
    }
    image.image = 1;
    cluster.disks.insert(victim, image);
    cluster.start(victim);
    cluster.run(30);
    let ended = cluster.nodes[&victim].ended().cloned();
    assert!(matches!(ended, Some(Ended::RolledBack { .. })), "{ended:?}");
}

/// An image of an earlier opening is started so often that its counter is higher than any that the
/// peers know: what they know is none of its own.
#[test]
fn rule_1_a_rolled_back_disk_that_was_opened_often_is_refused() {
    for openings in 1..20 {
        let mut cluster = Cluster::elected(3);
        let leader = cluster.leader().expect("elected");
        let victim = (1..=3).map(id).find(|&it| it != leader).expect("a follower");
        cluster.run(3);
        let mut image = cluster.disks[&victim].clone();
        cluster.restart(victim);
        cluster.run(5);
        cluster.kill(victim);
        image.image = 1;
        cluster.disks.insert(victim, image);
        for _ in 0..openings {
            cluster.restart(victim);
        }
        cluster.run(20);
        let ended = cluster.nodes[&victim].ended().cloned();
        // A peer cannot tell of an opening that is out of the reach of what is kept of the others.
        let told = matches!(ended, Some(Ended::RolledBack { .. }));
        assert_eq!(told, openings <= 17, "{openings}: {ended:?}");
    }
}

/// An image that was taken since its store was last opened: only what was promised tells.
#[test]
fn rule_1_a_disk_that_lost_what_it_has_acknowledged_is_refused() {
    for leads in [false, true] {
        let mut cluster = Cluster::elected(3);
        let leader = cluster.leader().expect("elected");
        let other = (1..=3).map(id).find(|&it| it != leader).expect("a follower");
        cluster.run(3);
        let victim = if leads { leader } else { other };
        let mut image = cluster.disks[&victim].clone();
        cluster.write(leader, create("/acknowledged")).expect("written");
        cluster.run(3);
        cluster.kill(victim);
        image.image = 1;
        cluster.disks.insert(victim, image);
        cluster.start(victim);
        cluster.run(20);
        let ended = cluster.nodes[&victim].ended().cloned();
        assert!(matches!(ended, Some(Ended::Forgot { .. })), "leads: {leads}, {ended:?}");
        // Started again, it says so by itself.
        cluster.kill(victim);
        let config = cluster.config(victim);
        let restored = cluster.disks.get_mut(&victim).expect("a disk").open();
        let refused = Node::open(config, restored).map(|_| ());
        assert_eq!(refused, Err(OpenError::Local(LocalRecordError::RolledBack)));
        cluster.elect();
        let rest = (1..=3).map(id).filter(|&it| it != victim);
        rest.for_each(|it| assert!(cluster.exists(it, "/acknowledged")));
    }
}

/// It would vote a second time in a term.
#[test]
fn rule_1_a_disk_that_lost_a_vote_is_refused() {
    let mut cluster = Cluster::elected(3);
    cluster.run(3);
    let images = cluster.disks.clone();
    let before = cluster.leader().expect("elected");
    cluster.kill(before);
    let leader = cluster.elect();
    let victim = (1..=3).map(id).find(|&it| it != leader && it != before).expect("the third");
    // All that it was sent in the new term is its vote.
    let mut image = images[&victim].clone();
    let hard_state = cluster.disks[&victim].hard_state.expect("it has voted");
    assert_eq!(hard_state.vote, leader.as_u64());
    cluster.kill(victim);
    image.image = 1;
    image.hard_state = Some(HardState { vote: 0, ..hard_state });
    image.entries = cluster.disks[&victim].entries.clone();
    cluster.disks.insert(victim, image);
    cluster.start(victim);
    cluster.run(20);
    let ended = cluster.nodes[&victim].ended().cloned();
    assert!(matches!(ended, Some(Ended::Forgot { .. })), "{ended:?}");
}

/// What was not acknowledged may be lost with the power, also where a leader of a later term takes
/// its place.
#[test]
fn rule_1_a_disk_that_lost_what_it_has_promised_nobody_is_welcome() {
    for lost in 0..6 {
        let mut cluster = Cluster::elected(3);
        let leader = cluster.leader().expect("elected");
        cluster.run(3);
        // What the leader writes now, nobody else has: its disk loses a part of it.
        cluster.lose = Box::new(move |frame| frame.from == leader);
        for n in 0..5 {
            cluster.submit(leader, plain(create(&format!("/{n}"))));
            cluster.settle();
        }
        let promised = cluster.nodes[&leader].consensus.last_index();
        cluster.kill(leader);
        let disk = cluster.disks.get_mut(&leader).expect("a disk");
        disk.entries.retain(|entry| entry.index + lost <= promised);
        if lost % 2 == 0 {
            cluster.lose = Box::new(|_| false);
            cluster.elect();
        }
        cluster.start(leader);
        cluster.lose = Box::new(|_| false);
        cluster.run(60);
        assert_eq!(cluster.nodes[&leader].ended(), None, "{lost} entries");
        cluster.elect();
        cluster.assert_agreement();
    }
}

#[test]
fn rule_1_nothing_of_an_opening_is_taken_before_its_greeting() {
    let mut cluster = Cluster::elected(3);
    let leader = cluster.leader().expect("elected");
    let victim = (1..=3).map(id).find(|&it| it != leader).expect("a follower");
    cluster.run(3);
    cluster.lose =
        Box::new(move |frame| frame.from == victim && matches!(frame.body, Body::Hello(_)));
    cluster.restart(victim);
    let known = cluster.nodes[&leader].identity.pin(victim);
    cluster.run(30);
    assert_eq!(cluster.nodes[&leader].identity.pin(victim), known);
    cluster.write(leader, create("/by-the-others")).expect("written");
    cluster.lose = Box::new(|_| false);
    cluster.run(1);
    assert_ne!(cluster.nodes[&leader].identity.pin(victim), known, "it was asked to greet");
    cluster.run(5);
    cluster.assert_agreement();
}

/// A frame of the opening before may arrive after one of the opening that is in force.
#[test]
fn rule_1_a_late_frame_of_an_earlier_opening_ends_nobody() {
    let mut cluster = Cluster::elected(3);
    let leader = cluster.leader().expect("elected");
    let late = (1..=3).map(id).find(|&it| it != leader).expect("a follower");
    cluster.run(3);
    let incarnation = cluster.nodes[&late].identity.own();
    let frame = Frame {
        cluster: ClusterId::named("test"),
        from: late,
        to: leader,
        incarnation,
        body: Body::Forward(Forward { commands: Bytes::new(), term: 1, number: 1 }),
    };
    cluster.restart(late);
    cluster.run(5);
    let refused = cluster.node(leader).step(late, frame.encode());
    assert!(matches!(refused, Err(StepError::Refused { .. })), "{refused:?}");
    cluster.run(5);
    assert_eq!(cluster.nodes[&late].ended(), None);
    cluster.write(late, create("/it-goes-on")).expect("written");
}

/// Restarted as a joiner, a founder would elect without having pinned the others.
#[test]
fn rule_1_a_founder_stays_one_and_a_joiner_stays_one() {
    let mut cluster = Cluster::new(3);
    // Member 3 is heard by nobody: the founding does not end.
    cluster.lose = Box::new(|frame| frame.from == id(3));
    cluster.run(20);
    let joining = Config::joining(ClusterId::named("test"), id(1)).build().expect("valid");
    cluster.kill(id(1));
    let restored = cluster.disks.get_mut(&id(1)).expect("a disk").open();
    let refused = Node::open(joining, restored).map(|_| ());
    assert_eq!(refused, Err(OpenError::Local(LocalRecordError::OtherKind { founder: true })));
    cluster.start(id(1));
    cluster.lose = Box::new(|_| false);
    let leader = cluster.elect();
    cluster.join(4);
    cluster.submit(leader, Request::AddLearner(id(4)));
    cluster.run(10);
    cluster.kill(id(4));
    let members = [1, 2, 3, 4].map(id);
    let founding = Config::founding(ClusterId::named("test"), id(4), members);
    let restored = cluster.disks.get_mut(&id(4)).expect("a disk").open();
    let refused = Node::open(founding.build().expect("valid"), restored).map(|_| ());
    assert_eq!(refused, Err(OpenError::Local(LocalRecordError::OtherKind { founder: false })));
}

#[test]
fn rule_1_founders_that_were_set_up_differently_say_so() {
    let mut cluster = Cluster::new(3);
    cluster.kill(id(3));
    cluster.disks.insert(id(3), Disk::new(3));
    cluster.limits.payload_bytes_max = 1_000;
    cluster.start(id(3));
    cluster.run(20);
    for node in cluster.nodes.values() {
        assert!(node.ended().is_none());
        assert!(
            matches!(node.status().waiting, Some(Waiting::OtherBootstrap(_))),
            "{:?}",
            node.status()
        );
    }
}

#[test]
fn frames_of_others_are_refused_and_have_no_effect() {
    let mut cluster = Cluster::elected(3);
    let before = cluster.nodes[&id(1)].status();
    let frame = |cluster: &Cluster, from: u64, to: u64| Frame {
        cluster: ClusterId::named("test"),
        from: id(from),
        to: id(to),
        incarnation: cluster.nodes[&id(2)].identity.own(),
        body: Body::Forward(Forward { commands: Bytes::new(), term: 1, number: 1 }),
    };
    let good = frame(&cluster, 2, 1);
    let other_cluster = Frame { cluster: ClusterId::named("other"), ..good.clone() };
    let stranger = frame(&cluster, 9, 1);
    let node = cluster.node(id(1));
    assert!(node.step(id(2), good.encode()).is_ok());
    assert!(matches!(node.step(id(3), good.encode()), Err(StepError::Address { .. })));
    assert_eq!(node.step(id(2), other_cluster.encode()), Err(StepError::OtherCluster));
    assert!(matches!(
        node.step(id(9), stranger.encode()),
        Err(StepError::Refused { why: "it is not a member", .. })
    ));
    let bytes = good.encode();
    for at in 0..bytes.len() {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1;
        assert!(node.step(id(2), flipped.into()).is_err(), "byte {at}");
        assert!(node.step(id(2), bytes.slice(..at)).is_err(), "length {at}");
    }
    let after = node.status();
    assert_eq!((before.term, before.commit), (after.term, after.commit));
    assert!(after.refused_frames > 100);
}
