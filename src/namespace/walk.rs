//! Walking a tree depth-first, children in byte order.

use std::{sync::Arc, vec};

use crate::namespace::{tree::Tree, znode::Znode};

/// A place in a tree that does not change meanwhile: a frozen one, or one that is borrowed.
///
/// It looks up each node once. Paths are taken from a list of children some at a time, so that a
/// step takes no longer where the list is long.
#[derive(Debug)]
pub(super) struct Walk {
    /// From the top down: those that come next at each depth.
    levels: Vec<Level>,
}

#[derive(Debug)]
struct Level {
    parent: Arc<str>,
    some: vec::IntoIter<Arc<str>>,
    /// The last of `some`, unless it was the last of all.
    last: Option<Arc<str>>,
}

impl Walk {
    /// All below a node; not the node itself.
    pub(super) fn below(path: &Arc<str>, znode: &Znode) -> Self {
        let mut walk = Self { levels: Vec::new() };
        walk.enter(path, znode);
        walk
    }

    /// The next node; `None` after the last.
    pub(super) fn next<'a>(&mut self, tree: &'a Tree) -> Option<(Arc<str>, &'a Znode)> {
        loop {
            let level = self.levels.last_mut()?;
            if let Some(path) = level.some.next() {
                let znode = tree.get(&path)?;
                self.enter(&path, znode);
                return Some((path, znode));
            }
            match level.last.take() {
                Some(last) => level.fill(tree.get(&level.parent)?.children_after(&last)),
                None => drop(self.levels.pop()),
            }
        }
    }

    fn enter(&mut self, path: &Arc<str>, znode: &Znode) {
        if !znode.children.is_empty() {
            let mut level =
                Level { parent: Arc::clone(path), some: Vec::new().into_iter(), last: None };
            level.fill(znode.children.iter());
            self.levels.push(level);
        }
    }
}

impl Level {
    fn fill<'a>(&mut self, children: impl Iterator<Item = &'a Arc<str>>) {
        let some: Vec<_> = children.take(AT_ONCE).cloned().collect();
        self.last = some.last().filter(|_| some.len() == AT_ONCE).cloned();
        self.some = some.into_iter();
    }
}

/// Children that are taken from a list at once.
const AT_ONCE: usize = 256;
