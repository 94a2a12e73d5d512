//! Frames on their way to one peer: a bounded queue, and the thread that dials and writes.
//!
//! Invariant: what waits for a peer, and what is being written to it, stays within the options'
//! bounds; a peer that is slow or away costs its own queue and thread, and nobody else's.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "this room is the transport on real sockets, with real deadlines"
)]

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::{Shutdown, TcpStream, ToSocketAddrs},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use slog::{debug, info};
use thiserror::Error;

use super::{
    Shared,
    frames::FrameBatch,
    hello::{Hello, TcpRefusal, WELCOME_BYTES, Welcome},
    options::TcpOptions,
    socket::{is_looped, is_timeout, read_exact_within},
    status::PeerStatus,
};
use crate::id::NodeId;

/// The queue of one peer.
#[derive(Debug)]
pub(super) struct Outbox {
    peer: NodeId,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Bytes>,
    /// While the thread pauses between attempts, frames are dropped: they would be stale.
    pausing: bool,
    closed: bool,
    /// The address was changed: dial it at once.
    hurry: bool,
    socket: Option<Arc<TcpStream>>,
    /// `queued_*` include what is being written.
    status: PeerStatus,
}

impl Outbox {
    pub(super) fn new(peer: NodeId, address: String) -> Self {
        Self {
            peer,
            state: Mutex::new(State {
                queue: VecDeque::new(),
                pausing: false,
                closed: false,
                hurry: false,
                socket: None,
                status: PeerStatus::new(peer, address),
            }),
            changed: Condvar::new(),
        }
    }

    /// Queues `frames` as far as there is room, and empties it. Returns `false` once closed.
    pub(super) fn offer(&self, frames: &mut Vec<Bytes>, options: &TcpOptions) -> bool {
        let mut locked = self.state.lock();
        let state = &mut *locked;
        for frame in frames.drain(..) {
            let bytes = frame.len();
            let status = &mut state.status;
            let room = status.queued_frames < options.queue_count_max
                && status.queued_bytes + bytes <= options.queue_bytes_max;
            if bytes > options.frame_bytes_max || bytes == 0 {
                status.dropped_oversize += 1;
            } else if state.pausing || state.closed {
                status.dropped_unreachable += 1;
            } else if !room && status.queued_frames > 0 {
                status.dropped_full += 1;
            } else {
                status.queued_frames += 1;
                status.queued_bytes += bytes;
                state.queue.push_back(frame);
            }
        }
        let closed = state.closed;
        drop(locked);
        self.changed.notify_one();
        !closed
    }

    /// Dials another address from now on.
    pub(super) fn redirect(&self, address: String) {
        let mut state = self.state.lock();
        if state.status.address == address {
            return;
        }
        state.status.address = address;
        state.hurry = true;
        if let Some(socket) = &state.socket {
            let _ = socket.shutdown(Shutdown::Both);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Drops what waits, and ends the thread.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.drop_queue();
        if let Some(socket) = state.socket.take() {
            let _ = socket.shutdown(Shutdown::Both);
        }
        drop(state);
        self.changed.notify_one();
    }

    pub(super) fn status(&self) -> PeerStatus {
        self.state.lock().status.clone()
    }

    /// The address to dial, or `None` when closed.
    fn begin(&self) -> Option<String> {
        let mut state = self.state.lock();
        state.pausing = false;
        state.hurry = false;
        (!state.closed).then(|| state.status.address.clone())
    }

    /// Makes the socket known, so that whoever closes the queue can close it.
    fn hold(&self, socket: Arc<TcpStream>) -> bool {
        let mut state = self.state.lock();
        if state.closed || state.hurry {
            return false;
        }
        state.socket = Some(socket);
        true
    }

    fn connected(&self) {
        let mut state = self.state.lock();
        state.status.connected = true;
        state.status.connections += 1;
    }

    fn failed(&self, fault: &DialFault) {
        let mut state = self.state.lock();
        state.socket = None;
        state.status.connected = false;
        state.status.failures += 1;
        state.status.last_failure = Some(fault.to_string());
        state.drop_queue();
    }

    /// Waits before the next attempt; `false` when closed.
    fn pause(&self, pause: Duration) -> bool {
        let deadline = Instant::now() + pause;
        let mut state = self.state.lock();
        state.pausing = true;
        while !state.closed && !state.hurry {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        !state.closed
    }

    /// Moves frames into `batch`, waiting for the first one until `deadline`; `false` when the
    /// connection is no longer wanted.
    fn take(&self, batch: &mut FrameBatch, deadline: Instant) -> bool {
        let mut state = self.state.lock();
        while state.queue.is_empty() && !state.closed && !state.hurry {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        while !batch.is_full() {
            let Some(frame) = state.queue.pop_front() else {
                break;
            };
            batch.push(frame);
        }
        !state.closed && !state.hurry
    }

    fn written(&self, frames: usize, bytes: usize) {
        let mut state = self.state.lock();
        let status = &mut state.status;
        status.sent_frames += frames as u64;
        status.sent_bytes += bytes as u64;
        // Closing may have emptied the counts meanwhile.
        status.queued_frames = status.queued_frames.saturating_sub(frames);
        status.queued_bytes = status.queued_bytes.saturating_sub(bytes);
    }
}

impl State {
    fn drop_queue(&mut self) {
        self.status.dropped_unreachable += self.status.queued_frames as u64;
        self.status.queued_frames = 0;
        self.status.queued_bytes = 0;
        self.queue = VecDeque::new();
    }
}

/// Dials and writes until the queue is closed.
pub(super) fn run(shared: &Shared, outbox: &Outbox) {
    let options = &shared.options;
    let mut attempt = 0;
    while let Some(address) = outbox.begin() {
        let started = Instant::now();
        let fault = match dial(shared, outbox, &address) {
            Ok(stream) => {
                outbox.connected();
                info!(options.logger, "connected"; "peer" => %outbox.peer, "address" => &address);
                pump(options, outbox, &stream)
            }
            Err(fault) => fault,
        };
        outbox.failed(&fault);
        // A connection that lived was a good one, whoever ended it.
        if started.elapsed() > options.backoff_max + options.connect_timeout {
            attempt = 0;
        }
        let pause = backoff(options, shared.id, outbox.peer, attempt);
        debug!(options.logger, "not connected"; "peer" => %outbox.peer, "address" => &address,
            "fault" => %fault, "attempt" => attempt, "pause_ms" => pause.as_millis() as u64);
        attempt += 1;
        if !outbox.pause(pause) {
            return;
        }
    }
}

fn dial(shared: &Shared, outbox: &Outbox, address: &str) -> Result<Arc<TcpStream>, DialFault> {
    let options = &shared.options;
    let stream = Arc::new(shared.threads.dialing(|| connect(options, address))?);
    if is_looped(&stream) {
        return Err(DialFault::Looped);
    }
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(options.silence_max))?;
    if !outbox.hold(stream.clone()) {
        return Err(DialFault::Closed);
    }
    let hello = Hello { cluster: shared.cluster, from: shared.id, to: outbox.peer };
    (&*stream).write_all(&hello.encode())?;
    let mut answer = [0; WELCOME_BYTES];
    read_exact_within(&stream, &mut answer, options.handshake_timeout)?;
    let welcome = Welcome::decode(&answer).map_err(DialFault::Answer)?;
    welcome.verdict.map_err(DialFault::Refused)?;
    if welcome.from != outbox.peer {
        return Err(DialFault::OtherMember { id: welcome.from });
    }
    stream.set_read_timeout(Some(SIGN_TIMEOUT))?;
    Ok(stream)
}

/// Resolves the name anew, and tries what it stands for, one after the other.
fn connect(options: &TcpOptions, address: &str) -> Result<TcpStream, DialFault> {
    let found = address.to_socket_addrs();
    let mut fault = DialFault::NoAddress;
    for address in found.map_err(DialFault::Resolve)?.take(ADDRESSES_MAX) {
        match TcpStream::connect_timeout(&address, options.connect_timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => fault = DialFault::Io(error),
        }
    }
    Err(fault)
}

/// Writes what is queued until the connection ends, and says why it did.
fn pump(options: &TcpOptions, outbox: &Outbox, stream: &TcpStream) -> DialFault {
    let mut batch = FrameBatch::default();
    let mut probed = Instant::now();
    let mut sign = probed;
    loop {
        if !outbox.take(&mut batch, probed + options.probe_interval) {
            return DialFault::Closed;
        }
        let (frames, bytes) = (batch.count(), batch.bytes());
        let now = Instant::now();
        if now >= probed + options.probe_interval {
            match has_sign(stream) {
                Ok(true) => sign = now,
                Ok(false) if now.duration_since(sign) > options.silence_max => {
                    return DialFault::Silent;
                }
                Ok(false) => {}
                Err(error) => return DialFault::Io(error),
            }
            batch.push(Bytes::new());
            probed = now;
        }
        if batch.is_empty() {
            continue;
        }
        if let Err(error) = batch.write_to(&mut { stream }) {
            return DialFault::Io(error);
        }
        outbox.written(frames, bytes);
        batch.clear();
    }
}

/// Whether the peer answered a probe since the last time.
fn has_sign(mut stream: &TcpStream) -> io::Result<bool> {
    match stream.read(&mut [0; 64]) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => Ok(true),
        Err(error) if is_timeout(&error) || error.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(error) => Err(error),
    }
}

/// From half to all of a pause that doubles up to its limit; two members never keep in step.
fn backoff(options: &TcpOptions, id: NodeId, peer: NodeId, attempt: u32) -> Duration {
    let doubled = options.backoff_min.saturating_mul(1 << attempt.min(20));
    let whole = doubled.min(options.backoff_max);
    let mut seed = [0; 20];
    seed[..8].copy_from_slice(&id.as_u64().to_le_bytes());
    seed[8..16].copy_from_slice(&peer.as_u64().to_le_bytes());
    seed[16..].copy_from_slice(&attempt.to_le_bytes());
    let draw = crc32c::crc32c(&seed) % 1_024;
    whole / 2 + whole / 2 * draw / 1_024
}

/// Why there is no connection to a peer.
#[derive(Debug, Error)]
enum DialFault {
    #[error("the address cannot be resolved: {0}")]
    Resolve(#[source] io::Error),
    #[error("the name stands for no address")]
    NoAddress,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("nobody listens there, and the system connected the socket to itself")]
    Looped,
    #[error("the answer is not right: {0}")]
    Answer(#[source] TcpRefusal),
    #[error("the peer refuses: {0}")]
    Refused(#[source] TcpRefusal),
    #[error("node {id} answers there")]
    OtherMember { id: NodeId },
    #[error("the peer gave no sign of life")]
    Silent,
    #[error("the connection is no longer wanted")]
    Closed,
}

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;
/// How long a look at the answered probes may take.
const SIGN_TIMEOUT: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_within_its_bounds_and_differs() {
        let options = TcpOptions::default();
        let ids = [1, 2, 3].map(|id| NodeId::new(id).expect("ids are not 0"));
        for attempt in 0..100 {
            let pause = backoff(&options, ids[0], ids[1], attempt);
            let whole = (options.backoff_min * (1 << attempt.min(10))).min(options.backoff_max);
            assert!(pause >= whole / 2 && pause <= whole, "{attempt}: {pause:?}");
        }
        let pauses = |from, to| (0..8).map(move |at| backoff(&options, from, to, at));
        let here: Vec<_> = pauses.clone()(ids[0], ids[1]).collect();
        let there: Vec<_> = pauses(ids[2], ids[1]).collect();
        assert_ne!(here, there);
    }
}
