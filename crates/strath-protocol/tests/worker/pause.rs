//! A worker in a planned pause: it rests after a step, and says so once it was told why.

use strath_core::{Generation, Rank, Step};
use strath_protocol::message::{CoordinatorMessage, FailureKind, Register, Whence, WorkerMessage};
use strath_protocol::{Rejected, Worker, WorkerCommand as Command, WorkerEvent as Event};

use crate::{at, failure, halt, halted, hear, rest, running, step_report, tell};

fn pause(machine: &mut Worker, now: u64) -> Vec<Command> {
    hear(machine, CoordinatorMessage::Pause { generation: Generation(2), recorded: Step(7) }, now)
}

fn paused() -> Event {
    Event::Paused(Generation(2))
}

fn says_halted(unrecorded: u64) -> [Command; 1] {
    let unrecorded = (8..8 + unrecorded).map(step_report).collect();
    [Command::Send(WorkerMessage::Halted(halted(Some(8), unrecorded)))]
}

#[test]
fn it_finishes_the_step_and_says_what_it_holds() {
    let mut machine = running();
    assert_eq!(pause(&mut machine, 1), [Command::PauseAfterStep]);
    assert_eq!(tell(&mut machine, Event::Stepped(step_report(8)), 2).len(), 1);
    assert_eq!(tell(&mut machine, paused(), 3), []);
    assert_eq!(rest(&mut machine, 4), says_halted(1));
}

#[test]
fn one_that_hears_of_it_from_its_ring_first_says_so_when_it_is_told() {
    let mut machine = running();
    tell(&mut machine, paused(), 1);
    let mut still_busy = machine.clone();
    assert_eq!(rest(&mut machine, 2), []);
    assert_eq!(pause(&mut machine, 3), says_halted(0));
    assert_eq!(pause(&mut still_busy, 2), []);
    assert_eq!(rest(&mut still_busy, 3), says_halted(0));
}

#[test]
fn a_halt_that_comes_in_between_interrupts_it() {
    let mut machine = running();
    pause(&mut machine, 1);
    let mut resting = machine.clone();
    assert_eq!(halt(&mut machine, 2), [Command::Halt]);
    assert!(machine.handle(paused(), at(3)).is_err(), "training was told to end");
    assert_eq!(rest(&mut machine, 4), says_halted(0));

    tell(&mut resting, paused(), 2);
    assert_eq!(halt(&mut resting, 3), [], "nothing is left to interrupt");
    assert_eq!(rest(&mut resting, 4), says_halted(0));
}

#[test]
fn one_that_loses_a_peer_before_it_rests_waits_to_be_halted() {
    let mut machine = running();
    pause(&mut machine, 1);
    let report = failure(FailureKind::PeerLost(Rank(1)), "reset");
    assert_eq!(tell(&mut machine, Event::Failed(report.clone()), 2), [Command::Send(WorkerMessage::Failed(report))]);
    assert_eq!(rest(&mut machine, 3), []);
    let again = Event::Message(CoordinatorMessage::Pause { generation: Generation(2), recorded: Step(7) });
    assert!(matches!(machine.handle(again, at(4)), Err(Rejected::OutOfOrder { what: "Pause", .. })));
    assert_eq!(halt(&mut machine, 5), says_halted(0));
}

#[test]
fn one_that_rests_while_the_coordinator_is_away_comes_back_as_one_that_waits() {
    let mut machine = running();
    pause(&mut machine, 1);
    tell(&mut machine, Event::Disconnected { cause: "reset".into() }, 2);
    let mut asked = machine.clone();
    tell(&mut machine, paused(), 3);
    assert_eq!(tell(&mut machine, Event::Reconnected, 4), [], "its threads do not rest yet");
    let commands = rest(&mut machine, 5);
    let [Command::Send(WorkerMessage::Register(Register { returning: Some(said), .. }))] = &commands[..] else {
        panic!("{commands:?}")
    };
    assert_eq!(said.whence, Whence::Halted(halted(Some(8), Vec::new())));
    let back = CoordinatorMessage::TakenBack { generation: Generation(2), recorded: Step(7) };
    assert_eq!(hear(&mut machine, back.clone(), 6), []);

    // It has said that it works, and then rests before it is answered.
    assert_eq!(tell(&mut asked, Event::Reconnected, 4).len(), 1);
    tell(&mut asked, paused(), 5);
    let mut late = asked.clone();
    assert_eq!(rest(&mut asked, 6), []);
    assert_eq!(hear(&mut asked, back.clone(), 7), says_halted(0));
    assert_eq!(hear(&mut late, back, 6), []);
    assert_eq!(rest(&mut late, 7), says_halted(0));
}
