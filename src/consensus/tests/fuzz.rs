//! Random and mutated messages in every role, and runs over a network that loses and delays.

use std::{cell::Cell, sync::Once};

use super::*;
use crate::{
    id::{Boot, ClusterId, Incarnation, StoreId},
    wire::{Body, Frame},
};

thread_local! {
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

/// Counts every panic of this thread, caught ones too.
fn count_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.with(|panics| panics.set(panics.get() + 1));
            before(info);
        }));
    });
    PANICS.with(|panics| panics.set(0));
}

fn learner() -> Consensus {
    let mut node = Consensus::open(options(1), founding(&[2, 3], &[1])).unwrap();
    node.step(id(2), append(2, (1, 1), 4, entries(2, 5, 2))).unwrap();
    flush(&mut node);
    node
}

/// As `follower`, after its tail was cut.
fn without_tail() -> Consensus {
    let restored = RestoredLog {
        hard_state: HardState::new(2, 0, 4),
        entries: entries(2, 5, 2),
        may_vote: false,
        ..founding(&[1, 2, 3], &[])
    };
    Consensus::open(options(1), restored).unwrap()
}

fn joiner() -> Consensus {
    Consensus::open(options(1), nothing()).unwrap()
}

#[test]
fn f2_100_000_messages_as_follower_never_panic() {
    hammer(1, follower, |node| node.role() == Role::Follower);
}

#[test]
fn f2_100_000_messages_as_pre_candidate_never_panic() {
    hammer(2, pre_candidate, |node| node.role() == Role::PreCandidate);
}

#[test]
fn f2_100_000_messages_as_candidate_never_panic() {
    hammer(3, candidate, |node| node.role() == Role::Candidate);
}

#[test]
fn f2_100_000_messages_as_leader_never_panic() {
    hammer(4, leader, |node| node.role() == Role::Leader);
}

#[test]
fn f2_100_000_messages_as_learner_never_panic() {
    hammer(5, learner, |node| node.learners() == [id(1)]);
}

#[test]
fn f2_100_000_messages_as_joiner_never_panic() {
    hammer(6, joiner, |node| node.voters().is_empty());
}

#[test]
fn f2_100_000_messages_without_the_tail_never_panic() {
    hammer(7, without_tail, |node| !node.may_vote());
}

/// Steps messages until 100,000 came while the node was in its role.
fn hammer(seed: u64, make: fn() -> Consensus, in_role: fn(&Consensus) -> bool) {
    count_panics();
    let mut draw = Draw(0x9e37_79b9 + seed);
    let real = real_messages();
    let mut node = make();
    let (mut stepped, mut accepted) = (0, 0u64);
    while stepped < 100_000 {
        if node.ended().is_some() || (!in_role(&node) && draw.below(4) == 0) {
            node = make();
        }
        stepped += u64::from(in_role(&node));
        let message = draw_message(&mut draw, &node, &real);
        let staged = message.snapshot.as_ref().map(|meta| (meta.index, meta.term));
        node.expect_snapshot(staged.filter(|_| draw.below(8) > 0));
        let from = [2, 2, 2, 3, 3, 9, 1][draw.below(7) as usize];
        let before = (node.term(), node.commit());
        accepted += u64::from(node.step(id(from), message).is_ok());
        assert!(node.term() >= before.0 && node.commit() >= before.1);
        own_input(&mut draw, &mut node);
        let panicked = matches!(node.ended(), Some(Ended::Panicked { .. }));
        assert!(!panicked, "{:?}", node.ended());
    }
    assert_eq!(PANICS.with(Cell::get), 0, "a panic was caught");
    assert!(accepted > 1_000, "only {accepted} reached raft");
}

/// What the node's own loop does between messages.
fn own_input(draw: &mut Draw, node: &mut Consensus) {
    match draw.below(24) {
        0..8 => {
            let before = node.term();
            flush(node);
            assert_eq!(node.term(), before);
        }
        8 => node.tick(),
        9 => {
            let _ = node.campaign();
        }
        10 => {
            let _ = node.propose(Bytes::from_static(b"own"));
        }
        11 => {
            let _ = node.read_index([draw.below(200) as u8; 16]);
        }
        12 => {
            let _ = node.transfer_leader(id(2));
        }
        13 => {
            let change = match draw.below(3) {
                0 => MembershipChange::AddLearner(id(4)),
                1 => MembershipChange::Promote(id(4)),
                _ => MembershipChange::Remove(id(3)),
            };
            let _ = node.propose_change(change, Bytes::new());
        }
        14 => node.report_snapshot(id(2), draw.below(2) == 0),
        15 => node.unreachable(id(3)),
        16 => node.compact(draw.below(12)),
        17 => {
            // A write that is out meets a message.
            let _ = node.drain();
        }
        _ => {}
    }
}

fn draw_message(draw: &mut Draw, node: &Consensus, real: &[RaftMessage]) -> RaftMessage {
    let mut message = if draw.below(3) == 0 {
        RaftMessage {
            kind: KINDS[draw.below(10) as usize],
            term: node.term() + draw.below(3),
            ..RaftMessage::default()
        }
    } else {
        let mut message = real[draw.below(real.len() as u64) as usize].clone();
        if draw.below(2) == 0 {
            shift(&mut message, node);
        }
        message
    };
    for _ in 0..draw.below(4) {
        mutate(draw, &mut message, node);
    }
    message
}

/// Moves a real message to where it fits this node's term and log.
fn shift(message: &mut RaftMessage, node: &Consensus) {
    message.term = node.term().max(1);
    message.log_term = message.log_term.min(message.term);
    if message.kind == APPEND {
        message.index = node.last_index();
        message.log_term = node.term_at(message.index).unwrap_or(1);
        for (entry, index) in message.entries.iter_mut().zip(message.index + 1..) {
            (entry.index, entry.term) = (index, message.term);
        }
    }
}

fn mutate(draw: &mut Draw, message: &mut RaftMessage, node: &Consensus) {
    let number = match draw.below(8) {
        0 => 0,
        1 => u64::MAX - draw.below(2),
        2 => (1 << 62) - 1 + draw.below(2),
        3 => node.last_index() + draw.below(3),
        4 => node.commit() + draw.below(2),
        5 => node.term() + draw.below(2),
        _ => draw.below(12),
    };
    match draw.below(15) {
        0 => message.kind = draw.below(20) as u32,
        1 => message.term = number,
        2 => message.log_term = number,
        3 => message.index = number,
        4 => message.commit = number,
        5 => message.commit_term = number,
        6 => message.reject = !message.reject,
        7 => message.reject_hint = number,
        8 => message.priority = number as i64,
        9 => message.request_snapshot = number,
        10 => message.context = Bytes::from(vec![7; [0, 1, 16, 17][draw.below(4) as usize]]),
        11 => {
            let members = [&[1, 2, 3][..], &[2, 3], &[1], &[], &[3, 1], &[1, 1]];
            let voters = members[draw.below(6) as usize];
            message.snapshot = Some(meta(number, draw.below(4), voters, &[4]));
            message.kind = SNAPSHOT;
        }
        12 => {
            let kind = [EntryKind::Normal, EntryKind::Membership][draw.below(2) as usize];
            let data = match draw.below(3) {
                0 => Bytes::from_static(b"\xff\x01"),
                1 => MembershipChange::Remove(id(draw.below(4) + 1)).encode(Bytes::new()),
                _ => MembershipChange::AddLearner(id(draw.below(9) + 1)).encode(Bytes::new()),
            };
            let entry = LogEntry::new(number, draw.below(6), kind, data);
            message.entries.push(entry);
        }
        13 => drop(message.entries.pop()),
        _ => message.entries.reverse(),
    }
}

/// Messages of a run that works.
fn real_messages() -> Vec<RaftMessage> {
    let mut messages = Vec::new();
    run(3, 400, |_, _, message| messages.push(message.clone()));
    messages
}

/// Every byte that is sent in a run over a network that loses and delays.
pub(super) fn lossy_run(seed: u64) -> Vec<Bytes> {
    let mut sent = Vec::new();
    run(seed, 3_000, |from, to, message| {
        let frame = Frame {
            cluster: ClusterId::from_bytes([1; 16]),
            from: id(from),
            to: id(to),
            incarnation: Incarnation {
                store: StoreId::from_bytes([from as u8; 16]),
                boot: Boot { counter: 1, nonce: from },
            },
            body: Body::Raft(message.clone()),
        };
        sent.push(frame.encode());
    });
    sent
}

/// Three voters for some ticks, over a network that loses a tenth and delays the rest, cuts one
/// off now and then, and moves the leadership; all must agree in the end.
fn run(seed: u64, ticks: u64, mut saw: impl FnMut(u64, u64, &RaftMessage)) {
    let mut draw = Draw(seed.wrapping_mul(0x1234_5678_9abc_def1) | 1);
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    let mut late: BTreeMap<(u64, u64), (u64, u64, RaftMessage)> = BTreeMap::new();
    let mut number = 0;
    for tick in 0..ticks + 60 {
        let lossy = tick < ticks;
        if lossy && tick % 100 == 0 {
            cluster.cut.clear();
            cluster.isolate(draw.below(6) + 1);
        } else if !lossy {
            cluster.cut.clear();
        }
        for node in 1..=3 {
            cluster.node(node).tick();
            if lossy {
                let data = Bytes::from(format!("{tick}/{node}"));
                let _ = cluster.node(node).propose(data);
                if draw.below(200) == 0 {
                    let _ = cluster.node(node).transfer_leader(id(draw.below(3) + 1));
                }
                if draw.below(20) == 0 {
                    let _ = cluster.node(node).read_index((tick as u128).to_be_bytes());
                }
            }
        }
        cluster.drain_all();
        let keys: Vec<_> = late.range(..(tick, 0)).map(|(&key, _)| key).collect();
        for key in keys {
            let (from, to, message) = late.remove(&key).unwrap();
            cluster.deliver(from, to, message);
        }
        for (from, to, message) in mem::take(&mut cluster.network) {
            saw(from, to, &message);
            number += 1;
            if !lossy || draw.below(10) > 0 {
                let delay = if lossy { draw.below(4) } else { 0 };
                late.insert((tick + delay, number), (from, to, message));
            }
        }
        agree(&cluster);
    }
    let states: Vec<_> = cluster.members.values().map(|m| &m.state).collect();
    assert!(states[0].len() as u64 > ticks / 10, "{}", states[0].len());
    assert!(states.windows(2).all(|pair| pair[0] == pair[1]));
}

/// What two members applied at one index is the same, and nobody has ended.
fn agree(cluster: &Cluster) {
    for member in cluster.members.values() {
        assert_eq!(member.consensus.ended(), None);
        let last = member.state.last_key_value();
        for other in cluster.members.values() {
            let (Some((index, data)), true) = (last, other.state.len() >= member.state.len())
            else {
                continue;
            };
            assert_eq!(other.state.get(index), Some(data), "at {index}");
        }
    }
}

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
