//! Vectors of channels: what the kernels need of an instruction set, so that they are written once.

#![allow(unsafe_code, reason = "SIMD intrinsics")]

use core::arch::x86_64::{
    __m256, __m256i, __m512, _MM_HINT_T1, _mm_prefetch, _mm256_add_ps, _mm256_fmadd_ps, _mm256_fnmadd_ps,
    _mm256_i32gather_ps, _mm256_loadu_ps, _mm256_maskload_ps, _mm256_mul_ps, _mm256_mullo_epi32, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_setr_epi32, _mm256_storeu_ps, _mm256_sub_ps, _mm512_add_ps, _mm512_fmadd_ps,
    _mm512_fnmadd_ps, _mm512_i32gather_ps, _mm512_loadu_ps, _mm512_maskz_loadu_ps, _mm512_mul_ps, _mm512_mullo_epi32,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setr_epi32, _mm512_storeu_ps, _mm512_sub_ps,
};

/// A vector of floats.
///
/// # Safety
/// Every function may be called only where the processor has the vector's instruction set, and from a function compiled for
/// it (else each call is a call); pointers hold as many floats as the function touches.
pub(super) trait Simd: Copy {
    /// Floats a vector.
    const LANES: usize;
    /// All of a vector or nothing.
    type Mask: Copy;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn mask(on: bool) -> Self::Mask;
    /// `from`'s floats 0, `stride`, `2 stride` and so on.
    unsafe fn gather(from: *const f32, stride: usize) -> Self;
    /// Zeros where the mask is off; then `from` may lie anywhere.
    unsafe fn load_if(mask: Self::Mask, from: *const f32) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `self + a b`, rounded once.
    unsafe fn plus(self, a: Self, b: Self) -> Self;
    /// `self - a b`, rounded once.
    unsafe fn minus(self, a: Self, b: Self) -> Self;
}

macro_rules! simd {
    ($vector:ty, $lanes:literal, $mask:ty, $splat:ident, $load:ident, $store:ident, $add:ident, $sub:ident, $mul:ident,
     $plus:ident, $minus:ident, |$on:ident| $to_mask:expr, |$given:ident, $from:ident| $load_if:expr,
     |$base:ident, $stride:ident| $gather:expr) => {
        // SAFETY: the trait's: the processor has the set, and pointers hold a vector.
        impl Simd for $vector {
            const LANES: usize = $lanes;
            type Mask = $mask;
            #[inline(always)]
            unsafe fn splat(value: f32) -> Self {
                unsafe { $splat(value) }
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                unsafe { $load(from) }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                unsafe { $store(to, self) }
            }
            #[inline(always)]
            unsafe fn mask($on: bool) -> $mask {
                $to_mask
            }
            #[inline(always)]
            unsafe fn gather($base: *const f32, $stride: usize) -> Self {
                unsafe { $gather }
            }
            #[inline(always)]
            unsafe fn load_if($given: $mask, $from: *const f32) -> Self {
                unsafe { $load_if }
            }
            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                unsafe { $add(self, other) }
            }
            #[inline(always)]
            unsafe fn sub(self, other: Self) -> Self {
                unsafe { $sub(self, other) }
            }
            #[inline(always)]
            unsafe fn mul(self, other: Self) -> Self {
                unsafe { $mul(self, other) }
            }
            #[inline(always)]
            unsafe fn plus(self, a: Self, b: Self) -> Self {
                unsafe { $plus(a, b, self) }
            }
            #[inline(always)]
            unsafe fn minus(self, a: Self, b: Self) -> Self {
                unsafe { $minus(a, b, self) }
            }
        }
    };
}

simd!(
    __m512,
    16,
    u16,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_add_ps,
    _mm512_sub_ps,
    _mm512_mul_ps,
    _mm512_fmadd_ps,
    _mm512_fnmadd_ps,
    |on| if on { u16::MAX } else { 0 },
    |mask, from| _mm512_maskz_loadu_ps(mask, from),
    |from, stride| {
        let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        _mm512_i32gather_ps::<4>(_mm512_mullo_epi32(lanes, _mm512_set1_epi32(stride as i32)), from)
    }
);
simd!(
    __m256,
    8,
    __m256i,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_add_ps,
    _mm256_sub_ps,
    _mm256_mul_ps,
    _mm256_fmadd_ps,
    _mm256_fnmadd_ps,
    |on| unsafe { _mm256_set1_epi32(-i32::from(on)) },
    |mask, from| _mm256_maskload_ps(from, mask),
    |from, stride| {
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_i32gather_ps::<4>(from, _mm256_mullo_epi32(lanes, _mm256_set1_epi32(stride as i32)))
    }
);

/// Asks for the cache line at `at`, which may lie anywhere, in the second-level cache.
#[inline(always)]
pub(super) fn prefetch(at: *const u8) {
    // SAFETY: part of every x86-64 processor; never faults.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
}

/// One float as a vector, so that tests reach the transforms number by number.
#[cfg(test)]
impl Simd for f32 {
    const LANES: usize = 1;
    type Mask = bool;
    unsafe fn splat(value: f32) -> Self {
        value
    }
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the trait's.
        unsafe { *from }
    }
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the trait's.
        unsafe { *to = self }
    }
    unsafe fn mask(on: bool) -> bool {
        on
    }
    unsafe fn gather(from: *const f32, _: usize) -> Self {
        // SAFETY: the trait's.
        unsafe { *from }
    }
    unsafe fn load_if(mask: bool, from: *const f32) -> Self {
        // SAFETY: the trait's.
        if mask { unsafe { *from } } else { 0.0 }
    }
    unsafe fn add(self, other: Self) -> Self {
        self + other
    }
    unsafe fn sub(self, other: Self) -> Self {
        self - other
    }
    unsafe fn mul(self, other: Self) -> Self {
        self * other
    }
    unsafe fn plus(self, a: Self, b: Self) -> Self {
        a.mul_add(b, self)
    }
    unsafe fn minus(self, a: Self, b: Self) -> Self {
        (-a).mul_add(b, self)
    }
}
