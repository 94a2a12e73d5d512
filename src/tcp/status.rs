//! What the transport did so far, for people and for dashboards.

use std::collections::BTreeMap;

use super::hello::TcpRefusal;
use crate::id::NodeId;

/// A look at a [`TcpTransport`](super::TcpTransport).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TcpStatus {
    /// Those that are dialed, by id.
    pub peers: Vec<PeerStatus>,
    /// Those that dial.
    pub inbound: InboundStatus,
}

/// One peer that is dialed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PeerStatus {
    /// The peer.
    pub peer: NodeId,
    /// Where it is dialed, as `host:port`.
    pub address: String,
    /// Whether frames reach it at present, as far as is known.
    pub connected: bool,
    /// How often a connection was made.
    pub connections: u64,
    /// How often one failed or ended.
    pub failures: u64,
    /// Why the last one did.
    pub last_failure: Option<String>,
    /// Frames that wait for it.
    pub queued_frames: usize,
    /// Their bytes.
    pub queued_bytes: usize,
    /// Frames that were handed to the system.
    pub sent_frames: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Frames that were dropped because too much waited.
    pub dropped_full: u64,
    /// Frames that were dropped because there was no connection.
    pub dropped_unreachable: u64,
    /// Frames that were dropped because they are empty or above the limit: a wrong set-up.
    pub dropped_oversize: u64,
}

impl PeerStatus {
    pub(super) fn new(peer: NodeId, address: String) -> Self {
        Self {
            peer,
            address,
            connected: false,
            connections: 0,
            failures: 0,
            last_failure: None,
            queued_frames: 0,
            queued_bytes: 0,
            sent_frames: 0,
            sent_bytes: 0,
            dropped_full: 0,
            dropped_unreachable: 0,
            dropped_oversize: 0,
        }
    }
}

/// The connections that others made.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct InboundStatus {
    /// Members that are connected.
    pub members: Vec<NodeId>,
    /// Connections that were accepted, whatever became of them.
    pub accepted: u64,
    /// Connections that the system would not hand over, or had no thread for.
    pub accept_failures: u64,
    /// Connections that were closed before their first frame, by reason.
    pub refused: BTreeMap<TcpRefusal, u64>,
    /// Members' connections that were closed for what they sent.
    pub damaged: u64,
    /// Members' connections that were closed because nothing came any more.
    pub silent: u64,
    /// Frames that came.
    pub received_frames: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Frames that the host had no room for.
    pub undelivered_frames: u64,
}
