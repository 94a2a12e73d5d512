//! Changes in a snapshot: each is checked against the tree that it is taken back in.
//!
//! A record says no more than what was before. What it says twice, as the stat of a node that is
//! there, is compared when the record is written once more.

use std::sync::Arc;

use crate::{
    command::access::quota_from_record,
    config::Parameters,
    id::Zxid,
    namespace::{
        access::{KeptAcl, shared},
        digest,
        history::{Change, Parent},
        quota::Metered,
        record::{kept_acl, path, stat_from_record},
        snapshot::{
            COUNTER_MAX,
            body::{listing_of, value_of},
            check,
        },
        tree::Tree,
        znode::{Listing, Special, Value, Znode, own},
    },
    op::{EventKind, Lifetime, Usage},
    path::Path,
    proto,
};

/// The change that a record tells of, taken back in `past`, where it is the last one.
pub(super) fn taken_back(
    record: &proto::ChangeRecord,
    past: &mut Tree,
    clock_us: u64,
    parameters: &Parameters,
) -> Result<Change, &'static str> {
    let path = path(&record.path).ok_or("the change's path is not valid")?;
    let empty = proto::ZnodeRecord::default();
    let before = record.before.as_ref().unwrap_or(&empty);
    check(
        before.data.len() as u64 <= parameters.payload_bytes_max && before.since_us <= clock_us,
        "the node before the change is not valid",
    )?;
    let (zxid, kind) = match record.kind {
        0 => (Zxid::new(record.zxid), Some(EventKind::Created)),
        1 => (Zxid::new(record.zxid), Some(EventKind::DataChanged)),
        2 => (Zxid::new(record.zxid), Some(EventKind::Deleted)),
        3 => (Zxid::new(record.zxid), Some(EventKind::AclChanged)),
        4 => (Zxid::new(record.zxid), None),
        _ => return Err("the change's kind is not valid"),
    };
    let mut change = Change {
        zxid,
        kind,
        path,
        before: None,
        after: None,
        listing: Listing::default(),
        children: 0,
        parent: Parent::default(),
        metered: None,
        hash: 0,
    };
    match kind {
        Some(EventKind::Created) => {
            created(&mut change, past)?;
            change.parent = parent(record, &change.path, past, clock_us)?;
        }
        Some(EventKind::Deleted) => {
            deleted(&mut change, before, past)?;
            change.parent = parent(record, &change.path, past, clock_us)?;
        }
        Some(kind) => replaced(&mut change, kind, before, past)?,
        None => {
            present(&change.path, past)?;
        }
    }
    if matches!(kind, None | Some(EventKind::Deleted)) {
        change.metered = before.quota.as_ref().map(|quota| {
            let usage = Usage { nodes: before.usage_nodes, bytes: before.usage_bytes };
            Box::new(Metered { quota: quota_from_record(quota), usage })
        });
    }
    past.undo(&change);
    Ok(hashed(change, past))
}

fn present<'a>(path: &Path, past: &'a Tree) -> Result<&'a Znode, &'static str> {
    past.get(path.as_str()).ok_or("the changed node is missing")
}

fn created(change: &mut Change, past: &Tree) -> Result<(), &'static str> {
    let znode = present(&change.path, past)?;
    let zxid = change.zxid;
    let listing = Listing { pzxid: zxid, ..Listing::default() };
    check(
        (znode.czxid, znode.mzxid, znode.version, znode.aversion()) == (zxid, zxid, 0, 0)
            && (znode.listing, znode.children.len()) == (listing, 0),
        "the created node had another past",
    )?;
    change.after = Some(Arc::clone(&znode.value));
    change.listing = listing;
    Ok(())
}

fn deleted(
    change: &mut Change,
    before: &proto::ZnodeRecord,
    past: &Tree,
) -> Result<(), &'static str> {
    let stat = before.stat.as_ref().and_then(stat_from_record);
    let stat = stat.ok_or("the deleted node's stat is not valid")?;
    let above = change.path.parent_str().and_then(|parent| past.get(parent));
    let above = above.ok_or("the deleted node's parent is missing")?;
    check(
        past.get(change.path.as_str()).is_none() && above.owner.is_none(),
        "the deleted node has no place",
    )?;
    check(
        stat.czxid != Zxid::ZERO
            && stat.czxid <= stat.mzxid.min(stat.pzxid)
            && stat.mzxid.max(stat.pzxid) <= change.zxid
            && stat.ctime_ms <= stat.mtime_ms,
        "the deleted node's transactions are not valid",
    )?;
    let counters = [stat.version, stat.cversion, stat.aversion, before.next_sequence];
    check(
        counters.into_iter().all(|counter| counter < COUNTER_MAX)
            && (stat.lifetime == Lifetime::Unlimited || stat.owner.is_none()),
        "the deleted node is not valid",
    )?;
    let acl = kept_acl(&before.acl).ok_or("the deleted node's list is not valid")?;
    let acl = acl.and_then(KeptAcl::new);
    let special = Special::new(acl, stat.aversion, stat.lifetime, before.since_us);
    let special = special.map(|special| shared(special, above));
    change.before = Some(Arc::new(value_of(&stat, &before.data, special)));
    change.listing = listing_of(&stat, before.next_sequence);
    change.children = stat.children;
    Ok(())
}

/// Data or the list was replaced: the rest is as it is now.
fn replaced(
    change: &mut Change,
    kind: EventKind,
    record: &proto::ZnodeRecord,
    past: &Tree,
) -> Result<(), &'static str> {
    let znode = present(&change.path, past)?;
    let stat = record.stat.as_ref().and_then(stat_from_record);
    let stat = stat.ok_or("the changed node's stat is not valid")?;
    let now = &*znode.value;
    let mut before = Value::clone(now);
    if kind == EventKind::AclChanged {
        let acl = kept_acl(&record.acl).ok_or("the changed node's list is not valid")?;
        let acl = acl.and_then(KeptAcl::new);
        let special = Special::new(acl, stat.aversion, now.lifetime(), now.since_us());
        before.special = special.map(Arc::new);
        check(stat.aversion.checked_add(1) == Some(now.aversion()), "a list was replaced before")?;
    } else {
        check(!stat.null || record.data.is_empty(), "null data has bytes")?;
        before.data = (!stat.null).then(|| own(&record.data));
        (before.mzxid, before.mtime_ms, before.version) = (stat.mzxid, stat.mtime_ms, stat.version);
        if before.since_us() != record.since_us {
            before.count_from(record.since_us);
        }
        check(
            stat.version.checked_add(1) == Some(now.version)
                && now.mzxid == change.zxid
                && (now.czxid..=change.zxid).contains(&stat.mzxid)
                && (now.ctime_ms..=now.mtime_ms).contains(&stat.mtime_ms),
            "the data was replaced before",
        )?;
    }
    change.before = Some(Arc::new(before));
    change.after = Some(Arc::clone(&znode.value));
    change.listing = znode.listing;
    change.children = znode.children.len() as u64;
    Ok(())
}

/// What the parent was before a node came or went.
fn parent(
    record: &proto::ChangeRecord,
    path: &Path,
    past: &Tree,
    clock_us: u64,
) -> Result<Parent, &'static str> {
    let above = path.parent_str().and_then(|parent| past.get(parent));
    let now = above.ok_or("the changed node's parent is missing")?.as_parent();
    let listing = Listing {
        pzxid: Zxid::new(record.parent_pzxid),
        cversion: record.parent_cversion,
        next_sequence: record.parent_next_sequence,
    };
    check(
        listing.pzxid <= now.listing.pzxid
            && listing.cversion <= now.listing.cversion
            && listing.next_sequence <= now.listing.next_sequence
            && record.parent_since_us <= clock_us,
        "the changed node's parent had another past",
    )?;
    Ok(Parent { listing, since_us: record.parent_since_us })
}

/// With its hash, when it is taken back.
fn hashed(change: Change, past: &Tree) -> Change {
    let hash = digest::of_path(change.path.as_str());
    let znode = past.get(change.path.as_str()).filter(|_| change.before.is_some());
    let data = znode.filter(|_| change.kind != Some(EventKind::AclChanged));
    let before = [
        znode.map_or(0, |znode| digest::of_znode(hash, znode)),
        data.map_or(0, |znode| digest::of_data(hash, znode.data.as_deref())),
    ];
    change.hashed(hash, before)
}
