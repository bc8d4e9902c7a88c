//! What happens to the state machines.

use std::net::SocketAddr;

use strath_core::{Digest, Generation, Step};

use crate::message::{
    CommunicatorId, CoordinatorMessage, DrainRequest, EvalReport, FailureReport, Finished, Holds, MeasureReport,
    Prepared, Progress, Purpose, State, StepReport, WorkerMessage,
};

/// One session of a worker with the coordinator, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection(pub u64);

/// What happens to a coordinator.
#[derive(Debug, Clone, PartialEq)]
pub enum CoordinatorEvent {
    /// A session began.
    Connected {
        /// The session.
        connection: Connection,
        /// Where it comes from.
        address: SocketAddr,
    },
    /// A worker said something.
    Message {
        /// Its session.
        connection: Connection,
        /// What it said.
        message: WorkerMessage,
    },
    /// A session ended.
    Disconnected {
        /// The session.
        connection: Connection,
        /// How, in a few words.
        cause: String,
    },
    /// A worker process that this machine started has ended.
    ProcessEnded {
        /// Its process.
        pid: u32,
        /// How, in a few words.
        cause: String,
    },
    /// A deadline has passed.
    Tick,
    /// Ctrl-C or SIGTERM.
    StopRequested,
    /// Somebody wants a worker to leave, and was told that it does.
    DrainRequested(DrainRequest),
    /// A state is on the disk.
    Saved {
        /// Its completed steps.
        step: Step,
        /// What it was for.
        purpose: Purpose,
    },
    /// Something could not be written; the run ends.
    WriteFailed {
        /// What, in one line.
        message: String,
    },
}

/// What happens to a worker.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkerEvent {
    /// The coordinator said something.
    Message(CoordinatorMessage),
    /// The session ended.
    Disconnected {
        /// How, in a few words.
        cause: String,
    },
    /// A new session has begun, after one that ended.
    Reconnected,
    /// A deadline has passed.
    Tick,
    /// Data and model are ready.
    Prepared(Prepared),
    /// The ring is connected.
    RingConnected {
        /// The generation.
        generation: Generation,
        /// The GPU that it computes on, where that can sum with others by itself.
        gpu: Option<String>,
        /// By what the ranks' GPUs may find each other; from rank 0.
        communicator: Option<CommunicatorId>,
    },
    /// Training has got here.
    Progress(Progress),
    /// A step is complete.
    Stepped(StepReport),
    /// A split was evaluated.
    Evaluated(EvalReport),
    /// A measurement has come further, or to its end.
    Measured(MeasureReport),
    /// A state is ready to be kept.
    StateReady(State),
    /// Training is through.
    Finished(Finished),
    /// Every rank rests after this step, as some of them were asked to; `Rested` follows.
    Paused(Generation),
    /// The threads of a generation have ended, in order or not, and given back the state that the worker holds, if any; its ring can
    /// be reached at an address of the next generation.
    Rested {
        /// The generation.
        generation: Generation,
        /// Completed steps and digest of the state.
        held: Option<(Step, Digest)>,
        /// The ring's address.
        ring_address: SocketAddr,
    },
    /// The generation that is followed is at most a step ahead.
    CaughtUp {
        /// The generation.
        generation: Generation,
        /// Completed steps.
        step: Step,
    },
    /// A feed has ended, with this state; or, of generation 0, a state of an earlier session is at hand.
    Followed(Holds),
    /// Something failed.
    Failed(FailureReport),
    /// Ctrl-C or SIGTERM: whoever runs the worker wants it to end.
    StopRequested,
    /// The process that started it is gone: there is nobody to finish for.
    LeaveRequested {
        /// Why, in a few words.
        reason: String,
    },
}
