//! Transactions: everything is copied first, and put back if something is refused.

use bytes::Bytes;

use super::{Change, Model, Node, acl_of, before, outcome_bytes};
use crate::{
    id::{SessionId, Zxid},
    op::{
        Acl, Body, Check, Child, Children, CreateMode, EventKind, Field, Grant, Guard, Identities,
        Identity, Lifetime, LimitName, List, Op, OpError, Outcome, Page, Principal, Quota,
        Relation, Rights, Stat, Step, Txn, Usage,
    },
    path::Path,
};

impl Model {
    pub(super) fn execute(
        &mut self,
        txn: &Txn,
        actor: Option<SessionId>,
        who: &Identities,
    ) -> Result<Outcome, OpError> {
        self.check_limits(txn)?;
        self.zookeeper = txn.is_for_zookeeper();
        let mut failed = None;
        for (index, guard) in txn.guards().iter().enumerate() {
            if failed.is_none() && !self.asked(guard, who)? {
                failed = Some(index);
            }
        }
        let refused = failed.map(|index| OpError::GuardFailed {
            index: index as u64,
            path: txn.guards()[index].path.clone(),
        });
        // A single operation looks before it does anything.
        let copy = matches!(txn.body(), Body::Many { .. }).then(|| self.clone());
        let mut done = Vec::new();
        self.quiet = false;
        self.nodes_left = self.parameters.subtree_nodes_max;
        let result = match (txn.body(), refused) {
            (Body::One(step), None) => self.step(step, actor, who, &mut done),
            (Body::Many { then, .. }, None) => self.steps(then, true, (actor, who), &mut done),
            (Body::Many { otherwise: Some(steps), .. }, Some(_)) => {
                self.steps(steps, false, (actor, who), &mut done)
            }
            (_, Some(error)) => Err(error),
        };
        let result = result.and_then(|outcome| self.check_results(txn, outcome));
        match &result {
            Err(_) => {
                if let Some(copy) = copy {
                    *self = copy;
                }
            }
            Ok(_) if done.is_empty() && !self.quiet => {}
            Ok(_) => self.commit(done),
        }
        result
    }

    fn steps(
        &mut self,
        steps: &[Step],
        held: bool,
        (actor, who): (Option<SessionId>, &Identities),
        done: &mut Vec<Change>,
    ) -> Result<Outcome, OpError> {
        let mut results = Vec::new();
        for (index, step) in steps.iter().enumerate() {
            match self.step(step, actor, who, done) {
                Ok(outcome) => results.push(outcome),
                Err(error) => {
                    let (index, cause) = (index as u64, Box::new(error));
                    return Err(OpError::InTxn { index, cause });
                }
            }
            let value = results.iter().map(|it| 192 + outcome_bytes(it)).sum();
            let (limit, max) = (LimitName::ResultBytes, self.parameters.window_bytes_max / 2);
            if value > max {
                return Err(OpError::Limit { limit, value, max });
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
                Op::SetAcl { acl, .. } => acl.bytes(),
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
            if let Op::Create { acl: Some(acl), .. } = op {
                // Alone, it has a bound of its own.
                sum += acl.bytes();
            }
        }
        sum += txn.guards().iter().map(value_bytes).sum::<usize>();
        match txn.body() {
            Body::One(_) if txn.guards().is_empty() => Ok(()),
            _ => check(LimitName::TxnBytes, sum, payload_max),
        }
    }

    fn step(
        &mut self,
        step: &Step,
        actor: Option<SessionId>,
        who: &Identities,
        done: &mut Vec<Change>,
    ) -> Result<Outcome, OpError> {
        let op = &step.op;
        match op {
            Op::Create { path, data, mode, acl } => {
                if path.as_str() == "/" && !mode.is_sequential() {
                    return Err(OpError::Root);
                }
                if mode.is_ephemeral() && actor.is_none() {
                    return Err(OpError::EphemeralWithoutSession);
                }
                let owner = actor.filter(|_| mode.is_ephemeral());
                let owner = owner.map(|it| self.check_owner(it, mode.lease())).transpose()?;
                let stat = Stat { owner, null: step.null, ..Stat::default() };
                self.create((path.as_str(), *mode, data), stat, acl.as_ref(), who, done)
            }
            Op::Set { path, data, version } => {
                self.existing(path)?;
                self.right(path.as_str(), who, Rights::WRITE)?;
                self.check_version(path, *version, who)?;
                let before = self.nodes[path.as_str()].data.len();
                let more = data.len().saturating_sub(before) as u64;
                self.quotas(path.as_str(), (0, more), who)?;
                let (zxid, wall_ms) = (self.zxid + 1, self.wall_ms);
                let image = self.image(path.as_str());
                let node = self.nodes.get_mut(path.as_str()).unwrap();
                node.data = data.to_vec();
                node.stat.null = step.null;
                node.touched_us = self.clock_us;
                node.stat.version += 1;
                node.stat.mzxid = Zxid::new(zxid);
                node.stat.mtime_ms = wall_ms;
                done.push(self.change(EventKind::DataChanged, path.as_str(), image));
                Ok(Outcome::Set { stat: self.stat(path.as_str()).unwrap() })
            }
            Op::Delete { path, version } => {
                if path.is_root() {
                    return Err(OpError::Root);
                }
                self.existing(path)?;
                self.right(before(path.as_str()), who, Rights::DELETE)?;
                self.check_version(path, *version, who)?;
                let children = self.children(path.as_str()).len() as u64;
                if children > 0 {
                    let children = self.shown(path.as_str(), who, children);
                    return Err(OpError::NotEmpty { path: path.clone(), children });
                }
                done.push(self.unlink(path.as_str()));
                Ok(Outcome::Deleted)
            }
            Op::DeleteTree { path } => self.delete_tree(path, who, done),
            Op::SetAcl { path, acl, version } => {
                self.existing(path)?;
                self.set_acl(path, acl, *version, who, done)
            }
            Op::SetQuota { path, quota } => self.set_quota(path, *quota, who, done),
            Op::Grant { ttl } => {
                self.quiet = true;
                self.grant(actor.ok_or(OpError::LeaseWithoutSession)?, *ttl)
            }
            Op::Revoke { lease } => self.revoke(*lease, actor, done),
            _ => self.look(op, who),
        }
    }

    fn look(&self, op: &Op, who: &Identities) -> Result<Outcome, OpError> {
        match op {
            Op::Check(guard) if self.asked(guard, who)? => Ok(Outcome::Checked),
            Op::Check(guard) => Err(OpError::GuardFailed { index: 0, path: guard.path.clone() }),
            Op::Get { path } => {
                let stat = self.existing(path)?;
                self.right(path.as_str(), who, Rights::READ)?;
                let data = Bytes::from(self.nodes[path.as_str()].data.clone());
                Ok(Outcome::Node { data, stat })
            }
            Op::Exists { path } => {
                self.right(path.as_str(), who, Rights::READ)?;
                Ok(Outcome::Exists(self.stat(path.as_str())))
            }
            Op::List(list) => {
                self.existing(&list.path)?;
                self.right(list.path.as_str(), who, Rights::READ)?;
                Ok(Outcome::Listed(self.list(list, who)))
            }
            Op::GetAcl { path } => {
                let stat = self.existing(path)?;
                let admin = self.right(path.as_str(), who, Rights::ADMIN).is_ok();
                if !admin {
                    self.right(path.as_str(), who, Rights::READ)?;
                }
                let acl = acl_of(&self.nodes[path.as_str()]).unwrap_or_else(Acl::open);
                Ok(Outcome::Acl { acl: if admin { acl } else { acl.masked() }, stat })
            }
            _ => unreachable!("it writes"),
        }
    }

    fn existing(&self, path: &Path) -> Result<Stat, OpError> {
        match self.stat(path.as_str()) {
            Some(stat) => Ok(stat),
            None => Err(OpError::NoNode { path: path.clone() }),
        }
    }

    fn set_quota(
        &mut self,
        path: &Path,
        quota: Option<Quota>,
        who: &Identities,
        done: &mut Vec<Change>,
    ) -> Result<Outcome, OpError> {
        let there = self.existing(path);
        if quota.is_some() {
            there.clone()?;
        }
        self.right(before(path.as_str()), who, Rights::ADMIN)?;
        if there.is_err() {
            return Ok(Outcome::QuotaSet);
        }
        let known = self.nodes[path.as_str()].quota.is_some();
        let count = self.subtree(path.as_str()).len() as u64;
        let max = self.parameters.subtree_nodes_max;
        if quota.is_some() && !known {
            if count > self.nodes_left {
                let (limit, value) = (LimitName::SubtreeNodes, max + 1);
                return Err(OpError::Limit { limit, value, max });
            }
            self.nodes_left -= count;
        }
        self.nodes.get_mut(path.as_str()).unwrap().quota = quota;
        let (zxid, path) = (self.zxid + 1, path.clone());
        done.push(Change { zxid, kind: None, path, before: None, after: None });
        Ok(Outcome::QuotaSet)
    }

    /// The path of a node to be made, and its parent's counter after it.
    fn named(&self, prefix: &str, mode: CreateMode, mut sequence: u64) -> (String, u64) {
        if !mode.is_sequential() {
            return (prefix.to_string(), sequence + 1);
        }
        if self.zookeeper {
            let number = i128::from(sequence).rem_euclid(1 << 32);
            let number = if number < 1 << 31 { number } else { number - (1 << 32) };
            return (format!("{prefix}{number:010}"), sequence + 1);
        }
        while self.nodes.contains_key(&format!("{prefix}{sequence:010}")) {
            sequence += 1;
        }
        (format!("{prefix}{sequence:010}"), sequence + 1)
    }

    fn create(
        &mut self,
        (prefix, mode, data): (&str, CreateMode, &[u8]),
        stat: Stat,
        acl: Option<&Acl>,
        who: &Identities,
        done: &mut Vec<Change>,
    ) -> Result<Outcome, OpError> {
        let (value, max) = (self.nodes.len() as u64 + 1, self.parameters.nodes_max);
        if value > max {
            return Err(OpError::Limit { limit: LimitName::Nodes, value, max });
        }
        let parent = before(prefix).to_string();
        let parent_path = || parent.parse::<Path>().unwrap();
        let Some(above) = self.nodes.get(&parent) else {
            return Err(OpError::NoNode { path: parent_path() });
        };
        self.right(&parent, who, Rights::CREATE)?;
        if above.stat.owner.is_some() {
            return Err(OpError::NoChildrenForEphemerals { path: parent_path() });
        }
        let (text, sequence) = self.named(prefix, mode, above.sequence);
        if text.len() > Path::BYTES_MAX {
            let (value, max) = (text.len() as u64, Path::BYTES_MAX as u64);
            return Err(OpError::Limit { limit: LimitName::PathBytes, value, max });
        }
        let path: Path = text.parse().unwrap();
        if self.nodes.contains_key(&text) {
            return Err(OpError::NodeExists { path });
        }
        let acl = match acl {
            None => above.acl.clone(),
            Some(acl) => resolved(&path, acl, who)?,
        };
        self.quotas(&parent, (1, data.len() as u64), who)?;
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
            lifetime: match mode {
                CreateMode::Container => Lifetime::Container,
                CreateMode::Ttl(ttl) | CreateMode::SequentialTtl(ttl) => Lifetime::Ttl(ttl),
                _ => Lifetime::Unlimited,
            },
            ..stat
        };
        let (data, touched_us) = (data.to_vec(), self.clock_us);
        let node = Node { data, stat, touched_us, acl, ..Node::default() };
        self.nodes.insert(text, node);
        done.push(self.change(EventKind::Created, path.as_str(), None));
        let stat = self.stat(path.as_str()).unwrap();
        Ok(Outcome::Created { path, stat })
    }

    fn delete_tree(
        &mut self,
        path: &Path,
        who: &Identities,
        done: &mut Vec<Change>,
    ) -> Result<Outcome, OpError> {
        if path.is_root() {
            return Err(OpError::Root);
        }
        self.existing(path)?;
        let paths = self.subtree(path.as_str());
        let max = self.parameters.subtree_nodes_max;
        for (count, path) in paths.iter().enumerate() {
            if self.right(before(path), who, Rights::DELETE).is_err() {
                let known = self.known(&paths[0], before(path), who);
                let (path, right) = (known.parse().unwrap(), Rights::DELETE);
                return Err(OpError::NoAuth { path, right });
            }
            if count as u64 == self.nodes_left {
                let (limit, value) = (LimitName::SubtreeNodes, max + 1);
                return Err(OpError::Limit { limit, value, max });
            }
        }
        let nodes = paths.len() as u64;
        self.nodes_left -= nodes;
        let images: Vec<_> = paths.iter().map(|path| self.image(path)).collect();
        for (path, before) in paths.into_iter().zip(images).rev() {
            // Each as it was before the operation.
            done.push(Change { before, ..self.unlink(&path) });
        }
        Ok(Outcome::DeletedTree { nodes })
    }

    /// A node and all below it: each before its children, those by name.
    pub(in crate::namespace) fn subtree(&self, top: &str) -> Vec<String> {
        let mut paths = vec![top.to_string()];
        for child in self.children(top) {
            paths.extend(self.subtree(&format!("{}/{child}", top.trim_end_matches('/'))));
        }
        paths
    }

    pub(in crate::namespace) fn list(&self, list: &List, who: &Identities) -> Page {
        let top = list.path.as_str();
        let mut children = Vec::new();
        let (mut resume, mut last) = (None, None::<String>);
        for child in self.children(top) {
            let path = format!("{}/{child}", top.trim_end_matches('/'));
            let stat = self.stat(&path).unwrap();
            let readable = self.right(&path, who, Rights::READ).is_ok();
            let wanted = match list.only {
                Children::All => true,
                Children::Persistent => readable && stat.owner.is_none(),
                Children::Ephemeral => readable && stat.owner.is_some(),
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
                    stat: (list.with_stat && readable).then_some(stat),
                    data: (list.with_data && readable).then_some(data),
                });
            }
        }
        Page { children, resume, stat: self.stat(top).unwrap() }
    }

    fn set_acl(
        &mut self,
        path: &Path,
        acl: &Acl,
        version: Option<u64>,
        who: &Identities,
        done: &mut Vec<Change>,
    ) -> Result<Outcome, OpError> {
        self.right(path.as_str(), who, Rights::ADMIN)?;
        let actual = self.nodes[path.as_str()].stat.aversion;
        if let Some(expected) = version.filter(|&version| !self.same(version, actual)) {
            let actual = self.shown(path.as_str(), who, actual);
            return Err(OpError::BadVersion { path: path.clone(), expected, actual });
        }
        let acl = resolved(path, acl, who)?;
        let image = self.image(path.as_str());
        let node = self.nodes.get_mut(path.as_str()).unwrap();
        node.acl = acl;
        node.stat.aversion += 1;
        done.push(self.change(EventKind::AclChanged, path.as_str(), image));
        Ok(Outcome::AclSet { stat: self.stat(path.as_str()).unwrap() })
    }

    /// Whether somebody has a right on a node, or there is none.
    pub(in crate::namespace) fn right(
        &self,
        path: &str,
        who: &Identities,
        right: Rights,
    ) -> Result<(), OpError> {
        let acl = self.nodes.get(path).map_or(&[][..], |node| &node.acl[..]);
        let who = who.as_slice();
        let granted = |grant: &Grant| {
            grant.rights.bits() & right.bits() != 0
                && match &grant.principal {
                    Principal::World => true,
                    Principal::Digest(id) => who.contains(&Identity::Digest(id.clone())),
                    other => panic!("the generator makes no {other:?}"),
                }
        };
        match acl.is_empty() || who.contains(&Identity::Super) || acl.iter().any(granted) {
            true => Ok(()),
            false => Err(OpError::NoAuth { path: path.parse().unwrap(), right }),
        }
    }

    /// Whether all quotas at and above a path let this much come.
    fn quotas(
        &self,
        path: &str,
        (nodes, bytes): (u64, u64),
        who: &Identities,
    ) -> Result<(), OpError> {
        let mut at = Some(path);
        while let Some(top) = at {
            if let Some(quota) = self.nodes[top].quota {
                let usage = self.usage(top);
                for (limit, max, value, more) in [
                    (LimitName::QuotaNodes, quota.nodes_hard, usage.nodes + nodes, nodes),
                    (LimitName::QuotaBytes, quota.bytes_hard, usage.bytes + bytes, bytes),
                ] {
                    if let Some(max) = max.filter(|max| value > *max && more > 0) {
                        let (path, shown) = (top.parse().unwrap(), self.shown(top, who, value));
                        let value = shown.unwrap_or(max + 1);
                        return Err(OpError::Quota { path, limit, value, max });
                    }
                }
            }
            at = (top != "/").then(|| before(top));
        }
        Ok(())
    }

    pub(in crate::namespace) fn usage(&self, top: &str) -> Usage {
        let paths = self.subtree(top);
        let bytes = paths.iter().map(|path| self.nodes[path].data.len() as u64).sum();
        Usage { nodes: paths.len() as u64, bytes }
    }

    /// Whether a guard holds, if it may be asked.
    fn asked(&self, guard: &Guard, who: &Identities) -> Result<bool, OpError> {
        self.right(guard.path.as_str(), who, Rights::READ)?;
        Ok(self.holds(guard))
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
            Check::Version(version) => self.same(stat.version, *version),
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

    /// What an error tells of a node.
    fn shown(&self, path: &str, who: &Identities, number: u64) -> Option<u64> {
        self.right(path, who, Rights::READ).is_ok().then_some(number)
    }

    /// The longest part of a path, not above `top`, whose nodes above may all be read.
    fn known(&self, top: &str, path: &str, who: &Identities) -> String {
        let mut parts = vec![path.to_string()];
        while parts[0].len() > top.len() {
            parts.insert(0, before(&parts[0]).to_string());
        }
        let hidden = parts.iter().position(|it| self.right(it, who, Rights::READ).is_err());
        parts[hidden.unwrap_or(parts.len() - 1).min(parts.len() - 1)].clone()
    }

    /// Whether two counters are the same to whoever asks.
    fn same(&self, one: u64, other: u64) -> bool {
        let seen = |counter: u64| if self.zookeeper { counter % (1 << 32) } else { counter };
        seen(one) == seen(other)
    }

    fn check_version(
        &self,
        path: &Path,
        expected: Option<u64>,
        who: &Identities,
    ) -> Result<(), OpError> {
        let Some(stat) = self.stat(path.as_str()) else {
            return Err(OpError::NoNode { path: path.clone() });
        };
        match expected {
            Some(expected) if !self.same(expected, stat.version) => {
                let actual = self.shown(path.as_str(), who, stat.version);
                Err(OpError::BadVersion { path: path.clone(), expected, actual })
            }
            _ => Ok(()),
        }
    }
}

/// The grants that are kept of a list; none if it grants everything to everybody.
fn resolved(path: &Path, acl: &Acl, who: &Identities) -> Result<Vec<Grant>, OpError> {
    let mut grants = Vec::new();
    for Grant { principal, rights } in acl.grants() {
        let own: Vec<_> = match principal {
            Principal::Auth => who
                .as_slice()
                .iter()
                .filter_map(|identity| match identity {
                    Identity::Digest(id) => Some(Principal::Digest(id.clone())),
                    _ => None,
                })
                .collect(),
            other => vec![other.clone()],
        };
        if own.is_empty() {
            return Err(OpError::InvalidAcl { path: path.clone() });
        }
        grants.extend(own.into_iter().map(|principal| Grant { principal, rights: *rights }));
    }
    if Acl::new(grants.clone()) == Ok(Acl::open()) {
        grants.clear();
    }
    Ok(grants)
}

fn value_bytes(guard: &Guard) -> usize {
    match &guard.check {
        Check::Value { to, .. } => to.len(),
        _ => 0,
    }
}
