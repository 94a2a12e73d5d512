//! The power goes at every operation of the disk; what was acknowledged is there afterwards.

use super::{
    dir,
    model::{Model, draw, script},
    open_small, run_chores,
};
use crate::{
    node::Write,
    wal::{Fault, Fs, Keep, MemoryFs, Unsynced},
};

/// Runs the script until a fault ends it; the states that may be found then, or `None` when the
/// script ended before. Chores run after every third write.
fn run_until(fs: &MemoryFs, writes: &[Write], fault: Fault) -> Option<Vec<Model>> {
    fs.arm(&[fault]);
    let mut model = Model::default();
    let Ok((mut wal, restored)) = open_small(fs) else {
        return Some(vec![model]);
    };
    assert!(model.is(&restored), "{restored:?}");
    for (nth, write) in writes.iter().enumerate() {
        if wal.persist(write).is_err() {
            return Some(model.through(write));
        }
        model = model.through(write).pop().expect("there is a last state");
        if nth % 3 == 0 {
            while let Some(chore) = wal.chore() {
                if wal.chore_done(chore.run()).is_err() {
                    return Some(vec![model]);
                }
            }
        }
    }
    None
}

/// Opens what a crash left, which must be one of `states`; returns which.
fn check(fs: &MemoryFs, states: &[Model], what: &str) -> Model {
    let (mut wal, restored) = match open_small(fs) {
        Ok(opened) => opened,
        Err(error) => panic!("{what}: {error}"),
    };
    let Some(found) = states.iter().rev().find(|state| state.is(&restored)) else {
        panic!("{what}: restored {restored:#?}, possible were {states:#?}");
    };
    // It goes on from there.
    let mut model = found.clone();
    let next = super::entries(model.last_index() + 1..=model.last_index() + 2, 99);
    wal.persist(&next).expect("the disk is sound again");
    model.batch(&next);
    run_chores(&mut wal);
    drop(wal);
    fs.crash(Keep::Nothing);
    let (_, restored) = open_small(fs).expect("what was just written");
    assert!(model.is(&restored), "{what}: lost after going on");
    found.clone()
}

fn keeps(cut: u64) -> [Keep; 4] {
    [Keep::Nothing, Keep::Everything, Keep::Random { seed: cut }, Keep::Random { seed: !cut }]
}

#[test]
fn power_cut_at_every_operation_loses_nothing() {
    for seed in 0..2 {
        let writes = script(seed, 200);
        for cut in 1.. {
            let fs = MemoryFs::new();
            let Some(states) = run_until(&fs, &writes, Fault::PowerCut(cut)) else {
                assert!(cut > 1000, "the script ended after {cut} operations");
                break;
            };
            for keep in keeps(cut) {
                let fs = fs.fork();
                fs.crash(keep);
                check(&fs, &states, &format!("seed {seed}, cut {cut}, {keep:?}"));
            }
        }
    }
}

/// An error is no crash: the process goes on, and what it does then must do no harm; the page cache
/// stays, or goes with a later power cut.
#[test]
fn s1_an_error_at_every_operation_loses_nothing() {
    for seed in 0..2 {
        let writes = script(seed, 120);
        let mut survived = 0;
        for nth in 1.. {
            let fs = MemoryFs::new();
            let Some(states) = run_until(&fs, &writes, Fault::Fail(nth)) else {
                if fs.operations() < nth {
                    assert!(nth > 400, "the script ended after {nth} operations");
                    break;
                }
                survived += 1;
                continue;
            };
            check(&fs.fork(), &states, &format!("seed {seed}, error {nth}"));
            for keep in keeps(nth) {
                let fs = fs.fork();
                fs.crash(keep);
                check(&fs, &states, &format!("seed {seed}, error {nth}, {keep:?}"));
            }
        }
        // A file that could not be renamed or removed is in nobody's way.
        assert!(survived < 60, "{survived} errors were not told");
    }
}

/// The disk of these tests does what its documentation says.
#[test]
fn any_prefix_of_what_was_not_synced_is_kept() {
    let fs = MemoryFs::new();
    fs.record();
    let (path, other) = (dir().join("a"), dir().join("b"));
    let file = fs.create(&path).expect("a sound disk");
    fs.sync_dir(dir()).expect("a sound disk");
    file.write_at(&[1; 600], 0).expect("a sound disk");
    file.sync_data().expect("a sound disk");
    file.write_at(&[2; 1024], 512).expect("a sound disk");
    file.write_at(&[3; 512], 0).expect("a sound disk");
    fs.create(&other).expect("a sound disk");
    assert_eq!(fs.recorded().len(), 7, "one after each change");
    assert!(fs.recorded().is_empty());
    let unsynced = fs.unsynced();
    assert_eq!((unsynced.sectors, unsynced.names), (3, 1));
    for (sectors, runs) in [
        (0, &[(1, 600)][..]),
        (1, &[(1, 512), (2, 512)]),
        (2, &[(1, 512), (2, 1024)]),
        (3, &[(3, 512), (2, 1024)]),
    ] {
        for names in 0..=1 {
            let fork = fs.fork();
            fork.crash(Keep::First { sectors, names });
            let bytes = runs.iter().flat_map(|&(byte, count)| vec![byte; count]);
            assert_eq!(fork.contents(&path), Some(bytes.collect()), "{sectors}");
            assert_eq!(fork.contents(&other).is_some(), names == 1);
            assert_eq!(fork.unsynced(), Unsynced::default());
        }
    }
}

#[test]
fn power_cut_during_recovery_loses_nothing() {
    let mut random = 5;
    for round in 0..60 {
        let writes = script(round, 60);
        let cut = 20 + draw(&mut random, 500);
        let fs = MemoryFs::new();
        let Some(states) = run_until(&fs, &writes, Fault::PowerCut(cut)) else {
            continue;
        };
        let seed = draw(&mut random, u64::MAX);
        fs.crash(Keep::Random { seed });
        for again in 1.. {
            let fs = fs.fork();
            fs.arm(&[Fault::PowerCut(again)]);
            let ended = open_small(&fs).is_ok();
            fs.crash(Keep::Random { seed: again });
            check(&fs, &states, &format!("round {round}, again {again}"));
            if ended {
                break;
            }
        }
    }
}

#[test]
fn s1_after_a_failed_sync_only_what_is_durable_counts() {
    for seed in 0..4 {
        let writes = script(seed, 60);
        for nth in 1.. {
            let fs = MemoryFs::new();
            let mut model = Model::default();
            let (mut wal, _) = open_small(&fs).expect("a new store");
            fs.arm(&[Fault::FailSync(nth)]);
            let failed = writes.iter().find_map(|write| {
                let states = model.through(write);
                if wal.persist(write).is_err() {
                    return Some(states);
                }
                model = states.last()?.clone();
                None
            });
            let Some(states) = failed else {
                assert!(nth > 50);
                break;
            };
            assert!(wal.persist(&writes[0]).is_err(), "poisoned for good");
            drop(wal);
            // The pages are still read; what the reopened log tells must survive the next cut.
            fs.arm(&[]);
            let (wal, restored) = open_small(&fs).expect("after a failed sync");
            let told = states.iter().rev().find(|state| state.is(&restored));
            let told = told.unwrap_or_else(|| panic!("sync {nth}: {restored:#?}"));
            drop(wal);
            fs.crash(Keep::Nothing);
            check(&fs, std::slice::from_ref(told), &format!("seed {seed}, sync {nth}"));
        }
    }
}

#[test]
fn a_disk_that_lies_about_syncs_is_noticed_by_the_test() {
    // Without the fsync, or with a lying one, acknowledged writes are lost: the tests above must
    // be able to see that.
    let writes = script(1, 60);
    let mut lost = 0;
    for nth in 5..30 {
        let fs = MemoryFs::new();
        let (mut wal, _) = open_small(&fs).expect("a new store");
        fs.arm(&[Fault::LieSync(nth)]);
        let mut model = Model::default();
        for write in &writes {
            wal.persist(write).expect("a lie is not noticed");
            model = model.through(write).pop().expect("there is a last state");
        }
        drop(wal);
        fs.crash(Keep::Nothing);
        let intact = open_small(&fs).is_ok_and(|(_, restored)| model.is(&restored));
        lost += u32::from(!intact);
    }
    assert_eq!(lost, 25);
}
