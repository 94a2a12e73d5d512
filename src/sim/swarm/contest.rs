//! A worker that contends for a lock, or for a leadership, and writes while it holds it.

use std::time::Duration;

use crate::{
    client::{Acquire, Completion, LeaderGuard, LockGuard, Session, Written},
    id::Zxid,
    op::{Guard, Op, Outcome, Txn},
    path::Path,
    recipes::State,
    sim::Instance,
};

/// What is contended for, and where the holder writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prize {
    pub(super) path: &'static str,
    pub(super) written: &'static str,
    pub(super) election: bool,
}

#[derive(Debug)]
pub(super) struct Contest {
    pub(super) name: String,
    prize: Prize,
    stage: Stage,
    writes: Vec<(Zxid, Completion<Written>)>,
    /// Of a guard that was given up: what is tried under it must fail.
    stale: Option<(Zxid, Guard)>,
}

#[derive(Debug)]
enum Stage {
    Idle { until: Duration },
    LockWanted(Acquire<LockGuard>),
    LeaderWanted(Acquire<LeaderGuard>),
    Holds(Held, Duration),
    Leaves(Completion<()>),
}

#[derive(Debug)]
enum Held {
    Lock(LockGuard),
    Leader(LeaderGuard),
}

impl Contest {
    pub(super) fn new(name: String, prize: Prize) -> Self {
        let stage = Stage::Idle { until: Duration::ZERO };
        Self { name, prize, stage, writes: Vec::new(), stale: None }
    }

    /// By which token it is held now, by the clock of its member.
    pub(super) fn held(&self) -> Option<Zxid> {
        let state = match &self.stage {
            Stage::Holds(Held::Lock(guard), _) => guard.state(),
            Stage::Holds(Held::Leader(guard), _) => guard.state(),
            _ => return None,
        };
        match state {
            State::Held { token, .. } => Some(token),
            _ => None,
        }
    }

    /// Goes on. Returns the writes that took effect: their zxids, and under which token.
    pub(super) fn poll(
        &mut self,
        session: Option<&Session>,
        at: &mut Instance<'_>,
    ) -> Vec<(Zxid, Zxid)> {
        let mut done = Vec::new();
        self.writes.retain_mut(|(token, write)| match write.try_take() {
            None => true,
            Some(Ok(Written { outcome: Outcome::Set { stat }, .. })) => {
                done.push((stat.mzxid, *token));
                false
            }
            Some(_) => false,
        });
        let idle = |at: &mut Instance<'_>| Stage::Idle {
            until: at.now + at.rng.between(Duration::from_millis(100), Duration::from_secs(2)),
        };
        let path = || -> Path { self.prize.path.parse().expect("valid") };
        let stage = std::mem::replace(&mut self.stage, Stage::Idle { until: Duration::ZERO });
        self.stage = match stage {
            Stage::Idle { until } if at.now >= until => match session {
                Some(session) if self.prize.election => {
                    Stage::LeaderWanted(session.campaign(&path(), self.name.clone()))
                }
                Some(session) => Stage::LockWanted(session.lock(&path())),
                None => Stage::Idle { until },
            },
            Stage::LockWanted(mut wanted) => match wanted.try_take() {
                Some(Ok(guard)) => Stage::Holds(Held::Lock(guard), leave_at(at)),
                Some(Err(_)) => idle(at),
                None => Stage::LockWanted(wanted),
            },
            Stage::LeaderWanted(mut wanted) => match wanted.try_take() {
                Some(Ok(guard)) => Stage::Holds(Held::Leader(guard), leave_at(at)),
                Some(Err(_)) => idle(at),
                None => Stage::LeaderWanted(wanted),
            },
            Stage::Holds(held, until) => self.hold(held, until, session, at),
            Stage::Leaves(mut left) => match left.try_take() {
                Some(_) => idle(at),
                None => Stage::Leaves(left),
            },
            stage => stage,
        };
        done
    }

    fn hold(
        &mut self,
        held: Held,
        until: Duration,
        session: Option<&Session>,
        at: &mut Instance<'_>,
    ) -> Stage {
        let (state, fence) = match &held {
            Held::Lock(guard) => (guard.state(), guard.fence()),
            Held::Leader(guard) => (guard.state(), guard.fence()),
        };
        let gone = matches!(state, State::Lost | State::Idle | State::Failed(_));
        if let State::Held { token, .. } | State::Suspended { token } = state {
            if self.writes.len() < 4 && at.rng.chance(20_000) {
                let txn = self.write(token);
                let write = match &held {
                    Held::Lock(guard) => guard.txn(txn),
                    Held::Leader(guard) => guard.txn(txn),
                };
                self.writes.push((token, write));
            }
            // The token of a guard that was given up must be worth nothing.
            if let (Some((token, fence)), Some(session)) = (self.stale.take(), session) {
                let late = session.txn(self.write(token).guard(fence));
                self.writes.push((token, late));
            }
            if at.now >= until {
                self.stale = Some((token, fence));
            }
        }
        if !gone && at.now < until {
            return Stage::Holds(held, until);
        }
        match held {
            _ if gone || at.rng.chance(300_000) => Stage::Idle { until: at.now },
            Held::Lock(guard) => Stage::Leaves(guard.release()),
            Held::Leader(guard) => Stage::Leaves(guard.resign()),
        }
    }

    fn write(&self, token: Zxid) -> Txn {
        let path = self.prize.written.parse().expect("valid");
        let data = token.as_u64().to_string().into();
        Op::Set { path, data, version: None }.into()
    }
}

fn leave_at(at: &mut Instance<'_>) -> Duration {
    at.now + at.rng.between(Duration::from_millis(50), Duration::from_secs(3))
}
