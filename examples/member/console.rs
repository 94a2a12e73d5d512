//! The console: a line is a request, and many are under way at once.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt,
    io::{self, Write},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use quorate::client::{self, Client, Completion, LockGuard, Session};

use crate::{Failure, requests::Wait};

pub(crate) struct Console {
    pub(crate) client: Client,
    opening: Option<Completion<Session>>,
    session: Option<Session>,
    pub(crate) locks: Arc<Mutex<BTreeMap<String, LockGuard>>>,
    /// Answers that one thread waits for, in order.
    waits: mpsc::Sender<(String, Wait)>,
}

impl Console {
    pub(crate) fn new(client: Client) -> io::Result<Self> {
        let (waits, queue) = mpsc::channel::<(String, Wait)>();
        let answers = move || {
            for (id, wait) in queue {
                answer(&id, wait());
            }
        };
        thread::Builder::new().spawn(answers)?;
        let opening = Some(client.open_session(TTL));
        let (session, locks) = (None, Arc::default());
        Ok(Self { client, opening, session, locks, waits })
    }

    /// Takes a line; false when it was the last.
    pub(crate) fn take(&mut self, line: &str) -> bool {
        let mut words = line.split_whitespace().peekable();
        let id = words.next_if(|it| it.starts_with('#'));
        let id = id.map_or(String::new(), |it| format!("{it} "));
        let words: Vec<_> = words.collect();
        let Some(verb) = words.first() else {
            return true;
        };
        if *verb == "quit" {
            return false;
        }
        match self.submit(&id, &words) {
            // Those that may wait for ever have a thread each.
            Ok(wait) if ["lock", "watch"].contains(verb) => {
                let answers = move || answer(&id, wait());
                thread::Builder::new().spawn(answers).is_ok()
            }
            Ok(wait) => self.waits.send((id, wait)).is_ok(),
            Err(why) => self.waits.send((id, Box::new(|| Err(why)))).is_ok(),
        }
    }

    /// The session of this console; a new one is opened when the old one is over.
    pub(crate) fn session(&mut self) -> Result<&Session, Failure> {
        self.session.take_if(|it| it.over().is_some());
        if self.session.is_none() {
            let client = &self.client;
            let opening = self.opening.get_or_insert_with(|| client.open_session(TTL));
            if let Some(opened) = opening.try_take() {
                self.opening = None;
                self.session = Some(opened?);
            }
        }
        Ok(self.session.as_ref().ok_or(NoSession)?)
    }
}

#[derive(Debug)]
struct NoSession;

impl fmt::Display for NoSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the session is being opened; is a majority of the cluster up?")
    }
}

impl Error for NoSession {}

pub(crate) fn status(client: &Client) -> Wait {
    let status = client.status();
    Box::new(move || {
        let it = status.wait()?;
        let leader = it.leader.map_or("none".into(), |it| it.to_string());
        let (role, term, applied, zxid) = (it.role, it.term, it.applied, it.zxid);
        Ok(format!("{role:?} leader={leader} term={term} applied={applied} zxid={zxid}"))
    })
}

/// One line, whatever it says.
fn answer(id: &str, result: Result<String, Failure>) {
    let line = match result {
        Ok(text) => format!("{id}ok {text}\n"),
        Err(error) => {
            let kind = match error.downcast_ref::<client::Error>() {
                Some(it) if it.outcome_unknown() => "unknown",
                Some(it) if it.is_retryable() => "retryable",
                None if error.is::<NoSession>() => "retryable",
                _ => "final",
            };
            let text = error.to_string().replace('\n', " ");
            format!("{id}error {kind}: {text}\n")
        }
    };
    // Whoever reads it may be gone; then nobody misses it.
    let _ = io::stdout().write_all(line.as_bytes());
}

const TTL: Duration = Duration::from_secs(2);
