//! The tables of a configuration as types. A value of [`Config`] is valid: whoever holds one need not check it again.

use std::path::PathBuf;

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

/// `run.epochs` or `run.steps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunLength {
    /// Passes over the data; `floor(E * N / B)` steps.
    Epochs(u64),
    /// Optimizer steps.
    Steps(u64),
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

/// `data.kind`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataKind {
    /// The built-in 1,797 8x8 digits.
    Digits,
    /// MNIST in IDX files, plain or gzipped.
    Mnist,
    /// Fashion-MNIST in IDX files, plain or gzipped.
    FashionMnist,
    /// CIFAR-10, the binary version's files.
    Cifar10,
    /// CIFAR-100, the binary version's files (fine labels).
    Cifar100,
    /// A file with `train.images`, `train.labels`, `test.images`, `test.labels`.
    Safetensors,
}

impl DataKind {
    /// Number of classes that the data set has; `None`: it is for the configuration to say.
    pub fn classes(self) -> Option<usize> {
        match self {
            Self::Digits | Self::Mnist | Self::FashionMnist | Self::Cifar10 => Some(10),
            Self::Cifar100 => Some(100),
            Self::Safetensors => None,
        }
    }
}

/// One augmentation of `data.augment`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Augmentation {
    /// `flip`: mirror left-right with probability 1/2.
    Flip,
    /// `crop:N`: pad by N with zeros after normalisation, crop to the original size.
    Crop(usize),
    /// `cutout:N`: zero a square of side N centred uniformly over the image, clipped at the border.
    Cutout(usize),
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

/// `model.compute`: in what a GPU computes the products of layers. Weights, their gradients and all that is made of these are f32 in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compute {
    /// f32.
    F32,
    /// Factors rounded to ten bits of mantissa, as tensor cores take them, and sums in f32. On GPUs only.
    Tf32,
    /// Activations and their gradients of bf16 in memory, factors likewise, and sums in f32. On GPUs only.
    Bf16,
}

impl Compute {
    /// Its name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        }
    }
}

/// `model.convolution`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Convolution {
    /// The fastest whose forward products err no more than plain sums: for 3x3 at stride 1 Winograd's F(2x2) forward and F(4x4)
    /// backward, else direct.
    Auto,
    /// F(4x4) for the forward product too, at about twice its rounding error.
    Winograd,
    /// Plain sums only.
    Direct,
}

/// `model.kind` and its options, as in the reference models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelKind {
    /// Flatten, then Linear + ReLU for each hidden width, then Linear.
    Mlp {
        /// Hidden widths.
        hidden: Vec<usize>,
    },
    /// 3x3 convolution + norm + ReLU blocks, each after the first with stride 2, global average pool, Linear.
    ConvNet {
        /// Channels of each block.
        widths: Vec<usize>,
        /// Its norms.
        norm: NormLayer,
    },
    /// ResNet-(6n+2) for small images.
    ResNet {
        /// 6n + 2.
        depth: usize,
        /// Whether there are residual connections.
        skip: bool,
        /// Its norms.
        norm: NormLayer,
    },
    /// WRN-depth-widen.
    WideResNet {
        /// 6n + 4.
        depth: usize,
        /// Factor on the widths 16, 32, 64.
        widen: usize,
        /// Its norms.
        norm: NormLayer,
    },
    /// Vision transformer.
    ViT {
        /// Side of a patch, pixels; divides the image's side.
        patch: usize,
        /// Width; a multiple of `heads`.
        dim: usize,
        /// Blocks.
        depth: usize,
        /// Attention heads.
        heads: usize,
        /// Hidden width of a block's MLP over `dim`.
        mlp_ratio: usize,
    },
}

/// `model.norm`: what normalises the activations of a convolutional network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormLayer {
    /// Batch norm: each channel over the micro-batch.
    Batch,
    /// Group norm (Wu and He 2018) with gcd(8, channels) groups: an example's own statistics, so that no other example of the batch is felt.
    Group,
    /// Nothing; a convolution has a bias where a norm would take its output itself, not a sum that it is a part of.
    None,
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

/// `sam.m`, with `"worker"` already resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaneSizes {
    /// Equal lanes.
    Each(usize),
    /// Lanes of these sizes, which sum to the batch.
    List(Vec<usize>),
    /// One lane.
    Batch,
}

/// `sam.norm`: p of the ball `||epsilon||_p <= rho`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Norm {
    /// A finite p of at least 1.
    P(f64),
    /// The largest magnitude.
    Infinity,
}

/// `sam.direction`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Up the lane's gradient: epsilon is the maximiser of its linearised loss.
    Gradient,
    /// That of a normal draw in the place of the gradient, on the same sphere: the control that tells what the gradient is good for.
    Random,
}

/// `sam.rho_rule`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RhoRule {
    /// `rho` for every lane, as in the paper.
    Constant,
    /// `rho sqrt(m / m_ref)` for a lane of m examples.
    SqrtM {
        /// Examples of a lane whose radius is `rho` itself.
        m_ref: usize,
    },
}

/// `sam.perturb`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Perturb {
    /// Every parameter.
    All,
    /// Weights and biases of normalisation layers only (SAM-ON).
    NormOnly,
    /// Everything else.
    NoNorm,
}

/// `sam.weight_decay`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightDecay {
    /// Outside the maximum, in the optimizer: the paper's equation 1.
    Outside,
    /// Part of the loss in both passes.
    Inside,
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

/// `optimizer.kind` and its options.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OptimizerKind {
    /// Stochastic gradient descent.
    Sgd {
        /// Momentum; 0 is none.
        momentum: f64,
        /// Nesterov's form of it.
        nesterov: bool,
    },
    /// Adam with decoupled weight decay.
    AdamW {
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the root of the second moment.
        adam_eps: f64,
    },
}

/// `[schedule]`
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleTable {
    /// Its shape after the warm-up.
    pub kind: Schedule,
    /// Steps over which the learning rate rises linearly to its base value.
    pub warmup_steps: u64,
}

/// `schedule.kind`
#[derive(Debug, Clone, PartialEq)]
pub enum Schedule {
    /// The base learning rate throughout.
    Constant,
    /// Half a cosine from the base learning rate to 0.
    Cosine,
    /// Times `gamma` at each milestone.
    Step {
        /// Steps at which the rate falls.
        milestones: Vec<u64>,
        /// Factor at each of them.
        gamma: f64,
    },
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

/// `cluster.device`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// A GPU where there is one, by the worker's local rank modulo how many there are; else the processor.
    Auto,
    /// The processor.
    Cpu,
    /// The NVIDIA GPU of this number.
    Cuda(usize),
}

/// `cluster.isa`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// The best of the processor.
    Auto,
    /// AVX-512.
    Avx512,
    /// AVX2 with FMA.
    Avx2,
    /// Any processor's.
    Portable,
}

/// `cluster.transport`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// The fastest there is: NCCL where every worker has a GPU of its own; else, for a pair of workers, shared memory on one host where both can, else TCP.
    Auto,
    /// TCP sockets.
    Tcp,
    /// Shared memory between all workers of one host, or the run does not start; TCP between hosts.
    Shm,
    /// NCCL for the descent gradient, or a worker is refused; the rest as with [`Auto`](Self::Auto).
    Nccl,
}

/// `cluster.reduce`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduce {
    /// Fixed-point sums: the same bits for any number of workers.
    Exact,
    /// `f32` sums: fewer bytes; world sizes differ in the last bits.
    F32,
    /// Sums sent as `bf16`: fewest bytes; world sizes differ.
    Bf16,
}

/// `cluster.algorithm`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// What the cost model predicts to be fastest; for `f32` and `bf16` sums direct for small messages, ring for large ones.
    Auto,
    /// The ring always.
    Ring,
    /// The direct exchange always.
    Direct,
}

/// `cluster.numerics`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numerics {
    /// Every worker must compute the probe step to the same bits.
    Same,
    /// Any worker may join.
    Any,
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
