//! Leases beside a session's own: granted and revoked in its sequence, kept alive each by itself.

use std::time::Duration;

use super::*;
use crate::op::{Check, Guard};

#[test]
fn a_lease_is_granted_in_sequence_within_the_bounds() {
    let mut it = Fixture::new();
    let id = it.open(1, 10 * SECOND);
    let reply = it.txn(id, 1, 0, grant(0));
    let (lease, ttl) = granted(&reply);
    assert_eq!((reply.zxid.as_u64(), ttl), (2, Duration::from_secs(2)), "the reply says it");
    assert!(lease > id.lease());
    // Exactly once: a repeat gets the same lease, and there is only one.
    assert_eq!(it.txn(id, 1, 0, grant(0)), reply);
    assert_eq!(it.ns.state.sessions.leases(), 1);
    let (longest, ttl) = granted(&it.txn(id, 2, 0, grant(u64::MAX)));
    assert_eq!(ttl, Duration::from_secs(3600));
    let next = it.open(2, SECOND);
    assert!(lease < longest && longest < next.lease(), "ids are of one sequence");
    let stat = it.ns.view().lease(lease).unwrap();
    assert_eq!((stat.session, stat.ttl, stat.nodes), (id, Duration::from_secs(2), 0));
    let tick = Duration::from_micros(it.ns.parameters().tick_us);
    assert_eq!(stat.remaining, Duration::from_secs(2) + tick);
    it.ns.begin_entry(300, 0);
    let left = it.ns.view().lease(lease).unwrap().remaining;
    assert_eq!(left, Duration::from_secs(2) + tick - Duration::from_micros(300));
    let refused = it.plain(grant(0)).result;
    assert_eq!(refused, Err(OpError::LeaseWithoutSession));
    assert_eq!(it.plain(Op::Revoke { lease }).result, Err(OpError::LeaseWithoutSession));
    check_indexes(&it.ns);
}

#[test]
fn a_revoked_lease_takes_its_nodes_with_it_in_one_transaction() {
    let mut it = Fixture::new();
    let (id, other) = (it.open(1, SECOND), it.open(2, SECOND));
    let (lease, _) = granted(&it.txn(id, 1, 0, grant(0)));
    for (seq, at) in (2..).zip(["/b", "/a", "/gone"]) {
        it.txn(id, seq, 0, create(at, "", CreateMode::Leased(lease))).result.unwrap();
    }
    it.txn(id, 5, 0, create("/s-", "", CreateMode::SequentialLeased(lease))).result.unwrap();
    it.txn(id, 6, 0, create("/own", "", CreateMode::Ephemeral)).result.unwrap();
    let stat = it.ns.view().stat(&path("/a")).unwrap();
    assert_eq!((stat.unwrap().owner, it.ns.view().lease(lease).unwrap().nodes), (Some(lease), 4));
    // A guard on the owner works for it; others neither use it nor end it.
    let guard = |owner| Guard { path: path("/a"), check: Check::Owner(owner) };
    it.plain(Txn::new(set("/", "", None)).guard(guard(lease))).result.unwrap();
    let not = it.plain(Txn::new(set("/", "", None)).guard(guard(id.lease())));
    assert!(matches!(not.result, Err(OpError::GuardFailed { .. })));
    let none = Err(OpError::NoLease { lease });
    let foreign = it.txn(other, 1, 0, create("/x", "", CreateMode::Leased(lease)));
    assert_eq!(foreign.result, none);
    assert_eq!(it.txn(other, 2, 0, Op::Revoke { lease }).result, none);
    it.plain(delete("/gone", None)).result.unwrap();
    it.ns.drain_changes();
    // It goes with the rest of its transaction, or not at all.
    let both = Txn::all([Op::Revoke { lease }, delete("/none", None)]);
    assert!(it.txn(id, 7, 0, both).result.is_err());
    assert!(it.ns.drain_changes().is_empty() && it.ns.view().lease(lease).is_some());
    check_indexes(&it.ns);
    let zxid = it.ns.zxid();
    let reply = it.txn(id, 8, 0, Op::Revoke { lease });
    assert_eq!(reply.result, Ok(Outcome::Revoked { lease, nodes: 3 }));
    let changes = it.ns.drain_changes();
    let paths: Vec<_> = changes.iter().map(|it| it.path.as_str()).collect();
    assert_eq!(paths, ["/a", "/b", "/s-0000000003"]);
    let at = zxid.next();
    assert!(changes.iter().all(|it| it.kind == Some(EventKind::Deleted) && it.zxid == at));
    assert_eq!((reply.zxid, it.ns.zxid()), (at, at));
    assert!(it.ns.view().stat(&path("/own")).unwrap().is_some(), "the session lives on");
    assert_eq!(it.txn(id, 9, 0, Op::Revoke { lease }).result, none);
    let own = id.lease();
    let refused = it.txn(id, 10, 0, Op::Revoke { lease: own }).result;
    assert_eq!(refused, Err(OpError::NoLease { lease: own }), "a session is closed");
    assert!(!it.beat(id, Some(lease), 1, 99));
    check_indexes(&it.ns);
}

#[test]
fn rule_3_a_lease_is_renewed_by_its_own_newest_keep_alive_alone() {
    let mut it = Fixture::new();
    let (id, other) = (it.open(1, 2 * SECOND), it.open(2, 2 * SECOND));
    let (lease, _) = granted(&it.txn(id, 1, 0, grant(2 * SECOND)));
    let base_us = 2 * SECOND + it.ns.parameters().tick_us;
    it.ns.begin_entry(100, 0);
    assert!(it.beat(id, None, 1, 1));
    assert_eq!(it.lease_deadline(lease), base_us, "the session's keep-alive is its own");
    assert!(it.beat(id, Some(lease), 1, 4));
    assert_eq!(it.lease_deadline(lease), base_us + 100);
    it.ns.begin_entry(100, 0);
    for (session, epoch, number) in [(id, 1, 4), (id, 1, 3), (id, 2, 9), (id, 0, 9), (other, 1, 9)]
    {
        assert!(!it.beat(session, Some(lease), epoch, number));
    }
    // A move of the session renews no lease; its attachment counts from 1.
    it.move_to(id, 1, 2);
    assert_eq!(it.lease_deadline(lease), base_us + 100);
    assert!(!it.beat(id, Some(lease), 1, 5), "the older attachment is over");
    assert!(it.beat(id, Some(lease), 2, 1));
    assert_eq!(it.lease_deadline(lease), base_us + 200);
    assert_eq!(it.ns.session(id).unwrap().deadline_us, base_us + 200);
    assert_eq!(it.ns.zxid().as_u64(), 3, "keep-alives take no zxid");
    check_indexes(&it.ns);
    let again = restored(&it.ns, 10);
    assert_eq!(again.view().lease(lease), it.ns.view().lease(lease));
}

#[test]
fn rule_4_a_lease_expires_on_the_clock_and_its_session_does_not() {
    let mut it = Fixture::new();
    let id = it.open(1, 100 * SECOND);
    let (first, _) = granted(&it.txn(id, 1, 0, grant(2 * SECOND)));
    it.ns.begin_entry(1, 0);
    let (second, _) = granted(&it.txn(id, 2, 0, grant(2 * SECOND)));
    it.txn(id, 3, 0, create("/a", "", CreateMode::Leased(first))).result.unwrap();
    it.txn(id, 4, 0, create("/b", "", CreateMode::Leased(first))).result.unwrap();
    it.txn(id, 5, 0, create("/c", "", CreateMode::Leased(second))).result.unwrap();
    let deadline_us = it.lease_deadline(first);
    it.pass(deadline_us - 1);
    let expire = |lease| Command::Expire { lease };
    assert_eq!(it.ns.due(it.ns.clock_us(), 9), []);
    assert_eq!(it.ns.apply(expire(first)), Applied::NotExpired { lease: first });
    it.pass(deadline_us);
    assert_eq!(it.ns.due(it.ns.clock_us(), 9), [first]);
    it.pass(deadline_us + 1);
    assert_eq!(it.ns.due(it.ns.clock_us(), 9), [first, second], "in the order of deadlines");
    it.ns.drain_changes();
    let zxid = it.ns.zxid();
    let applied = it.ns.apply(expire(first));
    assert_eq!(applied, Applied::LeaseExpired { lease: first, session: id });
    let changes = it.ns.drain_changes();
    assert_eq!(changes.len(), 2);
    assert!(changes.iter().all(|it| it.zxid == zxid.next()));
    assert_eq!(it.ns.zxid(), zxid.next());
    assert!(it.beat(id, Some(second), 1, 1));
    assert_eq!(it.ns.apply(expire(second)), Applied::NotExpired { lease: second });
    assert!(it.ns.session(id).is_some());
    check_indexes(&it.ns);
}

#[test]
fn the_end_of_a_session_ends_its_leases_in_the_same_transaction() {
    let mut it = Fixture::new();
    let id = it.open(1, 0);
    let (lease, _) = granted(&it.txn(id, 1, 0, grant(100 * SECOND)));
    granted(&it.txn(id, 2, 0, grant(100 * SECOND)));
    it.txn(id, 3, 0, create("/b", "", CreateMode::Leased(lease))).result.unwrap();
    it.txn(id, 4, 0, create("/a", "", CreateMode::Ephemeral)).result.unwrap();
    it.txn(id, 5, 0, create("/c", "", CreateMode::Ephemeral)).result.unwrap();
    it.ns.drain_changes();
    let at = it.ns.zxid().next();
    it.pass(it.ns.session(id).unwrap().deadline_us);
    let applied = it.ns.apply(Command::Expire { lease: id.lease() });
    assert_eq!(applied, Applied::Expired { session: id, epoch: 1 });
    let changes = it.ns.drain_changes();
    let seen: Vec<_> = changes.iter().map(|it| (it.path.as_str(), it.zxid)).collect();
    assert_eq!(seen, [("/a", at), ("/b", at), ("/c", at)]);
    assert_eq!((it.ns.state.sessions.leases(), it.ns.has_deadlines()), (0, false));
    assert_eq!(it.ns.view().lease(lease), None);
    check_indexes(&it.ns);
    let empty = restored(&it.ns, 10);
    assert!(!empty.has_deadlines());
}

#[test]
fn leases_are_bounded_for_a_session_and_in_all() {
    let few = Parameters { session_leases_max: 2, leases_max: 3, ..parameters() };
    let mut it = Fixture::with(few);
    let (id, other) = (it.open(1, 0), it.open(2, 0));
    let (first, _) = granted(&it.txn(id, 1, 0, grant(0)));
    granted(&it.txn(id, 2, 0, grant(0)));
    let full = |limit, max| Err(OpError::Limit { limit, value: max + 1, max });
    let zxid = it.ns.zxid();
    assert_eq!(it.txn(id, 3, 0, grant(0)).result, full(LimitName::SessionLeases, 2));
    granted(&it.txn(other, 1, 0, grant(0)));
    assert_eq!(it.txn(other, 2, 0, grant(0)).result, full(LimitName::Leases, 3));
    assert_eq!(it.ns.zxid(), zxid.next());
    it.txn(id, 4, 0, Op::Revoke { lease: first }).result.unwrap();
    granted(&it.txn(other, 3, 0, grant(0)));
}

/// The end of a session with all its leases is a step of bounded length.
#[test]
fn ephemeral_nodes_are_bounded_over_a_session_and_its_leases() {
    let mut it = Fixture::with(Parameters { ephemerals_max: 3, ..parameters() });
    let (id, other) = (it.open(1, 0), it.open(2, 0));
    let (lease, _) = granted(&it.txn(id, 1, 0, grant(0)));
    it.txn(id, 2, 0, create("/a", "", CreateMode::Ephemeral)).result.unwrap();
    it.txn(id, 3, 0, create("/b", "", CreateMode::Leased(lease))).result.unwrap();
    it.txn(id, 4, 0, create("/c", "", CreateMode::Leased(lease))).result.unwrap();
    let (limit, max) = (LimitName::Ephemerals, 3);
    let full = OpError::Limit { limit, value: 4, max };
    for (seq, mode) in [(5, CreateMode::Ephemeral), (6, CreateMode::Leased(lease))] {
        assert_eq!(it.txn(id, seq, 0, create("/d", "", mode)).result, Err(full.clone()));
    }
    it.txn(id, 7, 0, create("/d", "", CreateMode::Persistent)).result.unwrap();
    it.txn(other, 1, 0, create("/e", "", CreateMode::Ephemeral)).result.unwrap();
    it.plain(delete("/b", None)).result.unwrap();
    it.txn(id, 8, 0, create("/f", "", CreateMode::Ephemeral)).result.unwrap();
    it.txn(id, 9, 0, Op::Revoke { lease }).result.unwrap();
    it.txn(id, 10, 0, create("/g", "", CreateMode::Ephemeral)).result.unwrap();
    assert_eq!(it.txn(id, 11, 0, create("/h", "", CreateMode::Ephemeral)).result, Err(full));
    check_indexes(&it.ns);
}

#[test]
fn the_tree_is_bounded() {
    let mut it = Fixture::with(Parameters { nodes_max: 3, ..parameters() });
    it.plain(create("/a", "", CreateMode::Persistent)).result.unwrap();
    it.plain(create("/a/b", "", CreateMode::Persistent)).result.unwrap();
    let full = OpError::Limit { limit: LimitName::Nodes, value: 4, max: 3 };
    let refused = it.plain(create("/c", "", CreateMode::Persistent));
    assert_eq!(refused.result, Err(full.clone()));
    let in_txn = |index| Err(OpError::InTxn { index, cause: Box::new(full.clone()) });
    let two = [delete("/a/b", None), create("/c", "", CreateMode::Container)];
    let three = Txn::all([two[0].clone(), two[1].clone(), create("/d", "", CreateMode::Container)]);
    assert_eq!(it.plain(three).result, in_txn(2));
    it.plain(Txn::all(two)).result.unwrap();
    restored(&it.ns, 100);
}

/// However many are due at once, one step ends no more nodes than one session may own.
#[test]
fn what_is_due_is_bounded_by_the_nodes_that_go() {
    let mut it = Fixture::with(Parameters { ephemerals_max: 4, ..parameters() });
    let mut ids = Vec::new();
    for (number, nodes) in [(1, 3), (2, 1), (3, 4), (4, 0), (5, 0)] {
        it.ns.begin_entry(1, 0);
        let id = it.open(number, 0);
        for node in 1..=nodes {
            let at = format!("/n-{number}-{node}");
            it.txn(id, node, 0, create(&at, "", CreateMode::Ephemeral)).result.unwrap();
        }
        ids.push(id.lease());
    }
    let last = it.ns.session(ids[4].session()).unwrap().deadline_us;
    it.pass(last);
    let due = |it: &Fixture, max| it.ns.due(it.ns.clock_us(), max);
    assert_eq!(due(&it, 9), ids[..2]);
    assert_eq!(due(&it, 1), ids[..1]);
    for lease in &ids[..2] {
        assert!(matches!(it.ns.apply(Command::Expire { lease: *lease }), Applied::Expired { .. }));
    }
    assert_eq!(due(&it, 9), ids[2..], "one that owns as many as it may goes");
}

const SECOND: u64 = 1_000_000;

fn grant(ttl_us: u64) -> Op {
    Op::Grant { ttl: Duration::from_micros(ttl_us) }
}

fn granted(reply: &Reply) -> (LeaseId, Duration) {
    match reply.result {
        Ok(Outcome::Granted { lease, ttl }) => (lease, ttl),
        _ => panic!("{reply:?}"),
    }
}

impl Fixture {
    fn beat(
        &mut self,
        session: SessionId,
        lease: Option<LeaseId>,
        epoch: u64,
        number: u64,
    ) -> bool {
        let item = KeepAlive { session, lease, epoch, number, acked: 0 };
        match self.ns.apply(Command::KeepAlives(vec![item])) {
            Applied::KeepAlives { accepted, .. } => accepted == [item],
            other => panic!("{other:?}"),
        }
    }

    fn move_to(&mut self, session: SessionId, number: u64, epoch: u64) {
        let identities = Identities::none();
        let (origin, secret) = (origin(0), secret(number));
        self.ns.apply(Command::AttachSession { origin, session, secret, epoch, identities });
    }

    fn lease_deadline(&self, lease: LeaseId) -> u64 {
        self.ns.state.sessions.lease(lease).unwrap().deadline_us
    }

    /// Until the clock shows this.
    fn pass(&mut self, until_us: u64) {
        while self.ns.clock_us() < until_us {
            self.ns.begin_entry(until_us - self.ns.clock_us(), 0);
        }
    }
}
