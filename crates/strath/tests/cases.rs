//! Every reference case, through the real coordinator, worker processes and ring: within the case's tolerance of the float64
//! reference, and to the same bits for 1, 2, 3, 4 and 5 workers and for 1 and 2 threads.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use support::{cases, metrics, sha, train};

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f64>)>;

/// With `--features emulator` a GPU is asked for, which is the processor: then the kernels for one compute.
const DEVICE: &str = if cfg!(feature = "emulator") { "cluster.device=cuda:0" } else { "cluster.device=auto" };

struct Expected {
    tensors: Tensors,
    tolerance: f64,
    figures: BTreeMap<&'static str, Vec<f64>>,
}

fn tensors(bytes: &[u8]) -> Tensors {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        let values = match view.dtype() {
            Dtype::F32 => view.data().as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
            Dtype::F64 => view.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
            other => panic!("{name} is {other:?}"),
        };
        tensors.insert(name, (view.shape().to_vec(), values));
    }
    tensors
}

/// The definition of `weights_sha256`, on the file: tensors in ascending order of name, each as its little-endian f32 bytes.
fn weights_sha256(out: &Path) -> String {
    let bytes = std::fs::read(out.join("final.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors = file.tensors();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let all: Vec<u8> = tensors.iter().flat_map(|(_, view)| view.data()).copied().collect();
    strath_core::Digest::of(&all).to_string()
}

fn expected(case: &Path) -> Expected {
    let bytes = std::fs::read(case.join("expected.safetensors")).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = header.metadata().as_ref().unwrap();
    let list = |key: &str| serde_json::from_str::<Vec<f64>>(&metadata[key]).unwrap();
    let figures = ["clean_loss", "perturbed_loss", "gradient_norm"].into_iter().map(|key| (key, list(key))).collect();
    Expected { tensors: tensors(&bytes), tolerance: metadata["tolerance"].parse().unwrap(), figures }
}

/// l2 distance from `got` to `want` over the l2 length of the path from `origin` to `want`, all tensors together.
fn distance(got: &Tensors, want: &Tensors, origin: &Tensors) -> f64 {
    let square = |a: &Tensors, b: &Tensors| -> f64 {
        let tensor = |(name, (_, y)): (&String, &(Vec<usize>, Vec<f64>))| -> f64 {
            a[name].1.iter().zip(y).map(|(x, y)| (x - y).powi(2)).sum()
        };
        b.iter().map(tensor).sum()
    };
    (square(got, want) / square(origin, want)).sqrt()
}

/// What differs from the reference by more than the case allows.
fn compare(case: &Path, out: &Path, compute: &str) -> Vec<String> {
    let expected = expected(case);
    let of_case = [expected.tolerance, 1e-5, (10.0 * expected.tolerance).max(1e-4)];
    let [tolerance, first, later] = rounded(compute).unwrap_or(of_case);
    let got = tensors(&std::fs::read(out.join("final.safetensors")).unwrap());
    let shapes = |t: &Tensors| t.iter().map(|(name, (shape, _))| (name.clone(), shape.clone())).collect::<Vec<_>>();
    if shapes(&got) != shapes(&expected.tensors) {
        return vec![format!("tensors {:?}, expected {:?}", shapes(&got), shapes(&expected.tensors))];
    }
    let mut found = Vec::new();
    let origin = tensors(&std::fs::read(case.join("init.safetensors")).unwrap());
    let off = distance(&got, &expected.tensors, &origin);
    // A NaN is beyond every tolerance.
    if off > tolerance || off.is_nan() {
        found.push(format!("relative distance {off:.2e}, tolerance {tolerance:.2e}"));
    }
    let steps = metrics(out, "step");
    for (key, wanted) in &expected.figures {
        for (step, want) in wanted.iter().enumerate() {
            let allowed = if step == 0 { first } else { later };
            let got = steps.get(step).and_then(|line| line[*key].as_f64()).unwrap_or(f64::NAN);
            let apart = (got - want).abs();
            if apart > allowed * want.abs().max(1e-3) || apart.is_nan() {
                found.push(format!("{key} of step {}: {got}, expected {want} within {allowed:.0e}", step + 1));
                break;
            }
        }
    }
    found
}

/// How far a path may be off beside its length, and the figures of its first step and of the others, in numbers that a GPU rounds to; `None`: by as much as the case
/// itself says, whose tolerance is that of f32. Where a value near 0 comes out on its other side, ReLU lets another gradient pass; a dual norm far from 2
/// takes little more of a gradient than its signs.
fn rounded(compute: &str) -> Option<[f64; 3]> {
    match compute {
        "tf32" => Some([0.1, 2e-2, 0.2]),
        "bf16" => Some([0.2, 2e-2, 0.4]),
        _ => None,
    }
}

fn holds_for(workers: &'static [(&'static str, &'static str)], sets: &'static [&'static str], compute: &'static str) {
    let folder = tempfile::tempdir().unwrap();
    let mut findings = Vec::new();
    for case in cases() {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let mut hashes = BTreeMap::new();
        for (world, threads) in workers {
            let out = folder.path().join(format!("{name}-{world}-{threads}"));
            let threads_key = format!("cluster.threads={threads}");
            let compute_key = format!("model.compute={compute}");
            let all =
                [&["--workers", world, "--set", &threads_key, "--set", DEVICE, "--set", &compute_key], sets].concat();
            let summary = train(&case.join("case.toml"), &out, &all);
            let found =
                compare(&case, &out, compute).into_iter().map(|finding| format!("{name}, {world} workers: {finding}"));
            findings.extend(found);
            if weights_sha256(&out) != sha(&summary) {
                findings.push(format!("{name}, {world} workers: weights_sha256 is not that of final.safetensors"));
            }
            hashes.entry(sha(&summary)).or_insert_with(Vec::new).push((*world, *threads));
        }
        if hashes.len() != 1 {
            findings.push(format!("{name}: hashes differ over (workers, threads): {hashes:?}"));
        }
    }
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

#[test]
fn every_case_is_within_its_tolerance_and_has_one_hash_for_one_to_five_workers_and_one_or_two_threads() {
    if cfg!(feature = "emulator") {
        return holds_for(&[("1", "1"), ("3", "1")], &["--set", "cluster.transport=tcp"], "f32"); // a GPU's kernels are slow on a processor
    }
    holds_for(&[("1", "1"), ("1", "2"), ("2", "1"), ("3", "1"), ("4", "1"), ("5", "1")], &[], "f32");
}

#[test]
#[cfg(feature = "emulator")]
fn every_case_is_within_the_tolerance_of_rounded_numbers_and_has_one_hash_where_gpus_sum_by_themselves() {
    let transport = &["--set", "cluster.transport=auto"];
    holds_for(&[("1", "1")], transport, "tf32");
    holds_for(&[("1", "1"), ("2", "1")], transport, "bf16");
}
