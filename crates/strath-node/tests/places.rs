//! What a step does with flat vectors, on the emulated device and in the process's memory: the same sums, the same updates, the same epsilon.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::sync::Arc;
use std::time::Duration;

use strath_collective::{Bucket, Collective, Payload, Reduced};
use strath_core::config::{Compute, Config, Norm, Perturb, Reduce};
use strath_core::fixed::OutOfRange;
use strath_core::random::{Purpose, Stream};
use strath_core::{Fault, Finish, Generation, Layout, RunId, Step};
use strath_cuda::Gpu;
use strath_emulator::Emulator;
use strath_node::flat::{Checks, Flat, Place, SumError, Weights};
use strath_node::resident::Resident;
use strath_node::state::TrainingState;
use strath_node::sums::{DescentSum, LaneSum};
use strath_sam::{Optimizer, Perturbation};

const LEN: usize = 9_001;

/// The process's memory and a device.
fn places() -> Option<[Place; 2]> {
    let gpu = Emulator::or_skip(Compute::F32).map(Gpu::new)?;
    Some([Place::default(), Place::from(Some(&gpu))])
}

/// Values of the size of gradients.
fn values(seed: u64) -> Vec<f32> {
    let mut draws = Stream::new(seed, Purpose::Probe);
    (0..LEN).map(|_| (draws.uniform() - 0.5) * 2f32.powi(draws.below(20) as i32 - 20)).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn flat(place: &Place, seed: u64) -> Flat {
    place.holding(values(seed)).unwrap()
}

#[test]
fn lanes_and_descents_have_the_same_sums() {
    let Some(places) = places() else { return };
    for reduce in [Reduce::Exact, Reduce::F32, Reduce::Bf16] {
        for micro_batches in 1..4u64 {
            let [host, device] = places.each_ref().map(|place| {
                let mut lanes = [0, 1].map(|_| LaneSum::new(reduce, micro_batches as usize, LEN, place).unwrap());
                let mut descent = DescentSum::new(reduce, LEN, place).unwrap();
                for seed in 0..micro_batches {
                    for lane in &mut lanes {
                        lane.add(flat(place, seed), 0.3).unwrap().settle().unwrap();
                    }
                    descent.add(flat(place, seed).all(), 0.3).unwrap().settle().unwrap();
                }
                let [rounded, sent] = lanes;
                let rounded = rounded.finish().unwrap().into_host().unwrap();
                (bits(&rounded), sent.into_payload().unwrap(), descent.into_payload().unwrap())
            });
            assert_eq!(host, device, "{reduce:?}, {micro_batches} micro-batches");
        }
    }
}

#[test]
fn a_rank_that_is_alone_comes_to_the_bits_of_one_that_reduces() {
    let Some([_, device]) = places() else { return };
    let peers = Collective::alone(RunId(1), Generation(1));
    for micro_batches in 0..4u64 {
        let sum = || {
            let mut descent = DescentSum::new(Reduce::Exact, LEN, &device).unwrap();
            for seed in 0..micro_batches {
                descent.add(flat(&device, seed).all(), 0.3).unwrap().settle().unwrap();
            }
            descent
        };
        let pending = peers.all_reduce(Step(0), Bucket::GRADIENT, 0..1, sum().into_payload().unwrap(), Fault::NONE);
        let (reduced, _) = pending.wait(Duration::from_secs(1)).unwrap();
        let Reduced::Floats(reduced) = reduced else { panic!("a gradient is reduced to floats") };
        // Also where it has none: GPUs that sum by themselves have ranks without.
        let alone = sum().on_device().unwrap().expect("what lies on a device is rounded there").rounded().unwrap();
        assert_eq!(bits(&alone.into_host().unwrap()), bits(&reduced));
        if micro_batches == 0 {
            assert!(matches!(sum().into_payload().unwrap(), Payload::Weighted(_)));
        }
    }
}

#[test]
fn a_value_that_is_not_finite_is_named_wherever_it_lies() {
    let Some(places) = places() else { return };
    // On a device nobody has waited for it yet.
    let outside = |added: Result<Checks, SumError>| match added.and_then(Checks::settle) {
        Err(SumError::OutOfRange(OutOfRange { index })) => index,
        other => panic!("{other:?}"),
    };
    for place in &places {
        let faulty = || {
            let mut values = values(1);
            (values[7_000], values[8_000]) = (f32::NAN, f32::INFINITY);
            place.holding(values).unwrap()
        };
        for (reduce, pieces) in [(Reduce::Exact, 1), (Reduce::Exact, 2), (Reduce::F32, 2)] {
            let mut lane = LaneSum::new(reduce, pieces, LEN, place).unwrap();
            assert_eq!(outside(lane.add(faulty(), 0.5)), 7_000);
            let mut descent = DescentSum::new(reduce, 2_500, place).unwrap();
            assert_eq!(outside(descent.add(faulty().part(5_000..7_500), 0.5)), 2_000, "counted from the piece's first");
        }
    }
}

/// A ball around some of three tensors, the middle one a norm's.
fn ball(norm: Norm, eta: Option<f64>, perturb: Perturb) -> Perturbation {
    let text = "[data]\nkind = \"digits\"\n[model]\nkind = \"convnet\"\n[sam]\nrho = 0.05\n";
    let mut sam = Config::from_toml(text).unwrap().sam;
    (sam.norm, sam.adaptive, sam.perturb) = (norm, eta.is_some(), perturb);
    sam.eta = eta.unwrap_or(sam.eta);
    let lengths = [("a", 4_000), ("b", 1_001), ("c", LEN - 5_001)];
    let layout = Layout::new(lengths.map(|(name, len)| (name.to_owned(), vec![len]))).unwrap();
    Perturbation::new(&sam, &layout, &[false, true, false]).unwrap()
}

/// The balls' norms: the usual ones, one between them and one with a huge dual exponent.
const NORMS: [Norm; 5] = [Norm::P(2.0), Norm::P(1.0), Norm::P(3.0), Norm::P(1.01), Norm::Infinity];

/// Values that are further apart than a factor's last bit makes them.
fn apart(a: &[f32], b: &[f32]) -> usize {
    a.iter().zip(b).filter(|(a, b)| (*a - *b).abs() > 1e-6 * a.abs()).count()
}

#[test]
fn random_directions_have_the_same_bits() {
    let Some(places) = places() else { return };
    let lengths = [("a", 1), ("b", 4_999), ("c", 2), ("d", 3), ("e", 70_000)];
    let layout = Layout::new(lengths.map(|(name, len)| (name.to_owned(), vec![len]))).unwrap();
    for (seed, step, first) in [(0, 0, 0), (7, 3, 16), (u64::MAX, 1 << 40, 65_535)] {
        let [host, device] = places.each_ref().map(|place| {
            let mut direction = place.zeros(layout.len()).unwrap();
            direction.draw_direction(seed, Step(step), first, &layout).unwrap();
            bits(&direction.into_host().unwrap())
        });
        assert!(host == device, "seed {seed}");
    }
}

#[test]
fn of_several_largest_entries_the_first_has_all_of_rho_for_p_1() {
    let Some(places) = places() else { return };
    for place in &places {
        for (first, second) in [(5, 4_100), (4_500, 4_501), (100, 356), (3_000, 9_000)] {
            let mut values = vec![1.0; LEN];
            (values[first], values[second]) = (-7.0, 7.0);
            let (g, w) = (place.holding(values).unwrap(), Weights::from(place.zeros(LEN).unwrap()));
            let mut lifted = place.zeros(LEN).unwrap();
            g.lift(&ball(Norm::P(1.0), None, Perturb::All), &w, &mut lifted).unwrap();
            let lifted = lifted.into_host().unwrap();
            let moved: Vec<(usize, f32)> = (0..).zip(lifted).filter(|(_, value)| *value != 0.0).collect();
            assert_eq!(moved, [(first, -0.05)]);
        }
    }
}

#[test]
fn epsilon_and_products_are_those_of_the_processor() {
    let Some(places) = places() else { return };
    let close = |a: f64, b: f64| assert!((a - b).abs() <= 1e-12 * a.abs(), "{a} {b}");
    for norm in NORMS {
        for eta in [None, Some(0.01)] {
            for perturb in [Perturb::All, Perturb::NormOnly, Perturb::NoNorm] {
                let ball = ball(norm, eta, perturb);
                let [host, device] = places.each_ref().map(|place| {
                    let (g, h, w) = (flat(place, 1), flat(place, 2), Weights::from(flat(place, 3)));
                    let mut lifted = place.zeros(LEN).unwrap();
                    let lift = g.lift(&ball, &w, &mut lifted).unwrap().told().unwrap();
                    (lift, g.products(&h, &ball).unwrap().told().unwrap(), lifted.into_host().unwrap())
                });
                close(host.0.dual_norm, device.0.dual_norm);
                close(host.0.epsilon_norm, device.0.epsilon_norm);
                close(host.1.aa, device.1.aa);
                close(host.1.ab, device.1.ab);
                close(host.1.bb, device.1.bb);
                assert!(!host.0.is_zero && !device.0.is_zero);
                assert_eq!(apart(&host.2, &device.2), 0, "{norm:?} {eta:?} {perturb:?}");
            }
        }
    }
    for (place, norm) in places.iter().flat_map(|place| NORMS.map(|norm| (place, norm))) {
        let (g, w, mut lifted) = (place.zeros(LEN).unwrap(), Weights::from(flat(place, 3)), flat(place, 4));
        let lift = g.lift(&ball(norm, None, Perturb::All), &w, &mut lifted).unwrap().told().unwrap();
        assert!(lift.is_zero && lift.dual_norm == 0.0 && bits(&lifted.into_host().unwrap()) == bits(&values(3)));
    }
    // Also where the scale of every value is 0.
    for (place, norm) in places.iter().flat_map(|place| NORMS.map(|norm| (place, norm))) {
        let (w, mut lifted) = (Weights::from(place.zeros(LEN).unwrap()), flat(place, 4));
        let lift = flat(place, 1).lift(&ball(norm, Some(0.0), Perturb::All), &w, &mut lifted).unwrap().told().unwrap();
        let moved = lifted.into_host().unwrap().into_iter().filter(|value| *value != 0.0).count();
        assert!(lift.is_zero && lift.dual_norm == 0.0 && moved == 0, "{norm:?}: {moved} values");
    }
}

/// Some steps of a state at a place: the learning rates, the norms, and the state after each.
fn steps(place: &Place, optimizer: &str) -> Vec<(f64, f64, TrainingState)> {
    let text = format!("[data]\nkind = \"digits\"\n[model]\nkind = \"convnet\"\n[optimizer]\n{optimizer}");
    let config = Config::from_toml(&text).unwrap();
    let state = TrainingState {
        step: 0,
        weights: Arc::new(values(9)),
        statistics: vec![0.5; 3],
        optimizer: Optimizer::new(&config.optimizer, config.optimizer.weight_decay, LEN),
        epoch_loss: None,
    };
    let mut state = Resident::new(state, place).map_err(|(error, _)| error).unwrap();
    let finish = Finish::of(&config, 64, 100);
    let mut found = Vec::new();
    for step in 0..7 {
        // From the network a gradient comes to the host.
        let gradient = if step % 2 == 0 { flat(place, step) } else { Flat::Host(values(step)) };
        let held = (step % 3 == 0).then(|| state.weights());
        let (lr, norm) = state.update(&gradient, (&[1.0, 2.0, 3.0], 0.5), &config, finish).unwrap();
        if let Some(held) = held {
            // Whoever still computes with the weights has them unmoved.
            assert_ne!(bits(&held.host().unwrap()), bits(&state.weights().host().unwrap()));
        }
        found.push((lr, norm, state.on_host().unwrap().clone()));
    }
    found
}

#[test]
fn updates_have_the_same_bits_and_the_host_is_brought_up_to_date() {
    let Some(places) = places() else { return };
    for optimizer in [
        "kind = \"sgd\"\nlr = 0.1\nmomentum = 0.0\nweight_decay = 0.01\n",
        "kind = \"sgd\"\nlr = 0.1\nmomentum = 0.9\nnesterov = true\nweight_decay = 0.01\n",
        "kind = \"adamw\"\nlr = 0.01\nweight_decay = 0.05\n",
        "kind = \"sgd\"\nlr = 0.1\nmomentum = 0.9\nclip_norm = 0.01\n",
    ] {
        let [host, device] = places.each_ref().map(|place| steps(place, optimizer));
        for ((lr, norm, host), (lr_there, norm_there, device)) in host.into_iter().zip(device) {
            assert_eq!((lr, host.step, &host.statistics), (lr_there, device.step, &device.statistics));
            assert!((norm - norm_there).abs() < 1e-12 * norm);
            if optimizer.contains("clip_norm") {
                assert_eq!(apart(&host.weights, &device.weights), 0);
            } else {
                assert!(host == device, "{optimizer} at step {}", host.step);
            }
        }
    }
}
