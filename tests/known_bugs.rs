//! Bugs that others had, tried on a cluster of nodes; and the index of all of them,
//! KNOWN_BUGS.md: each test that it names exists.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    path::Path as FsPath,
    time::Duration,
};

use bytes::Bytes;
use quorate::{
    Acl, Boot, ClusterId, Config, CreateMode, EntryKind, Grant, HardState, Identities, Identity,
    Limits, LogEntry, NodeId, Now, Op, OpError, Outcome, Path, PathPrefix, Principal, Rights,
    StoreId, Subject, Txn,
    node::{
        Caller, Consistency, Ended, Node, Output, Read, ReadOp, ReadOutcome, Request, RequestError,
        Restored, RestoredSnapshot, SnapshotWrite, Ticket, Write,
    },
};

struct Cluster {
    nodes: BTreeMap<NodeId, Node>,
    network: VecDeque<Frame>,
    /// Frames that lie in the network for longer.
    held: Vec<Frame>,
    /// Links that carry nothing, each way by itself.
    cut: BTreeSet<(u64, u64)>,
    /// Members whose process stands still.
    paused: BTreeSet<u64>,
    now: Duration,
    outputs: Vec<(NodeId, Output)>,
    writes: Vec<(NodeId, Write)>,
}

/// From, to, bytes.
#[derive(Clone)]
struct Frame(NodeId, NodeId, Bytes);

fn id(n: u64) -> NodeId {
    NodeId::new(n).expect("not 0")
}

fn path(text: &str) -> Path {
    text.parse().expect("a path")
}

fn cluster_id() -> ClusterId {
    ClusterId::named("known")
}

fn config(n: u64, members: u64) -> Config {
    let mut limits = Limits::default();
    limits.snapshot_log_bytes = 4 << 10;
    limits.log_tail_bytes_max = 8 << 10;
    limits.snapshot_chunk_bytes = 512;
    let builder = Config::founding(cluster_id(), id(n), (1..=members).map(id));
    builder.limits(limits).build().expect("a sound set-up")
}

fn restored(n: u64) -> Restored {
    Restored::new(StoreId::from_bytes([n as u8; 16]), Boot { counter: 1, nonce: n })
}

impl Cluster {
    fn new(members: u64) -> Self {
        let open = |n| (id(n), Node::open(config(n, members), restored(n)).expect("a new store"));
        Self {
            nodes: (1..=members).map(open).collect(),
            network: VecDeque::new(),
            held: Vec::new(),
            cut: BTreeSet::new(),
            paused: BTreeSet::new(),
            now: Duration::from_secs(1),
            outputs: Vec::new(),
            writes: Vec::new(),
        }
    }

    fn node(&mut self, n: u64) -> &mut Node {
        self.nodes.get_mut(&id(n)).expect("a member")
    }

    fn drain(&mut self, at: NodeId) {
        if self.paused.contains(&at.as_u64()) {
            return;
        }
        let node = self.nodes.get_mut(&at).expect("a member");
        while let Some(ready) = node.ready() {
            let mut messages = ready.messages;
            if let Some((write, token)) = ready.write {
                self.writes.push((at, write));
                messages.extend(node.persisted(token).expect("its own token"));
            }
            self.network.extend(messages.into_iter().map(|it| Frame(at, it.to, it.bytes)));
            self.outputs.extend(ready.outputs.into_iter().map(|output| (at, output)));
        }
    }

    fn settle(&mut self) {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        ids.into_iter().for_each(|at| self.drain(at));
        while let Some(frame) = self.network.pop_front() {
            let Frame(from, to, bytes) = frame.clone();
            if self.cut.contains(&(from.as_u64(), to.as_u64())) {
                continue;
            }
            if self.paused.contains(&to.as_u64()) {
                self.held.push(frame);
                continue;
            }
            let _ = self.nodes.get_mut(&to).expect("a member").step(from, bytes);
            self.drain(to);
        }
    }

    fn run(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.settle();
            self.now += Duration::from_millis(50);
            let now = Now { mono: self.now, wall_ms: 1 };
            for (at, node) in &mut self.nodes {
                if !self.paused.contains(&at.as_u64()) {
                    node.tick(now).expect("drained");
                }
            }
            self.settle();
        }
    }

    /// Cuts all links between the members of two groups, both ways.
    fn part(&mut self, some: &[u64], others: &[u64]) {
        for one in some {
            for other in others {
                self.cut.extend([(*one, *other), (*other, *one)]);
            }
        }
    }

    /// Cuts all links but these.
    fn keep_links(&mut self, kept: &[(u64, u64)]) {
        let ids: Vec<u64> = self.nodes.keys().map(|it| it.as_u64()).collect();
        let links = ids.iter().flat_map(|one| ids.iter().map(move |other| (*one, *other)));
        let is_kept = |it: &(u64, u64)| kept.contains(it) || kept.contains(&(it.1, it.0));
        self.cut = links.filter(|it| !is_kept(it)).collect();
    }

    /// Who leads, among members that do not stand still, in the latest term.
    fn leader(&self) -> Option<u64> {
        let leads = self.nodes.iter().filter(|it| it.1.is_leader());
        let running = leads.filter(|it| !self.paused.contains(&it.0.as_u64()));
        running.max_by_key(|it| it.1.status().term).map(|it| it.0.as_u64())
    }

    fn elect(&mut self, n: u64) {
        for _ in 0..400 {
            self.run(1);
            match self.leader() {
                Some(leader) if leader == n => return self.run(5),
                Some(leader) => {
                    let _ = self.node(leader).transfer_leader(id(n));
                }
                None => {}
            }
        }
        panic!("member {n} does not lead");
    }

    fn submit(&mut self, n: u64, who: &Identities, op: Op) -> Ticket {
        let request = Request::Txn { identities: who.clone(), txn: Txn::new(op) };
        self.node(n).submit(request).expect("taken")
    }

    /// The answer to a transaction that member `n` took, if there is one.
    fn answer(&self, n: u64, wanted: Ticket) -> Option<Result<Option<Outcome>, RequestError>> {
        self.outputs.iter().find_map(|(at, output)| match output {
            Output::Reply { ticket, result, .. } if *ticket == wanted && *at == id(n) => {
                Some(result.clone())
            }
            _ => None,
        })
    }

    fn write(&mut self, n: u64, op: Op) -> Result<Option<Outcome>, RequestError> {
        let ticket = self.submit(n, &Identities::none(), op);
        for _ in 0..250 {
            if let Some(result) = self.answer(n, ticket) {
                return result;
            }
            self.run(1);
        }
        panic!("no answer at member {n}");
    }

    fn assert_agreement(&mut self) {
        self.run(60);
        let state = |node: &Node| (node.status().applied, node.image().checksum());
        let states: BTreeSet<_> = self.nodes.values().map(state).collect();
        assert_eq!(states.len(), 1, "the members agree: {states:?}");
        assert!(self.nodes.values().all(|node| node.ended().is_none()));
    }
}

fn create(text: &str, data: &str) -> Op {
    let path: PathPrefix = path(text).into();
    Op::Create { path, data: data.to_owned().into(), mode: CreateMode::Persistent, acl: None }
}

fn set(text: &str, data: impl Into<Bytes>, version: Option<u64>) -> Op {
    Op::Set { path: path(text), data: data.into(), version }
}

/// etcd issue 18055: a member that got a second snapshot soon after the first one crashed.
#[test]
fn two_snapshots_in_quick_succession_are_taken() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.write(1, create("/a", "")).expect("written");
    let installs = |cluster: &Cluster| {
        let is = |step: &&SnapshotWrite| match step {
            SnapshotWrite::Install { reset_log, index, .. } => *reset_log && *index > 1,
            _ => false,
        };
        let of_three = cluster.writes.iter().filter(|it| it.0 == id(3));
        of_three.flat_map(|it| &it.1.snapshot).filter(is).count()
    };
    for round in 0..12 {
        let before = installs(&cluster);
        cluster.part(&[3], &[1, 2]);
        for n in 0..30 {
            cluster.write(1, set("/a", vec![n; 700], None)).expect("written");
        }
        cluster.cut.clear();
        // It is cut off again in the middle of the transfer, or as soon as it has installed.
        for _ in 0..round {
            cluster.run(1);
        }
        if round % 3 == 2 {
            for _ in 0..60 {
                if installs(&cluster) > before {
                    break;
                }
                cluster.run(1);
            }
            assert!(installs(&cluster) > before, "it needs a snapshot");
        }
    }
    assert!(installs(&cluster) >= 6, "{}", installs(&cluster));
    cluster.assert_agreement();
}

/// openraft issue 2080: a leader that reaches one member alone went on sending heartbeats, and so
/// kept that one from electing another with a majority that hears each other.
#[test]
fn a_leader_without_a_majority_gives_way_to_those_who_have_one() {
    let mut cluster = Cluster::new(5);
    cluster.elect(1);
    cluster.write(1, create("/a", "")).expect("written");
    cluster.run(5);
    cluster.keep_links(&[(1, 2), (2, 3), (2, 4), (3, 4)]);
    // Ten election timeouts.
    let asked = cluster.submit(3, &Identities::none(), set("/a", "other", None));
    cluster.run(100);
    let done = cluster.answer(3, asked).is_some_and(|it| it.is_ok());
    let led = (2..=4).any(|n| cluster.node(n).is_leader());
    assert!(led && !cluster.node(1).is_leader(), "2, 3 and 4 are a majority");
    let term = cluster.node(3).status().term;
    for n in 0..20 {
        cluster.write(3, set("/a", vec![n], None)).expect("written");
        cluster.run(10);
    }
    assert_eq!(cluster.node(3).status().term, term, "nobody disturbs it");
    assert!(done || cluster.answer(3, asked).is_some());
    cluster.cut.clear();
    cluster.run(60);
    cluster.assert_agreement();
}

/// openraft issue 2111: a member that does not hear the leader, but one of its followers, must
/// neither raise the term nor depose it.
#[test]
fn who_does_not_hear_the_leader_does_not_disturb_it() {
    let mut cluster = Cluster::new(5);
    cluster.elect(1);
    cluster.write(1, create("/a", "")).expect("written");
    cluster.run(5);
    let term = cluster.node(1).status().term;
    cluster.keep_links(&[(1, 2), (1, 3), (2, 3), (2, 4), (1, 5)]);
    for n in 0..20 {
        for at in [1, 2, 3, 5] {
            cluster.write(at, set("/a", vec![n], None)).expect("written");
        }
        cluster.run(20);
        assert!(cluster.node(1).is_leader());
        assert!((1..=5).all(|n| cluster.node(n).status().term == term), "no term is wasted");
    }
    cluster.cut.clear();
    cluster.assert_agreement();
}

/// etcd issue 20418: a leader that had stood still took late answers to an earlier round of
/// heartbeats for answers to its read, and told what was old.
#[test]
fn a_leader_that_stood_still_answers_no_read_from_before() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.write(1, create("/a", "old")).expect("written");
    let read = |cluster: &mut Cluster| {
        let op = ReadOp::Get(path("/a"));
        let read = Read { caller: Caller::world(), op, consistency: Consistency::Linearizable };
        cluster.node(1).read(read).expect("taken")
    };
    // A read whose answers by the others come late, and again.
    let first = read(&mut cluster);
    cluster.drain(id(1));
    cluster.paused.insert(1);
    cluster.settle();
    let late = std::mem::take(&mut cluster.held);
    assert!(!late.is_empty());
    for _ in 0..200 {
        cluster.run(1);
        if cluster.leader().is_some() {
            break;
        }
    }
    let leader = cluster.leader().expect("the others elect one");
    cluster.write(leader, set("/a", "new", None)).expect("written");
    // It goes on: first with a read, then with what lay in the network.
    cluster.paused.clear();
    cluster.part(&[1], &[2, 3]);
    let second = read(&mut cluster);
    cluster.drain(id(1));
    for _ in 0..3 {
        for Frame(from, _, bytes) in late.clone() {
            let _ = cluster.node(1).step(from, bytes);
            cluster.drain(id(1));
        }
    }
    let answers = |cluster: &Cluster, wanted: Ticket| {
        let is = |output: &&Output| match output {
            Output::Read { ticket, .. } => *ticket == wanted,
            _ => false,
        };
        let of_one = cluster.outputs.iter().filter(|it| it.0 == id(1)).map(|it| &it.1);
        of_one.filter(is).cloned().collect::<Vec<_>>()
    };
    assert!(answers(&cluster, second).is_empty(), "nobody has confirmed it");
    cluster.cut.clear();
    cluster.run(250);
    assert_eq!(answers(&cluster, first).len(), 1);
    let answer = answers(&cluster, second);
    match &answer[..] {
        [Output::Read { result: Ok(ReadOutcome::Node { data, .. }), .. }] => {
            assert_eq!(data, "new")
        }
        [Output::Read { result: Err(_), .. }] => {}
        other => panic!("{other:?}"),
    }
}

/// etcd issue 14571: members decided on rights with what each of them knew at that moment, and
/// their states diverged.
#[test]
fn a_right_is_decided_alike_on_every_member() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let alice = Identity::X509(Subject::new("alice").expect("short"));
    let alice = Identities::new([alice]).expect("one");
    cluster.write(1, create("/a", "first")).expect("written");
    cluster.run(5);
    // Its own list still grants this write when member 3 takes it.
    cluster.part(&[3], &[1, 2]);
    let late = cluster.submit(3, &Identities::none(), set("/a", "late", None));
    cluster.settle();
    let grant = Grant { principal: Principal::Auth, rights: Rights::ALL };
    let acl = Acl::new([grant]).expect("one grant");
    let list = Op::SetAcl { path: path("/a"), acl, version: None };
    let ticket = cluster.submit(1, &alice, list);
    cluster.run(20);
    assert!(matches!(cluster.answer(1, ticket), Some(Ok(_))));
    cluster.cut.clear();
    cluster.run(300);
    let refused = cluster.answer(3, late).expect("answered");
    let no_right = matches!(refused, Err(RequestError::Op(OpError::NoAuth { .. })));
    let unknown = refused.as_ref().is_err_and(RequestError::outcome_unknown);
    assert!(no_right || unknown, "{refused:?}");
    cluster.write(3, set("/a", "later", None)).expect_err("the list says so everywhere");
    let ticket = cluster.submit(3, &alice, set("/a", "hers", None));
    cluster.run(20);
    assert!(matches!(cluster.answer(3, ticket), Some(Ok(_))));
    cluster.assert_agreement();
    for n in 1..=3 {
        assert_eq!(cluster.node(n).view().read(&path("/a")).expect("there").0, "hers");
    }
}

/// Jepsen on Hazelcast 3.8.3: updates of several clients were lost.
#[test]
fn conditional_writes_of_many_lose_no_update() {
    let mut cluster = Cluster::new(3);
    cluster.elect(2);
    cluster.write(1, create("/count", "0")).expect("written");
    cluster.run(5);
    let mut done = 0;
    for round in 0..60 {
        let mut asked = Vec::new();
        if round % 5 == 4 {
            cluster.part(&[3], &[1, 2]);
        }
        for n in 1..=3 {
            // What this member has applied, and that may be old.
            let (data, stat) = cluster.node(n).view().read(&path("/count")).expect("there");
            let count: u64 = String::from_utf8_lossy(&data).parse().expect("a number");
            let op = set("/count", (count + 1).to_string(), Some(stat.version));
            asked.push((n, cluster.submit(n, &Identities::none(), op)));
        }
        cluster.run(2);
        cluster.cut.clear();
        for (n, ticket) in asked {
            while cluster.answer(n, ticket).is_none() {
                cluster.run(1);
            }
            match cluster.answer(n, ticket).expect("answered") {
                Ok(_) => done += 1,
                Err(RequestError::Op(OpError::BadVersion { .. })) => {}
                Err(error) => assert!(error.outcome_unknown(), "{error}"),
            }
        }
    }
    cluster.assert_agreement();
    let (data, stat) = cluster.node(1).view().read(&path("/count")).expect("there");
    let count: u64 = String::from_utf8_lossy(&data).parse().expect("a number");
    assert_eq!(count, stat.version, "each write added one");
    // One whose outcome is unknown may have happened.
    assert!(done >= 60 && (done..=done + 12).contains(&count), "{done} of {count}");
}

/// RUSTSEC-2024-0437: groups inside groups overran the stack of the parser.
#[test]
fn nested_groups_overrun_no_stack() {
    // Field 1, "start group", a hundred thousand times; and the same as bytes of field 1.
    for bytes in [vec![0x0b; 100_000], [&[0x0a, 0xa0, 0x8d, 0x06][..], &[0x0b; 100_000]].concat()] {
        let bytes = Bytes::from(bytes);
        let mut cluster = Cluster::new(3);
        cluster.elect(1);
        for kind in 0..64 {
            let _ = cluster.node(1).step(id(2), frame(kind, &bytes));
        }
        cluster.write(1, create("/a", "")).expect("it goes on");
        // On the disk: the member's own record, a snapshot, an entry.
        let mut record = restored(1);
        record.local = Some(bytes.clone());
        assert!(Node::open(config(1, 1), record).is_err());
        let mut snapshot = restored(1);
        snapshot.snapshot = Some(RestoredSnapshot::new(9, 1, vec![bytes.clone()]));
        assert!(Node::open(config(1, 1), snapshot).is_err());
        let mut alone = Cluster::new(1);
        alone.elect(1);
        let mut entry = restored(1);
        let chunks =
            alone.writes.iter().flat_map(|it| &it.1.snapshot).filter_map(|step| match step {
                SnapshotWrite::Chunk { bytes, .. } => Some(bytes.clone()),
                _ => None,
            });
        entry.snapshot = Some(RestoredSnapshot::new(1, 1, chunks.collect()));
        entry.entries = vec![LogEntry::new(2, 1, EntryKind::Normal, bytes)];
        entry.hard_state = Some(HardState::new(1, 0, 2));
        entry.local = alone.writes.iter().rev().find_map(|it| it.1.local.clone());
        let node = Node::open(config(1, 1), entry).expect("entries are read when they are applied");
        alone.nodes.insert(id(1), node);
        alone.run(40);
        let ended = alone.nodes[&id(1)].ended();
        assert!(matches!(ended, Some(Ended::Command { .. })), "{ended:?}");
    }
}

/// A frame of member 2 whose checksum is sound.
fn frame(kind: u16, body: &[u8]) -> Bytes {
    let mut bytes = b"QRF1\x01\0".to_vec();
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(cluster_id().as_bytes());
    bytes.extend_from_slice(&2_u64.to_le_bytes());
    bytes.extend_from_slice(&1_u64.to_le_bytes());
    bytes.extend_from_slice(&[2; 16]);
    bytes.extend_from_slice(&1_u64.to_le_bytes());
    bytes.extend_from_slice(&2_u64.to_le_bytes());
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), body);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes.into()
}

/// Each row of the index names tests that exist, and where they stand.
#[test]
fn the_index_names_tests_that_exist() {
    let root = FsPath::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(root.join(name));
    let index = read("KNOWN_BUGS.md").expect("the index is there");
    let rows: Vec<Vec<&str>> = index
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains("::"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert!(rows.len() >= 45, "{} bugs", rows.len());
    let mut seen = BTreeSet::new();
    for row in &rows {
        let [peer, bug, source, tests] = row[..] else {
            panic!("four columns: {row:?}");
        };
        assert!(!peer.is_empty() && !bug.is_empty(), "{row:?}");
        assert!(source.contains("https://"), "a public source: {row:?}");
        assert!(seen.insert((peer, source)), "each bug once: {row:?}");
        for test in tests.split(", ") {
            let (file, name) = test.trim_matches('`').split_once("::").expect("file::test");
            let text = read(file).unwrap_or_else(|error| panic!("{file}: {error}"));
            let declared = format!("#[test]\nfn {name}()");
            assert!(text.replace("    ", "").contains(&declared), "{file} has no test {name}");
        }
    }
}
