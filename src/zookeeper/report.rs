//! The answers to four-letter words that tell of the server, in ZooKeeper's formats.
//!
//! What only a Java server has is left out. A long answer is cut behind a line: see
//! [`WORD_BYTES_MAX`].

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    net::SocketAddr,
    time::Duration,
};

use foldhash::fast::FixedState;

use crate::{
    id::{LeaseId, SessionId},
    namespace::View,
    node::{Role, Status},
    op::LeaseStat,
    zookeeper::{
        line::Line,
        machine,
        options::ListenerOptions,
        traffic::{Latency, Traffic},
        watches::Watches,
        words::Word,
    },
};

/// What there is to tell.
pub(super) struct Report<'a> {
    pub(super) status: &'a Status,
    pub(super) view: Option<&'a View>,
    pub(super) options: &'a ListenerOptions,
    /// What `/zookeeper/config` says.
    pub(super) config: &'a str,
    pub(super) address: SocketAddr,
    pub(super) lines: &'a HashMap<u64, Line, FixedState>,
    pub(super) watches: &'a Watches,
    /// Of all connections, since the start or since it was set back.
    pub(super) traffic: &'a Traffic,
    /// Connections that were closed at once, because there were too many.
    pub(super) rejected: u64,
    pub(super) uptime: Duration,
    pub(super) wall_ms: u64,
}

/// Whether the node takes part in a cluster that has a leader.
pub(super) fn serves(status: &Status) -> bool {
    status.leader.is_some() && status.ended.is_none() && status.waiting.is_none()
}

/// The answer to a word that needs nobody.
pub(super) fn plain(word: Word) -> String {
    match word {
        Word::Ruok => "imok".into(),
        Word::Envi => machine::environment(VERSION),
        // The mask of what is traced.
        _ => "0".into(),
    }
}

impl Report<'_> {
    pub(super) fn text(&self, word: Word) -> String {
        match word {
            Word::Ruok | Word::Envi | Word::Gtmk => plain(word),
            Word::Isro => "rw".into(),
            Word::Conf => self.conf(),
            Word::Cons => self.connections(Detail::Whole) + "\n",
            Word::Crst => "Connection stats reset.\n".into(),
            Word::Srst => "Server stats reset.\n".into(),
            Word::Dirs => self.dirs(),
            Word::Dump => self.dump(),
            Word::Hash => {
                let (zxid, digest) = (self.status.zxid.as_u64(), self.status.digest);
                format!("{zxid:x}: {}\n", digest as i64)
            }
            Word::Mntr => self.monitor(),
            Word::Srvr => format!("Zookeeper version: {VERSION}\n{}", self.server()),
            Word::Stat => {
                let clients = self.connections(Detail::Brief);
                format!("Zookeeper version: {VERSION}\nClients:\n{clients}\n{}", self.server())
            }
            Word::Wchc => self.watches_by_session(),
            Word::Wchp => self.watches_by_path(),
            Word::Wchs => {
                let (connections, paths, watches) = self.watches.summary();
                let connections = format!("{connections} connections watching {paths} paths");
                format!("{connections}\nTotal watches:{watches}\n")
            }
        }
    }

    fn mode(&self) -> &'static str {
        match self.status.role {
            Role::Leader if self.status.members.len() == 1 => "standalone",
            Role::Leader => "leader",
            Role::Learner => "observer",
            _ => "follower",
        }
    }

    fn outstanding(&self) -> usize {
        self.lines.values().map(|line| line.connection.pending()).sum()
    }

    fn server(&self) -> String {
        let Latency { min_ms, max_ms, .. } = self.traffic.latency;
        let mut out = String::new();
        let average = self.traffic.latency.average_ms();
        let _ = writeln!(out, "Latency min/avg/max: {min_ms}/{average:?}/{max_ms}");
        let _ = writeln!(out, "Received: {}", self.traffic.received);
        let _ = writeln!(out, "Sent: {}", self.traffic.sent);
        let _ = writeln!(out, "Connections: {}", self.lines.len());
        let _ = writeln!(out, "Outstanding: {}", self.outstanding());
        let _ = writeln!(out, "Zxid: {:#x}", self.status.zxid.as_u64());
        let _ = writeln!(out, "Mode: {}", self.mode());
        let _ = writeln!(out, "Node count: {}", self.status.znodes);
        out
    }

    fn connections(&self, detail: Detail) -> String {
        let mut ids: Vec<u64> = self.lines.keys().copied().collect();
        ids.sort_unstable();
        let mut out = String::new();
        for line in ids.iter().filter_map(|id| self.lines.get(id)) {
            connection(line, detail, &mut out);
            if is_long(&mut out) {
                break;
            }
        }
        out
    }

    fn conf(&self) -> String {
        let (status, connection) = (self.status, &self.options.connection);
        let mut out = String::new();
        let mut put = |name: &str, value: String| {
            let _ = writeln!(out, "{name}={value}");
        };
        put("clientPort", self.address.port().to_string());
        put("secureClientPort", "-1".into());
        if let Some(dir) = &self.options.data_dir {
            put("dataDir", dir.display().to_string());
        }
        put("dataDirSize", status.disk.snapshot_bytes.to_string());
        if let Some(dir) = &self.options.data_dir {
            put("dataLogDir", dir.display().to_string());
        }
        put("dataLogSize", status.disk.log_bytes.to_string());
        // Sessions live for two ticks at least.
        put("tickTime", (connection.timeout_min.as_millis() / 2).to_string());
        put("maxClientCnxns", "0".into());
        put("minSessionTimeout", connection.timeout_min.as_millis().to_string());
        put("maxSessionTimeout", connection.timeout_max.as_millis().to_string());
        put("clientPortListenBacklog", "-1".into());
        put("serverId", status.id.to_string());
        if status.members.len() > 1 {
            let own = self.options.servers.get(&status.id).and_then(|it| it.peer_port());
            if let Some(port) = own {
                put("electionPort", port.to_owned());
                put("quorumPort", port.to_owned());
            }
            put("peerType", u8::from(status.role == Role::Learner).to_string());
            out += "membership: \n";
            out += self.config;
        }
        out
    }

    fn dirs(&self) -> String {
        let disk = self.status.disk;
        format!("datadir_size: {}\nlogdir_size: {}\n", disk.snapshot_bytes, disk.log_bytes)
    }

    /// Sessions by the tick in which they end, or of another member than the leader with their
    /// time-outs, and the nodes that they own.
    fn dump(&self) -> String {
        let leases = self.leases();
        let is_session = |it: &&LeaseStat| it.lease == it.session.lease();
        let sessions: Vec<&LeaseStat> = leases.iter().filter(is_session).collect();
        let mut out = String::from("SessionTracker dump:\n");
        if self.status.role == Role::Leader {
            self.dump_deadlines(&sessions, &mut out);
        } else {
            let _ = writeln!(out, "Global Sessions({}):", self.status.sessions);
            for it in &sessions {
                let (session, ms) = (it.session.as_u64(), it.ttl.as_millis());
                let _ = writeln!(out, "{session:#x}\t{ms}ms");
            }
        }
        let mut owners = leases.iter().filter(|it| it.nodes > 0).peekable();
        let mut owned = String::new();
        let mut count = 0;
        while let Some(it) = owners.next_if(|_| owned.len() < WORD_BYTES_MAX) {
            let _ = writeln!(owned, "{:#x}:", it.lease.as_u64());
            self.dump_owned(it.lease, &mut owned);
            count += 1;
        }
        let _ = writeln!(out, "ephemeral nodes dump:\nSessions with Ephemerals ({count}):");
        out += &owned;
        is_long(&mut out);
        out += "Connections dump:\n";
        out
    }

    fn leases(&self) -> Vec<LeaseStat> {
        let mut all: Vec<LeaseStat> = Vec::new();
        let Some(view) = self.view else { return all };
        while all.len() < DUMPED_LEASES_MAX {
            let page = view.leases(all.last().map(|it| it.lease)).unwrap_or_default();
            if page.is_empty() {
                break;
            }
            all.extend(page);
        }
        all
    }

    fn dump_deadlines(&self, sessions: &[&LeaseStat], out: &mut String) {
        let tick_ms = u64::try_from(self.options.connection.timeout_min.as_millis() / 2);
        let tick_ms = tick_ms.unwrap_or(1).max(1);
        let mut sets: BTreeMap<u64, Vec<SessionId>> = BTreeMap::new();
        for it in sessions {
            let left_ms = u64::try_from(it.remaining.as_millis()).unwrap_or(u64::MAX);
            let due_ms = self.wall_ms.saturating_add(left_ms) / tick_ms * tick_ms;
            sets.entry(due_ms.saturating_add(tick_ms)).or_default().push(it.session);
        }
        let _ = writeln!(out, "Session Sets ({})/({}):", sets.len(), self.status.sessions);
        for (due_ms, set) in &sets {
            let _ = writeln!(out, "{} expire at {}:", set.len(), machine::date(*due_ms));
            for session in set {
                let _ = writeln!(out, "\t{:#x}", session.as_u64());
            }
        }
    }

    fn dump_owned(&self, lease: LeaseId, out: &mut String) {
        let Some(view) = self.view else { return };
        let mut after = None;
        while let Ok(page) = view.owned(lease, after.as_ref()) {
            for path in &page.paths {
                let _ = writeln!(out, "\t{path}");
            }
            after = page.resume;
            if after.is_none() || out.len() >= WORD_BYTES_MAX {
                break;
            }
        }
    }

    fn session_of(&self, connection: u64) -> Option<SessionId> {
        self.lines.get(&connection)?.connection.session().map(|it| it.session)
    }

    fn watches_by_session(&self) -> String {
        let mut out = String::new();
        for (connection, paths) in self.watches.by_connection() {
            let Some(session) = self.session_of(connection) else { continue };
            let mut paths = paths.peekable();
            if paths.peek().is_some() {
                let _ = writeln!(out, "{:#x}", session.as_u64());
            }
            while let Some(path) = paths.next_if(|_| out.len() < WORD_BYTES_MAX) {
                let _ = writeln!(out, "\t{path}");
            }
            if is_long(&mut out) {
                break;
            }
        }
        out + "\n"
    }

    fn watches_by_path(&self) -> String {
        let mut out = String::new();
        for (path, connections) in self.watches.by_path() {
            let _ = writeln!(out, "{path}");
            for session in connections.into_iter().filter_map(|id| self.session_of(id)) {
                let _ = writeln!(out, "\t{:#x}", session.as_u64());
            }
            if is_long(&mut out) {
                break;
            }
        }
        out + "\n"
    }

    /// A name and a value in each line.
    fn monitor(&self) -> String {
        let (status, traffic) = (self.status, self.traffic);
        let mut out = String::new();
        let mut put = |name: &str, value: &dyn std::fmt::Display| {
            let _ = writeln!(out, "zk_{name}\t{value}");
        };
        put("version", &VERSION);
        put("server_state", &self.mode());
        put("ephemerals_count", &status.ephemerals);
        put("num_alive_connections", &self.lines.len());
        put("outstanding_requests", &self.outstanding());
        put("znode_count", &status.znodes);
        put("global_sessions", &status.sessions);
        put("local_sessions", &0);
        put("packets_sent", &traffic.sent);
        put("packets_received", &traffic.received);
        put("bytes_received_count", &traffic.received_bytes);
        put("connection_rejected", &self.rejected);
        put("watch_count", &self.watches.len_in_tables());
        put("approximate_data_size", &status.tree_bytes);
        put("uptime", &self.uptime.as_millis());
        let (open, max) = machine::descriptors();
        if let Some(open) = open {
            put("open_file_descriptor_count", &open);
        }
        if let Some(max) = max {
            put("max_file_descriptor_count", &max);
        }
        let both = [("readlatency", traffic.reads), ("updatelatency", traffic.updates)];
        for (name, it) in [("latency", traffic.latency)].into_iter().chain(both) {
            put(&format!("avg_{name}"), &format!("{:?}", it.average_ms()));
            put(&format!("min_{name}"), &it.min_ms);
            put(&format!("max_{name}"), &it.max_ms);
        }
        for (name, it) in both {
            put(&format!("cnt_{name}"), &it.count);
            put(&format!("sum_{name}"), &it.sum_ms);
        }
        if status.members.len() > 1 {
            out += &self.monitor_ensemble();
        }
        out
    }

    fn monitor_ensemble(&self) -> String {
        let status = self.status;
        let voters = status.members.values().filter(|it| it.voter).count();
        let is_voter = |id| status.members.get(id).is_some_and(|it| it.voter);
        let synced = status.synced.iter().filter(|id| is_voter(id)).count();
        let observers = status.synced.len() - synced;
        let does = match status.role {
            Role::Leader => "leading",
            Role::Learner => "observing",
            _ => "following",
        };
        let mut out = format!("zk_peer_state\t{does} - broadcast\nzk_quorum_size\t{voters}\n");
        if status.role == Role::Leader {
            for (name, value) in [
                ("followers", voters.saturating_sub(1)),
                ("learners", status.synced.len()),
                ("synced_followers", synced),
                ("synced_non_voting_followers", 0),
                ("synced_observers", observers),
                ("pending_syncs", 0),
            ] {
                let _ = writeln!(out, "zk_{name}\t{value}");
            }
        }
        out
    }
}

/// How much is told of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Detail {
    Brief,
    Whole,
}

fn connection(line: &Line, detail: Detail, out: &mut String) {
    let traffic = &line.traffic;
    // Who waits for a session or a word is not held back.
    let free = line.connection.session().is_none() || line.connection.wants_input();
    let interest = u8::from(free);
    let (queued, received, sent) = (line.connection.pending(), traffic.received, traffic.sent);
    let _ =
        write!(out, " /{}[{interest}](queued={queued},recved={received},sent={sent}", line.peer);
    if let Some(session) = line.connection.session().filter(|_| detail == Detail::Whole) {
        let last = traffic.last;
        let op = last.map_or("NA", |it| it.op);
        let _ = write!(out, ",sid={:#x},lop={op}", session.session.as_u64());
        let _ = write!(out, ",est={},to={}", line.since_ms, session.ttl.as_millis());
        if let Some(xid) = last.and_then(|it| it.xid) {
            let _ = write!(out, ",lcxid={xid:#x}");
        }
        let zxid = last.map_or(-1, |it| it.zxid);
        let at_ms = last.map_or(0, |it| it.at.as_millis());
        let Latency { min_ms, max_ms, count, sum_ms } = traffic.latency;
        let latency_ms = last.map_or(0, |it| it.latency_ms);
        let average_ms = sum_ms.checked_div(count).unwrap_or(0);
        let _ = write!(out, ",lzxid={zxid:#x},lresp={at_ms},llat={latency_ms}");
        let _ = write!(out, ",minlat={min_ms},avglat={average_ms},maxlat={max_ms}");
    }
    *out += ")\n";
}

/// Cuts what has become too long behind its last whole line, and says so.
fn is_long(out: &mut String) -> bool {
    if out.len() < WORD_BYTES_MAX {
        return false;
    }
    let whole = out.as_bytes()[..WORD_BYTES_MAX].iter().rposition(|byte| *byte == b'\n');
    let end = whole.map_or(0, |at| at + 1);
    out.truncate(end);
    *out += "...\n";
    true
}

/// What is said while there is no leader.
pub(super) const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests\n";
/// What clients take the server for, to know what it can.
const VERSION: &str = "3.9.0-quorate, built on 2026-01-01 00:00 UTC";
/// The longest answer to a word; it ends with `...` if there was more.
const WORD_BYTES_MAX: usize = 4 << 20;
/// Sessions and leases that are looked at for `dump`.
const DUMPED_LEASES_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_cut_behind_a_whole_line() {
        let line = "x".repeat(99) + "\n";
        let mut text = line.repeat(WORD_BYTES_MAX / 100);
        let short = text.clone();
        assert!(!is_long(&mut text) && text == short);
        text += &line;
        assert!(is_long(&mut text));
        assert_eq!(text, short + "...\n");
    }
}
