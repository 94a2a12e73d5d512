//! What the machine does: processor time by thread, and the disk's fsyncs.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::Path,
    time::{Duration, Instant},
};

/// Processor time of this process's threads whose name starts with `prefix`, as Linux counts it.
pub(crate) fn cpu_of(prefix: &str) -> Duration {
    let mut total = 0;
    for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if name.starts_with(prefix) {
            let stat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let on_cpu = stat.split(' ').next().and_then(|ns| ns.parse::<u64>().ok());
            total += on_cpu.unwrap_or(0);
        }
    }
    Duration::from_nanos(total)
}

/// The type of the file system that holds `path`, as Linux names it.
pub(crate) fn file_system(path: &Path) -> io::Result<String> {
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
pub(crate) fn fsyncs_per_s(dir: &Path) -> io::Result<f64> {
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
