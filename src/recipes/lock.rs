//! A fair lock.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    op::Guard,
    path::Path,
    recipes::{
        Action, Input, Layout, State,
        contender::{Contender, Own, Phase},
    },
};

/// One contender for a lock; first come, first served.
///
/// Acquire, then feed inputs and take actions until there are none; ask [`state`](Self::state)
/// with your own clock at any time.
///
/// ```
/// use std::time::Duration;
/// use quorate::recipes::{Action, Layout, Lock, State};
/// let mut lock = Lock::new(Layout::Curator, "/locks/a".parse()?);
/// lock.acquire([7; 16], "me".into()); // 16 bytes from a good random source
/// let action = lock.action();
/// assert!(matches!(action, Some(Action::Submit(_)))); // its place in the queue
/// assert_eq!(lock.action(), None); // waits for the reply, to be fed to `handle`
/// assert_eq!(lock.state(Duration::ZERO), State::Waiting { ahead: None });
/// # Ok::<(), quorate::PathError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Lock {
    layout: Layout,
    contender: Contender,
    until: Duration,
}

impl Lock {
    /// A contender for the lock at `path`, which contends for nothing yet.
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

    /// Contends under a unique `id`: 16 bytes from a good random source, new for each call. Others
    /// can read `data`, which should say who waits.
    ///
    /// After [`State::Lost`] this is how to contend again; what is left of the old place is removed
    /// first. While it contends or holds already, nothing happens.
    pub fn acquire(&mut self, id: [u8; 16], data: Bytes) {
        self.contender.contend(self.layout.lock_prefix(id), data);
    }

    /// Gives up the lock, or the wait for it. The own node is removed even if nobody knows yet
    /// whether it was made.
    pub fn release(&mut self) {
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

    /// A guard that holds as long as this is the holder: put it on each transaction that only the
    /// holder may do. `None` while it does not hold.
    pub fn fence(&self) -> Option<Guard> {
        self.contender.held().map(Own::fence)
    }
}

pub(super) fn state(contender: &Contender, until: Duration, now: Duration) -> State {
    match contender.phase() {
        Phase::Idle | Phase::Deleting if !contender.contends() => State::Idle,
        Phase::Lost => State::Lost,
        Phase::Failed(error) => State::Failed(error.clone()),
        Phase::Held => match contender.held() {
            Some(own) if now < until => State::Held { token: own.token, until },
            Some(own) => State::Suspended { token: own.token },
            None => State::Lost,
        },
        _ => State::Waiting { ahead: contender.ahead() },
    }
}
