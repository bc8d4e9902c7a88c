//! Weighted sums in 64-bit fixed point: the arithmetic of `strath_core::fixed`, to the same bits, in one pass.

use std::sync::atomic::{AtomicBool, Ordering};

use super::blocks::for_shares;
use crate::isa::Isa;
use crate::vectorised::vectorised;

/// Fractional bits of a sum's integers, and of a wide sum's upper half; the lower half has as many more.
const BITS: i32 = 48;

/// Adds `f32(weight v)`, converted to an integer of 2^-48 to nearest with ties to even, to each entry of `sum`. Gives the index of the
/// first value whose magnitude is not below `limit` (at most 2^15; the value unweighted, NaN too), if there is one: such values count
/// as 0, and the sum is then of no use.
///
/// `weight` is at most 1. One pass, 20 bytes a value: a mask tells whether a value was out of range; only then is it looked for.
///
/// # Panics
/// Where the vectors differ in length.
#[must_use = "a value out of range spoils the sum"]
pub fn add_fixed(sum: &mut [i64], values: &[f32], weight: f64, limit: f32) -> Option<usize> {
    assert_eq!(sum.len(), values.len(), "a sum is as long as its terms");
    let (isa, fine) = (Isa::active(), AtomicBool::new(true));
    for_shares((sum, values), |(sum, values)| {
        if !narrow(isa, sum, values, weight, limit) {
            fine.store(false, Ordering::Relaxed);
        }
    });
    if fine.into_inner() { None } else { first_out_of_range(values, limit) }
}

/// Adds `f32(weight v)` to each entry of a sum of two halves: `high` in integers of 2^-48 to nearest, what is left to `low` in integers
/// of 2^-96; otherwise as [`add_fixed`].
///
/// One pass, 36 bytes a value.
///
/// # Panics
/// Where the vectors differ in length.
#[must_use = "a value out of range spoils the sum"]
pub fn add_wide(high: &mut [i64], low: &mut [i64], values: &[f32], weight: f64, limit: f32) -> Option<usize> {
    assert!(high.len() == values.len() && low.len() == values.len(), "a sum is as long as its terms");
    let (isa, fine) = (Isa::active(), AtomicBool::new(true));
    for_shares((high, low, values), |(high, low, values)| {
        if !wide(isa, high, low, values, weight, limit) {
            fine.store(false, Ordering::Relaxed);
        }
    });
    if fine.into_inner() { None } else { first_out_of_range(values, limit) }
}

/// Adds `f32(weight v)` to each entry of a sum in `f32`; otherwise as [`add_fixed`], with any limit up to infinity.
///
/// One pass, 12 bytes a value.
///
/// # Panics
/// Where the vectors differ in length.
#[must_use = "a value out of range spoils the sum"]
pub fn add_floats(sum: &mut [f32], values: &[f32], weight: f64, limit: f32) -> Option<usize> {
    assert_eq!(sum.len(), values.len(), "a sum is as long as its terms");
    let (isa, fine) = (Isa::active(), AtomicBool::new(true));
    for_shares((sum, values), |(sum, values)| {
        if !floats(isa, sum, values, weight, limit) {
            fine.store(false, Ordering::Relaxed);
        }
    });
    if fine.into_inner() { None } else { first_out_of_range(values, limit) }
}

/// The index of the first value whose magnitude is not below `limit`; with an infinite limit, the first that is not finite.
///
/// One pass, 4 bytes a value.
pub fn first_out_of_range(values: &[f32], limit: f32) -> Option<usize> {
    let (isa, fine) = (Isa::active(), AtomicBool::new(true));
    for_shares(values, |values| {
        if !in_range(isa, values, limit) {
            fine.store(false, Ordering::Relaxed);
        }
    });
    if fine.into_inner() { None } else { values.iter().position(|v| v.is_nan() || v.abs() >= limit) }
}

/// The `f32` nearest to each entry of a sum, ties to even.
///
/// One pass, 12 bytes a value.
///
/// # Panics
/// Where the vectors differ in length.
pub fn round_fixed(sum: &[i64], rounded: &mut [f32]) {
    assert_eq!(sum.len(), rounded.len(), "a sum rounds to as many values");
    let isa = Isa::active();
    for_shares((sum, rounded), |(sum, rounded)| round_narrow_share(isa, sum, rounded));
}

/// The `f32` nearest to each entry of a sum of two halves, `high 2^-48 + low 2^-96`, ties to even.
///
/// One pass, 20 bytes a value.
///
/// # Panics
/// Where the vectors differ in length.
pub fn round_wide(high: &[i64], low: &[i64], rounded: &mut [f32]) {
    assert!(high.len() == low.len() && low.len() == rounded.len(), "a sum rounds to as many values");
    let isa = Isa::active();
    for_shares((high, low, rounded), |(high, low, rounded)| round_wide_share(isa, high, low, rounded));
}

vectorised! {
    fn narrow(sum: &mut [i64], values: &[f32], weight: f64, limit: f32) -> bool {
        let mut fine = true;
        for (sum, value) in sum.iter_mut().zip(values) {
            let (value, in_range) = guarded(*value, limit);
            fine &= in_range;
            *sum = sum.wrapping_add(fixed(value, weight).0);
        }
        fine
    }

    fn wide(high: &mut [i64], low: &mut [i64], values: &[f32], weight: f64, limit: f32) -> bool {
        let mut fine = true;
        for ((high, low), value) in high.iter_mut().zip(low).zip(values) {
            let (value, in_range) = guarded(*value, limit);
            fine &= in_range;
            let (whole, rest) = fixed(value, weight);
            *high = high.wrapping_add(whole);
            *low = low.wrapping_add(nearest(rest * power_of_two(BITS)).0);
        }
        fine
    }

    fn floats(sum: &mut [f32], values: &[f32], weight: f64, limit: f32) -> bool {
        let mut fine = true;
        for (sum, value) in sum.iter_mut().zip(values) {
            let (value, in_range) = guarded(*value, limit);
            fine &= in_range;
            *sum += (f64::from(value) * weight) as f32;
        }
        fine
    }

    fn in_range(values: &[f32], limit: f32) -> bool {
        values.iter().fold(true, |fine, value| fine & (value.abs() < limit))
    }

    fn round_narrow_share(sum: &[i64], rounded: &mut [f32]) {
        for (sum, rounded) in sum.iter().zip(rounded) {
            // An i64 to f32 conversion rounds once, and the power of two is exact.
            *rounded = *sum as f32 * power_of_two(-BITS) as f32;
        }
    }

    fn round_wide_share(high: &[i64], low: &[i64], rounded: &mut [f32]) {
        for ((high, low), rounded) in high.iter().zip(low).zip(rounded) {
            *rounded = rounded_pair(*high, *low);
        }
    }
}

const fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

/// `1.5 2^52`. Added to an x below 2^51 in magnitude it leaves no fractional bits, and the integer nearest to x, ties to even, stands in
/// the low bits of the sum: a conversion that every instruction set has vectors for.
const SHIFT: f64 = 6_755_399_441_055_744.0;

/// The integer nearest to x, |x| < 2^51, ties to even, as one and as a float.
#[inline(always)]
fn nearest(x: f64) -> (i64, f64) {
    let shifted = x + SHIFT;
    ((shifted.to_bits() as i64).wrapping_sub(SHIFT.to_bits() as i64), shifted - SHIFT)
}

/// An integer below 2^51 in magnitude as a float.
#[inline(always)]
fn float(integer: i64) -> f64 {
    f64::from_bits((SHIFT.to_bits() as i64).wrapping_add(integer) as u64) - SHIFT
}

/// The value and whether it is below the limit; one that is not counts as 0.
#[inline(always)]
fn guarded(value: f32, limit: f32) -> (f32, bool) {
    let in_range = value.abs() < limit;
    (if in_range { value } else { 0.0 }, in_range)
}

/// `f32(weight value) 2^48` to the nearest integer, ties to even, and what is left, exact: below half a unit.
///
/// The integer has up to 63 bits, too many for [`nearest`], so its upper and its lower 32 are taken one after the other. What the upper
/// leave is exact, as an f32 has 24 bits; they stand for an even number of units, so that ties go where they would go at once.
#[inline(always)]
fn fixed(value: f32, weight: f64) -> (i64, f64) {
    let scaled = f64::from((f64::from(value) * weight) as f32) * power_of_two(BITS - 32);
    let (upper, upper_float) = nearest(scaled);
    let below = (scaled - upper_float) * power_of_two(32);
    let (lower, lower_float) = nearest(below);
    ((upper << 32).wrapping_add(lower), below - lower_float)
}

/// The `f32` nearest to `high 2^-48 + low 2^-96`, ties to even.
///
/// In units of 2^-48 the value is `a 2^32 + b + c` with integers a, b of 32 bits, and |c| at most half. It is added up from the right in
/// f64, rounded to odd each time, which keeps what the last rounding has to know: 53 bits are more than 24 + 2 (Boldo and Melquiond
/// 2008, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd"). No bit that counts is cancelled, as
/// b + c is at most about half of a 2^32 where a is not 0.
#[inline(always)]
fn rounded_pair(high: i64, low: i64) -> f32 {
    // To the nearest multiples: the remainders are signed.
    let carry = (low >> BITS) + ((low >> (BITS - 1)) & 1);
    let c = float(low.wrapping_sub(carry << BITS)) * power_of_two(-BITS);
    let a = (high >> 32) + ((high >> 31) & 1);
    let b = high.wrapping_sub(a << 32) + carry;
    let sum = sum_to_odd(float(a) * power_of_two(32), sum_to_odd(float(b), c));
    sum as f32 * power_of_two(-BITS) as f32
}

/// `x + y` rounded to odd: where it is not exact, that neighbour of the two whose last bit is 1.
#[inline(always)]
fn sum_to_odd(x: f64, y: f64) -> f64 {
    // Knuth's two-sum: `error` is exact.
    let sum = x + y;
    let part = sum - x;
    let error = (x - (sum - part)) + (y - part);
    let bits = sum.to_bits() as i64;
    let away = (error > 0.0) == (sum > 0.0);
    let step = if away { 1 } else { -1 };
    let even = bits & 1 == 0;
    f64::from_bits((bits + if (error != 0.0) & even { step } else { 0 }) as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::threads::tests::same_bits;
    use crate::vector::tests::{each_isa, values};

    const LIMIT: f32 = 32_768.0;

    /// By integer arithmetic alone: `f32(weight value)` in units of 2^-96, then to nearest with ties to even.
    fn oracle(value: f32, weight: f64) -> (i64, i64) {
        let x = f64::from((f64::from(value) * weight) as f32);
        if x == 0.0 {
            return (0, 0);
        }
        let (bits, exponent) = (x.to_bits(), (x.to_bits() >> 52 & 0x7ff) as i32 - 1075);
        let mantissa = i128::from(bits & ((1 << 52) - 1) | 1 << 52) * if x < 0.0 { -1 } else { 1 };
        let shifted = |by: i32| match by {
            0.. => mantissa << by,
            -120..0 => {
                let (floor, rest) = (mantissa >> -by, mantissa & ((1 << -by) - 1));
                let half = 1i128 << (-by - 1);
                floor + i128::from(rest > half || rest == half && floor & 1 == 1)
            }
            _ => 0,
        };
        let high = shifted(exponent + 48);
        // An f32 of 2^-72 or more is a multiple of 2^-96; a smaller one leaves nothing above, and is rounded there.
        let low = if high == 0 { shifted(exponent + 96) } else { shifted(exponent + 96) - (high << 48) };
        (high as i64, low as i64)
    }

    fn any_value() -> impl Strategy<Value = f32> {
        let ties = (-(1i32 << 20)..1 << 20, -60..-30i32).prop_map(|(n, e)| n as f32 * power_of_two(e) as f32);
        let sizes = (any::<bool>(), -126..15i32, 0u32..1 << 23).prop_map(|(negative, exponent, mantissa)| {
            let x = f32::from_bits(((exponent + 126) as u32) << 23 | mantissa);
            if negative { -x } else { x }
        });
        prop_oneof![sizes, ties, Just(0.0), Just(-0.0), Just(f32::from_bits(LIMIT.to_bits() - 1))]
    }

    #[test]
    fn what_is_out_of_range_is_found_at_every_place_and_counts_as_zero() {
        for bad in [f32::NAN, f32::INFINITY, -f32::INFINITY, LIMIT, -LIMIT] {
            for at in [0, 1, 17, 63, 99_999] {
                let mut values = vec![0.5; 100_000];
                values[at] = bad;
                values[99_999] = bad;
                let (mut sum, mut low) = (vec![0; values.len()], vec![0; values.len()]);
                assert_eq!(add_fixed(&mut sum, &values, 0.5, LIMIT), Some(at));
                assert_eq!((sum[at], sum[at ^ 2]), (0, if at ^ 2 == 99_999 { 0 } else { 1 << 46 }));
                assert_eq!(add_wide(&mut sum, &mut low, &values, 0.5, LIMIT), Some(at));
                assert_eq!(first_out_of_range(&values, LIMIT), Some(at));
                let mut floats = vec![0.0; values.len()];
                assert_eq!(add_floats(&mut floats, &values, 0.5, LIMIT), Some(at));
                let finite = if bad.is_finite() { None } else { Some(at) };
                assert_eq!(add_floats(&mut floats, &values, 0.5, f32::INFINITY), finite);
            }
        }
        assert_eq!(first_out_of_range(&[1.0, -32_767.0], LIMIT), None);
    }

    #[test]
    fn threads_do_not_show_in_the_bits() {
        let values = values(200_003, 3);
        same_bits(|| {
            let (mut high, mut low) = (vec![0; values.len()], vec![0; values.len()]);
            let mut rounded = vec![0.0; values.len()];
            assert_eq!(add_wide(&mut high, &mut low, &values, 0.3, LIMIT), None);
            assert_eq!(add_fixed(&mut high, &values, 0.3, LIMIT), None);
            round_wide(&high, &low, &mut rounded);
            let mut narrow = vec![0.0; values.len()];
            round_fixed(&high, &mut narrow);
            assert_eq!(add_floats(&mut narrow, &values, 0.3, LIMIT), None);
            [rounded, narrow].concat()
        });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]
        #[test]
        fn every_instruction_set_adds_the_integers_of_the_definition(
            terms in prop::collection::vec(any_value(), 0..70), weight in prop_oneof![Just(1.0), Just(0.5), 0f64..1.0]
        ) {
            for isa in each_isa() {
                let (mut sum, mut high, mut low) = (vec![5; terms.len()], vec![7; terms.len()], vec![-9; terms.len()]);
                let mut floating = vec![1.5; terms.len()];
                prop_assert!(narrow(isa, &mut sum, &terms, weight, LIMIT));
                prop_assert!(wide(isa, &mut high, &mut low, &terms, weight, LIMIT));
                prop_assert!(floats(isa, &mut floating, &terms, weight, LIMIT));
                for (at, term) in terms.iter().enumerate() {
                    let (whole, rest) = oracle(*term, weight);
                    prop_assert_eq!((sum[at], high[at], low[at]), (5 + whole, 7 + whole, -9 + rest), "{} of {}", isa, term);
                    prop_assert_eq!(floating[at], 1.5 + (f64::from(*term) * weight) as f32);
                }
            }
        }

        #[test]
        fn every_instruction_set_rounds_once(
            halves in prop::collection::vec(((any::<i64>(), 0u32..64), (any::<i64>(), 0u32..64), 0u32..63, -2i64..3), 0..70)
        ) {
            // Small and large, and next to the ties of a rounding to 24 bits.
            let high: Vec<i64> = halves.iter().map(|((h, by), _, cut, near)| {
                let h = (h >> by) >> cut << cut;
                h.saturating_add(if *cut > 0 { 1 << (cut - 1) } else { 0 }).saturating_add(*near)
            }).collect();
            let low: Vec<i64> = halves.iter().map(|(_, (l, by), ..)| l >> by).collect();
            for isa in each_isa() {
                let mut rounded = vec![f32::NAN; halves.len()];
                round_wide_share(isa, &high, &low, &mut rounded);
                for at in 0..halves.len() {
                    let exact = (i128::from(high[at]) << 48) + i128::from(low[at]);
                    let want = exact as f32 * power_of_two(-96) as f32;
                    prop_assert_eq!(rounded[at].to_bits(), want.to_bits(), "{}: {} {}", isa, high[at], low[at]);
                }
                round_narrow_share(isa, &high, &mut rounded);
                for at in 0..halves.len() {
                    prop_assert_eq!(rounded[at].to_bits(), (high[at] as f32 * power_of_two(-48) as f32).to_bits(), "{}", isa);
                }
            }
        }
    }
}
