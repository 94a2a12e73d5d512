//! Snapshots: the same state gives the same bytes, and other bytes give a typed error.

use std::time::Duration;

use prost::Message as _;

use super::*;
use crate::{
    namespace::{
        session::Session,
        snapshot::SnapshotError,
        znode::{Value, Znode},
    },
    proto::{self, snapshot_record::Kind},
    record::put_delimited,
};

#[test]
fn an_empty_state_comes_back() {
    let ns = Namespace::new(parameters());
    for piece in [1, 7, 1 << 20] {
        let restored = restored(&ns, piece);
        assert_eq!(restored.zxid(), Zxid::ZERO);
        assert_eq!(restored.parameters(), ns.parameters());
        assert!(restored.view().read(&Path::root()).is_ok());
    }
}

#[test]
fn chunks_are_cut_anywhere_and_hold_what_was_asked_for() {
    let mut it = Fixture::new();
    it.plain(create("/a", &"x".repeat(100_000), CreateMode::Persistent));
    let whole = snapshot(&it.ns);
    for bytes_max in [0, 1, 100, 4096, whole.len(), usize::MAX] {
        let mut encoder = encoder(&it.ns);
        let mut bytes = Vec::new();
        while let Some(chunk) = encoder.next_chunk(bytes_max) {
            bytes.extend_from_slice(&chunk);
            assert!(chunk.len() == bytes_max.max(1) || bytes.len() == whole.len());
        }
        assert_eq!(encoder.next_chunk(10), None);
        assert!(bytes == whole);
    }
}

/// ARCHITECTURE.md, rule 12: whatever the state was, a cluster can begin with it.
#[test]
fn rule_12_a_state_that_is_restored_has_no_session_and_no_past() {
    for (seed, steps) in [(5, 200), (4, 600)] {
        let ns = busy(seed, steps);
        let (zxid, next) = (ns.zxid().as_u64(), ns.state.sessions.next_id());
        let mut kept = ns.view().descendants(&Path::root(), u64::MAX).unwrap().0;
        let mut session = ns.state.sessions.after(None);
        let mut sessions = 0;
        while let Some((id, it)) = session {
            (kept, sessions) = (kept - it.owned, sessions + 1);
            session = ns.state.sessions.after(Some(id));
        }
        let mut again = ns.into_restored().unwrap();
        assert_eq!(again.zxid().as_u64(), zxid + RESTORE_JUMP + sessions);
        assert_eq!((again.sessions(), again.state.sessions.next_id()), (0, next + RESTORE_JUMP));
        assert_eq!(again.view().descendants(&Path::root(), u64::MAX).unwrap().0, kept);
        assert_eq!((again.history_floor(), again.lineage()), (again.zxid(), Lineage::NONE));
        assert!(again.drain_changes().is_empty());
        check_indexes(&again);
        check_indexes(&restored(&again, 1000));
    }
    let mut last = Namespace::new(parameters());
    last.state.zxid = Zxid::new((1 << 62) - RESTORE_JUMP);
    assert!(last.into_restored().is_err());
    let mut last = Namespace::new(parameters());
    last.state.sessions = Sessions::starting_at((1 << 56) - RESTORE_JUMP);
    assert!(last.into_restored().is_err());
}

/// The first store that the log names is the lineage, for ever.
#[test]
fn rule_12_the_first_entry_begins_the_lineage() {
    let mut it = Fixture::new();
    assert_eq!(restored(&it.ns, 9).lineage(), Lineage::NONE);
    let pin = |store| Command::PinStore {
        node: NodeId::new(1).unwrap(),
        store: crate::StoreId::from_bytes([store; 16]),
    };
    let before = it.ns.state.digest();
    it.ns.apply(pin(7));
    assert_ne!(it.ns.state.digest(), before);
    it.ns.apply(pin(8));
    let lineage = Lineage::from_bytes([7; 16]);
    assert_eq!((it.ns.lineage(), it.ns.view().lineage()), (lineage, lineage));
    assert_eq!(restored(&it.ns, 9).lineage(), lineage);
}

/// Every prefix of a snapshot is not one, and no bit of it can be another.
#[test]
fn a_torn_or_changed_snapshot_is_refused() {
    let bytes = snapshot(&busy(5, 200));
    for end in 0..bytes.len() {
        let error = decode(&bytes[..end]).unwrap_err();
        assert!(matches!(error, SnapshotError::Truncated { .. }), "{error}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(decode(&longer).is_err());
    let (mut same, mut refused) = (0, 0);
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        match decode(&bad) {
            Err(_) => refused += 1,
            // A changed payload is a payload, too: the checksum is somebody else's.
            Ok(parts) => {
                same += 1;
                assert!(encode(parts) == bad, "another state has these bytes, bit {bit}");
            }
        }
    }
    assert!(refused > same, "{refused} refused, {same} taken");
}

#[test]
fn random_bytes_never_panic() {
    let bytes = snapshot(&busy(4, 600));
    let mut random = Random::new(9);
    for _ in 0..6_000 {
        let mut bad = bytes.clone();
        for _ in 0..=random.below(4) {
            let at = random.below(bad.len() as u64) as usize;
            let other = random.below(bad.len() as u64) as usize;
            match random.below(5) {
                0 => bad[at] = random.next() as u8,
                1 => bad.truncate(at.max(1)),
                2 => bad.insert(at, random.next() as u8),
                3 => {
                    let part = bad[at.min(other)..at.max(other)].to_vec();
                    bad.splice(at..at, part);
                }
                _ => drop(bad.drain(at.min(other)..(at.max(other)).min(at.min(other) + 64))),
            }
            if bad.is_empty() {
                bad.push(0);
            }
        }
        let piece = 1 + random.below(bad.len() as u64) as usize;
        if let Ok(parts) = decode_in(&bad, piece) {
            assert!(encode(parts) == bad);
        }
        let noise: Vec<u8> = (0..random.below(60)).map(|_| random.next() as u8).collect();
        assert!(decode(&noise).is_err());
    }
}

#[test]
fn a_later_version_and_another_cluster_are_named() {
    let ns = Namespace::new(parameters());
    let error = decode_records(&ns, |_, kind| {
        if let Kind::Head(head) = kind {
            head.version = 2;
        }
    });
    assert_eq!(error, Err(SnapshotError::Version { version: 2 }));
    let text = SnapshotError::Version { version: 2 }.to_string();
    assert!(text.contains("version 2") && text.contains("later"), "{text}");
    let other = ClusterId::named("other");
    let mut decoder = Decoder::new(other);
    let error = decoder.feed(snapshot(&ns).into()).unwrap_err();
    let expected = SnapshotError::Cluster { expected: other, actual: ClusterId::named("test") };
    assert_eq!(error, expected);
    assert_eq!(decoder.feed(Bytes::new()), Err(expected), "the first error is final");
    assert!(decoder.finish().is_err());
}

/// A length that no member writes is refused before anything is kept for it.
#[test]
fn a_record_that_is_too_long_is_refused_at_once() {
    let mut decoder = Decoder::new(ClusterId::named("test"));
    let error = decoder.feed(Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f]));
    assert!(matches!(error, Err(SnapshotError::TooLong { record: 0, .. })));
    let mut decoder = Decoder::new(ClusterId::named("test"));
    let error = decoder.feed(Bytes::from_static(&[0xff; 5]));
    assert!(matches!(error, Err(SnapshotError::Record { record: 0, .. })));
}

/// Bytes that are canonical, and tell of a state that cannot be.
#[test]
fn an_impossible_state_is_refused() {
    let mut it = Fixture::new();
    let id = it.open(1, 0);
    it.open(2, 0);
    it.txn(id, 1, 0, create("/e", "", CreateMode::Ephemeral));
    it.txn(id, 2, 0, create("/d", "", CreateMode::Persistent));
    it.plain(create("/d/x", "", CreateMode::Persistent));
    it.plain(create("/full", "1", CreateMode::Persistent));
    it.plain(create("/d/y", "", CreateMode::Persistent));
    assert!(decode_records(&it.ns, |_, _| {}).is_ok());
    #[expect(clippy::type_complexity, reason = "a name and an edit, for one test")]
    let edits: [(&str, fn(&mut Kind)); 44] = [
        ("counters", |it| head(it, |it| it.zxid = u64::MAX)),
        ("counters", |it| head(it, |it| it.next_session = 0)),
        ("starts after", |it| head(it, |it| it.history_floor = 99)),
        ("lineage", |it| head(it, |it| it.lineage = Bytes::from_static(&[0; 16]))),
        ("lineage", |it| head(it, |it| it.lineage = Bytes::from_static(&[1; 15]))),
        ("parameters are not valid", |it| {
            head(it, |it| it.parameters.as_mut().unwrap().window_bytes_max = u64::MAX);
        }),
        ("parameters are not valid", |it| {
            head(it, |it| it.parameters.as_mut().unwrap().container_grace_us = u64::MAX);
        }),
        ("counters", |it| head(it, |it| it.clock_us = u64::MAX)),
        ("no parameters", |it| head(it, |it| it.parameters = None)),
        ("out of order", |it| head(it, |it| it.next_session = 2)),
        ("16 bytes", |it| head(it, |it| it.cluster = Bytes::new())),
        ("32 bytes", |it| session(it, |it| it.secret_hash = Bytes::new())),
        ("one secret", |it| {
            session(it, |it| it.secret_hash = Bytes::from_static(&[1; 32]));
        }),
        ("times", |it| session(it, |it| it.ttl_us = 0)),
        ("times", |it| session(it, |it| it.deadline_us = u64::MAX)),
        ("counters", |it| session(it, |it| it.epoch = 0)),
        ("counters", |it| session(it, |it| it.acked = 9)),
        ("transaction", |it| session(it, |it| it.opened_zxid = 0)),
        ("canonical", |it| session(it, |it| it.opener_node = 0)),
        ("lacks replies", |it| session(it, |it| it.last_seq += 1)),
        ("is not valid", |it| reply(it, |it| it.reply = None)),
        ("out of order", |it| reply(it, |it| it.seq += 1)),
        ("another session", |it| reply(it, |it| it.session = 2)),
        ("number of children", |it| znode(it, "/d/x", |it| it.path = "/b/x".into())),
        ("parent is missing", |it| {
            stat(it, "/", |it| it.children = 1);
            znode(it, "/e", |it| it.path = "/q/e".into());
        }),
        ("out of order", |it| znode(it, "/d/y", |it| it.path = "/d/w".into())),
        ("number of children", |it| stat(it, "/d", |it| it.children = 3)),
        ("owner is missing", |it| stat(it, "/e", |it| it.owner = 9)),
        ("ephemeral", |it| stat(it, "/d", |it| it.owner = 1)),
        ("transactions", |it| stat(it, "/d", |it| it.mzxid = 1)),
        ("node's data", |it| stat(it, "/full", |it| it.null = true)),
        ("change's kind", |it| change(it, |it| it.kind = 5)),
        ("change's path", |it| change(it, |it| it.path = Bytes::new())),
        ("node is missing", |it| change(it, |it| it.path = "/none".into())),
        ("had another past", |it| change(it, |it| it.path = "/d".into())),
        ("parent had another past", |it| change(it, |it| it.parent_cversion = 99)),
        ("parent had another past", |it| change(it, |it| it.parent_since_us = 99)),
        ("canonical", |it| change(it, |it| it.before = Some(proto::ZnodeRecord::default()))),
        ("deleted node's stat", |it| change(it, |it| it.kind = 2)),
        ("changed node's stat", |it| change(it, |it| it.kind = 1)),
        ("data was replaced before", |it| change(it, |it| replaced(it, 1))),
        ("a list was replaced before", |it| change(it, |it| replaced(it, 3))),
        ("deleted node has no place", |it| change(it, |it| replaced(it, 2))),
        ("change's transaction", |it| change(it, |it| it.zxid = 99)),
    ];
    refuses(&it.ns, &edits);
}

/// Each edit makes the state's snapshot one that is refused, with these words.
#[expect(clippy::type_complexity, reason = "a name and an edit, for two tests")]
fn refuses(ns: &Namespace, edits: &[(&str, fn(&mut Kind))]) {
    for (what, edit) in edits {
        match decode_records(ns, |_, kind| edit(kind)) {
            Err(SnapshotError::Record { what: text, .. }) => {
                assert!(text.contains(what), "{what}: {text}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}

/// What was before a change is in nothing but the history, and in the digest.
#[test]
fn rule_2_another_past_is_another_digest() {
    let mut it = Fixture::new();
    it.plain(create("/a", "1", CreateMode::Persistent));
    it.plain(set("/a", "2", None));
    it.plain(delete("/a", None));
    let before = |kind: &mut Kind, of: u32, edit: fn(&mut proto::ZnodeRecord)| {
        if let Kind::Change(it) = kind {
            if it.kind == of {
                edit(it.before.as_mut().unwrap());
            }
        }
    };
    #[expect(clippy::type_complexity, reason = "a kind, a word and an edit, for one test")]
    let edits: [(u32, &str, fn(&mut proto::ZnodeRecord)); 4] = [
        (1, "digest", |it| it.data = "3".into()),
        (2, "digest", |it| it.data = "3".into()),
        (2, "digest", |it| it.stat.as_mut().unwrap().children = 7),
        // The change before it tells of the same node.
        (2, "canonical", |it| it.next_sequence = 7),
    ];
    for (of, what, edit) in edits {
        let error = decode_records(&it.ns, |_, kind| before(kind, of, edit)).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    }
}

/// As above, of leases.
#[test]
fn an_impossible_lease_is_refused() {
    let mut it = Fixture::new();
    let id = it.open(1, 0);
    it.open(2, 0);
    let Ok(Outcome::Granted { lease, .. }) =
        it.txn(id, 1, 0, Op::Grant { ttl: Duration::ZERO }).result
    else {
        panic!("granted");
    };
    it.txn(id, 2, 0, create("/l", "", CreateMode::Leased(lease))).result.unwrap();
    it.txn(id, 3, 0, create("/e", "", CreateMode::Ephemeral)).result.unwrap();
    assert!(decode_records(&it.ns, |_, _| {}).is_ok());
    #[expect(clippy::type_complexity, reason = "a name and an edit, for one test")]
    let edits: [(&str, fn(&mut Kind)); 10] = [
        ("another session", |it| leased(it, |it| it.session = 2)),
        ("out of order", |it| leased(it, |it| it.lease = 1)),
        ("out of order", |it| leased(it, |it| it.lease = 4)),
        ("lease has the session's id", |it| leased(it, |it| it.lease = 2)),
        ("more leases", |it| {
            let edit = |it: &mut proto::ParametersRecord| it.session_leases_max = 0;
            head(it, |it| it.parameters.iter_mut().for_each(edit));
        }),
        ("times", |it| leased(it, |it| it.deadline_us = u64::MAX)),
        ("attachment", |it| leased(it, |it| it.epoch = 2)),
        ("transaction", |it| leased(it, |it| it.granted_zxid = 1)),
        ("ephemeral node is not", |it| leased(it, |it| it.granted_zxid = 5)),
        ("more ephemeral nodes", |it| {
            let edit = |it: &mut proto::ParametersRecord| it.ephemerals_max = 1;
            head(it, |it| it.parameters.iter_mut().for_each(edit));
        }),
    ];
    refuses(&it.ns, &edits);
}

/// Encoder and decoder hold nothing that grows with the tree beyond the tree.
#[test]
fn sizes_of_what_there_are_millions_of() {
    assert!(size_of::<Znode>() + size_of::<Value>() <= 152, "{}", size_of::<Value>());
    assert!(size_of::<Session>() <= 256, "{}", size_of::<Session>());
}

fn busy(seed: u64, steps: u64) -> Namespace {
    let mut model = Model::new(parameters());
    let mut ns = Namespace::new(parameters());
    let mut random = Random::new(seed);
    for step in 0..steps {
        model.begin_entry(10, step);
        ns.begin_entry(10, step);
        let command = random.command(&model);
        assert_eq!(ns.apply(command.clone()), model.apply(command));
    }
    assert!(ns.state.sessions.len() > 2 && ns.state.tree.len() > 10);
    ns
}

fn decode(bytes: &[u8]) -> Result<(Namespace, Bytes, Bytes), SnapshotError> {
    decode_in(bytes, bytes.len().max(1))
}

fn decode_in(bytes: &[u8], piece: usize) -> Result<(Namespace, Bytes, Bytes), SnapshotError> {
    let mut decoder = Decoder::new(ClusterId::named("test"));
    for piece in bytes.chunks(piece) {
        decoder.feed(Bytes::copy_from_slice(piece))?;
    }
    decoder.finish()
}

fn encode((ns, members, removed): (Namespace, Bytes, Bytes)) -> Vec<u8> {
    check_indexes(&ns);
    let mut encoder = Encoder::new(ns.freeze(), ClusterId::named("test"), members, removed);
    std::iter::from_fn(|| encoder.next_chunk(1 << 16)).flatten().collect()
}

/// The snapshot with each record changed by `edit`, written canonically.
fn decode_records(
    ns: &Namespace,
    mut edit: impl FnMut(usize, &mut Kind),
) -> Result<(), SnapshotError> {
    let mut bytes = Bytes::from(snapshot(ns));
    let mut out = bytes::BytesMut::new();
    let mut index = 0;
    while !bytes.is_empty() {
        let mut record = proto::SnapshotRecord::decode_length_delimited(&mut bytes).unwrap();
        edit(index, record.kind.as_mut().unwrap());
        put_delimited(&mut out, &record);
        index += 1;
    }
    decode(&out).map(|_| ())
}

fn head(kind: &mut Kind, edit: impl FnOnce(&mut proto::SnapshotHead)) {
    if let Kind::Head(it) = kind {
        edit(it);
    }
}

fn session(kind: &mut Kind, edit: impl FnOnce(&mut proto::SessionRecord)) {
    if let Kind::Session(it) = kind {
        edit(it);
    }
}

fn leased(kind: &mut Kind, edit: impl FnOnce(&mut proto::LeaseRecord)) {
    if let Kind::Lease(it) = kind {
        edit(it);
    }
}

fn reply(kind: &mut Kind, edit: impl FnOnce(&mut proto::CachedReply)) {
    if let Kind::Reply(it) = kind {
        edit(it);
    }
}

/// The newest change alone, which made `/d/y`.
fn change(kind: &mut Kind, edit: impl FnOnce(&mut proto::ChangeRecord)) {
    if let Kind::Change(it) = kind {
        if it.path == "/d/y" {
            edit(it);
        }
    }
}

fn replaced(it: &mut proto::ChangeRecord, kind: u32) {
    let before = proto::ZnodeRecord {
        stat: Some(proto::StatRecord { czxid: it.zxid, ..Default::default() }),
        ..Default::default()
    };
    (it.kind, it.before) = (kind, Some(before));
}

fn znode(kind: &mut Kind, path: &str, edit: impl FnOnce(&mut proto::ZnodeRecord)) {
    if let Kind::Znode(it) = kind {
        if it.path == path {
            edit(it);
        }
    }
}

fn stat(kind: &mut Kind, path: &str, edit: impl FnOnce(&mut proto::StatRecord)) {
    znode(kind, path, |it| edit(it.stat.as_mut().unwrap()));
}
