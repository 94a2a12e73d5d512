//! A server for ZooKeeper's clients, alone or one of several.
//!
//! `cargo run --release --features zookeeper --example zookeeper_server -- --id 1 \
//!     --client 127.0.0.1:2181 --data quorate-1`
//!
//! With `--peer HOST:PORT --peers 1=HOST:PORT,2=HOST:PORT,3=HOST:PORT` it is a member of a cluster.
//! SIGTERM and SIGINT let it finish what is under way; sessions live on.

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    net::ToSocketAddrs as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use quorate::{
    ClusterId, Config, Limits, NodeId,
    driver::{Driver, Host, Inbox, Switchboard},
    tcp::TcpTransport,
    zookeeper::{Listener, ListenerOptions, ServerAddress, Word},
};

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let arguments: Vec<String> = env::args().skip(1).collect();
    let options = Options::of(&arguments)?;
    let driver = options.start()?;
    let address = options.need("--client")?.to_socket_addrs()?.next();
    let address = address.ok_or("--client names no address")?;
    let listener = Listener::spawn(driver.client(), address, options.listener()?)?;
    println!("serving on {}", listener.local_addr());
    while driver.is_running() && !stop.load(Ordering::Acquire) {
        thread::park_timeout(Duration::from_millis(50));
    }
    listener.stop();
    match driver.stop() {
        Some(why) => Err(format!("the node has ended: {why}").into()),
        None => Ok(()),
    }
}

/// The command line.
struct Options<'a> {
    values: BTreeMap<&'a str, &'a str>,
}

impl<'a> Options<'a> {
    fn of(arguments: &'a [String]) -> Result<Self, Failure> {
        let mut values = BTreeMap::new();
        for pair in arguments.chunks(2) {
            match pair {
                [name, value] if NAMES.contains(&&**name) => values.insert(&**name, &**value),
                _ => return Err(USAGE.into()),
            };
        }
        Ok(Self { values })
    }

    fn need(&self, name: &str) -> Result<&'a str, Failure> {
        self.values.get(name).copied().ok_or_else(|| format!("{name} is missing: {USAGE}").into())
    }

    fn ms(&self, name: &str, default: u64) -> Result<Duration, Failure> {
        let ms = self.values.get(name).map_or(Ok(default), |it| it.parse())?;
        Ok(Duration::from_millis(ms))
    }

    fn peers(&self) -> Result<BTreeMap<NodeId, &'a str>, Failure> {
        let mut peers = BTreeMap::new();
        for peer in self.values.get("--peers").into_iter().flat_map(|it| it.split(',')) {
            let (id, address) = peer.split_once('=').ok_or("a peer is ID=HOST:PORT")?;
            peers.insert(node(id)?, address);
        }
        Ok(peers)
    }

    /// Opens the node.
    fn start(&self) -> Result<Driver, Failure> {
        let (id, cluster) = (node(self.need("--id")?)?, ClusterId::named("zookeeper"));
        let (peers, inbox) = (self.peers()?, Inbox::new());
        let mut limits = Limits::default();
        limits.container_grace = self.ms("--container-interval-ms", 60_000)?;
        limits.txn_ops_max = TXN_OPS_MAX;
        let mut founders: Vec<NodeId> = peers.keys().copied().collect();
        if founders.is_empty() {
            founders.push(id);
        }
        let config = Config::founding(cluster, id, founders).limits(limits).build()?;
        let data = self.need("--data")?.as_ref();
        let host = if peers.is_empty() {
            let line = Switchboard::new().connect(id, inbox.clone());
            Host::open(config, data, line, inbox)?
        } else {
            let listen = self.need("--peer")?;
            let transport = TcpTransport::bind(id, cluster, listen, inbox.clone())?;
            for (peer, address) in peers.iter().filter(|it| *it.0 != id) {
                transport.connect(*peer, *address)?;
            }
            Host::open(config, data, transport, inbox)?
        };
        Ok(Driver::spawn(host)?)
    }

    fn listener(&self) -> Result<ListenerOptions, Failure> {
        let mut options = ListenerOptions::default();
        let connection = &mut options.connection;
        let tick = self.ms("--tick-ms", 2_000)?;
        (connection.timeout_min, connection.timeout_max) = (tick * 2, tick * 20);
        connection.super_digest = self.values.get("--super-digest").map(|it| (*it).to_owned());
        options.servers =
            self.peers()?.into_iter().map(|(id, it)| (id, ServerAddress::new(it))).collect();
        options.data_dir = Some(std::path::absolute(self.need("--data")?)?);
        let words = self.values.get("--words").unwrap_or(&"*");
        options.words = Word::list(words).ok_or("there is no such word")?;
        Ok(options)
    }
}

fn node(text: &str) -> Result<NodeId, Failure> {
    Ok(NodeId::new(text.parse().unwrap_or(0)).ok_or("an id is 1 or more")?)
}

const NAMES: [&str; 9] = [
    "--id",
    "--client",
    "--peer",
    "--peers",
    "--data",
    "--super-digest",
    "--tick-ms",
    "--container-interval-ms",
    "--words",
];
const USAGE: &str = "zookeeper_server --id N --client HOST:PORT --data DIR \
    [--peer HOST:PORT --peers 1=HOST:PORT,2=HOST:PORT,3=HOST:PORT] \
    [--super-digest USER:BASE64] [--tick-ms N] [--container-interval-ms N] [--words WORD,..]";
/// ZooKeeper has no bound but the size of a packet.
const TXN_OPS_MAX: usize = 4_096;
