//! A connection with its socket, and what is counted of it.

use std::{
    io::{self, Read as _},
    mem,
    net::{Shutdown, SocketAddr},
    time::Duration,
};

use mio::net::TcpStream;

use crate::zookeeper::{connection::Connection, traffic::Traffic};

pub(super) struct Line {
    pub(super) socket: TcpStream,
    pub(super) connection: Connection,
    pub(super) peer: SocketAddr,
    /// Of the wall clock.
    pub(super) since_ms: u64,
    /// Since it was opened, or set back.
    pub(super) traffic: Traffic,
    /// There may be more to read.
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The peer has said its last, or the socket has failed: to be read up to there.
    pub(super) ends: bool,
    /// It is among those that are touched.
    pub(super) touched: bool,
    /// Nothing more is sent; until then the client may close its side.
    pub(super) lingers: Option<Duration>,
}

impl Line {
    /// Puts it among those that have something to do.
    pub(super) fn touch(&mut self, id: u64, touched: &mut Vec<u64>) {
        if !mem::replace(&mut self.touched, true) {
            touched.push(id);
        }
    }

    /// All has been sent: says so, and goes on reading for a while. To close a socket with bytes
    /// that were not read would take back what the client has not read yet.
    pub(super) fn linger(&mut self, now: Duration) {
        if self.lingers.is_none() {
            self.lingers = Some(now + LINGER_MAX);
            let _ = self.socket.shutdown(Shutdown::Write);
        }
    }

    /// Reads what is of no interest any more. Returns whether the client may be sending yet.
    pub(super) fn pass_over(&mut self, buffer: &mut [u8], now: Duration) -> bool {
        for _ in 0..PASSED_OVER_MAX {
            match self.socket.read(buffer) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    return self.lingers.is_some_and(|until| now < until);
                }
                Err(_) => return false,
            }
        }
        self.lingers.is_some_and(|until| now < until)
    }
}

/// How long a client may take to close its side.
const LINGER_MAX: Duration = Duration::from_secs(1);
/// Buffers that are read in a round from who is to say nothing more.
const PASSED_OVER_MAX: usize = 4;
