//! What workers and the coordinator say to each other, as the state machines see it: whole values, no wire format.

mod drain;
mod join;
mod report;
mod state;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use strath_core::{Digest, Generation, Rank, RunId, Step, Ticket, WorkerId};

pub use drain::{DrainAnswer, DrainRequest, Shortage};
pub use join::{Feed, Follow, Holds};
pub use report::{
    EvalReport, FailureKind, FailureReport, Finished, Halted, MOST_EVALUATIONS_TOLD, MOST_STEPS_TOLD, MeasureReport,
    Phase, PhaseSeconds, Progress, StepReport,
};
pub(crate) use report::{Report, in_order};
pub use state::{FileBytes, Purpose, State};

/// From a worker to the coordinator.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkerMessage {
    /// Asks to be admitted; the first message of a session.
    Register(Register),
    /// Data and model are ready.
    Prepared(Prepared),
    /// The ring of this generation is connected.
    RingReady {
        /// The generation it belongs to.
        generation: Generation,
        /// The GPU that it computes on, where that can sum with others by itself, as [`Prepared::gpu`]: it may have come to be unable to.
        gpu: Option<String>,
        /// From rank 0, where it has one: by what the ranks' GPUs find each other.
        communicator: Option<CommunicatorId>,
    },
    /// Says that the worker lives, and where it is.
    Heartbeat(Progress),
    /// A completed step; from rank 0.
    Step(StepReport),
    /// An evaluation; from rank 0.
    Eval(EvalReport),
    /// How far a measurement has come, or what it found; from rank 0.
    Measured(MeasureReport),
    /// The state at a step; from rank 0.
    State(State),
    /// The worker is through.
    Finished(Finished),
    /// The worker cannot go on.
    Failed(FailureReport),
    /// The worker has left its generation, as it was told to, and waits for the next.
    Halted(Halted),
    /// The worker follows the generation that it joins, at most a step behind.
    CaughtUp {
        /// The generation.
        generation: Generation,
        /// Its completed steps.
        step: Step,
    },
    /// What the worker holds, which has no place in a generation.
    Holds(Holds),
    /// The worker wants to leave, whatever the generation: it goes on until it is told to pause or to halt, so that nothing of its work is lost.
    Retiring,
    /// The worker ends at once, without finishing its step.
    Leaving {
        /// The generation that it leaves; 0 before its first.
        generation: Generation,
        /// Why.
        reason: String,
    },
}

/// From the coordinator to a worker.
#[derive(Debug, Clone, PartialEq)]
pub enum CoordinatorMessage {
    /// The worker is one of the run.
    Admitted(Admitted),
    /// Its place in a new generation.
    Assign(Assign),
    /// The state to start from; follows an [`Assign`] that announces it.
    State(State),
    /// Every rank's ring is connected: go.
    Start {
        /// The generation that starts.
        generation: Generation,
        /// By what the ranks' GPUs find each other, where they sum by themselves.
        communicator: Option<CommunicatorId>,
    },
    /// Answers a heartbeat.
    Ack,
    /// Finish the step, save, and end.
    Stop {
        /// The generation that stops.
        generation: Generation,
    },
    /// Have every rank rest after the same completed step, then keep the state, and say [`Halted`]. A [`Self::Halt`] or a
    /// [`Self::Stop`] that comes in between wins.
    Pause {
        /// The generation that is to end.
        generation: Generation,
        /// The newest step that is on record.
        recorded: Step,
    },
    /// Leave the generation at once, keep the state, and say [`Halted`].
    Halt {
        /// The generation that is over.
        generation: Generation,
        /// The newest step that is on record.
        recorded: Step,
    },
    /// Hand over the state that you hold, with [`Purpose::Handover`].
    SendState {
        /// The generation that is over.
        generation: Generation,
    },
    /// Feed a newcomer.
    Feed(Feed),
    /// Follow the generation that you join.
    Follow(Follow),
    /// Answers a [`Register`] of a worker that comes back: it goes on as if it had not been away.
    TakenBack {
        /// The coordinator's generation.
        generation: Generation,
        /// The newest step that is on record: later ones are to be told.
        recorded: Step,
    },
    /// The session is over.
    End(Ending),
}

/// A worker's introduction.
#[derive(Debug, Clone, PartialEq)]
pub struct Register {
    /// Version of the worker's program.
    pub version: String,
    /// The join token, where the coordinator handed one out.
    pub token: Option<String>,
    /// Where its ring listens: the address that peers dial.
    pub ring_address: SocketAddr,
    /// Its host's name.
    pub host: String,
    /// Its process.
    pub pid: u32,
    /// Drawn at random when its process began: two introductions that have it in common are of one process, wherever it listens by then.
    pub nonce: u64,
    /// Cores of its host.
    pub cores: u32,
    /// What it has of the run, where it comes back to a coordinator that it lost; `None`: it is a newcomer.
    pub returning: Option<Box<Returning>>,
}

/// A worker that comes back.
#[derive(Debug, Clone, PartialEq)]
pub struct Returning {
    /// The run.
    pub run: RunId,
    /// Its id in it.
    pub worker: WorkerId,
    /// What it made ready.
    pub prepared: Prepared,
    /// What it was doing.
    pub whence: Whence,
}

/// What a worker that comes back was doing.
#[derive(Debug, Clone, PartialEq)]
pub enum Whence {
    /// It works in this generation, and goes on meanwhile.
    Working(Generation),
    /// It has left its generation, and waits for the next.
    Halted(Halted),
}

/// What an admitted worker has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// Its id for the life of the run.
    pub worker: WorkerId,
    /// The run.
    pub run: RunId,
    /// The effective configuration, as TOML.
    pub configuration: String,
    /// What the run does.
    pub job: Job,
    /// Silence of this length means death, on both sides.
    pub lease: Duration,
    /// A worker that has nothing to do waits so long for a coordinator that is gone.
    pub rejoin_timeout: Duration,
}

/// What a run does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Trains.
    Train,
    /// Evaluates a checkpoint on a split.
    Evaluate(Split),
    /// Measures a checkpoint, as this text asks, which only the workers read.
    Measure(String),
}

/// A part of a data set; of one step they are evaluated in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Split {
    /// The training examples.
    Train,
    /// Those that were split off the training examples.
    Validation,
    /// The test examples.
    Test,
    /// Those training examples whose label is not the one that they came with.
    Noisy,
}

impl Split {
    /// Every split, in order.
    pub const ALL: [Self; 4] = [Self::Train, Self::Validation, Self::Test, Self::Noisy];

    /// Its name in files and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
            Self::Noisy => "noisy",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a worker has made ready.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// Its data.
    pub data: DataSummary,
    /// Number of trainable values.
    pub parameters: u64,
    /// Number of running statistics.
    pub statistics: u64,
    /// Digest of the probe step on its machine.
    pub numerics: Digest,
    /// What no other GPU is called, of any machine: of the one that it computes on, where that can sum with others by itself.
    pub gpu: Option<String>,
}

/// By what the GPUs of a generation find each other: NCCL's unique id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommunicatorId(pub Box<[u8; CommunicatorId::BYTES]>);

impl CommunicatorId {
    /// Its length.
    pub const BYTES: usize = 128;
}

/// A data set in a few numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct DataSummary {
    /// SHA-256 of everything that decides the examples.
    pub digest: Digest,
    /// Examples to train on.
    pub train_examples: u64,
    /// Examples split off those.
    pub validation_examples: u64,
    /// Examples to test on.
    pub test_examples: u64,
    /// Channels of an image.
    pub channels: u32,
    /// Its height, pixels.
    pub height: u32,
    /// Its width, pixels.
    pub width: u32,
    /// Number of classes.
    pub classes: u32,
    /// Mean a channel.
    pub mean: Vec<f32>,
    /// Standard deviation a channel.
    pub std: Vec<f32>,
}

/// A worker's place in a generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Assign {
    /// The generation.
    pub generation: Generation,
    /// The worker's rank.
    pub rank: Rank,
    /// Everyone, in order of rank.
    pub members: Vec<Member>,
    /// Rank r holds micro-batches `bounds[r]..bounds[r + 1]`.
    pub bounds: Vec<usize>,
    /// Completed steps of the state to start from.
    pub start: Step,
    /// Steps of the whole run.
    pub steps: Step,
    /// The state to start from; `None`: initial values drawn from the seed, or the worker's own.
    pub state: Option<StateRef>,
    /// Whether the worker starts from the state that it holds.
    pub keeps: bool,
    /// Whether what follows step `start` (an evaluation, a checkpoint) may still be to be done, because the generation before this
    /// one, or the run before it was resumed, ended there.
    pub unsettled: bool,
    /// Whether some worker is sent a state first, so that its ring may be late.
    pub some_are_sent: bool,
    /// The secret of the generation, which its ranks prove to each other that they know when their ring connects.
    pub ticket: Ticket,
}

impl Assign {
    /// The file that the state comes from, for messages.
    pub fn state_source(&self) -> &str {
        let own = if self.keeps { "its own state" } else { "the seed" };
        self.state.as_ref().map_or(own, |state| state.source.as_str())
    }
}

/// One rank of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its worker.
    pub worker: WorkerId,
    /// Where its ring listens.
    pub ring_address: SocketAddr,
}

/// A state by digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateRef {
    /// The file it comes from, for messages.
    pub source: String,
    /// SHA-256 of the model file's bytes.
    pub model: Digest,
    /// SHA-256 of the state file's bytes; `None`: a fresh optimizer.
    pub optimizer: Option<Digest>,
}

/// How a session ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The run is complete.
    Done,
    /// The run was stopped after a checkpoint.
    Stopped,
    /// The run failed, in one line.
    Failed(String),
    /// The worker is not admitted, in one line.
    Refused(String),
    /// The worker wanted to leave and may; the run goes on.
    Released,
    /// The run has gone on without the worker, as one line says; it may join again.
    Outdated(String),
}
