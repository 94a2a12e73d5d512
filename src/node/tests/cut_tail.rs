//! Damaged tails that were cut off the log and may have been acknowledged (ARCHITECTURE.md, S5).

use super::*;

fn cut(cluster: &mut Cluster, member: NodeId) {
    cluster.kill(member);
    let disk = cluster.disks.get_mut(&member).expect("a disk");
    disk.entries.pop();
    let left = disk.entries.last().expect("more than one").index;
    if let Some(hard_state) = &mut disk.hard_state {
        hard_state.commit = hard_state.commit.min(left);
    }
    disk.tail_cut = true;
}

fn waiting(cluster: &Cluster, member: NodeId) -> Option<Waiting> {
    cluster.nodes[&member].status().waiting
}

#[test]
fn s5_a_single_voter_waits_for_its_operator_and_goes_on_when_told() {
    let mut cluster = Cluster::elected(1);
    for n in 0..5 {
        cluster.write(id(1), create(&format!("/n{n}"))).expect("written");
    }
    let term = cluster.nodes[&id(1)].status().term;
    cut(&mut cluster, id(1));
    cluster.start(id(1));
    cluster.run(300);
    assert_eq!(cluster.leader(), None, "it may have acknowledged what is gone");
    assert_eq!(waiting(&cluster, id(1)), Some(Waiting::CutTail));
    cluster.accept_cut_tail = true;
    cluster.restart(id(1));
    cluster.elect();
    assert_eq!(waiting(&cluster, id(1)), None);
    assert!(cluster.exists(id(1), "/n3") && !cluster.exists(id(1), "/n4"));
    cluster.write(id(1), create("/on")).expect("it goes on");
    assert!(cluster.nodes[&id(1)].status().term > term + 1, "whatever it voted is behind it");
    // Once is enough.
    cluster.accept_cut_tail = false;
    cluster.restart(id(1));
    cluster.elect();
    assert!(cluster.exists(id(1), "/on"));
}

#[test]
fn s5_a_majority_of_cut_tails_says_so_and_a_minority_catches_up() {
    let mut cluster = Cluster::elected(3);
    for n in 0..5 {
        cluster.write(id(1), create(&format!("/n{n}"))).expect("written");
    }
    cluster.run(2);
    cut(&mut cluster, id(1));
    cluster.start(id(1));
    assert_eq!(waiting(&cluster, id(1)), Some(Waiting::CatchUp));
    cluster.elect();
    cluster.write(id(2), create("/more")).expect("two are enough");
    cluster.run(300);
    assert_eq!(waiting(&cluster, id(1)), None, "the others have it");
    for n in 5..9 {
        cluster.write(id(1), create(&format!("/n{n}"))).expect("written");
    }
    cluster.run(2);
    for member in 1..=3 {
        cluster.kill(id(member));
    }
    for member in 1..=2 {
        cut(&mut cluster, id(member));
    }
    for member in 1..=3 {
        cluster.start(id(member));
    }
    cluster.run(300);
    assert_eq!(cluster.leader(), None);
    for member in 1..=2 {
        assert_eq!(waiting(&cluster, id(member)), Some(Waiting::CutTail));
    }
    cluster.accept_cut_tail = true;
    cluster.restart(id(1));
    cluster.elect();
    cluster.accept_cut_tail = false;
    cluster.write(id(1), create("/more-2")).expect("two are enough");
    cluster.run(300);
    assert_eq!(waiting(&cluster, id(2)), None, "there is somebody to catch up with");
    cluster.write(id(2), create("/on")).expect("it goes on");
}
