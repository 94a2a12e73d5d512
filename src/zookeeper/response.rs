//! Responses: what a server answers behind the header of its packet.

use crate::zookeeper::{
    code::{ErrorCode, OpCode},
    jute::{Jute, JuteError, Reader},
    record::{
        ConnectResponse, Create2Response, GetAclResponse, GetChildren2Response, GetDataResponse,
        MultiHeader, NamesResponse, NumberResponse, PathRecord, ReplyHeader, SaslRecord,
        StatRecord, WatcherEvent, WhoAmIResponse,
    },
};

/// What a request is answered with, or told by an event.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Response<'a> {
    /// Nothing but the header: of delete, ping, auth, of watches that were set or removed, of a
    /// close, and of every error.
    Empty,
    /// Of create, and of sync.
    Path(PathRecord<'a>),
    /// Of create2, createContainer and createTTL.
    Created(Create2Response<'a>),
    /// Of exists, setData and setACL.
    Stat(StatRecord),
    /// Of getData, of the configuration, and of a reconfig.
    Node(GetDataResponse<'a>),
    /// Of getACL.
    Acl(GetAclResponse<'a>),
    /// Of getChildren, and of getEphemerals.
    Names(NamesResponse<'a>),
    /// Of getChildren2.
    Children(GetChildren2Response<'a>),
    /// Of getAllChildrenNumber, and of addWatch: 0.
    Number(NumberResponse),
    /// Of multi and multiRead, in the order of the parts.
    Multi(Vec<PartResponse<'a>>),
    /// Of sasl.
    Sasl(SaslRecord<'a>),
    /// Of whoAmI.
    WhoAmI(WhoAmIResponse<'a>),
    /// Of no request: what a watch tells.
    Event(WatcherEvent<'a>),
}

/// What became of a part of a multi.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PartResponse<'a> {
    /// It was done, as part of this kind.
    Done(OpCode, Response<'a>),
    /// It was not; 0 if only another one is to blame.
    Failed(i32),
}

impl<'a> Response<'a> {
    /// Reads a packet that answers a request of this kind; `None` for that of an event.
    ///
    /// # Errors
    ///
    /// [`JuteError`].
    pub fn decode(op: Option<OpCode>, packet: &'a [u8]) -> Result<(ReplyHeader, Self), JuteError> {
        let mut from = Reader::new(packet);
        let header: ReplyHeader = from.get()?;
        let response = match op {
            None => Self::Event(from.get()?),
            Some(_) if header.err != ErrorCode::Ok.number() => Self::Empty,
            Some(op) => Self::read(op, &mut from)?,
        };
        from.end()?;
        Ok((header, response))
    }

    /// Writes a packet, without its length.
    pub fn encode(&self, header: &ReplyHeader, out: &mut Vec<u8>) {
        header.write(out);
        self.write(out);
    }

    fn read(op: OpCode, from: &mut Reader<'a>) -> Result<Self, JuteError> {
        Ok(match op {
            OpCode::Create | OpCode::Sync => Self::Path(from.get()?),
            OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => {
                Self::Created(from.get()?)
            }
            OpCode::Exists | OpCode::SetData | OpCode::SetAcl => Self::Stat(from.get()?),
            OpCode::GetData | OpCode::Reconfig => Self::Node(from.get()?),
            OpCode::GetAcl => Self::Acl(from.get()?),
            OpCode::GetChildren | OpCode::GetEphemerals => Self::Names(from.get()?),
            OpCode::GetChildren2 => Self::Children(from.get()?),
            OpCode::GetAllChildrenNumber | OpCode::AddWatch => Self::Number(from.get()?),
            OpCode::Multi | OpCode::MultiRead => Self::Multi(read_parts(from)?),
            OpCode::Sasl => Self::Sasl(from.get()?),
            OpCode::WhoAmI => Self::WhoAmI(from.get()?),
            OpCode::Delete
            | OpCode::Ping
            | OpCode::Check
            | OpCode::CheckWatches
            | OpCode::RemoveWatches
            | OpCode::Auth
            | OpCode::SetWatches
            | OpCode::SetWatches2
            | OpCode::CloseSession => Self::Empty,
            OpCode::DeleteContainer | OpCode::CreateSession | OpCode::Error => {
                return Err(JuteError::Operation(op.number()));
            }
        })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Empty => {}
            Self::Path(it) => it.write(out),
            Self::Created(it) => it.write(out),
            Self::Stat(it) => it.write(out),
            Self::Node(it) => it.write(out),
            Self::Acl(it) => it.write(out),
            Self::Names(it) => it.write(out),
            Self::Children(it) => it.write(out),
            Self::Number(it) => it.write(out),
            Self::Multi(parts) => {
                parts.iter().for_each(|part| part.write(out));
                end_parts(out);
            }
            Self::Sasl(it) => it.write(out),
            Self::WhoAmI(it) => it.write(out),
            Self::Event(it) => it.write(out),
        }
    }
}

impl PartResponse<'_> {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Done(op, response) => {
                MultiHeader { op: op.number(), done: false, err: 0 }.write(out);
                response.write(out);
            }
            Self::Failed(err) => {
                let op = OpCode::Error.number();
                MultiHeader { op, done: false, err: *err }.write(out);
                NumberResponse { number: *err }.write(out);
            }
        }
    }
}

impl<'a> ConnectResponse<'a> {
    /// Reads the first packet of a server.
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

/// Ends the parts of a multi.
pub(crate) fn end_parts(out: &mut Vec<u8>) {
    MultiHeader { op: OpCode::Error.number(), done: true, err: -1 }.write(out);
}

fn read_parts<'a>(from: &mut Reader<'a>) -> Result<Vec<PartResponse<'a>>, JuteError> {
    let mut parts = Vec::new();
    loop {
        let header: MultiHeader = from.get().map_err(|_| JuteError::Unended)?;
        if header.done {
            return Ok(parts);
        }
        parts.push(match OpCode::from_number(header.op) {
            Some(OpCode::Error) => PartResponse::Failed(from.get::<NumberResponse>()?.number),
            Some(OpCode::Multi | OpCode::MultiRead) | None => {
                return Err(JuteError::Operation(header.op));
            }
            Some(op) => PartResponse::Done(op, Response::read(op, from)?),
        });
    }
}
