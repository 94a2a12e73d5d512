//! The simulator, with a schedule of faults that an input chooses.

use std::{collections::BTreeMap, time::Duration};

use super::input::Input;
use crate::sim::{FaultEvent, FaultId, FaultKind, Faults, Plan, swarm::Swarm};

/// Faults at moments that the input chooses, in a cluster under load: every check of the simulator
/// holds, and after the faults everything works again.
pub(super) fn cluster(data: &[u8]) {
    let mut input = Input::new(data);
    let (seed, nodes) = (u64::from(input.byte()), [3, 3, 3, 5, 1][input.below(5)]);
    let (kinds, mut events, mut numbers) = (kinds(), Vec::new(), BTreeMap::new());
    while !input.is_spent() && events.len() < EVENTS_MAX {
        let kind = kinds[input.below(kinds.len())];
        let number = numbers.entry(kind).or_insert(0);
        let id = FaultId { kind, number: *number };
        *number += 1;
        let at = FAULTY * u32::from(input.byte()) / 256;
        let lasts = Duration::from_millis(20 + u64::from(input.byte()) * 12);
        events.push(FaultEvent { id, at, lasts, draw: u64::from(input.short()) });
    }
    let mut swarm = Swarm::default();
    (swarm.nodes, swarm.faulty, swarm.faults) = (Some(nodes), FAULTY, Faults::scripted(events));
    if let Err(violation) = swarm.run(&Plan::new(seed)) {
        panic!("{violation}");
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    // Each kind alone, and all of them one after the other.
    let one = |kind: u8| vec![kind, 0, kind, 20, 100, kind, 0, kind, 90, 60, kind, 1];
    let kinds = u8::try_from(kinds().len()).expect("few");
    let mut seeds: Vec<Vec<u8>> = (0..kinds).map(one).collect();
    let all = (0..kinds).flat_map(|kind| [kind, kind * 10, 80, kind, 3]);
    seeds.push([7, 0].into_iter().chain(all).collect());
    seeds
}

fn kinds() -> Vec<FaultKind> {
    FaultKind::ALL.into_iter().filter(|kind| kind.is_survivable()).collect()
}

const EVENTS_MAX: usize = 40;
const FAULTY: Duration = Duration::from_secs(4);
