//! What a host does when its disk fails, fills up or rots, and when it is asked for too much.

use std::path::Path as FsPath;

use super::*;
use crate::{
    Limits, Secret,
    client::{Completion, Written},
    node::{DiskFault, Ended},
    wal::{Fault, Fs, MemoryFs, Wal, WalOptions},
};

const DIR: &str = "/data";

fn open(fs: &MemoryFs, n: u64, draw: u64) -> (Log, Restored) {
    let mut options = WalOptions::default();
    let mut entropy = [n as u8; 32];
    entropy[..8].copy_from_slice(&draw.to_le_bytes());
    options.entropy = Some(entropy);
    options.segment_bytes = 64 << 10;
    let (fs, cluster): (Arc<dyn Fs>, _) = (Arc::new(fs.clone()), ClusterId::named("trio"));
    let opened = Wal::open_with(fs, FsPath::new(DIR), cluster, id(n), options);
    let (wal, restored) = opened.expect("the store opens");
    (Log::Wal(Box::new(wal)), restored)
}

/// Three hosts on disks that can be told to fail.
fn on_disks() -> (Trio, [MemoryFs; 3]) {
    let (board, now) = (Switchboard::new(), Arc::new(Mutex::new(Duration::ZERO)));
    let disks = [(); 3].map(|()| MemoryFs::new());
    let host = |n: u64| {
        let log = open(&disks[n as usize - 1], n, 1);
        Some(host_on(log, n, &board, &now, |config| config))
    };
    let hosts = (1..=3).map(host).collect();
    let mut trio = Trio { hosts, board, now };
    trio.run(Duration::from_secs(3));
    (trio, disks)
}

fn ended(trio: &Trio, n: u64) -> Option<Ended> {
    trio.hosts[n as usize - 1].as_ref()?.node().ended().cloned()
}

fn reason(trio: &mut Trio, n: u64) -> String {
    match trio.until("it ends", |it| ended(it, n)) {
        Ended::DiskFailed { why, .. } => why,
        other => panic!("{other:?}"),
    }
}

fn make(client: &Client, name: &str, bytes: usize) -> Completion<Written> {
    client.create(&path(name), vec![7; bytes], CreateMode::Persistent)
}

#[test]
fn a_disk_that_fails_ends_its_host_and_the_others_go_on() {
    for fault in [Fault::FailSync(1), Fault::FailWrite(1), Fault::NoSpace(1)] {
        let (mut trio, disks) = on_disks();
        let leader = trio.leader();
        let client = trio.client(leader);
        for n in 0..5 {
            let made = make(&client, &format!("/before{n}"), 1);
            trio.wait(made).expect("all is well");
        }
        disks[leader as usize - 1].arm(&[fault]);
        let waiting: Vec<_> = (0..5).map(|n| make(&client, &format!("/w{n}"), 1)).collect();
        let why = reason(&mut trio, leader);
        assert!(why.contains("/data/"), "names the file: {why}");
        let (kind, remedy) = match fault {
            Fault::NoSpace(_) => (DiskFault::Full, "free space"),
            _ => (DiskFault::Failed, "on the same data"),
        };
        let told = ended(&trio, leader).expect("it has");
        assert!(matches!(&told, Ended::DiskFailed { fault, .. } if *fault == kind), "{told:?}");
        assert!(told.to_string().contains(remedy), "{told}");
        for write in waiting {
            let error = trio.wait(write).expect_err("nothing was acknowledged");
            assert!(error.outcome_unknown(), "{fault:?}: {error:?}");
        }
        let late = trio.wait(make(&client, "/late", 1)).expect_err("it ended");
        assert!(
            matches!(&late, Error::Closed { why: told, submitted: false } if told.contains(&why))
        );
        let other = trio.client(leader % 3 + 1);
        let made = trio.until("a successor", |it| it.wait(make(&other, "/after", 1)).ok());
        assert!(made.path().is_some());
        // The same disk, mended: everything that was acknowledged is there.
        trio.hosts[leader as usize - 1] = None;
        disks[leader as usize - 1].arm(&[]);
        let log = open(&disks[leader as usize - 1], leader, 2);
        let back = host_on(log, leader, &trio.board, &trio.now, |config| config);
        trio.hosts[leader as usize - 1] = Some(back);
        let client = trio.client(leader);
        trio.until("it has caught up", |it| {
            let read = client.exists(&path("/after"), Consistency::Local);
            it.wait(read).ok().flatten()
        });
        for n in 0..5 {
            let read = client.exists(&path(&format!("/before{n}")), Consistency::Local);
            assert!(trio.wait(read).expect("local").is_some(), "{n}");
        }
    }
}

#[test]
fn a_nearly_full_disk_refuses_what_grows_and_takes_what_shrinks() {
    let (mut trio, disks) = on_disks();
    let leader = trio.leader();
    let (client, session) = (trio.client(leader), trio.session(leader));
    trio.wait(make(&client, "/old", 1)).expect("there is room");
    // Only the making of the next spare segment shall meet the full disk.
    let host = leader as usize - 1;
    let no_space = |trio: &Trio| {
        let log = trio.hosts[host].as_ref().map(|it| it.log_status());
        log.flatten().is_some_and(|it| it.no_space)
    };
    let mono = *trio.now.lock().unwrap();
    let mut n = 0;
    while !no_space(&trio) {
        n += 1;
        assert!(n < 100, "a segment never fills up");
        let write = make(&client, &format!("/fill{n}"), 4000);
        let running = trio.hosts[host].as_mut().expect("it runs");
        let done: Vec<_> = running.turn(Now { mono, wall_ms: 7 }).housework;
        disks[host].arm(&[Fault::NoSpace(1)]);
        for done in done.into_iter().filter_map(Housework::run) {
            running.housework_done(done);
        }
        disks[host].arm(&[]);
        if !no_space(&trio) {
            trio.wait(write).expect("there is room");
        }
    }
    // Until the log tries again the disk is taken to be full.
    let status = client.status();
    let mut refused = make(&client, "/refused", 1);
    let mut opened = client.open_session(Duration::from_secs(3));
    let delete = client.delete(&path("/old"), None);
    let closed = session.close();
    let running = trio.hosts[host].as_mut().expect("it runs");
    let tasks = running.turn(Now { mono, wall_ms: 7 }).housework;
    let disk = status.wait().expect("it runs").disk;
    assert!(disk.is_full && disk.log_bytes >= 4096 && disk.snapshot_bytes > 0, "{disk:?}");
    for answer in [
        refused.try_take().expect("at once").map(drop),
        opened.try_take().expect("at once").map(drop),
    ] {
        let error = answer.expect_err("no room");
        assert_eq!(error, Error::Submit(SubmitError::DiskFull));
        assert!(error.is_retryable() && !error.outcome_unknown());
    }
    for done in tasks.into_iter().filter_map(Housework::run) {
        trio.hosts[host].as_mut().expect("it runs").housework_done(done);
    }
    trio.wait(delete).expect("it makes room");
    trio.wait(closed).expect("it makes room");
    trio.until("it clears by itself", |it| it.wait(make(&client, "/new", 1)).ok());
    assert_eq!(ended(&trio, leader), None);
}

#[test]
fn rot_at_rest_ends_the_node_though_nobody_writes() {
    let (mut trio, disks) = on_disks();
    let client = trio.client(1);
    for n in 0..40 {
        trio.wait(make(&client, &format!("/n{n}"), 4000)).expect("fine");
    }
    let names = disks[1].list(FsPath::new(DIR)).expect("it is there");
    let full = |name: &&String| name.ends_with(".log") && !name.starts_with("spare-");
    let first = names.iter().filter(full).min().expect("there are segments");
    let file = FsPath::new(DIR).join(first);
    let mut bytes = disks[1].contents(&file).expect("it is there");
    bytes[512 + 100] ^= 1;
    disks[1].put(&file, &bytes);
    let why = reason(&mut trio, 2);
    let place = format!("{} is corrupt at byte 512", file.display());
    assert!(why.contains(&place), "{why}");
    let told = ended(&trio, 2).expect("it has");
    assert!(matches!(told, Ended::DiskFailed { fault: DiskFault::Damaged, .. }), "{told:?}");
    let remedy = told.to_string();
    assert!(remedy.contains("under a new id") && !remedy.contains("same data"), "{remedy}");
    assert_eq!((ended(&trio, 1), ended(&trio, 3)), (None, None));
}

#[test]
fn a_driver_says_why_its_node_has_ended() {
    let fs = MemoryFs::new();
    let config = Config::founding(ClusterId::named("trio"), id(1), [id(1)])
        .tick_interval(Duration::from_millis(10))
        .renewal_interval(Duration::from_millis(100));
    let inbox = Inbox::new();
    let line = Switchboard::new().connect(id(1), inbox.clone());
    let (log, restored) = open(&fs, 1, 1);
    let config = config.build().expect("in range");
    let host = Host::new(config, log, restored, line, inbox).expect("it opens");
    let driver = Driver::spawn(host).expect("a thread");
    let client = driver.client().clone();
    make(&client, "/a", 1).wait().expect("alone");
    assert!(driver.is_running());
    fs.arm(&[Fault::FailSync(1)]);
    let error = make(&client, "/b", 1).wait().expect_err("the disk fails");
    assert!(error.outcome_unknown(), "{error:?}");
    // The answer may come a moment before the thread is gone; this one comes after the end.
    let error = loop {
        match client.status().wait() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    let told = matches!(&error, Error::Closed { why, .. } if why.contains("the sync failed"));
    assert!(told, "{error:?}");
    while driver.is_running() {}
    let cause = driver.stop();
    assert!(
        matches!(cause, Some(Ended::DiskFailed { why, .. }) if why.contains("the sync failed"))
    );
}

#[test]
fn too_many_writes_are_refused_in_order_and_it_recovers() {
    let (board, now) = (Switchboard::new(), Arc::new(Mutex::new(Duration::ZERO)));
    let limits = Limits { pending_count_max: 8, ..Limits::default() };
    let host = |n| Some(host_with(n, &board, &now, |it| it.limits(limits.clone())));
    let hosts = (1..=3).map(host).collect();
    let mut trio = Trio { hosts, board, now };
    trio.run(Duration::from_secs(3));
    let session = trio.session(1);
    let write = |n: usize| session.create(&path(&format!("/n{n}")), "", CreateMode::Persistent);
    let mut writes: Vec<_> = (0..12).map(write).collect();
    trio.run(Duration::from_secs(1));
    // Submitted when there is room again, but before anybody has seen the refusal.
    let unseen = write(12);
    let mut answers = Vec::new();
    for write in writes.drain(..9) {
        answers.push(trio.wait(write));
    }
    let refusal = answers.pop().expect("nine").expect_err("one too many");
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let what = "pending_count_max";
    assert_eq!(refusal, Error::Submit(SubmitError::Overloaded { what, max: 8 }));
    assert!(refusal.is_retryable() && !refusal.outcome_unknown());
    writes.push(unseen);
    for withheld in writes {
        let error = trio.wait(withheld).expect_err("it would leave a hole");
        assert_eq!(error, Error::Withheld);
    }
    for n in 8..13 {
        trio.wait(write(n)).expect("seen, so it goes on");
    }
}

#[test]
fn rule_7_a_full_inbox_leaves_no_hole_in_a_session() {
    let (board, now) = (Switchboard::new(), Arc::new(Mutex::new(Duration::ZERO)));
    let host = |n| {
        let boot = Boot { counter: 1, nonce: n };
        let restored = Restored::new(StoreId::from_bytes([n as u8; 16]), boot);
        let inbox = Inbox::bounded(16_384, 256 << 20, 2);
        Some(host_in(inbox, (Log::Memory, restored), n, (&board, &now), |config| config))
    };
    let hosts = (1..=3).map(host).collect();
    let mut trio = Trio { hosts, board, now };
    trio.run(Duration::from_secs(3));
    let session = trio.session(1);
    let write = |n: usize| session.create(&path(&format!("/n{n}")), "", CreateMode::Persistent);
    let taken = [write(0), write(1)];
    let mut full = write(2);
    let behind = write(3);
    trio.run(Duration::from_millis(100));
    // There is room again, but nobody has seen the refusal: only what it held up.
    assert_eq!(trio.wait(behind).expect_err("it would leave a hole"), Error::Withheld);
    let unseen = write(4);
    trio.run(Duration::from_millis(100));
    for write in taken {
        trio.wait(write).expect("it came before the refusal");
    }
    let error = full.try_take().expect("at once").expect_err("no room");
    assert_eq!(error, Error::Full { max: 2 });
    let seen = write(5);
    trio.wait(seen).expect("seen, so it goes on");
    assert_eq!(trio.wait(unseen).expect_err("it would leave a hole"), Error::Withheld);
    // To look at a refusal of the inbox is not to look at one of the node.
    let big = session.create(&path("/big"), vec![0; 2 << 20], CreateMode::Persistent);
    let (_room, full) = (write(6), write(7));
    trio.run(Duration::from_millis(100));
    assert_eq!(trio.wait(full).expect_err("no room"), Error::Full { max: 2 });
    assert_eq!(trio.wait(write(8)).expect_err("the big one failed before"), Error::Withheld);
    trio.wait(big).expect_err("too big");
    trio.wait(write(9)).expect("all is seen");
}

#[test]
fn rule_9_an_opening_whose_outcome_is_unknown_is_repeated_with_its_secret() {
    let mut trio = Trio::new();
    let away = trio.leader() % 3 + 1;
    let (client, ttl) = (trio.client(away), Duration::from_secs(3));
    let secret = Secret::from_bytes([7; 16]);
    trio.board.isolate(id(away));
    let error = trio.wait(client.open_session_with(secret, ttl)).expect_err("nobody hears it");
    assert!(error.outcome_unknown() && !error.is_retryable(), "{error:?}");
    trio.board.heal();
    let opened = trio.until("a leader", |it| it.wait(client.open_session_with(secret, ttl)).ok());
    let again = trio.wait(client.open_session_with(secret, ttl)).expect("it is known");
    assert_eq!((opened.id(), again.key().secret), (again.id(), secret));
    let status = trio.wait(client.status()).expect("it runs");
    assert_eq!(status.sessions, 1);
}

#[test]
fn without_random_bytes_there_are_no_secrets_and_the_node_goes_on() {
    let mut trio = Trio::new();
    let session = trio.session(1);
    let host = trio.hosts[0].take().expect("it runs");
    trio.hosts[0] = Some(host.without_entropy());
    let client = trio.client(1);
    let error = trio.wait(client.open_session(Duration::from_secs(3))).expect_err("no secret");
    assert!(matches!(error, Error::NoRandomness { .. }), "{error:?}");
    assert!(!error.outcome_unknown());
    let lock = session.lock(&path("/l"));
    drop(lock);
    trio.wait(make(&client, "/on", 1)).expect("it goes on");
    assert_eq!(ended(&trio, 1), None);
}

/// While the node waits for its disk the host takes nothing, and asks for no turn that would find
/// nothing to do.
#[test]
fn a_host_that_waits_for_its_disk_takes_nothing_and_does_not_spin() {
    let (board, now) = (Switchboard::new(), Arc::new(Mutex::new(Duration::ZERO)));
    let fs = MemoryFs::new();
    let inbox = Inbox::new();
    let line = board.connect(id(1), inbox.clone());
    let config = Config::founding(ClusterId::named("trio"), id(1), [id(1)]);
    let (log, restored) = open(&fs, 1, 1);
    let mut host =
        Host::new(config.build().expect("valid"), log, restored, line, inbox).expect("it opens");
    let (queue, worker) = host.move_disk_away().expect("it has one");
    let client = host.client();
    let mailbox = Arc::clone(client.mailbox());
    let turn = |host: &mut Host| {
        let mut mono = now.lock().unwrap();
        *mono += Duration::from_millis(60);
        (*mono, host.turn(Now { mono: *mono, wall_ms: 7 }))
    };
    while !host.node().is_blocked() {
        turn(&mut host);
    }
    let mut write = make(&client, "/a", 1);
    for _ in 0..100 {
        let (mono, it) = turn(&mut host);
        assert!(!it.more && it.next_tick > mono, "{it:?} at {mono:?}");
    }
    assert!(host.node().is_blocked() && !write.is_done());
    std::thread::scope(|scope| {
        scope.spawn(|| queue.work(worker, &mailbox));
        let answer = loop {
            turn(&mut host);
            mailbox.wait(Duration::from_millis(1));
            if let Some(answer) = write.try_take() {
                break answer;
            }
        };
        answer.expect("it waited in the mailbox");
        drop(host);
    });
}
