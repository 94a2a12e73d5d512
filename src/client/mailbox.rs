//! Where a host finds what arrived for it: frames from other members, and calls from handles.
//!
//! One lock and one condition variable: a host that is busy is never woken, and takes everything
//! that has arrived in one go. Invariant: once it is closed nothing stays in it, so that no promise
//! is leaked.

use std::{collections::VecDeque, mem, time::Duration};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::{
    client::{Error, call::Call},
    id::NodeId,
};

#[derive(Debug)]
pub(crate) struct Mailbox {
    state: Mutex<State>,
    arrived: Condvar,
    frames_max: usize,
    frame_bytes_max: usize,
    calls_max: usize,
}

#[derive(Debug, Default)]
struct State {
    arrivals: Arrivals,
    frame_bytes: usize,
    /// Somebody wants a turn, though there is nothing to take.
    nudged: bool,
    stopped: bool,
    /// Why nothing more is taken.
    closed: Option<String>,
}

/// What has arrived, in order.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    pub(crate) frames: VecDeque<(NodeId, Bytes)>,
    pub(crate) calls: VecDeque<Call>,
}

impl Mailbox {
    pub(crate) fn new(frames_max: usize, frame_bytes_max: usize, calls_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            arrived: Condvar::new(),
            frames_max,
            frame_bytes_max,
            calls_max,
        }
    }

    /// Takes a frame, or drops it.
    pub(crate) fn deliver(&self, from: NodeId, bytes: Bytes) -> bool {
        let mut state = self.state.lock();
        let full = state.arrivals.frames.len() >= self.frames_max
            || state.frame_bytes.saturating_add(bytes.len()) > self.frame_bytes_max;
        if full || state.closed.is_some() {
            return false;
        }
        state.frame_bytes += bytes.len();
        state.arrivals.frames.push_back((from, bytes));
        drop(state);
        self.arrived.notify_one();
        true
    }

    /// Takes a call, or answers it with why not.
    ///
    /// Once a write of a session was refused, none is taken behind it until the application has
    /// seen that (ARCHITECTURE.md, rule 7).
    pub(crate) fn call(&self, call: Call) {
        let mut state = self.state.lock();
        let (error, adopt) = if let Some(why) = &state.closed {
            let (why, submitted) = (why.clone(), false);
            (Error::Closed { why, submitted }, None)
        } else if let Some(adopt) = call.session().and_then(|it| it.unseen_overflow()) {
            (Error::Withheld, Some(adopt))
        } else if state.arrivals.calls.len() >= self.calls_max && call.is_bounded() {
            let max = self.calls_max;
            // Under the lock: what comes next must know of it.
            (Error::Full { max }, call.session().map(|it| it.overflow()))
        } else {
            state.arrivals.calls.push_back(call);
            drop(state);
            self.arrived.notify_one();
            return;
        };
        drop(state);
        call.refuse_adopting(error, adopt);
    }

    /// Ends the host's next wait.
    pub(crate) fn nudge(&self) {
        self.state.lock().nudged = true;
        self.arrived.notify_one();
    }

    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.arrived.notify_one();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    /// Waits until something has arrived, at most for `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) {
        let mut state = self.state.lock();
        if state.is_quiet() && !timeout.is_zero() {
            self.arrived.wait_for(&mut state, timeout);
        }
        state.nudged = false;
    }

    /// Swaps what has arrived for `empty`, whose buffers are used again.
    pub(crate) fn take(&self, empty: &mut Arrivals) {
        let mut state = self.state.lock();
        state.frame_bytes = 0;
        mem::swap(&mut state.arrivals, empty);
    }

    /// Takes nothing more, and answers what is in it.
    pub(crate) fn close(&self, why: &str) {
        let mut state = self.state.lock();
        state.closed.get_or_insert_with(|| why.to_owned());
        let arrivals = mem::take(&mut state.arrivals);
        drop(state);
        for call in arrivals.calls {
            let (why, submitted) = (why.to_owned(), false);
            call.refuse(Error::Closed { why, submitted });
        }
    }
}

impl State {
    fn is_quiet(&self) -> bool {
        let empty = self.arrivals.frames.is_empty() && self.arrivals.calls.is_empty();
        empty && !self.nudged && !self.stopped
    }
}
