//! A run that fails: what rank 0 has handed over reaches the disk before it ends, if it does so in time.

use strath_core::{Generation, Step};
use strath_protocol::message::{
    CoordinatorMessage, Ending, EvalReport, FailureKind, Phase, Purpose, Split, WorkerMessage,
};
use strath_protocol::{
    Connection, Coordinator, CoordinatorCommand as Command, CoordinatorEvent as Event, Outcome, Record, Rejected,
};

use crate::support::{
    at, close, drain, end_of, failed, failure, finished, handle, join, lost, progress, running, saved, say, send,
    state, telling,
};

const MESSAGE: &str = "worker 1 (h1, 127.0.0.1:9001) failed at step 1 in phase reduce: the loss is not finite";

fn outcome() -> Outcome {
    Outcome::Failed { message: MESSAGE.into() }
}

/// Three workers, the second of which has just failed, at 100 ms.
fn failing() -> Coordinator {
    let mut machine = running(3);
    say(&mut machine, 0, WorkerMessage::Heartbeat(progress(1, Phase::Ascent)), 50);
    let commands = say(&mut machine, 1, failed(FailureKind::Own, "the loss is not finite"), 100);
    assert_eq!(commands, telling(&[0, 1, 2], MESSAGE));
    machine
}

#[test]
fn a_state_that_rank_0_had_handed_over_is_on_the_disk_before_the_run_ends() {
    let mut machine = failing();
    assert_eq!(lost(&mut machine, 1, "closed", 110), [], "whoever has left owes nothing");
    let checkpoint = state(1, Purpose::Checkpoint);
    assert_eq!(say(&mut machine, 0, WorkerMessage::State(checkpoint.clone()), 120), [Command::Save(checkpoint)]);
    let mut other_way = machine.clone();
    assert_eq!(lost(&mut machine, 0, "closed", 130), [], "it is not on the disk yet");
    assert_eq!(saved(&mut machine, 1, Purpose::Checkpoint, 140), close(&[2], outcome()));
    assert_eq!(saved(&mut other_way, 1, Purpose::Checkpoint, 130), [], "a second one may follow");
    assert_eq!(lost(&mut other_way, 0, "closed", 140), close(&[2], outcome()));
}

#[test]
fn what_was_being_saved_when_it_failed_is_waited_for_whoever_is_at_fault() {
    let mut machine = running(2);
    say(&mut machine, 0, WorkerMessage::State(state(1, Purpose::Checkpoint)), 1);
    let commands = say(&mut machine, 0, failed(FailureKind::Own, "no memory"), 2);
    assert_eq!(commands.len(), 2, "both are told");
    assert_eq!(lost(&mut machine, 0, "closed", 3), []);
    let commands = saved(&mut machine, 1, Purpose::Checkpoint, 4);
    assert!(failure(&commands).starts_with("worker 0 (h0, 127.0.0.1:9000) failed"), "{commands:?}");
}

#[test]
fn the_steps_before_a_late_checkpoint_are_recorded_too() {
    let mut machine = failing();
    let report = EvalReport { generation: Generation(5), step: Step(1), split: Split::Test, loss: 1.0, error: 0.5 };
    let commands = say(&mut machine, 0, WorkerMessage::Eval(report.clone()), 120);
    assert_eq!(commands, [Command::Record(Record::Eval(report))]);
}

#[test]
fn further_failures_and_farewells_change_nothing() {
    let mut machine = failing();
    assert_eq!(say(&mut machine, 2, failed(FailureKind::Configuration, "late"), 110), []);
    assert_eq!(say(&mut machine, 0, failed(FailureKind::Own, "the loss is not finite"), 110), []);
    assert_eq!(handle(&mut machine, Event::ProcessEnded { pid: 2, cause: "status 1".into() }, 120), []);
    let leaving = WorkerMessage::Leaving { generation: Generation(5), reason: "terminated".into() };
    assert_eq!(say(&mut machine, 0, leaving, 130), close(&[1, 2], outcome()), "rank 0 sends nothing more");
}

#[test]
fn a_rank_0_that_falls_silent_is_waited_for_as_long_as_its_lease() {
    let mut machine = failing();
    assert_eq!(machine.next_deadline(), Some(at(600)), "the next tick");
    for now in (500..2000).step_by(500) {
        assert_eq!(handle(&mut machine, Event::Tick, now), []);
    }
    assert_eq!(machine.next_deadline(), Some(at(2000)));
    assert_eq!(handle(&mut machine, Event::Tick, 2049), []);
    assert_eq!(machine.next_deadline(), Some(at(2050)));
    assert_eq!(handle(&mut machine, Event::Tick, 2050), close(&[0, 1, 2], outcome()));
}

#[test]
fn nothing_is_waited_for_longer_than_five_seconds() {
    let mut machine = failing();
    say(&mut machine, 0, WorkerMessage::State(state(1, Purpose::Checkpoint)), 110);
    lost(&mut machine, 0, "closed", 120);
    for now in (600..5100).step_by(500) {
        assert_eq!(handle(&mut machine, Event::Tick, now), []);
    }
    assert_eq!(machine.next_deadline(), Some(at(5100)));
    assert_eq!(handle(&mut machine, Event::Tick, 5099), []);
    assert_eq!(handle(&mut machine, Event::Tick, 5100), close(&[1, 2], outcome()));
    assert_eq!(drain(&mut machine), []);
    assert_eq!(machine.handle(Event::Tick, at(5101)), Err(Rejected::Ended));
}

#[test]
fn whoever_wants_the_end_now_and_a_disk_that_fails_as_well_end_it_at_once() {
    let mut machine = failing();
    say(&mut machine, 0, WorkerMessage::State(state(1, Purpose::Checkpoint)), 110);
    assert_eq!(handle(&mut machine.clone(), Event::StopRequested, 120), close(&[0, 1, 2], outcome()));
    let commands = handle(&mut machine, Event::WriteFailed { message: "disk full".into() }, 120);
    let outcome = Outcome::Failed { message: format!("{MESSAGE}; then disk full") };
    assert_eq!(commands, close(&[0, 1, 2], outcome));
}

#[test]
fn a_rank_0_that_is_through_owes_nothing() {
    let mut machine = running(2);
    say(&mut machine, 0, WorkerMessage::State(state(3, Purpose::Final)), 1);
    say(&mut machine, 0, finished(9, 3, false), 2);
    let mut saved_in_time = machine.clone();
    assert_eq!(saved(&mut saved_in_time, 3, Purpose::Final, 3), []);
    let message = "worker 1 (h1, 127.0.0.1:9001) failed at step 1 in phase reduce: no memory";
    let outcome = || Outcome::Failed { message: message.into() };
    let at_once = end_of(&[0, 1], &Ending::Failed(message.into()), outcome());
    let no_memory = || failed(FailureKind::Own, "no memory");
    assert_eq!(say(&mut saved_in_time, 1, no_memory(), 4), at_once);
    assert_eq!(say(&mut machine, 1, no_memory(), 4), telling(&[0, 1], message));
    assert_eq!(saved(&mut machine, 3, Purpose::Final, 5), close(&[0, 1], outcome()));
}

#[test]
fn a_newcomer_is_told_that_the_run_is_over() {
    let mut machine = failing();
    let reason = "this run has failed and is about to end; start it again with --resume";
    assert_eq!(
        join(&mut machine, 7, 120),
        [send(7, CoordinatorMessage::End(Ending::Refused(reason.into()))), Command::Close(Connection(7))]
    );
    assert_eq!(machine.status(at(130)).stage, "failed, saving");
}
