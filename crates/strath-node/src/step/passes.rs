//! The passes of a lane part: its gradient at w, the lift to w + epsilon and the gradients there; with rho = 0 the one pass.

use strath_collective::Collective;
use strath_core::Step;
use strath_core::config::{Direction, WeightDecay};
use strath_core::fault::{Culprit, Fault};
use strath_cuda::GpuError;
use strath_data::Batch;
use strath_model::{DevicePass, ModelError, PassReport};

use super::later::{Found, Next};
use super::{Gathered, Interrupted, Stepper};
use crate::clock::Clock;
use crate::descent::{Descent, Heard, Last};
use crate::flat::{Flat, Hears, Placed, SumError, Weights};
use crate::seats::Seat;
use crate::share::LanePart;
use crate::sums::LaneSum;

impl Stepper {
    /// The examples of a lane part's micro-batches, drawn once: both passes see the same augmentation.
    pub(super) fn examples(&mut self, step: Step, part: &LanePart, clock: &mut Clock) -> Vec<Batch> {
        let micro_batches = &self.plan.micro_batches()[part.micro_batches.clone()];
        let batches =
            micro_batches.iter().map(|m| self.loader.micro_batch(step.0, m.start..m.start + m.size)).collect();
        clock.lap(|s| &mut s.data);
        batches
    }

    /// This rank's part of the lane's gradient at w: the sum over its micro-batches of `(size / m) g`.
    pub(super) fn ascent(
        &self,
        peers: &Collective,
        step: Step,
        Seat { place, weights }: &Seat,
        part: &LanePart,
        batches: &[Batch],
        gathered: &mut Gathered,
    ) -> Result<LaneSum, Interrupted> {
        let lane = &self.plan.lanes()[part.lane];
        let (reduce, pieces) = (self.config.cluster.reduce, lane.micro_batches.len());
        let mut sum = LaneSum::new(reduce, pieces, weights.len(), place)?;
        for (k, batch) in part.micro_batches.clone().zip(batches) {
            let size = self.plan.micro_batches()[k].size;
            let mut gradient = sum.spent().map_or_else(|| self.buffers.take(place), Ok)?;
            let pass = self.gradient(weights, batch, &mut gradient, None)?;
            self.note(part.lane, Found::Clean(k, Next::Perturbed, pass), gathered)?;
            if gathered.watch.climbs() {
                gathered.watch.climb(peers, step, &self.plan, k, &gradient.host()?, self.batch_share(k));
            }
            let added = sum.add(gradient, size as f64 / lane.size as f64);
            let checks = added.map_err(|error| self.at_fault(error, part.lane, Culprit::AscentGradient))?;
            self.note(part.lane, Found::Sum(checks, Culprit::AscentGradient), gathered)?;
        }
        gathered.clock.lap(|s| &mut s.ascent);
        Ok(sum)
    }

    /// Lifts w by the epsilon of the lane's ascent gradient, or of what is drawn in its place, and adds this rank's descent gradients there, `(size / B) h`.
    pub(super) fn descend(
        &mut self,
        step: Step,
        Seat { place, weights }: &Seat,
        part: &LanePart,
        batches: &[Batch],
        mut ascent: Flat,
        gathered: &mut Gathered,
    ) -> Result<(), Interrupted> {
        let lane = &self.plan.lanes()[part.lane];
        self.add_decay(&mut ascent, weights)?;
        if let Some(gpu) = place.gpu().filter(|_| gathered.watch.is_survey()) {
            // The host is about to wait for it, and the passes before are no part of what comes next.
            gpu.wait()?;
            gathered.clock.lap(|s| &mut s.ascent);
        }
        if gathered.watch.is_survey() {
            gathered.watch.ascent(&self.plan, part, &ascent.host()?, &self.perturbation);
            gathered.clock.lap_survey();
        }
        if self.config.sam.direction == Direction::Random {
            // Whoever holds a part of the lane draws the same.
            let (seed, layout) = (self.config.run.seed, self.model.parameters());
            ascent.draw_direction(seed, step, lane.start, layout)?;
        }
        let mut lifted = self.buffers.take(place)?;
        let radius = self.config.sam.radius(lane.size);
        let perturbation = self.perturbation.with_radius(radius);
        let lift = ascent.lift(&perturbation, weights, &mut lifted)?; // w + rho_v * dual(g_v), equation 2
        let lifted = Weights::from(lifted);
        gathered.clock.lap(|s| &mut s.epsilon);
        if gathered.watch.is_survey() {
            let (lift, direction, weights, lifted) = (lift.told()?, ascent.host()?, weights.host()?, lifted.host()?);
            // A device has a function of its own for powers: where that rounds to the other side, so may what is lifted.
            let slack = if place.gpu().is_some() && perturbation.takes_powers() { f32::EPSILON } else { 0.0 };
            let audited = (&perturbation, radius, lift, slack);
            gathered.watch.epsilon(&self.plan, part, audited, &direction, &weights, &lifted);
            gathered.clock.lap_survey();
        }
        self.note(part.lane, Found::Lift(part.clone(), lift), gathered)?;
        let is_kept = gathered.watch.takes(part.lane);
        // Where its values are spent, its memory serves again.
        let (mut gradient, ascent) = if is_kept { (self.buffers.take(place)?, Some(ascent)) } else { (ascent, None) };
        for (k, batch) in part.micro_batches.clone().zip(batches) {
            let share = self.batch_share(k);
            let heard = self.listener(k, part, &lifted, &gathered.descent)?;
            let pass = self.gradient(&lifted, batch, &mut gradient, heard)?; // h_v at w + epsilon_v
            self.note(part.lane, Found::Perturbed(k, pass), gathered)?;
            self.contribute(&mut gradient, &lifted, share, part.lane, gathered)?;
            if let Some(ascent) = &ascent {
                let products = ascent.products(&gradient, &perturbation)?;
                self.note(part.lane, Found::Products(part.clone(), k, products), gathered)?;
            }
        }
        gathered.clock.lap(|s| &mut s.descent);
        self.buffers.give(gradient);
        self.buffers.give(ascent);
        if gathered.watch.is_survey() {
            self.cross(step, part, &lifted, &mut gathered.watch)?;
            gathered.clock.lap_survey();
        }
        // The passes are over and have let go of it.
        self.buffers.give(lifted.into_flat());
        Ok(())
    }

    /// The plain optimizer's gradients, rho = 0: `h_v = g_v`, one pass, and no lane has to be whole.
    pub(super) fn plain(
        &self,
        Seat { place, weights }: &Seat,
        part: &LanePart,
        batches: &[Batch],
        gathered: &mut Gathered,
    ) -> Result<(), Interrupted> {
        let mut gradient = self.buffers.take(place)?;
        for (k, batch) in part.micro_batches.clone().zip(batches) {
            let share = self.batch_share(k);
            let heard = self.listener(k, part, weights, &gathered.descent)?;
            let pass = self.gradient(weights, batch, &mut gradient, heard)?;
            self.note(part.lane, Found::Clean(k, Next::Nothing, pass), gathered)?;
            self.contribute(&mut gradient, weights, share, part.lane, gathered)?;
        }
        self.buffers.give(gradient);
        gathered.clock.lap(|s| &mut s.ascent);
        Ok(())
    }

    /// Adds the gradient of a micro-batch, taken at `at`, unless it was sent as it came.
    fn contribute(
        &self,
        gradient: &mut Flat,
        at: &Weights,
        share: f64,
        lane: usize,
        gathered: &mut Gathered,
    ) -> Result<(), Interrupted> {
        let checks = match gathered.descent.heard() {
            Some(Heard::Device(checks)) => checks,
            Some(Heard::Host(fault)) => {
                // What was told had its decay; what stays here has not.
                self.add_decay(gradient, at)?;
                return if fault.is_none() { Ok(()) } else { Err(Interrupted::Fault(fault)) };
            }
            None => {
                self.add_decay(gradient, at)?;
                let added = gathered.descent.add(gradient, share);
                added.map_err(|error| self.at_fault(error, lane, Culprit::DescentGradient))?
            }
        };
        self.note(lane, Found::Sum(checks, Culprit::DescentGradient), gathered)
    }

    /// Who hears a micro-batch's gradient, taken at `at`, as it comes: the gradient of this rank's last.
    fn listener(
        &self,
        micro_batch: usize,
        part: &LanePart,
        at: &Weights,
        descent: &Descent,
    ) -> Result<Option<Hears>, GpuError> {
        if self.share.last() != Some(micro_batch) {
            return Ok(None);
        }
        descent.listener(Last {
            share: self.batch_share(micro_batch),
            lane: part.lane,
            at: at.clone(),
            decay: self.decay_in_loss(),
            layout: self.model.parameters().clone(),
        })
    }

    pub(super) fn batch_share(&self, micro_batch: usize) -> f64 {
        self.plan.micro_batches()[micro_batch].size as f64 / self.plan.batch() as f64
    }

    fn decay_in_loss(&self) -> f64 {
        match self.config.sam.weight_decay {
            WeightDecay::Inside => self.config.optimizer.weight_decay,
            WeightDecay::Outside => 0.0,
        }
    }

    /// Why a gradient of a lane was not added: the tensor that is at fault, or the device.
    fn at_fault(&self, error: SumError, lane: usize, culprit: fn(u32) -> Culprit) -> Interrupted {
        match error {
            SumError::OutOfRange(found) => {
                let tensor = self.model.parameters().tensor_at(found.index) as u32;
                Interrupted::Fault(Fault::new(lane, culprit(tensor)))
            }
            SumError::Gpu(error) => error.into(),
        }
    }

    /// `g + lambda w`, where the decay is part of the loss.
    pub(super) fn add_decay(&self, gradient: &mut Flat, weights: &Weights) -> Result<(), GpuError> {
        let decay = self.decay_in_loss();
        if decay == 0.0 { Ok(()) } else { gradient.add_scaled(weights, decay as f32) }
    }

    fn gradient(
        &self,
        weights: &Weights,
        batch: &Batch,
        gradient: &mut Flat,
        listener: Option<Hears>,
    ) -> Result<Placed<PassReport, DevicePass>, ModelError> {
        weights.gradient(&self.model, batch, self.config.loss.label_smoothing, gradient, listener)
    }
}
