//! Data sets, their normalisation and augmentation, and the seeded order of training examples.
//!
//! A micro-batch is a pure function of (configuration, step, positions in the batch): whoever asks, and in whatever order,
//! gets the same pixels.

mod augment;
mod dataset;
mod error;
mod examples;
mod fetch;
mod loader;
mod noise;
mod order;
mod source;
#[doc(hidden)]
pub mod untrusted;
mod validation;

pub use augment::augment;
pub use dataset::{Dataset, Normalisation, Split, SplitName};
pub use error::DataError;
pub use examples::Examples;
pub use fetch::{Checked, fetch, verify};
pub use loader::{Batch, Loader};
pub use order::{Entry, Order};
