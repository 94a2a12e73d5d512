//! Transactions as records, and back.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use prost::Message as _;

use super::{
    CommandError,
    access::{acl_from_bytes, acl_to_bytes, quota_from_record, quota_to_record},
    lease, path,
};
use crate::{
    config::TXN_OPS_MAX,
    id::{LeaseId, Zxid},
    op::{
        Acl, Body, Check, Children, CreateMode, Field, Guard, Lifetime, List, Op, Relation, Step,
        Txn,
    },
    path::{Path, PathPrefix},
    proto::{self, op_record, txn_record},
    record::put_delimited,
    time::as_micros,
};

pub(super) fn txn_to_record(txn: &Txn) -> proto::TxnRecord {
    let mut guards = BytesMut::new();
    for guard in txn.guards() {
        put_delimited(&mut guards, &guard_to_record(guard));
    }
    let op = match txn.body() {
        Body::One(step) => match step_to_record(step) {
            op_record::Kind::Create(it) => txn_record::Op::Create(it),
            op_record::Kind::Set(it) => txn_record::Op::Set(it),
            op_record::Kind::Delete(it) => txn_record::Op::Delete(it),
            other => txn_record::Op::Other(proto::OpRecord { kind: Some(other) }),
        },
        Body::Many { then, otherwise } => txn_record::Op::Branches(proto::BranchesRecord {
            then: steps_to_bytes(then),
            otherwise: otherwise.as_deref().map(steps_to_bytes),
        }),
    };
    let zookeeper = txn.is_for_zookeeper();
    proto::TxnRecord { guards: guards.freeze(), op: Some(op), zookeeper }
}

pub(super) fn txn_from_record(record: Option<proto::TxnRecord>) -> Result<Txn, CommandError> {
    use txn_record::Op as Record;
    let record = record.ok_or(CommandError::Field("txn"))?;
    let body = match record.op.ok_or(CommandError::UnknownKind)? {
        Record::Create(it) => Body::One(create(it)?),
        Record::Set(it) => Body::One(set(it)?),
        Record::Delete(it) => Body::One(step_from_record(op_record::Kind::Delete(it))?),
        Record::Other(it) => match it.kind.ok_or(CommandError::UnknownKind)? {
            // There is one way to write each transaction.
            op_record::Kind::Create(_) | op_record::Kind::Set(_) | op_record::Kind::Delete(_) => {
                return Err(CommandError::Field("op"));
            }
            other => Body::One(step_from_record(other)?),
        },
        Record::Branches(it) => {
            let then = steps_from_bytes(it.then, 0)?;
            let otherwise = it.otherwise.map(|bytes| steps_from_bytes(bytes, then.len()));
            Body::Many { then, otherwise: otherwise.transpose()? }
        }
    };
    let mut txn = Txn::with_body(body);
    if record.zookeeper {
        txn = txn.for_zookeeper();
    }
    let mut guards = record.guards;
    while guards.has_remaining() {
        if txn.guards().len() == Txn::GUARDS_MAX {
            return Err(CommandError::Field("guards"));
        }
        let record = proto::GuardRecord::decode_length_delimited(&mut guards)
            .map_err(|_| CommandError::Malformed("guard"))?;
        txn = txn.guard(guard_from_record(record)?);
    }
    Ok(txn)
}

fn steps_to_bytes(steps: &[Step]) -> Bytes {
    let mut out = BytesMut::new();
    for step in steps {
        put_delimited(&mut out, &proto::OpRecord { kind: Some(step_to_record(step)) });
    }
    out.freeze()
}

fn steps_from_bytes(mut bytes: Bytes, before: usize) -> Result<Vec<Step>, CommandError> {
    let mut steps = Vec::new();
    while bytes.has_remaining() {
        if (before + steps.len()) as u64 == TXN_OPS_MAX {
            return Err(CommandError::Field("operations"));
        }
        let record = proto::OpRecord::decode_length_delimited(&mut bytes)
            .map_err(|_| CommandError::Malformed("operation"))?;
        steps.push(step_from_record(record.kind.ok_or(CommandError::UnknownKind)?)?);
    }
    Ok(steps)
}

fn step_to_record(step: &Step) -> op_record::Kind {
    use op_record::Kind as Record;
    match &step.op {
        Op::Create { path, data, mode, acl } => Record::Create(proto::CreateRecord {
            path: text(path.as_str()),
            data: step.given(data).cloned(),
            mode: mode_code(*mode),
            ttl_ms: match mode.lifetime() {
                Lifetime::Ttl(ttl) => u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
                Lifetime::Unlimited | Lifetime::Container => 0,
            },
            acl: acl.as_ref().filter(|it| !it.is_open()).map(acl_to_bytes).unwrap_or_default(),
            lease: mode.lease().map_or(0, LeaseId::as_u64),
            open: acl.as_ref().is_some_and(Acl::is_open),
        }),
        Op::Set { path, data, version } => Record::Set(proto::SetRecord {
            path: text(path.as_str()),
            data: step.given(data).cloned(),
            version: *version,
        }),
        Op::Delete { path, version } => {
            Record::Delete(proto::DeleteRecord { path: text(path.as_str()), version: *version })
        }
        Op::DeleteTree { path } => Record::DeleteTree(text(path.as_str())),
        Op::Check(guard) => Record::Check(guard_to_record(guard)),
        Op::Get { path } => Record::Get(text(path.as_str())),
        Op::Exists { path } => Record::Exists(text(path.as_str())),
        Op::List(list) => Record::List(proto::ListRecord {
            path: text(list.path.as_str()),
            after: list.after.as_deref().map(text),
            prefix: text(&list.prefix),
            only: match list.only {
                Children::All => 0,
                Children::Persistent => 1,
                Children::Ephemeral => 2,
            },
            limit: list.limit,
            with_stat: list.with_stat,
            with_data: list.with_data,
        }),
        Op::SetAcl { path, acl, version } => Record::SetAcl(proto::SetAclRecord {
            path: text(path.as_str()),
            acl: acl_to_bytes(acl),
            version: *version,
        }),
        Op::GetAcl { path } => Record::GetAcl(text(path.as_str())),
        Op::SetQuota { path, quota } => Record::SetQuota(proto::SetQuotaRecord {
            path: text(path.as_str()),
            quota: quota.as_ref().map(quota_to_record),
        }),
        Op::Grant { ttl } => Record::Grant(as_micros(*ttl)),
        Op::Revoke { lease } => Record::Revoke(lease.as_u64()),
    }
}

fn step_from_record(record: op_record::Kind) -> Result<Step, CommandError> {
    use op_record::Kind as Record;
    Ok(Step::from(match record {
        Record::Create(it) => return create(it),
        Record::Set(it) => return set(it),
        Record::Delete(it) => Op::Delete { path: path(&it.path)?, version: it.version },
        Record::DeleteTree(it) => Op::DeleteTree { path: path(&it)? },
        Record::Check(it) => Op::Check(guard_from_record(it)?),
        Record::Get(it) => Op::Get { path: path(&it)? },
        Record::Exists(it) => Op::Exists { path: path(&it)? },
        Record::List(it) => {
            let mut list = List::of(path(&it.path)?);
            list.after = it.after.as_deref().map(name).transpose()?;
            list.prefix = name(&it.prefix)?;
            list.only = match it.only {
                0 => Children::All,
                1 => Children::Persistent,
                2 => Children::Ephemeral,
                _ => return Err(CommandError::UnknownKind),
            };
            list.limit = it.limit;
            list.with_stat = it.with_stat;
            list.with_data = it.with_data;
            Op::List(list)
        }
        Record::SetAcl(it) => {
            Op::SetAcl { path: path(&it.path)?, acl: acl_from_bytes(it.acl)?, version: it.version }
        }
        Record::GetAcl(it) => Op::GetAcl { path: path(&it)? },
        Record::SetQuota(it) => {
            Op::SetQuota { path: path(&it.path)?, quota: it.quota.as_ref().map(quota_from_record) }
        }
        Record::Grant(ttl_us) => Op::Grant { ttl: Duration::from_micros(ttl_us) },
        Record::Revoke(id) => Op::Revoke { lease: lease(id)? },
    }))
}

fn create(it: proto::CreateRecord) -> Result<Step, CommandError> {
    let lease = (it.lease != 0).then(|| lease(it.lease)).transpose()?;
    let mode = mode_from_code(it.mode, it.ttl_ms, lease).ok_or(CommandError::UnknownKind)?;
    let path = if mode.is_sequential() {
        PathPrefix::from_bytes(&it.path).map_err(|_| CommandError::Field("path"))?
    } else {
        path(&it.path)?.into()
    };
    let listed = (!it.acl.is_empty()).then(|| acl_from_bytes(it.acl)).transpose()?;
    let acl = match (listed, it.open) {
        // There is one way to write the open one.
        (Some(acl), open) if open || acl.is_open() => return Err(CommandError::Field("acl")),
        (listed, open) => listed.or_else(|| open.then(Acl::open)),
    };
    let (null, data) = (it.data.is_none(), it.data.unwrap_or_default());
    Ok(Step { op: Op::Create { path, data, mode, acl }, null })
}

fn set(it: proto::SetRecord) -> Result<Step, CommandError> {
    let (null, data) = (it.data.is_none(), it.data.unwrap_or_default());
    Ok(Step { op: Op::Set { path: path(&it.path)?, data, version: it.version }, null })
}

pub(super) fn mode_code(mode: CreateMode) -> u32 {
    match mode {
        CreateMode::Persistent => 0,
        CreateMode::Ephemeral => 1,
        CreateMode::PersistentSequential => 2,
        CreateMode::EphemeralSequential => 3,
        CreateMode::Container => 4,
        CreateMode::Ttl(_) => 5,
        CreateMode::SequentialTtl(_) => 6,
        CreateMode::Leased(_) => 7,
        CreateMode::SequentialLeased(_) => 8,
    }
}

/// The mode with this code; few have a time to live, or a lease.
pub(super) fn mode_from_code(code: u32, ttl_ms: u64, lease: Option<LeaseId>) -> Option<CreateMode> {
    let ttl = Duration::from_millis(ttl_ms);
    Some(match code {
        5 if lease.is_none() => CreateMode::Ttl(ttl),
        6 if lease.is_none() => CreateMode::SequentialTtl(ttl),
        _ if ttl_ms != 0 => return None,
        7 => CreateMode::Leased(lease?),
        8 => CreateMode::SequentialLeased(lease?),
        _ if lease.is_some() => return None,
        0 => CreateMode::Persistent,
        1 => CreateMode::Ephemeral,
        2 => CreateMode::PersistentSequential,
        3 => CreateMode::EphemeralSequential,
        4 => CreateMode::Container,
        _ => return None,
    })
}

fn guard_to_record(guard: &Guard) -> proto::GuardRecord {
    use proto::guard_record::Kind as Record;
    let kind = match &guard.check {
        Check::Exists(exists) => Record::Exists(*exists),
        Check::Version(version) => Record::Version(*version),
        Check::Czxid(czxid) => Record::Czxid(czxid.as_u64()),
        Check::Owner(owner) => Record::Owner(owner.as_u64()),
        Check::Compare { field, is, to } => Record::Compare(proto::CompareRecord {
            field: FIELDS.iter().position(|it| it == field).unwrap_or(FIELDS.len()) as u32,
            relation: relation_code(*is),
            to: *to,
        }),
        Check::Value { is, to } => {
            Record::Value(proto::ValueRecord { relation: relation_code(*is), to: to.clone() })
        }
    };
    proto::GuardRecord { path: text(guard.path.as_str()), kind: Some(kind) }
}

fn guard_from_record(record: proto::GuardRecord) -> Result<Guard, CommandError> {
    use proto::guard_record::Kind as Record;
    let check = match record.kind.ok_or(CommandError::UnknownKind)? {
        Record::Exists(exists) => Check::Exists(exists),
        Record::Version(version) => Check::Version(version),
        Record::Czxid(czxid) => Check::Czxid(Zxid::new(czxid)),
        Record::Owner(owner) => Check::Owner(lease(owner)?),
        Record::Compare(it) => Check::Compare {
            field: *FIELDS.get(it.field as usize).ok_or(CommandError::UnknownKind)?,
            is: relation(it.relation)?,
            to: it.to,
        },
        Record::Value(it) => Check::Value { is: relation(it.relation)?, to: it.to },
    };
    Ok(Guard { path: path(&record.path)?, check })
}

fn relation_code(relation: Relation) -> u32 {
    match relation {
        Relation::Equal => 0,
        Relation::NotEqual => 1,
        Relation::Less => 2,
        Relation::Greater => 3,
    }
}

fn relation(code: u32) -> Result<Relation, CommandError> {
    Ok(match code {
        0 => Relation::Equal,
        1 => Relation::NotEqual,
        2 => Relation::Less,
        3 => Relation::Greater,
        _ => return Err(CommandError::UnknownKind),
    })
}

/// A name, or the beginning of one: it is compared with names, and never becomes one.
fn name(bytes: &[u8]) -> Result<String, CommandError> {
    if bytes.len() > Path::BYTES_MAX {
        return Err(CommandError::Field("name"));
    }
    String::from_utf8(bytes.to_vec()).map_err(|_| CommandError::Field("name"))
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// By their codes.
const FIELDS: [Field; 8] = [
    Field::Version,
    Field::Cversion,
    Field::Aversion,
    Field::Czxid,
    Field::Mzxid,
    Field::Pzxid,
    Field::Children,
    Field::DataLength,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{Acl, Quota};

    fn path(text: &str) -> Path {
        text.parse().unwrap()
    }

    /// One of every operation; a new one does not compile without a row.
    fn operations() -> Vec<Op> {
        let (data, nodes_hard) = (Bytes::from_static(b"data"), Some(0));
        let path = || path("/a/b");
        let mut ops = vec![
            Op::Set { path: path(), data: data.clone(), version: Some(0) },
            Op::Delete { path: path(), version: None },
            Op::DeleteTree { path: path() },
            Op::Get { path: path() },
            Op::Exists { path: path() },
            Op::GetAcl { path: path() },
            Op::SetAcl { path: path(), acl: Acl::open(), version: None },
            Op::SetAcl { path: path(), acl: Acl::creator(), version: Some(4) },
            Op::SetQuota { path: path(), quota: None },
            Op::SetQuota { path: path(), quota: Some(Quota::default()) },
            Op::SetQuota { path: path(), quota: Some(Quota { nodes_hard, ..Quota::default() }) },
            Op::Grant { ttl: Duration::ZERO },
            Op::Grant { ttl: Duration::from_micros(1_500_001) },
            Op::Revoke { lease: LeaseId::new(3).unwrap() },
            Op::List(List::of(path())),
            Op::List(List::of(path()).after("x").prefix("y").only(Children::Ephemeral).with_stat()),
            Op::List(List::of(path()).only(Children::Persistent).limit(7).with_data()),
        ];
        let ttl = Duration::from_millis(5);
        for mode in [
            CreateMode::Persistent,
            CreateMode::Ephemeral,
            CreateMode::PersistentSequential,
            CreateMode::EphemeralSequential,
            CreateMode::Container,
            CreateMode::Ttl(ttl),
            CreateMode::SequentialTtl(ttl),
            CreateMode::Leased(LeaseId::new(9).unwrap()),
            CreateMode::SequentialLeased(LeaseId::new((1 << 56) - 1).unwrap()),
        ] {
            for acl in [None, Some(Acl::creator()), Some(Acl::open())] {
                let (path, data) = (path().into(), data.clone());
                ops.push(Op::Create { path, data, mode, acl });
            }
        }
        ops.extend(guards().into_iter().map(Op::Check));
        for op in &ops {
            match op {
                Op::Create { .. } | Op::Set { .. } | Op::Delete { .. } => {}
                Op::DeleteTree { .. } | Op::Check(_) => {}
                Op::SetAcl { .. } | Op::GetAcl { .. } | Op::SetQuota { .. } => {}
                Op::Get { .. } | Op::Exists { .. } | Op::List(_) => {}
                Op::Grant { .. } | Op::Revoke { .. } => {}
            }
        }
        ops
    }

    /// What brings no data, not even empty data.
    fn nulls() -> Vec<Txn> {
        let (data, mode) = (Bytes::new(), CreateMode::Persistent);
        let create = Op::Create {
            path: path("/a").into(),
            data: data.clone(),
            mode,
            acl: Some(Acl::open()),
        };
        let ops = [create, Op::Set { path: path("/a"), data, version: Some(2) }];
        let steps = ops.map(|op| Step { op, null: true });
        let many = Body::Many { then: steps.to_vec(), otherwise: None };
        let one = steps.into_iter().map(Body::One);
        one.chain([many]).map(Txn::with_body).collect()
    }

    fn guards() -> Vec<Guard> {
        let mut checks = vec![
            Check::Exists(true),
            Check::Exists(false),
            Check::Version(3),
            Check::Czxid(Zxid::new(9)),
            Check::Owner(LeaseId::new(7).unwrap()),
        ];
        let relations = [Relation::Equal, Relation::NotEqual, Relation::Less, Relation::Greater];
        for is in relations {
            checks.push(Check::Value { is, to: Bytes::from_static(b"v") });
            checks.extend(FIELDS.map(|field| Check::Compare { field, is, to: 4 }));
        }
        checks.into_iter().map(|check| Guard { path: path("/g"), check }).collect()
    }

    #[test]
    fn every_transaction_comes_back_as_it_was() {
        let all = operations();
        let mut txns: Vec<_> = all.iter().cloned().map(Txn::new).collect();
        txns.extend(all.iter().cloned().map(|op| Txn::all([op])));
        txns.push(Txn::all([]).or_else([]));
        txns.push(Txn::all(all.clone()).or_else(all));
        txns.push(guards().into_iter().fold(Txn::all([]), Txn::guard));
        txns.extend(nulls());
        txns.extend(txns.clone().into_iter().map(Txn::for_zookeeper));
        for txn in txns {
            assert_eq!(txn_from_record(Some(txn_to_record(&txn))), Ok(txn));
        }
    }

    /// What a later release may add is named as such; what no release writes is refused.
    #[test]
    fn unknown_and_impossible_operations_are_told_apart() {
        let record = |op| proto::TxnRecord { op, ..proto::TxnRecord::default() };
        assert_eq!(txn_from_record(Some(record(None))), Err(CommandError::UnknownKind));
        let other = |kind| record(Some(txn_record::Op::Other(proto::OpRecord { kind })));
        assert_eq!(txn_from_record(Some(other(None))), Err(CommandError::UnknownKind));
        // A second way to write what has a first one.
        let delete = step_to_record(&Op::Delete { path: path("/a"), version: None }.into());
        let refused = txn_from_record(Some(other(Some(delete))));
        assert_eq!(refused, Err(CommandError::Field("op")));
        let create = proto::CreateRecord { path: "/a".into(), mode: 9, ..Default::default() };
        let later = other(Some(op_record::Kind::Create(create)));
        assert!(txn_from_record(Some(later)).is_err());
        let step = Step::from(Op::Exists { path: path("/a") });
        let many = vec![step; TXN_OPS_MAX as usize];
        let bytes = steps_to_bytes(&many);
        assert!(steps_from_bytes(bytes.clone(), 0).is_ok());
        assert_eq!(steps_from_bytes(bytes, 1), Err(CommandError::Field("operations")));
        let ttl = proto::CreateRecord { path: "/a".into(), ttl_ms: 1, ..Default::default() };
        let ttl = record(Some(txn_record::Op::Create(ttl)));
        assert_eq!(txn_from_record(Some(ttl)), Err(CommandError::UnknownKind));
        // A second way to write the list that is open, and one beside it.
        for (open, acl) in [(false, Acl::open()), (true, Acl::open()), (true, Acl::creator())] {
            let acl = acl_to_bytes(&acl);
            let listed = proto::CreateRecord { path: "/a".into(), acl, open, ..Default::default() };
            let listed = record(Some(txn_record::Op::Create(listed)));
            assert_eq!(txn_from_record(Some(listed)), Err(CommandError::Field("acl")));
        }
        // A lease where there is none, none where there is one, and one that cannot be.
        for (mode, lease, error) in [
            (1, 7, CommandError::UnknownKind),
            (5, 7, CommandError::UnknownKind),
            (7, 0, CommandError::UnknownKind),
            (7, 1 << 56, CommandError::Field("lease")),
        ] {
            let leased =
                proto::CreateRecord { path: "/a".into(), mode, lease, ..Default::default() };
            let leased = record(Some(txn_record::Op::Create(leased)));
            assert_eq!(txn_from_record(Some(leased)), Err(error));
        }
    }
}
