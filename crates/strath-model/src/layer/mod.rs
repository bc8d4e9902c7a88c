//! Layers: each a function of (input, named parameters, phase), made of custom ops on the kernels.
//!
//! The products that carry most of the work, convolution and the matrix product, have backwards that are themselves made of
//! these ops, so that they can be differentiated any number of times. The fused norms, softmax and the loss hand back plain
//! kernels' results, except where candle keeps the graph of gradients: there they are composed of ops.

mod activation;
mod convolution;
mod loss;
mod norm;
mod pool;
mod product;
mod shortcut;
mod slices;
mod twice;

pub(crate) use activation::{add_relu, gelu, relu, softmax};
pub(crate) use convolution::{Conv, convolution};
pub(crate) use loss::{cross_entropy, scores};
pub(crate) use norm::{batch_norm, batch_norm_relu, layer_norm};
pub(crate) use pool::global_average;
pub(crate) use product::{Side, linear, product};
pub(crate) use shortcut::subsample_and_pad;

#[cfg(test)]
pub(crate) use twice::tests::with_graph_kept;
