//! A run whose control plane shows certificates.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use std::path::Path;
use std::process::Child;

use support::between::{Between, Heard};
use support::{Coordinator, DEADLINE, finish, reach, repository, run, sha, stderr, strath, summary, train, vacant};

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

/// A run of two workers over TCP, the ring of one of which is listened in on: what went over it, and the weights.
fn overheard(folder: &Path, certs: &[&str]) -> (Vec<Heard>, String) {
    let out = folder.join(if certs.is_empty() { "clear" } else { "encrypted" });
    let sets = ["--min-workers", "2", "--set", "run.steps=30", "--set", "cluster.transport=tcp"];
    let Coordinator { child: coordinator, address } = Coordinator::start(&out, &[&sets[..], certs].concat());
    let ring = vacant();
    let between = Between::new(ring);
    let (listen, advertise) = (ring.to_string(), between.address.to_string());
    let join = [&["worker", "--coordinator", &address], certs].concat();
    let workers = [&["--listen", &listen, "--advertise", &advertise][..], &[]].map(|how| spawn(&[&join, how].concat()));
    // The workers first: one that could not take part says why, and the coordinator would wait for another.
    for process in workers.into_iter().chain([coordinator]) {
        let ended = finish(process, DEADLINE);
        assert!(ended.status.success(), "{}", stderr(&ended));
    }
    (between.heard(), sha(&summary(&out)))
}

/// Bytes of the handshake in clear, from whoever dialled (hello and proof) and back (the answer to a hello).
const IN_CLEAR: [usize; 2] = [132, 100];

/// The types of the records of TLS that bytes are, to their end.
fn records(mut bytes: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let Some(([kind, 3, 1 | 3, high, low], rest)) = bytes.split_first_chunk() {
        kinds.push(*kind);
        bytes = rest.get(usize::from(u16::from_be_bytes([*high, *low]))..).unwrap_or_default();
    }
    assert!(bytes.is_empty(), "{} bytes are no record", bytes.len());
    kinds
}

#[test]
fn who_listens_in_on_a_ring_hears_frames_where_there_are_no_certificates_and_records_of_tls_where_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let set = certs(&folder.path().join("certs"));
    // How each frame begins, with its version.
    let frame = b"STRS\x05\0";
    let frames = |heard: &[Heard]| -> usize {
        let all = heard.iter().flatten();
        all.map(|bytes| bytes.windows(frame.len()).filter(|window| window == frame).count()).sum()
    };
    let (in_clear, weights) = overheard(folder.path(), &[]);
    // A gradient a step, at least.
    assert!(frames(&in_clear) >= 30, "{} frames", frames(&in_clear));
    let (encrypted, same_weights) = overheard(folder.path(), &["--certs", &set]);
    assert_eq!(weights, same_weights);
    assert_eq!(frames(&encrypted), 0);
    // How much goes over a ring is not the same twice: what ranks send to measure their links depends on how quick these are.
    let mut application = 0;
    for way in [0, 1] {
        for heard in encrypted.iter().filter(|heard| heard[way].len() > IN_CLEAR[way]) {
            assert_eq!(&heard[way][..4], b"STRL", "the proof that both know the ticket comes first");
            let kinds = records(&heard[way][IN_CLEAR[way]..]);
            assert!(kinds[0] == 22 && kinds.iter().all(|kind| [20, 22, 23].contains(kind)), "{kinds:?}");
            application += kinds.iter().map(|kind| usize::from(*kind == 23)).sum::<usize>();
        }
    }
    // A gradient a step, at least.
    assert!(application >= 30, "{application} records of words");
}
