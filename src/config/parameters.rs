//! What every replica must agree on.

use thiserror::Error;

use super::{INTERVAL_US_MAX, SIZE_BYTES_MAX, WINDOW_BYTES_MAX};

/// What every replica must agree on: part of the bootstrap snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Parameters {
    pub(crate) tick_us: u64,
    pub(crate) advance_us_max: u64,
    pub(crate) renewal_us: u64,
    pub(crate) ttl_us_min: u64,
    pub(crate) ttl_us_max: u64,
    pub(crate) payload_bytes_max: u64,
    pub(crate) window_count_max: u64,
    pub(crate) window_bytes_max: u64,
    pub(crate) history_count_max: u64,
    pub(crate) history_bytes_max: u64,
    pub(crate) sessions_max: u64,
    pub(crate) session_leases_max: u64,
    pub(crate) leases_max: u64,
    pub(crate) ephemerals_max: u64,
    pub(crate) nodes_max: u64,
    pub(crate) txn_ops_max: u64,
    pub(crate) subtree_nodes_max: u64,
    pub(crate) container_grace_us: u64,
}

impl Parameters {
    /// Whether these are within what any member may be set up with, so that nothing which is
    /// computed from them overflows, and no record of a snapshot may be longer than any member's.
    pub(crate) fn are_possible(&self) -> bool {
        let finite = [self.tick_us, self.advance_us_max, self.renewal_us, self.container_grace_us];
        self.ttl_us_min <= self.ttl_us_max
            && self.payload_bytes_max <= SIZE_BYTES_MAX as u64
            && self.window_bytes_max <= WINDOW_BYTES_MAX
            && finite.into_iter().chain([self.ttl_us_max]).all(|us| us <= INTERVAL_US_MAX)
    }

    /// The first setting of the cluster in which a member's own set-up differs.
    pub(crate) fn difference(&self, own: &Self) -> Option<OtherParameters> {
        let settings = |it: &Self| {
            [
                ("tick interval in us", it.tick_us),
                ("election timeout in us", it.advance_us_max),
                ("renewal interval in us", it.renewal_us),
                ("shortest session in us", it.ttl_us_min),
                ("longest session in us", it.ttl_us_max),
                ("payload bytes", it.payload_bytes_max),
                ("window count", it.window_count_max),
                ("window bytes", it.window_bytes_max),
                ("history count", it.history_count_max),
                ("history bytes", it.history_bytes_max),
                ("sessions", it.sessions_max),
                ("leases of a session", it.session_leases_max),
                ("leases", it.leases_max),
                ("ephemeral nodes of a session", it.ephemerals_max),
                ("nodes of the tree", it.nodes_max),
                ("operations of a transaction", it.txn_ops_max),
                ("nodes of a subtree", it.subtree_nodes_max),
                ("grace of a container in us", it.container_grace_us),
            ]
        };
        let mut pairs = settings(self).into_iter().zip(settings(own));
        let ((setting, cluster), (_, own)) = pairs.find(|(cluster, own)| cluster.1 != own.1)?;
        Some(OtherParameters { setting, cluster, own })
    }
}

/// A member is set up with other intervals or replicated limits than those of its cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error(
    "the cluster's {setting} is {cluster}, and this member is set up with {own}: start it with the \
     intervals and replicated limits of the founders"
)]
pub struct OtherParameters {
    /// The setting.
    pub setting: &'static str,
    /// Its value in the cluster.
    pub cluster: u64,
    /// Its value here.
    pub own: u64,
}
