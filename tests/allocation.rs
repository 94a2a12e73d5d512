//! What reads foreign bytes allocates at most four times as many, and 1 MiB, however they lie; what
//! reads a whole state or a log gets the state itself, and has bounds of its own.
//!
//! A binary of its own, with one test: the allocator counts for the whole process.
#![cfg(all(feature = "sim", feature = "wal"))]

use peak_alloc::PeakAlloc;
use quorate::fuzz::{READERS, Reader, Reading};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

#[test]
fn decoders_allocate_a_few_times_their_input_and_a_mebibyte() {
    for reader in READERS {
        let seeds = (reader.seeds)();
        let mut draw = 0x9e37_79b9_7f4a_7c15_u64 ^ reader.name.len() as u64;
        let mut below = |n: usize| {
            draw ^= draw << 13;
            draw ^= draw >> 7;
            draw ^= draw << 17;
            (draw % n as u64) as usize
        };
        for _ in 0..INPUTS {
            let mut input = seeds[below(seeds.len())].clone();
            for _ in 0..=below(4) {
                let at = below(input.len() + 1);
                match below(4) {
                    0 => input.truncate(at),
                    1 => input.insert(at, below(256) as u8),
                    2 if at < input.len() => input[at] ^= 1 << below(8),
                    _ => input.extend((0..below(12)).map(|_| below(256) as u8)),
                }
            }
            check(reader, (reader.read)(&input));
        }
        // Where the mebibyte is not what counts.
        for bytes in [1 << 10, 100 << 10, 1 << 20, 3 << 20] {
            (reader.dense)(bytes).into_iter().for_each(|it| check(reader, it));
        }
    }
}

fn check(reader: &Reader, reading: Reading) {
    let (name, bytes) = (reader.name, reading.bytes);
    ALLOCATED.reset_peak_usage();
    let before = ALLOCATED.current_usage();
    (reading.run)();
    let (peak, max) = (ALLOCATED.peak_usage() - before, reader.times * bytes + (1 << 20));
    if bytes >= 1 << 20 {
        println!("{name}: {peak} bytes for {bytes}, {:.1} times", peak as f64 / bytes as f64);
    }
    assert!(peak <= max, "{name}: {peak} bytes for {bytes}, at most {max}");
}

const INPUTS: usize = 2_000;
