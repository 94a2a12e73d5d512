//! What running drivers do when the disk of one of them stalls, or its thread panics.

use std::{
    fmt, io,
    path::Path as FsPath,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Instant,
};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex as Gate};

use super::*;
use crate::{
    client::{Completion, Written},
    node::Ended,
    wal::{Fs, FsFile, MemoryFs, Wal, WalOptions},
};

/// A disk in memory whose syncs wait as long as it is told to, and panic when it is told to.
#[derive(Clone, Debug, Default)]
struct OddFs {
    disk: MemoryFs,
    oddity: Arc<Oddity>,
}

#[derive(Default)]
struct Oddity {
    stalled: Gate<bool>,
    goes_on: Condvar,
    waited: AtomicU64,
    panics: AtomicBool,
}

impl fmt::Debug for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Oddity")
    }
}

#[derive(Debug)]
struct OddFile {
    file: Box<dyn FsFile>,
    oddity: Arc<Oddity>,
}

impl OddFs {
    fn stall(&self, stalled: bool) {
        *self.oddity.stalled.lock() = stalled;
        self.oddity.goes_on.notify_all();
    }

    fn wrap(&self, file: io::Result<Box<dyn FsFile>>) -> io::Result<Box<dyn FsFile>> {
        let oddity = Arc::clone(&self.oddity);
        Ok(Box::new(OddFile { file: file?, oddity }))
    }
}

impl Fs for OddFs {
    fn create_dir(&self, dir: &FsPath) -> io::Result<()> {
        self.disk.create_dir(dir)
    }

    fn list(&self, dir: &FsPath) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn open(&self, path: &FsPath) -> io::Result<Box<dyn FsFile>> {
        self.wrap(self.disk.open(path))
    }

    fn create(&self, path: &FsPath) -> io::Result<Box<dyn FsFile>> {
        self.wrap(self.disk.create(path))
    }

    fn rename(&self, from: &FsPath, to: &FsPath) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &FsPath) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, dir: &FsPath) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn lock(&self, path: &FsPath) -> io::Result<Box<dyn FsFile>> {
        self.disk.lock(path)
    }
}

impl FsFile for OddFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut stalled = self.oddity.stalled.lock();
        if *stalled {
            self.oddity.waited.fetch_add(1, Ordering::SeqCst);
            self.oddity.goes_on.wait_while(&mut stalled, |stalled| *stalled);
        }
        drop(stalled);
        assert!(!self.oddity.panics.load(Ordering::SeqCst), "the disk's code has a bug");
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}

/// Three drivers, each with a thread for its disk.
fn on_odd_disks() -> (Vec<Driver>, [OddFs; 3]) {
    let (board, ids) = (Switchboard::new(), [1, 2, 3].map(id));
    let disks = [(); 3].map(|()| OddFs::default());
    let drivers = ids.map(|id| {
        let config = Config::founding(ClusterId::named("trio"), id, ids)
            .tick_interval(Duration::from_millis(10))
            .renewal_interval(Duration::from_millis(100));
        let inbox = Inbox::new();
        let line = board.connect(id, inbox.clone());
        let fs: Arc<dyn Fs> = Arc::new(disks[id.as_u64() as usize - 1].clone());
        let (dir, options) = (FsPath::new("/data"), WalOptions::default());
        let opened = Wal::open_with(fs, dir, ClusterId::named("trio"), id, options);
        let (wal, restored) = opened.expect("it opens");
        let log = Log::Wal(Box::new(wal));
        let config = config.build().expect("in range");
        let host = Host::new(config, log, restored, line, inbox).expect("it opens");
        Driver::spawn(host).expect("threads")
    });
    (drivers.into(), disks)
}

#[expect(clippy::disallowed_methods, reason = "these drivers run in real time")]
fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(60) {
        if let Some(it) = done() {
            return it;
        }
        thread::sleep(Duration::from_millis(2));
    }
    panic!("never: {what}");
}

fn leader(drivers: &[Driver], not: Option<usize>) -> usize {
    until("a leader", || {
        (0..drivers.len()).filter(|&n| Some(n) != not).find(|&n| {
            let status = drivers[n].client().status().wait();
            status.is_ok_and(|it| it.role == Role::Leader)
        })
    })
}

fn make(client: &Client, name: &str) -> Completion<Written> {
    client.create(&path(name), "x", CreateMode::Persistent)
}

/// Another one leads within the stall; who has stalled follows, and nothing is lost or done twice.
#[test]
fn a_disk_that_stalls_costs_its_node_the_leadership_and_nobody_a_write() {
    let (drivers, disks) = on_odd_disks();
    let first = leader(&drivers, None);
    let session = drivers[first].client().open_session(Duration::from_secs(30)).wait();
    let session = session.expect("a leader");
    let before: Vec<_> = (0..100)
        .map(|n| session.create(&path(&format!("/b{n}")), "x", CreateMode::Persistent))
        .collect();
    before.into_iter().for_each(|it| drop(it.wait().expect("all is well")));
    disks[first].stall(true);
    let mut stuck: Vec<_> = (0..10)
        .map(|n| session.create(&path(&format!("/s{n}")), "x", CreateMode::Persistent))
        .collect();
    let second = leader(&drivers, Some(first));
    for n in 0..100 {
        let name = format!("/d{n}");
        until("a write beside the stall", || make(drivers[second].client(), &name).wait().ok());
    }
    assert!(disks[first].oddity.waited.load(Ordering::SeqCst) > 0, "nothing met the stall");
    assert!(stuck.iter_mut().all(|it| !it.is_done()), "answered before it was durable here");
    disks[first].stall(false);
    for answer in stuck {
        answer.wait().expect("a session's write is sent again, and done once");
    }
    let client = drivers[first].client();
    for name in (0..100).map(|n| format!("/d{n}")).chain((0..100).map(|n| format!("/b{n}"))) {
        let there = client.exists(&path(&name), Consistency::Linearizable).wait();
        assert!(there.expect("a leader").is_some(), "{name}");
    }
    assert!(drivers.iter().all(Driver::is_running));
    until("three states that are alike", || {
        let images = drivers.iter().map(|it| it.client().image().wait().expect("it runs"));
        let states: Vec<_> = images.map(|it| (it.index(), it.checksum())).collect();
        states.windows(2).all(|two| two[0] == two[1]).then_some(())
    });
    drop(session);
}

/// The node cannot know what is durable: it ends, all who wait are told, and the others go on.
#[test]
fn a_disk_thread_that_panics_ends_its_node() {
    let (mut drivers, disks) = on_odd_disks();
    let first = leader(&drivers, None);
    let client = drivers[first].client().clone();
    make(&client, "/before").wait().expect("all is well");
    disks[first].oddity.panics.store(true, Ordering::SeqCst);
    let error = make(&client, "/lost").wait().expect_err("it is not durable here");
    assert!(error.outcome_unknown(), "{error:?}");
    until("the end of the node", || (!drivers[first].is_running()).then_some(()));
    let ended = drivers.remove(first).stop();
    assert!(matches!(ended, Some(Ended::TokenDropped)), "{ended:?}");
    let late = client.status().wait().expect_err("it ended");
    assert!(matches!(late, Error::Closed { .. }), "{late:?}");
    let other = drivers[0].client();
    until("a successor", || make(other, "/after").wait().ok());
}

/// A line that panics when it is told to.
struct OddLine(Line, Arc<AtomicBool>);

impl Transport for OddLine {
    fn send(&mut self, message: crate::node::Message) {
        assert!(!self.1.load(Ordering::SeqCst), "the transport's code has a bug");
        self.0.send(message);
    }

    fn flush(&mut self) {
        self.0.flush();
    }
}

/// Whoever waits is told, and does not wait for ever.
#[test]
fn a_panic_in_an_embedders_transport_answers_everybody_who_waits() {
    let (board, panics) = (Switchboard::new(), Arc::new(AtomicBool::new(false)));
    let drivers = [1, 2, 3].map(|n| {
        let config = Config::founding(ClusterId::named("trio"), id(n), [1, 2, 3].map(id))
            .tick_interval(Duration::from_millis(10))
            .renewal_interval(Duration::from_millis(100));
        let inbox = Inbox::new();
        let line = board.connect(id(n), inbox.clone());
        let boot = Boot { counter: 1, nonce: n };
        let restored = Restored::new(StoreId::from_bytes([n as u8; 16]), boot);
        let config = config.build().expect("in range");
        let panics = if n == 1 { Arc::clone(&panics) } else { Arc::default() };
        let host = Host::new(config, Log::Memory, restored, OddLine(line, panics), inbox);
        Driver::spawn(host.expect("it opens")).expect("threads")
    });
    let client = drivers[0].client();
    until("a leader", || make(client, "/before").wait().ok());
    let mut watcher = client.watch(Filter::Node(path("/before")), None).wait().expect("it runs");
    panics.store(true, Ordering::SeqCst);
    let error = make(client, "/late").wait().expect_err("it has panicked");
    let told = |error: &Error| matches!(error, Error::Closed { why, .. } if why.contains("panic"));
    assert!(told(&error), "{error:?}");
    let end = watcher.next().expect("the end").expect_err("it has panicked");
    assert!(told(&end), "{end:?}");
    until("the end of its thread", || (!drivers[0].is_running()).then_some(()));
    until("the others go on", || make(drivers[1].client(), "/after").wait().ok());
}

/// The backup of one directory begins another, which opens later without it.
#[test]
fn a_backup_founds_a_cluster_in_a_directory_of_its_own() {
    let root = tempfile::tempdir().expect("a directory");
    let start = |config: crate::ConfigBuilder, dir: &str| {
        let (config, inbox) = (config.build().expect("valid"), Inbox::new());
        let line = Switchboard::new().connect(id(1), inbox.clone());
        let host = Host::open(config, &root.path().join(dir), line, inbox).expect("opens");
        Driver::spawn(host).expect("threads")
    };
    let founding = |name| Config::founding(ClusterId::named(name), id(1), [id(1)]);
    let old = start(founding("old"), "old");
    for n in 0..200 {
        let made = old.client().create(&path(&format!("/{n}")), vec![7; 20_000], PERSISTENT);
        made.wait().expect("made");
    }
    let image = old.client().image().wait().expect("it runs");
    let backup: Vec<Bytes> = image.chunks().collect();
    assert!(backup.len() > 3, "of several pieces");
    old.stop();
    let name = ClusterId::named("new");
    let new = start(Config::restoring(name, id(1), [id(1)], backup), "new");
    let set = new.client().set(&path("/7"), "new", Some(0)).wait().expect("set");
    assert!(set.zxid.as_u64() > 1 << 40 && set.zxid > image.zxid());
    let status = new.client().status().wait().expect("it runs");
    assert_ne!(status.lineage, image.lineage());
    new.stop();
    let again = start(founding("new"), "new");
    let (data, stat) =
        again.client().get(&path("/7"), Consistency::Linearizable).wait().expect("read");
    assert_eq!((&data[..], stat.mzxid), (&b"new"[..], set.zxid));
    let view = again.client().view().wait().expect("it runs");
    assert_eq!(
        (view.lineage(), view.descendants(&Path::root(), 999)),
        (status.lineage, Ok((200, false)))
    );
    again.stop();
}

const PERSISTENT: CreateMode = CreateMode::Persistent;
