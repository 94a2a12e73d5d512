//! The state machine alone: no log, no codec, one thread; 256-byte values in directories of 1,000.
//! Then one write that 100,000 watches of a running node look at.
//!
//! `cargo bench --bench namespace -- [--quick] [--huge] [--json FILE]`

#![expect(clippy::disallowed_methods, reason = "a benchmark measures time and memory")]

#[path = "../cluster/machine.rs"]
mod machine;
#[path = "../measure/numbers.rs"]
mod measure;
#[path = "../cluster/table.rs"]
mod table;
mod watches;

use std::{
    collections::{BTreeSet, HashMap},
    error::Error,
    fs,
    hint::black_box,
    path::PathBuf,
    time::{Duration, Instant},
};

use quorate::{
    Acl, CreateMode, Grant, List, Op, Path, Principal, Replica, Rights, SessionId, Subject, Txn,
};

use crate::table::Row;

pub(crate) const BENCH: &str = "namespace";
const VALUE: [u8; 256] = [7; 256];
const DIRECTORY: usize = 1_000;
/// Operations that are timed together.
const BATCH: usize = 64;

/// A full tree, and the session that writes.
struct Bench {
    replica: Replica,
    session: SessionId,
    seq: u64,
    paths: Vec<Path>,
    time: Duration,
    rows: Vec<Row>,
    draw: u64,
}

impl Bench {
    fn new(nodes: usize, time: Duration) -> Result<Self, Box<dyn Error>> {
        let mut replica = Replica::new()?;
        let session = replica.open_session(1).ok_or("a session opens")?;
        let mut this =
            Self { replica, session, seq: 0, paths: Vec::new(), time, rows: Vec::new(), draw: 1 };
        for directory in 0..nodes.div_ceil(DIRECTORY) {
            let top: Path = format!("/d{directory:05}").parse()?;
            this.apply(create(&top).into());
            for node in 0..DIRECTORY.min(nodes) {
                let path = top.join(&format!("n{node:04}"))?;
                this.apply(create(&path).into());
                this.paths.push(path);
            }
        }
        Ok(this)
    }

    fn apply(&mut self, txn: Txn) {
        self.seq += 1;
        assert!(self.replica.apply(self.session, self.seq, txn), "what is asked for is possible");
    }

    /// Any of the paths: SplitMix64.
    fn any(&mut self) -> Path {
        self.draw = self.draw.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.draw;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.paths[((z ^ (z >> 31)) % self.paths.len() as u64) as usize].clone()
    }

    /// Runs `op` for a while and adds its row, compared with the row `ratio_to`, if there is one.
    fn measure(
        &mut self,
        scenario: &'static str,
        ratio_to: &'static str,
        mut op: impl FnMut(&mut Self),
    ) {
        let (start, mut samples_ns, mut count) = (Instant::now(), Vec::new(), 0);
        while start.elapsed() < self.time {
            let batch = Instant::now();
            (0..BATCH).for_each(|_| op(self));
            samples_ns.push(batch.elapsed().as_nanos() as u64 / BATCH as u64);
            count += BATCH;
        }
        let ops_per_s = count as f64 / start.elapsed().as_secs_f64();
        let other = self.rows.iter().find(|row| row.scenario == ratio_to);
        let row = Row {
            scenario,
            storage: "memory",
            in_flight: self.paths.len(),
            ops_per_s,
            p50_us: measure::percentile(&mut samples_ns, 0.5),
            p99_us: measure::percentile(&mut samples_ns, 0.99),
            cpu_us_per_op: 1e6 / ops_per_s,
            client_cpu_us_per_op: 0.0,
            ratio: other.map(|other| ops_per_s / other.ops_per_s),
            ratio_to,
        };
        row.print();
        self.rows.push(row);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (mut quick, mut huge, mut json) = (false, false, None::<PathBuf>);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quick" => quick = true,
            "--huge" => huge = true,
            "--json" => json = Some(words.next().ok_or("--json needs a file")?.into()),
            "--bench" => {}
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    let time = Duration::from_millis(if quick { 150 } else { 2_000 });
    let mut sizes = vec![1_000, if quick { 100_000 } else { 1_000_000 }];
    sizes.extend(huge.then_some(10_000_000));
    // First of all: what earlier runs gave back would hide what this one takes.
    bytes_per_node(if quick { 100_000 } else { 1_000_000 })?;
    println!("`in flight` is the number of nodes, and `cpu` the time of one operation");
    table::head();
    let mut rows = Vec::new();
    for nodes in sizes {
        rows.extend(run(Bench::new(nodes, time)?));
    }
    println!("`in flight` is the number of watches, an operation is an event that was received");
    let fan_out = watches::fan_out(if quick { 10_000 } else { 100_000 }, time)?;
    fan_out.print();
    rows.push(fan_out);
    if let Some(path) = json {
        table::write_json(&path, &rows)?;
    }
    Ok(())
}

fn run(mut bench: Bench) -> Vec<Row> {
    hash_map(&mut bench);
    bench.measure("set_tree", "hash_map_set", |it| {
        let path = it.any();
        black_box(it.replica.set_in_tree(path, &VALUE));
    });
    bench.measure("set", "hash_map_set", |it| {
        let path = it.any();
        it.apply(set(path).into());
    });
    let mut views = Vec::new();
    bench.measure("set_with_10_views", "set", |it| {
        if it.seq % 1_000 == 0 || views.is_empty() {
            views.push(it.replica.view());
            views.drain(..views.len().saturating_sub(10));
        }
        let path = it.any();
        it.apply(set(path).into());
    });
    drop(views);
    bench.measure("create_and_delete", "", |it| {
        let path = it.any().join("x").expect("a name");
        it.apply(create(&path).into());
        it.apply(Op::Delete { path, version: None }.into());
    });
    let top: Path = "/d00000".parse().expect("a path");
    bench.apply(Op::SetAcl { path: top.clone(), acl: long_list(), version: None }.into());
    bench.measure("under_64_grants", "create_and_delete", |it| {
        let path = top.join(&format!("x{}", it.seq)).expect("a name");
        it.apply(create(&path).into());
        it.apply(Op::Delete { path, version: None }.into());
    });
    bench.measure("txn_of_5_sets", "set", |it| {
        let ops: Vec<Op> = (0..5).map(|_| set(it.any())).collect();
        it.apply(Txn::all(ops));
    });
    let view = bench.replica.view();
    bench.measure("get", "", |it| {
        let _ = black_box(view.read(&it.any()));
    });
    bench.measure("list_page_of_100", "", |it| {
        let parent = it.any().parent().expect("in a directory");
        let _ = black_box(view.list(&List::of(parent).limit(100)));
    });
    bench.measure("freeze_view", "", |it| {
        black_box(it.replica.view());
    });
    let more = 2..bench.paths.len().min(1_000_000) as u64;
    let sessions: Vec<SessionId> = more.filter_map(|n| bench.replica.open_session(n)).collect();
    let mut number = 0;
    bench.measure("keep_alives_of_100", "", |it| {
        number += 1;
        let first = (number as usize * 100) % sessions.len().saturating_sub(100).max(1);
        let some = &sessions[first..(first + 100).min(sessions.len())];
        black_box(it.replica.keep_alives(some, number));
    });
    bench.rows
}

/// Prints what a node takes in memory beyond its data: by the pages that the process has.
fn bytes_per_node(nodes: usize) -> Result<(), Box<dyn Error>> {
    let before = resident_bytes()?;
    let mut bench = Bench::new(nodes, Duration::ZERO)?;
    bench.paths = Vec::new();
    let taken = resident_bytes()?.saturating_sub(before);
    let (each, data) = (taken as f64 / nodes as f64, VALUE.len());
    let beyond = each - data as f64;
    println!(
        "{nodes} nodes take {each:.0} bytes each, of which {data} are data: {beyond:.0} beyond"
    );
    drop(bench);
    Ok(())
}

/// Memory that this process has in pages, as Linux counts it.
fn resident_bytes() -> Result<u64, Box<dyn Error>> {
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = statm.split(' ').nth(1).ok_or("statm has a second field")?.parse()?;
    Ok(pages * 4096)
}

/// The least that a tree costs: a map from paths to values, and sets of children, without views.
fn hash_map(bench: &mut Bench) {
    let mut values: HashMap<String, (Vec<u8>, u64)> = HashMap::new();
    let mut children: HashMap<String, BTreeSet<String>> = HashMap::new();
    for path in &bench.paths {
        values.insert(path.to_string(), (VALUE.to_vec(), 0));
        let parent = path.parent_str().unwrap_or("/").to_string();
        children.entry(parent).or_default().insert(path.name().to_string());
    }
    bench.measure("hash_map_set", "", |it| {
        let path = it.any();
        if let Some((value, version)) = values.get_mut(path.as_str()) {
            *value = VALUE.to_vec();
            *version += 1;
        }
    });
    black_box(children.len());
}

/// As long as a list may be, and open to everybody.
fn long_list() -> Acl {
    let subject = |n| Subject::new(&format!("CN=somebody {n}, O=somewhere")).expect("short");
    let others = (1..64).map(|n| Principal::X509(subject(n)));
    let all = others.chain([Principal::World]);
    Acl::new(all.map(|principal| Grant { principal, rights: Rights::ALL })).expect("64 grants")
}

fn create(path: &Path) -> Op {
    let (data, mode) = (VALUE.to_vec().into(), CreateMode::Persistent);
    Op::Create { path: path.clone().into(), data, mode, acl: None }
}

fn set(path: Path) -> Op {
    Op::Set { path, data: VALUE.to_vec().into(), version: None }
}
