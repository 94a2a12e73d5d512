//! The promises of the log, each broken by a test if it does not hold.

mod crash;
mod damage;
mod model;
mod rules;

use std::{path::Path, sync::Arc};

use bytes::Bytes;

use crate::{
    id::{ClusterId, NodeId},
    node::{Restored, SnapshotWrite, Write},
    wal::{Fs, MemoryFs, Wal, WalError, WalOptions},
    wire::{EntryKind, HardState, LogEntry},
};

const DIR: &str = "/store";

fn dir() -> &'static Path {
    Path::new(DIR)
}

fn cluster() -> ClusterId {
    ClusterId::named("tests")
}

fn node(id: u64) -> NodeId {
    NodeId::new(id).expect("tests use small ids")
}

fn options(segment_bytes: u64) -> WalOptions {
    WalOptions { entropy: Some([7; 32]), segment_bytes, ..WalOptions::default() }
}

fn open_small(fs: &MemoryFs) -> Result<(Wal, Restored), WalError> {
    open_in(Arc::new(fs.clone()), dir())
}

fn open_in(fs: Arc<dyn Fs>, dir: &Path) -> Result<(Wal, Restored), WalError> {
    Wal::open_with(fs, dir, cluster(), node(1), options(8192))
}

fn entry(index: u64, term: u64, data: &[u8]) -> LogEntry {
    let kind = match index % 5 {
        0 => EntryKind::Membership,
        _ => EntryKind::Normal,
    };
    LogEntry::new(index, term, kind, Bytes::copy_from_slice(data))
}

fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Write {
    Write {
        entries: range.map(|index| entry(index, term, &[index as u8; 100])).collect(),
        ..Write::default()
    }
}

fn hard(term: u64, vote: u64, commit: u64) -> Write {
    Write { hard_state: Some(HardState::new(term, vote, commit)), ..Write::default() }
}

fn staged(index: u64, term: u64, data: &[u8]) -> Vec<SnapshotWrite> {
    let mut steps = vec![SnapshotWrite::Begin { index, term }];
    for (nth, piece) in data.chunks(700).enumerate() {
        steps.push(SnapshotWrite::Chunk {
            offset: nth as u64 * 700,
            bytes: Bytes::copy_from_slice(piece),
        });
    }
    steps.push(SnapshotWrite::Finish { length: data.len() as u64, crc: crc32c::crc32c(data) });
    steps
}

fn installed(index: u64, term: u64, data: &[u8], reset_log: bool) -> Write {
    let mut snapshot = staged(index, term, data);
    snapshot.push(SnapshotWrite::Install { index, term, reset_log });
    Write { snapshot, ..Write::default() }
}

fn snapshot_bytes(restored: &Restored) -> Option<(u64, u64, Vec<u8>)> {
    let snapshot = restored.snapshot.as_ref()?;
    let bytes = snapshot.chunks.concat();
    Some((snapshot.index, snapshot.term, bytes))
}

fn run_chores(wal: &mut Wal) {
    while let Some(chore) = wal.chore() {
        wal.chore_done(chore.run()).expect("chores on a sound disk");
    }
}
