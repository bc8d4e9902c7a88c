//! `strath eval`

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;
use strath_node::coordinator::{CoordinatorSettings, RunEnd, start_from_file};
use strath_node::local::LocalWorkers;
use strath_protocol::Gather;
use strath_protocol::message::{Job, Split};

use crate::configuration::Changes;
use crate::outcome::Failure;
use crate::runtime;

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
    Test,
}

impl Eval {
    /// Runs the command.
    pub fn run(self) -> Result<(), Failure> {
        let config = self.changes.resolve(Some(&self.config), self.workers)?.config;
        let split = match self.split {
            SplitArgument::Train => Split::Train,
            SplitArgument::Test => Split::Test,
        };
        runtime::block_on(async {
            let start = start_from_file(&self.checkpoint).map_err(Failure::other)?;
            let listener = runtime::listen("127.0.0.1:0")?;
            let address = listener.local_addr().map_err(Failure::other)?;
            let token = runtime::token()?;
            let program = std::env::current_exe().map_err(Failure::other)?;
            let logs = Scratch::new(&token)?;
            let workers = config.cluster.workers;
            let local =
                LocalWorkers::start(&program, workers, address, &token, &logs.0).await.map_err(Failure::other)?;
            let settings = CoordinatorSettings {
                config,
                listener,
                folder: None,
                job: Job::Evaluate(split),
                gather: Gather::Exactly(workers),
                token: Some(token),
                start: Some(start),
                local: Some(local),
            };
            let end = strath_node::coordinator::run(settings, Box::new(|_| ()), runtime::stop_signals()?).await;
            match end.map_err(Failure::other)? {
                RunEnd::Evaluated(report) => {
                    if self.json {
                        println!("{}", json!({"split": split.to_string(), "loss": report.loss, "error": report.error}));
                    } else {
                        println!("{split}: loss {:.4}   error {:.2} %", report.loss, 100.0 * report.error);
                    }
                    Ok(())
                }
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
    fn new(token: &str) -> Result<Self, Failure> {
        // Half of the token names the folder; the other half stays secret.
        let path = std::env::temp_dir().join(format!("strath-eval-{}", &token[..16]));
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
