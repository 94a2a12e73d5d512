//! The listener, over real sockets.
#![expect(clippy::disallowed_types, reason = "the clients of a listener have sockets")]

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use crate::{
    ClusterId, Config, CreateMode,
    driver::{Driver, Host, Inbox, Log, Switchboard},
    id::{Boot, NodeId, StoreId},
    node::{Consistency, Restored},
    zookeeper::{record::*, *},
};

fn driver() -> Driver {
    let id = NodeId::new(1).expect("not 0");
    let config = Config::founding(ClusterId::named("zk"), id, [id]).build().expect("valid");
    let inbox = Inbox::new();
    let line = Switchboard::new().connect(id, inbox.clone());
    let boot = Boot { counter: 1, nonce: 1 };
    let restored = Restored::new(StoreId::from_bytes([1; 16]), boot);
    let host = Host::new(config, Log::Memory, restored, line, inbox).expect("it opens");
    Driver::spawn(host).expect("there are threads")
}

fn listener(driver: &Driver, options: ListenerOptions) -> Listener {
    let address = "127.0.0.1:0".parse().expect("an address");
    Listener::spawn(driver.client(), address, options).expect("a free port")
}

fn dial(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).expect("it listens");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("it can");
    socket
}

fn send(socket: &mut TcpStream, packet: &[u8]) {
    let length = u32::try_from(packet.len()).expect("short").to_be_bytes();
    socket.write_all(&[&length[..], packet].concat()).expect("it is open");
}

fn receive(socket: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 4];
    socket.read_exact(&mut length).expect("it is answered");
    let mut packet = vec![0; u32::from_be_bytes(length) as usize];
    socket.read_exact(&mut packet).expect("it is answered");
    packet
}

/// Whether the other side has closed it, and said nothing more.
fn is_closed(socket: &mut TcpStream) -> bool {
    matches!(socket.read(&mut [0; 1]), Ok(0) | Err(_))
}

fn connect(socket: &mut TcpStream) -> i64 {
    let mut packet = Vec::new();
    let (protocol_version, last_zxid_seen, timeout, session) = (0, 0, 30_000, 0);
    let (password, read_only) = (Some(&[0; 16][..]), None);
    ConnectRequest { protocol_version, last_zxid_seen, timeout, session, password, read_only }
        .encode(&mut packet);
    send(socket, &packet);
    let packet = receive(socket);
    ConnectResponse::decode(&packet).expect("valid").session
}

fn ask<'a>(socket: &mut TcpStream, request: &Request<'_>, into: &'a mut Vec<u8>) -> Response<'a> {
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
