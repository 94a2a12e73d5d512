//! What is read of a whole tree: children, lists, several nodes at once, and watches armed anew.

use bytes::Bytes;

use crate::{
    id::{SessionId, Zxid},
    namespace::View,
    op::{Identities, List, OpError, Stat},
    path::Path,
    zookeeper::{
        acl::{code_of_op, scheme_of, stat_of},
        code::{ErrorCode, EventType, OpCode},
        jute::Jute,
        quota,
        record::{
            AclEntry, GetAclResponse, GetDataResponse, Id, MultiHeader, NamesResponse,
            NumberResponse, SetWatches2Request,
        },
        request::Request,
        response::{PartResponse, Response, end_parts},
        watches::{Kind, Watches},
    },
};

/// Looks at the tree for a request, arms the watches that it asks for, and writes the body of its
/// answer. What it writes before an error does not count.
pub(super) fn look(
    request: &Request<'_>,
    view: &View,
    session: SessionId,
    mut watch: impl FnMut(Kind, Path),
    out: &mut Vec<u8>,
) -> Result<(), ErrorCode> {
    match request {
        Request::GetAcl(it) => {
            let (acl, stat) = view.acl(&named(it.path)?).map_err(code)?;
            let texts: Vec<_> = acl.grants().iter().map(|it| scheme_of(&it.principal)).collect();
            let acl = acl.grants().iter().zip(&texts).map(|(grant, (scheme, id))| AclEntry {
                perms: i32::from(grant.rights.bits()),
                id: Id { scheme, id },
            });
            GetAclResponse { acl: acl.collect(), stat: stat_of(&stat) }.write(out);
        }
        Request::GetChildren(it) | Request::GetChildren2(it) => {
            let path = named(it.path)?;
            let stat = children(view, &path, out)?;
            if matches!(request, Request::GetChildren2(_)) {
                stat_of(&stat).write(out);
            }
            if it.watch {
                watch(Kind::Children, path);
            }
        }
        // Of a node whose data is not its own; the others are read by themselves.
        Request::Exists(it) => {
            let path = named(it.path)?;
            let found = content(view, &path);
            if it.watch && matches!(found, Ok(_) | Err(ErrorCode::NoNode)) {
                watch(Kind::Data, path);
            }
            stat_of(&found?.1).write(out);
        }
        Request::GetData(it) => {
            let path = named(it.path)?;
            let (data, stat) = content(view, &path)?;
            GetDataResponse { data: data.as_deref(), stat: stat_of(&stat) }.write(out);
            if it.watch {
                watch(Kind::Data, path);
            }
        }
        Request::GetEphemerals(it) => owned(view, session, it.path, out),
        Request::GetAllChildrenNumber(it) => {
            let path = named(it.path)?;
            view.stat(&path).map_err(code)?.ok_or(ErrorCode::NoNode)?;
            let (count, _) = view.descendants(&path, i32::MAX as u64).map_err(code)?;
            NumberResponse { number: i32::try_from(count).unwrap_or(i32::MAX) }.write(out);
        }
        Request::MultiRead(parts) => {
            for part in parts {
                read_part(part, view, &mut watch, out);
            }
            end_parts(out);
        }
        _ => return Err(ErrorCode::Unimplemented),
    }
    Ok(())
}

/// The watches of a client that was connected elsewhere: what has changed since is told at once,
/// and the others are armed (`DataTree.setWatches`).
pub(super) fn set_watches(
    it: &SetWatches2Request<'_>,
    view: &View,
    (watches, connection): (&mut Watches, u64),
    mut tell: impl FnMut(EventType, &Path),
) {
    let since = |zxid: Zxid| i64::try_from(zxid.as_u64()).unwrap_or(i64::MAX) > it.relative_zxid;
    for path in paths(&it.data) {
        match view.stat(&path) {
            Ok(None) => tell(EventType::NodeDeleted, &path),
            Ok(Some(stat)) if since(stat.mzxid) => tell(EventType::NodeDataChanged, &path),
            _ => watches.add(connection, Kind::Data, path),
        }
    }
    for path in paths(&it.exist) {
        match view.stat(&path) {
            Ok(Some(_)) => tell(EventType::NodeCreated, &path),
            _ => watches.add(connection, Kind::Data, path),
        }
    }
    for path in paths(&it.child) {
        match view.stat(&path) {
            Ok(None) => tell(EventType::NodeDeleted, &path),
            Ok(Some(stat)) if since(stat.pzxid) => tell(EventType::NodeChildrenChanged, &path),
            _ => watches.add(connection, Kind::Children, path),
        }
    }
    for path in paths(&it.persistent) {
        watches.add(connection, Kind::Persistent, path);
    }
    for path in paths(&it.recursive) {
        watches.add(connection, Kind::Recursive, path);
    }
}

/// The paths of a setWatches, as those of a setWatches2.
pub(super) fn all_watches<'a>(request: &Request<'a>) -> Option<SetWatches2Request<'a>> {
    match request {
        Request::SetWatches(it) => Some(SetWatches2Request {
            relative_zxid: it.relative_zxid,
            data: it.data.clone(),
            exist: it.exist.clone(),
            child: it.child.clone(),
            persistent: Vec::new(),
            recursive: Vec::new(),
        }),
        Request::SetWatches2(it) => Some(it.clone()),
        _ => None,
    }
}

fn read_part(
    part: &Request<'_>,
    view: &View,
    watch: &mut impl FnMut(Kind, Path),
    out: &mut Vec<u8>,
) {
    let start = out.len();
    let read = match part {
        Request::GetData(it) => named(it.path).and_then(|path| {
            let (data, stat) = content(view, &path)?;
            MultiHeader { op: OpCode::GetData.number(), done: false, err: 0 }.write(out);
            GetDataResponse { data: data.as_deref(), stat: stat_of(&stat) }.write(out);
            if it.watch {
                watch(Kind::Data, path);
            }
            Ok(())
        }),
        Request::GetChildren(it) => named(it.path).and_then(|path| {
            MultiHeader { op: OpCode::GetChildren.number(), done: false, err: 0 }.write(out);
            children(view, &path, out)?;
            if it.watch {
                watch(Kind::Children, path);
            }
            Ok(())
        }),
        _ => Err(ErrorCode::Unimplemented),
    };
    if let Err(code) = read {
        out.truncate(start);
        PartResponse::Failed(code.number()).write(out);
    }
}

/// A node's data, if it is not null, and its stat.
fn content(view: &View, path: &Path) -> Result<(Option<Bytes>, Stat), ErrorCode> {
    let (data, mut stat) = view.read(path).map_err(code)?;
    let usage = quota::counted(path.as_str()).and_then(|counted| {
        // Who may read the node that tells it may know it.
        let all = view.clone().seen_by(Identities::superuser());
        Some(all.quota(&counted).ok()??.1)
    });
    let Some(usage) = usage else {
        return Ok(((!stat.null).then_some(data), stat));
    };
    let data = Bytes::from(quota::stats(usage));
    stat.data_length = data.len() as u64;
    Ok((Some(data), stat))
}

/// Writes the names of a node's children as a list; gives the node's stat.
fn children(view: &View, path: &Path, out: &mut Vec<u8>) -> Result<Stat, ErrorCode> {
    let (start, mut count) = (out.len(), 0i32);
    count.write(out);
    let mut list = List::of(path.clone());
    loop {
        let page = view.list(&list).map_err(code)?;
        for child in &page.children {
            child.name.as_str().write(out);
            count = count.saturating_add(1);
        }
        match page.resume {
            Some(after) => list = list.after(after),
            None => {
                out[start..start + 4].copy_from_slice(&count.to_be_bytes());
                return Ok(page.stat);
            }
        }
    }
}

/// Writes the session's own ephemeral nodes that begin so.
fn owned(view: &View, session: SessionId, prefix: &str, out: &mut Vec<u8>) {
    let (mut names, mut after): (Vec<Path>, Option<Path>) = (Vec::new(), None);
    // A session that owns nothing has no page.
    while let Ok(page) = view.owned(session.lease(), after.as_ref()) {
        names.extend(page.paths.into_iter().filter(|it| it.as_str().starts_with(prefix)));
        after = page.resume;
        if after.is_none() {
            break;
        }
    }
    let names = names.iter().map(Path::as_str).collect();
    Response::Names(NamesResponse { names }).write(out);
}

/// Those that can be paths.
fn paths(list: &[&str]) -> Vec<Path> {
    list.iter().filter_map(|path| Path::new(path).ok()).collect()
}

fn named(path: &str) -> Result<Path, ErrorCode> {
    Path::new(path).map_err(|_| ErrorCode::NoNode)
}

fn code(error: OpError) -> ErrorCode {
    code_of_op(&error).unwrap_or(ErrorCode::SystemError)
}
