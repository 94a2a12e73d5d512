//! Bytes of a segment: its header, and batches of records. ARCHITECTURE.md has the layout.

use bytes::Bytes;

use crate::{
    id::StoreId,
    node::Write,
    wal::sector::{ROOM, SECTOR, STAMP, Sectors, Stamps, sectors_for, strip},
    wire::{EntryKind, HardState, LogEntry},
};

/// The first sector of a segment; the batch that is written with it stamps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SegmentHeader {
    pub(super) store: StoreId,
    pub(super) sequence: u64,
    pub(super) length: u64,
    pub(super) first_lsn: u64,
    /// The checksum of the batch before the first one.
    pub(super) chain: u32,
}

/// What stands before a batch's records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BatchHeader {
    pub(super) body_bytes: u32,
    pub(super) records: u32,
    pub(super) lsn: u64,
    pub(super) sequence: u64,
    /// The last entry that was durable before this batch.
    pub(super) synced_index: u64,
    /// Its byte offset in the segment: what lies before it was durable before it.
    pub(super) offset: u64,
    /// The checksum of the batch before this one.
    pub(super) chain: u32,
    /// The checksum of this one.
    pub(super) crc: u32,
}

/// What a batch says.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Batch {
    pub(super) entries: Vec<LogEntry>,
    pub(super) hard_state: Option<HardState>,
    pub(super) local: Option<Bytes>,
    /// Whether the node wrote the local record with this batch (else it was carried over).
    pub(super) local_is_new: bool,
}

/// State that each segment repeats at its start, so that the ones before it may go.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Carried {
    pub(super) hard_state: Option<HardState>,
    pub(super) local: Option<Bytes>,
}

impl SegmentHeader {
    pub(super) fn encode(&self, stamp: u64) -> [u8; SECTOR] {
        let mut out = [0; SECTOR];
        out[..8].copy_from_slice(&stamp.to_le_bytes());
        out[8..12].copy_from_slice(SEGMENT_MAGIC);
        out[12..16].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        out[16..32].copy_from_slice(self.store.as_bytes());
        out[32..40].copy_from_slice(&self.sequence.to_le_bytes());
        out[40..48].copy_from_slice(&self.length.to_le_bytes());
        out[48..56].copy_from_slice(&self.first_lsn.to_le_bytes());
        out[56..60].copy_from_slice(&self.chain.to_le_bytes());
        let crc = crc32c::crc32c(&out[..SECTOR - 4]);
        out[SECTOR - 4..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header, or `None` when the bytes are none.
    pub(super) fn decode(sector: &[u8]) -> Option<Self> {
        let (content, crc) = sector.split_at_checked(SECTOR - 4)?;
        if u32_at(crc, 0)? != crc32c::crc32c(content)
            || sector.get(8..12)? != SEGMENT_MAGIC
            || u32_at(sector, 12)? != FORMAT_VERSION
        {
            return None;
        }
        Some(Self {
            store: StoreId::from_bytes(*sector.get(16..)?.first_chunk()?),
            sequence: u64_at(sector, 32)?,
            length: u64_at(sector, 40)?,
            first_lsn: u64_at(sector, 48)?,
            chain: u32_at(sector, 56)?,
        })
    }
}

impl BatchHeader {
    fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..4].copy_from_slice(BATCH_MAGIC);
        out[8..12].copy_from_slice(&self.body_bytes.to_le_bytes());
        out[12..16].copy_from_slice(&self.records.to_le_bytes());
        out[16..24].copy_from_slice(&self.lsn.to_le_bytes());
        out[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        out[32..40].copy_from_slice(&self.synced_index.to_le_bytes());
        out[40..48].copy_from_slice(&self.offset.to_le_bytes());
        out[48..52].copy_from_slice(&self.chain.to_le_bytes());
        let crc = crc32c::crc32c(&out[8..52]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header in a sector, or `None` when its own checksum does not hold.
    pub(super) fn decode(sector: &[u8]) -> Option<Self> {
        let bytes = sector.get(STAMP..STAMP + HEADER)?;
        if bytes.get(..4)? != BATCH_MAGIC || u32_at(bytes, 4)? != crc32c::crc32c(&bytes[8..52]) {
            return None;
        }
        Some(Self {
            body_bytes: u32_at(bytes, 8)?,
            records: u32_at(bytes, 12)?,
            lsn: u64_at(bytes, 16)?,
            sequence: u64_at(bytes, 24)?,
            synced_index: u64_at(bytes, 32)?,
            offset: u64_at(bytes, 40)?,
            chain: u32_at(bytes, 48)?,
            crc: u32_at(bytes, 52)?,
        })
    }

    /// The bytes that the batch takes in its segment.
    pub(super) fn extent(&self) -> u64 {
        (sectors_for(HEADER + self.body_bytes as usize) * SECTOR) as u64
    }
}

/// The bytes of the records of `write`, those of `carried` included.
pub(super) fn body_bytes(write: &Write, carried: &Carried) -> usize {
    let entries: usize = write.entries.iter().map(|entry| RECORD + entry.data.len()).sum();
    let hard_state = write.hard_state.is_some() || carried.hard_state.is_some();
    let local = write.local.as_ref().or(carried.local.as_ref());
    entries
        + if hard_state { RECORD + 8 } else { 0 }
        + local.map_or(0, |local| RECORD + local.len())
}

/// Appends a batch to `out`: local record, entries, hard state. Returns its checksum.
pub(super) fn encode_batch(
    out: &mut Sectors,
    mut header: BatchHeader,
    write: &Write,
    carried: &Carried,
) -> u32 {
    let start = out.as_slice().len();
    debug_assert_eq!(start % SECTOR, 0);
    let local = write.local.as_ref().or(carried.local.as_ref());
    let hard_state = write.hard_state.or(carried.hard_state);
    header.records = (write.entries.len()
        + usize::from(local.is_some())
        + usize::from(hard_state.is_some())) as u32;
    out.put(&header.encode());
    if let Some(local) = local {
        let carried = u8::from(write.local.is_none());
        out.put(&record(KIND_LOCAL, carried, local.len(), 0, 0));
        out.put(local);
    }
    for entry in &write.entries {
        let kind = match entry.kind {
            EntryKind::Normal => 0,
            EntryKind::Membership => 1,
        };
        out.put(&record(KIND_ENTRY, kind, entry.data.len(), entry.index, entry.term));
        out.put(&entry.data);
    }
    if let Some(state) = hard_state {
        out.put(&record(KIND_HARD_STATE, 0, 8, state.commit, state.term));
        out.put(&state.vote.to_le_bytes());
    }
    out.pad();
    let bytes = &mut out.as_mut_slice()[start..];
    let crc = checksum(bytes, header.chain);
    bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// The checksum of a batch's sectors, chained to the one before; its own field is left out.
pub(super) fn checksum(sectors: &[u8], chain: u32) -> u32 {
    let (before, rest) = sectors.split_at(CRC_AT.min(sectors.len()));
    let crc = crc32c::crc32c_append(chain, before);
    crc32c::crc32c_append(crc, rest.get(4..).unwrap_or_default())
}

/// Whether each of a batch's sectors has its stamp, and if not, whether the others were never
/// written (a torn write) rather than changed.
pub(super) fn stamps_hold(sectors: &[u8], stamps: Stamps, lsn: u64) -> bool {
    let stamp = stamps.of(lsn).to_le_bytes();
    sectors.chunks(SECTOR).all(|sector| sector.get(..STAMP) == Some(&stamp))
}

/// Reads the records of a batch whose checksum holds; the error says what is wrong.
pub(super) fn decode_batch(sectors: &[u8], header: &BatchHeader) -> Result<Batch, String> {
    let body = Bytes::from(strip(sectors, HEADER, header.body_bytes as usize));
    let mut batch = Batch::default();
    let mut at = 0;
    for number in 0..header.records {
        let bad = |what: &str| format!("record {number} of batch {}: {what}", header.lsn);
        let head = body.get(at..at + RECORD).ok_or_else(|| bad("cut short"))?;
        let length = u32_at(head, 4).unwrap_or_default() as usize;
        let index = u64_at(head, 8).unwrap_or_default();
        let term = u64_at(head, 16).unwrap_or_default();
        let from = at + RECORD;
        if length > body.len() - from {
            return Err(bad("longer than its batch"));
        }
        let data = body.slice(from..from + length);
        at = from + length;
        match (head[0], head[1]) {
            (KIND_LOCAL, carried @ (0 | 1)) => {
                batch.local = Some(data);
                batch.local_is_new = carried == 0;
            }
            (KIND_ENTRY, kind @ (0 | 1)) => {
                let kind = match kind {
                    0 => EntryKind::Normal,
                    _ => EntryKind::Membership,
                };
                batch.entries.push(LogEntry::new(index, term, kind, data));
            }
            (KIND_HARD_STATE, 0) => {
                let vote = u64_at(&data, 0).ok_or_else(|| bad("hard state too short"))?;
                batch.hard_state = Some(HardState::new(term, vote, index));
            }
            (kind, variant) => return Err(bad(&format!("unknown kind {kind}.{variant}"))),
        }
    }
    if at != body.len() {
        return Err(format!("batch {} has bytes after its records", header.lsn));
    }
    Ok(batch)
}

fn record(kind: u8, variant: u8, length: usize, index: u64, term: u64) -> [u8; RECORD] {
    let mut out = [0; RECORD];
    out[0] = kind;
    out[1] = variant;
    out[4..8].copy_from_slice(&(length as u32).to_le_bytes());
    out[8..16].copy_from_slice(&index.to_le_bytes());
    out[16..24].copy_from_slice(&term.to_le_bytes());
    out
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A batch's header, without the stamp before it.
pub(super) const HEADER: usize = 56;
/// What stands before a record's content.
const RECORD: usize = 24;
/// Where the checksum stands in a batch's first sector.
const CRC_AT: usize = STAMP + 52;
const _: () = assert!(HEADER < ROOM);
/// The version of all files of a store.
pub(super) const FORMAT_VERSION: u32 = 1;
/// Records of one batch may take this much.
pub(super) const BODY_BYTES_MAX: usize = 1 << 31;

const SEGMENT_MAGIC: &[u8; 4] = b"QRS1";
const BATCH_MAGIC: &[u8; 4] = b"QRB1";
const KIND_ENTRY: u8 = 1;
const KIND_HARD_STATE: u8 = 2;
const KIND_LOCAL: u8 = 3;
