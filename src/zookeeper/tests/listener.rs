//! The listener, over real sockets.
#![expect(clippy::disallowed_methods, reason = "real threads are waited for in real time")]
#![expect(clippy::disallowed_types, reason = "the clients of a listener have sockets")]

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use crate::{
    ClusterId, Config, CreateMode,
    driver::{Driver, Host, Inbox, Log, Switchboard},
    id::{Boot, NodeId, StoreId},
    node::{Consistency, Restored},
    zookeeper::{record::*, *},
};

pub(super) fn driver() -> Driver {
    let id = NodeId::new(1).expect("not 0");
    let config = Config::founding(ClusterId::named("zk"), id, [id]).build().expect("valid");
    let inbox = Inbox::new();
    let line = Switchboard::new().connect(id, inbox.clone());
    let boot = Boot { counter: 1, nonce: 1 };
    let restored = Restored::new(StoreId::from_bytes([1; 16]), boot);
    let host = Host::new(config, Log::Memory, restored, line, inbox).expect("it opens");
    Driver::spawn(host).expect("there are threads")
}

pub(super) fn listener(driver: &Driver, options: ListenerOptions) -> Listener {
    let address = "127.0.0.1:0".parse().expect("an address");
    Listener::spawn(driver.client(), address, options).expect("a free port")
}

/// Waits until there are a leader, and the nodes that are always there.
pub(super) fn settle(driver: &Driver) {
    let path = "/zookeeper/config".parse().expect("valid");
    let since = Instant::now();
    while !matches!(driver.client().exists(&path, Consistency::Local).wait(), Ok(Some(_))) {
        assert!(since.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(super) fn dial(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).expect("it listens");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("it can");
    socket
}

pub(super) fn send(socket: &mut TcpStream, packet: &[u8]) {
    let length = u32::try_from(packet.len()).expect("short").to_be_bytes();
    socket.write_all(&[&length[..], packet].concat()).expect("it is open");
}

pub(super) fn receive(socket: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 4];
    socket.read_exact(&mut length).expect("it is answered");
    let mut packet = vec![0; u32::from_be_bytes(length) as usize];
    socket.read_exact(&mut packet).expect("it is answered");
    packet
}

/// Whether the other side has closed it, and said nothing more.
pub(super) fn is_closed(socket: &mut TcpStream) -> bool {
    matches!(socket.read(&mut [0; 1]), Ok(0) | Err(_))
}

pub(super) fn connect(socket: &mut TcpStream) -> i64 {
    let mut packet = Vec::new();
    let (protocol_version, last_zxid_seen, timeout, session) = (0, 0, 30_000, 0);
    let (password, read_only) = (Some(&[0; 16][..]), None);
    ConnectRequest { protocol_version, last_zxid_seen, timeout, session, password, read_only }
        .encode(&mut packet);
    send(socket, &packet);
    let packet = receive(socket);
    ConnectResponse::decode(&packet).expect("valid").session
}

pub(super) fn ask<'a>(
    socket: &mut TcpStream,
    request: &Request<'_>,
    into: &'a mut Vec<u8>,
) -> Response<'a> {
    let mut packet = Vec::new();
    request.encode(5, &mut packet);
    send(socket, &packet);
    *into = receive(socket);
    let (header, response) = Response::decode(Some(request.op()), into).expect("valid");
    assert_eq!((header.xid, header.err), (5, 0));
    response
}

#[test]
fn handles_and_clients_share_one_tree_and_bad_ones_harm_nobody() {
    let driver = driver();
    let listener = listener(&driver, ListenerOptions::default());
    let mut socket = dial(listener.local_addr());
    assert_ne!(connect(&mut socket), 0);
    for bad in [&[0xff, 0xff, 0xff, 0xff][..], &[0, 0, 0, 2, 1, 2], b"nope", b"GET / HTTP/1.1"] {
        let mut socket = dial(listener.local_addr());
        socket.write_all(bad).expect("it is open");
        assert!(is_closed(&mut socket), "{bad:?}");
    }
    let mut word = dial(listener.local_addr());
    word.write_all(b"ruok").expect("it is open");
    let mut text = String::new();
    word.read_to_string(&mut text).expect("it is closed behind the answer");
    assert_eq!(text, "imok");
    let path = "/from-rust".parse().expect("valid");
    let client = driver.client();
    let data = vec![7; 100_000];
    client.create(&path, data.clone(), CreateMode::Persistent).wait().expect("written");
    let mut packet = Vec::new();
    let get = Request::GetData(WatchedRequest { path: "/from-rust", watch: false });
    let Response::Node(node) = ask(&mut socket, &get, &mut packet) else { panic!("a node") };
    assert_eq!(node.data, Some(&data[..]), "large data comes whole");
    let acl = vec![AclEntry { perms: 31, id: Id { scheme: "world", id: "anyone" } }];
    let create = CreateRequest { path: "/from-client", data: Some(b"x"), acl, flags: 0 };
    ask(&mut socket, &Request::Create(OpCode::Create, create), &mut packet);
    let path = "/from-client".parse().expect("valid");
    let (data, _) = client.get(&path, Consistency::Local).wait().expect("read");
    assert_eq!(data, "x");
    listener.stop();
    assert!(is_closed(&mut socket));
}

#[test]
fn connections_are_bounded_and_those_that_say_nothing_are_closed() {
    let driver = driver();
    // There is a leader from here on.
    let path = "/ready".parse().expect("valid");
    driver.client().create(&path, "", CreateMode::Persistent).wait().expect("written");
    let handshake_max = Duration::from_millis(300);
    let connection = ConnectionOptions { handshake_max, ..ConnectionOptions::default() };
    let options = ListenerOptions { connections_max: 1, connection, ..ListenerOptions::default() };
    let listener = listener(&driver, options);
    let mut silent = dial(listener.local_addr());
    let mut further = dial(listener.local_addr());
    assert!(is_closed(&mut further) && is_closed(&mut silent));
    let mut next = dial(listener.local_addr());
    assert_ne!(connect(&mut next), 0, "there is room again");
    drop(driver);
    assert!(is_closed(&mut next), "the node is gone");
}

#[test]
fn an_end_that_comes_with_the_last_request_is_seen() {
    let driver = driver();
    let listener = listener(&driver, ListenerOptions::default());
    for round in 0..50 {
        let mut socket = dial(listener.local_addr());
        assert_ne!(connect(&mut socket), 0);
        let mut packet = Vec::new();
        Request::Ping.encode(-2, &mut packet);
        send(&mut socket, &packet);
        socket.shutdown(Shutdown::Write).expect("it is open");
        let last = socket.read_to_end(&mut Vec::new()).map_err(|error| error.kind());
        let late = matches!(last, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut));
        assert!(!late, "nobody has noticed in round {round}");
    }
}

/// Creates below `/`, without an end.
fn writes(path: &str) -> Vec<u8> {
    let acl = vec![AclEntry { perms: 31, id: Id { scheme: "world", id: "anyone" } }];
    let create = CreateRequest { path, data: Some(&[7; 1000]), acl, flags: 2 };
    let mut packet = Vec::new();
    Request::Create(OpCode::Create, create).encode(5, &mut packet);
    let length = u32::try_from(packet.len()).expect("short").to_be_bytes();
    [&length[..], &packet].concat()
}

#[test]
fn clients_that_take_their_time_are_closed_and_hold_little_until_then() {
    let driver = driver();
    let mut options = ListenerOptions::default();
    options.connection.handshake_max = Duration::from_millis(600);
    options.connection.timeout_min = Duration::from_millis(600);
    options.connection.timeout_max = Duration::from_millis(600);
    let listener = listener(&driver, options);
    settle(&driver);
    let mut other = dial(listener.local_addr());
    connect(&mut other);
    // A byte now and then, of the first packet and of a later one.
    let mut early = dial(listener.local_addr());
    let mut late = dial(listener.local_addr());
    connect(&mut late);
    let begun = Instant::now();
    let mut open = [true, true];
    for byte in [0, 15, 255].into_iter().chain([1; 200]) {
        for (socket, open) in [&mut early, &mut late].into_iter().zip(&mut open) {
            *open &= socket.write_all(&[byte]).is_ok();
        }
        if open == [false, false] {
            break;
        }
        // Others are served meanwhile, and live as long as they say something.
        send(&mut other, &[255, 255, 255, 254, 0, 0, 0, 11]);
        assert_eq!(receive(&mut other).len(), 16);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(open, [false, false], "a byte is not a packet");
    assert!(begun.elapsed() < Duration::from_secs(8));
}

#[test]
fn a_client_that_never_reads_is_left_waiting_and_harms_nobody() {
    let driver = driver();
    let path = "/large".parse().expect("valid");
    let data = vec![7; 100_000];
    driver.client().create(&path, data, CreateMode::Persistent).wait().expect("written");
    let mut options = ListenerOptions::default();
    options.connection.timeout_max = Duration::from_secs(4);
    let listener = listener(&driver, options);
    settle(&driver);
    let mut deaf = dial(listener.local_addr());
    connect(&mut deaf);
    deaf.set_nonblocking(true).expect("it is open");
    let mut packet = Vec::new();
    Request::GetData(WatchedRequest { path: "/large", watch: false }).encode(5, &mut packet);
    let length = u32::try_from(packet.len()).expect("short").to_be_bytes();
    let request = [&length[..], &packet].concat();
    let begun = Instant::now();
    let mut taken = 0;
    let ended = loop {
        match deaf.write(&request) {
            Ok(count) => taken += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(_) => break true,
        }
        if begun.elapsed() > Duration::from_secs(20) {
            break false;
        }
        // A few megabytes wait here and in the system's buffers; requests wait in the socket.
        assert!(taken < 64 << 20, "it takes what it cannot answer");
        if taken % 1024 < request.len() {
            let mut other = dial(listener.local_addr());
            other.write_all(b"ruok").expect("it is open");
            let mut text = String::new();
            other.read_to_string(&mut text).expect("it is answered");
            assert_eq!(text, "imok");
        }
    };
    assert!(ended, "it takes nothing and says nothing that is looked at: it is gone");
}

#[test]
fn those_that_hold_most_are_closed_when_all_hold_too_much() {
    let driver = driver();
    let options = ListenerOptions { held_bytes_max: 1 << 20, ..ListenerOptions::default() };
    let listener = listener(&driver, options);
    settle(&driver);
    let mut modest = dial(listener.local_addr());
    connect(&mut modest);
    let mut greedy: Vec<_> = (1..=4)
        .map(|share| {
            let mut socket = dial(listener.local_addr());
            connect(&mut socket);
            // A packet that is said to be long, and never complete.
            let said: u32 = 1_000_000;
            socket.write_all(&said.to_be_bytes()).expect("it is open");
            // It may be closed before all of that is there.
            let _ = socket.write_all(&vec![0; share * 150_000]);
            socket
        })
        .collect();
    let most = greedy.last_mut().expect("there are four");
    let end = most.read(&mut [0; 1]).map_err(|error| error.kind());
    let waits = matches!(end, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut));
    assert!(!waits, "it held most, and is closed");
    send(&mut modest, &[255, 255, 255, 254, 0, 0, 0, 11]);
    assert_eq!(receive(&mut modest).len(), 16);
    let least = greedy.first_mut().expect("there are four");
    least.set_read_timeout(Some(Duration::from_millis(300))).expect("it can");
    let waits = least.read(&mut [0; 1]).expect_err("nothing is said").kind();
    assert!(matches!(waits, ErrorKind::WouldBlock | ErrorKind::TimedOut));
}

#[test]
fn a_drain_answers_what_was_taken_and_breaks_nothing_off() {
    let driver = driver();
    let options =
        ListenerOptions { drain_max: Duration::from_secs(10), ..ListenerOptions::default() };
    let listener = listener(&driver, options);
    settle(&driver);
    let address = listener.local_addr();
    let (request, clients) = (writes("/n-"), 8);
    let threads: Vec<_> = (0..clients)
        .map(|_| {
            let mut socket = dial(address);
            connect(&mut socket);
            let mut reader = socket.try_clone().expect("it is open");
            let request = request.clone();
            // It goes on sending until it is told that nobody listens.
            let writer = std::thread::spawn(move || while socket.write_all(&request).is_ok() {});
            std::thread::spawn(move || {
                let mut all = Vec::new();
                let end = reader.read_to_end(&mut all);
                drop(reader.shutdown(Shutdown::Both));
                writer.join().expect("it ends");
                (end, all)
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    listener.stop();
    assert!(begun.elapsed() < Duration::from_secs(9), "it does not wait for its deadline");
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    let mut answered = 0;
    for thread in threads {
        let (end, all) = thread.join().expect("it ends");
        end.expect("the end comes in order, behind the answers");
        let mut rest = &all[..];
        while let Some((length, more)) = rest.split_first_chunk() {
            let packet = more.get(..u32::from_be_bytes(*length) as usize).expect("it is whole");
            let (header, _) = Response::decode(Some(OpCode::Create), packet).expect("valid");
            assert_eq!((header.xid, header.err), (5, 0));
            answered += 1;
            rest = &more[packet.len()..];
        }
    }
    // What is there was answered: a write that nobody was told of would be one more.
    // The root and ZooKeeper's own nodes are there from the start.
    let znodes = driver.client().status().wait().expect("it runs").znodes;
    assert_eq!(answered, znodes - 4);
    assert!(answered > clients);
}

#[test]
fn many_clients_are_served_by_one_thread() {
    let driver = driver();
    let listener = listener(&driver, ListenerOptions::default());
    let mut sockets: Vec<_> = (0..400).map(|_| dial(listener.local_addr())).collect();
    let mut packet = Vec::new();
    for socket in &mut sockets {
        connect(socket);
        let watch = Request::Exists(WatchedRequest { path: "/fires", watch: true });
        watch.encode(5, &mut packet);
        send(socket, &packet);
        packet.clear();
    }
    for socket in &mut sockets {
        let packet = receive(socket);
        let (header, _) = Response::decode(Some(OpCode::Exists), &packet).expect("valid");
        assert_eq!(header.err, ErrorCode::NoNode.number());
    }
    let path = "/fires".parse().expect("valid");
    driver.client().create(&path, "", CreateMode::Persistent).wait().expect("written");
    for socket in &mut sockets {
        let packet = receive(socket);
        assert!(matches!(Response::decode(None, &packet), Ok((_, Response::Event(_)))));
    }
    let half = sockets.split_off(200);
    drop(sockets);
    drop(half);
    let mut socket = dial(listener.local_addr());
    assert_ne!(connect(&mut socket), 0);
}
