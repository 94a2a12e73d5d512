//! One member of a cluster in a process of its own, with a console on its standard input.
//!
//! `cargo run --example member -- --id 1 --listen 127.0.0.1:7001 --data quorate-1 \
//!     --peers 1=127.0.0.1:7001,2=127.0.0.1:7002,3=127.0.0.1:7003`
//!
//! Requests are answered as they complete; one that starts with `#17` is answered with `#17`.

mod console;
mod requests;

use std::{collections::BTreeMap, env, error::Error, io, sync::mpsc, thread, time::Duration};

use quorate::{
    ClusterId, Config, NodeId,
    driver::{Driver, Host, Inbox},
    tcp::TcpTransport,
};

use console::Console;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let driver = start()?;
    let (done, quit) = mpsc::channel();
    let mut console = Console::new(driver.client().clone())?;
    thread::Builder::new().spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            if !console.take(&line) {
                break;
            }
        }
        let _ = done.send(());
    })?;
    while quit.recv_timeout(Duration::from_millis(100)) == Err(mpsc::RecvTimeoutError::Timeout) {
        if !driver.is_running() {
            break;
        }
    }
    match driver.stop() {
        Some(why) => Err(format!("the node has ended: {why}").into()),
        None => Ok(()),
    }
}

/// Opens the node that the arguments describe.
fn start() -> Result<Driver, Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let options: BTreeMap<_, _> = arguments.chunks_exact(2).map(|it| (&*it[0], &*it[1])).collect();
    let option = |name| options.get(name).copied().ok_or(format!("{name} is missing: {USAGE}"));
    let node = |text: &str| NodeId::new(text.parse().unwrap_or(0)).ok_or("an id is 1 or more");
    let (id, cluster) = (node(option("--id")?)?, ClusterId::named("member"));
    let mut peers = BTreeMap::new();
    for peer in option("--peers")?.split(',') {
        let (id, address) = peer.split_once('=').ok_or("a peer is ID=HOST:PORT")?;
        peers.insert(node(id)?, address);
    }
    let inbox = Inbox::new();
    let transport = TcpTransport::bind(id, cluster, option("--listen")?, inbox.clone())?;
    for (peer, address) in peers.iter().filter(|it| *it.0 != id) {
        transport.connect(*peer, address)?;
    }
    let config = Config::founding(cluster, id, peers.keys().copied()).build()?;
    let host = Host::open(config, option("--data")?.as_ref(), transport, inbox)?;
    Ok(Driver::spawn(host)?)
}

const USAGE: &str = "member --id N --listen HOST:PORT --peers 1=HOST:PORT,2=.. --data DIR";
