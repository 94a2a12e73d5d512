//! What a node hands out: messages, writes with their token, and outputs.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;

use crate::{
    id::{Boot, NodeId, StoreId},
    node::request::Output,
    wire::{HardState, LogEntry},
};

/// One drain of a node. Send, persist, send what [`persisted`] returns, deliver: in this order.
///
/// It has a write or outputs, not both: an answer never waits for the fsync of what comes after it.
///
/// [`persisted`]: crate::node::Node::persisted
#[derive(Debug, Default)]
#[non_exhaustive]
#[must_use = "a drained Ready that is dropped loses its outputs and poisons the node"]
pub struct Ready {
    /// May leave at once.
    pub messages: Vec<Message>,
    /// What must be durable before the token is handed back, and that token.
    pub write: Option<(Write, Token)>,
    /// Replies and watch events, in apply order.
    pub outputs: Vec<Output>,
    /// State that is no longer needed and may be dear to drop: drop it on another thread.
    pub garbage: Garbage,
}

/// Bytes for another member; the transport needs to know no more.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// The receiver.
    pub to: NodeId,
    /// The frame.
    pub bytes: Bytes,
}

impl Message {
    pub(crate) fn new(to: NodeId, bytes: Bytes) -> Self {
        Self { to, bytes }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message(to {}, {} bytes)", self.to, self.bytes.len())
    }
}

/// What a node must find again after a crash. Persist the parts in the order of the fields.
///
/// All of it is durable, or (after a crash) a prefix of it; a part that is torn is not there.
#[derive(Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Write {
    /// Steps of the one snapshot that is being staged, in order.
    pub snapshot: Vec<SnapshotWrite>,
    /// Replaces the member's own record; opaque to the log.
    pub local: Option<Bytes>,
    /// Appended; whatever stands at the first one's index and after it is replaced.
    pub entries: Vec<LogEntry>,
    /// Replaces the hard state.
    pub hard_state: Option<HardState>,
    /// Entries up to this index are covered by the installed snapshot and may be dropped.
    pub compact_to: Option<u64>,
}

impl Write {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it does no more to a snapshot than to add bytes to one that nothing refers to yet.
    pub(crate) fn only_stages(&self) -> bool {
        let stages =
            |it: &_| matches!(it, SnapshotWrite::Begin { .. } | SnapshotWrite::Chunk { .. });
        self.local.is_none() && self.compact_to.is_none() && self.snapshot.iter().all(stages)
    }

    /// Whether [`append`](Self::append) may add `next`: both are entries that follow each other,
    /// and maybe a hard state, and they are not too much for one write. Before them there may be
    /// bytes that are staged.
    pub fn takes(&self, next: &Self) -> bool {
        let plain = |it: &Self| it.only_stages() && !it.entries.is_empty();
        let bytes = |it: &Self| it.entries.iter().map(|entry| entry.data.len()).sum::<usize>();
        let follows = match (self.entries.last(), next.entries.first()) {
            (Some(last), Some(first)) => last.index + 1 == first.index,
            _ => false,
        };
        plain(self)
            && plain(next)
            && next.snapshot.is_empty()
            && follows
            && bytes(self) + bytes(next) <= APPEND_BYTES_MAX
    }

    /// Adds the write that came out next, so that both become durable with one fsync; hand both
    /// tokens back then, in order. Only for what [`takes`](Self::takes) allows.
    pub fn append(&mut self, next: Self) {
        self.entries.extend(next.entries);
        self.hard_state = next.hard_state.or(self.hard_state);
    }
}

/// Bytes of the entries that several writes may have together.
const APPEND_BYTES_MAX: usize = 16 << 20;

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range = self.entries.first().zip(self.entries.last());
        f.debug_struct("Write")
            .field("snapshot", &self.snapshot)
            .field("local", &self.local.as_ref().map(Bytes::len))
            .field("entries", &range.map(|(first, last)| first.index..=last.index))
            .field("hard_state", &self.hard_state)
            .field("compact_to", &self.compact_to)
            .finish()
    }
}

/// One step of staging and installing a snapshot.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SnapshotWrite {
    /// Starts a staging area; whatever was staged before is dropped.
    Begin {
        /// The last entry that the snapshot covers.
        index: u64,
        /// Its term.
        term: u64,
    },
    /// The next bytes of the snapshot.
    Chunk {
        /// Where they start; always the end of what was staged.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// All bytes are staged; from here on the staged snapshot survives a crash.
    Finish {
        /// How many there are.
        length: u64,
        /// CRC32C of all of them.
        crc: u32,
    },
    /// Atomically makes the finished snapshot the current one.
    Install {
        /// The last entry that it covers.
        index: u64,
        /// Its term.
        term: u64,
        /// Whether the whole log is dropped: the snapshot came from a leader, and the log goes on
        /// after it. Otherwise the log stays, until `compact_to` says so.
        reset_log: bool,
    },
    /// Drops what was staged.
    Discard,
}

impl fmt::Debug for SnapshotWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin { index, term } => write!(f, "Begin({index}, term {term})"),
            Self::Chunk { offset, bytes } => write!(f, "Chunk({} at {offset})", bytes.len()),
            Self::Finish { length, crc } => write!(f, "Finish({length} bytes, crc {crc:08x})"),
            Self::Install { index, reset_log, .. } => {
                write!(f, "Install({index}, reset_log {reset_log})")
            }
            Self::Discard => f.write_str("Discard"),
        }
    }
}

/// What a log gives back when it is opened.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Restored {
    /// The store's id, drawn when it was made.
    pub store: StoreId,
    /// This opening, durable before the node speaks.
    pub boot: Boot,
    /// The last hard state, or `None` in a new store.
    pub hard_state: Option<HardState>,
    /// The last of [`Write::local`].
    pub local: Option<Bytes>,
    /// The current snapshot, or `None` in a new store.
    pub snapshot: Option<RestoredSnapshot>,
    /// The entries, without a gap, none of them after a gap; those at or below the snapshot's index
    /// may be missing.
    pub entries: Vec<LogEntry>,
    /// Whether a damaged last record was cut off that may have been acknowledged: the node must
    /// not vote until it has caught up.
    pub tail_cut: bool,
}

impl Restored {
    /// A new store that holds nothing.
    pub fn new(store: StoreId, boot: Boot) -> Self {
        Self {
            store,
            boot,
            hard_state: None,
            local: None,
            snapshot: None,
            entries: Vec::new(),
            tail_cut: false,
        }
    }
}

/// A snapshot as it was staged.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestoredSnapshot {
    /// The last entry that it covers.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Its bytes, in order, cut anywhere; their checksum was verified.
    pub chunks: Vec<Bytes>,
}

impl RestoredSnapshot {
    /// A snapshot with these parts.
    pub fn new(index: u64, term: u64, chunks: Vec<Bytes>) -> Self {
        Self { index, term, chunks }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }
}

impl fmt::Debug for RestoredSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RestoredSnapshot({}, term {}, {} bytes)", self.index, self.term, self.bytes())
    }
}

/// The right to say that a [`Write`] is durable, once.
///
/// It cannot be made, copied or kept: a token that is dropped poisons its node, because nobody
/// knows any more what is on the disk.
#[must_use = "a dropped token poisons the node"]
pub struct Token {
    pub(crate) node: NodeId,
    pub(crate) boot: Boot,
    pub(crate) number: u64,
    dropped: Arc<AtomicBool>,
    spent: bool,
}

impl Token {
    pub(crate) fn new(node: NodeId, boot: Boot, number: u64, dropped: Arc<AtomicBool>) -> Self {
        Self { node, boot, number, dropped, spent: false }
    }

    pub(crate) fn spend(mut self) {
        self.spent = true;
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if !self.spent {
            self.dropped.store(true, Ordering::Release);
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({:?}, boot {}, write {})", self.node, self.boot.counter, self.number)
    }
}

/// Old state, to be dropped where it delays nobody.
#[derive(Default)]
#[must_use = "dropping it here may take long; hand it to another thread"]
pub struct Garbage {
    pub(crate) items: Vec<Box<dyn std::any::Any + Send>>,
}

impl Garbage {
    /// Whether there is nothing to drop.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

impl fmt::Debug for Garbage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Garbage({})", self.items.len())
    }
}
