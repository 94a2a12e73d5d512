//! Leases: what ephemeral nodes live with. Each session is one; it may be granted more.
//!
//! A lease that was granted has a time to live, a deadline and keep-alives of its own, and belongs
//! to its session: it goes where that is attached, and ends with it at the latest. Sessions and
//! leases have ids of one sequence, so that a node's owner needs no other name.
//!
//! Invariants:
//! - A session lists exactly the leases that name it, and all of them are younger than it is.
//! - A lease's `ephemerals` are exactly the nodes that name it as their owner; a session's `owned`
//!   counts its own and those of its leases.

use std::{iter, mem, ops::Bound, sync::Arc, time::Duration};

use imbl::OrdSet;

use crate::{
    command::KeepAlive,
    config::Parameters,
    id::{LeaseId, SessionId, Zxid},
    namespace::{digest, session::Session, sessions::Sessions},
    op::{LeaseStat, LimitName, OpError},
};

/// A lease beside its session's own; its id is the map's key.
#[derive(Clone)]
pub(super) struct Lease {
    pub(super) session: SessionId,
    pub(super) ttl_us: u64,
    pub(super) deadline_us: u64,
    /// The attachment of the newest keep-alive, or of the grant; the next one's numbers begin anew.
    pub(super) epoch: u64,
    /// The number of the newest keep-alive of that attachment.
    pub(super) keep_alive: u64,
    pub(super) granted: Zxid,
    pub(super) ephemerals: OrdSet<Arc<str>>,
}

impl Sessions {
    /// Grants a lease to a session that lives; gives its time to live, too.
    pub(super) fn grant(
        &mut self,
        id: SessionId,
        ttl_us: u64,
        (base_us, granted): (u64, Zxid),
        parameters: &Parameters,
    ) -> Result<(LeaseId, u64), OpError> {
        let session = self.get(id).ok_or(OpError::SessionEnded { session: id })?;
        for (limit, value, max) in [
            (LimitName::SessionLeases, session.leases.len(), parameters.session_leases_max),
            (LimitName::Leases, self.leases.len(), parameters.leases_max),
        ] {
            let value = value as u64 + 1;
            if value > max {
                return Err(OpError::Limit { limit, value, max });
            }
        }
        let lease = self.take_id().ok_or(OpError::Limit {
            limit: LimitName::Leases,
            value: self.leases.len() as u64 + 1,
            max: parameters.leases_max,
        })?;
        let ttl_us = ttl_us.min(parameters.ttl_us_max).max(parameters.ttl_us_min);
        let granted = Lease {
            session: id,
            ttl_us,
            deadline_us: base_us.saturating_add(ttl_us),
            epoch: self.get(id).map_or(0, |session| session.epoch),
            keep_alive: 0,
            granted,
            ephemerals: OrdSet::new(),
        };
        if let Some(session) = self.by_id.get_mut(&id).map(Arc::make_mut) {
            session.leases.insert(lease);
        }
        self.insert_lease(lease, granted);
        Ok((lease, ttl_us))
    }

    /// Puts a lease that its session lists.
    pub(super) fn insert_lease(&mut self, id: LeaseId, lease: Lease) {
        self.by_deadline.insert((lease.deadline_us, id));
        self.sum.add(digest::of_lease(id, &lease));
        self.leases.insert(id, Arc::new(lease));
    }

    /// Ends a lease; gives its session, and its ephemeral nodes in path order.
    pub(super) fn remove_lease(&mut self, id: LeaseId) -> Option<(SessionId, OrdSet<Arc<str>>)> {
        let (session, ephemerals) = self.take_lease(id)?;
        if let Some(it) = self.by_id.get_mut(&session).map(Arc::make_mut) {
            it.leases.remove(&id);
            it.owned -= ephemerals.len() as u64;
        }
        Some((session, ephemerals))
    }

    /// Takes a lease out that its session still lists.
    pub(super) fn take_lease(&mut self, id: LeaseId) -> Option<(SessionId, OrdSet<Arc<str>>)> {
        let lease = self.leases.remove(&id)?;
        self.sum.remove(digest::of_lease(id, &lease));
        self.by_deadline.remove(&(lease.deadline_us, id));
        Some((lease.session, lease.ephemerals.clone()))
    }

    /// Renews a lease if the keep-alive is the newest of the attachment in force (rule 3).
    pub(super) fn keep_lease_alive(&mut self, id: LeaseId, item: &KeepAlive, base_us: u64) -> bool {
        let attached = self.get(item.session).is_some_and(|it| it.epoch == item.epoch);
        let newest = self.lease(id).is_some_and(|lease| {
            let heard = (lease.epoch, lease.keep_alive);
            lease.session == item.session && heard < (item.epoch, item.number)
        });
        let Some(lease) = self.leases.get_mut(&id).filter(|_| attached && newest) else {
            return false;
        };
        let lease = Arc::make_mut(lease);
        self.sum.remove(digest::of_lease(id, lease));
        (lease.epoch, lease.keep_alive) = (item.epoch, item.number);
        self.by_deadline.remove(&(lease.deadline_us, id));
        lease.deadline_us = base_us.saturating_add(lease.ttl_us);
        self.by_deadline.insert((lease.deadline_us, id));
        self.sum.add(digest::of_lease(id, lease));
        true
    }

    /// Refuses a lease that is none of this session's, and one ephemeral node too many.
    pub(super) fn check_owner(
        &self,
        session: SessionId,
        lease: Option<LeaseId>,
        parameters: &Parameters,
    ) -> Result<LeaseId, OpError> {
        let own = session.lease();
        let lease = lease.unwrap_or(own);
        let granted = || self.lease(lease).is_some_and(|it| it.session == session);
        if lease != own && !granted() {
            return Err(OpError::NoLease { lease });
        }
        let value = self.get(session).map_or(0, |it| it.owned) + 1;
        let max = parameters.ephemerals_max;
        if value > max {
            return Err(OpError::Limit { limit: LimitName::Ephemerals, value, max });
        }
        Ok(lease)
    }

    /// Lists an ephemeral node with its lease.
    pub(super) fn own(&mut self, id: LeaseId, path: &Arc<str>) {
        // The digest has the node, which names its owner.
        self.change_owner(id, |ephemerals, owned| {
            ephemerals.insert(Arc::clone(path));
            *owned += 1;
        });
    }

    /// Takes an ephemeral node off its lease's list.
    pub(super) fn disown(&mut self, id: LeaseId, path: &str) {
        self.change_owner(id, |ephemerals, owned| {
            ephemerals.remove(path);
            *owned -= 1;
        });
    }

    fn change_owner(&mut self, id: LeaseId, change: impl FnOnce(&mut OrdSet<Arc<str>>, &mut u64)) {
        let Some(lease) = self.leases.get_mut(&id).map(Arc::make_mut) else {
            if let Some(it) = self.by_id.get_mut(&id.session()).map(Arc::make_mut) {
                change(&mut it.ephemerals, &mut it.owned);
            }
            return;
        };
        if let Some(session) = self.by_id.get_mut(&lease.session).map(Arc::make_mut) {
            change(&mut lease.ephemerals, &mut session.owned);
        }
    }

    /// A lease beside its session's own.
    pub(super) fn lease(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.get(&id).map(|lease| &**lease)
    }

    /// What is to be known of a session's own lease, or another one, at this time.
    pub(super) fn lease_stat(&self, id: LeaseId, clock_us: u64) -> Option<LeaseStat> {
        let (session, ttl_us, deadline_us, nodes) = match (self.get(id.session()), self.lease(id)) {
            (Some(it), _) => (id.session(), it.ttl_us, it.deadline_us, it.ephemerals.len()),
            (None, Some(it)) => (it.session, it.ttl_us, it.deadline_us, it.ephemerals.len()),
            (None, None) => return None,
        };
        Some(LeaseStat {
            lease: id,
            session,
            ttl: Duration::from_micros(ttl_us),
            remaining: Duration::from_micros(deadline_us.saturating_sub(clock_us)),
            nodes: nodes as u64,
        })
    }

    /// The ephemeral nodes of a session's own lease, or another one.
    pub(super) fn ephemerals(&self, id: LeaseId) -> Option<&OrdSet<Arc<str>>> {
        let own = self.get(id.session()).map(|it| &it.ephemerals);
        own.or_else(|| self.lease(id).map(|it| &it.ephemerals))
    }

    /// All leases after one, the sessions' own among them, by id.
    pub(super) fn leases_after(&self, after: Option<LeaseId>) -> impl Iterator<Item = LeaseId> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let first = after.map_or(Bound::Unbounded, |it| Bound::Excluded(it.session()));
        let mut own = self.by_id.range((first, Bound::Unbounded)).map(|(id, _)| id.lease());
        let mut granted = self.leases.range((start, Bound::Unbounded)).map(|(id, _)| *id);
        let (mut next_own, mut next_granted) = (own.next(), granted.next());
        iter::from_fn(move || match (next_own, next_granted) {
            (Some(one), other) if other.is_none_or(|other| one < other) => {
                mem::replace(&mut next_own, own.next())
            }
            (_, _) => mem::replace(&mut next_granted, granted.next()),
        })
    }

    /// How many leases there are beside the sessions' own.
    pub(super) fn leases(&self) -> usize {
        self.leases.len()
    }

    /// The sessions and leases whose deadline is `clock_us` or earlier, earliest first: at most
    /// `max`, and no more than own `nodes_max` nodes, but at least one.
    pub(super) fn due(&self, clock_us: u64, max: usize, nodes_max: u64) -> Vec<LeaseId> {
        let mut nodes = 0;
        let mut due = Vec::new();
        for (deadline_us, id) in self.by_deadline.iter().take(max) {
            // With a session its leases go.
            let owned = self.get(id.session()).map(|it| it.owned);
            let owned = owned.or_else(|| self.lease(*id).map(|it| it.ephemerals.len() as u64));
            nodes += owned.unwrap_or(0);
            if *deadline_us > clock_us || (nodes > nodes_max && !due.is_empty()) {
                break;
            }
            due.push(*id);
        }
        due
    }
}

impl Session {
    /// The first lease after `id`, or of all.
    pub(super) fn lease_after(&self, id: Option<LeaseId>) -> Option<LeaseId> {
        let start = id.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.leases.range((start, std::ops::Bound::Unbounded)).next().copied()
    }
}
