//! What holds whatever happens: an invariant a file. The simulation states facts, each invariant looks at those that concern it.

mod counted_once;
mod liveness;
mod no_stale;
mod none_slandered;
mod one_holder;
mod steps_advance;
mod weights_agree;

use std::time::Duration;

use strath_core::{Digest, Generation, Rank, Step, Timestamp};
use strath_protocol::Outcome;

use crate::network::ProcessId;
use crate::peers::{Identity, Truth};

/// Something that is true at a moment, which the machines themselves need not know.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// A coordinator has begun, with the record up to this step.
    CoordinatorBegan {
        /// The newest step that is on record.
        recorded: Step,
    },
    /// The coordinator has written a generation down.
    Announced(Generation),
    /// A worker was given its place in a generation.
    Assigned {
        /// The worker.
        process: ProcessId,
        /// Its place.
        identity: Identity,
        /// The step that the generation begins after.
        start: Step,
        /// The step of the state that it holds, if any.
        held: Option<Step>,
        /// The micro-batches of its rank, by the assignment.
        bounds: Vec<usize>,
    },
    /// A rank has computed a micro-batch of the step after `step`, and brings it into the sum.
    Computed {
        /// Its place.
        identity: Identity,
        /// Completed steps.
        step: Step,
        /// Which one.
        micro_batch: usize,
    },
    /// A machine has accepted a segment.
    Accepted {
        /// The place of its rank.
        identity: Identity,
        /// The step of its sum.
        step: Step,
        /// Whose segment it is.
        truth: Truth,
    },
    /// A rank has completed a step.
    Stepped {
        /// Its place.
        identity: Identity,
        /// Completed steps.
        step: Step,
        /// Of its state.
        digest: Digest,
        /// How often the sum counts each micro-batch.
        counts: Vec<i64>,
    },
    /// A worker begins with, holds, or hands over a state.
    Holds {
        /// Its completed steps.
        step: Step,
        /// Its digest.
        digest: Digest,
    },
    /// A step is on record.
    Recorded(Step),
    /// An evaluation after this step is on record.
    Evaluated(Step),
    /// A checkpoint, or the final state, is on the disk.
    Saved {
        /// Its completed steps.
        step: Step,
        /// Its digest.
        digest: Digest,
    },
    /// Training has begun to hang in some process.
    Hangs,
    /// The coordinator has given a worker up because its training hangs, as it says.
    GivenUp(String),
    /// No faults happen from now on.
    Calm,
    /// The coordinator has ended the run.
    Ended(Outcome),
    /// Nothing is left that could happen, or the time is over: the run has come to its end or never will.
    Over {
        /// Worker processes that live.
        living: usize,
    },
}

/// What a run is, for the invariants.
#[derive(Debug, Clone)]
pub struct Run {
    /// The digests of the states after 0 to the last step.
    pub trajectory: Vec<Digest>,
    /// Micro-batches of a batch.
    pub micro_batches: usize,
    /// Steps of the run.
    pub steps: Step,
    /// Steps between two evaluations; the last step has one too.
    pub evaluate_every: u64,
    /// Time within which a run ends once no faults happen.
    pub patience: Duration,
}

/// Something that must hold.
pub trait Invariant {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Takes a fact.
    ///
    /// # Errors
    /// A sentence where it does not hold.
    fn observe(&mut self, fact: &Fact, run: &Run, now: Timestamp) -> Result<(), String>;
}

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{invariant}, at {at:?}: {what}")]
pub struct Violation {
    /// Which one.
    pub invariant: &'static str,
    /// When, in virtual time.
    pub at: Duration,
    /// What was found.
    pub what: String,
}

/// All invariants of one run.
pub struct Invariants {
    run: Run,
    all: Vec<Box<dyn Invariant>>,
    violation: Option<Violation>,
}

impl Invariants {
    /// Those of a run that has not begun.
    pub fn new(run: Run) -> Self {
        let all: Vec<Box<dyn Invariant>> = vec![
            // Causes before effects: a wrong sum makes wrong weights.
            Box::<one_holder::OneHolder>::default(),
            Box::<no_stale::NoStale>::default(),
            Box::<counted_once::CountedOnce>::default(),
            Box::<weights_agree::WeightsAgree>::default(),
            Box::<steps_advance::StepsAdvance>::default(),
            Box::<none_slandered::NoneSlandered>::default(),
            Box::<liveness::Liveness>::default(),
        ];
        Self { run, all, violation: None }
    }

    /// States a fact.
    pub fn observe(&mut self, fact: &Fact, now: Timestamp) {
        for invariant in &mut self.all {
            if let Err(what) = invariant.observe(fact, &self.run, now) {
                let violation = Violation { invariant: invariant.name(), at: now.0, what };
                self.violation.get_or_insert(violation);
            }
        }
    }

    /// The first that did not hold.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// The run that they are of.
    pub fn run(&self) -> &Run {
        &self.run
    }
}

/// A rank of a generation, for messages.
fn place(generation: Generation, rank: Rank) -> String {
    format!("rank {rank} of generation {generation}")
}
