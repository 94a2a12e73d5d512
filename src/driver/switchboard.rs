//! A transport that connects the hosts of one process.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    driver::{Inbox, MadeFor, Transport},
    id::NodeId,
    node::Message,
};

/// Connects hosts of one process, with lines that can be cut.
///
/// ```
/// use quorate::{NodeId, driver::{Inbox, Switchboard}};
/// let board = Switchboard::new();
/// let [a, b] = [1, 2].map(|id| NodeId::new(id).expect("not 0"));
/// let line = board.connect(a, Inbox::new());
/// board.connect(b, Inbox::new());
/// board.cut(a, b); // both ways
/// board.heal();
/// # drop(line);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Switchboard {
    wiring: Arc<Mutex<Wiring>>,
}

#[derive(Debug, Default)]
struct Wiring {
    inboxes: BTreeMap<NodeId, Inbox>,
    /// From, to.
    cut: BTreeSet<(NodeId, NodeId)>,
}

impl Switchboard {
    /// A switchboard with nobody on it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Connects a host; one that is connected again under its id replaces itself.
    pub fn connect(&self, id: NodeId, inbox: Inbox) -> Line {
        self.wiring.lock().inboxes.insert(id, inbox.clone());
        Line { from: id, inbox, wiring: Arc::clone(&self.wiring), burst: Vec::new() }
    }

    /// Cuts the line between two hosts, both ways.
    pub fn cut(&self, a: NodeId, b: NodeId) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    /// Drops what `from` sends to `to`.
    pub fn cut_one_way(&self, from: NodeId, to: NodeId) {
        self.wiring.lock().cut.insert((from, to));
    }

    /// Cuts a host off from all that are connected now.
    pub fn isolate(&self, id: NodeId) {
        let mut wiring = self.wiring.lock();
        let others: Vec<NodeId> = wiring.inboxes.keys().copied().collect();
        for other in others {
            wiring.cut.insert((id, other));
            wiring.cut.insert((other, id));
        }
    }

    /// Mends all lines.
    pub fn heal(&self) {
        self.wiring.lock().cut.clear();
    }

    /// Takes a host off.
    pub fn disconnect(&self, id: NodeId) {
        self.wiring.lock().inboxes.remove(&id);
    }
}

/// One host's line to the switchboard.
#[derive(Debug)]
pub struct Line {
    from: NodeId,
    inbox: Inbox,
    wiring: Arc<Mutex<Wiring>>,
    burst: Vec<Message>,
}

impl Transport for Line {
    fn made_for(&self) -> MadeFor {
        let (id, inbox) = (Some(self.from), Some(self.inbox.clone()));
        MadeFor { id, cluster: None, inbox }
    }

    fn send(&mut self, message: Message) {
        self.burst.push(message);
    }

    fn flush(&mut self) {
        if self.burst.is_empty() {
            return;
        }
        // Whoever is woken may send at once, so nobody is while the wiring is locked.
        let wiring = self.wiring.lock();
        let mut bundles: Vec<(NodeId, Inbox, Vec<Bytes>)> = Vec::new();
        for Message { to, bytes } in self.burst.drain(..) {
            if let Some((.., bundle)) = bundles.iter_mut().find(|it| it.0 == to) {
                bundle.push(bytes);
            } else if !wiring.cut.contains(&(self.from, to)) {
                let inbox = wiring.inboxes.get(&to).cloned();
                bundles.extend(inbox.map(|it| (to, it, vec![bytes])));
            }
        }
        drop(wiring);
        for (_, inbox, bundle) in bundles {
            // A full inbox loses frames, as a network would.
            inbox.deliver_all(self.from, bundle);
        }
    }
}
