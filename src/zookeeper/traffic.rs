//! What goes through connections: packets, and how long clients wait for answers.

use std::time::Duration;

use crate::zookeeper::{code::OpCode, record::RequestHeader};

/// What went through a connection since it was last asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Traffic {
    /// Packets that came; a four-letter word is one.
    pub received: u64,
    /// Bytes that came.
    pub received_bytes: u64,
    /// Answers and events, which have left or wait to.
    pub sent: u64,
    /// Of all requests.
    pub latency: Latency,
    /// Of those that changed nothing.
    pub reads: Latency,
    /// Of those that were to change something.
    pub updates: Latency,
    /// The last answer.
    pub(super) last: Option<LastAnswer>,
}

/// How long answers took, in whole milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Latency {
    /// How many answers.
    pub count: u64,
    /// The sum of all.
    pub sum_ms: u64,
    /// The shortest; 0 if there was none.
    pub min_ms: u64,
    /// The longest.
    pub max_ms: u64,
}

/// The last answer of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LastAnswer {
    /// To what, in ZooKeeper's four letters.
    pub(super) op: &'static str,
    /// The client's number of the last request that has one.
    pub(super) xid: Option<i32>,
    pub(super) zxid: i64,
    /// On the listener's clock.
    pub(super) at: Duration,
    pub(super) latency_ms: u64,
}

impl Traffic {
    /// Adds what went through later.
    pub fn absorb(&mut self, later: &Self) {
        self.received += later.received;
        self.received_bytes += later.received_bytes;
        self.sent += later.sent;
        self.latency.absorb(&later.latency);
        self.reads.absorb(&later.reads);
        self.updates.absorb(&later.updates);
        if let Some(last) = later.last {
            let xid = last.xid.or(self.last.and_then(|it| it.xid));
            self.last = Some(LastAnswer { xid, ..last });
        }
    }

    /// A request was answered at `now`, which came at `since`.
    pub(super) fn answered(
        &mut self,
        header: &RequestHeader,
        (since, now): (Duration, Duration),
        zxid: i64,
    ) {
        let latency_ms = u64::try_from(now.saturating_sub(since).as_millis()).unwrap_or(u64::MAX);
        let op = OpCode::from_number(header.op);
        let one = Latency { count: 1, sum_ms: latency_ms, min_ms: latency_ms, max_ms: latency_ms };
        let updates = op.is_some_and(OpCode::is_write);
        let its = if updates { &mut self.updates } else { &mut self.reads };
        its.absorb(&one);
        self.latency.absorb(&one);
        self.sent += 1;
        // Those of the protocol itself are negative.
        let xid = Some(header.xid).filter(|xid| *xid >= 0).or(self.last.and_then(|it| it.xid));
        let op = op.map_or("NA", letters);
        self.last = Some(LastAnswer { op, xid, zxid, at: now, latency_ms });
    }
}

impl Latency {
    /// Rounded to four places, as ZooKeeper has it.
    pub fn average_ms(&self) -> f64 {
        if self.count == 0 {
            return 0.0;
        }
        (self.sum_ms as f64 / self.count as f64 * 10_000.0).round() / 10_000.0
    }

    fn absorb(&mut self, later: &Self) {
        if later.count == 0 {
            return;
        }
        let first = self.count == 0;
        self.min_ms = if first { later.min_ms } else { self.min_ms.min(later.min_ms) };
        self.max_ms = self.max_ms.max(later.max_ms);
        self.count += later.count;
        self.sum_ms = self.sum_ms.saturating_add(later.sum_ms);
    }
}

/// As `FinalRequestProcessor` has them.
fn letters(op: OpCode) -> &'static str {
    match op {
        OpCode::Create | OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => "CREA",
        OpCode::Delete | OpCode::DeleteContainer => "DELE",
        OpCode::Exists => "EXIS",
        OpCode::GetData => "GETD",
        OpCode::SetData => "SETD",
        OpCode::GetAcl => "GETA",
        OpCode::SetAcl => "SETA",
        OpCode::GetChildren | OpCode::GetChildren2 => "GETC",
        OpCode::Sync => "SYNC",
        OpCode::Ping => "PING",
        OpCode::Check => "CHEC",
        OpCode::Multi => "MULT",
        OpCode::MultiRead => "MLTR",
        OpCode::Reconfig => "RECO",
        OpCode::CheckWatches => "CHKW",
        OpCode::RemoveWatches => "REMW",
        OpCode::SetWatches => "SETW",
        OpCode::SetWatches2 => "STW2",
        OpCode::GetEphemerals => "GETE",
        OpCode::GetAllChildrenNumber => "GETACN",
        OpCode::AddWatch => "ADDW",
        OpCode::WhoAmI => "HOMI",
        OpCode::CreateSession => "SESS",
        OpCode::CloseSession => "CLOS",
        OpCode::Auth | OpCode::Sasl | OpCode::Error => "NA",
    }
}
