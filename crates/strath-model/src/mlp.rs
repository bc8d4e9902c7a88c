//! Multi-layer perceptron: flatten, then Linear + ReLU for each hidden width, then Linear to the classes.

use candle_core::Tensor;
use strath_core::ImageShape;

use crate::error::ModelError;
use crate::init::Declarations;
use crate::layer::{linear, relu};
use crate::pass::Pass;

/// The network.
#[derive(Debug, Clone)]
pub(crate) struct Mlp {
    layers: usize,
}

impl Mlp {
    pub(crate) fn new(hidden: &[usize], shape: ImageShape, classes: usize, tensors: &mut Declarations) -> Self {
        let widths: Vec<usize> = [shape.values()].into_iter().chain(hidden.iter().copied()).chain([classes]).collect();
        for (k, pair) in widths.windows(2).enumerate() {
            tensors.linear(&format!("layers.{k}"), pair[0], pair[1]);
        }
        Self { layers: widths.len() - 1 }
    }

    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor, ModelError> {
        let mut x = x.flatten_from(1)?;
        for k in 0..self.layers {
            x = linear(&x, pass, &format!("layers.{k}"))?;
            if k + 1 < self.layers {
                x = relu(&x)?;
            }
        }
        Ok(x)
    }
}
