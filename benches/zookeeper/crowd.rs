//! Many clients on one thread: sockets that block nobody, and the project's own codec.

use std::{
    collections::VecDeque,
    error::Error,
    io::{ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};
use quorate::zookeeper::{ConnectRequest, ConnectResponse, OpCode, Request, Response};

/// Clients, each with a session of its own.
pub(crate) struct Crowd {
    poll: Poll,
    lines: Vec<Line>,
    events: Events,
    buffer: Vec<u8>,
    touched: Vec<usize>,
}

/// One client.
pub(crate) struct Line {
    server: SocketAddr,
    stream: TcpStream,
    opened: bool,
    /// What came and is not read yet.
    input: Vec<u8>,
    output: Vec<u8>,
    /// What was asked and when, oldest first.
    sent: VecDeque<(OpCode, Instant)>,
    xid: i32,
}

/// What a client is told.
pub(crate) enum Told {
    /// Its session is open.
    Opened,
    /// The answer to a request of this kind, which was under way since then.
    Answer(OpCode, Instant),
    /// A watch has fired.
    Event,
}

impl Crowd {
    /// Clients on these servers in turn, with their sessions.
    pub(crate) fn open(servers: &[SocketAddr], count: usize) -> Result<Self, Box<dyn Error>> {
        let mut this = Self {
            poll: Poll::new()?,
            lines: Vec::with_capacity(count),
            events: Events::with_capacity(1024),
            buffer: vec![0; 256 << 10],
            touched: Vec::new(),
        };
        // Not all at once: a server has room for so many that it has not accepted.
        let (mut opened, start) = (0, Instant::now());
        while opened < count {
            while this.lines.len() < count && this.lines.len() < opened + CONNECTING_MAX {
                let line = Line::connect(servers[this.lines.len() % servers.len()]);
                this.lines.push(line?);
                this.register(this.lines.len() - 1)?;
            }
            this.turn(|_, _, told| {
                opened += usize::from(matches!(told, Told::Opened));
                Ok(())
            })?;
            if start.elapsed() > OPENING_MAX {
                return Err(format!("{opened} of {count} sessions in {OPENING_MAX:?}").into());
            }
        }
        Ok(this)
    }

    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Puts a request behind those of the client that are under way; it leaves with the next turn.
    pub(crate) fn ask(&mut self, client: usize, request: &Request<'_>) {
        self.with(client, |line| line.ask(request, Instant::now()));
    }

    /// As [`ask`](Self::ask), of several requests.
    pub(crate) fn with(&mut self, client: usize, ask: impl FnOnce(&mut Line)) {
        ask(&mut self.lines[client]);
        self.touched.push(client);
    }

    /// Requests that are not answered.
    pub(crate) fn under_way(&self) -> usize {
        self.lines.iter().map(|it| it.sent.len()).sum()
    }

    /// Waits until all is answered.
    pub(crate) fn settle(&mut self) -> Result<(), Box<dyn Error>> {
        while self.under_way() > 0 {
            self.turn(|_, _, _| Ok(()))?;
        }
        Ok(())
    }

    /// A new connection and session in place of a client's old ones.
    pub(crate) fn replace(&mut self, client: usize) -> Result<(), Box<dyn Error>> {
        let server = self.lines[client].server;
        self.poll.registry().deregister(&mut self.lines[client].stream)?;
        self.lines[client] = Line::connect(server)?;
        self.register(client)
    }

    /// Sends what there is, waits until something has come, and takes all of it.
    pub(crate) fn turn(
        &mut self,
        mut told: impl FnMut(usize, &mut Line, Told) -> Result<(), Box<dyn Error>>,
    ) -> Result<(), Box<dyn Error>> {
        for client in std::mem::take(&mut self.touched) {
            self.lines[client].flush()?;
        }
        let _ = self.poll.poll(&mut self.events, Some(Duration::from_millis(10)));
        for event in &self.events {
            let client = event.token().0;
            let Some(line) = self.lines.get_mut(client) else {
                continue;
            };
            if event.is_readable() || event.is_read_closed() {
                line.read(&mut self.buffer, |line, it| told(client, line, it))?;
            }
            line.flush()?;
        }
        Ok(())
    }

    fn register(&mut self, client: usize) -> Result<(), Box<dyn Error>> {
        let both = Interest::READABLE | Interest::WRITABLE;
        let stream = &mut self.lines[client].stream;
        Ok(self.poll.registry().register(stream, Token(client), both)?)
    }
}

impl Line {
    fn connect(server: SocketAddr) -> Result<Self, Box<dyn Error>> {
        let stream = TcpStream::connect(server)?;
        let _ = stream.set_nodelay(true);
        let (input, mut output) = (Vec::new(), Vec::new());
        packet(&mut output, |out| {
            let hello = ConnectRequest {
                protocol_version: 0,
                last_zxid_seen: 0,
                timeout: SESSION_TIMEOUT_MS,
                session: 0,
                password: Some(&[0; 16]),
                read_only: Some(false),
            };
            hello.encode(out);
        });
        let (opened, sent, xid) = (false, VecDeque::new(), 0);
        Ok(Self { server, stream, opened, input, output, sent, xid })
    }

    /// As [`Crowd::ask`]; its latency counts from `since` on.
    pub(crate) fn ask(&mut self, request: &Request<'_>, since: Instant) {
        self.xid = self.xid.wrapping_add(1).max(1);
        let xid = self.xid;
        packet(&mut self.output, |out| request.encode(xid, out));
        self.sent.push_back((request.op(), since));
    }

    fn flush(&mut self) -> Result<(), Box<dyn Error>> {
        let mut written = 0;
        while written < self.output.len() {
            match self.stream.write(&self.output[written..]) {
                Ok(count) => written += count,
                // A connection that is not made yet is as one that is full.
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::NotConnected => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.output.drain(..written);
        Ok(())
    }

    fn read(
        &mut self,
        buffer: &mut [u8],
        mut told: impl FnMut(&mut Self, Told) -> Result<(), Box<dyn Error>>,
    ) -> Result<(), Box<dyn Error>> {
        loop {
            match self.stream.read(buffer) {
                // After a close that is to be expected.
                Ok(0) if self.opened && self.sent.is_empty() => return Ok(()),
                Ok(0) => return Err("a server has closed a connection".into()),
                Ok(count) => {
                    self.input.extend_from_slice(&buffer[..count]);
                    self.take(&mut told)?;
                    if count < buffer.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes the packets that are there.
    fn take(
        &mut self,
        told: &mut impl FnMut(&mut Self, Told) -> Result<(), Box<dyn Error>>,
    ) -> Result<(), Box<dyn Error>> {
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        while let Some((head, tail)) = rest.split_first_chunk() {
            let length = usize::try_from(i32::from_be_bytes(*head))?;
            let Some((packet, tail)) = tail.split_at_checked(length) else {
                break;
            };
            rest = tail;
            let it = self.understand(packet)?;
            told(self, it)?;
        }
        let taken = input.len() - rest.len();
        self.input = input;
        self.input.drain(..taken);
        Ok(())
    }

    fn understand(&mut self, packet: &[u8]) -> Result<Told, Box<dyn Error>> {
        if !self.opened {
            let response = ConnectResponse::decode(packet)?;
            self.opened = response.timeout > 0;
            return self.opened.then_some(Told::Opened).ok_or_else(|| "no session".into());
        }
        if packet.starts_with(&EVENT_XID.to_be_bytes()) {
            Response::decode(None, packet)?;
            return Ok(Told::Event);
        }
        let (op, since) = self.sent.pop_front().ok_or("an answer to nothing")?;
        let (header, _) = Response::decode(Some(op), packet)?;
        match header.err {
            0 => Ok(Told::Answer(op, since)),
            err => Err(format!("{op:?} was answered with error {err}").into()),
        }
    }
}

/// A packet behind its length.
fn packet(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    let length = i32::try_from(out.len() - start - 4).unwrap_or(i32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// Sessions that are opened at once.
const CONNECTING_MAX: usize = 256;
const OPENING_MAX: Duration = Duration::from_secs(60);
const SESSION_TIMEOUT_MS: i32 = 40_000;
const EVENT_XID: i32 = -1;
