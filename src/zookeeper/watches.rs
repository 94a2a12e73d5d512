//! The watches of many connections, with ZooKeeper's rules (`WatchManager`, `DataTree`).
//!
//! Watches of data and of existence are one kind, and fire once; those of children, too. Watches
//! that stay tell of data and children of one node; recursive ones of data below it, and of no list
//! of children. Whoever has several that one change fires is told once.

use std::collections::{BTreeSet, HashMap};

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
    /// How many there are in each of ZooKeeper's [`TABLES`].
    in_table: [usize; 2],
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
            self.count += 1;
            self.tally(connection, kind, &path, |count| *count += 1);
            self.index(kind).entry(path).or_default().insert(connection);
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
        let all: Vec<(Kind, Path)> =
            self.of.get(&connection).into_iter().flatten().cloned().collect();
        for (kind, path) in all {
            self.remove_one(connection, kind, &path);
        }
        self.of.remove(&connection);
    }

    /// A change fires watches: says whom to tell what, in ZooKeeper's order. Each is to be handed
    /// to [`Connection::event`](super::Connection::event).
    pub fn fire(&mut self, event: &Event, mut tell: impl FnMut(u64, EventType, &Path)) {
        if self.is_empty() {
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
            told.extend(path.upward().filter_map(|at| self.recursive.get(at)).flatten());
        }
        if kind == EventKind::Deleted {
            told.extend(self.take(Kind::Children, path));
        }
        told.iter().for_each(|&connection| tell(connection, own, path));
        if kind == EventKind::DataChanged {
            return;
        }
        let listed = !(self.children.is_empty() && self.persistent.is_empty());
        if let Some(parent) = listed.then(|| path.parent()).flatten() {
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

    /// How many there are in both of ZooKeeper's tables.
    pub(super) fn len_in_tables(&self) -> usize {
        self.in_table.iter().sum()
    }

    /// Of those of data, with those that stay: connections, paths, and how many.
    pub(super) fn summary(&self) -> (usize, usize, usize) {
        let of_data = |its: &&BTreeSet<(Kind, Path)>| {
            let ends = [its.first(), its.last()];
            ends.into_iter().flatten().any(|(kind, _)| *kind != Kind::Children)
        };
        let connections = self.of.values().filter(of_data).count();
        let paths = self.paths_of_data().count();
        (connections, paths, self.in_table[0])
    }

    /// Connections with watches of data or such as stay, and the paths of these.
    pub(super) fn by_connection(&self) -> impl Iterator<Item = (u64, impl Iterator<Item = &Path>)> {
        self.of.iter().map(|(&connection, its)| {
            let of_data = its.iter().filter(|(kind, _)| *kind != Kind::Children);
            // The same path may be watched in several ways.
            let has = |kind, path: &Path| its.contains(&(kind, path.clone()));
            let once = of_data.filter(move |(kind, path)| match kind {
                Kind::Data | Kind::Children => true,
                Kind::Persistent => !has(Kind::Data, path),
                Kind::Recursive => !has(Kind::Data, path) && !has(Kind::Persistent, path),
            });
            (connection, once.map(|(_, path)| path))
        })
    }

    /// Paths with watches of data or such as stay, and the connections of these.
    pub(super) fn by_path(&self) -> impl Iterator<Item = (&Path, BTreeSet<u64>)> {
        self.paths_of_data().map(|path| {
            let indexes = [&self.data, &self.persistent, &self.recursive];
            let all = indexes.into_iter().filter_map(|index| index.get(path)).flatten();
            (path, all.copied().collect())
        })
    }

    fn paths_of_data(&self) -> impl Iterator<Item = &Path> {
        let persistent = self.persistent.keys().filter(|path| !self.data.contains_key(*path));
        let recursive = self.recursive.keys();
        let recursive = recursive
            .filter(|path| !self.data.contains_key(*path) && !self.persistent.contains_key(*path));
        self.data.keys().chain(persistent).chain(recursive)
    }

    /// Takes out those of a node that fire once.
    fn take(&mut self, kind: Kind, path: &Path) -> BTreeSet<u64> {
        let taken = self.index(kind).remove(path).unwrap_or_default();
        for connection in &taken {
            self.strike(*connection, kind, path);
        }
        taken
    }

    fn remove_one(&mut self, connection: u64, kind: Kind, path: &Path) -> bool {
        let removed = self.strike(connection, kind, path);
        if removed {
            unlist(self.index(kind), path, connection);
        }
        removed
    }

    /// Takes one off its connection's list.
    fn strike(&mut self, connection: u64, kind: Kind, path: &Path) -> bool {
        let its = self.of.get_mut(&connection);
        let struck = its.is_some_and(|its| its.remove(&(kind, path.clone())));
        if struck {
            self.count -= 1;
            self.tally(connection, kind, path, |count| *count -= 1);
        }
        struck
    }

    /// Counts one that came or went in each table where no other stands for it.
    fn tally(&mut self, connection: u64, kind: Kind, path: &Path, count: impl Fn(&mut usize)) {
        let stay = !(self.persistent.is_empty() && self.recursive.is_empty());
        let its = self.of.get(&connection).filter(|_| stay || kind > Kind::Children);
        for (table, in_table) in TABLES.iter().zip(&mut self.in_table) {
            let mut others = table.iter().filter(|other| **other != kind);
            let has = |other: &Kind| its.is_some_and(|its| its.contains(&(*other, path.clone())));
            if table.contains(&kind) && !others.any(has) {
                count(in_table);
            }
        }
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

/// ZooKeeper has one of data and one of children, and those that stay in both. Of the same
/// connection and node each has one.
const TABLES: [[Kind; 3]; 2] = [
    [Kind::Data, Kind::Persistent, Kind::Recursive],
    [Kind::Children, Kind::Persistent, Kind::Recursive],
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_table_counts_a_connection_and_a_node_once() {
        let path: Path = "/a".parse().expect("valid");
        let mut it = Watches::default();
        for kind in [Kind::Data, Kind::Persistent, Kind::Children, Kind::Data] {
            it.add(1, kind, path.clone());
        }
        it.add(2, Kind::Recursive, path.clone());
        assert_eq!((it.len(), it.len_in_tables(), it.summary()), (4, 4, (2, 1, 2)));
        assert!(it.remove(1, WatcherType::Persistent, &path));
        assert_eq!((it.len(), it.len_in_tables(), it.summary()), (3, 4, (2, 1, 2)));
        it.take(Kind::Data, &path);
        assert_eq!((it.len(), it.len_in_tables(), it.summary()), (2, 3, (1, 1, 1)));
        it.leave(1);
        it.leave(2);
        assert_eq!((it.len(), it.len_in_tables(), it.summary()), (0, 0, (0, 0, 0)));
        assert!(it.is_empty() && it.by_path().next().is_none());
    }
}
