//! H: raft does wrong without a panic.

use super::*;

fn misbehaving(reason: Misbehaving) -> Result<(), Rejected> {
    Err(Rejected::Misbehaving(reason))
}

#[test]
fn h1_term_0_is_refused_in_every_role_and_never_lowers_a_term() {
    for mut node in [follower(), pre_candidate(), candidate(), leader()] {
        let before = (node.term(), node.vote(), node.commit(), node.role());
        for kind in [APPEND, HEARTBEAT, SNAPSHOT, TIMEOUT_NOW, VOTE, PRE_VOTE] {
            let result = node.step(id(2), message(kind, 0));
            assert_eq!(result, misbehaving(Misbehaving::Term));
        }
        let after = (node.term(), node.vote(), node.commit(), node.role());
        assert_eq!(before, after);
        assert!(node.drain().is_none());
    }
}

#[test]
fn h2_a_read_context_is_used_once_and_reads_of_peers_never_reach_raft() {
    let mut node = leader();
    node.read_index([1; 16]).unwrap();
    assert_eq!(node.read_index([1; 16]), Err(ReadError::UsedContext));
    let (sent, _) = flush(&mut node);
    let asked = sent.iter().find(|(to, _)| *to == id(2)).unwrap();
    assert_eq!(asked.1.context, Bytes::copy_from_slice(&[1; 16]));
    let answer = RaftMessage { context: asked.1.context.clone(), ..message(HEARTBEAT_RESPONSE, 3) };
    node.step(id(2), answer.clone()).unwrap();
    assert_eq!(node.drain().unwrap().reads, [([1; 16], 6)]);
    // The old answer, duplicated by the network, confirms neither itself nor a newer read.
    node.read_index([2; 16]).unwrap();
    node.step(id(2), answer).unwrap();
    assert_eq!(node.read_index([1; 16]), Err(ReadError::UsedContext));
    while let Some(batch) = node.drain() {
        assert!(batch.reads.is_empty(), "a used answer confirmed a read");
    }
    for kind in [15, 16] {
        let result = node.step(id(2), message(kind, 3));
        assert_eq!(result, misbehaving(Misbehaving::ForbiddenKind));
    }
}

#[test]
fn h2_a_deposed_leader_answers_no_read() {
    let mut node = leader();
    node.read_index([1; 16]).unwrap();
    flush(&mut node);
    node.step(id(3), append(4, (6, 3), 6, vec![])).unwrap();
    let answer =
        RaftMessage { context: Bytes::copy_from_slice(&[1; 16]), ..message(HEARTBEAT_RESPONSE, 3) };
    node.step(id(2), answer).unwrap();
    while let Some(batch) = node.drain() {
        assert!(batch.reads.is_empty());
        node.persisted();
    }
    let leader = Some(id(3));
    assert_eq!(node.read_index([2; 16]), Err(ReadError::NotLeader { leader }));
}

#[test]
fn h2_a_leader_reads_only_after_a_commit_in_its_term() {
    let mut node = candidate();
    node.step(id(2), message(VOTE_RESPONSE, 3)).unwrap();
    flush(&mut node);
    assert_eq!(node.role(), Role::Leader);
    assert_eq!(node.read_index([1; 16]), Err(ReadError::NotReady));
}

#[test]
fn h3_a_forged_acknowledgement_commits_nothing() {
    let mut node = leader();
    node.propose(Bytes::from_static(b"x")).unwrap();
    flush(&mut node);
    let ack = |index, commit| RaftMessage { index, commit, ..message(APPEND_RESPONSE, 3) };
    for forged in [ack(8, 0), ack(7, 8), ack(1 << 61, 0)] {
        let result = node.step(id(2), forged);
        assert_eq!(result, misbehaving(Misbehaving::Acknowledgement));
    }
    assert_eq!(node.commit(), 6);
    node.step(id(2), ack(7, 6)).unwrap();
    assert_eq!(node.commit(), 7);
}

#[test]
fn h3_an_append_after_nothing_is_not_acknowledged() {
    let mut node = follower();
    for place in [(9, 0), (0, 2), (0, 0)] {
        let result = node.step(id(2), append(2, place, 9, vec![]));
        assert_eq!(result, misbehaving(Misbehaving::LogTerm), "{place:?}");
    }
    assert!(node.drain().is_none());
}

#[test]
fn h5_what_was_restored_counts_as_durable_and_what_was_not_drained_does_not() {
    // raft takes restored entries as durable, so they must have been synced: the log's duty. What
    // comes later counts only after `persisted`.
    let mut restored = founding(&[1], &[]);
    restored.hard_state = HardState::new(2, 1, 1);
    restored.entries = entries(2, 4, 2);
    let mut node = Consensus::open(options(1), restored).unwrap();
    node.campaign().unwrap();
    let batch = node.drain().unwrap();
    assert_eq!(batch.write.unwrap().entries.len(), 1);
    assert!(batch.committed.is_empty());
    assert_eq!(node.commit(), 1);
    node.persisted();
    assert_eq!(node.commit(), 5);
}

#[test]
fn h6_two_leaders_in_one_term_end_the_node() {
    for kind in [APPEND, HEARTBEAT, SNAPSHOT] {
        for (mut node, term, known) in [(follower(), 2, 2), (leader(), 3, 1)] {
            let forged = RaftMessage {
                index: u64::from(kind == APPEND) * 4,
                log_term: u64::from(kind == APPEND) * 2,
                ..message(kind, term)
            };
            let result = node.step(id(3), forged);
            assert_eq!(result, Err(Rejected::Ignored(Ignored::Ended)));
            let expected = Divergence::TwoLeaders { term, known: id(known), other: id(3) };
            assert_eq!(node.ended(), Some(&Ended::Divergence(expected)));
            assert!(node.drain().is_none());
        }
    }
    // The leader is remembered through a campaign in the same term.
    let mut node = pre_candidate();
    node.step(id(3), heartbeat(2, 0)).unwrap_err();
    assert!(matches!(node.ended(), Some(Ended::Divergence(_))));
}

#[test]
fn h7_terms_of_entries_neither_fall_nor_pass_the_leaders() {
    let mut node = follower();
    for terms in [[2, 1], [2, 4], [1, 2], [0, 0], [3, 2]] {
        let list = vec![entry(6, terms[0]), entry(7, terms[1])];
        let result = node.step(id(3), append(3, (5, 2), 4, list));
        assert_eq!(result, misbehaving(Misbehaving::Entries), "{terms:?}");
    }
    let log_term_ahead = append(3, (5, 4), 4, vec![]);
    let result = node.step(id(3), log_term_ahead);
    assert_eq!(result, misbehaving(Misbehaving::LogTerm));
    assert_eq!((node.term(), node.last_index()), (2, 5));
}

#[test]
fn h8_nobody_has_a_priority() {
    let mut node = follower();
    for priority in [-1, 1, i64::MIN, i64::MAX] {
        let request = RaftMessage { priority, ..vote_request(VOTE, 3, 5, 2) };
        let result = node.step(id(3), request);
        assert_eq!(result, misbehaving(Misbehaving::Priority));
    }
    node.campaign().unwrap();
    let (sent, _) = flush(&mut node);
    assert!(!sent.is_empty() && sent.iter().all(|(_, message)| message.priority == 0));
}

#[test]
fn h9_a_read_waits_for_a_round_of_heartbeats() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    cluster.elect(1);
    // Partitioned a moment ago, the leader holds what would be its lease: it must not answer.
    cluster.isolate(1);
    cluster.node(1).read_index([1; 16]).unwrap();
    cluster.settle();
    assert!(cluster.reads.is_empty());
    cluster.cut.clear();
    cluster.node(1).read_index([2; 16]).unwrap();
    cluster.settle();
    assert!(cluster.reads.contains(&(1, [2; 16], 2)));
}

#[test]
fn h10_a_change_acts_when_it_is_applied_and_an_empty_one_does_nothing() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    cluster.elect(1);
    cluster.isolate(1);
    let change = MembershipChange::AddLearner(id(4));
    cluster.node(1).propose_change(change, Bytes::new()).unwrap();
    cluster.settle();
    assert!(cluster.node(1).learners().is_empty(), "not committed yet");
    cluster.cut.clear();
    cluster.tick_all(3);
    for node in [1, 2, 3] {
        assert_eq!(cluster.node(node).learners(), [id(4)]);
    }
    // What raft ignored comes as an empty entry, and is the same no-op everywhere.
    let mut node = follower();
    let before = (node.voters(), node.learners());
    for kind in [EntryKind::Membership, EntryKind::Normal] {
        let entry = LogEntry::new(5, 2, kind, Bytes::new());
        let applied = node.applied_change(&entry).unwrap();
        assert_eq!(applied.change, None);
    }
    assert_eq!(before, (node.voters(), node.learners()));
}

#[test]
fn h10_a_restarted_node_gets_the_changes_after_its_snapshot_again() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    cluster.elect(1);
    cluster.change(1, MembershipChange::AddLearner(id(4)));
    cluster.tick_all(3);
    cluster.restart(2, true);
    assert!(cluster.node(2).learners().is_empty());
    cluster.tick_all(3);
    assert_eq!(cluster.node(2).learners(), [id(4)]);
    assert_eq!(cluster.members[&2].state, cluster.members[&1].state);
}

#[test]
fn h11_node_0_is_nobody() {
    // The type has no 0, so no sender is 0; and a vote for nobody is not a vote for node 0.
    assert_eq!(NodeId::new(0), None);
    let result = follower().step(id(1), vote_request(VOTE, 3, 5, 2));
    assert_eq!(result, misbehaving(Misbehaving::FromSelf));
    for snapshot in [meta(9, 2, &[0, 1], &[]), meta(9, 2, &[1], &[0])] {
        let mut node = follower();
        node.expect_snapshot(Some((9, 2)));
        let install = RaftMessage { snapshot: Some(snapshot), ..message(SNAPSHOT, 2) };
        let result = node.step(id(2), install);
        assert_eq!(result, misbehaving(Misbehaving::Snapshot));
    }
}

#[test]
fn h12_founders_start_from_one_snapshot_and_joiners_from_nothing() {
    let open = |snapshot| {
        let restored = RestoredLog { snapshot, ..founding(&[1], &[]) };
        Consensus::open(options(1), restored)
    };
    for snapshot in [
        SnapshotMeta::default(),
        meta(0, 1, &[1], &[]),
        meta(1, 0, &[1], &[]),
        meta(1, 1, &[], &[1]),
        meta(1, 1, &[2, 1], &[]),
        meta(1, 1, &[1, 1], &[]),
        meta(1, 1, &[1], &[1]),
        meta(1, 1, &[1, 1 << 62], &[]),
        meta(1 << 62, 1, &[1], &[]),
    ] {
        assert!(open(snapshot.clone()).is_err(), "{snapshot:?}");
    }
    assert!(open(meta(1, 1, &[1], &[])).is_ok());
    let mut joiner = Consensus::open(options(4), nothing()).unwrap();
    for _ in 0..100 {
        joiner.tick();
        assert!(joiner.drain().is_none());
    }
    assert_eq!(joiner.campaign(), Err(CampaignError::MayNotVote));
    for kind in [VOTE, PRE_VOTE] {
        let result = joiner.step(id(1), vote_request(kind, 5, 9, 4));
        assert_eq!(result, Err(Rejected::Ignored(Ignored::MayNotVote)));
    }
    // Its log begins with a snapshot, never with entry 1.
    let result = joiner.step(id(1), append(2, (0, 0), 1, vec![entry(1, 1)]));
    assert_eq!(result, misbehaving(Misbehaving::LogTerm));
}

#[test]
fn h20_one_schedule_twice_sends_the_same_bytes() {
    let first = fuzz::lossy_run(7);
    assert!(first.len() > 10_000, "{}", first.len());
    assert!(first == fuzz::lossy_run(7), "two runs of one seed differ");
    assert!(first != fuzz::lossy_run(8), "the seed has no effect: the test sees nothing");
}
