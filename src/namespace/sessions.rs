//! All sessions: which there are, by what they are found, and when they end.
//!
//! ARCHITECTURE.md, rules 3, 4 and 9.
//!
//! Invariant: `by_deadline` has one entry for each session and each lease, `by_secret` one for each
//! session, and no other.

use std::{ops::Bound, sync::Arc};

use imbl::{OrdMap, OrdSet};

use crate::{
    command::KeepAlive,
    config::Parameters,
    id::{LeaseId, SecretHash, SessionId, Zxid},
    mutant::Mutant,
    namespace::{
        digest::{self, Sum},
        lease::Lease,
        session::{Admission, FIRST_EPOCH, Opener, Session, SessionState},
    },
    op::{Identities, LimitName, OpError, Reply},
};

/// All sessions; a clone is O(1).
#[derive(Clone)]
pub(super) struct Sessions {
    pub(super) by_id: OrdMap<SessionId, Arc<Session>>,
    pub(super) leases: OrdMap<LeaseId, Arc<Lease>>,
    pub(super) by_deadline: OrdSet<(u64, LeaseId)>,
    by_secret: OrdMap<SecretHash, SessionId>,
    /// The id of the next session or lease.
    next: u64,
    pub(super) sum: Sum,
}

impl Sessions {
    pub(super) fn new() -> Self {
        Self::starting_at(1)
    }

    /// No session; the next one, or lease, gets the id `next`.
    pub(super) fn starting_at(next: u64) -> Self {
        Self {
            by_id: OrdMap::new(),
            leases: OrdMap::new(),
            by_deadline: OrdSet::new(),
            by_secret: OrdMap::new(),
            next,
            sum: Sum::default(),
        }
    }

    /// Makes a session, attached with epoch 1.
    pub(super) fn open(
        &mut self,
        secret: SecretHash,
        (opener, identities): (Opener, Identities),
        ttl_us: u64,
        (base_us, zxid): (u64, Zxid),
        parameters: &Parameters,
    ) -> Result<SessionState, OpError> {
        let full = OpError::Limit {
            limit: LimitName::Sessions,
            value: self.by_id.len() as u64 + 1,
            max: parameters.sessions_max,
        };
        if self.by_id.len() as u64 >= parameters.sessions_max {
            return Err(full);
        }
        let id = self.take_id().ok_or(full)?.session();
        let ttl_us = ttl_us.min(parameters.ttl_us_max).max(parameters.ttl_us_min);
        let mut session = Session::new(secret, ttl_us, base_us.saturating_add(ttl_us), zxid);
        session.opener = Some(opener);
        session.set_identities(identities);
        let state = session.state(id);
        self.insert(id, session);
        Ok(state)
    }

    /// Changes the oldest kept reply of a session as a broken memory would.
    #[cfg(test)]
    pub(super) fn corrupt(&mut self, id: SessionId) {
        Arc::make_mut(self.by_id.get_mut(&id).expect("it lives")).corrupt();
    }

    /// The answer to a repeated open: the same session, renewed (rule 9). Repeated elsewhere, or
    /// in a later opening of the node, it attaches the session there under the next epoch, for two
    /// origins never share one; then it also gives the epoch that ended.
    ///
    /// # Errors
    ///
    /// [`OpError::Moved`] if the session was attached since, for then the repeat is a late one;
    /// [`OpError::OtherIdentities`] if it would be the same attachment with other identities: which
    /// of two openings comes first is nobody's choice, so neither replaces those of the other.
    pub(super) fn reopen(
        &mut self,
        id: SessionId,
        (opener, identities): (Opener, Identities),
        base_us: u64,
    ) -> Result<(SessionState, Option<u64>), OpError> {
        let session = self.get(id).ok_or(OpError::SessionEnded { session: id })?;
        let epoch = session.epoch;
        let same = session.opener == Some(opener);
        if !same && (session.opener.is_none() || epoch != FIRST_EPOCH) {
            return Err(OpError::Moved { session: id, epoch });
        }
        if same && session.identities() != &identities {
            return Err(OpError::OtherIdentities { session: id });
        }
        self.renew(id, base_us, |session| {
            if !same {
                session.opener = Some(opener);
                session.epoch += 1;
                session.set_identities(identities);
                session.keep_alive = 0;
            }
        });
        let session = self.get(id).ok_or(OpError::SessionEnded { session: id })?;
        Ok((session.state(id), (!same).then_some(epoch)))
    }

    /// Attaches a session under a greater epoch, and renews it; also gives the epoch that ended.
    pub(super) fn attach(
        &mut self,
        id: SessionId,
        secret: SecretHash,
        (epoch, identities): (u64, Identities),
        base_us: u64,
    ) -> Result<(SessionState, u64), OpError> {
        let session = self.get(id).ok_or(OpError::SessionEnded { session: id })?;
        if session.secret != secret {
            return Err(OpError::BadSecret { session: id });
        }
        let old = session.epoch;
        if epoch <= old && !Mutant::EpochTakenAgain.active() {
            return Err(OpError::Moved { session: id, epoch: old });
        }
        self.renew(id, base_us, |session| {
            session.opener = None;
            session.epoch = epoch;
            session.set_identities(identities);
            session.keep_alive = 0;
        });
        let session = self.get(id).ok_or(OpError::SessionEnded { session: id })?;
        Ok((session.state(id), old))
    }

    /// Who a session is, if this attachment is the one in force.
    pub(super) fn identities(&self, id: SessionId, epoch: u64) -> Result<&Identities, OpError> {
        let session = self.get(id).ok_or(OpError::SessionEnded { session: id })?;
        if session.epoch != epoch {
            return Err(OpError::Moved { session: id, epoch: session.epoch });
        }
        Ok(session.identities())
    }

    /// Renews a session or a lease if the keep-alive is the newest of the attachment in force
    /// (rule 3).
    pub(super) fn keep_alive(&mut self, item: &KeepAlive, base_us: u64) -> bool {
        if let Some(lease) = item.lease {
            return self.keep_lease_alive(lease, item, base_us);
        }
        let newest = self
            .get(item.session)
            .is_some_and(|session| session.epoch == item.epoch && session.keep_alive < item.number);
        if newest {
            self.renew(item.session, base_us, |session| {
                session.keep_alive = item.number;
                session.acknowledge(item.acked);
            });
        }
        newest
    }

    /// What becomes of a command of a session; see [`Session::admit`].
    pub(super) fn admit(
        &mut self,
        id: SessionId,
        epoch: u64,
        seq: u64,
        keeps: Option<(u64, u64)>,
        parameters: &Parameters,
    ) -> Admission {
        let admission = self.change(id, |it| it.admit(id, epoch, seq, keeps, parameters));
        admission.unwrap_or(Admission::Refuse(OpError::SessionEnded { session: id }))
    }

    /// The same for a transaction, and whose it is. If it is the next command, the sum is without
    /// the session until its reply is [recorded](Self::record).
    pub(super) fn begin(
        &mut self,
        id: SessionId,
        epoch: u64,
        seq: u64,
        keeps: (u64, u64),
        parameters: &Parameters,
    ) -> (Admission, Identities) {
        let Some(session) = self.by_id.get_mut(&id).map(Arc::make_mut) else {
            let ended = OpError::SessionEnded { session: id };
            return (Admission::Refuse(ended), Identities::none());
        };
        self.sum.remove(digest::of_session(id, session));
        let admission = session.admit(id, epoch, seq, Some(keeps), parameters);
        if !matches!(admission, Admission::Next) {
            self.sum.add(digest::of_session(id, session));
        }
        (admission, session.identities().clone())
    }

    /// Keeps the reply to a transaction that was [begun](Self::begin), and thereby consumes its
    /// number.
    pub(super) fn record(&mut self, id: SessionId, reply: Reply) {
        if let Some(session) = self.by_id.get_mut(&id).map(Arc::make_mut) {
            session.record(reply);
            self.sum.add(digest::of_session(id, session));
        }
    }

    /// Ends a session with its leases; gives the ephemeral nodes of all in path order.
    pub(super) fn remove(&mut self, id: SessionId) -> OrdSet<Arc<str>> {
        let Some(session) = self.by_id.remove(&id) else {
            return OrdSet::new();
        };
        self.sum.remove(digest::of_session(id, &session));
        self.by_deadline.remove(&(session.deadline_us, id.lease()));
        self.by_secret.remove(&session.secret);
        let own = session.ephemerals.clone();
        let leases = session.leases.iter().filter_map(|lease| self.take_lease(*lease));
        leases.fold(own, |all, (_, ephemerals)| all.union(ephemerals))
    }

    /// Puts a session that is not there yet.
    pub(super) fn insert(&mut self, id: SessionId, session: Session) {
        self.by_deadline.insert((session.deadline_us, id.lease()));
        self.by_secret.insert(session.secret, id);
        self.sum.add(digest::of_session(id, &session));
        self.by_id.insert(id, Arc::new(session));
    }

    /// Changes a session, and keeps the sum.
    pub(super) fn change<T>(
        &mut self,
        id: SessionId,
        change: impl FnOnce(&mut Session) -> T,
    ) -> Option<T> {
        let session = Arc::make_mut(self.by_id.get_mut(&id)?);
        self.sum.remove(digest::of_session(id, session));
        let result = change(session);
        self.sum.add(digest::of_session(id, session));
        Some(result)
    }

    /// What the sessions come to.
    pub(super) fn sum(&self) -> Sum {
        self.sum
    }

    pub(super) fn get(&self, id: SessionId) -> Option<&Session> {
        self.by_id.get(&id).map(|session| &**session)
    }

    pub(super) fn with_secret(&self, secret: SecretHash) -> Option<SessionId> {
        self.by_secret.get(&secret).copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// The id of the next session or lease.
    pub(super) fn next_id(&self) -> u64 {
        self.next
    }

    pub(super) fn take_id(&mut self) -> Option<LeaseId> {
        let id = LeaseId::new(self.next)?;
        self.next += 1;
        Some(id)
    }

    /// The first session after `id`, or of all.
    pub(super) fn after(&self, id: Option<SessionId>) -> Option<(SessionId, &Session)> {
        let start = id.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_id
            .range::<_, SessionId>((start, Bound::Unbounded))
            .next()
            .map(|(id, session)| (*id, &**session))
    }

    fn renew(&mut self, id: SessionId, base_us: u64, change: impl FnOnce(&mut Session)) {
        let Some(session) = self.by_id.get_mut(&id).map(Arc::make_mut) else {
            return;
        };
        self.sum.remove(digest::of_session(id, session));
        change(session);
        let deadline_us = base_us.saturating_add(session.ttl_us);
        if deadline_us != session.deadline_us {
            self.by_deadline.remove(&(session.deadline_us, id.lease()));
            self.by_deadline.insert((deadline_us, id.lease()));
            session.deadline_us = deadline_us;
        }
        self.sum.add(digest::of_session(id, session));
    }

    /// The indexes, for a test that makes them anew.
    #[cfg(any(test, fuzzing))]
    #[expect(clippy::type_complexity, reason = "two lists, for one test")]
    pub(super) fn indexes(&self) -> (Vec<(u64, LeaseId)>, Vec<(SecretHash, SessionId)>) {
        (
            self.by_deadline.iter().copied().collect(),
            self.by_secret.iter().map(|(k, v)| (*k, *v)).collect(),
        )
    }
}
