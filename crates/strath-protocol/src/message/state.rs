//! Training state on its way between coordinator and workers.

use std::fmt;
use std::sync::Arc;

use strath_core::{Generation, Step};

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
    pub model: Arc<[u8]>,
    /// The state file; empty where there is none.
    pub optimizer: Arc<[u8]>,
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
