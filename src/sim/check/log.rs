//! What is committed is immutable, the same on every member, and in the log of every later leader.

use std::collections::BTreeMap;

use crate::{
    id::NodeId,
    node::{Glimpse, Node},
};

/// What was committed: log matching and leader completeness.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Term and checksum of each entry that some member has committed.
    committed: BTreeMap<u64, (u64, u32)>,
    /// How far each member's entries were looked at, in this life.
    looked: BTreeMap<NodeId, (u64, u64)>,
    /// The last term that each member was seen to lead.
    led: BTreeMap<NodeId, u64>,
}

impl Log {
    pub(super) fn observe(
        &mut self,
        id: NodeId,
        life: u64,
        seen: &Glimpse,
        node: &Node,
    ) -> Result<(), String> {
        let looked = self.looked.entry(id).or_default();
        if looked.0 != life {
            *looked = (life, 0);
        }
        let from = looked.1 + 1;
        looked.1 = seen.commit;
        for index in from.max(seen.commit.saturating_sub(LOOK_BACK))..=seen.commit {
            // What a snapshot covers is in nobody's memory.
            if let Some(entry) = node.entry(index) {
                self.commit(id, index, entry)?;
            }
        }
        if seen.leads && self.led.insert(id, seen.term) != Some(seen.term) {
            self.elected(id, seen, |index| node.entry_term(index))?;
        }
        Ok(())
    }

    fn commit(&mut self, id: NodeId, index: u64, entry: (u64, u32)) -> Result<(), String> {
        let first = *self.committed.entry(index).or_insert(entry);
        match first == entry {
            true => Ok(()),
            false => Err(format!(
                "entry {index} was committed as {first:?}, by {id} as {entry:?} (term, checksum)"
            )),
        }
    }

    /// A new leader has everything that was committed in earlier terms.
    fn elected(
        &self,
        id: NodeId,
        seen: &Glimpse,
        term_at: impl Fn(u64) -> Option<u64>,
    ) -> Result<(), String> {
        let earlier = self.committed.iter().rev().find(|(_, entry)| entry.0 < seen.term);
        let Some((&index, &(term, _))) = earlier else {
            return Ok(());
        };
        match term_at(index) {
            Some(own) if own != term => Err(format!(
                "{id} leads term {}, and its entry {index} is of term {own}: one of term {term} \
                 was committed",
                seen.term
            )),
            None if index > seen.last_index => Err(format!(
                "{id} leads term {}, and its log ends at {}: entry {index} was committed",
                seen.term, seen.last_index
            )),
            _ => Ok(()),
        }
    }
}

/// Entries that are looked at in one turn at most.
const LOOK_BACK: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::{super::*, *};

    #[test]
    fn a_changed_entry_and_an_incomplete_leader_are_seen() {
        let mut log = Log::default();
        for (by, index) in [(1, 1), (2, 1), (1, 2)] {
            assert!(log.commit(id(by), index, (2, 7)).is_ok());
        }
        assert!(log.commit(id(3), 2, (2, 8)).is_err());
        assert!(log.commit(id(3), 2, (3, 7)).is_err());
        let leader = |last_index| Glimpse { leads: true, last_index, ..glimpse(4, 0, 0) };
        assert!(log.elected(id(3), &leader(2), |_| Some(2)).is_ok());
        assert!(log.elected(id(3), &leader(2), |_| Some(1)).is_err());
        assert!(log.elected(id(3), &leader(1), |_| None).is_err());
        assert!(log.elected(id(3), &leader(9), |_| None).is_ok(), "compacted");
    }
}
