//! Rows of results: as a table for people, as JSON for programs.

use std::{fmt::Write as _, fs, io, path::Path};

use crate::measure::json_number;

/// One line of the table.
pub(crate) struct Row {
    pub(crate) scenario: &'static str,
    pub(crate) storage: &'static str,
    pub(crate) in_flight: usize,
    pub(crate) ops_per_s: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Of the node threads, all nodes together.
    pub(crate) cpu_us_per_op: f64,
    /// Of the clients' threads.
    pub(crate) client_cpu_us_per_op: f64,
    /// Operations per second divided by those of `ratio_to`.
    pub(crate) ratio: Option<f64>,
    pub(crate) ratio_to: &'static str,
}

/// Prints the head of the table.
pub(crate) fn head() {
    println!(
        "{:<18} {:<7} {:>9} {:>12} {:>9} {:>9} {:>10} {:>11}  ratio",
        "scenario", "storage", "in flight", "ops/s", "p50 us", "p99 us", "cpu us/op", "client cpu"
    );
}

impl Row {
    /// Prints this row.
    pub(crate) fn print(&self) {
        let ratio = match self.ratio {
            Some(ratio) => format!("{ratio:.2} of {}", self.ratio_to),
            None => String::new(),
        };
        println!(
            "{:<18} {:<7} {:>9} {:>12.0} {:>9.1} {:>9.1} {:>10.2} {:>11.2}  {ratio}",
            self.scenario,
            self.storage,
            self.in_flight,
            self.ops_per_s,
            self.p50_us,
            self.p99_us,
            self.cpu_us_per_op,
            self.client_cpu_us_per_op
        );
    }

    fn json(&self) -> String {
        let mut out = String::new();
        let _ = write!(
            out,
            "{{\"bench\":\"{}\",\"scenario\":\"{}\",\"storage\":\"{}\",\"in_flight\":{},\
             \"ops_per_s\":{},\"p50_us\":{},\"p99_us\":{},\"cpu_us_per_op\":{},\"ratio\":{},\
             \"ratio_to\":\"{}\"}}",
            crate::BENCH,
            self.scenario,
            self.storage,
            self.in_flight,
            json_number(self.ops_per_s),
            json_number(self.p50_us),
            json_number(self.p99_us),
            json_number(self.cpu_us_per_op),
            self.ratio.map_or("null".to_string(), json_number),
            self.ratio_to
        );
        out
    }
}

/// Writes the rows as a JSON array.
pub(crate) fn write_json(path: &Path, rows: &[Row]) -> io::Result<()> {
    let rows: Vec<String> = rows.iter().map(Row::json).collect();
    fs::write(path, format!("[\n{}\n]\n", rows.join(",\n")))
}
