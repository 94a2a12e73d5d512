//! Requests: what a packet of a client asks for, behind its header.

use crate::{
    config::TXN_OPS_MAX,
    zookeeper::{
        code::OpCode,
        jute::{Jute, JuteError, Reader},
        record::{
            AuthPacket, ConnectRequest, CreateRequest, CreateTtlRequest, MultiHeader, PathRecord,
            ReconfigRequest, RequestHeader, SaslRecord, SetAclRequest, SetDataRequest,
            SetWatches2Request, SetWatchesRequest, VersionRequest, WatchRequest, WatchedRequest,
        },
    },
};

/// What a client asks for; texts and buffers are slices of its packet.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Request<'a> {
    /// Makes a node: [`OpCode::Create`], or [`OpCode::Create2`] or [`OpCode::CreateContainer`].
    Create(OpCode, CreateRequest<'a>),
    /// Makes a node with a time to live.
    CreateTtl(CreateTtlRequest<'a>),
    /// Removes a node.
    Delete(VersionRequest<'a>),
    /// A node's stat.
    Exists(WatchedRequest<'a>),
    /// A node's data and stat.
    GetData(WatchedRequest<'a>),
    /// Replaces a node's data.
    SetData(SetDataRequest<'a>),
    /// A node's list.
    GetAcl(PathRecord<'a>),
    /// Replaces a node's list.
    SetAcl(SetAclRequest<'a>),
    /// The names of a node's children.
    GetChildren(WatchedRequest<'a>),
    /// Waits for all that was acknowledged anywhere.
    Sync(PathRecord<'a>),
    /// Says that the client lives.
    Ping,
    /// The names of a node's children, and its stat.
    GetChildren2(WatchedRequest<'a>),
    /// Fails unless a node is at a version.
    Check(VersionRequest<'a>),
    /// Several changes, all or none.
    Multi(Vec<Request<'a>>),
    /// Changes the members.
    Reconfig(ReconfigRequest<'a>),
    /// Whether the client has a watch.
    CheckWatches(WatchRequest<'a>),
    /// Ends watches.
    RemoveWatches(WatchRequest<'a>),
    /// Several reads at one moment.
    MultiRead(Vec<Request<'a>>),
    /// Adds an identity.
    Auth(AuthPacket<'a>),
    /// Arms the watches of an earlier connection anew.
    SetWatches(SetWatchesRequest<'a>),
    /// A step of SASL.
    Sasl(SaslRecord<'a>),
    /// The session's own ephemeral nodes.
    GetEphemerals(PathRecord<'a>),
    /// How many nodes lie below one.
    GetAllChildrenNumber(PathRecord<'a>),
    /// Arms the watches of an earlier connection anew.
    SetWatches2(SetWatches2Request<'a>),
    /// Adds a watch that stays.
    AddWatch(WatchRequest<'a>),
    /// The client's own identities.
    WhoAmI,
    /// Ends the session.
    CloseSession,
}

impl<'a> Request<'a> {
    /// Reads a packet: the number that the client chose, and what it asks for.
    ///
    /// # Errors
    ///
    /// [`JuteError`]; of an operation that is not known, [`JuteError::Operation`]. What could be
    /// read of the header is in [`header`](Self::header).
    pub fn decode(packet: &'a [u8]) -> Result<(i32, Self), JuteError> {
        let mut from = Reader::new(packet);
        let RequestHeader { xid, op } = from.get()?;
        let op = OpCode::from_number(op).ok_or(JuteError::Operation(op))?;
        // As the server does, bytes behind a request are passed over.
        Ok((xid, Self::read(op, &mut from)?))
    }

    /// The header of a packet, whatever follows it.
    ///
    /// # Errors
    ///
    /// [`JuteError::Short`].
    pub fn header(packet: &'a [u8]) -> Result<RequestHeader, JuteError> {
        Reader::new(packet).get()
    }

    /// Writes a packet, without its length.
    pub fn encode(&self, xid: i32, out: &mut Vec<u8>) {
        RequestHeader { xid, op: self.op().number() }.write(out);
        self.write(out);
    }

    /// What kind it is.
    pub fn op(&self) -> OpCode {
        match self {
            Self::Create(op, _) => *op,
            Self::CreateTtl(_) => OpCode::CreateTtl,
            Self::Delete(_) => OpCode::Delete,
            Self::Exists(_) => OpCode::Exists,
            Self::GetData(_) => OpCode::GetData,
            Self::SetData(_) => OpCode::SetData,
            Self::GetAcl(_) => OpCode::GetAcl,
            Self::SetAcl(_) => OpCode::SetAcl,
            Self::GetChildren(_) => OpCode::GetChildren,
            Self::Sync(_) => OpCode::Sync,
            Self::Ping => OpCode::Ping,
            Self::GetChildren2(_) => OpCode::GetChildren2,
            Self::Check(_) => OpCode::Check,
            Self::Multi(_) => OpCode::Multi,
            Self::Reconfig(_) => OpCode::Reconfig,
            Self::CheckWatches(_) => OpCode::CheckWatches,
            Self::RemoveWatches(_) => OpCode::RemoveWatches,
            Self::MultiRead(_) => OpCode::MultiRead,
            Self::Auth(_) => OpCode::Auth,
            Self::SetWatches(_) => OpCode::SetWatches,
            Self::Sasl(_) => OpCode::Sasl,
            Self::GetEphemerals(_) => OpCode::GetEphemerals,
            Self::GetAllChildrenNumber(_) => OpCode::GetAllChildrenNumber,
            Self::SetWatches2(_) => OpCode::SetWatches2,
            Self::AddWatch(_) => OpCode::AddWatch,
            Self::WhoAmI => OpCode::WhoAmI,
            Self::CloseSession => OpCode::CloseSession,
        }
    }

    fn read(op: OpCode, from: &mut Reader<'a>) -> Result<Self, JuteError> {
        Ok(match op {
            OpCode::Create | OpCode::Create2 | OpCode::CreateContainer => {
                Self::Create(op, from.get()?)
            }
            OpCode::CreateTtl => Self::CreateTtl(from.get()?),
            OpCode::Delete => Self::Delete(from.get()?),
            OpCode::Exists => Self::Exists(from.get()?),
            OpCode::GetData => Self::GetData(from.get()?),
            OpCode::SetData => Self::SetData(from.get()?),
            OpCode::GetAcl => Self::GetAcl(from.get()?),
            OpCode::SetAcl => Self::SetAcl(from.get()?),
            OpCode::GetChildren => Self::GetChildren(from.get()?),
            OpCode::Sync => Self::Sync(from.get()?),
            OpCode::Ping => Self::Ping,
            OpCode::GetChildren2 => Self::GetChildren2(from.get()?),
            OpCode::Check => Self::Check(from.get()?),
            OpCode::Multi => Self::Multi(read_parts(from, is_change)?),
            OpCode::Reconfig => Self::Reconfig(from.get()?),
            OpCode::CheckWatches => Self::CheckWatches(from.get()?),
            OpCode::RemoveWatches => Self::RemoveWatches(from.get()?),
            OpCode::MultiRead => Self::MultiRead(read_parts(from, is_read)?),
            OpCode::Auth => Self::Auth(from.get()?),
            OpCode::SetWatches => Self::SetWatches(from.get()?),
            OpCode::Sasl => Self::Sasl(from.get()?),
            OpCode::GetEphemerals => Self::GetEphemerals(from.get()?),
            OpCode::GetAllChildrenNumber => Self::GetAllChildrenNumber(from.get()?),
            OpCode::SetWatches2 => Self::SetWatches2(from.get()?),
            OpCode::AddWatch => Self::AddWatch(from.get()?),
            OpCode::WhoAmI => Self::WhoAmI,
            OpCode::CloseSession => Self::CloseSession,
            OpCode::DeleteContainer | OpCode::CreateSession | OpCode::Error => {
                return Err(JuteError::Operation(op.number()));
            }
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Create(_, it) => it.write(out),
            Self::CreateTtl(it) => it.write(out),
            Self::Delete(it) | Self::Check(it) => it.write(out),
            Self::Exists(it)
            | Self::GetData(it)
            | Self::GetChildren(it)
            | Self::GetChildren2(it) => it.write(out),
            Self::SetData(it) => it.write(out),
            Self::GetAcl(it)
            | Self::Sync(it)
            | Self::GetEphemerals(it)
            | Self::GetAllChildrenNumber(it) => it.write(out),
            Self::SetAcl(it) => it.write(out),
            Self::Multi(parts) | Self::MultiRead(parts) => {
                for part in parts {
                    MultiHeader { op: part.op().number(), done: false, err: -1 }.write(out);
                    part.write(out);
                }
                MultiHeader { op: OpCode::Error.number(), done: true, err: -1 }.write(out);
            }
            Self::Reconfig(it) => it.write(out),
            Self::CheckWatches(it) | Self::RemoveWatches(it) | Self::AddWatch(it) => it.write(out),
            Self::Auth(it) => it.write(out),
            Self::SetWatches(it) => it.write(out),
            Self::SetWatches2(it) => it.write(out),
            Self::Sasl(it) => it.write(out),
            Self::Ping | Self::WhoAmI | Self::CloseSession => {}
        }
    }
}

impl<'a> ConnectRequest<'a> {
    /// Reads the first packet of a client.
    ///
    /// # Errors
    ///
    /// [`JuteError`].
    pub fn decode(packet: &'a [u8]) -> Result<Self, JuteError> {
        Reader::new(packet).get()
    }

    /// Writes the packet, without its length.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.write(out);
    }
}

/// The parts of a multi: no more than any cluster allows, for they take more room than their bytes.
fn read_parts<'a>(
    from: &mut Reader<'a>,
    allowed: fn(OpCode) -> bool,
) -> Result<Vec<Request<'a>>, JuteError> {
    let mut parts = Vec::new();
    loop {
        let header: MultiHeader = from.get().map_err(|_| JuteError::Unended)?;
        if header.done {
            return Ok(parts);
        }
        if parts.len() >= PARTS_MAX {
            return Err(JuteError::Parts { max: PARTS_MAX });
        }
        let op = OpCode::from_number(header.op).filter(|op| allowed(*op));
        let op = op.ok_or(JuteError::Operation(header.op))?;
        parts.push(Request::read(op, from)?);
    }
}

fn is_change(op: OpCode) -> bool {
    matches!(
        op,
        OpCode::Create
            | OpCode::Create2
            | OpCode::CreateContainer
            | OpCode::CreateTtl
            | OpCode::Delete
            | OpCode::SetData
            | OpCode::Check
    )
}

fn is_read(op: OpCode) -> bool {
    matches!(op, OpCode::GetData | OpCode::GetChildren)
}

/// Parts of a multi.
const PARTS_MAX: usize = TXN_OPS_MAX as usize;
