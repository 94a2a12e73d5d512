//! One turn of the run loop over a node, a log and a transport; and the thread around it.

mod transport;

pub use transport::{Inbox, Transport};
