//! The four-letter words, as monitors ask them.
#![expect(clippy::disallowed_methods, reason = "real threads are waited for in real time")]
#![expect(clippy::disallowed_types, reason = "the clients of a listener have sockets")]

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use super::listener::{ask, connect, dial, driver, listener, listener as serve, receive, settle};
use crate::{
    ClusterId, Config,
    driver::{Driver, Host, Inbox, Log, Switchboard},
    id::{Boot, NodeId, StoreId},
    node::Restored,
    zookeeper::{record::*, *},
};

/// What a word is answered.
fn word(address: SocketAddr, word: &str) -> String {
    let mut socket = dial(address);
    socket.write_all(word.as_bytes()).expect("it is open");
    let mut text = String::new();
    socket.read_to_string(&mut text).expect("it is closed behind the answer");
    text
}

/// A line of `mntr`.
fn value(text: &str, key: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("zk_{key}\t")));
    line.unwrap_or_else(|| panic!("no {key} in {text}")).to_owned()
}

fn watched(path: &str) -> Request<'_> {
    Request::GetData(WatchedRequest { path, watch: true })
}

/// A client that owns `/a/eph` and watches `/a` in every way; gives its session.
fn busy_client(at: SocketAddr) -> (TcpStream, i64) {
    let mut socket = dial(at);
    let session = connect(&mut socket);
    let mut packet = Vec::new();
    let acl = || vec![AclEntry { perms: 31, id: Id { scheme: "world", id: "anyone" } }];
    for (path, flags) in [("/a", 0), ("/a/eph", 1)] {
        let create = CreateRequest { path, data: Some(b"12345"), acl: acl(), flags };
        ask(&mut socket, &Request::Create(OpCode::Create, create), &mut packet);
    }
    ask(&mut socket, &watched("/a"), &mut packet);
    let children = Request::GetChildren(WatchedRequest { path: "/a", watch: true });
    ask(&mut socket, &children, &mut packet);
    let recursive = Request::AddWatch(WatchRequest { path: "/a", kind: 1 });
    ask(&mut socket, &recursive, &mut packet);
    (socket, session)
}

#[test]
fn words_tell_of_the_server_its_sessions_and_their_watches() {
    let driver = driver();
    let data_dir = Some("/var/data".into());
    let listener = listener(&driver, ListenerOptions { data_dir, ..ListenerOptions::default() });
    settle(&driver);
    let at = listener.local_addr();
    let (socket, session) = busy_client(at);
    let peer = socket.local_addr().expect("it is open");
    for (asked, expected) in [
        ("ruok", "imok".to_owned()),
        ("isro", "rw".to_owned()),
        ("gtmk", "0".to_owned()),
        ("wchs", "1 connections watching 1 paths\nTotal watches:1\n".to_owned()),
        ("wchc", format!("{session:#x}\n\t/a\n\n")),
        ("wchp", format!("/a\n\t{session:#x}\n\n")),
        ("dirs", "datadir_size: 0\nlogdir_size: 0\n".to_owned()),
        ("nope", String::new()),
    ] {
        assert_eq!(word(at, asked), expected, "{asked}");
    }
    let whole = word(at, "srvr");
    for line in ["Outstanding: 0", "Mode: standalone", "Node count: 6", "Connections: 2"] {
        assert!(whole.lines().any(|it| it == line), "{line} in {whole}");
    }
    assert!(whole.starts_with("Zookeeper version: 3.9.0") && whole.contains("\nZxid: 0x"));
    let clients = word(at, "stat");
    assert!(clients.contains(&format!("\nClients:\n /{peer}[1](queued=0,recved=6,sent=6)\n")));
    let connections = word(at, "cons");
    let begin = format!(" /{peer}[1](queued=0,recved=6,sent=6,sid={session:#x},lop=ADDW,est=");
    assert!(connections.starts_with(&begin), "{connections}");
    assert!(connections.contains(",to=30000,lcxid=0x5,lzxid=0x") && connections.ends_with("\n\n"));
    let dump = word(at, "dump");
    assert!(dump.starts_with("SessionTracker dump:\nSession Sets (1)/(1):\n1 expire at "));
    let owned = format!("Sessions with Ephemerals (1):\n{session:#x}:\n\t/a/eph\n");
    assert!(dump.contains(&format!("\t{session:#x}\nephemeral nodes dump:\n{owned}")), "{dump}");
    let conf = word(at, "conf");
    let ours = ["dataDir=/var/data", "tickTime=2000", "maxSessionTimeout=40000", "serverId=1"];
    assert!(ours.iter().all(|line| conf.lines().any(|it| it == *line)), "{conf}");
    assert!(conf.starts_with(&format!("clientPort={}\n", at.port())));
    assert!(word(at, "envi").contains("\nhost.name="));
}

#[test]
fn what_monitors_read_is_in_zookeepers_names_and_units() {
    let driver = driver();
    let listener = listener(&driver, ListenerOptions::default());
    settle(&driver);
    let at = listener.local_addr();
    let _client = busy_client(at);
    let status = driver.client().status().wait().expect("it runs");
    let hash = format!("{:x}: {}\n", status.zxid.as_u64(), status.digest as i64);
    assert_eq!(word(at, "hash"), hash);
    let text = word(at, "mntr");
    // Paths and data, as ZooKeeper counts them.
    let bytes = "/zookeeper/config".len() + "/zookeeper/quota".len() + "/zookeeper".len() + 1;
    for (key, expected) in [
        ("server_state", "standalone".to_owned()),
        ("znode_count", "6".to_owned()),
        ("ephemerals_count", "1".to_owned()),
        // The one that stays is among those of data and those of children, as the others are.
        ("watch_count", "2".to_owned()),
        ("global_sessions", "1".to_owned()),
        ("approximate_data_size", (bytes + 2 + 6 + 10).to_string()),
        ("cnt_updatelatency", "3".to_owned()),
    ] {
        assert_eq!(value(&text, key), expected, "{key}");
    }
    let open: u64 = value(&text, "open_file_descriptor_count").parse().expect("a number");
    let max: u64 = value(&text, "max_file_descriptor_count").parse().expect("a number");
    assert!(0 < open && open <= max);
}

#[test]
fn words_that_are_not_allowed_are_refused() {
    let driver = driver();
    let words = Word::list("srvr, isro").expect("known");
    let listener = listener(&driver, ListenerOptions { words, ..ListenerOptions::default() });
    settle(&driver);
    for asked in ["ruok", "wchc"] {
        let refused = word(listener.local_addr(), asked);
        let why = "is not executed because it is not in the whitelist.";
        assert_eq!(refused, format!("{asked} {why}\n"));
    }
    assert_eq!(word(listener.local_addr(), "isro"), "rw");
}

#[test]
fn what_is_counted_is_set_back_where_it_is_asked_for() {
    let driver = driver();
    let listener = listener(&driver, ListenerOptions::default());
    settle(&driver);
    let at = listener.local_addr();
    let mut socket = dial(at);
    connect(&mut socket);
    let mut packet = Vec::new();
    ask(&mut socket, &watched("/zookeeper"), &mut packet);
    let count = |key| value(&word(at, "mntr"), key).parse::<u64>().expect("a number");
    assert!(count("packets_received") > 2 && count("cnt_readlatency") == 1);
    assert_eq!(word(at, "srst"), "Server stats reset.\n");
    // Its own answer, and the one that is asked.
    assert_eq!((count("packets_received"), count("cnt_readlatency")), (1, 0));
    assert!(word(at, "cons").contains("(queued=0,recved=2,sent=2,sid="), "that is not set back");
    assert_eq!(word(at, "crst"), "Connection stats reset.\n");
    let connections = word(at, "cons");
    let zeros = ",lzxid=0xffffffffffffffff,lresp=0,llat=0,minlat=0,avglat=0,maxlat=0)\n";
    assert!(connections.contains("(queued=0,recved=0,sent=0,sid="), "{connections}");
    assert!(connections.contains(",lop=NA,est=") && connections.contains(zeros));
    assert!(!connections.contains("lcxid"), "{connections}");
}

#[test]
fn without_a_leader_only_those_are_answered_that_ask_nobody() {
    let id = |n| NodeId::new(n).expect("not 0");
    let config = Config::founding(ClusterId::named("zk"), id(1), [id(1), id(2)]).build();
    let inbox = Inbox::new();
    let line = Switchboard::new().connect(id(1), inbox.clone());
    let boot = Boot { counter: 1, nonce: 1 };
    let restored = Restored::new(StoreId::from_bytes([1; 16]), boot);
    let host = Host::new(config.expect("valid"), Log::Memory, restored, line, inbox);
    let driver = Driver::spawn(host.expect("it opens")).expect("there are threads");
    let listener = listener(&driver, ListenerOptions::default());
    let at = listener.local_addr();
    assert_eq!((word(at, "ruok"), word(at, "isro")), ("imok".into(), "null".into()));
    for asked in ["srvr", "stat", "mntr", "cons", "dump", "conf", "wchs", "crst", "hash", "dirs"] {
        let not = "This ZooKeeper instance is not currently serving requests\n";
        assert_eq!(word(at, asked), not, "{asked}");
    }
}

#[test]
fn a_word_is_answered_however_it_is_sent_and_many_at_once() {
    let driver = driver();
    let listener = listener(&driver, ListenerOptions::default());
    settle(&driver);
    let at = listener.local_addr();
    let asked: Vec<_> = (0..200)
        .map(|n| {
            let mut socket = dial(at);
            socket.write_all(if n % 2 == 0 { b"srvr" } else { b"mntr" }).expect("it is open");
            // Who asks with a pipe has no more to say, or says more than the word.
            match n % 3 {
                0 => socket.shutdown(Shutdown::Write).expect("it is open"),
                1 => socket.write_all(&[b'\n'; 3000]).expect("it is open"),
                _ => {}
            }
            socket
        })
        .collect();
    for mut socket in asked {
        let mut text = String::new();
        socket.read_to_string(&mut text).expect("it ends, and is not broken off");
        assert!(text.contains("standalone"), "{text}");
    }
    let mut slow = dial(at);
    for letter in b"ruok" {
        slow.write_all(&[*letter]).expect("it is open");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut text = String::new();
    slow.read_to_string(&mut text).expect("it is closed behind the answer");
    assert_eq!(text, "imok");
}

#[test]
fn the_config_follows_the_members_and_tells_who_watches() {
    let id = |n| NodeId::new(n).expect("not 0");
    let switchboard = Switchboard::new();
    let spawn = |config: Config, store| {
        let inbox = Inbox::new();
        let line = switchboard.connect(config.id(), inbox.clone());
        let boot = Boot { counter: 1, nonce: 1 };
        let restored = Restored::new(StoreId::from_bytes([store; 16]), boot);
        let host = Host::new(config, Log::Memory, restored, line, inbox).expect("it opens");
        Driver::spawn(host).expect("there are threads")
    };
    let cluster = ClusterId::named("zk");
    let first = spawn(Config::founding(cluster, id(1), [id(1)]).build().expect("valid"), 1);
    let mut options = ListenerOptions::default();
    options.servers.insert(id(1), ServerAddress::new("a:2888").client("a:2181"));
    let listener = listener(&first, options.clone());
    settle(&first);
    let mut socket = dial(listener.local_addr());
    connect(&mut socket);
    let mut packet = Vec::new();
    let until = |socket: &mut _, packet: &mut _, what: &str| {
        let since = Instant::now();
        loop {
            let config =
                Request::GetData(WatchedRequest { path: "/zookeeper/config", watch: false });
            let Response::Node(node) = ask(socket, &config, packet) else { panic!("a node") };
            let text = String::from_utf8_lossy(node.data.unwrap_or_default()).into_owned();
            let Some((lines, version)) = text.split_once("version=") else {
                assert!(text.is_empty() && since.elapsed() < Duration::from_secs(20), "{text}");
                continue;
            };
            if lines == what {
                return u64::from_str_radix(version, 16).expect("hexadecimal");
            }
            assert!(since.elapsed() < Duration::from_secs(20), "{text}");
        }
    };
    let alone = "server.1=a:2888:2888:participant;a:2181\n";
    let before = until(&mut socket, &mut packet, alone);
    let mut watcher = dial(listener.local_addr());
    connect(&mut watcher);
    ask(&mut watcher, &watched("/zookeeper/config"), &mut packet);
    // The second one's own listener says where it is: the first one does not know.
    let second = spawn(Config::joining(cluster, id(2)).build().expect("valid"), 2);
    first.client().add_learner(id(2)).wait().expect("it leads");
    options.servers = [(id(2), ServerAddress::new("[::1]:2889"))].into();
    let other = serve(&second, options);
    let both = format!("{alone}server.2=[::1]:2889:2889:observer\n");
    let after = until(&mut socket, &mut packet, &both);
    assert!(after > before);
    let event = receive(&mut watcher);
    let (header, Response::Event(event)) = Response::decode(None, &event).expect("valid") else {
        panic!("an event");
    };
    assert_eq!((header.xid, event.path), (-1, "/zookeeper/config"));
    // The listeners have come to rest: what follows is no late look at the members.
    std::thread::sleep(Duration::from_millis(2_500));
    let since = Instant::now();
    while first.client().promote(id(2)).wait().is_err() {
        assert!(since.elapsed() < Duration::from_secs(20));
    }
    let both = both.replace("observer", "participant");
    until(&mut socket, &mut packet, &both);
    let conf = word(listener.local_addr(), "conf");
    assert!(conf.contains("peerType=0\nmembership: \nserver.1=a:2888:"), "{conf}");
    assert_eq!(value(&word(listener.local_addr(), "mntr"), "learners"), "1");
    assert!(word(other.local_addr(), "srvr").contains("\nMode: follower\n"));
    assert!(word(other.local_addr(), "dump").contains("\nGlobal Sessions(2):\n0x"));
}
