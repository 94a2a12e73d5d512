//! Numbers of benchmarks.

/// The value below which `share` of the samples lie, in microseconds; sorts them.
pub(crate) fn percentile(samples_ns: &mut [u64], share: f64) -> f64 {
    if samples_ns.is_empty() {
        return f64::NAN;
    }
    let at = ((samples_ns.len() - 1) as f64 * share) as usize;
    let (_, value, _) = samples_ns.select_nth_unstable(at);
    *value as f64 / 1_000.0
}

/// A number for JSON, which has no infinite ones.
pub(crate) fn json_number(value: f64) -> String {
    match value.is_finite() {
        true => format!("{value:.3}"),
        false => "null".to_string(),
    }
}
