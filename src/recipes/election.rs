//! Leader election.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    op::{Guard, Op, Txn},
    path::Path,
    recipes::{
        Action, Input, Layout, State,
        contender::{Contender, Own},
        lock::state,
    },
};

/// One candidate of an election: the candidate that has waited longest leads.
///
/// Followers learn who leads from an [`Observer`](crate::recipes::Observer).
///
/// ```
/// use std::time::Duration;
/// use quorate::recipes::{Election, Layout, State};
/// let mut election = Election::new(Layout::Kazoo, "/app/leader".parse()?);
/// election.campaign([7; 16], "10.0.0.1:4000".into());
/// assert!(election.action().is_some());
/// assert_eq!(election.state(Duration::ZERO), State::Waiting { ahead: None });
/// assert_eq!(election.proclaim("10.0.0.1:4001".into()), None); // only a leader proclaims
/// # Ok::<(), quorate::PathError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Election {
    layout: Layout,
    contender: Contender,
    until: Duration,
}

impl Election {
    /// A candidate in the election at `path`, which does not campaign yet.
    pub fn new(layout: Layout, path: Path) -> Self {
        Self { layout, contender: Contender::new(path), until: Duration::ZERO }
    }

    /// Takes what happened.
    pub fn handle(&mut self, input: Input) {
        if let Input::Renewed(until) = input {
            self.until = self.until.max(until);
        } else {
            self.contender.handle(input);
        }
    }

    /// Stands for election under a unique `id`: 16 bytes from a good random source, new for each
    /// call. `proposal` is what observers see once it leads.
    ///
    /// After [`State::Lost`] this is how to stand again. While it stands already, nothing happens.
    pub fn campaign(&mut self, id: [u8; 16], proposal: Bytes) {
        self.contender.contend(self.layout.election_prefix(id), proposal);
    }

    /// Gives up the leadership, or the candidacy. The own node is removed even if nobody knows yet
    /// whether it was made.
    pub fn resign(&mut self) {
        self.contender.leave();
    }

    /// The next thing to do.
    #[must_use = "an action that is dropped leaves the recipe waiting for its answer"]
    pub fn action(&mut self) -> Option<Action> {
        self.contender.action()
    }

    /// Where it stands at `now` of the caller's monotonic clock, which must not run slow.
    pub fn state(&self, now: Duration) -> State {
        state(&self.contender, self.until, now)
    }

    /// The transaction that replaces the leader's proposal, or `None` when it does not lead. It
    /// changes nothing once another leads.
    pub fn proclaim(&self, proposal: Bytes) -> Option<Txn> {
        let own = self.contender.held()?;
        let set = Op::Set { path: own.path.clone(), data: proposal, version: None };
        Some(Txn::new(set).guard(own.fence()))
    }

    /// A guard that holds as long as this is the leader: put it on each transaction that only the
    /// leader may do. `None` while it does not lead.
    pub fn fence(&self) -> Option<Guard> {
        self.contender.held().map(Own::fence)
    }
}
