//! The watches of many connections, with ZooKeeper's rules (`WatchManager`, `DataTree`).
//!
//! Watches of data and of existence are one kind, and fire once; those of children, too. Watches
//! that stay tell of data and children of one node; recursive ones of data below it, and of no list
//! of children. Whoever has several that one change fires is told once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use foldhash::fast::FixedState;

use crate::{
    op::{Event, EventKind},
    path::Path,
    zookeeper::code::{EventType, WatcherType},
};

/// The watches of all connections of one listener. Connections are numbers.
#[derive(Debug, Default)]
pub struct Watches {
    data: HashMap<Path, BTreeSet<u64>, FixedState>,
    children: HashMap<Path, BTreeSet<u64>, FixedState>,
    persistent: HashMap<Path, BTreeSet<u64>, FixedState>,
    recursive: HashMap<Path, BTreeSet<u64>, FixedState>,
    /// The same, by connection.
    of: HashMap<u64, BTreeSet<(Kind, Path)>, FixedState>,
    count: usize,
}

/// What kind of watch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub(super) enum Kind {
    Data,
    Children,
    Persistent,
    Recursive,
}

impl Watches {
    /// Arms a watch; one that is armed already stays one.
    pub(super) fn add(&mut self, connection: u64, kind: Kind, path: Path) {
        if self.of.entry(connection).or_default().insert((kind, path.clone())) {
            self.index(kind).entry(path).or_default().insert(connection);
            self.count += 1;
        }
    }

    /// Ends a connection's watches of a node; returns whether there were any.
    pub(super) fn remove(&mut self, connection: u64, meant: WatcherType, path: &Path) -> bool {
        let mut removed = false;
        for kind in meant_by(meant) {
            removed |= self.remove_one(connection, *kind, path);
        }
        removed
    }

    /// Whether a connection has such a watch of a node.
    pub(super) fn has(&self, connection: u64, meant: WatcherType, path: &Path) -> bool {
        let its = self.of.get(&connection);
        let has = |kind: &Kind| its.is_some_and(|its| its.contains(&(*kind, path.clone())));
        meant_by(meant).iter().any(has)
    }

    /// A connection is gone, and its watches with it.
    pub fn leave(&mut self, connection: u64) {
        for (kind, path) in self.of.remove(&connection).unwrap_or_default() {
            self.count -= 1;
            unlist(self.index(kind), &path, connection);
        }
    }

    /// A change fires watches: says whom to tell what, in ZooKeeper's order. Each is to be handed
    /// to [`Connection::event`](super::Connection::event).
    pub fn fire(&mut self, event: &Event, mut tell: impl FnMut(u64, EventType, &Path)) {
        if self.count == 0 {
            return;
        }
        let (path, kind) = (&event.path, event.kind);
        let own = match kind {
            EventKind::Created => EventType::NodeCreated,
            EventKind::DataChanged => EventType::NodeDataChanged,
            EventKind::Deleted => EventType::NodeDeleted,
            EventKind::AclChanged => return,
        };
        let mut told = self.take(Kind::Data, path);
        told.extend(self.persistent.get(path).into_iter().flatten());
        if !self.recursive.is_empty() {
            let mut above = Some(path.clone());
            while let Some(at) = above {
                told.extend(self.recursive.get(&at).into_iter().flatten());
                above = at.parent();
            }
        }
        if kind == EventKind::Deleted {
            told.extend(self.take(Kind::Children, path));
        }
        told.iter().for_each(|&connection| tell(connection, own, path));
        if kind == EventKind::DataChanged {
            return;
        }
        let listed = !(self.children.is_empty() && self.persistent.is_empty());
        if let Some(parent) = path.parent().filter(|_| listed) {
            let mut told = self.take(Kind::Children, &parent);
            told.extend(self.persistent.get(&parent).into_iter().flatten());
            let changed = EventType::NodeChildrenChanged;
            told.iter().for_each(|&connection| tell(connection, changed, &parent));
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The paths that each connection watches.
    pub fn by_connection(&self) -> BTreeMap<u64, BTreeSet<&Path>> {
        let its = self.of.iter().filter(|(_, its)| !its.is_empty());
        its.map(|(&id, its)| (id, its.iter().map(|(_, path)| path).collect())).collect()
    }

    /// Takes out those of a node that fire once.
    fn take(&mut self, kind: Kind, path: &Path) -> BTreeSet<u64> {
        let taken = self.index(kind).remove(path).unwrap_or_default();
        for connection in &taken {
            if let Some(its) = self.of.get_mut(connection) {
                its.remove(&(kind, path.clone()));
                self.count -= 1;
            }
        }
        taken
    }

    fn remove_one(&mut self, connection: u64, kind: Kind, path: &Path) -> bool {
        let its = self.of.get_mut(&connection);
        let removed = its.is_some_and(|its| its.remove(&(kind, path.clone())));
        if removed {
            self.count -= 1;
            unlist(self.index(kind), path, connection);
        }
        removed
    }

    fn index(&mut self, kind: Kind) -> &mut HashMap<Path, BTreeSet<u64>, FixedState> {
        match kind {
            Kind::Data => &mut self.data,
            Kind::Children => &mut self.children,
            Kind::Persistent => &mut self.persistent,
            Kind::Recursive => &mut self.recursive,
        }
    }
}

fn unlist(index: &mut HashMap<Path, BTreeSet<u64>, FixedState>, path: &Path, connection: u64) {
    if let Some(connections) = index.get_mut(path) {
        connections.remove(&connection);
        if connections.is_empty() {
            index.remove(path);
        }
    }
}

fn meant_by(meant: WatcherType) -> &'static [Kind] {
    match meant {
        WatcherType::Children => &[Kind::Children],
        WatcherType::Data => &[Kind::Data],
        WatcherType::Persistent => &[Kind::Persistent],
        WatcherType::PersistentRecursive => &[Kind::Recursive],
        WatcherType::Any => &[Kind::Data, Kind::Children, Kind::Persistent, Kind::Recursive],
    }
}
