//! What a GPU can do, in the numbers that it computes with: a large product, a copy, and each product of a model's layers.

pub mod traffic;

use std::time::Instant;

use strath_cuda::{Activation, Gpu, GpuError, Number, Product, Products, Side, Vector, bf16};
use strath_kernels::conv::Shape;
use strath_model::Work;
use strath_node::summary::median;

use super::peaks::Peaks;

/// Bursts, of which the median counts, of a peak the best.
const BURSTS: usize = 9;
/// A burst takes at least so long, so that the way to the device and back is no part of it.
const BURST_S: f64 = 2e-3;
/// The largest matrix of a peak, and its least.
const LARGEST: usize = 8192;
const LEAST: usize = 128;
/// Values of a copy: 256 MiB of f32, beyond every cache.
const COPIED: usize = 1 << 26;

/// Name, microseconds and percent of the peak of a product.
pub type Row = (&'static str, f64, f64);

/// The peak of square products, and of copies of f32.
///
/// # Errors
/// The device's.
pub fn peaks(gpu: &Gpu) -> Result<Peaks, GpuError> {
    let gflops = match gpu.activations() {
        Number::F32 => peak::<f32>(gpu)?,
        Number::Bf16 => peak::<bf16>(gpu)?,
    };
    let mut from: Vector<f32> = gpu.zeros(COPIED)?;
    let seconds = burst(gpu, &mut || from.duplicate().map(|copy| from = copy))?;
    Ok(Peaks { gflops, copy_gbs: 8.0 * COPIED as f64 / seconds / 1e9 })
}

/// Each product of a layer, beside that peak.
///
/// # Errors
/// The device's.
pub fn measure(gpu: &Gpu, work: &Work, peaks: &Peaks) -> Result<Vec<Row>, GpuError> {
    let timed = match gpu.activations() {
        Number::F32 => timed::<f32>(gpu, work)?,
        Number::Bf16 => timed::<bf16>(gpu, work)?,
    };
    let row = |(name, seconds): (_, f64)| (name, 1e6 * seconds, 100.0 * work.flops() / seconds / 1e9 / peaks.gflops);
    Ok(timed.into_iter().map(row).collect())
}

/// Values that are no zeros, which some devices multiply faster.
fn filled<A: Activation>(gpu: &Gpu, len: usize) -> Result<Vector<A>, GpuError> {
    let values: Vec<f32> = (0..len).map(|at| (at % 17) as f32 / 16.0 - 0.5).collect();
    A::from_f32(gpu.copied(&values)?)
}

/// Seconds of one call: the median over bursts of as many as fill one.
fn burst(gpu: &Gpu, run: &mut impl FnMut() -> Result<(), GpuError>) -> Result<f64, GpuError> {
    let mut of = |calls: u32| {
        gpu.wait()?;
        let began = Instant::now();
        for _ in 0..calls {
            run()?;
        }
        gpu.wait()?;
        Ok::<f64, GpuError>(began.elapsed().as_secs_f64() / f64::from(calls))
    };
    of(1)?; // what is planned or compiled with the first
    let calls = (BURST_S / of(1)?).ceil().clamp(1.0, 10_000.0) as u32;
    let bursts = (0..BURSTS).map(|_| of(calls)).collect::<Result<Vec<f64>, _>>()?;
    Ok(median(bursts.into_iter()))
}

fn peak<A: Activation>(gpu: &Gpu) -> Result<f64, GpuError> {
    let mut size = LEAST;
    loop {
        let (a, b) = (filled::<A>(gpu, size * size)?, filled::<A>(gpu, size * size)?);
        let mut c: Vector<A> = gpu.stale(size * size)?;
        let of =
            Product { rows: size, columns: size, inner: size, transposed_a: false, transposed_b: true, adds: false };
        let mut run = || gpu.products(Products { product: of, count: 1 }, a.all(), b.all(), &mut c.all_mut());
        run()?; // what is planned or loaded with the first
        gpu.wait()?;
        let began = Instant::now();
        run()?;
        gpu.wait()?;
        if began.elapsed().as_secs_f64() >= BURST_S || size == LARGEST {
            return Ok(2.0 * (size as f64).powi(3) / burst(gpu, &mut run)? / 1e9);
        }
        size *= 2;
    }
}

fn timed<A: Activation>(gpu: &Gpu, work: &Work) -> Result<Vec<(&'static str, f64)>, GpuError> {
    match *work {
        Work::Convolution { shape, wants_gradient } => convolutions::<A>(gpu, &shape, wants_gradient),
        Work::Product { batch, rows, inner, columns, wants_gradient } => {
            let (a, b) = (filled::<A>(gpu, batch * rows * inner)?, filled::<A>(gpu, batch * inner * columns)?);
            let c = filled::<A>(gpu, batch * rows * columns)?;
            let (mut y, mut da): (Vector<A>, Vector<A>) = (gpu.stale(c.len())?, gpu.stale(a.len())?);
            let mut db: Vector<f32> = gpu.stale(b.len())?;
            let of = |rows, columns, inner, transposed_a, transposed_b| Products {
                product: Product { rows, columns, inner, transposed_a, transposed_b, adds: false },
                count: batch,
            };
            let forward = of(rows, columns, inner, false, true);
            let mut found =
                vec![("forward", burst(gpu, &mut || gpu.products(forward, a.all(), b.all(), &mut y.all_mut()))?)];
            if wants_gradient {
                let data = of(rows, inner, columns, false, false);
                found.push((
                    "backward-data",
                    burst(gpu, &mut || gpu.products(data, c.all(), b.all(), &mut da.all_mut()))?,
                ));
            }
            let weight = of(columns, inner, rows, true, false);
            found.push((
                "backward-weight",
                burst(gpu, &mut || gpu.products(weight, c.all(), a.all(), &mut db.all_mut()))?,
            ));
            Ok(found)
        }
    }
}

fn convolutions<A: Activation>(
    gpu: &Gpu,
    shape: &Shape,
    wants_gradient: bool,
) -> Result<Vec<(&'static str, f64)>, GpuError> {
    let x = filled::<A>(gpu, shape.images * shape.input_values())?;
    let (weight, g) = (filled::<A>(gpu, shape.weights())?, filled::<A>(gpu, shape.images * shape.output_values())?);
    let sides = [
        ("forward", Side::Forward, &x, &weight),
        ("backward-data", Side::Images, &g, &weight),
        ("backward-weight", Side::Weights, &x, &g),
    ];
    let wanted = sides.into_iter().filter(|(_, side, ..)| wants_gradient || *side != Side::Images);
    wanted
        .map(|(name, side, first, second)| {
            let mut out: Vector<A> = gpu.stale(side.lengths(shape).2)?;
            let seconds =
                burst(gpu, &mut || gpu.convolution(shape, side, first.all(), second.all(), &mut out.all_mut()))?;
            Ok((name, seconds))
        })
        .collect()
}
