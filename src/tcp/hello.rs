//! The first bytes of a connection: who dials whom, and the answer.
//!
//! A pure codec of fixed size. It knows no socket.
//!
//! ```text
//! hello    0 4 magic "QRTH"  4 2 version  6 2 zero  8 16 cluster  24 8 from  32 8 to
//!         40 4 CRC32C of bytes 0..40
//! welcome  0 4 magic "QRTW"  4 2 version  6 2 code (0: go on)     8 8 who answers
//!         16 4 CRC32C of bytes 0..16                     all numbers little-endian
//! ```

use std::fmt;

use bytes::{Buf, BufMut};
use thiserror::Error;

use crate::id::{ClusterId, NodeId};

/// What the dialing side says first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hello {
    pub(super) cluster: ClusterId,
    pub(super) from: NodeId,
    pub(super) to: NodeId,
}

impl Hello {
    pub(super) fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        let mut out = &mut bytes[..];
        out.put_slice(HELLO_MAGIC);
        out.put_u16_le(STREAM_VERSION);
        out.put_u16_le(0);
        out.put_slice(self.cluster.as_bytes());
        out.put_u64_le(self.from.as_u64());
        out.put_u64_le(self.to.as_u64());
        seal(&mut bytes);
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HELLO_BYTES]) -> Result<Self, TcpRefusal> {
        let mut rest = open(bytes, HELLO_MAGIC)?;
        rest.advance(2);
        let mut cluster = [0; 16];
        rest.copy_to_slice(&mut cluster);
        let from = NodeId::new(rest.get_u64_le()).ok_or(TcpRefusal::Garbage)?;
        let to = NodeId::new(rest.get_u64_le()).ok_or(TcpRefusal::Garbage)?;
        Ok(Self { cluster: ClusterId::from_bytes(cluster), from, to })
    }

    /// Whether the member `id` of `cluster` listens to this.
    pub(super) fn check(&self, cluster: ClusterId, id: NodeId) -> Result<(), TcpRefusal> {
        if self.cluster != cluster {
            return Err(TcpRefusal::OtherCluster);
        }
        if self.to != id {
            return Err(TcpRefusal::OtherReceiver);
        }
        if self.from == id {
            return Err(TcpRefusal::Itself);
        }
        Ok(())
    }
}

/// What the listening side answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Welcome {
    pub(super) from: NodeId,
    pub(super) verdict: Result<(), TcpRefusal>,
}

impl Welcome {
    pub(super) fn encode(&self) -> [u8; WELCOME_BYTES] {
        let mut bytes = [0; WELCOME_BYTES];
        let mut out = &mut bytes[..];
        out.put_slice(WELCOME_MAGIC);
        out.put_u16_le(STREAM_VERSION);
        out.put_u16_le(self.verdict.err().map_or(0, TcpRefusal::code));
        out.put_u64_le(self.from.as_u64());
        seal(&mut bytes);
        bytes
    }

    pub(super) fn decode(bytes: &[u8; WELCOME_BYTES]) -> Result<Self, TcpRefusal> {
        let mut rest = open(bytes, WELCOME_MAGIC)?;
        let verdict = match rest.get_u16_le() {
            0 => Ok(()),
            code => Err(TcpRefusal::from_code(code)),
        };
        let from = NodeId::new(rest.get_u64_le()).ok_or(TcpRefusal::Garbage)?;
        Ok(Self { from, verdict })
    }
}

/// Why a connection is closed before its first frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Error)]
#[non_exhaustive]
pub enum TcpRefusal {
    /// The first bytes are not those of a member of any cluster.
    #[error("the first bytes are not a member's hello")]
    Garbage,
    /// The other side speaks another version of the protocol.
    #[error("the other side speaks another version of the stream protocol")]
    Version,
    /// The hello's checksum does not match.
    #[error("the hello's checksum does not match")]
    Checksum,
    /// The other side belongs to another cluster.
    #[error("the other side belongs to another cluster")]
    OtherCluster,
    /// The connection was meant for another member: an address is out of date.
    #[error("the connection was meant for another member")]
    OtherReceiver,
    /// The sender has the receiver's own id: an address points back, or an id is used twice.
    #[error("the sender has the receiver's own id")]
    Itself,
    /// No whole hello came before the deadline.
    #[error("no whole hello came before the deadline")]
    Late,
    /// As many connections as allowed are open.
    #[error("as many connections as allowed are open")]
    Full,
}

impl TcpRefusal {
    fn code(self) -> u16 {
        match self {
            Self::Garbage => 1,
            Self::Version => 2,
            Self::Checksum => 3,
            Self::OtherCluster => 4,
            Self::OtherReceiver => 5,
            Self::Itself => 6,
            Self::Late => 7,
            Self::Full => 8,
        }
    }

    fn from_code(code: u16) -> Self {
        match code {
            2 => Self::Version,
            3 => Self::Checksum,
            4 => Self::OtherCluster,
            5 => Self::OtherReceiver,
            6 => Self::Itself,
            7 => Self::Late,
            8 => Self::Full,
            _ => Self::Garbage,
        }
    }
}

impl fmt::Display for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from {} to {} of {}", self.from, self.to, self.cluster)
    }
}

/// Writes the checksum of everything before it into the last four bytes.
fn seal(bytes: &mut [u8]) {
    let (head, tail) = bytes.split_at_mut(bytes.len() - 4);
    tail.copy_from_slice(&crc32c::crc32c(head).to_le_bytes());
}

/// The bytes after the version, once magic, version and checksum are right.
fn open<'a>(bytes: &'a [u8], magic: &[u8; 4]) -> Result<&'a [u8], TcpRefusal> {
    let (head, tail) = bytes.split_at(bytes.len() - 4);
    if head[..4] != magic[..] {
        return Err(TcpRefusal::Garbage);
    }
    if head[4..6] != STREAM_VERSION.to_le_bytes() {
        return Err(TcpRefusal::Version);
    }
    if crc32c::crc32c(head).to_le_bytes() != tail {
        return Err(TcpRefusal::Checksum);
    }
    Ok(&head[6..])
}

pub(super) const HELLO_BYTES: usize = 44;
pub(super) const WELCOME_BYTES: usize = 20;
/// The version of the stream protocol: hello, welcome, prefixes, probes.
const STREAM_VERSION: u16 = 1;
const HELLO_MAGIC: &[u8; 4] = b"QRTH";
const WELCOME_MAGIC: &[u8; 4] = b"QRTW";

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64) -> NodeId {
        NodeId::new(id).expect("tests use small ids")
    }

    fn hello() -> Hello {
        Hello { cluster: ClusterId::named("a"), from: node(1), to: node(2) }
    }

    #[test]
    fn round_trips() {
        assert_eq!(Hello::decode(&hello().encode()), Ok(hello()));
        for verdict in [Ok(()), Err(TcpRefusal::OtherCluster), Err(TcpRefusal::Full)] {
            let welcome = Welcome { from: node(9), verdict };
            assert_eq!(Welcome::decode(&welcome.encode()), Ok(welcome));
        }
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let good = hello().encode();
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Hello::decode(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn says_whom_it_listens_to() {
        let cluster = ClusterId::named("a");
        assert_eq!(hello().check(cluster, node(2)), Ok(()));
        let other = ClusterId::named("b");
        assert_eq!(hello().check(other, node(2)), Err(TcpRefusal::OtherCluster));
        assert_eq!(hello().check(cluster, node(3)), Err(TcpRefusal::OtherReceiver));
        let echo = Hello { from: node(2), ..hello() };
        assert_eq!(echo.check(cluster, node(2)), Err(TcpRefusal::Itself));
    }

    #[test]
    fn codes_are_their_own() {
        for code in 1..=8 {
            assert_eq!(TcpRefusal::from_code(code).code(), code);
        }
    }
}
