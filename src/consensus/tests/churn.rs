//! A cluster that changes its members while the network loses, nodes crash between send and sync,
//! logs are compacted, tails are cut and snapshots are streamed. Nothing may ever disagree, and
//! once all is well again, everything must work.

use super::*;

struct Churn {
    cluster: Cluster,
    draw: Draw,
    late: BTreeMap<(u64, u64), (u64, u64, RaftMessage)>,
    number: u64,
    next_id: u64,
    leaders: BTreeMap<u64, u64>,
    /// What a leader knew a peer to have, by leader, term and peer.
    matched: BTreeMap<(u64, u64, u64), u64>,
    /// What was ever applied by anybody.
    truth: BTreeMap<u64, Bytes>,
    seen: Seen,
}

/// How often each thing happened: a run in which it did not has shown nothing.
#[derive(Default, Debug)]
struct Seen {
    leaders: usize,
    changes: usize,
    installs: usize,
    crashes: usize,
    cut_tails: usize,
    healed_tails: usize,
    /// Turns at the end of which a member had several writes out.
    behind: usize,
}

#[test]
fn members_change_under_faults_and_all_agree() {
    assert_eq!(run_all(false).behind, 0);
}

#[test]
fn members_with_slow_disks_change_under_faults_and_all_agree() {
    let all = run_all(true);
    assert!(all.behind > 1_000, "{all:?}");
}

fn run_all(slow: bool) -> Seen {
    let mut all = Seen::default();
    for seed in 1..=24 {
        let mut churn = Churn::new(seed);
        churn.cluster.slow = slow.then_some(Draw(seed | 1 << 32));
        let seen = churn.run();
        all.behind += seen.behind;
        all.leaders += seen.leaders;
        all.changes += seen.changes;
        all.installs += seen.installs;
        all.crashes += seen.crashes;
        all.cut_tails += seen.cut_tails;
        all.healed_tails += seen.healed_tails;
    }
    assert!(all.leaders > 100, "{all:?}");
    assert!(all.changes > 100, "{all:?}");
    assert!(all.installs > 40, "{all:?}");
    assert!(all.crashes > 200, "{all:?}");
    assert!(all.cut_tails > 20, "{all:?}");
    assert!(all.healed_tails > 20, "{all:?}");
    all
}

impl Churn {
    fn new(seed: u64) -> Self {
        Self {
            cluster: Cluster::new(&[1, 2, 3], &[]),
            draw: Draw(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            late: BTreeMap::new(),
            number: 0,
            next_id: 4,
            leaders: BTreeMap::new(),
            matched: BTreeMap::new(),
            truth: BTreeMap::new(),
            seen: Seen::default(),
        }
    }

    fn run(mut self) -> Seen {
        for tick in 0..1_500 {
            self.turn(tick, true);
        }
        self.cluster.cut.clear();
        for tick in 1_500..1_800 {
            self.turn(tick, false);
        }
        self.check_recovered();
        self.seen.leaders = self.leaders.len();
        self.seen
    }

    fn turn(&mut self, tick: u64, faulty: bool) {
        if faulty {
            self.disturb(tick);
        }
        for node in self.nodes() {
            let behind = self.cluster.members[&node].writes.len();
            self.seen.behind += usize::from(behind > 1);
            if !faulty || self.draw.below(4) > 0 {
                self.cluster.persist(node, self.draw.below(3) + u64::from(!faulty));
                self.cluster.drain(node);
            }
            self.cluster.node(node).tick();
            self.cluster.drain(node);
        }
        self.transfer_snapshots(tick, faulty);
        let due: Vec<_> = self.late.range(..(tick, 0)).map(|(&key, _)| key).collect();
        for key in due {
            if let Some((from, to, message)) = self.late.remove(&key) {
                self.cluster.deliver(from, to, message);
            }
        }
        for sent in mem::take(&mut self.cluster.network) {
            self.post(tick, sent, faulty);
        }
        self.check();
    }

    fn post(&mut self, tick: u64, sent: (u64, u64, RaftMessage), faulty: bool) {
        self.number += 1;
        if !faulty {
            self.late.insert((tick, self.number), sent);
        } else if self.draw.below(20) > 0 {
            if self.draw.below(30) == 0 {
                let again = (tick + self.draw.below(20), self.number + (1 << 40));
                self.late.insert(again, sent.clone());
            }
            let delay = self.draw.below(3);
            self.late.insert((tick + delay, self.number), sent);
        }
    }

    fn disturb(&mut self, tick: u64) {
        let nodes = self.nodes();
        let node = nodes[self.draw.below(nodes.len() as u64) as usize];
        if tick % 60 == 0 {
            self.cluster.cut.clear();
            if self.draw.below(2) == 0 {
                self.cluster.isolate(node);
            }
        }
        let data = Bytes::from(format!("{tick} by {node}"));
        let _ = self.cluster.node(node).propose(data);
        match self.draw.below(40) {
            0 => self.crash(node, false),
            1 if self.draw.below(4) == 0 => self.crash(node, true),
            2 => {
                let to = nodes[self.draw.below(nodes.len() as u64) as usize];
                let _ = self.cluster.node(node).transfer_leader(id(to));
            }
            3..8 => {
                let applied = self.cluster.node(node).applied_index();
                let keep = self.draw.below(4);
                self.cluster.node(node).compact(applied.saturating_sub(keep));
            }
            8..10 => self.snapshot_here(node),
            10..20 => self.change(),
            _ => {}
        }
    }

    /// The leader, if there is one, changes one member.
    fn change(&mut self) {
        let Some(lead) = self.cluster.lead() else {
            return;
        };
        let consensus = self.cluster.node(lead);
        let (voters, learners) = (consensus.voters(), consensus.learners());
        let change = match self.draw.below(3) {
            0 if voters.len() + learners.len() < 6 => {
                MembershipChange::AddLearner(id(self.next_id))
            }
            1 if !learners.is_empty() => {
                let at = self.draw.below(learners.len() as u64) as usize;
                MembershipChange::Promote(learners[at])
            }
            _ if voters.len() > 3 => {
                let at = self.draw.below(voters.len() as u64) as usize;
                MembershipChange::Remove(voters[at])
            }
            _ => return,
        };
        let taken = self.cluster.node(lead).propose_change(change, Bytes::new());
        if taken.is_ok() && change == MembershipChange::AddLearner(id(self.next_id)) {
            self.cluster.add(self.next_id, nothing());
            self.next_id += 1;
        }
    }

    /// The process dies after what may leave at once has left, and before all of it is synced.
    fn crash(&mut self, node: u64, cut_tail: bool) {
        if let Some(batch) = self.cluster.node(node).drain() {
            self.cluster.send(node, batch.messages);
        }
        let member = self.cluster.members.get_mut(&node).unwrap();
        for _ in 0..self.draw.below(member.writes.len() as u64 + 1) {
            // Durable, but nobody heard of it.
            let write = member.writes.pop_front().unwrap();
            member.persist(write);
        }
        let alone = self.cluster.members.values().all(|m| m.consensus.may_vote());
        let mut may_vote = self.cluster.node(node).may_vote();
        let disk = &mut self.cluster.members.get_mut(&node).unwrap().disk;
        let known = disk.hard_state.commit.max(disk.snapshot.index);
        if cut_tail && alone && disk.entries.last().is_some_and(|e| e.index > known) {
            disk.entries.pop();
            may_vote = false;
            self.seen.cut_tails += 1;
        }
        self.cluster.restart(node, may_vote);
        self.seen.crashes += 1;
        for other in self.nodes() {
            self.cluster.node(other).unreachable(id(node));
        }
    }

    /// A snapshot of its own state, with some of the log before it kept.
    fn snapshot_here(&mut self, node: u64) {
        let member = self.cluster.members.get_mut(&node).unwrap();
        let index = member.consensus.applied_index();
        let Some(term) = member.consensus.term_at(index).filter(|_| index > 1) else {
            return;
        };
        let ids = |ids: Vec<NodeId>| ids.into_iter().map(NodeId::as_u64).collect();
        member.disk.snapshot = SnapshotMeta {
            index,
            term,
            voters: ids(member.consensus.voters()),
            learners: ids(member.consensus.learners()),
        };
        member.disk.snapshot_state = member.state.clone();
        let drop_to = index.saturating_sub(3);
        member.disk.entries.retain(|entry| entry.index > drop_to);
    }

    fn transfer_snapshots(&mut self, tick: u64, faulty: bool) {
        for (leader, to, meta) in mem::take(&mut self.cluster.needed) {
            let cut = self.cluster.cut.contains(&(leader, to));
            let lost = cut || (faulty && self.draw.below(3) == 0);
            if lost || !self.cluster.members.contains_key(&to) {
                self.cluster.node(leader).report_snapshot(id(to), false);
                continue;
            }
            self.cluster.stage(leader, to, &meta);
            let consensus = self.cluster.node(leader);
            let message = consensus.snapshot_message(id(to), meta.index, meta.term);
            consensus.report_snapshot(id(to), message.is_some());
            if let Some(message) = message {
                self.seen.installs += 1;
                self.post(tick, (leader, to, message), faulty);
            }
        }
    }

    fn check(&mut self) {
        // A member that was removed goes on until the others know: its vote may still be needed.
        for (_, _, applied) in mem::take(&mut self.cluster.changes) {
            self.seen.changes += usize::from(applied.change.is_some());
        }
        for (&node, member) in &self.cluster.members {
            let consensus = &member.consensus;
            assert_eq!(consensus.ended(), None, "{consensus:?}");
            let of_correct_peers = |rejected: &Rejected| matches!(rejected, Rejected::Ignored(_));
            assert!(consensus.counters().keys().all(of_correct_peers), "{consensus:?}");
            if consensus.role() == Role::Leader {
                let known = *self.leaders.entry(consensus.term()).or_insert(node);
                assert_eq!(known, node, "two lead in term {}", consensus.term());
                for peer in self.cluster.members.keys() {
                    let Some(progress) = consensus.progress(id(*peer)) else {
                        continue;
                    };
                    let key = (node, consensus.term(), *peer);
                    let known = self.matched.insert(key, progress.matched).unwrap_or(0);
                    assert!(progress.matched >= known || consensus.term_at(known).is_none());
                }
            }
            if consensus.is_blocked() {
                continue;
            }
            let mut raft = consensus.raw.raft.prs().conf().to_conf_state();
            raft.voters.sort_unstable();
            raft.learners.sort_unstable();
            let members = consensus.raw.store().members();
            assert_eq!(raft.voters, members.voters, "{consensus:?}");
            assert_eq!(raft.learners, members.learners, "{consensus:?}");
            for (&index, data) in member.state.iter().rev().take(20) {
                let truth = self.truth.entry(index).or_insert_with(|| data.clone());
                assert_eq!(truth, data, "{node} applied something else at {index}");
            }
        }
        let healed = self.cluster.members.values().all(|m| m.consensus.may_vote());
        if healed {
            self.seen.healed_tails = self.seen.cut_tails;
        }
    }

    fn check_recovered(&mut self) {
        let lead = self.cluster.lead().expect("somebody leads");
        let consensus = self.cluster.node(lead);
        let members = [consensus.voters(), consensus.learners()].concat();
        self.cluster.members.retain(|&node, _| members.contains(&id(node)));
        assert_eq!(self.cluster.members.len(), members.len());
        self.cluster.node(lead).propose(Bytes::from_static(b"last")).unwrap();
        for tick in 2_000..2_020 {
            self.turn(tick, false);
        }
        for (node, member) in &self.cluster.members {
            let last = member.state.values().next_back();
            assert_eq!(last, Some(&Bytes::from_static(b"last")), "{node}");
            assert!(member.consensus.may_vote());
        }
    }

    fn nodes(&self) -> Vec<u64> {
        self.cluster.members.keys().copied().collect()
    }
}
