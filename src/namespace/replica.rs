//! One replica's state machine for benchmarks: commands in, without a log and without a codec.

use crate::{
    command::{Command, KeepAlive},
    config::{Config, ConfigError},
    id::{ClusterId, NodeId, Origin, Secret, SessionId},
    namespace::{Applied, Namespace, View, znode::Stamp},
    op::{Identities, Txn},
    path::Path,
};

/// The state machine alone, for the benchmarks of this crate; no part of its promises.
#[derive(Debug)]
pub struct Replica {
    namespace: Namespace,
    origin: Origin,
}

impl Replica {
    /// An empty tree under the default limits.
    ///
    /// # Errors
    ///
    /// Never, unless the defaults contradict each other.
    pub fn new() -> Result<Self, ConfigError> {
        let config = Config::founding(ClusterId::named("bench"), NODE, [NODE]).build()?;
        let origin = Origin { node: NODE, boot_nonce: 0, counter: 0 };
        Ok(Self { namespace: Namespace::new(config.parameters()), origin })
    }

    /// Opens a session with a secret made of `number`.
    pub fn open_session(&mut self, number: u64) -> Option<SessionId> {
        let secret = Secret::from_bytes(u128::from(number).to_le_bytes()).hash();
        let (origin, identities) = (self.origin, Identities::none());
        let command = Command::OpenSession { origin, secret, ttl_us: 0, identities };
        match self.namespace.apply(command) {
            Applied::Session { result, .. } => result.ok().map(|state| state.id),
            _ => None,
        }
    }

    /// Applies a session's next transaction, all before it acknowledged; whether it succeeded.
    pub fn apply(&mut self, session: SessionId, seq: u64, txn: Txn) -> bool {
        let acked = seq.saturating_sub(1);
        let command = Command::SessionTxn { session, epoch: 1, seq, acked, txn };
        let applied = self.namespace.apply(command);
        drop(self.namespace.drain_changes());
        matches!(applied, Applied::Sequenced { reply, .. } if reply.result.is_ok())
    }

    /// Replaces a node's data in the tree alone: no session, no history.
    pub fn set_in_tree(&mut self, path: Path, data: &[u8]) -> bool {
        let state = &mut self.namespace.state;
        let at = Stamp { zxid: state.zxid, wall_ms: 0, clock_us: 0 };
        state.tree.set(path, Some(data), None, &Identities::none(), at).is_ok()
    }

    /// Renews sessions in one entry; how many were.
    pub fn keep_alives(&mut self, sessions: &[SessionId], number: u64) -> usize {
        let item = |&session| KeepAlive { session, lease: None, epoch: 1, number, acked: 0 };
        self.namespace.begin_entry(1, 0);
        match self.namespace.apply(Command::KeepAlives(sessions.iter().map(item).collect())) {
            Applied::KeepAlives { accepted, .. } => accepted.len(),
            _ => 0,
        }
    }

    /// The tree as it is now.
    pub fn view(&self) -> View {
        self.namespace.view()
    }
}

const NODE: NodeId = match NodeId::new(1) {
    Some(id) => id,
    None => panic!("1 is an id"),
};
