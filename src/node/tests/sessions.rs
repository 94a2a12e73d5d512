//! ARCHITECTURE.md, rules 6 to 9: read rounds, sequences, installs under pending work, nonces.

use std::{cell::Cell, rc::Rc};

use super::*;
use crate::{command::Batch, op::OpError, wire::Body};

const TTL: Duration = Duration::from_secs(10);

fn follower(cluster: &Cluster) -> NodeId {
    let leader = cluster.leader().expect("elected");
    (1..=3).map(id).find(|&it| it != leader).expect("a follower")
}

fn barrier(session: Option<SessionId>, consistency: Consistency) -> Read {
    Read { session, op: ReadOp::Barrier, consistency }
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
        session: Some(session),
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
        cluster.nodes[&at].view().stat(&"/q".parse().expect("valid")).expect("it").children,
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
        let root = cluster.nodes[&at].view().stat(&crate::Path::root()).expect("the root");
        assert_eq!(root.children, 40, "seed {seed}");
    }
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
    let ticket = cluster.submit(at, Request::OpenSession { secret, ttl: TTL });
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

#[test]
fn rule_9_a_command_without_a_sequence_is_sent_once_and_may_end_unknown() {
    let mut cluster = Cluster::elected(3);
    let at = follower(&cluster);
    let txn = create_as("/p-", CreateMode::PersistentSequential);
    let ticket = cluster.submit(at, Request::Txn { seq: None, txn });
    cluster.lose = Box::new(|frame| matches!(frame.body, Body::Forward(_)));
    cluster.settle();
    cluster.lose = Box::new(|_| false);
    let leader = cluster.leader().expect("elected");
    cluster.restart(leader);
    cluster.run(199);
    assert!(cluster.answer(at, ticket).is_none());
    cluster.run(3);
    assert_eq!(cluster.reply(at, ticket), Err(RequestError::Unknown(Unknown::TimedOut)));
    let root = cluster.nodes[&at].view().stat(&crate::Path::root()).expect("the root");
    assert_eq!(root.children, 0, "it was lost, and nobody sent it again");
}

#[test]
fn rule_9_a_later_attachment_fences_off_the_older_one() {
    let mut cluster = Cluster::elected(3);
    let (first, second) = (id(1), id(2));
    let opened = cluster.open_session(first, 5, TTL);
    let session = opened.session;
    let secret = Secret::from_bytes([5; 16]);
    let ticket = cluster.submit(second, Request::Attach { session, secret, epoch: 2 });
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
    let stale = cluster.submit(first, Request::Attach { session, secret, epoch: 2 });
    let wrong = Secret::from_bytes([6; 16]);
    let forged = cluster.submit(first, Request::Attach { session, secret: wrong, epoch: 3 });
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
    let refused = cluster.node(leader).submit(Request::Txn { seq: None, txn });
    assert_eq!(refused, Err(SubmitError::Path(crate::PathError::TrailingSlash)));
    cluster.run(2);
    cluster.write(leader, create("/a")).expect("the node lives");
    let txn = create_as("/a/", CreateMode::PersistentSequential);
    assert!(cluster.write(leader, txn).is_ok());
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
    let expire = Command::ExpireSession { session: SessionId::new(1).expect("valid") }.encode();
    for commands in [Bytes::from(bad), Bytes::from_static(&[1, 2, 3]), expire] {
        let frame = Frame {
            cluster: ClusterId::named("test"),
            from: at,
            to: leader,
            incarnation: cluster.nodes[&at].identity.own(),
            body: Body::Forward(commands),
        };
        assert!(cluster.node(leader).step(at, frame.encode()).is_err());
    }
    cluster.run(2);
    assert!(!cluster.exists(leader, "/good"));
    assert!(Batch(good).next_command().is_some());
}
