//! Training for a moment, to look at the metrics: what `bench step` and `bench scale` measure with.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use strath_core::config::Config;

use super::footprint::{Footprint, Watch};
use crate::outcome::Failure;

/// Steps that do not count: caches, allocator and connections warm up in them.
pub const WARM_UP: usize = 5;
/// How often the metrics are looked at, seldom enough to cost the run nothing.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Longest that a measurement takes.
const DEADLINE: Duration = Duration::from_secs(3600);

/// What a run left behind.
#[derive(Debug)]
pub struct Trained {
    /// Rank 0's lines of the steps that count.
    pub steps: Vec<Value>,
    /// What its workers took of memory.
    pub footprint: Footprint,
}

/// Trains `steps` steps in a process of its own, with `changes` to the configuration (`KEY=VALUE`). The run ends with its last step:
/// it is not evaluated.
///
/// # Errors
/// What the run ended with, where that is before its last step.
pub fn steps(config: &Config, steps: u64, changes: &[String]) -> Result<Trained, Failure> {
    let folder = tempfile::tempdir().map_err(Failure::other)?;
    let [file, log, out] = ["run.toml", "log", "run"].map(|name| folder.path().join(name));
    std::fs::write(&file, config.to_toml()).map_err(Failure::other)?;
    let program = std::env::current_exe().map_err(Failure::other)?;
    let of_all = [
        format!("run.steps={steps}"),
        "run.eval_every_epochs=1000000000".into(),
        "checkpoint.every_steps=1000000000".into(),
    ];
    let mut run = Command::new(program)
        .arg("train")
        .arg(&file)
        .args(of_all.iter().chain(changes).flat_map(|change| ["--set", change]))
        .arg("--out")
        .arg(&out)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log).map_err(Failure::other)?)
        .spawn()
        .map(Run)
        .map_err(Failure::other)?;
    let (mut metrics, mut lines) = (Metrics::new(out.join("metrics.jsonl")), Vec::new());
    let mut watch = Watch::new(run.0.id(), config.cluster.workers, (WARM_UP as u64)..steps);
    let began = Instant::now();
    loop {
        // Looked at first: lines that were written before the end are there after it.
        let ended = run.0.try_wait().map_err(Failure::other)?;
        lines.extend(metrics.new_lines().into_iter().filter(|line| line["kind"] == "step"));
        watch.look(lines.len() as u64);
        if lines.len() as u64 >= steps {
            return Ok(Trained { steps: lines.into_iter().skip(WARM_UP).collect(), footprint: watch.footprint() });
        }
        if ended.is_some() {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let line = said.lines().rev().find(|line| line.starts_with("error: ")).unwrap_or("error: no reason given");
            return Err(Failure::Other(line.trim_start_matches("error: ").into()));
        }
        if began.elapsed() > DEADLINE {
            let (found, limit) = (lines.len(), DEADLINE.as_secs());
            return Err(Failure::Other(format!(
                "found {found} of {steps} steps done after {limit} s; measure fewer with --steps"
            )));
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// The metrics of a run under way, each line read once.
struct Metrics {
    path: PathBuf,
    /// Read to the end of what was there, once there is a file.
    file: Option<File>,
    /// The beginning of a line whose end is still to come.
    rest: Vec<u8>,
}

impl Metrics {
    fn new(path: PathBuf) -> Self {
        Self { path, file: None, rest: Vec::new() }
    }

    /// The lines that have come since.
    fn new_lines(&mut self) -> Vec<Value> {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        if let Some(file) = &mut self.file {
            // What cannot be read now is there the next time; a run without metrics ends at the deadline.
            let _ = file.read_to_end(&mut self.rest);
        }
        let rest = self.rest.split_off(self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1));
        let lines = std::mem::replace(&mut self.rest, rest);
        lines.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }
}

/// A run that ends, with its workers, when this is dropped.
struct Run(Child);

impl Drop for Run {
    fn drop(&mut self) {
        // One that has ended cannot be ended again.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
