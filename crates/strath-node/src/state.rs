//! The state of training, and what a step makes of it.

use std::sync::Arc;

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
}

impl TrainingState {
    /// The end of a step, by what it has reduced: the optimizer's update, and batch norm's running statistics. The same on every rank, and on
    /// whoever follows them. Gives the learning rate, and the l2 norm of the gradient before clipping.
    pub fn update(&mut self, gradient: &[f32], statistics: &[f32], config: &Config, steps: u64) -> (f64, f64) {
        let clipped = clip(gradient, config.optimizer.clip_norm);
        let gradient_norm = clipped.norm;
        let lr = learning_rate(self.step, steps, config.optimizer.lr, &config.schedule);
        // Nobody else holds them between steps, so nothing is copied, but for one that joins.
        let weights = Arc::make_mut(&mut self.weights);
        self.optimizer.update_clipped(weights, clipped, self.step, lr);
        advance(&mut self.statistics, statistics);
        self.step += 1;
        (lr, gradient_norm)
    }
}

/// Running statistics move once a step towards the batch's: `r <- (1 - momentum) r + momentum s`.
fn advance(running: &mut [f32], batch: &[f32]) {
    for (r, s) in running.iter_mut().zip(batch) {
        *r = (f64::from(*r) * (1.0 - BATCH_NORM_MOMENTUM) + f64::from(*s) * BATCH_NORM_MOMENTUM) as f32;
    }
}
