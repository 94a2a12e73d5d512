//! What a watch tells, and which nodes it looks at.

use crate::{id::Zxid, op::Acl, path::Path};

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
    /// The access control list in force: before a deletion, and after anything else. `None` grants
    /// everything to everybody.
    pub(crate) acl: Option<Acl>,
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
}

/// Which nodes a watch looks at.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Filter {
    /// The node itself.
    Node(Path),
    /// The creation and deletion of the node's children.
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
        match self {
            Self::Node(path) => *path == event.path,
            Self::Subtree(path) => path.contains(&event.path),
            Self::Children(path) => {
                event.kind != EventKind::DataChanged
                    && event.path.parent_str() == Some(path.as_str())
            }
        }
    }
}
