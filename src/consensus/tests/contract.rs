//! C: what raft asks of its caller; and ARCHITECTURE.md, rules 5, 6 and 11, as far as they live
//! here.

use super::*;

#[test]
fn c1_what_does_not_fit_together_does_not_open() {
    let open = |hard_state, entries| {
        let restored = RestoredLog {
            hard_state,
            snapshot: meta(4, 2, &[1, 2, 3], &[]),
            entries,
            may_vote: true,
        };
        Consensus::open(options(1), restored)
    };
    let hard_state = HardState::new(3, 1, 4);
    let error = |result: Result<Consensus, OpenError>| result.map(|_| ()).unwrap_err();
    // A commit beyond the log.
    let lost = error(open(HardState::new(3, 1, 7), entries(5, 6, 3)));
    assert_eq!(lost, OpenError::CommitLost { commit: 7, last_index: 6 });
    // Gaps, falling terms, another entry where the snapshot is, numbers out of range.
    for list in [
        entries(6, 7, 3),
        vec![entry(5, 3), entry(7, 3)],
        vec![entry(5, 3), entry(6, 2)],
        vec![entry(5, 1)],
        vec![entry(3, 1), entry(4, 1), entry(5, 3)],
        vec![entry(0, 1)],
        vec![entry(5, 1 << 62)],
        vec![entry(u64::MAX, 3)],
        vec![entry(3, 0), entry(4, 2)],
    ] {
        let result = error(open(hard_state, list.clone()));
        assert!(matches!(result, OpenError::Entries { .. }), "{list:?}");
    }
    for wrong in [HardState::new(1 << 62, 0, 4), HardState::new(3, u64::MAX, 4)] {
        assert_eq!(error(open(wrong, vec![])), OpenError::HardState(wrong));
    }
    // Options that raft refuses.
    for (election_ticks, heartbeat_ticks, inflight_max) in
        [(2, 2, 1), (10, 0, 1), (10, 2, 0), (u32::MAX, 2, 1)]
    {
        let options = Options { election_ticks, heartbeat_ticks, inflight_max, ..options(1) };
        let result = Consensus::open(options, founding(&[1], &[]));
        assert!(matches!(error(result), OpenError::Options(_)));
    }
}

#[test]
fn c1_the_hard_state_is_raised_to_what_the_log_shows() {
    let restored = |hard_state| RestoredLog {
        hard_state,
        snapshot: meta(4, 2, &[1, 2, 3], &[]),
        entries: entries(5, 6, 3),
        may_vote: true,
    };
    // The snapshot was applied, so it was committed; entries of term 3 were written, then a crash.
    let node = Consensus::open(options(1), restored(HardState::new(2, 3, 1))).unwrap();
    assert_eq!((node.commit(), node.applied_index()), (4, 4));
    assert_eq!((node.term(), node.vote()), (3, 0));
    let node = Consensus::open(options(1), restored(HardState::new(3, 2, 5))).unwrap();
    assert_eq!((node.commit(), node.term(), node.vote()), (5, 3, 2));
}

#[test]
fn c1_entries_that_the_snapshot_covers_are_kept_when_contiguous() {
    let restored = |entries| RestoredLog {
        hard_state: HardState::new(3, 1, 6),
        snapshot: meta(6, 3, &[1, 2, 3], &[]),
        entries,
        may_vote: true,
    };
    let mut list = entries(2, 4, 2);
    list.extend(entries(5, 8, 3));
    let mut node = Consensus::open(options(1), restored(list)).unwrap();
    assert_eq!((node.first_index(), node.last_index()), (3, 8));
    assert_eq!((node.term_at(2), node.applied_index()), (Some(2), 6));
    assert!(node.drain().is_none(), "nothing after the snapshot is committed");
    // A log that ends before the snapshot is covered by it.
    let node = Consensus::open(options(1), restored(entries(2, 4, 2))).unwrap();
    assert_eq!((node.first_index(), node.last_index()), (7, 6));
}

#[test]
fn c2_only_what_is_applied_leaves_memory_and_a_snapshot_waits_for_its_receiver() {
    let mut node = follower();
    let bytes = node.raw.store().bytes();
    node.compact(99);
    assert_eq!((node.first_index(), node.last_index()), (5, 5));
    assert!(node.raw.store().bytes() < bytes);
    assert_eq!(node.term_at(3), None);
    assert_eq!(node.ended(), None);
}

#[test]
fn c3_nothing_is_fed_while_a_barrier_is_out() {
    let mut node = leader();
    node.step(id(2), append(4, (6, 3), 6, entries(7, 7, 4))).unwrap();
    let write = node.drain().unwrap().write.unwrap();
    assert!(write.barrier && write.entries.len() == 1);
    let before = (node.term(), node.commit(), node.role());
    for _ in 0..100 {
        node.tick();
    }
    let result = node.step(id(3), append(9, (6, 3), 6, vec![]));
    assert_eq!(result, Err(Rejected::Ignored(Ignored::WriteOut)));
    assert_eq!(node.propose(Bytes::new()), Err(ProposeError::WriteOut));
    assert_eq!(node.read_index([9; 16]), Err(ReadError::WriteOut));
    assert_eq!(node.transfer_leader(id(2)), Err(TransferError::WriteOut));
    assert_eq!(node.campaign(), Err(CampaignError::WriteOut));
    let change = node.propose_change(MembershipChange::Remove(id(2)), Bytes::new());
    assert_eq!(change, Err(ChangeError::Propose(ProposeError::WriteOut)));
    node.unreachable(id(2));
    node.report_snapshot(id(2), false);
    assert!(node.drain().is_none());
    assert_eq!(before, (node.term(), node.commit(), node.role()));
    node.persisted();
    assert!(node.persisted().is_empty(), "once only");
    flush(&mut node);
    assert_eq!(node.ended(), None);
    assert!(node.counters()[&Rejected::Ignored(Ignored::WriteOut)] == 1);
}

#[test]
fn c3_raft_hears_of_a_change_only_when_no_barrier_is_out() {
    let mut node = follower();
    let data = MembershipChange::AddLearner(id(4)).encode(Bytes::new());
    let change = LogEntry::new(6, 2, EntryKind::Membership, data);
    node.step(id(2), append(2, (5, 2), 5, vec![change])).unwrap();
    flush(&mut node);
    // A leader of another term commits it: that term is a barrier.
    node.step(id(3), append(3, (6, 2), 6, vec![])).unwrap();
    let batch = node.drain().unwrap();
    assert!(batch.write.unwrap().barrier && batch.committed.len() == 1);
    let applied = node.applied_change(&batch.committed[0]).unwrap();
    assert_eq!(applied.change, Some(MembershipChange::AddLearner(id(4))));
    node.applied(6);
    assert_eq!((node.learners(), node.progress(id(4))), (vec![id(4)], None));
    node.persisted();
    assert!(node.raw.raft.prs().get(4).is_some());
}

#[test]
fn c6_appends_are_durable_in_order_and_nothing_is_acknowledged_before() {
    let mut node = follower();
    let acks = |sent: &[(NodeId, RaftMessage)]| -> Vec<u64> {
        let acks = sent.iter().filter(|(_, it)| it.kind == APPEND_RESPONSE && !it.reject);
        acks.map(|(_, it)| it.index).collect()
    };
    for index in [6, 7] {
        node.step(id(2), append(2, (index - 1, 2), 5, entries(index, index, 2))).unwrap();
        let batch = node.drain().unwrap();
        assert_eq!(acks(&batch.messages), []);
        assert_eq!(batch.write.unwrap().entries, entries(index, index, 2));
    }
    // An append of nothing that is known to match: its answer acknowledges entries 6 and 7.
    node.step(id(2), append(2, (7, 2), 7, vec![])).unwrap();
    node.step(id(2), heartbeat(2, 5)).unwrap();
    let batch = node.drain().unwrap();
    assert_eq!(acks(&batch.messages), [], "an acknowledgement before fsync");
    assert_eq!(batch.messages[0].1.kind, HEARTBEAT_RESPONSE, "it acknowledges no entry");
    assert!(batch.committed.is_empty(), "committed, but not durable here");
    // A campaign would vote for entries that are not durable, and so would an answer to one.
    assert_eq!(node.campaign(), Err(CampaignError::WriteOut));
    for _ in 0..100 {
        node.tick();
    }
    assert_eq!(node.role(), Role::Follower);
    assert_eq!(acks(&node.persisted()), [6]);
    assert_eq!(node.drain().unwrap().committed, entries(6, 6, 2));
    assert_eq!(acks(&node.persisted()), [7, 7]);
    assert_eq!(node.drain().unwrap().committed, entries(7, 7, 2));
}

#[test]
fn c6_a_leader_goes_on_behind_its_appends_and_does_not_count_them() {
    let mut node = leader();
    for data in ["a", "b"] {
        node.propose(Bytes::from_static(data.as_bytes())).unwrap();
        let batch = node.drain().unwrap();
        assert!(!batch.write.unwrap().barrier);
        assert!(batch.messages.iter().any(|(_, it)| it.kind == APPEND), "written meanwhile");
    }
    let ack = |index| RaftMessage { index, ..message(APPEND_RESPONSE, 3) };
    node.step(id(2), ack(8)).unwrap();
    flush_unpersisted(&mut node);
    assert_eq!(node.commit(), 6, "one of three has it, besides this node's disk");
    node.step(id(3), ack(8)).unwrap();
    let batch = node.drain().unwrap();
    assert_eq!(node.commit(), 8, "two of three have it");
    assert!(batch.committed.is_empty(), "not durable here");
    node.persisted();
    assert_eq!(node.drain().unwrap().committed.last().map(|it| it.index), Some(7));
    node.persisted();
    assert_eq!(node.drain().unwrap().committed.last().map(|it| it.index), Some(8));
}

fn flush_unpersisted(node: &mut Consensus) {
    while let Some(batch) = node.drain() {
        assert!(batch.write.is_none());
    }
}

#[test]
fn c4_nobody_campaigns_on_entries_that_are_not_durable() {
    // A single voter would lead at once, and raft asserts that its log is durable by then.
    let mut node = Consensus::open(options(1), founding(&[1], &[])).unwrap();
    node.step(id(2), append(2, (1, 1), 1, entries(2, 3, 2))).unwrap();
    let result = node.step(id(2), message(TIMEOUT_NOW, 2));
    assert_eq!(result, Err(Rejected::Ignored(Ignored::Undrained)));
    assert_eq!(node.campaign(), Err(CampaignError::WriteOut));
    for _ in 0..100 {
        node.tick();
    }
    assert_eq!((node.role(), node.ended()), (Role::Follower, None));
    flush(&mut node);
    node.campaign().unwrap();
    flush(&mut node);
    assert_eq!((node.role(), node.ended()), (Role::Leader, None));
}

#[test]
fn c5_a_leader_does_not_remove_itself_and_survives_its_removal_by_another() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    cluster.elect(1);
    let result = cluster.node(1).propose_change(MembershipChange::Remove(id(1)), Bytes::new());
    assert_eq!(result, Err(ChangeError::RemovesLeader));
    // 1 proposes to remove 2, and loses the leadership to 2 before anybody applied it.
    cluster.cut.extend([(2, 1), (3, 1)]);
    cluster.node(1).propose_change(MembershipChange::Remove(id(2)), Bytes::new()).unwrap();
    cluster.settle();
    cluster.isolate(1);
    cluster.tick_all(12);
    while cluster.lead() != Some(2) {
        let _ = cluster.node(2).campaign();
        cluster.settle();
        cluster.tick_all(1);
        if cluster.members[&2].consensus.voters() == [id(1), id(3)] {
            break;
        }
    }
    let removed =
        cluster.changes.iter().any(|(node, _, applied)| *node == 2 && applied.removed_self);
    assert!(removed);
    assert_eq!(cluster.node(2).ended(), None);
    assert_eq!(cluster.node(2).role(), Role::Follower);
    assert_eq!(cluster.node(2).campaign(), Err(CampaignError::MayNotVote));
    // The others go on without it.
    cluster.cut.clear();
    cluster.tick_all(40);
    let lead = cluster.lead().unwrap();
    cluster.propose(lead, "after");
    for node in [1, 3] {
        assert_eq!(cluster.node(node).voters(), [id(1), id(3)]);
        let last = cluster.members[&node].state.values().next_back();
        assert_eq!(last, Some(&Bytes::from_static(b"after")));
    }
}

#[test]
fn c6_a_snapshot_and_the_entries_after_it_are_one_write() {
    let mut node = follower();
    node.expect_snapshot(Some((9, 2)));
    let install =
        RaftMessage { snapshot: Some(meta(9, 2, &[1, 2, 3], &[])), ..message(SNAPSHOT, 2) };
    node.step(id(2), install).unwrap();
    node.step(id(2), append(2, (9, 2), 10, entries(10, 11, 2))).unwrap();
    let batch = node.drain().unwrap();
    let write = batch.write.unwrap();
    assert_eq!(write.install.unwrap().index, 9);
    assert_eq!(write.entries, entries(10, 11, 2));
    assert_eq!(write.hard_state.unwrap().commit, 10);
    assert!(batch.messages.is_empty() && batch.committed.is_empty());
    let acks: Vec<u64> = node.persisted().iter().map(|(_, m)| m.index).collect();
    assert_eq!(acks, [9, 11]);
    assert_eq!((node.first_index(), node.applied_index()), (10, 9));
    assert_eq!(node.drain().unwrap().committed, [entry(10, 2)]);
}

#[test]
fn c7_the_window_of_messages_in_flight_is_set_once() {
    // raft panics on a full window if it is resized in between: no source of this room does.
    let sources = [
        include_str!("../mod.rs"),
        include_str!("../command.rs"),
        include_str!("../open.rs"),
        include_str!("../status.rs"),
    ];
    let call = ["adjust", "max_inflight"].join("_");
    assert!(sources.iter().all(|source| !source.contains(&call)));
    // A window that is full: the leader waits, and goes on when it is answered.
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    cluster.elect(1);
    for _ in 0..200 {
        cluster.node(1).propose(Bytes::from_static(b"x")).unwrap();
        cluster.drain(1);
    }
    cluster.settle();
    assert_eq!(cluster.node(1).ended(), None);
    assert_eq!(cluster.node(1).progress(id(2)).unwrap().matched, 202);
}

#[test]
fn c8_after_a_failed_write_nothing_leaves() {
    let mut node = follower();
    node.step(id(2), append(2, (5, 2), 5, entries(6, 7, 2))).unwrap();
    let batch = node.drain().unwrap();
    assert!(batch.messages.is_empty(), "an acknowledgement before fsync");
    // The disk failed: `persisted` is never called.
    for _ in 0..50 {
        node.tick();
        assert!(node.drain().is_none());
    }
    // Another term is a write after that one: it will not be durable either.
    node.step(id(3), append(9, (7, 2), 5, vec![])).unwrap();
    let batch = node.drain().unwrap();
    assert!(batch.messages.is_empty() && batch.write.unwrap().barrier);
    assert!(node.drain().is_none());
}

#[test]
fn rule_5_a_term_that_is_not_durable_sends_nothing() {
    let mut node = Consensus::open(options(1), founding(&[1], &[2])).unwrap();
    node.campaign().unwrap();
    assert_eq!(node.role(), Role::Leader, "a single voter leads at once");
    node.propose(Bytes::from_static(b"x")).unwrap();
    assert_eq!(node.snapshot_message(id(2), 1, 1), None);
    let batch = node.drain().unwrap();
    let hard_state = batch.write.unwrap().hard_state.unwrap();
    assert_eq!((hard_state.term, hard_state.vote), (2, 1));
    assert!(batch.messages.is_empty(), "{:?}", batch.messages);
    assert!(batch.committed.is_empty());
    assert_eq!(node.snapshot_message(id(2), 1, 1), None);
    // A crash here would forget term 2, and no learner has anything of it.
    let held = node.persisted();
    assert!(held.iter().any(|(to, m)| *to == id(2) && m.kind == APPEND));
    // From then on appends leave before they are durable here.
    flush(&mut node);
    let ack = RaftMessage { index: 3, ..message(APPEND_RESPONSE, 2) };
    node.step(id(2), ack).unwrap();
    flush(&mut node);
    node.propose(Bytes::from_static(b"y")).unwrap();
    let batch = node.drain().unwrap();
    assert!(batch.write.is_some() && !batch.messages.is_empty());
}

#[test]
fn rule_5_a_commit_alone_causes_no_write() {
    let mut node = follower();
    node.step(id(2), heartbeat(2, 5)).unwrap();
    let batch = node.drain().unwrap();
    assert_eq!((batch.write, batch.committed), (None, entries(5, 5, 2)));
    assert!(!batch.messages.is_empty());
    // It rides on the next write, with what the last one made possible.
    node.step(id(2), append(2, (5, 2), 6, entries(6, 6, 2))).unwrap();
    let write = node.drain().unwrap().write.unwrap();
    assert_eq!(write.hard_state, Some(HardState::new(2, 0, 6)));
    node.persisted();
    assert_eq!(node.drain().unwrap().committed, [entry(6, 2)]);
}

#[test]
fn s11_a_single_voter_persists_before_it_applies() {
    let mut node = Consensus::open(options(1), founding(&[1], &[])).unwrap();
    node.campaign().unwrap();
    flush(&mut node);
    node.propose(Bytes::from_static(b"x")).unwrap();
    let batch = node.drain().unwrap();
    assert!(batch.committed.is_empty());
    assert_eq!(batch.write.unwrap().entries.len(), 1);
    node.persisted();
    let batch = node.drain().unwrap();
    assert_eq!(batch.write, None);
    assert_eq!(batch.committed[0].data, Bytes::from_static(b"x"));
}

#[test]
fn s5_without_its_tail_a_node_neither_votes_nor_campaigns_until_it_caught_up() {
    let restored = RestoredLog {
        hard_state: HardState::new(2, 0, 3),
        entries: entries(2, 4, 2),
        may_vote: false,
        ..founding(&[1, 2, 3], &[])
    };
    let mut node = Consensus::open(options(1), restored).unwrap();
    for kind in [VOTE, PRE_VOTE] {
        let result = node.step(id(2), vote_request(kind, 3, 99, 2));
        assert_eq!(result, Err(Rejected::Ignored(Ignored::MayNotVote)));
    }
    for _ in 0..100 {
        node.tick();
    }
    assert_eq!(node.role(), Role::Follower);
    assert_eq!(node.campaign(), Err(CampaignError::MayNotVote));
    // The old leader still believes in the tail: not lost, but known to be missing.
    node.step(id(2), heartbeat(2, 6)).unwrap();
    let result = node.step(id(2), message(TIMEOUT_NOW, 2));
    assert_eq!(result, Err(Rejected::Ignored(Ignored::MayNotVote)));
    assert!(!node.may_vote());
    // A new leader's commit of an earlier term may not be the last one of that term.
    node.step(id(3), append(3, (4, 2), 4, vec![])).unwrap();
    flush(&mut node);
    assert!(!node.may_vote());
    let mut list = entries(5, 6, 2);
    list.push(entry(7, 3));
    node.step(id(3), append(3, (4, 2), 7, list)).unwrap();
    assert!(!node.may_vote(), "not durable yet");
    flush(&mut node);
    assert!(node.may_vote());
    for _ in 0..20 {
        node.tick();
    }
    assert_eq!(node.role(), Role::PreCandidate);
    node.step(id(2), vote_request(VOTE, 9, 99, 8)).unwrap();
    assert_eq!((node.term(), node.vote()), (9, 2));
}

#[test]
fn s5_the_leader_that_may_count_a_lost_acknowledgement_proves_nothing() {
    // 2 leads in term 2, and has an acknowledgement of entry 5 from node 1, which lost it.
    let restored = RestoredLog {
        hard_state: HardState::new(2, 0, 3),
        entries: entries(2, 4, 2),
        may_vote: false,
        ..founding(&[1, 2, 3], &[])
    };
    let mut node = Consensus::open(options(1), restored).unwrap();
    node.step(id(2), append(2, (4, 2), 4, vec![])).unwrap();
    flush(&mut node);
    assert!(!node.may_vote(), "2 may commit 5 now, by its own copy and the lost one");
    let may_not = Err(Rejected::Ignored(Ignored::MayNotVote));
    assert_eq!(node.step(id(3), vote_request(VOTE, 3, 4, 2)), may_not);
    // Caught up with 2, it asks for a leader that counts anew, and helps none but 2 to be it.
    node.tick();
    let (sent, _) = flush(&mut node);
    assert_eq!((node.term(), sent), (3, vec![]));
    node.tick();
    assert_eq!(node.term(), 3, "once");
    node.step(id(2), heartbeat(2, 4)).unwrap();
    let (sent, _) = flush(&mut node);
    assert_eq!((sent[0].1.kind, sent[0].1.term), (APPEND_RESPONSE, 3));
    assert_eq!(node.step(id(3), vote_request(VOTE, 4, 4, 2)), may_not);
    node.step(id(2), vote_request(VOTE, 4, 5, 2)).unwrap();
    assert_eq!(node.vote(), 2);
    let list = vec![entry(5, 2), entry(6, 4)];
    node.step(id(2), append(4, (4, 2), 6, list)).unwrap();
    flush(&mut node);
    assert!(node.may_vote());
}

#[test]
fn rule_6_a_round_answers_with_a_commit_from_after_it_was_asked() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    cluster.elect(1);
    cluster.node(1).read_index([1; 16]).unwrap();
    cluster.drain(1);
    cluster.propose(1, "between");
    cluster.node(1).read_index([2; 16]).unwrap();
    cluster.settle();
    assert_eq!(cluster.reads, [(1, [1; 16], 2), (1, [2; 16], 3)]);
    for used in [[1; 16], [2; 16]] {
        let result = cluster.node(1).read_index(used);
        assert_eq!(result, Err(ReadError::UsedContext));
    }
}

#[test]
fn rule_11_any_leader_hands_out_a_snapshot_that_its_log_follows() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    cluster.elect(1);
    for data in ["a", "b", "c"] {
        cluster.propose(1, data);
    }
    cluster.change(1, MembershipChange::AddLearner(id(4)));
    cluster.propose(1, "d");
    cluster.tick_all(3);
    // The conf state is the one at the index, and must name the receiver.
    let node = cluster.node(1);
    let last = node.last_index();
    assert_eq!(node.snapshot_message(id(4), last - 3, 2), None);
    assert_eq!(node.snapshot_message(id(4), last, 1), None, "other term");
    assert_eq!(node.snapshot_message(id(4), last + 1, 2), None);
    let message = node.snapshot_message(id(4), last - 1, 2).unwrap();
    let expected = meta(last - 1, 2, &[1, 2, 3], &[4]);
    assert_eq!((message.snapshot, message.term), (Some(expected), 2));
    let message = node.snapshot_message(id(2), last - 3, 2).unwrap();
    assert_eq!(message.snapshot.unwrap(), meta(last - 3, 2, &[1, 2, 3], &[]));
    node.compact(last);
    assert_eq!(node.snapshot_message(id(4), last - 1, 2), None, "log gone");
    assert!(node.snapshot_message(id(4), last, 2).is_some());
    // Another leader, under its own term, for the snapshot of the first.
    cluster.node(1).transfer_leader(id(2)).unwrap();
    cluster.settle();
    assert_eq!(cluster.lead(), Some(2));
    assert_eq!(cluster.node(1).snapshot_message(id(4), last, 2), None);
    let message = cluster.node(2).snapshot_message(id(4), last - 1, 2).unwrap();
    assert_eq!((message.term, message.snapshot.unwrap().index), (3, last - 1));
}

#[test]
fn rule_11_only_the_staged_snapshot_is_stepped() {
    let mut node = follower();
    let install = |index, term| RaftMessage {
        snapshot: Some(meta(index, term, &[1, 2, 3], &[])),
        ..message(SNAPSHOT, 2)
    };
    let not_staged = Err(Rejected::Ignored(Ignored::NotStaged));
    assert_eq!(node.step(id(2), install(9, 2)), not_staged);
    node.expect_snapshot(Some((9, 2)));
    assert_eq!(node.step(id(2), install(8, 2)), not_staged);
    assert_eq!(node.step(id(2), install(9, 1)), not_staged);
    node.expect_snapshot(None);
    assert_eq!(node.step(id(2), install(9, 2)), not_staged);
    assert!(node.drain().is_none());
    // Outdated by what is committed: raft ignores it, and says how far this node is.
    node.expect_snapshot(Some((3, 2)));
    node.step(id(2), install(3, 2)).unwrap();
    let batch = node.drain().unwrap();
    assert_eq!((batch.write, batch.messages[0].1.index), (None, 4));
    // One that contradicts a commit.
    node.expect_snapshot(Some((3, 1)));
    node.step(id(2), install(3, 1)).unwrap_err();
    assert!(matches!(node.ended(), Some(Ended::Divergence(_))));
}

#[test]
fn a_change_inside_a_snapshot_that_raft_took_already_is_not_made_twice() {
    // Entry 6 adds a learner, and is to be applied; before it is, a snapshot comes in which that
    // learner is gone again.
    let mut node = follower();
    let data = MembershipChange::AddLearner(id(4)).encode(Bytes::new());
    let change = LogEntry::new(6, 2, EntryKind::Membership, data);
    node.step(id(3), append(3, (5, 2), 6, vec![change])).unwrap();
    node.drain().unwrap();
    node.persisted();
    node.expect_snapshot(Some((9, 3)));
    let install =
        RaftMessage { snapshot: Some(meta(9, 3, &[1, 2, 3], &[])), ..message(SNAPSHOT, 3) };
    node.step(id(3), install).unwrap();
    let batch = node.drain().unwrap();
    assert_eq!(batch.committed.last().unwrap().index, 6);
    assert_eq!(batch.write.unwrap().install.unwrap().index, 9);
    for entry in &batch.committed {
        if entry.kind == EntryKind::Membership {
            node.applied_change(entry).unwrap();
        }
        node.applied(entry.index);
    }
    assert_eq!(node.learners(), [id(4)], "as of entry 6");
    node.persisted();
    flush(&mut node);
    assert_eq!((node.applied_index(), node.learners()), (9, vec![]));
    assert_eq!(node.progress(id(4)), None);
    assert_eq!(node.ended(), None);
}

#[test]
fn consensus_can_move_to_another_thread() {
    fn is_send<T: Send>() {}
    is_send::<Consensus>();
}
