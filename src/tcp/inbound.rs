//! Frames that others send: the listener, and one thread for each connection.
//!
//! Invariants: a connection costs nothing but its slot until it has said a whole, right hello in
//! time; slots are bounded; a member has one connection at most, the newest.
#![expect(clippy::disallowed_types, reason = "this room is the transport on real sockets")]

use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use slog::{info, warn};

use super::{
    Shared,
    frames::{FrameReader, StreamFault},
    hello::{HELLO_BYTES, Hello, TcpRefusal, Welcome},
    socket::{is_timeout, read_exact_within},
    status::InboundStatus,
};
use crate::{driver::Inbox, id::NodeId};

/// Who is connected, and what came.
#[derive(Debug, Default)]
pub(super) struct Registry {
    state: Mutex<State>,
    received_frames: AtomicU64,
    received_bytes: AtomicU64,
    undelivered_frames: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    next: u64,
    /// By serial number: the first is the oldest.
    handshakes: BTreeMap<u64, Arc<TcpStream>>,
    members: BTreeMap<NodeId, (u64, Arc<TcpStream>)>,
    status: InboundStatus,
}

impl Registry {
    /// Gives a new connection a slot, if need be that of the oldest that is still silent.
    fn admit(&self, stream: &Arc<TcpStream>, handshakes_max: usize) -> Option<u64> {
        let mut state = self.state.lock();
        if state.closed {
            return None;
        }
        state.status.accepted += 1;
        if state.handshakes.len() >= handshakes_max {
            if let Some((_, oldest)) = state.handshakes.pop_first() {
                let _ = oldest.shutdown(Shutdown::Both);
                *state.status.refused.entry(TcpRefusal::Full).or_default() += 1;
            }
        }
        let serial = state.next;
        state.next += 1;
        state.handshakes.insert(serial, stream.clone());
        Some(serial)
    }

    /// Makes a connection that of member `from`, in place of its older one.
    fn establish(&self, serial: u64, from: NodeId, max: usize) -> Result<(), TcpRefusal> {
        let mut state = self.state.lock();
        let full = state.members.len() >= max && !state.members.contains_key(&from);
        if full {
            return Err(TcpRefusal::Full);
        }
        // Whoever lost its slot meanwhile is closed already, and counted.
        let Some(stream) = state.handshakes.remove(&serial) else {
            return Ok(());
        };
        if let Some((_, older)) = state.members.insert(from, (serial, stream)) {
            let _ = older.shutdown(Shutdown::Both);
        }
        Ok(())
    }

    /// Frees the slot of a refused connection; returns how many there were of this kind.
    fn refuse(&self, serial: u64, refusal: TcpRefusal) -> u64 {
        let mut state = self.state.lock();
        if state.handshakes.remove(&serial).is_none() {
            return 0;
        }
        let count = state.status.refused.entry(refusal).or_default();
        *count += 1;
        *count
    }

    fn leave(&self, serial: u64, from: NodeId, end: &End) {
        let mut state = self.state.lock();
        match end {
            End::Fault(_) => state.status.damaged += 1,
            End::Silent => state.status.silent += 1,
            End::Closed | End::Io(_) => {}
        }
        if matches!(state.members.get(&from), Some((newest, _)) if *newest == serial) {
            state.members.remove(&from);
        }
    }

    /// Closes every connection, and those to come.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let handshakes = std::mem::take(&mut state.handshakes).into_values();
        let members = std::mem::take(&mut state.members).into_values();
        for stream in handshakes.chain(members.map(|(_, stream)| stream)) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub(super) fn status(&self) -> InboundStatus {
        let state = self.state.lock();
        InboundStatus {
            members: state.members.keys().copied().collect(),
            received_frames: self.received_frames.load(Ordering::Relaxed),
            received_bytes: self.received_bytes.load(Ordering::Relaxed),
            undelivered_frames: self.undelivered_frames.load(Ordering::Relaxed),
            ..state.status.clone()
        }
    }
}

/// Accepts until the transport stops.
pub(super) fn accept(shared: &Arc<Shared>, listener: &TcpListener, inbox: &Inbox) {
    loop {
        let accepted = listener.accept();
        if shared.threads.is_stopping() {
            return;
        }
        let admitted = accepted.and_then(|(stream, address)| start(shared, stream, address, inbox));
        if let Err(error) = admitted {
            // Out of descriptors or threads: others may give some back.
            let count = {
                let mut state = shared.registry.state.lock();
                state.status.accept_failures += 1;
                state.status.accept_failures
            };
            if count.is_power_of_two() {
                warn!(shared.options.logger, "cannot accept"; "error" => %error, "count" => count);
            }
            shared.threads.pause(ACCEPT_PAUSE);
        }
    }
}

fn start(
    shared: &Arc<Shared>,
    stream: TcpStream,
    address: SocketAddr,
    inbox: &Inbox,
) -> io::Result<()> {
    let stream = Arc::new(stream);
    let Some(serial) = shared.registry.admit(&stream, shared.options.handshakes_max) else {
        return Ok(());
    };
    let name = format!("quorate-in-{}", shared.id);
    let (thread_shared, inbox) = (shared.clone(), inbox.clone());
    let started = shared.threads.spawn(name, move || {
        serve(&thread_shared, &stream, serial, address, &inbox);
    });
    if started.is_err() {
        shared.registry.state.lock().handshakes.remove(&serial);
    }
    started
}

fn serve(shared: &Shared, stream: &TcpStream, serial: u64, address: SocketAddr, inbox: &Inbox) {
    let (options, registry) = (&shared.options, &shared.registry);
    let opened = greet(shared, stream).and_then(|from| {
        registry.establish(serial, from, options.connections_max)?;
        Ok(from)
    });
    let welcome = Welcome { from: shared.id, verdict: opened.map(|_| ()) };
    // Strangers get no answer; whoever speaks the protocol learns the reason.
    if opened != Err(TcpRefusal::Garbage) && opened != Err(TcpRefusal::Late) {
        let _ = { stream }.write_all(&welcome.encode());
    }
    let from = match opened {
        Ok(from) => from,
        Err(refusal) => {
            let count = registry.refuse(serial, refusal);
            if count.is_power_of_two() {
                warn!(options.logger, "connection refused"; "address" => %address,
                    "reason" => %refusal, "count" => count);
            }
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
    };
    info!(options.logger, "member connected"; "member" => %from, "address" => %address);
    let end = receive(shared, stream, from, inbox);
    let _ = stream.shutdown(Shutdown::Both);
    registry.leave(serial, from, &end);
    info!(options.logger, "member's connection ended"; "member" => %from,
        "address" => %address, "end" => ?end);
}

/// Reads and checks the hello; who it is from.
fn greet(shared: &Shared, stream: &TcpStream) -> Result<NodeId, TcpRefusal> {
    let options = &shared.options;
    let set = stream.set_nodelay(true);
    let set = set.and_then(|()| stream.set_write_timeout(Some(options.handshake_timeout)));
    let mut bytes = [0; HELLO_BYTES];
    set.and_then(|()| read_exact_within(stream, &mut bytes, options.handshake_timeout))
        .map_err(|_| TcpRefusal::Late)?;
    let hello = Hello::decode(&bytes)?;
    hello.check(shared.cluster, shared.id)?;
    Ok(hello.from)
}

/// Hands over frames until the connection ends.
fn receive(shared: &Shared, mut stream: &TcpStream, from: NodeId, inbox: &Inbox) -> End {
    let (options, registry) = (&shared.options, &shared.registry);
    if let Err(error) = stream.set_read_timeout(Some(options.silence_max)) {
        return End::Io(error);
    }
    let mut reader = FrameReader::new(options.frame_bytes_max);
    loop {
        match reader.fill(&mut stream) {
            Ok(0) => return End::Closed,
            Ok(_) => {}
            Err(error) if is_timeout(&error) => return End::Silent,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return End::Io(error),
        }
        let (mut frames, mut bytes, mut undelivered) = (0, 0, 0);
        let ended = loop {
            let frame = match reader.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break None,
                Err(fault) => break Some(End::Fault(fault)),
            };
            if frame.is_empty() {
                if let Err(error) = stream.write_all(&[SIGN]) {
                    break Some(End::Io(error));
                }
                continue;
            }
            frames += 1;
            bytes += frame.len() as u64;
            undelivered += u64::from(!inbox.deliver(from, frame));
        };
        registry.received_frames.fetch_add(frames, Ordering::Relaxed);
        registry.received_bytes.fetch_add(bytes, Ordering::Relaxed);
        let undelivered_frames = &registry.undelivered_frames;
        undelivered_frames.fetch_add(undelivered, Ordering::Relaxed);
        if let Some(end) = ended {
            return end;
        }
    }
}

/// How a member's connection ended.
#[derive(Debug)]
#[expect(dead_code, reason = "the fields are for the log, which shows them with Debug")]
enum End {
    Closed,
    Silent,
    Fault(StreamFault),
    Io(io::Error),
}

/// The answer to a probe.
const SIGN: u8 = 1;
/// How long to wait before accepting again when the system cannot.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
