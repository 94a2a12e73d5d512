//! An application with its own loop: it drives the `Node` by hand, with no driver, no thread and
//! no handle. Three nodes in one process pass bytes; one of them leads an election, then vanishes.
//!
//! `cargo run --example embed`

use std::{collections::BTreeMap, error::Error, sync::Arc, time::Duration};

use quorate::{
    ClusterId, Config, Filter, NodeId, Now, Secret, SessionId,
    node::{
        Consistency, Message, Node, Output, Read, ReadOp, ReadOutcome, Request, RequestError, Seq,
        Watch, WatchId,
    },
    recipes::{Action, Election, Failure, Input, Layout, State},
    wal::{MemoryFs, Wal},
};

/// A node, its log, and a candidate that campaigns through it.
struct Member {
    node: Node,
    wal: Wal,
    election: Election,
    session: Option<SessionId>,
    seq: u64,
    watches: BTreeMap<WatchId, Filter>,
    keep_alive_at: Duration,
}

impl Member {
    fn new(id: NodeId, ids: [NodeId; 3]) -> Result<Self, Box<dyn Error>> {
        let cluster = ClusterId::named("embed");
        // `OsFs` instead keeps it on disk.
        let (wal, restored) = Wal::open(Arc::new(MemoryFs::new()), "data".as_ref(), cluster, id)?;
        let mut node = Node::open(Config::founding(cluster, id, ids).build()?, restored)?;
        let secret = Secret::from_bytes([id.as_u64() as u8; 16]); // random in earnest
        node.submit(Request::OpenSession { secret, ttl: TTL })?;
        Ok(Self {
            node,
            wal,
            election: Election::new(Layout::Curator, "/app/leader".parse()?),
            session: None,
            seq: 0,
            watches: BTreeMap::new(),
            keep_alive_at: Duration::ZERO,
        })
    }

    /// Feed, then drain until it is empty: send, persist, send, deliver.
    fn turn(&mut self, now: Now, frames: Vec<(NodeId, Message)>) -> Result<Vec<Message>, Box<dyn Error>> {
        self.node.tick(now)?;
        for (from, message) in frames {
            let _ = self.node.step(from, message.bytes); // a bad frame is refused and counted
        }
        if let (Some(session), true) = (self.session, now.mono >= self.keep_alive_at) {
            let (epoch, acked) = (1, self.seq);
            let _ = self.node.submit(Request::KeepAlive { session, epoch, acked });
            self.keep_alive_at = now.mono + TTL / 3;
        }
        let mut out = Vec::new();
        loop {
            while let Some(ready) = self.node.ready() {
                out.extend(ready.messages); // may leave at once
                if let Some((write, token)) = ready.write {
                    self.wal.persist(&write)?; // one fsync
                    out.extend(self.node.persisted(token)?); // these exist only from here on
                }
                for output in ready.outputs {
                    self.deliver(output);
                }
            }
            if !self.act() {
                return Ok(out);
            }
        }
    }

    /// Feeds the election with what the node says.
    fn deliver(&mut self, output: Output) {
        let failure = |error| match error {
            RequestError::Op(error) => Failure::Op(error),
            RequestError::Unknown(_) => Failure::Unknown,
            _ => Failure::NotDone,
        };
        let input = match output {
            Output::Session { result: Ok(attachment), .. } => {
                self.session = Some(attachment.session);
                let id = [attachment.session.as_u64() as u8; 16]; // random in earnest
                self.election.campaign(id, "my address".into());
                Input::Renewed(attachment.until)
            }
            Output::Renewed { until, .. } => Input::Renewed(until),
            Output::Detached { .. } => Input::SessionOver { moved: false },
            Output::Reply { zxid, result, .. } => Input::Replied {
                zxid,
                result: result.map_err(failure).map(|it| it.expect("a transaction has an outcome")),
            },
            Output::Read { zxid, result, .. } => match result {
                Ok(ReadOutcome::Children { names, more, .. }) => {
                    Input::Listed { zxid, result: Ok((names, more)) }
                }
                Ok(ReadOutcome::Node { data, stat }) => {
                    Input::Read { zxid, result: Ok(Some((data, stat))) }
                }
                _ => Input::Listed { zxid, result: Err(Failure::NotDone) },
            },
            Output::Events { events, .. } => {
                return events.into_iter().for_each(|it| self.election.handle(Input::Event(it)));
            }
            Output::WatchEnded { watch, .. } => match self.watches.remove(&watch) {
                Some(filter) => Input::WatchEnded(filter),
                None => return,
            },
            _ => return,
        };
        self.election.handle(input);
    }

    /// Does what the election asks for. Returns whether there was anything to do.
    fn act(&mut self) -> bool {
        let mut any = false;
        let Some(session) = self.session else { return any };
        while let Some(action) = self.election.action() {
            any = true;
            let taken = match action {
                Action::Submit(txn) => {
                    self.seq += 1;
                    let seq = Seq { session, epoch: 1, seq: self.seq, acked: self.seq - 1 };
                    self.node.submit(Request::Txn { seq: Some(seq), txn }).is_ok()
                }
                Action::List { path, after, at_least } => {
                    let op = ReadOp::Children { path, after, limit: 1000 };
                    let consistency = Consistency::AtLeast(at_least);
                    self.node.read(Read { session: Some(session), op, consistency }).is_ok()
                }
                Action::Watch { filter, from } => {
                    let watch = Watch { filter: filter.clone(), from: Some(from), credit: 1000 };
                    let armed = self.node.watch(watch);
                    armed.map(|it| self.watches.insert(it.id, filter)).is_ok()
                }
                Action::Unwatch(filter) => {
                    self.watches.retain(|&id, it| *it != filter || { self.node.unwatch(id); false });
                    true
                }
                _ => true,
            };
            assert!(taken, "nothing overloads this example; a service feeds `NotDone` back");
        }
        any
    }
}

const TTL: Duration = Duration::from_secs(2);
