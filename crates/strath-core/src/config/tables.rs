//! The tables of a configuration as types. A value of [`Config`] is valid: whoever holds one need not check it again.

use std::path::PathBuf;

use super::choices::{
    Algorithm, Augmentation, Compute, Convolution, DataKind, Device, Direction, Isa, LaneSizes, ModelKind, Norm,
    Numerics, OptimizerKind, Perturb, Reduce, RhoRule, RunLength, Schedule, Transport, WeightDecay,
};
use crate::plan::{Plan, PlanError};

/// The effective configuration of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What the run is called and how long it is.
    pub run: RunTable,
    /// The data set.
    pub data: DataTable,
    /// The network.
    pub model: ModelTable,
    /// The loss.
    pub loss: LossTable,
    /// The global batch.
    pub batch: BatchTable,
    /// Sharpness-aware minimization.
    pub sam: SamTable,
    /// The optimizer of the descent step.
    pub optimizer: OptimizerTable,
    /// The learning rate over time.
    pub schedule: ScheduleTable,
    /// Processes, threads and the reduction.
    pub cluster: ClusterTable,
    /// When state is saved.
    pub checkpoint: CheckpointTable,
    /// What is found out of the lanes on the way.
    pub telemetry: TelemetryTable,
}

impl Config {
    /// The plan of a batch: lanes and micro-batches.
    ///
    /// # Errors
    /// [`PlanError`] where the sizes do not fit together; a validated configuration's do.
    pub fn plan(&self) -> Result<Plan, PlanError> {
        match &self.sam.m {
            LaneSizes::Each(m) => Plan::uniform(self.batch.size, *m, self.batch.micro),
            LaneSizes::List(sizes) => Plan::try_new(self.batch.size, sizes, self.batch.micro),
            LaneSizes::Batch => Plan::uniform(self.batch.size, self.batch.size, self.batch.micro),
        }
    }

    /// Number of optimizer steps over `train_examples` examples: `run.steps`, or `floor(epochs * N / B)`.
    pub fn steps(&self, train_examples: usize) -> u64 {
        match self.run.length {
            RunLength::Steps(steps) => steps,
            RunLength::Epochs(epochs) => (u128::from(epochs) * train_examples as u128 / self.batch.size as u128) as u64,
        }
    }
}

/// `[run]`
#[derive(Debug, Clone, PartialEq)]
pub struct RunTable {
    /// Name of the run, and of its folder under `runs/` where `--out` gives none.
    pub name: String,
    /// Seed of every random draw: initial weights, order, augmentation, label noise.
    pub seed: u64,
    /// How long to train.
    pub length: RunLength,
    /// Epochs between two evaluations; at least 1.
    pub eval_every_epochs: u64,
    /// Whether the training split is evaluated too: its images un-augmented, its labels as they are trained on.
    pub eval_train: bool,
    /// Training ends before its length with an epoch whose mean clean loss is below this; above 0. `None`: it does not.
    pub stop_loss: Option<f64>,
}

/// `[data]`
#[derive(Debug, Clone, PartialEq)]
pub struct DataTable {
    /// Which data set.
    pub kind: DataKind,
    /// Folder (or file, for safetensors) of the data; absolute. `None` only for the built-in digits.
    pub path: Option<PathBuf>,
    /// Whether each epoch has a permutation of its own; else every one is the identity.
    pub shuffle: bool,
    /// Augmentations of training images, applied in this order.
    pub augment: Vec<Augmentation>,
    /// Only the first so many training examples are used.
    pub train_limit: Option<usize>,
    /// Share of the training labels that is replaced, in [0, 1].
    pub label_noise: f64,
    /// Share of the training examples that is split off for validation, in [0, 1).
    pub validation: f64,
    /// Number of classes; needed by safetensors data, fixed by every other kind.
    pub classes: Option<usize>,
}

/// `[model]`
#[derive(Debug, Clone, PartialEq)]
pub struct ModelTable {
    /// Which network, with its options.
    pub kind: ModelKind,
    /// Which convolution kernels may serve.
    pub convolution: Convolution,
    /// In what a GPU multiplies.
    pub compute: Compute,
    /// File with the initial tensors (safetensors); absolute. `None`: drawn from the seed.
    pub init: Option<PathBuf>,
}

/// `[loss]`
#[derive(Debug, Clone, PartialEq)]
pub struct LossTable {
    /// Label smoothing, in [0, 1).
    pub label_smoothing: f64,
}

/// `[batch]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchTable {
    /// Examples of the global batch.
    pub size: usize,
    /// Examples of a micro-batch; `None`: the whole lane.
    pub micro: Option<usize>,
}

/// `[sam]`
#[derive(Debug, Clone, PartialEq)]
pub struct SamTable {
    /// Radius of the ball; 0 is the plain optimizer.
    pub rho: f64,
    /// Examples per epsilon.
    pub m: LaneSizes,
    /// p of the ball.
    pub norm: Norm,
    /// ASAM: the ball is scaled by |w| + eta.
    pub adaptive: bool,
    /// Floor of ASAM's scale.
    pub eta: f64,
    /// Which parameters are perturbed.
    pub perturb: Perturb,
    /// Where weight decay enters.
    pub weight_decay: WeightDecay,
    /// How a lane's radius follows from its size.
    pub rho_rule: RhoRule,
    /// Where epsilon points.
    pub direction: Direction,
}

impl SamTable {
    /// The radius of a lane of `m` examples: `rho`, or with `rho_rule = "sqrt-m"` `rho sqrt(m / m_ref)`.
    ///
    /// A lane's gradient is longer by about `1 / sqrt(m)` where noise dominates it, and the rise of its linearised loss over the ball is
    /// `rho ||g||`: at equal `rho / sqrt(m)` that is the same for every m, so what is left of the effect of m is not one of rho.
    pub fn radius(&self, m: usize) -> f64 {
        match self.rho_rule {
            RhoRule::Constant => self.rho,
            RhoRule::SqrtM { m_ref } => self.rho * (m as f64 / m_ref as f64).sqrt(),
        }
    }
}

/// `[optimizer]`
#[derive(Debug, Clone, PartialEq)]
pub struct OptimizerTable {
    /// Which update rule, with its options.
    pub kind: OptimizerKind,
    /// Base learning rate.
    pub lr: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// The reduced gradient is scaled down to this l2 norm; `None`: never.
    pub clip_norm: Option<f64>,
}

/// `[schedule]`
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleTable {
    /// Its shape after the warm-up.
    pub kind: Schedule,
    /// Steps over which the learning rate rises linearly to its base value.
    pub warmup_steps: u64,
}

/// `[cluster]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterTable {
    /// Workers that `strath train` starts.
    pub workers: usize,
    /// Workers that `strath coordinator` waits for.
    pub min_workers: usize,
    /// Where workers compute.
    pub device: Device,
    /// Instruction set of the kernels.
    pub isa: Isa,
    /// Compute threads a worker; `None`: cores of the host / workers on it.
    pub threads: Option<usize>,
    /// Streams of a GPU that lanes take turns on; `None`: as many as the size of micro-batches suggests.
    pub streams: Option<usize>,
    /// How gradients are summed.
    pub reduce: Reduce,
    /// Which all-reduce moves them.
    pub algorithm: Algorithm,
    /// What carries the all-reduce.
    pub transport: Transport,
    /// Milliseconds without a newcomer after which a coordinator starts, once `min_workers` are there.
    pub gather_ms: u64,
    /// Seconds that a coordinator waits for the workers of the first generation; above 0.
    pub gather_timeout_s: u64,
    /// Milliseconds of silence after which a worker counts as lost.
    pub lease_ms: u64,
    /// Seconds that a run which has lost all but fewer than `min_workers` waits for others.
    pub rejoin_timeout_s: u64,
    /// Steps after which workers compare the digests of their states, beside every checkpoint.
    pub verify_every_steps: u64,
    /// Whether workers that compute differently may train together.
    pub numerics: Numerics,
}

/// `[checkpoint]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointTable {
    /// Steps between two checkpoints.
    pub every_steps: u64,
    /// Newest checkpoints that are kept.
    pub keep: usize,
}

/// `[telemetry]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetryTable {
    /// Steps between two surveys of the lanes; 0: none. What costs nothing is told at every step.
    pub every: u64,
    /// Whether surveys also tell what coarser lanes would be.
    pub ladder: bool,
}

impl TelemetryTable {
    /// Whether the lanes are surveyed in the step that completes `step`.
    pub fn is_due(&self, step: u64) -> bool {
        self.every > 0 && step.is_multiple_of(self.every)
    }
}
