//! `strath eval`

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;
use strath_node::coordinator::{CoordinatorSettings, RunEnd};
use strath_node::local::LocalWorkers;
use strath_node::start;
use strath_protocol::Gather;
use strath_protocol::message::{Job, Split};

use crate::configuration::{Changes, workers_flag};
use crate::outcome::Failure;
use crate::{log, runtime, telling};

/// Loss and error of a checkpoint on a split
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  strath eval runs/digits/final.safetensors --config runs/digits/config.toml
  strath eval runs/digits/checkpoints/step-100.safetensors --config configs/digits.toml --split train --json")]
pub struct Eval {
    /// A model file (safetensors).
    checkpoint: PathBuf,
    /// The run's configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Which split.
    #[arg(long, value_enum, default_value_t = SplitArgument::Test)]
    split: SplitArgument,
    /// Worker processes to start.
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    changes: Changes,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SplitArgument {
    Train,
    Validation,
    Test,
}

impl Eval {
    /// Runs the command.
    pub fn run(self) -> Result<(), Failure> {
        let effective = self.changes.resolve(Some(&self.config), workers_flag(self.workers))?;
        telling::warn(effective.warnings());
        let config = effective.config;
        let split = match self.split {
            SplitArgument::Train => Split::Train,
            SplitArgument::Validation => Split::Validation,
            SplitArgument::Test => Split::Test,
        };
        if split == Split::Validation && config.data.validation == 0.0 {
            return Err(Failure::usage(
                "--split validation: data.validation is 0, so nothing is split off; set it as the run had it",
            ));
        }
        runtime::block_on(async {
            let start = start::from_file(&self.checkpoint).map_err(Failure::other)?;
            let listener = runtime::listen(runtime::LOOPBACK)?;
            let address = listener.local_addr().map_err(Failure::other)?;
            let token = runtime::token()?;
            let program = std::env::current_exe().map_err(Failure::other)?;
            let logs = Scratch::new()?;
            let workers = config.cluster.workers;
            let local = LocalWorkers::start(&program, workers, address, &token, &logs.0, &log::flag(), None)
                .await
                .map_err(Failure::other)?;
            let settings = CoordinatorSettings {
                config,
                listener,
                folder: None,
                job: Job::Evaluate(split),
                gather: Gather::Exactly(workers),
                tls: None,
                token: Some(token),
                ring_key: runtime::ring_key()?,
                start: Some(start),
                local: Some(local),
            };
            let end = strath_node::coordinator::run(settings, Box::new(|_| ()), runtime::stop_signals()?).await;
            match end? {
                RunEnd::Evaluated(report) => telling::print(&if self.json {
                    json!({"split": split.to_string(), "loss": report.loss, "error": report.error}).to_string() + "\n"
                } else {
                    format!("{split}: loss {:.4}   error {:.2} %\n", report.loss, 100.0 * report.error)
                }),
                RunEnd::Stopped(_) | RunEnd::Done(_) => {
                    Err(Failure::Stopped("stopped before the evaluation was done".into()))
                }
            }
        })
    }
}

/// A folder for the workers' logs that is gone when the command is.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("strath-eval-{:016x}", runtime::random_word()?));
        std::fs::create_dir(&path).map_err(Failure::other)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A leftover in the temporary folder harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
