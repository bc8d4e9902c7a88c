//! The predictive power of a measure that says nothing: what an information is to be compared with.

use strath_core::random::{Purpose, Stream};

use super::{Convention, Model, least, pairs};
use crate::statistics::error::StatisticsError;

/// Informations that differ by less differ by rounding: the same cells in another order.
const ROUNDING: f64 = 1e-12;

/// What a measure's information would be if its values were other models'.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Null {
    /// The measure's own information, [`super::Information::least`].
    pub observed: f64,
    /// How many redistributions were drawn.
    pub count: usize,
    /// The mean of their informations: how much of the observed one is the estimator's bias.
    pub mean: f64,
    /// The 95th percentile of their informations, between two of them by linear interpolation.
    pub percentile_95: f64,
    /// The probability of an information at least as large where the measure says nothing:
    /// `(those at least as large + 1) / (count + 1)`.
    pub p: f64,
}

/// The permutation null of [`super::information`]: the measure's values are dealt out to the models anew `count` times.
///
/// Gaps and hyper-parameters stay where they are, and the minimum over subsets is taken of each redistribution for
/// itself. Every redistribution is equally likely, those that the data show included, so that p is exact up to the
/// number drawn (Phipson and Smyth 2010); at the least it is `1 / (count + 1)`. The k-th is the permutation of
/// [`Stream`] for [`Purpose::Null`] with draw k under `seed`: it does not depend on `count` nor on the convention. What
/// is tested is that the measure is unrelated to gap *and* hyper-parameters; one that follows two hyper-parameters and
/// nothing else has an information of 0, and is not told from the null. `None` where no subset has entropy. Takes time
/// of count n^2 for n models.
///
/// # Errors
/// [`StatisticsError`]: what [`super::information`] refuses, a count of 0.
pub fn permutation_null(
    models: &[Model],
    convention: Convention,
    seed: u64,
    count: usize,
) -> Result<Option<Null>, StatisticsError> {
    let pairs = pairs(models, convention)?;
    if count == 0 {
        return Err(StatisticsError::TooFew { what: "redistributions", found: 0, needed: 1 });
    }
    let Some(observed) = least(&pairs.conditioned(&pairs.measures)) else {
        return Ok(None);
    };
    let redistributed = |draw| {
        let order = Stream::new(seed, Purpose::Null { draw }).permutation(models.len());
        let measures: Vec<u32> = order.into_iter().map(|at| pairs.measures[at as usize]).collect();
        // Which subsets have entropy is the gaps' alone: where the observed minimum exists, so does this one.
        least(&pairs.conditioned(&measures)).unwrap_or(observed)
    };
    let mut informations: Vec<f64> = (0..count as u64).map(redistributed).collect();
    informations.sort_by(f64::total_cmp);
    let as_large = informations.iter().filter(|information| **information >= observed - ROUNDING).count();
    Ok(Some(Null {
        observed,
        count,
        mean: informations.iter().sum::<f64>() / count as f64,
        percentile_95: percentile(&informations, 0.95),
        p: (as_large + 1) as f64 / (count + 1) as f64,
    }))
}

/// The value that a `share` of `sorted` lies below, linear between the two nearest.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let at = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    below + (above - below) * at.fract()
}

#[cfg(test)]
mod tests {
    use super::super::{information, tests::model};
    use super::*;

    fn study(measure: impl Fn(u32, f64) -> f64) -> Vec<Model> {
        let mut stream = Stream::new(5, Purpose::Probe);
        let one = |at: u32| {
            let gap = f64::from(stream.next_u32());
            model(measure(at, gap), gap, &[at % 3, at / 3 % 2])
        };
        (0..36).map(one).collect()
    }

    #[test]
    fn a_measure_that_says_all_beats_every_redistribution() {
        for convention in [Convention::Paper, Convention::Competition] {
            let models = study(|_, gap| gap);
            let null = permutation_null(&models, convention, 1, 99).unwrap().unwrap();
            assert_eq!((null.count, null.p), (99, 0.01));
            assert_eq!(Some(null.observed), information(&models, convention).unwrap().least);
            assert!(0.0 < null.mean && null.mean < null.percentile_95 && null.percentile_95 < 0.5, "{null:?}");
        }
    }

    #[test]
    fn a_measure_that_says_nothing_is_one_of_its_redistributions() {
        // Scattered by a multiplication that knows nothing of the gap.
        let found: Vec<f64> = (1..=20)
            .map(|k| {
                let models = study(|at, _| f64::from((at + 1) * (2 * k + 1) * 7919 % 101));
                permutation_null(&models, Convention::Paper, 2, 99).unwrap().unwrap().p
            })
            .collect();
        let mean = found.iter().sum::<f64>() / 20.0;
        assert!((0.3..0.7).contains(&mean), "{mean} of {found:?}");
        let constant = permutation_null(&study(|_, _| 1.0), Convention::Paper, 2, 9).unwrap().unwrap();
        assert_eq!(constant, Null { observed: 0.0, count: 9, mean: 0.0, percentile_95: 0.0, p: 1.0 });
    }

    #[test]
    fn the_seed_alone_decides_what_is_drawn() {
        let models = study(|at, _| f64::from(at * 29 % 36));
        let at = |seed| permutation_null(&models, Convention::Competition, seed, 50).unwrap().unwrap();
        assert_eq!(at(1), at(1));
        assert_ne!(at(1).mean, at(2).mean);
    }

    #[test]
    fn without_entropy_or_draws_there_is_no_null() {
        let settled: Vec<Model> = study(|at, _| f64::from(at)).into_iter().map(|m| Model { gap: 0.0, ..m }).collect();
        assert_eq!(permutation_null(&settled, Convention::Paper, 1, 9), Ok(None));
        let none = StatisticsError::TooFew { what: "redistributions", found: 0, needed: 1 };
        assert_eq!(permutation_null(&study(|_, gap| gap), Convention::Paper, 1, 0), Err(none));
    }

    #[test]
    fn percentiles_lie_between_the_two_nearest() {
        assert_eq!(percentile(&[1.0, 2.0, 4.0], 0.75), 3.0);
        assert_eq!(percentile(&[1.0, 2.0, 4.0], 1.0), 4.0);
        assert_eq!(percentile(&[5.0], 0.95), 5.0);
    }
}
