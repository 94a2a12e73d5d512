//! Three members over disks that lose what was not synced: the power fails for all of them at once,
//! at any moment, and nothing that was acknowledged is lost or done twice.
//!
//! It fails when the fsync is taken out: `MemoryFs` keeps un-synced data apart, and `Keep::Nothing`
//! or a random subset with torn sectors is all that a crash leaves of it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::Path as FsPath,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use quorate::{
    ClusterId, Config, CreateMode, Identities, Limits, List, NodeId, Now, Op, Outcome, Path,
    PathPrefix, Secret, SessionId, Txn,
    node::{Node, Output, Request, Seq, Ticket, Token, Write},
    wal::{Fault, Fs, Keep, MemoryFs, Wal, WalOptions},
};

struct Draw(u64);

impl Draw {
    fn next(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

struct Member {
    fs: MemoryFs,
    running: Option<(Node, Wal)>,
    /// Writes that are out, oldest first.
    out: VecDeque<(Write, Token)>,
}

/// What an fsync does.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Disks {
    /// It is done before anything else happens.
    Prompt,
    /// It comes later, and several writes share it.
    Behind,
    /// It does nothing.
    Lying,
}

struct Cluster {
    draw: Draw,
    members: BTreeMap<NodeId, Member>,
    network: VecDeque<(NodeId, NodeId, Bytes)>,
    now: Duration,
    outputs: Vec<(NodeId, Output)>,
    /// Steps until the power fails, in the middle of whatever then happens.
    fuse: u64,
    boots: u64,
    disks: Disks,
    /// Writes that shared an fsync with the one before.
    shared: u64,
    /// Writes with bytes of a snapshot that had others behind them.
    staged_behind: u64,
}

fn ids() -> [NodeId; 3] {
    [1, 2, 3].map(|id| NodeId::new(id).expect("not 0"))
}

impl Cluster {
    fn new(seed: u64, disks: Disks) -> Self {
        let member = || Member { fs: MemoryFs::new(), running: None, out: VecDeque::new() };
        Self {
            draw: Draw(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            members: ids().map(|id| (id, member())).into(),
            network: VecDeque::new(),
            now: Duration::from_secs(1),
            outputs: Vec::new(),
            fuse: u64::MAX,
            boots: 0,
            disks,
            shared: 0,
            staged_behind: 0,
        }
    }

    fn start_all(&mut self) {
        for id in ids() {
            self.boots += 1;
            let mut entropy = [0; 32];
            entropy[..8].copy_from_slice(&self.boots.to_le_bytes());
            let mut options = WalOptions::default();
            options.entropy = Some(entropy);
            options.segment_bytes = 64 << 10;
            let member = self.members.get_mut(&id).expect("a member");
            let fs: Arc<dyn Fs> = Arc::new(member.fs.clone());
            let cluster = ClusterId::named("power-cut");
            let (wal, restored) =
                Wal::open_with(fs, FsPath::new("/data"), cluster, id, options).expect("opens");
            let mut limits = Limits::default();
            limits.snapshot_log_bytes = 20 << 10;
            // A snapshot takes several ticks, and so does the state behind it.
            limits.snapshot_chunk_bytes = 512;
            let config = Config::founding(cluster, id, ids()).limits(limits).build();
            let node = Node::open(config.expect("valid"), restored).expect("opens");
            member.running = Some((node, wal));
        }
    }

    fn cut_power(&mut self) {
        self.network.clear();
        for (n, member) in self.members.values_mut().enumerate() {
            member.running = None;
            member.out.clear();
            let keep = match self.draw.next(3) {
                0 => Keep::Nothing,
                1 => Keep::Everything,
                _ => Keep::Random { seed: self.draw.next(1 << 40) + n as u64 },
            };
            member.fs.crash(keep);
        }
    }

    /// Whether the power has failed.
    fn burn(&mut self) -> bool {
        self.fuse = self.fuse.saturating_sub(1);
        self.fuse == 0
    }

    fn drain(&mut self, id: NodeId) {
        if self.disks == Disks::Behind && self.draw.next(3) > 0 {
            self.write(id);
        }
        loop {
            if self.burn() {
                return;
            }
            let member = self.members.get_mut(&id).expect("a member");
            let Some((node, _)) = member.running.as_mut() else {
                return;
            };
            let Some(ready) = node.ready() else {
                if !node.is_blocked() {
                    return;
                }
                self.write(id);
                continue;
            };
            member.out.extend(ready.write);
            self.outputs.extend(ready.outputs.into_iter().map(|output| (id, output)));
            self.network.extend(ready.messages.into_iter().map(|it| (id, it.to, it.bytes)));
            if self.disks != Disks::Behind {
                self.write(id);
            }
        }
    }

    /// Makes what is out durable, in one fsync where that is possible.
    fn write(&mut self, id: NodeId) {
        let member = self.members.get_mut(&id).expect("a member");
        let Some((node, wal)) = member.running.as_mut() else {
            return;
        };
        while let Some((mut write, token)) = member.out.pop_front() {
            self.staged_behind += u64::from(!write.snapshot.is_empty() && !member.out.is_empty());
            let mut tokens = vec![token];
            while member.out.front().is_some_and(|(next, _)| write.takes(next)) {
                let (next, token) = member.out.pop_front().expect("there is one");
                write.append(next);
                tokens.push(token);
                self.shared += 1;
            }
            wal.persist(&write).expect("the disk works");
            for token in tokens {
                let messages = node.persisted(token).expect("its own token, in order");
                self.network.extend(messages.into_iter().map(|it| (id, it.to, it.bytes)));
            }
        }
        while let Some(chore) = wal.chore() {
            wal.chore_done(chore.run()).expect("the disk works");
        }
    }

    fn settle(&mut self) {
        for id in ids() {
            self.drain(id);
        }
        while self.fuse > 0 {
            let Some((from, to, bytes)) = self.network.pop_front() else {
                break;
            };
            if let Some((node, _)) = self.members.get_mut(&to).and_then(|it| it.running.as_mut()) {
                let _ = node.step(from, bytes);
            }
            self.drain(to);
        }
    }

    fn run(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.settle();
            self.now += Duration::from_millis(50);
            for id in ids() {
                if self.fuse == 0 {
                    return;
                }
                let now = Now { mono: self.now, wall_ms: 1 };
                self.node(id).tick(now).expect("drained");
                self.drain(id);
            }
            self.settle();
        }
    }

    fn elect(&mut self) -> NodeId {
        for _ in 0..400 {
            self.run(1);
            if let Some(leader) = ids().into_iter().find(|&id| self.node(id).is_leader()) {
                self.run(2);
                return leader;
            }
        }
        panic!("no leader");
    }

    fn node(&mut self, id: NodeId) -> &mut Node {
        &mut self.members.get_mut(&id).expect("a member").running.as_mut().expect("runs").0
    }
}

/// Creates sequential nodes of one session, each once, until the power fails.
fn write_until_dark(
    cluster: &mut Cluster,
    at: NodeId,
    session: SessionId,
    prefix: &PathPrefix,
) -> (BTreeSet<String>, u64) {
    let mut waiting: BTreeMap<Ticket, u64> = BTreeMap::new();
    let (mut acknowledged, mut seq) = (BTreeSet::new(), 0);
    if cluster.disks == Disks::Lying {
        for member in cluster.members.values() {
            member.fs.arm(&[Fault::LieSync(1)]);
        }
    }
    cluster.fuse = 50 + cluster.draw.next(1_500);
    while cluster.fuse > 0 {
        for _ in 0..cluster.draw.next(6) {
            let create = Op::Create {
                path: prefix.clone(),
                data: vec![9; 200].into(),
                mode: CreateMode::PersistentSequential,
                acl: None,
            };
            seq += 1;
            let place = Seq { session, epoch: 1, seq, acked: 0 };
            let request = Request::SessionTxn { seq: place, txn: Txn::new(create) };
            let ticket = cluster.node(at).submit(request).expect("taken");
            waiting.insert(ticket, seq);
        }
        if cluster.draw.next(4) == 0 {
            cluster.run(1)
        } else {
            cluster.settle()
        }
        let outputs = std::mem::take(&mut cluster.outputs);
        for (_, output) in outputs.into_iter().filter(|it| it.0 == at) {
            if let Output::Reply { ticket, result, .. } = output {
                assert!(waiting.remove(&ticket).is_some(), "each is answered once");
                match result {
                    Ok(Some(Outcome::Created { path, .. })) => {
                        acknowledged.insert(path.to_string());
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    cluster.outputs.clear();
    (acknowledged, seq)
}

/// How many writes were acknowledged, and how often bytes of a snapshot had writes behind them.
fn power_cuts(seed: u64, disks: Disks) -> Result<(usize, u64), String> {
    let mut cluster = Cluster::new(seed, disks);
    let mut acknowledged = BTreeSet::new();
    let mut submitted = 0;
    for round in 0..5 {
        cluster.start_all();
        cluster.fuse = u64::MAX;
        let leader = cluster.elect();
        check(&mut cluster, &acknowledged, submitted)?;
        let at = ids()[cluster.draw.next(3) as usize];
        let secret = Secret::from_bytes([round + 1; 16]);
        let ttl = Duration::from_secs(3_600);
        let open = Request::OpenSession { secret, ttl, identities: Identities::none() };
        let open = cluster.node(at).submit(open).expect("taken");
        cluster.run(3);
        let session = cluster.outputs.drain(..).find_map(|(_, output)| match output {
            Output::Session { ticket, result } if ticket == open => result.ok(),
            _ => None,
        });
        let session = session.unwrap_or_else(|| panic!("a session at {at}, led by {leader}"));
        let prefix = Path::sequential_prefix(&format!("/r{round}-")).expect("valid");
        let (more, count) = write_until_dark(&mut cluster, at, session.session, &prefix);
        acknowledged.extend(more);
        submitted += count;
        cluster.cut_power();
    }
    cluster.start_all();
    cluster.fuse = u64::MAX;
    cluster.elect();
    check(&mut cluster, &acknowledged, submitted)?;
    assert_eq!(cluster.shared > 0, disks == Disks::Behind);
    Ok((acknowledged.len(), cluster.staged_behind))
}

/// Every acknowledged node is on every member, the members agree, and nothing happened twice.
fn check(
    cluster: &mut Cluster,
    acknowledged: &BTreeSet<String>,
    submitted: u64,
) -> Result<(), String> {
    cluster.run(5);
    let mut names = Vec::new();
    for id in ids() {
        let view = cluster.node(id).view();
        let mut list = List::of(Path::root());
        let mut all = BTreeSet::new();
        loop {
            let page = view.list(&list).expect("the root");
            all.extend(page.children.into_iter().map(|child| format!("/{}", child.name)));
            let Some(resume) = page.resume else { break };
            list = list.after(resume);
        }
        if let Some(lost) = acknowledged.iter().find(|path| !all.contains(*path)) {
            return Err(format!("{lost} was acknowledged and is not on member {id}"));
        }
        if all.len() as u64 > submitted {
            return Err(format!("{} nodes of {submitted} creations", all.len()));
        }
        names.push(all);
    }
    match names.windows(2).all(|pair| pair[0] == pair[1]) {
        true => Ok(()),
        false => Err("the members disagree".into()),
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_fails() {
    for disks in [Disks::Prompt, Disks::Behind] {
        let (mut acknowledged, mut staged_behind) = (0, 0);
        for seed in 1..=40 {
            match power_cuts(seed, disks) {
                Ok((count, behind)) => {
                    acknowledged += count;
                    staged_behind += behind;
                }
                Err(why) => panic!("{disks:?}, seed {seed}: {why}"),
            }
        }
        assert_eq!(staged_behind > 20, disks == Disks::Behind, "{staged_behind}");
        assert!(acknowledged > 2_000, "the power fails in the middle of work: {acknowledged}");
    }
}

/// The harness sees what it is for: with an fsync that does nothing, acknowledged writes are lost,
/// or the members refuse to open what is left.
#[test]
fn an_fsync_that_does_nothing_is_found_out() {
    let lost = (1..=10).filter(|&seed| {
        let run = std::panic::catch_unwind(|| power_cuts(seed, Disks::Lying));
        !matches!(run, Ok(Ok(_)))
    });
    assert!(lost.count() >= 9);
}
