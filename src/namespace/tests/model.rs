//! A naive second implementation, with plain sorted maps and no cleverness, to compare with.

use std::collections::BTreeMap;

use super::super::{Applied, SessionState};
use crate::{
    command::{Command, KeepAlive},
    config::Parameters,
    id::{NodeId, Origin, SecretHash, SessionId, Zxid},
    op::{Check, Event, EventKind, Guard, LimitName, Op, OpError, Outcome, Reply, Stat, Txn},
    path::Path,
};

pub(super) struct Model {
    pub(super) parameters: Parameters,
    pub(super) zxid: u64,
    pub(super) clock_us: u64,
    pub(super) wall_ms: u64,
    pub(super) nodes: BTreeMap<String, Node>,
    pub(super) sessions: BTreeMap<SessionId, Lease>,
    pub(super) next_session: u64,
    pub(super) history: Vec<Event>,
    pub(super) floor: Zxid,
    pub(super) changes: Vec<Event>,
}

#[derive(Clone, Default)]
pub(super) struct Node {
    pub(super) data: Vec<u8>,
    /// Without `data_length` and `children`.
    stat: Stat,
    sequence: u64,
}

#[derive(Clone)]
pub(super) struct Lease {
    pub(super) secret: SecretHash,
    ttl_us: u64,
    pub(super) deadline_us: u64,
    pub(super) epoch: u64,
    opener: Option<(NodeId, u64)>,
    pub(super) last_seq: u64,
    acked: u64,
    pub(super) keep_alive: u64,
    pub(super) replies: BTreeMap<u64, Reply>,
}

impl Model {
    pub(super) fn new(parameters: Parameters) -> Self {
        Self {
            parameters,
            zxid: 0,
            clock_us: 0,
            wall_ms: 0,
            nodes: BTreeMap::from([("/".to_string(), Node::default())]),
            sessions: BTreeMap::new(),
            next_session: 1,
            history: Vec::new(),
            floor: Zxid::ZERO,
            changes: Vec::new(),
        }
    }

    pub(super) fn begin_entry(&mut self, advance_us: u64, wall_ms: u64) {
        self.clock_us += advance_us.min(self.parameters.advance_us_max);
        self.wall_ms = self.wall_ms.max(wall_ms);
    }

    pub(super) fn apply(&mut self, command: Command) -> Applied {
        match command {
            Command::SessionTxn { session, epoch, seq, acked, txn } => {
                let reply = match self.admit(session, epoch, seq, Some(acked)) {
                    Err(reply) => reply,
                    Ok(()) => {
                        let result = self.execute(&txn, Some(session));
                        let reply = self.reply(result);
                        let lease = self.sessions.get_mut(&session).unwrap();
                        lease.last_seq = seq;
                        lease.replies.insert(seq, reply.clone());
                        reply
                    }
                };
                Applied::Sequenced { session, epoch, seq, reply, ended: false }
            }
            Command::CloseSession { session, epoch, seq } => {
                let (reply, ended) = match self.admit(session, epoch, seq, None) {
                    Err(reply) => (reply, false),
                    Ok(()) => {
                        self.end(session);
                        (self.reply(Ok(Outcome::Closed)), true)
                    }
                };
                Applied::Sequenced { session, epoch, seq, reply, ended }
            }
            Command::PlainTxn { origin, txn } => {
                let result = self.execute(&txn, None);
                let reply = self.reply(result);
                Applied::Plain { origin, reply }
            }
            Command::OpenSession { origin, secret, ttl_us } => {
                let (result, moved_from) = self.open(&origin, secret, ttl_us);
                Applied::Session { origin, zxid: Zxid::new(self.zxid), result, moved_from }
            }
            Command::AttachSession { origin, session, secret, epoch } => {
                let moved_from = self.sessions.get(&session).map(|it| it.epoch);
                let result = self.attach(session, secret, epoch);
                Applied::Session {
                    origin,
                    zxid: Zxid::new(self.zxid),
                    moved_from: moved_from.filter(|_| result.is_ok()),
                    result,
                }
            }
            Command::KeepAlives(items) => {
                let (accepted, refused) = items.into_iter().partition(|it| self.keep_alive(it));
                Applied::KeepAlives { accepted, refused }
            }
            Command::ExpireSession { session } => match self.sessions.get(&session) {
                Some(lease) if lease.deadline_us <= self.clock_us => {
                    let epoch = lease.epoch;
                    self.end(session);
                    Applied::Expired { session, epoch }
                }
                _ => Applied::NotExpired { session },
            },
            Command::PinStore { .. } => Applied::Nothing,
        }
    }

    pub(super) fn stat(&self, path: &str) -> Option<Stat> {
        let node = self.nodes.get(path)?;
        Some(Stat {
            data_length: node.data.len() as u64,
            children: self.children(path).len() as u64,
            ..node.stat
        })
    }

    pub(super) fn children(&self, parent: &str) -> Vec<String> {
        let children = self.nodes.keys().filter(|it| it.len() > 1 && before(it) == parent);
        let mut names: Vec<_> = children.map(|it| name(it).to_string()).collect();
        names.sort();
        names
    }

    pub(super) fn session(&self, id: SessionId) -> Option<SessionState> {
        let lease = self.sessions.get(&id)?;
        Some(SessionState {
            id,
            epoch: lease.epoch,
            ttl_us: lease.ttl_us,
            deadline_us: lease.deadline_us,
            last_seq: lease.last_seq,
            acked: lease.acked,
            keep_alive: lease.keep_alive,
            window_count: lease.replies.len() as u64,
            window_bytes: lease.replies.values().map(reply_bytes).sum(),
        })
    }

    pub(super) fn ephemerals(&self, id: SessionId) -> Vec<String> {
        let owned = self.nodes.iter().filter(|it| it.1.stat.owner == Some(id));
        owned.map(|it| it.0.clone()).collect()
    }

    fn reply(&self, result: Result<Outcome, OpError>) -> Reply {
        Reply { zxid: Zxid::new(self.zxid), result }
    }

    fn admit(
        &mut self,
        id: SessionId,
        epoch: u64,
        seq: u64,
        acked: Option<u64>,
    ) -> Result<(), Reply> {
        let zxid = Zxid::new(self.zxid);
        let refuse = |error| Err(Reply { zxid, result: Err(error) });
        let Some(lease) = self.sessions.get_mut(&id) else {
            return refuse(OpError::SessionEnded { session: id });
        };
        if lease.epoch != epoch {
            return refuse(OpError::Moved { session: id, epoch: lease.epoch });
        }
        let expected = lease.last_seq + 1;
        if seq > expected {
            return refuse(OpError::Gap { expected, actual: seq });
        }
        lease.acknowledge(acked.unwrap_or(0));
        if seq < expected {
            return match lease.replies.get(&seq) {
                Some(reply) => Err(reply.clone()),
                None => refuse(OpError::AlreadyAcknowledged { seq }),
            };
        }
        if acked.is_none() {
            return Ok(());
        }
        let count = lease.replies.len() as u64 + 1;
        let bytes = lease.replies.values().map(reply_bytes).sum::<u64>() + 192 + 4096;
        for (limit, value, max) in [
            (LimitName::WindowCount, count, self.parameters.window_count_max),
            (LimitName::WindowBytes, bytes, self.parameters.window_bytes_max),
        ] {
            if value > max {
                return refuse(OpError::Limit { limit, value, max });
            }
        }
        Ok(())
    }

    fn execute(&mut self, txn: &Txn, actor: Option<SessionId>) -> Result<Outcome, OpError> {
        for (index, guard) in txn.guards().iter().enumerate() {
            if !self.holds(guard) {
                return Err(OpError::GuardFailed { index: index as u64, path: guard.path.clone() });
            }
        }
        match txn.op() {
            Op::Create { path, data, mode } => {
                self.check_payload(data)?;
                if path.as_str() == "/" && !mode.is_sequential() {
                    return Err(OpError::Root);
                }
                if mode.is_ephemeral() && actor.is_none() {
                    return Err(OpError::EphemeralWithoutSession);
                }
                let owner = actor.filter(|_| mode.is_ephemeral());
                self.create(path.as_str(), mode.is_sequential(), data, owner)
            }
            Op::Set { path, data, version } => {
                self.check_payload(data)?;
                self.check_version(path, *version)?;
                let (zxid, wall_ms) = (self.zxid + 1, self.wall_ms);
                let node = self.nodes.get_mut(path.as_str()).unwrap();
                node.data = data.to_vec();
                node.stat.version += 1;
                node.stat.mzxid = Zxid::new(zxid);
                node.stat.mtime_ms = wall_ms;
                let czxid = node.stat.czxid;
                self.commit(vec![(EventKind::DataChanged, path.clone(), czxid)]);
                Ok(Outcome::Set { stat: self.stat(path.as_str()).unwrap() })
            }
            Op::Delete { path, version } => {
                if path.is_root() {
                    return Err(OpError::Root);
                }
                self.check_version(path, *version)?;
                let children = self.children(path.as_str()).len() as u64;
                if children > 0 {
                    return Err(OpError::NotEmpty { path: path.clone(), children });
                }
                let czxid = self.unlink(path.as_str());
                self.commit(vec![(EventKind::Deleted, path.clone(), czxid)]);
                Ok(Outcome::Deleted)
            }
        }
    }

    fn create(
        &mut self,
        prefix: &str,
        sequential: bool,
        data: &[u8],
        owner: Option<SessionId>,
    ) -> Result<Outcome, OpError> {
        let parent = before(prefix).to_string();
        let parent_path = || parent.parse::<Path>().unwrap();
        let Some(above) = self.nodes.get(&parent) else {
            return Err(OpError::NoNode { path: parent_path() });
        };
        if above.stat.owner.is_some() {
            return Err(OpError::NoChildrenForEphemerals { path: parent_path() });
        }
        let mut sequence = above.sequence;
        let text = if sequential {
            while self.nodes.contains_key(&format!("{prefix}{sequence:010}")) {
                sequence += 1;
            }
            sequence += 1;
            format!("{prefix}{:010}", sequence - 1)
        } else {
            prefix.to_string()
        };
        if text.len() > Path::BYTES_MAX {
            return Err(OpError::Limit {
                limit: LimitName::PathBytes,
                value: text.len() as u64,
                max: Path::BYTES_MAX as u64,
            });
        }
        let path: Path = text.parse().unwrap();
        if self.nodes.contains_key(&text) {
            return Err(OpError::NodeExists { path });
        }
        let zxid = Zxid::new(self.zxid + 1);
        let above = self.nodes.get_mut(&parent).unwrap();
        above.sequence = sequence;
        above.stat.cversion += 1;
        above.stat.pzxid = zxid;
        let stat = Stat {
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            ctime_ms: self.wall_ms,
            mtime_ms: self.wall_ms,
            owner,
            ..Stat::default()
        };
        let node = Node { data: data.to_vec(), stat, sequence: 0 };
        self.nodes.insert(text, node);
        self.commit(vec![(EventKind::Created, path.clone(), zxid)]);
        let stat = self.stat(path.as_str()).unwrap();
        Ok(Outcome::Created { path, stat })
    }

    fn holds(&self, guard: &Guard) -> bool {
        let stat = self.stat(guard.path.as_str());
        match guard.check {
            Check::Exists(exists) => stat.is_some() == exists,
            Check::Version(version) => stat.map(|it| it.version) == Some(version),
            Check::Czxid(czxid) => stat.map(|it| it.czxid) == Some(czxid),
            Check::Owner(owner) => stat.and_then(|it| it.owner) == Some(owner),
        }
    }

    fn check_payload(&self, data: &[u8]) -> Result<(), OpError> {
        let (value, max) = (data.len() as u64, self.parameters.payload_bytes_max);
        if value > max {
            return Err(OpError::Limit { limit: LimitName::PayloadBytes, value, max });
        }
        Ok(())
    }

    fn check_version(&self, path: &Path, expected: Option<u64>) -> Result<(), OpError> {
        let Some(stat) = self.stat(path.as_str()) else {
            return Err(OpError::NoNode { path: path.clone() });
        };
        match expected {
            Some(expected) if expected != stat.version => {
                Err(OpError::BadVersion { path: path.clone(), expected, actual: stat.version })
            }
            _ => Ok(()),
        }
    }

    fn unlink(&mut self, path: &str) -> Zxid {
        let node = self.nodes.remove(path).unwrap();
        let parent = self.nodes.get_mut(before(path)).unwrap();
        parent.stat.cversion += 1;
        parent.stat.pzxid = Zxid::new(self.zxid + 1);
        node.stat.czxid
    }

    fn open(
        &mut self,
        origin: &Origin,
        secret: SecretHash,
        ttl_us: u64,
    ) -> (Result<SessionState, OpError>, Option<u64>) {
        let opener = Some((origin.node, origin.boot_nonce));
        let base_us = self.clock_us + self.parameters.tick_us;
        let known = self.sessions.iter_mut().find(|it| it.1.secret == secret);
        let Some((&id, lease)) = known else {
            return (self.open_new(opener, secret, ttl_us), None);
        };
        let moved_from = match (lease.opener, lease.epoch) {
            (same, _) if same == opener => None,
            (Some(_), 1) => {
                (lease.epoch, lease.opener, lease.keep_alive) = (2, opener, 0);
                Some(1)
            }
            (_, epoch) => return (Err(OpError::Moved { session: id, epoch }), None),
        };
        lease.deadline_us = base_us + lease.ttl_us;
        (Ok(self.session(id).unwrap()), moved_from)
    }

    fn open_new(
        &mut self,
        opener: Option<(NodeId, u64)>,
        secret: SecretHash,
        ttl_us: u64,
    ) -> Result<SessionState, OpError> {
        let base_us = self.clock_us + self.parameters.tick_us;
        let value = self.sessions.len() as u64 + 1;
        if value > self.parameters.sessions_max {
            return Err(OpError::Limit {
                limit: LimitName::Sessions,
                value,
                max: self.parameters.sessions_max,
            });
        }
        let ttl_us = ttl_us.clamp(self.parameters.ttl_us_min, self.parameters.ttl_us_max);
        let id = SessionId::new(self.next_session).unwrap();
        self.next_session += 1;
        let lease = Lease {
            secret,
            ttl_us,
            deadline_us: base_us + ttl_us,
            epoch: 1,
            opener,
            last_seq: 0,
            acked: 0,
            keep_alive: 0,
            replies: BTreeMap::new(),
        };
        self.sessions.insert(id, lease);
        self.commit(Vec::new());
        Ok(self.session(id).unwrap())
    }

    fn attach(
        &mut self,
        id: SessionId,
        secret: SecretHash,
        epoch: u64,
    ) -> Result<SessionState, OpError> {
        let base_us = self.clock_us + self.parameters.tick_us;
        let Some(lease) = self.sessions.get_mut(&id) else {
            return Err(OpError::SessionEnded { session: id });
        };
        if lease.secret != secret {
            return Err(OpError::BadSecret { session: id });
        }
        if lease.epoch >= epoch {
            return Err(OpError::Moved { session: id, epoch: lease.epoch });
        }
        (lease.epoch, lease.opener) = (epoch, None);
        lease.keep_alive = 0;
        lease.deadline_us = base_us + lease.ttl_us;
        Ok(self.session(id).unwrap())
    }

    fn keep_alive(&mut self, item: &KeepAlive) -> bool {
        let base_us = self.clock_us + self.parameters.tick_us;
        match self.sessions.get_mut(&item.session) {
            Some(lease) if lease.epoch == item.epoch && lease.keep_alive < item.number => {
                lease.keep_alive = item.number;
                lease.deadline_us = base_us + lease.ttl_us;
                lease.acknowledge(item.acked);
                true
            }
            _ => false,
        }
    }

    fn end(&mut self, id: SessionId) {
        self.sessions.remove(&id);
        let events = self
            .ephemerals(id)
            .into_iter()
            .map(|path| {
                let czxid = self.unlink(&path);
                (EventKind::Deleted, path.parse().unwrap(), czxid)
            })
            .collect();
        self.commit(events);
    }

    /// One transaction: its events, and the history cut back to its bounds.
    fn commit(&mut self, events: Vec<(EventKind, Path, Zxid)>) {
        self.zxid += 1;
        for (kind, path, czxid) in events {
            let event = Event { zxid: Zxid::new(self.zxid), kind, path, czxid };
            self.history.push(event.clone());
            self.changes.push(event);
        }
        let bytes = |history: &[Event]| -> u64 {
            history.iter().map(|it| 64 + it.path.as_str().len() as u64).sum()
        };
        while self.history.len() as u64 > self.parameters.history_count_max
            || bytes(&self.history) > self.parameters.history_bytes_max
        {
            self.floor = self.history[0].zxid;
            self.history.retain(|it| it.zxid != self.floor);
        }
    }
}

impl Lease {
    fn acknowledge(&mut self, acked: u64) {
        self.acked = self.acked.max(acked.min(self.last_seq));
        self.replies.retain(|seq, _| *seq > self.acked);
    }
}

/// What stands before the last `/`: the parent of a path, or of a sequential prefix.
fn before(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((parent, _)) => parent,
    }
}

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

/// What a kept reply counts for: replicated, so it never changes.
fn reply_bytes(reply: &Reply) -> u64 {
    let path = match &reply.result {
        Ok(Outcome::Created { path, .. }) => Some(path),
        Err(
            OpError::NoNode { path }
            | OpError::NodeExists { path }
            | OpError::BadVersion { path, .. }
            | OpError::NotEmpty { path, .. }
            | OpError::NoChildrenForEphemerals { path }
            | OpError::GuardFailed { path, .. },
        ) => Some(path),
        _ => None,
    };
    192 + path.map_or(0, |path| path.as_str().len() as u64)
}
