//! Paired equivalence: that two treatments differ by less than matters.

use super::distribution::student_above;
use super::error::StatisticsError;
use super::paired::paired;

/// How well paired measurements say that they are equivalent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Equivalence {
    /// How many pairs there are.
    pub count: usize,
    /// The mean of first - second, in the unit of the values.
    pub difference: f64,
    /// The standard error of that mean, in the unit of the values. 0 where all differences are equal.
    pub error: f64,
    /// Degrees of freedom: one less than there are pairs.
    pub degrees: usize,
    /// The margin that was stated, in the unit of the values.
    pub margin: f64,
    /// The two tests. `None` where all differences are equal: there is no spread to test them against.
    pub tests: Option<OneSided>,
}

/// The p values of the two one-sided tests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OneSided {
    /// Of the hypothesis that the difference is -margin or less: small where the first list is not that far below.
    pub not_below: f64,
    /// Of the hypothesis that the difference is margin or more: small where the first list is not that far above.
    pub not_above: f64,
    /// The larger of the two, the procedure's result: at most a says, at the level a, that the two differ by less than
    /// the margin.
    pub p: f64,
}

/// Two one-sided t tests of paired equivalence at a stated `margin` (Schuirmann 1987), of the same seeds in the same
/// order.
///
/// With `d = mean(first - second)` and its standard error s: `not_below = P(T > (d + margin) / s)` and
/// `not_above = P(T < (d - margin) / s)`, T of n - 1 degrees of freedom; `p = max` of both. The margin is stated before
/// the data are seen. A p of at most 5 % is the same as a 90 % interval of the difference that lies within the margin.
/// Differences that [`paired`] takes as equal are not tested.
///
/// # Errors
/// [`StatisticsError`]: a margin that is not above 0, and what [`paired`] refuses.
pub fn equivalence(first: &[f64], second: &[f64], margin: f64) -> Result<Equivalence, StatisticsError> {
    if !margin.is_finite() || margin <= 0.0 {
        return Err(StatisticsError::Margin { found: margin });
    }
    let found = paired(first, second)?;
    let tests = found.test.map(|_| {
        let not_below = student_above((found.difference + margin) / found.error, found.degrees);
        let not_above = student_above((margin - found.difference) / found.error, found.degrees);
        OneSided { not_below, not_above, p: not_below.max(not_above) }
    });
    let (count, difference, error, degrees) = (found.count, found.difference, found.error, found.degrees);
    Ok(Equivalence { count, difference, error, degrees, margin, tests })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_few_pairs_have_statsmodels_tests() {
        // statsmodels.stats.weightstats.ttost_paired(a, b, -0.1, 0.1)
        let (a, b) = ([3.52, 3.41, 3.66, 3.47, 3.5], [3.49, 3.46, 3.6, 3.5, 3.47]);
        let found = equivalence(&a, &b, 0.1).unwrap();
        let tests = found.tests.unwrap();
        assert!((found.difference - 0.008).abs() < 1e-15 && found.degrees == 4);
        for (found, expected) in
            [(tests.not_below, 0.003_159_464_671_298_102_5), (tests.not_above, 0.005_546_232_163_094_722_5)]
        {
            assert!((found / expected - 1.0).abs() < 1e-10, "{found} {expected}");
        }
        assert_eq!(tests.p, tests.not_above);
    }

    #[test]
    fn a_margin_is_above_zero_and_equal_differences_are_not_tested() {
        for margin in [0.0, -0.1, f64::INFINITY] {
            assert_eq!(equivalence(&[1.0, 2.0], &[1.0, 3.0], margin), Err(StatisticsError::Margin { found: margin }));
        }
        assert!(equivalence(&[1.0, 2.0], &[1.0, 3.0], f64::NAN).is_err());
        let found = equivalence(&[1.5, 2.5], &[1.0, 2.0], 0.1).unwrap();
        assert_eq!((found.tests, found.difference, found.error), (None, 0.5, 0.0));
        assert!(matches!(equivalence(&[1.0], &[1.0], 0.1), Err(StatisticsError::TooFew { .. })));
    }

    proptest! {
        #[test]
        fn a_wider_margin_is_met_more_easily_and_exchanged_lists_exchange_the_tests(
            pairs in prop::collection::vec((-1.0f64..1.0, -1.0f64..1.0), 2..12),
            (margin, more) in (0.01f64..1.0, 0.0f64..1.0),
        ) {
            let (first, second): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
            let at = |margin| equivalence(&first, &second, margin).unwrap().tests;
            if let (Some(narrow), Some(wide)) = (at(margin), at(margin + more)) {
                prop_assert!(wide.p <= narrow.p * (1.0 + 1e-12), "{} {}", wide.p, narrow.p);
                let back = equivalence(&second, &first, margin).unwrap().tests.unwrap();
                prop_assert_eq!((back.not_below, back.not_above), (narrow.not_above, narrow.not_below));
                // Not within the margin: no evidence for it.
                let difference = equivalence(&first, &second, margin).unwrap().difference.abs();
                prop_assert!(difference < margin || narrow.p >= 0.5 - 1e-12);
            }
        }
    }
}
