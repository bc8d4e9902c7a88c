//! What lanes tell: the same bits for any number of workers, and none of it felt by the weights.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{
    Coordinator, DEADLINE, digits_in_shared_lanes, finish, gone, metrics, reach, run, sha, signal, stderr, strath,
    train, workers_of,
};

/// Keys that a step always has, here.
const ALWAYS: [&str; 1] = ["lift_ratio"];
/// Keys of a step that is surveyed.
const SURVEYED: [&str; 8] =
    ["coherence", "noise_trace", "signal2", "noise_scale", "amplification", "rho_equivalent", "transfer", "audit"];

/// Every step's telemetry.
fn told(out: &Path) -> Vec<Vec<(String, Value)>> {
    let keys = || ALWAYS.iter().chain(&SURVEYED).chain(&["curvature", "turn", "turn_lanes", "ladder", "epsilon_norm"]);
    let step = |line: &Value| keys().map(|key| ((*key).to_string(), line[*key].clone())).collect();
    metrics(out, "step").iter().map(step).collect()
}

fn number(line: &Value, key: &str) -> f64 {
    line[key].as_f64().unwrap_or_else(|| panic!("{key} in {line}"))
}

#[test]
fn telemetry_has_the_same_bits_for_any_number_of_workers_and_moves_no_weight() {
    let folder = tempfile::tempdir().unwrap();
    let config = digits_in_shared_lanes(folder.path(), 12, "");
    // Lanes of three micro-batches, which three workers share, and lanes of one; every ball, both directions.
    for (case, more) in [
        &["sam.m=24"][..],
        &["sam.m=8"],
        &["sam.m=[16, 8, 24]"],
        &["sam.m=12", "batch.micro=12", "sam.norm=inf"],
        &["sam.m=16", "sam.adaptive=true", "sam.norm=1.5"],
        &["sam.m=8", "sam.direction=random"],
        &["sam.m=8", "sam.weight_decay=inside", "optimizer.weight_decay=0.01"],
        &["sam.m=8", "sam.rho=0"],
        &["sam.m=8", "telemetry.ladder=true"],
        &["sam.m=12", "batch.micro=4", "telemetry.ladder=true", "sam.norm=3"],
    ]
    .into_iter()
    .enumerate()
    {
        let sets: Vec<&str> = more.iter().flat_map(|assignment| ["--set", *assignment]).collect();
        let train = |name: &str, every: &str, workers: &str| {
            let out = folder.path().join(format!("{case}-{name}"));
            let every = format!("telemetry.every={every}");
            let summary = train(&config, &out, &[&sets[..], &["--set", &every, "--workers", workers]].concat());
            (sha(&summary), told(&out))
        };
        // A ladder without surveys is refused.
        let never = if more.contains(&"telemetry.ladder=true") { "1000" } else { "0" };
        let (alone, three, never) = (train("alone", "4", "1"), train("three", "4", "3"), train("never", never, "2"));
        assert_eq!(alone.0, never.0, "{more:?}: a survey moves no weight");
        assert_eq!(alone, three, "{more:?}");
        let has = |step: &Vec<(String, Value)>, key: &str| step.iter().any(|(k, v)| k == key && !v.is_null());
        let surveyed: Vec<bool> = alone.1.iter().map(|step| has(step, "audit")).collect();
        let expected: Vec<bool> = (1..=12).map(|step| step % 4 == 0 && !more.contains(&"sam.rho=0")).collect();
        assert_eq!(surveyed, expected, "{more:?}");
        assert!(never.1.iter().all(|step| !has(step, "audit")));
    }
}

#[test]
fn a_survey_passes_its_audit_and_says_what_lanes_are() {
    let folder = tempfile::tempdir().unwrap();
    let config = digits_in_shared_lanes(folder.path(), 8, "");
    let out = folder.path().join("run");
    train(&config, &out, &["--set", "telemetry.every=4", "--set", "sam.m=8", "--workers", "2"]);
    let steps = metrics(&out, "step");
    for line in &steps {
        // Early in training, at a small radius: near what a linear loss does.
        assert!((0.5..3.0).contains(&number(line, "lift_ratio")), "{line}");
        let is_surveyed = line["step"].as_u64().unwrap() % 4 == 0;
        // Each lane is asked in its turn, in a survey all of them.
        assert!(!is_surveyed || line["turn_lanes"] == 6, "{line}");
        if is_surveyed || line.get("turn").is_some() {
            assert!((0.0..=1.0).contains(&number(line, "turn")), "{line}");
            number(line, "curvature");
        }
        // Of a signal that is lost in the noise there is no scale.
        let keys = || SURVEYED.iter().filter(|key| **key != "noise_scale");
        assert!(keys().all(|key| line.get(*key).is_some() == is_surveyed), "{line}");
    }
    for line in steps.iter().filter(|line| line["step"].as_u64().unwrap() % 4 == 0) {
        let audit = &line["audit"];
        let found = ["passed", "lanes", "distinct_epsilons", "zero_gradient_lanes", "split_lanes", "weights_unchanged"]
            .map(|key| audit[key].clone());
        let expected: [Value; 6] = [true.into(), 6.into(), 6.into(), 0.into(), 0.into(), true.into()];
        assert_eq!(found, expected, "{audit}");
        assert!(audit["radius_deviation"].as_f64().unwrap() < 1e-6, "{audit}");
        let amplification = number(line, "amplification");
        assert!(amplification >= 1.0, "{line}");
        assert!((number(line, "rho_equivalent") / (0.05 * amplification) - 1.0).abs() < 1e-12, "{line}");
        assert!((0.0..=1.0).contains(&number(line, "coherence")), "{line}");
        // What 6 lanes' mean square is made of: signal + trace / m.
        assert!(number(line, "noise_trace") > 0.0, "{line}");
    }
    let mut events = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path());
    let events = events.find(|path| path.to_string_lossy().contains("tfevents")).unwrap();
    let text = String::from_utf8_lossy(&std::fs::read(events).unwrap()).into_owned();
    for tag in ["lanes/lift_ratio", "lanes/noise_trace", "lanes/audit_passed", "lanes/turn", "seconds/survey"] {
        assert!(text.contains(tag), "{tag}");
    }
}

#[test]
fn a_run_that_was_killed_tells_what_one_that_was_not_does() {
    let folder = tempfile::tempdir().unwrap();
    let config = digits_in_shared_lanes(folder.path(), 120, "");
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    let sets = ["--set", "telemetry.every=3", "--set", "sam.m=16", "--set", "checkpoint.every_steps=7"];
    train(&config, &whole, &sets);
    let start = |workers: &str| {
        let mut command = strath();
        command.args(["train", config.to_str().unwrap(), "--out", killed.to_str().unwrap(), "--resume"]);
        command.args(sets).args(["--workers", workers]).spawn().unwrap()
    };
    let mut child = start("3");
    reach(&killed, 30);
    let workers = workers_of(child.id());
    signal(child.id(), "-KILL");
    child.wait().unwrap();
    gone(&workers, Duration::from_secs(5));
    let output = finish(start("1"), DEADLINE);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(told(&killed), told(&whole));
}

#[test]
fn a_status_shows_the_newest_survey() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let sets = ["--set", "telemetry.every=2", "--set", "run.epochs=5000", "--min-workers", "1"];
    let mut coordinator = Coordinator::start(&out, &sets);
    let mut worker = strath().args(["worker", "--coordinator", &coordinator.address]).spawn().unwrap();
    reach(&out, 5);
    let status = |more: &[&str]| {
        let output = run(&[&["status", "--coordinator", &coordinator.address], more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let begun = Instant::now();
    let shown: Value = loop {
        let shown: Value = serde_json::from_str(&status(&["--json"])).unwrap();
        if !shown["survey"].is_null() || begun.elapsed() > Duration::from_secs(20) {
            break shown;
        }
    };
    let survey = &shown["survey"];
    assert!(survey["step"].as_u64().unwrap().is_multiple_of(2), "{shown}");
    assert_eq!((&survey["audit"]["passed"], &survey["audit"]["distinct_epsilons"]), (&true.into(), &4.into()));
    for key in ["rho_equivalent", "coherence"] {
        number(survey, key);
    }
    let table = status(&[]);
    assert!(table.contains("rho equivalent") && table.contains("audit passed"), "{table}");
    coordinator.end();
    worker.kill().unwrap();
    worker.wait().unwrap();
}

/// A rung is what a run of that m would find at the same weights: here at the first step, from one seed.
#[test]
fn the_rungs_of_a_ladder_are_what_runs_of_their_m_find() {
    let folder = tempfile::tempdir().unwrap();
    let config = digits_in_shared_lanes(folder.path(), 1, "");
    let first = |m: usize, workers: &str| {
        let out = folder.path().join(format!("{m}-{workers}"));
        let sets = ["--set", "telemetry.every=1", "--set", "telemetry.ladder=true", "--set", "batch.size=32"];
        train(&config, &out, &[&sets[..], &["--set", &format!("sam.m={m}"), "--workers", workers]].concat());
        let ladder = metrics(&out, "step")[0]["ladder"].as_array().unwrap().clone();
        let sizes: Vec<u64> = ladder.iter().map(|rung| rung["m"].as_u64().unwrap()).collect();
        assert_eq!(sizes[0], m as u64);
        assert_eq!(*sizes.last().unwrap(), 32);
        ladder
    };
    let ladder = first(8, "3");
    for (rung, m) in ladder.iter().zip([8, 16, 32]) {
        let own = &first(m, "2")[0];
        assert_eq!(
            rung["gradient_norm"], own["gradient_norm"],
            "to the bit, as batch and rungs are powers of two apart"
        );
        assert!((number(rung, "lift") / number(own, "lift") - 1.0).abs() < 1e-9, "{rung} {own}");
    }
}
