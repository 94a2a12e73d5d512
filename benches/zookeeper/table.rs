//! Rows of results: as a table for people, as JSON for programs.

use std::{fs, io, path::Path, time::Duration};

use crate::{
    measure::{json_number, percentile},
    servers::Cpu,
};

/// One line of the table; what a scenario does not measure is not a number.
pub(crate) struct Row {
    pub(crate) scenario: &'static str,
    pub(crate) software: &'static str,
    pub(crate) ops_per_s: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Of the processes of all three servers together.
    pub(crate) cpu_us_per_op: f64,
    /// Of the load generator.
    pub(crate) client_cpu_us_per_op: f64,
    /// Of one server, a node.
    pub(crate) memory_bytes: f64,
}

/// What is aimed at, as a share of Apache's.
struct Aim {
    scenario: &'static str,
    what: &'static str,
    of: fn(&Row) -> f64,
    bound: Bound,
}

enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// Prints the head of the table.
pub(crate) fn head() {
    println!(
        "{:<10} {:<8} {:>10} {:>10} {:>10} {:>10} {:>11} {:>12}",
        "scenario", "server", "ops/s", "p50 us", "p99 us", "cpu us/op", "client cpu", "bytes/node"
    );
}

impl Row {
    /// What was done in this time and at this cost, each with its latency.
    pub(crate) fn new(
        scenario: &'static str,
        software: &'static str,
        (elapsed, cost): (Duration, Cpu),
        samples_ns: &mut [u64],
    ) -> Self {
        let ops = samples_ns.len() as f64;
        Self {
            scenario,
            software,
            ops_per_s: ops / elapsed.as_secs_f64(),
            p50_us: percentile(samples_ns, 0.5),
            p99_us: percentile(samples_ns, 0.99),
            cpu_us_per_op: cost.servers.as_secs_f64() * 1e6 / ops,
            client_cpu_us_per_op: cost.clients.as_secs_f64() * 1e6 / ops,
            memory_bytes: f64::NAN,
        }
    }

    /// What each node takes.
    pub(crate) fn of_memory(
        scenario: &'static str,
        software: &'static str,
        memory_bytes: f64,
    ) -> Self {
        Self { memory_bytes, ..Self::new(scenario, software, Default::default(), &mut []) }
    }

    /// Prints this row.
    pub(crate) fn print(&self) {
        let cell = |value: f64, places: usize| match value.is_finite() {
            true => format!("{value:.places$}"),
            false => String::new(),
        };
        println!(
            "{:<10} {:<8} {:>10} {:>10} {:>10} {:>10} {:>11} {:>12}",
            self.scenario,
            self.software,
            cell(self.ops_per_s, 0),
            cell(self.p50_us, 0),
            cell(self.p99_us, 0),
            cell(self.cpu_us_per_op, 2),
            cell(self.client_cpu_us_per_op, 2),
            cell(self.memory_bytes, 0)
        );
    }

    fn json(&self) -> String {
        format!(
            "{{\"bench\":\"zookeeper\",\"scenario\":\"{}\",\"server\":\"{}\",\"ops_per_s\":{},\
             \"p50_us\":{},\"p99_us\":{},\"cpu_us_per_op\":{},\"client_cpu_us_per_op\":{},\
             \"memory_bytes_per_node\":{}}}",
            self.scenario,
            self.software,
            json_number(self.ops_per_s),
            json_number(self.p50_us),
            json_number(self.p99_us),
            json_number(self.cpu_us_per_op),
            json_number(self.client_cpu_us_per_op),
            json_number(self.memory_bytes)
        )
    }
}

/// Prints how ours stand beside Apache's, and whether that is what is aimed at.
pub(crate) fn compare(rows: &[Row]) {
    for Aim { scenario, what, of, bound } in &AIMS {
        let find = |software| {
            let row = rows.iter().find(|it| it.scenario == *scenario && it.software == software);
            row.map(of)
        };
        let (Some(ours), Some(apache)) = (find("quorate"), find("apache")) else {
            continue;
        };
        let ratio = ours / apache;
        let (met, aim) = match bound {
            Bound::AtLeast(least) => (ratio >= *least, format!("at least {least:.2}")),
            Bound::AtMost(most) => (ratio <= *most, format!("at most {most:.2}")),
        };
        let met = if met { "met" } else { "MISSED" };
        println!("{scenario:<10} {what:<20} {ratio:>6.2} of Apache's, aim {aim}: {met}");
    }
}

/// Writes the rows as a JSON array.
pub(crate) fn write_json(path: &Path, rows: &[Row]) -> io::Result<()> {
    let rows: Vec<String> = rows.iter().map(Row::json).collect();
    fs::write(path, format!("[\n{}\n]\n", rows.join(",\n")))
}

const AIMS: [Aim; 7] = [
    Aim { scenario: "set", what: "ops/s", of: OPS, bound: Bound::AtLeast(3.0) },
    Aim { scenario: "set", what: "server CPU an op", of: CPU, bound: Bound::AtMost(1.0 / 4.0) },
    Aim { scenario: "get", what: "ops/s", of: OPS, bound: Bound::AtLeast(3.0) },
    Aim { scenario: "get", what: "server CPU an op", of: CPU, bound: Bound::AtMost(1.0 / 3.0) },
    Aim { scenario: "session", what: "ops/s", of: OPS, bound: Bound::AtLeast(3.0) },
    Aim {
        scenario: "fan_out",
        what: "server CPU an event",
        of: CPU,
        bound: Bound::AtMost(1.0 / 3.0),
    },
    Aim { scenario: "memory", what: "bytes a node", of: BYTES, bound: Bound::AtMost(2.0 / 3.0) },
];
const OPS: fn(&Row) -> f64 = |row| row.ops_per_s;
const CPU: fn(&Row) -> f64 = |row| row.cpu_us_per_op;
const BYTES: fn(&Row) -> f64 = |row| row.memory_bytes;
