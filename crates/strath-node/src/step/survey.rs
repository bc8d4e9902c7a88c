//! What a surveyed step computes beside the step itself: nothing of it reaches the weights.

use std::time::Duration;

use strath_collective::Collective;
use strath_core::Step;
use strath_model::ModelError;

use super::{Gathered, Stepper, floats};
use crate::flat::Weights;
use crate::outcome::StepError;
use crate::share::LanePart;
use crate::watch::Watch;

impl Stepper {
    /// Surveyed: the losses of the next lane under the epsilon of this one.
    pub(super) fn cross(
        &mut self,
        step: Step,
        part: &LanePart,
        lifted: &Weights,
        watch: &mut Watch,
    ) -> Result<(), ModelError> {
        for k in watch.crossed(&self.plan, part) {
            watch.cross(k, self.loss(step, k, lifted)?);
        }
        Ok(())
    }

    /// Surveyed: what coarser lanes would be, of those groups of lanes whose ascent gradient is there, or of `all`.
    pub(super) fn climb(
        &mut self,
        peers: &Collective,
        step: Step,
        weights: &Weights,
        gathered: &mut Gathered,
        all: bool,
        deadline: Duration,
    ) -> Result<(), StepError> {
        let Gathered { watch, clock, .. } = gathered;
        let Some((rungs, arrived)) = watch.groups(peers, step, &self.plan, weights.len(), all) else { return Ok(()) };
        for (index, pending) in arrived {
            let group = &rungs.groups()[index];
            let mut values = floats(pending.wait(deadline)?.0);
            // Of the batch's sum a group's mean; exact where they are a power of two apart.
            let scale = (self.plan.batch() as f64 / group.size as f64) as f32;
            for value in &mut values {
                *value *= scale;
            }
            let mut gradient = self.buffers.place().holding(values)?;
            self.add_decay(&mut gradient, weights)?;
            if rungs.speaks_for(index) {
                // As a lane's own: to its last bit.
                watch.group(index, gradient.products(&gradient, &self.perturbation)?.told()?.aa);
            }
            if watch.lifts() {
                let mut lifted = self.buffers.take(self.buffers.place())?;
                let ball = self.perturbation.with_radius(self.config.sam.radius(group.size));
                gradient.lift(&ball, weights, &mut lifted)?;
                let lifted = Weights::from(lifted);
                for k in rungs.held(index) {
                    let loss = self.loss(step, k, &lifted)?;
                    watch.rung(group.rung, k, loss);
                }
                self.buffers.give(lifted.into_flat());
            }
        }
        clock.lap_survey();
        Ok(())
    }

    /// The loss of a micro-batch, whoever holds it, by a forward alone.
    fn loss(&mut self, step: Step, micro_batch: usize, weights: &Weights) -> Result<f64, ModelError> {
        let micro = &self.plan.micro_batches()[micro_batch];
        let batch = self.loader.micro_batch(step.0, micro.start..micro.start + micro.size);
        weights.loss(&self.model, &batch, self.config.loss.label_smoothing)
    }
}
