//! What can be asked of the console.

use std::sync::Arc;

use quorate::{
    CreateMode, Filter, List, Op, Path, Txn,
    client::{Answer, Client, Completion},
    node::{Consistency::Linearizable, ReadOp, ReadOutcome},
};

use crate::{
    Failure,
    console::{Console, status},
};

pub(crate) type Wait = Box<dyn FnOnce() -> Result<String, Failure> + Send>;

impl Console {
    /// Submits a request; the answer is to be waited for elsewhere.
    pub(crate) fn submit(&mut self, id: &str, words: &[&str]) -> Result<Wait, Failure> {
        let path = words.get(1).copied().unwrap_or("/");
        let data = words.get(2).copied().unwrap_or_default().to_owned();
        match words[0] {
            "create" => self.create(path, data, words.get(3..).unwrap_or_default()),
            "set" => {
                let version = words.get(3).map(|it| it.parse()).transpose()?;
                let (path, data) = (path.parse()?, data.into());
                self.write(Op::Set { path, data, version })
            }
            "delete" => self.write(Op::Delete { path: path.parse()?, version: None }),
            "get" => Ok(get(self.reader(), path.parse()?)),
            "ls" => Ok(list(self.reader(), path.parse()?)),
            "watch" => Ok(watch(&self.client, path.parse()?, id.to_owned())),
            "lock" => self.lock(path),
            "unlock" => self.unlock(path),
            "status" => Ok(status(&self.client)),
            "checksum" => Ok(checksum(&self.client)),
            "help" => Ok(Box::new(|| Ok(HELP.into()))),
            other => Err(format!("there is no {other:?}; {HELP}").into()),
        }
    }

    fn create(&mut self, path: &str, data: String, modes: &[&str]) -> Result<Wait, Failure> {
        let sequential = modes.contains(&"sequential");
        let mode = match (modes.contains(&"ephemeral"), sequential) {
            (false, false) => CreateMode::Persistent,
            (true, false) => CreateMode::Ephemeral,
            (false, true) => CreateMode::PersistentSequential,
            (true, true) => CreateMode::EphemeralSequential,
        };
        let path = match sequential {
            true => Path::sequential_prefix(path)?,
            false => Path::new(path)?.into(),
        };
        self.write(Op::Create { path, data: data.into(), mode, acl: None })
    }

    fn write(&mut self, op: Op) -> Result<Wait, Failure> {
        let written = self.session()?.txn(Txn::new(op));
        Ok(Box::new(move || {
            let written = written.wait()?;
            let path = written.path().map_or("done", |it| it.as_str());
            Ok(format!("{path} zxid={}", written.zxid))
        }))
    }

    /// Reads in the session, so that they see what was written here before, answered or not.
    fn reader(&mut self) -> impl Fn(ReadOp) -> Completion<Answer> + Send + use<> {
        let (session, client) = (self.session().ok().cloned(), self.client.clone());
        move |op| match &session {
            Some(session) => session.read(op, Linearizable),
            None => client.read(op, Linearizable),
        }
    }

    fn lock(&mut self, path: &str) -> Result<Wait, Failure> {
        let turn = self.session()?.lock(&path.parse()?);
        let (locks, path) = (Arc::clone(&self.locks), path.to_owned());
        Ok(Box::new(move || {
            let guard = turn.wait()?;
            let token = guard.token();
            locks.lock().map_err(|_| "poisoned")?.insert(path, guard);
            Ok(format!("token={token}"))
        }))
    }

    fn unlock(&mut self, path: &str) -> Result<Wait, Failure> {
        let guard = self.locks.lock().map_err(|_| "poisoned")?.remove(path);
        let released = guard.ok_or("the lock is not held here")?.release();
        Ok(Box::new(move || Ok(released.wait().map(|()| "released".into())?)))
    }
}

fn get(read: impl Fn(ReadOp) -> Completion<Answer>, path: Path) -> Wait {
    let answer = read(ReadOp::Get(path));
    Box::new(move || {
        let ReadOutcome::Node { data, stat } = answer.wait()?.outcome else {
            return Err("not a node".into());
        };
        let data = String::from_utf8_lossy(&data);
        let (version, czxid, mzxid) = (stat.version, stat.czxid, stat.mzxid);
        Ok(format!("{data} version={version} czxid={czxid} mzxid={mzxid}"))
    })
}

fn list(read: impl Fn(ReadOp) -> Completion<Answer> + Send + 'static, path: Path) -> Wait {
    let mut list = List::of(path);
    let first = read(ReadOp::List(list.clone()));
    Box::new(move || {
        let (mut all, mut answer) = (Vec::new(), first.wait()?);
        while let ReadOutcome::Listed(page) = answer.outcome {
            all.extend(page.children.into_iter().map(|child| child.name));
            let Some(resume) = page.resume else {
                return Ok(format!("{} {}", all.len(), all.join(" ")));
            };
            list = list.after(resume);
            answer = read(ReadOp::List(list.clone())).wait()?;
        }
        Err("not a list".into())
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

/// Alike on all members that have applied the same entry.
fn checksum(client: &Client) -> Wait {
    let image = client.image();
    Box::new(move || {
        let image = image.wait()?;
        Ok(format!("{} {:08x}", image.index(), image.checksum()))
    })
}

const HELP: &str = "ask: create PATH DATA [ephemeral] [sequential] | set PATH DATA [VERSION] | \
    get PATH | delete PATH | ls PATH | watch PATH | lock PATH | unlock PATH | \
    status | checksum | quit";
