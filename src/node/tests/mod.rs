//! Nodes of one cluster, driven by hand: a network that loses what it is told to, and disks that
//! hold exactly what was persisted.

mod contract;
mod cut_tail;
mod divergence;
mod granted;
mod hostile;
mod identity;
mod leases;
mod members;
mod releases;
mod restores;
mod rights;
mod run_loop;
mod sessions;
mod snapshots;
mod transfers;
mod watches;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;

use super::*;
use crate::{
    ClusterId, Config, Limits, Now,
    command::Command,
    id::{Boot, NodeId, Origin as OriginId, Secret, SessionId, StoreId},
    op::{CreateMode, List, Op, Outcome, Txn},
    wire::{Frame, HardState, LogEntry},
};

pub(super) fn id(id: u64) -> NodeId {
    NodeId::new(id).expect("ids are not 0")
}

pub(super) fn create(path: &str) -> Txn {
    create_as(path, CreateMode::Persistent)
}

pub(super) fn create_as(path: &str, mode: CreateMode) -> Txn {
    let path = crate::Path::sequential_prefix(path).expect("a valid path");
    Op::Create { path, data: Bytes::from_static(b"x"), mode, acl: None }.into()
}

/// A transaction outside any session, of the world.
pub(super) fn plain(txn: Txn) -> Request {
    Request::Txn { identities: Identities::none(), txn }
}

pub(super) fn open(secret: Secret, ttl: Duration) -> Request {
    Request::OpenSession { secret, ttl, identities: Identities::none() }
}

pub(super) fn attach(session: SessionId, secret: Secret, epoch: u64) -> Request {
    Request::Attach { session, secret, epoch, identities: Identities::none() }
}

/// A disk that holds what was persisted, and nothing else.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) store: StoreId,
    pub(super) boots: u64,
    /// Makes the nonces of two images of one disk differ.
    pub(super) image: u64,
    pub(super) local: Option<Bytes>,
    pub(super) hard_state: Option<HardState>,
    pub(super) entries: Vec<LogEntry>,
    pub(super) snapshot: Option<(u64, u64, Vec<Bytes>)>,
    staged: Option<(u64, u64, Vec<Bytes>)>,
    /// How many snapshots were begun.
    pub(super) begun: usize,
    pub(super) writes: usize,
    /// Whether its last record was cut off, and may have been acknowledged.
    pub(super) tail_cut: bool,
}

impl Disk {
    pub(super) fn new(store: u8) -> Self {
        Self {
            store: StoreId::from_bytes([store; 16]),
            boots: 0,
            image: 0,
            local: None,
            hard_state: None,
            entries: Vec::new(),
            snapshot: None,
            staged: None,
            begun: 0,
            writes: 0,
            tail_cut: false,
        }
    }

    pub(super) fn persist(&mut self, write: &Write) {
        self.writes += 1;
        for step in &write.snapshot {
            match step {
                SnapshotWrite::Begin { index, term } => {
                    self.staged = Some((*index, *term, Vec::new()));
                    self.begun += 1;
                }
                SnapshotWrite::Chunk { offset, bytes } => {
                    let staged = &mut self.staged.as_mut().expect("begun").2;
                    let length: usize = staged.iter().map(Bytes::len).sum();
                    assert_eq!(*offset, length as u64, "chunks follow each other");
                    staged.push(bytes.clone());
                }
                SnapshotWrite::Finish { length, crc } => {
                    let staged = self.staged.as_ref().expect("begun").2.concat();
                    assert_eq!((*length, *crc), (staged.len() as u64, crc32c::crc32c(&staged)));
                }
                SnapshotWrite::Install { index, term, reset_log } => {
                    let staged = self.staged.take().expect("finished");
                    assert_eq!((staged.0, staged.1), (*index, *term));
                    self.snapshot = Some(staged);
                    if *reset_log {
                        self.entries.clear();
                    }
                }
                SnapshotWrite::Discard => self.staged = None,
            }
        }
        self.tail_cut &= write.local.is_none();
        self.local = write.local.clone().or(self.local.take());
        if let Some(first) = write.entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
            self.entries.extend(write.entries.iter().cloned());
        }
        self.hard_state = write.hard_state.or(self.hard_state);
        if let Some(to) = write.compact_to {
            let covered = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.0);
            assert!(to <= covered, "the log up to {to} goes, and the snapshot ends at {covered}");
            self.entries.retain(|entry| entry.index > to);
        }
    }

    pub(super) fn open(&mut self) -> Restored {
        self.boots += 1;
        let nonce = (self.boots << 8) + (u64::from(self.store.as_bytes()[0]) << 32) + self.image;
        let boot = Boot { counter: self.boots, nonce };
        let mut restored = Restored::new(self.store, boot);
        restored.local = self.local.clone();
        restored.hard_state = self.hard_state;
        restored.entries = self.entries.clone();
        restored.tail_cut = self.tail_cut;
        let snapshot = self.snapshot.clone();
        restored.snapshot =
            snapshot.map(|(index, term, chunks)| RestoredSnapshot::new(index, term, chunks));
        restored
    }
}

pub(super) struct Cluster {
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) disks: BTreeMap<NodeId, Disk>,
    pub(super) outputs: BTreeMap<NodeId, Vec<Output>>,
    network: VecDeque<(NodeId, NodeId, Bytes)>,
    /// Says which frames are lost.
    pub(super) lose: Box<dyn FnMut(&Frame) -> bool>,
    pub(super) now: Duration,
    pub(super) founders: Vec<NodeId>,
    pub(super) limits: Limits,
    pub(super) session_rate: Option<(u32, u32)>,
    pub(super) sent: Vec<Bytes>,
    pub(super) record: bool,
    pub(super) accept_cut_tail: bool,
    pub(super) name: &'static str,
    /// What founders begin with.
    pub(super) backup: Option<Vec<Bytes>>,
    /// Things that came out to be dropped elsewhere.
    pub(super) garbage: usize,
}

pub(super) const TICK: Duration = Duration::from_millis(50);

impl Cluster {
    pub(super) fn new(founders: u64) -> Self {
        Self::with_limits(founders, Limits::default())
    }

    pub(super) fn with_limits(founders: u64, limits: Limits) -> Self {
        let founders: Vec<NodeId> = (1..=founders).map(id).collect();
        let mut this = Self {
            nodes: BTreeMap::new(),
            disks: BTreeMap::new(),
            outputs: BTreeMap::new(),
            network: VecDeque::new(),
            lose: Box::new(|_| false),
            now: Duration::from_secs(1),
            founders: founders.clone(),
            limits,
            session_rate: None,
            sent: Vec::new(),
            record: false,
            accept_cut_tail: false,
            name: "test",
            backup: None,
            garbage: 0,
        };
        for id in founders {
            let store = u8::try_from(id.as_u64()).expect("few");
            this.disks.insert(id, Disk::new(store));
            this.start(id);
        }
        this
    }

    /// Three founders of another cluster, which begins with a backup.
    pub(super) fn restored(name: &'static str, stores: u8, backup: &[Bytes]) -> Self {
        let mut this = Self::new(0);
        this.founders = (1..=3).map(id).collect();
        (this.name, this.backup) = (name, Some(backup.to_vec()));
        for (member, store) in this.founders.clone().into_iter().zip(stores..) {
            this.disks.insert(member, Disk::new(store));
            this.start(member);
        }
        this.elect();
        this
    }

    /// A cluster with a leader.
    pub(super) fn elected(founders: u64) -> Self {
        let mut this = Self::new(founders);
        this.elect();
        this
    }

    pub(super) fn elect(&mut self) -> NodeId {
        for _ in 0..400 {
            self.run(1);
            if let Some(leader) = self.leader() {
                return leader;
            }
        }
        panic!("no leader: {:#?}", self.nodes.values().map(Node::status).collect::<Vec<_>>());
    }

    /// The leader that a majority follows, with a commit in its term.
    pub(super) fn leader(&self) -> Option<NodeId> {
        let leaders = self.nodes.values().filter(|node| node.is_leader());
        let latest = leaders.max_by_key(|node| node.status().term)?;
        latest.consensus.committed_in_term().then_some(latest.config.id)
    }

    pub(super) fn config(&self, member: NodeId) -> Config {
        let cluster = ClusterId::named(self.name);
        let founders = self.founders.iter().copied();
        let builder = match (self.founders.contains(&member), &self.backup) {
            (true, None) => Config::founding(cluster, member, founders),
            (true, Some(it)) => Config::restoring(cluster, member, founders, it.iter().cloned()),
            (false, _) => Config::joining(cluster, member),
        };
        let builder = builder.accept_cut_tail(self.accept_cut_tail);
        let builder = match self.session_rate {
            Some((per_second, burst)) => builder.session_rate(per_second, burst),
            None => builder,
        };
        builder.limits(self.limits.clone()).build().expect("a valid set-up")
    }

    pub(super) fn start(&mut self, member: NodeId) {
        let restored = self.disks.get_mut(&member).expect("a disk").open();
        let node = Node::open(self.config(member), restored).expect("opens");
        self.nodes.insert(member, node);
        self.outputs.entry(member).or_default();
        self.drain(member);
    }

    pub(super) fn join(&mut self, member: u64) {
        let store = u8::try_from(member).expect("few");
        self.disks.insert(id(member), Disk::new(store));
        self.start(id(member));
    }

    pub(super) fn kill(&mut self, member: NodeId) {
        self.nodes.remove(&member);
        self.network.retain(|(from, to, _)| *from != member && *to != member);
    }

    pub(super) fn restart(&mut self, member: NodeId) {
        self.kill(member);
        self.start(member);
    }

    pub(super) fn node(&mut self, member: NodeId) -> &mut Node {
        self.nodes.get_mut(&member).expect("runs")
    }

    /// Drains one node, persisting at once.
    pub(super) fn drain(&mut self, member: NodeId) {
        let Some(node) = self.nodes.get_mut(&member) else {
            return;
        };
        let mut messages = Vec::new();
        while let Some(ready) = node.ready() {
            messages.extend(ready.messages);
            self.garbage += ready.garbage.items.len();
            if let Some((write, token)) = ready.write {
                self.disks.get_mut(&member).expect("a disk").persist(&write);
                messages.extend(node.persisted(token).expect("its own token"));
            }
            self.outputs.get_mut(&member).expect("started").extend(ready.outputs);
        }
        for message in messages {
            if self.record {
                self.sent.push(message.bytes.clone());
            }
            self.network.push_back((member, message.to, message.bytes));
        }
    }

    /// Delivers until nothing is under way.
    pub(super) fn settle(&mut self) {
        for member in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.drain(member);
        }
        let mut delivered = 0;
        while let Some((from, to, bytes)) = self.network.pop_front() {
            delivered += 1;
            assert!(delivered < 100_000, "the cluster never falls silent");
            let frame = Frame::decode(&bytes, usize::MAX).expect("our own frame");
            if (self.lose)(&frame) {
                continue;
            }
            let Some(node) = self.nodes.get_mut(&to) else {
                continue;
            };
            let _ = node.step(from, bytes);
            self.drain(to);
        }
    }

    pub(super) fn run(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.settle();
            self.now += TICK;
            self.tick_all();
            self.settle();
        }
    }

    pub(super) fn tick_all(&mut self) {
        let now = Now { mono: self.now, wall_ms: 1_000_000 + self.now.as_millis() as u64 };
        for member in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.node(member).tick(now).expect("drained");
            self.drain(member);
        }
    }

    pub(super) fn submit(&mut self, at: NodeId, request: Request) -> Ticket {
        self.node(at).submit(request).expect("taken")
    }

    pub(super) fn answer(&self, at: NodeId, ticket: Ticket) -> Option<&Output> {
        self.outputs[&at].iter().find(|output| match output {
            Output::Reply { ticket: it, .. }
            | Output::Session { ticket: it, .. }
            | Output::Read { ticket: it, .. } => *it == ticket,
            _ => false,
        })
    }

    /// The reply, or a panic that says what came instead.
    pub(super) fn reply(&self, at: NodeId, ticket: Ticket) -> Result<Outcome, RequestError> {
        match self.answer(at, ticket) {
            Some(Output::Reply { result, .. }) => {
                result.clone().map(|outcome| outcome.expect("a transaction has an outcome"))
            }
            other => panic!("no reply to {ticket:?} at {at}: {other:?}"),
        }
    }

    /// Submits a transaction outside any session, and waits for its reply.
    pub(super) fn write(&mut self, at: NodeId, txn: Txn) -> Result<Outcome, RequestError> {
        let ticket = self.submit(at, plain(txn));
        self.settle();
        self.reply(at, ticket)
    }

    pub(super) fn open_session(&mut self, at: NodeId, secret: u8, ttl: Duration) -> Attachment {
        let secret = Secret::from_bytes([secret; 16]);
        let ticket = self.submit(at, open(secret, ttl));
        self.settle();
        match self.answer(at, ticket) {
            Some(Output::Session { result: Ok(attachment), .. }) => *attachment,
            other => panic!("no session: {other:?}"),
        }
    }

    pub(super) fn submit_seq(
        &mut self,
        at: NodeId,
        session: SessionId,
        seq: u64,
        txn: Txn,
    ) -> Result<Ticket, SubmitError> {
        let seq = Seq { session, epoch: 1, seq, acked: 0 };
        self.node(at).submit(Request::SessionTxn { seq, txn })
    }

    pub(super) fn exists(&self, at: NodeId, path: &str) -> bool {
        let stat = self.nodes[&at].view().stat(&path.parse().expect("valid"));
        stat.expect("it sees everything").is_some()
    }

    /// Every live node has applied the same.
    pub(super) fn assert_agreement(&mut self) {
        self.settle();
        let state = |node: &Node| (node.image().index(), node.image().checksum());
        let states: Vec<_> = self.nodes.values().map(state).collect();
        for pair in states.windows(2) {
            assert_eq!(pair[0].0, pair[1].0, "all have applied the same index");
            assert!(pair[0].1 == pair[1].1, "all have the same state");
        }
    }
}
