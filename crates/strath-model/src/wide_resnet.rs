//! WRN-depth-widen, depth = 6n + 4 (Zagoruyko and Komodakis 2016): pre-activation blocks with a 1x1 shortcut on the
//! activated input where the shape changes.

use candle_core::Tensor;
use strath_core::ImageShape;

use crate::error::ModelError;
use crate::init::{Declarations, strided};
use crate::layer::{Conv, batch_norm_relu, convolution, global_average, linear};
use crate::pass::Pass;

const STEM: usize = 16;

/// The network.
#[derive(Debug, Clone)]
pub(crate) struct WideResNet {
    blocks: Vec<Block>,
}

#[derive(Debug, Clone)]
struct Block {
    prefix: String,
    stride: usize,
    has_shortcut: bool,
}

impl WideResNet {
    pub(crate) fn new(
        depth: usize,
        widen: usize,
        shape: ImageShape,
        classes: usize,
        tensors: &mut Declarations,
    ) -> Result<Self, ModelError> {
        if depth < 10 || depth % 6 != 4 {
            return Err(ModelError::Option {
                option: "depth",
                found: depth,
                expected: "6n + 4 with n of at least 1".into(),
            });
        }
        let mut plane = (shape.height, shape.width);
        tensors.convolution("stem", shape.channels, STEM, 3);
        let mut blocks = Vec::new();
        let mut inputs = STEM;
        for (stage, factor) in [1, 2, 4].into_iter().enumerate() {
            let outputs = STEM * factor * widen;
            for block in 0..(depth - 4) / 6 {
                let prefix = format!("stages.{stage}.{block}");
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                tensors.batch_norm(&format!("{prefix}.bn1"), inputs, plane.0 * plane.1);
                plane = strided(plane, stride);
                tensors.convolution(&format!("{prefix}.conv1"), inputs, outputs, 3);
                tensors.batch_norm(&format!("{prefix}.bn2"), outputs, plane.0 * plane.1);
                tensors.convolution(&format!("{prefix}.conv2"), outputs, outputs, 3);
                let has_shortcut = stride != 1 || inputs != outputs;
                if has_shortcut {
                    tensors.convolution(&format!("{prefix}.shortcut"), inputs, outputs, 1);
                }
                blocks.push(Block { prefix, stride, has_shortcut });
                inputs = outputs;
            }
        }
        tensors.batch_norm("final_bn", inputs, plane.0 * plane.1);
        tensors.linear("classifier", inputs, classes);
        Ok(Self { blocks })
    }

    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor, ModelError> {
        let mut x = convolution(x, pass, "stem", Conv { stride: 1, padding: 1 })?; // [N, 16, H, W]
        for Block { prefix, stride, has_shortcut } in &self.blocks {
            let a = batch_norm_relu(&x, pass, &format!("{prefix}.bn1"))?;
            let y = convolution(&a, pass, &format!("{prefix}.conv1"), Conv { stride: *stride, padding: 1 })?;
            let y = batch_norm_relu(&y, pass, &format!("{prefix}.bn2"))?;
            let y = convolution(&y, pass, &format!("{prefix}.conv2"), Conv { stride: 1, padding: 1 })?;
            let shortcut = if *has_shortcut {
                convolution(&a, pass, &format!("{prefix}.shortcut"), Conv { stride: *stride, padding: 0 })?
            } else {
                x
            };
            x = (y + shortcut)?;
        }
        let x = batch_norm_relu(&x, pass, "final_bn")?;
        linear(&global_average(&x)?, pass, "classifier")
    }
}
