//! The tree as it was, at every zxid that the history still reaches.

use std::{collections::BTreeSet, fmt, sync::Arc};

use thiserror::Error;

use crate::{
    id::Zxid,
    namespace::{
        history::History,
        view::View,
        znode::{Value, Znode},
    },
    op::{Content, Identities},
    path::Path,
};

/// The tree now, and at every zxid that is retained.
///
/// Cheap to make and to clone. Going back is done where it is asked for, on any thread, and takes
/// time with the number of changes since; what comes of it is a [`View`] like any other. Holding
/// one keeps the history alive, so let it go after use.
///
/// ```no_run
/// # use quorate::{Past, Zxid};
/// # fn example(past: Past, seen: Zxid) -> Result<(), Box<dyn std::error::Error>> {
/// let then = past.at(seen)?;
/// println!("{:?}", then.read(&"/config".parse()?));
/// for it in past.diff(seen, past.newest())? {
///     println!("{} {:?}", it.path, it.kind);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Past {
    now: View,
    history: History,
}

impl Past {
    pub(super) fn new(now: View, history: History) -> Self {
        Self { now, history }
    }

    /// The same for somebody else.
    pub(crate) fn seen_by(self, who: Identities) -> Self {
        Self { now: self.now.seen_by(who), ..self }
    }

    /// The oldest zxid that is retained.
    pub fn oldest(&self) -> Zxid {
        self.history.floor()
    }

    /// The last transaction.
    pub fn newest(&self) -> Zxid {
        self.now.zxid()
    }

    /// The tree as it is now.
    pub fn now(&self) -> &View {
        &self.now
    }

    /// The tree as it was after one transaction.
    ///
    /// # Errors
    ///
    /// [`PastError`] when the history does not reach it.
    pub fn at(&self, zxid: Zxid) -> Result<View, PastError> {
        self.check(zxid)?;
        Ok(self.back(self.now.clone().into_past(), zxid, |_| {}))
    }

    /// The nodes that differ between two transactions, whichever is the earlier, in path order.
    ///
    /// A node differs whose data or access control list was replaced, though it be by the same, or
    /// that is another one: a parent whose list of children alone has changed is told of by them.
    /// One that whoever looks may not read at one of the two, or today if it still lives, is
    /// passed over.
    ///
    /// # Errors
    ///
    /// [`PastError`] when the history does not reach one of them.
    pub fn diff(&self, from: Zxid, to: Zxid) -> Result<Diff, PastError> {
        self.check(from)?;
        self.check(to)?;
        let (earlier, later) = (from.min(to), from.max(to));
        let later = self.back(self.now.clone().into_past(), later, |_| {});
        let mut paths = BTreeSet::new();
        let earlier = self.back(later.clone(), earlier, |path| {
            paths.insert(path.clone());
        });
        let (from, to) = if from <= to { (earlier, later) } else { (later, earlier) };
        Ok(Diff { before: from, after: to, paths })
    }

    fn check(&self, zxid: Zxid) -> Result<(), PastError> {
        if zxid < self.oldest() {
            return Err(PastError::Compacted { zxid, oldest: self.oldest() });
        }
        if zxid > self.newest() {
            return Err(PastError::Behind { zxid, applied: self.newest() });
        }
        Ok(())
    }

    /// Goes back, and tells of each node that it changes.
    fn back(&self, mut view: View, zxid: Zxid, mut tell: impl FnMut(&Path)) -> View {
        let newest = view.zxid();
        for change in self.history.back_to(zxid).skip_while(|change| change.zxid > newest) {
            view.undo(change);
            tell(&change.path);
        }
        view.at(zxid)
    }
}

impl fmt::Debug for Past {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (oldest, changes) = (self.oldest(), self.history.len());
        write!(f, "Past({:?}, {changes} changes after {oldest:?})", self.now)
    }
}

/// Why a zxid cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum PastError {
    /// It lies before the history.
    #[error("{zxid} is no longer retained; the oldest zxid that can be read is {oldest}")]
    Compacted {
        /// What was to be read.
        zxid: Zxid,
        /// The oldest that can be.
        oldest: Zxid,
    },
    /// This node has not applied it.
    #[error("{zxid} lies ahead: this node has applied {applied}")]
    Behind {
        /// What was to be read.
        zxid: Zxid,
        /// What the node has applied.
        applied: Zxid,
    },
}

/// The nodes that differ between two zxids; each is looked up when it is asked for.
#[derive(Clone)]
pub struct Diff {
    before: View,
    after: View,
    /// That may differ, and were not looked at yet.
    paths: BTreeSet<Path>,
}

impl Diff {
    /// The tree at the first zxid.
    pub fn before(&self) -> &View {
        &self.before
    }

    /// The tree at the second zxid.
    pub fn after(&self) -> &View {
        &self.after
    }
}

impl Iterator for Diff {
    type Item = Difference;

    fn next(&mut self) -> Option<Difference> {
        while let Some(path) = self.paths.pop_first() {
            let (before, after) = (self.before.znode(&path), self.after.znode(&path));
            let hidden = [before, after].into_iter().flatten().any(|(_, may_read)| !may_read);
            if hidden {
                continue;
            }
            let (before, after) = (before.map(|it| it.0), after.map(|it| it.0));
            if let Some(kind) = kind(before.map(|it| &it.value), after.map(|it| &it.value)) {
                let content =
                    |znode: &Znode| Content { data: znode.shared_data(), stat: znode.stat() };
                let (before, after) = (before.map(content), after.map(content));
                return Some(Difference { path, kind, before, after });
            }
        }
        None
    }
}

impl fmt::Debug for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Diff({:?} to {:?})", self.before.zxid(), self.after.zxid())
    }
}

/// A node that differs between two zxids.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Difference {
    /// The node.
    pub path: Path,
    /// In what it differs.
    pub kind: DifferenceKind,
    /// The node at the first zxid, if it was there.
    pub before: Option<Content>,
    /// The node at the second zxid, if it was there.
    pub after: Option<Content>,
}

/// In what a node differs between two zxids.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum DifferenceKind {
    /// It is there only at the second.
    Created,
    /// It is there only at the first.
    Deleted,
    /// It is another node of the same path: deleted, and made anew.
    Recreated,
    /// It is the same node.
    Changed {
        /// Its data was replaced.
        data: bool,
        /// Its access control list was replaced.
        acl: bool,
    },
}

fn kind(before: Option<&Arc<Value>>, after: Option<&Arc<Value>>) -> Option<DifferenceKind> {
    match (before, after) {
        (None, None) => None,
        (None, Some(_)) => Some(DifferenceKind::Created),
        (Some(_), None) => Some(DifferenceKind::Deleted),
        (Some(before), Some(after)) if before.czxid != after.czxid => {
            Some(DifferenceKind::Recreated)
        }
        (Some(before), Some(after)) => {
            let (data, acl) =
                (before.version != after.version, before.aversion() != after.aversion());
            (data || acl).then_some(DifferenceKind::Changed { data, acl })
        }
    }
}
