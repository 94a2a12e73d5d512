//! V: what a message must be before raft sees it, field by field.

use super::*;

const KINDS: [u32; 10] = [
    APPEND,
    APPEND_RESPONSE,
    VOTE,
    VOTE_RESPONSE,
    SNAPSHOT,
    HEARTBEAT,
    HEARTBEAT_RESPONSE,
    TIMEOUT_NOW,
    PRE_VOTE,
    PRE_VOTE_RESPONSE,
];

fn judged(node: u64, message: RaftMessage) -> Rejected {
    follower().step(id(node), message).unwrap_err()
}

#[test]
fn v_ten_types_pass_and_no_other_number_does() {
    for kind in (0..64).chain([1 << 31, u32::MAX - 1, u32::MAX]) {
        let mut node = follower();
        let result = node.step(id(2), message(kind, 2));
        let expected = match kind {
            0..19 if KINDS.contains(&kind) => None,
            0..19 => Some(Misbehaving::ForbiddenKind),
            _ => Some(Misbehaving::UnknownKind),
        };
        match expected {
            Some(reason) => assert_eq!(result, Err(Rejected::Misbehaving(reason)), "{kind}"),
            None => {
                let kinds = [Misbehaving::ForbiddenKind, Misbehaving::UnknownKind];
                let refused = kinds.map(|kind| Err(Rejected::Misbehaving(kind)));
                assert!(!refused.contains(&result), "{kind}");
            }
        }
    }
}

#[test]
fn v_each_type_has_its_own_fields_only() {
    type Set = fn(&mut RaftMessage);
    let fields: [(Set, &[u32]); 7] = [
        (|m| m.entries = entries(6, 6, 2), &[APPEND]),
        (|m| m.snapshot = Some(meta(9, 2, &[1], &[])), &[SNAPSHOT]),
        (|m| m.reject_hint = 1, &[APPEND_RESPONSE]),
        (|m| m.reject = true, &[APPEND_RESPONSE, VOTE_RESPONSE, PRE_VOTE_RESPONSE]),
        (|m| m.context = Bytes::from_static(&[1; 16]), &[HEARTBEAT, HEARTBEAT_RESPONSE]),
        (
            |m| m.context = Bytes::from_static(b"CampaignTransfer"),
            &[VOTE, HEARTBEAT, HEARTBEAT_RESPONSE],
        ),
        (|m| m.context = Bytes::from_static(&[1; 15]), &[]),
    ];
    for (number, (set, allowed)) in fields.into_iter().enumerate() {
        for kind in KINDS {
            let mut message = message(kind, 1);
            set(&mut message);
            let result = follower().step(id(2), message);
            let refused = matches!(
                result,
                Err(Rejected::Misbehaving(Misbehaving::Unexpected(_) | Misbehaving::Context))
            );
            assert_eq!(refused, !allowed.contains(&kind), "field {number} of {kind}");
        }
    }
}

#[test]
fn v_nobody_asks_for_a_snapshot() {
    for kind in KINDS {
        let message = RaftMessage { request_snapshot: 1, ..message(kind, 2) };
        let expected = Rejected::Misbehaving(Misbehaving::RequestSnapshot);
        assert_eq!(judged(2, message), expected);
    }
}

#[test]
fn v_a_candidate_has_a_log_of_an_earlier_term() {
    for kind in [VOTE, PRE_VOTE] {
        for (index, log_term) in [(0, 0), (0, 2), (5, 0), (5, 3)] {
            let request = vote_request(kind, 3, index, log_term);
            let expected = Rejected::Misbehaving(Misbehaving::LogTerm);
            assert_eq!(judged(3, request), expected);
        }
    }
}

#[test]
fn v_a_membership_entry_can_be_read_before_it_is_taken() {
    let with = |data: &'static [u8]| {
        let entry = LogEntry::new(6, 2, EntryKind::Membership, Bytes::from_static(data));
        append(2, (5, 2), 4, vec![entry])
    };
    // Not a record; no node; an unknown type.
    for data in [&b"\xff\xff"[..], b"\x10\x01", b"\x10\x07\x18\x04"] {
        let expected = Rejected::Misbehaving(Misbehaving::Entries);
        assert_eq!(judged(2, with(data)), expected);
    }
    follower().step(id(2), with(b"")).unwrap();
    follower().step(id(2), with(b"\x10\x02\x18\x04")).unwrap();
    // raft reads what this room writes.
    let data = MembershipChange::AddLearner(id(4)).encode(Bytes::new());
    assert_eq!(data, Bytes::from_static(b"\x10\x02\x18\x04"));
    // One on the disk that nobody can read ends the node: skipping it would split the members.
    let mut node = follower();
    let entry = LogEntry::new(6, 2, EntryKind::Membership, Bytes::from_static(b"\xff"));
    node.applied_change(&entry).unwrap_err();
    assert!(matches!(node.ended(), Some(Ended::Corrupt { .. })));
}

#[test]
fn v_a_pre_vote_of_another_campaign_does_not_count() {
    for term in [2, 4, 5] {
        let mut node = pre_candidate();
        let result = node.step(id(2), message(PRE_VOTE_RESPONSE, term));
        assert_eq!(result, Err(Rejected::Ignored(Ignored::Stale)));
        assert_eq!(node.role(), Role::PreCandidate);
    }
}

#[test]
fn v_votes_of_strangers_do_not_count() {
    let mut node = candidate();
    let result = node.step(id(9), message(VOTE_RESPONSE, 3));
    assert_eq!(result, Err(Rejected::Ignored(Ignored::NotAMember)));
    assert_eq!(node.role(), Role::Candidate);
}

#[test]
fn v_an_earlier_term_changes_nothing() {
    let earlier = [
        append(1, (5, 1), 5, vec![]),
        heartbeat(1, 99),
        vote_request(VOTE, 1, 99, 1),
        message(TIMEOUT_NOW, 1),
        message(APPEND_RESPONSE, 1),
    ];
    for message in earlier {
        let mut node = follower();
        let before = (node.term(), node.vote(), node.commit(), node.leader());
        let _ = node.step(id(3), message);
        let after = (node.term(), node.vote(), node.commit(), node.leader());
        assert_eq!((before, node.ended()), (after, None));
    }
}

#[test]
fn v_each_refusal_is_counted_under_its_reason() {
    let mut node = follower();
    for _ in 0..3 {
        let _ = node.step(id(2), message(APPEND, 0));
    }
    let _ = node.step(id(2), message(77, 2));
    let counted: Vec<_> = node.counters().iter().map(|(_, &count)| count).collect();
    assert_eq!(counted.iter().sum::<u64>(), 4);
    let terms = Rejected::Misbehaving(Misbehaving::Term);
    assert_eq!(node.counters()[&terms], 3);
    assert_eq!(terms.to_string(), "misbehaving peer: term out of range");
}

#[test]
fn applied_entries_come_once_and_in_order() {
    let mut node = follower();
    let data = MembershipChange::AddLearner(id(4)).encode(Bytes::new());
    let entry = |index| LogEntry::new(index, 2, EntryKind::Membership, data.clone());
    let expected = Err(ApplyError::OutOfOrder { index: 4, applied: 4 });
    assert_eq!(node.applied_change(&entry(4)), expected);
    node.applied_change(&entry(5)).unwrap();
    assert!(node.applied_change(&entry(5)).is_err());
    // Applied is never put back, and never beyond what is durable and committed.
    node.applied(2);
    node.applied(99);
    assert_eq!(node.applied_index(), 4);
}
