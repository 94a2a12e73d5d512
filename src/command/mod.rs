//! What one log entry says, and its codec.
//!
//! An entry is a version, the time by which the replicated clock advances, and a batch of commands
//! that is read lazily. Decoding checks everything, so the namespace takes only what it can apply.

pub(crate) mod access;
mod fast;
mod txn;

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};
use prost::{
    Message as _,
    encoding::{WireType, decode_varint, encode_key, encode_varint},
};
use thiserror::Error;

use crate::{
    id::{LeaseId, NodeId, Origin, SecretHash, SessionId, StoreId, Zxid},
    op::{Identities, Txn},
    path::Path,
    proto::{self, command_record::Kind},
    record::put_delimited,
};

use self::{
    access::{identities_from_bytes, identities_to_bytes},
    txn::{txn_from_record, txn_to_record},
};

/// The content of a normal log entry; an entry without any data is a leader's empty one.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Entry {
    /// By how much the replicated clock advances before the commands.
    pub(crate) advance_us: u64,
    /// The leader's wall clock.
    pub(crate) wall_ms: u64,
    /// Length-delimited commands.
    pub(crate) commands: Batch,
}

/// Length-delimited commands, read one at a time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Batch(pub(crate) Bytes);

/// One command of the replicated state machine.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Command {
    /// A session's transaction, exactly once and in sequence.
    SessionTxn {
        session: SessionId,
        epoch: u64,
        seq: u64,
        acked: u64,
        txn: Txn,
    },
    /// A transaction outside any session.
    PlainTxn {
        origin: Origin,
        identities: Identities,
        txn: Txn,
    },
    OpenSession {
        origin: Origin,
        secret: SecretHash,
        ttl_us: u64,
        identities: Identities,
    },
    AttachSession {
        origin: Origin,
        session: SessionId,
        secret: SecretHash,
        epoch: u64,
        /// They take the place of those before.
        identities: Identities,
    },
    CloseSession {
        session: SessionId,
        epoch: u64,
        seq: u64,
    },
    /// Coalesced by the leader; each names the highest number that it covers.
    KeepAlives(Vec<KeepAlive>),
    /// Ends a session or a lease; takes effect only if its deadline has passed.
    Expire {
        lease: LeaseId,
    },
    /// Takes effect only if the node is still the one of this czxid, and due.
    ReapNode {
        path: Path,
        czxid: Zxid,
    },
    /// Records the store of a member whose store is not known yet.
    PinStore {
        node: NodeId,
        store: StoreId,
    },
    /// The members compare their states after an earlier entry (ARCHITECTURE.md, rule 2).
    CompareStates {
        index: u64,
        /// How the digest is made.
        version: u32,
        /// That of the leader's own state.
        digest: u64,
    },
}

/// The newest keep-alive of a session or a lease (ARCHITECTURE.md, rule 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct KeepAlive {
    pub(crate) session: SessionId,
    /// `None`: the session's own.
    pub(crate) lease: Option<LeaseId>,
    pub(crate) epoch: u64,
    pub(crate) number: u64,
    /// Every reply up to this sequence number has reached the client.
    pub(crate) acked: u64,
}

/// Why bytes are not an entry or a command of this release.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The entry was made by a later release.
    #[error("log entry version {version} needs a later release; this one knows {}", ENTRY_VERSION)]
    Version {
        /// Its version.
        version: u32,
    },
    /// The command was made by a later release.
    #[error("a command of unknown kind needs a later release")]
    UnknownKind,
    /// The bytes are no record.
    #[error("the bytes are no {0}")]
    Malformed(&'static str),
    /// A field has a value that it cannot have.
    #[error("the command's field `{0}` is not valid")]
    Field(&'static str),
}

/// A release, by its major and minor number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Release {
    /// The first number.
    pub major: u16,
    /// The second number.
    pub minor: u16,
}

impl Release {
    fn to_u32(self) -> u32 {
        (u32::from(self.major) << 16) | u32::from(self.minor)
    }

    /// 0 stands for none.
    fn from_u32(number: u32) -> Option<Self> {
        let [a, b, c, d] = number.to_be_bytes();
        let (major, minor) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        (number > 0).then_some(Self { major, minor })
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Entry {
    /// The bytes of an entry with these commands, each part length-delimited; copies them once.
    pub(crate) fn encode(advance_us: u64, wall_ms: u64, commands: &[Bytes]) -> Bytes {
        let head = proto::EntryRecord {
            version: ENTRY_VERSION,
            advance_us,
            wall_ms,
            commands: Bytes::new(),
            needs_release: ENTRY_NEEDS.to_u32(),
        };
        let length: usize = commands.iter().map(Bytes::len).sum();
        let mut out = BytesMut::with_capacity(head.encoded_len() + length + 16);
        head.encode_raw(&mut out);
        if length > 0 {
            encode_key(ENTRY_COMMANDS_TAG, WireType::LengthDelimited, &mut out);
            encode_varint(length as u64, &mut out);
            commands.iter().for_each(|part| out.extend_from_slice(part));
        }
        out.freeze()
    }

    /// The later release that is needed to apply an entry, if it names one.
    pub(crate) fn needs(bytes: Bytes) -> Option<Release> {
        let record = proto::EntryRecord::decode(bytes).ok()?;
        Release::from_u32(record.needs_release).filter(|needs| *needs > ENTRY_NEEDS)
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, CommandError> {
        let record =
            proto::EntryRecord::decode(bytes).map_err(|_| CommandError::Malformed("log entry"))?;
        if record.version != ENTRY_VERSION {
            return Err(CommandError::Version { version: record.version });
        }
        Ok(Self {
            advance_us: record.advance_us,
            wall_ms: record.wall_ms,
            commands: Batch(record.commands),
        })
    }
}

impl Batch {
    /// Takes the next command off the front.
    pub(crate) fn next_command(&mut self) -> Option<Result<Command, CommandError>> {
        if !self.0.has_remaining() {
            return None;
        }
        let length = decode_varint(&mut self.0).ok().and_then(|it| usize::try_from(it).ok());
        let Some(length) = length.filter(|&length| length <= self.0.len()) else {
            // What follows cannot be found any more.
            self.0.clear();
            return Some(Err(CommandError::Malformed("command")));
        };
        let record = self.0.split_to(length);
        if let Some(command) = fast::session_txn(&record) {
            return Some(Ok(command));
        }
        let record = proto::CommandRecord::decode(record);
        Some(record.map_err(|_| CommandError::Malformed("command")).and_then(Command::from_record))
    }
}

impl Command {
    /// This command behind its length, as it stands in a [`Batch`].
    pub(crate) fn encode(&self) -> Bytes {
        if let Some(quick) = fast::encode(self) {
            return quick;
        }
        let record = self.to_record();
        let mut out = BytesMut::with_capacity(record.encoded_len() + LENGTH_BYTES_MAX);
        put_delimited(&mut out, &record);
        out.freeze()
    }

    fn to_record(&self) -> proto::CommandRecord {
        let kind = match self {
            Self::SessionTxn { session, epoch, seq, acked, txn } => {
                Kind::SessionTxn(proto::SessionTxn {
                    session: session.as_u64(),
                    epoch: *epoch,
                    seq: *seq,
                    acked: *acked,
                    txn: Some(txn_to_record(txn)),
                })
            }
            Self::PlainTxn { origin, identities, txn } => Kind::PlainTxn(proto::PlainTxn {
                origin: Some(origin_to_record(origin)),
                txn: Some(txn_to_record(txn)),
                identities: identities_to_bytes(identities),
            }),
            Self::OpenSession { origin, secret, ttl_us, identities } => {
                Kind::OpenSession(proto::OpenSession {
                    origin: Some(origin_to_record(origin)),
                    secret_hash: Bytes::copy_from_slice(&secret.0),
                    ttl_us: *ttl_us,
                    identities: identities_to_bytes(identities),
                })
            }
            Self::AttachSession { origin, session, secret, epoch, identities } => {
                Kind::AttachSession(proto::AttachSession {
                    origin: Some(origin_to_record(origin)),
                    session: session.as_u64(),
                    secret_hash: Bytes::copy_from_slice(&secret.0),
                    epoch: *epoch,
                    identities: identities_to_bytes(identities),
                })
            }
            Self::CloseSession { session, epoch, seq } => Kind::CloseSession(proto::CloseSession {
                session: session.as_u64(),
                epoch: *epoch,
                seq: *seq,
            }),
            Self::KeepAlives(items) => {
                let mut bytes = BytesMut::with_capacity(items.len() * 24);
                for item in items {
                    put_delimited(&mut bytes, &item.to_record());
                }
                Kind::KeepAlives(proto::KeepAlives { items: bytes.freeze() })
            }
            Self::Expire { lease } => Kind::Expire(proto::Expire { lease: lease.as_u64() }),
            Self::ReapNode { path, czxid } => Kind::ReapNode(proto::ReapNode {
                path: Bytes::copy_from_slice(path.as_str().as_bytes()),
                czxid: czxid.as_u64(),
            }),
            Self::PinStore { node, store } => Kind::PinStore(proto::PinStore {
                node: node.as_u64(),
                store: Bytes::copy_from_slice(store.as_bytes()),
            }),
            Self::CompareStates { index, version, digest } => {
                let (index, version, digest) = (*index, *version, *digest);
                Kind::CompareStates(proto::CompareStates { index, version, digest })
            }
        };
        proto::CommandRecord { kind: Some(kind) }
    }

    fn from_record(record: proto::CommandRecord) -> Result<Self, CommandError> {
        Ok(match record.kind.ok_or(CommandError::UnknownKind)? {
            Kind::SessionTxn(it) => Self::SessionTxn {
                session: session(it.session)?,
                epoch: it.epoch,
                seq: it.seq,
                acked: it.acked,
                txn: txn_from_record(it.txn)?,
            },
            Kind::PlainTxn(it) => Self::PlainTxn {
                origin: origin(it.origin)?,
                identities: identities_from_bytes(it.identities)?,
                txn: txn_from_record(it.txn)?,
            },
            Kind::OpenSession(it) => Self::OpenSession {
                origin: origin(it.origin)?,
                secret: secret(&it.secret_hash)?,
                ttl_us: it.ttl_us,
                identities: identities_from_bytes(it.identities)?,
            },
            Kind::AttachSession(it) => Self::AttachSession {
                origin: origin(it.origin)?,
                session: session(it.session)?,
                secret: secret(&it.secret_hash)?,
                epoch: it.epoch,
                identities: identities_from_bytes(it.identities)?,
            },
            Kind::CloseSession(it) => {
                Self::CloseSession { session: session(it.session)?, epoch: it.epoch, seq: it.seq }
            }
            Kind::KeepAlives(it) => Self::KeepAlives(keep_alives(it.items)?),
            Kind::Expire(it) => Self::Expire { lease: lease(it.lease)? },
            Kind::ReapNode(it) => {
                Self::ReapNode { path: path(&it.path)?, czxid: Zxid::new(it.czxid) }
            }
            Kind::PinStore(it) => Self::PinStore {
                node: NodeId::new(it.node).ok_or(CommandError::Field("node"))?,
                store: StoreId::from_bytes(
                    it.store[..].try_into().map_err(|_| CommandError::Field("store"))?,
                ),
            },
            Kind::CompareStates(it) => {
                let proto::CompareStates { index, version, digest } = it;
                Self::CompareStates { index, version, digest }
            }
        })
    }
}

impl KeepAlive {
    fn to_record(self) -> proto::KeepAlive {
        proto::KeepAlive {
            session: self.session.as_u64(),
            epoch: self.epoch,
            number: self.number,
            acked: self.acked,
            lease: self.lease.map_or(0, LeaseId::as_u64),
        }
    }
}

fn origin_to_record(origin: &Origin) -> proto::Origin {
    proto::Origin {
        node: origin.node.as_u64(),
        boot_nonce: origin.boot_nonce,
        counter: origin.counter,
    }
}

fn origin(record: Option<proto::Origin>) -> Result<Origin, CommandError> {
    let record = record.ok_or(CommandError::Field("origin"))?;
    Ok(Origin {
        node: NodeId::new(record.node).ok_or(CommandError::Field("origin"))?,
        boot_nonce: record.boot_nonce,
        counter: record.counter,
    })
}

fn keep_alives(mut bytes: Bytes) -> Result<Vec<KeepAlive>, CommandError> {
    let mut items = Vec::new();
    while bytes.has_remaining() {
        // One takes 3 bytes at least, and 40 in memory.
        if items.len() == KEEP_ALIVES_MAX {
            return Err(CommandError::Field("number of keep-alives"));
        }
        let record = proto::KeepAlive::decode_length_delimited(&mut bytes)
            .map_err(|_| CommandError::Malformed("keep-alive"))?;
        items.push(KeepAlive {
            session: session(record.session)?,
            lease: match record.lease {
                0 => None,
                id => Some(lease(id)?),
            },
            epoch: record.epoch,
            number: record.number,
            acked: record.acked,
        });
    }
    Ok(items)
}

fn path(bytes: &[u8]) -> Result<Path, CommandError> {
    Path::from_bytes(bytes).map_err(|_| CommandError::Field("path"))
}

fn session(id: u64) -> Result<SessionId, CommandError> {
    SessionId::new(id).ok_or(CommandError::Field("session"))
}

fn lease(id: u64) -> Result<LeaseId, CommandError> {
    LeaseId::new(id).ok_or(CommandError::Field("lease"))
}

fn secret(hash: &[u8]) -> Result<SecretHash, CommandError> {
    Ok(SecretHash(hash.try_into().map_err(|_| CommandError::Field("secret"))?))
}

/// Keep-alives of one command: at most 55 KiB, which fits into any frame and any entry.
pub(crate) const KEEP_ALIVES_MAX: usize = 1_000;
/// The longest varint.
const LENGTH_BYTES_MAX: usize = 10;
/// The number of `EntryRecord.commands` in proto/quorate.proto.
const ENTRY_COMMANDS_TAG: u32 = 4;
/// The version of log entries and commands.
pub(crate) const ENTRY_VERSION: u32 = 1;
/// The first release that knows this version and every kind of command: whoever adds a kind that
/// an older member would meet in the log raises it, so that the member can name what it lacks.
const ENTRY_NEEDS: Release = Release { major: 0, minor: 1 };
