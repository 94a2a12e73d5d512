//! Election safety: a term has at most one leader.

use std::collections::BTreeMap;

use crate::{id::NodeId, node::Glimpse};

/// Who led which term.
#[derive(Debug, Default)]
pub(super) struct Election {
    leaders: BTreeMap<u64, NodeId>,
}

impl Election {
    pub(super) fn observe(&mut self, id: NodeId, seen: &Glimpse) -> Result<(), String> {
        if !seen.leads {
            return Ok(());
        }
        match *self.leaders.entry(seen.term).or_insert(id) {
            other if other != id => Err(format!("{other} and {id} both lead term {}", seen.term)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::*, *};

    #[test]
    fn two_leaders_of_a_term_are_seen() {
        let mut election = Election::default();
        let leads = |term| Glimpse { leads: true, ..glimpse(term, 0, 0) };
        assert!(election.observe(id(1), &leads(2)).is_ok());
        assert!(election.observe(id(2), &glimpse(2, 0, 0)).is_ok());
        assert!(election.observe(id(2), &leads(3)).is_ok());
        assert!(election.observe(id(1), &leads(2)).is_ok());
        assert!(election.observe(id(2), &leads(2)).is_err());
    }
}
