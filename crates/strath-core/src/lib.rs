//! The words of Strath as types: ids, the plan of a batch, parameter layout, fixed-point sums, random numbers and the
//! validated configuration.
//!
//! Nothing here performs IO or reads a clock.

mod after;
pub mod config;
pub mod digest;
pub mod evaluations;
pub mod fault;
pub mod finish;
pub mod fixed;
pub mod ids;
pub mod layout;
pub mod plan;
pub mod random;
pub mod robust;
pub mod shape;
pub mod speed;
pub mod telemetry;

pub use after::After;
pub use digest::Digest;
pub use evaluations::Evaluations;
pub use fault::Fault;
pub use finish::Finish;
pub use ids::{Generation, Rank, RingKey, RunId, Step, Ticket, Timestamp, WorkerId};
pub use layout::Layout;
pub use plan::{Assignment, Plan};
pub use robust::Spread;
pub use shape::ImageShape;
pub use speed::BySpeed;
pub use telemetry::{Audit, Rung, Survey, Telemetry};
