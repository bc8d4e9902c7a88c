//! The folder of a run: who holds it, and where each file lies.

mod checkpoints;
mod journal;
mod names;
mod owner;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use strath_core::{Digest, Generation, RunId};
use strath_protocol::message::Member;

use crate::checkpoint;
use crate::files::{self, FileError};

pub use checkpoints::Checkpoint;
pub(crate) use journal::Journal;
pub use names::{newest_coordinator, newest_name, unused_name};
pub use owner::{Living, living};

/// What to do about a run that a folder already holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Refuse the folder, unless that run ended before its first step.
    Refuse,
    /// Go on from its newest checkpoint; a folder without a run starts one.
    Resume,
    /// Remove the old run's files.
    Overwrite,
}

/// Why a run's folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunFolderError {
    /// A run is there already.
    #[error("{} already holds a run; add --resume to continue it, --overwrite to replace it, or choose another --out", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// What a run left is there, but not its configuration.
    #[error("{} holds the files of a run but not its config.toml; put that back to continue it, add --overwrite to replace it, or choose another --out", path.display())]
    NoConfig {
        /// The folder.
        path: PathBuf,
    },
    /// Another coordinator is at work in it.
    #[error("{} is held by another coordinator{holder}; wait for it to end, stop it, or choose another --out", path.display())]
    Held {
        /// The folder.
        path: PathBuf,
        /// Its process and address, where its coordinator.json tells.
        holder: String,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The journal cannot be read.
    #[error("{} is not a journal of this program: {reason}; start over with --overwrite or another --out", path.display())]
    Journal {
        /// The journal.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

/// `coordinator.json`: where the coordinator is while it lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoordinatorFile {
    /// Its address, host:port.
    pub address: String,
    /// Its process.
    pub pid: u32,
    /// Its host.
    pub host: String,
    /// The run's id.
    pub run: String,
}

/// A run's folder, locked for as long as this value lives.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    journal: Journal,
    /// Held for its lock, which ends with the process whatever ends it.
    _lock: File,
}

const LOCK: &str = ".lock";
const CONFIG: &str = "config.toml";
const COORDINATOR: &str = "coordinator.json";
const TOKEN: &str = "coordinator.token";
const JOURNAL: &str = "journal.json";
const METRICS: &str = "metrics.jsonl";
const SUMMARY: &str = "summary.json";
const FINAL: &str = "final.safetensors";
const CHECKPOINTS: &str = "checkpoints";

/// Whether the run in a folder has left more than its configuration: a line of metrics or a checkpoint.
fn has_begun(path: &Path) -> bool {
    let lines = fs::metadata(path.join(METRICS)).is_ok_and(|metrics| metrics.len() > 0);
    let checkpoints = fs::read_dir(path.join(CHECKPOINTS)).is_ok_and(|mut files| files.next().is_some());
    lines || checkpoints || path.join(FINAL).exists()
}

impl RunFolder {
    /// Makes or opens the folder at `path` and locks it; a new run gets the id `fresh`.
    ///
    /// # Errors
    /// [`RunFolderError`]; nothing of an existing run is touched then.
    pub fn open(path: &Path, existing: Existing, fresh: RunId) -> Result<Self, RunFolderError> {
        let checkpoints = path.join(CHECKPOINTS);
        fs::create_dir_all(&checkpoints).map_err(|e| FileError::new("make", &checkpoints, e))?;
        let path = path.canonicalize().map_err(|e| FileError::new("find", path, e))?;
        let lock_path = path.join(LOCK);
        let lock = File::create(&lock_path).map_err(|e| FileError::new("open", &lock_path, e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = read_coordinator(&path.join(COORDINATOR))
                    .map(|c| format!(" (process {} on {}, {})", c.pid, c.host, c.address))
                    .unwrap_or_default();
                return Err(RunFolderError::Held { path, holder });
            }
            Err(TryLockError::Error(error)) => return Err(FileError::new("lock", &lock_path, error).into()),
        }
        let mut folder = Self { journal: Journal::new(fresh), path, _lock: lock };
        files::sweep(&folder.path)?;
        files::sweep(&folder.file(CHECKPOINTS))?;
        if folder.file(CONFIG).exists() || has_begun(&folder.path) {
            match existing {
                Existing::Resume if !folder.file(CONFIG).exists() => {
                    return Err(RunFolderError::NoConfig { path: folder.path.clone() });
                }
                Existing::Refuse if has_begun(&folder.path) => {
                    return Err(RunFolderError::Occupied { path: folder.path.clone() });
                }
                Existing::Refuse | Existing::Overwrite => folder.clear()?,
                Existing::Resume => folder.journal = folder.read_journal(fresh)?,
            }
        }
        Ok(folder)
    }

    /// The folder, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The run's id.
    pub fn run(&self) -> RunId {
        self.journal.run()
    }

    /// The last generation that was announced; 0 before the first.
    pub fn generation(&self) -> Generation {
        self.journal.generation()
    }

    /// Where the metrics are.
    pub fn metrics(&self) -> PathBuf {
        self.file(METRICS)
    }

    /// Where the model at the end is.
    pub fn final_model(&self) -> PathBuf {
        self.file(FINAL)
    }

    /// The configuration of the run that is here, if there is one.
    ///
    /// # Errors
    /// [`RunFolderError::File`].
    pub fn config(&self) -> Result<Option<String>, RunFolderError> {
        let path = self.file(CONFIG);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = files::read(&path)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Writes the effective configuration; from here on the folder holds a run.
    ///
    /// # Errors
    /// [`RunFolderError::File`].
    pub fn write_config(&self, text: &str) -> Result<(), RunFolderError> {
        self.write_journal()?;
        Ok(files::write_whole(&self.file(CONFIG), text.as_bytes())?)
    }

    /// Everyone of the generation that was at work when the last coordinator ended without saying so, in order of rank, the bounds of
    /// their micro-batches, and the id of the worker that comes next.
    pub fn at_work(&self) -> (Vec<Member>, Vec<usize>, u64) {
        self.journal.at_work()
    }

    /// Writes the generation to the journal and syncs it, before anyone hears of it.
    ///
    /// # Errors
    /// [`RunFolderError::File`]; the generation is then not taken.
    pub fn persist_generation(
        &mut self,
        generation: Generation,
        members: &[Member],
        bounds: Vec<usize>,
        next_worker: u64,
    ) -> Result<(), RunFolderError> {
        let journal = Journal::of(self.run(), generation, members, bounds, next_worker);
        let before = std::mem::replace(&mut self.journal, journal);
        self.write_journal().inspect_err(|_| self.journal = before)
    }

    /// Notes that no worker is at work any more.
    ///
    /// # Errors
    /// [`RunFolderError::File`].
    pub fn persist_end(&mut self) -> Result<(), RunFolderError> {
        let (generation, (.., next_worker)) = (self.generation(), self.at_work());
        self.persist_generation(generation, &[], Vec::new(), next_worker)
    }

    /// Tells where the coordinator is.
    ///
    /// # Errors
    /// [`RunFolderError::File`].
    pub fn write_coordinator(&self, file: &CoordinatorFile) -> Result<(), RunFolderError> {
        Ok(files::write_whole(&self.file(COORDINATOR), &json(file))?)
    }

    /// Keeps the token that workers must present, for the run's owner alone: whoever has it may have a worker leave.
    ///
    /// # Errors
    /// [`RunFolderError::File`].
    pub fn write_token(&self, token: &str) -> Result<(), RunFolderError> {
        Ok(files::write_secret(&self.file(TOKEN), token.as_bytes())?)
    }

    /// Writes `summary.json`.
    ///
    /// # Errors
    /// [`RunFolderError::File`].
    pub fn write_summary(&self, summary: &impl Serialize) -> Result<(), RunFolderError> {
        Ok(files::write_whole(&self.file(SUMMARY), &json(summary))?)
    }

    /// The summary of a finished run.
    pub fn summary(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&files::read(&self.file(SUMMARY)).ok()?).ok()
    }

    /// Writes `final.safetensors`.
    ///
    /// # Errors
    /// [`RunFolderError::File`].
    pub fn write_final(&self, model: &[u8]) -> Result<(), RunFolderError> {
        Ok(files::write_whole(&self.file(FINAL), model)?)
    }

    /// `weights_sha256` of `final.safetensors` as it is on the disk.
    ///
    /// # Errors
    /// Why it cannot be read, in one line.
    pub fn final_digest(&self) -> Result<Digest, String> {
        let path = self.file(FINAL);
        let bytes = files::read(&path).map_err(|e| e.to_string())?;
        checkpoint::file_digest(&bytes).map_err(|e| format!("{}: {e}", path.display()))
    }

    /// Removes what an earlier run left.
    fn clear(&self) -> Result<(), RunFolderError> {
        for step in self.checkpoint_steps()? {
            files::remove(&self.state_file(step))?;
            files::remove(&self.model_file(step))?;
        }
        for name in [SUMMARY, FINAL, METRICS, JOURNAL, COORDINATOR, TOKEN] {
            files::remove(&self.file(name))?;
        }
        crate::tensorboard::remove_event_files(&self.path)?;
        Ok(files::remove(&self.file(CONFIG))?)
    }

    fn read_journal(&self, fresh: RunId) -> Result<Journal, RunFolderError> {
        let path = self.file(JOURNAL);
        if !path.exists() {
            return Ok(Journal::new(fresh));
        }
        let bytes = files::read(&path)?;
        Journal::parse(&bytes).map_err(|e| RunFolderError::Journal { path, reason: e.to_string() })
    }

    fn write_journal(&self) -> Result<(), RunFolderError> {
        Ok(files::write_whole(&self.file(JOURNAL), &self.journal.to_bytes())?)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // coordinator.json says that a coordinator lives; its absence is only a courtesy, the lock is what counts.
        let _ = files::remove(&self.file(COORDINATOR));
        // The token is worth nothing any more.
        let _ = files::remove(&self.file(TOKEN));
    }
}

/// Reads a `coordinator.json`.
pub fn read_coordinator(path: &Path) -> Option<CoordinatorFile> {
    parse_coordinator(&fs::read(path).ok()?)
}

pub(crate) fn parse_coordinator(bytes: &[u8]) -> Option<CoordinatorFile> {
    serde_json::from_slice(bytes).ok()
}

fn json(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("plain structs with string keys are valid JSON");
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use strath_core::WorkerId;

    use super::*;

    #[test]
    fn a_folder_that_holds_a_run_is_refused_resumed_or_overwritten() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("run");
        let folder = RunFolder::open(&path, Existing::Refuse, RunId(1)).unwrap();
        folder.write_config("[run]\n").unwrap();
        drop(folder);
        let mut folder = RunFolder::open(&path, Existing::Refuse, RunId(1)).unwrap();
        assert_eq!(folder.config().unwrap(), None, "a run that ended before its first step is in nobody's way");
        folder.write_config("[run]\n").unwrap();
        let member = Member { worker: WorkerId(4), ring_address: ([127, 0, 0, 1], 5).into() };
        folder.persist_generation(Generation(3), &[member], vec![0, 8], 6).unwrap();
        fs::write(folder.metrics(), "{}\n").unwrap();
        drop(folder);
        let refused = RunFolder::open(&path, Existing::Refuse, RunId(2));
        assert!(matches!(refused, Err(RunFolderError::Occupied { .. })), "{refused:?}");
        let mut resumed = RunFolder::open(&path, Existing::Resume, RunId(2)).unwrap();
        assert_eq!((resumed.run(), resumed.generation()), (RunId(1), Generation(3)));
        assert_eq!(resumed.at_work(), (vec![member], vec![0, 8], 6));
        resumed.persist_end().unwrap();
        assert_eq!((resumed.generation(), resumed.at_work()), (Generation(3), (Vec::new(), Vec::new(), 6)));
        drop(resumed);
        let fresh = RunFolder::open(&path, Existing::Overwrite, RunId(2)).unwrap();
        assert_eq!((fresh.run(), fresh.generation(), fresh.config().unwrap()), (RunId(2), Generation(0), None));
    }

    #[test]
    fn a_second_coordinator_is_kept_out_and_told_who_is_in() {
        let parent = tempfile::tempdir().unwrap();
        let first = RunFolder::open(parent.path(), Existing::Refuse, RunId(1)).unwrap();
        let file = CoordinatorFile {
            address: "127.0.0.1:9".into(),
            pid: 42,
            host: "here".into(),
            run: first.run().to_string(),
        };
        first.write_coordinator(&file).unwrap();
        let second = RunFolder::open(parent.path(), Existing::Resume, RunId(2));
        let message = second.map(|_| ()).unwrap_err().to_string();
        assert!(message.contains("process 42 on here, 127.0.0.1:9"), "{message}");
        drop(first);
        assert!(RunFolder::open(parent.path(), Existing::Resume, RunId(2)).is_ok());
        assert_eq!(read_coordinator(&parent.path().join(COORDINATOR)), None);
    }
}
