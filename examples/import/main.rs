//! Copies the tree of a ZooKeeper into a cluster of quorate, through the ports of both for clients,
//! and compares the two.
//!
//! `cargo run --release --features zookeeper --example import -- --from old:2181 --to new:2181 \
//!     --from-auth digest:super:secret --to-auth digest:super:secret`
//!
//! What is there already is compared, and only what differs is written: a second run goes on where
//! the first was cut off, and takes over what has changed since. `docs/zookeeper.md` says what is
//! kept. It fails if a node could not be copied, or differs in the end.

mod copy;
mod node;
mod tally;
mod verify;
mod walk;

use std::{collections::BTreeMap, env, error::Error, process::ExitCode, sync::Arc, time::Duration};

use copy::copy;
use node::{Ends, OPEN};
use tally::Tally;
use verify::verify;
use walk::walk;
use zookeeper_client::Client;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build()?;
    runtime.block_on(import())
}

async fn import() -> Result<ExitCode, Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let options = options(&arguments)?;
    let number = |name, default: usize| options.get(name).map_or(Ok(default), |it| it.parse());
    let window = number("--window", 128)?.max(1);
    let counters_max = number("--counters-max", 10_000)?;
    let below = options.get("--below").copied().unwrap_or("/");
    let need = |name| options.get(name).copied().ok_or(format!("{name} is missing: {USAGE}"));
    let from = connect(need("--from")?, options.get("--from-auth").copied()).await?;
    let to = connect(need("--to")?, options.get("--to-auth").copied()).await?;
    if below != "/" {
        // Whatever lies above is not copied, but must be there.
        let above = below.rsplit_once('/').map_or("", |it| it.0);
        if !above.is_empty() {
            to.mkdir(above, &OPEN).await?;
        }
    }
    let tally = Arc::new(Tally::default());
    let ends = Ends { from, to, counters_max, tally: Arc::clone(&tally) };
    ends.sync().await?;
    walk("copied", (below, window), &tally, |path| copy(ends.clone(), path)).await;
    ends.sync().await?;
    walk("verified", (below, window), &tally, |path| verify(ends.clone(), path)).await;
    let equal = tally.print();
    println!("{}", if equal { "the trees are equal" } else { "the trees differ" });
    Ok(if equal { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn options(arguments: &[String]) -> Result<BTreeMap<&str, &str>, Failure> {
    let mut options = BTreeMap::new();
    for pair in arguments.chunks(2) {
        match pair {
            [name, value] if NAMES.contains(&&**name) => options.insert(&**name, &**value),
            _ => return Err(USAGE.into()),
        };
    }
    Ok(options)
}

async fn connect(servers: &str, auth: Option<&str>) -> Result<Client, Failure> {
    let mut connector = Client::connector().with_session_timeout(SESSION_TIMEOUT);
    if let Some(auth) = auth {
        let (scheme, proof) = auth.split_once(':').ok_or("an identity is SCHEME:PROOF")?;
        connector = connector.with_auth(scheme, proof.as_bytes());
    }
    let connected = connector.connect(servers).await;
    connected.map_err(|error| format!("no session at {servers}: {error}").into())
}

const NAMES: [&str; 7] =
    ["--from", "--to", "--from-auth", "--to-auth", "--below", "--window", "--counters-max"];
const USAGE: &str = "import --from HOST:PORT,.. --to HOST:PORT,.. \
    [--from-auth digest:USER:PASSWORD] [--to-auth digest:USER:PASSWORD] \
    [--below PATH] [--window REQUESTS] [--counters-max N]";
const SESSION_TIMEOUT: Duration = Duration::from_secs(30);
