//! Reading the tree at one zxid, on any thread.

use std::{fmt, ops::Bound, sync::Arc};

use bytes::Bytes;

use crate::{
    id::{LeaseId, Lineage, Zxid},
    namespace::{history::Change, sessions::Sessions, tree::Tree, znode::Znode},
    op::{Acl, Identities, LeaseStat, List, OpError, Owned, Page, Quota, Rights, Stat, Usage},
    path::Path,
};

/// The tree as it was after one transaction, as somebody may see it.
///
/// [`Node::view`](crate::node::Node::view) sees everything. One for a session, or for identities,
/// refuses what they had no right to read at that transaction with [`OpError::NoAuth`], as
/// [`Node::read`](crate::node::Node::read) does.
///
/// Cheap to make and to clone, and it never changes: it shares its structure with the tree that
/// goes on. Holding one keeps what was deleted since alive.
#[derive(Clone)]
pub struct View {
    lineage: Lineage,
    zxid: Zxid,
    clock_us: u64,
    tree: Tree,
    sessions: Sessions,
    /// Who looks.
    who: Identities,
    /// Of the past, for whom not everything is shown: a node that still lives is read only by those
    /// who may read it today, too.
    today: Option<Tree>,
}

impl View {
    /// The most nodes that [`owned`](Self::owned) looks at.
    pub const OWNED_MAX: usize = 1024;
    /// The most leases that [`leases`](Self::leases) gives.
    pub const LEASES_MAX: usize = 1024;

    /// What nobody is refused anything of.
    pub(super) fn new(
        (lineage, zxid, clock_us): (Lineage, Zxid, u64),
        tree: Tree,
        sessions: Sessions,
    ) -> Self {
        let who = Identities::superuser();
        Self { lineage, zxid, clock_us, tree, sessions, who, today: None }
    }

    /// The same for somebody else.
    pub(crate) fn seen_by(mut self, who: Identities) -> Self {
        self.show_to(who);
        self
    }

    /// From here on it shows what somebody else may see.
    pub(crate) fn show_to(&mut self, who: Identities) {
        self.who = who;
    }

    /// The same for a session, with the identities that it has in this very state.
    #[cfg(feature = "driver")]
    pub(crate) fn seen_by_session(
        self,
        id: crate::id::SessionId,
        epoch: u64,
    ) -> Result<Self, OpError> {
        let who = self.sessions.identities(id, epoch)?.clone();
        Ok(self.seen_by(who))
    }

    /// Goes back before a change, which is the last one that it shows.
    pub(super) fn undo(&mut self, change: &Change) {
        let path = change.path.shared();
        if let Some(owner) = change.after.as_ref().and_then(|value| value.owner) {
            self.sessions.disown(owner, path);
        }
        if let Some(owner) = change.before.as_ref().and_then(|value| value.owner) {
            self.sessions.own(owner, path);
        }
        self.tree.undo(change);
    }

    /// Before its first step back: from here on it is of the past.
    pub(super) fn into_past(self) -> Self {
        let today = (!self.who.is_super()).then(|| self.tree.clone());
        Self { today, ..self }
    }

    /// Says what it shows.
    pub(super) fn at(self, zxid: Zxid) -> Self {
        Self { zxid, ..self }
    }

    /// Who looks.
    pub fn identities(&self) -> &Identities {
        &self.who
    }

    /// The last transaction that it shows.
    pub fn zxid(&self) -> Zxid {
        self.zxid
    }

    /// Of which history its zxids are.
    pub fn lineage(&self) -> Lineage {
        self.lineage
    }

    /// The node, and whether whoever looks may read it.
    pub(super) fn znode(&self, path: &Path) -> Option<(&Znode, bool)> {
        let znode = self.tree.get(path.as_str())?;
        Some((znode, self.may_read(path.as_str(), znode)))
    }

    /// A node's data and stat.
    ///
    /// # Errors
    ///
    /// [`OpError::NoNode`], and [`OpError::NoAuth`] without [`Rights::READ`].
    pub fn read(&self, path: &Path) -> Result<(Bytes, Stat), OpError> {
        let znode = self.readable(path)?;
        Ok((znode.shared_data(), znode.stat()))
    }

    /// A node's stat, or `None` if there is no such node.
    ///
    /// # Errors
    ///
    /// [`OpError::NoAuth`] without [`Rights::READ`] on a node that is there, as in ZooKeeper from
    /// 3.9.2 on.
    pub fn stat(&self, path: &Path) -> Result<Option<Stat>, OpError> {
        match self.tree.get(path.as_str()) {
            Some(_) => self.readable(path).map(|znode| Some(znode.stat())),
            None => Ok(None),
        }
    }

    /// A page of a node's children, as it is asked for.
    ///
    /// ```no_run
    /// # use quorate::{OpError, Path, View};
    /// # fn all(view: &View, path: Path) -> Result<Vec<String>, OpError> {
    /// let (mut list, mut names) = (quorate::List::of(path).prefix("job-"), Vec::new());
    /// loop {
    ///     let page = view.list(&list)?;
    ///     names.extend(page.children.into_iter().map(|child| child.name));
    ///     let Some(resume) = page.resume else { break };
    ///     list = list.after(resume);
    /// }
    /// # Ok(names)
    /// # }
    /// ```
    ///
    /// Who may read a node may know the names of its children. A child comes with its stat and
    /// data only to those who may read it, too.
    ///
    /// # Errors
    ///
    /// [`OpError::NoNode`], and [`OpError::NoAuth`] without [`Rights::READ`].
    pub fn list(&self, list: &List) -> Result<Page, OpError> {
        let parent = self.readable(&list.path)?;
        Ok(self.tree.list(parent, list, |path, znode| self.may_read(path, znode)))
    }

    /// A node's access control list and its stat.
    ///
    /// # Errors
    ///
    /// [`OpError::NoNode`], and [`OpError::NoAuth`] with neither [`Rights::READ`] nor
    /// [`Rights::ADMIN`]; without the latter the hashes in the list are masked.
    pub fn acl(&self, path: &Path) -> Result<(Acl, Stat), OpError> {
        if self.today.is_some() {
            self.readable(path)?;
        }
        self.tree.acl(path, &self.who)
    }

    /// The quota that is set on a node, and what it counts; `None` if none is set on this one.
    ///
    /// # Errors
    ///
    /// [`OpError::NoNode`], and [`OpError::NoAuth`] without [`Rights::READ`].
    pub fn quota(&self, path: &Path) -> Result<Option<(Quota, Usage)>, OpError> {
        self.readable(path)?;
        Ok(self.tree.metered(path.as_str()).map(|metered| (metered.quota, metered.usage)))
    }

    /// How many nodes lie below a node, itself not counted, and whether there are more: it stops
    /// at `max`.
    ///
    /// Counting takes time as the subtree grows, and is done where it is asked for: the tree keeps
    /// no such counts, so that no write pays for them at every level above it.
    ///
    /// # Errors
    ///
    /// [`OpError::NoNode`], and [`OpError::NoAuth`] without [`Rights::READ`].
    pub fn descendants(&self, path: &Path, max: u64) -> Result<(u64, bool), OpError> {
        self.readable(path)?;
        let count = self.tree.descendants(path, max);
        count.ok_or_else(|| OpError::NoNode { path: path.clone() })
    }

    /// What is to be known of a session's own lease, or another one; `None` if there is no such
    /// lease.
    pub fn lease(&self, lease: LeaseId) -> Option<LeaseStat> {
        self.sessions.lease_stat(lease, self.clock_us)
    }

    /// A page of all leases, those of the sessions themselves among them, by id: the next
    /// [`LEASES_MAX`](Self::LEASES_MAX) after `after`. It is for whoever sees everything.
    ///
    /// # Errors
    ///
    /// [`OpError::NoAuth`] for somebody else.
    pub fn leases(&self, after: Option<LeaseId>) -> Result<Vec<LeaseStat>, OpError> {
        if !self.who.is_super() {
            return Err(OpError::NoAuth { path: Path::root(), right: Rights::ADMIN });
        }
        let ids = self.sessions.leases_after(after).take(Self::LEASES_MAX);
        Ok(ids.filter_map(|id| self.lease(id)).collect())
    }

    /// A page of the ephemeral nodes of a lease: those after `after` that may be read, of the next
    /// [`OWNED_MAX`](Self::OWNED_MAX) ones.
    ///
    /// # Errors
    ///
    /// [`OpError::NoLease`] if there is no such lease; a view of the [`Past`](crate::Past) knows
    /// the leases that live now.
    pub fn owned(&self, lease: LeaseId, after: Option<&Path>) -> Result<Owned, OpError> {
        let ephemerals = self.sessions.ephemerals(lease).ok_or(OpError::NoLease { lease })?;
        let start = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.as_str()));
        let mut rest = ephemerals.range::<_, str>((start, Bound::Unbounded));
        let path = |path: &Arc<str>| Path::from_shared_checked(Arc::clone(path));
        let mut paths: Vec<Path> = rest.by_ref().take(Self::OWNED_MAX).map(path).collect();
        let last = paths.last().cloned();
        paths.retain(|path| self.allows(path, Rights::READ));
        Ok(Owned { paths, resume: last.filter(|_| rest.next().is_some()) })
    }

    /// Whether whoever looks has all of these rights on a node, or there is no such node.
    pub fn allows(&self, path: &Path, rights: Rights) -> bool {
        self.tree.get(path.as_str()).is_none_or(|znode| {
            znode.allows(&self.who, rights)
                && (!rights.contains(Rights::READ) || self.may_read(path.as_str(), znode))
        })
    }

    fn readable(&self, path: &Path) -> Result<&Znode, OpError> {
        let znode = self.tree.readable(path, &self.who)?;
        if self.may_read(path.as_str(), znode) {
            return Ok(znode);
        }
        Err(OpError::NoAuth { path: path.clone(), right: Rights::READ })
    }

    fn may_read(&self, path: &str, znode: &Znode) -> bool {
        let hidden = |now: &Znode| now.czxid == znode.czxid && !now.allows(&self.who, Rights::READ);
        let today = self.today.as_ref().and_then(|today| today.get(path));
        znode.allows(&self.who, Rights::READ) && !today.is_some_and(hidden)
    }
}

/// Two views of one cluster are the same if they show the same transaction to the same people.
impl PartialEq for View {
    fn eq(&self, other: &Self) -> bool {
        self.zxid == other.zxid && self.who == other.who
    }
}

impl Eq for View {}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View({:?}, {} znodes)", self.zxid, self.tree.len())
    }
}
