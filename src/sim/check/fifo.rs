//! First in, first out, exactly once: a session's writes take effect in the order in which they
//! were submitted, without a hole, and none of them twice.

use std::collections::BTreeMap;

/// What was submitted under each name, by number from 1 on, and what was acknowledged.
///
/// ```
/// use quorate::sim::check::Fifo;
/// let mut fifo = Fifo::new();
/// fifo.acknowledged("a", 1);
/// fifo.acknowledged("a", 2);
/// assert!(fifo.check([("a", 1), ("b", 1), ("a", 2), ("a", 3)]).is_ok());
/// assert!(fifo.check([("a", 2), ("a", 1)]).is_err()); // out of order
/// assert!(fifo.check([("a", 1), ("a", 1), ("a", 2)]).is_err()); // twice
/// assert!(fifo.check([("a", 1)]).is_err()); // acknowledged and lost
/// ```
#[derive(Debug, Default)]
pub struct Fifo {
    /// The highest number of each that was acknowledged.
    acknowledged: BTreeMap<String, u64>,
}

impl Fifo {
    /// Nothing was submitted.
    pub fn new() -> Self {
        Self::default()
    }

    /// A write was acknowledged.
    pub fn acknowledged(&mut self, name: &str, number: u64) {
        let highest = self.acknowledged.entry(name.to_owned()).or_default();
        *highest = number.max(*highest);
    }

    /// Whether `effects`, everything that took effect, in that order, is right: of each name a
    /// prefix of 1, 2, 3 and so on, which has everything that was acknowledged.
    ///
    /// # Errors
    ///
    /// The name, and what is wrong with it.
    pub fn check<'a>(
        &self,
        effects: impl IntoIterator<Item = (&'a str, u64)>,
    ) -> Result<(), String> {
        let mut last: BTreeMap<&str, u64> = BTreeMap::new();
        for (name, number) in effects {
            let last = last.entry(name).or_default();
            if number != *last + 1 {
                return Err(format!("write {number} of {name} took effect after write {last}"));
            }
            *last = number;
        }
        for (name, &highest) in &self.acknowledged {
            let last = last.get(name.as_str()).copied().unwrap_or(0);
            if last < highest {
                return Err(format!(
                    "write {highest} of {name} was acknowledged, and {last} is the last one there"
                ));
            }
        }
        Ok(())
    }
}
