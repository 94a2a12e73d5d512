//! Pages of children.

use std::{ops::Bound, sync::Arc};

use crate::{
    namespace::{tree::Tree, znode::Znode},
    op::{Child, Children, List, Page},
};

impl Tree {
    /// A page of a node's children, for somebody who may read `parent`.
    ///
    /// Children that may not be read are only names, and only where all children are asked for.
    /// It ends after `limit` children, before the one that would pass [`List::BYTES_MAX`] unless it
    /// is the first, or when it has looked at [`LOOKS_MAX`] of them.
    pub(super) fn list(
        &self,
        parent: &Znode,
        list: &List,
        may_read: impl Fn(&str, &Znode) -> bool,
    ) -> Page {
        // Every child's path starts so, and is longer.
        let base = if list.path.is_root() { "/".into() } else { format!("{}/", list.path) };
        let mut page = Page { children: Vec::new(), resume: None, stat: parent.stat() };
        let (limit, mut bytes, mut last) = (list.limit_in_force(), 0, None);
        for (looks, path) in from(parent, &base, list).enumerate() {
            let name = &path[base.len()..];
            if !name.starts_with(&list.prefix) {
                break;
            }
            let full = page.children.len() == limit || looks == LOOKS_MAX;
            let child = if full { None } else { self.child(path, name, list, &may_read) };
            bytes += child.as_ref().map_or(0, child_bytes);
            if full || (bytes > List::BYTES_MAX && child.is_some() && !page.children.is_empty()) {
                page.resume = last.map(str::to_string);
                break;
            }
            last = Some(name);
            page.children.extend(child);
        }
        page
    }

    fn child(
        &self,
        path: &str,
        name: &str,
        list: &List,
        may_read: impl Fn(&str, &Znode) -> bool,
    ) -> Option<Child> {
        let mut child = Child { name: name.to_string(), stat: None, data: None };
        if list.only == Children::All && !list.with_stat && !list.with_data {
            // Names alone need no look at the child.
            return Some(child);
        }
        let znode = self.get(path)?;
        let readable = may_read(path, znode);
        let owned = znode.owner.is_some();
        let wanted = match list.only {
            Children::All => true,
            Children::Persistent => readable && !owned,
            Children::Ephemeral => readable && owned,
        };
        child.stat = (list.with_stat && readable).then(|| znode.stat());
        child.data = (list.with_data && readable).then(|| znode.shared_data());
        wanted.then_some(child)
    }
}

/// The children from the first one on that the page may hold.
fn from<'a>(parent: &'a Znode, base: &str, list: &List) -> impl Iterator<Item = &'a Arc<str>> {
    let first = format!("{base}{}", list.prefix);
    let after = list.after.as_ref().map(|after| format!("{base}{after}"));
    let start = match &after {
        Some(after) if *after >= first => Bound::Excluded(after.as_str()),
        _ => Bound::Included(first.as_str()),
    };
    parent.children.range::<_, str>((start, Bound::Unbounded))
}

/// What a child counts for against [`List::BYTES_MAX`], and in a reply that is kept.
pub(super) fn child_bytes(child: &Child) -> usize {
    let stat = child.stat.map_or(0, |_| STAT_BYTES);
    CHILD_BYTES + child.name.len() + stat + child.data.as_ref().map_or(0, |data| data.len())
}

/// About what a child takes in memory beyond its name, stat and data.
const CHILD_BYTES: usize = 64;
/// About what a stat takes.
const STAT_BYTES: usize = 128;
/// Children that one page looks at to find those that are asked for.
const LOOKS_MAX: usize = 8 * List::LIMIT_MAX as usize;
