//! `summary.json`: a finished run in a few numbers.

use serde::Serialize;
use strath_core::Digest;
use strath_core::finish::steps_of_an_epoch;
use strath_protocol::message::Split;

use crate::metrics::MetricsLog;

/// A finished run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Completed steps.
    pub steps: u64,
    /// Passes over the data, `steps * B / N`.
    pub epochs: f64,
    /// How many each split has.
    pub examples: Examples,
    /// The key that ended it: `run.steps` or `run.epochs`, or before those `run.stop_loss`.
    pub ended_by: &'static str,
    /// Share of the test split whose arg-max is wrong.
    pub test_error: f64,
    /// Mean cross-entropy over the test split.
    pub test_loss: f64,
    /// What came of the validation split, where there is one.
    #[serde(flatten)]
    pub validation: Option<Validation>,
    /// Mean clean loss of the last epoch (of all steps where there was less than one).
    pub train_loss: f64,
    /// Batch size over the median step time, the first five steps left out.
    pub images_per_s: f64,
    /// Seconds from the start of this session to the end.
    pub seconds: f64,
    /// Every world size that took part.
    pub world_sizes: Vec<u64>,
    /// What images were normalised by.
    pub normalisation: Normalisation,
    /// SHA-256 over the final parameters and running statistics.
    pub weights_sha256: String,
}

/// How many examples each split has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Examples {
    /// Trained on.
    pub train: u64,
    /// Split off those; 0 where none are.
    pub validation: u64,
    /// Tested on: N of them leave an error e with the binomial deviation `sqrt(e (1 - e) / N)`.
    pub test: u64,
}

/// A run by its validation split: at the end, and where its error was least, the first of several times.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Validation {
    /// Share of the split whose arg-max is wrong, at the end.
    pub validation_error: f64,
    /// Mean cross-entropy over the split, at the end.
    pub validation_loss: f64,
    /// The least error of all evaluations.
    pub best_validation_error: f64,
    /// When that was, `step * B / N`.
    pub best_validation_epoch: f64,
}

impl Validation {
    fn of(metrics: &MetricsLog) -> Option<Self> {
        let last = metrics.evaluations(Split::Validation).next_back()?;
        // `min_by` takes the first of equals.
        let best = metrics.evaluations(Split::Validation).min_by(|a, b| a.error.total_cmp(&b.error))?;
        Some(Self {
            validation_error: last.error,
            validation_loss: last.loss,
            best_validation_error: best.error,
            best_validation_epoch: best.epoch,
        })
    }
}

/// Mean and deviation a channel, applied after dividing pixels by their range.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Normalisation {
    /// Means.
    pub mean: Vec<f64>,
    /// Standard deviations.
    pub std: Vec<f64>,
}

/// What a summary takes from elsewhere than the metrics.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Examples of the batch.
    pub batch: usize,
    /// Examples of each split.
    pub examples: Examples,
    /// The key that ended the run.
    pub ended_by: &'static str,
    /// Seconds from the start of this session.
    pub seconds: f64,
    /// What images were normalised by.
    pub normalisation: Normalisation,
    /// Digest of the final weights.
    pub weights: Digest,
}

impl Summary {
    /// The summary of the run that `metrics` recorded; `None` where it was never evaluated.
    pub fn new(metrics: &MetricsLog, facts: Facts) -> Option<Self> {
        let losses: Vec<f64> = metrics.steps().map(|s| s.clean_loss).collect();
        let steps = metrics.steps().last().map_or(0, |s| s.step);
        let test = metrics.evaluations(Split::Test).next_back()?;
        let per_epoch = steps_of_an_epoch(facts.examples.train, facts.batch as u64) as usize;
        let last_epoch = &losses[losses.len().saturating_sub(per_epoch)..];
        Some(Self {
            steps,
            epochs: steps as f64 * facts.batch as f64 / facts.examples.train as f64,
            examples: facts.examples,
            ended_by: facts.ended_by,
            test_error: test.error,
            test_loss: test.loss,
            validation: Validation::of(metrics),
            train_loss: last_epoch.iter().sum::<f64>() / last_epoch.len().max(1) as f64,
            images_per_s: images_per_s(facts.batch, metrics.steps().map(|s| s.step_s)),
            seconds: facts.seconds,
            world_sizes: metrics.world_sizes(),
            normalisation: facts.normalisation,
            weights_sha256: facts.weights.to_string(),
        })
    }
}

/// The batch over the median step time; the first five steps are left out where there are more.
pub fn images_per_s(batch: usize, step_seconds: impl Iterator<Item = f64>) -> f64 {
    let seconds: Vec<f64> = step_seconds.collect();
    let counted = if seconds.len() > 5 { &seconds[5..] } else { &seconds[..] };
    let median = median(counted.iter().copied());
    if median > 0.0 { batch as f64 / median } else { 0.0 }
}

/// The median; 0 of nothing.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_over_the_median_without_the_first_five() {
        assert_eq!(images_per_s(8, [].into_iter()), 0.0);
        assert_eq!(images_per_s(8, [2.0, 4.0].into_iter()), 8.0 / 3.0);
        assert_eq!(images_per_s(8, [9.0, 9.0, 9.0, 9.0, 9.0, 1.0, 2.0, 4.0].into_iter()), 4.0);
    }
}
