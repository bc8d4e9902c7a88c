//! Strath's fuzz targets: whatever arrives from outside, as any bytes.
//!
//! ```text
//!  bytes ──► target ──► a reader of the product ──► refused, or a value ──► written again, read again: the same value
//!              └── memory: what the reader takes at most, for so many bytes
//! ```
//!
//! A target is a function of bytes that panics where something does not hold. `fuzz` has libFuzzer look for such bytes (`tests/fuzz`); the
//! test `replay` has each target read the committed seeds and findings, and some thousand mutations of them, in every run of the tests.

mod all_reduce;
mod checkpoint;
mod config;
mod control;
mod coordinator;
mod data;
mod folder;
mod input;
mod memory;
mod ring;
pub mod seeds;
mod transport;

pub use all_reduce::all_reduce;
pub use checkpoint::checkpoint;
pub use config::{assignments, configuration};
pub use control::{certificates, coordinator_session, drain, status, worker_session};
pub use coordinator::coordinator;
pub use data::{cifar, idx, safetensors};
pub use folder::{coordinator_file, journal, metrics, trace};
pub use ring::{feed_word, frame, hello, offer};
pub use transport::{connection, shared_memory};

/// A function of bytes that panics where something does not hold.
pub type Target = fn(&[u8]);

/// Every target under its name, which is its folder of seeds too.
pub const TARGETS: &[(&str, Target)] = &[
    ("all_reduce", all_reduce),
    ("assignments", assignments),
    ("certificates", certificates),
    ("checkpoint", checkpoint),
    ("cifar", cifar),
    ("configuration", configuration),
    ("connection", connection),
    ("coordinator", coordinator),
    ("coordinator_file", coordinator_file),
    ("coordinator_session", coordinator_session),
    ("drain", drain),
    ("feed_word", feed_word),
    ("frame", frame),
    ("hello", hello),
    ("idx", idx),
    ("journal", journal),
    ("metrics", metrics),
    ("offer", offer),
    ("safetensors", safetensors),
    ("shared_memory", shared_memory),
    ("status", status),
    ("trace", trace),
    ("worker_session", worker_session),
];
