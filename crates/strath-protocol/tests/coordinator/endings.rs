//! The end of a run: every rank through, everything on the disk, stopped, or not to be written.

use strath_core::{Digest, Generation, Step};
use strath_protocol::message::{CoordinatorMessage, Ending, Purpose, WorkerMessage};
use strath_protocol::{
    Connection, Coordinator, CoordinatorCommand as Command, CoordinatorEvent as Event, Gather, Outcome, Rejected,
};

use crate::support::{
    at, drain, end_of, failure, finished, handle, join, prepared, running, saved, say, send, settings, state,
};

fn done() -> Outcome {
    Outcome::Done { steps: Step(3), weights: Digest([9; 32]) }
}

#[test]
fn states_may_reach_the_disk_in_any_order_and_the_run_ends_with_the_last_of_them() {
    let mut machine = running(2);
    for purpose in [Purpose::Checkpoint, Purpose::Final] {
        assert_eq!(say(&mut machine, 0, WorkerMessage::State(state(3, purpose)), 1).len(), 1);
    }
    say(&mut machine, 0, finished(9, 3, false), 2);
    say(&mut machine, 1, finished(9, 3, false), 2);
    let mut other_way = machine.clone();
    assert_eq!(saved(&mut machine, 3, Purpose::Final, 3), [], "a checkpoint is still on its way");
    assert_eq!(saved(&mut machine, 3, Purpose::Checkpoint, 4), end_of(&[0, 1], &Ending::Done, done()));
    assert_eq!(saved(&mut other_way, 3, Purpose::Checkpoint, 3), []);
    assert_eq!(saved(&mut other_way, 3, Purpose::Final, 4), end_of(&[0, 1], &Ending::Done, done()));
}

#[test]
fn ranks_that_are_through_before_the_planned_steps_have_done_the_run() {
    // Three steps are planned; a loss that is low enough ends it after two, and nobody was asked to stop.
    let mut machine = running(2);
    say(&mut machine, 0, WorkerMessage::State(state(2, Purpose::Final)), 1);
    say(&mut machine, 0, finished(9, 2, false), 2);
    say(&mut machine, 1, finished(9, 2, false), 2);
    let done = Outcome::Done { steps: Step(2), weights: Digest([9; 32]) };
    assert_eq!(saved(&mut machine, 2, Purpose::Final, 3), end_of(&[0, 1], &Ending::Done, done));
}

#[test]
fn everything_saved_before_the_last_rank_is_through_ends_the_run_with_it() {
    let mut machine = running(2);
    for purpose in [Purpose::Checkpoint, Purpose::Final] {
        say(&mut machine, 0, WorkerMessage::State(state(3, purpose)), 1);
    }
    say(&mut machine, 0, finished(9, 3, false), 2);
    saved(&mut machine, 3, Purpose::Final, 3);
    saved(&mut machine, 3, Purpose::Checkpoint, 4);
    assert_eq!(say(&mut machine, 1, finished(9, 3, false), 5), end_of(&[0, 1], &Ending::Done, done()));
}

#[test]
fn a_state_that_nobody_sent_cannot_have_been_saved() {
    let mut machine = running(1);
    let before = machine.clone();
    let event = Event::Saved { step: Step(3), purpose: Purpose::Final };
    assert!(matches!(machine.handle(event, at(1)), Err(Rejected::OutOfOrder { what: "Saved", .. })));
    assert_eq!(machine, before);
}

#[test]
fn a_rank_that_ends_with_other_weights_fails_the_run_and_is_named_whichever_it_is() {
    let ends = |weights: [u8; 3]| {
        let mut machine = running(3);
        let mut commands = Vec::new();
        for (worker, weights) in (0..).zip(weights) {
            commands = say(&mut machine, worker, finished(weights, 3, false), 2);
        }
        failure(&commands).to_string()
    };
    let (eight, nine) = ("08".repeat(32), "09".repeat(32));
    assert_eq!(
        ends([9, 8, 9]),
        format!(
            "worker 1 (h1, 127.0.0.1:9001) finished at step 3 with weights {eight}, most ranks at step 3 with {nine}: ranks \
             must agree to the bit; check that machine's memory and processor"
        )
    );
    assert!(ends([8, 9, 9]).starts_with("worker 0 (h0"));
    assert!(ends([9, 9, 8]).starts_with("worker 2 (h2"));
}

#[test]
fn ranks_that_end_at_other_steps_fail_the_run() {
    let mut machine = running(2);
    say(&mut machine, 0, finished(9, 3, false), 2);
    let commands = say(&mut machine, 1, finished(9, 2, true), 2);
    assert!(failure(&commands).starts_with("worker 1 (h1, 127.0.0.1:9001) finished at step 2"), "{commands:?}");
}

#[test]
fn a_stop_is_passed_on_once_and_ends_with_the_checkpoint() {
    let mut machine = running(2);
    assert_eq!(
        handle(&mut machine, Event::StopRequested, 1),
        [
            send(0, CoordinatorMessage::Stop { generation: Generation(5) }),
            send(1, CoordinatorMessage::Stop { generation: Generation(5) })
        ]
    );
    assert_eq!(handle(&mut machine, Event::StopRequested, 2), []);
    let mut too_late = machine.clone();
    say(&mut machine, 0, WorkerMessage::State(state(2, Purpose::Checkpoint)), 3);
    say(&mut machine, 0, finished(9, 2, true), 3);
    say(&mut machine, 1, finished(9, 2, true), 3);
    let stopped = Outcome::Stopped { step: Some(Step(2)) };
    assert_eq!(saved(&mut machine, 2, Purpose::Checkpoint, 4), end_of(&[0, 1], &Ending::Stopped, stopped));

    say(&mut too_late, 0, WorkerMessage::State(state(3, Purpose::Final)), 3);
    say(&mut too_late, 0, finished(9, 3, false), 3);
    say(&mut too_late, 1, finished(9, 3, false), 3);
    let commands = saved(&mut too_late, 3, Purpose::Final, 4);
    assert_eq!(commands, end_of(&[0, 1], &Ending::Done, done()), "the last step came before the stop");
}

#[test]
fn a_stop_before_the_first_step_ends_at_once() {
    let outcome = || Outcome::Stopped { step: None };
    let mut early = Coordinator::new(settings(Gather::Exactly(2)), at(0));
    assert_eq!(handle(&mut early, Event::StopRequested, 1), end_of(&[], &Ending::Stopped, outcome()));
    let mut gathering = Coordinator::new(settings(Gather::Exactly(2)), at(0));
    join(&mut gathering, 0, 0);
    assert_eq!(handle(&mut gathering, Event::StopRequested, 1), end_of(&[0], &Ending::Stopped, outcome()));
}

#[test]
fn what_cannot_be_written_ends_the_run() {
    let mut machine = running(2);
    let full = || Event::WriteFailed { message: "disk full".into() };
    let outcome = Outcome::Failed { message: "disk full".into() };
    let ended = end_of(&[0, 1], &Ending::Failed("disk full".into()), outcome.clone());
    assert_eq!(handle(&mut machine, full(), 1), ended);

    // Nobody hears of a generation that is not on the disk.
    let mut machine = Coordinator::new(settings(Gather::Exactly(1)), at(0));
    join(&mut machine, 0, 0);
    let message = WorkerMessage::Prepared(prepared());
    machine.handle(Event::Message { connection: Connection(0), message }, at(0)).unwrap();
    assert!(matches!(machine.poll_command(), Some(Command::PersistGeneration { .. })));
    machine.handle(full(), at(1)).unwrap();
    assert_eq!(drain(&mut machine), end_of(&[0], &Ending::Failed("disk full".into()), outcome));
}
