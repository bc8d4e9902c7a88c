//! Convolution in plain Rust: the definition with channels innermost, and the oracle of the tuned kernels.

use std::ops::Range;

use super::Shape;
use crate::threads::for_chunks;

/// Images whose weight gradients are summed in one go; such sums are then added in order.
const IMAGES: usize = 8;

/// The outputs along one axis whose input `out * stride + tap - padding` lies inside.
fn inside(outputs: usize, length: usize, tap: usize, shape: &Shape) -> Range<usize> {
    let first = shape.padding.saturating_sub(tap).div_ceil(shape.stride);
    // The last output reads at most length - 1: out * stride <= length - 1 + padding - tap.
    let past = (length + shape.padding).saturating_sub(tap).div_ceil(shape.stride).min(outputs);
    first.min(past)..past
}

/// Calls `pair(output pixel, input pixel)` of one image for every pair that tap (kh, kw) connects.
fn for_pairs(shape: &Shape, kh: usize, kw: usize, mut pair: impl FnMut(usize, usize)) {
    let (height, width) = shape.output();
    for i in inside(height, shape.height, kh, shape) {
        for j in inside(width, shape.width, kw, shape) {
            let (row, column) = (i * shape.stride + kh - shape.padding, j * shape.stride + kw - shape.padding);
            pair(i * width + j, row * shape.width + column);
        }
    }
}

fn taps(shape: &Shape) -> impl Iterator<Item = (usize, usize)> + use<> {
    let (height, width) = shape.kernel;
    (0..height).flat_map(move |kh| (0..width).map(move |kw| (kh, kw)))
}

/// W [O, C, kh, kw] as [kh, kw, C, O], or its inverse by `unpack`.
fn packed(shape: &Shape, weight: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; weight.len()];
    for_weights(shape, |plain, packed| out[packed] = weight[plain]);
    out
}

/// Calls `pair(index in [O, C, kh, kw], index in [kh, kw, C, O])`.
fn for_weights(shape: &Shape, mut pair: impl FnMut(usize, usize)) {
    let Shape { inputs, outputs, kernel, .. } = *shape;
    for o in 0..outputs {
        for c in 0..inputs {
            for (kh, kw) in taps(shape) {
                let plain = ((o * inputs + c) * kernel.0 + kh) * kernel.1 + kw;
                pair(plain, ((kh * kernel.1 + kw) * inputs + c) * outputs + o);
            }
        }
    }
}

pub(super) fn forward(shape: &Shape, x: &[f32], weight: &[f32], y: &mut [f32]) {
    let Shape { inputs, outputs, kernel, .. } = *shape;
    let packed = packed(shape, weight);
    for_chunks(y, shape.output_values(), |image, y| {
        let x = &x[image * shape.input_values()..][..shape.input_values()];
        y.fill(0.0);
        for (kh, kw) in taps(shape) {
            let weight = &packed[(kh * kernel.1 + kw) * inputs * outputs..][..inputs * outputs];
            for_pairs(shape, kh, kw, |out, input| {
                let (y, x) = (&mut y[out * outputs..][..outputs], &x[input * inputs..][..inputs]);
                for (x, row) in x.iter().zip(weight.chunks_exact(outputs)) {
                    y.iter_mut().zip(row).for_each(|(y, w)| *y += x * w);
                }
            });
        }
    });
}

pub(super) fn backward_data(shape: &Shape, dy: &[f32], weight: &[f32], dx: &mut [f32]) {
    let Shape { inputs, outputs, kernel, .. } = *shape;
    let packed = packed(shape, weight);
    for_chunks(dx, shape.input_values(), |image, dx| {
        let dy = &dy[image * shape.output_values()..][..shape.output_values()];
        dx.fill(0.0);
        for (kh, kw) in taps(shape) {
            let weight = &packed[(kh * kernel.1 + kw) * inputs * outputs..][..inputs * outputs];
            for_pairs(shape, kh, kw, |out, input| {
                let (dy, dx) = (&dy[out * outputs..][..outputs], &mut dx[input * inputs..][..inputs]);
                for (dx, row) in dx.iter_mut().zip(weight.chunks_exact(outputs)) {
                    *dx += dy.iter().zip(row).map(|(dy, w)| dy * w).sum::<f32>();
                }
            });
        }
    });
}

pub(super) fn backward_weight(shape: &Shape, x: &[f32], dy: &[f32], dweight: &mut [f32]) {
    let Shape { images, inputs, outputs, kernel, .. } = *shape;
    let weights = shape.weights();
    let mut partial = vec![0.0; images.div_ceil(IMAGES).max(1) * weights];
    for_chunks(&mut partial, weights, |chunk, sum| {
        for image in chunk * IMAGES..((chunk + 1) * IMAGES).min(images) {
            let x = &x[image * shape.input_values()..][..shape.input_values()];
            let dy = &dy[image * shape.output_values()..][..shape.output_values()];
            for (kh, kw) in taps(shape) {
                let sum = &mut sum[(kh * kernel.1 + kw) * inputs * outputs..][..inputs * outputs];
                for_pairs(shape, kh, kw, |out, input| {
                    let (dy, x) = (&dy[out * outputs..][..outputs], &x[input * inputs..][..inputs]);
                    for (x, row) in x.iter().zip(sum.chunks_exact_mut(outputs)) {
                        row.iter_mut().zip(dy).for_each(|(sum, dy)| *sum += x * dy);
                    }
                });
            }
        }
    });
    let (total, others) = partial.split_at_mut(weights);
    for sum in others.chunks_exact(weights.max(1)) {
        total.iter_mut().zip(sum).for_each(|(total, value)| *total += value);
    }
    for_weights(shape, |plain, packed| dweight[plain] = total[packed]);
}
