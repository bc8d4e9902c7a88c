//! `strath drain`: a worker leaves a run that goes on, and ends in the bits of the undisturbed one.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use support::place::{Place, generations, world_sizes};
use support::{Coordinator, finish, gone, memberships, reach, run, stderr, strath, workers_of};

fn drain(worker: &str, out: &Path, more: &[&str]) -> Output {
    run(&[&["drain", worker, "--run", out.to_str().unwrap()], more].concat())
}

#[track_caller]
fn refused(output: &Output, parts: &[&str]) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(parts.iter().all(|part| said.contains(part)) && said.lines().count() == 1, "{said}");
}

#[test]
fn a_worker_that_is_drained_ends_in_order_and_the_others_go_on_to_the_same_bits() {
    let place = Place::new();
    let (child, out) = place.start("run", "3");
    reach(&out, 30);
    let workers = workers_of(child.id());
    refused(&drain("9", &out, &[]), &["no worker 9 takes part; there are worker 0 (", "worker 2 ("]);
    let address = Coordinator::address_in(&out);
    // Whoever reaches the coordinator and cannot read the run's folder has no say.
    refused(&run(&["drain", "1", "--coordinator", &address]), &["worker 1 was not drained", "token"]);

    let drained = drain("1", &out, &[]);
    let said = String::from_utf8(drained.stdout.clone()).unwrap();
    assert!(drained.status.success(), "{}", stderr(&drained));
    assert!(said.starts_with("worker 1 has left; 2 workers go on from step ") && said.lines().count() == 1, "{said}");
    let again = drain("1", &out, &[]);
    assert!(again.status.success(), "asked again, it says so again: {}", stderr(&again));
    let status = run(&["status", "--coordinator", &address, "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let left: Vec<u64> = status["workers"].as_array().unwrap().iter().map(|w| w["worker"].as_u64().unwrap()).collect();
    assert_eq!(left, [0, 2], "{status}");
    let decided = status["decisions"].as_array().unwrap().iter().map(|d| d["what"].as_str().unwrap());
    let decided: Vec<&str> = decided.collect();
    assert!(decided.contains(&"drains worker 1") && decided.contains(&"let worker 1 go"), "{decided:?}");
    let leaving: Vec<u32> = workers.iter().copied().filter(|pid| !workers_of(child.id()).contains(pid)).collect();
    gone(&leaving, Duration::from_secs(5));

    place.ends_in_the_same_bits(child, &out);
    assert_eq!(world_sizes(&out), [3, 2]);
    let lines = memberships(&out);
    let (first, second) = (&lines[0], &lines[1]);
    assert!(first["change_s"].is_null() && first["members"].as_array().unwrap().len() == 3, "{first}");
    assert!(second["cause"].as_str().unwrap().contains("was drained at step "), "{second}");
    let held: Vec<(u64, u64)> = second["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| (member["worker"].as_u64().unwrap(), member["micro_batches"].as_u64().unwrap()))
        .collect();
    assert_eq!(held, [(0, 3), (2, 3)], "{second}");
    assert!((0.0..5.0).contains(&second["change_s"].as_f64().unwrap()), "{second}");
    refused(&drain("0", &out, &[]), &["no run is under way in"]);
}

#[test]
fn the_last_worker_of_a_run_stays_unless_that_is_insisted_on() {
    let place = Place::new();
    let (coordinator, out, address) = place.coordinate("run");
    let join = || strath().args(["worker", "--coordinator", &address]).spawn().unwrap();
    refused(&drain("0", &out, &[]), &["not training yet"]);
    let first = join();
    reach(&out, 20);
    refused(&drain("0", &out, &[]), &["0 of the 1 workers", "--force"]);
    let forced = drain("0", &out, &["--force"]);
    let said = String::from_utf8(forced.stdout.clone()).unwrap();
    assert!(forced.status.success() && said.contains("the run is regrouping at step "), "{said}{}", stderr(&forced));
    let left = finish(first, Duration::from_secs(10));
    assert_eq!(left.status.code(), Some(0), "{}", stderr(&left));
    let second = join();
    generations(&out, 2);
    place.ends_in_the_same_bits(coordinator, &out);
    assert_eq!(finish(second, Duration::from_secs(10)).status.code(), Some(0));
}
