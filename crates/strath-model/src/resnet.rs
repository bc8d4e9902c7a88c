//! ResNet-(6n+2) for small images (He et al. 2016, section 4.2), with option-A shortcuts, or without residual connections
//! as in Li et al. 2018.

use strath_core::ImageShape;

use crate::error::{Computed, ModelError};
use crate::init::{Declarations, strided};
use crate::route::{Conv, Follows, Images, Route};

/// Channels of the three stages.
const WIDTHS: [usize; 3] = [16, 32, 64];

/// The network.
#[derive(Debug, Clone)]
pub(crate) struct ResNet {
    blocks: Vec<Block>,
    skip: bool,
}

#[derive(Debug, Clone)]
struct Block {
    prefix: String,
    stride: usize,
    /// Channels that the shortcut has to add.
    added: usize,
}

impl ResNet {
    pub(crate) fn new(
        depth: usize,
        skip: bool,
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
        tensors.convolution("stem.conv", shape.channels, WIDTHS[0], 3);
        tensors.batch_norm("stem.bn", WIDTHS[0], plane.0 * plane.1);
        let mut blocks = Vec::new();
        let mut inputs = WIDTHS[0];
        for (stage, outputs) in WIDTHS.into_iter().enumerate() {
            for block in 0..(depth - 2) / 6 {
                let prefix = format!("stages.{stage}.{block}");
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                plane = strided(plane, stride);
                tensors.convolution(&format!("{prefix}.conv1"), inputs, outputs, 3);
                tensors.batch_norm(&format!("{prefix}.bn1"), outputs, plane.0 * plane.1);
                tensors.convolution(&format!("{prefix}.conv2"), outputs, outputs, 3);
                tensors.batch_norm(&format!("{prefix}.bn2"), outputs, plane.0 * plane.1);
                blocks.push(Block { prefix, stride, added: outputs - inputs });
                inputs = outputs;
            }
        }
        tensors.linear("classifier", inputs, classes);
        Ok(Self { blocks, skip })
    }

    pub(crate) fn forward<R: Route>(&self, images: Images<'_>, route: &R) -> Computed<R::Value> {
        let mut x = route.images(images)?;
        x = route.convolution(&x, "stem.conv", Conv { stride: 1, padding: 1 })?; // [N, H, W, 16]
        x = route.batch_norm(&x, "stem.bn", Follows::Relu)?;
        for block in &self.blocks {
            x = self.block(block, &x, route)?;
        }
        route.linear(&route.global_average(&x)?, "classifier")
    }

    fn block<R: Route>(&self, block: &Block, x: &R::Value, route: &R) -> Computed<R::Value> {
        let Block { prefix, stride, added } = block;
        let y = route.convolution(x, &format!("{prefix}.conv1"), Conv { stride: *stride, padding: 1 })?;
        let y = route.batch_norm(&y, &format!("{prefix}.bn1"), Follows::Relu)?;
        let y = route.convolution(&y, &format!("{prefix}.conv2"), Conv { stride: 1, padding: 1 })?;
        let norm = format!("{prefix}.bn2");
        if !self.skip {
            return route.batch_norm(&y, &norm, Follows::Relu);
        }
        if *stride == 1 && *added == 0 {
            return route.batch_norm(&y, &norm, Follows::AddRelu(x));
        }
        let shortcut = route.subsample_and_pad(x, *stride, *added)?;
        route.batch_norm(&y, &norm, Follows::AddRelu(&shortcut))
    }
}
