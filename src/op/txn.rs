//! Transactions: what must hold, and what happens then.

use bytes::Bytes;

use crate::{
    config::Parameters,
    id::{LeaseId, Zxid},
    op::{CreateMode, Lifetime, LimitName, Op},
    path::Path,
};

/// A condition on one node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Guard {
    /// The node that is looked at.
    pub path: Path,
    /// What must be true of it.
    pub check: Check,
}

/// What a [`Guard`] asks of a node. All but [`Check::Exists`] fail where there is no node.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Check {
    /// The node exists, or does not.
    Exists(bool),
    /// Its data is at this version.
    Version(u64),
    /// It was created by this transaction: the fencing token is still the holder's.
    Czxid(Zxid),
    /// It is an ephemeral node of this session.
    Owner(LeaseId),
    /// A number of its stat stands in this relation to another.
    Compare {
        /// Which number.
        field: Field,
        /// How it must stand to the other.
        is: Relation,
        /// The other.
        to: u64,
    },
    /// Its data stands in this relation to other data, byte by byte.
    Value {
        /// How it must stand to the other.
        is: Relation,
        /// The other.
        to: Bytes,
    },
}

impl Check {
    pub(crate) fn data_bytes(&self) -> usize {
        match self {
            Self::Value { to, .. } => to.len(),
            _ => 0,
        }
    }
}

/// A number of a [`Stat`](crate::Stat) that a [`Check`] compares.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Field {
    /// Changes of the data.
    Version,
    /// Changes of the list of children.
    Cversion,
    /// Changes of the access control list.
    Aversion,
    /// The transaction that created the node.
    Czxid,
    /// The transaction that last changed its data.
    Mzxid,
    /// The transaction that last changed its list of children.
    Pzxid,
    /// Number of children.
    Children,
    /// Bytes of data.
    DataLength,
}

/// How two values stand to each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Relation {
    /// They are the same.
    Equal,
    /// They are not the same.
    NotEqual,
    /// The node's is less.
    Less,
    /// The node's is greater.
    Greater,
}

impl Relation {
    /// Whether `left` stands so to `right`.
    pub(crate) fn holds<T: Ord + ?Sized>(self, left: &T, right: &T) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Less => left < right,
            Self::Greater => left > right,
        }
    }
}

/// Operations that take effect together, if the guards hold, in one zxid.
///
/// One operation is ZooKeeper's single request, and its outcome is the operation's own. Several are
/// ZooKeeper's `multi`, with [`Op::Check`] among them; with a second branch they are etcd's
/// transaction. Operations happen in order, and each sees what those before it did. If one is
/// refused, nothing has happened, and [`OpError::InTxn`](crate::OpError::InTxn) names it.
///
/// A guard on a fencing token makes any write conditional on still being the owner:
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
///
/// With a second branch, a guard that does not hold is no error:
///
/// ```
/// use quorate::{Check, Guard, Op, Path, Txn};
/// let path: Path = "/config".parse()?;
/// let swap = Txn::all([Op::Set { path: path.clone(), data: "new".into(), version: None }])
///     .guard(Guard { path: path.clone(), check: Check::Version(3) })
///     .or_else([Op::Get { path }]);
/// assert_eq!(swap.ops().count(), 2);
/// # Ok::<(), quorate::PathError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Txn {
    guards: Vec<Guard>,
    body: Body,
    /// Whether a client of ZooKeeper asks: then counters are 32 bits wide. A version is compared
    /// by those bits, and a sequential name has the signed number that they are, taken or not.
    zookeeper: bool,
}

/// What a transaction does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Body {
    /// One operation, whose outcome is the transaction's.
    One(Step),
    /// Several, and what happens instead if the guards do not hold; without it, that is an error.
    Many { then: Vec<Step>, otherwise: Option<Vec<Step>> },
}

/// An operation, and what only a client of ZooKeeper means by one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Step {
    pub(crate) op: Op,
    /// Of a create or a set without data: the data is null.
    pub(crate) null: bool,
}

impl Step {
    /// The data that a create or a set brings, unless it is null.
    pub(crate) fn given<'a>(&self, data: &'a Bytes) -> Option<&'a Bytes> {
        (!self.null).then_some(data)
    }
}

impl From<Op> for Step {
    fn from(op: Op) -> Self {
        Self { op, null: false }
    }
}

impl Txn {
    /// The most guards of one transaction.
    pub const GUARDS_MAX: usize = 64;

    /// One operation; its outcome is the transaction's.
    pub fn new(op: Op) -> Self {
        Self::with_body(Body::One(op.into()))
    }

    /// Operations of which all or none take effect; the outcome is
    /// [`Outcome::Txn`](crate::Outcome::Txn), also for a single one.
    pub fn all(ops: impl IntoIterator<Item = Op>) -> Self {
        Self::with_body(Body::Many { then: steps(ops), otherwise: None })
    }

    /// Adds a condition on the tree before the transaction.
    #[must_use]
    pub fn guard(mut self, guard: Guard) -> Self {
        self.guards.push(guard);
        self
    }

    /// Adds an operation. A transaction made by [`Txn::new`] is one of several from here on.
    #[must_use]
    pub fn then(mut self, op: Op) -> Self {
        self.body = match self.body {
            Body::One(first) => Body::Many { then: vec![first, op.into()], otherwise: None },
            Body::Many { mut then, otherwise } => {
                then.push(op.into());
                Body::Many { then, otherwise }
            }
        };
        self
    }

    /// What happens instead if a guard does not hold; may be nothing. A second call adds to the
    /// first one's.
    #[must_use]
    pub fn or_else(mut self, ops: impl IntoIterator<Item = Op>) -> Self {
        let (then, otherwise) = match self.body {
            Body::One(op) => (vec![op], None),
            Body::Many { then, otherwise } => (then, otherwise),
        };
        let mut otherwise = otherwise.unwrap_or_default();
        otherwise.extend(steps(ops));
        self.body = Body::Many { then, otherwise: Some(otherwise) };
        self
    }

    /// The conditions, in the order in which they are looked at.
    pub fn guards(&self) -> &[Guard] {
        &self.guards
    }

    /// All operations, those of the second branch last.
    pub fn ops(&self) -> impl Iterator<Item = &Op> {
        let (then, otherwise) = match &self.body {
            Body::One(step) => (std::slice::from_ref(step), &[][..]),
            Body::Many { then, otherwise } => (&then[..], otherwise.as_deref().unwrap_or(&[])),
        };
        then.iter().chain(otherwise).map(|step| &step.op)
    }

    /// A transaction that does this, without guards.
    pub(crate) fn with_body(body: Body) -> Self {
        Self { guards: Vec::new(), body, zookeeper: false }
    }

    /// The same, as a client of ZooKeeper asks for it.
    pub(crate) fn for_zookeeper(self) -> Self {
        Self { zookeeper: true, ..self }
    }

    pub(crate) fn is_for_zookeeper(&self) -> bool {
        self.zookeeper
    }

    pub(crate) fn body(&self) -> &Body {
        &self.body
    }

    /// Whether its results can be longer than those of one write.
    pub(crate) fn is_verbose(&self) -> bool {
        match &self.body {
            Body::One(step) => !step.op.is_write(),
            Body::Many { .. } => true,
        }
    }

    /// The first limit that the transaction passes, with the value and what is allowed; looks at
    /// both branches.
    pub(crate) fn excess(&self, parameters: &Parameters) -> Option<(LimitName, u64, u64)> {
        let above = |limit, value: usize, max: u64| {
            (value as u64 > max).then_some((limit, value as u64, max))
        };
        let payload_max = parameters.payload_bytes_max;
        if let (Body::One(step), true) = (&self.body, self.guards.is_empty()) {
            return op_excess(&step.op, payload_max);
        }
        let guards = self.guards.iter().map(|guard| guard.check.data_bytes());
        let lists = self.ops().map(|op| match op {
            Op::Create { acl: Some(acl), .. } => acl.bytes(),
            _ => 0,
        });
        let data = self.ops().map(Op::data_bytes);
        let bytes = guards.chain(lists).chain(data).sum();
        above(LimitName::Guards, self.guards.len(), Self::GUARDS_MAX as u64)
            .or_else(|| above(LimitName::Operations, self.ops().count(), parameters.txn_ops_max))
            .or_else(|| self.ops().find_map(|op| op_excess(op, payload_max)))
            .or_else(|| above(LimitName::TxnBytes, bytes, payload_max))
    }
}

impl From<Op> for Txn {
    fn from(op: Op) -> Self {
        Self::new(op)
    }
}

fn steps(ops: impl IntoIterator<Item = Op>) -> Vec<Step> {
    ops.into_iter().map(Step::from).collect()
}

fn op_excess(op: &Op, payload_max: u64) -> Option<(LimitName, u64, u64)> {
    let bytes = op.data_bytes() as u64;
    if bytes > payload_max {
        return Some((LimitName::PayloadBytes, bytes, payload_max));
    }
    match op {
        Op::Create { mode, .. } => {
            let Lifetime::Ttl(ttl) = mode.lifetime() else {
                return None;
            };
            let max = CreateMode::TTL_MAX.as_millis() as u64;
            let value = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
            (!(1..=max).contains(&value)).then_some((LimitName::NodeTtl, value, max))
        }
        Op::List(list) => {
            let longest = list.after.as_ref().map_or(0, String::len).max(list.prefix.len());
            let (value, max) = (longest as u64, Path::BYTES_MAX as u64);
            (value > max).then_some((LimitName::PathBytes, value, max))
        }
        _ => None,
    }
}
