//! The project's own use of the simulator: a workload that touches everything, all checks, and a
//! phase in which everything must work again.
//!
//! `cargo run --release --features sim --example swarm -- --seeds 2000` runs it.

mod books;
mod contest;
mod exchange;
mod queue;
mod vault;
mod worker;

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use crate::{
    client::{Completion, Error, Written},
    config::{ConfigBuilder, Limits},
    id::NodeId,
    node::{Consistency, Divergence},
    op::{CreateMode, OpError},
    path::Path,
    sim::{Cluster, FaultKind, Faults, Plan, Rng, Violation},
};

use books::Books;
use worker::Worker;

/// What a run is made of.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Swarm {
    /// Founders; `None` takes 1, 3, 5 and 7 in turns, 3 most often. Default: `None`.
    pub nodes: Option<u64>,
    /// How long faults happen. Default: 40 s.
    pub faulty: Duration,
    /// What goes wrong. Default: [`Faults::swarm`].
    pub faults: Faults,
    /// How long each member's workload waits on average before it asks for the next thing.
    /// Default: 60 ms.
    pub pace: Duration,
}

impl Default for Swarm {
    fn default() -> Self {
        Self {
            nodes: None,
            faulty: Duration::from_secs(40),
            faults: Faults::swarm(),
            pace: Duration::from_millis(60),
        }
    }
}

/// What a run has done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Time that has passed in the world.
    pub simulated: Duration,
    /// Turns of all members.
    pub turns: u64,
    /// Operations that were answered.
    pub answered: u64,
    /// Transactions that watches have told.
    pub told: u64,
    /// Locks and leaderships that were acquired.
    pub acquired: u64,
    /// Changes of the membership that were made.
    pub changes: u64,
    /// Sessions that went to another attachment.
    pub moves: u64,
    /// Transactions over several nodes that were answered.
    pub exchanged: u64,
    /// What readers were told of nodes that are not for everybody.
    pub shown: u64,
    /// Faults by kind.
    pub faults: BTreeMap<FaultKind, u64>,
    /// From the end of the faults to the first leader, and to the first write. `None` when so many
    /// members had lost the end of their logs that an operator would have to decide, see
    /// [`accept_cut_tail`](ConfigBuilder::accept_cut_tail).
    pub recovery: Option<(Duration, Duration)>,
    /// Histories that had too many orders to be decided.
    pub undecided: u64,
    /// See [`Cluster::trace_hash`].
    pub trace_hash: u64,
}

impl Swarm {
    /// One run.
    ///
    /// # Errors
    ///
    /// The first promise that was broken.
    pub fn run(&self, plan: &Plan) -> Result<Report, Violation> {
        let mut rng = Rng::stream(plan.seed(), RUN);
        let turn = NODES[(plan.seed() % NODES.len() as u64) as usize];
        let books = Rc::new(RefCell::new(Books::new(self.pace)));
        let mut cluster = self.cluster(plan, self.nodes.unwrap_or(turn), &books);
        cluster.run_for(FOUNDING + self.faulty)?;
        cluster.heal();
        let doomed = doom(&mut cluster, &mut rng);
        let recovery = match self.recover(&mut cluster, &doomed, &books) {
            // Without an operator nothing can be done, and nothing may be.
            Err(it) if it.check == "progress" && needs_operator(&cluster, &doomed) => {
                return Ok(report(&cluster, &books.borrow(), None));
            }
            recovery => recovery?,
        };
        let verdict = books.borrow().verdict(&cluster, &live(&cluster, &doomed));
        let undecided = verdict.map_err(|(check, why)| cluster.violation(check, why))?;
        Ok(Report { undecided, ..report(&cluster, &books.borrow(), Some(recovery)) })
    }

    /// A leader, a write and the same state everywhere: gives how long the first two took.
    fn recover(
        &self,
        cluster: &mut Cluster,
        doomed: &[NodeId],
        books: &RefCell<Books>,
    ) -> Result<(Duration, Duration), Violation> {
        let healed = cluster.now();
        cluster.run_until(LEADER_MAX, |it| it.leader().filter(|id| !doomed.contains(id)))?;
        let leader_after = cluster.now() - healed;
        self.write(cluster, doomed)?;
        let write_after = cluster.now() - healed;
        books.borrow_mut().close();
        cluster.run_for(ORPHANS_MAX)?;
        self.agree(cluster, doomed)?;
        Ok((leader_after, write_after))
    }

    fn cluster(&self, plan: &Plan, nodes: u64, books: &Rc<RefCell<Books>>) -> Cluster {
        let (seat, ledger) = (Rc::clone(books), Rc::clone(books));
        let builder = Cluster::builder()
            .plan(plan)
            .nodes(nodes)
            .faults(self.faults.clone())
            .grace(FOUNDING)
            .config(small)
            .application(move |node| Worker::new(node, Rc::clone(&seat)))
            .invariant("clients", move |cluster| ledger.borrow_mut().look(cluster));
        builder.build().expect("these limits are possible")
    }

    /// All have the same state; where a memory went bad, after the next comparison.
    fn agree(&self, cluster: &mut Cluster, doomed: &[NodeId]) -> Result<(), Violation> {
        let rot = cluster.fault_counts().contains_key(&FaultKind::MemoryRot);
        if rot {
            // Without a change nothing is compared.
            self.write(cluster, doomed)?;
        }
        let limit = if rot { COMPARED_MAX } else { AGREE_MAX };
        cluster.run_until(limit, |it| it.agree(&live(it, doomed)).then_some(()))
    }

    /// A fresh write, and a read that sees it, at a member that lives.
    fn write(&self, cluster: &mut Cluster, doomed: &[NodeId]) -> Result<(), Violation> {
        let path: Path = "/healed".parse().expect("valid");
        // One that was asked to leave may do so now.
        let stays = |it: &Cluster| {
            let live = live(it, doomed).into_iter();
            live.filter(|id| !it.is_leaving(*id)).find_map(|id| it.client(id))
        };
        let client = cluster.run_until(WRITE_MAX, |it| stays(it))?;
        // One outside of a session is sent once, maybe to a leader of before: so again and again.
        let (mut writes, mut next) = (Vec::new(), Duration::ZERO);
        cluster.run_until(WRITE_MAX, |it| {
            if it.now() >= next {
                next = it.now() + AGAIN;
                writes.push(client.create(&path, "1", CreateMode::Persistent));
            }
            let there = |error: &Error| matches!(error.op(), Some(OpError::NodeExists { .. }));
            let done = |write: &mut Completion<Written>| {
                write.try_take().is_some_and(|answer| answer.as_ref().map_or_else(there, |_| true))
            };
            writes.iter_mut().any(done).then_some(())
        })?;
        let mut read = client.get(&path, Consistency::Linearizable);
        cluster.run_until(WRITE_MAX, |_| match read.try_take()? {
            Ok(_) => Some(()),
            Err(_) => {
                read = client.get(&path, Consistency::Linearizable);
                None
            }
        })
    }
}

fn report(cluster: &Cluster, books: &Books, recovery: Option<(Duration, Duration)>) -> Report {
    Report {
        simulated: cluster.now(),
        turns: cluster.turns(),
        answered: books.answered,
        told: books.watches.known() as u64,
        acquired: books.acquired(),
        changes: cluster.changes(),
        moves: books.moves.moves(),
        exchanged: books.transactions.answered() as u64,
        shown: books.leaks.seen(),
        faults: cluster.fault_counts().clone(),
        recovery,
        undecided: 0,
        trace_hash: cluster.trace_hash(),
    }
}

/// Members for which the end has come, if any: in half of the runs a minority is dead for ever, cut
/// off, or hears or is heard no more. Nothing is expected of those.
fn doom(cluster: &mut Cluster, rng: &mut Rng) -> Vec<NodeId> {
    let (nodes, mut doomed) = (cluster.nodes(), Vec::new());
    if rng.chance(500_000) {
        doomed = cluster.victims().to_vec();
    }
    let (killed, way) = (rng.chance(500_000), rng.below(3));
    for node in &doomed {
        if killed {
            cluster.kill(*node);
            continue;
        }
        for other in nodes.iter().filter(|other| *other != node) {
            match way {
                0 => cluster.cut(*node, *other),
                1 => cluster.cut_one_way(*node, *other),
                _ => cluster.cut_one_way(*other, *node),
            }
        }
    }
    doomed
}

/// Members of which everything is expected.
fn live(cluster: &Cluster, doomed: &[NodeId]) -> Vec<NodeId> {
    let mut live = cluster.members();
    live.retain(|node| !doomed.contains(node) && !cluster.is_destroyed(*node));
    live
}

/// Whether too few members may vote: the others have lost the ends of their logs, which they may
/// have acknowledged, or have bad states. Or a bad state has spread before it was found, and none
/// has a majority.
fn needs_operator(cluster: &Cluster, doomed: &[NodeId]) -> bool {
    let nodes = cluster.voters();
    let votes = |node: &&NodeId| {
        let waits = cluster.status(**node).map(|status| status.waiting);
        waits == Some(None) && !doomed.contains(node)
    };
    let divided = |node: &NodeId| {
        let divergence = cluster.status(*node).and_then(|status| status.divergence);
        matches!(divergence, Some(Divergence::Unresolved { .. }))
    };
    nodes.iter().filter(votes).count() <= nodes.len() / 2 || nodes.iter().any(divided)
}

/// Snapshots, segments and histories come and go within seconds.
fn small(config: ConfigBuilder) -> ConfigBuilder {
    let limits = Limits {
        snapshot_log_bytes: 24 << 10,
        log_tail_bytes_max: 16 << 10,
        snapshot_chunk_bytes: 4 << 10,
        history_count_max: 200,
        ..Limits::default()
    };
    config.limits(limits)
}

/// When the cluster is there, and faults begin.
const FOUNDING: Duration = Duration::from_secs(3);
/// Ten election timeouts.
const LEADER_MAX: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(500);
const WRITE_MAX: Duration = Duration::from_secs(15);
const AGREE_MAX: Duration = Duration::from_secs(10);
/// States are compared 20 election timeouts after a change, and then one is handed over.
const COMPARED_MAX: Duration = Duration::from_secs(30);
/// Sessions without an owner are over after their time to live, two renewal intervals, three ticks
/// and a little for the drift of clocks: and before that a leader must know that it is one.
const ORPHANS_MAX: Duration = Duration::from_millis(2_000 + 2 * 500 + 3 * 50 + 100 + 1_000);
const RUN: u64 = 5 << 32;
/// Founders, by the seed.
const NODES: [u64; 8] = [3, 5, 1, 3, 7, 3, 5, 3];
