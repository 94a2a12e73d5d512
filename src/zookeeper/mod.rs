//! The ZooKeeper client protocol, of clients from 3.4 to 3.9.
//!
//! [`Request`] and [`Response`] are what packets say; both directions are here, for servers and
//! for clients. A packet is a record behind its length, a big-endian number of 4 bytes.
//!
//! `docs/zookeeper.md` has a table of all operations: what is as in ZooKeeper, what differs, and
//! what is refused.

mod acl;
mod code;
mod connection;
mod furniture;
mod inquiry;
mod jute;
mod line;
mod listener;
mod machine;
mod options;
mod outbox;
mod quota;
mod record;
mod report;
mod request;
mod response;
mod servers;
mod slot;
mod traffic;
mod view;
mod watches;
mod words;

#[cfg(any(test, fuzzing, feature = "sim"))]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

pub use self::{
    code::{ErrorCode, EventType, OpCode, WatcherType},
    connection::{Connection, ConnectionOptions},
    jute::JuteError,
    listener::Listener,
    options::{ListenerOptions, ServerAddress},
    record::{
        AclEntry, AuthPacket, ClientIdentity, ConnectRequest, ConnectResponse, Create2Response,
        CreateRequest, CreateTtlRequest, GetAclResponse, GetChildren2Response, GetDataResponse, Id,
        MultiHeader, NamesResponse, NumberResponse, PathRecord, ReconfigRequest, ReplyHeader,
        RequestHeader, SaslRecord, SetAclRequest, SetDataRequest, SetWatches2Request,
        SetWatchesRequest, StatRecord, VersionRequest, WatchRequest, WatchedRequest, WatcherEvent,
        WhoAmIResponse,
    },
    request::Request,
    response::{PartResponse, Response},
    traffic::{Latency, Traffic},
    watches::Watches,
    words::Word,
};
