//! Leases beside a session's own.

use std::time::Duration;

use super::{Change, Granted, Model};
use crate::{
    id::{LeaseId, SessionId},
    op::{LimitName, OpError, Outcome},
};

impl Model {
    pub(super) fn check_owner(
        &self,
        actor: SessionId,
        lease: Option<LeaseId>,
    ) -> Result<LeaseId, OpError> {
        let lease = lease.unwrap_or(actor.lease());
        if lease != actor.lease() && !self.leases(actor).contains(&lease) {
            return Err(OpError::NoLease { lease });
        }
        let (value, max) = (self.owned(actor).len() as u64 + 1, self.parameters.ephemerals_max);
        match value > max {
            true => Err(OpError::Limit { limit: LimitName::Ephemerals, value, max }),
            false => Ok(lease),
        }
    }

    pub(super) fn revoke(
        &mut self,
        lease: LeaseId,
        actor: Option<SessionId>,
        done: &mut Vec<Change>,
    ) -> Result<Outcome, OpError> {
        let actor = actor.ok_or(OpError::LeaseWithoutSession)?;
        if !self.leases(actor).contains(&lease) {
            return Err(OpError::NoLease { lease });
        }
        self.quiet = true;
        let changes = self.end_lease(lease);
        let nodes = changes.len() as u64;
        done.extend(changes);
        Ok(Outcome::Revoked { lease, nodes })
    }

    pub(super) fn grant(&mut self, session: SessionId, ttl: Duration) -> Result<Outcome, OpError> {
        for (limit, count, max) in [
            (
                LimitName::SessionLeases,
                self.leases(session).len(),
                self.parameters.session_leases_max,
            ),
            (LimitName::Leases, self.granted.len(), self.parameters.leases_max),
        ] {
            let value = count as u64 + 1;
            if value > max {
                return Err(OpError::Limit { limit, value, max });
            }
        }
        let (min, max) = (self.parameters.ttl_us_min, self.parameters.ttl_us_max);
        let ttl_us = (ttl.as_micros() as u64).clamp(min, max);
        let lease = LeaseId::new(self.next_session).unwrap();
        self.next_session += 1;
        let deadline_us = self.clock_us + self.parameters.tick_us + ttl_us;
        let heard = (self.sessions[&session].epoch, 0);
        self.granted.insert(lease, Granted { session, ttl_us, deadline_us, heard });
        Ok(Outcome::Granted { lease, ttl: Duration::from_micros(ttl_us) })
    }
}
