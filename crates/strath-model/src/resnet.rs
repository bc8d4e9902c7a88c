//! ResNet-(6n+2) for small images (He et al. 2016, section 4.2), with option-A shortcuts, or without residual connections
//! as in Li et al. 2018.

use candle_core::Tensor;
use strath_core::ImageShape;

use crate::error::ModelError;
use crate::init::{Declarations, strided};
use crate::layer::{
    Conv, add_relu, batch_norm, batch_norm_relu, convolution, global_average, linear, subsample_and_pad,
};
use crate::pass::Pass;

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

    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor, ModelError> {
        let mut x = convolution(x, pass, "stem.conv", Conv { stride: 1, padding: 1 })?; // [N, 16, H, W]
        x = batch_norm_relu(&x, pass, "stem.bn")?;
        for block in &self.blocks {
            x = self.block(block, &x, pass)?;
        }
        linear(&global_average(&x)?, pass, "classifier")
    }

    fn block(&self, block: &Block, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor, ModelError> {
        let Block { prefix, stride, added } = block;
        let y = convolution(x, pass, &format!("{prefix}.conv1"), Conv { stride: *stride, padding: 1 })?;
        let y = batch_norm_relu(&y, pass, &format!("{prefix}.bn1"))?;
        let y = convolution(&y, pass, &format!("{prefix}.conv2"), Conv { stride: 1, padding: 1 })?;
        if !self.skip {
            return batch_norm_relu(&y, pass, &format!("{prefix}.bn2"));
        }
        let y = batch_norm(&y, pass, &format!("{prefix}.bn2"))?;
        let shortcut = if *stride != 1 || *added > 0 { subsample_and_pad(x, *stride, *added)? } else { x.clone() };
        Ok(add_relu(&shortcut, &y)?)
    }
}
