//! The runtimes of Strath: what a worker and a coordinator do with clocks, sockets, files and threads.
//!
//! An example of the data walks through `worker` -> [`step`] -> model and back, then [`strath_collective`], then the
//! optimizer. The control plane's decisions are made in [`strath_protocol`]; here they are carried out.

pub mod asked;
pub mod board;
mod buffers;
pub mod checkpoint;
mod clock;
pub mod coordinator;
pub mod descent;
pub mod device;

pub mod evaluate;
pub mod feed;
pub mod files;
pub mod first_lift;
pub mod flat;
mod generation;
pub mod gpus;
pub mod ladder;
pub mod lane_keys;
pub mod local;
pub mod measure;
pub mod metrics;
pub mod outcome;
pub mod pace;
pub mod prepare;
pub mod progress;
pub mod resident;
pub mod run_folder;
pub mod seats;
pub mod share;
pub mod start;
pub mod state;
pub mod step;
pub mod summary;
pub mod sums;
pub mod tally;
pub mod tensorboard;
pub mod trace;
pub mod trainer;
#[doc(hidden)]
pub mod untrusted;
pub mod verify;
mod watch;
mod whereabouts;
pub mod worker;

pub use generation::ring_tls;
