//! What the fuzz targets call: bytes in, and an assertion fails when something is wrong.
//!
//! Compiled for tests, which feed each target mutated real inputs, and for cargo-fuzz, which sets
//! `--cfg fuzzing`. Each target is total: no input may make it panic, hang, or take memory beyond
//! the caps that the decoders declare.

use std::path::Path as Directory;

use bytes::Bytes;

use crate::{
    command::{Batch, Command, Entry},
    config::Config,
    id::{Boot, ClusterId, Incarnation, NodeId, Origin, Secret, SessionId, StoreId, Zxid},
    namespace::{Decoder, Encoder, Namespace},
    node::Write,
    op::{CreateMode, Identities, Op},
    path::Path,
    wal::{Fs, MemoryFs, Wal, WalError, WalOptions},
    wire::{Body, DigestReport, EntryKind, FRAME_BYTES_MAX, Forward, Frame, HardState, LogEntry},
};

/// The targets by name, each with inputs to start from.
pub const TARGETS: [Target; 5] = [
    Target { name: "frame", run: frame, seeds: frame_seeds },
    Target { name: "entry", run: entry, seeds: entry_seeds },
    Target { name: "snapshot", run: snapshot, seeds: snapshot_seeds },
    Target { name: "log", run: log, seeds: log_seeds },
    Target { name: "path", run: path, seeds: path_seeds },
];

/// One target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The file in fuzz/fuzz_targets, and the folder in fuzz/corpus.
    pub name: &'static str,
    /// Runs it on one input.
    pub run: fn(&[u8]),
    /// Inputs that a member makes itself.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// A frame from a peer: the kind, then the body; the header around them is sound, or nothing would
/// come past the checksum.
pub fn frame(data: &[u8]) {
    let (&kind, body) = data.split_first().unwrap_or((&0, &[]));
    let mut bytes = frame_of(Body::ReadIndex { context: [0; 16] }).encode()[..80].to_vec();
    bytes[6..8].copy_from_slice(&u16::from(kind).to_le_bytes());
    bytes[72..76].copy_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..76]), body);
    bytes[76..80].copy_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(body);
    if let Ok(frame) = Frame::decode(&bytes.into(), FRAME_BYTES_MAX) {
        let again = Frame::decode(&frame.encode(), FRAME_BYTES_MAX);
        assert_eq!(again.as_ref(), Ok(&frame), "what was taken is what would be sent");
    }
    // And as it is.
    let _ = Frame::decode(&Bytes::copy_from_slice(data), FRAME_BYTES_MAX);
}

fn frame_of(body: Body) -> Frame {
    let id = NODE;
    let incarnation =
        Incarnation { store: StoreId::from_bytes([7; 16]), boot: Boot { counter: 1, nonce: 2 } };
    Frame { cluster: cluster(), from: id, to: id, incarnation, body }
}

fn frame_seeds() -> Vec<Vec<u8>> {
    let command = create("/seed", 1).encode();
    let bodies = [
        Body::Forward(Forward { commands: command, term: 2, number: 1 }),
        Body::ReadIndex { context: [3; 16] },
        Body::ReadIndexReply { context: [3; 16], index: 9, term: 2 },
        Body::SnapshotOffer { index: 9, term: 2 },
        Body::SnapshotPull { index: 9, term: 2, offset: 512 },
        Body::SnapshotStaged { index: 9, term: 2, crc: 4 },
        Body::DigestReport(DigestReport { index: 9, version: 1, digest: 5 }),
        Body::Marks { after: Zxid::ZERO, items: vec![(Zxid::new(1), 6), (Zxid::new(3), 7)] },
        Body::StateOffer { index: 9, term: 2 },
    ];
    let seed = |body| {
        let bytes = frame_of(body).encode();
        [&bytes[6..7], &bytes[80..]].concat()
    };
    bodies.map(seed).into()
}

/// An entry of the log, or its commands alone: what decodes is encoded alike again, and whatever it
/// does to a state, the state goes through its snapshot.
pub fn entry(data: &[u8]) {
    let mut namespace = populated();
    let mut batch = match Entry::decode(Bytes::copy_from_slice(data)) {
        Ok(entry) => {
            namespace.begin_entry(entry.advance_us, entry.wall_ms);
            entry.commands
        }
        Err(_) => Batch(Bytes::copy_from_slice(data)),
    };
    while let Some(command) = batch.next_command() {
        if let Ok(command) = command {
            let mut again = Batch(command.encode());
            assert_eq!(again.next_command(), Some(Ok(command.clone())), "encoded alike again");
            namespace.apply(command);
            namespace.drain_changes();
        }
    }
    round_trip(&namespace);
}

fn entry_seeds() -> Vec<Vec<u8>> {
    let session = SessionId::new(1);
    let set = |path: Path| Op::Set { path, data: Bytes::from_static(b"new"), version: Some(0) };
    let mut commands = vec![create("/a/b", 7), create("/a/b/c", 8)];
    commands.extend(session.zip(some_path()).map(|(session, path)| {
        let (epoch, seq, acked) = (1, 1, 0);
        Command::SessionTxn { session, epoch, seq, acked, txn: set(path).into() }
    }));
    commands.extend(session.map(|it| Command::Expire { lease: it.lease() }));
    commands.push(Command::CompareStates { index: 9, version: 1, digest: 5 });
    let parts: Vec<Bytes> = commands.iter().map(Command::encode).collect();
    let one = |part: &Bytes| Entry::encode(1, 2, std::slice::from_ref(part)).to_vec();
    let mut seeds: Vec<_> = parts.iter().map(one).collect();
    seeds.push(Entry::encode(50_000, 1_000, &parts).to_vec());
    seeds
}

/// A snapshot of the state, or edits of a real one; a state that it gives goes on like any other.
pub fn snapshot(data: &[u8]) {
    let real = snapshot_of(&populated());
    for bytes in [data.to_vec(), edited(&real, data)] {
        let mut decoder = Decoder::new(cluster());
        let fed = bytes.chunks(97).try_for_each(|it| decoder.feed(Bytes::copy_from_slice(it)));
        if let (Ok(()), Ok((mut namespace, ..))) = (fed, decoder.finish()) {
            namespace.begin_entry(1_000, 5);
            namespace.apply(create("/after", 99));
            round_trip(&namespace);
        }
    }
}

fn snapshot_seeds() -> Vec<Vec<u8>> {
    vec![snapshot_of(&populated()), vec![0, 1, 2, 3, 4, 5, 6, 7]]
}

/// Edits of a real store: it opens with a prefix of what was written, or says what is damaged.
pub fn log(data: &[u8]) {
    let (fs, directory) = (MemoryFs::new(), Directory::new("/log"));
    let open = || {
        let mut options = WalOptions::default();
        (options.entropy, options.segment_bytes) = (Some([7; 32]), 4096);
        let fs: std::sync::Arc<dyn Fs> = std::sync::Arc::new(fs.clone());
        Wal::open_with(fs, directory, cluster(), NODE, options)
    };
    let entry = |index| LogEntry::new(index, 1, EntryKind::Normal, vec![index as u8; 90].into());
    let written: Vec<LogEntry> = (1..=12).map(entry).collect();
    let Ok((mut wal, _)) = open() else {
        return;
    };
    for part in written.chunks(3) {
        let hard_state = Some(HardState::new(1, 1, part[0].index - 1));
        let write = Write { entries: part.to_vec(), hard_state, ..Write::default() };
        assert!(wal.persist(&write).is_ok(), "the disk is sound");
    }
    drop(wal);
    let names = fs.list(directory).unwrap_or_default();
    for edit in data.chunks_exact(4) {
        let file = directory.join(&names[usize::from(edit[0]) % names.len()]);
        if let Some(mut bytes) = fs.contents(&file).filter(|bytes| !bytes.is_empty()) {
            let at = usize::from(u16::from_le_bytes([edit[1], edit[2]])) % bytes.len();
            bytes[at] = edit[3];
            fs.put(&file, &bytes);
        }
    }
    match open() {
        Ok((_, restored)) => {
            let same = written.starts_with(&restored.entries);
            assert!(same, "entries that nobody wrote: {:?}", restored.entries);
            let short = restored.entries.len() < written.len();
            assert!(!short || restored.tail_cut, "a cut that nobody is told of");
        }
        Err(WalError::Io { .. }) => panic!("a sound disk gives no such error"),
        Err(_) => {}
    }
}

fn log_seeds() -> Vec<Vec<u8>> {
    vec![Vec::new(), vec![0, 0, 0, 1], vec![1, 0, 2, 9, 1, 4, 2, 9], vec![2, 100, 2, 255]]
}

/// A path: taken if and only if ZooKeeper's `PathUtils` would take it, within our length.
pub fn path(data: &[u8]) {
    let text = std::str::from_utf8(data);
    let taken = Path::from_bytes(data);
    assert_eq!(taken.is_ok(), text.is_ok_and(is_path), "{text:?}");
    if let Ok(path) = taken {
        assert_eq!(path.as_str().as_bytes(), data);
        let parts = path.parent().map(|parent| parent.join(path.name()));
        assert!(parts.is_none_or(|joined| joined == Ok(path.clone())), "{path:?}");
    }
}

/// ZooKeeper's rules once more, one by one.
fn is_path(text: &str) -> bool {
    let control = |c| matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}');
    let strange = |c| matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}');
    let bad = |c: char| control(c) || strange(c);
    let name = |name: &str| !name.is_empty() && name != "." && name != ".." && !name.contains(bad);
    match text.strip_prefix('/') {
        _ if text.len() > Path::BYTES_MAX => false,
        Some("") => true,
        Some(names) => names.split('/').all(name),
        None => false,
    }
}

fn path_seeds() -> Vec<Vec<u8>> {
    let texts = ["/", "/a", "/a/b.c", "/a//b", "/a/./b", "/..", "a", "/a/", "/\u{e9}", "/\u{f8ff}"];
    texts.map(|text| text.as_bytes().to_vec()).into()
}

/// A state with a session, ephemeral and sequential nodes, and a history.
fn populated() -> Namespace {
    let id = NODE;
    let parameters = match Config::founding(cluster(), id, [id]).build() {
        Ok(config) => config.parameters(),
        Err(error) => panic!("the defaults are valid: {error}"),
    };
    let mut namespace = Namespace::new(parameters);
    namespace.begin_entry(10_000, 1_000);
    let secret = Secret::from_bytes([7; 16]).hash();
    let (origin, identities) = (origin(1), Identities::none());
    namespace.apply(Command::OpenSession { origin, secret, ttl_us: 1_000_000, identities });
    for (counter, name) in (2..).zip(["/a", "/a/x", "/b", "/b/y", "/b/y/z"]) {
        namespace.apply(create(name, counter));
    }
    if let (Some(session), Some(path)) = (SessionId::new(1), some_path()) {
        let (mode, data) = (CreateMode::EphemeralSequential, Bytes::from_static(b"mine"));
        let txn = Op::Create { path: path.into(), data, mode, acl: None }.into();
        namespace.apply(Command::SessionTxn { session, epoch: 1, seq: 1, acked: 0, txn });
    }
    namespace.drain_changes();
    namespace
}

fn create(name: &str, counter: u64) -> Command {
    let path = Path::new(name).unwrap_or_else(|_| Path::root()).into();
    let (mode, data) = (CreateMode::Persistent, Bytes::from_static(b"value"));
    let txn = Op::Create { path, data, mode, acl: None }.into();
    Command::PlainTxn { origin: origin(counter), identities: Identities::none(), txn }
}

fn origin(counter: u64) -> Origin {
    Origin { node: NODE, boot_nonce: 5, counter }
}

fn some_path() -> Option<Path> {
    Path::new("/a/x").ok()
}

fn cluster() -> ClusterId {
    ClusterId::named("fuzz")
}

fn snapshot_of(namespace: &Namespace) -> Vec<u8> {
    let (members, removed) = (Bytes::from_static(b"members"), Bytes::new());
    let mut encoder = Encoder::new(namespace.freeze(), cluster(), members, removed);
    std::iter::from_fn(|| encoder.next_chunk(1 << 16)).flatten().collect()
}

/// The digest in it is checked by the decoder, against one that it makes from nothing.
fn round_trip(namespace: &Namespace) {
    let bytes = snapshot_of(namespace);
    let mut decoder = Decoder::new(cluster());
    assert_eq!(decoder.feed(bytes.clone().into()), Ok(()), "a state that was reached");
    match decoder.finish() {
        Ok((again, ..)) => assert_eq!(snapshot_of(&again), bytes, "the same state"),
        Err(error) => panic!("a state that was reached: {error}"),
    }
}

/// Three bytes an edit: where, and what stands there then.
fn edited(real: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut bytes = real.to_vec();
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % bytes.len();
        bytes[at] = edit[2];
    }
    bytes
}

const NODE: NodeId = match NodeId::new(1) {
    Some(id) => id,
    None => panic!("1 is an id"),
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Every target takes its seeds, and thousands of inputs made from them.
    #[test]
    fn targets_take_mutated_inputs() {
        for Target { name, run, seeds } in TARGETS {
            let seeds = seeds();
            seeds.iter().for_each(|seed| run(seed));
            let mut draw = 0x9e37_79b9_7f4a_7c15_u64 ^ name.len() as u64;
            let mut below = |n: usize| {
                draw ^= draw << 13;
                draw ^= draw >> 7;
                draw ^= draw << 17;
                (draw % n as u64) as usize
            };
            for _ in 0..INPUTS {
                let mut input = seeds[below(seeds.len())].clone();
                for _ in 0..=below(4) {
                    let at = below(input.len() + 1);
                    match below(4) {
                        0 => input.truncate(at),
                        1 => input.insert(at, below(256) as u8),
                        2 if at < input.len() => input[at] ^= 1 << below(8),
                        _ => input.extend((0..below(12)).map(|_| below(256) as u8)),
                    }
                }
                run(&input);
            }
        }
    }

    /// For each target, in a test build without optimization about a second.
    const INPUTS: usize = 2_000;
}
