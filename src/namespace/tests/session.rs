//! Sessions: exactly once (rules 7 and 9), keep-alives and the clock (rules 3 and 4).

use super::*;
use crate::op::{DigestId, Identity};

#[test]
fn rule_7_a_number_applies_once_and_in_order() {
    let mut it = Fixture::new();
    let id = it.open(1, SECOND);
    let first = it.txn(id, 1, 0, create("/a", "", CreateMode::Persistent));
    assert_eq!(first.zxid, Zxid::new(2));
    let gap = it.txn(id, 3, 0, set("/a", "x", None));
    let error = OpError::Gap { expected: 2, actual: 3 };
    assert_eq!((gap.zxid, gap.result), (Zxid::new(2), Err(error)));
    let refused = it.txn(id, 2, 0, set("/a", "x", Some(9)));
    assert!(matches!(refused.result, Err(OpError::BadVersion { .. })));
    assert!(it.txn(id, 3, 0, set("/a", "x", None)).result.is_ok());
    // A retry gets the first reply with its zxid, and changes nothing; a refusal counts, too.
    it.ns.drain_changes();
    assert_eq!(it.txn(id, 2, 0, set("/a", "x", None)), refused);
    assert_eq!(it.txn(id, 1, 0, delete("/a", None)), first);
    assert_eq!(it.ns.cached_reply(id, 1), Some(first), "rule 8");
    assert!(it.ns.drain_changes().is_empty());
    assert_eq!(it.ns.zxid(), Zxid::new(3));
    // What the client has acknowledged is gone; the watermark never goes back or ahead.
    let gone = it.txn(id, 1, 2, delete("/a", None)).result;
    assert_eq!(gone, Err(OpError::AlreadyAcknowledged { seq: 1 }));
    assert_eq!(it.ns.cached_reply(id, 1), None);
    let state = it.ns.session(id).unwrap();
    assert_eq!((state.last_seq, state.acked, state.window_count), (3, 2, 1));
    it.txn(id, 4, u64::MAX, set("/a", "y", None));
    let state = it.ns.session(id).unwrap();
    assert_eq!((state.last_seq, state.acked, state.window_count), (4, 3, 1));
    it.txn(id, 5, 0, set("/a", "y", None));
    assert_eq!(it.ns.session(id).unwrap().acked, 3);
}

#[test]
fn rule_7_moved_gap_and_a_full_window_consume_no_number() {
    let mut it = Fixture::with(Parameters { window_count_max: 2, ..parameters() });
    let id = it.open(1, SECOND);
    let op = || create("/n-", "", CreateMode::PersistentSequential);
    it.txn(id, 1, 0, op());
    it.txn(id, 2, 0, op());
    let full = OpError::Limit { limit: LimitName::WindowCount, value: 3, max: 2 };
    assert_eq!(it.txn(id, 3, 0, op()).result, Err(full));
    it.attach(id, 1, 7).unwrap();
    let moved = OpError::Moved { session: id, epoch: 7 };
    assert_eq!(it.txn(id, 3, 2, op()).result, Err(moved));
    assert_eq!(it.ns.session(id).unwrap().acked, 0, "it had no effect at all");
    it.epoch = 7;
    assert!(it.txn(id, 3, 1, op()).result.is_ok());
    assert_eq!(it.ns.session(id).unwrap().last_seq, 3);
}

#[test]
fn the_window_is_bounded_by_bytes() {
    let mut it = Fixture::with(Parameters { window_bytes_max: 5_000, ..parameters() });
    let id = it.open(1, SECOND);
    let mut seq = 0;
    let refused = loop {
        seq += 1;
        let reply = it.txn(id, seq, 0, set("/", "", None));
        if reply.result.is_err() {
            break reply.result;
        }
    };
    let limit =
        OpError::Limit { limit: LimitName::WindowBytes, value: 4 * 192 + 192 + 4096, max: 5_000 };
    assert_eq!((seq, refused), (5, Err(limit)));
    assert!(it.ns.session(id).unwrap().window_bytes <= 5_000);
    assert!(it.txn(id, seq, 1, set("/", "", None)).result.is_ok());
}

#[test]
fn rule_9_a_repeated_open_gives_the_same_session_and_no_zxid() {
    let mut it = Fixture::new();
    let id = it.open(1, 5 * SECOND);
    let zxid = it.ns.zxid();
    assert_eq!(it.open(1, 9 * SECOND), id);
    assert_eq!(it.ns.session(id).unwrap().ttl_us, 5 * SECOND);
    assert_eq!((it.ns.zxid(), zxid), (Zxid::new(1), Zxid::new(1)));
    assert_ne!(it.open(2, SECOND), id);
    // A late duplicate must not look like an attachment.
    it.attach(id, 1, 2).unwrap();
    let late = it.open_result(1, SECOND);
    let moved = OpError::Moved { session: id, epoch: 2 };
    assert_eq!(late, Err(moved));
}

#[test]
fn rule_9_an_open_repeated_elsewhere_is_the_next_attachment_of_the_same_session() {
    let mut it = Fixture::new();
    let id = it.open(1, 5 * SECOND);
    assert!(it.keep_alive(id, 1, 9));
    it.txn(id, 1, 0, create("/a", "", CreateMode::Persistent));
    let elsewhere = [
        Origin { node: NodeId::new(2).unwrap(), ..origin(1) },
        Origin { boot_nonce: 6, ..origin(1) },
    ];
    let open = |it: &mut Fixture, origin| match it.ns.apply(Command::OpenSession {
        origin,
        secret: secret(1),
        ttl_us: SECOND,
        identities: Identities::none(),
    }) {
        Applied::Session { result, moved_from, .. } => (result, moved_from),
        other => panic!("{other:?}"),
    };
    let (state, moved_from) = open(&mut it, elsewhere[0]);
    let state = state.unwrap();
    assert_eq!((state.id, state.epoch, state.last_seq, moved_from), (id, 2, 1, Some(1)));
    assert_eq!(state.keep_alive, 0, "the numbers of the new attachment begin anew");
    assert!(!it.keep_alive(id, 1, 10) && it.keep_alive(id, 2, 1));
    // Sent again by its own node it is the same attachment; every other copy is a late one.
    let (state, moved_from) = open(&mut it, elsewhere[0]);
    assert_eq!((state.unwrap().epoch, moved_from), (2, None));
    for late in [origin(0), elsewhere[1]] {
        assert_eq!(open(&mut it, late).0, Err(OpError::Moved { session: id, epoch: 2 }));
    }
    assert_eq!(it.ns.zxid(), Zxid::new(2), "it takes no zxid");
}

/// Which of two openings is applied first is the network's choice: so none replaces the identities
/// that another was told of.
#[test]
fn rule_9_an_open_repeated_with_other_identities_is_refused() {
    let digest = |user: &&str| Identity::Digest(DigestId::new(user, "hash").unwrap());
    let who = |users: &[&str]| Identities::new(users.iter().map(digest)).unwrap();
    for order in [[&["ann"][..], &[]], [&[], &["ann"]], [&["ann", "bob"], &["bob", "ann"]]] {
        let mut it = Fixture::new();
        let [first, second] = order.map(who);
        let id = it.open_as(1, SECOND, first.clone());
        it.ns.begin_entry(7, 0);
        let before = it.ns.state.digest();
        let open = |it: &mut Fixture, origin, identities| {
            let (secret, ttl_us) = (secret(1), SECOND);
            match it.ns.apply(Command::OpenSession { origin, secret, ttl_us, identities }) {
                Applied::Session { result, moved_from, .. } => (result, moved_from),
                other => panic!("{other:?}"),
            }
        };
        let refused = Err(OpError::OtherIdentities { session: id });
        assert_eq!(open(&mut it, origin(1), second.clone()), (refused, None));
        assert_eq!(it.ns.state.digest(), before, "it does not even renew");
        assert_eq!(it.ns.identities(id, 1), Ok(&first));
        assert_eq!(open(&mut it, origin(2), first).0.map(|it| it.epoch), Ok(1));
        // Elsewhere it is the next attachment, whose identities are its own.
        let elsewhere = Origin { boot_nonce: 6, ..origin(1) };
        assert_eq!(open(&mut it, elsewhere, second.clone()).1, Some(1));
        assert_eq!(it.ns.identities(id, 2), Ok(&second));
    }
}

#[test]
fn rule_9_only_a_greater_epoch_attaches() {
    let mut it = Fixture::new();
    let id = it.open(1, SECOND);
    it.ns.begin_entry(7, 0);
    assert!(it.keep_alive(id, 1, 5));
    let wrong = it.attach(id, 2, 9);
    assert_eq!(wrong, Err(OpError::BadSecret { session: id }));
    let (state, moved_from) = it.attach(id, 1, 4).unwrap();
    assert_eq!((state.epoch, state.keep_alive, moved_from), (4, 0, Some(1)));
    for epoch in 0..5 {
        let error = OpError::Moved { session: id, epoch: 4 };
        assert_eq!(it.attach(id, 1, epoch), Err(error));
    }
    assert_eq!(it.ns.zxid(), Zxid::new(1), "attaching takes no zxid");
    let nobody = SessionId::new(99).unwrap();
    let ended = it.attach(nobody, 1, 4);
    assert_eq!(ended, Err(OpError::SessionEnded { session: nobody }));
}

#[test]
fn rule_3_only_the_newest_keep_alive_of_the_attachment_renews() {
    let mut it = Fixture::new();
    let id = it.open(1, 2 * SECOND);
    let base_us = 2 * SECOND + it.ns.parameters().tick_us;
    assert_eq!(it.deadline(id), base_us);
    it.ns.begin_entry(100, 0);
    assert!(it.keep_alive(id, 1, 4));
    assert_eq!(it.deadline(id), base_us + 100);
    it.ns.begin_entry(100, 0);
    for (epoch, number) in [(1, 4), (1, 3), (2, 9), (0, 9)] {
        assert!(!it.keep_alive(id, epoch, number));
    }
    // Neither does a transaction renew.
    it.txn(id, 1, 0, set("/", "", None));
    assert_eq!(it.deadline(id), base_us + 100);
    it.attach(id, 1, 2).unwrap();
    assert_eq!(it.deadline(id), base_us + 200);
    it.ns.begin_entry(100, 0);
    assert!(it.keep_alive(id, 2, 1), "the new attachment counts from 1");
    assert_eq!(it.deadline(id), base_us + 300);
    assert_eq!(it.ns.zxid(), Zxid::new(2), "keep-alives take no zxid");
}

#[test]
fn keep_alives_carry_the_watermark() {
    let mut it = Fixture::new();
    let id = it.open(1, SECOND);
    it.txn(id, 1, 0, set("/", "", None));
    it.txn(id, 2, 0, set("/", "", None));
    let item = KeepAlive { session: id, lease: None, epoch: 1, number: 1, acked: 1 };
    let stranger = KeepAlive { session: SessionId::new(77).unwrap(), ..item };
    let applied = it.ns.apply(Command::KeepAlives(vec![stranger, item]));
    let expected = Applied::KeepAlives { accepted: vec![item], refused: vec![stranger] };
    assert_eq!(applied, expected);
    assert_eq!(it.ns.session(id).unwrap().acked, 1);
    assert_eq!(it.ns.cached_reply(id, 1), None);
    assert!(it.ns.cached_reply(id, 2).is_some());
}

#[test]
fn rule_4_one_advance_is_clamped_and_the_clock_decides_expiry() {
    let mut it = Fixture::new();
    let max_us = it.ns.parameters().advance_us_max;
    it.ns.begin_entry(u64::MAX, 9);
    assert_eq!(it.ns.clock_us(), max_us);
    let id = it.open(1, 2 * SECOND);
    let deadline_us = it.deadline(id);
    assert_eq!(deadline_us, max_us + 2 * SECOND + it.ns.parameters().tick_us);
    while it.ns.clock_us() + max_us < deadline_us {
        it.ns.begin_entry(max_us, 9);
    }
    it.ns.begin_entry(deadline_us - it.ns.clock_us() - 1, 9);
    assert_eq!(it.ns.due(it.ns.clock_us(), 9), []);
    let expire = || Command::Expire { lease: id.lease() };
    assert_eq!(it.ns.apply(expire()), Applied::NotExpired { lease: id.lease() });
    assert!(it.ns.has_deadlines());
    it.ns.begin_entry(1, 9);
    assert_eq!(it.ns.due(it.ns.clock_us(), 9), [id.lease()]);
    assert_eq!(it.ns.due(it.ns.clock_us(), 0), []);
    let expired = Applied::Expired { session: id, epoch: 1 };
    assert_eq!(it.ns.apply(expire()), expired);
    assert!(!it.ns.has_deadlines());
    assert_eq!(it.ns.apply(expire()), Applied::NotExpired { lease: id.lease() });
    let ended = it.txn(id, 1, 0, set("/", "", None)).result;
    assert_eq!(ended, Err(OpError::SessionEnded { session: id }));
}

#[test]
fn the_ttl_is_clamped_and_sessions_are_limited() {
    let mut it = Fixture::with(Parameters { sessions_max: 2, ..parameters() });
    let (min, max) = (it.ns.parameters().ttl_us_min, it.ns.parameters().ttl_us_max);
    let (short, long) = (it.open(1, 0), it.open(2, u64::MAX));
    assert_eq!(it.ns.session(short).unwrap().ttl_us, min);
    assert_eq!(it.ns.session(long).unwrap().ttl_us, max);
    let full = OpError::Limit { limit: LimitName::Sessions, value: 3, max: 2 };
    assert_eq!(it.open_result(3, SECOND), Err(full));
    assert_eq!(it.ns.zxid(), Zxid::new(2));
}

#[test]
fn the_end_of_a_session_is_one_transaction() {
    let mut it = Fixture::new();
    let (id, other) = (it.open(1, SECOND), it.open(2, SECOND));
    it.plain(create("/d", "", CreateMode::Persistent));
    for (index, name) in ["/d/c", "/d/a", "/b", "/d/gone"].into_iter().enumerate() {
        it.txn(id, index as u64 + 1, 0, create(name, "", CreateMode::Ephemeral));
    }
    it.txn(id, 5, 0, create("/d/stays", "", CreateMode::Persistent));
    // Whoever deletes an ephemeral node: its session no longer has it.
    assert!(it.txn(other, 1, 0, delete("/d/gone", None)).result.is_ok());
    let zxid = it.ns.zxid();
    it.ns.drain_changes();
    let close = Command::CloseSession { session: id, epoch: 1, seq: 6 };
    let expected = Applied::Sequenced {
        session: id,
        epoch: 1,
        seq: 6,
        reply: Reply { zxid: zxid.next(), result: Ok(Outcome::Closed) },
        ended: true,
    };
    assert_eq!(it.ns.apply(close.clone()), expected);
    let changes = it.ns.drain_changes();
    let paths: Vec<_> = changes.iter().map(|it| it.path.as_str()).collect();
    assert_eq!(paths, ["/b", "/d/a", "/d/c"]);
    let deleted = |it: &Change| it.kind == Some(EventKind::Deleted) && it.zxid == zxid.next();
    assert!(changes.iter().all(deleted));
    let stat = it.ns.view().stat(&path("/d")).unwrap().unwrap();
    assert_eq!((stat.children, stat.pzxid), (1, zxid.next()));
    let again = it.ns.apply(close);
    let ended = OpError::SessionEnded { session: id };
    assert!(matches!(again, Applied::Sequenced { reply, ended: false, .. }
        if reply.result == Err(ended)));
    check_indexes(&it.ns);
}

#[test]
fn a_close_keeps_to_the_sequence_but_to_no_window() {
    let mut it = Fixture::with(Parameters { window_count_max: 1, ..parameters() });
    let id = it.open(1, SECOND);
    let close = |seq, epoch| Command::CloseSession { session: id, epoch, seq };
    let reply = it.txn(id, 1, 0, set("/", "", None));
    for (seq, epoch, expected) in [(3, 1, None), (2, 2, None), (1, 1, Some(&reply))] {
        let Applied::Sequenced { reply, ended, .. } = it.ns.apply(close(seq, epoch)) else {
            panic!("a close is sequenced");
        };
        assert!(!ended);
        assert_eq!(Some(&reply).filter(|it| it.result.is_ok()), expected);
    }
    assert!(matches!(it.ns.apply(close(2, 1)), Applied::Sequenced { ended: true, .. }));
}

const SECOND: u64 = 1_000_000;

impl Fixture {
    fn open_result(&mut self, number: u64, ttl_us: u64) -> Result<SessionState, OpError> {
        self.counter += 1;
        let command = Command::OpenSession {
            origin: origin(self.counter),
            secret: secret(number),
            ttl_us,
            identities: Identities::none(),
        };
        match self.ns.apply(command) {
            Applied::Session { zxid, result, moved_from: None, .. } if zxid == self.ns.zxid() => {
                result
            }
            other => panic!("{other:?}"),
        }
    }

    fn attach(
        &mut self,
        session: SessionId,
        number: u64,
        epoch: u64,
    ) -> Result<(SessionState, Option<u64>), OpError> {
        let command = Command::AttachSession {
            origin: origin(0),
            session,
            secret: secret(number),
            epoch,
            identities: Identities::none(),
        };
        match self.ns.apply(command) {
            Applied::Session { result, moved_from, .. } => result.map(|state| (state, moved_from)),
            other => panic!("{other:?}"),
        }
    }

    fn keep_alive(&mut self, session: SessionId, epoch: u64, number: u64) -> bool {
        let item = KeepAlive { session, lease: None, epoch, number, acked: 0 };
        match self.ns.apply(Command::KeepAlives(vec![item])) {
            Applied::KeepAlives { accepted, refused } => {
                assert_eq!(accepted.len() + refused.len(), 1);
                accepted == [item]
            }
            other => panic!("{other:?}"),
        }
    }

    fn deadline(&self, id: SessionId) -> u64 {
        self.ns.session(id).unwrap().deadline_us
    }
}
