//! The entries of the replicated log, and the hard state beside them.

use bytes::{Buf, Bytes};
use prost::Message as _;

use super::FrameError;
use crate::proto;

/// One entry of the replicated log.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LogEntry {
    /// Its place in the log, from 1.
    pub index: u64,
    /// The term of the leader that made it.
    pub term: u64,
    /// What it carries.
    pub kind: EntryKind,
    /// Its content, opaque to the log.
    pub data: Bytes,
}

impl LogEntry {
    /// An entry with these parts.
    pub fn new(index: u64, term: u64, kind: EntryKind, data: Bytes) -> Self {
        Self { index, term, kind, data }
    }
}

/// What a log entry carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum EntryKind {
    /// Commands, or nothing.
    Normal,
    /// A change of the membership.
    Membership,
}

/// What a member must never forget of its votes: term, vote, and how far it knew the commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct HardState {
    /// The latest term that the member has seen.
    pub term: u64,
    /// Whom it voted for in that term; 0 for nobody.
    pub vote: u64,
    /// The highest index that it knew to be committed.
    pub commit: u64,
}

impl HardState {
    /// A hard state with these parts.
    pub fn new(term: u64, vote: u64, commit: u64) -> Self {
        Self { term, vote, commit }
    }
}

impl LogEntry {
    pub(super) fn to_record(&self) -> proto::LogRecord {
        let kind = match self.kind {
            EntryKind::Normal => 0,
            EntryKind::Membership => 1,
        };
        proto::LogRecord { kind, term: self.term, index: self.index, data: self.data.clone() }
    }

    pub(super) fn decode_all(mut bytes: Bytes) -> Result<Vec<Self>, FrameError> {
        let mut entries = Vec::new();
        while bytes.has_remaining() {
            // An empty record is one byte on the wire and 56 in memory: cap the count, too.
            if entries.len() == ENTRIES_MAX {
                return Err(FrameError::Field { field: "number of entries" });
            }
            let record = proto::LogRecord::decode_length_delimited(&mut bytes)
                .map_err(|_| FrameError::Field { field: "entries" })?;
            let kind = match record.kind {
                0 => EntryKind::Normal,
                1 => EntryKind::Membership,
                _ => {
                    return Err(FrameError::Field { field: "kind of entry" });
                }
            };
            entries.push(Self::new(record.index, record.term, kind, record.data));
        }
        Ok(entries)
    }
}

/// Entries of one message: with room to grow, less than a mebibyte of them.
pub(crate) const ENTRIES_MAX: usize = 8_192;
