//! Every configuration reads back from its own text, and no text makes the reader panic.

use std::path::PathBuf;

use proptest::prelude::*;
use strath_core::config::{
    Algorithm, Augmentation, Compute, Config, Convolution, DataKind, Device, Direction, Isa, LaneSizes, ModelKind,
    Norm, NormLayer, Numerics, OptimizerKind, Perturb, Reduce, RhoRule, RunLength, Schedule, Transport, WeightDecay,
    resumable,
};

use crate::support::{config, resolve, with};

fn data() -> impl Strategy<Value = (DataKind, Option<PathBuf>, Option<usize>)> {
    let file = "/[a-z \"\\\\é]{1,20}".prop_map(PathBuf::from);
    prop_oneof![
        Just((DataKind::Digits, None, None)),
        (
            prop::sample::select(vec![DataKind::Mnist, DataKind::FashionMnist, DataKind::Cifar10, DataKind::Cifar100]),
            file
        )
            .prop_map(|(kind, path)| (kind, Some(path), None)),
        (2usize..60_000).prop_map(|k| (DataKind::Safetensors, Some(PathBuf::from("/d.safetensors")), Some(k))),
    ]
}

fn norms() -> impl Strategy<Value = NormLayer> {
    prop::sample::select(vec![NormLayer::Batch, NormLayer::Group, NormLayer::None])
}

fn model() -> impl Strategy<Value = ModelKind> {
    let widths = |least| prop::collection::vec(1usize..=65_536, least..5);
    let size = || 1usize..=65_536;
    prop_oneof![
        widths(0).prop_map(|hidden| ModelKind::Mlp { hidden }),
        (widths(1), norms()).prop_map(|(widths, norm)| ModelKind::ConvNet { widths, norm }),
        (1usize..200, any::<bool>(), norms()).prop_map(|(n, skip, norm)| ModelKind::ResNet {
            depth: 6 * n + 2,
            skip,
            norm
        }),
        (1usize..200, size(), norms()).prop_map(|(n, widen, norm)| ModelKind::WideResNet {
            depth: 6 * n + 4,
            widen,
            norm
        }),
        (size(), 1usize..64, size(), 1usize..64, size()).prop_map(|(patch, width, depth, heads, mlp_ratio)| {
            ModelKind::ViT { patch, dim: width * heads, depth, heads, mlp_ratio }
        }),
    ]
}

fn optimizer() -> impl Strategy<Value = OptimizerKind> {
    prop_oneof![
        (0.0f64..1.0, any::<bool>())
            .prop_map(|(momentum, n)| OptimizerKind::Sgd { momentum, nesterov: n && momentum > 0.0 }),
        (0.0f64..1.0, 0.0f64..1.0, 1e-300f64..1.0).prop_map(|(beta1, beta2, adam_eps)| OptimizerKind::AdamW {
            beta1,
            beta2,
            adam_eps
        }),
    ]
}

fn schedule() -> impl Strategy<Value = Schedule> {
    prop_oneof![
        Just(Schedule::Constant),
        Just(Schedule::Cosine),
        (prop::collection::btree_set(1u64..1 << 40, 0..5), 1e-9f64..10.0)
            .prop_map(|(steps, gamma)| Schedule::Step { milestones: steps.into_iter().collect(), gamma }),
    ]
}

/// Batch, lanes and micro-batches that fit: lanes are whole numbers of micro-batches, or micro-batches are whole lanes.
fn sizes() -> impl Strategy<Value = (usize, LaneSizes, Option<usize>)> {
    let lanes = prop::collection::vec(1usize..40, 1..6);
    (lanes, 1usize..20, 0..4, any::<bool>()).prop_map(|(lanes, micro, form, whole)| {
        let sizes: Vec<usize> = lanes.iter().map(|lane| lane * micro).collect();
        let micro = if whole { None } else { Some(micro) };
        match form {
            0 => (sizes.iter().sum(), LaneSizes::Batch, micro),
            1 => (sizes[0] * sizes.len(), LaneSizes::Each(sizes[0]), micro),
            _ => (sizes.iter().sum(), LaneSizes::List(sizes), micro),
        }
    })
}

prop_compose! {
    fn any_config()(
        name in "[a-zé \"][a-z0-9.\" -]{0,12}", seed in 0..=i64::MAX as u64, length in 1u64..1_000_000_000, by_epochs in any::<bool>(),
        (kind, path, classes) in data(), shuffle in any::<bool>(), noise in 0.0f64..=1.0, limit in prop::option::of(1usize..1 << 40),
        augment in prop::collection::vec(prop_oneof![
            Just(Augmentation::Flip), (1usize..=65_536).prop_map(Augmentation::Crop), (1usize..=65_536).prop_map(Augmentation::Cutout)
        ], 0..4),
        model in model(), init in prop::option::of("/[a-z]{1,9}"),
    )(
        smoothing in 0.0f64..1.0, (batch, lanes, micro) in sizes(),
        rho in prop_oneof![Just(0.0), 1e-300f64..1e9], norm in prop_oneof![Just(Norm::Infinity), (1.0f64..1e9).prop_map(Norm::P)],
        adaptive in any::<bool>(), eta in 0.0f64..1.0,
        perturb in prop::sample::select(vec![Perturb::All, Perturb::NormOnly, Perturb::NoNorm]), inside in any::<bool>(),
        (optimizer, schedule, lr, decay) in (optimizer(), schedule(), 1e-300f64..1e300, 0.0f64..1.0),
        rho_rule in prop_oneof![Just(RhoRule::Constant), (1usize..=1 << 20).prop_map(|m_ref| RhoRule::SqrtM { m_ref })],
        (clip, warmup, threads, workers) in (prop::option::of(1e-3f64..10.0), 0u64..1 << 40, prop::option::of(1usize..64), 1usize..65),
        reduce in prop::sample::select(vec![Reduce::Exact, Reduce::F32, Reduce::Bf16]),
        algorithm in prop::sample::select(vec![Algorithm::Auto, Algorithm::Ring, Algorithm::Direct]),
        (cpu, tcp, same, lease, keep) in (any::<bool>(), any::<bool>(), any::<bool>(), 250u64..1 << 40, 1usize..1000),
        (name, seed, length, by_epochs, kind, path, classes) in Just((name, seed, length, by_epochs, kind, path, classes)),
        (shuffle, noise, limit, augment, model, init) in Just((shuffle, noise, limit, augment, model, init)),
    ) -> Config {
        let mut config = config(&[]);
        config.run.name = name;
        config.run.seed = seed;
        config.run.length = if by_epochs { RunLength::Epochs(length) } else { RunLength::Steps(length) };
        config.run.eval_every_epochs = length;
        config.run.eval_train = shuffle;
        config.run.stop_loss = by_epochs.then_some(noise + 0.1);
        (config.data.kind, config.data.path, config.data.classes) = (kind, path, classes);
        (config.data.shuffle, config.data.label_noise, config.data.train_limit) = (shuffle, noise, limit);
        config.data.validation = if noise < 1.0 { noise } else { 0.0 };
        config.data.augment = augment;
        config.model.kind = model;
        config.model.convolution = match (cpu, tcp) {
            (true, _) => Convolution::Direct,
            (false, true) => Convolution::Winograd,
            (false, false) => Convolution::Auto,
        };
        config.model.compute = match (cpu, adaptive) {
            (true, true) => Compute::Bf16,
            (true, false) => Compute::Tf32,
            (false, _) => Compute::F32,
        };
        config.cluster.isa = if tcp { Isa::Avx2 } else { Isa::Auto };
        config.model.init = init.map(PathBuf::from);
        config.loss.label_smoothing = smoothing;
        (config.batch.size, config.sam.m, config.batch.micro) = (batch, lanes, micro);
        (config.sam.rho, config.sam.norm, config.sam.adaptive, config.sam.perturb) = (rho, norm, adaptive, perturb);
        config.sam.rho_rule = rho_rule;
        config.sam.direction = if tcp { Direction::Random } else { Direction::Gradient };
        if adaptive {
            config.sam.eta = eta;
        }
        config.sam.weight_decay = if inside { WeightDecay::Inside } else { WeightDecay::Outside };
        (config.optimizer.kind, config.optimizer.lr, config.optimizer.weight_decay) = (optimizer, lr, decay);
        config.optimizer.clip_norm = clip;
        (config.schedule.kind, config.schedule.warmup_steps) = (schedule, warmup);
        (config.cluster.workers, config.cluster.min_workers, config.cluster.threads) = (workers, workers, threads);
        config.cluster.streams = threads.map(|threads| threads.min(7));
        (config.cluster.reduce, config.cluster.algorithm) = (reduce, algorithm);
        config.cluster.device = if cpu { Device::Cpu } else { Device::Auto };
        config.cluster.transport = match (tcp, same) {
            (true, _) => Transport::Tcp,
            (false, true) => Transport::Shm,
            (false, false) => Transport::Auto,
        };
        config.cluster.numerics = if same { Numerics::Same } else { Numerics::Any };
        (config.cluster.lease_ms, config.cluster.gather_ms, config.cluster.gather_timeout_s) = (lease, lease, lease);
        config.cluster.verify_every_steps = keep as u64;
        (config.checkpoint.every_steps, config.checkpoint.keep) = (lease, keep);
        config.telemetry.every = keep as u64 - 1;
        config
    }
}

proptest! {
    #[test]
    fn every_configuration_reads_back_from_its_own_text(config in any_config()) {
        let text = config.to_toml();
        prop_assert_eq!(Config::from_toml(&text), Ok(config.clone()), "{}", text);
        prop_assert_eq!(resumable(&config, &Config::from_toml(&text).unwrap()), Ok(()));
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "(\\[[a-z.]{0,8}\\]\n|[a-z]{1,6}(\\.[a-z]{1,4})? = [a-z0-9\"\\[\\]{}., ]{0,12}\n){0,6}") {
        let _ = resolve(&text);
    }

    #[test]
    fn no_assignment_makes_the_reader_panic_and_every_refusal_is_one_line(key in 0usize..64, value in "\\PC{0,12}|[0-9e.+-]{1,24}|\\[[0-9, ]{0,24}\\]") {
        let keys = strath_core::config::keys::KEYS;
        let assignment = format!("{}={value}", keys[key % keys.len()].path);
        if let Err(error) = with(&[&assignment]) {
            prop_assert_eq!(error.to_string().lines().count(), 1, "{}", error);
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(text in "[\\[\\]a-z.=\"'\\\\\né😀#0-9 ]{0,40}") {
        let _ = resolve(&text);
    }
}
