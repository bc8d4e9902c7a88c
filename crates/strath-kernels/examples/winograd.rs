//! Time and effective speed of the 3x3 convolutions that Winograd's kernels serve, on one thread.
//!
//! `cargo run --release -p strath-kernels --example winograd [seconds a product] [instruction set] [channels,side,images]`.
//! Effective: the plain sum's operations, 2 N oh ow O C 9, over the time.

use std::time::{Duration, Instant};

use strath_kernels::conv::{Method, Shape, backward_data, backward_weight, forward};
use strath_kernels::isa::Isa;

/// Channels, height and width, images.
const CASES: [(usize, usize, usize); 7] =
    [(16, 28, 16), (16, 28, 64), (32, 14, 16), (32, 14, 64), (64, 7, 16), (64, 7, 64), (160, 32, 16)];

/// The shortest of the calls within `seconds`.
fn shortest(seconds: f64, mut call: impl FnMut()) -> Duration {
    call();
    let start = Instant::now();
    let mut best = Duration::MAX;
    while start.elapsed().as_secs_f64() < seconds {
        let at = Instant::now();
        call();
        best = best.min(at.elapsed());
    }
    best
}

/// Pseudo-random values from a cache line's start on: vectors across lines cost some per cent.
struct Values(Vec<f32>);

impl Values {
    fn new(count: usize) -> Self {
        let mut state = 1u32;
        let value = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        Self((0..count + 15).map(value).collect())
    }

    fn get(&mut self) -> &mut [f32] {
        let from = self.0.as_ptr().align_offset(64);
        let count = self.0.len() - 15;
        &mut self.0[from..][..count]
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().and_then(|s| s.parse().ok()).unwrap_or(0.2);
    if let Some(isa) = arguments.next().and_then(|name| Isa::ALL.into_iter().find(|isa| isa.name() == name)) {
        isa.pin().expect("a set that this processor has");
    }
    println!("{}", Isa::active());
    let numbers: Vec<usize> = arguments.next().iter().flat_map(|case| case.split(',')).flat_map(str::parse).collect();
    let cases =
        if let [channels, side, images] = numbers[..] { vec![(channels, side, images)] } else { CASES.to_vec() };
    for (channels, side, images) in cases {
        let shape = Shape {
            images,
            inputs: channels,
            height: side,
            width: side,
            outputs: channels,
            kernel: (3, 3),
            stride: 1,
            padding: 1,
        };
        let (x_count, y_count) = (images * shape.input_values(), images * shape.output_values());
        let [mut x, mut dx] = [x_count; 2].map(Values::new);
        let [mut y, mut dy] = [y_count; 2].map(Values::new);
        let [mut weight, mut dweight] = [shape.weights(); 2].map(Values::new);
        let (x, dx, y, dy, weight, dweight) = (x.get(), dx.get(), y.get(), dy.get(), weight.get(), dweight.get());
        let auto = Method::Winograd;
        let times = [
            shortest(seconds, || forward(&shape, auto, x, weight, y)),
            shortest(seconds, || backward_data(&shape, auto, dy, weight, dx)),
            shortest(seconds, || backward_weight(&shape, auto, x, dy, dweight)),
        ];
        print!("{channels:4} channels {side:2}x{side:2}, batch {images:2}:");
        for time in times {
            print!("  {:9.1} us {:6.1} GFLOP/s", time.as_secs_f64() * 1e6, shape.flops() / time.as_secs_f64() / 1e9);
        }
        println!();
    }
}
