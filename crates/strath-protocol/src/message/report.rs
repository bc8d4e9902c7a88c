//! What workers tell of their work.

use std::fmt;
use std::net::SocketAddr;

use strath_core::{Digest, Generation, Rank, Step, Telemetry};

use super::Split;

/// Where a worker is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// The generation it works in; 0 before its first.
    pub generation: Generation,
    /// Completed steps.
    pub step: Step,
    /// What it does.
    pub phase: Phase,
    /// Images per second of its own passes over its last steps, whatever its share of them is, waits left out; 0 where nothing was
    /// measured since the heartbeat before: each measurement is told once.
    pub images_per_s: f64,
}

impl Progress {
    /// The speed that it tells, or what was `known` before.
    pub(crate) fn or_known(&self, known: f64) -> f64 {
        if self.images_per_s > 0.0 { self.images_per_s } else { known }
    }
}

/// What a worker does at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Registering.
    Joining,
    /// Loading data, building the model.
    Preparing,
    /// Ready, waiting for a generation.
    Waiting,
    /// Connecting the ring.
    Connecting,
    /// Forward and backward at w.
    Ascent,
    /// Waiting for a shared lane.
    Exchange,
    /// Forward and backward at w + epsilon.
    Descent,
    /// The all-reduce.
    Reduce,
    /// The optimizer.
    Update,
    /// Evaluating a split.
    Evaluate,
    /// Writing its state down.
    Checkpoint,
    /// Through, waiting for the others.
    Finished,
}

impl Phase {
    /// Every phase, in the order of a worker's life.
    pub const ALL: [Self; 12] = [
        Self::Joining,
        Self::Preparing,
        Self::Waiting,
        Self::Connecting,
        Self::Ascent,
        Self::Exchange,
        Self::Descent,
        Self::Reduce,
        Self::Update,
        Self::Evaluate,
        Self::Checkpoint,
        Self::Finished,
    ];

    /// Its name in messages and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Preparing => "preparing",
            Self::Waiting => "waiting",
            Self::Connecting => "connecting",
            Self::Ascent => "ascent",
            Self::Exchange => "exchange",
            Self::Descent => "descent",
            Self::Reduce => "reduce",
            Self::Update => "update",
            Self::Evaluate => "evaluate",
            Self::Checkpoint => "checkpoint",
            Self::Finished => "finished",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A completed step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// The generation that took it.
    pub generation: Generation,
    /// Completed steps, from 1.
    pub step: Step,
    /// Mean loss over the batch at w.
    pub clean_loss: f64,
    /// Mean loss over the batch at w + epsilon.
    pub perturbed_loss: f64,
    /// Learning rate.
    pub lr: f64,
    /// l2 norm of the reduced descent gradient before clipping.
    pub gradient_norm: f64,
    /// Mean over lanes of the l2 norm of epsilon.
    pub epsilon_norm: f64,
    /// Lanes without an ascent direction.
    pub zero_gradient_lanes: u64,
    /// What else its lanes told.
    pub telemetry: Telemetry,
    /// Seconds of the whole step.
    pub seconds: f64,
    /// Seconds of each phase on the reporting rank.
    pub phases: PhaseSeconds,
}

/// Seconds of a step's phases on one rank.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PhaseSeconds {
    /// Reading and augmenting examples.
    pub data: f64,
    /// Forward and backward at w.
    pub ascent: f64,
    /// Epsilon and w + epsilon.
    pub epsilon: f64,
    /// Waiting for the ascent gradients of lanes shared with other ranks.
    pub exchange: f64,
    /// Forward and backward at w + epsilon.
    pub descent: f64,
    /// The all-reduce of the descent gradient, waiting included.
    pub reduce: f64,
    /// Clipping and the optimizer.
    pub update: f64,
}

/// An evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalReport {
    /// The generation that made it.
    pub generation: Generation,
    /// Completed steps.
    pub step: Step,
    /// Which split.
    pub split: Split,
    /// Mean cross-entropy, without smoothing.
    pub loss: f64,
    /// Share of wrong arg-max.
    pub error: f64,
}

impl EvalReport {
    /// Where it stands in the order of evaluations: by step, then by split.
    pub(crate) fn place(&self) -> (Step, Split) {
        (self.step, self.split)
    }
}

/// A measurement under way, or at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeasureReport {
    /// The generation that makes it.
    pub generation: Generation,
    /// What is done, in the measurement's own count.
    pub done: u64,
    /// Out of how much; 0: it cannot be told.
    pub of: u64,
    /// What it found, as JSON: its end.
    pub result: Option<String>,
}

/// Something for the run's record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Report {
    /// A completed step.
    Step(StepReport),
    /// An evaluation.
    Evaluation(EvalReport),
}

/// Steps and evaluations in the order in which they were made, each evaluation after its step, so that the record can be cut at any step.
pub(crate) fn in_order(steps: Vec<StepReport>, evaluations: Vec<EvalReport>) -> Vec<Report> {
    let evaluations = evaluations.into_iter().map(Report::Evaluation);
    let mut reports: Vec<Report> = steps.into_iter().map(Report::Step).chain(evaluations).collect();
    // A stable order: of one step the completed step stays first.
    reports.sort_by_key(|report| match report {
        Report::Step(report) => report.step,
        Report::Evaluation(report) => report.step,
    });
    reports
}

/// A worker that is through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// The generation it worked in.
    pub generation: Generation,
    /// Completed steps.
    pub step: Step,
    /// SHA-256 of its weights and running statistics.
    pub weights: Digest,
    /// Whether it was asked to stop before the last step.
    pub stopped: bool,
}

/// Most steps that a worker tells of when it has left its generation, the newest; and most evaluations.
pub const MOST_STEPS_TOLD: usize = 4096;
/// See [`MOST_STEPS_TOLD`].
pub const MOST_EVALUATIONS_TOLD: usize = 256;

/// A worker that has left its generation and waits for the next.
#[derive(Debug, Clone, PartialEq)]
pub struct Halted {
    /// The generation that it has left.
    pub generation: Generation,
    /// The state that it holds, if any: completed steps, and SHA-256 of everything that the next step depends on.
    pub held: Option<(Step, Digest)>,
    /// Where its ring listens for the next generation.
    pub ring_address: SocketAddr,
    /// Steps that it took part in and that are not on record: whoever was to report them may be gone.
    pub unrecorded: Vec<StepReport>,
    /// Evaluations after the steps on record.
    pub evaluations: Vec<EvalReport>,
}

/// A worker that cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureReport {
    /// The generation it worked in; 0 before its first.
    pub generation: Generation,
    /// Completed steps.
    pub step: Step,
    /// What it was doing.
    pub phase: Phase,
    /// Whose fault it is.
    pub kind: FailureKind,
    /// What happened, in one line.
    pub message: String,
}

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The worker's own, and where it trains every other's alike: the run has diverged, say.
    Own,
    /// The worker's own machine or process, whatever the others do.
    Machine,
    /// The configuration's: it does not fit the data or the model.
    Configuration,
    /// It lost the peer of this rank.
    PeerLost(Rank),
    /// The ranks' GPUs, which sum by themselves, came apart; nobody is known to be at fault.
    GpusApart,
    /// The rank holds another state than the others, as all of them found.
    Deviates(Rank),
}
