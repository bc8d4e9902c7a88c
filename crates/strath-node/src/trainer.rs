//! The training thread of a worker: steps, evaluations and checkpoints of one generation, in the order they happen.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use strath_collective::{Bucket, Collective, CollectiveError};
use strath_core::{After, Digest, Evaluations, Finish, Rank, Step};
use strath_cuda::GpuError;
use strath_cuda::nccl::NcclError;
use strath_data::SplitName;
use strath_model::ModelError;
use strath_protocol::message::{CommunicatorId, FailureKind, Phase};

use crate::asked::Asked;
use crate::checkpoint;
use crate::evaluate::{self, EvaluateError, Evaluation};
use crate::measure::Advance;
use crate::outcome::{StepError, StepOutcome};
use crate::pace::Pace;
use crate::resident::Resident;
use crate::state::TrainingState;
use crate::step::Stepper;
use crate::verify::{VerifyError, verify};
use crate::whereabouts::Whereabouts;

/// What the training thread tells, in order.
#[derive(Debug)]
pub enum Told {
    /// A step is complete.
    Stepped {
        /// Completed steps.
        step: u64,
        /// What it found.
        outcome: StepOutcome,
        /// Seconds of the whole step.
        seconds: f64,
    },
    /// A split was evaluated.
    Evaluated {
        /// Completed steps.
        step: u64,
        /// Which split.
        split: SplitName,
        /// Loss and error.
        evaluation: Evaluation,
    },
    /// A measurement has come so far; from rank 0.
    Measuring(Advance),
    /// The result of a measurement, as JSON; from rank 0.
    Measured(String),
    /// The state at a step; from rank 0.
    State {
        /// Completed steps.
        step: u64,
        /// Whether these are the weights that the run ends with.
        is_final: bool,
        /// The model file.
        model: Vec<u8>,
        /// The state file.
        optimizer: Vec<u8>,
    },
    /// This rank is through.
    Finished {
        /// Completed steps.
        step: u64,
        /// Digest of weights and running statistics.
        weights: Digest,
        /// Whether it was asked to stop before the last step.
        stopped: bool,
    },
    /// All ranks rest: the generation ends after a step.
    Paused,
    /// This rank cannot go on.
    Failed {
        /// Completed steps.
        step: u64,
        /// What it was doing.
        phase: Phase,
        /// Why.
        message: String,
        /// Whose fault it is.
        kind: FailureKind,
    },
}

/// The part of a generation that one rank trains.
pub struct Training {
    /// Its steps.
    pub stepper: Stepper,
    /// Where it begins.
    pub state: Resident,
    /// Whether what follows the step that it begins after (an evaluation, a checkpoint) may still be to be done.
    pub unsettled: bool,
    /// Its peers.
    pub peers: std::sync::Arc<Collective>,
    /// By what the ranks' GPUs find each other, where they sum by themselves.
    pub communicator: Option<CommunicatorId>,
    /// Its rank.
    pub rank: Rank,
    /// How many ranks there are.
    pub world_size: u32,
    /// When the run is over.
    pub finish: Finish,
    /// When to evaluate.
    pub evaluations: Evaluations,
    /// Steps between two checkpoints.
    pub checkpoint_every: u64,
    /// Digest of the data, for the state files.
    pub data: Digest,
    /// Digest of the probe step, for the state files.
    pub numerics: Digest,
    /// This rank's own speed.
    pub pace: Pace,
}

/// Why training ends before its time.
enum Failure {
    /// It was told to.
    Aborted,
    /// Something went wrong.
    Fault { phase: Phase, message: String, kind: FailureKind },
    /// The ranks' GPUs did not sum.
    Gpus(NcclError),
}

impl Training {
    /// Trains to the end, or until a step that some rank was `asked` to pause or stop after, or until it is `cancelled` or something
    /// fails; `here` says where it is meanwhile. Gives back the state after the last step that was completed: one that failed has changed nothing;
    /// none where it lay on a device that does not give it back.
    pub fn run(
        mut self,
        asked: &Asked,
        cancelled: &AtomicBool,
        here: &Whereabouts,
        mut tell: impl FnMut(Told),
    ) -> Option<TrainingState> {
        let ended = self.steps(asked, cancelled, here, &mut tell).and_then(|after| match after {
            After::Pause => Ok(Told::Paused),
            after => self.finished(after == After::Stop),
        });
        match ended {
            Ok(told) => {
                // Whoever waits for this rank to end is told first.
                tell(told);
                if let Some(Err(error)) = self.stepper.take_gpus().map(|mut gpus| gpus.end()) {
                    tracing::warn!("{error}; sums go through the hosts from now on");
                    if error.hangs() {
                        return self.leave_behind();
                    }
                }
            }
            Err(failure) => {
                let (failure, hangs) = self.leave_gpus(failure);
                if let Failure::Fault { phase, message, kind } = failure {
                    tell(Told::Failed { step: self.state.step(), phase, message, kind });
                }
                if hangs {
                    return self.leave_behind();
                }
            }
        }
        let state = self.state.into_host();
        state.inspect_err(|error| tracing::error!("the state is lost: {error}")).ok()
    }

    /// Ends the GPUs' communicator: the failure that is to be told, and whether the device hangs.
    fn leave_gpus(&mut self, failure: Failure) -> (Failure, bool) {
        let gpus = self.stepper.take_gpus();
        let hangs = match (&failure, gpus) {
            (Failure::Gpus(error), gpus) => gpus.is_some_and(|mut gpus| gpus.abort()) || error.hangs(),
            (_, None) => false,
            // All ranks fail alike.
            (
                Failure::Fault {
                    kind: FailureKind::Own | FailureKind::Configuration | FailureKind::Deviates(_), ..
                },
                Some(mut gpus),
            ) => gpus.end().is_err_and(|error| error.hangs()),
            (Failure::Fault { .. } | Failure::Aborted, Some(mut gpus)) => gpus.abort(),
        };
        let told = match failure {
            _ if hangs => {
                let message = "the GPU does not end what it was asked, since the ranks came apart".into();
                Failure::Fault { phase: Phase::Reduce, message, kind: FailureKind::Machine }
            }
            Failure::Gpus(error) => self.came_apart(&error),
            failure => failure,
        };
        (told, hangs)
    }

    /// What is told where the GPUs did not sum: the ring may know who is lost.
    fn came_apart(&self, error: &NcclError) -> Failure {
        if !self.peers.goes_on()
            && let Err(lost) = self.peers.barrier(Step(self.state.step()), Duration::ZERO)
        {
            return collective_failure(Phase::Reduce, &lost);
        }
        let message = format!("{error}; sums go through the hosts from now on");
        Failure::Fault { phase: Phase::Reduce, message, kind: FailureKind::GpusApart }
    }

    /// No state: it lies on a device that does not give it, and that nobody is to wait for.
    fn leave_behind(self) -> Option<TrainingState> {
        tracing::error!("the state is lost: it lies on a GPU that does not end what it was asked");
        if let Some(gpu) = self.stepper.model().gpu() {
            gpu.clone().leave_behind();
        }
        None
    }

    fn steps(
        &mut self,
        asked: &Asked,
        cancelled: &AtomicBool,
        here: &Whereabouts,
        tell: &mut impl FnMut(Told),
    ) -> Result<After, Failure> {
        if let Some(id) = self.communicator.take() {
            self.stepper.connect_gpus(&id, &self.peers).map_err(Failure::Gpus)?;
        }
        if self.unsettled {
            self.settle(false, here, tell)?;
        }
        while !self.is_over() {
            // A rank that is alone waits for nobody, and is not told by an exchange that ends.
            if cancelled.load(Ordering::Relaxed) {
                return Err(Failure::Aborted);
            }
            let begun = Instant::now();
            let at = self.state.step();
            let mut phase = Phase::Ascent;
            let outcome = self
                .stepper
                .sam_step(&mut self.state, &self.peers, asked.get(), |entered| {
                    phase = entered;
                    here.enter(at, entered);
                })
                .map_err(|error| step_failure(phase, &error))?;
            here.travelled(at, &outcome.travelled);
            // At the end of the run there is nothing left to rest for.
            let after = if self.is_over() { After::GoOn } else { outcome.after };
            if let Some(images_per_s) = self.pace.note(self.stepper.examples_a_step(), &outcome.seconds) {
                here.set_rate(images_per_s);
            }
            tell(Told::Stepped { step: self.state.step(), outcome, seconds: begun.elapsed().as_secs_f64() });
            self.settle(after == After::Stop, here, tell)?;
            if after != After::GoOn {
                return Ok(after);
            }
        }
        self.save(true, here, tell)?;
        Ok(After::GoOn)
    }

    /// What follows a step: an evaluation, a checkpoint of what all ranks hold, each where it is due.
    fn settle(&mut self, stopping: bool, here: &Whereabouts, tell: &mut impl FnMut(Told)) -> Result<(), Failure> {
        let step = self.state.step();
        if self.evaluations.is_due(step) || self.is_over() {
            self.evaluate(here, tell)?;
        }
        let saves = stopping || step.is_multiple_of(self.checkpoint_every) || self.is_over();
        if saves {
            if self.world_size > 1 {
                // One of a ring that stands still waits here as it does in a step.
                here.enter(step, Phase::Reduce);
                let verified =
                    verify(self.state.as_it_lies().map_err(|error| lost(&error))?, &self.peers, Bucket::CHECKPOINT);
                verified.map_err(|error| verify_failure(Phase::Checkpoint, &error))?;
            }
            here.enter(step, Phase::Checkpoint);
        }
        if saves && !self.is_over() {
            self.save(false, here, tell)?;
        }
        Ok(())
    }

    /// Whether no step is left: every rank finds the same.
    fn is_over(&self) -> bool {
        self.finish.is_over(self.state.step(), self.state.epoch_loss())
    }

    /// Rank 0 speaks for all: what it reports is the same everywhere.
    fn leads(&self) -> bool {
        self.rank == Rank(0)
    }

    fn evaluate(&mut self, here: &Whereabouts, tell: &mut impl FnMut(Told)) -> Result<(), Failure> {
        here.enter(self.state.step(), Phase::Evaluate);
        let loader = self.stepper.loader();
        // In the order of a record's lines.
        for split in [SplitName::Train, SplitName::Validation, SplitName::Test] {
            let is_asked = split != SplitName::Train || self.evaluations.of_training;
            if !is_asked || loader.is_empty(split) {
                continue;
            }
            let evaluation = evaluate::evaluate(
                self.stepper.model(),
                &self.state.weights(),
                self.state.statistics(),
                loader,
                split,
                &self.peers,
                self.rank,
                self.world_size,
                Step(self.state.step()),
            )
            .map_err(|error| evaluate_failure(&error))?;
            tell(Told::Evaluated { step: self.state.step(), split, evaluation });
        }
        Ok(())
    }

    /// What is told at the end.
    fn finished(&mut self, stopped: bool) -> Result<Told, Failure> {
        let state = on_host(&mut self.state)?;
        let weights = checkpoint::digest(self.stepper.model(), &state.weights, &state.statistics);
        Ok(Told::Finished { step: state.step, weights, stopped })
    }

    fn save(&mut self, is_final: bool, here: &Whereabouts, tell: &mut impl FnMut(Told)) -> Result<(), Failure> {
        if !self.leads() {
            return Ok(());
        }
        here.enter(self.state.step(), Phase::Checkpoint);
        let state = on_host(&mut self.state)?;
        let model = checkpoint::encode_model(self.stepper.model(), &state.weights, &state.statistics);
        let optimizer = checkpoint::encode_state(self.stepper.model(), state, self.data, self.numerics);
        tell(Told::State { step: state.step, is_final, model, optimizer });
        Ok(())
    }
}

/// The state in the process's memory.
fn on_host(state: &mut Resident) -> Result<&TrainingState, Failure> {
    state.on_host().map_err(|error| lost(&error))
}

/// A state that its device does not give.
fn lost(error: &GpuError) -> Failure {
    Failure::Fault { phase: Phase::Checkpoint, message: error.to_string(), kind: FailureKind::Machine }
}

/// Whose fault it is that a model does not compute: one machine's device ends no run.
fn kind_of_model(error: &ModelError) -> FailureKind {
    if matches!(error, ModelError::Gpu(_)) { FailureKind::Machine } else { FailureKind::Own }
}

fn step_failure(phase: Phase, error: &StepError) -> Failure {
    match error {
        StepError::Collective(error) => collective_failure(phase, error),
        StepError::Verify(error) => verify_failure(phase, error),
        StepError::Nccl(error) => Failure::Gpus(error.clone()),
        StepError::Model(error) => Failure::Fault { phase, message: error.to_string(), kind: kind_of_model(error) },
        error @ StepError::NotFinite { .. } => {
            Failure::Fault { phase, message: error.to_string(), kind: FailureKind::Own }
        }
    }
}

fn collective_failure(phase: Phase, error: &CollectiveError) -> Failure {
    match error {
        CollectiveError::Aborted { .. } => Failure::Aborted,
        error => Failure::Fault { phase, message: error.to_string(), kind: kind_of_collective(error) },
    }
}

fn evaluate_failure(error: &EvaluateError) -> Failure {
    match error {
        EvaluateError::Collective(error) => collective_failure(Phase::Evaluate, error),
        EvaluateError::Model(error) => {
            Failure::Fault { phase: Phase::Evaluate, message: error.to_string(), kind: kind_of_model(error) }
        }
        error => Failure::Fault { phase: Phase::Evaluate, message: error.to_string(), kind: FailureKind::Own },
    }
}

fn verify_failure(phase: Phase, error: &VerifyError) -> Failure {
    let kind = match error {
        VerifyError::Deviates { rank, .. } => FailureKind::Deviates(*rank),
        VerifyError::Undecided { .. } => FailureKind::Own,
        VerifyError::Collective(error) => return collective_failure(phase, error),
    };
    Failure::Fault { phase, message: error.to_string(), kind }
}

/// The failure of a rank that has lost a peer, or nobody.
pub(crate) fn kind_of(lost: Option<Rank>) -> FailureKind {
    lost.map_or(FailureKind::Own, FailureKind::PeerLost)
}

/// Whose fault an error of the collective is.
pub(crate) fn kind_of_collective(error: &CollectiveError) -> FailureKind {
    match error {
        CollectiveError::Local { .. } => FailureKind::Machine,
        error => kind_of(lost_peer(error)),
    }
}

/// The peer whose loss, or nonsense, an error tells of.
pub(crate) fn lost_peer(error: &CollectiveError) -> Option<Rank> {
    match error {
        CollectiveError::PeerLost { rank, .. }
        | CollectiveError::PeerSilent { rank, .. }
        | CollectiveError::Unreachable { rank, .. }
        | CollectiveError::Unanswered { rank, .. }
        | CollectiveError::Handshake { rank, .. }
        | CollectiveError::Untrusted { rank, .. }
        | CollectiveError::Protocol { rank, .. } => Some(*rank),
        _ => None,
    }
}
