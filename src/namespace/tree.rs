//! The tree of znodes.
//!
//! A persistent hash map from full path to node, and in each node the ordered set of its
//! children's paths, which share their text with the map's keys. The map
//! is never iterated: whoever walks the tree goes from a node to its children, in byte order.
//!
//! Invariants:
//! - `due` has one entry for each node with a [`Znode::deadline`], and no other.
//! - The root exists. Every other node's parent exists, is not ephemeral, and lists it.
//! - An operation that fails has changed nothing.

use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::FixedState;
use imbl::{GenericHashMap, OrdMap, OrdSet, shared_ptr::DefaultSharedPtr};

use crate::{
    id::{LeaseId, Zxid},
    mutant::Mutant,
    namespace::{
        access::special_of,
        digest::{self, Sum},
        history::{Change, Parent},
        numbering::Numbering,
        quota::{self, Metered},
        walk::Walk,
        weight::Weight,
        znode::{Listing, Stamp, Value, Znode, own},
    },
    op::{Acl, EventKind, Identities, Lifetime, LimitName, OpError, Outcome, Rights, Usage},
    path::{Path, PathPrefix},
};

/// All znodes; a clone is O(1).
#[derive(Clone)]
pub(super) struct Tree {
    nodes: GenericHashMap<Arc<str>, Arc<Znode>, FixedState, DefaultSharedPtr>,
    /// The nodes that the cluster is to remove, by the moment from which on it may.
    due: OrdSet<(u64, Arc<str>)>,
    /// How long a container lives after its last child has gone.
    grace_us: u64,
    /// By the path of the topmost node.
    pub(super) quotas: OrdMap<Arc<str>, Metered>,
    /// Of every node, and every quota.
    pub(super) sum: Sum,
    /// Of every node.
    pub(super) weight: Weight,
}

impl Tree {
    /// The root alone.
    pub(super) fn new(grace_us: u64) -> Self {
        let mut tree = Self::empty(grace_us);
        let value = Arc::new(Value { data: Some(Bytes::new()), ..Value::default() });
        tree.place(Arc::from("/"), Znode { value, ..Znode::default() });
        tree
    }

    /// No node at all: the start of a decoder, which ends with a root or not at all.
    pub(super) fn empty(grace_us: u64) -> Self {
        let nodes = GenericHashMap::with_hasher(FixedState::default());
        let (due, quotas, sum) = (OrdSet::new(), OrdMap::new(), Sum::default());
        Self { nodes, due, grace_us, quotas, sum, weight: Weight::default() }
    }

    /// Puts a node that its parent lists, or that is the root; gives the hash of its path.
    pub(super) fn place(&mut self, path: Arc<str>, znode: Znode) -> u64 {
        if let Some(deadline_us) = znode.deadline(self.grace_us) {
            self.due.insert((deadline_us, Arc::clone(&path)));
        }
        let hash = digest::of_path(&path);
        self.sum.add(digest::of_znode(hash, &znode));
        self.sum.add(digest::of_data(hash, znode.data.as_deref()));
        self.weight.change(&path, Some(&znode.value), None);
        self.nodes.insert(path, Arc::new(znode));
        hash
    }

    /// Makes a node below an existing parent, and lists it there.
    pub(super) fn create(
        &mut self,
        new: &New<'_>,
        who: &Identities,
        at: Stamp,
    ) -> Result<(Outcome, Change), OpError> {
        let prefix = new.prefix;
        let parent_path = prefix.parent_str();
        if new.numbering.is_none() && prefix.as_str() == "/" {
            return Err(OpError::Root);
        }
        let parent =
            self.get(parent_path).ok_or_else(|| OpError::NoNode { path: checked(parent_path) })?;
        parent.require(parent_path, who, Rights::CREATE)?;
        if parent.owner.is_some() {
            return Err(OpError::NoChildrenForEphemerals { path: checked(parent_path) });
        }
        let (path, next_sequence) = self.named(prefix, new.numbering, parent)?;
        if self.nodes.contains_key(path.as_str()) {
            return Err(OpError::NodeExists { path });
        }
        let special = special_of(parent, new.acl, new.lifetime, (&path, who), at)?;
        let usage = quota::node(new.data.map_or(0, <[u8]>::len));
        self.check_quotas(parent_path, usage, who)?;
        let value = Arc::new(Value {
            data: new.data.map(own),
            czxid: if Mutant::TokenReused.active() { parent.czxid } else { at.zxid },
            mzxid: at.zxid,
            ctime_ms: at.wall_ms,
            mtime_ms: at.wall_ms,
            version: 0,
            owner: new.owner,
            special,
        });
        let change = Change {
            zxid: at.zxid,
            kind: Some(EventKind::Created),
            path: path.clone(),
            before: None,
            after: Some(Arc::clone(&value)),
            listing: Listing { pzxid: at.zxid, ..Listing::default() },
            children: 0,
            parent: parent.as_parent(),
            metered: None,
            hash: 0,
        };
        let znode = Znode { value, listing: change.listing, children: OrdSet::new() };
        let stat = znode.stat();
        let hash = self.place(Arc::clone(path.shared()), znode);
        self.count(parent_path, usage, Usage::default());
        self.change(parent_path, |parent| {
            parent.listing.next_sequence = next_sequence;
            parent.children.insert(Arc::clone(path.shared()));
            parent.children_changed(at);
        });
        Ok((Outcome::Created { path, stat }, change.hashed(hash, [0, 0])))
    }

    /// Replaces a node's data.
    pub(super) fn set(
        &mut self,
        path: Path,
        data: Option<&[u8]>,
        version: Option<u64>,
        who: &Identities,
        at: Stamp,
    ) -> Result<(Outcome, Change), OpError> {
        // All that is there is read before anything is taken for a change: a processor reads ahead,
        // but waits at each step of a way that it takes.
        let znode = self.existing(&path)?;
        znode.require(path.as_str(), who, Rights::WRITE)?;
        znode.check_version(&path, version, who)?;
        let bytes = data.map_or(0, <[u8]>::len);
        let more = bytes.saturating_sub(znode.data().len());
        self.check_quotas(path.as_str(), quota::data(more), who)?;
        let hash = digest::of_path(path.as_str());
        let data_hash = digest::of_data(hash, znode.data.as_deref());
        let changed = self.change_hashed(path.as_str(), hash, |znode| {
            let before = znode.replace(data.map(own), at);
            (znode.stat(), before, Arc::clone(&znode.value), znode.listing)
        });
        let Some(((stat, before, after, listing), znode_hash)) = changed else {
            return Err(OpError::NoNode { path });
        };
        self.count(path.as_str(), quota::data(bytes), quota::data(before.data().len()));
        self.weight.change(path.as_str(), Some(&after), Some(&before));
        self.sum.remove(data_hash);
        self.sum.add(digest::of_data(hash, data));
        let change = Change {
            zxid: at.zxid,
            kind: Some(EventKind::DataChanged),
            path,
            before: Some(before),
            after: Some(after),
            listing,
            children: stat.children,
            parent: Parent::default(),
            metered: None,
            hash: 0,
        };
        Ok((Outcome::Set { stat }, change.hashed(hash, [znode_hash, data_hash])))
    }

    /// Removes a node without children, and its parent's mention of it.
    pub(super) fn delete(
        &mut self,
        path: &Path,
        version: Option<u64>,
        who: &Identities,
        at: Stamp,
    ) -> Result<(Outcome, Change), OpError> {
        if path.is_root() {
            return Err(OpError::Root);
        }
        let znode = self.existing(path)?;
        self.require_delete(path.as_str(), who)?;
        znode.check_version(path, version, who)?;
        if !znode.children.is_empty() {
            let children = znode.shown(znode.children.len() as u64, who);
            return Err(OpError::NotEmpty { path: path.clone(), children });
        }
        Ok((Outcome::Deleted, self.remove_leaf(Arc::clone(path.shared()), at)))
    }

    /// Removes a node and all below it, at most `max` nodes; each after those below it.
    pub(super) fn delete_tree(
        &mut self,
        path: &Path,
        max: u64,
        who: &Identities,
        at: Stamp,
    ) -> Result<Vec<Change>, OpError> {
        if path.is_root() {
            return Err(OpError::Root);
        }
        let top = self.existing(path)?;
        self.require_delete(path.as_str(), who)?;
        if max == 0 {
            return Err(OpError::Limit { limit: LimitName::SubtreeNodes, value: 1, max });
        }
        let mut paths = vec![Arc::clone(path.shared())];
        let mut walk = Walk::below(path.shared(), top);
        while let Some((next, _)) = walk.next(self) {
            self.require_delete_below(path, &next, who)?;
            if paths.len() as u64 >= max {
                let value = max.saturating_add(1);
                return Err(OpError::Limit { limit: LimitName::SubtreeNodes, value, max });
            }
            paths.push(next);
        }
        // Above what is deleted, only the topmost node's parent changes, and what quotas count.
        let mut went = Usage::default();
        let removed = |path: Arc<str>| {
            let above = parent(&path).and_then(|parent| self.get(parent));
            let above = above.map(Znode::as_parent).unwrap_or_default();
            let change = self.take_out(path, above, at);
            went.nodes += 1;
            went.bytes += change.before.as_ref().map_or(0, |value| value.data().len() as u64);
            change
        };
        let changes = paths.into_iter().rev().map(removed).collect();
        self.count(path.as_str(), Usage::default(), went);
        self.unlist(path.as_str(), at);
        Ok(changes)
    }

    /// Removes a node that has no children, whoever owns it.
    pub(super) fn remove_leaf(&mut self, path: Arc<str>, at: Stamp) -> Change {
        let above = self.unlist(&path, at);
        let change = self.take_out(path, above, at);
        let bytes = change.before.as_ref().map_or(0, |value| value.data().len());
        self.count(change.path.as_str(), Usage::default(), quota::node(bytes));
        change
    }

    /// The nodes that may be removed at `clock_us`, those that waited longest first.
    pub(super) fn due(&self, clock_us: u64) -> impl Iterator<Item = &Arc<str>> {
        self.due
            .iter()
            .take_while(move |(deadline_us, _)| *deadline_us <= clock_us)
            .map(|(_, path)| path)
    }

    /// Whether any node waits to be removed.
    pub(super) fn has_deadlines(&self) -> bool {
        !self.due.is_empty()
    }

    /// Whether this very node may be removed at `clock_us`.
    pub(super) fn is_due(&self, path: &Path, czxid: Zxid, clock_us: u64) -> bool {
        self.get(path.as_str()).is_some_and(|znode| {
            znode.czxid == czxid
                && znode.deadline(self.grace_us).is_some_and(|deadline| deadline <= clock_us)
        })
    }

    /// The node at `path`.
    pub(super) fn get(&self, path: &str) -> Option<&Znode> {
        self.nodes.get(path).map(|znode| &**znode)
    }

    /// How many nodes there are, the root included.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Changes a node, and keeps the list of deadlines.
    pub(super) fn change<T>(
        &mut self,
        path: &str,
        change: impl FnOnce(&mut Znode) -> T,
    ) -> Option<T> {
        self.change_hashed(path, digest::of_path(path), change).map(|(result, _)| result)
    }

    /// As [`change`](Self::change), given the hash of the path; also gives the node's hash before.
    pub(super) fn change_hashed<T>(
        &mut self,
        path: &str,
        hash: u64,
        change: impl FnOnce(&mut Znode) -> T,
    ) -> Option<(T, u64)> {
        let znode = Arc::make_mut(self.nodes.get_mut(path)?);
        let hash_before = digest::of_znode(hash, znode);
        self.sum.remove(hash_before);
        if znode.lifetime() == Lifetime::Unlimited {
            let result = change(znode);
            self.sum.add(digest::of_znode(hash, znode));
            return Some((result, hash_before));
        }
        let before = znode.deadline(self.grace_us);
        let result = change(znode);
        self.sum.add(digest::of_znode(hash, znode));
        let after = znode.deadline(self.grace_us);
        if before != after {
            let path: Arc<str> = Arc::from(path);
            if let Some(before) = before {
                self.due.remove(&(before, Arc::clone(&path)));
            }
            if let Some(after) = after {
                self.due.insert((after, path));
            }
        }
        Some((result, hash_before))
    }

    /// What takes back no change: to be [put back](Self::put_back) after them; O(1).
    pub(super) fn indexes(&self) -> Indexes {
        Indexes { due: self.due.clone(), quotas: self.quotas.clone(), sum: self.sum }
    }

    /// As it was, once the changes since were [taken back](Self::undo).
    pub(super) fn put_back(&mut self, Indexes { due, quotas, sum }: Indexes) {
        (self.due, self.quotas, self.sum) = (due, quotas, sum);
    }

    /// Takes back the last change, in a tree that is only looked at: what is kept up for those that
    /// go on, deadlines and the sum, stays as it is.
    pub(super) fn undo(&mut self, change: &Change) {
        let path = change.path.shared();
        let bytes = |value: &Option<Arc<Value>>| value.as_ref().map_or(0, |it| it.data().len());
        let (before, after) = (bytes(&change.before), bytes(&change.after));
        self.weight.change(path, change.before.as_deref(), change.after.as_deref());
        match (change.kind, &change.before) {
            (Some(EventKind::Created), _) => {
                self.nodes.remove(&**path);
                self.count(path, Usage::default(), quota::node(after));
                if let Some(above) = self.restore_parent(change) {
                    above.children.remove(path);
                }
            }
            (Some(EventKind::Deleted), Some(value)) => {
                let value = Arc::clone(value);
                let znode = Znode { value, listing: change.listing, children: OrdSet::new() };
                self.nodes.insert(Arc::clone(path), Arc::new(znode));
                self.count(path, quota::node(before), Usage::default());
                if let Some(above) = self.restore_parent(change) {
                    above.children.insert(Arc::clone(path));
                }
                self.restore_quota(change);
            }
            (Some(_), Some(value)) => {
                if let Some(znode) = self.nodes.get_mut(&**path) {
                    Arc::make_mut(znode).value = Arc::clone(value);
                }
                self.count(path, quota::data(before), quota::data(after));
            }
            _ => self.restore_quota(change),
        }
    }

    /// The parent, as it was before but for the list of its children.
    fn restore_parent(&mut self, change: &Change) -> Option<&mut Znode> {
        let above = Arc::make_mut(self.nodes.get_mut(change.path.parent_str()?)?);
        above.listing = change.parent.listing;
        if above.since_us() != change.parent.since_us {
            Arc::make_mut(&mut above.value).count_from(change.parent.since_us);
        }
        Some(above)
    }

    fn restore_quota(&mut self, change: &Change) {
        self.meter(change.path.shared(), change.metered.as_deref().copied());
    }

    /// Changes when the root's data was set as a broken memory would.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn corrupt_time(&mut self) {
        self.change("/", |root| Arc::make_mut(&mut root.value).mtime_ms ^= 1);
    }

    /// Changes data as a broken memory would.
    #[cfg(test)]
    pub(super) fn corrupt(&mut self, path: &str, data: Bytes) {
        let znode = Arc::make_mut(self.nodes.get_mut(path).expect("it is there"));
        Arc::make_mut(&mut znode.value).data = Some(data);
    }

    /// Takes a node out whose children are gone, as far as itself goes; its parent, which was like
    /// this before, still lists it or does no more. Quotas above it still count it.
    fn take_out(&mut self, path: Arc<str>, above: Parent, at: Stamp) -> Change {
        let znode = self.nodes.remove(&*path).unwrap_or_default();
        if let Some(deadline_us) = znode.deadline(self.grace_us) {
            self.due.remove(&(deadline_us, Arc::clone(&path)));
        }
        let hash = digest::of_path(&path);
        let data_hash = digest::of_data(hash, znode.data.as_deref());
        let hashes = [digest::of_znode(hash, &znode), data_hash];
        hashes.into_iter().for_each(|hash| self.sum.remove(hash));
        self.weight.change(&path, None, Some(&znode.value));
        let metered = self.meter(&path, None);
        // What was below it has gone before it.
        let metered =
            metered.map(|it| Metered { usage: quota::node(znode.data().len()), quota: it.quota });
        let change = Change {
            zxid: at.zxid,
            kind: Some(EventKind::Deleted),
            path: Path::from_shared_checked(path),
            listing: znode.listing,
            children: znode.children.len() as u64,
            before: Some(Arc::clone(&znode.value)),
            after: None,
            parent: above,
            metered: metered.map(Box::new),
            hash: 0,
        };
        change.hashed(hash, hashes)
    }

    /// Takes a node off its parent's list; gives what the parent was before.
    fn unlist(&mut self, path: &str, at: Stamp) -> Parent {
        let Some(parent) = parent(path) else {
            return Parent::default();
        };
        let unlisted = self.change(parent, |parent| {
            let before = parent.as_parent();
            parent.children.remove(path);
            parent.children_changed(at);
            if parent.children.is_empty() && parent.lifetime() == Lifetime::Container {
                Arc::make_mut(&mut parent.value).count_from(at.clock_us);
            }
            before
        });
        unlisted.unwrap_or_default()
    }

    /// How many nodes lie below a node, at most `max`, and whether there are more.
    pub(super) fn descendants(&self, path: &Path, max: u64) -> Option<(u64, bool)> {
        let mut walk = Walk::below(path.shared(), self.get(path.as_str())?);
        let mut count = 0;
        while walk.next(self).is_some() {
            if count == max {
                return Some((count, true));
            }
            count += 1;
        }
        Some((count, false))
    }
}

/// What a tree keeps up beside its nodes.
pub(super) struct Indexes {
    due: OrdSet<(u64, Arc<str>)>,
    quotas: OrdMap<Arc<str>, Metered>,
    sum: Sum,
}

/// A node to be made.
pub(super) struct New<'a> {
    pub(super) prefix: &'a PathPrefix,
    /// How the number behind the prefix is chosen; none if the prefix is the path.
    pub(super) numbering: Option<Numbering>,
    /// None if it is null.
    pub(super) data: Option<&'a [u8]>,
    pub(super) owner: Option<LeaseId>,
    pub(super) lifetime: Lifetime,
    /// Without it, the parent's.
    pub(super) acl: Option<&'a Acl>,
}

/// The text of the path above, or `None` for the root.
pub(super) fn parent(path: &str) -> Option<&str> {
    match path.rfind('/') {
        _ if path.len() == 1 => None,
        Some(0) | None => Some("/"),
        Some(at) => Some(&path[..at]),
    }
}

/// Whether `path` lies below `top`, which is not the root.
pub(super) fn is_below(path: &str, top: &str) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.starts_with('/'))
}

/// The parent of a checked path is a path.
fn checked(parent: &str) -> Path {
    Path::from_shared_checked(Arc::from(parent))
}
