//! Small convolutional network: 3x3 conv + norm + ReLU blocks, each after the first with stride 2, global average
//! pool, Linear.

use strath_core::ImageShape;

use crate::error::Computed;
use crate::init::{Declarations, strided};
use crate::normaliser::{Normaliser, Pair, Sizes};
use crate::route::{Conv, Follows, Images, Route};

/// The network.
#[derive(Debug, Clone)]
pub(crate) struct ConvNet {
    blocks: usize,
    norm: Normaliser,
}

/// The convolution and the norm of a block.
fn names(block: usize) -> (String, String) {
    (format!("features.{block}.conv"), format!("features.{block}.bn"))
}

fn stride(block: usize) -> usize {
    if block == 0 { 1 } else { 2 }
}

impl ConvNet {
    pub(crate) fn new(
        widths: &[usize],
        norm: Normaliser,
        shape: ImageShape,
        classes: usize,
        tensors: &mut Declarations,
    ) -> Self {
        let (mut inputs, mut plane) = (shape.channels, (shape.height, shape.width));
        for (k, outputs) in widths.iter().enumerate() {
            plane = strided(plane, stride(k));
            let (conv, bn) = names(k);
            let sizes = Sizes { inputs, outputs: *outputs, kernel: 3 };
            norm.declare_pair(tensors, Pair { conv: &conv, norm: &bn }, sizes, plane.0 * plane.1);
            inputs = *outputs;
        }
        tensors.linear("classifier", inputs, classes);
        Self { blocks: widths.len(), norm }
    }

    pub(crate) fn forward<R: Route>(&self, images: Images<'_>, route: &R) -> Computed<R::Value> {
        let mut x = route.images(images)?;
        for k in 0..self.blocks {
            let (conv, bn) = names(k);
            x = route.convolution(&x, &conv, Conv { stride: stride(k), padding: 1 })?; // [N, H / 2^k, W / 2^k, width]
            x = self.norm.after(route, Pair { conv: &conv, norm: &bn }, &x, Follows::Relu)?;
        }
        route.linear(&route.global_average(&x)?, "classifier")
    }
}
