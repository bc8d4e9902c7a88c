//! Sums over a parameter vector whose bits depend on nothing but its values.

/// Entries summed in one go. Block sums are then added in order.
const BLOCK: usize = 4096;
/// Interleaved accumulators in a block, enough to fill the widest vector registers.
const LANES: usize = 8;

/// The sum of `term(i)` over `0..len` in `f64`, in fixed blocks of 4,096 with eight interleaved accumulators each.
pub fn blocked_sum(len: usize, term: impl Fn(usize) -> f64) -> f64 {
    let mut total = 0.0;
    let mut start = 0;
    while start < len {
        let end = (start + BLOCK).min(len);
        let mut partial = [0.0f64; LANES];
        let whole = start + (end - start) / LANES * LANES;
        for at in (start..whole).step_by(LANES) {
            for (lane, sum) in partial.iter_mut().enumerate() {
                *sum += term(at + lane);
            }
        }
        for (at, sum) in (whole..end).zip(&mut partial) {
            *sum += term(at);
        }
        let [a, b, c, d, e, f, g, h] = partial;
        total += ((a + e) + (c + g)) + ((b + f) + (d + h));
        start = end;
    }
    total
}

/// The mean of a sample, and its standard error where there are two and more.
pub fn mean_and_error(sample: &[f64]) -> (f64, Option<f64>) {
    let n = sample.len() as f64;
    let mean = sample.iter().sum::<f64>() / n;
    let variance = sample.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / (n - 1.0);
    (mean, (sample.len() > 1).then(|| (variance / n).sqrt()))
}

/// The l2 norm of a vector, in `f64`; one pass, 4 bytes a value.
pub fn l2_norm(values: &[f32]) -> f64 {
    strath_kernels::vector::sum_of_squares(values).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_term_is_counted_once_at_every_length() {
        for len in [0, 1, 7, 8, 9, 4095, 4096, 4097, 10_000] {
            let sum = blocked_sum(len, |at| (at + 1) as f64);
            assert_eq!(sum, (len * (len + 1) / 2) as f64, "length {len}");
        }
    }

    #[test]
    fn a_norm_is_the_root_of_the_blocked_sum_of_squares_to_the_bit() {
        let values: Vec<f32> = (0..20_011).map(|at| 0.1 * at as f32 - 700.0).collect();
        let sum = blocked_sum(values.len(), |at| f64::from(values[at]) * f64::from(values[at]));
        assert_eq!(l2_norm(&values), sum.sqrt());
    }

    #[test]
    fn the_error_of_a_mean_is_that_of_a_sample_of_two_and_more() {
        assert_eq!(mean_and_error(&[1.0, 2.0, 3.0]), (2.0, Some((1.0f64 / 3.0).sqrt())));
        assert_eq!(mean_and_error(&[5.0]), (5.0, None));
    }

    #[test]
    fn the_norm_of_a_three_four_vector_is_five() {
        assert_eq!(l2_norm(&[3.0, 0.0, -4.0]), 5.0);
        assert_eq!(l2_norm(&[f32::MIN_POSITIVE]), f64::from(f32::MIN_POSITIVE));
    }
}
