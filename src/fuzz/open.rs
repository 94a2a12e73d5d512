//! Opening over what no disk gives back, unless it is not the node's own.

use std::sync::OnceLock;

use bytes::Bytes;
use slog::Logger;

use super::{
    input::Input,
    members::{Disk, Members, TICK, config, drained, id},
    records,
};
use crate::{
    consensus::{Consensus, Ended, MembershipChange, Options, RestoredLog},
    node::Node,
    time::Now,
    wire::{EntryKind, HardState, LogEntry, SnapshotMeta},
};

/// Any hard state, members, applied index and entries: consensus and a node open over them and go
/// on, or say what is wrong.
pub(super) fn open(data: &[u8]) {
    let mut input = Input::new(data);
    match input.below(2) {
        0 => consensus(&mut input),
        _ => node(&mut input),
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let founder = [0, 5, 1, 1, 0, 5, 1, 1, 5, 1, 1, 5, 1, 1, 3, 1, 2, 3, 0, 0];
    let joiner = [0; 24];
    let mut seeds = vec![founder.to_vec(), joiner.to_vec(), vec![1], vec![0]];
    seeds.extend((0..8).map(|kind| [&[1, kind, 3, 2, 1, 7][..], &[3, 0, 1, 2].repeat(6)].concat()));
    seeds.extend((0..6).map(|nth| [&founder[..], &[nth, 1, 2, 3].repeat(8)].concat()));
    seeds
}

fn consensus(input: &mut Input) {
    let small = [1, 2, 3, 4, 5, 6];
    let hard_state =
        HardState::new(input.number(&small), input.number(&small), input.number(&small));
    let (index, term) = (input.number(&small), input.number(&small));
    let ids = |input: &mut Input| {
        let count = input.below(5);
        (0..count).map(|_| input.number(&small)).collect::<Vec<u64>>()
    };
    let (voters, learners) = (ids(input), ids(input));
    let mut entries = Vec::new();
    let (mut next, mut entry_term) = (index.wrapping_add(1), term);
    for _ in 0..input.below(8) {
        entries.push(entry(input, &mut next, &mut entry_term));
    }
    let snapshot = SnapshotMeta { index, term, voters, learners };
    let may_vote = input.below(4) > 0;
    let restored = RestoredLog { hard_state, snapshot, entries, may_vote };
    let last_term = restored.entries.last().map_or(term, |entry| entry.term);
    if let Ok(consensus) = Consensus::open(options(), restored) {
        assert!(consensus.term() >= hard_state.term.max(last_term), "it forgets a term");
        assert!(consensus.commit() >= hard_state.commit.max(index), "it forgets a commit");
        drive(consensus, input);
    }
}

/// Mostly one that follows.
fn entry(input: &mut Input, next: &mut u64, term: &mut u64) -> LogEntry {
    match input.below(16) {
        0 => *next = input.number(&[*next]),
        1 => *term = input.number(&[*term]),
        2 => *term = term.saturating_add(1),
        _ => {}
    }
    let index = *next;
    *next = next.wrapping_add(1);
    let (kind, data) = match input.below(6) {
        0 => (EntryKind::Membership, input.bytes(20)),
        1 => {
            let member = id(u64::from(input.byte() % 6));
            let change = match input.below(3) {
                0 => MembershipChange::AddLearner(member),
                1 => MembershipChange::Promote(member),
                _ => MembershipChange::Remove(member),
            };
            (EntryKind::Membership, change.encode(Bytes::new()))
        }
        _ => (EntryKind::Normal, input.bytes(20)),
    };
    LogEntry::new(index, *term, kind, data)
}

/// What a node would do with it.
fn drive(mut consensus: Consensus, input: &mut Input) {
    for _ in 0..STEPS_MAX {
        let before = (consensus.term(), consensus.commit());
        match input.below(8) {
            0 => drop(consensus.campaign()),
            1 => drop(consensus.propose(input.bytes(9))),
            2 => drop(consensus.read_index([input.byte(); 16])),
            _ => consensus.tick(),
        }
        while let Some(batch) = consensus.drain() {
            for entry in &batch.committed {
                if entry.kind == EntryKind::Membership {
                    let _ = consensus.applied_change(entry);
                }
                consensus.applied(entry.index);
            }
            consensus.persisted();
        }
        consensus.persisted();
        let panicked = matches!(consensus.ended(), Some(Ended::Panicked { .. }));
        assert!(!panicked, "{:?}", consensus.ended());
        assert!(consensus.term() >= before.0 && consensus.commit() >= before.1, "it goes back");
        if input.is_spent() {
            break;
        }
    }
}

/// A disk of a real member on which things were changed.
fn node(input: &mut Input) {
    let mut disk = real_disk();
    let sound = input.is_spent();
    while !input.is_spent() {
        change(&mut disk, input);
    }
    let restored = disk.open();
    let hard_state = restored.hard_state.unwrap_or_default();
    let mut node = match Node::open(config(id(1)), restored) {
        Ok(node) => node,
        Err(error) => {
            assert!(!sound, "a sound disk: {error}");
            return;
        }
    };
    for tick in 1..60_u32 {
        drained(&mut node, &mut disk);
        let now = Now { mono: TICK * tick, wall_ms: u64::from(tick) };
        assert_eq!(node.tick(now), Ok(()), "it was drained");
        let status = node.status();
        assert!(status.term >= hard_state.term, "it forgets a term: {status:?}");
        assert!(status.commit >= hard_state.commit, "it forgets a commit: {status:?}");
        let ended = status.ended.map(|it| it.to_string()).unwrap_or_default();
        assert!(!ended.contains("panicked"), "{ended}");
    }
}

fn change(disk: &mut Disk, input: &mut Input) {
    let hard_state = disk.hard_state.unwrap_or_default();
    let near = [hard_state.term, hard_state.commit, hard_state.vote];
    match input.below(8) {
        0 => disk.hard_state = Some(HardState { term: input.number(&near), ..hard_state }),
        1 => disk.hard_state = Some(HardState { commit: input.number(&near), ..hard_state }),
        2 => disk.hard_state = Some(HardState { vote: input.number(&near), ..hard_state }),
        3 => {
            let record = disk.local.take().unwrap_or_default();
            disk.local = Some(records::mutated(&record, &near, input).into());
        }
        4 => match &mut disk.snapshot {
            Some((index, _, _)) if input.below(2) == 0 => *index = input.number(&[*index]),
            Some((_, term, _)) => *term = input.number(&[*term]),
            None => {}
        },
        5 => match input.below(3) {
            0 => disk.snapshot = None,
            1 => disk.entries.clear(),
            _ => disk.local = None,
        },
        choice => {
            let at = usize::from(input.short()) % disk.entries.len().max(1);
            let Some(entry) = disk.entries.get_mut(at) else {
                return;
            };
            if choice == 6 {
                entry.data = records::mutated(&entry.data, &near, input).into();
                return;
            }
            let (mut next, mut term) = (entry.index, entry.term);
            *entry = self::entry(input, &mut next, &mut term);
        }
    }
}

/// Of a member that has taken a snapshot and has entries after it.
fn real_disk() -> Disk {
    static DISK: OnceLock<Disk> = OnceLock::new();
    let make = || {
        let mut members = Members::founded();
        members.run_until(400, "the first leader", |it| it.leader().is_some());
        for n in 0..40 {
            members.create(id(1), &format!("/n{n}"));
            members.run(1);
        }
        members.run(20);
        match members.disks.remove(&id(1)) {
            Some(disk) => disk,
            None => panic!("it was started"),
        }
    };
    DISK.get_or_init(make).clone()
}

fn options() -> Options {
    Options {
        id: id(1),
        seed: 42,
        election_ticks: 10,
        heartbeat_ticks: 2,
        message_bytes_max: 1 << 16,
        inflight_max: 16,
        uncommitted_bytes_max: 1 << 20,
        committed_bytes_max: 1 << 16,
        logger: Logger::root(slog::Discard, slog::o!()),
    }
}

const STEPS_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_changed_is_a_real_disk() {
        let disk = real_disk();
        assert!(disk.snapshot.as_ref().is_some_and(|it| it.0 > 1), "it has taken a snapshot");
        assert!(disk.entries.len() > 3 && disk.local.is_some() && disk.hard_state.is_some());
    }
}
