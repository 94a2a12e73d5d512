//! Terms, commits, applied entries and zxids never go back.

use std::collections::BTreeMap;

use crate::{id::NodeId, node::Glimpse};

/// Where each member stood.
#[derive(Debug, Default)]
pub(super) struct Monotone {
    /// With the life in which it did.
    last: BTreeMap<NodeId, (u64, Glimpse)>,
    rot: bool,
}

impl Monotone {
    /// A member that is started again has forgotten what it knew to be committed, until its
    /// log or a leader tells it; its term it keeps.
    pub(super) fn observe(&mut self, id: NodeId, life: u64, seen: &Glimpse) -> Result<(), String> {
        if seen.applied > seen.commit && !self.rot {
            return Err(format!("{id} applies {} but commits {}", seen.applied, seen.commit));
        }
        let Some((before_life, before)) = self.last.insert(id, (life, *seen)) else {
            return Ok(());
        };
        let back = |what, before: u64, now: u64| match now < before {
            true => Err(format!("the {what} of {id} goes back from {before} to {now}")),
            false => Ok(()),
        };
        back("term", before.term, seen.term)?;
        if life == before_life {
            back("commit", before.commit, seen.commit)?;
            back("applied index", before.applied, seen.applied)?;
            back("zxid", before.zxid, seen.zxid)?;
        }
        Ok(())
    }

    /// A memory has gone bad: the state that replaces it is that of a peer, which may be ahead.
    pub(super) fn expect_rot(&mut self) {
        self.rot = true;
    }

    pub(super) fn forget(&mut self, id: NodeId) {
        self.last.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::*, *};

    #[test]
    fn what_goes_back_is_seen() {
        let mut it = Monotone::default();
        assert!(it.observe(id(1), 1, &glimpse(2, 7, 6)).is_ok());
        assert!(it.observe(id(1), 2, &glimpse(2, 3, 3)).is_ok(), "it was started again");
        assert!(it.observe(id(1), 2, &glimpse(2, 3, 2)).is_err());
        assert!(it.observe(id(1), 3, &glimpse(1, 3, 3)).is_err());
        assert!(it.observe(id(2), 1, &glimpse(1, 3, 4)).is_err(), "applied but not committed");
    }
}
