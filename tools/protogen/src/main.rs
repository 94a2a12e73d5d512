//! Regenerates `src/proto.rs` from `proto/quorate.proto`, without a protoc.
//!
//! Run from the project's root: `cargo run --manifest-path tools/protogen/Cargo.toml`.

use std::{error::Error, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let descriptors = protox::compile(["quorate.proto"], ["proto"])?;
    let out = std::env::temp_dir().join("quorate-protogen");
    fs::create_dir_all(&out)?;
    prost_build::Config::new()
        .bytes(["."])
        .out_dir(&out)
        .compile_fds(descriptors)?;
    let code = fs::read_to_string(out.join("quorate.rs"))?;
    let head = "//! Generated from proto/quorate.proto by tools/protogen; do not edit.\n\n";
    fs::write(Path::new("src/proto.rs"), format!("{head}{code}"))?;
    Ok(())
}
