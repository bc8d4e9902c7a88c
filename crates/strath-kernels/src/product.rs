//! Matrix products, batched, of either operand or its transpose.

#![allow(unsafe_code, reason = "the matrix product of the gemm crate takes raw pointers")]

use gemm::Parallelism;

use crate::threads::for_chunks;

/// Rows of a product that one thread computes in one go.
const ROWS: usize = 64;
/// Terms of a sum that are added in one call. The gemm crate cuts a longer sum where this machine's caches want it; cut here, the
/// bits do not depend on them.
const INNER: usize = 512;

/// Whether an operand is taken as it lies or transposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// As it lies, row-major.
    Plain,
    /// Its transpose.
    Transposed,
}

impl Side {
    /// The other one.
    #[must_use]
    pub fn flipped(self) -> Self {
        match self {
            Self::Plain => Self::Transposed,
            Self::Transposed => Self::Plain,
        }
    }
}

/// Sizes of a product `C [rows, columns] = A [rows, inner] B [inner, columns]`, of each of `batch` pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Number of products side by side.
    pub batch: usize,
    /// Rows of A and C.
    pub rows: usize,
    /// Columns of A, rows of B.
    pub inner: usize,
    /// Columns of B and C.
    pub columns: usize,
}

/// `C = A B`, or with `accumulate` `C += A B`, of one pair on the calling thread.
///
/// A is [rows, inner] (or its transpose [inner, rows], by `a_side`), B is [inner, columns] (or its transpose). The bits are a
/// function of the sizes and values alone.
///
/// # Panics
/// Where a slice has another length than its sizes say.
pub fn multiply(
    (rows, inner, columns): (usize, usize, usize),
    (a, a_side): (&[f32], Side),
    (b, b_side): (&[f32], Side),
    c: &mut [f32],
    accumulate: bool,
) {
    assert_eq!(a.len(), rows * inner, "the left operand is rows x inner");
    assert_eq!(b.len(), inner * columns, "the right operand is inner x columns");
    assert_eq!(c.len(), rows * columns, "the product is rows x columns");
    let strides = |side: Side, height: usize, width: usize| match side {
        Side::Plain => (1, width as isize),
        Side::Transposed => (height as isize, 1),
    };
    let (a_columns, a_rows) = strides(a_side, rows, inner);
    let (b_columns, b_rows) = strides(b_side, inner, columns);
    for from in (0..inner.max(1)).step_by(INNER) {
        let terms = INNER.min(inner - from);
        // SAFETY: every element that the strides reach lies inside its slice, as the lengths were checked above: for a plain
        // matrix of height h and width w the largest offset is (h - 1) w + (w - 1), for a transposed one the same with h and w
        // exchanged; terms from .. from + terms lie inside 0 .. inner. `c` is borrowed mutably, so it overlaps neither operand.
        unsafe {
            gemm::gemm(
                rows,
                columns,
                terms,
                c.as_mut_ptr(),
                1,
                columns as isize,
                accumulate || from > 0,
                a.as_ptr().offset(from as isize * a_columns),
                a_columns,
                a_rows,
                b.as_ptr().offset(from as isize * b_rows),
                b_columns,
                b_rows,
                1.0,
                1.0,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
    }
}

/// `C = A B` of each of `batch` pairs, on the compute threads: in pieces of at most 64 rows.
///
/// # Panics
/// Where a slice has another length than the sizes say.
pub fn batched(sizes: Sizes, (a, a_side): (&[f32], Side), (b, b_side): (&[f32], Side), c: &mut [f32]) {
    let Sizes { batch, rows, inner, columns } = sizes;
    assert_eq!(a.len(), batch * rows * inner, "the left operands are batch x rows x inner");
    assert_eq!(b.len(), batch * inner * columns, "the right operands are batch x inner x columns");
    assert_eq!(c.len(), batch * rows * columns, "the products are batch x rows x columns");
    if batch > 1 || rows <= ROWS || a_side == Side::Transposed {
        // Rows of a transposed operand do not lie together, so such a product is one piece.
        for_chunks(c, rows * columns, |k, c| {
            let (a, b) = (&a[k * rows * inner..][..rows * inner], &b[k * inner * columns..][..inner * columns]);
            multiply((rows, inner, columns), (a, a_side), (b, b_side), c, false);
        });
    } else {
        for_chunks(c, ROWS * columns, |k, c| {
            let own = c.len() / columns.max(1);
            multiply((own, inner, columns), (&a[k * ROWS * inner..][..own * inner], a_side), (b, b_side), c, false);
        });
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::threads::tests::same_bits;

    pub(crate) fn values(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    /// Largest difference from a float64 result, relative to its largest value.
    pub(crate) fn error(got: &[f32], want: &[f64]) -> f64 {
        assert_eq!(got.len(), want.len());
        let largest = want.iter().fold(1e-30f64, |m, v| m.max(v.abs()));
        got.iter().zip(want).fold(0.0f64, |m, (g, w)| m.max((f64::from(*g) - w).abs())) / largest
    }

    fn naive(sizes: Sizes, (a, a_side): (&[f32], Side), (b, b_side): (&[f32], Side)) -> Vec<f64> {
        let Sizes { batch, rows, inner, columns } = sizes;
        let mut c = Vec::new();
        for k in 0..batch {
            let (a, b) = (&a[k * rows * inner..], &b[k * inner * columns..]);
            for i in 0..rows {
                for j in 0..columns {
                    let left =
                        |t: usize| f64::from(if a_side == Side::Plain { a[i * inner + t] } else { a[t * rows + i] });
                    let right =
                        |t: usize| f64::from(if b_side == Side::Plain { b[t * columns + j] } else { b[j * inner + t] });
                    c.push((0..inner).map(|t| left(t) * right(t)).sum());
                }
            }
        }
        c
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn products_agree_with_the_naive_one_and_do_not_depend_on_threads(
            batch in 1usize..4, rows in 0usize..150, inner in 0usize..40, columns in 0usize..40, sides in 0..4, seed: u32
        ) {
            let side = |bit: i32| if sides & bit == 0 { Side::Plain } else { Side::Transposed };
            let sizes = Sizes { batch, rows, inner, columns };
            let (a, b) = (values(batch * rows * inner, seed), values(batch * inner * columns, seed ^ 7));
            let got = same_bits(|| {
                let mut c = vec![f32::NAN; batch * rows * columns];
                batched(sizes, (&a, side(1)), (&b, side(2)), &mut c);
                c
            });
            prop_assert!(error(&got, &naive(sizes, (&a, side(1)), (&b, side(2)))) < 1e-5);
        }
    }

    #[test]
    fn a_long_sum_is_added_in_blocks_of_fixed_length() {
        // Large enough in every direction that the library would block it by its own rules.
        let (rows, inner, columns) = (80, 1200, 80);
        let (a, b) = (values(rows * inner, 1), values(inner * columns, 2));
        let mut whole = vec![0.0; rows * columns];
        multiply((rows, inner, columns), (&a, Side::Plain), (&b, Side::Plain), &mut whole, false);
        let mut blocks = vec![0.0; rows * columns];
        for from in (0..inner).step_by(INNER) {
            let terms = INNER.min(inner - from);
            let part: Vec<f32> = a.chunks_exact(inner).flat_map(|row| &row[from..from + terms]).copied().collect();
            let b = &b[from * columns..][..terms * columns];
            multiply((rows, terms, columns), (&part, Side::Plain), (b, Side::Plain), &mut blocks, from > 0);
        }
        assert_eq!(whole, blocks);
    }

    #[test]
    fn accumulation_adds_to_what_is_there() {
        let mut c = vec![10.0, 20.0];
        multiply((1, 2, 2), (&[1.0, 2.0], Side::Plain), (&[1.0, 2.0, 3.0, 4.0], Side::Plain), &mut c, true);
        assert_eq!(c, [17.0, 30.0]);
    }
}
