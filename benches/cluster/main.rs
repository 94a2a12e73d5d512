//! Three members in one process: encoded and decoded messages, the real namespace, 256-byte values
//! on 10,000 keys; in memory and on disk; beside the limit that raft-rs itself sets.
//!
//! `cargo bench --bench cluster -- [--quick] [--json FILE] [--dir DIR] [--only SCENARIO]
//! [--storage memory|wal] [--in-flight N]`

#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark measures time and disks, and runs threads"
)]

mod bare;
#[path = "../measure/disk.rs"]
mod disk;
mod load;
mod machine;
#[path = "../measure/numbers.rs"]
mod measure;
mod table;

use std::{
    error::Error,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use quorate::{
    Boot, ClusterId, Config, CreateMode, NodeId, StoreId,
    client::Client,
    driver::{Driver, Host, Inbox, Log, Switchboard},
    node::{Restored, Role},
    wal::OsFs,
};

use crate::table::Row;

pub(crate) const BENCH: &str = "cluster";
pub(crate) const VALUE_BYTES: usize = 256;
pub(crate) const KEYS: usize = 10_000;

struct Arguments {
    quick: bool,
    json: Option<PathBuf>,
    dir: PathBuf,
    only: Option<String>,
    storage: Option<String>,
    in_flight: Option<usize>,
}

/// Three running members and what they stand on.
pub(crate) struct Cluster {
    drivers: Vec<Driver>,
    pub(crate) leader: usize,
}

impl Cluster {
    /// Starts three members, on `dir` or in memory, and writes every key once.
    fn start(dir: Option<&Path>) -> Result<Self, Box<dyn Error>> {
        let cluster = ClusterId::named("bench");
        let ids: Vec<NodeId> = (1..=3).filter_map(NodeId::new).collect();
        let switchboard = Switchboard::new();
        let mut drivers = Vec::new();
        for &id in &ids {
            let config = Config::founding(cluster, id, ids.clone()).build()?;
            let inbox = Inbox::new();
            let line = switchboard.connect(id, inbox.clone());
            let (log, restored) = match dir {
                Some(dir) => {
                    let dir = dir.join(format!("member-{id}"));
                    Log::open(std::sync::Arc::new(OsFs), &dir, cluster, id)?
                }
                None => {
                    let store = StoreId::from_bytes([id.as_u64() as u8; 16]);
                    let boot = Boot { counter: 1, nonce: id.as_u64() };
                    (Log::Memory, Restored::new(store, boot))
                }
            };
            drivers.push(Driver::spawn(Host::new(config, log, restored, line, inbox)?)?);
        }
        let mut this = Self { drivers, leader: 0 };
        this.leader = this.elected()?;
        let paths = load::paths();
        let client = this.client(this.leader);
        let value = vec![7; VALUE_BYTES];
        let create = |path| client.create(path, value.clone(), CreateMode::Persistent);
        let created: Vec<_> = paths.iter().map(create).collect();
        created.into_iter().try_for_each(|it| it.wait().map(drop))?;
        Ok(this)
    }

    pub(crate) fn client(&self, member: usize) -> Client {
        self.drivers[member].client().clone()
    }

    fn elected(&self) -> Result<usize, Box<dyn Error>> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(30) {
            for (member, driver) in self.drivers.iter().enumerate() {
                if driver.client().status().wait()?.role == Role::Leader {
                    return Ok(member);
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err("no leader within 30 s".into())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = arguments()?;
    let dir = arguments.dir.join(format!("quorate-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    println!("{}", disk::machine(&dir)?);
    let rows = run(&arguments, &dir);
    std::fs::remove_dir_all(&dir)?;
    let rows = rows?;
    if let Some(path) = &arguments.json {
        table::write_json(path, &rows)?;
    }
    Ok(())
}

fn run(arguments: &Arguments, dir: &Path) -> Result<Vec<Row>, Box<dyn Error>> {
    let time = match arguments.quick {
        true => Duration::from_millis(700),
        false => Duration::from_secs(5),
    };
    let in_flight = match (arguments.in_flight, arguments.quick) {
        (Some(count), _) => vec![count],
        (None, true) => vec![1, 512],
        (None, false) => vec![1, 64, 512, 4096],
    };
    let mut rows: Vec<Row> = Vec::new();
    table::head();
    for (storage, dir) in [("memory", None), ("wal", Some(dir))] {
        if arguments.storage.as_deref().is_some_and(|only| only != storage) {
            continue;
        }
        let wants = |name: &str| arguments.only.as_deref().is_none_or(|only| only == name);
        let mut add = |mut row: Row| {
            let alike = |it: &&Row| it.in_flight == row.in_flight && it.storage == row.storage;
            if row.scenario == "write" {
                let bare = rows.iter().filter(|it| it.scenario == "bare_raft").find(alike);
                row.ratio = bare.map(|bare| row.ops_per_s / bare.ops_per_s);
                row.ratio_to = "bare_raft";
            }
            row.print();
            rows.push(row);
        };
        if wants("bare_raft") {
            for &count in &in_flight {
                add(bare::run(count, time, dir)?);
            }
        }
        let cluster = Cluster::start(dir)?;
        if wants("write") {
            for &count in &in_flight {
                add(load::writes(&cluster, count, time, dir.is_some())?);
            }
        }
        if wants("linearizable_read") {
            for &count in &in_flight {
                add(load::linearizable_reads(&cluster, count, time, dir.is_some())?);
            }
        }
        if wants("local_read") {
            add(load::local_reads(&cluster, time, dir.is_some())?);
        }
    }
    Ok(rows)
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let mut this =
        Arguments { quick: false, json: None, dir, only: None, storage: None, in_flight: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quick" => this.quick = true,
            "--json" => this.json = Some(words.next().ok_or("--json needs a file")?.into()),
            "--dir" => this.dir = words.next().ok_or("--dir needs a directory")?.into(),
            "--only" => this.only = Some(words.next().ok_or("--only needs a scenario")?),
            "--storage" => this.storage = Some(words.next().ok_or("--storage needs a name")?),
            "--in-flight" => {
                let count = words.next().ok_or("--in-flight needs a number")?;
                this.in_flight = Some(count.parse()?);
            }
            "--bench" => {}
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    Ok(this)
}
