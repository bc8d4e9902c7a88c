//! Every micro-batch of a step is counted exactly once.
//!
//! ```text
//! for every generation g, step s that some rank of g completes, micro-batch b:
//!     |{ ranks of g that computed (s, b) }| = 1         by account
//!     count_b in the sum of s = 1                       by the sum that the machines made
//! ```
//!
//! A step that is interrupted is computed again in another generation; what was brought into the old sum does not come into the new one.

use std::collections::BTreeMap;

use strath_core::{Generation, Rank, Step, Timestamp};

use super::{Fact, Invariant, Run, place};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct CountedOnce {
    /// Who computed what: (generation, step), then micro-batch, then ranks.
    computed: BTreeMap<(Generation, Step), BTreeMap<usize, Vec<Rank>>>,
}

impl Invariant for CountedOnce {
    fn name(&self) -> &'static str {
        "every micro-batch of a step is counted once"
    }

    fn observe(&mut self, fact: &Fact, run: &Run, _now: Timestamp) -> Result<(), String> {
        match fact {
            Fact::Computed { identity, step, micro_batch } => {
                let next = Step(step.0 + 1);
                let of_step = self.computed.entry((identity.generation, next)).or_default();
                of_step.entry(*micro_batch).or_default().push(identity.rank);
                Ok(())
            }
            Fact::Stepped { identity, step, counts, .. } => {
                let who = place(identity.generation, identity.rank);
                if counts.len() != run.micro_batches || counts.iter().any(|count| *count != 1) {
                    return Err(format!("the sum of step {step} at {who} counts its micro-batches {counts:?} times"));
                }
                let none = BTreeMap::new();
                let of_step = self.computed.get(&(identity.generation, *step)).unwrap_or(&none);
                for micro_batch in 0..run.micro_batches {
                    let ranks = of_step.get(&micro_batch).map_or(&[][..], Vec::as_slice);
                    if ranks.len() != 1 {
                        return Err(format!(
                            "{who} completed step {step}, whose micro-batch {micro_batch} {ranks:?} computed"
                        ));
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
