//! A listener for ZooKeeper's clients: one thread for all connections.
//!
//! The thread reads and writes sockets, and runs a [`Connection`] for each. What they ask goes to
//! the node in one batch a round, and what the node tells comes back in batches, too.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::{self, Read as _, Write as _},
    mem,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{Builder, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use foldhash::fast::FixedState;
use mio::{
    Events, Interest, Poll, Token, Waker,
    event::Event as Readiness,
    net::{TcpListener, TcpStream},
};

use crate::{
    client::{Ask, Client, Gateway, Told},
    driver::SystemClock,
    id::Secret,
    zookeeper::{
        connection::{Connection, ConnectionOptions},
        furniture::Furniture,
        inquiry::{Findings, Inquiries},
        line::Line,
        options::ListenerOptions,
        report::{self, NOT_SERVING, Report, serves},
        traffic::Traffic,
        watches::Watches,
        words::Word,
    },
};

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
        let server = Server::new((poll, socket, address), client, options, (&waker, &stopping));
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
    /// Until no more connections are taken.
    socket: Option<TcpListener>,
    address: SocketAddr,
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
    inquiries: Inquiries,
    /// Connections that are answered a word.
    worded: BTreeSet<u64>,
    /// Of all connections, since the start or since it was set back.
    traffic: Traffic,
    rejected: u64,
    started: Duration,
    clock: SystemClock,
    told: Vec<Told>,
    asks: Vec<(u64, Ask)>,
    /// Connections with something to read, to ask or to send.
    touched: Vec<u64>,
    buffer: Vec<u8>,
    next_tick: Duration,
    /// The system had no descriptor left for a connection that waits: it is tried again.
    accepts_later: bool,
    /// A gateway that is over is followed by another one, later.
    gone: bool,
    draining: Option<Duration>,
}

impl Server {
    fn new(
        (poll, socket, address): (Poll, TcpListener, SocketAddr),
        client: &Client,
        options: ListenerOptions,
        (waker, stopping): (&Arc<Waker>, &Arc<AtomicBool>),
    ) -> Self {
        let shared = Arc::new(options.connection.clone());
        Self {
            poll,
            socket: Some(socket),
            address,
            client: client.clone(),
            gateway: gateway(client, waker),
            waker: Arc::clone(waker),
            stopping: Arc::clone(stopping),
            furniture: Furniture::new(client, &options.servers),
            options,
            shared,
            lines: HashMap::default(),
            next: FIRST_CONNECTION,
            watches: Watches::default(),
            inquiries: Inquiries::new(client, waker),
            worded: BTreeSet::new(),
            traffic: Traffic::default(),
            rejected: 0,
            started: client.now(),
            clock: SystemClock::start(),
            told: Vec::new(),
            asks: Vec::new(),
            touched: Vec::new(),
            buffer: vec![0; READ_BYTES],
            next_tick: Duration::ZERO,
            accepts_later: false,
            gone: false,
            draining: None,
        }
    }

    fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_PER_ROUND);
        loop {
            let now = self.client.now();
            let idle = self.touched.is_empty() && !self.inquiries.has_more();
            let wait = match idle {
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
            self.answer_words(now);
            if now >= self.next_tick {
                self.tick(now);
            }
            self.serve(now);
            if self.draining.is_some_and(|until| now >= until || self.lines.is_empty()) {
                return self.close_all();
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
        self.accepts_later = false;
        while let Some(socket) = &self.socket {
            match socket.accept() {
                Ok((socket, peer)) => self.welcome(socket, peer, now),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    // One that is gone again does not stand for the others.
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                    // No descriptors, or no memory: nothing says when there are some again.
                    _ => return self.accepts_later = true,
                },
            }
        }
    }

    fn welcome(&mut self, mut socket: TcpStream, peer: SocketAddr, now: Duration) {
        let full = self.lines.len() >= self.options.connections_max;
        let mut secret = [0; 16];
        if full || self.gone || getrandom::fill(&mut secret).is_err() {
            self.rejected += 1;
            return;
        }
        let id = self.next;
        let both = Interest::READABLE | Interest::WRITABLE;
        let Ok(token) = usize::try_from(id).map(Token) else {
            return;
        };
        if self.poll.registry().register(&mut socket, token, both).is_err() {
            return;
        }
        let _ = socket.set_nodelay(true);
        self.next += 1;
        // As ZooKeeper has it, an address of the old kind stays one on a socket of both.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let (secret, who) = (Secret::from_bytes(secret), (id, peer.ip()));
        let connection = Connection::new(Arc::clone(&self.shared), who, secret, now);
        let line = Line {
            socket,
            connection,
            peer,
            since_ms: self.clock.now().wall_ms,
            traffic: Traffic::default(),
            readable: false,
            writable: true,
            ends: false,
            touched: false,
            lingers: None,
        };
        self.lines.insert(id, line);
    }

    fn take_told(&mut self, now: Duration) {
        self.gateway.take(&mut self.told);
        let Self { lines, watches, touched, furniture, .. } = self;
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
                        furniture.notice(&event.path);
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
            self.close_all();
        }
    }

    fn tick(&mut self, now: Duration) {
        self.next_tick = now + TICK;
        self.furniture.tick(now);
        if self.gone && self.draining.is_none() {
            self.gone = false;
            self.gateway = gateway(&self.client, &self.waker);
        }
        if self.accepts_later {
            self.accept(now);
        }
        if self.draining.is_none() && self.stopping.load(Ordering::Acquire) {
            self.draining = Some(now + self.options.drain_max);
            // Whoever comes now is to try another server at once.
            self.socket = None;
        }
        let mut held = 0;
        for (&id, line) in &mut self.lines {
            line.connection.tick(now);
            held += line.connection.held_bytes();
            let late = line.lingers.is_some_and(|until| now >= until);
            // Most of ten thousand have nothing to do.
            if late || line.connection.wants_service() || self.draining.is_some() {
                line.touch(id, &mut self.touched);
            }
        }
        self.relieve(held);
    }

    /// Closes those that hold most, if all together hold too much.
    fn relieve(&mut self, mut held: usize) {
        if held <= self.options.held_bytes_max {
            return;
        }
        let holds = |(id, line): (&u64, &Line)| (line.connection.held_bytes(), *id);
        let mut all: Vec<(usize, u64)> = self.lines.iter().map(holds).collect();
        all.sort_unstable();
        while held > self.options.held_bytes_max {
            let Some((bytes, id)) = all.pop() else { return };
            held -= bytes;
            self.close(id);
        }
    }

    /// Answers the words that waited for the node.
    fn answer_words(&mut self, now: Duration) {
        let Some(Findings { words, status, view }) = self.inquiries.poll() else {
            return;
        };
        let status = status.ok().filter(serves);
        // Who asks the same gets the same.
        let mut texts: BTreeMap<Word, Bytes> = BTreeMap::new();
        for (id, word) in words {
            if matches!(word, Word::Crst | Word::Srst) && status.is_some() {
                texts.clear();
                self.set_back(word);
            }
            let text = texts.entry(word).or_insert_with(|| {
                let report = status.as_ref().map(|status| Report {
                    status,
                    view: view.as_ref(),
                    options: &self.options,
                    config: self.furniture.config(),
                    address: self.address,
                    lines: &self.lines,
                    watches: &self.watches,
                    traffic: &self.traffic,
                    rejected: self.rejected,
                    uptime: now.saturating_sub(self.started),
                    wall_ms: self.clock.now().wall_ms,
                });
                match report {
                    Some(report) => report.text(word).into(),
                    None if word == Word::Isro => Bytes::from_static(b"null"),
                    None => Bytes::from_static(NOT_SERVING.as_bytes()),
                }
            });
            let text = text.clone();
            self.answer_word(id, text);
        }
    }

    fn set_back(&mut self, word: Word) {
        match word {
            Word::Srst => self.traffic = Traffic::default(),
            _ => self.lines.values_mut().for_each(|line| line.traffic = Traffic::default()),
        }
    }

    fn answer_word(&mut self, id: u64, text: Bytes) {
        let Self { lines, worded, .. } = self;
        worded.retain(|id| lines.contains_key(id));
        let held = |id: &u64| lines.get(id).map_or(0, |line| line.connection.held_bytes());
        let waiting: usize = worded.iter().map(held).sum();
        let Some(line) = lines.get_mut(&id) else {
            return;
        };
        // Words are answered to whoever comes: those who do not take the answers share one room.
        if waiting + text.len() > WORDS_BYTES_MAX {
            line.connection.abort();
        } else {
            line.connection.answer_word(text);
            worded.insert(id);
        }
        line.touch(id, &mut self.touched);
    }

    fn take_word(&mut self, id: u64, letters: [u8; 4]) {
        let known = std::str::from_utf8(&letters).ok().and_then(Word::from_letters);
        let Some(word) = known else {
            if let Some(line) = self.lines.get_mut(&id) {
                line.connection.abort();
            }
            return;
        };
        if !self.options.words.contains(&word) {
            let why = "is not executed because it is not in the whitelist.";
            return self.answer_word(id, format!("{} {why}\n", word.letters()).into());
        }
        match word.asks_nobody() {
            true => self.answer_word(id, report::plain(word).into()),
            false => self.inquiries.ask(id, word),
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
        if line.lingers.is_some() {
            if !line.pass_over(&mut self.buffer, now) {
                self.close(id);
            } else if line.readable {
                line.touch(id, &mut self.touched);
            }
            return;
        }
        let (mut left, mut word) = (READS_PER_ROUND, None);
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
                    // Who asks a word may say at once that there is no more.
                    word = line.connection.take_word();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => line.readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    line.readable = false;
                    line.connection.abort();
                }
            }
        }
        line.connection.take_asks(|ask| self.asks.push((id, ask)));
        self.count(id);
        if let Some(letters) = word {
            self.take_word(id, letters);
        }
    }

    /// Adds up what went through a connection.
    fn count(&mut self, id: u64) {
        if let Some(line) = self.lines.get_mut(&id) {
            let news = line.connection.take_traffic();
            line.traffic.absorb(&news);
            self.traffic.absorb(&news);
        }
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
        if self.draining.is_some() && line.connection.is_idle() {
            line.connection.leave();
            line.connection.take_asks(|ask| self.asks.push((id, ask)));
        }
        if line.connection.is_finished() {
            line.linger(now);
        }
        let reads = self.draining.is_none() && line.connection.wants_input();
        if line.readable && (reads || line.lingers.is_some()) {
            line.touch(id, &mut self.touched);
        }
        let is_over = line.connection.is_over() && line.lingers.is_none();
        self.count(id);
        if is_over {
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

    fn close_all(&mut self) {
        let all: Vec<u64> = self.lines.keys().copied().collect();
        all.into_iter().for_each(|id| self.close(id));
        self.gateway.send(mem::take(&mut self.asks));
    }
}

fn gateway(client: &Client, waker: &Arc<Waker>) -> Gateway {
    let waker = Arc::clone(waker);
    client.gateway(move || {
        let _ = waker.wake();
    })
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
/// Bytes of answers to words that all clients together may leave waiting.
const WORDS_BYTES_MAX: usize = 64 << 20;
/// How often connections are told the time.
const TICK: Duration = Duration::from_millis(100);
