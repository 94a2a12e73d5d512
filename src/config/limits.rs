//! The bounds of what a member holds.

use std::time::Duration;

use super::{
    ConfigError, OP_OVERHEAD_BYTES, SIZE_BYTES_MAX, TXN_OPS_MAX, WINDOW_BYTES_MAX, in_range,
};

/// The bounds of what a member holds. All finite, all with a default.
///
/// Those marked *replicated* must be the same on every founder; the others are local.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of one node's data (*replicated*). Default: 1,048,575, as ZooKeeper's
    /// `jute.maxbuffer`.
    pub payload_bytes_max: usize,
    /// The shortest session or lease (*replicated*). Default: 2 s.
    pub session_ttl_min: Duration,
    /// The longest session or lease (*replicated*). Default: 1 h.
    pub session_ttl_max: Duration,
    /// Sessions of the cluster (*replicated*). Default: 1,000,000.
    pub sessions_max: usize,
    /// Leases of one session, beside its own (*replicated*). Default: 128.
    pub session_leases_max: usize,
    /// Leases of all sessions, beside their own (*replicated*). Default: 1,000,000.
    pub leases_max: usize,
    /// Ephemeral nodes of one session, those of its leases included (*replicated*): all of them go
    /// in one step when the session ends, during which a member does nothing else:
    /// 10,000 take 10 to 40 ms. Default: 10,000.
    pub ephemerals_max: usize,
    /// Nodes of the whole tree (*replicated*). Default: 16,777,216.
    pub nodes_max: usize,
    /// Replies of a session that its client has not acknowledged (*replicated*). Default: 8,192.
    pub window_count_max: usize,
    /// Bytes of such replies (*replicated*). Default: 4 MiB.
    pub window_bytes_max: usize,
    /// Changes that a watch can resume over (*replicated*). Default: 100,000.
    pub history_count_max: usize,
    /// Bytes of such changes (*replicated*). Default: 16 MiB.
    pub history_bytes_max: usize,
    /// Operations of one transaction, both branches together (*replicated*). Default: 128.
    pub txn_ops_max: usize,
    /// Nodes that the operations of one transaction remove as subtrees, or count for a new quota,
    /// all together (*replicated*). Default: 10,000.
    pub subtree_nodes_max: usize,
    /// How long a container lives after its last child has gone (*replicated*). Default: 60 s.
    pub container_grace: Duration,
    /// Sessions and leases past their deadline that a leader ends in one renewal interval, the
    /// earliest deadline first; fewer if they own more than
    /// [`ephemerals_max`](Self::ephemerals_max) nodes, but at least one. When very many are due at
    /// once, one is late by an interval for each so many before it, and for each
    /// `ephemerals_max / 2` nodes that those own. Default: 1,000.
    pub expiries_max: usize,
    /// Containers and nodes past their time to live that a leader removes in one renewal interval.
    /// Default: 100.
    pub reaps_max: usize,
    /// Requests that wait for an answer, writes and reads each. Default: 65,536.
    pub pending_count_max: usize,
    /// Bytes of writes that wait for an answer. Default: 64 MiB.
    pub pending_bytes_max: usize,
    /// Requests of one session that wait for an answer at one member, writes and reads each.
    /// Default: 8,192.
    pub session_pending_count_max: usize,
    /// Bytes of writes of one session that wait for an answer, unless one write is larger.
    /// Default: 16 MiB.
    pub session_pending_bytes_max: usize,
    /// Watches of one node. Default: 1,000,000.
    pub watches_max: usize,
    /// Bytes of commands in one log entry, unless one command is larger. Default: 1 MiB.
    pub entry_bytes_max: usize,
    /// Bytes of log entries that are proposed and not committed. Default: 32 MiB.
    pub uncommitted_bytes_max: usize,
    /// Bytes of entries in one message to a follower, unless one entry is larger. Default: 1 MiB.
    pub message_bytes_max: usize,
    /// Messages to a follower that wait for its answer. Default: 64.
    pub inflight_max: usize,
    /// Bytes of the log's tail in memory, from which followers are served. Default: 64 MiB.
    pub log_tail_bytes_max: usize,
    /// Bytes of log after which a snapshot is written; more, if the last snapshot was larger: as
    /// many as that one. A member that opens applies about so much again. Default: 128 MiB.
    pub snapshot_log_bytes: usize,
    /// Bytes of one chunk of a snapshot. Default: 64 KiB.
    pub snapshot_chunk_bytes: usize,
    /// Ticks that a request may wait before it ends `Unknown` or timed out. Default: 200 (10 s).
    pub request_ticks_max: u32,
    /// Ticks that a snapshot transfer may make no progress. Default: 200.
    pub transfer_ticks_max: u32,
    /// Entries after which the leader has the members compare their states. It does so earlier
    /// after 16,384 transactions, and when 20 election timeouts have passed since a change.
    /// Default: 1,024.
    pub compare_entries_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            payload_bytes_max: 1_048_575,
            session_ttl_min: Duration::from_secs(2),
            session_ttl_max: Duration::from_secs(3600),
            sessions_max: 1_000_000,
            session_leases_max: 128,
            leases_max: 1_000_000,
            ephemerals_max: 10_000,
            nodes_max: 1 << 24,
            window_count_max: 8_192,
            window_bytes_max: 4 << 20,
            history_count_max: 100_000,
            history_bytes_max: 16 << 20,
            txn_ops_max: 128,
            subtree_nodes_max: 10_000,
            container_grace: Duration::from_secs(60),
            expiries_max: 1_000,
            reaps_max: 100,
            pending_count_max: 65_536,
            pending_bytes_max: 64 << 20,
            session_pending_count_max: 8_192,
            session_pending_bytes_max: 16 << 20,
            watches_max: 1_000_000,
            entry_bytes_max: 1 << 20,
            uncommitted_bytes_max: 32 << 20,
            message_bytes_max: 1 << 20,
            inflight_max: 64,
            log_tail_bytes_max: 64 << 20,
            snapshot_log_bytes: 128 << 20,
            snapshot_chunk_bytes: 64 << 10,
            request_ticks_max: 200,
            transfer_ticks_max: 200,
            compare_entries_max: 1_024,
        }
    }
}

impl Limits {
    pub(super) fn check(&self, renewal_ms: u64) -> Result<(), ConfigError> {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let max = ms(self.session_ttl_max);
        in_range("longest session in ms", max, 1, 1 << 40)?;
        let min = ms(self.session_ttl_min);
        in_range("shortest session in ms", min, 2 * renewal_ms, max)?;
        in_range("grace of a container in ms", ms(self.container_grace), 0, 1 << 40)?;
        in_range("request ticks", self.request_ticks_max.into(), 1, 1 << 31)?;
        in_range("transfer ticks", self.transfer_ticks_max.into(), 1, 1 << 31)?;
        let size_max = SIZE_BYTES_MAX as u64;
        for (setting, value, min, max) in [
            ("payload bytes", self.payload_bytes_max, 1, size_max),
            ("sessions", self.sessions_max, 1, 1 << 32),
            ("leases of a session", self.session_leases_max, 0, 1 << 16),
            ("leases", self.leases_max, 0, 1 << 32),
            ("ephemeral nodes of a session", self.ephemerals_max, 1, 1 << 20),
            ("nodes of the tree", self.nodes_max, 1, 1 << 32),
            ("expiries", self.expiries_max, 1, 1 << 16),
            ("window count", self.window_count_max, 1, 1 << 20),
            ("history count", self.history_count_max, 1, 1 << 32),
            ("history bytes", self.history_bytes_max, 1 << 10, 1 << 40),
            ("operations of a transaction", self.txn_ops_max, 1, TXN_OPS_MAX),
            ("nodes of one operation", self.subtree_nodes_max, 1, 1 << 20),
            ("reaped nodes", self.reaps_max, 1, 1 << 16),
            ("pending count", self.pending_count_max, 1, 1 << 32),
            ("pending count of a session", self.session_pending_count_max, 1, 1 << 32),
            ("pending bytes of a session", self.session_pending_bytes_max, 1 << 10, 1 << 40),
            ("watches", self.watches_max, 1, 1 << 32),
            ("entry bytes", self.entry_bytes_max, 1 << 10, size_max),
            ("uncommitted bytes", self.uncommitted_bytes_max, 1 << 10, 1 << 40),
            ("message bytes", self.message_bytes_max, 1 << 10, size_max),
            ("in-flight messages", self.inflight_max, 1, 1 << 16),
            ("log tail bytes", self.log_tail_bytes_max, 1 << 10, 1 << 40),
            ("snapshot log bytes", self.snapshot_log_bytes, 1 << 10, 1 << 40),
            ("entries between comparisons", self.compare_entries_max, 1, 1 << 12),
            ("snapshot chunk bytes", self.snapshot_chunk_bytes, 1 << 9, 4 << 20),
        ] {
            in_range(setting, value as u64, min, max)?;
        }
        // The largest node can be read in a transaction, whose reply takes half of a window.
        let (payload, window) = (self.payload_bytes_max as u64, self.window_bytes_max as u64);
        in_range("window bytes", window, 2 * (payload + OP_OVERHEAD_BYTES), WINDOW_BYTES_MAX)?;
        // And written, or it would be refused for ever as if there were no room just now.
        let pending = self.pending_bytes_max as u64;
        in_range("pending bytes", pending, payload + 8 * OP_OVERHEAD_BYTES, 1 << 40)
    }
}
