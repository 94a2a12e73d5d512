//! Reads the segments back, and decides what a damaged end means. Changes nothing.
//!
//! **A batch is written and synced before the next one begins.** So whoever finds a sector of batch
//! n + 1 knows that batch n was durable, and if n is damaged then, bits have changed: typed error.
//! Only the last batch can be torn. It is torn for certain when one of its sectors was never
//! written; when all were written and the checksum fails nevertheless, or a sector is nobody's,
//! the batch may have been acknowledged: it is cut, and `tail_cut` says so.

use std::{io, path::PathBuf};

use crate::{
    wal::{
        WalError,
        fs::{Fs, FsFile},
        manifest::Manifest,
        sector::{SECTOR, STAMP, Stamps, Written},
        segment::{
            Batch, BatchHeader, Carried, SegmentHeader, checksum, decode_batch, stamps_hold,
        },
    },
    wire::LogEntry,
};

/// A segment that counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Segment {
    pub(super) sequence: u64,
    pub(super) length: u64,
    /// The highest index of an entry in it, replaced ones included; 0 for none.
    pub(super) index_max: u64,
    /// Its first batch, and the checksum before that.
    pub(super) first_lsn: u64,
    pub(super) first_chain: u32,
}

/// What the segments hold.
#[derive(Debug)]
pub(super) struct Recovered {
    /// Oldest first; the last one is the active one.
    pub(super) segments: Vec<Segment>,
    /// Where the active segment goes on; 0 when its header is not written yet.
    pub(super) offset: u64,
    pub(super) next_lsn: u64,
    pub(super) chain: u32,
    pub(super) entries: Vec<LogEntry>,
    /// The last of them; 0 for none.
    pub(super) last_index: u64,
    pub(super) carried: Carried,
    /// The last batch as it stands in the active segment, and where.
    pub(super) last: Option<(u64, Vec<u8>)>,
    /// Offsets of sectors in the active segment that hold a cut batch.
    pub(super) cut: Vec<u64>,
    /// Whether the cut batch may have been acknowledged.
    pub(super) ambiguous: bool,
    /// Whether the node wrote its own record after an earlier cut.
    pub(super) local_after_cut: bool,
}

/// Reads all segments that the manifest names.
pub(super) fn recover(
    fs: &dyn Fs,
    dir: &std::path::Path,
    manifest: &Manifest,
) -> Result<Recovered, WalError> {
    let mut log = Recovered {
        segments: Vec::new(),
        offset: 0,
        next_lsn: manifest.first_lsn,
        chain: 0,
        entries: Vec::new(),
        last_index: 0,
        carried: Carried::default(),
        last: None,
        cut: Vec::new(),
        ambiguous: false,
        local_after_cut: false,
    };
    let mut ended: Option<(PathBuf, u64)> = None;
    for sequence in manifest.first_segment..=manifest.active_segment {
        let reader = Reader::open(fs, dir.join(segment_name(sequence)))?;
        let active = sequence == manifest.active_segment;
        if active && reader.length != manifest.active_length {
            let reason =
                format!("{} bytes long, expected {}", reader.length, manifest.active_length);
            return Err(WalError::corrupt(&reader.path, reader.length, reason));
        }
        log.offset = 0;
        log.last = None;
        let begun = log.begin_segment(&reader, manifest, sequence)?;
        if !begun && !active {
            let (path, offset) = ended.unwrap_or_else(|| (reader.path.clone(), 0));
            let reason = format!(
                "batch {} is neither here nor at the start of segment {sequence}",
                log.next_lsn
            );
            return Err(WalError::corrupt(&path, offset, reason));
        }
        while begun && log.batch(&reader, manifest, sequence)? {}
        if active {
            log.end(&reader, manifest)?;
        }
        ended = Some((reader.path, log.offset));
    }
    Ok(log)
}

impl Recovered {
    /// Reads the header; `false` when the segment does not begin with the next batch.
    fn begin_segment(
        &mut self,
        reader: &Reader,
        manifest: &Manifest,
        sequence: u64,
    ) -> Result<bool, WalError> {
        let stamps = Stamps::new(manifest.key);
        let sector = reader.read(0, SECTOR as u64)?;
        let header = SegmentHeader::decode(&sector).filter(|header| {
            let first = self.segments.is_empty();
            stamps_hold(&sector, stamps, self.next_lsn)
                && header.store == manifest.store
                && header.sequence == sequence
                && header.length == reader.length
                && header.first_lsn == self.next_lsn
                && (first || header.chain == self.chain)
        });
        let chain = header.map_or(self.chain, |header| header.chain);
        self.chain = chain;
        self.segments.push(Segment {
            sequence,
            length: reader.length,
            index_max: 0,
            first_lsn: self.next_lsn,
            first_chain: chain,
        });
        if header.is_some() {
            self.offset = SECTOR as u64;
        }
        Ok(header.is_some())
    }

    /// Reads the next batch; `false` when there is none that holds.
    fn batch(
        &mut self,
        reader: &Reader,
        manifest: &Manifest,
        sequence: u64,
    ) -> Result<bool, WalError> {
        if self.offset + SECTOR as u64 > reader.length {
            return Ok(false);
        }
        let first = reader.read(self.offset, SECTOR as u64)?;
        let Some(header) = BatchHeader::decode(&first).filter(|header| {
            header.lsn == self.next_lsn
                && header.sequence == sequence
                && header.offset == self.offset
                && header.chain == self.chain
                && header.extent() <= reader.length - self.offset
        }) else {
            return Ok(false);
        };
        let sectors = reader.read(self.offset, header.extent())?;
        if !stamps_hold(&sectors, Stamps::new(manifest.key), header.lsn)
            || checksum(&sectors, self.chain) != header.crc
        {
            return Ok(false);
        }
        let corrupt = |reason| WalError::corrupt(&reader.path, self.offset, reason);
        let batch = decode_batch(&sectors, &header).map_err(corrupt)?;
        self.check(&batch, &header).map_err(corrupt)?;
        self.take(batch, &header, manifest);
        // With the first batch of a segment goes the header before it.
        self.last = Some(if self.offset == SECTOR as u64 {
            let all = reader.read(0, SECTOR as u64 + header.extent())?;
            (0, all)
        } else {
            (self.offset, sectors)
        });
        self.offset += header.extent();
        Ok(true)
    }

    /// Whether a sound batch fits what came before it.
    fn check(&self, batch: &Batch, header: &BatchHeader) -> Result<(), String> {
        let last = self.entries.last().map(|entry| entry.index);
        if last.is_some_and(|last| last != header.synced_index) {
            return Err(format!(
                "batch {} follows entry {}, but the last entry is {last:?}",
                header.lsn, header.synced_index
            ));
        }
        let first = batch.entries.first().map(|entry| entry.index);
        let gap = first.zip(last).is_some_and(|(first, last)| first > last.saturating_add(1));
        let pairs = batch.entries.windows(2);
        if gap || first == Some(0) || pairs.clone().any(|pair| !follows(&pair[0], &pair[1])) {
            return Err(format!("batch {} leaves a gap after entry {last:?}", header.lsn));
        }
        Ok(())
    }

    fn take(&mut self, batch: Batch, header: &BatchHeader, manifest: &Manifest) {
        if let Some(first) = batch.entries.first() {
            let kept = self.entries.partition_point(|entry| entry.index < first.index);
            self.entries.truncate(kept);
        }
        let index_max = batch.entries.last().map_or(0, |entry| entry.index);
        if let Some(segment) = self.segments.last_mut() {
            segment.index_max = segment.index_max.max(index_max);
        }
        self.entries.extend(batch.entries);
        self.last_index = self.entries.last().map_or(0, |entry| entry.index);
        self.carried.hard_state = batch.hard_state.or(self.carried.hard_state);
        if batch.local_is_new && header.lsn >= manifest.tail_cut_lsn {
            self.local_after_cut = true;
        }
        self.carried.local = batch.local.or(self.carried.local.take());
        self.next_lsn = header.lsn + 1;
        self.chain = header.crc;
    }

    /// Judges what stands after the last sound batch of the active segment.
    fn end(&mut self, reader: &Reader, manifest: &Manifest) -> Result<(), WalError> {
        // The header of a segment is part of its first batch.
        let start = if self.offset == SECTOR as u64 { 0 } else { self.offset };
        let tail = self.tail(reader, Stamps::new(manifest.key), start)?;
        let corrupt = |reason| Err(WalError::corrupt(&reader.path, start, reason));
        let expected = self.next_lsn;
        if let Some(place) = tail.later {
            return corrupt(format!(
                "batch {expected} is damaged, and a later one stands at byte {place}"
            ));
        }
        if expected <= manifest.synced_lsn {
            return corrupt(format!(
                "the log ends before batch {expected}, but batch {} was durable",
                manifest.synced_lsn
            ));
        }
        let end = self.extent_end(reader, start)?;
        // One batch, one damage: more than that is not the end of a log.
        let beyond = match end {
            Some(end) => tail.damaged.iter().find(|place| **place >= end),
            None => tail.damaged.get(1),
        };
        if let Some(place) = beyond {
            return corrupt(format!(
                "batch {expected} is damaged, and so is byte {place}, which is not in it"
            ));
        }
        let is_written = |place: u64| tail.written.binary_search(&place).is_ok();
        let sectors = |end| (start..end).step_by(SECTOR);
        let torn = tail.written.is_empty()
            || match end {
                Some(end) => sectors(end).any(|place| !is_written(place)),
                // Without its header: torn if that was never written.
                None => sectors(start.max(SECTOR as u64) + 1).any(|place| !is_written(place)),
            };
        self.ambiguous = !tail.damaged.is_empty() || !torn;
        self.cut = tail.written;
        self.cut.extend(tail.damaged);
        self.offset = start;
        Ok(())
    }

    /// What the sectors from `start` on say of themselves.
    fn tail(&self, reader: &Reader, stamps: Stamps, start: u64) -> Result<Tail, WalError> {
        let mut tail = Tail::default();
        let mut at = start;
        while at < reader.length {
            let piece = reader.read(at, (reader.length - at).min(PIECE_BYTES))?;
            for (nth, sector) in piece.chunks(SECTOR).enumerate() {
                let place = at + (nth * SECTOR) as u64;
                match stamps.classify(sector, self.next_lsn) {
                    Written::Never | Written::Earlier => {}
                    Written::This => tail.written.push(place),
                    Written::Damaged => tail.damaged.push(place),
                    Written::Later => tail.later = tail.later.or(Some(place)),
                }
            }
            at += piece.len() as u64;
        }
        Ok(tail)
    }

    /// Where the batch at `start` ends, if its header can be read.
    fn extent_end(&self, reader: &Reader, start: u64) -> Result<Option<u64>, WalError> {
        let first = start.max(SECTOR as u64);
        if first >= reader.length {
            return Ok(None);
        }
        let sector = reader.read(first, SECTOR as u64)?;
        let header = BatchHeader::decode(&sector).filter(|header| header.lsn == self.next_lsn);
        Ok(header.map(|header| first.saturating_add(header.extent()).min(reader.length)))
    }
}

/// What stands after the last sound batch.
#[derive(Default)]
struct Tail {
    /// Sectors of the batch that is expected, ascending.
    written: Vec<u64>,
    /// Sectors that are nobody's, ascending.
    damaged: Vec<u64>,
    /// A sector of a later batch.
    later: Option<u64>,
}

/// A segment file that is read.
struct Reader {
    file: Box<dyn FsFile>,
    path: PathBuf,
    length: u64,
}

impl Reader {
    fn open(fs: &dyn Fs, path: PathBuf) -> Result<Self, WalError> {
        let file = match fs.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(WalError::Missing { file: path });
            }
            opened => opened.map_err(|error| WalError::io("open", &path, error))?,
        };
        let length = file.len().map_err(|error| WalError::io("measure", &path, error))?;
        if length % SECTOR as u64 != 0 || length < 2 * SECTOR as u64 {
            let reason = format!("{length} bytes long, which no segment is");
            return Err(WalError::corrupt(&path, length, reason));
        }
        Ok(Self { file, path, length })
    }

    /// Reads bytes that lie within the file.
    fn read(&self, offset: u64, count: u64) -> Result<Vec<u8>, WalError> {
        let mut bytes = vec![0; count as usize];
        let read = self
            .file
            .read_at(&mut bytes, offset)
            .map_err(|error| WalError::io("read", &self.path, error))?;
        if read < bytes.len() {
            return Err(WalError::corrupt(&self.path, offset, "shorter than it was"));
        }
        Ok(bytes)
    }
}

/// Whether a sector that lies outside the log belongs to a batch from `next_lsn` on.
pub(super) fn is_ahead(sector: &[u8], key: u64, next_lsn: u64) -> bool {
    sector.len() >= STAMP
        && matches!(Stamps::new(key).classify(sector, next_lsn), Written::This | Written::Later)
}

fn follows(before: &LogEntry, after: &LogEntry) -> bool {
    before.index.checked_add(1) == Some(after.index)
}

pub(super) fn segment_name(sequence: u64) -> String {
    format!("{SEGMENT_PREFIX}{sequence:016x}{SEGMENT_SUFFIX}")
}

pub(super) fn segment_sequence(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(SEGMENT_PREFIX)?.strip_suffix(SEGMENT_SUFFIX)?;
    if digits.len() != 16 {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

const SEGMENT_PREFIX: &str = "wal-";
const SEGMENT_SUFFIX: &str = ".log";
const PIECE_BYTES: u64 = 1 << 20;
