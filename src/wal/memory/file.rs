//! The bytes of a file, and what a power cut leaves of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The bytes of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    /// Blocks that were ever written to with anything but zeros.
    pub(super) blocks: Vec<Option<Arc<[u8]>>>,
    pub(super) length: u64,
    pub(super) durable_length: u64,
    /// What stood there before each write that was not synced, oldest first.
    pub(super) undo: Vec<Undo>,
    /// Durable content of sectors whose later content can no longer become durable.
    pub(super) lost: BTreeMap<u64, Vec<u8>>,
}

/// What a write replaced, from a sector's start on.
#[derive(Clone, Debug)]
pub(super) struct Undo {
    /// Which write of the disk it was.
    pub(super) write: u64,
    pub(super) sector: u64,
    pub(super) sectors: u64,
    /// `None` for zeros.
    pub(super) before: Option<Vec<u8>>,
}

impl Node {
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let count = self.length.saturating_sub(offset).min(buffer.len() as u64) as usize;
        self.read_blocks(&mut buffer[..count], offset);
        count
    }

    /// Reads whatever the blocks hold, zeros beyond them.
    pub(super) fn read_blocks(&self, buffer: &mut [u8], offset: u64) {
        for (block, within, piece) in pieces(offset, buffer.len()) {
            let out = &mut buffer[piece];
            match self.blocks.get(block) {
                Some(Some(bytes)) => out.copy_from_slice(&bytes[within..within + out.len()]),
                _ => out.fill(0),
            }
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64, write: u64) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len() as u64;
        let sector = offset / SECTOR;
        let sectors = end.div_ceil(SECTOR) - sector;
        let blank = pieces(offset, bytes.len())
            .all(|(block, ..)| !matches!(self.blocks.get(block), Some(Some(_))));
        let before = (!blank).then(|| {
            let mut before = vec![0; (sectors * SECTOR) as usize];
            self.read_blocks(&mut before, sector * SECTOR);
            before
        });
        self.undo.push(Undo { write, sector, sectors, before });
        self.write_blocks(bytes, offset);
        self.length = self.length.max(end);
    }

    pub(super) fn write_blocks(&mut self, bytes: &[u8], offset: u64) {
        for (block, within, piece) in pieces(offset, bytes.len()) {
            let source = &bytes[piece];
            if self.blocks.len() <= block {
                self.blocks.resize_with(block + 1, || None);
            }
            let place = &mut self.blocks[block];
            if place.is_none() && source.iter().all(|byte| *byte == 0) {
                continue;
            }
            let held = place.get_or_insert_with(|| vec![0; BLOCK].into());
            let target = Arc::make_mut(held);
            target[within..within + source.len()].copy_from_slice(source);
        }
    }

    pub(super) fn sync(&mut self) {
        self.durable_length = self.length;
        if !self.lost.is_empty() {
            for undo in &self.undo {
                for sector in undo.sector..undo.sector + undo.sectors {
                    self.lost.remove(&sector);
                }
            }
        }
        self.undo.clear();
    }

    /// What a failed sync does: nothing is durable, and nothing will be written back any more.
    pub(super) fn mark_clean(&mut self) {
        for undo in std::mem::take(&mut self.undo) {
            for (sector, before) in undo.sectors() {
                self.lost.entry(sector).or_insert(before);
            }
        }
    }

    pub(super) fn crash(&mut self, survives: &mut impl FnMut() -> bool) {
        let mut kept = BTreeSet::new();
        for undo in std::mem::take(&mut self.undo).into_iter().rev() {
            for (sector, before) in undo.sectors() {
                // A sector that a later write has reached is not undone by an earlier one.
                if kept.contains(&sector) {
                    continue;
                }
                if survives() {
                    kept.insert(sector);
                } else {
                    self.write_blocks(&before, sector * SECTOR);
                }
            }
        }
        for (sector, before) in std::mem::take(&mut self.lost) {
            if !kept.contains(&sector) {
                self.write_blocks(&before, sector * SECTOR);
            }
        }
        if self.length != self.durable_length && !survives() {
            self.length = self.durable_length;
        }
        self.durable_length = self.length;
    }
}

impl Undo {
    pub(super) fn sectors(&self) -> impl Iterator<Item = (u64, Vec<u8>)> + '_ {
        (0..self.sectors).map(|nth| {
            let from = (nth * SECTOR) as usize;
            let before = self.before.as_ref().map_or_else(
                || vec![0; SECTOR as usize],
                |before| before[from..from + SECTOR as usize].to_vec(),
            );
            (self.sector + nth, before)
        })
    }
}

/// Cuts a range at blocks: block, offset in it, and where in the caller's bytes.
fn pieces(
    offset: u64,
    length: usize,
) -> impl Iterator<Item = (usize, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == length {
            return None;
        }
        let at = offset + done as u64;
        let within = (at % BLOCK as u64) as usize;
        let count = (BLOCK - within).min(length - done);
        let from = done;
        done += count;
        Some(((at / BLOCK as u64) as usize, within, from..done))
    })
}

pub(super) const SECTOR: u64 = 512;
/// Copies of a disk share blocks until one of them writes there.
const BLOCK: usize = 1 << 12;
