//! Leases: no session ends before the moment that its owner was promised, and those of owners that
//! are gone end in time.

use std::{collections::BTreeMap, time::Duration};

use crate::id::{NodeId, SessionId};

/// What owners were promised.
#[derive(Debug, Default)]
pub struct Leases {
    promised: BTreeMap<SessionId, Promise>,
    /// Of owners that are gone, and since when.
    orphans: BTreeMap<SessionId, Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Promise {
    node: NodeId,
    /// On the clock of its member, in that life of it.
    until: Duration,
    life: u64,
}

impl Leases {
    /// Nobody has a session.
    pub fn new() -> Self {
        Self::default()
    }

    /// The owner on `node` was promised that its session lives until then, on its own clock.
    pub fn promised(&mut self, session: SessionId, node: NodeId, life: u64, until: Duration) {
        self.orphans.remove(&session);
        self.promised.insert(session, Promise { node, until, life });
    }

    /// The owner has closed it itself, or knows that it is over.
    pub fn over(&mut self, session: SessionId) {
        self.promised.remove(&session);
    }

    /// The process on `node` is gone since `at`, and with it whoever was promised anything.
    pub fn gone(&mut self, node: NodeId, at: Duration) {
        self.promised.retain(|session, promise| {
            let gone = promise.node == node;
            if gone {
                self.orphans.insert(*session, at);
            }
            !gone
        });
    }

    /// Whether a session that was promised to live does: `lives` says whether the cluster has it,
    /// `clock` what the clock of a member shows and in which life.
    ///
    /// # Errors
    ///
    /// Which one has ended too early.
    pub fn check(
        &self,
        mut lives: impl FnMut(SessionId) -> bool,
        clock: impl Fn(NodeId) -> Option<(u64, Duration)>,
    ) -> Result<(), String> {
        for (&session, promise) in &self.promised {
            let Some((life, now)) = clock(promise.node) else {
                continue;
            };
            if life == promise.life && now < promise.until && !lives(session) {
                return Err(format!(
                    "session {session} has ended at {now:?} of member {}, which was promised {:?}",
                    promise.node, promise.until
                ));
            }
        }
        Ok(())
    }

    /// The sessions of owners that were gone by `then`.
    pub fn orphans(&self, then: Duration) -> Vec<SessionId> {
        let gone = self.orphans.iter().filter(|(_, since)| **since <= then);
        gone.map(|(session, _)| *session).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_early_end_is_seen() {
        let mut it = Leases::new();
        let session = SessionId::new(7).unwrap();
        let node = NodeId::new(1).unwrap();
        it.promised(session, node, 1, Duration::from_secs(5));
        let clock = |secs| move |_| Some((1, Duration::from_secs(secs)));
        assert!(it.check(|_| true, clock(4)).is_ok());
        assert!(it.check(|_| false, clock(5)).is_ok());
        assert!(it.check(|_| false, clock(4)).is_err());
        assert!(it.check(|_| false, |_| Some((2, Duration::ZERO))).is_ok(), "another life");
        it.gone(node, Duration::from_secs(6));
        assert!(it.check(|_| false, clock(4)).is_ok());
        assert_eq!(it.orphans(Duration::from_secs(6)), [session]);
        assert_eq!(it.orphans(Duration::from_secs(5)), []);
    }
}
