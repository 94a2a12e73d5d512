//! Handles with identities: what they may do and see, and that nothing shows a secret.

use slog::{Drain, KV, Logger, Never, OwnedKVList, Record, o};

use super::*;
use crate::{
    Acl, DigestId, Grant, Identities, Identity, Principal, Quota, Rights, Secret, View,
    client::{Changes, Completion, SessionKey, Watcher},
    node::Consistency::Linearizable,
};

const HASH: &str = "hash-that-nobody-may-see";

fn ann() -> Identities {
    let id = DigestId::new("ann", HASH).expect("short");
    Identities::new([Identity::Digest(id)]).expect("one")
}

/// The same calls by a client and by a session, as one of them.
macro_rules! ask {
    ($trio:expr, $asker:expr, $call:ident ( $($arg:expr),* )) => {{
        let answer = $asker.$call($($arg),*);
        $trio.wait(answer)
    }};
}

fn no_auth(at: &str, right: Rights) -> OpError {
    OpError::NoAuth { path: path(at), right }
}

fn refusal<T: std::fmt::Debug>(answer: Result<T, Error>) -> OpError {
    answer.expect_err("it is not allowed").op().expect("refused by its rights").clone()
}

fn session_of(trio: &mut Trio, client: &Client) -> Session {
    let opened = client.open_session(Duration::from_secs(3));
    trio.wait(opened).expect("the cluster is whole")
}

fn view(trio: &mut Trio, view: impl Fn() -> Completion<View>) -> View {
    trio.wait(view()).expect("it runs")
}

#[test]
fn a_handle_may_what_its_identities_may() {
    let mut trio = Trio::new();
    let world = trio.client(1);
    let owner = world.with_identities(ann());
    assert!(*owner.identities() == ann() && *world.identities() == Identities::none());
    let at = path("/ann");
    ask!(trio, owner, create(&at, "mine", CreateMode::Persistent)).expect("open");
    let kept = ask!(trio, owner, set_acl(&at, Acl::creator(), Some(0))).expect("open");
    assert_eq!(kept.stat().map(|stat| stat.aversion), Some(1));
    let session = session_of(&mut trio, &owner);
    let stranger = session_of(&mut trio, &world);
    let no = no_auth("/ann", Rights::READ);
    // Alike, outside and inside of sessions.
    macro_rules! alike {
        ($owner:expr, $other:expr, $n:expr) => {{
            ask!(trio, $owner, get(&at, Linearizable)).expect("hers");
            assert!(ask!(trio, $owner, exists(&at, Linearizable)).expect("hers").is_some());
            let (acl, _) = ask!(trio, $owner, get_acl(&at, Linearizable)).expect("hers");
            let shown = &acl.grants()[0].principal;
            assert!(matches!(shown, Principal::Digest(id) if id.hash() == HASH));
            let quota = Some(Quota { nodes_hard: Some(2 + $n), ..Quota::default() });
            ask!(trio, $owner, set_quota(&at, quota)).expect("the root is open");
            let below = at.join(&format!("n{}", $n)).expect("valid");
            ask!(trio, $owner, create(&below, "", CreateMode::Persistent)).expect("hers");
            let found = ask!(trio, $owner, quota(&at, Linearizable)).expect("hers");
            assert_eq!(found.map(|(quota, usage)| (Some(quota), usage.nodes)), Some((quota, 2)));
            let page = ask!(trio, $owner, list(List::of(at.clone()), Linearizable)).expect("hers");
            assert_eq!(page.children.len(), 1);
            let count = ask!(trio, $owner, descendants(&at, Linearizable)).expect("hers");
            assert_eq!(count, (1, false));
            ask!(trio, $owner, set(&below, "", None)).expect("hers");
            for refused in [
                refusal(ask!(trio, $other, get(&at, Linearizable))),
                refusal(ask!(trio, $other, exists(&at, Linearizable))),
                refusal(ask!(trio, $other, get_acl(&at, Linearizable))),
                refusal(ask!(trio, $other, quota(&at, Linearizable))),
                refusal(ask!(trio, $other, descendants(&at, Linearizable))),
                refusal(ask!(trio, $other, list(List::of(at.clone()), Linearizable))),
                refusal(view(&mut trio, || $other.view()).read(&at).map_err(op)),
            ] {
                assert_eq!(refused, no);
            }
            let denied = |right| no_auth("/ann", right);
            let refused = ask!(trio, $other, set(&at, "", None));
            assert_eq!(refusal(refused), denied(Rights::WRITE));
            let refused = ask!(trio, $other, set_acl(&at, Acl::open(), None));
            assert_eq!(refusal(refused), denied(Rights::ADMIN));
            let refused = ask!(trio, $other, delete_tree(&below));
            assert_eq!(refusal(refused), denied(Rights::DELETE));
            // The published view, and one from the node.
            assert!(view(&mut trio, || $owner.view()).read(&at).is_ok());
            trio.run(Duration::from_secs(1));
            assert!(view(&mut trio, || $owner.view()).read(&at).is_ok());
            assert_eq!(view(&mut trio, || $other.view()).read(&at).map(drop), Err(no.clone()));
            ask!(trio, $owner, delete_tree(&below)).expect("hers");
        }};
    }
    alike!(owner, world, 0);
    alike!(session, stranger, 1);
    // What the session's client does is outside the session, with the same identities.
    assert_eq!(*session.client().identities(), ann());
    let ephemeral = path("/ann/e");
    ask!(trio, session, create(&ephemeral, "", CreateMode::Ephemeral)).expect("hers");
    for (owned, count) in [
        (ask!(trio, owner, owned(session.id().lease(), None, Linearizable)), 1),
        (ask!(trio, stranger, owned(session.id().lease(), None, Linearizable)), 0),
    ] {
        assert_eq!(owned.expect("it lives").paths.len(), count);
    }
}

fn op(error: OpError) -> Error {
    crate::node::RequestError::Op(error).into()
}

fn take(trio: &mut Trio, watcher: &mut Watcher) -> Option<Changes> {
    trio.run(Duration::from_millis(100));
    watcher.next_timeout(Duration::ZERO).map(|changes| changes.expect("it goes on"))
}

#[test]
fn watches_locks_and_elections_have_the_rights_of_who_asks() {
    let mut trio = Trio::new();
    let world = trio.client(2);
    let owner = world.with_identities(ann());
    let at = path("/ann");
    let acl = Some(Acl::creator());
    let (path_of, mode) = (at.clone().into(), CreateMode::Persistent);
    let make = Op::Create { path: path_of, data: "".into(), mode, acl };
    ask!(trio, owner, txn(make.into())).expect("open");
    let session = session_of(&mut trio, &owner);
    let stranger = session_of(&mut trio, &world);
    let everything = || Filter::Subtree(Path::root());
    let mut told = ask!(trio, owner, watch(everything(), None)).expect("armed");
    let mut told_in_session = ask!(trio, session, watch(everything(), None)).expect("armed");
    let mut hidden = ask!(trio, world, watch(everything(), None)).expect("armed");
    let mut hidden_in_session = ask!(trio, stranger, watch(everything(), None)).expect("armed");
    assert!(told.view().read(&at).is_ok() && hidden.view().read(&at).is_err());
    ask!(trio, owner, set(&at, "1", None)).expect("hers");
    for watcher in [&mut told, &mut told_in_session] {
        assert!(take(&mut trio, watcher).is_some());
    }
    for watcher in [&mut hidden, &mut hidden_in_session] {
        assert_eq!(take(&mut trio, watcher), None);
    }
    // A watch of a session ends with it.
    let closed = session_of(&mut trio, &world);
    let mut its = ask!(trio, closed, watch(everything(), None)).expect("armed");
    let close = closed.close();
    trio.wait(close).expect("closed");
    let ended = its.next_timeout(Duration::ZERO);
    assert!(matches!(ended, Some(Err(Error::WatchEnded(_)))), "{ended:?}");
    // The lock's nodes have the list of their parent.
    let lock = session.lock(&path("/ann/lock"));
    let refused = stranger.lock(&path("/ann/lock"));
    let (mut lock, mut refused) = (lock, refused);
    let guard = trio.until("the lock", |_| lock.try_take()).expect("hers");
    let refused = trio.until("an end", |_| refused.try_take()).map(drop);
    assert!(matches!(refusal(refused), OpError::NoAuth { .. }));
    let second = session_of(&mut trio, &owner);
    let mut next = second.lock(&path("/ann/lock"));
    trio.until("its place", |_| next.ahead());
    let released = guard.release();
    trio.wait(released).expect("released");
    let next = trio.until("the lock", |_| next.try_take());
    drop(next.expect("she was told that the first is gone"));
    let mut leader = session.campaign(&path("/ann/leader"), "1");
    let leader = trio.until("the leadership", |_| leader.try_take()).expect("hers");
    let (mut seen, mut unseen) =
        (owner.observe(&path("/ann/leader")), world.observe(&path("/ann/leader")));
    let leadership = trio.until("news", |_| seen.next_timeout(Duration::ZERO));
    assert_eq!(leadership.expect("hers").token, leader.token());
    let end = trio.until("an end", |_| unseen.next_timeout(Duration::ZERO)).map(drop);
    assert!(matches!(refusal(end), OpError::NoAuth { .. }));
}

/// Who attaches a session decides who it is from then on.
#[test]
fn a_session_that_is_attached_has_the_identities_of_who_attaches_it() {
    let mut trio = Trio::new();
    let owner = trio.client(1).with_identities(ann());
    let at = path("/ann");
    ask!(trio, owner, create(&at, "", CreateMode::Persistent)).expect("open");
    ask!(trio, owner, set_acl(&at, Acl::creator(), None)).expect("open");
    let session = session_of(&mut trio, &owner);
    let key = session.leave();
    let next = |key: SessionKey| SessionKey::new(key.session, key.secret, key.epoch + 1);
    let attached = trio.client(2).attach(next(key));
    let session = trio.wait(attached).expect("it lives");
    let refused = ask!(trio, session, set(&at, "", None));
    assert_eq!(refusal(refused), no_auth("/ann", Rights::WRITE));
    let refused = ask!(trio, session, get(&at, Linearizable));
    assert_eq!(refusal(refused), no_auth("/ann", Rights::READ));
    let attached = trio.client(3).with_identities(ann()).attach(next(session.leave()));
    let session = trio.wait(attached).expect("it lives");
    ask!(trio, session, get(&at, Linearizable)).expect("hers again");
}

#[test]
fn what_is_asked_too_often_is_refused_with_a_time_and_nothing_passes_it() {
    let mut trio = Trio::new();
    trio.hosts[0] = None;
    let (board, now) = (trio.board.clone(), Arc::clone(&trio.now));
    trio.hosts[0] = Some(host_with(1, &board, &now, |config| config));
    let board = Switchboard::new();
    let restored = Restored::new(StoreId::from_bytes([9; 16]), Boot { counter: 1, nonce: 9 });
    let config = Config::founding(ClusterId::named("alone"), id(1), [id(1)])
        .tick_interval(Duration::from_millis(10))
        .session_rate(10, 2);
    let inbox = Inbox::new();
    let line = board.connect(id(1), inbox.clone());
    let alone = Host::new(config.build().expect("in range"), Log::Memory, restored, line, inbox);
    let clock = Arc::clone(&now);
    let alone = alone.expect("it opens");
    let mut drawn = 0u8;
    let alone = alone.simulated(Clock::new(move || *clock.lock().unwrap()), move || {
        drawn += 1;
        [drawn; 16]
    });
    trio.hosts = vec![Some(alone)];
    let session = trio.session(1);
    let make = |n: u32| session.create(&path(&format!("/n{n}")), "", CreateMode::Persistent);
    let made: Vec<_> = (1..=4).map(make).collect();
    let mut answers = made.into_iter().map(|it| trio.wait(it)).collect::<Vec<_>>().into_iter();
    assert!(answers.next().is_some_and(|it| it.is_ok()));
    assert!(answers.next().is_some_and(|it| it.is_ok()));
    let Some(Err(early)) = answers.next() else { panic!("the third in a moment") };
    assert!(matches!(early, Error::Submit(SubmitError::RateLimited { .. })), "{early:?}");
    assert_eq!(answers.next().map(|it| it.map(drop)), Some(Err(Error::Withheld)));
    let wait = early.retry_after().expect("it is known");
    assert!(early.is_retryable() && wait <= Duration::from_millis(100), "{wait:?}");
    trio.run(wait);
    let made = trio.wait(make(3)).expect("as was said");
    assert!(made.path() == Some(&path("/n3")));
    assert_eq!(Error::Withheld.retry_after(), None);
}

/// Everything that is logged, as text.
struct Lines(Arc<Mutex<String>>);

impl Drain for Lines {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        struct Text<'a>(&'a mut String);
        impl slog::Serializer for Text<'_> {
            fn emit_arguments(
                &mut self,
                key: slog::Key,
                value: &std::fmt::Arguments<'_>,
            ) -> slog::Result {
                self.0.push_str(&format!(" {key}={value}"));
                Ok(())
            }
        }
        let mut text = self.0.lock().unwrap();
        text.push_str(&format!("{}", record.msg()));
        let _ = record.kv().serialize(record, &mut Text(&mut text));
        let _ = values.serialize(record, &mut Text(&mut text));
        text.push('\n');
        Ok(())
    }
}

#[test]
fn secrets_are_in_no_reply_no_log_and_no_debug_text() {
    let logged = Arc::new(Mutex::new(String::new()));
    let logger = || Logger::root(Lines(Arc::clone(&logged)).fuse(), o!());
    let (board, now) = (Switchboard::new(), Arc::new(Mutex::new(Duration::ZERO)));
    let hosts = (1..=3).map(|n| Some(host_with(n, &board, &now, |it| it.logger(logger()))));
    let mut trio = Trio { hosts: hosts.collect(), board, now };
    trio.leader();
    let mut shown = String::new();
    let mut show = |it: &dyn std::fmt::Debug| shown.push_str(&format!("{it:?} {it:#?}\n"));
    let (world, at) = (trio.client(1), path("/ann"));
    let owner = world.with_identities(ann());
    let hash = DigestId::new("ann", HASH).expect("short");
    let all = Grant { principal: Principal::Digest(hash), rights: Rights::ALL };
    let read = Grant { principal: Principal::World, rights: Rights::READ };
    let acl = Acl::new([all, read]).expect("two");
    let secret = Secret::from_bytes(*b"0123456789abcdef");
    let opened = owner.open_session_with(secret, Duration::from_secs(3));
    let session = trio.wait(opened).expect("the cluster is whole");
    show(&(&owner, &session, session.key(), ann(), &acl));
    let mut watcher = ask!(trio, session, watch(Filter::Subtree(Path::root()), None)).expect("on");
    let made = Op::Create {
        path: at.clone().into(),
        data: "1".into(),
        mode: CreateMode::Persistent,
        acl: Some(acl.clone()),
    };
    show(&ask!(trio, session, txn(Txn::all([made.clone()]))).expect("open"));
    show(&ask!(trio, session, set_acl(&at, acl, None)).expect("hers"));
    // Of those who may see the hash only its owner does, and not by accident.
    let (hers, _) = ask!(trio, owner, get_acl(&at, Linearizable)).expect("hers");
    assert!(matches!(&hers.grants()[0].principal, Principal::Digest(id) if id.hash() == HASH));
    let (masked, _) = ask!(trio, world, get_acl(&at, Linearizable)).expect("it may be read");
    assert!(matches!(&masked.grants()[0].principal, Principal::Digest(id) if id.hash() == "x"));
    let in_txn = ask!(trio, world, txn(Op::GetAcl { path: at.clone() }.into())).expect("read");
    assert!(!format!("{:?}", in_txn.outcome).contains(HASH));
    show(&(hers, masked, in_txn, &made));
    show(&ask!(trio, world, set(&at, "", None)));
    show(&ask!(trio, session, txn(made.into())));
    show(&take(&mut trio, &mut watcher));
    let forged = SessionKey::new(session.id(), Secret::from_bytes([7; 16]), 9);
    show(&ask!(trio, owner, attach(forged)).map(drop));
    show(&view(&mut trio, || owner.view()));
    show(&trio.hosts[0].as_ref().map(|host| (host, host.node())));
    let restarted = trio.hosts.remove(0);
    drop(restarted);
    trio.hosts.insert(0, None);
    trio.run(Duration::from_secs(2));
    let logged = logged.lock().unwrap().clone();
    assert!(!logged.is_empty(), "something was logged");
    for (what, text) in [("shown", shown), ("logged", logged)] {
        for secret in [HASH, "0123456789abcdef", "48, 49, 50", "30313233"] {
            assert!(!text.contains(secret), "{secret} is {what}");
        }
    }
}
