//! The seam between a host and the network.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    client::mailbox::{Arrivals, Mailbox},
    id::NodeId,
    node::Message,
};

/// Carries frames to other members. It may lose, repeat and reorder them; it never blocks.
pub trait Transport: Send {
    /// Sends `message`, or drops it when its receiver cannot be reached or is too slow.
    fn send(&mut self, message: Message);

    /// Called after a burst of messages: what was buffered leaves now.
    fn flush(&mut self) {}
}

/// Where everything arrives for one host: frames from transports, requests from handles. Cheap to
/// clone, bounded, and the one thing that the host waits on.
///
/// Make one, give a clone to the transport, and the inbox itself to
/// [`Host::new`](crate::driver::Host::new).
///
/// ```
/// use std::time::Duration;
/// use quorate::{NodeId, driver::Inbox};
/// let inbox = Inbox::new();
/// let peer = NodeId::new(2).expect("not 0");
/// assert!(inbox.deliver(peer, "frame".into()));
/// // A loop of one's own takes them itself:
/// assert_eq!(inbox.take_frames(Duration::ZERO), [(peer, "frame".into())]);
/// ```
#[derive(Clone, Debug)]
pub struct Inbox {
    pub(super) mailbox: Arc<Mailbox>,
}

impl Inbox {
    /// An inbox with room for 16,384 frames of together 256 MiB, and for 65,536 requests.
    pub fn new() -> Self {
        Self::bounded(16_384, 256 << 20, 65_536)
    }

    /// An inbox with this room. A frame above `frame_bytes_max` is taken when no other waits.
    pub fn bounded(frames_max: usize, frame_bytes_max: usize, requests_max: usize) -> Self {
        Self { mailbox: Arc::new(Mailbox::new(frames_max, frame_bytes_max, requests_max)) }
    }

    /// Hands over a frame from member `from`. Returns `false` when the host is gone or its inbox
    /// is full; the frame is dropped then, which is allowed: consensus sends it again.
    pub fn deliver(&self, from: NodeId, bytes: Bytes) -> bool {
        self.mailbox.deliver(from, [bytes]) == 1
    }

    /// [`deliver`](Self::deliver) for several frames at once; wakes the host once. Returns how many
    /// were taken, the first ones.
    pub fn deliver_all(&self, from: NodeId, frames: impl IntoIterator<Item = Bytes>) -> usize {
        self.mailbox.deliver(from, frames)
    }

    /// Takes the frames that have arrived, for a loop of one's own; waits at most for `timeout`
    /// for the first.
    pub fn take_frames(&self, timeout: Duration) -> Vec<(NodeId, Bytes)> {
        self.mailbox.wait(timeout);
        let mut arrivals = Arrivals::default();
        self.mailbox.take(&mut arrivals);
        arrivals.frames.into()
    }
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}
