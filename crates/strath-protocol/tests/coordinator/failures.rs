//! Somebody is lost, silent, failed or gone, and the job cannot go on without: one message names worker, host, address, step and phase.

use std::time::Duration;

use strath_core::{Generation, Rank, Step};
use strath_protocol::message::{CoordinatorMessage, Ending, FailureKind, FailureReport, Phase, WorkerMessage};
use strath_protocol::{
    Connection, Coordinator, CoordinatorCommand as Command, CoordinatorEvent as Event, Gather, Outcome, Record,
    Rejected,
};

use crate::support::{
    address, at, drain, end_of, evaluating, failed, failure, finished, handle, join, lost, peer_lost, progress, say,
    send, settings,
};

/// The whole end of a failed run that nobody owes anything.
fn failing(told: &[u64], message: &str) -> Vec<Command> {
    end_of(told, &Ending::Failed(message.into()), Outcome::Failed { message: message.into() })
}

#[test]
fn whoever_is_lost_silent_failed_or_leaves_is_named_with_step_and_phase() {
    let mut machine = evaluating(2);
    say(&mut machine, 1, WorkerMessage::Heartbeat(progress(2, Phase::Descent)), 100);
    let mut gone = machine.clone();
    assert_eq!(
        lost(&mut gone, 1, "reset", 150),
        failing(&[0], "worker 1 (h1, 127.0.0.1:9001) was lost at step 2 in phase descent: reset")
    );

    let mut silent = machine.clone();
    for now in (200..2000).step_by(400) {
        say(&mut silent, 0, WorkerMessage::Heartbeat(progress(2, Phase::Descent)), now);
    }
    assert_eq!(handle(&mut silent, Event::Tick, 2099), []);
    let message =
        "worker 1 (h1, 127.0.0.1:9001) was silent for 2000 ms at step 2 in phase descent (cluster.lease_ms = 2000)";
    // A worker that only hung may yet wake up and read its last word.
    assert_eq!(handle(&mut silent, Event::Tick, 2100), failing(&[0, 1], message));

    let mut own = machine.clone();
    let message = "worker 0 (h0, 127.0.0.1:9000) failed at step 1 in phase reduce: no memory";
    assert_eq!(say(&mut own, 0, failed(FailureKind::Own, "no memory"), 200), failing(&[0, 1], message));

    let mut corrupt = machine.clone();
    let message = "worker 1 (h1, 127.0.0.1:9001) holds another state after step 1";
    let report = failed(FailureKind::Deviates(Rank(1)), "holds another state after step 1");
    assert_eq!(say(&mut corrupt, 0, report, 200), failing(&[0, 1], message));

    let leaving = WorkerMessage::Leaving { generation: Generation(5), reason: "terminated".into() };
    let message = "worker 1 (h1, 127.0.0.1:9001) left at step 2 in phase descent: terminated";
    assert_eq!(say(&mut machine, 1, leaving, 200), failing(&[0], message));
}

#[test]
fn a_worker_that_fails_before_its_first_generation_ends_the_run() {
    let mut machine = Coordinator::new(settings(Gather::Exactly(2)), at(0));
    join(&mut machine, 0, 0);
    let report = FailureReport {
        generation: Generation(0),
        step: Step(0),
        phase: Phase::Preparing,
        kind: FailureKind::Own,
        message: "no such file".into(),
    };
    let message = "worker 0 (h0, 127.0.0.1:9000) failed at step 0 in phase preparing: no such file";
    assert_eq!(say(&mut machine, 0, WorkerMessage::Failed(report), 1), failing(&[0], message));
}

#[test]
fn a_failure_of_another_generation_is_passed_over() {
    let mut machine = evaluating(2);
    let before = machine.clone();
    let WorkerMessage::Failed(report) = failed(FailureKind::Own, "old") else { unreachable!() };
    let message = WorkerMessage::Failed(FailureReport { generation: Generation(4), ..report });
    let stale = Rejected::StaleGeneration { what: "Failed", found: 4, expected: 5 };
    assert_eq!(machine.handle(Event::Message { connection: Connection(0), message }, at(1)), Err(stale));
    assert_eq!(machine, before);
}

#[test]
fn a_peer_reported_lost_is_blamed_only_after_its_own_session_had_time_to_tell() {
    let mut machine = evaluating(2);
    assert_eq!(say(&mut machine, 0, peer_lost(1), 100), []);
    let mut told = machine.clone();
    let commands = lost(&mut told, 1, "closed", 110);
    assert!(failure(&commands).starts_with("worker 1 (h1, 127.0.0.1:9001) was lost"), "its own session says more");
    let mut own = machine.clone();
    let commands = say(&mut own, 1, failed(FailureKind::Own, "the loss is not finite"), 110);
    assert!(failure(&commands).starts_with("worker 1 (h1, 127.0.0.1:9001) failed"), "and so does its own report");

    assert_eq!(machine.next_deadline(), Some(at(600)));
    assert_eq!(handle(&mut machine, Event::Tick, 599), []);
    let message = "the ring to worker 1 (h1, 127.0.0.1:9001) broke at step 1 in phase reduce, says worker 0 (h0, \
                   127.0.0.1:9000): reset";
    assert_eq!(handle(&mut machine, Event::Tick, 600), failing(&[0, 1], message));
}

#[test]
fn the_blame_follows_a_chain_of_reports_to_the_rank_that_it_began_with() {
    let mut machine = evaluating(3);
    assert_eq!(say(&mut machine, 0, peer_lost(1), 100), []);
    assert_eq!(say(&mut machine, 1, peer_lost(2), 200), [], "the first report sets the time");
    // A witness has told what it knows: that its session ends is no news.
    assert_eq!(lost(&mut machine, 1, "closed", 300), []);
    assert_eq!(handle(&mut machine, Event::ProcessEnded { pid: 0, cause: "status 1".into() }, 400), []);
    let commands = handle(&mut machine, Event::Tick, 600);
    let message = "the ring to worker 2 (h2, 127.0.0.1:9002) broke at step 1 in phase reduce, says worker 1 (h1, \
                   127.0.0.1:9001): reset";
    assert_eq!(commands, failing(&[0, 2], message));
}

#[test]
fn of_two_that_lost_each_other_neither_is_blamed_alone() {
    let mut machine = evaluating(2);
    say(&mut machine, 0, peer_lost(1), 100);
    say(&mut machine, 1, peer_lost(0), 101);
    let commands = handle(&mut machine, Event::Tick, 600);
    let message = failure(&commands);
    assert!(message.starts_with("the ring between worker 1 (h1") && message.contains("worker 0 (h0"), "{message}");
}

#[test]
fn a_coordinator_that_was_itself_stalled_blames_nobody() {
    let mut machine = evaluating(2);
    // Ten seconds pass for the machine in one go: its host was paused, and what workers sent waits unread.
    assert_eq!(handle(&mut machine, Event::Tick, 10_000), []);
    for worker in 0..2 {
        assert_eq!(
            say(&mut machine, worker, WorkerMessage::Heartbeat(progress(0, Phase::Ascent)), 10_001),
            [send(worker, CoordinatorMessage::Ack)]
        );
    }
    for now in (10_400..12_000).step_by(400) {
        assert_eq!(handle(&mut machine, Event::Tick, now), []);
    }
    let commands = handle(&mut machine, Event::Tick, 12_001);
    assert!(failure(&commands).contains("was silent for 2000 ms"), "{commands:?}");
}

#[test]
fn a_stall_of_the_coordinator_gives_a_suspect_as_much_more_time() {
    let mut machine = evaluating(2);
    say(&mut machine, 0, peer_lost(1), 100);
    assert_eq!(handle(&mut machine, Event::Tick, 10_100), [], "the suspect's own end may wait unread");
    let commands = lost(&mut machine, 1, "closed", 10_101);
    assert!(failure(&commands).starts_with("worker 1 (h1, 127.0.0.1:9001) was lost"), "{commands:?}");
}

#[test]
fn a_process_that_ends_is_named_by_its_worker_where_it_has_one() {
    let mut machine = Coordinator::new(settings(Gather::Exactly(2)), at(0));
    let ended = |pid| Event::ProcessEnded { pid, cause: "signal 9".into() };
    let before_it_joined = "worker process 77 ended before it joined: signal 9";
    assert_eq!(handle(&mut machine, ended(77), 1), failing(&[], before_it_joined));

    let mut machine = evaluating(2);
    assert_eq!(say(&mut machine, 0, finished(9, 3, false), 1), []);
    assert_eq!(handle(&mut machine, ended(0), 2), [], "whoever is through may end");
    let message = "worker 1 (h1, 127.0.0.1:9001) ended at step 0 in phase ascent: signal 9";
    assert_eq!(handle(&mut machine, ended(1), 3), failing(&[0, 1], message));
    assert_eq!(drain(&mut machine), []);
}

#[test]
fn whoever_has_not_registered_has_no_say_in_the_run() {
    let mut machine = evaluating(2);
    handle(&mut machine, Event::Connected { connection: Connection(7), address: address(7) }, 0);
    let before = machine.clone();
    for message in [
        WorkerMessage::Leaving { generation: Generation(0), reason: "hello".into() },
        failed(FailureKind::Own, "hello"),
        WorkerMessage::Heartbeat(progress(1, Phase::Ascent)),
        finished(9, 3, false),
    ] {
        let rejected = machine.handle(Event::Message { connection: Connection(7), message }, at(1));
        assert!(matches!(rejected, Err(Rejected::OutOfOrder { .. })), "{rejected:?}");
        assert_eq!(machine, before);
    }
}

#[test]
fn a_machine_that_cannot_take_part_ends_no_gathering_but_its_own() {
    let gather = Gather::AtLeast { workers: 2, quiet: Duration::from_millis(100) };
    let mut machine = Coordinator::new(settings(gather), at(0));
    join(&mut machine, 0, 0);
    join(&mut machine, 1, 0);
    let report = |kind| {
        let (generation, step, phase) = (Generation(0), Step(0), Phase::Preparing);
        WorkerMessage::Failed(FailureReport { generation, step, phase, kind, message: "no such file".into() })
    };
    let mut misconfigured = machine.clone();
    let message = "worker 1 (h1, 127.0.0.1:9001) failed at step 0 in phase preparing: no such file";
    assert_eq!(
        say(&mut machine, 1, report(FailureKind::Own), 1),
        [
            send(1, CoordinatorMessage::End(Ending::Failed(message.into()))),
            Command::Close(Connection(1)),
            Command::Record(Record::Warning(format!("{message}; gathering goes on without it"))),
        ]
    );
    // What does not fit the configuration fits on no machine.
    let commands = say(&mut misconfigured, 1, report(FailureKind::Configuration), 1);
    let outcome = Outcome::Misconfigured { message: message.into() };
    assert_eq!(commands, end_of(&[0, 1], &Ending::Failed(message.into()), outcome));
}
