//! Three servers on loopback for ZooKeeper's clients, durable, with 256-byte values: ours, and
//! Apache's beside them where Debian's package and Java are there.
//!
//! `cargo bench --features zookeeper --bench zookeeper -- [--quick] [--json FILE] [--dir DIR]
//! [--only SCENARIO,..] [--server PROGRAM] [--ours]`
//!
//! `--server` names another build of `examples/zookeeper_server`, `--ours` leaves Apache's out.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a benchmark measures time and disks, runs processes, and finds ports for them"
)]

mod crowd;
#[path = "../measure/disk.rs"]
mod disk;
mod fan_out;
mod load;
#[path = "../measure/numbers.rs"]
mod measure;
mod memory;
mod servers;
mod table;

use std::{error::Error, fs, path::Path, path::PathBuf, time::Duration};

use crate::{
    load::Load,
    servers::{Servers, Software},
    table::Row,
};

pub(crate) const VALUE_BYTES: usize = 256;
pub(crate) const KEYS: usize = 10_000;
/// Connections of the load, over all servers, and requests under way on them in all.
const CONNECTIONS: usize = 64;
const IN_FLIGHT: usize = 512;

struct Arguments {
    quick: bool,
    ours: bool,
    json: Option<PathBuf>,
    dir: PathBuf,
    /// All, if none is named.
    only: Vec<String>,
    server: Option<PathBuf>,
}

/// How much is done.
#[derive(Clone, Copy)]
struct Size {
    /// Of each load, and before it what is not measured: the time for a JIT to get warm.
    time: Duration,
    warm: Duration,
    sessions: usize,
    rounds: usize,
    nodes: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = arguments()?;
    let dir = arguments.dir.join(format!("quorate-zookeeper-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let result = run(&arguments, &dir);
    fs::remove_dir_all(&dir)?;
    let rows = result?;
    if let Some(path) = &arguments.json {
        table::write_json(path, &rows)?;
    }
    Ok(())
}

fn run(arguments: &Arguments, dir: &Path) -> Result<Vec<Row>, Box<dyn Error>> {
    println!("{}", disk::machine(dir)?);
    let size = match arguments.quick {
        true => Size {
            time: Duration::from_millis(1_000),
            warm: Duration::from_millis(700),
            sessions: 2_000,
            rounds: 3,
            nodes: 100_000,
        },
        false => Size {
            time: Duration::from_secs(5),
            warm: Duration::from_secs(4),
            sessions: 10_000,
            rounds: 10,
            nodes: 1_000_000,
        },
    };
    let mut software = vec![servers::ours(arguments.server.as_deref())?];
    match servers::apache() {
        _ if arguments.ours => {}
        Some(apache) => software.push(apache),
        None => println!("only our rows: there is no Java, or no zookeeper package of Debian's"),
    }
    let mut rows = Vec::new();
    table::head();
    for it in &software {
        let dir = dir.join(it.name());
        let only = &arguments.only;
        let wants = |name: &str| only.is_empty() || only.iter().any(|it| it == name);
        rows.extend(of_one(it, &dir, size, wants)?);
    }
    table::compare(&rows);
    Ok(rows)
}

fn of_one(
    software: &Software,
    dir: &Path,
    size: Size,
    wants: impl Fn(&str) -> bool,
) -> Result<Vec<Row>, Box<dyn Error>> {
    let mut rows: Vec<Row> = Vec::new();
    let mut add = |row: Row| {
        row.print();
        rows.push(row);
    };
    let servers = Servers::start(software, dir)?;
    load::create_keys(&servers)?;
    for load in Load::ALL.into_iter().filter(|load| wants(load.name())) {
        add(load::run(&servers, load, size)?);
    }
    if wants("session") {
        add(load::sessions(&servers, size)?);
    }
    if wants("fan_out") {
        add(fan_out::run(&servers, size)?);
    }
    if wants("memory") {
        add(memory::run(&servers, size)?);
    }
    Ok(rows)
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let mut this = Arguments {
        quick: false,
        ours: false,
        json: None,
        dir: PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
        only: Vec::new(),
        server: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quick" => this.quick = true,
            "--ours" => this.ours = true,
            "--json" => this.json = Some(words.next().ok_or("--json needs a file")?.into()),
            "--dir" => this.dir = words.next().ok_or("--dir needs a directory")?.into(),
            "--only" => {
                let only = words.next().ok_or("--only needs scenarios")?;
                this.only = only.split(',').map(str::to_owned).collect();
            }
            "--server" => {
                this.server = Some(words.next().ok_or("--server needs a program")?.into());
            }
            "--bench" => {}
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    Ok(this)
}
