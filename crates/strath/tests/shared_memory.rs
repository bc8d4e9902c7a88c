//! Workers of one machine that share memory, and workers that cannot.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use std::process::{Child, Command, Output, Stdio};

use support::{Coordinator, DEADLINE, finish, repository, sha, stderr, strath, summary, train};

const APART: &str = "no shared memory with this rank";

fn spawn(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env("RUST_LOG", "strath_collective=info").spawn().unwrap()
}

/// Two workers of which the second sees no processes but its own, as in a container beside the other; what the second and the
/// coordinator end with. `None`: said so, and to be skipped.
fn in_two_namespaces(transport: &str, out: &std::path::Path) -> Option<[Output; 2]> {
    let alone = ["--pid", "--fork", "--kill-child"];
    let can = Command::new("unshare").args(alone).arg("true").output().is_ok_and(|output| output.status.success());
    if !can {
        assert!(std::env::var_os("STRATH_REQUIRE_ALL").is_none(), "a process namespace could not be made");
        eprintln!("skipped: a process namespace could not be made (needs root and util-linux)");
        return None;
    }
    let set = format!("cluster.transport={transport}");
    let more = ["--min-workers", "2", "--set", "run.epochs=2", "--set", &set];
    let Coordinator { child: coordinator, address } = Coordinator::start(out, &more);
    let join = ["worker", "--coordinator", &address];
    let mut first = strath();
    first.args(join);
    let mut second = Command::new("unshare");
    second.args(alone).arg(strath().get_program()).args(join);
    let (first, second) = (spawn(first), spawn(second));
    let ended = finish(coordinator, DEADLINE);
    finish(first, DEADLINE);
    Some([finish(second, DEADLINE), ended])
}

#[test]
fn whatever_carries_the_sums_the_weights_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let config = repository().join("configs/digits.toml");
    let trained = ["auto", "tcp", "shm"].map(|transport| {
        let set = format!("cluster.transport={transport}");
        let sets = ["--workers", "3", "--set", "run.epochs=2", "--set", &set];
        sha(&train(&config, &folder.path().join(transport), &sets))
    });
    assert_eq!([&trained[0], &trained[0]], [&trained[1], &trained[2]]);
}

#[test]
fn workers_that_do_not_see_each_other_go_on_over_tcp_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let Some([worker, coordinator]) = in_two_namespaces("auto", &out) else { return };
    assert!(coordinator.status.success(), "{}", stderr(&coordinator));
    assert!(stderr(&worker).contains(APART), "{}", stderr(&worker));
    let config = repository().join("configs/digits.toml");
    let beside = train(&config, &folder.path().join("beside"), &["--set", "run.epochs=2"]);
    assert_eq!(sha(&summary(&out)), sha(&beside));
}

#[test]
fn where_shared_memory_is_insisted_on_workers_that_cannot_have_it_end_the_run_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let Some([_, coordinator]) = in_two_namespaces("shm", &folder.path().join("run")) else { return };
    let said = stderr(&coordinator);
    assert_eq!(coordinator.status.code(), Some(1), "{said}");
    for part in ["rank 0 and rank 1 are on one host and cannot share memory", "cluster.transport = \"auto\""] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
}
