//! The last changes, from which a watch resumes (ARCHITECTURE.md, rule 12).
//!
//! Replicated state: trimmed at apply, by count and bytes only, so that every replica can resume
//! the same watches.
//!
//! Invariants:
//! - Events are in zxid order, and all lie after the floor.
//! - The events of one transaction are all here, or none of them is.

use imbl::Vector;

use crate::{
    config::Parameters,
    id::Zxid,
    namespace::digest::{self, Sum},
    op::{Acl, Event},
};

/// The last changes; a clone is O(1).
#[derive(Clone)]
pub(super) struct History {
    events: Vector<Event>,
    bytes: u64,
    floor: Zxid,
    sum: Sum,
}

impl History {
    /// No event, and none before `floor` to resume from.
    pub(super) fn new(floor: Zxid) -> Self {
        Self { events: Vector::new(), bytes: 0, floor, sum: Sum::default() }
    }

    /// Adds the newest event; [`trim`](Self::trim) follows when its transaction is complete.
    pub(super) fn push(&mut self, event: Event) {
        self.bytes += weight(&event);
        self.sum.add(digest::of_event(&event));
        self.events.push_back(event);
    }

    /// Drops the oldest transactions until the bounds are kept.
    pub(super) fn trim(&mut self, parameters: &Parameters) {
        while !self.fits(parameters) {
            let Some(oldest) = self.events.pop_front() else {
                return;
            };
            self.forget(&oldest);
            self.floor = oldest.zxid;
            while self.events.front().is_some_and(|it| it.zxid == self.floor) {
                let Some(event) = self.events.pop_front() else {
                    return;
                };
                self.forget(&event);
            }
        }
    }

    fn forget(&mut self, event: &Event) {
        self.bytes -= weight(event);
        self.sum.remove(digest::of_event(event));
    }

    /// What the events come to.
    pub(super) fn sum(&self) -> Sum {
        self.sum
    }

    /// Whether the bounds are kept.
    pub(super) fn fits(&self, parameters: &Parameters) -> bool {
        self.events.len() as u64 <= parameters.history_count_max
            && self.bytes <= parameters.history_bytes_max
    }

    /// The last transaction that is not held completely.
    pub(super) fn floor(&self) -> Zxid {
        self.floor
    }

    /// How many events are held.
    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// The event at this place, from 0.
    pub(super) fn get(&self, index: usize) -> Option<&Event> {
        self.events.get(index)
    }

    /// The zxid of the newest event, or the floor.
    pub(super) fn last(&self) -> Zxid {
        self.events.back().map_or(self.floor, |event| event.zxid)
    }

    /// The events after `zxid`, or the floor if that lies below it.
    pub(super) fn after(&self, zxid: Zxid) -> Result<impl Iterator<Item = &Event>, Zxid> {
        if zxid < self.floor {
            return Err(self.floor);
        }
        Ok(self.events.focus().narrow(self.first_after(zxid)..).into_iter())
    }

    /// Changes the oldest event as a broken memory would.
    #[cfg(test)]
    pub(super) fn corrupt(&mut self) {
        let event = self.events.front_mut().expect("there is one");
        event.czxid = Zxid::new(event.czxid.as_u64() ^ 1);
    }

    fn first_after(&self, zxid: Zxid) -> usize {
        let (mut low, mut high) = (0, self.events.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.events.get(middle).is_some_and(|it| it.zxid <= zxid) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// What an event counts for against `history_bytes_max`.
fn weight(event: &Event) -> u64 {
    let acl = event.acl.as_ref().map_or(0, Acl::bytes);
    EVENT_BYTES + (event.path.as_str().len() + acl) as u64
}

/// About what an event takes in memory beyond its path's text.
const EVENT_BYTES: u64 = 64;
