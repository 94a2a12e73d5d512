//! How a member is set up: who it is, how it keeps time, and the bounds of everything it holds.

mod limits;
mod parameters;

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use slog::Logger;
use thiserror::Error;

use crate::{
    id::{ClusterId, NodeId},
    time::as_micros,
};

pub(crate) use self::parameters::Parameters;
pub use self::{limits::Limits, parameters::OtherParameters};

/// The checked set-up of one member.
///
/// ```
/// use std::time::Duration;
/// use quorate::{ClusterId, Config, NodeId};
/// let ids = [1, 2, 3].map(|id| NodeId::new(id).expect("ids are not 0"));
/// let config = Config::founding(ClusterId::named("orders"), ids[0], ids)
///     .tick_interval(Duration::from_millis(20))
///     .build()?;
/// assert_eq!(config.election_timeout(), Duration::from_millis(200));
/// # Ok::<(), quorate::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Config {
    pub(crate) id: NodeId,
    pub(crate) cluster: ClusterId,
    /// The founding members; `None` for a member that joins a running cluster.
    pub(crate) founders: Option<BTreeSet<NodeId>>,
    /// The state that the founders begin with, instead of an empty one.
    pub(crate) backup: Option<Backup>,
    pub(crate) tick_interval: Duration,
    pub(crate) heartbeat_ticks: u32,
    pub(crate) election_ticks: u32,
    pub(crate) renewal_interval: Duration,
    pub(crate) seed: u64,
    pub(crate) max_drift_ppm: u32,
    pub(crate) limits: Limits,
    pub(crate) session_rate: Option<SessionRate>,
    pub(crate) accept_cut_tail: bool,
    pub(crate) logger: Logger,
}

/// The bytes of an image, in order.
#[derive(Clone)]
pub(crate) struct Backup {
    pub(crate) chunks: Arc<[Bytes]>,
    pub(crate) crc: u32,
}

/// How often a session may ask for something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SessionRate {
    pub(crate) per_second: u32,
    /// After a rest, at once.
    pub(crate) burst: u32,
}

impl Config {
    /// A member that founds the cluster together with `members`, itself among them.
    ///
    /// All founders must be given the same cluster, members, intervals and replicated limits. Three
    /// to five voters are right for almost everyone; further instances join as learners.
    pub fn founding(
        cluster: ClusterId,
        id: NodeId,
        members: impl IntoIterator<Item = NodeId>,
    ) -> ConfigBuilder {
        let mut founders = BTreeSet::new();
        let twice = members.into_iter().filter(|member| !founders.insert(*member)).last();
        ConfigBuilder { twice, ..ConfigBuilder::new(cluster, id, Some(founders)) }
    }

    /// A founding member of a cluster that begins with the tree of a backup: the
    /// [`chunks`](crate::node::Image::chunks) of an image, taken from a member of any cluster.
    ///
    /// All founders must be given the same backup, beside what [`founding`](Self::founding) asks
    /// for, with the intervals and replicated limits that the backup has, and each an empty data
    /// directory. Members of the old cluster are not heard by this one; let it have an id of its
    /// own all the same, and stop what runs of the old one first, or clients write to both. Once a
    /// directory was made so, it opens with the same backup or without one (`founding`).
    ///
    /// What the old cluster did after the backup never happened here. So its sessions and leases
    /// have ended, with their nodes; zxids and their ids go on 2^40 higher, so that tokens only
    /// grow; and the history begins anew, in another [`Lineage`](crate::Lineage): watches that
    /// resume end `Compacted`. Versions go on from those of the backup: read a node again before a
    /// write that depends on its version.
    ///
    /// ```no_run
    /// # use quorate::{ClusterId, Config, NodeId, client::Client};
    /// # fn example(old: Client, ids: [NodeId; 3]) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut file = Vec::new();
    /// for chunk in old.image().wait()?.chunks() {
    ///     file.extend_from_slice(&chunk);
    /// }
    /// // Much later, on each of the three founders:
    /// let cluster = ClusterId::named("orders, restored");
    /// let config = Config::restoring(cluster, ids[0], ids, [file.into()]).build()?;
    /// # drop(config);
    /// # Ok(())
    /// # }
    /// ```
    pub fn restoring(
        cluster: ClusterId,
        id: NodeId,
        members: impl IntoIterator<Item = NodeId>,
        backup: impl IntoIterator<Item = Bytes>,
    ) -> ConfigBuilder {
        let chunks: Arc<[Bytes]> = backup.into_iter().collect();
        let crc = chunks.iter().fold(0, |crc, chunk| crc32c::crc32c_append(crc, chunk));
        let mut builder = Self::founding(cluster, id, members);
        builder.config.backup = Some(Backup { chunks, crc });
        builder
    }

    /// A member that joins a running cluster once its leader adds it as a learner.
    ///
    /// Intervals and replicated limits must be those of the founders.
    pub fn joining(cluster: ClusterId, id: NodeId) -> ConfigBuilder {
        ConfigBuilder::new(cluster, id, None)
    }

    /// This member.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Its cluster.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// How often the node is to be ticked.
    pub fn tick_interval(&self) -> Duration {
        self.tick_interval
    }

    /// How long a follower waits at least before it campaigns; it waits less than twice as long.
    pub fn election_timeout(&self) -> Duration {
        self.tick_interval * self.election_ticks
    }

    /// The bounds of what the member holds.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What every replica must agree on, as it stands in the bootstrap snapshot.
    pub(crate) fn parameters(&self) -> Parameters {
        Parameters {
            tick_us: as_micros(self.tick_interval),
            advance_us_max: as_micros(self.election_timeout()),
            renewal_us: as_micros(self.renewal_interval),
            ttl_us_min: as_micros(self.limits.session_ttl_min),
            ttl_us_max: as_micros(self.limits.session_ttl_max),
            payload_bytes_max: self.limits.payload_bytes_max as u64,
            window_count_max: self.limits.window_count_max as u64,
            window_bytes_max: self.limits.window_bytes_max as u64,
            history_count_max: self.limits.history_count_max as u64,
            history_bytes_max: self.limits.history_bytes_max as u64,
            sessions_max: self.limits.sessions_max as u64,
            session_leases_max: self.limits.session_leases_max as u64,
            leases_max: self.limits.leases_max as u64,
            ephemerals_max: self.limits.ephemerals_max as u64,
            nodes_max: self.limits.nodes_max as u64,
            txn_ops_max: self.limits.txn_ops_max as u64,
            subtree_nodes_max: self.limits.subtree_nodes_max as u64,
            container_grace_us: as_micros(self.limits.container_grace),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("id", &self.id)
            .field("cluster", &self.cluster)
            .field("founders", &self.founders)
            .field("backup", &self.backup.as_ref().map(|backup| backup.crc))
            .field("tick_interval", &self.tick_interval)
            .field("heartbeat_ticks", &self.heartbeat_ticks)
            .field("election_ticks", &self.election_ticks)
            .field("renewal_interval", &self.renewal_interval)
            .field("seed", &self.seed)
            .field("max_drift_ppm", &self.max_drift_ppm)
            .field("limits", &self.limits)
            .field("session_rate", &self.session_rate)
            .field("accept_cut_tail", &self.accept_cut_tail)
            .finish_non_exhaustive()
    }
}

/// Collects the settings of a [`Config`].
#[derive(Clone, Debug)]
#[must_use = "a builder makes nothing until `build` is called"]
pub struct ConfigBuilder {
    config: Config,
    /// A founder that is named twice.
    twice: Option<NodeId>,
}

impl ConfigBuilder {
    fn new(cluster: ClusterId, id: NodeId, founders: Option<BTreeSet<NodeId>>) -> Self {
        Self {
            config: Config {
                id,
                cluster,
                founders,
                backup: None,
                tick_interval: Duration::from_millis(50),
                heartbeat_ticks: 2,
                election_ticks: 10,
                renewal_interval: Duration::from_millis(500),
                seed: 0,
                max_drift_ppm: 10_000,
                limits: Limits::default(),
                session_rate: None,
                accept_cut_tail: false,
                logger: Logger::root(slog::Discard, slog::o!()),
            },
            twice: None,
        }
    }

    /// How often the node is to be ticked. Default: 50 ms.
    pub fn tick_interval(mut self, interval: Duration) -> Self {
        self.config.tick_interval = interval;
        self
    }

    /// Ticks between a leader's heartbeats. Default: 2.
    pub fn heartbeat_ticks(mut self, ticks: u32) -> Self {
        self.config.heartbeat_ticks = ticks;
        self
    }

    /// Ticks without a leader before a follower campaigns, at least; it draws from here up to
    /// twice as many. Default: 10.
    pub fn election_ticks(mut self, ticks: u32) -> Self {
        self.config.election_ticks = ticks;
        self
    }

    /// How long the leader collects keep-alives into one entry, and how often the replicated clock
    /// moves at least while any deadline exists. Default: 500 ms.
    pub fn renewal_interval(mut self, interval: Duration) -> Self {
        self.config.renewal_interval = interval;
        self
    }

    /// The seed of every draw; the same seed and the same inputs give the same bytes. Default: 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.config.seed = seed;
        self
    }

    /// How much faster than real time the clock of one member may run than that of another, in
    /// parts per million; leases are safe below it. Default: 10,000 (1 %).
    pub fn max_drift_ppm(mut self, ppm: u32) -> Self {
        self.config.max_drift_ppm = ppm;
        self
    }

    /// The bounds of what the member holds. Default: [`Limits::default`].
    pub fn limits(mut self, limits: Limits) -> Self {
        self.config.limits = limits;
        self
    }

    /// How many operations a second each session may ask this member for, and how many at once
    /// after a rest, each from 1 to 10,000,000. Transactions, reads and watches count;
    /// keep-alives and closing do not. What comes too early is refused
    /// ([`SubmitError::RateLimited`](crate::node::SubmitError::RateLimited)). Default: any number.
    ///
    /// Each member counts for itself, by its ticks, from the attachment on.
    pub fn session_rate(mut self, per_second: u32, burst: u32) -> Self {
        self.config.session_rate = Some(SessionRate { per_second, burst });
        self
    }

    /// Lets a member vote although a damaged tail was cut off its log, which it may have
    /// acknowledged. Default: false.
    ///
    /// For the operator of a cluster that cannot elect a leader, because its only voter, or so many
    /// of its voters that the others are no majority, are in
    /// [`Waiting::CutTail`](crate::node::Waiting::CutTail). **What was acknowledged last may be
    /// lost**, and members that have applied it end with the remedy. Restart as few of the waiting
    /// members with it as a majority lacks, and take it out again.
    pub fn accept_cut_tail(mut self, accept: bool) -> Self {
        self.config.accept_cut_tail = accept;
        self
    }

    /// Where to log; never affects bytes. Default: nowhere.
    pub fn logger(mut self, logger: Logger) -> Self {
        self.config.logger = logger;
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the setting, its value and what is allowed.
    pub fn build(self) -> Result<Config, ConfigError> {
        let config = self.config;
        if let Some(id) = self.twice {
            return Err(ConfigError::NamedTwice { id });
        }
        if let Some(founders) = &config.founders {
            if !founders.contains(&config.id) {
                return Err(ConfigError::NotAFounder { id: config.id });
            }
            in_range("founding members", founders.len() as u64, 1, MEMBERS_MAX as u64)?;
        }
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        in_range("tick interval in ms", ms(config.tick_interval), 1, 60_000)?;
        in_range("heartbeat ticks", config.heartbeat_ticks.into(), 1, 1_000)?;
        let election_min = u64::from(config.heartbeat_ticks) * 2;
        in_range("election ticks", config.election_ticks.into(), election_min.max(2), 10_000)?;
        let renewal_min = ms(config.tick_interval);
        in_range("renewal interval in ms", ms(config.renewal_interval), renewal_min, 600_000)?;
        in_range("max drift in ppm", config.max_drift_ppm.into(), 0, 500_000)?;
        if let Some(SessionRate { per_second, burst }) = config.session_rate {
            in_range("operations per second of a session", per_second.into(), 1, 10_000_000)?;
            in_range("operations at once of a session", burst.into(), 1, 10_000_000)?;
        }
        config.limits.check(ms(config.renewal_interval))?;
        Ok(config)
    }
}

/// Why a set-up is refused.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A founder must be one of the founding members.
    #[error("node {id} is not among the founding members")]
    NotAFounder {
        /// The member that is set up.
        id: NodeId,
    },
    /// A founding member is named twice.
    #[error("node {id} is named twice among the founding members")]
    NamedTwice {
        /// The member.
        id: NodeId,
    },
    /// A setting is outside its range.
    #[error("{setting} must be from {min} to {max}, not {value}")]
    OutOfRange {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: u64,
        /// The least allowed.
        min: u64,
        /// The most allowed.
        max: u64,
    },
}

/// What any member may set the bytes of a payload, an entry or a message to: see
/// [`FRAME_BYTES_MAX`](crate::wire::FRAME_BYTES_MAX).
pub(crate) const SIZE_BYTES_MAX: usize = 64 << 20;
/// What the replies that a session keeps may be set to take.
const WINDOW_BYTES_MAX: u64 = 1 << 32;
/// Above any interval that can be set.
const INTERVAL_US_MAX: u64 = 1 << 52;
/// What an operation, or its reply, takes beside the data: paths, stats, a list of rights.
const OP_OVERHEAD_BYTES: u64 = 8 << 10;
/// Operations of one transaction, whatever the cluster allows.
pub(crate) const TXN_OPS_MAX: u64 = 4096;
/// Members of one cluster, learners included.
pub(crate) const MEMBERS_MAX: usize = 64;

fn in_range(setting: &'static str, value: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::OutOfRange { setting, value, min, max })
}
