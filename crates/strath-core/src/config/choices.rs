//! What a key of a configuration may be, where it is one of several things.

/// `run.epochs` or `run.steps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunLength {
    /// Passes over the data; `floor(E * N / B)` steps.
    Epochs(u64),
    /// Optimizer steps.
    Steps(u64),
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
