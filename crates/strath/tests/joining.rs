//! A worker that joins a run at work follows it bit for bit, fed by one of the others, and nobody is sent a state by the coordinator.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use support::place::{Place, generations, world_sizes};
use support::{Coordinator, DEADLINE, finish, memberships, metrics, reach, run, sha, stderr, strath, summary, train};

/// A run of the digits with this model, optimizer and schedule.
fn config(folder: &Path, name: &str, steps: u32, tables: &str) -> PathBuf {
    let text = format!(
        "[run]\nname = \"{name}\"\nsteps = {steps}\neval_every_epochs = 4\n[data]\nkind = \"digits\"\naugment = [\"flip\"]\n[batch]\nsize = 32\n\
         [sam]\nm = 16\n[checkpoint]\nevery_steps = 100000\n[cluster]\nthreads = 1\ngather_ms = 50\nlease_ms = 5000\n{tables}"
    );
    let path = folder.join(format!("{name}.toml"));
    std::fs::write(&path, text).unwrap();
    path
}

/// Starts a run on a coordinator of many machines with this many workers.
fn start(config: &Path, out: &Path, workers: usize, more: &[&str]) -> (Child, Vec<Child>, String) {
    let mut command = strath();
    command.args(["coordinator", "--config", config.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    command.args(["--out", out.to_str().unwrap(), "--min-workers", &workers.to_string()]).args(more);
    let coordinator = command.spawn().unwrap();
    let address = Coordinator::address_in(out);
    let workers = (0..workers).map(|_| worker(&address, more)).collect();
    (coordinator, workers, address)
}

fn worker(address: &str, more: &[&str]) -> Child {
    strath().args(["worker", "--coordinator", address]).args(more).spawn().unwrap()
}

fn kill(mut process: Child) {
    process.kill().unwrap();
    process.wait().unwrap();
}

/// The run has ended in the bits of the undisturbed one, and whoever joined was fed: of no step between two generations has the
/// coordinator had the state, which it would have kept.
#[track_caller]
fn ends_as_undisturbed(config: &Path, out: &Path, coordinator: Child, workers: Vec<Child>) {
    let output = finish(coordinator, DEADLINE);
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    for worker in workers {
        let output = finish(worker, Duration::from_secs(20));
        assert!(output.status.success(), "{}", stderr(&output));
    }
    assert!(!said.contains("could not follow"), "{said}");
    let undisturbed = train(config, &out.with_extension("whole"), &["--workers", "1"]);
    assert_eq!(sha(&summary(out)), sha(&undisturbed), "{said}");
    let steps: Vec<u64> = metrics(out, "step").iter().map(|line| line["step"].as_u64().unwrap()).collect();
    let all = undisturbed["steps"].as_u64().unwrap();
    assert_eq!(steps, (1..=all).collect::<Vec<u64>>(), "each step is recorded once");
    let kept = std::fs::read_dir(out.join("checkpoints")).into_iter().flatten().flatten();
    let kept: Vec<_> = kept.map(|entry| entry.file_name()).collect();
    assert_eq!(kept, Vec::<std::ffi::OsString>::new(), "a state was handed over");
}

#[test]
fn whoever_joins_ends_in_the_bits_of_the_undisturbed_run_whatever_the_model_and_the_optimizer() {
    let folder = tempfile::tempdir().unwrap();
    // Steps enough that a newcomer's start, a tenth of a second on a machine at rest, falls within the run on a busy one.
    let sgd = "[optimizer]\nkind = \"sgd\"\nlr = 0.05\nmomentum = 0.9\n";
    let cases = [
        ("mlp", 8000, format!("[model]\nkind = \"mlp\"\nhidden = [64, 32]\n{sgd}nesterov = true\nclip_norm = 1.0\n")),
        ("convnet", 1600, format!("[model]\nkind = \"convnet\"\nwidths = [8, 8]\n{sgd}[schedule]\nkind = \"cosine\"\nwarmup_steps = 20\n")),
        ("resnet", 400, format!("[model]\nkind = \"resnet\"\ndepth = 8\n{sgd}weight_decay = 5e-4\n")),
        (
            "wide",
            250,
            "[model]\nkind = \"wide-resnet\"\ndepth = 10\nwiden = 1\n[optimizer]\nkind = \"adamw\"\nlr = 0.003\nweight_decay = 0.05\n[schedule]\n\
             kind = \"step\"\nmilestones = [90, 180]\ngamma = 0.1\n"
                .into(),
        ),
        (
            "vit",
            600,
            "[model]\nkind = \"vit\"\npatch = 4\ndim = 24\ndepth = 2\nheads = 3\n[optimizer]\nkind = \"adamw\"\nlr = 0.003\nweight_decay = 0.0\n".into(),
        ),
    ];
    for (name, steps, tables) in cases {
        let config = config(folder.path(), name, steps, &tables);
        let out = folder.path().join(format!("run-{name}"));
        let (coordinator, mut workers, address) = start(&config, &out, 1, &[]);
        reach(&out, 5);
        workers.push(worker(&address, &[]));
        generations(&out, 2);
        ends_as_undisturbed(&config, &out, coordinator, workers);
        assert_eq!(world_sizes(&out), [1, 2], "{name}");
        let cause = memberships(&out)[1]["cause"].as_str().unwrap().to_owned();
        assert!(cause.ends_with(" joined"), "{name}: {cause}");
    }
}

#[test]
fn two_that_join_at_once_and_within_tls_are_both_fed() {
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("certs").to_str().unwrap().to_owned();
    assert!(run(&["certs", &set]).status.success());
    let certs = ["--certs", &set];
    let tables =
        "[model]\nkind = \"convnet\"\nwidths = [8, 8]\n[optimizer]\nkind = \"sgd\"\nlr = 0.05\nmomentum = 0.9\n";
    let config = config(folder.path(), "two", 1000, tables);
    let out = folder.path().join("run");
    let (coordinator, mut workers, address) = start(&config, &out, 2, &certs);
    reach(&out, 5);
    workers.extend([worker(&address, &certs), worker(&address, &certs)]);
    generations(&out, 2);
    ends_as_undisturbed(&config, &out, coordinator, workers);
    assert_eq!(world_sizes(&out).last(), Some(&4));
}

#[test]
fn whoever_dies_at_whatever_moment_of_a_join_the_run_ends_in_the_same_bits() {
    let place = Place::of(800);
    // From a newcomer's start over its loading and its being fed to its first steps.
    for delay in [60, 130, 200] {
        for victim in 0..4 {
            let (coordinator, out, address) = place.coordinate(&format!("run-{delay}-{victim}"));
            let mut workers = vec![worker(&address, &[]), worker(&address, &[])];
            reach(&out, 20);
            workers.push(worker(&address, &[]));
            std::thread::sleep(Duration::from_millis(delay));
            let coordinator = if victim < workers.len() {
                kill(workers.remove(victim));
                coordinator
            } else {
                kill(coordinator);
                place.coordinator(&out, &address, &["--resume", "--min-workers", "1"])
            };
            let said = place.ends_in_the_same_bits(coordinator, &out);
            for worker in workers {
                let output = finish(worker, Duration::from_secs(20));
                assert!(output.status.success(), "{delay} ms, {victim}: {}\n{said}", stderr(&output));
            }
        }
    }
}
