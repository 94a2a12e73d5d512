//! Taking over a snapshot from a leader (ARCHITECTURE.md, rules 8 and 11).
//!
//! By the time raft hears of it, the snapshot is durable, verified and decoded. After the switch,
//! watches go on from the history inside it, then sequenced commands are answered from its session
//! table, then everything else that was sent has an unknown outcome.

use super::{Detach, Ended, Node, Output};
use crate::{
    id::SessionId,
    node::error::{RequestError, Unknown},
    wire::{Body, SnapshotMeta},
};

impl Node {
    /// The snapshot that was received is whole and durable: the leader may tell raft.
    pub(super) fn staged(&mut self) {
        let Some(incoming) = self.transfers.incoming.as_mut().filter(|it| it.is_whole()) else {
            return;
        };
        let own = self.config.parameters();
        let other = incoming.parameters().and_then(|cluster| cluster.difference(&own));
        if let Some(other) = other {
            // Before it is acknowledged: this member would keep time and check limits otherwise.
            return self.end(Ended::OtherParameters(other));
        }
        incoming.durable = true;
        let (index, term, crc) = (incoming.index, incoming.term, incoming.crc);
        let sender = incoming.from;
        self.consensus.expect_snapshot(Some((index, term)));
        let leader = self.consensus.leader().unwrap_or(sender);
        self.send(leader, Body::SnapshotStaged { index, term, crc });
    }

    /// The manifest names the snapshot: the state is switched.
    pub(super) fn install(&mut self, meta: &SnapshotMeta) {
        let staged = self.transfers.incoming.take().filter(|it| it.index == meta.index);
        let bytes = staged.as_ref().map_or(0, |it| it.offset);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let Some((namespace, membership)) = staged.and_then(|it| it.into_staged()) else {
            let why = format!("snapshot {} was installed without having been received", meta.index);
            return self.end(Ended::Consensus { why });
        };
        let before = self.namespace.zxid();
        self.snapshot_bytes = bytes;
        self.membership = membership;
        self.identity.forget(&self.membership.removed);
        // A state that is beyond the snapshot stays.
        if !self.is_covered(meta.index) || self.is_quarantined() {
            let old = std::mem::replace(&mut self.namespace, namespace);
            self.garbage.items.push(Box::new(old));
            self.applied = meta.index;
            self.restart_digests();
        }
        // What the disk holds is a good state again.
        self.quarantine = None;
        self.identity.set_diverged_at(0);
        self.snapshot_index = meta.index;
        self.log_bytes = 0;
        self.tail.clear();
        self.tail_bytes = 0;
        self.consensus.expect_snapshot(None);
        self.consensus.applied(meta.index);
        self.end_attachments_that_are_over();
        self.cursors.installed(before);
        self.unanswered_before = Some(self.next_ticket);
        if self.membership.removed.contains(&self.config.id) {
            self.end(Ended::Removed { id: self.config.id });
        }
    }

    /// The state was replaced by a later one: sessions that have ended in between, or moved, are
    /// over here before their watches tell of what came after that.
    pub(super) fn end_attachments_that_are_over(&mut self) {
        for (session, epoch, _) in self.origin.unanswered() {
            match self.namespace.session(session) {
                None => self.detach(session, Detach::Expired),
                Some(state) if state.epoch != epoch => self.detach(session, Detach::Moved),
                Some(_) => {}
            }
        }
    }

    /// Whether a snapshot was installed and the watches have read on.
    pub(super) fn may_answer_from_snapshot(&self) -> bool {
        let waits = self.unanswered_before.is_some() && !self.is_out();
        waits && !self.cursors.wants_catch_up()
    }

    /// Answers what was submitted before the last install, once the watches have read on.
    pub(super) fn answer_from_snapshot(&mut self) {
        if !self.may_answer_from_snapshot() {
            return;
        }
        let Some(before) = self.unanswered_before.take() else {
            return;
        };
        let zxid = self.namespace.zxid();
        for (session, epoch, seqs) in self.origin.unanswered() {
            let Some(state) = self.namespace.session(session) else {
                continue;
            };
            for seq in seqs.into_iter().filter(|&seq| seq <= state.last_seq) {
                self.answer_applied(session, epoch, seq);
            }
            self.origin.resend(session);
            self.unblock(session);
        }
        for (session, lease) in self.origin.leases() {
            if self.namespace.lease(lease).is_none() {
                self.end_lease(session, lease);
            }
        }
        self.origin.fail_sent_plain(before, Unknown::SnapshotInstalled, zxid, &mut self.outputs);
    }

    /// The command was applied before the snapshot was taken.
    fn answer_applied(&mut self, session: SessionId, epoch: u64, seq: u64) {
        let reply = self.namespace.cached_reply(session, seq);
        let known = reply.is_some();
        let reply = reply.unwrap_or_else(|| crate::op::Reply {
            zxid: self.namespace.zxid(),
            result: Err(crate::op::OpError::AlreadyAcknowledged { seq }),
        });
        let output = self.origin.answer_seq(session, epoch, seq, reply);
        self.outputs.extend(output.map(|output| match output {
            Output::Reply { ticket, zxid, .. } if !known => {
                let result = Err(RequestError::Unknown(Unknown::SnapshotInstalled));
                Output::Reply { ticket, zxid, result }
            }
            output => output,
        }));
    }
}
