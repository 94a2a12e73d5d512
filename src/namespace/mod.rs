//! The replicated state machine.

/// The tree at one zxid.
#[derive(Clone, Debug)]
pub struct View {}
