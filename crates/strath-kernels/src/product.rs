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

/// A matrix whose rows lie `stride` values apart, taken as it lies or transposed.
#[derive(Debug, Clone, Copy)]
pub struct Strided<'a> {
    /// From the first value of the first row on.
    pub values: &'a [f32],
    /// Distance of the rows' first values; at least the width.
    pub stride: usize,
    /// How it is taken.
    pub side: Side,
}

impl Strided<'_> {
    /// Strides of columns and of rows as a matrix of `height` x `width` (after a transposition).
    ///
    /// # Panics
    /// Where a value lies outside of the slice.
    fn strides(&self, height: usize, width: usize) -> (isize, isize) {
        let (rows, columns) = if self.side == Side::Plain { (height, width) } else { (width, height) };
        assert_inside(self.values.len(), (rows, columns), self.stride);
        match self.side {
            Side::Plain => (1, self.stride as isize),
            Side::Transposed => (self.stride as isize, 1),
        }
    }
}

fn assert_inside(values: usize, (rows, columns): (usize, usize), stride: usize) {
    let inside = rows == 0 || columns == 0 || (stride >= columns && (rows - 1) * stride + columns <= values);
    assert!(inside, "{rows} rows of {columns} values, {stride} apart, lie inside of {values}");
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
    let strided = |values, side, height, width| {
        let stride = if side == Side::Plain { width } else { height };
        Strided { values, stride, side }
    };
    let (a, b) = (strided(a, a_side, rows, inner), strided(b, b_side, inner, columns));
    multiply_strided((rows, inner, columns), a, b, (c, columns), accumulate);
}

/// [`multiply`] of operands whose rows lie apart, into a product whose rows lie `c_stride` apart; what lies between them is not
/// touched.
///
/// # Panics
/// Where a value would lie outside of its slice.
pub fn multiply_strided(
    (rows, inner, columns): (usize, usize, usize),
    a: Strided<'_>,
    b: Strided<'_>,
    (c, c_stride): (&mut [f32], usize),
    accumulate: bool,
) {
    let (a_columns, a_rows) = a.strides(rows, inner);
    let (b_columns, b_rows) = b.strides(inner, columns);
    assert_inside(c.len(), (rows, columns), c_stride);
    for from in (0..inner.max(1)).step_by(INNER) {
        let terms = INNER.min(inner - from);
        // SAFETY: every element that the strides reach lies inside its slice: of a matrix of height h and width w whose rows lie s
        // apart the farthest is (h - 1) s + (w - 1), which was checked above for A, B and C, for a transposed one with its own h
        // and w; terms from .. from + terms lie inside 0 .. inner. `c` is borrowed mutably, so it overlaps neither operand, and
        // s >= w, so that its rows do not overlap.
        unsafe {
            gemm::gemm(
                rows,
                columns,
                terms,
                c.as_mut_ptr(),
                1,
                c_stride as isize,
                accumulate || from > 0,
                a.values.as_ptr().offset(from as isize * a_columns),
                a_columns,
                a_rows,
                b.values.as_ptr().offset(from as isize * b_rows),
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

    /// Checks a gradient of `f` at `from` against central differences at a distance of `by`, within `tolerance` of the larger of
    /// the slope and 1.
    pub(crate) fn assert_slope(from: &[f32], got: &[f32], by: f64, tolerance: f64, f: &dyn Fn(&[f32]) -> f64) {
        for at in 0..from.len() {
            let moved = |by: f32| {
                let mut from = from.to_vec();
                from[at] += by;
                f(&from)
            };
            let slope = (moved(by as f32) - moved(-by as f32)) / (2.0 * by);
            assert!((slope - f64::from(got[at])).abs() < tolerance * slope.abs().max(1.0), "{slope} {}", got[at]);
        }
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
    fn rows_that_lie_apart_have_the_bits_of_rows_that_do_not() {
        let (rows, inner, columns) = (7, 600, 5);
        let (a, b) = (values(rows * inner, 1), values(columns * inner, 2));
        let mut want = vec![0.0; rows * columns];
        multiply((rows, inner, columns), (&a, Side::Plain), (&b, Side::Transposed), &mut want, false);
        let apart = |values: &[f32], width: usize, stride: usize| -> Vec<f32> {
            let mut wide = vec![f32::NAN; values.len() / width * stride];
            wide.chunks_mut(stride)
                .zip(values.chunks(width))
                .for_each(|(wide, row)| wide[..width].copy_from_slice(row));
            wide
        };
        let (a, b, mut c) = (apart(&a, inner, 611), apart(&b, inner, 602), vec![9.0; rows * 8]);
        multiply_strided(
            (rows, inner, columns),
            Strided { values: &a, stride: 611, side: Side::Plain },
            Strided { values: &b, stride: 602, side: Side::Transposed },
            (&mut c, 8),
            false,
        );
        for (c, want) in c.chunks(8).zip(want.chunks(columns)) {
            assert_eq!((&c[..columns], &c[columns..]), (want, [9.0; 3].as_slice()));
        }
    }

    #[test]
    #[should_panic(expected = "lie inside of 5")]
    fn a_matrix_that_ends_outside_of_its_slice_is_refused() {
        let a = Strided { values: &[0.0; 5], stride: 4, side: Side::Plain };
        multiply_strided(
            (2, 2, 2),
            a,
            Strided { values: &[0.0; 4], stride: 2, side: Side::Plain },
            (&mut [0.0; 4], 2),
            false,
        );
    }

    #[test]
    fn accumulation_adds_to_what_is_there() {
        let mut c = vec![10.0, 20.0];
        multiply((1, 2, 2), (&[1.0, 2.0], Side::Plain), (&[1.0, 2.0, 3.0, 4.0], Side::Plain), &mut c, true);
        assert_eq!(c, [17.0, 30.0]);
    }
}
