//! What the state machines want done: plain data, carried out in order by the runtimes.

use strath_core::{Digest, Generation, Step, WorkerId};

use crate::event::Connection;
use crate::message::{
    Admitted, Assign, CommunicatorId, CoordinatorMessage, EvalReport, Feed, Follow, Member, State, StepReport,
    WorkerMessage,
};

/// What a coordinator wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum CoordinatorCommand {
    /// Say something to a worker.
    Send {
        /// Its session.
        connection: Connection,
        /// What to say.
        message: CoordinatorMessage,
    },
    /// End a session, after what was sent to it has left.
    Close(Connection),
    /// Write the generation down and sync it, before any command that follows.
    PersistGeneration {
        /// Its number.
        generation: Generation,
        /// Everyone, in order of rank.
        members: Vec<Member>,
        /// Rank r holds micro-batches `bounds[r]..bounds[r + 1]`.
        bounds: Vec<usize>,
        /// The id of the worker that comes next.
        next_worker: u64,
    },
    /// The run goes on from this step: what the record says of later ones is to be cut off.
    Rewind(Step),
    /// Note something in the run's record.
    Record(Record),
    /// Write a state down, then answer with `Saved` or `WriteFailed`.
    Save(State),
    /// The run is over.
    Finish(Outcome),
}

/// Something for the run's record.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A completed step.
    Step(StepReport),
    /// An evaluation.
    Eval(EvalReport),
    /// How far a measurement has come.
    Measuring {
        /// What is done, in the measurement's own count.
        done: u64,
        /// Out of how much; 0: it cannot be told.
        of: u64,
    },
    /// A generation began.
    Generation {
        /// Its number.
        generation: Generation,
        /// Everyone, in order of rank.
        members: Vec<Place>,
        /// Completed steps it begins with.
        step: Step,
        /// Steps of the whole run.
        steps: Step,
        /// Why it began.
        cause: String,
    },
    /// The ranks of the generation that was noted last are connected and take its first step.
    Started(Generation),
    /// Something that the owner should know but that stops nothing.
    Warning(String),
}

/// One rank of a generation, for the run's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its worker.
    pub worker: WorkerId,
    /// The worker's host.
    pub host: String,
    /// Micro-batches that it holds of every batch.
    pub micro_batches: usize,
}

/// How a run ends.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It is complete.
    Done {
        /// Completed steps.
        steps: Step,
        /// SHA-256 of the final weights, on which every rank agrees.
        weights: Digest,
    },
    /// A checkpoint was evaluated.
    Evaluated(EvalReport),
    /// A checkpoint was measured, with this result as JSON.
    Measured(String),
    /// It was stopped after a checkpoint of this step; `None`: before the first step.
    Stopped {
        /// The step.
        step: Option<Step>,
    },
    /// It failed.
    Failed {
        /// Why, in one line.
        message: String,
    },
    /// It cannot begin: the configuration does not fit the data or the model.
    Misconfigured {
        /// What does not fit, in one line.
        message: String,
    },
}

/// What a worker wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkerCommand {
    /// Say something to the coordinator.
    Send(WorkerMessage),
    /// Load data, build the model.
    Prepare(Admitted),
    /// Connect the ring, with the state to start from.
    Connect {
        /// The place in the generation.
        assign: Assign,
        /// The state, where the run does not start from the seed.
        state: Option<State>,
    },
    /// Begin to train or evaluate.
    Run {
        /// By what the ranks' GPUs find each other, where they sum by themselves.
        communicator: Option<CommunicatorId>,
    },
    /// Ask every rank to stop after the step under way.
    StopAfterStep,
    /// Ask every rank to rest after the step under way: training answers with `Paused`, then `Rested`.
    PauseAfterStep,
    /// Leave the generation: end every wait of its connection and its training, then answer with `Rested`.
    Halt,
    /// Hand over the state that is held: answer with `StateReady`.
    HandOver(Generation),
    /// Feed a newcomer with the state and with what each step reduces, beside the training.
    Feed(Feed),
    /// Follow the generation as it is fed: say `CaughtUp` once at most a step is missing, and `Followed` when the feed has ended.
    Follow(Follow),
    /// Follow no more; what was fed is of no use.
    StopFollowing,
    /// Look for the coordinator again, then answer with `Reconnected`, or with `Disconnected` where it was not found for a while.
    Reconnect {
        /// How it was lost, in one line; `None`: it was looked for before.
        lost: Option<String>,
    },
    /// The session is over: end every wait, and the process.
    Exit(WorkerOutcome),
}

/// How a worker ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerOutcome {
    /// The run is complete.
    Done,
    /// The run was stopped after a checkpoint.
    Stopped,
    /// The worker wanted to leave, and the run goes on without it.
    Released,
    /// The coordinator is gone: the run may go on.
    Lost {
        /// How, in one line.
        message: String,
    },
    /// The coordinator has given the worker up: the run goes on, and the worker may join it again.
    Outdated {
        /// Why, in one line.
        message: String,
    },
    /// The run, or this worker, failed.
    Failed {
        /// Why, in one line.
        message: String,
    },
}
