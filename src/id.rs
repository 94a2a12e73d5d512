//! Names of things that must never be confused: members, clusters, stores, sessions, transactions.
//!
//! Each is a type of its own, checked when made. Nothing here allocates.

use std::{fmt, num::NonZeroU64};

use sha2::{Digest, Sha256};

/// A member of the cluster, from 1 to 2^62 - 1; an id is never used again after its removal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(NonZeroU64);

impl NodeId {
    /// The checked id, or `None` for 0 and for anything from 2^62 on.
    ///
    /// ```
    /// use quorate::NodeId;
    /// assert!(NodeId::new(0).is_none());
    /// assert_eq!(NodeId::new(3).map(NodeId::as_u64), Some(3));
    /// ```
    pub const fn new(id: u64) -> Option<Self> {
        if id >= 1 << 62 {
            return None;
        }
        match NonZeroU64::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// The id as a number.
    pub const fn as_u64(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// Which cluster a member, a frame or a file belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId([u8; 16]);

impl ClusterId {
    /// The id of the cluster with this name: the same name gives the same id everywhere.
    ///
    /// ```
    /// use quorate::ClusterId;
    /// assert_eq!(ClusterId::named("orders"), ClusterId::named("orders"));
    /// assert_ne!(ClusterId::named("orders"), ClusterId::named("billing"));
    /// ```
    pub fn named(name: &str) -> Self {
        let hash = Sha256::digest(name.as_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        Self(id)
    }

    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The id's bytes, as they stand in frames and files.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// One data directory: drawn at random when it is made, and lost with it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId([u8; 16]);

impl StoreId {
    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The id's bytes, as they stand in frames and files.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// One opening of a store: a counter that is durable before the store speaks, and a random nonce.
///
/// A store that was rolled back to an older disk image shows a counter that its peers have seen
/// with another nonce, or one below it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Boot {
    /// How often the store was opened, this time included.
    pub counter: u64,
    /// Drawn at random for this opening.
    pub nonce: u64,
}

/// Who speaks: the store, and which of its openings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Incarnation {
    /// The data directory.
    pub store: StoreId,
    /// Its opening.
    pub boot: Boot,
}

/// A session, from 1 to 2^56 - 1, as ZooKeeper's ids leave the high byte to node kinds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(NonZeroU64);

impl SessionId {
    /// The checked id, or `None` for 0 and for anything from 2^56 on.
    pub const fn new(id: u64) -> Option<Self> {
        if id >= 1 << 56 {
            return None;
        }
        match NonZeroU64::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// The id as a number.
    pub const fn as_u64(self) -> u64 {
        self.0.get()
    }
}

impl SessionId {
    /// The lease that the session itself is: it has the session's number.
    pub const fn lease(self) -> LeaseId {
        LeaseId(self.0)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{:#x}", self.0)
    }
}

/// What ephemeral nodes live with, from 1 to 2^56 - 1: a session itself, which has its own number,
/// or a lease that a session was granted beside it. No two of them ever have the same number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(NonZeroU64);

impl LeaseId {
    /// The checked id, or `None` for 0 and for anything from 2^56 on.
    ///
    /// ```
    /// use quorate::{LeaseId, SessionId};
    /// let session = SessionId::new(7).expect("not 0");
    /// assert_eq!(LeaseId::new(7), Some(session.lease()));
    /// ```
    pub const fn new(id: u64) -> Option<Self> {
        match SessionId::new(id) {
            Some(id) => Some(id.lease()),
            None => None,
        }
    }

    /// The id as a number.
    pub const fn as_u64(self) -> u64 {
        self.0.get()
    }

    /// The session with this number, if it is a session's.
    pub(crate) const fn session(self) -> SessionId {
        SessionId(self.0)
    }
}

impl From<SessionId> for LeaseId {
    fn from(session: SessionId) -> Self {
        session.lease()
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "l{:#x}", self.0)
    }
}

/// The number of a committed transaction that changed the tree, or the set of sessions
/// and leases.
///
/// One counter for the whole cluster, +1 per such transaction; failed operations, keep-alives and
/// clock advances do not count. It is also the fencing token of what the transaction created.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Zxid(u64);

impl Zxid {
    /// Before the first transaction.
    pub const ZERO: Self = Self(0);

    /// The transaction with this number.
    pub const fn new(zxid: u64) -> Self {
        Self(zxid)
    }

    /// The number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    pub(crate) const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    pub(crate) const fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "z{}", self.0)
    }
}

/// One history of a cluster: random, another one for each founding, also from a backup.
///
/// Zxids of two lineages say nothing of each other. Whoever keeps a zxid for longer than a node
/// runs, to [resume a watch](crate::node::Watch) from it, keeps its lineage with it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lineage([u8; 16]);

impl Lineage {
    /// What a member knows that has applied no entry of a leader: there is no transaction yet.
    pub const NONE: Self = Self([0; 16]);

    /// The lineage with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes, to be kept with a zxid.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// That of the cluster whose log names this store first, which was drawn for that cluster.
    pub(crate) const fn of(first: StoreId) -> Self {
        Self(first.0)
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A client's 128-bit secret: names its session's creation, and lets it attach elsewhere.
///
/// The log and the disk hold its SHA-256 only, and `Debug` shows nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret([u8; 16]);

impl Secret {
    /// The secret with these bytes, which must come from a good random source.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// What the replicated state keeps of it.
    /// Its bytes, for the client that it belongs to.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    pub(crate) fn hash(&self) -> SecretHash {
        SecretHash(Sha256::digest(self.0).into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The SHA-256 of a [`Secret`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SecretHash(pub(crate) [u8; 32]);

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

/// A submission outside any session's sequence: where it was made, and which one it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Origin {
    pub(crate) node: NodeId,
    pub(crate) boot_nonce: u64,
    pub(crate) counter: u64,
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}
