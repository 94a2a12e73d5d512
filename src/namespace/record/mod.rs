//! The records of a snapshot, from and to the state's own types.
//!
//! One way to write each value: the decoder writes what it has read once more and compares.

mod reply;

use std::time::Duration;

use bytes::Bytes;

use crate::{
    command::access::{acl_from_bytes, acl_to_bytes, identities_to_bytes, quota_to_record},
    config::Parameters,
    id::{LeaseId, SessionId, Zxid},
    namespace::{
        Frozen,
        digest::Digest,
        history::{Change, Parent},
        lease::Lease,
        quota::Metered,
        session::Session,
        znode::Znode,
    },
    op::{Acl, EventKind, Lifetime, Principal, Reply, Stat},
    path::Path,
    proto,
};

pub(super) use self::reply::{reply_from_record, reply_to_bytes, reply_to_record};

pub(super) fn parameters_to_record(it: &Parameters) -> proto::ParametersRecord {
    proto::ParametersRecord {
        tick_us: it.tick_us,
        advance_us_max: it.advance_us_max,
        renewal_us: it.renewal_us,
        ttl_us_min: it.ttl_us_min,
        ttl_us_max: it.ttl_us_max,
        payload_bytes_max: it.payload_bytes_max,
        window_count_max: it.window_count_max,
        window_bytes_max: it.window_bytes_max,
        history_count_max: it.history_count_max,
        history_bytes_max: it.history_bytes_max,
        sessions_max: it.sessions_max,
        txn_ops_max: it.txn_ops_max,
        subtree_nodes_max: it.subtree_nodes_max,
        container_grace_us: it.container_grace_us,
        session_leases_max: it.session_leases_max,
        leases_max: it.leases_max,
        ephemerals_max: it.ephemerals_max,
        nodes_max: it.nodes_max,
    }
}

pub(super) fn parameters_from_record(it: &proto::ParametersRecord) -> Parameters {
    Parameters {
        tick_us: it.tick_us,
        advance_us_max: it.advance_us_max,
        renewal_us: it.renewal_us,
        ttl_us_min: it.ttl_us_min,
        ttl_us_max: it.ttl_us_max,
        payload_bytes_max: it.payload_bytes_max,
        window_count_max: it.window_count_max,
        window_bytes_max: it.window_bytes_max,
        history_count_max: it.history_count_max,
        history_bytes_max: it.history_bytes_max,
        sessions_max: it.sessions_max,
        txn_ops_max: it.txn_ops_max,
        subtree_nodes_max: it.subtree_nodes_max,
        container_grace_us: it.container_grace_us,
        session_leases_max: it.session_leases_max,
        leases_max: it.leases_max,
        ephemerals_max: it.ephemerals_max,
        nodes_max: it.nodes_max,
    }
}

pub(super) fn end_to_record(state: &Frozen, head_crc: u32) -> proto::SnapshotEnd {
    let Digest { version, value } = state.digest();
    proto::SnapshotEnd {
        sessions: state.sessions.len() as u64,
        znodes: state.tree.len() as u64,
        changes: state.history.len() as u64,
        digest_version: version,
        digest: value,
        leases: state.sessions.leases() as u64,
        head_crc,
    }
}

pub(super) fn session_to_record(id: SessionId, it: &Session) -> proto::SessionRecord {
    proto::SessionRecord {
        session: id.as_u64(),
        secret_hash: Bytes::copy_from_slice(&it.secret.0),
        ttl_us: it.ttl_us,
        deadline_us: it.deadline_us,
        epoch: it.epoch,
        last_seq: it.last_seq,
        acked: it.acked,
        keep_alive: it.keep_alive,
        opened_zxid: it.opened.as_u64(),
        opener_node: it.opener.map_or(0, |opener| opener.node.as_u64()),
        opener_nonce: it.opener.map_or(0, |opener| opener.boot_nonce),
        identities: identities_to_bytes(it.identities()),
    }
}

pub(super) fn lease_to_record(id: LeaseId, it: &Lease) -> proto::LeaseRecord {
    proto::LeaseRecord {
        session: it.session.as_u64(),
        lease: id.as_u64(),
        ttl_us: it.ttl_us,
        deadline_us: it.deadline_us,
        epoch: it.epoch,
        keep_alive: it.keep_alive,
        granted_zxid: it.granted.as_u64(),
    }
}

pub(super) fn cached_to_record(id: SessionId, seq: u64, reply: &Reply) -> proto::CachedReply {
    proto::CachedReply { session: id.as_u64(), seq, reply: Some(reply_to_record(reply)) }
}

pub(super) fn znode_to_record(
    path: &str,
    it: &Znode,
    metered: Option<&Metered>,
) -> proto::ZnodeRecord {
    proto::ZnodeRecord {
        path: text(path),
        data: it.shared_data(),
        stat: Some(stat_to_record(&it.stat())),
        next_sequence: it.listing.next_sequence,
        since_us: it.since_us(),
        acl: it.acl().map(acl_to_bytes).unwrap_or_default(),
        quota: metered.map(|it| quota_to_record(&it.quota)),
        usage_nodes: metered.map_or(0, |it| it.usage.nodes),
        usage_bytes: metered.map_or(0, |it| it.usage.bytes),
    }
}

pub(super) fn change_to_record(it: &Change) -> proto::ChangeRecord {
    let Parent { listing, since_us } = it.parent;
    proto::ChangeRecord {
        zxid: it.zxid.as_u64(),
        kind: match it.kind {
            Some(EventKind::Created) => 0,
            Some(EventKind::DataChanged) => 1,
            Some(EventKind::Deleted) => 2,
            Some(EventKind::AclChanged) => 3,
            None => 4,
        },
        path: text(it.path.as_str()),
        before: before_to_record(it),
        parent_pzxid: listing.pzxid.as_u64(),
        parent_cversion: listing.cversion,
        parent_next_sequence: listing.next_sequence,
        parent_since_us: since_us,
    }
}

fn before_to_record(it: &Change) -> Option<proto::ZnodeRecord> {
    let metered = it.metered.as_deref();
    let mut record = proto::ZnodeRecord {
        quota: metered.map(|it| quota_to_record(&it.quota)),
        usage_nodes: metered.map_or(0, |it| it.usage.nodes),
        usage_bytes: metered.map_or(0, |it| it.usage.bytes),
        ..proto::ZnodeRecord::default()
    };
    let Some(before) = &it.before else {
        return metered.map(|_| record);
    };
    if it.kind != Some(EventKind::AclChanged) {
        record.data = before.shared_data();
    }
    record.stat = Some(stat_to_record(&before.stat(it.listing, it.children)));
    record.next_sequence = it.listing.next_sequence;
    record.since_us = before.since_us();
    record.acl = before.acl().map(acl_to_bytes).unwrap_or_default();
    Some(record)
}

/// The list in a record: none of those that grant everything to everybody, or their setter.
pub(super) fn kept_acl(bytes: &Bytes) -> Option<Option<Acl>> {
    if bytes.is_empty() {
        return Some(None);
    }
    let acl = acl_from_bytes(bytes.clone()).ok()?;
    let kept = acl.grants().iter().all(|grant| grant.principal != Principal::Auth);
    (kept && !acl.is_open()).then_some(Some(acl))
}

pub(super) fn stat_to_record(it: &Stat) -> proto::StatRecord {
    proto::StatRecord {
        czxid: it.czxid.as_u64(),
        mzxid: it.mzxid.as_u64(),
        pzxid: it.pzxid.as_u64(),
        ctime_ms: it.ctime_ms,
        mtime_ms: it.mtime_ms,
        version: it.version,
        cversion: it.cversion,
        aversion: it.aversion,
        owner: it.owner.map_or(0, LeaseId::as_u64),
        data_length: it.data_length,
        children: it.children,
        lifetime: match it.lifetime {
            Lifetime::Unlimited => 0,
            Lifetime::Container => 1,
            Lifetime::Ttl(_) => 2,
        },
        ttl_ms: match it.lifetime {
            Lifetime::Ttl(ttl) => u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
            Lifetime::Unlimited | Lifetime::Container => 0,
        },
        null: it.null,
    }
}

pub(super) fn stat_from_record(it: &proto::StatRecord) -> Option<Stat> {
    Some(Stat {
        czxid: Zxid::new(it.czxid),
        mzxid: Zxid::new(it.mzxid),
        pzxid: Zxid::new(it.pzxid),
        ctime_ms: it.ctime_ms,
        mtime_ms: it.mtime_ms,
        version: it.version,
        cversion: it.cversion,
        aversion: it.aversion,
        owner: match it.owner {
            0 => None,
            owner => Some(LeaseId::new(owner)?),
        },
        lifetime: match (it.lifetime, it.ttl_ms) {
            (0, 0) => Lifetime::Unlimited,
            (1, 0) => Lifetime::Container,
            (2, ttl_ms @ 1..=TTL_MS_MAX) => Lifetime::Ttl(Duration::from_millis(ttl_ms)),
            _ => return None,
        },
        data_length: it.data_length,
        null: it.null,
        children: it.children,
    })
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(super) fn path(bytes: &[u8]) -> Option<Path> {
    Path::from_bytes(bytes).ok()
}

/// What is above [`CreateMode::TTL_MAX`](crate::CreateMode::TTL_MAX) was refused.
const TTL_MS_MAX: u64 = (1 << 40) - 1;
