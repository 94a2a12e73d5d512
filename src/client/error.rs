//! Why a request of a handle did not do what it asked.

use std::time::Duration;

use thiserror::Error;

use crate::{
    id::SessionId,
    node::{Detach, RequestError, SubmitError, Unknown, WatchEnd},
    op::OpError,
    recipes::Failure,
};

/// Why a request did not do what it asked. Ask it two things: may it be tried again, and may it
/// have taken effect?
///
/// ```
/// use quorate::client::Error;
/// use quorate::node::{RequestError, Unknown};
/// let error = Error::from(RequestError::Unknown(Unknown::TimedOut));
/// assert!(error.outcome_unknown() && !error.is_retryable());
/// assert!(Error::from(RequestError::NoLeader).is_retryable());
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The node did not take it. Nothing happened, and nothing will.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The node took it, and it came to nothing, or nobody knows.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Not sent, because an earlier write of this session was refused, and nobody had looked at its
    /// answer when this one was submitted. So what was sent has no holes that the application does
    /// not know of.
    #[error("not sent: an earlier write was refused, and its answer was not looked at")]
    Withheld,
    /// Not sent: the session is over.
    #[error("session {session} is over: {cause}")]
    SessionOver {
        /// The session.
        session: SessionId,
        /// Why.
        cause: Detach,
    },
    /// The watch is over.
    #[error("the watch is over: {0}")]
    WatchEnded(WatchEnd),
    /// The place in the queue was lost before its turn came.
    #[error("the place in the queue was lost")]
    PlaceLost,
    /// The host's inbox is full: it has too much to do.
    #[error("the inbox is full: it takes {max} requests")]
    Full {
        /// How many it takes.
        max: usize,
    },
    /// The system gave no random bytes for a secret or a recipe's id.
    #[error("the system gives no random bytes: {why}")]
    NoRandomness {
        /// What it said.
        why: String,
    },
    /// The node was stopped, or has ended: ask at another one. What was not submitted did nothing.
    #[error("the node is gone: {why}")]
    Closed {
        /// Why.
        why: String,
        /// Whether the request had been submitted before.
        submitted: bool,
    },
    /// The answer was taken before.
    #[error("the answer was taken before")]
    Taken,
}

impl Error {
    /// Whether the request did nothing and may simply be asked again with the same handle, perhaps
    /// after a while. A node that is gone answers `false`: ask at another one.
    ///
    /// False when the [outcome is unknown](Self::outcome_unknown): a repeat might do the same thing
    /// twice. Look first what became of it, or guard the repeat by a version.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Submit(error) => error.is_retryable(),
            Self::Request(error) => error.is_retryable(),
            Self::Closed { .. } => false,
            Self::Withheld | Self::Full { .. } | Self::NoRandomness { .. } => true,
            Self::PlaceLost => true,
            Self::WatchEnded(_) | Self::SessionOver { .. } | Self::Taken => false,
        }
    }

    /// How long to wait before the same request is taken, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Submit(error) => error.retry_after(),
            _ => None,
        }
    }

    /// Whether the request may have taken effect, now or later.
    pub fn outcome_unknown(&self) -> bool {
        match self {
            Self::Request(error) => error.outcome_unknown(),
            Self::Closed { submitted, .. } => *submitted,
            _ => false,
        }
    }

    /// The refusal of the replicated state machine, if it is one.
    ///
    /// ```
    /// use quorate::{OpError, client::Error, node::RequestError};
    /// let error = Error::from(RequestError::from(OpError::Root));
    /// assert_eq!(error.op(), Some(&OpError::Root));
    /// ```
    pub fn op(&self) -> Option<&OpError> {
        match self {
            Self::Request(RequestError::Op(error)) => Some(error),
            _ => None,
        }
    }

    /// The outcome of a request that was under way when its session ended.
    pub(crate) fn session_ended() -> Self {
        Self::Request(RequestError::Unknown(Unknown::SessionEnded))
    }
}

impl From<SubmitError> for Failure {
    /// What a refusal is to a recipe: one that would come again is the cluster's.
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Limit { limit, value, max } => {
                Self::Op(OpError::Limit { limit, value, max })
            }
            _ => Self::NotDone,
        }
    }
}

impl From<RequestError> for Failure {
    /// What a failed request is to a recipe that asked for it.
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Op(error) => Self::Op(error),
            error if error.outcome_unknown() => Self::Unknown,
            _ => Self::NotDone,
        }
    }
}
