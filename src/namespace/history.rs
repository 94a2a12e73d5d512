//! The last changes, from which a watch resumes and the past is read (ARCHITECTURE.md, rule 12).
//!
//! Replicated state: trimmed at apply, by count and bytes only, so that every replica can resume
//! the same watches.
//!
//! Invariants:
//! - Changes are in the order in which they happened, and all lie after the floor.
//! - The changes of one transaction are all here, or none of them is.
//! - What they hold is enough to take them back, newest first.

use std::sync::Arc;

use imbl::Vector;

use crate::{
    config::Parameters,
    id::Zxid,
    mutant::Mutant,
    namespace::{
        access::KeptAcl,
        digest::{self, Sum},
        quota::Metered,
        znode::{Listing, Value},
    },
    op::{Content, Detail, Event, EventKind},
    path::Path,
};

/// One change of one node: what there is to tell of it, and what takes it back; a clone is O(1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Change {
    pub(crate) zxid: Zxid,
    /// Without a kind it changed the node's quota, and no watch tells of it.
    pub(crate) kind: Option<EventKind>,
    pub(crate) path: Path,
    /// What was replaced or deleted.
    pub(super) before: Option<Arc<Value>>,
    /// What was made, or what replaced it. Shared with the tree, or with the next change.
    pub(super) after: Option<Arc<Value>>,
    /// The node's own, which a change of the node leaves alone.
    pub(super) listing: Listing,
    /// How many children it has; of a deletion, had before the operation.
    pub(super) children: u64,
    /// Of a creation or a deletion: what it changed in the parent, before it did.
    pub(super) parent: Parent,
    /// Of a deletion, or without a kind: the quota before.
    pub(super) metered: Option<Box<Metered>>,
    /// What it comes to in the digest.
    pub(super) hash: u64,
}

/// What the children change in a node, beside the list of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Parent {
    pub(super) listing: Listing,
    pub(super) since_us: u64,
}

impl Change {
    /// What a watch tells of it, unless no watch does.
    pub(crate) fn event(&self, detail: Detail) -> Option<Event> {
        let kind = self.kind?;
        let value = self.after.as_ref().or(self.before.as_ref())?;
        let content = |value: &Arc<Value>| {
            let stat = value.stat(self.listing, self.children);
            Box::new(Content { data: value.shared_data(), stat })
        };
        let [with_before, with_after] = match detail {
            Detail::Path => [false, false],
            Detail::After => [false, true],
            Detail::BeforeAndAfter => [true, true],
        };
        Some(Event {
            zxid: self.zxid,
            kind,
            path: self.path.clone(),
            czxid: value.czxid,
            before: self.before.as_ref().filter(|_| with_before).map(content),
            after: self.after.as_ref().filter(|_| with_after).map(content),
            acl: None,
            acl_above: None,
        })
    }

    /// With its hash, given that of the path, and those of the node and its data before.
    pub(super) fn hashed(self, path: u64, before: [u64; 2]) -> Self {
        Self { hash: digest::of_change(path, before, &self), ..self }
    }

    /// What it counts for against `history_bytes_max`: itself, and what only it keeps alive.
    fn weight(&self) -> u64 {
        let before = self.before.as_ref().map_or(0, |value| {
            let acl = value.kept_acl().map_or(0, KeptAcl::bytes);
            VALUE_BYTES + (value.data().len() + acl) as u64
        });
        CHANGE_BYTES + self.path.as_str().len() as u64 + before
    }
}

/// The last changes; a clone is O(1).
#[derive(Clone)]
pub(super) struct History {
    changes: Vector<Change>,
    bytes: u64,
    floor: Zxid,
    sum: Sum,
}

impl History {
    /// No change, and none before `floor` to resume from.
    pub(super) fn new(floor: Zxid) -> Self {
        Self { changes: Vector::new(), bytes: 0, floor, sum: Sum::default() }
    }

    /// Adds the newest change; [`trim`](Self::trim) follows when its transaction is complete.
    pub(super) fn push(&mut self, change: Change) {
        self.bytes += change.weight();
        self.sum.add(change.hash);
        self.changes.push_back(change);
    }

    /// Takes the newest change away, which then never happened.
    pub(super) fn pop(&mut self) {
        if let Some(change) = self.changes.pop_back() {
            self.forget(&change);
        }
    }

    /// Adds what happened before all that is here, as a snapshot tells it.
    pub(super) fn push_front(&mut self, change: Change) {
        self.bytes += change.weight();
        self.sum.add(change.hash);
        self.changes.push_front(change);
    }

    /// Drops the oldest transactions until the bounds are kept.
    pub(super) fn trim(&mut self, parameters: &Parameters) {
        while !self.fits(parameters) {
            let Some(oldest) = self.changes.pop_front() else {
                return;
            };
            self.forget(&oldest);
            self.floor = oldest.zxid;
            while self.changes.front().is_some_and(|it| it.zxid == self.floor) {
                let Some(change) = self.changes.pop_front() else {
                    return;
                };
                self.forget(&change);
            }
        }
    }

    fn forget(&mut self, change: &Change) {
        self.bytes -= change.weight();
        self.sum.remove(change.hash);
    }

    /// What the changes come to.
    pub(super) fn sum(&self) -> Sum {
        self.sum
    }

    /// Whether the bounds are kept.
    pub(super) fn fits(&self, parameters: &Parameters) -> bool {
        self.changes.len() as u64 <= parameters.history_count_max
            && self.bytes <= parameters.history_bytes_max
    }

    /// The last transaction that is not held completely.
    pub(super) fn floor(&self) -> Zxid {
        self.floor
    }

    /// How many changes are held.
    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    /// The change at this place, from 0, counted from the newest one back.
    pub(super) fn get_back(&self, index: usize) -> Option<&Change> {
        let index = self.changes.len().checked_sub(index + 1)?;
        self.changes.get(index)
    }

    /// The oldest change.
    pub(super) fn first(&self) -> Option<&Change> {
        self.changes.front()
    }

    /// The changes after `zxid`, newest first.
    pub(super) fn back_to(&self, zxid: Zxid) -> impl Iterator<Item = &Change> {
        self.changes.iter().rev().take_while(move |change| change.zxid > zxid)
    }

    /// The changes after `zxid`, or the floor if that lies below it.
    pub(super) fn after(&self, zxid: Zxid) -> Result<impl Iterator<Item = &Change>, Zxid> {
        if zxid < self.floor && !Mutant::WatchGap.active() {
            return Err(self.floor);
        }
        Ok(self.changes.focus().narrow(self.first_after(zxid)..).into_iter())
    }

    /// Changes the oldest change as a broken memory would.
    #[cfg(test)]
    pub(super) fn corrupt(&mut self) {
        self.changes.front_mut().expect("there is one").hash ^= 1;
    }

    fn first_after(&self, zxid: Zxid) -> usize {
        let (mut low, mut high) = (0, self.changes.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.changes.get(middle).is_some_and(|it| it.zxid <= zxid) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// About what a change takes in memory beyond its path's text.
const CHANGE_BYTES: u64 = 192;
/// About what it takes to keep a value, beyond its data and its list.
const VALUE_BYTES: u64 = 128;
