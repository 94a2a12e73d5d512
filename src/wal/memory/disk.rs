//! The disk: its files by name, what is durable of the names, and what goes wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use super::{
    Fault,
    file::{Node, SECTOR},
};

#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    /// By numbers that are never used again.
    pub(super) nodes: BTreeMap<u64, Node>,
    pub(super) next_node: u64,
    pub(super) names: BTreeMap<PathBuf, u64>,
    pub(super) durable_names: BTreeMap<PathBuf, u64>,
    pub(super) renames: Vec<NameChange>,
    pub(super) locked: BTreeSet<PathBuf>,
    pub(super) faults: Vec<Fault>,
    pub(super) counts: Counts,
    pub(super) dark: bool,
    pub(super) lying: bool,
    /// Handles of an earlier life are dead.
    pub(super) life: u64,
    /// Numbers the writes.
    pub(super) written: u64,
    /// While changes are recorded: the disk after each.
    pub(super) moments: Option<Vec<Disk>>,
}

/// How often what was done since faults were last armed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) operations: u64,
    pub(super) writes: u64,
    pub(super) reads: u64,
    pub(super) syncs: u64,
}

/// A change of names that is not durable yet.
#[derive(Clone, Debug)]
pub(super) struct NameChange {
    pub(super) gone: Option<PathBuf>,
    pub(super) new: Option<(PathBuf, u64)>,
}

impl Disk {
    /// Counts an operation. The power may go at it: whether it still had an effect is then open,
    /// so a change is made first, and [`lit`](Self::lit) returns the error after.
    pub(super) fn operation(&mut self) -> io::Result<()> {
        self.lit()?;
        self.counts.operations += 1;
        let now = self.counts.operations;
        if self.armed(|fault| *fault == Fault::Fail(now)) {
            return Err(io::Error::other("the operation failed (injected)"));
        }
        self.dark = self.armed(|fault| *fault == Fault::PowerCut(now));
        Ok(())
    }

    /// Whether the power is still there.
    pub(super) fn lit(&self) -> io::Result<()> {
        match self.dark {
            true => Err(power_cut()),
            false => Ok(()),
        }
    }

    /// Counts an operation that changes nothing, or that must not be half done.
    pub(super) fn quiet_operation(&mut self) -> io::Result<()> {
        self.operation()?;
        self.lit()
    }

    pub(super) fn armed(&self, matches: impl Fn(&Fault) -> bool) -> bool {
        self.faults.iter().any(matches)
    }

    pub(super) fn change_names(&mut self, gone: Option<PathBuf>, new: Option<(PathBuf, u64)>) {
        let change = NameChange { gone, new };
        change.apply(&mut self.names);
        self.renames.push(change);
        self.changed();
    }

    pub(super) fn add(&mut self, node: Node) -> u64 {
        self.next_node += 1;
        self.nodes.insert(self.next_node, node);
        self.next_node
    }

    /// A file's bytes; of one that has no name any more, what was written since.
    pub(super) fn node(&mut self, number: u64) -> &mut Node {
        self.nodes.entry(number).or_default()
    }

    /// Something has changed that a crash would find.
    pub(super) fn changed(&mut self) {
        if let Some(mut moments) = self.moments.take() {
            moments.push(self.copy());
            self.moments = Some(moments);
        }
    }

    /// The same bytes and names, with nothing open and no faults armed.
    pub(super) fn copy(&self) -> Self {
        let mut copy = Self { moments: None, ..self.clone() };
        copy.calm();
        copy
    }

    /// No locks, no faults.
    pub(super) fn calm(&mut self) {
        self.locked.clear();
        self.faults.clear();
        self.counts = Counts::default();
        self.dark = false;
        self.lying = false;
    }

    /// Makes the first so many sectors that were not synced durable, in the order in which they
    /// were written, and takes the others back.
    pub(super) fn keep_first(&mut self, sectors: u64) {
        let mut undos = Vec::new();
        for (number, node) in &mut self.nodes {
            undos.extend(std::mem::take(&mut node.undo).into_iter().map(|undo| (undo, *number)));
        }
        undos.sort_by_key(|(undo, _)| undo.write);
        let mut nth: u64 = undos.iter().map(|(undo, _)| undo.sectors).sum();
        for (undo, number) in undos.into_iter().rev() {
            let node = self.node(number);
            for (sector, before) in undo.sectors().collect::<Vec<_>>().into_iter().rev() {
                nth -= 1;
                if nth >= sectors {
                    node.write_blocks(&before, sector * SECTOR);
                } else {
                    node.lost.remove(&sector);
                    let end = ((sector + 1) * SECTOR).min(node.length);
                    node.durable_length = node.durable_length.max(end);
                }
            }
        }
    }

    /// Frees the bytes of files that have no name any more.
    pub(super) fn forget_nameless(&mut self) {
        let mut named: BTreeSet<u64> = self.names.values().copied().collect();
        named.extend(self.durable_names.values());
        let pending = self.renames.iter().filter_map(|change| change.new.as_ref());
        named.extend(pending.map(|(_, number)| number));
        self.nodes.retain(|number, _| named.contains(number));
    }
}

impl NameChange {
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        let new = self.new.as_ref().map(|(path, _)| path.as_path());
        self.gone.as_deref().into_iter().chain(new)
    }

    pub(super) fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        if let Some(gone) = &self.gone {
            names.remove(gone);
        }
        if let Some((path, node)) = &self.new {
            names.insert(path.clone(), *node);
        }
    }
}

pub(super) fn power_cut() -> io::Error {
    io::Error::other("the power was cut (injected)")
}
