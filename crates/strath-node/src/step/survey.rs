//! What a surveyed step computes beside the step itself: nothing of it reaches the weights.

use std::sync::Arc;
use std::time::Duration;

use strath_collective::Collective;
use strath_core::Step;
use strath_data::Batch;
use strath_model::ModelError;

use super::{Gathered, Stepper, add_decay, floats};
use crate::outcome::StepError;
use crate::share::LanePart;
use crate::watch::Watch;

impl Stepper {
    /// Surveyed: the losses of the next lane under the epsilon of this one.
    pub(super) fn cross(
        &mut self,
        step: Step,
        part: &LanePart,
        lifted: &Arc<Vec<f32>>,
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
        weights: &Arc<Vec<f32>>,
        gathered: &mut Gathered,
        all: bool,
        deadline: Duration,
    ) -> Result<(), StepError> {
        let Gathered { watch, clock, .. } = gathered;
        let Some((rungs, arrived)) = watch.groups(peers, step, &self.plan, weights.len(), all) else { return Ok(()) };
        for (index, pending) in arrived {
            let group = &rungs.groups()[index];
            let mut gradient = floats(pending.wait(deadline)?.0);
            // Of the batch's sum a group's mean; exact where they are a power of two apart.
            let scale = (self.plan.batch() as f64 / group.size as f64) as f32;
            for value in &mut gradient {
                *value *= scale;
            }
            add_decay(&mut gradient, weights, self.decay_in_loss());
            if rungs.speaks_for(index) {
                // As a lane's own: to its last bit.
                watch.group(index, self.perturbation.products(&gradient, &gradient).aa);
            }
            if watch.lifts() {
                let mut lifted = self.buffers.take();
                let ball = self.perturbation.with_radius(self.config.sam.radius(group.size));
                ball.lift(&gradient, weights, &mut lifted);
                let lifted = Arc::new(lifted);
                for k in rungs.held(index) {
                    let loss = self.loss(step, k, &lifted)?;
                    watch.rung(group.rung, k, loss);
                }
                if let Ok(lifted) = Arc::try_unwrap(lifted) {
                    self.buffers.give(lifted);
                }
            }
        }
        clock.lap_survey();
        Ok(())
    }

    /// The loss of a micro-batch, whoever holds it, by a forward alone.
    fn loss(&mut self, step: Step, micro_batch: usize, weights: &Arc<Vec<f32>>) -> Result<f64, ModelError> {
        let micro = &self.plan.micro_batches()[micro_batch];
        let Batch { images, labels, .. } = self.loader.micro_batch(step.0, micro.start..micro.start + micro.size);
        self.model.loss(weights, &images, &labels, self.config.loss.label_smoothing)
    }
}
