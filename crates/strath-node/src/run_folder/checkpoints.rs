//! The checkpoints of a run: two files each, the newest few of them.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::{CHECKPOINTS, RunFolder, RunFolderError};
use crate::checkpoint::{self, StateFacts};
use crate::files::{self, FileError};

/// A whole checkpoint, as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Completed steps.
    pub step: u64,
    /// What its state says of itself.
    pub facts: StateFacts,
    /// The model file's bytes.
    pub model: Vec<u8>,
    /// The state file's bytes.
    pub state: Vec<u8>,
    /// The model file.
    pub path: PathBuf,
}

impl RunFolder {
    /// Writes the checkpoint of `step`, its state last, and removes all but the newest `keep`.
    ///
    /// # Errors
    /// [`RunFolderError::File`]; older checkpoints are then untouched.
    pub fn write_checkpoint(&self, step: u64, model: &[u8], state: &[u8], keep: usize) -> Result<(), RunFolderError> {
        files::write_whole(&self.model_file(step), model)?;
        files::write_whole(&self.state_file(step), state)?;
        let steps = self.checkpoint_steps()?;
        for old in steps.iter().rev().skip(keep.max(1)) {
            // The state first: a model file alone is no checkpoint to resume from.
            files::remove(&self.state_file(*old))?;
            files::remove(&self.model_file(*old))?;
        }
        Ok(())
    }

    /// The newest checkpoint whose two files are whole and belong together, and a warning for each newer one that is not.
    ///
    /// # Errors
    /// [`RunFolderError::File`] where the folder cannot be listed.
    pub fn newest_checkpoint(&self) -> Result<(Option<Checkpoint>, Vec<String>), RunFolderError> {
        let mut warnings = Vec::new();
        for step in self.checkpoint_steps()?.into_iter().rev() {
            match self.read_checkpoint(step) {
                Ok(found) => return Ok((Some(found), warnings)),
                Err(reason) => {
                    warnings.push(format!("checkpoint {} is not used: {reason}", self.model_file(step).display()));
                }
            }
        }
        Ok((None, warnings))
    }

    fn read_checkpoint(&self, step: u64) -> Result<Checkpoint, String> {
        let model = files::read(&self.model_file(step)).map_err(|e| e.to_string())?;
        let state = files::read(&self.state_file(step)).map_err(|e| e.to_string())?;
        let facts = checkpoint::decode_facts(&state).map_err(|e| e.to_string())?;
        let found = checkpoint::file_digest(&model).map_err(|e| e.to_string())?.to_string();
        if facts.step != step || found != facts.weights_sha256 {
            return Err(format!(
                "its state is of step {} with weights {}, its model has weights {found}",
                facts.step, facts.weights_sha256
            ));
        }
        Ok(Checkpoint { step, facts, model, state, path: self.model_file(step) })
    }

    pub(super) fn checkpoint_steps(&self) -> Result<Vec<u64>, RunFolderError> {
        let folder = self.file(CHECKPOINTS);
        let list = || -> io::Result<Vec<u64>> {
            let mut steps = Vec::new();
            for entry in fs::read_dir(&folder)? {
                let name = entry?.file_name();
                let step = name.to_str().and_then(|n| n.strip_prefix("step-")?.strip_suffix(".state.safetensors"));
                steps.extend(step.and_then(|s| s.parse::<u64>().ok()));
            }
            steps.sort_unstable();
            Ok(steps)
        };
        Ok(list().map_err(|e| FileError::new("list", &folder, e))?)
    }

    pub(super) fn model_file(&self, step: u64) -> PathBuf {
        self.file(CHECKPOINTS).join(format!("step-{step}.safetensors"))
    }

    pub(super) fn state_file(&self, step: u64) -> PathBuf {
        self.file(CHECKPOINTS).join(format!("step-{step}.state.safetensors"))
    }
}
