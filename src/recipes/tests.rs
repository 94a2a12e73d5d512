//! The recipes over a small model of the namespace, under random schedules.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;

use super::{Action, Election, Failure, Input, Layout, Leadership, Lock, Observer, State};
use crate::{
    id::{SessionId, Zxid},
    op::{Check, CreateMode, Event, EventKind, Filter, Guard, Op, OpError, Outcome, Stat, Txn},
    path::Path,
};

/// A small generator: xorshift, seeded.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn id(&mut self) -> [u8; 16] {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.next().to_le_bytes());
        id[8..].copy_from_slice(&self.next().to_le_bytes());
        id
    }
}

#[derive(Clone)]
struct Znode {
    data: Bytes,
    stat: Stat,
    next: u64,
}

/// One tree, every change an event; nodes of a session go with it.
#[derive(Default)]
struct Model {
    zxid: u64,
    nodes: BTreeMap<String, Znode>,
    events: Vec<Event>,
    /// What stale reads see: the tree after each zxid.
    history: Vec<BTreeMap<String, Znode>>,
}

impl Model {
    fn new() -> Self {
        let mut model = Self::default();
        model.history.push(BTreeMap::new());
        model
    }

    fn commit(&mut self, kind: EventKind, path: &str, czxid: Zxid) {
        self.events.push(Event {
            zxid: Zxid::new(self.zxid),
            kind,
            path: path.parse().expect("made from a path"),
            czxid,
            before: None,
            after: None,
            acl: None,
            acl_above: None,
        });
        self.history.push(self.nodes.clone());
    }

    fn apply(&mut self, session: SessionId, txn: &Txn) -> Result<Outcome, OpError> {
        for (index, Guard { path, check }) in txn.guards().iter().enumerate() {
            let node = self.nodes.get(path.as_str());
            if !matches!(check, Check::Czxid(czxid) if node.is_some_and(|n| n.stat.czxid == *czxid))
            {
                let (index, path) = (index as u64, path.clone());
                return Err(OpError::GuardFailed { index, path });
            }
        }
        match txn.ops().next().unwrap() {
            Op::Create { path, data, mode, .. } => self.create(session, path.as_str(), data, *mode),
            Op::Set { path, data, .. } => {
                let zxid = Zxid::new(self.zxid + 1);
                let missing = OpError::NoNode { path: path.clone() };
                let node = self.nodes.get_mut(path.as_str()).ok_or(missing)?;
                (node.data, node.stat.mzxid) = (data.clone(), zxid);
                let stat = node.stat;
                self.zxid += 1;
                self.commit(EventKind::DataChanged, path.as_str(), stat.czxid);
                Ok(Outcome::Set { stat })
            }
            Op::Delete { path, .. } => {
                let missing = OpError::NoNode { path: path.clone() };
                let node = self.nodes.remove(path.as_str()).ok_or(missing)?;
                self.zxid += 1;
                self.commit(EventKind::Deleted, path.as_str(), node.stat.czxid);
                Ok(Outcome::Deleted)
            }
            other => panic!("no recipe asks for {other:?}"),
        }
    }

    fn create(
        &mut self,
        session: SessionId,
        prefix: &str,
        data: &Bytes,
        mode: CreateMode,
    ) -> Result<Outcome, OpError> {
        let parent = &prefix[..prefix.rfind('/').expect("absolute")];
        let mut name = prefix.to_owned();
        if !parent.is_empty() {
            let path = parent.parse().expect("a path");
            let parent = self.nodes.get_mut(parent);
            let parent = parent.ok_or(OpError::NoNode { path })?;
            if mode.is_sequential() {
                name = format!("{prefix}{:010}", parent.next);
                parent.next += 1;
            }
        }
        let path: Path = name.parse().expect("a path");
        if self.nodes.contains_key(&name) {
            return Err(OpError::NodeExists { path });
        }
        self.zxid += 1;
        let zxid = Zxid::new(self.zxid);
        let stat = Stat {
            czxid: zxid,
            mzxid: zxid,
            owner: mode.is_ephemeral().then_some(session.lease()),
            ..Stat::default()
        };
        let (data, next) = (data.clone(), 0);
        self.nodes.insert(name.clone(), Znode { data, stat, next });
        self.commit(EventKind::Created, &name, zxid);
        Ok(Outcome::Created { path, stat })
    }

    fn expire(&mut self, session: SessionId) {
        let owned = |node: &Znode| node.stat.owner == Some(session.lease());
        while let Some((path, _)) = self.nodes.iter().find(|(_, node)| owned(node)) {
            let path = path.clone();
            let node = self.nodes.remove(&path).expect("just found");
            self.zxid += 1;
            self.commit(EventKind::Deleted, &path, node.stat.czxid);
        }
    }

    fn children(&self, at: u64, parent: &Path) -> Result<Vec<String>, OpError> {
        let nodes = &self.history[at as usize];
        if !nodes.contains_key(parent.as_str()) {
            let path = parent.clone();
            return Err(OpError::NoNode { path });
        }
        let below = format!("{parent}/");
        let names = nodes.keys().filter_map(|path| path.strip_prefix(&below));
        Ok(names.filter(|name| !name.contains('/')).map(str::to_owned).collect())
    }
}

/// One recipe, its session, and what is under way to and from it.
struct Client {
    session: SessionId,
    out: Option<Action>,
    watches: Vec<(Filter, u64)>,
    inputs: VecDeque<Input>,
    events_seen: usize,
    /// What the session's writes get from the end of the session until the client learns of it.
    over: Option<OpError>,
}

impl Client {
    fn new(session: u64) -> Self {
        Self {
            session: SessionId::new(session).expect("small"),
            out: None,
            watches: Vec::new(),
            inputs: VecDeque::new(),
            events_seen: 0,
            over: None,
        }
    }

    fn take(&mut self, action: Action) {
        match action {
            Action::Watch { filter, from } => self.watches.push((filter, from.as_u64())),
            Action::Unwatch(filter) => self.watches.retain(|watch| watch.0 != filter),
            action => {
                assert!(self.out.is_none(), "one question at a time");
                self.out = Some(action);
            }
        }
    }

    /// Answers what is out, by chance with a failure, a stale tree or small pages.
    fn answer(&mut self, model: &mut Model, rng: &mut Rng, faults: bool) {
        let Some(action) = self.out.take() else {
            return;
        };
        let fault = if faults { rng.below(8) } else { 7 };
        let input = match action {
            Action::Submit(txn) => {
                let result = match fault {
                    _ if self.over.is_some() => Err(Failure::Op(self.over.clone().expect("some"))),
                    0 => Err(Failure::NotDone),
                    1 => Err(Failure::Unknown),
                    2 => {
                        let _ = model.apply(self.session, &txn);
                        Err(Failure::Unknown)
                    }
                    _ => model.apply(self.session, &txn).map_err(Failure::Op),
                };
                let zxid = Zxid::new(model.zxid);
                Input::Replied { zxid, result }
            }
            Action::List { path, after, at_least } => {
                let at = self.stale(model, rng, at_least);
                let limit = 1 + rng.below(4) as usize;
                let result = model.children(at, &path).map(|names| {
                    let after = after.unwrap_or_default();
                    let mut names: Vec<_> = names.into_iter().filter(|it| *it > after).collect();
                    let more = names.len() > limit;
                    names.truncate(limit);
                    (names, more)
                });
                Input::Listed {
                    zxid: Zxid::new(at),
                    result: match fault {
                        0 => Err(Failure::NotDone),
                        _ => result.map_err(Failure::Op),
                    },
                }
            }
            Action::Get { path, at_least } => {
                let at = self.stale(model, rng, at_least);
                let node = model.history[at as usize].get(path.as_str()).cloned();
                Input::Read {
                    zxid: Zxid::new(at),
                    result: Ok(node.map(|node| (node.data, node.stat))),
                }
            }
            Action::Watch { .. } | Action::Unwatch(_) => unreachable!("not a question"),
        };
        self.inputs.push_back(input);
    }

    /// Any tree that is fresh enough and not older than what this replica has told.
    fn stale(&self, model: &Model, rng: &mut Rng, at_least: Zxid) -> u64 {
        let from = at_least.as_u64().max(self.events_seen as u64);
        from + rng.below(model.zxid - from + 1)
    }

    /// Delivers events up to a point of the history that moves on by chance.
    fn watch(&mut self, model: &Model, rng: &mut Rng, faults: bool) {
        let upto = self.events_seen + rng.below(3) as usize;
        self.events_seen = upto.min(model.events.len()).max(self.events_seen);
        if faults && !self.watches.is_empty() && rng.below(20) == 0 {
            let at = rng.below(self.watches.len() as u64) as usize;
            let (filter, _) = self.watches.swap_remove(at);
            self.inputs.push_back(Input::WatchEnded(filter));
        }
        for (filter, from) in &mut self.watches {
            for event in &model.events[..self.events_seen] {
                let zxid = event.zxid.as_u64();
                if zxid > *from && filter.matches(event) {
                    self.inputs.push_back(Input::Event(event.clone()));
                }
            }
            *from = (*from).max(self.events_seen as u64);
        }
    }
}

const FOREVER: Duration = Duration::from_secs(1 << 40);

fn holder(lock: &Lock) -> Option<Zxid> {
    match lock.state(Duration::ZERO) {
        State::Held { token, .. } => Some(token),
        _ => None,
    }
}

/// The token of the contender that the tree says is first.
fn first(model: &Model) -> Option<Zxid> {
    let contenders = model.nodes.iter();
    contenders
        .filter_map(|(path, node)| {
            let number = super::layout::sequence(&path[path.rfind('/')? + 1..])?;
            Some((number, node.stat.czxid))
        })
        .min()
        .map(|(_, czxid)| czxid)
}

/// Tokens grow, and whoever believes that it holds, and whose node is there, is the first of the
/// queue: so no two tokens that a guard accepts are held at once.
fn check_holders(
    model: &Model,
    clients: &[(Client, Lock)],
    at: usize,
    tokens: &mut Vec<Zxid>,
    seed: u64,
) {
    // Whose node is gone may not know it yet; time, which stands still here, would tell it.
    let alive = |token: &Zxid| model.nodes.values().any(|it| it.stat.czxid == *token);
    if let Some(token) = holder(&clients[at].1).filter(alive) {
        if tokens.last() != Some(&token) {
            assert!(
                tokens.last().is_none_or(|last| *last < token),
                "seed {seed}: tokens grow: {tokens:?}, then {token}"
            );
            tokens.push(token);
        }
    }
    for token in clients.iter().filter_map(|(_, lock)| holder(lock)) {
        assert!(!alive(&token) || first(model) == Some(token), "seed {seed}");
    }
}

fn run_locks(seed: u64, faults: bool) -> usize {
    let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut model = Model::new();
    let path: Path = "/a/locks/x".parse().expect("valid");
    let mut clients: Vec<(Client, Lock)> = (1..=5)
        .map(|session| {
            let layout = [Layout::Curator, Layout::Kazoo][session as usize % 2];
            let mut lock = Lock::new(layout, path.clone());
            lock.handle(Input::Renewed(FOREVER));
            (Client::new(session), lock)
        })
        .collect();
    let mut tokens = Vec::new();
    for step in 0..4_000 {
        let calm = step > 3_000;
        let faults = faults && !calm;
        let at = rng.below(5) as usize;
        let (client, lock) = &mut clients[at];
        match rng.below(if calm { 4 } else { 14 }) {
            0 | 10 | 11 => client.answer(&mut model, &mut rng, faults),
            1 | 12 => client.watch(&model, &mut rng, faults),
            3 => lock.release(),
            4 => lock.acquire(rng.id(), "me".into()),
            6 if faults && client.over.is_none() && rng.below(10) == 0 => {
                // The session ends: its nodes go first, the client learns of it later.
                model.expire(client.session);
                client.out = None;
                client.inputs.clear();
                let session = client.session;
                client.over = Some(OpError::SessionEnded { session });
                client.inputs.push_back(Input::SessionOver { moved: false });
            }
            7 if faults && client.over.is_none() && rng.below(10) == 0 => {
                // The session lives on elsewhere, and its nodes with it.
                client.out = None;
                client.inputs.clear();
                let (session, epoch) = (client.session, 2);
                client.over = Some(OpError::Moved { session, epoch });
                client.inputs.push_back(Input::SessionOver { moved: true });
            }
            8 if faults && rng.below(10) == 0 => {
                // Somebody removes the holder's node by hand.
                if let Some(fence) = lock.fence() {
                    let delete = Op::Delete { path: fence.path, version: None };
                    let _ = model.apply(client.session, &delete.into());
                }
            }
            _ => {
                if let Some(input) = client.inputs.pop_front() {
                    if matches!(input, Input::SessionOver { .. }) {
                        // Attached anew: this replica is past whatever the session did before.
                        (client.out, client.over) = (None, None);
                        client.events_seen = model.events.len();
                        client.inputs.clear();
                    }
                    lock.handle(input);
                }
            }
        }
        while let Some(action) = lock.action() {
            client.take(action);
        }
        check_holders(&model, &clients, at, &mut tokens, seed);
    }
    settle(&mut model, &mut clients, &mut rng, seed);
    tokens.len()
}

/// Without faults everything that waits ends: the queue drains one by one, nobody is left behind.
fn settle(model: &mut Model, clients: &mut [(Client, Lock)], rng: &mut Rng, seed: u64) {
    for _ in 0..2 * clients.len() + 1 {
        for _ in 0..200 {
            for (client, lock) in clients.iter_mut() {
                client.answer(model, rng, false);
                client.watch(model, rng, false);
                while let Some(input) = client.inputs.pop_front() {
                    lock.handle(input);
                }
                while let Some(action) = lock.action() {
                    client.take(action);
                }
            }
        }
        let waiting = |(_, lock): &(Client, Lock)| {
            matches!(lock.state(Duration::ZERO), State::Waiting { .. })
        };
        let holders = clients.iter().filter(|it| holder(&it.1).is_some()).count();
        // A session that moved left its node behind; its client cleans up when it gives up.
        let lost = |(_, lock): &(Client, Lock)| lock.state(Duration::ZERO) == State::Lost;
        let anybody = clients.iter().any(waiting) && !clients.iter().any(lost);
        assert!(
            holders == 1 || !anybody,
            "seed {seed}: {holders} hold, others wait: {:?}",
            clients.iter().map(|it| &it.1).collect::<Vec<_>>()
        );
        for (_, lock) in clients.iter_mut() {
            if holder(lock).is_some() || matches!(lock.state(Duration::ZERO), State::Lost) {
                lock.release();
            }
        }
    }
    for (_, lock) in clients.iter_mut() {
        assert_eq!(lock.state(Duration::ZERO), State::Idle, "seed {seed}");
    }
    let path = "/a/locks/x".parse().expect("valid");
    let left = model.children(model.zxid, &path).unwrap_or_default();
    // Each removed its own node, whatever it knew of the create's outcome.
    assert_eq!(left, Vec::<String>::new(), "seed {seed}");
}

#[test]
fn one_holder_per_token_tokens_grow_and_nobody_is_left_behind() {
    let mut held = 0;
    for seed in 1..=300 {
        held += run_locks(seed, true);
        held += run_locks(seed, false);
    }
    assert!(held > 2_000, "the schedules do something: {held}");
}

/// Drives one lock until it has nothing more to do.
fn quiesce(model: &mut Model, client: &mut Client, lock: &mut Lock) -> usize {
    let mut rng = Rng(7);
    let mut events = 0;
    for _ in 0..50 {
        client.events_seen = model.events.len();
        while let Some(action) = lock.action() {
            client.take(action);
        }
        client.answer(model, &mut rng, false);
        client.watch(model, &mut rng, false);
        while let Some(input) = client.inputs.pop_front() {
            events += usize::from(matches!(input, Input::Event(_)));
            lock.handle(input);
        }
    }
    events
}

#[test]
fn a_release_wakes_one_waiter_only() {
    let mut model = Model::new();
    let path: Path = "/locks".parse().expect("valid");
    let mut rng = Rng(1);
    let mut clients: Vec<(Client, Lock)> = Vec::new();
    for session in 1..=20 {
        let mut client = Client::new(session);
        let mut lock = Lock::new(Layout::Curator, path.clone());
        lock.handle(Input::Renewed(FOREVER));
        lock.acquire(rng.id(), Bytes::new());
        quiesce(&mut model, &mut client, &mut lock);
        clients.push((client, lock));
    }
    assert_eq!(clients[19].1.state(Duration::ZERO), State::Waiting { ahead: Some(19) });
    for round in 0..19 {
        assert!(holder(&clients[round].1).is_some(), "in the order of arrival");
        let (client, lock) = &mut clients[round];
        lock.release();
        quiesce(&mut model, client, lock);
        let rest = clients[round + 1..].iter_mut();
        let woken: Vec<usize> = rest.map(|(c, l)| quiesce(&mut model, c, l)).collect();
        assert_eq!(woken.iter().sum::<usize>(), 1, "round {round}: {woken:?}");
        assert_eq!(woken[0], 1, "the next in the queue");
    }
}

#[test]
fn past_until_it_is_suspended_and_held_again_with_the_same_token_when_renewed() {
    let (mut model, mut client) = (Model::new(), Client::new(1));
    let mut lock = Lock::new(Layout::Curator, "/l".parse().expect("valid"));
    lock.acquire([1; 16], Bytes::new());
    quiesce(&mut model, &mut client, &mut lock);
    let second = Duration::from_secs(1);
    assert!(matches!(lock.state(second), State::Suspended { .. }));
    lock.handle(Input::Renewed(2 * second));
    let held = lock.state(second);
    assert!(matches!(held, State::Held { until, .. } if until == 2 * second));
    assert!(matches!(lock.state(2 * second), State::Suspended { .. }));
    // A late answer to an older renewal takes nothing away.
    lock.handle(Input::Renewed(second));
    assert_eq!(lock.state(second), held);
    lock.handle(Input::SessionOver { moved: false });
    assert_eq!(lock.state(second), State::Lost);
    lock.handle(Input::Renewed(9 * second));
    assert_eq!(lock.state(second), State::Lost, "for good");
    assert_eq!(lock.fence(), None);
}

#[test]
fn after_a_loss_the_own_node_goes_before_it_contends_again() {
    let (mut model, mut client) = (Model::new(), Client::new(1));
    let mut lock = Lock::new(Layout::Curator, "/l".parse().expect("valid"));
    lock.handle(Input::Renewed(FOREVER));
    lock.acquire([1; 16], Bytes::new());
    quiesce(&mut model, &mut client, &mut lock);
    let token = holder(&lock).expect("alone");
    lock.handle(Input::SessionOver { moved: true });
    assert_eq!(lock.state(Duration::ZERO), State::Lost);
    lock.acquire([2; 16], Bytes::new());
    client.out = None;
    let action = lock.action().map(|action| match action {
        Action::Unwatch(_) => lock.action(),
        action => Some(action),
    });
    let Some(Some(Action::Submit(txn))) = action else {
        panic!("{action:?}");
    };
    assert!(matches!(txn.ops().next().unwrap(), Op::Delete { .. }));
    assert_eq!(txn.guards()[0].check, Check::Czxid(token));
    client.take(Action::Submit(txn));
    quiesce(&mut model, &mut client, &mut lock);
    assert!(holder(&lock).expect("contended anew") > token);
}

#[test]
fn observers_see_each_leader_in_order_and_never_an_older_proposal() {
    for seed in 1..=200 {
        let mut rng = Rng(seed * 77 + 1);
        let mut model = Model::new();
        let path: Path = "/app/leader".parse().expect("valid");
        let mut candidates: Vec<(Client, Election)> = (1..=3)
            .map(|session| {
                let mut election = Election::new(Layout::Curator, path.clone());
                election.handle(Input::Renewed(FOREVER));
                (Client::new(session), election)
            })
            .collect();
        let (mut eye, mut observer) = (Client::new(9), Observer::new(path));
        let mut told: Vec<Leadership> = Vec::new();
        for step in 0..3_000 {
            let (client, election) = &mut candidates[rng.below(3) as usize];
            match rng.below(if step > 2_000 { 1 } else { 12 }) {
                1 => election.resign(),
                2 | 3 => election.campaign(rng.id(), "first".into()),
                4 => {
                    if let Some(txn) = election.proclaim(format!("{step}").into()) {
                        let set = model.apply(client.session, &txn);
                        assert!(matches!(set, Ok(_) | Err(OpError::GuardFailed { .. })));
                    }
                }
                _ => {
                    client.answer(&mut model, &mut rng, false);
                    client.watch(&model, &mut rng, false);
                    while let Some(input) = client.inputs.pop_front() {
                        election.handle(input);
                    }
                }
            }
            while let Some(action) = election.action() {
                client.take(action);
            }
            while let Some(action) = observer.action() {
                eye.take(action);
            }
            eye.answer(&mut model, &mut rng, true);
            eye.watch(&model, &mut rng, step <= 2_000);
            while let Some(input) = eye.inputs.pop_front() {
                told.extend(observer.handle(input));
            }
        }
        let order: Vec<_> = told.iter().map(|it| (it.token, it.zxid)).collect();
        assert!(order.is_sorted(), "seed {seed}: {order:?}");
        let leads = candidates.iter().find_map(|it| it.1.fence());
        let seen = observer.leadership();
        assert_eq!(seen.map(|it| &it.path), leads.as_ref().map(|it| &it.path));
        if let Some(seen) = seen {
            assert_eq!(seen.proposal, model.nodes[seen.path.as_str()].data);
            assert_eq!(told.last(), Some(seen), "seed {seed}");
        }
    }
}

#[test]
fn a_predecessor_that_goes_between_two_pages_is_not_missed() {
    let mut lock = Lock::new(Layout::Kazoo, "/l".parse().expect("valid"));
    lock.handle(Input::Renewed(FOREVER));
    lock.acquire([1; 16], Bytes::new());
    let Some(Action::Submit(txn)) = lock.action() else {
        panic!("it takes its place first");
    };
    let Op::Create { path, .. } = txn.ops().next().unwrap() else {
        panic!("{txn:?}");
    };
    let own: Path = format!("{path}0000000007").parse().expect("valid");
    let czxid = Zxid::new(10);
    let stat = Stat { czxid, ..Stat::default() };
    let name = own.name().to_owned();
    let result = Ok(Outcome::Created { path: own, stat });
    lock.handle(Input::Replied { zxid: czxid, result });
    assert!(matches!(lock.action(), Some(Action::Watch { from, .. }) if from == czxid));
    assert!(matches!(lock.action(), Some(Action::List { after: None, .. })));
    let before = "0__lock__0000000006".to_owned();
    let zxid = Zxid::new(10);
    let result = Ok((vec![before.clone()], true));
    lock.handle(Input::Listed { zxid, result });
    assert!(matches!(lock.action(), Some(Action::List { after: Some(at), .. }) if at == before));
    // The predecessor goes at 11, and the second page is read at 12.
    let (zxid, result) = (Zxid::new(12), Ok((vec![name], false)));
    lock.handle(Input::Listed { zxid, result });
    let watch = lock.action();
    assert!(matches!(watch, Some(Action::Watch { from, .. }) if from < Zxid::new(11)));
}
