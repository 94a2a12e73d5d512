//! What the fuzz targets call: bytes in, and an assertion fails when something is wrong.
//!
//! Compiled for tests, which feed each target its corpus and mutated real inputs, and for
//! cargo-fuzz, which sets `--cfg fuzzing`. Each target is total: no input may make it panic, hang,
//! or take memory beyond the caps that the decoders declare. The feature `sim` has the decoders
//! alone, for the test that counts what they allocate.

#[cfg(feature = "zookeeper")]
mod packets;
mod readers;
mod samples;

#[cfg(all(any(test, fuzzing), feature = "zookeeper"))]
mod conversation;
#[cfg(any(test, fuzzing))]
mod input;
#[cfg(any(test, fuzzing))]
mod members;
#[cfg(any(test, fuzzing))]
mod open;
#[cfg(any(test, fuzzing))]
mod parse;
#[cfg(any(test, fuzzing))]
mod peers;
#[cfg(any(test, fuzzing))]
mod records;
#[cfg(any(test, fuzzing))]
mod store;
#[cfg(all(any(test, fuzzing), feature = "sim"))]
mod world;

pub use readers::{READERS, Reader, Reading};

/// One target.
#[cfg(any(test, fuzzing))]
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The file in fuzz/fuzz_targets, and the folder in fuzz/corpus.
    pub name: &'static str,
    /// Runs it on one input.
    pub run: fn(&[u8]),
    /// Inputs that a member makes itself.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How many inputs the test makes: about a second's worth without optimization.
    pub inputs: u32,
    /// How long a random one of them may be.
    pub random_max: usize,
}

/// The targets by name, each with inputs to start from.
#[cfg(any(test, fuzzing))]
pub const TARGETS: &[Target] = &[
    target("frame", parse::frame, parse::frame_seeds, (2_000, 100)),
    target("entry", parse::entry, parse::entry_seeds, (2_000, 100)),
    target("snapshot", parse::snapshot, parse::snapshot_seeds, (1_000, 30)),
    target("path", parse::path, parse::path_seeds, (10_000, 30)),
    target("log", store::log, store::log_seeds, (2_000, 40)),
    target("manifest", store::manifest, store::manifest_seeds, (2_000, 20)),
    target("open", open::open, open::seeds, (4_000, 100)),
    target("peer_message", peers::peer_message, peers::seeds, (400, 600)),
    target("model", crate::namespace::model::run, model_seeds, (80, 4_000)),
    #[cfg(feature = "sim")]
    target("cluster", world::cluster, world::seeds, (12, 200)),
    #[cfg(feature = "zookeeper")]
    target("zookeeper", conversation::zookeeper, conversation::seeds, (400, 200)),
];

#[cfg(any(test, fuzzing))]
const fn target(
    name: &'static str,
    run: fn(&[u8]),
    seeds: fn() -> Vec<Vec<u8>>,
    (inputs, random_max): (u32, usize),
) -> Target {
    Target { name, run, seeds, inputs, random_max }
}

/// Bytes that choose commands, see `namespace::model`.
#[cfg(any(test, fuzzing))]
fn model_seeds() -> Vec<Vec<u8>> {
    let bytes = |seed: u8| (0..200_u8).map(move |at| at.wrapping_mul(seed).rotate_left(3) ^ seed);
    [1, 37, 101, 203].map(|seed| bytes(seed).collect()).into()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    macro_rules! takes_mutated_inputs {
        ($($name:ident)*) => {$(
            #[test]
            fn $name() {
                let target = TARGETS.iter().find(|it| it.name == stringify!($name));
                mutated_inputs(target.expect("a target of this name"));
            }
        )*};
    }

    takes_mutated_inputs! { frame entry snapshot path log manifest open peer_message model }

    #[cfg(feature = "sim")]
    takes_mutated_inputs! { cluster }

    #[cfg(feature = "zookeeper")]
    takes_mutated_inputs! { zookeeper }

    /// Tells the input that a target failed on.
    struct Told<'a>(&'a [u8]);

    impl Drop for Told<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                println!("the input: {:?}", self.0);
            }
        }
    }

    /// A target takes its seeds, the committed inputs, and more that are made from them.
    #[expect(clippy::disallowed_methods, reason = "the corpus is in files")]
    fn mutated_inputs(target: &Target) {
        let Target { name, run, seeds, inputs, random_max } = target;
        let run = |input: &[u8]| {
            let _told = Told(input);
            run(input);
        };
        let mut known = seeds();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        // The package has none.
        if let Ok(entries) = fs::read_dir(folder) {
            let paths = entries.map(|entry| entry.expect("a committed input").path());
            known.extend(paths.map(|path| fs::read(path).expect("a committed input")));
        }
        known.sort();
        known.dedup();
        known.iter().for_each(|input| run(input));
        let mut draw = 0x9e37_79b9_7f4a_7c15_u64 ^ name.len() as u64;
        let mut below = |n: usize| {
            draw ^= draw << 13;
            draw ^= draw >> 7;
            draw ^= draw << 17;
            (draw % n as u64) as usize
        };
        for number in 0..*inputs {
            // Every other one is random, as long as what it is about needs.
            if number % 2 == 1 {
                let length = below(*random_max);
                run(&(0..length).map(|_| below(256) as u8).collect::<Vec<u8>>());
                continue;
            }
            let mut input = known[below(known.len())].clone();
            for _ in 0..=below(4) {
                let at = below(input.len() + 1);
                match below(4) {
                    0 => input.truncate(at),
                    1 => input.insert(at, below(256) as u8),
                    2 if at < input.len() => input[at] ^= 1 << below(8),
                    _ => input.extend((0..below(12)).map(|_| below(256) as u8)),
                }
            }
            run(&input);
        }
    }
}
