//! WRN-depth-widen, depth = 6n + 4 (Zagoruyko and Komodakis 2016): pre-activation blocks with a 1x1 shortcut on the
//! activated input where the shape changes.

use strath_core::ImageShape;

use crate::error::{Computed, ModelError};
use crate::init::{Declarations, strided};
use crate::route::{Conv, Follows, Images, Route};

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

    pub(crate) fn forward<R: Route>(&self, images: Images<'_>, route: &R) -> Computed<R::Value> {
        let mut x = route.convolution(&route.images(images)?, "stem", Conv { stride: 1, padding: 1 })?; // [N, H, W, 16]
        for Block { prefix, stride, has_shortcut } in &self.blocks {
            let a = route.batch_norm(&x, &format!("{prefix}.bn1"), Follows::Relu)?;
            let y = route.convolution(&a, &format!("{prefix}.conv1"), Conv { stride: *stride, padding: 1 })?;
            let y = route.batch_norm(&y, &format!("{prefix}.bn2"), Follows::Relu)?;
            let y = route.convolution(&y, &format!("{prefix}.conv2"), Conv { stride: 1, padding: 1 })?;
            let shortcut = if *has_shortcut {
                route.convolution(&a, &format!("{prefix}.shortcut"), Conv { stride: *stride, padding: 0 })?
            } else {
                x
            };
            x = route.add(&y, &shortcut)?;
        }
        let x = route.batch_norm(&x, "final_bn", Follows::Relu)?;
        route.linear(&route.global_average(&x)?, "classifier")
    }
}
