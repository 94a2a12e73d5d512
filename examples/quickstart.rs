//! Three nodes in one process, on loopback TCP and temporary directories. They elect, lock and
//! write; then the leader is killed, and nothing that was acknowledged is lost.
//!
//! `cargo run --release --example quickstart`

use std::{error::Error, path::Path, time::Duration};

use quorate::{
    ClusterId, Config, CreateMode, NodeId,
    client::{Client, Session},
    driver::{Driver, Host, Inbox},
    node::Consistency,
    recipes::State,
    tcp::TcpTransport,
};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let data = tempfile::tempdir()?;
    let mut nodes = start_cluster(data.path())?;
    println!("Three nodes are up, each with its own log under {:?}.", data.path());

    // An instance of the application lives beside each node, and holds a session there.
    let sessions = open_sessions(&nodes)?;
    let leader = leader_of(nodes[0].client())?.as_u64() as usize - 1;
    let (first, second, third) = (leader, (leader + 1) % 3, (leader + 2) % 3);

    // Two of them stand for election; the third watches who leads.
    let election = "/app/leader".parse()?;
    let chief = sessions[first].campaign(&election, "the first").wait()?;
    let (node, token) = (leader + 1, chief.token());
    println!("Node {node} leads the cluster; the instance there leads, too, with token {token}.");
    let standby = sessions[second].campaign(&election, "the second");
    let mut leaders = sessions[third].client().observe(&election);
    println!("The third instance sees {:?} lead.", leaders.next().ok_or("closed")??.proposal);

    // A lock: its guard tells by the clock alone whether it is still held.
    let lock = sessions[third].lock(&"/locks/report".parse()?).wait()?;
    if let State::Held { token, until } = lock.state() {
        let left = until.saturating_sub(sessions[third].client().now());
        println!("It holds a lock, too: token {token}, safe for another {left:.1?}.");
    }
    lock.release().wait()?;

    let written = write_acknowledged(&sessions[first], 1_000)?;
    println!("{written} writes were acknowledged: each is on the disks of at least two nodes.");

    println!("Now node {node} is killed, without a goodbye.");
    let killed = sessions[third].client().now();
    nodes.remove(leader).stop();
    println!("  its instance sees: {:?}", chief.state());

    let successor = standby.wait()?;
    let took = sessions[third].client().now().saturating_sub(killed);
    println!("The second instance took over after {took:.1?}.");
    println!("  its token is {} (before: {token})", successor.token());
    assert!(successor.token() > token, "a token grows with each leader");
    println!("The third instance sees {:?} lead.", leaders.next().ok_or("closed")??.proposal);

    let survivor = sessions[third].client();
    for n in 0..written {
        let path = format!("/orders/{n}").parse()?;
        let (order, _) = survivor.get(&path, Consistency::Linearizable).wait()?;
        assert_eq!(order, format!("order {n}"), "what was acknowledged is there");
    }
    println!("All {written} acknowledged writes are there; node {} leads.", leader_of(survivor)?);
    Ok(())
}

/// Three nodes that know each other's addresses.
fn start_cluster(data: &Path) -> Outcome<Vec<Driver>> {
    let cluster = ClusterId::named("quickstart");
    let ids = [1, 2, 3].map(|id| NodeId::new(id).expect("ids start at 1"));
    let mut members = Vec::new();
    for id in ids {
        // Everything that arrives for a node arrives in its inbox.
        let inbox = Inbox::new();
        let transport = TcpTransport::bind(id, cluster, "127.0.0.1:0", inbox.clone())?;
        members.push((id, transport, inbox));
    }
    let addresses: Vec<_> = members.iter().map(|it| (it.0, it.1.local_addr())).collect();
    let mut nodes = Vec::new();
    for (id, transport, inbox) in members {
        for (peer, address) in addresses.iter().filter(|it| it.0 != id) {
            transport.connect(*peer, address)?;
        }
        let config = Config::founding(cluster, id, ids).build()?;
        let host = Host::open(config, &data.join(id.to_string()), transport, inbox)?;
        nodes.push(Driver::spawn(host)?);
    }
    Ok(nodes)
}

/// A session at each node; it waits until the cluster has a leader.
fn open_sessions(nodes: &[Driver]) -> Outcome<Vec<Session>> {
    let open = |node: &Driver| node.client().open_session(Duration::from_secs(2));
    let opening: Vec<_> = nodes.iter().map(open).collect();
    let opened = opening.into_iter().map(|it| it.wait());
    Ok(opened.collect::<Result<_, _>>()?)
}

/// Pipelined: a session's writes take effect exactly once, in order, whoever leads.
fn write_acknowledged(session: &Session, count: usize) -> Outcome<usize> {
    session.create(&"/orders".parse()?, "", CreateMode::Persistent).wait()?;
    let mut answers = Vec::new();
    for i in 0..count {
        let path = format!("/orders/{i}").parse()?;
        answers.push(session.create(&path, format!("order {i}"), CreateMode::Persistent));
    }
    for answer in answers {
        answer.wait()?;
    }
    Ok(count)
}

fn leader_of(client: &Client) -> Outcome<NodeId> {
    Ok(client.status().wait()?.leader.ok_or("nobody leads just now")?)
}
