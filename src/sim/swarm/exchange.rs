//! A worker's transactions over several nodes: guards, two branches, reads inside.

use bytes::Bytes;

use crate::{
    client::{Client, Completion, Error, Session, Written},
    op::{Check, CreateMode, Guard, Op, OpError, Outcome, Stat, Txn},
    path::Path,
    sim::{
        Rng,
        check::{Operation, Seen, Test, Told, Transaction},
    },
};

use super::books::Books;

/// Transactions that are under way.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    out: Vec<(usize, Completion<Written>)>,
}

impl Exchange {
    /// Asks for one, in a session or outside of one.
    pub(super) fn ask(
        &mut self,
        client: &Client,
        session: Option<&Session>,
        books: &mut Books,
        rng: &mut Rng,
    ) {
        if self.out.len() >= OUT_MAX {
            return;
        }
        let transaction = draw(books, rng);
        let txn = submitted(&transaction);
        let entry = books.transactions.begin(transaction);
        let write = match session {
            Some(session) => session.txn(txn),
            None => client.txn(txn),
        };
        self.out.push((entry, write));
    }

    /// Takes answers; returns those that were made.
    pub(super) fn poll(&mut self, books: &mut Books) -> Vec<Written> {
        let mut made = Vec::new();
        self.out.retain_mut(|(entry, write)| {
            let Some(answer) = write.try_take() else {
                return true;
            };
            books.answered += 1;
            match &answer {
                Ok(written) => books.transactions.end(*entry, done(&written.outcome)),
                Err(error) if error.outcome_unknown() => books.transactions.end(*entry, None),
                Err(error) => match refused(error) {
                    Some(told) => books.transactions.end(*entry, Some(told)),
                    None => books.transactions.refused(*entry),
                },
            }
            made.extend(answer);
            false
        });
        made
    }
}

/// Mostly of two nodes; the versions that are asked for are often right.
fn draw(books: &mut Books, rng: &mut Rng) -> Transaction {
    let (one, other) = (rng.below(NODES) as usize, rng.below(NODES) as usize);
    let version = |rng: &mut Rng| rng.below(4);
    let mut value = || {
        books.next_value += 1;
        books.next_value
    };
    let set = |value| Operation::Set { value, expected: None };
    match rng.below(10) {
        0..3 => Transaction {
            then: vec![(one, Operation::Create { value: value() })],
            otherwise: Some(vec![(one, set(value())), (other, Operation::Read)]),
            guards: vec![(one, Test::Exists(false))],
        },
        3..6 => Transaction {
            guards: vec![(one, Test::Version(version(rng)))],
            then: vec![(one, set(value())), (other, set(value()))],
            otherwise: Some(vec![(one, Operation::Read), (other, Operation::Read)]),
        },
        6 => Transaction {
            guards: vec![(one, Test::Exists(true)), (other, Test::Version(version(rng)))],
            then: vec![(one, Operation::Delete { expected: None }), (other, Operation::Read)],
            otherwise: None,
        },
        7 => Transaction {
            then: vec![
                (one, set(value())),
                (other, Operation::Create { value: value() }),
                (one, Operation::Read),
            ],
            ..Transaction::default()
        },
        _ => Transaction {
            then: vec![(one, Operation::Read), (other, Operation::Read)],
            ..Transaction::default()
        },
    }
}

/// What the cluster is asked.
fn submitted(of: &Transaction) -> Txn {
    let path = |node: &usize| -> Path { format!("/exchange-{node}").parse().expect("valid") };
    let op = |(node, operation): &(usize, Operation)| match *operation {
        Operation::Read => Op::Get { path: path(node) },
        Operation::Set { value, expected } => {
            Op::Set { path: path(node), data: data(value), version: expected }
        }
        Operation::Create { value } => Op::Create {
            path: path(node).into(),
            data: data(value),
            mode: CreateMode::Persistent,
            acl: None,
        },
        Operation::Delete { expected } => Op::Delete { path: path(node), version: expected },
    };
    let mut txn = Txn::all(of.then.iter().map(op));
    if let Some(otherwise) = &of.otherwise {
        txn = txn.or_else(otherwise.iter().map(op));
    }
    of.guards.iter().fold(txn, |txn, (node, test)| {
        let check = match *test {
            Test::Exists(exists) => Check::Exists(exists),
            Test::Version(version) => Check::Version(version),
        };
        txn.guard(Guard { path: path(node), check })
    })
}

fn data(value: u64) -> Bytes {
    value.to_string().into()
}

/// What an outcome says.
fn done(outcome: &Outcome) -> Option<Told> {
    let number = |data: &[u8]| String::from_utf8_lossy(data).parse().unwrap_or(u64::MAX);
    let seen = |outcome: &Outcome| match outcome {
        Outcome::Set { stat: Stat { version, .. } } => Seen::Set(*version),
        Outcome::Node { data, stat } => Seen::Found(number(data), stat.version),
        _ => Seen::Done,
    };
    match outcome {
        Outcome::Txn { held, results } => {
            Some(Told::Done { held: *held, seen: results.iter().map(seen).collect() })
        }
        _ => None,
    }
}

/// Why nothing has happened; `None` if it was not taken at all.
fn refused(error: &Error) -> Option<Told> {
    let seen = |error: &OpError| match error {
        OpError::NoNode { .. } => Some(Seen::NoNode),
        OpError::NodeExists { .. } => Some(Seen::NodeExists),
        OpError::BadVersion { .. } => Some(Seen::BadVersion),
        _ => None,
    };
    match error.op()? {
        OpError::GuardFailed { .. } => Some(Told::GuardFailed),
        OpError::InTxn { index, cause } => Some(Told::Refused(*index as usize, seen(cause)?)),
        other => Some(Told::Refused(0, seen(other)?)),
    }
}

const NODES: u64 = 4;
const OUT_MAX: usize = 2;
