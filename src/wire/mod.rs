//! Frames between members, and their codec.
//!
//! A frame is a fixed header and a body. Everything in it is checked before anything acts on it;
//! bytes from a peer never reach raft's own protobuf parser.
//!
//! ```text
//!  0  4  magic "QRF1"          4  2  format version       6  2  kind of body
//!  8 16  cluster id           24  8  from                32  8  to
//! 40 16  sender's store       56  8  its boot counter    64  8  its boot nonce
//! 72  4  length of the body   76  4  CRC32C of bytes 0..76 and the body
//! 80  .. body: one prost message          all numbers little-endian
//! ```

mod entry;
mod opening;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint},
};
use thiserror::Error;

pub(crate) use self::entry::ENTRIES_MAX;
pub use self::entry::{EntryKind, HardState, LogEntry};
pub(crate) use self::opening::{Hello, Opening, Openings, Promise};
use crate::{
    config::{SIZE_BYTES_MAX, TXN_OPS_MAX},
    id::{Boot, ClusterId, Incarnation, NodeId, StoreId, Zxid},
    op::Txn,
    path::Path,
    proto,
    record::put_delimited,
};

/// A checked frame.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Frame {
    pub(crate) cluster: ClusterId,
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) body: Body,
}

/// What a frame says.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Body {
    Hello(Hello),
    Refused {
        reason: Refusal,
        known: Option<Pin>,
        /// What the refused opening lacks.
        promise: Promise,
    },
    Raft(RaftMessage),
    /// Length-delimited commands for the leader's next entry.
    Forward(Forward),
    ReadIndex {
        context: [u8; 16],
    },
    ReadIndexReply {
        context: [u8; 16],
        index: u64,
        term: u64,
    },
    SnapshotOffer {
        index: u64,
        term: u64,
    },
    SnapshotPull {
        index: u64,
        term: u64,
        offset: u64,
    },
    SnapshotChunk(Chunk),
    SnapshotStaged {
        index: u64,
        term: u64,
        crc: u32,
    },
    DigestReport(DigestReport),
    DigestAsk {
        index: u64,
    },
    MarksAsk {
        after: Zxid,
    },
    Marks {
        after: Zxid,
        /// Ascending, and all after `after`.
        items: Vec<(Zxid, u64)>,
    },
    StateAsk {
        index: u64,
    },
    StateOffer {
        index: u64,
        term: u64,
    },
}

/// What a member's state comes to after an entry (ARCHITECTURE.md, rule 2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DigestReport {
    pub(crate) index: u64,
    /// How it is made: those of two versions tell nothing.
    pub(crate) version: u32,
    pub(crate) digest: u64,
}

/// A member's store and the newest opening that was seen of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pin {
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
}

/// Why a member does not listen to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(crate) enum Refusal {
    Wiped,
    RolledBack,
    Removed,
    NotAMember,
    OtherBootstrap,
}

/// A raft message of a type that is allowed between members.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct RaftMessage {
    /// `eraftpb::MessageType` as a number; the consensus room knows which are allowed.
    pub(crate) kind: u32,
    pub(crate) term: u64,
    pub(crate) log_term: u64,
    pub(crate) index: u64,
    pub(crate) commit: u64,
    pub(crate) commit_term: u64,
    pub(crate) entries: Vec<LogEntry>,
    pub(crate) snapshot: Option<SnapshotMeta>,
    pub(crate) reject: bool,
    pub(crate) reject_hint: u64,
    pub(crate) context: Bytes,
    pub(crate) priority: i64,
    pub(crate) request_snapshot: u64,
    /// Of a leader: up to here its log is on its disk.
    pub(crate) durable: u64,
}

/// Where a snapshot stands in the log, and the voters and learners at that point.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct SnapshotMeta {
    pub(crate) index: u64,
    pub(crate) term: u64,
    /// Ascending.
    pub(crate) voters: Vec<u64>,
    /// Ascending.
    pub(crate) learners: Vec<u64>,
}

/// Commands of one member for the leader's next entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Forward {
    /// Length-delimited.
    pub(crate) commands: Bytes,
    /// The leader's term: it takes them in no other.
    pub(crate) term: u64,
    /// Grows with each such frame of one opening of its sender.
    pub(crate) number: u64,
}

/// A piece of a snapshot on its way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Chunk {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) offset: u64,
    pub(crate) bytes: Bytes,
    /// In the last chunk: CRC32C of the whole snapshot.
    pub(crate) crc: Option<u32>,
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The bytes end too early, or go on after the body.
    #[error("a frame of {expected} bytes came as {actual} bytes")]
    Length {
        /// What the header asks for.
        expected: usize,
        /// What came.
        actual: usize,
    },
    /// The bytes are longer than any frame.
    #[error("a frame has at most {max} bytes, not {actual}")]
    TooLong {
        /// What came.
        actual: usize,
        /// The limit.
        max: usize,
    },
    /// The first bytes are not those of a frame.
    #[error("the bytes do not start with a frame's magic")]
    Magic,
    /// The sender speaks another version of the format.
    #[error("the frame has format version {actual}; this release speaks {}", FRAME_VERSION)]
    Version {
        /// Its version.
        actual: u16,
    },
    /// The checksum does not match.
    #[error("the frame's checksum does not match its bytes")]
    Checksum,
    /// A field has a value that it cannot have.
    #[error("the frame's field `{field}` is not valid")]
    Field {
        /// The field.
        field: &'static str,
    },
}

impl Frame {
    /// The bytes of this frame, copied once.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEADER_BYTES + self.body.encoded_len());
        out.put_slice(MAGIC);
        out.put_u16_le(FRAME_VERSION);
        out.put_u16_le(self.body.kind());
        out.put_slice(self.cluster.as_bytes());
        out.put_u64_le(self.from.as_u64());
        out.put_u64_le(self.to.as_u64());
        out.put_slice(self.incarnation.store.as_bytes());
        out.put_u64_le(self.incarnation.boot.counter);
        out.put_u64_le(self.incarnation.boot.nonce);
        out.put_u64_le(0);
        self.body.encode(&mut out);
        let body = u32::try_from(out.len() - HEADER_BYTES).unwrap_or(u32::MAX);
        out[72..76].copy_from_slice(&body.to_le_bytes());
        let crc = checksum(&out);
        out[76..80].copy_from_slice(&crc.to_le_bytes());
        out.freeze()
    }

    /// Checks bytes from a peer; `bytes_max` is the longest frame allowed.
    pub(crate) fn decode(bytes: &Bytes, bytes_max: usize) -> Result<Self, FrameError> {
        let actual = bytes.len();
        if actual > bytes_max {
            return Err(FrameError::TooLong { actual, max: bytes_max });
        }
        if actual < HEADER_BYTES {
            return Err(FrameError::Length { expected: HEADER_BYTES, actual });
        }
        let mut head = &bytes[..HEADER_BYTES];
        let mut magic = [0; 4];
        head.copy_to_slice(&mut magic);
        if magic != *MAGIC {
            return Err(FrameError::Magic);
        }
        let version = head.get_u16_le();
        if version != FRAME_VERSION {
            return Err(FrameError::Version { actual: version });
        }
        let kind = head.get_u16_le();
        let mut cluster = [0; 16];
        head.copy_to_slice(&mut cluster);
        let from = NodeId::new(head.get_u64_le()).ok_or(FrameError::Field { field: "from" })?;
        let to = NodeId::new(head.get_u64_le()).ok_or(FrameError::Field { field: "to" })?;
        let mut store = [0; 16];
        head.copy_to_slice(&mut store);
        let boot = Boot { counter: head.get_u64_le(), nonce: head.get_u64_le() };
        let expected = HEADER_BYTES + head.get_u32_le() as usize;
        if expected != actual {
            return Err(FrameError::Length { expected, actual });
        }
        if head.get_u32_le() != checksum(bytes) {
            return Err(FrameError::Checksum);
        }
        Ok(Self {
            cluster: ClusterId::from_bytes(cluster),
            from,
            to,
            incarnation: Incarnation { store: StoreId::from_bytes(store), boot },
            body: Body::decode(kind, bytes.slice(HEADER_BYTES..))?,
        })
    }
}

impl Body {
    fn kind(&self) -> u16 {
        match self {
            Self::Hello(_) => 1,
            Self::Refused { .. } => 2,
            Self::Raft(_) => 3,
            Self::Forward(_) => 4,
            Self::ReadIndex { .. } => 5,
            Self::ReadIndexReply { .. } => 6,
            Self::SnapshotOffer { .. } => 7,
            Self::SnapshotPull { .. } => 8,
            Self::SnapshotChunk(_) => 9,
            Self::SnapshotStaged { .. } => 10,
            Self::DigestReport(_) => 11,
            Self::DigestAsk { .. } => 12,
            Self::MarksAsk { .. } => 13,
            Self::Marks { .. } => 14,
            Self::StateAsk { .. } => 15,
            Self::StateOffer { .. } => 16,
        }
    }

    /// An upper bound that saves the buffer from growing.
    fn encoded_len(&self) -> usize {
        match self {
            Self::Raft(message) => 128 + message.entries_len() + message.context.len(),
            Self::Forward(forward) => 48 + forward.commands.len(),
            Self::SnapshotChunk(chunk) => 64 + chunk.bytes.len(),
            Self::Hello(hello) => {
                96 + hello.pins.len() * 64 + hello.opening.before.earlier.len() * 16
            }
            Self::Marks { items, .. } => 32 + items.len() * MARK_BYTES,
            _ => 128,
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Hello(hello) => put(out, &hello.to_record()),
            Self::Refused { reason, known, promise } => put(
                out,
                &proto::Refused {
                    reason: reason.code(),
                    known: known.map(Pin::to_record),
                    term: promise.term,
                    vote: promise.vote,
                    index: promise.index,
                },
            ),
            Self::Raft(message) => message.encode(out),
            Self::Forward(Forward { commands, term, number }) => {
                let (commands, term, number) = (commands.clone(), *term, *number);
                put(out, &proto::Forward { commands, term, number });
            }
            Self::ReadIndex { context } => {
                put(out, &proto::ReadIndex { context: Bytes::copy_from_slice(context) });
            }
            Self::ReadIndexReply { context, index, term } => put(
                out,
                &proto::ReadIndexReply {
                    context: Bytes::copy_from_slice(context),
                    index: *index,
                    term: *term,
                },
            ),
            Self::SnapshotOffer { index, term } => {
                put(out, &proto::SnapshotOffer { index: *index, term: *term });
            }
            Self::SnapshotPull { index, term, offset } => {
                put(out, &proto::SnapshotPull { index: *index, term: *term, offset: *offset });
            }
            Self::SnapshotChunk(chunk) => put(
                out,
                &proto::SnapshotChunk {
                    index: chunk.index,
                    term: chunk.term,
                    offset: chunk.offset,
                    bytes: chunk.bytes.clone(),
                    crc: chunk.crc,
                },
            ),
            Self::SnapshotStaged { index, term, crc } => {
                put(out, &proto::SnapshotStaged { index: *index, term: *term, crc: *crc });
            }
            Self::DigestReport(it) => {
                let DigestReport { index, version, digest } = *it;
                put(out, &proto::DigestReport { index, version, digest });
            }
            Self::DigestAsk { index } => put(out, &proto::DigestAsk { index: *index }),
            Self::MarksAsk { after } => put(out, &proto::MarksAsk { after: after.as_u64() }),
            Self::Marks { after, items } => {
                let items = marks_to_bytes(items);
                put(out, &proto::Marks { after: after.as_u64(), items });
            }
            Self::StateAsk { index } => put(out, &proto::StateAsk { index: *index }),
            Self::StateOffer { index, term } => {
                put(out, &proto::StateOffer { index: *index, term: *term });
            }
        }
    }

    fn decode(kind: u16, bytes: Bytes) -> Result<Self, FrameError> {
        Ok(match kind {
            1 => Self::Hello(Hello::from_record(parse(bytes, "hello")?)?),
            2 => {
                let record: proto::Refused = parse(bytes, "refused")?;
                let reason = Refusal::from_code(record.reason)?;
                let proto::Refused { known, term, vote, index, .. } = record;
                let known = known.map(Pin::from_record).transpose()?;
                Self::Refused { reason, known, promise: Promise { term, vote, index } }
            }
            3 => Self::Raft(RaftMessage::from_record(parse(bytes, "raft")?)?),
            4 => {
                let proto::Forward { commands, term, number } = parse(bytes, "forward")?;
                Self::Forward(Forward { commands, term, number })
            }
            5 => Self::ReadIndex {
                context: context(&parse::<proto::ReadIndex>(bytes, "read index")?.context)?,
            },
            6 => {
                let record: proto::ReadIndexReply = parse(bytes, "read index reply")?;
                let context = context(&record.context)?;
                Self::ReadIndexReply { context, index: record.index, term: record.term }
            }
            7 => {
                let record: proto::SnapshotOffer = parse(bytes, "snapshot offer")?;
                Self::SnapshotOffer { index: record.index, term: record.term }
            }
            8 => {
                let record: proto::SnapshotPull = parse(bytes, "snapshot pull")?;
                let (index, term, offset) = (record.index, record.term, record.offset);
                Self::SnapshotPull { index, term, offset }
            }
            9 => {
                let record: proto::SnapshotChunk = parse(bytes, "snapshot chunk")?;
                Self::SnapshotChunk(Chunk {
                    index: record.index,
                    term: record.term,
                    offset: record.offset,
                    bytes: record.bytes,
                    crc: record.crc,
                })
            }
            10 => {
                let record: proto::SnapshotStaged = parse(bytes, "snapshot staged")?;
                Self::SnapshotStaged { index: record.index, term: record.term, crc: record.crc }
            }
            11..=16 => return Self::decode_of_states(kind, bytes),
            _ => {
                return Err(FrameError::Field { field: "kind of body" });
            }
        })
    }
}

impl Body {
    /// What members say when they compare and mend their states.
    fn decode_of_states(kind: u16, bytes: Bytes) -> Result<Self, FrameError> {
        Ok(match kind {
            11 => {
                let record: proto::DigestReport = parse(bytes, "digest report")?;
                let proto::DigestReport { index, version, digest } = record;
                Self::DigestReport(DigestReport { index, version, digest })
            }
            12 => Self::DigestAsk { index: parse::<proto::DigestAsk>(bytes, "digest ask")?.index },
            13 => {
                let record: proto::MarksAsk = parse(bytes, "marks ask")?;
                Self::MarksAsk { after: Zxid::new(record.after) }
            }
            14 => {
                let record: proto::Marks = parse(bytes, "marks")?;
                let after = Zxid::new(record.after);
                Self::Marks { after, items: marks_from_bytes(after, &record.items)? }
            }
            15 => Self::StateAsk { index: parse::<proto::StateAsk>(bytes, "state ask")?.index },
            _ => {
                let record: proto::StateOffer = parse(bytes, "state offer")?;
                Self::StateOffer { index: record.index, term: record.term }
            }
        })
    }
}

impl Pin {
    pub(crate) fn to_record(self) -> proto::PinRecord {
        proto::PinRecord {
            node: self.node.as_u64(),
            store: Bytes::copy_from_slice(self.incarnation.store.as_bytes()),
            boot: self.incarnation.boot.counter,
            nonce: self.incarnation.boot.nonce,
        }
    }

    pub(crate) fn from_record(record: proto::PinRecord) -> Result<Self, FrameError> {
        let field = FrameError::Field { field: "pin" };
        let store = <[u8; 16]>::try_from(&record.store[..]).map_err(|_| field)?;
        let boot = Boot { counter: record.boot, nonce: record.nonce };
        Ok(Self {
            node: NodeId::new(record.node).ok_or(field)?,
            incarnation: Incarnation { store: StoreId::from_bytes(store), boot },
        })
    }

    /// Reads length-delimited pins. They are of the members, and of some whose removal is not known
    /// yet; each takes 20 bytes at least, so that the bytes bound their number.
    pub(crate) fn decode_all(mut bytes: Bytes) -> Result<Vec<Self>, FrameError> {
        let mut pins = Vec::with_capacity(bytes.len() / PIN_BYTES_MIN);
        while bytes.has_remaining() {
            let record = proto::PinRecord::decode_length_delimited(&mut bytes)
                .map_err(|_| FrameError::Field { field: "pins" })?;
            pins.push(Self::from_record(record)?);
        }
        Ok(pins)
    }
}

impl Refusal {
    fn code(self) -> u32 {
        match self {
            Self::Wiped => 1,
            Self::RolledBack => 2,
            Self::Removed => 3,
            Self::NotAMember => 4,
            Self::OtherBootstrap => 5,
        }
    }

    fn from_code(code: u32) -> Result<Self, FrameError> {
        Ok(match code {
            1 => Self::Wiped,
            2 => Self::RolledBack,
            3 => Self::Removed,
            4 => Self::NotAMember,
            5 => Self::OtherBootstrap,
            _ => return Err(FrameError::Field { field: "reason" }),
        })
    }
}

impl RaftMessage {
    fn entries_len(&self) -> usize {
        self.entries.iter().map(|entry| entry.data.len() + 40).sum()
    }

    /// Writes the entries straight into the frame, so that their data is copied once.
    fn encode(&self, out: &mut BytesMut) {
        put(
            out,
            &proto::RaftRecord {
                kind: self.kind,
                term: self.term,
                log_term: self.log_term,
                index: self.index,
                commit: self.commit,
                commit_term: self.commit_term,
                entries: Bytes::new(),
                snapshot: self.snapshot.as_ref().map(SnapshotMeta::to_record),
                reject: self.reject,
                reject_hint: self.reject_hint,
                context: self.context.clone(),
                priority: self.priority,
                request_snapshot: self.request_snapshot,
                durable: self.durable,
            },
        );
        if self.entries.is_empty() {
            return;
        }
        let records: Vec<proto::LogRecord> = self.entries.iter().map(LogEntry::to_record).collect();
        let sizes = records.iter().map(proto::LogRecord::encoded_len);
        let bytes: usize = sizes.map(|size| size + encoded_len_varint(size as u64)).sum();
        encode_key(RAFT_ENTRIES_TAG, WireType::LengthDelimited, out);
        encode_varint(bytes as u64, out);
        for record in &records {
            put_delimited(out, record);
        }
    }

    fn from_record(record: proto::RaftRecord) -> Result<Self, FrameError> {
        Ok(Self {
            kind: record.kind,
            term: record.term,
            log_term: record.log_term,
            index: record.index,
            commit: record.commit,
            commit_term: record.commit_term,
            entries: LogEntry::decode_all(record.entries)?,
            snapshot: record.snapshot.map(SnapshotMeta::from_record).transpose()?,
            reject: record.reject,
            reject_hint: record.reject_hint,
            context: record.context,
            priority: record.priority,
            request_snapshot: record.request_snapshot,
            durable: record.durable,
        })
    }
}

impl SnapshotMeta {
    pub(crate) fn to_record(&self) -> proto::SnapshotMeta {
        proto::SnapshotMeta {
            index: self.index,
            term: self.term,
            voters: ids_to_bytes(&self.voters),
            learners: ids_to_bytes(&self.learners),
        }
    }

    pub(crate) fn from_record(record: proto::SnapshotMeta) -> Result<Self, FrameError> {
        Ok(Self {
            index: record.index,
            term: record.term,
            voters: ids_from_bytes(&record.voters)?,
            learners: ids_from_bytes(&record.learners)?,
        })
    }
}

fn put(out: &mut BytesMut, record: &impl prost::Message) {
    record.encode_raw(out);
}

fn parse<T: prost::Message + Default>(bytes: Bytes, field: &'static str) -> Result<T, FrameError> {
    T::decode(bytes).map_err(|_| FrameError::Field { field })
}

fn context(bytes: &[u8]) -> Result<[u8; 16], FrameError> {
    bytes.try_into().map_err(|_| FrameError::Field { field: "read context" })
}

fn ids_to_bytes(ids: &[u64]) -> Bytes {
    ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>().into()
}

fn ids_from_bytes(bytes: &[u8]) -> Result<Vec<u64>, FrameError> {
    if bytes.len() % 8 != 0 || bytes.len() / 8 > crate::config::MEMBERS_MAX {
        return Err(FrameError::Field { field: "node ids" });
    }
    Ok(bytes.chunks_exact(8).map(|mut id| id.get_u64_le()).collect())
}

fn marks_to_bytes(items: &[(Zxid, u64)]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(items.len() * MARK_BYTES);
    for (zxid, mark) in items {
        bytes.put_u64_le(zxid.as_u64());
        bytes.put_u64_le(*mark);
    }
    bytes.freeze()
}

fn marks_from_bytes(after: Zxid, bytes: &[u8]) -> Result<Vec<(Zxid, u64)>, FrameError> {
    let field = FrameError::Field { field: "marks" };
    if bytes.len() % MARK_BYTES != 0 || bytes.len() / MARK_BYTES > MARKS_MAX {
        return Err(field);
    }
    let mut last = after;
    let mut items = Vec::with_capacity(bytes.len() / MARK_BYTES);
    for mut item in bytes.chunks_exact(MARK_BYTES) {
        let zxid = Zxid::new(item.get_u64_le());
        if zxid <= last {
            return Err(field);
        }
        last = zxid;
        items.push((zxid, item.get_u64_le()));
    }
    Ok(items)
}

fn checksum(frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&frame[..HEADER_BYTES - 4]), &frame[HEADER_BYTES..])
}

/// A pin behind its length: a store of 16 bytes, and a node.
const PIN_BYTES_MIN: usize = 1 + 2 + 16 + 2;
/// Marks of one frame.
pub(crate) const MARKS_MAX: usize = 1_024;
/// A zxid and a number.
const MARK_BYTES: usize = 16;
/// Bytes before the body.
pub(crate) const HEADER_BYTES: usize = 80;
/// No member sends a longer frame, whatever its limits are; they may differ from the receiver's.
/// It is one command, the largest: payloads, and as many guards and operations as there can be, all
/// on the longest paths; a list names up to three.
pub(crate) const FRAME_BYTES_MAX: usize = SIZE_BYTES_MAX
    + (Txn::GUARDS_MAX + TXN_OPS_MAX as usize) * (3 * Path::BYTES_MAX + RECORD_BYTES)
    + 16 * RECORD_BYTES;
/// What stands around a field or a record at most.
const RECORD_BYTES: usize = 128;
/// The version of the frame format.
pub(crate) const FRAME_VERSION: u16 = 1;
const MAGIC: &[u8; 4] = b"QRF1";
/// The number of `RaftRecord.entries` in proto/quorate.proto.
const RAFT_ENTRIES_TAG: u32 = 7;
