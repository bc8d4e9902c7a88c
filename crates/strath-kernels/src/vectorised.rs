//! Plain loops, compiled once for each instruction set.
//!
//! The compiler vectorises plain loops over slices by itself, but only with the instructions that the whole build may use:
//! SSE2. [`vectorised!`] compiles a function body once more for AVX2 and for AVX-512 and picks at run time. Rust neither
//! contracts `a * b + c` nor reorders sums of floats, so the three have equal bits, whatever the length of their vectors: a
//! body that wants to be vectorised spells its partial sums out.
//!
//! What a body calls must be inlined into it, or it is compiled for the plainest set alone: helpers are `#[inline(always)]`, and
//! long bodies of loops stand in `for`, not in closures for `for_each`.

/// Compiles functions for every [`Isa`](crate::isa::Isa); each gets one more argument in front, which one to run.
///
/// ```text
/// vectorised! {
///     fn double(x: &mut [f32]) {          // becomes fn double(isa: Isa, x: &mut [f32])
///         x.iter_mut().for_each(|x| *x *= 2.0);
///     }
/// }
/// ```
macro_rules! vectorised {
    ($(
        $(#[$attribute:meta])*
        $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block
    )*) => {$(
        $(#[$attribute])*
        #[allow(unsafe_code, reason = "code for an instruction set runs where the processor has it")]
        $visibility fn $name(isa: $crate::isa::Isa, $($argument: $type),*) $(-> $result)? {
            #[allow(clippy::inline_always, reason = "it is compiled anew by each of its callers, with their instructions")]
            #[inline(always)]
            fn body($($argument: $type),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($argument: $type),*) $(-> $result)? {
                body($($argument),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            fn avx512($($argument: $type),*) $(-> $result)? {
                body($($argument),*)
            }

            assert!(isa <= $crate::isa::Isa::best(), "the processor has the instruction set");
            match isa {
                // SAFETY: the assertion above: the processor has AVX2 and FMA.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Isa::Avx2 => unsafe { avx2($($argument),*) },
                // SAFETY: the assertion above: the processor has AVX-512 F, BW, DQ and VL, AVX2 and FMA.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Isa::Avx512 => unsafe { avx512($($argument),*) },
                _ => body($($argument),*),
            }
        }
    )*};
}

pub(crate) use vectorised;

#[cfg(test)]
pub(crate) mod tests {
    use crate::isa::Isa;
    use crate::product::tests::values;

    /// Computes with every instruction set of this processor and asserts that the bits are the same.
    pub(crate) fn same_bits_by_every_isa(compute: impl Fn(Isa) -> Vec<f32>) -> Vec<f32> {
        let portable = compute(Isa::Portable);
        for isa in Isa::ALL.into_iter().filter(|isa| *isa <= Isa::best()) {
            let got = compute(isa);
            assert_eq!(got.len(), portable.len());
            let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
            let differs = (0..got.len()).find(|at| !same(got[*at], portable[*at]));
            assert_eq!(differs, None, "{isa} differs from portable at this value");
        }
        portable
    }

    vectorised! {
        /// `sum of x y`, in lanes of its own.
        fn product(x: &[f32], y: &[f32]) -> f32 {
            let mut lanes = [0.0f32; 16];
            for (x, y) in x.as_chunks::<16>().0.iter().zip(y.as_chunks::<16>().0) {
                lanes.iter_mut().zip(x.iter().zip(y)).for_each(|(sum, (x, y))| *sum += x * y);
            }
            lanes.iter().sum()
        }
    }

    #[test]
    fn a_multiplication_and_an_addition_are_not_contracted_by_any_set() {
        let (x, y) = (values(1600, 1), values(1600, 2));
        let got = same_bits_by_every_isa(|isa| vec![product(isa, &x, &y)]);
        let want: f64 = x.iter().zip(&y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
        assert!((f64::from(got[0]) - want).abs() < 1e-4);
    }

    #[test]
    #[should_panic(expected = "the processor has the instruction set")]
    #[cfg(not(target_arch = "x86_64"))]
    fn a_set_that_the_processor_lacks_is_refused() {
        product(Isa::Avx512, &[], &[]);
    }
}
