//! Three members are killed (SIGKILL) at random times, and nothing that was acknowledged is lost,
//! done twice, or locked by two.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use crate::member::{PATIENCE, Process, Said, Start, addresses, answer, draw, executable, seed};

#[test]
fn nothing_acknowledged_is_lost_or_doubled_while_processes_are_killed() {
    let started = Instant::now();
    let mut world = World::start(seed());
    let mut leaders = 0;
    for round in 0..KILLS {
        let writes = WRITES + world.draw(200);
        world.load(writes);
        // The places of the dead expire now and then, so that the lock moves on.
        let holders = world.tokens.len() + if round % 2 == 0 { 3 } else { 0 };
        world.drive_until_held_by(holders);
        let leader = world.leader();
        let victim = match world.draw(5) {
            0 => world.draw(3),
            _ => leader,
        };
        leaders += usize::from(victim == leader);
        // At a random moment of the load that goes on.
        let more = world.draw(100);
        world.load(more);
        world.kill(victim);
        let away = world.draw(400) as u64;
        world.drive_for(Duration::from_millis(away));
        world.spawn(victim);
        println!("kill {round}: node {} after {:.1?}", victim + 1, started.elapsed());
    }
    world.finish();
    let (acked, unknown) = world.check();
    let (locks, took) = (world.tokens.len(), started.elapsed());
    println!("{KILLS} kills, {leaders} of leaders; {acked} writes acknowledged, {unknown} unknown");
    println!("{locks} holders; {took:.1?}");
    assert!(leaders > KILLS / 2, "most kills hit the leader: {leaders} of {KILLS}");
    assert!(locks > KILLS, "the lock moved on: {locks} holders");
}

struct World {
    seed: u64,
    executable: PathBuf,
    data: tempfile::TempDir,
    peers: String,
    addresses: Vec<String>,
    members: Vec<Option<Member>>,
    lines: Receiver<Said>,
    sender: Sender<Said>,
    next: u64,
    /// Requests that are under way.
    asked: BTreeMap<u64, (usize, Ask)>,
    /// What became of each write, by the number that is its data.
    writes: BTreeMap<u64, Fate>,
    acked: usize,
    /// Fencing tokens in the order in which their holders were seen.
    tokens: Vec<u64>,
    answers: BTreeMap<u64, Result<String, String>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ask {
    Write,
    Lock,
    Other,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Fate {
    Acknowledged(String),
    Refused,
    Unknown,
}

struct Member {
    process: Process,
    /// Before then it is left alone: it refused something.
    rests: Instant,
    locks: bool,
    holds: bool,
}

impl World {
    fn start(seed: u64) -> Self {
        let addresses = addresses();
        let peers: Vec<_> = (1..).zip(&addresses).map(|(id, at)| format!("{id}={at}")).collect();
        let (sender, lines) = channel();
        let mut world = Self {
            seed,
            executable: executable(),
            data: tempfile::tempdir().expect("a directory"),
            peers: peers.join(","),
            addresses,
            members: vec![None, None, None],
            lines,
            sender,
            next: 1,
            asked: BTreeMap::new(),
            writes: BTreeMap::new(),
            acked: 0,
            tokens: Vec::new(),
            answers: BTreeMap::new(),
        };
        (0..3).for_each(|it| world.spawn(it));
        world.insist(0, "create /w root");
        world
    }

    fn spawn(&mut self, member: usize) {
        let life = self.next;
        self.next += 1;
        let process = Process::start(Start {
            executable: &self.executable,
            member,
            life,
            listen: &self.addresses[member],
            peers: &self.peers,
            data: self.data.path(),
            said: self.sender.clone(),
        });
        let (rests, locks, holds) = (Instant::now(), false, false);
        self.members[member] = Some(Member { process, rests, locks, holds });
    }

    /// What it had answered before it died still counts; nobody knows what became of the rest.
    fn kill(&mut self, member: usize) {
        let mut dead = self.members[member].take().expect("alive");
        dead.process.child.kill().expect("its own child");
        dead.process.child.wait().expect("its own child");
        loop {
            let said = self.lines.recv_timeout(PATIENCE).expect("its pipe closes");
            let Said { member: from, life, line } = said;
            if from == member && line.is_empty() {
                assert_eq!(
                    life,
                    dead.process.life,
                    "no other process of node {} ended",
                    member + 1
                );
                break;
            }
            self.hear(from, &line);
        }
        self.asked.retain(|_, it| it.0 != member);
    }

    fn ask(&mut self, member: usize, what: &str, ask: Ask) -> u64 {
        let id = self.next;
        self.next += 1;
        let text = what.replace("{}", &id.to_string());
        if ask == Ask::Write {
            self.writes.insert(id, Fate::Unknown);
        }
        let it = self.members[member].as_mut().expect("alive");
        it.process.ask(id, &text).expect("node takes requests");
        self.asked.insert(id, (member, ask));
        id
    }

    fn hear(&mut self, member: usize, line: &str) {
        assert!(!line.is_empty(), "node {} ended by itself", member + 1);
        let (id, result) = answer(line);
        let (_, ask) = self.asked.remove(&id).expect("it was asked");
        if let (Err(_), Some(it)) = (&result, &mut self.members[member]) {
            it.rests = Instant::now() + Duration::from_millis(20);
        }
        match (ask, result) {
            (Ask::Write, Ok(text)) => {
                let path = text.split(' ').next().expect("a path").to_owned();
                self.writes.insert(id, Fate::Acknowledged(path));
                self.acked += 1;
            }
            (Ask::Write, Err(why)) if !why.starts_with("unknown") => {
                self.writes.insert(id, Fate::Refused);
            }
            (Ask::Write, Err(_)) => {}
            (Ask::Lock, Ok(text)) => {
                let token = text.strip_prefix("token=").and_then(|it| it.parse().ok());
                self.tokens.push(token.expect("a token"));
                if let Some(it) = &mut self.members[member] {
                    it.holds = true;
                }
            }
            (Ask::Lock, Err(_)) => self.unlocked(member),
            (Ask::Other, result) => {
                self.answers.insert(id, result);
            }
        }
    }

    fn unlocked(&mut self, member: usize) {
        if let Some(it) = &mut self.members[member] {
            it.locks = false;
        }
    }

    /// Keeps writes and a lock under way at each member, and takes one answer.
    fn step(&mut self) {
        let pause = self.draw(8);
        for member in 0..3 {
            let Some(process) = &mut self.members[member] else {
                continue;
            };
            if process.rests > Instant::now() {
                continue;
            }
            // It holds for a while, so that some are killed while they hold.
            if pause == 0 && std::mem::take(&mut process.holds) {
                process.locks = false;
                self.ask(member, "unlock /lock", Ask::Other);
            } else if !std::mem::replace(&mut process.locks, true) {
                self.ask(member, "lock /lock", Ask::Lock);
            }
            let count = |it: &&(usize, Ask)| **it == (member, Ask::Write);
            for _ in self.asked.values().filter(count).count()..WINDOW {
                self.ask(member, "create /w/n- {} sequential", Ask::Write);
            }
        }
        self.listen();
    }

    fn listen(&mut self) {
        if let Ok(Said { member, line, .. }) = self.lines.recv_timeout(Duration::from_millis(10)) {
            self.hear(member, &line);
            while let Ok(Said { member, line, .. }) = self.lines.try_recv() {
                self.hear(member, &line);
            }
        }
    }

    /// Until so many more writes are acknowledged.
    fn load(&mut self, writes: usize) {
        let (target, since) = (self.acked + writes, Instant::now());
        while self.acked < target {
            self.step();
            assert!(since.elapsed() < PATIENCE, "no progress: {:?}", self.asked.len());
        }
    }

    fn drive_until_held_by(&mut self, holders: usize) {
        let since = Instant::now();
        while self.tokens.len() < holders {
            self.step();
            assert!(since.elapsed() < PATIENCE, "the lock does not move on");
        }
    }

    fn drive_for(&mut self, time: Duration) {
        let since = Instant::now();
        while since.elapsed() < time {
            self.step();
        }
    }

    fn wait_for(&mut self, id: u64) -> Result<String, String> {
        let since = Instant::now();
        while !self.answers.contains_key(&id) {
            self.listen();
            assert!(since.elapsed() < PATIENCE, "request {id} is not answered");
        }
        self.answers.remove(&id).expect("just seen")
    }

    /// Asks until it is answered; for what may be done again.
    fn insist(&mut self, member: usize, what: &str) -> String {
        let since = Instant::now();
        loop {
            let id = self.ask(member, what, Ask::Other);
            match self.wait_for(id) {
                Ok(text) => return text,
                Err(why) => assert!(since.elapsed() < PATIENCE, "{what}: {why}"),
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Who leads by its own word.
    fn leader(&mut self) -> usize {
        let since = Instant::now();
        loop {
            for member in 0..3 {
                if self.insist(member, "status").starts_with("Leader") {
                    return member;
                }
            }
            self.step();
            assert!(since.elapsed() < PATIENCE, "nobody leads");
        }
    }

    /// Until everything that was asked is answered.
    fn finish(&mut self) {
        let since = Instant::now();
        while !self.asked.is_empty() {
            // Whoever waits for the lock gets it only when the others let go.
            for member in 0..3 {
                let process = self.members[member].as_mut();
                if process.is_some_and(|it| std::mem::take(&mut it.holds)) {
                    self.ask(member, "unlock /lock", Ask::Other);
                }
            }
            self.listen();
            assert!(since.elapsed() < PATIENCE, "not answered: {:?}", self.asked);
        }
        self.answers.clear();
    }

    /// The whole states are identical, sessions, replies, clock and history among them: once all
    /// three have told of the same index.
    fn compare_states(&mut self) {
        let since = Instant::now();
        let mut told: BTreeMap<String, [Option<String>; 3]> = BTreeMap::new();
        loop {
            let asked: Vec<_> = (0..3).map(|it| self.ask(it, "checksum", Ask::Other)).collect();
            for (member, id) in asked.into_iter().enumerate() {
                let state = self.wait_for(id).expect("it runs");
                let (index, checksum) = state.split_once(' ').expect("an index and a checksum");
                let all = told.entry(index.to_owned()).or_default();
                all[member] = Some(checksum.to_owned());
                let mut known = all.iter().flatten();
                assert!(known.all(|it| it == checksum), "states differ at {index}: {all:?}");
                if all.iter().all(Option::is_some) {
                    return;
                }
            }
            assert!(since.elapsed() < PATIENCE, "never at the same index: {told:?}");
        }
    }

    fn check(&mut self) -> (usize, usize) {
        self.compare_states();
        let trees: Vec<_> = (0..3).map(|it| self.tree(it)).collect();
        assert!(trees[0] == trees[1] && trees[1] == trees[2], "the members' states differ");
        let mut seen: BTreeMap<u64, &String> = BTreeMap::new();
        for (path, node) in &trees[0] {
            let write = node.split(' ').next().and_then(|it| it.parse().ok()).expect("a number");
            let before = seen.insert(write, path);
            assert_eq!(before, None, "write {write} was done twice, the second time as {path}");
        }
        for (write, fate) in &self.writes {
            let found = seen.remove(write);
            match fate {
                Fate::Acknowledged(path) => assert_eq!(found, Some(path), "write {write}"),
                Fate::Refused => assert_eq!(found, None, "write {write} was refused"),
                Fate::Unknown => {}
            }
        }
        assert!(seen.is_empty(), "nobody asked for {seen:?}");
        let grows = self.tokens.windows(2).all(|it| it[0] < it[1]);
        assert!(grows, "fencing tokens grow: {:?}", self.tokens);
        let unknown = self.writes.values().filter(|it| **it == Fate::Unknown).count();
        (self.acked, unknown)
    }

    /// The nodes below `/w` as a member shows them, its reads behind a barrier.
    fn tree(&mut self, member: usize) -> BTreeMap<String, String> {
        let names = self.insist(member, "ls /w");
        let mut nodes = BTreeMap::new();
        for page in names.split(' ').skip(1).collect::<Vec<_>>().chunks(1_000) {
            let get = |name: &&str| (format!("/w/{name}"), format!("get /w/{name}"));
            let asked: Vec<_> = page.iter().map(get).collect();
            let ids = asked.into_iter().map(|it| (self.ask(member, &it.1, Ask::Other), it.0));
            for (id, path) in ids.collect::<Vec<_>>() {
                let node = self.wait_for(id).expect("a listed node is there");
                nodes.insert(path, node);
            }
        }
        nodes
    }

    fn draw(&mut self, n: usize) -> usize {
        draw(&mut self.seed, n)
    }
}

const KILLS: usize = 20;
const WRITES: usize = 1_000;
const WINDOW: usize = 32;
