//! What both directions need of a socket.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "this room is the transport on real sockets, with real deadlines"
)]

use std::{
    io::{self, Read},
    net::TcpStream,
    time::{Duration, Instant},
};

/// Reads all of `buffer` within `timeout`, however slowly the bytes trickle in.
///
/// # Errors
///
/// `TimedOut` at the deadline, `UnexpectedEof` at an early end, or what the system says.
pub(super) fn read_exact_within(
    mut stream: &TcpStream,
    buffer: &mut [u8],
    timeout: Duration,
) -> io::Result<()> {
    let deadline = Instant::now() + timeout;
    let mut filled = 0;
    while filled < buffer.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if is_timeout(&error) || error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether a read or write ended because of its timeout: systems name it differently.
pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Whether the system connected a socket to itself, as it may when nobody listens on a local port.
pub(super) fn is_looped(stream: &TcpStream) -> bool {
    matches!((stream.local_addr(), stream.peer_addr()), (Ok(a), Ok(b)) if a == b)
}
