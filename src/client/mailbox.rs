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
    /// A host takes what arrives.
    occupied: bool,
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

    /// Takes frames until there is no room, and drops the others. Returns how many it took.
    pub(crate) fn deliver(&self, from: NodeId, frames: impl IntoIterator<Item = Bytes>) -> usize {
        let mut state = self.state.lock();
        let mut taken = 0;
        for bytes in frames {
            // Alone, a frame is taken whatever its size, or the host would never get it.
            let waiting = state.arrivals.frames.len();
            let bytes_full = state.frame_bytes.saturating_add(bytes.len()) > self.frame_bytes_max;
            let full = waiting >= self.frames_max || (waiting > 0 && bytes_full);
            if full || state.closed.is_some() {
                break;
            }
            state.frame_bytes += bytes.len();
            state.arrivals.frames.push_back((from, bytes));
            taken += 1;
        }
        drop(state);
        if taken > 0 {
            self.arrived.notify_one();
        }
        taken
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
        } else if call.session().is_some_and(|it| it.has_unseen_overflow()) {
            (Error::Withheld, None)
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

    /// Makes it a host's, or returns `false` if it has one.
    pub(crate) fn occupy(&self) -> bool {
        !mem::replace(&mut self.state.lock().occupied, true)
    }

    /// Ends the host's next wait.
    pub(crate) fn nudge(&self) {
        self.state.lock().nudged = true;
        self.arrived.notify_one();
    }

    /// Whether nothing has arrived.
    #[cfg(feature = "sim")]
    pub(crate) fn is_quiet(&self) -> bool {
        self.state.lock().is_quiet()
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
        if !timeout.is_zero() {
            // Again and again: who is woken may be told of what was taken already.
            self.arrived.wait_while_for(&mut state, |state| state.is_quiet(), timeout);
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

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    use super::*;

    /// A frame is queued under the lock and told of after it, so a host that has found it without
    /// waiting may hear of it in its next wait. That wait ended early with nothing, which looked
    /// like a timeout to whoever takes frames, and cost a host an empty turn.
    #[test]
    fn late_news_of_a_frame_that_was_taken_does_not_end_the_next_wait() {
        let mailbox = Mailbox::new(1, 1, 1);
        let returned = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                mailbox.wait(Duration::from_secs(600));
                returned.store(true, Ordering::SeqCst);
            });
            for _ in 0..3 {
                while !mailbox.arrived.notify_one() {
                    assert!(!returned.load(Ordering::SeqCst), "it waited for nothing");
                    thread::yield_now();
                }
            }
            let peer = NodeId::new(2).expect("not 0");
            assert_eq!(mailbox.deliver(peer, ["x".into()]), 1, "there is room for one");
        });
        assert!(returned.load(Ordering::SeqCst));
    }

    #[test]
    fn takes_a_frame_above_the_bound_alone() {
        let mailbox = Mailbox::new(8, 10, 1);
        let peer = NodeId::new(2).expect("not 0");
        let deliver = |bytes: usize| mailbox.deliver(peer, [vec![1; bytes].into()]);
        assert_eq!(deliver(11), 1, "or it would never arrive");
        assert_eq!(deliver(1), 0);
        mailbox.take(&mut Arrivals::default());
        assert_eq!([9, 2, 1].map(deliver), [1, 0, 1]);
    }
}
