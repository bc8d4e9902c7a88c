//! Bytes moved a second by the kernels that do little arithmetic, against a plain copy, at the sizes of a ResNet-20 and of a vision
//! transformer; and operations a second of its attention, against the products alone.
//!
//! `cargo run --release -p strath-kernels --example bandwidth [portable|avx2|avx512]`

use std::hint::black_box;
use std::time::Instant;

use strath_kernels::attention::Attention;
use strath_kernels::batch_norm::{BatchNorm, By, Mask, Then, moments};
use strath_kernels::isa::Isa;
use strath_kernels::product::{Side, Sizes, batched};
use strath_kernels::{gelu, layer_norm, pointwise, rows};

/// Rounds of which the fastest counts.
const ROUNDS: usize = 40;

/// A kernel: its name, what it does for each value (floats read and written, or operations), and a call of it.
type Kernel<'a> = (&'a str, f64, Box<dyn FnMut() + 'a>);
/// Gigabytes of a float, and their name.
const BYTES: (f64, &str) = (4e-9, "GB/s");
/// Billions of an operation, and their name.
const OPERATIONS: (f64, &str) = (1e-9, "GFLOP/s");

/// Prints the fastest round of each kernel; rounds are interleaved, so that all meet the same neighbours.
fn compare(title: &str, (giga, unit): (f64, &str), values: usize, mut kernels: Vec<Kernel<'_>>) {
    let mut fastest = vec![f64::INFINITY; kernels.len()];
    for _ in 0..ROUNDS {
        for ((_, _, kernel), fastest) in kernels.iter_mut().zip(&mut fastest) {
            let start = Instant::now();
            kernel();
            *fastest = fastest.min(start.elapsed().as_secs_f64());
        }
    }
    println!("{title}");
    for ((name, each, _), fastest) in kernels.iter().zip(fastest) {
        println!("    {name:28} {:8.1} us {:7.1} {unit}", fastest * 1e6, values as f64 * each * giga / fastest);
    }
}

fn values(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn batch_norms(rows: usize, channels: usize) {
    let count = rows * channels;
    let (x, dy, shortcut) = (values(count, 1), values(count, 2), values(count, 3));
    let (weight, bias) = (values(channels, 4), values(channels, 5));
    let of = moments(channels, &x);
    let norm = BatchNorm { moments: &of, weight: &weight, bias: &bias, floor: 1e-5, by: By::Batch };
    let (mut copied, mut a, mut b, mut c) = (values(count, 6), values(count, 6), values(count, 6), values(count, 6));
    let (mut d, mut e, mut f, mut g) = (dy.clone(), dy.clone(), dy.clone(), dy.clone());
    let mut over = x.clone();
    let kernels: Vec<Kernel<'_>> = vec![
        ("copy", 2.0, Box::new(|| black_box(&mut copied).copy_from_slice(black_box(&x)))),
        ("moments", 1.0, Box::new(|| drop(black_box(moments(channels, &x))))),
        ("forward", 2.0, Box::new(|| norm.forward(Then::Nothing, &x, &mut a))),
        ("forward relu", 2.0, Box::new(|| norm.forward(Then::Relu, &x, &mut b))),
        ("forward add relu", 3.0, Box::new(|| norm.forward(Then::AddRelu(&shortcut), &x, &mut c))),
        ("backward", 5.0, Box::new(|| drop(norm.backward(Mask::Nothing, &x, &dy, &mut d)))),
        ("backward relu", 5.0, Box::new(|| drop(norm.backward(Mask::Relu, &x, &dy, &mut e)))),
        ("backward relu over dy", 5.0, Box::new(|| drop(norm.backward_over_dy(Mask::Relu, &x, &mut f)))),
        (
            "backward add relu over x",
            7.0,
            Box::new(|| drop(norm.backward_add_relu_over_x(&mut over, &shortcut, &mut g))),
        ),
    ];
    compare(&format!("{rows} x {channels}"), BYTES, count, kernels);
}

/// What a vision transformer does between its products: rows of tokens, of which the hidden ones are wider.
fn transformer(tokens: usize, width: usize) {
    let count = tokens * width;
    let (x, dy, weight, bias) = (values(count, 1), values(count, 2), values(width, 3), values(width, 4));
    let (mut copied, mut a, mut c) = (values(count, 6), values(count, 6), values(count, 6));
    let (mut d, mut f, mut g) = (dy.clone(), dy.clone(), dy.clone());
    let kernels: Vec<Kernel<'_>> = vec![
        ("copy", 2.0, Box::new(|| black_box(&mut copied).copy_from_slice(black_box(&x)))),
        ("layer norm", 2.0, Box::new(|| layer_norm::forward(&x, &weight, &bias, 1e-6, &mut a))),
        (
            "layer norm backward over dy",
            3.0,
            Box::new(|| drop(layer_norm::backward_over_dy(&x, &weight, 1e-6, &mut d))),
        ),
        ("bias backward", 1.0, Box::new(|| drop(black_box(pointwise::bias_backward(width, &dy))))),
        ("add to", 3.0, Box::new(|| pointwise::add_to(&x, &mut g))),
        ("gelu and bias backward", 3.0, Box::new(|| drop(gelu::backward_and_bias(width, &x, &mut f)))),
        ("softmax of 50", 2.0, Box::new(|| rows::softmax(50, &x[..count / 50 * 50], &mut c[..count / 50 * 50]))),
    ];
    compare(&format!("{tokens} tokens x {width}"), BYTES, count, kernels);
}

/// Attention of 64 images, against its products of whole copies of q, k and v.
fn attentions(shape: Attention) {
    let Attention { tokens, heads, width } = shape;
    let images = 64;
    let (qkv, dy) = (values(images * shape.qkv_values(), 1), values(images * shape.output_values(), 2));
    let (mut y, mut other) = (vec![0.0; dy.len()], vec![0.0; dy.len()]);
    let mut weights = vec![0.0; images * shape.weight_values()];
    shape.forward(&qkv, &mut y, &mut weights);
    let (kept, mut dqkv) = (weights.clone(), vec![0.0; qkv.len()]);
    let mut logits = vec![0.0; images * heads * tokens * tokens];
    let (square, narrow) = (
        Sizes { batch: images * heads, rows: tokens, inner: width, columns: tokens },
        Sizes { batch: images * heads, rows: tokens, inner: tokens, columns: width },
    );
    let mut raised = vec![0.0; logits.len()];
    let kernels: Vec<Kernel<'_>> = vec![
        (
            "two products",
            4.0,
            Box::new(|| {
                batched(square, (&dy, Side::Plain), (&qkv[..dy.len()], Side::Transposed), &mut logits);
                batched(narrow, (&logits, Side::Plain), (&dy, Side::Plain), &mut other);
            }),
        ),
        ("softmax alone", 4.0, Box::new(|| rows::softmax(tokens, &kept[..raised.len()], &mut raised))),
        ("forward", 4.0, Box::new(|| shape.forward(&qkv, &mut y, &mut weights))),
        ("backward", 8.0, Box::new(|| shape.backward(&qkv, &kept, &dy, &mut dqkv))),
    ];
    let title = format!("attention, {images} images of {tokens} tokens, {heads} heads of {width}");
    compare(&title, OPERATIONS, images * heads * tokens * tokens * width, kernels);
}

fn main() {
    if let Some(isa) = std::env::args().nth(1).and_then(|name| Isa::ALL.into_iter().find(|isa| isa.name() == name)) {
        isa.pin().expect("this processor has it");
    }
    println!("{}", Isa::active());
    for (rows, channels) in [(50_176, 16), (12_544, 32), (3136, 64)] {
        batch_norms(rows, channels);
    }
    for (tokens, width) in [(3200, 192), (3200, 768)] {
        transformer(tokens, width);
    }
    for tokens in [50, 65] {
        attentions(Attention { tokens, heads: 3, width: 64 });
    }
}
