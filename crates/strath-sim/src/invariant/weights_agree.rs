//! Weights agree.
//!
//! ```text
//! for every rank, generation and step s:    digest(state after s) = trajectory[s]
//! ```
//!
//! The trajectory is that of one worker which nothing befalls. A state that is a function of its step is the product's first promise: the
//! same bits for any number of workers, whatever happens to them (README, invariant 6). It holds of what workers compute, of what they
//! hold between two generations, of every checkpoint and of the end.

use strath_core::{Digest, Step, Timestamp};
use strath_protocol::Outcome;

use super::{Fact, Invariant, Run};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct WeightsAgree;

fn check(run: &Run, step: Step, digest: Digest, whose: &str) -> Result<(), String> {
    match run.trajectory.get(step.0 as usize) {
        Some(expected) if *expected == digest => Ok(()),
        Some(expected) => Err(format!("{whose} has state {digest} after step {step}, expected {expected}")),
        None => Err(format!("{whose} has a state of step {step}, the run has {} steps", run.steps)),
    }
}

impl Invariant for WeightsAgree {
    fn name(&self) -> &'static str {
        "weights agree"
    }

    fn observe(&mut self, fact: &Fact, run: &Run, _now: Timestamp) -> Result<(), String> {
        match fact {
            Fact::Stepped { identity, step, digest, .. } => {
                check(run, *step, *digest, &super::place(identity.generation, identity.rank))
            }
            Fact::Holds { step, digest } => check(run, *step, *digest, "a worker between two generations"),
            Fact::Saved { step, digest } => check(run, *step, *digest, "the disk"),
            Fact::Ended(Outcome::Done { steps, weights }) => check(run, *steps, *weights, "the end of the run"),
            _ => Ok(()),
        }
    }
}
