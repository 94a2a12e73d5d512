//! Linearizability of reads, writes, compare-and-set, creation and deletion of single nodes.
//!
//! Node by node: a history of operations on single nodes is linearizable if that of each node is.
//! For transactions see [`Transactions`](super::Transactions).

use std::collections::BTreeMap;

use super::order::{Order, Span, order};

/// What was asked of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Operation {
    /// Its data and version.
    Read,
    /// Its data is replaced; if given, only at this version.
    Set {
        /// The data, as a number.
        value: u64,
        /// The version.
        expected: Option<u64>,
    },
    /// It is made.
    Create {
        /// The data, as a number.
        value: u64,
    },
    /// It is removed; if given, only at this version.
    Delete {
        /// The version.
        expected: Option<u64>,
    },
}

/// What was answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Seen {
    /// Data and version, of a read.
    Found(u64, u64),
    /// There is no such node.
    NoNode,
    /// It was set, and has this version now.
    Set(u64),
    /// It was made or removed.
    Done,
    /// It has another version.
    BadVersion,
    /// There is one already.
    NodeExists,
    /// Nobody knows whether it took effect.
    Unknown,
}

/// A history of operations by their nodes.
///
/// ```
/// use quorate::sim::check::{Linear, Operation, Seen};
/// let mut history = Linear::new();
/// let write = history.begin(1, Operation::Create { value: 7 });
/// let read = history.begin(1, Operation::Read);
/// history.end(write, Seen::Done);
/// history.end(read, Seen::NoNode); // it overlaps the write, so it may come before it
/// assert!(history.check().is_ok());
/// let late = history.begin(1, Operation::Read);
/// history.end(late, Seen::NoNode);
/// assert!(history.check().is_err());
/// ```
#[derive(Debug, Default)]
pub struct Linear {
    entries: Vec<Entry>,
    clock: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    node: u64,
    operation: Operation,
    began: u64,
    /// When, and with what; `None` while it is under way.
    ended: Option<(u64, Seen)>,
    /// It was refused and did nothing.
    void: bool,
}

/// Data and version, if there is such a node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct State(pub(super) Option<(u64, u64)>);

impl Linear {
    /// Nothing has happened.
    pub fn new() -> Self {
        Self::default()
    }

    /// An operation is asked for on a node. Returns what it is called in [`end`](Self::end).
    pub fn begin(&mut self, node: u64, operation: Operation) -> usize {
        self.clock += 1;
        let began = self.clock;
        self.entries.push(Entry { node, operation, began, ended: None, void: false });
        self.entries.len() - 1
    }

    /// It was answered.
    pub fn end(&mut self, operation: usize, seen: Seen) {
        self.clock += 1;
        if let Some(entry) = self.entries.get_mut(operation) {
            entry.ended = Some((self.clock, seen)).filter(|(_, seen)| *seen != Seen::Unknown);
        }
    }

    /// It was not taken, and did nothing.
    pub fn refused(&mut self, operation: usize) {
        if let Some(entry) = self.entries.get_mut(operation) {
            entry.void = true;
        }
    }

    /// How many were answered.
    pub fn answered(&self) -> usize {
        self.entries.iter().filter(|entry| entry.ended.is_some()).count()
    }

    /// Whether some order of the operations explains all answers; how many nodes were left
    /// undecided, because there were too many orders to try.
    ///
    /// # Errors
    ///
    /// The node for which there is none, and how far the best one gets.
    pub fn check(&self) -> Result<u64, String> {
        let mut nodes: BTreeMap<u64, Vec<Entry>> = BTreeMap::new();
        for entry in self.entries.iter().filter(|entry| !entry.void) {
            nodes.entry(entry.node).or_default().push(*entry);
        }
        let mut undecided = 0;
        for (node, entries) in nodes {
            let spans: Vec<Span> = entries.iter().map(Entry::span).collect();
            let after = |at: usize, state: &State| {
                let seen = entries[at].ended.map(|(_, seen)| seen);
                state.after(entries[at].operation, seen)
            };
            match order(&spans, State::default(), after) {
                Order::Found => {}
                Order::Undecided => undecided += 1,
                Order::None { best, near } => {
                    let near: Vec<String> = near.iter().map(|at| entries[*at].tell()).collect();
                    let near = near.join("; ");
                    return Err(format!(
                        "node {node}: no order explains more than {best} answers; near there: \
                         {near}"
                    ));
                }
            }
        }
        Ok(undecided)
    }
}

impl Entry {
    fn span(&self) -> Span {
        Span { began: self.began, ended: self.ended.map(|(at, _)| at) }
    }

    fn tell(&self) -> String {
        match self.ended {
            Some((at, seen)) => format!("{:?} {}..{at} = {seen:?}", self.operation, self.began),
            None => format!("{:?} {}..", self.operation, self.began),
        }
    }
}

impl State {
    /// The state after the operation, and its answer.
    pub(super) fn apply(self, operation: Operation) -> (Self, Seen) {
        match (operation, self.0) {
            (Operation::Read, None) => (self, Seen::NoNode),
            (Operation::Read, Some((value, version))) => (self, Seen::Found(value, version)),
            (Operation::Create { value }, None) => (Self(Some((value, 0))), Seen::Done),
            (Operation::Create { .. }, Some(_)) => (self, Seen::NodeExists),
            (Operation::Set { .. } | Operation::Delete { .. }, None) => (self, Seen::NoNode),
            (Operation::Set { expected, .. } | Operation::Delete { expected }, Some((_, now)))
                if expected.is_some_and(|expected| expected != now) =>
            {
                (self, Seen::BadVersion)
            }
            (Operation::Set { value, .. }, Some((_, now))) => {
                (Self(Some((value, now + 1))), Seen::Set(now + 1))
            }
            (Operation::Delete { .. }, Some(_)) => (Self(None), Seen::Done),
        }
    }

    /// The state after the operation, if it can give this answer here.
    fn after(self, operation: Operation, seen: Option<Seen>) -> Option<Self> {
        let (next, answer) = self.apply(operation);
        match seen {
            Some(seen) => (seen == answer).then_some(next),
            // One without an answer matters only where it changes something.
            None => (next != self).then_some(next),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Operation = Operation::Read;

    fn set(value: u64, expected: Option<u64>) -> Operation {
        Operation::Set { value, expected }
    }

    /// (operation, beginning, end, answer) on a node that is made with 0 before.
    fn verdict(history: &[(Operation, u64, u64, Seen)]) -> bool {
        let mut linear = Linear::new();
        let create = linear.begin(1, Operation::Create { value: 0 });
        linear.end(create, Seen::Done);
        let mut moments: Vec<(u64, usize, bool)> = Vec::new();
        for (at, (_, began, ended, _)) in history.iter().enumerate() {
            moments.extend([(*began, at, true), (*ended, at, false)]);
        }
        moments.sort_unstable();
        let mut names = vec![0; history.len()];
        for (_, at, begins) in moments {
            match begins {
                true => names[at] = linear.begin(1, history[at].0),
                false => linear.end(names[at], history[at].3),
            }
        }
        linear.check().is_ok()
    }

    #[test]
    fn histories_that_some_order_explains_pass() {
        let good: [&[_]; 5] = [
            &[(set(1, None), 1, 2, Seen::Set(1)), (READ, 3, 4, Seen::Found(1, 1))],
            // A read beside a write sees either.
            &[(set(1, None), 1, 9, Seen::Set(1)), (READ, 2, 3, Seen::Found(0, 0))],
            &[(set(1, None), 1, 9, Seen::Set(1)), (READ, 2, 3, Seen::Found(1, 1))],
            // What nobody knows may happen late, or never.
            &[
                (set(1, None), 1, 2, Seen::Unknown),
                (READ, 3, 4, Seen::Found(0, 0)),
                (READ, 5, 6, Seen::Found(1, 1)),
            ],
            &[(set(1, None), 1, 2, Seen::Unknown), (set(2, Some(0)), 3, 4, Seen::Set(1))],
        ];
        for history in good {
            assert!(verdict(history), "{history:?}");
        }
    }

    #[test]
    fn known_bad_histories_are_refused() {
        let bad: [&[_]; 9] = [
            // A stale read.
            &[(set(1, None), 1, 2, Seen::Set(1)), (READ, 3, 4, Seen::Found(0, 0))],
            // A read that goes back, beside a long write.
            &[
                (set(1, None), 1, 9, Seen::Set(1)),
                (READ, 2, 3, Seen::Found(1, 1)),
                (READ, 4, 5, Seen::Found(0, 0)),
            ],
            // A lost update: both replaced the same version.
            &[(set(1, Some(0)), 1, 5, Seen::Set(1)), (set(2, Some(0)), 2, 6, Seen::Set(1))],
            // A write that happened twice.
            &[(set(1, None), 1, 2, Seen::Set(1)), (READ, 3, 4, Seen::Found(1, 2))],
            // Out of nowhere.
            &[(READ, 1, 2, Seen::Found(7, 0))],
            &[(READ, 1, 2, Seen::NoNode)],
            // A refusal without a cause.
            &[(set(1, Some(0)), 1, 2, Seen::BadVersion)],
            &[(Operation::Create { value: 3 }, 1, 2, Seen::Done)],
            // An unknown one that happened before it was asked for.
            &[(READ, 1, 2, Seen::Found(1, 1)), (set(1, None), 3, 4, Seen::Unknown)],
        ];
        for history in bad {
            assert!(!verdict(history), "{history:?}");
        }
    }

    #[test]
    fn what_was_refused_did_nothing() {
        let mut linear = Linear::new();
        let create = linear.begin(1, Operation::Create { value: 1 });
        linear.refused(create);
        let read = linear.begin(1, READ);
        linear.end(read, Seen::NoNode);
        assert!(linear.check().is_ok());
        let create = linear.begin(2, Operation::Create { value: 1 });
        linear.refused(create);
        let read = linear.begin(2, READ);
        linear.end(read, Seen::Found(1, 0));
        assert!(linear.check().is_err());
    }
}
