//! What a coordinator decides.

use std::fmt;

use strath_core::{Generation, Step, WorkerId};

/// What a coordinator has decided; why it has is told beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// A worker may take part.
    Admits(WorkerId),
    /// A worker that was out of sight goes on where it was.
    TakesBack(WorkerId),
    /// Somebody may not take part.
    Refuses {
        /// Who, in a few words.
        who: String,
    },
    /// A generation begins.
    Forms {
        /// Its number.
        generation: Generation,
        /// Its number of ranks.
        world_size: usize,
        /// Completed steps that it begins with.
        step: Step,
    },
    /// A generation goes on, as its workers have, without the coordinator.
    TakesOver {
        /// Its number.
        generation: Generation,
        /// Its number of ranks.
        world_size: usize,
    },
    /// A generation is to end after the step under way.
    Pauses {
        /// Its number.
        generation: Generation,
    },
    /// A generation ends, and another is to begin.
    Regroups {
        /// The number of the one that ends.
        generation: Generation,
    },
    /// A worker that has come is fed the state by another, while all go on.
    Feeds {
        /// Who has come.
        worker: WorkerId,
        /// Who feeds it.
        donor: WorkerId,
    },
    /// A worker that has come is sent the state as the next generation begins.
    Sends(WorkerId),
    /// A worker has no part in the next generation, as it does not reach the others.
    LeavesOut(WorkerId),
    /// Others are waited for.
    Waits,
    /// The run goes on without a worker.
    Drops(WorkerId),
    /// A worker is to leave.
    Drains(WorkerId),
    /// A worker has left, as it wanted or was to.
    Releases(WorkerId),
    /// The run is to end after the step under way.
    Stops,
    /// The run ends.
    Ends,
    /// The run fails.
    Fails,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count: usize| if count == 1 { "worker" } else { "workers" };
        match self {
            Self::Admits(worker) => write!(f, "admitted worker {worker}"),
            Self::TakesBack(worker) => write!(f, "took worker {worker} back"),
            Self::Refuses { who } => write!(f, "refused {who}"),
            Self::Forms { generation, world_size, step } => {
                write!(f, "formed generation {generation} of {world_size} {} at step {step}", plural(*world_size))
            }
            Self::TakesOver { generation, world_size } => {
                write!(f, "took generation {generation} of {world_size} {} over", plural(*world_size))
            }
            Self::Pauses { generation } => write!(f, "ends generation {generation} after the step under way"),
            Self::Regroups { generation } => write!(f, "ended generation {generation}"),
            Self::Feeds { worker, donor } => write!(f, "has worker {worker} fed by worker {donor}"),
            Self::Sends(worker) => write!(f, "sends worker {worker} the state with the next generation"),
            Self::LeavesOut(worker) => write!(f, "leaves worker {worker} out for a while"),
            Self::Waits => f.write_str("waits for workers"),
            Self::Drops(worker) => write!(f, "dropped worker {worker}"),
            Self::Drains(worker) => write!(f, "drains worker {worker}"),
            Self::Releases(worker) => write!(f, "let worker {worker} go"),
            Self::Stops => f.write_str("stops the run"),
            Self::Ends => f.write_str("ended the run"),
            Self::Fails => f.write_str("gave the run up"),
        }
    }
}
