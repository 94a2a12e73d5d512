//! The transport on loopback: order, loss of a peer, bad peers, slow peers, and its end.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the tests speak to the transport over real sockets"
)]

use std::{
    cell::RefCell,
    collections::VecDeque,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{hello::Hello, *};
use crate::{
    config::Config,
    driver::{Differs, Host, HostError, Log},
    id::{Boot, StoreId},
    node::Restored,
};

const WAIT: Duration = Duration::from_secs(10);

fn node(id: u64) -> NodeId {
    NodeId::new(id).expect("tests use small ids")
}

fn cluster() -> ClusterId {
    ClusterId::named("tests")
}

/// What a member's inbox has, frame by frame.
struct Frames {
    inbox: Inbox,
    taken: RefCell<VecDeque<(NodeId, Bytes)>>,
}

impl Frames {
    fn recv_timeout(&self, timeout: Duration) -> Option<(NodeId, Bytes)> {
        if self.taken.borrow().is_empty() {
            let frames = self.inbox.take_frames(timeout);
            self.taken.borrow_mut().extend(frames);
        }
        self.taken.borrow_mut().pop_front()
    }

    fn try_recv(&self) -> Option<(NodeId, Bytes)> {
        self.recv_timeout(Duration::ZERO)
    }

    fn len(&self) -> usize {
        let frames = self.inbox.take_frames(Duration::ZERO);
        self.taken.borrow_mut().extend(frames);
        self.taken.borrow().len()
    }
}

fn inbox(capacity: usize) -> (Inbox, Frames) {
    let inbox = Inbox::bounded(capacity, usize::MAX, 0);
    let frames = Frames { inbox: inbox.clone(), taken: RefCell::default() };
    (inbox, frames)
}

fn quick() -> TcpOptions {
    TcpOptions {
        probe_interval: Duration::from_millis(50),
        silence_max: Duration::from_millis(400),
        handshake_timeout: Duration::from_millis(300),
        backoff_max: Duration::from_millis(50),
        ..TcpOptions::default()
    }
}

struct Member {
    transport: TcpTransport,
    arrived: Frames,
}

fn member_at(id: u64, listen: SocketAddr, options: TcpOptions) -> Member {
    let (inbox, arrived) = inbox(1 << 16);
    let transport = TcpTransport::bind_with(node(id), cluster(), listen, inbox, options)
        .expect("loopback has the port");
    Member { transport, arrived }
}

fn member(id: u64, options: TcpOptions) -> Member {
    member_at(id, SocketAddr::from(([127, 0, 0, 1], 0)), options)
}

impl Member {
    fn dial(&self, peer: &Member) {
        let (id, address) = (peer.transport.shared.id, peer.transport.local_addr());
        self.transport.connect(id, address).expect("the address is right");
    }

    fn send(&mut self, to: u64, bytes: impl Into<Bytes>) {
        self.transport.send(Message::new(node(to), bytes.into()));
        self.transport.flush();
    }

    fn next(&self) -> Bytes {
        self.arrived.recv_timeout(WAIT).expect("a frame arrives").1
    }

    fn peer(&self, id: u64) -> PeerStatus {
        let peers = self.transport.handle().status().peers;
        let found = peers.into_iter().find(|peer| peer.peer == node(id));
        found.expect("the peer is dialed")
    }

    fn inbound(&self) -> InboundStatus {
        self.transport.handle().status().inbound
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + WAIT;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Speaks to `member` by hand; what is read back before it hangs up.
fn speak(member: &Member, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(member.transport.local_addr()).expect("it listens");
    stream.write_all(bytes).expect("the buffer takes a hello");
    let mut answer = Vec::new();
    stream.set_read_timeout(Some(WAIT)).expect("a timeout is allowed");
    let _ = stream.read_to_end(&mut answer);
    answer
}

fn hello(from: u64, to: u64) -> Hello {
    Hello { cluster: cluster(), from: node(from), to: node(to) }
}

/// A connection that was welcomed as member `from`.
fn joined(member: &Member, from: u64) -> TcpStream {
    let mut stream = TcpStream::connect(member.transport.local_addr()).expect("it listens");
    let to = member.transport.shared.id.as_u64();
    stream.write_all(&hello(from, to).encode()).expect("the buffer takes a hello");
    let mut welcome = [0; hello::WELCOME_BYTES];
    stream.read_exact(&mut welcome).expect("a welcome comes");
    assert_eq!(hello::Welcome::decode(&welcome).map(|it| it.verdict), Ok(Ok(())));
    stream
}

#[test]
fn delivers_in_order_and_says_from_whom() {
    // Not `quick`: on a busy machine a silence of 400 ms proves nothing, and costs what is under
    // way.
    let patient = TcpOptions::default;
    let (mut a, mut b) = (member(1, patient()), member(2, patient()));
    a.dial(&b);
    b.dial(&a);
    for at in 0..5_000_u32 {
        let size = 4 + (at as usize * 37) % 5_000;
        let mut bytes = vec![at as u8; size];
        bytes[..4].copy_from_slice(&at.to_le_bytes());
        a.transport.send(Message::new(node(2), bytes.into()));
        if at % 50 == 0 {
            a.transport.flush();
        }
    }
    a.transport.flush();
    for at in 0..5_000_u32 {
        let (from, bytes) = b.arrived.recv_timeout(WAIT).expect("every frame arrives");
        assert_eq!(from, node(1));
        assert_eq!(bytes[..4], at.to_le_bytes());
        assert_eq!(bytes.len(), 4 + (at as usize * 37) % 5_000);
        assert!(bytes[4..].iter().all(|byte| *byte == at as u8));
    }
    b.send(1, "back");
    assert_eq!(a.next(), "back");
    until("all is written", || a.peer(2).sent_frames == 5_000);
    let peer = a.peer(2);
    assert_eq!((peer.queued_frames, peer.queued_bytes), (0, 0));
    // Counted after they were handed over.
    until("all is counted", || b.inbound().received_frames == 5_000);
}

#[test]
fn frames_of_a_turn_leave_at_flush_even_when_nothing_was_connected_yet() {
    let (mut a, b) = (member(1, quick()), member(2, quick()));
    a.dial(&b);
    a.send(2, "first");
    assert_eq!(b.next(), "first");
}

#[test]
fn connects_again_after_the_peer_restarted_on_its_port() {
    let (mut a, b) = (member(1, quick()), member(2, quick()));
    a.dial(&b);
    a.send(2, "before");
    assert_eq!(b.next(), "before");
    let address = b.transport.local_addr();
    drop(b);
    until("the loss is noticed", || {
        a.send(2, "lost");
        !a.peer(2).connected
    });
    let b = member_at(2, address, quick());
    until("frames arrive again", || {
        a.send(2, "after");
        b.arrived.try_recv().is_some_and(|(_, bytes)| bytes == "after")
    });
    assert!(a.peer(2).connections >= 2);
    assert!(a.peer(2).last_failure.is_some());
}

#[test]
fn a_changed_address_is_dialed_at_once_and_names_are_resolved() {
    let (mut a, b) = (member(1, TcpOptions::default()), member(2, quick()));
    a.dial(&b);
    a.send(2, "old");
    assert_eq!(b.next(), "old");
    let moved = member(2, quick());
    let port = moved.transport.local_addr().port();
    let handle = a.transport.handle();
    handle.connect(node(2), format!("localhost:{port}")).expect("a name is an address");
    until("frames arrive at the new address", || {
        a.send(2, "new");
        moved.arrived.try_recv().is_some()
    });
    handle.disconnect(node(2));
    a.send(2, "to nobody");
    assert!(handle.status().peers.is_empty());
    until("the connection ends", || moved.inbound().members.is_empty());
}

#[test]
fn refuses_what_is_not_a_peer() {
    let mut b = member(2, quick());
    let right = hello(1, 2).encode();
    let mut damaged = right;
    damaged[30] ^= 1;
    let mut version = right;
    version[4] = 9;
    let other = Hello { cluster: ClusterId::named("other"), ..hello(1, 2) };
    let rows: [(&[u8], TcpRefusal); 7] = [
        (&other.encode(), TcpRefusal::OtherCluster),
        (&hello(1, 3).encode(), TcpRefusal::OtherReceiver),
        (&hello(2, 2).encode(), TcpRefusal::Itself),
        (&damaged, TcpRefusal::Checksum),
        (&version, TcpRefusal::Version),
        (&[b'x'; 200], TcpRefusal::Garbage),
        (&right[..20], TcpRefusal::Late),
    ];
    for (bytes, reason) in rows {
        let answer = speak(&b, bytes);
        assert_eq!(b.inbound().refused.get(&reason), Some(&1), "{reason}");
        if matches!(reason, TcpRefusal::Garbage | TcpRefusal::Late) {
            assert!(answer.is_empty(), "{reason}");
        } else {
            let answer: [u8; hello::WELCOME_BYTES] = answer.try_into().expect("one answer");
            let welcome = hello::Welcome::decode(&answer).expect("it is right");
            assert_eq!(welcome.verdict, Err(reason));
        }
    }
    assert_eq!(b.arrived.len(), 0);
    let mut a = member(1, quick());
    a.dial(&b);
    b.dial(&a);
    a.send(2, "unharmed");
    assert_eq!(b.next(), "unharmed");
    b.send(1, "too");
    assert_eq!(a.next(), "too");
}

#[test]
fn a_dialer_learns_why_it_is_refused() {
    let a = member(1, quick());
    let b = member(2, quick());
    let address = b.transport.local_addr();
    a.transport.connect(node(3), address).expect("the address is right");
    until("the reason is known", || {
        a.peer(3).last_failure.is_some_and(|why| why.contains("meant for another member"))
    });
    assert!(!a.peer(3).connected);
    // Someone who is no member at all: the dialer goes away within the deadline.
    let silent = TcpListener::bind("127.0.0.1:0").expect("loopback has a port");
    let address = silent.local_addr().expect("it is bound");
    a.transport.connect(node(4), address).expect("the address is right");
    until("the silence is noticed", || a.peer(4).failures > 0);
}

#[test]
fn closes_a_member_that_sends_damage_or_too_much() {
    let options = TcpOptions { frame_bytes_max: 1_000, ..quick() };
    let mut b = member(2, options.clone());
    let mut prefix = vec![0xE9, 3, 0, 0];
    prefix.extend_from_slice(&crc32c::crc32c(&[0xE9, 3, 0, 0]).to_le_bytes());
    for (at, bytes) in [(1, &b"garbage garbage"[..]), (2, &prefix)] {
        let mut stream = joined(&b, 1);
        stream.write_all(bytes).expect("the buffer takes it");
        until("the damage is noticed", || b.inbound().damaged == at);
        assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
    }
    // An honest member with another limit drops such frames before they leave.
    let mut a = member(1, options);
    a.dial(&b);
    b.dial(&a);
    a.send(2, vec![1; 1_001]);
    a.send(2, vec![2; 1_000]);
    assert_eq!(b.next(), vec![2; 1_000]);
    assert_eq!(a.peer(2).dropped_oversize, 1);
    b.send(1, "unharmed");
    assert_eq!(a.next(), "unharmed");
}

#[test]
fn half_open_connections_make_room_and_end() {
    let options = TcpOptions { handshakes_max: 4, ..quick() };
    let b = member(2, options);
    // Slow on purpose: a byte now and then does not move the deadline.
    let mut slow: Vec<_> = (0..12)
        .map(|_| TcpStream::connect(b.transport.local_addr()).expect("it listens"))
        .collect();
    let started = Instant::now();
    let mut a = member(1, quick());
    a.dial(&b);
    a.send(2, "through");
    assert_eq!(b.next(), "through");
    assert!(started.elapsed() < Duration::from_millis(250), "no room was made");
    until("all are closed", || {
        for stream in &mut slow {
            let _ = stream.write_all(b"Q");
        }
        let refused = b.inbound().refused;
        refused.values().sum::<u64>() == 12
    });
    assert!(started.elapsed() < Duration::from_secs(2));
    let made_room = b.inbound().refused.get(&TcpRefusal::Full).copied();
    assert!(made_room >= Some(8), "only four may wait at a time: {made_room:?}");
    until("their threads end", || b.transport.shared.threads.live() == 2);
}

#[test]
fn members_are_bounded_and_the_newest_connection_of_one_counts() {
    let options = TcpOptions { connections_max: 2, ..quick() };
    let b = member(2, options);
    let mut older = joined(&b, 7);
    let _other = joined(&b, 8);
    let _newer = joined(&b, 7);
    until("the older one is closed", || matches!(older.read(&mut [0; 1]), Ok(0) | Err(_)));
    let answer = speak(&b, &hello(9, 2).encode());
    let answer: [u8; hello::WELCOME_BYTES] = answer.try_into().expect("one answer");
    let welcome = hello::Welcome::decode(&answer).expect("it is right");
    assert_eq!(welcome.verdict, Err(TcpRefusal::Full));
    assert_eq!(b.inbound().members, [node(7), node(8)]);
}

#[test]
fn silent_connections_end_on_both_sides() {
    let b = member(2, quick());
    let _mute = joined(&b, 7);
    until("the silence is noticed", || b.inbound().silent == 1);
    // A peer that takes everything and answers no probe.
    let deaf = TcpListener::bind("127.0.0.1:0").expect("loopback has a port");
    let address = deaf.local_addr().expect("it is bound");
    b.transport.connect(node(3), address).expect("the address is right");
    let (mut stream, _) = deaf.accept().expect("it is dialed");
    let mut bytes = [0; hello::HELLO_BYTES];
    stream.read_exact(&mut bytes).expect("a hello comes");
    let welcome = hello::Welcome { from: node(3), verdict: Ok(()) };
    stream.write_all(&welcome.encode()).expect("the buffer takes it");
    until("it is connected", || b.peer(3).connected);
    until("it is given up", || {
        b.peer(3).last_failure.is_some_and(|why| why.contains("no sign of life"))
    });
    // An idle connection between members that live stays.
    let a = member(1, quick());
    a.dial(&b);
    until("it is connected", || a.peer(2).connected);
    std::thread::sleep(Duration::from_millis(1_000));
    assert_eq!((a.peer(2).connected, a.peer(2).failures), (true, 0));
}

#[test]
fn a_slow_reader_costs_its_own_queue_only() {
    let options = TcpOptions {
        queue_bytes_max: 1 << 20,
        queue_count_max: 500,
        silence_max: Duration::from_secs(5),
        ..quick()
    };
    let (mut a, b) = (member(1, options), member(2, quick()));
    a.dial(&b);
    let stuck = TcpListener::bind("127.0.0.1:0").expect("loopback has a port");
    a.transport
        .connect(node(3), stuck.local_addr().expect("it is bound"))
        .expect("the address is right");
    let (mut stream, _) = stuck.accept().expect("it is dialed");
    stream.read_exact(&mut [0; hello::HELLO_BYTES]).expect("a hello comes");
    let welcome = hello::Welcome { from: node(3), verdict: Ok(()) };
    stream.write_all(&welcome.encode()).expect("the buffer takes it");
    let block = Bytes::from(vec![5; 100_000]);
    until("its queue is full", || {
        a.send(3, block.clone());
        a.peer(3).dropped_full >= 100
    });
    let peer = a.peer(3);
    assert!(peer.queued_bytes <= 1 << 20, "{peer:?}");
    assert!(peer.queued_frames <= 500, "{peer:?}");
    for at in 0..1_000_u32 {
        a.send(3, block.clone());
        let started = Instant::now();
        a.send(2, at.to_le_bytes().to_vec());
        assert_eq!(b.next(), at.to_le_bytes()[..]);
        assert!(started.elapsed() < Duration::from_secs(1), "the other peer is delayed");
    }
    let started = Instant::now();
    drop(a);
    assert!(started.elapsed() < Duration::from_millis(350), "a stuck peer delays the end");
}

#[test]
fn a_full_host_loses_frames_and_nothing_else() {
    let (inbox, arrived) = inbox(10);
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let transport = TcpTransport::bind_with(node(2), cluster(), listen, inbox, quick());
    let transport = transport.expect("loopback has a port");
    let mut a = member(1, quick());
    a.transport.connect(node(2), transport.local_addr()).expect("the address is right");
    for _ in 0..100 {
        a.send(2, "x");
    }
    let handle = transport.handle();
    until("all came", || handle.status().inbound.received_frames == 100);
    assert_eq!(handle.status().inbound.undelivered_frames, 90);
    assert_eq!(arrived.len(), 10);
}

#[test]
fn dropping_ends_every_thread_and_frees_the_port() {
    let members: Vec<_> = (1..=5).map(|id| member(id, quick())).collect();
    for (from, to) in (0..25).map(|at| (at / 5, at % 5)).filter(|(from, to)| from != to) {
        members[from].dial(&members[to]);
    }
    for one in &members {
        until("all are connected", || {
            one.transport.handle().status().peers.iter().all(|peer| peer.connected)
        });
    }
    for one in members {
        let (shared, address) = (one.transport.shared.clone(), one.transport.local_addr());
        let handle = one.transport.handle();
        let started = Instant::now();
        drop(one);
        assert!(started.elapsed() < Duration::from_millis(200));
        assert_eq!(shared.threads.live(), 0);
        assert!(matches!(handle.connect(node(9), "127.0.0.1:1"), Err(TcpError::Closed)));
        TcpListener::bind(address).expect("the port is free");
    }
}

#[test]
fn frames_for_an_absent_peer_do_not_pile_up() {
    let mut a = member(1, quick());
    let closed = TcpListener::bind("127.0.0.1:0").expect("loopback has a port");
    let address = closed.local_addr().expect("it is bound");
    drop(closed);
    a.transport.connect(node(2), address).expect("the address is right");
    until("attempts fail", || a.peer(2).failures >= 3);
    for _ in 0..1_000 {
        a.send(2, "x");
    }
    until("the frames are dropped", || {
        let peer = a.peer(2);
        peer.queued_frames == 0 && peer.dropped_unreachable == 1_000
    });
    a.send(99, "to somebody unknown");
}

#[test]
fn refuses_a_wrong_set_up() {
    let options = TcpOptions { silence_max: Duration::from_millis(10), ..quick() };
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let refused = TcpTransport::bind_with(node(1), cluster(), listen, inbox(1).0, options);
    assert!(
        matches!(refused, Err(TcpError::OutOfRange { setting, .. }) if setting.contains("silence"))
    );
    let a = member(1, TcpOptions { peers_max: 1, ..quick() });
    let taken = a.transport.local_addr();
    let refused = TcpTransport::bind(node(2), cluster(), taken, inbox(1).0);
    assert!(matches!(refused, Err(TcpError::Listen { .. })));
    for address in ["", "localhost", "localhost:", ":80", "localhost:99999"] {
        let refused = a.transport.connect(node(2), address);
        assert!(matches!(refused, Err(TcpError::Address { .. })), "{address}");
    }
    assert!(matches!(a.transport.connect(node(1), taken), Err(TcpError::Itself { .. })));
    a.transport.connect(node(2), taken).expect("there is room");
    let refused = a.transport.connect(node(3), taken);
    assert!(matches!(refused, Err(TcpError::TooManyPeers { max: 1 })));
}

#[test]
fn reads_a_list_of_members() {
    let peers = parse_peers("2=[::1]:80, 1=localhost:7000").expect("well formed");
    let expected = [(node(1), "localhost:7000".into()), (node(2), "[::1]:80".into())];
    assert_eq!(peers, expected.into());
    for wrong in ["", "1", "1=", "0=a:1", "x=a:1", "1=a", "1=:1", "1=a:1,", "1=a:1,1=b:1"] {
        let refused = parse_peers(wrong);
        assert!(matches!(refused, Err(TcpError::Peers { peers }) if peers == wrong), "{wrong}");
    }
}

/// Prints what the transport carries; asserts that nothing is lost on the way.
#[test]
fn carries_its_load() {
    for (count, size) in [(200_000_u64, 300_usize), (2_000, 150 << 10)] {
        let (mut a, b) = (member(1, TcpOptions::default()), member(2, TcpOptions::default()));
        a.dial(&b);
        until("it is connected", || a.peer(2).connected);
        let frame = Bytes::from(vec![7; size]);
        let (started, cpu) = (Instant::now(), cpu_us());
        let mut arrived = 0;
        for at in 0..count {
            a.transport.send(Message::new(node(2), frame.clone()));
            if at % 32 == 31 || at + 1 == count {
                a.transport.flush();
            }
            // As consensus does, keep what is under way within a window.
            while at + 1 - arrived >= 2_000.min((32 << 20) / size as u64)
                || (at + 1 == count && arrived < count)
            {
                assert_eq!(b.next().len(), size);
                arrived += 1;
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        let cpu = cpu_us() - cpu;
        println!(
            "{size} bytes: {:.0} frames/s, {:.0} MB/s, {:.2} us CPU per frame (both ends)",
            count as f64 / seconds,
            count as f64 * size as f64 / seconds / 1e6,
            cpu as f64 / count as f64,
        );
    }
}

/// CPU time of this process; 0 where the system does not say. Counts tests that run beside.
fn cpu_us() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|it| it.parse::<u64>().ok()).sum();
    ticks * 10_000
}

/// Member, cluster and inbox are given to the transport and to the host: they must be the same.
#[test]
fn a_transport_serves_the_host_that_it_was_made_for() {
    let cluster = cluster();
    let host = |transport: &dyn Fn(Inbox) -> TcpTransport, inbox: Inbox| {
        let config = Config::founding(cluster, node(1), [node(1)]).build().expect("in range");
        let restored = Restored::new(StoreId::from_bytes([1; 16]), Boot { counter: 1, nonce: 1 });
        match Host::new(config, Log::Memory, restored, transport(inbox.clone()), inbox) {
            Ok(_) => None,
            Err(HostError::Transport(differs)) => Some(differs),
            Err(other) => panic!("{other}"),
        }
    };
    let bind = |n, cluster, inbox| {
        TcpTransport::bind(node(n), cluster, "127.0.0.1:0", inbox).expect("a free port")
    };
    let differs = host(&|inbox| bind(2, cluster, inbox), Inbox::new());
    assert_eq!(differs, Some(Differs::Member { made_for: node(2), id: node(1) }));
    let made_for = ClusterId::named("other");
    let differs = host(&|inbox| bind(1, made_for, inbox), Inbox::new());
    assert_eq!(differs, Some(Differs::Cluster { made_for, cluster }));
    let differs = host(&|_| bind(1, cluster, Inbox::new()), Inbox::new());
    assert_eq!(differs, Some(Differs::Inbox));
    assert_eq!(host(&|inbox| bind(1, cluster, inbox), Inbox::new()), None);
}
