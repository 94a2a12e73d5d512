//! Sectors: the grain at which a disk tears a write, and how each of them tells which write it
//! belongs to.
//!
//! Every sector of a segment begins with a stamp: a number that is drawn from the store's key and
//! the number of the batch that wrote the sector. It is a bijection, so a stamp names its batch,
//! and nothing that a client stores can stand where a stamp stands. So recovery can tell a sector
//! that a crash left unwritten (blank, or of an older batch) from one whose bits have changed.
//! That is what tells a torn write, which nobody was told of, from damage.

/// The bytes that a disk writes as one (medium assumption).
pub(super) const SECTOR: usize = 512;
/// The bytes of the stamp at each sector's start.
pub(super) const STAMP: usize = 8;
/// The bytes that a sector holds besides its stamp.
pub(super) const ROOM: usize = SECTOR - STAMP;

/// Makes and reads stamps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamps {
    key: u64,
}

impl Stamps {
    pub(super) fn new(key: u64) -> Self {
        Self { key: key | 1 << 63 }
    }

    /// The stamp of batch `lsn`; never 0, because the key's high bit is set and no number's is.
    pub(super) fn of(self, lsn: u64) -> u64 {
        mix(lsn ^ self.key)
    }

    /// What a sector says of itself when batch `expected` is the next to come.
    pub(super) fn classify(self, sector: &[u8], expected: u64) -> Written {
        let Some(stamp) = sector.first_chunk::<STAMP>() else {
            return Written::Damaged;
        };
        let stamp = u64::from_le_bytes(*stamp);
        let lsn = unmix(stamp) ^ self.key;
        if lsn == expected {
            Written::This
        } else if (1..expected).contains(&lsn) {
            Written::Earlier
        } else if (expected..expected.saturating_add(LATER_MAX)).contains(&lsn) {
            Written::Later
        } else if stamp == 0 && sector.iter().all(|byte| *byte == 0) {
            Written::Never
        } else {
            Written::Damaged
        }
    }
}

/// Who wrote a sector, seen from the batch that is expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Written {
    /// All zeros.
    Never,
    /// By a batch before the expected one: an older life of the file.
    Earlier,
    /// By the expected batch.
    This,
    /// By a batch after it: so the expected one was durable.
    Later,
    /// By nobody: bits have changed.
    Damaged,
}

/// A run of sectors that is filled from its start; one buffer, used again and again.
#[derive(Debug, Default)]
pub(super) struct Sectors {
    bytes: Vec<u8>,
    stamp: [u8; STAMP],
}

impl Sectors {
    /// Starts again, with this stamp on each sector.
    pub(super) fn restart(&mut self, stamp: u64) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES_MAX);
        self.stamp = stamp.to_le_bytes();
    }

    /// Appends; stamps go in between.
    pub(super) fn put(&mut self, mut source: &[u8]) {
        while !source.is_empty() {
            let used = self.bytes.len() % SECTOR;
            let room = if used == 0 {
                self.bytes.extend_from_slice(&self.stamp);
                ROOM
            } else {
                SECTOR - used
            };
            let (now, later) = source.split_at(room.min(source.len()));
            self.bytes.extend_from_slice(now);
            source = later;
        }
    }

    /// Fills the last sector with zeros.
    pub(super) fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(SECTOR), 0);
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// What `sectors` hold besides their stamps, without the first `skip` bytes, up to `length`.
pub(super) fn strip(sectors: &[u8], skip: usize, length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(length.min(sectors.len()));
    let mut skip = skip;
    for sector in sectors.chunks(SECTOR) {
        let held = sector.get(STAMP..).unwrap_or_default();
        let from = skip.min(held.len());
        skip -= from;
        let count = (held.len() - from).min(length - out.len());
        out.extend_from_slice(&held[from..from + count]);
    }
    out
}

/// How many sectors hold `bytes` bytes.
pub(super) fn sectors_for(bytes: usize) -> usize {
    bytes.div_ceil(ROOM)
}

/// The finalizer of SplitMix64: a bijection in which each bit moves about half of all bits.
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(MIX_A);
    let number = (number ^ (number >> 27)).wrapping_mul(MIX_B);
    number ^ (number >> 31)
}

/// Undoes [`mix`].
fn unmix(number: u64) -> u64 {
    let number = number ^ (number >> 31) ^ (number >> 62);
    let number = number.wrapping_mul(MIX_B_INVERSE);
    let number = number ^ (number >> 27) ^ (number >> 54);
    let number = number.wrapping_mul(MIX_A_INVERSE);
    number ^ (number >> 30) ^ (number >> 60)
}

const MIX_A: u64 = 0xbf58_476d_1ce4_e5b9;
const MIX_B: u64 = 0x94d0_49bb_1331_11eb;
const MIX_A_INVERSE: u64 = inverse(MIX_A);
const MIX_B_INVERSE: u64 = inverse(MIX_B);
/// How far ahead a stamp is believed: more batches than any segment has sectors.
const LATER_MAX: u64 = 1 << 32;
/// A buffer that a huge write has blown up shrinks back to this.
const KEPT_BYTES_MAX: usize = 4 << 20;

/// The inverse of an odd number modulo 2^64 (Newton: each step doubles the right bits).
const fn inverse(odd: u64) -> u64 {
    let mut inverse = odd;
    let mut step = 0;
    while step < 5 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(inverse)));
        step += 1;
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_names_its_batch() {
        let stamps = Stamps::new(0x1234_5678_9abc_def0);
        for lsn in (1..5000).chain([1 << 40, (1 << 63) - 1]) {
            assert_eq!(unmix(stamps.of(lsn)) ^ stamps.key, lsn);
        }
    }

    #[test]
    fn a_stamp_with_a_changed_bit_is_nobodys() {
        let stamps = Stamps::new(77);
        for lsn in 1..200u64 {
            for bit in 0..64 {
                let mut sector = [9; SECTOR];
                sector[..8].copy_from_slice(&(stamps.of(lsn) ^ (1 << bit)).to_le_bytes());
                assert_eq!(stamps.classify(&sector, lsn), Written::Damaged);
            }
        }
    }

    #[test]
    fn what_is_put_comes_back_without_the_stamps() {
        for length in [1, 503, 504, 505, 1008, 5000] {
            let data: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let mut sectors = Sectors::default();
            sectors.restart(u64::MAX);
            data.chunks(7).for_each(|piece| sectors.put(piece));
            sectors.pad();
            assert_eq!(sectors.as_slice().len(), sectors_for(length) * SECTOR);
            assert_eq!(strip(sectors.as_slice(), 0, length), data);
            assert_eq!(strip(sectors.as_slice(), 1, length - 1), data[1..]);
        }
    }
}
