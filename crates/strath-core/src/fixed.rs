//! Sums of floats that do not depend on the order of their terms: fixed point in 64-bit integers.
//!
//! Integer addition is associative and commutative, so any map of micro-batches to ranks, any order of a ring and any
//! transport give the same sum, which is rounded to `f32` once, at the end.

/// Fractional bits of gradients and losses.
pub const GRADIENT_BITS: i32 = 48;
/// Fractional bits of batch-norm statistics.
pub const STATISTIC_BITS: i32 = 32;
/// A gradient entry of this magnitude, before it is weighted, fails the step: the weights of a sum are at most 1 together,
/// so below it no sum can leave an `i64`.
pub const GRADIENT_LIMIT: f32 = 32_768.0;
/// The same for a batch-norm statistic.
pub const STATISTIC_LIMIT: f32 = 1_073_741_824.0;

/// A value that is not finite or reaches the limit of its sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("value {index} is not finite or too large for its fixed-point sum")]
pub struct OutOfRange {
    /// Index of the first such value.
    pub index: usize,
}

/// `x * 2^bits` to the nearest integer, ties to even.
///
/// `x` is finite and `|x| * 2^bits < 2^63`; larger values saturate.
pub fn to_fixed(x: f64, bits: i32) -> i64 {
    round_to_even(x * power_of_two(bits)) as i64
}

/// The `f32` nearest to `value * 2^-bits`, ties to even.
pub fn to_f32(value: i64, bits: i32) -> f32 {
    // An i64 to f32 conversion rounds once; the power of two is exact, as no result is subnormal for bits < 126.
    value as f32 * power_of_two(-bits) as f32
}

/// The `f64` nearest to `value * 2^-bits`, ties to even.
pub fn to_f64(value: i64, bits: i32) -> f64 {
    value as f64 * power_of_two(-bits)
}

const fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

/// To the nearest integer, ties to even, without a call into libm on machines that lack an instruction for it.
fn round_to_even(x: f64) -> f64 {
    // From 2^52 on every f64 is an integer; below, adding 1.5 * 2^52 leaves no fractional bits in the sum.
    const SHIFT: f64 = 6_755_399_441_055_744.0;
    if x.abs() < 2_251_799_813_685_248.0 { (x + SHIFT) - SHIFT } else { x.round_ties_even() }
}

fn first_out_of_range(values: &[f32], limit: f32) -> Result<(), OutOfRange> {
    // One branch-free pass in the usual case; only a faulty vector is searched.
    let fine = values.iter().fold(true, |fine, v| fine & (v.abs() < limit));
    if fine {
        return Ok(());
    }
    let index = values.iter().position(|v| v.is_nan() || v.abs() >= limit);
    index.map_or(Ok(()), |index| Err(OutOfRange { index }))
}

/// A value's contribution to a sum, `f32(weight * value)`.
fn weighted(value: f32, weight: f64) -> f64 {
    f64::from((f64::from(value) * weight) as f32)
}

/// A sum of weighted vectors with one `i64` an entry: the reduced descent gradient (48 fractional bits) and the batch-norm
/// statistics (32).
#[derive(Debug, Clone, PartialEq)]
pub struct FixedSum {
    bits: i32,
    limit: f32,
    entries: Vec<i64>,
}

impl FixedSum {
    /// An empty sum of `len` gradient entries.
    pub fn gradient(len: usize) -> Self {
        Self { bits: GRADIENT_BITS, limit: GRADIENT_LIMIT, entries: vec![0; len] }
    }

    /// An empty sum of `len` batch-norm statistics.
    pub fn statistics(len: usize) -> Self {
        Self { bits: STATISTIC_BITS, limit: STATISTIC_LIMIT, entries: vec![0; len] }
    }

    /// Adds `f32(weight * v)` to each entry.
    ///
    /// # Errors
    /// [`OutOfRange`] where an unweighted value is not finite or reaches the limit; the sum is then unchanged.
    pub fn add(&mut self, values: &[f32], weight: f64) -> Result<(), OutOfRange> {
        first_out_of_range(values, self.limit)?;
        for (entry, value) in self.entries.iter_mut().zip(values) {
            *entry += to_fixed(weighted(*value, weight), self.bits);
        }
        Ok(())
    }

    /// The raw integers.
    pub fn into_entries(self) -> Vec<i64> {
        self.entries
    }

    /// The sum, each entry rounded once.
    pub fn to_f32(&self) -> Vec<f32> {
        self.entries.iter().map(|v| to_f32(*v, self.bits)).collect()
    }
}

/// A sum of weighted vectors with two independent `i64` an entry, 48 fractional bits and the next 48 below: a lane's ascent
/// gradient where the lane has several micro-batches.
///
/// Epsilon is scale-free, so 48 bits alone would destroy it for a lane that the network already fits. No carry moves
/// between the two halves until the end, so plain integer sums of each serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WideSum {
    high: Vec<i64>,
    low: Vec<i64>,
}

impl WideSum {
    /// An empty sum of `len` entries.
    pub fn zeros(len: usize) -> Self {
        Self { high: vec![0; len], low: vec![0; len] }
    }

    /// Adds `f32(weight * v)` to each entry, off by at most 2^-96 of it.
    ///
    /// # Errors
    /// [`OutOfRange`] where an unweighted value is not finite or reaches 2^15; the sum is then unchanged.
    pub fn add(&mut self, values: &[f32], weight: f64) -> Result<(), OutOfRange> {
        first_out_of_range(values, GRADIENT_LIMIT)?;
        for ((high, low), value) in self.high.iter_mut().zip(&mut self.low).zip(values) {
            // Both the scaled value and its distance to the nearest integer are exact: an f32 has 24 bits.
            let scaled = weighted(*value, weight) * power_of_two(GRADIENT_BITS);
            let whole = round_to_even(scaled);
            *high += whole as i64;
            *low += to_fixed(scaled - whole, GRADIENT_BITS);
        }
        Ok(())
    }

    /// The raw integers, the upper halves and the lower.
    pub fn into_halves(self) -> (Vec<i64>, Vec<i64>) {
        (self.high, self.low)
    }

    /// The sum, each entry rounded once.
    pub fn to_f32(&self) -> Vec<f32> {
        self.high.iter().zip(&self.low).map(|(high, low)| wide_to_f32(*high, *low)).collect()
    }
}

/// The `f32` nearest to `high * 2^-48 + low * 2^-96`, ties to even.
pub fn wide_to_f32(high: i64, low: i64) -> f32 {
    let whole = (i128::from(high) << GRADIENT_BITS) + i128::from(low);
    whole as f32 * power_of_two(-2 * GRADIENT_BITS) as f32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rounding_is_to_nearest_with_ties_to_even() {
        let ulp = power_of_two(-GRADIENT_BITS);
        for (x, want) in [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (0.500_001, 1), (7.0, 7)] {
            assert_eq!(to_fixed(x * ulp, GRADIENT_BITS), want, "{x} units");
        }
        assert_eq!(to_fixed(32_767.0, GRADIENT_BITS), 32_767 << 48);
        assert_eq!(to_f32((1 << 24) + 1, 0), 16_777_216.0);
        assert_eq!(to_f32((1 << 24) + 3, 0), 16_777_220.0);
    }

    #[test]
    fn what_is_out_of_range_is_named_and_changes_nothing() {
        for bad in [f32::NAN, f32::INFINITY, -f32::INFINITY, GRADIENT_LIMIT, -GRADIENT_LIMIT] {
            let mut sum = FixedSum::gradient(3);
            sum.add(&[1.0, 2.0, 3.0], 0.5).unwrap();
            let before = sum.clone();
            assert_eq!(sum.add(&[1.0, bad, bad], 1e-9), Err(OutOfRange { index: 1 }));
            assert_eq!(sum, before);
            assert_eq!(WideSum::zeros(2).add(&[0.0, bad], 0.5), Err(OutOfRange { index: 1 }));
        }
        let largest = f32::from_bits(GRADIENT_LIMIT.to_bits() - 1);
        let mut sum = FixedSum::gradient(1);
        for _ in 0..3 {
            sum.add(&[largest], 1.0 / 3.0).unwrap();
        }
        assert_eq!(sum.to_f32(), [largest]);
    }

    #[test]
    fn a_wide_sum_keeps_what_48_bits_lose() {
        let tiny = 3.0 * 2f32.powi(-60);
        let mut wide = WideSum::zeros(1);
        wide.add(&[tiny], 0.5).unwrap();
        wide.add(&[tiny], 0.5).unwrap();
        assert_eq!(wide.to_f32(), [tiny]);
        let mut narrow = FixedSum::gradient(1);
        narrow.add(&[tiny], 1.0).unwrap();
        assert_eq!(narrow.to_f32(), [0.0]);
    }

    fn finite(limit: f32) -> impl Strategy<Value = f32> {
        (any::<bool>(), -120..15i32, 0u32..1 << 23).prop_map(move |(negative, exponent, mantissa)| {
            let x = f32::from_bits(((exponent + 126) as u32) << 23 | mantissa);
            (if negative { -x } else { x }).clamp(-limit * 0.99, limit * 0.99)
        })
    }

    proptest! {
        #[test]
        fn the_order_of_the_terms_does_not_matter(
            terms in prop::collection::vec(finite(GRADIENT_LIMIT), 1..40), seed in any::<u64>()
        ) {
            let weight = 1.0 / terms.len() as f64;
            let order = crate::random::Stream::new(seed, crate::random::Purpose::Probe).permutation(terms.len());
            let (mut a, mut b) = (FixedSum::gradient(1), FixedSum::gradient(1));
            let (mut c, mut d) = (WideSum::zeros(1), WideSum::zeros(1));
            for (term, other) in terms.iter().zip(order.iter().map(|at| &terms[*at as usize])) {
                a.add(&[*term], weight).unwrap();
                b.add(&[*other], weight).unwrap();
                c.add(&[*term], weight).unwrap();
                d.add(&[*other], weight).unwrap();
            }
            prop_assert_eq!(&a, &b);
            prop_assert_eq!(&c, &d);
            prop_assert_eq!(a.to_f32()[0].to_bits(), b.to_f32()[0].to_bits());
        }

        #[test]
        fn a_fixed_value_is_off_by_at_most_half_a_unit(x in finite(GRADIENT_LIMIT)) {
            let scaled = f64::from(x) * power_of_two(GRADIENT_BITS);
            let fixed = to_fixed(f64::from(x), GRADIENT_BITS);
            prop_assert!((fixed as f64 - scaled).abs() <= 0.5);
        }

        #[test]
        fn a_wide_value_is_off_by_at_most_two_to_the_minus_96(x in finite(GRADIENT_LIMIT)) {
            let mut sum = WideSum::zeros(1);
            sum.add(&[x], 1.0).unwrap();
            let (high, low) = sum.into_halves();
            // All three terms are multiples of 2^-149, far inside f64's exponents; the two differences are exact.
            let rest = f64::from(x) - high[0] as f64 * power_of_two(-GRADIENT_BITS);
            let error = rest - low[0] as f64 * power_of_two(-2 * GRADIENT_BITS);
            prop_assert!(error.abs() <= power_of_two(-97));
        }

        #[test]
        fn in_any_split_a_wide_sum_is_off_by_at_most_two_to_the_minus_96_a_micro_batch(
            pieces in prop::collection::vec((any::<bool>(), -80..4i32, 0u32..1 << 23, 1usize..100), 1..20)
        ) {
            let examples: usize = pieces.iter().map(|(.., size)| size).sum();
            let mut sum = WideSum::zeros(1);
            // In units of 2^-114, of which every weighted term is a multiple: at least 2^-81-23 / 2000.
            let (unit, mut exact) = (power_of_two(114), 0i128);
            for (negative, exponent, mantissa, size) in &pieces {
                let magnitude = f32::from_bits(((exponent + 127) as u32) << 23 | mantissa);
                let value = if *negative { -magnitude } else { magnitude };
                let weight = *size as f64 / examples as f64;
                sum.add(&[value], weight).unwrap();
                exact += (f64::from((weight * f64::from(value)) as f32) * unit) as i128;
            }
            let (high, low) = sum.into_halves();
            let off = ((i128::from(high[0]) << 66) + (i128::from(low[0]) << 18) - exact).unsigned_abs();
            prop_assert!(off <= (pieces.len() as u128) << 18, "{} units of 2^-114 for {} micro-batches", off, pieces.len());
        }

        #[test]
        fn a_split_in_powers_of_two_of_values_scaled_by_2_to_minus_40_gives_the_same_mantissas(
            terms in prop::collection::vec((-20..0i32, 0u32..1 << 23), 16)
        ) {
            let terms: Vec<f32> = terms.iter().map(|(e, m)| f32::from_bits(((e + 127) as u32) << 23 | m)).collect();
            let scale = power_of_two(-40) as f32;
            let (mut plain, mut scaled) = (WideSum::zeros(1), WideSum::zeros(1));
            for term in &terms {
                plain.add(&[*term], 1.0 / 16.0).unwrap();
                scaled.add(&[*term * scale], 1.0 / 16.0).unwrap();
            }
            prop_assert_eq!((plain.to_f32()[0] * scale).to_bits(), scaled.to_f32()[0].to_bits());
        }
    }
}
