//! Hosts of one process: with threads around them, and driven by hand.

mod failures;
mod handles;
mod leases;
mod rights;
mod threads;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use super::*;
use crate::{
    Boot, Check, ClusterId, Config, CreateMode, Filter, Guard, LimitName, List, NodeId, Now, Op,
    OpError, Path, StoreId, Txn, Zxid,
    client::{Client, Clock, Error, Session},
    node::{Consistency, Detach, Restored, Role, SubmitError},
    recipes::{Layout, State},
};

fn id(id: u64) -> NodeId {
    NodeId::new(id).expect("small")
}

fn path(text: &str) -> Path {
    text.parse().expect("valid")
}

/// Three hosts in one thread, on virtual time.
struct Trio {
    hosts: Vec<Option<Host>>,
    board: Switchboard,
    now: Arc<Mutex<Duration>>,
}

impl Trio {
    fn new() -> Self {
        let board = Switchboard::new();
        let now = Arc::new(Mutex::new(Duration::ZERO));
        let hosts = (1..=3).map(|n| Some(host(n, &board, &now))).collect();
        let mut trio = Self { hosts, board, now };
        trio.run(Duration::from_secs(3));
        trio
    }

    fn run(&mut self, time: Duration) {
        let end = *self.now.lock().unwrap() + time;
        while *self.now.lock().unwrap() < end {
            self.step();
        }
    }

    /// One tick of time, and turns until nothing moves.
    fn step(&mut self) {
        let mono = {
            let mut now = self.now.lock().unwrap();
            *now += Duration::from_millis(10);
            *now
        };
        for _ in 0..8 {
            for host in self.hosts.iter_mut().flatten() {
                for task in host.turn(Now { mono, wall_ms: 7 }).housework {
                    if let Some(done) = task.run() {
                        host.housework_done(done);
                    }
                }
            }
        }
    }

    fn until<T>(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        for _ in 0..6_000 {
            if let Some(it) = done(self) {
                return it;
            }
            self.step();
        }
        panic!("never: {what}");
    }

    fn leader(&mut self) -> u64 {
        self.until("a leader", |it| {
            let hosts = it.hosts.iter().flatten();
            let leads = |host: &&Host| host.node().status().role == Role::Leader;
            hosts.into_iter().find(leads).map(|it| it.id().as_u64())
        })
    }

    fn client(&self, n: u64) -> Client {
        let host = self.hosts[n as usize - 1].as_ref();
        host.expect("it runs").client()
    }

    fn session(&mut self, n: u64) -> Session {
        let mut session = self.client(n).open_session(Duration::from_secs(3));
        let opened = self.until("a session", |_| session.try_take());
        opened.expect("the cluster is whole")
    }

    fn wait<T>(&mut self, mut answer: crate::client::Completion<T>) -> Result<T, Error> {
        self.until("an answer", |_| answer.try_take())
    }
}

fn host(n: u64, board: &Switchboard, now: &Arc<Mutex<Duration>>) -> Host {
    host_with(n, board, now, |config| config)
}

fn host_with(
    n: u64,
    board: &Switchboard,
    now: &Arc<Mutex<Duration>>,
    set: impl FnOnce(crate::ConfigBuilder) -> crate::ConfigBuilder,
) -> Host {
    let boot = Boot { counter: 1, nonce: n };
    let restored = Restored::new(StoreId::from_bytes([n as u8; 16]), boot);
    host_on((Log::Memory, restored), n, board, now, set)
}

fn host_on(
    store: (Log, Restored),
    n: u64,
    board: &Switchboard,
    now: &Arc<Mutex<Duration>>,
    set: impl FnOnce(crate::ConfigBuilder) -> crate::ConfigBuilder,
) -> Host {
    host_in(Inbox::new(), store, n, (board, now), set)
}

fn host_in(
    inbox: Inbox,
    (log, restored): (Log, Restored),
    n: u64,
    (board, now): (&Switchboard, &Arc<Mutex<Duration>>),
    set: impl FnOnce(crate::ConfigBuilder) -> crate::ConfigBuilder,
) -> Host {
    let config = Config::founding(ClusterId::named("trio"), id(n), [1, 2, 3].map(id))
        .tick_interval(Duration::from_millis(10))
        .renewal_interval(Duration::from_millis(100));
    let config = set(config).build().expect("in range");
    let line = board.connect(id(n), inbox.clone());
    let now = Arc::clone(now);
    let mut draws = n;
    Host::new(config, log, restored, line, inbox).expect("what it wrote opens").simulated(
        Clock::new(move || *now.lock().unwrap()),
        move || {
            draws += 1000;
            let mut bytes = [n as u8; 16];
            bytes[..8].copy_from_slice(&draws.to_le_bytes());
            bytes
        },
    )
}

fn held(state: State) -> bool {
    matches!(state, State::Held { .. })
}

#[test]
fn a_client_writes_and_reads_its_own_writes_at_every_member() {
    let mut trio = Trio::new();
    for n in 1..=3 {
        let client = trio.client(n);
        let node = path(&format!("/n{n}"));
        let made = trio.wait(client.create(&node, "1", CreateMode::Persistent));
        let made = made.expect("a leader is there");
        assert_eq!(made.path(), Some(&node));
        let got = trio.wait(client.get(&node, Consistency::Local));
        assert_eq!(got.expect("its own apply answered").0, "1");
        let again = trio.wait(client.create(&node, "2", CreateMode::Persistent));
        let error = again.expect_err("it exists");
        assert!(matches!(error.op(), Some(OpError::NodeExists { .. })));
        assert!(!error.is_retryable() && !error.outcome_unknown());
        for reader in 1..=3 {
            let client = trio.client(reader);
            let read = client.get(&node, Consistency::Linearizable);
            assert_eq!(trio.wait(read).expect("a leader is there").0, "1");
            let read = client.exists(&node, Consistency::AtLeast(made.zxid));
            assert!(trio.wait(read).expect("it gets there").is_some());
        }
    }
}

#[test]
fn a_session_lives_while_its_handle_does_and_is_closed_with_it() {
    let mut trio = Trio::new();
    let session = trio.session(2);
    let node = path("/here");
    let made = trio.wait(session.create(&node, "me", CreateMode::Ephemeral));
    made.expect("the session lives");
    trio.run(Duration::from_secs(12));
    assert_eq!(session.over(), None, "four times its time to live");
    assert!(session.until() > trio.client(2).now(), "renewed");
    let client = trio.client(1);
    let read = client.exists(&node, Consistency::Linearizable);
    assert!(trio.wait(read).expect("a leader is there").is_some());
    drop(session);
    trio.until("the node goes", |it| {
        let read = client.exists(&node, Consistency::Linearizable);
        it.wait(read).expect("a leader is there").is_none().then_some(())
    });
}

#[test]
fn a_session_that_is_cut_off_is_suspended_before_it_ends_and_learns_of_it() {
    let mut trio = Trio::new();
    let leader = trio.leader();
    let away = leader % 3 + 1;
    let session = trio.session(away);
    let mut lock = session.lock(&path("/locks/a"));
    let guard = trio.until("the lock", |_| lock.try_take());
    let guard = guard.expect("nobody else wants it");
    assert!(held(guard.state()));
    trio.board.isolate(id(away));
    let other = trio.session(leader);
    let mut next = other.lock(&path("/locks/a"));
    let token = guard.token();
    let taken = trio.until("the next holder", |_| {
        let taken = next.try_take();
        assert!(taken.is_none() || !held(guard.state()), "two hold it");
        taken
    });
    let taken = taken.expect("the session that was cut off ends");
    assert_eq!(guard.state(), State::Suspended { token });
    assert!(taken.token() > token);
    assert!(held(taken.state()));
    trio.board.heal();
    trio.until("it learns", |_| session.over());
    assert_eq!(session.over(), Some(Detach::Expired));
    assert_eq!(guard.state(), State::Lost);
    let late = trio.wait(guard.txn(Txn::new(Op::Delete { path: path("/locks"), version: None })));
    assert!(matches!(late, Err(Error::SessionOver { .. })));
}

#[test]
fn locks_are_fair_timed_out_waits_leave_no_node_and_fences_hold() {
    let mut trio = Trio::new();
    let at = path("/locks/b");
    let sessions: Vec<Session> = (1..=3).map(|n| trio.session(n)).collect();
    let mut first = sessions[0].lock(&at);
    let first = trio.until("the first", |_| first.try_take()).expect("free");
    let mut second = sessions[1].lock_with(Layout::Kazoo, &at, "second");
    trio.until("its place", |_| second.ahead());
    assert_eq!(second.ahead(), Some(1));
    let mut third = sessions[2].lock(&at);
    trio.until("its place", |_| (third.ahead() == Some(2)).then_some(()));
    assert!(third.try_take().is_none() && second.try_take().is_none());
    drop(third);
    let client = trio.client(1);
    trio.until("the third's node goes", |it| {
        let page = it.wait(client.list(List::of(at.clone()), Consistency::Linearizable));
        (page.expect("a leader is there").children.len() == 2).then_some(())
    });
    let fence = first.fence();
    assert_eq!(fence.check, Check::Czxid(first.token()));
    let write = Op::Create {
        path: path("/fenced").into(),
        data: "1".into(),
        mode: CreateMode::Persistent,
        acl: None,
    };
    trio.wait(first.txn(write.clone().into())).expect("held");
    let released = first.release();
    let second = trio.until("the second", |_| second.try_take());
    let second = second.expect("it is next");
    trio.wait(released).expect("released");
    let stale = trio.wait(sessions[0].txn(Txn::new(write).guard(fence)));
    let stale = stale.expect_err("another holds it");
    assert!(matches!(stale.op(), Some(OpError::GuardFailed { .. })));
    assert!(held(second.state()));
}

#[test]
fn an_election_is_observed_through_a_proclamation_and_a_succession() {
    let mut trio = Trio::new();
    let at = path("/app/leader");
    let (one, two) = (trio.session(1), trio.session(2));
    let mut seen = trio.client(3).observe(&at);
    let mut first = one.campaign(&at, "one");
    let first = trio.until("a leader", |_| first.try_take()).expect("alone");
    let now = |it: &mut crate::client::Observation| it.next_timeout(Duration::ZERO);
    let told = trio.until("it is seen", |_| now(&mut seen));
    assert_eq!(told.expect("open").proposal, "one");
    trio.wait(first.proclaim("one again")).expect("it leads");
    let told = trio.until("the new proposal", |_| now(&mut seen));
    assert_eq!(told.expect("open").proposal, "one again");
    let mut second = two.campaign(&at, "two");
    trio.run(Duration::from_millis(200));
    assert!(now(&mut seen).is_none(), "a candidate is no news");
    trio.wait(first.resign()).expect("resigned");
    let second = trio.until("a successor", |_| second.try_take());
    let second = second.expect("it is next");
    let told = trio.until("it is seen", |_| now(&mut seen)).expect("open");
    assert_eq!(told.proposal, "two");
    assert_eq!(told.token, second.token());
}

#[test]
fn after_a_refusal_nothing_is_sent_until_the_application_has_seen_it() {
    let mut trio = Trio::new();
    let session = trio.session(1);
    let big = vec![0; 2 << 20];
    let create =
        |name: &str, data: Vec<u8>| session.create(&path(name), data, CreateMode::Persistent);
    let first = create("/1", vec![1]);
    let mut refused = create("/2", big);
    let third = create("/3", vec![3]);
    let fourth = create("/4", vec![4]);
    trio.run(Duration::from_millis(100));
    // Submitted long after the refusal, but nobody has looked at it: only at what it held up.
    assert_eq!(trio.wait(third).expect_err("it would leave a hole"), Error::Withheld);
    let fifth = create("/5", vec![5]);
    assert!(trio.wait(first).is_ok());
    trio.run(Duration::from_millis(100));
    assert!(fifth.is_done());
    let limit = refused.try_take().expect("it was refused");
    assert!(matches!(
        limit,
        Err(Error::Submit(SubmitError::Limit { limit: LimitName::PayloadBytes, .. }))
    ));
    let sixth = create("/6", vec![6]);
    assert!(trio.wait(sixth).is_ok(), "seen, so it goes on");
    for withheld in [fourth, fifth] {
        let error = trio.wait(withheld).expect_err("it would leave a hole");
        assert_eq!(error, Error::Withheld);
        assert!(error.is_retryable() && !error.outcome_unknown());
    }
    for (name, there) in [("/1", true), ("/3", false), ("/4", false), ("/5", false), ("/6", true)] {
        let read = trio.client(1).exists(&path(name), Consistency::Local);
        assert_eq!(trio.wait(read).expect("local").is_some(), there, "{name}");
    }
}

#[test]
fn a_watch_shows_every_change_from_its_view_on_and_gives_credit_back() {
    let mut trio = Trio::new();
    let client = trio.client(2);
    let armed = client.watch(Filter::Subtree(path("/w")), None);
    let mut watcher = trio.wait(armed).expect("armed");
    assert_eq!(watcher.view().stat(&path("/w")), Ok(None));
    let make = client.create(&path("/w"), "", CreateMode::Persistent);
    trio.wait(make).expect("made");
    let (count, mut last) = (3_000, Zxid::ZERO);
    let mut seen = 0;
    for round in 0..count / 100 {
        let writes: Vec<_> =
            (0..100).map(|n| client.set(&path("/w"), format!("{round} {n}"), None)).collect();
        for write in writes {
            trio.wait(write).expect("set");
        }
        if round % 15 == 14 {
            // A slow reader: it has let more pile up than its buffer holds.
            while let Some(changes) = watcher.next_timeout(Duration::ZERO) {
                let changes = changes.expect("open");
                assert!(changes.zxid > last, "in order");
                last = changes.zxid;
                seen += changes.events.len();
                trio.step();
            }
        }
    }
    assert_eq!(seen, count + 1, "none left out");
}

#[test]
fn rule_8_a_watch_from_what_the_member_has_not_applied_waits_for_it() {
    let mut trio = Trio::new();
    let leader = trio.leader();
    let away = leader % 3 + 1;
    trio.board.isolate(id(away));
    let make = trio.client(leader).create(&path("/w"), "", CreateMode::Persistent);
    let from = trio.wait(make).expect("made").zxid;
    let mut armed = trio.client(away).watch(Filter::Subtree(path("/w")), Some(from));
    trio.run(Duration::from_millis(100));
    assert!(!armed.is_done(), "its view would be older than what the client has seen");
    trio.board.heal();
    let mut watcher = trio.until("armed", |_| armed.try_take()).expect("it has caught up");
    assert!(watcher.view().read(&path("/w")).is_ok());
    let set = trio.client(leader).set(&path("/w"), "x", None);
    let zxid = trio.wait(set).expect("set").zxid;
    let changes = trio.until("the change", |_| watcher.next_timeout(Duration::ZERO));
    assert_eq!(changes.expect("open").zxid, zxid);
    // A transaction that never comes: the usual time, and no longer.
    let never = trio.client(leader).watch(Filter::Subtree(path("/w")), Some(Zxid::new(1 << 40)));
    assert!(trio.wait(never).is_err());
}

#[test]
fn a_view_is_at_most_one_turn_old_while_somebody_reads() {
    let mut trio = Trio::new();
    let client = trio.client(1);
    let first = client.view();
    assert!(!first.is_done(), "the first waits for a turn");
    let first = trio.wait(first).expect("it runs");
    for n in 0..50 {
        let node = path(&format!("/v{n}"));
        let made = trio.wait(client.create(&node, "", CreateMode::Persistent));
        let zxid = made.expect("made").zxid;
        let mut view = client.view();
        let view = view.try_take().expect("at once").expect("it runs");
        assert!(view.zxid() >= zxid && view.read(&node).is_ok());
    }
    assert_eq!(first.stat(&path("/v0")), Ok(None), "a view never changes");
    trio.run(Duration::from_secs(1));
    assert!(!client.view().is_done(), "nobody read: nothing is shared");
}

#[test]
fn everything_that_waits_ends_with_the_host() {
    let mut trio = Trio::new();
    let leader = trio.leader();
    let away = leader % 3 + 1;
    let client = trio.client(away);
    let session = trio.session(away);
    let armed = client.watch(Filter::Node(path("/x")), None);
    let mut watcher = trio.wait(armed).expect("armed");
    let mut seen = client.observe(&path("/nobody"));
    trio.board.isolate(id(away));
    trio.step();
    let write = client.set(&path("/x"), "", None);
    let sequenced = session.set(&path("/x"), "", None);
    let read = client.get(&path("/x"), Consistency::Linearizable);
    let wait = session.lock(&path("/locks/c"));
    trio.step();
    let untaken = client.set(&path("/x"), "", None);
    trio.hosts[away as usize - 1] = None;
    for (answer, unknown) in [(write, true), (sequenced, true), (untaken, false)] {
        let error = answer.wait().expect_err("the host is gone");
        assert!(matches!(error, Error::Closed { .. }), "{error:?}");
        assert_eq!(error.outcome_unknown(), unknown);
    }
    assert!(matches!(read.wait(), Err(Error::Closed { submitted: false, .. })));
    assert!(matches!(wait.wait(), Err(Error::Closed { .. })));
    assert!(matches!(watcher.next(), Some(Err(Error::Closed { .. }))));
    assert!(watcher.next().is_none(), "told once");
    assert!(matches!(seen.next(), Some(Err(Error::Closed { .. }))));
    let late = client.status().wait().expect_err("the host is gone");
    assert!(matches!(late, Error::Closed { submitted: false, .. }));
}

#[test]
fn a_late_tick_is_taken_once() {
    let mut trio = Trio::new();
    let before = trio.hosts[0].as_ref().expect("runs").next_due();
    *trio.now.lock().unwrap() += Duration::from_secs(60);
    let mono = *trio.now.lock().unwrap();
    let host = trio.hosts[0].as_mut().expect("runs");
    let turn = host.turn(Now { mono, wall_ms: 7 });
    assert!(turn.next_tick > mono && turn.next_tick <= mono + Duration::from_millis(10));
    assert!(before < mono);
}

#[test]
fn a_session_moves_to_another_member_and_its_old_handle_learns_of_it() {
    let mut trio = Trio::new();
    let here = trio.session(1);
    let node = path("/moves");
    let made = trio.wait(here.create(&node, "", CreateMode::Ephemeral));
    made.expect("made");
    let key = here.key();
    let next = crate::client::SessionKey::new(key.session, key.secret, key.epoch + 1);
    let attach = trio.client(2).attach(next);
    let there = trio.wait(attach).expect("the secret is right");
    trio.until("the old handle learns", |_| here.over());
    assert_eq!(here.over(), Some(Detach::Moved));
    drop(here);
    trio.run(Duration::from_secs(10));
    assert_eq!(there.over(), None);
    let set = trio.wait(there.set(&node, "moved", None));
    assert_eq!(set.expect("in sequence").stat().map(|it| it.version), Some(1));
    let guard = Guard { path: node.clone(), check: Check::Owner(there.id().lease()) };
    let delete = Txn::new(Op::Delete { path: node, version: None });
    trio.wait(there.txn(delete.guard(guard))).expect("its own");
    let left = there.leave();
    assert_eq!(left.epoch, key.epoch + 1);
}

#[test]
fn threads_serve_blocking_clients_and_a_stopped_leader_is_succeeded() {
    let board = Switchboard::new();
    let mut drivers: Vec<Driver> = (1..=3)
        .map(|n| {
            let config = Config::founding(ClusterId::named("threads"), id(n), [1, 2, 3].map(id))
                .tick_interval(Duration::from_millis(10))
                .renewal_interval(Duration::from_millis(100))
                .build()
                .expect("in range");
            let inbox = Inbox::new();
            let line = board.connect(id(n), inbox.clone());
            let boot = Boot { counter: 1, nonce: n };
            let restored = Restored::new(StoreId::from_bytes([n as u8; 16]), boot);
            let host = Host::new(config, Log::Memory, restored, line, inbox);
            Driver::spawn(host.expect("a new store opens")).expect("a thread")
        })
        .collect();
    let clients: Vec<Client> = drivers.iter().map(|it| it.client().clone()).collect();
    let session = clients[0].open_session(Duration::from_secs(2)).wait();
    let session = session.expect("a leader is elected");
    let guard = session.lock(&path("/l")).wait().expect("free");
    assert!(held(guard.state()));
    let leader = clients[0].status().wait().expect("it runs").leader;
    let leader = leader.expect("it has just committed").as_u64() as usize - 1;
    let survivor = (leader + 1) % 3;
    assert_eq!(drivers.remove(leader).stop(), None);
    assert!(clients[leader].status().wait().is_err());
    // In a session: what went to the leader that is gone is sent again to its successor.
    let after = clients[survivor].open_session(Duration::from_secs(2)).wait();
    let after = after.expect("a successor is elected");
    let write = after.create(&path("/after"), "", CreateMode::Persistent);
    assert!(write.wait().is_ok());
    drop(guard);
    for driver in drivers {
        assert!(driver.is_running());
        assert_eq!(driver.stop(), None);
    }
}

#[test]
fn a_guard_never_says_held_once_its_session_was_closed_or_left() {
    for leave in [false, true] {
        let mut trio = Trio::new();
        let leader = trio.leader();
        let away = leader % 3 + 1;
        let session = trio.session(away);
        let mut lock = session.lock(&path("/locks/g"));
        let guard = trio.until("the lock", |_| lock.try_take()).expect("free");
        assert!(held(guard.state()));
        // The others apply what becomes of the session; its own member does not hear of it.
        trio.board.isolate(id(away));
        let session = session.clone();
        let waiting = match leave {
            true => {
                let _ = session.leave();
                None
            }
            false => Some(session.close()),
        };
        assert_eq!(guard.state(), State::Lost, "left {leave}");
        trio.step();
        assert_eq!(guard.state(), State::Lost, "left {leave}");
        drop(waiting);
    }
}
