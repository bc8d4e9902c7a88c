//! Ranks and ties, of which rank correlations are made.

use super::error::{StatisticsError, pairs};

/// A rank correlation and how probable it would be of unrelated lists.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Correlation {
    /// The coefficient, in -1..=1: 1 where both lists are in the same order, -1 where one is in the other's reverse.
    pub coefficient: f64,
    /// The probability, two-sided, of a coefficient at least as far from 0 of unrelated lists. `None` where there are
    /// too few values for the test.
    pub p: Option<f64>,
}

/// The ranks of two lists that are to be correlated; `None` where one is constant, and so has no order.
pub(super) fn ranked(first: &[f64], second: &[f64]) -> Result<Option<[Ranks; 2]>, StatisticsError> {
    pairs(first, second)?;
    if first.len() < 2 {
        return Err(StatisticsError::TooFew { what: "values", found: first.len(), needed: 2 });
    }
    let ranks = [Ranks::of(first), Ranks::of(second)];
    Ok((!ranks.iter().any(Ranks::constant)).then_some(ranks))
}

/// A list of finite values by their order alone.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ranks {
    /// The rank of each value among the different ones, from 0, in the order of the list.
    pub(super) dense: Vec<u32>,
    /// How many values share each rank, in ascending order of rank.
    pub(super) shared_by: Vec<usize>,
}

impl Ranks {
    /// The ranks of `values`. 0 and -0 are equal.
    pub(super) fn of(values: &[f64]) -> Self {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
        let mut ranks = Self { dense: vec![0; values.len()], shared_by: Vec::new() };
        let mut before = None;
        for at in order {
            let value = values[at];
            match ranks.shared_by.last_mut() {
                Some(count) if before == Some(value) => *count += 1,
                _ => ranks.shared_by.push(1),
            }
            ranks.dense[at] = (ranks.shared_by.len() - 1) as u32;
            before = Some(value);
        }
        ranks
    }

    /// Whether the list has no order: all of its values are equal.
    fn constant(&self) -> bool {
        self.shared_by.len() < 2
    }

    /// Whether no two values are equal.
    pub(super) fn distinct(&self) -> bool {
        self.shared_by.len() == self.dense.len()
    }

    /// Twice each value's average rank less the mean rank, a whole number: `2 r - (n + 1)` with r from 1.
    pub(super) fn centred(&self) -> Vec<i64> {
        let mut below = 0;
        let mut of_rank = Vec::with_capacity(self.shared_by.len());
        for count in &self.shared_by {
            // The ranks below + 1 ..= below + count have the average below + (count + 1) / 2.
            of_rank.push((2 * below + count + 1) as i64 - (self.dense.len() + 1) as i64);
            below += count;
        }
        self.dense.iter().map(|rank| of_rank[*rank as usize]).collect()
    }

    /// The sum over groups of equal values of `f(t)`, t the group's size.
    pub(super) fn over_ties(&self, f: impl Fn(f64) -> f64) -> f64 {
        self.shared_by.iter().map(|count| f(*count as f64)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_values_share_a_rank_and_its_average() {
        let ranks = Ranks::of(&[5.0, -1.0, 5.0, 0.0, -0.0, 7.5]);
        assert_eq!(ranks.dense, [2, 0, 2, 1, 1, 3]);
        assert_eq!(ranks.shared_by, [1, 2, 2, 1]);
        // Average ranks 4.5, 1, 4.5, 2.5, 2.5, 6 less 3.5, twice.
        assert_eq!(ranks.centred(), [2, -5, 2, -2, -2, 5]);
        assert_eq!(ranks.over_ties(|t| t * (t - 1.0) / 2.0), 2.0);
        assert!(!ranks.constant() && !ranks.distinct());
        assert!(Ranks::of(&[3.0, 3.0]).constant() && Ranks::of(&[3.0, 2.0]).distinct());
    }

    proptest! {
        #[test]
        fn ranks_order_pairs_as_their_values_and_centred_ones_add_up_to_nothing(
            values in prop::collection::vec(-3i32..3, 1..20),
        ) {
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            let ranks = Ranks::of(&values);
            let centred = ranks.centred();
            prop_assert_eq!(centred.iter().sum::<i64>(), 0);
            prop_assert_eq!(ranks.shared_by.iter().sum::<usize>(), values.len());
            for a in 0..values.len() {
                for b in 0..values.len() {
                    prop_assert_eq!(values[a].partial_cmp(&values[b]), Some(ranks.dense[a].cmp(&ranks.dense[b])));
                    prop_assert_eq!(values[a].partial_cmp(&values[b]), Some(centred[a].cmp(&centred[b])));
                }
            }
        }
    }
}
