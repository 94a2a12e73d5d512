//! Work on files that needs no log: it runs on another thread, and delays nobody.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    id::StoreId,
    wal::{
        WalError,
        fs::Fs,
        manifest::SnapshotFile,
        sector::SECTOR,
        segment::{BatchHeader, SegmentHeader, checksum},
        snapshot,
    },
};

/// A piece of work for another thread; give what [`run`](Self::run) returns to
/// [`Wal::chore_done`](crate::wal::Wal::chore_done).
#[must_use = "a chore that is dropped is never done, and no other of its kind is handed out"]
pub struct Chore {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) dir: PathBuf,
    pub(super) store: StoreId,
    pub(super) work: Work,
}

/// What a chore did.
#[derive(Debug)]
#[must_use = "a log that never learns of it does not go on"]
pub struct ChoreDone {
    pub(super) work: Work,
    pub(super) result: Result<(), WalError>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Work {
    /// Makes a spare segment, filled with zeros.
    Prepare { name: String, length: u64 },
    /// Reads a snapshot back.
    Verify(SnapshotFile),
    /// Removes files that nothing names any more.
    Remove(Vec<String>),
    /// Reads a piece of what is at rest.
    Scrub(Scrub),
}

/// Where a scrub goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scrub {
    Segment(SegmentScrub),
    Snapshot(SnapshotScrub),
}

/// A place in a full segment: where a batch begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SegmentScrub {
    pub(super) sequence: u64,
    pub(super) offset: u64,
    pub(super) lsn: u64,
    pub(super) chain: u32,
    /// The first batch that is not in the segment any more.
    pub(super) end_lsn: u64,
}

/// A place in a finished snapshot, and the checksum of what is before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SnapshotScrub {
    pub(super) file: SnapshotFile,
    pub(super) at: u64,
    pub(super) crc: u32,
}

impl Chore {
    /// Does the work; takes up to a second or so on a slow disk.
    pub fn run(mut self) -> ChoreDone {
        let result = match &mut self.work {
            Work::Prepare { name, length } => prepare(&*self.fs, &self.dir, name, *length),
            Work::Verify(file) => snapshot::read(&*self.fs, &self.dir, self.store, file, drop),
            Work::Remove(names) => remove_all(&*self.fs, &self.dir, names),
            Work::Scrub(Scrub::Segment(place)) => scrub_segment(&*self.fs, &self.dir, place),
            Work::Scrub(Scrub::Snapshot(SnapshotScrub { file, at, crc })) => {
                snapshot::read_piece(&*self.fs, &self.dir, self.store, file, (at, crc), SCRUB_BYTES)
            }
        };
        ChoreDone { work: self.work, result }
    }
}

impl fmt::Debug for Chore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chore({:?})", self.work)
    }
}

/// Makes a segment file of zeros under `name`, durably. Its blocks are written, not only reserved:
/// overwriting them later changes no metadata, so one `fdatasync` is one write.
pub(super) fn prepare(fs: &dyn Fs, dir: &Path, name: &str, length: u64) -> Result<(), WalError> {
    let staged = dir.join(format!("{name}{}", snapshot::STAGED));
    let path = dir.join(name);
    let io = |op, error| WalError::io(op, &staged, error);
    let filled = (|| {
        let file = fs.create(&staged).map_err(|error| io("create", error))?;
        let zeros = vec![0; ZEROS_BYTES.min(length) as usize];
        let mut at = 0;
        while at < length {
            let count = (length - at).min(ZEROS_BYTES);
            file.write_at(&zeros[..count as usize], at).map_err(|error| io("fill", error))?;
            at += count;
        }
        file.sync_data().map_err(|error| io("sync", error))
    })();
    if let Err(error) = filled {
        // Gives the space back; the first error is the one to tell.
        let _ = fs.remove(&staged);
        return Err(error);
    }
    fs.rename(&staged, &path).map_err(|error| WalError::io("rename to", &path, error))?;
    fs.sync_dir(dir).map_err(|error| WalError::io("sync", dir, error))
}

/// Removes files; those that are gone already are fine.
pub(super) fn remove_all(fs: &dyn Fs, dir: &Path, names: &[String]) -> Result<(), WalError> {
    for name in names {
        let path = dir.join(name);
        match fs.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(WalError::io("remove", &path, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Checks batches until a bounded number of bytes is read, and moves `place` on.
fn scrub_segment(fs: &dyn Fs, dir: &Path, place: &mut SegmentScrub) -> Result<(), WalError> {
    let path = dir.join(super::recover::segment_name(place.sequence));
    let file = fs.open(&path).map_err(|error| WalError::io("open", &path, error))?;
    let length = file.len().map_err(|error| WalError::io("measure", &path, error))?;
    let read = |offset: u64, count: u64| {
        let mut bytes = vec![0; count as usize];
        let got =
            file.read_at(&mut bytes, offset).map_err(|error| WalError::io("read", &path, error))?;
        bytes.truncate(got);
        Ok(bytes)
    };
    let rotten = |offset, lsn| {
        let reason = format!("batch {lsn} was durable and does not hold any more");
        WalError::corrupt(&path, offset, reason)
    };
    let stop = place.offset + SCRUB_BYTES;
    if place.offset == 0 {
        let header = SegmentHeader::decode(&read(0, SECTOR as u64)?)
            .filter(|header| header.first_lsn == place.lsn)
            .ok_or_else(|| rotten(0, place.lsn))?;
        place.chain = header.chain;
        place.offset = SECTOR as u64;
    }
    while place.lsn < place.end_lsn && place.offset < stop {
        let header = BatchHeader::decode(&read(place.offset, SECTOR as u64)?)
            .filter(|header| {
                header.lsn == place.lsn && header.extent() <= length.saturating_sub(place.offset)
            })
            .ok_or_else(|| rotten(place.offset, place.lsn))?;
        let sectors = read(place.offset, header.extent())?;
        if checksum(&sectors, place.chain) != header.crc {
            return Err(rotten(place.offset, place.lsn));
        }
        place.chain = header.crc;
        place.offset += header.extent();
        place.lsn += 1;
    }
    Ok(())
}

const ZEROS_BYTES: u64 = 1 << 20;
/// One scrub reads this much.
const SCRUB_BYTES: u64 = 4 << 20;
