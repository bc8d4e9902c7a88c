//! A worker that joins follows the generation at work; one at work feeds it.

use strath_core::{Digest, Generation, Step, Ticket, WorkerId};
use strath_protocol::message::{CoordinatorMessage, Feed, Follow, Holds, Member, WorkerMessage};
use strath_protocol::{Rejected, Worker, WorkerCommand as Command, WorkerEvent as Event, WorkerOutcome};

use super::{admitted, assign, at, drain, hear, prepared, register, running, tell};

fn peer() -> Member {
    Member { worker: WorkerId(8), ring_address: "127.0.0.1:8".parse().unwrap() }
}

fn follow() -> Follow {
    Follow { generation: Generation(1), from: peer(), steps: Step(9), ticket: Ticket([4; 32]) }
}

fn holds(generation: u64, step: u64) -> Holds {
    Holds { generation: Generation(generation), held: Some((Step(step), Digest([7; 32]))), broken: None }
}

fn waiting() -> Worker {
    let mut machine = Worker::new("127.0.0.1:7".into(), register(), at(0));
    hear(&mut machine, CoordinatorMessage::Admitted(admitted()), 0);
    tell(&mut machine, Event::Prepared(prepared()), 0);
    machine
}

fn following() -> Worker {
    let mut machine = waiting();
    assert_eq!(hear(&mut machine, CoordinatorMessage::Follow(follow()), 1), [Command::Follow(follow())]);
    machine
}

#[test]
fn a_newcomer_says_that_it_is_close_and_what_it_holds_and_keeps_that() {
    let mut machine = following();
    let (generation, step) = (Generation(1), Step(6));
    let said = Command::Send(WorkerMessage::CaughtUp { generation, step });
    assert_eq!(tell(&mut machine, Event::CaughtUp { generation, step }, 2), [said]);
    let said = Command::Send(WorkerMessage::Holds(holds(1, 7)));
    assert_eq!(tell(&mut machine, Event::Followed(holds(1, 7)), 3), [said]);
    let mut assign = assign(false);
    assign.keeps = true;
    let connect = Command::Connect { assign: assign.clone(), state: None };
    assert_eq!(hear(&mut machine, CoordinatorMessage::Assign(assign), 4), [connect]);
}

#[test]
fn a_newcomer_that_is_assigned_meanwhile_follows_no_more() {
    let mut machine = following();
    let connect = Command::Connect { assign: assign(false), state: None };
    assert_eq!(
        hear(&mut machine, CoordinatorMessage::Assign(assign(false)), 2),
        [Command::StopFollowing, connect],
        "in this order: the connection is not to be taken for a feed"
    );
    for late in [Event::Followed(holds(1, 7)), Event::CaughtUp { generation: Generation(1), step: Step(6) }] {
        assert!(matches!(machine.handle(late, at(3)), Err(Rejected::OutOfOrder { .. })));
    }
}

#[test]
fn what_does_not_fit_changes_nothing() {
    let mut machine = following();
    let before = machine.clone();
    for event in [
        Event::Message(CoordinatorMessage::Follow(follow())),
        Event::Message(CoordinatorMessage::Feed(Feed {
            generation: Generation(1),
            to: peer(),
            ticket: Ticket([4; 32]),
        })),
        Event::Followed(holds(2, 7)),
        Event::Followed(holds(0, 7)),
        Event::CaughtUp { generation: Generation(2), step: Step(1) },
    ] {
        assert!(machine.handle(event.clone(), at(2)).is_err(), "{event:?}");
        assert_eq!(machine, before, "{event:?}");
    }
}

#[test]
fn a_worker_at_work_feeds_a_newcomer_of_its_generation_only() {
    let mut machine = running();
    let feed = Feed { generation: Generation(2), to: peer(), ticket: Ticket([4; 32]) };
    assert_eq!(hear(&mut machine, CoordinatorMessage::Feed(feed), 1), [Command::Feed(feed)]);
    let stale = CoordinatorMessage::Feed(Feed { generation: Generation(1), ..feed });
    assert!(machine.handle(Event::Message(stale), at(2)).is_err());
}

#[test]
fn a_newcomer_that_loses_the_coordinator_follows_no_more_and_joins_again() {
    for holds_already in [false, true] {
        let mut machine = following();
        if holds_already {
            tell(&mut machine, Event::Followed(holds(1, 7)), 2);
        }
        let commands = tell(&mut machine, Event::Disconnected { cause: "reset".into() }, 3);
        assert_eq!(commands.contains(&Command::StopFollowing), !holds_already, "{commands:?}");
        assert!(matches!(commands.last(), Some(Command::Exit(WorkerOutcome::Lost { .. }))), "{commands:?}");
    }
}

#[test]
fn a_state_of_an_earlier_session_is_told_and_handed_over() {
    let mut machine = waiting();
    let said = Command::Send(WorkerMessage::Holds(holds(0, 7)));
    assert_eq!(tell(&mut machine, Event::Followed(holds(0, 7)), 1), [said]);
    let asked = CoordinatorMessage::SendState { generation: Generation(5) };
    assert_eq!(hear(&mut machine, asked, 2), [Command::HandOver(Generation(5))]);
    drain(&mut machine);
}
