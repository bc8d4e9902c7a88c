//! What a step comes to: its figures, or why it failed.

use std::time::Instant;

use strath_collective::CollectiveError;
use strath_core::fault::Culprit;
use strath_core::{After, Fault, Layout, Plan, Telemetry};
use strath_cuda::GpuError;
use strath_cuda::nccl::NcclError;
use strath_model::{Model, ModelError};
use strath_protocol::message::PhaseSeconds;

use crate::verify::VerifyError;

/// What one step found, the same on every rank but for the seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct StepOutcome {
    /// Mean loss over the batch at w.
    pub clean_loss: f64,
    /// Mean loss over the batch, each lane at its w + epsilon.
    pub perturbed_loss: f64,
    /// The learning rate of the update.
    pub lr: f64,
    /// l2 norm of the reduced descent gradient before clipping, without decay.
    pub gradient_norm: f64,
    /// Mean over lanes of the l2 norm of epsilon.
    pub epsilon_norm: f64,
    /// Lanes whose ascent gradient was zero, and so their epsilon.
    pub zero_gradient_lanes: u64,
    /// What else its lanes told.
    pub telemetry: Telemetry,
    /// What all ranks do after this step.
    pub after: After,
    /// From when to when each piece of the gradient was under way that left as soon as it was whole.
    pub travelled: Vec<(Instant, Instant)>,
    /// Seconds of each phase on this rank.
    pub seconds: PhaseSeconds,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A loss, gradient or statistic is not finite or too large; every rank fails alike.
    #[error(
        "{what} of lane {lane} (examples {first}..{last} of the batch) is not finite or too large for the exact sum; the run \
         has diverged: lower optimizer.lr or sam.rho, or set optimizer.clip_norm, and start from the last checkpoint"
    )]
    NotFinite {
        /// What was at fault.
        what: String,
        /// The lane.
        lane: usize,
        /// Position in the batch of the lane's first example.
        first: usize,
        /// One past its last.
        last: usize,
    },
    /// A peer was lost or disagreed.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
    /// The ranks did not compute from the same state.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The ranks' GPUs did not sum.
    #[error(transparent)]
    Nccl(#[from] NcclError),
    /// The model could not compute.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl From<GpuError> for StepError {
    fn from(error: GpuError) -> Self {
        Self::Model(error.into())
    }
}

impl StepError {
    /// The error that a reduced status word stands for, in the names of the model; `None`: nothing is wrong.
    pub(crate) fn of_fault(fault: Fault, plan: &Plan, model: &Model) -> Option<Self> {
        let (lane, culprit) = fault.found()?;
        let name = |layout: &Layout, tensor: u32| {
            layout.entries().get(tensor as usize).map_or_else(|| "?".into(), |entry| entry.name.clone())
        };
        let what = match culprit {
            Culprit::CleanLoss => "the loss at w".into(),
            Culprit::PerturbedLoss => "the loss at w + epsilon".into(),
            Culprit::AscentGradient(t) => format!("the ascent gradient of {}", name(model.parameters(), t)),
            Culprit::DescentGradient(t) => format!("the descent gradient of {}", name(model.parameters(), t)),
            Culprit::Statistic(t) => format!("the batch statistic {}", name(model.statistics(), t)),
        };
        let (first, size) = plan.lanes().get(lane).map_or((0, 0), |lane| (lane.start, lane.size));
        Some(Self::NotFinite { what, lane, first, last: first + size })
    }
}
