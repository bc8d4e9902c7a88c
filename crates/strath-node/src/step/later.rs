//! What is told of a step's passes and lanes: on the host at once, on a device all together, once all passes were asked for. Nobody waits in between, so the
//! device has the next pass at hand while it computes one.

use strath_core::fault::{Culprit, Fault};
use strath_cuda::lanes::Outside;
use strath_cuda::ledger::{Entry, Reading};
use strath_cuda::{GpuError, Ledger, Vector};
use strath_kernels::vector::Products;
use strath_model::{DevicePass, PassReport};
use strath_protocol::message::PhaseSeconds;
use strath_sam::Lift;

use super::{Gathered, Interrupted, Stepper};
use crate::flat::{Check, Checks, LiftOnDevice, Place, Placed};
use crate::share::LanePart;
use crate::tally::Tally;

/// A tensor at fault.
type Blame = fn(u32) -> Culprit;

/// What follows a micro-batch's pass at w.
pub(super) enum Next {
    /// One at w + epsilon.
    Perturbed,
    /// No other pass (rho = 0): its loss counts as that of both.
    Nothing,
}

/// What was found, where it lies.
pub(super) enum Found {
    /// A micro-batch's pass at w, and what follows it.
    Clean(usize, Next, Placed<PassReport, DevicePass>),
    /// A lane part that was lifted.
    Lift(LanePart, Placed<Lift, LiftOnDevice>),
    /// A micro-batch's pass at w + epsilon.
    Perturbed(usize, Placed<PassReport, DevicePass>),
    /// The products of the gradients of a lane part's micro-batch.
    Products(LanePart, usize, Placed<Products, [Vector<f64>; 3]>),
    /// Whether what was added is in range.
    Sum(Checks, Blame),
}

/// The same, told.
enum Fact {
    Clean(usize, Next, PassReport),
    Lift(LanePart, Lift),
    Perturbed(usize, f64),
    Products(LanePart, usize, Products),
    /// A value is out of range.
    Outside(usize, Blame),
}

/// The same, in the ledger.
enum Noted {
    Clean(usize, Next, Entry<f64>, Entry<f32>),
    Lift(LanePart, [Entry<f64>; 2]),
    Perturbed(usize, Entry<f64>),
    Products(LanePart, usize, [Entry<f64>; 3]),
    /// The index of the first value that was added.
    Sum(usize, Entry<u64>, Blame),
}

/// What has yet to be told.
pub(super) struct Later {
    /// Of a device.
    ledger: Option<Ledger>,
    /// Each with its lane.
    noted: Vec<(usize, Noted)>,
}

impl Later {
    /// Nothing yet, of vectors at a place.
    pub(super) fn new(place: &Place) -> Self {
        Self { ledger: place.gpu().map(|_| Ledger::default()), noted: Vec::new() }
    }

    /// Notes what was found, or gives it back where that is known already.
    fn note(&mut self, lane: usize, found: Found) -> Result<Option<Fact>, GpuError> {
        let Some(ledger) = &mut self.ledger else { return Ok(on_host(found)) };
        let noted = match found {
            Found::Clean(k, next, Placed::Device(found)) => {
                Noted::Clean(k, next, ledger.put(&found.losses)?, ledger.put(&found.statistics)?)
            }
            Found::Lift(part, Placed::Device(LiftOnDevice { dual, epsilon })) => {
                Noted::Lift(part, [ledger.put(&dual)?, ledger.put(&epsilon)?])
            }
            Found::Perturbed(k, Placed::Device(found)) => Noted::Perturbed(k, ledger.put(&found.losses)?),
            Found::Products(part, k, Placed::Device([aa, ab, bb])) => {
                Noted::Products(part, k, [ledger.put(&aa)?, ledger.put(&ab)?, ledger.put(&bb)?])
            }
            Found::Sum(checks, blame) => {
                for Check { from, outside } in checks.into_each() {
                    self.noted.push((lane, Noted::Sum(from, ledger.put(outside.word())?, blame)));
                }
                return Ok(None);
            }
            at_once => return Ok(on_host(at_once)),
        };
        self.noted.push((lane, noted));
        Ok(None)
    }

    /// What was noted, in order; waits for the device where there is anything.
    fn read(&mut self) -> Result<Vec<(usize, Fact)>, GpuError> {
        let Some(ledger) = self.ledger.as_mut().filter(|_| !self.noted.is_empty()) else { return Ok(Vec::new()) };
        let reading = ledger.read()?;
        let noted = self.noted.drain(..);
        Ok(noted.filter_map(|(lane, noted)| Some((lane, noted.told(&reading)?))).collect())
    }
}

/// What is known at once.
fn on_host(found: Found) -> Option<Fact> {
    Some(match found {
        Found::Clean(k, next, Placed::Host(pass)) => Fact::Clean(k, next, pass),
        Found::Lift(part, Placed::Host(lift)) => Fact::Lift(part, lift),
        Found::Perturbed(k, Placed::Host(pass)) => Fact::Perturbed(k, pass.loss),
        Found::Products(part, k, Placed::Host(products)) => Fact::Products(part, k, products),
        // What a sum on the host finds is told by the sum.
        Found::Sum(..) => return None,
        _ => unreachable!("the vectors of a rank lie in one place"),
    })
}

impl Noted {
    /// What it says, if there is anything to say.
    fn told(self, reading: &Reading) -> Option<Fact> {
        Some(match self {
            Self::Clean(k, next, losses, statistics) => {
                Fact::Clean(k, next, DevicePass::told(&reading.values(&losses), reading.values(&statistics)))
            }
            Self::Lift(part, found) => {
                let [dual, epsilon] = found.each_ref().map(|found| reading.value(found));
                Fact::Lift(part, LiftOnDevice::told(dual, epsilon))
            }
            Self::Perturbed(k, losses) => {
                Fact::Perturbed(k, DevicePass::told(&reading.values(&losses), Vec::new()).loss)
            }
            Self::Products(part, k, found) => {
                let [aa, ab, bb] = found.each_ref().map(|found| reading.value(found));
                Fact::Products(part, k, Products { aa, ab, bb })
            }
            Self::Sum(from, word, blame) => Fact::Outside(from + Outside::index(reading.value(&word))?, blame),
        })
    }
}

impl Stepper {
    /// Takes in what was found of a lane, at once or later.
    pub(super) fn note(&self, lane: usize, found: Found, gathered: &mut Gathered) -> Result<(), Interrupted> {
        match gathered.later.note(lane, found)? {
            Some(fact) => self.take_in(lane, fact, gathered).map_err(Interrupted::Fault),
            None => Ok(()),
        }
    }

    /// Takes in what was noted: of a lane at fault what led to it, and nothing that came of it. The wait for it counts as part of a phase.
    pub(super) fn settle_later(
        &self,
        gathered: &mut Gathered,
        phase: fn(&mut PhaseSeconds) -> &mut f64,
    ) -> Result<Fault, GpuError> {
        let mut faults: Vec<(usize, Fault)> = Vec::new();
        for (lane, fact) in gathered.later.read()? {
            if faults.iter().any(|(at_fault, _)| *at_fault == lane) {
                continue;
            }
            if let Err(fault) = self.take_in(lane, fact, gathered) {
                faults.push((lane, fault));
            }
        }
        gathered.clock.lap(phase);
        Ok(faults.into_iter().map(|(_, fault)| fault).fold(Fault::NONE, Fault::min))
    }

    fn take_in(&self, lane: usize, fact: Fact, gathered: &mut Gathered) -> Result<(), Fault> {
        let Gathered { tally, watch, .. } = gathered;
        let share = |k| self.batch_share(k);
        let of_loss = |culprit| move |_| Fault::new(lane, culprit);
        match fact {
            Fact::Clean(k, next, pass) => {
                self.take_clean(&pass, share(k), lane, tally)?;
                match next {
                    Next::Perturbed => watch.clean(k, pass.loss),
                    Next::Nothing => {
                        tally.add_perturbed(pass.loss, share(k)).map_err(of_loss(Culprit::CleanLoss))?;
                    }
                }
            }
            Fact::Lift(part, lift) => {
                if part.is_first {
                    tally.add_lane(lift, self.plan.lanes().len());
                }
                watch.lift(&part, lift);
            }
            Fact::Perturbed(k, loss) => {
                tally.add_perturbed(loss, share(k)).map_err(of_loss(Culprit::PerturbedLoss))?;
                watch.perturbed(k, loss);
            }
            Fact::Products(part, k, products) => watch.products(&self.plan, &part, k, products),
            Fact::Outside(index, blame) => {
                return Err(Fault::new(lane, blame(self.model.parameters().tensor_at(index) as u32)));
            }
        }
        Ok(())
    }

    /// The loss and the batch statistics of a pass at w: batch norm's running statistics move from these only.
    fn take_clean(&self, pass: &PassReport, share: f64, lane: usize, tally: &mut Tally) -> Result<(), Fault> {
        tally.add_clean(pass.loss, share).map_err(|_| Fault::new(lane, Culprit::CleanLoss))?;
        tally.add_statistics(&pass.statistics, share).map_err(|found| {
            let tensor = self.model.statistics().tensor_at(found.index) as u32;
            Fault::new(lane, Culprit::Statistic(tensor))
        })
    }
}
