//! The main job: what a newcomer sees first.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use std::time::Duration;

use support::{
    Coordinator, DEADLINE, finish, memberships, metrics, repository, run, sha, stderr, strath, summary, train,
};

#[test]
fn train_without_a_file_learns_the_digits_and_says_what_it_learned() {
    let folder = tempfile::tempdir().unwrap();
    let child = strath().current_dir(folder.path()).arg("train").spawn().unwrap();
    // What the README promises: under a minute.
    let output = finish(child, Duration::from_secs(60));
    assert!(output.status.success(), "{}", stderr(&output));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for part in ["test error", "runs/digits", "final.safetensors", "tensorboard", "Next"] {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
    let out = folder.path().join("runs/digits");
    let summary = summary(&out);
    assert!(summary["test_error"].as_f64().unwrap() <= 0.05, "{summary}");
    assert_eq!(summary["world_sizes"], serde_json::json!([2]));
    assert_eq!(summary["normalisation"], serde_json::json!({"mean": [0.3053], "std": [0.376]}));
    for file in ["config.toml", "metrics.jsonl", "final.safetensors"] {
        assert!(out.join(file).exists(), "{file}");
    }
    assert!(!out.join("coordinator.json").exists(), "no coordinator lives");

    // The written configuration repeats the run, to the same bits; a second run of a name gets a folder of its own.
    let again = train(&out.join("config.toml"), &folder.path().join("again"), &["--workers", "1"]);
    assert_eq!(sha(&again), sha(&summary));
}

#[test]
fn metrics_have_every_key_with_its_type() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    train(&repository().join("configs/digits.toml"), &out, &["--set", "run.epochs=2"]);
    let steps = metrics(&out, "step");
    for (at, line) in steps.iter().enumerate() {
        assert_eq!(line["step"].as_u64(), Some(at as u64 + 1));
        for key in [
            "epoch",
            "time",
            "clean_loss",
            "perturbed_loss",
            "lr",
            "gradient_norm",
            "epsilon_norm",
            "images_per_s",
            "data_s",
            "ascent_s",
            "epsilon_s",
            "exchange_s",
            "descent_s",
            "reduce_s",
            "update_s",
        ] {
            assert!(line[key].is_f64(), "{key} of {line}");
        }
    }
    let evals = metrics(&out, "eval");
    let at: Vec<u64> = evals.iter().map(|line| line["step"].as_u64().unwrap()).collect();
    let last = steps.len() as u64;
    assert_eq!(at.last(), Some(&last));
    assert_eq!(at.len(), 2, "one an epoch: {at:?}");
    assert_eq!(memberships(&out).len(), 1);
}

#[test]
fn eval_agrees_with_the_run_on_any_number_of_workers() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let config = repository().join("configs/digits.toml");
    let summary = train(&config, &out, &["--set", "run.epochs=2"]);
    for workers in ["1", "3"] {
        let checkpoint = out.join("final.safetensors");
        let output = run(&[
            "eval",
            checkpoint.to_str().unwrap(),
            "--config",
            config.to_str().unwrap(),
            "--json",
            "--workers",
            workers,
        ]);
        assert!(output.status.success(), "{}", stderr(&output));
        let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(line["split"], "test");
        assert_eq!((&line["loss"], &line["error"]), (&summary["test_loss"], &summary["test_error"]));
    }
}

#[test]
fn the_noisy_examples_are_evaluated_to_the_same_bits_on_any_number_of_workers() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let sets = ["--set", "run.epochs=4", "--set", "data.label_noise=0.2"];
    train(&repository().join("configs/digits.toml"), &out, &sets);
    let (checkpoint, config) = (out.join("final.safetensors"), out.join("config.toml"));
    let eval = ["eval", checkpoint.to_str().unwrap(), "--config", config.to_str().unwrap(), "--json"];
    let on = |split: &str, workers: &str| {
        let output = run(&[&eval[..], &["--split", split, "--workers", workers]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        output.stdout
    };
    let found = on("noisy", "1");
    assert_eq!(found, on("noisy", "3"));
    let error = |line: &[u8]| serde_json::from_slice::<serde_json::Value>(line).unwrap()["error"].as_f64().unwrap();
    // 0.2 * 1437 = 287.4 examples. So early nearly all that is wrong on the training examples is wrong there.
    let wrong = error(&found) * 287.0;
    assert!((wrong - wrong.round()).abs() < 1e-9, "{wrong}");
    let of_all = error(&on("train", "1")) * 1437.0;
    assert!(error(&found) > 0.7 && wrong <= of_all + 1e-9 && wrong > 0.5 * of_all, "{wrong} of {of_all}");

    let refused = run(&[&eval[..], &["--split", "noisy", "--set", "data.label_noise=0"]].concat());
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("data.label_noise is 0"), "{}", stderr(&refused));
    let none = run(&[&eval[..], &["--split", "noisy", "--set", "data.label_noise=0.0001"]].concat());
    assert!(!none.status.success() && stderr(&none).contains("there are 0 noisy examples"), "{}", stderr(&none));
}

#[test]
fn f32_and_bf16_sums_train_and_ranks_agree() {
    // That ranks agree bitwise is checked by the coordinator at the end of every run: it refuses digests that differ.
    let folder = tempfile::tempdir().unwrap();
    for reduce in ["f32", "bf16"] {
        let out = folder.path().join(reduce);
        let reduce = format!("cluster.reduce={reduce}");
        let summary = train(
            &repository().join("configs/digits.toml"),
            &out,
            &["--workers", "3", "--set", "run.epochs=4", "--set", &reduce],
        );
        assert!(summary["test_error"].as_f64().unwrap() < 0.3, "{reduce}: {summary}");
    }
}

#[test]
fn the_configurations_that_ship_have_one_hash_for_one_to_five_workers_and_one_or_two_threads() {
    let folder = tempfile::tempdir().unwrap();
    let fashion = std::path::Path::new("/usr/share/datasets/fashion-mnist").exists();
    if !fashion {
        assert!(std::env::var_os("STRATH_REQUIRE_ALL").is_none(), "Fashion-MNIST is missing");
        eprintln!("skipped for Fashion-MNIST: Debian's package dataset-fashion-mnist is not installed");
    }
    for (name, steps) in [("digits", 40), ("fashion-mnist", 2)].into_iter().take(if fashion { 2 } else { 1 }) {
        let config = repository().join(format!("configs/{name}.toml"));
        let hash = |workers: &str, threads: &str| {
            let out = folder.path().join(format!("{name}-{workers}-{threads}"));
            let sets = [format!("run.steps={steps}"), format!("cluster.threads={threads}")];
            sha(&train(&config, &out, &["--workers", workers, "--set", &sets[0], "--set", &sets[1]]))
        };
        let alone = hash("1", "1");
        for (workers, threads) in [("1", "2"), ("2", "1"), ("3", "1"), ("4", "1"), ("5", "1")] {
            assert_eq!(hash(workers, threads), alone, "{name}, {workers} workers, {threads} threads");
        }
    }
}

#[test]
fn ring_and_direct_exchange_give_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let hashes: Vec<String> = ["ring", "direct", "auto"]
        .iter()
        .map(|algorithm| {
            let set = format!("cluster.algorithm={algorithm}");
            let more = ["--workers", "3", "--set", "run.epochs=1", "--set", &set];
            sha(&train(&repository().join("configs/digits.toml"), &folder.path().join(algorithm), &more))
        })
        .collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
}

#[test]
fn an_evaluation_with_large_losses_is_recorded_and_ends_no_run() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    // Examples to test on that are far from those to train on: their logits are as large, and so are their losses.
    let (train_images, test_images) = (bytes(&[0.5; 64 * 16]), bytes(&[3e8; 200 * 16]));
    let labels = (0..200i64).flat_map(|at| (at % 3).to_le_bytes()).collect::<Vec<u8>>();
    let view =
        |dtype, shape: &[usize], bytes| safetensors::tensor::TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
    let (f32, i64) = (safetensors::Dtype::F32, safetensors::Dtype::I64);
    let tensors = [
        ("train.images", view(f32, &[64, 1, 4, 4], &train_images)),
        ("train.labels", view(i64, &[64], &labels[..64 * 8])),
        ("test.images", view(f32, &[200, 1, 4, 4], &test_images)),
        ("test.labels", view(i64, &[200], &labels)),
    ];
    std::fs::write(folder.path().join("data.safetensors"), safetensors::serialize(tensors, None).unwrap()).unwrap();
    let config = folder.path().join("run.toml");
    let text = "[run]\nsteps = 4\n[data]\nkind = \"safetensors\"\npath = \"data.safetensors\"\nclasses = 3\n\
        [model]\nkind = \"mlp\"\nhidden = [8]\n[batch]\nsize = 16\n[sam]\nm = 16\n";
    std::fs::write(&config, text).unwrap();
    let losses: Vec<f64> = ["1", "2"]
        .iter()
        .map(|workers| {
            let summary = train(&config, &folder.path().join(workers), &["--workers", workers]);
            summary["test_loss"].as_f64().unwrap()
        })
        .collect();
    assert!(losses[0] > 32_768.0 && losses[0] < 1e10, "{losses:?}");
    assert_eq!(losses[0].to_bits(), losses[1].to_bits(), "whoever computed them");
}

#[test]
fn help_of_every_command_fits_a_screen_and_has_examples() {
    let commands: [&[&str]; 11] = [
        &[],
        &["train"],
        &["coordinator"],
        &["worker"],
        &["status"],
        &["eval"],
        &["study"],
        &["config"],
        &["data"],
        &["data", "fetch"],
        &["data", "verify"],
    ];
    for command in commands {
        let output = run(&[command, &["--help"]].concat());
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("Examples:"), "{command:?}");
        assert!(said.lines().count() <= 30, "{command:?}: {} lines", said.lines().count());
    }
}

#[test]
fn a_gradient_in_pieces_between_hosts_gives_the_bits_of_one_worker() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("wide.toml");
    let text = "[run]\nname = \"wide\"\nsteps = 6\n[data]\nkind = \"digits\"\n[model]\nkind = \"mlp\"\nhidden = [1024, 1024, 1024]\n\
                [batch]\nsize = 32\n[sam]\nm = 8\nweight_decay = \"inside\"\n[optimizer]\nlr = 0.05\nweight_decay = 0.01\n[cluster]\ngather_ms = 300\n";
    std::fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    let alone = folder.path().join("alone");
    let output = run(&["train", config, "--workers", "1", "--out", alone.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    let out = folder.path().join("apart");
    let coordinator = strath()
        .args(["coordinator", "--config", config, "--listen", "127.0.0.1:0", "--min-workers", "2"])
        .args(["--out", out.to_str().unwrap()])
        .spawn()
        .unwrap();
    let address = Coordinator::address_in(&out);
    // Loopback addresses of their own stand for hosts.
    let traces = ["a", "b"].map(|name| folder.path().join(name));
    let workers = [0, 1].map(|at| {
        let listen = format!("127.0.0.{}:0", at + 2);
        let mut command = strath();
        command.args([
            "worker",
            "--coordinator",
            &address,
            "--listen",
            &listen,
            "--trace",
            traces[at].to_str().unwrap(),
        ]);
        command.spawn().unwrap()
    });
    let output = finish(coordinator, DEADLINE);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(sha(&summary(&out)), sha(&summary(&alone)));
    for worker in workers {
        assert!(finish(worker, Duration::from_secs(10)).status.success());
    } // A piece was on its way before the phase began in which all of them are waited for.
    let trace: serde_json::Value = serde_json::from_slice(&std::fs::read(&traces[0]).unwrap()).unwrap();
    let begin = |name: &str| {
        let of = |event: &&serde_json::Value| event["name"] == name && event["args"]["step"] == 3;
        trace["traceEvents"].as_array().unwrap().iter().find(of).unwrap()["ts"].as_f64().unwrap()
    };
    assert!(begin("reduce, a piece") < begin("reduce"));
}
