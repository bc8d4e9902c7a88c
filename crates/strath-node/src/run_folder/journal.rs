//! What a coordinator must not forget.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use strath_core::{Generation, RunId, WorkerId};
use strath_protocol::message::Member;

use super::json;

/// `journal.json`, synced before it is acted on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Journal {
    run: u64,
    generation: u64,
    /// Everyone of the generation, in order of rank, while it is at work.
    #[serde(default)]
    members: Vec<JournalMember>,
    /// Rank r holds micro-batches `bounds[r]..bounds[r + 1]`.
    #[serde(default)]
    bounds: Vec<usize>,
    /// The id of the worker that comes next.
    #[serde(default)]
    next_worker: u64,
}

/// A worker and where its ring listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct JournalMember {
    worker: u64,
    ring_address: SocketAddr,
}

impl Journal {
    /// Of a run that has begun nothing.
    pub(super) fn new(run: RunId) -> Self {
        Self::of(run, Generation(0), &[], Vec::new(), 0)
    }

    pub(super) fn of(
        run: RunId,
        generation: Generation,
        members: &[Member],
        bounds: Vec<usize>,
        next_worker: u64,
    ) -> Self {
        let member = |m: &Member| JournalMember { worker: m.worker.0, ring_address: m.ring_address };
        let members = members.iter().map(member).collect();
        Self { run: run.0, generation: generation.0, members, bounds, next_worker }
    }

    /// What the file holds.
    pub(crate) fn parse(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }

    /// What the file is to hold.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        json(self)
    }

    pub(super) fn run(&self) -> RunId {
        RunId(self.run)
    }

    pub(super) fn generation(&self) -> Generation {
        Generation(self.generation)
    }

    /// Everyone of the generation, the bounds of their micro-batches, and the id of the worker that comes next.
    pub(super) fn at_work(&self) -> (Vec<Member>, Vec<usize>, u64) {
        let member = |m: &JournalMember| Member { worker: WorkerId(m.worker), ring_address: m.ring_address };
        (self.members.iter().map(member).collect(), self.bounds.clone(), self.next_worker)
    }
}
