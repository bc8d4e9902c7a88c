//! The training thread of a worker: steps, evaluations and checkpoints of one generation, in the order they happen.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use strath_collective::{Collective, CollectiveError};
use strath_core::{Digest, Rank, Step};
use strath_data::SplitName;
use strath_protocol::message::{FailureKind, Phase, PhaseSeconds};

use crate::after::{After, Asked};
use crate::checkpoint;
use crate::evaluate::{self, EvaluateError, Evaluation};
use crate::outcome::{StepError, StepOutcome};
use crate::step::{Stepper, TrainingState};
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
    pub state: TrainingState,
    /// Whether what follows the step that it begins after (an evaluation, a checkpoint) may still be to be done.
    pub unsettled: bool,
    /// Its peers.
    pub peers: std::sync::Arc<Collective>,
    /// Its rank.
    pub rank: Rank,
    /// How many ranks there are.
    pub world_size: u32,
    /// The run's length in steps.
    pub steps: u64,
    /// When to evaluate.
    pub evaluations: Evaluations,
    /// Steps between two checkpoints.
    pub checkpoint_every: u64,
    /// Steps after which ranks compare their states, beside every checkpoint.
    pub verify_every: u64,
    /// Digest of the data, for the state files.
    pub data: Digest,
    /// Digest of the probe step, for the state files.
    pub numerics: Digest,
    /// Seconds of a step in which this rank waits for nobody, smoothed; `None` before the first.
    pub busy: Option<f64>,
}

/// When a run is evaluated: after every so many epochs, and at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evaluations {
    /// `run.eval_every_epochs`.
    pub every_epochs: u64,
    /// N.
    pub train_examples: u64,
    /// B.
    pub batch: u64,
    /// The run's length in steps.
    pub steps: u64,
}

impl Evaluations {
    /// Whether one is due after `step` completed steps: `step = floor((e + 1) N / B)` for an epoch e (0-based) with
    /// `every_epochs` dividing `e + 1`, or `step` is the last.
    pub fn is_due(&self, step: u64) -> bool {
        if step == self.steps {
            return true;
        }
        // floor(epochs N / B) = step for the epochs in step B / N .. (step + 1) B / N.
        let from = |step: u64| (u128::from(step) * u128::from(self.batch)).div_ceil(u128::from(self.train_examples));
        let (first, past) = (from(step), from(step + 1));
        let every = u128::from(self.every_epochs);
        step > 0 && first.next_multiple_of(every) < past
    }
}

/// Why training ends before its time.
enum Failure {
    /// It was told to.
    Aborted,
    /// Something went wrong.
    Fault { phase: Phase, message: String, kind: FailureKind },
}

impl Training {
    /// Trains to the end, or until a step that some rank was `asked` to pause or stop after, or until it is `cancelled` or something
    /// fails; `here` says where it is meanwhile. Gives back the state after the last step that was completed: one that failed has changed nothing.
    pub fn run(
        mut self,
        asked: &Asked,
        cancelled: &AtomicBool,
        here: &Whereabouts,
        mut tell: impl FnMut(Told),
    ) -> TrainingState {
        match self.steps(asked, cancelled, here, &mut tell) {
            Ok(After::Pause) => tell(Told::Paused),
            Ok(after) => {
                let stopped = after == After::Stop;
                let weights = checkpoint::digest(self.stepper.model(), &self.state.weights, &self.state.statistics);
                tell(Told::Finished { step: self.state.step, weights, stopped });
            }
            Err(Failure::Fault { phase, message, kind }) => {
                tell(Told::Failed { step: self.state.step, phase, message, kind });
            }
            Err(Failure::Aborted) => {}
        }
        self.state
    }

    fn steps(
        &mut self,
        asked: &Asked,
        cancelled: &AtomicBool,
        here: &Whereabouts,
        tell: &mut impl FnMut(Told),
    ) -> Result<After, Failure> {
        if self.unsettled {
            self.settle(false, here, tell)?;
        }
        while self.state.step < self.steps {
            // A rank that is alone waits for nobody, and is not told by an exchange that ends.
            if cancelled.load(Ordering::Relaxed) {
                return Err(Failure::Aborted);
            }
            let begun = Instant::now();
            let at = self.state.step;
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
            let after = if self.state.step < self.steps { outcome.after } else { After::GoOn };
            self.tell_rate(&outcome.seconds, here);
            tell(Told::Stepped { step: self.state.step, outcome, seconds: begun.elapsed().as_secs_f64() });
            self.settle(after == After::Stop, here, tell)?;
            if after != After::GoOn {
                return Ok(after);
            }
        }
        self.save(true, here, tell);
        Ok(After::GoOn)
    }

    /// What follows a step: an evaluation, a comparison of all states, a checkpoint, each where it is due.
    fn settle(&mut self, stopping: bool, here: &Whereabouts, tell: &mut impl FnMut(Told)) -> Result<(), Failure> {
        let step = self.state.step;
        if self.evaluations.is_due(step) {
            self.evaluate(here, tell)?;
        }
        let saves = stopping || step.is_multiple_of(self.checkpoint_every) || step == self.steps;
        // What is kept is what all ranks hold.
        if saves || step.is_multiple_of(self.verify_every) {
            here.enter(step, Phase::Checkpoint);
            verify(&self.state, &self.peers).map_err(|error| verify_failure(&error))?;
        }
        if saves && step < self.steps {
            self.save(false, here, tell);
        }
        Ok(())
    }

    /// Says what this rank's examples come to a second, in the phases in which it waits for nobody; of one step that means little on
    /// a shared machine, so it is smoothed over about twenty.
    fn tell_rate(&mut self, seconds: &PhaseSeconds, here: &Whereabouts) {
        let PhaseSeconds { data, ascent, epsilon, descent, update, .. } = seconds;
        let busy = data + ascent + epsilon + descent + update;
        let smoothed = self.busy.map_or(busy, |before| before + 0.05 * (busy - before));
        self.busy = Some(smoothed);
        let examples = self.stepper.examples_a_step();
        if examples > 0 {
            here.set_rate(examples as f64 / smoothed);
        }
    }

    /// Rank 0 speaks for all: what it reports is the same everywhere.
    fn leads(&self) -> bool {
        self.rank == Rank(0)
    }

    fn evaluate(&mut self, here: &Whereabouts, tell: &mut impl FnMut(Told)) -> Result<(), Failure> {
        here.enter(self.state.step, Phase::Evaluate);
        let evaluation = evaluate::evaluate(
            self.stepper.model(),
            &self.state.weights,
            &self.state.statistics,
            self.stepper.loader(),
            SplitName::Test,
            &self.peers,
            self.rank,
            self.world_size,
            Step(self.state.step),
        )
        .map_err(|error| evaluate_failure(&error))?;
        tell(Told::Evaluated { step: self.state.step, split: SplitName::Test, evaluation });
        Ok(())
    }

    fn save(&self, is_final: bool, here: &Whereabouts, tell: &mut impl FnMut(Told)) {
        if !self.leads() {
            return;
        }
        here.enter(self.state.step, Phase::Checkpoint);
        let model = checkpoint::encode_model(self.stepper.model(), &self.state.weights, &self.state.statistics);
        let optimizer = checkpoint::encode_state(self.stepper.model(), &self.state, self.data, self.numerics);
        tell(Told::State { step: self.state.step, is_final, model, optimizer });
    }
}

fn step_failure(phase: Phase, error: &StepError) -> Failure {
    match error {
        StepError::Collective(error) => collective_failure(phase, error),
        error => Failure::Fault { phase, message: error.to_string(), kind: FailureKind::Own },
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
        error => Failure::Fault { phase: Phase::Evaluate, message: error.to_string(), kind: FailureKind::Own },
    }
}

fn verify_failure(error: &VerifyError) -> Failure {
    let kind = match error {
        VerifyError::Deviates { rank, .. } => FailureKind::Deviates(*rank),
        VerifyError::Undecided { .. } => FailureKind::Own,
        VerifyError::Collective(error) => return collective_failure(Phase::Checkpoint, error),
    };
    Failure::Fault { phase: Phase::Checkpoint, message: error.to_string(), kind }
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
        | CollectiveError::Handshake { rank, .. }
        | CollectiveError::Untrusted { rank, .. }
        | CollectiveError::Protocol { rank, .. } => Some(*rank),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluations_come_after_whole_epochs_and_at_the_end() {
        let due =
            |evaluations: Evaluations| (1..=evaluations.steps).filter(|s| evaluations.is_due(*s)).collect::<Vec<_>>();
        // 10 examples in batches of 4: epochs end after floor(2.5), 5, floor(7.5), 10 steps.
        let every = Evaluations { every_epochs: 1, train_examples: 10, batch: 4, steps: 11 };
        assert_eq!(due(every), [2, 5, 7, 10, 11]);
        assert_eq!(due(Evaluations { every_epochs: 2, ..every }), [5, 10, 11]);
        // A batch of more than two epochs: each step ends some.
        let large = Evaluations { every_epochs: 1, train_examples: 3, batch: 8, steps: 3 };
        assert_eq!(due(large), [1, 2, 3]);
        assert_eq!(due(Evaluations { every_epochs: 1, train_examples: 5, batch: 1, steps: 10 }), [5, 10]);
    }

    #[test]
    fn the_rule_is_that_of_its_definition() {
        for (n, b) in [(10, 4), (7, 3), (60, 8), (5, 7), (3, 8), (1, 5)] {
            for every in 1..4 {
                let evaluations = Evaluations { every_epochs: every, train_examples: n, batch: b, steps: 1000 };
                let ends: std::collections::BTreeSet<u64> =
                    (1..=3000).filter(|e| e % every == 0).map(|e| e * n / b).collect();
                for step in 1..60 {
                    assert_eq!(evaluations.is_due(step), ends.contains(&step), "{n} {b} {every} {step}");
                }
            }
        }
    }
}
