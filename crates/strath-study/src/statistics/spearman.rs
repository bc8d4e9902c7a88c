//! Spearman's rho: the correlation of two lists' ranks.

use super::distribution::student_two_sided;
use super::error::StatisticsError;
use super::rank::{Correlation, ranked};

/// Spearman's rho of two lists (Spearman 1904) with its two-sided p value, as `scipy.stats.spearmanr` by its defaults.
///
/// rho is Pearson's correlation of the average ranks, `sum(a b) / sqrt(sum(a^2) sum(b^2))` of ranks a and b less their
/// means. The p value is of `t = rho sqrt((n - 2) / (1 - rho^2))` by Student's distribution with n - 2 degrees of
/// freedom, an approximation that is poor below about ten values; two values have none. `None` where a list is
/// constant, and so has no order.
///
/// # Errors
/// [`StatisticsError`]: values that are not finite, lists of different lengths, fewer than two values.
pub fn spearman(first: &[f64], second: &[f64]) -> Result<Option<Correlation>, StatisticsError> {
    let Some([x, y]) = ranked(first, second)? else { return Ok(None) };
    let n = first.len();
    let (x, y) = (x.centred(), y.centred());
    // Of whole numbers, so that lists in one order have exactly 1.
    let product = |a: &[i64], b: &[i64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<i64>() as f64;
    let coefficient = product(&x, &y) / (product(&x, &x) * product(&y, &y)).sqrt();
    let degrees = n - 2;
    let p = (degrees > 0).then(|| {
        let t = coefficient * (degrees as f64 / ((1.0 + coefficient) * (1.0 - coefficient))).sqrt();
        student_two_sided(t, degrees)
    });
    Ok(Some(Correlation { coefficient, p }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(first: &[f64], second: &[f64], coefficient: f64, p: f64) {
        let found = spearman(first, second).unwrap().unwrap();
        assert!((found.coefficient - coefficient).abs() < 1e-12, "{found:?}, expected {coefficient}");
        assert!((found.p.unwrap() / p - 1.0).abs() < 1e-10, "{found:?}, expected {p}");
    }

    #[test]
    fn coefficients_and_p_values_are_scipys() {
        // scipy.stats.spearmanr(x, y)
        check(
            &[12.0, 2.0, 1.0, 12.0, 2.0],
            &[1.0, 4.0, 7.0, 1.0, 0.0],
            -0.540_738_070_435_875_2,
            0.346_714_613_976_886_8,
        );
        check(
            &[1.0, 2.0, 3.0, 4.0, 5.0],
            &[5.0, 6.0, 7.0, 8.0, 7.0],
            0.820_782_681_668_123_3,
            0.088_587_005_313_543_84,
        );
        // x = [i * i % 7 for i in range(40)], y = [i * i % 13 for i in range(40)]
        let squares = |modulus: u32| (0..40).map(|i| f64::from(i * i % modulus)).collect::<Vec<f64>>();
        check(&squares(7), &squares(13), 0.016_132_361_177_212_482, 0.921_296_302_300_962_8);
    }

    #[test]
    fn lists_in_one_order_have_exactly_one_and_no_doubt() {
        let rising: Vec<f64> = (0..9).map(f64::from).collect();
        let falling: Vec<f64> = rising.iter().map(|v| -v * v * v).collect();
        assert_eq!(spearman(&rising, &rising), Ok(Some(Correlation { coefficient: 1.0, p: Some(0.0) })));
        assert_eq!(spearman(&rising, &falling), Ok(Some(Correlation { coefficient: -1.0, p: Some(0.0) })));
    }

    #[test]
    fn two_values_have_a_coefficient_and_no_test_and_a_constant_neither() {
        assert_eq!(spearman(&[1.0, 2.0], &[5.0, 3.0]), Ok(Some(Correlation { coefficient: -1.0, p: None })));
        assert_eq!(spearman(&[1.0, 1.0, 1.0], &[1.0, 2.0, 3.0]), Ok(None));
        assert_eq!(spearman(&[], &[]), Err(StatisticsError::TooFew { what: "values", found: 0, needed: 2 }));
        assert!(matches!(spearman(&[1.0, 2.0], &[1.0]), Err(StatisticsError::Length { .. })));
    }

    proptest! {
        #[test]
        fn the_order_alone_counts(values in prop::collection::vec((-4i32..4, -4i32..4), 2..40)) {
            let (x, y): (Vec<f64>, Vec<f64>) = values.iter().map(|(a, b)| (f64::from(*a), f64::from(*b))).unzip();
            let found = spearman(&x, &y).unwrap();
            let bent: Vec<f64> = x.iter().map(|v| v.exp()).collect();
            let turned: Vec<f64> = y.iter().map(|v| -v).collect();
            prop_assert_eq!(spearman(&bent, &y).unwrap(), found);
            prop_assert_eq!(spearman(&y, &x).unwrap(), found);
            let back = spearman(&x, &turned).unwrap();
            prop_assert_eq!(back.map(|c| (-c.coefficient, c.p)), found.map(|c| (c.coefficient, c.p)));
            if let Some(found) = found {
                prop_assert!(found.coefficient.abs() <= 1.0, "{found:?}");
                prop_assert!(found.p.is_none_or(|p| (0.0..=1.0).contains(&p)), "{found:?}");
            }
        }
    }
}
