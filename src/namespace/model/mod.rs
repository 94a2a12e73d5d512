//! A naive second implementation, with plain sorted maps and no cleverness, to compare with.

pub(in crate::namespace) mod commands;
pub(in crate::namespace) mod compare;
mod lease;
mod txn;

use std::{collections::BTreeMap, rc::Rc};

use bytes::Bytes;

use super::{Applied, Namespace, SessionState};
use crate::{
    command::{Command, KeepAlive},
    config::Parameters,
    id::{LeaseId, NodeId, Origin, SecretHash, SessionId, Zxid},
    op::{
        Acl, Content, Event, EventKind, Grant, Identities, Lifetime, LimitName, OpError, Outcome,
        Quota, Reply, Stat, Txn,
    },
    path::Path,
};

use self::{
    commands::{Random, tight},
    compare::{apply_to_both, check_indexes, compare, compare_past, restored},
};

/// Commands drawn from an input: the state machine does what the model does, and goes through its
/// snapshot with its digest.
pub(crate) fn run(input: &[u8]) {
    let parameters = tight();
    let (mut model, mut ns) = (Model::new(parameters), Namespace::new(parameters));
    let mut random = Random::of(input);
    while !random.is_spent() {
        if random.below(4) == 0 {
            let (advance_us, wall_ms) = (random.below(4) * 40, random.below(1000));
            model.begin_entry(advance_us, wall_ms);
            ns.begin_entry(advance_us, wall_ms);
        }
        let command = random.command(&model);
        apply_to_both(&mut ns, &mut model, command);
        if random.below(100) == 0 {
            ns = restored(&ns, 1 + random.below(200) as usize);
            check_indexes(&ns);
            compare_past(&ns, &model, &mut random);
        }
    }
    let ns = restored(&ns, 1 << 16);
    compare(&ns, &model, &mut random);
}

#[derive(Clone)]
pub(in crate::namespace) struct Model {
    pub(in crate::namespace) parameters: Parameters,
    pub(in crate::namespace) zxid: u64,
    pub(in crate::namespace) clock_us: u64,
    pub(in crate::namespace) wall_ms: u64,
    pub(in crate::namespace) nodes: BTreeMap<String, Node>,
    pub(in crate::namespace) sessions: BTreeMap<SessionId, Lease>,
    /// Leases beside the sessions' own.
    pub(in crate::namespace) granted: BTreeMap<LeaseId, Granted>,
    /// Whether the transaction under way wrote what is no change of a node.
    pub(in crate::namespace) quiet: bool,
    /// Of the transaction under way: whether counters are 32 bits wide.
    zookeeper: bool,
    /// Of the transaction under way: nodes that it may still remove as subtrees, or count.
    pub(in crate::namespace) nodes_left: u64,
    pub(in crate::namespace) next_session: u64,
    pub(in crate::namespace) history: Vec<Change>,
    pub(in crate::namespace) floor: Zxid,
    pub(in crate::namespace) changes: Vec<Event>,
    /// All nodes after each transaction from the floor on, copied whole.
    pub(in crate::namespace) states: BTreeMap<u64, Rc<BTreeMap<String, Node>>>,
}

/// One change; a node's data, stat and list before and after.
#[derive(Clone)]
pub(in crate::namespace) struct Change {
    pub(in crate::namespace) zxid: u64,
    /// Of a quota, none.
    kind: Option<EventKind>,
    path: Path,
    before: Option<(Content, Option<Acl>)>,
    after: Option<(Content, Option<Acl>)>,
}

#[derive(Clone, Default)]
pub(in crate::namespace) struct Node {
    pub(in crate::namespace) data: Vec<u8>,
    /// Without `data_length` and `children`.
    stat: Stat,
    sequence: u64,
    /// The replicated clock when the data was replaced.
    touched_us: u64,
    /// The replicated clock when the last child went.
    emptied_us: u64,
    /// Who may do what; nothing is for everybody.
    acl: Vec<Grant>,
    quota: Option<Quota>,
}

#[derive(Clone)]
pub(in crate::namespace) struct Lease {
    pub(in crate::namespace) secret: SecretHash,
    pub(in crate::namespace) ttl_us: u64,
    pub(in crate::namespace) deadline_us: u64,
    pub(in crate::namespace) epoch: u64,
    opener: Option<(NodeId, u64)>,
    pub(in crate::namespace) last_seq: u64,
    acked: u64,
    pub(in crate::namespace) keep_alive: u64,
    identities: Identities,
    pub(in crate::namespace) replies: BTreeMap<u64, Reply>,
}

#[derive(Clone)]
pub(in crate::namespace) struct Granted {
    pub(in crate::namespace) session: SessionId,
    pub(in crate::namespace) ttl_us: u64,
    pub(in crate::namespace) deadline_us: u64,
    /// Of the newest keep-alive: the attachment, and the number.
    pub(in crate::namespace) heard: (u64, u64),
}

impl Model {
    pub(in crate::namespace) fn new(parameters: Parameters) -> Self {
        let nodes = BTreeMap::from([("/".to_string(), Node::default())]);
        Self {
            parameters,
            zxid: 0,
            clock_us: 0,
            wall_ms: 0,
            states: BTreeMap::from([(0, Rc::new(nodes.clone()))]),
            nodes,
            sessions: BTreeMap::new(),
            granted: BTreeMap::new(),
            quiet: false,
            zookeeper: false,
            nodes_left: 0,
            next_session: 1,
            history: Vec::new(),
            floor: Zxid::ZERO,
            changes: Vec::new(),
        }
    }

    pub(in crate::namespace) fn begin_entry(&mut self, advance_us: u64, wall_ms: u64) {
        self.clock_us += advance_us.min(self.parameters.advance_us_max);
        self.wall_ms = self.wall_ms.max(wall_ms);
    }

    pub(in crate::namespace) fn apply(&mut self, command: Command) -> Applied {
        match command {
            Command::SessionTxn { session, epoch, seq, acked, txn } => {
                let reply = match self.admit(session, epoch, seq, Some((acked, &txn))) {
                    Err(reply) => reply,
                    Ok(()) => {
                        let who = self.sessions[&session].identities.clone();
                        let result = self.execute(&txn, Some(session), &who);
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
            Command::PlainTxn { origin, identities, txn } => {
                let result = self.execute(&txn, None, &identities);
                let reply = self.reply(result);
                Applied::Plain { origin, reply }
            }
            Command::OpenSession { origin, secret, ttl_us, identities } => {
                let (result, moved_from) = self.open(&origin, (secret, identities), ttl_us);
                Applied::Session { origin, zxid: Zxid::new(self.zxid), result, moved_from }
            }
            Command::AttachSession { origin, session, secret, epoch, identities } => {
                let moved_from = self.sessions.get(&session).map(|it| it.epoch);
                let result = self.attach(session, secret, epoch, identities);
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
            Command::Expire { lease } => self.expire(lease),
            Command::ReapNode { path, czxid } => self.reap(path, czxid),
            Command::PinStore { .. } | Command::CompareStates { .. } => Applied::Nothing,
        }
    }

    pub(in crate::namespace) fn stat(&self, path: &str) -> Option<Stat> {
        let node = self.nodes.get(path)?;
        Some(Stat {
            data_length: node.data.len() as u64,
            children: self.children(path).len() as u64,
            ..node.stat
        })
    }

    pub(in crate::namespace) fn quota(&self, path: &str) -> Option<Quota> {
        self.nodes[path].quota
    }

    pub(in crate::namespace) fn children(&self, parent: &str) -> Vec<String> {
        let children = self.nodes.keys().filter(|it| it.len() > 1 && before(it) == parent);
        let mut names: Vec<_> = children.map(|it| name(it).to_string()).collect();
        names.sort();
        names
    }

    pub(in crate::namespace) fn session(&self, id: SessionId) -> Option<SessionState> {
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

    pub(in crate::namespace) fn ephemerals(&self, id: LeaseId) -> Vec<String> {
        let owned = self.nodes.iter().filter(|it| it.1.stat.owner == Some(id));
        owned.map(|it| it.0.clone()).collect()
    }

    fn reply(&self, result: Result<Outcome, OpError>) -> Reply {
        Reply { zxid: Zxid::new(self.zxid), result }
    }

    #[expect(clippy::result_large_err, reason = "a reply is what there is to tell")]
    fn admit(
        &mut self,
        id: SessionId,
        epoch: u64,
        seq: u64,
        keeps: Option<(u64, &Txn)>,
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
        lease.acknowledge(keeps.map_or(0, |it| it.0));
        if seq < expected {
            return match lease.replies.get(&seq) {
                Some(reply) => Err(reply.clone()),
                None => refuse(OpError::AlreadyAcknowledged { seq }),
            };
        }
        let Some((_, txn)) = keeps else {
            return Ok(());
        };
        let results = match txn.is_verbose() {
            true => self.parameters.window_bytes_max / 2,
            false => 0,
        };
        let count = lease.replies.len() as u64 + 1;
        let bytes = lease.replies.values().map(reply_bytes).sum::<u64>() + 192 + results.max(4096);
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

    /// The same, but with the nodes as they were after a transaction.
    pub(in crate::namespace) fn at(&self, zxid: u64) -> Self {
        Self { zxid, nodes: (*self.states[&zxid]).clone(), ..self.clone() }
    }

    pub(in crate::namespace) fn content(&self, path: &str) -> Option<Content> {
        let data = Bytes::from(self.nodes.get(path)?.data.clone());
        Some(Content { data, stat: self.stat(path)? })
    }

    fn change(
        &self,
        kind: EventKind,
        path: &str,
        before: Option<(Content, Option<Acl>)>,
    ) -> Change {
        let (zxid, kind, after) = (self.zxid + 1, Some(kind), self.image(path));
        Change { zxid, kind, path: path.parse().unwrap(), before, after }
    }

    fn image(&self, path: &str) -> Option<(Content, Option<Acl>)> {
        Some((self.content(path)?, acl_of(&self.nodes[path])))
    }

    /// Takes a node out of the tree; the transaction is the next one.
    fn unlink(&mut self, path: &str) -> Change {
        let image = self.image(path);
        self.nodes.remove(path).unwrap();
        if let Some(parent) = self.nodes.get_mut(before(path)) {
            parent.stat.cversion += 1;
            parent.stat.pzxid = Zxid::new(self.zxid + 1);
        }
        if self.children(before(path)).is_empty() {
            self.nodes.get_mut(before(path)).unwrap().emptied_us = self.clock_us;
        }
        self.change(EventKind::Deleted, path, image)
    }

    /// From when on the cluster may remove a node.
    pub(in crate::namespace) fn node_deadline(&self, path: &str) -> Option<u64> {
        let node = &self.nodes[path];
        if !self.children(path).is_empty() {
            return None;
        }
        match node.stat.lifetime {
            Lifetime::Container if node.stat.cversion > 0 => {
                Some(node.emptied_us + self.parameters.container_grace_us)
            }
            Lifetime::Ttl(ttl) => Some(node.touched_us + ttl.as_micros() as u64),
            _ => None,
        }
    }

    fn reap(&mut self, path: Path, czxid: Zxid) -> Applied {
        let same = self.stat(path.as_str()).is_some_and(|stat| stat.czxid == czxid);
        let due = same && self.node_deadline(path.as_str()).is_some_and(|at| at <= self.clock_us);
        if !due {
            return Applied::NotReaped { path };
        }
        let change = self.unlink(path.as_str());
        self.commit(vec![change]);
        Applied::Reaped { path }
    }

    fn open(
        &mut self,
        origin: &Origin,
        (secret, identities): (SecretHash, Identities),
        ttl_us: u64,
    ) -> (Result<SessionState, OpError>, Option<u64>) {
        let opener = Some((origin.node, origin.boot_nonce));
        let base_us = self.clock_us + self.parameters.tick_us;
        let known = self.sessions.iter_mut().find(|it| it.1.secret == secret);
        let Some((&id, lease)) = known else {
            return (self.open_new(opener, (secret, identities), ttl_us), None);
        };
        let moved_from = match (lease.opener, lease.epoch) {
            (same, _) if same == opener && lease.identities != identities => {
                return (Err(OpError::OtherIdentities { session: id }), None);
            }
            (same, _) if same == opener => None,
            (Some(_), 1) => {
                (lease.epoch, lease.opener, lease.keep_alive) = (2, opener, 0);
                lease.identities = identities;
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
        (secret, identities): (SecretHash, Identities),
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
            identities,
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
        identities: Identities,
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
        lease.identities = identities;
        lease.keep_alive = 0;
        lease.deadline_us = base_us + lease.ttl_us;
        Ok(self.session(id).unwrap())
    }

    fn expire(&mut self, id: LeaseId) -> Applied {
        let session = SessionId::new(id.as_u64()).unwrap();
        match (self.sessions.get(&session), self.granted.get(&id)) {
            (Some(lease), _) if lease.deadline_us <= self.clock_us => {
                let epoch = lease.epoch;
                self.end(session);
                Applied::Expired { session, epoch }
            }
            (_, Some(granted)) if granted.deadline_us <= self.clock_us => {
                let session = granted.session;
                let events = self.end_lease(id);
                self.commit(events);
                Applied::LeaseExpired { lease: id, session }
            }
            _ => Applied::NotExpired { lease: id },
        }
    }

    /// Leases of a session.
    pub(in crate::namespace) fn leases(&self, session: SessionId) -> Vec<LeaseId> {
        let of = self.granted.iter().filter(|it| it.1.session == session);
        of.map(|it| *it.0).collect()
    }

    /// Ephemeral nodes of a session and its leases.
    pub(in crate::namespace) fn owned(&self, session: SessionId) -> Vec<String> {
        let mut all = self.ephemerals(session.lease());
        all.extend(self.leases(session).into_iter().flat_map(|it| self.ephemerals(it)));
        all.sort();
        all
    }

    pub(in crate::namespace) fn end_lease(&mut self, id: LeaseId) -> Vec<Change> {
        self.granted.remove(&id);
        let owned = self.ephemerals(id);
        owned.into_iter().map(|path| self.unlink(&path)).collect()
    }

    fn keep_alive(&mut self, item: &KeepAlive) -> bool {
        let base_us = self.clock_us + self.parameters.tick_us;
        if let Some(id) = item.lease {
            let session = self.sessions.get(&item.session);
            let attached = session.is_some_and(|it| it.epoch == item.epoch);
            return match self.granted.get_mut(&id) {
                Some(it)
                    if attached
                        && it.session == item.session
                        && it.heard < (item.epoch, item.number) =>
                {
                    it.heard = (item.epoch, item.number);
                    it.deadline_us = base_us + it.ttl_us;
                    true
                }
                _ => false,
            };
        }
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
        let owned = self.owned(id);
        let events = owned.iter().map(|path| self.unlink(path)).collect();
        self.sessions.remove(&id);
        self.granted.retain(|_, it| it.session != id);
        self.commit(events);
    }

    /// One transaction: its changes, and the history cut back to its bounds.
    fn commit(&mut self, changes: Vec<Change>) {
        self.zxid += 1;
        self.changes.extend(changes.iter().filter_map(Change::event));
        self.history.extend(changes);
        let bytes = |history: &[Change]| -> u64 {
            let before = |(content, acl): &(Content, Option<Acl>)| {
                128 + content.data.len() + acl.as_ref().map_or(0, Acl::bytes)
            };
            let weight =
                |it: &Change| 192 + it.path.as_str().len() + it.before.as_ref().map_or(0, before);
            history.iter().map(|it| weight(it) as u64).sum()
        };
        while self.history.len() as u64 > self.parameters.history_count_max
            || bytes(&self.history) > self.parameters.history_bytes_max
        {
            let oldest = self.history[0].zxid;
            self.floor = Zxid::new(oldest);
            self.history.retain(|it| it.zxid != oldest);
        }
        self.states.insert(self.zxid, Rc::new(self.nodes.clone()));
        self.states.retain(|zxid, _| *zxid >= self.floor.as_u64());
    }
}

impl Change {
    /// With what was before and after.
    pub(in crate::namespace) fn event(&self) -> Option<Event> {
        let (content, _) = self.after.as_ref().or(self.before.as_ref())?;
        let boxed = |it: &(Content, Option<Acl>)| Box::new(it.0.clone());
        Some(Event {
            zxid: Zxid::new(self.zxid),
            kind: self.kind?,
            path: self.path.clone(),
            czxid: content.stat.czxid,
            before: self.before.as_ref().map(boxed),
            after: self.after.as_ref().map(boxed),
            acl: None,
            acl_above: None,
        })
    }
}

impl Lease {
    fn acknowledge(&mut self, acked: u64) {
        self.acked = self.acked.max(acked.min(self.last_seq));
        self.replies.retain(|seq, _| *seq > self.acked);
    }
}

/// The list as it stands in an event.
fn acl_of(node: &Node) -> Option<Acl> {
    (!node.acl.is_empty()).then(|| Acl::new(node.acl.clone()).unwrap())
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
    192 + match &reply.result {
        Ok(outcome) => outcome_bytes(outcome),
        Err(OpError::InTxn { cause, .. }) => error_path(cause),
        Err(error) => error_path(error),
    }
}

fn outcome_bytes(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Created { path, .. } => path.as_str().len() as u64,
        Outcome::Node { data, .. } => data.len() as u64,
        Outcome::Listed(page) => {
            let mut bytes = page.resume.as_ref().map_or(0, String::len);
            for child in &page.children {
                bytes += 64 + child.name.len();
                bytes += if child.stat.is_some() { 128 } else { 0 };
                bytes += child.data.as_ref().map_or(0, |data| data.len());
            }
            bytes as u64
        }
        Outcome::Acl { acl, .. } => acl.bytes() as u64,
        Outcome::Txn { results, .. } => results.iter().map(|it| 192 + outcome_bytes(it)).sum(),
        _ => 0,
    }
}

fn error_path(error: &OpError) -> u64 {
    match error {
        OpError::NoNode { path }
        | OpError::NodeExists { path }
        | OpError::BadVersion { path, .. }
        | OpError::NotEmpty { path, .. }
        | OpError::NoChildrenForEphemerals { path }
        | OpError::NoAuth { path, .. }
        | OpError::InvalidAcl { path }
        | OpError::Quota { path, .. }
        | OpError::GuardFailed { path, .. } => path.as_str().len() as u64,
        _ => 0,
    }
}
