//! A run goes on when workers are lost, leave, hang, deviate or come: the generation ends for everyone, and the next begins at the
//! furthest state that most of them hold.

use std::time::Duration;

use strath_core::{Digest, Generation, Rank, Step, WorkerId};
use strath_protocol::message::{
    Assign, CoordinatorMessage, Ending, FailureKind, FailureReport, Halted, Phase, Purpose, State, WorkerMessage,
};
use strath_protocol::{
    Connection, Coordinator, CoordinatorCommand as Command, CoordinatorEvent as Event, Gather, Outcome, Record,
    Rejected, Settings,
};

use crate::support::{
    address, at, failed, failure, finished, halted, handle, join, lost, pause, peer_lost, prepared, progress, run_with,
    running, saved, say, send, settings, state, step_report,
};

fn halt(worker: u64, generation: u64, recorded: u64) -> Command {
    send(worker, CoordinatorMessage::Halt { generation: Generation(generation), recorded: Step(recorded) })
}

/// The assignments among commands: whose, and what they say.
pub(crate) fn assigned(commands: &[Command]) -> Vec<(u64, &Assign)> {
    let mut found = Vec::new();
    for command in commands {
        if let Command::Send { connection, message: CoordinatorMessage::Assign(assign) } = command {
            found.push((connection.0, assign));
        }
    }
    found
}

/// What a generation was recorded with: number, ranks, step, cause.
pub(crate) fn recorded(commands: &[Command]) -> Option<(u64, u64, u64, &str)> {
    commands.iter().find_map(|command| match command {
        Command::Record(Record::Generation { generation, members, step, cause, .. }) => {
            Some((generation.0, members.len() as u64, step.0, cause.as_str()))
        }
        _ => None,
    })
}

pub(crate) fn handover(generation: u64, step: u64) -> WorkerMessage {
    WorkerMessage::State(State { generation: Generation(generation), ..state(step, Purpose::Handover) })
}

/// A machine of many hosts with this many workers at work.
pub(crate) fn many(workers: u64) -> Coordinator {
    let gather = Gather::AtLeast { workers: 1, quiet: Duration::from_millis(100) };
    let mut machine = Coordinator::new(settings(gather), at(0));
    for worker in 0..workers {
        join(&mut machine, worker, 0);
        say(&mut machine, worker, WorkerMessage::Prepared(prepared()), 0);
    }
    handle(&mut machine, Event::Tick, 100);
    for worker in 0..workers {
        say(
            &mut machine,
            worker,
            WorkerMessage::RingReady { generation: Generation(5), gpu: None, communicator: None },
            100,
        );
    }
    assert_eq!(machine.status(at(100)).stage, "running");
    machine
}

#[test]
fn without_a_lost_worker_the_others_go_on_from_the_step_they_hold() {
    let mut machine = running(3);
    say(&mut machine, 0, WorkerMessage::Step(step_report(1)), 1);
    let what = "worker 1 (h1, 127.0.0.1:9001) was lost at step 0 in phase ascent: reset";
    assert_eq!(
        lost(&mut machine, 1, "reset", 2),
        [
            Command::Close(Connection(1)),
            Command::Record(Record::Warning(format!("{what}; the run goes on without it"))),
            halt(0, 5, 1),
            halt(2, 5, 1),
        ]
    );
    assert_eq!(machine.status(at(2)).stage, "regrouping");
    // That its process has ended is known.
    assert_eq!(handle(&mut machine, Event::ProcessEnded { pid: 1, cause: "signal 9".into() }, 3), []);
    assert_eq!(say(&mut machine, 2, halted(5, Some((1, 7)), 202), 4), []);
    let commands = say(&mut machine, 0, halted(5, Some((1, 7)), 200), 5);
    assert!(
        matches!(&commands[0], Command::PersistGeneration { generation: Generation(6), members, next_worker: 3, .. }
        if members.len() == 2)
    );
    assert_eq!(recorded(&commands), Some((6, 2, 1, what)));
    let assigned = assigned(&commands);
    assert_eq!(assigned.iter().map(|(worker, assign)| (*worker, assign.rank.0)).collect::<Vec<_>>(), [(0, 0), (2, 1)]);
    for (_, assign) in &assigned {
        assert!(assign.keeps && assign.unsettled && assign.state.is_none() && assign.start == Step(1), "{assign:?}");
        let rings: Vec<_> = assign.members.iter().map(|member| (member.worker, member.ring_address)).collect();
        assert_eq!(
            rings,
            [(WorkerId(0), address(200)), (WorkerId(2), address(202))],
            "listeners of the new generation"
        );
    }
    assert!(!commands.iter().any(|c| matches!(c, Command::Send { message: CoordinatorMessage::State(_), .. })));
}

#[test]
fn whoever_is_behind_is_sent_the_state_of_one_who_is_not() {
    let mut machine = running(3);
    lost(&mut machine, 0, "reset", 1);
    assert_eq!(say(&mut machine, 1, halted(5, Some((1, 7)), 201), 2), []);
    let asked = send(2, CoordinatorMessage::SendState { generation: Generation(5) });
    assert_eq!(say(&mut machine, 2, halted(5, Some((2, 8)), 202), 3), [asked]);
    // Nobody else's state is taken for it.
    let other = Event::Message { connection: Connection(1), message: handover(5, 2) };
    assert!(matches!(machine.handle(other, at(4)), Err(Rejected::OutOfOrder { what: "State", .. })));
    let commands = say(&mut machine, 2, handover(5, 2), 5);
    let assigned = assigned(&commands);
    let [(1, behind), (2, ahead)] = assigned[..] else { panic!("{assigned:?}") };
    assert!(ahead.keeps && ahead.state.is_none(), "{ahead:?}");
    let named = behind.state.clone().unwrap();
    assert!(!behind.keeps && behind.start == Step(2), "{behind:?}");
    assert_eq!((named.model, named.optimizer), (Digest::of(&[1]), Some(Digest::of(&[2]))));
    assert!(named.source.contains("worker 2 (h2"), "{}", named.source);
    let sent = State { generation: Generation(6), ..state(2, Purpose::Start) };
    let states: Vec<&Command> =
        commands.iter().filter(|c| matches!(c, Command::Send { message: CoordinatorMessage::State(_), .. })).collect();
    assert_eq!(states, [&send(1, CoordinatorMessage::State(sent))]);
}

#[test]
fn whoever_was_to_hand_over_its_state_and_is_lost_leaves_the_others_to_theirs() {
    let mut machine = running(3);
    lost(&mut machine, 0, "reset", 1);
    say(&mut machine, 1, halted(5, Some((1, 7)), 201), 2);
    say(&mut machine, 2, halted(5, Some((2, 8)), 202), 3);
    let commands = lost(&mut machine, 2, "reset", 4);
    let generation = recorded(&commands).unwrap();
    assert_eq!((generation.0, generation.1, generation.2), (6, 1, 1), "step 2 is computed again");
}

#[test]
fn a_worker_that_hangs_is_given_up_after_its_lease_and_heard_no_more() {
    let mut machine = running(2);
    for now in (400..2000).step_by(400) {
        say(&mut machine, 0, WorkerMessage::Heartbeat(progress(1, Phase::Ascent)), now);
    }
    assert_eq!(handle(&mut machine, Event::Tick, 1999), []);
    let commands = handle(&mut machine, Event::Tick, 2000);
    assert_eq!(commands[0], Command::Close(Connection(1)));
    assert_eq!(commands[2], halt(0, 5, 0));
    let late = Event::Message { connection: Connection(1), message: finished(9, 3, false) };
    assert_eq!(machine.handle(late, at(2001)), Err(Rejected::UnknownConnection(1)));
}

#[test]
fn a_newcomer_that_cannot_take_part_leaves_the_run_alone() {
    let mut machine = many(1);
    join(&mut machine, 1, 200);
    let report = FailureReport {
        generation: Generation(0),
        step: Step(0),
        phase: Phase::Preparing,
        kind: FailureKind::Configuration,
        message: "no such file".into(),
    };
    let commands = say(&mut machine, 1, WorkerMessage::Failed(report), 201);
    let message = "worker 1 (h1, 127.0.0.1:9001) failed at step 0 in phase preparing: no such file";
    assert_eq!(commands[0], send(1, CoordinatorMessage::End(Ending::Failed(message.into()))));
    assert_eq!(machine.status(at(202)).stage, "running");
}

#[test]
fn a_worker_that_wants_to_leave_is_let_go_once_the_others_do_without_it() {
    let mut machine = running(2);
    let retiring = WorkerMessage::Retiring;
    assert_eq!(say(&mut machine, 1, retiring, 1), [pause(0, 0), pause(1, 0)]);
    say(&mut machine, 1, halted(5, Some((2, 7)), 201), 2);
    let commands = say(&mut machine, 0, halted(5, Some((2, 7)), 200), 3);
    assert_eq!(commands[..2], [send(1, CoordinatorMessage::End(Ending::Released)), Command::Close(Connection(1))]);
    let cause = "worker 1 (h1, 127.0.0.1:9001) leaves at step 0 in phase ascent";
    assert_eq!(recorded(&commands), Some((6, 1, 2, cause)));
}

#[test]
fn the_last_that_leaves_hands_its_state_over_and_the_run_waits_for_others() {
    let mut machine = many(1);
    say(&mut machine, 0, WorkerMessage::Retiring, 150);
    let asked = send(0, CoordinatorMessage::SendState { generation: Generation(5) });
    assert_eq!(say(&mut machine, 0, halted(5, Some((2, 7)), 200), 160), [asked]);
    let commands = say(&mut machine, 0, handover(5, 2), 170);
    let kept = State { generation: Generation(5), ..state(2, Purpose::Checkpoint) };
    let released = [send(0, CoordinatorMessage::End(Ending::Released)), Command::Close(Connection(0))];
    assert_eq!(commands, [&[Command::Save(kept)][..], &released].concat());
    assert_eq!(saved(&mut machine, 2, Purpose::Checkpoint, 180), []);
    let mut in_vain = machine.clone();

    join(&mut machine, 1, 200);
    let commands = say(&mut machine, 1, WorkerMessage::Prepared(prepared()), 210);
    assert_eq!(recorded(&commands).map(|(generation, _, step, _)| (generation, step)), Some((6, 2)));
    assert!(assigned(&commands)[0].1.state.is_some());

    for now in (500..300_170).step_by(500) {
        assert_eq!(handle(&mut in_vain, Event::Tick, now), [], "at {now} ms");
    }
    let message = "worker 0 (h0, 127.0.0.1:9000) leaves at step 0 in phase ascent; then 0 of the 1 workers that are needed \
                   were there, for 300 s";
    let end = [Command::Finish(Outcome::Failed { message: message.into() })];
    assert_eq!(handle(&mut in_vain, Event::Tick, 300_170), end);
}

#[test]
fn with_every_process_of_this_machine_ended_nobody_is_waited_for() {
    let mut machine = running(2);
    for pid in 0..2 {
        let commands = handle(&mut machine, Event::ProcessEnded { pid, cause: "signal 9".into() }, 1 + u64::from(pid));
        assert_eq!(machine.status(at(2)).stage, if pid == 0 { "regrouping" } else { "ended" }, "{commands:?}");
    }
}

#[test]
fn steps_that_rank_0_could_not_report_any_more_are_recorded_from_the_others_once() {
    let mut machine = running(3);
    say(&mut machine, 0, WorkerMessage::Step(step_report(1)), 1);
    lost(&mut machine, 0, "reset", 2);
    let halted = |ring| {
        WorkerMessage::Halted(Halted {
            generation: Generation(5),
            held: Some((Step(3), Digest([7; 32]))),
            ring_address: address(ring),
            unrecorded: vec![step_report(2), step_report(3)],
            evaluations: Vec::new(),
        })
    };
    let noted = [2, 3].map(|step| Command::Record(Record::Step(step_report(step))));
    assert_eq!(say(&mut machine, 1, halted(201), 3), noted);
    let commands = say(&mut machine, 2, halted(202), 4);
    assert!(!commands.iter().any(|command| matches!(command, Command::Record(Record::Step(_)))), "{commands:?}");
}

#[test]
fn a_rank_that_deviates_is_named_and_given_the_others_state() {
    let mut machine = running(3);
    let deviates = || failed(FailureKind::Deviates(Rank(1)), "holds another state after step 1");
    let message = "worker 1 (h1, 127.0.0.1:9001) holds another state after step 1";
    let commands = say(&mut machine, 0, deviates(), 1);
    assert_eq!(commands[0], Command::Record(Record::Warning(message.into())));
    assert_eq!(commands[1..], [halt(0, 5, 0), halt(1, 5, 0), halt(2, 5, 0)]);
    assert_eq!(say(&mut machine, 2, deviates(), 1), [], "it is said once");
    say(&mut machine, 0, halted(5, Some((1, 7)), 200), 2);
    say(&mut machine, 2, halted(5, Some((1, 7)), 202), 2);
    let asked = send(0, CoordinatorMessage::SendState { generation: Generation(5) });
    assert_eq!(say(&mut machine, 1, halted(5, Some((1, 9)), 201), 3), [asked]);
    let commands = say(&mut machine, 0, handover(5, 1), 4);
    let keeps: Vec<bool> = assigned(&commands).iter().map(|(_, assign)| assign.keeps).collect();
    assert_eq!(keeps, [true, false, true]);
}

#[test]
fn two_that_hold_different_states_of_a_step_are_both_sent_back_to_what_is_kept() {
    let mut machine = running(2);
    say(&mut machine, 0, WorkerMessage::State(state(1, Purpose::Checkpoint)), 1);
    say(&mut machine, 0, peer_lost(1), 2);
    say(&mut machine, 0, halted(5, Some((2, 7)), 200), 3);
    let commands = say(&mut machine, 1, halted(5, Some((2, 9)), 201), 4);
    let warned =
        |c: &Command| matches!(c, Command::Record(Record::Warning(w)) if w.contains("2 different states of step 2"));
    assert!(commands.iter().any(warned), "{commands:?}");
    assert_eq!(recorded(&commands).map(|(_, world, step, _)| (world, step)), Some((2, 1)));
    assert!(assigned(&commands).iter().all(|(_, assign)| !assign.keeps && assign.state.is_some()));
}

#[test]
fn a_ring_that_broke_between_two_that_live_is_made_again() {
    let mut machine = running(2);
    let commands = say(&mut machine, 0, peer_lost(1), 1);
    assert_eq!(commands, [halt(0, 5, 0), halt(1, 5, 0)]);
    assert_eq!(say(&mut machine, 1, peer_lost(0), 2), [], "of two reports the first counts");
    say(&mut machine, 0, halted(5, Some((1, 7)), 200), 3);
    let commands = say(&mut machine, 1, halted(5, Some((1, 7)), 201), 4);
    let cause = "the ring to worker 1 (h1, 127.0.0.1:9001) broke at step 1 in phase reduce, says worker 0 (h0, \
                 127.0.0.1:9000): reset";
    assert_eq!(recorded(&commands), Some((6, 2, 1, cause)));

    // Where they do not reach each other then either, one of them is given up, and may come back.
    let commands = not_connected(&mut machine, 6, 100);
    let [Command::Send { connection, message: CoordinatorMessage::End(Ending::Outdated(message)) }, ..] = &commands[..]
    else {
        panic!("{commands:?}")
    };
    assert!(connection.0 == 1 && message.starts_with("the ring between worker"), "{commands:?}");
    assert_eq!(commands.last(), Some(&halt(0, 6, 0)));
    let commands = say(&mut machine, 0, halted(6, Some((1, 7)), 200), 601);
    assert_eq!(recorded(&commands).map(|(generation, world, step, _)| (generation, world, step)), Some((7, 1, 1)));
}

#[test]
fn of_hosts_that_do_not_reach_each_other_one_is_left_out_and_tried_again() {
    let on_host = |generation: u64, worker: u64| {
        let WorkerMessage::Halted(halted) = halted(generation, Some((1, 7)), 200 + worker) else { unreachable!() };
        let ring_address = std::net::SocketAddr::from(([10, 0, 0, worker as u8], 7000));
        WorkerMessage::Halted(Halted { ring_address, ..halted })
    };
    let mut machine = running(3);
    assert_eq!(say(&mut machine, 0, peer_lost(1), 1), [halt(0, 5, 0), halt(1, 5, 0), halt(2, 5, 0)]);
    for worker in 0..3 {
        say(&mut machine, worker, on_host(5, worker), 3);
    }
    // All three live on: what broke is between the hosts of two.
    let commands = not_connected(&mut machine, 6, 100);
    assert_eq!(commands, [halt(0, 6, 0), halt(1, 6, 0), halt(2, 6, 0)]);
    let mut commands = Vec::new();
    for worker in 0..3 {
        commands = say(&mut machine, worker, on_host(6, worker), 601);
    }
    let says_who = |c: &Command| {
        matches!(c, Command::Record(Record::Warning(w)) if w.contains("without worker 1 (h1")
            && w.contains("its host 10.0.0.1 and 10.0.0.0 do not reach each other"))
    };
    assert!(commands.iter().any(says_who), "{commands:?}");
    assert_eq!(recorded(&commands).map(|(generation, world, step, _)| (generation, world, step)), Some((7, 2, 1)));
    for worker in [0, 2] {
        say(
            &mut machine,
            worker,
            WorkerMessage::RingReady { generation: Generation(7), gpu: None, communicator: None },
            602,
        );
    }
    // Five seconds after they had not found each other it is fed, as one that comes.
    let is_fed = |commands: &[Command]| {
        commands.iter().any(
            |c| matches!(c, Command::Send { message: CoordinatorMessage::Follow(_), connection } if connection.0 == 1),
        )
    };
    let mut told = |ms: u64| handle(&mut machine, Event::Tick, ms);
    assert!(!is_fed(&told(3000)) && !is_fed(&told(5599)));
    assert!(is_fed(&told(5600)));
}

/// Two ranks of a generation do not reach each other; what the coordinator does about it.
fn not_connected(machine: &mut Coordinator, generation: u64, ms: u64) -> Vec<Command> {
    let unreachable = |rank: u32| {
        let WorkerMessage::Failed(report) = peer_lost(rank) else { unreachable!() };
        WorkerMessage::Failed(FailureReport { generation: Generation(generation), ..report })
    };
    assert_eq!(say(machine, 0, unreachable(1), ms), []);
    assert_eq!(say(machine, 1, unreachable(0), ms + 1), []);
    handle(machine, Event::Tick, ms + 500)
}

#[test]
fn whoever_wants_the_end_between_two_generations_gets_a_checkpoint_of_what_is_held() {
    let mut machine = running(2);
    lost(&mut machine, 1, "reset", 1);
    assert_eq!(handle(&mut machine, Event::StopRequested, 2), []);
    let asked = send(0, CoordinatorMessage::SendState { generation: Generation(5) });
    assert_eq!(say(&mut machine, 0, halted(5, Some((2, 7)), 200), 3), [asked]);
    let kept = State { generation: Generation(5), ..state(2, Purpose::Checkpoint) };
    assert_eq!(say(&mut machine, 0, handover(5, 2), 4), [Command::Save(kept)]);
    let commands = saved(&mut machine, 2, Purpose::Checkpoint, 5);
    assert_eq!(commands.last(), Some(&Command::Finish(Outcome::Stopped { step: Some(Step(2)) })));
}

#[test]
fn fewer_than_are_needed_wait_for_others() {
    let mut settings = settings(Gather::AtLeast { workers: 2, quiet: Duration::ZERO });
    settings.config.cluster.min_workers = 2;
    let mut machine = run_with(Settings { ..settings }, 2);
    lost(&mut machine, 1, "reset", 1);
    // What is held is written down: nobody may be left in the end.
    let asked = send(0, CoordinatorMessage::SendState { generation: Generation(5) });
    assert_eq!(say(&mut machine, 0, halted(5, Some((1, 7)), 200), 2), [asked]);
    let kept = State { generation: Generation(5), ..state(1, Purpose::Checkpoint) };
    assert_eq!(say(&mut machine, 0, handover(5, 1), 3), [Command::Save(kept)]);
    assert_eq!(machine.status(at(3)).stage, "regrouping");
    // However late another one comes, whoever waits is not given up for it.
    for now in (500..250_000).step_by(500) {
        say(&mut machine, 0, WorkerMessage::Heartbeat(progress(1, Phase::Waiting)), now);
    }
    join(&mut machine, 2, 250_000);
    let commands = say(&mut machine, 2, WorkerMessage::Prepared(prepared()), 250_001);
    assert_eq!(recorded(&commands).map(|(generation, world, step, _)| (generation, world, step)), Some((6, 2, 1)));
}

#[test]
fn what_belongs_to_another_generation_is_passed_over() {
    let mut machine = running(2);
    lost(&mut machine, 1, "reset", 1);
    let before = machine.clone();
    let stale = Event::Message { connection: Connection(0), message: halted(4, Some((9, 9)), 200) };
    assert_eq!(machine.handle(stale, at(2)), Err(Rejected::StaleGeneration { what: "Halted", found: 4, expected: 5 }));
    assert_eq!(machine, before);
    say(&mut machine, 0, halted(5, Some((1, 7)), 200), 3);
    let late = Event::Message { connection: Connection(0), message: WorkerMessage::Step(step_report(2)) };
    assert!(machine.handle(late, at(4)).is_err(), "it has a new place");
}

#[test]
fn a_run_that_fails_for_its_own_reasons_still_ends() {
    let mut machine = running(2);
    lost(&mut machine, 1, "reset", 1);
    let commands = say(&mut machine, 0, failed(FailureKind::Own, "the loss is not finite"), 2);
    assert!(failure(&commands).contains("the loss is not finite"), "{commands:?}");
}

#[test]
fn once_all_have_come_to_the_end_nobody_is_needed_any_more() {
    let mut machine = running(2);
    say(&mut machine, 0, WorkerMessage::State(state(3, Purpose::Final)), 1);
    say(&mut machine, 0, finished(9, 3, false), 2);
    assert_eq!(say(&mut machine, 1, finished(9, 3, false), 3), []);
    assert_eq!(lost(&mut machine, 1, "reset", 4), [Command::Close(Connection(1))]);
    assert_eq!(say(&mut machine, 0, WorkerMessage::Retiring, 5), []);
    let commands = saved(&mut machine, 3, Purpose::Final, 6);
    let done = Outcome::Done { steps: Step(3), weights: Digest([9; 32]) };
    assert_eq!(commands.last(), Some(&Command::Finish(done)));
}

#[test]
fn a_fault_of_one_machine_is_the_end_of_that_worker_only() {
    let mut machine = running(2);
    let commands = say(&mut machine, 1, failed(FailureKind::Machine, "it panicked"), 1);
    let message = "worker 1 (h1, 127.0.0.1:9001) failed at step 1 in phase reduce: it panicked";
    assert_eq!(commands[0], send(1, CoordinatorMessage::End(Ending::Failed(message.into()))));
    assert_eq!(commands.last(), Some(&halt(0, 5, 0)));
}

#[test]
fn a_ring_that_never_holds_ends_the_run() {
    let mut machine = running(2);
    for generation in 5.. {
        let WorkerMessage::Failed(report) = peer_lost(1) else { unreachable!() };
        let report = FailureReport { generation: Generation(generation), ..report };
        let commands = say(&mut machine, 0, WorkerMessage::Failed(report), generation);
        if machine.status(at(generation)).stage != "regrouping" {
            assert!(failure(&commands).contains("10 generations have ended without a step"), "{commands:?}");
            assert_eq!(generation, 15);
            break;
        }
        for worker in 0..2 {
            say(&mut machine, worker, halted(generation, Some((1, 7)), 200 + worker), generation);
        }
        for worker in 0..2 {
            say(
                &mut machine,
                worker,
                WorkerMessage::RingReady { generation: Generation(generation + 1), gpu: None, communicator: None },
                generation,
            );
        }
    }
}
