//! The wires between members: each a small TCP proxy for one direction, to be cut or held.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    thread,
    time::Duration,
};

/// What a wire does with what one member sends to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wire {
    Open,
    /// Nothing arrives, and later all of it.
    Held,
    /// Connections end, and no new one is made.
    Cut,
}

/// The wire from one member to another.
pub(crate) struct Link {
    /// Where the sender dials.
    pub(crate) address: String,
    wire: Arc<AtomicU8>,
}

impl Link {
    pub(crate) fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let wire = Arc::new(AtomicU8::new(Wire::Open as u8));
        let (state, target) = (wire.clone(), target.to_owned());
        thread::spawn(move || {
            for dialed in listener.incoming().map_while(Result::ok) {
                if is(&state, Wire::Cut) {
                    continue;
                }
                // The receiver may be down; then the sender's connection ends, too.
                if let Ok(target) = TcpStream::connect(&target) {
                    join(&dialed, &target, &state);
                }
            }
        });
        Self { address, wire }
    }

    pub(crate) fn set(&self, wire: Wire) {
        self.wire.store(wire as u8, Ordering::SeqCst);
    }
}

fn is(state: &AtomicU8, wire: Wire) -> bool {
    state.load(Ordering::SeqCst) == wire as u8
}

/// What a member answers on the connection that it was dialed on goes back on the same wire.
fn join(one: &TcpStream, other: &TcpStream, state: &Arc<AtomicU8>) {
    for (from, to) in [(one, other), (other, one)] {
        let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else {
            return;
        };
        let state = Arc::clone(state);
        thread::spawn(move || carry(from, to, &state));
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, state: &AtomicU8) {
    let mut bytes = vec![0; 64 << 10];
    let _ = from.set_read_timeout(Some(GLANCE));
    let _ = to.set_nodelay(true);
    while !is(state, Wire::Cut) {
        if is(state, Wire::Held) {
            thread::sleep(GLANCE);
            continue;
        }
        let length = match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(length) => length,
            Err(it) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&it.kind()) => {
                continue;
            }
            Err(_) => break,
        };
        // What was read just before the wire was held waits, too.
        while is(state, Wire::Held) {
            thread::sleep(GLANCE);
        }
        if is(state, Wire::Cut) || to.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

const GLANCE: Duration = Duration::from_millis(5);
