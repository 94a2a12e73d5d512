//! What `/zookeeper/config` says: one line a member, and a version.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::{
    id::{NodeId, Zxid},
    node::Member,
    zookeeper::options::ServerAddress,
};

impl ServerAddress {
    /// As in a line: the port of peers stands for both of ZooKeeper's.
    fn parse(text: &str) -> Option<Self> {
        let (servers, client) = match text.split_once(';') {
            Some((servers, client)) => (servers, Some(client.to_owned())),
            None => (text, None),
        };
        let mut parts = servers.rsplitn(4, ':');
        let (_role, _election, port) = (parts.next()?, parts.next()?, parts.next()?);
        let peer = format!("{}:{port}", parts.next()?);
        Some(Self { peer, client })
    }

    pub(super) fn peer_port(&self) -> Option<&str> {
        self.peer.rsplit_once(':').map(|(_, port)| port)
    }
}

/// One line for each member whose address is known.
fn lines(
    members: &BTreeMap<NodeId, Member>,
    address: impl Fn(NodeId) -> Option<ServerAddress>,
) -> String {
    let mut out = String::new();
    for (id, member) in members {
        let Some(it) = address(*id) else { continue };
        let role = if member.voter { "participant" } else { "observer" };
        let port = it.peer_port().unwrap_or_default();
        let _ = write!(out, "server.{id}={}:{port}:{role}", it.peer);
        if let Some(client) = &it.client {
            let _ = write!(out, ";{client}");
        }
        out.push('\n');
    }
    out
}

/// What is to be written in the place of `now`; `None` if it says already what it must.
///
/// A member's own listener knows best where it is. What others have written stays. The version is
/// the last transaction before it.
pub(super) fn rewritten(
    now: &str,
    (own, zxid, members): (NodeId, Zxid, &BTreeMap<NodeId, Member>),
    known: &BTreeMap<NodeId, ServerAddress>,
) -> Option<String> {
    let mut written = BTreeMap::new();
    for line in now.lines() {
        let parts = line.strip_prefix("server.").and_then(|it| it.split_once('='));
        let id = parts.and_then(|(id, _)| id.parse().ok()).and_then(NodeId::new);
        let address = parts.and_then(|(_, address)| ServerAddress::parse(address));
        written.extend(id.zip(address));
    }
    let its_own = |id| known.get(&id).filter(|_| id == own).cloned();
    let address =
        |id| its_own(id).or_else(|| written.get(&id).cloned()).or_else(|| known.get(&id).cloned());
    let lines = lines(members, address);
    let before: String =
        now.lines().filter(|it| !is_version(it)).map(|it| format!("{it}\n")).collect();
    if lines == before {
        return None;
    }
    Some(format!("{lines}version={:x}", zxid.as_u64()))
}

fn is_version(line: &str) -> bool {
    line.starts_with("version=")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(all: &[(u64, bool)]) -> BTreeMap<NodeId, Member> {
        let member = |&(id, voter): &(u64, bool)| {
            (NodeId::new(id).expect("not 0"), Member::new(voter, None))
        };
        all.iter().map(member).collect()
    }

    #[test]
    fn each_tells_its_own_address_and_leaves_what_others_have_told() {
        let id = |n| NodeId::new(n).expect("not 0");
        let members = members(&[(1, true), (2, true), (3, false), (4, true)]);
        let rewrite = |now: &str, own: u64, known: &[(u64, &str)]| {
            let known = known.iter().map(|(n, it)| (id(*n), ServerAddress::new(*it))).collect();
            rewritten(now, (id(own), Zxid::new(31), &members), &known)
        };
        let first = rewrite("", 1, &[(1, "a:1"), (2, "b:2")]).expect("it is new");
        let lines = "server.1=a:1:1:participant\nserver.2=b:2:2:participant\n";
        assert_eq!(first, format!("{lines}version=1f"));
        assert_eq!(rewrite(&first, 1, &[(1, "a:1"), (2, "elsewhere:2")]), None, "2 knows itself");
        let moved = rewrite(&first, 2, &[(2, "c:9")]).expect("it has moved");
        assert_eq!(moved, first.replace("b:2:2", "c:9:9"));
        let told =
            "server.3=[::1]:5:6:participant;0.0.0.0:2181\nserver.9=x:1:1:observer\nrubbish\n";
        let kept = rewrite(told, 7, &[]).expect("who is no member is left out");
        assert_eq!(kept, "server.3=[::1]:5:5:observer;0.0.0.0:2181\nversion=1f");
        assert_eq!(rewrite("", 1, &[]), None, "nobody is known, as in a server alone");
    }
}
