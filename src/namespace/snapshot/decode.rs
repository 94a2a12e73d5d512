//! Reading a snapshot from bytes that may be anything.
//!
//! Nothing is taken on trust: lengths, sums, and that the bytes are the canonical ones; what the
//! records mean is for [`Body`]. Memory beyond the state itself is bounded by one record and one
//! chunk.

use std::fmt;

use bytes::{Bytes, BytesMut};
use prost::Message as _;

use crate::{
    id::ClusterId,
    namespace::{
        Namespace,
        snapshot::{
            HEAD_BYTES_MAX, SNAPSHOT_VERSION, SnapshotError,
            body::{Body, Part},
            record_bytes_max,
        },
    },
    proto::{self, snapshot_record::Kind},
    record::put_delimited,
};

/// Reads a snapshot, fed piece by piece; the first error is final.
pub(crate) struct Decoder {
    /// Whose snapshot it is to be; none of another.
    cluster: Option<ClusterId>,
    pending: BytesMut,
    scratch: BytesMut,
    record: u64,
    body: Option<Box<Body>>,
    failed: Option<SnapshotError>,
}

impl Decoder {
    /// Before the first byte of a snapshot of this cluster.
    pub(crate) fn new(cluster: ClusterId) -> Self {
        Self::of(Some(cluster))
    }

    /// Before the first byte of a backup, of whichever cluster.
    pub(crate) fn of_backup() -> Self {
        Self::of(None)
    }

    fn of(cluster: Option<ClusterId>) -> Self {
        Self {
            cluster,
            pending: BytesMut::new(),
            scratch: BytesMut::new(),
            record: 0,
            body: None,
            failed: None,
        }
    }

    /// Takes the next bytes, cut anywhere.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`]; from then on every call gives the same one.
    pub(crate) fn feed(&mut self, bytes: Bytes) -> Result<(), SnapshotError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.pending.extend_from_slice(&bytes);
        let result = self.take_records();
        self.failed = result.as_ref().err().cloned();
        result
    }

    /// The state, and `members` and `removed` as they were given to the encoder.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`], also when the bytes end too early.
    pub(crate) fn finish(self) -> Result<(Namespace, Bytes, Bytes), SnapshotError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        match self.body {
            Some(body) if body.part == Part::End && self.pending.is_empty() => {
                Ok((Namespace::thaw(body.state), body.members, body.removed))
            }
            _ => Err(SnapshotError::Truncated { record: self.record }),
        }
    }

    fn take_records(&mut self) -> Result<(), SnapshotError> {
        while let Some((raw, start)) = self.split_record()? {
            let record = self.record;
            let kind = proto::SnapshotRecord::decode(raw.slice(start..))
                .ok()
                .and_then(|it| it.kind)
                .ok_or(SnapshotError::Record {
                    record,
                    what: "its bytes are no record of this release",
                })?;
            let again = self.take(kind)?;
            self.scratch.clear();
            put_delimited(&mut self.scratch, &again);
            if self.scratch != raw {
                return Err(SnapshotError::Record {
                    record,
                    what: "its bytes are not the canonical ones",
                });
            }
            if let (0, Some(body)) = (self.record, &mut self.body) {
                body.head_crc = crc32c::crc32c(&raw[start..]);
            }
            self.record += 1;
        }
        Ok(())
    }

    /// The next whole record behind its length, and where it starts.
    fn split_record(&mut self) -> Result<Option<(Bytes, usize)>, SnapshotError> {
        let Some((bytes, start)) = self.peek_length()? else {
            return Ok(None);
        };
        let max = match &self.body {
            None => HEAD_BYTES_MAX,
            Some(body) => record_bytes_max(&body.state.parameters),
        };
        if bytes > max {
            return Err(SnapshotError::TooLong { record: self.record, bytes, max });
        }
        // It fits: the limits are far below any usize.
        let end = start + bytes as usize;
        if self.pending.len() < end {
            return Ok(None);
        }
        Ok(Some((self.pending.split_to(end).freeze(), start)))
    }

    fn peek_length(&self) -> Result<Option<(u64, usize)>, SnapshotError> {
        let mut length = 0;
        for (index, byte) in self.pending.iter().enumerate().take(LENGTH_BYTES_MAX) {
            length |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                return Ok(Some((length, index + 1)));
            }
        }
        if self.pending.len() < LENGTH_BYTES_MAX {
            return Ok(None);
        }
        Err(SnapshotError::Record { record: self.record, what: "its length is not valid" })
    }

    /// Takes one record; gives it back as this release writes it.
    fn take(&mut self, kind: Kind) -> Result<proto::SnapshotRecord, SnapshotError> {
        let at_record = |what| SnapshotError::Record { record: self.record, what };
        let again = match (&mut self.body, kind) {
            (None, Kind::Head(head)) => {
                if head.version != SNAPSHOT_VERSION {
                    return Err(SnapshotError::Version { version: head.version });
                }
                let cluster = head.cluster[..]
                    .try_into()
                    .map(ClusterId::from_bytes)
                    .map_err(|_| at_record("the cluster's id has not 16 bytes"))?;
                if let Some(expected) = self.cluster.filter(|&it| it != cluster) {
                    return Err(SnapshotError::Cluster { expected, actual: cluster });
                }
                let (body, again) = Body::new(head).map_err(at_record)?;
                self.body = Some(Box::new(body));
                Kind::Head(again)
            }
            (None, _) => return Err(at_record("the first record is not a head")),
            (Some(body), kind) => body.take(kind).map_err(at_record)?,
        };
        Ok(proto::SnapshotRecord { kind: Some(again) })
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("record", &self.record)
            .field("pending", &self.pending.len())
            .field("state", &self.body.as_ref().map(|body| &body.state))
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// Bytes of the longest length.
const LENGTH_BYTES_MAX: usize = 5;
