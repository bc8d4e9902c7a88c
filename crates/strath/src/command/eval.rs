//! `strath eval`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use strath_node::coordinator::RunEnd;
use strath_protocol::message::{Job, Split};

use crate::configuration::{Changes, workers_flag};
use crate::outcome::Failure;
use crate::split::SplitArgument;
use crate::{errand, runtime, telling};

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

impl Eval {
    /// Runs the command.
    pub fn run(self) -> Result<(), Failure> {
        let effective = self.changes.resolve(Some(&self.config), workers_flag(self.workers))?;
        telling::warn(effective.warnings());
        let config = effective.config;
        self.split.check(&config)?;
        let split = match self.split {
            SplitArgument::Train => Split::Train,
            SplitArgument::Validation => Split::Validation,
            SplitArgument::Test => Split::Test,
            SplitArgument::Noisy => Split::Noisy,
        };
        runtime::block_on(async {
            let end = errand::run(config, &self.checkpoint, Job::Evaluate(split), Box::new(|_| ())).await;
            match end? {
                RunEnd::Evaluated(report) => telling::print(&if self.json {
                    json!({"split": split.to_string(), "loss": report.loss, "error": report.error}).to_string() + "\n"
                } else {
                    format!("{split}: loss {:.4}   error {:.2} %\n", report.loss, 100.0 * report.error)
                }),
                RunEnd::Stopped(_) | RunEnd::Done(_) | RunEnd::Measured(_) => {
                    Err(Failure::Stopped("stopped before the evaluation was done".into()))
                }
            }
        })
    }
}
