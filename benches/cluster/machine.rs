//! Processor time by thread.

use std::{fs, time::Duration};

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
