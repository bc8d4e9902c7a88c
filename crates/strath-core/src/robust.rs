//! What a few measurements come to when some of them cannot be trusted.

/// The median of measurements and how far they lie from it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Half of the measurements are at most this, half at least; of an even number the upper of the two in the middle.
    pub median: f64,
    /// The median of their distances to it (median absolute deviation, MAD).
    pub mad: f64,
    /// How many there are.
    pub count: usize,
}

/// Of normally distributed measurements the standard deviation over the MAD.
const NORMAL: f64 = 1.4826;
/// Of normally distributed measurements the standard error of the median, in standard deviations over the root of their number:
/// `sqrt(pi / 2)`.
const OF_MEDIAN: f64 = 1.2533;

impl Spread {
    /// That of some measurements; `None` where there are none. A measurement that is no number counts as the largest.
    pub fn of(measurements: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = measurements.into_iter().collect();
        let count = values.len();
        let median = middle(&mut values)?;
        let mut distances: Vec<f64> = values.iter().map(|value| (value - median).abs()).collect();
        Some(Self { median, mad: middle(&mut distances)?, count })
    }

    /// The standard error of the median, relative to it.
    pub fn relative_error(&self) -> f64 {
        OF_MEDIAN * NORMAL * self.mad / self.median / (self.count as f64).sqrt()
    }
}

fn middle(values: &mut [f64]) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wild_measurement_moves_neither_median_nor_spread_far() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0]), Some(Spread { median: 3.0, mad: 0.0, count: 1 }));
        assert_eq!(Spread::of([1.0, 2.0, 3.0, 4.0, 1e9]), Some(Spread { median: 3.0, mad: 1.0, count: 5 }));
        assert_eq!(Spread::of([4.0, 2.0]), Some(Spread { median: 4.0, mad: 2.0, count: 2 }));
        let spread = Spread::of([9.0, 10.0, 11.0, f64::NAN]).unwrap();
        assert_eq!((spread.median, spread.mad), (11.0, 2.0));
    }

    #[test]
    fn the_error_falls_with_the_root_of_their_number() {
        let error = |count: usize| Spread { median: 2.0, mad: 0.1, count }.relative_error();
        assert!((error(1) - 0.0929).abs() < 1e-4, "{}", error(1));
        assert!((error(1) / error(16) - 4.0).abs() < 1e-12);
    }
}
