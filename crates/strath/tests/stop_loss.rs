//! `run.stop_loss`: a run that ends with the first epoch whose loss is low enough, at the same step and with the same bits for any number
//! of workers, killed and resumed, and with workers that join late.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use serde_json::Value;
use support::place::generations;
use support::{
    Coordinator, DEADLINE, digits_in_shared_lanes, finish, gone, metrics, reach, run, sha, signal, stderr, strath,
    summary, train, workers_of,
};

/// Training digits and the batch of the configuration: an epoch is of 29 or 30 steps.
const EXAMPLES: usize = 1437;
/// See [`EXAMPLES`].
const BATCH: usize = 48;

/// A run without a loss to stop at, and where one would stop it.
struct Setting {
    folder: tempfile::TempDir,
    config: PathBuf,
    /// `--set` of a loss that the mean of no epoch before is below.
    stop: String,
    /// Where that ends the run.
    steps: usize,
    /// The mean of the last epoch.
    mean: f64,
}

impl Setting {
    /// A run of `planned` steps, to be ended by epoch `at` (from 1) or the next that is the best so far.
    fn new(planned: u32, at: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = digits_in_shared_lanes(folder.path(), planned, "lease_ms = 1000\ngather_ms = 100\n");
        let whole = folder.path().join("whole");
        let undisturbed = train(&config, &whole, &[]);
        assert_eq!(undisturbed["ended_by"], "run.steps");
        let losses: Vec<f64> = metrics(&whole, "step").iter().map(|s| s["clean_loss"].as_f64().unwrap()).collect();
        let ends = (1..).map(|epoch| epoch * EXAMPLES / BATCH).take_while(|end| *end < losses.len());
        let per_epoch = EXAMPLES / BATCH;
        let means: Vec<(usize, f64)> =
            ends.map(|end| (end, losses[end - per_epoch..end].iter().sum::<f64>() / per_epoch as f64)).collect();
        let best = |before: usize| means[..before].iter().map(|(_, mean)| *mean).fold(f64::INFINITY, f64::min);
        let first = (at - 1..means.len()).find(|epoch| means[*epoch].1 < best(*epoch)).unwrap();
        let (steps, mean) = means[first];
        let stop = format!("run.stop_loss={}", f64::midpoint(mean, best(first)));
        Self { folder, config, stop, steps, mean }
    }

    fn out(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The run has ended where it should, with all that the end of a run comes with.
    #[track_caller]
    fn has_stopped(&self, out: &Path) -> Value {
        let summary = summary(out);
        assert_eq!(
            (&summary["ended_by"], summary["steps"].as_u64()),
            (&"run.stop_loss".into(), Some(self.steps as u64))
        );
        assert!((summary["train_loss"].as_f64().unwrap() / self.mean - 1.0).abs() < 1e-12, "{summary}");
        let steps: Vec<u64> = metrics(out, "step").iter().map(|line| line["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, (1..=self.steps as u64).collect::<Vec<u64>>(), "each step is recorded once");
        let evaluations = metrics(out, "eval");
        let last = evaluations.last().unwrap();
        assert_eq!((last["step"].as_u64(), &last["error"]), (Some(self.steps as u64), &summary["test_error"]));
        assert!(out.join("final.safetensors").exists());
        summary
    }
}

#[test]
fn a_run_stops_with_the_same_bits_for_any_number_of_workers_also_killed_and_resumed() {
    let setting = Setting::new(300, 5);
    // Evaluations that are due elsewhere: the one at the end comes all the same.
    let sets = ["--set", &setting.stop, "--set", "run.eval_every_epochs=4"];
    let mut hashes = Vec::new();
    for workers in ["1", "3"] {
        let out = setting.out(workers);
        train(&setting.config, &out, &[&sets[..], &["--workers", workers]].concat());
        hashes.push(sha(&setting.has_stopped(&out)));
    }
    let out = setting.out("killed");
    let start = |workers: &str| -> Child {
        let mut command = strath();
        command.args(["train", setting.config.to_str().unwrap(), "--out", out.to_str().unwrap(), "--resume"]);
        command.args(sets).args(["--workers", workers]).spawn().unwrap()
    };
    for (workers, step) in [("3", 35), ("1", 71), ("2", setting.steps - 3)] {
        let mut child = start(workers);
        reach(&out, step);
        let workers = workers_of(child.id());
        signal(child.id(), "-KILL");
        child.wait().unwrap();
        gone(&workers, Duration::from_secs(5));
    }
    let output = finish(start("3"), DEADLINE);
    assert!(output.status.success(), "{}", stderr(&output));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let ended = setting.has_stopped(&out);
    hashes.push(sha(&ended));
    assert!(said.contains("ended by run.stop_loss"), "{said}");
    assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "{hashes:?}");

    let again = finish(start("2"), DEADLINE);
    assert!(String::from_utf8_lossy(&again.stdout).contains("is finished"), "{}", stderr(&again));
    assert_eq!(summary(&out), ended);
}

#[test]
fn a_worker_that_joins_late_agrees_on_the_end() {
    let setting = Setting::new(900, 16);
    let alone = setting.out("alone");
    train(&setting.config, &alone, &["--workers", "1", "--set", &setting.stop]);
    let out = setting.out("joined");
    let mut command = strath();
    command.args(["coordinator", "--config", setting.config.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    command.args(["--out", out.to_str().unwrap(), "--min-workers", "1", "--set", &setting.stop]);
    let coordinator = command.spawn().unwrap();
    let address = Coordinator::address_in(&out);
    let worker = || strath().args(["worker", "--coordinator", &address]).spawn().unwrap();
    let mut workers = vec![worker()];
    reach(&out, 5);
    workers.push(worker());
    generations(&out, 2);
    for process in std::iter::once(coordinator).chain(workers) {
        let output = finish(process, DEADLINE);
        assert!(output.status.success(), "{}", stderr(&output));
    }
    assert_eq!(sha(&setting.has_stopped(&out)), sha(&setting.has_stopped(&alone)));
}

#[test]
fn a_loss_to_stop_at_is_a_part_of_the_run_and_one_that_is_never_reached_changes_no_bit() {
    let folder = tempfile::tempdir().unwrap();
    let config = digits_in_shared_lanes(folder.path(), 40, "");
    let (plain, never) = (folder.path().join("plain"), folder.path().join("never"));
    let whole = train(&config, &plain, &[]);
    let summary = train(&config, &never, &["--set", "run.stop_loss=1e-9"]);
    assert_eq!((sha(&summary), &summary["ended_by"]), (sha(&whole), &"run.steps".into()));
    let arguments = ["train", config.to_str().unwrap(), "--resume", "--out"];
    let refused = run(&[&arguments[..], &[plain.to_str().unwrap(), "--set", "run.stop_loss=1e-9"]].concat());
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("run.stop_loss"), "{}", stderr(&refused));
}
