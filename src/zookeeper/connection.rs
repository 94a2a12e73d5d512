//! One connection of a client: bytes in, bytes out, and between them what it asks of a node.
//!
//! **Feed bytes, answers and time; then take what it asks, and what it sends, until there is no
//! more.** It owns no socket, clock or thread, and knows no other connection.
//!
//! Invariants:
//! - Answers leave in the order of the requests; an event leaves when it is told.
//! - A write is not asked for while a sync before it waits: the node answers what was asked in
//!   between after the sync, from a tree without that write.
//! - What waits is bounded: past a bound, bytes are not looked at, and are not to be read either.

mod answers;

use std::{mem, net::IpAddr, sync::Arc, time::Duration};

use bytes::{Buf as _, Bytes, BytesMut};

use crate::{
    client::{Ask, Error, GuestAnswer},
    id::{Secret, SessionId, Zxid},
    node::{Attachment, Consistency, Detach, RequestError},
    op::{Event, Identities, Identity, OpError},
    path::Path,
    zookeeper::{
        acl::with_proof,
        code::{ErrorCode, EventType, OpCode, SYNC_CONNECTED, xid},
        jute::{Jute, JuteError},
        outbox::Outbox,
        record::{ConnectRequest, ConnectResponse, ReplyHeader, RequestHeader, WatcherEvent},
        request::Request,
        slot::{Plan, Slot, Turn, Waits, read_of, txn_of},
        traffic::Traffic,
        watches::Watches,
    },
};

/// What bounds connections, and what they are told.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ConnectionOptions {
    /// The shortest time-out of a session. Default: 4 s.
    pub timeout_min: Duration,
    /// The longest time-out of a session. Default: 40 s.
    pub timeout_max: Duration,
    /// Bytes of a packet; a longer one ends the connection. Default: 1,048,575.
    pub packet_bytes_max: usize,
    /// Requests that wait for an answer. Default: 1,000.
    pub requests_max: usize,
    /// How long a client may take until it has a session. Default: 10 s.
    pub handshake_max: Duration,
    /// Who may do everything: `super:` and the Base64 of the SHA-1 of `super:password`.
    pub super_digest: Option<String>,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            timeout_min: Duration::from_secs(4),
            timeout_max: Duration::from_secs(40),
            packet_bytes_max: 1_048_575,
            requests_max: 1_000,
            handshake_max: Duration::from_secs(10),
            super_digest: None,
        }
    }
}

/// A connection of a client; see the [module](crate::zookeeper).
#[derive(Debug)]
pub struct Connection {
    options: Arc<ConnectionOptions>,
    /// Its number among the watches.
    id: u64,
    phase: Phase,
    input: BytesMut,
    slots: std::collections::VecDeque<Slot>,
    /// Syncs, and reads of the whole tree, among the slots.
    syncs: usize,
    views: usize,
    /// Bytes of packets that the slots keep.
    kept_bytes: usize,
    asks: Vec<Ask>,
    outbox: Outbox,
    secret: Secret,
    session: Option<Attachment>,
    identities: Identities,
    /// The newest transaction that the client was told of.
    zxid: Zxid,
    /// When it was opened, when the client was last heard of, and when the node was told so.
    opened: Duration,
    heard: Duration,
    kept: Duration,
    now: Duration,
    traffic: Traffic,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Waits for the first packet.
    Handshake,
    /// Waits for the answer to a four-letter word.
    Word,
    /// Waits for a session; the client said whether a server that only reads will do.
    Opening {
        says_read_only: bool,
    },
    Serving,
    /// Waits for the session's attachment under one more identity, which this packet proved.
    Identifying {
        xid: i32,
    },
    /// Sends what there is to send.
    Closing,
    Closed,
}

impl Connection {
    /// A connection from `peer`, which has the number `id` among the [`Watches`]. `secret` is of a
    /// session that it may open: 16 bytes that nobody can guess.
    pub fn new(
        options: Arc<ConnectionOptions>,
        (id, peer): (u64, IpAddr),
        secret: Secret,
        now: Duration,
    ) -> Self {
        let identities = Identities::new([Identity::Ip(peer)]).unwrap_or_default();
        Self {
            options,
            id,
            phase: Phase::Handshake,
            input: BytesMut::new(),
            slots: std::collections::VecDeque::new(),
            syncs: 0,
            views: 0,
            kept_bytes: 0,
            asks: Vec::new(),
            outbox: Outbox::default(),
            secret,
            session: None,
            identities,
            zxid: Zxid::ZERO,
            opened: now,
            heard: now,
            kept: now,
            now,
            traffic: Traffic::default(),
        }
    }

    /// Takes bytes of the client.
    pub fn receive(&mut self, bytes: &[u8], watches: &mut Watches, now: Duration) {
        self.now = now;
        self.traffic.received_bytes += bytes.len() as u64;
        self.input.extend_from_slice(bytes);
        self.advance(watches, now);
    }

    /// Takes what the node answers, in its order.
    pub fn answer(&mut self, answer: GuestAnswer, watches: &mut Watches, now: Duration) {
        self.now = now;
        match (self.phase, answer) {
            (Phase::Closing | Phase::Closed, _) => return,
            (Phase::Opening { says_read_only }, GuestAnswer::Session(result)) => {
                self.opened(result, says_read_only, now);
            }
            (Phase::Identifying { xid }, GuestAnswer::Session(Ok(attachment))) => {
                self.session = Some(attachment);
                self.phase = Phase::Serving;
                self.kept = now;
                self.identified(xid, ErrorCode::Ok);
            }
            (Phase::Serving | Phase::Identifying { .. }, GuestAnswer::Over(cause)) => {
                self.over(cause);
            }
            (Phase::Serving, GuestAnswer::Reply { zxid, result }) => self.replied(zxid, result),
            (Phase::Serving, GuestAnswer::Read { zxid, result }) => {
                self.read(zxid, result, watches);
            }
            _ => self.abort(),
        }
        self.advance(watches, now);
    }

    /// Takes an event of a watch that this connection had.
    pub fn event(&mut self, told: (EventType, &Path), event: &Event) {
        let (kind, path) = told;
        let shown = match kind {
            EventType::NodeChildrenChanged => event.shows_above_to(&self.identities),
            _ => event.shows_to(&self.identities),
        };
        if self.phase != Phase::Serving || !shown {
            return;
        }
        self.tell(event.zxid, kind, path);
    }

    /// Takes time: tells the node that the client lives, and ends what is past its time.
    pub fn tick(&mut self, now: Duration) {
        let (silent, timeout) = (now.saturating_sub(self.heard), self.timeout());
        match self.phase {
            Phase::Handshake | Phase::Opening { .. } | Phase::Word => {
                if now.saturating_sub(self.opened) > self.options.handshake_max {
                    self.abort();
                }
            }
            Phase::Serving | Phase::Identifying { .. } => {
                self.keep_alive(now);
                if silent > timeout {
                    self.abort();
                }
            }
            // It has had its time to take what was sent.
            Phase::Closing if silent > timeout => self.abort(),
            Phase::Closing | Phase::Closed => {}
        }
    }

    /// The client is gone, or is to go: its session lives on for its time-out.
    pub fn abort(&mut self) {
        if self.session.take().is_some() {
            if self.heard > self.kept {
                self.asks.push(Ask::KeepAlive);
            }
            self.asks.push(Ask::Leave);
        }
        self.phase = Phase::Closed;
        self.slots.clear();
        (self.syncs, self.views, self.kept_bytes) = (0, 0, 0);
    }

    /// Ends it when what there is to send has left; the session lives on for its time-out.
    pub fn leave(&mut self) {
        if self.phase != Phase::Closed {
            self.abort();
            self.phase = Phase::Closing;
        }
    }

    /// So many bytes of [`output`](Self::output) have left.
    pub fn sent(&mut self, bytes: usize, watches: &mut Watches, now: Duration) {
        self.now = now;
        let full = self.outbox.len() >= OUTPUT_BYTES_MAX;
        self.outbox.sent(bytes);
        if full {
            self.advance(watches, now);
        }
    }

    /// Takes what it asks of the node, in this order.
    pub fn take_asks(&mut self, mut take: impl FnMut(Ask)) {
        self.asks.drain(..).for_each(&mut take);
    }

    /// What is to be sent next; empty if nothing is.
    pub fn output(&self) -> &[u8] {
        self.outbox.front()
    }

    /// Whether it takes more bytes: else leave them where they are.
    pub fn wants_input(&self) -> bool {
        self.takes_requests() && self.input.len() <= self.options.packet_bytes_max
    }

    /// Whether it is over: close it.
    pub fn is_over(&self) -> bool {
        match self.phase {
            Phase::Closed => true,
            Phase::Closing => self.outbox.len() == 0,
            _ => false,
        }
    }

    /// Whether time alone has led to something to ask, or to its end.
    pub(super) fn wants_service(&self) -> bool {
        !self.asks.is_empty() || self.is_over()
    }

    /// Whether it has sent all that it had to, and ended itself: the client may still be sending.
    pub fn is_finished(&self) -> bool {
        self.phase == Phase::Closing && self.outbox.len() == 0
    }

    /// Takes the first four bytes, if they are no length of a packet: a word, to be answered with
    /// [`answer_word`](Self::answer_word).
    pub fn take_word(&mut self) -> Option<[u8; 4]> {
        let word = self.word()?;
        self.input = BytesMut::new();
        self.phase = Phase::Word;
        self.traffic.received += 1;
        Some(word)
    }

    /// Answers a word, and ends.
    pub fn answer_word(&mut self, text: Bytes) {
        if self.phase == Phase::Word {
            self.phase = Phase::Closing;
            self.traffic.sent += 1;
            self.outbox.raw(text);
        }
    }

    /// The session, while it is attached here.
    pub fn session(&self) -> Option<&Attachment> {
        self.session.as_ref()
    }

    /// What went through it since the last call.
    pub fn take_traffic(&mut self) -> Traffic {
        mem::take(&mut self.traffic)
    }

    /// Requests that wait for an answer.
    pub fn pending(&self) -> usize {
        self.slots.len()
    }

    /// Whether the client waits for nothing that it has asked for.
    pub fn is_idle(&self) -> bool {
        let waits =
            matches!(self.phase, Phase::Opening { .. } | Phase::Identifying { .. } | Phase::Word);
        self.slots.is_empty() && self.asks.is_empty() && self.outbox.len() == 0 && !waits
    }

    /// Bytes that it holds: of packets that are not complete or wait, and of what is to be sent.
    pub fn held_bytes(&self) -> usize {
        self.input.capacity() + self.kept_bytes + self.outbox.len()
    }

    fn word(&self) -> Option<[u8; 4]> {
        let word: [u8; 4] = self.input.get(..4)?.try_into().ok()?;
        (self.phase == Phase::Handshake && word.iter().all(u8::is_ascii_lowercase)).then_some(word)
    }

    fn takes_requests(&self) -> bool {
        matches!(self.phase, Phase::Handshake | Phase::Serving)
            && self.slots.len() < self.options.requests_max
            && self.views < VIEWS_MAX
            && self.kept_bytes < KEPT_BYTES_MAX
            && self.outbox.len() < OUTPUT_BYTES_MAX
    }

    /// Goes on with the bytes that have come.
    fn advance(&mut self, watches: &mut Watches, now: Duration) {
        self.take_turns(watches);
        while self.takes_requests() && self.word().is_none() {
            let Some(packet) = self.next_packet() else {
                return;
            };
            self.heard = now;
            self.traffic.received += 1;
            match self.phase {
                Phase::Handshake => self.connect(&packet),
                _ => self.request(packet),
            }
            self.take_turns(watches);
        }
        if self.phase == Phase::Serving {
            self.keep_alive(now);
        }
    }

    fn next_packet(&mut self) -> Option<Bytes> {
        let length: [u8; 4] = self.input.get(..4)?.try_into().ok()?;
        let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > self.options.packet_bytes_max {
            self.abort();
            return None;
        }
        if self.input.len() < 4 + length {
            // Room is made for what has come, not for what is said to come.
            return None;
        }
        if self.phase == Phase::Serving && self.must_wait() {
            return None;
        }
        self.input.advance(4);
        Some(self.input.split_to(length).freeze())
    }

    /// Whether the next packet has to wait for an answer: a write behind a sync, and an identity
    /// behind anything.
    fn must_wait(&self) -> bool {
        let op: Option<[u8; 4]> = self.input.get(8..12).and_then(|it| it.try_into().ok());
        match op.and_then(|op| OpCode::from_number(i32::from_be_bytes(op))) {
            Some(OpCode::Auth) => !self.slots.is_empty(),
            Some(op) => self.syncs > 0 && op.is_write(),
            None => false,
        }
    }

    fn connect(&mut self, packet: &[u8]) {
        let Ok(request) = ConnectRequest::decode(packet) else {
            return self.abort();
        };
        let says_read_only = request.read_only.is_some();
        self.phase = Phase::Opening { says_read_only };
        let seen = Zxid::new(u64::try_from(request.last_zxid_seen).unwrap_or(0));
        let identities = self.identities.clone();
        if request.session == 0 {
            let asked = Duration::from_millis(u64::try_from(request.timeout).unwrap_or(0));
            let ttl = asked.max(self.options.timeout_min).min(self.options.timeout_max);
            let secret = self.secret;
            return self.asks.push(Ask::Open { secret, ttl, identities, seen });
        }
        let session = u64::try_from(request.session).ok().and_then(SessionId::new);
        let password = request.password.and_then(|it| <[u8; 16]>::try_from(it).ok());
        let (Some(session), Some(password)) = (session, password) else {
            return self.expired(says_read_only);
        };
        self.secret = Secret::from_bytes(password);
        let secret = self.secret;
        self.asks.push(Ask::Attach { session, secret, identities, seen });
    }

    fn opened(&mut self, result: Result<Attachment, Error>, says_read_only: bool, now: Duration) {
        let attachment = match result {
            Ok(attachment) => attachment,
            Err(Error::Request(RequestError::Op(
                OpError::SessionEnded { .. } | OpError::BadSecret { .. },
            ))) => return self.expired(says_read_only),
            // Another server may do; the client tries.
            Err(_) => return self.abort(),
        };
        let session = i64::try_from(attachment.session.as_u64()).unwrap_or(i64::MAX);
        let timeout = i32::try_from(attachment.ttl.as_millis()).unwrap_or(i32::MAX);
        self.session = Some(attachment);
        self.phase = Phase::Serving;
        let header = RequestHeader { xid: 0, op: OpCode::CreateSession.number() };
        self.traffic.answered(&header, (self.heard, now), self.wire_zxid());
        (self.kept, self.heard) = (now, now);
        let secret = self.secret.to_bytes();
        let response = ConnectResponse {
            protocol_version: 0,
            timeout,
            session,
            password: Some(&secret),
            read_only: says_read_only.then_some(false),
        };
        self.outbox.packet(|out| response.write(out));
    }

    /// Tells the client at once that its session is over.
    fn expired(&mut self, says_read_only: bool) {
        let response = ConnectResponse {
            protocol_version: 0,
            timeout: 0,
            session: 0,
            password: Some(&[0; 16]),
            read_only: says_read_only.then_some(false),
        };
        self.traffic.sent += 1;
        self.outbox.packet(|out| response.write(out));
        self.phase = Phase::Closing;
    }

    fn request(&mut self, packet: Bytes) {
        let Ok(header) = Request::header(&packet) else {
            return self.abort();
        };
        match Request::decode(&packet) {
            Ok((_, Request::Auth(it))) => {
                self.identify(header.xid, (it.scheme, it.auth.unwrap_or_default()));
            }
            Ok((_, request)) => self.ask(header, &request, &packet),
            // As the server does: what it cannot do ends the connection, what it cannot read not.
            // No part of a multi is another one.
            Err(JuteError::Operation(op)) if op == header.op && !is_multi(op) => {
                self.wait(header, Waits::Turn(Turn::Unknown));
            }
            Err(_) if header.op == OpCode::Auth.number() => self.abort(),
            Err(error) => {
                let code = match error {
                    // As with fewer that are still too many for a transaction.
                    JuteError::Parts { .. } => ErrorCode::BadArguments,
                    _ => ErrorCode::MarshallingError,
                };
                self.wait(header, Waits::Turn(Turn::Refused(code)));
            }
        }
    }

    /// Adds an identity: the session is attached once more, with one identity more.
    fn identify(&mut self, xid: i32, proof: (&str, &[u8])) {
        let digest = self.options.super_digest.as_deref();
        let Some(identities) = with_proof(&self.identities, proof, digest) else {
            self.identified(xid, ErrorCode::AuthFailed);
            return self.leave();
        };
        let Some(session) = self.session.map(|it| it.session) else {
            return self.abort();
        };
        if identities == self.identities {
            return self.identified(xid, ErrorCode::Ok);
        }
        self.identities = identities.clone();
        self.phase = Phase::Identifying { xid };
        let (secret, seen) = (self.secret, Zxid::ZERO);
        self.asks.push(Ask::Attach { session, secret, identities, seen });
    }

    fn identified(&mut self, xid: i32, code: ErrorCode) {
        self.traffic.sent += 1;
        self.outbox.reply((xid, 0), code, |_| {});
    }

    fn ask(&mut self, header: RequestHeader, request: &Request<'_>, packet: &Bytes) {
        let waits = match request {
            Request::Ping => Ok(Waits::Turn(Turn::Ping)),
            Request::WhoAmI => Ok(Waits::Turn(Turn::WhoAmI)),
            Request::AddWatch(_) | Request::CheckWatches(_) | Request::RemoveWatches(_) => {
                Ok(Waits::Turn(Turn::Watch(packet.clone())))
            }
            Request::Reconfig(_) | Request::Sasl(_) => Err(ErrorCode::Unimplemented),
            Request::CloseSession => {
                self.asks.push(Ask::Close);
                Ok(Waits::Close)
            }
            Request::Multi(parts) if parts.is_empty() => Ok(Waits::Turn(Turn::Nothing)),
            Request::Multi(parts) => {
                let (plan, txn) = Plan::of(parts, packet);
                self.asks.push(Ask::Txn(txn));
                Ok(Waits::Multi(Box::new(plan)))
            }
            request if request.op().is_write() => txn_of(request, packet).map(|txn| {
                self.asks.push(Ask::Txn(txn));
                Waits::Write(request.op())
            }),
            request => {
                // Behind a sync, so that they share its round.
                let fresh = self.syncs > 0;
                let consistency =
                    if fresh { Consistency::Linearizable } else { Consistency::Local };
                read_of(request, packet, consistency).map(|(ask, waits)| {
                    self.asks.push(ask);
                    waits
                })
            }
        };
        match waits {
            Ok(waits) => self.wait(header, waits),
            Err(code) => self.wait(header, Waits::Turn(Turn::Refused(code))),
        }
    }

    fn wait(&mut self, header: RequestHeader, waits: Waits) {
        self.syncs += usize::from(matches!(waits, Waits::Sync(_)));
        self.views += usize::from(matches!(waits, Waits::View(_)));
        self.kept_bytes += waits.kept_bytes();
        self.slots.push_back(Slot { header, since: self.now, waits });
    }

    fn next_slot(&mut self) -> Option<Slot> {
        let slot = self.slots.pop_front()?;
        self.syncs -= usize::from(matches!(slot.waits, Waits::Sync(_)));
        self.views -= usize::from(matches!(slot.waits, Waits::View(_)));
        self.kept_bytes -= slot.waits.kept_bytes();
        self.traffic.answered(&slot.header, (slot.since, self.now), self.wire_zxid());
        Some(slot)
    }

    fn tell(&mut self, zxid: Zxid, kind: EventType, path: &Path) {
        self.zxid = self.zxid.max(zxid);
        let zxid = i64::try_from(zxid.as_u64()).unwrap_or(i64::MAX);
        self.traffic.sent += 1;
        if self.outbox.len() > EVENT_BYTES_MAX {
            // A client that takes nothing: what it has to be told has no end.
            return self.abort();
        }
        self.outbox.packet(|out| {
            ReplyHeader { xid: xid::EVENT, zxid, err: 0 }.write(out);
            let path = path.as_str();
            WatcherEvent { kind: kind.number(), state: SYNC_CONNECTED, path }.write(out);
        });
    }

    /// The session has ended, or is another connection's.
    fn over(&mut self, cause: Detach) {
        self.session = None;
        self.asks.push(Ask::Leave);
        match cause {
            // The answer to the close is there, or comes with nothing behind it.
            Detach::Closed => self.phase = Phase::Closing,
            Detach::Expired | Detach::Moved => self.abort(),
        }
    }

    /// Tells the node that the client lives; not with each packet, but soon after the last one.
    fn keep_alive(&mut self, now: Duration) {
        let due = now.saturating_sub(self.kept) >= self.timeout() / KEEP_ALIVES;
        if self.heard > self.kept && due && self.session.is_some() {
            self.kept = now;
            self.asks.push(Ask::KeepAlive);
        }
    }

    fn timeout(&self) -> Duration {
        self.session.map_or(self.options.timeout_min, |it| it.ttl)
    }

    fn wire_zxid(&self) -> i64 {
        i64::try_from(self.zxid.as_u64()).unwrap_or(i64::MAX)
    }
}

fn is_multi(op: i32) -> bool {
    [OpCode::Multi, OpCode::MultiRead].iter().any(|multi| multi.number() == op)
}

/// Bytes to be sent from which on no request is looked at.
const OUTPUT_BYTES_MAX: usize = 1 << 20;
/// Bytes to be sent above which a client that is told of an event takes too little.
const EVENT_BYTES_MAX: usize = 64 << 20;
/// Bytes of packets that wait from which on no request is looked at.
const KEPT_BYTES_MAX: usize = 4 << 20;
/// Reads of the whole tree that wait: each may have a long answer.
const VIEWS_MAX: usize = 16;
/// A session is kept alive so often in its time-out.
const KEEP_ALIVES: u32 = 6;
