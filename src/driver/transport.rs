//! The seam between a host and the network.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use thiserror::Error;

use crate::{
    client::mailbox::{Arrivals, Mailbox},
    id::{ClusterId, NodeId},
    node::Message,
};

/// Carries frames to other members. It may lose, repeat and reorder them; it never blocks.
pub trait Transport: Send {
    /// Sends `message`, or drops it when its receiver cannot be reached or is too slow.
    fn send(&mut self, message: Message);

    /// Called after a burst of messages: what was buffered leaves now.
    fn flush(&mut self) {}

    /// What it was made for, as far as it knows: a host refuses the transport of another.
    fn made_for(&self) -> MadeFor {
        MadeFor::default()
    }
}

/// What a transport was made for; see [`Transport::made_for`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct MadeFor {
    /// The member whose frames it carries.
    pub id: Option<NodeId>,
    /// Its cluster.
    pub cluster: Option<ClusterId>,
    /// Where it delivers.
    pub inbox: Option<Inbox>,
}

impl MadeFor {
    /// What it has that is not this.
    pub(super) fn differs(&self, id: NodeId, cluster: ClusterId, inbox: &Inbox) -> Option<Differs> {
        let other = |it: &Inbox| !Arc::ptr_eq(&it.mailbox, &inbox.mailbox);
        if let Some(made_for) = self.id.filter(|it| *it != id) {
            return Some(Differs::Member { made_for, id });
        }
        if let Some(made_for) = self.cluster.filter(|it| *it != cluster) {
            return Some(Differs::Cluster { made_for, cluster });
        }
        self.inbox.as_ref().is_some_and(other).then_some(Differs::Inbox)
    }
}

/// How a transport was made for another host than the one that it was given to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum Differs {
    /// It carries the frames of another member.
    #[error("the transport was made for member {made_for}, and the configuration is of {id}")]
    Member {
        /// The transport's.
        made_for: NodeId,
        /// The configuration's.
        id: NodeId,
    },
    /// It is of another cluster.
    #[error("the transport was made for cluster {made_for}, and the configuration is of {cluster}")]
    Cluster {
        /// The transport's.
        made_for: ClusterId,
        /// The configuration's.
        cluster: ClusterId,
    },
    /// It delivers somewhere else.
    #[error("the transport delivers into another inbox: give both the same one")]
    Inbox,
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
