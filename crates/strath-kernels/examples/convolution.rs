//! Speed of the three products of a convolution on the layers of ResNet-20, by each method, beside the peak of multiply-adds of
//! one core.
//!
//! ```text
//! cargo run --release -p strath-kernels --example convolution [-- ISA] [METHOD...] [BATCH...]
//! cargo run --release -p strath-kernels --example convolution [-- ISA] serve
//! ```
//! One thread. Every round measures the peak and one call of each product; printed are medians of the rounds in GFLOP/s, the
//! multiplications of the plain sum counted, and in per cent of the median peak. Winograd's methods do with fewer, so they may
//! be above 100 %.
//!
//! `serve` measures what a line on its standard input asks for, `METHOD PRODUCT INPUTS OUTPUTS SIDE KERNEL STRIDE IMAGES SECONDS`,
//! and answers with seconds a call and the peak in GFLOP/s, so that another program can measure its own convolutions in turn
//! (`tests/peers/convolution.py`).

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::time::Instant;

use strath_kernels::conv::{Method, Shape, backward_data, backward_weight, forward};
use strath_kernels::isa::Isa;
use strath_kernels::peak::fma_peak;

/// Rounds of measurements.
const ROUNDS: usize = 15;

/// Inputs, outputs, side of the images, kernel, stride.
type Sizes = [usize; 5];

const LAYERS: [Sizes; 9] = [
    [1, 16, 28, 3, 1],
    [3, 16, 32, 3, 1],
    [16, 16, 28, 3, 1],
    [16, 32, 28, 3, 2],
    [32, 32, 14, 3, 1],
    [32, 64, 14, 3, 2],
    [64, 64, 7, 3, 1],
    [16, 32, 28, 1, 2],
    [32, 64, 14, 1, 2],
];

const METHODS: [(&str, Method); 3] =
    [("direct", Method::Direct), ("auto", Method::Auto), ("winograd", Method::Winograd)];

const PRODUCTS: [&str; 3] = ["forward", "backward-data", "backward-weight"];

/// A layer's slices.
struct Layer {
    shape: Shape,
    x: Vec<f32>,
    weight: Vec<f32>,
    dy: Vec<f32>,
    y: Vec<f32>,
    dx: Vec<f32>,
    dweight: Vec<f32>,
}

impl Layer {
    fn new([inputs, outputs, side, kernel, stride]: Sizes, images: usize) -> Self {
        let (kernel, padding) = ((kernel, kernel), kernel / 2);
        let shape = Shape { images, inputs, height: side, width: side, outputs, kernel, stride, padding };
        let values = |count: usize| (0..count).map(|at| (at * 7919 % 1024) as f32 / 512.0 - 1.0).collect::<Vec<f32>>();
        let (x, weight) = (values(images * shape.input_values()), values(shape.weights()));
        let dy = values(images * shape.output_values());
        Self { shape, y: dy.clone(), dx: x.clone(), dweight: weight.clone(), x, weight, dy }
    }

    /// Seconds of one call.
    fn call(&mut self, product: usize, method: Method) -> f64 {
        let Self { shape, x, weight, dy, y, dx, dweight } = self;
        let start = Instant::now();
        match product {
            0 => forward(shape, method, x, weight, y),
            1 => backward_data(shape, method, dy, weight, dx),
            _ => backward_weight(shape, method, x, dy, dweight),
        }
        start.elapsed().as_secs_f64()
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(isa) = arguments.first().and_then(|name| Isa::ALL.into_iter().find(|isa| isa.name() == name)) {
        isa.pin().unwrap_or_else(|error| panic!("{error}"));
        arguments.remove(0);
    }
    if arguments.first().is_some_and(|argument| argument == "serve") {
        return serve();
    }
    let mut methods: Vec<_> = METHODS.into_iter().filter(|(name, _)| arguments.iter().any(|a| a == name)).collect();
    if methods.is_empty() {
        methods = METHODS.to_vec();
    }
    let mut batches: Vec<usize> = arguments.iter().filter_map(|batch| batch.parse().ok()).collect();
    if batches.is_empty() {
        batches = vec![16, 64];
    }
    for images in batches {
        table(images, &methods);
    }
}

/// Prints every layer by every method.
fn table(images: usize, methods: &[(&str, Method)]) {
    let mut layers: Vec<Layer> = LAYERS.into_iter().map(|sizes| Layer::new(sizes, images)).collect();
    let (mut peaks, mut times) = (Vec::new(), HashMap::<_, Vec<f64>>::new());
    for _ in 0..ROUNDS {
        for (at, layer) in layers.iter_mut().enumerate() {
            peaks.push(fma_peak(Isa::active()));
            for (product, (name, method)) in (0..3).flat_map(|product| methods.iter().map(move |m| (product, m))) {
                // The slices of another product have just been in the caches.
                layer.call(product, *method);
                times.entry((at, product, *name)).or_default().push(layer.call(product, *method));
            }
        }
    }
    let peak = median(&mut peaks);
    println!("{}, batch {images}, one thread; peak {peak:.0} GFLOP/s", Isa::active());
    for (at, Layer { shape, .. }) in layers.iter().enumerate() {
        let Shape { inputs, outputs, height, kernel, stride, .. } = *shape;
        for (name, _) in methods {
            let layer = format!("{k}x{k} {inputs:>2} -> {outputs:>2} {height}x{height} /{stride}", k = kernel.0);
            let cell = |product: usize| {
                let seconds = times.get(&(at, product, *name)).map_or(f64::NAN, |times| median(&mut times.clone()));
                let speed = shape.flops() / seconds / 1e9;
                format!("{:>7.1} us {speed:6.1} ({:3.0} %)", seconds * 1e6, 100.0 * speed / peak)
            };
            println!("{layer:24} {name:8} forward {} data {} weight {}", cell(0), cell(1), cell(2));
        }
    }
}

/// Answers the lines of standard input until it ends.
fn serve() {
    let mut layers = HashMap::new();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (seconds, peak) = answer(&mut layers, &words)
            .unwrap_or_else(|| panic!("found {line:?}, expected METHOD PRODUCT, six sizes and SECONDS"));
        println!("{seconds:e} {peak}");
        std::io::stdout().flush().expect("whoever asked is there");
    }
}

fn answer(layers: &mut HashMap<[usize; 6], Layer>, words: &[&str]) -> Option<(f64, f64)> {
    let [method, product, sizes @ .., time] = words else { return None };
    let (_, method) = METHODS.into_iter().find(|(name, _)| name == method)?;
    let product = PRODUCTS.iter().position(|name| name == product)?;
    let sizes: Vec<usize> = sizes.iter().map(|size| size.parse().ok()).collect::<Option<_>>()?;
    let key @ [inputs, outputs, side, kernel, stride, images]: [usize; 6] = sizes.try_into().ok()?;
    let time: f64 = time.parse().ok()?;
    let layer = layers.entry(key).or_insert_with(|| Layer::new([inputs, outputs, side, kernel, stride], images));
    let peak = fma_peak(Isa::active());
    layer.call(product, method);
    let (start, mut calls) = (Instant::now(), Vec::new());
    while calls.is_empty() || start.elapsed().as_secs_f64() < time {
        calls.push(layer.call(product, method));
    }
    Some((median(&mut calls), peak))
}
