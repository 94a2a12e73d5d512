//! A place in a queue: what the lock and the election have in common.
//!
//! Invariants: the own node is removed only under a guard on its czxid; the first list is as fresh
//! as the own node, after which contenders with a lower number only disappear, so a stale list
//! shows too many of them, never too few. It must not know what holding means.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{
    id::Zxid,
    mutant::Mutant,
    op::{
        Check, CreateMode, Event, EventKind, Filter, Guard, LimitName, Op, OpError, Outcome, Stat,
        Txn,
    },
    path::Path,
    recipes::{Action, Failure, Input, layout::sequence},
};

#[derive(Clone, Debug)]
pub(crate) struct Contender {
    path: Path,
    prefix: String,
    data: Bytes,
    phase: Phase,
    /// The own node, while it may exist.
    own: Option<Own>,
    /// Whether to contend; otherwise the own node is removed.
    wanted: bool,
    /// What to contend with once the own node is removed.
    next: Option<(String, Bytes)>,
    /// Whether an answer is out.
    waits: bool,
    /// Whether the watch on the own node ended, so that it is to be read again.
    recheck_own: bool,
    /// Whether the session moved away while nobody knew if the own node was made.
    orphan: bool,
    /// The newest zxid that was seen.
    seen: Zxid,
    watched: Vec<Filter>,
    actions: VecDeque<Action>,
}

/// The own node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Own {
    pub(crate) path: Path,
    pub(crate) token: Zxid,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    Idle,
    Creating,
    /// Makes the missing parents, from the top.
    Parents(usize),
    /// Looks for a node that an unknown create may have made.
    Finding {
        after: Option<String>,
        at_least: Zxid,
        found: Option<String>,
    },
    /// Reads the node that was found.
    Adopting(Path, Zxid),
    Listing(Listing),
    Waiting {
        ahead: usize,
    },
    Held,
    Deleting,
    Lost,
    Failed(OpError),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Listing {
    at_least: Zxid,
    after: Option<String>,
    /// The zxid of the oldest page: what happened after it may not show.
    since: Option<Zxid>,
    own_seen: bool,
    ahead: usize,
    predecessor: Option<(i128, String)>,
    /// How many were ahead at the last look.
    before: Option<usize>,
}

impl Contender {
    pub(crate) fn new(path: Path) -> Self {
        Self {
            path,
            prefix: String::new(),
            data: Bytes::new(),
            phase: Phase::Idle,
            own: None,
            wanted: false,
            next: None,
            waits: false,
            recheck_own: false,
            orphan: false,
            seen: Zxid::ZERO,
            watched: Vec::new(),
            actions: VecDeque::new(),
        }
    }

    /// Contends; what is left of an earlier attempt is removed first.
    pub(crate) fn contend(&mut self, prefix: String, data: Bytes) {
        if self.wanted && !self.is_over() {
            return;
        }
        self.next = Some((prefix, data));
        self.settle();
    }

    /// Leaves the queue, whatever has happened so far.
    pub(crate) fn leave(&mut self) {
        self.next = None;
        self.wanted = false;
        if self.is_over() {
            self.phase = Phase::Idle;
        }
        self.settle();
    }

    pub(crate) fn handle(&mut self, input: Input) {
        match input {
            Input::Replied { zxid, result } if self.take_answer() => self.replied(zxid, result),
            Input::Listed { zxid, result } if self.take_answer() => self.listed(zxid, result),
            Input::Read { zxid, result } if self.take_answer() => self.read(zxid, result),
            Input::Event(event) => self.event(&event),
            Input::WatchEnded(filter) => self.watch_ended(&filter),
            Input::SessionOver { moved } => self.session_over(moved),
            Input::Replied { .. }
            | Input::Listed { .. }
            | Input::Read { .. }
            | Input::Renewed(_) => {}
        }
    }

    pub(crate) fn action(&mut self) -> Option<Action> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        if self.waits {
            return None;
        }
        let action = self.question()?;
        self.waits = true;
        Some(action)
    }

    pub(crate) fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Whether it is to contend, now or once its old node is removed.
    pub(crate) fn contends(&self) -> bool {
        self.wanted || self.next.is_some()
    }

    /// The own node, once it holds.
    pub(crate) fn held(&self) -> Option<&Own> {
        self.own.as_ref().filter(|_| self.phase == Phase::Held)
    }

    /// How many were ahead at the last look.
    pub(crate) fn ahead(&self) -> Option<usize> {
        match &self.phase {
            Phase::Waiting { ahead } => Some(*ahead),
            Phase::Listing(listing) => listing.before,
            _ => None,
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Idle | Phase::Lost | Phase::Failed(_))
    }

    fn take_answer(&mut self) -> bool {
        std::mem::take(&mut self.waits)
    }

    /// What the phase asks for.
    fn question(&self) -> Option<Action> {
        let list = |after: &Option<String>, at_least: Zxid| Action::List {
            path: self.path.clone(),
            after: after.clone(),
            at_least,
        };
        Some(match &self.phase {
            Phase::Creating => {
                let text = format!("{}/{}", self.path.as_str().trim_end_matches('/'), self.prefix);
                let path = Path::sequential_prefix(&text).ok()?;
                Action::Submit(Txn::new(Op::Create {
                    path,
                    data: self.data.clone(),
                    mode: CreateMode::EphemeralSequential,
                    acl: None,
                }))
            }
            Phase::Parents(depth) => Action::Submit(Txn::new(Op::Create {
                path: ancestor(&self.path, *depth)?.into(),
                data: Bytes::new(),
                mode: CreateMode::Persistent,
                acl: None,
            })),
            Phase::Finding { after, at_least, .. } => list(after, *at_least),
            Phase::Adopting(path, at_least) => {
                Action::Get { path: path.clone(), at_least: *at_least }
            }
            Phase::Listing(listing) => list(&listing.after, listing.at_least),
            Phase::Deleting => {
                let own = self.own.as_ref()?;
                let delete = Op::Delete { path: own.path.clone(), version: None };
                Action::Submit(Txn::new(delete).guard(own.fence()))
            }
            Phase::Waiting { .. } | Phase::Held if self.recheck_own => {
                let own = self.own.as_ref()?;
                Action::Get { path: own.path.clone(), at_least: own.token }
            }
            Phase::Idle | Phase::Waiting { .. } | Phase::Held | Phase::Lost | Phase::Failed(_) => {
                return None;
            }
        })
    }

    /// Turns to what is wanted, unless an answer is out: it decides then.
    fn settle(&mut self) {
        if self.waits || (self.wanted && self.next.is_none()) {
            return;
        }
        self.unwatch_all();
        if self.own.is_some() {
            self.phase = Phase::Deleting;
        } else if self.orphan {
            self.orphan = false;
            self.find(self.seen);
        } else if matches!(self.phase, Phase::Finding { .. } | Phase::Adopting(..)) {
            // A node may be there: find it first.
        } else if let Some((prefix, data)) = self.next.take() {
            let text = format!("{}/{prefix}", self.path.as_str().trim_end_matches('/'));
            self.phase = match Path::sequential_prefix(&text) {
                Ok(_) => Phase::Creating,
                Err(_) => Phase::Failed(too_long(&text)),
            };
            self.wanted = self.phase == Phase::Creating;
            (self.prefix, self.data) = (prefix, data);
        } else if !matches!(self.phase, Phase::Lost | Phase::Failed(_)) {
            self.phase = Phase::Idle;
        }
    }

    fn replied(&mut self, zxid: Zxid, result: Result<Outcome, Failure>) {
        self.seen = self.seen.max(zxid);
        match (&self.phase, result) {
            (_, Err(Failure::NotDone)) => {}
            (_, Err(Failure::Op(OpError::SessionEnded { .. }))) => {
                return self.session_over(false);
            }
            (_, Err(Failure::Op(OpError::Moved { .. }))) => return self.session_over(true),
            (Phase::Creating, Ok(Outcome::Created { path, stat })) => self.created(path, &stat),
            (Phase::Creating, Err(Failure::Unknown)) => self.find(zxid),
            (Phase::Creating, Err(Failure::Op(OpError::NoNode { .. }))) => {
                self.phase = Phase::Parents(0);
            }
            (Phase::Parents(_), Err(Failure::Unknown)) => {}
            (Phase::Parents(depth), Ok(_) | Err(Failure::Op(OpError::NodeExists { .. }))) => {
                let depth = depth + 1;
                self.phase = match ancestor(&self.path, depth) {
                    Some(_) => Phase::Parents(depth),
                    None => Phase::Creating,
                };
            }
            (Phase::Parents(_), Err(Failure::Op(OpError::NoNode { .. }))) => {
                self.phase = Phase::Parents(0);
            }
            // Guarded by the czxid: to ask again does no harm.
            (Phase::Deleting, Err(Failure::Unknown)) => {}
            (Phase::Deleting, _) => {
                self.own = None;
                self.phase = Phase::Idle;
                return self.settle();
            }
            (_, Err(Failure::Op(error))) => {
                self.phase = Phase::Failed(error);
                self.wanted = false;
            }
            _ => {}
        }
        // A create that did nothing, or was not sent yet, needs no removal.
        self.settle();
    }

    fn created(&mut self, path: Path, stat: &Stat) {
        let own = Own { path, token: stat.czxid };
        self.list(own.token, None);
        let filter = Filter::Node(own.path.clone());
        if self.wanted && self.next.is_none() {
            self.watch(filter, own.token);
        }
        self.own = Some(own);
    }

    fn find(&mut self, at_least: Zxid) {
        self.phase = Phase::Finding { after: None, at_least, found: None };
    }

    fn list(&mut self, at_least: Zxid, before: Option<usize>) {
        self.phase = Phase::Listing(Listing {
            at_least,
            after: None,
            since: None,
            own_seen: false,
            ahead: 0,
            predecessor: None,
            before,
        });
    }

    fn listed(&mut self, zxid: Zxid, result: Result<(Vec<String>, bool), Failure>) {
        let (names, more) = match result {
            Ok(page) => page,
            // No parent, so no children.
            Err(Failure::Op(OpError::NoNode { .. })) => (Vec::new(), false),
            Err(Failure::Op(error)) => {
                self.phase = Phase::Failed(error);
                self.wanted = false;
                return self.settle();
            }
            Err(_) => return self.settle(),
        };
        if let Phase::Finding { after, found, .. } = &mut self.phase {
            let own = |name: &&String| name.starts_with(&self.prefix) && sequence(name).is_some();
            if found.is_none() {
                *found = names.iter().find(own).cloned();
            }
            let found = found.clone();
            if let (None, true, Some(last)) = (&found, more, names.last()) {
                *after = Some(last.clone());
                return;
            }
            self.phase = match found.and_then(|name| self.path.join(&name).ok()) {
                Some(path) => Phase::Adopting(path, zxid),
                None => Phase::Creating,
            };
            return self.settle();
        }
        self.queue_listed(zxid, &names, more);
        self.settle();
    }

    fn queue_listed(&mut self, zxid: Zxid, names: &[String], more: bool) {
        let (Phase::Listing(listing), Some(own)) = (&mut self.phase, &self.own) else {
            return;
        };
        let since = listing.since.map_or(zxid, |since| since.min(zxid));
        listing.since = Some(since);
        let Some(own_number) = sequence(own.path.name()) else {
            return;
        };
        for name in names {
            listing.own_seen |= name == own.path.name();
            let ahead = |number: &i128| match Mutant::OrderOfNames.active() {
                true => name.as_str() < own.path.name(),
                false => *number < own_number,
            };
            let Some(number) = sequence(name).filter(ahead) else {
                continue;
            };
            listing.ahead += 1;
            if listing.predecessor.as_ref().is_none_or(|it| it.0 < number) {
                listing.predecessor = Some((number, name.clone()));
            }
        }
        if let (true, Some(last)) = (more, names.last()) {
            listing.after = Some(last.clone());
            return;
        }
        if !listing.own_seen {
            return self.lost();
        }
        let (ahead, predecessor) = (listing.ahead, listing.predecessor.take());
        match predecessor.and_then(|(_, name)| self.path.join(&name).ok()) {
            Some(path) => {
                self.phase = Phase::Waiting { ahead };
                self.watch(Filter::Node(path), since);
            }
            None => self.phase = Phase::Held,
        }
    }

    fn read(&mut self, zxid: Zxid, result: Result<Option<(Bytes, Stat)>, Failure>) {
        let result = match result {
            Err(Failure::Op(OpError::NoNode { .. })) => Ok(None),
            result => result,
        };
        match (&self.phase, result) {
            (_, Err(Failure::Op(error))) => {
                self.phase = Phase::Failed(error);
                self.wanted = false;
            }
            (_, Err(_)) => {}
            (Phase::Adopting(path, _), Ok(Some((_, stat)))) => {
                let path = path.clone();
                self.created(path, &stat);
            }
            (Phase::Adopting(..), Ok(None)) => self.find(zxid),
            (_, Ok(node)) => {
                let Some(own) = self.own.clone().filter(|_| self.recheck_own) else {
                    return self.settle();
                };
                self.recheck_own = false;
                match node {
                    Some((_, stat)) if stat.czxid == own.token => {
                        self.watch(Filter::Node(own.path), zxid);
                    }
                    _ => self.lost(),
                }
            }
        }
        self.settle();
    }

    fn event(&mut self, event: &Event) {
        if event.kind != EventKind::Deleted {
            return;
        }
        let own = self.own.as_ref().filter(|own| own.path == event.path);
        match own {
            Some(_) if self.phase == Phase::Deleting => {}
            Some(_) => self.lost(),
            None => self.look_again(&Filter::Node(event.path.clone()), event.zxid),
        }
    }

    fn watch_ended(&mut self, filter: &Filter) {
        let Some(at) = self.watched.iter().position(|watched| watched == filter) else {
            return;
        };
        let own = self.own.as_ref();
        if own.is_some_and(|own| own.path == *filter.path()) {
            self.watched.swap_remove(at);
            self.recheck_own = true;
        } else if let Some(token) = own.map(|own| own.token) {
            self.look_again(filter, token);
        }
    }

    /// The predecessor is gone, or may be.
    fn look_again(&mut self, filter: &Filter, zxid: Zxid) {
        let Some(at) = self.watched.iter().position(|watched| watched == filter) else {
            return;
        };
        self.watched.swap_remove(at);
        self.actions.push_back(Action::Unwatch(filter.clone()));
        if let Phase::Waiting { ahead } = self.phase {
            self.list(zxid, Some(ahead));
        }
    }

    /// The own node is gone.
    fn lost(&mut self) {
        self.unwatch_all();
        self.own = None;
        self.recheck_own = false;
        if self.wanted {
            self.wanted = false;
            self.phase = Phase::Lost;
        } else {
            self.phase = Phase::Idle;
        }
    }

    fn session_over(&mut self, moved: bool) {
        let own = self.own.take();
        let contended = self.wanted;
        let unsure = match self.phase {
            Phase::Creating => self.waits,
            Phase::Finding { .. } | Phase::Adopting(..) => true,
            _ => false,
        };
        self.orphan = moved && (unsure || self.orphan);
        self.waits = false;
        self.lost();
        // A session that moved keeps its nodes: ours goes before we contend again.
        self.own = own.filter(|_| moved);
        if contended || self.next.take().is_some() {
            self.phase = Phase::Lost;
        } else {
            self.settle();
        }
    }

    fn watch(&mut self, filter: Filter, from: Zxid) {
        self.watched.push(filter.clone());
        self.actions.push_back(Action::Watch { filter, from });
    }

    fn unwatch_all(&mut self) {
        for filter in self.watched.drain(..) {
            self.actions.push_back(Action::Unwatch(filter));
        }
    }
}

impl Own {
    /// Holds as long as the node is the one that its owner made.
    pub(crate) fn fence(&self) -> Guard {
        Guard { path: self.path.clone(), check: Check::Czxid(self.token) }
    }
}

/// The ancestor of `path`, itself included, with `depth` components more than the first one.
fn ancestor(path: &Path, depth: usize) -> Option<Path> {
    let text = path.as_str();
    let ends = text.match_indices('/').map(|(at, _)| at).skip(1);
    let end = ends.chain([text.len()]).nth(depth)?;
    if path.is_root() {
        return None;
    }
    Path::new(&text[..end]).ok()
}

fn too_long(text: &str) -> OpError {
    OpError::Limit {
        limit: LimitName::PathBytes,
        value: text.len() as u64 + 10,
        max: Path::BYTES_MAX as u64,
    }
}
