//! Snapshot files: staged, finished, read back.

use std::{
    io,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use crate::{
    id::StoreId,
    mutant::Mutant,
    wal::{
        WalError,
        fs::{Fs, FsFile},
        manifest::SnapshotFile,
        segment::{FORMAT_VERSION, u32_at, u64_at},
    },
};

/// A snapshot whose bytes are still coming.
#[derive(Debug)]
pub(super) struct Staging {
    file: Box<dyn FsFile>,
    path: PathBuf,
    store: StoreId,
    snapshot: SnapshotFile,
    unsynced_bytes: u64,
}

impl Staging {
    pub(super) fn begin(
        fs: &dyn Fs,
        dir: &Path,
        store: StoreId,
        index: u64,
        term: u64,
        serial: u64,
    ) -> Result<Self, WalError> {
        let snapshot = SnapshotFile { index, term, length: 0, crc: 0, serial };
        let path = dir.join(format!("{}{STAGED}", file_name(&snapshot)));
        let file = fs.create(&path).map_err(|error| WalError::io("create", &path, error))?;
        Ok(Self { file, path, store, snapshot, unsynced_bytes: 0 })
    }

    /// Writes the next bytes, and syncs now and then so that [`finish`](Self::finish) is short.
    pub(super) fn chunk(&mut self, offset: u64, bytes: &Bytes) -> Result<(), WalError> {
        if offset != self.snapshot.length {
            return Err(WalError::misuse(format!(
                "a chunk at {offset} while {} bytes are staged",
                self.snapshot.length
            )));
        }
        self.file
            .write_at(bytes, HEADER as u64 + offset)
            .map_err(|error| WalError::io("write", &self.path, error))?;
        self.snapshot.length += bytes.len() as u64;
        self.snapshot.crc = crc32c::crc32c_append(self.snapshot.crc, bytes);
        self.unsynced_bytes += bytes.len() as u64;
        if self.unsynced_bytes >= SYNC_BYTES {
            self.sync()?;
        }
        Ok(())
    }

    /// Makes the staged bytes a finished file, durably.
    pub(super) fn finish(
        mut self,
        fs: &dyn Fs,
        dir: &Path,
        length: u64,
        crc: u32,
    ) -> Result<SnapshotFile, WalError> {
        let staged = self.snapshot;
        if (length, crc) != (staged.length, staged.crc) {
            return Err(WalError::misuse(format!(
                "finish says {length} bytes, crc {crc:08x}; staged are {} bytes, crc {:08x}",
                staged.length, staged.crc
            )));
        }
        self.file
            .write_at(&encode_header(self.store, &staged), 0)
            .map_err(|error| WalError::io("write", &self.path, error))?;
        if !Mutant::SnapshotNotSynced.active() {
            self.sync()?;
        }
        let path = dir.join(file_name(&staged));
        fs.rename(&self.path, &path).map_err(|error| WalError::io("rename to", &path, error))?;
        fs.sync_dir(dir).map_err(|error| WalError::io("sync", dir, error))?;
        Ok(staged)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn sync(&mut self) -> Result<(), WalError> {
        self.unsynced_bytes = 0;
        self.file.sync_data().map_err(|error| WalError::io("sync", &self.path, error))
    }
}

/// Reads a finished snapshot and checks every byte of it; `keep` gets the pieces.
pub(super) fn read(
    fs: &dyn Fs,
    dir: &Path,
    store: StoreId,
    expected: &SnapshotFile,
    keep: impl FnMut(Bytes),
) -> Result<(), WalError> {
    let (file, path) = open(fs, dir, store, expected)?;
    read_on(&*file, &path, expected, (&mut 0, &mut 0), u64::MAX, keep)
}

/// Checks at most `bytes_max` bytes of a finished snapshot from a place on, with the checksum of
/// what is before it, and moves both on; the last piece shows whether all of it holds.
pub(super) fn read_piece(
    fs: &dyn Fs,
    dir: &Path,
    store: StoreId,
    expected: &SnapshotFile,
    place: (&mut u64, &mut u32),
    bytes_max: u64,
) -> Result<(), WalError> {
    let (file, path) = open(fs, dir, store, expected)?;
    read_on(&*file, &path, expected, place, bytes_max, drop)
}

/// Opens a finished snapshot whose length and header are those in the manifest.
fn open(
    fs: &dyn Fs,
    dir: &Path,
    store: StoreId,
    expected: &SnapshotFile,
) -> Result<(Box<dyn FsFile>, PathBuf), WalError> {
    let path = dir.join(file_name(expected));
    let file = match fs.open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(WalError::Missing { file: path });
        }
        opened => opened.map_err(|error| WalError::io("open", &path, error))?,
    };
    let io = |op, error| WalError::io(op, &path, error);
    let length = file.len().map_err(|error| io("measure", error))?;
    if length.checked_sub(HEADER as u64) != Some(expected.length) {
        let wanted = expected.length.saturating_add(HEADER as u64);
        let reason = format!("{length} bytes long, expected {wanted}");
        return Err(WalError::corrupt(&path, 0, reason));
    }
    let mut header = [0; HEADER];
    file.read_at(&mut header, 0).map_err(|error| io("read", error))?;
    if header != encode_header(store, expected) {
        let reason = "the header is not that of the snapshot in the manifest";
        return Err(WalError::corrupt(&path, 0, reason));
    }
    Ok((file, path))
}

fn read_on(
    file: &dyn FsFile,
    path: &Path,
    expected: &SnapshotFile,
    (at, crc): (&mut u64, &mut u32),
    bytes_max: u64,
    mut keep: impl FnMut(Bytes),
) -> Result<(), WalError> {
    let end = expected.length.min(at.saturating_add(bytes_max));
    while *at < end {
        let mut piece = vec![0; (end - *at).min(PIECE_BYTES) as usize];
        let count = file
            .read_at(&mut piece, HEADER as u64 + *at)
            .map_err(|error| WalError::io("read", path, error))?;
        if count < piece.len() {
            let reason = "ends before the length it had";
            return Err(WalError::corrupt(path, *at, reason));
        }
        *crc = crc32c::crc32c_append(*crc, &piece);
        *at += count as u64;
        keep(piece.into());
    }
    if *at == expected.length && *crc != expected.crc {
        let reason = format!("the checksum is {crc:08x}, expected {:08x}", expected.crc);
        return Err(WalError::corrupt(path, HEADER as u64, reason));
    }
    Ok(())
}

/// A finished snapshot that the manifest does not name yet, if its header is sound.
pub(super) fn peek(
    fs: &dyn Fs,
    path: &Path,
    store: StoreId,
) -> Result<Option<SnapshotFile>, WalError> {
    let file = fs.open(path).map_err(|error| WalError::io("open", path, error))?;
    let mut header = [0; HEADER];
    let count = file.read_at(&mut header, 0).map_err(|error| WalError::io("read", path, error))?;
    let snapshot = (|| {
        Some(SnapshotFile {
            index: u64_at(&header, 32)?,
            term: u64_at(&header, 40)?,
            length: u64_at(&header, 48)?,
            serial: u64_at(&header, 56)?,
            crc: u32_at(&header, 64)?,
        })
    })();
    let sound = |found: &SnapshotFile| {
        count == HEADER
            && header == encode_header(store, found)
            && path.file_name().and_then(|name| name.to_str()) == Some(&file_name(found))
    };
    Ok(snapshot.filter(sound))
}

pub(super) fn file_name(snapshot: &SnapshotFile) -> String {
    format!("{PREFIX}{:016x}-{:016x}-{:x}{SUFFIX}", snapshot.index, snapshot.term, snapshot.serial)
}

fn encode_header(store: StoreId, snapshot: &SnapshotFile) -> [u8; HEADER] {
    let mut out = [0; HEADER];
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    out[16..32].copy_from_slice(store.as_bytes());
    out[32..40].copy_from_slice(&snapshot.index.to_le_bytes());
    out[40..48].copy_from_slice(&snapshot.term.to_le_bytes());
    out[48..56].copy_from_slice(&snapshot.length.to_le_bytes());
    out[56..64].copy_from_slice(&snapshot.serial.to_le_bytes());
    out[64..68].copy_from_slice(&snapshot.crc.to_le_bytes());
    let crc = crc32c::crc32c(&out[..HEADER - 4]);
    out[HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
    out
}

pub(super) const PREFIX: &str = "snap-";
pub(super) const SUFFIX: &str = ".snap";
/// Ends the name of a file that does not count yet.
pub(super) const STAGED: &str = ".tmp";

const MAGIC: &[u8; 8] = b"QRSNAPS1";
const HEADER: usize = 512;
/// Staged bytes are synced this often.
const SYNC_BYTES: u64 = 4 << 20;
const PIECE_BYTES: u64 = 1 << 20;
