//! What ranks tell each other once they are connected, before their first operation.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use strath_core::{Fault, Step};

use super::turns::Engine;
use crate::bucket::Bucket;
use crate::collective::Identity;
use crate::direct::Direct;
use crate::error::CollectiveError;
use crate::machine::Machine;
use crate::payload::{Payload, Reduced};
use crate::reduction::Tag;

/// Operations that all ranks of a world go through in one order.
pub(crate) struct Agreement<'a> {
    pub(super) engine: &'a Engine,
    pub(super) identity: Identity,
    /// When they are to be through.
    until: Instant,
    /// Operations so far; on every rank those that it takes part in have one number, as all count those of the others too.
    step: u64,
}

impl<'a> Agreement<'a> {
    /// Nothing was said yet; all is to be said within `deadline`.
    pub(crate) fn new(engine: &'a Engine, identity: Identity, deadline: Duration) -> Self {
        Self { engine, identity, until: Instant::now() + deadline, step: 0 }
    }

    /// Time that is left.
    pub(super) fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// The tag of the next operation.
    pub(super) fn tag(&mut self) -> Tag {
        let Identity { run, generation, rank, world_size, .. } = self.identity;
        let step = Step(self.step);
        self.step += 1;
        Tag { run, generation, step, bucket: Bucket::PROBE, group: 0..world_size, rank }
    }

    /// What every rank says, equally much, in order of rank.
    pub(super) fn gather(&mut self, own: &[i64]) -> Result<Vec<i64>, CollectiveError> {
        let mut slots = vec![0; own.len() * self.identity.world_size as usize];
        slots[self.identity.rank.index() * own.len()..][..own.len()].copy_from_slice(own);
        let machine = Direct::new(self.tag(), Payload::Integers(slots), Fault::NONE);
        Ok(self.operate(Box::new(machine))?.into_integers().unwrap_or_default())
    }

    /// Goes through an operation.
    pub(super) fn operate(&self, machine: Box<dyn Machine + Send>) -> Result<Reduced, CollectiveError> {
        let Tag { step, bucket, .. } = *machine.reduction().tag();
        let (reply, outcome) = channel();
        self.engine.submit(machine, reply);
        let outcome = self.engine.turns().wait((step, bucket), &outcome, self.left());
        outcome.unwrap_or(Err(CollectiveError::Aborted { step, bucket })).map(|(reduced, _)| reduced)
    }
}
