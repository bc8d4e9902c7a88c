//! `data.validation`: evaluated beside the test split, in every file and for any number of workers alike.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use std::path::Path;

use support::{metrics, repository, run, sha, stderr, train};

fn validated(out: &Path, more: &[&str]) -> serde_json::Value {
    let config = repository().join("configs/digits.toml");
    let sets = ["--set", "run.epochs=3", "--set", "data.validation=0.1", "--set", "data.label_noise=0.2"];
    train(&config, out, &[&sets[..], more].concat())
}

#[test]
fn validation_is_evaluated_beside_the_test_split_for_any_number_of_workers() {
    let folder = tempfile::tempdir().unwrap();
    let (alone, three) = (folder.path().join("1"), folder.path().join("3"));
    let summary = validated(&alone, &["--workers", "1"]);
    // Evaluating the training split too changes nothing else.
    let other = validated(&three, &["--workers", "3", "--set", "run.eval_train=true"]);
    assert_eq!(sha(&summary), sha(&other));

    // floor(0.1 * 1437) = 143 examples are not trained on.
    let steps = metrics(&alone, "step").len() as f64;
    let batch = 64.0;
    assert!((summary["epochs"].as_f64().unwrap() / (steps * batch / 1294.0) - 1.0).abs() < 1e-12, "{summary}");
    assert_eq!(summary["examples"], serde_json::json!({"train": 1294, "validation": 143, "test": 360}));
    let lines = metrics(&alone, "eval");
    let splits: Vec<&str> = lines.iter().map(|line| line["split"].as_str().unwrap()).collect();
    assert_eq!(splits, ["validation", "test"].repeat(3));
    let what = |line: &serde_json::Value| (line["step"].clone(), line["loss"].clone(), line["error"].clone());
    let others = metrics(&three, "eval");
    let splits: Vec<&str> = others.iter().map(|line| line["split"].as_str().unwrap()).collect();
    assert_eq!(splits, ["train", "validation", "test"].repeat(3));
    let (training, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|line| line["split"] == "train");
    assert_eq!(lines.iter().map(what).collect::<Vec<_>>(), others.iter().map(what).collect::<Vec<_>>());

    let validation: Vec<&serde_json::Value> = lines.iter().step_by(2).collect();
    let last = validation[2];
    assert_eq!((&summary["validation_error"], &summary["validation_loss"]), (&last["error"], &last["loss"]));
    let error = |line: &serde_json::Value| line["error"].as_f64().unwrap();
    let mut best = validation[0];
    for line in &validation[1..] {
        best = if error(line) < error(best) { line } else { best };
    }
    assert_eq!(summary["best_validation_error"], best["error"]);
    assert_eq!(summary["best_validation_epoch"], best["epoch"]);

    let (checkpoint, config) = (alone.join("final.safetensors"), alone.join("config.toml"));
    let eval = ["eval", checkpoint.to_str().unwrap(), "--config", config.to_str().unwrap(), "--json"];
    for (split, last) in [("validation", last), ("train", &training[2])] {
        let output = run(&[&eval[..], &["--split", split]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found["split"], split);
        assert_eq!((&found["error"], &found["loss"]), (&last["error"], &last["loss"]));
    }
    let refused = run(&[&eval[..], &["--split", "validation", "--set", "data.validation=0"]].concat());
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("data.validation"), "{}", stderr(&refused));
}

#[test]
fn a_run_without_validation_says_nothing_of_it_and_a_share_of_no_example_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let config = repository().join("configs/digits.toml");
    let summary = train(&config, &out, &["--set", "run.steps=2"]);
    assert!(summary.as_object().unwrap().keys().all(|key| !key.contains("validation")), "{summary}");
    assert_eq!(summary["examples"], serde_json::json!({"train": 1437, "validation": 0, "test": 360}));
    let none = folder.path().join("none");
    let refused =
        run(&["train", config.to_str().unwrap(), "--out", none.to_str().unwrap(), "--set", "data.validation=0.0001"]);
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("1437 training examples is none"), "{}", stderr(&refused));
}
