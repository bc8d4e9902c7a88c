//! Layers, models and loss: weights and a micro-batch in, loss and gradient out.
//!
//! A network is a sequence of layers on one of three routes, all of custom ops under candle's autograd: `flow` trains, on the
//! kernels and in memory that is used again; `tangent` multiplies by the Hessian, with each layer's derivative along a direction beside it;
//! `layer`, which both are tested against, is made of ops on tensors whose gradients can be differentiated. Every vector is flat, in the
//! layout of the model's parameters.

mod convnet;
mod device;
mod error;
mod flow;
mod init;
mod layer;
mod mlp;
mod model;
mod normaliser;
mod pass;
mod probe;
mod registry;
mod resnet;
mod route;
mod survey;
mod tangent;
mod vit;
mod wide_resnet;

pub use device::{DeviceListener, DevicePass};
pub use error::ModelError;
pub use flow::Listener;
pub use model::{BATCH_NORM_MOMENTUM, Model, Normalise, PassReport, Score};
pub use probe::numerics_fingerprint;
pub use registry::convolution_method;
pub use strath_kernels::conv::Method;
pub use survey::Work;
