//! A digest of the whole state, kept up with each change (ARCHITECTURE.md, rule 2).
//!
//! It is a sum, modulo 2^64, of one hash for each thing that the state holds, so that a change
//! takes away what was and adds what is. The hash is our own, for it must never change under us: it
//! is part of [`Digest::VERSION`]. It finds what computes or remembers wrongly, not who forges.

use crate::{
    command::access::{acl_to_bytes, identities_to_bytes},
    config::Parameters,
    id::{LeaseId, Lineage, SessionId, Zxid},
    namespace::{
        access::KeptAcl,
        history::{Change, Parent},
        lease::Lease,
        quota::Metered,
        record::reply_to_bytes,
        session::Session,
        znode::Znode,
    },
    op::{Acl, EventKind, Identities, Lifetime, Outcome, Reply, Stat},
};

/// What the state comes to; two of the same version are equal if the states are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Digest {
    pub(crate) version: u32,
    pub(crate) value: u64,
}

impl Digest {
    /// Counts changes of what is hashed, and how.
    pub(crate) const VERSION: u32 = 1;
}

/// The sum over a part of the state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Sum(u64);

impl Sum {
    pub(super) fn add(&mut self, item: u64) {
        self.0 = self.0.wrapping_add(item);
    }

    pub(super) fn remove(&mut self, item: u64) {
        self.0 = self.0.wrapping_sub(item);
    }

    pub(super) fn value(self) -> u64 {
        self.0
    }
}

/// The numbers beside the parts, as they stand in the head of a snapshot.
pub(super) struct Head<'a> {
    pub(super) parameters: &'a Parameters,
    pub(super) lineage: Lineage,
    pub(super) zxid: Zxid,
    pub(super) clock_us: u64,
    pub(super) wall_ms: u64,
    pub(super) next_session: u64,
    pub(super) floor: Zxid,
}

/// The digest of a state with this head and these parts.
pub(super) fn digest(head: &Head<'_>, parts: [Sum; 3]) -> Digest {
    let it = head.parameters;
    let mut hash = Hash::new(Kind::Head);
    hash.bytes(head.lineage.as_bytes());
    for word in [
        head.zxid.as_u64(),
        head.clock_us,
        head.wall_ms,
        head.next_session,
        head.floor.as_u64(),
        it.tick_us,
        it.advance_us_max,
        it.renewal_us,
        it.ttl_us_min,
        it.ttl_us_max,
        it.payload_bytes_max,
        it.window_count_max,
        it.window_bytes_max,
        it.history_count_max,
        it.history_bytes_max,
        it.sessions_max,
        it.txn_ops_max,
        it.subtree_nodes_max,
        it.container_grace_us,
        it.session_leases_max,
        it.leases_max,
        it.ephemerals_max,
        it.nodes_max,
    ] {
        hash.word(word);
    }
    let parts = parts.into_iter().map(Sum::value);
    let value = parts.fold(hash.end(), u64::wrapping_add);
    Digest { version: Digest::VERSION, value }
}

/// What a state with these numbers and parts comes to, beside what never changes. It is compared
/// between members that run, and is never stored.
pub(super) fn mark(numbers: [u64; 4], parts: [Sum; 3]) -> u64 {
    let mut hash = Hash::new(Kind::Mark);
    numbers.into_iter().for_each(|word| hash.word(word));
    parts.into_iter().map(Sum::value).fold(hash.end(), u64::wrapping_add)
}

/// Stands for a path in the items of its node.
pub(super) fn of_path(path: &str) -> u64 {
    let mut hash = Hash::new(Kind::Path);
    hash.bytes(path.as_bytes());
    hash.end()
}

/// Null data is no bytes, not even their number.
pub(super) fn of_data(path: u64, data: Option<&[u8]>) -> u64 {
    let mut hash = Hash::new(Kind::Data);
    hash.word(path);
    if let Some(data) = data {
        hash.bytes(data);
    }
    hash.end()
}

/// All of a node but its data, and its list of children: they are there themselves.
pub(super) fn of_znode(path: u64, it: &Znode) -> u64 {
    let mut hash = Hash::new(Kind::Znode);
    let owner = it.owner.map_or(0, LeaseId::as_u64);
    for word in [
        path,
        it.czxid.as_u64(),
        it.mzxid.as_u64(),
        it.listing.pzxid.as_u64(),
        it.ctime_ms,
        it.mtime_ms,
        it.version,
        it.listing.cversion,
        owner,
        it.listing.next_sequence,
    ] {
        hash.word(word);
    }
    if let Some(special) = &it.special {
        hash.word(special.aversion);
        hash.lifetime(special.lifetime);
        hash.word(special.since_us);
        hash.word(special.acl.as_ref().map_or(0, KeptAcl::hash));
    }
    hash.end()
}

pub(super) fn of_acl(acl: &Acl) -> u64 {
    let mut hash = Hash::new(Kind::Acl);
    hash.bytes(&acl_to_bytes(acl));
    hash.end()
}

pub(super) fn of_identities(identities: &Identities) -> u64 {
    let mut hash = Hash::new(Kind::Identities);
    hash.bytes(&identities_to_bytes(identities));
    hash.end()
}

pub(super) fn of_quota(path: &str, it: &Metered) -> u64 {
    let mut hash = Hash::new(Kind::Quota);
    hash.bytes(path.as_bytes());
    hash.metered(it);
    hash.end()
}

/// A session and, by their sum, the replies that it keeps. Its nodes and leases name it themselves.
pub(super) fn of_session(id: SessionId, it: &Session) -> u64 {
    let mut hash = Hash::new(Kind::Session);
    hash.bytes(&it.secret.0);
    for word in [
        id.as_u64(),
        it.ttl_us,
        it.deadline_us,
        it.epoch,
        it.last_seq,
        it.acked,
        it.keep_alive,
        it.opened.as_u64(),
        it.opener.map_or(0, |opener| opener.node.as_u64()),
        it.opener.map_or(0, |opener| opener.boot_nonce),
        it.kept().value(),
    ] {
        hash.word(word);
    }
    hash.word(it.identities_hash());
    hash.end()
}

pub(super) fn of_lease(id: LeaseId, it: &Lease) -> u64 {
    let mut hash = Hash::new(Kind::Lease);
    for word in [
        id.as_u64(),
        it.session.as_u64(),
        it.ttl_us,
        it.deadline_us,
        it.epoch,
        it.keep_alive,
        it.granted.as_u64(),
    ] {
        hash.word(word);
    }
    hash.end()
}

pub(super) fn of_reply(seq: u64, reply: &Reply) -> u64 {
    let mut hash = Hash::new(Kind::Reply);
    hash.word(seq);
    hash.word(reply.zxid.as_u64());
    match &reply.result {
        Ok(Outcome::Set { stat }) => {
            hash.word(1);
            hash.stat(stat);
        }
        Ok(Outcome::Created { path, stat }) => {
            hash.word(2);
            hash.bytes(path.as_str().as_bytes());
            hash.stat(stat);
        }
        _ => {
            hash.word(3);
            hash.bytes(&reply_to_bytes(reply));
        }
    }
    hash.end()
}

/// Given the hashes of the path, and of the node and its data before: none is made twice. What was
/// after it is in the tree, or before a later change.
pub(super) fn of_change(path: u64, before: [u64; 2], it: &Change) -> u64 {
    let mut hash = Hash::new(Kind::Change);
    let kind = match it.kind {
        Some(EventKind::Created) => 1,
        Some(EventKind::DataChanged) => 2,
        Some(EventKind::Deleted) => 3,
        Some(EventKind::AclChanged) => 4,
        None => 5,
    };
    let Parent { listing, since_us } = it.parent;
    for word in [
        it.zxid.as_u64(),
        kind,
        path,
        before[0],
        before[1],
        it.children,
        listing.pzxid.as_u64(),
        listing.cversion,
        listing.next_sequence,
        since_us,
    ] {
        hash.word(word);
    }
    if let Some(metered) = &it.metered {
        hash.metered(metered);
    }
    hash.end()
}

/// What an item is of, so that no two kinds are ever alike.
#[derive(Clone, Copy)]
enum Kind {
    Head = 1,
    Path,
    Data,
    Znode,
    Quota,
    Session,
    Reply,
    Change,
    Lease,
    Mark,
    Acl,
    Identities,
}

/// One word at a time, each step reversible: items of one length that differ in one word differ.
struct Hash(u64);

impl Hash {
    fn new(kind: Kind) -> Self {
        let mut hash = Self(0);
        hash.word(kind as u64);
        hash
    }

    fn word(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(29) ^ word).wrapping_mul(MULTIPLIER).wrapping_add(1);
    }

    /// Long ones in four lanes, which a processor works on at once.
    fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        let mut blocks = bytes.chunks_exact(32);
        if bytes.len() >= 32 {
            let mut lanes = [1, 2, 3, 4].map(Self);
            for block in blocks.by_ref() {
                for (lane, chunk) in lanes.iter_mut().zip(block.chunks_exact(8)) {
                    lane.word(word_of(chunk));
                }
            }
            lanes.into_iter().for_each(|lane| self.word(lane.0));
        }
        for chunk in blocks.remainder().chunks(8) {
            self.word(word_of(chunk));
        }
    }

    fn stat(&mut self, it: &Stat) {
        let owner = it.owner.map_or(0, LeaseId::as_u64);
        for word in [it.czxid.as_u64(), it.mzxid.as_u64(), it.pzxid.as_u64()] {
            self.word(word);
        }
        for word in [it.ctime_ms, it.mtime_ms, it.version, it.cversion, it.aversion, owner] {
            self.word(word);
        }
        self.lifetime(it.lifetime);
        // No data is so long.
        self.word(if it.null { u64::MAX } else { it.data_length });
        self.word(it.children);
    }

    fn metered(&mut self, it: &Metered) {
        let quota = &it.quota;
        for bound in [quota.nodes_hard, quota.bytes_hard, quota.nodes_soft, quota.bytes_soft] {
            self.word(bound.is_some().into());
            self.word(bound.unwrap_or(0));
        }
        self.word(it.usage.nodes);
        self.word(it.usage.bytes);
    }

    fn lifetime(&mut self, lifetime: Lifetime) {
        let (kind, ttl_ms) = match lifetime {
            Lifetime::Unlimited => (0, 0),
            Lifetime::Container => (1, 0),
            Lifetime::Ttl(ttl) => (2, ttl.as_millis() as u64),
        };
        self.word(kind);
        self.word(ttl_ms);
    }

    /// Every bit of the state reaches every bit of the item (SplitMix64's last step).
    fn end(self) -> u64 {
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// At most eight bytes; what is missing is 0, for the length is hashed before them.
fn word_of(chunk: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..chunk.len()].copy_from_slice(chunk);
    u64::from_le_bytes(word)
}

/// Odd, so that multiplying can be undone.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
