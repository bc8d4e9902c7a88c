//! Speed of the three products of a convolution on the layers of ResNet-20, beside the peak of multiply-adds of one core.
//!
//! ```text
//! cargo run --release -p strath-kernels --example convolution [-- ISA [BATCH...]]
//! ```
//! One thread. Every round measures the peak and one call of each product of each layer; the best of the rounds is printed, in
//! GFLOP/s (multiplications with padding counted) and per cent of the best peak. With `--microseconds`, the best time only.

use std::time::Instant;

use strath_kernels::conv::{Method, Shape, backward_data, backward_weight, forward};
use strath_kernels::isa::Isa;
use strath_kernels::peak::fma_peak;

/// Rounds of measurements.
const ROUNDS: usize = 24;

/// Inputs, outputs, side of the images, kernel, stride.
const LAYERS: [(usize, usize, usize, usize, usize); 9] = [
    (16, 16, 28, 3, 1),
    (32, 32, 14, 3, 1),
    (64, 64, 7, 3, 1),
    (16, 32, 28, 3, 2),
    (32, 64, 14, 3, 2),
    (1, 16, 28, 3, 1),
    (3, 16, 32, 3, 1),
    (16, 32, 28, 1, 2),
    (32, 64, 14, 1, 2),
];

/// A layer's slices and best seconds.
struct Layer {
    shape: Shape,
    x: Vec<f32>,
    y: Vec<f32>,
    weight: Vec<f32>,
    best: [f64; 3],
}

impl Layer {
    fn new((inputs, outputs, side, kernel, stride): (usize, usize, usize, usize, usize), images: usize) -> Self {
        let (kernel, padding) = ((kernel, kernel), kernel / 2);
        let shape = Shape { images, inputs, height: side, width: side, outputs, kernel, stride, padding };
        let values = |count: usize| (0..count).map(|at| (at * 7919 % 1024) as f32 / 512.0 - 1.0).collect();
        Self {
            shape,
            x: values(images * shape.input_values()),
            y: values(images * shape.output_values()),
            weight: values(shape.weights()),
            best: [f64::INFINITY; 3],
        }
    }

    fn round(&mut self) {
        let Self { shape, x, y, weight, best } = self;
        let mut timed = |product: usize, call: &mut dyn FnMut()| {
            let start = Instant::now();
            call();
            best[product] = best[product].min(start.elapsed().as_secs_f64());
        };
        timed(0, &mut || forward(shape, Method::Direct, x, weight, y));
        timed(1, &mut || backward_data(shape, Method::Direct, y, weight, x));
        // Gradients as inputs of the next round would grow without bound.
        bound(x);
        bound(y);
        let mut gradient = std::mem::take(weight);
        timed(2, &mut || backward_weight(shape, Method::Direct, x, y, &mut gradient));
        bound(&mut gradient);
        *weight = gradient;
    }
}

/// Clamps to -1..1.
fn bound(values: &mut [f32]) {
    for value in values {
        *value = value.clamp(-1.0, 1.0);
    }
}

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let plain = arguments.iter().any(|a| a == "--microseconds");
    arguments.retain(|a| a != "--microseconds");
    if let Some(isa) = arguments.first().and_then(|name| Isa::ALL.into_iter().find(|isa| isa.name() == name)) {
        isa.pin().unwrap_or_else(|error| panic!("{error}"));
        arguments.remove(0);
    }
    let batches: Vec<usize> = arguments.iter().filter_map(|batch| batch.parse().ok()).collect();
    for images in if batches.is_empty() { vec![16, 64] } else { batches } {
        let mut layers: Vec<Layer> = LAYERS.into_iter().map(|layer| Layer::new(layer, images)).collect();
        let mut peak = 0.0f64;
        for _ in 0..ROUNDS {
            for layer in &mut layers {
                peak = peak.max(fma_peak(Isa::active()));
                layer.round();
            }
        }
        report(&layers, images, peak, plain);
    }
}

fn report(layers: &[Layer], images: usize, peak: f64, plain: bool) {
    println!("{}, batch {images}, one thread; peak {peak:.0} GFLOP/s", Isa::active());
    for Layer { shape, best, .. } in layers {
        let Shape { inputs, outputs, height, kernel, stride, .. } = *shape;
        let name = format!("{k}x{k} {inputs:>2} -> {outputs:>2} {height}x{height} /{stride}", k = kernel.0);
        let cell = |seconds: f64| {
            let speed = shape.flops() / seconds / 1e9;
            if plain {
                format!("{:9.1} us", seconds * 1e6)
            } else {
                format!("{speed:6.1} ({:3.0} %)", 100.0 * speed / peak)
            }
        };
        println!("{name:24} forward {} data {} weight {}", cell(best[0]), cell(best[1]), cell(best[2]));
    }
}
