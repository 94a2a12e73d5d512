//! One node of the tree: what it is, and what it counts.

use std::{
    mem,
    ops::{Bound, Deref},
    sync::Arc,
};

use bytes::Bytes;
use imbl::OrdSet;

use crate::{
    id::{LeaseId, Zxid},
    mutant::Mutant,
    namespace::{access::KeptAcl, history::Parent},
    op::{Identities, Lifetime, OpError, Stat},
    path::Path,
    time::as_micros,
};

/// One node; its path is the map's key.
#[derive(Clone, Default)]
pub(super) struct Znode {
    /// Shared with the history, which keeps it when it is replaced: it is never changed in place.
    pub(super) value: Arc<Value>,
    pub(super) listing: Listing,
    /// Full paths, shared with the map's keys.
    pub(super) children: OrdSet<Arc<str>>,
}

/// What a node is apart from its children.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Value {
    /// An allocation of its own, for a slice would keep a whole log entry alive; none if it is
    /// null.
    pub(super) data: Option<Bytes>,
    pub(super) czxid: Zxid,
    pub(super) mzxid: Zxid,
    pub(super) ctime_ms: u64,
    pub(super) mtime_ms: u64,
    pub(super) version: u64,
    /// Invariant: an owner lives, and has this node among its own.
    pub(super) owner: Option<LeaseId>,
    /// What few nodes have. Invariant: none that says nothing.
    pub(super) special: Option<Arc<Special>>,
}

/// What changes with the children, beside the list of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Listing {
    pub(super) pzxid: Zxid,
    pub(super) cversion: u64,
    /// The number of the next sequential child; never goes back.
    pub(super) next_sequence: u64,
}

/// What few nodes have.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Special {
    pub(super) acl: Option<KeptAcl>,
    /// Changes of the list.
    pub(super) aversion: u64,
    pub(super) lifetime: Lifetime,
    /// From when on the lifetime counts, on the replicated clock: of a container, since its last
    /// child has gone; else since the data was replaced.
    pub(super) since_us: u64,
}

impl Special {
    /// `None` if it says nothing.
    pub(super) fn new(
        acl: Option<KeptAcl>,
        aversion: u64,
        lifetime: Lifetime,
        since_us: u64,
    ) -> Option<Self> {
        let since_us = if lifetime == Lifetime::Unlimited { 0 } else { since_us };
        let special = Self { acl, aversion, lifetime, since_us };
        (special != Self::default()).then_some(special)
    }
}

impl Znode {
    pub(super) fn check_version(
        &self,
        path: &Path,
        expected: Option<u64>,
        who: &Identities,
    ) -> Result<(), OpError> {
        match expected {
            Some(expected) if expected != self.version && !Mutant::VersionIgnored.active() => {
                let (path, actual) = (path.clone(), self.shown(self.version, who));
                Err(OpError::BadVersion { path, expected, actual })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn children_changed(&mut self, at: Stamp) {
        self.listing.cversion += 1;
        self.listing.pzxid = at.zxid;
    }

    /// Gives the value that other data replaced.
    pub(super) fn replace(&mut self, data: Option<Bytes>, at: Stamp) -> Arc<Value> {
        let (old, zxid) = (&*self.value, at.zxid);
        let mut value = Value {
            data,
            czxid: old.czxid,
            mzxid: zxid,
            ctime_ms: old.ctime_ms,
            mtime_ms: at.wall_ms,
            version: old.version + 1,
            owner: old.owner,
            special: old.special.clone(),
        };
        if matches!(value.lifetime(), Lifetime::Ttl(_)) {
            value.count_from(at.clock_us);
        }
        mem::replace(&mut self.value, Arc::new(value))
    }

    /// What a change of its children will change.
    pub(super) fn as_parent(&self) -> Parent {
        Parent { listing: self.listing, since_us: self.since_us() }
    }

    /// From when on the cluster may remove the node, if it may.
    pub(super) fn deadline(&self, grace_us: u64) -> Option<u64> {
        let special = self.special.as_ref()?;
        if !self.children.is_empty() {
            return None;
        }
        let after_us = match special.lifetime {
            Lifetime::Unlimited => return None,
            // It is left alone until it had a child.
            Lifetime::Container if self.listing.cversion == 0 => return None,
            Lifetime::Container => grace_us,
            Lifetime::Ttl(ttl) => as_micros(ttl),
        };
        Some(special.since_us.saturating_add(after_us))
    }

    /// What is told of the node.
    pub(super) fn stat(&self) -> Stat {
        self.value.stat(self.listing, self.children.len() as u64)
    }

    /// The children whose full path is greater than `path`, in order.
    pub(super) fn children_after(&self, path: &str) -> impl Iterator<Item = &Arc<str>> {
        self.children.range::<_, str>((Bound::Excluded(path), Bound::Unbounded))
    }
}

impl Deref for Znode {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.value
    }
}

impl Value {
    /// What is read of it: of null, nothing.
    pub(super) fn data(&self) -> &[u8] {
        self.data.as_deref().unwrap_or_default()
    }

    /// The same, shared.
    pub(super) fn shared_data(&self) -> Bytes {
        self.data.clone().unwrap_or_default()
    }

    pub(super) fn lifetime(&self) -> Lifetime {
        self.special.as_ref().map_or(Lifetime::Unlimited, |it| it.lifetime)
    }

    /// Changes of the list.
    pub(super) fn aversion(&self) -> u64 {
        self.special.as_ref().map_or(0, |it| it.aversion)
    }

    /// From when on the lifetime counts; 0 if there is none.
    pub(super) fn since_us(&self) -> u64 {
        self.special.as_ref().map_or(0, |it| it.since_us)
    }

    /// The lifetime starts anew.
    pub(super) fn count_from(&mut self, clock_us: u64) {
        if let Some(special) = self.special.as_mut() {
            Arc::make_mut(special).since_us = clock_us;
        }
    }

    /// What is told of a node that is this, with so many children.
    pub(super) fn stat(&self, listing: Listing, children: u64) -> Stat {
        Stat {
            czxid: self.czxid,
            mzxid: self.mzxid,
            pzxid: listing.pzxid,
            ctime_ms: self.ctime_ms,
            mtime_ms: self.mtime_ms,
            version: self.version,
            cversion: listing.cversion,
            aversion: self.aversion(),
            owner: self.owner,
            lifetime: self.lifetime(),
            data_length: self.data().len() as u64,
            null: self.data.is_none(),
            children,
        }
    }
}

/// When a transaction happens.
#[derive(Clone, Copy)]
pub(super) struct Stamp {
    pub(super) zxid: Zxid,
    pub(super) wall_ms: u64,
    pub(super) clock_us: u64,
}

/// The payload in an allocation of its own; none for an empty one.
pub(super) fn own(data: &[u8]) -> Bytes {
    if data.is_empty() {
        return Bytes::new();
    }
    Bytes::copy_from_slice(data)
}
