//! The records of a snapshot, from and to the state's own types.
//!
//! One way to write each value: the decoder writes what it has read once more and compares.

use bytes::Bytes;

use crate::{
    config::Parameters,
    id::{SessionId, Zxid},
    namespace::{session::Session, tree::Znode},
    op::{Event, EventKind, LimitName, OpError, Outcome, Reply, Stat},
    path::Path,
    proto::{self, reply_record},
};

pub(super) fn parameters_to_record(it: &Parameters) -> proto::ParametersRecord {
    proto::ParametersRecord {
        tick_us: it.tick_us,
        advance_us_max: it.advance_us_max,
        renewal_us: it.renewal_us,
        ttl_us_min: it.ttl_us_min,
        ttl_us_max: it.ttl_us_max,
        payload_bytes_max: it.payload_bytes_max,
        window_count_max: it.window_count_max,
        window_bytes_max: it.window_bytes_max,
        history_count_max: it.history_count_max,
        history_bytes_max: it.history_bytes_max,
        sessions_max: it.sessions_max,
    }
}

pub(super) fn parameters_from_record(it: &proto::ParametersRecord) -> Parameters {
    Parameters {
        tick_us: it.tick_us,
        advance_us_max: it.advance_us_max,
        renewal_us: it.renewal_us,
        ttl_us_min: it.ttl_us_min,
        ttl_us_max: it.ttl_us_max,
        payload_bytes_max: it.payload_bytes_max,
        window_count_max: it.window_count_max,
        window_bytes_max: it.window_bytes_max,
        history_count_max: it.history_count_max,
        history_bytes_max: it.history_bytes_max,
        sessions_max: it.sessions_max,
    }
}

pub(super) fn session_to_record(id: SessionId, it: &Session) -> proto::SessionRecord {
    proto::SessionRecord {
        session: id.as_u64(),
        secret_hash: Bytes::copy_from_slice(&it.secret.0),
        ttl_us: it.ttl_us,
        deadline_us: it.deadline_us,
        epoch: it.epoch,
        last_seq: it.last_seq,
        acked: it.acked,
        keep_alive: it.keep_alive,
        opened_zxid: it.opened.as_u64(),
        opener_node: it.opener.map_or(0, |opener| opener.node.as_u64()),
        opener_nonce: it.opener.map_or(0, |opener| opener.boot_nonce),
    }
}

pub(super) fn cached_to_record(id: SessionId, seq: u64, reply: &Reply) -> proto::CachedReply {
    proto::CachedReply { session: id.as_u64(), seq, reply: Some(reply_to_record(reply)) }
}

pub(super) fn znode_to_record(path: &str, it: &Znode) -> proto::ZnodeRecord {
    proto::ZnodeRecord {
        path: text(path),
        data: it.data.clone(),
        stat: Some(stat_to_record(&it.stat())),
        next_sequence: it.next_sequence,
    }
}

pub(super) fn event_to_record(it: &Event) -> proto::ChangeRecord {
    proto::ChangeRecord {
        zxid: it.zxid.as_u64(),
        kind: match it.kind {
            EventKind::Created => 0,
            EventKind::DataChanged => 1,
            EventKind::Deleted => 2,
        },
        path: text(it.path.as_str()),
        czxid: it.czxid.as_u64(),
    }
}

pub(super) fn event_from_record(it: &proto::ChangeRecord) -> Option<Event> {
    Some(Event {
        zxid: Zxid::new(it.zxid),
        kind: match it.kind {
            0 => EventKind::Created,
            1 => EventKind::DataChanged,
            2 => EventKind::Deleted,
            _ => return None,
        },
        path: path(&it.path)?,
        czxid: Zxid::new(it.czxid),
    })
}

pub(super) fn stat_to_record(it: &Stat) -> proto::StatRecord {
    proto::StatRecord {
        czxid: it.czxid.as_u64(),
        mzxid: it.mzxid.as_u64(),
        pzxid: it.pzxid.as_u64(),
        ctime_ms: it.ctime_ms,
        mtime_ms: it.mtime_ms,
        version: it.version,
        cversion: it.cversion,
        aversion: it.aversion,
        owner: it.owner.map_or(0, SessionId::as_u64),
        data_length: it.data_length,
        children: it.children,
    }
}

pub(super) fn stat_from_record(it: &proto::StatRecord) -> Option<Stat> {
    Some(Stat {
        czxid: Zxid::new(it.czxid),
        mzxid: Zxid::new(it.mzxid),
        pzxid: Zxid::new(it.pzxid),
        ctime_ms: it.ctime_ms,
        mtime_ms: it.mtime_ms,
        version: it.version,
        cversion: it.cversion,
        aversion: it.aversion,
        owner: match it.owner {
            0 => None,
            owner => Some(SessionId::new(owner)?),
        },
        data_length: it.data_length,
        children: it.children,
    })
}

fn reply_to_record(it: &Reply) -> proto::ReplyRecord {
    use reply_record::Result as Record;
    let result = match &it.result {
        Ok(Outcome::Created { path, stat }) => Record::Created(proto::CreatedRecord {
            path: text(path.as_str()),
            stat: Some(stat_to_record(stat)),
        }),
        Ok(Outcome::Set { stat }) => Record::Set(stat_to_record(stat)),
        Ok(Outcome::Deleted) => Record::Deleted(true),
        Ok(Outcome::Closed) => Record::Closed(true),
        Err(error) => Record::Error(error_to_record(error)),
    };
    proto::ReplyRecord { zxid: it.zxid.as_u64(), result: Some(result) }
}

pub(super) fn reply_from_record(it: proto::ReplyRecord) -> Option<Reply> {
    use reply_record::Result as Record;
    let result = match it.result? {
        Record::Created(it) => {
            Ok(Outcome::Created { path: path(&it.path)?, stat: stat_from_record(&it.stat?)? })
        }
        Record::Set(stat) => Ok(Outcome::Set { stat: stat_from_record(&stat)? }),
        Record::Deleted(_) => Ok(Outcome::Deleted),
        Record::Closed(_) => Ok(Outcome::Closed),
        Record::Error(error) => Err(error_from_record(&error)?),
    };
    Some(Reply { zxid: Zxid::new(it.zxid), result })
}

fn error_to_record(error: &OpError) -> proto::OpErrorRecord {
    let with_path = |code, path: &Path, a, b| proto::OpErrorRecord {
        code,
        path: text(path.as_str()),
        a,
        b,
        name: Bytes::new(),
    };
    let plain =
        |code, a, b| proto::OpErrorRecord { code, path: Bytes::new(), a, b, name: Bytes::new() };
    match error {
        OpError::NoNode { path } => with_path(1, path, 0, 0),
        OpError::NodeExists { path } => with_path(2, path, 0, 0),
        OpError::BadVersion { path, expected, actual } => with_path(3, path, *expected, *actual),
        OpError::NotEmpty { path, children } => with_path(4, path, *children, 0),
        OpError::NoChildrenForEphemerals { path } => with_path(5, path, 0, 0),
        OpError::Root => plain(6, 0, 0),
        OpError::EphemeralWithoutSession => plain(7, 0, 0),
        OpError::GuardFailed { index, path } => with_path(8, path, *index, 0),
        OpError::Limit { limit, value, max } => proto::OpErrorRecord {
            name: Bytes::from_static(limit_name(*limit).as_bytes()),
            ..plain(9, *value, *max)
        },
        OpError::SessionEnded { session } => plain(10, session.as_u64(), 0),
        OpError::Moved { session, epoch } => plain(11, session.as_u64(), *epoch),
        OpError::BadSecret { session } => plain(12, session.as_u64(), 0),
        OpError::Gap { expected, actual } => plain(13, *expected, *actual),
        OpError::AlreadyAcknowledged { seq } => plain(14, *seq, 0),
    }
}

fn error_from_record(it: &proto::OpErrorRecord) -> Option<OpError> {
    let session = || SessionId::new(it.a);
    Some(match it.code {
        1 => OpError::NoNode { path: path(&it.path)? },
        2 => OpError::NodeExists { path: path(&it.path)? },
        3 => OpError::BadVersion { path: path(&it.path)?, expected: it.a, actual: it.b },
        4 => OpError::NotEmpty { path: path(&it.path)?, children: it.a },
        5 => OpError::NoChildrenForEphemerals { path: path(&it.path)? },
        6 => OpError::Root,
        7 => OpError::EphemeralWithoutSession,
        8 => OpError::GuardFailed { index: it.a, path: path(&it.path)? },
        9 => OpError::Limit {
            limit: LIMIT_NAMES
                .into_iter()
                .find(|limit| limit_name(*limit).as_bytes() == it.name)?,
            value: it.a,
            max: it.b,
        },
        10 => OpError::SessionEnded { session: session()? },
        11 => OpError::Moved { session: session()?, epoch: it.b },
        12 => OpError::BadSecret { session: session()? },
        13 => OpError::Gap { expected: it.a, actual: it.b },
        14 => OpError::AlreadyAcknowledged { seq: it.a },
        _ => return None,
    })
}

/// The name that a limit has on disk for ever.
fn limit_name(limit: LimitName) -> &'static str {
    match limit {
        LimitName::PayloadBytes => "payload_bytes",
        LimitName::PathBytes => "path_bytes",
        LimitName::WindowCount => "window_count",
        LimitName::WindowBytes => "window_bytes",
        LimitName::Sessions => "sessions",
        LimitName::Guards => "guards",
    }
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(super) fn path(bytes: &[u8]) -> Option<Path> {
    Path::from_bytes(bytes).ok()
}

const LIMIT_NAMES: [LimitName; 6] = [
    LimitName::PayloadBytes,
    LimitName::PathBytes,
    LimitName::WindowCount,
    LimitName::WindowBytes,
    LimitName::Sessions,
    LimitName::Guards,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reply_comes_back_as_it_was() {
        let path: Path = "/a/b".parse().unwrap();
        let session = SessionId::new(7).unwrap();
        let stat =
            Stat { czxid: Zxid::new(1), owner: Some(session), children: 3, ..Stat::default() };
        let mut results = vec![
            Ok(Outcome::Created { path: path.clone(), stat }),
            Ok(Outcome::Set { stat }),
            Ok(Outcome::Deleted),
            Ok(Outcome::Closed),
            Err(OpError::NoNode { path: path.clone() }),
            Err(OpError::NodeExists { path: path.clone() }),
            Err(OpError::BadVersion { path: path.clone(), expected: 1, actual: 2 }),
            Err(OpError::NotEmpty { path: path.clone(), children: 4 }),
            Err(OpError::NoChildrenForEphemerals { path: path.clone() }),
            Err(OpError::Root),
            Err(OpError::EphemeralWithoutSession),
            Err(OpError::GuardFailed { index: 2, path }),
            Err(OpError::SessionEnded { session }),
            Err(OpError::Moved { session, epoch: 3 }),
            Err(OpError::BadSecret { session }),
            Err(OpError::Gap { expected: 1, actual: 3 }),
            Err(OpError::AlreadyAcknowledged { seq: 9 }),
        ];
        results.extend(LIMIT_NAMES.map(|limit| Err(OpError::Limit { limit, value: 2, max: 1 })));
        for result in results {
            let reply = Reply { zxid: Zxid::new(5), result };
            assert_eq!(reply_from_record(reply_to_record(&reply)), Some(reply.clone()));
        }
    }
}
