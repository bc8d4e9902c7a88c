//! Where a run starts: at a checkpoint, at the tensors of a file, or at the seed's.

use std::path::Path;

use strath_core::config::Config;
use strath_core::{Digest, Step};
use strath_protocol::Start;
use strath_protocol::message::FileBytes;

use crate::files::{self, FileError};
use crate::run_folder::Checkpoint;

/// Where a new run starts: at its initial tensors, where the configuration names a file, else at the seed's.
///
/// # Errors
/// [`FileError`] where the file cannot be read.
pub fn from_init(config: &Config) -> Result<Option<Start>, FileError> {
    let Some(path) = &config.model.init else { return Ok(None) };
    Ok(Some(from_file(path)?))
}

/// A start at the tensors of a model file, step 0.
///
/// # Errors
/// [`FileError`] where the file cannot be read.
pub fn from_file(path: &Path) -> Result<Start, FileError> {
    let model = counted(files::read(path)?);
    let source = path.display().to_string();
    Ok(Start { step: Step(0), source, model, optimizer: None, data: None, numerics: None })
}

/// A start at a checkpoint.
pub fn from_checkpoint(found: Checkpoint) -> Start {
    Start {
        step: Step(found.step),
        source: found.path.display().to_string(),
        data: found.facts.data.parse().ok(),
        numerics: found.facts.numerics.parse().ok(),
        model: counted(found.model),
        optimizer: Some(counted(found.state)),
    }
}

/// Bytes whose digest is counted here, where nobody waits for it yet.
fn counted(bytes: Vec<u8>) -> FileBytes {
    let digest = Digest::of(&bytes);
    FileBytes::counted(bytes, digest)
}
