//! What whoever looks after a run asks of its coordinator, and what it says of its decisions.

use std::time::Duration;

use strath_core::{Digest, Step, WorkerId};
use strath_protocol::message::{
    CoordinatorMessage, DrainAnswer, DrainRequest, Ending, FileBytes, Purpose, Register, Shortage, State, StateRef,
    WorkerMessage,
};
use strath_protocol::{
    Connection, Coordinator, CoordinatorCommand as Command, CoordinatorEvent as Event, Gather, Record, Rejected,
    Settings,
};

use crate::support::{
    address, at, evaluating, finished, halted, handle, join, lost, prepared, register, run_with, running, say, send,
    settings, state, step_report,
};

fn wish(worker: u64) -> DrainRequest {
    DrainRequest { worker: WorkerId(worker), shortage: Shortage::Refuse, token: Some("secret".into()) }
}

#[track_caller]
fn refusal(machine: &Coordinator, request: &DrainRequest) -> String {
    match machine.answer(request) {
        DrainAnswer::Refused(reason) => reason,
        other => panic!("{other:?}"),
    }
}

/// What the coordinator decided last, and why, at `now`.
fn newest(machine: &Coordinator, now: u64) -> (String, String, u64) {
    let newest = machine.status(at(now)).decisions.pop().unwrap();
    (newest.what, newest.why, newest.ago_ms)
}

#[test]
fn a_worker_that_is_drained_leaves_as_one_that_wants_to() {
    let mut machine = running(3);
    assert_eq!(machine.answer(&wish(1)), DrainAnswer::Leaves);
    assert_eq!(machine.status(at(1)).stage, "running", "an answer changes nothing");
    let halts = handle(&mut machine, Event::DrainRequested(wish(1)), 1);
    let mut signalled = running(3);
    assert_eq!(halts, say(&mut signalled, 1, WorkerMessage::Retiring, 1), "as after SIGTERM");
    assert_eq!(machine.answer(&wish(1)), DrainAnswer::Leaves, "asked again while it leaves");
    assert_eq!(handle(&mut machine, Event::DrainRequested(wish(1)), 2), []);
    for worker in 0..2 {
        assert_eq!(say(&mut machine, worker, halted(5, Some((2, 7)), 200 + worker), 3), []);
    }
    let commands = say(&mut machine, 2, halted(5, Some((2, 7)), 202), 4);
    assert_eq!(commands[..2], [send(1, CoordinatorMessage::End(Ending::Released)), Command::Close(Connection(1))]);
    let cause = "worker 1 (h1, 127.0.0.1:9001) was drained at step 0 in phase ascent";
    let began = |c: &Command| matches!(c, Command::Record(Record::Generation { members, cause: why, .. }) if members.len() == 2 && why == cause);
    assert!(commands.iter().any(began), "{commands:?}");
    assert_eq!(newest(&machine, 10), ("formed generation 6 of 2 workers at step 2".into(), cause.into(), 6));
    assert_eq!(machine.answer(&wish(1)), DrainAnswer::HasLeft);
}

#[test]
fn one_that_cannot_be_drained_stays_for_a_reason_that_is_said() {
    let mut machine = running(2);
    let names = "worker 0 (h0, 127.0.0.1:9000), worker 1 (h1, 127.0.0.1:9001)";
    assert_eq!(refusal(&machine, &wish(7)), format!("no worker 7 takes part; there are {names}"));
    for token in [None, Some("guess".into())] {
        assert!(refusal(&machine, &DrainRequest { token, ..wish(1) }).contains("token"));
    }
    let before = machine.clone();
    let unknown = machine.handle(Event::DrainRequested(wish(7)), at(1));
    assert!(matches!(unknown, Err(Rejected::OutOfOrder { what: "DrainRequested", .. })), "{unknown:?}");
    assert_eq!(machine, before);

    assert!(refusal(&evaluating(2), &wish(1)).contains("evaluation"));
    let mut gathering = Coordinator::new(settings(Gather::Exactly(2)), at(0));
    join(&mut gathering, 0, 0);
    assert!(refusal(&gathering, &wish(0)).contains("not training yet"));
    let mut stopping = running(2);
    handle(&mut stopping, Event::StopRequested, 1);
    assert!(refusal(&stopping, &wish(1)).contains("being stopped"));
    say(&mut machine, 0, WorkerMessage::State(state(3, Purpose::Final)), 1);
    for worker in 0..2 {
        say(&mut machine, worker, finished(9, 3, false), 2);
    }
    assert!(refusal(&machine, &wish(1)).contains("the run is complete"));
    let reason = refusal(&running(1), &wish(0));
    assert!(reason.contains("there would be 0 of the 1 workers") && reason.contains("--force"), "{reason}");
}

#[test]
fn the_last_one_leaves_where_that_is_insisted_on_and_hands_its_state_over() {
    let mut machine = running(1);
    let forced = DrainRequest { shortage: Shortage::Accept, ..wish(0) };
    assert_eq!(machine.answer(&forced), DrainAnswer::Leaves);
    handle(&mut machine, Event::DrainRequested(forced), 1);
    let commands = say(&mut machine, 0, halted(5, Some((2, 7)), 200), 2);
    assert!(matches!(&commands[..], [Command::Send { message: CoordinatorMessage::SendState { .. }, .. }]));
    let commands = say(&mut machine, 0, WorkerMessage::State(state(2, Purpose::Handover)), 3);
    let released = send(0, CoordinatorMessage::End(Ending::Released));
    assert!(matches!(commands[0], Command::Save(_)) && commands[1] == released, "{commands:?}");
    assert_eq!(newest(&machine, 3).1, "0 of the 1 workers that are needed are there");
}

#[test]
fn more_than_are_needed_have_to_be_left_and_whoever_still_prepares_does_not_count() {
    let mut settings = settings(Gather::AtLeast { workers: 2, quiet: Duration::ZERO });
    settings.config.cluster.min_workers = 2;
    let mut machine = run_with(Settings { ..settings }, 2);
    join(&mut machine, 2, 1);
    assert!(refusal(&machine, &wish(0)).contains("1 of the 2 workers"));
    // One that has no part yet is let go at once.
    let mut unprepared = machine.clone();
    let commands = handle(&mut unprepared, Event::DrainRequested(wish(2)), 2);
    assert_eq!(commands, [send(2, CoordinatorMessage::End(Ending::Released)), Command::Close(Connection(2))]);
    assert_eq!(unprepared.answer(&wish(2)), DrainAnswer::HasLeft);
    say(&mut machine, 2, WorkerMessage::Prepared(prepared()), 2);
    assert_eq!(machine.answer(&wish(0)), DrainAnswer::Leaves);
}

#[test]
fn each_decision_is_told_with_its_reason_and_its_time() {
    let mut machine = Coordinator::new(settings(Gather::Exactly(2)), at(0));
    assert_eq!(machine.status(at(0)).decisions, []);
    join(&mut machine, 0, 5);
    assert_eq!(newest(&machine, 7), ("admitted worker 0".into(), "the run gathers its workers".into(), 2));
    handle(&mut machine, Event::Connected { connection: Connection(9), address: address(9) }, 6);
    say(&mut machine, 9, WorkerMessage::Register(Register { version: "2".into(), ..register(9) }), 6);
    let (what, why, _) = newest(&machine, 7);
    assert!(what == "refused the worker at 127.0.0.1:9009" && why.contains("version 2"), "{what}: {why}");
    join(&mut machine, 1, 8);
    for worker in 0..2 {
        say(&mut machine, worker, WorkerMessage::Prepared(prepared()), 9);
    }
    let formed = "formed generation 5 of 2 workers at step 0";
    assert_eq!(newest(&machine, 9), (formed.into(), "all 2 workers are ready".into(), 0));

    let mut machine = running(3);
    say(&mut machine, 0, WorkerMessage::Step(step_report(1)), 1);
    lost(&mut machine, 1, "reset", 2);
    let why = "worker 1 (h1, 127.0.0.1:9001) was lost at step 0 in phase ascent: reset";
    let last = machine.status(at(3)).decisions;
    let last: Vec<_> = last.iter().rev().map(|d| (d.what.as_str(), d.why.as_str(), d.ago_ms)).take(2).collect();
    assert_eq!(last, [("ended generation 5", why, 1), ("dropped worker 1", why, 1)]);
    handle(&mut machine, Event::WriteFailed { message: "disk full".into() }, 4);
    assert_eq!(newest(&machine, 4), ("gave the run up".into(), "disk full".into(), 0));
}

#[test]
fn a_worker_whose_address_another_process_of_its_host_has_taken_is_ended() {
    let mut machine = running(2);
    handle(&mut machine, Event::Connected { connection: Connection(2), address: address(2) }, 10);
    let again = Register { pid: 77, nonce: 77, ..register(1) };
    let commands = say(&mut machine, 2, WorkerMessage::Register(again.clone()), 10);
    let what = "worker 1 (h1, 127.0.0.1:9001) cannot listen at 127.0.0.1:9101 any more: process 77 does";
    assert_eq!(commands[0], send(1, CoordinatorMessage::End(Ending::Failed(what.into()))));
    assert_eq!(commands[1], Command::Close(Connection(1)));
    let admitted = |c: &Command| {
        matches!(c, Command::Send { connection: Connection(2), message: CoordinatorMessage::Admitted(_) })
    };
    assert!(commands.iter().any(admitted), "{commands:?}");

    // An evaluation ends with a worker, and another host's process proves nothing.
    for (mut machine, comes) in [(evaluating(2), again.clone()), (running(2), Register { host: "h9".into(), ..again })]
    {
        handle(&mut machine, Event::Connected { connection: Connection(2), address: address(2) }, 10);
        let commands = say(&mut machine, 2, WorkerMessage::Register(comes), 10);
        let refused = matches!(
            &commands[0],
            Command::Send { connection: Connection(2), message: CoordinatorMessage::End(Ending::Refused(_)) }
        );
        assert!(refused, "{commands:?}");
    }
}

#[test]
fn a_state_is_announced_by_the_digest_that_was_counted_where_it_arrived() {
    let mut machine = running(2);
    lost(&mut machine, 0, "reset", 1);
    join(&mut machine, 2, 2);
    say(&mut machine, 2, WorkerMessage::Prepared(prepared()), 2);
    say(&mut machine, 1, halted(5, Some((2, 7)), 201), 3);
    // Digests that are not the bytes' own show who has counted them.
    let counted = |byte| FileBytes::counted(vec![byte], Digest([byte; 32]));
    let state = State { model: counted(1), optimizer: counted(2), ..state(2, Purpose::Handover) };
    let commands = say(&mut machine, 1, WorkerMessage::State(state), 4);
    let named = commands.iter().find_map(|command| match command {
        Command::Send { connection: Connection(2), message: CoordinatorMessage::Assign(assign) } => {
            assign.state.clone()
        }
        _ => None,
    });
    let StateRef { model, optimizer, .. } = named.unwrap();
    assert_eq!((model, optimizer), (Digest([1; 32]), Some(Digest([2; 32]))));
    assert_eq!(machine.status(at(4)).step, Step(2));
}
