//! The words of the command line.

use std::collections::BTreeMap;

/// Numbers by the names that stand before them.
pub(super) struct Options(BTreeMap<String, u64>);

impl Options {
    /// # Errors
    ///
    /// What is wrong, and what there is, for one word too many or too few.
    pub(super) fn parse(words: &[String], known: &[&str]) -> Result<Self, String> {
        let usage = || format!("options, each with a number: {}", known.join(", "));
        let mut options = BTreeMap::new();
        for pair in words.chunks(2) {
            let name = &pair[0];
            if !known.contains(&&**name) {
                return Err(format!("there is no option {name}; {}", usage()));
            }
            let number = pair.get(1).and_then(|text| text.parse().ok());
            let number = number.ok_or_else(|| format!("{name} needs a number; {}", usage()))?;
            options.insert(name.clone(), number);
        }
        Ok(Self(options))
    }

    pub(super) fn get(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }

    pub(super) fn or(&self, name: &str, default: u64) -> u64 {
        self.get(name).unwrap_or(default)
    }
}
