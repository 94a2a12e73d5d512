//! The first walk: whatever is missing or differs is written.

use std::sync::Arc;

use zookeeper_client::Error;

use crate::{
    node::{Ends, Kind, Node, write},
    tally::Found,
};

/// Copies a node, and gives the names of its children.
pub(crate) async fn copy(ends: Ends, path: Arc<str>) -> Result<Vec<String>, Error> {
    let Some(source) = Node::read(&ends.from, &path).await? else {
        ends.tally.count(Found::Gone);
        return Ok(Vec::new());
    };
    if source.kind() == Kind::Ephemeral {
        ends.tally.count(Found::Ephemeral);
        return Ok(Vec::new());
    }
    let children = source.children(&ends.from, &path).await?;
    let found = match Node::read(&ends.to, &path).await? {
        None => {
            let sets = sets(0, source.stat.version, ends.counters_max);
            write(&ends.to, &path, Some(&source.options()), (&source.data, sets)).await?;
            set_acl(&ends, &path, &source, 0).await?;
            Found::Made
        }
        Some(target) => match amend(&ends, &path, &source, &target).await? {
            true => Found::Changed,
            false => Found::Same,
        },
    };
    ends.tally.count(found);
    Ok(children)
}

/// Makes the target's node like the source's; `false` if it was.
async fn amend(ends: &Ends, path: &str, source: &Node, target: &Node) -> Result<bool, Error> {
    let mut sets = sets(target.stat.version, source.stat.version, ends.counters_max);
    if sets == 0 && source.data != target.data {
        sets = 1;
    }
    write(&ends.to, path, None, (&source.data, sets)).await?;
    let mut listed = set_acl(ends, path, source, target.stat.aversion).await?;
    if !listed && source.acl != target.acl {
        ends.to.set_acl(path, &source.acl, None).await?;
        listed = true;
    }
    Ok(sets > 0 || listed)
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
