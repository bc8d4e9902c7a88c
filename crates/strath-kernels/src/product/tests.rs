use proptest::prelude::*;

use super::*;
use crate::threads::tests::same_bits;
use crate::vectorised::tests::same_bits_by_every_isa;

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
                let left = |t: usize| f64::from(if a_side == Side::Plain { a[i * inner + t] } else { a[t * rows + i] });
                let right =
                    |t: usize| f64::from(if b_side == Side::Plain { b[t * columns + j] } else { b[j * inner + t] });
                c.push((0..inner).map(|t| left(t) * right(t)).sum());
            }
        }
    }
    c
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn products_agree_with_the_naive_one_and_have_the_same_bits_by_every_instruction_set_and_number_of_threads(
        batch in 1usize..3, rows in 0usize..220, inner in 0usize..70, columns in 0usize..110, sides in 0..4, seed: u32
    ) {
        let side = |bit: i32| if sides & bit == 0 { Side::Plain } else { Side::Transposed };
        let sizes = Sizes { batch, rows, inner, columns };
        let (a, b) = (values(batch * rows * inner, seed), values(batch * inner * columns, seed ^ 7));
        let got = same_bits_by_every_isa(|isa| {
            same_bits(|| {
                let mut c = vec![f32::NAN; batch * rows * columns];
                batched_by(isa, sizes, (&a, side(1)), (&b, side(2)), &mut c);
                c
            })
        });
        prop_assert!(error(&got, &naive(sizes, (&a, side(1)), (&b, side(2)))) < 1e-5);
    }
}

#[test]
fn a_long_sum_is_added_in_blocks_of_fixed_length() {
    // 1200 terms are five blocks of 240; few rows of C and many, either side.
    for (rows, columns) in [(5, 40), (200, 40)] {
        let inner = 1200;
        let (a, b) = (values(rows * inner, 1), values(inner * columns, 2));
        let mut want = vec![0.0; rows * columns];
        for (at, want) in want.iter_mut().enumerate() {
            let term = |k: usize| (a[at / columns * inner + k], b[k * columns + at % columns]);
            for from in (0..inner).step_by(240) {
                *want += (from..from + 240).fold(0.0f32, |sum, k| term(k).0.mul_add(term(k).1, sum));
            }
        }
        let turned = |values: &[f32], width: usize| -> Vec<f32> {
            (0..values.len())
                .map(|at| values[at % (values.len() / width) * width + at / (values.len() / width)])
                .collect()
        };
        let (a_turned, b_turned) = (turned(&a, inner), turned(&b, columns));
        for (a, b) in [
            ((&a, Side::Plain), (&b, Side::Plain)),
            ((&a, Side::Plain), (&b_turned, Side::Transposed)),
            ((&a_turned, Side::Transposed), (&b, Side::Plain)),
            ((&a_turned, Side::Transposed), (&b_turned, Side::Transposed)),
        ] {
            let got = same_bits_by_every_isa(|isa| {
                let mut c = vec![0.0; rows * columns];
                batched_by(isa, Sizes::one(rows, inner, columns), (a.0, a.1), (b.0, b.1), &mut c);
                c
            });
            assert_eq!(got, want);
        }
    }
}

#[test]
fn rows_that_lie_apart_have_the_bits_of_rows_that_do_not() {
    for (columns, b_side) in [(5, Side::Transposed), (5, Side::Plain), (48, Side::Plain)] {
        let (rows, inner) = (7, 600);
        let (a, b) = (values(rows * inner, 1), values(columns * inner, 2));
        let width = if b_side == Side::Plain { columns } else { inner };
        let apart = |values: &[f32], width: usize, stride: usize| -> Vec<f32> {
            let mut wide = vec![f32::NAN; values.len() / width * stride];
            wide.chunks_mut(stride)
                .zip(values.chunks(width))
                .for_each(|(wide, row)| wide[..width].copy_from_slice(row));
            wide
        };
        let (a_apart, b_apart) = (apart(&a, inner, 611), apart(&b, width, width + 2));
        for isa in Isa::ALL.into_iter().filter(|isa| *isa <= Isa::best()) {
            let mut want = vec![0.0; rows * columns];
            batched_by(isa, Sizes::one(rows, inner, columns), (&a, Side::Plain), (&b, b_side), &mut want);
            let mut c = vec![9.0; rows * (columns + 3)];
            small(
                isa,
                (rows, inner, columns),
                (
                    Strided { values: &a_apart, stride: 611, side: Side::Plain },
                    Strided { values: &b_apart, stride: width + 2, side: b_side },
                ),
                (&mut c, columns + 3),
            );
            for (c, want) in c.chunks(columns + 3).zip(want.chunks(columns)) {
                assert_eq!((&c[..columns], &c[columns..]), (want, [9.0; 3].as_slice()), "{isa}");
            }
        }
    }
}

#[test]
fn every_row_is_finished_once_its_sums_are_complete() {
    for (rows, a_side) in [(300, Side::Plain), (40, Side::Plain), (300, Side::Transposed)] {
        let (inner, columns) = (520, 33);
        let (a, b) = (values(rows * inner, 1), values(inner * columns, 2));
        let sizes = Sizes::one(rows, inner, columns);
        let got = same_bits_by_every_isa(|isa| {
            same_bits(|| {
                let (mut c, mut beside) = (vec![0.0; rows * columns], vec![0.0; rows * columns]);
                let (a, b) =
                    (Strided::whole(&a, a_side, (rows, inner)), Strided::whole(&b, Side::Transposed, (inner, columns)));
                product(isa, sizes, (a, b), (&mut c, &mut beside), &|first, c, beside| {
                    for (at, (c, beside)) in c.iter_mut().zip(beside).enumerate() {
                        *beside += *c;
                        *c = (first + at / columns) as f32;
                    }
                });
                assert!(c.iter().enumerate().all(|(at, c)| *c == (at / columns) as f32));
                beside
            })
        });
        let mut want = vec![0.0; rows * columns];
        batched(sizes, (&a, a_side), (&b, Side::Transposed), &mut want);
        assert_eq!(got, want);
    }
}

#[test]
#[should_panic(expected = "lie inside of 5")]
fn a_matrix_that_ends_outside_of_its_slice_is_refused() {
    let a = Strided { values: &[0.0; 5], stride: 4, side: Side::Plain };
    let b = Strided { values: &[0.0; 4], stride: 2, side: Side::Plain };
    small(Isa::active(), (2, 2, 2), (a, b), (&mut [0.0; 4], 2));
}
