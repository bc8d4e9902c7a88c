//! Direct convolution for AVX-512 and AVX2: each sum of the definition is computed as it stands, in registers.
//!
//! ```text
//! axis       one axis: which taps of an output lie inside, and the adjoint's axis
//! lanes      vectors of 16 or 8 floats
//! pack       weights in the order in which the kernels read them
//! block      forward and backward-data: the kernels
//! correlate  forward and backward-data: an image cut into blocks
//! patch      backward-weight: the kernels
//! weight     backward-weight: images cut into patches
//! regroup    backward-weight: patches copied so that what a call reads lies side by side
//! scratch    memory kept from call to call
//! ```
//!
//! Backward-data is forward with other weights: at stride s, the s x s classes of input pixels with the same remainders are each
//! a correlation at stride 1 with the taps that reach them.
//!
//! Which kernel computes a sum, and in which order, follows from the shape without its number of images. Weight gradients are
//! summed by [`GROUP`] images, and the groups' sums in order.
#![allow(unsafe_code, reason = "SIMD kernels on raw pointers, tested under the naive sums")]
#![allow(
    clippy::inline_always,
    reason = "kernel bodies must be compiled with the features of the function around them"
)]

mod axis;
mod block;
mod correlate;
pub(crate) mod lanes;
mod pack;
mod patch;
mod regroup;
mod weight;

use axis::Axis;
use correlate::{Correlation, Images};
use pack::{Packing, Source};

use super::Shape;
use crate::isa::Isa;
use crate::scratch;
use crate::threads::for_chunks;

/// Images whose weight gradients are summed in one go.
const GROUP: usize = 8;

/// Images that a thread computes at a time: an even number, for the kernels of two images.
const IMAGES: usize = 2;

/// The kernels of an instruction set, where there are any and the processor has it.
fn kernels(isa: Isa) -> Option<(&'static block::Kernels, &'static patch::Kernels)> {
    match isa {
        _ if isa > Isa::best() => None,
        Isa::Portable => None,
        Isa::Avx2 => Some((&block::AVX2, &patch::AVX2)),
        Isa::Avx512 => Some((&block::AVX512, &patch::AVX512)),
    }
}

/// Rows and columns.
fn axes(shape: &Shape) -> (Axis, Axis) {
    let (height, width) = shape.output();
    let axis =
        |outputs, length, taps| Axis { outputs, length, taps, stride: shape.stride, before: shape.padding as isize };
    (axis(height, shape.height, shape.kernel.0), axis(width, shape.width, shape.kernel.1))
}

/// As [`super::forward`]; `false` where there are no kernels for the instruction set.
pub(super) fn forward(isa: Isa, shape: &Shape, x: &[f32], weight: &[f32], y: &mut [f32]) -> bool {
    let Some((kernels, _)) = kernels(isa) else { return false };
    let (rows, columns) = axes(shape);
    let Shape { inputs, outputs, kernel, .. } = *shape;
    let taps = kernel.0 * kernel.1;
    let correlation = Correlation {
        rows,
        columns,
        packing: Packing { outputs, channels: inputs, taps: kernel, lanes: kernels.lanes },
        weights: 0,
        y_start: 0,
        y_row: columns.outputs * outputs,
        y_pixel: outputs,
    };
    let source =
        Source { base: 0, output: (inputs * taps) as isize, channel: taps as isize, row: kernel.1 as isize, column: 1 };
    correlate(kernels, &[(correlation.flat(), source)], weight, (x, shape.input_values()), (y, shape.output_values()));
    true
}

/// As [`super::backward_data`]; `false` where there are no kernels for the instruction set.
pub(super) fn backward_data(isa: Isa, shape: &Shape, dy: &[f32], weight: &[f32], dx: &mut [f32]) -> bool {
    let Some((kernels, _)) = kernels(isa) else { return false };
    let (rows, columns) = axes(shape);
    let Shape { inputs, outputs, kernel, stride, .. } = *shape;
    let taps = kernel.0 * kernel.1;
    let mut start = 0;
    let mut classes = Vec::new();
    for (i, j) in (0..stride.min(shape.height)).flat_map(|i| (0..stride.min(shape.width)).map(move |j| (i, j))) {
        let (rows, first_row, row_step) = rows.adjoint(i);
        let (columns, first_column, column_step) = columns.adjoint(j);
        let packing =
            Packing { outputs: inputs, channels: outputs, taps: (rows.taps, columns.taps), lanes: kernels.lanes };
        let correlation = Correlation {
            rows,
            columns,
            packing,
            weights: start,
            y_start: (i * shape.width + j) * inputs,
            y_row: stride * shape.width * inputs,
            y_pixel: stride * inputs,
        };
        start += packing.floats();
        let source = Source {
            base: first_row * kernel.1 as isize + first_column,
            output: taps as isize,
            channel: (inputs * taps) as isize,
            row: row_step * kernel.1 as isize,
            column: column_step,
        };
        classes.push((correlation.flat(), source));
    }
    correlate(kernels, &classes, weight, (dy, shape.output_values()), (dx, shape.input_values()));
    true
}

/// All `correlations` of every image of `x` into `y`; images of so many floats.
fn correlate(
    kernels: &'static block::Kernels,
    correlations: &[(Correlation, Source)],
    weight: &[f32],
    (x, x_image): (&[f32], usize),
    (y, y_image): (&mut [f32], usize),
) {
    let floats = correlations.iter().map(|(correlation, _)| correlation.packing.floats()).sum();
    scratch::with(&scratch::SHARED, floats, |packed| {
        for (correlation, source) in correlations {
            correlation.packing.pack(source, weight, &mut packed[correlation.weights..]);
        }
        let packed = &*packed;
        let plans: Vec<_> = correlations.iter().map(|(correlation, _)| correlation.plan(kernels)).collect();
        for_chunks(y, IMAGES * y_image, |chunk, y| {
            let x = &x[chunk * IMAGES * x_image..];
            let images = Images { x: x.as_ptr(), x_image, y: y.as_mut_ptr(), y_image, count: y.len() / y_image.max(1) };
            for plan in &plans {
                // SAFETY: `kernels` found the instruction set; the public functions checked the lengths of the slices.
                unsafe { plan.run(packed, images) };
            }
        });
    });
}

/// As [`super::backward_weight`]; `false` where there are no kernels for the instruction set.
pub(super) fn backward_weight(isa: Isa, shape: &Shape, x: &[f32], dy: &[f32], dweight: &mut [f32]) -> bool {
    let Some((_, kernels)) = kernels(isa) else { return false };
    let (rows, columns) = axes(shape);
    let sums = weight::Sums::new(shape, kernels, rows, columns);
    let floats = sums.floats();
    scratch::with(&scratch::SHARED, floats * shape.images.div_ceil(GROUP).max(1), |groups| {
        for_chunks(groups, floats, |group, sum| {
            sum.fill(0.0);
            let images = group * GROUP..((group + 1) * GROUP).min(shape.images);
            // SAFETY: `kernels` found the instruction set; the public functions checked the lengths of the slices.
            unsafe { sums.add(images, x, dy, sum) };
        });
        let (total, others) = groups.split_at_mut(floats);
        for sum in others.chunks_exact(floats.max(1)) {
            total.iter_mut().zip(sum).for_each(|(total, value)| *total += value);
        }
        sums.unpack(total, dweight);
    });
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::conv::tests::{Sum, error, naive};
    use crate::product::tests::values;
    use crate::threads::tests::same_bits;

    /// Errors of forward, backward-data and backward-weight, each relative to its largest sum of absolute values.
    fn errors(isa: Isa, shape: &Shape, seed: u32) -> [f64; 3] {
        let x = values(shape.images * shape.input_values(), seed);
        let weight = values(shape.weights(), seed ^ 1);
        let dy = values(shape.images * shape.output_values(), seed ^ 2);
        let (mut y64, mut dx64, mut dw64) =
            (vec![Sum::default(); dy.len()], vec![Sum::default(); x.len()], vec![Sum::default(); weight.len()]);
        naive(shape, |y, i, w| {
            y64[y].add(x[i], weight[w]);
            dx64[i].add(dy[y], weight[w]);
            dw64[w].add(dy[y], x[i]);
        });
        let run = |len: usize, kernel: &dyn Fn(&mut [f32]) -> bool| {
            same_bits(|| {
                let mut out = vec![f32::NAN; len];
                assert!(kernel(&mut out));
                out
            })
        };
        [
            error(&run(dy.len(), &|y| forward(isa, shape, &x, &weight, y)), &y64),
            error(&run(x.len(), &|dx| backward_data(isa, shape, &dy, &weight, dx)), &dx64),
            error(&run(weight.len(), &|dw| backward_weight(isa, shape, &x, &dy, dw)), &dw64),
        ]
    }

    fn sets() -> impl Iterator<Item = Isa> {
        Isa::ALL.into_iter().filter(|isa| (Isa::Avx2..=Isa::best()).contains(isa))
    }

    prop_compose! {
        fn any_shape()(
            images in 1usize..12, inputs in 1usize..40, height in 1usize..12, width in 1usize..36, outputs in 1usize..50,
            kernel in (1usize..6, 1usize..6), stride in 1usize..4, padding in 0usize..4,
        ) -> Shape {
            Shape { images, inputs, height, width, outputs, kernel, stride, padding }
        }
    }

    prop_compose! {
        /// Those that have kernels of their own: 3x3, padding 1, widths of ResNet.
        fn tuned_shape()(
            images in 1usize..4, inputs in 1usize..20, height in 1usize..9, width in 4usize..36, outputs in 1usize..70,
            stride in 1usize..3,
        ) -> Shape {
            Shape { images, inputs, height, width, outputs, kernel: (3, 3), stride, padding: 1 }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(192))]
        #[test]
        fn any_shape_agrees_with_the_naive_sums_and_does_not_depend_on_threads(shape in any_shape(), seed: u32) {
            for isa in sets() {
                prop_assert!(errors(isa, &shape, seed).iter().all(|error| *error < 1e-6), "{isa} {shape:?}");
            }
        }

        #[test]
        fn forward_and_backward_data_do_not_depend_on_how_a_batch_is_split(shape in tuned_shape(), seed: u32) {
            let x = values(shape.images * shape.input_values(), seed);
            let weight = values(shape.weights(), seed ^ 1);
            let dy = values(shape.images * shape.output_values(), seed ^ 2);
            let one = Shape { images: 1, ..shape };
            for isa in sets() {
                let (mut y, mut dx) = (dy.clone(), x.clone());
                forward(isa, &shape, &x, &weight, &mut y);
                backward_data(isa, &shape, &dy, &weight, &mut dx);
                for image in 0..shape.images {
                    let inputs = image * shape.input_values()..(image + 1) * shape.input_values();
                    let outputs = image * shape.output_values()..(image + 1) * shape.output_values();
                    let (mut alone_y, mut alone_dx) = (dy[outputs.clone()].to_vec(), x[inputs.clone()].to_vec());
                    forward(isa, &one, &x[inputs.clone()], &weight, &mut alone_y);
                    backward_data(isa, &one, &dy[outputs.clone()], &weight, &mut alone_dx);
                    prop_assert_eq!(&y[outputs], &alone_y[..]);
                    prop_assert_eq!(&dx[inputs], &alone_dx[..]);
                }
            }
        }

        #[test]
        fn shapes_with_their_own_kernels_do_so_too(shape in tuned_shape(), seed: u32) {
            for isa in sets() {
                prop_assert!(errors(isa, &shape, seed).iter().all(|error| *error < 1e-6), "{isa} {shape:?}");
            }
        }
    }

    /// Relative to the largest value. Measured at C = 16, 32, 64, on both sets: forward 3.9e-7, 7.3e-7, 7.1e-7, backward-data
    /// 5.3e-7, 6.6e-7, 6.6e-7, backward-weight 1.6e-6, 7.8e-7, 5.2e-7.
    #[test]
    fn errors_at_the_widths_of_resnet_are_those_of_plain_sums() {
        for (channels, side) in [(16, 28), (32, 14), (64, 7)] {
            let shape = Shape {
                images: 4,
                inputs: channels,
                height: side,
                width: side,
                outputs: channels,
                kernel: (3, 3),
                stride: 1,
                padding: 1,
            };
            let x = values(shape.images * shape.input_values(), 1);
            let weight = values(shape.weights(), 2);
            let dy = values(shape.images * shape.output_values(), 3);
            let (mut y64, mut dx64, mut dw64) = (vec![0.0; dy.len()], vec![0.0; x.len()], vec![0.0; weight.len()]);
            naive(&shape, |y, i, w| {
                y64[y] += f64::from(x[i]) * f64::from(weight[w]);
                dx64[i] += f64::from(dy[y]) * f64::from(weight[w]);
                dw64[w] += f64::from(dy[y]) * f64::from(x[i]);
            });
            for isa in sets() {
                let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), weight.clone());
                forward(isa, &shape, &x, &weight, &mut y);
                backward_data(isa, &shape, &dy, &weight, &mut dx);
                backward_weight(isa, &shape, &x, &dy, &mut dw);
                let relative = crate::product::tests::error;
                let errors = [relative(&y, &y64), relative(&dx, &dx64), relative(&dw, &dw64)];
                assert!(errors[0] < 2e-6 && errors[1] < 2e-6 && errors[2] < 5e-6, "{isa} {channels} {errors:?}");
            }
        }
    }
}
