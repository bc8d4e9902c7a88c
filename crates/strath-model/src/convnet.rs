//! Small convolutional network: 3x3 conv + batch norm + ReLU blocks, each after the first with stride 2, global average
//! pool, Linear.

use strath_core::ImageShape;

use crate::error::Computed;
use crate::init::{Declarations, strided};
use crate::route::{Conv, Follows, Images, Route};

/// The network.
#[derive(Debug, Clone)]
pub(crate) struct ConvNet {
    blocks: usize,
}

fn stride(block: usize) -> usize {
    if block == 0 { 1 } else { 2 }
}

impl ConvNet {
    pub(crate) fn new(widths: &[usize], shape: ImageShape, classes: usize, tensors: &mut Declarations) -> Self {
        let (mut inputs, mut plane) = (shape.channels, (shape.height, shape.width));
        for (k, outputs) in widths.iter().enumerate() {
            plane = strided(plane, stride(k));
            tensors.convolution(&format!("features.{k}.conv"), inputs, *outputs, 3);
            tensors.batch_norm(&format!("features.{k}.bn"), *outputs, plane.0 * plane.1);
            inputs = *outputs;
        }
        tensors.linear("classifier", inputs, classes);
        Self { blocks: widths.len() }
    }

    pub(crate) fn forward<R: Route>(&self, images: Images<'_>, route: &R) -> Computed<R::Value> {
        let mut x = route.images(images)?;
        for k in 0..self.blocks {
            let conv = Conv { stride: stride(k), padding: 1 };
            x = route.convolution(&x, &format!("features.{k}.conv"), conv)?; // [N, H / 2^k, W / 2^k, width]
            x = route.batch_norm(&x, &format!("features.{k}.bn"), Follows::Relu)?;
        }
        route.linear(&route.global_average(&x)?, "classifier")
    }
}
