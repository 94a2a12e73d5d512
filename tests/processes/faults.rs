//! Members are stopped (SIGSTOP) and continued, killed (SIGKILL), and cut off from each other,
//! while clients write, read and lock: their histories are those of one tree, and a holder that was
//! stopped for longer than its session lives writes nothing any more.
//!
//! `QUORATE_ROUNDS=100 cargo test --all-features --test processes stopped` does so for longer.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::mpsc::{Receiver, Sender, channel},
    time::{Duration, Instant},
};

use quorate::{
    Zxid,
    sim::check::{Linear, Locks, Operation, Seen},
};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    member::{PATIENCE, Process, Said, Start, addresses, answer, draw, executable, seed},
    proxy::{Link, Wire},
};

#[test]
fn histories_are_right_while_processes_are_stopped_killed_and_cut_off() {
    let rounds = std::env::var("QUORATE_ROUNDS").ok().and_then(|it| it.parse().ok());
    let (started, rounds) = (Instant::now(), rounds.unwrap_or(FAULTS.len()));
    let mut world = World::start(seed());
    let mut order = FAULTS;
    for round in 0..rounds {
        if round % FAULTS.len() == 0 {
            for at in (1..order.len()).rev() {
                let other = world.draw(at + 1);
                order.swap(at, other);
            }
        }
        world.progress(30);
        let fault = order[round % FAULTS.len()];
        let member = world.befall(fault);
        println!("{round}: {fault:?} of node {} after {:.1?}", member + 1, started.elapsed());
    }
    world.progress(100);
    world.finish();
    world.compare_states();
    let undecided = world.linear.check().expect("an order that explains every answer");
    world.locks.check().expect("no write of a holder after that of a later one");
    let (answered, held) = (world.linear.answered(), world.tokens.len());
    println!(
        "{rounds} faults; {answered} answers, {held} holders, {} fenced writes, {} refused, \
         {undecided} of {REGISTERS} registers undecided; {:.1?}",
        world.fenced,
        world.stale,
        started.elapsed()
    );
    assert_eq!(undecided, 0, "the histories are short enough to be decided");
    assert!(answered > 100 * rounds.min(10) && held > rounds.min(10) && world.fenced > 0);
}

/// What befalls a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// The holder of the lock is stopped until another one has it.
    StoppedHolder,
    StoppedLeader,
    Killed,
    /// Nothing goes to it, or comes from it.
    CutOff,
    /// Others do not hear it.
    Mute,
    /// It does not hear others.
    Deaf,
    /// What it sends and is sent arrives late, all at once.
    Held,
}

const FAULTS: [Fault; 7] = [
    Fault::StoppedHolder,
    Fault::StoppedLeader,
    Fault::Killed,
    Fault::CutOff,
    Fault::Mute,
    Fault::Deaf,
    Fault::Held,
];

struct World {
    seed: u64,
    /// Before their data: whoever loses it says so.
    seats: Vec<Seat>,
    executable: PathBuf,
    data: tempfile::TempDir,
    addresses: Vec<String>,
    /// From each member to each other one; none to itself.
    links: Vec<Vec<Option<Link>>>,
    lines: Receiver<Said>,
    sender: Sender<Said>,
    next: u64,
    asked: BTreeMap<u64, (usize, Ask)>,
    answers: BTreeMap<u64, Result<String, String>>,
    linear: Linear,
    /// The version that a register was seen with last.
    versions: [u64; REGISTERS],
    locks: Locks,
    tokens: BTreeSet<u64>,
    fenced: u64,
    stale: u64,
    /// How many answers came from members that are not disturbed.
    answered: usize,
}

/// A member, its process, and what its client is about.
struct Seat {
    process: Option<Process>,
    stopped: bool,
    /// Before then it is left alone: it refused something.
    rests: Instant,
    lock: Lock,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lock {
    Idle,
    Asked,
    /// By this token.
    Held(u64),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ask {
    /// On a register: what it is called in the history.
    Register(usize, usize, Operation),
    Lock,
    /// A write that takes effect only while the lock is held by this token.
    Fenced(u64),
    /// A fenced write of a holder that lost the lock while it was stopped.
    Stale,
    Other,
}

impl World {
    fn start(seed: u64) -> Self {
        let addresses = addresses();
        let link = |from, to: usize| (from != to).then(|| Link::to(&addresses[to]));
        let links = (0..3).map(|from| (0..3).map(|to| link(from, to)).collect()).collect();
        let (sender, lines) = channel();
        let seat =
            |_| Seat { process: None, stopped: false, rests: Instant::now(), lock: Lock::Idle };
        let mut world = Self {
            seed,
            executable: executable(),
            data: tempfile::tempdir().expect("a directory"),
            links,
            seats: (0..3).map(seat).collect(),
            addresses,
            lines,
            sender,
            next: 1,
            asked: BTreeMap::new(),
            answers: BTreeMap::new(),
            linear: Linear::new(),
            versions: [0; REGISTERS],
            locks: Locks::new(),
            tokens: BTreeSet::new(),
            fenced: 0,
            stale: 0,
            answered: 0,
        };
        (0..3).for_each(|it| world.spawn(it));
        for path in ["create /r root", "create /f none"] {
            world.insist(0, path);
        }
        world
    }

    fn spawn(&mut self, member: usize) {
        let peer = |to: usize| match &self.links[member][to] {
            Some(link) => format!("{}={}", to + 1, link.address),
            None => format!("{}={}", to + 1, self.addresses[to]),
        };
        let peers: Vec<String> = (0..3).map(peer).collect();
        self.next += 1;
        let process = Process::start(Start {
            executable: &self.executable,
            member,
            life: self.next,
            listen: &self.addresses[member],
            peers: &peers.join(","),
            data: self.data.path(),
            said: self.sender.clone(),
        });
        let seat = &mut self.seats[member];
        (seat.process, seat.lock, seat.rests) = (Some(process), Lock::Idle, Instant::now());
    }

    /// Something befalls a member for a while, and then it is well again.
    fn befall(&mut self, fault: Fault) -> usize {
        let member = match fault {
            Fault::StoppedHolder => self.holder(),
            Fault::StoppedLeader => self.leader(),
            Fault::Killed | Fault::CutOff if self.draw(2) == 0 => self.leader(),
            _ => self.draw(3),
        };
        // Longer than an election takes, and now and then than a session lives.
        let while_it_lasts = Duration::from_millis(800 + self.draw(2_000) as u64);
        match fault {
            Fault::StoppedHolder => self.stop_holder(member),
            Fault::StoppedLeader => {
                self.signal(member, Signal::STOP);
                self.drive_for(while_it_lasts);
                self.signal(member, Signal::CONT);
            }
            Fault::Killed => {
                self.kill(member);
                self.drive_for(while_it_lasts / 4);
                self.spawn(member);
            }
            Fault::CutOff | Fault::Mute | Fault::Deaf | Fault::Held => {
                let wire = if fault == Fault::Held { Wire::Held } else { Wire::Cut };
                let (from, to) = (fault != Fault::Deaf, fault != Fault::Mute);
                self.set_links(member, wire, (from, to));
                self.drive_for(while_it_lasts);
                self.set_links(member, Wire::Open, (true, true));
            }
        }
        member
    }

    fn set_links(&mut self, member: usize, wire: Wire, (from, to): (bool, bool)) {
        for other in 0..3 {
            let sends = self.links[member][other].as_ref().filter(|_| from);
            let hears = self.links[other][member].as_ref().filter(|_| to);
            sends.into_iter().chain(hears).for_each(|link| link.set(wire));
        }
    }

    /// A holder is stopped; once another one holds the lock, it goes on and finds a fenced write
    /// to do, by the token that it had.
    fn stop_holder(&mut self, member: usize) {
        let Lock::Held(token) = self.seats[member].lock else {
            panic!("it was found to hold the lock");
        };
        self.signal(member, Signal::STOP);
        let since = Instant::now();
        while self.tokens.last() == Some(&token) {
            self.step();
            assert!(since.elapsed() < PATIENCE, "nobody gets the lock of a stopped holder");
        }
        let id = self.ask(member, "fenced /f {} /lock", Ask::Stale);
        self.signal(member, Signal::CONT);
        let refused = self.wait_for(id).expect_err("its lock is another's");
        println!("the stopped holder is told: {refused}");
        self.stale += 1;
        let now = self.insist(member, "get /f");
        let data = now.split(' ').next().expect("data");
        assert_ne!(data, id.to_string(), "a stale holder has written: {now}");
    }

    fn signal(&mut self, member: usize, signal: Signal) {
        let seat = &mut self.seats[member];
        let process = seat.process.as_ref().expect("alive");
        kill_process(Pid::from_child(&process.child), signal).expect("its own child");
        seat.stopped = signal == Signal::STOP;
    }

    /// What it had answered before it died still counts; nobody knows what became of the rest.
    fn kill(&mut self, member: usize) {
        let mut dead = self.seats[member].process.take().expect("alive");
        dead.child.kill().expect("its own child");
        dead.child.wait().expect("its own child");
        loop {
            let said = self.lines.recv_timeout(PATIENCE).expect("its pipe closes");
            if said.member == member && said.line.is_empty() {
                assert_eq!(said.life, dead.life, "no other process of it ended");
                break;
            }
            self.hear(&said);
        }
        self.asked.retain(|_, it| it.0 != member);
    }

    fn ask(&mut self, member: usize, what: &str, ask: Ask) -> u64 {
        let id = self.next;
        self.next += 1;
        let process = self.seats[member].process.as_mut().expect("alive");
        let asked = process.ask(id, &what.replace("{}", &id.to_string()));
        asked.expect("a process takes requests");
        self.asked.insert(id, (member, ask));
        id
    }

    fn hear(&mut self, said: &Said) {
        let member = said.member;
        assert!(!said.line.is_empty(), "node {} ended by itself", member + 1);
        let (id, result) = answer(&said.line);
        let (_, ask) = self.asked.remove(&id).expect("it was asked");
        if result.is_err() {
            self.seats[member].rests = Instant::now() + Duration::from_millis(30);
        }
        self.answered += usize::from(result.is_ok());
        match (ask, result) {
            (Ask::Register(entry, register, operation), result) => {
                self.hear_of_register(entry, register, operation, &result);
            }
            (Ask::Lock, Ok(text)) => {
                let token = number(&text, "token=");
                assert!(self.tokens.insert(token), "two holders by one token, {token}");
                self.seats[member].lock = Lock::Held(token);
            }
            (Ask::Lock, Err(_)) => self.seats[member].lock = Lock::Idle,
            (Ask::Fenced(token), Ok(text)) => {
                self.locks.wrote(Zxid::new(number(&text, "zxid=")), Zxid::new(token));
                self.fenced += 1;
            }
            (Ask::Fenced(_), Err(_)) => {}
            (Ask::Stale | Ask::Other, result) => {
                self.answers.insert(id, result);
            }
        }
    }

    fn hear_of_register(
        &mut self,
        entry: usize,
        register: usize,
        operation: Operation,
        result: &Result<String, String>,
    ) {
        let seen = match (operation, result) {
            (Operation::Read, Ok(text)) => {
                let data = text.split(' ').next().and_then(|it| it.parse().ok());
                Some(Seen::Found(data.expect("a number"), number(text, "version=")))
            }
            (Operation::Set { .. }, Ok(text)) => Some(Seen::Set(number(text, "version="))),
            (_, Ok(_)) => Some(Seen::Done),
            (_, Err(why)) if why.starts_with("unknown") => Some(Seen::Unknown),
            (_, Err(why)) if why.contains("no node") => Some(Seen::NoNode),
            (_, Err(why)) if why.contains("is at version") => Some(Seen::BadVersion),
            (_, Err(why)) if why.contains("exists") => Some(Seen::NodeExists),
            (_, Err(_)) => None,
        };
        if let Some(Seen::Found(_, version) | Seen::Set(version)) = seen {
            self.versions[register] = version;
        }
        match seen {
            Some(seen) => self.linear.end(entry, seen),
            None => self.linear.refused(entry),
        }
    }

    /// Keeps something under way at each member that goes on, and takes what was answered.
    fn step(&mut self) {
        for member in 0..3 {
            let seat = &self.seats[member];
            if seat.process.is_none() || seat.stopped || seat.rests > Instant::now() {
                continue;
            }
            let (lock, moves) = (seat.lock, self.draw(8) == 0);
            match lock {
                Lock::Idle => {
                    self.seats[member].lock = Lock::Asked;
                    self.ask(member, "lock /lock", Ask::Lock);
                }
                // It holds for a while, so that some are stopped while they hold.
                Lock::Held(token) if moves => {
                    if self.draw(2) == 0 {
                        self.ask(member, "fenced /f {} /lock", Ask::Fenced(token));
                    } else {
                        self.seats[member].lock = Lock::Idle;
                        self.ask(member, "unlock /lock", Ask::Other);
                    }
                }
                Lock::Held(_) | Lock::Asked => {}
            }
            let busy = |it: &&(usize, Ask)| it.0 == member && matches!(it.1, Ask::Register(..));
            if self.asked.values().filter(busy).count() < WINDOW {
                self.use_register(member);
            }
        }
        self.listen();
    }

    fn use_register(&mut self, member: usize) {
        let (register, value) = (self.draw(REGISTERS), self.next);
        let expected = (self.draw(2) == 0).then_some(self.versions[register]);
        let version = expected.map_or(String::new(), |it| it.to_string());
        let (operation, what) = match self.draw(20) {
            0..9 => (Operation::Read, format!("get /r/{register}")),
            9..15 => {
                (Operation::Set { value, expected }, format!("set /r/{register} {value} {version}"))
            }
            15..18 => (Operation::Create { value }, format!("create /r/{register} {value}")),
            _ => (Operation::Delete { expected }, format!("delete /r/{register} {version}")),
        };
        let entry = self.linear.begin(register as u64, operation);
        self.ask(member, &what, Ask::Register(entry, register, operation));
    }

    fn listen(&mut self) {
        if let Ok(said) = self.lines.recv_timeout(Duration::from_millis(5)) {
            self.hear(&said);
            while let Ok(said) = self.lines.try_recv() {
                self.hear(&said);
            }
        }
    }

    /// Until so much more was done.
    fn progress(&mut self, answers: usize) {
        let (target, since) = (self.answered + answers, Instant::now());
        while self.answered < target {
            self.pace();
            assert!(since.elapsed() < PATIENCE, "no progress: {:?}", self.asked);
        }
    }

    fn drive_for(&mut self, time: Duration) {
        let since = Instant::now();
        while since.elapsed() < time {
            self.pace();
        }
    }

    /// Not as fast as it goes: a history has to be decided, too.
    fn pace(&mut self) {
        self.step();
        std::thread::sleep(Duration::from_millis(2));
    }

    /// Who holds the lock.
    fn holder(&mut self) -> usize {
        let since = Instant::now();
        loop {
            let last = self.tokens.last().copied();
            let holds = |seat: &Seat| last.is_some_and(|it| seat.lock == Lock::Held(it));
            if let Some(member) = self.seats.iter().position(holds) {
                return member;
            }
            self.step();
            assert!(since.elapsed() < PATIENCE, "nobody gets the lock");
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
            assert!(since.elapsed() < PATIENCE, "nobody leads");
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
                Err(why) if why.contains("exists") => return why,
                Err(why) => assert!(since.elapsed() < PATIENCE, "{what}: {why}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Until everything that was asked is answered.
    fn finish(&mut self) {
        let since = Instant::now();
        while !self.asked.is_empty() {
            // Whoever waits for the lock gets it only when the others let go.
            for member in 0..3 {
                if let Lock::Held(_) = self.seats[member].lock {
                    self.seats[member].lock = Lock::Idle;
                    self.ask(member, "unlock /lock", Ask::Other);
                }
            }
            self.listen();
            assert!(since.elapsed() < PATIENCE, "not answered: {:?}", self.asked);
        }
        self.answers.clear();
    }

    /// All have the same state once they have applied the same entry.
    fn compare_states(&mut self) {
        let since = Instant::now();
        let mut told: BTreeMap<String, [Option<String>; 3]> = BTreeMap::new();
        loop {
            for member in 0..3 {
                let state = self.insist(member, "checksum");
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

    fn draw(&mut self, n: usize) -> usize {
        draw(&mut self.seed, n)
    }
}

/// The number behind a name in an answer.
fn number(text: &str, name: &str) -> u64 {
    let word = text.split(' ').find_map(|word| word.strip_prefix(name));
    word.and_then(|it| it.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text:?}"))
}

const REGISTERS: usize = 6;
/// Requests for registers that are under way at each member.
const WINDOW: usize = 2;
