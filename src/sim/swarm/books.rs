//! What the workers of a run share: what was asked, answered, promised and held.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    rc::{Rc, Weak},
    time::Duration,
};

use crate::{
    client::SessionKey,
    id::{NodeId, SessionId, Zxid},
    namespace::View,
    op::{List, Stat},
    path::Path,
    sim::{
        Cluster,
        check::{Fifo, Leaks, Leases, Linear, Locks, Moves, Transactions, Watches},
    },
};

use super::{ORPHANS_MAX, contest::Contest, vault::traces};

/// What outlives the processes.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) pace: Duration,
    pub(super) linear: Linear,
    pub(super) fifo: Fifo,
    pub(super) watches: Watches,
    pub(super) leases: Leases,
    pub(super) transactions: Transactions,
    pub(super) moves: Moves,
    pub(super) leaks: Leaks,
    /// The newest version that was seen of each vault.
    pub(super) vaults: BTreeMap<u64, u64>,
    /// Sessions that whoever wants may attach.
    pub(super) offered: VecDeque<SessionKey>,
    /// The last epoch that anybody has asked for of a session.
    pub(super) epochs: BTreeMap<SessionId, u64>,
    /// The time of the world.
    pub(super) now: Duration,
    /// By the path of the lock or election.
    contests: BTreeMap<&'static str, Ground>,
    /// Where each member's watch goes on.
    pub(super) resume: BTreeMap<NodeId, Zxid>,
    lives: BTreeMap<NodeId, u64>,
    pub(super) next_value: u64,
    /// The register of which a write was last answered.
    pub(super) fresh: u64,
    pub(super) answered: u64,
    pub(super) over: bool,
    /// What a worker has found wrong.
    pub(super) wrong: Option<String>,
    next_look: Duration,
}

/// Who contends for one lock.
#[derive(Debug, Default)]
struct Ground {
    locks: Locks,
    contests: Vec<Weak<RefCell<Contest>>>,
    /// Who held it when it was last looked at: their places, and the tokens.
    held: Vec<(usize, Zxid)>,
}

impl Books {
    pub(super) fn new(pace: Duration) -> Self {
        Self {
            pace,
            linear: Linear::new(),
            fifo: Fifo::new(),
            watches: Watches::new(),
            leases: Leases::new(),
            transactions: Transactions::new(),
            moves: Moves::new(),
            leaks: Leaks::new(),
            vaults: BTreeMap::new(),
            offered: VecDeque::new(),
            epochs: BTreeMap::new(),
            now: Duration::ZERO,
            contests: BTreeMap::new(),
            resume: BTreeMap::new(),
            lives: BTreeMap::new(),
            next_value: 0,
            fresh: 0,
            answered: 0,
            over: false,
            wrong: None,
            next_look: Duration::ZERO,
        }
    }

    /// Nothing new is asked for any more.
    pub(super) fn close(&mut self) {
        self.over = true;
    }

    pub(super) fn contends(&mut self, path: &'static str, contest: &Rc<RefCell<Contest>>) {
        let ground = self.contests.entry(path).or_default();
        ground.contests.retain(|it| it.strong_count() > 0);
        // Their places have changed.
        ground.held.clear();
        ground.contests.push(Rc::downgrade(contest));
    }

    /// A write under a token took effect.
    pub(super) fn wrote(&mut self, path: &'static str, zxid: Zxid, token: Zxid) {
        self.contests.entry(path).or_default().locks.wrote(zxid, token);
    }

    pub(super) fn acquired(&self) -> u64 {
        self.contests.values().map(|ground| ground.locks.acquired()).sum()
    }

    /// Whether nobody has asked for a later attachment of a session.
    pub(super) fn is_latest(&self, key: SessionKey) -> bool {
        self.epochs.get(&key.session).is_none_or(|epoch| *epoch <= key.epoch)
    }

    /// After each step of the world.
    pub(super) fn look(&mut self, cluster: &Cluster) -> Result<(), String> {
        self.now = cluster.now();
        if let Some(wrong) = self.wrong.take() {
            return Err(wrong);
        }
        for ground in self.contests.values_mut() {
            ground.look()?;
        }
        if cluster.now() < self.next_look {
            return Ok(());
        }
        self.next_look = cluster.now() + LOOK_INTERVAL;
        for node in cluster.nodes() {
            let life = cluster.clock(node).map_or(0, |clock| clock.0);
            if self.lives.insert(node, life) != Some(life) || !cluster.is_up(node) {
                self.leases.gone(node, cluster.now());
            }
        }
        // Whoever was promised something has applied the opening of its session.
        let Some(view) = cluster.most_applied().and_then(|node| cluster.view(node)) else {
            return Ok(());
        };
        self.leases.check(|session| lives(&view, session), |node| cluster.clock(node))
    }

    /// At the end: how many histories could not be decided; or the check that is broken, and why.
    pub(super) fn verdict(
        &self,
        cluster: &Cluster,
        live: &[NodeId],
    ) -> Result<u64, (&'static str, String)> {
        let view = live.iter().find_map(|node| cluster.view(*node));
        let view = view.ok_or(("progress", "nobody is there".to_owned()))?;
        // A member may have found its disk damaged only just now.
        let orphans = self.leases.orphans(cluster.now().saturating_sub(ORPHANS_MAX));
        if let Some(session) = orphans.into_iter().find(|session| lives(&view, *session)) {
            return Err(("leases", format!("session {session} outlives its owner")));
        }
        for path in self.contests.keys() {
            if let Some(name) = ownerless(&view, path) {
                return Err(("leases", format!("{name} below {path} outlives its owner")));
            }
        }
        let undecided = self.linear.check().map_err(|why| ("linearizability", why))?;
        let decided = self.transactions.check().map_err(|why| ("transactions", why))?;
        let undecided = undecided + u64::from(!decided);
        self.moves.check().map_err(|why| ("moves", why))?;
        traces(&view).map_err(|why| ("rights", why))?;
        self.watches.check().map_err(|why| ("watches", why))?;
        for ground in self.contests.values() {
            ground.locks.check().map_err(|why| ("locks", why))?;
        }
        let effects = queue(&view);
        let effects = effects.iter().map(|(name, number)| (name.as_str(), *number));
        self.fifo.check(effects).map_err(|why| ("sessions", why))?;
        Ok(undecided)
    }
}

impl Ground {
    /// Who holds it, all at this moment.
    fn look(&mut self) -> Result<(), String> {
        let held = |contest: &Weak<RefCell<Contest>>| contest.upgrade()?.borrow().held();
        let all = self.contests.iter().enumerate();
        let holders = all.filter_map(|(at, contest)| Some((at, held(contest)?)));
        if holders.clone().eq(self.held.iter().copied()) {
            return Ok(());
        }
        self.held = holders.collect();
        self.locks.nobody();
        for (at, token) in &self.held {
            if let Some(contest) = self.contests[*at].upgrade() {
                self.locks.holds(&contest.borrow().name, *token)?;
            }
        }
        Ok(())
    }
}

fn lives(view: &View, session: SessionId) -> bool {
    view.lease(session.lease()).is_some()
}

/// A child whose owner has ended.
fn ownerless(view: &View, path: &str) -> Option<String> {
    let path: Path = path.parse().expect("valid");
    // Of one lock there are fewer contenders than fit into a page.
    let page = view.list(&List::of(path).with_stat()).ok()?;
    let ended = |it: &Stat| it.owner.is_some_and(|owner| view.lease(owner).is_none());
    let mut left = page.children.into_iter().filter(|it| it.stat.as_ref().is_some_and(ended));
    left.next().map(|child| child.name)
}

/// What is in the queue: who wrote it, and its number.
fn queue(view: &View) -> Vec<(String, u64)> {
    let path: Path = QUEUE.parse().expect("valid");
    let (mut found, mut list) = (Vec::new(), List::of(path).with_data());
    while let Ok(page) = view.list(&list) {
        for data in page.children.iter().filter_map(|child| child.data.as_ref()) {
            let text = String::from_utf8_lossy(data);
            let parts = text.split_once(' ');
            found.extend(parts.map(|(who, number)| (who.to_owned(), number.parse().unwrap_or(0))));
        }
        let Some(resume) = page.resume else { break };
        list = list.after(resume);
    }
    found
}

/// Where sessions write in order.
pub(super) const QUEUE: &str = "/queue";
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
