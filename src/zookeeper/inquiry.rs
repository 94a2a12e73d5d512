//! What is asked of the node for whoever asks the listener about it.
//!
//! One inquiry is out; what is asked meanwhile goes with the next one. So however many ask, the
//! node answers one at a time.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake},
};

use mio::Waker;

use crate::{
    client::{Client, Completion, Error},
    namespace::View,
    node::Status,
    op::Identities,
    zookeeper::words::Word,
};

/// The words that wait for the node.
pub(super) struct Inquiries {
    client: Client,
    waker: std::task::Waker,
    /// By whom, in the order in which they came.
    waiting: Vec<(u64, Word)>,
    out: Option<Inquiry>,
}

struct Inquiry {
    words: Vec<(u64, Word)>,
    status: Asked<Status>,
    /// Only for words that need it: while views are asked for, writes are dearer.
    view: Option<Asked<View>>,
}

enum Asked<T> {
    Waits(Completion<T>),
    Done(Result<T, Error>),
}

/// What the node said.
pub(super) struct Findings {
    pub(super) words: Vec<(u64, Word)>,
    pub(super) status: Result<Status, Error>,
    pub(super) view: Option<View>,
}

impl Inquiries {
    pub(super) fn new(client: &Client, waker: &Arc<Waker>) -> Self {
        let client = client.with_identities(Identities::superuser());
        let waker = Arc::new(Wakes(Arc::clone(waker))).into();
        Self { client, waker, waiting: Vec::new(), out: None }
    }

    pub(super) fn ask(&mut self, connection: u64, word: Word) {
        self.waiting.push((connection, word));
    }

    /// What there is, when the node has answered; asks what waits, when nothing is out.
    pub(super) fn poll(&mut self) -> Option<Findings> {
        if self.out.is_none() && !self.waiting.is_empty() {
            let words = std::mem::take(&mut self.waiting);
            let looks = words.iter().any(|(_, word)| *word == Word::Dump);
            let status = Asked::Waits(self.client.status());
            let view = looks.then(|| Asked::Waits(self.client.view()));
            self.out = Some(Inquiry { words, status, view });
        }
        let mut inquiry = self.out.take()?;
        let mut context = Context::from_waker(&self.waker);
        let known = inquiry.status.poll(&mut context);
        let seen = inquiry.view.as_mut().is_none_or(|view| view.poll(&mut context));
        if !(known && seen) {
            self.out = Some(inquiry);
            return None;
        }
        let status = inquiry.status.done()?;
        let view = inquiry.view.and_then(Asked::done).and_then(Result::ok);
        Some(Findings { words: inquiry.words, status, view })
    }

    /// Whether something waits that could be asked now.
    pub(super) fn has_more(&self) -> bool {
        self.out.is_none() && !self.waiting.is_empty()
    }
}

impl<T> Asked<T> {
    /// Whether it is answered; else the waker is called then.
    fn poll(&mut self, context: &mut Context<'_>) -> bool {
        if let Self::Waits(answer) = self {
            match Pin::new(answer).poll(context) {
                Poll::Ready(result) => *self = Self::Done(result),
                Poll::Pending => return false,
            }
        }
        true
    }

    fn done(self) -> Option<Result<T, Error>> {
        match self {
            Self::Done(result) => Some(result),
            Self::Waits(_) => None,
        }
    }
}

/// Ends the wait of the listener's thread.
struct Wakes(Arc<Waker>);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        let _ = self.0.wake();
    }
}
