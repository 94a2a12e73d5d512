//! Writing a snapshot while the state goes on.

use std::{fmt, sync::Arc};

use bytes::{Bytes, BytesMut};
use prost::Message as _;

use crate::{
    id::{ClusterId, LeaseId, Lineage, SessionId},
    namespace::{
        Frozen,
        record::{
            cached_to_record, change_to_record, end_to_record, lease_to_record,
            parameters_to_record, session_to_record, znode_to_record,
        },
        snapshot::SNAPSHOT_VERSION,
        walk::Walk,
    },
    proto::{self, snapshot_record::Kind},
    record::put_delimited,
};

/// Writes a frozen state, chunk by chunk.
///
/// A call writes at most one record more than its chunk takes, and the chunks are slices of one
/// byte stream: wherever they are cut, the bytes are the same.
pub(crate) struct Encoder {
    state: Frozen,
    next: Next,
    pending: BytesMut,
    changes_written: usize,
    head_crc: u32,
}

impl Encoder {
    /// Starts at the first byte. `members` and `removed` are as in `SnapshotHead`.
    pub(crate) fn new(state: Frozen, cluster: ClusterId, members: Bytes, removed: Bytes) -> Self {
        let head = proto::SnapshotHead {
            version: SNAPSHOT_VERSION,
            cluster: Bytes::copy_from_slice(cluster.as_bytes()),
            parameters: Some(parameters_to_record(&state.parameters)),
            clock_us: state.clock_us,
            wall_ms: state.wall_ms,
            zxid: state.zxid.as_u64(),
            next_session: state.sessions.next_id(),
            history_floor: state.history.floor().as_u64(),
            members,
            removed,
            lineage: match state.lineage {
                Lineage::NONE => Bytes::new(),
                lineage => Bytes::copy_from_slice(lineage.as_bytes()),
            },
        };
        let head = proto::SnapshotRecord { kind: Some(Kind::Head(head)) };
        let head_crc = crc32c::crc32c(&head.encode_to_vec());
        let mut pending = BytesMut::new();
        put_delimited(&mut pending, &head);
        Self { state, next: Next::Session(None), pending, changes_written: 0, head_crc }
    }

    /// The next bytes: exactly `bytes_max`, fewer at the end, and `None` after it.
    pub(crate) fn next_chunk(&mut self, bytes_max: usize) -> Option<Bytes> {
        let bytes_max = bytes_max.max(1);
        // Room for the chunk and most records that end behind it, at once.
        let room = bytes_max.min(ROOM_BYTES_MAX) + RECORD_BYTES;
        self.pending.reserve(room.saturating_sub(self.pending.len()));
        while self.pending.len() < bytes_max && self.put_next() {}
        if self.pending.is_empty() {
            return None;
        }
        let chunk = self.pending.split_to(bytes_max.min(self.pending.len()));
        Some(chunk.freeze())
    }

    #[cfg(test)]
    /// The state that is written, to be dropped where it delays nobody.
    pub(crate) fn into_state(self) -> Frozen {
        self.state
    }

    /// Writes the next record, if there is one.
    fn put_next(&mut self) -> bool {
        let (out, state) = (&mut self.pending, &self.state);
        self.next = match &mut self.next {
            Next::Session(after) => match state.sessions.after(*after) {
                Some((id, session)) => {
                    put(out, Kind::Session(session_to_record(id, session)));
                    Next::Lease(id, None)
                }
                None => Next::Root,
            },
            Next::Lease(id, after) => {
                let session = state.sessions.get(*id);
                let next = session.and_then(|session| session.lease_after(*after));
                if let Some((next, lease)) =
                    next.and_then(|it| Some((it, state.sessions.lease(it)?)))
                {
                    put(out, Kind::Lease(lease_to_record(next, lease)));
                    Next::Lease(*id, Some(next))
                } else {
                    Next::Reply(*id, session.map_or(0, |session| session.acked) + 1)
                }
            }
            Next::Reply(id, seq) => {
                let session = state.sessions.get(*id);
                match session.and_then(|session| session.cached(*seq)) {
                    Some(reply) => {
                        put(out, Kind::Reply(cached_to_record(*id, *seq, reply)));
                        Next::Reply(*id, *seq + 1)
                    }
                    None => Next::Session(Some(*id)),
                }
            }
            Next::Root => match state.tree.get(ROOT) {
                Some(root) => {
                    put(out, Kind::Znode(znode_to_record(ROOT, root, state.tree.metered(ROOT))));
                    Next::Znode(Walk::below(&Arc::from(ROOT), root))
                }
                None => Next::Change,
            },
            Next::Znode(walk) => match walk.next(&state.tree) {
                Some((path, znode)) => {
                    put(out, Kind::Znode(znode_to_record(&path, znode, state.tree.metered(&path))));
                    return true;
                }
                None => Next::Change,
            },
            Next::Change => match state.history.get_back(self.changes_written) {
                Some(change) => {
                    put(out, Kind::Change(change_to_record(change)));
                    self.changes_written += 1;
                    Next::Change
                }
                None => {
                    put(out, Kind::End(end_to_record(state, self.head_crc)));
                    Next::Nothing
                }
            },
            Next::Nothing => return false,
        };
        true
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoder({:?}, next {:?})", self.state, self.next)
    }
}

/// Where the next record is found.
#[derive(Debug)]
enum Next {
    /// The first session after this one.
    Session(Option<SessionId>),
    /// The first lease of this session after this one.
    Lease(SessionId, Option<LeaseId>),
    /// This reply of this session.
    Reply(SessionId, u64),
    Root,
    /// The next of the nodes below the root.
    Znode(Walk),
    /// The next of the changes, newest first.
    Change,
    Nothing,
}

fn put(out: &mut BytesMut, kind: Kind) {
    put_delimited(out, &proto::SnapshotRecord { kind: Some(kind) });
}

const ROOT: &str = "/";
/// Room that is made at once; a larger chunk grows to its size.
const ROOM_BYTES_MAX: usize = 1 << 20;
/// What most records take at most.
const RECORD_BYTES: usize = 4 << 10;
