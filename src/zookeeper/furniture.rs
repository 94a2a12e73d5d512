//! The nodes that are there in every ZooKeeper: made once, by whoever is first.

use crate::{
    client::{Client, Completion, Error, Written},
    node::RequestError,
    op::{Acl, CreateMode, Grant, Identities, Op, OpError, Principal, Rights, Txn},
    path::Path,
};

/// Sees to it that they are there.
#[derive(Debug)]
pub(super) struct Furniture {
    client: Client,
    /// To be made, the last one first.
    left: Vec<Op>,
    asked: Option<Completion<Written>>,
}

impl Furniture {
    pub(super) fn new(client: &Client, config: &str) -> Self {
        let node = |path: &str, data: &str, acl| {
            let path = Path::new(path).ok()?.into();
            let data = bytes::Bytes::copy_from_slice(data.as_bytes());
            Some(Op::Create { path, data, mode: CreateMode::Persistent, acl: Some(acl) })
        };
        let read = Grant { principal: Principal::World, rights: Rights::READ };
        let readable = Acl::new([read]).unwrap_or_else(|_| Acl::open());
        let nodes = [
            node("/zookeeper/config", config, readable),
            node("/zookeeper/quota", "", Acl::open()),
            node("/zookeeper", "", Acl::open()),
        ];
        let client = client.with_identities(Identities::superuser());
        let mut it = Self { client, left: nodes.into_iter().flatten().collect(), asked: None };
        it.tick();
        it
    }

    /// Asks for the next one, when the last one is there.
    pub(super) fn tick(&mut self) {
        if let Some(mut asked) = self.asked.take() {
            match asked.try_take() {
                None => return self.asked = Some(asked),
                Some(Ok(_)) => drop(self.left.pop()),
                Some(Err(Error::Request(RequestError::Op(OpError::NodeExists { .. })))) => {
                    self.left.pop();
                }
                // There is no leader yet; it is asked for again.
                Some(Err(_)) => {}
            }
        }
        if let Some(op) = self.left.last() {
            self.asked = Some(self.client.txn(Txn::new(op.clone())));
        }
    }
}
