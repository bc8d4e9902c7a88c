//! A rank has one holder in a generation, and a generation is announced once.
//!
//! ```text
//! for all generations g and ranks r:    at most one process takes (g, r)
//! announced generations:                g_1 < g_2 < g_3 ...
//! every (g, r) that is taken:           g was announced, r < world size, and all of g know the same world size
//! ```
//!
//! Two ranks 0 would both report, and a ring with a rank twice does not close. The number of a generation is written down before it is
//! announced, so that not even a coordinator that begins again gives one out twice.

use std::collections::BTreeMap;

use strath_core::{Generation, Rank, Timestamp};

use super::{Fact, Invariant, Run, place};
use crate::network::ProcessId;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct OneHolder {
    announced: Generation,
    holders: BTreeMap<(Generation, Rank), ProcessId>,
    world_sizes: BTreeMap<Generation, u32>,
}

impl Invariant for OneHolder {
    fn name(&self) -> &'static str {
        "one holder of a rank in a generation"
    }

    fn observe(&mut self, fact: &Fact, _run: &Run, _now: Timestamp) -> Result<(), String> {
        match fact {
            Fact::Announced(generation) => {
                if *generation <= self.announced {
                    return Err(format!("generation {generation} was announced after {}", self.announced));
                }
                self.announced = *generation;
                Ok(())
            }
            Fact::Assigned { process, identity, .. } => {
                let (generation, rank) = (identity.generation, identity.rank);
                if generation > self.announced || rank.0 >= identity.world_size {
                    return Err(format!("{} of {} was never announced", place(generation, rank), identity.world_size));
                }
                let known = *self.world_sizes.entry(generation).or_insert(identity.world_size);
                if known != identity.world_size {
                    return Err(format!("generation {generation} has {known} ranks and {} too", identity.world_size));
                }
                let holder = *self.holders.entry((generation, rank)).or_insert(*process);
                if holder == *process {
                    Ok(())
                } else {
                    Err(format!("{} is held by processes {} and {}", place(generation, rank), holder.0, process.0))
                }
            }
            _ => Ok(()),
        }
    }
}
