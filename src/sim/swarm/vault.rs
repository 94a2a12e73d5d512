//! A worker that looks at what is not for everybody: nodes whose lists change, and readers who may
//! see some versions of them and not others.
//!
//! Who may read a version is a function of the node and the version. List, data and the name of the
//! only child are replaced together, at a version that is named: so whoever is told of anything
//! can be asked whether it was theirs to see.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::{
    client::{Changes, Client, Completion, Session, Watcher, Written},
    namespace::View,
    node::{Caller, Consistency, ReadOp, ReadOutcome, Watch},
    op::{
        Acl, CreateMode, Detail, DigestId, Event, Filter, Grant, Identities, Identity, List, Op,
        Principal, Rights, Stat, Txn,
    },
    path::Path,
    sim::{Rng, check::Leaks, rng::mix},
};

use super::books::Books;

/// One reader on one member.
#[derive(Debug)]
pub(super) struct Visitor {
    name: &'static str,
    reads: Vec<(Path, Completion<crate::client::Answer>)>,
    /// What it has no right to do.
    thefts: Vec<Completion<Written>>,
    /// What the keeper replaces.
    writes: Vec<Completion<Written>>,
    watch: Option<(Path, Result<Watcher, Completion<Watcher>>)>,
}

impl Visitor {
    /// One of the readers.
    pub(super) fn new(number: u64) -> Self {
        let name = READERS[(number % READERS.len() as u64) as usize];
        Self { name, reads: Vec::new(), thefts: Vec::new(), writes: Vec::new(), watch: None }
    }

    /// Who it is.
    pub(super) fn identities(&self) -> Identities {
        let id = DigestId::new(self.name, "hash").expect("short");
        Identities::new([Identity::Digest(id)]).expect("one")
    }

    /// Asks for something: as itself, or in a session that is its own now.
    pub(super) fn ask(
        &mut self,
        client: &Client,
        session: Option<&Session>,
        books: &mut Books,
        rng: &mut Rng,
    ) {
        let (number, as_reader) = (rng.below(VAULTS), client.with_identities(self.identities()));
        let vault = vault(number);
        match rng.below(10) {
            0..3 if self.writes.len() < OUT_MAX => {
                let keeper = client.with_identities(Identities::superuser());
                self.writes.push(keeper.txn(self.replace(number, books, rng)));
            }
            3 if self.thefts.len() < OUT_MAX => self.thefts.push(match rng.below(3) {
                0 => as_reader.set(&vault, STOLEN, None),
                1 => as_reader.txn(Txn::all([
                    Op::Exists { path: Path::root() },
                    Op::Set { path: vault, data: STOLEN.into(), version: None },
                ])),
                _ => {
                    let path = child(&vault, STOLEN);
                    as_reader.create(&path, STOLEN, CreateMode::Persistent)
                }
            }),
            4..10 if self.reads.len() < OUT_MAX => {
                let consistency = match rng.chance(500_000) {
                    true => Consistency::Local,
                    false => Consistency::Linearizable,
                };
                let op = match rng.below(4) {
                    0 => ReadOp::Exists(vault.clone()),
                    1 => ReadOp::List(List::of(vault.clone()).with_data().with_stat()),
                    2 => ReadOp::GetAcl(vault.clone()),
                    _ => ReadOp::Get(vault.clone()),
                };
                let read = match session.filter(|_| rng.chance(500_000)) {
                    Some(session) => session.read(op, consistency),
                    None => as_reader.read(op, consistency),
                };
                self.reads.push((vault, read));
            }
            _ => {}
        }
        if self.watch.is_none() {
            let watch = Watch {
                caller: Caller::Plain(self.identities()),
                detail: Detail::BeforeAndAfter,
                ..Watch::of(Filter::Subtree(self::vault(number)), 64)
            };
            self.watch = Some((self::vault(number), Err(as_reader.watch_with(watch))));
        }
    }

    /// The next version of a vault, as the keeper makes it; mostly of the one that is there.
    fn replace(&self, number: u64, books: &mut Books, rng: &mut Rng) -> Txn {
        let vault = vault(number);
        let version = match rng.chance(100_000) {
            true => rng.below(3),
            false => books.vaults.get(&number).copied().unwrap_or(0),
        };
        let next = version + 1;
        books.leaks.allowed(vault.as_str(), next, readers(number, next));
        if version == 0 && rng.chance(300_000) {
            books.leaks.allowed(vault.as_str(), 0, readers(number, 0));
            return Txn::all([
                Op::Create {
                    path: vault.clone().into(),
                    data: "0".into(),
                    mode: CreateMode::Persistent,
                    acl: Some(acl(number, 0)),
                },
                made(&child(&vault, "0")),
            ]);
        }
        let data = Bytes::from(next.to_string());
        let gone = child(&vault, &version.to_string());
        Txn::all([
            Op::Set { path: vault.clone(), data, version: Some(version) },
            Op::Delete { path: gone, version: None },
            Op::SetAcl { path: vault.clone(), acl: acl(number, next), version: None },
            made(&child(&vault, &next.to_string())),
        ])
    }

    /// Takes what was told.
    pub(super) fn poll(&mut self, books: &mut Books) -> Result<(), String> {
        self.writes.retain_mut(|write| match write.try_take() {
            None => true,
            Some(Ok(_)) => {
                books.answered += 1;
                false
            }
            Some(Err(_)) => false,
        });
        let mut wrong = None;
        self.thefts.retain_mut(|theft| match theft.try_take() {
            None => true,
            Some(Ok(written)) => {
                wrong = Some(format!("{} has no right to do it: {written:?}", self.name));
                false
            }
            Some(Err(_)) => false,
        });
        wrong.map_or(Ok(()), Err)?;
        let mut reads = std::mem::take(&mut self.reads);
        let mut told = Ok(());
        reads.retain_mut(|(vault, read)| {
            let Some(answer) = read.try_take() else {
                return true;
            };
            books.answered += 1;
            if let (Ok(answer), Ok(())) = (answer, &told) {
                told = self.read(vault, &answer.outcome, books);
            }
            false
        });
        self.reads = reads;
        told?;
        self.watch(books)
    }

    fn read(&self, vault: &Path, told: &ReadOutcome, books: &mut Books) -> Result<(), String> {
        let mut versions = Vec::new();
        match told {
            ReadOutcome::Node { data, stat } => versions.extend([version_of(data), stat.version]),
            ReadOutcome::Exists(Some(stat)) | ReadOutcome::Acl { stat, .. } => {
                versions.push(stat.version);
            }
            ReadOutcome::Listed(page) => {
                versions.extend(page.children.iter().map(|it| version_of(it.name.as_bytes())));
                let data = page.children.iter().filter_map(|child| child.data.as_ref());
                versions.extend(data.map(|data| version_of(data)));
            }
            _ => {}
        }
        if let ReadOutcome::Node { .. } | ReadOutcome::Exists(Some(_)) = told {
            let newest = books.vaults.entry(number_of(vault)).or_default();
            *newest = versions.iter().copied().max().unwrap_or(0).max(*newest);
        }
        tell(&mut books.leaks, self.name, vault, versions)
    }

    fn watch(&mut self, books: &mut Books) -> Result<(), String> {
        let Some((vault, watch)) = self.watch.take() else {
            return Ok(());
        };
        let mut watcher = match watch {
            Ok(watcher) => watcher,
            Err(mut arming) => match arming.try_take() {
                None => {
                    self.watch = Some((vault, Err(arming)));
                    return Ok(());
                }
                Some(Ok(watcher)) => watcher,
                Some(Err(_)) => return Ok(()),
            },
        };
        let mut context = Context::from_waker(Waker::noop());
        loop {
            match watcher.poll_next(&mut context) {
                Poll::Ready(Some(Ok(Changes { events, .. }))) => {
                    let versions = events.iter().flat_map(versions_of).collect();
                    tell(&mut books.leaks, self.name, &vault, versions)?;
                }
                Poll::Ready(_) => return Ok(()),
                Poll::Pending => {
                    self.watch = Some((vault, Ok(watcher)));
                    return Ok(());
                }
            }
        }
    }
}

/// What an event tells of: of a vault its versions, of a child its name.
fn versions_of(event: &Event) -> Vec<u64> {
    let contents = [&event.before, &event.after];
    let contents = contents.into_iter().flatten();
    match event.path.name() {
        name if !name.starts_with("vault-") => vec![version_of(name.as_bytes())],
        _ => contents.flat_map(|it| [version_of(&it.data), it.stat.version]).collect(),
    }
}

fn tell(leaks: &mut Leaks, who: &str, vault: &Path, versions: Vec<u64>) -> Result<(), String> {
    versions.into_iter().try_for_each(|version| leaks.told(who, vault.as_str(), version))
}

/// At the end: what nobody had the right to do has left no trace.
pub(super) fn traces(view: &View) -> Result<(), String> {
    for number in 0..VAULTS {
        let vault = vault(number);
        let Ok((data, Stat { version, .. })) = view.read(&vault) else {
            continue;
        };
        let page = view.list(&List::of(vault.clone()));
        let names = page.map(|page| page.children).unwrap_or_default();
        let whole = names.len() == 1 && names[0].name == version.to_string();
        if version_of(&data) != version || !whole {
            return Err(format!("{vault} at version {version} has {data:?} and {names:?}"));
        }
    }
    Ok(())
}

/// Who may read a version.
fn readers(number: u64, version: u64) -> impl Iterator<Item = &'static str> {
    let draw = mix(mix(number) ^ version);
    READERS.into_iter().enumerate().filter(move |(at, _)| (draw >> at) & 1 == 1).map(|it| it.1)
}

fn acl(number: u64, version: u64) -> Acl {
    let user = |name: &str| Principal::Digest(DigestId::new(name, "hash").expect("short"));
    let keeper = Grant { principal: user("keeper"), rights: Rights::ALL };
    let read = |name| Grant { principal: user(name), rights: Rights::READ };
    Acl::new([keeper].into_iter().chain(readers(number, version).map(read))).expect("few")
}

fn made(path: &Path) -> Op {
    let (data, mode) = (path.name().to_owned(), CreateMode::Persistent);
    Op::Create { path: path.clone().into(), data: data.into(), mode, acl: None }
}

fn vault(number: u64) -> Path {
    format!("/vault-{number}").parse().expect("valid")
}

fn number_of(vault: &Path) -> u64 {
    vault.as_str().trim_start_matches("/vault-").parse().unwrap_or(0)
}

fn child(vault: &Path, name: &str) -> Path {
    format!("{vault}/{name}").parse().expect("valid")
}

fn version_of(data: &[u8]) -> u64 {
    String::from_utf8_lossy(data).parse().unwrap_or(u64::MAX)
}

const READERS: [&str; 3] = ["ann", "bob", "eve"];
const VAULTS: u64 = 3;
const STOLEN: &str = "stolen";
const OUT_MAX: usize = 3;
