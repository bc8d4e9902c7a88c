//! The worker's machine by whole command lists: a run from its introduction to its end, and every way it ends.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod away;
mod following;
mod pause;

use std::time::Duration;

use proptest::prelude::*;
use strath_core::{Digest, Generation, Rank, RunId, Step, Telemetry, Ticket, Timestamp, WorkerId};
use strath_protocol::message::{
    Admitted, Assign, CoordinatorMessage, DataSummary, Ending, EvalReport, FailureKind, FailureReport, Finished,
    Halted, Job, Phase, PhaseSeconds, Prepared, Progress, Purpose, Register, Split, State, StateRef, StepReport,
    WorkerMessage,
};
use strath_protocol::{Rejected, Worker, WorkerCommand as Command, WorkerEvent as Event, WorkerOutcome};

fn at(ms: u64) -> Timestamp {
    Timestamp(Duration::from_millis(ms))
}

fn register() -> Register {
    let ring_address = "127.0.0.1:5".parse().unwrap();
    let (version, host) = ("1".into(), "h".into());
    Register { version, token: None, ring_address, host, pid: 1, nonce: 1, cores: 2, returning: None }
}

fn admitted() -> Admitted {
    Admitted {
        worker: WorkerId(3),
        run: RunId(1),
        configuration: "[run]".into(),
        job: Job::Train,
        lease: Duration::from_secs(2),
        rejoin_timeout: Duration::from_secs(300),
    }
}

fn prepared() -> Prepared {
    let data = DataSummary {
        digest: Digest([1; 32]),
        train_examples: 1,
        validation_examples: 0,
        test_examples: 1,
        channels: 1,
        height: 1,
        width: 1,
        classes: 2,
        mean: vec![0.0],
        std: vec![1.0],
    };
    Prepared { data, parameters: 1, statistics: 0, numerics: Digest([2; 32]), gpu: None }
}

fn state() -> State {
    State {
        generation: Generation(2),
        step: Step(7),
        purpose: Purpose::Start,
        model: [1].into(),
        optimizer: [2].into(),
    }
}

fn assign(with_state: bool) -> Assign {
    let named = StateRef { source: "step-7".into(), model: Digest::of(&[1]), optimizer: Some(Digest::of(&[2])) };
    Assign {
        generation: Generation(2),
        rank: Rank(0),
        members: Vec::new(),
        bounds: vec![0, 1],
        start: Step(7),
        steps: Step(9),
        state: with_state.then_some(named),
        keeps: false,
        unsettled: false,
        some_are_sent: false,
        ticket: Ticket([9; 32]),
    }
}

fn drain(machine: &mut Worker) -> Vec<Command> {
    std::iter::from_fn(|| machine.poll_command()).collect()
}

fn tell(machine: &mut Worker, event: Event, now: u64) -> Vec<Command> {
    machine.handle(event, at(now)).unwrap();
    drain(machine)
}

fn hear(machine: &mut Worker, message: CoordinatorMessage, now: u64) -> Vec<Command> {
    tell(machine, Event::Message(message), now)
}

fn progress(step: u64, phase: Phase) -> Progress {
    Progress { generation: Generation(2), step: Step(step), phase, images_per_s: 0.0 }
}

/// A failure in the reduction of step 9.
fn failure(kind: FailureKind, message: &str) -> FailureReport {
    let (generation, step, phase) = (Generation(2), Step(8), Phase::Reduce);
    FailureReport { generation, step, phase, kind, message: message.into() }
}

fn running() -> Worker {
    let mut machine = Worker::new("127.0.0.1:7".into(), register(), at(0));
    hear(&mut machine, CoordinatorMessage::Admitted(admitted()), 0);
    tell(&mut machine, Event::Prepared(prepared()), 0);
    hear(&mut machine, CoordinatorMessage::Assign(assign(false)), 0);
    tell(&mut machine, Event::RingConnected { generation: Generation(2), gpu: None, communicator: None }, 0);
    hear(&mut machine, CoordinatorMessage::Start { generation: Generation(2), communicator: None }, 0);
    machine
}

#[test]
fn a_run_from_the_introduction_to_its_end() {
    let mut machine = Worker::new("127.0.0.1:7".into(), register(), at(0));
    assert_eq!(drain(&mut machine), [Command::Send(WorkerMessage::Register(register()))]);
    assert_eq!(hear(&mut machine, CoordinatorMessage::Admitted(admitted()), 1), [Command::Prepare(admitted())]);
    assert_eq!(
        tell(&mut machine, Event::Prepared(prepared()), 2),
        [Command::Send(WorkerMessage::Prepared(prepared()))]
    );
    assert_eq!(hear(&mut machine, CoordinatorMessage::Assign(assign(true)), 3), [], "the state is still to come");
    assert_eq!(
        hear(&mut machine, CoordinatorMessage::State(state()), 4),
        [Command::Connect { assign: assign(true), state: Some(state()) }]
    );
    let ready = WorkerMessage::RingReady { generation: Generation(2), gpu: None, communicator: None };
    assert_eq!(
        tell(&mut machine, Event::RingConnected { generation: Generation(2), gpu: None, communicator: None }, 5),
        [Command::Send(ready)]
    );
    assert_eq!(
        hear(&mut machine, CoordinatorMessage::Start { generation: Generation(2), communicator: None }, 6),
        [Command::Run { communicator: None }]
    );
    assert_eq!(tell(&mut machine, Event::Progress(progress(8, Phase::Reduce)), 7), []);
    let beat = progress(8, Phase::Reduce);
    assert_eq!(tell(&mut machine, Event::Tick, 500), [Command::Send(WorkerMessage::Heartbeat(beat))]);
    assert_eq!(
        hear(&mut machine, CoordinatorMessage::Stop { generation: Generation(2) }, 501),
        [Command::StopAfterStep]
    );
    let finished = Finished { generation: Generation(2), step: Step(9), weights: Digest([3; 32]), stopped: false };
    assert_eq!(tell(&mut machine, Event::Finished(finished), 502), [Command::Send(WorkerMessage::Finished(finished))]);
    assert_eq!(hear(&mut machine, CoordinatorMessage::End(Ending::Done), 503), [Command::Exit(WorkerOutcome::Done)]);
    assert_eq!(machine.handle(Event::Tick, at(504)), Err(Rejected::Ended));
}

fn message(commands: &[Command]) -> &str {
    match commands.last() {
        Some(Command::Exit(WorkerOutcome::Failed { message } | WorkerOutcome::Lost { message })) => message,
        other => panic!("expected a failure, found {other:?}"),
    }
}

#[test]
fn a_coordinator_that_is_lost_or_silent_ends_the_worker_with_its_address_step_and_phase() {
    // One that has no part in a generation yet; with one it goes on (see `away`).
    let mut lost = Worker::new("127.0.0.1:7".into(), register(), at(0));
    hear(&mut lost, CoordinatorMessage::Admitted(admitted()), 0);
    tell(&mut lost, Event::Prepared(prepared()), 5);
    let mut silent = lost.clone();
    let commands = tell(&mut lost, Event::Disconnected { cause: "reset".into() }, 10);
    assert_eq!(message(&commands), "the coordinator at 127.0.0.1:7 was lost: reset, at step 0 in phase waiting");
    for now in (500..3000).step_by(500) {
        assert_eq!(tell(&mut silent, Event::Tick, now).len(), 1, "it beats on");
    }
    let commands = tell(&mut silent, Event::Tick, 3000);
    assert!(message(&commands).contains("was silent for 3000 ms, at step 0"), "{commands:?}");
    let mut unanswered = Worker::new("127.0.0.1:7".into(), register(), at(0));
    drain(&mut unanswered);
    for now in (1000..10_000).step_by(1000) {
        assert_eq!(tell(&mut unanswered, Event::Tick, now), []);
    }
    assert!(message(&tell(&mut unanswered, Event::Tick, 10_000)).contains("was silent"));
}

#[test]
fn a_speed_is_told_once() {
    let mut machine = running();
    let said = |images_per_s| Progress { images_per_s, ..progress(8, Phase::Reduce) };
    for (images_per_s, now) in [(9.0, 10), (0.0, 20)] {
        assert_eq!(tell(&mut machine, Event::Progress(said(images_per_s)), now), []);
    }
    for (now, told) in [(600, 9.0), (1200, 0.0)] {
        assert_eq!(tell(&mut machine, Event::Tick, now), [Command::Send(WorkerMessage::Heartbeat(said(told)))]);
    }
}

#[test]
fn a_worker_that_was_itself_stalled_gives_the_coordinator_time_to_be_heard() {
    let mut machine = running();
    let commands = tell(&mut machine, Event::Tick, 60_000);
    assert!(matches!(commands[..], [Command::Send(WorkerMessage::Heartbeat(_))]), "{commands:?}");
    assert_eq!(hear(&mut machine, CoordinatorMessage::Ack, 60_001), []);
}

#[test]
fn a_failure_is_reported_and_the_coordinators_last_word_is_what_the_worker_says() {
    let mut machine = running();
    let report = failure(FailureKind::PeerLost(Rank(1)), "reset");
    assert_eq!(
        tell(&mut machine, Event::Failed(report.clone()), 5),
        [Command::Send(WorkerMessage::Failed(report.clone()))]
    );
    assert!(machine.handle(Event::Failed(report), at(6)).is_err(), "one report is enough");
    let commands = hear(&mut machine, CoordinatorMessage::End(Ending::Failed("worker 1 was lost".into())), 7);
    assert_eq!(message(&commands), "worker 1 was lost");
}

#[test]
fn a_failure_is_not_forgotten_where_the_coordinator_is_lost_as_well() {
    let mut machine = running();
    let report = failure(FailureKind::Own, "no memory");
    tell(&mut machine, Event::Failed(report), 5);
    assert_eq!(
        message(&tell(&mut machine, Event::Disconnected { cause: "reset".into() }, 6)),
        "no memory; then the coordinator at 127.0.0.1:7 was lost: reset, at step 8 in phase reduce"
    );
}

#[test]
fn what_training_tells_is_passed_on_in_order() {
    let mut machine = running();
    let step = StepReport {
        generation: Generation(2),
        step: Step(8),
        clean_loss: 1.0,
        perturbed_loss: 1.5,
        lr: 0.1,
        gradient_norm: 2.0,
        epsilon_norm: 0.05,
        zero_gradient_lanes: 0,
        telemetry: Telemetry::default(),
        seconds: 0.25,
        phases: PhaseSeconds::default(),
    };
    let eval = EvalReport { generation: Generation(2), step: Step(8), split: Split::Test, loss: 1.0, error: 0.5 };
    let checkpoint = State { purpose: Purpose::Checkpoint, ..state() };
    for event in [Event::Stepped(step.clone()), Event::Evaluated(eval.clone()), Event::StateReady(checkpoint.clone())] {
        machine.handle(event, at(1)).unwrap();
    }
    let passed = [WorkerMessage::Step(step), WorkerMessage::Eval(eval), WorkerMessage::State(checkpoint)];
    assert_eq!(drain(&mut machine), passed.map(Command::Send));
}

#[test]
fn its_deadlines_alone_make_a_worker_beat_and_give_up() {
    let mut machine = Worker::new("127.0.0.1:7".into(), register(), at(0));
    drain(&mut machine);
    let mut unanswered = machine.clone();
    for now in [2500, 5000, 7500] {
        assert_eq!(unanswered.next_deadline(), Some(at(now)));
        assert_eq!(tell(&mut unanswered, Event::Tick, now), [], "nothing to beat for before it is admitted");
    }
    assert_eq!(unanswered.next_deadline(), Some(at(10_000)));
    assert!(message(&tell(&mut unanswered, Event::Tick, 10_000)).contains("was silent for 10000 ms"));

    hear(&mut machine, CoordinatorMessage::Admitted(admitted()), 100);
    assert_eq!(machine.next_deadline(), Some(at(500)));
    let beat = |phase| {
        let progress = Progress { generation: Generation(0), step: Step(0), phase, images_per_s: 0.0 };
        vec![Command::Send(WorkerMessage::Heartbeat(progress))]
    };
    assert_eq!(tell(&mut machine, Event::Tick, 500), beat(Phase::Preparing));
    assert_eq!(tell(&mut machine, Event::Tick, 999), []);
    assert_eq!(tell(&mut machine, Event::Tick, 1000), beat(Phase::Preparing));
    assert_eq!(machine.next_deadline(), Some(at(1500)));
}

#[test]
fn a_refusal_and_the_end_of_whoever_started_it_end_the_worker() {
    let mut machine = Worker::new("127.0.0.1:7".into(), register(), at(0));
    drain(&mut machine);
    let commands = hear(&mut machine, CoordinatorMessage::End(Ending::Refused("version".into())), 1);
    assert_eq!(message(&commands), "refused by the coordinator at 127.0.0.1:7: version");
    let commands = tell(&mut running(), Event::LeaveRequested { reason: "terminated".into() }, 1);
    let leaving = WorkerMessage::Leaving { generation: Generation(2), reason: "terminated".into() };
    assert_eq!(commands[0], Command::Send(leaving));
    assert_eq!(message(&commands), "left the run: terminated");
}

#[test]
fn a_worker_leaves_on_a_signal_once_the_others_do_without_it_and_at_once_before_it_has_a_part() {
    let mut machine = running();
    let retiring = WorkerMessage::Retiring;
    assert_eq!(tell(&mut machine, Event::StopRequested, 1), [Command::Send(retiring)]);
    let mut impatient = machine.clone();
    let leaving = WorkerMessage::Leaving { generation: Generation(2), reason: "stopped by a signal".into() };
    assert_eq!(
        tell(&mut impatient, Event::StopRequested, 2),
        [Command::Send(leaving), Command::Exit(WorkerOutcome::Stopped)]
    );
    // The others go on without it.
    assert_eq!(halt(&mut machine, 2), [Command::Halt]);
    assert_eq!(rest(&mut machine, 3), [Command::Send(WorkerMessage::Halted(halted(Some(8), Vec::new())))]);
    assert_eq!(
        hear(&mut machine, CoordinatorMessage::End(Ending::Released), 4),
        [Command::Exit(WorkerOutcome::Released)]
    );

    let mut early = Worker::new("127.0.0.1:7".into(), register(), at(0));
    hear(&mut early, CoordinatorMessage::Admitted(admitted()), 0);
    let leaving = WorkerMessage::Leaving { generation: Generation(0), reason: "stopped by a signal".into() };
    assert_eq!(
        tell(&mut early, Event::StopRequested, 1),
        [Command::Send(leaving), Command::Exit(WorkerOutcome::Stopped)]
    );
}

fn halt(machine: &mut Worker, now: u64) -> Vec<Command> {
    hear(machine, CoordinatorMessage::Halt { generation: Generation(2), recorded: Step(7) }, now)
}

/// The threads of generation 2 end, with the state of step 8.
fn rest(machine: &mut Worker, now: u64) -> Vec<Command> {
    let held = Some((Step(8), Digest([4; 32])));
    tell(machine, Event::Rested { generation: Generation(2), held, ring_address: "127.0.0.1:99".parse().unwrap() }, now)
}

fn halted(step: Option<u64>, unrecorded: Vec<StepReport>) -> Halted {
    Halted {
        generation: Generation(2),
        held: step.map(|step| (Step(step), Digest([4; 32]))),
        ring_address: "127.0.0.1:99".parse().unwrap(),
        unrecorded,
        evaluations: Vec::new(),
    }
}

fn step_report(step: u64) -> StepReport {
    StepReport {
        generation: Generation(2),
        step: Step(step),
        clean_loss: 1.0,
        perturbed_loss: 2.0,
        lr: 0.1,
        gradient_norm: 1.0,
        epsilon_norm: 0.1,
        zero_gradient_lanes: 0,
        telemetry: Telemetry::default(),
        seconds: 0.5,
        phases: PhaseSeconds::default(),
    }
}

#[test]
fn a_generation_that_is_over_is_left_with_the_state_and_what_was_not_recorded() {
    let mut machine = running();
    tell(&mut machine, Event::Stepped(step_report(7)), 1);
    assert_eq!(halt(&mut machine, 2), [Command::Halt]);
    // A step may be complete before training hears of the end.
    tell(&mut machine, Event::Stepped(step_report(8)), 3);
    let said = halted(Some(8), vec![step_report(8)]);
    assert_eq!(rest(&mut machine, 4), [Command::Send(WorkerMessage::Halted(said))]);
    assert!(machine.handle(Event::Stepped(step_report(9)), at(5)).is_err());

    let mut asked = machine.clone();
    let send = CoordinatorMessage::SendState { generation: Generation(2) };
    assert_eq!(hear(&mut asked, send, 6), [Command::HandOver(Generation(2))]);
    let handed = State { purpose: Purpose::Handover, ..state() };
    assert_eq!(tell(&mut asked, Event::StateReady(handed.clone()), 7), [Command::Send(WorkerMessage::State(handed))]);

    let kept = Assign { generation: Generation(3), start: Step(8), keeps: true, ..assign(false) };
    let other = Assign { start: Step(9), ..kept.clone() };
    assert!(
        machine.handle(Event::Message(CoordinatorMessage::Assign(other)), at(8)).is_err(),
        "it holds no such state"
    );
    assert_eq!(
        hear(&mut machine, CoordinatorMessage::Assign(kept.clone()), 8),
        [Command::Connect { assign: kept, state: None }]
    );
}

#[test]
fn a_lost_peer_is_reported_and_the_generation_left_once_it_is_over_for_all() {
    let mut machine = running();
    let report = failure(FailureKind::PeerLost(Rank(1)), "reset");
    tell(&mut machine, Event::Failed(report), 1);
    assert_eq!(rest(&mut machine, 2), [], "it is told when the generation is over");
    assert_eq!(halt(&mut machine, 3), [Command::Send(WorkerMessage::Halted(halted(Some(8), Vec::new())))]);
    let again = Event::Message(CoordinatorMessage::Halt { generation: Generation(2), recorded: Step(7) });
    assert!(machine.handle(again, at(4)).is_err(), "once");
}

#[test]
fn a_ring_that_is_being_connected_is_given_up_and_one_whose_state_is_still_to_come_holds_none() {
    let mut machine = Worker::new("127.0.0.1:7".into(), register(), at(0));
    hear(&mut machine, CoordinatorMessage::Admitted(admitted()), 0);
    tell(&mut machine, Event::Prepared(prepared()), 0);
    let mut receiving = machine.clone();
    hear(&mut machine, CoordinatorMessage::Assign(assign(false)), 0);
    assert_eq!(halt(&mut machine, 1), [Command::Halt]);
    assert!(
        machine
            .handle(Event::RingConnected { generation: Generation(2), gpu: None, communicator: None }, at(2))
            .is_err()
    );
    assert_eq!(rest(&mut machine, 3), [Command::Send(WorkerMessage::Halted(halted(Some(8), Vec::new())))]);

    hear(&mut receiving, CoordinatorMessage::Assign(assign(true)), 0);
    let said = Halted { ring_address: register().ring_address, ..halted(None, Vec::new()) };
    assert_eq!(halt(&mut receiving, 1), [Command::Send(WorkerMessage::Halted(said))]);
    assert!(
        receiving.handle(Event::Message(CoordinatorMessage::State(state())), at(2)).is_err(),
        "it is not for it now"
    );
}

#[test]
fn a_failure_of_its_own_while_it_leaves_a_generation_is_one() {
    let mut machine = running();
    halt(&mut machine, 1);
    let report = |kind| Event::Failed(failure(kind, "not finite"));
    assert!(machine.handle(report(FailureKind::PeerLost(Rank(1))), at(2)).is_err(), "the ring is ended on purpose");
    let commands = tell(&mut machine, report(FailureKind::Own), 3);
    assert!(matches!(commands[..], [Command::Send(WorkerMessage::Failed(_))]), "{commands:?}");
}

#[test]
fn a_state_with_other_bytes_than_announced_is_refused() {
    let mut machine = Worker::new("127.0.0.1:7".into(), register(), at(0));
    hear(&mut machine, CoordinatorMessage::Admitted(admitted()), 0);
    tell(&mut machine, Event::Prepared(prepared()), 0);
    hear(&mut machine, CoordinatorMessage::Assign(assign(true)), 0);
    let commands = hear(&mut machine, CoordinatorMessage::State(State { model: [9].into(), ..state() }), 1);
    assert!(message(&commands).contains("step-7"), "{commands:?}");
}

#[test]
fn what_comes_out_of_order_is_rejected_and_changes_nothing() {
    let mut machine = running();
    let before = machine.clone();
    for event in [
        Event::Message(CoordinatorMessage::Admitted(admitted())),
        Event::Message(CoordinatorMessage::Assign(assign(false))),
        Event::Message(CoordinatorMessage::State(state())),
        Event::Message(CoordinatorMessage::Start { generation: Generation(2), communicator: None }),
        Event::Prepared(prepared()),
        Event::RingConnected { generation: Generation(2), gpu: None, communicator: None },
    ] {
        assert!(machine.handle(event.clone(), at(1)).is_err(), "{event:?}");
        assert_eq!(machine, before);
    }
}

fn any_coordinator_message() -> impl Strategy<Value = CoordinatorMessage> {
    let generation = (1u64..3).prop_map(Generation);
    prop_oneof![
        4 => Just(CoordinatorMessage::Admitted(admitted())),
        4 => (any::<bool>(), generation.clone()).prop_map(|(with_state, generation)| {
            CoordinatorMessage::Assign(Assign { generation, ..assign(with_state) })
        }),
        4 => (prop::bool::weighted(0.9), generation.clone()).prop_map(|(whole, generation)| {
            CoordinatorMessage::State(State { generation, model: [u8::from(whole)].into(), ..state() })
        }),
        4 => generation.prop_map(|generation| CoordinatorMessage::Start { generation, communicator: None }),
        2 => Just(CoordinatorMessage::Ack),
        2 => Just(CoordinatorMessage::Stop { generation: Generation(2) }),
        4 => (1u64..3).prop_map(|generation| {
            CoordinatorMessage::Pause { generation: Generation(generation), recorded: Step(7) }
        }),
        4 => (1u64..3).prop_map(|generation| {
            CoordinatorMessage::Halt { generation: Generation(generation), recorded: Step(7) }
        }),
        2 => (1u64..3).prop_map(|generation| CoordinatorMessage::SendState { generation: Generation(generation) }),
        2 => (1u64..3).prop_map(|generation| {
            let generation = Generation(generation);
            CoordinatorMessage::Assign(Assign { generation, start: Step(8), keeps: true, ..assign(false) })
        }),
        1 => Just(CoordinatorMessage::End(Ending::Done)),
        1 => Just(CoordinatorMessage::End(Ending::Failed(String::new()))),
        1 => Just(CoordinatorMessage::End(Ending::Outdated(String::new()))),
        4 => (1u64..3).prop_map(|generation| {
            CoordinatorMessage::TakenBack { generation: Generation(generation), recorded: Step(7) }
        }),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    let generation = (1u64..3).prop_map(Generation);
    prop_oneof![
        20 => any_coordinator_message().prop_map(Event::Message),
        2 => Just(Event::Disconnected { cause: String::new() }),
        3 => Just(Event::Reconnected),
        4 => Just(Event::Tick),
        6 => Just(Event::Prepared(prepared())),
        6 => generation.prop_map(|generation| Event::RingConnected { generation, gpu: None, communicator: None }),
        4 => (0u64..9).prop_map(|step| Event::Progress(progress(step, Phase::Ascent))),
        2 => Just(Event::StateReady(state())),
        1 => Just(Event::StateReady(State { purpose: Purpose::Handover, ..state() })),
        4 => (1u64..3, any::<bool>()).prop_map(|(generation, holds)| Event::Rested {
            generation: Generation(generation),
            held: holds.then_some((Step(8), Digest([4; 32]))),
            ring_address: "127.0.0.1:99".parse().unwrap(),
        }),
        2 => Just(Event::Finished(Finished {
            generation: Generation(2),
            step: Step(9),
            weights: Digest([3; 32]),
            stopped: false
        })),
        2 => (1u64..3).prop_map(|generation| Event::Paused(Generation(generation))),
        1 => Just(Event::Failed(failure(FailureKind::Own, ""))),
        1 => Just(Event::LeaveRequested { reason: String::new() }),
        1 => Just(Event::StopRequested),
    ]
}

proptest! {
    #[test]
    fn no_sequence_of_events_panics_a_rejected_one_changes_nothing_and_one_exit_is_the_last(
        begun in any::<bool>(), events in prop::collection::vec((any_event(), 0u64..400), 0..60)
    ) {
        let mut machine = if begun { running() } else { Worker::new("127.0.0.1:7".into(), register(), at(0)) };
        drain(&mut machine);
        let (mut now, mut exits) = (0, 0);
        for (event, later) in events {
            now += later;
            let before = machine.clone();
            if machine.handle(event, at(now)).is_err() {
                prop_assert_eq!(&machine, &before);
            }
            let commands = drain(&mut machine);
            prop_assert!(exits == 0 || commands.is_empty(), "nothing comes after the exit");
            exits += commands.iter().filter(|c| matches!(c, Command::Exit(_))).count();
            prop_assert_eq!(machine.next_deadline().is_none(), exits == 1);
        }
        // A coordinator that says nothing more is given up, by the deadlines that the machine asks for.
        // Without one, training that is at work goes on to its end.
        for generation in [1, 2, 3] {
            let finished = Finished {
                generation: Generation(generation),
                step: Step(9),
                weights: Digest([3; 32]),
                stopped: false,
            };
            let _ = machine.handle(Event::Finished(finished), at(now));
        }
        let (begun, mut last) = (at(now), at(now));
        while let Some(deadline) = machine.next_deadline() {
            last = deadline.max(last);
            machine.handle(Event::Tick, last).unwrap();
            prop_assert!(machine.next_deadline().is_none_or(|next| next > last), "a deadline that is over would spin");
            prop_assert!(last.since(begun) <= Duration::from_secs(12 + 302), "it waits for ever");
        }
    }
}
