//! A run that loses workers, or gets others, while it trains: it goes on, and ends in the bits of the undisturbed run.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use std::time::{Duration, Instant};

use serde_json::Value;
use support::place::{Place, generations, world_sizes};
use support::{finish, gone, memberships, reach, signal, stderr, strath, workers_of};

#[test]
fn workers_that_are_killed_one_after_the_other_leave_the_rest_to_end_in_the_same_bits() {
    let place = Place::new();
    for (round, order) in [[0, 1, 2], [3, 0, 1], [2, 3, 0]].iter().enumerate() {
        let (child, out) = place.start(&format!("run-{round}"), "4");
        let workers = {
            reach(&out, 1);
            workers_of(child.id())
        };
        for (at, victim) in (1..).zip(order) {
            reach(&out, 60 * at + round);
            signal(workers[*victim], "-KILL");
        }
        let said = place.ends_in_the_same_bits(child, &out);
        assert_eq!(world_sizes(&out), [4, 3, 2, 1], "{said}");
        let warnings = said.lines().filter(|line| line.starts_with("warning:") && line.contains("goes on without it"));
        assert_eq!(warnings.count(), 3, "{said}");
        let causes: Vec<Value> = memberships(&out).into_iter().map(|line| line["cause"].clone()).collect();
        assert!(causes[1].as_str().unwrap().contains("worker "), "{causes:?}");
    }
}

#[test]
fn a_worker_that_hangs_is_done_without_after_its_lease_and_comes_back_when_it_wakes() {
    let place = Place::new();
    let (child, out) = place.start("run", "3");
    reach(&out, 30);
    let workers = workers_of(child.id());
    signal(workers[0], "-STOP");
    let hung = Instant::now();
    generations(&out, 2);
    assert!(hung.elapsed() < Duration::from_secs(5), "{:?}", hung.elapsed());
    signal(workers[0], "-CONT");
    generations(&out, 3);
    place.ends_in_the_same_bits(child, &out);
    assert_eq!(world_sizes(&out), [3, 2, 3]);
    gone(&workers, Duration::from_secs(5));
}

#[test]
fn a_worker_that_is_asked_to_leave_ends_in_order_and_the_others_go_on() {
    let place = Place::new();
    let (child, out) = place.start("run", "3");
    reach(&out, 30);
    let workers = workers_of(child.id());
    signal(workers[1], "-TERM");
    gone(&workers[1..2], Duration::from_secs(5));
    place.ends_in_the_same_bits(child, &out);
    assert_eq!(world_sizes(&out), [3, 2]);
    let causes = memberships(&out);
    assert!(causes[1]["cause"].as_str().unwrap().contains("leaves at step "), "{causes:?}");
}

#[test]
fn workers_come_and_go_while_a_coordinator_of_many_machines_trains() {
    let place = Place::new();
    let (coordinator, out, address) = place.coordinate("run");
    let join = || strath().args(["worker", "--coordinator", &address]).spawn().unwrap();
    let first = join();
    reach(&out, 20);
    let second = join();
    generations(&out, 2);
    reach(&out, 100);
    // The first hands over to the second, and ends in order; then nobody is left, and the run waits for a third.
    signal(first.id(), "-TERM");
    let left = finish(first, Duration::from_secs(10));
    assert_eq!(left.status.code(), Some(0), "{}", stderr(&left));
    reach(&out, 140);
    signal(second.id(), "-TERM");
    let left = finish(second, Duration::from_secs(10));
    assert_eq!(left.status.code(), Some(0), "{}", stderr(&left));
    let third = join();
    place.ends_in_the_same_bits(coordinator, &out);
    assert_eq!(finish(third, Duration::from_secs(10)).status.code(), Some(0));
    assert_eq!(world_sizes(&out), [1, 2, 1, 1]);
}
