//! The ranks of a measurement, and what they sum: to the same bits for any number of them, and once only, however often they begin anew.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use strath_collective::{Bucket, Collective, Payload, Reduced};
use strath_core::config::Reduce;
use strath_core::fault::Culprit;
use strath_core::{Fault, Rank, Step};
use strath_protocol::message::Phase;

use super::MeasureError;
use super::log::{Entry, Log};
use crate::evaluate;
use crate::step::EXCHANGE_DEADLINE;
use crate::sums::HostSum;
use crate::whereabouts::Whereabouts;

/// At most so often it is told how far the measurement has come.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// How far a measurement has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advance {
    /// Passes over examples that are done, in the measurement's own count.
    pub done: u64,
    /// Out of how many, as far as it can be told; 0: it cannot.
    pub of: u64,
}

/// This rank among the others, and what they have summed so far.
pub(super) struct Ranks<'a> {
    peers: &'a Collective,
    rank: Rank,
    world_size: u32,
    log: Option<Log>,
    /// Entries of the log that every rank has.
    agreed: u64,
    /// Sums so far, those from the log included.
    taken: u64,
    cancelled: &'a AtomicBool,
    here: &'a Whereabouts,
    tell: &'a mut dyn FnMut(Advance),
    told: Option<Instant>,
}

impl<'a> Ranks<'a> {
    /// The ranks of `peers`, which first agree how many of the sums in the log of each all of them know.
    pub(super) fn new(
        peers: &'a Collective,
        log: Option<Log>,
        cancelled: &'a AtomicBool,
        here: &'a Whereabouts,
        tell: &'a mut dyn FnMut(Advance),
    ) -> Result<Self, MeasureError> {
        let identity = peers.identity();
        let (rank, world_size) = (identity.rank, identity.world_size);
        let mut ranks = Self { peers, rank, world_size, log, agreed: 0, taken: 0, cancelled, here, tell, told: None };
        let mut known = vec![0; world_size as usize];
        known[rank.index()] = ranks.log.as_ref().map_or(0, Log::len) as i64;
        let known = ranks.reduced(Step(0), Payload::Integers(known), Fault::NONE)?;
        ranks.agreed = integers(known.0).into_iter().min().unwrap_or(0) as u64;
        Ok(ranks)
    }

    /// This rank's run of `items` things to compute, all ranks' being nearly equal.
    pub(super) fn share(&self, items: usize) -> Range<usize> {
        evaluate::run(items, self.rank, self.world_size)
    }

    /// The sums over ranks of the integers that `part` gives on each.
    pub(super) fn integers(
        &mut self,
        part: impl FnOnce(&Self) -> Result<Vec<i64>, MeasureError>,
    ) -> Result<Vec<i64>, MeasureError> {
        let step = self.next()?;
        match self.replayed()? {
            Some(Entry::Integers(known)) => return Ok(known),
            Some(Entry::Floats(_)) => return Err(unreadable()),
            None => {}
        }
        let mine = part(self)?;
        let sums = integers(self.reduced(step, Payload::Integers(mine), Fault::NONE)?.0);
        self.keep(&Entry::Integers(sums.clone()));
        Ok(sums)
    }

    /// The sum over all `items` of `weight * vector`, of `len` values each, as `term` gives them on the rank that computes them; `term` may use the memory of
    /// the vector that it gave before. Summed in fixed point, 96 fractional bits, and rounded once.
    pub(super) fn vector(
        &mut self,
        items: usize,
        len: usize,
        mut term: impl FnMut(&Self, usize, Option<Vec<f32>>) -> Result<(Vec<f32>, f64), MeasureError>,
    ) -> Result<Vec<f32>, MeasureError> {
        let step = self.next()?;
        match self.replayed()? {
            Some(Entry::Floats(known)) if known.len() == len => return Ok(known),
            Some(_) => return Err(unreadable()),
            None => {}
        }
        // Of one item too: the sum has the bits of the items, whoever holds them.
        let (mut sum, mut fault) = (HostSum::new(Reduce::Exact, items.max(2), len), Fault::NONE);
        for item in self.share(items) {
            self.go_on()?;
            let room = sum.spent();
            let (vector, weight) = term(self, item, room)?;
            if sum.add(vector, weight).is_err() {
                fault = fault.min(Fault::new(item, Culprit::AscentGradient(0)));
            }
        }
        let (sum, fault) = self.reduced(step, sum.into_payload(), fault)?;
        if !fault.is_none() {
            return Err(MeasureError::NotFinite { what: "a gradient, or a product with the Hessian," });
        }
        let Reduced::Floats(sum) = sum else { unreachable!("halves are rounded to floats") };
        self.keep(&Entry::Floats(sum.clone()));
        Ok(sum)
    }

    /// Ends a measurement that is no longer wanted: a rank that is alone is not told by an exchange that ends.
    pub(super) fn go_on(&self) -> Result<(), MeasureError> {
        if self.cancelled.load(Ordering::Relaxed) { Err(MeasureError::Cancelled) } else { Ok(()) }
    }

    /// Says how far the measurement has come.
    pub(super) fn advance(&mut self, done: u64, of: u64) {
        let is_last = done == of;
        if self.rank == Rank(0) && (is_last || self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY)) {
            self.told = Some(Instant::now());
            (self.tell)(Advance { done, of });
        }
    }

    /// The number of the next sum, from 1.
    fn next(&mut self) -> Result<Step, MeasureError> {
        self.go_on()?;
        self.taken += 1;
        self.here.enter(self.taken, Phase::Evaluate);
        Ok(Step(self.taken))
    }

    /// The sum that is to be taken, where all ranks know it from before. The others do not compute it: who cannot read it cannot either.
    fn replayed(&mut self) -> Result<Option<Entry>, MeasureError> {
        let number = self.taken - 1;
        if number >= self.agreed {
            return Ok(None);
        }
        self.log.as_mut().and_then(|log| log.get(number)).ok_or_else(unreadable).map(Some)
    }

    /// Writes a sum down. Where that fails, a full disk say, the measurement goes on and cannot be resumed from here.
    fn keep(&mut self, entry: &Entry) {
        let number = self.taken - 1;
        if self.rank == Rank(0)
            && let Some(Err(error)) = self.log.as_mut().map(|log| log.append(number, entry))
        {
            tracing::warn!("{error}; if the measurement is interrupted it begins again from here");
            self.log = None;
        }
    }

    fn reduced(&self, step: Step, payload: Payload, fault: Fault) -> Result<(Reduced, Fault), MeasureError> {
        let pending = self.peers.all_reduce(step, Bucket::EVALUATION, 0..self.world_size, payload, fault);
        Ok(pending.wait(EXCHANGE_DEADLINE)?)
    }
}

fn unreadable() -> MeasureError {
    MeasureError::Undecided(
        "what the measurement had kept so far cannot be read; ask for it again, it begins anew".into(),
    )
}

fn integers(reduced: Reduced) -> Vec<i64> {
    let Reduced::Integers(sums) = reduced else { unreachable!("integers are reduced to integers") };
    sums
}
