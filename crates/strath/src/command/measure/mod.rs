//! `strath measure`: what the flatness of a minimum is.

mod bound;
mod figures;
mod landscape;
mod norm;
mod sharpness;
mod spectrum;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;
use strath_core::Digest;
use strath_core::config::Config;
use strath_node::coordinator::RunEnd;
use strath_node::measure::{Measurement, Norms, Part, What};
use strath_protocol::message::Job;

use crate::configuration::{Changes, workers_flag};
use crate::outcome::Failure;
use crate::{errand, log, measuring, runtime, telling};

/// candle keeps the graph of gradients in processes that have this set from their start.
const KEEPS_GRAPH: &str = "CANDLE_GRAD_DO_NOT_DETACH";

/// How flat a checkpoint's minimum is: sharpness, spectrum, landscape, bound
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  strath measure sharpness runs/digits/final.safetensors --config runs/digits/config.toml --m 32 --rho 0.05
  strath measure spectrum runs/digits/final.safetensors --config runs/digits/config.toml --top 5 --json
  strath measure landscape runs/digits/final.safetensors --config runs/digits/config.toml --dims 2 --out landscape

The same checkpoint, configuration and flags give the same bits for any number of workers. One that is interrupted goes on where it was when it is asked
for again.")]
pub struct Measure {
    #[command(subcommand)]
    what: Asked,
}

#[derive(Debug, Subcommand)]
enum Asked {
    Sharpness(sharpness::Sharpness),
    Spectrum(spectrum::Spectrum),
    Landscape(landscape::Landscape),
    Bound(bound::Bound),
}

/// What every measurement is asked with.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// A model file (safetensors).
    pub(super) checkpoint: PathBuf,
    /// The run's configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// On which examples, in file order and un-augmented.
    #[arg(long, value_enum, default_value_t = PartArgument::Train)]
    split: PartArgument,
    /// Only the first N examples.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Batch norm normalises by the statistics of each group of examples (batch.micro, or the lane) in place of the checkpoint's running statistics.
    #[arg(long, conflicts_with = "recompute_stats")]
    batch_stats: bool,
    /// Batch norm normalises by running statistics that are taken anew over the training set; for a landscape, at each of its points.
    #[arg(long)]
    recompute_stats: bool,
    /// Seed of random directions.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(super) seed: u64,
    /// Worker processes to start.
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    changes: Changes,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PartArgument {
    Train,
    Validation,
    Test,
}

impl Measure {
    /// Runs the command.
    pub fn run(self) -> Result<(), Failure> {
        match self.what {
            Asked::Sharpness(sharpness) => sharpness.run(),
            Asked::Spectrum(spectrum) => spectrum.run(),
            Asked::Landscape(landscape) => landscape.run(),
            Asked::Bound(bound) => bound.run(),
        }
    }
}

impl Common {
    /// The run's configuration.
    pub(super) fn config(&self) -> Result<Config, Failure> {
        let effective = self.changes.resolve(Some(&self.config), workers_flag(self.workers))?;
        telling::warn(effective.warnings());
        if self.limit == Some(0) {
            return Err(Failure::Usage("--limit is 0, expected at least 1 example".into()));
        }
        Ok(effective.config)
    }

    /// Measures, counted in `unit` on the screen, and gives what was found.
    pub(super) fn measure(&self, config: &Config, what: What, unit: &'static str) -> Result<Value, Failure> {
        let norms = match (self.batch_stats, self.recompute_stats) {
            (true, _) => Norms::Batch,
            (_, true) => Norms::Recomputed,
            _ => Norms::Running,
        };
        let split = match self.split {
            PartArgument::Train => Part::Train,
            PartArgument::Validation => Part::Validation,
            PartArgument::Test => Part::Test,
        };
        let mut measurement = Measurement { what, split, limit: self.limit, norms, seed: self.seed, progress: None };
        let checkpoint = std::fs::canonicalize(&self.checkpoint)
            .map_err(|e| Failure::Other(format!("cannot read {}: {e}", self.checkpoint.display())))?;
        let progress = Progress::of(&checkpoint, config, &measurement)?;
        measurement.progress = Some(progress.path.clone());
        let text = measurement.to_text();
        let mut known = progress.size();
        loop {
            let (config, checkpoint) = (config.clone(), checkpoint.clone());
            let job = Job::Measure(text.clone());
            let mut end = None;
            let done = runtime::block_on(async {
                end = Some(errand::run(config, &checkpoint, job, measuring::observer(unit)).await?);
                Ok(())
            });
            match (done, end) {
                (Ok(()), Some(RunEnd::Measured(result))) => {
                    progress.remove();
                    return serde_json::from_str(&result).map_err(Failure::other);
                }
                (Ok(()), _) => {
                    return Err(Failure::Stopped(
                        "stopped before the measurement was done; the same command goes on from here".into(),
                    ));
                }
                // Workers that were lost are started anew, for as long as that brings it further.
                (Err(Failure::Other(message)), _) if progress.size() > known => {
                    known = progress.size();
                    log::warn(&format!("{message}; going on from where the measurement was"));
                }
                (Err(failure), _) => return Err(failure),
            }
        }
    }
}

/// Where a measurement keeps what it has so far, until it is done.
struct Progress {
    path: PathBuf,
}

impl Progress {
    /// A file of the user's cache folder, by what is asked: the same request finds it again.
    fn of(checkpoint: &Path, config: &Config, measurement: &Measurement) -> Result<Self, Failure> {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
        let folder = cache.or_else(home).unwrap_or_else(std::env::temp_dir).join("strath").join("measure");
        std::fs::create_dir_all(&folder)
            .map_err(|e| Failure::Other(format!("cannot make {}: {e}; set XDG_CACHE_HOME", folder.display())))?;
        let of_run = (&config.data, &config.model, &config.batch, config.run.seed);
        let asked = format!("{} {} {of_run:?}", checkpoint.display(), measurement.to_text());
        let name = Digest::of(asked.as_bytes()).to_string();
        Ok(Self { path: folder.join(&name[..32]) })
    }

    fn size(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |file| file.len())
    }

    fn remove(&self) {
        // A leftover is emptied by the next measurement of its name.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Starts this program again with candle's switch set, which it reads once, where it is not: for commands that differentiate twice. Workers inherit it.
pub(super) fn keep_graph() -> Result<(), Failure> {
    if std::env::var_os(KEEPS_GRAPH).is_some_and(|value| value == "1") {
        return Ok(());
    }
    let program = std::env::current_exe().map_err(Failure::other)?;
    let mut again = std::process::Command::new(program);
    Err(Failure::other(again.args(std::env::args_os().skip(1)).env(KEEPS_GRAPH, "1").exec()))
}
