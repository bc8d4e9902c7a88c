//! Seeds of files.

use super::{Inputs, named};
use crate::checkpoint::files;
use crate::input::pieces;

pub(super) fn inputs() -> Vec<(&'static str, Inputs)> {
    vec![
        ("configuration", configurations()),
        ("assignments", assignments()),
        ("checkpoint", checkpoints()),
        ("journal", journals()),
        ("coordinator_file", coordinator_files()),
        ("metrics", metrics()),
        ("trace", traces()),
        ("idx", idx()),
        ("cifar", cifar()),
        ("safetensors", safetensors()),
    ]
}

fn configurations() -> Inputs {
    let given = [
        ("digits", include_str!("../../../../configs/digits.toml")),
        ("fashion-mnist", include_str!("../../../../configs/fashion-mnist.toml")),
        ("cifar10", include_str!("../../../../configs/cifar10.toml")),
    ];
    let mut inputs = named(given.map(|(name, text)| (name, text.as_bytes().to_vec())));
    let models = ["kind = \"mlp\"\nhidden = [1, 65536]", "kind = \"vit\"", "kind = \"resnet\"\ndepth = 20"];
    for (at, model) in models.iter().enumerate() {
        let text = format!("[data]\nkind = \"digits\"\n[model]\n{model}\n[sam]\nm = [16, 8, 8, 32]\nnorm = \"inf\"\n");
        inputs.insert(format!("model-{at}"), text.into_bytes());
    }
    let largest = "[data]\nkind = \"digits\"\n[model]\nkind = \"mlp\"\n[batch]\nsize = 1048576\n[sam]\nm = 1\n";
    inputs.insert("largest-batch".into(), largest.into());
    inputs.insert("unknown-key".into(), "[sam]\nrhoo = 0.1\n".into());
    inputs.insert("wrong-value".into(), "[sam]\nrho = \"a\nb\"\n".into());
    inputs.insert("nested".into(), format!("[sam]\nm = {}", "[".repeat(200)).into_bytes());
    inputs.insert("dotted".into(), format!("{}b = 1", "a.".repeat(200)).into_bytes());
    inputs
}

fn assignments() -> Inputs {
    let small = "data.kind=digits\nmodel.kind=mlp\nmodel.hidden=[3]\n";
    named(
        [
            ("small", small.to_owned()),
            ("environment", format!("{small}STRATH__SAM__RHO=0.1\nSTRATH__RUN__NAME=\"a b\"\nsam.m=batch\n")),
            ("steps", format!("{small}run.steps=3\nbatch.size=8\nsam.m=[4,4]\nsam.norm=inf\n")),
            ("wrong", format!("{small}batch.size=3.5\n")),
            ("several-lines", format!("{small}run.name=\"\"\"a\n")),
        ]
        .map(|(name, text)| (name, text.into_bytes())),
    )
}

fn checkpoints() -> Inputs {
    let (model, state) = files();
    let mut damaged = state.clone();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let huge = [&u64::MAX.to_le_bytes()[..], b"{}"].concat();
    named([
        ("whole", pieces([&model, &state])),
        ("exchanged", pieces([&state, &model])),
        ("damaged", pieces([&model, &damaged])),
        ("huge-header", pieces([&huge, &state])),
    ])
}

fn journals() -> Inputs {
    let whole = r#"{"run":7,"generation":5,"members":[{"worker":1,"ring_address":"127.0.0.1:9000"},
        {"worker":2,"ring_address":"[fe80::1%3]:9001"}],"bounds":[0,3,4],"next_worker":3}"#;
    named([
        ("whole", whole.as_bytes().to_vec()),
        ("older", br#"{"run":7,"generation":5}"#.to_vec()),
        ("negative", br#"{"run":-7,"generation":5}"#.to_vec()),
        ("nested", "[".repeat(200).into_bytes()),
    ])
}

fn coordinator_files() -> Inputs {
    let whole = br#"{"address":"127.0.0.1:7700","pid":42,"host":"here","run":"0000000000000007"}"#;
    named([("whole", whole.to_vec()), ("other", b"[1,2]".to_vec())])
}

fn metrics() -> Inputs {
    let cluster = r#"{"kind":"cluster","step":0,"epoch":0.0,"time":1.5,"generation":1,"world_size":1,"members":[{"worker":7,"host":"here","micro_batches":4}],"cause":"the run began","change_s":0.25}"#;
    let step = |step: u64| {
        format!(
            r#"{{"kind":"step","step":{step},"epoch":0.5,"time":1.0,"clean_loss":2.0,"perturbed_loss":2.5,"sharpness":0.5,"lr":0.1,"gradient_norm":1.0,"epsilon_norm":0.05,"zero_gradient_lanes":0,"images_per_s":64.0,"step_s":1.0,"data_s":0.25,"ascent_s":0.0,"epsilon_s":0.0,"exchange_s":0.0,"descent_s":0.0,"reduce_s":0.0,"update_s":1e-9}}"#
        )
    };
    let eval = r#"{"kind":"eval","step":2,"epoch":1.0,"time":2.0,"split":"test","loss":0.3,"error":0.05}"#;
    let text = [cluster, &step(1), &step(2), eval, &step(3), ""].join("\n");
    let of = |until: u8, text: &str| [&[until], text.as_bytes()].concat();
    named([
        ("all", of(99, &text)),
        ("cut", of(2, &text)),
        ("damaged", of(99, &text.replacen("\"kind\"", "kind", 1))),
        ("no-text", [&of(99, &text)[..], b"\xff\xfe"].concat()),
    ])
}

fn traces() -> Inputs {
    let whole = br#"{"traceEvents":[{"name":"process_name","ph":"M","ts":0.0,"pid":1,"tid":0,"args":{"name":"rank 1"}},
        {"name":"ascent","ph":"X","ts":1700000000123456.8,"dur":12.25,"pid":1,"tid":0,"args":{"step":3}}],"displayTimeUnit":"ms"}"#;
    let deep = format!(r#"{{"traceEvents":[{{"name":"","ph":"","ts":0,"pid":1,"tid":0,"args":{}"#, "[".repeat(200));
    named([("whole", whole.to_vec()), ("deep", deep.into_bytes())])
}

/// A pair of IDX files, after how they are packed.
fn idx() -> Inputs {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
    let images = |count: u32| [words(&[0x803, count, 28, 28]), vec![3; 784]].concat();
    let labels = |labels: &[u8]| [words(&[0x801, labels.len() as u32]), labels.to_vec()].concat();
    let pair = |packing: u8, images: &[u8], labels: &[u8]| [&[packing][..], &pieces([images]), labels].concat();
    named([
        ("pair", pair(0, &images(1), &labels(&[7]))),
        ("label", pair(0, &images(1), &labels(&[10]))),
        ("too-many", pair(0, &images(u32::MAX), &labels(&[7]))),
        ("packed", pair(1, IMAGES_PACKED, LABELS_PACKED)),
        ("packed-twice", pair(1, IMAGES_PACKED, &LABELS_PACKED.repeat(2))),
    ])
}

/// `struct.pack(">4I", 0x803, 1, 28, 28) + bytes([3]) * 784` and `struct.pack(">2I", 0x801, 1) + bytes([7])`, by Python's `gzip.compress(.., 9, mtime=0)`.
const IMAGES_PACKED: &[u8] = include_bytes!("images.gz");
const LABELS_PACKED: &[u8] = include_bytes!("labels.gz");

fn cifar() -> Inputs {
    let record = |classes: u8, label: u8| {
        let mut input = vec![classes, 1, label, label];
        input.extend([1, 2, 3]);
        input
    };
    named([
        ("ten", record(0, 7)),
        ("hundred", record(1, 99)),
        ("label", record(0, 10)),
        ("not-whole", vec![0, 0, 1, 2, 3]),
        ("whole", [&[0, 0, 7][..], &[9; 3072]].concat()),
    ])
}

/// A file of two examples to train on and one to test on, of 1x2x2 pixels, after its number of classes.
fn safetensors() -> Inputs {
    let header = r#"{"train.images":{"dtype":"F32","shape":[2,1,2,2],"data_offsets":[0,32]},"train.labels":{"dtype":"I64","shape":[2],"data_offsets":[32,48]},"test.images":{"dtype":"F32","shape":[1,1,2,2],"data_offsets":[48,64]},"test.labels":{"dtype":"I64","shape":[1],"data_offsets":[64,72]}}"#;
    let file = |header: &str, labels: [i64; 3]| {
        let padded = format!("{header:<width$}", width = header.len().next_multiple_of(8));
        let pixels = |count: usize| 0.5_f32.to_le_bytes().repeat(count);
        let label = |at: usize| labels[at].to_le_bytes().to_vec();
        let data = [pixels(8), label(0), label(1), pixels(4), label(2)].concat();
        [&[3][..], &(padded.len() as u64).to_le_bytes(), padded.as_bytes(), &data].concat()
    };
    let huge = header.replace("[2,1,2,2]", "[2,1,4611686018427387904,2]");
    named([
        ("whole", file(header, [0, 1, 2])),
        ("label", file(header, [0, 1, 3])),
        ("no-pixels", file(&header.replace("[2,1,2,2]", "[2,0,2,2]"), [0, 1, 2])),
        ("huge", file(&huge, [0, 1, 2])),
        ("names", file(&header.replace("test.labels", "test.label"), [0, 1, 2])),
    ])
}
