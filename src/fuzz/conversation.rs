//! A client of ZooKeeper that sends anything, in any pieces, and may take nothing; and a good one.

use std::{collections::VecDeque, net::IpAddr, sync::Arc, time::Duration};

use super::{
    input::Input,
    packets::{framed, hello, round_trips},
};
use crate::{
    client::{Gateway, Told},
    config::Config,
    driver::{Host, Inbox, Log, Switchboard},
    id::{ClusterId, Secret},
    node::Restored,
    time::Now,
    zookeeper::{
        ConnectResponse, Connection, ConnectionOptions, OpCode, Response, Watches,
        samples::requests,
    },
};

/// A packet for the codec; or, behind a byte from 128 on, what a client does.
pub(super) fn zookeeper(data: &[u8]) {
    match data.split_first() {
        Some((CONVERSATION.., script)) => converse(script),
        _ => round_trips(data),
    }
}

/// Whatever a client does, it is answered in its order with what a client can read, holds no more
/// than its bounds, and harms no other client.
fn converse(script: &[u8]) {
    let mut server = Server::new();
    let mut input = Input::new(script);
    let mut guest = Guest::new(server.connection());
    for _ in 0..STEPS_MAX {
        if input.is_spent() {
            break;
        }
        match input.below(8) {
            0 => {
                guest.is_wild = true;
                let bytes = input.bytes(64);
                server.feed(&mut guest, &bytes, &mut input);
            }
            1 => {
                let op = OpCode::ALL[input.below(OpCode::ALL.len())].number();
                let packet = [&[0; 4][..], &op.to_be_bytes(), &input.bytes(48)].concat();
                server.send(&mut guest, packet, &mut input);
            }
            2 | 3 => {
                let packet = changed_request(&mut input);
                server.send(&mut guest, packet, &mut input);
            }
            4 => {
                let (session, mut packet) = (i64::from(input.byte() % 3), Vec::new());
                // The first connection's secret is 3, and its session 1.
                let secret = u128::from(input.byte() % 4).to_le_bytes();
                hello(session, &secret).encode(&mut packet);
                server.send(&mut guest, packet, &mut input);
            }
            5 => server.run(&mut guest, Duration::from_millis(input.short().into())),
            6 => server.take(&mut guest, input.byte()),
            _ => {
                server.leave(&mut guest);
                guest = Guest::new(server.connection());
            }
        }
        assert!(guest.connection.pending() <= REQUESTS_MAX, "more wait than may");
    }
    server.leave(&mut guest);
    server.serves_another();
}

/// Some request, with a few bytes changed.
fn changed_request(input: &mut Input) -> Vec<u8> {
    let (mut requests, mut packet) = (requests(), Vec::new());
    let at = input.below(requests.len());
    requests.swap_remove(at).encode(0, &mut packet);
    for _ in 0..input.below(4) {
        let at = input.below(packet.len());
        packet[at] = input.byte();
    }
    packet
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    // A handshake, one of each request in small pieces, time, and what was answered is taken.
    let script = |from: u8| {
        let asks = (from..from + 6).flat_map(|at| [2, at, 0, 7, 5, 200, 0, 6, 255]);
        [CONVERSATION, 4, 0, 0, 9, 5, 200, 0, 6, 255].into_iter().chain(asks).collect()
    };
    let scripts = (0..requests().len()).step_by(6).map(|from| script(from as u8));
    let raw = vec![CONVERSATION, 0, 12, 0, 0, 0, 8, 255, 255, 255, 255, 0, 0, 0, 11, 1];
    super::packets::seeds().into_iter().chain(scripts).chain([raw]).collect()
}

/// A node, and what its listener would keep.
struct Server {
    host: Host,
    gateway: Gateway,
    watches: Watches,
    options: Arc<ConnectionOptions>,
    now: Duration,
    next: u64,
}

/// A client's side.
struct Guest {
    id: u64,
    connection: Connection,
    /// Of the packets sent: their number, and what they ask for. The first is the handshake.
    sent: VecDeque<(i32, i32)>,
    numbers: i32,
    greeted: bool,
    received: Vec<u8>,
    /// It has sent bytes that are no packets, or left some out: nobody knows what is answered.
    is_wild: bool,
}

impl Server {
    fn new() -> Self {
        let (cluster, id) = (ClusterId::named("fuzz"), super::samples::NODE);
        let config = match Config::founding(cluster, id, [id]).build() {
            Ok(config) => config,
            Err(error) => panic!("the defaults are valid: {error}"),
        };
        let inbox = Inbox::new();
        let line = Switchboard::new().connect(id, inbox.clone());
        let incarnation = super::samples::incarnation();
        let restored = Restored::new(incarnation.store, incarnation.boot);
        let host = match Host::new(config, Log::Memory, restored, line, inbox) {
            Ok(host) => host,
            Err(error) => panic!("an empty log: {error}"),
        };
        let gateway = host.client().gateway(|| {});
        let mut options = ConnectionOptions::default();
        (options.packet_bytes_max, options.requests_max) = (PACKET_BYTES_MAX, REQUESTS_MAX);
        let (watches, options) = (Watches::default(), Arc::new(options));
        let now = Duration::ZERO;
        let mut server = Self { host, gateway, watches, options, now, next: 1 };
        let mut nobody = Guest::new(server.connection());
        server.run(&mut nobody, ELECTION);
        server
    }

    fn connection(&mut self) -> (u64, Connection) {
        self.next += 1;
        let (peer, secret) = (IpAddr::from([127, 0, 0, 1]), u128::from(self.next).to_le_bytes());
        let secret = Secret::from_bytes(secret);
        let options = Arc::clone(&self.options);
        (self.next, Connection::new(options, (self.next, peer), secret, self.now))
    }

    /// Sends a packet, behind its length, under a number of its own.
    fn send(&mut self, guest: &mut Guest, mut packet: Vec<u8>, input: &mut Input) {
        let first = guest.sent.is_empty() && !guest.greeted;
        if let Some((number, rest)) = packet.split_first_chunk_mut().filter(|_| !first) {
            guest.numbers += 1;
            *number = guest.numbers.to_be_bytes();
            let op = rest.first_chunk().map_or(0, |op| i32::from_be_bytes(*op));
            guest.sent.push_back((guest.numbers, op));
        } else {
            guest.sent.push_back((0, 0));
        }
        self.feed(guest, &framed(&packet), input);
    }

    /// In pieces; what is not wanted now is left where it is until the node has answered.
    fn feed(&mut self, guest: &mut Guest, bytes: &[u8], input: &mut Input) {
        let piece = 1 + usize::from(input.byte());
        for piece in bytes.chunks(piece) {
            let mut patience = 0;
            while !guest.connection.wants_input() {
                if guest.connection.is_over() || patience == TURNS_MAX {
                    guest.is_wild = true;
                    return;
                }
                patience += 1;
                self.take(guest, u8::MAX);
                self.run(guest, Duration::from_millis(60));
            }
            guest.connection.receive(piece, &mut self.watches, self.now);
        }
    }

    /// The node's turns, and a tick of the connection, for so long.
    fn run(&mut self, guest: &mut Guest, time: Duration) {
        let until = self.now + time;
        for _ in 0..TURNS_MAX {
            guest.connection.tick(self.now);
            let (id, mut asks) = (guest.id, Vec::new());
            guest.connection.take_asks(|ask| asks.push((id, ask)));
            self.gateway.send(asks);
            let turn = self.host.turn(Now { mono: self.now, wall_ms: 1_000 });
            self.tell(guest);
            if !turn.more {
                if turn.next_tick > until {
                    break;
                }
                self.now = turn.next_tick;
            }
        }
    }

    fn tell(&mut self, guest: &mut Guest) {
        let mut all = Vec::new();
        self.gateway.take(&mut all);
        for told in all {
            match told {
                Told::Guest(id, answer) if id == guest.id => {
                    guest.connection.answer(answer, &mut self.watches, self.now);
                }
                // Of a connection that is gone.
                Told::Guest(..) => {}
                Told::Changes(changes) => {
                    for event in &changes.events {
                        self.watches.fire(event, |id, kind, path| {
                            assert_eq!(id, guest.id, "a watch of a connection that is gone");
                            guest.connection.event((kind, path), event);
                        });
                    }
                }
                Told::Gone(error) => panic!("the node is gone: {error}"),
            }
        }
    }

    /// The client takes so much of what is there, and looks at each packet that is whole.
    fn take(&mut self, guest: &mut Guest, count: u8) {
        let mut left = if count == u8::MAX { usize::MAX } else { count.into() };
        while left > 0 && !guest.connection.output().is_empty() {
            let front = guest.connection.output();
            let front = front[..front.len().min(left)].to_vec();
            left -= front.len();
            guest.received.extend_from_slice(&front);
            guest.connection.sent(front.len(), &mut self.watches, self.now);
        }
        guest.look();
    }

    /// As a listener does when a socket is closed.
    fn leave(&mut self, guest: &mut Guest) {
        guest.connection.abort();
        self.run(guest, Duration::ZERO);
        self.watches.leave(guest.id);
    }

    /// A good client is served.
    fn serves_another(&mut self) {
        let (mut guest, mut packet) = (Guest::new(self.connection()), Vec::new());
        let mut input = Input::new(&[]);
        hello(0, &[0; 16]).encode(&mut packet);
        self.send(&mut guest, packet, &mut input);
        let sync = requests().into_iter().filter(|it| it.op() == OpCode::Sync);
        for request in sync {
            let mut packet = Vec::new();
            request.encode(0, &mut packet);
            self.send(&mut guest, packet, &mut input);
        }
        for _ in 0..PATIENCE {
            self.run(&mut guest, ELECTION);
            self.take(&mut guest, u8::MAX);
        }
        assert!(guest.greeted && guest.sent.is_empty(), "it waits for {:?}", guest.sent);
    }
}

impl Guest {
    fn new((id, connection): (u64, Connection)) -> Self {
        let (sent, received) = (VecDeque::new(), Vec::new());
        Self { id, connection, sent, numbers: 0, greeted: false, received, is_wild: false }
    }

    /// Each packet can be read, and answers come in the order of the requests.
    fn look(&mut self) {
        while let Some((length, rest)) = self.received.split_first_chunk() {
            let length = usize::try_from(i32::from_be_bytes(*length));
            let Some((packet, _)) = length.ok().and_then(|it| rest.split_at_checked(it)) else {
                return;
            };
            let packet = packet.to_vec();
            self.received.drain(..4 + packet.len());
            if !self.is_wild {
                self.check(&packet);
            }
        }
    }

    fn check(&mut self, packet: &[u8]) {
        if !self.greeted {
            self.greeted = true;
            self.sent.pop_front();
            assert!(ConnectResponse::decode(packet).is_ok(), "{packet:?}");
            return;
        }
        let header = match Response::decode(Some(OpCode::Ping), &packet[..HEADER_BYTES]) {
            Ok((header, _)) => header,
            Err(error) => panic!("no header: {error}"),
        };
        if header.xid == EVENT {
            assert!(Response::decode(None, packet).is_ok(), "{packet:?}");
            return;
        }
        let (number, op) = self.sent.pop_front().unwrap_or_default();
        assert_eq!(header.xid, number, "answers come in the order of the requests");
        match OpCode::from_number(op) {
            Some(op) if header.err == 0 => {
                let response = Response::decode(Some(op), packet);
                assert!(response.is_ok(), "{op:?} is answered with {packet:?}");
            }
            known => assert!(known.is_some() || header.err != 0, "{op} is no operation"),
        }
    }
}

/// The first byte of a script, at least.
const CONVERSATION: u8 = 128;
/// Bytes of a header, and the number of an event.
const HEADER_BYTES: usize = 16;
const EVENT: i32 = -1;
const STEPS_MAX: usize = 60;
const TURNS_MAX: usize = 60;
/// Within which a node alone leads.
const ELECTION: Duration = Duration::from_secs(2);
/// So often a good client waits for so long.
const PATIENCE: usize = 3;
/// Few, so that both bounds are met.
const PACKET_BYTES_MAX: usize = 300;
const REQUESTS_MAX: usize = 5;
