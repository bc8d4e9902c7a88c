//! Means and variances of the channels, in one pass.

use crate::columns::{PIECE, repeated, totals};
use crate::isa::Isa;
use crate::vectorised::vectorised;

/// Mean and variance of each channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// Means.
    pub mean: Vec<f64>,
    /// Biased variances: over the number of rows.
    pub variance: Vec<f64>,
}

impl Moments {
    /// Unbiased variances, over the number of rows less one, as running variances are made of.
    pub fn unbiased(&self, rows: usize) -> Vec<f64> {
        let rows = rows as f64;
        self.variance.iter().map(|v| v * rows / (rows - 1.0)).collect()
    }
}

/// Rows whose mean the values are taken relative to.
const SAMPLE: usize = 16;

/// Mean and variance of each channel of x [rows, channels].
///
/// One pass: with r the mean of 16 rows spread over x, `d = x - r`, `mean = r + mean(d)` and
/// `variance = mean(d^2) - mean(d)^2`; since r is near the mean, a large mean costs no digits. Sums are taken in f32 over
/// 64 rows of several hundred values, four of them at a time, then folded into f64; such pieces are added in their order. Bits
/// depend neither on the number of threads nor on the instruction set.
///
/// # Panics
/// Where x is no multiple of the channels.
pub fn moments(channels: usize, x: &[f32]) -> Moments {
    moments_by(Isa::active(), channels, x)
}

fn moments_by(isa: Isa, channels: usize, x: &[f32]) -> Moments {
    assert!(channels > 0 && x.len().is_multiple_of(channels), "x is rows x channels");
    let rows = x.len() / channels;
    let near = sample_mean(channels, x);
    let totals = sums(isa, &near, x);
    let moment = |c: usize| {
        let (mean, square) = (totals[c] / rows as f64, totals[channels + c] / rows as f64);
        // Rounding must not make the variance of constants negative; NaN stays NaN.
        let variance = square - mean * mean;
        (f64::from(near[c]) + mean, if variance < 0.0 { 0.0 } else { variance })
    };
    let (mean, variance) = (0..channels).map(moment).unzip();
    Moments { mean, variance }
}

/// Of each channel of x [rows, channels] the sums of `d = x - near` and of its squares, [2, channels].
pub(crate) fn sums(isa: Isa, near: &[f32], x: &[f32]) -> Vec<f64> {
    let shift = repeated(near);
    totals(near.len(), x.chunks(shift.len() * PIECE), |x, [sums, squares]| add(isa, &shift, x, sums, squares))
}

/// The mean of up to [`SAMPLE`] rows spread over x.
pub(crate) fn sample_mean(channels: usize, x: &[f32]) -> Vec<f32> {
    let rows = x.len() / channels;
    let count = SAMPLE.min(rows);
    let mut sums = vec![0.0; channels];
    for k in 0..count {
        let row = &x[k * rows / count * channels..][..channels];
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    sums.iter().map(|sum| (sum / count.max(1) as f64) as f32).collect()
}

vectorised! {
    fn add(shift: &[f32], x: &[f32], sums: &mut [f32], squares: &mut [f32]) {
        let lanes = shift.len();
        let (sums, squares) = (&mut sums[..lanes], &mut squares[..lanes]);
        let mut fours = x.chunks_exact(4 * lanes);
        for four in &mut fours {
            let [a, b, c, d] = [0, 1, 2, 3].map(|k| &four[k * lanes..][..lanes]);
            for lane in 0..lanes {
                let shift = shift[lane];
                let (a, b, c, d) = (a[lane] - shift, b[lane] - shift, c[lane] - shift, d[lane] - shift);
                sums[lane] += (a + b) + (c + d);
                squares[lane] += (a * a + b * b) + (c * c + d * d);
            }
        }
        for x in fours.remainder().chunks(lanes) {
            for (lane, x) in x.iter().enumerate() {
                let x = x - shift[lane];
                sums[lane] += x;
                squares[lane] += x * x;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::SIZES;
    use super::*;
    use crate::product::tests::values;
    use crate::threads::tests::same_bits;
    use crate::vectorised::tests::same_bits_by_every_isa;

    fn in_float64(channels: usize, x: &[f32]) -> Moments {
        let rows = (x.len() / channels) as f64;
        let of = |c: usize| x.iter().skip(c).step_by(channels).map(|v| f64::from(*v));
        let mean: Vec<f64> = (0..channels).map(|c| of(c).sum::<f64>() / rows).collect();
        let variance = (0..channels).map(|c| of(c).map(|v| (v - mean[c]).powi(2)).sum::<f64>() / rows).collect();
        Moments { mean, variance }
    }

    fn flat(moments: &Moments) -> Vec<f32> {
        moments.mean.iter().chain(&moments.variance).map(|v| *v as f32).collect()
    }

    #[test]
    fn moments_are_those_in_float64_also_far_from_zero() {
        for (channels, rows) in SIZES {
            for offset in [0.0, 1000.0] {
                let x: Vec<f32> = values(rows * channels, 1).iter().map(|v| v + offset).collect();
                let (got, want) = (moments(channels, &x), in_float64(channels, &x));
                for c in 0..channels {
                    let deviation = want.variance[c].sqrt();
                    assert!((got.mean[c] - want.mean[c]).abs() <= 1e-7 * deviation, "{channels} x {rows}, {offset}");
                    assert!((got.variance[c].sqrt() - deviation).abs() <= 2e-7 * deviation, "{channels} x {rows}");
                }
                same_bits_by_every_isa(|isa| flat(&moments_by(isa, channels, &x)));
            }
        }
    }

    #[test]
    fn many_rows_cost_no_digits() {
        let x: Vec<f32> = values(50_176 * 16, 3).iter().map(|v| v * 2.0 + 0.5).collect();
        let (got, want) = (moments(16, &x), in_float64(16, &x));
        let largest = |f: &dyn Fn(usize) -> f64| (0..16).map(f).fold(0.0, f64::max);
        assert!(largest(&|c| (got.variance[c].sqrt() / want.variance[c].sqrt() - 1.0).abs()) < 8e-8);
        assert!(largest(&|c| (got.mean[c] - want.mean[c]).abs()) < 8e-8);
    }

    #[test]
    fn constants_have_no_variance_and_unbiased_is_over_one_row_less() {
        let x = [3.3f32, -7.7].repeat(1000);
        assert_eq!(
            moments(2, &x),
            Moments { mean: vec![f64::from(3.3f32), f64::from(-7.7f32)], variance: vec![0.0; 2] }
        );
        let of_four = moments(1, &[1.0, 2.0, 3.0, 4.0]);
        assert_eq!((of_four.mean[0], of_four.unbiased(4)[0]), (2.5, 5.0 / 3.0));
        assert!(moments(1, &[1.0, f32::NAN]).variance[0].is_nan());
    }

    #[test]
    fn moments_do_not_depend_on_threads() {
        let x = values(9000 * 24, 2);
        same_bits(|| flat(&moments(24, &x)));
    }
}
