//! The sessions attached here by handles: sequence numbers, refusals, keep-alives.
//!
//! Invariant (ARCHITECTURE.md, rule 7): after a write of a session was refused here, no write of it
//! that was submitted before the application saw the refusal is sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use crate::{
    client::{
        Error,
        completion::{Adopt, Promise},
        lease::LeaseCell,
        session::SessionCell,
    },
    id::{LeaseId, SessionId},
    node::{Detach, Node, Request, Seq, SubmitError, Ticket},
    op::Txn,
    recipes::Failure,
};

#[derive(Debug, Default)]
pub(super) struct Seats {
    seats: BTreeMap<SessionId, Seat>,
    /// When the next keep-alive of each is due.
    due: BTreeSet<(Duration, SessionId, Option<LeaseId>)>,
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
    leases: BTreeMap<LeaseId, LeaseSeat>,
}

/// A lease whose handles live.
#[derive(Debug)]
struct LeaseSeat {
    cell: Weak<LeaseCell>,
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
        let keep_alive_at = now + keep_alive_interval(cell.ttl);
        self.due.insert((keep_alive_at, id, None));
        let seat = Seat {
            epoch: cell.epoch.load(Ordering::Acquire),
            cell,
            last_seq,
            acked: last_seq,
            generation: 0,
            keep_alive_at,
            leases: BTreeMap::new(),
        };
        self.seats.insert(id, seat);
        if let Some(old) = &old {
            old.end(Detach::Moved);
        }
        old
    }

    pub(super) fn unseat(&mut self, id: SessionId) -> Option<Arc<SessionCell>> {
        let seat = self.seats.remove(&id)?;
        seat.forget_due(&mut self.due);
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
        if generation < seat.generation {
            // Only who looks at the refusal itself knows where the hole would be.
            promise.fill(Err(Error::Withheld));
            return None;
        }
        match seat.request(node, |seq| Request::SessionTxn { seq, txn }) {
            Ok(ticket) => {
                promise.submitted();
                Some((ticket, seat.last_seq, promise))
            }
            Err(error) => {
                seat.generation += 1;
                let (handle, generation) = (Arc::clone(&cell.generation), seat.generation);
                promise.fill_adopting(Err(error.into()), Some(Adopt { handle, generation }));
                None
            }
        }
    }

    /// Submits a recipe's write; a refusal is the recipe's to see, at once.
    pub(super) fn submit_own(
        &mut self,
        node: &mut Node,
        id: SessionId,
        txn: Txn,
    ) -> Result<(Ticket, u64), Failure> {
        let seat = self.seats.get_mut(&id).ok_or(Failure::NotDone)?;
        let ticket = seat.request(node, |seq| Request::SessionTxn { seq, txn })?;
        Ok((ticket, seat.last_seq))
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
        seat.forget_due(&mut self.due);
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

    /// Keeps a lease alive as long as its handles live, from `first` on.
    pub(super) fn seat_lease(
        &mut self,
        cell: &Arc<LeaseCell>,
        session: SessionId,
        first: Duration,
    ) {
        if let Some(seat) = self.seats.get_mut(&session) {
            let seated = LeaseSeat { cell: Arc::downgrade(cell), keep_alive_at: first };
            self.due.insert((first, session, Some(cell.id)));
            if let Some(old) = seat.leases.insert(cell.id, seated) {
                self.due.remove(&(old.keep_alive_at, session, Some(cell.id)));
                self.due.insert((first, session, Some(cell.id)));
            }
        }
    }

    /// The lease, if it has handles here.
    pub(super) fn lease(&self, session: SessionId, lease: LeaseId) -> Option<Arc<LeaseCell>> {
        self.seats.get(&session)?.leases.get(&lease)?.cell.upgrade()
    }

    pub(super) fn lease_renewed(
        &self,
        (session, epoch): (SessionId, u64),
        lease: LeaseId,
        until: Duration,
    ) {
        let attached = self.seats.get(&session).is_some_and(|seat| seat.epoch == epoch);
        if let Some(cell) = self.lease(session, lease).filter(|_| attached) {
            cell.renew(until);
        }
    }

    pub(super) fn lease_ended(&mut self, (session, epoch): (SessionId, u64), lease: LeaseId) {
        let Some(seat) = self.seats.get_mut(&session).filter(|seat| seat.epoch == epoch) else {
            return;
        };
        if let Some(ended) = seat.leases.remove(&lease) {
            self.due.remove(&(ended.keep_alive_at, session, Some(lease)));
            if let Some(cell) = ended.cell.upgrade() {
                cell.end();
            }
        }
    }

    /// Submits the keep-alives that are due.
    pub(super) fn keep_alive(&mut self, node: &mut Node, now: Duration) {
        while let Some(&(at, id, lease)) = self.due.first().filter(|(at, ..)| *at <= now) {
            self.due.remove(&(at, id, lease));
            let Some(seat) = self.seats.get_mut(&id) else {
                continue;
            };
            if let Some(lease) = lease {
                let next = seat.keep_lease_alive(node, lease, now);
                self.due.extend(next.map(|at| (at, id, Some(lease))));
                continue;
            }
            let request = Request::KeepAlive { session: id, epoch: seat.epoch, acked: seat.acked };
            // Refused or lost: the next one is as good.
            let _ = node.submit(request);
            seat.keep_alive_at = now + keep_alive_interval(seat.cell.ttl);
            self.due.insert((seat.keep_alive_at, id, None));
        }
    }

    /// The node has ended, and with it what it knows of sessions.
    pub(super) fn clear(&mut self) {
        self.seats.clear();
        self.due.clear();
    }
}

impl Seat {
    /// Nobody keeps the session and its leases alive any more.
    fn forget_due(&self, due: &mut BTreeSet<(Duration, SessionId, Option<LeaseId>)>) {
        due.remove(&(self.keep_alive_at, self.cell.id, None));
        for (&lease, seated) in &self.leases {
            due.remove(&(seated.keep_alive_at, self.cell.id, Some(lease)));
        }
    }

    /// Submits a lease's keep-alive; gives when the next one is due, if its handles live.
    fn keep_lease_alive(
        &mut self,
        node: &mut Node,
        lease: LeaseId,
        now: Duration,
    ) -> Option<Duration> {
        let seated = self.leases.get_mut(&lease)?;
        let cell = seated.cell.upgrade().filter(|cell| !cell.is_over());
        if let Some(cell) = &cell {
            let request =
                Request::KeepLeaseAlive { session: self.cell.id, epoch: self.epoch, lease };
            match node.submit(request) {
                Err(SubmitError::NoLease { .. }) => cell.end(),
                // Refused or lost: the next one is as good.
                _ => {
                    seated.keep_alive_at = now + keep_alive_interval(cell.ttl);
                    return Some(seated.keep_alive_at);
                }
            }
        }
        self.leases.remove(&lease);
        None
    }

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
fn keep_alive_interval(ttl: Duration) -> Duration {
    ttl / 3
}
