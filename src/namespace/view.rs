//! Reading the tree at one zxid, on any thread.

use std::fmt;

use bytes::Bytes;

use crate::{id::Zxid, namespace::tree::Tree, op::Stat, path::Path};

/// The tree as it was after one transaction.
///
/// Cheap to make and to clone, and it never changes: it shares its structure with the tree that
/// goes on. Holding one keeps what was deleted since alive.
#[derive(Clone)]
pub struct View {
    zxid: Zxid,
    tree: Tree,
}

impl View {
    /// The most names that [`children`](Self::children) gives at once.
    pub const CHILDREN_MAX: usize = 1024;

    pub(super) fn new(zxid: Zxid, tree: Tree) -> Self {
        Self { zxid, tree }
    }

    /// The last transaction that it shows.
    pub fn zxid(&self) -> Zxid {
        self.zxid
    }

    /// A node's data and stat, or `None` if there is no such node.
    pub fn read(&self, path: &Path) -> Option<(Bytes, Stat)> {
        let znode = self.tree.get(path.as_str())?;
        Some((znode.data.clone(), znode.stat()))
    }

    /// A node's stat, or `None` if there is no such node.
    pub fn stat(&self, path: &Path) -> Option<Stat> {
        Some(self.tree.get(path.as_str())?.stat())
    }

    /// A page of a node's children: their names in byte order, whether more follow, and the node's
    /// stat; `None` if there is no such node.
    ///
    /// Names after `after`, at most `limit` and never more than
    /// [`CHILDREN_MAX`](Self::CHILDREN_MAX).
    pub fn children(
        &self,
        path: &Path,
        after: Option<&str>,
        limit: usize,
    ) -> Option<(Vec<String>, bool, Stat)> {
        let znode = self.tree.get(path.as_str())?;
        let limit = limit.min(Self::CHILDREN_MAX);
        // Every child's path starts so, and is longer.
        let prefix = if path.is_root() { "/".to_string() } else { format!("{path}/") };
        let start = prefix.len();
        let after = prefix + after.unwrap_or("");
        let mut children = znode.children_after(&after);
        let names = children.by_ref().take(limit).map(|child| child[start..].to_string()).collect();
        let more = children.next().is_some();
        Some((names, more, znode.stat()))
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View({:?}, {} znodes)", self.zxid, self.tree.len())
    }
}
