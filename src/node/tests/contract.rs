//! What a watch promises, as etcd has it: ordered, unique, reliable, atomic, resumable and
//! bookmarkable; while messages are lost, leaders change, and a snapshot is installed under it.

use std::{cell::Cell, num::NonZeroU32};

use super::*;
use crate::{
    id::Zxid,
    op::{Detail, Event, Filter},
};

/// A client that follows a watch from member to member.
struct Reader {
    at: NodeId,
    watch: WatchId,
    filter: Filter,
    /// Outputs of its member that it has seen.
    seen: usize,
    /// What it was told, in order; no events where it was told how far it has come.
    told: Vec<(u64, Vec<Event>)>,
    /// Where it resumed.
    resumed: Vec<usize>,
}

impl Reader {
    fn new(cluster: &mut Cluster, at: NodeId, filter: Filter) -> Self {
        let watch = Self::arm(cluster, at, &filter, None);
        let (seen, told, resumed) = (cluster.outputs[&at].len(), Vec::new(), Vec::new());
        Self { at, watch, filter, seen, told, resumed }
    }

    fn arm(cluster: &mut Cluster, at: NodeId, filter: &Filter, from: Option<Zxid>) -> WatchId {
        let progress_ticks = NonZeroU32::new(3);
        let watch = Watch { from, progress_ticks, ..Watch::of(filter.clone(), 10) };
        cluster.node(at).watch(watch).expect("what it has seen is applied and retained").id
    }

    fn last(&self) -> Zxid {
        Zxid::new(self.told.last().map_or(0, |told| told.0))
    }

    /// Takes what has come, and gives credit back.
    fn take(&mut self, cluster: &mut Cluster) {
        let outputs = cluster.outputs[&self.at][self.seen..].iter();
        let new: Vec<_> = outputs
            .filter_map(|output| match output {
                Output::Events { watch, zxid, events } if *watch == self.watch => {
                    assert!(!events.is_empty());
                    Some((zxid.as_u64(), events.clone()))
                }
                Output::Progress { watch, zxid } if *watch == self.watch => {
                    Some((zxid.as_u64(), Vec::new()))
                }
                Output::WatchEnded { watch, cause } if *watch == self.watch => panic!("{cause:?}"),
                _ => None,
            })
            .collect();
        self.seen = cluster.outputs[&self.at].len();
        let taken = new.iter().map(|(_, events)| events.len().max(1) as u32).sum();
        self.told.extend(new);
        if cluster.nodes.contains_key(&self.at) && taken > 0 {
            cluster.node(self.at).credit(self.watch, taken);
        }
    }

    /// Goes on at another member, once that has applied what was seen.
    fn resume(&mut self, cluster: &mut Cluster, at: NodeId) {
        let from = self.last();
        for _ in 0..400 {
            if cluster.nodes[&at].status().zxid >= from {
                break;
            }
            cluster.run(1);
        }
        (self.at, self.seen) = (at, cluster.outputs[&at].len());
        self.watch = Self::arm(cluster, at, &self.filter, Some(from));
        self.resumed.push(self.told.len());
    }
}

/// What happened to readers in a bad time for their cluster, and what truly was.
struct Storm {
    readers: Vec<Reader>,
    /// Each transaction's events, as the history of a member has them.
    truth: Vec<(u64, Vec<Event>)>,
    progress: usize,
}

impl Storm {
    fn new(seed: u64) -> Self {
        let mut cluster = super::snapshots::cluster();
        let mut random = Random(seed);
        let filters = || {
            let path = |text: &str| text.parse().expect("valid");
            [Filter::Subtree(path("/")), Filter::Subtree(path("/a")), Filter::Children(path("/a"))]
        };
        cluster.write(id(1), create("/a")).expect("written");
        cluster.run(2);
        let start = cluster.nodes[&id(1)].status().zxid;
        let arm = |(n, filter): (u64, _)| Reader::new(&mut cluster, id(n % 3 + 1), filter);
        let mut readers: Vec<Reader> = (0..).zip(filters()).map(arm).collect();
        let mut terms = cluster.nodes[&id(1)].status().term;
        let (mut installs, mut leaders) = (0, 0);
        for round in 0..12 {
            match round % 4 {
                0 => Self::lose_some(&mut cluster, &mut random, &mut readers),
                1 => {
                    let at = cluster.elect();
                    Self::kill(&mut cluster, at, &mut random, &mut readers);
                    let term = cluster.nodes.values().map(|it| it.status().term).max();
                    leaders += u64::from(term.expect("there are nodes") > terms);
                    terms = term.expect("there are nodes");
                }
                2 => installs += Self::cut_off(&mut cluster, &mut random, &mut readers),
                _ => {
                    let at = random.below(3) as usize;
                    let reader = &mut readers[at];
                    cluster.node(reader.at).unwatch(reader.watch);
                    for _ in 0..10 {
                        Self::write(&mut cluster, &mut random, None);
                        cluster.run(1);
                    }
                    reader.resume(&mut cluster, id(random.below(3) + 1));
                }
            }
            Self::calm(&mut cluster, &mut readers);
        }
        assert!(installs > 0 && leaders > 0, "{installs} snapshots, {leaders} other leaders");
        cluster.assert_agreement();
        let changes = cluster.nodes[&id(1)].namespace.history_after(start).expect("retained");
        let mut truth: Vec<(u64, Vec<Event>)> = Vec::new();
        for event in changes.filter_map(|change| change.event(Detail::Path)) {
            match truth.last_mut().filter(|last| last.0 == event.zxid.as_u64()) {
                Some(last) => last.1.push(event),
                None => truth.push((event.zxid.as_u64(), vec![event])),
            }
        }
        let told = readers.iter().flat_map(|reader| &reader.told);
        let progress = told.filter(|told| told.1.is_empty()).count();
        assert!(truth.len() > 100, "{}", truth.len());
        Self { readers, truth, progress }
    }

    /// What a reader was to be told.
    fn expected(&self, reader: &Reader) -> Vec<(u64, Vec<Event>)> {
        let matching = |(zxid, events): &(u64, Vec<Event>)| {
            let events = events.iter().filter(|it| reader.filter.matches(it)).cloned();
            (*zxid, events.collect::<Vec<_>>())
        };
        self.truth.iter().map(matching).filter(|it| !it.1.is_empty()).collect()
    }

    fn lose_some(cluster: &mut Cluster, random: &mut Random, readers: &mut [Reader]) {
        let draws = Cell::new(random.next());
        cluster.lose = Box::new(move |_| {
            let mut random = Random(draws.get());
            draws.set(random.next());
            random.below(4) == 0
        });
        for _ in 0..20 {
            Self::write(cluster, random, None);
            cluster.run(1);
            readers.iter_mut().for_each(|reader| reader.take(cluster));
        }
    }

    /// The leader goes, and those who read there go elsewhere before it is back.
    fn kill(cluster: &mut Cluster, at: NodeId, random: &mut Random, readers: &mut [Reader]) {
        for _ in 0..5 {
            Self::write(cluster, random, None);
        }
        cluster.settle();
        readers.iter_mut().for_each(|reader| reader.take(cluster));
        cluster.kill(at);
        let other = cluster.elect();
        for _ in 0..10 {
            Self::write(cluster, random, Some(at));
            cluster.run(1);
        }
        // What happened meanwhile is told from the history.
        for reader in readers.iter_mut().filter(|reader| reader.at == at) {
            reader.resume(cluster, other);
        }
        cluster.start(at);
    }

    /// A member hears nothing for longer than the log reaches back; its watches live on.
    fn cut_off(cluster: &mut Cluster, random: &mut Random, readers: &mut [Reader]) -> usize {
        let leader = cluster.elect();
        let cut = readers.iter().map(|reader| reader.at).find(|at| *at != leader);
        let Some(cut) = cut else {
            return 0;
        };
        cluster.lose = Box::new(move |frame| frame.to == cut || frame.from == cut);
        for _ in 0..80 {
            Self::write(cluster, random, Some(cut));
            cluster.settle();
        }
        readers.iter_mut().for_each(|reader| reader.take(cluster));
        let begun = cluster.disks[&cut].begun;
        Self::calm(cluster, readers);
        cluster.disks[&cut].begun - begun
    }

    fn calm(cluster: &mut Cluster, readers: &mut [Reader]) {
        cluster.lose = Box::new(|_| false);
        for _ in 0..30 {
            cluster.run(1);
            readers.iter_mut().for_each(|reader| reader.take(cluster));
        }
    }

    /// Asks some member for some transaction, and waits for nothing.
    fn write(cluster: &mut Cluster, random: &mut Random, but: Option<NodeId>) {
        let at = loop {
            let at = id(random.below(3) + 1);
            if Some(at) != but && cluster.nodes.contains_key(&at) {
                break at;
            }
        };
        let n = random.below(6);
        let path = |text: String| text.parse::<crate::Path>().expect("valid");
        let made = |prefix: &str| create_as(prefix, CreateMode::PersistentSequential);
        let set = |text: &str| Op::Set {
            path: path(text.into()),
            data: Bytes::from_static(b"y"),
            version: None,
        };
        let make = |text: String| Op::Create {
            path: path(text).into(),
            data: Bytes::new(),
            mode: CreateMode::Persistent,
            acl: None,
        };
        let txn = match random.below(5) {
            0 => made("/a/s-"),
            1 => made("/other-"),
            2 => Txn::all([set("/a"), make(format!("/a/n{n}")), set("/")]),
            3 => Txn::all([set("/a"), Op::DeleteTree { path: path(format!("/a/n{n}")) }]),
            _ => make(format!("/a/n{n}/x{}", random.next())).into(),
        };
        let _ = cluster.node(at).submit(plain(txn));
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Later transactions come later, and what one did comes in the order in which it did it.
#[test]
fn ordered() {
    let storm = Storm::new(1);
    for reader in &storm.readers {
        for pair in reader.told.windows(2) {
            let marks = pair[0].1.is_empty() || pair[1].1.is_empty();
            assert!(pair[0].0 < pair[1].0 || (marks && pair[0].0 == pair[1].0), "{pair:?}");
        }
        for (zxid, events) in &reader.told {
            let truth = storm.truth.iter().find(|it| it.0 == *zxid);
            let mut truth = truth.into_iter().flat_map(|it| &it.1);
            assert!(events.iter().all(|event| truth.any(|it| it == event)), "{zxid}: {events:?}");
        }
    }
}

/// Nothing is told twice, wherever the reader went.
#[test]
fn unique() {
    let storm = Storm::new(2);
    for reader in &storm.readers {
        let all: Vec<_> = reader.told.iter().flat_map(|it| &it.1).collect();
        let key = |event: &Event| (event.zxid, event.path.to_string(), format!("{:?}", event.kind));
        let once: std::collections::BTreeSet<_> = all.iter().map(|event| key(event)).collect();
        assert_eq!(all.len(), once.len());
    }
}

/// Nothing is left out between the first and the last.
#[test]
fn reliable() {
    let storm = Storm::new(3);
    for reader in &storm.readers {
        let told = reader.told.iter().flat_map(|it| &it.1);
        let expected = storm.expected(reader);
        let expected = expected.iter().flat_map(|it| &it.1);
        assert!(told.eq(expected), "{:?}", reader.filter);
    }
}

/// What one transaction did is told at once, or not at all.
#[test]
fn atomic() {
    let storm = Storm::new(4);
    let mut several = 0;
    for reader in &storm.readers {
        let expected: BTreeMap<u64, Vec<Event>> = storm.expected(reader).into_iter().collect();
        for (zxid, events) in reader.told.iter().filter(|it| !it.1.is_empty()) {
            assert_eq!(Some(events), expected.get(zxid));
            several += usize::from(events.len() > 1);
        }
    }
    assert!(several > 20, "{several}");
}

/// A watch that goes on at another member, from the last zxid that was told, goes on with the next.
#[test]
fn resumable() {
    let storm = Storm::new(5);
    let mut resumed = 0;
    for reader in &storm.readers {
        let expected = storm.expected(reader);
        for &at in &reader.resumed {
            let last = reader.told[..at].last().map_or(0, |told| told.0);
            let next = reader.told[at..].iter().find(|told| !told.1.is_empty());
            assert_eq!(next, expected.iter().find(|it| it.0 > last), "after {last}");
            resumed += 1;
        }
    }
    assert!(resumed > 3, "{resumed}");
}

/// Where a watch says how far it has come, all up to there was told before, and nothing after.
#[test]
fn bookmarkable() {
    let storm = Storm::new(6);
    assert!(storm.progress > 10, "{}", storm.progress);
    for reader in &storm.readers {
        let expected = storm.expected(reader);
        for (at, (zxid, _)) in reader.told.iter().enumerate().filter(|it| it.1.1.is_empty()) {
            let before: usize = reader.told[..at].iter().map(|it| it.1.len()).sum();
            let up_to = expected.iter().take_while(|it| it.0 <= *zxid);
            assert_eq!(before, up_to.map(|it| it.1.len()).sum::<usize>(), "at {zxid}");
            let later = reader.told[at + 1..].iter().filter(|it| !it.1.is_empty());
            assert!(later.into_iter().all(|it| it.0 > *zxid));
        }
    }
}
