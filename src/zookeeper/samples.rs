//! Packets of all kinds, for the tests and the fuzz targets.

#[cfg(any(test, fuzzing))]
use crate::zookeeper::response::{PartResponse, Response};
use crate::zookeeper::{code::OpCode, record::*, request::Request};

/// One whose fields all differ.
#[cfg(any(test, fuzzing))]
pub(crate) fn stat() -> StatRecord {
    StatRecord {
        czxid: 1,
        mzxid: -2,
        ctime: i64::MAX,
        mtime: i64::MIN,
        version: 5,
        cversion: -6,
        aversion: i32::MAX,
        ephemeral_owner: 8,
        data_length: 9,
        num_children: 10,
        pzxid: 11,
    }
}

fn acl() -> Vec<AclEntry<'static>> {
    let entry = |perms, scheme, id| AclEntry { perms, id: Id { scheme, id } };
    vec![entry(31, "world", "anyone"), entry(1, "digest", "ann:x")]
}

/// One of each request, and some that are not as short as can be.
pub(crate) fn requests() -> Vec<Request<'static>> {
    let (path, version) = ("/a/b", -1);
    let create = CreateRequest { path, data: DATA, acl: acl(), flags: 3 };
    let watched = WatchedRequest { path, watch: true };
    let at = PathRecord { path };
    let watch = WatchRequest { path, kind: 3 };
    let changes = vec![
        Request::Create(OpCode::Create, create.clone()),
        Request::Create(OpCode::Create2, create.clone()),
        Request::Create(OpCode::CreateContainer, create.clone()),
        Request::CreateTtl(CreateTtlRequest { path, data: None, acl: vec![], flags: 5, ttl: 7 }),
        Request::Delete(VersionRequest { path, version }),
        Request::SetData(SetDataRequest { path, data: Some(b""), version: 4 }),
        Request::Check(VersionRequest { path, version: 9 }),
    ];
    let reads = vec![Request::GetData(watched.clone()), Request::GetChildren(watched.clone())];
    let paths = || vec!["/x", "/y/z"];
    let (members, relative_zxid) = ("", 77);
    let others = vec![
        Request::Exists(watched.clone()),
        Request::GetAcl(at.clone()),
        Request::SetAcl(SetAclRequest { path, acl: acl(), version }),
        Request::Sync(at.clone()),
        Request::Ping,
        Request::GetChildren2(watched),
        Request::Multi(changes.clone()),
        Request::Multi(vec![]),
        Request::Reconfig(ReconfigRequest { joining: "a", leaving: "b", members, config_id: -1 }),
        Request::CheckWatches(watch.clone()),
        Request::RemoveWatches(watch.clone()),
        Request::MultiRead(reads.clone()),
        Request::Auth(AuthPacket { kind: 0, scheme: "digest", auth: Some(b"u:p") }),
        Request::SetWatches(SetWatchesRequest {
            relative_zxid,
            data: paths(),
            exist: vec![],
            child: paths(),
        }),
        Request::Sasl(SaslRecord { token: DATA }),
        Request::GetEphemerals(at.clone()),
        Request::GetAllChildrenNumber(at),
        Request::SetWatches2(SetWatches2Request {
            relative_zxid,
            data: paths(),
            exist: paths(),
            child: vec![],
            persistent: paths(),
            recursive: paths(),
        }),
        Request::AddWatch(watch),
        Request::WhoAmI,
        Request::CloseSession,
    ];
    changes.into_iter().chain(reads).chain(others).collect()
}

/// One of each response but events, with the kind of request that it answers.
#[cfg(any(test, fuzzing))]
pub(crate) fn responses() -> Vec<(OpCode, Response<'static>)> {
    let (path, names) = ("/a", vec!["x", "y"]);
    let made = Response::Path(PathRecord { path });
    let created = Response::Created(Create2Response { path, stat: stat() });
    let node = Response::Node(GetDataResponse { data: None, stat: stat() });
    let children = Response::Names(NamesResponse { names: names.clone() });
    let parts = vec![
        PartResponse::Done(OpCode::Create, made.clone()),
        PartResponse::Done(OpCode::Create2, created.clone()),
        PartResponse::Done(OpCode::Delete, Response::Empty),
        PartResponse::Done(OpCode::SetData, Response::Stat(stat())),
        PartResponse::Done(OpCode::Check, Response::Empty),
        PartResponse::Failed(-101),
        PartResponse::Done(OpCode::GetData, node.clone()),
        PartResponse::Done(OpCode::GetChildren, children.clone()),
    ];
    let clients = vec![ClientIdentity { scheme: "ip", user: "127.0.0.1" }];
    vec![
        (OpCode::Create, made.clone()),
        (OpCode::Sync, made),
        (OpCode::Create2, created),
        (OpCode::Exists, Response::Stat(stat())),
        (OpCode::GetData, node),
        (OpCode::GetAcl, Response::Acl(GetAclResponse { acl: acl(), stat: stat() })),
        (OpCode::GetChildren, children),
        (OpCode::GetChildren2, Response::Children(GetChildren2Response { names, stat: stat() })),
        (OpCode::GetAllChildrenNumber, Response::Number(NumberResponse { number: 3 })),
        (OpCode::AddWatch, Response::Number(NumberResponse { number: 0 })),
        (OpCode::Multi, Response::Multi(parts)),
        (OpCode::Sasl, Response::Sasl(SaslRecord { token: None })),
        (OpCode::WhoAmI, Response::WhoAmI(WhoAmIResponse { clients })),
        (OpCode::Ping, Response::Empty),
    ]
}

const DATA: Option<&[u8]> = Some(b"data");
