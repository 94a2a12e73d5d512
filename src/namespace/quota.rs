//! Quotas: how much a subtree holds, and how much it may.
//!
//! Usage is kept only where a quota is set, so that a tree without quotas pays nothing. A path may
//! have several quotas above it, and all hold.
//!
//! Invariant: the usage of each quota is that of the nodes at and below its path.

use std::{iter, ops::Bound, sync::Arc};

use crate::{
    namespace::{
        digest,
        history::{Change, Parent},
        tree::{Tree, parent},
        walk::Walk,
        znode::{Listing, Stamp},
    },
    op::{Identities, LimitName, OpError, Quota, Rights, Usage},
    path::Path,
};

/// A quota, and what it counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Metered {
    pub(super) quota: Quota,
    pub(super) usage: Usage,
}

impl Tree {
    /// Sets or takes away a quota; counts what is there, at most `max` nodes. Where there is no
    /// node there is no quota to take away, and no change.
    pub(super) fn set_quota(
        &mut self,
        path: &Path,
        quota: Option<Quota>,
        max: u64,
        (who, at): (&Identities, Stamp),
    ) -> Result<Option<Change>, OpError> {
        if quota.is_some() {
            self.existing(path)?;
        }
        // Whom a subtree is granted to does not set its bounds.
        let above = parent(path.as_str()).unwrap_or("/");
        if let Some(znode) = self.get(above) {
            znode.require(above, who, Rights::ADMIN)?;
        }
        if self.get(path.as_str()).is_none() {
            return Ok(None);
        }
        let metered = match (quota, self.quotas.get(path.as_str())) {
            (None, _) => None,
            (Some(quota), Some(Metered { usage, .. })) => Some(Metered { quota, usage: *usage }),
            (Some(quota), None) => {
                let usage = self.usage(path, max)?;
                self.check_nesting(path)?;
                Some(Metered { quota, usage })
            }
        };
        let before = self.meter(path.shared(), metered);
        let change = Change {
            zxid: at.zxid,
            kind: None,
            path: path.clone(),
            before: None,
            after: None,
            listing: Listing::default(),
            children: 0,
            parent: Parent::default(),
            metered: before.map(Box::new),
            hash: 0,
        };
        let hash = digest::of_path(path.as_str());
        Ok(Some(change.hashed(hash, [0, 0])))
    }

    /// Puts a quota in the place of the one before, which it gives.
    pub(super) fn meter(&mut self, path: &Arc<str>, metered: Option<Metered>) -> Option<Metered> {
        let before = match metered {
            Some(metered) => {
                self.sum.add(digest::of_quota(path, &metered));
                self.quotas.insert(Arc::clone(path), metered)
            }
            None => self.quotas.remove(path),
        };
        if let Some(before) = before {
            self.sum.remove(digest::of_quota(path, &before));
        }
        before
    }

    /// The quota of a node, if it has one.
    pub(super) fn metered(&self, path: &str) -> Option<&Metered> {
        self.quotas.get(path)
    }

    /// Refuses what would add so much to the node or below it, if a hard bound would be passed. How
    /// much there is, is only for those who may read the node with the quota.
    pub(super) fn check_quotas(
        &self,
        path: &str,
        added: Usage,
        who: &Identities,
    ) -> Result<(), OpError> {
        for above in self.metered_above(path) {
            let Some(Metered { quota, usage }) = self.quotas.get(above) else {
                continue;
            };
            for (limit, max, used, more) in [
                (LimitName::QuotaNodes, quota.nodes_hard, usage.nodes, added.nodes),
                (LimitName::QuotaBytes, quota.bytes_hard, usage.bytes, added.bytes),
            ] {
                let value = used + more;
                if let Some(max) = max.filter(|&max| more > 0 && value > max) {
                    let shown = self.get(above).and_then(|znode| znode.shown(value, who));
                    let value = shown.unwrap_or(max.saturating_add(1));
                    let path = Path::from_shared_checked(Arc::from(above));
                    return Err(OpError::Quota { path, limit, value, max });
                }
            }
        }
        Ok(())
    }

    /// Counts what came to the node or below it, and what went.
    pub(super) fn count(&mut self, path: &str, came: Usage, went: Usage) {
        if self.quotas.is_empty() {
            return;
        }
        let above: Vec<&str> = self.metered_above(path).collect();
        for above in above {
            if let Some(metered) = self.quotas.get_mut(above) {
                self.sum.remove(digest::of_quota(above, metered));
                let usage = &mut metered.usage;
                // Nothing goes that did not come, unless a snapshot tells so of the past.
                usage.nodes = usage.nodes.saturating_add(came.nodes).saturating_sub(went.nodes);
                usage.bytes = usage.bytes.saturating_add(came.bytes).saturating_sub(went.bytes);
                self.sum.add(digest::of_quota(above, metered));
            }
        }
    }

    /// The paths at and above `path` that have a quota, deepest first.
    ///
    /// Levels where no quota is near are jumped over: a path may have 2,048 of them.
    fn metered_above<'a>(&self, path: &'a str) -> impl Iterator<Item = &'a str> {
        let mut next = Some(path);
        iter::from_fn(move || {
            while let Some(at) = next {
                #[cfg(test)]
                tests::LOOKS.set(tests::LOOKS.get() + 1);
                // All that lie above it come before it.
                let (nearest, _) = self.quotas.get_prev(at)?;
                if **nearest == *at || **nearest == *"/" || super::tree::is_below(at, nearest) {
                    let found = &path[..nearest.len()];
                    next = parent(found);
                    return Some(found);
                }
                next = Some(common(at, nearest));
            }
            None
        })
    }

    /// Each write counts in every quota above it, so there are few above each other.
    fn check_nesting(&self, path: &Path) -> Result<(), OpError> {
        let above = |path: &str| self.metered_above(path).count();
        let start = (Bound::Excluded(path.as_str()), Bound::Unbounded);
        let keys = self.quotas.range::<_, str>(start).map(|(key, _)| &**key);
        let near = keys.take_while(|key| key.starts_with(path.as_str()));
        let below = near.filter(|key| path.is_root() || super::tree::is_below(key, path.as_str()));
        let deepest = below.map(above).max().unwrap_or_else(|| above(path.as_str()));
        let (value, max) = (deepest as u64 + 1, QUOTAS_NESTED_MAX);
        if value > max {
            return Err(OpError::Limit { limit: LimitName::NestedQuotas, value, max });
        }
        Ok(())
    }

    fn usage(&self, path: &Path, max: u64) -> Result<Usage, OpError> {
        let mut usage = Usage::default();
        let top = self.existing(path)?;
        let (mut walk, mut next) = (Walk::below(path.shared(), top), Some(top));
        while let Some(znode) = next {
            usage.nodes += 1;
            usage.bytes += znode.data().len() as u64;
            if usage.nodes > max {
                let (limit, value) = (LimitName::SubtreeNodes, usage.nodes);
                return Err(OpError::Limit { limit, value, max });
            }
            next = walk.next(self).map(|(_, znode)| znode);
        }
        Ok(usage)
    }
}

/// The lowest path at or above `path` whose text begins the other's, too.
fn common<'a>(path: &'a str, other: &str) -> &'a str {
    let (path_bytes, other) = (path.as_bytes(), other.as_bytes());
    let same = path_bytes.iter().zip(other).take_while(|(one, two)| one == two).count();
    let end = match path_bytes.get(same) {
        Some(b'/') | None => same,
        Some(_) => path_bytes[..same].iter().rposition(|&byte| byte == b'/').unwrap_or(0),
    };
    &path[..end.max(1)]
}

/// Quotas above each other.
pub(super) const QUOTAS_NESTED_MAX: u64 = 8;

/// One node with so many bytes of data.
pub(super) fn node(bytes: usize) -> Usage {
    Usage { nodes: 1, bytes: bytes as u64 }
}

/// So many bytes of data.
pub(super) fn data(bytes: usize) -> Usage {
    Usage { nodes: 0, bytes: bytes as u64 }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// How often a quota was looked for.
        pub(in crate::namespace) static LOOKS: Cell<u64> = const { Cell::new(0) };
    }

    /// Whatever the names, and wherever quotas are: as if every level were looked at.
    #[test]
    fn every_quota_above_a_path_is_found() {
        let names = ["a", "a-", "a b", "b", "a\u{e9}", "a\u{ea}"];
        let mut paths = vec!["/".to_string()];
        for depth in 0..3 {
            let level: Vec<_> = paths
                .iter()
                .filter(|it| it.matches('/').count() == depth.max(1))
                .cloned()
                .collect();
            let level = level.iter().filter(|it| (depth == 0) == (*it == "/"));
            let below =
                |top: &String| names.map(|it| format!("{}/{it}", top.trim_end_matches('/')));
            let next: Vec<_> = level.flat_map(below).collect();
            paths.extend(next);
        }
        assert_eq!(paths.len(), 1 + 6 + 36 + 216);
        let mut draw = 1u64;
        for round in 0..200 {
            let mut tree = Tree::new(0);
            for path in &paths {
                draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if draw >> 33 < (1 << 31) / (2 + round % 40) {
                    let metered = Metered { quota: Quota::default(), usage: Usage::default() };
                    tree.meter(&Arc::from(path.as_str()), Some(metered));
                }
            }
            for path in &paths {
                let all = iter::successors(Some(path.as_str()), |path| parent(path));
                let all: Vec<_> = all.filter(|path| tree.quotas.contains_key(*path)).collect();
                assert_eq!(tree.metered_above(path).collect::<Vec<_>>(), all, "{path}");
            }
        }
    }
}
