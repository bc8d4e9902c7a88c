//! Kernels one by one, on one thread, on shapes of ResNet-20, an MLP and a small vision transformer.
//!
//! ```text
//! cargo bench -p strath-kernels [-- NAME] [--save-baseline BEFORE | --baseline BEFORE]
//! ```
//! Elements a second are floating-point operations (convolutions, products) or values. `strath bench kernels` shows the same of a
//! model's own shapes beside the machine's peaks; this is for comparing two versions of a kernel.
#![allow(missing_docs, reason = "what criterion's macros make")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use strath_kernels::attention::Attention;
use strath_kernels::batch_norm::{BatchNorm, By, Mask, Moments, Then, moments};
use strath_kernels::conv::{self, Method, Shape};
use strath_kernels::layer_norm;
use strath_kernels::linear::{self, Linear};
use strath_kernels::vector::{add_fixed, epsilon, lift, sgd, sum_of_squares};

fn values(count: usize) -> Vec<f32> {
    (0..count).map(|at| (at * 7919 % 1024) as f32 / 512.0 - 1.0).collect()
}

/// Inputs, outputs, side of the images, stride.
const LAYERS: [[usize; 4]; 6] =
    [[1, 16, 28, 1], [16, 16, 28, 1], [16, 32, 28, 2], [32, 32, 14, 1], [32, 64, 14, 2], [64, 64, 7, 1]];

fn convolution(c: &mut Criterion) {
    for (method, name) in [(Method::Direct, "direct"), (Method::Auto, "auto")] {
        let mut group = c.benchmark_group(format!("convolution 3x3, {name}"));
        for [inputs, outputs, side, stride] in LAYERS {
            let shape =
                Shape { images: 16, inputs, height: side, width: side, outputs, kernel: (3, 3), stride, padding: 1 };
            let (x, weight) = (values(16 * shape.input_values()), values(shape.weights()));
            let dy = values(16 * shape.output_values());
            let (mut y, mut dx, mut dweight) = (dy.clone(), x.clone(), weight.clone());
            let id = |product: &str| BenchmarkId::new(product, format!("{inputs}->{outputs} /{stride}"));
            group.throughput(Throughput::Elements(shape.flops() as u64));
            group.bench_function(id("forward"), |b| {
                b.iter(|| conv::forward(&shape, method, black_box(&x), &weight, &mut y));
            });
            group.bench_function(id("backward-data"), |b| {
                b.iter(|| conv::backward_data(&shape, method, black_box(&dy), &weight, &mut dx));
            });
            group.bench_function(id("backward-weight"), |b| {
                b.iter(|| conv::backward_weight(&shape, method, black_box(&x), &dy, &mut dweight));
            });
        }
        group.finish();
    }
}

fn products(c: &mut Criterion) {
    let mut group = c.benchmark_group("linear");
    for (rows, inputs, outputs) in [(64, 784, 1024), (64, 1024, 1024), (64 * 50, 192, 576), (64 * 50, 768, 192)] {
        let (x, weight, bias) = (values(rows * inputs), values(inputs * outputs), values(outputs));
        let mut y = values(rows * outputs);
        let layer = Linear { rows, inputs, outputs };
        group.throughput(Throughput::Elements((2 * rows * inputs * outputs) as u64));
        group.bench_function(format!("forward with ReLU, {rows} x {inputs} -> {outputs}"), |b| {
            b.iter(|| layer.forward(black_box(&x), &weight, &bias, linear::Then::Relu, &mut y));
        });
    }
    group.finish();
    let attention = Attention { tokens: 50, heads: 3, width: 64 };
    let qkv = values(attention.qkv_values());
    let (mut y, mut weights) = (values(attention.output_values()), values(attention.weight_values()));
    let (dy, mut dqkv) = (values(attention.output_values()), qkv.clone());
    let mut group = c.benchmark_group("attention of an image, 50 tokens, 3 heads of 64");
    group.bench_function("forward", |b| b.iter(|| attention.forward(black_box(&qkv), &mut y, &mut weights)));
    group.bench_function("backward", |b| b.iter(|| attention.backward(black_box(&qkv), &weights, &dy, &mut dqkv)));
    group.finish();
}

fn norms(c: &mut Criterion) {
    let (channels, rows) = (16, 64 * 28 * 28);
    let (x, mut y) = (values(channels * rows), values(channels * rows));
    let (weight, bias) = (values(channels), values(channels));
    let of_batch: Moments = moments(channels, &x);
    let norm = BatchNorm { moments: &of_batch, weight: &weight, bias: &bias, floor: 1e-5, by: By::Batch };
    let mut group = c.benchmark_group("batch norm, 64 images of 28 x 28 x 16");
    group.throughput(Throughput::Elements(x.len() as u64));
    group.bench_function("moments", |b| b.iter(|| moments(channels, black_box(&x))));
    group.bench_function("forward with ReLU", |b| b.iter(|| norm.forward(Then::Relu, black_box(&x), &mut y)));
    let dy = x.clone();
    group.bench_function("backward through ReLU", |b| {
        b.iter(|| norm.backward(Mask::Relu, black_box(&x), &dy, &mut y));
    });
    group.finish();
    let width = 192;
    let (x, mut y) = (values(64 * 50 * width), values(64 * 50 * width));
    let (weight, bias) = (values(width), values(width));
    let mut group = c.benchmark_group("layer norm, 64 images of 50 tokens of 192");
    group.throughput(Throughput::Elements(x.len() as u64));
    group.bench_function("forward", |b| {
        b.iter(|| layer_norm::forward(black_box(&x), &weight, &bias, 1e-6, &mut y));
    });
    let dy = x.clone();
    group.bench_function("backward", |b| b.iter(|| layer_norm::backward(black_box(&x), &weight, 1e-6, &dy, &mut y)));
    group.finish();
}

fn vectors(c: &mut Criterion) {
    let length = 1 << 20;
    let (g, mut w) = (values(length), values(length));
    let (mut lifted, mut sums) = (values(length), vec![0i64; length]);
    let mut group = c.benchmark_group("vectors of a lane, 1 Mi values");
    group.throughput(Throughput::Elements(length as u64));
    group.bench_function("norm", |b| b.iter(|| sum_of_squares(black_box(&g))));
    group.bench_function("epsilon", |b| b.iter(|| epsilon(black_box(&g), &w, 0.05, None, &mut lifted)));
    group.bench_function("w + epsilon", |b| b.iter(|| lift(black_box(&g), &w, 0.05, None, &mut lifted)));
    group.bench_function("fixed-point sum", |b| {
        // Back and forth, so that no sum runs away.
        b.iter(|| add_fixed(&mut sums, black_box(&g), 0.5, 4.0).or(add_fixed(&mut sums, &g, -0.5, 4.0)));
    });
    group.bench_function("SGD", |b| b.iter(|| sgd(&mut w, black_box(&g), None, 1e-9, 0.0)));
    group.finish();
}

criterion_group!(benches, convolution, products, norms, vectors);
criterion_main!(benches);
