//! The first walk: whatever is missing or differs is written.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use zookeeper_client::Error;

use crate::node::{Ends, Kind, Node, write};

/// The first walk.
pub(crate) struct Copy {
    ends: Ends,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    made: AtomicU64,
    changed: AtomicU64,
    equal: AtomicU64,
    ephemeral: AtomicU64,
    gone: AtomicU64,
}

impl Copy {
    pub(crate) fn new(ends: Ends) -> Self {
        Self { ends, counts: Arc::default() }
    }

    pub(crate) fn visit(
        &self,
        path: Arc<str>,
    ) -> impl Future<Output = Result<Vec<String>, Error>> + Send + 'static {
        let (ends, counts) = (self.ends.clone(), Arc::clone(&self.counts));
        async move { copy(&ends, &path, &counts).await }
    }

    pub(crate) fn counts(&self) -> Vec<(&'static str, u64)> {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        vec![
            ("copied: made", read(&self.counts.made)),
            ("copied: changed", read(&self.counts.changed)),
            ("equal already", read(&self.counts.equal)),
            ("skipped: ephemeral, its session is elsewhere", read(&self.counts.ephemeral)),
            ("skipped: deleted while it was copied", read(&self.counts.gone)),
        ]
    }
}

fn count(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

async fn copy(ends: &Ends, path: &str, counts: &Counts) -> Result<Vec<String>, Error> {
    let Some(source) = Node::read(&ends.from, path).await? else {
        count(&counts.gone);
        return Ok(Vec::new());
    };
    if source.kind() == Kind::Ephemeral {
        count(&counts.ephemeral);
        return Ok(Vec::new());
    }
    let children = source.children(&ends.from, path).await?;
    match Node::read(&ends.to, path).await? {
        None => {
            let sets = sets(0, source.stat.version, ends.counters_max);
            write(&ends.to, path, Some(&source.options()), (&source.data, sets)).await?;
            set_acl(ends, path, &source, 0).await?;
            count(&counts.made);
        }
        Some(target) => match amend(ends, path, &source, &target).await? {
            true => count(&counts.changed),
            false => count(&counts.equal),
        },
    }
    Ok(children)
}

/// Makes the target's node like the source's; `false` if it was.
async fn amend(ends: &Ends, path: &str, source: &Node, target: &Node) -> Result<bool, Error> {
    let mut sets = sets(target.stat.version, source.stat.version, ends.counters_max);
    if sets == 0 && source.data != target.data {
        sets = 1;
    }
    write(&ends.to, path, None, (&source.data, sets)).await?;
    let mut raised = set_acl(ends, path, source, target.stat.aversion).await?;
    if !raised && source.acl != target.acl {
        ends.to.set_acl(path, &source.acl, None).await?;
        raised = true;
    }
    Ok(sets > 0 || raised)
}

/// How often a node at a version is to be written until it is at another one.
fn sets(from: i32, to: i32, counters_max: usize) -> usize {
    let sets = usize::try_from(i64::from(to) - i64::from(from)).unwrap_or(0);
    // One that is too far behind gets its data, and no version.
    if sets > counters_max { 0 } else { sets }
}

/// Sets the list so often that its version is as high; `false` if it was.
async fn set_acl(ends: &Ends, path: &str, source: &Node, from: i32) -> Result<bool, Error> {
    let times = sets(from, source.stat.aversion, ends.counters_max);
    for _ in 0..times {
        ends.to.set_acl(path, &source.acl, None).await?;
    }
    Ok(times > 0)
}
