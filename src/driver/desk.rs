//! Where requests of handles become requests of the node, and its outputs become their answers.
//!
//! Invariants: every promise that comes in is filled, by an output or when the host ends. Whoever
//! waits for an answer is woken when all are filled that came together, or each would be awake
//! before the next one is: two switches of threads for every answer.

use std::{collections::HashMap, mem, sync::Arc, task::Waker, time::Duration};

use bytes::Bytes;
use foldhash::fast::FixedState;

use crate::{
    client::{
        Answer, Changes, Client, Error, Lease, Session, SessionKey, Shared, Watcher, Written,
        answer::ReadPromise,
        call::Call,
        completion::{Promise, wake},
        lease::LeaseCell,
        session::SessionCell,
        watcher::Stream,
    },
    driver::{
        gateways::Gateways,
        places::{self, Asked, Grant, Places, Question},
        seats::Seats,
    },
    id::{Secret, SessionId},
    node::{
        Attachment, Caller, Consistency, Detach, Node, Output, Read, ReadOp, ReadOutcome, Request,
        RequestError, SubmitError, Ticket, Watch, WatchEnd, WatchId,
    },
    op::{Identities, Op, Outcome, Txn},
    recipes::{Observer, contender::Contender},
    time::as_micros,
};

pub(super) struct Desk {
    shared: Arc<Shared>,
    entropy: Entropy,
    pending: HashMap<Ticket, Pending, FixedState>,
    seats: Seats,
    places: Places,
    gateways: Gateways,
    streams: HashMap<WatchId, Arc<Stream<Changes>>, FixedState>,
    /// Those whose answers are there.
    wakers: Vec<Waker>,
    /// Of the last tick: what is asked for now is not asked for earlier.
    now: Duration,
}

/// Gives random bytes, or says why there are none.
pub(super) struct Entropy(Box<dyn FnMut() -> Result<[u8; 16], String> + Send>);

impl Entropy {
    pub(super) fn new(draw: impl FnMut() -> Result<[u8; 16], String> + Send + 'static) -> Self {
        Self(Box::new(draw))
    }
}

/// What waits for an output.
enum Pending {
    Written(Promise<Written>),
    SessionWritten(Promise<Written>, SessionId, u64),
    Answer(ReadPromise),
    Session(Promise<Session>, Secret, Identities),
    Done(Promise<()>),
    /// Asked for at that moment, as the session's write of that number.
    Granted(Promise<Lease>, Session, Duration, u64),
    KeptLease(Promise<Lease>, Session),
    /// Until the node has applied what the watch is to start from.
    Watch(Watch, Promise<Watcher>),
    Recipe(u64, Question, Option<(SessionId, u64)>),
}

impl Desk {
    pub(super) fn new(shared: Arc<Shared>, entropy: Entropy) -> Self {
        Self {
            shared,
            entropy,
            pending: HashMap::default(),
            seats: Seats::default(),
            places: Places::default(),
            gateways: Gateways::default(),
            streams: HashMap::default(),
            wakers: Vec::new(),
            now: Duration::ZERO,
        }
    }

    /// Wakes those whose answers were delivered.
    pub(super) fn wake(&mut self, node: &mut Node) {
        self.gateways.hand_over(node);
        self.wakers.drain(..).for_each(wake);
    }

    /// Takes a request of a handle.
    pub(super) fn call(&mut self, call: Call, node: &mut Node) {
        match call {
            Call::Txn { identities, txn, promise } => {
                let taken = node.submit(Request::Txn { identities, txn });
                self.expect(taken, promise, true, Pending::Written);
            }
            Call::SessionTxn { session, generation, txn, promise } => {
                let handle = (&session, generation);
                if let Some((ticket, seq, promise)) = self.seats.submit(node, handle, txn, promise)
                {
                    let pending = Pending::SessionWritten(promise, session.id, seq);
                    self.pending.insert(ticket, pending);
                }
            }
            Call::Grant { session, generation, ttl, promise } => {
                let (handle, txn) = ((session.cell(), generation), Txn::new(Op::Grant { ttl }));
                if let Some((ticket, seq, promise)) = self.seats.submit(node, handle, txn, promise)
                {
                    let pending = Pending::Granted(promise, session, self.now, seq);
                    self.pending.insert(ticket, pending);
                }
            }
            Call::Open { secret, ttl, identities, promise } => {
                let drawn = secret.map_or_else(|| self.draw().map(Secret::from_bytes), Ok);
                let secret = match drawn {
                    Ok(secret) => secret,
                    Err(error) => return promise.fill(Err(error)),
                };
                let who = identities.clone();
                let taken = node.submit(Request::OpenSession { secret, ttl, identities });
                self.expect(taken, promise, true, |it| Pending::Session(it, secret, who));
            }
            Call::Attach { key: SessionKey { session, secret, epoch }, identities, promise } => {
                let who = identities.clone();
                let taken = node.submit(Request::Attach { session, secret, epoch, identities });
                self.expect(taken, promise, true, |it| Pending::Session(it, secret, who));
            }
            Call::Close { session, promise } => self.close(&session, promise, node),
            Call::Leave(session) => {
                session.end(Detach::Moved);
                if self.seats.is_seated(&session) {
                    self.seats.unseat(session.id);
                    self.places.session_over(session.id, node);
                }
            }
            Call::Member { request, promise } => {
                let taken = node.submit(request);
                self.expect(taken, promise, true, Pending::Done);
            }
            Call::Transfer { to, promise } => {
                promise.fill(node.transfer_leader(to).map_err(Error::from));
            }
            Call::Status(promise) => promise.fill(Ok(node.status())),
            Call::View { caller, promise } => {
                promise.fill(node.view_of(&caller).map_err(Error::from));
            }
            Call::Past { caller, promise } => {
                promise.fill(node.past_of(&caller).map_err(Error::from));
            }
            Call::Image(promise) => promise.fill(Ok(node.image())),
            Call::Asks { gateway, asks } => self.gateways.ask(gateway, asks, node),
            Call::Ungate(gateway) => self.gateways.remove(gateway, node),
            call => self.look(call, node),
        }
    }

    /// Reads, watches and recipes.
    fn look(&mut self, call: Call, node: &mut Node) {
        match call {
            Call::KeepLease { session, lease, promise } => {
                if let Some(cell) = self.seats.lease(session.id(), lease) {
                    return promise.fill(Ok(Lease::new(cell)));
                }
                let (caller, op) = (Caller::Session(session.id()), ReadOp::Lease(lease));
                let taken = node.read(Read { caller, op, consistency: Consistency::Local });
                self.expect(taken, promise, false, |it| Pending::KeptLease(it, session));
            }
            Call::Read { read, promise } => match node.read(read) {
                Ok(ticket) => drop(self.pending.insert(ticket, Pending::Answer(promise))),
                Err(error) => promise.refuse(error.into()),
            },
            Call::Watch { watch, promise } => self.watch(watch, promise, node),
            Call::Progress(watch) => node.progress(watch),
            Call::Credit(watch, events) => node.credit(watch, events),
            Call::Unwatch(watch) => {
                node.unwatch(watch);
                self.streams.remove(&watch);
            }
            Call::Lock { session, layout, path, data, cell, promise } => {
                let grant = Grant::Lock(promise);
                match self.draw() {
                    Ok(draw) => {
                        let place = (Contender::new(path), layout.lock_prefix(draw), data);
                        self.contend(place, session, cell, grant);
                    }
                    Err(error) => grant.refuse(error),
                }
            }
            Call::Campaign { session, layout, path, proposal, cell, promise } => {
                let grant = Grant::Leader(promise);
                match self.draw() {
                    Ok(draw) => {
                        let place = (Contender::new(path), layout.election_prefix(draw), proposal);
                        self.contend(place, session, cell, grant);
                    }
                    Err(error) => grant.refuse(error),
                }
            }
            Call::Release { cell, promise } => self.places.release(cell.id, promise),
            Call::Observe { id, who, path, cell } => {
                self.places.observe(id, Observer::new(path), who, cell);
            }
            Call::Unobserve(id) => self.places.remove(id, node),
            call => call.refuse(Error::Taken),
        }
    }

    /// Hands an output to whom it belongs.
    pub(super) fn deliver(&mut self, output: Output, node: &mut Node, now: Duration) {
        let Some(output) = self.gateways.deliver(output, node) else {
            return;
        };
        match output {
            Output::Reply { ticket, .. } | Output::Read { ticket, .. } => {
                self.answer(ticket, output, node);
            }
            Output::Session { ticket, result } => self.attached(ticket, result, node, now),
            Output::Renewed { session, epoch, until } => self.seats.renewed(session, epoch, until),
            Output::LeaseRenewed { session, epoch, lease, until } => {
                self.seats.lease_renewed((session, epoch), lease, until);
            }
            Output::LeaseEnded { session, epoch, lease } => {
                self.seats.lease_ended((session, epoch), lease);
            }
            Output::Detached { session, epoch, cause } => {
                if self.seats.detached(session, epoch, cause).is_some() {
                    self.places.session_over(session, node);
                }
            }
            Output::Events { watch, zxid, events } => {
                if let Some(stream) = self.streams.get(&watch) {
                    stream.push(Changes { zxid, events });
                } else {
                    self.places.events(watch, &events, node);
                }
            }
            Output::Progress { watch, zxid } => {
                if let Some(stream) = self.streams.get(&watch) {
                    stream.push(Changes { zxid, events: Vec::new() });
                }
            }
            Output::WatchEnded { watch, cause } => match self.streams.remove(&watch) {
                Some(stream) if cause == WatchEnd::Fired => stream.finish(),
                Some(stream) => stream.end(Error::WatchEnded(cause)),
                None => self.places.watch_ended(watch),
            },
        }
    }

    /// Feeds the recipes and the sessions with time.
    pub(super) fn tick(&mut self, node: &mut Node, now: Duration) {
        self.now = now;
        self.places.tick();
        self.seats.keep_alive(node, now);
    }

    /// Does what the recipes ask for. Returns whether the node has something to do because of it.
    pub(super) fn pump(&mut self, node: &mut Node) -> bool {
        let asked = self.places.pump(node, &mut self.seats);
        let any = !asked.is_empty();
        for Asked { ticket, write, recipe, question } in asked {
            let pending = Pending::Recipe(recipe, question, write);
            self.pending.insert(ticket, pending);
        }
        any
    }

    /// Answers everything that waits: the node is gone.
    pub(super) fn end(&mut self, why: &str) {
        let mut pending: Vec<_> = mem::take(&mut self.pending).into_iter().collect();
        pending.sort_by_key(|(ticket, _)| *ticket);
        for (_, pending) in pending {
            pending.close(why);
        }
        self.places.end(why);
        let mut streams: Vec<_> = mem::take(&mut self.streams).into_iter().collect();
        streams.sort_by_key(|(watch, _)| *watch);
        for (_, stream) in streams {
            let (why, submitted) = (why.to_owned(), false);
            stream.end(Error::Closed { why, submitted });
        }
        self.gateways.end(why);
        self.seats.clear();
    }

    /// Keeps the promise of a request that the node took, or says why it did not.
    fn expect<T>(
        &mut self,
        taken: Result<Ticket, SubmitError>,
        mut promise: Promise<T>,
        changes: bool,
        pending: impl FnOnce(Promise<T>) -> Pending,
    ) {
        match taken {
            Ok(ticket) => {
                if changes {
                    promise.submitted();
                }
                self.pending.insert(ticket, pending(promise));
            }
            Err(error) => promise.fill(Err(error.into())),
        }
    }

    fn draw(&mut self) -> Result<[u8; 16], Error> {
        (self.entropy.0)().map_err(|why| Error::NoRandomness { why })
    }

    fn close(&mut self, session: &Arc<SessionCell>, promise: Option<Promise<()>>, node: &mut Node) {
        let closed = self.seats.close(node, session);
        match (closed, promise) {
            (Ok((ticket, _)), Some(mut promise)) => {
                promise.submitted();
                self.pending.insert(ticket, Pending::Done(promise));
            }
            (Err(error), Some(promise)) => promise.fill(Err(error)),
            (_, None) => {}
        }
    }

    fn contend(
        &mut self,
        (mut contender, prefix, data): (Contender, String, Bytes),
        session: Session,
        cell: Arc<crate::client::recipe::PlaceCell>,
        grant: Grant,
    ) {
        if !self.seats.is_seated(session.cell()) {
            grant.refuse(super::seats::over(session.cell()));
            return;
        }
        contender.contend(prefix, data);
        self.places.contend(contender, session, cell, grant);
    }

    fn watch(&mut self, watch: Watch, promise: Promise<Watcher>, node: &mut Node) {
        let (buffer, armed) = (watch.credit, node.watch(watch.clone()));
        if let Err(SubmitError::Behind { from, .. }) = armed {
            let (caller, consistency) = (watch.caller.clone(), Consistency::AtLeast(from));
            let taken = node.read(Read { caller, op: ReadOp::Barrier, consistency });
            return self.expect(taken, promise, false, |it| Pending::Watch(watch, it));
        }
        promise.fill(armed.map_err(Error::from).map(|armed| {
            let stream = Arc::new(Stream::new());
            self.streams.insert(armed.id, Arc::clone(&stream));
            let mailbox = Arc::clone(&self.shared.mailbox);
            Watcher::new(armed.id, armed.view, stream, mailbox, buffer)
        }));
    }

    fn attached(
        &mut self,
        ticket: Ticket,
        result: Result<Attachment, RequestError>,
        node: &mut Node,
        now: Duration,
    ) {
        let Some(Pending::Session(promise, secret, who)) = self.pending.remove(&ticket) else {
            return;
        };
        let attachment = match result {
            Ok(attachment) => attachment,
            Err(error) => return promise.fill(Err(error.into())),
        };
        let key = SessionKey::new(attachment.session, secret, attachment.epoch);
        let cell = Arc::new(SessionCell::new(key, attachment.ttl, attachment.until));
        let seated = self.seats.seat(Arc::clone(&cell), attachment.last_seq, now);
        if let Some(old) = seated {
            self.places.session_over(old.id, node);
        }
        let client = Client::new(Arc::clone(&self.shared), who);
        promise.fill(Ok(Session::new(cell, client)));
    }

    /// Keeps a lease alive from `first` on, as long as the handle and its clones live.
    fn seat_lease(&mut self, cell: LeaseCell, first: Duration) -> Lease {
        let cell = Arc::new(cell);
        let lease = Lease::new(Arc::clone(&cell));
        self.seats.seat_lease(&cell, lease.session().id(), first);
        lease
    }

    /// Answers of leases.
    fn answer_lease(&mut self, pending: Pending, output: Output, node: &Node) {
        match pending {
            Pending::Granted(promise, session, asked, seq) => {
                self.seats.replied(session.id(), seq);
                let granted = written(output).and_then(|it| match it.outcome {
                    Outcome::Granted { lease, ttl } => Ok((lease, ttl)),
                    _ => Err(Error::Taken),
                });
                promise.fill(granted.map(|(lease, ttl)| {
                    let until = node.until(asked, as_micros(ttl));
                    self.seat_lease(LeaseCell::new(lease, ttl, session, until), self.now + ttl / 3)
                }));
            }
            Pending::KeptLease(promise, session) => {
                let stat = found(output).and_then(|it| match it.outcome {
                    ReadOutcome::Lease(stat) => Ok(stat),
                    _ => Err(Error::Taken),
                });
                // Nothing is promised before a keep-alive was committed: the first goes at once.
                promise.fill(stat.map(|it| {
                    let cell = LeaseCell::new(it.lease, it.ttl, session, Duration::ZERO);
                    self.seat_lease(cell, self.now)
                }));
            }
            // The answer to an opening comes another way.
            Pending::Session(promise, ..) => promise.fill(Err(Error::session_ended())),
            pending => pending.close("it was asked for otherwise"),
        }
    }

    fn answer(&mut self, ticket: Ticket, output: Output, node: &mut Node) {
        let Some(pending) = self.pending.remove(&ticket) else {
            return;
        };
        let wakers = &mut self.wakers;
        match pending {
            Pending::Recipe(recipe, question, write) => {
                if let Some((session, seq)) = write {
                    self.seats.replied(session, seq);
                }
                if let Some(input) = places::input(question, output) {
                    self.places.feed(recipe, input);
                }
            }
            Pending::SessionWritten(promise, session, seq) => {
                self.seats.replied(session, seq);
                promise.fill_quietly(written(output), wakers);
            }
            Pending::Written(promise) => promise.fill_quietly(written(output), wakers),
            Pending::Done(promise) => promise.fill(match output {
                Output::Reply { result, .. } => result.map(drop).map_err(Error::from),
                _ => Err(Error::Taken),
            }),
            Pending::Answer(promise) => promise.fill_quietly(found(output), wakers),
            Pending::Watch(watch, promise) => match found(output) {
                Ok(_) => self.watch(watch, promise, node),
                Err(error) => promise.fill(Err(error)),
            },
            pending => self.answer_lease(pending, output, node),
        }
    }
}

impl Pending {
    fn close(self, why: &str) {
        fn fill<T>(promise: Promise<T>, why: &str) {
            promise.close(why);
        }
        match self {
            Self::Written(it) | Self::SessionWritten(it, ..) => fill(it, why),
            Self::Answer(it) => it.close(why),
            Self::Session(it, ..) => fill(it, why),
            Self::Done(it) => fill(it, why),
            Self::Granted(it, ..) | Self::KeptLease(it, _) => fill(it, why),
            Self::Watch(_, it) => fill(it, why),
            Self::Recipe(..) => {}
        }
    }
}

fn written(output: Output) -> Result<Written, Error> {
    match output {
        Output::Reply { zxid, result, .. } => match result? {
            Some(outcome) => Ok(Written { zxid, outcome }),
            None => Err(Error::Taken),
        },
        _ => Err(Error::Taken),
    }
}

fn found(output: Output) -> Result<Answer, Error> {
    match output {
        Output::Read { zxid, result, .. } => Ok(Answer { zxid, outcome: result? }),
        _ => Err(Error::Taken),
    }
}
