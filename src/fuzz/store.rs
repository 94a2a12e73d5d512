//! A store that somebody has written to.

use std::path::{Path as Directory, PathBuf};

use super::{
    input::Input,
    samples::{DIRECTORY, damage, open, stored},
};
use crate::{
    node::Write,
    wal::{Fs, MemoryFs, WalError},
    wire::HardState,
};

/// Edits of a real store: it opens with a prefix of what was written, or says what is damaged.
pub(super) fn log(data: &[u8]) {
    let (fs, written) = stored(12);
    damage(&fs, data);
    match open(&fs) {
        Ok((_, restored)) => {
            let same = written.starts_with(&restored.entries);
            assert!(same, "entries that nobody wrote: {:?}", restored.entries);
            let short = restored.entries.len() < written.len();
            assert!(!short || restored.tail_cut, "a cut that nobody is told of");
        }
        Err(WalError::Io { .. }) => panic!("a sound disk gives no such error"),
        Err(_) => {}
    }
}

pub(super) fn log_seeds() -> Vec<Vec<u8>> {
    vec![Vec::new(), vec![0, 0, 0, 1], vec![1, 0, 2, 9, 1, 4, 2, 9], vec![2, 100, 2, 255]]
}

/// A manifest and a hard state with checksums that hold, and anything else in them: a store opens
/// with what was written to it, or says what is wrong; what it says once, it says again.
pub(super) fn manifest(data: &[u8]) {
    let mut input = Input::new(data);
    let (fs, written) = stored(12);
    // The hard state has the last batch, a sector, for itself.
    let last = HardState::new(2, 1, 11);
    match open(&fs) {
        Ok((mut wal, _)) => {
            let write = Write { hard_state: Some(last), ..Write::default() };
            assert!(wal.persist(&write).is_ok(), "the disk is sound");
        }
        Err(error) => panic!("a sound store: {error}"),
    }
    let (segment, at) = last_batch(&fs);
    let mut touched = [false; 2];
    while !input.is_spent() {
        let of_manifest = input.below(2) == 0;
        touched[usize::from(of_manifest)] = true;
        match of_manifest {
            true => edit_manifest(&fs, &mut input),
            false => edit_batch(&fs, &segment, at, &mut input),
        }
    }
    match open(&fs) {
        Ok((wal, restored)) => {
            // The last batch may have become an entry.
            let kept = restored.entries.len().saturating_sub(usize::from(touched[0]));
            let same = written.starts_with(&restored.entries[..kept]);
            assert!(same, "entries that nobody wrote: {:?}", restored.entries);
            assert!(touched != [false; 2] || restored.hard_state == Some(last));
            drop(wal);
            match open(&fs) {
                Ok((_, again)) => assert_eq!(
                    (again.hard_state, again.entries),
                    (restored.hard_state, restored.entries)
                ),
                Err(error) => panic!("it was opened before: {error}"),
            }
        }
        Err(WalError::Io { .. }) => panic!("a sound disk gives no such error"),
        Err(error) => {
            assert_ne!(touched, [false; 2], "{error}");
            assert!(open(&fs).is_err(), "it was not opened before: {error}");
        }
    }
}

pub(super) fn manifest_seeds() -> Vec<Vec<u8>> {
    // A number of the manifest each, and of the batch and its record each.
    let mut seeds: Vec<Vec<u8>> = (0..12).map(|place| vec![0, 4 + place, 1]).collect();
    seeds.extend((0..14).map(|place| vec![1, place, 3, 2, 0]));
    seeds.push(Vec::new());
    seeds
}

/// One of its numbers, or a byte.
fn edit_manifest(fs: &MemoryFs, input: &mut Input) {
    let file = Directory::new(DIRECTORY).join("MANIFEST");
    let mut bytes = fs.contents(&file).unwrap_or_default();
    let at = usize::from(input.byte());
    if (4..16).contains(&at) {
        set_number(&mut bytes, 16 + 8 * at, input);
    } else {
        let length = bytes.len();
        bytes[at % length] = input.byte();
    }
    bytes[12..16].fill(0);
    let crc = crc32c::crc32c(&bytes);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    fs.put(&file, &bytes);
}

/// A number in the sector of the last batch, but its stamp.
fn edit_batch(fs: &MemoryFs, segment: &Directory, at: usize, input: &mut Input) {
    let mut bytes = fs.contents(segment).unwrap_or_default();
    if let Some(sector) = bytes.get_mut(at..at + 512) {
        let place = input.below(14);
        match place {
            0..12 => set_number(sector, 8 + 8 * place, input),
            _ => sector[8 + usize::from(input.short()) % 504] = input.byte(),
        }
        let crc = crc32c::crc32c(&sector[16..60]);
        sector[12..16].copy_from_slice(&crc.to_le_bytes());
        let before = u32::from_le_bytes([sector[56], sector[57], sector[58], sector[59]]);
        let crc = crc32c::crc32c_append(before, &sector[..60]);
        let crc = crc32c::crc32c_append(crc, &sector[64..]);
        sector[60..64].copy_from_slice(&crc.to_le_bytes());
        fs.put(segment, &bytes);
    }
}

fn set_number(bytes: &mut [u8], at: usize, input: &mut Input) {
    if let Some(place) = bytes.get_mut(at..at + 8) {
        let mut now = [0; 8];
        now.copy_from_slice(place);
        let number = input.number(&[u64::from_le_bytes(now)]);
        place.copy_from_slice(&number.to_le_bytes());
    }
}

/// The segment with the last batch, and where it begins.
fn last_batch(fs: &MemoryFs) -> (PathBuf, usize) {
    let names = fs.list(Directory::new(DIRECTORY)).unwrap_or_default();
    let segments = names.iter().filter(|name| name.starts_with("wal-"));
    for name in segments.rev() {
        let file = Directory::new(DIRECTORY).join(name);
        let bytes = fs.contents(&file).unwrap_or_default();
        let begins = |at: &usize| bytes.get(at + 8..at + 12) == Some(b"QRB1");
        if let Some(at) = (0..bytes.len()).step_by(512).rfind(begins) {
            return (file, at);
        }
    }
    panic!("something was written");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch that was sealed anew is read, or the target would try checksums alone.
    #[test]
    fn a_sealed_hard_state_is_read() {
        let (fs, _) = stored(12);
        let (mut wal, _) = open(&fs).expect("a sound store");
        let hard_state = Some(HardState::new(2, 1, 11));
        wal.persist(&Write { hard_state, ..Write::default() }).expect("the disk is sound");
        drop(wal);
        let (segment, at) = last_batch(&fs);
        // The term stands after the commit: 24 bytes of a record begin at 64.
        edit_batch(&fs, &segment, at, &mut Input::new(&[9, 3, 77, 0]));
        let (_, restored) = open(&fs).expect("all checksums hold");
        assert_eq!(restored.hard_state, Some(HardState::new(77, 1, 11)));
        edit_manifest(&fs, &mut Input::new(&[11, 3, 0, 9]));
        let error = open(&fs).expect_err("more was durable than there is");
        assert!(matches!(error, WalError::Corrupt { .. }), "{error}");
    }
}
