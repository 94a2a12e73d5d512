//! Who leads an election, as seen by anyone.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{
    id::Zxid,
    op::{Event, EventKind, Filter, OpError, Stat},
    path::Path,
    recipes::{Action, Failure, Input, layout::sequence},
};

/// Follows an election: who leads, and with what proposal.
///
/// Always the latest, in order, and never one that is older than one already told; proposals that
/// were replaced in between may be skipped. Needs no session.
///
/// ```
/// use quorate::recipes::{Action, Observer};
/// let mut observer = Observer::new("/app/leader".parse()?);
/// assert!(matches!(observer.action(), Some(Action::List { .. })));
/// assert_eq!(observer.leadership(), None);
/// # Ok::<(), quorate::PathError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Observer {
    path: Path,
    phase: Phase,
    waits: bool,
    watched: Option<Filter>,
    actions: VecDeque<Action>,
    /// Nothing older than this is looked at.
    seen: Zxid,
    current: Option<Leadership>,
    /// The newest that was told.
    told: (Zxid, Zxid),
}

/// Who leads.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Leadership {
    /// The leader's node.
    pub path: Path,
    /// The leader's fencing token; grows with each leader.
    pub token: Zxid,
    /// What the leader proposes.
    pub proposal: Bytes,
    /// The transaction that made or last replaced the proposal.
    pub zxid: Zxid,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Phase {
    Listing {
        after: Option<String>,
        /// The zxid of the first page, and the lowest number so far.
        since: Option<Zxid>,
        lowest: Option<(i128, String)>,
    },
    Reading(Path),
    Watching,
    Failed(OpError),
}

impl Observer {
    /// Follows the election at `path`, of any layout.
    pub fn new(path: Path) -> Self {
        Self {
            path,
            phase: LIST,
            waits: false,
            watched: None,
            actions: VecDeque::new(),
            seen: Zxid::ZERO,
            current: None,
            told: (Zxid::ZERO, Zxid::ZERO),
        }
    }

    /// Takes what happened. Returns the leadership if it is a newer one.
    pub fn handle(&mut self, input: Input) -> Option<Leadership> {
        match input {
            Input::Listed { zxid, result } if std::mem::take(&mut self.waits) => {
                self.listed(zxid, result);
            }
            Input::Read { zxid, result } if std::mem::take(&mut self.waits) => {
                return self.read(zxid, result);
            }
            Input::Event(event) => self.event(&event),
            Input::WatchEnded(filter) if self.watched.as_ref() == Some(&filter) => {
                self.watched = None;
                self.phase = LIST;
            }
            _ => {}
        }
        None
    }

    /// The next thing to do.
    #[must_use = "an action that is dropped leaves the recipe waiting for its answer"]
    pub fn action(&mut self) -> Option<Action> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        if self.waits {
            return None;
        }
        let at_least = self.seen;
        let action = match &self.phase {
            Phase::Listing { after, .. } => {
                Action::List { path: self.path.clone(), after: after.clone(), at_least }
            }
            Phase::Reading(path) => Action::Get { path: path.clone(), at_least },
            Phase::Watching | Phase::Failed(_) => return None,
        };
        self.waits = true;
        Some(action)
    }

    /// Who leads, as far as is known; `None` when nobody does.
    pub fn leadership(&self) -> Option<&Leadership> {
        self.current.as_ref()
    }

    /// Why it follows no longer.
    pub fn failure(&self) -> Option<&OpError> {
        match &self.phase {
            Phase::Failed(error) => Some(error),
            _ => None,
        }
    }

    fn listed(&mut self, zxid: Zxid, result: Result<(Vec<String>, bool), Failure>) {
        if zxid < self.seen {
            self.phase = LIST;
            return;
        }
        self.seen = zxid;
        let (names, more) = match result {
            Ok(page) => page,
            Err(Failure::Op(OpError::NoNode { .. })) => (Vec::new(), false),
            Err(Failure::Op(error)) => {
                self.phase = Phase::Failed(error);
                return;
            }
            Err(_) => return,
        };
        let Phase::Listing { after, since, lowest } = &mut self.phase else {
            return;
        };
        if since.is_some_and(|since| since != zxid) {
            // Pages of different trees could hide the lowest.
            self.phase = LIST;
            return;
        }
        *since = Some(zxid);
        for name in names.iter() {
            if let Some(number) = sequence(name) {
                if lowest.as_ref().is_none_or(|it| number < it.0) {
                    *lowest = Some((number, name.clone()));
                }
            }
        }
        if let (true, Some(last)) = (more, names.last()) {
            *after = Some(last.clone());
            return;
        }
        let lowest = lowest.take();
        match lowest.and_then(|(_, name)| self.path.join(&name).ok()) {
            Some(path) => self.phase = Phase::Reading(path),
            None => {
                self.current = None;
                self.phase = Phase::Watching;
                self.watch(Filter::Children(self.path.clone()), zxid);
            }
        }
    }

    fn read(
        &mut self,
        zxid: Zxid,
        result: Result<Option<(Bytes, Stat)>, Failure>,
    ) -> Option<Leadership> {
        if zxid < self.seen {
            return None;
        }
        self.seen = zxid;
        let Phase::Reading(path) = &self.phase else {
            return None;
        };
        let path = path.clone();
        match result {
            Ok(Some((proposal, stat))) => {
                self.phase = Phase::Watching;
                self.watch(Filter::Node(path.clone()), zxid);
                let leadership = Leadership { path, token: stat.czxid, proposal, zxid: stat.mzxid };
                self.current = Some(leadership.clone());
                let newest = (stat.czxid, stat.mzxid);
                if newest > self.told {
                    self.told = newest;
                    return Some(leadership);
                }
            }
            Ok(None) | Err(Failure::Op(OpError::NoNode { .. })) => self.phase = LIST,
            Err(Failure::Op(error)) => self.phase = Phase::Failed(error),
            Err(_) => {}
        }
        None
    }

    fn event(&mut self, event: &Event) {
        let matches = |filter: &Filter| filter.matches(event);
        if event.zxid <= self.seen || !self.watched.as_ref().is_some_and(matches) {
            return;
        }
        // An answer that is out and older than this is asked for again.
        self.seen = event.zxid;
        if self.phase != Phase::Watching {
            return;
        }
        self.phase = match event.kind {
            EventKind::DataChanged => Phase::Reading(event.path.clone()),
            _ => LIST,
        };
    }

    fn watch(&mut self, filter: Filter, from: Zxid) {
        if self.watched.as_ref() == Some(&filter) {
            return;
        }
        if let Some(old) = self.watched.replace(filter.clone()) {
            self.actions.push_back(Action::Unwatch(old));
        }
        self.actions.push_back(Action::Watch { filter, from });
    }
}

const LIST: Phase = Phase::Listing { after: None, since: None, lowest: None };
