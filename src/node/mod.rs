//! The sans-IO node: consensus and namespace, composed.

pub(crate) mod ready;
pub(crate) mod request;

pub use ready::*;
pub use request::*;
