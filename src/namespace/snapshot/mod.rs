//! The state as bytes: a snapshot, written and read in pieces.
//!
//! A snapshot is a sequence of length-delimited `SnapshotRecord`s: the head, the sessions in
//! ascending order, each with its leases and its kept replies, the znodes depth-first with
//! children in byte order, the last changes, newest first, and the end with counts. The encoding
//! is canonical: the same state gives the same bytes, and the decoder refuses any other bytes for
//! it. A checksum is the business of whoever stores or sends the bytes.

mod body;
mod change;
mod decode;
mod encode;

use thiserror::Error;

use crate::{config::Parameters, id::ClusterId, op::Acl, path::Path};

pub(crate) use self::{decode::Decoder, encode::Encoder};

/// Why bytes are not a snapshot that this member can take.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub(crate) enum SnapshotError {
    /// The snapshot was made by a later release.
    #[error(
        "the snapshot has format version {version}; this release reads up to {}: install the \
         release that wrote it, or a later one",
        SNAPSHOT_VERSION
    )]
    Version {
        /// Its version.
        version: u32,
    },
    /// The snapshot is of another cluster.
    #[error("the snapshot is of cluster {actual}, not {expected}")]
    Cluster {
        /// The member's cluster.
        expected: ClusterId,
        /// The snapshot's.
        actual: ClusterId,
    },
    /// A record is longer than any that a member writes.
    #[error("record {record} of the snapshot has {bytes} bytes; the limit is {max}")]
    TooLong {
        /// Which record, from 0.
        record: u64,
        /// Its length.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// A record is no record, or says what no member would say.
    #[error("record {record} of the snapshot is not valid: {what}")]
    Record {
        /// Which record, from 0.
        record: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The bytes end before the snapshot does.
    #[error("the snapshot ends after record {record}, before its end")]
    Truncated {
        /// How many records there were.
        record: u64,
    },
}

/// The longest record after the head: a node, a change of one, or a reply that is kept.
fn record_bytes_max(parameters: &Parameters) -> u64 {
    let longest = parameters.payload_bytes_max.max(parameters.window_bytes_max);
    longest + 2 * (Path::BYTES_MAX + Acl::BYTES_MAX) as u64 + 1024
}

fn check(holds: bool, what: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(what) }
}

/// The version of the snapshot format.
const SNAPSHOT_VERSION: u32 = 1;
/// The longest head; the ids of removed members are in it.
const HEAD_BYTES_MAX: u64 = 16 << 20;
/// Above any counter that grows by one; what is below cannot overflow.
pub(super) const COUNTER_MAX: u64 = 1 << 62;
