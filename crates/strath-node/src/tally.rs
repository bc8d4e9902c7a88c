//! The small sums of a step: losses, lanes and statistics, whatever the model's size.

use strath_collective::Payload;
use strath_core::After;
use strath_core::fixed::{
    FixedSum, GRADIENT_BITS, GRADIENT_LIMIT, OutOfRange, STATISTIC_BITS, STATISTIC_LIMIT, to_f64, to_fixed,
};
use strath_sam::Lift;

/// A loss that is not finite or reaches 2^15.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LossOutOfRange;

/// The small sums of a step: integers whatever `cluster.reduce` is, so that what is reported never depends on the ranks.
#[derive(Debug, Clone)]
pub struct Tally {
    clean_loss: i64,
    perturbed_loss: i64,
    epsilon_norm: i64,
    zero_gradient_lanes: i64,
    after: After,
    statistics: FixedSum,
}

impl Tally {
    /// An empty tally for a model of `statistics` running statistics; `after`: what this rank was asked to do after the step.
    pub fn new(statistics: usize, after: After) -> Self {
        Self {
            clean_loss: 0,
            perturbed_loss: 0,
            epsilon_norm: 0,
            zero_gradient_lanes: 0,
            after,
            statistics: FixedSum::statistics(statistics),
        }
    }

    /// Adds a micro-batch's mean loss at w, weighted by its part of the batch.
    pub fn add_clean(&mut self, loss: f64, share: f64) -> Result<(), LossOutOfRange> {
        self.clean_loss += fixed_loss(loss, share)?;
        Ok(())
    }

    /// Adds a micro-batch's mean loss at w + epsilon, weighted by its part of the batch.
    pub fn add_perturbed(&mut self, loss: f64, share: f64) -> Result<(), LossOutOfRange> {
        self.perturbed_loss += fixed_loss(loss, share)?;
        Ok(())
    }

    /// Adds a micro-batch's batch-norm statistics, weighted by its part of the batch.
    ///
    /// # Errors
    /// [`OutOfRange`] with the first statistic that is not finite or too large.
    pub fn add_statistics(&mut self, statistics: &[f32], share: f64) -> Result<(), OutOfRange> {
        self.statistics.add(statistics, share)
    }

    /// Counts the epsilon of one of the batch's `lanes`, once a lane. A norm beyond 2^30 counts as that.
    pub fn add_lane(&mut self, lift: Lift, lanes: usize) {
        let norm = lift.epsilon_norm.min(f64::from(STATISTIC_LIMIT));
        self.epsilon_norm += to_fixed(norm / lanes as f64, STATISTIC_BITS);
        self.zero_gradient_lanes += i64::from(lift.is_zero);
    }

    /// The tally as it is reduced, with the `words` of this rank's board behind it.
    pub fn into_payload(self, words: &[i64]) -> Payload {
        let mut integers = vec![self.clean_loss, self.perturbed_loss, self.epsilon_norm, self.zero_gradient_lanes];
        integers.extend(self.after.words());
        integers.extend(self.statistics.into_entries());
        integers.extend(words);
        Payload::Integers(integers)
    }
}

fn fixed_loss(loss: f64, share: f64) -> Result<i64, LossOutOfRange> {
    if loss.abs() < f64::from(GRADIENT_LIMIT) { Ok(to_fixed(loss * share, GRADIENT_BITS)) } else { Err(LossOutOfRange) }
}

/// A reduced [`Tally`].
#[derive(Debug, Clone, PartialEq)]
pub struct Totals {
    /// Mean loss over the batch at w.
    pub clean_loss: f64,
    /// Mean loss over the batch at w + epsilon.
    pub perturbed_loss: f64,
    /// Mean over lanes of the l2 norm of epsilon.
    pub epsilon_norm: f64,
    /// Lanes whose gradient was zero.
    pub zero_gradient_lanes: u64,
    /// What all ranks do after the step.
    pub after: After,
    /// The batch's statistics: means over micro-batches of their means and unbiased variances.
    pub statistics: Vec<f32>,
}

impl Totals {
    /// Reads the integers of a reduced tally for a model of `statistics` running statistics; the board's words follow.
    pub fn read(integers: &[i64], statistics: usize) -> (Self, &[i64]) {
        let [clean, perturbed, epsilon, zero, pause, stop, ref rest @ ..] = *integers else {
            unreachable!("a reduced tally has the length of every rank's, at least six")
        };
        let (statistics, words) = rest.split_at(statistics);
        let totals = Self {
            clean_loss: to_f64(clean, GRADIENT_BITS),
            perturbed_loss: to_f64(perturbed, GRADIENT_BITS),
            epsilon_norm: to_f64(epsilon, STATISTIC_BITS),
            zero_gradient_lanes: zero as u64,
            after: After::agreed([pause, stop]),
            statistics: statistics.iter().map(|s| strath_core::fixed::to_f32(*s, STATISTIC_BITS)).collect(),
        };
        (totals, words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_gives_back_weighted_means() {
        let mut tally = Tally::new(1, After::Stop);
        tally.add_clean(2.0, 0.25).unwrap();
        tally.add_clean(4.0, 0.75).unwrap();
        tally.add_perturbed(8.0, 0.5).unwrap();
        tally.add_statistics(&[6.0], 0.5).unwrap();
        tally.add_lane(Lift { epsilon_norm: 0.5, dual_norm: 1.0, is_zero: false }, 2);
        tally.add_lane(Lift { epsilon_norm: 0.0, dual_norm: 0.0, is_zero: true }, 2);
        assert_eq!(tally.add_clean(f64::NAN, 0.1), Err(LossOutOfRange));
        let Payload::Integers(integers) = tally.into_payload(&[7, -8]) else { panic!("a tally is integers") };
        let (totals, words) = Totals::read(&integers, 1);
        let want = Totals {
            clean_loss: 3.5,
            perturbed_loss: 4.0,
            epsilon_norm: 0.25,
            zero_gradient_lanes: 1,
            after: After::Stop,
            statistics: vec![3.0],
        };
        assert_eq!((totals, words), (want, &[7, -8][..]));
    }
}
