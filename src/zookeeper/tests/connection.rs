//! A connection over a real node, without a socket: bytes in, bytes out, on virtual time.

use std::{collections::VecDeque, net::IpAddr, sync::Arc, time::Duration};

use crate::{
    ClusterId, Config, Now,
    client::{Gateway, Told},
    driver::{Host, Inbox, Log, Switchboard},
    id::{Boot, NodeId, Secret, StoreId},
    node::Restored,
    zookeeper::{record::*, *},
};

/// A node of its own, and the connections to it.
pub(super) struct World {
    host: Host,
    gateway: Gateway,
    now: Duration,
    watches: Watches,
    pub(super) clients: Vec<Client>,
    told: Vec<Told>,
}

/// A client's side: what it has received, and what it waits for.
pub(super) struct Client {
    connection: Connection,
    received: Vec<u8>,
    waits: VecDeque<(i32, OpCode)>,
    sent: i32,
}

/// A packet of the server, by the number of its request; -1 for an event.
#[derive(Debug)]
pub(super) struct Packet(pub(super) Vec<u8>);

impl World {
    pub(super) fn new() -> Self {
        let id = NodeId::new(1).expect("not 0");
        let config = Config::founding(ClusterId::named("zk"), id, [id]).build().expect("valid");
        let inbox = Inbox::new();
        let line = Switchboard::new().connect(id, inbox.clone());
        let boot = Boot { counter: 1, nonce: 1 };
        let restored = Restored::new(StoreId::from_bytes([1; 16]), boot);
        let host = Host::new(config, Log::Memory, restored, line, inbox).expect("it opens");
        let gateway = host.client().gateway(|| {});
        let (clients, told) = (Vec::new(), Vec::new());
        let (now, watches) = (Duration::ZERO, Watches::default());
        let mut it = Self { host, gateway, now, watches, clients, told };
        it.run(40);
        it
    }

    /// So many turns of the node, one a tick, with all that they lead to.
    pub(super) fn run(&mut self, turns: usize) {
        for _ in 0..turns {
            let mut asks = Vec::new();
            for (id, client) in self.clients.iter_mut().enumerate() {
                client.connection.tick(self.now);
                client.connection.take_asks(|ask| asks.push((id as u64, ask)));
            }
            self.gateway.send(asks);
            let turn = self.host.turn(Now { mono: self.now, wall_ms: 1_000 });
            if !turn.more {
                self.now = turn.next_tick;
            }
            self.gateway.take(&mut self.told);
            for told in std::mem::take(&mut self.told) {
                self.tell(told);
            }
            for client in &mut self.clients {
                while !client.connection.output().is_empty() {
                    let front = client.connection.output().to_vec();
                    client.received.extend_from_slice(&front);
                    client.connection.sent(front.len(), &mut self.watches, self.now);
                }
            }
        }
    }

    fn tell(&mut self, told: Told) {
        let (clients, watches) = (&mut self.clients, &mut self.watches);
        match told {
            Told::Guest(id, answer) => {
                clients[id as usize].connection.answer(answer, watches, self.now);
            }
            Told::Changes(changes) => {
                for event in &changes.events {
                    watches.fire(event, |id, kind, path| {
                        clients[id as usize].connection.event((kind, path), event);
                    });
                }
            }
            Told::Gone(error) => panic!("{error}"),
        }
    }

    /// A client that has sent its first packet.
    fn dial(&mut self, session: i64, password: Option<&[u8]>) -> usize {
        self.dial_having_seen(0, session, password)
    }

    fn dial_having_seen(
        &mut self,
        last_zxid_seen: i64,
        session: i64,
        password: Option<&[u8]>,
    ) -> usize {
        let id = self.clients.len();
        let (peer, secret): (IpAddr, _) = ([127, 0, 0, 1].into(), [id as u8 + 7; 16]);
        let options = ConnectionOptions {
            super_digest: Some("super:D/InIHSb7yEEbrWz8b9l71RjZJU=".into()),
            ..ConnectionOptions::default()
        };
        let who = (id as u64, peer);
        let connection =
            Connection::new(Arc::new(options), who, Secret::from_bytes(secret), self.now);
        let (received, waits) = (Vec::new(), VecDeque::new());
        self.clients.push(Client { connection, received, waits, sent: 0 });
        let mut packet = Vec::new();
        let (protocol_version, timeout) = (0, 6_000);
        let read_only = Some(false);
        ConnectRequest { protocol_version, last_zxid_seen, timeout, session, password, read_only }
            .encode(&mut packet);
        self.feed(id, &packet);
        self.run(4);
        id
    }

    /// A client with a session of its own; gives its number.
    pub(super) fn connect(&mut self) -> (usize, i64) {
        let id = self.dial(0, Some(&[0; 16]));
        let packet = self.clients[id].packet().expect("it is answered");
        let response = ConnectResponse::decode(&packet.0).expect("valid");
        assert_eq!((response.timeout, response.read_only), (6_000, Some(false)));
        (id, response.session)
    }

    fn feed(&mut self, id: usize, packet: &[u8]) {
        let length = u32::try_from(packet.len()).expect("short").to_be_bytes();
        let client = &mut self.clients[id];
        // In pieces, as a network may cut it.
        for piece in length.iter().chain(packet).copied().collect::<Vec<u8>>().chunks(7) {
            client.connection.receive(piece, &mut self.watches, self.now);
        }
    }

    pub(super) fn send(&mut self, id: usize, request: &Request<'_>) -> i32 {
        let client = &mut self.clients[id];
        client.sent += 1;
        let xid = match request {
            Request::Ping => -2,
            Request::Auth(_) => -4,
            _ => client.sent,
        };
        client.waits.push_back((xid, request.op()));
        let mut packet = Vec::new();
        request.encode(xid, &mut packet);
        self.feed(id, &packet);
        xid
    }

    /// Sends a request, and gives the error that it is answered with.
    pub(super) fn ask(&mut self, id: usize, request: &Request<'_>) -> i32 {
        let xid = self.send(id, request);
        self.run(6);
        let (header, _) = self.clients[id].answer();
        assert_eq!(header.xid, xid);
        header.err
    }

    pub(super) fn events(&mut self, id: usize) -> Vec<(i32, String)> {
        self.run(4);
        let mut events = Vec::new();
        while let Some(packet) = self.clients[id].packet() {
            let (header, response) = Response::decode(None, &packet.0).expect("an event");
            assert_eq!(header.xid, -1);
            let Response::Event(event) = response else { panic!("{response:?}") };
            events.push((event.kind, event.path.to_string()));
        }
        events
    }
}

impl Client {
    fn packet(&mut self) -> Option<Packet> {
        let length = u32::from_be_bytes(self.received.get(..4)?.try_into().ok()?) as usize;
        let packet = self.received.get(4..4 + length)?.to_vec();
        self.received.drain(..4 + length);
        Some(Packet(packet))
    }

    /// The next answer, which must be that of the oldest request.
    pub(super) fn answer(&mut self) -> (ReplyHeader, Packet) {
        let (xid, op) = self.waits.pop_front().expect("something was asked");
        let packet = self.packet().expect("it is answered");
        let (header, _) = Response::decode(Some(op), &packet.0).expect("valid");
        assert_eq!(header.xid, xid, "{op:?}");
        (header, packet)
    }
}

pub(super) fn open() -> Vec<AclEntry<'static>> {
    vec![AclEntry { perms: 31, id: Id { scheme: "world", id: "anyone" } }]
}

pub(super) fn create<'a>(path: &'a str, flags: i32) -> Request<'a> {
    let request = CreateRequest { path, data: Some(b"x"), acl: open(), flags };
    Request::Create(OpCode::Create, request)
}

pub(super) fn delete(path: &str) -> Request<'_> {
    Request::Delete(VersionRequest { path, version: -1 })
}

pub(super) fn get(path: &str, watch: bool) -> Request<'_> {
    Request::GetData(WatchedRequest { path, watch })
}

pub(super) fn set(path: &str, version: i32) -> Request<'_> {
    Request::SetData(SetDataRequest { path, data: Some(b"new"), version })
}

#[test]
fn pipelined_requests_are_answered_in_order_each_seeing_those_before_it() {
    let mut it = World::new();
    let (id, _) = it.connect();
    let requests = [
        create("/a", 0),
        get("/a", false),
        Request::Ping,
        set("/a", 0),
        Request::Sync(PathRecord { path: "/a" }),
        get("/a", false),
        delete("/a"),
        get("/a", false),
        create("/b/c", 0),
        set("relative", 0),
        Request::Exists(WatchedRequest { path: "/a", watch: false }),
    ];
    for request in &requests {
        it.send(id, request);
    }
    it.run(20);
    let mut errors = Vec::new();
    for _ in &requests {
        errors.push(it.clients[id].answer().0.err);
    }
    assert_eq!(errors, [0, 0, 0, 0, 0, 0, 0, -101, -101, -8, -101]);
}

/// What the node does not take is refused at once: also that comes in its turn.
#[test]
fn a_refusal_waits_for_the_answers_before_it() {
    let mut it = World::new();
    let (id, _) = it.connect();
    let check = Request::Check(VersionRequest { path: "/a", version: -1 });
    let requests = [create("/a", 0), Request::Multi(vec![check; 129]), set("/a", 0)];
    for request in &requests {
        it.send(id, request);
    }
    it.run(6);
    let errors = requests.each_ref().map(|_| it.clients[id].answer().0.err);
    assert_eq!(errors, [0, -8, 0]);
}

#[test]
fn sequence_numbers_count_all_children_and_a_closed_session_takes_its_nodes_along() {
    let mut it = World::new();
    let ((id, _), (other, _)) = (it.connect(), it.connect());
    for (path, flags, expected) in
        [("/q", 0, "/q"), ("/q/x", 1, "/q/x"), ("/q/n-", 3, "/q/n-0000000001")]
    {
        it.send(id, &create(path, flags));
        it.run(6);
        let (_, packet) = it.clients[id].answer();
        let (_, response) = Response::decode(Some(OpCode::Create), &packet.0).expect("valid");
        assert_eq!(response, Response::Path(PathRecord { path: expected }));
    }
    assert_eq!(it.ask(other, &get("/q/x", true)), 0);
    assert_eq!(it.ask(id, &Request::CloseSession), 0);
    assert!(it.clients[id].connection.is_over());
    assert_eq!(it.events(other), [(2, "/q/x".to_string())]);
    assert_eq!(it.ask(other, &get("/q/x", false)), -101);
}

#[test]
fn an_event_comes_once_and_before_the_answer_that_shows_it() {
    let mut it = World::new();
    let ((id, _), (other, _)) = (it.connect(), it.connect());
    assert_eq!(it.ask(id, &create("/w", 0)), 0);
    assert_eq!(it.ask(id, &get("/w", true)), 0);
    let children = WatchedRequest { path: "/w", watch: true };
    assert_eq!(it.ask(id, &Request::GetChildren(children)), 0);
    it.send(other, &set("/w", -1));
    it.send(id, &get("/w", false));
    it.run(6);
    it.send(id, &get("/w", false));
    it.run(6);
    // Whichever of the two shows it, the event was there first.
    let mut seen = false;
    while let Some(packet) = it.clients[id].packet() {
        if i32::from_be_bytes(packet.0[..4].try_into().expect("4 bytes")) == -1 {
            assert!(!seen, "once");
            seen = true;
        } else {
            let (_, response) = Response::decode(Some(OpCode::GetData), &packet.0).expect("valid");
            let Response::Node(node) = response else { panic!("{response:?}") };
            assert!(seen || node.stat.version == 0);
        }
    }
    assert!(seen);
    it.clients[id].waits.clear();
    it.clients[other].answer();
    assert_eq!(it.ask(other, &set("/w", -1)), 0);
    assert!(it.events(id).is_empty(), "it fires once");
    // One event for the node that two watches look at.
    assert_eq!(it.ask(id, &get("/w", true)), 0);
    assert_eq!(it.ask(other, &delete("/w")), 0);
    assert_eq!(it.events(id), [(2, "/w".to_string())]);
}

#[test]
fn watches_that_stay_and_recursive_ones_tell_what_zookeepers_do() {
    let mut it = World::new();
    let ((id, _), (other, _)) = (it.connect(), it.connect());
    let add = |path, kind| Request::AddWatch(WatchRequest { path, kind });
    assert_eq!(it.ask(id, &add("/p", 0)), 0);
    assert_eq!(it.ask(id, &add("/r", 1)), 0);
    for request in
        [create("/p", 0), create("/p/c", 0), set("/p", -1), create("/r", 0), create("/r/c", 0)]
    {
        assert_eq!(it.ask(other, &request), 0);
    }
    let told = |list: &[(i32, &str)]| -> Vec<(i32, String)> {
        list.iter().map(|it| (it.0, it.1.to_string())).collect()
    };
    assert_eq!(it.events(id), told(&[(1, "/p"), (4, "/p"), (3, "/p"), (1, "/r"), (1, "/r/c")]));
    let removed = |path, kind| Request::RemoveWatches(WatchRequest { path, kind });
    let has = |path, kind| Request::CheckWatches(WatchRequest { path, kind });
    assert_eq!(it.ask(id, &has("/p", 4)), 0);
    assert_eq!(it.ask(id, &removed("/p", 3)), 0);
    assert_eq!(it.ask(id, &removed("/p", 3)), -121);
    assert_eq!(it.ask(id, &has("/p", 4)), -121);
    assert_eq!(it.ask(id, &removed("/r", 5)), 0);
    assert_eq!(it.ask(other, &set("/r", -1)), 0);
    assert!(it.events(id).is_empty());
}

#[test]
fn watches_of_an_earlier_connection_tell_what_was_missed() {
    let mut it = World::new();
    let (id, _) = it.connect();
    for path in ["/same", "/set", "/gone", "/kids"] {
        assert_eq!(it.ask(id, &create(path, 0)), 0);
    }
    it.send(id, &get("/same", false));
    it.run(4);
    let zxid = it.clients[id].answer().0.zxid;
    for request in [set("/set", -1), delete("/gone"), create("/kids/x", 0), create("/new", 0)] {
        assert_eq!(it.ask(id, &request), 0);
    }
    let again = Request::SetWatches(SetWatchesRequest {
        relative_zxid: zxid,
        data: vec!["/same", "/set", "/gone"],
        exist: vec!["/new", "/none"],
        child: vec!["/kids", "/same"],
    });
    it.send(id, &again);
    it.run(4);
    let mut told = Vec::new();
    for _ in 0..4 {
        let packet = it.clients[id].packet().expect("an event");
        let (_, response) = Response::decode(None, &packet.0).expect("before the answer");
        let Response::Event(event) = response else { panic!("{response:?}") };
        told.push((event.kind, event.path.to_string()));
    }
    let expected = [(3, "/set"), (2, "/gone"), (1, "/new"), (4, "/kids")];
    assert_eq!(told, expected.map(|it| (it.0, it.1.to_string())));
    it.clients[id].answer();
    it.send(id, &create("/none", 0));
    it.run(4);
    let packet = it.clients[id].packet().expect("it was armed, and tells before the answer");
    assert!(Response::decode(None, &packet.0).is_ok());
    assert_eq!(it.clients[id].answer().0.err, 0);
}

#[test]
fn a_multi_is_all_or_none_and_says_which_part_failed() {
    let mut it = World::new();
    let (id, _) = it.connect();
    let check = |path, version| Request::Check(VersionRequest { path, version });
    let errors = |it: &mut World, parts: Vec<Request<'_>>| -> Vec<i32> {
        it.send(id, &Request::Multi(parts));
        it.run(6);
        let (header, packet) = it.clients[id].answer();
        assert_eq!(header.err, 0);
        let (_, response) = Response::decode(Some(OpCode::Multi), &packet.0).expect("valid");
        let Response::Multi(parts) = response else { panic!("{response:?}") };
        let code = |part: &PartResponse<'_>| match part {
            PartResponse::Failed(code) => *code,
            PartResponse::Done(..) => 0,
        };
        parts.iter().map(code).collect()
    };
    let done = errors(&mut it, vec![create("/m", 0), check("/m", 0), set("/m", 0)]);
    assert_eq!(done, [0, 0, 0]);
    let parts = vec![create("/n", 0), check("/m", 9), create("/o", 0)];
    assert_eq!(errors(&mut it, parts), [0, -103, -2]);
    assert_eq!(errors(&mut it, vec![check("/none", -1), create("/o", 0)]), [-101, -2]);
    let parts = vec![create("/n", 0), create("relative", 0), create("/o", 0)];
    assert_eq!(errors(&mut it, parts), [0, -8, -2], "a part that cannot be");
    let parts = vec![create("/none/n", 0), create("relative", 0)];
    assert_eq!(errors(&mut it, parts), [-101, -2], "the first one is to blame");
    assert!(errors(&mut it, vec![]).is_empty());
    assert_eq!(it.ask(id, &get("/n", false)), -101);
    assert_eq!(it.ask(id, &check("/m", 1)), 0);
    assert_eq!(it.ask(id, &check("/m", 0)), -103);
    assert_eq!(it.ask(id, &check("/none", 0)), -101);
    // A check of a version is two operations: that it is there, and that it has it.
    for (parts, error) in [(64, 0), (65, -8), (4_096, -8), (4_097, -8)] {
        let multi = Request::Multi(vec![check("/m", 1); parts]);
        assert_eq!(it.ask(id, &multi), error, "{parts} parts");
    }
    assert_eq!(it.ask(id, &check("/m", 1)), 0, "the connection stays");
}

#[test]
fn rights_are_those_of_who_has_proved_who_it_is() {
    let mut it = World::new();
    let ((id, _), (other, _)) = (it.connect(), it.connect());
    let auth = |scheme, auth| Request::Auth(AuthPacket { kind: 0, scheme, auth: Some(auth) });
    let acl = |scheme, name| vec![AclEntry { perms: 31, id: Id { scheme, id: name } }];
    let make = |path, acl| {
        Request::Create(OpCode::Create, CreateRequest { path, data: None, acl, flags: 0 })
    };
    assert_eq!(it.ask(id, &make("/mine", acl("auth", ""))), -114, "nobody has proved anything");
    assert_eq!(it.ask(id, &make("/mine", vec![])), -114);
    assert_eq!(it.ask(id, &make("/mine", acl("none", ""))), -114);
    assert_eq!(it.ask(id, &auth("digest", b"ann:pw")), 0);
    assert_eq!(it.ask(id, &make("/mine", acl("auth", ""))), 0);
    assert_eq!(it.ask(other, &get("/mine", false)), -102);
    assert_eq!(it.ask(other, &set("/mine", -1)), -102);
    assert_eq!(it.ask(id, &get("/mine", true)), 0, "a watch outlives the next proof");
    assert_eq!(it.ask(other, &auth("digest", b"super:test")), 0);
    assert_eq!(it.ask(other, &set("/mine", -1)), 0);
    assert_eq!(it.events(id), [(3, "/mine".to_string())]);
    it.send(id, &Request::GetAcl(PathRecord { path: "/mine" }));
    it.run(4);
    let (_, packet) = it.clients[id].answer();
    let (_, response) = Response::decode(Some(OpCode::GetAcl), &packet.0).expect("valid");
    let Response::Acl(list) = response else { panic!("{response:?}") };
    // `echo -n ann:pw | openssl dgst -sha1 -binary | base64`
    assert_eq!(list.acl[0].id, Id { scheme: "digest", id: "ann:RYbu6l5aZwqon8VWmkcGvezdzfc=" });
    assert_eq!(it.ask(other, &auth("none", b"")), -115);
    assert!(it.clients[other].connection.is_over(), "who fails is gone");
}

#[test]
fn a_session_is_had_back_with_its_password_alone() {
    let mut it = World::new();
    let (id, session) = it.connect();
    assert_eq!(it.ask(id, &create("/e", 1)), 0);
    let secret = [id as u8 + 7; 16];
    let connected = |it: &mut World, session, password: &[u8]| {
        let id = it.dial(session, Some(password));
        let packet = it.clients[id].packet().expect("it is answered");
        let response = ConnectResponse::decode(&packet.0).expect("valid");
        (id, response.session, response.timeout)
    };
    let (wrong, none, timeout) = connected(&mut it, session, &[0; 16]);
    assert_eq!((none, timeout), (0, 0), "told at once");
    assert!(it.clients[wrong].connection.is_over());
    assert_eq!(connected(&mut it, session + 9, &secret).1, 0, "never opened");
    assert_eq!(connected(&mut it, -5, &secret).1, 0);
    let (next, same, timeout) = connected(&mut it, session, &secret);
    assert_eq!((same, timeout), (session, 6_000));
    assert!(it.clients[id].connection.is_over(), "it is the other connection's now");
    assert_eq!(it.ask(next, &delete("/e")), 0);
    assert_eq!(it.ask(next, &Request::CloseSession), 0);
    assert_eq!(connected(&mut it, session, &secret).1, 0, "a closed one is gone");
}

/// It may have seen on another member what this one does not have yet.
#[test]
fn a_client_that_has_seen_more_than_the_member_is_not_served() {
    let mut it = World::new();
    let (id, session) = it.connect();
    assert_eq!(it.ask(id, &create("/a", 0)), 0);
    let secret = [id as u8 + 7; 16];
    let seen = i64::try_from(it.host.node().zxid().as_u64()).expect("few");
    for (session, password) in [(0, [0; 16]), (session, secret)] {
        let ahead = it.dial_having_seen(seen + 1, session, Some(&password));
        assert!(it.clients[ahead].packet().is_none(), "it is told nothing");
        assert!(it.clients[ahead].connection.is_over());
        assert_eq!(it.ask(id, &get("/a", false)), 0, "and its session stays");
    }
    let level = it.dial_having_seen(seen, session, Some(&secret));
    let packet = it.clients[level].packet().expect("it is answered");
    assert_eq!(ConnectResponse::decode(&packet.0).map(|it| it.session), Ok(session));
}

/// A sync keeps its packet until a majority answers.
#[test]
fn packets_that_wait_are_bounded_by_their_bytes() {
    let mut it = World::new();
    let (id, _) = it.connect();
    let path = format!("/{}", "x".repeat(1_000_000));
    let mut packet = Vec::new();
    Request::Sync(PathRecord { path: &path }).encode(5, &mut packet);
    let framed = [&u32::try_from(packet.len()).unwrap().to_be_bytes()[..], &packet].concat();
    let World { clients, watches, now, .. } = &mut it;
    let connection = &mut clients[id].connection;
    let mut fed = 0;
    while connection.wants_input() {
        connection.receive(&framed, watches, *now);
        fed += 1;
        assert!(fed < 20, "{} bytes", connection.held_bytes());
    }
    assert!(connection.pending() == 5 && connection.held_bytes() > 5_000_000, "{connection:?}");
    for _ in 0..fed {
        it.clients[id].waits.push_back((5, OpCode::Sync));
    }
    it.run(20);
    for _ in 0..fed {
        assert_eq!(it.clients[id].answer().0.err, 0, "and all are answered");
    }
    assert!(it.clients[id].connection.held_bytes() < 4_000_000);
}

#[test]
fn a_silent_client_is_let_go_and_its_session_ends_later() {
    let mut it = World::new();
    let ((id, _), (other, _)) = (it.connect(), it.connect());
    assert_eq!(it.ask(id, &create("/e", 1)), 0);
    let began = it.now;
    while it.now - began < Duration::from_millis(5_900) {
        assert_eq!(it.ask(other, &get("/e", false)), 0, "not before its time");
    }
    while it.now - began < Duration::from_secs(9) {
        assert_eq!(it.ask(other, &Request::Ping), 0);
    }
    assert!(it.clients[id].connection.is_over());
    assert_eq!(it.ask(other, &get("/e", false)), -101);
}

#[test]
fn what_is_no_packet_ends_the_connection_and_what_cannot_be_read_is_answered() {
    let mut it = World::new();
    let (id, _) = it.connect();
    it.clients[id].waits.push_back((7, OpCode::Create));
    it.feed(id, &[0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 9]);
    it.run(2);
    assert_eq!(it.clients[id].answer().0.err, -5);
    // A multi within a multi.
    it.clients[id].waits.push_back((9, OpCode::Multi));
    it.feed(id, &[0, 0, 0, 9, 0, 0, 0, 14, 0, 0, 0, 14, 0, 0xff, 0xff, 0xff, 0xff]);
    it.run(2);
    assert_eq!(it.clients[id].answer().0.err, -5);
    let sasl = Request::Sasl(SaslRecord { token: None });
    assert_eq!(it.ask(id, &sasl), -6, "known, and not there");
    it.clients[id].waits.push_back((8, OpCode::Create));
    it.feed(id, &[0, 0, 0, 8, 0, 0, 0, 99]);
    it.run(2);
    assert_eq!(it.clients[id].answer().0.err, -6);
    assert!(it.clients[id].connection.is_over(), "as the server does");
    for length in [[0x7f, 0xff, 0xff, 0xff], [0xff; 4], [0, 0x10, 0, 0]] {
        let (id, _) = it.connect();
        let World { clients, watches, now, .. } = &mut it;
        clients[id].connection.receive(&length, watches, *now);
        assert!(clients[id].connection.is_over());
    }
}
