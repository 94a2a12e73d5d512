//! One test for each storage rule (S1 to S13).

use std::sync::Arc;

use super::*;
use crate::wal::{Fault, Keep};

#[test]
fn what_is_persisted_comes_back() {
    let fs = MemoryFs::new();
    let (mut wal, restored) = open_small(&fs).expect("a new store");
    assert_eq!(restored.boot.counter, 1);
    let mut write = entries(1..=40, 1);
    write.hard_state = Some(HardState::new(3, 2, 20));
    write.local = Some(Bytes::from_static(b"own"));
    wal.persist(&write).expect("a sound disk");
    drop(wal);
    let (_, again) = open_small(&fs).expect("opened again");
    assert_eq!(again.entries, write.entries);
    assert_eq!(again.hard_state, write.hard_state);
    assert_eq!(again.local, write.local);
    assert_eq!(again.store, restored.store);
    assert_eq!(again.boot.counter, 2);
    assert_ne!(again.boot.nonce, restored.boot.nonce);
    assert!(!again.tail_cut);
}

#[test]
fn s1_the_first_error_poisons_for_good() {
    for fault in [Fault::FailWrite(1), Fault::FailSync(1), Fault::NoSpace(1)] {
        let fs = MemoryFs::new();
        let (mut wal, _) = open_small(&fs).expect("a new store");
        wal.persist(&entries(1..=1, 1)).expect("a sound disk");
        fs.arm(&[fault]);
        let error = wal.persist(&entries(2..=2, 1)).expect_err("armed");
        let full = matches!(error, WalError::NoSpace { .. });
        assert_eq!(full, fault == Fault::NoSpace(1), "{error}");
        fs.arm(&[]);
        let later = wal.persist(&entries(2..=2, 1)).expect_err("poisoned");
        assert!(matches!(later, WalError::Poisoned { .. }));
        assert!(later.to_string().contains("open the store again"));
        assert!(wal.status().poisoned.is_some());
        assert!(wal.chore().is_none());
    }
}

#[test]
fn s2_a_segment_is_durable_before_its_first_record() {
    let fs = MemoryFs::new();
    let (mut wal, _) = open_small(&fs).expect("a new store");
    for index in 1..=200 {
        wal.persist(&entries(index..=index, 1)).expect("a sound disk");
        let fork = fs.fork();
        fork.crash(Keep::Nothing);
        let (_, restored) = open_small(&fork).expect("what is durable is whole");
        assert_eq!(restored.entries.len() as u64, index);
    }
    assert!(wal.status().segments > 5);
}

#[test]
fn s7_missing_files_are_errors() {
    let fs = MemoryFs::new();
    let (mut wal, _) = open_small(&fs).expect("a new store");
    for index in 1..=60 {
        wal.persist(&entries(index..=index, 1)).expect("a sound disk");
    }
    wal.persist(&installed(10, 1, b"ten", false)).expect("sound");
    run_chores(&mut wal);
    wal.persist(&installed(20, 1, b"twenty", false)).expect("a sound disk");
    drop(wal);
    let names = fs.list(dir()).expect("a sound disk");
    let counts = |name: &&String| name.starts_with("wal-") || name.starts_with("snap-");
    let counted: Vec<_> = names.iter().filter(counts).collect();
    assert!(counted.len() > 4);
    for name in counted {
        let fork = fs.fork();
        assert!(fork.take(&dir().join(name)));
        let error = open_small(&fork).expect_err("a file is gone");
        assert!(matches!(error, WalError::Missing { .. }), "{error}");
    }
    let fork = fs.fork();
    assert!(fork.take(&dir().join("MANIFEST")));
    let error = open_small(&fork).expect_err("the manifest is gone");
    assert!(matches!(error, WalError::ManifestMissing { .. }), "{error}");
}

#[test]
fn s7_old_snapshots_go_after_the_new_one_was_read_back() {
    let fs = MemoryFs::new();
    let (mut wal, _) = open_small(&fs).expect("a new store");
    wal.persist(&entries(1..=60, 1)).expect("a sound disk");
    let count = |fs: &MemoryFs| {
        let names = fs.list(dir()).expect("a sound disk");
        names.iter().filter(|name| name.ends_with(".snap")).count()
    };
    for index in 1..=3 {
        wal.persist(&installed(index, 1, &[index as u8; 2000], false)).expect("a sound disk");
    }
    assert_eq!(count(&fs), 3, "nothing goes before a chore");
    run_chores(&mut wal);
    assert_eq!(count(&fs), 2);
    wal.persist(&installed(4, 1, &[4; 2000], false)).expect("a sound disk");
    // The newest rots before it is read back: the others stay, and the log says so.
    let names = fs.list(dir()).expect("a sound disk");
    let newest = names.iter().filter(|name| name.ends_with(".snap")).max();
    let path = dir().join(newest.expect("three are there"));
    let mut bytes = fs.contents(&path).expect("it is there");
    bytes[1000] ^= 1;
    fs.put(&path, &bytes);
    let chore = std::iter::from_fn(|| wal.chore()).map(crate::wal::Chore::run);
    let failed = chore.filter(|done| done.result.is_err()).collect::<Vec<_>>();
    for done in failed {
        wal.chore_done(done).expect_err("the snapshot is rotten");
    }
    assert!(wal.status().poisoned.is_some());
    assert_eq!(count(&fs), 3);
}

#[test]
fn s8_an_install_with_reset_drops_the_log_and_keeps_the_rest() {
    let fs = MemoryFs::new();
    let (mut wal, _) = open_small(&fs).expect("a new store");
    let mut write = entries(1..=9, 1);
    write.hard_state = Some(HardState::new(4, 2, 5));
    write.local = Some(Bytes::from_static(b"own"));
    wal.persist(&write).expect("a sound disk");
    wal.persist(&installed(100, 3, b"state", true)).expect("a sound disk");
    let error = Wal::open(Arc::new(fs.clone()), dir(), cluster(), node(1)).expect_err("open");
    assert!(matches!(error, WalError::Locked { .. }));
    wal.persist(&entries(101..=103, 4)).expect("it goes on at 101");
    drop(wal);
    let (_, restored) = open_small(&fs).expect("opened again");
    assert_eq!(restored.entries.first().map(|entry| entry.index), Some(101));
    assert_eq!(restored.hard_state, write.hard_state);
    assert_eq!(restored.local, write.local);
    assert_eq!(snapshot_bytes(&restored), Some((100, 3, b"state".to_vec())));
}

#[test]
fn s8_a_finished_snapshot_survives_and_can_be_installed() {
    let fs = MemoryFs::new();
    let (mut wal, _) = open_small(&fs).expect("a new store");
    let write = Write { snapshot: staged(7, 2, &[9; 1500]), ..Write::default() };
    wal.persist(&write).expect("a sound disk");
    drop(wal);
    fs.crash(Keep::Nothing);
    let (mut wal, restored) = open_small(&fs).expect("opened again");
    assert_eq!(restored.snapshot, None);
    assert_eq!(wal.status().staged, Some((7, 2)));
    let install = SnapshotWrite::Install { index: 7, term: 2, reset_log: true };
    wal.persist(&Write { snapshot: vec![install], ..Write::default() }).expect("a sound disk");
    drop(wal);
    let (_, restored) = open_small(&fs).expect("opened again");
    assert_eq!(snapshot_bytes(&restored), Some((7, 2, vec![9; 1500])));
}

#[test]
fn s9_a_gap_is_refused() {
    for wrong in [entries(5..=5, 1), entries(2..=2, 1), entries(0..=0, 1)] {
        let fs = MemoryFs::new();
        let (mut wal, _) = open_small(&fs).expect("a new store");
        wal.persist(&entries(1..=3, 1)).expect("a sound disk");
        wal.persist(&installed(2, 1, b"two", false)).expect("sound");
        let error = wal.persist(&wrong).expect_err("a gap, or below the snapshot");
        assert!(matches!(error, WalError::Misuse { .. }), "{error}");
    }
}

#[test]
fn s9_replacing_the_end_is_one_step() {
    let fs = MemoryFs::new();
    let (mut wal, _) = open_small(&fs).expect("a new store");
    wal.persist(&entries(1..=10, 1)).expect("a sound disk");
    wal.persist(&entries(6..=7, 2)).expect("a sound disk");
    wal.persist(&entries(8..=8, 2)).expect("a sound disk");
    drop(wal);
    let (_, restored) = open_small(&fs).expect("opened again");
    let terms: Vec<_> = restored.entries.iter().map(|entry| entry.term).collect();
    assert_eq!(terms, [1, 1, 1, 1, 1, 2, 2, 2]);
}

#[test]
fn s12_a_scrub_finds_rot_in_full_segments() {
    let fs = MemoryFs::new();
    let (mut wal, _) = open_small(&fs).expect("a new store");
    for index in 1..=100 {
        wal.persist(&entries(index..=index, 1)).expect("a sound disk");
    }
    for _ in 0..20 {
        let chore = wal.scrub().expect("segments are full");
        wal.chore_done(chore.run()).expect("nothing is rotten");
    }
    let path = dir().join("wal-0000000000000002.log");
    let mut bytes = fs.contents(&path).expect("it is there");
    bytes[3000] ^= 4;
    fs.put(&path, &bytes);
    let found = (0..20).any(|_| {
        let chore = wal.scrub().map(crate::wal::Chore::run);
        chore.is_some_and(|done| wal.chore_done(done).is_err())
    });
    assert!(found);
    assert!(wal.status().poisoned.is_some());
}

#[test]
fn s12_a_scrub_finds_rot_in_the_snapshots_that_are_kept() {
    for (rotten, byte) in [(0, 700), (1, 700), (1, 9 << 20)] {
        let fs = MemoryFs::new();
        let (mut wal, _) = open_small(&fs).expect("a new store");
        wal.persist(&entries(1..=9, 1)).expect("a sound disk");
        for index in [4, 8] {
            let state = vec![index as u8; 10 << 20];
            wal.persist(&installed(index, 1, &state, false)).expect("a sound disk");
            run_chores(&mut wal);
        }
        let mut rounds = 0;
        for _ in 0..40 {
            match wal.scrub() {
                Some(chore) => wal.chore_done(chore.run()).expect("nothing is rotten"),
                None => rounds += 1,
            }
        }
        assert_eq!(rounds, 0, "a snapshot is always at rest");
        let names = fs.list(dir()).expect("a sound disk");
        let mut snapshots: Vec<_> = names.iter().filter(|it| it.ends_with(".snap")).collect();
        snapshots.sort();
        let path = dir().join(snapshots[rotten]);
        let mut bytes = fs.contents(&path).expect("it is there");
        bytes[byte] ^= 1;
        fs.put(&path, &bytes);
        let found = (0..20).any(|_| {
            let chore = wal.scrub().map(crate::wal::Chore::run);
            chore.is_some_and(|done| wal.chore_done(done).is_err())
        });
        assert!(found, "snapshot {rotten}, byte {byte}");
        let poisoned = wal.status().poisoned.expect("it cannot be relied on");
        assert!(poisoned.contains(snapshots[rotten]), "{poisoned}");
    }
}

#[test]
fn s12_a_snapshot_that_is_dropped_while_it_is_scrubbed_is_no_error() {
    let fs = MemoryFs::new();
    let (mut wal, _) = open_small(&fs).expect("a new store");
    wal.persist(&entries(1..=9, 1)).expect("a sound disk");
    wal.persist(&installed(2, 1, b"two", false)).expect("a sound disk");
    run_chores(&mut wal);
    let chore = wal.scrub().expect("a snapshot is at rest");
    for index in [4, 8] {
        wal.persist(&installed(index, 1, b"later", false)).expect("a sound disk");
        run_chores(&mut wal);
    }
    wal.chore_done(chore.run()).expect("nobody needs it any more");
    assert_eq!(wal.status().poisoned, None);
}

#[test]
fn s13_the_store_knows_whose_it_is() {
    let fs = MemoryFs::new();
    let (wal, _) = open_small(&fs).expect("a new store");
    let open = |cluster, id| {
        Wal::open_with(Arc::new(fs.clone()), dir(), cluster, node(id), options(8192))
            .map(drop)
            .expect_err("not ours")
    };
    let error = open(cluster(), 1);
    assert!(matches!(error, WalError::Locked { .. }), "{error}");
    drop(wal);
    let error = open(cluster(), 2);
    assert!(matches!(error, WalError::OtherNode { .. }), "{error}");
    let error = open(ClusterId::named("another"), 1);
    assert!(matches!(error, WalError::OtherCluster { .. }), "{error}");
    let path = dir().join("MANIFEST");
    let mut bytes = fs.contents(&path).expect("it is there");
    bytes[8] = 9;
    bytes[12..16].fill(0);
    let crc = crc32c::crc32c(&bytes).to_le_bytes();
    bytes[12..16].copy_from_slice(&crc);
    fs.put(&path, &bytes);
    let error = open(cluster(), 1);
    assert!(matches!(error, WalError::Version { found: 9, .. }), "{error}");
}

#[test]
fn compaction_drops_whole_segments_and_uses_them_again() {
    let fs = MemoryFs::new();
    let (mut wal, _) = open_small(&fs).expect("a new store");
    for round in 0..40u64 {
        for index in round * 20 + 1..=round * 20 + 20 {
            wal.persist(&entries(index..=index, 1)).expect("sound");
        }
        let end = round * 20 + 20;
        wal.persist(&hard(1, 1, end)).expect("a sound disk");
        let mut write = installed(end - 5, 1, &[round as u8; 100], false);
        write.compact_to = Some(end - 5);
        wal.persist(&write).expect("a sound disk");
        run_chores(&mut wal);
    }
    assert!(wal.status().segments <= 3, "{:?}", wal.status());
    let files = fs.list(dir()).expect("a sound disk").len();
    assert!(files < 12, "{files} files");
    drop(wal);
    let (_, restored) = open_small(&fs).expect("opened again");
    assert_eq!(restored.entries.last().map(|entry| entry.index), Some(800));
    assert!(restored.entries.first().is_some_and(|entry| entry.index <= 796));
}

#[test]
fn a_write_larger_than_a_segment_gets_its_own() {
    let fs = MemoryFs::new();
    let (mut wal, _) = open_small(&fs).expect("a new store");
    wal.persist(&entries(1..=3, 1)).expect("a sound disk");
    let large = Write { entries: vec![entry(4, 1, &[5; 100_000])], ..Write::default() };
    wal.persist(&large).expect("a sound disk");
    wal.persist(&entries(5..=5, 1)).expect("a sound disk");
    drop(wal);
    let (_, restored) = open_small(&fs).expect("opened again");
    assert_eq!(restored.entries.len(), 5);
    assert_eq!(restored.entries[3], large.entries[0]);
}

#[test]
fn lack_of_space_for_a_spare_shows_before_a_write_fails() {
    let fs = MemoryFs::new();
    let (mut wal, _) = open_small(&fs).expect("a new store");
    wal.persist(&entries(1..=1, 1)).expect("a sound disk");
    fs.arm(&[Fault::NoSpace(1)]);
    let chore = wal.chore().expect("the spare is used");
    wal.chore_done(chore.run()).expect("not the end");
    assert!(wal.status().no_space);
    fs.arm(&[]);
    wal.persist(&entries(2..=2, 1)).expect("there is room left");
    let chore = wal.scrub().expect("it tries again");
    wal.chore_done(chore.run()).expect("there is space");
    assert!(!wal.status().no_space);
}

#[test]
fn s7_the_log_stays_until_the_snapshot_was_read_back() {
    let fs = MemoryFs::new();
    let (mut wal, _) = open_small(&fs).expect("a new store");
    for index in 1..=100 {
        wal.persist(&entries(index..=index, 1)).expect("a sound disk");
    }
    let segments = wal.status().segments;
    let mut write = installed(100, 1, b"hundred", false);
    write.compact_to = Some(100);
    wal.persist(&write).expect("a sound disk");
    assert_eq!(wal.status().segments, segments);
    run_chores(&mut wal);
    assert_eq!(wal.status().segments, 1);
}
