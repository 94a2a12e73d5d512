//! A listener for ZooKeeper's clients: one thread for all connections.
//!
//! The thread reads and writes sockets, and runs a [`Connection`] for each. What they ask goes to
//! the node in one batch a round, and what the node tells comes back in batches, too.

use std::{
    collections::HashMap,
    io::{self, Read as _, Write as _},
    mem,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{Builder, JoinHandle},
    time::Duration,
};

use foldhash::fast::FixedState;
use mio::{
    Events, Interest, Poll, Token, Waker,
    event::Event as Readiness,
    net::{TcpListener, TcpStream},
};

use crate::{
    client::{Ask, Client, Gateway, Told},
    id::Secret,
    zookeeper::{
        connection::{Connection, ConnectionOptions},
        furniture::Furniture,
        watches::Watches,
        words,
    },
};

/// What bounds a listener.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ListenerOptions {
    /// What bounds each connection.
    pub connection: ConnectionOptions,
    /// Connections at once; further ones are closed. Default: 10,000.
    pub connections_max: usize,
    /// How long [`Listener::stop`] waits for answers that are under way. Default: 1 s.
    pub drain_max: Duration,
    /// What `/zookeeper/config` holds: the servers, one a line. Default: empty.
    pub config: String,
}

impl Default for ListenerOptions {
    fn default() -> Self {
        Self {
            connection: ConnectionOptions::default(),
            connections_max: 10_000,
            drain_max: Duration::from_secs(1),
            config: String::new(),
        }
    }
}

/// Serves ZooKeeper's clients on a port, for one node.
///
/// Dropping it closes every connection at once; sessions live on for their time-out.
///
/// ```no_run
/// # fn example(node: quorate::driver::Driver) -> std::io::Result<()> {
/// use quorate::zookeeper::{Listener, ListenerOptions};
/// let address = "127.0.0.1:2181".parse().expect("an address");
/// let listener = Listener::spawn(node.client(), address, ListenerOptions::default())?;
/// println!("listening on {}", listener.local_addr());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Listens on `address`; port 0 draws a free one.
    ///
    /// # Errors
    ///
    /// When the address cannot be used, or the system has no thread left.
    pub fn spawn(
        client: &Client,
        address: SocketAddr,
        options: ListenerOptions,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let mut socket = TcpListener::bind(address)?;
        let address = socket.local_addr()?;
        // After an outage all clients come at once; who finds no room waits for a second.
        rustix::net::listen(&socket, BACKLOG)?;
        poll.registry().register(&mut socket, LISTENER, Interest::READABLE)?;
        let stopping = Arc::new(AtomicBool::new(false));
        let server = Server::new((poll, socket), client, options, (&waker, &stopping));
        let name = format!("quorate-zookeeper-{}", address.port());
        let thread = Builder::new().name(name).spawn(move || server.run())?;
        Ok(Self { address, stopping, waker, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections and requests, waits a while for answers that are under way, and
    /// closes every connection.
    pub fn stop(mut self) {
        self.join();
    }

    fn join(&mut self) {
        self.stopping.store(true, Ordering::Release);
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.join();
    }
}

/// The thread's side.
struct Server {
    poll: Poll,
    socket: TcpListener,
    client: Client,
    gateway: Gateway,
    waker: Arc<Waker>,
    stopping: Arc<AtomicBool>,
    options: ListenerOptions,
    shared: Arc<ConnectionOptions>,
    furniture: Furniture,
    lines: HashMap<u64, Line, FixedState>,
    next: u64,
    watches: Watches,
    told: Vec<Told>,
    asks: Vec<(u64, Ask)>,
    /// Connections with something to read, to ask or to send.
    touched: Vec<u64>,
    buffer: Vec<u8>,
    next_tick: Duration,
    /// A gateway that is over is followed by another one, later.
    gone: bool,
    draining: Option<Duration>,
}

/// A connection and its socket.
struct Line {
    socket: TcpStream,
    connection: Connection,
    /// There may be more to read.
    readable: bool,
    writable: bool,
    /// The peer has said its last, or the socket has failed: to be read up to there.
    ends: bool,
    /// It is among those that are touched.
    touched: bool,
}

impl Line {
    fn touch(&mut self, id: u64, touched: &mut Vec<u64>) {
        if !mem::replace(&mut self.touched, true) {
            touched.push(id);
        }
    }
}

impl Server {
    fn new(
        (poll, socket): (Poll, TcpListener),
        client: &Client,
        options: ListenerOptions,
        (waker, stopping): (&Arc<Waker>, &Arc<AtomicBool>),
    ) -> Self {
        let shared = Arc::new(options.connection.clone());
        Self {
            poll,
            socket,
            client: client.clone(),
            gateway: gateway(client, waker),
            waker: Arc::clone(waker),
            stopping: Arc::clone(stopping),
            furniture: Furniture::new(client, &options.config),
            options,
            shared,
            lines: HashMap::default(),
            next: FIRST_CONNECTION,
            watches: Watches::default(),
            told: Vec::new(),
            asks: Vec::new(),
            touched: Vec::new(),
            buffer: vec![0; READ_BYTES],
            next_tick: Duration::ZERO,
            gone: false,
            draining: None,
        }
    }

    fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_PER_ROUND);
        loop {
            let now = self.client.now();
            let wait = match self.touched.is_empty() {
                true => self.next_tick.saturating_sub(now),
                false => Duration::ZERO,
            };
            // An interrupted wait is a short one.
            let _ = self.poll.poll(&mut events, Some(wait));
            let now = self.client.now();
            for event in &events {
                self.notice(event, now);
            }
            self.take_told(now);
            if now >= self.next_tick {
                self.tick(now);
            }
            self.serve(now);
            if self.is_drained(now) {
                return;
            }
        }
    }

    fn notice(&mut self, event: &Readiness, now: Duration) {
        match event.token() {
            LISTENER => self.accept(now),
            WAKER => {}
            Token(id) => {
                let id = id as u64;
                if let Some(line) = self.lines.get_mut(&id) {
                    line.ends |= event.is_read_closed() || event.is_error();
                    line.readable |= event.is_readable() || line.ends;
                    line.writable |= event.is_writable() || event.is_error();
                    line.touch(id, &mut self.touched);
                }
            }
        }
    }

    fn accept(&mut self, now: Duration) {
        while let Ok((mut socket, peer)) = self.socket.accept() {
            let full = self.lines.len() >= self.options.connections_max;
            let mut secret = [0; 16];
            if full || self.gone || self.draining.is_some() || getrandom::fill(&mut secret).is_err()
            {
                continue;
            }
            let id = self.next;
            let both = Interest::READABLE | Interest::WRITABLE;
            let Ok(token) = usize::try_from(id).map(Token) else {
                continue;
            };
            if self.poll.registry().register(&mut socket, token, both).is_err() {
                continue;
            }
            let _ = socket.set_nodelay(true);
            self.next += 1;
            let (secret, who) = (Secret::from_bytes(secret), (id, plain(peer.ip())));
            let connection = Connection::new(Arc::clone(&self.shared), who, secret, now);
            let (readable, writable, ends, touched) = (false, true, false, false);
            let line = Line { socket, connection, readable, writable, ends, touched };
            self.lines.insert(id, line);
        }
    }

    fn take_told(&mut self, now: Duration) {
        self.gateway.take(&mut self.told);
        let Self { lines, watches, touched, .. } = self;
        let mut gone = false;
        for told in self.told.drain(..) {
            match told {
                Told::Guest(id, answer) => {
                    if let Some(line) = lines.get_mut(&id) {
                        line.connection.answer(answer, watches, now);
                        line.touch(id, touched);
                    }
                }
                Told::Changes(changes) => {
                    for event in &changes.events {
                        watches.fire(event, |id, kind, path| {
                            if let Some(line) = lines.get_mut(&id) {
                                line.connection.event((kind, path), event);
                                line.touch(id, touched);
                            }
                        });
                    }
                }
                Told::Gone(_) => gone = true,
            }
        }
        if gone {
            self.gone = true;
            let all: Vec<u64> = self.lines.keys().copied().collect();
            all.into_iter().for_each(|id| self.close(id));
        }
    }

    fn tick(&mut self, now: Duration) {
        self.next_tick = now + TICK;
        self.furniture.tick();
        if self.gone && self.draining.is_none() {
            self.gone = false;
            self.gateway = gateway(&self.client, &self.waker);
        }
        if self.draining.is_none() && self.stopping.load(Ordering::Acquire) {
            self.draining = Some(now + self.options.drain_max);
        }
        for (&id, line) in &mut self.lines {
            line.connection.tick(now);
            // Most of ten thousand have nothing to do.
            if line.connection.wants_service() {
                line.touch(id, &mut self.touched);
            }
        }
    }

    /// Reads, asks and sends for all that have something to do.
    fn serve(&mut self, now: Duration) {
        let touched = mem::take(&mut self.touched);
        for &id in &touched {
            self.read(id, now);
        }
        self.gateway.send(mem::take(&mut self.asks));
        for id in touched {
            self.write(id, now);
        }
        self.gateway.send(mem::take(&mut self.asks));
    }

    fn read(&mut self, id: u64, now: Duration) {
        let Some(line) = self.lines.get_mut(&id) else {
            return;
        };
        line.touched = false;
        let mut left = READS_PER_ROUND;
        while line.readable && self.draining.is_none() && line.connection.wants_input() {
            if left == 0 {
                line.touch(id, &mut self.touched);
                break;
            }
            left -= 1;
            match line.socket.read(&mut self.buffer) {
                Ok(0) => {
                    line.readable = false;
                    line.connection.abort();
                }
                Ok(count) => {
                    line.connection.receive(&self.buffer[..count], &mut self.watches, now);
                    // A socket that gives less than there is room for has no more.
                    line.readable = line.ends || count == self.buffer.len() || !TELLS_BY_COUNT;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => line.readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    line.readable = false;
                    line.connection.abort();
                }
            }
        }
        if let Some(word) = line.connection.word() {
            match words::answer(word) {
                Some(text) => line.connection.answer_word(&text),
                None => line.connection.abort(),
            }
        }
        line.connection.take_asks(|ask| self.asks.push((id, ask)));
    }

    fn write(&mut self, id: u64, now: Duration) {
        let Some(line) = self.lines.get_mut(&id) else {
            return;
        };
        while line.writable && !line.connection.output().is_empty() {
            match line.socket.write(line.connection.output()) {
                Ok(0) => {
                    line.connection.abort();
                    break;
                }
                Ok(count) => line.connection.sent(count, &mut self.watches, now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => line.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    line.connection.abort();
                    break;
                }
            }
        }
        // What had to wait for room may be asked now.
        line.connection.take_asks(|ask| self.asks.push((id, ask)));
        if line.readable && self.draining.is_none() && line.connection.wants_input() {
            line.touch(id, &mut self.touched);
        }
        if line.connection.is_over() {
            self.close(id);
        }
    }

    fn close(&mut self, id: u64) {
        let Some(mut line) = self.lines.remove(&id) else {
            return;
        };
        line.connection.abort();
        line.connection.take_asks(|ask| self.asks.push((id, ask)));
        self.watches.leave(id);
        let _ = self.poll.registry().deregister(&mut line.socket);
    }

    /// Whether nothing is under way any more, or there was time enough.
    fn is_drained(&self, now: Duration) -> bool {
        let quiet =
            |line: &Line| line.connection.pending() == 0 && line.connection.output().is_empty();
        self.draining.is_some_and(|until| now >= until || self.lines.values().all(quiet))
    }
}

fn gateway(client: &Client, waker: &Arc<Waker>) -> Gateway {
    let waker = Arc::clone(waker);
    client.gateway(move || {
        let _ = waker.wake();
    })
}

/// As ZooKeeper has it, an address of the old kind stays one on a socket of both.
fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
const FIRST_CONNECTION: u64 = 2;
/// Connections that the system keeps until they are accepted.
const BACKLOG: i32 = 4096;
const EVENTS_PER_ROUND: usize = 1024;
/// Where the system tells anew when more has come to a socket that was read empty, though nobody
/// was told that it is (`epoll(7)`).
const TELLS_BY_COUNT: bool = cfg!(any(target_os = "linux", target_os = "android"));
const READ_BYTES: usize = 64 << 10;
/// Buffers that one connection may fill in a round.
const READS_PER_ROUND: usize = 4;
/// How often connections are told the time.
const TICK: Duration = Duration::from_millis(100);
