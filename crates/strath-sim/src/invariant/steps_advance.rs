//! Steps never go back.
//!
//! ```text
//! record of one coordinator:     s_1 = begun after + 1,  s_(i+1) = s_i + 1        each step once, none left out
//! evaluations on record:         e_1 < e_2 < ...
//! a worker that holds step h and is given a place in a generation that begins after step s:      s >= h
//! at the end of a complete run:  every step of 1 ..= steps is on record, and an evaluation after the last
//! ```
//!
//! Outputs are keyed by step and the first wins; a step that was completed is not computed again by whoever completed it.

use strath_core::{Step, Timestamp};
use strath_protocol::Outcome;

use super::{Fact, Invariant, Run, place};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct StepsAdvance {
    recorded: Step,
    evaluated: Step,
}

impl Invariant for StepsAdvance {
    fn name(&self) -> &'static str {
        "steps never go back"
    }

    fn observe(&mut self, fact: &Fact, run: &Run, _now: Timestamp) -> Result<(), String> {
        match fact {
            Fact::CoordinatorBegan { recorded } => {
                // What is on record beyond the checkpoint is dropped, and made again.
                self.recorded = *recorded;
                self.evaluated = self.evaluated.min(*recorded);
            }
            Fact::Recorded(step) => {
                if step.0 != self.recorded.0 + 1 {
                    return Err(format!("step {step} is on record after step {}", self.recorded));
                }
                self.recorded = *step;
            }
            Fact::Evaluated(step) => {
                if *step <= self.evaluated {
                    return Err(format!("the evaluation of step {step} is on record after that of {}", self.evaluated));
                }
                self.evaluated = *step;
            }
            Fact::Assigned { identity, start, held: Some(held), .. } if start < held => {
                let who = place(identity.generation, identity.rank);
                return Err(format!("{who} holds step {held} and is to begin after step {start}"));
            }
            Fact::Ended(Outcome::Done { steps, .. }) => {
                let (recorded, evaluated) = (self.recorded, self.evaluated);
                if [*steps, recorded, evaluated] != [run.steps; 3] {
                    return Err(format!(
                        "the run of {} steps ended after {steps}, with {recorded} on record and the evaluation of {evaluated}",
                        run.steps
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
