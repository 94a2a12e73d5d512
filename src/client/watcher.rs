//! Streams of changes: a watch, and who leads an election.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

use crate::{
    client::{Error, call::Call, mailbox::Mailbox},
    id::Zxid,
    namespace::View,
    node::WatchId,
    op::Event,
    recipes::Leadership,
};

/// The events of one transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Changes {
    /// The transaction; resume a later watch from here.
    pub zxid: Zxid,
    /// What it did, as far as the watch looks. None, if the watch only says that it has told of
    /// everything up to this transaction ([`Watch::progress_ticks`](crate::node::Watch)).
    pub events: Vec<Event>,
}

/// A watch: every change from the moment of [`view`](Self::view) on, in order, none left out.
///
/// Take them with an iterator, [`next_timeout`](Self::next_timeout) or
/// [`next_async`](Self::next_async). A slow reader costs nothing but its own delay: the node
/// hands out no more than the buffer holds and keeps the place. When the history that it would
/// need is gone, the stream ends with [`Error::WatchEnded`]: read again, and watch from there.
///
/// ```no_run
/// # fn example(client: quorate::client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use quorate::Filter;
/// let mut watcher = client.watch(Filter::Subtree("/app".parse()?), None).wait()?;
/// for changes in &mut watcher {
///     for event in changes?.events {
///         println!("{:?} {}", event.kind, event.path);
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Watcher {
    id: WatchId,
    view: View,
    cell: Arc<Stream<Changes>>,
    mailbox: Arc<Mailbox>,
    buffer: u32,
    /// Events that were taken since credit was last given back.
    taken: u32,
}

impl Watcher {
    pub(crate) fn new(
        id: WatchId,
        view: View,
        cell: Arc<Stream<Changes>>,
        mailbox: Arc<Mailbox>,
        buffer: u32,
    ) -> Self {
        Self { id, view, cell, mailbox, buffer, taken: 0 }
    }

    /// Blocks until the next change, at most for `timeout`. `None` when none came in time, and
    /// after the end.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Result<Changes, Error>> {
        let next = self.cell.take_within(Some(timeout));
        self.took(next)
    }

    /// The next change as a future; `None` after the end.
    pub fn next_async(&mut self) -> impl Future<Output = Option<Result<Changes, Error>>> + '_ {
        std::future::poll_fn(|cx| self.poll_next(cx))
    }

    /// The next change, for a `Stream` of any library; `None` after the end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Changes, Error>>> {
        match self.cell.poll_take(cx) {
            Poll::Ready(next) => Poll::Ready(self.took(next)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Asks how far the watch has come: [`Changes`] without events say so, behind all that there is
    /// to tell.
    pub fn ask_progress(&self) {
        self.mailbox.call(Call::Progress(self.id));
    }

    /// The tree when the watch was armed, as whoever watches may see it. A watch from now on tells
    /// of what comes after it; one that resumes is first told of what led there.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Gives credit back, in portions of half the buffer.
    fn took(&mut self, next: Option<Result<Changes, Error>>) -> Option<Result<Changes, Error>> {
        if let Some(Ok(changes)) = &next {
            let events = u32::try_from(changes.events.len().max(1)).unwrap_or(u32::MAX);
            self.taken = self.taken.saturating_add(events);
            if self.taken >= self.buffer.div_ceil(2) {
                self.mailbox.call(Call::Credit(self.id, self.taken));
                self.taken = 0;
            }
        }
        next
    }
}

impl Iterator for Watcher {
    type Item = Result<Changes, Error>;

    /// Blocks until the next change; `None` after the end.
    fn next(&mut self) -> Option<Self::Item> {
        let next = self.cell.take_within(None);
        self.took(next)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.mailbox.call(Call::Unwatch(self.id));
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Who leads an election: always the latest, never an older one after a newer one.
///
/// ```no_run
/// # fn example(client: quorate::client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// for leadership in client.observe(&"/app/leader".parse()?) {
///     let leadership = leadership?;
///     println!("{:?} leads with token {}", leadership.proposal, leadership.token);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Observation {
    id: u64,
    cell: Arc<Stream<Leadership>>,
    mailbox: Arc<Mailbox>,
}

impl Observation {
    pub(crate) fn new(id: u64, cell: Arc<Stream<Leadership>>, mailbox: Arc<Mailbox>) -> Self {
        Self { id, cell, mailbox }
    }

    /// Blocks until the next leadership, at most for `timeout`. `None` when none came in time, and
    /// after the end.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Result<Leadership, Error>> {
        self.cell.take_within(Some(timeout))
    }

    /// The next leadership as a future; `None` after the end.
    pub fn next_async(&mut self) -> impl Future<Output = Option<Result<Leadership, Error>>> + '_ {
        std::future::poll_fn(|cx| self.cell.poll_take(cx))
    }
}

impl Iterator for Observation {
    type Item = Result<Leadership, Error>;

    /// Blocks until the next leadership; `None` after the end.
    fn next(&mut self) -> Option<Self::Item> {
        self.cell.take_within(None)
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        self.mailbox.call(Call::Unobserve(self.id));
    }
}

impl fmt::Debug for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observation").finish_non_exhaustive()
    }
}

/// What lies between a host and the reader of a stream. Its bound is the producer's: a watch has
/// credit, an observation keeps the latest only.
pub(crate) struct Stream<T> {
    state: Mutex<StreamState<T>>,
    changed: Condvar,
}

struct StreamState<T> {
    items: VecDeque<T>,
    /// Why no more follow; `None` after it was told.
    end: Option<Error>,
    open: bool,
    waker: Option<Waker>,
}

impl<T> Stream<T> {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(StreamState {
                items: VecDeque::new(),
                end: None,
                open: true,
                waker: None,
            }),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn push(&self, item: T) {
        self.change(|state| state.items.push_back(item));
    }

    /// Replaces what was not taken yet.
    pub(crate) fn replace(&self, item: T) {
        self.change(|state| {
            state.items.clear();
            state.items.push_back(item);
        });
    }

    pub(crate) fn end(&self, why: Error) {
        self.change(|state| {
            if state.open {
                state.end = Some(why);
            }
            state.open = false;
        });
    }

    /// Nothing more follows, and nothing is wrong.
    pub(crate) fn finish(&self) {
        self.change(|state| state.open = false);
    }

    fn change(&self, change: impl FnOnce(&mut StreamState<T>)) {
        let mut state = self.state.lock();
        change(&mut state);
        let waker = state.waker.take();
        drop(state);
        self.changed.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn take_within(&self, timeout: Option<Duration>) -> Option<Result<T, Error>> {
        let mut state = self.state.lock();
        let waits = |state: &mut StreamState<T>| state.items.is_empty() && state.open;
        match timeout {
            None => self.changed.wait_while(&mut state, waits),
            Some(timeout) => {
                self.changed.wait_while_for(&mut state, waits, timeout);
            }
        }
        state.take()
    }

    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<Result<T, Error>>> {
        let mut state = self.state.lock();
        if state.items.is_empty() && state.open {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(state.take())
    }
}

impl<T> StreamState<T> {
    fn take(&mut self) -> Option<Result<T, Error>> {
        match self.items.pop_front() {
            Some(item) => Some(Ok(item)),
            None => self.end.take().map(Err),
        }
    }
}

impl<T> fmt::Debug for Stream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        write!(f, "Stream({} items, open {})", state.items.len(), state.open)
    }
}
