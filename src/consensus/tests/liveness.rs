//! L: what may come to a stand; and the membership from a joiner to its removal.

use super::*;

/// Voters 1, 2, 3 with a log of which nothing is left in memory, and a learner 4 that has nothing.
fn with_joiner() -> Cluster {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    cluster.elect(1);
    for data in ["a", "b", "c"] {
        cluster.propose(1, data);
    }
    cluster.tick_all(3);
    for node in [1, 2, 3] {
        let applied = cluster.node(node).applied_index();
        cluster.node(node).compact(applied);
    }
    cluster.add(4, nothing());
    cluster.change(1, MembershipChange::AddLearner(id(4)));
    cluster.tick_all(3);
    cluster
}

#[test]
fn a_joiner_gets_a_snapshot_then_entries_then_a_vote_and_leaves() {
    let mut cluster = with_joiner();
    let (leader, to, meta) = cluster.needed.pop().unwrap();
    assert_eq!((leader, to), (1, 4));
    assert_eq!(meta.learners, [4]);
    assert_eq!(cluster.node(1).progress(id(4)).unwrap().replication, Replication::Snapshot);
    // A learner that has nothing is not promoted, however short the log is.
    let promote = MembershipChange::Promote(id(4));
    let result = cluster.node(1).propose_change(promote, Bytes::new());
    assert!(matches!(result, Err(ChangeError::NotCaughtUp { .. })));
    cluster.stage(1, 4, &meta);
    let message = cluster.node(1).snapshot_message(id(4), meta.index, meta.term).unwrap();
    cluster.send(1, vec![(id(4), message)]);
    cluster.settle();
    cluster.node(1).report_snapshot(id(4), true);
    cluster.tick_all(6);
    assert_eq!(cluster.node(4).learners(), [id(4)]);
    cluster.change(1, promote);
    cluster.tick_all(3);
    assert_eq!(cluster.node(4).voters(), [id(1), id(2), id(3), id(4)]);
    cluster.propose(1, "d");
    cluster.tick_all(3);
    assert_eq!(cluster.members[&4].state, cluster.members[&1].state);
    // It votes, leads, and is removed by another.
    cluster.tick_all(12);
    cluster.node(1).transfer_leader(id(4)).unwrap();
    cluster.settle();
    assert_eq!(cluster.lead(), Some(4));
    cluster.node(4).transfer_leader(id(2)).unwrap();
    cluster.settle();
    cluster.change(2, MembershipChange::Remove(id(4)));
    cluster.tick_all(3);
    for node in [1, 2, 3] {
        assert_eq!(cluster.node(node).voters(), [id(1), id(2), id(3)]);
    }
    let last = cluster.changes.last().unwrap();
    assert_eq!(last.2.context, Bytes::from_static(b"why"));
}

#[test]
fn l1_a_snapshot_that_failed_is_needed_again() {
    let mut cluster = with_joiner();
    assert_eq!(cluster.needed.len(), 1);
    // Until it is reported, nothing else goes to the receiver.
    cluster.tick_all(30);
    assert_eq!(cluster.needed.len(), 1);
    cluster.node(1).report_snapshot(id(4), false);
    cluster.tick_all(10);
    assert_eq!(cluster.needed.len(), 2, "asked for again");
}

#[test]
fn l2_a_snapshot_names_its_receiver_before_it_is_needed() {
    let mut cluster = with_joiner();
    for (_, to, meta) in mem::take(&mut cluster.needed) {
        assert!(meta.learners.contains(&to), "{meta:?}");
    }
    // A receiver ignores one that does not name it, without harm.
    let mut node = follower();
    node.expect_snapshot(Some((9, 2)));
    let install = RaftMessage { snapshot: Some(meta(9, 2, &[2, 3], &[])), ..message(SNAPSHOT, 2) };
    let result = node.step(id(2), install);
    assert_eq!(result, Err(Rejected::Ignored(Ignored::NotInSnapshot)));
}

#[test]
fn l3_the_defaults_of_raft_are_not_used() {
    let config = options(1).to_raft(1).unwrap();
    assert!(config.check_quorum && config.pre_vote && config.batch_append);
    assert_eq!(config.priority, 0);
    assert_eq!(config.max_size_per_msg, 1 << 16);
    assert_eq!(config.max_uncommitted_size, 1 << 20);
    assert_eq!(config.max_committed_size_per_ready, (1 << 16) / 3);
    assert_eq!(config.max_inflight_msgs, 16);
    // Pre-vote: a campaign that cannot be won moves no term.
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    cluster.elect(1);
    cluster.isolate(3);
    cluster.tick_all(100);
    assert_eq!(cluster.node(3).term(), cluster.node(1).term());
    // Check-quorum: a leader that hears of nobody steps down.
    cluster.isolate(1);
    cluster.tick_all(30);
    assert_ne!(cluster.node(1).role(), Role::Leader);
    // Committed entries come in bounded batches.
    let mut node = Consensus::open(options(1), founding(&[1], &[])).unwrap();
    node.campaign().unwrap();
    flush(&mut node);
    for _ in 0..40 {
        node.propose(Bytes::from(vec![0; 10_000])).unwrap();
    }
    node.drain().unwrap();
    node.persisted();
    let mut batches = 0;
    while let Some(batch) = node.drain() {
        let bytes: usize = batch.committed.iter().map(|e| e.data.len()).sum();
        assert!(bytes <= 1 << 16, "{bytes}");
        batches += 1;
    }
    assert!(batches >= 3, "{batches}");
}

#[test]
fn l4_members_change_one_at_a_time() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    let under_way = Err(ChangeError::UnderWay);
    let add = |node| MembershipChange::AddLearner(id(node));
    cluster.isolate(3);
    cluster.elect(1);
    cluster.isolate(2);
    let node = cluster.node(1);
    node.propose_change(add(4), Bytes::new()).unwrap();
    assert_eq!(node.propose_change(add(5), Bytes::new()), under_way);
    cluster.drain(1);
    assert_eq!(cluster.node(1).propose_change(add(5), Bytes::new()), under_way);
    cluster.cut.clear();
    cluster.tick_all(4);
    cluster.change(1, add(5));
    assert_eq!(cluster.node(1).learners(), [id(4), id(5)]);
    // A new leader waits for a commit in its term, even if it has applied all of its log.
    let mut node = follower();
    node.step(id(2), heartbeat(2, 5)).unwrap();
    flush(&mut node);
    node.campaign().unwrap();
    flush(&mut node);
    for kind in [PRE_VOTE_RESPONSE, VOTE_RESPONSE] {
        node.step(id(2), message(kind, 3)).unwrap();
        flush(&mut node);
    }
    assert_eq!((node.role(), node.applied_index()), (Role::Leader, 5));
    assert_eq!(node.propose_change(add(4), Bytes::new()), under_way);
    let ack = RaftMessage { index: 6, ..message(APPEND_RESPONSE, 3) };
    node.step(id(2), ack).unwrap();
    flush(&mut node);
    node.propose_change(add(4), Bytes::new()).unwrap();
}

#[test]
fn l4_impossible_changes_are_refused_and_applied_as_nothing() {
    let mut node = leader();
    let mut propose = |change| node.propose_change(change, Bytes::new());
    use MembershipChange::{AddLearner, Promote, Remove};
    let four = id(4);
    assert_eq!(propose(AddLearner(id(2))), Err(ChangeError::AlreadyMember(id(2))));
    assert_eq!(propose(Promote(id(2))), Err(ChangeError::AlreadyMember(id(2))));
    assert_eq!(propose(Promote(four)), Err(ChangeError::NotALearner(four)));
    assert_eq!(propose(Remove(four)), Err(ChangeError::NotAMember(four)));
    assert_eq!(propose(Remove(id(1))), Err(ChangeError::RemovesLeader));
    let mut single = Consensus::open(options(1), founding(&[1], &[2])).unwrap();
    single.campaign().unwrap();
    flush(&mut single);
    let result = single.propose_change(Remove(id(1)), Bytes::new());
    assert_eq!(result, Err(ChangeError::LastVoter));
    // What is committed all the same does nothing, with every member alike.
    for (index, change) in (6..).zip([AddLearner(id(2)), Promote(four), Remove(four)]) {
        let data = change.encode(Bytes::from_static(b"c"));
        let entry = LogEntry::new(index, 3, EntryKind::Membership, data);
        let mut node = follower();
        let applied = node.applied_change(&entry).unwrap();
        assert_eq!((applied.change, applied.removed_self), (None, false));
        assert_eq!(applied.context, Bytes::from_static(b"c"));
        assert_eq!(node.voters(), [id(1), id(2), id(3)]);
        assert_eq!(node.ended(), None);
    }
}

#[test]
fn l4_a_learner_that_lags_is_not_promoted() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[4]);
    cluster.elect(1);
    cluster.tick_all(3);
    cluster.isolate(4);
    for _ in 0..300 {
        cluster.propose(1, "x");
    }
    let promote = MembershipChange::Promote(id(4));
    let result = cluster.node(1).propose_change(promote, Bytes::new());
    let behind = 300;
    let node = id(4);
    assert_eq!(result, Err(ChangeError::NotCaughtUp { node, behind }));
    cluster.cut.clear();
    cluster.tick_all(6);
    cluster.change(1, promote);
    assert!(cluster.node(1).voters().contains(&id(4)));
}

#[test]
fn l5_elections_are_forced_only_by_the_leader_of_the_term() {
    let not_the_leader = Err(Rejected::Ignored(Ignored::NotTheLeader));
    for (from, term) in [(3, 2), (2, 3), (3, 3)] {
        let mut node = follower();
        let result = node.step(id(from), message(TIMEOUT_NOW, term));
        assert_eq!(result, not_the_leader);
        assert_eq!((node.role(), node.term()), (Role::Follower, 2));
    }
    for mut node in [pre_candidate(), candidate(), leader()] {
        let term = node.term();
        let result = node.step(id(2), message(TIMEOUT_NOW, term));
        assert_eq!(result, not_the_leader);
    }
    let result = follower().step(id(2), message(13, 2));
    let expected = Rejected::Misbehaving(Misbehaving::ForbiddenKind);
    assert_eq!(result, Err(expected));
    let mut node = follower();
    node.step(id(2), message(TIMEOUT_NOW, 2)).unwrap();
    assert_eq!((node.role(), node.term()), (Role::Candidate, 3));
}

#[test]
fn l5_the_leadership_moves_and_a_transfer_that_fails_ends() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[4]);
    cluster.elect(1);
    for to in [1, 4, 9] {
        let result = cluster.node(1).transfer_leader(id(to));
        assert_eq!(result, Err(TransferError::NotAnotherVoter(id(to))));
    }
    cluster.node(1).transfer_leader(id(2)).unwrap();
    cluster.settle();
    assert_eq!(cluster.lead(), Some(2));
    cluster.isolate(3);
    cluster.node(2).transfer_leader(id(3)).unwrap();
    assert!(cluster.node(2).is_transferring());
    cluster.tick_all(11);
    assert!(!cluster.node(2).is_transferring());
    cluster.propose(2, "goes on");
    assert_eq!(cluster.lead(), Some(2));
}

#[test]
fn l6_each_refusal_of_a_proposal_has_its_name() {
    let mut node = follower();
    let leader_known = Err(ProposeError::NotLeader { leader: Some(id(2)) });
    assert_eq!(node.propose(Bytes::new()), leader_known);
    assert!(node.drain().is_none(), "raft forwarded it silently");
    let nobody = Err(ProposeError::NotLeader { leader: None });
    assert_eq!(candidate().propose(Bytes::new()), nobody);
    let mut node = leader();
    let chunk = Bytes::from(vec![0; 1 << 19]);
    node.propose(chunk.clone()).unwrap();
    node.propose(chunk.clone()).unwrap();
    let overloaded = ProposeError::Overloaded { bytes: 3 << 19, max: 1 << 20 };
    assert_eq!(node.propose(chunk), Err(overloaded));
    node.transfer_leader(id(2)).unwrap();
    let transferring = Err(ProposeError::Transferring);
    assert_eq!(node.propose(Bytes::from_static(b"x")), transferring);
}

#[test]
fn l7_a_removed_node_disturbs_nobody() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    cluster.elect(1);
    // 3 does not learn of its removal, and campaigns for ever.
    cluster.isolate(3);
    cluster.change(1, MembershipChange::Remove(id(3)));
    cluster.cut.clear();
    let term = cluster.node(1).term();
    for _ in 0..200 {
        cluster.tick_all(1);
        let _ = cluster.node(3).campaign();
        cluster.settle();
    }
    assert_eq!(cluster.lead(), Some(1));
    assert_eq!(cluster.node(1).term(), term);
    // Its answers are those of a stranger.
    let result = cluster.node(1).step(id(3), message(APPEND_RESPONSE, term));
    assert_eq!(result, Err(Rejected::Ignored(Ignored::NotAMember)));
}

#[test]
fn a_cluster_elects_by_ticks_alone_replicates_and_survives_restarts() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    cluster.tick_all(40);
    let lead = cluster.lead().unwrap();
    for data in ["a", "b", "c"] {
        cluster.propose(lead, data);
    }
    for node in [1, 2, 3] {
        cluster.restart(node, true);
    }
    cluster.tick_all(40);
    let lead = cluster.lead().unwrap();
    cluster.propose(lead, "d");
    cluster.tick_all(3);
    let state = cluster.members[&lead].state.clone();
    assert!(state.values().any(|data| data == "c"));
    assert!(cluster.members.values().all(|member| member.state == state));
}
