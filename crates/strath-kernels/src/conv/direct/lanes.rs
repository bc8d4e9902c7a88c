//! Vectors of floats: the few operations that the kernels are written in, for each instruction set.

use std::arch::x86_64::{
    __m256, __m256i, __m512, _mm256_add_ps, _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256,
    _mm256_maskload_ps, _mm256_maskstore_ps, _mm256_setzero_ps, _mm256_storeu_ps, _mm512_add_ps, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
};

/// A vector length with its operations.
///
/// # Safety
/// Every method needs a processor that has the instruction set, and code compiled for it around the call: the methods are
/// inlined into functions that enable it. Pointers are read or written for as many floats as the method says.
pub(crate) trait Lanes {
    /// The vector.
    type V: Copy;
    /// Floats in a vector.
    const N: usize;

    /// Zeros.
    unsafe fn zero() -> Self::V;
    /// One float in every lane.
    unsafe fn splat(from: *const f32) -> Self::V;
    /// `N` floats.
    unsafe fn load(from: *const f32) -> Self::V;
    /// The first `count` floats, `1..=N`; zeros in the other lanes.
    unsafe fn load_first(from: *const f32, count: usize) -> Self::V;
    /// Writes `N` floats.
    unsafe fn store(to: *mut f32, v: Self::V);
    /// Writes the first `count` floats, `1..=N`.
    unsafe fn store_first(to: *mut f32, v: Self::V, count: usize);
    /// `a + b`.
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    /// `a b + c`, rounded once.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
}

/// AVX-512 F.
pub(crate) struct Avx512;

/// AVX2 and FMA.
pub(crate) struct Avx2;

// SAFETY (of the intrinsics in both): the caller has the instruction set and vouches for the pointers, as the trait says.
impl Lanes for Avx512 {
    type V = __m512;
    const N: usize = 16;

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn splat(from: *const f32) -> __m512 {
        unsafe { _mm512_set1_ps(*from) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> __m512 {
        unsafe { _mm512_maskz_loadu_ps(u16::MAX >> (16 - count), from) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, v: __m512) {
        unsafe { _mm512_storeu_ps(to, v) }
    }

    #[inline(always)]
    unsafe fn store_first(to: *mut f32, v: __m512, count: usize) {
        unsafe { _mm512_mask_storeu_ps(to, u16::MAX >> (16 - count), v) }
    }

    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
}

/// Eight set lanes, then eight that are not: the mask of the first n begins at 8 - n.
static FIRST: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// The mask of the first `count` of 8 lanes, `1..=8`.
#[inline(always)]
unsafe fn first(count: usize) -> __m256i {
    // SAFETY: 8 integers from 8 - count on lie inside the 16.
    unsafe { _mm256_loadu_si256(FIRST.as_ptr().add(8 - count).cast()) }
}

impl Lanes for Avx2 {
    type V = __m256;
    const N: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> __m256 {
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn splat(from: *const f32) -> __m256 {
        unsafe { _mm256_broadcast_ss(&*from) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> __m256 {
        unsafe { _mm256_maskload_ps(from, first(count)) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, v: __m256) {
        unsafe { _mm256_storeu_ps(to, v) }
    }

    #[inline(always)]
    unsafe fn store_first(to: *mut f32, v: __m256, count: usize) {
        unsafe { _mm256_maskstore_ps(to, first(count), v) }
    }

    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
}

/// Hides from the compiler where a pointer comes from, at no cost.
///
/// Without it LLVM sees that the taps of a row read the same inputs, keeps all of them in registers and spills the sums.
#[allow(clippy::pointers_in_nomem_asm_block, reason = "no instruction, so nothing is read through it")]
#[inline(always)]
pub(crate) fn opaque(pointer: *const f32) -> *const f32 {
    let mut pointer = pointer;
    // SAFETY: no instruction at all. Not `pure`: two of them with the same operand must not be merged.
    unsafe { std::arch::asm!("/* {0} */", inout(reg) pointer, options(nomem, nostack, preserves_flags)) };
    pointer
}

/// Asks for the line of cache at a pointer, to be used soon; any address will do.
///
/// Not the intrinsic: LLVM takes that for an access to memory, orders loads around it, and spills.
#[allow(
    clippy::pointers_in_nomem_asm_block,
    reason = "a prefetch neither reads nor writes as far as a program can tell"
)]
#[inline(always)]
pub(crate) fn fetch(pointer: *const f32) {
    // SAFETY: a prefetch never faults.
    unsafe { std::arch::asm!("prefetcht1 [{0}]", in(reg) pointer, options(nomem, nostack, preserves_flags)) };
}

/// Repeats a block for `i = 0, 1, ..., n - 1`, `n <= 32` and known at compile time, as straight-line code: arrays of vectors
/// indexed by `i` become registers without relying on the compiler to unroll a loop first.
macro_rules! unroll {
    ($i:ident < $n:expr => $body:block) => {
        unroll!(@ $i, $n, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31)
    };
    (@ $i:ident, $n:expr, $body:block, $($k:literal)*) => {
        $({
            let $i: usize = $k;
            if $i < $n $body
        })*
    };
}

/// [`unroll`] for `n <= 2`, which nests without much text.
macro_rules! unroll2 {
    ($i:ident < $n:expr => $body:block) => {
        unroll!(@ $i, $n, $body, 0 1)
    };
}

/// [`unroll`] for `n <= 3`.
macro_rules! unroll3 {
    ($i:ident < $n:expr => $body:block) => {
        unroll!(@ $i, $n, $body, 0 1 2)
    };
}

/// [`unroll`] for `n <= 8`.
macro_rules! unroll8 {
    ($i:ident < $n:expr => $body:block) => {
        unroll!(@ $i, $n, $body, 0 1 2 3 4 5 6 7)
    };
}

pub(crate) use {unroll, unroll2, unroll3, unroll8};
