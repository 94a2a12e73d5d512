//! What a tree comes to as ZooKeeper counts it, kept up with each change.

use crate::namespace::znode::Value;

/// Of all nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Weight {
    /// Bytes of paths and data.
    pub(super) bytes: u64,
    /// Nodes that have an owner.
    pub(super) owned: u64,
}

impl Weight {
    /// A node has this value now, and had that one.
    pub(super) fn change(&mut self, path: &str, now: Option<&Value>, was: Option<&Value>) {
        let bytes = |it: Option<&Value>| it.map_or(0, |it| (path.len() + it.data().len()) as u64);
        let owned = |it: Option<&Value>| u64::from(it.is_some_and(|it| it.owner.is_some()));
        self.bytes = self.bytes.wrapping_add(bytes(now)).wrapping_sub(bytes(was));
        self.owned = self.owned.wrapping_add(owned(now)).wrapping_sub(owned(was));
    }
}
