//! What somebody outside of a run asks of its coordinator.

use strath_core::WorkerId;

/// A wish that a worker leave the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainRequest {
    /// The worker.
    pub worker: WorkerId,
    /// What to do where others could not take over.
    pub shortage: Shortage,
    /// The join token, where whoever asks has it.
    pub token: Option<String>,
}

/// What to do where fewer workers would be left than the run needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    /// Keep the worker.
    Refuse,
    /// Let it go: the run waits for others.
    Accept,
}

/// What a coordinator says to a [`DrainRequest`]. One that is repeated is answered by how far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DrainAnswer {
    /// The worker leaves, as soon as its work is handed over.
    Leaves,
    /// The worker has left, as it was asked to.
    HasLeft,
    /// The worker stays, for the reason that one line says.
    Refused(String),
}
