//! A run whose control plane shows certificates.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use std::net::TcpListener;
use std::path::Path;
use std::process::Child;

use support::{DEADLINE, finish, reach, repository, run, sha, stderr, strath, summary, train};

fn spawn(arguments: &[&str]) -> Child {
    strath().args(arguments).spawn().unwrap()
}

fn free() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn certs(folder: &Path) -> String {
    let folder = folder.to_str().unwrap().to_owned();
    let made = run(&["certs", &folder]);
    assert!(made.status.success(), "{}", stderr(&made));
    let said = String::from_utf8(made.stdout).unwrap();
    assert!(
        said.contains("coordinator.pem") && said.contains("worker.key") && said.contains("valid until 20"),
        "{said}"
    );
    folder
}

#[test]
fn workers_with_certificates_train_to_the_same_weights_and_one_without_is_not_heard() {
    let folder = tempfile::tempdir().unwrap();
    let (set, out, free) = (certs(&folder.path().join("certs")), folder.path().join("run"), free());
    let config = repository().join("configs/digits.toml");
    let paths = ["--config", config.to_str().unwrap(), "--out", out.to_str().unwrap()];
    let settings = ["--certs", &set, "--listen", &free, "--min-workers", "2", "--set", "run.epochs=200"];
    let coordinator = spawn(&[&["coordinator"], &paths[..], &settings].concat());
    let join = ["worker", "--coordinator", &free];
    let workers = [0, 1].map(|_| spawn(&[&join[..], &["--certs", &set]].concat()));
    reach(&out, 5);
    let stranger = run(&[&join[..], &["--connect-timeout", "1"]].concat());
    assert_eq!(stranger.status.code(), Some(1));
    assert!(stderr(&stranger).contains(&format!("no coordinator at {free}")), "{}", stderr(&stranger));
    let status = run(&["status", "--coordinator", &free, "--certs", &set, "--json"]);
    assert!(status.status.success(), "{}", stderr(&status));
    let blind = run(&["status", "--coordinator", &free]);
    assert_eq!(blind.status.code(), Some(1));
    let ended = finish(coordinator, DEADLINE);
    assert!(ended.status.success(), "{}", stderr(&ended));
    for worker in workers {
        assert!(finish(worker, DEADLINE).status.success());
    }
    let in_clear = train(&config, &folder.path().join("clear"), &["--set", "run.epochs=200"]);
    assert_eq!(sha(&summary(&out)), sha(&in_clear));
}

#[test]
fn a_worker_of_another_authority_ends_at_once_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (certs(&folder.path().join("ours")), certs(&folder.path().join("theirs")));
    let (config, free) = (repository().join("configs/digits.toml"), free());
    let out = folder.path().join("run");
    let mut coordinator = spawn(&[
        "coordinator",
        "--config",
        config.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
        "--listen",
        &free,
        "--certs",
        &ours,
    ]);
    let since = std::time::Instant::now();
    let worker = run(&["worker", "--coordinator", &free, "--certs", &theirs]);
    assert!(since.elapsed() < std::time::Duration::from_secs(15), "{:?}", since.elapsed());
    assert_eq!(worker.status.code(), Some(1));
    assert!(stderr(&worker).contains("not one of a coordinator of this authority"), "{}", stderr(&worker));
    coordinator.kill().unwrap();
    coordinator.wait().unwrap();
}

#[test]
fn beyond_loopback_a_coordinator_asks_for_certificates_and_names_a_set_that_it_cannot_read() {
    let folder = tempfile::tempdir().unwrap();
    let config = repository().join("configs/digits.toml");
    let base = ["coordinator", "--config", config.to_str().unwrap(), "--listen", "0.0.0.0:0"];
    let refused = run(&base);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("strath certs DIR"), "{}", stderr(&refused));
    let nowhere = folder.path().join("none").to_str().unwrap().to_owned();
    let refused = run(&[&base[..], &["--certs", &nowhere]].concat());
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("none/ca.pem"), "{}", stderr(&refused));
    let set = certs(&folder.path().join("certs"));
    let kept = run(&["certs", &set, "--keep"]);
    assert!(kept.status.success() && stderr(&kept).contains("kept"), "{}", stderr(&kept));
    let twice = run(&["certs", &set]);
    assert_eq!(twice.status.code(), Some(1));
    assert!(stderr(&twice).contains("is there already"), "{}", stderr(&twice));
}
