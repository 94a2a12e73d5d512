//! A client of ZooKeeper that nobody here wrote, the crate `zookeeper-client`, on three members in
//! this process; and what it shares with the handles of this crate.
//!
//! What it talks to is `zookeeper::Listener` over loopback sockets. Other clients are in
//! `tests/interop`.
#![allow(clippy::disallowed_methods)] // real clocks

mod cluster;
mod contention;
mod sessions;
mod tree;
mod watches;
