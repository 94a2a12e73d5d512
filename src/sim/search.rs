//! Looking for a seed that breaks something, and for the fewest faults that do.

use std::{collections::BTreeSet, env, fmt, ops::Range, str::FromStr, time::Duration};

use thiserror::Error;

use crate::sim::{FaultEvent, FaultId, FaultIdError};

/// A run: its seed, and which of the faults that the seed draws happen.
///
/// As a text it is the seed and, if not all happen, the names of those that do:
/// `17 loss:2,crash:0`.
///
/// ```
/// use quorate::sim::Plan;
/// let plan: Plan = "17 loss:2,crash:0".parse()?;
/// assert_eq!((plan.seed(), plan.to_string().as_str()), (17, "17 loss:2,crash:0"));
/// # Ok::<(), quorate::sim::PlanError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    seed: u64,
    only: Option<BTreeSet<FaultId>>,
}

/// A text that is no plan.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// It does not begin with a number.
    #[error("{0:?} does not begin with a seed, a number")]
    Seed(String),
    /// A fault has another name.
    #[error(transparent)]
    Fault(#[from] FaultIdError),
}

impl Plan {
    /// All faults of a seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, only: None }
    }

    /// The same seed, and only these of its faults.
    #[must_use]
    pub fn only(&self, faults: impl IntoIterator<Item = FaultId>) -> Self {
        Self { seed: self.seed, only: Some(faults.into_iter().collect()) }
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    pub(super) fn takes(&self, fault: FaultId) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(&fault))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.seed)?;
        if let Some(only) = &self.only {
            let names: Vec<String> = only.iter().map(FaultId::to_string).collect();
            write!(f, " {}", if names.is_empty() { NO_FAULTS.into() } else { names.join(",") })?;
        }
        Ok(())
    }
}

impl FromStr for Plan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let (seed, faults) = match text.trim().split_once(' ') {
            Some((seed, faults)) => (seed, Some(faults)),
            None => (text.trim(), None),
        };
        let plan = Self::new(seed.parse().map_err(|_| PlanError::Seed(text.to_owned()))?);
        Ok(match faults.map(str::trim) {
            None => plan,
            Some(NO_FAULTS) => plan.only([]),
            Some(faults) => {
                let faults: Result<Vec<FaultId>, _> = faults.split(',').map(str::parse).collect();
                plan.only(faults?)
            }
        })
    }
}

/// A promise that was broken in a run. `Debug` says the same as `Display`: the line that repeats it
/// is to be seen also where a test returns it.
#[derive(Clone, Error)]
#[error(
    "{check} is broken at {:.3} s: {why}\n  again: {PLAN_VARIABLE}=\"{plan}\"\n  faults: {}",
    at.as_secs_f64(), told(faults)
)]
#[non_exhaustive]
pub struct Violation {
    /// The run.
    pub plan: Plan,
    /// When.
    pub at: Duration,
    /// Which check or invariant says so.
    pub check: String,
    /// What it says.
    pub why: Box<str>,
    /// The faults up to then.
    pub faults: Vec<FaultEvent>,
}

impl fmt::Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Violation {
    pub(super) fn new(
        plan: &Plan,
        at: Duration,
        check: &str,
        why: String,
        faults: Vec<FaultEvent>,
    ) -> Self {
        Self { plan: plan.clone(), at, check: check.to_owned(), why: why.into(), faults }
    }
}

fn told(faults: &[FaultEvent]) -> String {
    let told: Vec<String> = faults.iter().map(FaultEvent::to_string).collect();
    if told.is_empty() { "none".into() } else { told.join("; ") }
}

/// Runs seed after seed until one breaks a promise, and then makes it smaller: the violation that
/// it returns is of the same check, with the fewest faults that were found to lead there.
///
/// When the environment has a `QUORATE_SIM`, the line that a violation shows, that run alone is
/// made.
///
/// ```
/// use std::time::Duration;
/// use quorate::sim::{Cluster, Faults, Plan, Violation, search};
/// let run = |plan: &Plan| -> Result<(), Violation> {
///     let cluster = Cluster::builder().plan(plan).faults(Faults::swarm()).build();
///     cluster.expect("the defaults are possible").run_for(Duration::from_secs(5))
/// };
/// search(0..3, run)?;
/// # Ok::<(), Violation>(())
/// ```
///
/// # Errors
///
/// The violation, made small.
///
/// # Panics
///
/// When `QUORATE_SIM` is no plan.
pub fn search(
    seeds: Range<u64>,
    mut run: impl FnMut(&Plan) -> Result<(), Violation>,
) -> Result<(), Violation> {
    if let Ok(text) = env::var(PLAN_VARIABLE) {
        match text.parse() {
            Ok(plan) => return run(&plan),
            Err(error) => panic!("{PLAN_VARIABLE} in the environment: {error}"),
        }
    }
    for seed in seeds {
        if let Err(violation) = run(&Plan::new(seed)) {
            return Err(shrink(violation, run));
        }
    }
    Ok(())
}

/// Leaves out what it can of the faults of a run that breaks a promise (delta debugging), as long
/// as the same check breaks; which promise is broken first may change with the faults, and what
/// was left out may return if another seed is asked. At most 200 runs are made.
pub fn shrink(
    violation: Violation,
    mut run: impl FnMut(&Plan) -> Result<(), Violation>,
) -> Violation {
    let mut smallest = violation;
    let (mut parts, mut runs) = (2, 0);
    loop {
        let faults: Vec<FaultId> = smallest.faults.iter().map(|it| it.id).collect();
        let size = faults.len().div_ceil(parts).max(1);
        let mut found = None;
        for start in (0..faults.len()).step_by(size) {
            if runs == RUNS_MAX {
                return smallest;
            }
            runs += 1;
            let end = (start + size).min(faults.len());
            let left = faults[..start].iter().chain(&faults[end..]).copied();
            let again = run(&smallest.plan.only(left)).err();
            found = again.filter(|it| it.check == smallest.check && it.faults.len() < faults.len());
            if found.is_some() {
                break;
            }
        }
        match found {
            Some(smaller) => (smallest, parts) = (smaller, parts.saturating_sub(1).max(2)),
            None if size == 1 => {
                let faults: Vec<FaultId> = smallest.faults.iter().map(|it| it.id).collect();
                smallest.plan = smallest.plan.only(faults);
                return smallest;
            }
            None => parts *= 2,
        }
    }
}

/// Names the run that is to be made again.
const PLAN_VARIABLE: &str = "QUORATE_SIM";
const NO_FAULTS: &str = "none";
const RUNS_MAX: u32 = 200;
