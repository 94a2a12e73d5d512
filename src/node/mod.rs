//! The sans-IO node: consensus and namespace, composed.
//!
//! **Feed inputs, then drain [`Node::ready`] until it is empty; tick only a drained node. What must
//! be durable first comes out of [`Node::persisted`], and only there.**
//!
//! ```text
//! loop {
//!     inputs:   node.tick(now) | node.step(from, bytes) | node.submit(request) | ..
//!     while let Some(ready) = node.ready() {
//!         send     ready.messages               // may leave at once
//!         if let Some((write, token)) = ready.write {
//!             persist  write                    // one fsync; else: node.failed(token, why)
//!             send     node.persisted(token)    // votes and acks: they do not exist earlier
//!         }
//!         deliver  ready.outputs                // replies and watch events, in apply order
//!     }
//! }
//! ```
//!
//! A drain is bounded: if the node [has more](Node::has_more), the loop goes on at once, with the
//! tick if it is due.
//!
//! The writes may also be persisted by another thread, in order, while the loop goes on: whoever
//! does that hands the tokens back in the same order, and feeds the node only while it is not
//! [blocked](Node::is_blocked). A driver that persists at once never meets that.
//!
//! The node owns no clock, thread, socket, file, random source or lock. It never panics on what
//! comes from a peer, a client or a disk: it ends in a typed state instead, see [`Ended`].

mod apply;
mod cursors;
mod digests;
mod divergence;
mod drain;
mod error;
#[cfg(feature = "sim")]
mod glimpse;
mod identity;
mod install;
mod keep_alives;
mod leader;
mod membership;
mod open;
mod origin;
mod peers;
mod rate;
mod reads;
mod ready;
mod request;
mod status;
mod submit;
mod transfer;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;

pub use crate::config::OtherParameters;
pub use error::{MembershipError, Misuse, RequestError, SubmitError, Unknown};
#[cfg(feature = "sim")]
pub(crate) use glimpse::Glimpse;
pub use identity::LocalRecordError;
pub use open::OpenError;
pub use peers::StepError;
pub use ready::{Garbage, Message, Ready, Restored, RestoredSnapshot, SnapshotWrite, Token, Write};
pub use request::{
    Armed, Attachment, Caller, Consistency, Detach, Output, Read, ReadOp, ReadOutcome, Request,
    Seq, Ticket, Watch, WatchEnd, WatchId,
};
pub use status::{
    DiskError, DiskFault, DiskUse, Divergence, Ended, Member, Mismatch, Role, Status, Waiting,
};
pub use transfer::Image;

use crate::{
    config::Config,
    consensus::{Consensus, MembershipChange},
    id::{Lineage, NodeId, SessionId, Zxid},
    mutant::Mutant,
    namespace::{Namespace, Past, View},
    node::{
        cursors::Cursors, digests::Digests, divergence::Quarantine, drain::InFlight,
        identity::Identity, leader::Leadership, membership::Membership, origin::Origin,
        reads::Reads, transfer::Transfers,
    },
    op::Identities,
    time::{Now, as_micros},
    wire::{Body, Frame},
};

/// One member of the cluster.
///
/// Its methods are of four kinds: *feed* (`tick`, `step`, `unreachable`), *command* (`submit`,
/// `read`, `watch`, ..), *drain* (`ready`, `persisted`, `failed`), and getters that take `&self`.
/// The module's documentation has the run loop.
#[derive(Debug)]
pub struct Node {
    config: Config,
    identity: Identity,
    membership: Membership,
    consensus: Consensus,
    namespace: Namespace,
    origin: Origin,
    reads: Reads,
    cursors: Cursors,
    transfers: Transfers,
    /// While this node leads.
    leadership: Option<Leadership>,
    /// The leader that the origin's commands go to, and its term.
    following: (Option<NodeId>, u64),
    change: Option<PendingChange>,
    /// A snapshot was installed: what was submitted before this ticket is answered from it, as soon
    /// as the watches have read on.
    unanswered_before: Option<u64>,
    digests: Digests,
    /// While the state is not to be used.
    quarantine: Option<Quarantine>,
    /// What had been wrong with the state, and after which entry that of a peer took its place. The
    /// log may have to come there yet.
    replaced: Option<(Mismatch, u64)>,
    now: Now,
    tick: u64,
    /// When a leader was last known.
    led_tick: u64,
    applied: u64,
    /// Of the last entry that was applied here, and not taken over in a snapshot.
    applied_term: u64,
    /// Index and bytes of the entries in memory that were applied.
    tail: VecDeque<(u64, usize)>,
    tail_bytes: usize,
    snapshot_index: u64,
    /// Bytes of the last snapshot.
    snapshot_bytes: usize,
    /// Bytes of the log that came after what the last snapshot was begun for.
    log_bytes: usize,
    outputs: Vec<Output>,
    messages: Vec<Message>,
    garbage: Garbage,
    /// What the next write carries besides raft's part.
    next_write: Write,
    /// The writes that are out, oldest first; a barrier is the last one.
    in_flight: VecDeque<InFlight>,
    /// A write that comes out next: the outputs before it did not wait for it.
    held_write: Option<(Write, Token, InFlight)>,
    next_number: u64,
    next_ticket: u64,
    /// Frames of commands that were sent to leaders.
    forwards: u64,
    /// Changes that lagging watches may still read in this drain.
    catch_up_left: usize,
    token_dropped: Arc<AtomicBool>,
    disk: DiskUse,
    undrained: bool,
    ended: Option<Ended>,
    /// Peers that were told of a refusal since the last tick.
    refused: BTreeSet<NodeId>,
    refused_frames: u64,
    /// Who was asked for a greeting in this tick.
    asked: BTreeSet<NodeId>,
}

/// A change of membership that waits for its apply.
#[derive(Debug)]
struct PendingChange {
    ticket: Ticket,
    change: MembershipChange,
    context: Bytes,
    tick: u64,
}

impl Node {
    /// Tells the node what time it is: call it once per tick interval, on a drained node.
    ///
    /// A driver that was held up calls it once and does not make up for the ticks it missed.
    ///
    /// # Errors
    ///
    /// [`Misuse`] when the node is blocked or not drained; nothing happens then.
    pub fn tick(&mut self, now: Now) -> Result<(), Misuse> {
        self.check_no_write()?;
        if self.undrained {
            return Err(Misuse::NotDrained);
        }
        let passed = now.mono.saturating_sub(self.now.mono);
        let delta_us = as_micros(passed.min(self.config.tick_interval));
        self.now = Now { mono: now.mono.max(self.now.mono), wall_ms: now.wall_ms };
        if self.ended.is_some() {
            return Ok(());
        }
        self.undrained = true;
        self.tick += 1;
        if self.disk_ticks() == u64::from(self.config.election_ticks) {
            slog::warn!(
                self.config.logger,
                "the disk has not finished a write for an election \
                timeout: this node waits for it, and others will not wait for this node"
            );
        }
        self.refused.clear();
        self.asked.clear();
        let committed = self.consensus.committed_in_term();
        if let Some(leadership) = &mut self.leadership {
            leadership.tick(delta_us, committed);
        }
        if self.identity.takes_part() && !self.is_out() {
            self.consensus.tick();
        }
        self.tick_waiting();
        self.tick_divergence();
        self.tick_transfers();
        self.tick_greetings();
        Ok(())
    }

    /// Says that a peer cannot be reached; a hint that saves messages.
    pub fn unreachable(&mut self, peer: NodeId) {
        if self.check_no_write().is_ok() && !self.is_out() {
            self.undrained = true;
            self.consensus.unreachable(peer);
        }
    }

    /// Says what the disk holds. As long as it is nearly full, [`submit`](Self::submit) refuses new
    /// sessions and what grows the tree, so that the log has room for what makes room.
    pub fn set_disk(&mut self, disk: DiskUse) {
        self.disk = disk;
    }

    /// Takes a read. Its answer comes out of [`ready`](Self::ready), under the ticket.
    ///
    /// # Errors
    ///
    /// [`SubmitError`]: the read was not taken.
    pub fn read(&mut self, read: Read) -> Result<Ticket, SubmitError> {
        self.check_running()?;
        if self.reads.len() >= self.config.limits.pending_count_max {
            let max = self.config.limits.pending_count_max as u64;
            return Err(SubmitError::Overloaded { what: "pending_count_max", max });
        }
        let place = match read.caller {
            Caller::Plain(_) => reads::Place::default(),
            Caller::Session(session) => {
                let max = self.config.limits.session_pending_count_max;
                let attachment = self.origin.attached(session)?;
                if self.reads.of_session(session) >= max {
                    let (what, max) = ("session_pending_count_max", max as u64);
                    return Err(SubmitError::Overloaded { what, max });
                }
                let place = reads::Place {
                    epoch: attachment.epoch,
                    after_seq: attachment.submitted(),
                    answered: attachment.answered(),
                };
                self.origin.check_rate(session, &self.config, self.tick)?;
                self.origin.charge(session, &self.config, self.tick);
                place
            }
        };
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.undrained = true;
        self.reads.push(ticket, read, place, self.tick);
        Ok(ticket)
    }

    /// Arms a watch and shows the tree at the same moment, so that nothing falls between the two.
    /// Neither shows more than the caller may read.
    ///
    /// # Errors
    ///
    /// [`SubmitError::Compacted`] when the watch is to resume from before the history, or from
    /// another one ([`Watch::lineage`]);
    /// [`SubmitError::Behind`] when it is to resume from what this node has not applied yet;
    /// [`SubmitError::NotAttached`] when its session is not attached here;
    /// [`SubmitError::Overloaded`] past the number of watches; [`SubmitError::RateLimited`].
    pub fn watch(&mut self, watch: Watch) -> Result<Armed, SubmitError> {
        self.check_running()?;
        let who = self.who(&watch.caller)?;
        if self.cursors.len() >= self.config.limits.watches_max {
            let max = self.config.limits.watches_max as u64;
            return Err(SubmitError::Overloaded { what: "watches_max", max });
        }
        let zxid = self.namespace.zxid();
        let from = watch.from.unwrap_or(zxid);
        let own = Some(self.namespace.lineage()).filter(|&it| it != Lineage::NONE);
        if watch.from.is_some() && own.is_some_and(|own| watch.lineage.is_some_and(|it| it != own))
        {
            return Err(SubmitError::Compacted { from, resume_at: zxid });
        }
        if from > zxid {
            return Err(SubmitError::Behind { from, applied: zxid });
        }
        if from < self.namespace.history_floor() && !Mutant::WatchGap.active() {
            let resume_at = self.namespace.history_floor();
            return Err(SubmitError::Compacted { from, resume_at });
        }
        if let Caller::Session(session) = watch.caller {
            self.origin.check_rate(session, &self.config, self.tick)?;
            self.origin.charge(session, &self.config, self.tick);
        }
        let id = WatchId(self.next_ticket);
        self.next_ticket += 1;
        self.undrained = true;
        let view = self.view().seen_by(who.clone());
        self.cursors.insert(id, watch, who, from, zxid);
        Ok(Armed { id, view })
    }

    /// Lets a watch hand out `events` more.
    pub fn credit(&mut self, watch: WatchId, events: u32) {
        self.undrained = true;
        self.cursors.credit(watch, events);
    }

    /// Asks a watch to say by [`Output::Progress`] how far it has come, once it has caught up and
    /// has credit for it.
    pub fn progress(&mut self, watch: WatchId) {
        self.undrained = true;
        self.cursors.ask_progress(watch, self.namespace.zxid(), &mut self.outputs);
    }

    /// Ends a watch; nothing of it comes out any more.
    pub fn unwatch(&mut self, watch: WatchId) {
        self.cursors.remove(watch);
    }

    /// Hands the leadership to another voter, as far as it has caught up. There is nothing to hand
    /// over to itself.
    ///
    /// # Errors
    ///
    /// [`SubmitError::NotLeader`], or [`SubmitError::Membership`] when `to` is no voter.
    pub fn transfer_leader(&mut self, to: NodeId) -> Result<(), SubmitError> {
        self.check_running()?;
        self.check_no_write()?;
        if self.leadership.is_none() {
            return Err(SubmitError::NotLeader { leader: self.consensus.leader() });
        }
        if !self.membership.members.get(&to).is_some_and(|member| member.voter) {
            return Err(SubmitError::Membership(MembershipError::NotAMember(to)));
        }
        if to == self.config.id {
            return Ok(());
        }
        self.undrained = true;
        let moved = self.consensus.transfer_leader(to);
        moved.map_err(|_| SubmitError::Membership(MembershipError::UnderWay))
    }

    /// Campaigns now instead of waiting for the election timeout, if this node may.
    pub fn campaign(&mut self) {
        if self.check_no_write().is_ok() && !self.is_out() && self.identity.takes_part() {
            self.undrained = true;
            let _ = self.consensus.campaign();
        }
    }

    /// The tree as this node has applied it, frozen; made in O(1), readable on any thread. In
    /// [quarantine](Self::is_quarantined) it is the bad one.
    ///
    /// It is the embedding application's own, and sees everything. For somebody else there is
    /// [`view_of`](Self::view_of).
    pub fn view(&self) -> View {
        self.namespace.view()
    }

    /// The same, as somebody may see it: what they may not read is refused.
    ///
    /// # Errors
    ///
    /// [`SubmitError::NotAttached`] when the session is not attached here.
    pub fn view_of(&self, caller: &Caller) -> Result<View, SubmitError> {
        self.check_running()?;
        Ok(self.view().seen_by(self.who(caller)?))
    }

    /// The tree as it is here, and at every zxid that is retained.
    pub fn past(&self) -> Past {
        self.namespace.past()
    }

    /// The same, as somebody may see it: what they might not read then, or may not read now, is
    /// refused.
    ///
    /// # Errors
    ///
    /// [`SubmitError::NotAttached`] when the session is not attached here.
    pub fn past_of(&self, caller: &Caller) -> Result<Past, SubmitError> {
        self.check_running()?;
        Ok(self.past().seen_by(self.who(caller)?))
    }

    /// The whole state as this node has applied it, frozen in O(1), to be compared with others' or
    /// kept as a backup.
    pub fn image(&self) -> Image {
        Image::new(self.applied, self.source())
    }

    /// The last transaction that this node has applied.
    pub fn zxid(&self) -> Zxid {
        self.namespace.zxid()
    }

    /// The epoch of a session's attachment in force, as this node has applied it: the next one must
    /// be greater.
    pub fn session_epoch(&self, session: SessionId) -> Option<u64> {
        self.namespace.session(session).map(|it| it.epoch)
    }

    /// Why the node has ended, if it has.
    pub fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }

    /// Whether this node leads.
    pub fn is_leader(&self) -> bool {
        self.leadership.is_some() && self.ended.is_none()
    }

    /// Who that is, as this node has applied it.
    fn who(&self, caller: &Caller) -> Result<Identities, SubmitError> {
        let session = match caller {
            Caller::Plain(identities) => return Ok(identities.clone()),
            Caller::Session(session) => *session,
        };
        let epoch = self.origin.attached(session)?.epoch;
        // After a snapshot was installed another attachment may be in force.
        let who = self.namespace.identities(session, epoch).cloned();
        who.map_err(|_| SubmitError::NotAttached { session, epoch })
    }

    fn check_loop(&self) -> Result<(), Misuse> {
        if self.token_dropped.load(Ordering::Acquire) {
            return Err(Misuse::TokenDropped);
        }
        match self.is_blocked() {
            true => Err(Misuse::WriteOut),
            false => Ok(()),
        }
    }

    /// Consensus takes nothing while a write waits to be handed out.
    fn check_no_write(&self) -> Result<(), Misuse> {
        self.check_loop()?;
        match self.held_write {
            Some(_) => Err(Misuse::NotDrained),
            None => Ok(()),
        }
    }

    fn check_running(&self) -> Result<(), SubmitError> {
        self.check_loop()?;
        match &self.ended {
            Some(ended) => Err(SubmitError::Ended(ended.to_string())),
            None if self.is_quarantined() => Err(SubmitError::Quarantined),
            None => Ok(()),
        }
    }

    /// Whether the node has no part in anything: it has ended, or its state is not to be used.
    fn is_out(&self) -> bool {
        self.ended.is_some() || self.is_quarantined()
    }

    fn frame(&self, to: NodeId, body: Body) -> Message {
        let frame = Frame {
            cluster: self.config.cluster,
            from: self.config.id,
            to,
            incarnation: self.identity.own(),
            body,
        };
        Message::new(to, frame.encode())
    }

    fn send(&mut self, to: NodeId, body: Body) {
        let message = self.frame(to, body);
        self.messages.push(message);
    }
}
