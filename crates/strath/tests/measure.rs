//! Measurements of a checkpoint with real worker processes: the same for any number of them, and for any interruption.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{DEADLINE, digits_in_shared_lanes, finish, run, stderr, strath, train};

/// A trained checkpoint with its configuration, and a cache folder for what measurements keep.
struct Subject {
    folder: tempfile::TempDir,
    config: PathBuf,
    checkpoint: PathBuf,
}

impl Subject {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = digits_in_shared_lanes(folder.path(), 40, "");
        let out = folder.path().join("run");
        train(&config, &out, &["--workers", "1"]);
        Self { config, checkpoint: out.join("final.safetensors"), folder }
    }

    fn start(&self, what: &str, more: &[&str]) -> Child {
        strath()
            .args(["measure", what, self.checkpoint.to_str().unwrap(), "--config", self.config.to_str().unwrap()])
            .args(more)
            .env("XDG_CACHE_HOME", self.cache())
            .spawn()
            .unwrap()
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    /// What a measurement says with `--json`.
    fn json(&self, what: &str, more: &[&str]) -> Value {
        let output = finish(self.start(what, &[more, &["--json"]].concat()), DEADLINE);
        assert!(output.status.success(), "{what} {more:?}: {}", stderr(&output));
        assert_eq!(self.kept().len(), 0, "nothing is left behind");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The files of measurements that are not done.
    fn kept(&self) -> Vec<PathBuf> {
        let folder = self.cache().join("strath/measure");
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_none()).collect()
    }

    /// Waits until a measurement has kept at least so many bytes.
    fn keeps(&self, bytes: u64) {
        let begun = Instant::now();
        let size = || self.kept().first().and_then(|path| std::fs::metadata(path).ok()).map_or(0, |file| file.len());
        while size() < bytes {
            assert!(begun.elapsed() < Duration::from_secs(60), "it keeps {} bytes", size());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn assert_failed(output: &Output, status: i32, words: &str) {
    assert_eq!(output.status.code(), Some(status), "{}", stderr(output));
    assert!(stderr(output).contains(words), "{}", stderr(output));
}

#[test]
fn sharpness_is_the_same_for_any_number_of_workers_and_rises_with_the_ascent() {
    let subject = Subject::new();
    for norms in [&[][..], &["--batch-stats"], &["--recompute-stats"]] {
        let flags =
            [&["--m", "50", "--limit", "460", "--ascent-steps", "4", "--random", "2", "--rho", "0.1"], norms].concat();
        let one = subject.json("sharpness", &[&flags[..], &["--workers", "1"]].concat());
        assert_eq!(one, subject.json("sharpness", &[&flags[..], &["--workers", "3"]].concat()), "{norms:?}");
        let number = |key: &str| one[key].as_f64().unwrap();
        assert_eq!((one["m"].as_u64(), one["lanes"].as_u64()), (Some(50), Some(10)));
        assert!(number("sharpness") >= number("one_step_sharpness"), "{one}");
        assert!(number("one_step_sharpness") > number("random_worst").max(0.0), "{one}");
        assert!(number("random_worst") >= number("random_sharpness"), "{one}");
        assert!((number("perturbed_loss") - number("clean_loss") - number("sharpness")).abs() < 1e-12);
    }
}

#[test]
fn every_lane_counts_however_large() {
    let subject = Subject::new();
    let (config, checkpoint) = (subject.config.to_str().unwrap(), subject.checkpoint.to_str().unwrap());
    let eval = run(&["eval", checkpoint, "--config", config, "--split", "train", "--json"]);
    let loss = serde_json::from_slice::<Value>(&eval.stdout).unwrap()["loss"].as_f64().unwrap();
    for m in ["1", "400", "897", "1024", "1436"] {
        let found = subject.json("sharpness", &["--m", m, "--rho", "0.01"]);
        let clean = found["clean_loss"].as_f64().unwrap();
        assert!((clean - loss).abs() < 1e-9, "m {m}: {clean} and {loss}");
    }
    let grouped = |m| subject.json("sharpness", &["--m", m, "--rho", "0.01", "--batch-stats"]);
    let (small, large) = (grouped("64"), grouped("256"));
    let clean = |found: &Value| found["clean_loss"].as_f64().unwrap();
    // Groups of batch norm are the micro-batches of both.
    assert!((clean(&small) - clean(&large)).abs() < 1e-9, "{small} {large}");
}

#[test]
fn a_lane_that_all_workers_share_has_the_bits_of_one_that_one_computes() {
    let subject = Subject::new();
    let flags =
        |workers| ["--m", "1437", "--ascent-steps", "3", "--norm", "inf", "--rho", "0.01", "--workers", workers];
    let one = subject.json("sharpness", &flags("1"));
    assert_eq!(one, subject.json("sharpness", &flags("3")));
    assert_eq!((one["lanes"].as_u64(), one["norm"].as_str()), (Some(1), Some("inf")));
    let clean = one["clean_loss"].as_f64().unwrap();
    let (config, checkpoint) = (subject.config.to_str().unwrap(), subject.checkpoint.to_str().unwrap());
    let eval = run(&["eval", checkpoint, "--config", config, "--split", "train", "--json"]);
    let loss = serde_json::from_slice::<Value>(&eval.stdout).unwrap()["loss"].as_f64().unwrap();
    assert!((clean - loss).abs() < 1e-12, "{clean} and {loss}");
}

#[test]
fn the_spectrum_is_the_same_for_any_number_of_workers_and_its_pairs_have_converged() {
    let subject = Subject::new();
    for norms in [&[][..], &["--batch-stats"]] {
        let flags = [
            &["--top", "3", "--limit", "96", "--trace-samples", "4", "--density-samples", "1", "--density-steps", "8"],
            norms,
        ]
        .concat();
        let one = subject.json("spectrum", &[&flags[..], &["--workers", "1"]].concat());
        assert_eq!(one, subject.json("spectrum", &[&flags[..], &["--workers", "3"]].concat()), "{norms:?}");
        let list = |key: &str| one[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect::<Vec<_>>();
        let (values, residuals) = (list("eigenvalues"), list("residuals"));
        assert_eq!(values.len(), 3);
        assert!(values.is_sorted_by(|a, b| a >= b) && values[2] > 0.0, "{values:?}");
        assert!(values.iter().zip(&residuals).all(|(v, r)| *r <= 1e-3 * v), "{values:?} {residuals:?}");
        let density = one["density"].as_array().unwrap();
        let weight: f64 = density.iter().map(|node| node[1].as_f64().unwrap()).sum();
        assert!((weight - 1.0).abs() < 1e-9 && density.len() == 8);
        let top = density.iter().map(|node| node[0].as_f64().unwrap()).fold(f64::NEG_INFINITY, f64::max);
        assert!(top <= values[0] * 1.001, "no node lies beyond the largest eigenvalue");
    }
}

fn csv(folder: &Path) -> Vec<[f64; 4]> {
    let text = std::fs::read_to_string(folder.join("landscape.csv")).unwrap();
    let (head, rows) = text.split_once('\n').unwrap();
    assert_eq!(head, "alpha,beta,loss,error");
    rows.lines()
        .map(|row| row.split(',').map(|cell| cell.parse().unwrap()).collect::<Vec<f64>>().try_into().unwrap())
        .collect()
}

#[test]
fn a_landscape_has_the_checkpoint_in_its_middle_and_its_directions_draw_it_again() {
    let subject = Subject::new();
    let out = |name: &str| subject.folder.path().join(name);
    let flags = ["--dims", "2", "--grid", "5", "--limit", "200", "--extent", "0.5"];
    let draw = |name: &str, more: &[&str]| {
        let out = out(name);
        let found = subject.json("landscape", &[&flags, more, &["--out", out.to_str().unwrap()]].concat());
        (found, csv(&out))
    };
    let (one, points) = draw("a", &["--workers", "1"]);
    let (three, again) = draw("b", &["--workers", "3"]);
    assert_eq!((one, &points), (three, &again));
    let directions = out("a").join("directions.safetensors");
    let (_, from_file) = draw("c", &["--directions", directions.to_str().unwrap()]);
    assert_eq!(points, from_file);
    let (_, other) = draw("d", &["--seed", "9"]);
    assert_ne!(points, other);
    let [alpha, beta, loss, _] = points[12];
    assert_eq!((points.len(), alpha, beta), (25, 0.0, 0.0));
    assert!(points.iter().all(|point| point[2] >= 0.5 * loss));
    let of_lanes = subject.json("sharpness", &["--limit", "200", "--m", "200"]);
    assert!((of_lanes["clean_loss"].as_f64().unwrap() - loss).abs() < 1e-12);
}

#[test]
fn a_line_to_another_checkpoint_ends_there() {
    let subject = Subject::new();
    let earlier = subject.checkpoint.with_file_name("checkpoints").join("step-20.safetensors");
    let out = subject.folder.path().join("line");
    let more = ["--to", earlier.to_str().unwrap(), "--grid", "3", "--split", "test", "--out", out.to_str().unwrap()];
    subject.json("landscape", &more);
    let points = csv(&out);
    assert_eq!(points.iter().map(|point| point[0]).collect::<Vec<_>>(), [0.0, 0.5, 1.0]);
    for (checkpoint, at) in [(&subject.checkpoint, 0), (&earlier, 2)] {
        let config = subject.config.to_str().unwrap();
        let eval = run(&["eval", checkpoint.to_str().unwrap(), "--config", config, "--json"]);
        let found = serde_json::from_slice::<Value>(&eval.stdout).unwrap();
        assert!((found["loss"].as_f64().unwrap() - points[at][2]).abs() < 1e-12);
        assert_eq!(found["error"].as_f64().unwrap(), points[at][3]);
    }
}

#[test]
fn the_bound_prints_every_term_and_says_that_it_is_vacuous() {
    let subject = Subject::new();
    let flags = ["--rho", "0.05", "--ascent-steps", "3", "--samples", "3"];
    let one = subject.json("bound", &[&flags[..], &["--workers", "1"]].concat());
    assert_eq!(one, subject.json("bound", &[&flags[..], &["--workers", "2"]].concat()));
    let number = |key: &str| one[key].as_f64().unwrap();
    let sum = number("parameters_term") + number("confidence_term") + number("remainder_term");
    assert!((number("complexity") - (sum / 1436.0).sqrt()).abs() < 1e-12);
    assert!((number("right_hand_side") - number("complexity") - number("perturbed_train_error")).abs() < 1e-12);
    assert!(number("perturbed_train_error") >= number("train_error"));
    assert_eq!((one["vacuous"].as_bool(), one["examples"].as_u64()), (Some(true), Some(1437)));
}

#[test]
fn a_measurement_goes_on_after_its_worker_and_after_itself_was_killed() {
    let subject = Subject::new();
    // A second of products, of which there is still something to do whenever somebody is killed.
    let flags = ["--top", "2", "--trace-samples", "200", "--workers", "2"];
    let undisturbed = subject.json("spectrum", &flags);
    let entry = 4 * undisturbed["parameters"].as_u64().unwrap();

    let killed = subject.start("spectrum", &[&flags[..], &["--json"]].concat());
    subject.keeps(5 * entry);
    let status = std::process::Command::new("kill").args(["-9", &killed.id().to_string()]).status().unwrap();
    assert!(status.success());
    assert!(!finish(killed, DEADLINE).status.success());
    let [kept] = &subject.kept()[..] else { panic!("one measurement is kept") };
    let so_far = std::fs::metadata(kept).unwrap().len();

    let mut going_on = subject.start("spectrum", &[&flags[..], &["--json"]].concat());
    subject.keeps(so_far + 5 * entry);
    let worker = worker_of(&mut going_on);
    assert!(std::process::Command::new("kill").args(["-9", &worker]).status().unwrap().success());
    let output = finish(going_on, DEADLINE);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("going on from where the measurement was"), "{}", stderr(&output));
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), undisturbed);
    assert_eq!(subject.kept().len(), 0);
}

/// The process of one of a command's workers.
fn worker_of(command: &mut Child) -> String {
    let begun = Instant::now();
    loop {
        let children =
            std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", command.id())).unwrap_or_default();
        if let Some(child) = children.split_whitespace().next() {
            return child.into();
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "no worker");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_cannot_be_measured_is_refused_in_one_line() {
    let subject = Subject::new();
    let fails = |what: &str, more: &[&str]| finish(subject.start(what, more), DEADLINE);
    assert_failed(&fails("sharpness", &["--norm", "0.5"]), 2, "a number of at least 1, or inf");
    assert_failed(&fails("sharpness", &["--m", "0"]), 2, "--m is 0");
    assert_failed(&fails("sharpness", &["--rho", "0"]), 2, "above 0");
    assert_failed(&fails("spectrum", &["--limit", "0"]), 2, "--limit is 0");
    assert_failed(&fails("sharpness", &["--split", "validation"]), 2, "data.validation is 0");
    assert_failed(&fails("sharpness", &["--split", "noisy"]), 2, "data.label_noise is 0");
    assert_failed(&fails("sharpness", &["--adaptive", "--eta", "nan"]), 2, "at least 0");
    assert_failed(&fails("bound", &["--split", "test"]), 2, "--split");
    assert_failed(&fails("landscape", &["--grid", "1", "--out", "x"]), 2, "--grid is 1");
    let away = finish(subject.start("landscape", &["--to", "nowhere", "--out", "x"]), DEADLINE);
    assert_failed(&away, 1, "cannot read nowhere");
    let folder = subject.folder.path();
    std::fs::write(folder.join("d"), b"no tensors").unwrap();
    let (directions, out) = (folder.join("d"), folder.join("o"));
    let flags = ["--directions", directions.to_str().unwrap(), "--out", out.to_str().unwrap()];
    assert_failed(&fails("landscape", &flags), 1, "alpha/NAME");
}
