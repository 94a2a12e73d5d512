//! Clients that keep a window of requests under way.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use quorate::{
    Path,
    client::{Client, Completion, Error},
    node::Consistency,
};

use crate::{Cluster, KEYS, VALUE_BYTES, machine, measure, table::Row};

/// The keys that are written and read.
pub(crate) fn paths() -> Vec<Path> {
    let paths = (0..KEYS).map(|n| Path::new(&format!("/key-{n:05}")));
    paths.collect::<Result<_, _>>().expect("valid paths")
}

/// What the threads of one scenario share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// From here on it is measured.
    warm: AtomicBool,
    done: AtomicU64,
}

struct Draw(u64);

impl Draw {
    fn key(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % KEYS as u64) as usize
    }
}

/// One thread's callers, each with so many requests under way.
struct Window<T, F> {
    callers: Vec<Caller<T, F>>,
    each: usize,
}

/// A session, or a handle, and its requests that are under way, oldest first.
struct Caller<T, F> {
    submit: F,
    under_way: VecDeque<(Completion<T>, Instant)>,
}

impl<T, F: FnMut(usize) -> Completion<T>> Caller<T, F> {
    fn submit(&mut self, draw: &mut Draw) {
        let start = Instant::now();
        self.under_way.push_back(((self.submit)(draw.key()), start));
    }

    /// Waits for the oldest answer, and asks again.
    fn turn(&mut self, draw: &mut Draw, samples: &mut Vec<u64>) -> Result<(), Error> {
        if let Some((completion, start)) = self.under_way.pop_front() {
            completion.wait()?;
            samples.push(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
            self.submit(draw);
        }
        Ok(())
    }
}

impl<T, F: FnMut(usize) -> Completion<T>> Window<T, F> {
    fn new(each: usize) -> Self {
        Self { callers: Vec::new(), each }
    }

    fn add(&mut self, submit: F) {
        self.callers.push(Caller { submit, under_way: VecDeque::new() });
    }

    /// Takes the answers that are there, and asks again for each; waits for one if there is none.
    fn turn(&mut self, draw: &mut Draw, samples: &mut Vec<u64>) -> Result<u64, Error> {
        let mut taken = 0;
        for caller in &mut self.callers {
            while caller.under_way.len() < self.each {
                caller.submit(draw);
            }
            let done = caller.under_way.iter().take_while(|(it, _)| it.is_done()).count();
            (0..done).try_for_each(|_| caller.turn(draw, samples))?;
            taken += done as u64;
        }
        let since = |it: &&mut Caller<T, F>| it.under_way.front().map(|(_, start)| *start);
        if let Some(oldest) = self.callers.iter_mut().min_by_key(since).filter(|_| taken == 0) {
            oldest.turn(draw, samples)?;
            taken += 1;
        }
        Ok(taken)
    }
}

/// Writes of `count` in flight: one session on the leader, or 64 sessions over all members.
pub(crate) fn writes(
    cluster: &Cluster,
    count: usize,
    time: Duration,
    on_disk: bool,
) -> Result<Row, Box<dyn std::error::Error>> {
    let sessions = if count == 1 { 1 } else { 64 };
    let threads = sessions.min(2);
    let each = count / sessions;
    let paths = Arc::new(paths());
    let mut windows: Vec<_> = (0..threads).map(|_| Window::new(each)).collect();
    for n in 0..sessions {
        let member = if sessions == 1 { cluster.leader } else { n % 3 };
        let session = cluster.client(member).open_session(Duration::from_secs(60)).wait()?;
        let (paths, value) = (paths.clone(), bytes::Bytes::from(vec![9; VALUE_BYTES]));
        windows[n % threads].add(move |key| session.set(&paths[key], value.clone(), None));
    }
    measure("write", windows, count, time, on_disk)
}

/// Linearizable reads of `count` in flight, over all members.
pub(crate) fn linearizable_reads(
    cluster: &Cluster,
    count: usize,
    time: Duration,
    on_disk: bool,
) -> Result<Row, Box<dyn std::error::Error>> {
    let handles = if count == 1 { 1 } else { 6 };
    let threads = handles.min(2);
    let each = count.div_ceil(handles);
    let paths = Arc::new(paths());
    let mut windows: Vec<_> = (0..threads).map(|_| Window::new(each)).collect();
    for n in 0..handles {
        let member = if handles == 1 { cluster.leader } else { n % 3 };
        let (client, paths) = (cluster.client(member), paths.clone());
        windows[n % threads].add(move |key| client.get(&paths[key], Consistency::Linearizable));
    }
    measure("linearizable_read", windows, count, time, on_disk)
}

/// One thread reads from views that are at most one turn old, while 10,000 writes/s run.
pub(crate) fn local_reads(
    cluster: &Cluster,
    time: Duration,
    on_disk: bool,
) -> Result<Row, Box<dyn std::error::Error>> {
    let shared = Arc::new(Shared::default());
    let writer = spawn_paced_writer(cluster.client(cluster.leader), shared.clone())?;
    let client = cluster.client(cluster.leader);
    let (paths, state) = (paths(), shared.clone());
    let body = move || -> Result<(), Error> {
        let mut draw = Draw(77);
        while !state.stop.load(Ordering::Relaxed) {
            for _ in 0..64 {
                let view = client.view().wait()?;
                let (data, _) = view.read(&paths[draw.key()]).expect("every key was written");
                assert_eq!(data.len(), VALUE_BYTES);
            }
            state.done.fetch_add(64, Ordering::Relaxed);
        }
        Ok(())
    };
    let reader = thread::Builder::new().name("client-reader".into()).spawn(body)?;
    thread::sleep(time / 4);
    let measured = Measured::during(&shared, time);
    shared.stop.store(true, Ordering::Relaxed);
    reader.join().map_err(|_| "a reader panicked")??;
    writer.join().map_err(|_| "the writer panicked")??;
    Ok(measured.row("local_read", 1, on_disk, &mut []))
}

fn spawn_paced_writer(
    client: Client,
    shared: Arc<Shared>,
) -> std::io::Result<thread::JoinHandle<Result<(), Error>>> {
    let body = move || {
        let (paths, mut draw) = (paths(), Draw(5));
        let mut due = Instant::now();
        let mut window: VecDeque<Completion<_>> = VecDeque::new();
        while !shared.stop.load(Ordering::Relaxed) {
            for _ in 0..50 {
                window.push_back(client.set(&paths[draw.key()], vec![1; VALUE_BYTES], None));
            }
            while window.len() > 500 {
                window.pop_front().map_or(Ok(()), |it| it.wait().map(drop))?;
            }
            due += Duration::from_millis(5);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        window.into_iter().try_for_each(|it| it.wait().map(drop))
    };
    thread::Builder::new().name("client-writer".into()).spawn(body)
}

/// What was counted while it was measured.
struct Measured {
    done: u64,
    elapsed: Duration,
    nodes: Duration,
    clients: Duration,
}

impl Measured {
    fn during(shared: &Shared, time: Duration) -> Self {
        let cpu = || (machine::cpu_of("quorate-"), machine::cpu_of("client-"));
        let before = (cpu(), shared.done.load(Ordering::Relaxed), Instant::now());
        shared.warm.store(true, Ordering::Relaxed);
        thread::sleep(time);
        let ((nodes, clients), done) = (cpu(), shared.done.load(Ordering::Relaxed));
        Self {
            done: done - before.1,
            elapsed: before.2.elapsed(),
            nodes: nodes.saturating_sub(before.0.0),
            clients: clients.saturating_sub(before.0.1),
        }
    }

    fn row(
        &self,
        scenario: &'static str,
        in_flight: usize,
        on_disk: bool,
        samples: &mut [u64],
    ) -> Row {
        let per_op = |cpu: Duration| cpu.as_secs_f64() * 1e6 / self.done.max(1) as f64;
        Row {
            scenario,
            storage: if on_disk { "wal" } else { "memory" },
            in_flight,
            ops_per_s: self.done as f64 / self.elapsed.as_secs_f64(),
            p50_us: measure::percentile(samples, 0.5),
            p99_us: measure::percentile(samples, 0.99),
            cpu_us_per_op: per_op(self.nodes),
            client_cpu_us_per_op: per_op(self.clients),
            ratio: None,
            ratio_to: "",
        }
    }
}

/// Runs the windows, each on a thread of its own, and measures them when they are warm.
fn measure<T, F>(
    scenario: &'static str,
    windows: Vec<Window<T, F>>,
    in_flight: usize,
    time: Duration,
    on_disk: bool,
) -> Result<Row, Box<dyn std::error::Error>>
where
    T: Send + 'static,
    F: FnMut(usize) -> Completion<T> + Send + 'static,
{
    let shared = Arc::new(Shared::default());
    let mut threads = Vec::new();
    for (n, mut window) in windows.into_iter().enumerate() {
        let shared = shared.clone();
        let body = move || -> Result<Vec<u64>, Error> {
            let (mut draw, mut samples) = (Draw(n as u64 + 1), Vec::new());
            while !shared.stop.load(Ordering::Relaxed) {
                let taken = window.turn(&mut draw, &mut samples)?;
                shared.done.fetch_add(taken, Ordering::Relaxed);
                if !shared.warm.load(Ordering::Relaxed) {
                    samples.clear();
                }
            }
            let under_way = window.callers.into_iter().flat_map(|it| it.under_way);
            under_way.map(|(it, _)| it).try_for_each(|it| it.wait().map(drop))?;
            Ok(samples)
        };
        threads.push(thread::Builder::new().name(format!("client-{n}")).spawn(body)?);
    }
    thread::sleep(time / 4);
    let measured = Measured::during(&shared, time);
    shared.stop.store(true, Ordering::Relaxed);
    let mut samples = Vec::new();
    for thread in threads {
        samples.extend(thread.join().map_err(|_| "a client panicked")??);
    }
    Ok(measured.row(scenario, in_flight, on_disk, &mut samples))
}
