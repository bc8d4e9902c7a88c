//! `strath status`

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::json;
use strath_node::run_folder::newest_coordinator;
use strath_protocol::ClusterStatus;
use strath_rpc::ClientTls;

use crate::outcome::Failure;
use crate::{log, runtime, telling};

/// Show a running cluster: generation, workers, what they hold, where they are, who is late and why
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  strath status                      the newest run under runs/
  strath status --coordinator 127.0.0.1:7700 --watch
  strath status --json")]
pub struct Status {
    /// The coordinator, HOST:PORT [default: that of the newest runs/*/coordinator.json]
    #[arg(long, value_name = "ADDR")]
    coordinator: Option<String>,
    /// A folder with ca.pem, worker.pem and worker.key, where the coordinator has certificates.
    #[arg(long, value_name = "DIR", env = "STRATH_CERTS")]
    certs: Option<PathBuf>,
    /// Print anew every second until the run ends.
    #[arg(long)]
    watch: bool,
    /// Print JSON, one object a line.
    #[arg(long)]
    json: bool,
}

impl Status {
    /// Runs the command.
    pub fn run(self) -> Result<(), Failure> {
        let address = match self.coordinator.clone() {
            Some(address) => address,
            None => newest_coordinator(Path::new("runs")).map(|file| file.address).ok_or_else(|| {
                Failure::Other(
                    "no run is under way here: no runs/*/coordinator.json; name one with --coordinator HOST:PORT"
                        .into(),
                )
            })?,
        };
        runtime::check_host_port(&address)?;
        let tls = self.certs.as_deref().map(ClientTls::read).transpose().map_err(Failure::usage)?;
        runtime::block_on(async {
            let mut seen = false;
            loop {
                let status = match strath_rpc::status(&address, Duration::from_secs(5), tls.as_ref()).await {
                    Ok(status) => status,
                    Err(_) if seen => {
                        log::say("the coordinator has ended");
                        return Ok(());
                    }
                    Err(error) => return Err(Failure::other(error)),
                };
                seen = true;
                if self.json {
                    telling::print(&format!("{}\n", to_json(&status)))?;
                } else {
                    // Home and clear: the table is drawn over itself.
                    let clear = if self.watch { "\x1b[H\x1b[2J" } else { "" };
                    telling::print(&format!("{clear}{}", table(&status)))?;
                }
                if !self.watch {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        })
    }
}

fn table(status: &ClusterStatus) -> String {
    let mut lines = vec![format!(
        "{} ({}): {}, generation {}, step {} of {}",
        status.name, status.run, status.stage, status.generation, status.step, status.steps
    )];
    if let Some(step) = &status.last_step {
        lines.push(format!(
            "loss {:.4}  at w+epsilon {:.4}  sharpness {:+.4}  {:.1} ms a step",
            step.clean_loss,
            step.perturbed_loss,
            step.perturbed_loss - step.clean_loss,
            1e3 * step.seconds
        ));
    }
    lines.push(format!(
        "{:>6} {:>4} {:24} {:21} {:>5} {:>7} {:10} {:>9} {:>8}  late",
        "worker", "rank", "host", "address", "micro", "step", "phase", "images/s", "heard"
    ));
    for worker in &status.workers {
        let rank = worker.rank.map_or_else(|| "-".into(), |rank| rank.to_string());
        lines.push(format!(
            "{:>6} {:>4} {:24} {:21} {:>5} {:>7} {:10} {:>9} {:>5} ms  {}",
            worker.worker.to_string(),
            rank,
            worker.host,
            worker.address.to_string(),
            worker.micro_batches,
            worker.step.to_string(),
            worker.phase.name(),
            if worker.images_per_s > 0.0 { format!("{:.0}", worker.images_per_s) } else { "-".into() },
            worker.silent_ms,
            if worker.late.is_empty() { "-" } else { &worker.late }
        ));
    }
    lines.join("\n") + "\n"
}

fn to_json(status: &ClusterStatus) -> serde_json::Value {
    let workers: Vec<serde_json::Value> = status
        .workers
        .iter()
        .map(|worker| {
            json!({
                "worker": worker.worker.0,
                "rank": worker.rank.map(|rank| rank.0),
                "host": worker.host,
                "address": worker.address.to_string(),
                "pid": worker.pid,
                "micro_batches": worker.micro_batches,
                "step": worker.step.0,
                "phase": worker.phase.name(),
                "images_per_s": worker.images_per_s,
                "silent_ms": worker.silent_ms,
                "late": worker.late,
            })
        })
        .collect();
    json!({
        "run": status.run.to_string(),
        "name": status.name,
        "stage": status.stage,
        "generation": status.generation.0,
        "step": status.step.0,
        "steps": status.steps.0,
        "clean_loss": status.last_step.as_ref().map(|step| step.clean_loss),
        "perturbed_loss": status.last_step.as_ref().map(|step| step.perturbed_loss),
        "workers": workers,
    })
}
