//! The second walk: both trees are compared, and counters of children that are behind are raised.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use zookeeper_client::Error;

use crate::{
    node::{Ends, Kind, Node, make_and_remove},
    walk::join,
};

/// The second walk.
pub(crate) struct Verify {
    ends: Ends,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    equal: AtomicU64,
    differing: AtomicU64,
    unknown: AtomicU64,
    /// Equal but for a counter.
    version: AtomicU64,
    sequence: AtomicU64,
}

impl Verify {
    pub(crate) fn new(ends: Ends) -> Self {
        Self { ends, counts: Arc::default() }
    }

    pub(crate) fn visit(
        &self,
        path: Arc<str>,
    ) -> impl Future<Output = Result<Vec<String>, Error>> + Send + 'static {
        let (ends, counts) = (self.ends.clone(), Arc::clone(&self.counts));
        async move { compare(&ends, &path, &counts).await }
    }

    pub(crate) fn differences(&self) -> u64 {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        read(&self.counts.differing) + read(&self.counts.unknown)
    }

    pub(crate) fn counts(&self) -> Vec<(&'static str, u64)> {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        vec![
            ("verified: equal", read(&self.counts.equal)),
            ("verified: of these, with another version", read(&self.counts.version)),
            ("verified: of these, with a lower sequence", read(&self.counts.sequence)),
            ("differing: see above", read(&self.counts.differing)),
            ("only in the target: see above", read(&self.counts.unknown)),
        ]
    }
}

fn differs(counts: &Counts, path: &str, what: &str) {
    eprintln!("{path}: {what}");
    counts.differing.fetch_add(1, Ordering::Relaxed);
}

async fn compare(ends: &Ends, path: &str, counts: &Counts) -> Result<Vec<String>, Error> {
    let (source, target) = (Node::read(&ends.from, path), Node::read(&ends.to, path));
    let (source, target) = (source.await?, target.await?);
    let Some(source) = source.filter(|it| it.kind() != Kind::Ephemeral) else {
        return Ok(Vec::new());
    };
    let Some(target) = target else {
        differs(counts, path, "it is not there");
        return Ok(Vec::new());
    };
    let [names, others] = [(&source, &ends.from), (&target, &ends.to)]
        .map(|(node, client)| node.children(client, path));
    let (names, others) = (names.await?, others.await?);
    unknown(ends, path, (&names, others), counts).await?;
    match () {
        () if source.data != target.data => differs(counts, path, "its data differs"),
        () if source.acl != target.acl => differs(counts, path, "its rights differ"),
        () if source.kind() != target.kind() => differs(counts, path, "it is of another kind"),
        () => {
            counts.equal.fetch_add(1, Ordering::Relaxed);
            let versions = |it: &Node| (it.stat.version, it.stat.aversion);
            if versions(&source) != versions(&target) {
                counts.version.fetch_add(1, Ordering::Relaxed);
            }
            let behind = source.children_made() - target.children_made();
            let behind = usize::try_from(behind).unwrap_or(0);
            if behind > ends.counters_max {
                counts.sequence.fetch_add(1, Ordering::Relaxed);
            } else {
                make_and_remove(&ends.to, &join(path, PLACEHOLDER), behind).await?;
            }
        }
    }
    Ok(names)
}

/// Counts children that the source has not; those of a session do not matter.
async fn unknown(
    ends: &Ends,
    path: &str,
    (names, others): (&[String], Vec<String>),
    counts: &Counts,
) -> Result<(), Error> {
    let names: BTreeSet<&String> = names.iter().collect();
    for name in others.iter().filter(|it| !names.contains(it)) {
        let child = join(path, name);
        let node = Node::read(&ends.to, &child).await?;
        if node.is_some_and(|it| it.kind() != Kind::Ephemeral) {
            eprintln!("{child}: it is in the target only");
            counts.unknown.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// A child that is made and removed at once, to raise its parent's counter.
const PLACEHOLDER: &str = "quorate-import";
