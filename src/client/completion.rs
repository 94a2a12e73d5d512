//! An answer that is under way: wait for it, or await it.
//!
//! One allocation for each request, and no system call when nobody waits. A thread that waits is
//! woken like a task: by a waker, so that a host can fill many answers first and wake for them
//! then.

use std::{
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Poll, Wake, Waker},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

use crate::client::Error;

/// The answer to a request, when it comes.
///
/// A request takes its course whether or not anybody waits: dropping this undoes nothing.
///
/// Tasks are woken on the node's thread, which waits meanwhile: a waker that blocks stalls the
/// node. Those of the usual runtimes only put the task into a queue.
///
/// An answer always comes: at the latest after [`Limits::request_ticks_max`] (10 s unless set
/// otherwise), while there is no leader for instance. There is no need to wait for a leader before
/// the first request.
///
/// [`Limits::request_ticks_max`]: crate::Limits::request_ticks_max
///
/// ```no_run
/// # fn example(client: quorate::client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let first = client.set(&"/a".parse()?, "1", None);
/// let second = client.set(&"/b".parse()?, "2", None); // both are under way
/// first.wait()?; // or `first.await?` on any runtime
/// second.wait()?;
/// # Ok(())
/// # }
/// ```
#[must_use = "the answer says whether the request did what it asked"]
pub struct Completion<T> {
    state: Half<T>,
}

enum Half<T> {
    Ready(Option<Result<T, Error>>),
    Pending(Arc<Slot<T>>),
}

impl<T> Completion<T> {
    pub(crate) fn ready(result: Result<T, Error>) -> Self {
        Self { state: Half::Ready(Some(result)) }
    }

    /// A completion and the promise that fills it.
    pub(crate) fn pair() -> (Self, Promise<T>) {
        let slot = Arc::new(Slot { state: Mutex::new(State::Waiting(None)) });
        let promise = Promise { slot: Some(Arc::clone(&slot)), submitted: false };
        let state = Half::Pending(slot);
        (Self { state }, promise)
    }

    /// Blocks until the answer is there. It always comes: a node that ends answers everything.
    ///
    /// # Errors
    ///
    /// Why the request did not do what it asked; see [`Error::outcome_unknown`].
    pub fn wait(mut self) -> Result<T, Error> {
        self.take_within(None).unwrap_or(Err(Error::Taken))
    }

    /// Blocks until the answer is there, at most for `timeout`; `None` when it is not, and the
    /// request goes on.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Option<Result<T, Error>> {
        self.take_within(Some(timeout))
    }

    /// The answer, if it is there; `None` also when it was taken before.
    pub fn try_take(&mut self) -> Option<Result<T, Error>> {
        self.take_within(Some(Duration::ZERO))
    }

    /// Whether the answer is there, or was taken.
    pub fn is_done(&self) -> bool {
        match &self.state {
            Half::Ready(_) => true,
            Half::Pending(slot) => !matches!(*slot.state.lock(), State::Waiting(_)),
        }
    }

    fn take_within(&mut self, timeout: Option<Duration>) -> Option<Result<T, Error>> {
        let slot = match &mut self.state {
            Half::Ready(result) => return result.take(),
            Half::Pending(slot) => slot,
        };
        if timeout != Some(Duration::ZERO) {
            slot.park(timeout);
        }
        slot.state.lock().take()
    }
}

impl<T> Future for Completion<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        let slot = match &mut self.state {
            Half::Ready(result) => return Poll::Ready(result.take().unwrap_or(Err(Error::Taken))),
            Half::Pending(slot) => slot,
        };
        let mut state = slot.state.lock();
        match &mut *state {
            State::Waiting(waker) => {
                if !waker.as_ref().is_some_and(|it| it.will_wake(cx.waker())) {
                    *waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
            _ => Poll::Ready(state.take().unwrap_or(Err(Error::Taken))),
        }
    }
}

// Nothing in it is pinned.
impl<T> Unpin for Completion<T> {}

impl<T> fmt::Debug for Completion<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion").field("done", &self.is_done()).finish()
    }
}

/// The other end of a [`Completion`]; dropped unfilled, it says that the node has ended.
pub(crate) struct Promise<T> {
    slot: Option<Arc<Slot<T>>>,
    submitted: bool,
}

impl<T> Promise<T> {
    /// From here on nobody knows what becomes of the request, until it is answered.
    pub(crate) fn submitted(&mut self) {
        self.submitted = true;
    }

    pub(crate) fn fill(self, result: Result<T, Error>) {
        self.fill_adopting(result, None);
    }

    /// Says that the node is gone.
    pub(crate) fn close(self, why: &str) {
        let (why, submitted) = (why.to_owned(), self.submitted);
        self.fill(Err(Error::Closed { why, submitted }));
    }

    /// Fills it; whoever looks at the answer, or drops it, adopts the generation.
    pub(crate) fn fill_adopting(mut self, result: Result<T, Error>, adopt: Option<Adopt>) {
        if let Some(waker) = self.slot.take().and_then(|slot| slot.fill(result, adopt)) {
            wake(waker);
        }
    }

    /// Fills it, and wakes who waits for it later, with the others.
    pub(crate) fn fill_quietly(mut self, result: Result<T, Error>, wakers: &mut Vec<Waker>) {
        wakers.extend(self.slot.take().and_then(|slot| slot.fill(result, None)));
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            let submitted = self.submitted;
            let why = "the node was stopped".into();
            if let Some(waker) = slot.fill(Err(Error::Closed { why, submitted }), None) {
                wake(waker);
            }
        }
    }
}

impl<T> fmt::Debug for Promise<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Promise(submitted {})", self.submitted)
    }
}

/// Wakes a task. Its waker is code of the application's runtime: when it panics, the panic hook has
/// told of it, and the node goes on.
pub(crate) fn wake(waker: Waker) {
    let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
}

/// Moves a session's handle on to this generation when it is dropped (ARCHITECTURE.md, rule 7): the
/// application has seen the refusal, so what it submits from now on knows of it.
#[derive(Debug)]
pub(crate) struct Adopt {
    pub(crate) handle: Arc<AtomicU64>,
    pub(crate) generation: u64,
}

impl Drop for Adopt {
    fn drop(&mut self) {
        self.handle.fetch_max(self.generation, Ordering::AcqRel);
    }
}

struct Slot<T> {
    state: Mutex<State<T>>,
}

enum State<T> {
    Waiting(Option<Waker>),
    Done(Result<T, Error>, Option<Adopt>),
    Taken,
}

/// A thread that waits.
#[derive(Default)]
struct Parked {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        *self.woken.lock() = true;
        self.changed.notify_one();
    }
}

impl<T> Slot<T> {
    fn fill(&self, result: Result<T, Error>, adopt: Option<Adopt>) -> Option<Waker> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, State::Done(result, adopt)) {
            State::Waiting(waker) => waker,
            State::Done(..) | State::Taken => None,
        }
    }

    /// Blocks until it is filled, at most for `timeout`.
    fn park(&self, timeout: Option<Duration>) {
        let mut state = self.state.lock();
        let State::Waiting(waker) = &mut *state else {
            return;
        };
        let parked = Arc::new(Parked::default());
        *waker = Some(Arc::clone(&parked).into());
        drop(state);
        let mut woken = parked.woken.lock();
        let asleep = |woken: &mut bool| !*woken;
        match timeout {
            None => parked.changed.wait_while(&mut woken, asleep),
            Some(timeout) => {
                parked.changed.wait_while_for(&mut woken, asleep, timeout);
            }
        }
    }
}

impl<T> State<T> {
    fn take(&mut self) -> Option<Result<T, Error>> {
        if matches!(self, Self::Waiting(_)) {
            return None;
        }
        match std::mem::replace(self, Self::Taken) {
            Self::Done(result, _adopted) => Some(result),
            Self::Waiting(_) | Self::Taken => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::AtomicUsize,
        task::{Context, Wake},
        thread,
    };

    use super::*;

    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a completion is waited for by another thread")]
    fn a_thread_waits_and_is_woken_once_filled() {
        let pairs: Vec<_> = (0..100).map(|_| Completion::<u64>::pair()).collect();
        let (completions, promises): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let waiter = thread::spawn(move || {
            let waits = completions.into_iter().map(Completion::wait);
            waits.map(Result::unwrap).sum::<u64>()
        });
        for promise in promises {
            promise.fill(Ok(2));
        }
        assert_eq!(waiter.join().unwrap(), 200);
    }

    #[test]
    fn a_future_is_woken_and_gives_its_answer_once() {
        let (mut completion, promise) = Completion::<u64>::pair();
        let counter = Arc::new(Counter(AtomicUsize::new(0)));
        let waker = Arc::clone(&counter).into();
        let mut cx = Context::from_waker(&waker);
        assert!(Pin::new(&mut completion).poll(&mut cx).is_pending());
        assert_eq!(completion.try_take(), None);
        promise.fill(Ok(7));
        assert_eq!(counter.0.load(Ordering::SeqCst), 1);
        assert_eq!(Pin::new(&mut completion).poll(&mut cx), Poll::Ready(Ok(7)));
        assert_eq!(Pin::new(&mut completion).poll(&mut cx), Poll::Ready(Err(Error::Taken)));
    }

    #[test]
    fn a_timeout_leaves_the_request_under_way() {
        let (mut completion, promise) = Completion::<u64>::pair();
        assert_eq!(completion.wait_timeout(Duration::from_millis(1)), None);
        promise.fill(Ok(1));
        let answer = completion.wait_timeout(Duration::from_secs(10));
        assert_eq!(answer, Some(Ok(1)));
    }

    #[test]
    fn a_dropped_promise_answers_and_says_whether_the_outcome_is_known() {
        let (completion, promise) = Completion::<u64>::pair();
        drop(promise);
        let error = completion.wait().expect_err("nobody answered");
        assert!(!error.outcome_unknown(), "{error}");
        let (completion, mut promise) = Completion::<u64>::pair();
        promise.submitted();
        drop(promise);
        let error = completion.wait().expect_err("nobody answered");
        assert!(error.outcome_unknown(), "{error}");
    }

    #[test]
    fn a_refusal_is_adopted_when_the_application_looks_at_it_or_drops_it() {
        for look in [true, false] {
            let handle = Arc::new(AtomicU64::new(0));
            let (mut completion, promise) = Completion::<u64>::pair();
            let adopt = Adopt { handle: Arc::clone(&handle), generation: 3 };
            promise.fill_adopting(Err(Error::Withheld), Some(adopt));
            assert!(completion.is_done());
            assert_eq!(handle.load(Ordering::SeqCst), 0, "not seen yet");
            if look {
                assert_eq!(completion.try_take(), Some(Err(Error::Withheld)));
            } else {
                drop(completion);
            }
            assert_eq!(handle.load(Ordering::SeqCst), 3);
        }
    }
}
