//! The peak of this moment: what the multiply-add units of one core deliver when nothing else holds them up.
//!
//! Shared machines change their speed from minute to minute, so a kernel's figure means something only beside a peak measured
//! in turn with it.
#![allow(unsafe_code, reason = "multiply-adds of the instruction set itself")]

use std::hint::black_box;
use std::time::Instant;

use crate::isa::Isa;

/// Multiply-adds that do not wait for each other: more than latency times units (4 x 2) of any processor so far.
const CHAINS: usize = 12;

/// Rounds of a burst: 0.1 to 0.3 ms, shorter than a scheduler's slice.
const ROUNDS: usize = 40_000;

/// GFLOP/s of one thread's fused multiply-adds with the vectors of `isa`, a multiply-add counting as two operations; plain Rust's
/// is what the compiler makes of it without extensions. One burst of about 0.2 ms: the caller takes the best of several.
///
/// # Panics
/// Where this processor does not have `isa`.
pub fn fma_peak(isa: Isa) -> f64 {
    assert!(isa <= Isa::best(), "{isa} is not among the sets of this processor");
    let start = Instant::now();
    let lanes = match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => {
            // SAFETY: the processor has the set.
            black_box(unsafe { avx512() });
            16
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => {
            // SAFETY: the processor has the set.
            black_box(unsafe { avx2() });
            8
        }
        _ => {
            black_box(portable());
            4
        }
    };
    (2 * lanes * CHAINS * ROUNDS) as f64 / start.elapsed().as_secs_f64() / 1e9
}

/// A burst on AVX-512.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512() -> f32 {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_reduce_add_ps, _mm512_set1_ps};
    let (a, b) = (_mm512_set1_ps(black_box(0.5)), _mm512_set1_ps(black_box(1.0)));
    let mut sums = [_mm512_set1_ps(black_box(0.0)); CHAINS];
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, a, b);
        }
    }
    let mut total = 0.0;
    for sum in sums {
        total += _mm512_reduce_add_ps(sum);
    }
    total
}

/// A burst on AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2() -> f32 {
    use std::arch::x86_64::{_mm256_cvtss_f32, _mm256_fmadd_ps, _mm256_set1_ps};
    let (a, b) = (_mm256_set1_ps(black_box(0.5)), _mm256_set1_ps(black_box(1.0)));
    let mut sums = [_mm256_set1_ps(black_box(0.0)); CHAINS];
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(*sum, a, b);
        }
    }
    let mut total = 0.0;
    for sum in sums {
        total += _mm256_cvtss_f32(sum);
    }
    total
}

/// A burst of vectors of four that the compiler makes.
fn portable() -> f32 {
    let (a, b) = (black_box(0.5f32), black_box(1.0f32));
    let mut sums = [[black_box(0.0f32); 4]; CHAINS];
    for _ in 0..ROUNDS {
        for sum in sums.as_flattened_mut() {
            *sum = *sum * a + b;
        }
    }
    sums.into_iter().flatten().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_that_the_processor_has_computes_something() {
        for isa in Isa::ALL.into_iter().filter(|isa| *isa <= Isa::best()) {
            assert!(fma_peak(isa) > 0.0);
        }
    }
}
