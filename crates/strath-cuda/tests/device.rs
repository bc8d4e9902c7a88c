//! A real GPU beside the emulated one: products, convolutions and a communicator of one rank. Skipped where there is none.

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::time::Duration;

use strath_core::config::Compute;
use strath_cuda::nccl::Communicator;
use strath_cuda::{Activation, Cuda, Gpu, Product, Products, Side, Vector, bf16, devices};
use strath_emulator::Emulator;
use strath_kernels::conv::Shape;

/// The GPU and the emulated one.
fn both(compute: Compute) -> Option<[Gpu; 2]> {
    if devices() == 0 {
        eprintln!("skipped: this machine has no GPU");
        return None;
    }
    let emulated = Emulator::or_skip(compute)?;
    Some([Gpu::new(Cuda::open(0, compute).unwrap()), Gpu::new(emulated)])
}

fn values(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|at| ((at * 7919 + seed * 104_729) % 1013) as f32 / 506.5 - 1.0).collect()
}

fn placed<A: Activation>(gpu: &Gpu, values: &[f32]) -> Vector<A> {
    A::from_f32(gpu.copied(values).unwrap()).unwrap()
}

/// How far results are apart beside their length: of sums of a few hundred products in f32, rounded to what they are made of.
fn assert_near<A: Activation + Into<f64>>(found: [Vec<A>; 2], most: f64, what: &str) {
    let [there, here] = found.map(|values| values.into_iter().map(Into::into).collect::<Vec<f64>>());
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
    let apart = square(&mut there.iter().zip(&here).map(|(a, b)| a - b)) / square(&mut here.iter().copied());
    assert!(apart.sqrt() < most, "{what}: {:e}", apart.sqrt());
}

fn products_and_convolutions<A: Activation + Into<f64>>(compute: Compute, most: f64) {
    let Some(gpus) = both(compute) else { return };
    let (rows, columns, inner, count) = (33, 20, 47, 3);
    for (transposed_a, transposed_b) in [(false, false), (false, true), (true, false), (true, true)] {
        let product = Product { rows, columns, inner, transposed_a, transposed_b, adds: false };
        let found = gpus.each_ref().map(|gpu| {
            let (a, b) = (values(count * rows * inner, 1), values(count * inner * columns, 2));
            let mut c: Vector<A> = gpu.stale(count * rows * columns).unwrap();
            let (a, b) = (placed::<A>(gpu, &a), placed::<A>(gpu, &b));
            gpu.products(Products { product, count }, a.all(), b.all(), &mut c.all_mut()).unwrap();
            c.to_host().unwrap()
        });
        assert_near(found, most, &format!("{compute:?} {product:?}"));
    }
    for (inputs, outputs, kernel, stride, padding) in
        [(3, 16, (3, 3), 1, 1), (16, 32, (3, 3), 2, 1), (8, 24, (1, 1), 2, 0)]
    {
        let shape = Shape { images: 4, inputs, height: 12, width: 12, outputs, kernel, stride, padding };
        for side in [Side::Forward, Side::Images, Side::Weights] {
            let found = gpus.each_ref().map(|gpu| {
                let (first, second, out) = side.lengths(&shape);
                let (first, second) = (placed::<A>(gpu, &values(first, 3)), placed::<A>(gpu, &values(second, 4)));
                let mut out: Vector<A> = gpu.stale(out).unwrap();
                gpu.convolution(&shape, side, first.all(), second.all(), &mut out.all_mut()).unwrap();
                out.to_host().unwrap()
            });
            assert_near(found, most, &format!("{compute:?} {side:?} of {shape:?}"));
        }
    }
}

#[test]
fn products_and_convolutions_are_those_of_the_emulated_device() {
    products_and_convolutions::<f32>(Compute::F32, 1e-5);
    products_and_convolutions::<f32>(Compute::Tf32, 2e-3);
    products_and_convolutions::<bf16>(Compute::Bf16, 1e-2);
}

#[test]
fn a_communicator_of_one_rank_sums_and_ends() {
    let Some([gpu, _]) = both(Compute::F32) else { return };
    let Some(library) = gpu.nccl() else {
        eprintln!("skipped: libnccl is not here");
        return;
    };
    let (id, deadline) = (library.unique_id().unwrap(), Duration::from_secs(60));
    let mut one = Communicator::connect(&gpu, library, &id, (0, 1), deadline, || true).unwrap();
    let mut sum = gpu.copied(&[1i64 << 60, -3]).unwrap();
    one.sum_integers(&mut sum, deadline, || true).unwrap();
    assert_eq!(sum.to_host().unwrap(), [1 << 60, -3]);
    one.end().unwrap();
}
