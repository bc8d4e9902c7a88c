//! A study's folder: `study.toml`, a folder for each run below `runs`, `results.csv` and the same as `results.parquet`.

use std::path::{Path, PathBuf};

use serde_json::Value;
use strath_node::files;
use strath_node::metrics::Line;
use strath_study::study::{Finished, Measure, PlannedRun};

use super::afterwards;
use crate::outcome::Failure;

/// What was measured of a run's last weights, beside its summary.
pub(super) const MEASURED: &str = "measured.json";

/// The open folder; while it lives no other command works on it.
pub(super) struct StudyFolder {
    path: PathBuf,
    _lock: std::fs::File,
}

impl StudyFolder {
    /// Opens or makes the folder; `text` is the study's file, which is kept there.
    pub(super) fn open(path: &Path, resume: bool, text: &str) -> Result<Self, Failure> {
        let shown = path.display();
        let is_new = !path.join("study.toml").exists();
        if !is_new && !resume {
            let advice = "go on with it by --resume, or choose another folder by --out";
            return Err(Failure::Usage(format!("{shown} holds a study already; {advice}")));
        }
        for folder in ["configs", "logs", "runs"] {
            std::fs::create_dir_all(path.join(folder))
                .map_err(|error| Failure::Other(format!("cannot make {shown}: {error}")))?;
        }
        let lock = std::fs::File::create(path.join("lock")).map_err(Failure::other)?;
        if lock.try_lock().is_err() {
            return Err(Failure::Other(format!("another strath study is at work in {shown}")));
        }
        let folder = Self { path: path.to_path_buf(), _lock: lock };
        folder.write("study.toml", text.as_bytes())?;
        Ok(folder)
    }

    /// A file or folder in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The folder of a run.
    pub(super) fn run(&self, run: &PlannedRun) -> PathBuf {
        self.path.join("runs").join(&run.folder)
    }

    /// Writes a file, whole or not at all.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        files::write_whole(&self.path(name), bytes).map_err(Failure::other)
    }

    /// A run's `summary.json`; none where it is not finished, or something was not measured that is asked for now.
    pub(super) fn summary(&self, run: &PlannedRun, measures: &[Measure]) -> Option<Value> {
        let measured = self.json(run, MEASURED)?;
        let is_whole = afterwards::columns(&run.config, measures).all(|column| measured.get(&column).is_some());
        let is_drawn = !measures.iter().any(|measure| matches!(measure, Measure::Landscape { .. }))
            || self.run(run).join("landscape").join("landscape.csv").exists();
        if is_whole && is_drawn { self.json(run, "summary.json") } else { None }
    }

    /// What came of a run; none where it is not finished and measured.
    pub(super) fn finished(&self, run: &PlannedRun, measures: &[Measure]) -> Option<Finished> {
        let (summary, measured) = (self.summary(run, measures)?, self.json(run, MEASURED)?);
        let measured =
            measured.as_object()?.iter().filter_map(|(key, value)| Some((key.clone(), value.as_f64()?))).collect();
        let lines = std::fs::read_to_string(self.run(run).join("metrics.jsonl")).ok()?;
        let lines = lines.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()).collect();
        Some(Finished { summary, lines, measured })
    }

    fn json(&self, run: &PlannedRun, name: &str) -> Option<Value> {
        serde_json::from_str(&std::fs::read_to_string(self.run(run).join(name)).ok()?).ok()
    }
}
