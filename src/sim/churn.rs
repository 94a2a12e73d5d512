//! An operator who changes who belongs to the cluster: a new machine joins, votes, and another one
//! goes.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    client::{Client, Completion},
    id::NodeId,
    node::Status,
    sim::Cluster,
};

/// What the operator is at.
#[derive(Debug, Default)]
pub(super) struct Operator {
    job: Option<Job>,
    /// Who was asked to be removed: it may happen at any time, and they need not go on.
    pub(super) removed: BTreeSet<NodeId>,
    /// Changes that were answered.
    pub(super) done: u64,
}

/// One change after the other; each asked for until the leader says that it is so.
#[derive(Debug)]
struct Job {
    steps: Vec<Step>,
    until: Duration,
    next: Duration,
    asked: Option<Completion<()>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Add(NodeId),
    Promote(NodeId),
    Remove(NodeId),
}

impl Cluster {
    /// A change begins, unless one is under way; `draw` chooses. Returns whether one did.
    pub(super) fn begin_change(&mut self, draw: u64) -> bool {
        if self.operator.job.is_some() {
            return false;
        }
        let Some(status) = self.leader().and_then(|leader| self.status(leader)) else {
            return false;
        };
        let unfinished = self.operator.removed.iter().find(|id| status.members.contains_key(id));
        let learner = status.members.iter().find(|(_, member)| !member.voter);
        let steps = match (unfinished, learner) {
            // What nobody knows the end of comes first.
            (Some(id), _) => vec![Step::Remove(*id)],
            (None, Some((id, _))) => vec![Step::Promote(*id)],
            (None, None) => {
                let leaver = self.leaver(&status, draw);
                let new = match ((draw >> 8) & 3, &leaver) {
                    (0, Some(_)) => None,
                    _ if self.members.len() >= MACHINES_MAX => None,
                    _ => Some(self.join()),
                };
                let joins = new.into_iter().flat_map(|id| [Step::Add(id), Step::Promote(id)]);
                let leaves = leaver.filter(|_| (draw >> 10) & 3 != 0).map(Step::Remove);
                joins.chain(leaves).collect()
            }
        };
        if steps.is_empty() {
            return false;
        }
        let (until, next) = (self.now + JOB_MAX, self.now);
        self.operator.job = Some(Job { steps, until, next, asked: None });
        true
    }

    /// Who may go, so that those that nothing is to befall are still a majority.
    fn leaver(&self, status: &Status, draw: u64) -> Option<NodeId> {
        let voters: Vec<NodeId> =
            status.members.iter().filter(|(_, it)| it.voter).map(|(id, _)| *id).collect();
        let dead = voters.iter().find(|id| self.is_dead(**id).is_some());
        let drawn = voters.get((draw % voters.len().max(1) as u64) as usize);
        let leaver = *dead.or(drawn)?;
        let whole = |id: &&NodeId| **id != leaver && !self.victims.contains(id);
        let whole = voters.iter().filter(whole).count();
        (voters.len() > 1 && whole > (voters.len() - 1) / 2).then_some(leaver)
    }

    /// When the operator looks again.
    pub(super) fn operator_at(&self) -> Option<Duration> {
        self.operator.job.as_ref().map(|job| job.next)
    }

    /// Goes on with what is under way.
    pub(super) fn operate(&mut self) {
        let now = self.now;
        let due = self.operator_at().is_some_and(|at| at <= now);
        let Some(mut job) = due.then(|| self.operator.job.take()).flatten() else {
            return;
        };
        job.next = now + LOOK_INTERVAL;
        if job.asked.as_mut().is_some_and(|asked| asked.try_take().is_some()) {
            // Whatever the answer is: what counts is what the leader says now.
            job.asked = None;
        }
        let leader = self.leader().and_then(|id| Some((self.client(id)?, self.status(id)?)));
        if let Some((client, status)) = leader.filter(|_| job.asked.is_none()) {
            while job.steps.first().is_some_and(|step| step.is_done(&status)) {
                job.steps.remove(0);
                self.operator.done += 1;
            }
            if let Some(step) = job.steps.first() {
                if let Step::Remove(id) = step {
                    self.operator.removed.insert(*id);
                }
                job.asked = Some(step.ask(&client, &status));
            }
        }
        let over = job.steps.is_empty() || now >= job.until;
        self.operator.job = Some(job).filter(|_| !over);
    }

    /// Whether the operator has asked for the removal of a member: it may stand still from then on.
    pub fn is_leaving(&self, node: NodeId) -> bool {
        self.operator.removed.contains(&node)
    }

    /// The members of the cluster as its leader knows them, or else whoever has applied the most.
    pub fn members(&self) -> Vec<NodeId> {
        let knows = self.leader().or_else(|| self.most_applied());
        let status = knows.and_then(|node| self.status(node));
        status.map_or_else(|| self.nodes(), |status| status.members.keys().copied().collect())
    }

    /// Those of them that vote.
    pub(super) fn voters(&self) -> Vec<NodeId> {
        let knows = self.leader().or_else(|| self.most_applied());
        let status = knows.and_then(|node| self.status(node));
        status.map_or_else(Vec::new, |status| {
            status.members.iter().filter(|(_, it)| it.voter).map(|(id, _)| *id).collect()
        })
    }

    /// How many changes of the membership were made.
    pub fn changes(&self) -> u64 {
        self.operator.done
    }
}

impl Operator {
    /// What was asked for may still happen.
    pub(super) fn stop(&mut self) {
        self.job = None;
    }
}

impl Step {
    fn is_done(self, status: &Status) -> bool {
        match self {
            Self::Add(id) => status.members.contains_key(&id),
            Self::Promote(id) => status.members.get(&id).is_none_or(|member| member.voter),
            Self::Remove(id) => !status.members.contains_key(&id),
        }
    }

    fn ask(self, client: &Client, status: &Status) -> Completion<()> {
        match self {
            Self::Add(id) => client.add_learner(id),
            Self::Promote(id) => client.promote(id),
            Self::Remove(id) if id == status.id => {
                let others = status.members.iter().filter(|(other, it)| **other != id && it.voter);
                match others.map(|(other, _)| *other).next_back() {
                    Some(other) => client.transfer_leader(other),
                    None => client.remove(id),
                }
            }
            Self::Remove(id) => client.remove(id),
        }
    }
}

/// The operator gives up after so long; the next one goes on with it.
const JOB_MAX: Duration = Duration::from_secs(15);
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Machines of a run, with those that have left.
const MACHINES_MAX: usize = 11;
