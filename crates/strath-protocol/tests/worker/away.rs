//! A worker whose coordinator is out of sight goes on, keeps what there is to tell, and tells it when it is taken back.

use strath_core::{Digest, Generation, Rank, RunId, Step, WorkerId};
use strath_protocol::message::{
    CoordinatorMessage, Ending, FailureKind, Finished, Phase, Purpose, Register, Returning, State, Whence,
    WorkerMessage,
};
use strath_protocol::{Worker, WorkerCommand as Command, WorkerEvent as Event, WorkerOutcome};

use crate::{assign, drain, failure, halted, hear, prepared, progress, register, running, state, step_report, tell};

fn returning(whence: Whence) -> Command {
    let returning = Returning { run: RunId(1), worker: WorkerId(3), prepared: prepared(), whence };
    Command::Send(WorkerMessage::Register(Register { returning: Some(Box::new(returning)), ..register() }))
}

fn taken_back(machine: &mut Worker, generation: u64, recorded: u64, now: u64) -> Vec<Command> {
    let message = CoordinatorMessage::TakenBack { generation: Generation(generation), recorded: Step(recorded) };
    hear(machine, message, now)
}

fn lose(machine: &mut Worker, now: u64) {
    let commands = tell(machine, Event::Disconnected { cause: "reset".into() }, now);
    assert!(matches!(&commands[..], [Command::Reconnect { .. }]), "{commands:?}");
}

fn rested(step: u64) -> Event {
    Event::Rested {
        generation: Generation(2),
        held: Some((Step(step), Digest([4; 32]))),
        ring_address: "127.0.0.1:99".parse().unwrap(),
    }
}

const WORKING: Whence = Whence::Working(Generation(2));

#[test]
fn at_work_it_goes_on_and_tells_what_is_not_on_record() {
    let mut machine = running();
    assert_eq!(tell(&mut machine, Event::Stepped(step_report(8)), 5).len(), 1);
    lose(&mut machine, 10);
    for (event, now) in [
        (Event::Stepped(step_report(9)), 11),
        (Event::StateReady(State { purpose: Purpose::Checkpoint, ..state() }), 12),
        (Event::Progress(progress(9, Phase::Ascent)), 13),
        (Event::Tick, 60_000),
    ] {
        assert_eq!(tell(&mut machine, event, now), [], "nobody is there to hear it");
    }
    assert_eq!(tell(&mut machine, Event::Reconnected, 60_001), [returning(WORKING)]);
    let last = State { purpose: Purpose::Final, ..state() };
    assert_eq!(tell(&mut machine, Event::StateReady(last.clone()), 60_002), []);
    let finished = Finished { generation: Generation(2), step: Step(9), weights: Digest([3; 32]), stopped: false };
    assert_eq!(tell(&mut machine, Event::Finished(finished), 60_003), []);
    let told = [
        WorkerMessage::Step(step_report(9)),
        WorkerMessage::State(State { purpose: Purpose::Checkpoint, ..state() }),
        WorkerMessage::State(last.clone()),
        WorkerMessage::Finished(finished),
    ];
    let commands = taken_back(&mut machine, 2, 8, 60_004);
    assert_eq!(commands[..4], told.map(Command::Send));
    assert!(matches!(commands[4..], [Command::Send(WorkerMessage::Heartbeat(_))]), "it is overdue");
    // A coordinator that is lost before it has kept the end hears of it again.
    lose(&mut machine, 60_005);
    tell(&mut machine, Event::Reconnected, 60_006);
    let checkpoint = State { purpose: Purpose::Checkpoint, ..state() };
    let again = [WorkerMessage::State(checkpoint), WorkerMessage::State(last), WorkerMessage::Finished(finished)];
    assert_eq!(taken_back(&mut machine, 2, 9, 60_007), again.map(Command::Send));
    assert_eq!(hear(&mut machine, CoordinatorMessage::End(Ending::Done), 60_008), [Command::Exit(WorkerOutcome::Done)]);
}

#[test]
fn a_coordinator_that_does_not_answer_is_looked_for_again_and_one_that_has_gone_on_is_joined_as_a_newcomer() {
    let mut machine = running();
    lose(&mut machine, 10);
    lose(&mut machine, 10_020);
    tell(&mut machine, Event::Reconnected, 10_030);
    for now in (12_000..20_000).step_by(2000) {
        assert_eq!(tell(&mut machine, Event::Tick, now), []);
    }
    assert_eq!(tell(&mut machine, Event::Tick, 20_030), [Command::Reconnect { lost: None }]);
    tell(&mut machine, Event::Reconnected, 20_040);
    let commands = hear(&mut machine, CoordinatorMessage::End(Ending::Outdated("generation 3".into())), 20_050);
    assert!(
        matches!(&commands[..], [Command::Exit(WorkerOutcome::Outdated { message })] if message.contains("generation 3"))
    );
}

#[test]
fn a_ring_that_breaks_meanwhile_leaves_the_state_to_come_back_with() {
    let mut machine = running();
    tell(&mut machine, Event::Stepped(step_report(8)), 5);
    lose(&mut machine, 10);
    tell(&mut machine, Event::Reconnected, 11);
    // Too late to say so with the registration: it is told after it.
    let report = failure(FailureKind::PeerLost(Rank(1)), "reset");
    assert_eq!(tell(&mut machine, Event::Failed(report.clone()), 12), []);
    let mut late = machine.clone();
    let told = [WorkerMessage::Step(step_report(8)), WorkerMessage::Failed(report)].map(Command::Send);
    assert_eq!(taken_back(&mut late, 2, 7, 13), told);
    // In time.
    lose(&mut machine, 13);
    assert_eq!(tell(&mut machine, Event::Reconnected, 14), [], "its threads do not rest yet");
    let whence = halted(Some(8), vec![step_report(8)]);
    let commands = tell(&mut machine, rested(8), 15);
    let [Command::Send(WorkerMessage::Register(Register { returning: Some(said), .. }))] = &commands[..] else {
        panic!("{commands:?}")
    };
    assert_eq!(said.whence, Whence::Halted(whence));
    assert_eq!(taken_back(&mut machine, 5, 7, 16), []);
    // It is one that waits for the next generation, and can be asked for its state in the coordinator's.
    let message = CoordinatorMessage::SendState { generation: Generation(5) };
    assert_eq!(hear(&mut machine, message, 17), [Command::HandOver(Generation(5))]);
}

#[test]
fn while_it_connects_it_leaves_the_generation_as_nobody_can_start_it() {
    let mut machine = running();
    hear(&mut machine, CoordinatorMessage::Halt { generation: Generation(2), recorded: Step(7) }, 1);
    tell(&mut machine, rested(8), 2);
    let next =
        strath_protocol::message::Assign { generation: Generation(3), start: Step(8), keeps: true, ..assign(false) };
    hear(&mut machine, CoordinatorMessage::Assign(next), 3);
    let commands = tell(&mut machine, Event::Disconnected { cause: "reset".into() }, 4);
    let lost = "the coordinator at 127.0.0.1:7 was lost: reset, at step 8 in phase connecting".into();
    assert_eq!(commands, [Command::Halt, Command::Reconnect { lost: Some(lost) }]);
}

#[test]
fn what_has_nothing_to_do_waits_no_longer_than_it_is_told() {
    let mut machine = running();
    let finished = Finished { generation: Generation(2), step: Step(9), weights: Digest([3; 32]), stopped: false };
    tell(&mut machine, Event::Finished(finished), 1);
    lose(&mut machine, 10);
    let (outcome, now) = loop {
        let now = machine.next_deadline().unwrap().0.as_millis() as u64;
        if let Some(Command::Exit(outcome)) = tell(&mut machine, Event::Tick, now).pop() {
            break (outcome, now);
        }
    };
    assert!((300_000..302_000).contains(&now), "{now}");
    let WorkerOutcome::Failed { message } = outcome else { panic!("{outcome:?}") };
    assert!(message.contains("was lost: reset") && message.contains("rejoin_timeout_s"), "{message}");
}

#[test]
fn asked_to_stop_it_leaves_at_once_and_its_own_fault_ends_it() {
    let mut machine = running();
    lose(&mut machine, 10);
    let mut diverged = machine.clone();
    assert_eq!(tell(&mut machine, Event::StopRequested, 11), [Command::Exit(WorkerOutcome::Stopped)]);
    let report = failure(FailureKind::Own, "diverged");
    let outcome = WorkerOutcome::Failed { message: "diverged".into() };
    assert_eq!(tell(&mut diverged, Event::Failed(report), 11), [Command::Exit(outcome)]);
    assert_eq!(drain(&mut diverged), []);
}
