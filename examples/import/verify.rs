//! The second walk: both trees are compared, and counters of children that are behind are raised.

use std::{collections::BTreeSet, sync::Arc};

use zookeeper_client::Error;

use crate::{
    node::{Ends, Kind, Node, make_and_remove},
    tally::Found,
    walk::join,
};

/// Compares a node with its copy, and gives the names of its children.
pub(crate) async fn verify(ends: Ends, path: Arc<str>) -> Result<Vec<String>, Error> {
    let (source, target) = (Node::read(&ends.from, &path), Node::read(&ends.to, &path));
    let (source, target) = (source.await?, target.await?);
    let Some(source) = source.filter(|it| it.kind() != Kind::Ephemeral) else {
        return Ok(Vec::new());
    };
    let Some(target) = target else {
        ends.tally.report(Found::Differing, &path, "it is not there");
        return Ok(Vec::new());
    };
    let names = source.children(&ends.from, &path).await?;
    let others = target.children(&ends.to, &path).await?;
    find_unknown(&ends, &path, &names, others).await?;
    let differs = |what| ends.tally.report(Found::Differing, &path, what);
    match () {
        () if source.data != target.data => differs("its data differs"),
        () if source.acl != target.acl => differs("its rights differ"),
        () if source.kind() != target.kind() => differs("it is of another kind"),
        () => compare_counters(&ends, &path, &source, &target).await?,
    }
    Ok(names)
}

/// Looks for children that the source has not; those of a session do not matter.
async fn find_unknown(
    ends: &Ends,
    path: &str,
    names: &[String],
    others: Vec<String>,
) -> Result<(), Error> {
    let names: BTreeSet<&String> = names.iter().collect();
    for name in others.iter().filter(|it| !names.contains(it)) {
        let child = join(path, name);
        let node = Node::read(&ends.to, &child).await?;
        if node.is_some_and(|it| it.kind() != Kind::Ephemeral) {
            ends.tally.report(Found::Unknown, &child, "it is in the target only");
        }
    }
    Ok(())
}

async fn compare_counters(
    ends: &Ends,
    path: &str,
    source: &Node,
    target: &Node,
) -> Result<(), Error> {
    ends.tally.count(Found::Equal);
    let versions = |it: &Node| (it.stat.version, it.stat.aversion);
    if versions(source) != versions(target) {
        ends.tally.count(Found::OtherVersion);
    }
    let behind = source.children_made() - target.children_made();
    let behind = usize::try_from(behind).unwrap_or(0);
    if behind > ends.counters_max {
        let what = format!("the next number of a child is {behind} lower, above --counters-max");
        ends.tally.report(Found::LowerSequence, path, &what);
        return Ok(());
    }
    make_and_remove(&ends.to, &join(path, PLACEHOLDER), behind).await
}

/// A child that is made and removed at once, to raise its parent's counter.
const PLACEHOLDER: &str = "quorate-import";
