//! Mean and spread of repeated measurements.

use super::distribution::student_95;
use super::error::{StatisticsError, finite};

/// The two ends of a 95 % interval, in the unit of what it is of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// What is said of a list of measurements.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Description {
    /// How many values there are.
    pub count: usize,
    /// Their mean, in their unit. `None` of no values.
    pub mean: Option<f64>,
    /// How far they lie apart. `None` of fewer than two.
    pub spread: Option<Spread>,
}

/// How far measurements lie apart, and how well their mean is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The standard deviation of one value, with n - 1 in the denominator, in the values' unit.
    pub deviation: f64,
    /// The standard error of the mean, in the values' unit.
    pub error: f64,
    /// The 95 % interval of the mean, in the values' unit.
    pub interval: Interval,
}

/// Mean, standard deviation, standard error and 95 % interval of the mean of `values` (Student 1908).
///
/// `mean = sum(v) / n`, `deviation = sqrt(sum((v - mean)^2) / (n - 1))`, `error = deviation / sqrt(n)`,
/// `interval = mean -+ t error` with t the quantile at 0.975 of Student's distribution with n - 1 degrees of freedom.
/// The interval is exact for independent values of one normal distribution. Fewer than two values are no error: what
/// they do not have is `None`. Equal values have a spread of exactly 0.
///
/// # Errors
/// [`StatisticsError::Value`]: a value that is not finite.
pub fn describe(values: &[f64]) -> Result<Description, StatisticsError> {
    finite("the list", values.iter().copied())?;
    let count = values.len();
    if count == 0 {
        return Ok(Description { count, mean: None, spread: None });
    }
    let (mean, deviation) = moments(values);
    let spread = deviation.map(|deviation| {
        let error = deviation / (count as f64).sqrt();
        Spread { deviation, error, interval: student_interval(mean, error, count - 1) }
    });
    Ok(Description { count, mean: Some(mean), spread })
}

/// `centre -+ t error`, with t of `degrees` of freedom.
pub(super) fn student_interval(centre: f64, error: f64, degrees: usize) -> Interval {
    let half = student_95(degrees) * error;
    Interval { low: centre - half, high: centre + half }
}

/// Mean and, of more than one value, standard deviation (n - 1) of at least one value.
pub(super) fn moments(values: &[f64]) -> (f64, Option<f64>) {
    let count = values.len() as f64;
    let rough = values.iter().sum::<f64>() / count;
    // What the rounded sum lost: the mean of equal values is their value.
    let mean = rough + values.iter().map(|v| v - rough).sum::<f64>() / count;
    if values.len() < 2 {
        return (mean, None);
    }
    // In units of the largest deviation, of which no square over- or underflows.
    let largest = values.iter().map(|v| (v - mean).abs()).fold(0.0, f64::max);
    if largest == 0.0 {
        return (mean, Some(0.0));
    }
    let squares = values.iter().map(|v| ((v - mean) / largest).powi(2)).sum::<f64>();
    (mean, Some(largest * (squares / (count - 1.0)).sqrt()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-10 * expected.abs(), "found {found}, expected {expected}");
    }

    #[test]
    fn a_few_values_have_scipys_mean_and_interval() {
        // v = [3.52, 3.41, 3.66, 3.47, 3.5]; np.mean(v), np.std(v, ddof=1), scipy.stats.sem(v),
        // scipy.stats.t.interval(0.95, 4, np.mean(v), scipy.stats.sem(v))
        let found = describe(&[3.52, 3.41, 3.66, 3.47, 3.5]).unwrap();
        let spread = found.spread.unwrap();
        assert_eq!(found.count, 5);
        close(found.mean.unwrap(), 3.512);
        close(spread.deviation, 0.092_574_294_488_264_93);
        close(spread.error, 0.041_400_483_088_968_9);
        close(spread.interval.low, 3.397_053_831_374_808_7);
        close(spread.interval.high, 3.626_946_168_625_192_3);
    }

    #[test]
    fn too_few_values_say_so_and_equal_ones_have_no_spread() {
        assert_eq!(describe(&[]), Ok(Description { count: 0, mean: None, spread: None }));
        assert_eq!(describe(&[2.5]), Ok(Description { count: 1, mean: Some(2.5), spread: None }));
        let none = Spread { deviation: 0.0, error: 0.0, interval: Interval { low: 0.1, high: 0.1 } };
        assert_eq!(describe(&[0.1; 3]), Ok(Description { count: 3, mean: Some(0.1), spread: Some(none) }));
        assert!(matches!(describe(&[1.0, f64::NAN]), Err(StatisticsError::Value { at: 1, .. })));
    }

    proptest! {
        #[test]
        fn any_finite_values_have_a_mean_among_them_and_a_finite_spread(
            values in prop::collection::vec(-1e300f64..1e300, 2..20), power in -300..1i32,
        ) {
            let values: Vec<f64> = values.iter().map(|v| v * 10f64.powi(power)).collect();
            let found = describe(&values).unwrap();
            let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
            let slack = 1e-15 * (high - low);
            let mean = found.mean.unwrap();
            prop_assert!(low - slack <= mean && mean <= high + slack, "{low} {mean} {high}");
            prop_assert!(found.spread.unwrap().deviation.is_finite());
        }

        #[test]
        fn a_shift_moves_the_mean_alone_and_a_scale_scales_all(
            values in prop::collection::vec(-1.0f64..1.0, 2..20), shift in -1.0f64..1.0, scale in 0.1f64..10.0,
        ) {
            let moved: Vec<f64> = values.iter().map(|v| scale * v + shift).collect();
            let (was, is) = (describe(&values).unwrap(), describe(&moved).unwrap());
            prop_assert!((is.mean.unwrap() - scale * was.mean.unwrap() - shift).abs() < 1e-13);
            let (was, is) = (was.spread.unwrap(), is.spread.unwrap());
            prop_assert!((is.deviation - scale * was.deviation).abs() < 1e-12);
            prop_assert!((is.error - is.deviation / (values.len() as f64).sqrt()).abs() < 1e-15);
            prop_assert!((is.interval.low - scale * was.interval.low - shift).abs() < 1e-10);
        }
    }
}
