//! `strath worker`

use std::io::BufRead;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use strath_node::worker::{WorkerEnd, WorkerError, WorkerSettings};
use strath_rpc::{ClientTls, RpcError};
use tokio::sync::mpsc;

use crate::outcome::Failure;
use crate::{log, runtime};

/// Join a run as a worker
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  strath worker --coordinator 127.0.0.1:7700
  strath worker --coordinator 10.0.0.1:7700 --data /data/fashion-mnist
  strath worker --coordinator 10.0.0.1:7700 --again      for all runs of a study

The configuration comes from the coordinator, the data from this machine's disk. The ring
listens on the local address of the connection to the coordinator, unless --listen or
--advertise say otherwise.")]
pub struct Worker {
    /// The coordinator, HOST:PORT.
    #[arg(long, value_name = "ADDR")]
    coordinator: String,
    /// A folder with ca.pem, worker.pem and worker.key: only a coordinator of that authority is obeyed.
    #[arg(long, value_name = "DIR", env = "STRATH_CERTS")]
    certs: Option<PathBuf>,
    /// Where the data is on this machine [default: data.path of the configuration]
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Which worker of this machine it is: of several GPUs it computes on that one.
    #[arg(long, value_name = "N", env = "STRATH_LOCAL_RANK", default_value_t = 0)]
    local_rank: usize,
    /// Where the ring listens, IP:PORT.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// The address that other workers dial, IP:PORT; port 0 is the port that was had.
    #[arg(long, value_name = "ADDR")]
    advertise: Option<SocketAddr>,
    /// Seconds to wait for a coordinator that is not there yet [default: 30, with --again 3600]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=86_400))]
    connect_timeout: Option<u64>,
    /// After a run, look for the next one at the same address; ends when none has come for --connect-timeout.
    #[arg(long)]
    again: bool,
    /// Runs that this worker has been through, and how many of the last of them failed.
    #[arg(long, hide = true, default_value = "0,0", value_parser = Before::parse)]
    before: Before,
    /// Write this rank's part of a trace here.
    #[arg(long, hide = true)]
    trace: Option<PathBuf>,
    /// Read the join token from standard input, and leave when that closes.
    #[arg(long, hide = true)]
    token_from_stdin: bool,
}

impl Worker {
    /// Runs the command.
    pub fn run(self) -> Result<(), Failure> {
        runtime::check_host_port(&self.coordinator)?;
        silence_candles_threads()?;
        let data = self.data.as_deref().map(std::path::absolute).transpose().map_err(Failure::other)?;
        let tls = self.certs.as_deref().map(ClientTls::read).transpose().map_err(Failure::usage)?;
        let (leave, left) = mpsc::channel(1);
        let token = if self.token_from_stdin { Some(read_token(leave)?) } else { None };
        let settings = WorkerSettings {
            coordinator: self.coordinator.clone(),
            tls,
            token,
            nonce: runtime::random_word()?,
            data,
            local_rank: self.local_rank,
            listen: self.listen,
            advertise: self.advertise,
            connect_timeout: Duration::from_secs(self.connect_timeout.unwrap_or(if self.again { 3600 } else { 30 })),
            trace: self.trace.clone(),
        };
        let Before { runs, failed } = self.before;
        let end = runtime::block_on(async {
            match strath_node::worker::run(settings, runtime::stop_signals()?, left).await {
                Err(WorkerError::Rpc(RpcError::Absent { .. })) if runs > 0 => Ok(End::NoMore),
                Ok(WorkerEnd::Done) => Ok(End::Next(Before { runs: runs + 1, failed: 0 })),
                Ok(WorkerEnd::Released) => Ok(End::Left),
                Ok(WorkerEnd::Stopped) => Err(Failure::Stopped("stopped with the run".into())),
                // What was wrong with one run need not be wrong with the next.
                Err(error @ WorkerError::Failed(_)) if self.again && failed + 1 < MOST_FAILED => {
                    log::warn(&format!("{error}; looking for the next run"));
                    let mut stop = runtime::stop_signals()?;
                    tokio::select! {
                        () = tokio::time::sleep(PAUSE) => Ok(End::Next(Before { runs: runs + 1, failed: failed + 1 })),
                        Some(()) = stop.recv() => Ok(End::Left),
                    }
                }
                Err(error) => Err(Failure::other(error)),
            }
        })?;
        match end {
            End::Next(before) if self.again => Err(again(before)),
            End::Next(_) | End::Left => Ok(()),
            End::NoMore => {
                log::say(&format!("{runs} runs, and no further one"));
                Ok(())
            }
        }
    }
}

/// Before a worker whose run failed looks for the next.
const PAUSE: Duration = Duration::from_secs(1);
/// Runs that fail one after the other, after which the fault is taken for this worker's.
const MOST_FAILED: u64 = 3;

/// What a worker of several runs has been through.
#[derive(Debug, Clone, Copy)]
struct Before {
    runs: u64,
    /// Of the last ones.
    failed: u64,
}

impl Before {
    fn parse(text: &str) -> Result<Self, String> {
        let numbers = text.split_once(',').and_then(|(runs, failed)| Some((runs.parse().ok()?, failed.parse().ok()?)));
        numbers.map(|(runs, failed)| Self { runs, failed }).ok_or_else(|| "expected two numbers, such as 3,0".into())
    }
}

/// How a worker's part ended.
enum End {
    /// With the run.
    Next(Before),
    /// It was asked to leave.
    Left,
    /// No run came.
    NoMore,
}

/// Goes on to the next run in a process as new as the first: what a run pinned, kept or opened is none of the next one's. Comes back only where that
/// fails.
fn again(before: Before) -> Failure {
    const FLAG: &str = "--before";
    let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if let Some(at) = arguments.iter().position(|argument| argument == FLAG) {
        arguments.drain(at..(at + 2).min(arguments.len()));
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return Failure::other(error),
    };
    let count = format!("{},{}", before.runs, before.failed);
    let error = std::process::Command::new(program).args(arguments).args([FLAG, &count]).exec();
    Failure::Other(format!("cannot start again for the next run: {error}"))
}

/// candle's own elementwise threads wait by spinning, and would take a core from the other workers. They are turned off by an
/// environment variable that is read once, so the process replaces itself by one that has it.
fn silence_candles_threads() -> Result<(), Failure> {
    const THREADS: &str = "CANDLE_NUM_THREADS";
    if std::env::var_os(THREADS).is_some() {
        return Ok(());
    }
    let program = std::env::current_exe().map_err(Failure::other)?;
    let error = std::process::Command::new(program).args(std::env::args_os().skip(1)).env(THREADS, "1").exec();
    Err(Failure::Other(format!("cannot start again with {THREADS}=1: {error}; set it in the environment")))
}

/// The first line of standard input; a thread waits for its end, which means that whoever started this worker is gone.
fn read_token(leave: mpsc::Sender<String>) -> Result<String, Failure> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(Failure::other)?;
    std::thread::spawn(move || {
        let mut rest = String::new();
        while std::io::stdin().lock().read_line(&mut rest).is_ok_and(|read| read > 0) {
            rest.clear();
        }
        let _ = leave.blocking_send("the process that started it has ended".into());
        // Where even leaving hangs, the process must not outlive its parent for long.
        std::thread::sleep(Duration::from_secs(3));
        std::process::exit(1);
    });
    Ok(line.trim().to_string())
}
