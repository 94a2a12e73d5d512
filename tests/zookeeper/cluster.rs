//! Three members in one process, each with a listener; and clients of them.

use std::{net::SocketAddr, path::Path as Directory, time::Duration};

use quorate::{
    ClusterId, Config, Limits, NodeId, Path,
    client::Client as Handle,
    driver::{Driver, Host, Inbox, Switchboard},
    node::{Consistency, Role},
    zookeeper::{Listener, ListenerOptions},
};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use zookeeper_client::{Acls, Client, CreateMode, CreateOptions};

/// The members; one that was killed is none until it is started again.
pub(crate) struct Cluster {
    board: Switchboard,
    data: TempDir,
    members: Vec<Option<Member>>,
    /// Where each listens, in all its lives.
    addresses: Vec<SocketAddr>,
}

struct Member {
    driver: Driver,
    listener: Listener,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let data = TempDir::new().expect("a folder");
        let board = Switchboard::new();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut cluster = Self { board, data, members: Vec::new(), addresses: vec![any; MEMBERS] };
        for at in 0..MEMBERS {
            let member = cluster.open(at);
            cluster.addresses[at] = member.listener.local_addr();
            cluster.members.push(Some(member));
        }
        // There is a leader from here on.
        let exists = cluster.handle(0).exists(&Path::root(), Consistency::Linearizable);
        exists.wait().expect("read");
        cluster
    }

    fn open(&self, at: usize) -> Member {
        let (id, cluster) = (id(at), ClusterId::named("interop"));
        let mut limits = Limits::default();
        limits.session_ttl_min = TIMEOUT_MIN;
        let config = Config::founding(cluster, id, (0..MEMBERS).map(self::id)).limits(limits);
        let inbox = Inbox::new();
        let line = self.board.connect(id, inbox.clone());
        let folder: &Directory = self.data.path();
        let config = config.build().expect("a sound set-up");
        let host = Host::open(config, &folder.join(at.to_string()), line, inbox);
        let driver = Driver::spawn(host.expect("it opens")).expect("there are threads");
        let mut options = ListenerOptions::default();
        options.connection.timeout_min = TIMEOUT_MIN;
        let listener = Listener::spawn(driver.client(), self.addresses[at], options);
        Member { listener: listener.expect("its port"), driver }
    }

    /// The member is gone without a word to anybody; its files stay.
    pub(crate) fn kill(&mut self, at: usize) {
        self.board.isolate(id(at));
        drop(self.members[at].take());
        self.board.heal();
    }

    pub(crate) fn restart(&mut self, at: usize) {
        self.members[at] = Some(self.open(at));
    }

    /// A handle of this crate, at a member that lives.
    pub(crate) fn handle(&self, at: usize) -> &Handle {
        self.members[at].as_ref().expect("it lives").driver.client()
    }

    /// Waits for a leader.
    pub(crate) async fn leader(&self) -> usize {
        loop {
            for (at, member) in self.members.iter().enumerate() {
                let Some(member) = member else { continue };
                let status = member.driver.client().status().await.expect("it lives");
                if status.role == Role::Leader {
                    return at;
                }
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// What a client needs to know of one member.
    pub(crate) fn one(&self, at: usize) -> String {
        self.addresses[at].to_string()
    }

    /// And of all.
    pub(crate) fn all(&self) -> String {
        self.addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",")
    }
}

/// A client with a session of 10 s: longer than any outage here.
pub(crate) async fn client(servers: &str) -> Client {
    let connector = Client::connector().with_session_timeout(Duration::from_secs(10));
    connector.connect(servers).await.expect("a session")
}

/// Runs a test, at most for a minute. Its thread may wait for handles: clients have others.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_time().build().expect("there are threads");
    runtime.block_on(async { timeout(Duration::from_secs(60), test).await.expect("in time") });
}

pub(crate) fn path(text: &str) -> Path {
    text.parse().expect("a path")
}

fn id(at: usize) -> NodeId {
    NodeId::new(at as u64 + 1).expect("not 0")
}

pub(crate) const MEMBERS: usize = 3;
pub(crate) const TIMEOUT_MIN: Duration = Duration::from_secs(2);
pub(crate) const PERSISTENT: CreateOptions<'_> =
    CreateMode::Persistent.with_acls(Acls::anyone_all());
pub(crate) const EPHEMERAL: CreateOptions<'_> = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
pub(crate) const SEQUENTIAL: CreateOptions<'_> =
    CreateMode::PersistentSequential.with_acls(Acls::anyone_all());
