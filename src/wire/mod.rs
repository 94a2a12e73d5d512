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

mod body;
mod entry;
mod message;
mod opening;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

pub use self::entry::{EntryKind, HardState, LogEntry};
pub(crate) use self::{
    body::{Body, Chunk, DigestReport, Forward, MARKS_MAX},
    entry::ENTRIES_MAX,
    message::{RaftMessage, SnapshotMeta},
    opening::{Hello, Opening, Openings, Pin, Promise, Refusal},
};
use crate::{
    config::{SIZE_BYTES_MAX, TXN_OPS_MAX},
    id::{Boot, ClusterId, Incarnation, NodeId, StoreId},
    op::Txn,
    path::Path,
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

fn checksum(frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&frame[..HEADER_BYTES - 4]), &frame[HEADER_BYTES..])
}

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
