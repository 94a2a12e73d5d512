//! Bytes of a peer, of the log and of a snapshot, as they are read.

use bytes::Bytes;

use super::samples::{
    HEADER_BYTES, bodies, cluster, create, edited, entries, frame_of, head, populated, sealed,
    snapshot_of,
};
use crate::{
    command::{Batch, Entry},
    namespace::{Decoder, Namespace},
    path::Path,
    wire::{FRAME_BYTES_MAX, Frame},
};

/// A frame from a peer: the kind, then the body; the header around them is sound.
pub(super) fn frame(data: &[u8]) {
    let (&kind, body) = data.split_first().unwrap_or((&0, &[]));
    if let Ok(frame) = Frame::decode(&sealed(&head(), kind.into(), body), FRAME_BYTES_MAX) {
        let again = Frame::decode(&frame.encode(), FRAME_BYTES_MAX);
        assert_eq!(again.as_ref(), Ok(&frame), "what was taken is what would be sent");
    }
    // And as it is.
    let _ = Frame::decode(&Bytes::copy_from_slice(data), FRAME_BYTES_MAX);
}

pub(super) fn frame_seeds() -> Vec<Vec<u8>> {
    let seed = |body| {
        let bytes = frame_of(body).encode();
        [&bytes[6..7], &bytes[HEADER_BYTES..]].concat()
    };
    bodies().map(seed).into()
}

/// An entry of the log, or its commands alone: what decodes is encoded alike again, and whatever it
/// does to a state, the state goes through its snapshot.
pub(super) fn entry(data: &[u8]) {
    let mut namespace = populated();
    let mut batch = match Entry::decode(Bytes::copy_from_slice(data)) {
        Ok(entry) => {
            namespace.begin_entry(entry.advance_us, entry.wall_ms);
            entry.commands
        }
        Err(_) => Batch(Bytes::copy_from_slice(data)),
    };
    while let Some(command) = batch.next_command() {
        if let Ok(command) = command {
            let mut again = Batch(command.encode());
            assert_eq!(again.next_command(), Some(Ok(command.clone())), "encoded alike again");
            namespace.apply(command);
            namespace.drain_changes();
        }
    }
    round_trip(&namespace);
}

pub(super) fn entry_seeds() -> Vec<Vec<u8>> {
    entries()
}

/// A snapshot of the state, or edits of a real one; a state that it gives goes on like any other.
pub(super) fn snapshot(data: &[u8]) {
    let real = snapshot_of(&populated());
    for bytes in [data.to_vec(), edited(&real, data)] {
        let mut decoder = Decoder::new(cluster());
        let fed = bytes.chunks(97).try_for_each(|it| decoder.feed(Bytes::copy_from_slice(it)));
        if let (Ok(()), Ok((mut namespace, ..))) = (fed, decoder.finish()) {
            namespace.begin_entry(1_000, 5);
            namespace.apply(create("/after", 99));
            round_trip(&namespace);
        }
    }
}

pub(super) fn snapshot_seeds() -> Vec<Vec<u8>> {
    vec![snapshot_of(&populated()), vec![0, 1, 2, 3, 4, 5, 6, 7]]
}

/// A path: taken if and only if ZooKeeper's `PathUtils` would take it, within our length.
pub(super) fn path(data: &[u8]) {
    let text = std::str::from_utf8(data);
    let taken = Path::from_bytes(data);
    assert_eq!(taken.is_ok(), text.is_ok_and(is_path), "{text:?}");
    if let Ok(path) = taken {
        assert_eq!(path.as_str().as_bytes(), data);
        let parts = path.parent().map(|parent| parent.join(path.name()));
        assert!(parts.is_none_or(|joined| joined == Ok(path.clone())), "{path:?}");
    }
}

/// ZooKeeper's rules once more, one by one.
fn is_path(text: &str) -> bool {
    let control = |c| matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}');
    let strange = |c| matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}');
    let bad = |c: char| control(c) || strange(c);
    let name = |name: &str| !name.is_empty() && name != "." && name != ".." && !name.contains(bad);
    match text.strip_prefix('/') {
        _ if text.len() > Path::BYTES_MAX => false,
        Some("") => true,
        Some(names) => names.split('/').all(name),
        None => false,
    }
}

pub(super) fn path_seeds() -> Vec<Vec<u8>> {
    let texts = ["/", "/a", "/a/b.c", "/a//b", "/a/./b", "/..", "a", "/a/", "/\u{e9}", "/\u{f8ff}"];
    texts.map(|text| text.as_bytes().to_vec()).into()
}

/// The digest in it is checked by the decoder, against one that it makes from nothing.
fn round_trip(namespace: &Namespace) {
    let bytes = snapshot_of(namespace);
    let mut decoder = Decoder::new(cluster());
    assert_eq!(decoder.feed(bytes.clone().into()), Ok(()), "a state that was reached");
    match decoder.finish() {
        Ok((again, ..)) => assert_eq!(snapshot_of(&again), bytes, "the same state"),
        Err(error) => panic!("a state that was reached: {error}"),
    }
}
