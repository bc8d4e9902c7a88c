//! A worker that joins is fed by one at work, and has a part in the next generation once it holds what the others do.

use strath_core::{Digest, Generation, Rank, RingKey, RunId, Step, WorkerId};
use strath_protocol::message::{CoordinatorMessage, Feed, Follow, Holds, Member, Phase, WorkerMessage};
use strath_protocol::{
    Connection, Coordinator, CoordinatorCommand as Command, CoordinatorEvent as Event, Gather, Record, Rejected,
    Settings,
};

use crate::regroup::{assigned, handover, many, recorded};
use crate::support::{
    address, at, config, halted, handle, join, lost, pause, prepared, progress, run_with, say, send, settings,
    step_report,
};

fn member(worker: u64) -> Member {
    Member { worker: WorkerId(worker), ring_address: address(100 + worker) }
}

/// What donor and newcomer are told of their feed in generation 5.
fn fed(donor: u64, newcomer: u64) -> [Command; 2] {
    let generation = Generation(5);
    let ticket = RingKey([9; 16]).feed_ticket(RunId(7), generation, WorkerId(donor), WorkerId(newcomer));
    let follow = Follow { generation, from: member(donor), steps: Step(3), ticket };
    let feed = Feed { generation, to: member(newcomer), ticket };
    [send(newcomer, CoordinatorMessage::Follow(follow)), send(donor, CoordinatorMessage::Feed(feed))]
}

fn caught_up(step: u64) -> WorkerMessage {
    WorkerMessage::CaughtUp { generation: Generation(5), step: Step(step) }
}

fn holds(generation: u64, held: Option<(u64, u8)>, broken: Option<&str>) -> WorkerMessage {
    WorkerMessage::Holds(Holds {
        generation: Generation(generation),
        held: held.map(|(step, state)| (Step(step), Digest([state; 32]))),
        broken: broken.map(Into::into),
    })
}

/// Two at work, and worker 2 that follows.
fn followed() -> Coordinator {
    let mut machine = many(2);
    say(&mut machine, 0, WorkerMessage::Step(step_report(1)), 150);
    join(&mut machine, 2, 200);
    assert_eq!(say(&mut machine, 2, WorkerMessage::Prepared(prepared()), 200), [], "others may be about to come");
    assert_eq!(handle(&mut machine, Event::Tick, 299), []);
    // Not rank 0, which writes checkpoints.
    assert_eq!(handle(&mut machine, Event::Tick, 300), fed(1, 2));
    machine
}

#[test]
fn a_worker_that_comes_is_fed_and_nobody_is_sent_a_state() {
    let mut machine = followed();
    assert_eq!(machine.status(at(300)).stage, "running");
    assert_eq!(say(&mut machine, 0, WorkerMessage::Step(step_report(2)), 310).len(), 1, "the others go on");
    assert_eq!(say(&mut machine, 2, caught_up(1), 320), [pause(0, 2), pause(1, 2)]);
    // Whichever comes last, everyone is waited for.
    assert_eq!(say(&mut machine, 0, halted(5, Some((2, 7)), 200), 321), []);
    assert_eq!(say(&mut machine, 1, halted(5, Some((2, 7)), 201), 322), []);
    let commands = say(&mut machine, 2, holds(5, Some((2, 7)), None), 323);
    assert_eq!(recorded(&commands), Some((6, 3, 2, "worker 2 (h2, 127.0.0.1:9002) joined")));
    let assigned = assigned(&commands);
    assert!(assigned.iter().all(|(_, assign)| assign.keeps && assign.start == Step(2) && !assign.some_are_sent));
    assert_eq!(
        assigned.iter().map(|(worker, assign)| (*worker, assign.rank.0)).collect::<Vec<_>>(),
        [(0, 0), (1, 1), (2, 2)]
    );
}

/// The last decisions with their reasons, the newest last.
fn decided(machine: &Coordinator, now: u64, count: usize) -> Vec<(String, String)> {
    let mut decisions = machine.status(at(now)).decisions;
    decisions.split_off(decisions.len() - count).into_iter().map(|decided| (decided.what, decided.why)).collect()
}

#[test]
fn who_feeds_whom_is_told_with_its_reason() {
    let fed = ("has worker 2 fed by worker 1".into(), "it came while generation 5 is at work".into());
    assert_eq!(decided(&followed(), 300, 1), [fed]);
}

#[test]
fn one_that_never_comes_close_is_sent_the_state_while_steps_go_on() {
    let settings = settings(Gather::Exactly(2));
    let mut machine = run_with(Settings { config: config(&["run.steps=1000"]), ..settings }, 2);
    join(&mut machine, 2, 300);
    assert_eq!(say(&mut machine, 2, WorkerMessage::Prepared(prepared()), 300).len(), 2, "it is fed");
    for step in 1..=600 {
        let now = 300 + 1000 * step;
        let mut commands = say(&mut machine, 2, WorkerMessage::Heartbeat(progress(0, Phase::Waiting)), now - 10);
        for worker in 0..2 {
            let beat = WorkerMessage::Heartbeat(progress(step, Phase::Descent));
            commands.extend(say(&mut machine, worker, beat, now - 10));
        }
        commands.extend(say(&mut machine, 0, WorkerMessage::Step(step_report(step)), now));
        let is_answer = |c: &Command| matches!(c, Command::Send { message: CoordinatorMessage::Ack, .. });
        commands.retain(|command| matches!(command, Command::Send { .. }) && !is_answer(command));
        assert_eq!(commands, if step < 600 { vec![] } else { vec![pause(0, 600), pause(1, 600)] }, "{step}");
    }
    let told = [
        ("sends worker 2 the state with the next generation", "it has not caught up in 600 s of being fed"),
        ("ends generation 5 after the step under way", "worker 2 (h2, 127.0.0.1:9002) joined"),
    ];
    assert_eq!(decided(&machine, 600_300, 2), told.map(|(what, why)| (what.into(), why.into())));
}

#[test]
fn a_newcomer_with_another_digest_than_the_others_is_sent_their_state() {
    let mut machine = followed();
    say(&mut machine, 2, caught_up(1), 320);
    say(&mut machine, 2, holds(5, Some((2, 66)), None), 321);
    say(&mut machine, 0, halted(5, Some((2, 7)), 200), 322);
    let asked = send(0, CoordinatorMessage::SendState { generation: Generation(5) });
    assert_eq!(say(&mut machine, 1, halted(5, Some((2, 7)), 201), 323), [asked]);
    let commands = say(&mut machine, 0, handover(5, 2), 324);
    let keeps: Vec<bool> = assigned(&commands).iter().map(|(_, assign)| assign.keeps).collect();
    assert_eq!(keeps, [true, true, false]);
}

#[test]
fn a_newcomer_that_could_not_be_fed_is_sent_the_state() {
    let mut machine = followed();
    let commands = say(&mut machine, 2, holds(5, Some((1, 7)), Some("worker 1 feeds it no more: reset")), 320);
    let warning = "worker 2 (h2, 127.0.0.1:9002) could not follow the others and is sent the state: worker 1 feeds it no more: reset";
    assert_eq!(commands, [Command::Record(Record::Warning(warning.into())), pause(0, 1), pause(1, 1)]);
    say(&mut machine, 0, halted(5, Some((2, 7)), 200), 321);
    let asked = send(0, CoordinatorMessage::SendState { generation: Generation(5) });
    assert_eq!(say(&mut machine, 1, halted(5, Some((2, 7)), 201), 322), [asked]);
    let commands = say(&mut machine, 0, handover(5, 2), 323);
    assert_eq!(recorded(&commands).map(|(generation, ranks, step, _)| (generation, ranks, step)), Some((6, 3, 2)));
}

#[test]
fn two_newcomers_are_fed_by_two_and_join_together() {
    let mut machine = many(3);
    for worker in [3, 4] {
        join(&mut machine, worker, 200);
        say(&mut machine, worker, WorkerMessage::Prepared(prepared()), 200);
    }
    assert_eq!(handle(&mut machine, Event::Tick, 300), [fed(1, 3), fed(2, 4)].concat());
    assert_eq!(say(&mut machine, 3, caught_up(0), 310), [], "the other is waited for");
    assert_eq!(say(&mut machine, 4, caught_up(0), 311), [pause(0, 0), pause(1, 0), pause(2, 0)]);
    for worker in 0..3 {
        say(&mut machine, worker, halted(5, Some((1, 7)), 200 + worker), 312);
    }
    assert_eq!(say(&mut machine, 4, holds(5, Some((1, 7)), None), 313), []);
    let commands = say(&mut machine, 3, holds(5, Some((1, 7)), None), 314);
    let joined = "worker 3 (h3, 127.0.0.1:9003), worker 4 (h4, 127.0.0.1:9004) joined";
    assert_eq!(recorded(&commands), Some((6, 5, 1, joined)));
}

#[test]
fn a_generation_that_ends_otherwise_does_not_wait_for_one_that_is_far_behind() {
    let mut machine = followed();
    lost(&mut machine, 0, "reset", 310);
    let commands = say(&mut machine, 1, halted(5, Some((1, 7)), 201), 311);
    assert_eq!(recorded(&commands).map(|(generation, ranks, step, _)| (generation, ranks, step)), Some((6, 1, 1)));
    say(&mut machine, 1, WorkerMessage::RingReady { generation: Generation(6), gpu: None, communicator: None }, 312);
    // It follows the next one.
    let commands = say(&mut machine, 2, holds(5, None, Some("closed")), 313);
    let follows = |command: &Command| {
        matches!(command, Command::Send { message: CoordinatorMessage::Follow(follow), .. }
            if follow.generation == Generation(6) && follow.from.worker == WorkerId(1))
    };
    assert!(commands.iter().any(follows) && !commands.iter().any(|c| matches!(c, Command::Record(_))), "{commands:?}");
}

#[test]
fn one_that_follows_is_called_in_where_too_few_are_left() {
    let mut machine = many(1);
    join(&mut machine, 1, 200);
    say(&mut machine, 1, WorkerMessage::Prepared(prepared()), 200);
    assert_eq!(handle(&mut machine, Event::Tick, 300), fed(0, 1));
    // Its donor, the only one at work, is lost before it was close: from the seed.
    let commands = lost(&mut machine, 0, "reset", 302);
    assert_eq!(recorded(&commands).map(|(generation, ranks, step, _)| (generation, ranks, step)), Some((6, 1, 0)));
    let late = Event::Message { connection: Connection(1), message: holds(5, Some((1, 7)), None) };
    assert!(matches!(machine.handle(late, at(303)), Err(Rejected::OutOfOrder { what: "Holds", .. })));
}

#[test]
fn the_run_goes_on_with_what_was_fed_where_the_donor_was_the_last() {
    let mut machine = many(1);
    say(&mut machine, 0, WorkerMessage::Step(step_report(1)), 150);
    join(&mut machine, 1, 200);
    say(&mut machine, 1, WorkerMessage::Prepared(prepared()), 200);
    handle(&mut machine, Event::Tick, 300);
    say(&mut machine, 1, caught_up(1), 301);
    say(&mut machine, 0, halted(5, None, 200), 302);
    assert_eq!(recorded(&lost(&mut machine, 0, "reset", 303)), None);
    let commands = say(&mut machine, 1, holds(5, Some((1, 7)), Some("closed")), 304);
    assert_eq!(recorded(&commands).map(|(generation, ranks, step, _)| (generation, ranks, step)), Some((6, 1, 1)));
    assert!(assigned(&commands)[0].1.keeps);
}

#[test]
fn ranks_that_have_halted_wait_a_second_for_who_is_close_behind_and_no_longer() {
    let mut machine = followed();
    say(&mut machine, 2, caught_up(1), 320);
    say(&mut machine, 0, halted(5, Some((1, 7)), 200), 321);
    assert_eq!(say(&mut machine, 1, halted(5, Some((1, 7)), 201), 322), []);
    assert_eq!(handle(&mut machine, Event::Tick, 1321), []);
    let commands = handle(&mut machine, Event::Tick, 1322);
    assert_eq!(recorded(&commands).map(|(generation, ranks, step, _)| (generation, ranks, step)), Some((6, 2, 1)));
    assert_eq!(assigned(&commands).iter().map(|(_, assign)| assign.rank).collect::<Vec<_>>(), [Rank(0), Rank(1)]);
}

#[test]
fn what_was_fed_counts_only_as_far_as_the_record_where_nobody_else_is_left() {
    for (recorded_steps, begins) in [(1, 0), (2, 2)] {
        let mut machine = followed();
        for step in 2..=recorded_steps {
            say(&mut machine, 0, WorkerMessage::Step(step_report(step)), 310);
        }
        say(&mut machine, 2, caught_up(1), 320);
        assert_eq!(say(&mut machine, 2, holds(5, Some((2, 7)), None), 321), []);
        lost(&mut machine, 0, "reset", 322);
        let commands = lost(&mut machine, 1, "reset", 323);
        let found = recorded(&commands).map(|(generation, ranks, step, _)| (generation, ranks, step));
        if begins == 0 {
            assert_eq!(found, Some((6, 1, 0)), "steps that nobody can tell of are made again");
        } else {
            assert_eq!(found, Some((6, 1, 2)));
        }
    }
}
