//! The route on a device, emulated, finds what the training route on the processor does.

use strath_core::config::{Compute, ModelKind};
use strath_emulator::Emulator;

use super::*;
use crate::model::tests::{Setting, kinds, length};

/// How far two vectors are apart, relative to the second.
fn apart(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let difference: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    length(&difference) / length(b).max(1e-30)
}

fn gpu() -> Option<Gpu> {
    Emulator::or_skip(Compute::F32).map(Gpu::new)
}

#[test]
fn gradients_losses_and_statistics_are_those_of_the_processor() {
    let Some(gpu) = gpu() else { return };
    for kind in kinds() {
        let Setting { model, weights, images, labels } = Setting::new(&kind).stirred();
        let running = model.initial_statistics();
        for by in [Normalise::ByBatch, Normalise::ByRunning(&running)] {
            let mut here = vec![0.0; weights.len()];
            let wanted = model.gradient_by(&Arc::new(weights.clone()), &images, &labels, 0.1, by, &mut here).unwrap();
            let mut there = gpu.zeros(weights.len()).unwrap();
            let weights = Arc::new(gpu.copied(&weights).unwrap());
            let found = model.gradient_on(&weights, &images, &labels, 0.1, by, &mut there).unwrap().report().unwrap();
            let there = there.to_host().unwrap();
            assert!((found.loss / wanted.loss - 1.0).abs() < 1e-6, "{kind:?}: {} {}", found.loss, wanted.loss);
            assert!(apart(&found.statistics, &wanted.statistics) < 1e-6, "{kind:?}");
            for entry in model.parameters().entries() {
                // Where a gradient is zero but for rounding (a bias before a norm), it is so beside the whole.
                let (there, here, all) = (&there[entry.range()], &here[entry.range()], length(&here));
                let difference: Vec<f32> = there.iter().zip(here).map(|(a, b)| a - b).collect();
                let most = 1e-5 * length(here) + 1e-7 * all;
                assert!(length(&difference) < most, "{kind:?} {by:?} {}: {:e}", entry.name, apart(there, here));
            }
            // The same call, the same bits.
            let mut again = gpu.zeros(weights.len()).unwrap();
            model.gradient_on(&weights, &images, &labels, 0.1, by, &mut again).unwrap();
            assert_eq!(again.to_host().unwrap(), there, "{kind:?}");
        }
    }
}

/// A pass is some tens of roundings deep, of half a unit in the last of 11 or 8 bits each. Where a value near 0 comes out on its other side, ReLU lets another
/// gradient pass: in networks of a few channels that is a part of the whole; GELU has no such place.
#[test]
fn with_rounded_factors_and_activations_gradients_are_near_those_of_f32() {
    for (compute, of_loss, smooth, kinked) in [(Compute::Tf32, 2e-4, 2e-3, 0.1), (Compute::Bf16, 2e-3, 2e-2, 0.35)] {
        let Some(gpu) = Emulator::or_skip(compute).map(Gpu::new) else { return };
        for kind in kinds() {
            let Setting { model, weights, images, labels } = Setting::new(&kind).stirred();
            let mut here = vec![0.0; weights.len()];
            let by = Normalise::ByBatch;
            let wanted = model.gradient_by(&Arc::new(weights.clone()), &images, &labels, 0.1, by, &mut here).unwrap();
            let weights = Arc::new(gpu.copied(&weights).unwrap());
            let [found, again] = [0, 1].map(|_| {
                let mut there = gpu.zeros(weights.len()).unwrap();
                let found =
                    model.gradient_on(&weights, &images, &labels, 0.1, by, &mut there).unwrap().report().unwrap();
                (found.loss, there.to_host().unwrap())
            });
            assert_eq!(found, again, "the same call, the same bits");
            let (loss, gradient) = ((found.0 / wanted.loss - 1.0).abs(), apart(&found.1, &here));
            let of_gradient = if matches!(kind, ModelKind::ViT { .. }) { smooth } else { kinked };
            assert!(loss < of_loss && gradient < of_gradient, "{compute:?} {kind:?}: {loss:e} {gradient:e}");
            assert!(gradient > smooth / 10.0, "{compute:?} {kind:?}: {gradient:e}, as if nothing were rounded");
        }
    }
}

#[test]
fn scores_are_those_of_the_processor() {
    let Some(gpu) = gpu() else { return };
    for kind in kinds() {
        let Setting { model, weights, images, labels } = Setting::new(&kind).stirred();
        let running = model.initial_statistics();
        for by in [Normalise::ByBatch, Normalise::ByRunning(&running)] {
            let (wanted, statistics) = model.evaluate_by(&Arc::new(weights.clone()), &images, &labels, by).unwrap();
            let there = Arc::new(gpu.copied(&weights).unwrap());
            let (found, collected) = model.evaluate_on(&there, &images, &labels, by).unwrap();
            assert!(apart(&collected, &statistics) < 1e-6, "{kind:?}");
            for (found, wanted) in found.iter().zip(&wanted) {
                assert_eq!(found.correct, wanted.correct, "{kind:?}");
                assert!((found.loss - wanted.loss).abs() < 1e-5 * wanted.loss.abs().max(1.0), "{kind:?}");
            }
            assert_eq!(found.len(), wanted.len());
        }
    }
}

#[test]
fn a_label_that_is_no_class_has_a_loss_that_is_no_number() {
    let Some(gpu) = gpu() else { return };
    let Setting { model, weights, images, mut labels } = Setting::new(&kinds()[0]);
    labels[2] = 5;
    let there = Arc::new(gpu.copied(&weights).unwrap());
    assert!(model.loss_on(&there, &images, &labels, 0.1).unwrap().is_nan());
}

#[test]
fn vectors_of_another_length_are_refused_and_nothing_is_lost() {
    let Some(gpu) = gpu() else { return };
    let kind = &kinds()[0];
    let Setting { model, weights, images, labels } = Setting::new(kind);
    let there = Arc::new(gpu.copied(&weights).unwrap());
    let mut short = gpu.zeros(3).unwrap();
    let refused = model.gradient_on(&there, &images, &labels, 0.0, Normalise::ByBatch, &mut short);
    assert!(matches!(refused, Err(ModelError::Length { what: "gradient", found: 3, .. })));
    assert_eq!(short.len(), 3);
}
