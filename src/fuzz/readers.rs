//! What reads bytes that somebody else has written, alone: to count what it allocates.

use bytes::{Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint};

use super::samples::{
    NODE, bodies, cluster, create, damage, edited, entries, frame_of, head, incarnation, open,
    populated, sealed, snapshot_of, stored, stored_as,
};
use crate::{
    command::{Batch, Command, Entry, KEEP_ALIVES_MAX, KeepAlive},
    config::TXN_OPS_MAX,
    id::{Origin, Secret, SessionId},
    namespace::{Decoder, Namespace},
    op::{CreateMode, Identities, Op, Txn},
    path::Path,
    wal::{Fs, MemoryFs},
    wire::{Body, FRAME_BYTES_MAX, Frame, Hello, Opening, Pin},
};

/// A part that reads foreign bytes.
#[derive(Clone, Copy, Debug)]
pub struct Reader {
    /// What it reads.
    pub name: &'static str,
    /// The target that tries it.
    pub target: &'static str,
    /// How many times the bytes that it reads it may allocate, and a mebibyte.
    pub times: usize,
    /// Inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// What is to be done with an input.
    pub read: fn(&[u8]) -> Reading,
    /// Of about so many bytes, with as many things in them as can be.
    pub dense: fn(usize) -> Vec<Reading>,
}

/// Bytes that are there, and the reading of them.
#[must_use = "nothing is read until `run` is called"]
pub struct Reading {
    /// How many bytes are read.
    pub bytes: usize,
    /// Reads them, and drops what was read.
    pub run: Box<dyn FnOnce()>,
}

impl Reading {
    pub(super) fn new(bytes: usize, run: impl FnOnce() + 'static) -> Self {
        Self { bytes, run: Box::new(run) }
    }
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reading({} bytes)", self.bytes)
    }
}

/// The parts that read foreign bytes.
pub const READERS: &[Reader] = &[
    Reader {
        name: "frame",
        target: "frame",
        times: 4,
        seeds: frames,
        read: frame,
        dense: dense_frames,
    },
    Reader {
        name: "message",
        target: "frame",
        times: 4,
        seeds: || vec![vec![0; 64]],
        read: message,
        dense: dense_messages,
    },
    Reader {
        name: "entry",
        target: "entry",
        times: 4,
        seeds: entries,
        read: entry,
        dense: dense_entries,
    },
    // What comes of it is the state itself, with its indexes.
    Reader {
        name: "snapshot",
        target: "snapshot",
        times: 12,
        seeds: || vec![Vec::new(), vec![9, 0, 1]],
        read: snapshot,
        dense: dense_snapshots,
    },
    // An entry without content has 24 bytes there and 56 in memory, and a list that grows is there
    // three times.
    Reader {
        name: "log",
        target: "log",
        times: 7,
        seeds: || vec![vec![0, 0, 0, 1]],
        read: log,
        dense: dense_logs,
    },
    #[cfg(feature = "zookeeper")]
    super::packets::REQUEST,
    #[cfg(feature = "zookeeper")]
    super::packets::CONNECTION,
];

fn frames() -> Vec<Vec<u8>> {
    bodies().map(|body| frame_of(body).encode().to_vec()).into()
}

/// A whole frame; its checksum is made to hold.
fn frame(data: &[u8]) -> Reading {
    let (head, body) = match data.split_at_checked(head().len()) {
        Some((head, body)) => (Bytes::copy_from_slice(head), body),
        None => (head(), data),
    };
    let kind = u16::from_le_bytes([head[6], head[7]]);
    read_frame(sealed(&head, kind, body))
}

fn read_frame(bytes: Bytes) -> Reading {
    Reading::new(bytes.len(), move || drop(Frame::decode(&bytes, FRAME_BYTES_MAX)))
}

fn dense_frames(bytes: usize) -> Vec<Reading> {
    let pins = vec![Pin { node: NODE, incarnation: incarnation() }; just_grown(bytes / 24)];
    let opening = Opening::default();
    let hello = Hello { bootstrap: 0, founder: false, founded: false, pins, reply: false, opening };
    let zeros = |kind| sealed(&head(), kind, &vec![0; bytes]);
    let hello = frame_of(Body::Hello(hello)).encode();
    (1..=16).map(zeros).chain([hello]).map(read_frame).collect()
}

/// About so many, but one more than a list has room for before it grows to twice the size.
fn just_grown(count: usize) -> usize {
    count.next_power_of_two() / 2 + 1
}

/// Entries of a message of consensus.
fn message(data: &[u8]) -> Reading {
    let mut body = BytesMut::new();
    for (tag, number) in [(1, 3), (2, 1)] {
        encode_key(tag, WireType::Varint, &mut body);
        encode_varint(number, &mut body);
    }
    encode_key(7, WireType::LengthDelimited, &mut body);
    encode_varint(data.len() as u64, &mut body);
    body.extend_from_slice(data);
    read_frame(sealed(&head(), 3, &body))
}

fn dense_messages(bytes: usize) -> Vec<Reading> {
    // Entries of nothing; of an index and a term alone; of one byte.
    let records: [&[u8]; 3] = [&[0], &[4, 16, 1, 24, 1], &[7, 16, 1, 24, 1, 34, 1, 9]];
    records.map(|record| message(&record.repeat(bytes / record.len()))).into()
}

fn entry(data: &[u8]) -> Reading {
    let bytes = Bytes::copy_from_slice(data);
    Reading::new(bytes.len(), move || {
        let mut batch = match Entry::decode(bytes.clone()) {
            Ok(entry) => entry.commands,
            Err(_) => Batch(bytes),
        };
        while batch.next_command().is_some() {}
    })
}

fn dense_entries(bytes: usize) -> Vec<Reading> {
    let origin = Origin { node: NODE, boot_nonce: 5, counter: 1 };
    let identities = Identities::none();
    let path = Path::root();
    let looks = vec![Op::Exists { path }; TXN_OPS_MAX as usize];
    let many = Command::PlainTxn { origin, identities, txn: Txn::all(looks) };
    let session = SessionId::new(1).into_iter();
    let beat = |session| KeepAlive { session, lease: None, epoch: 0, number: 0, acked: 0 };
    let beats = |count| session.clone().map(beat).cycle().take(count).collect();
    let many_beats = [KEEP_ALIVES_MAX, bytes / 3].map(|count| Command::KeepAlives(beats(count)));
    let [few, more] = many_beats;
    let commands = [many, create("/a", 1), few, more].map(|it| it.encode());
    let repeated = commands.map(|it| vec![it.clone(); (bytes / it.len()).max(1)]);
    repeated.map(|it| entry(&Entry::encode(1, 2, &it))).into()
}

/// Edits of a real one.
fn snapshot(data: &[u8]) -> Reading {
    read_snapshot(edited(&snapshot_of(&populated()), data))
}

fn read_snapshot(bytes: Vec<u8>) -> Reading {
    let chunks: Vec<Bytes> = bytes.chunks(1 << 16).map(Bytes::copy_from_slice).collect();
    Reading::new(bytes.len(), move || {
        let mut decoder = Decoder::new(cluster());
        if chunks.into_iter().try_for_each(|chunk| decoder.feed(chunk)).is_ok() {
            drop(decoder.finish());
        }
    })
}

fn dense_snapshots(bytes: usize) -> Vec<Reading> {
    let count = bytes as u64 / 100;
    let of = |more: fn(&mut Namespace, u64)| {
        let mut namespace = populated();
        (0..count).for_each(|number| more(&mut namespace, number));
        read_snapshot(snapshot_of(&namespace))
    };
    let nodes = of(|it, number| {
        it.apply(create(&format!("/b/{number}"), 10 + number));
    });
    let sessions = of(|it, number| {
        let origin = Origin { node: NODE, boot_nonce: 5, counter: number };
        let (secret, identities) = (Secret::from_bytes(seeded(number)).hash(), Identities::none());
        it.apply(Command::OpenSession { origin, secret, ttl_us: 1_000_000, identities });
    });
    let empty = of(|it, number| {
        let path = Path::new(&format!("/b/{number}")).unwrap_or_else(|_| Path::root()).into();
        let (mode, data) = (CreateMode::Persistent, Bytes::new());
        let txn = Op::Create { path, data, mode, acl: None }.into();
        let origin = Origin { node: NODE, boot_nonce: 5, counter: number };
        it.apply(Command::PlainTxn { origin, identities: Identities::none(), txn });
        it.drain_changes();
    });
    vec![nodes, sessions, empty]
}

fn seeded(number: u64) -> [u8; 16] {
    u128::from(number + 8).to_le_bytes()
}

/// Edits of a real store.
fn log(data: &[u8]) -> Reading {
    let (fs, _) = stored(12);
    damage(&fs, data);
    read_store(fs)
}

fn read_store(fs: MemoryFs) -> Reading {
    let folder = std::path::Path::new(super::samples::DIRECTORY);
    let names = fs.list(folder).unwrap_or_default();
    let sizes = names.iter().filter_map(|name| fs.contents(&folder.join(name)));
    let bytes = sizes.map(|bytes| bytes.len()).sum();
    Reading::new(bytes, move || drop(open(&fs)))
}

fn dense_logs(bytes: usize) -> Vec<Reading> {
    // A record of an entry has 24 bytes.
    let small = stored_as(just_grown(bytes / 24) as u64, 0, 4096).0;
    vec![read_store(small), read_store(stored_as(bytes as u64 / 114, 90, 1024).0)]
}
