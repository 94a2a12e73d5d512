//! Handles that are held wrong, or at a bad moment.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Wake, Waker},
};

use super::*;
use crate::{
    client::Completion,
    config::ConfigError,
    node::{ReadOp, RequestError},
};

#[test]
fn a_refusal_that_would_come_again_ends_a_wait_for_a_place() {
    let mut trio = Trio::new();
    let session = trio.session(1);
    let mut acquire = session.campaign(&path("/election"), vec![7; 2 << 20]);
    let error = trio.until("it is refused", |_| acquire.try_take()).expect_err("too large");
    assert!(
        matches!(error.op(), Some(OpError::Limit { limit: LimitName::PayloadBytes, .. })),
        "{error:?}"
    );
    let fits = session.campaign(&path("/election"), "me");
    let mut fits = fits;
    assert!(trio.until("it leads", |_| fits.try_take()).is_ok());
}

#[test]
fn a_guard_says_held_when_it_is_handed_out() {
    let mut trio = Trio::new();
    let (holder, waiter) = (trio.session(1), trio.session(2));
    let mut first = holder.lock(&path("/l"));
    let first = trio.until("it is free", |_| first.try_take()).expect("free");
    let mut second = waiter.lock(&path("/l"));
    trio.run(Duration::from_millis(500));
    assert_eq!(second.ahead(), Some(1));
    // Everybody sleeps for longer than any session lives; no tick catches up with that.
    *trio.now.lock().unwrap() += Duration::from_secs(60);
    drop(first);
    let second = trio.until("its turn comes", |_| second.try_take()).expect("both live on");
    assert!(held(second.state()), "{:?}", second.state());
}

#[test]
fn an_inbox_belongs_to_one_host() {
    let (board, inbox) = (Switchboard::new(), Inbox::new());
    let open = |n: u64| {
        let config = Config::founding(ClusterId::named("one"), id(n), [1, 2].map(id)).build();
        let boot = Boot { counter: 1, nonce: n };
        let restored = Restored::new(StoreId::from_bytes([n as u8; 16]), boot);
        let line = board.connect(id(n), inbox.clone());
        Host::new(config.expect("in range"), Log::Memory, restored, line, inbox.clone())
    };
    let first = open(1);
    assert!(matches!(open(2), Err(HostError::InboxTaken)));
    assert_eq!(first.expect("the first").id(), id(1));
}

#[test]
fn founders_are_named_once() {
    let twice = Config::founding(ClusterId::named("one"), id(1), [1, 2, 2].map(id)).build();
    assert_eq!(twice.err(), Some(ConfigError::NamedTwice { id: id(2) }));
}

struct Panics(AtomicBool);

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
        panic!("on purpose: a waker of an application");
    }
}

#[test]
fn a_waker_that_panics_leaves_the_node_alone() {
    let mut trio = Trio::new();
    let client = trio.client(1);
    let panics = Arc::new(Panics(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&panics));
    let mut write: Completion<_> = client.create(&path("/a"), "", CreateMode::Persistent);
    let poll = Future::poll(std::pin::Pin::new(&mut write), &mut Context::from_waker(&waker));
    assert!(poll.is_pending());
    assert!(trio.wait(write).is_ok());
    assert!(panics.0.load(Ordering::SeqCst), "it was woken");
    assert!(trio.wait(client.create(&path("/b"), "", CreateMode::Persistent)).is_ok());
}

#[test]
fn a_session_that_is_over_says_so_to_everything() {
    let mut trio = Trio::new();
    let session = trio.session(1);
    let clone = session.clone();
    trio.wait(session.close()).expect("closed");
    let over = Error::SessionOver { session: clone.id(), cause: Detach::Closed };
    assert_eq!(clone.over(), Some(Detach::Closed));
    let read = clone.get(&path("/"), Consistency::Local);
    assert_eq!(trio.wait(read).map(drop), Err(over.clone()));
    let write = clone.set(&path("/"), "", None);
    assert_eq!(trio.wait(write).map(drop), Err(over.clone()));
    let watch = clone.watch(Filter::Node(path("/")), None);
    assert_eq!(trio.wait(watch).map(drop), Err(over));

    let session = trio.session(1);
    let clone = session.clone();
    let _key = session.leave();
    trio.run(Duration::from_millis(50));
    assert_eq!(clone.over(), Some(Detach::Moved));
}

#[test]
fn what_is_asked_of_a_host_that_is_gone_is_not_asked_again_there() {
    let mut trio = Trio::new();
    let client = trio.client(1);
    trio.hosts[0] = None;
    let error = client.status().wait().expect_err("it is gone");
    assert!(!error.is_retryable() && !error.outcome_unknown(), "{error}");
    // With one of three left nobody leads: nothing was sent that could take effect.
    let alone = trio.client(2);
    trio.hosts[2] = None;
    trio.run(Duration::from_secs(2));
    let read = alone.read(ReadOp::Barrier, Consistency::Linearizable);
    let error = trio.wait(read).expect_err("no leader");
    assert_eq!(error, Error::Request(RequestError::TimedOut));
}

#[test]
fn a_sequential_create_numbers_whatever_the_mode() {
    let mut trio = Trio::new();
    let client = trio.client(1);
    for mode in [CreateMode::Persistent, CreateMode::PersistentSequential] {
        let prefix = Path::sequential_prefix("/n-").expect("valid");
        let made = trio.wait(client.create_sequential(prefix, "", mode)).expect("made");
        let name = made.path().expect("made").as_str();
        assert!(name.len() == "/n-".len() + 10, "{name}");
    }
    assert_eq!(path("/").join(""), Err(crate::PathError::EmptyName));
}
