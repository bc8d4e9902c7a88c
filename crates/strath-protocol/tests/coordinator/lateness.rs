//! Whom the others wait for, and why.

use std::time::Duration;

use strath_core::Generation;
use strath_protocol::message::{Phase, Progress, Purpose, WorkerMessage};
use strath_protocol::{Coordinator, CoordinatorEvent as Event, Gather};

use crate::support::{at, halted, handle, join, lost, prepared, progress, running, say, settings, state};

/// Why each worker is late, in order of id.
fn late(machine: &Coordinator, now: u64) -> Vec<String> {
    machine.status(at(now)).workers.into_iter().map(|worker| worker.late).collect()
}

#[test]
fn whoever_still_prepares_is_late_where_others_are_ready() {
    let mut machine = Coordinator::new(settings(Gather::Exactly(2)), at(0));
    join(&mut machine, 0, 0);
    join(&mut machine, 1, 0);
    assert_eq!(late(&machine, 1), ["", ""]);
    say(&mut machine, 0, WorkerMessage::Prepared(prepared()), 1);
    assert_eq!(late(&machine, 1), ["", "still loads its data and model"]);
}

#[test]
fn whoever_has_to_connect_its_ring_is_late_where_others_have() {
    let mut machine = Coordinator::new(settings(Gather::Exactly(2)), at(0));
    for worker in 0..2 {
        join(&mut machine, worker, 0);
        say(&mut machine, worker, WorkerMessage::Prepared(prepared()), 0);
    }
    assert_eq!(late(&machine, 1), ["", ""], "both are at it");
    say(&mut machine, 1, WorkerMessage::RingReady { generation: Generation(5), gpu: None, communicator: None }, 1);
    assert_eq!(late(&machine, 1), ["connects its ring", ""]);
}

#[test]
fn whoever_hands_a_state_over_is_late_and_then_whoever_is_sent_it() {
    let mut machine = running(3);
    lost(&mut machine, 0, "reset", 1);
    say(&mut machine, 1, halted(5, Some((1, 7)), 201), 2);
    assert_eq!(late(&machine, 2), ["", "has not left generation 5 yet, at step 0 in phase ascent"]);
    say(&mut machine, 2, halted(5, Some((2, 8)), 202), 3);
    assert_eq!(late(&machine, 3), ["", "hands over its state of step 2"]);
    say(&mut machine, 2, WorkerMessage::State(state(2, Purpose::Handover)), 4);
    assert_eq!(late(&machine, 4), ["is sent the state of step 2, 0.0 MiB", ""]);
    say(&mut machine, 1, WorkerMessage::RingReady { generation: Generation(6), gpu: None, communicator: None }, 5);
    assert_eq!(late(&machine, 5), ["", "connects its ring"]);
}

#[test]
fn whoever_is_slow_is_late_unless_its_part_is_as_much_smaller() {
    let mut machine = running(3);
    // Of four micro-batches rank 0 holds two.
    let beat = |images_per_s| WorkerMessage::Heartbeat(Progress { images_per_s, ..progress(1, Phase::Ascent) });
    say(&mut machine, 0, beat(900.0), 1);
    say(&mut machine, 1, beat(250.0), 1);
    say(&mut machine, 2, beat(880.0), 1);
    assert_eq!(late(&machine, 1), ["", "computes 250 images/s, others 900", ""]);
    say(&mut machine, 1, beat(450.0), 1);
    assert_eq!(late(&machine, 1), ["", "", ""]);
}

#[test]
fn silence_says_more_than_anything_else() {
    let mut machine = Coordinator::new(settings(Gather::AtLeast { workers: 1, quiet: Duration::from_secs(60) }), at(0));
    join(&mut machine, 0, 0);
    join(&mut machine, 1, 0);
    say(&mut machine, 0, WorkerMessage::Prepared(prepared()), 900);
    handle(&mut machine, Event::Tick, 1500);
    assert_eq!(late(&machine, 1500), ["", "silent for 1500 of 2000 ms"]);
}
