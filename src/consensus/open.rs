//! How consensus starts: from what the disk gave back, checked before raft sees it.
//!
//! raft takes what it is given here as durable (ARCHITECTURE.md, H5), so the log must have been
//! synced before it was read; and it panics on what does not fit together (C1).

use raft::{ReadOnlyOption, eraftpb};
use slog::{Drain as _, Level, LevelFilter, Logger};
use thiserror::Error;

use crate::{
    id::NodeId,
    mutant::Mutant,
    wire::{HardState, LogEntry, SnapshotMeta},
};

use super::{convert, membership::Members, storage::TailStore, validate::NUMBER_END};

/// How a member's consensus is set up.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) id: NodeId,
    pub(crate) seed: u64,
    pub(crate) election_ticks: u32,
    pub(crate) heartbeat_ticks: u32,
    /// Bytes of entries in one message, unless one entry is larger.
    pub(crate) message_bytes_max: usize,
    /// Messages to a follower that wait for its answer.
    pub(crate) inflight_max: usize,
    /// Bytes of entries that are proposed and not committed.
    pub(crate) uncommitted_bytes_max: usize,
    /// Bytes of committed entries in one drain, unless one entry is larger.
    pub(crate) committed_bytes_max: usize,
    pub(crate) logger: Logger,
}

impl Options {
    /// Where raft logs. Its debug records hold whole messages, and with them what clients write and
    /// who they are.
    pub(super) fn logger_for_raft(&self) -> Logger {
        let drain = LevelFilter::new(self.logger.clone(), Level::Info);
        Logger::root(drain.ignore_res(), slog::o!())
    }

    pub(super) fn to_raft(&self, applied: u64) -> Result<raft::Config, OpenError> {
        let uncommitted = self.uncommitted_bytes_max as u64;
        let config = raft::Config {
            id: self.id.as_u64(),
            election_tick: self.election_ticks as usize,
            heartbeat_tick: self.heartbeat_ticks as usize,
            applied,
            // raft asks for this order; a leader never sends more than it may hold.
            max_size_per_msg: (self.message_bytes_max as u64).min(uncommitted),
            max_inflight_msgs: self.inflight_max,
            check_quorum: true,
            pre_vote: true,
            // A lease holds only while clocks and pauses behave; a round of heartbeats always.
            read_only_option: match Mutant::ReadUnconfirmed.active() {
                true => ReadOnlyOption::LeaseBased,
                false => ReadOnlyOption::Safe,
            },
            batch_append: true,
            // One electable node with the log must be enough, so all are equal.
            priority: 0,
            max_uncommitted_size: uncommitted,
            // One drain joins what raft hands out before, with and after a Ready.
            max_committed_size_per_ready: (self.committed_bytes_max as u64 / 3).max(1),
            ..raft::Config::default()
        };
        match config.validate() {
            _ if self.committed_bytes_max == 0 || self.message_bytes_max == 0 => {
                Err(OpenError::Options("a size is 0".into()))
            }
            _ if self.election_ticks > u32::MAX / 2 => {
                Err(OpenError::Options("the election timeout is too long".into()))
            }
            Ok(()) => Ok(config),
            Err(error) => Err(OpenError::Options(error.to_string())),
        }
    }
}

/// What the disk gave back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RestoredLog {
    pub(crate) hard_state: HardState,
    /// The current snapshot; index 0 and nobody in a member that has nothing yet.
    pub(crate) snapshot: SnapshotMeta,
    /// Contiguous; from the one after the snapshot, or from one that the snapshot covers.
    pub(crate) entries: Vec<LogEntry>,
    /// False after a damaged last record was cut off that may have been acknowledged.
    pub(crate) may_vote: bool,
}

/// Why consensus does not start.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub(crate) enum OpenError {
    /// The set-up is not possible.
    #[error("raft refuses the set-up: {0}")]
    Options(String),
    /// Without a snapshot there is no log.
    #[error("there is a log (hard state {hard_state:?}, {entries} entries) but no snapshot")]
    NoSnapshot {
        /// The hard state.
        hard_state: HardState,
        /// How many entries there are.
        entries: usize,
    },
    /// The snapshot names no possible members, or has no possible place in a log.
    #[error("the snapshot at {index} (term {term}) is not one that a cluster starts from")]
    Snapshot {
        /// Its index.
        index: u64,
        /// Its term.
        term: u64,
    },
    /// The entries do not follow on each other, or on the snapshot.
    #[error("entry {index} (term {term}) follows entry {previous_index} (term {previous_term})")]
    Entries {
        /// The entry.
        index: u64,
        /// Its term.
        term: u64,
        /// The one before it.
        previous_index: u64,
        /// Its term.
        previous_term: u64,
    },
    /// The hard state knows of commits that the log does not have.
    #[error("entries up to {commit} were committed, but the log ends at {last_index}")]
    CommitLost {
        /// What was committed.
        commit: u64,
        /// Where the log ends.
        last_index: u64,
    },
    /// The hard state has numbers that no member writes.
    #[error("no member writes the hard state {0:?}")]
    HardState(HardState),
    /// raft refuses to start, which the checks before it should have found.
    #[error("raft refuses to start: {0}")]
    Raft(String),
}

impl RestoredLog {
    /// Checks everything, and gives raft's view of it and the hard state to go on from.
    pub(super) fn into_store(self) -> Result<(TailStore, HardState), OpenError> {
        let HardState { term, vote, .. } = self.hard_state;
        if term >= NUMBER_END || vote >= NUMBER_END {
            return Err(OpenError::HardState(self.hard_state));
        }
        let snapshot = (self.snapshot.index, self.snapshot.term);
        let members = self.members()?;
        let (base, entries) = tail(snapshot, self.entries)?;
        let last = entries.last().map_or(base, |last| (last.index, last.term));
        let hard_state = raise(self.hard_state, snapshot, last)?;
        let start = eraftpb::HardState {
            term: hard_state.term,
            vote: hard_state.vote,
            commit: hard_state.commit,
            ..eraftpb::HardState::default()
        };
        // What the snapshot covers counts as applied; members are known from there on.
        let mut store = TailStore::new(base, (base.0, Members::default()), start);
        store.append(entries.into_iter().map(convert::entry_to_raft).collect());
        store.restore_members(snapshot.0, members);
        Ok((store, hard_state))
    }

    fn members(&self) -> Result<Members, OpenError> {
        let meta = &self.snapshot;
        if meta.index == 0 {
            let bare = meta.term == 0 && meta.voters.is_empty() && meta.learners.is_empty();
            if bare && self.entries.is_empty() && self.hard_state.commit == 0 {
                return Ok(Members::default());
            }
            return Err(OpenError::NoSnapshot {
                hard_state: self.hard_state,
                entries: self.entries.len(),
            });
        }
        let in_range = meta.index < NUMBER_END && (1..NUMBER_END).contains(&meta.term);
        let error = OpenError::Snapshot { index: meta.index, term: meta.term };
        Members::of_snapshot(meta).filter(|_| in_range).ok_or(error)
    }
}

/// The entry before the tail, and the tail: entries that the snapshot covers stay, if the log goes
/// on to it without a gap; the first of them then gives its term to the place before the tail.
fn tail(
    snapshot: (u64, u64),
    mut entries: Vec<LogEntry>,
) -> Result<((u64, u64), Vec<LogEntry>), OpenError> {
    let Some(first) = entries.first() else {
        return Ok((snapshot, entries));
    };
    let mut previous =
        if first.index > snapshot.0 { snapshot } else { (first.index.wrapping_sub(1), 1) };
    for entry in &entries {
        let follows = previous.0.checked_add(1) == Some(entry.index) && entry.index < NUMBER_END;
        let agrees = entry.index != snapshot.0 || entry.term == snapshot.1;
        let in_order = entry.term >= previous.1 && entry.term < NUMBER_END;
        if !follows || !agrees || !in_order {
            return Err(OpenError::Entries {
                index: entry.index,
                term: entry.term,
                previous_index: previous.0,
                previous_term: previous.1,
            });
        }
        previous = (entry.index, entry.term);
    }
    if previous.0 < snapshot.0 {
        return Ok((snapshot, Vec::new()));
    }
    if entries[0].index > snapshot.0 {
        return Ok((snapshot, entries));
    }
    let base = entries.remove(0);
    Ok(((base.index, base.term), entries))
}

/// What was applied was committed; and who has an entry has seen its term. A crash can cut a write
/// between its entries and its hard state.
fn raise(
    mut hard_state: HardState,
    snapshot: (u64, u64),
    last: (u64, u64),
) -> Result<HardState, OpenError> {
    hard_state.commit = hard_state.commit.max(snapshot.0);
    if hard_state.commit > last.0 {
        let commit = hard_state.commit;
        return Err(OpenError::CommitLost { commit, last_index: last.0 });
    }
    if hard_state.term < last.1 {
        hard_state.term = last.1;
        hard_state.vote = 0;
    }
    Ok(hard_state)
}
