//! ARCHITECTURE.md, rule 2: the digest covers the whole state, and follows each change of it.

use std::time::Duration;

use super::*;
use crate::{
    namespace::digest::Digest,
    op::{Acl, Quota},
};

/// Whatever differs is in the digest: tree, sessions, kept replies, clock and history.
#[test]
fn rule_2_the_digest_covers_everything() {
    let mut it = Fixture::new();
    let id = it.open(1, 0);
    it.txn(id, 1, 0, create("/a", "1", CreateMode::Container));
    let mut seen = vec![it.ns.state.digest()];
    let mut changed = |it: &Fixture, what: &str| {
        let digest = it.ns.state.digest();
        assert!(!seen.contains(&digest), "{what} changes nothing");
        assert_eq!(restored(&it.ns, 100).state.digest(), digest, "{what}");
        seen.push(digest);
    };
    it.ns.begin_entry(1, 0);
    changed(&it, "the clock");
    it.ns.begin_entry(0, 1);
    changed(&it, "the wall clock");
    it.plain(set("/a", "2", None));
    changed(&it, "data");
    it.plain(set("/a", "2", None));
    changed(&it, "the same data again");
    it.plain(Op::SetAcl { path: path("/a"), acl: Acl::open(), version: None });
    changed(&it, "a list that grants the same");
    let quota = |nodes_soft| Some(Quota { nodes_soft, ..Quota::default() });
    it.plain(Op::SetQuota { path: path("/a"), quota: quota(None) });
    changed(&it, "a quota");
    it.plain(Op::SetQuota { path: path("/a"), quota: quota(Some(0)) });
    changed(&it, "another quota");
    it.plain(create("/a/s-", "", CreateMode::PersistentSequential));
    changed(&it, "a child");
    it.txn(id, 2, 0, Op::Exists { path: path("/b") });
    changed(&it, "a reply that is kept");
    it.txn(id, 3, 1, Op::Exists { path: path("/b") });
    changed(&it, "a reply that was let go");
    let keep_alive = KeepAlive { session: id, lease: None, epoch: 1, number: 1, acked: 0 };
    it.ns.begin_entry(100, 0);
    it.ns.apply(Command::KeepAlives(vec![keep_alive]));
    changed(&it, "a keep-alive");
    let grant = Op::Grant { ttl: Duration::ZERO };
    let Ok(Outcome::Granted { lease, .. }) = it.txn(id, 4, 3, grant).result else {
        panic!("granted");
    };
    changed(&it, "a lease");
    it.ns.begin_entry(100, 0);
    it.ns.apply(Command::KeepAlives(vec![KeepAlive { lease: Some(lease), ..keep_alive }]));
    changed(&it, "a lease's keep-alive");
    it.txn(id, 5, 4, create("/b", "", CreateMode::Leased(lease)));
    changed(&it, "a lease's node");
    it.txn(id, 6, 5, Op::Revoke { lease });
    changed(&it, "the end of a lease");
    it.open(2, 0);
    changed(&it, "a session");
    it.plain(delete("/a/s-0000000000", None));
    changed(&it, "a deletion");
    it.ns.apply(Command::CloseSession { session: id, epoch: 1, seq: 7 });
    changed(&it, "the end of a session");
    // What changes nothing changes nothing.
    let before = it.ns.state.digest();
    assert!(it.plain(set("/none", "", None)).result.is_err());
    assert!(it.plain(Txn::all([set("/a", "", None), delete("/none", None)])).result.is_err());
    assert_eq!(it.ns.state.digest(), before);
}

/// The same numbers for ever: a release that counts otherwise counts its version, too.
#[test]
fn rule_2_the_digest_is_versioned() {
    let mut it = Fixture::new();
    let empty = it.ns.state.digest();
    let id = it.open(1, 0);
    it.txn(id, 1, 0, create("/a", "some data", CreateMode::Ephemeral));
    it.txn(id, 2, 1, set("/a", "other data", None));
    let expected = [EMPTY, BUSY].map(|value| Digest { version: 1, value });
    assert_eq!([empty, it.ns.state.digest()], expected);
}

/// One change that one replica alone makes: its digest says so, and its snapshot is refused.
#[test]
fn rule_2_a_state_that_went_bad_is_seen() {
    let mut it = Fixture::new();
    it.plain(create("/a", "data", CreateMode::Persistent));
    let znode = it.ns.state.tree.get("/a").unwrap().clone();
    let digest = it.ns.state.digest();
    // A bit flips in memory: nobody has changed anything, and the digest stands.
    it.ns.state.tree.corrupt("/a", Bytes::from_static(b"dat`"));
    assert_eq!(it.ns.state.digest(), digest);
    let mut decoder = Decoder::new(ClusterId::named("test"));
    let error = decoder.feed(snapshot(&it.ns).into()).unwrap_err();
    assert!(error.to_string().contains("digest"), "{error}");
    // The next change of the node counts what is there.
    it.plain(set("/a", "next", None));
    let mut good = Fixture::new();
    good.plain(create("/a", "data", CreateMode::Persistent));
    good.plain(set("/a", "next", None));
    assert_ne!(it.ns.state.digest(), good.ns.state.digest());
    assert_eq!(znode.data(), b"data");
}

/// After any run, what was kept up is what a count of everything gives.
#[test]
fn rule_2_the_digest_is_that_of_the_snapshot_after_random_runs() {
    for seed in 0..20 {
        let mut model = Model::new(tight());
        let mut ns = Namespace::new(tight());
        let mut random = Random::new(seed);
        for step in 0..1_000 {
            model.begin_entry(step % 40, step);
            ns.begin_entry(step % 40, step);
            let command = random.command(&model);
            model.apply(command.clone());
            ns.apply(command);
            if step % 50 == 0 {
                // It compares the digests.
                restored(&ns, 1000);
            }
        }
    }
}

const EMPTY: u64 = 18_219_136_678_981_415_136;
const BUSY: u64 = 10_331_333_735_972_291_764;
