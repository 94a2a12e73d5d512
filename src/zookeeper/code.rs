//! Numbers of the protocol: operations, errors, events, and what tells packets apart.

macro_rules! numbers {
    ($(#[$doc:meta])* $name:ident { $($(#[$one_doc:meta])* $one:ident = $number:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$one_doc])* $one,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$one,)*];

            /// Its number on the wire.
            pub const fn number(self) -> i32 {
                match self {
                    $(Self::$one => $number,)*
                }
            }

            /// The one with this number.
            pub const fn from_number(number: i32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$one),)*
                    _ => None,
                }
            }
        }
    };
}

numbers! {
    /// What a client asks for (`ZooDefs.OpCode`).
    OpCode {
        /// Makes a node.
        Create = 1,
        /// Removes a node.
        Delete = 2,
        /// A node's stat.
        Exists = 3,
        /// A node's data and stat.
        GetData = 4,
        /// Replaces a node's data.
        SetData = 5,
        /// A node's access control list.
        GetAcl = 6,
        /// Replaces a node's access control list.
        SetAcl = 7,
        /// The names of a node's children.
        GetChildren = 8,
        /// Waits for all that was acknowledged anywhere.
        Sync = 9,
        /// Says that the client lives.
        Ping = 11,
        /// The names of a node's children, and its stat.
        GetChildren2 = 12,
        /// Fails unless a node is at a version.
        Check = 13,
        /// Several changes, all or none.
        Multi = 14,
        /// Makes a node, and gives its stat.
        Create2 = 15,
        /// Changes the members.
        Reconfig = 16,
        /// Whether the client has a watch.
        CheckWatches = 17,
        /// Ends watches.
        RemoveWatches = 18,
        /// Makes a container.
        CreateContainer = 19,
        /// Between servers only.
        DeleteContainer = 20,
        /// Makes a node with a time to live.
        CreateTtl = 21,
        /// Several reads at one moment.
        MultiRead = 22,
        /// Adds an identity.
        Auth = 100,
        /// Arms the watches of an earlier connection anew.
        SetWatches = 101,
        /// A step of SASL.
        Sasl = 102,
        /// The session's own ephemeral nodes.
        GetEphemerals = 103,
        /// How many nodes lie below one.
        GetAllChildrenNumber = 104,
        /// As [`OpCode::SetWatches`], with persistent ones.
        SetWatches2 = 105,
        /// Adds a watch that stays.
        AddWatch = 106,
        /// The client's own identities.
        WhoAmI = 107,
        /// Between servers only.
        CreateSession = -10,
        /// Ends the session.
        CloseSession = -11,
        /// The failed part of a multi.
        Error = -1,
    }
}

impl OpCode {
    /// Whether it is to change something.
    pub(super) fn is_write(self) -> bool {
        matches!(
            self,
            Self::Create
                | Self::Create2
                | Self::CreateContainer
                | Self::CreateTtl
                | Self::Delete
                | Self::SetData
                | Self::SetAcl
                | Self::Check
                | Self::Multi
                | Self::CreateSession
                | Self::CloseSession
        )
    }
}

numbers! {
    /// What a server refuses with (`KeeperException.Code`).
    ErrorCode {
        /// None.
        Ok = 0,
        /// The server cannot.
        SystemError = -1,
        /// An operation of a multi behind the one that failed.
        RuntimeInconsistency = -2,
        /// Data are not what they must be.
        DataInconsistency = -3,
        /// The connection is lost; clients tell themselves.
        ConnectionLoss = -4,
        /// Bytes are no request.
        MarshallingError = -5,
        /// No such operation.
        Unimplemented = -6,
        /// It took too long; clients tell themselves.
        OperationTimeout = -7,
        /// A path, a flag or a number that cannot be.
        BadArguments = -8,
        /// A session that never was.
        UnknownSession = -12,
        /// No quorum of the new members.
        NewConfigNoQuorum = -13,
        /// Another change of members is under way.
        ReconfigInProgress = -14,
        /// Clients tell themselves.
        ApiError = -100,
        /// The node, or its parent, is not there.
        NoNode = -101,
        /// A right is missing.
        NoAuth = -102,
        /// The node is at another version.
        BadVersion = -103,
        /// An ephemeral node has no children.
        NoChildrenForEphemerals = -108,
        /// The node is there already.
        NodeExists = -110,
        /// The node has children.
        NotEmpty = -111,
        /// The session is over.
        SessionExpired = -112,
        /// Clients tell themselves.
        InvalidCallback = -113,
        /// The access control list cannot be.
        InvalidAcl = -114,
        /// The identity was not proved.
        AuthFailed = -115,
        /// The session is another server's now.
        SessionMoved = -118,
        /// The server only reads.
        NotReadOnly = -119,
        /// A local session owns no ephemeral node.
        EphemeralOnLocalSession = -120,
        /// There is no such watch.
        NoWatcher = -121,
        /// The request took too long.
        RequestTimeout = -122,
        /// Members do not change this way.
        ReconfigDisabled = -123,
        /// The session was closed, for it proved no identity.
        SessionClosedRequireSaslAuth = -124,
        /// A quota would be passed.
        QuotaExceeded = -125,
        /// The server has too much to do.
        ThrottledOp = -127,
    }
}

numbers! {
    /// What a watch tells (`Watcher.Event.EventType`).
    EventType {
        /// Of the connection, not of a node.
        None = -1,
        /// The node was made.
        NodeCreated = 1,
        /// The node was removed.
        NodeDeleted = 2,
        /// The node's data was replaced.
        NodeDataChanged = 3,
        /// A child of the node was made or removed.
        NodeChildrenChanged = 4,
        /// The client's watch of the node's data is gone; clients tell themselves.
        DataWatchRemoved = 5,
        /// The client's watch of the children is gone; clients tell themselves.
        ChildWatchRemoved = 6,
        /// The client's watch that stays is gone; clients tell themselves.
        PersistentWatchRemoved = 7,
    }
}

numbers! {
    /// Which watches are meant, where they are asked for or removed (`Watcher.WatcherType`).
    WatcherType {
        /// Of children.
        Children = 1,
        /// Of data, and of existence.
        Data = 2,
        /// All of them.
        Any = 3,
        /// That stay, of one node.
        Persistent = 4,
        /// That stay, of a whole subtree.
        PersistentRecursive = 5,
    }
}

/// The number of a request, where it says what a packet is.
pub(crate) mod xid {
    /// Of an event.
    pub(crate) const EVENT: i32 = -1;
}

/// The flags of a request that makes a node (`CreateMode`).
pub(crate) mod flag {
    pub(crate) const PERSISTENT: i32 = 0;
    pub(crate) const EPHEMERAL: i32 = 1;
    pub(crate) const PERSISTENT_SEQUENTIAL: i32 = 2;
    pub(crate) const EPHEMERAL_SEQUENTIAL: i32 = 3;
    pub(crate) const CONTAINER: i32 = 4;
    pub(crate) const PERSISTENT_TTL: i32 = 5;
    pub(crate) const PERSISTENT_SEQUENTIAL_TTL: i32 = 6;
}

/// The state that an event tells: connected, as it comes over a connection.
pub(crate) const SYNC_CONNECTED: i32 = 3;
