//! Three servers as processes of their own, so that what they cost is apart from the load.

use std::{
    error::Error,
    fs::{self, File},
    io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::crowd::Crowd;

/// What serves.
pub(crate) enum Software {
    /// This build of `examples/zookeeper_server`.
    Ours(PathBuf),
    /// Debian's ZooKeeper: the class path.
    Apache(String),
}

impl Software {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Ours(_) => "quorate",
            Self::Apache(_) => "apache",
        }
    }
}

/// Ours, built as the benchmark is, or the program that is given.
pub(crate) fn ours(given: Option<&Path>) -> Result<Software, Box<dyn Error>> {
    if let Some(program) = given {
        return Ok(Software::Ours(program.to_owned()));
    }
    // Beside the benchmark's own folder, which is `deps`.
    let own = std::env::current_exe()?;
    let profile = own.parent().and_then(Path::parent).ok_or("no target directory")?;
    let target = profile.parent().ok_or("no target directory")?;
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--features", "zookeeper,tcp"])
        .args(["--example", "zookeeper_server", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target)
        .status()?;
    match built.success() {
        true => Ok(Software::Ours(profile.join("examples/zookeeper_server"))),
        false => Err("the server cannot be built".into()),
    }
}

/// Apache's, where Java and Debian's packages are.
pub(crate) fn apache() -> Option<Software> {
    let java = Command::new("java").arg("-version").stderr(Stdio::null()).status();
    let jars = JARS.map(|jar| format!("/usr/share/java/{jar}.jar"));
    let there = java.is_ok_and(|it| it.success()) && jars.iter().all(|it| Path::new(it).exists());
    there.then(|| Software::Apache(jars.join(":")))
}

/// Three servers. Dropping it ends them.
pub(crate) struct Servers {
    name: &'static str,
    addresses: Vec<SocketAddr>,
    processes: Vec<Child>,
}

/// Processor time, of the servers and of this process.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cpu {
    pub(crate) servers: Duration,
    pub(crate) clients: Duration,
}

impl Cpu {
    pub(crate) fn since(self, before: Self) -> Self {
        let servers = self.servers.saturating_sub(before.servers);
        Self { servers, clients: self.clients.saturating_sub(before.clients) }
    }

    pub(crate) fn plus(self, more: Self) -> Self {
        Self { servers: self.servers + more.servers, clients: self.clients + more.clients }
    }
}

impl Servers {
    /// Starts them on free ports, and waits until each serves.
    pub(crate) fn start(software: &Software, dir: &Path) -> Result<Self, Box<dyn Error>> {
        let ports = free_ports()?;
        let address = |it: &[u16; 3]| SocketAddr::from(([127, 0, 0, 1], it[0]));
        let mut this = Self {
            name: software.name(),
            addresses: ports.iter().map(address).collect(),
            processes: Vec::new(),
        };
        for id in 1..=ports.len() {
            let dir = dir.join(id.to_string());
            fs::create_dir_all(&dir)?;
            let mut command = match software {
                Software::Ours(program) => our_command(program, &dir, id, &ports),
                Software::Apache(jars) => apache_command(jars, &dir, id, &ports)?,
            };
            let log = File::create(dir.join("log"))?;
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
            this.processes.push(command.spawn()?);
        }
        let start = Instant::now();
        while let Err(error) = Crowd::open(&this.addresses, SERVERS) {
            if start.elapsed() > STARTING_MAX {
                return Err(format!("{} does not serve: {error}", this.name).into());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(this)
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What all have cost so far, user and system.
    pub(crate) fn cpu(&self) -> io::Result<Cpu> {
        let mut servers = Duration::ZERO;
        for process in &self.processes {
            servers += cpu_of(&process.id().to_string())?;
        }
        Ok(Cpu { servers, clients: cpu_of("self")? })
    }

    /// Bytes of memory that a server holds, on average: of Apache's what lives on its heap, where
    /// the JDK's tools are there; else what is resident.
    pub(crate) fn memory_bytes(&self) -> Result<f64, Box<dyn Error>> {
        let mut bytes = 0.0;
        for process in &self.processes {
            let heap = (self.name == "apache").then(|| live_heap(process.id())).flatten();
            bytes += match heap {
                Some(heap) => heap,
                None => resident(process.id())?,
            };
        }
        Ok(bytes / self.processes.len() as f64)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn our_command(program: &Path, dir: &Path, id: usize, ports: &[[u16; 3]]) -> Command {
    let [client, peer, _] = ports[id - 1];
    let peers = ports.iter().enumerate().map(|(n, it)| format!("{}=127.0.0.1:{}", n + 1, it[1]));
    let mut command = Command::new(program);
    command
        .args(["--id", &id.to_string(), "--client", &format!("127.0.0.1:{client}")])
        .args(["--peer", &format!("127.0.0.1:{peer}")])
        .args(["--peers", &peers.collect::<Vec<_>>().join(","), "--data"])
        .arg(dir.join("data"));
    command
}

/// As the package starts it, but for room on the heap and for many connections from one host.
fn apache_command(jars: &str, dir: &Path, id: usize, ports: &[[u16; 3]]) -> io::Result<Command> {
    let data = dir.join("data");
    fs::create_dir_all(&data)?;
    fs::write(data.join("myid"), id.to_string())?;
    let client = ports[id - 1][0];
    let mut config = format!(
        "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir={}\nclientPort={client}\n\
         clientPortAddress=127.0.0.1\nmaxClientCnxns=0\nadmin.enableServer=false\n",
        data.display()
    );
    for (n, [_, peer, election]) in ports.iter().enumerate() {
        config += &format!("server.{}=127.0.0.1:{peer}:{election}\n", n + 1);
    }
    let path = dir.join("zoo.cfg");
    fs::write(&path, config)?;
    let mut command = Command::new("java");
    command
        .args(["-Xmx2g", "-Djava.net.preferIPv4Stack=true"])
        .args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", jars])
        .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
        .arg(path);
    Ok(command)
}

/// Three ports a server that nobody has now.
fn free_ports() -> io::Result<Vec<[u16; 3]>> {
    let bind = |_| TcpListener::bind(("127.0.0.1", 0));
    let held: Vec<TcpListener> = (0..SERVERS * 3).map(bind).collect::<io::Result<_>>()?;
    let ports = held.iter().map(|it| Ok(it.local_addr()?.port()));
    let ports: Vec<u16> = ports.collect::<io::Result<_>>()?;
    Ok(ports.chunks_exact(3).map(|it| [it[0], it[1], it[2]]).collect())
}

/// User and system time of a process, as Linux counts it: in hundredths of a second.
fn cpu_of(process: &str) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name stands in parentheses, and may hold anything.
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
    let ticks: u64 = fields.filter_map(|it| it.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

fn resident(process: u32) -> Result<f64, Box<dyn Error>> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024.0)
}

/// What lives on a JVM's heap: it collects its garbage first.
fn live_heap(process: u32) -> Option<f64> {
    let histogram = Command::new("jmap").args(["-histo:live", &process.to_string()]).output();
    let histogram = String::from_utf8(histogram.ok()?.stdout).ok()?;
    let total = histogram.lines().rev().find_map(|it| it.strip_prefix("Total"))?;
    total.split_whitespace().nth(1)?.parse().ok()
}

const SERVERS: usize = 3;
const STARTING_MAX: Duration = Duration::from_secs(30);
/// Of Debian's packages libzookeeper-java and what it depends on.
const JARS: [&str; 6] = [
    "zookeeper",
    "slf4j-simple",
    "netty-all",
    "netty-codec",
    "netty-resolver",
    "netty-transport-native-unix-common",
];
