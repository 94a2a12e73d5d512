//! Bits flip, files are cut, bytes are anything: a typed error, or a safe prefix.

use super::{
    model::{Model, draw},
    *,
};
use crate::wal::{Fault, Keep, OsFs};

/// A small store with a snapshot and some batches in its active segment, and the states before
/// and after its last batch.
fn small_store() -> (MemoryFs, [Model; 2]) {
    let fs = MemoryFs::new();
    let options = options(4096);
    let open = Wal::open_with(Arc::new(fs.clone()), dir(), cluster(), node(1), options);
    let (mut wal, _) = open.expect("a new store");
    let mut install = installed(3, 1, &[8; 600], true);
    install.hard_state = Some(HardState::new(1, 1, 3));
    install.local = Some(Bytes::from_static(b"own record"));
    let mut last = entries(6..=9, 2);
    last.hard_state = Some(HardState::new(2, 1, 5));
    let mut model = Model::default();
    for write in [&install, &entries(4..=4, 1), &entries(5..=5, 1)] {
        wal.persist(write).expect("a sound disk");
        model = model.through(write).pop().expect("there is a last state");
    }
    wal.persist(&last).expect("a sound disk");
    let after = model.through(&last).pop().expect("there is a last state");
    drop(wal);
    (fs, [model, after])
}

fn reopen(fs: &MemoryFs) -> Result<(Wal, Restored), WalError> {
    let options = options(4096);
    Wal::open_with(Arc::new(fs.clone()), dir(), cluster(), node(1), options)
}

/// A damaged store opens whole, or without its last batch and with `tail_cut`, or not at all and
/// then with its files untouched. Returns whether it was cut.
fn check_damaged(fs: &MemoryFs, path: &Path, [before, after]: &[Model; 2], what: &str) -> bool {
    let damaged = fs.contents(path);
    match reopen(fs).map(|(_, restored)| restored) {
        Ok(mut restored) => {
            let cut = std::mem::take(&mut restored.tail_cut);
            let whole = after.is(&restored);
            let prefix = cut && before.is(&restored);
            assert!(whole || prefix, "{what}: {restored:#?}");
            // A cut is not forgotten.
            if cut {
                let (_, again) = reopen(fs).expect("it was opened before");
                assert!(again.tail_cut, "{what}");
            }
            cut && !whole
        }
        Err(error) => {
            let typed = matches!(
                error,
                WalError::Corrupt { .. } | WalError::Version { .. } | WalError::Missing { .. }
            );
            assert!(typed, "{what}: {error}");
            assert_eq!(fs.contents(path), damaged, "{what}: touched");
            false
        }
    }
}

fn files(fs: &MemoryFs) -> Vec<std::path::PathBuf> {
    let names = fs.list(dir()).expect("a sound disk");
    let counts =
        |name: &String| name.starts_with("wal-") || name.starts_with("snap-") || name == "MANIFEST";
    let counted = names.into_iter().filter(counts);
    counted.map(|name| dir().join(name)).collect()
}

#[test]
fn s3_every_flipped_bit_is_an_error_or_a_known_cut() {
    let (fs, states) = small_store();
    let mut cuts = 0;
    for path in files(&fs) {
        let sound = fs.contents(&path).expect("it is there");
        for bit in 0..sound.len() * 8 {
            let fork = fs.fork();
            let mut bytes = sound.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fork.put(&path, &bytes);
            let what = format!("{} bit {bit}", path.display());
            cuts += u32::from(check_damaged(&fork, &path, &states, &what));
        }
    }
    // The last batch has two sectors, of 4096 bits each.
    assert!((5000..=8192).contains(&cuts), "{cuts}");
}

#[test]
fn s3_a_file_cut_at_any_byte_is_an_error() {
    let (fs, _) = small_store();
    for path in files(&fs) {
        let sound = fs.contents(&path).expect("it is there");
        for length in 0..sound.len() {
            let fork = fs.fork();
            fork.put(&path, &sound[..length]);
            let error = reopen(&fork).expect_err("the file is cut");
            assert!(matches!(error, WalError::Corrupt { .. }), "{error}");
        }
    }
}

#[test]
fn s3_damage_below_a_later_batch_names_segment_and_offset() {
    let (fs, _) = small_store();
    let path =
        files(&fs).into_iter().find(|path| path.to_str().is_some_and(|path| path.contains("wal-")));
    let path = path.expect("there is a segment");
    let mut bytes = fs.contents(&path).expect("it is there");
    bytes[1100] ^= 1; // in the batch before the last one
    fs.put(&path, &bytes);
    match reopen(&fs).expect_err("the log is damaged") {
        WalError::Corrupt { file, offset, .. } => assert_eq!((file, offset % 512), (path, 0)),
        error => panic!("{error}"),
    }
}

#[test]
fn s4_zeros_are_the_end_only_if_nothing_follows() {
    let (fs, states) = small_store();
    for path in files(&fs) {
        let sound = fs.contents(&path).expect("it is there");
        for sector in 0..sound.len() / 512 {
            let fork = fs.fork();
            let mut bytes = sound.clone();
            bytes[sector * 512..(sector + 1) * 512].fill(0);
            if bytes == sound || sector * 512 >= last_batch(&sound) {
                continue;
            }
            fork.put(&path, &bytes);
            let what = format!("{} sector {sector}", path.display());
            assert!(!check_damaged(&fork, &path, &states, &what), "{what}");
            assert!(reopen(&fork).is_err(), "{what}");
        }
    }
}

/// Where the last batch of a segment begins; its end for any other file.
fn last_batch(bytes: &[u8]) -> usize {
    let magic = |at: &usize| bytes.get(at + 8..at + 12) == Some(b"QRB1");
    let mut places = (0..bytes.len()).step_by(512).filter(magic);
    places.next_back().unwrap_or(bytes.len())
}

#[test]
fn s5_a_torn_batch_is_cut_without_suspicion() {
    // Any set of its sectors that lacks one was never acknowledged: the node may go on voting.
    let (fs, [_, after]) = small_store();
    for seed in 0..200 {
        let fork = fs.fork();
        let (mut wal, restored) = reopen(&fork).expect("a sound disk");
        assert!(after.is(&restored));
        let last = Write { entries: vec![entry(10, 2, &[1; 900])], ..Write::default() };
        fork.arm(&[Fault::FailSync(1)]);
        if seed % 2 == 0 {
            fork.arm(&[Fault::PowerCut(2)]);
        }
        wal.persist(&last).expect_err("armed");
        drop(wal);
        fork.crash(Keep::Random { seed });
        let (_, restored) = reopen(&fork).expect("torn, not damaged");
        let whole = after.through(&last).pop().expect("there is a last state");
        assert!(after.is(&restored) || whole.is(&restored), "{restored:#?}");
        assert!(!restored.tail_cut);
    }
}

#[test]
fn s5_a_cut_is_remembered_until_the_node_has_noted_it() {
    let (fs, _) = small_store();
    let path = files(&fs)
        .into_iter()
        .rfind(|path| path.to_str().is_some_and(|path| path.contains("wal-")))
        .expect("there is a segment");
    let mut bytes = fs.contents(&path).expect("it is there");
    let at = last_batch(&bytes);
    bytes[at + 100] ^= 1;
    fs.put(&path, &bytes);
    for _ in 0..2 {
        let (_, restored) = reopen(&fs).expect("the tail is cut");
        assert!(restored.tail_cut);
    }
    let (mut wal, _) = reopen(&fs).expect("the tail is cut");
    wal.persist(&entries(6..=6, 3)).expect("a sound disk");
    drop(wal);
    let (mut wal, restored) = reopen(&fs).expect("a sound store");
    assert!(restored.tail_cut, "entries are not a note");
    let note = Write { local: Some(Bytes::from_static(b"must not vote")), ..Write::default() };
    wal.persist(&note).expect("a sound disk");
    drop(wal);
    let (_, restored) = reopen(&fs).expect("a sound store");
    assert!(!restored.tail_cut);
    assert_eq!(restored.local, note.local);
}

#[test]
fn f4_f6_random_bytes_are_errors() {
    let (fs, states) = small_store();
    let mut random = 3;
    for round in 0..3000 {
        for path in files(&fs) {
            let sound = fs.contents(&path).expect("it is there");
            let fork = fs.fork();
            let mut bytes = sound.clone();
            match round % 3 {
                0 => {
                    let length = match draw(&mut random, 2) {
                        0 => draw(&mut random, 10_000) as usize,
                        _ => sound.len(),
                    };
                    bytes = (0..length).map(|_| draw(&mut random, 256) as u8).collect();
                }
                1 => {
                    let from = draw(&mut random, sound.len() as u64) as usize;
                    let to = from + draw(&mut random, 600) as usize;
                    let to = to.min(sound.len());
                    bytes[from..to].fill_with(|| draw(&mut random, 256) as u8);
                }
                _ => {
                    for _ in 0..4 {
                        let at = draw(&mut random, sound.len() as u64) as usize;
                        bytes[at] = draw(&mut random, 256) as u8;
                    }
                }
            }
            fork.put(&path, &bytes);
            let what = format!("{} round {round}", path.display());
            check_damaged(&fork, &path, &states, &what);
        }
    }
}

#[test]
fn a_read_error_is_an_error() {
    let (fs, _) = small_store();
    for nth in 1.. {
        let fork = fs.fork();
        fork.arm(&[Fault::FailRead(nth)]);
        match reopen(&fork) {
            Ok(_) => {
                assert!(nth > 5);
                break;
            }
            Err(error) => assert!(matches!(error, WalError::Io { .. }), "{error}"),
        }
    }
}

#[test]
fn on_a_real_disk_a_torn_tail_is_cut_and_a_flipped_bit_refused() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let path = home.path().join("a/b");
    let fs: Arc<dyn Fs> = Arc::new(OsFs);
    let (mut wal, first) = open_in(Arc::clone(&fs), &path).expect("a new store");
    let refused = open_in(Arc::clone(&fs), &path).map(drop);
    assert!(matches!(refused, Err(WalError::Locked { .. })));
    for index in 1..=32 {
        wal.persist(&entries(index..=index, 1)).expect("a sound disk");
    }
    wal.persist(&installed(5, 1, &[5; 5000], false)).expect("a sound disk");
    run_chores(&mut wal);
    wal.persist(&Write { entries: vec![entry(33, 1, &[3; 2000])], ..Write::default() })
        .expect("a sound disk");
    drop(wal);
    let names = fs.list(&path).expect("a sound disk");
    let last = names.iter().rfind(|name| name.starts_with("wal-"));
    let segment = path.join(last.expect("there are segments"));
    let file = fs.open(&segment).expect("it is there");
    let mut bytes = vec![0; 8192];
    file.read_at(&mut bytes, 0).expect("it can be read");
    let at = last_batch(&bytes);
    file.write_at(&[0; 512], at as u64 + 512).expect("torn");
    let (wal, restored) = open_in(Arc::clone(&fs), &path).expect("a torn tail");
    assert_eq!(restored.entries.len(), 32);
    assert_eq!((restored.store, restored.boot.counter), (first.store, 2));
    assert!(!restored.tail_cut);
    assert_eq!(snapshot_bytes(&restored), Some((5, 1, vec![5; 5000])));
    drop(wal);
    bytes.truncate(at);
    let before = last_batch(&bytes) + 90;
    let flipped = [bytes[before] ^ 1];
    file.write_at(&flipped, before as u64).expect("damaged");
    let error = open_in(fs, &path).expect_err("a flipped bit");
    assert!(matches!(error, WalError::Corrupt { .. }), "{error}");
}
