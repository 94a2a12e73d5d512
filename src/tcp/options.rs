//! The bounds of the transport, all finite and all with a default, and why it is refused.

use std::{io, time::Duration};

use slog::Logger;
use thiserror::Error;

use crate::{id::NodeId, wire::FRAME_BYTES_MAX};

/// The bounds and deadlines of a [`TcpTransport`](super::TcpTransport), and where it logs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TcpOptions {
    /// Bytes of one frame, in and out: what any member may send, so that no setting can keep two
    /// members apart. Less only in tests.
    pub(super) frame_bytes_max: usize,
    /// Bytes that wait for one peer; what comes on top is dropped. A frame for which nothing else
    /// waits is taken whatever its size. Default: 64 MiB.
    pub queue_bytes_max: usize,
    /// Frames that wait for one peer. Default: 65,536.
    pub queue_count_max: usize,
    /// Peers that are dialed. Default: 64.
    pub peers_max: usize,
    /// Connections from members. Default: 128.
    pub connections_max: usize,
    /// Connections that have not said a whole hello; the oldest makes room. Default: 64.
    pub handshakes_max: usize,
    /// How long a connection may take to be made. Default: 2 s.
    pub connect_timeout: Duration,
    /// How long a hello and its answer may take. Default: 2 s.
    pub handshake_timeout: Duration,
    /// How often the dialing side asks whether the other is alive. Default: 1 s.
    pub probe_interval: Duration,
    /// After how long a connection without a sign of life is closed. Default: 10 s.
    pub silence_max: Duration,
    /// The first pause between attempts to connect; it doubles. Default: 20 ms.
    pub backoff_min: Duration,
    /// The longest such pause, before jitter. Default: 1 s.
    pub backoff_max: Duration,
    /// Where to log. Default: nowhere.
    pub logger: Logger,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            frame_bytes_max: FRAME_BYTES_MAX,
            queue_bytes_max: 64 << 20,
            queue_count_max: 65_536,
            peers_max: crate::config::MEMBERS_MAX,
            connections_max: 128,
            handshakes_max: 64,
            connect_timeout: Duration::from_secs(2),
            handshake_timeout: Duration::from_secs(2),
            probe_interval: Duration::from_secs(1),
            silence_max: Duration::from_secs(10),
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_secs(1),
            logger: Logger::root(slog::Discard, slog::o!()),
        }
    }
}

impl TcpOptions {
    pub(super) fn check(&self) -> Result<(), TcpError> {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let backoff = ms(self.backoff_min);
        let probe = ms(self.probe_interval);
        let rows = [
            ("queue bytes", self.queue_bytes_max as u64, 1, 1 << 40),
            ("queue count", self.queue_count_max as u64, 1, 1 << 32),
            ("peers", self.peers_max as u64, 1, 1 << 16),
            ("connections", self.connections_max as u64, 1, 1 << 16),
            ("handshakes", self.handshakes_max as u64, 1, 1 << 16),
            ("connect timeout in ms", ms(self.connect_timeout), 1, DAY_MS),
            ("handshake timeout in ms", ms(self.handshake_timeout), 1, DAY_MS),
            ("probe interval in ms", probe, 1, DAY_MS),
            ("silence in ms", ms(self.silence_max), probe * 2, DAY_MS),
            ("first backoff in ms", backoff, 1, DAY_MS),
            ("longest backoff in ms", ms(self.backoff_max), backoff, DAY_MS),
        ];
        for (setting, value, min, max) in rows {
            if !(min..=max).contains(&value) {
                return Err(TcpError::OutOfRange { setting, value, min, max });
            }
        }
        Ok(())
    }
}

/// Why the transport refuses to start, or to dial a peer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TcpError {
    /// The listening address cannot be used.
    #[error("the listening address cannot be used: {source}")]
    Listen {
        /// What the system says.
        source: io::Error,
    },
    /// A thread could not be started.
    #[error("a thread of the transport could not be started: {source}")]
    Thread {
        /// What the system says.
        source: io::Error,
    },
    /// An option is outside its range.
    #[error("{setting} must be from {min} to {max}, not {value}")]
    OutOfRange {
        /// The option.
        setting: &'static str,
        /// Its value.
        value: u64,
        /// The least allowed.
        min: u64,
        /// The most allowed.
        max: u64,
    },
    /// An address is not of the form `host:port`.
    #[error("`{address}` is not of the form host:port")]
    Address {
        /// The address.
        address: String,
    },
    /// A list of members is not of the form `1=host:port,2=host:port`, each id once.
    #[error("`{peers}` is not of the form 1=host:port,2=host:port, each id once")]
    Peers {
        /// The list.
        peers: String,
    },
    /// A member does not dial itself.
    #[error("node {id} must not be its own peer")]
    Itself {
        /// The member.
        id: NodeId,
    },
    /// As many peers as allowed are dialed already.
    #[error("at most {max} peers are dialed")]
    TooManyPeers {
        /// The limit.
        max: usize,
    },
    /// The transport was dropped.
    #[error("the transport is closed")]
    Closed,
}

const DAY_MS: u64 = 86_400_000;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        Boot, Check, ClusterId, CreateMode, Guard, Incarnation, LeaseId, List, Op, Path, StoreId,
        Txn,
        command::{Command, Entry},
        config::{SIZE_BYTES_MAX, TXN_OPS_MAX},
        wire::{Body, EntryKind, Frame, LogEntry, RaftMessage},
    };

    #[test]
    fn the_largest_frame_of_any_member_passes() {
        let path = Path::new(&format!("/{}", "x".repeat(Path::BYTES_MAX - 1)));
        let path = path.expect("it is just short enough");
        let data = Bytes::from(vec![7; SIZE_BYTES_MAX]);
        let lease = LeaseId::new((1 << 56) - 1).expect("below 2^56");
        let mode = CreateMode::SequentialLeased(lease);
        let guard = Guard { path: path.clone(), check: Check::Owner(lease) };
        let mut txn = Txn::all([Op::Create { path: path.clone().into(), data, mode, acl: None }]);
        let mut list = List::of(path);
        list.after = Some("y".repeat(Path::BYTES_MAX));
        list.prefix = "y".repeat(Path::BYTES_MAX);
        for _ in 1..TXN_OPS_MAX {
            txn = txn.then(Op::List(list.clone()));
        }
        for _ in 0..Txn::GUARDS_MAX {
            txn = txn.guard(guard.clone());
        }
        let [epoch, seq, acked] = [u64::MAX; 3];
        let session = lease.session();
        let command = Command::SessionTxn { session, epoch, seq, acked, txn }.encode();
        let entry = Entry::encode(u64::MAX, u64::MAX, &[command]);
        let entry = LogEntry::new(u64::MAX, u64::MAX, EntryKind::Normal, entry);
        let [term, log_term, index, commit, commit_term] = [u64::MAX; 5];
        let head = RaftMessage { term, log_term, index, commit, commit_term, ..Default::default() };
        let head = RaftMessage { durable: u64::MAX, ..head };
        let boot = Boot { counter: u64::MAX, nonce: u64::MAX };
        let [from, to] = [1 << 40, 1].map(|id| NodeId::new(id).expect("not 0, nor huge"));
        let frame = Frame {
            cluster: ClusterId::named("tests"),
            from,
            to,
            incarnation: Incarnation { store: StoreId::from_bytes([255; 16]), boot },
            body: Body::Raft(RaftMessage { kind: 3, entries: vec![entry], ..head }),
        };
        let (bytes, max) = (frame.encode().len(), TcpOptions::default().frame_bytes_max);
        assert!(bytes <= max, "{bytes} bytes");
        assert!(max - bytes < 1 << 20, "much more than any frame needs: {bytes} bytes");
    }
}
