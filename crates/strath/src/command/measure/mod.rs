//! `strath measure`: what the flatness of a minimum is.

mod bound;
mod figures;
mod landscape;
mod norm;
mod sharpness;
mod spectrum;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::Value;
use strath_core::Digest;
use strath_core::config::Config;
use strath_node::coordinator::RunEnd;
use strath_node::measure::{Measurement, Norms, Part, What};
use strath_protocol::message::Job;

use crate::configuration::{Changes, workers_flag};
use crate::outcome::Failure;
use crate::split::SplitArgument;
use crate::{errand, log, measuring, runtime, telling};

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
    #[arg(long, value_enum, default_value_t = SplitArgument::Train)]
    split: SplitArgument,
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
        self.split.check(&effective.config)?;
        Ok(effective.config)
    }

    /// Whether the training examples are asked for.
    pub(super) fn is_of_training(&self) -> bool {
        matches!(self.split, SplitArgument::Train)
    }

    /// Measures, counted in `unit` on the screen, and gives what was found.
    pub(super) fn measure(&self, config: &Config, what: What, unit: &'static str) -> Result<Value, Failure> {
        let norms = match (self.batch_stats, self.recompute_stats) {
            (true, _) => Norms::Batch,
            (_, true) => Norms::Recomputed,
            _ => Norms::Running,
        };
        let split = match self.split {
            SplitArgument::Train => Part::Train,
            SplitArgument::Validation => Part::Validation,
            SplitArgument::Test => Part::Test,
            SplitArgument::Noisy => Part::Noisy,
        };
        let mut measurement = Measurement { what, split, limit: self.limit, norms, seed: self.seed, progress: None };
        let checkpoint = std::fs::canonicalize(&self.checkpoint)
            .map_err(|e| Failure::Other(format!("cannot read {}: {e}", self.checkpoint.display())))?;
        let progress = Progress::of(&checkpoint, config, &measurement)?;
        measurement.progress = progress.as_ref().map(|progress| progress.path.clone());
        let text = measurement.to_text();
        let size = || progress.as_ref().map_or(0, Progress::size);
        let mut known = size();
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
                    if let Some(progress) = &progress {
                        progress.remove();
                    }
                    return serde_json::from_str(&result).map_err(Failure::other);
                }
                (Ok(()), _) => {
                    return Err(Failure::Stopped(
                        "stopped before the measurement was done; the same command goes on from here".into(),
                    ));
                }
                // Workers that were lost are started anew, for as long as that brings it further.
                (Err(Failure::Other(message)), _) if size() > known => {
                    known = size();
                    log::warn(&format!("{message}; going on from where the measurement was"));
                }
                (Err(failure), _) => {
                    if let Some(progress) = progress.as_ref().filter(|progress| progress.size() == 0) {
                        progress.remove();
                    }
                    return Err(failure);
                }
            }
        }
    }
}

/// Where a measurement keeps what it has so far, until it is done.
struct Progress {
    path: PathBuf,
    /// Held for as long as the measurement goes on: another of the same name keeps nothing.
    _lock: std::fs::File,
}

impl Progress {
    /// A file of the user's cache folder, by what is asked: the same request finds it again. `None`, with a warning, where another command is at it.
    fn of(checkpoint: &Path, config: &Config, measurement: &Measurement) -> Result<Option<Self>, Failure> {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
        let folder = cache.or_else(home).unwrap_or_else(std::env::temp_dir).join("strath").join("measure");
        std::fs::create_dir_all(&folder)
            .map_err(|e| Failure::Other(format!("cannot make {}: {e}; set XDG_CACHE_HOME", folder.display())))?;
        let of_run = (&config.data, &config.model, &config.batch, config.run.seed);
        let asked = format!("{} {} {of_run:?}", checkpoint.display(), measurement.to_text());
        let name = Digest::of(asked.as_bytes()).to_string();
        let path = folder.join(&name[..32]);
        let fail = |e| Failure::Other(format!("cannot make {}: {e}; set XDG_CACHE_HOME", path.display()));
        let lock = std::fs::File::options().create(true).truncate(false).write(true).open(path.with_extension("lock"));
        let lock = lock.map_err(fail)?;
        if lock.try_lock().is_err() {
            log::warn("the same measurement is being made by another command; this one keeps nothing to go on from");
            return Ok(None);
        }
        Ok(Some(Self { path, _lock: lock }))
    }

    /// Bytes of what was kept; its key, the first 32, is none of it.
    fn size(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |file| file.len().saturating_sub(32))
    }

    fn remove(&self) {
        // A leftover is emptied by the next measurement of its name.
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_file(self.path.with_extension("lock"));
    }
}
