//! Drives the recipes of the handles: feeds them with what the node says, does what they ask for.
//!
//! What the node refuses is fed back at the next tick, so that no recipe spins.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use crate::{
    client::{
        Error, LeaderGuard, LockGuard, Session,
        completion::Promise,
        recipe::{Held, Place, PlaceCell, PlacePhase},
        watcher::Stream,
    },
    driver::seats::Seats,
    id::{SessionId, Zxid},
    node::{
        Caller, Consistency, Node, Output, Read, ReadOp, ReadOutcome, RequestError, Ticket, Watch,
        WatchId,
    },
    op::{Event, Filter, Identities, List, OpError},
    recipes::{
        Action, Failure, Input, Leadership, Observer, contender::Contender, contender::Phase,
    },
};

#[derive(Debug, Default)]
pub(super) struct Places {
    recipes: BTreeMap<u64, Recipe>,
    /// Those that may have something to do.
    touched: BTreeSet<u64>,
    /// Fed at the next tick.
    deferred: Vec<(u64, Input)>,
    /// Those whose turn has come while nobody knows whether their session lives.
    suspended: BTreeSet<u64>,
    /// Whose watch it is.
    watches: BTreeMap<WatchId, u64>,
}

/// A question that the node has taken.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) ticket: Ticket,
    /// Its number in the session, if it is a write.
    pub(super) write: Option<(SessionId, u64)>,
    pub(super) recipe: u64,
    pub(super) question: Question,
}

/// What kind of answer is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Question {
    Submit,
    List,
    Get,
}

#[derive(Debug)]
struct Recipe {
    machine: Machine,
    watches: Vec<(Filter, WatchId)>,
}

#[derive(Debug)]
enum Machine {
    Contender(Box<Contention>),
    /// With the identities of whoever observes.
    Observer(Box<Observer>, Identities, Arc<Stream<Leadership>>),
}

#[derive(Debug)]
struct Contention {
    contender: Contender,
    /// Keeps the session open until the place is given up.
    session: Session,
    cell: Arc<PlaceCell>,
    grant: Option<Grant>,
    released: Vec<Promise<()>>,
}

/// Whom to tell that the turn has come.
#[derive(Debug)]
pub(super) enum Grant {
    Lock(Promise<LockGuard>),
    Leader(Promise<LeaderGuard>),
}

impl Places {
    pub(super) fn contend(
        &mut self,
        contender: Contender,
        session: Session,
        cell: Arc<PlaceCell>,
        grant: Grant,
    ) {
        let id = cell.id;
        let contention =
            Contention { contender, session, cell, grant: Some(grant), released: Vec::new() };
        self.insert(id, Machine::Contender(Box::new(contention)));
    }

    pub(super) fn observe(
        &mut self,
        id: u64,
        observer: Observer,
        who: Identities,
        stream: Arc<Stream<Leadership>>,
    ) {
        self.insert(id, Machine::Observer(Box::new(observer), who, stream));
    }

    pub(super) fn release(&mut self, id: u64, promise: Option<Promise<()>>) {
        let recipe = self.recipes.get_mut(&id).map(|it| &mut it.machine);
        let Some(Machine::Contender(it)) = recipe else {
            // It is gone already, and its node with it.
            if let Some(promise) = promise {
                promise.fill(Ok(()));
            }
            return;
        };
        it.grant = None;
        it.released.extend(promise);
        it.contender.leave();
        self.touched.insert(id);
    }

    pub(super) fn remove(&mut self, id: u64, node: &mut Node) {
        if let Some(recipe) = self.recipes.remove(&id) {
            self.unwatch_all(&recipe, node);
        }
    }

    pub(super) fn feed(&mut self, id: u64, input: Input) {
        let Some(recipe) = self.recipes.get_mut(&id) else {
            return;
        };
        match &mut recipe.machine {
            Machine::Contender(it) => it.contender.handle(input),
            Machine::Observer(observer, _, stream) => {
                if let Some(leadership) = observer.handle(input) {
                    stream.replace(leadership);
                }
            }
        }
        self.touched.insert(id);
    }

    /// A watch told of a transaction's events. Returns whether it is a recipe's.
    pub(super) fn events(&mut self, watch: WatchId, events: &[Event], node: &mut Node) -> bool {
        let Some(&id) = self.watches.get(&watch) else {
            return false;
        };
        node.credit(watch, u32::try_from(events.len()).unwrap_or(u32::MAX));
        for event in events {
            self.feed(id, Input::Event(event.clone()));
        }
        true
    }

    /// A watch is over, if it is a recipe's.
    pub(super) fn watch_ended(&mut self, watch: WatchId) {
        let Some(id) = self.watches.remove(&watch) else {
            return;
        };
        let Some(recipe) = self.recipes.get_mut(&id) else {
            return;
        };
        if let Some(at) = recipe.watches.iter().position(|it| it.1 == watch) {
            let (filter, _) = recipe.watches.swap_remove(at);
            self.feed(id, Input::WatchEnded(filter));
        }
    }

    /// A session is over here: so is every place of it.
    pub(super) fn session_over(&mut self, session: SessionId, node: &mut Node) {
        let of_session = |recipe: &Recipe| recipe.machine.session() == Some(session);
        let recipes = self.recipes.iter().filter(|(_, it)| of_session(it));
        let ids: Vec<u64> = recipes.map(|(&id, _)| id).collect();
        for id in ids {
            let Some(recipe) = self.recipes.remove(&id) else {
                continue;
            };
            self.unwatch_all(&recipe, node);
            let Machine::Contender(it) = recipe.machine else {
                continue;
            };
            it.cell.set(PlacePhase::Lost);
            if let Some(grant) = it.grant {
                grant.refuse(super::seats::over(it.session.cell()));
            }
            for promise in it.released {
                promise.fill(Ok(()));
            }
        }
    }

    /// Feeds what was put off.
    pub(super) fn tick(&mut self) {
        self.touched.append(&mut self.suspended);
        for (id, input) in mem::take(&mut self.deferred) {
            self.feed(id, input);
        }
    }

    /// Does what the recipes ask for. Returns what the node is to answer.
    pub(super) fn pump(&mut self, node: &mut Node, seats: &mut Seats) -> Vec<Asked> {
        let mut all = Vec::new();
        while let Some(id) = self.touched.pop_first() {
            let Some(recipe) = self.recipes.get_mut(&id) else {
                continue;
            };
            while let Some(action) = recipe.machine.action() {
                match recipe.perform(action, node, seats) {
                    Done::Asked(question, ticket, write) => {
                        all.push(Asked { ticket, write, recipe: id, question })
                    }
                    Done::Watching(watch) => {
                        self.watches.insert(watch, id);
                    }
                    Done::Unwatched(watch) => {
                        self.watches.remove(&watch);
                    }
                    Done::Nothing => {}
                    Done::Later(input) => self.deferred.push((id, input)),
                }
            }
            match recipe.settle() {
                Stands::Over => self.remove(id, node),
                Stands::Suspended => drop(self.suspended.insert(id)),
                Stands::Well => {}
            }
        }
        all
    }

    fn insert(&mut self, id: u64, machine: Machine) {
        let watches = Vec::new();
        self.recipes.insert(id, Recipe { machine, watches });
        self.touched.insert(id);
    }

    fn unwatch_all(&mut self, recipe: &Recipe, node: &mut Node) {
        for (_, watch) in &recipe.watches {
            self.watches.remove(watch);
            node.unwatch(*watch);
        }
    }

    /// The node has ended: whoever waits is told why.
    pub(super) fn end(&mut self, why: &str) {
        self.deferred.clear();
        self.touched.clear();
        for (_, recipe) in mem::take(&mut self.recipes) {
            let (why, submitted) = (why.to_owned(), true);
            let error = Error::Closed { why, submitted };
            match recipe.machine {
                Machine::Observer(_, _, stream) => stream.end(error),
                Machine::Contender(it) => {
                    it.cell.set(PlacePhase::Lost);
                    if let Some(grant) = it.grant {
                        grant.refuse(error.clone());
                    }
                    for promise in it.released {
                        promise.fill(Err(error.clone()));
                    }
                }
            }
        }
    }
}

/// How a recipe stands after it was told everything.
enum Stands {
    Well,
    /// Its turn has come, and its session waits for a renewal.
    Suspended,
    Over,
}

enum Done {
    Asked(Question, Ticket, Option<(SessionId, u64)>),
    Watching(WatchId),
    Unwatched(WatchId),
    Nothing,
    Later(Input),
}

impl Machine {
    fn action(&mut self) -> Option<Action> {
        match self {
            Self::Contender(it) => it.contender.action(),
            Self::Observer(observer, ..) => observer.action(),
        }
    }

    /// Who reads and watches.
    fn caller(&self) -> Caller {
        match self {
            // In the session, so that a read waits for what was submitted before.
            Self::Contender(it) => Caller::Session(it.session.id()),
            Self::Observer(_, who, _) => Caller::Plain(who.clone()),
        }
    }

    /// In whose session it writes.
    fn session(&self) -> Option<SessionId> {
        self.caller().session()
    }
}

impl Recipe {
    fn perform(&mut self, action: Action, node: &mut Node, seats: &mut Seats) -> Done {
        let (caller, zxid) = (self.machine.caller(), Zxid::ZERO);
        let mut read = |op, at_least| {
            let (caller, consistency) = (caller.clone(), Consistency::AtLeast(at_least));
            node.read(Read { caller, op, consistency })
        };
        match action {
            Action::Submit(txn) => {
                let refused = |why| Done::Later(Input::Replied { zxid, result: Err(why) });
                let Some(id) = self.machine.session() else {
                    return refused(Failure::NotDone);
                };
                match seats.submit_own(node, id, txn) {
                    Ok((ticket, seq)) => Done::Asked(Question::Submit, ticket, Some((id, seq))),
                    Err(why) => refused(why),
                }
            }
            Action::List { path, after, at_least } => {
                let list = List { after, ..List::of(path) };
                match read(ReadOp::List(list), at_least) {
                    Ok(ticket) => Done::Asked(Question::List, ticket, None),
                    Err(why) => Done::Later(Input::Listed { zxid, result: Err(why.into()) }),
                }
            }
            Action::Get { path, at_least } => match read(ReadOp::Get(path), at_least) {
                Ok(ticket) => Done::Asked(Question::Get, ticket, None),
                Err(why) => Done::Later(Input::Read { zxid, result: Err(why.into()) }),
            },
            Action::Watch { filter, from } => {
                let (from, credit) = (Some(from), CREDIT);
                let watch = Watch { caller, from, ..Watch::of(filter.clone(), credit) };
                match node.watch(watch) {
                    Ok(armed) => {
                        self.watches.push((filter, armed.id));
                        Done::Watching(armed.id)
                    }
                    Err(_) => Done::Later(Input::WatchEnded(filter)),
                }
            }
            Action::Unwatch(filter) => {
                let Some(at) = self.watches.iter().position(|it| it.0 == filter) else {
                    return Done::Nothing;
                };
                let (_, watch) = self.watches.swap_remove(at);
                node.unwatch(watch);
                Done::Unwatched(watch)
            }
        }
    }

    /// Tells the handle where it stands.
    fn settle(&mut self) -> Stands {
        let it = match &mut self.machine {
            Machine::Contender(it) => it,
            Machine::Observer(observer, _, stream) => {
                let Some(error) = observer.failure() else {
                    return Stands::Well;
                };
                stream.end(RequestError::Op(error.clone()).into());
                return Stands::Over;
            }
        };
        let phase = match it.contender.phase() {
            Phase::Held => PlacePhase::Held,
            Phase::Lost => PlacePhase::Lost,
            Phase::Failed(error) => PlacePhase::Failed(error.clone()),
            _ if !it.contender.contends() => PlacePhase::Left,
            _ => PlacePhase::Waiting(it.contender.ahead()),
        };
        it.cell.set(phase.clone());
        match (&phase, it.contender.held()) {
            (PlacePhase::Held, Some(_)) if it.grant.is_none() => Stands::Well,
            // A guard says `Held` when it is handed out.
            (PlacePhase::Held, Some(_)) if it.session.client().now() >= it.session.until() => {
                Stands::Suspended
            }
            (PlacePhase::Held, Some(own)) => {
                let place = Place::new(Arc::clone(&it.cell), it.session.clone());
                let held = Held::new(place, own.path.clone(), own.token);
                match it.grant.take() {
                    Some(Grant::Lock(promise)) => promise.fill(Ok(LockGuard::new(held))),
                    Some(Grant::Leader(promise)) => promise.fill(Ok(LeaderGuard::new(held))),
                    None => drop(held),
                }
                Stands::Well
            }
            (PlacePhase::Lost | PlacePhase::Failed(_), _) => {
                if let Some(grant) = it.grant.take() {
                    grant.refuse(phase.error());
                }
                Stands::Over
            }
            _ if *it.contender.phase() == Phase::Idle => {
                for promise in it.released.drain(..) {
                    promise.fill(Ok(()));
                }
                Stands::Over
            }
            _ => Stands::Well,
        }
    }
}

impl Grant {
    pub(super) fn refuse(self, error: Error) {
        match self {
            Self::Lock(promise) => promise.fill(Err(error)),
            Self::Leader(promise) => promise.fill(Err(error)),
        }
    }
}

/// What the node's answer to a question is to the recipe.
pub(super) fn input(question: Question, output: Output) -> Option<Input> {
    Some(match (question, output) {
        (_, Output::Reply { zxid, result, .. }) => Input::Replied {
            zxid,
            result: match result {
                Ok(outcome) => Ok(outcome?),
                Err(error) => Err(error.into()),
            },
        },
        (Question::List, Output::Read { zxid, result, .. }) => Input::Listed {
            zxid,
            result: match result {
                Ok(ReadOutcome::Listed(page)) => {
                    let names = page.children.into_iter().map(|child| child.name);
                    Ok((names.collect(), page.resume.is_some()))
                }
                Ok(_) => return None,
                Err(error) => Err(error.into()),
            },
        },
        (_, Output::Read { zxid, result, .. }) => Input::Read {
            zxid,
            result: match result {
                Ok(ReadOutcome::Node { data, stat }) => Ok(Some((data, stat))),
                Ok(_) | Err(RequestError::Op(OpError::NoNode { .. })) => Ok(None),
                Err(error) => Err(error.into()),
            },
        },
        _ => return None,
    })
}

/// Events that a recipe's watch hands out before more are asked for.
pub(super) const CREDIT: u32 = 16;
