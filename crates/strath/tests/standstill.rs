//! A ring that stands still while every process and every connection of it is well.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use support::between::Between;
use support::{
    Coordinator, DEADLINE, finish, memberships, reach, repository, sha, stderr, strath, summary, train, vacant,
};

#[test]
fn ranks_that_wait_for_each_other_on_connections_that_swallow_everything_go_on_in_another_generation() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    // Of steps of a millisecond nobody waits longer for the others than some leases.
    let sets = ["--set", "run.epochs=100", "--set", "cluster.transport=tcp", "--set", "cluster.lease_ms=400"];
    let Coordinator { child: coordinator, address } =
        Coordinator::start(&out, &[&["--min-workers", "2"][..], &sets].concat());
    let ring = vacant();
    let between = Between::new(ring);
    let (listen, advertise) = (ring.to_string(), between.address.to_string());
    let worker = |how: &[&str]| strath().args(["worker", "--coordinator", &address]).args(how).spawn().unwrap();
    let workers = [worker(&["--listen", &listen, "--advertise", &advertise]), worker(&[])];
    reach(&out, 40);
    between.fall_silent();
    for process in workers.into_iter().chain([coordinator]) {
        let ended = finish(process, DEADLINE);
        assert!(ended.status.success(), "{}", stderr(&ended));
    }
    let told: Vec<String> = memberships(&out).iter().map(|line| line["cause"].to_string()).collect();
    assert!(told.iter().any(|cause| cause.contains("all ranks wait for each other at step")), "{told:?}");
    let undisturbed = train(&repository().join("configs/digits.toml"), &folder.path().join("undisturbed"), &sets);
    assert_eq!(sha(&summary(&out)), sha(&undisturbed));
}
