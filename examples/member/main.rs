//! One member of a cluster in a process of its own, with a console on its standard input.
//!
//! `cargo run --example member -- --id 1 --listen 127.0.0.1:7001 --data quorate-1 \
//!     --peers 1=127.0.0.1:7001,2=127.0.0.1:7002,3=127.0.0.1:7003`
//!
//! Requests are answered as they complete; one that starts with `#17` is answered with `#17`.

mod requests;

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    io::{self, Write},
    sync::{Arc, Mutex, mpsc},
    thread::Builder,
    time::Duration,
};

use quorate::{
    ClusterId, Config, NodeId,
    client::{self, Client, Completion, LockGuard, Session},
    driver::{Driver, Host, Inbox},
    tcp::{TcpTransport, parse_peers},
};

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let driver = start()?;
    let mut console = Console::new(driver.client().clone());
    let (done, quit) = mpsc::channel::<()>();
    Builder::new().spawn(move || {
        let mut lines = io::stdin().lines().map_while(Result::ok);
        while lines.next().is_some_and(|line| console.take(&line)) {}
        drop(done);
    })?;
    let patience = Duration::from_millis(100);
    let typing = || quit.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout);
    while driver.is_running() && typing() {}
    driver.stop().map_or(Ok(()), |why| Err(format!("the node has ended: {why}").into()))
}

/// Opens the node that the arguments describe.
fn start() -> Result<Driver, Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let options: BTreeMap<_, _> = arguments.chunks_exact(2).map(|it| (&*it[0], &*it[1])).collect();
    let option = |name| options.get(name).copied().ok_or(format!("{name} is missing: {USAGE}"));
    let id = NodeId::new(option("--id")?.parse()?).ok_or("an id is 1 or more")?;
    let (cluster, peers) = (ClusterId::named("member"), parse_peers(option("--peers")?)?);
    let inbox = Inbox::new();
    let transport = TcpTransport::bind(id, cluster, option("--listen")?, inbox.clone())?;
    for (peer, address) in peers.iter().filter(|it| *it.0 != id) {
        transport.connect(*peer, address)?;
    }
    let config = Config::founding(cluster, id, peers.into_keys()).build()?;
    let host = Host::open(config, option("--data")?.as_ref(), transport, inbox)?;
    Ok(Driver::spawn(host)?)
}

struct Console {
    client: Client,
    opening: Option<Completion<Session>>,
    session: Option<Session>,
    locks: Arc<Mutex<BTreeMap<String, LockGuard>>>,
}

impl Console {
    fn new(client: Client) -> Self {
        let opening = Some(client.open_session(TTL));
        Self { client, opening, session: None, locks: Arc::default() }
    }

    /// Takes a line; false when it was the last.
    fn take(&mut self, line: &str) -> bool {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        let has_id = words.first().is_some_and(|it| it.starts_with('#'));
        let id = if has_id { format!("{} ", words.remove(0)) } else { String::new() };
        let wait = match words[..] {
            [] => return true,
            ["quit"] => return false,
            _ => self.submit(&id, &words).unwrap_or_else(|why| Box::new(|| Err(why))),
        };
        Builder::new().spawn(move || answer(&id, wait())).is_ok()
    }

    /// The session of this console; a new one is opened when the old one is over.
    pub(crate) fn session(&mut self) -> Result<&Session, Failure> {
        self.session.take_if(|it| it.over().is_some());
        if self.session.is_none() {
            let client = &self.client;
            let opening = self.opening.get_or_insert_with(|| client.open_session(TTL));
            if let Some(opened) = opening.try_take() {
                self.opening = None;
                self.session = Some(opened?);
            }
        }
        self.session.as_ref().ok_or(OPENING.into())
    }
}

/// One line, whatever it says.
fn answer(id: &str, result: Result<String, Failure>) {
    let line = match result {
        Ok(text) => format!("{id}ok {text}\n"),
        Err(error) => {
            let kind = match error.downcast_ref::<client::Error>() {
                Some(it) if it.outcome_unknown() => "unknown",
                Some(it) if it.is_retryable() => "retryable",
                None if error.to_string() == OPENING => "retryable",
                _ => "final",
            };
            format!("{id}error {kind}: {}\n", error.to_string().replace('\n', " "))
        }
    };
    // Whoever reads it may be gone; then nobody misses it.
    let _ = io::stdout().write_all(line.as_bytes());
}

const TTL: Duration = Duration::from_secs(2);
const OPENING: &str = "the session is being opened; is a majority of the cluster up?";
const USAGE: &str = "member --id N --listen HOST:PORT --peers 1=HOST:PORT,2=.. --data DIR";
