//! What a watch tells, and which nodes it looks at.

use bytes::Bytes;

#[cfg(feature = "zookeeper")]
use crate::op::{Identities, Rights};
use crate::{
    id::Zxid,
    op::{Acl, Stat},
    path::Path,
};

/// What a watch tells of one node in one transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Event {
    /// The transaction.
    pub zxid: Zxid,
    /// What happened.
    pub kind: EventKind,
    /// To which node.
    pub path: Path,
    /// The transaction that created the node.
    pub czxid: Zxid,
    /// The node before it, if the watch asked for it; none before a creation.
    pub before: Option<Box<Content>>,
    /// The node after it, if the watch asked for it; none after a deletion.
    pub after: Option<Box<Content>>,
    /// The node's list after it, or before a deletion, for who may see everything; none if it
    /// grants everything to everybody.
    pub(crate) acl: Option<Acl>,
    /// Of a creation or a deletion: the same of the node's parent.
    pub(crate) acl_above: Option<Acl>,
}

impl Event {
    /// Whether somebody may learn of it: for an adapter that tells it on.
    #[cfg(feature = "zookeeper")]
    pub(crate) fn shows_to(&self, who: &Identities) -> bool {
        allows(self.acl.as_ref(), who)
    }

    /// Whether somebody may learn that it changed the children of the node's parent.
    #[cfg(feature = "zookeeper")]
    pub(crate) fn shows_above_to(&self, who: &Identities) -> bool {
        allows(self.acl_above.as_ref(), who)
    }
}

#[cfg(feature = "zookeeper")]
fn allows(acl: Option<&Acl>, who: &Identities) -> bool {
    acl.is_none_or(|acl| acl.allows(who, Rights::READ))
}

/// A node's data and stat at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Content {
    /// Its data.
    pub data: Bytes,
    /// Its stat.
    pub stat: Stat,
}

/// How much a watch tells of each event. What was before comes from the history itself: it is
/// there whenever the event is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
#[non_exhaustive]
pub enum Detail {
    /// What happened to which node.
    #[default]
    Path,
    /// Also the node after it.
    After,
    /// Also the node before it, and after it.
    BeforeAndAfter,
}

/// What happened to a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum EventKind {
    /// It was made.
    Created,
    /// Its data was replaced.
    DataChanged,
    /// It was removed.
    Deleted,
    /// Its access control list was replaced.
    AclChanged,
}

impl EventKind {
    /// Whether it changes the list of the parent's children.
    pub(crate) fn is_of_parent(self) -> bool {
        matches!(self, Self::Created | Self::Deleted)
    }
}

/// Which nodes a watch looks at.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Filter {
    /// The node itself.
    Node(Path),
    /// The creation and deletion of the node's children, and the node's own deletion.
    Children(Path),
    /// The node and everything below it.
    Subtree(Path),
}

impl Filter {
    /// The path that the filter names.
    pub fn path(&self) -> &Path {
        match self {
            Self::Node(path) | Self::Children(path) | Self::Subtree(path) => path,
        }
    }

    /// Whether the watch tells of this event.
    pub fn matches(&self, event: &Event) -> bool {
        self.sees(event.kind, &event.path)
    }

    pub(crate) fn sees(&self, kind: EventKind, path: &Path) -> bool {
        match self {
            Self::Node(own) => own == path,
            Self::Subtree(own) => own.contains(path),
            Self::Children(own) => {
                let child = kind.is_of_parent() && path.parent_str() == Some(own.as_str());
                child || (kind == EventKind::Deleted && own == path)
            }
        }
    }
}
