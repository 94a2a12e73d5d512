//! Linearizability of transactions over several nodes: guards, two branches, reads inside.
//!
//! That the history of each node is linearizable is not enough here: of two nodes that one
//! transaction changes, nobody may see the one changed and then the other as it was before.

use super::{
    linear::{Operation, Seen, State},
    order::{Order, Span, order},
};

/// What was asked for: if all guards hold, one branch in its order, otherwise the other one. If an
/// operation is refused, nothing has happened. Nodes are numbers, from 0.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Transaction {
    /// What must be true of which node.
    pub guards: Vec<(usize, Test)>,
    /// What happens if the guards hold.
    pub then: Vec<(usize, Operation)>,
    /// What happens if they do not; without it, that is a refusal.
    pub otherwise: Option<Vec<(usize, Operation)>>,
}

/// What a guard asks of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Test {
    /// It exists, or does not.
    Exists(bool),
    /// It exists and has this version.
    Version(u64),
}

/// What was answered to a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Told {
    /// It took effect: whether the guards held, and what each operation of the branch saw.
    Done {
        /// Whether the first branch was taken.
        held: bool,
        /// In their order.
        seen: Vec<Seen>,
    },
    /// A guard did not hold, and there is no second branch.
    GuardFailed,
    /// This operation of the branch was refused, and with it all.
    Refused(usize, Seen),
}

/// A history of transactions.
///
/// ```
/// use quorate::sim::check::{Operation, Seen, Told, Transaction, Transactions};
/// let mut history = Transactions::new();
/// let create = |value| Operation::Create { value };
/// let both = Transaction { then: vec![(0, create(7)), (1, create(7))], ..Default::default() };
/// let both = history.begin(both);
/// let look = |node| Transaction { then: vec![(node, Operation::Read)], ..Default::default() };
/// let done = |seen| Some(Told::Done { held: true, seen });
/// let one = history.begin(look(0));
/// history.end(one, done(vec![Seen::Found(7, 0)]));
/// history.end(both, done(vec![Seen::Done, Seen::Done]));
/// assert!(history.check().is_ok());
/// let other = history.begin(look(1));
/// history.end(other, Some(Told::Refused(0, Seen::NoNode)));
/// assert!(history.check().is_err()); // the one node is there, and the other is not yet
/// ```
#[derive(Debug, Default)]
pub struct Transactions {
    entries: Vec<Entry>,
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    transaction: Transaction,
    began: u64,
    /// When, and with what; `None` while it is under way, and if nobody knows.
    ended: Option<(u64, Told)>,
    /// It was refused and did nothing.
    void: bool,
}

impl Transactions {
    /// Nothing has happened.
    pub fn new() -> Self {
        Self::default()
    }

    /// A transaction is asked for. Returns what it is called in [`end`](Self::end).
    pub fn begin(&mut self, transaction: Transaction) -> usize {
        self.clock += 1;
        let began = self.clock;
        self.entries.push(Entry { transaction, began, ended: None, void: false });
        self.entries.len() - 1
    }

    /// It was answered; with nothing, if nobody knows what became of it.
    pub fn end(&mut self, transaction: usize, told: Option<Told>) {
        self.clock += 1;
        if let Some(entry) = self.entries.get_mut(transaction) {
            entry.ended = told.map(|told| (self.clock, told));
        }
    }

    /// It was not taken, and did nothing.
    pub fn refused(&mut self, transaction: usize) {
        if let Some(entry) = self.entries.get_mut(transaction) {
            entry.void = true;
        }
    }

    /// How many were answered.
    pub fn answered(&self) -> usize {
        self.entries.iter().filter(|entry| entry.ended.is_some()).count()
    }

    /// Whether some order of the transactions explains all answers; `false` if there were too many
    /// orders to try.
    ///
    /// # Errors
    ///
    /// There is none: how far the best one gets.
    pub fn check(&self) -> Result<bool, String> {
        let entries: Vec<&Entry> = self.entries.iter().filter(|entry| !entry.void).collect();
        let span =
            |it: &&Entry| Span { began: it.began, ended: it.ended.as_ref().map(|(at, _)| *at) };
        let spans: Vec<Span> = entries.iter().map(span).collect();
        let nodes = entries.iter().map(|entry| entry.transaction.nodes()).max().unwrap_or(0);
        let after = |at: usize, state: &Vec<State>| {
            let (next, told) = entries[at].transaction.apply(state);
            match &entries[at].ended {
                Some((_, seen)) => (*seen == told).then_some(next),
                // One without an answer matters only where it changes something.
                None => (next != *state).then_some(next),
            }
        };
        match order(&spans, vec![State::default(); nodes], after) {
            Order::Found => Ok(true),
            Order::Undecided => Ok(false),
            Order::None { best, near } => {
                let near: Vec<String> =
                    near.iter().map(|at| format!("{:?}", entries[*at])).collect();
                Err(format!(
                    "no order of the transactions explains more than {best} answers: {}",
                    near.join("; ")
                ))
            }
        }
    }
}

impl Transaction {
    /// One more than the highest number of a node.
    fn nodes(&self) -> usize {
        let branches = self.then.iter().chain(self.otherwise.iter().flatten());
        let all = self.guards.iter().map(|it| it.0).chain(branches.map(|it| it.0));
        all.max().map_or(0, |highest| highest + 1)
    }

    fn apply(&self, state: &[State]) -> (Vec<State>, Told) {
        let held = self.guards.iter().all(|(node, test)| match (*test, state[*node].0) {
            (Test::Exists(exists), node) => node.is_some() == exists,
            (Test::Version(version), node) => node.is_some_and(|it| it.1 == version),
        });
        let branch = match (&self.otherwise, held) {
            (_, true) => &self.then,
            (Some(otherwise), false) => otherwise,
            (None, false) => return (state.to_vec(), Told::GuardFailed),
        };
        let (mut next, mut seen) = (state.to_vec(), Vec::new());
        for (at, (node, operation)) in branch.iter().enumerate() {
            let (after, answer) = next[*node].apply(*operation);
            if matches!(answer, Seen::NoNode | Seen::NodeExists | Seen::BadVersion) {
                return (state.to_vec(), Told::Refused(at, answer));
            }
            next[*node] = after;
            seen.push(answer);
        }
        (next, Told::Done { held, seen })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A transaction, its beginning and end, and what was answered.
    #[derive(Clone, Debug)]
    struct Moment(Transaction, u64, u64, Option<Told>);

    const READ: Operation = Operation::Read;
    const BOTH: [Seen; 2] = [Seen::Set(1), Seen::Set(1)];

    fn all(then: &[(usize, Operation)]) -> Transaction {
        Transaction { then: then.to_vec(), ..Transaction::default() }
    }

    fn set(node: usize, value: u64) -> (usize, Operation) {
        (node, Operation::Set { value, expected: None })
    }

    fn done(seen: &[Seen]) -> Option<Told> {
        Some(Told::Done { held: true, seen: seen.to_vec() })
    }

    fn found(value: u64) -> Seen {
        Seen::Found(value, value)
    }

    /// On nodes 0 and 1, which are made with 0 before.
    fn verdict(history: &[Moment]) -> bool {
        let mut it = Transactions::new();
        let create = Operation::Create { value: 0 };
        let made = it.begin(all(&[(0, create), (1, create)]));
        it.end(made, done(&[Seen::Done, Seen::Done]));
        let mut moments: Vec<(u64, usize, bool)> = Vec::new();
        for (at, Moment(_, began, ended, _)) in history.iter().enumerate() {
            moments.extend([(*began, at, true), (*ended, at, false)]);
        }
        moments.sort_unstable();
        let mut names = vec![0; history.len()];
        for (_, at, begins) in moments {
            match begins {
                true => names[at] = it.begin(history[at].0.clone()),
                false => it.end(names[at], history[at].3.clone()),
            }
        }
        it.check().is_ok()
    }

    fn write() -> Moment {
        Moment(all(&[set(0, 1), set(1, 1)]), 1, 9, done(&BOTH))
    }

    fn look(from: u64, seen: [u64; 2]) -> Moment {
        Moment(all(&[(0, READ), (1, READ)]), from, from + 1, done(&seen.map(found)))
    }

    fn read(node: usize, value: u64, from: u64) -> Moment {
        Moment(all(&[(node, READ)]), from, from + 1, done(&[found(value)]))
    }

    /// Sets both, if nobody has set the first one.
    fn guarded(value: u64) -> Transaction {
        Transaction {
            guards: vec![(0, Test::Version(0))],
            then: vec![set(0, value), set(1, value)],
            otherwise: Some(vec![(1, READ)]),
        }
    }

    /// Removes the first one and sets the second.
    fn swap() -> Moment {
        let swap = all(&[(0, Operation::Delete { expected: Some(0) }), set(1, 1)]);
        Moment(swap, 1, 2, done(&[Seen::Done, Seen::Set(1)]))
    }

    /// Each pair: one that some order explains, and one like it that none does.
    fn judge(pairs: &[(&[Moment], &[Moment])]) {
        for (good, bad) in pairs {
            assert!(verdict(good), "{good:?}");
            assert!(!verdict(bad), "{bad:?}");
        }
    }

    #[test]
    fn who_sees_a_transaction_in_part_is_told_from_who_sees_it_whole() {
        let unknown = || Moment(all(&[set(0, 1), set(1, 1)]), 1, 2, None);
        judge(&[
            // Half of one.
            (&[write(), look(2, [1, 1])], &[write(), look(2, [1, 0])]),
            // The one node after it, and later the other before it: each node alone is in order.
            (&[write(), read(1, 0, 2), read(0, 1, 4)], &[write(), read(0, 1, 2), read(1, 0, 4)]),
            // What was answered is not seen.
            (&[write(), look(10, [1, 1])], &[write(), look(10, [0, 0])]),
            // One of which nobody knows happens late and whole, or not at all.
            (
                &[unknown(), read(0, 0, 3), look(5, [1, 1])],
                &[unknown(), read(0, 1, 3), look(5, [1, 0])],
            ),
            (
                &[unknown(), read(0, 0, 3), read(1, 0, 5)],
                &[unknown(), read(0, 1, 3), read(1, 0, 5)],
            ),
            // A deletion without the rest.
            (&[swap(), read(1, 1, 3)], &[swap(), read(0, 0, 3)]),
        ]);
    }

    #[test]
    fn guards_and_branches_are_looked_at() {
        let not_held = |value| Some(Told::Done { held: false, seen: vec![found(value)] });
        let clash = all(&[set(0, 1), (1, Operation::Create { value: 5 })]);
        let clash = || Moment(clash.clone(), 1, 2, Some(Told::Refused(1, Seen::NodeExists)));
        let once = |value| Transaction {
            guards: vec![(0, Test::Exists(false))],
            ..all(&[(0, Operation::Create { value })])
        };
        let made = || Moment(once(1), 3, 6, done(&[Seen::Done]));
        judge(&[
            // Two hold the same guard: a lost update.
            (
                &[Moment(guarded(1), 1, 9, done(&BOTH)), Moment(guarded(2), 2, 8, not_held(1))],
                &[Moment(guarded(1), 1, 9, done(&BOTH)), Moment(guarded(2), 2, 8, done(&BOTH))],
            ),
            // The wrong branch.
            (&[Moment(guarded(1), 1, 2, done(&BOTH))], &[Moment(guarded(1), 1, 2, not_held(0))]),
            // What was refused leaves something behind.
            (&[clash(), read(0, 0, 3)], &[clash(), read(0, 1, 3)]),
            // A node that is made twice without having been removed.
            (
                &[swap(), made(), Moment(once(2), 4, 5, Some(Told::GuardFailed))],
                &[swap(), made(), Moment(once(2), 4, 5, done(&[Seen::Done]))],
            ),
        ]);
    }

    #[test]
    fn what_was_not_taken_did_nothing() {
        let mut it = Transactions::new();
        let made = it.begin(all(&[(0, Operation::Create { value: 1 })]));
        it.refused(made);
        let read = it.begin(all(&[(0, READ)]));
        it.end(read, done(&[Seen::Found(1, 0)]));
        assert!(it.check().is_err());
    }
}
