//! When training is over: after its planned steps, or before, once an epoch's loss is low enough.
//!
//! Whether it is over is a pure function of the step and of what the state of training carries of the epoch under way, so every rank,
//! whoever joins late and whoever resumes find the same.

use crate::config::Config;

/// Steps whose mean clean loss is that of an epoch: `floor(N / B)`, at least 1. Where an epoch takes a step more, as a batch straddles two,
/// its first is left out.
pub fn steps_of_an_epoch(train_examples: u64, batch: u64) -> u64 {
    (train_examples / batch).max(1)
}

/// When training is over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Finish {
    /// The planned steps, which schedules go by.
    pub steps: u64,
    /// What ends it before.
    pub stop_loss: Option<StopLoss>,
}

/// `run.stop_loss`: training ends with the step that completes an epoch whose mean clean loss is below it.
///
/// Epoch e (0-based) is complete after `floor((e + 1) N / B)` steps, as for evaluations, and its mean is over the last
/// [`steps_of_an_epoch`] of them: what `train_loss` is at that step, to the bit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StopLoss {
    /// The epoch's mean is to be below this.
    pub below: f64,
    /// N.
    pub train_examples: u64,
    /// B.
    pub batch: u64,
}

impl Finish {
    /// That of a run of so many planned steps over `train_examples` examples.
    pub fn of(config: &Config, train_examples: u64, steps: u64) -> Self {
        let batch = config.batch.size as u64;
        Self { steps, stop_loss: config.run.stop_loss.map(|below| StopLoss { below, train_examples, batch }) }
    }

    /// What the state after `step` completed steps carries of the epoch: the sum of its steps' clean losses, of which the newest is
    /// `clean_loss` and `sum` what the state before carried. `None`: nothing but the planned steps ends the run.
    pub fn carry(&self, sum: Option<f64>, step: u64, clean_loss: f64) -> Option<f64> {
        let stop = self.stop_loss?;
        let first = stop.end(step) - stop.span() + 1;
        Some(match step {
            step if step < first => 0.0,
            step if step == first => clean_loss,
            _ => sum.unwrap_or_default() + clean_loss,
        })
    }

    /// Whether training is over after `step` completed steps, the state then carrying `sum`.
    pub fn is_over(&self, step: u64, sum: Option<f64>) -> bool {
        let is_low = |stop: StopLoss| {
            let mean = sum.map(|sum| sum / stop.span() as f64);
            step > 0 && step == stop.end(step) && mean.is_some_and(|mean| mean < stop.below)
        };
        step >= self.steps || self.stop_loss.is_some_and(is_low)
    }
}

impl StopLoss {
    fn span(&self) -> u64 {
        steps_of_an_epoch(self.train_examples, self.batch)
    }

    /// The step that completes the epoch to which `step`, counted from 1, belongs: the least `floor(e N / B)` that is not below it.
    fn end(&self, step: u64) -> u64 {
        let (n, b) = (u128::from(self.train_examples.max(1)), u128::from(self.batch));
        let epochs = (u128::from(step) * b).div_ceil(n);
        (epochs * n / b) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps after which training would be over, by what is said of it: the losses of all steps are there to look at.
    fn by_definition(losses: &[f64], stop: StopLoss) -> Option<u64> {
        let (n, b) = (stop.train_examples, stop.batch);
        let per_epoch = steps_of_an_epoch(n, b) as usize;
        (1..=losses.len())
            .find(|step| {
                let completes = (1..=*step as u64 * b + n).any(|e| e * n / b == *step as u64);
                let last = &losses[step.saturating_sub(per_epoch)..*step];
                completes && last.iter().sum::<f64>() / (last.len() as f64) < stop.below
            })
            .map(|step| step as u64)
    }

    #[test]
    fn a_run_ends_with_the_first_epoch_whose_mean_is_low_as_if_all_losses_were_there() {
        for (n, b) in [(10, 4), (7, 3), (60, 8), (5, 7), (3, 8), (1, 5), (16, 4)] {
            for below in [0.3, 0.7, 1.0, 1.2, 9.0] {
                let stop = StopLoss { below, train_examples: n, batch: b };
                let losses: Vec<f64> =
                    (0..60).map(|k| 2.0 / (1.0 + 0.1 * k as f64) + 0.3 * ((k * 7) % 5) as f64 / 5.0).collect();
                let finish = Finish { steps: 60, stop_loss: Some(stop) };
                let (mut sum, mut step) = (Some(0.0), 0);
                while !finish.is_over(step, sum) {
                    step += 1;
                    sum = finish.carry(sum, step, losses[step as usize - 1]);
                }
                assert_eq!(
                    step,
                    by_definition(&losses, stop).unwrap_or(60),
                    "{n} examples in batches of {b}, below {below}"
                );
            }
        }
    }

    #[test]
    fn without_a_loss_to_stop_at_only_the_planned_steps_end_it_and_nothing_is_carried() {
        let finish = Finish { steps: 3, stop_loss: None };
        assert_eq!(finish.carry(None, 1, 0.0), None);
        assert_eq!([0, 2, 3, 4].map(|step| finish.is_over(step, None)), [false, false, true, true]);
    }

    #[test]
    fn the_first_of_a_longer_epochs_steps_does_not_count_and_nothing_ends_before_a_step() {
        // 10 examples in batches of 4: epochs end after 2, 5, 7, 10 steps; two steps make a mean.
        let finish = Finish { steps: 99, stop_loss: Some(StopLoss { below: 1.0, train_examples: 10, batch: 4 }) };
        assert!(!finish.is_over(0, Some(0.0)));
        assert_eq!(finish.carry(Some(7.0), 3, 50.0), Some(0.0));
        let sum = finish.carry(finish.carry(Some(0.0), 4, 0.5), 5, 0.75);
        assert_eq!((sum, finish.is_over(4, sum), finish.is_over(5, sum)), (Some(1.25), false, true));
    }
}
