//! Bandwidth of the vector mathematics of a lane, beside that of a copy of as many bytes in the same run.
//!
//! `cargo run --release -p strath-kernels --example vector -- [values] [threads] [isa]`

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use strath_kernels::isa::Isa;
use strath_kernels::{threads, vector};

/// Repetitions, interleaved over the operations; the median counts.
const REPETITIONS: usize = 15;
/// A measurement repeats its operation until this much time has passed.
const LEAST: Duration = Duration::from_millis(4);

/// The vectors that the operations work on.
struct Vectors {
    w: Vec<f32>,
    g: Vec<f32>,
    m: Vec<f32>,
    v: Vec<f32>,
    out: Vec<f32>,
    high: Vec<i64>,
    low: Vec<i64>,
}

/// An operation, the bytes that it moves for each value (read and written), and what it does.
type Operation = (&'static str, usize, fn(&mut Vectors));

const OPERATIONS: [Operation; 14] = [
    ("copy", 8, |x| x.out.copy_from_slice(black_box(&x.g))),
    ("norm", 4, |x| keep(vector::sum_of_squares(&x.g))),
    ("norm, ASAM", 8, |x| keep(vector::sum_of_scaled_squares(&x.g, &x.w, 0.01))),
    ("check", 4, |x| keep(vector::first_out_of_range(&x.g, f32::INFINITY))),
    ("lift", 12, |x| keep(vector::lift(&x.g, &x.w, 1e-3, None, &mut x.out))),
    ("lift, ASAM", 12, |x| keep(vector::lift(&x.g, &x.w, 1e-3, Some(0.01), &mut x.out))),
    ("add, fixed", 20, |x| keep(vector::add_fixed(&mut x.high, &x.g, 0.25, 32_768.0))),
    ("add, wide", 36, |x| keep(vector::add_wide(&mut x.high, &mut x.low, &x.g, 0.25, 32_768.0))),
    ("add, f32", 12, |x| keep(vector::add_floats(&mut x.out, &x.g, 0.25, 32_768.0))),
    ("round, fixed", 12, |x| vector::round_fixed(&x.high, &mut x.out)),
    ("round, wide", 20, |x| vector::round_wide(&x.high, &x.low, &mut x.out)),
    ("sgd, momentum", 20, |x| {
        let scalars = vector::Momentum { lr: 1e-6, decay: 5e-4, momentum: 0.9, nesterov: true };
        vector::sgd_momentum(&mut x.w, &x.g, &mut x.m, None, scalars);
    }),
    ("sgd, clipped", 20, |x| {
        let scalars = vector::Momentum { lr: 1e-6, decay: 5e-4, momentum: 0.9, nesterov: false };
        vector::sgd_momentum(&mut x.w, &x.g, &mut x.m, Some(0.5), scalars);
    }),
    ("adamw", 28, |x| {
        let scalars = vector::AdamW {
            first: (0.9, 0.1),
            second: (0.999, 0.001),
            rate: 1e-6,
            root: 1.0,
            keep: 1.0 - 1e-6,
            eps: 1e-8,
        };
        vector::adamw(&mut x.w, &x.g, &mut x.m, &mut x.v, None, scalars);
    }),
];

/// Ends an operation whose result counts.
fn keep<T>(result: T) {
    black_box(result);
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let values: usize = arguments.next().map_or(Ok(272_474), |text| text.parse())?;
    let count: usize = arguments.next().map_or(Ok(1), |text| text.parse())?;
    if let Some(name) = arguments.next() {
        Isa::ALL.into_iter().find(|isa| isa.name() == name).ok_or("portable, avx2 or avx512")?.pin()?;
    }
    threads::set(count);
    let ramp = |scale: f32| (0..values).map(|at| (at % 1000) as f32 * scale - 0.3).collect::<Vec<f32>>();
    let mut vectors = Vectors {
        w: ramp(1e-3),
        g: ramp(7e-4),
        m: ramp(5e-4),
        v: vec![0.01; values],
        out: vec![1.0; values],
        high: vec![1; values],
        low: vec![1; values],
    };

    let mut seconds = vec![Vec::new(); OPERATIONS.len()];
    for _ in 0..REPETITIONS {
        for ((_, _, run), seconds) in OPERATIONS.iter().zip(&mut seconds) {
            run(&mut vectors);
            let (start, mut runs) = (Instant::now(), 0);
            while start.elapsed() < LEAST {
                run(&mut vectors);
                runs += 1;
            }
            seconds.push(start.elapsed().as_secs_f64() / f64::from(runs));
        }
    }

    println!("{values} values, threads: {count}, {}", Isa::active());
    println!("{:14} {:>8} {:>9} {:>8} {:>8}", "operation", "B/value", "us", "GB/s", "of copy");
    let mut copy = 0.0;
    for ((name, bytes, _), seconds) in OPERATIONS.iter().zip(&mut seconds) {
        seconds.sort_by(f64::total_cmp);
        let median = seconds[REPETITIONS / 2];
        let bandwidth = (bytes * values) as f64 / median / 1e9;
        if copy == 0.0 {
            copy = bandwidth;
        }
        println!("{name:14} {bytes:>8} {:>9.1} {bandwidth:>8.1} {:>7.0}%", median * 1e6, 100.0 * bandwidth / copy);
    }
    Ok(())
}
