//! No stale segment is accepted.
//!
//! ```text
//! a machine of (generation g, step s) accepts a segment that was sent for (g', s'):     g' = g and s' = s
//! and its sender is the process that holds a rank of g
//! ```
//!
//! A segment carries run, generation, step and operation, and a machine never mixes generations (README, invariant 5). What a segment
//! really is travels beside it in the simulation, so a header that lies does not deceive the invariant.

use std::collections::BTreeSet;

use strath_core::{Generation, Timestamp};

use super::{Fact, Invariant, Run, place};
use crate::network::ProcessId;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct NoStale {
    members: BTreeSet<(Generation, ProcessId)>,
}

impl Invariant for NoStale {
    fn name(&self) -> &'static str {
        "no stale segment is accepted"
    }

    fn observe(&mut self, fact: &Fact, _run: &Run, _now: Timestamp) -> Result<(), String> {
        match fact {
            Fact::Assigned { process, identity, .. } => {
                self.members.insert((identity.generation, *process));
                Ok(())
            }
            Fact::Accepted { identity, step, truth } => {
                let who = place(identity.generation, identity.rank);
                if (truth.generation, truth.step) != (identity.generation, *step) {
                    return Err(format!(
                        "{who} took a segment of generation {}, step {} into its sum of step {step}",
                        truth.generation, truth.step
                    ));
                }
                if self.members.contains(&(truth.generation, truth.process)) {
                    Ok(())
                } else {
                    Err(format!("{who} took a segment of process {}, which has no rank there", truth.process.0))
                }
            }
            _ => Ok(()),
        }
    }
}
