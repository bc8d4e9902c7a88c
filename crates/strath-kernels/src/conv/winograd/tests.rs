//! Against naive sums in f64, for every set that the processor has.

use proptest::prelude::*;

use super::f2::F2;
use super::f4::F4;
use super::forward::Forward;
use super::sixteen::Sixteen;
use super::tile::Tile;
use super::tiling::{Grid, Plane};
use super::weights::{self, View};
use super::{Tiles, backward_data, backward_weight, forward};
use crate::conv::Shape;
use crate::conv::tests::naive;
use crate::isa::Isa;
use crate::product::tests::{error, values};
use crate::threads::tests::same_bits;

fn sets() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| *isa > Isa::Portable && *isa <= Isa::best())
}

prop_compose! {
    fn any_shape()(
        images in 1usize..12, inputs in 1usize..5, height in 4usize..15, width in 4usize..15, outputs in 1usize..5,
        padding in 0usize..3,
    ) -> Shape {
        Shape { images, inputs: 16 * inputs, height, width, outputs: 16 * outputs, kernel: (3, 3), stride: 1, padding }
    }
}

/// Calls a kernel and returns what it wrote; whatever it left alone is NaN.
fn run(len: usize, kernel: impl Fn(&mut [f32]) -> bool) -> Vec<f32> {
    let mut out = vec![f32::NAN; len];
    assert!(kernel(&mut out));
    out
}

/// What a case computes, and which of its exact results it should be.
const PRODUCTS: [(&str, usize); 4] = [("y by 4x4", 0), ("dx", 1), ("dW", 2), ("y by 2x2", 0)];

struct Case {
    shape: Shape,
    x: Vec<f32>,
    weight: Vec<f32>,
    dy: Vec<f32>,
}

impl Case {
    fn new(shape: Shape, seed: u32) -> Self {
        let x = values(shape.images * shape.input_values(), seed);
        let weight = values(shape.weights(), seed ^ 1);
        let dy = values(shape.images * shape.output_values(), seed ^ 2);
        Self { shape, x, weight, dy }
    }

    /// y, dx and dW.
    fn exact(&self) -> [Vec<f64>; 3] {
        let Self { shape, x, weight, dy } = self;
        let (mut y64, mut dx64, mut dw64) = (vec![0.0; dy.len()], vec![0.0; x.len()], vec![0.0; weight.len()]);
        naive(shape, |y, i, w| {
            y64[y] += f64::from(x[i]) * f64::from(weight[w]);
            dx64[i] += f64::from(dy[y]) * f64::from(weight[w]);
            dw64[w] += f64::from(dy[y]) * f64::from(x[i]);
        });
        [y64, dx64, dw64]
    }

    fn forward(&self, isa: Isa, tiles: Tiles) -> Vec<f32> {
        let Self { shape, x, weight, dy } = self;
        run(dy.len(), |y| forward(isa, tiles, shape, x, weight, y))
    }

    /// What [`PRODUCTS`] names.
    fn computed(&self, isa: Isa) -> [Vec<f32>; 4] {
        let Self { shape, x, weight, dy } = self;
        [
            self.forward(isa, Tiles::Coarse),
            run(x.len(), |dx| backward_data(isa, shape, dy, weight, dx)),
            run(weight.len(), |dw| backward_weight(isa, shape, x, dy, dw)),
            self.forward(isa, Tiles::Fine),
        ]
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn all_three_agree_with_the_naive_sums_and_do_not_depend_on_threads(shape in any_shape(), seed: u32) {
        let (height, width) = shape.output();
        prop_assume!(height * width >= 8 * height.div_ceil(4) * width.div_ceil(4));
        let case = Case::new(shape, seed);
        let exact = case.exact();
        for isa in sets() {
            let computed = case.computed(isa);
            prop_assert!(same_bits(|| case.computed(isa).concat()) == computed.concat());
            for ((what, of), got) in PRODUCTS.iter().zip(&computed) {
                let error = error(got, &exact[*of]);
                prop_assert!(error < 5e-6, "{} of {:?} on {}: {}", what, case.shape, isa, error);
            }
        }
    }
}

#[test]
fn a_batch_split_anywhere_gives_the_same_outputs_and_input_gradients() {
    let shape =
        Shape { images: 19, inputs: 32, height: 7, width: 9, outputs: 48, kernel: (3, 3), stride: 1, padding: 1 };
    let case = Case::new(shape, 3);
    let (x_image, y_image) = (shape.input_values(), shape.output_values());
    for isa in sets() {
        let [y, dx, _, fine] = case.computed(isa);
        for first in [1, 8, 11] {
            let (mut y_parts, mut dx_parts, mut fine_parts) = (Vec::new(), Vec::new(), Vec::new());
            for images in [0..first, first..shape.images] {
                let part = Case {
                    shape: Shape { images: images.len(), ..shape },
                    x: case.x[images.start * x_image..images.end * x_image].to_vec(),
                    weight: case.weight.clone(),
                    dy: case.dy[images.start * y_image..images.end * y_image].to_vec(),
                };
                let [y, dx, _, fine] = part.computed(isa);
                y_parts.extend(y);
                dx_parts.extend(dx);
                fine_parts.extend(fine);
            }
            assert!(y == y_parts && dx == dx_parts && fine == fine_parts, "split after {first} on {isa}");
        }
    }
}

#[test]
fn which_shapes_are_taken_follows_from_the_shape_alone() {
    let taken =
        Shape { images: 1, inputs: 16, height: 7, width: 7, outputs: 32, kernel: (3, 3), stride: 1, padding: 1 };
    let case = |shape: Shape, isa: Isa| {
        let Case { x, weight, dy, .. } = Case::new(shape, 0);
        let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), weight.clone());
        let each = [
            forward(isa, Tiles::Coarse, &shape, &x, &weight, &mut y),
            backward_data(isa, &shape, &dy, &weight, &mut dx),
            backward_weight(isa, &shape, &x, &dy, &mut dw),
        ];
        assert!(each.iter().all(|taken| *taken == each[0]), "{shape:?}");
        each[0]
    };
    for isa in sets() {
        for images in [0, 1, 40] {
            assert!(case(Shape { images, ..taken }, isa));
        }
        for other in [
            Shape { stride: 2, ..taken },
            Shape { kernel: (1, 1), ..taken },
            Shape { padding: 3, ..taken },
            Shape { inputs: 8, ..taken },
            Shape { outputs: 24, ..taken },
            Shape { height: 5, width: 5, ..taken },
        ] {
            assert!(!case(other, isa), "{other:?}");
        }
    }
    assert!(!case(taken, Isa::Portable));
}

/// y by tiles of a size, all images in one chunk, on 16 lanes; what lies beyond the scratch stays as it was.
#[allow(unsafe_code, reason = "the kernels of vectors")]
fn forward_on_sixteen_lanes<T: Tile>(case: &Case) -> Vec<f32> {
    let shape = case.shape;
    let Shape { images, inputs, outputs, padding, .. } = shape;
    let (height, width) = shape.output();
    let plan = Forward {
        x: Plane { height: shape.height, width: shape.width, channels: inputs },
        y: Plane { height, width, channels: outputs },
        grid: Grid::new((height, width), T::SIDE),
        padding,
        images,
    };
    let mut v = vec![f32::NAN; weights::floats::<T>(inputs, outputs)];
    let needed = plan.scratch::<T>(16);
    let mut scratch = vec![7.0f32; needed + 64];
    let mut y = vec![f32::NAN; case.dy.len()];
    // SAFETY: plain Rust; the slices have the sizes that the functions ask for.
    unsafe {
        weights::pack::<T, Sixteen>(case.weight.as_ptr(), View::Plain, (inputs, outputs), v.as_mut_ptr());
        plan.chunk::<T, Sixteen>(case.x.as_ptr(), v.as_ptr(), y.as_mut_ptr(), images, scratch.as_mut_ptr());
    }
    assert!(scratch[needed..].iter().all(|value| *value == 7.0), "{shape:?} writes beyond its scratch");
    y
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn sixteen_lanes_agree_with_the_naive_sums(shape in any_shape(), seed: u32) {
        let case = Case::new(shape, seed);
        let [exact, ..] = case.exact();
        for (what, got) in [("2x2", forward_on_sixteen_lanes::<F2>(&case)), ("4x4", forward_on_sixteen_lanes::<F4>(&case))] {
            let error = error(&got, &exact);
            prop_assert!(error < 5e-6, "{} of {:?}: {}", what, case.shape, error);
        }
        if Isa::best() == Isa::Avx512 {
            prop_assert!(case.forward(Isa::Avx512, Tiles::Fine) == forward_on_sixteen_lanes::<F2>(&case), "other bits than AVX-512's");
        }
    }
}

/// Root mean square of the differences, relative to that of the exact values.
fn mean_error(got: &[f32], want: &[f64]) -> f64 {
    let squares: f64 = got.iter().zip(want).map(|(g, w)| (f64::from(*g) - w).powi(2)).sum();
    (squares / want.iter().map(|w| w * w).sum::<f64>()).sqrt()
}

#[test]
fn the_errors_are_those_that_are_documented() {
    // Channels, side and images as in the module's table, which gives the errors of tiles of 4x4 and of 2x2.
    for (channels, side, images, coarse, fine) in [
        (16, 28, 16, 5.0e-7, 1.6e-7),
        (32, 14, 16, 6.1e-7, 2.1e-7),
        (64, 7, 16, 7.5e-7, 2.7e-7),
        (160, 8, 8, 13e-7, 4.3e-7),
    ] {
        let (inputs, outputs) = (channels, channels);
        let shape = Shape { images, inputs, height: side, width: side, outputs, kernel: (3, 3), stride: 1, padding: 1 };
        let case = Case::new(shape, 5);
        let exact = case.exact();
        for isa in sets() {
            let computed = case.computed(isa);
            for (((what, of), got), bound) in PRODUCTS.iter().zip(&computed).zip([coarse, coarse, 7.3e-7, fine]) {
                let error = mean_error(got, &exact[*of]);
                println!("{channels} channels, {isa}, {what}: {error:.1e}");
                assert!(error < 1.1 * bound, "{channels} channels, {isa}, {what}: {error:.1e}, documented {bound:.1e}");
            }
            let mut direct = vec![0.0; case.dy.len()];
            crate::conv::direct::forward(isa, &shape, &case.x, &case.weight, &mut direct);
            let (direct, fine) = (mean_error(&direct, &exact[0]), mean_error(&computed[3], &exact[0]));
            assert!(fine <= direct, "{channels} channels, {isa}: 2x2 {fine:.1e}, the plain sum {direct:.1e}");
        }
    }
}
