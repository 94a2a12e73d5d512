//! Election timeouts: a pure function, so that a run repeats (ARCHITECTURE.md, H20).
//!
//! raft-rs draws them from the thread's random numbers; the consensus room replaces what it drew
//! after every call. The draws of one term lie apart for different ids, because two voters that
//! time out together split the votes.

/// The ticks that `id` waits in `term` as `role` before it campaigns: from `election` up to, but
/// not including, twice as many.
pub(super) fn timeout_ticks(seed: u64, id: u64, term: u64, role: u64, election: u32) -> u32 {
    let shared = mix(seed ^ mix(term ^ mix(role)));
    // Multiples of the golden ratio spread any few consecutive ids over the whole range.
    let spread = id.wrapping_mul(GOLDEN);
    // A small part differs by term, so that unlucky ids do not meet in every term.
    let own = mix(shared ^ id) >> 2;
    let place = shared.wrapping_add(spread).wrapping_add(own);
    let offset = (u128::from(place) * u128::from(election)) >> 64;
    election.saturating_add(u32::try_from(offset).unwrap_or(0))
}

/// The finalizer of splitmix64.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(GOLDEN);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h20_timeouts_are_in_range_repeat_and_use_the_whole_range() {
        let mut seen = [0u32; 10];
        for term in 0..1000 {
            for id in 1..=5 {
                let ticks = timeout_ticks(7, id, term, 0, 10);
                assert_eq!(ticks, timeout_ticks(7, id, term, 0, 10));
                assert!((10..20).contains(&ticks), "{ticks}");
                seen[(ticks - 10) as usize] += 1;
            }
        }
        assert!(seen.iter().all(|&count| count > 300), "{seen:?}");
        assert!(timeout_ticks(1, 1, 1, 0, u32::MAX) >= u32::MAX - 1);
    }

    #[test]
    fn h20_voters_rarely_time_out_together() {
        for (ids, together_max) in [
            ([1, 2, 3], 100),
            ([1, 4, 6], 250),
            // Distances that the golden ratio alone would map onto one place.
            ([1, 90, 234], 600),
            ([1 << 40, 7, 99], 600),
        ] {
            let together = (0..1000)
                .filter(|&term| {
                    let mut ticks = ids.map(|id| timeout_ticks(3, id, term, 0, 10));
                    ticks.sort_unstable();
                    ticks[0] == ticks[1]
                })
                .count();
            assert!(together <= together_max, "{ids:?}: {together} of 1000");
        }
    }
}
