//! Packets of ZooKeeper's clients and servers: the codec, and what reading them allocates.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::readers::{Reader, Reading};
#[cfg(any(test, fuzzing))]
use crate::zookeeper::{ConnectResponse, ReplyHeader, Response, samples::responses};
use crate::{
    client::{Error, GuestAnswer},
    id::{Lineage, Secret, SessionId},
    node::Attachment,
    zookeeper::{
        ConnectRequest, Connection, ConnectionOptions, OpCode, Request, Watches, samples::requests,
    },
};

/// What is read is written alike again, whichever packet the bytes are taken for.
#[cfg(any(test, fuzzing))]
pub(super) fn round_trips(data: &[u8]) {
    let mut again = Vec::new();
    if let Ok((xid, request)) = Request::decode(data) {
        request.encode(xid, &mut again);
        assert_eq!(Request::decode(&again), Ok((xid, request)));
    }
    if let Ok(request) = ConnectRequest::decode(data) {
        again.clear();
        request.encode(&mut again);
        assert_eq!(ConnectRequest::decode(&again), Ok(request));
    }
    if let Ok(response) = ConnectResponse::decode(data) {
        again.clear();
        response.encode(&mut again);
        assert_eq!(ConnectResponse::decode(&again), Ok(response));
    }
    let Some((&kind, packet)) = data.split_first() else {
        return;
    };
    // One more is that of an event.
    let op = OpCode::ALL.get(usize::from(kind) % (OpCode::ALL.len() + 1)).copied();
    if let Ok((header, response)) = Response::decode(op, packet) {
        again.clear();
        response.encode(&header, &mut again);
        assert_eq!(Response::decode(op, &again), Ok((header, response)));
    }
}

/// Packets of clients without their length; and of servers, behind a byte for their kind.
#[cfg(any(test, fuzzing))]
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = request_seeds();
    for (op, response) in responses() {
        let kind = OpCode::ALL.iter().position(|it| *it == op).unwrap_or_default();
        let header = ReplyHeader { xid: 7, zxid: 8, err: 0 };
        let mut seed = vec![u8::try_from(kind).unwrap_or_default()];
        response.encode(&header, &mut seed);
        seeds.push(seed);
    }
    seeds
}

fn request_seeds() -> Vec<Vec<u8>> {
    let seed = |request: Request<'_>| {
        let mut seed = Vec::new();
        request.encode(7, &mut seed);
        seed
    };
    requests().into_iter().map(seed).collect()
}

/// Reads packets of clients.
pub(super) const REQUEST: Reader = Reader {
    name: "request",
    target: "zookeeper",
    times: 4,
    seeds: request_seeds,
    read: request,
    dense: dense_requests,
};

/// Reads what clients send, and keeps it: the node never answers.
pub(super) const CONNECTION: Reader = Reader {
    name: "connection",
    target: "zookeeper",
    times: 5,
    seeds: request_seeds,
    read: connection,
    dense: dense_connections,
};

fn request(data: &[u8]) -> Reading {
    let packet = data.to_vec();
    Reading::new(packet.len(), move || drop(Request::decode(&packet)))
}

fn dense_requests(bytes: usize) -> Vec<Reading> {
    packets(bytes).iter().map(|packet| request(packet)).collect()
}

/// Packets of about so many bytes, but no more than a packet may have: parts of a multi, lists of
/// rights, and paths, as short as they can be.
fn packets(bytes: usize) -> Vec<Vec<u8>> {
    let bytes = bytes.min(ConnectionOptions::default().packet_bytes_max);
    let many = |head: &[u8], each: &[u8], tail: &[u8]| {
        let count = (bytes.saturating_sub(head.len() + tail.len()) / each.len()).max(1);
        (count, [head, &each.repeat(count), tail].concat())
    };
    let header = |op: OpCode| [&7_i32.to_be_bytes()[..], &op.number().to_be_bytes()].concat();
    let delete = [&part(OpCode::Delete)[..], b"\0\0\0\x01/\xff\xff\xff\xff"].concat();
    let end = b"\xff\xff\xff\xff\x01\xff\xff\xff\xff";
    let (_, multi) = many(&header(OpCode::Multi), &delete, end);
    let get = [&part(OpCode::GetData)[..], b"\0\0\0\x01/\0"].concat();
    let (_, reads) = many(&header(OpCode::MultiRead), &get, end);
    let counted = |op: OpCode, before: &[u8], each: &[u8], tail: &[u8]| {
        let head = [&header(op)[..], before, &[0; 4]].concat();
        let (count, mut packet) = many(&head, each, tail);
        let count = i32::try_from(count).unwrap_or(i32::MAX).to_be_bytes();
        packet[head.len() - 4..head.len()].copy_from_slice(&count);
        packet
    };
    let acl = counted(OpCode::SetAcl, b"\0\0\0\x01/", &[0; 12], &[0; 4]);
    let watches = counted(OpCode::SetWatches, &[0; 8], b"\0\0\0\x01/", &[0; 8]);
    vec![multi, reads, acl, watches]
}

/// The header of a part of a multi.
fn part(op: OpCode) -> Vec<u8> {
    [&op.number().to_be_bytes()[..], b"\0\xff\xff\xff\xff"].concat()
}

/// The packet, as often as there is room for a few.
fn connection(data: &[u8]) -> Reading {
    read_stream(&framed(data).repeat(3))
}

fn dense_connections(bytes: usize) -> Vec<Reading> {
    let mut streams: Vec<Vec<u8>> = packets(bytes).iter().map(|it| framed(it)).collect();
    let short = [OpCode::Ping, OpCode::WhoAmI, OpCode::Sync, OpCode::Exists].map(|op| {
        let packet = [&[0; 4][..], &op.number().to_be_bytes(), b"\0\0\0\x01/\0"].concat();
        let packet = framed(&packet);
        packet.repeat((bytes / packet.len()).max(1))
    });
    streams.extend(short);
    streams.iter().map(|stream| read_stream(stream)).collect()
}

/// What comes after a session is opened, in pieces of a socket's buffer.
fn read_stream(stream: &[u8]) -> Reading {
    let stream = stream.to_vec();
    Reading::new(stream.len(), move || {
        let (mut connection, mut watches) = serving();
        let mut asks = Vec::new();
        for piece in stream.chunks(64 << 10) {
            if connection.wants_input() {
                connection.receive(piece, &mut watches, Duration::ZERO);
                connection.take_asks(|ask| asks.push(ask));
            }
        }
    })
}

/// A connection that has a session.
fn serving() -> (Connection, Watches) {
    let (options, peer) = (Arc::new(ConnectionOptions::default()), IpAddr::from([127, 0, 0, 1]));
    let secret = Secret::from_bytes([7; 16]);
    let mut connection = Connection::new(options, (2, peer), secret, Duration::ZERO);
    let mut watches = Watches::default();
    let mut packet = Vec::new();
    hello(0, &[0; 16]).encode(&mut packet);
    connection.receive(&framed(&packet), &mut watches, Duration::ZERO);
    connection.take_asks(drop);
    let session = SessionId::new(1).ok_or(Error::Taken);
    let (ttl, until, lineage) = (Duration::from_secs(9), Duration::ZERO, Lineage::NONE);
    let attached = |session| Attachment { session, epoch: 1, ttl, until, last_seq: 0, lineage };
    let answer = GuestAnswer::Session(session.map(attached));
    connection.answer(answer, &mut watches, Duration::ZERO);
    (connection, watches)
}

/// The first packet of a client.
pub(super) fn hello(session: i64, password: &[u8]) -> ConnectRequest<'_> {
    let (protocol_version, last_zxid_seen, timeout) = (0, 0, 9_000);
    let (password, read_only) = (Some(password), Some(false));
    ConnectRequest { protocol_version, last_zxid_seen, timeout, session, password, read_only }
}

/// Behind its length.
pub(super) fn framed(packet: &[u8]) -> Vec<u8> {
    let length = i32::try_from(packet.len()).unwrap_or(i32::MAX);
    [&length.to_be_bytes()[..], packet].concat()
}
