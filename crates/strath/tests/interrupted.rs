//! Runs that are interrupted: killed at any step and resumed, with the same or another number of workers, to the same bits;
//! stopped by a signal; ended by the death of all workers, or of the coordinator.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use support::{
    DEADLINE, cases, digits_in_shared_lanes, finish, gone, metrics, reach, run, sha, signal, signal_all, stderr,
    strath, summary, train, workers_of,
};

fn config(folder: &Path) -> std::path::PathBuf {
    digits_in_shared_lanes(folder, 160, "")
}

fn start(config: &Path, out: &Path, more: &[&str]) -> Child {
    strath().args(["train", config.to_str().unwrap(), "--out", out.to_str().unwrap()]).args(more).spawn().unwrap()
}

#[test]
fn a_run_killed_at_any_step_and_resumed_with_any_number_of_workers_ends_in_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let undisturbed = train(&config, &folder.path().join("whole"), &["--workers", "2"]);
    let out = folder.path().join("killed");
    for (workers, step) in [("2", 3), ("3", 29), ("1", 71), ("5", 118)] {
        let mut child = start(&config, &out, &["--resume", "--workers", workers]);
        reach(&out, step);
        let workers = workers_of(child.id());
        signal(child.id(), "-KILL");
        child.wait().unwrap();
        gone(&workers, Duration::from_secs(5));
    }
    let resumed = train(&config, &out, &["--resume", "--workers", "4"]);
    assert_eq!(sha(&resumed), sha(&undisturbed));
    assert_eq!(resumed["test_error"], undisturbed["test_error"]);
    assert_eq!(resumed["train_loss"], undisturbed["train_loss"]);
    let steps: Vec<u64> = metrics(&out, "step").iter().map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, (1..=160).collect::<Vec<u64>>(), "each step is recorded once");
}

/// Kinds of cases by what their state consists of: lanes of every make, both optimizers, schedules, running statistics.
const KINDS: [&str; 7] = [
    "adamw-smoothing",
    "convnet-micro",
    "nesterov-clip",
    "sam-uneven-lanes",
    "sgd-momentum",
    "step-schedule",
    "vit-tiny",
];

#[test]
fn every_kind_of_case_survives_the_end_of_everything_at_once() {
    let folder = tempfile::tempdir().unwrap();
    for case in cases() {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        if !KINDS.contains(&name.as_str()) {
            continue;
        }
        // The case's few steps many times over, so that the end comes between them.
        let long =
            ["--set", "run.steps=400", "--set", "checkpoint.every_steps=7", "--set", "run.eval_every_epochs=1000"];
        let undisturbed = train(&case.join("case.toml"), &folder.path().join(format!("{name}-whole")), &long);
        let out = folder.path().join(&name);
        for (workers, step) in [("2", 30), ("3", 150)] {
            let more = [&long[..], &["--resume", "--workers", workers]].concat();
            let mut child = start(&case.join("case.toml"), &out, &more);
            reach(&out, step);
            signal_all(&[&workers_of(child.id())[..], &[child.id()]].concat(), "-KILL");
            child.wait().unwrap();
            assert!(!out.join("summary.json").exists(), "{name}: the run was over before it could be killed");
        }
        let resumed = train(&case.join("case.toml"), &out, &[&long[..], &["--resume", "--workers", "1"]].concat());
        assert_eq!(sha(&resumed), sha(&undisturbed), "{name}");
    }
}

#[test]
fn a_signal_to_every_process_stops_the_run_with_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    for round in 0..3 {
        let out = folder.path().join(format!("run-{round}"));
        let child = start(&config, &out, &["--workers", "3", "--set", "run.steps=100000"]);
        reach(&out, 25);
        let workers = workers_of(child.id());
        signal_all(&[&workers[..], &[child.id()]].concat(), "-TERM");
        let output = finish(child, DEADLINE);
        assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
        gone(&workers, Duration::from_secs(5));
        let steps = metrics(&out, "step").len();
        assert!(
            out.join(format!("checkpoints/step-{steps}.state.safetensors")).exists(),
            "a checkpoint of step {steps}"
        );
    }
}

#[test]
fn a_second_signal_ends_everything_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let out = folder.path().join("run");
    let child = start(&config, &out, &["--set", "run.steps=100000"]);
    reach(&out, 5);
    let workers = workers_of(child.id());
    // A worker that stands still keeps the step from ending, so that the first signal alone is not enough.
    signal(workers[0], "-STOP");
    signal(child.id(), "-INT");
    std::thread::sleep(Duration::from_millis(100));
    signal(child.id(), "-INT");
    let begun = Instant::now();
    assert_eq!(finish(child, DEADLINE).status.code(), Some(130));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    signal(workers[0], "-CONT");
    gone(&workers, Duration::from_secs(5));
}

#[test]
fn whoever_reads_the_progress_may_go_away() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let out = folder.path().join("run");
    let mut child = start(&config, &out, &[]);
    drop(child.stderr.take());
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
    assert_eq!(summary(&out)["steps"], 160);
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_it_used() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let undisturbed = train(&config, &folder.path().join("whole"), &[]);
    let out = folder.path().join("run");
    let mut child = start(&config, &out, &[]);
    // A checkpoint is written while training goes on: the step does not say that its file is there.
    let state = |step: usize| out.join(format!("checkpoints/step-{step}.state.safetensors"));
    let begun = Instant::now();
    while !state(80).exists() {
        assert!(begun.elapsed() < DEADLINE, "no checkpoint of step 80");
        std::thread::sleep(Duration::from_millis(1));
    }
    signal(child.id(), "-KILL");
    child.wait().unwrap();
    let newest = (80..=160).step_by(20).filter(|step| state(*step).exists()).max().unwrap();
    let state = state(newest);
    let mut bytes = std::fs::read(&state).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&state, bytes).unwrap();
    let resumed = run(&["train", config.to_str().unwrap(), "--out", out.to_str().unwrap(), "--resume"]);
    let said = stderr(&resumed);
    assert!(resumed.status.success(), "{said}");
    for part in [format!("step-{newest}"), "damaged".into(), format!("step {}", newest - 20)] {
        assert!(said.contains(&part), "{part:?} is not in:\n{said}");
    }
    assert_eq!(sha(&summary(&out)), sha(&undisturbed));
}

#[test]
fn a_signal_stops_after_the_step_with_a_checkpoint_and_130_and_the_run_goes_on_from_there() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let undisturbed = train(&config, &folder.path().join("whole"), &[]);
    let out = folder.path().join("stopped");
    for name in ["-INT", "-TERM"] {
        let child = start(&config, &out, &["--resume"]);
        let before = metrics_count(&out);
        reach(&out, before + 5);
        let workers = workers_of(child.id());
        signal(child.id(), name);
        let output = finish(child, DEADLINE);
        assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
        assert!(stderr(&output).contains("--resume"), "{}", stderr(&output));
        gone(&workers, Duration::from_secs(5));
        let steps = metrics_count(&out);
        assert!(out.join(format!("checkpoints/step-{steps}.safetensors")).exists(), "a checkpoint of step {steps}");
    }
    assert_eq!(sha(&train(&config, &out, &["--resume"])), sha(&undisturbed));
}

fn metrics_count(out: &Path) -> usize {
    if out.join("metrics.jsonl").exists() { metrics(out, "step").len() } else { 0 }
}

#[test]
fn a_finished_run_that_is_resumed_says_so_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let out = folder.path().join("whole");
    let first = train(&config, &out, &["--set", "run.steps=4"]);
    let again =
        run(&["train", config.to_str().unwrap(), "--set", "run.steps=4", "--out", out.to_str().unwrap(), "--resume"]);
    assert!(again.status.success(), "{}", stderr(&again));
    assert_eq!(summary(&out), first);
}

#[test]
fn the_end_of_every_worker_ends_the_run_within_five_seconds_with_one_message_that_names_one() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let out = folder.path().join("run");
    let child = start(&config, &out, &["--workers", "3", "--set", "run.steps=100000"]);
    reach(&out, 45);
    let workers = workers_of(child.id());
    assert_eq!(workers.len(), 3);
    signal_all(&workers, "-KILL");
    let begun = Instant::now();
    let output = finish(child, Duration::from_secs(20));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    let errors: Vec<&str> = said.lines().filter(|line| line.contains("error:")).collect();
    assert_eq!(errors.len(), 1, "{said}");
    for part in ["worker ", "127.0.0.1:", "step ", "phase ", "0 of the 1 workers", "--resume"] {
        assert!(errors[0].contains(part), "{part:?} is not in {}", errors[0]);
    }
    assert!(out.join("checkpoints/step-40.state.safetensors").exists());
}

#[test]
fn workers_whose_coordinator_dies_end_by_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let out = folder.path().join("run");
    let mut child = start(&config, &out, &["--workers", "2", "--set", "run.steps=100000"]);
    reach(&out, 10);
    let workers = workers_of(child.id());
    // Standing still it is given up, and looked for again; then it is gone for good.
    signal(child.id(), "-STOP");
    std::thread::sleep(Duration::from_secs(4));
    signal(child.id(), "-KILL");
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    gone(&workers, Duration::from_secs(5));
    let log = std::fs::read_to_string(out.join("logs/worker-0.log")).unwrap();
    assert!(log.contains("coordinator") && log.contains("step "), "{log}");
}
