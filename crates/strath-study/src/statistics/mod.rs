//! The statistics of studies: what may be said of measurements from several seeds, sizes and settings.
//!
//! Pure functions of f64: the same numbers in, in the same order, give the same bits out on one platform. Shares and p
//! values lie in 0..=1 and are never per cent; everything else has the unit of what comes in. Intervals are of 95 %. A
//! statistic that its data leave undefined (a spread of one value, a rank correlation with a constant) is `None`; data
//! that no statistic can be of are a [`StatisticsError`].

mod binomial;
mod describe;
mod distribution;
mod equivalence;
mod error;
mod holm;
mod information;
mod kendall;
mod paired;
mod rank;
mod spearman;

pub use binomial::{Proportion, binomial};
pub use describe::{Description, Interval, Spread, describe};
pub use equivalence::{Equivalence, OneSided, equivalence};
pub use error::StatisticsError;
pub use holm::holm;
pub use information::{Conditioned, Convention, Information, Model, Null, information, permutation_null};
pub use kendall::kendall;
pub use paired::{Paired, Test, paired};
pub use rank::Correlation;
pub use spearman::spearman;
