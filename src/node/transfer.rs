//! Snapshots on their way: written locally, sent to a member that lags, received from one.
//!
//! A transfer is pulled by its receiver, one chunk at a time, so it delays no heartbeat and resumes
//! where it stopped. The sender serves it in any role, and pins its log from the snapshot on,
//! within bounds; raft hears of it only when the receiver has durably staged and verified every
//! byte (ARCHITECTURE.md, rule 11).

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    config::Parameters,
    id::{ClusterId, Lineage, NodeId, Zxid},
    namespace::{Decoder, Encoder, Frozen, Namespace},
    node::{membership::Membership, ready::SnapshotWrite},
    wire::Chunk,
};

/// A snapshot that this node sends to one member.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) index: u64,
    pub(crate) term: u64,
    source: Source,
    stream: Stream,
    last: Option<Chunk>,
    /// When a chunk was last pulled for the first time.
    progress_tick: u64,
    offered_tick: u64,
    /// Whether raft waits for it: as long as it does, and no longer than the deadline, the log is
    /// kept for it. Otherwise it is taken up again if the log still goes on there.
    pub(crate) awaited: bool,
}

/// A snapshot that this node writes for itself.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) index: u64,
    pub(crate) term: u64,
    /// Bytes of the log that it was begun for.
    pub(crate) log_bytes: usize,
    stream: Stream,
    begun: bool,
}

/// A snapshot that this node receives.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) from: NodeId,
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) offset: u64,
    pub(crate) crc: u32,
    decoder: Option<Decoder>,
    staged: Option<Box<(Namespace, Membership)>>,
    /// The finished snapshot is on the disk.
    pub(crate) durable: bool,
    /// When the last bytes came, or when the present leader was first told of what is durable.
    pub(crate) progress_tick: u64,
    /// When it was last asked for more.
    pub(crate) asked_tick: u64,
    /// The leader, and its term, that was told of what is durable though it offers another.
    pub(crate) told: Option<(NodeId, u64)>,
}

/// What a chunk did.
#[derive(Debug)]
pub(crate) enum Received {
    /// Not the next bytes: nothing.
    Stale,
    /// The bytes are to be staged; the next ones are at the new offset.
    More(SnapshotWrite),
    /// The last bytes: they are to be staged, and then the snapshot is whole.
    Finished([SnapshotWrite; 2]),
    /// The bytes are no snapshot: nothing of them is used.
    Corrupt(String),
}

/// The whole state at one index of the log, frozen: tree, sessions, replies, clock, history and
/// members. To compare with others', or to keep as a backup, from which
/// [`Config::restoring`](crate::Config::restoring) founds a cluster.
///
/// Replicas that have applied the same index have the same checksum.
///
/// ```no_run
/// # fn example(a: quorate::client::Client, b: quorate::client::Client)
/// # -> Result<(), Box<dyn std::error::Error>> {
/// let (a, b) = (a.image().wait()?, b.image().wait()?);
/// assert!(a.index() != b.index() || a.checksum() == b.checksum());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Image {
    index: u64,
    source: Source,
}

impl Image {
    pub(crate) fn new(index: u64, source: Source) -> Self {
        Self { index, source }
    }

    /// The last entry that it covers.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The last transaction.
    pub fn zxid(&self) -> Zxid {
        self.source.frozen.zxid()
    }

    /// Of which history it is.
    pub fn lineage(&self) -> Lineage {
        self.source.frozen.lineage()
    }

    /// Its canonical encoding, a snapshot, in pieces of at most 1 MiB, each encoded when it is
    /// asked for; on any thread. It ends with a digest, so that whoever reads it notices damage.
    ///
    /// All data is in it, and hashes that stand for the passwords of clients: keep it as safe as
    /// the directories of the members.
    pub fn chunks(&self) -> impl Iterator<Item = Bytes> {
        let mut stream = self.source.stream(IMAGE_CHUNK_BYTES);
        std::iter::from_fn(move || stream.next(IMAGE_CHUNK_BYTES).map(|(_, bytes, _)| bytes))
    }

    /// CRC32C of its canonical encoding, a snapshot. Takes as long as to write one.
    pub fn checksum(&self) -> u32 {
        let mut stream = self.source.stream(IMAGE_CHUNK_BYTES);
        while stream.next(IMAGE_CHUNK_BYTES).is_some() {}
        stream.crc
    }
}

/// A frozen state and what goes with it into a snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) frozen: Frozen,
    pub(crate) cluster: ClusterId,
    pub(crate) membership: Membership,
}

/// The bytes of one snapshot, in order.
#[derive(Debug)]
struct Stream {
    encoder: Encoder,
    next: Option<Bytes>,
    offset: u64,
    crc: u32,
}

impl Source {
    fn stream(&self, chunk_bytes: usize) -> Stream {
        let (members, removed) = self.membership.encode();
        let mut encoder = Encoder::new(self.frozen.clone(), self.cluster, members, removed);
        let next = encoder.next_chunk(chunk_bytes);
        Stream { encoder, next, offset: 0, crc: 0 }
    }
}

impl Stream {
    /// The next chunk: its offset and bytes, and in the last one the checksum of them all.
    fn next(&mut self, chunk_bytes: usize) -> Option<(u64, Bytes, Option<u32>)> {
        let bytes = self.next.take()?;
        self.next = self.encoder.next_chunk(chunk_bytes);
        let offset = self.offset;
        self.offset += bytes.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, &bytes);
        let crc = self.next.is_none().then_some(self.crc);
        Some((offset, bytes, crc))
    }
}

impl Outgoing {
    pub(crate) fn new(
        (index, term): (u64, u64),
        source: Source,
        chunk_bytes: usize,
        tick: u64,
    ) -> Self {
        let stream = source.stream(chunk_bytes);
        let (last, awaited) = (None, true);
        let (progress_tick, offered_tick) = (tick, tick);
        Self { index, term, source, stream, last, progress_tick, offered_tick, awaited }
    }

    /// The chunk at `offset`: the next one, the last one again, or one that the stream reaches
    /// within a bounded number of chunks; who asks again for one that is farther gets nearer.
    pub(crate) fn pull(&mut self, offset: u64, chunk_bytes: usize, tick: u64) -> Option<Chunk> {
        if let Some(last) = self.last.as_ref().filter(|last| last.offset == offset) {
            return Some(last.clone());
        }
        if offset < self.stream.offset {
            self.stream = self.source.stream(chunk_bytes);
        }
        for _ in 0..SKIPPED_CHUNKS_MAX {
            if self.stream.offset >= offset {
                break;
            }
            self.stream.next(chunk_bytes)?;
        }
        if offset != self.stream.offset {
            return None;
        }
        let (offset, bytes, crc) = self.stream.next(chunk_bytes)?;
        self.progress_tick = tick;
        let chunk = Chunk { index: self.index, term: self.term, offset, bytes, crc };
        self.last = Some(chunk.clone());
        Some(chunk)
    }

    /// Raft asks for a snapshot again, and this one still serves.
    pub(crate) fn resume(&mut self, tick: u64) {
        if !self.awaited {
            self.awaited = true;
            self.progress_tick = tick;
        }
        self.offered_tick = tick;
    }

    /// Whether nothing was pulled for so long.
    pub(crate) fn stalls(&self, tick: u64, ticks_max: u64) -> bool {
        tick - self.progress_tick >= ticks_max
    }

    /// Whether its offer, or what followed on it, seems to be lost.
    pub(crate) fn is_unheard(&self, tick: u64, ticks_max: u64) -> bool {
        self.awaited && tick - self.progress_tick.max(self.offered_tick) >= ticks_max
    }
}

impl Local {
    pub(crate) fn new(
        (index, term): (u64, u64),
        log_bytes: usize,
        source: &Source,
        chunk_bytes: usize,
    ) -> Self {
        Self { index, term, log_bytes, stream: source.stream(chunk_bytes), begun: false }
    }

    /// What was written of it.
    pub(crate) fn bytes(&self) -> usize {
        usize::try_from(self.stream.offset).unwrap_or(usize::MAX)
    }

    /// Writes on by at most `chunks` chunks. Returns whether the snapshot is whole.
    pub(crate) fn write(
        &mut self,
        chunks: usize,
        chunk_bytes: usize,
        out: &mut Vec<SnapshotWrite>,
    ) -> bool {
        if !self.begun {
            self.begun = true;
            out.push(SnapshotWrite::Begin { index: self.index, term: self.term });
        }
        for _ in 0..chunks {
            let Some((offset, bytes, crc)) = self.stream.next(chunk_bytes) else {
                return true;
            };
            let length = offset + bytes.len() as u64;
            out.push(SnapshotWrite::Chunk { offset, bytes });
            if let Some(crc) = crc {
                out.push(SnapshotWrite::Finish { length, crc });
                return true;
            }
        }
        false
    }
}

impl Incoming {
    pub(crate) fn new(
        from: NodeId,
        (index, term): (u64, u64),
        cluster: ClusterId,
        tick: u64,
    ) -> Self {
        Self {
            from,
            index,
            term,
            offset: 0,
            crc: 0,
            decoder: Some(Decoder::new(cluster)),
            staged: None,
            durable: false,
            progress_tick: tick,
            asked_tick: tick,
            told: None,
        }
    }

    /// Takes a chunk: it is checked and decoded before raft hears of the snapshot.
    pub(crate) fn receive(&mut self, chunk: Chunk, tick: u64) -> Received {
        let same = (chunk.index, chunk.term, chunk.offset) == (self.index, self.term, self.offset);
        if !same || (chunk.bytes.is_empty() && chunk.crc.is_none()) {
            return Received::Stale;
        }
        let Some(decoder) = self.decoder.as_mut() else {
            return Received::Stale;
        };
        self.progress_tick = tick;
        self.crc = crc32c::crc32c_append(self.crc, &chunk.bytes);
        self.offset += chunk.bytes.len() as u64;
        if let Err(error) = decoder.feed(chunk.bytes.clone()) {
            return Received::Corrupt(error.to_string());
        }
        let write = SnapshotWrite::Chunk { offset: chunk.offset, bytes: chunk.bytes };
        let Some(crc) = chunk.crc else {
            return Received::More(write);
        };
        if crc != self.crc {
            return Received::Corrupt(format!("checksum {:08x}, not {crc:08x}", self.crc));
        }
        let Some(decoder) = self.decoder.take() else {
            return Received::Stale;
        };
        match decode(decoder) {
            Ok(staged) => self.staged = Some(Box::new(staged)),
            Err(why) => return Received::Corrupt(why),
        }
        Received::Finished([write, SnapshotWrite::Finish { length: self.offset, crc }])
    }

    /// The members that it names, once it is whole.
    pub(crate) fn members(&self) -> Option<&Membership> {
        self.staged.as_ref().map(|staged| &staged.1)
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.staged.is_some()
    }

    /// What the replicas agreed on, once the snapshot is whole.
    pub(crate) fn parameters(&self) -> Option<&Parameters> {
        self.staged.as_ref().map(|staged| staged.0.parameters())
    }

    pub(crate) fn into_staged(self) -> Option<(Namespace, Membership)> {
        self.staged.map(|staged| *staged)
    }
}

/// Finishes a decoder and reads the members that the snapshot names.
pub(crate) fn decode(decoder: Decoder) -> Result<(Namespace, Membership), String> {
    let (namespace, members, removed) = decoder.finish().map_err(|error| error.to_string())?;
    let membership = Membership::decode(members, &removed).ok_or("its members are not valid")?;
    Ok((namespace, membership))
}

/// All snapshots of one node that are on their way.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    pub(crate) outgoing: BTreeMap<NodeId, Outgoing>,
    /// States that this node holds for members whose own is bad.
    pub(crate) states: BTreeMap<NodeId, Outgoing>,
    pub(crate) incoming: Option<Incoming>,
    pub(crate) local: Option<Local>,
}

impl Transfers {
    /// The log is needed from behind this index on, for transfers that are under way.
    pub(crate) fn pinned(&self) -> Option<u64> {
        let awaited = self.outgoing.values().filter(|outgoing| outgoing.awaited);
        awaited.map(|outgoing| outgoing.index).min()
    }
}

/// An image is encoded in pieces of this size.
const IMAGE_CHUNK_BYTES: usize = 1 << 20;
/// Chunks that are made and not sent to reach the one that is pulled.
const SKIPPED_CHUNKS_MAX: usize = 256;
