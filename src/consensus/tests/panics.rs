//! P: input of peers on which raft 0.7 panics. `Panicked` would mean that the last belt held.

use super::*;

/// Steps it in every role; returns what came of it. Nothing may have panicked.
fn in_every_role(make: impl Fn(u64) -> RaftMessage) -> Vec<Result<(), Rejected>> {
    let nodes = [follower(), pre_candidate(), candidate(), leader()];
    let step = |mut node: Consensus| {
        let result = node.step(id(2), make(node.term()));
        while node.drain().is_some() {
            node.persisted();
        }
        let panicked = matches!(node.ended(), Some(Ended::Panicked { .. }));
        assert!(!panicked, "{:?}", node.ended());
        result
    };
    nodes.into_iter().map(step).collect()
}

#[test]
fn p1_a_heartbeat_beyond_the_log_ends_the_node_as_log_lost() {
    let mut node = follower();
    node.step(id(2), heartbeat(2, 6)).unwrap_err();
    let expected = Ended::LogLost { leader: id(2), commit: 6, last_index: 5 };
    assert_eq!(node.ended(), Some(&expected));
    assert!(expected.to_string().contains("rejoin empty under a new id"));
    // The end is final: no vote, no acknowledgement, no proposal, no read.
    let request = vote_request(VOTE, 9, 99, 8);
    assert_eq!(node.step(id(3), request), Err(Rejected::Ignored(Ignored::Ended)));
    assert_eq!(node.propose(Bytes::new()), Err(ProposeError::Ended));
    assert_eq!(node.read_index([1; 16]), Err(ReadError::Ended));
    assert_eq!(node.campaign(), Err(CampaignError::Ended));
    node.tick();
    assert!(node.drain().is_none() && node.persisted().is_empty());
}

#[test]
fn p2_an_append_that_contradicts_a_commit_ends_the_node_as_divergent() {
    let contradictions = [
        append(3, (3, 2), 4, vec![entry(4, 3)]),
        append(3, (4, 1), 4, vec![]),
        append(3, (2, 1), 4, vec![entry(3, 2)]),
    ];
    for message in contradictions {
        let mut node = follower();
        node.step(id(3), message).unwrap_err();
        let ended = node.ended();
        assert!(
            matches!(ended, Some(Ended::Divergence(Divergence::Committed { .. }))),
            "{ended:?}"
        );
    }
    // What is not committed may be replaced.
    let mut node = follower();
    node.step(id(3), append(3, (4, 2), 5, vec![entry(5, 3)])).unwrap();
    let (_, committed) = flush(&mut node);
    assert_eq!(committed, [entry(5, 3)]);
}

#[test]
fn p3_entries_with_gaps_are_refused() {
    for indexes in [[7, 8], [6, 8], [5, 6], [6, 6], [u64::MAX, 0]] {
        let results = in_every_role(|term| {
            let list = indexes.map(|index| entry(index, 2)).to_vec();
            append(term, (5, 2), 4, list)
        });
        let expected = Err(Rejected::Misbehaving(Misbehaving::Entries));
        assert_eq!(results[0], expected, "{indexes:?}");
    }
}

#[test]
fn p4_an_append_beyond_the_log_is_rejected_and_commits_nothing() {
    let mut node = follower();
    let beyond = append(2, (40, 0), 90, vec![]);
    node.step(id(2), beyond).unwrap_err();
    node.step(id(2), append(2, (40, 2), 90, vec![])).unwrap();
    let (sent, _) = flush(&mut node);
    assert!(sent[0].1.reject);
    assert_eq!(node.commit(), 4);
}

#[test]
fn p5_read_index_messages_are_refused() {
    for kind in [15, 16] {
        for result in in_every_role(|term| message(kind, term)) {
            let expected = Rejected::Misbehaving(Misbehaving::ForbiddenKind);
            assert_eq!(result, Err(expected));
        }
    }
}

#[test]
fn p6_proposals_and_transfers_of_peers_are_refused() {
    for kind in [2, 13] {
        for given in [1, 2, 3] {
            for result in in_every_role(|_| message(kind, given)) {
                let expected = Rejected::Misbehaving(Misbehaving::ForbiddenKind);
                assert_eq!(result, Err(expected));
            }
        }
    }
}

#[test]
fn p7_a_vote_request_of_term_0_is_refused() {
    for kind in [VOTE, PRE_VOTE] {
        for result in in_every_role(|_| message(kind, 0)) {
            assert_eq!(result, Err(Rejected::Misbehaving(Misbehaving::Term)));
        }
    }
}

#[test]
fn p8_a_snapshot_with_impossible_members_is_refused() {
    let impossible = [
        meta(9, 2, &[1, 1], &[]),
        meta(9, 2, &[1], &[1]),
        meta(9, 2, &[], &[1]),
        meta(9, 2, &[2, 1], &[]),
        meta(9, 2, &(1..=65).collect::<Vec<_>>(), &[]),
        meta(0, 2, &[1], &[]),
        meta(9, 0, &[1], &[]),
        meta(9, 9, &[1], &[]),
        meta(u64::MAX, 2, &[1], &[]),
    ];
    for snapshot in impossible {
        let mut node = follower();
        node.expect_snapshot(Some((snapshot.index, snapshot.term)));
        let install = RaftMessage { snapshot: Some(snapshot.clone()), ..message(SNAPSHOT, 2) };
        let result = node.step(id(2), install);
        let expected = Err(Rejected::Misbehaving(Misbehaving::Snapshot));
        assert_eq!(result, expected, "{snapshot:?}");
    }
    let missing = follower().step(id(2), message(SNAPSHOT, 2));
    assert_eq!(missing, Err(Rejected::Misbehaving(Misbehaving::Snapshot)));
}

#[test]
fn p9_huge_numbers_are_refused_in_every_role() {
    type Set = fn(&mut RaftMessage, u64);
    let fields: [Set; 6] = [
        |m, value| m.term = value,
        |m, value| m.index = value,
        |m, value| m.commit = value,
        |m, value| m.log_term = value,
        |m, value| m.commit_term = value,
        |m, value| m.reject_hint = value,
    ];
    for kind in [
        APPEND,
        APPEND_RESPONSE,
        VOTE,
        VOTE_RESPONSE,
        HEARTBEAT,
        HEARTBEAT_RESPONSE,
        PRE_VOTE,
        PRE_VOTE_RESPONSE,
        TIMEOUT_NOW,
    ] {
        for set in fields {
            for value in [1 << 62, (1 << 62) + 1, u64::MAX - 1, u64::MAX] {
                let results = in_every_role(|term| {
                    let mut message = message(kind, term);
                    set(&mut message, value);
                    message
                });
                for result in results {
                    assert!(matches!(result, Err(Rejected::Misbehaving(_))), "{result:?}");
                }
            }
        }
    }
    // The largest that pass.
    let edge = (1 << 62) - 1;
    in_every_role(|term| append(term, (edge, term), edge, vec![]));
    let far = follower().step(id(3), vote_request(VOTE, 2 + (1 << 32), 5, 2));
    assert_eq!(far, Err(Rejected::Misbehaving(Misbehaving::Term)));
    in_every_role(|term| vote_request(VOTE, term + (1 << 32) - 1, edge, 2));
}

#[test]
fn p10_the_term_before_the_first_entry_is_kept() {
    let mut node = follower();
    node.compact(4);
    assert_eq!((node.first_index(), node.term_at(4)), (5, Some(2)));
    // raft looks for the conflict down to the entry before the first.
    let probe = append(3, (5, 1), 4, vec![]);
    node.step(id(3), probe).unwrap();
    let (sent, _) = flush(&mut node);
    assert!(sent[0].1.reject);
    assert_eq!(node.ended(), None);
    // And so does a leader, whatever hint comes.
    for hint in [0, 1, 4, 5, 6, 7, (1 << 62) - 1] {
        let mut node = leader();
        node.compact(6);
        let reject = RaftMessage {
            index: 6,
            reject: true,
            reject_hint: hint,
            log_term: 1,
            ..message(APPEND_RESPONSE, 3)
        };
        let _ = node.step(id(3), reject);
        flush(&mut node);
        assert_eq!(node.ended(), None);
    }
}

#[test]
fn the_last_belt_catches_a_panic_and_ends_the_node() {
    let mut node = leader();
    node.call("a test", |_| panic!("boom {}", 1));
    let expected = Ended::Panicked { during: "a test", message: "boom 1".into() };
    assert_eq!(node.ended(), Some(&expected));
    assert!(expected.to_string().contains("restart the node"));
    assert!(node.drain().is_none());
    assert_eq!(node.propose(Bytes::new()), Err(ProposeError::Ended));
    let result = node.step(id(2), heartbeat(3, 0));
    assert_eq!(result, Err(Rejected::Ignored(Ignored::Ended)));
}
