//! The promises of the state machine, one by one.

mod access;
mod digest;
mod history;
mod lease;
mod lifetime;
mod random;
mod session;
mod snapshot;
mod tree;
mod txn;
mod walk;
mod zookeeper;

use bytes::Bytes;

use super::{
    model::{
        Model,
        commands::{Random, create, delete, origin, path, secret, set, tight},
        compare::{check_indexes, encoder, restored, snapshot},
    },
    *,
};
use crate::{
    config::Config,
    id::{ClusterId, NodeId},
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
