//! Why a node's consensus has ended, and what its operator is to do.

use std::fmt;

use crate::id::NodeId;

/// A fault of our own state: from here on no vote, no acknowledgement, no proposal, no read.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub(crate) enum Ended {
    /// A leader knows that this node had entries which it has no more.
    LogLost {
        /// The leader.
        leader: NodeId,
        /// What the leader knows this node to have had.
        commit: u64,
        /// Where the log ends.
        last_index: u64,
    },
    /// What is committed here is not what is committed elsewhere.
    Divergence(Divergence),
    /// Something durable, or committed, cannot be what this code wrote.
    Corrupt {
        /// What, and where.
        what: String,
    },
    /// raft panicked: a bug, caught as the last belt.
    Panicked {
        /// What was being done.
        during: &'static str,
        /// What the panic said.
        message: String,
    },
}

/// Two truths about the same thing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub(crate) enum Divergence {
    /// Two nodes lead in one term.
    TwoLeaders {
        /// The term.
        term: u64,
        /// Who was known to lead in it.
        known: NodeId,
        /// Who leads in it now.
        other: NodeId,
    },
    /// A leader has another entry where this node's is committed.
    Committed {
        /// The entry.
        index: u64,
        /// Its term here.
        local_term: u64,
        /// Its term at the leader.
        leader_term: u64,
        /// The leader.
        leader: NodeId,
    },
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LogLost { leader, commit, last_index } => write!(
                f,
                "leader {leader} knows that this node had the log up to {commit}, but it ends at \
                 {last_index}: durable entries were lost; {REJOIN}"
            ),
            Self::Divergence(divergence) => write!(f, "{divergence}; {REJOIN}"),
            Self::Corrupt { what } => write!(f, "{what}; {REJOIN}"),
            Self::Panicked { during, message } => write!(
                f,
                "raft panicked during {during}: {message}; restart the node, and please report \
                 this as a bug"
            ),
        }
    }
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TwoLeaders { term, known, other } => {
                write!(f, "both {known} and {other} lead in term {term}: a vote was lost or forged")
            }
            Self::Committed { index, local_term, leader_term, leader } => write!(
                f,
                "entry {index} is committed here with term {local_term}, and has term \
                 {leader_term} at leader {leader}"
            ),
        }
    }
}

const REJOIN: &str = "remove this member, and let its store rejoin empty under a new id";
