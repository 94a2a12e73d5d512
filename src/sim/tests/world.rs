//! What can be done with the world by hand.

use std::{cell::Cell, rc::Rc, time::Duration};

use super::*;
use crate::{
    client::{Completion, Error},
    node::Consistency,
    op::CreateMode,
    path::Path,
    wal::Keep,
};

const LONG: Duration = Duration::from_secs(30);

fn path(text: &str) -> Path {
    text.parse().expect("valid")
}

fn answer<T>(cluster: &mut Cluster, mut of: Completion<T>) -> Result<T, Error> {
    cluster.run_until(LONG, |_| of.try_take()).expect("it is answered")
}

/// The world of a power cut: all members at once, at any moment, and nothing acknowledged is lost.
#[test]
fn what_was_acknowledged_outlives_a_power_cut_of_all_members() {
    for seed in 0..20 {
        let mut cluster = Cluster::builder().seed(seed).build().expect("possible");
        let mut made = Vec::new();
        for round in 0..4 {
            let leader = cluster.run_until(LONG, |it| it.leader()).expect("one is elected");
            let at = cluster.nodes()[(seed + round) as usize % 3];
            let client = cluster.client(at).expect("it runs");
            let mut writes: Vec<_> = (0..50)
                .map(|n| path(&format!("/{round}-{n}")))
                .map(|path| (client.create(&path, "", CreateMode::Persistent), path))
                .collect();
            let time = Duration::from_micros(200 * (seed + 1));
            cluster.run_for(time).expect("nothing breaks");
            writes.retain_mut(|(write, _)| matches!(write.try_take(), Some(Ok(_))));
            made.extend(writes.into_iter().map(|(_, path)| path));
            for (n, node) in cluster.nodes().into_iter().enumerate() {
                let keep = match (seed + n as u64) % 3 {
                    0 => Keep::Nothing,
                    1 => Keep::Everything,
                    _ => Keep::Random { seed },
                };
                cluster.crash(node, Some(keep), Duration::from_millis(100));
                assert!(!cluster.is_up(node));
            }
            assert_eq!(cluster.leader(), None, "{leader} led");
        }
        let leader = cluster.run_until(LONG, |it| it.leader()).expect("one is elected");
        let client = cluster.client(leader).expect("it runs");
        for path in made {
            let found = answer(&mut cluster, client.exists(&path, Consistency::Linearizable));
            assert!(found.expect("a leader is there").is_some(), "{path} is lost");
        }
    }
}

#[test]
fn a_member_that_is_cut_off_answers_nothing_linearizable_until_it_heals() {
    let mut cluster = Cluster::builder().seed(3).build().expect("possible");
    let leader = cluster.run_until(LONG, |it| it.leader()).expect("one is elected");
    let others: Vec<_> = cluster.nodes().into_iter().filter(|id| *id != leader).collect();
    for other in &others {
        cluster.cut(leader, *other);
    }
    let client = cluster.client(leader).expect("it runs");
    let mut read = client.exists(&Path::root(), Consistency::Linearizable);
    cluster.run_for(Duration::from_secs(3)).expect("nothing breaks");
    assert!(!matches!(read.try_take(), Some(Ok(_))), "nobody confirmed it");
    let next = cluster.leader().expect("the others elect one");
    assert_ne!(next, leader);
    let away = cluster.client(next).expect("it runs");
    let write = away.create(&path("/a"), "", CreateMode::Persistent);
    answer(&mut cluster, write).expect("it has a majority");
    assert!(cluster.agree(&others) || cluster.run_for(LONG).is_ok());
    assert!(!cluster.agree(&cluster.nodes()));
    cluster.heal();
    let nodes = cluster.nodes();
    cluster.run_until(LONG, |it| it.agree(&nodes).then_some(())).expect("it catches up");
    cluster.kill(leader);
    assert_eq!(cluster.is_dead(leader), Some("killed"));
}

/// Counts how often it is asked, and by which clock.
struct Counter(Rc<Cell<u64>>, Rc<Cell<Duration>>);

impl Application for Counter {
    fn poll(&mut self, at: &mut Instance<'_>) {
        self.0.set(self.0.get() + 1);
        assert_eq!(at.client.now(), at.now, "handles have the clock of their member");
        self.1.set(self.1.get().max(at.now));
    }
}

#[test]
fn an_application_is_asked_all_the_time_and_starts_anew_with_its_process() {
    let (polls, latest, starts) =
        (Rc::new(Cell::new(0)), Rc::new(Cell::new(Duration::ZERO)), Rc::new(Cell::new(0)));
    let seen = (Rc::clone(&polls), Rc::clone(&latest), Rc::clone(&starts));
    let mut cluster = Cluster::builder()
        .nodes(1)
        .application(move |_| {
            seen.2.set(seen.2.get() + 1);
            Counter(Rc::clone(&seen.0), Rc::clone(&seen.1))
        })
        .build()
        .expect("possible");
    cluster.run_for(Duration::from_secs(1)).expect("nothing breaks");
    assert!((100..300).contains(&polls.get()), "{}", polls.get());
    assert_eq!(starts.get(), 1);
    let node = cluster.nodes()[0];
    cluster.crash(node, None, Duration::from_millis(500));
    cluster.run_for(Duration::from_secs(1)).expect("nothing breaks");
    assert_eq!((starts.get(), cluster.clock(node).map(|it| it.0)), (2, Some(2)));
    assert!(latest.get() <= Duration::from_secs(1), "the clock starts again, too");
}

#[test]
fn members_come_and_go_under_load_and_the_last_founder_too() {
    for (seed, nodes) in [(0, 1), (1, 3), (2, 5)] {
        let faults = Faults::none().every(FaultKind::Churn, Duration::from_secs(1));
        let mut cluster = Cluster::builder()
            .seed(seed)
            .nodes(nodes)
            .faults(faults)
            .application(|_| Writer(None))
            .build()
            .expect("possible");
        let founders = cluster.nodes();
        let stays = |it: &Cluster| founders.iter().filter(|id| it.members().contains(id)).count();
        let most = founders.len();
        cluster
            .run_until(Duration::from_secs(120), |it| (stays(it) < most).then_some(()))
            .expect("one of them goes");
        let gone = founders.iter().find(|id| !cluster.members().contains(id));
        assert!(cluster.is_leaving(*gone.expect("one is gone")));
        assert!(cluster.changes() >= 1, "{}", cluster.changes());
        cluster.heal();
        cluster
            .run_until(LONG, |it| it.agree(&it.members()).then_some(()))
            .expect("those that are there agree");
    }
}

/// Writes all the time.
struct Writer(Option<Completion<crate::client::Written>>);

impl Application for Writer {
    fn poll(&mut self, at: &mut Instance<'_>) {
        let path = path("/written");
        let create = || at.client.create(&path, "", CreateMode::Persistent);
        if self.0.get_or_insert_with(create).try_take().is_some() {
            self.0 = Some(at.client.set(&path, "again", None));
        }
    }
}

/// The promises rest on disks that keep what they say that they have synced: whoever has one that
/// does not breaks them, or finds its store damaged, or is told by those to whom it has
/// acknowledged what it lost.
#[test]
fn a_disk_that_lies_is_found_out() {
    let mut found_out = 0;
    for seed in 0..10 {
        let faults = Faults::none().every(FaultKind::LyingSync, Duration::from_secs(3));
        let mut cluster = Cluster::builder()
            .seed(seed)
            .faults(faults)
            .application(|_| Writer(None))
            .build()
            .expect("possible");
        let held = cluster.run_for(Duration::from_secs(30));
        let why = cluster.is_dead(cluster.victims()[0]).unwrap_or_default();
        let told = why.contains("older image") || why.contains("is corrupt");
        found_out += u32::from(held.is_err() || told);
    }
    assert!(found_out >= 8, "{found_out}");
}

/// Each of the faults that a seed draws happens alone, and is counted.
#[test]
fn each_kind_happens_when_it_is_asked_for() {
    for kind in FaultKind::ALL {
        // A ring of three is complete, and a rolled-back disk needs an earlier life.
        let nodes = if kind == FaultKind::MajorityRing { 5 } else { 3 };
        let faults = Faults::none().every(kind, Duration::from_secs(3));
        let cluster = Cluster::builder().seed(1).nodes(nodes).faults(faults).build();
        let mut cluster = cluster.expect("possible");
        cluster.run_for(Duration::from_secs(40)).unwrap_or_else(|it| panic!("{kind}: {it}"));
        let count = cluster.fault_counts().get(&kind).copied().unwrap_or(0);
        assert!(count > 0, "{kind}");
        assert_eq!(cluster.fault_counts().len(), 1, "nothing else happens");
    }
}
