//! `strath worker`

use std::io::BufRead;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use strath_node::worker::{WorkerEnd, WorkerSettings};
use strath_rpc::ClientTls;
use tokio::sync::mpsc;

use crate::outcome::Failure;
use crate::runtime;

/// Join a run as a worker
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  strath worker --coordinator 127.0.0.1:7700
  strath worker --coordinator 10.0.0.1:7700 --data /data/fashion-mnist

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
        let data = self.data.map(std::path::absolute).transpose().map_err(Failure::other)?;
        let tls = self.certs.as_deref().map(ClientTls::read).transpose().map_err(Failure::usage)?;
        let (leave, left) = mpsc::channel(1);
        let token = if self.token_from_stdin { Some(read_token(leave)?) } else { None };
        let settings = WorkerSettings {
            coordinator: self.coordinator,
            tls,
            token,
            nonce: runtime::random_word()?,
            data,
            listen: self.listen,
            advertise: self.advertise,
            connect_timeout: Duration::from_secs(self.connect_timeout),
            trace: self.trace,
        };
        runtime::block_on(async {
            match strath_node::worker::run(settings, runtime::stop_signals()?, left).await {
                Ok(WorkerEnd::Done) => Ok(()),
                Ok(WorkerEnd::Stopped) => Err(Failure::Stopped("stopped with the run".into())),
                Err(error) => Err(Failure::other(error)),
            }
        })
    }
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
