//! `strath coordinator`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use strath_node::coordinator::CoordinatorSettings;
use strath_protocol::Gather;
use strath_protocol::message::Job;
use strath_rpc::ServerTls;

use super::train::finish;
use crate::configuration::{Changes, OutArguments};
use crate::opening::{Opened, open};
use crate::outcome::Failure;
use crate::{runtime, telling};

/// Coordinate a run whose workers are started elsewhere
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  strath coordinator --config configs/digits.toml --listen 127.0.0.1:7700 --min-workers 2
  strath worker --coordinator 127.0.0.1:7700     (once for each worker)

Training starts when the workers asked for are ready and none has come for cluster.gather_ms.
Other addresses than loopback need certificates (strath certs DIR), or --insecure on a network
that you trust.")]
pub struct Coordinator {
    /// The run's configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where to listen, HOST:PORT; port 0 is any.
    #[arg(long, value_name = "ADDR")]
    listen: String,
    /// Workers to wait for; the same as --set cluster.min_workers=N.
    #[arg(long, value_name = "N")]
    min_workers: Option<usize>,
    /// A folder with ca.pem, coordinator.pem and coordinator.key: only workers of that authority are heard.
    #[arg(long, value_name = "DIR", env = "STRATH_CERTS")]
    certs: Option<PathBuf>,
    /// Listen beyond loopback without certificates: whoever reaches the port can join and read the run.
    #[arg(long)]
    insecure: bool,
    /// Stop after a step once standard input ends: whoever started this run has ended.
    #[arg(long, hide = true)]
    orphan_stops: bool,
    /// Write no report.html at the end.
    #[arg(long, hide = true)]
    no_report: bool,
    #[command(flatten)]
    changes: Changes,
    #[command(flatten)]
    out: OutArguments,
}

impl Coordinator {
    /// Runs the command.
    pub fn run(self) -> Result<(), Failure> {
        let workers = self.min_workers.map(|workers| ("cluster.min_workers", "--min-workers", workers));
        let effective = self.changes.resolve(Some(&self.config), workers)?;
        telling::warn(effective.warnings());
        let config = effective.config;
        let address = runtime::parse(&self.listen)?;
        let tls = self.certs.as_deref().map(ServerTls::read).transpose().map_err(Failure::usage)?;
        check_fence(address, tls.is_some(), self.insecure)?;
        runtime::block_on(async {
            let listener = runtime::listen(address)?;
            let Some(Opened { folder, start }) = open(&config, &self.out)? else { return Ok(()) };
            let path = folder.path().to_path_buf();
            let quiet = Duration::from_millis(config.cluster.gather_ms);
            let settings = CoordinatorSettings {
                config: config.clone(),
                listener,
                folder: Some(folder),
                job: Job::Train,
                gather: Gather::AtLeast { workers: config.cluster.min_workers, quiet },
                tls,
                token: None,
                ring_key: runtime::ring_key()?,
                start,
                local: None,
            };
            let stop = if self.orphan_stops { runtime::stop_signals_or_orphaned() } else { runtime::stop_signals() }?;
            let end = strath_node::coordinator::run(settings, telling::observer(), stop).await;
            finish(end?, &path, &config, !self.no_report)
        })
    }
}

/// Refuses to listen beyond loopback without a fence.
pub(super) fn check_fence(address: SocketAddr, is_certified: bool, insecure: bool) -> Result<(), Failure> {
    if address.ip().is_loopback() || is_certified || insecure {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "--listen {address} is not loopback and there are no certificates: name some with --certs (strath certs DIR makes them), listen on \
         127.0.0.1, or add --insecure on a network that you trust"
    )))
}
