//! The mathematics of sharpness-aware minimization on flat parameter vectors: epsilon, clipping, optimizers, schedules.
//!
//! Equations are numbered as in Foret, Kleiner, Mobahi and Neyshabur, "Sharpness-Aware Minimization for Efficiently
//! Improving Generalization", ICLR 2021. Everything here gives the same bits on every rank: norms are accumulated in `f64`
//! over fixed blocks, and `exp`, `pow` and `cos` come from the `libm` crate, not from the platform.

pub mod ascent;
pub mod bound;
pub mod clip;
pub mod direction;
pub mod directions;
pub mod eigen;
mod extent;
pub mod lanczos;
pub mod lanes;
pub mod optimizer;
pub mod perturbation;
pub mod schedule;
pub mod sums;

pub use clip::{Clipped, clip};
pub use direction::{direction_streams, draw_direction};
pub use lanes::{BatchFacts, LaneFacts};
pub use optimizer::{Optimizer, Update};
pub use perturbation::{Lift, NothingToPerturb, Perturbation};
pub use schedule::learning_rate;
pub use sums::{l2_norm, mean_and_error};
