//! The guests of gateways: their sessions, what waits for an output, and the changes that each
//! gateway is told.
//!
//! Invariant: each question that is to be answered is answered once, or its gateway is over.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use foldhash::fast::FixedState;

use crate::{
    client::{
        Changes, Error,
        gateway::{Ask, GatewayCell, GuestAnswer, Told},
    },
    id::{Secret, SessionId, Zxid},
    node::{
        Attachment, Caller, Detach, Node, Output, Read, Request, RequestError, Seq, SubmitError,
        Ticket, Watch, WatchId,
    },
    op::{EventKind, Filter, Identities, OpError},
    path::Path,
};

#[derive(Debug, Default)]
pub(super) struct Gateways {
    gates: BTreeMap<u64, Gate>,
    /// Who waits for what.
    pending: HashMap<Ticket, Pending, FixedState>,
    /// Whose the sessions are that are attached by guests.
    seats: HashMap<SessionId, (u64, u64), FixedState>,
    watches: BTreeMap<WatchId, u64>,
}

#[derive(Debug)]
struct Gate {
    cell: Arc<GatewayCell>,
    watch: WatchId,
    guests: HashMap<u64, Guest, FixedState>,
    news: Vec<Told>,
}

#[derive(Debug, Default)]
struct Guest {
    seat: Option<Seat>,
    /// Until the session is attached, maybe once more.
    attaching: Option<Attaching>,
    /// How many of its questions were taken, and answered.
    asked: u64,
    answered: u64,
    /// Refusals that wait for the answers to what was asked before, with their numbers.
    late: VecDeque<(u64, GuestAnswer)>,
}

/// A guest's attachment.
#[derive(Clone, Copy, Debug)]
struct Seat {
    session: SessionId,
    epoch: u64,
    /// The number of the last write that the node took.
    last_seq: u64,
    /// The number of the last reply that was handed over.
    acked: u64,
}

#[derive(Clone, Debug)]
struct Attaching {
    session: SessionId,
    secret: Secret,
    identities: Identities,
    tries: u32,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    gate: u64,
    guest: u64,
    /// Of a write, its number.
    seq: u64,
}

impl Gateways {
    /// Takes what the guests of a gateway ask.
    pub(super) fn ask(&mut self, cell: Arc<GatewayCell>, asks: Vec<(u64, Ask)>, node: &mut Node) {
        let id = cell.id;
        if cell.is_over() || !self.enter(cell, node) {
            return;
        }
        for (guest, ask) in asks {
            match self.ask_one(id, guest, ask, node) {
                Ok(()) => {}
                Err(refusal) => match *refusal {
                    over @ GuestAnswer::Over(_) => self.tell(id, guest, over),
                    refusal => self.refuse(id, guest, refusal),
                },
            }
        }
    }

    /// A gateway was dropped.
    pub(super) fn remove(&mut self, id: u64, node: &mut Node) {
        if let Some(gate) = self.gates.remove(&id) {
            self.watches.remove(&gate.watch);
            node.unwatch(gate.watch);
            let seats = gate.guests.values().filter_map(|guest| guest.seat);
            for seat in seats {
                self.seats.remove(&seat.session);
            }
        }
    }

    /// Hands an output to whom it belongs, or gives it back.
    pub(super) fn deliver(&mut self, output: Output, node: &mut Node) -> Option<Output> {
        if self.gates.is_empty() {
            return Some(output);
        }
        match output {
            Output::Reply { ticket, .. }
            | Output::Read { ticket, .. }
            | Output::Session { ticket, .. } => {
                let Some(pending) = self.pending.remove(&ticket) else {
                    return Some(output);
                };
                self.answer(pending, output, node);
            }
            Output::Detached { session, epoch, cause } => {
                if !self.detached(session, epoch, cause) {
                    return Some(output);
                }
            }
            Output::Renewed { session, .. } if self.seats.contains_key(&session) => {}
            Output::Events { watch, zxid, events } => {
                let Some(gate) = self.watches.get(&watch).and_then(|id| self.gates.get_mut(id))
                else {
                    return Some(Output::Events { watch, zxid, events });
                };
                node.credit(watch, u32::try_from(events.len()).unwrap_or(u32::MAX));
                gate.news.push(Told::Changes(Changes { zxid, events }));
            }
            Output::WatchEnded { watch, cause } => {
                let Some(id) = self.watches.remove(&watch) else {
                    return Some(output);
                };
                self.end_gate(id, Error::WatchEnded(cause), node);
            }
            output => return Some(output),
        }
        None
    }

    /// Hands over what there is to tell.
    pub(super) fn hand_over(&mut self, node: &mut Node) {
        let late = |gate: &mut Gate| !gate.cell.tell(&mut gate.news);
        let late: Vec<u64> =
            self.gates.iter_mut().filter_map(|(&id, gate)| late(gate).then_some(id)).collect();
        for id in late {
            self.end_gate(id, Error::Full { max: 0 }, node);
        }
    }

    /// The node has ended.
    pub(super) fn end(&mut self, why: &str) {
        self.pending.clear();
        self.seats.clear();
        self.watches.clear();
        for (_, mut gate) in std::mem::take(&mut self.gates) {
            gate.cell.tell(&mut gate.news);
            let (why, submitted) = (why.to_owned(), true);
            gate.cell.end(Error::Closed { why, submitted });
        }
    }

    /// A gateway is known from its first call on.
    fn enter(&mut self, cell: Arc<GatewayCell>, node: &mut Node) -> bool {
        if self.gates.contains_key(&cell.id) {
            return true;
        }
        let kinds = vec![EventKind::Created, EventKind::DataChanged, EventKind::Deleted];
        let caller = Caller::Plain(Identities::superuser());
        let filter = Filter::Subtree(Path::root());
        match node.watch(Watch { caller, kinds, ..Watch::of(filter, u32::MAX) }) {
            Ok(armed) => {
                let (watch, id) = (armed.id, cell.id);
                self.watches.insert(watch, id);
                let (guests, news) = (HashMap::default(), Vec::new());
                self.gates.insert(id, Gate { cell, watch, guests, news });
                true
            }
            Err(error) => {
                cell.end(error.into());
                false
            }
        }
    }

    fn end_gate(&mut self, id: u64, why: Error, node: &mut Node) {
        let Some(mut gate) = self.gates.get_mut(&id).map(|gate| std::mem::take(&mut gate.news))
        else {
            return;
        };
        if let Some(cell) = self.gates.get(&id).map(|gate| Arc::clone(&gate.cell)) {
            cell.tell(&mut gate);
            cell.end(why);
        }
        self.remove(id, node);
    }

    /// Asks the node, or says what the answer is already.
    fn ask_one(
        &mut self,
        gate: u64,
        guest: u64,
        ask: Ask,
        node: &mut Node,
    ) -> Result<(), Box<GuestAnswer>> {
        let Some(guests) = self.gates.get_mut(&gate).map(|gate| &mut gate.guests) else {
            return Ok(());
        };
        if matches!(ask, Ask::Open { .. } | Ask::Attach { .. }) {
            guests.entry(guest).or_default();
        }
        let Some(its) = guests.get_mut(&guest) else {
            return Ok(());
        };
        let (ticket, seq) = match ask {
            Ask::Open { secret, ttl, identities, seen } => {
                check_seen(seen, node).map_err(unattached)?;
                let request = Request::OpenSession { secret, ttl, identities };
                (node.submit(request).map_err(unattached)?, 0)
            }
            Ask::Attach { session, secret, identities, seen } => {
                check_seen(seen, node).map_err(unattached)?;
                let attaching = Attaching { session, secret, identities, tries: 0 };
                let epoch = node.session_epoch(session).unwrap_or(0) + 1;
                let ticket = node.submit(attaching.request(epoch)).map_err(unattached)?;
                its.attaching = Some(attaching);
                (ticket, 0)
            }
            Ask::Txn(txn) => {
                let seat = its.seat.as_mut().ok_or_else(over)?;
                seat.submit(node, |seq| Request::SessionTxn { seq, txn })?
            }
            Ask::Close => {
                let seat = its.seat.as_mut().ok_or_else(over)?;
                seat.submit(node, |seq| Request::CloseSession { seq })?
            }
            Ask::Read(op, consistency) => {
                let seat = its.seat.as_ref().ok_or_else(over)?;
                let read = Read { caller: Caller::Session(seat.session), op, consistency };
                let refused = |error| {
                    let (zxid, result) = (Zxid::ZERO, Err(Error::Submit(error)));
                    Box::new(GuestAnswer::Read { zxid, result })
                };
                (node.read(read).map_err(refused)?, 0)
            }
            Ask::KeepAlive => {
                if let Some(Seat { session, epoch, acked, .. }) = its.seat {
                    // Refused or lost: the next one is as good.
                    let _ = node.submit(Request::KeepAlive { session, epoch, acked });
                }
                return Ok(());
            }
            Ask::Leave => {
                self.leave(gate, guest);
                return Ok(());
            }
        };
        its.asked += 1;
        self.pending.insert(ticket, Pending { gate, guest, seq });
        Ok(())
    }

    /// Refuses a question, behind the answers to those before it.
    fn refuse(&mut self, gate: u64, guest: u64, refusal: GuestAnswer) {
        let Some(gate) = self.gates.get_mut(&gate) else {
            return;
        };
        if let Some(its) = gate.guests.get_mut(&guest) {
            its.asked += 1;
            its.late.push_back((its.asked, refusal));
            its.tell_late(guest, &mut gate.news);
        }
    }

    fn leave(&mut self, gate: u64, guest: u64) {
        let its = self.gates.get_mut(&gate).and_then(|gate| gate.guests.remove(&guest));
        if let Some(seat) = its.and_then(|guest| guest.seat) {
            // Another guest may have it already.
            if self.seats.get(&seat.session) == Some(&(gate, guest)) {
                self.seats.remove(&seat.session);
            }
        }
    }

    fn tell(&mut self, gate: u64, guest: u64, answer: GuestAnswer) {
        if let Some(gate) = self.gates.get_mut(&gate) {
            gate.news.push(Told::Guest(guest, answer));
        }
    }

    fn answer(&mut self, pending: Pending, output: Output, node: &mut Node) {
        let Pending { gate: gate_id, guest, seq } = pending;
        let Some(gate) = self.gates.get_mut(&gate_id) else {
            return;
        };
        let Some(its) = gate.guests.get_mut(&guest) else {
            return;
        };
        let answer = match output {
            Output::Reply { zxid, result, .. } => {
                if let Some(seat) = &mut its.seat {
                    seat.acked = seat.acked.max(seq);
                }
                let result = result.map_err(Error::from).and_then(|it| it.ok_or(Error::Taken));
                GuestAnswer::Reply { zxid, result }
            }
            Output::Read { zxid, result, .. } => {
                GuestAnswer::Read { zxid, result: result.map_err(Error::from) }
            }
            Output::Session { result: Ok(attachment), .. } => {
                its.attached(&attachment);
                self.seats.insert(attachment.session, (gate_id, guest));
                GuestAnswer::Session(Ok(attachment))
            }
            Output::Session { result: Err(error), .. } => {
                match its.again(&error, node) {
                    Some(ticket) => {
                        self.pending.insert(ticket, pending);
                        return;
                    }
                    None => its.attaching = None,
                }
                GuestAnswer::Session(Err(error.into()))
            }
            _ => return,
        };
        gate.news.push(Told::Guest(guest, answer));
        its.answered += 1;
        its.tell_late(guest, &mut gate.news);
    }

    /// An attachment is over; returns whether it was a guest's.
    fn detached(&mut self, session: SessionId, epoch: u64, cause: Detach) -> bool {
        let Some(&(gate, guest)) = self.seats.get(&session) else {
            return false;
        };
        let its = self.gates.get_mut(&gate).and_then(|gate| gate.guests.get_mut(&guest));
        let Some(its) = its.filter(|its| its.seat.is_some_and(|seat| seat.epoch == epoch)) else {
            return false;
        };
        its.seat = None;
        self.seats.remove(&session);
        if its.attaching.is_some() && cause == Detach::Moved {
            // It attaches once more, itself.
            return true;
        }
        self.tell(gate, guest, GuestAnswer::Over(cause));
        true
    }
}

impl Seat {
    fn submit(
        &mut self,
        node: &mut Node,
        request: impl FnOnce(Seq) -> Request,
    ) -> Result<(Ticket, u64), Box<GuestAnswer>> {
        let Self { session, epoch, last_seq, acked } = *self;
        let seq = last_seq + 1;
        match node.submit(request(Seq { session, epoch, seq, acked })) {
            Ok(ticket) => {
                self.last_seq = seq;
                Ok((ticket, seq))
            }
            Err(error) => {
                let result = Err(Error::Submit(error));
                Err(Box::new(GuestAnswer::Reply { zxid: node.zxid(), result }))
            }
        }
    }
}

impl Guest {
    fn attached(&mut self, it: &Attachment) {
        self.attaching = None;
        let (session, epoch, last_seq) = (it.session, it.epoch, it.last_seq);
        self.seat = Some(Seat { session, epoch, last_seq, acked: last_seq });
    }

    /// Tells the refusals whose turn has come.
    fn tell_late(&mut self, guest: u64, news: &mut Vec<Told>) {
        while self.late.front().is_some_and(|(number, _)| *number == self.answered + 1) {
            self.answered += 1;
            news.extend(self.late.pop_front().map(|(_, answer)| Told::Guest(guest, answer)));
        }
    }

    /// Another epoch was in force than this node knew: asks for the one after it.
    fn again(&mut self, error: &RequestError, node: &mut Node) -> Option<Ticket> {
        let RequestError::Op(OpError::Moved { epoch, .. }) = error else {
            return None;
        };
        let attaching = self.attaching.as_mut().filter(|it| it.tries < TRIES_MAX)?;
        attaching.tries += 1;
        node.submit(attaching.request(epoch + 1)).ok()
    }
}

impl Attaching {
    fn request(&self, epoch: u64) -> Request {
        let Self { session, secret, identities, .. } = self.clone();
        Request::Attach { session, secret, epoch, identities }
    }
}

fn check_seen(seen: Zxid, node: &Node) -> Result<(), SubmitError> {
    let applied = node.zxid();
    if seen > applied {
        return Err(SubmitError::Behind { from: seen, applied });
    }
    Ok(())
}

fn unattached(error: SubmitError) -> Box<GuestAnswer> {
    Box::new(GuestAnswer::Session(Err(Error::Submit(error))))
}

fn over() -> Box<GuestAnswer> {
    Box::new(GuestAnswer::Over(Detach::Moved))
}

/// How often somebody else may attach a session meanwhile.
const TRIES_MAX: u32 = 8;
