//! ResNet-(6n+2) for small images (He et al. 2016, section 4.2), with option-A shortcuts, or without residual connections
//! as in Li et al. 2018.

use strath_core::ImageShape;

use crate::error::{Computed, ModelError};
use crate::init::{Declarations, strided};
use crate::normaliser::{Normaliser, Pair, Sizes};
use crate::route::{Conv, Follows, Images, Route};

/// Channels of the three stages.
const WIDTHS: [usize; 3] = [16, 32, 64];
const STEM: Pair<'_> = Pair { conv: "stem.conv", norm: "stem.bn" };

/// The network.
#[derive(Debug, Clone)]
pub(crate) struct ResNet {
    blocks: Vec<Block>,
    skip: bool,
    norm: Normaliser,
}

#[derive(Debug, Clone)]
struct Block {
    prefix: String,
    stride: usize,
    /// Channels that the shortcut has to add.
    added: usize,
}

/// The first or second convolution of a block, and its norm.
fn names(prefix: &str, layer: usize) -> (String, String) {
    (format!("{prefix}.conv{layer}"), format!("{prefix}.bn{layer}"))
}

impl ResNet {
    pub(crate) fn new(
        depth: usize,
        skip: bool,
        norm: Normaliser,
        shape: ImageShape,
        classes: usize,
        tensors: &mut Declarations,
    ) -> Result<Self, ModelError> {
        if depth < 8 || depth % 6 != 2 {
            return Err(ModelError::Option {
                option: "depth",
                found: depth,
                expected: "6n + 2 with n of at least 1".into(),
            });
        }
        let mut plane = (shape.height, shape.width);
        let sizes = Sizes { inputs: shape.channels, outputs: WIDTHS[0], kernel: 3 };
        norm.declare_pair(tensors, STEM, sizes, plane.0 * plane.1);
        let mut blocks = Vec::new();
        let mut inputs = WIDTHS[0];
        for (stage, outputs) in WIDTHS.into_iter().enumerate() {
            for block in 0..(depth - 2) / 6 {
                let prefix = format!("stages.{stage}.{block}");
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                plane = strided(plane, stride);
                for (layer, inputs) in [(1, inputs), (2, outputs)] {
                    let (conv, bn) = names(&prefix, layer);
                    let sizes = Sizes { inputs, outputs, kernel: 3 };
                    norm.declare_pair(tensors, Pair { conv: &conv, norm: &bn }, sizes, plane.0 * plane.1);
                }
                blocks.push(Block { prefix, stride, added: outputs - inputs });
                inputs = outputs;
            }
        }
        tensors.linear("classifier", inputs, classes);
        Ok(Self { blocks, skip, norm })
    }

    pub(crate) fn forward<R: Route>(&self, images: Images<'_>, route: &R) -> Computed<R::Value> {
        let mut x = route.images(images)?;
        x = route.convolution(&x, STEM.conv, Conv { stride: 1, padding: 1 })?; // [N, H, W, 16]
        x = self.norm.after(route, STEM, &x, Follows::Relu)?;
        for block in &self.blocks {
            x = self.block(block, &x, route)?;
        }
        route.linear(&route.global_average(&x)?, "classifier")
    }

    fn block<R: Route>(&self, block: &Block, x: &R::Value, route: &R) -> Computed<R::Value> {
        let Block { prefix, stride, added } = block;
        let (conv, bn) = names(prefix, 1);
        let y = route.convolution(x, &conv, Conv { stride: *stride, padding: 1 })?;
        let y = self.norm.after(route, Pair { conv: &conv, norm: &bn }, &y, Follows::Relu)?;
        let (conv, bn) = names(prefix, 2);
        let y = route.convolution(&y, &conv, Conv { stride: 1, padding: 1 })?;
        let end = |follows: Follows<&R::Value>| self.norm.after(route, Pair { conv: &conv, norm: &bn }, &y, follows);
        if !self.skip {
            return end(Follows::Relu);
        }
        if *stride == 1 && *added == 0 {
            return end(Follows::AddRelu(x));
        }
        end(Follows::AddRelu(&route.subsample_and_pad(x, *stride, *added)?))
    }
}
