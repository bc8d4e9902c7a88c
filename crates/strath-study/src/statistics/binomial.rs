//! How well a test error is known that was measured on so many examples.

use super::describe::Interval;
use super::distribution::NORMAL_95;
use super::error::{StatisticsError, probability};

/// A share of examples, and how well it stands for that of all there could be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Proportion {
    /// The share measured, in 0..=1.
    pub share: f64,
    /// Its standard error. 0 where no example or every example counts, which says nothing: see the interval.
    pub error: f64,
    /// Wilson's 95 % interval, within 0..=1.
    pub interval: Interval,
}

/// Standard error and 95 % interval of a test error of `share` (in 0..=1, not per cent) measured on `examples`.
///
/// `error = sqrt(p (1 - p) / n)`. The interval is Wilson's (1927), of every p that a normal test at 5 % does not reject:
/// `(p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)` with z = 1.96. Both are of examples drawn
/// independently and one model: two models on the same examples differ by less, and seeds by something else.
///
/// # Errors
/// [`StatisticsError`]: a share outside of 0..=1, no examples.
pub fn binomial(share: f64, examples: u64) -> Result<Proportion, StatisticsError> {
    probability("the share", 0, share)?;
    if examples == 0 {
        return Err(StatisticsError::TooFew { what: "examples", found: 0, needed: 1 });
    }
    let n = examples as f64;
    let variance = share * (1.0 - share) / n;
    let z2 = NORMAL_95 * NORMAL_95;
    let half = (z2 * variance + (z2 / n).powi(2) / 4.0).sqrt();
    let high = ((share + z2 / n / 2.0 + half) / (1.0 + z2 / n)).min(1.0);
    // The product of the two ends is p^2 / (1 + z^2 / n); their difference cancels where p is small.
    let low = share * share / (1.0 + z2 / n) / high;
    Ok(Proportion { share, error: variance.sqrt(), interval: Interval { low, high } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn intervals_are_statsmodels() {
        // statsmodels.stats.proportion.proportion_confint(round(p * n), n, method="wilson")
        let expected = [
            (0.035, 10_000, 0.031_572_809_892_695_966, 0.038_784_308_592_033_26),
            (0.0, 100, 0.0, 0.036_993_498_206_985_69),
            (1.0, 100, 0.963_006_501_793_014_3, 1.0),
            (0.25, 4, 0.045_587_260_809_700_6, 0.699_358_157_417_598_2),
        ];
        for (share, examples, low, high) in expected {
            let found = binomial(share, examples).unwrap().interval;
            assert!((found.low - low).abs() < 1e-12 && (found.high - high).abs() < 1e-12, "{found:?} {low} {high}");
        }
    }

    #[test]
    fn the_standard_error_is_largest_at_one_half_and_nothing_at_the_ends() {
        assert_eq!(binomial(0.5, 100).unwrap().error, 0.05);
        assert!((binomial(0.035, 10_000).unwrap().error - 0.001_837_797_594_948_910_8).abs() < 1e-16);
        assert_eq!(binomial(0.0, 10).unwrap().error, 0.0);
        assert_eq!(binomial(1.0, 10).unwrap().error, 0.0);
    }

    #[test]
    fn a_percentage_and_no_examples_are_refused() {
        assert!(matches!(binomial(3.5, 100), Err(StatisticsError::Probability { .. })));
        assert!(binomial(f64::NAN, 100).is_err());
        assert_eq!(binomial(0.5, 0), Err(StatisticsError::TooFew { what: "examples", found: 0, needed: 1 }));
    }

    proptest! {
        #[test]
        fn the_interval_holds_the_share_and_turns_with_it(share in 0.0f64..=1.0, examples in 1u64..100_000) {
            let found = binomial(share, examples).unwrap().interval;
            prop_assert!(0.0 <= found.low && found.low <= share + 1e-15);
            prop_assert!(share <= found.high + 1e-15 && found.high <= 1.0);
            let turned = binomial(1.0 - share, examples).unwrap().interval;
            prop_assert!((found.low - (1.0 - turned.high)).abs() < 1e-12);
            prop_assert!((found.high - (1.0 - turned.low)).abs() < 1e-12);
            // Each end is a share of which the one measured lies 1.96 standard errors away.
            for end in [found.low, found.high].into_iter().filter(|end| (1e-6..1.0 - 1e-6).contains(end)) {
                let distance = (share - end).abs() / (end * (1.0 - end) / examples as f64).sqrt();
                prop_assert!((distance - NORMAL_95).abs() < 1e-6, "{distance}");
            }
        }
    }
}
