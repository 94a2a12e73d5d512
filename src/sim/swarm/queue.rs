//! A worker that writes numbered items in its session, several at a time.

use std::collections::VecDeque;

use crate::{
    client::{Completion, Error, Session, SessionKey, Written},
    node::{Consistency, RequestError, Unknown},
    op::{CreateMode, Stat},
    path::Path,
};

use super::books::{Books, QUEUE};

/// The items of one session.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) name: String,
    key: SessionKey,
    next: u64,
    out: VecDeque<(u64, Completion<Written>)>,
    /// A look at the queue, and the last item that was written before.
    look: Option<(u64, Completion<Option<Stat>>)>,
    /// An item was refused: first everything behind it is answered.
    refused: Option<u64>,
    /// Nobody knows what became of an item, so nothing follows it.
    over: bool,
}

impl Queue {
    pub(super) fn new(name: String, key: SessionKey) -> Self {
        Self { name, key, next: 1, out: VecDeque::new(), look: None, refused: None, over: false }
    }

    /// Writes the next item, if there is room.
    pub(super) fn push(&mut self, session: &Session) {
        if self.over || self.refused.is_some() || self.out.len() >= OUT_MAX {
            return;
        }
        let prefix = Path::sequential_prefix(&format!("{QUEUE}/i-")).expect("valid");
        let data = format!("{} {}", self.name, self.next);
        let create = session.create_sequential(prefix, data, CreateMode::PersistentSequential);
        self.out.push_back((self.next, create));
        if self.look.is_none() {
            let path: Path = QUEUE.parse().expect("valid");
            self.look = Some((self.next, session.exists(&path, Consistency::Local)));
        }
        self.next += 1;
    }

    /// Takes answers; returns those of writes that were made.
    pub(super) fn poll(&mut self, books: &mut Books) -> Vec<Written> {
        let mut made = Vec::new();
        while let Some((number, write)) = self.out.front_mut() {
            let (number, Some(answer)) = (*number, write.try_take()) else {
                break;
            };
            self.out.pop_front();
            books.answered += 1;
            match answer {
                Ok(written) => {
                    books.fifo.acknowledged(&self.name, number);
                    let zxid = written.stat().map_or(written.zxid, |stat| stat.czxid);
                    books.moves.wrote(self.key.session, self.key.epoch, zxid);
                    made.push(written);
                }
                // An attachment that lives has every reply kept that it has not had.
                Err(Error::Request(RequestError::Unknown(Unknown::SnapshotInstalled))) => {
                    let name = &self.name;
                    books.wrong = Some(format!("the reply to write {number} of {name} is gone"));
                }
                // It may be there: the session goes on only if what follows is in order after it.
                Err(error) if error.outcome_unknown() => self.over = true,
                Err(_) => self.refused = self.refused.or(Some(number)),
            }
        }
        if let Some((after, answer)) = self.look.take() {
            self.looked(after, answer, books);
        }
        if self.out.is_empty() {
            if let Some(number) = self.refused.take() {
                self.next = number;
            }
        }
        made
    }

    /// What the session reads, it reads after all that it has written before.
    fn looked(&mut self, after: u64, mut look: Completion<Option<Stat>>, books: &mut Books) {
        let first = self.out.front().map_or(u64::MAX, |(number, _)| *number);
        match look.try_take() {
            None => self.look = Some((after, look)),
            Some(Ok(_)) if first <= after => {
                let name = &self.name;
                books.wrong = Some(format!("{name} reads behind write {after}, before {first}"));
            }
            Some(_) => {}
        }
    }
}

const OUT_MAX: usize = 6;
