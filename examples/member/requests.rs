//! What can be asked of the console.

use std::sync::Arc;

use quorate::{
    CreateMode::{Ephemeral, Persistent, PersistentSequential},
    Filter, List, Op, Path, Txn,
    client::{Client, Completion, Session, Written},
    node::Consistency::Linearizable,
};

use crate::{Console, Failure};

/// Waits for an answer, on a thread of its own.
pub(crate) type Wait = Box<dyn FnOnce() -> Result<String, Failure> + Send>;

impl Console {
    /// Submits a request; the answer is to be waited for elsewhere.
    pub(crate) fn submit(&mut self, id: &str, words: &[&str]) -> Result<Wait, Failure> {
        let data = words.get(2).copied().unwrap_or_default().to_owned();
        Ok(match *words {
            ["create", path, _] => {
                written(self.session()?.create(&path.parse()?, data, Persistent))
            }
            ["create", path, _, "ephemeral"] => {
                written(self.session()?.create(&path.parse()?, data, Ephemeral))
            }
            ["create", path, _, "sequential"] => {
                let prefix = Path::sequential_prefix(path)?;
                written(self.session()?.create_sequential(prefix, data, PersistentSequential))
            }
            ["set", path, _] => written(self.session()?.set(&path.parse()?, data, None)),
            ["set", path, _, version] => {
                written(self.session()?.set(&path.parse()?, data, Some(version.parse()?)))
            }
            ["delete", path] => written(self.session()?.delete(&path.parse()?, None)),
            ["delete", path, version] => {
                written(self.session()?.delete(&path.parse()?, Some(version.parse()?)))
            }
            // Outside of the session, as others would do that were handed the token: it takes
            // effect only while the lock is still the one that was acquired here.
            ["fenced", path, _, lock] => {
                let op = Op::Set { path: path.parse()?, data: data.into(), version: None };
                let fence =
                    self.locks.lock().map_err(|_| "poisoned")?.get(lock).map(|it| it.fence());
                let fence = fence.ok_or("the lock is not held here")?;
                written(self.client.txn(Txn::new(op).guard(fence)))
            }
            ["get", path] => {
                let got = self.session()?.get(&path.parse()?, Linearizable);
                answered(got, |(data, stat)| {
                    let (data, version) = (String::from_utf8_lossy(&data), stat.version);
                    format!("{data} version={version} czxid={} mzxid={}", stat.czxid, stat.mzxid)
                })
            }
            ["ls", path] => list(self.session()?.clone(), List::of(path.parse()?)),
            ["watch", path] => watch(&self.client, path.parse()?, id.to_owned()),
            ["lock", path] => {
                let turn = self.session()?.lock(&path.parse()?);
                let (locks, path) = (Arc::clone(&self.locks), path.to_owned());
                Box::new(move || {
                    let guard = turn.wait()?;
                    let token = guard.token();
                    locks.lock().map_err(|_| "poisoned")?.insert(path, guard);
                    Ok(format!("token={token}"))
                })
            }
            ["unlock", path] => {
                let guard = self.locks.lock().map_err(|_| "poisoned")?.remove(path);
                let released = guard.ok_or("the lock is not held here")?.release();
                answered(released, |()| "released".into())
            }
            ["status"] => answered(self.client.status(), |it| {
                let leader = it.leader.map_or("none".into(), |it| it.to_string());
                let (role, term, applied, zxid) = (it.role, it.term, it.applied, it.zxid);
                format!("{role:?} leader={leader} term={term} applied={applied} zxid={zxid}")
            }),
            // Alike on all members that have applied the same entry.
            ["checksum"] => answered(self.client.image(), |image| {
                format!("{} {:08x}", image.index(), image.checksum())
            }),
            _ => return Err(HELP.into()),
        })
    }
}

fn answered<T: Send + 'static>(
    answer: Completion<T>,
    tell: impl FnOnce(T) -> String + Send + 'static,
) -> Wait {
    Box::new(move || Ok(tell(answer.wait()?)))
}

fn written(answer: Completion<Written>) -> Wait {
    answered(answer, |it| {
        let path = it.path().map_or("done", |it| it.as_str());
        let version = it.stat().map_or(0, |stat| stat.version);
        format!("{path} zxid={} version={version}", it.zxid)
    })
}

fn list(session: Session, list: List) -> Wait {
    let (mut names, mut next) = (Vec::new(), session.list(list.clone(), Linearizable));
    Box::new(move || {
        loop {
            let page = next.wait()?;
            names.extend(page.children.into_iter().map(|child| child.name));
            match page.resume {
                Some(resume) => next = session.list(list.clone().after(resume), Linearizable),
                None => return Ok(format!("{} {}", names.len(), names.join(" "))),
            }
        }
    })
}

fn watch(client: &Client, path: Path, id: String) -> Wait {
    let watch = client.watch(Filter::Subtree(path), None);
    Box::new(move || {
        for changes in watch.wait()? {
            for event in changes?.events {
                println!("{id}event {:?} {} zxid={}", event.kind, event.path, event.zxid);
            }
        }
        Ok("the watch is over".into())
    })
}

const HELP: &str = "ask: create PATH DATA [ephemeral] [sequential] | set PATH DATA [VERSION] | \
    get PATH | delete PATH [VERSION] | ls PATH | watch PATH | lock PATH | unlock PATH | \
    fenced PATH DATA LOCK | status | checksum | quit";
