//! What can be wrong with a configuration: one variant a violated constraint, with the values at fault.

use super::origin::Origin;
use crate::plan::PlanError;

/// A configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// The text is not TOML.
    #[error("{name}:{line}: not valid TOML: {reason}")]
    Syntax {
        /// The file.
        name: String,
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        reason: String,
    },
    /// A key that does not exist.
    #[error("{key} ({origin}) is not a key; did you mean {nearest}? `strath config` lists them all")]
    UnknownKey {
        /// The key.
        key: String,
        /// Where it was set.
        origin: Origin,
        /// The nearest key that exists.
        nearest: &'static str,
    },
    /// A key or value that a later version will know.
    #[error("{key} = {value} ({origin}) cannot be honoured: this build does not have it; {advice}")]
    NotInThisBuild {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// Where it was set.
        origin: Origin,
        /// What to do: the values that this build has, or to leave the key out.
        advice: String,
    },
    /// A value of another type or outside the legal range.
    #[error("{key} = {found} ({origin}): expected {expected}")]
    WrongValue {
        /// The key.
        key: String,
        /// The value, as TOML.
        found: String,
        /// Where it was set.
        origin: Origin,
        /// What it must be.
        expected: String,
    },
    /// A required key is missing.
    #[error("{key} is not set; {advice}")]
    Missing {
        /// The key.
        key: &'static str,
        /// What to write.
        advice: String,
    },
    /// A key that the chosen kind would ignore.
    #[error("{key} ({origin}) means nothing with {with}; leave it out")]
    MeansNothing {
        /// The key.
        key: String,
        /// Where it was set.
        origin: Origin,
        /// The choice that makes it meaningless.
        with: String,
    },
    /// `run.epochs` and `run.steps` together.
    #[error("run.epochs and run.steps are both set ({origin}); keep one")]
    TwoLengths {
        /// Where they were set.
        origin: Origin,
    },
    /// An assignment that is not `KEY=VALUE`.
    #[error("--set {found:?}: expected KEY=VALUE, such as sam.rho=0.1")]
    NotAnAssignment {
        /// The argument.
        found: String,
    },
    /// `sam.m = "worker"` where the workers do not divide the batch.
    #[error(
        "sam.m = \"worker\": batch.size = {batch} is not divisible by cluster.workers = {workers}; change one of them"
    )]
    WorkersDoNotDivideBatch {
        /// `batch.size`.
        batch: usize,
        /// `cluster.workers`.
        workers: usize,
    },
    /// Lanes and micro-batches that do not fit the batch.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A resumed run with another configuration.
    #[error(
        "{key}: the run in the folder has {old}, this configuration {new}; resume with the same, or start a new run with --out"
    )]
    NotResumable {
        /// The first key that differs.
        key: String,
        /// Its value in the folder.
        old: String,
        /// Its value now.
        new: String,
    },
}
