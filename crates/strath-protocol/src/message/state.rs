//! Training state on its way between coordinator and workers.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use strath_core::{Digest, Generation, Step};

/// Training state on its way: the bytes of a checkpoint's files.
#[derive(Clone, PartialEq, Eq)]
pub struct State {
    /// The generation that sends or gets it.
    pub generation: Generation,
    /// Completed steps.
    pub step: Step,
    /// What it is for.
    pub purpose: Purpose,
    /// The model file.
    pub model: FileBytes,
    /// The state file; empty where there is none.
    pub optimizer: FileBytes,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { generation, step, purpose, model, optimizer } = self;
        write!(
            f,
            "State({purpose:?} of step {step}, generation {generation}, {} + {} bytes)",
            model.len(),
            optimizer.len()
        )
    }
}

/// The bytes of a file, shared by whoever holds a copy, with their SHA-256: whoever has counted it where they came from says so, and nobody
/// counts it again. A state machine that had to would keep everyone waiting.
#[derive(Clone, Default)]
pub struct FileBytes(Arc<Inner>);

#[derive(Default)]
struct Inner {
    bytes: Vec<u8>,
    digest: OnceLock<Digest>,
}

impl FileBytes {
    /// Bytes whose digest has been counted.
    pub fn counted(bytes: Vec<u8>, digest: Digest) -> Self {
        Self(Arc::new(Inner { bytes, digest: OnceLock::from(digest) }))
    }

    /// Their SHA-256; counted now, where it has not been before.
    pub fn digest(&self) -> Digest {
        *self.0.digest.get_or_init(|| Digest::of(&self.0.bytes))
    }

    /// Their SHA-256, where it has been counted.
    pub fn counted_digest(&self) -> Option<Digest> {
        self.0.digest.get().copied()
    }
}

impl From<Vec<u8>> for FileBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Inner { bytes, digest: OnceLock::new() }))
    }
}

impl<const N: usize> From<[u8; N]> for FileBytes {
    fn from(bytes: [u8; N]) -> Self {
        Vec::from(bytes).into()
    }
}

impl FromIterator<u8> for FileBytes {
    fn from_iter<I: IntoIterator<Item = u8>>(bytes: I) -> Self {
        Vec::from_iter(bytes).into()
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl PartialEq for FileBytes {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.bytes == other.0.bytes
    }
}

impl Eq for FileBytes {}

impl fmt::Debug for FileBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

/// What a state is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To start from.
    Start,
    /// To be kept as a checkpoint.
    Checkpoint,
    /// The end of the run.
    Final,
    /// To be passed on to workers that lack it.
    Handover,
}
