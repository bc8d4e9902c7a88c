//! The paired t test: the same seeds under two treatments.

use super::describe::{Interval, moments, student_interval};
use super::distribution::student_two_sided;
use super::error::{StatisticsError, pairs};

/// How two lists of paired measurements differ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Paired {
    /// How many pairs there are.
    pub count: usize,
    /// The mean of first - second, in the unit of the values.
    pub difference: f64,
    /// The standard error of that mean, in the unit of the values. 0 where all differences are equal.
    pub error: f64,
    /// Degrees of freedom: one less than there are pairs.
    pub degrees: usize,
    /// The test of a difference of 0. `None` where all differences are equal: there is no spread to test them against.
    pub test: Option<Test>,
    /// The 95 % interval of the mean difference, in the unit of the values. A point where all differences are equal.
    pub interval: Interval,
}

/// A t test's outcome.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Test {
    /// The mean difference in standard errors.
    pub t: f64,
    /// The probability, two-sided, of a t at least as far from 0 where there is no difference.
    pub p: f64,
}

/// The paired t test (Student 1908) of `first` against `second`, of the same seeds in the same order.
///
/// With `d_i = first_i - second_i` and n pairs: `t = mean(d) / error`, `error = deviation(d) / sqrt(n)`,
/// `p = P(|T| > |t|)` of Student's distribution with n - 1 degrees of freedom, `interval = mean(d) -+ t_0.975 error`.
/// Exact for independent, normal differences. Differences count as equal where they lie no further from their mean than
/// rounding moves them, four units in the last place of the largest value: 0.3 - 0.1 and 0.4 - 0.2 are equal.
///
/// # Errors
/// [`StatisticsError`]: values that are not finite, lists of different lengths, fewer than two pairs.
pub fn paired(first: &[f64], second: &[f64]) -> Result<Paired, StatisticsError> {
    pairs(first, second)?;
    let count = first.len();
    if count < 2 {
        return Err(StatisticsError::TooFew { what: "pairs", found: count, needed: 2 });
    }
    let differences: Vec<f64> = first.iter().zip(second).map(|(a, b)| a - b).collect();
    let (difference, deviation) = moments(&differences);
    let largest = first.iter().chain(second).fold(0.0, |largest: f64, v| largest.max(v.abs()));
    let rounding = 4.0 * f64::EPSILON * largest;
    let equal = differences.iter().all(|d| (d - difference).abs() <= rounding);
    let error = deviation.filter(|_| !equal).unwrap_or(0.0) / (count as f64).sqrt();
    let degrees = count - 1;
    let test = (!equal).then(|| {
        let t = difference / error;
        Test { t, p: student_two_sided(t, degrees) }
    });
    Ok(Paired { count, difference, error, degrees, test, interval: student_interval(difference, error, degrees) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-10 * expected.abs(), "found {found}, expected {expected}");
    }

    #[test]
    fn a_few_pairs_have_scipys_test() {
        // scipy.stats.ttest_rel(a, b), its confidence_interval(0.95) and scipy.stats.sem(a - b)
        let (a, b) = ([2.74, 2.69, 2.81, 2.7, 2.77], [3.52, 3.41, 3.66, 3.47, 3.5]);
        let found = paired(&a, &b).unwrap();
        let test = found.test.unwrap();
        assert_eq!((found.count, found.degrees), (5, 4));
        close(found.difference, -0.77);
        close(found.error, 0.023_021_728_866_442_67);
        close(test.t, -33.446_662_692_756_355);
        close(test.p, 4.766_025_642_464_858e-6);
        close(found.interval.low, -0.833_918_566_424_425_5);
        close(found.interval.high, -0.706_081_433_575_574_5);
    }

    #[test]
    fn equal_differences_are_told_apart_from_a_test() {
        for (first, second, difference) in [([0.3, 0.4], [0.1, 0.2], 0.2), ([1.0, 2.0], [1.0, 2.0], 0.0)] {
            let found = paired(&first, &second).unwrap();
            assert_eq!((found.test, found.error), (None, 0.0));
            assert!((found.difference - difference).abs() < 1e-15);
            assert_eq!((found.interval.low, found.interval.high), (found.difference, found.difference));
        }
        assert!(paired(&[1e-200, 2e-200], &[0.0, 0.0]).unwrap().test.is_some());
    }

    #[test]
    fn one_pair_or_one_without_its_other_is_refused() {
        let few = StatisticsError::TooFew { what: "pairs", found: 1, needed: 2 };
        assert_eq!(paired(&[1.0], &[2.0]), Err(few));
        assert!(matches!(paired(&[1.0, 2.0], &[2.0]), Err(StatisticsError::Length { found: 1, expected: 2, .. })));
        assert!(matches!(paired(&[1.0, f64::NAN], &[2.0, 3.0]), Err(StatisticsError::Value { at: 1, .. })));
    }

    proptest! {
        #[test]
        fn the_lists_exchanged_turn_the_sign_and_keep_the_p_value(
            pairs in prop::collection::vec((-1e3f64..1e3, -1e3f64..1e3), 2..12),
        ) {
            let (first, second): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
            let (there, back) = (paired(&first, &second).unwrap(), paired(&second, &first).unwrap());
            prop_assert_eq!(there.difference, -back.difference);
            prop_assert_eq!(there.test.map(|test| test.p), back.test.map(|test| test.p));
            prop_assert_eq!(there.interval.low, -back.interval.high);
            // The interval holds 0 where the test does not reject at 5 %.
            if let Some(test) = there.test && (test.p - 0.05).abs() > 1e-9 {
                let holds = there.interval.low <= 0.0 && 0.0 <= there.interval.high;
                prop_assert_eq!(holds, test.p > 0.05);
            }
        }

        #[test]
        fn any_finite_pairs_are_tested_or_equal(
            pairs in prop::collection::vec((-1e300f64..1e300, -1e300f64..1e300), 2..12), power in -320..1i32,
        ) {
            let scaled = |v: f64| v * 10f64.powi(power);
            let (first, second): (Vec<f64>, Vec<f64>) = pairs.into_iter().map(|(a, b)| (scaled(a), scaled(b))).unzip();
            if let Some(test) = paired(&first, &second).unwrap().test {
                prop_assert!(!test.t.is_nan() && (0.0..=1.0).contains(&test.p), "{test:?}");
            }
        }
    }
}
