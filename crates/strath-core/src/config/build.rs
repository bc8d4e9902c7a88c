//! From merged raw values to a valid [`Config`]: what no single key can tell.

use std::path::PathBuf;

use super::check::shown;
use super::choices::{
    Algorithm, Augmentation, Compute, Convolution, DataKind, Device, Direction, Isa, LaneSizes, ModelKind, Norm,
    NormLayer, Numerics, OptimizerKind, Perturb, Reduce, RhoRule, RunLength, Schedule, Transport, WeightDecay,
};
use super::error::ConfigError;
use super::keys::KEYS;
use super::render::Effective;
use super::replace::Replaced;
use super::tables::{
    BatchTable, CheckpointTable, ClusterTable, Config, DataTable, LossTable, ModelTable, OptimizerTable, RunTable,
    SamTable, ScheduleTable, TelemetryTable,
};
use super::tree::{Tree, assignment};

/// Epochs of a run that names neither epochs nor steps.
const EPOCHS: u64 = 10;
/// The widest crop or cutout, pixels: beyond any image.
const WIDEST: usize = 1 << 16;

/// Builds the configuration of a merged tree; `replaced` are the options that a later layer took away.
///
/// # Errors
/// [`ConfigError`] where keys do not fit together or a required one is missing.
pub(super) fn build(tree: &Tree, replaced: &[Replaced]) -> Result<Effective, ConfigError> {
    refuse_what_would_be_ignored(tree)?;
    let config = tables(tree).map_err(|error| with_story(error, replaced))?;
    let micro_batches = config.plan()?.micro_batches().len();
    if let Some(why) = config.telemetry.ladder.then(|| why_no_ladder(&config)).flatten() {
        return Err(wrong(tree, "telemetry.ladder", "true".into(), &format!("false, as {why}")));
    }
    let mut warnings: Vec<String> = replaced.iter().map(|option| option.story.clone()).collect();
    warnings.extend(idle_workers(&config, micro_batches));
    let origins = KEYS.iter().map(|key| (key.path, tree.origin(key.path))).collect();
    Ok(Effective::new(config, origins, warnings))
}

fn tables(tree: &Tree) -> Result<Config, ConfigError> {
    Ok(Config {
        run: run(tree)?,
        data: data(tree)?,
        model: model(tree)?,
        loss: LossTable { label_smoothing: number(tree, "loss.label_smoothing") },
        batch: BatchTable { size: size(tree, "batch.size"), micro: tree.size("batch.micro") },
        sam: sam(tree)?,
        optimizer: optimizer(tree)?,
        schedule: schedule(tree)?,
        cluster: cluster(tree)?,
        checkpoint: CheckpointTable {
            every_steps: size(tree, "checkpoint.every_steps") as u64,
            keep: size(tree, "checkpoint.keep"),
        },
        telemetry: TelemetryTable {
            every: tree.integer("telemetry.every").unwrap_or(50) as u64,
            ladder: tree.boolean("telemetry.ladder").unwrap_or(false),
        },
    })
}

/// Refuses a key that was set although the choice that would give it a meaning was not made.
fn refuse_what_would_be_ignored(tree: &Tree) -> Result<(), ConfigError> {
    for key in KEYS.iter().filter(|key| tree.is_set(key.path)) {
        let Some(only) = key.only_with else { continue };
        if let Some(chosen) = tree.word(only.choice).filter(|chosen| !only.values.contains(&chosen.as_str())) {
            let with = assignment(only.choice, &chosen);
            return Err(ConfigError::MeansNothing { key: key.path.into(), origin: tree.origin(key.path), with });
        }
    }
    Ok(())
}

/// A missing key that was there until a later layer took it away: the error says so.
fn with_story(error: ConfigError, replaced: &[Replaced]) -> ConfigError {
    match error {
        ConfigError::Missing { key, mut advice } => {
            for option in replaced.iter().filter(|option| option.key == key) {
                advice = format!("{advice} ({})", option.story);
            }
            ConfigError::Missing { key, advice }
        }
        other => other,
    }
}

/// Why the ascent gradient of a coarser lane is not the mean of the lanes' that it would be made of, or there is nothing to tell it with.
fn why_no_ladder(config: &Config) -> Option<&'static str> {
    let norm = match &config.model.kind {
        ModelKind::ConvNet { norm, .. } | ModelKind::ResNet { norm, .. } | ModelKind::WideResNet { norm, .. } => *norm,
        ModelKind::Mlp { .. } | ModelKind::ViT { .. } => NormLayer::None,
    };
    let lanes = config.plan().ok()?;
    let are_equal = lanes.lanes().windows(2).all(|pair| pair[0].size == pair[1].size);
    if norm == NormLayer::Batch && config.batch.micro.is_none() {
        return Some(
            "batch norm over the whole lane makes a coarser lane's gradient another than the mean of finer ones' (31 % off where it was \
             measured); fix what it sees with batch.micro, or take model.norm = \"group\"",
        );
    }
    if !are_equal {
        return Some("lanes of different sizes are on no rung; give sam.m as one number");
    }
    if config.sam.rho == 0.0 {
        return Some("sam.rho is 0: there are no lanes to survey");
    }
    (config.telemetry.every == 0).then_some("telemetry.every is 0 and the ladder is a part of surveys")
}

/// A warning where there is less to hand out than there are workers.
fn idle_workers(config: &Config, micro_batches: usize) -> Option<String> {
    let workers = config.cluster.workers;
    let idle = workers.checked_sub(micro_batches).filter(|idle| *idle > 0)?;
    if config.sam.m == LaneSizes::Batch && config.batch.micro.is_none() {
        return Some(format!(
            "sam.m = \"batch\" without batch.micro is one micro-batch, so one worker computes all of it and {idle} of {workers} \
             idle; set batch.micro to spread the lane"
        ));
    }
    let batches = if micro_batches == 1 { "micro-batch" } else { "micro-batches" };
    Some(format!(
        "a batch has {micro_batches} {batches} for {workers} workers, so {idle} idle; lower sam.m, batch.micro or \
         cluster.workers"
    ))
}

fn run(tree: &Tree) -> Result<RunTable, ConfigError> {
    let kind = tree.text("data.kind").unwrap_or("run");
    let name = tree.text("run.name").unwrap_or(kind).to_string();
    let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\']);
    if !plain || name.contains(char::is_control) {
        let expected = "a plain folder name: no slash, no dot in front, no control character";
        return Err(wrong(tree, "run.name", format!("{name:?}"), expected));
    }
    let length = match (tree.integer("run.epochs"), tree.integer("run.steps")) {
        (_, Some(steps)) => RunLength::Steps(steps as u64),
        (Some(epochs), None) => RunLength::Epochs(epochs as u64),
        (None, None) => RunLength::Epochs(EPOCHS),
    };
    Ok(RunTable {
        name,
        seed: tree.integer("run.seed").unwrap_or(0) as u64,
        length,
        eval_every_epochs: size(tree, "run.eval_every_epochs") as u64,
        eval_train: tree.boolean("run.eval_train").unwrap_or(false),
        stop_loss: tree.number("run.stop_loss"),
    })
}

fn data(tree: &Tree) -> Result<DataTable, ConfigError> {
    let kind = match tree.text("data.kind") {
        Some("digits") => DataKind::Digits,
        Some("mnist") => DataKind::Mnist,
        Some("fashion-mnist") => DataKind::FashionMnist,
        Some("cifar10") => DataKind::Cifar10,
        Some("cifar100") => DataKind::Cifar100,
        Some("safetensors") => DataKind::Safetensors,
        _ => {
            let advice = "write kind = \"digits\" (built in), mnist, fashion-mnist, cifar10, cifar100 or safetensors under [data]";
            return Err(ConfigError::Missing { key: "data.kind", advice: advice.into() });
        }
    };
    let path = tree.text("data.path").map(PathBuf::from);
    if path.is_none() && kind != DataKind::Digits {
        let advice = "say where the data is, such as path = \"/usr/share/datasets/fashion-mnist\" under [data]";
        return Err(ConfigError::Missing { key: "data.path", advice: advice.into() });
    }
    let classes = tree.size("data.classes");
    match (kind.classes(), classes) {
        (None, None) => {
            let advice = "safetensors data does not say how many classes there are: write classes = K under [data]";
            return Err(ConfigError::Missing { key: "data.classes", advice: advice.into() });
        }
        (Some(has), Some(found)) if found != has => {
            let expected = format!("{has}, as this data set has; leave it out");
            return Err(wrong(tree, "data.classes", found.to_string(), &expected));
        }
        _ => {}
    }
    let augment = tree.texts("data.augment").unwrap_or_default().into_iter();
    let augment = augment.map(|text| augmentation(tree, text)).collect::<Result<_, _>>()?;
    Ok(DataTable {
        kind,
        path,
        shuffle: tree.boolean("data.shuffle").unwrap_or(true),
        augment,
        train_limit: tree.size("data.train_limit"),
        label_noise: number(tree, "data.label_noise"),
        validation: number(tree, "data.validation"),
        classes: if kind == DataKind::Safetensors { classes } else { None },
    })
}

fn augmentation(tree: &Tree, text: &str) -> Result<Augmentation, ConfigError> {
    let side = |digits: &str| digits.parse::<usize>().ok().filter(|side| (1..=WIDEST).contains(side));
    let found = match text.split_once(':') {
        None if text == "flip" => Some(Augmentation::Flip),
        Some(("crop", pad)) => side(pad).map(Augmentation::Crop),
        Some(("cutout", length)) => side(length).map(Augmentation::Cutout),
        _ => None,
    };
    found.ok_or_else(|| {
        let expected = "\"flip\", \"crop:N\" or \"cutout:N\" with N pixels, 1 to 65536";
        wrong(tree, "data.augment", shown(&toml::Value::from(text)), expected)
    })
}

fn model(tree: &Tree) -> Result<ModelTable, ConfigError> {
    let Some(kind) = tree.text("model.kind") else {
        let advice = "write kind = \"convnet\" (or mlp, resnet, wide-resnet, vit) under [model]";
        return Err(ConfigError::Missing { key: "model.kind", advice: advice.into() });
    };
    let option = |path: &'static str, default: usize| tree.size(path).unwrap_or(default);
    let norm = match tree.text("model.norm") {
        Some("group") => NormLayer::Group,
        Some("none") => NormLayer::None,
        _ => NormLayer::Batch,
    };
    let kind = match kind {
        "mlp" => {
            let Some(hidden) = tree.sizes("model.hidden") else {
                let advice = "an mlp needs its hidden widths: write hidden = [256, 128] under [model]; [] is linear";
                return Err(ConfigError::Missing { key: "model.hidden", advice: advice.into() });
            };
            ModelKind::Mlp { hidden }
        }
        "convnet" => {
            let widths = tree.sizes("model.widths").unwrap_or_else(|| vec![16, 32, 64]);
            if widths.is_empty() {
                return Err(wrong(tree, "model.widths", "[]".into(), "at least one width"));
            }
            ModelKind::ConvNet { widths, norm }
        }
        "resnet" => {
            let depth = option("model.depth", 20);
            if depth < 8 || depth % 6 != 2 {
                return Err(wrong(
                    tree,
                    "model.depth",
                    depth.to_string(),
                    "6n + 2 with n of at least 1: 8, 14, 20, 32, 44, 56, 110",
                ));
            }
            let skip = tree.boolean("model.skip").unwrap_or(true);
            ModelKind::ResNet { depth, skip, norm }
        }
        "wide-resnet" => {
            let (depth, widen) = (option("model.depth", 28), option("model.widen", 10));
            if depth < 10 || depth % 6 != 4 {
                return Err(wrong(
                    tree,
                    "model.depth",
                    depth.to_string(),
                    "6n + 4 with n of at least 1: 10, 16, 22, 28, 40",
                ));
            }
            ModelKind::WideResNet { depth, widen, norm }
        }
        _ => {
            let (dim, heads) = (option("model.dim", 192), option("model.heads", 3));
            if dim % heads != 0 {
                return Err(wrong(tree, "model.dim", dim.to_string(), &format!("a multiple of model.heads = {heads}")));
            }
            ModelKind::ViT {
                patch: option("model.patch", 4),
                dim,
                depth: option("model.depth", 12),
                heads,
                mlp_ratio: option("model.mlp_ratio", 4),
            }
        }
    };
    let convolution = match tree.text("model.convolution") {
        Some("direct") => Convolution::Direct,
        Some("winograd") => Convolution::Winograd,
        _ => Convolution::Auto,
    };
    let compute = match tree.text("model.compute") {
        Some("tf32") => Compute::Tf32,
        Some("bf16") => Compute::Bf16,
        _ => Compute::F32,
    };
    Ok(ModelTable { kind, convolution, compute, init: tree.text("model.init").map(PathBuf::from) })
}

fn sam(tree: &Tree) -> Result<SamTable, ConfigError> {
    let batch = size(tree, "batch.size");
    let m = match (tree.size("sam.m"), tree.sizes("sam.m"), tree.text("sam.m")) {
        (Some(m), _, _) => LaneSizes::Each(m),
        (_, Some(sizes), _) => LaneSizes::List(sizes),
        (_, _, Some("batch")) => LaneSizes::Batch,
        _ => {
            let workers = size(tree, "cluster.workers");
            if !batch.is_multiple_of(workers) {
                return Err(ConfigError::WorkersDoNotDivideBatch { batch, workers });
            }
            LaneSizes::Each(batch / workers)
        }
    };
    let norm = number(tree, "sam.norm");
    Ok(SamTable {
        rho: number(tree, "sam.rho"),
        m,
        norm: if norm.is_infinite() { Norm::Infinity } else { Norm::P(norm) },
        adaptive: tree.boolean("sam.adaptive").unwrap_or(false),
        eta: number(tree, "sam.eta"),
        perturb: match tree.text("sam.perturb") {
            Some("norm-only") => Perturb::NormOnly,
            Some("no-norm") => Perturb::NoNorm,
            _ => Perturb::All,
        },
        weight_decay: if tree.text("sam.weight_decay") == Some("inside") {
            WeightDecay::Inside
        } else {
            WeightDecay::Outside
        },
        rho_rule: match tree.text("sam.rho_rule") {
            Some("sqrt-m") => RhoRule::SqrtM { m_ref: tree.size("sam.m_ref").unwrap_or(batch) },
            _ => RhoRule::Constant,
        },
        direction: if tree.text("sam.direction") == Some("random") { Direction::Random } else { Direction::Gradient },
    })
}

fn optimizer(tree: &Tree) -> Result<OptimizerTable, ConfigError> {
    let option = |path: &'static str, default: f64| tree.number(path).unwrap_or(default);
    let kind = if tree.text("optimizer.kind") == Some("adamw") {
        OptimizerKind::AdamW {
            beta1: option("optimizer.beta1", 0.9),
            beta2: option("optimizer.beta2", 0.999),
            adam_eps: option("optimizer.adam_eps", 1e-8),
        }
    } else {
        let momentum = option("optimizer.momentum", 0.0);
        let nesterov = tree.boolean("optimizer.nesterov").unwrap_or(false);
        if nesterov && momentum == 0.0 {
            return Err(wrong(tree, "optimizer.nesterov", "true".into(), "false, as optimizer.momentum is 0"));
        }
        OptimizerKind::Sgd { momentum, nesterov }
    };
    Ok(OptimizerTable {
        kind,
        lr: number(tree, "optimizer.lr"),
        weight_decay: number(tree, "optimizer.weight_decay"),
        clip_norm: tree.number("optimizer.clip_norm"),
    })
}

fn schedule(tree: &Tree) -> Result<ScheduleTable, ConfigError> {
    let kind = match tree.text("schedule.kind") {
        Some("cosine") => Schedule::Cosine,
        Some("step") => {
            let Some(milestones) = tree.sizes("schedule.milestones") else {
                let advice = "a step schedule needs the steps at which the rate falls: write milestones = [1000, 2000]";
                return Err(ConfigError::Missing { key: "schedule.milestones", advice: advice.into() });
            };
            if !milestones.windows(2).all(|pair| pair[0] < pair[1]) {
                return Err(wrong(tree, "schedule.milestones", format!("{milestones:?}"), "steps that rise"));
            }
            let milestones = milestones.into_iter().map(|step| step as u64).collect();
            Schedule::Step { milestones, gamma: tree.number("schedule.gamma").unwrap_or(0.1) }
        }
        _ => Schedule::Constant,
    };
    Ok(ScheduleTable { kind, warmup_steps: tree.integer("schedule.warmup_steps").unwrap_or(0) as u64 })
}

fn cluster(tree: &Tree) -> Result<ClusterTable, ConfigError> {
    if (tree.text("cluster.transport"), tree.text("cluster.reduce")) == (Some("nccl"), Some("bf16")) {
        let expected = "\"exact\" or \"f32\", which NCCL sums (cluster.transport = \"nccl\")";
        return Err(wrong(tree, "cluster.reduce", "\"bf16\"".into(), expected));
    }
    Ok(ClusterTable {
        workers: size(tree, "cluster.workers"),
        min_workers: size(tree, "cluster.min_workers"),
        device: device(tree)?,
        isa: match tree.text("cluster.isa") {
            Some("avx512") => Isa::Avx512,
            Some("avx2") => Isa::Avx2,
            Some("portable") => Isa::Portable,
            _ => Isa::Auto,
        },
        threads: tree.size("cluster.threads"),
        streams: tree.size("cluster.streams"),
        reduce: match tree.text("cluster.reduce") {
            Some("f32") => Reduce::F32,
            Some("bf16") => Reduce::Bf16,
            _ => Reduce::Exact,
        },
        algorithm: match tree.text("cluster.algorithm") {
            Some("ring") => Algorithm::Ring,
            Some("direct") => Algorithm::Direct,
            _ => Algorithm::Auto,
        },
        transport: match tree.text("cluster.transport") {
            Some("tcp") => Transport::Tcp,
            Some("shm") => Transport::Shm,
            Some("nccl") => Transport::Nccl,
            _ => Transport::Auto,
        },
        gather_ms: tree.integer("cluster.gather_ms").unwrap_or(2000) as u64,
        gather_timeout_s: tree.integer("cluster.gather_timeout_s").unwrap_or(3600) as u64,
        rejoin_timeout_s: tree.integer("cluster.rejoin_timeout_s").unwrap_or(300) as u64,
        lease_ms: tree.integer("cluster.lease_ms").unwrap_or(2000) as u64,
        verify_every_steps: tree.integer("cluster.verify_every_steps").unwrap_or(100) as u64,
        numerics: if tree.text("cluster.numerics") == Some("any") { Numerics::Any } else { Numerics::Same },
    })
}

/// A size that has a default and so is always there.
fn size(tree: &Tree, path: &'static str) -> usize {
    tree.size(path).expect("this key has a default")
}

/// A number that has a default and so is always there.
fn number(tree: &Tree, path: &'static str) -> f64 {
    tree.number(path).expect("this key has a default")
}

fn device(tree: &Tree) -> Result<Device, ConfigError> {
    let text = tree.text("cluster.device").unwrap_or("auto");
    let number = || text.strip_prefix("cuda:")?.parse().ok();
    match text {
        "auto" => Ok(Device::Auto),
        "cpu" => Ok(Device::Cpu),
        _ => number().map(Device::Cuda).ok_or_else(|| {
            wrong(
                tree,
                "cluster.device",
                format!("{text:?}"),
                "\"auto\", \"cpu\", or \"cuda:N\" for the GPU of number N",
            )
        }),
    }
}

fn wrong(tree: &Tree, path: &'static str, found: String, expected: &str) -> ConfigError {
    ConfigError::WrongValue { key: path.into(), found, origin: tree.origin(path), expected: expected.into() }
}
