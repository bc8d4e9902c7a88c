//! The models against the PyTorch reference: names, shapes and losses of the committed cases; gradients by finite
//! differences; the same bits for any number of threads.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use safetensors::SafeTensors;
use strath_core::ImageShape;
use strath_core::config::{Layers, ModelKind, NormLayer};
use strath_core::random::{Purpose, Stream};
use strath_model::{Method, Model, ModelError};

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/cases");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 25, "the reference cases are committed");
    cases
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

#[test]
fn every_case_has_this_models_tensors_and_its_first_clean_loss() {
    for case in cases() {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(case.join("case.toml")).unwrap();
        let config = Layers::new().file(&text, &name, &case).unwrap().resolve().unwrap().config;
        let data = std::fs::read(case.join("data.safetensors")).unwrap();
        let data = SafeTensors::deserialize(&data).unwrap();
        let (images, labels) = (data.tensor("train.images").unwrap(), data.tensor("train.labels").unwrap());
        let [_, channels, height, width] = *images.shape() else { panic!("images are [N, C, H, W]") };
        let shape = ImageShape { channels, height, width };
        let model = Model::build(&config.model.kind, shape, 10, Method::Auto).unwrap();

        let init = std::fs::read(case.join("init.safetensors")).unwrap();
        let init = SafeTensors::deserialize(&init).unwrap();
        let mut theirs: Vec<(String, Vec<usize>)> =
            init.tensors().into_iter().map(|(name, view)| (name, view.shape().to_vec())).collect();
        theirs.sort();
        let layouts = [model.parameters(), model.statistics()];
        let mut ours: Vec<(String, Vec<usize>)> =
            layouts.iter().flat_map(|l| l.entries()).map(|e| (e.name.clone(), e.shape.clone())).collect();
        ours.sort();
        assert_eq!(ours, theirs, "{name}");

        let weights: Vec<f32> =
            model.parameters().entries().iter().flat_map(|e| floats(init.tensor(&e.name).unwrap().data())).collect();
        let (pixels, labels) = (floats(images.data()), labels.data().as_chunks::<8>().0);
        let plan = config.plan().unwrap();
        let mut loss = 0.0;
        let mut gradient = vec![0.0; weights.len()];
        for micro in plan.micro_batches() {
            let range = micro.start..micro.start + micro.size;
            let labels: Vec<u32> = labels[range.clone()].iter().map(|b| i64::from_le_bytes(*b) as u32).collect();
            let images = &pixels[range.start * shape.values()..range.end * shape.values()];
            let smoothing = config.loss.label_smoothing;
            let report = model.gradient(&Arc::new(weights.clone()), images, &labels, smoothing, &mut gradient).unwrap();
            loss += report.loss * micro.size as f64 / plan.batch() as f64;
        }
        let expected = std::fs::read(case.join("expected.safetensors")).unwrap();
        let (_, header) = SafeTensors::read_metadata(&expected).unwrap();
        let losses: Vec<f64> = serde_json::from_str(&header.metadata().as_ref().unwrap()["clean_loss"]).unwrap();
        assert!((loss / losses[0] - 1.0).abs() < 1e-5, "{name}: {loss}, expected {}", losses[0]);
    }
}

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn kinds() -> Vec<ModelKind> {
    vec![
        ModelKind::Mlp { hidden: vec![9] },
        ModelKind::ConvNet { widths: vec![5, 7], norm: NormLayer::Batch },
        ModelKind::ResNet { depth: 8, skip: true, norm: NormLayer::Batch },
        ModelKind::ResNet { depth: 14, skip: false, norm: NormLayer::Batch },
        ModelKind::WideResNet { depth: 10, widen: 1, norm: NormLayer::Batch },
        ModelKind::ConvNet { widths: vec![5, 12], norm: NormLayer::Group },
        ModelKind::ResNet { depth: 8, skip: true, norm: NormLayer::Group },
        ModelKind::WideResNet { depth: 10, widen: 1, norm: NormLayer::Group },
        ModelKind::ConvNet { widths: vec![5, 7], norm: NormLayer::None },
        ModelKind::ResNet { depth: 8, skip: true, norm: NormLayer::None },
        ModelKind::WideResNet { depth: 10, widen: 1, norm: NormLayer::None },
        ModelKind::ViT { patch: 4, dim: 12, depth: 2, heads: 3, mlp_ratio: 2 },
    ]
}

const SHAPE: ImageShape = ImageShape { channels: 2, height: 8, width: 8 };

fn batch(count: usize) -> (Vec<f32>, Vec<u32>) {
    let mut stream = Stream::new(1, Purpose::Probe);
    let images = (0..count * SHAPE.values()).map(|_| stream.normal()).collect();
    (images, (0..count).map(|_| stream.below(10) as u32).collect())
}

#[test]
fn gradients_have_the_same_bits_for_one_two_and_three_threads() {
    let _guard = ONE_AT_A_TIME.lock().unwrap();
    let (images, labels) = batch(19);
    for kind in kinds() {
        let model = Model::build(&kind, SHAPE, 10, Method::Auto).unwrap();
        let weights = model.initial(0);
        let compute = |threads| {
            strath_kernels::threads::set(threads);
            let mut gradient = vec![0.0; weights.len()];
            let report = model.gradient(&Arc::new(weights.clone()), &images, &labels, 0.1, &mut gradient).unwrap();
            (report, gradient.iter().map(|g| g.to_bits()).collect::<Vec<u32>>())
        };
        let alone = compute(1);
        assert_eq!(alone, compute(2), "{kind:?}");
        assert_eq!(alone, compute(3), "{kind:?}");
        strath_kernels::threads::set(1);
    }
}

#[test]
fn gradients_are_the_slopes_of_the_loss() {
    let (images, labels) = batch(8);
    for kind in kinds() {
        let model = Model::build(&kind, SHAPE, 10, Method::Auto).unwrap();
        let weights = model.initial(2);
        let mut gradient = vec![0.0; weights.len()];
        model.gradient(&Arc::new(weights.clone()), &images, &labels, 0.1, &mut gradient).unwrap();
        // Along the gradient tilted at random: steep enough for f32, and wrong entries anywhere would show. The step is short
        // because the kinks of a deep ReLU network without shortcuts bend the loss: there the error falls in proportion to it,
        // from 8 per cent at 2e-3 to 0.6 here.
        let mut stream = Stream::new(3, Purpose::Probe);
        let unit = |values: Vec<f32>| {
            let norm = values.iter().map(|v| v * v).sum::<f32>().sqrt();
            values.into_iter().map(|v| v / norm).collect::<Vec<f32>>()
        };
        for _ in 0..4 {
            let tilt = unit((0..weights.len()).map(|_| stream.normal()).collect());
            let direction = unit(unit(gradient.clone()).iter().zip(&tilt).map(|(g, t)| g + 0.5 * t).collect());
            let loss = |by: f32| {
                let moved: Vec<f32> = weights.iter().zip(&direction).map(|(w, d)| w + by * d).collect();
                let mut unused = vec![0.0; weights.len()];
                model.gradient(&Arc::new(moved), &images, &labels, 0.1, &mut unused).unwrap().loss
            };
            let slope = (loss(1e-4) - loss(-1e-4)) / 2e-4;
            let along: f64 = gradient.iter().zip(&direction).map(|(g, d)| f64::from(g * d)).sum();
            assert!((slope / along - 1.0).abs() < 1e-2, "{kind:?}: {slope} against {along}");
        }
    }
}

#[test]
fn evaluation_in_training_statistics_agrees_with_training() {
    // With running statistics equal to a batch's own (biased) moments, both phases compute the same logits.
    let (images, labels) = batch(16);
    for kind in kinds() {
        let model = Model::build(&kind, SHAPE, 10, Method::Auto).unwrap();
        let weights = model.initial(4);
        let mut gradient = vec![0.0; weights.len()];
        let report = model.gradient(&Arc::new(weights.clone()), &images, &labels, 0.0, &mut gradient).unwrap();
        if model.statistics().is_empty() {
            let scores = model.evaluate(&Arc::new(weights.clone()), &[], &images, &labels).unwrap();
            let mean = scores.iter().map(|score| score.loss).sum::<f64>() / 16.0;
            assert!((mean - report.loss).abs() < 1e-6, "{kind:?}");
        } else {
            let scores =
                model.evaluate(&Arc::new(weights.clone()), &model.initial_statistics(), &images, &labels).unwrap();
            assert!(scores.iter().all(|score| score.loss.is_finite()));
            assert_eq!(report.statistics.len(), model.statistics().len());
        }
    }
}

#[test]
fn initial_weights_follow_pytorchs_defaults_and_depend_on_seed_and_name() {
    let model =
        Model::build(&ModelKind::ViT { patch: 4, dim: 48, depth: 1, heads: 3, mlp_ratio: 4 }, SHAPE, 10, Method::Auto)
            .unwrap();
    let weights = model.initial(5);
    assert_eq!(weights, model.initial(5));
    assert_ne!(weights, model.initial(6));
    let tensor = |name: &str| &weights[model.parameters().get(name).unwrap().range()];
    let largest = |values: &[f32]| values.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let bound = 1.0 / 48f32.sqrt();
    let spread = largest(tensor("blocks.0.attn.qkv.weight"));
    assert!(spread <= bound && spread > 0.98 * bound, "{spread} of {bound}");
    assert!(tensor("cls_token").iter().all(|v| *v == 0.0));
    assert!(tensor("norm.weight").iter().all(|v| *v == 1.0));
    let positions = tensor("pos_embed");
    let deviation = (positions.iter().map(|v| v * v).sum::<f32>() / positions.len() as f32).sqrt();
    assert!((deviation / 0.02 - 1.0).abs() < 0.2, "{deviation}");
    let norms: Vec<&str> = model
        .parameters()
        .entries()
        .iter()
        .zip(model.of_norms())
        .filter(|(_, of_norm)| *of_norm)
        .map(|(entry, _)| entry.name.as_str())
        .collect();
    assert_eq!(
        norms,
        [
            "blocks.0.norm1.bias",
            "blocks.0.norm1.weight",
            "blocks.0.norm2.bias",
            "blocks.0.norm2.weight",
            "norm.bias",
            "norm.weight"
        ]
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let vit = |patch, dim, heads| ModelKind::ViT { patch, dim, depth: 1, heads, mlp_ratio: 1 };
    assert!(matches!(Model::build(&vit(3, 12, 3), SHAPE, 10, Method::Auto), Err(ModelError::Images { .. })));
    assert!(matches!(
        Model::build(&vit(4, 10, 3), SHAPE, 10, Method::Auto),
        Err(ModelError::Option { option: "dim", .. })
    ));
    let resnet = ModelKind::ResNet { depth: 9, skip: true, norm: NormLayer::Batch };
    assert!(matches!(Model::build(&resnet, SHAPE, 10, Method::Auto), Err(ModelError::Option { found: 9, .. })));
    let convnet =
        Model::build(&ModelKind::ConvNet { widths: vec![4, 4, 4, 4], norm: NormLayer::Batch }, SHAPE, 10, Method::Auto)
            .unwrap();
    let refused = convnet.micro_batch_allowed(1);
    assert!(matches!(refused, Err(ModelError::OneValueAChannel { size: 1, area: 1, .. })), "{refused:?}");
    assert!(convnet.micro_batch_allowed(2).is_ok());
    let mut gradient = vec![0.0; convnet.parameters().len()];
    let short = convnet.gradient(&Arc::new(convnet.initial(0)), &[0.0; 3], &[1], 0.0, &mut gradient);
    assert!(matches!(short, Err(ModelError::Length { what: "images", .. })));
}
