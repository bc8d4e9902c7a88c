//! The configuration arguments that commands share, and the layers they stand for.

use std::path::{Path, PathBuf};

use clap::Args;
use strath_core::config::{Effective, Layers};

use crate::outcome::Failure;

/// What runs where no file is named: the built-in digits.
const DIGITS: &str = include_str!("../../../configs/digits.toml");

/// Changes to a configuration file.
#[derive(Debug, Args)]
pub struct Changes {
    /// Sets one key, such as sam.rho=0.1; may be repeated. Overrides the environment (`STRATH__SAM__RHO`) and the file.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// A flag that stands for a key with a count: the key, the flag's name, the count.
pub type CountFlag = (&'static str, &'static str, usize);

/// `--workers`.
pub fn workers_flag(count: Option<usize>) -> Option<CountFlag> {
    count.map(|count| ("cluster.workers", "--workers", count))
}

impl Changes {
    /// The effective configuration: defaults, then `file` (none: the built-in digits), the environment and the flags.
    ///
    /// # Errors
    /// [`Failure::Usage`] with the key at fault, [`Failure::Other`] where the file cannot be read.
    pub fn resolve(&self, file: Option<&Path>, workers: Option<CountFlag>) -> Result<Effective, Failure> {
        let here = std::env::current_dir().map_err(Failure::other)?;
        let layers = match file {
            None => Layers::new().file(DIGITS, "configs/digits.toml (built in)", &here)?,
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|e| Failure::Usage(format!("cannot read the configuration {}: {e}", path.display())))?;
                let folder = here.join(path).parent().map_or_else(|| here.clone(), Path::to_path_buf);
                Layers::new().file(&text, &path.display().to_string(), &folder)?
            }
        };
        let mut layers = layers.environment(environment(), &here)?;
        for assignment in &self.set {
            layers = layers.set(assignment, &here)?;
        }
        if let Some((key, flag, count)) = workers {
            layers = layers.set_value(key, count as i64, flag, &here)?;
        }
        Ok(layers.resolve()?)
    }
}

/// The variables of this process, those that are not Unicode left out: no key of the configuration could be meant.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Where a run's folder goes.
#[derive(Debug, Args)]
pub struct OutArguments {
    /// The run's folder [default: runs/NAME, then NAME-2 and so on]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Continue the run in the folder from its newest checkpoint; without one, start it.
    #[arg(long, conflicts_with = "overwrite")]
    pub resume: bool,
    /// Replace the run in the folder.
    #[arg(long)]
    pub overwrite: bool,
}
