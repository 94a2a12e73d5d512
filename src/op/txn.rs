//! Transactions: what must hold, and what happens then.

use crate::{
    id::{SessionId, Zxid},
    op::Op,
    path::Path,
};

/// A condition that must hold for a transaction to change anything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Guard {
    /// The node that is looked at.
    pub path: Path,
    /// What must be true of it.
    pub check: Check,
}

/// What a [`Guard`] asks of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Check {
    /// The node exists, or does not.
    Exists(bool),
    /// Its data is at this version.
    Version(u64),
    /// It was created by this transaction: the fencing token is still the holder's.
    Czxid(Zxid),
    /// It is an ephemeral node of this session.
    Owner(SessionId),
}

/// An operation that takes effect only if all its guards hold.
///
/// ```
/// use quorate::{Check, Guard, Op, Path, Txn, Zxid};
/// let lock: Path = "/locks/a/x-0000000000".parse()?;
/// let fenced = Txn::new(Op::Set {
///     path: "/owner".parse()?,
///     data: "me".into(),
///     version: None,
/// })
/// .guard(Guard { path: lock, check: Check::Czxid(Zxid::new(17)) });
/// assert_eq!(fenced.guards().len(), 1);
/// # Ok::<(), quorate::PathError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Txn {
    guards: Vec<Guard>,
    op: Op,
}

impl Txn {
    /// The most guards of one transaction.
    pub const GUARDS_MAX: usize = 64;

    /// A transaction without guards.
    pub fn new(op: Op) -> Self {
        Self { guards: Vec::new(), op }
    }

    /// Adds a condition.
    #[must_use]
    pub fn guard(mut self, guard: Guard) -> Self {
        self.guards.push(guard);
        self
    }

    /// The conditions, in the order in which they are looked at.
    pub fn guards(&self) -> &[Guard] {
        &self.guards
    }

    /// What happens if they hold.
    pub fn op(&self) -> &Op {
        &self.op
    }
}

impl From<Op> for Txn {
    fn from(op: Op) -> Self {
        Self::new(op)
    }
}
