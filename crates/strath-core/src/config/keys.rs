//! Every key of a configuration: its type, default, range and meaning.
//!
//! This one table feeds the checking of values, `strath config` and the nearest-key hints.

/// A key of the configuration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Key {
    /// Its path, `table.name`.
    pub path: &'static str,
    /// The type of its values.
    pub kind: Kind,
    /// Its default as TOML; `None`: it has none, or one that depends on other keys.
    pub default: Option<&'static str>,
    /// The choice without which it means nothing; `None`: it always means something.
    pub only_with: Option<OnlyWith>,
    /// What it means, with unit and range, in one line.
    pub meaning: &'static str,
}

/// A choice that gives another key its meaning, as `model.kind = "mlp"` does for `model.hidden`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnlyWith {
    /// The key that chooses.
    pub choice: &'static str,
    /// Its values, as plain words, under which the other key has a meaning.
    pub values: &'static [&'static str],
}

/// The type of a key's values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// A whole number within bounds.
    Integer {
        /// The least legal value.
        least: i64,
        /// The greatest legal value; `i64::MAX`: no bound.
        most: i64,
    },
    /// A number; an integer serves too.
    Number {
        /// The legal range.
        range: Range,
    },
    /// `true` or `false`.
    Boolean,
    /// Free text.
    Text,
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// A file or folder; a relative one is relative to the file that names it.
    Path,
    /// A list of whole numbers from 1 on.
    Integers {
        /// The greatest legal one; `i64::MAX`: no bound.
        most: i64,
    },
    /// A list of texts.
    Texts,
    /// `sam.m`: a whole number, a list of them, `"batch"` or `"worker"`.
    Lanes,
    /// `sam.norm`: a number of at least 1, `inf` or `"inf"`.
    Norm,
}

/// A range of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// Above 0.
    Positive,
    /// 0 and above.
    NotNegative,
    /// 0 to 1, both included.
    Share,
    /// 0 to 1, 1 excluded.
    BelowOne,
}

impl Range {
    /// Whether a finite `value` lies in the range.
    pub fn contains(self, value: f64) -> bool {
        value.is_finite()
            && match self {
                Self::Positive => value > 0.0,
                Self::NotNegative => value >= 0.0,
                Self::Share => (0.0..=1.0).contains(&value),
                Self::BelowOne => (0.0..1.0).contains(&value),
            }
    }

    /// The range in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Positive => "a finite number above 0",
            Self::NotNegative => "a finite number of at least 0",
            Self::Share => "a number from 0 to 1",
            Self::BelowOne => "a number of at least 0 and below 1",
        }
    }
}

impl Kind {
    /// What a value must be, in words.
    pub fn expected(self) -> String {
        match self {
            Self::Integer { least, most: i64::MAX } => format!("an integer of at least {least}"),
            Self::Integer { least, most } => format!("an integer from {least} to {most}"),
            Self::Number { range } => range.words().into(),
            Self::Boolean => "true or false".into(),
            Self::Text => "a text in double quotes".into(),
            Self::Choice([only]) => (*only).into(),
            Self::Choice(words) => format!("one of {}", words.join(", ")),
            Self::Path => "a path in double quotes".into(),
            Self::Integers { most: i64::MAX } => "a list of integers of at least 1".into(),
            Self::Integers { most } => format!("a list of integers from 1 to {most}"),
            Self::Texts => "a list of texts".into(),
            Self::Lanes => "an integer of at least 1, a list of them, \"batch\" or \"worker\"".into(),
            Self::Norm => "a number of at least 1, or inf".into(),
        }
    }
}

/// The largest batch: a plan of it still takes no more than some tens of megabytes.
const LARGEST_BATCH: i64 = 1 << 20;
/// The largest dimension of a model: products of two of them stay far from overflow.
const LARGEST_DIMENSION: i64 = 1 << 16;
/// The most epochs: their steps stay within 64 bits.
const MOST_EPOCHS: i64 = 1_000_000_000;
/// The most workers of a run: every rank of a generation is connected to every other, by two connections, and so many ranks of one
/// host stay below the usual limit of 1,024 descriptors a process.
pub const MOST_WORKERS: u32 = 64;
/// The most threads of a worker.
const MOST_THREADS: i64 = 1 << 10;
/// The most streams of a GPU that lanes take turns on.
pub const MOST_STREAMS: u32 = 7;

impl Key {
    const fn only_with(mut self, choice: &'static str, values: &'static [&'static str]) -> Self {
        self.only_with = Some(OnlyWith { choice, values });
        self
    }
}

const fn key(path: &'static str, kind: Kind, default: Option<&'static str>, meaning: &'static str) -> Key {
    Key { path, kind, default, only_with: None, meaning }
}

const fn option(path: &'static str, kind: Kind, meaning: &'static str) -> Key {
    key(path, kind, None, meaning)
}

const fn count(least: i64, most: i64) -> Kind {
    Kind::Integer { least, most }
}

const fn number(range: Range) -> Kind {
    Kind::Number { range }
}

const DIMENSION: Kind = count(1, LARGEST_DIMENSION);
const DIMENSIONS: Kind = Kind::Integers { most: LARGEST_DIMENSION };

/// Every key, table by table.
pub const KEYS: &[Key] = &[
    key("run.name", Kind::Text, None, "name of the run and of its folder under runs/"),
    key("run.seed", count(0, i64::MAX), Some("0"), "seed of initial weights, order, augmentation and label noise"),
    key(
        "run.epochs",
        count(1, MOST_EPOCHS),
        None,
        "passes over the data; floor(epochs * N / batch.size) steps; 10 where steps is not set",
    ),
    option("run.steps", count(1, i64::MAX), "optimizer steps, in place of epochs"),
    key("run.eval_every_epochs", count(1, MOST_EPOCHS), Some("1"), "epochs between two evaluations"),
    key(
        "run.eval_train",
        Kind::Boolean,
        Some("false"),
        "evaluate the training split too, a forward pass over all of it",
    ),
    option(
        "run.stop_loss",
        number(Range::Positive),
        "the run ends with an epoch whose mean clean loss is below it; schedules go by the planned length",
    ),
    key(
        "data.kind",
        Kind::Choice(&["digits", "mnist", "fashion-mnist", "cifar10", "cifar100", "safetensors"]),
        None,
        "the data set",
    ),
    option("data.path", Kind::Path, "its folder, or its file for safetensors")
        .only_with("data.kind", &["mnist", "fashion-mnist", "cifar10", "cifar100", "safetensors"]),
    key("data.shuffle", Kind::Boolean, Some("true"), "a seeded permutation for each epoch; false: file order"),
    key("data.augment", Kind::Texts, Some("[]"), "augmentations in order: flip, crop:N, cutout:N (pixels)"),
    option("data.train_limit", count(1, i64::MAX), "only the first so many training examples"),
    key(
        "data.label_noise",
        number(Range::Share),
        Some("0.0"),
        "share of the training labels replaced, seeded, uniformly; after train_limit",
    ),
    key(
        "data.validation",
        number(Range::BelowOne),
        Some("0.0"),
        "share of the training examples split off, seeded, and evaluated beside the test split; after label_noise",
    ),
    option("data.classes", count(2, LARGEST_DIMENSION), "number of classes; to be given for safetensors only")
        .only_with("data.kind", &["digits", "mnist", "fashion-mnist", "cifar10", "cifar100", "safetensors"]),
    key("model.kind", Kind::Choice(&["mlp", "convnet", "resnet", "wide-resnet", "vit"]), None, "the network"),
    key(
        "model.compute",
        Kind::Choice(&["f32", "tf32", "bf16"]),
        Some("\"f32\""),
        "what a GPU multiplies: f32; tf32: factors of ten bits of mantissa; bf16: activations and factors of seven; weights are f32",
    ),
    key(
        "model.convolution",
        Kind::Choice(&["auto", "winograd", "direct"]),
        Some("\"auto\""),
        "3x3 at stride 1: auto takes Winograd's F(2x2) forward, F(4x4) backward; winograd: F(4x4) throughout; direct: neither",
    ),
    option("model.init", Kind::Path, "safetensors file of the initial tensors; else drawn from the seed"),
    option("model.hidden", DIMENSIONS, "mlp: hidden widths").only_with("model.kind", &["mlp"]),
    option("model.widths", DIMENSIONS, "convnet: channels of each block; [16, 32, 64]")
        .only_with("model.kind", &["convnet"]),
    option("model.depth", DIMENSION, "resnet: 6n + 2, 20; wide-resnet: 6n + 4, 28; vit: blocks, 12")
        .only_with("model.kind", &["resnet", "wide-resnet", "vit"]),
    option("model.skip", Kind::Boolean, "resnet: residual connections; true").only_with("model.kind", &["resnet"]),
    option(
        "model.norm",
        Kind::Choice(&["batch", "group", "none"]),
        "convolutional networks: batch norm; group norm, gcd(8, channels) groups; none: biases in its place; batch",
    )
    .only_with("model.kind", &["convnet", "resnet", "wide-resnet"]),
    option("model.widen", DIMENSION, "wide-resnet: factor on the widths 16, 32, 64; 10")
        .only_with("model.kind", &["wide-resnet"]),
    option("model.patch", DIMENSION, "vit: side of a patch, pixels; 4").only_with("model.kind", &["vit"]),
    option("model.dim", DIMENSION, "vit: width; 192").only_with("model.kind", &["vit"]),
    option("model.heads", DIMENSION, "vit: attention heads; 3").only_with("model.kind", &["vit"]),
    option("model.mlp_ratio", DIMENSION, "vit: hidden width of a block's MLP over dim; 4")
        .only_with("model.kind", &["vit"]),
    key("loss.label_smoothing", number(Range::BelowOne), Some("0.0"), "label smoothing of the training loss"),
    key("batch.size", count(1, LARGEST_BATCH), Some("64"), "examples of the global batch"),
    option(
        "batch.micro",
        count(1, LARGEST_BATCH),
        "examples of one forward and backward, a divisor of every lane; the whole lane",
    ),
    key("sam.rho", number(Range::NotNegative), Some("0.05"), "radius of the ball; 0: the plain optimizer"),
    key("sam.m", Kind::Lanes, Some("32"), "examples per epsilon; a list of lane sizes; \"batch\"; \"worker\""),
    key("sam.norm", Kind::Norm, Some("2.0"), "p of the ball ||epsilon||_p <= rho: any p >= 1, inf"),
    key("sam.adaptive", Kind::Boolean, Some("false"), "ASAM: the ball is scaled by |w| + eta"),
    key("sam.eta", number(Range::NotNegative), Some("0.01"), "floor of ASAM's scale")
        .only_with("sam.adaptive", &["true"]),
    key(
        "sam.perturb",
        Kind::Choice(&["all", "norm-only", "no-norm"]),
        Some("\"all\""),
        "which parameters are perturbed, by layer",
    ),
    key(
        "sam.weight_decay",
        Kind::Choice(&["outside", "inside"]),
        Some("\"outside\""),
        "outside the maximum, as in equation 1; inside: part of the loss in both passes",
    ),
    key(
        "sam.rho_rule",
        Kind::Choice(&["constant", "sqrt-m"]),
        Some("\"constant\""),
        "radius of a lane of m examples: constant is rho; sqrt-m is rho sqrt(m / m_ref)",
    ),
    option("sam.m_ref", count(1, LARGEST_BATCH), "sqrt-m: examples of a lane whose radius is rho; batch.size")
        .only_with("sam.rho_rule", &["sqrt-m"]),
    key(
        "sam.direction",
        Kind::Choice(&["gradient", "random"]),
        Some("\"gradient\""),
        "what epsilon is made of: the lane's gradient, or as a control normal draws in its place (the ascent pass stays)",
    ),
    key("optimizer.kind", Kind::Choice(&["sgd", "adamw"]), Some("\"sgd\""), "the update rule"),
    key("optimizer.lr", number(Range::Positive), Some("0.1"), "base learning rate"),
    option("optimizer.momentum", number(Range::BelowOne), "sgd: momentum; 0").only_with("optimizer.kind", &["sgd"]),
    option("optimizer.nesterov", Kind::Boolean, "sgd: Nesterov's form of momentum; false")
        .only_with("optimizer.kind", &["sgd"]),
    key("optimizer.weight_decay", number(Range::NotNegative), Some("0.0"), "weight decay"),
    option("optimizer.clip_norm", number(Range::Positive), "l2 norm that the reduced gradient is clipped to"),
    option("optimizer.beta1", number(Range::BelowOne), "adamw: decay of the first moment; 0.9")
        .only_with("optimizer.kind", &["adamw"]),
    option("optimizer.beta2", number(Range::BelowOne), "adamw: decay of the second moment; 0.999")
        .only_with("optimizer.kind", &["adamw"]),
    option("optimizer.adam_eps", number(Range::Positive), "adamw: added to the root of the second moment; 1e-8")
        .only_with("optimizer.kind", &["adamw"]),
    key(
        "schedule.kind",
        Kind::Choice(&["constant", "cosine", "step"]),
        Some("\"constant\""),
        "the learning rate after the warm-up",
    ),
    key("schedule.warmup_steps", count(0, i64::MAX), Some("0"), "steps over which the rate rises linearly"),
    option(
        "schedule.milestones",
        Kind::Integers { most: i64::MAX },
        "step: the steps at which the rate falls, ascending",
    )
    .only_with("schedule.kind", &["step"]),
    option("schedule.gamma", number(Range::Positive), "step: factor at each milestone; 0.1")
        .only_with("schedule.kind", &["step"]),
    key("cluster.workers", count(1, MOST_WORKERS as i64), Some("2"), "workers that train starts"),
    key("cluster.min_workers", count(1, MOST_WORKERS as i64), Some("1"), "workers that coordinator waits for"),
    key(
        "cluster.device",
        Kind::Text,
        Some("\"auto\""),
        "where workers compute: cpu, cuda:N, or auto, a GPU by the worker's local rank where there are any",
    ),
    option("cluster.threads", count(1, MOST_THREADS), "compute threads a worker; cores / workers on the host"),
    option(
        "cluster.streams",
        count(1, MOST_STREAMS as i64),
        "GPU streams that lanes take turns on; 2 up to 32 examples a pass, else 1",
    ),
    key(
        "cluster.isa",
        Kind::Choice(&["auto", "avx512", "avx2", "portable"]),
        Some("\"auto\""),
        "instruction set of the kernels; auto: the best of the processor",
    ),
    key(
        "cluster.reduce",
        Kind::Choice(&["exact", "f32", "bf16"]),
        Some("\"exact\""),
        "gradient sums: exact (the same bits for any number of workers), f32 or bf16 (fewer bytes)",
    ),
    key(
        "cluster.algorithm",
        Kind::Choice(&["auto", "ring", "direct"]),
        Some("\"auto\""),
        "all-reduce: auto is the fastest by measured links; in f32 and bf16 by size and hosts alone",
    ),
    key(
        "cluster.transport",
        Kind::Choice(&["auto", "tcp", "shm", "nccl"]),
        Some("\"auto\""),
        "what carries sums: auto is NCCL where each worker has a GPU of its own, else shared memory, else TCP; shm, nccl insist",
    ),
    key("cluster.gather_ms", count(0, i64::MAX), Some("2000"), "ms without a newcomer after which coordinator starts"),
    key(
        "cluster.gather_timeout_s",
        count(1, i64::MAX),
        Some("3600"),
        "seconds that a coordinator waits for enough workers to begin with",
    ),
    key("cluster.lease_ms", count(250, i64::MAX), Some("2000"), "ms of silence after which a worker counts as lost"),
    key(
        "cluster.rejoin_timeout_s",
        count(0, i64::MAX),
        Some("300"),
        "seconds that a run with fewer than min_workers left waits for others",
    ),
    key(
        "cluster.verify_every_steps",
        count(1, i64::MAX),
        Some("100"),
        "steps after which workers compare the digests of their states; each checkpoint's is compared too",
    ),
    key(
        "cluster.numerics",
        Kind::Choice(&["same", "any"]),
        Some("\"same\""),
        "same: every worker must compute a probe step to the same bits",
    ),
    key("checkpoint.every_steps", count(1, i64::MAX), Some("500"), "steps between two checkpoints"),
    key("checkpoint.keep", count(1, i64::MAX), Some("3"), "newest checkpoints that are kept"),
    key(
        "telemetry.every",
        count(0, i64::MAX),
        Some("50"),
        "steps between two surveys of the lanes (audit of m, noise scale, equivalent rho), a forward and two sums each; 0: none",
    ),
    key(
        "telemetry.ladder",
        Kind::Boolean,
        Some("false"),
        "surveys also tell what lanes of 2 m, 4 m, ... would be, a forward each; not with batch norm over the lane",
    ),
];

/// What a configuration of Strath may name and this build has not: refused as such, never ignored and never "unknown".
/// A key, or a table with all its keys; with values: only those of the key (`x` stands for `x:0` too).
const NOT_IN_THIS_BUILD: &[(&str, Option<&[&str]>)] =
    &[("data.kind", Some(&["image-folder", "parquet"])), ("study", None)];

/// Whether `path = value` (`value` where it is a text) is what this build has not.
pub(super) fn is_not_in_this_build(path: &str, value: Option<&str>) -> bool {
    let within = |whole: &str| path == whole || path.strip_prefix(whole).is_some_and(|rest| rest.starts_with('.'));
    let is = |value: &str, word: &str| value == word || value.strip_prefix(word).is_some_and(|s| s.starts_with(':'));
    NOT_IN_THIS_BUILD.iter().any(|(key, words)| match words {
        None => within(key),
        Some(words) => path == *key && value.is_some_and(|value| words.iter().any(|word| is(value, word))),
    })
}

/// The key of this path.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_lies_in_a_table_and_comes_once_beside_its_table() {
        let mut tables: Vec<&str> = KEYS.iter().map(|key| key.path.split_once('.').unwrap().0).collect();
        tables.dedup();
        let mut distinct = tables.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(tables.len(), distinct.len(), "a table in two pieces would be written twice: {tables:?}");
        let mut paths: Vec<&str> = KEYS.iter().map(|key| key.path).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), KEYS.len());
    }

    #[test]
    fn every_choice_that_gives_meaning_is_a_key_with_those_words() {
        for only in KEYS.iter().filter_map(|key| key.only_with) {
            match find(only.choice).unwrap().kind {
                Kind::Choice(words) => assert!(only.values.iter().all(|value| words.contains(value)), "{only:?}"),
                kind => assert_eq!((kind, only.values), (Kind::Boolean, &["true"][..]), "{only:?}"),
            }
        }
    }
}
