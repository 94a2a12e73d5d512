//! The threads of one transport: counted, told to stop, and waited for.
#![expect(clippy::disallowed_methods, reason = "this room owns the threads that sit on sockets")]

use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

/// Counts threads.
///
/// Invariant: after `stop`, every thread that does not dial ends without further help.
#[derive(Debug, Default)]
pub(super) struct Threads {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stopping: bool,
    live: usize,
    /// Threads that resolve or connect: nothing can interrupt that, so nobody waits for them.
    dialing: usize,
}

impl Threads {
    /// Runs `work` on a thread of its own.
    ///
    /// # Errors
    ///
    /// What the system says when it has no thread left.
    pub(super) fn spawn(
        self: &Arc<Self>,
        name: String,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        self.state.lock().live += 1;
        let live = Live(self.clone());
        let thread = thread::Builder::new().name(name).stack_size(STACK_BYTES);
        thread.spawn(move || {
            let _live = live;
            work();
        })?;
        Ok(())
    }

    /// Runs what cannot be interrupted.
    pub(super) fn dialing<T>(&self, work: impl FnOnce() -> T) -> T {
        self.state.lock().dialing += 1;
        self.changed.notify_all();
        let result = work();
        self.state.lock().dialing -= 1;
        result
    }

    pub(super) fn stop(&self) {
        self.state.lock().stopping = true;
        self.changed.notify_all();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.state.lock().stopping
    }

    /// Waits for `pause`, or until it is time to stop.
    pub(super) fn pause(&self, pause: Duration) {
        let mut state = self.state.lock();
        // Threads that begin or end wake it, too.
        self.changed.wait_while_for(&mut state, |state| !state.stopping, pause);
    }

    /// Waits until the threads ended; `false` when some live on after `timeout`.
    pub(super) fn wait(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.state.lock();
        while state.live > state.dialing {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                return state.live <= state.dialing;
            }
        }
        true
    }

    #[cfg(test)]
    pub(super) fn live(&self) -> usize {
        self.state.lock().live
    }
}

/// One thread, for as long as it lives, a panic included.
struct Live(Arc<Threads>);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.state.lock().live -= 1;
        self.0.changed.notify_all();
    }
}

/// Nothing here recurses or keeps large values on the stack.
const STACK_BYTES: usize = 256 << 10;
