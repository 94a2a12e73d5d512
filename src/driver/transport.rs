//! The seam between a host and the network.

use bytes::Bytes;
use crossbeam_channel::Sender;

use crate::{id::NodeId, node::Message};

/// Carries frames to other members. It may lose, repeat and reorder them; it never blocks.
pub trait Transport: Send {
    /// Sends `message`, or drops it when its receiver cannot be reached or is too slow.
    fn send(&mut self, message: Message);

    /// Called once after the messages of a turn: what was buffered leaves now.
    fn flush(&mut self) {}
}

/// Where a transport puts the frames that arrive for a host; cheap to clone.
#[derive(Clone, Debug)]
pub struct Inbox {
    sender: Sender<(NodeId, Bytes)>,
}

impl Inbox {
    pub(crate) fn new(sender: Sender<(NodeId, Bytes)>) -> Self {
        Self { sender }
    }

    /// Hands over a frame from member `from`. Returns `false` when the host is gone or its inbox
    /// is full; the frame is dropped then.
    pub fn deliver(&self, from: NodeId, bytes: Bytes) -> bool {
        self.sender.try_send((from, bytes)).is_ok()
    }
}
