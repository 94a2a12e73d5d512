//! What a snapshot's records mean, one after the other, up to the state that they make.
//!
//! Nothing is taken on trust: order, parents, counts, owners, limits.

use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdSet;

use crate::{
    command::access::{acl_to_bytes, identities_from_bytes, quota_from_record},
    id::{LeaseId, Lineage, NodeId, SecretHash, SessionId, Zxid},
    mutant::Mutant,
    namespace::{
        Frozen,
        access::{KeptAcl, shared},
        history::History,
        lease::Lease,
        quota::{self, Metered},
        record::{
            cached_to_record, change_to_record, end_to_record, kept_acl, lease_to_record,
            parameters_from_record, parameters_to_record, path, reply_from_record,
            session_to_record, stat_from_record, stat_to_record,
        },
        session::{Opener, Session},
        sessions::Sessions,
        snapshot::{COUNTER_MAX, change::taken_back, check},
        tree::Tree,
        znode::{Listing, Special, Value, Znode, own},
    },
    op::{Lifetime, Stat, Usage},
    proto::{self, snapshot_record::Kind},
};

/// What was read after the head. Errors say what is wrong with the record.
pub(super) struct Body {
    pub(super) state: Frozen,
    pub(super) members: Bytes,
    pub(super) removed: Bytes,
    pub(super) head_crc: u32,
    pub(super) part: Part,
    /// The session whose replies are read.
    session: Option<(SessionId, Session)>,
    session_last: u64,
    /// The node that was read last, and those above it.
    open: Vec<Open>,
    /// The tree before the changes that were read.
    past: Option<Tree>,
}

impl Body {
    pub(super) fn new(
        head: proto::SnapshotHead,
    ) -> Result<(Self, proto::SnapshotHead), &'static str> {
        let parameters = head.parameters.ok_or("it has no parameters")?;
        let parameters = parameters_from_record(&parameters);
        check(parameters.are_possible(), "its parameters are not valid")?;
        check(
            head.zxid < COUNTER_MAX
                && head.clock_us < COUNTER_MAX
                && (1..=1 << 56).contains(&head.next_session),
            "its counters are not valid",
        )?;
        check(head.history_floor <= head.zxid, "its history starts after its end")?;
        let lineage = match &head.lineage[..] {
            [] => Some(Lineage::NONE),
            bytes => {
                bytes.try_into().ok().map(Lineage::from_bytes).filter(|&it| it != Lineage::NONE)
            }
        };
        let body = Self {
            state: Frozen {
                parameters,
                lineage: lineage.ok_or("its lineage is not valid")?,
                zxid: Zxid::new(head.zxid),
                clock_us: head.clock_us,
                wall_ms: head.wall_ms,
                tree: Tree::empty(parameters.container_grace_us),
                sessions: Sessions::starting_at(head.next_session),
                history: History::new(Zxid::new(head.history_floor)),
            },
            // Copies, for a slice would keep the whole chunk alive.
            members: own(&head.members),
            removed: own(&head.removed),
            head_crc: 0,
            part: Part::Sessions,
            session: None,
            session_last: 0,
            open: Vec::new(),
            past: None,
        };
        let again =
            proto::SnapshotHead { parameters: Some(parameters_to_record(&parameters)), ..head };
        Ok((body, again))
    }

    pub(super) fn take(&mut self, kind: Kind) -> Result<Kind, &'static str> {
        let part = match &kind {
            Kind::Head(_) => return Err("there is a second head"),
            Kind::Session(_) | Kind::Lease(_) | Kind::Reply(_) => Part::Sessions,
            Kind::Znode(_) => Part::Znodes,
            Kind::Change(_) => Part::Changes,
            Kind::End(_) => Part::End,
        };
        check(part >= self.part && self.part != Part::End, "it is out of order")?;
        if self.part == Part::Sessions && part > Part::Sessions {
            self.close_session()?;
        }
        if part > Part::Znodes {
            while !self.open.is_empty() {
                self.close_znode()?;
            }
        }
        self.part = part;
        match kind {
            Kind::Head(_) => Err("there is a second head"),
            Kind::Session(record) => self.take_session(&record).map(Kind::Session),
            Kind::Lease(record) => self.take_lease(&record).map(Kind::Lease),
            Kind::Reply(record) => self.take_reply(record).map(Kind::Reply),
            Kind::Znode(record) => self.take_znode(record).map(Kind::Znode),
            Kind::Change(record) => self.take_change(&record).map(Kind::Change),
            Kind::End(record) => self.take_end(&record).map(Kind::End),
        }
    }

    fn take_session(
        &mut self,
        record: &proto::SessionRecord,
    ) -> Result<proto::SessionRecord, &'static str> {
        self.close_session()?;
        let (state, parameters) = (&self.state, &self.state.parameters);
        let id = SessionId::new(record.session).ok_or("the session's id is not valid")?;
        check(
            record.session > self.session_last && record.session < state.sessions.next_id(),
            "the session's id is out of order",
        )?;
        check(state.sessions.lease(id.lease()).is_none(), "a lease has the session's id")?;
        check(
            (state.sessions.len() as u64) < parameters.sessions_max,
            "there are more sessions than the cluster allows",
        )?;
        let secret = record.secret_hash[..]
            .try_into()
            .map(SecretHash)
            .map_err(|_| "the session's secret has not 32 bytes")?;
        check(state.sessions.with_secret(secret).is_none(), "two sessions have one secret")?;
        let deadline_us_max =
            state.clock_us.saturating_add(parameters.tick_us).saturating_add(record.ttl_us);
        check(
            (parameters.ttl_us_min..=parameters.ttl_us_max).contains(&record.ttl_us)
                && record.deadline_us <= deadline_us_max,
            "the session's times are not valid",
        )?;
        check(
            record.epoch >= 1 && record.acked <= record.last_seq && record.last_seq < COUNTER_MAX,
            "the session's counters are not valid",
        )?;
        check(
            (1..=state.zxid.as_u64()).contains(&record.opened_zxid),
            "the session's transaction is not valid",
        )?;
        let opened = Zxid::new(record.opened_zxid);
        let mut session = Session::new(secret, record.ttl_us, record.deadline_us, opened);
        session.epoch = record.epoch;
        session.opener = NodeId::new(record.opener_node)
            .map(|node| Opener { node, boot_nonce: record.opener_nonce });
        session.last_seq = record.last_seq;
        session.acked = record.acked;
        session.keep_alive = record.keep_alive;
        let identities = identities_from_bytes(record.identities.clone())
            .map_err(|_| "the session's identities are not valid")?;
        session.set_identities(identities);
        let again = session_to_record(id, &session);
        self.session_last = record.session;
        self.session = Some((id, session));
        Ok(again)
    }

    fn take_lease(
        &mut self,
        record: &proto::LeaseRecord,
    ) -> Result<proto::LeaseRecord, &'static str> {
        let parameters = self.state.parameters;
        let state = &mut self.state;
        let (session_id, session) = self.session.as_mut().ok_or("the lease has no session")?;
        let id = LeaseId::new(record.lease).ok_or("the lease's id is not valid")?;
        check(record.session == session_id.as_u64(), "the lease is of another session")?;
        check(session.window_count() == 0, "a lease comes after a reply")?;
        check(
            id > session_id.lease()
                && session.leases.get_max().is_none_or(|max| *max < id)
                && state.sessions.lease(id).is_none()
                && record.lease < state.sessions.next_id(),
            "the lease's id is out of order",
        )?;
        session.leases.insert(id);
        check(
            session.leases.len() as u64 <= parameters.session_leases_max
                && (state.sessions.leases() as u64) < parameters.leases_max,
            "there are more leases than the cluster allows",
        )?;
        let deadline_us_max =
            state.clock_us.saturating_add(parameters.tick_us).saturating_add(record.ttl_us);
        check(
            (parameters.ttl_us_min..=parameters.ttl_us_max).contains(&record.ttl_us)
                && record.deadline_us <= deadline_us_max,
            "the lease's times are not valid",
        )?;
        check((1..=session.epoch).contains(&record.epoch), "the lease's attachment is not valid")?;
        let granted = Zxid::new(record.granted_zxid);
        check(
            granted > session.opened && granted <= state.zxid,
            "the lease's transaction is not valid",
        )?;
        let lease = Lease {
            session: *session_id,
            ttl_us: record.ttl_us,
            deadline_us: record.deadline_us,
            epoch: record.epoch,
            keep_alive: record.keep_alive,
            granted,
            ephemerals: OrdSet::new(),
        };
        let again = lease_to_record(id, &lease);
        state.sessions.insert_lease(id, lease);
        Ok(again)
    }

    fn take_reply(
        &mut self,
        record: proto::CachedReply,
    ) -> Result<proto::CachedReply, &'static str> {
        let parameters = &self.state.parameters;
        let (id, session) = self.session.as_mut().ok_or("the reply has no session")?;
        check(record.session == id.as_u64(), "the reply is of another session")?;
        check(
            record.seq == session.acked + session.window_count() + 1
                && record.seq <= session.last_seq,
            "the reply is out of order",
        )?;
        let reply = record.reply.and_then(reply_from_record).ok_or("the reply is not valid")?;
        check(
            reply.zxid >= session.opened && reply.zxid <= self.state.zxid,
            "the reply's transaction is not valid",
        )?;
        let again = cached_to_record(*id, record.seq, &reply);
        session.restore(reply);
        check(
            session.window_count() <= parameters.window_count_max
                && session.window_bytes() <= parameters.window_bytes_max,
            "the session keeps more replies than the cluster allows",
        )?;
        Ok(again)
    }

    fn close_session(&mut self) -> Result<(), &'static str> {
        let Some((id, mut session)) = self.session.take() else {
            return Ok(());
        };
        check(
            session.acked + session.window_count() == session.last_seq,
            "the session before lacks replies",
        )?;
        if Mutant::RepliesNotRestored.active() {
            session.acknowledge(session.last_seq);
        } else if Mutant::DeadlinesNotRestored.active() {
            session.deadline_us = self.state.clock_us;
        }
        self.state.sessions.insert(id, session);
        Ok(())
    }

    fn take_znode(
        &mut self,
        record: proto::ZnodeRecord,
    ) -> Result<proto::ZnodeRecord, &'static str> {
        let path = path(&record.path).ok_or("the node's path is not valid")?;
        let stat = record
            .stat
            .as_ref()
            .and_then(stat_from_record)
            .ok_or("the node's stat is not valid")?;
        let is_root = path.is_root();
        self.check_stat(&stat, &record, is_root)?;
        let placed = (self.state.tree.len() + self.open.len()) as u64;
        check(placed < self.state.parameters.nodes_max, "there are more nodes than allowed")?;
        if is_root {
            check(self.open.is_empty() && self.state.tree.len() == 0, "there is a second root")?;
        } else {
            while self.open.last().map(|open| &*open.path) != path.parent_str() {
                check(!self.open.is_empty(), "the node's parent is missing")?;
                self.close_znode()?;
            }
            let parent = self.open.last_mut().ok_or("the first node is no root")?;
            check(parent.znode.owner.is_none(), "an ephemeral node has a child")?;
            let siblings = &mut parent.znode.children;
            check(
                siblings.get_max().is_none_or(|max| max < path.shared()),
                "the node is out of order",
            )?;
            siblings.insert(Arc::clone(path.shared()));
        }
        if let Some(owner) = stat.owner {
            self.state.sessions.own(owner, path.shared());
        }
        let acl = kept_acl(&record.acl).ok_or("the node's list is not valid")?;
        let acl_again = acl.as_ref().map(acl_to_bytes).unwrap_or_default();
        let acl = acl.and_then(KeptAcl::new);
        let special = Special::new(acl, stat.aversion, stat.lifetime, record.since_us);
        let parent = self.open.last().map(|open| &open.znode);
        let special = special.map(|special| match parent {
            Some(parent) => shared(special, parent),
            None => Arc::new(special),
        });
        let znode = Znode {
            value: Arc::new(value_of(&stat, &record.data, special)),
            listing: listing_of(&stat, record.next_sequence),
            children: OrdSet::new(),
        };
        let quota = record.quota.as_ref().map(quota_from_record);
        let (nodes, bytes) = (record.usage_nodes, record.usage_bytes);
        check(quota.is_some() || (nodes, bytes) == (0, 0), "the node's usage is not valid")?;
        self.open.push(Open {
            path: Arc::clone(path.shared()),
            children: stat.children,
            usage: quota::node(znode.data().len()),
            metered: quota.map(|quota| Metered { quota, usage: Usage { nodes, bytes } }),
            znode,
        });
        Ok(proto::ZnodeRecord { stat: Some(stat_to_record(&stat)), acl: acl_again, ..record })
    }

    fn check_stat(
        &self,
        stat: &Stat,
        record: &proto::ZnodeRecord,
        is_root: bool,
    ) -> Result<(), &'static str> {
        let state = &self.state;
        let bytes = record.data.len() as u64;
        check(
            stat.data_length == bytes
                && bytes <= state.parameters.payload_bytes_max
                && !(stat.null && bytes > 0),
            "the node's data is not valid",
        )?;
        check(
            stat.czxid <= stat.mzxid.min(stat.pzxid)
                && stat.mzxid.max(stat.pzxid) <= state.zxid
                && (stat.czxid == Zxid::ZERO) == is_root,
            "the node's transactions are not valid",
        )?;
        check(
            stat.ctime_ms <= stat.mtime_ms && stat.mtime_ms <= state.wall_ms,
            "the node's times are not valid",
        )?;
        let counters = [stat.version, stat.cversion, stat.aversion, record.next_sequence];
        check(
            counters.into_iter().all(|counter| counter < COUNTER_MAX),
            "the node's counters are not valid",
        )?;
        check(
            record.since_us <= state.clock_us
                && (record.since_us == 0 || stat.lifetime != Lifetime::Unlimited)
                && (stat.lifetime == Lifetime::Unlimited || (stat.owner.is_none() && !is_root)),
            "the node's lifetime is not valid",
        )?;
        let Some(owner) = stat.owner else {
            return Ok(());
        };
        let lease = state.sessions.lease(owner);
        let id = lease.map_or(owner.session(), |lease| lease.session);
        let session = state.sessions.get(id).ok_or("the node's owner is missing")?;
        // A lease may own what its own transaction made.
        let since = lease.map_or(session.opened.next(), |lease| lease.granted);
        check(
            since <= stat.czxid && stat.children == 0 && !is_root,
            "the ephemeral node is not valid",
        )?;
        check(
            session.owned < state.parameters.ephemerals_max,
            "a session has more ephemeral nodes than the cluster allows",
        )
    }

    /// All below the last open node was read.
    fn close_znode(&mut self) -> Result<(), &'static str> {
        if let Some(open) = self.open.pop() {
            check(
                open.znode.children.len() as u64 == open.children,
                "a node before has another number of children",
            )?;
            if let Some(metered) = open.metered {
                check(metered.usage == open.usage, "a node before has another usage")?;
                self.state.tree.meter(&open.path, Some(metered));
            }
            if let Some(parent) = self.open.last_mut() {
                parent.usage.nodes += open.usage.nodes;
                parent.usage.bytes += open.usage.bytes;
            }
            self.state.tree.place(open.path, open.znode);
        }
        Ok(())
    }

    /// Takes a change back in the tree that all changes after it were taken back in.
    fn take_change(
        &mut self,
        record: &proto::ChangeRecord,
    ) -> Result<proto::ChangeRecord, &'static str> {
        let state = &mut self.state;
        let next = state.history.first().map_or(state.zxid, |change| change.zxid).as_u64();
        check(
            record.zxid > state.history.floor().as_u64() && record.zxid <= next,
            "the change's transaction is not valid",
        )?;
        let past = self.past.get_or_insert_with(|| state.tree.clone());
        let change = taken_back(record, past, state.clock_us, &state.parameters)?;
        let again = change_to_record(&change);
        state.history.push_front(change);
        check(
            state.history.fits(&state.parameters),
            "there are more changes than the cluster keeps",
        )?;
        Ok(again)
    }

    fn take_end(
        &mut self,
        record: &proto::SnapshotEnd,
    ) -> Result<proto::SnapshotEnd, &'static str> {
        let again = end_to_record(&self.state, self.head_crc);
        check(
            (again.sessions, again.leases, again.znodes, again.changes)
                == (record.sessions, record.leases, record.znodes, record.changes),
            "its counts are not those of the snapshot",
        )?;
        check(again.head_crc == record.head_crc, "its head is not that of the snapshot")?;
        let unseen = Mutant::RepliesNotRestored.active() || Mutant::DeadlinesNotRestored.active();
        check(again == *record || unseen, "its digest is not that of the snapshot")?;
        check(again.znodes > 0, "there is no root")?;
        Ok(*record)
    }
}

/// A node below which more may follow.
struct Open {
    path: Arc<str>,
    /// How many its stat says; those that came are in the node.
    children: u64,
    /// Of the node, and of those below it that came.
    usage: Usage,
    /// What its quota says.
    metered: Option<Metered>,
    znode: Znode,
}

/// The parts of a snapshot, in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Sessions,
    Znodes,
    Changes,
    End,
}

pub(super) fn value_of(stat: &Stat, data: &[u8], special: Option<Arc<Special>>) -> Value {
    Value {
        data: (!stat.null).then(|| own(data)),
        czxid: stat.czxid,
        mzxid: stat.mzxid,
        ctime_ms: stat.ctime_ms,
        mtime_ms: stat.mtime_ms,
        version: stat.version,
        owner: stat.owner,
        special,
    }
}

pub(super) fn listing_of(stat: &Stat, next_sequence: u64) -> Listing {
    Listing { pzxid: stat.pzxid, cversion: stat.cversion, next_sequence }
}
