//! ARCHITECTURE.md, rules 6 to 9: read rounds, sequences, installs under pending work, nonces.

use std::{cell::Cell, rc::Rc};

use super::*;
use crate::{
    command::Batch,
    op::{Identities, OpError},
    wire::{Body, FRAME_BYTES_MAX, Forward},
};

const TTL: Duration = Duration::from_secs(10);

fn follower(cluster: &Cluster) -> NodeId {
    let leader = cluster.leader().expect("elected");
    (1..=3).map(id).find(|&it| it != leader).expect("a follower")
}

fn barrier(session: Option<SessionId>, consistency: Consistency) -> Read {
    let caller = session.map_or_else(Caller::world, Caller::Session);
    Read { caller, op: ReadOp::Barrier, consistency }
}

#[test]
fn rule_6_a_read_joins_only_a_round_that_has_not_left() {
    let mut cluster = Cluster::elected(3);
    let at = follower(&cluster);
    let leader = cluster.leader().expect("elected");
    // The request of the first round is on its way, and its answer is held back.
    let rounds = Rc::new(Cell::new(0));
    let seen = rounds.clone();
    cluster.lose = Box::new(move |frame| {
        if matches!(frame.body, Body::ReadIndex { .. }) {
            seen.set(seen.get() + 1);
        }
        matches!(frame.body, Body::ReadIndexReply { .. })
    });
    let first = cluster.node(at).read(barrier(None, Consistency::Linearizable)).expect("taken");
    cluster.settle();
    assert_eq!(rounds.get(), 1);
    // A write that is acknowledged in between.
    let Ok(Outcome::Created { stat, .. }) = cluster.write(leader, create("/between")) else {
        panic!("written")
    };
    let second = cluster.node(at).read(barrier(None, Consistency::Linearizable)).expect("taken");
    cluster.settle();
    assert_eq!(rounds.get(), 1, "the second read waits: it may not join the round that is out");
    assert!(cluster.answer(at, first).is_none() && cluster.answer(at, second).is_none());
    let seen = rounds.clone();
    cluster.lose = Box::new(move |frame| {
        if matches!(frame.body, Body::ReadIndex { .. }) {
            seen.set(seen.get() + 1);
        }
        false
    });
    cluster.run(12);
    assert!(rounds.get() >= 2);
    match cluster.answer(at, second) {
        Some(Output::Read { zxid, result: Ok(_), .. }) => assert!(*zxid >= stat.czxid),
        other => panic!("{other:?}"),
    }
}

/// Two followers' rounds, and a write between them that the second follower has not seen: the
/// second one may not be merged into the round that the first has begun.
#[test]
fn rule_6_a_leader_asks_for_the_index_after_the_last_round_that_it_merges() {
    let mut cluster = Cluster::elected(3);
    let leader = cluster.leader().expect("elected");
    let first = follower(&cluster);
    let second = (1..=3).map(id).find(|&it| it != leader && it != first).expect("a third");
    let (heartbeat_response, append) = (9, 3);
    let raft = |frame: &Frame, kind| matches!(&frame.body, Body::Raft(it) if it.kind == kind);
    // The first round is out and is not confirmed; the second follower gets no entries.
    cluster.lose = Box::new(move |frame| {
        raft(frame, heartbeat_response) || (frame.to == second && raft(frame, append))
    });
    let early = cluster.node(first).read(barrier(None, Consistency::Linearizable)).expect("taken");
    cluster.settle();
    let Ok(Outcome::Created { stat, .. }) = cluster.write(leader, create("/between")) else {
        panic!("written")
    };
    let late = cluster.node(second).read(barrier(None, Consistency::Linearizable)).expect("taken");
    cluster.settle();
    assert!(cluster.answer(first, early).is_none());
    cluster.lose = Box::new(move |frame| frame.to == second && raft(frame, append));
    cluster.run(5);
    assert!(matches!(cluster.answer(first, early), Some(Output::Read { result: Ok(_), .. })));
    assert!(cluster.answer(second, late).is_none(), "it has not applied the write");
    cluster.lose = Box::new(|_| false);
    cluster.run(12);
    match cluster.answer(second, late) {
        Some(Output::Read { zxid, result: Ok(_), .. }) => assert!(*zxid >= stat.czxid),
        other => panic!("{other:?}"),
    }
}

#[test]
fn rule_6_contexts_are_never_used_again_over_a_restart() {
    let mut contexts = Vec::new();
    let mut cluster = Cluster::elected(3);
    for _ in 0..3 {
        let at = follower(&cluster);
        for _ in 0..3 {
            cluster.node(at).read(barrier(None, Consistency::Linearizable)).expect("taken");
            cluster.drain(at);
            for (_, _, bytes) in &cluster.network {
                let frame = Frame::decode(bytes, usize::MAX).expect("ours");
                if let Body::ReadIndex { context } = frame.body {
                    contexts.push(context);
                }
            }
            cluster.settle();
        }
        cluster.restart(at);
        cluster.elect();
        cluster.run(3);
    }
    let count = contexts.len();
    assert!(count >= 9, "{count}");
    contexts.sort_unstable();
    contexts.dedup();
    assert_eq!(contexts.len(), count);
}

#[test]
fn a_linearizable_read_is_not_answered_by_a_leader_that_was_cut_off() {
    let mut cluster = Cluster::elected(3);
    let old = cluster.leader().expect("elected");
    cluster.lose = Box::new(move |frame| frame.from == old || frame.to == old);
    let read = cluster.node(old).read(barrier(None, Consistency::Linearizable)).expect("taken");
    cluster.settle();
    assert!(cluster.answer(old, read).is_none());
    cluster.run(60);
    let new = cluster.leader().expect("elected");
    assert_ne!(old, new);
    cluster.write(new, create("/new")).expect("written");
    assert!(cluster.answer(old, read).is_none(), "no majority, no answer");
    cluster.lose = Box::new(|_| false);
    cluster.run(20);
    assert!(matches!(cluster.answer(old, read), Some(Output::Read { result: Ok(_), .. })));
    assert!(cluster.exists(old, "/new"), "the answer is as fresh as the write");
}

#[test]
fn reads_of_a_session_wait_for_its_writes_and_come_in_order() {
    let mut cluster = Cluster::elected(3);
    let at = follower(&cluster);
    let session = cluster.open_session(at, 1, TTL).session;
    let get = |path: &str, consistency| Read {
        caller: Caller::Session(session),
        op: ReadOp::Get(path.parse().expect("valid")),
        consistency,
    };
    let write = cluster.submit_seq(at, session, 1, create("/mine")).expect("taken");
    let local = cluster.node(at).read(get("/mine", Consistency::Local)).expect("taken");
    let fresh = cluster.node(at).read(get("/mine", Consistency::Linearizable)).expect("taken");
    let last = cluster.node(at).read(get("/mine", Consistency::Local)).expect("taken");
    cluster.run(3);
    let order: Vec<Ticket> = cluster.outputs[&at]
        .iter()
        .filter_map(|output| match output {
            Output::Reply { ticket, result: Ok(_), .. }
            | Output::Read { ticket, result: Ok(_), .. } => Some(*ticket),
            _ => None,
        })
        .collect();
    assert_eq!(order, [write, local, fresh, last]);
}

/// A client pipelines five; the forward of the first two is lost; the rest reach the leader.
#[test]
fn rule_7_a_gap_has_no_effect_and_everything_is_sent_again_in_order() {
    let mut cluster = Cluster::elected(3);
    let at = follower(&cluster);
    let session = cluster.open_session(at, 1, TTL).session;
    let tickets: Vec<Ticket> = (1..=2)
        .map(|seq| {
            let txn = create_as("/q/n-", CreateMode::PersistentSequential);
            let txn = if seq == 1 { create("/q") } else { txn };
            cluster.submit_seq(at, session, seq, txn).expect("taken")
        })
        .collect();
    cluster.lose = Box::new(|frame| matches!(frame.body, Body::Forward(_)));
    cluster.settle();
    cluster.lose = Box::new(|_| false);
    let rest: Vec<Ticket> = (3..=5)
        .map(|seq| {
            let txn = create_as("/q/n-", CreateMode::PersistentSequential);
            cluster.submit_seq(at, session, seq, txn).expect("taken")
        })
        .collect();
    cluster.run(15);
    let mut names = Vec::new();
    for ticket in tickets.into_iter().chain(rest) {
        match cluster.reply(at, ticket) {
            Ok(Outcome::Created { path, .. }) => names.push(path.to_string()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        names[1..],
        ["/q/n-0000000000", "/q/n-0000000001", "/q/n-0000000002", "/q/n-0000000003"]
    );
    assert_eq!(
        cluster.nodes[&at].view().read(&"/q".parse().expect("valid")).expect("it").1.children,
        4
    );
}

#[test]
fn rule_7_exactly_once_in_order_whatever_is_lost_or_killed() {
    for seed in 0..30u64 {
        let mut cluster = Cluster::elected(3);
        let at = follower(&cluster);
        let session = cluster.open_session(at, 1, Duration::from_secs(60)).session;
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        cluster.lose = Box::new(move |frame| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            matches!(frame.body, Body::Forward(_)) && state % 3 == 0
        });
        let mut tickets = Vec::new();
        for seq in 1..=40 {
            let txn = create_as("/s-", CreateMode::PersistentSequential);
            tickets.push(cluster.submit_seq(at, session, seq, txn).expect("taken"));
            if seq % 3 == 0 {
                cluster.settle();
            }
            if seq == 20 {
                let leader = cluster.nodes.values().find(|node| node.is_leader());
                let leader = leader.map(|node| node.config.id).expect("a leader");
                assert_ne!(leader, at);
                cluster.restart(leader);
            }
        }
        cluster.run(200);
        for (n, ticket) in tickets.into_iter().enumerate() {
            match cluster.reply(at, ticket) {
                Ok(Outcome::Created { path, .. }) => {
                    assert_eq!(path.as_str(), format!("/s-{n:010}"), "seed {seed}");
                }
                other => panic!("seed {seed}: {other:?}"),
            }
        }
        let (_, root) = cluster.nodes[&at].view().read(&crate::Path::root()).expect("the root");
        assert_eq!(root.children, 40, "seed {seed}");
    }
}

/// Commits take longer than the wait for a repeat: the log has each command once.
#[test]
fn rule_7_a_leader_does_not_repeat_its_own_commands() {
    let mut cluster = Cluster::elected(3);
    let leader = cluster.leader().expect("elected");
    let session = cluster.open_session(leader, 1, Duration::from_secs(60)).session;
    // Heartbeats pass, and no append is acknowledged: the leader stays, and nothing commits.
    let appended = |body: &Body| matches!(body, Body::Raft(it) if it.kind == 4);
    cluster.lose = Box::new(move |frame| appended(&frame.body));
    let tickets: Vec<Ticket> = (1..=50)
        .map(|seq| cluster.submit_seq(leader, session, seq, create(&format!("/{seq}"))))
        .collect::<Result<_, _>>()
        .expect("taken");
    cluster.run(100);
    assert_eq!(cluster.leader(), Some(leader));
    cluster.lose = Box::new(|_| false);
    cluster.run(5);
    assert!(tickets.into_iter().all(|ticket| cluster.reply(leader, ticket).is_ok()));
    let mut commands = 0;
    for entry in cluster.disks[&leader].entries.iter().filter(|entry| !entry.data.is_empty()) {
        let Ok(crate::command::Entry { commands: mut batch, .. }) =
            crate::command::Entry::decode(entry.data.clone())
        else {
            continue;
        };
        while let Some(command) = batch.next_command() {
            commands += usize::from(matches!(command, Ok(Command::SessionTxn { .. })));
        }
    }
    assert_eq!(commands, 50);
}

#[test]
fn rule_7_a_refused_number_must_be_submitted_again_before_later_ones() {
    let mut cluster = Cluster::elected(3);
    let at = follower(&cluster);
    let session = cluster.open_session(at, 1, TTL).session;
    let big = Op::Create {
        path: crate::Path::new("/big").expect("valid").into(),
        data: vec![0; 2 << 20].into(),
        mode: CreateMode::Persistent,
        acl: None,
    };
    let refused = cluster.submit_seq(at, session, 1, big.into());
    assert!(matches!(refused, Err(SubmitError::Limit { value: 2_097_152, max: 1_048_575, .. })));
    assert_eq!(
        cluster.submit_seq(at, session, 2, create("/later")),
        Err(SubmitError::OutOfSequence { expected: 1, actual: 2 })
    );
    cluster.submit_seq(at, session, 1, create("/first")).expect("taken");
    let second = cluster.submit_seq(at, session, 2, create("/later")).expect("taken");
    cluster.run(2);
    assert!(cluster.reply(at, second).is_ok());
}

/// The create-session goes to a leader that dies, and again to the next one; both survive.
#[test]
fn rule_9_a_repeated_opening_gives_one_session() {
    let mut cluster = Cluster::elected(3);
    let at = follower(&cluster);
    let old = cluster.leader().expect("elected");
    // The old leader commits, and nobody hears of the commit before it dies.
    let secret = Secret::from_bytes([9; 16]);
    let ticket = cluster.submit(at, open(secret, TTL));
    let replicated = Rc::new(Cell::new(0));
    let count = replicated.clone();
    cluster.lose = Box::new(move |frame| {
        if let Body::Raft(message) = &frame.body {
            let appends = frame.from == old && !message.entries.is_empty();
            count.set(count.get() + usize::from(appends));
        }
        frame.to == old && matches!(frame.body, Body::Raft(_))
    });
    cluster.settle();
    assert!(replicated.get() > 0);
    cluster.kill(old);
    cluster.lose = Box::new(|_| false);
    cluster.run(60);
    cluster.start(old);
    cluster.run(20);
    assert!(matches!(cluster.answer(at, ticket), Some(Output::Session { result: Ok(_), .. })));
    for node in cluster.nodes.values() {
        assert_eq!(node.status().sessions, 1);
    }
}

/// The client repeats its opening at another member while the first one serves the session: two
/// attachments under one epoch would answer each other's commands and keep-alives.
#[test]
fn rule_9_a_repeated_opening_elsewhere_ends_the_first_attachment() {
    let mut cluster = Cluster::elected(3);
    let leader = cluster.leader().expect("elected");
    let (first, second) = (follower(&cluster), leader);
    let opened = cluster.open_session(first, 7, TTL);
    let session = opened.session;
    let write = |epoch, path: &str| Request::SessionTxn {
        seq: Seq { session, epoch, seq: 1, acked: 0 },
        txn: create(path),
    };
    cluster.submit(first, write(1, "/from-the-first"));
    cluster.drain(first);
    cluster.lose = Box::new(move |frame| frame.to == first);
    let again = cluster.open_session(second, 7, TTL);
    assert_eq!((again.session, again.epoch), (session, 2));
    // What was on its way when the attachment moved has an effect before it, or none.
    let seq = again.last_seq + 1;
    let its = Seq { session, epoch: 2, seq, acked: 0 };
    let txn = create("/from-the-second");
    let ticket = cluster.submit(second, Request::SessionTxn { seq: its, txn });
    cluster.settle();
    let Ok(Outcome::Created { path, .. }) = cluster.reply(second, ticket) else {
        panic!("it is the only attachment")
    };
    assert_eq!(path.as_str(), "/from-the-second");
    assert!(cluster.exists(second, "/from-the-second"));
    cluster.lose = Box::new(|_| false);
    cluster.run(3);
    let moved = Output::Detached { session, epoch: 1, cause: Detach::Moved };
    assert!(cluster.outputs[&first].contains(&moved));
    // The same opening, repeated where it was made, gives the same attachment.
    let same = cluster.open_session(second, 7, TTL);
    assert_eq!((same.session, same.epoch, same.last_seq), (session, 2, seq));
}

#[test]
fn rule_9_a_repeated_opening_after_a_restart_is_a_new_attachment() {
    let mut cluster = Cluster::elected(3);
    let at = follower(&cluster);
    let opened = cluster.open_session(at, 7, TTL);
    cluster.restart(at);
    cluster.outputs.insert(at, Vec::new());
    cluster.elect();
    cluster.run(3);
    let again = cluster.open_session(at, 7, TTL);
    assert_eq!((again.session, again.epoch), (opened.session, 2));
    let keep_alive = Request::KeepAlive { session: again.session, epoch: 2, acked: 0 };
    cluster.submit(at, keep_alive);
    cluster.run(12);
    let renewed = |it: &Output| matches!(it, Output::Renewed { epoch: 2, .. });
    assert!(cluster.outputs[&at].iter().any(renewed));
    cluster.assert_agreement();
}

#[test]
fn rule_9_a_command_without_a_sequence_is_sent_to_a_leader_once_and_may_end_unknown() {
    let mut cluster = Cluster::elected(3);
    let at = follower(&cluster);
    let txn = create_as("/p-", CreateMode::PersistentSequential);
    let ticket = cluster.submit(at, plain(txn));
    cluster.lose = Box::new(|frame| matches!(frame.body, Body::Forward(_)));
    cluster.settle();
    cluster.lose = Box::new(|_| false);
    cluster.run(199);
    assert!(cluster.answer(at, ticket).is_none());
    cluster.run(3);
    assert_eq!(cluster.reply(at, ticket), Err(RequestError::Unknown(Unknown::TimedOut)));
    assert_eq!(children(&cluster, at), 0, "it was lost, and nobody sent it again");
}

/// A leader puts what it takes into entries of its own term. So once an entry of a later term was
/// applied, what was sent before and is not answered never takes effect.
#[test]
fn rule_9_a_command_that_a_leader_took_with_it_goes_to_the_next_one() {
    let mut cluster = Cluster::elected(3);
    let at = follower(&cluster);
    let txn = || create_as("/p-", CreateMode::PersistentSequential);
    let ticket = cluster.submit(at, plain(txn()));
    cluster.lose = Box::new(|frame| matches!(frame.body, Body::Forward(_)));
    cluster.settle();
    cluster.lose = Box::new(|_| false);
    let leader = cluster.leader().expect("elected");
    // Of the leader itself, which hears nobody from now on.
    let own = cluster.submit(leader, plain(txn()));
    cluster.lose = Box::new(move |frame| frame.from == leader || frame.to == leader);
    cluster.run(80);
    assert!(cluster.reply(at, ticket).is_ok(), "a leader was there within four seconds");
    assert_eq!(children(&cluster, at), 1, "once");
    cluster.lose = Box::new(|_| false);
    cluster.run(40);
    assert!(cluster.reply(leader, own).is_ok());
    assert_eq!(children(&cluster, at), 2, "once each");
    cluster.assert_agreement();
}

#[test]
fn rule_9_a_command_that_survives_its_leader_is_not_sent_again() {
    let mut cluster = Cluster::elected(3);
    let (at, leader) = (follower(&cluster), cluster.leader().expect("elected"));
    let txn = create_as("/p-", CreateMode::PersistentSequential);
    let ticket = cluster.submit(at, plain(txn));
    // The third member has it in its log; its origin hears nothing of that.
    cluster.lose = Box::new(move |frame| frame.from == leader && frame.to == at);
    cluster.settle();
    cluster.kill(leader);
    cluster.lose = Box::new(|_| false);
    cluster.run(80);
    assert!(cluster.reply(at, ticket).is_ok());
    cluster.run(20);
    assert_eq!(children(&cluster, at), 1, "the next leader had it, and it came once");
    cluster.assert_agreement();
}

fn children(cluster: &Cluster, at: NodeId) -> u64 {
    let (_, root) = cluster.nodes[&at].view().read(&crate::Path::root()).expect("the root");
    root.children
}

#[test]
fn rule_9_a_later_attachment_fences_off_the_older_one() {
    let mut cluster = Cluster::elected(3);
    let (first, second) = (id(1), id(2));
    let opened = cluster.open_session(first, 5, TTL);
    let session = opened.session;
    let secret = Secret::from_bytes([5; 16]);
    let ticket = cluster.submit(second, attach(session, secret, 2));
    cluster.run(2);
    match cluster.answer(second, ticket) {
        Some(Output::Session { result: Ok(it), .. }) => assert_eq!((it.epoch, it.last_seq), (2, 0)),
        other => panic!("{other:?}"),
    }
    let moved = Output::Detached { session, epoch: 1, cause: Detach::Moved };
    assert!(cluster.outputs[&first].contains(&moved));
    assert_eq!(
        cluster.submit_seq(first, session, 1, create("/late")),
        Err(SubmitError::NotAttached { session, epoch: 1 })
    );
    let stale = cluster.submit(first, attach(session, secret, 2));
    let wrong = Secret::from_bytes([6; 16]);
    let forged = cluster.submit(first, attach(session, wrong, 3));
    cluster.run(2);
    assert!(matches!(
        cluster.answer(first, stale),
        Some(Output::Session {
            result: Err(RequestError::Op(OpError::Moved { epoch: 2, .. })),
            ..
        })
    ));
    assert!(matches!(
        cluster.answer(first, forged),
        Some(Output::Session { result: Err(RequestError::Op(OpError::BadSecret { .. })), .. })
    ));
}

/// It would be in the log, and no member could read it.
#[test]
fn a_path_that_is_only_a_prefix_is_refused_before_it_is_encoded() {
    let mut cluster = Cluster::elected(3);
    let leader = cluster.leader().expect("elected");
    let txn = create_as("/a/", CreateMode::Persistent);
    let refused = cluster.node(leader).submit(plain(txn));
    assert_eq!(refused, Err(SubmitError::Path(crate::PathError::TrailingSlash)));
    cluster.run(2);
    cluster.write(leader, create("/a")).expect("the node lives");
    let txn = create_as("/a/", CreateMode::PersistentSequential);
    assert!(cluster.write(leader, txn).is_ok());
}

/// A path of full length has no room for the number: the entry would be one that nobody can read.
#[test]
fn a_path_without_room_for_its_number_is_refused_before_it_is_encoded() {
    let mut cluster = Cluster::elected(3);
    let leader = cluster.leader().expect("elected");
    let at = follower(&cluster);
    let session = cluster.open_session(at, 1, TTL).session;
    let long = |bytes: usize| -> crate::Path {
        format!("/{}", "x".repeat(bytes - 1)).parse().expect("a valid path")
    };
    let create = |bytes, mode| -> Txn {
        Op::Create { path: long(bytes).into(), data: Bytes::new(), mode, acl: None }.into()
    };
    let modes = [CreateMode::PersistentSequential, CreateMode::EphemeralSequential];
    for (mode, bytes) in modes.into_iter().flat_map(|mode| [(mode, 4087), (mode, 4096)]) {
        for member in [leader, at] {
            let request = plain(create(bytes, mode));
            let refused = cluster.node(member).submit(request);
            assert!(matches!(refused, Err(SubmitError::Path(_))), "{refused:?}");
        }
        let refused = cluster.submit_seq(at, session, 1, create(bytes, mode));
        assert!(matches!(refused, Err(SubmitError::Path(_))), "{refused:?}");
    }
    let longest = create(4086, CreateMode::PersistentSequential);
    cluster.write(leader, longest).expect("a number fits");
    let first = cluster.submit_seq(at, session, 1, create(4096, CreateMode::Persistent));
    cluster.run(3);
    assert!(cluster.reply(at, first.expect("taken")).is_ok());
    cluster.assert_agreement();
}

/// What no member should have let into the log ends nobody: all go past it alike.
#[test]
fn a_field_that_cannot_be_has_no_effect_on_any_member() {
    let mut cluster = Cluster::elected(3);
    let leader = cluster.leader().expect("elected");
    let origin = OriginId { node: leader, boot_nonce: 1, counter: 1 };
    let path = crate::Path::new(&format!("/{}", "x".repeat(4095))).expect("valid");
    let mode = CreateMode::PersistentSequential;
    let txn: Txn = Op::Create { path: path.into(), data: Bytes::new(), mode, acl: None }.into();
    let commands = [
        Command::PlainTxn { origin, txn: create("/before"), identities: Identities::none() }
            .encode(),
        Command::PlainTxn { origin, txn, identities: Identities::none() }.encode(),
        Command::PlainTxn { origin, txn: create("/after"), identities: Identities::none() }
            .encode(),
    ];
    let leadership = cluster.node(leader).leadership.as_mut().expect("leads");
    assert!(leadership.push(commands.concat().into(), usize::MAX));
    cluster.run(3);
    for node in cluster.nodes.values() {
        assert_eq!(node.ended(), None);
    }
    for member in (1..=3).map(id) {
        assert!(cluster.exists(member, "/before") && cluster.exists(member, "/after"));
    }
    for member in (1..=3).map(id) {
        cluster.restart(member);
    }
    cluster.elect();
    cluster.run(3);
    cluster.assert_agreement();
}

#[test]
fn forwarded_bytes_that_are_no_commands_never_reach_the_log() {
    let mut cluster = Cluster::elected(3);
    let leader = cluster.leader().expect("elected");
    let at = follower(&cluster);
    let good = Command::PlainTxn {
        origin: OriginId { node: at, boot_nonce: 1, counter: 1 },
        identities: crate::Identities::none(),
        txn: create("/good"),
    }
    .encode();
    let mut bad = good.to_vec();
    bad.truncate(good.len() - 1);
    let expire = Command::Expire { lease: crate::LeaseId::new(1).expect("valid") }.encode();
    let path = "/good".parse().expect("valid");
    let reap = Command::ReapNode { path, czxid: crate::Zxid::new(1) }.encode();
    let term = cluster.nodes[&leader].status().term;
    let bad = [Bytes::from(bad), Bytes::from_static(&[1, 2, 3]), expire, reap];
    for (commands, number) in bad.into_iter().zip(1_000..) {
        let frame = Frame {
            cluster: ClusterId::named("test"),
            from: at,
            to: leader,
            incarnation: cluster.nodes[&at].identity.own(),
            body: Body::Forward(Forward { commands, term, number }),
        };
        assert!(cluster.node(leader).step(at, frame.encode()).is_err());
    }
    cluster.run(2);
    assert!(!cluster.exists(leader, "/good"));
    assert!(Batch(good).next_command().is_some());
}

/// A network may repeat what it carries, at once or long after. A plain command has no number in a
/// session that its apply would look at, so it happened once for each repeat.
#[test]
fn rule_9_a_frame_of_plain_commands_that_comes_again_is_taken_once() {
    let mut cluster = Cluster::elected(3);
    let (at, leader) = (follower(&cluster), cluster.leader().expect("elected"));
    cluster.record = true;
    let path: crate::Path = "/once".parse().expect("valid");
    cluster.node(at).submit(plain(create("/once"))).expect("taken");
    cluster.run(3);
    let set = || Op::Set { path: path.clone(), data: "x".into(), version: None };
    for _ in 0..3 {
        let request = plain(Txn::new(set()));
        cluster.node(at).submit(request).expect("taken");
        cluster.run(1);
    }
    cluster.record = false;
    let commands = |bytes: &&Bytes| {
        let frame = Frame::decode(bytes, FRAME_BYTES_MAX);
        frame.is_ok_and(|it| it.to == leader && matches!(it.body, Body::Forward(_)))
    };
    let frames: Vec<Bytes> = cluster.sent.iter().filter(commands).cloned().collect();
    assert!(frames.len() >= 4);
    let version = |cluster: &mut Cluster| {
        cluster.run(3);
        cluster.nodes[&leader].view().stat(&path).ok().flatten().map(|stat| stat.version)
    };
    let again = |cluster: &mut Cluster| {
        for frame in frames.iter().rev() {
            cluster.node(leader).step(at, frame.clone()).expect("no harm in it");
            cluster.settle();
        }
    };
    assert_eq!(version(&mut cluster), Some(3));
    again(&mut cluster);
    assert_eq!(version(&mut cluster), Some(3), "repeated at once");
    // Whoever has forgotten what came leads in another term.
    cluster.restart(leader);
    for _ in 0..400 {
        match cluster.leader() {
            Some(now) if now == leader => break,
            Some(now) => drop(cluster.node(now).transfer_leader(leader)),
            None => {}
        }
        cluster.run(3);
    }
    assert_eq!(cluster.leader(), Some(leader));
    again(&mut cluster);
    assert_eq!(version(&mut cluster), Some(3), "repeated much later");
}

/// Pipelined writes apply together; what was read between two of them shows the first one alone.
#[test]
fn a_read_between_two_writes_of_its_session_sees_the_first_one_alone() {
    let mut cluster = Cluster::elected(3);
    let at = follower(&cluster);
    let session = cluster.open_session(at, 1, TTL).session;
    let get = |op| Read { caller: Caller::Session(session), op, consistency: Consistency::Local };
    let path: crate::path::Path = "/mine".parse().expect("valid");
    let delete = Txn::new(Op::Delete { path: path.clone(), version: None });
    let first = cluster.submit_seq(at, session, 1, create("/mine")).expect("taken");
    let read = cluster.node(at).read(get(ReadOp::Get(path.clone()))).expect("taken");
    let view = cluster.node(at).read(get(ReadOp::View)).expect("taken");
    let last = cluster.submit_seq(at, session, 2, delete).expect("taken");
    cluster.run(3);
    let ticket = |output: &Output| match output {
        Output::Reply { ticket, .. } | Output::Read { ticket, .. } => Some(*ticket),
        _ => None,
    };
    let ours = [first, read, view, last];
    let order = cluster.outputs[&at].iter().filter_map(ticket).filter(|it| ours.contains(it));
    assert_eq!(order.collect::<Vec<_>>(), ours);
    let found = cluster.answer(at, read);
    assert!(matches!(found, Some(Output::Read { result: Ok(_), .. })), "{found:?}");
    let Some(Output::Read { zxid, result: Ok(ReadOutcome::View(view)), .. }) =
        cluster.answer(at, view)
    else {
        panic!("there is a view");
    };
    assert_eq!(view.zxid(), *zxid);
    assert!(view.read(&path).is_ok(), "the view stays what it was");
}
