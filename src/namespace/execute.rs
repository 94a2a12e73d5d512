//! Transactions: guards, then operations in order, all or none of them, in one zxid.

use std::time::Duration;

use crate::{
    config::Parameters,
    id::{LeaseId, Zxid},
    mutant::Mutant,
    namespace::{
        Frozen, Namespace,
        access::Actor,
        history::Change,
        numbering::Numbering,
        session::{in_txn_bytes, outcome_bytes},
        tree::{New, Tree},
        znode::{Stamp, Znode},
    },
    op::{
        Acl, Body, Check, CreateMode, Field, Guard, Identities, LimitName, Op, OpError, Outcome,
        Rights, Stat, Step, Txn,
    },
    path::PathPrefix,
    time::as_micros,
};

impl Namespace {
    /// Guards, then the operations of the branch that they choose; on failure nothing has changed.
    pub(super) fn execute(&mut self, txn: &Txn, actor: &Actor) -> Result<Outcome, OpError> {
        if let Some((limit, value, max)) = txn.excess(&self.state.parameters) {
            return Err(OpError::Limit { limit, value, max });
        }
        let failed = failed_guard(&self.state.tree, txn, &actor.who)?;
        let (then, otherwise) = match txn.body() {
            Body::One(step) => {
                failed.map_or(Ok(()), Err)?;
                let mut run = Run::new(self, (actor, txn.is_for_zookeeper()));
                let outcome = run.step(step)?;
                check_results(&run.state.parameters, &outcome)?;
                run.commit();
                return Ok(outcome);
            }
            Body::Many { then, otherwise } => (then, otherwise),
        };
        let held = failed.is_none();
        let steps = match (failed, otherwise) {
            (None, _) => then,
            (Some(_), Some(otherwise)) => otherwise,
            (Some(error), None) => return Err(error),
        };
        let state = &self.state;
        let (indexes, sessions) = (state.tree.indexes(), state.sessions.clone());
        let changes = self.changes.len();
        let all_powerful = || Actor { session: actor.session, who: Identities::superuser() };
        let all_powerful = Mutant::RightsOnlyAlone.active().then(all_powerful);
        let actor = all_powerful.as_ref().unwrap_or(actor);
        let result = Run::new(self, (actor, txn.is_for_zookeeper())).all(steps, held);
        if result.is_err() && !Mutant::RefusedStays.active() {
            // Rather than to keep the tree as it was, for then each change copies what it changes.
            for change in self.changes.drain(changes..).rev() {
                self.state.history.pop();
                self.state.tree.undo(&change);
            }
            self.state.tree.put_back(indexes);
            self.state.sessions = sessions;
        }
        result
    }
}

/// Operations of one transaction, under way.
struct Run<'a> {
    state: &'a mut Frozen,
    changes: &'a mut Vec<Change>,
    lists_replaced: &'a mut Zxid,
    actor: &'a Actor,
    /// Counters are 32 bits wide.
    zookeeper: bool,
    at: Stamp,
    /// Nodes that may still be removed as subtrees, or counted: a bound of all operations together.
    nodes_left: u64,
    /// Whether anything was written.
    wrote: bool,
}

impl<'a> Run<'a> {
    fn new(namespace: &'a mut Namespace, (actor, zookeeper): (&'a Actor, bool)) -> Self {
        let at = namespace.stamp();
        let Namespace { state, changes, lists_replaced } = namespace;
        let nodes_left = state.parameters.subtree_nodes_max;
        let wrote = false;
        Self { state, changes, lists_replaced, actor, zookeeper, at, nodes_left, wrote }
    }

    /// All operations; after an error, what those before did is still there.
    fn all(mut self, steps: &[Step], held: bool) -> Result<Outcome, OpError> {
        let mut results = Vec::with_capacity(steps.len());
        let (mut value, max) = (0, results_bytes_max(&self.state.parameters));
        for (index, step) in (0..).zip(steps) {
            let result = self.step(step);
            let result =
                result.map_err(|cause| OpError::InTxn { index, cause: Box::new(cause) })?;
            // At once: what a page of each operation takes is beyond any bound.
            value += in_txn_bytes(&result);
            if value > max {
                return Err(OpError::Limit { limit: LimitName::ResultBytes, value, max });
            }
            results.push(result);
        }
        self.commit();
        Ok(Outcome::Txn { held, results })
    }

    /// One operation; if it fails, it has changed nothing.
    fn step(&mut self, step: &Step) -> Result<Outcome, OpError> {
        let version = self.version(&step.op);
        let (state, who) = (&mut *self.state, &self.actor.who);
        match &step.op {
            Op::Create { path, data, mode, acl } => {
                let data = step.given(data).map(|data| &data[..]);
                self.create(path, data, *mode, acl.as_ref())
            }
            Op::Set { path, data, .. } => {
                let data = step.given(data).map(|data| &data[..]);
                let set = state.tree.set(path.clone(), data, version, who, self.at)?;
                Ok(self.changed(set))
            }
            Op::Delete { path, .. } => {
                let deleted = state.tree.delete(path, version, who, self.at)?;
                self.disown(&deleted.1);
                Ok(self.changed(deleted))
            }
            Op::DeleteTree { path } => {
                let deleted = state.tree.delete_tree(path, self.nodes_left, who, self.at);
                let changes = deleted.map_err(|error| self.of_txn(error))?;
                let nodes = changes.len() as u64;
                self.nodes_left -= nodes;
                let outcome = Outcome::DeletedTree { nodes };
                for change in changes {
                    self.disown(&change);
                    self.changed((Outcome::Deleted, change));
                }
                Ok(outcome)
            }
            Op::SetAcl { path, acl, .. } => {
                let set = state.tree.set_acl(path, acl, version, who, self.at)?;
                *self.lists_replaced = self.at.zxid;
                Ok(self.changed(set))
            }
            Op::Grant { ttl } => self.grant(*ttl),
            Op::Revoke { lease } => self.revoke(*lease),
            Op::SetQuota { path, quota } => {
                let counts = quota.is_some() && state.tree.metered(path.as_str()).is_none();
                let set = state.tree.set_quota(path, *quota, self.nodes_left, (who, self.at));
                let set = set.map_err(|error| self.of_txn(error))?;
                if let Some(metered) = self.state.tree.metered(path.as_str()).filter(|_| counts) {
                    self.nodes_left = self.nodes_left.saturating_sub(metered.usage.nodes);
                }
                if let Some(change) = set {
                    self.changed((Outcome::QuotaSet, change));
                }
                Ok(Outcome::QuotaSet)
            }
            Op::Check(guard) => match holds(&state.tree, guard, (who, self.zookeeper))? {
                true => Ok(Outcome::Checked),
                false => Err(OpError::GuardFailed { index: 0, path: guard.path.clone() }),
            },
            Op::Get { path } => {
                let znode = state.tree.readable(path, who)?;
                Ok(Outcome::Node { data: znode.shared_data(), stat: znode.stat() })
            }
            Op::Exists { path } => state.tree.stat(path, who).map(Outcome::Exists),
            Op::List(list) => {
                let parent = state.tree.readable(&list.path, who)?;
                let may_read = |_: &str, znode: &Znode| znode.allows(who, Rights::READ);
                Ok(Outcome::Listed(state.tree.list(parent, list, may_read)))
            }
            Op::GetAcl { path } => {
                let (acl, stat) = state.tree.acl(path, who)?;
                Ok(Outcome::Acl { acl, stat })
            }
        }
    }

    /// The version that the node must be at, as wide as it is kept: whoever sees the lower half of
    /// it means all of it.
    fn version(&self, op: &Op) -> Option<u64> {
        let (path, asked) = match op {
            Op::Set { path, version, .. }
            | Op::Delete { path, version }
            | Op::SetAcl { path, version, .. } => (path, (*version)?),
            _ => return None,
        };
        if !self.zookeeper {
            return Some(asked);
        }
        let znode = self.state.tree.get(path.as_str());
        let own = znode.map(|znode| match op {
            Op::SetAcl { .. } => znode.aversion(),
            _ => znode.version,
        });
        own.filter(|&own| narrow(own) == narrow(asked)).or(Some(asked))
    }

    /// The bound is that of the transaction, whatever is left of it.
    fn of_txn(&self, error: OpError) -> OpError {
        match error {
            OpError::Limit { limit: LimitName::SubtreeNodes, .. } => {
                let max = self.state.parameters.subtree_nodes_max;
                OpError::Limit { limit: LimitName::SubtreeNodes, value: max + 1, max }
            }
            error => error,
        }
    }

    fn create(
        &mut self,
        prefix: &PathPrefix,
        data: Option<&[u8]>,
        mode: CreateMode,
        acl: Option<&Acl>,
    ) -> Result<Outcome, OpError> {
        let (sessions, parameters) = (&self.state.sessions, &self.state.parameters);
        let owner = match (mode.is_ephemeral(), self.actor.session) {
            (false, _) => None,
            (true, Some(actor)) => Some(sessions.check_owner(actor, mode.lease(), parameters)?),
            (true, None) => return Err(OpError::EphemeralWithoutSession),
        };
        let (nodes, max) = (self.state.tree.len() as u64 + 1, parameters.nodes_max);
        if nodes > max {
            return Err(OpError::Limit { limit: LimitName::Nodes, value: nodes, max });
        }
        let numbering = if self.zookeeper { Numbering::Signed } else { Numbering::Free };
        let numbering = Some(numbering).filter(|_| mode.is_sequential());
        let lifetime = mode.lifetime();
        let new = New { prefix, numbering, data, owner, lifetime, acl };
        let created = self.state.tree.create(&new, &self.actor.who, self.at)?;
        if let Some(owner) = owner {
            self.state.sessions.own(owner, created.1.path.shared());
        }
        Ok(self.changed(created))
    }

    fn grant(&mut self, ttl: Duration) -> Result<Outcome, OpError> {
        let session = self.actor.session.ok_or(OpError::LeaseWithoutSession)?;
        let Frozen { sessions, parameters, .. } = &mut *self.state;
        let base_us = self.at.clock_us.saturating_add(parameters.tick_us);
        let at = (base_us, self.at.zxid);
        let (lease, ttl_us) = sessions.grant(session, as_micros(ttl), at, parameters)?;
        self.wrote = true;
        Ok(Outcome::Granted { lease, ttl: Duration::from_micros(ttl_us) })
    }

    fn revoke(&mut self, lease: LeaseId) -> Result<Outcome, OpError> {
        let session = self.actor.session.ok_or(OpError::LeaseWithoutSession)?;
        let sessions = &mut self.state.sessions;
        if sessions.lease(lease).is_none_or(|it| it.session != session) {
            return Err(OpError::NoLease { lease });
        }
        let ended = sessions.remove_lease(lease);
        let mut nodes = 0;
        for path in ended.into_iter().flat_map(|(_, ephemerals)| ephemerals) {
            let change = self.state.tree.remove_leaf(path, self.at);
            self.changed((Outcome::Deleted, change));
            nodes += 1;
        }
        self.wrote = true;
        Ok(Outcome::Revoked { lease, nodes })
    }

    fn disown(&mut self, change: &Change) {
        if let Some(owner) = change.before.as_ref().and_then(|value| value.owner) {
            self.state.sessions.disown(owner, change.path.as_str());
        }
    }

    fn changed(&mut self, (outcome, change): (Outcome, Change)) -> Outcome {
        self.wrote = true;
        self.state.history.push(change.clone());
        self.changes.push(change);
        outcome
    }

    /// The transaction has happened; one that only read takes no zxid.
    fn commit(self) {
        if self.wrote {
            self.state.zxid = self.at.zxid;
            self.state.history.trim(&self.state.parameters);
        }
    }
}

/// The error of the first guard that does not hold; one that may not be asked is refused.
fn failed_guard(tree: &Tree, txn: &Txn, who: &Identities) -> Result<Option<OpError>, OpError> {
    for (index, guard) in (0..).zip(txn.guards()) {
        if !holds(tree, guard, (who, txn.is_for_zookeeper()))? && !Mutant::GuardIgnored.active() {
            return Ok(Some(OpError::GuardFailed { index, path: guard.path.clone() }));
        }
    }
    Ok(None)
}

fn holds(
    tree: &Tree,
    guard: &Guard,
    (who, zookeeper): (&Identities, bool),
) -> Result<bool, OpError> {
    let Some(znode) = tree.get(guard.path.as_str()) else {
        return Ok(guard.check == Check::Exists(false));
    };
    znode.require(guard.path.as_str(), who, Rights::READ)?;
    Ok(match &guard.check {
        Check::Exists(exists) => *exists,
        Check::Version(version) if zookeeper => narrow(znode.version) == narrow(*version),
        Check::Version(version) => znode.version == *version,
        Check::Czxid(czxid) => znode.czxid == *czxid,
        Check::Owner(owner) => znode.owner == Some(*owner),
        Check::Compare { field, is, to } => is.holds(&number(&znode.stat(), *field), to),
        Check::Value { is, to } => is.holds(znode.data(), &to[..]),
    })
}

/// A counter as ZooKeeper's clients see it.
fn narrow(counter: u64) -> u32 {
    counter as u32
}

fn number(stat: &Stat, field: Field) -> u64 {
    match field {
        Field::Version => stat.version,
        Field::Cversion => stat.cversion,
        Field::Aversion => stat.aversion,
        Field::Czxid => stat.czxid.as_u64(),
        Field::Mzxid => stat.mzxid.as_u64(),
        Field::Pzxid => stat.pzxid.as_u64(),
        Field::Children => stat.children,
        Field::DataLength => stat.data_length,
    }
}

/// The reply must fit into the window of kept replies beside others: half of it, at most.
fn results_bytes_max(parameters: &Parameters) -> u64 {
    parameters.window_bytes_max / 2
}

fn check_results(parameters: &Parameters, outcome: &Outcome) -> Result<(), OpError> {
    let (value, max) = (outcome_bytes(outcome), results_bytes_max(parameters));
    let verbose = !matches!(
        outcome,
        Outcome::Created { .. } | Outcome::Set { .. } | Outcome::Deleted | Outcome::Closed
    );
    if verbose && value > max {
        return Err(OpError::Limit { limit: LimitName::ResultBytes, value, max });
    }
    Ok(())
}
