//! What a connection has asked for and not answered yet: one slot a request, in order.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    client::Ask,
    node::{Consistency, ReadOp},
    op::{Body, Check, CreateMode, Guard, Op, Step, Txn},
    path::{Path, PathPrefix},
    zookeeper::{
        acl::{acl_of, version_of},
        code::{ErrorCode, OpCode, flag},
        quota,
        record::{CreateRequest, RequestHeader, SetAclRequest, SetDataRequest, VersionRequest},
        request::Request,
    },
};

/// A request that is not answered, what the client calls it, and when it came.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) header: RequestHeader,
    pub(super) since: Duration,
    pub(super) waits: Waits,
}

/// What a request waits for.
#[derive(Debug)]
pub(super) enum Waits {
    /// Nothing but the requests before it.
    Turn(Turn),
    /// A transaction of one operation.
    Write(OpCode),
    /// A transaction of several.
    Multi(Box<Plan>),
    /// The end of the session.
    Close,
    /// A read of one node, and whether a watch is to be armed.
    Exists(Path, bool),
    /// As [`Waits::Exists`].
    Data(Path, bool),
    /// A read round, for the path in this packet.
    Sync(Bytes),
    /// The tree, for what this packet asks.
    View(Bytes),
}

impl Waits {
    /// Bytes of the packet, if it is kept; what a write takes along is the node's to bound.
    pub(super) fn kept_bytes(&self) -> usize {
        match self {
            Self::Sync(packet) | Self::View(packet) | Self::Turn(Turn::Watch(packet)) => {
                packet.len()
            }
            _ => 0,
        }
    }
}

/// What is answered without the node, when its turn comes.
#[derive(Debug)]
pub(super) enum Turn {
    Ping,
    WhoAmI,
    /// No such operation: the answer is the last one.
    Unknown,
    Refused(ErrorCode),
    /// A multi of nothing.
    Nothing,
    /// AddWatch, checkWatches or removeWatches, in this packet.
    Watch(Bytes),
}

/// The parts of a multi, and the operations of the transaction that they became.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// What each part is answered as.
    pub(super) parts: Vec<OpCode>,
    /// For each operation its part, and what it means if a guard does not hold.
    pub(super) ops: Vec<(usize, ErrorCode)>,
}

impl Plan {
    /// The transaction. A part that cannot be is refused when those before it have held.
    pub(super) fn of(parts: &[Request<'_>], packet: &Bytes) -> (Self, Txn) {
        let (mut plan, mut then) = (Self::default(), Vec::with_capacity(parts.len()));
        for (at, part) in parts.iter().enumerate() {
            plan.parts.push(answered_as(part.op()));
            match steps_of(part, packet) {
                Ok(its) => {
                    for (step, code) in its.into_iter().flatten() {
                        then.push(step);
                        plan.ops.push((at, code));
                    }
                }
                Err(code) => {
                    // The root is always there.
                    let check = Check::Exists(false);
                    then.push(Op::Check(Guard { path: Path::root(), check }).into());
                    plan.ops.push((at, code));
                    plan.parts.extend(parts[at + 1..].iter().map(|it| answered_as(it.op())));
                    break;
                }
            }
        }
        (plan, Txn::with_body(Body::Many { then, otherwise: None }).for_zookeeper())
    }
}

/// Creates that give a stat are all answered as one.
fn answered_as(op: OpCode) -> OpCode {
    match op {
        OpCode::CreateContainer | OpCode::CreateTtl => OpCode::Create2,
        op => op,
    }
}

/// The transaction of a single change.
pub(super) fn txn_of(request: &Request<'_>, packet: &Bytes) -> Result<Txn, ErrorCode> {
    let [first, last] = steps_of(request, packet)?.map(|it| it.map(|(step, _)| step));
    let body = match (first, last) {
        // Guards are told apart by their places.
        (None, Some(step)) if request.op() != OpCode::Check => Body::One(step),
        (first, last) => {
            Body::Many { then: first.into_iter().chain(last).collect(), otherwise: None }
        }
    };
    Ok(Txn::with_body(body).for_zookeeper())
}

/// The steps of a change, each with what it means if it is a guard that does not hold; what the
/// last one does is the answer.
fn steps_of(
    request: &Request<'_>,
    packet: &Bytes,
) -> Result<[Option<(Step, ErrorCode)>; 2], ErrorCode> {
    let two = |first: Option<Op>, last| {
        [first.map(Step::from), Some(last)].map(|it| it.map(|step| (step, ErrorCode::BadVersion)))
    };
    Ok(match request {
        Request::Create(_, it) => {
            let step = create(it, None, packet)?;
            let stays = matches!(step.op, Op::Create { mode: CreateMode::Persistent, .. });
            let data = Some(it.data.unwrap_or_default());
            two(if stays { quota::change(it.path, data)? } else { None }, step)
        }
        Request::CreateTtl(it) => {
            let (path, data, acl, flags) = (it.path, it.data, it.acl.clone(), it.flags);
            let it = (CreateRequest { path, data, acl, flags }, it.ttl);
            two(None, create(&it.0, Some(it.1), packet)?)
        }
        Request::Delete(VersionRequest { path, version }) => {
            let (quota, path) = (quota::change(path, None)?, checked(path)?);
            if SPECIAL.contains(&path.as_str()) {
                return Err(ErrorCode::BadArguments);
            }
            two(quota, Op::Delete { path, version: version_of(*version) }.into())
        }
        Request::SetData(SetDataRequest { path, data, version }) => {
            let quota = quota::change(path, Some(data.unwrap_or_default()))?;
            let (path, null) = (checked(path)?, data.is_none());
            let (data, version) =
                (packet.slice_ref(data.unwrap_or_default()), version_of(*version));
            two(quota, Step { op: Op::Set { path, data, version }, null })
        }
        Request::SetAcl(SetAclRequest { path, acl, version }) => {
            let path = checked(path)?;
            let acl = acl_of(acl).ok_or(ErrorCode::InvalidAcl)?;
            two(None, Op::SetAcl { path, acl, version: version_of(*version) }.into())
        }
        Request::Check(VersionRequest { path, version }) => {
            let path = checked(path)?;
            let check = |check| Step::from(Op::Check(Guard { path: path.clone(), check }));
            let there = Some((check(Check::Exists(true)), ErrorCode::NoNode));
            let at = |version| (check(Check::Version(version)), ErrorCode::BadVersion);
            [there, version_of(*version).map(at)]
        }
        _ => return Err(ErrorCode::Unimplemented),
    })
}

fn create(it: &CreateRequest<'_>, ttl_ms: Option<i64>, packet: &Bytes) -> Result<Step, ErrorCode> {
    let mode = mode_of(it.flags, ttl_ms).ok_or(ErrorCode::BadArguments)?;
    let path: PathPrefix = match mode.is_sequential() {
        true => Path::sequential_prefix(it.path).map_err(|_| ErrorCode::BadArguments)?,
        false => checked(it.path)?.into(),
    };
    let acl = acl_of(&it.acl).ok_or(ErrorCode::InvalidAcl)?;
    let (data, null) = (packet.slice_ref(it.data.unwrap_or_default()), it.data.is_none());
    Ok(Step { op: Op::Create { path, data, mode, acl: Some(acl) }, null })
}

/// A mode and its time to live, if they go together.
fn mode_of(flags: i32, ttl_ms: Option<i64>) -> Option<CreateMode> {
    let ttl = || {
        let ttl = std::time::Duration::from_millis(u64::try_from(ttl_ms?).ok()?);
        (!ttl.is_zero() && ttl <= CreateMode::TTL_MAX).then_some(ttl)
    };
    let mode = match flags {
        flag::PERSISTENT => CreateMode::Persistent,
        flag::EPHEMERAL => CreateMode::Ephemeral,
        flag::PERSISTENT_SEQUENTIAL => CreateMode::PersistentSequential,
        flag::EPHEMERAL_SEQUENTIAL => CreateMode::EphemeralSequential,
        flag::CONTAINER => CreateMode::Container,
        flag::PERSISTENT_TTL => return ttl().map(CreateMode::Ttl),
        flag::PERSISTENT_SEQUENTIAL_TTL => return ttl().map(CreateMode::SequentialTtl),
        _ => return None,
    };
    // Only a mode with a time to live has one.
    ttl_ms.is_none_or(|ttl| ttl < 0).then_some(mode)
}

pub(super) fn checked(path: &str) -> Result<Path, ErrorCode> {
    Path::new(path).map_err(|_| ErrorCode::BadArguments)
}

/// A read: what to ask, and what it waits for. A path that cannot be names no node.
pub(super) fn read_of(
    request: &Request<'_>,
    packet: &Bytes,
    consistency: Consistency,
) -> Result<(Ask, Waits), ErrorCode> {
    let path = |path: &str| Path::new(path).map_err(|_| ErrorCode::NoNode);
    Ok(match request {
        Request::Exists(it) if quota::counted(it.path).is_none() => {
            let path = path(it.path)?;
            let ask = Ask::Read(ReadOp::Exists(path.clone()), consistency);
            (ask, Waits::Exists(path, it.watch))
        }
        Request::GetData(it) if quota::counted(it.path).is_none() => {
            let path = path(it.path)?;
            let ask = Ask::Read(ReadOp::Get(path.clone()), consistency);
            (ask, Waits::Data(path, it.watch))
        }
        Request::Sync(_) => {
            let ask = Ask::Read(ReadOp::Barrier, Consistency::Linearizable);
            (ask, Waits::Sync(packet.clone()))
        }
        _ => (Ask::Read(ReadOp::View, consistency), Waits::View(packet.clone())),
    })
}

/// Nodes that are always there.
const SPECIAL: [&str; 4] = ["/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"];
