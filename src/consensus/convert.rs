//! Our wire messages and raft's, field by field.
//!
//! Payloads move, they are not copied; raft's own protobuf parser never sees a peer's bytes.

use raft::eraftpb;

use crate::{
    id::NodeId,
    wire::{ENTRIES_MAX, EntryKind, LogEntry, RaftMessage, SnapshotMeta},
};

use super::membership::Members;

/// A checked message from a peer, as raft takes it.
pub(super) fn incoming(
    kind: eraftpb::MessageType,
    from: NodeId,
    to: NodeId,
    message: RaftMessage,
) -> eraftpb::Message {
    let mut out = eraftpb::Message::default();
    out.set_msg_type(kind);
    out.from = from.as_u64();
    out.to = to.as_u64();
    out.term = message.term;
    out.log_term = message.log_term;
    out.index = message.index;
    out.commit = message.commit;
    out.commit_term = message.commit_term;
    out.reject = message.reject;
    out.reject_hint = message.reject_hint;
    out.context = message.context;
    if !message.entries.is_empty() {
        let entries: Vec<_> = message.entries.into_iter().map(entry_to_raft).collect();
        out.entries = entries.into();
    }
    if let Some(meta) = message.snapshot {
        out.set_snapshot(snapshot_to_raft(&meta));
    }
    out
}

/// A message of raft's for the peers; appends are cut at `bytes_max`, because raft joins appends
/// to one peer without asking how long they get. Only members are receivers.
pub(super) fn outgoing(
    mut message: eraftpb::Message,
    bytes_max: usize,
    out: &mut Vec<(NodeId, RaftMessage)>,
) {
    let Some(to) = NodeId::new(message.to) else {
        return;
    };
    let entries: Vec<LogEntry> = message.take_entries().into_iter().map(entry_from_raft).collect();
    let snapshot = message.has_snapshot().then(|| {
        let meta = message.get_snapshot().get_metadata();
        snapshot_from_raft(meta)
    });
    let head = RaftMessage {
        kind: message.get_msg_type() as u32,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        commit: message.commit,
        commit_term: message.commit_term,
        entries: Vec::new(),
        snapshot,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.take_context(),
        priority: message.priority,
        request_snapshot: message.request_snapshot,
        durable: 0,
    };
    if entries.is_empty() {
        out.push((to, head));
        return;
    }
    let mut part = head.clone();
    let mut part_bytes = 0;
    for entry in entries {
        let bytes = entry.data.len() + ENTRY_OVERHEAD;
        let full = part_bytes + bytes > bytes_max || part.entries.len() == ENTRIES_MAX;
        if let Some(last) = part.entries.last().filter(|_| full) {
            let next = RaftMessage { index: last.index, log_term: last.term, ..head.clone() };
            out.push((to, std::mem::replace(&mut part, next)));
            part_bytes = 0;
        }
        part_bytes += bytes;
        part.entries.push(entry);
    }
    out.push((to, part));
}

pub(super) fn entry_to_raft(entry: LogEntry) -> eraftpb::Entry {
    let mut out = eraftpb::Entry::default();
    out.set_entry_type(match entry.kind {
        EntryKind::Normal => eraftpb::EntryType::EntryNormal,
        EntryKind::Membership => eraftpb::EntryType::EntryConfChange,
    });
    out.term = entry.term;
    out.index = entry.index;
    out.data = entry.data;
    out
}

pub(super) fn entry_from_raft(mut entry: eraftpb::Entry) -> LogEntry {
    let kind = match entry.get_entry_type() {
        eraftpb::EntryType::EntryNormal => EntryKind::Normal,
        eraftpb::EntryType::EntryConfChange | eraftpb::EntryType::EntryConfChangeV2 => {
            EntryKind::Membership
        }
    };
    LogEntry::new(entry.index, entry.term, kind, entry.take_data())
}

pub(super) fn snapshot_to_raft(meta: &SnapshotMeta) -> eraftpb::Snapshot {
    let mut out = eraftpb::Snapshot::default();
    let metadata = out.mut_metadata();
    metadata.index = meta.index;
    metadata.term = meta.term;
    let conf = metadata.mut_conf_state();
    conf.set_voters(meta.voters.clone());
    conf.set_learners(meta.learners.clone());
    out
}

pub(super) fn snapshot_from_raft(metadata: &eraftpb::SnapshotMetadata) -> SnapshotMeta {
    let ascending = |ids: &[u64]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    SnapshotMeta {
        index: metadata.index,
        term: metadata.term,
        voters: ascending(metadata.get_conf_state().get_voters()),
        learners: ascending(metadata.get_conf_state().get_learners()),
    }
}

pub(super) fn meta(index: u64, term: u64, members: &Members) -> SnapshotMeta {
    SnapshotMeta { index, term, voters: members.voters.clone(), learners: members.learners.clone() }
}

/// Bytes of an entry beside its data, in memory and on the wire, rounded up.
pub(super) const ENTRY_OVERHEAD: usize = 64;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn payloads_move_and_are_not_copied() {
        let data = Bytes::from(vec![7; 4096]);
        let at = data.as_ptr();
        let message = RaftMessage {
            kind: 3,
            entries: vec![LogEntry::new(2, 1, EntryKind::Normal, data)],
            ..RaftMessage::default()
        };
        let [one, two] = [1, 2].map(|id| NodeId::new(id).unwrap());
        let raft = incoming(eraftpb::MessageType::MsgAppend, one, two, message);
        assert_eq!(raft.entries[0].data.as_ptr(), at);
        let mut out = Vec::new();
        outgoing(raft, 1 << 20, &mut out);
        assert_eq!(out[0].1.entries[0].data.as_ptr(), at);
    }

    #[test]
    fn l3_a_long_append_is_cut_into_appends_that_fit_together() {
        let mut raft = eraftpb::Message::default();
        raft.set_msg_type(eraftpb::MessageType::MsgAppend);
        (raft.to, raft.term, raft.index, raft.log_term) = (2, 9, 4, 3);
        let entries: Vec<_> = (5..25)
            .map(|index| {
                let data = Bytes::from(vec![0; 300]);
                entry_to_raft(LogEntry::new(index, index / 2, EntryKind::Normal, data))
            })
            .collect();
        raft.entries = entries.into();
        let mut out = Vec::new();
        outgoing(raft, 1024, &mut out);
        assert_eq!(out.len(), 10);
        let (mut index, mut term) = (4, 3);
        for (_, part) in &out {
            assert_eq!((part.index, part.log_term), (index, term));
            let bytes: usize = part.entries.iter().map(|e| e.data.len()).sum();
            assert!(bytes <= 1024 && !part.entries.is_empty());
            for entry in &part.entries {
                assert_eq!(entry.index, index + 1);
                (index, term) = (entry.index, entry.term);
            }
        }
        assert_eq!(index, 24);
    }
}
