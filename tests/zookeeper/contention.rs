//! A client of ZooKeeper and handles of this crate want the same lock and the same leadership.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use quorate::{Op, Txn, client::Session, node::Consistency, recipes::Layout};
use tokio::task::JoinSet;
use zookeeper_client::{Acls, Client, LockOptions, LockPrefix};

use crate::cluster::{Cluster, MEMBERS, PERSISTENT, client, path, run};

/// What the lock protects, and whether it does.
#[derive(Default)]
struct Protected {
    held: AtomicBool,
    /// The number of the newest holder's node.
    newest: AtomicU64,
}

impl Protected {
    /// A holder comes; the number of its node is above that of each before it.
    fn enter(&self, name: &str) {
        assert!(!self.held.swap(true, Ordering::AcqRel), "two holders at once");
        let number: u64 = name[name.len() - 10..].parse().expect("a number at its end");
        let before = self.newest.swap(number, Ordering::AcqRel);
        assert!(before < number + u64::from(number == 0), "{number} holds after {before}");
    }

    fn leave(&self) {
        self.held.store(false, Ordering::Release);
    }
}

#[test]
fn one_lock_serves_clients_and_handles_in_turn() {
    let cluster = Cluster::start();
    run(async move {
        let protected = Arc::new(Protected::default());
        let zk = client(&cluster.all()).await;
        zk.create("/locks", b"", &PERSISTENT).await.expect("created");
        zk.create("/locks/one", b"", &PERSISTENT).await.expect("created");
        zk.create("/count", b"0", &PERSISTENT).await.expect("created");
        let mut contenders = JoinSet::new();
        for at in 0..MEMBERS {
            let zk = client(&cluster.one(at)).await;
            contenders.spawn(lock_as_client(zk, Arc::clone(&protected)));
            let session = session(&cluster, at).await;
            contenders.spawn(lock_as_handle(session, Layout::Curator, Arc::clone(&protected)));
        }
        while let Some(ended) = contenders.join_next().await {
            ended.expect("nothing went wrong");
        }
        zk.sync("/").await.expect("synced");
        let (count, _) = zk.get_data("/count").await.expect("read");
        let expected = (2 * MEMBERS * ROUNDS).to_string();
        assert_eq!(String::from_utf8_lossy(&count), expected, "no step was lost or done twice");
        assert_eq!(zk.list_children("/locks/one").await.expect("listed"), [""; 0]);
    });
}

async fn lock_as_client(zk: Client, protected: Arc<Protected>) {
    for _ in 0..ROUNDS {
        let prefix = LockPrefix::new_curator("/locks/one", "lock-").expect("valid");
        let lock = zk.lock(prefix, b"a client", anyone()).await.expect("the lock");
        protected.enter(lock.lock_path());
        zk.sync("/count").await.expect("synced");
        let (count, stat) = zk.get_data("/count").await.expect("read");
        let next = next(&count);
        // Fenced by a check of the lock's own node.
        lock.set_data("/count", next.as_bytes(), Some(stat.version)).await.expect("it holds");
        protected.leave();
    }
}

async fn lock_as_handle(session: Session, layout: Layout, protected: Arc<Protected>) {
    let count = path("/count");
    for _ in 0..ROUNDS {
        let guard =
            session.lock_with(layout, &path("/locks/one"), "a handle").await.expect("the lock");
        protected.enter(guard.fence().path.as_str());
        let read = session.client().get(&count, Consistency::Linearizable);
        let (data, stat) = read.await.expect("read");
        let (data, version) = (next(&data).into(), Some(stat.version));
        let set = Op::Set { path: count.clone(), data, version };
        guard.txn(Txn::new(set)).await.expect("it holds");
        protected.leave();
        guard.release().await.expect("released");
    }
    session.close().await.expect("closed");
}

fn next(count: &[u8]) -> String {
    let count: usize = String::from_utf8_lossy(count).parse().expect("a number");
    (count + 1).to_string()
}

#[test]
fn one_election_elects_clients_and_handles_in_turn() {
    let mut cluster = Cluster::start();
    run(async move {
        let election = path("/app/leader");
        let one = client(&cluster.all()).await;
        one.create("/app", b"", &PERSISTENT).await.expect("created");
        one.create("/app/leader", b"", &PERSISTENT).await.expect("created");
        let prefix = || LockPrefix::new_curator("/app/leader", "latch-").expect("valid");
        let leads = one.lock(prefix(), b"client 1", anyone()).await.expect("it leads");
        // The others are at members that stay.
        let killed = cluster.leader().await;
        let (stays, stays_too) = ((killed + 1) % MEMBERS, (killed + 2) % MEMBERS);
        let mut observed = cluster.handle(stays).observe(&election);
        let mut observe = async || observed.next_async().await.expect("it lives").expect("told");
        assert_eq!(observe().await.proposal, "client 1");
        let session = session(&cluster, stays).await;
        let mut campaign = session.campaign(&election, "handle");
        let two = client(&cluster.one(stays_too)).await;
        let mut third = tokio::spawn(async move {
            let leads = two.lock(prefix(), b"client 2", anyone()).await.expect("it leads");
            leads.into_owned()
        });
        while one.list_children("/app/leader").await.expect("listed").len() < 3 {
            tokio::task::yield_now().await;
        }
        cluster.kill(killed);
        cluster.leader().await;
        assert!(campaign.try_take().is_none() && !third.is_finished(), "the first one leads on");
        while one.sync("/").await.is_err() {
            tokio::task::yield_now().await;
        }
        drop(leads);
        let guard = campaign.await.expect("it leads");
        let mut leadership = observe().await;
        while leadership.proposal != "handle" {
            leadership = observe().await;
        }
        assert_eq!(leadership.token, guard.token());
        assert!(!third.is_finished(), "one at a time");
        // Its session ends, and with it its leadership.
        session.close().await.expect("closed");
        let last = (&mut third).await.expect("it leads");
        let (data, stat) = last.client().get_data(last.lock_path()).await.expect("read");
        assert_eq!(data, b"client 2");
        assert!(stat.czxid as u64 > guard.token().as_u64(), "a newer leader has a larger token");
    });
}

/// With kazoo, if `QUORATE_KAZOO` names a Python that has it: `tests/interop/run.sh` does.
#[test]
fn kazoo_and_handles_serve_in_turn() {
    let Ok(python) = std::env::var("QUORATE_KAZOO") else { return };
    let cluster = Cluster::start();
    let kazoo = |arguments: &[&str]| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/contend.py");
        let mut command = Command::new(&python);
        command.args([script, &cluster.all()]).args(arguments).spawn().expect("it starts")
    };
    run(async {
        let (zk, protected) = (client(&cluster.all()).await, Arc::new(Protected::default()));
        for (node, data) in [("/locks", "0"), ("/count", "0"), ("/app", "")] {
            zk.create(node, data.as_bytes(), &PERSISTENT).await.expect("created");
        }
        let rounds = ROUNDS.to_string();
        let mut others = [(); 2].map(|()| kazoo(&["lock", "/locks/one", "/count", &rounds]));
        let mut contenders = JoinSet::new();
        let layouts = [Layout::Kazoo, Layout::Curator, Layout::Kazoo];
        for (at, layout) in layouts.into_iter().enumerate() {
            let session = session(&cluster, at).await;
            contenders.spawn(lock_as_handle(session, layout, Arc::clone(&protected)));
        }
        while let Some(ended) = contenders.join_next().await {
            ended.expect("nothing went wrong");
        }
        assert!(others.iter_mut().all(|it| it.wait().expect("it ends").success()));
        zk.sync("/").await.expect("synced");
        let (count, _) = zk.get_data("/count").await.expect("read");
        let expected = ((MEMBERS + others.len()) * ROUNDS).to_string();
        assert_eq!(String::from_utf8_lossy(&count), expected, "no step was lost or done twice");

        let election = path("/app/kazoo");
        let (first, last) = (session(&cluster, 0).await, session(&cluster, 1).await);
        let leads = first.campaign_with(Layout::Kazoo, &election, "first").await.expect("it leads");
        let mut other = kazoo(&["elect", "/app/kazoo", "/enough"]);
        while zk.list_children("/app/kazoo").await.expect("listed").len() < 2 {
            tokio::task::yield_now().await;
        }
        let mut campaign = last.campaign_with(Layout::Kazoo, &election, "last");
        let mut observed = cluster.handle(2).observe(&election);
        leads.resign().await.expect("resigned");
        while observed.next_async().await.expect("it lives").expect("told").proposal != "kazoo" {}
        assert!(campaign.try_take().is_none(), "kazoo came first");
        zk.create("/enough", b"", &PERSISTENT).await.expect("created");
        drop(campaign.await.expect("it leads"));
        assert!(other.wait().expect("it ends").success());
    });
}

async fn session(cluster: &Cluster, at: usize) -> Session {
    cluster.handle(at).open_session(Duration::from_secs(10)).await.expect("a session")
}

fn anyone() -> LockOptions<'static> {
    LockOptions::new(Acls::anyone_all())
}

/// How often each contender holds the lock.
const ROUNDS: usize = 8;
