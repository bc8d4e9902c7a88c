//! `strath worker`

use std::io::BufRead;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use strath_node::worker::{WorkerEnd, WorkerError, WorkerSettings};
use strath_rpc::ClientTls;
use tokio::sync::mpsc;

use crate::outcome::Failure;
use crate::{log, runtime};

/// Join a run as a worker
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  strath worker --coordinator 127.0.0.1:7700
  strath worker --coordinator 10.0.0.1:7700 --data /data/fashion-mnist
  strath worker --coordinator 10.0.0.1:7700 --again --connect-timeout 600      for all runs of a study

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
    /// Where the ring listens, IP:PORT.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// The address that other workers dial, IP:PORT; port 0 is the port that was had.
    #[arg(long, value_name = "ADDR")]
    advertise: Option<SocketAddr>,
    /// Seconds to wait for a coordinator that is not there yet.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(..=86_400))]
    connect_timeout: u64,
    /// After a run, look for the next one at the same address; ends when none has come for --connect-timeout.
    #[arg(long)]
    again: bool,
    /// Runs that this worker has been through.
    #[arg(long, hide = true, default_value_t = 0)]
    runs_before: u64,
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
            listen: self.listen,
            advertise: self.advertise,
            connect_timeout: Duration::from_secs(self.connect_timeout),
            trace: self.trace.clone(),
        };
        let end = runtime::block_on(async {
            match strath_node::worker::run(settings, runtime::stop_signals()?, left).await {
                Err(WorkerError::Rpc(_)) if self.runs_before > 0 => Ok(End::NoMore),
                Ok(WorkerEnd::Done) => Ok(End::Run),
                Ok(WorkerEnd::Stopped) => Err(Failure::Stopped("stopped with the run".into())),
                // What was wrong with one run need not be wrong with the next.
                Err(error @ WorkerError::Failed(_)) if self.again => {
                    log::warn(&format!("{error}; looking for the next run"));
                    tokio::time::sleep(PAUSE).await;
                    Ok(End::Run)
                }
                Err(error) => Err(Failure::other(error)),
            }
        })?;
        match end {
            End::Run if self.again => Err(again(self.runs_before + 1)),
            End::Run => Ok(()),
            End::NoMore => {
                log::say(&format!("{} runs, and no further one", self.runs_before));
                Ok(())
            }
        }
    }
}

/// Before a worker whose run failed looks for the next.
const PAUSE: Duration = Duration::from_secs(1);

/// How a worker's part ended.
enum End {
    /// With the run.
    Run,
    /// No run came.
    NoMore,
}

/// Goes on to the next run in a process as new as the first: what a run pinned, kept or opened is none of the next one's. Comes back only where that
/// fails.
fn again(runs: u64) -> Failure {
    const FLAG: &str = "--runs-before";
    let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if let Some(at) = arguments.iter().position(|argument| argument == FLAG) {
        arguments.drain(at..(at + 2).min(arguments.len()));
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return Failure::other(error),
    };
    let error = std::process::Command::new(program).args(arguments).arg(FLAG).arg(runs.to_string()).exec();
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
