//! Watches: cursors over the history of changes.
//!
//! A watch that keeps up is told of each transaction as it is applied; one that has no credit left
//! is only a cursor, and reads on in the bounded history when it has credit again. Past the history
//! it ends with `Compacted`: there is never a silent gap.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
};

use foldhash::fast::FixedState;

use crate::{
    id::{SessionId, Zxid},
    mutant::Mutant,
    namespace::{Change, Lists},
    node::request::{Output, Watch, WatchEnd, WatchId},
    op::{Detail, Event, EventKind, Filter, Identities},
    path::Path,
};

/// The watches of one node.
#[derive(Debug, Default)]
pub(crate) struct Cursors {
    cursors: BTreeMap<WatchId, Cursor>,
    /// Never iterated.
    by_node: HashMap<Path, BTreeSet<WatchId>, FixedState>,
    by_parent: HashMap<Path, BTreeSet<WatchId>, FixedState>,
    by_subtree: HashMap<Path, BTreeSet<WatchId>, FixedState>,
    /// Those that lag and have credit to read on.
    eager: BTreeSet<WatchId>,
    /// Those that end with an attachment.
    by_session: BTreeSet<(SessionId, WatchId)>,
    /// Those that say how far they have come, by the tick at which they may have to.
    by_progress: BTreeSet<(u64, WatchId)>,
    /// Room for the watches that a transaction matches, and the places of the changes.
    matches: Vec<(WatchId, usize)>,
    tick: u64,
}

#[derive(Debug)]
struct Cursor {
    watch: Watch,
    /// Who is told. Those of a session stay as they are while its attachment, and so the watch,
    /// lasts.
    who: Identities,
    /// Every event up to here was handed out or does not match.
    last: Zxid,
    lags: bool,
    /// It has told of the one transaction that it was to tell of.
    fired: bool,
    /// Somebody waits to be told how far it has come.
    owes_progress: bool,
    /// Up to where it said that it has come, and when it last told anything.
    told: (Zxid, u64),
    /// Its place among those that say by themselves how far they have come.
    progress_due: Option<u64>,
}

impl Cursors {
    /// Adds a watch of somebody on what comes after `from`; the node has applied `zxid`.
    pub(crate) fn insert(
        &mut self,
        id: WatchId,
        watch: Watch,
        who: Identities,
        from: Zxid,
        zxid: Zxid,
    ) {
        self.index(&watch.filter).entry(watch.filter.path().clone()).or_default().insert(id);
        let lags = from < zxid && !Mutant::WatchStartsLate.active();
        if lags && watch.credit > 0 {
            self.eager.insert(id);
        }
        let session = watch.caller.session();
        self.by_session.extend(session.map(|session| (session, id)));
        let due = watch.progress_ticks.map(|ticks| self.tick + u64::from(ticks.get()));
        self.by_progress.extend(due.map(|due| (due, id)));
        let (told, fired, owes_progress, progress_due) = ((from, self.tick), false, false, due);
        let cursor =
            Cursor { watch, who, last: from, lags, fired, owes_progress, told, progress_due };
        self.cursors.insert(id, cursor);
    }

    pub(crate) fn remove(&mut self, id: WatchId) {
        let Some(cursor) = self.cursors.remove(&id) else {
            return;
        };
        self.eager.remove(&id);
        if let Some(session) = cursor.watch.caller.session() {
            self.by_session.remove(&(session, id));
        }
        if let Some(due) = cursor.progress_due {
            self.by_progress.remove(&(due, id));
        }
        let path = cursor.watch.filter.path();
        let index = self.index(&cursor.watch.filter);
        if let Some(ids) = index.get_mut(path) {
            ids.remove(&id);
            if ids.is_empty() {
                index.remove(path);
            }
        }
    }

    /// A watch may be told of `events` more.
    pub(crate) fn credit(&mut self, id: WatchId, events: u32) {
        if let Some(cursor) = self.cursors.get_mut(&id) {
            cursor.watch.credit = cursor.watch.credit.saturating_add(events);
            if cursor.lags && cursor.watch.credit > 0 {
                self.eager.insert(id);
            }
        }
    }

    /// A watch is to say how far it has come; the node has applied `zxid`.
    pub(crate) fn ask_progress(&mut self, id: WatchId, zxid: Zxid, out: &mut Vec<Output>) {
        let Some(cursor) = self.cursors.get_mut(&id) else {
            return;
        };
        cursor.owes_progress = true;
        if cursor.watch.credit == 0 && !cursor.lags {
            // With credit it reads on, has nothing to read, and says so.
            cursor.last = cursor.last.max(zxid);
            cursor.lags = true;
        }
        cursor.pay_progress(id, zxid, self.tick, out);
    }

    /// Time passes: those that have told nothing for a while say how far they have come.
    pub(crate) fn tick(&mut self, tick: u64, zxid: Zxid, out: &mut Vec<Output>) {
        self.tick = tick;
        if Mutant::EventsLate.active() {
            self.eager.extend(self.cursors.keys());
        }
        for _ in 0..PROGRESS_PER_TICK {
            let Some(&(due, id)) = self.by_progress.first().filter(|(due, _)| *due <= tick) else {
                return;
            };
            self.by_progress.remove(&(due, id));
            let Some(cursor) = self.cursors.get_mut(&id) else {
                continue;
            };
            let ticks = cursor.watch.progress_ticks.map_or(1, |ticks| u64::from(ticks.get()));
            if cursor.told.1 + ticks <= tick {
                if cursor.told.0 < zxid && !cursor.lags && cursor.watch.credit > 0 {
                    cursor.owes_progress = true;
                    cursor.pay_progress(id, zxid, tick, out);
                }
                cursor.told.1 = tick;
            }
            let due = cursor.told.1 + ticks;
            cursor.progress_due = Some(due);
            self.by_progress.insert((due, id));
        }
    }

    /// Tells of one transaction, whose changes all have the same zxid, whoever may learn of it.
    pub(crate) fn fire(
        &mut self,
        changes: &[Change],
        learns: impl Fn(&Lists<'_>, &Change, &Identities) -> Option<Detail>,
        out: &mut Vec<Output>,
    ) {
        if self.cursors.is_empty() {
            return;
        }
        let Some(zxid) = changes.first().map(|change| change.zxid) else {
            return;
        };
        let mut told = mem::take(&mut self.matches);
        for (at, change) in changes.iter().enumerate() {
            self.each_match(change, |id| told.push((id, at)));
        }
        told.sort_unstable();
        let lists = Lists::new(changes);
        for its in told.chunk_by(|one, next| one.0 == next.0) {
            let id = its[0].0;
            let Some(cursor) = self.cursors.get_mut(&id) else {
                continue;
            };
            cursor.lags |= Mutant::EventsLate.active();
            if cursor.lags || cursor.last >= zxid {
                continue;
            }
            let any = cursor.watch.kinds.is_empty();
            let its = its.iter().map(|&(_, at)| &changes[at]);
            let its = its.filter(|change| any || cursor.watch.sees(change));
            let events = its.filter_map(|change| cursor.event(&lists, change, &learns));
            let events: Vec<Event> = events.collect();
            if events.is_empty() {
                continue;
            }
            if cursor.watch.credit == 0 {
                // A watch that keeps up has seen, or need not see, all before this transaction.
                cursor.last = cursor.last.max(zxid.before());
                cursor.lags = true;
                continue;
            }
            cursor.hand_out(id, zxid, events, self.tick, out);
            if cursor.fired {
                self.end_fired(id, out);
            }
        }
        told.clear();
        self.matches = told;
    }

    /// Lets watches that lag read on, at most `budget` changes in all. `after` gives the history
    /// after a zxid, or the oldest zxid to resume from; `learns` says whom to tell of a change.
    pub(crate) fn catch_up<'a, I>(
        &mut self,
        zxid: Zxid,
        budget: &mut usize,
        after: impl Fn(Zxid) -> Result<I, Zxid>,
        learns: impl Fn(&Lists<'_>, &Change, &Identities) -> Option<Detail>,
        out: &mut Vec<Output>,
    ) where
        I: Iterator<Item = &'a Change>,
    {
        while let Some(&id) = self.eager.first() {
            if *budget == 0 {
                return;
            }
            let Some(cursor) = self.cursors.get_mut(&id) else {
                self.eager.remove(&id);
                continue;
            };
            match after(cursor.last) {
                Ok(history) => {
                    let (history, at) = (history.peekable(), (zxid, self.tick));
                    let done = cursor.read_on(id, history, &learns, at, budget, out);
                    if done {
                        self.eager.remove(&id);
                        if cursor.fired {
                            self.end_fired(id, out);
                        }
                    }
                }
                Err(resume_at) => {
                    self.remove(id);
                    out.push(Output::WatchEnded {
                        watch: id,
                        cause: WatchEnd::Compacted { resume_at },
                    });
                }
            }
        }
    }

    /// A snapshot is installed over a tree at `zxid`: every watch reads on from the history inside
    /// it, or ends there.
    pub(crate) fn installed(&mut self, zxid: Zxid) {
        for (&id, cursor) in &mut self.cursors {
            if !cursor.lags && !Mutant::EventTwice.active() {
                cursor.last = cursor.last.max(zxid);
            }
            cursor.lags = true;
            if cursor.watch.credit > 0 {
                self.eager.insert(id);
            }
        }
    }

    /// An attachment is over, and its watches with it.
    pub(crate) fn detach(&mut self, session: SessionId, out: &mut Vec<Output>) {
        let its = (session, WatchId(0))..=(session, WatchId(u64::MAX));
        for (_, id) in self.by_session.range(its).copied().collect::<Vec<_>>() {
            self.remove(id);
            out.push(Output::WatchEnded { watch: id, cause: WatchEnd::Detached });
        }
    }

    /// The node has ended.
    pub(crate) fn end_all(&mut self, out: &mut Vec<Output>) {
        let ended = |&watch| Output::WatchEnded { watch, cause: WatchEnd::NodeEnded };
        out.extend(self.cursors.keys().map(ended));
        *self = Self::default();
    }

    pub(crate) fn len(&self) -> usize {
        self.cursors.len()
    }

    pub(crate) fn wants_catch_up(&self) -> bool {
        !self.eager.is_empty()
    }

    fn end_fired(&mut self, id: WatchId, out: &mut Vec<Output>) {
        self.remove(id);
        out.push(Output::WatchEnded { watch: id, cause: WatchEnd::Fired });
    }

    fn index(&mut self, filter: &Filter) -> &mut HashMap<Path, BTreeSet<WatchId>, FixedState> {
        match filter {
            Filter::Node(_) => &mut self.by_node,
            Filter::Children(_) => &mut self.by_parent,
            Filter::Subtree(_) => &mut self.by_subtree,
        }
    }

    fn each_match(&self, change: &Change, mut tell: impl FnMut(WatchId)) {
        let Some(kind) = change.kind else {
            return;
        };
        if let Some(ids) = self.by_node.get(&change.path) {
            ids.iter().copied().for_each(&mut tell);
        }
        if kind.is_of_parent() && !self.by_parent.is_empty() {
            let ids = change.path.parent_str().and_then(|parent| self.by_parent.get(parent));
            let own = self.by_parent.get(&change.path).filter(|_| kind == EventKind::Deleted);
            ids.into_iter().chain(own).flatten().copied().for_each(&mut tell);
        }
        if !self.by_subtree.is_empty() {
            let ids = change.path.upward().filter_map(|path| self.by_subtree.get(path));
            ids.flatten().copied().for_each(&mut tell);
        }
    }
}

impl Cursor {
    /// Hands out whole transactions while there is credit. Returns whether it has stopped, because
    /// it has caught up or because the credit is used.
    fn read_on<'a>(
        &mut self,
        id: WatchId,
        mut history: std::iter::Peekable<impl Iterator<Item = &'a Change>>,
        learns: impl Fn(&Lists<'_>, &Change, &Identities) -> Option<Detail>,
        (zxid, tick): (Zxid, u64),
        budget: &mut usize,
        out: &mut Vec<Output>,
    ) -> bool {
        loop {
            let Some(at) = history.peek().map(|change| change.zxid) else {
                self.last = self.last.max(zxid);
                self.lags = self.owes_progress && self.watch.credit == 0;
                self.pay_progress(id, zxid, tick, out);
                return true;
            };
            if self.watch.credit == 0 || self.fired {
                return true;
            }
            if *budget == 0 {
                return false;
            }
            let txn: Vec<&Change> =
                std::iter::from_fn(|| history.next_if(|change| change.zxid == at)).collect();
            *budget = budget.saturating_sub(txn.len());
            let (lists, mut events) = (Lists::new(txn.iter().copied()), Vec::new());
            for change in txn.into_iter().filter(|change| self.watch.sees(change)) {
                events.extend(self.event(&lists, change, &learns));
            }
            if events.is_empty() {
                self.last = at;
            } else {
                self.hand_out(id, at, events, tick, out);
            }
        }
    }

    /// What it tells of a change, if whoever watches may learn of it.
    fn event(
        &self,
        lists: &Lists<'_>,
        change: &Change,
        learns: impl Fn(&Lists<'_>, &Change, &Identities) -> Option<Detail>,
    ) -> Option<Event> {
        let may = learns(lists, change, &self.who)?;
        let mut event = change.event(self.watch.detail.min(may))?;
        if self.who.is_super() {
            event.acl = change.acl().cloned();
        }
        Some(event)
    }

    fn hand_out(
        &mut self,
        id: WatchId,
        zxid: Zxid,
        events: Vec<Event>,
        tick: u64,
        out: &mut Vec<Output>,
    ) {
        self.last = if Mutant::EventTwice.active() { zxid.before() } else { zxid };
        self.told = (zxid, tick);
        self.fired = self.watch.once;
        let count = u32::try_from(events.len()).unwrap_or(u32::MAX);
        self.watch.credit = self.watch.credit.saturating_sub(count);
        out.push(Output::Events { watch: id, zxid, events });
    }

    /// Says how far it has come, if somebody waits for that and it has come to the end.
    fn pay_progress(&mut self, id: WatchId, zxid: Zxid, tick: u64, out: &mut Vec<Output>) {
        if !self.owes_progress || self.lags || self.watch.credit == 0 {
            return;
        }
        self.owes_progress = false;
        self.last = self.last.max(zxid);
        self.told = (zxid, tick);
        self.watch.credit -= 1;
        out.push(Output::Progress { watch: id, zxid });
    }
}

/// Watches that say in one tick how far they have come; the others wait for the next.
const PROGRESS_PER_TICK: usize = 1024;
