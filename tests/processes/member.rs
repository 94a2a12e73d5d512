//! One member in a process of its own.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::Sender,
    thread,
    time::{Duration, SystemTime},
};

/// What a member said: which one, in which life, and the line; an empty one when its pipe closes.
pub(crate) struct Said {
    pub(crate) member: usize,
    pub(crate) life: u64,
    pub(crate) line: String,
}

/// A running process; dropping it kills it.
pub(crate) struct Process {
    pub(crate) child: Child,
    stdin: ChildStdin,
    /// Tells the lines of this process from those of one before it.
    pub(crate) life: u64,
}

/// How a process is started.
pub(crate) struct Start<'a> {
    pub(crate) executable: &'a Path,
    pub(crate) member: usize,
    pub(crate) life: u64,
    pub(crate) listen: &'a str,
    pub(crate) peers: &'a str,
    pub(crate) data: &'a Path,
    pub(crate) said: Sender<Said>,
}

impl Process {
    pub(crate) fn start(start: Start<'_>) -> Self {
        let Start { executable, member, life, listen, peers, data, said } = start;
        let id = (member + 1).to_string();
        let mut child = Command::new(executable)
            .args(["--id", &id, "--listen", listen, "--peers", peers])
            .arg("--data")
            .arg(data.join(&id))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the member starts");
        let stdin = child.stdin.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if said.send(Said { member, life, line }).is_err() {
                    break;
                }
            }
            let _ = said.send(Said { member, life, line: String::new() });
        });
        Self { child, stdin, life }
    }

    pub(crate) fn ask(&mut self, id: u64, what: &str) -> io::Result<()> {
        writeln!(self.stdin, "#{id} {what}")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its own child, which may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Splits a line into the id of the request and its answer.
pub(crate) fn answer(line: &str) -> (u64, Result<String, String>) {
    let (id, rest) = line.split_once(' ').expect("an id and an answer");
    let id = id.strip_prefix('#').and_then(|it| it.parse().ok()).expect("an id");
    match rest.split_once(' ').expect("a kind and a text") {
        ("ok", text) => (id, Ok(text.to_owned())),
        (_, why) => (id, Err(why.to_owned())),
    }
}

/// Free addresses on the loopback.
pub(crate) fn addresses() -> Vec<String> {
    let held = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let address = |it: &TcpListener| it.local_addr().expect("bound").to_string();
    held.iter().map(address).collect()
}

/// Of this run: given, or drawn from the time.
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("QUORATE_SEED").ok().and_then(|it| it.parse().ok());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seed = seed.unwrap_or_else(|| now.expect("after 1970").as_nanos() as u64);
    println!("seed {seed}");
    seed | 1
}

pub(crate) fn draw(seed: &mut u64, n: usize) -> usize {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    (*seed % n as u64) as usize
}

/// The example as its sources are now: a run of this test alone builds no example, and what an
/// older run left behind would be another program.
pub(crate) fn executable() -> PathBuf {
    let own = std::env::current_exe().expect("a running test has a path");
    let folder = own.parent().and_then(Path::parent).and_then(Path::file_name);
    // What `cargo test` builds it with, so that nothing is built twice.
    let profile = match folder.and_then(|it| it.to_str()).expect("target/debug/deps/test") {
        "debug" => "test",
        other => other,
    };
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target/tmp");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--example", "member", "--all-features", "--profile", profile])
        .args(["--message-format", "json-render-diagnostics", "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo runs");
    assert!(built.status.success(), "the example is not built: {}", built.status);
    let messages = String::from_utf8(built.stdout).expect("cargo speaks UTF-8");
    let path = messages.split("\"executable\":\"").nth(1).and_then(|it| it.split('"').next());
    // The text is JSON: a separator of Windows stands there twice.
    PathBuf::from(path.expect("an example is executable").replace("\\\\", "\\"))
}

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
