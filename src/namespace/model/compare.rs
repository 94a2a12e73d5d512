//! The state machine beside the model: everything that there is to look at is the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;

use super::{
    super::{
        Applied, Change, Decoder, Difference, DifferenceKind, Encoder, Namespace, PastError, View,
        walk::Walk,
    },
    Model,
    commands::{Random, path},
};
use crate::{
    command::Command,
    id::{ClusterId, LeaseId, SessionId, Zxid},
    op::{Detail, Identities, List, OpError, Owned, Rights, Usage},
    path::Path,
};

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
pub(in crate::namespace) fn compare_past(ns: &Namespace, model: &Model, random: &mut Random) {
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

/// A command does to the state machine what it does to the model: the same reply, the same events,
/// the same zxid.
pub(in crate::namespace) fn apply_to_both(
    ns: &mut Namespace,
    model: &mut Model,
    command: Command,
) -> Applied {
    let expected = model.apply(command.clone());
    assert_eq!(ns.apply(command.clone()), expected, "{command:?}");
    let changes = ns.drain_changes();
    let events: Vec<_> = changes.iter().filter_map(|it| it.event(Detail::BeforeAndAfter)).collect();
    assert_eq!(events, std::mem::take(&mut model.changes), "{command:?}");
    assert_eq!(ns.zxid().as_u64(), model.zxid, "{command:?}");
    expected
}

pub(in crate::namespace) fn compare(ns: &Namespace, model: &Model, random: &mut Random) {
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
        let told = |it: &Change| it.event(Detail::BeforeAndAfter);
        let events = ns.history_after(zxid).map(|it| it.filter_map(told).collect::<Vec<_>>());
        let later = model.history.iter().filter(|it| it.zxid > zxid.as_u64());
        let expected: Vec<_> = later.filter_map(|it| it.event()).collect();
        let expected = if zxid < model.floor { Err(model.floor) } else { Ok(expected) };
        assert_eq!(events, expected);
    }
    check_indexes(ns);
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
    let mut all: Vec<_> = model.sessions.keys().map(|id| id.lease()).collect();
    all.extend(model.granted.keys());
    all.sort();
    let page = |after| ns.view().leases(after).unwrap().into_iter().map(|it| it.lease);
    assert!(page(None).eq(all.iter().copied()));
    for (at, id) in all.iter().enumerate() {
        assert!(page(Some(*id)).eq(all[at + 1..].iter().copied()));
    }
    let others = ns.view().seen_by(Identities::none()).leases(None);
    assert!(matches!(others, Err(OpError::NoAuth { .. })));
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

pub(in crate::namespace) fn encoder(ns: &Namespace) -> Encoder {
    let (members, removed) = (Bytes::from_static(b"members"), Bytes::from_static(b"gone"));
    Encoder::new(ns.freeze(), ClusterId::named("test"), members, removed)
}

pub(in crate::namespace) fn snapshot(ns: &Namespace) -> Vec<u8> {
    let mut encoder = encoder(ns);
    std::iter::from_fn(|| encoder.next_chunk(1 << 16)).flatten().collect()
}

/// The same state after its snapshot was written and read in pieces of this size.
pub(in crate::namespace) fn restored(ns: &Namespace, piece: usize) -> Namespace {
    let bytes = snapshot(ns);
    let mut decoder = Decoder::new(ClusterId::named("test"));
    for piece in bytes.chunks(piece) {
        decoder.feed(Bytes::copy_from_slice(piece)).unwrap();
    }
    let (restored, members, removed) = decoder.finish().unwrap();
    assert_eq!((&members[..], &removed[..]), (&b"members"[..], &b"gone"[..]));
    assert_eq!(snapshot(&restored), bytes);
    assert_eq!(restored.state.digest(), ns.state.digest());
    restored
}

/// Makes every index anew from what it indexes.
pub(in crate::namespace) fn check_indexes(ns: &Namespace) {
    let state = &ns.state;
    let (mut deadlines, mut secrets) = (Vec::new(), Vec::new());
    let (mut owned, mut leases) = (Vec::new(), 0);
    let mut next = state.sessions.after(None);
    while let Some((id, session)) = next {
        deadlines.push((session.deadline_us, id.lease()));
        secrets.push((session.secret, id));
        let all = owned.len();
        owned.extend(session.ephemerals.iter().map(|path| (path.to_string(), id.lease())));
        let mut lease = session.lease_after(None);
        while let Some(at) = lease {
            let it = state.sessions.lease(at).expect("it is there");
            assert_eq!(it.session, id);
            leases += 1;
            deadlines.push((it.deadline_us, at));
            owned.extend(it.ephemerals.iter().map(|path| (path.to_string(), at)));
            lease = session.lease_after(Some(at));
        }
        assert_eq!(owned.len() - all, session.owned as usize);
        next = state.sessions.after(Some(id));
    }
    deadlines.sort();
    secrets.sort();
    owned.sort();
    assert_eq!(state.sessions.indexes(), (deadlines, secrets));
    assert_eq!(state.sessions.leases(), leases);
    let (mut count, mut owners, mut due) = (1, Vec::new(), Vec::new());
    let mut usages = BTreeMap::new();
    for path in state.tree.quotas.keys() {
        let root = state.tree.get(path).unwrap();
        usages.insert(path.to_string(), Usage { nodes: 1, bytes: root.data().len() as u64 });
    }
    let root = state.tree.get("/").unwrap();
    let mut bytes = (1 + root.data().len()) as u64;
    let mut walk = Walk::below(&std::sync::Arc::from("/"), root);
    while let Some((path, znode)) = walk.next(&state.tree) {
        count += 1;
        bytes += (path.len() + znode.data().len()) as u64;
        for (top, usage) in &mut usages {
            if *path != **top && path.starts_with(&format!("{}/", top.trim_end_matches('/'))) {
                usage.nodes += 1;
                usage.bytes += znode.data().len() as u64;
            }
        }
        let deadline_us = znode.deadline(state.parameters.container_grace_us);
        due.extend(deadline_us.map(|deadline_us| (deadline_us, path.to_string())));
        owners.extend(znode.owner.map(|owner| (path.to_string(), owner)));
    }
    owners.sort();
    due.sort();
    let named: Vec<_> = due.into_iter().map(|(_, path)| path).collect();
    assert!(state.tree.due(u64::MAX).map(|path| path.to_string()).eq(named));
    assert_eq!(owned, owners);
    assert_eq!((state.tree.len(), state.tree.weight.bytes), (count, bytes));
    assert_eq!(state.tree.weight.owned, owned.len() as u64);
    for (path, usage) in usages {
        assert_eq!(state.tree.metered(&path).unwrap().usage, usage, "{path}");
    }
}
