//! Worker processes on this machine, as `strath train` and `strath eval` start them.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};

use crate::files::FileError;

/// Workers that this process started. They end when this value, or this process, is gone: each reads its token from a pipe
/// and leaves when the pipe closes.
pub struct LocalWorkers {
    workers: Vec<LocalWorker>,
}

struct LocalWorker {
    child: Child,
    /// Open for as long as the worker shall live.
    lifeline: Option<ChildStdin>,
    log: PathBuf,
}

/// Why local workers could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// A log file could not be made.
    #[error(transparent)]
    File(#[from] FileError),
    /// The program could not be run.
    #[error("cannot start a worker process from {}: {source}", program.display())]
    Start {
        /// The binary.
        program: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// A worker process that ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Which one, from 0, in the order of starting.
    pub index: usize,
    /// Its process.
    pub pid: u32,
    /// How it ended.
    pub status: ExitStatus,
    /// The end of its log.
    pub last_words: String,
    /// Its log.
    pub log: PathBuf,
}

impl LocalWorkers {
    /// Starts `count` workers of `program` that join the coordinator at `address` with `token`, `flags` added; each logs to a
    /// file of its own in `logs`, and where a folder for `traces` is given writes its [`part`] of one there.
    ///
    /// # Errors
    /// [`LocalError`]; workers that were started by then end.
    pub async fn start(
        program: &Path,
        count: usize,
        address: SocketAddr,
        token: &str,
        logs: &Path,
        flags: &[&str],
        traces: Option<&Path>,
    ) -> Result<Self, LocalError> {
        fs::create_dir_all(logs).map_err(|e| FileError::new("make", logs, e))?;
        let mut started = Self { workers: Vec::with_capacity(count) };
        for index in 0..count {
            let log = logs.join(format!("worker-{index}.log"));
            // What an earlier session said stays.
            let file =
                File::options().create(true).append(true).open(&log).map_err(|e| FileError::new("make", &log, e))?;
            let fail = |source| LocalError::Start { program: program.into(), source };
            let mut child = Command::new(program)
                .args(["worker", "--coordinator", &address.to_string(), "--token-from-stdin"])
                .args(flags)
                // These workers are heard on loopback by their token.
                .env_remove("STRATH_CERTS")
                .env("STRATH_LOCAL_RANK", index.to_string())
                .args(traces.map(|traces| part(traces, index)).iter().flat_map(|part| [Path::new("--trace"), part]))
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(file)
                // A group of its own: Ctrl-C on the terminal reaches the coordinator only, which stops its workers in order.
                .process_group(0)
                .kill_on_drop(true)
                .spawn()
                .map_err(fail)?;
            let mut lifeline = child.stdin.take();
            if let Some(pipe) = &mut lifeline {
                pipe.write_all(format!("{token}\n").as_bytes()).await.map_err(fail)?;
                pipe.flush().await.map_err(fail)?;
            }
            started.workers.push(LocalWorker { child, lifeline, log });
        }
        Ok(started)
    }

    /// Waits until one of the workers ends, and tells which.
    pub async fn ended(&mut self) -> Ended {
        loop {
            for (index, worker) in self.workers.iter_mut().enumerate() {
                let Some(pid) = worker.child.id() else { continue };
                if let Ok(Some(status)) = worker.child.try_wait() {
                    let last_words = last_line(&worker.log);
                    return Ended { index, pid, status, last_words, log: worker.log.clone() };
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Closes every worker's pipe, gives them `grace` to end, and kills those that are left. Nothing of theirs runs on.
    pub async fn finish(mut self, grace: Duration) {
        for worker in &mut self.workers {
            drop(worker.lifeline.take());
        }
        let deadline = tokio::time::Instant::now() + grace;
        for worker in &mut self.workers {
            if tokio::time::timeout_at(deadline, worker.child.wait()).await.is_err() {
                // Killing fails only where the process has just ended by itself.
                let _ = worker.child.kill().await;
            }
        }
    }
}

/// Where worker `index` writes its part of a trace.
pub fn part(traces: &Path, index: usize) -> PathBuf {
    traces.join(format!("trace-{index}.json"))
}

fn last_line(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_string()
}
