//! Writes the inputs to start from: `RUSTFLAGS="--cfg fuzzing" cargo run --bin seeds` in `fuzz/`.

use std::{fs, io, path::Path};

fn main() -> io::Result<()> {
    for target in quorate::fuzz::TARGETS {
        let folder = Path::new("corpus").join(target.name);
        fs::create_dir_all(&folder)?;
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            fs::write(folder.join(format!("seed-{number:02}")), seed)?;
        }
    }
    Ok(())
}
