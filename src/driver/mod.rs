//! One turn of the run loop over a node, a log and a transport; and the thread around it.
//!
//! [`Host::turn`] is the whole loop, once, without blocking but for the disk: a simulator calls it
//! by hand. [`Driver`] is a thread that calls it, beside one that writes. Everything here stands on
//! the public loop of [`Node`](crate::node::Node) and could be written by an application.

mod clock;
mod desk;
mod disk;
mod gateways;
mod host;
mod log;
mod places;
mod seats;
mod switchboard;
#[cfg(test)]
mod tests;
mod thread;
mod transport;

pub use clock::SystemClock;
pub use host::{Host, HostError, Housework, HouseworkDone, Turn};
pub use log::Log;
pub use switchboard::{Line, Switchboard};
pub use thread::Driver;
pub use transport::{Differs, Inbox, MadeFor, Transport};
