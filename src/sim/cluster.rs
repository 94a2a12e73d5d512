//! The simulated world: members, the network between them, and time.
//!
//! It goes from one moment at which something happens to the next. Everything happens in one
//! thread and in an order that depends on the seed alone.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    client::Client,
    config::{Config, ConfigBuilder},
    driver::HostError,
    id::NodeId,
    namespace::View,
    node::{DiskFault, Ended, Status},
    sim::{
        Application, Builder, FaultEvent, FaultId, FaultKind, Plan, Rng, Violation,
        builder::Invariant,
        check::Agreement,
        churn::Operator,
        faults::Schedule,
        inject::Undo,
        member::{Member, Process, State, Turned},
        network::Network,
        rng::mix,
    },
    wal::{Keep, WalError},
};

/// A simulated cluster with an application on each member.
///
/// ```
/// use std::time::Duration;
/// use quorate::{CreateMode, sim::{Cluster, Faults}};
/// let mut cluster = Cluster::builder().seed(7).nodes(3).faults(Faults::swarm()).build()?;
/// let leader = cluster.run_until(Duration::from_secs(30), |it| it.leader())?;
/// let client = cluster.client(leader).expect("it runs");
/// let mut write = client.create(&"/a".parse()?, "1", CreateMode::Persistent);
/// let written = cluster.run_until(Duration::from_secs(30), |_| write.try_take())?;
/// println!("{written:?} after {:?}", cluster.now());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Cluster {
    pub(super) now: Duration,
    pub(super) plan: Plan,
    pub(super) rng: Rng,
    pub(super) members: Vec<Member>,
    pub(super) network: Network,
    pub(super) schedule: Option<Schedule>,
    /// The schedule of the faults begins then.
    pub(super) grace: Duration,
    /// What ends, and when, in order.
    pub(super) undo: BTreeMap<(Duration, FaultId), Undo>,
    pub(super) injected: Vec<FaultEvent>,
    pub(super) counts: BTreeMap<FaultKind, u64>,
    /// A minority, on which destructive faults fall.
    pub(super) victims: Vec<NodeId>,
    pub(super) operator: Operator,
    configure: Box<dyn Fn(ConfigBuilder) -> ConfigBuilder>,
    application: Box<dyn FnMut(NodeId) -> Box<dyn Application>>,
    pub(super) agreement: Agreement,
    invariants: Vec<Invariant>,
    trace: u64,
    turns: u64,
}

impl Cluster {
    /// Begins to describe a cluster.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(super) fn new(builder: Builder, configs: Vec<Config>) -> Self {
        let seed = builder.plan.seed();
        let mut rng = Rng::stream(seed, WORLD);
        let members: Vec<Member> =
            configs.into_iter().map(|config| Member::new(config, rng.next())).collect();
        let mut victims: Vec<NodeId> = members.iter().map(|member| member.id).collect();
        while victims.len() > (members.len() - 1) / 2 {
            victims.swap_remove(rng.below(victims.len() as u64) as usize);
        }
        let network = Network::new(Rng::stream(seed, NETWORK));
        let drawn = builder.faults.drawn(seed);
        Self {
            now: Duration::ZERO,
            plan: builder.plan,
            rng,
            members,
            network,
            schedule: Some(Schedule::new(&drawn, seed)),
            grace: builder.grace,
            undo: BTreeMap::new(),
            injected: Vec::new(),
            counts: BTreeMap::new(),
            victims,
            operator: Operator::default(),
            configure: builder.configure,
            application: builder.application,
            agreement: Agreement::default(),
            invariants: builder.invariants,
            trace: seed,
            turns: 0,
        }
    }

    /// Lets so much time pass.
    ///
    /// # Errors
    ///
    /// The first promise that was broken.
    pub fn run_for(&mut self, time: Duration) -> Result<(), Violation> {
        let end = self.now + time;
        while self.now < end {
            self.step(end)?;
        }
        Ok(())
    }

    /// Lets time pass until `done` gives something, at most for `limit`.
    ///
    /// # Errors
    ///
    /// The first promise that was broken; or a violation of `"progress"`, if the limit was reached.
    pub fn run_until<T>(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&mut Self) -> Option<T>,
    ) -> Result<T, Violation> {
        let end = self.now + limit;
        loop {
            if let Some(it) = done(self) {
                return Ok(it);
            }
            if self.now >= end {
                let why = format!("nothing for {limit:?}; {}", self.standing());
                return Err(self.violation("progress", why));
            }
            self.step(end)?;
        }
    }

    /// Goes to the next moment at which something happens, and not past `end`.
    fn step(&mut self, end: Duration) -> Result<(), Violation> {
        let members = self.members.iter().filter_map(Member::next_at);
        let faults = self.schedule.as_ref().and_then(Schedule::next_at);
        let faults = faults.map(|at| at + self.grace);
        let undo = self.undo.first_key_value().map(|((at, _), _)| *at);
        let others = [self.network.next_at(), faults, undo, self.operator_at(), Some(end)];
        let next = members.chain(others.into_iter().flatten()).min();
        self.now = self.now.max(next.unwrap_or(end)).min(end);
        for member in &self.members {
            member.clock.show(self.now);
        }
        self.end_faults();
        self.begin_faults();
        self.operate();
        while let Some(frame) = self.network.arrived(self.now) {
            self.record(&[frame.from.as_u64(), frame.to.as_u64(), frame.bytes.len() as u64]);
            self.record(&[crc32c::crc32c(&frame.bytes).into()]);
            let now = self.now;
            if let Some(process) = self.member_mut(frame.to).and_then(Member::process_mut) {
                process.deliver(now, frame.from, frame.bytes);
            }
        }
        for at in 0..self.members.len() {
            self.run_member(at)?;
        }
        self.check_invariants()
    }

    fn run_member(&mut self, at: usize) -> Result<(), Violation> {
        let (now, member) = (self.now, &mut self.members[at]);
        if member.next_at().is_none_or(|next| next > now) {
            return Ok(());
        }
        match &member.state {
            State::Down(_) => return self.start(at),
            State::Dead(_) => return Ok(()),
            State::Up(_) => {}
        }
        let id = member.id;
        if let Some(Turned { sent, ended }) = member.turn(now) {
            self.turns += 1;
            let dark = self.members[at].disk.is_dark();
            for (after, message) in sent {
                // After other turns the member itself is looked at.
                if dark || ended.is_some() {
                    self.agreement.sent(id, &message.bytes);
                }
                self.network.send(after, id, message);
            }
            if dark {
                self.power_off(at);
                return Ok(());
            }
            let member = &self.members[at];
            // What a node that has ended had not made durable yet is no promise.
            if let Some(process) = member.process().filter(|_| ended.is_none()) {
                let seen = process.node().glimpse();
                let observed = self.agreement.observe(id, member.lives, &seen, process.node());
                self.record(&[id.as_u64(), seen.term, seen.commit, seen.applied, seen.digest]);
                observed.map_err(|why| self.violation("agreement", why))?;
                if self.members[at].wiped && seen.term > FOUNDING_TERM {
                    let why = format!("member {id} has lost its disk, and takes part all the same");
                    return Err(self.violation("identity", why));
                }
            }
            if let Some(ended) = ended {
                return self.ended(at, &ended);
            }
        }
        self.members[at].poll(now);
        Ok(())
    }

    /// Starts a member's process.
    fn start(&mut self, at: usize) -> Result<(), Violation> {
        let (now, id) = (self.now, self.members[at].id);
        if self.members[at].destroyed {
            // What it was before is no promise any more.
            self.agreement.forget(id);
        }
        let application = (self.application)(id);
        self.members[at].disk.begin_turn();
        let started = self.members[at].start(now, application);
        self.record(&[id.as_u64(), self.members[at].lives]);
        let Err(error) = started else {
            return Ok(());
        };
        let member = &mut self.members[at];
        if member.disk.is_dark() {
            self.power_off(at);
            return Ok(());
        }
        match &error {
            HostError::Wal(WalError::Io { .. } | WalError::NoSpace { .. }) => {
                member.state = State::Down(now + RESTART);
                Ok(())
            }
            _ if member.destroyed => {
                member.state = State::Dead(error.to_string());
                Ok(())
            }
            _ => Err(self.violation("opening", format!("member {id}: {error}"))),
        }
    }

    /// A node has ended by itself: its process is started again, unless that would not help.
    fn ended(&mut self, at: usize, ended: &Ended) -> Result<(), Violation> {
        let now = self.now;
        let member = &mut self.members[at];
        let retry =
            matches!(ended, Ended::DiskFailed { fault: DiskFault::Failed | DiskFault::Full, .. });
        if retry {
            member.disk.crash(None);
            member.state = State::Down(now + RESTART);
            return Ok(());
        }
        let (id, destroyed) = (member.id, member.destroyed);
        let taken_in = member.wiped && matches!(ended, Ended::Consensus { .. });
        member.state = State::Dead(ended.to_string());
        let left = matches!(ended, Ended::Removed { .. }) && self.is_leaving(id);
        match (destroyed && !taken_in) || left {
            true => Ok(()),
            false => Err(self.violation("ending", format!("member {id}: {ended}"))),
        }
    }

    fn check_invariants(&mut self) -> Result<(), Violation> {
        let mut invariants = std::mem::take(&mut self.invariants);
        let mut broken = None;
        for Invariant { name, holds } in &mut invariants {
            if let Err(why) = holds(self) {
                broken = Some(self.violation(name, why));
                break;
            }
        }
        self.invariants = invariants;
        broken.map_or(Ok(()), Err)
    }

    /// A broken promise, with what it takes to see it again.
    pub fn violation(&self, check: &str, why: impl Into<String>) -> Violation {
        Violation::new(&self.plan, self.now, check, why.into(), self.injected.clone())
    }

    /// Where each member stands, in a line.
    fn standing(&self) -> String {
        let tell = |member: &Member| match &member.state {
            State::Down(_) => format!("{} is down", member.id),
            State::Dead(why) => format!("{} is dead ({why})", member.id),
            State::Up(process) => {
                let it = process.node().status();
                let Status { role, term, commit, applied, last_index, .. } = it;
                let waits = it.waiting.map_or(String::new(), |it| format!(", waits for {it:?}"));
                let log = format!("applied {applied}, committed {commit} of {last_index}");
                let state = it.divergence.map_or(String::new(), |it| format!(", {it:?}"));
                let digest = it.digest;
                format!(
                    "{} is {role:?} of term {term}, {log}, digest {digest:016x}{state}{waits}",
                    member.id
                )
            }
        };
        let told: Vec<String> = self.members.iter().map(tell).collect();
        told.join("; ")
    }

    // What can be done by hand.

    /// A member's process dies, and starts again after `down`. With `power`, so does its machine,
    /// which keeps that of what was not synced.
    pub fn crash(&mut self, node: NodeId, power: Option<Keep>, down: Duration) {
        let until = self.now + down;
        if let Some(member) = self.member_mut(node).filter(|it| it.process().is_some()) {
            member.state = State::Down(until);
            member.disk.crash(power);
        }
    }

    /// A new machine is set up, with an id that nobody had: it waits until the leader adds it
    /// ([`Client::add_learner`]).
    pub fn join(&mut self) -> NodeId {
        let last = self.members.iter().map(|member| member.id.as_u64()).max().unwrap_or(0);
        let id = NodeId::new(last + 1).expect("more than another one");
        let config = Builder::joining(&*self.configure, self.plan.seed(), id);
        let mut member = Member::new(config, self.rng.next());
        member.state = State::Down(self.now);
        self.members.push(member);
        id
    }

    /// A member dies for good.
    pub fn kill(&mut self, node: NodeId) {
        if let Some(member) = self.member_mut(node) {
            member.state = State::Dead("killed".into());
        }
    }

    /// Cuts the line between two members, both ways, until [`heal`](Self::heal).
    pub fn cut(&mut self, one: NodeId, other: NodeId) {
        self.network.cut(&[(one, other), (other, one)]);
    }

    /// Cuts the line from one member to another, one way, until [`heal`](Self::heal).
    pub fn cut_one_way(&mut self, from: NodeId, to: NodeId) {
        self.network.cut(&[(from, to)]);
    }

    /// No further faults: lines are mended, disks work, processes that are down or paused go on.
    /// What is dead or destroyed stays so.
    pub fn heal(&mut self) {
        self.schedule = None;
        self.operator.stop();
        self.undo.clear();
        let now = self.now;
        self.network.heal(now);
        for member in &mut self.members {
            member.disk.heal();
            member.paused_until = now;
            member.clock.set_drift(now, 0);
            member.clock_changed(now);
            if let State::Down(until) = &mut member.state {
                *until = now;
            }
        }
    }

    // What there is to see.

    /// The time since the start.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// The ids of all machines, with those that have left the cluster.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.members.iter().map(|member| member.id).collect()
    }

    /// A handle of a member whose process runs.
    pub fn client(&self, node: NodeId) -> Option<Client> {
        Some(self.process(node)?.client().clone())
    }

    /// The tree as a member has applied it, if its process runs.
    pub fn view(&self, node: NodeId) -> Option<View> {
        Some(self.process(node)?.node().view())
    }

    /// What a member knows of itself and its cluster, if its process runs.
    pub fn status(&self, node: NodeId) -> Option<Status> {
        Some(self.process(node)?.node().status())
    }

    /// Whether a member's process runs; one that is paused does.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.process(node).is_some()
    }

    /// Why a member is dead for good, if it is.
    pub fn is_dead(&self, node: NodeId) -> Option<&str> {
        match &self.member(node)?.state {
            State::Dead(why) => Some(why),
            _ => None,
        }
    }

    /// How often a member was started, and what its monotonic clock shows.
    pub fn clock(&self, node: NodeId) -> Option<(u64, Duration)> {
        let member = self.member(node)?;
        Some((member.lives, member.clock.at(self.now)))
    }

    /// The leader of the latest term that has one.
    pub fn leader(&self) -> Option<NodeId> {
        let nodes = self.members.iter().filter_map(|it| Some((it.process()?.node(), it.id)));
        let leaders = nodes.filter(|(node, _)| node.is_leader());
        let latest = leaders.max_by_key(|(node, _)| node.glimpse().term);
        latest.map(|(_, id)| id)
    }

    /// Whether these members run, have applied the same entries, and have the same state.
    pub fn agree(&self, nodes: &[NodeId]) -> bool {
        let seen = |node: &NodeId| Some(self.process(*node)?.node().glimpse());
        let mut seen = nodes.iter().map(|node| seen(node).map(|it| (it.applied, it.digest)));
        seen.next().is_some_and(|first| first.is_some() && seen.all(|it| it == first))
    }

    /// The member, among those that run, that has applied the most.
    pub fn most_applied(&self) -> Option<NodeId> {
        let nodes = self.members.iter().filter_map(|it| Some((it.process()?.node(), it.id)));
        nodes.max_by_key(|(node, _)| node.glimpse().applied).map(|(_, id)| id)
    }

    /// The minority on which destructive faults fall.
    pub fn victims(&self) -> &[NodeId] {
        &self.victims
    }

    /// Whether a destructive fault has befallen a member.
    pub fn is_destroyed(&self, node: NodeId) -> bool {
        self.member(node).is_some_and(|member| member.destroyed)
    }

    /// The faults that have happened.
    pub fn faults(&self) -> &[FaultEvent] {
        &self.injected
    }

    /// How many there were of each kind.
    pub fn fault_counts(&self) -> &BTreeMap<FaultKind, u64> {
        &self.counts
    }

    /// A hash of everything that has happened: runs with the same plan have the same.
    pub fn trace_hash(&self) -> u64 {
        self.trace
    }

    /// How many turns the members have taken together.
    pub fn turns(&self) -> u64 {
        self.turns
    }

    pub(super) fn record(&mut self, what: &[u64]) {
        self.trace = mix(self.trace ^ self.now.as_nanos() as u64);
        for it in what {
            self.trace = mix(self.trace ^ it);
        }
    }

    pub(super) fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == node)
    }

    pub(super) fn member_mut(&mut self, node: NodeId) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.id == node)
    }

    fn process(&self, node: NodeId) -> Option<&Process> {
        self.member(node)?.process()
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("now", &self.now)
            .field("plan", &self.plan)
            .field("members", &self.members)
            .finish_non_exhaustive()
    }
}

/// Where the terms of a cluster begin.
const FOUNDING_TERM: u64 = 1;
const WORLD: u64 = 3 << 32;
const NETWORK: u64 = 4 << 32;
/// After so long somebody starts a process again that has ended.
const RESTART: Duration = Duration::from_millis(700);
