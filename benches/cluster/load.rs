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

use crate::{Cluster, KEYS, VALUE_BYTES, machine, table, table::Row};

/// The keys that are written and read.
pub(crate) fn paths() -> Vec<Path> {
    let paths = (0..KEYS).map(|n| Path::new(&format!("/key-{n:05}")));
    paths.collect::<Result<_, _>>().expect("valid paths")
}

/// What the threads of one scenario share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    measuring: AtomicBool,
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

/// One caller: a window of requests, answered in order.
struct Caller<T, F> {
    submit: F,
    window: VecDeque<(Completion<T>, Instant)>,
    max: usize,
}

impl<T, F: FnMut(usize) -> Completion<T>> Caller<T, F> {
    /// Fills the window, then waits for the oldest answer and takes all that are there.
    fn turn(&mut self, draw: &mut Draw, samples: &mut Vec<u64>) -> Result<u64, Error> {
        while self.window.len() < self.max {
            self.window
                .push_back(((self.submit)(draw.key()), Instant::now()));
        }
        let mut taken = 0;
        while let Some((completion, _)) = self.window.front() {
            if taken > 0 && !completion.is_done() {
                break;
            }
            let Some((completion, start)) = self.window.pop_front() else {
                break;
            };
            completion.wait()?;
            samples.push(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
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
    let paths = Arc::new(paths());
    let mut callers: Vec<Vec<_>> = (0..threads).map(|_| Vec::new()).collect();
    for n in 0..sessions {
        let member = if sessions == 1 { cluster.leader } else { n % 3 };
        let session = cluster
            .client(member)
            .open_session(Duration::from_secs(60))
            .wait()?;
        let (paths, value) = (paths.clone(), bytes::Bytes::from(vec![9; VALUE_BYTES]));
        let submit = move |key: usize| session.set(&paths[key], value.clone(), None);
        let max = count / sessions;
        callers[n % threads].push(Caller {
            submit,
            window: VecDeque::new(),
            max,
        });
    }
    measure("write", callers, count, time, on_disk)
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
    let paths = Arc::new(paths());
    let mut callers: Vec<Vec<_>> = (0..threads).map(|_| Vec::new()).collect();
    for n in 0..handles {
        let member = if handles == 1 { cluster.leader } else { n % 3 };
        let (client, paths) = (cluster.client(member), paths.clone());
        let submit = move |key: usize| client.get(&paths[key], Consistency::Linearizable);
        let max = count.div_ceil(handles);
        callers[n % threads].push(Caller {
            submit,
            window: VecDeque::new(),
            max,
        });
    }
    measure("linearizable_read", callers, count, time, on_disk)
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
                let (data, _) = view
                    .read(&paths[draw.key()])
                    .expect("every key was written");
                assert_eq!(data.len(), VALUE_BYTES);
            }
            state.done.fetch_add(64, Ordering::Relaxed);
        }
        Ok(())
    };
    let reader = thread::Builder::new()
        .name("client-reader".into())
        .spawn(body)?;
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
                window
                    .pop_front()
                    .map_or(Ok(()), |it| it.wait().map(drop))?;
            }
            due += Duration::from_millis(5);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        window.into_iter().try_for_each(|it| it.wait().map(drop))
    };
    thread::Builder::new()
        .name("client-writer".into())
        .spawn(body)
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
        shared.measuring.store(true, Ordering::Relaxed);
        thread::sleep(time);
        shared.measuring.store(false, Ordering::Relaxed);
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
            p50_us: table::percentile(samples, 0.5),
            p99_us: table::percentile(samples, 0.99),
            cpu_us_per_op: per_op(self.nodes),
            client_cpu_us_per_op: per_op(self.clients),
            ratio: None,
            ratio_to: "",
        }
    }
}

/// Runs the callers, each vector on a thread of its own, and measures them when they are warm.
fn measure<T, F>(
    scenario: &'static str,
    callers: Vec<Vec<Caller<T, F>>>,
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
    for (n, mut callers) in callers.into_iter().enumerate() {
        let shared = shared.clone();
        let body = move || -> Result<Vec<u64>, Error> {
            let (mut draw, mut samples) = (Draw(n as u64 + 1), Vec::new());
            while !shared.stop.load(Ordering::Relaxed) {
                for caller in &mut callers {
                    let taken = caller.turn(&mut draw, &mut samples)?;
                    shared.done.fetch_add(taken, Ordering::Relaxed);
                }
                if !shared.measuring.load(Ordering::Relaxed) && samples.len() > 1 << 20 {
                    samples.clear();
                }
            }
            for caller in callers {
                caller
                    .window
                    .into_iter()
                    .try_for_each(|(it, _)| it.wait().map(drop))?;
            }
            Ok(samples)
        };
        threads.push(
            thread::Builder::new()
                .name(format!("client-{n}"))
                .spawn(body)?,
        );
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
