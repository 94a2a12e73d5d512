//! What a later release wrote into the log ends the node, and names that release.

use prost::Message as _;

use super::*;
use crate::{CommandError, Release, proto};

/// Proposes an entry that another release made, and says how each member ended.
fn ended(entry: &proto::EntryRecord) -> Vec<Option<Ended>> {
    let mut cluster = Cluster::elected(3);
    let leader = cluster.leader().expect("elected");
    cluster.settle();
    let data = Bytes::from(entry.encode_to_vec());
    cluster.node(leader).consensus.propose(data).expect("taken");
    cluster.node(leader).undrained = true;
    cluster.run(3);
    cluster.nodes.values().map(|node| node.ended().cloned()).collect()
}

#[test]
fn what_this_release_cannot_apply_names_the_one_that_can() {
    let later = proto::EntryRecord { version: 2, needs_release: 7, ..Default::default() };
    // A command of a kind that nobody knows yet, in an entry of the version in use.
    let unknown = proto::EntryRecord {
        version: 1,
        commands: Bytes::from_static(&[3, 0x9a, 0x06, 0]),
        needs_release: (2 << 16) | 1,
        ..Default::default()
    };
    let unnamed = proto::EntryRecord { needs_release: 0, ..unknown.clone() };
    let own = proto::EntryRecord { needs_release: 1, ..unknown.clone() };
    let cases = [
        (later, Some(Release { major: 0, minor: 7 }), "release 0.7 or later, on the same data"),
        (unknown, Some(Release { major: 2, minor: 1 }), "release 2.1 or later, on the same data"),
        (unnamed, None, "a command of unknown kind needs a later release"),
        (own, None, "a command of unknown kind needs a later release"),
    ];
    for (entry, release, text) in cases {
        for ended in ended(&entry) {
            let told = ended.as_ref().map(ToString::to_string).unwrap_or_default();
            assert!(told.ends_with(text), "{told}");
            let Some(Ended::Command { error, needs, .. }) = ended else {
                panic!("{ended:?}");
            };
            let version = CommandError::Version { version: 2 };
            assert!(error == CommandError::UnknownKind || error == version, "{error}");
            assert_eq!(needs, release);
        }
    }
}

/// What this release writes names itself, in two bytes.
#[test]
fn each_entry_names_the_release_that_it_needs() {
    let entry = crate::command::Entry::encode(0, 0, &[]);
    let record = proto::EntryRecord::decode(entry).expect("our own");
    assert_eq!((record.version, record.needs_release), (1, 1));
}
