//! Loss and error over a whole split, shared out over the ranks, to the same bits for any number of them.

use std::ops::Range;

use strath_collective::{Bucket, Collective, CollectiveError, Payload, Reduced};
use strath_core::fixed::{GRADIENT_BITS, GRADIENT_LIMIT, to_f64, to_fixed};
use strath_core::{Fault, Rank, Step};
use strath_data::{Loader, SplitName};
use strath_model::{Model, ModelError};

use crate::flat::Weights;
use crate::step::EXCHANGE_DEADLINE;

/// Examples of one forward pass. Blocks are cut from the split's start, never from a rank's share.
pub(crate) const BLOCK: usize = 128;

/// Loss and error over a split.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// Mean cross-entropy, without smoothing.
    pub loss: f64,
    /// Share of wrong arg-max.
    pub error: f64,
}

/// A loss of this size, 7e13, counts as not finite.
const MOST: f64 = (1u64 << 46) as f64;

/// The sum of examples' parts of a mean loss, in integers, so that the order of addition never shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Losses {
    /// Of losses below [`USUAL`], 48 fractional bits: what training sums alike.
    usual: i64,
    /// Of larger ones, 16 fractional bits. They are no fault: early in training batch norm's running statistics may lag so far
    /// behind the weights that a deep network's logits reach millions in evaluation, while training goes well.
    large: i64,
    /// How many are not finite or reach [`MOST`].
    not_finite: i64,
}

/// The usual loss is below this. Half of what an `i64` holds, as is [`MOST`]: rounded parts may add up to more than the mean.
const USUAL: f64 = GRADIENT_LIMIT as f64 / 2.0;
/// Fractional bits of the large losses.
const LARGE_BITS: i32 = 16;

impl Losses {
    /// Adds the loss of one of `examples`.
    pub(crate) fn add(&mut self, loss: f64, examples: usize) {
        self.add_part(loss, loss / examples as f64);
    }

    /// Adds the mean loss of this share of the examples.
    pub(crate) fn add_share(&mut self, loss: f64, share: f64) {
        self.add_part(loss, loss * share);
    }

    /// Losses below a limit have parts that add up to less than twice that, so no sum leaves its `i64`.
    fn add_part(&mut self, loss: f64, part: f64) {
        match loss.abs() {
            size if size < USUAL => self.usual += to_fixed(part, GRADIENT_BITS),
            size if size < MOST => self.large += to_fixed(part, LARGE_BITS),
            _ => self.not_finite += 1,
        }
    }

    pub(crate) fn mean(&self) -> f64 {
        to_f64(self.usual, GRADIENT_BITS) + to_f64(self.large, LARGE_BITS)
    }

    /// Whether all were finite.
    pub(crate) fn is_finite(&self) -> bool {
        self.not_finite == 0
    }

    /// The mean; infinite where a loss was not finite.
    pub(crate) fn finite_mean(&self) -> f64 {
        if self.is_finite() { self.mean() } else { f64::INFINITY }
    }

    /// As integers, to be summed with other ranks'.
    pub(crate) fn words(&self) -> [i64; 3] {
        [self.usual, self.large, self.not_finite]
    }

    /// Reads [`words`](Self::words), or sums of them.
    pub(crate) fn of_words([usual, large, not_finite]: [i64; 3]) -> Self {
        Self { usual, large, not_finite }
    }
}

/// Why an evaluation failed.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// Some losses are not finite, or beyond any use.
    #[error(
        "the loss of {count} of {examples} {split} examples is not finite or reaches {MOST:.0e}; the weights have diverged, or batch \
         norm's running statistics lag far behind them: lower optimizer.lr or raise schedule.warmup_steps, or use an earlier \
         checkpoint"
    )]
    NotFinite {
        /// How many.
        count: u64,
        /// Out of how many.
        examples: usize,
        /// Of which split.
        split: &'static str,
    },
    /// There is nothing to evaluate.
    #[error(
        "there are 0 {split} examples, expected at least 1; raise data.train_limit, or the share that is asked for"
    )]
    Empty {
        /// Of which split.
        split: &'static str,
    },
    /// A peer was lost or disagreed.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
    /// The model could not compute.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// Evaluates the weights on a split, un-augmented, batch norm with running statistics.
///
/// # Errors
/// [`EvaluateError`], alike on every rank where a loss is not finite.
#[expect(clippy::too_many_arguments, reason = "the model, its weights, the examples and who shares the work")]
pub fn evaluate(
    model: &Model,
    weights: &Weights,
    statistics: &[f32],
    loader: &Loader,
    split: SplitName,
    peers: &Collective,
    rank: Rank,
    world_size: u32,
    step: Step,
) -> Result<Evaluation, EvaluateError> {
    let examples = loader.len(split);
    if examples == 0 {
        return Err(EvaluateError::Empty { split: split.name() });
    }
    // Of one step several may be evaluated, and a rank that is ahead must not be taken for one that is behind.
    let bucket = match split {
        SplitName::Train => Bucket::TRAINING,
        SplitName::Validation => Bucket::VALIDATION,
        SplitName::Test | SplitName::Noisy => Bucket::EVALUATION,
    };
    let (mut losses, mut wrong) = (Losses::default(), 0i64);
    for block in share(examples, rank, world_size) {
        let batch = loader.evaluation(split, block);
        for score in weights.evaluate(model, statistics, &batch)? {
            losses.add(score.loss, examples);
            wrong += i64::from(!score.correct);
        }
    }
    let payload = Payload::Integers(vec![losses.usual, losses.large, losses.not_finite, wrong]);
    let (reduced, _) = peers.all_reduce(step, bucket, 0..world_size, payload, Fault::NONE).wait(EXCHANGE_DEADLINE)?;
    let Reduced::Integers(sums) = reduced else { unreachable!("integers are reduced to integers") };
    let [usual, large, not_finite, wrong] = *sums else { unreachable!("as many come back as were sent") };
    if not_finite > 0 {
        return Err(EvaluateError::NotFinite { count: not_finite as u64, examples, split: split.name() });
    }
    Ok(Evaluation { loss: Losses { usual, large, not_finite }.mean(), error: wrong as f64 / examples as f64 })
}

/// The blocks of `rank`: a run of consecutive ones.
fn share(examples: usize, rank: Rank, world_size: u32) -> impl Iterator<Item = Range<usize>> {
    run(examples.div_ceil(BLOCK), rank, world_size).map(move |b| b * BLOCK..((b + 1) * BLOCK).min(examples))
}

/// The run of `items` things that a rank computes, all ranks' being nearly equal.
pub(crate) fn run(items: usize, rank: Rank, world_size: u32) -> Range<usize> {
    let bound = |rank: usize| rank * items / world_size as usize;
    bound(rank.index())..bound(rank.index() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(losses: &[f64]) -> Losses {
        let mut sum = Losses::default();
        for loss in losses {
            sum.add(*loss, losses.len());
        }
        sum
    }

    #[test]
    fn a_large_loss_is_a_loss_and_only_what_is_not_finite_or_absurd_is_counted_out() {
        assert_eq!(sum(&[0.25, 0.75]).mean(), 0.5);
        assert_eq!(sum(&[0.25, 32_767.75]).mean(), 16_384.0);
        assert_eq!(sum(&[0.5, 6_287_109.5]).mean(), 3_143_555.0);
        // As many as there are, each just below its limit: no sum overflows.
        assert_eq!(sum(&vec![USUAL.next_down(); 10_000]).mean().round(), USUAL);
        assert_eq!(sum(&vec![MOST.next_down(); 10_000]).mean().round(), MOST);
        assert_eq!(sum(&[f64::NAN, f64::INFINITY, -f64::INFINITY, MOST, 1.0]).not_finite, 4);
    }

    #[test]
    fn the_order_of_losses_does_not_show() {
        let losses = [0.1, 1e-9, 40_000.3, 2e9, 7.7, 3e13];
        let mut other_way = losses;
        other_way.reverse();
        assert_eq!(sum(&losses), sum(&other_way));
    }

    #[test]
    fn every_example_is_in_one_block_and_blocks_do_not_depend_on_the_world() {
        for examples in [1, 127, 128, 360, 10_000] {
            let alone: Vec<_> = share(examples, Rank(0), 1).collect();
            assert_eq!(alone.iter().flat_map(Clone::clone).collect::<Vec<_>>(), (0..examples).collect::<Vec<_>>());
            for world in 2..9 {
                let shared: Vec<_> = (0..world).flat_map(|r| share(examples, Rank(r), world)).collect();
                assert_eq!(shared, alone, "{examples} examples over {world} ranks");
            }
        }
    }
}
