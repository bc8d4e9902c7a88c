//! What a run recorded, epoch by epoch.

use std::collections::BTreeMap;
use std::path::Path;

use strath_node::metrics::{EvalLine, Line, StepLine};

use crate::figure::Marks;

use super::{ReportError, read};

/// A run's `metrics.jsonl` by epochs.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Epochs {
    /// Of each epoch, by its end, the means over its steps.
    steps: BTreeMap<u64, Means>,
    /// Evaluations: split, epoch, error.
    evaluations: Vec<(String, f64, f64)>,
}

/// Means over an epoch's steps.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Means {
    pub(super) steps: usize,
    /// Loss at w, nats.
    pub(super) clean_loss: f64,
    /// Loss at w + epsilon, nats.
    pub(super) perturbed_loss: f64,
    /// What epsilon adds, nats.
    pub(super) sharpness: f64,
}

/// The lines of a run's `metrics.jsonl`. One that cannot be read is left out, as a run that was killed may have torn its last.
pub(super) fn lines(run: &Path) -> Result<Vec<Line>, ReportError> {
    let text = read(run.join("metrics.jsonl"))?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// Whether the points of a curve of so many are marked: of few they would not be seen without.
pub(super) fn marks(points: usize) -> Marks {
    if points > 12 { Marks::None } else { Marks::Each }
}

impl Means {
    fn push(&mut self, line: &StepLine) {
        let before = self.steps as f64;
        self.steps += 1;
        let take = |mean: &mut f64, value: f64| *mean = (*mean * before + value) / (before + 1.0);
        take(&mut self.clean_loss, line.clean_loss);
        take(&mut self.perturbed_loss, line.perturbed_loss);
        take(&mut self.sharpness, line.sharpness);
    }
}

impl Epochs {
    /// Of what a run recorded.
    pub(super) fn of(lines: &[Line]) -> Self {
        let mut epochs = Self::default();
        for line in lines {
            match line {
                // A step that ends an epoch belongs to it; the product of step and batch may be a bit above the whole.
                Line::Step(line) => epochs.steps.entry((line.epoch - 1e-9).ceil() as u64).or_default().push(line),
                Line::Eval(EvalLine { split, epoch, error, .. }) => {
                    epochs.evaluations.push((split.clone(), *epoch, *error));
                }
                Line::Cluster(_) => {}
            }
        }
        epochs
    }

    /// A mean of each epoch's steps, by its end.
    pub(super) fn curve(&self, of: impl Fn(&Means) -> f64) -> Vec<(f64, f64)> {
        self.steps.iter().map(|(epoch, means)| (*epoch as f64, of(means))).collect()
    }

    /// Errors on a split, in per cent.
    pub(super) fn errors(&self, split: &str) -> Vec<(f64, f64)> {
        let of_split = self.evaluations.iter().filter(|(name, ..)| name == split);
        of_split.map(|(_, epoch, error)| (*epoch, 100.0 * error)).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_epoch_is_the_mean_of_its_steps() {
        let step = |epoch: f64, loss: f64| {
            json!({
                "kind": "step", "step": 1, "epoch": epoch, "time": 0.0, "clean_loss": loss, "perturbed_loss": loss + 0.5, "sharpness": 0.5,
                "lr": 0.1, "gradient_norm": 1.0, "epsilon_norm": 1.0, "zero_gradient_lanes": 0, "images_per_s": 1.0, "step_s": 1.0, "data_s": 0.0,
                "ascent_s": 0.0, "epsilon_s": 0.0, "exchange_s": 0.0, "descent_s": 0.0, "reduce_s": 0.0, "update_s": 0.0,
            })
        };
        let eval =
            json!({"kind": "eval", "step": 2, "epoch": 1.0, "time": 0.0, "split": "test", "loss": 1.0, "error": 0.25});
        let lines = [step(0.5, 4.0), step(1.0, 2.0), eval, step(1.5, 1.0)];
        let lines: Vec<Line> = lines.into_iter().map(|line| serde_json::from_value(line).unwrap()).collect();
        let epochs = Epochs::of(&lines);
        assert_eq!(epochs.curve(|means| means.clean_loss), [(1.0, 3.0), (2.0, 1.0)]);
        assert_eq!(epochs.curve(|means| means.perturbed_loss), [(1.0, 3.5), (2.0, 1.5)]);
        assert_eq!((epochs.errors("test"), epochs.errors("validation")), (vec![(1.0, 25.0)], vec![]));
    }
}
