//! State-machine safety: whoever has applied the same entries has the same state, as long as no
//! memory goes bad.

use std::collections::BTreeMap;

use crate::{id::NodeId, node::Glimpse};

/// The digest after each entry, and who had it first.
#[derive(Debug, Default)]
pub(super) struct States {
    digests: BTreeMap<u64, (u64, NodeId)>,
    rot: bool,
}

impl States {
    pub(super) fn observe(&mut self, id: NodeId, seen: &Glimpse) -> Result<(), String> {
        let (digest, first) = *self.digests.entry(seen.applied).or_insert((seen.digest, id));
        match digest == seen.digest || self.rot {
            true => Ok(()),
            false => Err(format!(
                "after entry {} the digest is {digest:x} on {first}, and {:x} on {id}",
                seen.applied, seen.digest
            )),
        }
    }

    /// A memory has gone bad.
    pub(super) fn expect_rot(&mut self) {
        self.rot = true;
    }
}

#[cfg(test)]
mod tests {
    use super::{super::*, *};

    #[test]
    fn another_state_after_the_same_entry_is_seen() {
        let mut states = States::default();
        assert!(states.observe(id(1), &glimpse(1, 5, 5)).is_ok());
        assert!(states.observe(id(2), &glimpse(1, 5, 5)).is_ok());
        let other = Glimpse { digest: 9, ..glimpse(1, 5, 5) };
        assert!(states.observe(id(3), &other).is_err());
        states.expect_rot();
        assert!(states.observe(id(3), &other).is_ok());
    }
}
