//! What benchmarks say of the machine.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::Path,
    time::{Duration, Instant},
};

/// The file system under `dir`, its fsyncs and the processor's cores, in one line; an error where
/// nothing is synced.
pub(crate) fn machine(dir: &Path) -> io::Result<String> {
    let kind = file_system(dir)?;
    if kind == "tmpfs" || kind == "ramfs" {
        let why = format!("{} is on {kind}, which syncs nothing: give --dir", dir.display());
        return Err(io::Error::other(why));
    }
    let fsyncs = fsyncs_per_s(dir)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(format!("{kind}, {fsyncs:.0} fsyncs/s (4 KiB rewritten), {cores} cores"))
}

/// The type of the file system that holds `path`, as Linux names it.
fn file_system(path: &Path) -> io::Result<String> {
    let path = path.canonicalize()?;
    let mounts = fs::read_to_string("/proc/mounts")?;
    let mut best = (0, "unknown".to_string());
    for mount in mounts.lines() {
        let mut fields = mount.split(' ');
        let (_, point, kind) = (fields.next(), fields.next(), fields.next());
        let (Some(point), Some(kind)) = (point, kind) else {
            continue;
        };
        if path.starts_with(point) && point.len() >= best.0 {
            best = (point.len(), kind.to_string());
        }
    }
    Ok(best.1)
}

/// Rewrites 4 KiB of a file that was written before, and syncs it, for half a second.
fn fsyncs_per_s(dir: &Path) -> io::Result<f64> {
    let path = dir.join("fsync-probe");
    let mut file: File = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    file.write_all(&vec![0; 1 << 20])?;
    file.sync_all()?;
    let block = [1u8; 4096];
    let (start, mut count) = (Instant::now(), 0u64);
    while start.elapsed() < Duration::from_millis(500) {
        std::os::unix::fs::FileExt::write_all_at(&file, &block, (count % 256) * 4096)?;
        file.sync_data()?;
        count += 1;
    }
    let rate = count as f64 / start.elapsed().as_secs_f64();
    fs::remove_file(path)?;
    Ok(rate)
}
