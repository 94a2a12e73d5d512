//! What a member makes itself: frames, commands, a state, a store. Inputs are made from them.

use std::{path::Path as Directory, sync::Arc};

use bytes::Bytes;

use crate::{
    command::{Command, Entry},
    config::Config,
    id::{Boot, ClusterId, Incarnation, NodeId, Origin, Secret, SessionId, StoreId, Zxid},
    namespace::{Encoder, Namespace},
    node::{Restored, Write},
    op::{CreateMode, Identities, Op, Txn},
    path::Path,
    wal::{Fs, MemoryFs, Wal, WalError, WalOptions},
    wire::{
        Body, Chunk, DigestReport, EntryKind, Forward, Frame, HardState, Hello, LogEntry, Opening,
        Promise, RaftMessage, Refusal,
    },
};

pub(super) fn cluster() -> ClusterId {
    ClusterId::named("fuzz")
}

pub(super) fn incarnation() -> Incarnation {
    Incarnation { store: StoreId::from_bytes([7; 16]), boot: Boot { counter: 1, nonce: 2 } }
}

/// A frame with this kind and body around which everything is sound: nothing else would come past
/// the checksum.
pub(super) fn sealed(head: &[u8], kind: u16, body: &[u8]) -> Bytes {
    let mut bytes = head[..HEADER_BYTES].to_vec();
    bytes[6..8].copy_from_slice(&kind.to_le_bytes());
    bytes[72..76].copy_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..76]), body);
    bytes[76..80].copy_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes.into()
}

/// The header of any frame.
pub(super) fn head() -> Bytes {
    frame_of(Body::ReadIndex { context: [0; 16] }).encode().slice(..HEADER_BYTES)
}

pub(super) fn frame_of(body: Body) -> Frame {
    Frame { cluster: cluster(), from: NODE, to: NODE, incarnation: incarnation(), body }
}

/// One body of each kind.
pub(super) fn bodies() -> [Body; 16] {
    let bytes = create("/seed", 1).encode();
    let entry = LogEntry::new(9, 2, EntryKind::Normal, bytes.clone());
    let message = RaftMessage { kind: 3, term: 2, entries: vec![entry], ..RaftMessage::default() };
    let (opening, promise) = (Opening::default(), Promise::default());
    let (bootstrap, founder, founded, reply, pins) = (3, true, false, true, Vec::new());
    let hello = Hello { bootstrap, founder, founded, pins, reply, opening };
    [
        Body::Hello(hello),
        Body::Refused { reason: Refusal::NotAMember, known: None, promise },
        Body::Raft(message),
        Body::Forward(Forward { commands: bytes.clone(), term: 2, number: 1 }),
        Body::ReadIndex { context: [3; 16] },
        Body::ReadIndexReply { context: [3; 16], index: 9, term: 2 },
        Body::SnapshotOffer { index: 9, term: 2 },
        Body::SnapshotPull { index: 9, term: 2, offset: 512 },
        Body::SnapshotChunk(Chunk { index: 9, term: 2, offset: 0, bytes, crc: Some(4) }),
        Body::SnapshotStaged { index: 9, term: 2, crc: 4 },
        Body::DigestReport(DigestReport { index: 9, version: 1, digest: 5 }),
        Body::DigestAsk { index: 9 },
        Body::MarksAsk { after: Zxid::new(2) },
        Body::Marks { after: Zxid::ZERO, items: vec![(Zxid::new(1), 6), (Zxid::new(3), 7)] },
        Body::StateAsk { index: 9 },
        Body::StateOffer { index: 9, term: 2 },
    ]
}

/// Entries of the log, with one command each, and with all.
pub(super) fn entries() -> Vec<Vec<u8>> {
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

/// A state with a session, ephemeral and sequential nodes, and a history.
pub(super) fn populated() -> Namespace {
    let parameters = match Config::founding(cluster(), NODE, [NODE]).build() {
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

pub(super) fn create(name: &str, counter: u64) -> Command {
    let (origin, txn) = (origin(counter), create_txn(name));
    Command::PlainTxn { origin, identities: Identities::none(), txn }
}

pub(super) fn create_txn(name: &str) -> Txn {
    let path = Path::new(name).unwrap_or_else(|_| Path::root()).into();
    let (mode, data) = (CreateMode::Persistent, Bytes::from_static(b"value"));
    Op::Create { path, data, mode, acl: None }.into()
}

fn origin(counter: u64) -> Origin {
    Origin { node: NODE, boot_nonce: 5, counter }
}

fn some_path() -> Option<Path> {
    Path::new("/a/x").ok()
}

pub(super) fn snapshot_of(namespace: &Namespace) -> Vec<u8> {
    let (members, removed) = (Bytes::from_static(b"members"), Bytes::new());
    let mut encoder = Encoder::new(namespace.freeze(), cluster(), members, removed);
    std::iter::from_fn(|| encoder.next_chunk(1 << 16)).flatten().collect()
}

/// Three bytes an edit: where, and what stands there then.
pub(super) fn edited(real: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut bytes = real.to_vec();
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % bytes.len();
        bytes[at] = edit[2];
    }
    bytes
}

/// A store with these many entries of 90 bytes, and what was written to it.
pub(super) fn stored(entries: u64) -> (MemoryFs, Vec<LogEntry>) {
    stored_as(entries, 90, 3)
}

/// The same, with entries of so many bytes, and so many of them in a batch.
pub(super) fn stored_as(entries: u64, bytes: usize, batch: usize) -> (MemoryFs, Vec<LogEntry>) {
    let fs = MemoryFs::new();
    let entry = |index| LogEntry::new(index, 1, EntryKind::Normal, vec![index as u8; bytes].into());
    let written: Vec<LogEntry> = (1..=entries).map(entry).collect();
    let mut wal = match open(&fs) {
        Ok((wal, _)) => wal,
        Err(error) => panic!("an empty disk: {error}"),
    };
    for part in written.chunks(batch) {
        let hard_state = Some(HardState::new(1, 1, part[0].index - 1));
        let write = Write { entries: part.to_vec(), hard_state, ..Write::default() };
        assert!(wal.persist(&write).is_ok(), "the disk is sound");
    }
    drop(wal);
    (fs, written)
}

/// Opens the store, whose segments are small.
pub(super) fn open(fs: &MemoryFs) -> Result<(Wal, Restored), WalError> {
    let mut options = WalOptions::default();
    (options.entropy, options.segment_bytes) = (Some([7; 32]), 4096);
    let fs: Arc<dyn Fs> = Arc::new(fs.clone());
    Wal::open_with(fs, Directory::new(DIRECTORY), cluster(), NODE, options)
}

/// Four bytes an edit: which file, where, and what stands there then.
pub(super) fn damage(fs: &MemoryFs, edits: &[u8]) {
    let names = fs.list(Directory::new(DIRECTORY)).unwrap_or_default();
    for edit in edits.chunks_exact(4) {
        let file = Directory::new(DIRECTORY).join(&names[usize::from(edit[0]) % names.len()]);
        if let Some(mut bytes) = fs.contents(&file).filter(|bytes| !bytes.is_empty()) {
            let at = usize::from(u16::from_le_bytes([edit[1], edit[2]])) % bytes.len();
            bytes[at] = edit[3];
            fs.put(&file, &bytes);
        }
    }
}

pub(super) const DIRECTORY: &str = "/log";
pub(super) const HEADER_BYTES: usize = crate::wire::HEADER_BYTES;
pub(super) const NODE: NodeId = match NodeId::new(1) {
    Some(id) => id,
    None => panic!("1 is an id"),
};
