//! `strath drain`

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use strath_core::WorkerId;
use strath_protocol::message::{DrainAnswer, DrainRequest, Shortage};
use strath_rpc::ClientTls;

use crate::living::{Meant, meant};
use crate::outcome::Failure;
use crate::{runtime, telling};

/// An answer is waited for so long.
const ANSWER: Duration = Duration::from_secs(5);
/// How often it is asked whether the worker has left.
const PAUSE: Duration = Duration::from_millis(50);

/// Have a worker leave a run in order: it hands its work over, the run goes on
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  strath status                         who is there, with their ids
  strath drain 2                        worker 2 of the newest run under runs/
  strath drain 2 --coordinator 10.0.0.1:7700 --certs certs

The worker ends with status 0, as after SIGTERM to its process, and the others go on without
it. The command ends when it has left; asked again for the same worker, it goes on waiting.

A worker stays where fewer than cluster.min_workers would be left without it, as a pod stays
under a disruption budget: start another one first, and ask again once it is ready. With --force
it leaves all the same: the run writes its state down and waits for others, for
cluster.rejoin_timeout_s, then ends with that checkpoint (under strath train, whose workers
nobody replaces, at once).

With certificates a worker's certificate is asked for. Under strath train, and wherever else the
coordinator handed out a token, only the run's owner can do this: the token is in its folder.")]
pub struct Drain {
    /// The worker's id, as strath status shows it.
    worker: u64,
    /// The coordinator, HOST:PORT [default: that of the newest runs/*/coordinator.json]
    #[arg(long, value_name = "ADDR")]
    coordinator: Option<String>,
    /// The run's folder, where it is not the newest under runs/.
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// A folder with ca.pem, worker.pem and worker.key, where the coordinator has certificates.
    #[arg(long, value_name = "DIR", env = "STRATH_CERTS")]
    certs: Option<PathBuf>,
    /// Let it go even where too few others are left.
    #[arg(long)]
    force: bool,
    /// Seconds to wait until it has left.
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

impl Drain {
    /// Runs the command.
    pub fn run(self) -> Result<(), Failure> {
        let Meant { address, token } = meant(self.coordinator, self.run.as_deref())?;
        let tls = self.certs.as_deref().map(ClientTls::read).transpose().map_err(Failure::usage)?;
        let shortage = if self.force { Shortage::Accept } else { Shortage::Refuse };
        let worker = WorkerId(self.worker);
        let request = DrainRequest { worker, shortage, token };
        let patience = Duration::from_secs(self.timeout);
        runtime::block_on(async {
            wait_until_left(&address, tls.as_ref(), &request, patience).await?;
            telling::print(&format!("worker {worker} has left{}\n", what_goes_on(&address, tls.as_ref()).await))
        })
    }
}

/// Asks for it until the worker has left.
async fn wait_until_left(
    address: &str,
    tls: Option<&ClientTls>,
    request: &DrainRequest,
    patience: Duration,
) -> Result<(), Failure> {
    let worker = request.worker;
    let since = Instant::now();
    let mut leaves = false;
    loop {
        match strath_rpc::drain(address, ANSWER, tls, request.clone()).await {
            Ok(DrainAnswer::HasLeft) => return Ok(()),
            Ok(DrainAnswer::Leaves) => leaves = true,
            Ok(DrainAnswer::Refused(reason)) if leaves => {
                return Err(Failure::Other(format!(
                    "worker {worker} was leaving, and was lost before it had: {reason}"
                )));
            }
            Ok(DrainAnswer::Refused(reason)) => {
                return Err(Failure::Other(format!("worker {worker} was not drained: {reason}")));
            }
            Err(error) if leaves => {
                return Err(Failure::Other(format!(
                    "worker {worker} was told to leave; whether it has is not known: {error}"
                )));
            }
            Err(error) => return Err(Failure::other(error)),
        }
        if since.elapsed() >= patience {
            return Err(Failure::Other(format!(
                "worker {worker} has not left within {} s, and still will: strath status says where it is (--timeout waits longer)",
                patience.as_secs()
            )));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What is left of the cluster, as the end of a line.
async fn what_goes_on(address: &str, tls: Option<&ClientTls>) -> String {
    // The run may have ended since.
    let Ok(status) = strath_rpc::status(address, ANSWER, tls).await else { return String::new() };
    let ranks = status.workers.iter().filter(|worker| worker.rank.is_some()).count();
    if ranks == 0 {
        return format!("; the run is {} at step {}", status.stage, status.step);
    }
    let go = if ranks == 1 { "worker goes" } else { "workers go" };
    format!("; {ranks} {go} on from step {} as generation {}", status.step, status.generation)
}
