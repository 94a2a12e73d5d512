//! An application with its own loop: it drives the `Node` by hand, with no driver, no thread and
//! no handle. Three nodes pass bytes; whoever leads the election vanishes, and another takes over.
//!
//! `cargo run --example embed`

use std::{error::Error, sync::Arc, time::Duration};

use quorate::{
    ClusterId, Config, Identities, List, NodeId, Now, Secret,
    node::{Message, Node, Output, Request, Seq, Watch},
    recipes::{Action, Election, Failure, Input, Layout, State},
    wal::{MemoryFs, Wal},
};

/// A node, its log, and a candidate that campaigns through it.
struct Member {
    node: Node,
    wal: Wal,
    election: Election,
    /// The session's last command.
    last: Option<Seq>,
    renew_at: Duration,
}

#[rustfmt::skip] // short literals stay on one line
impl Member {
    fn new(id: NodeId, ids: [NodeId; 3]) -> Result<Self, Box<dyn Error>> {
        let cluster = ClusterId::named("embed");
        let fs = Arc::new(MemoryFs::new()); // `OsFs` keeps it on disk
        let (wal, restored) = Wal::open(fs, "data".as_ref(), cluster, id)?;
        let mut node = Node::open(Config::founding(cluster, id, ids).build()?, restored)?;
        let (secret, ttl) = (Secret::from_bytes([id.as_u64() as u8; 16]), TTL); // random in earnest
        node.submit(Request::OpenSession { secret, ttl, identities: Identities::none() })?;
        let (election, last) = (Election::new(Layout::Curator, "/app/leader".parse()?), None);
        let renew_at = Duration::ZERO;
        Ok(Self { node, wal, election, last, renew_at })
    }

    /// Feeds the node, and drains it. A node is ticked only when it is drained.
    fn turn(&mut self, now: Now, frames: Frames) -> Result<Vec<Message>, Box<dyn Error>> {
        for (from, message) in frames {
            let _ = self.node.step(from, message.bytes); // a bad frame is refused and counted
        }
        if let Some(Seq { session, epoch, seq: acked, .. }) = self.last {
            if now.mono >= self.renew_at {
                self.renew_at = now.mono + TTL / 3;
                self.node.submit(Request::KeepAlive { session, epoch, acked })?;
            }
        }
        let mut messages = Vec::new();
        while let Some(ready) = self.node.ready() {
            messages.extend(ready.messages); // may leave at once
            if let Some((write, token)) = ready.write {
                self.wal.persist(&write)?; // one fsync
                messages.extend(self.node.persisted(token)?); // these exist only from here on
            }
            ready
                .outputs
                .into_iter()
                .for_each(|output| self.deliver(output));
            self.act()?;
        }
        self.node.tick(now)?;
        Ok(messages)
    }

    /// Feeds the election with what the node says.
    fn deliver(&mut self, output: Output) {
        let input = match output {
            Output::Session { result: Ok(it), .. } => {
                let (session, epoch, seq) = (it.session, it.epoch, it.last_seq);
                self.last = Some(Seq { session, epoch, seq, acked: seq });
                let id = [session.as_u64() as u8; 16]; // random in earnest
                self.election.campaign(id, "my address".into());
                Input::Renewed(it.until)
            }
            Output::Renewed { until, .. } => Input::Renewed(until),
            Output::Detached { .. } => Input::SessionOver { moved: false },
            Output::Reply { zxid, result, .. } => {
                let result = result.map(|it| it.expect("a transaction has an outcome"));
                Input::Replied { zxid, result: result.map_err(Failure::from) }
            }
            Output::Events { mut events, .. } => Input::Event(events.remove(0)),
            _ => return,
        };
        self.election.handle(input);
    }

    /// Does what the election asks for.
    fn act(&mut self) -> Result<(), Box<dyn Error>> {
        while let Some(action) = self.election.action() {
            let (view, zxid) = (self.node.view(), self.node.status().zxid);
            match action {
                Action::Submit(txn) => {
                    let last = self.last.as_mut().ok_or("it campaigns in a session")?;
                    (last.seq, last.acked) = (last.seq + 1, last.seq);
                    self.node.submit(Request::SessionTxn { seq: *last, txn })?;
                }
                Action::List { path, after, .. } => {
                    let page = view.list(&after.into_iter().fold(List::of(path), List::after));
                    let result = page.map_err(Failure::Op).map(|it| (it.children.into_iter()
                        .map(|child| child.name).collect(), it.resume.is_some()));
                    self.election.handle(Input::Listed { zxid, result });
                }
                Action::Get { path, .. } => {
                    let result = Ok(view.read(&path).ok());
                    self.election.handle(Input::Read { zxid, result });
                }
                Action::Watch { filter, from } => {
                    let (from, credit) = (Some(from), 1000);
                    self.node.watch(Watch { from, ..Watch::of(filter, credit) })?;
                }
                _ => {} // a watch that is not dropped costs little, and tells nothing wrong
            }
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let ids = [1, 2, 3].map(|id| NodeId::new(id).expect("ids start at 1"));
    let members = ids.into_iter().map(|id| Member::new(id, ids));
    let mut members: Vec<Member> = members.collect::<Result<_, _>>()?;
    let mut wire: Frames = Vec::new();
    for step in 1..4_000 {
        let mono = Duration::from_millis(50) * step; // virtual: nobody waits
        let frames = std::mem::take(&mut wire);
        for member in &mut members {
            let id = member.node.status().id;
            let mine = frames.iter().filter(|it| it.1.to == id).cloned().collect();
            let sent = member.turn(Now { mono, wall_ms: 0 }, mine)?;
            wire.extend(sent.into_iter().map(|it| (id, it)));
        }
        let leads = |it: &Member| matches!(it.election.state(mono), State::Held { .. });
        if let Some(at) = members.iter().position(leads) {
            let leader = members.remove(at); // it vanishes; the others wait for its lease to end
            let (id, fence) = (leader.node.status().id, leader.election.fence());
            println!("after {mono:?} node {id} leads, fenced by {fence:?}");
            if members.len() == 1 {
                return Ok(());
            }
        }
    }
    Err("nobody was elected".into())
}

type Frames = Vec<(NodeId, Message)>;

const TTL: Duration = Duration::from_secs(2);
