//! Layers, models and loss: weights and a micro-batch in, loss and gradient out.
//!
//! Layers are functions of (input, named parameters, phase) on candle tensors, each a custom op on the kernels; candle's
//! autograd is the one engine. Every vector is flat, in the layout of the model's parameters.

mod convnet;
mod error;
mod init;
mod layer;
mod mlp;
mod model;
mod pass;
mod probe;
mod registry;
mod resnet;
mod vit;
mod wide_resnet;

pub use error::ModelError;
pub use model::{BATCH_NORM_MOMENTUM, Model, PassReport, Score};
pub use probe::numerics_fingerprint;
