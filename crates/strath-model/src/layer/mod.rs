//! Layers on candle tensors: custom ops and candle's own, whose gradients are part of candle's graph.
//!
//! Every op's backward is itself made of ops that have one, so that it can be differentiated any number of times: convolution
//! and the matrix product are each other's derivatives, norms and attention are composed. This is the route for exact
//! Hessian-vector products, and what the training route, [`crate::flow`], is tested against.

mod activation;
mod channels;
mod convolution;
mod graph;
mod loss;
mod norm;
mod pool;
mod product;
mod shortcut;
mod slices;
mod twice;

pub(crate) use loss::cross_entropy;
pub(crate) use norm::{BATCH_NORM_FLOOR, LAYER_NORM_FLOOR};
pub(crate) use slices::scalar;
pub(crate) use twice::keeps_graph;

#[cfg(test)]
pub(crate) use twice::tests::with_graph_kept;
