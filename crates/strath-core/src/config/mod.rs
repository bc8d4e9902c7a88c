//! The validated configuration of a run, and how it comes to be: layers are merged, every raw value is checked against its
//! key's type and range, and its origin is kept.

mod build;
mod check;
pub mod choices;
pub mod error;
pub mod keys;
mod merge;
mod nearest;
mod origin;
mod render;
mod replace;
mod resume;
pub mod tables;
mod tree;

pub use check::parse_value;
pub use choices::{
    Algorithm, Augmentation, Compute, Convolution, DataKind, Device, Direction, Isa, LaneSizes, ModelKind, Norm,
    NormLayer, Numerics, OptimizerKind, Perturb, Reduce, RhoRule, RunLength, Schedule, Transport, WeightDecay,
};
pub use error::ConfigError;
pub use keys::{MOST_STREAMS, MOST_WORKERS};
pub use merge::Layers;
pub use origin::Origin;
pub use render::{Effective, Row};
pub use resume::resumable;
pub use tables::{
    BatchTable, CheckpointTable, ClusterTable, Config, DataTable, LossTable, ModelTable, OptimizerTable, RunTable,
    SamTable, ScheduleTable, TelemetryTable,
};
