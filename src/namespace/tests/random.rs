//! Random commands against the naive model, and against other replicas.

use std::{collections::BTreeSet, time::Duration};

use super::{
    super::{Namespace, tests::*},
    model::Model,
};
use crate::{
    command::{Command, KeepAlive},
    id::{LeaseId, Origin, SessionId, Zxid},
    namespace::Applied,
    op::{
        Acl, Check, Children, CreateMode, Detail, DigestId, Field, Grant, Guard, Identities,
        Identity, LimitName, List, Op, OpError, Outcome, Owned, Principal, Quota, Relation, Rights,
        Txn,
    },
};

/// Replies, changes, tree, sessions and history are those of the model, and a state that goes
/// through its snapshot goes on as if nothing had been (rules 2, 3, 4, 7, 9, 10 and 12 of
/// ARCHITECTURE.md). A million commands in all, in tests that run side by side.
#[test]
fn the_first_commands_of_a_million_do_what_the_model_does() {
    commands_do_what_the_model_does(1);
}

#[test]
fn the_second_commands_of_a_million_do_what_the_model_does() {
    commands_do_what_the_model_does(2);
}

#[test]
fn the_third_commands_of_a_million_do_what_the_model_does() {
    commands_do_what_the_model_does(3);
}

#[test]
fn the_fourth_commands_of_a_million_do_what_the_model_does() {
    commands_do_what_the_model_does(4);
}

/// A quarter of a million.
fn commands_do_what_the_model_does(seed: u64) {
    let parameters = tight();
    let mut model = Model::new(parameters);
    let mut ns = Namespace::new(parameters);
    let (mut random, mut reached) = (Random(seed), BTreeSet::new());
    for step in 0..250_000 {
        if random.below(4) == 0 {
            let (advance_us, wall_ms) = (random.below(4) * 40, random.below(1000) + step / 100);
            model.begin_entry(advance_us, wall_ms);
            ns.begin_entry(advance_us, wall_ms);
        }
        let command = random.command(&model);
        let expected = model.apply(command.clone());
        reached.extend(of_leases(&expected));
        assert_eq!(ns.apply(command.clone()), expected, "{step}: {command:?}");
        let changes = ns.drain_changes();
        let events: Vec<_> =
            changes.iter().filter_map(|it| it.event(Detail::BeforeAndAfter)).collect();
        assert_eq!(events, std::mem::take(&mut model.changes));
        assert_eq!(ns.zxid().as_u64(), model.zxid);
        if step % 1024 == 0 {
            compare(&ns, &model, &mut random);
        }
        if random.below(500) == 0 {
            ns = restored(&ns, 1 + random.below(200) as usize);
            check_indexes(&ns);
            compare_past(&ns, &model, &mut random);
        }
    }
    // The generator reaches what it is to reach.
    assert_eq!(reached.len(), 8, "{reached:?}");
    assert!(model.zxid > 30_000, "{}", model.zxid);
    assert!(model.next_session > 1_000, "{}", model.next_session);
    assert!(model.floor.as_u64() > 29_000, "{:?}", model.floor);
}

/// A replica that starts from another's snapshot halfway ends with the same bytes.
#[test]
fn replicas_end_with_the_same_bytes() {
    for seed in 100..110 {
        let parameters = tight();
        let mut model = Model::new(parameters);
        let mut first = Namespace::new(parameters);
        let mut second = None::<Namespace>;
        let mut random = Random(seed);
        for step in 0..4_000 {
            let (advance_us, wall_ms) = (random.below(50), random.below(1000));
            let command = random.command(&model);
            model.begin_entry(advance_us, wall_ms);
            model.apply(command.clone());
            first.begin_entry(advance_us, wall_ms);
            let applied = first.apply(command.clone());
            if let Some(second) = &mut second {
                second.begin_entry(advance_us, wall_ms);
                assert_eq!(second.apply(command), applied);
            }
            if step == 2_000 {
                second = Some(restored(&first, 100));
            }
        }
        let second = second.expect("it was made halfway");
        assert_eq!(snapshot(&first), snapshot(&second));
    }
}

/// ARCHITECTURE.md, S10: a snapshot is a point in time, however long it takes to write.
#[test]
fn a_snapshot_is_written_while_the_tree_changes() {
    let parameters = tight();
    let mut model = Model::new(parameters);
    let mut ns = Namespace::new(parameters);
    let mut random = Random(7);
    for _ in 0..20 {
        let at_once = snapshot(&ns);
        let mut encoder = encoder(&ns);
        let mut pieces = Vec::new();
        while let Some(chunk) = encoder.next_chunk(50) {
            assert!(chunk.len() == 50 || pieces.len() + chunk.len() == at_once.len());
            pieces.extend_from_slice(&chunk);
            for _ in 0..20 {
                let command = random.command(&model);
                model.apply(command.clone());
                ns.apply(command);
            }
        }
        assert!(pieces == at_once, "the snapshot changed while it was written");
        assert!(encoder.into_state().zxid() < ns.zxid());
        assert_ne!(snapshot(&ns), at_once);
    }
}

/// The view shows the model's nodes, in every way that there is to look at them.
fn compare_tree(view: &View, model: &Model, random: &mut Random) {
    assert_eq!(view.zxid().as_u64(), model.zxid);
    for (text, node) in &model.nodes {
        let path = path(text);
        let (data, stat) = view.read(&path).unwrap();
        assert_eq!(&data[..], &node.data[..]);
        assert_eq!(Some(stat), model.stat(text));
        let limit = 1 + random.below(3) as u32;
        let (mut names, mut list) = (Vec::new(), List::of(path.clone()).limit(limit));
        loop {
            let page = view.list(&list).unwrap();
            assert_eq!(page.stat, stat);
            assert!(page.children.len() <= limit as usize);
            names.extend(page.children.into_iter().map(|child| child.name));
            let Some(resume) = page.resume else { break };
            list = list.after(resume);
        }
        assert_eq!(names, model.children(text));
        let below = model.subtree(text).len() as u64 - 1;
        assert_eq!(view.descendants(&path, u64::MAX), Ok((below, false)));
        let list = random.list(text);
        let who = random.identities();
        let theirs = view.clone().seen_by(who.clone());
        let expected = model.right(text, &who, Rights::READ);
        assert_eq!(theirs.list(&list), expected.map(|()| model.list(&list, &who)));
        let right = Rights::from_bits(1 << random.below(5)).unwrap();
        assert_eq!(theirs.allows(&path, right), model.right(text, &who, right).is_ok());
        let quota = model.quota(text).map(|quota| (quota, model.usage(text)));
        assert_eq!(view.quota(&path), Ok(quota));
    }
    assert_eq!(view.descendants(&Path::root(), u64::MAX).unwrap().0, model.nodes.len() as u64 - 1);
    for id in model.sessions.keys() {
        let owned = model.ephemerals(id.lease()).iter().map(|it| path(it)).collect();
        assert_eq!(view.owned(id.lease(), None), Ok(Owned { paths: owned, resume: None }));
    }
}

/// The past is what the model copied whole: at any zxid, and between any two.
fn compare_past(ns: &Namespace, model: &Model, random: &mut Random) {
    let past = ns.past();
    assert_eq!((past.oldest(), past.newest()), (model.floor, Zxid::new(model.zxid)));
    let oldest = model.floor.as_u64();
    if let Some(before) = oldest.checked_sub(1) {
        let (zxid, oldest) = (Zxid::new(before), model.floor);
        assert_eq!(past.at(zxid).err(), Some(PastError::Compacted { zxid, oldest }));
    }
    let (zxid, applied) = (Zxid::new(model.zxid + 1), past.newest());
    assert_eq!(past.at(zxid).err(), Some(PastError::Behind { zxid, applied }));
    let any = |random: &mut Random| oldest + random.below(model.zxid - oldest + 1);
    for zxid in [oldest, any(random), any(random), model.zxid] {
        compare_tree(&past.at(Zxid::new(zxid)).unwrap(), &model.at(zxid), random);
    }
    let (from, to) = (any(random), any(random));
    let (before, after) = (model.at(from), model.at(to));
    let mut expected = Vec::new();
    let paths: BTreeSet<&String> = before.nodes.keys().chain(after.nodes.keys()).collect();
    for at in paths {
        let (before, after) = (before.content(at), after.content(at));
        let kind = match (&before, &after) {
            (None, _) => DifferenceKind::Created,
            (_, None) => DifferenceKind::Deleted,
            (Some(before), Some(after)) => {
                let (before, after) = (before.stat, after.stat);
                let data = before.version != after.version;
                let acl = before.aversion != after.aversion;
                match before.czxid == after.czxid {
                    false => DifferenceKind::Recreated,
                    true if data || acl => DifferenceKind::Changed { data, acl },
                    true => continue,
                }
            }
        };
        expected.push(Difference { path: path(at), kind, before, after });
    }
    let diff = past.diff(Zxid::new(from), Zxid::new(to)).unwrap();
    assert_eq!(diff.collect::<Vec<_>>(), expected);
}

fn compare(ns: &Namespace, model: &Model, random: &mut Random) {
    compare_tree(&ns.view(), model, random);
    compare_past(ns, model, random);
    assert_eq!(ns.state.tree.len(), model.nodes.len());
    assert_eq!(ns.state.sessions.len(), model.sessions.len());
    for (id, lease) in &model.sessions {
        assert_eq!(ns.session(*id), model.session(*id));
        check_lease(ns, model, id.lease(), (*id, lease.ttl_us, lease.deadline_us));
        for seq in 0..lease.last_seq + 2 {
            assert_eq!(ns.cached_reply(*id, seq), lease.replies.get(&seq).cloned());
        }
    }
    compare_leases(ns, model);
    let deadline = |path: &String| Some((model.node_deadline(path)?, path.clone()));
    let mut due: Vec<_> = model.nodes.keys().filter_map(deadline).collect();
    assert_eq!(ns.has_deadlines(), !model.sessions.is_empty() || !due.is_empty());
    due.retain(|it| it.0 <= model.clock_us);
    due.sort();
    due.truncate(3);
    let czxid = |path: &String| model.stat(path).unwrap().czxid;
    let due: Vec<_> = due.iter().map(|it| (path(&it.1), czxid(&it.1))).collect();
    assert_eq!(ns.due_nodes(model.clock_us, 3), due);
    assert_eq!(ns.history_floor(), model.floor);
    for back in 0..3 {
        let zxid = Zxid::new(model.zxid.saturating_sub(back * 9));
        let told = |it: &super::super::Change| it.event(Detail::BeforeAndAfter);
        let events = ns.history_after(zxid).map(|it| it.filter_map(told).collect::<Vec<_>>());
        let later = model.history.iter().filter(|it| it.zxid > zxid.as_u64());
        let expected: Vec<_> = later.filter_map(|it| it.event()).collect();
        let expected = if zxid < model.floor { Err(model.floor) } else { Ok(expected) };
        assert_eq!(events, expected);
    }
    check_indexes(ns);
}

/// What a command did with leases, and which of their bounds it met.
fn of_leases(applied: &Applied) -> Option<&'static str> {
    let reply = match applied {
        Applied::LeaseExpired { .. } => return Some("expired"),
        Applied::KeepAlives { accepted, .. } => {
            return accepted.iter().any(|it| it.lease.is_some()).then_some("renewed");
        }
        Applied::Sequenced { reply, .. } => reply,
        _ => return None,
    };
    match &reply.result {
        Ok(Outcome::Granted { .. }) => Some("granted"),
        Ok(Outcome::Revoked { nodes: 1.., .. }) => Some("revoked with nodes"),
        Ok(Outcome::Txn { results, .. }) => {
            let revoked = |it: &Outcome| matches!(it, Outcome::Revoked { nodes: 1.., .. });
            results.iter().any(revoked).then_some("revoked with nodes")
        }
        Err(OpError::Limit { limit, .. }) => match limit {
            LimitName::SessionLeases => Some("leases of a session"),
            LimitName::Leases => Some("leases"),
            LimitName::Ephemerals => Some("ephemeral nodes"),
            LimitName::Nodes => Some("nodes"),
            _ => None,
        },
        _ => None,
    }
}

fn compare_leases(ns: &Namespace, model: &Model) {
    for (id, it) in &model.granted {
        check_lease(ns, model, *id, (it.session, it.ttl_us, it.deadline_us));
    }
    let sessions = model.sessions.iter().map(|it| (it.1.deadline_us, it.0.lease()));
    let granted = model.granted.iter().map(|it| (it.1.deadline_us, *it.0));
    let mut due: Vec<_> = sessions.chain(granted).collect();
    due.retain(|it| it.0 <= model.clock_us);
    due.sort();
    due.truncate(2);
    let owned = |id: LeaseId| match SessionId::new(id.as_u64()) {
        Some(session) if model.sessions.contains_key(&session) => model.owned(session).len(),
        _ => model.ephemerals(id).len(),
    };
    let nodes: usize = due.iter().map(|it| owned(it.1)).sum();
    if nodes as u64 > model.parameters.ephemerals_max {
        due.truncate(1);
    }
    let due: Vec<_> = due.into_iter().map(|it| it.1).collect();
    assert_eq!(ns.due(model.clock_us, 2), due);
}

fn check_lease(ns: &Namespace, model: &Model, id: LeaseId, lease: (SessionId, u64, u64)) {
    let view = ns.view();
    let owned: Vec<_> = model.ephemerals(id).iter().map(|it| path(it)).collect();
    let stat = view.lease(id).unwrap();
    let left = Duration::from_micros(lease.2.saturating_sub(model.clock_us));
    assert_eq!((stat.lease, stat.session, stat.ttl), (id, lease.0, Duration::from_micros(lease.1)));
    assert_eq!((stat.remaining, stat.nodes), (left, owned.len() as u64));
    assert_eq!(view.owned(id, None), Ok(Owned { paths: owned, resume: None }));
}

/// A seeded source of commands; most of them make sense in the model's state.
pub(super) struct Random(pub(super) u64);

impl Random {
    /// SplitMix64.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of two openings of a node.
    fn opener(&mut self) -> Origin {
        let it = origin(self.below(100));
        Origin { boot_nonce: it.counter % 2, ..it }
    }

    pub(super) fn command(&mut self, model: &Model) -> Command {
        let ids: Vec<_> = model.sessions.keys().copied().collect();
        let session = match ids.len() as u64 {
            0 => SessionId::new(1 + self.below(5)).unwrap(),
            len if self.one_in(50) => SessionId::new(1 + self.below(len * 9)).unwrap(),
            len => ids[self.below(len) as usize],
        };
        let lease = model.sessions.get(&session);
        let mut epoch = lease.map_or(1, |it| it.epoch);
        if self.one_in(20) {
            epoch = self.below(epoch + 3);
        }
        let last_seq = lease.map_or(0, |it| it.last_seq);
        let seq = match self.below(12) {
            0 => last_seq + 2 + self.below(3),
            1 | 2 => last_seq.saturating_sub(self.below(6)),
            _ => last_seq + 1,
        };
        let acked = match self.below(3) {
            0 => last_seq.saturating_sub(self.below(4)),
            1 if self.one_in(20) => u64::MAX,
            _ => 0,
        };
        match self.below(40) {
            0 | 1 => Command::OpenSession {
                origin: self.opener(),
                secret: match lease {
                    Some(lease) if self.one_in(4) => lease.secret,
                    _ => secret(self.next()),
                },
                ttl_us: self.below(3_000),
                identities: self.identities(),
            },
            2 => Command::AttachSession {
                origin: origin(self.below(100)),
                session,
                secret: match lease {
                    Some(lease) if !self.one_in(4) => lease.secret,
                    _ => secret(0),
                },
                epoch: epoch + self.below(3),
                identities: self.identities(),
            },
            3 if self.one_in(2) => Command::CloseSession { session, epoch, seq },
            4 | 5 => self.keep_alives(model, session, (epoch, acked)),
            6 => Command::Expire { lease: self.lease(model, session) },
            7 => {
                let at = self.node(model);
                let czxid = model.stat(&at).unwrap_or_default().czxid.as_u64();
                let czxid = Zxid::new(czxid + u64::from(self.one_in(9)));
                Command::ReapNode { path: path(&at), czxid }
            }
            8..=15 => Command::PlainTxn {
                origin: origin(self.below(100)),
                identities: self.identities(),
                txn: self.txn(model, session),
            },
            _ => Command::SessionTxn { session, epoch, seq, acked, txn: self.txn(model, session) },
        }
    }

    fn keep_alives(
        &mut self,
        model: &Model,
        session: SessionId,
        (epoch, acked): (u64, u64),
    ) -> Command {
        let ids: Vec<_> = model.sessions.keys().copied().collect();
        let own = model.sessions.get(&session).map_or(0, |it| it.keep_alive);
        let items = (0..self.below(4)).map(|_| {
            let session = ids.get(self.below(6) as usize).copied().unwrap_or(session);
            let leases = model.leases(session);
            let lease = leases.get(self.below(4) as usize).copied();
            let heard = lease.map_or(own, |it| model.granted[&it].heard.1);
            KeepAlive { session, lease, epoch, number: heard + self.below(3), acked }
        });
        Command::KeepAlives(items.collect())
    }

    fn txn(&mut self, model: &Model, session: SessionId) -> Txn {
        let mut txn = if self.one_in(3) {
            let mut txn = Txn::all(self.ops(model, session));
            if self.one_in(3) {
                txn = txn.or_else(self.ops(model, session));
            }
            txn
        } else {
            Txn::new(self.op(model, session, 18))
        };
        while self.one_in(6) {
            txn = txn.guard(self.guard(model, session));
        }
        txn
    }

    fn ops(&mut self, model: &Model, session: SessionId) -> Vec<Op> {
        (0..self.below(5)).map(|_| self.op(model, session, 6)).collect()
    }

    fn op(&mut self, model: &Model, session: SessionId, bytes: u64) -> Op {
        let version = |random: &mut Self| random.one_in(4).then(|| random.below(3));
        let data = "0123456789abcdefg"[..self.below(bytes) as usize].to_string();
        let at = self.node(model);
        let crowded = model.nodes.len() > 60;
        match self.below(if crowded { 10 } else { 22 }) {
            0..=2 => set(&at, &data, version(self)),
            3..=5 => delete(&at, version(self)),
            _ if self.one_in(15) => self.access(&at),
            _ if self.one_in(9) => match self.one_in(3) {
                true => Op::Revoke { lease: self.lease(model, session) },
                false => Op::Grant { ttl: Duration::from_micros(self.below(3_000)) },
            },
            6 if self.one_in(3) => Op::DeleteTree { path: path(&at) },
            6 => Op::Check(self.guard(model, SessionId::new(1).unwrap())),
            7 => Op::Get { path: path(&at) },
            8 => Op::Exists { path: path(&at) },
            9 => Op::List(self.list(&at)),
            kind => {
                let ttl = Duration::from_millis(self.below(3));
                let lease = self.lease(model, session);
                let mode = [
                    CreateMode::Persistent,
                    CreateMode::Persistent,
                    CreateMode::Persistent,
                    CreateMode::Ephemeral,
                    CreateMode::Ephemeral,
                    CreateMode::PersistentSequential,
                    CreateMode::EphemeralSequential,
                    CreateMode::Container,
                    CreateMode::Ttl(ttl),
                    CreateMode::SequentialTtl(ttl),
                    CreateMode::Leased(lease),
                    CreateMode::SequentialLeased(lease),
                ][kind as usize - 10];
                let name = NAMES[self.below(NAMES.len() as u64) as usize];
                let at = format!("{}/{name}", at.trim_end_matches('/'));
                if at.matches('/').count() > 4 {
                    return set("/", &data, None);
                }
                let acl = self.one_in(5).then(|| self.acl());
                let at = match mode.is_sequential() && self.one_in(3) {
                    true => &at[..at.len() - name.len()],
                    false => &at,
                };
                match create(at, &data, mode) {
                    Op::Create { path, data, mode, .. } => Op::Create { path, data, mode, acl },
                    other => other,
                }
            }
        }
    }

    /// Mostly one of the session's leases, or its own.
    fn lease(&mut self, model: &Model, session: SessionId) -> LeaseId {
        let leases = match self.one_in(8) {
            true => model.granted.keys().copied().collect(),
            false => model.leases(session),
        };
        leases.get(self.below(4) as usize).copied().unwrap_or(session.lease())
    }

    fn access(&mut self, at: &str) -> Op {
        let path = path(at);
        let some = |random: &mut Self, max| random.one_in(3).then(|| random.below(max));
        match self.below(4) {
            0 => Op::GetAcl { path },
            1 => {
                let quota = Quota {
                    nodes_hard: some(self, 20),
                    bytes_hard: some(self, 80),
                    nodes_soft: some(self, 20),
                    bytes_soft: None,
                };
                Op::SetQuota { path, quota: (!self.one_in(3)).then_some(quota) }
            }
            // The root stays open to somebody.
            _ if at == "/" => Op::GetAcl { path },
            _ => Op::SetAcl { path, acl: self.acl(), version: some(self, 3) },
        }
    }

    fn acl(&mut self) -> Acl {
        let grants = (0..=self.below(2)).map(|_| Grant {
            principal: match self.below(6) {
                0..=2 => Principal::World,
                3 => Principal::Auth,
                user => Principal::Digest(user_id(user)),
            },
            rights: Rights::from_bits(self.below(32) as u8 | self.below(32) as u8).unwrap(),
        });
        Acl::new(grants.collect::<Vec<_>>()).unwrap()
    }

    fn identities(&mut self) -> Identities {
        let all = [
            Identity::Digest(user_id(4)),
            Identity::Digest(user_id(5)),
            Identity::Ip([10, 0, 0, 1].into()),
            Identity::Super,
        ];
        Identities::new(all.into_iter().filter(|_| self.one_in(3))).unwrap()
    }

    fn guard(&mut self, model: &Model, session: SessionId) -> Guard {
        let at = self.node(model);
        let stat = model.stat(&at).unwrap_or_default();
        let relations = [Relation::Equal, Relation::NotEqual, Relation::Less, Relation::Greater];
        let is = relations[self.below(4) as usize];
        let fields = [
            (Field::Version, stat.version),
            (Field::Cversion, stat.cversion),
            (Field::Aversion, stat.aversion),
            (Field::Czxid, stat.czxid.as_u64()),
            (Field::Mzxid, stat.mzxid.as_u64()),
            (Field::Pzxid, stat.pzxid.as_u64()),
            (Field::Children, stat.children),
            (Field::DataLength, stat.data_length),
        ];
        let check = match self.below(9) {
            0 => Check::Exists(false),
            1 | 2 => Check::Exists(true),
            3 => Check::Version(stat.version),
            4 => Check::Czxid(stat.czxid),
            5 => Check::Owner(stat.owner.unwrap_or(session.lease())),
            6 => Check::Value { is, to: "012"[..self.below(4) as usize].to_string().into() },
            _ => {
                let (field, value) = fields[self.below(8) as usize];
                Check::Compare { field, is, to: (value + self.below(3)).saturating_sub(1) }
            }
        };
        Guard { path: path(&at), check }
    }

    fn list(&mut self, at: &str) -> List {
        let mut list = List::of(path(at)).limit(1 + self.below(4) as u32);
        if self.one_in(2) {
            list = list.prefix(["a", "a-", "b", "zz"][self.below(4) as usize]);
        }
        if self.one_in(2) {
            list = list.after(["a", "a-0000000001", "b.", "zz"][self.below(4) as usize]);
        }
        list.only =
            [Children::All, Children::Persistent, Children::Ephemeral][self.below(3) as usize];
        list.with_stat = self.one_in(2);
        list.with_data = self.one_in(2);
        list
    }

    /// Mostly one that exists.
    fn node(&mut self, model: &Model) -> String {
        let at = self.below(model.nodes.len() as u64) as usize;
        let mut text = model.nodes.keys().nth(at).unwrap().clone();
        if self.one_in(12) {
            text = format!("{}/none", text.trim_end_matches('/'));
        }
        text
    }
}

fn user_id(user: u64) -> DigestId {
    DigestId::new(["ann", "bob"][user as usize - 4], "hash").unwrap()
}

/// Limits that the generator meets often.
pub(super) fn tight() -> crate::config::Parameters {
    crate::config::Parameters {
        tick_us: 10,
        advance_us_max: 100,
        renewal_us: 50,
        ttl_us_min: 200,
        ttl_us_max: 2_000,
        payload_bytes_max: 150,
        window_count_max: 5,
        window_bytes_max: 4096 + 5 * 192 + 20,
        history_count_max: 30,
        history_bytes_max: 30 * 260,
        sessions_max: 6,
        txn_ops_max: 6,
        subtree_nodes_max: 8,
        container_grace_us: 300,
        session_leases_max: 3,
        leases_max: 7,
        ephemerals_max: 4,
        nodes_max: 35,
    }
}

/// Bytes before `/` among them, and what collides with numbered names.
const NAMES: [&str; 6] = ["a", "b", "a-", "a b", "b.x", "a-0000000003"];
