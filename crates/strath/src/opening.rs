//! Finding or making the folder of a run, and where the run starts.

use std::path::{Path, PathBuf};

use strath_core::RunId;
use strath_core::config::{Config, resumable};
use strath_node::coordinator::start_from_checkpoint;
use strath_node::run_folder::{Existing, RunFolder, newest_name, unused_name};
use strath_protocol::Start;

use crate::configuration::OutArguments;
use crate::outcome::Failure;
use crate::{runtime, telling};

/// A run's folder, locked, and the checkpoint to go on from.
pub struct Opened {
    /// The folder.
    pub folder: RunFolder,
    /// The checkpoint; `None`: a new run, or one that had not come to its first checkpoint.
    pub start: Option<Start>,
}

/// Opens the folder of a run; `None` where the run in it is finished already, which is said.
///
/// # Errors
/// [`Failure`]: the folder holds another run, or is held, or its configuration does not agree.
pub fn open(config: &Config, out: &OutArguments) -> Result<Option<Opened>, Failure> {
    let runs = Path::new("runs");
    let path: PathBuf = match &out.out {
        Some(path) => path.clone(),
        None if out.resume || out.overwrite => newest_name(runs, &config.run.name),
        None => unused_name(runs, &config.run.name),
    };
    let existing = match (out.resume, out.overwrite) {
        (true, _) => Existing::Resume,
        (_, true) => Existing::Overwrite,
        _ => Existing::Refuse,
    };
    let folder = RunFolder::open(&path, existing, RunId(runtime::random_word()?)).map_err(Failure::other)?;
    let mut start = None;
    if let Some(text) = folder.config().map_err(Failure::other)? {
        let before = Config::from_toml(&text).map_err(|e| {
            Failure::Other(format!("{}: {e}; start over with --overwrite or another --out", folder.path().display()))
        })?;
        resumable(&before, config)?;
        if let Some(summary) = folder.summary() {
            println!("{} is finished: test error {}", telling::short(folder.path()), summary["test_error"]);
            return Ok(None);
        }
        let (checkpoint, warnings) = folder.newest_checkpoint().map_err(Failure::other)?;
        telling::warn(&warnings);
        start = checkpoint.map(start_from_checkpoint);
    }
    folder.write_config(&config.to_toml()).map_err(Failure::other)?;
    Ok(Some(Opened { folder, start }))
}
