//! Finding or making the folder of a run, and where the run starts.

use std::path::{Path, PathBuf};

use strath_core::RunId;
use strath_core::config::{Config, resumable};
use strath_node::run_folder::{Existing, RunFolder, RunFolderError, newest_name, unused_name};
use strath_node::start;
use strath_protocol::Start;

use crate::configuration::OutArguments;
use crate::outcome::Failure;
use crate::{runtime, telling};

/// A run's folder, locked, and what to start from.
pub struct Opened {
    /// The folder.
    pub folder: RunFolder,
    /// The checkpoint, else the state of `model.init`; `None`: the seed's.
    pub start: Option<Start>,
}

/// Opens the folder of a run; `None` where the run in it is finished already, which is said.
///
/// # Errors
/// [`Failure`]: the folder holds another run, or is held, or its configuration does not agree.
pub fn open(config: &Config, out: &OutArguments) -> Result<Option<Opened>, Failure> {
    // Read before anything is made, so that a wrong one leaves no folder behind.
    let init = start::from_init(config).map_err(Failure::other)?;
    let runs = Path::new("runs");
    let existing = match (out.resume, out.overwrite) {
        (true, _) => Existing::Resume,
        (_, true) => Existing::Overwrite,
        _ => Existing::Refuse,
    };
    let run = RunId(runtime::random_word()?);
    let mut folder = loop {
        let path: PathBuf = match &out.out {
            Some(path) => path.clone(),
            None if out.resume || out.overwrite => newest_name(runs, &config.run.name),
            None => unused_name(runs, &config.run.name),
        };
        match RunFolder::open(&path, existing, run) {
            // Another command came first to a name that was free a moment ago.
            Err(RunFolderError::Held { .. } | RunFolderError::Occupied { .. })
                if out.out.is_none() && existing == Existing::Refuse => {}
            opened => break opened.map_err(Failure::other)?,
        }
    };
    let mut config = config.clone();
    let mut start = init;
    if let Some(text) = folder.config().map_err(Failure::other)? {
        let before = Config::from_toml(&text).map_err(|e| {
            Failure::Other(format!("{}: {e}; start over with --overwrite or another --out", folder.path().display()))
        })?;
        resumable(&before, &config)?;
        if !is_same_for_workers(&before, &config) {
            // Whoever is at work goes by the old one: it joins again, and the run goes on from its newest checkpoint.
            folder.persist_end().map_err(Failure::other)?;
        }
        // What the run began with stays on record, wherever the flags point now.
        config.model.init = before.model.init;
        if let Some(summary) = folder.summary() {
            let error = &summary["test_error"];
            telling::print(&format!("{} is finished: test error {error}\n", telling::short(folder.path())))?;
            return Ok(None);
        }
        let (checkpoint, warnings) = folder.newest_checkpoint().map_err(Failure::other)?;
        telling::warn(&warnings);
        start = checkpoint.map(start::from_checkpoint).or(start);
    }
    folder.write_config(&config.to_toml()).map_err(Failure::other)?;
    Ok(Some(Opened { folder, start }))
}

/// Whether workers that were admitted with one configuration may go on under the other: they differ in nothing but what the coordinator alone
/// goes by.
fn is_same_for_workers(before: &Config, now: &Config) -> bool {
    let mut before = before.clone();
    before.model.init.clone_from(&now.model.init);
    let (one, other) = (&mut before.cluster, &now.cluster);
    (one.workers, one.min_workers, one.gather_ms) = (other.workers, other.min_workers, other.gather_ms);
    before == *now
}
