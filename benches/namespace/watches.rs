//! One write that many watches look at, through a node, its driver and a client's handles.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use quorate::{
    Boot, ClusterId, Config, CreateMode, Filter, NodeId, Path, StoreId,
    client::{Client, Watcher},
    driver::{Driver, Host, Inbox, Log, Switchboard},
    node::Restored,
};

use crate::{measure, table::Row};

/// Writes for a while; each counts as done when every watcher has taken its event.
pub(crate) fn fan_out(watches: usize, time: Duration) -> Result<Row, Box<dyn Error>> {
    let driver = start()?;
    let client = driver.client();
    let hot: Path = "/hot".parse()?;
    client.create(&hot, "", CreateMode::Persistent).wait()?;
    let mut watchers = Vec::with_capacity(watches);
    // No more at once than an inbox has room for.
    while watchers.len() < watches {
        let some = 10_000.min(watches - watchers.len());
        let arm = |_| client.watch(Filter::Node(hot.clone()), None);
        let armed: Vec<_> = (0..some).map(arm).collect();
        for watcher in armed {
            watchers.push(watcher.wait()?);
        }
    }
    let (mut samples_ns, mut total, mut events) = (Vec::new(), Duration::ZERO, 0);
    let cpu = machine_cpu();
    while total < time || samples_ns.len() < 3 {
        let took = write_and_take(client, &hot, &mut watchers)?;
        samples_ns.push(took.as_nanos() as u64);
        total += took;
        events += watches;
    }
    let cpu = machine_cpu().saturating_sub(cpu);
    driver.stop();
    Ok(Row {
        scenario: "watch_events",
        storage: "memory",
        in_flight: watches,
        ops_per_s: events as f64 / total.as_secs_f64(),
        p50_us: measure::percentile(&mut samples_ns, 0.5),
        p99_us: measure::percentile(&mut samples_ns, 0.99),
        cpu_us_per_op: cpu.as_secs_f64() * 1e6 / events as f64,
        client_cpu_us_per_op: 0.0,
        ratio: None,
        ratio_to: "",
    })
}

/// From the moment before the write to the last event taken.
fn write_and_take(
    client: &Client,
    path: &Path,
    watchers: &mut [Watcher],
) -> Result<Duration, Box<dyn Error>> {
    let start = Instant::now();
    let written = client.set(path, "x", None);
    for watcher in watchers {
        let changes = watcher.next().ok_or("the watch is over")??;
        if changes.events.len() != 1 {
            return Err(format!("one event was due, not {}", changes.events.len()).into());
        }
    }
    let took = start.elapsed();
    written.wait()?;
    Ok(took)
}

/// A member that is a cluster of its own, in memory.
fn start() -> Result<Driver, Box<dyn Error>> {
    let id = NodeId::new(1).ok_or("1 is an id")?;
    let config = Config::founding(ClusterId::named("bench"), id, [id]).build()?;
    let inbox = Inbox::new();
    let line = Switchboard::new().connect(id, inbox.clone());
    let store = StoreId::from_bytes([1; 16]);
    let restored = Restored::new(store, Boot { counter: 1, nonce: 1 });
    Ok(Driver::spawn(Host::new(config, Log::Memory, restored, line, inbox)?)?)
}

fn machine_cpu() -> Duration {
    crate::machine::cpu_of("quorate")
}
