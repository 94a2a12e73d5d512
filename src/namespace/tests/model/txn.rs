//! Transactions: everything is copied first, and put back if something is refused.

use bytes::Bytes;

use super::{Model, Node, before, outcome_bytes};
use crate::{
    id::{SessionId, Zxid},
    op::{
        Body, Check, Child, Children, CreateMode, EventKind, Field, Guard, Lifetime, LimitName,
        List, Op, OpError, Outcome, Page, Relation, Stat, Txn,
    },
    path::Path,
};

/// What the operations of a transaction did so far.
#[derive(Default)]
struct Done {
    events: Vec<(EventKind, Path, Zxid)>,
}

impl Model {
    pub(super) fn execute(
        &mut self,
        txn: &Txn,
        actor: Option<SessionId>,
    ) -> Result<Outcome, OpError> {
        self.check_limits(txn)?;
        let failed = txn.guards().iter().position(|guard| !self.holds(guard));
        let refused = failed.map(|index| OpError::GuardFailed {
            index: index as u64,
            path: txn.guards()[index].path.clone(),
        });
        let copy = self.clone();
        let mut done = Done::default();
        let result = match (txn.body(), refused) {
            (Body::One(op), None) => self.step(op, actor, &mut done),
            (Body::Many { then, .. }, None) => self.steps(then, true, actor, &mut done),
            (Body::Many { otherwise: Some(ops), .. }, Some(_)) => {
                self.steps(ops, false, actor, &mut done)
            }
            (_, Some(error)) => Err(error),
        };
        let result = result.and_then(|outcome| self.check_results(txn, outcome));
        match &result {
            Err(_) => *self = copy,
            Ok(_) if done.events.is_empty() => {}
            Ok(_) => self.commit(done.events),
        }
        result
    }

    fn steps(
        &mut self,
        ops: &[Op],
        held: bool,
        actor: Option<SessionId>,
        done: &mut Done,
    ) -> Result<Outcome, OpError> {
        let mut results = Vec::new();
        for (index, op) in ops.iter().enumerate() {
            match self.step(op, actor, done) {
                Ok(outcome) => results.push(outcome),
                Err(error) => {
                    let (index, cause) = (index as u64, Box::new(error));
                    return Err(OpError::InTxn { index, cause });
                }
            }
        }
        Ok(Outcome::Txn { held, results })
    }

    fn check_results(&self, txn: &Txn, outcome: Outcome) -> Result<Outcome, OpError> {
        let (value, max) = (outcome_bytes(&outcome), self.parameters.window_bytes_max / 2);
        if txn.is_verbose() && value > max {
            return Err(OpError::Limit { limit: LimitName::ResultBytes, value, max });
        }
        Ok(outcome)
    }

    fn check_limits(&self, txn: &Txn) -> Result<(), OpError> {
        let check = |limit, value: usize, max: u64| match value as u64 {
            value if value > max => Err(OpError::Limit { limit, value, max }),
            _ => Ok(()),
        };
        let payload_max = self.parameters.payload_bytes_max;
        check(LimitName::Guards, txn.guards().len(), 64)?;
        check(LimitName::Operations, txn.ops().count(), self.parameters.txn_ops_max)?;
        let mut sum = 0;
        for op in txn.ops() {
            let bytes = match op {
                Op::Create { data, .. } | Op::Set { data, .. } => data.len(),
                Op::Check(guard) => value_bytes(guard),
                _ => 0,
            };
            check(LimitName::PayloadBytes, bytes, payload_max)?;
            if let Op::Create {
                mode: CreateMode::Ttl(ttl) | CreateMode::SequentialTtl(ttl), ..
            } = op
            {
                if ttl.is_zero() {
                    let (limit, max) = (LimitName::NodeTtl, (1 << 40) - 1);
                    return Err(OpError::Limit { limit, value: 0, max });
                }
            }
            sum += bytes;
        }
        sum += txn.guards().iter().map(value_bytes).sum::<usize>();
        check(LimitName::TxnBytes, sum, payload_max)
    }

    fn step(
        &mut self,
        op: &Op,
        actor: Option<SessionId>,
        done: &mut Done,
    ) -> Result<Outcome, OpError> {
        let exists = |model: &Self, path: &Path| match model.stat(path.as_str()) {
            Some(stat) => Ok(stat),
            None => Err(OpError::NoNode { path: path.clone() }),
        };
        match op {
            Op::Create { path, data, mode } => {
                if path.as_str() == "/" && !mode.is_sequential() {
                    return Err(OpError::Root);
                }
                if mode.is_ephemeral() && actor.is_none() {
                    return Err(OpError::EphemeralWithoutSession);
                }
                let owner = actor.filter(|_| mode.is_ephemeral());
                self.create(path.as_str(), *mode, data, owner, done)
            }
            Op::Set { path, data, version } => {
                self.check_version(path, *version)?;
                let (zxid, wall_ms) = (self.zxid + 1, self.wall_ms);
                let node = self.nodes.get_mut(path.as_str()).unwrap();
                node.data = data.to_vec();
                node.touched_us = self.clock_us;
                node.stat.version += 1;
                node.stat.mzxid = Zxid::new(zxid);
                node.stat.mtime_ms = wall_ms;
                done.events.push((EventKind::DataChanged, path.clone(), node.stat.czxid));
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
                done.events.push((EventKind::Deleted, path.clone(), czxid));
                Ok(Outcome::Deleted)
            }
            Op::DeleteTree { path } => self.delete_tree(path, done),
            Op::Check(guard) if self.holds(guard) => Ok(Outcome::Checked),
            Op::Check(guard) => Err(OpError::GuardFailed { index: 0, path: guard.path.clone() }),
            Op::Get { path } => {
                let stat = exists(self, path)?;
                let data = Bytes::from(self.nodes[path.as_str()].data.clone());
                Ok(Outcome::Node { data, stat })
            }
            Op::Exists { path } => Ok(Outcome::Exists(self.stat(path.as_str()))),
            Op::List(list) => {
                exists(self, &list.path)?;
                Ok(Outcome::Listed(self.list(list)))
            }
        }
    }

    fn create(
        &mut self,
        prefix: &str,
        mode: CreateMode,
        data: &[u8],
        owner: Option<SessionId>,
        done: &mut Done,
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
        let text = if mode.is_sequential() {
            while self.nodes.contains_key(&format!("{prefix}{sequence:010}")) {
                sequence += 1;
            }
            sequence += 1;
            format!("{prefix}{:010}", sequence - 1)
        } else {
            prefix.to_string()
        };
        if text.len() > Path::BYTES_MAX {
            let (value, max) = (text.len() as u64, Path::BYTES_MAX as u64);
            return Err(OpError::Limit { limit: LimitName::PathBytes, value, max });
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
            lifetime: match mode {
                CreateMode::Container => Lifetime::Container,
                CreateMode::Ttl(ttl) | CreateMode::SequentialTtl(ttl) => Lifetime::Ttl(ttl),
                _ => Lifetime::Unlimited,
            },
            ..Stat::default()
        };
        let (data, touched_us) = (data.to_vec(), self.clock_us);
        let node = Node { data, stat, touched_us, ..Node::default() };
        self.nodes.insert(text, node);
        done.events.push((EventKind::Created, path.clone(), zxid));
        let stat = self.stat(path.as_str()).unwrap();
        Ok(Outcome::Created { path, stat })
    }

    fn delete_tree(&mut self, path: &Path, done: &mut Done) -> Result<Outcome, OpError> {
        if path.is_root() {
            return Err(OpError::Root);
        }
        self.check_version(path, None)?;
        let paths = self.subtree(path.as_str());
        let max = self.parameters.subtree_nodes_max;
        if paths.len() as u64 > max {
            let (limit, value) = (LimitName::SubtreeNodes, max + 1);
            return Err(OpError::Limit { limit, value, max });
        }
        let nodes = paths.len() as u64;
        for path in paths.into_iter().rev() {
            let czxid = self.unlink(&path);
            done.events.push((EventKind::Deleted, path.parse().unwrap(), czxid));
        }
        Ok(Outcome::DeletedTree { nodes })
    }

    /// A node and all below it: each before its children, those by name.
    pub(crate) fn subtree(&self, top: &str) -> Vec<String> {
        let mut paths = vec![top.to_string()];
        for child in self.children(top) {
            paths.extend(self.subtree(&format!("{}/{child}", top.trim_end_matches('/'))));
        }
        paths
    }

    pub(crate) fn list(&self, list: &List) -> Page {
        let top = list.path.as_str();
        let mut children = Vec::new();
        let (mut resume, mut last) = (None, None::<String>);
        for child in self.children(top) {
            let path = format!("{}/{child}", top.trim_end_matches('/'));
            let stat = self.stat(&path).unwrap();
            let wanted = match list.only {
                Children::All => true,
                Children::Persistent => stat.owner.is_none(),
                Children::Ephemeral => stat.owner.is_some(),
            };
            let later = list.after.as_ref().is_none_or(|after| child > *after);
            if !later || !child.starts_with(&list.prefix) {
                continue;
            }
            if children.len() == list.limit as usize {
                resume = Some(last.unwrap());
                break;
            }
            last = Some(child.clone());
            if wanted {
                let data = Bytes::from(self.nodes[&path].data.clone());
                children.push(Child {
                    name: child,
                    stat: list.with_stat.then_some(stat),
                    data: list.with_data.then_some(data),
                });
            }
        }
        Page { children, resume, stat: self.stat(top).unwrap() }
    }

    fn holds(&self, guard: &Guard) -> bool {
        let stat = self.stat(guard.path.as_str());
        if let Check::Exists(exists) = guard.check {
            return stat.is_some() == exists;
        }
        let Some(stat) = stat else {
            return false;
        };
        let related = |order: std::cmp::Ordering, is: Relation| match is {
            Relation::Equal => order.is_eq(),
            Relation::NotEqual => order.is_ne(),
            Relation::Less => order.is_lt(),
            Relation::Greater => order.is_gt(),
        };
        match &guard.check {
            Check::Exists(_) => unreachable!("it was looked at"),
            Check::Version(version) => stat.version == *version,
            Check::Czxid(czxid) => stat.czxid == *czxid,
            Check::Owner(owner) => stat.owner == Some(*owner),
            Check::Compare { field, is, to } => {
                let number = match field {
                    Field::Version => stat.version,
                    Field::Cversion => stat.cversion,
                    Field::Aversion => stat.aversion,
                    Field::Czxid => stat.czxid.as_u64(),
                    Field::Mzxid => stat.mzxid.as_u64(),
                    Field::Pzxid => stat.pzxid.as_u64(),
                    Field::Children => stat.children,
                    Field::DataLength => stat.data_length,
                };
                related(number.cmp(to), *is)
            }
            Check::Value { is, to } => {
                related(self.nodes[guard.path.as_str()].data[..].cmp(&to[..]), *is)
            }
        }
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
}

fn value_bytes(guard: &Guard) -> usize {
    match &guard.check {
        Check::Value { to, .. } => to.len(),
        _ => 0,
    }
}
