//! The state of training, and what a step makes of it.

use std::sync::Arc;

use strath_core::Finish;
use strath_core::config::Config;
use strath_model::BATCH_NORM_MOMENTUM;
use strath_sam::{Optimizer, clip, learning_rate};

/// Everything that a state is a function of: after equal steps it has the same bits on every rank.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingState {
    /// Completed optimizer updates.
    pub step: u64,
    /// The parameters w, flat in the model's layout.
    pub weights: Arc<Vec<f32>>,
    /// Batch norm's running statistics, flat in the layout of the model's statistics.
    pub statistics: Vec<f32>,
    /// The optimizer with its state.
    pub optimizer: Optimizer,
    /// The clean losses of the epoch under way, summed ([`Finish::carry`]); `None` where no `run.stop_loss` makes them matter.
    pub epoch_loss: Option<f64>,
}

/// What ranks have summed over a step: with the state before it, everything that the state after it is a function of.
#[derive(Debug, Clone, Copy)]
pub struct StepSums<'a> {
    /// The descent gradient.
    pub gradient: &'a [f32],
    /// The batch's statistics, flat in the layout of the model's.
    pub statistics: &'a [f32],
    /// Mean loss over the batch at w.
    pub clean_loss: f64,
}

impl TrainingState {
    /// The end of a step, by what it has reduced: the optimizer's update, and batch norm's running statistics. The same on every rank, and on
    /// whoever follows them. Gives the learning rate, and the l2 norm of the gradient before clipping.
    pub fn update(&mut self, sums: StepSums<'_>, config: &Config, finish: Finish) -> (f64, f64) {
        let StepSums { gradient, statistics, clean_loss } = sums;
        let clipped = clip(gradient, config.optimizer.clip_norm);
        let gradient_norm = clipped.norm;
        let lr = learning_rate(self.step, finish.steps, config.optimizer.lr, &config.schedule);
        // Nobody else holds them between steps, so nothing is copied, but for one that joins.
        let weights = Arc::make_mut(&mut self.weights);
        self.optimizer.update_clipped(weights, clipped, self.step, lr);
        self.advance(statistics, clean_loss, finish);
        (lr, gradient_norm)
    }

    /// What moves in a step beside the weights and the optimizer.
    pub(crate) fn advance(&mut self, statistics: &[f32], clean_loss: f64, finish: Finish) {
        advance(&mut self.statistics, statistics);
        self.step += 1;
        self.epoch_loss = finish.carry(self.epoch_loss, self.step, clean_loss);
    }
}

/// Running statistics move once a step towards the batch's: `r <- (1 - momentum) r + momentum s`.
fn advance(running: &mut [f32], batch: &[f32]) {
    for (r, s) in running.iter_mut().zip(batch) {
        *r = (f64::from(*r) * (1.0 - BATCH_NORM_MOMENTUM) + f64::from(*s) * BATCH_NORM_MOMENTUM) as f32;
    }
}
