//! Rights: nobody is told of what they may not read.

use std::collections::{BTreeMap, BTreeSet};

/// Who may read which version of which node, and who was told of it.
///
/// A test makes the version part of what it asks for (the list and the data are replaced in one
/// transaction, at a version that it names), and gives each version one list of readers.
///
/// ```
/// use quorate::sim::check::Leaks;
/// let mut leaks = Leaks::new();
/// leaks.allowed("/a", 1, ["ann"]);
/// assert!(leaks.told("ann", "/a", 1).is_ok());
/// assert!(leaks.told("bob", "/a", 1).is_err());
/// assert!(leaks.told("ann", "/a", 2).is_err()); // nobody has allowed that to anybody
/// ```
#[derive(Debug, Default)]
pub struct Leaks {
    readers: BTreeMap<(String, u64), BTreeSet<String>>,
    told: u64,
}

impl Leaks {
    /// Nobody may read anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// These may read a node at this version; others may so if they were allowed before.
    pub fn allowed<'a>(
        &mut self,
        node: &str,
        version: u64,
        readers: impl IntoIterator<Item = &'a str>,
    ) {
        let known = self.readers.entry((node.to_owned(), version)).or_default();
        known.extend(readers.into_iter().map(str::to_owned));
    }

    /// Somebody was told of a node at a version: its data, its stat, a name that only that version
    /// has, or an event.
    ///
    /// # Errors
    ///
    /// It was not for them.
    pub fn told(&mut self, who: &str, node: &str, version: u64) -> Result<(), String> {
        self.told += 1;
        let readers = self.readers.get(&(node.to_owned(), version));
        match readers.is_some_and(|readers| readers.contains(who)) {
            true => Ok(()),
            false => Err(format!(
                "{who} was told of {node} at version {version}, which is for {readers:?}"
            )),
        }
    }

    /// How often anybody was told of something.
    pub fn seen(&self) -> u64 {
        self.told
    }
}
