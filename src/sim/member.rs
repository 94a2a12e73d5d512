//! One machine of the simulated world: a disk, clocks, and the process on it.

use std::{collections::VecDeque, path::Path, sync::Arc, time::Duration};

use crate::{
    client::Client,
    config::Config,
    driver::{Host, HostError, Housework, Inbox, Log},
    id::NodeId,
    node::{Message, Node},
    sim::{Application, Instance, Rng, clock::LocalClock, disk::Disk, network::Line, rng::mix},
    wal::{MemoryFs, Wal, WalOptions},
};

/// A machine.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: NodeId,
    seed: u64,
    config: Config,
    pub(super) disk: Disk,
    pub(super) clock: LocalClock,
    pub(super) state: State,
    /// The process does nothing before.
    pub(super) paused_until: Duration,
    /// How often it was started.
    pub(super) lives: u64,
    /// What the disk held when an earlier life ended.
    pub(super) image: Option<MemoryFs>,
    /// Something has happened to it that it need not survive.
    pub(super) destroyed: bool,
    /// Its disk was empty when it was last started on another one.
    pub(super) wiped: bool,
}

#[derive(Debug)]
pub(super) enum State {
    Up(Box<Process>),
    /// Starts at that moment.
    Down(Duration),
    /// For good, and why.
    Dead(String),
}

/// The user's process.
pub(super) struct Process {
    host: Host,
    inbox: Inbox,
    client: Client,
    application: Box<dyn Application>,
    rng: Rng,
    line: Line,
    chores: VecDeque<(Duration, Housework)>,
    /// When the next turn is due.
    turn_at: Duration,
    /// When the application looks again.
    poll_at: Duration,
    /// The disk is at work until then.
    busy_until: Duration,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").field("host", &self.host).finish_non_exhaustive()
    }
}

/// What a turn has led to.
pub(super) struct Turned {
    /// When each leaves.
    pub(super) sent: Vec<(Duration, Message)>,
    pub(super) ended: Option<crate::node::Ended>,
}

impl Member {
    pub(super) fn new(config: Config, seed: u64) -> Self {
        Self {
            id: config.id(),
            seed,
            config,
            disk: Disk::new(),
            clock: LocalClock::start(Duration::ZERO),
            state: State::Down(Duration::ZERO),
            paused_until: Duration::ZERO,
            lives: 0,
            image: None,
            destroyed: false,
            wiped: false,
        }
    }

    /// Starts the process.
    pub(super) fn start(
        &mut self,
        now: Duration,
        application: Box<dyn Application>,
    ) -> Result<(), HostError> {
        self.lives += 1;
        self.clock.restart(now);
        let mut rng = Rng::stream(self.seed, mix(self.id.as_u64()) ^ self.lives);
        let mut options = WalOptions::default();
        let mut entropy = [0; 32];
        entropy[..16].copy_from_slice(&rng.bytes());
        options.entropy = Some(entropy);
        options.segment_bytes = SEGMENT_BYTES;
        let fs = Arc::new(self.disk.clone());
        let (cluster, id) = (self.config.cluster(), self.id);
        let (wal, restored) = Wal::open_with(fs, Path::new(DIR), cluster, id, options)?;
        let (inbox, line) = (Inbox::new(), Line::new(self.disk.clone()));
        let log = Log::Wal(Box::new(wal));
        let host = Host::new(self.config.clone(), log, restored, line.clone(), inbox.clone())?;
        let mut secrets = Rng::new(rng.next());
        let host = host.simulated(self.clock.handle(), move || secrets.bytes());
        let client = host.client();
        self.state = State::Up(Box::new(Process {
            host,
            inbox,
            client,
            application,
            rng,
            line,
            chores: VecDeque::new(),
            turn_at: now,
            poll_at: now,
            busy_until: now,
        }));
        Ok(())
    }

    pub(super) fn process(&self) -> Option<&Process> {
        match &self.state {
            State::Up(process) => Some(process),
            _ => None,
        }
    }

    pub(super) fn process_mut(&mut self) -> Option<&mut Process> {
        match &mut self.state {
            State::Up(process) => Some(process),
            _ => None,
        }
    }

    /// When it next does something.
    pub(super) fn next_at(&self) -> Option<Duration> {
        match &self.state {
            State::Up(it) => {
                let chore = it.chores.front().map_or(Duration::MAX, |chore| chore.0);
                let turn = it.turn_at.min(chore).max(it.busy_until);
                Some(turn.min(it.poll_at).max(self.paused_until))
            }
            State::Down(until) => Some(*until),
            State::Dead(_) => None,
        }
    }

    /// A turn of the host, if one is due.
    pub(super) fn turn(&mut self, now: Duration) -> Option<Turned> {
        let State::Up(it) = &mut self.state else {
            return None;
        };
        let chore_due = it.chores.front().is_some_and(|chore| chore.0 <= now);
        let due = it.turn_at <= now || chore_due;
        if !due || it.busy_until > now || self.paused_until > now {
            return None;
        }
        self.disk.begin_turn();
        while it.chores.front().is_some_and(|chore| chore.0 <= now) {
            let done = it.chores.pop_front().and_then(|(_, chore)| chore.run());
            if let Some(done) = done {
                it.host.housework_done(done);
            }
        }
        let turn = it.host.turn(self.clock.show(now));
        for chore in turn.housework {
            let at = now + it.rng.between(Duration::from_millis(1), CHORE_MAX);
            let at = it.chores.back().map_or(at, |last| at.max(last.0));
            it.chores.push_back((at, chore));
        }
        it.busy_until = now + self.disk.busy();
        it.turn_at = match turn.more || !it.client.mailbox().is_quiet() {
            true => now + HOP,
            false => self.clock.when(turn.next_tick),
        };
        it.poll_at = now;
        let sent = it.line.take().into_iter();
        let sent = sent.map(|(after, message)| (now + after, message)).collect();
        Some(Turned { sent, ended: turn.ended })
    }

    /// Lets the application look, if it is time.
    pub(super) fn poll(&mut self, now: Duration) {
        if self.paused_until > now {
            return;
        }
        let State::Up(it) = &mut self.state else {
            return;
        };
        if it.poll_at <= now {
            it.poll_at = now + POLL_INTERVAL;
            let shown = self.clock.show(now).mono;
            it.application.poll(&mut Instance {
                client: &it.client,
                node: self.id,
                life: self.lives,
                now: shown,
                rng: &mut it.rng,
            });
            if !it.client.mailbox().is_quiet() {
                it.turn_at = it.turn_at.min(now + HOP);
            }
        }
    }

    /// The clock was changed: ticks are due at other moments.
    pub(super) fn clock_changed(&mut self, now: Duration) {
        if let State::Up(it) = &mut self.state {
            it.turn_at = it.turn_at.min(now);
        }
    }
}

impl Process {
    pub(super) fn node(&self) -> &Node {
        self.host.node()
    }

    /// A bit of its state flips.
    pub(super) fn rot_memory(&mut self) {
        self.host.node_mut().rot_memory();
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// A frame has arrived.
    pub(super) fn deliver(&mut self, now: Duration, from: NodeId, bytes: bytes::Bytes) {
        if self.inbox.deliver(from, bytes) {
            self.turn_at = self.turn_at.min(now);
        }
    }
}

/// Where a member keeps its data.
pub(super) const DIR: &str = "/data";
/// Small, so that segments are changed often.
const SEGMENT_BYTES: u64 = 64 << 10;
/// How long a thread needs to notice something.
const HOP: Duration = Duration::from_micros(30);
/// How often an application looks though nothing has happened.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Housework is done after at most this time.
const CHORE_MAX: Duration = Duration::from_millis(20);
