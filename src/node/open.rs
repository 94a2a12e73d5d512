//! Opening a node over what its log gives back.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use thiserror::Error;

use super::{Node, drain, identity::LocalRecordError};
use crate::{
    config::{Backup, Config},
    consensus::{Consensus, Options, RestoredLog},
    id::Incarnation,
    namespace::{Decoder, Namespace},
    node::{
        cursors::Cursors,
        digests::Digests,
        divergence::Quarantine,
        identity::Identity,
        membership::Membership,
        origin::Origin,
        reads::Reads,
        ready::{Garbage, Restored, RestoredSnapshot, SnapshotWrite, Write},
        status::DiskUse,
        transfer::{Source, Transfers, decode},
    },
    time::Now,
    wire::{HardState, SnapshotMeta},
};

/// Why a node does not open. The log is untouched.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The member's own record cannot be used.
    #[error(transparent)]
    Local(#[from] LocalRecordError),
    /// The snapshot cannot be decoded.
    #[error(
        "snapshot {index} cannot be used: {why}; if its data directory is beyond repair, remove \
         this member and add a new id as a learner"
    )]
    Snapshot {
        /// The last entry that it covers.
        index: u64,
        /// What is wrong with it.
        why: String,
    },
    /// The backup cannot be used.
    #[error("the backup cannot be used: {why}")]
    Backup {
        /// What is wrong with it.
        why: String,
    },
    /// The log holds entries or votes but no snapshot that they stand on.
    #[error(
        "the log has entries or votes but no snapshot to stand on; put the lost files back, or \
             remove this member and add a new id as a learner"
    )]
    NoSnapshot,
    /// The member is set up with other intervals or replicated limits than those of its cluster.
    #[error(transparent)]
    OtherParameters(crate::config::OtherParameters),
    /// What the log gives back contradicts itself.
    #[error("the log cannot be used: {why}")]
    Log {
        /// What is wrong with it.
        why: String,
    },
}

impl Node {
    /// Opens a member over what its log gives back; a new store founds the cluster or joins it, as
    /// `config` says. Drain the node before its first tick.
    ///
    /// # Errors
    ///
    /// [`OpenError`] says what cannot be used, and what to do.
    pub fn open(mut config: Config, mut restored: Restored) -> Result<Self, OpenError> {
        let own = Incarnation { store: restored.store, boot: restored.boot };
        let (backup, was_used) = (config.backup.take(), restored.local.is_some());
        let of_backup = backup.as_ref().map(|backup| backup.crc);
        let begin = |founders| {
            let namespace = match backup.as_ref().filter(|_| !was_used) {
                Some(backup) => read_backup(&config, backup)?,
                None => Namespace::new(config.parameters()),
            };
            Ok::<_, OpenError>(Founding::new(&config, founders, namespace))
        };
        let founding = config.founders.as_ref().map(begin).transpose()?;
        let crcs = (founding.as_ref().map_or(0, |it| it.crc), of_backup);
        let mut identity = Identity::new(config.id, own, crcs, config.founders.clone());
        if let Some(record) = restored.local.clone() {
            identity.restore(record)?;
        }
        if restored.tail_cut {
            identity.set_tail_cut();
        }
        let accepts = config.accept_cut_tail && identity.is_recovering();
        let raised = accepts.then(|| accept_cut_tail(&config, &mut identity, &mut restored));
        let is_new = restored.snapshot.is_none();
        if is_new && (!restored.entries.is_empty() || (was_used && founding.is_some())) {
            return Err(OpenError::NoSnapshot);
        }
        let (namespace, membership, next_write) = match &restored.snapshot {
            Some(snapshot) => {
                let chunks = snapshot.chunks.iter().cloned();
                let restored = restore(Decoder::new(config.cluster), chunks);
                let index = snapshot.index;
                let (namespace, membership) =
                    restored.map_err(|why| OpenError::Snapshot { index, why })?;
                let other = namespace.parameters().difference(&config.parameters());
                if let Some(other) = other {
                    return Err(OpenError::OtherParameters(other));
                }
                (namespace, membership, Write::default())
            }
            None => match founding {
                Some(Founding { namespace, membership, write, .. }) => {
                    (namespace, membership, write)
                }
                None => {
                    let namespace = Namespace::new(config.parameters());
                    (namespace, Membership::default(), Write::default())
                }
            },
        };
        let hard_state = raised.flatten().or(next_write.hard_state);
        let next_write = Write { hard_state, ..next_write };
        identity.forget(&membership.removed);
        let place = match (&restored.snapshot, &config.founders) {
            (Some(snapshot), _) => (snapshot.index, snapshot.term),
            (None, Some(_)) => FOUNDING,
            (None, None) => (0, 0),
        };
        Self::assemble(config, restored, (identity, namespace, membership), next_write, place)
    }

    fn assemble(
        config: Config,
        restored: Restored,
        (mut identity, namespace, membership): (Identity, Namespace, Membership),
        next_write: Write,
        (index, term): (u64, u64),
    ) -> Result<Self, OpenError> {
        let hard_state = restored.hard_state.or(next_write.hard_state).unwrap_or_default();
        let log_bytes = restored.entries.iter().map(|entry| entry.data.len()).sum();
        let none = SnapshotMeta::default();
        let log = RestoredLog {
            hard_state,
            snapshot: if index == 0 { none } else { membership.meta(index, term) },
            entries: restored.entries,
            may_vote: !identity.is_recovering(),
        };
        let consensus = Consensus::open(options(&config), log)
            .map_err(|error| OpenError::Log { why: error.to_string() })?;
        identity.set_start(consensus.term(), consensus.vote(), consensus.last_index());
        let diverged_at = Some(identity.diverged_at()).filter(|&index| index > 0);
        let mut digests = Digests::default();
        digests.restart(index, namespace.zxid(), namespace.digest().value);
        Ok(Self {
            digests,
            quarantine: diverged_at.map(Quarantine::reopened),
            replaced: None,
            following: (None, 0),
            identity,
            membership,
            consensus,
            namespace,
            origin: Origin::default(),
            reads: Reads::default(),
            cursors: Cursors::default(),
            transfers: Transfers::default(),
            leadership: None,
            change: None,
            unanswered_before: None,
            now: Now { mono: Duration::ZERO, wall_ms: 0 },
            tick: 0,
            led_tick: 0,
            applied: index,
            applied_term: 0,
            tail: VecDeque::new(),
            tail_bytes: 0,
            snapshot_index: index,
            snapshot_bytes: restored.snapshot.as_ref().map_or(0, RestoredSnapshot::bytes),
            log_bytes,
            outputs: Vec::new(),
            messages: Vec::new(),
            garbage: Garbage::default(),
            next_write,
            in_flight: VecDeque::new(),
            held_write: None,
            next_number: 1,
            next_ticket: 1,
            forwards: 0,
            catch_up_left: drain::CATCH_UP_MAX,
            token_dropped: Arc::new(AtomicBool::new(false)),
            disk: DiskUse::default(),
            undrained: true,
            ended: None,
            refused: BTreeSet::new(),
            refused_frames: 0,
            asked: BTreeSet::new(),
            config,
        })
    }

    /// Greets the founders that have not confirmed the founding; later, every member that has not
    /// heard of this opening, so that an older image of this store is refused by all of them.
    pub(super) fn tick_greetings(&mut self) {
        let founding = !self.identity.takes_part();
        let every = match founding {
            true => self.config.heartbeat_ticks,
            false => self.config.election_ticks,
        };
        if self.tick % u64::from(every) != 1 % u64::from(every) {
            return;
        }
        let greeted = match founding {
            true => self.identity.unconfirmed(),
            false => self.identity.ungreeted(&self.membership),
        };
        for member in greeted {
            let greeting = self.identity.greeting(true);
            self.send(member, crate::wire::Body::Hello(greeting));
        }
    }
}

/// The operator has decided: the member votes again without what was cut. It may have voted in the
/// batch that is gone, so it leaves the terms of that time behind. Returns what is to be durable.
fn accept_cut_tail(
    config: &Config,
    identity: &mut Identity,
    restored: &mut Restored,
) -> Option<HardState> {
    slog::warn!(
        config.logger,
        "a damaged tail was cut off the log, and this member votes all the same, as it is told to: \
         what it acknowledged last may be lost"
    );
    identity.set_recovering(false);
    let raised = |it: HardState| HardState::new(it.term + TERMS_LEFT, 0, it.commit);
    restored.hard_state = restored.hard_state.map(raised);
    restored.hard_state
}

/// What a founder begins with, alike on every one.
struct Founding {
    namespace: Namespace,
    membership: Membership,
    /// The bootstrap snapshot.
    write: Write,
    /// Its checksum.
    crc: u32,
}

impl Founding {
    fn new(config: &Config, founders: &BTreeSet<crate::NodeId>, namespace: Namespace) -> Self {
        let membership = Membership::founding(founders);
        let (frozen, cluster) = (namespace.freeze(), config.cluster);
        let source = Source { frozen, cluster, membership: membership.clone() };
        let (index, term) = FOUNDING;
        let mut local = super::transfer::Local::new(FOUNDING, 0, &source, 1 << 20);
        let mut snapshot = Vec::new();
        while !local.write(1, 1 << 20, &mut snapshot) {}
        let crc = match snapshot.last() {
            Some(SnapshotWrite::Finish { crc, .. }) => *crc,
            _ => 0,
        };
        snapshot.push(SnapshotWrite::Install { index, term, reset_log: true });
        let hard_state = Some(HardState::new(term, 0, index));
        let write = Write { snapshot, hard_state, ..Write::default() };
        Self { namespace, membership, write, crc }
    }
}

/// The state that a cluster begins with which is founded from a backup.
fn read_backup(config: &Config, backup: &Backup) -> Result<Namespace, OpenError> {
    let of_backup = |why: String| OpenError::Backup { why };
    let chunks = backup.chunks.iter().cloned();
    let (namespace, _) = restore(Decoder::of_backup(), chunks).map_err(of_backup)?;
    match namespace.parameters().difference(&config.parameters()) {
        Some(other) => Err(OpenError::OtherParameters(other)),
        None => namespace.into_restored().map_err(|why| of_backup(why.into())),
    }
}

fn restore(
    mut decoder: Decoder,
    chunks: impl Iterator<Item = bytes::Bytes>,
) -> Result<(Namespace, Membership), String> {
    for chunk in chunks {
        decoder.feed(chunk).map_err(|error| error.to_string())?;
    }
    decode(decoder)
}

fn options(config: &Config) -> Options {
    Options {
        id: config.id,
        seed: config.seed,
        election_ticks: config.election_ticks,
        heartbeat_ticks: config.heartbeat_ticks,
        message_bytes_max: config.limits.message_bytes_max,
        inflight_max: config.limits.inflight_max,
        uncommitted_bytes_max: config.limits.uncommitted_bytes_max,
        committed_bytes_max: COMMITTED_BYTES_MAX,
        logger: config.logger.clone(),
    }
}

/// Where the bootstrap snapshot stands: raft wants an index and a term that are not 0.
const FOUNDING: (u64, u64) = (1, 1);
/// Terms that a member leaves behind which may have forgotten a vote.
const TERMS_LEFT: u64 = 1_000;
/// Bytes of committed entries that one drain applies.
const COMMITTED_BYTES_MAX: usize = 4 << 20;
