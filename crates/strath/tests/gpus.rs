//! Workers whose GPUs sum by themselves, with the processor in place of the GPUs: the bits of a run through the hosts, and what becomes of one whose ranks come apart.

#![cfg(feature = "emulator")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use std::path::Path;
use std::process::Child;
use std::time::Duration;

use support::place::world_sizes;
use support::{
    Coordinator, DEADLINE, finish, memberships, reach, repository, sha, signal, stderr, strath, summary, train,
};

/// A small network on digits, on GPUs.
fn sets(more: &[&'static str]) -> Vec<&'static str> {
    let all =
        ["model.kind=mlp", "model.hidden=[16]", "run.epochs=2", "batch.size=48", "sam.m=8", "cluster.device=cuda:0"];
    all.iter().chain(more).flat_map(|set| ["--set", *set]).collect()
}

/// The hash of an undisturbed run of one worker.
fn alone(folder: &Path) -> String {
    let config = repository().join("configs/digits.toml");
    sha(&train(&config, &folder.join("alone"), &[&["--workers", "1"][..], &sets(&[])].concat()))
}

/// A coordinator that insists on NCCL, and the workers.
fn three(out: &Path) -> (Coordinator, [Child; 3]) {
    let coordinator = Coordinator::start(
        out,
        &[&["--min-workers", "2"][..], &sets(&["cluster.transport=nccl", "checkpoint.every_steps=1000"])].concat(),
    );
    let worker = || {
        let mut worker = strath();
        worker.args(["worker", "--coordinator", &coordinator.address]).env("RUST_LOG", "strath_node=info");
        worker.spawn().unwrap()
    };
    let workers = [worker(), worker(), worker()];
    (coordinator, workers)
}

#[test]
fn a_gpu_that_leaves_in_order_makes_a_new_communicator_of_the_others_in_their_processes() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let (coordinator, workers) = three(&out);
    reach(&out, 10);
    signal(workers[2].id(), "-TERM");
    let ended = finish(coordinator.child, DEADLINE);
    assert!(ended.status.success(), "{}", stderr(&ended));
    for worker in workers {
        let ended = finish(worker, Duration::from_secs(20));
        assert!(ended.status.success(), "{}", stderr(&ended));
        assert!(!stderr(&ended).contains("through the hosts"), "{}", stderr(&ended));
    }
    assert_eq!(world_sizes(&out), [3, 2]);
    assert_eq!(sha(&summary(&out)), alone(folder.path()));
}

/// Their state is theirs: no checkpoint is there to begin from. They sum through their hosts from then on, as the log says.
#[test]
fn of_gpus_that_lose_one_the_others_go_on_through_their_hosts_and_train_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let (coordinator, mut workers) = three(&out);
    reach(&out, 10);
    workers[1].kill().unwrap();
    let ended = finish(coordinator.child, DEADLINE);
    assert!(ended.status.success(), "{}", stderr(&ended));
    for (at, worker) in workers.into_iter().enumerate() {
        let ended = finish(worker, Duration::from_secs(20));
        if at != 1 {
            let said = stderr(&ended);
            assert!(ended.status.success(), "{said}");
            assert_eq!(said.matches("GPUs sum by NCCL").count(), 1, "{said}");
        }
    }
    let lines = memberships(&out);
    assert_eq!(world_sizes(&out), [3, 2]);
    assert!(lines[1]["step"].as_u64().unwrap() >= 9, "steps were lost: {lines:?}");
    assert_eq!(sha(&summary(&out)), alone(folder.path()));
}
