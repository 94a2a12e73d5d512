//! What comes from other members: checked in full, then handed to the part that it is for.

use std::collections::BTreeSet;

use bytes::Bytes;
use thiserror::Error;

use super::{
    Ended, Misuse, Node,
    transfer::{Incoming, Received, Transfers},
};
use crate::{
    command::{Batch, Command, CommandError},
    config::MEMBERS_MAX,
    consensus::Rejected,
    id::{Incarnation, NodeId},
    node::ready::SnapshotWrite,
    wire::{
        Body, Chunk, FRAME_BYTES_MAX, Forward, Frame, FrameError, Hello, Promise, RaftMessage,
        Refusal, SnapshotMeta,
    },
};

/// Why a frame was not taken. Nothing of it had an effect.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum StepError {
    /// The bytes are no frame of this release.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The frame is not from the member that the transport names, or not for this one.
    #[error("the frame goes from {from} to {to}; it came from {peer} to {here}")]
    Address {
        /// As the frame says.
        from: NodeId,
        /// As the frame says.
        to: NodeId,
        /// As the transport says.
        peer: NodeId,
        /// This member.
        here: NodeId,
    },
    /// The frame belongs to another cluster.
    #[error("the frame belongs to another cluster")]
    OtherCluster,
    /// The sender is not who the cluster knows under its id.
    #[error("node {from} is refused: {why}")]
    Refused {
        /// The sender.
        from: NodeId,
        /// Why.
        why: &'static str,
    },
    /// The message cannot be, or comes at a wrong time.
    #[error("a message from node {from} is refused: {why}")]
    Message {
        /// The sender.
        from: NodeId,
        /// Why.
        why: String,
    },
    /// The run loop was not kept to.
    #[error(transparent)]
    Misuse(#[from] Misuse),
    /// The node has ended.
    #[error("the node has ended: {0}")]
    Ended(Ended),
}

impl Node {
    /// Takes a frame from another member. A frame that cannot be used is refused and counted; it
    /// has no effect, and the caller needs to do no more than to log it.
    ///
    /// # Errors
    ///
    /// [`StepError`] says why the frame was not taken.
    pub fn step(&mut self, from: NodeId, bytes: Bytes) -> Result<(), StepError> {
        self.check_no_write()?;
        if let Some(ended) = &self.ended {
            return Err(StepError::Ended(ended.clone()));
        }
        let result = self.take_frame(from, &bytes);
        self.undrained = true;
        if result.is_err() {
            self.refused_frames += 1;
        }
        result
    }

    fn take_frame(&mut self, peer: NodeId, bytes: &Bytes) -> Result<(), StepError> {
        let here = self.config.id;
        // The sender's limits may be other than this member's.
        let frame = Frame::decode(bytes, FRAME_BYTES_MAX)?;
        if frame.cluster != self.config.cluster {
            return Err(StepError::OtherCluster);
        }
        let (from, to) = (frame.from, frame.to);
        if from != peer || to != here || from == here {
            return Err(StepError::Address { from, to, peer, here });
        }
        if let Body::Refused { reason, known, promise } = frame.body {
            let stranger = self
                .identity
                .pin(from)
                .is_some_and(|pin| pin.incarnation.store != frame.incarnation.store);
            let ended = self.identity.refused(reason, known, promise);
            if let Some(ended) = ended.filter(|_| !stranger) {
                self.end_rolled_back(ended);
            }
            return Ok(());
        }
        let hello = match &frame.body {
            Body::Hello(hello) => Some(hello),
            _ if self.identity.awaits_greeting(from, frame.incarnation) => {
                return Err(self.ask_for_greeting(from));
            }
            _ => None,
        };
        let newer = self.identity.pin(from).is_some_and(|pin| pin.incarnation != frame.incarnation);
        let admitted = self.identity.admit(from, frame.incarnation, &self.membership, hello);
        if let Err(reason) = admitted {
            if reason == Refusal::NotAMember && self.consensus.leader().is_none() {
                self.ask_who_it_is();
            }
            return Err(self.refuse(from, frame.incarnation, reason));
        }
        if newer {
            // What was sent to its last opening may be lost with it.
            self.consensus.unreachable(from);
            self.digests.forget(from);
        }
        match frame.body {
            Body::Hello(hello) => self.take_hello(from, &hello),
            // Before the founding is over this member does not even listen to consensus.
            _ if !self.identity.takes_part() => Ok(()),
            body if self.is_quarantined() => self.take_in_quarantine(from, body),
            Body::Raft(message) => self.take_message(from, message),
            body => self.take_body(from, body),
        }
    }

    fn take_hello(&mut self, from: NodeId, hello: &Hello) -> Result<(), StepError> {
        if let Some(ended) = self.identity.told(hello) {
            self.end_rolled_back(ended);
            return Ok(());
        }
        if let Err(reason) = self.identity.hello(from, hello) {
            let own = self.identity.own();
            return Err(self.refuse(from, own, reason));
        }
        if hello.reply {
            let greeting = self.identity.greeting(false);
            self.send(from, Body::Hello(greeting));
        }
        Ok(())
    }

    /// A peer has found that this store is an older image: it is never used again.
    fn end_rolled_back(&mut self, ended: Ended) {
        if matches!(ended, Ended::RolledBack { .. } | Ended::Forgot { .. }) {
            self.identity.set_rolled_back();
        }
        self.end(ended);
    }

    /// A newer opening of a member has something to say, and its greeting was lost or comes later.
    fn ask_for_greeting(&mut self, from: NodeId) -> StepError {
        if self.asked.insert(from) {
            let greeting = self.identity.greeting(true);
            self.send(from, Body::Hello(greeting));
        }
        StepError::Refused { from, why: "its new opening has not said hello" }
    }

    /// A stranger speaks, who may have joined behind the back of this member: the others know.
    fn ask_who_it_is(&mut self) {
        let others = self.membership.members.keys().copied();
        let others: Vec<NodeId> = others.filter(|&id| id != self.config.id).collect();
        for member in others {
            if self.asked.insert(member) {
                let greeting = self.identity.greeting(true);
                self.send(member, Body::Hello(greeting));
            }
        }
    }

    fn take_message(&mut self, from: NodeId, message: RaftMessage) -> Result<(), StepError> {
        if let Some(why) = self.contradiction(&message) {
            self.end(Ended::Consensus { why });
            return Ok(());
        }
        let promise = self.consensus.promise(from, &message);
        let result = self.consensus.step(from, message);
        self.check_consensus();
        if let Some(promise) = promise.filter(|_| !matches!(result, Err(Rejected::Misbehaving(_))))
        {
            self.identity.promised(from, promise);
        }
        match result {
            // Late, or not for now: ordinary on a network.
            Ok(()) | Err(Rejected::Ignored(_)) => Ok(()),
            Err(error) => {
                let why = error.to_string();
                Err(StepError::Message { from, why })
            }
        }
    }

    /// Raft takes the members from the leader's word, and this node takes them from the snapshot
    /// that it staged, now and after each restart: they must be the same.
    fn contradiction(&self, message: &RaftMessage) -> Option<String> {
        let meta = message.snapshot.as_ref().filter(|_| message.term >= self.consensus.term())?;
        let incoming = self.transfers.incoming.as_ref().filter(|it| it.durable)?;
        if (meta.index, meta.term) != (incoming.index, incoming.term) {
            return None;
        }
        let own = incoming.members()?.meta(meta.index, meta.term);
        let set = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<_>>();
        let same =
            set(&own.voters) == set(&meta.voters) && set(&own.learners) == set(&meta.learners);
        (!same).then(|| {
            let SnapshotMeta { index, voters, learners, .. } = meta;
            format!(
                "snapshot {index} names the members {:?} and {:?}, and its leader {voters:?} and \
                 {learners:?} for the same place; remove this member and add a new id as a learner \
                 with an empty directory",
                own.voters, own.learners
            )
        })
    }

    fn take_body(&mut self, from: NodeId, body: Body) -> Result<(), StepError> {
        match body {
            Body::Forward(forward) => return self.take_forward(from, forward),
            Body::SnapshotChunk(chunk) => return self.take_chunk(from, chunk),
            Body::ReadIndex { context } => {
                if self.leadership.is_some() {
                    self.reads.push_remote(from, context, MEMBERS_MAX);
                }
            }
            Body::ReadIndexReply { context, index, term } => {
                if term == self.consensus.term() {
                    self.reads.confirm(context, term, index);
                }
            }
            Body::SnapshotOffer { index, term } => self.take_offer(from, index, term),
            Body::SnapshotPull { index, term, offset } => {
                self.serve_pull(from, index, term, offset);
            }
            Body::SnapshotStaged { index, term, .. } => {
                let message = self.consensus.snapshot_message(from, index, term);
                let delivered = message.is_some();
                if let Some(message) = message {
                    self.send(from, Body::Raft(message));
                } else if let Some(outgoing) = self.transfers.outgoing.get_mut(&from) {
                    outgoing.awaited = false;
                }
                self.consensus.report_snapshot(from, delivered);
            }
            Body::Hello(_) | Body::Raft(_) | Body::Refused { .. } => {}
            body => self.take_state_body(from, body),
        }
        Ok(())
    }

    fn refuse(&mut self, from: NodeId, sender: Incarnation, reason: Refusal) -> StepError {
        if self.refused.insert(from) {
            let known = self.identity.known(from).map(|mut pin| {
                if let Some(store) = self.membership.store(from) {
                    pin.incarnation.store = store;
                }
                pin
            });
            // What an earlier frame lacks says nothing of the opening that is told.
            let newer = known.is_some_and(|it| sender.boot.counter > it.incarnation.boot.counter);
            let promise = if newer { self.identity.promise(from) } else { Promise::default() };
            self.send(from, Body::Refused { reason, known, promise });
        }
        let why = match reason {
            Refusal::Wiped => "it has another store than the one that is pinned",
            Refusal::RolledBack => "its store was put back from an older image",
            Refusal::Removed => "it was removed from the cluster",
            Refusal::NotAMember => "it is not a member",
            Refusal::OtherBootstrap => "it was set up with other members, intervals or limits",
        };
        StepError::Refused { from, why }
    }

    /// Takes commands for the next entry, if this node leads. They are checked here, because what
    /// is in the log must be readable for every member. A frame is taken once, in its term alone
    /// (ARCHITECTURE.md, rule 9).
    fn take_forward(&mut self, from: NodeId, forward: Forward) -> Result<(), StepError> {
        let (bytes_max, entry_bytes_max) =
            (self.config.limits.pending_bytes_max, self.config.limits.entry_bytes_max);
        let Some(leadership) = &mut self.leadership else {
            return Ok(());
        };
        let Forward { commands, term, number } = forward;
        let nonce = self.identity.pin(from).map_or(0, |pin| pin.incarnation.boot.nonce);
        if term != self.consensus.term() || !leadership.takes(from, nonce, number) {
            return Ok(());
        }
        let malformed = |why: String| StepError::Message { from, why };
        let mut batch = Batch(commands.clone());
        let mut keep_alives = Vec::new();
        // Runs of commands, none longer than an entry unless one command is.
        let mut parts: Vec<Bytes> = Vec::new();
        let mut part = 0..0;
        let mut at = 0;
        while let Some(command) = batch.next_command() {
            let end = commands.len() - batch.0.len();
            match command {
                Ok(
                    Command::Expire { .. }
                    | Command::ReapNode { .. }
                    | Command::PinStore { .. }
                    | Command::CompareStates { .. },
                ) => {
                    return Err(malformed("only a leader makes this command".into()));
                }
                Ok(Command::KeepAlives(items)) => {
                    keep_alives.extend(items);
                    parts.push(commands.slice(std::mem::replace(&mut part, end..end)));
                }
                Ok(_) if end - part.start > entry_bytes_max => {
                    parts.push(commands.slice(std::mem::replace(&mut part, at..end)));
                }
                Ok(_) => part.end = end,
                // It would be void: the others that came with it are not.
                Err(CommandError::Field(_)) => {
                    parts.push(commands.slice(std::mem::replace(&mut part, end..end)));
                }
                Err(error) => return Err(malformed(error.to_string())),
            }
            at = end;
        }
        parts.push(commands.slice(part));
        keep_alives.into_iter().for_each(|it| leadership.hold(it));
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            // Past the bound they are dropped, and their origins send them again.
            leadership.push(part, bytes_max);
        }
        Ok(())
    }

    /// A leader has no log for this member, and holds a snapshot for it.
    fn take_offer(&mut self, from: NodeId, index: u64, term: u64) {
        // Once raft has the leader's word for what is staged, nothing takes its place.
        if index <= self.consensus.applied_index() || self.consensus.installs() {
            return;
        }
        let (tick, asker) = (self.tick, (from, self.consensus.term()));
        let patience = u64::from(self.config.election_ticks) * PATIENCE_ELECTIONS;
        if let Some(incoming) = &mut self.transfers.incoming {
            let same = (incoming.index, incoming.term) == (index, term);
            let answer = if incoming.durable {
                if !same && incoming.told != Some(asker) {
                    // It may not know yet that its own is not needed.
                    incoming.told = Some(asker);
                    incoming.progress_tick = tick;
                }
                let (index, term, crc) = (incoming.index, incoming.term, incoming.crc);
                Some(Body::SnapshotStaged { index, term, crc })
            } else if same && !incoming.is_whole() {
                incoming.from = from;
                incoming.asked_tick = tick;
                Some(Body::SnapshotPull { index, term, offset: incoming.offset })
            } else {
                None
            };
            // What is on its way, or here, is nearer than what would begin now.
            let kept = same || tick - incoming.progress_tick < patience;
            answer.into_iter().for_each(|answer| self.send(from, answer));
            if kept {
                return;
            }
        }
        self.drop_incoming();
        let local = self.transfers.local.take();
        // If this one never comes, the log has grown by that much all the same.
        self.log_bytes += local.as_ref().map_or(0, |local| local.log_bytes);
        self.drop_elsewhere(local);
        let cluster = self.config.cluster;
        self.transfers.incoming = Some(Incoming::new(from, (index, term), cluster, self.tick));
        self.next_write.snapshot.push(SnapshotWrite::Begin { index, term });
        self.send(from, Body::SnapshotPull { index, term, offset: 0 });
    }

    fn serve_pull(&mut self, to: NodeId, index: u64, term: u64, offset: u64) {
        let chunk_bytes = self.config.limits.snapshot_chunk_bytes;
        let Transfers { outgoing, states, .. } = &mut self.transfers;
        let mut held = outgoing.get_mut(&to).into_iter().chain(states.get_mut(&to));
        let Some(outgoing) = held.find(|it| (it.index, it.term) == (index, term)) else {
            return;
        };
        if let Some(chunk) = outgoing.pull(offset, chunk_bytes, self.tick) {
            self.send(to, Body::SnapshotChunk(chunk));
        }
    }

    fn take_chunk(&mut self, from: NodeId, chunk: Chunk) -> Result<(), StepError> {
        let Some(incoming) = self.transfers.incoming.as_mut() else {
            return Ok(());
        };
        match incoming.receive(chunk, self.tick) {
            Received::Stale => Ok(()),
            Received::More(write) => {
                incoming.from = from;
                incoming.asked_tick = self.tick;
                let (index, term, offset) = (incoming.index, incoming.term, incoming.offset);
                self.next_write.snapshot.push(write);
                self.send(from, Body::SnapshotPull { index, term, offset });
                Ok(())
            }
            Received::Finished(writes) => {
                self.next_write.snapshot.extend(writes);
                Ok(())
            }
            Received::Corrupt(why) => {
                self.drop_incoming();
                Err(StepError::Message { from, why: format!("its snapshot is damaged: {why}") })
            }
        }
    }

    /// Drops what was received of a snapshot, here and on the disk.
    pub(super) fn drop_incoming(&mut self) {
        if self.transfers.incoming.is_some() {
            self.drop_staging();
        }
    }

    /// Drops the snapshot that is being received or written, here and on the disk.
    pub(super) fn drop_staging(&mut self) {
        let (incoming, local) = (self.transfers.incoming.take(), self.transfers.local.take());
        if incoming.is_none() && local.is_none() {
            return;
        }
        self.consensus.expect_snapshot(None);
        // Up to its install a snapshot of this node's own goes on, and the log is cut for it.
        let steps = &mut self.next_write.snapshot;
        let is_install = |step: &SnapshotWrite| matches!(step, SnapshotWrite::Install { .. });
        steps.truncate(steps.iter().rposition(is_install).map_or(0, |at| at + 1));
        steps.push(SnapshotWrite::Discard);
        self.drop_elsewhere(Some((incoming, local)));
    }
}

/// Election timeouts that a snapshot may make no progress before another takes its place.
const PATIENCE_ELECTIONS: u64 = 3;
