//! A listener in a process that has no descriptors left. It is alone in its process, for the limit
//! is the whole process's.
#![expect(clippy::disallowed_types, reason = "the clients of a listener have sockets")]

use std::{
    io::{Read as _, Write as _},
    net::{TcpStream, UdpSocket},
    time::Duration,
};

use quorate::{
    Boot, ClusterId, Config, NodeId, StoreId,
    driver::{Driver, Host, Inbox, Log, Switchboard},
    node::Restored,
    zookeeper::{Listener, ListenerOptions},
};
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    time::{ClockId, clock_gettime},
};

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).expect("positive");
    Duration::new(seconds, u32::try_from(time.tv_nsec).expect("small"))
}

#[test]
fn who_waits_for_a_descriptor_is_served_when_there_is_one_and_nothing_spins() {
    let id = NodeId::new(1).expect("not 0");
    let config = Config::founding(ClusterId::named("zk"), id, [id]).build().expect("valid");
    let inbox = Inbox::new();
    let line = Switchboard::new().connect(id, inbox.clone());
    let boot = Boot { counter: 1, nonce: 1 };
    let restored = Restored::new(StoreId::from_bytes([1; 16]), boot);
    let host = Host::new(config, Log::Memory, restored, line, inbox).expect("it opens");
    let driver = Driver::spawn(host).expect("there are threads");
    let address = "127.0.0.1:0".parse().expect("an address");
    let options = ListenerOptions::default();
    let listener = Listener::spawn(driver.client(), address, options).expect("a free port");
    let limit = Rlimit { current: Some(128), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).expect("it is lower");
    let any = "127.0.0.1:0";
    let mut taken: Vec<_> = std::iter::from_fn(|| UdpSocket::bind(any).ok()).collect();
    taken.pop();
    let mut socket = TcpStream::connect(listener.local_addr()).expect("one is left");
    socket.write_all(b"ruok").expect("the system has it");
    socket.set_read_timeout(Some(Duration::from_millis(700))).expect("it can");
    let before = cpu();
    let mut text = String::new();
    socket.read_to_string(&mut text).expect_err("there is none left for the listener");
    assert!(cpu() - before < Duration::from_millis(350), "it tries again and again");
    drop(taken);
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("it can");
    socket.read_to_string(&mut text).expect("nobody else has to come for that");
    assert_eq!(text, "imok");
}
