//! One test per duty of ARCHITECTURE.md, section 5, named after it; most on a little cluster in
//! memory that persists at once.

mod churn;
mod contract;
mod fuzz;
mod hazards;
mod liveness;
mod panics;
mod rules;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use slog::Logger;

use super::{
    command::{ApplyError, CampaignError, ProposeError, ReadError, TransferError},
    ended::Divergence,
    status::Replication,
    validate::Misbehaving,
    *,
};
use crate::wire::EntryKind;

/// Members, what they have on their disks, and a network between them.
pub(super) struct Cluster {
    pub(super) members: BTreeMap<u64, Member>,
    pub(super) network: VecDeque<(u64, u64, RaftMessage)>,
    /// Links that lose everything, by sender and receiver.
    pub(super) cut: BTreeSet<(u64, u64)>,
    /// Snapshots that leaders found to be needed: (leader, receiver, which).
    pub(super) needed: Vec<(u64, u64, SnapshotMeta)>,
    pub(super) reads: Vec<(u64, [u8; 16], u64)>,
    pub(super) changes: Vec<(u64, u64, AppliedChange)>,
    /// How long writes stay out: until `persist_some` by this draw, or no time at all.
    pub(super) slow: Option<Draw>,
}

pub(super) struct Member {
    pub(super) consensus: Consensus,
    pub(super) disk: Disk,
    /// Writes that are out, oldest first, and what was staged when they were handed out.
    pub(super) writes: VecDeque<(RaftWrite, BTreeMap<u64, Bytes>)>,
    /// What was applied: the data of each entry, by index.
    pub(super) state: BTreeMap<u64, Bytes>,
    pub(super) staged: BTreeMap<u64, Bytes>,
}

#[derive(Clone)]
pub(super) struct Disk {
    pub(super) hard_state: HardState,
    pub(super) snapshot: SnapshotMeta,
    pub(super) snapshot_state: BTreeMap<u64, Bytes>,
    pub(super) entries: Vec<LogEntry>,
}

pub(super) fn id(id: u64) -> NodeId {
    NodeId::new(id).expect("ids of tests are valid")
}

pub(super) fn options(node: u64) -> Options {
    Options {
        id: id(node),
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

pub(super) fn meta(index: u64, term: u64, voters: &[u64], learners: &[u64]) -> SnapshotMeta {
    SnapshotMeta { index, term, voters: voters.to_vec(), learners: learners.to_vec() }
}

/// What founders of a cluster with these members start from.
pub(super) fn founding(voters: &[u64], learners: &[u64]) -> RestoredLog {
    RestoredLog {
        hard_state: HardState::new(1, 0, 1),
        snapshot: meta(1, 1, voters, learners),
        entries: Vec::new(),
        may_vote: true,
    }
}

/// What a member starts from that has nothing.
pub(super) fn nothing() -> RestoredLog {
    RestoredLog {
        hard_state: HardState::default(),
        snapshot: SnapshotMeta::default(),
        entries: Vec::new(),
        may_vote: true,
    }
}

pub(super) fn entry(index: u64, term: u64) -> LogEntry {
    let data = Bytes::from(format!("{index}@{term}"));
    LogEntry::new(index, term, EntryKind::Normal, data)
}

pub(super) fn entries(from: u64, to: u64, term: u64) -> Vec<LogEntry> {
    (from..=to).map(|index| entry(index, term)).collect()
}

/// A message of this kind and term, and nothing else.
pub(super) fn message(kind: u32, term: u64) -> RaftMessage {
    RaftMessage { kind, term, ..RaftMessage::default() }
}

pub(super) fn append(
    term: u64,
    (index, log_term): (u64, u64),
    commit: u64,
    entries: Vec<LogEntry>,
) -> RaftMessage {
    RaftMessage { index, log_term, commit, entries, ..message(APPEND, term) }
}

pub(super) fn heartbeat(term: u64, commit: u64) -> RaftMessage {
    RaftMessage { commit, ..message(HEARTBEAT, term) }
}

pub(super) fn vote_request(kind: u32, term: u64, index: u64, log_term: u64) -> RaftMessage {
    RaftMessage { index, log_term, ..message(kind, term) }
}

/// Drains and persists everything; returns what was sent, and what was committed.
pub(super) fn flush(node: &mut Consensus) -> (Vec<(NodeId, RaftMessage)>, Vec<LogEntry>) {
    let (mut sent, mut committed) = (node.persisted(), Vec::new());
    while let Some(batch) = node.drain() {
        sent.extend(batch.messages);
        for entry in &batch.committed {
            if entry.kind == EntryKind::Membership {
                node.applied_change(entry).expect("in order");
            }
            node.applied(entry.index);
        }
        committed.extend(batch.committed);
        sent.extend(node.persisted());
    }
    (sent, committed)
}

/// Node 1 of the voters 1, 2, 3, following 2 in term 2; its log is 2..=5, committed up to 4.
pub(super) fn follower() -> Consensus {
    let mut node = Consensus::open(options(1), founding(&[1, 2, 3], &[])).unwrap();
    let message = append(2, (1, 1), 4, entries(2, 5, 2));
    node.step(id(2), message).unwrap();
    flush(&mut node);
    assert_eq!((node.last_index(), node.commit(), node.term()), (5, 4, 2));
    node
}

/// As `follower`, having lost its leader and asking for pre-votes in term 2.
pub(super) fn pre_candidate() -> Consensus {
    let mut node = follower();
    node.campaign().unwrap();
    flush(&mut node);
    assert_eq!(node.role(), Role::PreCandidate);
    node
}

/// As `follower`, asking for votes in term 3.
pub(super) fn candidate() -> Consensus {
    let mut node = pre_candidate();
    node.step(id(2), message(PRE_VOTE_RESPONSE, 3)).unwrap();
    flush(&mut node);
    assert_eq!((node.role(), node.term()), (Role::Candidate, 3));
    node
}

/// As `follower`, leading in term 3; its log is 2..=6, committed up to 6.
pub(super) fn leader() -> Consensus {
    let mut node = candidate();
    node.step(id(2), message(VOTE_RESPONSE, 3)).unwrap();
    flush(&mut node);
    let ack = RaftMessage { index: 6, ..message(APPEND_RESPONSE, 3) };
    node.step(id(2), ack).unwrap();
    flush(&mut node);
    assert_eq!((node.role(), node.commit()), (Role::Leader, 6));
    node
}

impl Cluster {
    pub(super) fn new(voters: &[u64], learners: &[u64]) -> Self {
        let mut cluster = Self {
            members: BTreeMap::new(),
            network: VecDeque::new(),
            cut: BTreeSet::new(),
            needed: Vec::new(),
            reads: Vec::new(),
            changes: Vec::new(),
            slow: None,
        };
        for &node in voters.iter().chain(learners) {
            cluster.add(node, founding(voters, learners));
        }
        cluster
    }

    pub(super) fn add(&mut self, node: u64, restored: RestoredLog) {
        let disk = Disk {
            hard_state: restored.hard_state,
            snapshot: restored.snapshot.clone(),
            snapshot_state: BTreeMap::new(),
            entries: restored.entries.clone(),
        };
        let consensus = Consensus::open(options(node), restored).unwrap();
        let (state, staged) = (BTreeMap::new(), BTreeMap::new());
        let writes = VecDeque::new();
        self.members.insert(node, Member { consensus, disk, writes, state, staged });
    }

    /// The process dies and starts again from its disk.
    pub(super) fn restart(&mut self, node: u64, may_vote: bool) {
        let member = self.members.get_mut(&node).unwrap();
        let restored = RestoredLog {
            hard_state: member.disk.hard_state,
            snapshot: member.disk.snapshot.clone(),
            entries: member.disk.entries.clone(),
            may_vote,
        };
        member.state = member.disk.snapshot_state.clone();
        member.writes.clear();
        member.consensus = Consensus::open(options(node), restored).unwrap();
    }

    pub(super) fn node(&mut self, node: u64) -> &mut Consensus {
        &mut self.members.get_mut(&node).unwrap().consensus
    }

    /// Drains one member, and persists what it wants, at once unless disks are slow.
    pub(super) fn drain(&mut self, node: u64) {
        while let Some(batch) = self.node(node).drain() {
            self.send(node, batch.messages);
            let needed = batch.snapshots_needed.into_iter();
            self.needed.extend(needed.map(|(to, meta)| (node, to.as_u64(), meta)));
            let reads = batch.reads.into_iter();
            self.reads.extend(reads.map(|(context, index)| (node, context, index)));
            self.apply(node, batch.committed);
            let member = self.members.get_mut(&node).unwrap();
            let staged = member.staged.clone();
            member.writes.extend(batch.write.map(|write| (write, staged)));
            let count = match &mut self.slow {
                Some(draw) => match draw.below(3) {
                    0 => draw.below(member.writes.len() as u64 + 1),
                    _ => 0,
                },
                None => member.writes.len() as u64,
            };
            self.persist(node, count);
        }
    }

    /// Makes the oldest `count` writes of a member durable, and says so.
    pub(super) fn persist(&mut self, node: u64, count: u64) {
        for _ in 0..count {
            let member = self.members.get_mut(&node).unwrap();
            let Some(write) = member.writes.pop_front() else {
                return;
            };
            member.persist(write);
            let held = member.consensus.persisted();
            self.send(node, held);
        }
    }

    fn apply(&mut self, node: u64, committed: Vec<LogEntry>) {
        let member = self.members.get_mut(&node).unwrap();
        for entry in committed {
            let index = entry.index;
            if entry.kind == EntryKind::Membership {
                let change = member.consensus.applied_change(&entry).expect("in order");
                self.changes.push((node, index, change));
            }
            let again = member.state.insert(index, entry.data);
            assert!(again.is_none(), "{node} applied {index} twice");
            member.consensus.applied(index);
        }
    }

    pub(super) fn send(&mut self, from: u64, messages: Vec<(NodeId, RaftMessage)>) {
        let kept = messages.into_iter().map(|(to, message)| (from, to.as_u64(), message));
        self.network.extend(kept);
    }

    pub(super) fn drain_all(&mut self) {
        let nodes: Vec<u64> = self.members.keys().copied().collect();
        nodes.into_iter().for_each(|node| self.drain(node));
    }

    /// Delivers everything, and all that follows from it.
    pub(super) fn settle(&mut self) {
        self.drain_all();
        for _ in 0..10_000 {
            let Some((from, to, message)) = self.network.pop_front() else {
                return;
            };
            self.deliver(from, to, message);
        }
        panic!("the cluster does not come to rest");
    }

    pub(super) fn deliver(&mut self, from: u64, to: u64, message: RaftMessage) {
        if self.cut.contains(&(from, to)) || !self.members.contains_key(&to) {
            return;
        }
        let _ = self.node(to).step(id(from), message);
        self.drain(to);
    }

    pub(super) fn tick_all(&mut self, ticks: usize) {
        for _ in 0..ticks {
            let nodes: Vec<u64> = self.members.keys().copied().collect();
            nodes.into_iter().for_each(|node| self.node(node).tick());
            self.settle();
        }
    }

    pub(super) fn elect(&mut self, node: u64) {
        self.node(node).campaign().unwrap();
        self.settle();
        assert_eq!(self.node(node).role(), Role::Leader);
        assert!(self.node(node).committed_in_term());
    }

    pub(super) fn propose(&mut self, node: u64, data: &'static str) {
        self.node(node).propose(Bytes::from(data)).unwrap();
        self.settle();
    }

    pub(super) fn change(&mut self, node: u64, change: MembershipChange) {
        self.node(node).propose_change(change, Bytes::from_static(b"why")).unwrap();
        self.settle();
    }

    /// Streams the snapshot that `leader` needs for `to`: staged, announced, handed out.
    pub(super) fn stage(&mut self, leader: u64, to: u64, meta: &SnapshotMeta) {
        let state = self.members[&leader].state.range(..=meta.index);
        let state = state.map(|(&index, data)| (index, data.clone())).collect();
        let member = self.members.get_mut(&to).unwrap();
        member.staged = state;
        member.consensus.expect_snapshot(Some((meta.index, meta.term)));
    }

    pub(super) fn lead(&self) -> Option<u64> {
        let leads = |(_, member): &(&u64, &Member)| member.consensus.role() == Role::Leader;
        self.members
            .iter()
            .filter(leads)
            .max_by_key(|(_, member)| member.consensus.term())
            .map(|(&node, _)| node)
    }

    pub(super) fn isolate(&mut self, node: u64) {
        for &other in self.members.keys().filter(|&&other| other != node) {
            self.cut.extend([(node, other), (other, node)]);
        }
    }
}

impl Member {
    fn persist(&mut self, (write, staged): (RaftWrite, BTreeMap<u64, Bytes>)) {
        if let Some(meta) = write.install {
            self.state = staged.clone();
            self.disk.snapshot_state = staged;
            self.disk.snapshot = meta;
            self.disk.entries.clear();
        }
        if let Some(first) = write.entries.first() {
            self.disk.entries.retain(|entry| entry.index < first.index);
            self.disk.entries.extend(write.entries);
        }
        if let Some(hard_state) = write.hard_state {
            self.disk.hard_state = hard_state;
        }
    }
}

/// A small generator, so that runs repeat.
pub(super) struct Draw(pub(super) u64);

impl Draw {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end
    }
}

pub(super) const APPEND: u32 = 3;
pub(super) const APPEND_RESPONSE: u32 = 4;
pub(super) const VOTE: u32 = 5;
pub(super) const VOTE_RESPONSE: u32 = 6;
pub(super) const SNAPSHOT: u32 = 7;
pub(super) const HEARTBEAT: u32 = 8;
pub(super) const HEARTBEAT_RESPONSE: u32 = 9;
pub(super) const TIMEOUT_NOW: u32 = 14;
pub(super) const PRE_VOTE: u32 = 17;
pub(super) const PRE_VOTE_RESPONSE: u32 = 18;
