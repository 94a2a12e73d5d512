//! The sessions attached here by handles: sequence numbers, refusals, keep-alives.
//!
//! Invariant (ARCHITECTURE.md, rule 7): after a write of a session was refused here, no write of it
//! that was submitted before the application saw the refusal is sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    client::{
        Error,
        completion::{Adopt, Promise},
        session::SessionCell,
    },
    id::SessionId,
    node::{Detach, Node, Request, Seq, SubmitError, Ticket},
    op::Txn,
};

#[derive(Debug, Default)]
pub(super) struct Seats {
    seats: BTreeMap<SessionId, Seat>,
    /// When the next keep-alive of each is due.
    due: BTreeSet<(Duration, SessionId)>,
}

#[derive(Debug)]
struct Seat {
    cell: Arc<SessionCell>,
    epoch: u64,
    /// The number of the last write that the node took.
    last_seq: u64,
    /// Every reply up to this number has reached its completion.
    acked: u64,
    /// Goes up with each refusal of a write.
    generation: u64,
    keep_alive_at: Duration,
}

impl Seats {
    /// Seats a session; returns the cell of an older attachment that it replaces.
    pub(super) fn seat(
        &mut self,
        cell: Arc<SessionCell>,
        last_seq: u64,
        now: Duration,
    ) -> Option<Arc<SessionCell>> {
        let id = cell.id;
        let old = self.unseat(id);
        let keep_alive_at = now + keep_alive_interval(&cell);
        self.due.insert((keep_alive_at, id));
        let seat = Seat {
            epoch: cell.epoch.load(Ordering::Acquire),
            cell,
            last_seq,
            acked: last_seq,
            generation: 0,
            keep_alive_at,
        };
        self.seats.insert(id, seat);
        if let Some(old) = &old {
            old.end(Detach::Moved);
        }
        old
    }

    pub(super) fn unseat(&mut self, id: SessionId) -> Option<Arc<SessionCell>> {
        let seat = self.seats.remove(&id)?;
        self.due.remove(&(seat.keep_alive_at, id));
        Some(seat.cell)
    }

    /// The attachment is over; returns its cell if it is one of ours.
    pub(super) fn detached(
        &mut self,
        id: SessionId,
        epoch: u64,
        cause: Detach,
    ) -> Option<Arc<SessionCell>> {
        let seat = self.seats.get(&id)?;
        if seat.epoch != epoch {
            return None;
        }
        seat.cell.end(cause);
        self.unseat(id)
    }

    /// Whether the handle's session is seated.
    pub(super) fn is_seated(&self, cell: &Arc<SessionCell>) -> bool {
        let seat = self.seats.get(&cell.id);
        seat.is_some_and(|seat| Arc::ptr_eq(&seat.cell, cell))
    }

    /// Submits an application's write, unless an earlier refusal was not seen yet. Returns where
    /// it stands, and the promise to be kept.
    pub(super) fn submit<T>(
        &mut self,
        node: &mut Node,
        (cell, generation): (&Arc<SessionCell>, u64),
        txn: Txn,
        mut promise: Promise<T>,
    ) -> Option<(Ticket, u64, Promise<T>)> {
        if !self.is_seated(cell) {
            promise.fill(Err(over(cell)));
            return None;
        }
        let seat = self.seats.get_mut(&cell.id)?;
        let refusal = if generation < seat.generation {
            Error::Withheld
        } else {
            match seat.request(node, |seq| Request::SessionTxn { seq, txn }) {
                Ok(ticket) => {
                    promise.submitted();
                    return Some((ticket, seat.last_seq, promise));
                }
                Err(error) => {
                    seat.generation += 1;
                    Error::Submit(error)
                }
            }
        };
        let adopt = Adopt { handle: Arc::clone(&cell.generation), generation: seat.generation };
        promise.fill_adopting(Err(refusal), Some(adopt));
        None
    }

    /// Submits a recipe's write; a refusal is the recipe's to see, at once.
    pub(super) fn submit_own(
        &mut self,
        node: &mut Node,
        id: SessionId,
        txn: Txn,
    ) -> Option<(Ticket, u64)> {
        let seat = self.seats.get_mut(&id)?;
        let ticket = seat.request(node, |seq| Request::SessionTxn { seq, txn }).ok()?;
        Some((ticket, seat.last_seq))
    }

    pub(super) fn close(
        &mut self,
        node: &mut Node,
        cell: &Arc<SessionCell>,
    ) -> Result<(Ticket, u64), Error> {
        if !self.is_seated(cell) {
            return Err(over(cell));
        }
        let seat = self.seats.get_mut(&cell.id).ok_or_else(|| over(cell))?;
        // Whatever becomes of it, nobody keeps the session alive any more.
        self.due.remove(&(seat.keep_alive_at, cell.id));
        let ticket = seat.request(node, |seq| Request::CloseSession { seq })?;
        Ok((ticket, seat.last_seq))
    }

    /// A reply has reached its completion.
    pub(super) fn replied(&mut self, id: SessionId, seq: u64) {
        if let Some(seat) = self.seats.get_mut(&id) {
            seat.acked = seat.acked.max(seq.min(seat.last_seq));
        }
    }

    pub(super) fn renewed(&self, id: SessionId, epoch: u64, until: Duration) {
        if let Some(seat) = self.seats.get(&id).filter(|seat| seat.epoch == epoch) {
            seat.cell.renew(until);
        }
    }

    /// Submits the keep-alives that are due.
    pub(super) fn keep_alive(&mut self, node: &mut Node, now: Duration) {
        while let Some(&(at, id)) = self.due.first().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, id));
            let Some(seat) = self.seats.get_mut(&id) else {
                continue;
            };
            let request = Request::KeepAlive { session: id, epoch: seat.epoch, acked: seat.acked };
            // Refused or lost: the next one is as good.
            let _ = node.submit(request);
            seat.keep_alive_at = now + keep_alive_interval(&seat.cell);
            self.due.insert((seat.keep_alive_at, id));
        }
    }

    /// The node has ended, and with it what it knows of sessions.
    pub(super) fn clear(&mut self) {
        self.seats.clear();
        self.due.clear();
    }
}

impl Seat {
    fn request(
        &mut self,
        node: &mut Node,
        request: impl FnOnce(Seq) -> Request,
    ) -> Result<Ticket, SubmitError> {
        let seq = Seq {
            session: self.cell.id,
            epoch: self.epoch,
            seq: self.last_seq + 1,
            acked: self.acked,
        };
        let ticket = node.submit(request(seq))?;
        self.last_seq += 1;
        Ok(ticket)
    }
}

/// What a write of a session that is not seated gets.
pub(super) fn over(cell: &SessionCell) -> Error {
    cell.over_error().unwrap_or(Error::SessionOver { session: cell.id, cause: Detach::Moved })
}

/// Two keep-alives may be lost before the third comes in time.
fn keep_alive_interval(cell: &SessionCell) -> Duration {
    cell.ttl / 3
}
