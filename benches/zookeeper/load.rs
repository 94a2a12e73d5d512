//! Clients that keep a window of requests under way.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use quorate::zookeeper::{
    AclEntry, CreateRequest, Id, OpCode, PathRecord, Request, SetDataRequest, WatchedRequest,
};

use crate::{
    CONNECTIONS, IN_FLIGHT, KEYS, Size, VALUE_BYTES,
    crowd::{Crowd, Line, Told},
    servers::{Cpu, Servers},
    table::Row,
};

/// What the clients ask for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    Get,
    /// A get behind a sync, which are one operation.
    SyncGet,
    Set,
    Create,
}

impl Load {
    /// First what leaves the tree as it is: a JIT gets warm by it. Creates last, or what they leave
    /// to be written as a snapshot would be measured with the others.
    pub(crate) const ALL: [Self; 4] = [Self::Get, Self::SyncGet, Self::Set, Self::Create];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Set => "set",
            Self::Get => "get",
            Self::SyncGet => "sync+get",
        }
    }

    fn ask(self, line: &mut Line, client: usize, draw: &mut Draw) {
        let now = Instant::now();
        let data = Some(&[9; VALUE_BYTES][..]);
        let key = key(draw.next() % KEYS as u64);
        match self {
            Self::Create => {
                let path = format!("/load-{client}/{:016x}", draw.next());
                line.ask(&create(&path), now);
            }
            Self::Set => {
                let path = &key;
                line.ask(&Request::SetData(SetDataRequest { path, data, version: -1 }), now);
            }
            Self::Get => line.ask(&get(&key, false), now),
            Self::SyncGet => {
                line.ask(&Request::Sync(PathRecord { path: &key }), now);
                line.ask(&get(&key, false), now);
            }
        }
    }

    /// Whether this answer is the last one of an operation.
    fn is_done_by(self, op: OpCode) -> bool {
        self != Self::SyncGet || op == OpCode::GetData
    }
}

/// What was counted while it was measured.
struct Counted {
    start: Instant,
    warm: Duration,
    time: Duration,
    /// When the measured time has begun, and what it had cost before.
    begun: Option<(Instant, Cpu)>,
    samples: Vec<u64>,
}

impl Counted {
    fn new(size: Size) -> Self {
        let (start, warm, time) = (Instant::now(), size.warm, size.time);
        Self { start, warm, time, begun: None, samples: Vec::new() }
    }

    fn add(&mut self, since: Instant) {
        if self.begun.is_some() {
            let ns = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.samples.push(ns);
        }
    }

    /// Whether it is time to end; then there is a row.
    fn ends(
        &mut self,
        servers: &Servers,
        name: &'static str,
    ) -> Result<Option<Row>, Box<dyn Error>> {
        match self.begun {
            None if self.start.elapsed() >= self.warm => {
                self.begun = Some((Instant::now(), servers.cpu()?));
            }
            Some((begun, before)) if begun.elapsed() >= self.time => {
                let (elapsed, cost) = (begun.elapsed(), servers.cpu()?.since(before));
                let samples = &mut self.samples;
                return Ok(Some(Row::new(name, servers.name(), (elapsed, cost), samples)));
            }
            _ => {}
        }
        Ok(None)
    }
}

/// A window of one kind of request on every connection.
pub(crate) fn run(servers: &Servers, load: Load, size: Size) -> Result<Row, Box<dyn Error>> {
    let mut crowd = Crowd::open(servers.addresses(), CONNECTIONS)?;
    if load == Load::Create {
        let parents: Vec<String> = (0..CONNECTIONS).map(|it| format!("/load-{it}")).collect();
        create_all(&mut crowd, &parents)?;
    }
    let mut draw = Draw(0x9e37_79b9_7f4a_7c15);
    let mut counted = Counted::new(size);
    for client in 0..crowd.len() {
        for _ in 0..IN_FLIGHT / CONNECTIONS {
            crowd.with(client, |line| load.ask(line, client, &mut draw));
        }
    }
    loop {
        crowd.turn(|client, line, told| {
            if let Told::Answer(op, since) = told {
                if load.is_done_by(op) {
                    counted.add(since);
                    load.ask(line, client, &mut draw);
                }
            }
            Ok(())
        })?;
        if let Some(row) = counted.ends(servers, load.name())? {
            crowd.settle()?;
            return Ok(row);
        }
    }
}

/// Connections that open a session, close it, and are followed by others.
pub(crate) fn sessions(servers: &Servers, size: Size) -> Result<Row, Box<dyn Error>> {
    let mut crowd = Crowd::open(servers.addresses(), SESSIONS_AT_ONCE)?;
    let mut since = vec![Instant::now(); crowd.len()];
    let mut counted = Counted::new(size);
    for client in 0..crowd.len() {
        crowd.ask(client, &Request::CloseSession);
    }
    let mut over = Vec::new();
    loop {
        crowd.turn(|client, line, told| {
            match told {
                Told::Opened => line.ask(&Request::CloseSession, since[client]),
                Told::Answer(..) => over.push(client),
                Told::Event => {}
            }
            Ok(())
        })?;
        for client in over.drain(..) {
            counted.add(since[client]);
            since[client] = Instant::now();
            crowd.replace(client)?;
        }
        if let Some(row) = counted.ends(servers, "session")? {
            return Ok(row);
        }
    }
}

/// Makes the nodes that are set and read.
pub(crate) fn create_keys(servers: &Servers) -> Result<(), Box<dyn Error>> {
    let keys: Vec<String> = (0..KEYS as u64).map(key).collect();
    create_all(&mut Crowd::open(servers.addresses(), CONNECTIONS)?, &keys)
}

/// Makes all these nodes.
pub(crate) fn create_all(crowd: &mut Crowd, paths: &[String]) -> Result<(), Box<dyn Error>> {
    for some in paths.chunks(IN_FLIGHT) {
        for (n, path) in some.iter().enumerate() {
            crowd.ask(n % crowd.len(), &create(path));
        }
        crowd.settle()?;
    }
    Ok(())
}

pub(crate) fn create(path: &str) -> Request<'_> {
    let everybody = AclEntry { perms: 31, id: Id { scheme: "world", id: "anyone" } };
    let (data, acl, flags) = (Some(&[7; VALUE_BYTES][..]), vec![everybody], 0);
    Request::Create(OpCode::Create, CreateRequest { path, data, acl, flags })
}

pub(crate) fn get(path: &str, watch: bool) -> Request<'_> {
    Request::GetData(WatchedRequest { path, watch })
}

fn key(number: u64) -> String {
    format!("/key-{number:05}")
}

struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

const SESSIONS_AT_ONCE: usize = 64;
