//! Several tests at once: Holm's step-down correction.

use super::error::{StatisticsError, probability};

/// The adjusted p values of a family of tests, in the order given (Holm 1979).
///
/// With the m tests' p values in ascending order, `adjusted_(i) = max over j <= i of min(1, (m - j + 1) p_(j))`: to
/// reject where the adjusted value is at most a keeps the probability of any wrong rejection at a or below, however the
/// tests depend on each other. `None` stands for a test that could not be made: it stays `None`, and does not count in
/// m.
///
/// # Errors
/// [`StatisticsError::Probability`]: a p value outside of 0..=1.
pub fn holm(p_values: &[Option<f64>]) -> Result<Vec<Option<f64>>, StatisticsError> {
    let mut order = Vec::new();
    for (at, p) in p_values.iter().enumerate() {
        if let Some(p) = *p {
            probability("the family of p values", at, p)?;
            order.push((p, at));
        }
    }
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut adjusted = vec![None; p_values.len()];
    let mut largest = 0.0f64;
    for (rank, (p, at)) in order.iter().enumerate() {
        let left = order.len() - rank;
        largest = largest.max((left as f64 * p).min(1.0));
        adjusted[*at] = Some(largest);
    }
    Ok(adjusted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_family_is_adjusted_as_statsmodels_does() {
        // statsmodels.stats.multitest.multipletests([0.01, 0.04, 0.03, 0.005, 0.6], method="holm")[1]
        let found = holm(&[0.01, 0.04, 0.03, 0.005, 0.6].map(Some)).unwrap();
        for (found, expected) in found.into_iter().zip([0.04, 0.09, 0.09, 0.025, 0.6]) {
            assert!((found.unwrap() - expected).abs() < 1e-15, "{found:?} {expected}");
        }
    }

    #[test]
    fn tests_that_were_not_made_stay_so_and_do_not_count() {
        assert_eq!(holm(&[None, Some(0.25), None, Some(0.5)]), Ok(vec![None, Some(0.5), None, Some(0.5)]));
        assert_eq!(holm(&[None]), Ok(vec![None]));
        assert_eq!(holm(&[]), Ok(vec![]));
    }

    #[test]
    fn what_is_no_probability_is_refused_with_its_position() {
        for wrong in [-0.1, 1.5, f64::INFINITY] {
            let expected = StatisticsError::Probability { what: "the family of p values", at: 1, found: wrong };
            assert_eq!(holm(&[None, Some(wrong)]), Err(expected));
        }
        assert!(holm(&[Some(f64::NAN)]).is_err());
    }

    proptest! {
        #[test]
        fn adjusted_values_keep_the_order_and_lie_between_p_and_bonferronis(
            p_values in prop::collection::vec(prop::option::of(0.0f64..=1.0), 0..12),
        ) {
            let adjusted = holm(&p_values).unwrap();
            let count = p_values.iter().flatten().count() as f64;
            for (p, a) in p_values.iter().zip(&adjusted) {
                prop_assert_eq!(p.is_some(), a.is_some());
                if let (Some(p), Some(a)) = (p, a) {
                    prop_assert!(p <= a && *a <= (count * p).min(1.0), "{p} {a}");
                }
            }
            let both: Vec<(f64, f64)> = p_values.iter().zip(&adjusted).filter_map(|(p, a)| p.zip(*a)).collect();
            for (p, a) in &both {
                for (q, b) in &both {
                    prop_assert!(p > q || a <= b, "{p} {q} became {a} {b}");
                }
            }
        }

        #[test]
        fn the_order_of_the_family_does_not_matter(p_values in prop::collection::vec(0.0f64..=1.0, 0..12)) {
            let mut there: Vec<Option<f64>> = p_values.into_iter().map(Some).collect();
            let mut expected = holm(&there).unwrap();
            there.reverse();
            expected.reverse();
            prop_assert_eq!(holm(&there).unwrap(), expected);
        }
    }
}
