//! A study ends in the same table however it was interrupted and however many workers its runs had; what is wrong with it is said before anything runs.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use support::{stderr, strath};

const STUDY: &str = "[study]\nname = \"s\"\nquestion = \"q\"\nseeds = 2\n[[study.measure]]\nwhat = \"sharpness\"\nm = [8]\nrho = 0.1\n\
    [base]\nrun.epochs = 4\ndata.kind = \"digits\"\ndata.validation = 0.1\ndata.label_noise = 0.1\nmodel.kind = \"mlp\"\nmodel.hidden = [16]\nbatch.size = 32\noptimizer.lr = 0.1\n\
    checkpoint.every_steps = 40\ncluster.threads = 1\n\
    [[grid]]\nsam.m = [32, 8]\nlet.radius = [0, 0.1]\n[grid.derived]\nsam.rho = \"let.radius * sqrt(sam.m / 32)\"\n";

fn file(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("study.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn study(file: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = strath();
    command.arg("study").arg(file).arg("--out").arg(out).args(more);
    command
}

/// The results without the seconds that they took.
fn table(out: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(out.join("results.csv")).unwrap();
    let rows: Vec<Vec<String>> = text.lines().map(|line| line.split(',').map(String::from).collect()).collect();
    let seconds = rows[0].iter().position(|name| name == "seconds").unwrap();
    rows.into_iter()
        .map(|mut row| {
            row.remove(seconds);
            row
        })
        .collect()
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", stderr(output));
}

#[test]
fn a_study_that_is_stopped_and_killed_ends_in_the_table_of_an_undisturbed_one_whatever_the_workers() {
    let folder = tempfile::tempdir().unwrap();
    let file = file(folder.path(), STUDY);
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    succeeded(&study(&file, &whole, &[]).output().unwrap());
    let want = table(&whole);
    // rho 0 is one arm for each m: it is not excluded here.
    assert_eq!(want.len(), 1 + 2 * 4);
    assert!(want[0].contains(&"sharpness_m8_rho0.1".to_string()), "{:?}", want[0]);
    let arms: Vec<&str> = want[1..].iter().map(|row| row[1].as_str()).collect();
    assert_eq!(arms, ["0", "0", "0.1", "0.05"].repeat(2), "sam.rho is derived");

    assert!(std::fs::read(whole.join("results.parquet")).unwrap().ends_with(b"PAR1"));
    let column = |name: &str| want[0].iter().position(|column| column == name).unwrap();
    for row in &want[1..] {
        // A share of the wrong labels that are trained on: 144 without those split off for validation. Four epochs learn few of them.
        let memorised: f64 = row[column("memorised")].parse().unwrap();
        let left = |noisy: f64| (memorised * noisy - (memorised * noisy).round()).abs() < 1e-9;
        assert!((0.0..0.5).contains(&memorised) && (100..=144).any(|noisy| left(f64::from(noisy))), "{memorised}");
    }

    // Once by a signal, once without a chance to say a word; each after some run has begun.
    for (signal, resume) in [("-TERM", false), ("-KILL", true)] {
        let more: &[&str] = if resume { &["--resume"] } else { &[] };
        let mut child = study(&file, &broken, more).spawn().unwrap();
        let begun = Instant::now();
        let runs = |out: &Path| std::fs::read_dir(out.join("runs")).map_or(0, Iterator::count);
        let before = runs(&broken);
        while runs(&broken) <= before && begun.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(60));
        Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        let status = child.wait().unwrap();
        assert!(!status.success(), "it was stopped");
    }
    // What is measured beside it later is measured of the runs that are there.
    let more = STUDY.replace("m = [8]", "m = [8, 16]");
    let also = folder.path().join("also.toml");
    std::fs::write(&also, more).unwrap();
    let again = study(&file, &broken, &[]).output().unwrap();
    assert_eq!(again.status.code(), Some(2));
    assert!(stderr(&again).contains("holds a study already"), "{}", stderr(&again));
    succeeded(&study(&file, &broken, &["--resume", "--workers", "3", "--jobs", "1"]).output().unwrap());
    assert_eq!(table(&broken), want);
    // The report is of the table alone, and of what the runs recorded.
    let shown = |out: &Path| {
        let json: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(out.join("report.json")).unwrap()).unwrap();
        let mut json = json;
        json["facts"].as_object_mut().unwrap().remove("training time of all runs").unwrap();
        json
    };
    assert_eq!(shown(&broken), shown(&whole));
    assert!(shown(&whole).to_string().contains("training-loss-1"));
    let page = std::fs::read_to_string(whole.join("report.html")).unwrap();
    assert!(page.contains("data:image/svg+xml") && !page.contains("http"));
    // A study that is finished is left as it is.
    let modified = |out: &Path| {
        std::fs::metadata(
            out.join("runs").read_dir().unwrap().next().unwrap().unwrap().path().join("final.safetensors"),
        )
        .unwrap()
        .modified()
        .unwrap()
    };
    let before = modified(&broken);
    succeeded(&study(&file, &broken, &["--resume"]).output().unwrap());
    assert_eq!((modified(&broken), table(&broken)), (before, want));
    succeeded(&study(&also, &broken, &["--resume"]).output().unwrap());
    assert_eq!(modified(&broken), before, "nothing is trained anew");
    let measured = table(&broken);
    let column = measured[0].iter().position(|name| name == "sharpness_m16_rho0.1").unwrap();
    assert!(measured[1..].iter().all(|row| !row[column].is_empty()), "{measured:?}");
}

#[test]
fn a_run_that_fails_is_tried_again_and_reported_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    // A learning rate at which the loss is soon no number.
    let text =
        STUDY.replace("sam.m = [32, 8]", "sam.m = 32\noptimizer.lr = [0.1, 1e30]").replace("seeds = 2", "seeds = 1");
    let (file, out) = (file(folder.path(), &text), folder.path().join("out"));
    let output = study(&file, &out, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("is tried once more") && said.contains("2 of 4 runs failed twice"), "{said}");
    assert_eq!(table(&out).len(), 1 + 2);
}

#[test]
fn what_is_wrong_is_said_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    for (from, to, says) in [
        ("sam.m = [32, 8]", "sam.m = [32, 7]", "the run with"),
        ("let.radius *", "let.radios *", "let.radios is not set"),
        ("run.epochs = 4", "run.epoch = 4", "run.epochs"),
        ("seeds = 2", "seeds = -1", "study.seeds is -1"),
    ] {
        let file = file(folder.path(), &STUDY.replace(from, to));
        let output = study(&file, &out, &[]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{to}");
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
        assert!(!out.exists(), "nothing is made");
    }
    let file = file(folder.path(), STUDY);
    let output = study(&file, &out, &["--dry-run"]).output().unwrap();
    succeeded(&output);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        printed.contains("run.seed=1 let.radius=0.1 sam.m=8 sam.rho=0.05") && printed.contains("8 runs"),
        "{printed}"
    );
    assert!(!out.exists());
    let quiet = study(&file, &out, &["--set", "study.seeds=1", "--set", "run.epochs=1", "--dry-run"]).output().unwrap();
    assert!(String::from_utf8_lossy(&quiet.stdout).contains("4 runs"));
}

#[test]
fn a_study_whose_data_are_not_there_can_be_looked_at_and_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let text = STUDY.replace("data.kind = \"digits\"", "data.kind = \"cifar10\"\ndata.path = \"nowhere\"");
    let file = file(folder.path(), &text);
    let listed = study(&file, &out, &["--dry-run"]).output().unwrap();
    succeeded(&listed);
    let printed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert_eq!(printed.lines().filter(|line| line.starts_with("       ? s  run.seed=")).count(), 8, "{printed}");
    assert!(printed.contains("8 runs, ? of computing"), "{printed}");
    assert_eq!(stderr(&listed).matches("data.path").count(), 1, "{}", stderr(&listed));
    let refused = study(&file, &out, &[]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("data.path") && !out.exists(), "{}", stderr(&refused));
}

#[test]
fn a_study_by_the_workers_of_a_cluster_ends_in_the_same_table() {
    let folder = tempfile::tempdir().unwrap();
    let file =
        file(folder.path(), &STUDY.replace("seeds = 2", "seeds = 1").replace("run.epochs = 4", "run.epochs = 2"));
    let (here, there) = (folder.path().join("here"), folder.path().join("there"));
    succeeded(&study(&file, &here, &[]).output().unwrap());
    let address = support::vacant().to_string();
    let worker = || {
        let mut command = strath();
        command.args(["worker", "--coordinator", &address, "--again", "--connect-timeout", "20"]);
        command.stderr(std::process::Stdio::null()).spawn().unwrap()
    };
    let mut workers = [worker(), worker()];
    let output = study(&file, &there, &["--listen", &address, "--workers", "2"]).output().unwrap();
    succeeded(&output);
    assert_eq!(table(&there), table(&here));
    for worker in &mut workers {
        // They would wait for a further run.
        assert!(worker.try_wait().unwrap().is_none(), "a worker goes on to the next run");
        Command::new("kill").arg(worker.id().to_string()).status().unwrap();
        worker.wait().unwrap();
    }
    let run = std::fs::read_dir(there.join("runs")).unwrap().next().unwrap().unwrap().path();
    let summary: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(run.join("summary.json")).unwrap()).unwrap();
    assert!(summary["world_sizes"].to_string().contains('2'), "{summary}");
    for (more, says) in [
        (&["--listen", "0.0.0.0:7700"][..], "not loopback"),
        (&["--listen", "127.0.0.1:0"], "port 0"),
        (&["--listen", "127.0.0.1:7700", "--jobs", "2"], "--jobs"),
    ] {
        let output = study(&file, &folder.path().join("none"), more).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
    }
}

#[test]
fn a_worker_of_several_runs_leaves_when_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let (out, address) = (folder.path().join("run"), support::vacant().to_string());
    let config = support::digits_in_shared_lanes(folder.path(), 200_000, "gather_ms = 300\n");
    let mut coordinator = strath();
    coordinator
        .args(["coordinator", "--listen", &address, "--min-workers", "2", "--config"])
        .arg(config)
        .arg("--out")
        .arg(&out);
    let mut coordinator =
        coordinator.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let worker = |more: &[&str]| {
        let mut command = strath();
        command.args(["worker", "--coordinator", &address]).args(more).stdout(std::process::Stdio::null());
        command.stderr(std::process::Stdio::null()).spawn().unwrap()
    };
    let (other, again) = (worker(&[]), worker(&["--again"]));
    support::reach(&out, 5);
    support::signal(again.id(), "-TERM");
    let ended = support::finish(again, Duration::from_secs(30));
    assert!(ended.status.success(), "{:?}", ended.status);
    support::signal(coordinator.id(), "-KILL");
    support::signal(other.id(), "-KILL");
    coordinator.wait().unwrap();
    support::finish(other, Duration::from_secs(5));
}

#[test]
fn radii_are_matched_by_the_lift_of_the_first_batch_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let grid = "[[grid]]\nsam.m = [32, 8]\nsam.norm = [2, \"inf\"]\nsam.rho = 0.1\nmatch = \"lift\"\nreference = { sam.m = 32, sam.norm = 2 }\n";
    let text = format!("{}{grid}", STUDY.split("[[grid]]").next().unwrap());
    let file = file(folder.path(), &text);
    let output = study(&file, &folder.path().join("out"), &["--dry-run"]).output().unwrap();
    succeeded(&output);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let radius = |seed: u64, m: u64, norm: &str| -> f64 {
        let mut lines = printed.lines().filter(|line| line.contains(&format!("run.seed={seed} ")));
        let line = lines.find(|line| line.contains(&format!("sam.m={m} sam.norm={norm} "))).unwrap();
        line.rsplit("for its lift sam.rho=").next().unwrap().parse().unwrap()
    };
    for seed in [0, 1] {
        assert!((radius(seed, 32, "2") - 0.1).abs() < 1e-6, "the reference itself: {printed}");
        let small = radius(seed, 8, "2");
        assert!(small > 0.03 && small < 0.1, "a lane's gradient is longer than the batch's: {printed}");
        assert!(radius(seed, 32, "inf") < 0.1 * 0.1, "||g||_1 is many times ||g||_2: {printed}");
    }
    assert!(radius(0, 8, "2") != radius(1, 8, "2"), "each seed has its own weights and batch");
    for (from, says) in [
        ("match = \"lift\"\n", "grid.match is missing"),
        ("reference = { sam.m = 32, sam.norm = 2 }\n", "grid.reference is missing"),
    ] {
        let file = self::file(folder.path(), &text.replace(from, ""));
        let output = study(&file, &folder.path().join("out"), &["--dry-run"]).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
    }
}

#[test]
fn a_report_is_of_a_study_or_of_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let trained =
        strath().args(["train", "--set", "run.epochs=2", "--workers", "1", "--out"]).arg(&run).output().unwrap();
    succeeded(&trained);
    assert!(String::from_utf8_lossy(&trained.stdout).contains("report.html"));
    let page = std::fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.contains("of 360 examples") && page.contains("data:image/svg+xml"));
    // A run that was killed has no summary.
    std::fs::remove_file(run.join("summary.json")).unwrap();
    succeeded(&strath().arg("report").arg(&run).output().unwrap());
    assert!(std::fs::read_to_string(run.join("report.html")).unwrap().contains("The run has not ended"));
    let nothing = strath().arg("report").arg(folder.path()).output().unwrap();
    assert_eq!(nothing.status.code(), Some(2));
    assert!(stderr(&nothing).contains("neither a study nor a run"), "{}", stderr(&nothing));
}

#[test]
fn every_study_that_ships_can_be_run() {
    let studies = support::repository().join("configs/studies");
    let mut seen = 0;
    for file in std::fs::read_dir(studies).unwrap() {
        let file = file.unwrap().path();
        for (more, most) in [(&[][..], 1000), (&["--set", "study.quick=true"][..], 10)] {
            let output = study(&file, Path::new("nowhere"), &[&["--dry-run"], more].concat()).output().unwrap();
            succeeded(&output);
            let runs =
                String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.contains("run.seed=")).count();
            assert!((2..=most).contains(&runs), "{}: {runs} runs", file.display());
        }
        seen += 1;
    }
    assert!(seen >= 11);
}
