//! Handles of leases beside a session's own.

use super::*;
use crate::client::{Lease, LeaseState, SessionKey};

const TTL: Duration = Duration::from_secs(3);

fn granted(trio: &mut Trio, session: &Session) -> Lease {
    let lease = session.grant_lease(TTL);
    trio.wait(lease).expect("granted")
}

fn is_held(lease: &Lease) -> bool {
    matches!(lease.state(), LeaseState::Held { .. })
}

#[test]
fn a_lease_lives_while_its_handle_does_and_is_revoked_alone() {
    let mut trio = Trio::new();
    let session = trio.session(2);
    let asked = session.client().now();
    let lease = granted(&mut trio, &session);
    // What was granted is safe from when it was asked for, without any keep-alive.
    assert!(is_held(&lease) && lease.until() <= asked + TTL);
    let (here, own) = (path("/leased"), path("/own"));
    let stat = trio.wait(lease.create(&here, "")).expect("made").stat().copied();
    assert_eq!(stat.and_then(|it| it.owner), Some(lease.id()));
    let prefix = Path::sequential_prefix("/seq-").expect("valid");
    trio.wait(lease.create_sequential(prefix, "")).expect("made");
    trio.wait(session.create(&own, "", CreateMode::Ephemeral)).expect("made");
    for _ in 0..12 {
        trio.run(Duration::from_secs(1));
        assert!(is_held(&lease));
    }
    let left = trio.wait(lease.remaining()).expect("it lives");
    assert_eq!((left.nodes, left.ttl, lease.ttl()), (2, TTL, TTL));
    assert!(left.remaining > Duration::from_secs(1) && left.remaining < TTL * 2);
    let owned = trio.wait(lease.owned(None)).expect("it lives");
    assert_eq!(
        owned,
        crate::Owned { paths: vec![here.clone(), path("/seq-0000000001")], resume: None }
    );
    let other = lease.clone();
    let revoked = lease.revoke();
    assert_eq!(other.state(), LeaseState::Lost, "at once");
    trio.wait(revoked).expect("revoked");
    let client = trio.client(2);
    assert_eq!(trio.wait(client.exists(&here, Consistency::Local)), Ok(None));
    assert!(trio.wait(client.exists(&own, Consistency::Local)).expect("read").is_some());
    assert!(session.over().is_none());
}

#[test]
fn a_lease_without_a_handle_ends_by_itself_and_its_session_does_not() {
    let mut trio = Trio::new();
    let session = trio.session(1);
    let lease = granted(&mut trio, &session);
    trio.wait(lease.create(&path("/leased"), "")).expect("made");
    let second = lease.clone();
    drop(lease);
    trio.run(Duration::from_secs(8));
    let exists = |trio: &mut Trio| {
        let client = trio.client(1);
        trio.wait(client.exists(&path("/leased"), Consistency::Local)).expect("read").is_some()
    };
    assert!(exists(&mut trio) && is_held(&second), "a clone is a handle, too");
    drop(second);
    trio.run(Duration::from_secs(8));
    assert!(!exists(&mut trio) && session.over().is_none());
}

/// Whichever is shorter, its own time to live or its session's.
#[test]
fn a_lease_that_is_cut_off_is_suspended_before_it_ends() {
    let long = Duration::from_secs(60);
    for (session_ttl, ttl) in [(long, TTL), (TTL, long)] {
        let mut trio = Trio::new();
        let leader = trio.leader();
        let away = leader % 3 + 1;
        let session = trio.client(away).open_session(session_ttl);
        let session = trio.wait(session).expect("opened");
        let lease = session.grant_lease(ttl);
        let lease = trio.wait(lease).expect("granted");
        trio.wait(lease.create(&path("/leased"), "")).expect("made");
        trio.board.isolate(id(away));
        let there = trio.client(leader);
        trio.until("it is suspended", |_| (!is_held(&lease)).then_some(()));
        assert_eq!(lease.state(), LeaseState::Suspended);
        let seen = trio.wait(there.exists(&path("/leased"), Consistency::Local)).expect("read");
        assert!(seen.is_some(), "the handle knows before the cluster acts");
        trio.run(Duration::from_secs(5));
        assert_eq!(trio.wait(there.exists(&path("/leased"), Consistency::Local)), Ok(None));
        trio.board.heal();
        trio.until("it learns", |_| (lease.state() == LeaseState::Lost).then_some(()));
        assert_eq!(session.over().is_none(), session_ttl == long);
    }
}

#[test]
fn a_lease_goes_where_its_session_goes() {
    let mut trio = Trio::new();
    let here = trio.session(1);
    let lease = granted(&mut trio, &here);
    trio.wait(lease.create(&path("/leased"), "")).expect("made");
    let key = here.leave();
    assert_eq!(lease.state(), LeaseState::Lost, "here it is over");
    let next = SessionKey::new(key.session, key.secret, key.epoch + 1);
    let attach = trio.client(2).attach(next);
    let there = trio.wait(attach).expect("attached");
    let again = trio.wait(there.lease(lease.id())).expect("it lives");
    assert_eq!((again.id(), again.ttl()), (lease.id(), TTL));
    trio.until("it is renewed there", |_| is_held(&again).then_some(()));
    trio.run(Duration::from_secs(10));
    assert!(is_held(&again));
    assert_eq!(trio.wait(again.remaining()).expect("it lives").nodes, 1);
    let both = trio.wait(there.lease(lease.id())).expect("it lives");
    assert!(is_held(&both), "handles share what is known");
    let nobody = crate::LeaseId::new(1 << 50).expect("small");
    let none = trio.wait(there.lease(nobody)).expect_err("never granted");
    assert!(none.to_string().contains("no lease"), "{none}");
    trio.wait(there.close()).expect("closed");
    assert_eq!(again.state(), LeaseState::Lost);
}
