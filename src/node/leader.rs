//! A leader's own duties: the next entries, the replicated clock, keep-alives and expiry.
//!
//! Time is in the log (ARCHITECTURE.md, rules 4 and 10): an entry carries the ticks that no earlier
//! proposal of this leader in this term carried, a proposal that is dropped loses its ticks, and a
//! leader's first tick does not count. The replicated clock may only run slow.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    command::{Command, Entry, KEEP_ALIVES_MAX, KeepAlive},
    id::{LeaseId, NodeId, SessionId, StoreId, Zxid},
    mutant::Mutant,
    path::Path,
};

/// What one term of leadership holds.
#[derive(Debug)]
pub(crate) struct Leadership {
    ticked: bool,
    /// Time that no proposal has carried.
    advance_us: u64,
    /// Since the last proposal, which carried the clock.
    since_entry_us: u64,
    /// Since this leader's first commit in its term; `None` before it.
    since_commit_us: Option<u64>,
    /// Commands for the next entries, each part behind its lengths.
    buffer: Vec<Bytes>,
    buffer_bytes: usize,
    /// The newest keep-alive of each session and lease since the last renewal.
    held: BTreeMap<(SessionId, Option<LeaseId>), KeepAlive>,
    since_renewal_us: u64,
    /// Stores of members that the log does not know yet, already proposed.
    pins: BTreeMap<NodeId, StoreId>,
    /// The last entry after which the members are to compare their states.
    comparing: u64,
    /// Which frames of commands have come.
    taken: BTreeMap<NodeId, Taken>,
}

/// The frames of commands that one opening of a member has sent, as far as they have come.
#[derive(Debug, Default)]
struct Taken {
    nonce: u64,
    highest: u64,
    /// Bit n: the one that is n before the highest has come.
    seen: u64,
}

impl Leadership {
    pub(crate) fn new() -> Self {
        Self {
            ticked: false,
            advance_us: 0,
            since_entry_us: 0,
            since_commit_us: None,
            buffer: Vec::new(),
            buffer_bytes: 0,
            held: BTreeMap::new(),
            since_renewal_us: 0,
            pins: BTreeMap::new(),
            comparing: 0,
            taken: BTreeMap::new(),
        }
    }

    /// Whether a frame of commands comes for the first time. One that 64 others have overtaken is
    /// counted as known: whoever sent it hears nothing of it, as when it was lost.
    pub(crate) fn takes(&mut self, from: NodeId, nonce: u64, number: u64) -> bool {
        let taken = self.taken.entry(from).or_default();
        if taken.nonce != nonce {
            *taken = Taken { nonce, ..Taken::default() };
        }
        if let Some(ahead) = number.checked_sub(taken.highest).filter(|ahead| *ahead > 0) {
            let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
            taken.seen = taken.seen.checked_shl(ahead).unwrap_or(0) | 1;
            taken.highest = number;
            return true;
        }
        let behind = u32::try_from(taken.highest - number).unwrap_or(u32::MAX);
        let place = 1u64.checked_shl(behind).unwrap_or(0);
        let first = place != 0 && taken.seen & place == 0;
        taken.seen |= place;
        first || Mutant::FrameTakenAgain.active()
    }

    /// Time goes on by what this node's clock measured.
    pub(crate) fn tick(&mut self, delta_us: u64, committed_in_term: bool) {
        if !self.ticked {
            // It began before this node led.
            self.ticked = true;
            return;
        }
        self.advance_us += delta_us;
        self.since_entry_us += delta_us;
        self.since_renewal_us += delta_us;
        match &mut self.since_commit_us {
            Some(since) => *since += delta_us,
            None if committed_in_term => self.since_commit_us = Some(0),
            None => {}
        }
    }

    /// Takes commands for the next entry; returns `false`, and drops them, past the bound. When
    /// none wait it takes them whatever their size, or they would come again for ever.
    pub(crate) fn push(&mut self, commands: Bytes, bytes_max: usize) -> bool {
        if self.buffer_bytes > 0 && self.buffer_bytes + commands.len() > bytes_max {
            return false;
        }
        self.buffer_bytes += commands.len();
        self.buffer.push(commands);
        true
    }

    /// Whether what waits for an entry is below the bound.
    pub(crate) fn has_room(&self, bytes_max: usize) -> bool {
        self.buffer_bytes < bytes_max
    }

    /// Holds a keep-alive until the next renewal.
    pub(crate) fn hold(&mut self, keep_alive: KeepAlive) {
        let of = (keep_alive.session, keep_alive.lease);
        let newest = self.held.entry(of).or_insert(keep_alive);
        if (keep_alive.epoch, keep_alive.number) > (newest.epoch, newest.number) {
            *newest = keep_alive;
        }
    }

    /// Proposes, once, the store of a member that the log does not know yet.
    pub(crate) fn pin(&mut self, node: NodeId, store: StoreId) {
        if self.pins.insert(node, store) != Some(store) {
            let command = Command::PinStore { node, store }.encode();
            self.buffer_bytes += command.len();
            // It comes before everything that waits, so that the first entry has it.
            self.buffer.insert(0, command);
        }
    }

    /// Asks for a comparison of states, unless one is under way; `asked` is the last one that was
    /// applied.
    pub(crate) fn compare(&mut self, asked: u64, (index, version, digest): (u64, u32, u64)) {
        if self.comparing <= asked {
            self.comparing = index;
            let command = Command::CompareStates { index, version, digest }.encode();
            self.buffer_bytes += command.len();
            self.buffer.push(command);
        }
    }

    /// Puts the keep-alives that are held, then what is due to end, into the next entry.
    /// Call it when [`Leadership::renewal_due`] says so.
    pub(crate) fn renew(&mut self, due: Vec<LeaseId>, due_nodes: Vec<(Path, Zxid)>) {
        self.since_renewal_us = 0;
        let mut commands = Vec::new();
        if !self.held.is_empty() {
            let held: Vec<KeepAlive> = std::mem::take(&mut self.held).into_values().collect();
            let parts = held.chunks(KEEP_ALIVES_MAX);
            commands.extend(parts.map(|part| Command::KeepAlives(part.to_vec()).encode()));
        }
        commands.extend(due.into_iter().map(|lease| Command::Expire { lease }.encode()));
        let reap = |(path, czxid)| Command::ReapNode { path, czxid }.encode();
        commands.extend(due_nodes.into_iter().map(reap));
        self.buffer_bytes += commands.iter().map(Bytes::len).sum::<usize>();
        self.buffer.splice(0..0, commands);
    }

    /// The contents of the next entries, each at most `entry_bytes_max` unless one part is larger.
    /// An empty entry carries the clock if `clock_due`.
    pub(crate) fn take_entry(
        &mut self,
        entry_bytes_max: usize,
        wall_ms: u64,
        clock_due: bool,
    ) -> Option<Bytes> {
        if self.buffer.is_empty() && !clock_due {
            return None;
        }
        let mut bytes = 0;
        let fits = |part: &&Bytes| {
            bytes += part.len();
            bytes <= entry_bytes_max
        };
        let count = self.buffer.iter().take_while(fits).count().max(1).min(self.buffer.len());
        let parts: Vec<Bytes> = self.buffer.drain(..count).collect();
        self.buffer_bytes -= parts.iter().map(Bytes::len).sum::<usize>();
        self.since_entry_us = 0;
        let advance_us = self.advance_us;
        if !Mutant::TicksCarriedTwice.active() {
            self.advance_us = 0;
        }
        Some(Entry::encode(advance_us, wall_ms, &parts))
    }

    /// Commands that could not be proposed come first in the next entry.
    pub(crate) fn put_back(&mut self, commands: Bytes) {
        if !commands.is_empty() {
            self.buffer_bytes += commands.len();
            self.buffer.insert(0, commands);
        }
    }

    /// Whether keep-alives, expiries and the clock are to be proposed.
    pub(crate) fn renewal_due(&self, renewal_us: u64, any_deadline: bool) -> bool {
        let wanted = any_deadline || !self.held.is_empty();
        self.since_renewal_us >= renewal_us && wanted && !Mutant::NoClockEntries.active()
    }

    /// Whether this leader may propose expiries: its origins had time to send their keep-alives.
    pub(crate) fn may_expire(&self, renewal_us: u64) -> bool {
        self.since_commit_us.is_some_and(|since| since >= renewal_us)
    }

    /// Time that waits for an entry.
    pub(crate) fn waiting_us(&self) -> u64 {
        self.advance_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_larger_than_the_bound_is_taken_when_nothing_else_waits() {
        let mut leadership = Leadership::new();
        let commands = Bytes::from_static(b"0123456789");
        assert!(leadership.push(commands.clone(), 4), "or its origin would send it for ever");
        assert!(!leadership.push(commands.slice(..1), 4));
        assert!(leadership.take_entry(1 << 20, 0, false).is_some());
        assert!(leadership.push(commands, 4));
    }
}
