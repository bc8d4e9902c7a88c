//! What `strath status` shows.

use std::net::SocketAddr;

use strath_core::{Audit, Generation, Rank, RunId, Step, WorkerId};

use crate::message::{Phase, StepReport};

/// A cluster at a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterStatus {
    /// The run.
    pub run: RunId,
    /// Its name.
    pub name: String,
    /// What it does: waiting for its workers, gathering, connecting, running, regrouping, ended, or "failed, saving" in between.
    pub stage: String,
    /// The current generation; 0 before the first.
    pub generation: Generation,
    /// Completed steps.
    pub step: Step,
    /// Steps of the whole run; 0 before the first generation.
    pub steps: Step,
    /// The newest completed step.
    pub last_step: Option<StepReport>,
    /// What the newest survey of the lanes found; the coordinator's runtime knows it.
    pub survey: Option<SurveyStatus>,
    /// Every admitted worker, in order of id.
    pub workers: Vec<WorkerStatus>,
    /// What the coordinator decided last, the newest last; a few at most.
    pub decisions: Vec<DecisionStatus>,
}

/// The newest survey of the lanes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SurveyStatus {
    /// Completed steps after the one that it was part of.
    pub step: Step,
    /// As [`strath_core::Survey::rho_equivalent`].
    pub rho_equivalent: Option<f64>,
    /// The noise scale over the surveys so far, examples.
    pub noise_scale: Option<f64>,
    /// As [`strath_core::Survey::coherence`].
    pub coherence: Option<f64>,
    /// Whether m was what it says.
    pub audit: Audit,
}

/// Something that the coordinator has decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionStatus {
    /// What, in a few words.
    pub what: String,
    /// Why, in one line.
    pub why: String,
    /// Milliseconds since then.
    pub ago_ms: u64,
}

/// One worker at a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerStatus {
    /// Its id.
    pub worker: WorkerId,
    /// Its host.
    pub host: String,
    /// Where it speaks from.
    pub address: SocketAddr,
    /// Its process.
    pub pid: u32,
    /// Its rank, in a generation.
    pub rank: Option<Rank>,
    /// Micro-batches it holds of every batch.
    pub micro_batches: u64,
    /// Completed steps.
    pub step: Step,
    /// What it does.
    pub phase: Phase,
    /// Images per second of its own computing, waits left out; 0: not known yet, or it idles.
    pub images_per_s: f64,
    /// Milliseconds since it was last heard.
    pub silent_ms: u64,
    /// Why the others wait for it; empty where they do not.
    pub late: String,
}
