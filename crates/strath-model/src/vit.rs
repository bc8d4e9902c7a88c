//! Vision transformer (Dosovitskiy et al. 2021) with timm's parameter names: class token, learned positions, pre-norm,
//! exact GELU.

use candle_core::{D, Tensor};
use strath_core::ImageShape;

use crate::error::ModelError;
use crate::init::{Declarations, Initial};
use crate::layer::{Side, gelu, layer_norm, linear, product, softmax};
use crate::pass::Pass;

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
    shape: ImageShape,
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
        Ok(Self { options, shape })
    }

    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor, ModelError> {
        let images = x.dim(0)?;
        let dim = self.options.dim;
        let patches = self.embed(x, pass)?; // [N, tokens, dim]
        let class = pass.get("", "cls_token")?.broadcast_as((images, 1, dim))?;
        let mut x = Tensor::cat(&[&class, &patches], 1)?.broadcast_add(pass.get("", "pos_embed")?)?; // [N, T, dim]
        for block in 0..self.options.depth {
            let prefix = format!("blocks.{block}");
            let normed = layer_norm(&x, pass, &format!("{prefix}.norm1"))?;
            x = (x + self.attention(&normed, pass, &format!("{prefix}.attn"))?)?;
            let normed = layer_norm(&x, pass, &format!("{prefix}.norm2"))?;
            let hidden = gelu(&rows(&normed, |x| linear(x, pass, &format!("{prefix}.mlp.fc1")))?)?;
            x = (x + rows(&hidden, |x| linear(x, pass, &format!("{prefix}.mlp.fc2")))?)?;
        }
        let class = x.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?; // the norm is a row's own: only this row is asked for
        linear(&layer_norm(&class, pass, "norm")?, pass, "head")
    }

    /// The patches [N, tokens, dim]: a convolution whose stride is its kernel is a matrix product of each patch.
    fn embed(&self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor, ModelError> {
        let Options { patch, dim, .. } = self.options;
        let (images, channels, side) = (x.dim(0)?, self.shape.channels, self.shape.height / patch);
        let patches = x
            .reshape((images, channels, side, patch, side, patch))?
            .permute((0, 2, 4, 1, 3, 5))?
            .reshape((1, images * side * side, channels * patch * patch))?;
        let weight = pass.get("patch_embed.proj", "weight")?.reshape((1, dim, channels * patch * patch))?;
        let y = product((&patches, Side::Plain), (&weight, Side::Transposed))?;
        let y = y.broadcast_add(pass.get("patch_embed.proj", "bias")?)?;
        Ok(y.reshape((images, side * side, dim))?)
    }

    fn attention(&self, x: &Tensor, pass: &Pass<'_>, prefix: &str) -> Result<Tensor, ModelError> {
        let Options { dim, heads, .. } = self.options;
        let (images, tokens, _) = x.dims3()?;
        let width = dim / heads;
        let qkv = rows(x, |x| linear(x, pass, &format!("{prefix}.qkv")))?; // [N, T, 3 dim]
        let qkv = qkv.reshape((images, tokens, 3, heads, width))?.permute((2, 0, 3, 1, 4))?;
        let part = |k: usize| qkv.narrow(0, k, 1)?.contiguous()?.reshape((images * heads, tokens, width));
        let (q, k, v) = (part(0)?, part(1)?, part(2)?); // [N heads, T, width]
        let logits = product((&q, Side::Plain), (&k, Side::Transposed))?;
        let weights = softmax(&(logits / (width as f64).sqrt())?)?; // [N heads, T, T]
        let y = product((&weights, Side::Plain), (&v, Side::Plain))?;
        let y = y.reshape((images, heads, tokens, width))?.transpose(1, 2)?.contiguous()?;
        rows(&y.reshape((images, tokens, dim))?, |x| linear(x, pass, &format!("{prefix}.proj")))
    }
}

/// Applies a function of rows [n, width] to the last axis of x [N, T, width].
fn rows(x: &Tensor, f: impl FnOnce(&Tensor) -> Result<Tensor, ModelError>) -> Result<Tensor, ModelError> {
    let (images, tokens, width) = x.dims3()?;
    let y = f(&x.reshape((images * tokens, width))?)?;
    let outputs = y.dim(D::Minus1)?;
    Ok(y.reshape((images, tokens, outputs))?)
}
