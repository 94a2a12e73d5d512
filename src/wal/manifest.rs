//! The manifest: the one small file that says which others count. ARCHITECTURE.md has the layout.

use std::{io, path::Path};

use crate::{
    id::{Boot, ClusterId, NodeId, StoreId},
    mutant::Mutant,
    wal::{
        WalError,
        fs::Fs,
        segment::{FORMAT_VERSION, u32_at, u64_at},
    },
};

/// What the manifest says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Manifest {
    pub(super) cluster: ClusterId,
    pub(super) node: NodeId,
    pub(super) store: StoreId,
    /// What the stamps are made from.
    pub(super) key: u64,
    pub(super) boot: Boot,
    /// The first segment that counts; those before it are dropped.
    pub(super) first_segment: u64,
    /// The number of its first batch.
    pub(super) first_lsn: u64,
    /// The segment that is written to; `first_segment - 1` when there is none yet.
    pub(super) active_segment: u64,
    pub(super) active_length: u64,
    /// The last batch that is known to be durable.
    pub(super) synced_lsn: u64,
    /// The batch that was cut off and may have been acknowledged, or 0.
    pub(super) tail_cut_lsn: u64,
    /// Numbers the snapshot files.
    pub(super) next_serial: u64,
    /// Newest first: the current one, and older ones that are kept.
    pub(super) snapshots: Vec<SnapshotFile>,
}

/// A finished snapshot file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SnapshotFile {
    pub(super) index: u64,
    pub(super) term: u64,
    pub(super) length: u64,
    pub(super) crc: u32,
    pub(super) serial: u64,
}

impl Manifest {
    /// Reads the manifest of `dir`; `None` when there is none.
    pub(super) fn read(fs: &dyn Fs, dir: &Path) -> Result<Option<Self>, WalError> {
        let path = dir.join(MANIFEST);
        let file = match fs.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|error| WalError::io("open", &path, error))?,
        };
        let length = file.len().map_err(|error| WalError::io("measure", &path, error))?;
        if length < FIXED as u64 || length > BYTES_MAX as u64 {
            let reason = format!("{length} bytes long, expected {FIXED} to {BYTES_MAX}");
            return Err(WalError::corrupt(&path, 0, reason));
        }
        let mut bytes = vec![0; length as usize];
        let count =
            file.read_at(&mut bytes, 0).map_err(|error| WalError::io("read", &path, error))?;
        bytes.truncate(count);
        Self::decode(&path, &bytes).map(Some)
    }

    /// Makes this the manifest of `dir`, atomically and durably.
    pub(super) fn write(&self, fs: &dyn Fs, dir: &Path) -> Result<(), WalError> {
        let path = dir.join(MANIFEST);
        let staged = dir.join(MANIFEST_STAGED);
        match fs.remove(&staged) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(WalError::io("remove", &staged, error));
            }
            _ => {}
        }
        let file = fs.create(&staged).map_err(|error| WalError::io("create", &staged, error))?;
        file.write_at(&self.encode(), 0).map_err(|error| WalError::io("write", &staged, error))?;
        file.sync_data().map_err(|error| WalError::io("sync", &staged, error))?;
        fs.rename(&staged, &path).map_err(|error| WalError::io("replace", &path, error))?;
        if Mutant::DirectoryNotSynced.active() {
            return Ok(());
        }
        fs.sync_dir(dir).map_err(|error| WalError::io("sync", dir, error))
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED + self.snapshots.len() * SNAPSHOT);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 4]); // the checksum
        out.extend_from_slice(self.cluster.as_bytes());
        out.extend_from_slice(self.store.as_bytes());
        for number in [
            self.node.as_u64(),
            self.key,
            self.boot.counter,
            self.boot.nonce,
            self.first_segment,
            self.first_lsn,
            self.active_segment,
            self.active_length,
            self.synced_lsn,
            self.tail_cut_lsn,
            self.next_serial,
            self.snapshots.len() as u64,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        debug_assert_eq!(out.len(), FIXED);
        for snapshot in &self.snapshots {
            for number in [
                snapshot.index,
                snapshot.term,
                snapshot.length,
                snapshot.serial,
                u64::from(snapshot.crc),
            ] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        let crc = crc32c::crc32c(&out);
        out[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(path: &Path, bytes: &[u8]) -> Result<Self, WalError> {
        let corrupt = |reason: &str| WalError::corrupt(path, 0, reason);
        let short = || corrupt("cut short");
        if bytes.get(..8) != Some(MAGIC) {
            return Err(corrupt("does not begin like a manifest"));
        }
        let mut unsealed = bytes.to_vec();
        let crc = u32_at(bytes, CRC_AT).ok_or_else(short)?;
        unsealed[CRC_AT..CRC_AT + 4].fill(0);
        if crc != crc32c::crc32c(&unsealed) {
            return Err(corrupt("the checksum does not hold"));
        }
        let found = u32_at(bytes, 8).ok_or_else(short)?;
        if found != FORMAT_VERSION {
            return Err(WalError::Version {
                file: path.to_path_buf(),
                found,
                supported: FORMAT_VERSION,
            });
        }
        let id = |at: usize| bytes.get(at..)?.first_chunk::<16>().copied();
        let number = |place: usize| u64_at(bytes, NUMBERS_AT + 8 * place).ok_or_else(short);
        let count = number(11)?;
        if count > SNAPSHOTS_MAX as u64 || bytes.len() != FIXED + count as usize * SNAPSHOT {
            return Err(corrupt("the number of snapshots does not fit its length"));
        }
        let snapshots = (0..count as usize)
            .map(|nth| {
                let field = |place: usize| number(12 + nth * SNAPSHOT / 8 + place);
                Ok(SnapshotFile {
                    index: field(0)?,
                    term: field(1)?,
                    length: field(2)?,
                    serial: field(3)?,
                    crc: field(4)? as u32,
                })
            })
            .collect::<Result<_, WalError>>()?;
        Ok(Self {
            cluster: ClusterId::from_bytes(id(16).ok_or_else(short)?),
            store: StoreId::from_bytes(id(32).ok_or_else(short)?),
            node: NodeId::new(number(0)?).ok_or_else(|| corrupt("the node id is out of range"))?,
            key: number(1)?,
            boot: Boot { counter: number(2)?, nonce: number(3)? },
            first_segment: number(4)?,
            first_lsn: number(5)?,
            active_segment: number(6)?,
            active_length: number(7)?,
            synced_lsn: number(8)?,
            tail_cut_lsn: number(9)?,
            next_serial: number(10)?,
            snapshots,
        })
    }
}

pub(super) const MANIFEST: &str = "MANIFEST";
pub(super) const MANIFEST_STAGED: &str = "MANIFEST.tmp";
/// The current snapshot and older ones.
pub(super) const SNAPSHOTS_MAX: usize = 4;

const MAGIC: &[u8; 8] = b"QRMANIF1";
const CRC_AT: usize = 12;
const NUMBERS_AT: usize = 48;
const FIXED: usize = NUMBERS_AT + 12 * 8;
const SNAPSHOT: usize = 5 * 8;
const BYTES_MAX: usize = FIXED + SNAPSHOTS_MAX * SNAPSHOT;
