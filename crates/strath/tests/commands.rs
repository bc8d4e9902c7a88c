//! What the smaller commands print: `config`, `status`, `eval`, `data`, and standard error as JSON.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use std::io::Read;
use std::time::{Duration, Instant};

use support::{finish, reach, repository, run, signal, stderr, strath, train, vacant, workers_of};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn config_prints_value_origin_and_meaning_in_their_precedence() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("my.toml");
    std::fs::write(&file, "[data]\nkind = \"digits\"\n[model]\nkind = \"convnet\"\n[sam]\nrho = 0.2\nm = 8\n").unwrap();
    let mut command = strath();
    command.env("STRATH__SAM__M", "16").env("STRATH__OPTIMIZER__LR", "1").args(["config", file.to_str().unwrap()]);
    command.args(["--set", "optimizer.lr=0.5"]);
    let output = finish(command.spawn().unwrap(), Duration::from_secs(20));
    assert!(output.status.success(), "{}", stderr(&output));
    let said = text(&output.stdout);
    let line = |key: &str| said.lines().find(|line| line.split_whitespace().next() == Some(key)).unwrap().to_string();
    for (key, parts) in [
        ("sam.rho", ["0.2", "my.toml:6", "radius"]),
        ("sam.m", ["16", "environment STRATH__SAM__M", "examples per epsilon"]),
        ("optimizer.lr", ["0.5", "--set", "learning rate"]),
        ("batch.size", ["64", "default", "global batch"]),
    ] {
        assert!(parts.iter().all(|part| line(key).contains(part)), "{parts:?} are not in: {}", line(key));
    }
    // As a file it means the same, without the flags and the environment.
    let mut command = strath();
    command.env("STRATH__SAM__M", "16").args(["config", file.to_str().unwrap(), "--set", "optimizer.lr=0.5", "--toml"]);
    let printed = finish(command.spawn().unwrap(), Duration::from_secs(20)).stdout;
    std::fs::write(folder.path().join("whole.toml"), &printed).unwrap();
    let again = run(&["config", folder.path().join("whole.toml").to_str().unwrap(), "--toml"]);
    assert_eq!(text(&again.stdout), text(&printed));
}

#[test]
fn status_finds_the_run_that_lives_and_watches_it_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let config = repository().join("configs/digits.toml");
    let here = |arguments: &[&str]| {
        let mut command = strath();
        command.current_dir(folder.path()).args(arguments);
        command
    };
    let none = finish(here(&["status"]).spawn().unwrap(), Duration::from_secs(10));
    assert!(stderr(&none).contains("no run is under way"), "{}", stderr(&none));

    let long = ["train", config.to_str().unwrap(), "--set", "run.epochs=100000"];
    let mut dead = here(&long).spawn().unwrap();
    reach(&folder.path().join("runs/digits"), 1);
    let living = here(&long).spawn().unwrap();
    reach(&folder.path().join("runs/digits-2"), 1);
    // The newer file is that of a coordinator which was killed and could not take it away.
    let left = folder.path().join("runs/digits/coordinator.json");
    let told = std::fs::read(&left).unwrap();
    signal(dead.id(), "-KILL");
    dead.wait().unwrap();
    std::fs::write(&left, told).unwrap();
    std::thread::sleep(Duration::from_millis(700));

    let table = finish(here(&["status"]).spawn().unwrap(), Duration::from_secs(10));
    let said = text(&table.stdout);
    assert!(table.status.success() && said.contains("running, generation 1"), "{said}{}", stderr(&table));
    let told = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        told.contains("last decision: formed generation 1 of 2 workers at step 0, because all 2 workers are ready,"),
        "{said}"
    );
    assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
    let workers = workers_of(living.id());
    let row = |pid: &u32| said.lines().any(|line| line.split_whitespace().any(|word| word == pid.to_string()));
    assert!(workers.len() == 2 && workers.iter().all(row), "{said}");
    let rates = finish(here(&["status", "--json"]).spawn().unwrap(), Duration::from_secs(10));
    let line: serde_json::Value = serde_json::from_slice(&rates.stdout).unwrap();
    for worker in line["workers"].as_array().unwrap() {
        assert!(worker["images_per_s"].as_f64().unwrap() > 0.0, "{line}");
        assert_eq!(worker["micro_batches"], 2, "{line}");
    }
    let decided = line["decisions"].as_array().unwrap().last().unwrap();
    assert!(decided["what"].as_str().unwrap().starts_with("formed generation 1"), "{line}");
    assert!(decided["why"] == "all 2 workers are ready" && decided["ago_ms"].as_u64().unwrap() >= 700, "{line}");

    let mut watch = here(&["status", "--watch"]).spawn().unwrap();
    let mut first = [0; 64];
    watch.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    signal(living.id(), "-TERM");
    assert_eq!(finish(living, Duration::from_secs(20)).status.code(), Some(130));
    let watched = finish(watch, Duration::from_secs(20));
    assert!(watched.status.success() && stderr(&watched).contains("has ended"), "{}", stderr(&watched));
}

#[test]
fn standard_error_is_one_json_object_a_line_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (config, out) = (repository().join("configs/digits.toml"), folder.path().join("run"));
    let json = |more: &[&str]| {
        let arguments = ["--log-format", "json", "train", config.to_str().unwrap(), "--out", out.to_str().unwrap()];
        run(&[&arguments[..], more].concat())
    };
    let done = json(&["--set", "run.epochs=1", "--set", "sam.m=batch"]);
    assert!(done.status.success(), "{}", stderr(&done));
    let lines = |output| -> Vec<serde_json::Value> {
        stderr(output).lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    };
    let said = lines(&done);
    let level = |wanted: &str| said.iter().filter(|line| line["level"] == wanted).count();
    assert!(level("WARN") >= 1 && level("INFO") >= 2, "{said:?}");
    let refused = lines(&json(&[]));
    assert_eq!(refused.last().unwrap()["level"], "ERROR", "{refused:?}");
    let log = std::fs::read_to_string(out.join("logs/worker-0.log")).unwrap();
    assert!(log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{log}");
}

#[test]
fn the_last_words_promise_equal_bits_only_where_sums_are_exact() {
    let folder = tempfile::tempdir().unwrap();
    let config = repository().join("configs/digits.toml");
    for (reduce, promised) in [("exact", true), ("f32", false)] {
        let (out, set) = (folder.path().join(reduce), format!("cluster.reduce={reduce}"));
        let arguments = ["train", config.to_str().unwrap(), "--out", out.to_str().unwrap(), "--set", "run.epochs=1"];
        let output = run(&[&arguments[..], &["--set", &set]].concat());
        assert_eq!(text(&output.stdout).contains("the same weights_sha256"), promised, "{}", text(&output.stdout));
    }
}

#[test]
fn eval_takes_either_split_and_warns_as_train_does() {
    let folder = tempfile::tempdir().unwrap();
    let (config, out) = (repository().join("configs/digits.toml"), folder.path().join("run"));
    train(&config, &out, &["--set", "run.epochs=1"]);
    let checkpoint = out.join("final.safetensors");
    let eval = ["eval", checkpoint.to_str().unwrap(), "--config", config.to_str().unwrap(), "--json"];
    let output = run(&[&eval[..], &["--split", "train", "--set", "sam.m=batch"]].concat());
    assert!(stderr(&output).contains("warning") && output.status.success(), "{}", stderr(&output));
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(line["split"], "train");
    assert!(line["loss"].is_f64() && line["error"].is_f64(), "{line}");
}

#[test]
fn verify_says_of_each_file_whether_it_is_whole() {
    let installed = "/usr/share/datasets/fashion-mnist";
    if !std::path::Path::new(installed).exists() {
        assert!(std::env::var_os("STRATH_REQUIRE_ALL").is_none(), "Fashion-MNIST is missing");
        eprintln!("skipped: Debian's package dataset-fashion-mnist is not installed");
        return;
    }
    let good = run(&["data", "verify", "fashion-mnist", "--at", installed]);
    assert!(good.status.success(), "{}", stderr(&good));
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(installed).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let victim = folder.path().join("t10k-labels-idx1-ubyte.gz");
    std::fs::write(&victim, b"not what it was").unwrap();
    let bad = run(&["data", "verify", "fashion-mnist", "--at", folder.path().to_str().unwrap()]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(stderr(&bad).contains("t10k-labels-idx1-ubyte"), "{}", stderr(&bad));
}

#[test]
fn a_worker_leaves_at_once_where_it_waits_for_nobody() {
    let vacant = vacant().to_string();
    let waiting = strath().args(["worker", "--coordinator", &vacant, "--connect-timeout", "60"]).spawn().unwrap();
    // It replaces itself once and then catches signals.
    std::thread::sleep(Duration::from_millis(500));
    assert!(workers_of(waiting.id()).is_empty());
    signal(waiting.id(), "-TERM");
    let begun = Instant::now();
    let ended = finish(waiting, Duration::from_secs(20));
    assert_eq!(ended.status.code(), Some(130), "{}", stderr(&ended));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}
