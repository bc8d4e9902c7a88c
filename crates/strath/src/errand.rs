//! A run without a folder, on workers that this process starts: what `eval` and `measure` do.

use std::path::{Path, PathBuf};

use strath_core::config::Config;
use strath_node::coordinator::{CoordinatorSettings, RunEnd};
use strath_node::local::LocalWorkers;
use strath_node::progress::Observer;
use strath_node::start;
use strath_protocol::Gather;
use strath_protocol::message::Job;

use crate::outcome::Failure;
use crate::{log, runtime};

/// Does a job with a checkpoint on `cluster.workers` processes of this machine; `observer` hears of it.
///
/// # Errors
/// [`Failure`], with one line that says whose fault it was.
pub async fn run(config: Config, checkpoint: &Path, job: Job, observer: Observer) -> Result<RunEnd, Failure> {
    let start = start::from_file(checkpoint).map_err(Failure::other)?;
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
        job,
        gather: Gather::Exactly(workers),
        tls: None,
        token: Some(token),
        ring_key: runtime::ring_key()?,
        start: Some(start),
        local: Some(local),
    };
    Ok(strath_node::coordinator::run(settings, observer, runtime::stop_signals()?).await?)
}

/// A folder for the workers' logs that is gone when the command is.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("strath-workers-{:016x}", runtime::random_word()?));
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
