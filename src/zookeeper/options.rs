//! What a listener is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use crate::{
    id::NodeId,
    zookeeper::{connection::ConnectionOptions, words::Word},
};

/// What bounds a listener, and what it tells.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ListenerOptions {
    /// What bounds each connection.
    pub connection: ConnectionOptions,
    /// Connections at once; further ones are closed. Default: 10,000.
    pub connections_max: usize,
    /// Bytes that all connections hold together: of packets that are not complete, and of what
    /// clients do not take. Past it those that hold most are closed. Default: 1 GiB.
    pub held_bytes_max: usize,
    /// How long [`Listener::stop`](crate::zookeeper::Listener::stop) waits for answers that are
    /// under way. Default: 1 s.
    pub drain_max: Duration,
    /// The four-letter words that are answered; others are refused. Default: all of them.
    pub words: BTreeSet<Word>,
    /// Where the members are found, which `/zookeeper/config` tells: the listener of a member
    /// writes that member's address, and those of others as long as nobody has. Members that are
    /// not here are told as their own listeners know them. Default: empty.
    pub servers: BTreeMap<NodeId, ServerAddress>,
    /// Where the member keeps its data, for the word `conf`. Default: none.
    pub data_dir: Option<PathBuf>,
}

/// Where a member is found.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ServerAddress {
    /// By the other members: `HOST:PORT`.
    pub peer: String,
    /// By clients: `HOST:PORT`.
    pub client: Option<String>,
}

impl ServerAddress {
    /// The address that other members know, `HOST:PORT`.
    pub fn new(peer: impl Into<String>) -> Self {
        Self { peer: peer.into(), client: None }
    }

    /// The same with the address that clients know, `HOST:PORT`.
    #[must_use]
    pub fn client(self, client: impl Into<String>) -> Self {
        Self { client: Some(client.into()), ..self }
    }
}

impl Default for ListenerOptions {
    fn default() -> Self {
        Self {
            connection: ConnectionOptions::default(),
            connections_max: 10_000,
            held_bytes_max: 1 << 30,
            drain_max: Duration::from_secs(1),
            words: Word::ALL.iter().copied().collect(),
            servers: BTreeMap::new(),
            data_dir: None,
        }
    }
}
