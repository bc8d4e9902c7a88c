//! When a run is evaluated.

use crate::config::Config;

/// When a run is evaluated: after every so many epochs, and at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evaluations {
    /// `run.eval_every_epochs`.
    pub every_epochs: u64,
    /// N.
    pub train_examples: u64,
    /// B.
    pub batch: u64,
    /// The run's length in steps.
    pub steps: u64,
    /// `run.eval_train`: whether on the training split too.
    pub of_training: bool,
}

impl Evaluations {
    /// Those of a run of so many steps over `train_examples` examples.
    pub fn of(config: &Config, train_examples: u64, steps: u64) -> Self {
        let (every_epochs, batch) = (config.run.eval_every_epochs, config.batch.size as u64);
        Self { every_epochs, train_examples, batch, steps, of_training: config.run.eval_train }
    }

    /// Whether one is due after `step` completed steps: `step = floor((e + 1) N / B)` for an epoch e (0-based) with
    /// `every_epochs` dividing `e + 1`, or `step` is the last.
    pub fn is_due(&self, step: u64) -> bool {
        if step == self.steps {
            return true;
        }
        // floor(epochs N / B) = step for the epochs in step B / N .. (step + 1) B / N.
        let from = |step: u64| (u128::from(step) * u128::from(self.batch)).div_ceil(u128::from(self.train_examples));
        let (first, past) = (from(step), from(step + 1));
        let every = u128::from(self.every_epochs);
        step > 0 && first.next_multiple_of(every) < past
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluations_come_after_whole_epochs_and_at_the_end() {
        let due =
            |evaluations: Evaluations| (1..=evaluations.steps).filter(|s| evaluations.is_due(*s)).collect::<Vec<_>>();
        // 10 examples in batches of 4: epochs end after floor(2.5), 5, floor(7.5), 10 steps.
        let every = Evaluations { every_epochs: 1, train_examples: 10, batch: 4, steps: 11, of_training: false };
        assert_eq!(due(every), [2, 5, 7, 10, 11]);
        assert_eq!(due(Evaluations { every_epochs: 2, ..every }), [5, 10, 11]);
        // A batch of more than two epochs: each step ends some.
        let large = Evaluations { train_examples: 3, batch: 8, steps: 3, ..every };
        assert_eq!(due(large), [1, 2, 3]);
        assert_eq!(due(Evaluations { train_examples: 5, batch: 1, steps: 10, ..every }), [5, 10]);
    }

    #[test]
    fn the_rule_is_that_of_its_definition() {
        for (n, b) in [(10, 4), (7, 3), (60, 8), (5, 7), (3, 8), (1, 5)] {
            for every in 1..4 {
                let evaluations =
                    Evaluations { every_epochs: every, train_examples: n, batch: b, steps: 1000, of_training: false };
                let ends: std::collections::BTreeSet<u64> =
                    (1..=3000).filter(|e| e % every == 0).map(|e| e * n / b).collect();
                for step in 1..60 {
                    assert_eq!(evaluations.is_due(step), ends.contains(&step), "{n} {b} {every} {step}");
                }
            }
        }
    }
}
