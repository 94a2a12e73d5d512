//! The records of ZooKeeper 3.9's client protocol (`zookeeper.jute`), as they stand in a packet:
//! texts and buffers are slices of it. What a path or a list may be is said elsewhere.

use crate::zookeeper::jute::{Jute, JuteError, Reader, records};

records! {
    /// Somebody, in a scheme.
    Id<'a> {
        /// `world`, `auth`, `digest`, `ip`, ..
        scheme: &'a str,
        /// Who.
        id: &'a str,
    }

    /// Rights of somebody.
    AclEntry<'a> {
        /// Bits: read 1, write 2, create 4, delete 8, admin 16.
        perms: i32,
        /// Whose.
        id: Id<'a>,
    }

    /// What is to be known of a node.
    StatRecord {
        /// The transaction that created it.
        czxid: i64,
        /// The transaction that last changed its data.
        mzxid: i64,
        /// When it was created, in milliseconds.
        ctime: i64,
        /// When its data was last changed, in milliseconds.
        mtime: i64,
        /// Changes of its data.
        version: i32,
        /// Changes of its children.
        cversion: i32,
        /// Changes of its access control list.
        aversion: i32,
        /// The session that owns it, or its kind.
        ephemeral_owner: i64,
        /// Bytes of data.
        data_length: i32,
        /// How many children it has.
        num_children: i32,
        /// The transaction that last changed its list of children.
        pzxid: i64,
    }

    /// Before each request.
    RequestHeader {
        /// Chosen by the client; the answer has it.
        xid: i32,
        /// An [`OpCode`](super::OpCode).
        op: i32,
    }

    /// Before each answer and each event.
    ReplyHeader {
        /// That of the request, or -1 for an event.
        xid: i32,
        /// The last transaction that the server has applied.
        zxid: i64,
        /// An [`ErrorCode`](super::ErrorCode).
        err: i32,
    }

    /// Before each part of a multi, and once at its end.
    MultiHeader {
        /// An [`OpCode`](super::OpCode).
        op: i32,
        /// Whether this is the end.
        done: bool,
        /// An [`ErrorCode`](super::ErrorCode).
        err: i32,
    }

    /// Proves an identity.
    AuthPacket<'a> {
        /// 0.
        kind: i32,
        /// The scheme.
        scheme: &'a str,
        /// The proof.
        auth: Option<&'a [u8]>,
    }

    /// Of create, create2 and createContainer.
    CreateRequest<'a> {
        /// The path, or what stands before the number.
        path: &'a str,
        /// Its data.
        data: Option<&'a [u8]>,
        /// Who may do what.
        acl: Vec<AclEntry<'a>>,
        /// A `CreateMode`.
        flags: i32,
    }

    /// Of createTTL.
    CreateTtlRequest<'a> {
        /// The path, or what stands before the number.
        path: &'a str,
        /// Its data.
        data: Option<&'a [u8]>,
        /// Who may do what.
        acl: Vec<AclEntry<'a>>,
        /// A `CreateMode`.
        flags: i32,
        /// Milliseconds.
        ttl: i64,
    }

    /// Of delete, and of check.
    VersionRequest<'a> {
        /// The node.
        path: &'a str,
        /// The version it must be at, or -1.
        version: i32,
    }

    /// Of exists, getData, getChildren and getChildren2.
    WatchedRequest<'a> {
        /// The node.
        path: &'a str,
        /// Whether a watch is armed.
        watch: bool,
    }

    /// Of setData.
    SetDataRequest<'a> {
        /// The node.
        path: &'a str,
        /// The new data.
        data: Option<&'a [u8]>,
        /// The version it must be at, or -1.
        version: i32,
    }

    /// Of getACL, sync, getEphemerals and getAllChildrenNumber; the answer to create and sync.
    PathRecord<'a> {
        /// The path.
        path: &'a str,
    }

    /// Of setACL.
    SetAclRequest<'a> {
        /// The node.
        path: &'a str,
        /// The new list.
        acl: Vec<AclEntry<'a>>,
        /// The version that its list must be at, or -1.
        version: i32,
    }

    /// Of checkWatches, removeWatches and addWatch.
    WatchRequest<'a> {
        /// The node.
        path: &'a str,
        /// A [`WatcherType`](super::WatcherType); of addWatch, 0 for one that stays, 1 for a
        /// recursive one.
        kind: i32,
    }

    /// Of setWatches.
    SetWatchesRequest<'a> {
        /// What the client had seen.
        relative_zxid: i64,
        /// Watches of data.
        data: Vec<&'a str>,
        /// Watches of nodes that were not there.
        exist: Vec<&'a str>,
        /// Watches of children.
        child: Vec<&'a str>,
    }

    /// Of setWatches2.
    SetWatches2Request<'a> {
        /// What the client had seen.
        relative_zxid: i64,
        /// Watches of data.
        data: Vec<&'a str>,
        /// Watches of nodes that were not there.
        exist: Vec<&'a str>,
        /// Watches of children.
        child: Vec<&'a str>,
        /// Watches that stay.
        persistent: Vec<&'a str>,
        /// Recursive ones.
        recursive: Vec<&'a str>,
    }

    /// Of reconfig.
    ReconfigRequest<'a> {
        /// Who joins.
        joining: &'a str,
        /// Who leaves.
        leaving: &'a str,
        /// All members.
        members: &'a str,
        /// The configuration that it must be, or -1.
        config_id: i64,
    }

    /// Of sasl, both ways.
    SaslRecord<'a> {
        /// A step of the mechanism.
        token: Option<&'a [u8]>,
    }

    /// The answer to create2, createContainer and createTTL.
    Create2Response<'a> {
        /// The node's path.
        path: &'a str,
        /// Its stat.
        stat: StatRecord,
    }

    /// The answer to getData.
    GetDataResponse<'a> {
        /// The node's data.
        data: Option<&'a [u8]>,
        /// Its stat.
        stat: StatRecord,
    }

    /// The answer to getACL.
    GetAclResponse<'a> {
        /// The node's list.
        acl: Vec<AclEntry<'a>>,
        /// Its stat.
        stat: StatRecord,
    }

    /// The answer to getChildren, and to getEphemerals.
    NamesResponse<'a> {
        /// Names, or paths.
        names: Vec<&'a str>,
    }

    /// The answer to getChildren2.
    GetChildren2Response<'a> {
        /// Names.
        names: Vec<&'a str>,
        /// The parent's stat.
        stat: StatRecord,
    }

    /// The answer to getAllChildrenNumber; also the error in a multi.
    NumberResponse {
        /// How many.
        number: i32,
    }

    /// One of the answer to whoAmI.
    ClientIdentity<'a> {
        /// The scheme.
        scheme: &'a str,
        /// The user.
        user: &'a str,
    }

    /// The answer to whoAmI.
    WhoAmIResponse<'a> {
        /// All that the client is.
        clients: Vec<ClientIdentity<'a>>,
    }

    /// What a watch tells.
    WatcherEvent<'a> {
        /// An [`EventType`](super::EventType).
        kind: i32,
        /// 3, connected.
        state: i32,
        /// The node.
        path: &'a str,
    }
}

/// The first packet of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(clippy::exhaustive_structs, reason = "the protocol fixes its fields")]
pub struct ConnectRequest<'a> {
    /// 0.
    pub protocol_version: i32,
    /// The newest transaction that the client has seen.
    pub last_zxid_seen: i64,
    /// The session's time-out that the client wants, in milliseconds.
    pub timeout: i32,
    /// The session to be had back, or 0.
    pub session: i64,
    /// Its password.
    pub password: Option<&'a [u8]>,
    /// Whether a server that only reads will do; clients before 3.4 do not say.
    pub read_only: Option<bool>,
}

/// The first packet of a server.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(clippy::exhaustive_structs, reason = "the protocol fixes its fields")]
pub struct ConnectResponse<'a> {
    /// 0.
    pub protocol_version: i32,
    /// The session's time-out in milliseconds; 0 if it is over.
    pub timeout: i32,
    /// The session; 0 if it is over.
    pub session: i64,
    /// Its password.
    pub password: Option<&'a [u8]>,
    /// Whether the server only reads; only told to a client that said.
    pub read_only: Option<bool>,
}

impl<'a> Jute<'a> for ConnectRequest<'a> {
    const BYTES_MIN: usize = 28;

    fn read(from: &mut Reader<'a>) -> Result<Self, JuteError> {
        Ok(Self {
            protocol_version: from.get()?,
            last_zxid_seen: from.get()?,
            timeout: from.get()?,
            session: from.get()?,
            password: from.get()?,
            read_only: if from.left() == 0 { None } else { Some(from.get()?) },
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.protocol_version.write(out);
        self.last_zxid_seen.write(out);
        self.timeout.write(out);
        self.session.write(out);
        self.password.write(out);
        self.read_only.iter().for_each(|it| it.write(out));
    }
}

impl<'a> Jute<'a> for ConnectResponse<'a> {
    const BYTES_MIN: usize = 20;

    fn read(from: &mut Reader<'a>) -> Result<Self, JuteError> {
        Ok(Self {
            protocol_version: from.get()?,
            timeout: from.get()?,
            session: from.get()?,
            password: from.get()?,
            read_only: if from.left() == 0 { None } else { Some(from.get()?) },
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.protocol_version.write(out);
        self.timeout.write(out);
        self.session.write(out);
        self.password.write(out);
        self.read_only.iter().for_each(|it| it.write(out));
    }
}
