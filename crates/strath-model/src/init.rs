//! What tensors a model has and how they begin: the defaults of PyTorch's modules.

use strath_core::random::{Purpose, Stream};

/// A tensor that a network declares.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Declared {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) initial: Initial,
    /// Whether it belongs to a normalisation layer.
    pub(crate) of_norm: bool,
}

/// How a tensor begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Initial {
    /// Uniform in `+-1 / sqrt(fan_in)`: Linear's and Conv2d's weight and bias.
    Uniform {
        fan_in: usize,
    },
    Zeros,
    Ones,
    /// Normal of this deviation.
    Normal(f32),
}

impl Declared {
    /// The initial values, drawn from (seed, name).
    pub(crate) fn values(&self, seed: u64) -> Vec<f32> {
        let count = self.shape.iter().product();
        let mut stream = Stream::new(seed, Purpose::Initial { tensor: &self.name });
        let mut draw = |value: &mut dyn FnMut(&mut Stream) -> f32| (0..count).map(|_| value(&mut stream)).collect();
        match self.initial {
            Initial::Zeros => vec![0.0; count],
            Initial::Ones => vec![1.0; count],
            Initial::Normal(deviation) => draw(&mut |stream| deviation * stream.normal()),
            Initial::Uniform { fan_in } => {
                let bound = 1.0 / (fan_in as f32).sqrt();
                draw(&mut |stream| bound * (2.0 * stream.uniform() - 1.0))
            }
        }
    }
}

/// The tensors of a network as they are declared, layer by layer.
#[derive(Debug, Default)]
pub(crate) struct Declarations {
    pub(crate) parameters: Vec<Declared>,
    /// Batch-norm layers: prefix, channels, and pixels of the plane they see.
    pub(crate) batch_norms: Vec<(String, usize, usize)>,
}

impl Declarations {
    pub(crate) fn tensor(&mut self, name: impl Into<String>, shape: &[usize], initial: Initial, of_norm: bool) {
        self.parameters.push(Declared { name: name.into(), shape: shape.to_vec(), initial, of_norm });
    }

    pub(crate) fn linear(&mut self, prefix: &str, inputs: usize, outputs: usize) {
        let initial = Initial::Uniform { fan_in: inputs };
        self.tensor(format!("{prefix}.weight"), &[outputs, inputs], initial, false);
        self.tensor(format!("{prefix}.bias"), &[outputs], initial, false);
    }

    /// A convolution without a bias.
    pub(crate) fn convolution(&mut self, prefix: &str, inputs: usize, outputs: usize, kernel: usize) {
        let initial = Initial::Uniform { fan_in: inputs * kernel * kernel };
        self.tensor(format!("{prefix}.weight"), &[outputs, inputs, kernel, kernel], initial, false);
    }

    /// A bias for it, which stands in the place of a norm.
    pub(crate) fn convolution_bias(&mut self, prefix: &str, inputs: usize, outputs: usize, kernel: usize) {
        let initial = Initial::Uniform { fan_in: inputs * kernel * kernel };
        self.tensor(format!("{prefix}.bias"), &[outputs], initial, false);
    }

    pub(crate) fn norm(&mut self, prefix: &str, width: usize) {
        self.tensor(format!("{prefix}.weight"), &[width], Initial::Ones, true);
        self.tensor(format!("{prefix}.bias"), &[width], Initial::Zeros, true);
    }

    pub(crate) fn batch_norm(&mut self, prefix: &str, channels: usize, area: usize) {
        self.norm(prefix, channels);
        self.batch_norms.push((prefix.into(), channels, area));
    }
}

/// Height and width after a 3x3 convolution with padding 1 (or a 1x1 without) and this stride.
pub(crate) fn strided((height, width): (usize, usize), stride: usize) -> (usize, usize) {
    (height.div_ceil(stride), width.div_ceil(stride))
}
