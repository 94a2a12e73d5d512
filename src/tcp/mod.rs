//! A ready-made transport between members, on standard sockets and threads.
//!
//! Each member dials each other one, and sends on the connection it dialed; it receives on those
//! that others dialed. A connection starts with a [hello](TcpRefusal) that names cluster, sender
//! and receiver, and is closed with a typed, counted reason when that is not right. Frames follow,
//! each behind its length. A thread per peer writes what is queued in few system calls, dials
//! again with growing pauses when the connection ends, and resolves the peer's name anew each
//! time. Everything is bounded by [`TcpOptions`]; past a bound frames are dropped and counted, as
//! consensus repeats what matters.
//!
//! **Trust.** Plain TCP: members are trusted, and the network between them, too. A member may
//! crash, stall or be cut off; it does not lie. Whoever can reach the port and knows the cluster's
//! name can pose as a member. Keep the port inside a private network.
//!
//! The room knows frames as opaque bytes, and nothing of consensus or of the namespace.
#![expect(clippy::disallowed_types, reason = "this room is the transport on real sockets")]

mod frames;
mod hello;
mod inbound;
mod options;
mod outbound;
mod socket;
mod status;
#[cfg(test)]
mod tests;
mod threads;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;

pub use self::{
    hello::TcpRefusal,
    options::{TcpError, TcpOptions},
    status::{InboundStatus, PeerStatus, TcpStatus},
};
use self::{inbound::Registry, outbound::Outbox, threads::Threads};
use crate::{
    driver::{Inbox, MadeFor, Transport},
    id::{ClusterId, NodeId},
    node::Message,
};

/// Carries frames between members over TCP.
///
/// Dropping it is abrupt, like a crash: what waits is lost, every connection and the listener are
/// closed, and every thread ends. It waits for that a fraction of a second at most; a thread that
/// is connecting just then ends by itself within the connect timeout.
#[derive(Debug)]
pub struct TcpTransport {
    shared: Arc<Shared>,
    inbox: Inbox,
    lanes: BTreeMap<NodeId, Lane>,
}

impl TcpTransport {
    /// Listens on `listen` as member `id` of `cluster`, and puts what arrives into `inbox`.
    ///
    /// Port 0 draws a free one: see [`local_addr`](Self::local_addr).
    ///
    /// # Errors
    ///
    /// [`TcpError::Listen`] when the address cannot be used, [`TcpError::Thread`] when the system
    /// has no thread left.
    pub fn bind(
        id: NodeId,
        cluster: ClusterId,
        listen: impl ToSocketAddrs,
        inbox: Inbox,
    ) -> Result<Self, TcpError> {
        Self::bind_with(id, cluster, listen, inbox, TcpOptions::default())
    }

    /// As [`bind`](Self::bind), with other bounds.
    ///
    /// # Errors
    ///
    /// Those of [`bind`](Self::bind), and [`TcpError::OutOfRange`] for an option.
    pub fn bind_with(
        id: NodeId,
        cluster: ClusterId,
        listen: impl ToSocketAddrs,
        inbox: Inbox,
        options: TcpOptions,
    ) -> Result<Self, TcpError> {
        options.check()?;
        let refused = |source| TcpError::Listen { source };
        let listener = TcpListener::bind(listen).map_err(refused)?;
        let local_addr = listener.local_addr().map_err(refused)?;
        let shared = Arc::new(Shared {
            id,
            cluster,
            local_addr,
            options,
            threads: Arc::new(Threads::default()),
            outboxes: Mutex::new(BTreeMap::new()),
            registry: Registry::default(),
        });
        let (accepting, delivers_to) = (shared.clone(), inbox.clone());
        let started = shared.threads.spawn(format!("quorate-tcp-{id}"), move || {
            inbound::accept(&accepting, &listener, &delivers_to);
        });
        started.map_err(|source| TcpError::Thread { source })?;
        Ok(Self { shared, inbox, lanes: BTreeMap::new() })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local_addr
    }

    /// A handle that stays when a host takes the transport.
    pub fn handle(&self) -> TcpHandle {
        TcpHandle { shared: self.shared.clone() }
    }

    /// Dials `peer` at `address`: see [`TcpHandle::connect`].
    ///
    /// # Errors
    ///
    /// Those of [`TcpHandle::connect`].
    pub fn connect(&self, peer: NodeId, address: impl ToString) -> Result<(), TcpError> {
        self.shared.connect(peer, address.to_string())
    }
}

/// Reads a list of members and their addresses, as a command line or a file would give it: an id
/// and `host:port` for each, in any order.
///
/// ```
/// let peers = quorate::tcp::parse_peers("1=10.0.0.1:7000,2=db-2:7000")?;
/// assert!(peers.values().eq(["10.0.0.1:7000", "db-2:7000"]));
/// # Ok::<(), quorate::tcp::TcpError>(())
/// ```
///
/// # Errors
///
/// [`TcpError::Peers`] for anything else, and when an id stands there twice.
pub fn parse_peers(text: &str) -> Result<BTreeMap<NodeId, String>, TcpError> {
    let wrong = || TcpError::Peers { peers: text.to_owned() };
    let mut peers = BTreeMap::new();
    for peer in text.split(',') {
        let (id, address) = peer.trim().split_once('=').ok_or_else(wrong)?;
        let id = id.parse().ok().and_then(NodeId::new).ok_or_else(wrong)?;
        if !is_address(address) || peers.insert(id, address.to_owned()).is_some() {
            return Err(wrong());
        }
    }
    Ok(peers)
}

/// Whether it is of the form `host:port`.
fn is_address(text: &str) -> bool {
    let port = text.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>()));
    matches!(port, Some((host, Ok(_))) if !host.is_empty())
}

impl Transport for TcpTransport {
    fn made_for(&self) -> MadeFor {
        let (id, cluster) = (Some(self.shared.id), Some(self.shared.cluster));
        MadeFor { id, cluster, inbox: Some(self.inbox.clone()) }
    }

    fn send(&mut self, message: Message) {
        let shared = &self.shared;
        let lane = match self.lanes.get_mut(&message.to) {
            Some(lane) => lane,
            None => {
                let Some(outbox) = shared.outboxes.lock().get(&message.to).cloned() else {
                    return;
                };
                self.lanes.entry(message.to).or_insert_with(|| Lane::new(outbox))
            }
        };
        lane.staged_bytes += message.bytes.len();
        lane.staged.push(message.bytes);
        let flush = lane.staged.len() >= STAGED_FRAMES || lane.staged_bytes >= STAGED_BYTES;
        if flush && !lane.flush(&shared.options) {
            self.lanes.remove(&message.to);
        }
    }

    fn flush(&mut self) {
        let options = &self.shared.options;
        self.lanes.retain(|_, lane| lane.staged.is_empty() || lane.flush(options));
    }
}

impl Drop for TcpTransport {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

/// Changes and shows the peers of a [`TcpTransport`] that a host has taken; cheap to clone.
#[derive(Clone, Debug)]
pub struct TcpHandle {
    shared: Arc<Shared>,
}

impl TcpHandle {
    /// Dials `peer` at `address` (`host:port`) until told otherwise.
    ///
    /// A host name is resolved anew at each attempt. For a peer that is known already this changes
    /// its address: the old connection is closed, and the new address dialed at once.
    ///
    /// # Errors
    ///
    /// [`TcpError::Address`], [`TcpError::Itself`], [`TcpError::TooManyPeers`],
    /// [`TcpError::Thread`], or [`TcpError::Closed`] when the transport was dropped.
    pub fn connect(&self, peer: NodeId, address: impl ToString) -> Result<(), TcpError> {
        self.shared.connect(peer, address.to_string())
    }

    /// Forgets `peer`: what waits for it is dropped. What it sends still arrives.
    pub fn disconnect(&self, peer: NodeId) {
        let outbox = self.shared.outboxes.lock().remove(&peer);
        if let Some(outbox) = outbox {
            outbox.close();
        }
    }

    /// Where the transport listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local_addr
    }

    /// What the transport did so far.
    pub fn status(&self) -> TcpStatus {
        let outboxes: Vec<_> = self.shared.outboxes.lock().values().cloned().collect();
        TcpStatus {
            peers: outboxes.iter().map(|outbox| outbox.status()).collect(),
            inbound: self.shared.registry.status(),
        }
    }
}

/// What the threads of one transport share.
#[derive(Debug)]
struct Shared {
    id: NodeId,
    cluster: ClusterId,
    local_addr: SocketAddr,
    options: TcpOptions,
    threads: Arc<Threads>,
    outboxes: Mutex<BTreeMap<NodeId, Arc<Outbox>>>,
    registry: Registry,
}

impl Shared {
    fn connect(self: &Arc<Self>, peer: NodeId, address: String) -> Result<(), TcpError> {
        if !is_address(&address) {
            return Err(TcpError::Address { address });
        }
        if peer == self.id {
            return Err(TcpError::Itself { id: peer });
        }
        let mut outboxes = self.outboxes.lock();
        // Under the lock: `stop` closes what is in the map after it has said so.
        if self.threads.is_stopping() {
            return Err(TcpError::Closed);
        }
        if let Some(outbox) = outboxes.get(&peer) {
            outbox.redirect(address);
            return Ok(());
        }
        let max = self.options.peers_max;
        if outboxes.len() >= max {
            return Err(TcpError::TooManyPeers { max });
        }
        let outbox = Arc::new(Outbox::new(peer, address));
        let (shared, queue) = (self.clone(), outbox.clone());
        let name = format!("quorate-out-{peer}");
        let started = self.threads.spawn(name, move || outbound::run(&shared, &queue));
        started.map_err(|source| TcpError::Thread { source })?;
        outboxes.insert(peer, outbox);
        Ok(())
    }

    /// Ends every thread; waits a little until they did.
    fn stop(&self) {
        self.threads.stop();
        for outbox in self.outboxes.lock().values() {
            outbox.close();
        }
        self.registry.close();
        // Nothing but a connection wakes a thread that accepts.
        let mut wake = self.local_addr;
        match wake.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => wake.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => wake.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        for _ in 0..STOP_ATTEMPTS {
            let _ = TcpStream::connect_timeout(&wake, STOP_WAIT);
            if self.threads.wait(STOP_WAIT) {
                return;
            }
        }
    }
}

/// Frames of one turn for one peer, queued together so that its thread wakes once.
#[derive(Debug)]
struct Lane {
    outbox: Arc<Outbox>,
    staged: Vec<Bytes>,
    staged_bytes: usize,
}

impl Lane {
    fn new(outbox: Arc<Outbox>) -> Self {
        Self { outbox, staged: Vec::new(), staged_bytes: 0 }
    }

    /// Hands over what is staged; `false` when the peer was forgotten.
    fn flush(&mut self, options: &TcpOptions) -> bool {
        self.staged_bytes = 0;
        self.outbox.offer(&mut self.staged, options)
    }
}

/// What a turn may stage for one peer before it is handed over early.
const STAGED_FRAMES: usize = 256;
const STAGED_BYTES: usize = 1 << 20;
/// How long, and how often, a drop waits for the threads.
const STOP_WAIT: Duration = Duration::from_millis(100);
const STOP_ATTEMPTS: usize = 3;
