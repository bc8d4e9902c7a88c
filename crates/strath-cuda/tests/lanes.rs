//! The mathematics of a lane on the emulated device against `strath_kernels::vector`: the same bits, value by value.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use proptest::prelude::*;
use strath_core::config::Compute;
use strath_core::random::{Purpose, Stream};
use strath_cuda::Gpu;
use strath_cuda::Ledger;
use strath_cuda::lanes::{self, Outside, Terms};
use strath_emulator::Emulator;
use strath_kernels::vector;

fn gpu() -> Option<Gpu> {
    Emulator::or_skip(Compute::F32).map(Gpu::new)
}

/// Values over many orders of magnitude.
fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut draws = Stream::new(seed, Purpose::Probe);
    (0..len).map(|_| (draws.uniform() - 0.5) * 2f32.powi(draws.below(60) as i32 - 44)).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn sums_have_the_integers_of_the_processor_and_round_as_they_do() {
    let Some(gpu) = gpu() else { return };
    let len = 10_007;
    let mut none = Outside::none(&gpu).unwrap();
    let (mut narrow, mut high, mut low) = (gpu.zeros(len).unwrap(), gpu.zeros(len).unwrap(), gpu.zeros(len).unwrap());
    let mut floats = gpu.zeros(len).unwrap();
    let (mut of_narrow, mut of_high, mut of_low, mut of_floats) =
        (vec![0i64; len], vec![0i64; len], vec![0i64; len], vec![0f32; len]);
    for micro_batch in 0..5 {
        let values = values(len, micro_batch);
        let there = gpu.copied(&values).unwrap();
        lanes::add_fixed(&mut narrow.all_mut(), there.all(), 0.2, 32_768.0, &mut none).unwrap();
        lanes::add_wide((&mut high.all_mut(), &mut low.all_mut()), there.all(), 0.2, 32_768.0, &mut none).unwrap();
        lanes::add_floats(&mut floats.all_mut(), there.all(), 0.2, f32::INFINITY, &mut none).unwrap();
        assert_eq!(vector::add_fixed(&mut of_narrow, &values, 0.2, 32_768.0), None);
        assert_eq!(vector::add_wide(&mut of_high, &mut of_low, &values, 0.2, 32_768.0), None);
        assert_eq!(vector::add_floats(&mut of_floats, &values, 0.2, f32::INFINITY), None);
    }
    assert_eq!(none.first().unwrap(), None);
    assert_eq!(
        (narrow.to_host().unwrap(), high.to_host().unwrap(), low.to_host().unwrap()),
        (of_narrow.clone(), of_high.clone(), of_low.clone())
    );
    assert_eq!(bits(&floats.to_host().unwrap()), bits(&of_floats));
    let (mut rounded, mut wanted) = (gpu.stale(len).unwrap(), vec![0f32; len]);
    lanes::round_fixed(&narrow, &mut rounded).unwrap();
    vector::round_fixed(&of_narrow, &mut wanted);
    assert_eq!(bits(&rounded.to_host().unwrap()), bits(&wanted));
    lanes::round_wide(&high, &low, &mut rounded).unwrap();
    vector::round_wide(&of_high, &of_low, &mut wanted);
    assert_eq!(bits(&rounded.to_host().unwrap()), bits(&wanted));
}

#[test]
fn the_first_value_out_of_range_is_told() {
    let Some(gpu) = gpu() else { return };
    for bad in [f32::NAN, f32::INFINITY, -32_768.0] {
        let mut values = vec![1.0; 1000];
        (values[700], values[701], values[999]) = (bad, f32::NAN, bad);
        let values = gpu.copied(&values).unwrap();
        let mut outside = Outside::none(&gpu).unwrap();
        lanes::add_fixed(&mut gpu.zeros(1000).unwrap().all_mut(), values.all(), 0.5, 32_768.0, &mut outside).unwrap();
        assert_eq!(outside.first().unwrap(), Some(700));
        let mut outside = Outside::none(&gpu).unwrap();
        lanes::find_outside(&values, 32_768.0, &mut outside).unwrap();
        assert_eq!(outside.first().unwrap(), Some(700));
    }
}

proptest! {
    #[test]
    fn wide_sums_are_rounded_once(pairs in prop::collection::vec((any::<i64>(), any::<i64>(), 0u32..63, 0u32..63), 1..100)) {
        // No sum fills all of its 64 bits.
        let (high, low): (Vec<i64>, Vec<i64>) = pairs.iter().map(|(h, l, i, k)| (h >> i >> 1, l >> k >> 1)).unzip();
        let Some(gpu) = gpu() else { return Ok(()) };
        let mut rounded = gpu.stale(high.len()).unwrap();
        lanes::round_wide(&gpu.copied(&high).unwrap(), &gpu.copied(&low).unwrap(), &mut rounded).unwrap();
        let wanted: Vec<f32> = high.iter().zip(&low).map(|(h, l)| strath_core::fixed::wide_to_f32(*h, *l)).collect();
        prop_assert_eq!(bits(&rounded.to_host().unwrap()), bits(&wanted));
    }
}

#[test]
fn sums_are_those_of_the_processor_but_for_their_order() {
    let Some(gpu) = gpu() else { return };
    for len in [1, 255, 4096, 4097, 30_000] {
        let (a, b) = (values(len, 1), values(len, 2));
        let (there, other) = (gpu.copied(&a).unwrap(), gpu.copied(&b).unwrap());
        let sum = |terms| {
            let mut total = gpu.zeros(1).unwrap();
            lanes::sum(&mut total, terms).unwrap();
            total.to_host().unwrap()[0]
        };
        let near =
            |found: f64, wanted: f64| assert!((found - wanted).abs() <= 1e-12 * wanted.abs(), "{found} {wanted}");
        near(sum(Terms::Squares(there.all())), vector::sum_of_squares(&a));
        near(sum(Terms::ScaledSquares(there.all(), other.all(), 0.01)), vector::sum_of_scaled_squares(&a, &b, 0.01));
        let magnitude = vector::products(&a, &b);
        let product = sum(Terms::Products(there.all(), other.all()));
        assert!((product - magnitude.ab).abs() <= 1e-12 * (magnitude.aa * magnitude.bb).sqrt());
    }
}

#[test]
fn a_lift_has_the_bits_of_the_processor_given_its_factor() {
    let Some(gpu) = gpu() else { return };
    let len = 9_001;
    let (g, w) = (values(len, 3), values(len, 4));
    let (there, weights) = (gpu.copied(&g).unwrap(), gpu.copied(&w).unwrap());
    for eta in [None, Some(0.01)] {
        let mut squares = gpu.zeros(1).unwrap();
        let terms = match eta {
            None => Terms::Squares(there.all()),
            Some(eta) => Terms::ScaledSquares(there.all(), weights.all(), eta),
        };
        lanes::sum(&mut squares, terms).unwrap();
        let factor = lanes::epsilon_factor(&squares, 0.05).unwrap();
        let by = factor.to_host().unwrap()[0];
        assert!((by * squares.to_host().unwrap()[0].sqrt() - 0.05).abs() < 1e-15);
        let (mut lifted, mut of_epsilon) = (gpu.stale(len).unwrap(), gpu.zeros(1).unwrap());
        lanes::lift(there.all(), weights.all(), &factor, eta, &mut lifted.all_mut(), &mut of_epsilon).unwrap();
        let mut wanted = vec![0.0; len];
        let squares = vector::lift(&g, &w, by, eta, &mut wanted);
        assert_eq!(bits(&lifted.to_host().unwrap()), bits(&wanted));
        assert!((of_epsilon.to_host().unwrap()[0] / squares - 1.0).abs() < 1e-12);
    }
    let zero = lanes::epsilon_factor(&gpu.zeros(1).unwrap(), 0.05).unwrap();
    assert_eq!(zero.to_host().unwrap(), [0.0], "a gradient of zeros has no epsilon");
}

#[test]
fn updates_have_the_bits_of_the_processor() {
    let Some(gpu) = gpu() else { return };
    let len = 3_001;
    let (w, g, b) = (values(len, 5), values(len, 6), values(len, 7));
    let v: Vec<f32> = values(len, 8).iter().map(|v| v.abs()).collect();
    let mut squares = gpu.zeros(1).unwrap();
    let gradient = gpu.copied(&g).unwrap();
    lanes::sum(&mut squares, Terms::Squares(gradient.all())).unwrap();
    for most in [None, Some(1e9), Some(0.5)] {
        let clip = most.map(|most| lanes::clip_factor(&squares, most).unwrap());
        let by = clip.as_ref().map(|factor| factor.to_host().unwrap()[0]).filter(|by| *by != 1.0);
        assert_eq!(by.is_some(), most == Some(0.5));
        let (mut there, mut here) = (gpu.copied(&w).unwrap(), w.clone());
        lanes::sgd(&mut there, &gradient, clip.as_ref(), 0.1, 5e-4).unwrap();
        vector::sgd(&mut here, &g, by, 0.1, 5e-4);
        assert_eq!(bits(&there.to_host().unwrap()), bits(&here));
        for nesterov in [false, true] {
            let (mut there, mut roll, mut here, mut buffer) =
                (gpu.copied(&w).unwrap(), gpu.copied(&b).unwrap(), w.clone(), b.clone());
            let scalars = vector::Momentum { lr: 0.1, decay: 5e-4, momentum: 0.9, nesterov };
            lanes::sgd_momentum(&mut there, &gradient, &mut roll, clip.as_ref(), scalars).unwrap();
            vector::sgd_momentum(&mut here, &g, &mut buffer, by, scalars);
            assert_eq!((bits(&there.to_host().unwrap()), bits(&roll.to_host().unwrap())), (bits(&here), bits(&buffer)));
        }
        let mut there = [&w, &b, &v].map(|values| gpu.copied(values).unwrap());
        let mut here = [w.clone(), b.clone(), v.clone()];
        let (first, second) = ((0.9, 0.1), (0.999, 0.001));
        let [w1, m1, v1] = &mut there;
        let scalars = vector::AdamW { first, second, rate: 0.01, root: 1.5, keep: 0.99, eps: 1e-8 };
        lanes::adamw(w1, &gradient, (m1, v1), clip.as_ref(), scalars).unwrap();
        let [w2, m2, v2] = &mut here;
        vector::adamw(w2, &g, m2, v2, by, scalars);
        for (there, here) in there.iter().zip(&here) {
            assert_eq!(bits(&there.to_host().unwrap()), bits(here));
        }
    }
    let (mut there, mut here) = (gpu.copied(&g).unwrap(), g.clone());
    lanes::add_scaled(&mut there, &gpu.copied(&w).unwrap(), 0.3).unwrap();
    vector::add_scaled(&mut here, &w, 0.3);
    assert_eq!(bits(&there.to_host().unwrap()), bits(&here));
}

#[test]
fn a_ledger_is_read_in_one_go_and_holds_what_vectors_were_when_they_were_put_down() {
    let Some(gpu) = gpu() else { return };
    let mut ledger = Ledger::default();
    let (mut loss, index) = (gpu.copied(&[1.5f64]).unwrap(), gpu.copied(&[7u64]).unwrap());
    let three = gpu.copied(&[1.0f32, f32::NEG_INFINITY, 3.0]).unwrap();
    let [first, second] = [1.5, -2.5].map(|value| {
        loss.upload(&[value]).unwrap();
        ledger.put(&loss).unwrap()
    });
    let (index, three) = (ledger.put(&index).unwrap(), ledger.put(&three).unwrap());
    let none = ledger.put(&gpu.zeros::<f32>(0).unwrap()).unwrap();
    let before = gpu.waits();
    let reading = ledger.read().unwrap();
    assert_eq!(gpu.waits(), before + 1);
    assert_eq!([reading.value(&first), reading.value(&second)], [1.5, -2.5]);
    assert_eq!((reading.value(&index), reading.values(&three)), (7, vec![1.0, f32::NEG_INFINITY, 3.0]));
    assert!(reading.values(&none).is_empty());
    // Emptied, it has nothing to wait for.
    let before = gpu.waits();
    ledger.read().unwrap();
    assert_eq!(gpu.waits(), before);
    // Many, and long ones: few pages.
    let long: Vec<f32> = (0..40_000u16).map(f32::from).collect();
    let there = gpu.copied(&long).unwrap();
    let entries = [(); 20].map(|()| ledger.put(&there).unwrap());
    let before = gpu.waits();
    let reading = ledger.read().unwrap();
    assert!(gpu.waits() - before <= 6, "{} pages", gpu.waits() - before);
    assert!(entries.iter().all(|entry| reading.values(entry) == long));
}
