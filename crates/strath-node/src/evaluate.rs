//! Loss and error over a whole split, shared out over the ranks, to the same bits for any number of them.

use std::ops::Range;
use std::sync::Arc;

use strath_collective::{Bucket, Collective, CollectiveError, Payload, Reduced};
use strath_core::fixed::{GRADIENT_BITS, to_f64, to_fixed};
use strath_core::{Fault, Rank, Step};
use strath_data::{Loader, SplitName};
use strath_model::{Model, ModelError};

use crate::step::EXCHANGE_DEADLINE;

/// Examples of one forward pass. Blocks are cut from the split's start, never from a rank's share.
const BLOCK: usize = 128;

/// Loss and error over a split.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// Mean cross-entropy, without smoothing.
    pub loss: f64,
    /// Share of wrong arg-max.
    pub error: f64,
}

/// Why an evaluation failed.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// Some losses are not finite.
    #[error(
        "the loss of {count} of {examples} {split} examples is not finite; the weights have diverged, use an earlier checkpoint"
    )]
    NotFinite {
        /// How many.
        count: u64,
        /// Out of how many.
        examples: usize,
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
    weights: &Arc<Vec<f32>>,
    statistics: &[f32],
    loader: &Loader,
    split: SplitName,
    peers: &Collective,
    rank: Rank,
    world_size: u32,
    step: Step,
) -> Result<Evaluation, EvaluateError> {
    let examples = loader.len(split);
    let (mut loss, mut wrong, mut not_finite) = (0i64, 0i64, 0i64);
    for block in share(examples, rank, world_size) {
        let batch = loader.evaluation(split, block);
        for score in model.evaluate(weights, statistics, &batch.images, &batch.labels)? {
            // A mean of n losses below 2^15 n stays inside an i64.
            if score.loss.abs() < 32_768.0 {
                loss += to_fixed(score.loss / examples as f64, GRADIENT_BITS);
            } else {
                not_finite += 1;
            }
            wrong += i64::from(!score.correct);
        }
    }
    let payload = Payload::Integers(vec![loss, wrong, not_finite]);
    let (reduced, _) =
        peers.all_reduce(step, Bucket::EVALUATION, 0..world_size, payload, Fault::NONE).wait(EXCHANGE_DEADLINE)?;
    let Reduced::Integers(sums) = reduced else { unreachable!("integers are reduced to integers") };
    if sums[2] > 0 {
        let split = split.name();
        return Err(EvaluateError::NotFinite { count: sums[2] as u64, examples, split });
    }
    Ok(Evaluation { loss: to_f64(sums[0], GRADIENT_BITS), error: sums[1] as f64 / examples as f64 })
}

/// The blocks of `rank`: a run of consecutive ones.
fn share(examples: usize, rank: Rank, world_size: u32) -> impl Iterator<Item = Range<usize>> {
    let blocks = examples.div_ceil(BLOCK);
    let bound = |r: usize| r * blocks / world_size as usize;
    (bound(rank.index())..bound(rank.index() + 1)).map(move |b| b * BLOCK..((b + 1) * BLOCK).min(examples))
}

#[cfg(test)]
mod tests {
    use super::*;

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
