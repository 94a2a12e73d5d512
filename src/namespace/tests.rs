//! The promises of the state machine, one by one.

use bytes::Bytes;

use super::*;
use crate::{
    config::Config,
    id::{ClusterId, NodeId, Secret},
    op::{CreateMode, EventKind, Stat},
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
    let expected = Stat {
        mzxid: Zxid::new(2),
        mtime_ms: 80,
        version: 1,
        data_length: 2,
        ..expected
    };
    assert_eq!(reply.result, Ok(Outcome::Set { stat: expected }));
    let view = it.ns.view();
    assert_eq!(view.read(&path("/a")), Some((Bytes::from("yy"), expected)));
    assert_eq!(it.plain(delete("/a", Some(1))).result, Ok(Outcome::Deleted));
    assert_eq!(it.ns.view().stat(&path("/a")), None);
    assert_eq!(
        view.stat(&path("/a")),
        Some(expected),
        "a view stays as it was"
    );
    let kinds: Vec<_> = it.ns.drain_changes().iter().map(|it| it.kind).collect();
    let all = [
        EventKind::Created,
        EventKind::DataChanged,
        EventKind::Deleted,
    ];
    assert_eq!(kinds, all);
    assert!(it.ns.drain_changes().is_empty());
}

/// A namespace and the shortest ways to use it.
struct Fixture {
    ns: Namespace,
    counter: u64,
}

impl Fixture {
    fn new() -> Self {
        Self::with(parameters())
    }

    fn with(parameters: Parameters) -> Self {
        Self {
            ns: Namespace::new(parameters),
            counter: 0,
        }
    }

    fn plain(&mut self, txn: impl Into<Txn>) -> Reply {
        self.counter += 1;
        let origin = origin(self.counter);
        match self.ns.apply(Command::PlainTxn {
            origin,
            txn: txn.into(),
        }) {
            Applied::Plain { origin: it, reply } if it == origin => reply,
            other => panic!("{other:?}"),
        }
    }
}

pub(super) fn parameters() -> Parameters {
    let id = NodeId::new(1).unwrap();
    Config::founding(ClusterId::named("test"), id, [id])
        .build()
        .unwrap()
        .parameters()
}

pub(super) fn origin(counter: u64) -> Origin {
    Origin {
        node: NodeId::new(1).unwrap(),
        boot_nonce: 5,
        counter,
    }
}

pub(super) fn path(text: &str) -> Path {
    text.parse().unwrap()
}

pub(super) fn create(at: &str, data: &str, mode: CreateMode) -> Op {
    let path = if mode.is_sequential() {
        Path::sequential_prefix(at).unwrap()
    } else {
        path(at).into()
    };
    Op::Create {
        path,
        data: Bytes::copy_from_slice(data.as_bytes()),
        mode,
    }
}

pub(super) fn set(at: &str, data: &str, version: Option<u64>) -> Op {
    Op::Set {
        path: path(at),
        data: Bytes::copy_from_slice(data.as_bytes()),
        version,
    }
}

pub(super) fn delete(at: &str, version: Option<u64>) -> Op {
    Op::Delete {
        path: path(at),
        version,
    }
}

pub(super) fn secret(number: u64) -> SecretHash {
    Secret::from_bytes(u128::from(number).to_le_bytes()).hash()
}
