//! Rights: who may do what to which node. Every decision on a right is made here.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    id::SessionId,
    mutant::Mutant,
    namespace::{
        digest,
        history::{Change, Parent},
        tree::Tree,
        znode::{Special, Stamp, Value, Znode},
    },
    op::{Acl, Detail, EventKind, Identities, OpError, Outcome, Rights, Stat},
    path::Path,
};

/// Whose transaction it is.
pub(super) struct Actor {
    pub(super) session: Option<SessionId>,
    pub(super) who: Identities,
}

/// The changes of one transaction, for what stood between two of its operations was never there
/// for anybody: who may learn of a node's change could read the node under all of its lists.
#[derive(Debug)]
pub(crate) struct Lists<'a> {
    /// Only if there are several changes, and a list among them.
    by_path: BTreeMap<&'a str, Vec<&'a Change>>,
}

impl<'a> Lists<'a> {
    /// Of all changes of a transaction.
    pub(crate) fn new(changes: impl IntoIterator<Item = &'a Change> + Clone) -> Self {
        let mut by_path = BTreeMap::new();
        let lists = |it: &Change| it.values().any(|value| value.acl().is_some());
        if changes.clone().into_iter().nth(1).is_some() && changes.clone().into_iter().any(lists) {
            for change in changes {
                by_path.entry(change.path.as_str()).or_insert_with(Vec::new).push(change);
            }
        }
        Self { by_path }
    }

    /// The last change of a node, if there are lists among all of them.
    pub(super) fn last(&self, path: &str) -> Option<&'a Change> {
        self.by_path.get(path)?.last().copied()
    }

    /// How much somebody may learn of a change, as far as the lists of its transaction say.
    pub(super) fn allow(&self, it: &Change, who: &Identities) -> Option<Detail> {
        let may_read =
            |value: &Arc<Value>| value.acl().is_none_or(|acl| acl.allows(who, Rights::READ));
        if Mutant::RightsOfToday.active() {
            return Some(Detail::BeforeAndAfter);
        }
        let one = [it];
        let same = self.by_path.get(it.path.as_str()).map_or(&one[..], |it| &it[..]);
        if !same.iter().all(|it| it.values().next().is_none_or(may_read)) {
            return None;
        }
        let before = same.iter().all(|it| it.before.as_ref().is_none_or(may_read));
        let last = same.last().is_none_or(|last| std::ptr::eq(*last, it));
        Some(match (before, last) {
            (true, _) => Detail::BeforeAndAfter,
            (false, true) => Detail::After,
            // What it was in between has parts of what was before.
            (false, false) => Detail::Path,
        })
    }
}

impl Change {
    /// The node's list after it, or before a deletion; without one, everything is granted.
    pub(crate) fn acl(&self) -> Option<&Acl> {
        self.values().next()?.acl()
    }

    /// The node in force, after it unless it is a deletion, first; then before it.
    fn values(&self) -> impl Iterator<Item = &Arc<Value>> {
        self.after.iter().chain(&self.before)
    }
}

impl Value {
    /// The node's list; without one, everything is granted to everybody.
    pub(super) fn acl(&self) -> Option<&Acl> {
        self.kept_acl().map(|kept| &kept.acl)
    }

    pub(super) fn kept_acl(&self) -> Option<&KeptAcl> {
        self.special.as_ref()?.acl.as_ref()
    }
}

/// A list as nodes keep it: what each change of such a node asks of it is worked out once. Most
/// nodes share that of their parent.
#[derive(Clone, Eq, Debug)]
pub(super) struct KeptAcl {
    acl: Acl,
    hash: u64,
    bytes: usize,
}

impl KeptAcl {
    /// `None` for one that grants everything to everybody: that is as if there were none.
    pub(super) fn new(acl: Acl) -> Option<Self> {
        if acl.is_open() {
            return None;
        }
        Some(Self { hash: digest::of_acl(&acl), bytes: acl.bytes(), acl })
    }

    /// That of the parent, if it is the same.
    fn like(acl: Acl, parent: &Znode) -> Option<Self> {
        let above = parent.kept_acl().filter(|above| above.acl == acl).cloned();
        above.or_else(|| Self::new(acl))
    }

    /// What it comes to in the digest.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// What it counts for against limits.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl PartialEq for KeptAcl {
    fn eq(&self, other: &Self) -> bool {
        let shared = || std::ptr::eq(self.acl.grants(), other.acl.grants());
        self.hash == other.hash && (shared() || self.acl == other.acl)
    }
}

impl Znode {
    pub(super) fn allows(&self, who: &Identities, right: Rights) -> bool {
        self.acl().is_none_or(|acl| acl.allows(who, right))
    }

    /// A number of the node, as an error tells of it: only to those who may read the node.
    pub(super) fn shown(&self, number: u64, who: &Identities) -> Option<u64> {
        self.allows(who, Rights::READ).then_some(number)
    }

    /// Refuses who has not this right on the node.
    pub(super) fn require(
        &self,
        path: &str,
        who: &Identities,
        right: Rights,
    ) -> Result<(), OpError> {
        if self.allows(who, right) {
            return Ok(());
        }
        Err(OpError::NoAuth { path: Path::from_shared_checked(Arc::from(path)), right })
    }
}

impl Tree {
    /// The node, for somebody who reads it.
    pub(super) fn readable(&self, path: &Path, who: &Identities) -> Result<&Znode, OpError> {
        let znode = self.existing(path)?;
        znode.require(path.as_str(), who, Rights::READ)?;
        Ok(znode)
    }

    /// The stat of a node, if there is one, for somebody who reads it.
    pub(super) fn stat(&self, path: &Path, who: &Identities) -> Result<Option<Stat>, OpError> {
        let Some(znode) = self.get(path.as_str()) else {
            return Ok(None);
        };
        znode.require(path.as_str(), who, Rights::READ)?;
        Ok(Some(znode.stat()))
    }

    /// Whether the node of a change may be read now, or is gone.
    pub(super) fn shows(&self, change: &Change, who: &Identities) -> bool {
        let value = change.after.as_ref();
        let same = |znode: &&Znode| value.is_some_and(|value| value.czxid == znode.czxid);
        let now = self.get(change.path.as_str()).filter(same);
        now.is_none_or(|znode| znode.allows(who, Rights::READ))
    }

    /// The node that must be there.
    pub(super) fn existing(&self, path: &Path) -> Result<&Znode, OpError> {
        self.get(path.as_str()).ok_or_else(|| OpError::NoNode { path: path.clone() })
    }

    /// Refuses who may not delete children of the node above.
    pub(super) fn require_delete(&self, path: &str, who: &Identities) -> Result<(), OpError> {
        let above = super::tree::parent(path).unwrap_or("/");
        self.get(above).map_or(Ok(()), |znode| znode.require(above, who, Rights::DELETE))
    }

    /// The same below a node; what is refused is named only as far as they may know of it, for the
    /// names of children are for those who may read their parent.
    pub(super) fn require_delete_below(
        &self,
        top: &Path,
        path: &str,
        who: &Identities,
    ) -> Result<(), OpError> {
        self.require_delete(path, who).map_err(|error| match error {
            OpError::NoAuth { path, right } => {
                let known = self.known(top.as_str(), path.as_str(), who);
                OpError::NoAuth { path: Path::from_shared_checked(Arc::from(known)), right }
            }
            error => error,
        })
    }

    /// As much of a path, from `top` on, as somebody may know of who knows `top`.
    fn known<'a>(&self, top: &str, path: &'a str, who: &Identities) -> &'a str {
        let mut end = top.len();
        while end < path.len() {
            let reads = |znode: &Znode| znode.allows(who, Rights::READ);
            if !self.get(&path[..end]).is_some_and(reads) {
                break;
            }
            end = path[end + 1..].find('/').map_or(path.len(), |next| end + 1 + next);
        }
        &path[..end]
    }

    /// Replaces a node's list.
    pub(super) fn set_acl(
        &mut self,
        path: &Path,
        acl: &Acl,
        version: Option<u64>,
        who: &Identities,
        at: Stamp,
    ) -> Result<(Outcome, Change), OpError> {
        let znode = self.existing(path)?;
        znode.require(path.as_str(), who, Rights::ADMIN)?;
        let special = znode.special.as_deref().cloned().unwrap_or_default();
        let (path, actual) = (path.clone(), special.aversion);
        if let Some(expected) = version.filter(|&version| version != actual) {
            let actual = znode.shown(actual, who);
            return Err(OpError::BadVersion { path, expected, actual });
        }
        let Some(acl) = acl.resolve(who) else {
            return Err(OpError::InvalidAcl { path });
        };
        let special = Special { acl: KeptAcl::new(acl), aversion: actual + 1, ..special };
        let hash = digest::of_path(path.as_str());
        let changed = self.change_hashed(path.as_str(), hash, |znode| {
            let before = Arc::clone(&znode.value);
            Arc::make_mut(&mut znode.value).special = Some(Arc::new(special));
            (znode.stat(), before, Arc::clone(&znode.value), znode.listing)
        });
        let Some(((stat, before, after, listing), znode_hash)) = changed else {
            return Err(OpError::NoNode { path });
        };
        let change = Change {
            zxid: at.zxid,
            kind: Some(EventKind::AclChanged),
            path,
            before: Some(before),
            after: Some(after),
            listing,
            children: stat.children,
            parent: Parent::default(),
            metered: None,
            hash: 0,
        };
        Ok((Outcome::AclSet { stat }, change.hashed(hash, [znode_hash, 0])))
    }

    /// A node's list; hashes in it are only for those who may replace it.
    pub(super) fn acl(&self, path: &Path, who: &Identities) -> Result<(Acl, Stat), OpError> {
        let znode = self.existing(path)?;
        let admin = znode.allows(who, Rights::ADMIN);
        if !admin {
            znode.require(path.as_str(), who, Rights::READ)?;
        }
        let acl = znode.acl().cloned().unwrap_or_else(Acl::open);
        let acl = if admin { acl } else { acl.masked() };
        Ok((acl, znode.stat()))
    }
}

/// What a node to be made has beside its data: its list is its parent's, unless it has its own.
pub(super) fn special_of(
    parent: &Znode,
    acl: Option<&Acl>,
    lifetime: crate::op::Lifetime,
    (path, who): (&Path, &Identities),
    at: Stamp,
) -> Result<Option<Arc<Special>>, OpError> {
    let acl = match acl {
        None => parent.kept_acl().cloned(),
        // As nearly every client of ZooKeeper says.
        Some(acl) if acl.is_open() => None,
        Some(acl) => {
            let resolved = acl.resolve(who);
            let acl = resolved.ok_or_else(|| OpError::InvalidAcl { path: path.clone() })?;
            KeptAcl::like(acl, parent)
        }
    };
    let special = Special::new(acl, 0, lifetime, at.clock_us);
    Ok(special.map(|special| shared(special, parent)))
}

/// Most nodes have what their parent has: then it is kept once.
pub(super) fn shared(special: Special, parent: &Znode) -> Arc<Special> {
    match &parent.special {
        Some(above) if **above == special => Arc::clone(above),
        Some(above) if above.acl == special.acl => {
            Arc::new(Special { acl: above.acl.clone(), ..special })
        }
        _ => Arc::new(special),
    }
}
