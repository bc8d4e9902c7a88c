//! Running the real binary: with a deadline, in a folder of its own, and nothing left behind.

#![allow(dead_code, reason = "each test binary uses its own part of the harness")]

pub mod between;
pub mod place;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// No run of these tests takes longer, on a machine that is shared and slow.
pub const DEADLINE: Duration = Duration::from_secs(240);

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The binary under test with an environment that cannot change what it does.
pub fn strath() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strath"));
    for (name, _) in std::env::vars() {
        if name.starts_with("STRATH__") || name == "STRATH_CERTS" || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.env("RUST_BACKTRACE", "0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Writes a configuration to a folder: the digits with shared lanes, augmentation and momentum. `cluster`: more lines of that table.
pub fn digits_in_shared_lanes(folder: &Path, steps: u32, cluster: &str) -> PathBuf {
    let text = format!(
        r#"
[run]
name = "shared-lanes"
seed = 3
steps = {steps}
[data]
kind = "digits"
augment = ["crop:1", "flip", "cutout:2"]
[model]
kind = "convnet"
widths = [8, 8]
[batch]
size = 48
micro = 8
[sam]
rho = 0.05
m = 24
[optimizer]
kind = "sgd"
lr = 0.05
momentum = 0.9
[schedule]
kind = "cosine"
[checkpoint]
every_steps = 20
[cluster]
threads = 1
{cluster}"#
    );
    let path = folder.join("run.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// Waits for a child until the deadline, then kills it and fails.
pub fn finish(mut child: Child, deadline: Duration) -> Output {
    let begun = Instant::now();
    let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() };
        }
        if begun.elapsed() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            let said = String::from_utf8_lossy(&stderr.join().unwrap()).into_owned();
            panic!("not done after {deadline:?}; it said:\n{said}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn drain(pipe: Option<impl std::io::Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes).unwrap();
        }
        bytes
    })
}

/// Runs the binary to its end.
pub fn run(arguments: &[&str]) -> Output {
    finish(strath().args(arguments).spawn().unwrap(), DEADLINE)
}

/// What a run said on standard error.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Trains `config` into `out` and returns the summary.
pub fn train(config: &Path, out: &Path, more: &[&str]) -> serde_json::Value {
    let mut arguments = vec!["train", config.to_str().unwrap(), "--out", out.to_str().unwrap()];
    arguments.extend(more);
    let output = run(&arguments);
    assert!(output.status.success(), "{arguments:?} failed with {}: {}", output.status, stderr(&output));
    summary(out)
}

/// The summary of a finished run.
pub fn summary(out: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(out.join("summary.json")).unwrap()).unwrap()
}

/// A `strath coordinator` that has said where it listens.
pub struct Coordinator {
    /// The process.
    pub child: Child,
    /// Where it listens.
    pub address: String,
}

impl Coordinator {
    /// Starts it on the digits, on any port of loopback.
    pub fn start(out: &Path, more: &[&str]) -> Self {
        let config = repository().join("configs/digits.toml");
        let child = strath()
            .args(["coordinator", "--config", config.to_str().unwrap(), "--listen", "127.0.0.1:0"])
            .args(["--out", out.to_str().unwrap()])
            .args(more)
            .spawn()
            .unwrap();
        let address = Self::address_in(out);
        Self { child, address }
    }

    /// The address of the coordinator that runs in this folder, once it says so.
    pub fn address_in(out: &Path) -> String {
        let (begun, file) = (Instant::now(), out.join("coordinator.json"));
        loop {
            let told =
                std::fs::read(&file).ok().and_then(|told| serde_json::from_slice::<serde_json::Value>(&told).ok());
            if let Some(told) = told {
                return told["address"].as_str().unwrap().to_string();
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "no coordinator.json");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills it.
    pub fn end(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// An address of loopback where nobody listens, with a port that the system gives to nobody by itself: one of those that it does give out
/// may be another connection's own a moment later.
pub fn vacant() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let given_out: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
    let (lowest, of_this_process) = (1024, std::process::id() as u16);
    assert!(given_out > lowest + 1000, "the system gives out the ports from {given_out} on");
    let turns = (0..1000).map(|_| of_this_process.wrapping_mul(101).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)));
    let mut free = turns.map(|turn| SocketAddr::from(([127, 0, 0, 1], lowest + turn % (given_out - lowest))));
    free.find(|address| TcpListener::bind(address).is_ok()).unwrap()
}

/// `weights_sha256` of a summary.
pub fn sha(summary: &serde_json::Value) -> String {
    summary["weights_sha256"].as_str().unwrap().to_string()
}

/// The lines of `metrics.jsonl` of one kind, but for one that is being written.
pub fn metrics(out: &Path, kind: &str) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let lines = whole.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter(|line| line["kind"] == kind).collect()
}

/// The generations of a run, but for those that began only because speeds differed: on a machine that others use they may at any time.
pub fn memberships(out: &Path) -> Vec<serde_json::Value> {
    let only_moves =
        |line: &serde_json::Value| line["cause"].as_str().is_some_and(|cause| cause.starts_with("work follows speed"));
    metrics(out, "cluster").into_iter().filter(|line| !only_moves(line)).collect()
}

/// Waits until the run has completed `step` steps.
pub fn reach(out: &Path, step: usize) {
    let begun = Instant::now();
    loop {
        let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap_or_default();
        if text.lines().filter(|line| line.contains("\"kind\":\"step\"")).count() >= step {
            return;
        }
        assert!(begun.elapsed() < DEADLINE, "step {step} was not reached");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The worker processes of a `strath train`.
pub fn workers_of(parent: u32) -> Vec<u32> {
    let mut found: Vec<u32> = Vec::new();
    // A child belongs to the thread that started it.
    for task in std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Sends a signal.
pub fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

/// Sends a signal to several processes at once; one that has just ended needs none.
pub fn signal_all(pids: &[u32], name: &str) {
    let pids = pids.iter().map(ToString::to_string);
    Command::new("kill").arg(name).args(pids).stderr(Stdio::null()).status().unwrap();
}

/// Whether a process runs.
pub fn is_alive(pid: u32) -> bool {
    // A zombie has ended; only its parent has not looked yet.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.rsplit(')').next().unwrap().starts_with(" Z"))
}

/// Waits until none of the processes runs.
pub fn gone(pids: &[u32], within: Duration) {
    let begun = Instant::now();
    while pids.iter().any(|pid| is_alive(*pid)) {
        assert!(begun.elapsed() < within, "orphans are left: {pids:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The reference cases, in order of name.
pub fn cases() -> Vec<PathBuf> {
    let folder = repository().join("tests/reference/cases");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.join("case.toml").exists());
    cases.sort();
    assert!(cases.len() >= 25, "the reference cases are committed with the tests");
    cases
}
