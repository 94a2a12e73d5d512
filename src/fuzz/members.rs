//! Nodes of one cluster, driven by hand: disks that hold what was persisted, and a network that
//! loses what goes to or from one of them when it is cut off.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;

use super::samples::{NODE, cluster, create_txn};
use crate::{
    config::{Config, Limits},
    id::{Boot, NodeId, StoreId},
    node::{
        Caller, Consistency, Node, Read, ReadOp, Request, Restored, RestoredSnapshot,
        SnapshotWrite, Ticket, Write,
    },
    op::Identities,
    path::Path,
    time::Now,
    wire::{Frame, HardState, LogEntry},
};

pub(super) struct Members {
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) disks: BTreeMap<NodeId, Disk>,
    network: VecDeque<(NodeId, NodeId, Bytes)>,
    /// Hears nobody, and nobody hears it.
    pub(super) cut_off: Option<NodeId>,
    /// Lost on the way to everybody.
    pub(super) lose: fn(&Frame) -> bool,
    now: Duration,
    /// Every frame that was sent, if that is wanted.
    pub(super) sent: Option<Vec<Bytes>>,
}

/// What was persisted.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    store: u8,
    boots: u64,
    pub(super) local: Option<Bytes>,
    pub(super) hard_state: Option<HardState>,
    pub(super) entries: Vec<LogEntry>,
    pub(super) snapshot: Option<(u64, u64, Vec<Bytes>)>,
    staged: Option<(u64, u64, Vec<Bytes>)>,
}

impl Disk {
    pub(super) fn new(store: u8) -> Self {
        Self {
            store,
            boots: 0,
            local: None,
            hard_state: None,
            entries: Vec::new(),
            snapshot: None,
            staged: None,
        }
    }

    fn persist(&mut self, write: &Write) {
        for step in &write.snapshot {
            match step {
                SnapshotWrite::Begin { index, term } => {
                    self.staged = Some((*index, *term, Vec::new()));
                }
                SnapshotWrite::Chunk { bytes, .. } => {
                    self.staged.iter_mut().for_each(|staged| staged.2.push(bytes.clone()));
                }
                SnapshotWrite::Finish { .. } => {}
                SnapshotWrite::Install { reset_log, .. } => {
                    self.snapshot = self.staged.take().or(self.snapshot.take());
                    if *reset_log {
                        self.entries.clear();
                    }
                }
                SnapshotWrite::Discard => self.staged = None,
            }
        }
        self.local = write.local.clone().or(self.local.take());
        if let Some(first) = write.entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
            self.entries.extend(write.entries.iter().cloned());
        }
        self.hard_state = write.hard_state.or(self.hard_state);
        if let Some(to) = write.compact_to {
            self.entries.retain(|entry| entry.index > to);
        }
    }

    /// What the next opening finds.
    pub(super) fn open(&mut self) -> Restored {
        self.boots += 1;
        let boot = Boot { counter: self.boots, nonce: self.boots + 1_000 };
        let mut restored = Restored::new(StoreId::from_bytes([self.store; 16]), boot);
        restored.local = self.local.clone();
        restored.hard_state = self.hard_state;
        restored.entries = self.entries.clone();
        let snapshot = self.snapshot.clone();
        restored.snapshot =
            snapshot.map(|(index, term, it)| RestoredSnapshot::new(index, term, it));
        restored
    }
}

impl Members {
    /// Three founders, and no leader yet.
    pub(super) fn founded() -> Self {
        let mut this = Self {
            nodes: BTreeMap::new(),
            disks: BTreeMap::new(),
            network: VecDeque::new(),
            cut_off: None,
            lose: |_| false,
            now: Duration::from_secs(1),
            sent: None,
        };
        (1..=3).for_each(|member| this.add(member));
        this
    }

    /// One more member; beyond the third it waits to be admitted.
    pub(super) fn add(&mut self, member: u8) {
        self.disks.insert(id(member.into()), Disk::new(member));
        self.start(id(member.into()));
    }

    /// A process that begins from its disk.
    pub(super) fn start(&mut self, member: NodeId) {
        let restored = self.disks.get_mut(&member).map(Disk::open);
        let node = restored.map(|restored| Node::open(config(member), restored));
        match node {
            Some(Ok(node)) => drop(self.nodes.insert(member, node)),
            other => panic!("a sound disk of {member}: {other:?}"),
        }
        self.network.retain(|(from, to, _)| *from != member && *to != member);
        self.drain(member);
    }

    /// Drains one node, and persists at once.
    pub(super) fn drain(&mut self, member: NodeId) {
        let (Some(node), Some(disk)) = (self.nodes.get_mut(&member), self.disks.get_mut(&member))
        else {
            return;
        };
        for message in drained(node, disk) {
            self.sent.iter_mut().for_each(|sent| sent.push(message.1.clone()));
            self.network.push_back((member, message.0, message.1));
        }
    }

    /// Ticks all, and delivers until nothing is under way.
    pub(super) fn run(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.settle();
            for member in self.nodes.keys().copied().collect::<Vec<_>>() {
                self.tick(member);
            }
            self.now += TICK;
            self.settle();
        }
    }

    pub(super) fn run_until(&mut self, ticks: usize, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..ticks {
            if done(self) {
                return;
            }
            self.run(1);
        }
        let told: Vec<_> = self.nodes.values().map(Node::status).collect();
        panic!("{what}: not within {ticks} ticks: {told:#?}");
    }

    pub(super) fn tick(&mut self, member: NodeId) {
        let now = Now { mono: self.now, wall_ms: self.now.as_millis() as u64 };
        self.drain(member);
        if let Some(node) = self.nodes.get_mut(&member) {
            assert_eq!(node.tick(now), Ok(()), "it was drained");
        }
        self.drain(member);
    }

    fn settle(&mut self) {
        for member in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.drain(member);
        }
        let mut delivered = 0;
        while let Some((from, to, bytes)) = self.network.pop_front() {
            delivered += 1;
            assert!(delivered < 100_000, "the cluster never falls silent");
            let cut = [from, to].iter().any(|it| self.cut_off == Some(*it));
            let lost = Frame::decode(&bytes, usize::MAX).is_ok_and(|frame| (self.lose)(&frame));
            if let Some(node) = self.nodes.get_mut(&to).filter(|_| !cut && !lost) {
                let _ = node.step(from, bytes);
                self.drain(to);
            }
        }
    }

    /// The leader of the latest term, if one is not cut off.
    pub(super) fn leader(&self) -> Option<NodeId> {
        let nodes = self.nodes.iter().filter(|(id, _)| self.cut_off != Some(**id));
        let leaders = nodes.filter(|(_, node)| node.is_leader());
        leaders.max_by_key(|(_, node)| node.status().term).map(|(id, _)| *id)
    }

    pub(super) fn submit(&mut self, at: NodeId, request: Request) -> Option<Ticket> {
        self.nodes.get_mut(&at)?.submit(request).ok()
    }

    /// Asks for a node to be made, by a member that may not be heard.
    pub(super) fn create(&mut self, at: NodeId, path: &str) {
        let (identities, txn) = (Identities::none(), create_txn(path));
        self.submit(at, Request::Txn { identities, txn });
    }

    pub(super) fn read(&mut self, at: NodeId) {
        let (caller, op) = (Caller::world(), ReadOp::Barrier);
        let read = Read { caller, op, consistency: Consistency::Linearizable };
        let _ = self.nodes.get_mut(&at).map(|node| node.read(read));
    }

    pub(super) fn exists(&self, at: NodeId, path: &str) -> bool {
        let path = Path::new(path).unwrap_or_else(|_| Path::root());
        let stat = self.nodes.get(&at).map(|node| node.view().stat(&path));
        matches!(stat, Some(Ok(Some(_))))
    }
}

/// Everything that a node has to say, its writes persisted at once.
pub(super) fn drained(node: &mut Node, disk: &mut Disk) -> Vec<(NodeId, Bytes)> {
    let mut messages = Vec::new();
    while let Some(ready) = node.ready() {
        messages.extend(ready.messages);
        if let Some((write, token)) = ready.write {
            disk.persist(&write);
            match node.persisted(token) {
                Ok(acknowledged) => messages.extend(acknowledged),
                Err(misuse) => panic!("its own token: {misuse}"),
            }
        }
    }
    messages.into_iter().map(|message| (message.to, message.bytes)).collect()
}

/// Founders are 1 to 3; snapshots are small and often.
pub(super) fn config(member: NodeId) -> Config {
    let builder = match member.as_u64() {
        1..=3 => Config::founding(cluster(), member, [1, 2, 3].map(id)),
        _ => Config::joining(cluster(), member),
    };
    let limits = Limits {
        log_tail_bytes_max: 2_000,
        snapshot_log_bytes: 1_024,
        snapshot_chunk_bytes: 512,
        compare_entries_max: 4,
        ..Limits::default()
    };
    match builder.limits(limits).build() {
        Ok(config) => config,
        Err(error) => panic!("the set-up is valid: {error}"),
    }
}

pub(super) fn id(id: u64) -> NodeId {
    NodeId::new(id).unwrap_or(NODE)
}

pub(super) const TICK: Duration = Duration::from_millis(50);
