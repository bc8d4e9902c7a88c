//! A run whose control plane shows certificates.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use std::path::Path;
use std::process::Child;

use support::{Coordinator, DEADLINE, finish, reach, repository, run, sha, stderr, strath, summary, train};

fn spawn(arguments: &[&str]) -> Child {
    strath().args(arguments).spawn().unwrap()
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
    let (set, out) = (certs(&folder.path().join("certs")), folder.path().join("run"));
    let more = ["--certs", &set, "--min-workers", "2", "--set", "run.epochs=200"];
    let Coordinator { child: coordinator, address } = Coordinator::start(&out, &more);
    let join = ["worker", "--coordinator", &address];
    let workers = [0, 1].map(|_| spawn(&[&join[..], &["--certs", &set]].concat()));
    reach(&out, 5);
    let stranger = run(&[&join[..], &["--connect-timeout", "1"]].concat());
    assert_eq!(stranger.status.code(), Some(1));
    assert!(stderr(&stranger).contains(&format!("no coordinator at {address}")), "{}", stderr(&stranger));
    let status = run(&["status", "--coordinator", &address, "--certs", &set, "--json"]);
    assert!(status.status.success(), "{}", stderr(&status));
    let blind = run(&["status", "--coordinator", &address]);
    assert_eq!(blind.status.code(), Some(1));
    // To have a worker leave takes a certificate of this authority.
    let theirs = certs(&folder.path().join("theirs"));
    for more in [&[][..], &["--certs", &theirs]] {
        let refused = run(&[&["drain", "0", "--coordinator", &address], more].concat());
        assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
        assert!(stderr(&refused).contains("did not answer"), "{}", stderr(&refused));
    }
    let asked = run(&["drain", "9", "--coordinator", &address, "--certs", &set]);
    assert!(stderr(&asked).contains("no worker 9 takes part"), "{}", stderr(&asked));
    let ended = finish(coordinator, DEADLINE);
    assert!(ended.status.success(), "{}", stderr(&ended));
    for worker in workers {
        assert!(finish(worker, DEADLINE).status.success());
    }
    let config = repository().join("configs/digits.toml");
    let in_clear = train(&config, &folder.path().join("clear"), &["--set", "run.epochs=200"]);
    assert_eq!(sha(&summary(&out)), sha(&in_clear));
}

#[test]
fn a_worker_of_another_authority_ends_at_once_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (certs(&folder.path().join("ours")), certs(&folder.path().join("theirs")));
    let mut coordinator = Coordinator::start(&folder.path().join("run"), &["--certs", &ours]);
    let since = std::time::Instant::now();
    let worker = run(&["worker", "--coordinator", &coordinator.address, "--certs", &theirs]);
    assert!(since.elapsed() < std::time::Duration::from_secs(15), "{:?}", since.elapsed());
    assert_eq!(worker.status.code(), Some(1));
    assert!(stderr(&worker).contains("not one of a coordinator of this authority"), "{}", stderr(&worker));
    coordinator.end();
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
