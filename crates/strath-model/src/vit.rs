//! Vision transformer (Dosovitskiy et al. 2021) with timm's parameter names: class token, learned positions, pre-norm,
//! exact GELU.

use strath_core::ImageShape;

use crate::error::{Computed, ModelError};
use crate::init::{Declarations, Initial};
use crate::route::{Images, Route};

/// Options of the network, as in `[model]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) patch: usize,
    pub(crate) dim: usize,
    pub(crate) depth: usize,
    pub(crate) heads: usize,
    pub(crate) mlp_ratio: usize,
}

/// The network.
#[derive(Debug, Clone)]
pub(crate) struct ViT {
    options: Options,
}

impl ViT {
    pub(crate) fn new(
        options: Options,
        shape: ImageShape,
        classes: usize,
        tensors: &mut Declarations,
    ) -> Result<Self, ModelError> {
        let Options { patch, dim, depth, heads, mlp_ratio } = options;
        if shape.height != shape.width || !shape.height.is_multiple_of(patch) {
            let expected = format!("square images with a side that model.patch = {patch} divides");
            return Err(ModelError::Images { kind: "vit", expected, found: shape });
        }
        if !dim.is_multiple_of(heads) {
            let expected = format!("a multiple of model.heads = {heads}");
            return Err(ModelError::Option { option: "dim", found: dim, expected });
        }
        let side = shape.height / patch;
        let patch_values = shape.channels * patch * patch;
        let initial = Initial::Uniform { fan_in: patch_values };
        tensors.tensor("patch_embed.proj.weight", &[dim, shape.channels, patch, patch], initial, false);
        tensors.tensor("patch_embed.proj.bias", &[dim], initial, false);
        tensors.tensor("cls_token", &[1, 1, dim], Initial::Zeros, false);
        tensors.tensor("pos_embed", &[1, side * side + 1, dim], Initial::Normal(0.02), false);
        for block in 0..depth {
            let prefix = format!("blocks.{block}");
            tensors.norm(&format!("{prefix}.norm1"), dim);
            tensors.linear(&format!("{prefix}.attn.qkv"), dim, 3 * dim);
            tensors.linear(&format!("{prefix}.attn.proj"), dim, dim);
            tensors.norm(&format!("{prefix}.norm2"), dim);
            tensors.linear(&format!("{prefix}.mlp.fc1"), dim, mlp_ratio * dim);
            tensors.linear(&format!("{prefix}.mlp.fc2"), mlp_ratio * dim, dim);
        }
        tensors.norm("norm", dim);
        tensors.linear("head", dim, classes);
        Ok(Self { options })
    }

    pub(crate) fn forward<R: Route>(&self, images: Images<'_>, route: &R) -> Computed<R::Value> {
        let Options { patch, depth, heads, .. } = self.options;
        // A convolution whose stride is its kernel is a linear layer of each patch.
        let patches = route.linear(&route.patches(images, patch)?, "patch_embed.proj")?; // [N, tokens, dim]
        let mut x = route.with_class_and_positions(&patches)?; // [N, T, dim]
        for block in 0..depth {
            let prefix = format!("blocks.{block}");
            let normed = route.layer_norm(&x, &format!("{prefix}.norm1"))?;
            let qkv = route.linear(&normed, &format!("{prefix}.attn.qkv"))?; // [N, T, 3 dim]
            let mut attended = route.attention(&qkv, heads)?;
            if block + 1 == depth {
                // Only attention looks at other rows, and the head asks for the class token's: from here on the rest is of no use.
                (x, attended) = (route.first_row(&x)?, route.first_row(&attended)?); // [N, dim]
            }
            x = route.add_linear(&x, &attended, &format!("{prefix}.attn.proj"))?;
            let normed = route.layer_norm(&x, &format!("{prefix}.norm2"))?;
            let hidden = route.linear_gelu(&normed, &format!("{prefix}.mlp.fc1"))?; // [.., ratio dim]
            x = route.add_linear(&x, &hidden, &format!("{prefix}.mlp.fc2"))?;
        }
        route.linear(&route.layer_norm(&x, "norm")?, "head")
    }
}
