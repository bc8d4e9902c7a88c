//! WRN-depth-widen, depth = 6n + 4 (Zagoruyko and Komodakis 2016): pre-activation blocks with a 1x1 shortcut on the
//! activated input where the shape changes.

use strath_core::ImageShape;

use crate::error::{Computed, ModelError};
use crate::init::{Declarations, strided};
use crate::normaliser::{Normaliser, Pair, Sizes};
use crate::route::{Conv, Follows, Images, Route};

const STEM: usize = 16;
/// The one convolution outside of blocks: the first block's first norm takes its output.
const FIRST: Pair<'_> = Pair { conv: "stem", norm: "stages.0.0.bn1" };

/// The network.
#[derive(Debug, Clone)]
pub(crate) struct WideResNet {
    blocks: Vec<Block>,
    norm: Normaliser,
}

#[derive(Debug, Clone)]
struct Block {
    prefix: String,
    stride: usize,
    has_shortcut: bool,
}

/// The convolution inside of a block whose output a norm takes, and that norm.
fn inner(prefix: &str) -> (String, String) {
    (format!("{prefix}.conv1"), format!("{prefix}.bn2"))
}

impl WideResNet {
    pub(crate) fn new(
        depth: usize,
        widen: usize,
        norm: Normaliser,
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
        let sizes = Sizes { inputs: shape.channels, outputs: STEM, kernel: 3 };
        norm.declare_pair(tensors, FIRST, sizes, plane.0 * plane.1);
        let mut blocks = Vec::new();
        let mut inputs = STEM;
        for (stage, factor) in [1, 2, 4].into_iter().enumerate() {
            let outputs = STEM * factor * widen;
            for block in 0..(depth - 4) / 6 {
                let prefix = format!("stages.{stage}.{block}");
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                if !blocks.is_empty() {
                    norm.declare(tensors, &format!("{prefix}.bn1"), inputs, plane.0 * plane.1);
                }
                plane = strided(plane, stride);
                let (conv, bn) = inner(&prefix);
                let sizes = Sizes { inputs, outputs, kernel: 3 };
                norm.declare_pair(tensors, Pair { conv: &conv, norm: &bn }, sizes, plane.0 * plane.1);
                tensors.convolution(&format!("{prefix}.conv2"), outputs, outputs, 3);
                let has_shortcut = stride != 1 || inputs != outputs;
                if has_shortcut {
                    tensors.convolution(&format!("{prefix}.shortcut"), inputs, outputs, 1);
                }
                blocks.push(Block { prefix, stride, has_shortcut });
                inputs = outputs;
            }
        }
        norm.declare(tensors, "final_bn", inputs, plane.0 * plane.1);
        tensors.linear("classifier", inputs, classes);
        Ok(Self { blocks, norm })
    }

    pub(crate) fn forward<R: Route>(&self, images: Images<'_>, route: &R) -> Computed<R::Value> {
        let x = route.convolution(&route.images(images)?, FIRST.conv, Conv { stride: 1, padding: 1 })?; // [N, H, W, 16]
        let (mut x, first) = self.norm.fork(route, FIRST, x)?;
        for (k, Block { prefix, stride, has_shortcut }) in self.blocks.iter().enumerate() {
            let a = match k {
                0 => first.clone(),
                _ => self.norm.of_sum(route, &format!("{prefix}.bn1"), &x)?,
            };
            let (conv, bn) = inner(prefix);
            let y = route.convolution(&a, &conv, Conv { stride: *stride, padding: 1 })?;
            let y = self.norm.after(route, Pair { conv: &conv, norm: &bn }, &y, Follows::Relu)?;
            let y = route.convolution(&y, &format!("{prefix}.conv2"), Conv { stride: 1, padding: 1 })?;
            let shortcut = if *has_shortcut {
                route.convolution(&a, &format!("{prefix}.shortcut"), Conv { stride: *stride, padding: 0 })?
            } else {
                x
            };
            x = route.add(&y, &shortcut)?;
        }
        let x = self.norm.of_sum(route, "final_bn", &x)?;
        route.linear(&route.global_average(&x)?, "classifier")
    }
}
