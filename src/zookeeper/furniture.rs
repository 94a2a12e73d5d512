//! The nodes that are there in every ZooKeeper: made by whoever is first, and `/zookeeper/config`
//! kept up with the members.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;

use crate::{
    client::{Client, Completion, Error, Written},
    id::NodeId,
    node::{Consistency, Member, RequestError, Status},
    op::{Acl, CreateMode, Grant, Identities, Op, OpError, Principal, Rights, Stat, Txn},
    path::Path,
    zookeeper::{options::ServerAddress, report::serves, servers},
};

/// Sees to it that they are there, and say what they must.
#[derive(Debug)]
pub(super) struct Furniture {
    client: Client,
    servers: BTreeMap<NodeId, ServerAddress>,
    /// To be made, the last one first.
    left: Vec<Op>,
    step: Step,
    /// The members of whom the node is known to tell.
    told: Option<BTreeMap<NodeId, Member>>,
    /// What the node said when it was read last.
    config: String,
    next_look: Duration,
}

/// What is under way.
#[derive(Debug)]
enum Step {
    Nothing,
    Makes(Completion<Written>),
    /// Who are the members?
    Asks(Box<Completion<Status>>),
    /// What does the node say of them?
    Reads(Box<Status>, Completion<(Bytes, Stat)>),
    Writes(Completion<Written>),
}

impl Furniture {
    pub(super) fn new(client: &Client, servers: &BTreeMap<NodeId, ServerAddress>) -> Self {
        let client = client.with_identities(Identities::superuser());
        let (servers, step) = (servers.clone(), Step::Nothing);
        let (config, next_look) = (String::new(), Duration::ZERO);
        let mut it = Self { client, servers, left: nodes(), step, told: None, config, next_look };
        it.tick(Duration::ZERO);
        it
    }

    /// What `/zookeeper/config` says.
    pub(super) fn config(&self) -> &str {
        &self.config
    }

    /// A node has changed.
    pub(super) fn notice(&mut self, path: &Path) {
        if path.as_str() == CONFIG {
            self.told = None;
        }
    }

    /// Goes a step on, when the last one is done.
    pub(super) fn tick(&mut self, now: Duration) {
        self.step = match std::mem::replace(&mut self.step, Step::Nothing) {
            Step::Nothing => self.begin(now),
            Step::Makes(mut asked) => match asked.try_take() {
                None => Step::Makes(asked),
                Some(Ok(_)) => self.made(now),
                Some(Err(Error::Request(RequestError::Op(OpError::NodeExists { .. })))) => {
                    self.made(now)
                }
                // There is no leader yet; it is asked for again.
                Some(Err(_)) => self.begin(now),
            },
            Step::Asks(mut asked) => match asked.try_take() {
                None => Step::Asks(asked),
                Some(Ok(status)) if self.is_news(&status) => match Path::new(CONFIG) {
                    Ok(path) => {
                        let asked = self.client.get(&path, Consistency::Local);
                        Step::Reads(Box::new(status), asked)
                    }
                    Err(_) => Step::Nothing,
                },
                Some(_) => Step::Nothing,
            },
            Step::Reads(status, mut asked) => match asked.try_take() {
                None => Step::Reads(status, asked),
                Some(Ok((data, stat))) => self.compare(*status, &data, &stat),
                Some(Err(_)) => {
                    self.left = nodes();
                    Step::Nothing
                }
            },
            Step::Writes(mut asked) => match asked.try_take() {
                None => Step::Writes(asked),
                // Somebody else was faster, or all is well: it is read again.
                Some(_) => Step::Nothing,
            },
        };
    }

    fn begin(&mut self, now: Duration) -> Step {
        if let Some(op) = self.left.last() {
            return Step::Makes(self.client.txn(Txn::new(op.clone())));
        }
        if now < self.next_look {
            return Step::Nothing;
        }
        self.next_look = now + LOOK_INTERVAL;
        Step::Asks(Box::new(self.client.status()))
    }

    fn made(&mut self, now: Duration) -> Step {
        self.left.pop();
        self.begin(now)
    }

    fn is_news(&self, status: &Status) -> bool {
        serves(status) && self.told.as_ref() != Some(&status.members)
    }

    /// Writes what the node must say, unless it does: only over what was read.
    fn compare(&mut self, status: Status, data: &[u8], stat: &Stat) -> Step {
        self.config = String::from_utf8_lossy(data).into_owned();
        let cluster = (status.id, status.zxid, &status.members);
        match (servers::rewritten(&self.config, cluster, &self.servers), Path::new(CONFIG)) {
            (Some(text), Ok(path)) => {
                Step::Writes(self.client.set(&path, text, Some(stat.version)))
            }
            _ => {
                self.told = Some(status.members);
                Step::Nothing
            }
        }
    }
}

/// To be made, the last one first.
fn nodes() -> Vec<Op> {
    let node = |path: &str, acl| {
        let path = Path::new(path).ok()?.into();
        let (data, mode) = (Bytes::new(), CreateMode::Persistent);
        Some(Op::Create { path, data, mode, acl: Some(acl) })
    };
    let read = Grant { principal: Principal::World, rights: Rights::READ };
    let readable = Acl::new([read]).unwrap_or_else(|_| Acl::open());
    let nodes = [
        node(CONFIG, readable),
        node("/zookeeper/quota", Acl::open()),
        node("/zookeeper", Acl::open()),
    ];
    nodes.into_iter().flatten().collect()
}

const CONFIG: &str = "/zookeeper/config";
/// How often the members are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
