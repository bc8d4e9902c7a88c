//! The loops over values: sums, conversions and packing, in the widest registers that the machine has.
//!
//! Each is a plain loop, compiled once for every instruction set that LLVM vectorises it for. All give the same bits: integer
//! arithmetic is exact, floats are added element by element, and every conversion rounds once, to nearest, ties to even.
#![allow(unsafe_code, reason = "calls of functions for instruction sets that were found at run time")]

use half::bf16;
use strath_core::fixed::{GRADIENT_BITS, to_f32, to_fixed};

/// Defines a function whose body is compiled for AVX-512, for AVX2 and for any machine.
macro_rules! vectorised {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)? $body:block) => {
        $(#[$doc])*
        pub(crate) fn $name($($arg: $type),*) $(-> $result)? {
            #[inline(always)]
            #[allow(clippy::inline_always, reason = "it must take on the instruction set of its caller")]
            fn plain($($arg: $type),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512($($arg: $type),*) $(-> $result)? { plain($($arg),*) }
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $type),*) $(-> $result)? { plain($($arg),*) }
                if is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: the features were just found; avx512bw implies avx512f.
                    return unsafe { avx512($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the feature was just found.
                    return unsafe { avx2($($arg),*) };
                }
            }
            plain($($arg),*)
        }
    };
}

/// Values converted between two looks at their magnitude: small enough for the first-level cache.
const BLOCK: usize = 512;
/// Below this magnitude a value times 2^48 is less than 2^51, and adding [`SHIFT`] leaves its integer in the mantissa.
const FAST_LIMIT: f32 = 8.0;
/// 1.5 * 2^52: the sum with a number below 2^51 in magnitude has a unit of one.
const SHIFT: f64 = 6_755_399_441_055_744.0;
/// 2^-25, from which on the unit of an `f32` is 2^-48 or more.
const COARSE: f32 = 1.0 / (1u32 << 25) as f32;
const SCALE: f64 = (1u64 << GRADIENT_BITS) as f64;

#[inline(always)]
#[allow(clippy::inline_always, reason = "it must take on the instruction set of its caller")]
fn is_fast(values: impl Iterator<Item = f32>) -> bool {
    // As integers, magnitudes compare like the floats that they are, and what is not finite is larger than all.
    let largest = values.fold(0, |largest: u32, v| largest.max(v.to_bits() & (u32::MAX >> 1)));
    largest < FAST_LIMIT.to_bits()
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "it must take on the instruction set of its caller")]
fn fast_fixed(value: f32) -> i64 {
    let shifted = f64::from(value) * SCALE + SHIFT;
    (shifted.to_bits() as i64).wrapping_sub(SHIFT.to_bits() as i64)
}

/// [`to_f32`] of a sum below 2^51 in magnitude. AVX2 knows no conversion of 64-bit integers: the integer is put into a mantissa, and the
/// `f64` that it then is, exactly, is rounded.
#[inline(always)]
#[allow(clippy::inline_always, reason = "it must take on the instruction set of its caller")]
fn round_fast(sum: i64) -> f32 {
    let exact = f64::from_bits((SHIFT.to_bits() as i64).wrapping_add(sum) as u64) - SHIFT;
    exact as f32 * (1.0 / SCALE) as f32
}

/// Not 0 where a sum is 2^51 or more in magnitude.
#[inline(always)]
#[allow(clippy::inline_always, reason = "it must take on the instruction set of its caller")]
fn past_fast(sum: i64) -> u64 {
    sum.wrapping_add(1 << 51) as u64 >> 52
}

/// A value's bits without its sign: those of all values together are had by `|`.
#[inline(always)]
#[allow(clippy::inline_always, reason = "it must take on the instruction set of its caller")]
fn magnitude(value: i64) -> i64 {
    value ^ (value >> 63)
}

/// How many bits the largest of such magnitudes has.
#[inline(always)]
#[allow(clippy::inline_always, reason = "it must take on the instruction set of its caller")]
fn bits_of(magnitudes: i64) -> u32 {
    i64::BITS - magnitudes.leading_zeros()
}

/// The value of five bytes: its lower 32 bits, and its fifth byte, which carries the sign.
#[inline(always)]
#[allow(clippy::inline_always, reason = "it must take on the instruction set of its caller")]
fn five(low: [u8; 4], fifth: u8) -> i64 {
    i64::from(fifth.cast_signed()) << 32 | i64::from(u32::from_le_bytes(low))
}

/// The value of six bytes: its lower 32 bits, and the 16 above, which carry the sign.
#[inline(always)]
#[allow(clippy::inline_always, reason = "it must take on the instruction set of its caller")]
fn six(low: [u8; 4], upper: [u8; 2]) -> i64 {
    i64::from(i16::from_le_bytes(upper)) << 32 | i64::from(u32::from_le_bytes(low))
}

/// The multiple of 2^-48 nearest to a value, ties to even. From 2^-25 on an `f32` is one; below, the sum with 2^-25 has that unit.
#[inline(always)]
#[allow(clippy::inline_always, reason = "it must take on the instruction set of its caller")]
fn quantised(value: f32) -> f32 {
    let shift = COARSE.copysign(value);
    let near = (value + shift) - shift;
    if value.abs() < COARSE { near } else { value }
}

vectorised! {
    /// `values += body`, `f32`.
    fn add_f32(values: &mut [f32], body: &[u8]) {
        for (value, body) in values.iter_mut().zip(body.as_chunks().0) {
            *value += f32::from_le_bytes(*body);
        }
    }
}

vectorised! {
    /// `values += body`, `bf16` terms.
    fn add_bf16(values: &mut [f32], body: &[u8]) {
        for (value, body) in values.iter_mut().zip(body.as_chunks().0) {
            *value += bf16::from_le_bytes(*body).to_f32();
        }
    }
}

vectorised! {
    /// `values += body`, two's complement, wrapping.
    fn add_i64(values: &mut [i64], body: &[u8]) {
        for (value, body) in values.iter_mut().zip(body.as_chunks().0) {
            *value = value.wrapping_add(i64::from_le_bytes(*body));
        }
    }
}

vectorised! {
    /// `sums += fixed(terms)` with 48 fractional bits, as [`to_fixed`] does it.
    fn add_fixed(sums: &mut [i64], terms: &[f32]) {
        for (sums, terms) in sums.chunks_mut(BLOCK).zip(terms.chunks(BLOCK)) {
            if is_fast(terms.iter().copied()) {
                for (sum, term) in sums.iter_mut().zip(terms) {
                    *sum = sum.wrapping_add(fast_fixed(*term));
                }
            } else {
                for (sum, term) in sums.iter_mut().zip(terms) {
                    *sum = sum.wrapping_add(to_fixed(f64::from(*term), GRADIENT_BITS));
                }
            }
        }
    }
}

vectorised! {
    /// The same with terms as they travel.
    fn add_fixed_body(sums: &mut [i64], body: &[u8]) {
        for (sums, body) in sums.chunks_mut(BLOCK).zip(body.chunks(4 * BLOCK)) {
            let terms = body.as_chunks().0;
            if is_fast(terms.iter().map(|t| f32::from_le_bytes(*t))) {
                for (sum, term) in sums.iter_mut().zip(terms) {
                    *sum = sum.wrapping_add(fast_fixed(f32::from_le_bytes(*term)));
                }
            } else {
                for (sum, term) in sums.iter_mut().zip(terms) {
                    *sum = sum.wrapping_add(to_fixed(f64::from(f32::from_le_bytes(*term)), GRADIENT_BITS));
                }
            }
        }
    }
}

vectorised! {
    /// `sums = fixed(terms) + fixed(body)`, terms of two ranks, in one pass.
    fn fixed_sum(sums: &mut [i64], terms: &[f32], body: &[u8]) {
        let blocks = terms.chunks(BLOCK).zip(body.chunks(4 * BLOCK));
        for (sums, (terms, body)) in sums.chunks_mut(BLOCK).zip(blocks) {
            let body = body.as_chunks().0;
            let pairs = sums.iter_mut().zip(terms.iter().zip(body));
            if is_fast(terms.iter().copied()) && is_fast(body.iter().map(|t| f32::from_le_bytes(*t))) {
                for (sum, (term, body)) in pairs {
                    *sum = fast_fixed(*term).wrapping_add(fast_fixed(f32::from_le_bytes(*body)));
                }
            } else {
                for (sum, (term, body)) in pairs {
                    let [one, other] = [*term, f32::from_le_bytes(*body)].map(|t| to_fixed(f64::from(t), GRADIENT_BITS));
                    *sum = one.wrapping_add(other);
                }
            }
        }
    }
}

vectorised! {
    /// `terms = to_f32(fixed(terms) + fixed(body))`, the rounded sum of two ranks' terms, in one pass.
    ///
    /// Two numbers in fixed point and their sum rounded to `f32` once are, in range, the numbers rounded to multiples of 2^-48 and added as
    /// `f32`, which rounds once too.
    fn fixed_sum_of_two(terms: &mut [f32], body: &[u8]) {
        for (terms, body) in terms.chunks_mut(BLOCK).zip(body.chunks(4 * BLOCK)) {
            let body = body.as_chunks().0;
            if is_fast(terms.iter().copied()) && is_fast(body.iter().map(|t| f32::from_le_bytes(*t))) {
                for (term, body) in terms.iter_mut().zip(body) {
                    // Fixed point has one zero.
                    *term = quantised(*term) + quantised(f32::from_le_bytes(*body)) + 0.0;
                }
            } else {
                for (term, body) in terms.iter_mut().zip(body) {
                    let [one, other] = [*term, f32::from_le_bytes(*body)].map(|t| to_fixed(f64::from(t), GRADIENT_BITS));
                    *term = to_f32(one.wrapping_add(other), GRADIENT_BITS);
                }
            }
        }
    }
}

vectorised! {
    /// Each sum with 48 fractional bits rounded to `f32` once, as [`to_f32`] does it.
    fn round_fixed(sums: &[i64], out: &mut [f32]) {
        for (sums, out) in sums.chunks(BLOCK).zip(out.chunks_mut(BLOCK)) {
            let beyond = sums.iter().fold(0, |all, sum| all | past_fast(*sum));
            if beyond == 0 {
                for (out, sum) in out.iter_mut().zip(sums) {
                    *out = round_fast(*sum);
                }
            } else {
                for (out, sum) in out.iter_mut().zip(sums) {
                    *out = to_f32(*sum, GRADIENT_BITS);
                }
            }
        }
    }
}

vectorised! {
    /// The bits that two's complement needs for the value of largest magnitude, without its sign bit.
    fn largest_bits(values: &[i64]) -> u32 {
        bits_of(values.iter().fold(0, |all, value| all | magnitude(*value)))
    }
}

vectorised! {
    /// Bits 48 to 55 of each value.
    fn write_seventh(values: &[i64], out: &mut [u8]) {
        for (out, value) in out.iter_mut().zip(values) {
            *out = (*value >> 48) as u8;
        }
    }
}

vectorised! {
    /// The lower 32 bits and the fifth byte of each value, in one pass; [`largest_bits`] of the values.
    fn write_five(values: &[i64], low: &mut [u8], fifth: &mut [u8]) -> u32 {
        let mut magnitudes = 0;
        for ((value, low), fifth) in values.iter().zip(low.as_chunks_mut().0).zip(fifth) {
            magnitudes |= magnitude(*value);
            *low = (*value as u32).to_le_bytes();
            *fifth = (*value >> 32) as u8;
        }
        bits_of(magnitudes)
    }
}

vectorised! {
    /// The lower 32 bits and the 16 above of each value, in one pass; [`largest_bits`] of the values.
    fn write_six(values: &[i64], low: &mut [u8], upper: &mut [u8]) -> u32 {
        let mut magnitudes = 0;
        for ((value, low), upper) in values.iter().zip(low.as_chunks_mut().0).zip(upper.as_chunks_mut().0) {
            magnitudes |= magnitude(*value);
            *low = (*value as u32).to_le_bytes();
            *upper = ((*value >> 32) as u16).to_le_bytes();
        }
        bits_of(magnitudes)
    }
}

vectorised! {
    /// `out = to_f32(own + packed)` of values of five bytes, in one pass. `false`: a sum was out of the fast range, and `out` is not that.
    fn round_with_five(own: &[i64], low: &[u8], fifth: &[u8], out: &mut [f32]) -> bool {
        let mut beyond = 0;
        let packed = low.as_chunks().0.iter().zip(fifth);
        for ((own, out), (low, fifth)) in own.iter().zip(out).zip(packed) {
            let sum = own.wrapping_add(five(*low, *fifth));
            beyond |= past_fast(sum);
            *out = round_fast(sum);
        }
        beyond == 0
    }
}

vectorised! {
    /// The same of values of six bytes.
    fn round_with_six(own: &[i64], low: &[u8], upper: &[u8], out: &mut [f32]) -> bool {
        let mut beyond = 0;
        let packed = low.as_chunks().0.iter().zip(upper.as_chunks().0);
        for ((own, out), (low, upper)) in own.iter().zip(out).zip(packed) {
            let sum = own.wrapping_add(six(*low, *upper));
            beyond |= past_fast(sum);
            *out = round_fast(sum);
        }
        beyond == 0
    }
}

vectorised! {
    /// Adds values of five bytes: the planes of their lower 32 bits and of their fifth bytes, which carry the sign.
    fn add_five(sums: &mut [i64], low: &[u8], fifth: &[u8]) {
        for ((sum, low), fifth) in sums.iter_mut().zip(low.as_chunks().0).zip(fifth) {
            *sum = sum.wrapping_add(five(*low, *fifth));
        }
    }
}

vectorised! {
    /// Adds values of six bytes: the planes of their lower 32 bits and of the 16 above, which carry the sign.
    fn add_six(sums: &mut [i64], low: &[u8], upper: &[u8]) {
        for ((sum, low), upper) in sums.iter_mut().zip(low.as_chunks().0).zip(upper.as_chunks().0) {
            *sum = sum.wrapping_add(six(*low, *upper));
        }
    }
}

vectorised! {
    /// Adds values of seven bytes: the planes of their lower 32 bits, of the 16 above, and of their seventh bytes, which
    /// carry the sign.
    fn add_seven(sums: &mut [i64], low: &[u8], middle: &[u8], seventh: &[u8]) {
        let planes = low.as_chunks().0.iter().zip(middle.as_chunks().0).zip(seventh);
        for (sum, ((low, middle), seventh)) in sums.iter_mut().zip(planes) {
            let upper = i64::from(seventh.cast_signed()) << 16 | i64::from(u16::from_le_bytes(*middle));
            *sum = sum.wrapping_add(upper << 32 | i64::from(u32::from_le_bytes(*low)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversion_is_that_of_the_scalar_function_for_every_magnitude() {
        let magnitudes = (0..60).map(|e| 2f32.powi(14 - e) * 1.234_567);
        let mut terms: Vec<f32> = magnitudes.flat_map(|m| [m, -m]).collect();
        // Ties, both zeros, the limit of the fast path, and the largest that a gradient may hold.
        let unit = 2f32.powi(-48);
        terms.extend([0.5 * unit, 1.5 * unit, 2.5 * unit, -0.5 * unit, 0.0, -0.0, 8.0, -8.0, 7.999_999_5, 32_767.998]);
        let want: Vec<i64> = terms.iter().map(|t| 7 + to_fixed(f64::from(*t), GRADIENT_BITS)).collect();
        let body: Vec<u8> = terms.iter().flat_map(|t| t.to_le_bytes()).collect();
        let mut of_two = vec![0; terms.len()];
        fixed_sum(&mut of_two, &terms, &body);
        assert_eq!(of_two, want.iter().map(|w| 2 * (w - 7)).collect::<Vec<_>>(), "of two ranks");
        // Each with every other, so that sums cancel, tie and round.
        for shift in 0..terms.len() {
            let others: Vec<f32> = (0..terms.len()).map(|at| terms[(at + shift) % terms.len()]).collect();
            let body: Vec<u8> = others.iter().flat_map(|t| t.to_le_bytes()).collect();
            let fixed = |t: &f32| to_fixed(f64::from(*t), GRADIENT_BITS);
            let pairs = terms.iter().zip(&others);
            let want: Vec<u32> = pairs.map(|(a, b)| to_f32(fixed(a) + fixed(b), GRADIENT_BITS).to_bits()).collect();
            for length in [terms.len(), 1] {
                let mut found = terms.clone();
                let pieces = found.chunks_mut(length).zip(body.chunks(4 * length));
                pieces.for_each(|(found, body)| fixed_sum_of_two(found, body));
                let found: Vec<u32> = found.iter().map(|f| f.to_bits()).collect();
                assert_eq!(found, want, "{shift} further, {length} at a time");
            }
        }
        for blocks in [1, BLOCK] {
            let (mut sums, mut of_body) = (vec![7; terms.len()], vec![7; terms.len()]);
            for at in (0..terms.len()).step_by(terms.len().div_ceil(blocks)) {
                let end = (at + terms.len().div_ceil(blocks)).min(terms.len());
                add_fixed(&mut sums[at..end], &terms[at..end]);
                add_fixed_body(&mut of_body[at..end], &body[4 * at..4 * end]);
            }
            assert_eq!((&sums, &of_body), (&want, &want), "in {blocks} calls");
        }
    }

    #[test]
    fn sums_are_rounded_as_by_the_scalar_function_on_either_side_of_the_fast_range() {
        let edge = 1i64 << 51;
        // Ties of a 24-bit mantissa, both ways, among them.
        let near = [0, 1, (1 << 24) + 1, (1 << 24) + 3, (1 << 40) + (1 << 16), 3 << 30, edge - 1, -edge];
        for beyond in [0, edge, -edge - 1, i64::MAX, i64::MIN] {
            let sums: Vec<i64> = near.iter().flat_map(|s| [*s, -*s.max(&(1 - edge)), beyond]).collect();
            let want: Vec<u32> = sums.iter().map(|s| to_f32(*s, GRADIENT_BITS).to_bits()).collect();
            let mut found = vec![f32::NAN; sums.len()];
            round_fixed(&sums, &mut found);
            assert_eq!(found.iter().map(|f| f.to_bits()).collect::<Vec<_>>(), want, "with {beyond}");
        }
    }

    #[test]
    fn bits_of_the_largest_are_those_of_either_sign() {
        for (values, bits) in [(&[0, -1][..], 0), (&[1], 1), (&[-2], 1), (&[127, -128], 7), (&[128], 8), (&[-129], 8)] {
            assert_eq!(largest_bits(values), bits, "{values:?}");
        }
        assert_eq!(largest_bits(&[i64::MIN]), 63);
    }
}
