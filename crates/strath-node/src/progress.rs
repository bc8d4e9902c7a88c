//! What a run's owner is told while it goes on.

use std::path::PathBuf;

use crate::metrics::{EvalLine, StepLine};

/// Something that happened, in the order of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Happening {
    /// The coordinator listens and waits for workers.
    Listening {
        /// Its address.
        address: String,
        /// How many workers it waits for.
        workers: usize,
    },
    /// Training begins or goes on.
    Began {
        /// Completed steps.
        from: u64,
        /// Steps of the whole run.
        steps: u64,
        /// Number of ranks.
        world_size: u64,
    },
    /// A step was completed.
    Step(StepLine),
    /// The network was evaluated.
    Eval(EvalLine),
    /// A measurement has come so far.
    Measuring {
        /// What is done, in the measurement's own count.
        done: u64,
        /// Out of how much; 0: it cannot be told.
        of: u64,
    },
    /// A checkpoint is on the disk.
    Saved {
        /// Its model file.
        path: PathBuf,
    },
    /// Something that the owner should know but that stops nothing.
    Warning(String),
}

/// Who is told.
pub type Observer = Box<dyn FnMut(Happening) + Send>;
