//! A scripted run of a cluster, as what one of its members writes: recorded once, then replayed
//! against disks that fail.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::Path as Directory,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use quorate::{
    Acl, Check, ClusterId, Config, CreateMode, Guard, Identities, LeaseId, Limits, NodeId, Now, Op,
    Outcome, Path, Quota, Secret, SessionId, Txn, Zxid,
    node::{Node, Output, Request, Restored, Seq, Write},
    wal::{MemoryFs, Wal, WalError, WalOptions},
};

/// What is recorded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// With one, it leads and acknowledges; with three, it follows, is cut off, gets snapshots, and
    /// loses the end of its log to another leader.
    /// The last one is recorded.
    pub(super) members: u64,
    pub(super) operations: u64,
    pub(super) payload_bytes_max: u64,
    pub(super) snapshot_log_bytes: usize,
}

/// A recorded run.
pub(super) struct Script {
    pub(super) plan: Plan,
    pub(super) steps: Vec<Step>,
    /// The checksum of the state after each entry: alike on every member that applied it.
    pub(super) states: BTreeMap<u64, u32>,
}

/// What the member does to its disk.
pub(super) enum Step {
    /// It writes; the last transaction that is acknowledged once that is durable.
    Write { write: Write, acked: Zxid },
    /// The process ends and starts again.
    Restart,
}

/// Numbers from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub(super) struct Draw(pub(super) u64);

impl Draw {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % n.max(1)
    }
}

pub(super) fn dir() -> &'static Directory {
    Directory::new("/store")
}

impl Plan {
    /// Opens the store of the member that is recorded.
    pub(super) fn open(
        &self,
        fs: &MemoryFs,
        segment_bytes: u64,
    ) -> Result<(Wal, Restored), WalError> {
        open_of(fs, self.members, segment_bytes)
    }

    /// How that member is set up.
    pub(super) fn config(&self) -> Config {
        config_of(self, self.members)
    }
}

fn open_of(fs: &MemoryFs, id: u64, segment_bytes: u64) -> Result<(Wal, Restored), WalError> {
    let mut options = WalOptions::default();
    options.entropy = Some([id as u8; 32]);
    options.segment_bytes = segment_bytes;
    Wal::open_with(Arc::new(fs.clone()), dir(), ClusterId::named("storage"), member(id), options)
}

fn config_of(plan: &Plan, id: u64) -> Config {
    let mut limits = Limits::default();
    limits.history_count_max = 16;
    limits.snapshot_log_bytes = plan.snapshot_log_bytes;
    limits.log_tail_bytes_max = 4 * plan.snapshot_log_bytes;
    limits.snapshot_chunk_bytes = 1 << 10;
    let founders = (1..=plan.members).map(member);
    let builder = Config::founding(ClusterId::named("storage"), member(id), founders);
    builder.limits(limits).build().expect("a sound set-up")
}

fn member(id: u64) -> NodeId {
    NodeId::new(id).expect("not 0")
}

/// Records a run.
pub(super) fn record(plan: Plan) -> Script {
    let mut run = Run::new(plan);
    while run.operations < plan.operations {
        let at = run.operations;
        if plan.members == 1 && at % 250 == 249 {
            run.restart();
        }
        // For long, so that it needs a snapshot; or not, so that its log's end is replaced.
        let heal = if at / 200 % 2 == 0 { 160 } else { 60 };
        match at % 200 {
            20 => run.lead(plan.members),
            40 => run.cut = plan.members > 1,
            nth if nth == heal => run.cut = false,
            180 => run.lead(1),
            _ => {}
        }
        run.operation();
    }
    run.cut = false;
    run.ticks(40);
    assert!(run.answered * 2 > run.operations, "{} of {}", run.answered, run.operations);
    Script { plan, steps: run.steps, states: run.states }
}

struct Member {
    id: NodeId,
    fs: MemoryFs,
    running: Option<(Node, Wal)>,
    seen: u64,
}

/// A session, and how far its commands have come.
#[derive(Clone, Copy)]
struct Owner {
    session: SessionId,
    seq: u64,
    lease: Option<LeaseId>,
}

struct Run {
    plan: Plan,
    members: Vec<Member>,
    network: VecDeque<(NodeId, NodeId, Bytes)>,
    /// Whether the member that is recorded is cut off.
    cut: bool,
    steps: Vec<Step>,
    states: BTreeMap<u64, u32>,
    now: Duration,
    draw: Draw,
    owners: Vec<Owner>,
    learners: BTreeSet<NodeId>,
    operations: u64,
    answered: u64,
}

impl Run {
    fn new(plan: Plan) -> Self {
        let start = |id| Member { id: member(id), fs: MemoryFs::new(), running: None, seen: 0 };
        let mut run = Self {
            plan,
            members: (1..=plan.members).map(start).collect(),
            network: VecDeque::new(),
            cut: false,
            steps: Vec::new(),
            states: BTreeMap::new(),
            now: Duration::from_secs(1),
            draw: Draw(plan.operations),
            owners: Vec::new(),
            learners: BTreeSet::new(),
            operations: 0,
            answered: 0,
        };
        (0..run.members.len()).for_each(|at| run.start(at));
        run.lead(1);
        run
    }

    fn start(&mut self, at: usize) {
        let member = &mut self.members[at];
        let id = member.id.as_u64();
        let (wal, restored) = open_of(&member.fs, id, 64 << 10).expect("a sound disk");
        let node = Node::open(config_of(&self.plan, id), restored).expect("a sound log");
        member.running = Some((node, wal));
    }

    /// The only member starts again.
    fn restart(&mut self) {
        self.members[0].running = None;
        self.steps.push(Step::Restart);
        self.start(0);
        self.owners.clear();
        self.lead(1);
    }

    fn node(&mut self, at: usize) -> &mut Node {
        &mut self.members[at].running.as_mut().expect("it runs").0
    }

    /// Drains a member, and notes what it writes and comes to.
    fn drain(&mut self, at: usize) {
        let recorded = at + 1 == self.members.len();
        loop {
            let member = &mut self.members[at];
            let Some((node, wal)) = &mut member.running else { return };
            let ready = node.ready();
            let applied = node.status().applied;
            if applied != member.seen {
                member.seen = applied;
                let state = node.image().checksum();
                let known = *self.states.entry(applied).or_insert(state);
                assert_eq!(known, state, "the members agree after entry {applied}");
            }
            let Some(ready) = ready else { return };
            let mut messages = ready.messages;
            if let Some((write, token)) = ready.write {
                wal.persist(&write).expect("a sound disk");
                messages.extend(node.persisted(token).expect("its own token"));
                while let Some(chore) = wal.chore() {
                    wal.chore_done(chore.run()).expect("a sound disk");
                }
                if recorded {
                    self.steps.push(Step::Write { write, acked: Zxid::ZERO });
                }
            }
            let from = member.id;
            self.network.extend(messages.into_iter().map(|it| (from, it.to, it.bytes)));
            for output in ready.outputs {
                self.output(output, recorded);
            }
        }
    }

    fn output(&mut self, output: Output, recorded: bool) {
        match output {
            Output::Reply { zxid, result, .. } => {
                self.answered += 1;
                if let (true, Some(Step::Write { acked, .. })) = (recorded, self.steps.last_mut()) {
                    *acked = zxid.max(*acked);
                }
                if let Ok(Some(Outcome::Granted { lease, .. })) = result {
                    self.owners.iter_mut().for_each(|it| it.lease = Some(lease));
                }
            }
            Output::Session { result: Ok(it), .. } => {
                self.answered += 1;
                self.owners.push(Owner { session: it.session, seq: it.last_seq, lease: None });
            }
            Output::Detached { session, .. } => self.owners.retain(|it| it.session != session),
            _ => {}
        }
    }

    fn settle(&mut self) {
        (0..self.members.len()).for_each(|at| self.drain(at));
        while let Some((from, to, bytes)) = self.network.pop_front() {
            let is_cut = |id: NodeId| self.cut && id.as_u64() == self.plan.members;
            if is_cut(from) || is_cut(to) || to.as_u64() > self.plan.members {
                continue;
            }
            let at = to.as_u64() as usize - 1;
            let _ = self.node(at).step(from, bytes);
            self.drain(at);
        }
    }

    fn ticks(&mut self, count: u64) {
        for _ in 0..count {
            self.settle();
            self.now += Duration::from_millis(50);
            let now = Now { mono: self.now, wall_ms: self.now.as_millis() as u64 };
            for at in 0..self.members.len() {
                self.node(at).tick(now).expect("drained");
            }
            self.settle();
        }
    }

    /// Ticks until this member leads.
    fn lead(&mut self, id: u64) {
        let id = id.min(self.plan.members);
        for _ in 0..400 {
            self.ticks(1);
            let leader = (0..self.members.len()).find(|at| self.node(*at).is_leader());
            match leader {
                Some(at) if self.members[at].id.as_u64() == id => return self.ticks(5),
                Some(at) => {
                    let _ = self.node(at).transfer_leader(member(id));
                }
                None => {}
            }
        }
        panic!("member {id} does not lead");
    }

    /// One operation; it is answered before the next one, unless nobody leads.
    fn operation(&mut self) {
        self.operations += 1;
        let request = self.request();
        let at = match self.cut && self.draw.below(3) == 0 {
            // What a leader that is cut off takes is never committed.
            true => self.members.len() - 1,
            false => 0,
        };
        let plain = matches!(request, Request::Txn { .. });
        let taken = self.node(if plain { at } else { 0 }).submit(request);
        if let (Err(_), Some(owner)) = (taken, self.owners.last_mut()) {
            owner.seq = owner.seq.saturating_sub(1);
        }
        self.settle();
        let ticks = 1 + u64::from(self.draw.below(40) == 0) * 30;
        self.ticks(ticks);
        for _ in 0..60 {
            if self.node(0).status().pending == 0 {
                return;
            }
            self.ticks(1);
        }
    }

    fn request(&mut self) -> Request {
        let kind = self.draw.below(40);
        if self.owners.is_empty() || kind == 0 {
            let mut secret = [7; 16];
            secret[..8].copy_from_slice(&self.operations.to_le_bytes());
            let (secret, ttl) = (Secret::from_bytes(secret), Duration::from_secs(4));
            return Request::OpenSession { secret, ttl, identities: Identities::none() };
        }
        if kind == 1 && self.plan.members == 1 {
            return self.membership();
        }
        if kind < 8 {
            return Request::Txn { identities: Identities::none(), txn: self.txn(None) };
        }
        let owner = *self.owners.last().expect("there is one");
        if kind < 14 {
            let (session, acked) = (owner.session, owner.seq);
            return Request::KeepAlive { session, epoch: 1, acked };
        }
        let txn = self.txn(owner.lease);
        let owner = self.owners.last_mut().expect("there is one");
        owner.seq += 1;
        let seq = Seq { session: owner.session, epoch: 1, seq: owner.seq, acked: owner.seq - 1 };
        match kind {
            14 => Request::CloseSession { seq },
            _ => Request::SessionTxn { seq, txn },
        }
    }

    fn membership(&mut self) -> Request {
        match self.learners.pop_first() {
            Some(learner) => Request::Remove(learner),
            None => {
                let learner = member(100 + self.operations);
                self.learners.insert(learner);
                Request::AddLearner(learner)
            }
        }
    }

    fn txn(&mut self, lease: Option<LeaseId>) -> Txn {
        let parent: Path = path(&format!("/n{}", self.draw.below(24)));
        let child = format!("{parent}/c{}", self.draw.below(3));
        let bytes = self.draw.below(self.plan.payload_bytes_max + 1) as usize;
        let data = Bytes::from(vec![self.operations as u8; bytes]);
        let create = |text: &str, mode| {
            let path = Path::sequential_prefix(text).expect("a path");
            Op::Create { path, data: data.clone(), mode, acl: None }
        };
        let set = |path: &Path| Op::Set { path: path.clone(), data: data.clone(), version: None };
        let text = parent.as_str();
        let seconds = Duration::from_secs(1 + self.draw.below(20));
        Txn::new(match self.draw.below(22) {
            0..=4 => create(text, CreateMode::Persistent),
            5..=8 => set(&parent),
            9 => Op::Delete { path: parent, version: None },
            10 => Op::DeleteTree { path: parent },
            11 => create(&format!("{text}/q-"), CreateMode::PersistentSequential),
            12 => create(&child, CreateMode::Ephemeral),
            13 => Op::SetAcl { path: parent, acl: Acl::open(), version: None },
            14 => {
                let nodes_hard = Some(20 + self.draw.below(9));
                let quota = Quota { nodes_hard, ..Quota::default() };
                Op::SetQuota { path: parent, quota: Some(quota) }
            }
            15 => create(text, CreateMode::Ttl(seconds)),
            16 => create(text, CreateMode::Container),
            17 => Op::Grant { ttl: seconds.max(Duration::from_secs(2)) },
            18 => match lease {
                Some(lease) => create(&child, CreateMode::Leased(lease)),
                None => set(&parent),
            },
            19 => match lease {
                Some(lease) if self.draw.below(3) == 0 => Op::Revoke { lease },
                _ => set(&parent),
            },
            _ => {
                let there = Guard { path: parent.clone(), check: Check::Exists(true) };
                let get = Op::Get { path: parent.clone() };
                let ops = [create(&child, CreateMode::Persistent), set(&parent), get];
                let other = create(text, CreateMode::Persistent);
                return Txn::all(ops).guard(there).or_else([other]);
            }
        })
    }
}

fn path(text: &str) -> Path {
    text.parse().expect("a path")
}
