//! Multi-layer perceptron: flatten, then Linear + ReLU for each hidden width, then Linear to the classes.

use strath_core::ImageShape;

use crate::error::Computed;
use crate::init::Declarations;
use crate::route::{Images, Route};

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

    pub(crate) fn forward<R: Route>(&self, images: Images<'_>, route: &R) -> Computed<R::Value> {
        let mut x = route.flat_images(images)?;
        for k in 0..self.layers - 1 {
            x = route.linear_relu(&x, &format!("layers.{k}"))?;
        }
        route.linear(&x, &format!("layers.{}", self.layers - 1))
    }
}
