//! What may go wrong, how often, and for how long.
//!
//! All of it is drawn as numbered events, each kind from numbers of its own: leaving one event out
//! leaves the others as they were. That is what makes a failing run smaller.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use thiserror::Error;

use crate::sim::Rng;

/// One way in which the world goes wrong.
///
/// Kinds marked *lasting* go on for a time that is drawn, at most [`Faults::outage_max`]. Those
/// marked *destructive* befall only members of one minority, drawn for each seed: a cluster that
/// loses the data of a majority has lost it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// Each frame is lost with a chance of 1 to 30 %. Lasting.
    Loss,
    /// Each frame arrives twice with a chance of 1 to 50 %. Lasting.
    Duplication,
    /// Frames overtake each other: each is held back with a chance of 1 to 30 %, for up to 100 ms.
    /// Lasting.
    Reordering,
    /// All frames take longer, 5 to 150 ms on average. Lasting.
    Delay,
    /// One link, one way: nothing arrives, and then everything at once. Lasting.
    Clog,
    /// One link loses everything, one way only. Lasting.
    OneWay,
    /// The members fall into two groups that do not hear each other. Lasting.
    Halves,
    /// One member hears nobody, and nobody hears it. Lasting.
    Isolation,
    /// Two groups are joined by one member only. Lasting.
    Bridge,
    /// Each member hears only its neighbours in a ring: a majority, and for each another one.
    /// Lasting. Clusters of fewer than four are a ring already.
    MajorityRing,
    /// A member's clock runs up to 0.4 % too fast or too slow. Lasting.
    Drift,
    /// A member's monotonic clock jumps ahead, by 10 ms to 10 s, as after a sleep.
    ClockJump,
    /// A member's wall clock jumps by up to an hour, either way.
    WallJump,
    /// A process dies; what it wrote is still in the page cache. Starts again. Lasting.
    Crash,
    /// A machine loses its power, in the middle of what it does: of what was not synced each sector
    /// of 512 bytes, each length and each name is kept or lost at random. Starts again. Lasting.
    PowerLoss,
    /// A process does nothing, and then goes on as if nothing had happened. Lasting.
    Pause,
    /// Syncs of one disk take 10 to 300 ms. Lasting.
    SlowDisk,
    /// A sync fails; its pages are marked clean. The process ends and starts again.
    FailedSync,
    /// A write fails; half of it is in the page cache. The process ends and starts again.
    FailedWrite,
    /// A disk has no space left. Lasting.
    FullDisk,
    /// The membership changes: a new machine joins and votes, another one is removed, after a
    /// transfer if it leads; one that is dead goes first.
    Churn,
    /// A durable bit of a file changes. Destructive.
    BitRot,
    /// A write goes to another place of its file. Destructive. No part of
    /// [`swarm`](Faults::swarm): the log expects a sector to be written where it belongs.
    MisdirectedWrite,
    /// A member is started on an image of its disk from before it was last started, if all others
    /// run and have heard that it was. Destructive.
    Rollback,
    /// A member is started on an image of its disk from the time for which this lasts before.
    /// Destructive. Lasting. No part of [`swarm`](Faults::swarm): only those that it has told of
    /// what it lacks notice it, unless they have been started since.
    Rewind,
    /// A member is started on an empty disk. Destructive.
    Wipe,
    /// Syncs of one disk do nothing and say that they worked; then the power goes. Destructive. No
    /// part of [`swarm`](Faults::swarm): no log survives it, and acknowledged writes may be lost.
    LyingSync,
    /// A frame arrives in a member's name that no member sends: a heartbeat of term 0, which says
    /// that entries are committed.
    Forgery,
    /// A bit of a member's state flips in memory: in the time at which the root was set. Befalls a
    /// member of the minority, once in a run; the states of its peers put it right.
    MemoryRot,
}

impl FaultKind {
    /// All kinds.
    pub const ALL: [Self; 29] = [
        Self::Loss,
        Self::Duplication,
        Self::Reordering,
        Self::Delay,
        Self::Clog,
        Self::OneWay,
        Self::Halves,
        Self::Isolation,
        Self::Bridge,
        Self::MajorityRing,
        Self::Drift,
        Self::ClockJump,
        Self::WallJump,
        Self::Crash,
        Self::PowerLoss,
        Self::Pause,
        Self::SlowDisk,
        Self::FailedSync,
        Self::FailedWrite,
        Self::FullDisk,
        Self::Churn,
        Self::BitRot,
        Self::MisdirectedWrite,
        Self::Rollback,
        Self::Rewind,
        Self::Wipe,
        Self::LyingSync,
        Self::Forgery,
        Self::MemoryRot,
    ];

    /// Its name, in lower case with hyphens.
    pub fn name(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Duplication => "duplication",
            Self::Reordering => "reordering",
            Self::Delay => "delay",
            Self::Clog => "clog",
            Self::OneWay => "one-way",
            Self::Halves => "halves",
            Self::Isolation => "isolation",
            Self::Bridge => "bridge",
            Self::MajorityRing => "majority-ring",
            Self::Drift => "drift",
            Self::ClockJump => "clock-jump",
            Self::WallJump => "wall-jump",
            Self::Crash => "crash",
            Self::PowerLoss => "power-loss",
            Self::Pause => "pause",
            Self::SlowDisk => "slow-disk",
            Self::FailedSync => "failed-sync",
            Self::FailedWrite => "failed-write",
            Self::FullDisk => "full-disk",
            Self::Churn => "churn",
            Self::BitRot => "bit-rot",
            Self::MisdirectedWrite => "misdirected-write",
            Self::Rollback => "rollback",
            Self::Rewind => "rewind",
            Self::Wipe => "wipe",
            Self::LyingSync => "lying-sync",
            Self::Forgery => "forgery",
            Self::MemoryRot => "memory-rot",
        }
    }

    /// Whether it destroys what was durable.
    pub fn is_destructive(self) -> bool {
        use FaultKind::{BitRot, LyingSync, MisdirectedWrite, Rewind, Rollback, Wipe};
        matches!(self, BitRot | MisdirectedWrite | Rollback | Rewind | Wipe | LyingSync)
    }

    /// Whether [`Faults::swarm`] may draw it.
    pub fn is_survivable(self) -> bool {
        !matches!(self, Self::MisdirectedWrite | Self::LyingSync | Self::Rewind)
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Which faults there are, and how often: nothing, unless it is asked for.
///
/// ```
/// use std::time::Duration;
/// use quorate::sim::{FaultKind, Faults};
/// let faults = Faults::none()
///     .every(FaultKind::PowerLoss, Duration::from_secs(20))
///     .every(FaultKind::Isolation, Duration::from_secs(30))
///     .outage_max(Duration::from_secs(5));
/// # drop(faults);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use = "it does nothing until a cluster is built with it"]
pub struct Faults {
    means: BTreeMap<FaultKind, Duration>,
    outage_max: Duration,
    swarm: bool,
    /// The last one comes first.
    script: Vec<FaultEvent>,
}

impl Faults {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self {
            means: BTreeMap::new(),
            outage_max: Duration::from_secs(8),
            swarm: false,
            script: Vec::new(),
        }
    }

    /// Each seed draws which kinds there are and how often each happens, from every 4 s to every
    /// 60 s. Some seeds have few kinds and some have nearly all: faults that hide each other are
    /// found apart.
    pub fn swarm() -> Self {
        Self { swarm: true, ..Self::none() }
    }

    /// These, whatever the seed; their times count from the end of the grace.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn scripted(mut script: Vec<FaultEvent>) -> Self {
        script.sort_by_key(|event| std::cmp::Reverse(event.at));
        Self { script, ..Self::none() }
    }

    /// This kind happens so often on average, somewhere in the cluster.
    pub fn every(mut self, kind: FaultKind, mean: Duration) -> Self {
        self.means.insert(kind, mean);
        self
    }

    /// How long a lasting fault lasts at most. Default: 8 s.
    pub fn outage_max(mut self, outage: Duration) -> Self {
        self.outage_max = outage;
        self
    }

    /// What a seed makes of it.
    pub(super) fn drawn(&self, seed: u64) -> Self {
        let mut drawn = self.clone();
        if !self.swarm {
            return drawn;
        }
        let mut rng = Rng::stream(seed, SWARM);
        let share = 100_000 + rng.below(700_000) as u32;
        for kind in FaultKind::ALL.into_iter().filter(|kind| kind.is_survivable()) {
            let (taken, mean) =
                (rng.chance(share), rng.between(Duration::from_secs(4), Duration::from_secs(60)));
            // What destroys a member for good does so rarely, or little else would be seen.
            let taken = taken && (!kind.is_destructive() || rng.chance(300_000));
            if taken && !drawn.means.contains_key(&kind) {
                drawn.means.insert(kind, mean);
            }
        }
        drawn
    }
}

/// Names one fault of a run: the kind, and which one of that kind, from 0.
///
/// ```
/// use quorate::sim::FaultId;
/// let id: FaultId = "power-loss:3".parse()?;
/// assert_eq!(id.to_string(), "power-loss:3");
/// # Ok::<(), quorate::sim::FaultIdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct FaultId {
    /// The kind.
    pub kind: FaultKind,
    /// Which one of that kind, from 0.
    pub number: u32,
}

impl fmt::Display for FaultId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.number)
    }
}

/// A text that names no fault.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{text:?} names no fault: it is a kind and a number, such as crash:0")]
pub struct FaultIdError {
    text: String,
}

impl FromStr for FaultId {
    type Err = FaultIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (name, number) = text.split_once(':')?;
            let kind = FaultKind::ALL.into_iter().find(|kind| kind.name() == name)?;
            Some(Self { kind, number: number.parse().ok()? })
        };
        parse().ok_or_else(|| FaultIdError { text: text.to_owned() })
    }
}

/// A fault that happens.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FaultEvent {
    /// Which one.
    pub id: FaultId,
    /// When it begins, since the start of the run.
    pub at: Duration,
    /// How long a lasting one lasts.
    pub lasts: Duration,
    /// Chooses members, amounts and moments.
    pub draw: u64,
}

impl fmt::Display for FaultEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at {:.3} s for {:.3} s",
            self.id,
            self.at.as_secs_f64(),
            self.lasts.as_secs_f64()
        )
    }
}

/// Draws the faults of a run, one kind apart from the other.
#[derive(Debug)]
pub(super) struct Schedule {
    streams: Vec<Stream>,
    outage_max: Duration,
    script: Vec<FaultEvent>,
}

#[derive(Debug)]
struct Stream {
    kind: FaultKind,
    mean: Duration,
    rng: Rng,
    next: FaultEvent,
}

impl Schedule {
    pub(super) fn new(faults: &Faults, seed: u64) -> Self {
        let outage_max = faults.outage_max;
        let stream = |(&kind, &mean): (&FaultKind, &Duration)| {
            let mut rng = Rng::stream(seed, SCHEDULE + kind as u64);
            let next = draw(kind, 0, Duration::ZERO, (mean, outage_max), &mut rng);
            Stream { kind, mean, rng, next }
        };
        let streams = faults.means.iter().map(stream).collect();
        Self { streams, outage_max, script: faults.script.clone() }
    }

    /// When the next one begins.
    pub(super) fn next_at(&self) -> Option<Duration> {
        let drawn = self.streams.iter().map(|stream| stream.next.at);
        drawn.chain(self.script.last().map(|event| event.at)).min()
    }

    /// The next one that begins by now.
    pub(super) fn take(&mut self, now: Duration) -> Option<FaultEvent> {
        if self.script.last().is_some_and(|event| event.at <= now) {
            return self.script.pop();
        }
        let stream = self.streams.iter_mut().min_by_key(|stream| stream.next.at)?;
        if stream.next.at > now {
            return None;
        }
        let (at, number) = (stream.next.at, stream.next.id.number + 1);
        let measures = (stream.mean, self.outage_max);
        let next = draw(stream.kind, number, at, measures, &mut stream.rng);
        Some(std::mem::replace(&mut stream.next, next))
    }
}

fn draw(
    kind: FaultKind,
    number: u32,
    after: Duration,
    (mean, outage_max): (Duration, Duration),
    rng: &mut Rng,
) -> FaultEvent {
    let at = after + rng.exponential(mean) + Duration::from_millis(1);
    // Short outages are as likely as long ones of any magnitude.
    let longest = rng.between(Duration::from_millis(50), outage_max);
    let lasts = rng.between(Duration::from_millis(20), longest);
    FaultEvent { id: FaultId { kind, number }, at, lasts, draw: rng.next() }
}

const SWARM: u64 = 1 << 32;
const SCHEDULE: u64 = 2 << 32;
