//! ARCHITECTURE.md, rule 12: a cluster that is founded from a backup goes on in another history.

use super::*;
use crate::{
    id::{Lineage, Zxid},
    op::{Filter, OpError},
};

const TTL: Duration = Duration::from_secs(30);

/// Three members with two nodes and a session that owns a third; and its backup.
fn old() -> (Cluster, Vec<Bytes>, SessionId) {
    let mut old = Cluster::elected(3);
    let at = old.elect();
    for path in ["/a", "/b"] {
        old.write(at, create(path)).expect("made");
    }
    let session = old.open_session(at, 7, TTL).session;
    let own = create_as("/e", CreateMode::Ephemeral);
    old.submit_seq(at, session, 1, own).expect("taken");
    old.settle();
    assert!(old.exists(at, "/e"));
    let backup: Vec<Bytes> = old.nodes[&at].image().chunks().collect();
    assert_eq!(crc32c::crc32c(&backup.concat()), old.nodes[&at].image().checksum());
    (old, backup, session)
}

fn resume(lineage: Option<Lineage>, from: Zxid) -> Watch {
    let filter = Filter::Subtree("/".parse().expect("valid"));
    Watch { from: Some(from), lineage, ..Watch::of(filter, 100) }
}

fn state(cluster: &mut Cluster) -> (NodeId, Lineage, Zxid) {
    let at = cluster.elect();
    let status = cluster.nodes[&at].status();
    (at, status.lineage, status.zxid)
}

#[test]
fn rule_12_what_a_restored_cluster_gives_was_never_given_before() {
    let (mut old, backup, session) = old();
    let (at, lineage, saved) = state(&mut old);
    // What comes after the backup is lost: others will be told of other things.
    let lost = old.write(at, create("/lost")).map(|_| old.nodes[&at].status().zxid);
    let (lost, other) = (lost.expect("made"), old.open_session(at, 8, TTL));
    assert_eq!(other.lineage, lineage);
    let mut new = Cluster::restored("restored", 11, &backup);
    let (at, now, zxid) = state(&mut new);
    assert_eq!(zxid.as_u64(), saved.as_u64() + (1 << 40) + 1, "a session and its node have ended");
    assert!(zxid > lost && now != lineage && now != Lineage::NONE);
    let there = ["/a", "/b", "/e", "/lost"].map(|path| new.exists(at, path));
    assert_eq!(there, [true, true, false, false]);
    assert_eq!(new.nodes[&at].status().sessions, 0);
    for (session, secret) in [(session, 7), (other.session, 8)] {
        let ticket = new.submit(at, attach(session, Secret::from_bytes([secret; 16]), 9));
        new.settle();
        let ended = RequestError::Op(OpError::SessionEnded { session });
        let answer = new.answer(at, ticket).expect("answered");
        assert_eq!(*answer, Output::Session { ticket, result: Err(ended) });
    }
    let next = new.open_session(at, 7, TTL).session.as_u64();
    assert!(next > other.session.as_u64() && next >= 1 << 40, "no id is given twice");
    let Ok(Outcome::Created { stat, .. }) = new.write(at, create("/token")) else {
        panic!("made");
    };
    assert!(stat.czxid > lost, "tokens grow");
    new.join(4);
    let leader = new.elect();
    new.submit(leader, Request::AddLearner(id(4)));
    new.run(40);
    assert_eq!(new.nodes[&id(4)].status().lineage, now);
    new.assert_agreement();
}

#[test]
fn rule_12_a_watch_resumes_only_in_its_own_history() {
    let (mut old, backup, _) = old();
    let mut one = Cluster::restored("one", 11, &backup);
    let mut two = Cluster::restored("two", 21, &backup);
    let (_, before, saved) = state(&mut old);
    let (at, lineage, _) = state(&mut one);
    assert_eq!(one.nodes[&at].view().lineage(), lineage);
    let (there, other, _) = state(&mut two);
    assert!(lineage != other, "of one backup, and yet not the same");
    for (cluster, at, count) in [(&mut one, at, 3), (&mut two, there, 9)] {
        for n in 0..count {
            cluster.write(at, create(&format!("/n{n}"))).expect("made");
        }
    }
    let (_, _, seen) = state(&mut one);
    // The zxid alone is one that the other cluster has, too.
    assert!(two.node(there).watch(resume(None, seen)).is_ok());
    let resume_at = state(&mut two).2;
    for (lineage, from) in [(lineage, seen), (before, seen), (before, saved), (lineage, saved)] {
        let refused = two.node(there).watch(resume(Some(lineage), from)).map(drop);
        assert!(
            matches!(refused, Err(SubmitError::Compacted { from: it, .. }) if it == from),
            "{refused:?}"
        );
    }
    // Nor does a zxid that has not come yet make it wait for one.
    let ahead = two.node(there).watch(resume(Some(lineage), Zxid::new(1 << 50))).map(drop);
    let from = Zxid::new(1 << 50);
    assert_eq!(ahead, Err(SubmitError::Compacted { from, resume_at }));
    assert!(two.node(there).watch(resume(Some(other), seen)).is_ok());
    let beginning = one.node(at).watch(resume(Some(lineage), Zxid::ZERO)).map(drop);
    assert!(matches!(beginning, Err(SubmitError::Compacted { .. })), "its history begins later");
}

#[test]
fn a_restored_store_opens_with_its_backup_and_without_one() {
    let (_, backup, _) = old();
    let mut new = Cluster::restored("restored", 11, &backup);
    let at = new.elect();
    new.write(at, create("/after")).expect("made");
    new.restart(id(1));
    new.backup = None;
    new.restart(id(2));
    new.restart(id(3));
    let at = new.elect();
    assert!(new.exists(at, "/after") && new.exists(at, "/a"));
    new.assert_agreement();
    // Another one is not what the store holds, and neither is one where there was none.
    let other: Vec<Bytes> = new.nodes[&at].image().chunks().collect();
    let mut empty = Cluster::elected(3);
    let crc = |chunks: &[Bytes]| crc32c::crc32c(&chunks.concat());
    for (cluster, stored) in [(&mut new, Some(crc(&backup))), (&mut empty, None)] {
        cluster.backup = Some(other.clone());
        let restored = cluster.disks.get_mut(&id(1)).expect("a disk").open();
        let refused = Node::open(cluster.config(id(1)), restored).map(drop);
        let error = LocalRecordError::OtherBackup { stored, configured: crc(&other) };
        assert_eq!(refused, Err(OpenError::Local(error)));
    }
}

#[test]
fn a_backup_that_cannot_be_used_founds_nothing() {
    let (_, backup, _) = old();
    let open = |backup: Vec<Bytes>, limits: Limits| {
        let mut cluster = Cluster::with_limits(0, limits);
        (cluster.founders, cluster.backup) = (vec![id(1)], Some(backup));
        Node::open(cluster.config(id(1)), Disk::new(9).open()).map(drop)
    };
    assert_eq!(open(backup.clone(), Limits::default()), Ok(()));
    let whole = backup.concat();
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    for bytes in [damaged, whole[..whole.len() - 1].to_vec(), Vec::new()] {
        let refused = open(vec![bytes.into()], Limits::default());
        assert!(matches!(refused, Err(OpenError::Backup { .. })), "{refused:?}");
    }
    let limits = Limits { nodes_max: 7, ..Limits::default() };
    assert!(matches!(open(backup, limits), Err(OpenError::OtherParameters(_))));
}

#[test]
fn founders_with_different_backups_do_not_found_a_cluster() {
    let (_, backup, _) = old();
    let mut new = Cluster::new(0);
    new.founders = vec![id(1), id(2)];
    for (member, backup) in [(id(1), Some(backup)), (id(2), None)] {
        new.backup = backup;
        new.disks.insert(member, Disk::new(member.as_u64() as u8));
        new.start(member);
    }
    new.run(100);
    assert_eq!(new.leader(), None);
    let waiting = new.nodes[&id(1)].status().waiting;
    assert_eq!(waiting, Some(Waiting::OtherBootstrap(id(2))));
}
