//! Sessions outlive the members that serve them, move, and end.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use quorate::node::Consistency;
use tokio::time::sleep;
use zookeeper_client::{Client, Error, EventType};

use crate::cluster::{
    Cluster, EPHEMERAL, MEMBERS, PERSISTENT, SEQUENTIAL, TIMEOUT_MIN, client, path, run,
};

#[test]
fn a_session_and_its_acknowledged_writes_outlive_each_member() {
    let mut cluster = Cluster::start();
    run(async move {
        let zk = client(&cluster.all()).await;
        for node in ["/log", "/watched"] {
            zk.create(node, b"", &PERSISTENT).await.expect("created");
        }
        let (mine, _) = zk.create("/mine", b"", &EPHEMERAL).await.expect("created");
        let (_, _, watched) = zk.get_and_watch_data("/watched").await.expect("read");
        let enough = Arc::new(AtomicBool::new(false));
        let writes = tokio::spawn(write(zk.clone(), Arc::clone(&enough)));
        // One of them serves the client.
        let leader = cluster.leader().await;
        for at in [leader, (leader + 1) % MEMBERS, (leader + 2) % MEMBERS] {
            sleep(Duration::from_millis(200)).await;
            cluster.kill(at);
            cluster.leader().await;
            sleep(Duration::from_millis(200)).await;
            cluster.restart(at);
        }
        enough.store(true, Ordering::Release);
        let written = writes.await.expect("it ends");
        for at in 0..MEMBERS {
            written.check(&cluster, at).await;
        }
        zk.sync("/").await.expect("the session lives");
        let stat = zk.check_stat("/mine").await.expect("read").expect("it is there");
        assert_eq!((stat.czxid, stat.ephemeral_owner), (mine.czxid, zk.session_id().0));
        let other = client(&cluster.one(0)).await;
        other.set_data("/watched", b"new", None).await.expect("set");
        let event = watched.changed().await;
        assert_eq!((event.event_type, &*event.path), (EventType::NodeDataChanged, "/watched"));
        drop(zk);
        let (_, gone) = other.check_and_watch_stat("/mine").await.expect("read");
        assert_eq!(gone.changed().await.event_type, EventType::NodeDeleted, "it was closed");
    });
}

/// What a client has been told of its writes.
struct Writes {
    /// The number that each acknowledged node got.
    acknowledged: BTreeMap<u32, i64>,
    /// Nobody knows what became of these.
    unknown: Vec<u32>,
}

/// Makes one node after the other until there are enough.
async fn write(zk: Client, enough: Arc<AtomicBool>) -> Writes {
    let mut writes = Writes { acknowledged: BTreeMap::new(), unknown: Vec::new() };
    let mut number = 0;
    while !enough.load(Ordering::Acquire) {
        match zk.create("/log/n-", number.to_string().as_bytes(), &SEQUENTIAL).await {
            Ok((_, sequence)) => {
                writes.acknowledged.insert(number, sequence.into_i64());
            }
            // The client tells of a reset of its socket as it is.
            Err(Error::ConnectionLoss | Error::Custom(_)) => {
                writes.unknown.push(number);
                sleep(Duration::from_millis(10)).await;
            }
            Err(error) => panic!("the session lives: {error}"),
        }
        number += 1;
    }
    writes
}

impl Writes {
    /// What was acknowledged is there once, where it was said to be; else only what may be.
    async fn check(&self, cluster: &Cluster, at: usize) {
        let handle = cluster.handle(at);
        handle.exists(&path("/log"), Consistency::Linearizable).await.expect("read");
        let view = handle.view().await.expect("a view");
        let (mut found, mut list) = (BTreeMap::new(), quorate::List::of(path("/log")));
        loop {
            let page = view.list(&list).expect("it is there");
            for child in page.children {
                let (data, _) = view.read(&path(&format!("/log/{}", child.name))).expect("read");
                let number: u32 = String::from_utf8_lossy(&data).parse().expect("a number");
                let sequence: i64 = child.name["n-".len()..].parse().expect("a number");
                assert_eq!(found.insert(number, sequence), None, "{number} is there twice");
            }
            match page.resume {
                Some(resume) => list = list.after(resume),
                None => break,
            }
        }
        for (number, sequence) in &self.acknowledged {
            assert_eq!(found.remove(number), Some(*sequence), "{number} was acknowledged");
        }
        assert!(found.keys().all(|number| self.unknown.contains(number)), "{found:?}");
        assert!(self.acknowledged.len() > 50, "{} writes", self.acknowledged.len());
        let numbers: Vec<_> = self.acknowledged.values().collect();
        assert!(numbers.is_sorted(), "in the order of the writes");
    }
}

#[test]
fn a_session_moves_to_another_member_by_its_password() {
    let cluster = Cluster::start();
    run(async move {
        let detached = Client::connector().with_detached();
        let one = detached.connect(&cluster.one(0)).await.expect("a session");
        one.create("/mine", b"1", &EPHEMERAL).await.expect("created");
        let session = one.into_session();
        let connector = Client::connector().with_session(session.clone());
        let two = connector.connect(&cluster.one(1)).await.expect("the session");
        assert_eq!(two.session_id(), session.id());
        two.sync("/mine").await.expect("synced");
        let (data, stat) = two.get_data("/mine").await.expect("it is there");
        assert_eq!((&*data, stat.ephemeral_owner), (&b"1"[..], session.id().0));
        assert_eq!(two.list_ephemerals("/").await.expect("listed"), ["/mine"]);
        two.set_data("/mine", b"2", Some(0)).await.expect("set");
        drop(two);
        let other = client(&cluster.one(2)).await;
        while other.check_stat("/mine").await.expect("read").is_some() {
            sleep(Duration::from_millis(10)).await;
        }
        let late = Client::connector().with_session(session).connect(&cluster.one(2)).await;
        assert_eq!(late.expect_err("it was closed"), Error::SessionExpired);
    });
}

#[test]
fn the_end_of_a_session_is_seen_by_others_and_never_early() {
    let cluster = Cluster::start();
    run(async move {
        let connector = Client::connector().with_session_timeout(TIMEOUT_MIN).with_detached();
        let silent = connector.connect(&cluster.one(0)).await.expect("a session");
        assert_eq!(silent.session_timeout(), TIMEOUT_MIN);
        let other = client(&cluster.one(1)).await;
        let heard = Instant::now();
        silent.create("/mine", b"", &EPHEMERAL).await.expect("created");
        other.sync("/").await.expect("synced");
        let (stat, gone) = other.check_and_watch_stat("/mine").await.expect("read");
        assert!(stat.is_some());
        // It says nothing any more.
        let session = silent.into_session();
        let event = gone.changed().await;
        assert_eq!((event.event_type, &*event.path), (EventType::NodeDeleted, "/mine"));
        let lived = heard.elapsed();
        assert!(lived >= TIMEOUT_MIN && lived < 5 * TIMEOUT_MIN, "after {lived:?}");
        let late = Client::connector().with_session(session).connect(&cluster.all()).await;
        assert_eq!(late.expect_err("it has ended"), Error::SessionExpired);
    });
}
