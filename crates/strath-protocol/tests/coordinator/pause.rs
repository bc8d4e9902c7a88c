//! A planned pause: every rank rests after the same step, and the next generation begins there.

use strath_core::{Digest, Generation, Rank, Step};
use strath_protocol::message::{CoordinatorMessage, FailureKind, Halted, Holds, Phase, Purpose, WorkerMessage};
use strath_protocol::{Coordinator, CoordinatorCommand as Command, CoordinatorEvent as Event, Outcome, Record};

use crate::support::{
    address, at, failed, finished, halted, handle, join, lost, pause, prepared, progress, running, saved, say, send,
    state, step_report,
};

/// Whether what follows the step is still to be done, of each assignment.
fn unsettled(commands: &[Command]) -> Vec<bool> {
    let assigned = commands.iter().filter_map(|command| match command {
        Command::Send { message: CoordinatorMessage::Assign(assign), .. } => Some((assign.start, assign.unsettled)),
        _ => None,
    });
    assigned.map(|(start, unsettled)| (assert_eq!(start, Step(2)), unsettled).1).collect()
}

fn cause(commands: &[Command]) -> &str {
    let cause = commands.iter().find_map(|command| match command {
        Command::Record(Record::Generation { cause, .. }) => Some(cause.as_str()),
        _ => None,
    });
    cause.unwrap_or_else(|| panic!("expected a generation, found {commands:?}"))
}

/// Three at work, of whom worker 2 wants to leave.
fn pausing() -> Coordinator {
    let mut machine = running(3);
    let asked = say(&mut machine, 2, WorkerMessage::Retiring, 1);
    assert_eq!(asked, [pause(0, 0), pause(1, 0), pause(2, 0)]);
    machine
}

#[test]
fn all_rest_after_a_step_and_what_follows_it_is_not_done_again() {
    let mut machine = pausing();
    assert_eq!(machine.status(at(1)).stage, "running");
    let steps = WorkerMessage::Halted(Halted {
        generation: Generation(5),
        held: Some((Step(2), Digest([7; 32]))),
        ring_address: address(201),
        unrecorded: vec![step_report(1), step_report(2)],
        evaluations: Vec::new(),
    });
    let noted = [1, 2].map(|step| Command::Record(Record::Step(step_report(step))));
    assert_eq!(say(&mut machine, 1, steps, 2), noted);
    assert_eq!(say(&mut machine, 0, WorkerMessage::Step(step_report(2)), 3), [], "it is on record");
    assert_eq!(say(&mut machine, 2, halted(5, Some((2, 7)), 202), 4), []);
    let commands = say(&mut machine, 0, halted(5, Some((2, 7)), 200), 5);
    assert_eq!(cause(&commands), "worker 2 (h2, 127.0.0.1:9002) leaves at step 0 in phase ascent");
    assert_eq!(unsettled(&commands), [false, false]);
}

#[test]
fn what_a_newcomer_holds_says_nothing_of_what_is_done() {
    let mut machine = pausing();
    join(&mut machine, 3, 2);
    say(&mut machine, 3, WorkerMessage::Prepared(prepared()), 3);
    let held = Some((Step(9), Digest([9; 32])));
    say(&mut machine, 3, WorkerMessage::Holds(Holds { generation: Generation(0), held, broken: None }), 4);
    for worker in 0..3 {
        say(&mut machine, worker, halted(5, Some((2, 7)), 200 + worker), 5);
    }
    // It is sent what the others hold.
    let commands = say(&mut machine, 0, WorkerMessage::State(state(2, Purpose::Handover)), 6);
    assert_eq!(unsettled(&commands), [false, false, false]);
}

#[test]
fn one_that_is_lost_meanwhile_halts_those_who_do_not_rest_yet() {
    let mut machine = pausing();
    say(&mut machine, 1, halted(5, Some((2, 7)), 201), 2);
    let commands = lost(&mut machine, 2, "reset", 3);
    let halt = send(0, CoordinatorMessage::Halt { generation: Generation(5), recorded: Step(0) });
    assert_eq!(commands.last(), Some(&halt));
    assert!(!commands.iter().any(|command| matches!(command, Command::Send { connection, .. } if connection.0 == 1)));
    let commands = say(&mut machine, 0, halted(5, Some((2, 7)), 200), 4);
    assert!(cause(&commands).contains("was lost"), "{commands:?}");
    assert_eq!(unsettled(&commands), [true, true]);
}

#[test]
fn one_that_rests_and_is_lost_is_done_without() {
    let mut machine = pausing();
    say(&mut machine, 1, halted(5, Some((2, 7)), 201), 2);
    assert_eq!(lost(&mut machine, 1, "reset", 3).len(), 2, "its session is closed, and that is said");
    say(&mut machine, 2, halted(5, Some((2, 7)), 202), 4);
    let commands = say(&mut machine, 0, halted(5, Some((2, 7)), 200), 5);
    assert_eq!(unsettled(&commands), [false]);
}

#[test]
fn a_rank_that_fails_before_it_rests_ends_the_pause_as_it_ends_the_generation() {
    let mut machine = pausing();
    let commands = say(&mut machine, 0, failed(FailureKind::PeerLost(Rank(1)), "reset"), 2);
    let halt = |worker| send(worker, CoordinatorMessage::Halt { generation: Generation(5), recorded: Step(0) });
    assert_eq!(commands, [halt(0), halt(1), halt(2)]);
}

#[test]
fn a_stop_wins_whether_or_not_the_ranks_rest_already() {
    let mut machine = pausing();
    let stop = |worker| send(worker, CoordinatorMessage::Stop { generation: Generation(5) });
    assert_eq!(handle(&mut machine, Event::StopRequested, 2), [stop(0), stop(1), stop(2)]);
    let mut too_late = machine.clone();
    say(&mut machine, 0, WorkerMessage::State(state(2, Purpose::Checkpoint)), 3);
    for worker in 0..3 {
        say(&mut machine, worker, finished(9, 2, true), 3);
    }
    let commands = saved(&mut machine, 2, Purpose::Checkpoint, 4);
    assert_eq!(commands.last(), Some(&Command::Finish(Outcome::Stopped { step: Some(Step(2)) })));

    say(&mut too_late, 2, halted(5, Some((2, 7)), 202), 3);
    say(&mut too_late, 1, halted(5, Some((2, 7)), 201), 3);
    let asked = send(0, CoordinatorMessage::SendState { generation: Generation(5) });
    assert_eq!(say(&mut too_late, 0, halted(5, Some((2, 7)), 200), 4), [asked], "a checkpoint is still to be made");
}

#[test]
fn at_the_end_of_the_run_there_is_nothing_to_rest_for() {
    let mut machine = pausing();
    say(&mut machine, 0, WorkerMessage::State(state(3, Purpose::Final)), 2);
    for worker in 0..3 {
        assert_eq!(say(&mut machine, worker, finished(9, 3, false), 2), []);
    }
    let commands = saved(&mut machine, 3, Purpose::Final, 3);
    assert!(matches!(commands.last(), Some(Command::Finish(Outcome::Done { .. }))), "{commands:?}");
}

#[test]
fn of_several_causes_all_are_said_and_the_ranks_are_told_once() {
    let mut machine = pausing();
    assert_eq!(say(&mut machine, 1, WorkerMessage::Retiring, 2), []);
    join(&mut machine, 3, 3);
    assert_eq!(say(&mut machine, 3, WorkerMessage::Prepared(prepared()), 3), [], "it has a part in the next anyhow");
    for worker in 1..3 {
        say(&mut machine, worker, halted(5, Some((2, 7)), 200 + worker), 4);
    }
    let asked = send(0, CoordinatorMessage::SendState { generation: Generation(5) });
    assert_eq!(say(&mut machine, 0, halted(5, Some((2, 7)), 200), 5), [asked], "worker 3 lacks the state");
    let handover = WorkerMessage::State(state(2, Purpose::Handover));
    let commands = say(&mut machine, 0, handover, 6);
    let leaves =
        |worker| format!("worker {worker} (h{worker}, 127.0.0.1:900{worker}) leaves at step 0 in phase ascent");
    assert_eq!(cause(&commands), format!("{}; {}", leaves(2), leaves(1)));
    assert_eq!(unsettled(&commands), [false, false]);
}

#[test]
fn a_rank_that_a_former_coordinator_asked_to_rest_has_the_others_do_so() {
    let mut machine = running(2);
    assert_eq!(say(&mut machine, 1, halted(5, Some((2, 7)), 201), 1), [pause(0, 0), pause(1, 0)]);
    let commands = say(&mut machine, 0, halted(5, Some((2, 7)), 200), 2);
    assert_eq!(unsettled(&commands), [false, false]);
    assert!(cause(&commands).starts_with("worker 1 (h1, 127.0.0.1:9001) rests"), "{commands:?}");
}

#[test]
fn a_rank_that_does_not_come_to_rest_is_told_to_halt_in_the_end() {
    let mut machine = pausing();
    say(&mut machine, 1, halted(5, Some((2, 7)), 201), 1000);
    let mut told = Vec::new();
    for now in (1500..=601_000).step_by(500) {
        assert_eq!(told, [], "at {now} ms");
        for worker in 0..3 {
            let said = WorkerMessage::Heartbeat(progress(2, Phase::Checkpoint));
            told.extend(say(&mut machine, worker, said, now).into_iter().filter(|command| *command != ack(worker)));
        }
    }
    let halt = |worker| send(worker, CoordinatorMessage::Halt { generation: Generation(5), recorded: Step(0) });
    assert_eq!(told, [halt(0), halt(2)]);
}

fn ack(worker: u64) -> Command {
    send(worker, CoordinatorMessage::Ack)
}
