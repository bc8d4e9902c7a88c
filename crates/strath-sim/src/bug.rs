//! Known bugs, put back on purpose: an invariant that never finds anything proves nothing.
//!
//! The machines stay as they are. What goes into them or comes out of them is rewritten to what a faulty one would take or say.

use strath_core::{Rank, Step};
use strath_protocol::message::{CoordinatorMessage, Phase, WorkerMessage};
use strath_protocol::{CoordinatorCommand, CoordinatorEvent, WorkerCommand};

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A worker that leaves its generation does not say which steps are not on record: whoever was to report them may be gone.
    ForgetsUnrecordedSteps,
    /// A rank lets whoever connects in, and takes frames of old generations for its own.
    AcceptsOldGenerations,
    /// The coordinator forms a generation at a state that is not the furthest.
    FormsBehindTheFurthest,
    /// The coordinator gives rank 0 to two workers.
    GivesARankTwice,
    /// A rank computes the first micro-batch of the next one as well.
    ComputesOneTooMany,
    /// A worker whose step is interrupted has moved its weights already.
    MovesWeightsEarly,
    /// A worker that has left its generation does not say so.
    NeverSaysHalted,
    /// What workers say of where they are never changes.
    SaysItComputesForEver,
}

impl Bug {
    /// What a faulty worker does in place of this; `None`: nothing.
    pub fn of_worker(self, mut command: WorkerCommand) -> Option<WorkerCommand> {
        if let WorkerCommand::Send(WorkerMessage::Halted(halted)) = &mut command {
            match self {
                Self::ForgetsUnrecordedSteps => halted.unrecorded.clear(),
                Self::NeverSaysHalted => return None,
                _ => {}
            }
        }
        Some(command)
    }

    /// What a faulty coordinator hears in place of this.
    pub fn to_coordinator(self, mut event: CoordinatorEvent) -> CoordinatorEvent {
        if let (
            Self::FormsBehindTheFurthest,
            CoordinatorEvent::Message { message: WorkerMessage::Halted(halted), .. },
        ) = (self, &mut event)
        {
            // Of states of even steps it is not told.
            halted.held = halted.held.filter(|(step, _)| !step.0.is_multiple_of(2) || *step == Step(0));
        }
        if let (
            Self::SaysItComputesForEver,
            CoordinatorEvent::Message { message: WorkerMessage::Heartbeat(progress), .. },
        ) = (self, &mut event)
        {
            (progress.step, progress.phase) = (Step(0), Phase::Ascent);
        }
        event
    }

    /// What a faulty coordinator does in place of this.
    pub fn of_coordinator(self, mut command: CoordinatorCommand) -> CoordinatorCommand {
        if let (Self::GivesARankTwice, CoordinatorCommand::Send { message: CoordinatorMessage::Assign(assign), .. }) =
            (self, &mut command)
            && assign.rank == Rank(1)
        {
            assign.rank = Rank(0);
        }
        command
    }
}
