//! quorate: a ZooKeeper inside your application.

#[cfg(feature = "driver")]
pub mod client;
mod command;
mod config;
mod consensus;
#[cfg(feature = "driver")]
pub mod driver;
mod id;
mod namespace;
pub mod node;
mod op;
mod path;
#[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)] // generated code
mod proto;
pub mod recipes;
mod record;
#[cfg(feature = "tcp")]
pub mod tcp;
mod time;
#[cfg(feature = "wal")]
pub mod wal;
mod wire;

pub use command::CommandError;
pub use config::{Config, ConfigBuilder, ConfigError, Limits};
pub use id::{Boot, ClusterId, Incarnation, NodeId, Secret, SessionId, StoreId, Zxid};
pub use namespace::View;
pub use op::{
    Check, CreateMode, Event, EventKind, Filter, Guard, LimitName, Op, OpError, Outcome, Reply,
    Stat, Txn,
};
pub use path::{Path, PathError, PathPrefix};
pub use time::Now;
pub use wire::{EntryKind, FrameError, HardState, LogEntry};
