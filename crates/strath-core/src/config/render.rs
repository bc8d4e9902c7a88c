//! A configuration as text: the TOML that workers and `config.toml` get, and the rows of `strath config`.

use std::collections::BTreeMap;
use std::path::Path;

use super::choices::{
    Algorithm, Augmentation, Convolution, DataKind, Device, Direction, Isa, LaneSizes, ModelKind, Norm, NormLayer,
    Numerics, OptimizerKind, Perturb, Reduce, RhoRule, RunLength, Schedule, Transport, WeightDecay,
};
use super::error::ConfigError;
use super::keys::KEYS;
use super::merge::Layers;
use super::origin::Origin;
use super::tables::Config;

/// A valid configuration with the origin of each value.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    /// The configuration.
    pub config: Config,
    origins: BTreeMap<&'static str, Origin>,
    warnings: Vec<String>,
}

/// A row of `strath config`.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The key.
    pub key: &'static str,
    /// Its value as TOML; `-` where it has none.
    pub value: String,
    /// Where the value comes from.
    pub origin: Origin,
    /// What the key means.
    pub meaning: &'static str,
}

impl Effective {
    pub(super) fn new(config: Config, origins: BTreeMap<&'static str, Origin>, warnings: Vec<String>) -> Self {
        Self { config, origins, warnings }
    }

    /// What is legal but probably not meant.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// A row for every key that has a value, and for those that could.
    pub fn rows(&self) -> Vec<Row> {
        let values: BTreeMap<&str, String> = self.config.values().into_iter().collect();
        KEYS.iter()
            .map(|key| Row {
                key: key.path,
                value: values.get(key.path).cloned().unwrap_or_else(|| "-".into()),
                origin: self.origins.get(key.path).cloned().unwrap_or(Origin::Default),
                meaning: key.meaning,
            })
            .collect()
    }

    /// The configuration as TOML; see [`Config::to_toml`].
    pub fn to_toml(&self) -> String {
        self.config.to_toml()
    }
}

impl Config {
    /// The configuration as TOML that [`from_toml`](Self::from_toml) reads back as an equal one: every value written out,
    /// paths absolute.
    pub fn to_toml(&self) -> String {
        let values: BTreeMap<&str, String> = self.values().into_iter().collect();
        let mut lines = Vec::new();
        let mut table = "";
        for key in KEYS {
            let Some(value) = values.get(key.path) else { continue };
            let (this, name) = key.path.split_once('.').unwrap_or(("", key.path));
            if this != table {
                let gap = if table.is_empty() { "" } else { "\n" };
                lines.push(format!("{gap}[{this}]\n"));
                table = this;
            }
            lines.push(format!("{name} = {value}\n"));
        }
        lines.concat()
    }

    /// Reads what [`to_toml`](Self::to_toml) wrote.
    ///
    /// # Errors
    /// [`ConfigError`], as for any configuration.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        Ok(Layers::new().file(text, "config.toml", Path::new("/"))?.resolve()?.config)
    }

    /// Every key that has a value, with the value as TOML.
    pub(super) fn values(&self) -> Vec<(&'static str, String)> {
        let mut values = Values::default();
        self.run_values(&mut values);
        self.data_values(&mut values);
        self.model_values(&mut values);
        values.put("loss.label_smoothing", self.loss.label_smoothing);
        values.put("batch.size", self.batch.size as i64);
        values.maybe("batch.micro", self.batch.micro.map(|v| v as i64));
        self.sam_values(&mut values);
        self.optimizer_values(&mut values);
        self.cluster_values(&mut values);
        values.put("checkpoint.every_steps", self.checkpoint.every_steps as i64);
        values.put("checkpoint.keep", self.checkpoint.keep as i64);
        values.put("telemetry.every", self.telemetry.every as i64);
        values.put("telemetry.ladder", self.telemetry.ladder);
        values.0
    }

    fn run_values(&self, values: &mut Values) {
        values.put("run.name", self.run.name.as_str());
        values.put("run.seed", self.run.seed as i64);
        match self.run.length {
            RunLength::Epochs(epochs) => values.put("run.epochs", epochs as i64),
            RunLength::Steps(steps) => values.put("run.steps", steps as i64),
        }
        values.put("run.eval_every_epochs", self.run.eval_every_epochs as i64);
        values.put("run.eval_train", self.run.eval_train);
        values.maybe("run.stop_loss", self.run.stop_loss);
    }

    fn data_values(&self, values: &mut Values) {
        let data = &self.data;
        let kind = match data.kind {
            DataKind::Digits => "digits",
            DataKind::Mnist => "mnist",
            DataKind::FashionMnist => "fashion-mnist",
            DataKind::Cifar10 => "cifar10",
            DataKind::Cifar100 => "cifar100",
            DataKind::Safetensors => "safetensors",
        };
        values.put("data.kind", kind);
        values.maybe("data.path", data.path.as_ref().map(|path| path.to_string_lossy().into_owned()));
        values.put("data.shuffle", data.shuffle);
        let augment = data.augment.iter().map(|augmentation| match augmentation {
            Augmentation::Flip => "flip".to_string(),
            Augmentation::Crop(pad) => format!("crop:{pad}"),
            Augmentation::Cutout(side) => format!("cutout:{side}"),
        });
        values.put("data.augment", augment.collect::<Vec<String>>());
        values.maybe("data.train_limit", data.train_limit.map(|v| v as i64));
        values.put("data.label_noise", data.label_noise);
        values.put("data.validation", data.validation);
        values.maybe("data.classes", data.kind.classes().or(data.classes).map(|v| v as i64));
    }

    fn model_values(&self, values: &mut Values) {
        let convolution = match self.model.convolution {
            Convolution::Auto => "auto",
            Convolution::Winograd => "winograd",
            Convolution::Direct => "direct",
        };
        values.put("model.convolution", convolution);
        values.put("model.compute", self.model.compute.name());
        values.maybe("model.init", self.model.init.as_ref().map(|path| path.to_string_lossy().into_owned()));
        let kind = match &self.model.kind {
            ModelKind::Mlp { hidden } => {
                values.put("model.hidden", integers(hidden));
                "mlp"
            }
            ModelKind::ConvNet { widths, norm } => {
                values.put("model.norm", norm_layer(*norm));
                values.put("model.widths", integers(widths));
                "convnet"
            }
            ModelKind::ResNet { depth, skip, norm } => {
                values.put("model.norm", norm_layer(*norm));
                values.put("model.depth", *depth as i64);
                values.put("model.skip", *skip);
                "resnet"
            }
            ModelKind::WideResNet { depth, widen, norm } => {
                values.put("model.norm", norm_layer(*norm));
                values.put("model.depth", *depth as i64);
                values.put("model.widen", *widen as i64);
                "wide-resnet"
            }
            ModelKind::ViT { patch, dim, depth, heads, mlp_ratio } => {
                let options =
                    [("patch", patch), ("dim", dim), ("depth", depth), ("heads", heads), ("mlp_ratio", mlp_ratio)];
                for key in KEYS {
                    let option = options.iter().find(|(name, _)| key.path.strip_prefix("model.") == Some(*name));
                    values.maybe(key.path, option.map(|(_, value)| **value as i64));
                }
                "vit"
            }
        };
        values.put("model.kind", kind);
    }

    fn sam_values(&self, values: &mut Values) {
        let sam = &self.sam;
        values.put("sam.rho", sam.rho);
        match &sam.m {
            LaneSizes::Each(m) => values.put("sam.m", *m as i64),
            LaneSizes::List(sizes) => values.put("sam.m", integers(sizes)),
            LaneSizes::Batch => values.put("sam.m", "batch"),
        }
        values.put(
            "sam.norm",
            match sam.norm {
                Norm::P(p) => p,
                Norm::Infinity => f64::INFINITY,
            },
        );
        values.put("sam.adaptive", sam.adaptive);
        values.maybe("sam.eta", sam.adaptive.then_some(sam.eta));
        values.put(
            "sam.perturb",
            match sam.perturb {
                Perturb::All => "all",
                Perturb::NormOnly => "norm-only",
                Perturb::NoNorm => "no-norm",
            },
        );
        values.put(
            "sam.weight_decay",
            match sam.weight_decay {
                WeightDecay::Outside => "outside",
                WeightDecay::Inside => "inside",
            },
        );
        let rule = match sam.rho_rule {
            RhoRule::Constant => "constant",
            RhoRule::SqrtM { m_ref } => {
                values.put("sam.m_ref", m_ref as i64);
                "sqrt-m"
            }
        };
        values.put("sam.rho_rule", rule);
        values.put(
            "sam.direction",
            match sam.direction {
                Direction::Gradient => "gradient",
                Direction::Random => "random",
            },
        );
    }

    fn optimizer_values(&self, values: &mut Values) {
        let optimizer = &self.optimizer;
        match optimizer.kind {
            OptimizerKind::Sgd { momentum, nesterov } => {
                values.put("optimizer.kind", "sgd");
                values.put("optimizer.momentum", momentum);
                values.put("optimizer.nesterov", nesterov);
            }
            OptimizerKind::AdamW { beta1, beta2, adam_eps } => {
                values.put("optimizer.kind", "adamw");
                values.put("optimizer.beta1", beta1);
                values.put("optimizer.beta2", beta2);
                values.put("optimizer.adam_eps", adam_eps);
            }
        }
        values.put("optimizer.lr", optimizer.lr);
        values.put("optimizer.weight_decay", optimizer.weight_decay);
        values.maybe("optimizer.clip_norm", optimizer.clip_norm);
        let kind = match &self.schedule.kind {
            Schedule::Constant => "constant",
            Schedule::Cosine => "cosine",
            Schedule::Step { milestones, gamma } => {
                values.put("schedule.milestones", milestones.iter().map(|v| *v as i64).collect::<Vec<i64>>());
                values.put("schedule.gamma", *gamma);
                "step"
            }
        };
        values.put("schedule.kind", kind);
        values.put("schedule.warmup_steps", self.schedule.warmup_steps as i64);
    }

    fn cluster_values(&self, values: &mut Values) {
        let cluster = &self.cluster;
        values.put("cluster.workers", cluster.workers as i64);
        values.put("cluster.min_workers", cluster.min_workers as i64);
        values.put(
            "cluster.device",
            match cluster.device {
                Device::Auto => "auto".to_string(),
                Device::Cpu => "cpu".to_string(),
                Device::Cuda(number) => format!("cuda:{number}"),
            },
        );
        values.maybe("cluster.threads", cluster.threads.map(|v| v as i64));
        values.maybe("cluster.streams", cluster.streams.map(|v| v as i64));
        let isa = match self.cluster.isa {
            Isa::Auto => "auto",
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Portable => "portable",
        };
        values.put("cluster.isa", isa);
        values.put(
            "cluster.reduce",
            match cluster.reduce {
                Reduce::Exact => "exact",
                Reduce::F32 => "f32",
                Reduce::Bf16 => "bf16",
            },
        );
        values.put(
            "cluster.algorithm",
            match cluster.algorithm {
                Algorithm::Auto => "auto",
                Algorithm::Ring => "ring",
                Algorithm::Direct => "direct",
            },
        );
        values.put(
            "cluster.transport",
            match cluster.transport {
                Transport::Auto => "auto",
                Transport::Tcp => "tcp",
                Transport::Shm => "shm",
                Transport::Nccl => "nccl",
            },
        );
        values.put("cluster.gather_ms", cluster.gather_ms as i64);
        values.put("cluster.lease_ms", cluster.lease_ms as i64);
        values.put("cluster.gather_timeout_s", cluster.gather_timeout_s as i64);
        values.put("cluster.rejoin_timeout_s", cluster.rejoin_timeout_s as i64);
        values.put("cluster.verify_every_steps", cluster.verify_every_steps as i64);
        values.put(
            "cluster.numerics",
            match cluster.numerics {
                Numerics::Same => "same",
                Numerics::Any => "any",
            },
        );
    }
}

#[derive(Default)]
struct Values(Vec<(&'static str, String)>);

impl Values {
    fn put(&mut self, key: &'static str, value: impl Into<toml::Value>) {
        self.0.push((key, value.into().to_string()));
    }

    fn maybe(&mut self, key: &'static str, value: Option<impl Into<toml::Value>>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }
}

fn norm_layer(norm: NormLayer) -> &'static str {
    match norm {
        NormLayer::Batch => "batch",
        NormLayer::Group => "group",
        NormLayer::None => "none",
    }
}

fn integers(list: &[usize]) -> Vec<i64> {
    list.iter().map(|v| *v as i64).collect()
}
