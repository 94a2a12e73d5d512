//! What ZooKeeper's clients know of nodes, and others do not: null data, numbers of 32 bits, and
//! quotas that are nodes; and who may be told of a list of children.

use super::connection::{World, create, delete, get, open, set};
use crate::{
    op::Stat,
    zookeeper::{
        acl::{stat_of, version_of},
        record::*,
        *,
    },
};

impl World {
    /// A response without an error.
    fn response<T>(
        &mut self,
        id: usize,
        request: &Request<'_>,
        read: impl FnOnce(Response<'_>) -> T,
    ) -> T {
        self.send(id, request);
        self.run(6);
        let (header, packet) = self.clients[id].answer();
        assert_eq!(header.err, 0, "{request:?}");
        let (_, response) = Response::decode(Some(request.op()), &packet.0).expect("valid");
        read(response)
    }

    /// A node's data, as getData and multiRead tell it.
    fn data(&mut self, id: usize, path: &str) -> Option<String> {
        let text = |node: &GetDataResponse<'_>| {
            assert_eq!(node.stat.data_length, node.data.map_or(0, <[u8]>::len) as i32);
            node.data.map(|data| String::from_utf8_lossy(data).into_owned())
        };
        let one = self.response(id, &get(path, false), |response| match response {
            Response::Node(node) => text(&node),
            other => panic!("{other:?}"),
        });
        let many = Request::MultiRead(vec![get(path, false)]);
        let same = self.response(id, &many, |response| match response {
            Response::Multi(parts) => match &parts[..] {
                [PartResponse::Done(OpCode::GetData, Response::Node(node))] => text(node),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        });
        assert_eq!(one, same);
        let exists = Request::Exists(WatchedRequest { path, watch: false });
        let stat = self.response(id, &exists, |response| match response {
            Response::Stat(stat) => stat,
            other => panic!("{other:?}"),
        });
        assert_eq!(stat.data_length as usize, one.as_ref().map_or(0, String::len));
        one
    }
}

fn made<'a>(path: &'a str, data: Option<&'a [u8]>) -> Request<'a> {
    Request::Create(OpCode::Create, CreateRequest { path, data, acl: open(), flags: 0 })
}

fn changed<'a>(path: &'a str, data: Option<&'a [u8]>) -> Request<'a> {
    Request::SetData(SetDataRequest { path, data, version: -1 })
}

#[test]
fn null_and_empty_data_are_told_apart() {
    let mut it = World::new();
    let (id, _) = it.connect();
    assert_eq!(it.data(id, "/"), Some(String::new()));
    assert_eq!(it.ask(id, &made("/null", None)), 0);
    assert_eq!(it.ask(id, &made("/empty", Some(b""))), 0);
    assert_eq!(it.data(id, "/null"), None);
    assert_eq!(it.data(id, "/empty"), Some(String::new()));
    assert_eq!(it.ask(id, &changed("/null", Some(b"x"))), 0);
    assert_eq!(it.data(id, "/null"), Some("x".into()));
    let both = vec![changed("/null", None), changed("/empty", Some(b"")), made("/more", None)];
    assert_eq!(it.ask(id, &Request::Multi(both)), 0);
    let now = ["/null", "/empty", "/more"].map(|path| it.data(id, path));
    assert_eq!(now, [None, Some(String::new()), None]);
}

#[test]
fn counters_wrap_where_clients_see_them() {
    let mut stat = Stat::default();
    (stat.version, stat.cversion, stat.aversion) = ((1 << 32) + 5, 1 << 31, (1 << 32) - 7);
    let seen = stat_of(&stat);
    assert_eq!((seen.version, seen.cversion, seen.aversion), (5, i32::MIN, -7));
    // What a client has seen is what it asks for, but for -1, which is any.
    assert_eq!(version_of(seen.aversion), Some(stat.aversion));
    assert_eq!(version_of(-1), None);
}

#[test]
fn a_number_that_is_taken_is_refused() {
    let mut it = World::new();
    let (id, _) = it.connect();
    assert_eq!(it.ask(id, &create("/n0000000001", 0)), 0);
    assert_eq!(it.ask(id, &create("/n", 2)), -110);
    assert_eq!(it.ask(id, &Request::Multi(vec![create("/n", 2)])), 0, "a multi says it in a part");
    assert_eq!(it.ask(id, &create("/other", 0)), 0);
    assert_eq!(it.ask(id, &create("/n", 2)), 0);
    assert_eq!(it.ask(id, &get("/n0000000002", false)), 0);
}

const LIMITS: &str = "/zookeeper/quota/a/zookeeper_limits";
const STATS: &str = "/zookeeper/quota/a/zookeeper_stats";

#[test]
fn a_quota_is_set_told_and_taken_away_by_its_nodes() {
    let mut it = World::new();
    let (id, _) = it.connect();
    for path in ["/a", "/zookeeper", "/zookeeper/quota", "/zookeeper/quota/a"] {
        assert_eq!(it.ask(id, &create(path, 0)), 0);
    }
    let hard = |count: u64| format!("count=1,bytes=-1;byteHardLimit=-1;countHardLimit={count}");
    let (two, three) = (hard(2), hard(3));
    assert_eq!(it.ask(id, &made(LIMITS, Some(b"count"))), -8);
    assert_eq!(it.ask(id, &made(LIMITS, Some(two.as_bytes()))), 0);
    assert_eq!(it.ask(id, &made(STATS, Some(b"count=0,bytes=0"))), 0);
    assert_eq!(it.data(id, STATS), Some("count=1,bytes=1".into()));
    assert_eq!(it.data(id, LIMITS).as_ref(), Some(&two));
    // The soft bound refuses nothing.
    assert_eq!(it.ask(id, &create("/a/b", 0)), 0);
    assert_eq!(it.ask(id, &create("/a/c", 0)), -125);
    assert_eq!(it.data(id, STATS), Some("count=2,bytes=2".into()));
    // What is refused takes its bounds along.
    assert_eq!(it.ask(id, &made(LIMITS, Some(three.as_bytes()))), -110);
    let wrong = SetDataRequest { path: LIMITS, data: Some(three.as_bytes()), version: 7 };
    assert_eq!(it.ask(id, &Request::SetData(wrong)), -103);
    assert_eq!(it.ask(id, &create("/a/c", 0)), -125);
    let parts = vec![changed(LIMITS, Some(three.as_bytes())), create("/a/c", 0)];
    assert_eq!(it.ask(id, &Request::Multi(parts)), 0);
    assert_eq!(it.data(id, STATS), Some("count=3,bytes=3".into()));
    assert_eq!(it.ask(id, &create("/a/d", 0)), -125);
    assert_eq!(it.ask(id, &delete(LIMITS)), 0);
    assert_eq!(it.ask(id, &create("/a/d", 0)), 0);
    assert_eq!(it.data(id, STATS), Some("count=0,bytes=0".into()), "what it was made with");
}

#[test]
fn a_quota_ends_with_its_node_and_is_set_by_who_administers_the_one_above() {
    let mut it = World::new();
    let ((id, _), (other, _)) = (it.connect(), it.connect());
    for path in ["/zookeeper", "/zookeeper/quota", "/zookeeper/quota/a"] {
        assert_eq!(it.ask(id, &create(path, 0)), 0);
    }
    let none = || made(LIMITS, Some(b"count=-1,bytes=-1;countHardLimit=1"));
    assert_eq!(it.ask(id, &none()), -101, "there is no node to bound");
    assert_eq!(it.ask(id, &create("/a", 0)), 0);
    assert_eq!(it.ask(id, &none()), 0);
    assert_eq!(it.ask(id, &create("/a/b", 0)), -125);
    assert_eq!(it.ask(id, &delete("/a")), 0);
    assert_eq!(it.ask(id, &create("/a", 0)), 0);
    assert_eq!(it.ask(id, &create("/a/b", 0)), 0, "another node");
    assert_eq!(it.ask(id, &delete("/a/b")), 0);
    assert_eq!(it.ask(id, &delete("/a")), 0);
    assert_eq!(it.ask(id, &delete(LIMITS)), 0, "though its node is gone");
    // Below a node that is somebody's.
    let own = vec![
        AclEntry { perms: 31, id: Id { scheme: "auth", id: "" } },
        AclEntry { perms: 5, id: Id { scheme: "world", id: "anyone" } },
    ];
    let auth = AuthPacket { kind: 0, scheme: "digest", auth: Some(b"ann:pw") };
    assert_eq!(it.ask(id, &Request::Auth(auth)), 0);
    let path = "/own";
    let own = CreateRequest { path, data: None, acl: own, flags: 0 };
    assert_eq!(it.ask(id, &Request::Create(OpCode::Create, own)), 0);
    for path in ["/own/a", "/zookeeper/quota/own", "/zookeeper/quota/own/a"] {
        assert_eq!(it.ask(other, &create(path, 0)), 0);
    }
    let bounds = made("/zookeeper/quota/own/a/zookeeper_limits", Some(b"count=0,bytes=0"));
    assert_eq!(it.ask(other, &bounds), -102);
    assert_eq!(it.ask(id, &bounds), 0);
}

#[test]
fn a_list_of_children_is_told_of_to_those_who_may_read_it() {
    let mut it = World::new();
    let ((ann, _), (id, _), (other, _)) = (it.connect(), it.connect(), it.connect());
    let auth = AuthPacket { kind: 0, scheme: "digest", auth: Some(b"ann:pw") };
    for client in [ann, id] {
        assert_eq!(it.ask(client, &Request::Auth(auth.clone())), 0);
    }
    assert_eq!(it.ask(ann, &create("/p", 0)), 0);
    let children = || Request::GetChildren(WatchedRequest { path: "/p", watch: true });
    let add = Request::AddWatch(WatchRequest { path: "/p", kind: 0 });
    for client in [id, other] {
        assert_eq!(it.ask(client, &children()), 0);
    }
    assert_eq!(it.ask(other, &add), 0);
    let listed = |scheme, name| {
        let acl = vec![AclEntry { perms: 31, id: Id { scheme, id: name } }];
        Request::SetAcl(SetAclRequest { path: "/p", acl, version: -1 })
    };
    assert_eq!(it.ask(ann, &listed("auth", "")), 0);
    assert_eq!(it.ask(ann, &create("/p/open", 0)), 0);
    assert_eq!(it.events(id), [(4, "/p".to_string())]);
    assert!(it.events(other).is_empty());
    // The watch that stays tells on when it may; the other one has fired.
    assert_eq!(it.ask(ann, &listed("world", "anyone")), 0);
    assert_eq!(it.ask(ann, &delete("/p/open")), 0);
    assert_eq!(it.events(other), [(4, "/p".to_string())]);
    // Parent and child go at once: the list is the parent's last one.
    assert_eq!(it.ask(ann, &create("/p/open", 0)), 0);
    assert_eq!(it.events(other), [(4, "/p".to_string())]);
    for client in [id, other] {
        assert_eq!(it.ask(client, &children()), 0);
    }
    assert_eq!(it.ask(ann, &listed("auth", "")), 0);
    assert_eq!(it.ask(ann, &set("/p/open", -1)), 0);
    assert_eq!(it.ask(ann, &Request::Multi(vec![delete("/p/open"), delete("/p")])), 0);
    assert_eq!(it.events(id), [(4, "/p".to_string())]);
    assert!(it.events(other).is_empty());
}
