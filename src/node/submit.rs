//! Taking commands for the cluster: what may be asked, and what goes into the log for it.

use bytes::Bytes;

use crate::{
    command::{Batch, Command},
    consensus::MembershipChange,
    id::Origin as OriginId,
    node::{MembershipError, Node, PendingChange, Request, Seq, SubmitError, Ticket, drain},
    op::{Op, Txn},
    path::Path,
    time::as_micros,
};

impl Node {
    /// Takes a command for the cluster. Its answer comes out of [`ready`](Self::ready), under the
    /// ticket, from this node's own apply: after it, a read here sees its effect.
    ///
    /// # Errors
    ///
    /// [`SubmitError`]: the request was not taken, did nothing and never will.
    pub fn submit(&mut self, request: Request) -> Result<Ticket, SubmitError> {
        self.check_running()?;
        let ticket = Ticket(self.next_ticket);
        match request {
            Request::SessionTxn { seq, txn } => {
                self.check_txn(&txn)?;
                self.submit_seq(ticket, seq, true, |it| Command::SessionTxn {
                    session: it.session,
                    epoch: it.epoch,
                    seq: it.seq,
                    acked: it.acked,
                    txn,
                })?;
            }
            Request::CloseSession { seq } => self.submit_seq(ticket, seq, false, |it| {
                Command::CloseSession { session: it.session, epoch: it.epoch, seq: it.seq }
            })?,
            Request::Txn { identities, txn } => {
                self.check_txn(&txn)?;
                let origin = self.origin_id(ticket);
                self.submit_plain(ticket, false, &Command::PlainTxn { origin, identities, txn })?;
            }
            Request::OpenSession { .. } if self.disk.is_full => return Err(SubmitError::DiskFull),
            Request::OpenSession { secret, ttl, identities } => {
                let (origin, secret) = (self.origin_id(ticket), secret.hash());
                let ttl_us = as_micros(ttl);
                let command = Command::OpenSession { origin, secret, ttl_us, identities };
                self.submit_plain(ticket, true, &command)?;
            }
            Request::Attach { session, secret, epoch, identities } => {
                let (origin, secret) = (self.origin_id(ticket), secret.hash());
                let command = Command::AttachSession { origin, session, secret, epoch, identities };
                self.submit_plain(ticket, true, &command)?;
            }
            Request::KeepAlive { session, epoch, acked } => {
                self.origin.keep_alive(session, epoch, acked, self.now.mono)?;
            }
            Request::KeepLeaseAlive { session, epoch, lease } => {
                let granted = self.namespace.lease(lease).filter(|it| it.0 == session);
                let (_, ttl_us) = granted.ok_or(SubmitError::NoLease { session, lease })?;
                self.origin.keep_lease_alive(session, epoch, (lease, ttl_us), self.now.mono)?;
            }
            Request::AddLearner(id) => self.change(ticket, MembershipChange::AddLearner(id))?,
            Request::Promote(id) => self.change(ticket, MembershipChange::Promote(id))?,
            Request::Remove(id) => self.change(ticket, MembershipChange::Remove(id))?,
        }
        self.next_ticket += 1;
        self.undrained = true;
        Ok(ticket)
    }

    /// What is `limited` is held to the session's own bounds; closing it gives something back.
    fn submit_seq(
        &mut self,
        ticket: Ticket,
        seq: Seq,
        limited: bool,
        command: impl FnOnce(&Seq) -> Command,
    ) -> Result<(), SubmitError> {
        let window_max = self.namespace.parameters().window_count_max;
        self.origin.check_seq(seq.session, seq.epoch, seq.seq, seq.acked, window_max)?;
        if limited {
            self.origin.check_rate(seq.session, &self.config, self.tick)?;
        }
        let command = encode(&command(&seq));
        self.origin.check_room(command.len(), &self.config.limits)?;
        if limited {
            self.origin.check_session_room(seq.session, command.len(), &self.config.limits)?;
            self.origin.charge(seq.session, &self.config, self.tick);
        }
        let place = (seq.seq, seq.acked);
        self.origin.push_seq(ticket, seq.session, place, command, self.tick);
        Ok(())
    }

    fn submit_plain(
        &mut self,
        ticket: Ticket,
        session: bool,
        command: &Command,
    ) -> Result<(), SubmitError> {
        let command = encode(command);
        self.origin.check_room(command.len(), &self.config.limits)?;
        let session = session.then_some(self.now.mono);
        self.origin.push_plain(ticket, session, command, self.tick);
        Ok(())
    }

    fn change(&mut self, ticket: Ticket, change: MembershipChange) -> Result<(), SubmitError> {
        self.check_no_write()?;
        let refuse = |error| Err(SubmitError::Membership(error));
        if self.leadership.is_none() {
            return Err(SubmitError::NotLeader { leader: self.consensus.leader() });
        }
        if self.change.is_some() {
            return refuse(MembershipError::UnderWay);
        }
        match change {
            MembershipChange::AddLearner(id) if self.membership.removed.contains(&id) => {
                return refuse(MembershipError::IdReused(id));
            }
            MembershipChange::Promote(id)
                if self.membership.members.contains_key(&id)
                    && self.membership.store(id).is_none() =>
            {
                // Nobody has heard of its store yet, so it cannot have caught up.
                let behind = self.consensus.last_index();
                return refuse(MembershipError::NotCaughtUp { node: id, behind });
            }
            _ => {}
        }
        let mut context = self.identity.own().boot.nonce.to_le_bytes().to_vec();
        context.extend_from_slice(&ticket.0.to_le_bytes());
        let context = Bytes::from(context);
        let leader = self.consensus.leader();
        self.consensus
            .propose_change(change, context.clone())
            .map_err(|error| drain::change_error(error, leader))?;
        self.change = Some(PendingChange { ticket, change, context, tick: self.tick });
        Ok(())
    }

    fn check_txn(&self, txn: &Txn) -> Result<(), SubmitError> {
        let grows = |op: &Op| matches!(op, Op::Create { .. } | Op::Set { .. } | Op::Grant { .. });
        if self.disk.is_full && txn.ops().any(grows) {
            return Err(SubmitError::DiskFull);
        }
        for op in txn.ops() {
            // What stands before a number may end in '/', and leaves room for the number.
            if let Op::Create { path, mode, .. } = op {
                match mode.is_sequential() {
                    true => drop(Path::sequential_prefix(path.as_str())?),
                    false => drop(Path::new(path.as_str())?),
                }
            }
        }
        match txn.excess(self.namespace.parameters()) {
            Some((limit, value, max)) => Err(SubmitError::Limit { limit, value, max }),
            None => Ok(()),
        }
    }

    fn origin_id(&self, ticket: Ticket) -> OriginId {
        let boot_nonce = self.identity.own().boot.nonce;
        OriginId { node: self.config.id, boot_nonce, counter: ticket.0 }
    }
}

/// A command's bytes. What goes into the log must be readable for every member.
pub(super) fn encode(command: &Command) -> Bytes {
    let bytes = command.encode();
    let readable = || Batch(bytes.clone()).next_command().is_some_and(|read| read.is_ok());
    debug_assert!(readable(), "what was checked can be read: {command:?}");
    bytes
}
