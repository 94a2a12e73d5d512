//! The tree of znodes.
//!
//! A persistent hash map from full path to node, and in each node the ordered set of its
//! children's paths, which share their text with the map's keys. The map
//! is never iterated: whoever walks the tree goes from a node to its children, in byte order.
//!
//! Invariants:
//! - The root exists. Every other node's parent exists, is not ephemeral, and lists it.
//! - An operation that fails has changed nothing.

use std::{ops::Bound, sync::Arc};

use bytes::Bytes;
use foldhash::fast::FixedState;
use imbl::{GenericHashMap, OrdSet, shared_ptr::DefaultSharedPtr};

use crate::{
    id::{SessionId, Zxid},
    namespace::limit,
    op::{Event, EventKind, LimitName, OpError, Outcome, Stat},
    path::{Path, PathPrefix},
};

/// All znodes; a clone is O(1).
#[derive(Clone)]
pub(super) struct Tree {
    nodes: GenericHashMap<Arc<str>, Arc<Znode>, FixedState, DefaultSharedPtr>,
}

impl Tree {
    /// The root alone.
    pub(super) fn new() -> Self {
        let mut tree = Self::empty();
        tree.place(Arc::from("/"), Znode::default());
        tree
    }

    /// No node at all: the start of a decoder, which ends with a root or not at all.
    pub(super) fn empty() -> Self {
        Self { nodes: GenericHashMap::with_hasher(FixedState::default()) }
    }

    /// Puts a node that its parent lists, or that is the root.
    pub(super) fn place(&mut self, path: Arc<str>, znode: Znode) {
        self.nodes.insert(path, Arc::new(znode));
    }

    /// Makes a node below an existing parent, and lists it there.
    pub(super) fn create(
        &mut self,
        prefix: &PathPrefix,
        sequential: bool,
        data: &[u8],
        owner: Option<SessionId>,
        at: Stamp,
    ) -> Result<Change, OpError> {
        let parent_path = prefix.parent_str();
        if !sequential && prefix.as_str() == "/" {
            return Err(OpError::Root);
        }
        let parent =
            self.get(parent_path).ok_or_else(|| OpError::NoNode { path: checked(parent_path) })?;
        if parent.owner.is_some() {
            return Err(OpError::NoChildrenForEphemerals { path: checked(parent_path) });
        }
        let (path, next_sequence) = if sequential {
            self.next_in_sequence(prefix, parent.next_sequence)?
        } else {
            // The codec refuses a prefix that is no path by itself.
            let path = Path::new(prefix.as_str())
                .map_err(|_| OpError::NoNode { path: checked(parent_path) })?;
            (path, parent.next_sequence)
        };
        if self.nodes.contains_key(path.as_str()) {
            return Err(OpError::NodeExists { path });
        }
        let znode = Znode {
            data: own(data),
            czxid: at.zxid,
            mzxid: at.zxid,
            pzxid: at.zxid,
            ctime_ms: at.wall_ms,
            mtime_ms: at.wall_ms,
            owner,
            ..Znode::default()
        };
        let stat = znode.stat();
        self.place(Arc::clone(path.shared()), znode);
        let parent = self.get_mut(parent_path).expect("the parent was found");
        parent.next_sequence = next_sequence;
        parent.children.insert(Arc::clone(path.shared()));
        parent.children_changed(at);
        Ok(Change {
            outcome: Outcome::Created { path: path.clone(), stat },
            event: Event { zxid: at.zxid, kind: EventKind::Created, path, czxid: at.zxid },
            owner,
        })
    }

    /// Replaces a node's data.
    pub(super) fn set(
        &mut self,
        path: Path,
        data: &[u8],
        version: Option<u64>,
        at: Stamp,
    ) -> Result<Change, OpError> {
        if let Some(version) = version {
            self.check_version(&path, version)?;
        }
        let Some(znode) = self.get_mut(path.as_str()) else {
            return Err(OpError::NoNode { path });
        };
        znode.data = own(data);
        znode.version += 1;
        znode.mzxid = at.zxid;
        znode.mtime_ms = at.wall_ms;
        Ok(Change {
            outcome: Outcome::Set { stat: znode.stat() },
            event: Event { zxid: at.zxid, kind: EventKind::DataChanged, path, czxid: znode.czxid },
            owner: None,
        })
    }

    /// Removes a node without children, and its parent's mention of it.
    pub(super) fn delete(
        &mut self,
        path: Path,
        version: Option<u64>,
        at: Stamp,
    ) -> Result<Change, OpError> {
        if path.is_root() {
            return Err(OpError::Root);
        }
        if let Some(version) = version {
            self.check_version(&path, version)?;
        }
        let Some(znode) = self.get(path.as_str()) else {
            return Err(OpError::NoNode { path });
        };
        if !znode.children.is_empty() {
            let children = znode.children.len() as u64;
            return Err(OpError::NotEmpty { path, children });
        }
        let (czxid, owner) = (znode.czxid, znode.owner);
        self.unlink(path.as_str(), at);
        Ok(Change {
            outcome: Outcome::Deleted,
            event: Event { zxid: at.zxid, kind: EventKind::Deleted, path, czxid },
            owner,
        })
    }

    /// Removes an ephemeral node whose session ends.
    pub(super) fn remove_owned(&mut self, path: Arc<str>, at: Stamp) -> Event {
        let czxid = self.get(&path).map_or(Zxid::ZERO, |znode| znode.czxid);
        self.unlink(&path, at);
        Event {
            zxid: at.zxid,
            kind: EventKind::Deleted,
            path: Path::from_shared_checked(path),
            czxid,
        }
    }

    /// The node at `path`.
    pub(super) fn get(&self, path: &str) -> Option<&Znode> {
        self.nodes.get(path).map(|znode| &**znode)
    }

    /// How many nodes there are, the root included.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The node that follows `path` depth-first, children in byte order.
    pub(super) fn next_depth_first(&self, path: &str) -> Option<(&Arc<str>, &Znode)> {
        let mut next = self.get(path)?.children.get_min();
        let mut below = path;
        while next.is_none() {
            let parent = parent(below)?;
            next = self.get(parent)?.children_after(below).next();
            below = parent;
        }
        let next = next?;
        Some((next, self.get(next)?))
    }

    fn get_mut(&mut self, path: &str) -> Option<&mut Znode> {
        self.nodes.get_mut(path).map(Arc::make_mut)
    }

    fn check_version(&self, path: &Path, expected: u64) -> Result<(), OpError> {
        let Some(znode) = self.get(path.as_str()) else {
            return Err(OpError::NoNode { path: path.clone() });
        };
        if znode.version != expected {
            return Err(OpError::BadVersion {
                path: path.clone(),
                expected,
                actual: znode.version,
            });
        }
        Ok(())
    }

    /// The next free name, and the parent's counter after it.
    ///
    /// The counter only grows, so no number comes twice. A number that somebody took by name is
    /// skipped, for else it would be in the way for ever.
    fn next_in_sequence(
        &self,
        prefix: &PathPrefix,
        mut sequence: u64,
    ) -> Result<(Path, u64), OpError> {
        for _ in 0..SEQUENCE_SKIPS_MAX {
            let path = numbered(prefix, sequence)?;
            sequence += 1;
            if !self.nodes.contains_key(path.as_str()) {
                return Ok((path, sequence));
            }
        }
        Err(OpError::NodeExists { path: numbered(prefix, sequence)? })
    }

    fn unlink(&mut self, path: &str, at: Stamp) {
        self.nodes.remove(path);
        if let Some(parent) = parent(path).and_then(|parent| self.get_mut(parent)) {
            parent.children.remove(path);
            parent.children_changed(at);
        }
    }
}

/// One node; its path is the map's key.
#[derive(Clone, Default)]
pub(super) struct Znode {
    /// An allocation of its own, for a slice would keep a whole log entry alive.
    pub(super) data: Bytes,
    pub(super) czxid: Zxid,
    pub(super) mzxid: Zxid,
    pub(super) pzxid: Zxid,
    pub(super) ctime_ms: u64,
    pub(super) mtime_ms: u64,
    pub(super) version: u64,
    pub(super) cversion: u64,
    /// Invariant: an owner lives, and has this node among its own.
    pub(super) owner: Option<SessionId>,
    /// The number of the next sequential child; never goes back.
    pub(super) next_sequence: u64,
    /// Full paths, shared with the map's keys.
    pub(super) children: OrdSet<Arc<str>>,
}

impl Znode {
    fn children_changed(&mut self, at: Stamp) {
        self.cversion += 1;
        self.pzxid = at.zxid;
    }

    /// What is told of the node.
    pub(super) fn stat(&self) -> Stat {
        Stat {
            czxid: self.czxid,
            mzxid: self.mzxid,
            pzxid: self.pzxid,
            ctime_ms: self.ctime_ms,
            mtime_ms: self.mtime_ms,
            version: self.version,
            cversion: self.cversion,
            // There are no access control lists yet that could change.
            aversion: 0,
            owner: self.owner,
            data_length: self.data.len() as u64,
            children: self.children.len() as u64,
        }
    }

    /// The children whose full path is greater than `path`, in order.
    pub(super) fn children_after(&self, path: &str) -> impl Iterator<Item = &Arc<str>> {
        self.children.range::<_, str>((Bound::Excluded(path), Bound::Unbounded))
    }
}

/// When a transaction happens.
#[derive(Clone, Copy)]
pub(super) struct Stamp {
    pub(super) zxid: Zxid,
    pub(super) wall_ms: u64,
}

/// What an operation did.
pub(super) struct Change {
    pub(super) outcome: Outcome,
    pub(super) event: Event,
    /// The session of an ephemeral node that was made or deleted.
    pub(super) owner: Option<SessionId>,
}

/// The payload in an allocation of its own; none for an empty one.
pub(super) fn own(data: &[u8]) -> Bytes {
    if data.is_empty() {
        return Bytes::new();
    }
    Bytes::copy_from_slice(data)
}

/// The text of the path above, or `None` for the root.
pub(super) fn parent(path: &str) -> Option<&str> {
    match path.rfind('/') {
        _ if path.len() == 1 => None,
        Some(0) | None => Some("/"),
        Some(at) => Some(&path[..at]),
    }
}

fn numbered(prefix: &PathPrefix, sequence: u64) -> Result<Path, OpError> {
    let text = format!("{}{sequence:010}", prefix.as_str());
    // Only its length can be wrong: the codec checked the prefix with a number behind it.
    Path::new(&text).map_err(|_| limit(LimitName::PathBytes, text.len(), Path::BYTES_MAX))
}

/// The parent of a checked path is a path.
fn checked(parent: &str) -> Path {
    Path::from_shared_checked(Arc::from(parent))
}

/// Numbers that are tried before a sequential create gives up.
const SEQUENCE_SKIPS_MAX: usize = 64;
