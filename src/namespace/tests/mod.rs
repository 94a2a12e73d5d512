//! The promises of the state machine, one by one.

mod access;
mod digest;
mod history;
mod lease;
mod lifetime;
mod model;
mod random;
mod session;
mod snapshot;
mod tree;
mod txn;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;
use crate::{
    config::Config,
    id::{ClusterId, NodeId, Secret},
    op::{CreateMode, EventKind, Identities, Op, Stat, Usage},
    path::Path,
};

#[test]
fn a_node_is_created_read_set_and_deleted() {
    let mut it = Fixture::new();
    it.ns.begin_entry(0, 77);
    let reply = it.plain(create("/a", "x", CreateMode::Persistent));
    let Ok(Outcome::Created { path: made, stat }) = reply.result else {
        panic!("{reply:?}");
    };
    assert_eq!((reply.zxid, made), (Zxid::new(1), path("/a")));
    let expected = Stat {
        czxid: Zxid::new(1),
        mzxid: Zxid::new(1),
        pzxid: Zxid::new(1),
        ctime_ms: 77,
        mtime_ms: 77,
        data_length: 1,
        ..Stat::default()
    };
    assert_eq!(stat, expected);
    it.ns.begin_entry(0, 80);
    let reply = it.plain(set("/a", "yy", Some(0)));
    let expected =
        Stat { mzxid: Zxid::new(2), mtime_ms: 80, version: 1, data_length: 2, ..expected };
    assert_eq!(reply.result, Ok(Outcome::Set { stat: expected }));
    let view = it.ns.view();
    assert_eq!(view.read(&path("/a")), Ok((Bytes::from("yy"), expected)));
    assert_eq!(it.plain(delete("/a", Some(1))).result, Ok(Outcome::Deleted));
    assert_eq!(it.ns.view().stat(&path("/a")), Ok(None));
    assert_eq!(view.stat(&path("/a")), Ok(Some(expected)), "a view stays as it was");
    let kinds: Vec<_> = it.ns.drain_changes().iter().filter_map(|it| it.kind).collect();
    let all = [EventKind::Created, EventKind::DataChanged, EventKind::Deleted];
    assert_eq!(kinds, all);
    assert!(it.ns.drain_changes().is_empty());
}

/// A namespace and the shortest ways to use it.
struct Fixture {
    ns: Namespace,
    counter: u64,
    /// Of every session.
    epoch: u64,
}

impl Fixture {
    fn new() -> Self {
        Self::with(parameters())
    }

    fn with(parameters: Parameters) -> Self {
        Self { ns: Namespace::new(parameters), counter: 0, epoch: 1 }
    }

    fn open(&mut self, number: u64, ttl_us: u64) -> SessionId {
        self.open_as(number, ttl_us, Identities::none())
    }

    fn open_as(&mut self, number: u64, ttl_us: u64, identities: Identities) -> SessionId {
        let (origin, secret) = (origin(0), secret(number));
        let command = Command::OpenSession { origin, secret, ttl_us, identities };
        match self.ns.apply(command) {
            Applied::Session { result, .. } => result.unwrap().id,
            other => panic!("{other:?}"),
        }
    }

    fn txn(&mut self, session: SessionId, seq: u64, acked: u64, txn: impl Into<Txn>) -> Reply {
        let epoch = self.epoch;
        let command = Command::SessionTxn { session, epoch, seq, acked, txn: txn.into() };
        match self.ns.apply(command) {
            Applied::Sequenced { reply, ended: false, .. } => reply,
            other => panic!("{other:?}"),
        }
    }

    fn plain(&mut self, txn: impl Into<Txn>) -> Reply {
        self.plain_as(Identities::none(), txn)
    }

    fn plain_as(&mut self, identities: Identities, txn: impl Into<Txn>) -> Reply {
        self.counter += 1;
        let (origin, txn) = (origin(self.counter), txn.into());
        match self.ns.apply(Command::PlainTxn { origin, identities, txn }) {
            Applied::Plain { origin: it, reply } if it == origin => reply,
            other => panic!("{other:?}"),
        }
    }
}

pub(super) fn parameters() -> Parameters {
    let id = NodeId::new(1).unwrap();
    Config::founding(ClusterId::named("test"), id, [id]).build().unwrap().parameters()
}

pub(super) fn origin(counter: u64) -> Origin {
    Origin { node: NodeId::new(1).unwrap(), boot_nonce: 5, counter }
}

pub(super) fn path(text: &str) -> Path {
    text.parse().unwrap()
}

pub(super) fn create(at: &str, data: &str, mode: CreateMode) -> Op {
    let path =
        if mode.is_sequential() { Path::sequential_prefix(at).unwrap() } else { path(at).into() };
    Op::Create { path, data: Bytes::copy_from_slice(data.as_bytes()), mode, acl: None }
}

pub(super) fn set(at: &str, data: &str, version: Option<u64>) -> Op {
    Op::Set { path: path(at), data: Bytes::copy_from_slice(data.as_bytes()), version }
}

pub(super) fn delete(at: &str, version: Option<u64>) -> Op {
    Op::Delete { path: path(at), version }
}

pub(super) fn secret(number: u64) -> SecretHash {
    Secret::from_bytes(u128::from(number).to_le_bytes()).hash()
}

pub(super) fn encoder(ns: &Namespace) -> Encoder {
    let (members, removed) = (Bytes::from_static(b"members"), Bytes::from_static(b"gone"));
    Encoder::new(ns.freeze(), ClusterId::named("test"), members, removed)
}

pub(super) fn snapshot(ns: &Namespace) -> Vec<u8> {
    let mut encoder = encoder(ns);
    std::iter::from_fn(|| encoder.next_chunk(1 << 16)).flatten().collect()
}

/// The same state after its snapshot was written and read in pieces of this size.
pub(super) fn restored(ns: &Namespace, piece: usize) -> Namespace {
    let bytes = snapshot(ns);
    let mut decoder = Decoder::new(ClusterId::named("test"));
    for piece in bytes.chunks(piece) {
        decoder.feed(Bytes::copy_from_slice(piece)).unwrap();
    }
    let (restored, members, removed) = decoder.finish().unwrap();
    assert_eq!((&members[..], &removed[..]), (&b"members"[..], &b"gone"[..]));
    assert_eq!(snapshot(&restored), bytes);
    assert_eq!(restored.state.digest(), ns.state.digest());
    restored
}

/// Makes every index anew from what it indexes.
pub(super) fn check_indexes(ns: &Namespace) {
    let state = &ns.state;
    let (mut deadlines, mut secrets) = (Vec::new(), Vec::new());
    let (mut owned, mut leases) = (Vec::new(), 0);
    let mut next = state.sessions.after(None);
    while let Some((id, session)) = next {
        deadlines.push((session.deadline_us, id.lease()));
        secrets.push((session.secret, id));
        let all = owned.len();
        owned.extend(session.ephemerals.iter().map(|path| (path.to_string(), id.lease())));
        let mut lease = session.lease_after(None);
        while let Some(at) = lease {
            let it = state.sessions.lease(at).expect("it is there");
            assert_eq!(it.session, id);
            leases += 1;
            deadlines.push((it.deadline_us, at));
            owned.extend(it.ephemerals.iter().map(|path| (path.to_string(), at)));
            lease = session.lease_after(Some(at));
        }
        assert_eq!(owned.len() - all, session.owned as usize);
        next = state.sessions.after(Some(id));
    }
    deadlines.sort();
    secrets.sort();
    owned.sort();
    assert_eq!(state.sessions.indexes(), (deadlines, secrets));
    assert_eq!(state.sessions.leases(), leases);
    let (mut count, mut owners, mut due) = (1, Vec::new(), Vec::new());
    let mut usages = BTreeMap::new();
    for path in state.tree.quotas.keys() {
        let root = state.tree.get(path).unwrap();
        usages.insert(path.to_string(), Usage { nodes: 1, bytes: root.data.len() as u64 });
    }
    let mut at = "/".to_string();
    while let Some((path, znode)) = state.tree.next_depth_first(&at) {
        count += 1;
        for (top, usage) in &mut usages {
            if **path != **top && path.starts_with(&format!("{}/", top.trim_end_matches('/'))) {
                usage.nodes += 1;
                usage.bytes += znode.data.len() as u64;
            }
        }
        let deadline_us = znode.deadline(state.parameters.container_grace_us);
        due.extend(deadline_us.map(|deadline_us| (deadline_us, path.to_string())));
        owners.extend(znode.owner.map(|owner| (path.to_string(), owner)));
        at = path.to_string();
    }
    owners.sort();
    due.sort();
    let named: Vec<_> = due.into_iter().map(|(_, path)| path).collect();
    assert!(state.tree.due(u64::MAX).map(|path| path.to_string()).eq(named));
    assert_eq!(owned, owners);
    assert_eq!(state.tree.len(), count);
    for (path, usage) in usages {
        assert_eq!(state.tree.metered(&path).unwrap().usage, usage, "{path}");
    }
}
