//! The limit that raft-rs itself sets: three `RawNode`s, a thread each, messages encoded and
//! decoded and nothing else; once in memory, once with the same bytes written and synced.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};
use protobuf::Message as _;
use raft::{
    Config, RawNode, StateRole,
    eraftpb::{ConfState, Entry, HardState, Message, MessageType, Snapshot},
    storage::MemStorage,
};

use crate::{machine, table::Row};

/// What one thread needs.
struct Member {
    raw: RawNode<MemStorage>,
    inbox: Receiver<Vec<u8>>,
    peers: Vec<Sender<Vec<u8>>>,
    file: Option<Log>,
    committed: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    in_flight: u64,
    proposed: u64,
}

/// A file of zeros that is overwritten again and again.
struct Log {
    file: File,
    at: u64,
    buffer: Vec<u8>,
}

impl Log {
    fn new(path: &Path) -> io::Result<Self> {
        let file = File::create(path)?;
        let zeros = vec![0; 1 << 20];
        for n in 0..(LOG_BYTES >> 20) {
            file.write_all_at(&zeros, n << 20)?;
        }
        file.sync_all()?;
        Ok(Self { file, at: 0, buffer: Vec::new() })
    }

    fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        self.buffer.clear();
        for entry in entries {
            self.buffer.extend_from_slice(&[0; RECORD_HEAD]);
            self.buffer.extend_from_slice(&entry.data);
        }
        if self.at + self.buffer.len() as u64 > LOG_BYTES {
            self.at = 0;
        }
        self.file.write_all_at(&self.buffer, self.at)?;
        self.at += self.buffer.len() as u64;
        self.file.sync_data()
    }
}

/// Runs the three nodes for `time` with `in_flight` proposals under way.
pub(crate) fn run(in_flight: usize, time: Duration, dir: Option<&Path>) -> io::Result<Row> {
    let stop = Arc::new(AtomicBool::new(false));
    let committed = Arc::new(AtomicU64::new(0));
    let (senders, inboxes): (Vec<_>, Vec<_>) = (0..3).map(|_| unbounded()).unzip();
    let mut threads = Vec::new();
    for (n, inbox) in inboxes.into_iter().enumerate() {
        let file = match dir {
            Some(dir) => Some(Log::new(&dir.join(format!("bare-{n}")))?),
            None => None,
        };
        let member = Member {
            raw: raw_node(n as u64 + 1),
            inbox,
            peers: senders.clone(),
            file,
            committed: committed.clone(),
            stop: stop.clone(),
            in_flight: in_flight as u64,
            proposed: 0,
        };
        let name = format!("bare-{n}");
        threads.push(thread::Builder::new().name(name).spawn(move || member.run())?);
    }
    while committed.load(Ordering::Relaxed) < 1_000 {
        thread::sleep(Duration::from_millis(5));
    }
    let (cpu, count, start) =
        (machine::cpu_of("bare-"), committed.load(Ordering::Relaxed), Instant::now());
    thread::sleep(time);
    let (elapsed, cpu) = (start.elapsed(), machine::cpu_of("bare-") - cpu);
    let count = committed.load(Ordering::Relaxed) - count;
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().map_err(|_| io::Error::other("a bare raft thread panicked"))??;
    }
    Ok(Row {
        scenario: "bare_raft",
        storage: if dir.is_some() { "wal" } else { "memory" },
        in_flight,
        ops_per_s: count as f64 / elapsed.as_secs_f64(),
        p50_us: f64::NAN,
        p99_us: f64::NAN,
        cpu_us_per_op: cpu.as_secs_f64() * 1e6 / count.max(1) as f64,
        client_cpu_us_per_op: 0.0,
        ratio: None,
        ratio_to: "",
    })
}

impl Member {
    fn run(mut self) -> io::Result<()> {
        if self.raw.raft.id == 1 {
            let _ = self.raw.campaign();
        }
        let mut last_tick = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            if let Ok(bytes) = self.inbox.recv_timeout(Duration::from_millis(10)) {
                self.step(&bytes)?;
                while let Ok(bytes) = self.inbox.try_recv() {
                    self.step(&bytes)?;
                }
            }
            if last_tick.elapsed() >= Duration::from_millis(50) {
                last_tick = Instant::now();
                self.raw.tick();
            }
            self.propose();
            while self.raw.has_ready() {
                self.drain()?;
                self.propose();
            }
        }
        Ok(())
    }

    fn step(&mut self, bytes: &[u8]) -> io::Result<()> {
        let message = Message::parse_from_bytes(bytes).map_err(io::Error::other)?;
        self.raw.step(message).map_err(io::Error::other)
    }

    /// Keeps the window full: all entries that are due in one message.
    fn propose(&mut self) {
        if self.raw.raft.state != StateRole::Leader {
            return;
        }
        let due = self.in_flight - (self.proposed - self.committed.load(Ordering::Relaxed));
        if due == 0 {
            return;
        }
        let value = Bytes::from(vec![7; crate::VALUE_BYTES]);
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.raw.raft.id;
        let entry = || Entry { data: value.clone(), ..Entry::default() };
        message.set_entries((0..due).map(|_| entry()).collect::<Vec<_>>().into());
        if self.raw.step(message).is_ok() {
            self.proposed += due;
        }
    }

    fn drain(&mut self) -> io::Result<()> {
        let mut ready = self.raw.ready();
        self.send(ready.take_messages())?;
        let store = self.raw.raft.raft_log.store.clone();
        self.commit(ready.take_committed_entries());
        if let Some(log) = self.file.as_mut().filter(|_| !ready.entries().is_empty()) {
            log.append(ready.entries())?;
        }
        store.wl().append(ready.entries()).map_err(io::Error::other)?;
        if let Some(hs) = ready.hs() {
            store.wl().set_hardstate(hs.clone());
        }
        self.send(ready.take_persisted_messages())?;
        let mut light = self.raw.advance(ready);
        if let Some(commit) = light.commit_index() {
            store.wl().mut_hard_state().set_commit(commit);
        }
        self.send(light.take_messages())?;
        self.commit(light.take_committed_entries());
        self.raw.advance_apply();
        let applied = self.raw.raft.raft_log.applied;
        if applied > 100_000 && applied % 16 == 0 {
            let _ = store.wl().compact(applied - 50_000);
        }
        Ok(())
    }

    fn commit(&mut self, entries: Vec<Entry>) {
        if self.raw.raft.state == StateRole::Leader {
            let values = entries.iter().filter(|entry| !entry.data.is_empty()).count();
            self.committed.fetch_add(values as u64, Ordering::Relaxed);
        }
    }

    fn send(&self, messages: Vec<Message>) -> io::Result<()> {
        for message in messages {
            let to = message.to as usize - 1;
            let bytes = message.write_to_bytes().map_err(io::Error::other)?;
            let _ = self.peers[to].send(bytes);
        }
        Ok(())
    }
}

fn raw_node(id: u64) -> RawNode<MemStorage> {
    let storage = MemStorage::new();
    let mut snapshot = Snapshot::default();
    snapshot.mut_metadata().index = 1;
    snapshot.mut_metadata().term = 1;
    let members = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
    snapshot.mut_metadata().set_conf_state(members);
    storage.wl().apply_snapshot(snapshot).expect("the first snapshot fits");
    storage.wl().set_hardstate(HardState { term: 1, commit: 1, ..HardState::default() });
    let config = Config {
        id,
        election_tick: 10,
        heartbeat_tick: 2,
        applied: 1,
        max_size_per_msg: 1 << 20,
        max_inflight_msgs: 64,
        check_quorum: true,
        pre_vote: true,
        batch_append: true,
        ..Config::default()
    };
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    RawNode::new(&config, storage, &logger).expect("a valid set-up")
}

/// What a record of the log adds to its data.
const RECORD_HEAD: usize = 40;
const LOG_BYTES: u64 = 64 << 20;
