//! Reading the tree at one zxid, on any thread.

use std::{fmt, ops::Bound, sync::Arc};

use bytes::Bytes;

use crate::{
    id::{LeaseId, Zxid},
    namespace::{
        session::Sessions,
        tree::{Tree, Znode},
    },
    op::{Event, EventKind, Identities, LeaseStat, List, Page, Quota, Rights, Stat, Usage},
    path::Path,
};

/// The tree as it was after one transaction.
///
/// Cheap to make and to clone, and it never changes: it shares its structure with the tree that
/// goes on. Holding one keeps what was deleted since alive.
#[derive(Clone)]
pub struct View {
    zxid: Zxid,
    clock_us: u64,
    tree: Tree,
    sessions: Sessions,
}

impl View {
    /// The most names that [`children`](Self::children) gives at once.
    pub const CHILDREN_MAX: usize = 1024;

    /// The most nodes that [`owned`](Self::owned) gives at once.
    pub const OWNED_MAX: usize = 1024;

    pub(super) fn new((zxid, clock_us): (Zxid, u64), tree: Tree, sessions: Sessions) -> Self {
        Self { zxid, clock_us, tree, sessions }
    }

    /// The last transaction that it shows.
    pub fn zxid(&self) -> Zxid {
        self.zxid
    }

    /// A node's data and stat, or `None` if there is no such node.
    pub fn read(&self, path: &Path) -> Option<(Bytes, Stat)> {
        let znode = self.tree.get(path.as_str())?;
        Some((znode.data.clone(), znode.stat()))
    }

    /// A node's stat, or `None` if there is no such node.
    pub fn stat(&self, path: &Path) -> Option<Stat> {
        Some(self.tree.get(path.as_str())?.stat())
    }

    /// A page of a node's children, as it is asked for; `None` if there is no such node.
    ///
    /// ```no_run
    /// # fn all(view: &quorate::View, path: quorate::Path) -> Vec<String> {
    /// let (mut list, mut names) = (quorate::List::of(path).prefix("job-"), Vec::new());
    /// while let Some(page) = view.list(&list, &quorate::Identities::none()) {
    ///     names.extend(page.children.into_iter().map(|child| child.name));
    ///     let Some(resume) = page.resume else { break };
    ///     list = list.after(resume);
    /// }
    /// # names
    /// # }
    /// ```
    ///
    /// A child comes with its stat and data only if these identities may read it; whether they may
    /// read the parent is asked of [`allows`](Self::allows).
    pub fn list(&self, list: &List, who: &Identities) -> Option<Page> {
        self.tree.list(list, who)
    }

    /// Whether a client with these identities has all of these rights on a node, or there is no
    /// such node. The methods that read ask nobody.
    pub fn allows(&self, path: &Path, who: &Identities, rights: Rights) -> bool {
        self.tree.get(path.as_str()).is_none_or(|znode| znode.allows(who, rights))
    }

    /// Whether a client with these identities may learn of a change: it could read the node then,
    /// and, if that very node still lives, it can now (ARCHITECTURE.md, rule 12).
    pub fn may_learn(&self, event: &Event, who: &Identities) -> bool {
        let then = event.acl.as_ref().is_none_or(|acl| acl.allows(who, Rights::READ));
        let same = |znode: &&Znode| znode.czxid == event.czxid && event.kind != EventKind::Deleted;
        let now = self.tree.get(event.path.as_str()).filter(same);
        then && now.is_none_or(|znode| znode.allows(who, Rights::READ))
    }

    /// The quota that is set on a node, and what it counts.
    pub fn quota(&self, path: &Path) -> Option<(Quota, Usage)> {
        self.tree.metered(path.as_str()).map(|metered| (metered.quota, metered.usage))
    }

    /// How many nodes lie below a node, itself not counted, and whether there are more: it stops
    /// at `max`. `None` if there is no such node.
    ///
    /// Counting takes time as the subtree grows, and is done where it is asked for: the tree keeps
    /// no such counts, so that no write pays for them at every level above it.
    pub fn descendants(&self, path: &Path, max: u64) -> Option<(u64, bool)> {
        self.tree.descendants(path, max)
    }

    /// What is to be known of a session's own lease, or another one; `None` if there is no such
    /// lease.
    pub fn lease(&self, lease: LeaseId) -> Option<LeaseStat> {
        self.sessions.lease_stat(lease, self.clock_us)
    }

    /// A page of the ephemeral nodes of a lease, in path order: those after `after`, at most
    /// [`OWNED_MAX`](Self::OWNED_MAX), and whether more follow; `None` if there is no such lease.
    pub fn owned(&self, lease: LeaseId, after: Option<&Path>) -> Option<(Vec<Path>, bool)> {
        let ephemerals = self.sessions.ephemerals(lease)?;
        let start = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.as_str()));
        let mut rest = ephemerals.range::<_, str>((start, Bound::Unbounded));
        let path = |path: &Arc<str>| Path::from_shared_checked(Arc::clone(path));
        let page = rest.by_ref().take(Self::OWNED_MAX).map(path).collect();
        Some((page, rest.next().is_some()))
    }

    /// A page of a node's children: their names in byte order, whether more follow, and the node's
    /// stat; `None` if there is no such node.
    ///
    /// Names after `after`, at most `limit` and never more than
    /// [`CHILDREN_MAX`](Self::CHILDREN_MAX).
    pub fn children(
        &self,
        path: &Path,
        after: Option<&str>,
        limit: usize,
    ) -> Option<(Vec<String>, bool, Stat)> {
        let znode = self.tree.get(path.as_str())?;
        let limit = limit.min(Self::CHILDREN_MAX);
        // Every child's path starts so, and is longer.
        let prefix = if path.is_root() { "/".to_string() } else { format!("{path}/") };
        let start = prefix.len();
        let after = prefix + after.unwrap_or("");
        let mut children = znode.children_after(&after);
        let names = children.by_ref().take(limit).map(|child| child[start..].to_string()).collect();
        let more = children.next().is_some();
        Some((names, more, znode.stat()))
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View({:?}, {} znodes)", self.zxid, self.tree.len())
    }
}
