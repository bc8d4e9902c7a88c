//! The training route: activations beside candle's graph, in memory that is used again.
//!
//! A layer that is trained computes its values on plain slices and leaves behind a node of candle's graph that holds a single
//! number, a *token*, and knows how to take the layer's backward. candle's autograd thus decides what is differentiated and in
//! which order, while the values and their gradients, which are large, travel beside it: candle would start each gradient from
//! zeros, add to a copy and free both, which costs more memory traffic than a convolution (a sixth of a ResNet-20 step).
//!
//! ```text
//! candle's graph      token ── convolution ── token ── batch norm ── token ── ... ── loss
//!                       │                       │                      │
//! beside it          Values                  Values                 Values       activations, and on the way back gradients
//! ```
//!
//! Second derivatives go along a direction on [`crate::tangent`]; what both are tested against is the route on candle tensors,
//! [`crate::layer`], whose gradients are part of a graph.

mod attention;
mod bias;
mod buffer;
mod convolution;
mod course;
pub(crate) mod embed;
mod group_norm;
mod linear;
mod loss;
mod memory;
mod norm;
mod pool;
mod sink;
mod token;

pub(crate) use buffer::Buffer;
pub(crate) use course::{Course, Norms};
pub(crate) use loss::cross_entropy;
pub(crate) use memory::Memory;
pub(crate) use norm::{Affine, moments};
pub use sink::Listener;
pub(crate) use sink::{Parameter, Parameters, Sink};
pub(crate) use strath_kernels::Dims;
pub(crate) use token::{Backward, Flow, Tape, Values};
