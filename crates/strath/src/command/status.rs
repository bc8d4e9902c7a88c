//! `strath status`

mod table;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use strath_protocol::{ClusterStatus, SurveyStatus};
use strath_rpc::ClientTls;

use crate::living::{Meant, meant};
use crate::outcome::Failure;
use crate::{log, runtime, telling};

/// Show a running cluster: workers, what they hold, who is late and why, what was decided
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
        let Meant { address, .. } = meant(self.coordinator.clone(), None)?;
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
                    telling::print(&self.drawn(&table::table(&status)))?;
                }
                if !self.watch {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        })
    }

    /// Lines as they are printed: watched on a terminal, each is drawn over what stood there before, so that nothing flickers.
    fn drawn(&self, lines: &[String]) -> String {
        let is_drawn_over = self.watch && std::io::stdout().is_terminal();
        let (home, end, rest) = if is_drawn_over { ("\x1b[H", "\x1b[K\n", "\x1b[J") } else { ("", "\n", "") };
        let mut text: String = home.into();
        for line in lines {
            text.push_str(line);
            text.push_str(end);
        }
        // Elsewhere an empty line tells one moment from the next.
        text.push_str(if self.watch && !is_drawn_over { "\n" } else { rest });
        text
    }
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
    let decisions: Vec<serde_json::Value> = status
        .decisions
        .iter()
        .map(|decision| json!({ "what": decision.what, "why": decision.why, "ago_ms": decision.ago_ms }))
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
        "survey": status.survey.as_ref().map(survey),
        "workers": workers,
        "decisions": decisions,
    })
}

/// The newest survey of the lanes, under the keys of `metrics.jsonl`.
fn survey(survey: &SurveyStatus) -> serde_json::Value {
    let SurveyStatus { step, rho_equivalent, noise_scale, coherence, audit } = survey;
    json!({
        "step": step.0,
        "rho_equivalent": rho_equivalent,
        "noise_scale": noise_scale,
        "coherence": coherence,
        "audit": strath_node::lane_keys::AuditKeys::from(*audit),
    })
}
