//! Random commands that mostly make sense in the model's state.

use std::time::Duration;

use bytes::Bytes;

use super::Model;
use crate::{
    command::{Command, KeepAlive},
    config::Parameters,
    id::{LeaseId, NodeId, Origin, Secret, SecretHash, SessionId, Zxid},
    op::{
        Acl, Body, Check, Children, CreateMode, DigestId, Field, Grant, Guard, Identities,
        Identity, List, Op, Principal, Quota, Relation, Rights, Step, Txn,
    },
    path::Path,
};

/// A source of commands, from a seed or from an input; most make sense in the model's state.
pub(in crate::namespace) struct Random {
    seed: u64,
    /// Chooses first, as far as it goes; the last byte comes first.
    input: Vec<u8>,
}

impl Random {
    #[cfg(test)]
    pub(in crate::namespace) fn new(seed: u64) -> Self {
        Self { seed, input: Vec::new() }
    }

    pub(in crate::namespace) fn of(input: &[u8]) -> Self {
        Self { seed: 0, input: input.iter().rev().copied().collect() }
    }

    /// Whether the input has no choices left.
    pub(in crate::namespace) fn is_spent(&self) -> bool {
        self.input.is_empty()
    }

    /// SplitMix64.
    pub(in crate::namespace) fn next(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(in crate::namespace) fn below(&mut self, end: u64) -> u64 {
        match (self.input.pop(), end) {
            (None, _) => self.next() % end,
            (Some(low), ..=256) => u64::from(low) % end,
            (Some(low), _) => {
                let high = self.input.pop().unwrap_or(0);
                u64::from(u16::from_le_bytes([low, high])) % end
            }
        }
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of two openings of a node.
    fn opener(&mut self) -> Origin {
        let it = origin(self.below(100));
        Origin { boot_nonce: it.counter % 2, ..it }
    }

    pub(in crate::namespace) fn command(&mut self, model: &Model) -> Command {
        let ids: Vec<_> = model.sessions.keys().copied().collect();
        let session = match ids.len() as u64 {
            0 => SessionId::new(1 + self.below(5)).unwrap(),
            len if self.one_in(50) => SessionId::new(1 + self.below(len * 9)).unwrap(),
            len => ids[self.below(len) as usize],
        };
        let lease = model.sessions.get(&session);
        let mut epoch = lease.map_or(1, |it| it.epoch);
        if self.one_in(20) {
            epoch = self.below(epoch + 3);
        }
        let last_seq = lease.map_or(0, |it| it.last_seq);
        let seq = match self.below(12) {
            0 => last_seq + 2 + self.below(3),
            1 | 2 => last_seq.saturating_sub(self.below(6)),
            _ => last_seq + 1,
        };
        let acked = match self.below(3) {
            0 => last_seq.saturating_sub(self.below(4)),
            1 if self.one_in(20) => u64::MAX,
            _ => 0,
        };
        match self.below(40) {
            0 | 1 => Command::OpenSession {
                origin: self.opener(),
                secret: match lease {
                    Some(lease) if self.one_in(4) => lease.secret,
                    _ => secret(self.next()),
                },
                ttl_us: self.below(3_000),
                identities: self.identities(),
            },
            2 => Command::AttachSession {
                origin: origin(self.below(100)),
                session,
                secret: match lease {
                    Some(lease) if !self.one_in(4) => lease.secret,
                    _ => secret(0),
                },
                epoch: epoch + self.below(3),
                identities: self.identities(),
            },
            3 if self.one_in(2) => Command::CloseSession { session, epoch, seq },
            4 | 5 => self.keep_alives(model, session, (epoch, acked)),
            6 => Command::Expire { lease: self.lease(model, session) },
            7 => {
                let at = self.node(model);
                let czxid = model.stat(&at).unwrap_or_default().czxid.as_u64();
                let czxid = Zxid::new(czxid + u64::from(self.one_in(9)));
                Command::ReapNode { path: path(&at), czxid }
            }
            8..=15 => Command::PlainTxn {
                origin: origin(self.below(100)),
                identities: self.identities(),
                txn: self.txn(model, session),
            },
            _ => Command::SessionTxn { session, epoch, seq, acked, txn: self.txn(model, session) },
        }
    }

    fn keep_alives(
        &mut self,
        model: &Model,
        session: SessionId,
        (epoch, acked): (u64, u64),
    ) -> Command {
        let ids: Vec<_> = model.sessions.keys().copied().collect();
        let own = model.sessions.get(&session).map_or(0, |it| it.keep_alive);
        let items = (0..self.below(4)).map(|_| {
            let session = ids.get(self.below(6) as usize).copied().unwrap_or(session);
            let leases = model.leases(session);
            let lease = leases.get(self.below(4) as usize).copied();
            let heard = lease.map_or(own, |it| model.granted[&it].heard.1);
            KeepAlive { session, lease, epoch, number: heard + self.below(3), acked }
        });
        Command::KeepAlives(items.collect())
    }

    fn txn(&mut self, model: &Model, session: SessionId) -> Txn {
        let mut txn = Txn::with_body(if self.one_in(3) {
            let then = self.steps(model, session);
            let otherwise = self.one_in(3).then(|| self.steps(model, session));
            Body::Many { then, otherwise }
        } else {
            Body::One(self.step(model, session, 18))
        });
        if self.one_in(3) {
            txn = txn.for_zookeeper();
        }
        while self.one_in(6) {
            txn = txn.guard(self.guard(model, session));
        }
        txn
    }

    fn steps(&mut self, model: &Model, session: SessionId) -> Vec<Step> {
        (0..self.below(5)).map(|_| self.step(model, session, 6)).collect()
    }

    fn step(&mut self, model: &Model, session: SessionId, bytes: u64) -> Step {
        let op = self.op(model, session, bytes);
        let empty =
            matches!(&op, Op::Create { data, .. } | Op::Set { data, .. } if data.is_empty());
        Step { op, null: empty && self.one_in(2) }
    }

    fn op(&mut self, model: &Model, session: SessionId, bytes: u64) -> Op {
        let version = |random: &mut Self| random.one_in(4).then(|| random.below(3));
        let data = "0123456789abcdefg"[..self.below(bytes) as usize].to_string();
        let at = self.node(model);
        let crowded = model.nodes.len() > 60;
        match self.below(if crowded { 10 } else { 22 }) {
            0..=2 => set(&at, &data, version(self)),
            3..=5 => delete(&at, version(self)),
            _ if self.one_in(15) => self.access(&at),
            _ if self.one_in(9) => match self.one_in(3) {
                true => Op::Revoke { lease: self.lease(model, session) },
                false => Op::Grant { ttl: Duration::from_micros(self.below(3_000)) },
            },
            6 if self.one_in(3) => Op::DeleteTree { path: path(&at) },
            6 => Op::Check(self.guard(model, SessionId::new(1).unwrap())),
            7 => Op::Get { path: path(&at) },
            8 => Op::Exists { path: path(&at) },
            9 => Op::List(self.list(&at)),
            kind => {
                let ttl = Duration::from_millis(self.below(3));
                let lease = self.lease(model, session);
                let mode = [
                    CreateMode::Persistent,
                    CreateMode::Persistent,
                    CreateMode::Persistent,
                    CreateMode::Ephemeral,
                    CreateMode::Ephemeral,
                    CreateMode::PersistentSequential,
                    CreateMode::EphemeralSequential,
                    CreateMode::Container,
                    CreateMode::Ttl(ttl),
                    CreateMode::SequentialTtl(ttl),
                    CreateMode::Leased(lease),
                    CreateMode::SequentialLeased(lease),
                ][kind as usize - 10];
                let name = NAMES[self.below(NAMES.len() as u64) as usize];
                let at = format!("{}/{name}", at.trim_end_matches('/'));
                if at.matches('/').count() > 4 {
                    return set("/", &data, None);
                }
                let acl = self.one_in(5).then(|| self.acl());
                let at = match mode.is_sequential() && self.one_in(3) {
                    true => &at[..at.len() - name.len()],
                    false => &at,
                };
                match create(at, &data, mode) {
                    Op::Create { path, data, mode, .. } => Op::Create { path, data, mode, acl },
                    other => other,
                }
            }
        }
    }

    /// Mostly one of the session's leases, or its own.
    fn lease(&mut self, model: &Model, session: SessionId) -> LeaseId {
        let leases = match self.one_in(8) {
            true => model.granted.keys().copied().collect(),
            false => model.leases(session),
        };
        leases.get(self.below(4) as usize).copied().unwrap_or(session.lease())
    }

    fn access(&mut self, at: &str) -> Op {
        let path = path(at);
        let some = |random: &mut Self, max| random.one_in(3).then(|| random.below(max));
        match self.below(4) {
            0 => Op::GetAcl { path },
            1 => {
                let quota = Quota {
                    nodes_hard: some(self, 20),
                    bytes_hard: some(self, 80),
                    nodes_soft: some(self, 20),
                    bytes_soft: None,
                };
                Op::SetQuota { path, quota: (!self.one_in(3)).then_some(quota) }
            }
            // The root stays open to somebody.
            _ if at == "/" => Op::GetAcl { path },
            _ => Op::SetAcl { path, acl: self.acl(), version: some(self, 3) },
        }
    }

    fn acl(&mut self) -> Acl {
        let grants = (0..=self.below(2)).map(|_| Grant {
            principal: match self.below(6) {
                0..=2 => Principal::World,
                3 => Principal::Auth,
                user => Principal::Digest(user_id(user)),
            },
            rights: Rights::from_bits(self.below(32) as u8 | self.below(32) as u8).unwrap(),
        });
        Acl::new(grants.collect::<Vec<_>>()).unwrap()
    }

    pub(in crate::namespace) fn identities(&mut self) -> Identities {
        let all = [
            Identity::Digest(user_id(4)),
            Identity::Digest(user_id(5)),
            Identity::Ip([10, 0, 0, 1].into()),
            Identity::Super,
        ];
        Identities::new(all.into_iter().filter(|_| self.one_in(3))).unwrap()
    }

    fn guard(&mut self, model: &Model, session: SessionId) -> Guard {
        let at = self.node(model);
        let stat = model.stat(&at).unwrap_or_default();
        let relations = [Relation::Equal, Relation::NotEqual, Relation::Less, Relation::Greater];
        let is = relations[self.below(4) as usize];
        let fields = [
            (Field::Version, stat.version),
            (Field::Cversion, stat.cversion),
            (Field::Aversion, stat.aversion),
            (Field::Czxid, stat.czxid.as_u64()),
            (Field::Mzxid, stat.mzxid.as_u64()),
            (Field::Pzxid, stat.pzxid.as_u64()),
            (Field::Children, stat.children),
            (Field::DataLength, stat.data_length),
        ];
        let check = match self.below(9) {
            0 => Check::Exists(false),
            1 | 2 => Check::Exists(true),
            3 => Check::Version(stat.version),
            4 => Check::Czxid(stat.czxid),
            5 => Check::Owner(stat.owner.unwrap_or(session.lease())),
            6 => Check::Value { is, to: "012"[..self.below(4) as usize].to_string().into() },
            _ => {
                let (field, value) = fields[self.below(8) as usize];
                Check::Compare { field, is, to: (value + self.below(3)).saturating_sub(1) }
            }
        };
        Guard { path: path(&at), check }
    }

    pub(in crate::namespace) fn list(&mut self, at: &str) -> List {
        let mut list = List::of(path(at)).limit(1 + self.below(4) as u32);
        if self.one_in(2) {
            list = list.prefix(["a", "a-", "b", "zz"][self.below(4) as usize]);
        }
        if self.one_in(2) {
            list = list.after(["a", "a-0000000001", "b.", "zz"][self.below(4) as usize]);
        }
        list.only =
            [Children::All, Children::Persistent, Children::Ephemeral][self.below(3) as usize];
        list.with_stat = self.one_in(2);
        list.with_data = self.one_in(2);
        list
    }

    /// Mostly one that exists.
    fn node(&mut self, model: &Model) -> String {
        let at = self.below(model.nodes.len() as u64) as usize;
        let mut text = model.nodes.keys().nth(at).unwrap().clone();
        if self.one_in(12) {
            text = format!("{}/none", text.trim_end_matches('/'));
        }
        text
    }
}

fn user_id(user: u64) -> DigestId {
    DigestId::new(["ann", "bob"][user as usize - 4], "hash").unwrap()
}

/// Limits that the generator meets often.
pub(in crate::namespace) fn tight() -> Parameters {
    Parameters {
        tick_us: 10,
        advance_us_max: 100,
        renewal_us: 50,
        ttl_us_min: 200,
        ttl_us_max: 2_000,
        payload_bytes_max: 150,
        window_count_max: 5,
        window_bytes_max: 4096 + 5 * 192 + 20,
        history_count_max: 30,
        history_bytes_max: 30 * 260,
        sessions_max: 6,
        txn_ops_max: 6,
        subtree_nodes_max: 8,
        container_grace_us: 300,
        session_leases_max: 3,
        leases_max: 7,
        ephemerals_max: 4,
        nodes_max: 35,
    }
}

/// Bytes before `/` among them, and what collides with numbered names.
const NAMES: [&str; 6] = ["a", "b", "a-", "a b", "b.x", "a-0000000003"];

pub(in crate::namespace) fn origin(counter: u64) -> Origin {
    Origin { node: NodeId::new(1).unwrap(), boot_nonce: 5, counter }
}

pub(in crate::namespace) fn path(text: &str) -> Path {
    text.parse().unwrap()
}

pub(in crate::namespace) fn create(at: &str, data: &str, mode: CreateMode) -> Op {
    let path =
        if mode.is_sequential() { Path::sequential_prefix(at).unwrap() } else { path(at).into() };
    Op::Create { path, data: Bytes::copy_from_slice(data.as_bytes()), mode, acl: None }
}

pub(in crate::namespace) fn set(at: &str, data: &str, version: Option<u64>) -> Op {
    Op::Set { path: path(at), data: Bytes::copy_from_slice(data.as_bytes()), version }
}

pub(in crate::namespace) fn delete(at: &str, version: Option<u64>) -> Op {
    Op::Delete { path: path(at), version }
}

pub(in crate::namespace) fn secret(number: u64) -> SecretHash {
    Secret::from_bytes(u128::from(number).to_le_bytes()).hash()
}
