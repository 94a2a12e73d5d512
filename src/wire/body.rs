//! What frames say: one kind of body for each thing that members tell each other.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{FrameError, Hello, Pin, Promise, RaftMessage, Refusal};
use crate::{id::Zxid, proto};

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

impl Body {
    pub(super) fn kind(&self) -> u16 {
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
    pub(super) fn encoded_len(&self) -> usize {
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

    pub(super) fn encode(&self, out: &mut BytesMut) {
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

    pub(super) fn decode(kind: u16, bytes: Bytes) -> Result<Self, FrameError> {
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

fn put(out: &mut BytesMut, record: &impl prost::Message) {
    record.encode_raw(out);
}

fn parse<T: prost::Message + Default>(bytes: Bytes, field: &'static str) -> Result<T, FrameError> {
    T::decode(bytes).map_err(|_| FrameError::Field { field })
}

fn context(bytes: &[u8]) -> Result<[u8; 16], FrameError> {
    bytes.try_into().map_err(|_| FrameError::Field { field: "read context" })
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

/// Marks of one frame.
pub(crate) const MARKS_MAX: usize = 1_024;
/// A zxid and a number.
const MARK_BYTES: usize = 16;
