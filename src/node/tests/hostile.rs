//! Whatever a peer sends, and whatever a disk gives back: a typed error or a typed end, never a
//! panic, a term or a commit that goes back, or an acknowledged write that is lost.

use std::{
    panic,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::*;
use crate::wire::{Body, Chunk, Forward, Hello, Pin, RaftMessage, Refusal, SnapshotMeta};

struct Draw(u64);

impl Draw {
    fn next(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    /// Numbers at the edges, near what is real, or anywhere.
    fn number(&mut self, near: u64) -> u64 {
        match self.next(8) {
            0 => 0,
            1 => u64::MAX - self.next(3),
            2 => (1 << 62) - 2 + self.next(4),
            3 | 4 => near.saturating_add(self.next(5)).saturating_sub(2),
            5 => self.next(20),
            _ => self.0.rotate_left(17),
        }
    }

    fn bytes(&mut self, max: u64) -> Bytes {
        let length = self.next(max + 1);
        (0..length).map(|_| self.next(256) as u8).collect::<Vec<u8>>().into()
    }
}

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Real frames of an election, of writes, reads, a snapshot and a change of membership.
fn real_frames() -> Vec<Frame> {
    let limits = Limits {
        log_tail_bytes_max: 2_000,
        snapshot_chunk_bytes: 512,
        compare_entries_max: 4,
        ..Limits::default()
    };
    let mut cluster = Cluster::with_limits(3, limits);
    cluster.record = true;
    let leader = cluster.elect();
    let other = (1..=3).map(id).find(|&it| it != leader).expect("a follower");
    cluster.kill(other);
    for n in 0..60 {
        cluster.write(leader, create(&format!("/n{n}"))).expect("written");
    }
    cluster.start(other);
    cluster.run(10);
    let read = Read {
        caller: Caller::world(),
        op: ReadOp::Barrier,
        consistency: Consistency::Linearizable,
    };
    cluster.node(other).read(read).expect("taken");
    cluster.write(other, create("/by-a-follower")).expect("written");
    cluster.join(4);
    cluster.submit(leader, Request::AddLearner(id(4)));
    cluster.run(10);
    cluster.restart(leader);
    let leader = cluster.elect();
    // A state goes bad, is found, and is replaced.
    let follower = (1..=3).map(id).find(|&it| it != leader).expect("a follower");
    cluster.node(follower).namespace.corrupt_clock();
    for n in 0..10 {
        cluster.write(leader, create(&format!("/m{n}"))).expect("written");
    }
    cluster.run(20);
    let frames = cluster.sent.iter().map(|bytes| Frame::decode(bytes, usize::MAX));
    let frames: Vec<Frame> = frames.collect::<Result<_, _>>().expect("our own frames");
    let kinds: Vec<_> = frames.iter().map(|it| std::mem::discriminant(&it.body)).collect();
    let distinct: std::collections::HashSet<_> = kinds.into_iter().collect();
    assert_eq!(distinct.len(), 15, "all but a refusal");
    frames
}

fn mutate_raft(draw: &mut Draw, message: &mut RaftMessage) {
    match draw.next(14) {
        0 => message.kind = draw.next(25) as u32,
        1 => message.term = draw.number(message.term),
        2 => message.log_term = draw.number(message.log_term),
        3 => message.index = draw.number(message.index),
        4 => message.commit = draw.number(message.commit),
        5 => message.commit_term = draw.number(message.commit_term),
        6 => message.reject = !message.reject,
        7 => message.reject_hint = draw.number(message.index),
        8 => message.context = draw.bytes(20),
        9 => message.priority = draw.number(0) as i64,
        10 => message.request_snapshot = draw.number(1),
        11 => {
            let voters = (0..draw.next(4)).map(|_| draw.number(2)).collect();
            let learners = (0..draw.next(3)).map(|_| draw.number(2)).collect();
            let (index, term) = (draw.number(message.index), draw.number(message.term));
            message.snapshot = Some(SnapshotMeta { index, term, voters, learners });
        }
        12 => {
            let index = draw.number(message.index.saturating_add(1));
            let kind = match draw.next(2) {
                0 => crate::EntryKind::Normal,
                _ => crate::EntryKind::Membership,
            };
            let entry = LogEntry::new(index, draw.number(message.term), kind, draw.bytes(40));
            message.entries.push(entry);
        }
        _ => {
            let at = draw.next(message.entries.len() as u64 + 1) as usize;
            if let Some(entry) = message.entries.get_mut(at) {
                entry.index = draw.number(entry.index);
                entry.term = draw.number(entry.term);
            }
        }
    }
}

fn mutate(draw: &mut Draw, body: &mut Body) {
    match body {
        Body::Raft(message) => mutate_raft(draw, message),
        Body::Forward(Forward { commands, .. }) => *commands = draw.bytes(60),
        Body::Hello(Hello { pins, bootstrap, opening, .. }) => {
            *bootstrap ^= draw.next(2) as u32;
            opening.before.since = draw.number(opening.before.since);
            opening.last_index = draw.number(opening.last_index);
            for Pin { incarnation, .. } in pins {
                incarnation.boot.counter = draw.number(incarnation.boot.counter);
            }
        }
        Body::SnapshotOffer { index, term } => {
            (*index, *term) = (draw.number(*index), draw.number(*term));
        }
        Body::SnapshotPull { index, offset, .. } => {
            (*index, *offset) = (draw.number(*index), draw.number(*offset));
        }
        Body::SnapshotChunk(Chunk { index, offset, bytes, crc, .. }) => match draw.next(4) {
            0 => *index = draw.number(*index),
            1 => *offset = draw.number(*offset),
            2 => *bytes = draw.bytes(600),
            _ => *crc = Some(draw.next(1 << 32) as u32),
        },
        Body::SnapshotStaged { index, term, .. } => {
            (*index, *term) = (draw.number(*index), draw.number(*term));
        }
        Body::ReadIndexReply { index, term, .. } => {
            (*index, *term) = (draw.number(*index), draw.number(*term));
        }
        Body::Refused { reason, known, promise } => {
            promise.index = draw.number(promise.index);
            *reason = [Refusal::Wiped, Refusal::RolledBack, Refusal::Removed, Refusal::NotAMember]
                [draw.next(4) as usize];
            *known = None;
        }
        Body::ReadIndex { context } => context[0] = draw.next(256) as u8,
        Body::DigestReport(it) => match draw.next(3) {
            0 => it.index = draw.number(it.index),
            1 => it.version = draw.next(3) as u32,
            _ => it.digest = draw.number(it.digest),
        },
        Body::DigestAsk { index } | Body::StateAsk { index } => *index = draw.number(*index),
        Body::MarksAsk { after } => *after = crate::Zxid::new(draw.number(after.as_u64())),
        Body::Marks { items, .. } => match draw.next(3) {
            0 => items.reverse(),
            1 => items.clear(),
            _ => items.iter_mut().for_each(|item| item.1 = draw.number(item.1)),
        },
        Body::StateOffer { index, term } => {
            (*index, *term) = (draw.number(*index), draw.number(*term));
        }
    }
}

/// Nodes in each role, as they stand in a cluster that runs.
fn subjects() -> Cluster {
    let mut cluster = Cluster::elected(3);
    let leader = cluster.leader().expect("elected");
    cluster.join(4);
    cluster.submit(leader, Request::AddLearner(id(4)));
    cluster.run(5);
    for n in 0..5 {
        cluster.write(leader, create(&format!("/n{n}"))).expect("written");
    }
    // One follower campaigns and hears nobody; another node has never been admitted.
    let lonely = (1..=3).map(id).find(|&it| it != leader).expect("a follower");
    cluster.lose = Box::new(move |frame| frame.to == lonely || frame.from == lonely);
    cluster.run(25);
    // The other one has a state that went bad, and waits for a good one.
    let quarantined = (1..=3).map(id).find(|&it| it != leader && it != lonely).expect("another");
    cluster.node(quarantined).quarantine = Some(Quarantine::reopened(3));
    cluster.lose = Box::new(|_| false);
    cluster.join(5);
    cluster
}

#[test]
fn hundred_thousand_mutated_frames_in_every_role_and_no_panic() {
    let hook = panic::take_hook();
    let before = PANICS.load(Ordering::SeqCst);
    // Panics that consensus catches count, too; those of other tests' own assertions do not.
    panic::set_hook(Box::new(move |it| {
        let thread = std::thread::current();
        if thread.name().is_some_and(|name| name.contains("hundred_thousand_mutated")) {
            PANICS.fetch_add(1, Ordering::SeqCst);
        }
        hook(it);
    }));
    let frames = real_frames();
    let mut draw = Draw(0x1234_5678_9abc_def1);
    let (mut fed, mut taken, mut renewed) = (0, 0, 0);
    let mut roles = std::collections::BTreeMap::new();
    let mut cluster = subjects();
    while fed < 100_000 {
        let members: Vec<NodeId> = cluster.nodes.keys().copied().collect();
        let to = members[draw.next(members.len() as u64) as usize];
        let from = id(1 + draw.next(5));
        let status = cluster.nodes[&to].status();
        *roles.entry(format!("{:?}", status.role)).or_insert(0) += 1;
        let mut frame = frames[draw.next(frames.len() as u64) as usize].clone();
        frame.from = from;
        frame.to = to;
        if let Some(sender) = cluster.nodes.get(&from) {
            frame.incarnation = sender.identity.own();
        }
        if let Body::Raft(message) = &mut frame.body {
            if draw.next(2) == 0 {
                message.term = status.term;
            }
        }
        for _ in 0..draw.next(3) {
            mutate(&mut draw, &mut frame.body);
        }
        let mut bytes = frame.encode();
        if draw.next(20) == 0 {
            let mut flipped = bytes.to_vec();
            let at = draw.next(flipped.len() as u64) as usize;
            flipped[at] ^= 1 << draw.next(8);
            bytes = flipped.into();
        }
        fed += 1;
        taken += usize::from(cluster.node(to).step(from, bytes).is_ok());
        cluster.drain(to);
        let after = cluster.nodes[&to].status();
        assert!(after.term >= status.term, "the term goes back: {status:?} {after:?}");
        assert!(after.commit >= status.commit, "the commit goes back: {status:?} {after:?}");
        cluster.network.clear();
        if after.ended.is_some() || draw.next(500) == 0 {
            renewed += 1;
            cluster = subjects();
        }
    }
    let _ = panic::take_hook();
    assert_eq!(PANICS.load(Ordering::SeqCst), before, "caught ones included");
    assert!(taken > 10_000, "many are valid: {taken}");
    assert!(renewed > 10 && roles.len() == 5, "{renewed} {roles:?}");
}
