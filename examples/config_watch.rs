//! An application keeps a copy of `/config` by a watch alone, through the death of the leader, and
//! proves that it missed nothing: what an event says was there before it is what the copy has.
//!
//! `cargo run --release --example config_watch`

use std::{collections::BTreeMap, error::Error, sync::mpsc, thread, time::Duration};

use quorate::{
    Child, ClusterId, Config, CreateMode, Detail, Filter, List, NodeId, Page, Path, Stat, Zxid,
    client::{Session, Watcher},
    driver::{Driver, Host, Inbox},
    node::{Consistency, Watch},
    tcp::TcpTransport,
};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let data = tempfile::tempdir()?;
    let mut nodes = start_cluster(data.path())?;
    let config: Path = "/config".parse()?;
    nodes[0].client().create(&config, "", CreateMode::Persistent).wait()?;
    let leader = nodes[0].client().status().wait()?.leader.ok_or("nobody leads just now")?;
    let leading = nodes.remove(leader.as_u64() as usize - 1);
    let (here, there) = (leading.client().clone(), nodes[0].client());
    let session = nodes[1].client().open_session(Duration::from_secs(10)).wait()?;
    println!("Node {leader} leads. A writer at another node keeps changing /config.");

    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        let writer = scope.spawn(|| keep_writing(&session, tell));
        let after = |writes| told.iter().take(writes).last().ok_or("the writer failed");
        after(100)?;

        // The copy begins with the tree as it was when the watch was armed.
        let list = List::of(config.clone()).with_data().with_stat();
        let watch = Watch::of(Filter::Subtree(config), 1024);
        let watch = Watch { detail: Detail::BeforeAndAfter, ..watch };
        let mut watcher = here.watch_with(watch.clone()).wait()?;
        let (tree, armed) = (by_path(watcher.view().list(&list)?), watcher.view().zxid());
        println!("There an application copies its {} nodes, at zxid {armed}.", tree.len());
        let mut copy = Mirror { tree, seen: armed, changes: Vec::new() };
        copy.follow(&mut watcher, after(300)?)?;

        let killed = there.now();
        leading.stop();
        let end = copy.follow(&mut watcher, Zxid::new(u64::MAX)).expect_err("its node is gone");
        let before = copy.changes.len();
        println!("{before} changes later node {leader} is killed. The watch ends: {end}.");

        // The application is slow to come back, and the world goes on without it.
        let meanwhile = after(100)?;
        let mut watcher = there.watch_with(Watch { from: Some(copy.seen), ..watch }).wait()?;
        println!("It goes on at another after {:.1?}.", there.now().saturating_sub(killed));
        copy.follow(&mut watcher, meanwhile)?;
        let through = copy.changes.len() - before;
        println!("It is told of {through} changes that were made meanwhile.");
        after(300)?;
        drop(told); // the writer stops
        let (unknown, mut acked) = writer.join().map_err(|_| "the writer failed")?;
        copy.follow(&mut watcher, acked[acked.len() - 1])?;
        acked.retain(|zxid| *zxid > armed);
        assert!(acked.iter().all(|it| copy.changes.contains(it)), "no write is missing");
        assert!(copy.changes.len() <= acked.len() + unknown, "nothing is there that is no write");
        assert_eq!(copy.tree, by_path(there.list(list, Consistency::Linearizable).wait()?));
        println!("It sees {} more.", copy.changes.len() - before - through);
        println!("{} writes were acknowledged; {unknown} have an unknown outcome.", acked.len());
        println!("Its copy is what a linearizable read shows: nothing was missed.");
        Ok(())
    })
}

/// A copy of what is below `/config`, and the transactions of its changes.
struct Mirror {
    tree: BTreeMap<String, (bytes::Bytes, Stat)>,
    seen: Zxid,
    changes: Vec<Zxid>,
}

impl Mirror {
    /// Takes the changes up to this transaction, each on top of what was there before it.
    fn follow(&mut self, watcher: &mut Watcher, until: Zxid) -> Outcome<()> {
        while self.seen < until {
            let changes = watcher.next_timeout(Duration::from_secs(10)).ok_or("nothing came")??;
            assert!(changes.zxid > self.seen, "no change is told twice");
            self.seen = changes.zxid;
            for event in changes.events {
                let path = event.path.to_string();
                let had = match event.after {
                    Some(after) => self.tree.insert(path, (after.data, after.stat)),
                    None => self.tree.remove(&path),
                };
                let before = event.before.map(|it| (it.data, it.stat));
                assert_eq!(had, before, "no change of {} is left out", event.path);
                self.changes.push(self.seen);
            }
        }
        Ok(())
    }
}

fn by_path(page: Page) -> BTreeMap<String, (bytes::Bytes, Stat)> {
    let node = |it: Child| Some((format!("/config/{}", it.name), (it.data?, it.stat?)));
    page.children.into_iter().filter_map(node).collect()
}

/// Creates, sets and deletes five nodes, over and over, as long as somebody listens. Returns how
/// many writes have an unknown outcome, and the acknowledged ones.
fn keep_writing(session: &Session, tell: mpsc::Sender<Zxid>) -> (usize, Vec<Zxid>) {
    let (mut acked, mut n) = (Vec::new(), 0);
    loop {
        let (key, turn) = (n % 5, n / 5);
        let path = format!("/config/{key}").parse().expect("a legal path");
        let answer = match turn % (key + 3) {
            0 => session.create(&path, n.to_string(), CreateMode::Persistent),
            turn if turn == key + 2 => session.delete(&path, None),
            _ => session.set(&path, n.to_string(), None),
        };
        n += 1;
        let zxid = match answer.wait() {
            Ok(written) => written.zxid,
            Err(error) if error.outcome_unknown() => continue,
            Err(error) => panic!("a write was refused: {error}"),
        };
        acked.push(zxid);
        if tell.send(zxid).is_err() {
            return (n - acked.len(), acked);
        }
    }
}

/// Three nodes on loopback TCP that know each other's addresses.
fn start_cluster(data: &std::path::Path) -> Outcome<Vec<Driver>> {
    let (cluster, mut members) = (ClusterId::named("config"), Vec::new());
    let ids = [1, 2, 3].map(|id| NodeId::new(id).expect("ids start at 1"));
    for id in ids {
        let inbox = Inbox::new();
        members.push((id, TcpTransport::bind(id, cluster, "127.0.0.1:0", inbox.clone())?, inbox));
    }
    let addresses: Vec<_> = members.iter().map(|it| (it.0, it.1.local_addr())).collect();
    let start = |(id, transport, inbox): (NodeId, TcpTransport, Inbox)| {
        for (peer, address) in addresses.iter().filter(|it| it.0 != id) {
            transport.connect(*peer, address)?;
        }
        let config = Config::founding(cluster, id, ids).build()?;
        Ok(Driver::spawn(Host::open(config, &data.join(id.to_string()), transport, inbox)?)?)
    };
    members.into_iter().map(start).collect()
}
