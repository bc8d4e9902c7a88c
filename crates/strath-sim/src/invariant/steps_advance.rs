//! Steps never go back.
//!
//! ```text
//! record of one coordinator:     s_1 = begun after + 1,  s_(i+1) = s_i + 1        each step once, none left out
//! evaluations on record:         every step that has one, once
//! a worker that holds step h and is given a place in a generation that begins after step s:      s >= h
//! at the end of a complete run:  every step of 1 ..= steps is on record
//! ```
//!
//! Outputs are keyed by step and the first wins; a step that was completed is not computed again by whoever completed it.

use std::collections::BTreeSet;

use strath_core::{Step, Timestamp};
use strath_protocol::Outcome;

use super::{Fact, Invariant, Run, place};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct StepsAdvance {
    recorded: Step,
    evaluated: BTreeSet<Step>,
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
                self.evaluated.retain(|step| step <= recorded);
            }
            Fact::Recorded(step) => {
                if step.0 != self.recorded.0 + 1 {
                    return Err(format!("step {step} is on record after step {}", self.recorded));
                }
                self.recorded = *step;
            }
            Fact::Evaluated(step) if !self.evaluated.insert(*step) => {
                return Err(format!("the evaluation of step {step} is on record twice"));
            }
            Fact::Assigned { identity, start, held: Some(held), .. } if start < held => {
                let who = place(identity.generation, identity.rank);
                return Err(format!("{who} holds step {held} and is to begin after step {start}"));
            }
            Fact::Ended(Outcome::Done { steps, .. }) => {
                if [*steps, self.recorded] != [run.steps; 2] {
                    let recorded = self.recorded;
                    return Err(format!(
                        "the run of {} steps ended after {steps}, with {recorded} on record",
                        run.steps
                    ));
                }
                let is_due = |step: &u64| step.is_multiple_of(run.evaluate_every) || *step == run.steps.0;
                let due: BTreeSet<Step> = (1..=run.steps.0).filter(is_due).map(Step).collect();
                if self.evaluated != due {
                    return Err(format!("evaluations of {:?} are on record, expected {due:?}", self.evaluated));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
