//! Visits a tree, parents before their children, several nodes at once.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use zookeeper_client::Error;

use crate::tally::{Found, Tally};

/// Visits every node from `root` on, at most `window` at once. `visit` gives the names of the
/// children to go on with, and may be called again for a node after a lost connection.
///
/// What waits is at most one list of children for each level and for each visit under way: a tree
/// may be larger than memory, as long as none of its lists is.
pub(crate) async fn walk<V>(
    what: &str,
    (root, window): (&str, usize),
    tally: &Tally,
    visit: impl Fn(Arc<str>) -> V,
) where
    V: Future<Output = Result<Vec<String>, Error>> + Send + 'static,
{
    let (mut visits, mut waiting) = (JoinSet::new(), vec![(Arc::from(""), Vec::new())]);
    visits.spawn(attempt(Arc::from(root), 0, visit(Arc::from(root))));
    let (begun, mut told, mut done) = (Instant::now(), Instant::now(), 0_usize);
    while let Some(visited) = visits.join_next().await {
        let (path, attempts, result) =
            visited.expect("visits do not panic, and nobody aborts them");
        match result {
            Ok(children) => {
                done += 1;
                if !children.is_empty() {
                    waiting.push((path, children));
                }
            }
            Err(error) if attempts < ATTEMPTS && is_passing(&error) => {
                visits.spawn(attempt(Arc::clone(&path), attempts + 1, visit(path)));
            }
            Err(error) => {
                done += 1;
                tally.report(Found::Failed, &path, &error.to_string());
            }
        }
        while visits.len() < window {
            let Some((parent, names)) = waiting.last_mut() else { break };
            match names.pop() {
                Some(name) => {
                    let path: Arc<str> = join(parent, &name).into();
                    visits.spawn(attempt(Arc::clone(&path), 0, visit(path)));
                }
                None => drop(waiting.pop()),
            }
        }
        if told.elapsed() > TELL_EVERY || visits.is_empty() {
            told = Instant::now();
            let known = done + visits.len() + waiting.iter().map(|it| it.1.len()).sum::<usize>();
            let rate = done as f64 / begun.elapsed().as_secs_f64();
            println!("{what} {done} nodes of {known} that are known, {rate:.0} a second");
        }
    }
}

/// A visit; one that is tried again waits a little.
async fn attempt<V>(
    path: Arc<str>,
    attempts: u32,
    visit: V,
) -> (Arc<str>, u32, Result<Vec<String>, Error>)
where
    V: Future<Output = Result<Vec<String>, Error>>,
{
    sleep(Duration::from_millis(200) * attempts).await;
    (path, attempts, visit.await)
}

/// Whether another attempt may do better: the connection was lost, or there was too much to do.
fn is_passing(error: &Error) -> bool {
    matches!(error, Error::ConnectionLoss | Error::Throttled | Error::Custom(_))
}

pub(crate) fn join(parent: &str, name: &str) -> String {
    match parent {
        "/" => format!("/{name}"),
        parent => format!("{parent}/{name}"),
    }
}

/// Together about as long as a session lives.
const ATTEMPTS: u32 = 16;
const TELL_EVERY: Duration = Duration::from_secs(1);
