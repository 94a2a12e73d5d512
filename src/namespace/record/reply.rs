//! Replies that are kept for a retry, as records and back.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use prost::Message as _;

use super::{path, stat_from_record, stat_to_record, text};
use crate::{
    command::access::{acl_from_bytes, acl_to_bytes},
    id::{LeaseId, SessionId, Zxid},
    namespace::znode::own,
    op::{Child, LimitName, OpError, Outcome, Page, Reply, Rights},
    path::Path,
    proto::{self, outcome_record, reply_record},
    record::put_delimited,
    time::as_micros,
};

pub(in crate::namespace) fn reply_to_record(it: &Reply) -> proto::ReplyRecord {
    use reply_record::Result as Record;
    let result = match &it.result {
        Ok(Outcome::Created { path, stat }) => Record::Created(proto::CreatedRecord {
            path: text(path.as_str()),
            stat: Some(stat_to_record(stat)),
        }),
        Ok(Outcome::Set { stat }) => Record::Set(stat_to_record(stat)),
        Ok(Outcome::Deleted) => Record::Deleted(true),
        Ok(Outcome::Closed) => Record::Closed(true),
        Ok(other) => Record::Other(outcome_to_record(other)),
        Err(error) => Record::Error(error_to_record(error)),
    };
    proto::ReplyRecord { zxid: it.zxid.as_u64(), result: Some(result) }
}

pub(in crate::namespace) fn reply_to_bytes(it: &Reply) -> Vec<u8> {
    reply_to_record(it).encode_to_vec()
}

pub(in crate::namespace) fn reply_from_record(it: proto::ReplyRecord) -> Option<Reply> {
    use reply_record::Result as Record;
    let result = match it.result? {
        Record::Created(it) => {
            Ok(Outcome::Created { path: path(&it.path)?, stat: stat_from_record(&it.stat?)? })
        }
        Record::Set(stat) => Ok(Outcome::Set { stat: stat_from_record(&stat)? }),
        Record::Deleted(_) => Ok(Outcome::Deleted),
        Record::Closed(_) => Ok(Outcome::Closed),
        Record::Other(it) => Ok(outcome_from_record(it, true)?),
        Record::Error(error) => Err(error_from_record(&error)?),
    };
    Some(Reply { zxid: Zxid::new(it.zxid), result })
}

/// An outcome in a transaction's results, or one that a single write does not have.
fn outcome_to_record(outcome: &Outcome) -> proto::OutcomeRecord {
    use outcome_record::Kind as Record;
    let kind = match outcome {
        Outcome::Created { path, stat } => Some(Record::Created(proto::CreatedRecord {
            path: text(path.as_str()),
            stat: Some(stat_to_record(stat)),
        })),
        Outcome::Set { stat } => Some(Record::Set(stat_to_record(stat))),
        Outcome::Deleted => Some(Record::Deleted(true)),
        Outcome::DeletedTree { nodes } => Some(Record::DeletedTree(*nodes)),
        Outcome::Checked => Some(Record::Checked(true)),
        Outcome::AclSet { stat } => Some(Record::AclSet(stat_to_record(stat))),
        Outcome::Acl { acl, stat } => Some(Record::Acl(proto::AclOutcome {
            acl: acl_to_bytes(acl),
            stat: Some(stat_to_record(stat)),
        })),
        Outcome::QuotaSet => Some(Record::QuotaSet(true)),
        Outcome::Granted { lease, ttl } => Some(Record::Granted(proto::GrantedRecord {
            lease: lease.as_u64(),
            ttl_us: as_micros(*ttl),
        })),
        Outcome::Revoked { lease, nodes } => {
            Some(Record::Revoked(proto::RevokedRecord { lease: lease.as_u64(), nodes: *nodes }))
        }
        Outcome::Node { data, stat } => Some(Record::Node(proto::NodeOutcome {
            data: data.clone(),
            stat: Some(stat_to_record(stat)),
        })),
        Outcome::Exists(stat) => {
            Some(Record::Exists(proto::ExistsOutcome { stat: stat.as_ref().map(stat_to_record) }))
        }
        Outcome::Listed(page) => Some(Record::Listed(page_to_record(page))),
        Outcome::Txn { held, results } => {
            let mut bytes = BytesMut::new();
            for result in results {
                put_delimited(&mut bytes, &outcome_to_record(result));
            }
            Some(Record::Txn(proto::TxnOutcome { held: *held, results: bytes.freeze() }))
        }
        // The reply that ends a session is not kept.
        Outcome::Closed => None,
    };
    proto::OutcomeRecord { kind }
}

/// `alone` if it stands in no transaction's results.
fn outcome_from_record(it: proto::OutcomeRecord, alone: bool) -> Option<Outcome> {
    use outcome_record::Kind as Record;
    Some(match it.kind? {
        // These have a shorter form when they stand alone.
        Record::Created(_) | Record::Set(_) | Record::Deleted(_) if alone => return None,
        Record::Created(it) => {
            Outcome::Created { path: path(&it.path)?, stat: stat_from_record(&it.stat?)? }
        }
        Record::Set(stat) => Outcome::Set { stat: stat_from_record(&stat)? },
        Record::Deleted(_) => Outcome::Deleted,
        Record::DeletedTree(nodes) => Outcome::DeletedTree { nodes },
        Record::Checked(_) => Outcome::Checked,
        Record::AclSet(stat) => Outcome::AclSet { stat: stat_from_record(&stat)? },
        Record::Acl(it) => {
            Outcome::Acl { acl: acl_from_bytes(it.acl).ok()?, stat: stat_from_record(&it.stat?)? }
        }
        Record::QuotaSet(_) => Outcome::QuotaSet,
        Record::Granted(it) => Outcome::Granted {
            lease: LeaseId::new(it.lease)?,
            ttl: Duration::from_micros(it.ttl_us),
        },
        Record::Revoked(it) => Outcome::Revoked { lease: LeaseId::new(it.lease)?, nodes: it.nodes },
        Record::Node(it) => {
            Outcome::Node { data: own(&it.data), stat: stat_from_record(&it.stat?)? }
        }
        Record::Exists(it) => Outcome::Exists(match it.stat {
            Some(stat) => Some(stat_from_record(&stat)?),
            None => None,
        }),
        Record::Listed(it) => Outcome::Listed(page_from_record(it)?),
        Record::Txn(mut it) => {
            let mut results = Vec::new();
            while alone && it.results.has_remaining() {
                let result = proto::OutcomeRecord::decode_length_delimited(&mut it.results).ok()?;
                results.push(outcome_from_record(result, false)?);
            }
            // A transaction stands in no other's results.
            alone.then_some(Outcome::Txn { held: it.held, results })?
        }
    })
}

fn page_to_record(page: &Page) -> proto::PageRecord {
    let mut children = BytesMut::new();
    for child in &page.children {
        let record = proto::ChildRecord {
            name: text(&child.name),
            stat: child.stat.as_ref().map(stat_to_record),
            data: child.data.clone(),
        };
        put_delimited(&mut children, &record);
    }
    proto::PageRecord {
        children: children.freeze(),
        resume: page.resume.as_deref().map(text),
        stat: Some(stat_to_record(&page.stat)),
    }
}

fn page_from_record(mut it: proto::PageRecord) -> Option<Page> {
    let name = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).ok();
    let mut children = Vec::new();
    while it.children.has_remaining() {
        let child = proto::ChildRecord::decode_length_delimited(&mut it.children).ok()?;
        children.push(Child {
            name: name(&child.name)?,
            stat: match child.stat {
                Some(stat) => Some(stat_from_record(&stat)?),
                None => None,
            },
            data: child.data.map(|data| own(&data)),
        });
    }
    let resume = match it.resume {
        Some(resume) => Some(name(&resume)?),
        None => None,
    };
    Some(Page { children, resume, stat: stat_from_record(&it.stat?)? })
}

fn error_to_record(error: &OpError) -> proto::OpErrorRecord {
    let with_path = |code, path: &Path, a, b| proto::OpErrorRecord {
        code,
        path: text(path.as_str()),
        a,
        b,
        name: Bytes::new(),
        operation: 0,
    };
    let plain = |code, a, b| proto::OpErrorRecord {
        code,
        path: Bytes::new(),
        a,
        b,
        name: Bytes::new(),
        operation: 0,
    };
    match error {
        OpError::NoNode { path } => with_path(1, path, 0, 0),
        OpError::NodeExists { path } => with_path(2, path, 0, 0),
        OpError::BadVersion { path, expected, actual } => {
            with_path(3, path, *expected, actual.map_or(0, |actual| actual + 1))
        }
        OpError::NotEmpty { path, children } => with_path(4, path, children.unwrap_or(0), 0),
        OpError::NoChildrenForEphemerals { path } => with_path(5, path, 0, 0),
        OpError::Root => plain(6, 0, 0),
        OpError::EphemeralWithoutSession => plain(7, 0, 0),
        OpError::GuardFailed { index, path } => with_path(8, path, *index, 0),
        OpError::Limit { limit, value, max } => proto::OpErrorRecord {
            name: Bytes::from_static(limit_name(*limit).as_bytes()),
            ..plain(9, *value, *max)
        },
        OpError::SessionEnded { session } => plain(10, session.as_u64(), 0),
        OpError::Moved { session, epoch } => plain(11, session.as_u64(), *epoch),
        OpError::BadSecret { session } => plain(12, session.as_u64(), 0),
        OpError::Gap { expected, actual } => plain(13, *expected, *actual),
        OpError::AlreadyAcknowledged { seq } => plain(14, *seq, 0),
        OpError::NoAuth { path, right } => with_path(15, path, right.bits().into(), 0),
        OpError::InvalidAcl { path } => with_path(16, path, 0, 0),
        OpError::Quota { path, limit, value, max } => proto::OpErrorRecord {
            name: Bytes::from_static(limit_name(*limit).as_bytes()),
            ..with_path(17, path, *value, *max)
        },
        OpError::NoLease { lease } => plain(18, lease.as_u64(), 0),
        OpError::LeaseWithoutSession => plain(19, 0, 0),
        OpError::OtherIdentities { session } => plain(20, session.as_u64(), 0),
        OpError::InTxn { index, cause } => {
            proto::OpErrorRecord { operation: index + 1, ..error_to_record(cause) }
        }
    }
}

fn error_from_record(it: &proto::OpErrorRecord) -> Option<OpError> {
    if let Some(index) = it.operation.checked_sub(1) {
        let cause = error_from_record(&proto::OpErrorRecord { operation: 0, ..it.clone() })?;
        return Some(OpError::InTxn { index, cause: Box::new(cause) });
    }
    let session = || SessionId::new(it.a);
    Some(match it.code {
        1 => OpError::NoNode { path: path(&it.path)? },
        2 => OpError::NodeExists { path: path(&it.path)? },
        3 => OpError::BadVersion {
            path: path(&it.path)?,
            expected: it.a,
            actual: it.b.checked_sub(1),
        },
        4 => OpError::NotEmpty { path: path(&it.path)?, children: Some(it.a).filter(|&a| a > 0) },
        5 => OpError::NoChildrenForEphemerals { path: path(&it.path)? },
        6 => OpError::Root,
        7 => OpError::EphemeralWithoutSession,
        8 => OpError::GuardFailed { index: it.a, path: path(&it.path)? },
        9 => OpError::Limit { limit: limit_named(&it.name)?, value: it.a, max: it.b },
        10 => OpError::SessionEnded { session: session()? },
        11 => OpError::Moved { session: session()?, epoch: it.b },
        12 => OpError::BadSecret { session: session()? },
        13 => OpError::Gap { expected: it.a, actual: it.b },
        14 => OpError::AlreadyAcknowledged { seq: it.a },
        15 => OpError::NoAuth {
            path: path(&it.path)?,
            right: Rights::from_bits(u8::try_from(it.a).ok()?)?,
        },
        16 => OpError::InvalidAcl { path: path(&it.path)? },
        17 => OpError::Quota {
            path: path(&it.path)?,
            limit: limit_named(&it.name)?,
            value: it.a,
            max: it.b,
        },
        18 => OpError::NoLease { lease: LeaseId::new(it.a)? },
        19 => OpError::LeaseWithoutSession,
        20 => OpError::OtherIdentities { session: session()? },
        _ => return None,
    })
}

/// The name that a limit has on disk for ever.
fn limit_name(limit: LimitName) -> &'static str {
    match limit {
        LimitName::PayloadBytes => "payload_bytes",
        LimitName::PathBytes => "path_bytes",
        LimitName::WindowCount => "window_count",
        LimitName::WindowBytes => "window_bytes",
        LimitName::Sessions => "sessions",
        LimitName::Guards => "guards",
        LimitName::Operations => "operations",
        LimitName::TxnBytes => "txn_bytes",
        LimitName::ResultBytes => "result_bytes",
        LimitName::SubtreeNodes => "subtree_nodes",
        LimitName::NodeTtl => "node_ttl",
        LimitName::QuotaNodes => "quota_nodes",
        LimitName::QuotaBytes => "quota_bytes",
        LimitName::SessionLeases => "session_leases",
        LimitName::Leases => "leases",
        LimitName::Ephemerals => "ephemerals",
        LimitName::Nodes => "nodes",
        LimitName::NestedQuotas => "nested_quotas",
    }
}

fn limit_named(name: &[u8]) -> Option<LimitName> {
    LIMIT_NAMES.into_iter().find(|limit| limit_name(*limit).as_bytes() == name)
}

const LIMIT_NAMES: [LimitName; 18] = [
    LimitName::PayloadBytes,
    LimitName::PathBytes,
    LimitName::WindowCount,
    LimitName::WindowBytes,
    LimitName::Sessions,
    LimitName::Guards,
    LimitName::Operations,
    LimitName::TxnBytes,
    LimitName::ResultBytes,
    LimitName::SubtreeNodes,
    LimitName::NodeTtl,
    LimitName::QuotaNodes,
    LimitName::QuotaBytes,
    LimitName::SessionLeases,
    LimitName::Leases,
    LimitName::Ephemerals,
    LimitName::Nodes,
    LimitName::NestedQuotas,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{Acl, Stat};

    #[test]
    fn every_reply_comes_back_as_it_was() {
        let path: Path = "/a/b".parse().unwrap();
        let session = SessionId::new(7).unwrap();
        let stat = Stat {
            czxid: Zxid::new(1),
            owner: Some(session.lease()),
            children: 3,
            ..Stat::default()
        };
        let mut results = vec![
            Ok(Outcome::Created { path: path.clone(), stat }),
            Ok(Outcome::Set { stat }),
            Ok(Outcome::Deleted),
            Ok(Outcome::Closed),
            Err(OpError::NoNode { path: path.clone() }),
            Err(OpError::NodeExists { path: path.clone() }),
            Err(OpError::BadVersion { path: path.clone(), expected: 1, actual: Some(0) }),
            Err(OpError::BadVersion { path: path.clone(), expected: 1, actual: None }),
            Err(OpError::NotEmpty { path: path.clone(), children: Some(4) }),
            Err(OpError::NotEmpty { path: path.clone(), children: None }),
            Err(OpError::OtherIdentities { session: SessionId::new(9).unwrap() }),
            Err(OpError::NoChildrenForEphemerals { path: path.clone() }),
            Err(OpError::Root),
            Err(OpError::EphemeralWithoutSession),
            Err(OpError::LeaseWithoutSession),
            Err(OpError::NoLease { lease: session.lease() }),
            Err(OpError::GuardFailed { index: 2, path: path.clone() }),
            Err(OpError::NoAuth { path: path.clone(), right: Rights::READ }),
            Err(OpError::InvalidAcl { path: path.clone() }),
            Err(OpError::InTxn { index: 0, cause: Box::new(OpError::NoNode { path }) }),
            Err(OpError::SessionEnded { session }),
            Err(OpError::Moved { session, epoch: 3 }),
            Err(OpError::BadSecret { session }),
            Err(OpError::Gap { expected: 1, actual: 3 }),
            Err(OpError::AlreadyAcknowledged { seq: 9 }),
        ];
        results.extend(longer(stat));
        results.extend(LIMIT_NAMES.map(|limit| Err(OpError::Limit { limit, value: 2, max: 1 })));
        let path = Path::root();
        let quota = |limit| OpError::Quota { path: path.clone(), limit, value: 2, max: 1 };
        results.extend(LIMIT_NAMES.map(|limit| Err(quota(limit))));
        for result in results {
            let reply = Reply { zxid: Zxid::new(5), result };
            assert_eq!(reply_from_record(reply_to_record(&reply)), Some(reply.clone()));
        }
    }

    /// What a single write does not give: alone, and in a transaction's results.
    fn longer(stat: Stat) -> Vec<Result<Outcome, OpError>> {
        let child = |name: &str, stat, data| Child { name: name.into(), stat, data };
        let children = vec![
            child("a", None, None),
            child("b", Some(stat), None),
            child("c", None, Some(Bytes::new())),
            child("d", Some(stat), Some(Bytes::from_static(b"data"))),
        ];
        let lease = LeaseId::new(9).unwrap();
        let outcomes = vec![
            Outcome::DeletedTree { nodes: 3 },
            Outcome::Checked,
            Outcome::AclSet { stat },
            Outcome::Acl { acl: Acl::creator(), stat },
            Outcome::QuotaSet,
            Outcome::Granted { lease, ttl: Duration::from_micros(5) },
            Outcome::Revoked { lease, nodes: 4 },
            Outcome::Node { data: Bytes::from_static(b"x"), stat },
            Outcome::Exists(None),
            Outcome::Exists(Some(stat)),
            Outcome::Listed(Page { children, resume: Some("d".into()), stat }),
            Outcome::Listed(Page { children: Vec::new(), resume: None, stat }),
        ];
        let mut results = outcomes.clone();
        results.extend([
            Outcome::Created { path: Path::root(), stat },
            Outcome::Set { stat },
            Outcome::Deleted,
        ]);
        let txns = [true, false].map(|held| Outcome::Txn { held, results: results.clone() });
        outcomes.into_iter().chain(txns).map(Ok).collect()
    }
}
