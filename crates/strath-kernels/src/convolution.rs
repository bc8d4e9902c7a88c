//! Convolution by im2col and matrix products: forward and both backwards, any kernel size, stride and padding.
//!
//! An image's columns X^ [C kh kw, P] hold, for each output pixel, the input values under the kernel; then with the weights
//! W [O, C kh kw] and for each image
//!
//! ```text
//! forward           y  [O, P]       = W X^
//! backward-data     dx              = col2im(W' dy)
//! backward-weight   dW [O, C kh kw] = sum over images of dy X^'
//! ```
//!
//! The three are each other's derivatives: all are bilinear in two of (x, W, dy).

use std::cell::RefCell;
use std::ops::Range;

use crate::product::{Side, multiply};
use crate::threads::for_chunks;

/// Images whose weight gradients are added in one go; such sums are then added in order.
const IMAGES: usize = 8;

/// The shape of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Images, N.
    pub images: usize,
    /// Input channels, C.
    pub inputs: usize,
    /// Input height, H.
    pub height: usize,
    /// Input width, W.
    pub width: usize,
    /// Output channels, O.
    pub outputs: usize,
    /// Kernel height and width.
    pub kernel: (usize, usize),
    /// Distance of neighbouring outputs, input pixels.
    pub stride: usize,
    /// Zeros on each side, pixels.
    pub padding: usize,
}

impl Shape {
    /// Height and width of the output: `(H + 2 padding - kh) / stride + 1`, and 0 where the kernel does not fit.
    pub fn output(&self) -> (usize, usize) {
        let side = |length: usize, kernel: usize| {
            (length + 2 * self.padding).checked_sub(kernel).map_or(0, |room| room / self.stride + 1)
        };
        (side(self.height, self.kernel.0), side(self.width, self.kernel.1))
    }

    fn input_values(&self) -> usize {
        self.inputs * self.height * self.width
    }

    fn pixels(&self) -> usize {
        let (height, width) = self.output();
        height * width
    }

    /// Weights of one output channel.
    fn taps(&self) -> usize {
        self.inputs * self.kernel.0 * self.kernel.1
    }

    /// Whether an image is its own columns.
    fn is_pointwise(&self) -> bool {
        self.kernel == (1, 1) && self.stride == 1 && self.padding == 0
    }
}

thread_local! {
    /// The columns of one image, kept from call to call.
    static COLUMNS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

fn with_columns<R>(values: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    COLUMNS.with_borrow_mut(|columns| {
        if columns.len() < values {
            columns.resize(values, 0.0);
        }
        work(&mut columns[..values])
    })
}

/// y [N, O, oh, ow] from x [N, C, H, W] and W [O, C, kh, kw].
///
/// # Panics
/// Where a slice has another length than the shape says.
pub fn forward(shape: &Shape, x: &[f32], weight: &[f32], y: &mut [f32]) {
    let (pixels, taps) = (shape.pixels(), shape.taps());
    assert_eq!(x.len(), shape.images * shape.input_values(), "x is [N, C, H, W]");
    assert_eq!(y.len(), shape.images * shape.outputs * pixels, "y is [N, O, oh, ow]");
    let plan = taps_of(shape);
    for_chunks(y, shape.outputs * pixels, |image, y| {
        let x = &x[image * shape.input_values()..][..shape.input_values()];
        let product = |columns: &[f32], y: &mut [f32]| {
            multiply((shape.outputs, taps, pixels), (weight, Side::Plain), (columns, Side::Plain), y, false);
        };
        if shape.is_pointwise() {
            product(x, y);
        } else {
            with_columns(taps * pixels, |columns| {
                to_columns(shape, &plan, x, columns);
                product(columns, y);
            });
        }
    });
}

/// dx [N, C, H, W] from dy [N, O, oh, ow] and W [O, C, kh, kw].
///
/// # Panics
/// Where a slice has another length than the shape says.
pub fn backward_data(shape: &Shape, dy: &[f32], weight: &[f32], dx: &mut [f32]) {
    let (pixels, taps) = (shape.pixels(), shape.taps());
    assert_eq!(dy.len(), shape.images * shape.outputs * pixels, "dy is [N, O, oh, ow]");
    assert_eq!(dx.len(), shape.images * shape.input_values(), "dx is [N, C, H, W]");
    let plan = taps_of(shape);
    for_chunks(dx, shape.input_values(), |image, dx| {
        let dy = &dy[image * shape.outputs * pixels..][..shape.outputs * pixels];
        let product = |columns: &mut [f32]| {
            multiply((taps, shape.outputs, pixels), (weight, Side::Transposed), (dy, Side::Plain), columns, false);
        };
        if shape.is_pointwise() {
            product(dx);
        } else {
            with_columns(taps * pixels, |columns| {
                product(columns);
                dx.fill(0.0);
                from_columns(shape, &plan, columns, dx);
            });
        }
    });
}

/// dW [O, C, kh, kw] from x [N, C, H, W] and dy [N, O, oh, ow].
///
/// # Panics
/// Where a slice has another length than the shape says.
pub fn backward_weight(shape: &Shape, x: &[f32], dy: &[f32], dweight: &mut [f32]) {
    let (pixels, taps) = (shape.pixels(), shape.taps());
    let weights = shape.outputs * taps;
    assert_eq!(x.len(), shape.images * shape.input_values(), "x is [N, C, H, W]");
    assert_eq!(dy.len(), shape.images * shape.outputs * pixels, "dy is [N, O, oh, ow]");
    assert_eq!(dweight.len(), weights, "dW is [O, C, kh, kw]");
    let plan = taps_of(shape);
    // dW' = X^ dy': of the two operands the product has to turn one, and dy is the smaller.
    let mut partial = vec![0.0; shape.images.div_ceil(IMAGES).max(1) * weights];
    for_chunks(&mut partial, weights, |chunk, sum| {
        for image in chunk * IMAGES..((chunk + 1) * IMAGES).min(shape.images) {
            let x = &x[image * shape.input_values()..][..shape.input_values()];
            let dy = &dy[image * shape.outputs * pixels..][..shape.outputs * pixels];
            let mut product = |columns: &[f32]| {
                multiply((taps, pixels, shape.outputs), (columns, Side::Plain), (dy, Side::Transposed), sum, true);
            };
            if shape.is_pointwise() {
                product(x);
            } else {
                with_columns(taps * pixels, |columns| {
                    to_columns(shape, &plan, x, columns);
                    product(columns);
                });
            }
        }
    });
    let (total, others) = partial.split_at_mut(weights);
    for sum in others.chunks_exact(weights.max(1)) {
        total.iter_mut().zip(sum).for_each(|(total, value)| *total += value);
    }
    dweight.fill(0.0);
    for (output, row) in dweight.chunks_exact_mut(taps.max(1)).enumerate() {
        row.iter_mut().zip(total[output..].iter().step_by(shape.outputs)).for_each(|(to, from)| *to = *from);
    }
}

/// The outputs along one axis whose input `out * stride + tap - padding` lies inside, and the first such input.
fn inside(outputs: usize, length: usize, tap: usize, stride: usize, padding: usize) -> (Range<usize>, usize) {
    let first = padding.saturating_sub(tap).div_ceil(stride);
    // The last output reads at most length - 1: out * stride <= length - 1 + padding - tap.
    let past = (length + padding).saturating_sub(tap).div_ceil(stride).min(outputs);
    let range = first.min(past)..past;
    let input = (range.start * stride + tap).saturating_sub(padding);
    (range, input)
}

/// What one tap of the kernel reads of one channel's plane.
struct Tap {
    /// Row of the columns.
    index: usize,
    /// Output rows whose input row lies inside; empty where the tap reads nothing but padding.
    rows: Range<usize>,
    /// Output columns whose input column lies inside.
    columns: Range<usize>,
    /// Offset in the image of the input of the first of those rows and columns.
    first: usize,
}

/// The taps of every channel, in the order of the columns' rows.
fn taps_of(shape: &Shape) -> Vec<Tap> {
    let (height, width) = shape.output();
    let tap = |index: usize| {
        let (rest, kw) = (index / shape.kernel.1, index % shape.kernel.1);
        let (channel, kh) = (rest / shape.kernel.0, rest % shape.kernel.0);
        let (rows, input_row) = inside(height, shape.height, kh, shape.stride, shape.padding);
        let (columns, input_column) = inside(width, shape.width, kw, shape.stride, shape.padding);
        let rows = if columns.is_empty() { 0..0 } else { rows };
        Tap { index, rows, columns, first: (channel * shape.height + input_row) * shape.width + input_column }
    };
    (0..shape.taps()).map(tap).collect()
}

/// Whether neighbouring output rows read neighbouring input rows with nothing between: then what a tap reads is one run of
/// the plane, whose values at the edges belong to the row before or after.
fn is_one_run(shape: &Shape) -> bool {
    shape.stride == 1 && shape.output().1 == shape.width
}

/// Sets what lies outside of `inside` in each row of `rows` to zero, a column at a time: there are one or two.
fn clear_edges(rows: &mut [f32], width: usize, inside: &Range<usize>) {
    for column in (0..inside.start).chain(inside.end..width) {
        rows[column..].iter_mut().step_by(width).for_each(|value| *value = 0.0);
    }
}

fn to_columns(shape: &Shape, taps: &[Tap], x: &[f32], columns: &mut [f32]) {
    let ((_, width), pixels) = (shape.output(), shape.pixels());
    for tap in taps {
        let to = &mut columns[tap.index * pixels..][..pixels];
        to[..tap.rows.start * width].fill(0.0);
        to[tap.rows.end * width..].fill(0.0);
        let to = &mut to[tap.rows.start * width..tap.rows.end * width];
        if to.is_empty() {
            continue;
        }
        if is_one_run(shape) {
            let run = tap.columns.start..to.len() - (width - tap.columns.end);
            let from = &x[tap.first..][..run.len()];
            to[run].copy_from_slice(from);
            clear_edges(to, width, &tap.columns);
        } else {
            clear_edges(to, width, &tap.columns);
            for (row, to) in to.chunks_exact_mut(width).enumerate() {
                let from = x[tap.first + row * shape.stride * shape.width..].iter().step_by(shape.stride);
                to[tap.columns.clone()].iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            }
        }
    }
}

/// Adds the columns to the inputs that they belong to; what they hold for padding is overwritten.
fn from_columns(shape: &Shape, taps: &[Tap], columns: &mut [f32], dx: &mut [f32]) {
    let ((_, width), pixels) = (shape.output(), shape.pixels());
    for tap in taps {
        let from = &mut columns[tap.index * pixels..][tap.rows.start * width..tap.rows.end * width];
        if from.is_empty() {
            continue;
        }
        if is_one_run(shape) {
            clear_edges(from, width, &tap.columns);
            let run = tap.columns.start..from.len() - (width - tap.columns.end);
            dx[tap.first..].iter_mut().zip(&from[run]).for_each(|(to, from)| *to += from);
        } else {
            for (row, from) in from.chunks_exact(width).enumerate() {
                let to = dx[tap.first + row * shape.stride * shape.width..].iter_mut().step_by(shape.stride);
                to.zip(&from[tap.columns.clone()]).for_each(|(to, from)| *to += from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::product::tests::{error, values};
    use crate::threads::tests::same_bits;

    /// Calls `term(y index, x index, weight index)` for every product of the convolution.
    fn naive(shape: &Shape, mut term: impl FnMut(usize, usize, usize)) {
        let (oh, ow) = shape.output();
        let Shape { images, inputs, height, width, outputs, kernel, stride, padding } = *shape;
        for n in 0..images {
            for o in 0..outputs {
                for (i, j) in (0..oh).flat_map(|i| (0..ow).map(move |j| (i, j))) {
                    for c in 0..inputs {
                        for (a, b) in (0..kernel.0).flat_map(|a| (0..kernel.1).map(move |b| (a, b))) {
                            let (r, s) =
                                ((i * stride + a).wrapping_sub(padding), (j * stride + b).wrapping_sub(padding));
                            if r < height && s < width {
                                term(
                                    ((n * outputs + o) * oh + i) * ow + j,
                                    ((n * inputs + c) * height + r) * width + s,
                                    ((o * inputs + c) * kernel.0 + a) * kernel.1 + b,
                                );
                            }
                        }
                    }
                }
            }
        }
    }

    prop_compose! {
        fn any_shape()(
            images in 1usize..20, inputs in 1usize..4, height in 1usize..9, width in 1usize..9, outputs in 1usize..4,
            kernel in (1usize..4, 1usize..4), stride in 1usize..4, padding in 0usize..3,
        ) -> Shape {
            Shape { images, inputs, height, width, outputs, kernel, stride, padding }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn all_three_agree_with_the_naive_sums_and_do_not_depend_on_threads(shape in any_shape(), seed: u32) {
            let (oh, ow) = shape.output();
            let x = values(shape.images * shape.input_values(), seed);
            let weight = values(shape.outputs * shape.taps(), seed ^ 1);
            let dy = values(shape.images * shape.outputs * oh * ow, seed ^ 2);
            let (mut y64, mut dx64, mut dw64) = (vec![0.0; dy.len()], vec![0.0; x.len()], vec![0.0; weight.len()]);
            naive(&shape, |y, i, w| {
                y64[y] += f64::from(x[i]) * f64::from(weight[w]);
                dx64[i] += f64::from(dy[y]) * f64::from(weight[w]);
                dw64[w] += f64::from(dy[y]) * f64::from(x[i]);
            });
            let run = |len: usize, kernel: &dyn Fn(&mut [f32])| same_bits(|| {
                let mut out = vec![f32::NAN; len];
                kernel(&mut out);
                out
            });
            prop_assert!(error(&run(dy.len(), &|y| forward(&shape, &x, &weight, y)), &y64) < 1e-5);
            prop_assert!(error(&run(x.len(), &|dx| backward_data(&shape, &dy, &weight, dx)), &dx64) < 1e-5);
            prop_assert!(error(&run(weight.len(), &|dw| backward_weight(&shape, &x, &dy, dw)), &dw64) < 1e-5);
        }
    }
}
