//! A ZooKeeper inside your application.
//!
//! `quorate` puts coordination into a service itself: a small tree of nodes that a majority of the
//! service's instances agrees on (Raft), with sessions that end when their owner does, watches that
//! resume without a gap, leader election, and locks with fencing tokens. One dependency, no server
//! beside the service, no async runtime.
//!
//! ```no_run
//! use std::time::Duration;
//! use quorate::{ClusterId, Config, NodeId, driver::{Driver, Host, Inbox}, tcp::TcpTransport};
//!
//! let ids = [1, 2, 3].map(|id| NodeId::new(id).expect("not 0"));
//! let cluster = ClusterId::named("orders");
//! let inbox = Inbox::new();
//! let network = TcpTransport::bind(ids[0], cluster, "10.0.0.1:7001", inbox.clone())?;
//! network.connect(ids[1], "10.0.0.2:7001")?;
//! network.connect(ids[2], "10.0.0.3:7001")?;
//! let config = Config::founding(cluster, ids[0], ids).build()?;
//! let node = Driver::spawn(Host::open(config, "data".as_ref(), network, inbox)?)?;
//!
//! let session = node.client().open_session(Duration::from_secs(10)).wait()?;
//! let lock = session.lock(&"/locks/report".parse()?).wait()?;
//! println!("held, fenced by token {}", lock.token());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The layers
//!
//! - [`client`]: handles for threads and for futures. What most applications use.
//! - [`driver`]: one turn of the run loop over a node, a log and a transport; a thread around it.
//! - [`tcp`]: a transport on standard sockets. [`driver::Transport`] is the seam for another.
//! - [`wal`]: the durable log and snapshot files, behind the seam [`wal::Fs`].
//! - [`recipes`]: election and lock as state machines without IO, over the layouts of the ZooKeeper
//!   world.
//! - `zookeeper` (a feature): ZooKeeper's client protocol, for clients that exist already.
//! - `sim` (a feature): a simulated cluster with the application on it, for tests.
//! - [`node`]: the sans-IO core. It owns no thread, clock, socket, file or random source, and all
//!   of the above stands on its public run loop: an application can drive it by hand.
//!
//! # The run loop
//!
//! **Feed inputs, then drain [`Node::ready`](node::Node::ready) until it is empty; tick only a
//! drained node. What must be durable first comes out of
//! [`Node::persisted`](node::Node::persisted), and only there.** The token that says so can be
//! neither copied nor skipped. `examples/embed.rs` is such a loop, in 150 lines.
//!
//! # What it promises
//!
//! While a majority of the voters lives, disks keep what they synced, and members fail by crashing:
//!
//! - An acknowledged write is on the disks of a majority, and is never lost or done twice. A
//!   session's commands apply exactly once and in order, over any loss or change of leader.
//! - Every replica goes through the same states. [`Consistency`](node::Consistency) says on each
//!   read how fresh the answer must be; a linearizable one asks a majority.
//! - A watch tells each change once, in order, a transaction's changes together, before any reply
//!   that shows them. It resumes on any member; what is too old ends it with
//!   [`Compacted`](node::WatchEnd::Compacted), never with a silent gap.
//! - No session ends before its time to live has passed since the newest acknowledged keep-alive
//!   was sent, as long as clocks drift by less than
//!   [`max_drift_ppm`](ConfigBuilder::max_drift_ppm); an outage ends none. It ends late by at most
//!   a renewal interval and a tick, one more interval per change of leader, and outages.
//! - Each ownership has a token, the zxid that created its node, and tokens grow. A write guarded
//!   by one ([`Check::Czxid`]) takes effect only while it is still the owner's.
//! - What goes wrong is a typed error: [`outcome_unknown`](client::Error::outcome_unknown) tells
//!   whether the request may have taken effect. A member that cannot go on safely ends with a cause
//!   and a remedy, see [`Ended`](node::Ended).
//!
//! # What it is not
//!
//! A database: the tree lives in memory, on every member. Byzantine fault tolerance: members trust
//! each other. Encryption: the TCP transport is plain; run it where the network is trusted.
//!
//! # Cargo features
//!
//! | feature | adds | default |
//! |---|---|---|
//! | `wal` | the durable log | yes |
//! | `driver` | hosts, threads, client handles | yes |
//! | `tcp` | the TCP transport | yes |
//! | `zookeeper` | the ZooKeeper client protocol, and a listener for its clients | no |
//! | `sim` | the deterministic simulator, for tests | no |
//!
//! Without any, the sans-IO [`node`] and the [`recipes`] remain.

#[cfg(feature = "driver")]
pub mod client;
mod command;
mod config;
mod consensus;
#[cfg(feature = "driver")]
pub mod driver;
#[cfg(all(any(test, fuzzing, feature = "sim"), feature = "wal"))]
#[doc(hidden)]
pub mod fuzz;
mod id;
#[doc(hidden)]
pub mod mutant;
mod namespace;
pub mod node;
mod op;
mod path;
#[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)] // generated code
mod proto;
pub mod recipes;
mod record;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg(feature = "tcp")]
pub mod tcp;
mod time;
#[cfg(feature = "wal")]
pub mod wal;
mod wire;
#[cfg(feature = "zookeeper")]
pub mod zookeeper;

/// The README's example, as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

pub use command::{CommandError, Release};
pub use config::{Config, ConfigBuilder, ConfigError, Limits};
pub use id::{
    Boot, ClusterId, Incarnation, LeaseId, Lineage, NodeId, Secret, SessionId, StoreId, Zxid,
};
#[doc(hidden)]
pub use namespace::Replica;
pub use namespace::{Diff, Difference, DifferenceKind, Past, PastError, View};
pub use op::{
    AccessError, Acl, Check, Child, Children, Content, CreateMode, Detail, DigestId, Event,
    EventKind, Field, Filter, Grant, Guard, Identities, Identity, LeaseStat, Lifetime, LimitName,
    List, Op, OpError, Outcome, Owned, Page, Principal, Quota, Relation, Reply, Rights, Stat,
    Subject, Txn, Usage,
};
pub use path::{Path, PathError, PathPrefix};
pub use time::Now;
pub use wire::{EntryKind, FrameError, HardState, LogEntry};
