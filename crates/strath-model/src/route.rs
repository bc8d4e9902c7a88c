//! The routes through a network: for training, for products with the Hessian, and the slow one that both are tested against.

use strath_core::ImageShape;

use crate::error::Computed;

/// Stride and padding of a convolution layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Conv {
    pub(crate) stride: usize,
    pub(crate) padding: usize,
}

/// The examples of a pass, [N, C, H, W] as data sets hold them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Images<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) count: usize,
    pub(crate) shape: ImageShape,
}

/// What follows a norm, or the bias in its place.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Follows<V> {
    /// `max(., 0)`.
    Relu,
    /// `max(. + shortcut, 0)`: the end of a residual block.
    AddRelu(V),
}

/// The layers that networks are made of. Images inside are [N, H, W, C], parameters are named as PyTorch's.
///
/// Implemented by [`crate::flow::Course`], which trains, by [`crate::tangent::Tangents`], which goes along a direction, and by
/// [`crate::pass::Pass`], on candle tensors, whose gradients are part of candle's graph: what the others are tested against.
pub(crate) trait Route {
    /// An activation.
    type Value: Clone;

    /// Images with channels innermost, [N, H, W, C].
    fn images(&self, images: Images<'_>) -> Computed<Self::Value>;

    /// Each image as a row, [N, C H W].
    fn flat_images(&self, images: Images<'_>) -> Computed<Self::Value>;

    /// Each square patch of each image as a row of [N, patches, C patch patch], in the order of a convolution's weights.
    fn patches(&self, images: Images<'_>, patch: usize) -> Computed<Self::Value>;

    /// `y [N, oh, ow, O]` of x [N, H, W, C] with `prefix.weight` [O, C, kh, kw], without a bias.
    fn convolution(&self, x: &Self::Value, prefix: &str, conv: Conv) -> Computed<Self::Value>;

    /// Batch norm of x [N, H, W, C] and what follows: by the batch's statistics in training, which the pass collects, by
    /// `prefix.running_mean` and `prefix.running_var` in evaluation.
    fn batch_norm(&self, x: &Self::Value, prefix: &str, follows: Follows<&Self::Value>) -> Computed<Self::Value>;

    /// Group norm of x [N, H, W, C] in gcd(8, C) groups, with `prefix.weight` and `prefix.bias`, and what follows.
    fn group_norm(&self, x: &Self::Value, prefix: &str, follows: Follows<&Self::Value>) -> Computed<Self::Value>;

    /// x [N, H, W, C] plus `prefix.bias` [C], and what follows, if anything does.
    fn bias(&self, x: &Self::Value, prefix: &str, follows: Option<Follows<&Self::Value>>) -> Computed<Self::Value>;

    /// `max(x, 0)`.
    fn relu(&self, x: &Self::Value) -> Computed<Self::Value>;

    /// x [N, H, W, C] to [N, ceil(H / stride), ceil(W / stride), C + added]: every `stride`-th pixel, `added / 2` channels of zeros
    /// before and the rest after.
    fn subsample_and_pad(&self, x: &Self::Value, stride: usize, added: usize) -> Computed<Self::Value>;

    /// x [N, H, W, C] to its means over H and W, [N, C].
    fn global_average(&self, x: &Self::Value) -> Computed<Self::Value>;

    /// `x W' + b` of rows x [.., in] with `prefix.weight` [out, in] (a patch embedding's lie alike) and `prefix.bias`.
    fn linear(&self, x: &Self::Value, prefix: &str) -> Computed<Self::Value>;

    /// ReLU of [`linear`](Self::linear).
    fn linear_relu(&self, x: &Self::Value, prefix: &str) -> Computed<Self::Value>;

    /// The exact GELU of [`linear`](Self::linear).
    fn linear_gelu(&self, x: &Self::Value, prefix: &str) -> Computed<Self::Value>;

    /// `residual +` [`linear`](Self::linear): the end of a residual branch.
    fn add_linear(&self, residual: &Self::Value, x: &Self::Value, prefix: &str) -> Computed<Self::Value>;

    /// `a + b`.
    fn add(&self, a: &Self::Value, b: &Self::Value) -> Computed<Self::Value>;

    /// Layer norm of each row, with `prefix.weight` and `prefix.bias`.
    fn layer_norm(&self, x: &Self::Value, prefix: &str) -> Computed<Self::Value>;

    /// Softmax attention of queries, keys and values [N, T, 3 dim] over `heads` heads, [N, T, dim].
    fn attention(&self, qkv: &Self::Value, heads: usize) -> Computed<Self::Value>;

    /// Patches [N, T, dim] with `cls_token` before them and `pos_embed` added, [N, T + 1, dim].
    fn with_class_and_positions(&self, x: &Self::Value) -> Computed<Self::Value>;

    /// The first row of each image of x [N, T, dim], [N, dim].
    fn first_row(&self, x: &Self::Value) -> Computed<Self::Value>;
}
