//! Raft's messages between members, and where a snapshot stands.

use bytes::{Buf, Bytes, BytesMut};
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint},
};

use super::{FrameError, LogEntry};
use crate::{config::MEMBERS_MAX, proto, record::put_delimited};

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

impl RaftMessage {
    pub(super) fn entries_len(&self) -> usize {
        self.entries.iter().map(|entry| entry.data.len() + 40).sum()
    }

    /// Writes the entries straight into the frame, so that their data is copied once.
    pub(super) fn encode(&self, out: &mut BytesMut) {
        let record = proto::RaftRecord {
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
        };
        record.encode_raw(out);
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

    pub(super) fn from_record(record: proto::RaftRecord) -> Result<Self, FrameError> {
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

fn ids_to_bytes(ids: &[u64]) -> Bytes {
    ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>().into()
}

fn ids_from_bytes(bytes: &[u8]) -> Result<Vec<u64>, FrameError> {
    if bytes.len() % 8 != 0 || bytes.len() / 8 > MEMBERS_MAX {
        return Err(FrameError::Field { field: "node ids" });
    }
    Ok(bytes.chunks_exact(8).map(|mut id| id.get_u64_le()).collect())
}

/// The number of `RaftRecord.entries` in proto/quorate.proto.
const RAFT_ENTRIES_TAG: u32 = 7;
