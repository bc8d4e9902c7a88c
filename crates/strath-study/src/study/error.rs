//! What can be wrong with a study: what was found, what is expected, where.

use strath_core::config::ConfigError;

/// A study that cannot be run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum StudyError {
    /// The text is not what a study's file holds.
    #[error("{name}: {reason}")]
    File {
        /// The file.
        name: String,
        /// What the parser says, with the line.
        reason: String,
    },
    /// A value of the study's own that cannot be.
    #[error("{key} is {found}, expected {expected}")]
    Value {
        /// Its place in the file.
        key: String,
        /// The value.
        found: String,
        /// What it must be.
        expected: String,
    },
    /// An expression that cannot be computed.
    #[error("{key} = {expression:?}: {reason}")]
    Expression {
        /// The key that it is for.
        key: String,
        /// The expression.
        expression: String,
        /// Why.
        reason: String,
    },
    /// A run whose configuration is refused.
    #[error("the run with {settings}: {error}")]
    Run {
        /// What varies, as `key=value`.
        settings: String,
        /// Why.
        error: Box<ConfigError>,
    },
    /// A run whose epsilon adds nothing to its linearised loss, so that no radius makes its lift its reference's.
    #[error("the run with {settings} has no lift to be matched: rho 1 climbs {found}; leave the arm out")]
    NoLift {
        /// What varies, as `key=value`.
        settings: String,
        /// Its lift at a radius of 1.
        found: f64,
    },
    /// A base configuration that is refused.
    #[error("{0}")]
    Base(Box<ConfigError>),
    /// A table that could not be made a Parquet file.
    #[error("results.parquet cannot be made: {reason}; results.csv holds the same")]
    Parquet {
        /// What the library that writes it says.
        reason: String,
    },
}
