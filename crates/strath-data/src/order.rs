//! The seeded order of training examples.

use std::ops::Range;

use strath_core::random::{Purpose, Stream};

/// One entry of the stream of examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Which pass over the data, from 0.
    pub epoch: u64,
    /// Index of the example in the training split.
    pub example: usize,
}

/// The stream of examples: the permutation of epoch 0, then that of epoch 1, and so on. Step s takes entries
/// `s B .. (s + 1) B`, so that a batch may straddle epochs and nothing is dropped.
#[derive(Debug, Clone)]
pub struct Order {
    examples: usize,
    batch: usize,
    seed: u64,
    shuffle: bool,
    /// The permutations last used, newest last.
    known: Vec<(u64, Vec<u32>)>,
}

/// Permutations kept: a batch straddles two epochs, or more where it is larger than the data.
const KEPT: usize = 2;

impl Order {
    /// The order of `examples` examples in batches of `batch`; without `shuffle` every permutation is the identity.
    pub fn new(examples: usize, batch: usize, seed: u64, shuffle: bool) -> Self {
        Self { examples, batch, seed, shuffle, known: Vec::new() }
    }

    /// The entries at `positions` of the batch of step `step`.
    ///
    /// # Panics
    /// Where `positions` reach beyond the batch: they would be another step's.
    pub fn entries(&mut self, step: u64, positions: Range<usize>) -> Vec<Entry> {
        assert!(positions.end <= self.batch, "positions {positions:?} of a batch of {}", self.batch);
        let start = u128::from(step) * self.batch as u128;
        positions
            .map(|position| {
                let at = start + position as u128;
                let epoch = (at / self.examples as u128) as u64;
                let within = (at % self.examples as u128) as usize;
                let example = if self.shuffle { self.permutation(epoch)[within] as usize } else { within };
                Entry { epoch, example }
            })
            .collect()
    }

    fn permutation(&mut self, epoch: u64) -> &[u32] {
        let at = self.known.iter().position(|(known, _)| *known == epoch).unwrap_or_else(|| {
            if self.known.len() == KEPT {
                self.known.remove(0);
            }
            let drawn = Stream::new(self.seed, Purpose::Order { epoch }).permutation(self.examples);
            self.known.push((epoch, drawn));
            self.known.len() - 1
        });
        &self.known[at].1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(order: &mut Order, steps: Range<u64>) -> Vec<Entry> {
        let batch = order.batch;
        steps.flat_map(|step| order.entries(step, 0..batch)).collect()
    }

    #[test]
    fn every_epoch_holds_every_example_once_though_batches_straddle_epochs() {
        let mut order = Order::new(10, 4, 1, true);
        let entries = all(&mut order, 0..5);
        for (epoch, pass) in entries.chunks(10).enumerate() {
            assert!(pass.iter().all(|entry| entry.epoch == epoch as u64));
            let mut examples: Vec<usize> = pass.iter().map(|entry| entry.example).collect();
            examples.sort_unstable();
            assert_eq!(examples, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(
            entries[..10].iter().map(|e| e.example).collect::<Vec<_>>(),
            entries[10..].iter().map(|e| e.example).collect::<Vec<_>>()
        );
    }

    #[test]
    fn without_shuffle_examples_come_in_file_order_wrapping_round() {
        let examples: Vec<usize> = all(&mut Order::new(3, 2, 0, false), 0..3).iter().map(|e| e.example).collect();
        assert_eq!(examples, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_batch_straddles_two_epochs_where_it_does_not_divide_the_data() {
        let epochs: Vec<u64> = Order::new(5, 3, 2, true).entries(1, 0..3).iter().map(|e| e.epoch).collect();
        assert_eq!(epochs, [0, 0, 1]);
        let permutation = |epoch| Stream::new(2, Purpose::Order { epoch }).permutation(5);
        let examples: Vec<u32> = Order::new(5, 3, 2, true).entries(1, 0..3).iter().map(|e| e.example as u32).collect();
        assert_eq!(examples, [permutation(0)[3], permutation(0)[4], permutation(1)[0]]);
    }

    #[test]
    fn seeds_and_epochs_have_orders_of_their_own() {
        let pass = |seed, epoch| -> Vec<usize> {
            Order::new(50, 50, seed, true).entries(epoch, 0..50).iter().map(|e| e.example).collect()
        };
        let passes = [pass(0, 0), pass(0, 1), pass(1, 0), pass(1, 1), (0..50).collect()];
        for (at, one) in passes.iter().enumerate() {
            assert!(passes[..at].iter().all(|other| other != one), "pass {at} repeats another");
        }
    }

    #[test]
    #[should_panic(expected = "positions 3..5 of a batch of 4")]
    fn positions_beyond_the_batch_are_refused() {
        Order::new(10, 4, 0, true).entries(0, 3..5);
    }

    proptest! {
        /// Whoever asks for whichever piece of whichever step, in whatever order, gets that piece of the stream.
        #[test]
        fn any_cut_of_a_batch_and_any_order_of_asking_gives_the_same_entries(
            examples in 1usize..40,
            batch in 1usize..60,
            seed in any::<u64>(),
            shuffle in any::<bool>(),
            asked in prop::collection::vec((0u64..8, 0usize..60, 0usize..60), 1..12)
        ) {
            let whole = all(&mut Order::new(examples, batch, seed, shuffle), 0..8);
            let mut order = Order::new(examples, batch, seed, shuffle);
            for (step, a, b) in asked {
                let (start, end) = (a.min(b).min(batch), a.max(b).min(batch));
                let from = step as usize * batch;
                prop_assert_eq!(&order.entries(step, start..end)[..], &whole[from + start..from + end]);
            }
            for (epoch, pass) in whole.chunks_exact(examples).enumerate() {
                prop_assert!(pass.iter().all(|entry| entry.epoch == epoch as u64));
                let mut held: Vec<usize> = pass.iter().map(|entry| entry.example).collect();
                held.sort_unstable();
                prop_assert_eq!(held, (0..examples).collect::<Vec<_>>());
            }
        }
    }
}
