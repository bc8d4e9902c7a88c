//! What a coordinator is told when it begins.

use std::time::Duration;

use strath_core::config::Config;
use strath_core::{Digest, Generation, RingKey, RunId, Step};

use super::Former;
use crate::message::{FileBytes, Job};

/// What a coordinator is told when it begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Version of the program; workers must have the same.
    pub version: String,
    /// Token that workers must present, where there is one.
    pub token: Option<String>,
    /// What the tickets of generations are made from: a secret of this coordinator.
    pub ring_key: RingKey,
    /// The run.
    pub run: RunId,
    /// Its configuration.
    pub config: Config,
    /// The same as TOML, as workers get it.
    pub configuration: String,
    /// What to do.
    pub job: Job,
    /// When enough workers have come.
    pub gather: Gather,
    /// How many workers it admits at once: as many as can be connected to each other.
    pub most_workers: usize,
    /// The last generation that was announced; the next is one higher.
    pub generation: Generation,
    /// What to start from; `None`: the seed.
    pub start: Option<Start>,
    /// What the coordinator before this one has left, where the run was at work when it ended.
    pub former: Former,
}

/// When enough workers have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gather {
    /// When this many are ready.
    Exactly(usize),
    /// When at least this many are ready and none has come for a while.
    AtLeast {
        /// How many.
        workers: usize,
        /// How long none must have come.
        quiet: Duration,
    },
}

/// A state to start from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Its completed steps.
    pub step: Step,
    /// The file it comes from.
    pub source: String,
    /// The model file.
    pub model: FileBytes,
    /// The state file, for a run that goes on.
    pub optimizer: Option<FileBytes>,
    /// Digest of the data it was trained on.
    pub data: Option<Digest>,
    /// Digest of the probe step of the machines it was trained on.
    pub numerics: Option<Digest>,
}
