//! Values x [rows, channels] with one number a channel: what a normalisation is made of where it is to be differentiated twice.
//!
//! One pass over memory each. Sums are taken in f32 over pieces of a fixed size and folded into f64, so bits depend neither on the number of threads nor
//! on the instruction set.

use crate::columns::{PIECE, add_rows, from_the_last, lanes, narrow, repeated, totals};
use crate::isa::Isa;
use crate::vectorised::vectorised;

/// `y = x a + b`, a and b of each channel.
///
/// # Panics
/// Where the slices' lengths differ, or are no multiple of the channels.
pub fn affine(a: &[f32], b: &[f32], x: &[f32], y: &mut [f32]) {
    assert!(a.len() == b.len() && x.len() == y.len() && x.len().is_multiple_of(a.len()), "x is rows x channels");
    let (isa, a, b) = (Isa::active(), repeated(a), repeated(b));
    from_the_last(y, a.len() * PIECE, |at, y| affine_piece(isa, &a, &b, &x[at..][..y.len()], y));
}

/// The sums of each of `channels` channels over all rows.
pub fn sums(channels: usize, x: &[f32]) -> Vec<f32> {
    let (isa, size) = (Isa::active(), lanes(channels) * PIECE);
    narrow(totals(channels, x.chunks(size), |x, [sums]: &mut [Vec<f32>; 1]| add(isa, x, sums)))
}

/// The sums of each of `channels` channels of `x y` over all rows.
///
/// # Panics
/// Where the slices' lengths differ.
pub fn dots(channels: usize, x: &[f32], y: &[f32]) -> Vec<f32> {
    assert_eq!(x.len(), y.len(), "rows x channels each");
    let (isa, size) = (Isa::active(), lanes(channels) * PIECE);
    let pieces = x.chunks(size).zip(y.chunks(size));
    narrow(totals(channels, pieces, |(x, y), [sums]: &mut [Vec<f32>; 1]| add_products(isa, x, y, sums)))
}

vectorised! {
    fn affine_piece(a: &[f32], b: &[f32], x: &[f32], y: &mut [f32]) {
        for (y, x) in y.chunks_mut(a.len()).zip(x.chunks(a.len())) {
            for (((y, x), a), b) in y.iter_mut().zip(x).zip(a).zip(b) {
                *y = x * a + b;
            }
        }
    }

    fn add(x: &[f32], sums: &mut [f32]) {
        add_rows(x, sums);
    }

    fn add_products(x: &[f32], y: &[f32], sums: &mut [f32]) {
        for (x, y) in x.chunks(sums.len()).zip(y.chunks(sums.len())) {
            for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
                *sum += x * y;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::tests::{error, values};
    use crate::threads::tests::same_bits;

    #[test]
    fn each_is_what_it_is_in_float64_and_threads_change_nothing() {
        for (channels, rows) in [(16, 2100), (3, 6000), (10, 41), (300, 70), (1, 1)] {
            let (x, y) = (values(rows * channels, 1), values(rows * channels, 2));
            let (a, b) = (values(channels, 3), values(channels, 4));
            let affine = same_bits(|| {
                let mut out = vec![f32::NAN; x.len()];
                affine(&a, &b, &x, &mut out);
                out
            });
            let want = |f: &dyn Fn(usize) -> f64| (0..x.len()).map(f).collect::<Vec<f64>>();
            let wide = |v: &[f32], at: usize| f64::from(v[at]);
            assert!(
                error(&affine, &want(&|at| wide(&x, at) * wide(&a, at % channels) + wide(&b, at % channels))) < 2e-7
            );
            let column = |f: &dyn Fn(usize) -> f64| {
                (0..channels).map(|c| (0..rows).map(|row| f(row * channels + c)).sum()).collect::<Vec<f64>>()
            };
            assert!(error(&same_bits(|| sums(channels, &x)), &column(&|at| wide(&x, at))) < 2e-6);
            let both = same_bits(|| dots(channels, &x, &y));
            assert!(error(&both, &column(&|at| wide(&x, at) * wide(&y, at))) < 2e-6);
        }
    }
}
