//! What runs on each member: reads and writes of registers, a queue, locks, and a watch.

use std::{
    cell::RefCell,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;

use crate::{
    client::{Answer, Completion, Error, Session, SessionKey, Watcher, Written},
    id::{NodeId, Zxid},
    node::{Consistency, Detach, ReadOp},
    op::{CreateMode, Filter, OpError, Outcome, Stat},
    path::Path,
    sim::{
        Application, Instance,
        check::{Operation, Seen},
    },
};

use super::{
    books::{Books, QUEUE},
    contest::{Contest, Prize},
    exchange::Exchange,
    queue::Queue,
    vault::Visitor,
};

#[derive(Debug)]
pub(super) struct Worker {
    node: NodeId,
    /// What its watch is called.
    name: String,
    books: Rc<RefCell<Books>>,
    setup: Vec<Completion<Written>>,
    ready: bool,
    next_at: Duration,
    session: Tenure,
    sessions: u64,
    /// With the register of each.
    writes: Vec<(usize, u64, Completion<Written>)>,
    reads: Vec<(usize, Completion<(Bytes, Stat)>)>,
    local: Vec<Completion<Answer>>,
    local_zxid: Zxid,
    queue: Option<Queue>,
    contests: Vec<(Prize, Rc<RefCell<Contest>>)>,
    watch: Watching,
    exchange: Exchange,
    visitor: Visitor,
    /// A watch of the session.
    own_watch: Option<Result<Box<Watcher>, Completion<Watcher>>>,
}

#[derive(Debug)]
enum Tenure {
    None,
    Opening(Completion<Session>),
    Attaching(Completion<Session>),
    /// And from when on in the world it may be closed.
    Open(Session, Duration),
}

#[derive(Debug)]
enum Watching {
    Not,
    Arming(Box<Completion<Watcher>>, Option<Zxid>),
    /// And until which transaction it has to catch up.
    On(Box<Watcher>, Zxid),
}

impl Worker {
    pub(super) fn new(node: NodeId, books: Rc<RefCell<Books>>) -> Self {
        Self {
            node,
            name: format!("watch {node}"),
            books,
            setup: Vec::new(),
            ready: false,
            next_at: Duration::ZERO,
            session: Tenure::None,
            sessions: 0,
            writes: Vec::new(),
            reads: Vec::new(),
            local: Vec::new(),
            local_zxid: Zxid::ZERO,
            queue: None,
            contests: Vec::new(),
            watch: Watching::Not,
            exchange: Exchange::default(),
            visitor: Visitor::new(node.as_u64()),
            own_watch: None,
        }
    }

    /// Makes the nodes that others stand under; whoever comes first.
    fn set_up(&mut self, at: &mut Instance<'_>) {
        if self.setup.is_empty() {
            let paths = [QUEUE].into_iter().chain(PRIZES.iter().map(|prize| prize.written));
            let create = |text: &str| {
                let path: Path = text.parse().expect("valid");
                at.client.create(&path, "0", CreateMode::Persistent)
            };
            self.setup = paths.map(create).collect();
        }
        let mut failed = false;
        self.setup.retain_mut(|create| match create.try_take() {
            None => true,
            Some(answer) => {
                let there = |error: Error| matches!(error.op(), Some(OpError::NodeExists { .. }));
                failed |= !answer.map_or_else(there, |_| true);
                false
            }
        });
        if failed {
            self.setup.clear();
        } else if self.setup.is_empty() {
            self.ready = true;
            for prize in PRIZES {
                let name = format!("{}.{}", at.node, at.life);
                let contest = Rc::new(RefCell::new(Contest::new(name, prize)));
                self.books.borrow_mut().contends(prize.path, &contest);
                self.contests.push((prize, contest));
            }
        }
    }

    fn keep_session(&mut self, at: &mut Instance<'_>) {
        let books = Rc::clone(&self.books);
        let books = &mut *books.borrow_mut();
        self.session = match std::mem::replace(&mut self.session, Tenure::None) {
            Tenure::None if books.over => Tenure::None,
            Tenure::None => self.seek_session(books, at),
            Tenure::Opening(mut opening) => match opening.try_take() {
                None => Tenure::Opening(opening),
                Some(Err(_)) => Tenure::None,
                Some(Ok(session)) => self.opened(session, books.now, at),
            },
            Tenure::Attaching(mut attaching) => match attaching.try_take() {
                None => Tenure::Attaching(attaching),
                Some(Err(_)) => Tenure::None,
                // What its last owner was promised by its own clock is over before it is closed.
                Some(Ok(session)) => self.opened(session, books.now + TTL + TTL / 10, at),
            },
            Tenure::Open(session, since) => self.hold_session((session, since), books, at),
        };
    }

    /// One of its own, or one that somebody else has, or has left.
    fn seek_session(&self, books: &mut Books, at: &mut Instance<'_>) -> Tenure {
        let client = at.client.with_identities(self.visitor.identities());
        let Some(key) = books.offered.pop_front() else {
            return Tenure::Opening(client.open_session(TTL));
        };
        let epoch = key.epoch + 1;
        let asked = books.epochs.entry(key.session).or_default();
        *asked = epoch.max(*asked);
        Tenure::Attaching(client.attach(SessionKey::new(key.session, key.secret, epoch)))
    }

    fn opened(&mut self, session: Session, since: Duration, at: &Instance<'_>) -> Tenure {
        self.sessions += 1;
        let name = format!("{}.{}.{}", at.node, at.life, self.sessions);
        self.queue = Some(Queue::new(name, session.key()));
        let filter = Filter::Node("/register-0".parse().expect("valid"));
        self.own_watch = Some(Err(session.watch(filter, None)));
        Tenure::Open(session, since)
    }

    fn hold_session(
        &mut self,
        (session, since): (Session, Duration),
        books: &mut Books,
        at: &mut Instance<'_>,
    ) -> Tenure {
        let (over, key) = (session.over(), session.key());
        let latest = books.is_latest(key);
        if latest && over == Some(Detach::Expired) && at.now < session.until() {
            let (id, until) = (session.id(), session.until());
            books.wrong = Some(format!("session {id} expired before {until:?}"));
        }
        let closes = at.rng.chance(300) && !books.over && books.now >= since;
        let leaves = at.rng.chance(150) && !books.over;
        if over.is_none() && leaves {
            books.offered.push_back(key);
            // Who goes on with it has to be fenced off.
            if at.rng.chance(500_000) {
                session.leave();
                self.forget_session();
                return Tenure::None;
            }
        }
        if over.is_some() || closes {
            if over != Some(Detach::Moved) {
                books.leases.over(session.id());
            }
            // Closed by hand, or over anyway; the locks find out by themselves.
            drop(session.close());
            self.forget_session();
            return Tenure::None;
        }
        if latest {
            books.leases.promised(session.id(), at.node, at.life, session.until());
        }
        Tenure::Open(session, since)
    }

    fn forget_session(&mut self) {
        self.queue = None;
        self.own_watch = None;
    }

    /// What the watch of the session tells must be before what a later attachment does.
    fn watch_in_session(&mut self) {
        let (Some(watch), Tenure::Open(session, _)) = (self.own_watch.take(), &self.session) else {
            return;
        };
        let mut watcher = match watch {
            Ok(watcher) => watcher,
            Err(mut arming) => match arming.try_take() {
                None => {
                    self.own_watch = Some(Err(arming));
                    return;
                }
                Some(Ok(watcher)) => Box::new(watcher),
                Some(Err(_)) => return,
            },
        };
        let (mut books, key) = (self.books.borrow_mut(), session.key());
        let mut context = Context::from_waker(Waker::noop());
        loop {
            match watcher.poll_next(&mut context) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(changes))) => {
                    books.moves.told(key.session, key.epoch, changes.zxid);
                }
                Poll::Ready(_) => return,
            }
        }
        self.own_watch = Some(Ok(watcher));
    }

    fn watch(&mut self, at: &mut Instance<'_>) {
        let mut books = self.books.borrow_mut();
        let mut context = Context::from_waker(Waker::noop());
        self.watch = match std::mem::replace(&mut self.watch, Watching::Not) {
            Watching::Not => {
                let from = books.resume.get(&self.node).copied();
                let arming = at.client.watch(Filter::Subtree(Path::root()), from);
                Watching::Arming(Box::new(arming), from)
            }
            Watching::Arming(mut arming, from) => match arming.try_take() {
                None => Watching::Arming(arming, from),
                Some(Ok(watcher)) => {
                    let now = watcher.view().zxid();
                    books.watches.armed(&self.name, from.unwrap_or(now));
                    Watching::On(Box::new(watcher), now)
                }
                Some(Err(_)) => {
                    // What it would go on from is no longer kept, or not there yet.
                    books.resume.remove(&self.node);
                    Watching::Not
                }
            },
            Watching::On(mut watcher, current) => loop {
                match watcher.poll_next(&mut context) {
                    Poll::Pending => break Watching::On(watcher, current),
                    Poll::Ready(Some(Ok(changes))) => {
                        books.resume.insert(self.node, changes.zxid);
                        if let Err(why) = books.watches.told(&self.name, &changes) {
                            books.wrong = Some(why);
                        }
                    }
                    Poll::Ready(_) => {
                        books.resume.remove(&self.node);
                        break Watching::Not;
                    }
                }
            },
        };
    }

    /// A reply at this member shows what was written: the watch has told it before.
    fn shown(&self, books: &mut Books, written: &Written) {
        let zxid = match &written.outcome {
            Outcome::Set { stat } => stat.mzxid,
            Outcome::Created { stat, .. } => stat.czxid,
            _ => return,
        };
        books.watches.acknowledged(zxid);
        let caught_up = match &self.watch {
            Watching::On(_, current) => books.resume.get(&self.node).is_some_and(|it| it > current),
            _ => false,
        };
        if caught_up {
            if let Err(why) = books.watches.shown(&self.name, zxid) {
                books.wrong = Some(why);
            }
        }
    }

    fn take_answers(&mut self) {
        let books = Rc::clone(&self.books);
        let books = &mut *books.borrow_mut();
        let mut written = Vec::new();
        self.writes.retain_mut(|(entry, register, write)| {
            let Some(answer) = write.try_take() else {
                return true;
            };
            books.answered += 1;
            match seen(answer.as_ref().map(|written| match &written.outcome {
                Outcome::Set { stat } => Seen::Set(stat.version),
                _ => Seen::Done,
            })) {
                Some(seen) => books.linear.end(*entry, seen),
                None => books.linear.refused(*entry),
            }
            books.fresh = *register;
            written.extend(answer);
            false
        });
        self.reads.retain_mut(|(entry, read)| {
            let Some(answer) = read.try_take() else {
                return true;
            };
            books.answered += 1;
            let number = |data: &[u8]| String::from_utf8_lossy(data).parse().unwrap_or(u64::MAX);
            let found = |(data, stat): &(Bytes, Stat)| Seen::Found(number(data), stat.version);
            match seen(answer.as_ref().map(found)) {
                Some(Seen::Unknown) | None => books.linear.refused(*entry),
                Some(seen) => books.linear.end(*entry, seen),
            }
            false
        });
        self.local.retain_mut(|read| {
            let Some(answer) = read.try_take() else {
                return true;
            };
            books.answered += 1;
            if let Ok(answer) = answer {
                if answer.zxid < self.local_zxid {
                    let (then, now) = (self.local_zxid, answer.zxid);
                    books.wrong = Some(format!("reads at {} go back: {then}, {now}", self.node));
                }
                self.local_zxid = self.local_zxid.max(answer.zxid);
            }
            false
        });
        if let Some(queue) = &mut self.queue {
            written.extend(queue.poll(books));
        }
        written.extend(self.exchange.poll(books));
        if let Err(why) = self.visitor.poll(books) {
            books.wrong = Some(why);
        }
        for written in written {
            self.shown(books, &written);
        }
    }

    /// Asks for something.
    fn ask(&mut self, at: &mut Instance<'_>) {
        let mut books = self.books.borrow_mut();
        if books.over {
            return;
        }
        let register = at.rng.below(REGISTERS);
        let path: Path = format!("/register-{register}").parse().expect("valid");
        let what = at.rng.below(100);
        let session = match &self.session {
            Tenure::Open(session, _) => Some(session),
            _ => None,
        };
        match what {
            0..30 if self.reads.len() < OUT_MAX => {
                // What was just written, by anybody, is what a stale read misses.
                let register = if at.rng.chance(500_000) { books.fresh } else { register };
                let path: Path = format!("/register-{register}").parse().expect("valid");
                let entry = books.linear.begin(register, Operation::Read);
                self.reads.push((entry, at.client.get(&path, Consistency::Linearizable)));
            }
            30..40 if self.local.len() < OUT_MAX => {
                self.local.push(at.client.read(ReadOp::Exists(path), Consistency::Local));
            }
            40..60 => {
                if let (Some(queue), Some(session)) = (&mut self.queue, session) {
                    queue.push(session);
                }
            }
            60..68 => {
                let session = session.filter(|_| at.rng.chance(500_000));
                self.exchange.ask(at.client, session, &mut books, at.rng);
            }
            68..78 => self.visitor.ask(at.client, session, &mut books, at.rng),
            78..100 if self.writes.len() < OUT_MAX => {
                books.next_value += 1;
                let value = books.next_value;
                let expected = at.rng.chance(400_000).then(|| at.rng.below(4));
                let operation = match at.rng.below(100) {
                    0..15 => Operation::Create { value },
                    15..20 => Operation::Delete { expected },
                    _ => Operation::Set { value, expected },
                };
                let entry = books.linear.begin(register, operation);
                // In a session or outside of one.
                let session = session.filter(|_| at.rng.chance(500_000));
                let (data, mode) = (value.to_string(), CreateMode::Persistent);
                let write = match (operation, session) {
                    (Operation::Create { .. }, Some(it)) => it.create(&path, data, mode),
                    (Operation::Create { .. }, None) => at.client.create(&path, data, mode),
                    (Operation::Delete { .. }, Some(it)) => it.delete(&path, expected),
                    (Operation::Delete { .. }, None) => at.client.delete(&path, expected),
                    (_, Some(it)) => it.set(&path, data, expected),
                    (_, None) => at.client.set(&path, data, expected),
                };
                self.writes.push((entry, register, write));
            }
            _ => {}
        }
    }
}

impl Application for Worker {
    fn poll(&mut self, at: &mut Instance<'_>) {
        self.watch(at);
        self.watch_in_session();
        self.take_answers();
        self.keep_session(at);
        if !self.ready {
            return self.set_up(at);
        }
        let session = match &self.session {
            Tenure::Open(session, _) => Some(session),
            _ => None,
        };
        let over = self.books.borrow().over;
        for (prize, contest) in &self.contests {
            let done = contest.borrow_mut().poll(session.filter(|_| !over), at);
            for (zxid, token) in done {
                self.books.borrow_mut().wrote(prize.path, zxid, token);
            }
        }
        if at.now >= self.next_at {
            self.ask(at);
            let pace = self.books.borrow().pace;
            self.next_at = at.now + at.rng.exponential(pace);
        }
    }
}

/// What an answer says; `None` when nothing was done and nothing seen.
fn seen(answer: Result<Seen, &Error>) -> Option<Seen> {
    match answer {
        Ok(seen) => Some(seen),
        Err(error) if error.outcome_unknown() => Some(Seen::Unknown),
        Err(error) => match error.op() {
            Some(OpError::NoNode { .. }) => Some(Seen::NoNode),
            Some(OpError::NodeExists { .. }) => Some(Seen::NodeExists),
            Some(OpError::BadVersion { .. }) => Some(Seen::BadVersion),
            _ => None,
        },
    }
}

const PRIZES: [Prize; 2] = [
    Prize { path: "/lock", written: "/by-holder", election: false },
    Prize { path: "/election", written: "/by-leader", election: true },
];
const REGISTERS: u64 = 5;
const OUT_MAX: usize = 6;
const TTL: Duration = Duration::from_secs(2);
