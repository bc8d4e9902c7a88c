//! The coordinator dies, or stands still: its workers go on, and one that is started again takes them over.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use support::place::{Place, generations, world_sizes};
use support::{finish, memberships, reach, signal, stderr, strath, vacant};

/// A coordinator at an address of its own, and its workers.
struct Cluster<'p> {
    place: &'p Place,
    out: PathBuf,
    address: String,
    coordinator: Child,
    workers: Vec<Child>,
}

impl<'p> Cluster<'p> {
    fn start(place: &'p Place, workers: usize) -> Self {
        let out = place.folder.path().join("run");
        let address = vacant().to_string();
        let coordinator = place.coordinator(&out, &address, &["--min-workers", &workers.to_string()]);
        let worker = || {
            let mut command = strath();
            command.args(["worker", "--coordinator", &address]).stdout(Stdio::null());
            command.spawn().unwrap()
        };
        let workers = (0..workers).map(|_| worker()).collect();
        Self { place, out, address, coordinator, workers }
    }

    fn kill(&mut self) {
        self.coordinator.kill().unwrap();
        self.coordinator.wait().unwrap();
    }

    /// Starts it again; gives the Unix seconds of that moment.
    fn start_again(&mut self) -> f64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        self.coordinator = self.place.coordinator(&self.out, &self.address, &["--resume", "--min-workers", "1"]);
        now
    }

    /// The run is complete, in the bits of the undisturbed one, and all living workers end in order.
    fn ends(self) -> Vec<serde_json::Value> {
        self.place.ends_in_the_same_bits(self.coordinator, &self.out);
        for worker in self.workers {
            let output = finish(worker, Duration::from_secs(10));
            assert!(output.status.success(), "{}", stderr(&output));
        }
        memberships(&self.out)
    }
}

#[test]
fn workers_go_on_without_it_and_one_that_is_started_again_takes_over_within_a_second() {
    // More than they take in three times 300 ms.
    let place = Place::of(2500);
    let mut cluster = Cluster::start(&place, 3);
    let mut begun = Vec::new();
    for round in 1..=3 {
        reach(&cluster.out, 70 * round);
        cluster.kill();
        std::thread::sleep(Duration::from_millis(300));
        begun.push(cluster.start_again());
        generations(&cluster.out, 1 + round);
    }
    let lines = cluster.ends();
    assert!(lines.iter().all(|line| line["generation"] == 1 && line["world_size"] == 3), "{lines:?}");
    for (line, begun) in lines[1..].iter().zip(begun) {
        assert!(line["cause"].as_str().unwrap().contains("every worker had gone on"), "{line}");
        let took = line["time"].as_f64().unwrap() - begun;
        assert!(took < 1.0, "it took over after {took:.2} s");
    }
}

#[test]
fn a_run_that_ends_without_it_is_kept_until_it_is_back() {
    let place = Place::new();
    let mut cluster = Cluster::start(&place, 2);
    reach(&cluster.out, 330);
    cluster.kill();
    // Longer than the rest of the run takes.
    std::thread::sleep(Duration::from_secs(3));
    cluster.start_again();
    cluster.ends();
}

#[test]
fn a_worker_that_dies_meanwhile_is_done_without_and_its_state_is_not_needed() {
    let place = Place::new();
    let mut cluster = Cluster::start(&place, 3);
    reach(&cluster.out, 100);
    cluster.kill();
    let mut victim = cluster.workers.remove(1);
    victim.kill().unwrap();
    victim.wait().unwrap();
    cluster.start_again();
    let lines = cluster.ends();
    assert_eq!(lines.last().unwrap()["world_size"], 2, "{lines:?}");
    let cause = lines[1]["cause"].as_str().unwrap();
    assert!(cause.contains("started again") && lines[1]["step"].as_u64().unwrap() >= 99, "{lines:?}");
}

#[test]
fn one_that_stands_still_finds_its_workers_further_than_it_left_them() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 2);
    reach(&cluster.out, 60);
    signal(cluster.coordinator.id(), "-STOP");
    // Beyond the lease and the second that workers wait in addition.
    std::thread::sleep(Duration::from_millis(2500));
    signal(cluster.coordinator.id(), "-CONT");
    let out = cluster.out.clone();
    cluster.ends();
    assert!(world_sizes(&out).iter().all(|size| *size <= 2));
}
