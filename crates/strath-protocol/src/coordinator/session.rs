//! What the coordinator knows of each connection.

use std::net::SocketAddr;

use strath_core::{Digest, Generation, Rank, Step, Timestamp, WorkerId};

use super::balance::Measured;
use super::hanging::Stay;
use super::joining::Supply;
use crate::message::{CommunicatorId, Finished, Phase, Progress, Register};

/// A session and what is known of its worker.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Session {
    pub(super) address: SocketAddr,
    pub(super) identity: Option<(WorkerId, Register)>,
    pub(super) standing: Standing,
    pub(super) rank: Option<Rank>,
    /// The GPU that it computes on, where that can sum with others by itself.
    pub(super) gpu: Option<String>,
    /// By what it has named the GPUs of its generation; of rank 0.
    pub(super) communicator: Option<CommunicatorId>,
    pub(super) progress: Progress,
    pub(super) stay: Stay,
    /// Its own speed.
    pub(super) measured: Measured,
    pub(super) finished: Option<Finished>,
    /// The state that it holds between two generations: completed steps and digest.
    pub(super) held: Option<(Step, Digest)>,
    /// Whether that was fed to it, so that the steps that led there are for others to tell.
    pub(super) was_fed: bool,
    /// How it comes by the state, while it has none.
    pub(super) supply: Supply,
    /// Whether the ranks found that its state is not theirs.
    pub(super) deviates: bool,
    /// Whether it is to leave.
    pub(super) is_retiring: bool,
    /// Since when it does not reach those who take part, and is left out.
    pub(super) apart_since: Option<Timestamp>,
    pub(super) heard: Timestamp,
}

/// How far a worker has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    New,
    Preparing,
    Ready,
    /// It is fed, and has a part in the next generation.
    Following,
    Connecting,
    Connected,
    Running,
    Finished,
    Halting,
}

impl Standing {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::New => "not registered",
            Self::Preparing => "preparing",
            Self::Ready => "waiting for a generation",
            Self::Following => "following the generation",
            Self::Connecting => "connecting its ring",
            Self::Connected => "waiting for the others' rings",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Halting => "leaving its generation",
        }
    }
}

impl Session {
    /// Of whoever has connected now.
    pub(super) fn new(address: SocketAddr, now: Timestamp) -> Self {
        let progress = Progress { generation: Generation(0), step: Step(0), phase: Phase::Joining, images_per_s: 0.0 };
        Self {
            address,
            identity: None,
            standing: Standing::New,
            rank: None,
            gpu: None,
            communicator: None,
            progress,
            stay: Stay::default(),
            measured: Measured::default(),
            finished: None,
            held: None,
            was_fed: false,
            supply: Supply::Untried,
            deviates: false,
            is_retiring: false,
            apart_since: None,
            heard: now,
        }
    }

    /// The worker in messages: id, host and address.
    pub(super) fn name(&self) -> String {
        match &self.identity {
            Some((worker, register)) => format!("worker {worker} ({}, {})", register.host, self.address),
            None => format!("the worker at {}", self.address),
        }
    }
}
