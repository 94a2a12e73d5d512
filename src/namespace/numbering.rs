//! The names of nodes to be made: sequential ones have a number of their parent's.
//!
//! Invariant: the counter only grows, so no number comes twice until 32 bits of it have.

use std::fmt;

use crate::{
    namespace::{limit, tree::Tree, znode::Znode},
    op::{LimitName, OpError},
    path::{Path, PathPrefix},
};

/// How a sequential node is numbered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbering {
    /// By the parent's counter, or the next number after it that is free.
    Free,
    /// As by ZooKeeper: by the lower 32 bits of the counter, with a sign, free or not.
    Signed,
}

impl Tree {
    /// The path of a node to be made, and the parent's counter after it.
    pub(super) fn named(
        &self,
        prefix: &PathPrefix,
        numbering: Option<Numbering>,
        parent: &Znode,
    ) -> Result<(Path, u64), OpError> {
        let sequence = parent.listing.next_sequence;
        match numbering {
            Some(Numbering::Free) => self.next_free(prefix, (sequence, parent.children.len())),
            // A cast to fewer bits wraps, and so does ZooKeeper's counter.
            Some(Numbering::Signed) => Ok((numbered(prefix, sequence as i32)?, sequence + 1)),
            // As in ZooKeeper, the number is that of all children that were ever made.
            None => Ok((checked(prefix.as_str())?, sequence + 1)),
        }
    }

    /// The next free name, and the counter after it. A number that somebody took by name is
    /// skipped, for else it would be in the way for ever.
    fn next_free(
        &self,
        prefix: &PathPrefix,
        (mut sequence, children): (u64, usize),
    ) -> Result<(Path, u64), OpError> {
        // Each name that somebody made by hand is met once: the counter stays behind it.
        for _ in 0..=children {
            let path = numbered(prefix, sequence)?;
            sequence += 1;
            if self.get(path.as_str()).is_none() {
                return Ok((path, sequence));
            }
        }
        Err(OpError::NodeExists { path: numbered(prefix, sequence)? })
    }
}

fn numbered(prefix: &PathPrefix, sequence: impl fmt::Display) -> Result<Path, OpError> {
    checked(&format!("{}{sequence:010}", prefix.as_str()))
}

/// Only a number can make it wrong, which is too long then: the codec has checked the prefix.
fn checked(text: &str) -> Result<Path, OpError> {
    Path::new(text).map_err(|_| limit(LimitName::PathBytes, text.len(), Path::BYTES_MAX))
}
