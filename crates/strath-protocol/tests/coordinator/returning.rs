//! A coordinator that is started again takes back the workers that went on without it.

use std::time::Duration;

use strath_core::{Generation, RunId, Step, WorkerId};
use strath_protocol::message::{
    CoordinatorMessage, Ending, EvalReport, Halted, Member, Phase, Purpose, Register, Returning, Split, StepReport,
    Whence, WorkerMessage,
};
use strath_protocol::{
    Connection, Coordinator, CoordinatorCommand as Command, CoordinatorEvent as Event, Former, Gather, Outcome, Record,
    Settings,
};

use crate::support::{
    address, at, drain, halted, handle, join, lost, persist, places, prepared, progress, register, running, say, send,
    settings, state, step_report,
};

/// Started again in generation 5 of this many workers, with 2 of 3 steps on record.
fn restarted(workers: u64) -> Coordinator {
    let member = |worker| Member { worker: WorkerId(worker), ring_address: address(100 + worker) };
    let members = (0..workers).map(member).collect();
    // The first does what the others leave.
    let bounds = [0].into_iter().chain((0..workers as usize).map(|left| 5 + left - workers as usize)).collect();
    let former = Former {
        members,
        bounds,
        next_worker: workers,
        recorded: Step(2),
        evaluated: Some((Step(1), Split::Test)),
        step_s: vec![0.1; 8],
    };
    let gather = Gather::AtLeast { workers: 1, quiet: Duration::from_millis(100) };
    Coordinator::new(Settings { generation: Generation(5), former, ..settings(gather) }, at(0))
}

fn come_back(machine: &mut Coordinator, connection: u64, worker: u64, whence: Whence, now: u64) -> Vec<Command> {
    let connected = Event::Connected { connection: Connection(connection), address: address(worker) };
    assert_eq!(handle(machine, connected, now), []);
    let returning = Returning { run: RunId(7), worker: WorkerId(worker), prepared: prepared(), whence };
    let register = Register { returning: Some(Box::new(returning)), ..register(worker) };
    say(machine, connection, WorkerMessage::Register(register), now)
}

fn working(generation: u64) -> Whence {
    Whence::Working(Generation(generation))
}

/// Halted in generation `generation` with a state of this step.
fn waiting(generation: u64, step: u64) -> Whence {
    let WorkerMessage::Halted(said) = halted(generation, Some((step, 7)), 200) else { unreachable!() };
    Whence::Halted(Halted { unrecorded: vec![step_report(3)], ..said })
}

fn taken(worker: u64, recorded: u64) -> Command {
    send(worker, CoordinatorMessage::TakenBack { generation: Generation(5), recorded: Step(recorded) })
}

fn halt(worker: u64, recorded: u64) -> Command {
    send(worker, CoordinatorMessage::Halt { generation: Generation(5), recorded: Step(recorded) })
}

#[test]
fn once_everyone_is_back_the_generation_goes_on_as_if_nothing_had_been() {
    let mut machine = restarted(2);
    assert_eq!(machine.status(at(0)).stage, "waiting for its workers");
    assert_eq!(come_back(&mut machine, 0, 1, working(5), 10), [taken(0, 2)]);
    let commands = come_back(&mut machine, 1, 0, working(5), 20);
    let [
        back,
        Command::Record(Record::Generation { generation: Generation(5), members, step: Step(2), .. }),
        Command::Record(Record::Started(Generation(5))),
    ] = &commands[..]
    else {
        panic!("{commands:?}")
    };
    assert_eq!(*members, places(&[(0, 3), (1, 1)]));
    assert_eq!((back, machine.status(at(20)).stage.as_str()), (&taken(1, 2), "running"));
    // Rank 0 is worker 0, whatever its session is; what is on record is not recorded twice.
    assert_eq!(say(&mut machine, 1, WorkerMessage::Step(step_report(2)), 21), []);
    let new = step_report(3);
    assert_eq!(say(&mut machine, 1, WorkerMessage::Step(new.clone()), 22), [Command::Record(Record::Step(new))]);
    let refused = Event::Message { connection: Connection(0), message: WorkerMessage::Step(step_report(3)) };
    assert!(machine.handle(refused, at(23)).is_err());
    assert_eq!(say(&mut machine, 1, WorkerMessage::State(state(3, Purpose::Final)), 24).len(), 1, "it is saved");
}

#[test]
fn what_steps_took_before_tells_who_hangs_after() {
    let mut machine = restarted(2);
    come_back(&mut machine, 0, 1, working(5), 10);
    come_back(&mut machine, 1, 0, working(5), 20);
    // Ten times the five leases that are borne of steps of 0.1 s.
    let hangs = |machine: &mut Coordinator, until: u64| {
        (250..=until).step_by(250).find(|now| {
            let said = [(0, Phase::Descent), (1, Phase::Reduce)].map(|(connection, phase)| {
                let message = WorkerMessage::Heartbeat(progress(2, phase));
                let event = Event::Message { connection: Connection(connection), message };
                machine.handle(event, at(*now)).map(|()| drain(machine)).unwrap_or_default()
            });
            let warned = |c: &Command| matches!(c, Command::Record(Record::Warning(w)) if w.contains("worker 1 (h1, 127.0.0.1:9001) hangs"));
            said.iter().flatten().any(warned)
        })
    };
    let found = hangs(&mut machine, 120_000);
    assert!(found.is_some_and(|at| (100_000..102_000).contains(&at)), "{found:?}");
}

#[test]
fn after_a_lease_it_goes_on_without_those_who_are_not_back_from_the_furthest_state() {
    let mut machine = restarted(3);
    come_back(&mut machine, 0, 0, working(5), 10);
    assert_eq!(
        come_back(&mut machine, 1, 1, waiting(5, 3), 20),
        [taken(1, 2), Command::Record(Record::Step(step_report(3))),]
    );
    let mut machine = restarted(3);
    come_back(&mut machine, 0, 0, working(5), 1000);
    come_back(&mut machine, 1, 1, waiting(5, 3), 1000);
    assert_eq!(handle(&mut machine, Event::Tick, 1500), []);
    assert_eq!(handle(&mut machine, Event::Tick, 2000), [halt(0, 3)]);
    // One that comes back now is in time for the next generation.
    assert_eq!(come_back(&mut machine, 2, 2, working(5), 2100), [taken(2, 3), halt(2, 3)]);
    say(&mut machine, 2, halted(5, Some((3, 7)), 202), 2200);
    let commands = say(&mut machine, 0, halted(5, Some((2, 6)), 201), 2300);
    let asked = send(1, CoordinatorMessage::SendState { generation: Generation(5) });
    assert!(commands.contains(&asked), "worker 0 lacks step 3, which worker 1 holds: {commands:?}");
}

#[test]
fn if_nobody_comes_back_the_record_is_cut_to_the_state_that_the_run_goes_on_from() {
    let mut machine = restarted(2);
    let commands = handle(&mut machine, Event::Tick, 2000);
    assert!(matches!(&commands[..], [Command::Record(Record::Warning(_))]), "{commands:?}");
    assert_eq!(machine.status(at(2000)).stage, "gathering");
    // One that comes late, and holds what is further, is what the run goes on from.
    let mut late = machine.clone();
    let commands = come_back(&mut late, 0, 1, waiting(5, 3), 2100);
    assert!(commands.contains(&taken(0, 2)), "{commands:?}");
    // The other may be about to come as well.
    for now in [2600, 3000, 3400, 3999] {
        say(&mut late, 0, WorkerMessage::Heartbeat(progress(3, Phase::Waiting)), now);
    }
    let commands = handle(&mut late, Event::Tick, 4000);
    let goes_on = |c: &Command| matches!(c, Command::Record(Record::Generation { step: Step(3), .. }));
    assert!(commands.iter().any(goes_on), "{commands:?}");
    // If newcomers begin before it comes, what it holds is of another course.
    join(&mut machine, 3, 2100);
    say(&mut machine, 3, WorkerMessage::Prepared(prepared()), 2100);
    let commands = handle(&mut machine, Event::Tick, 2200);
    assert_eq!(commands[0], Command::Rewind(Step(0)));
    let first = WorkerMessage::Step(StepReport { generation: Generation(6), ..step_report(1) });
    say(&mut machine, 3, WorkerMessage::RingReady { generation: Generation(6), gpu: None, communicator: None }, 2201);
    assert_eq!(say(&mut machine, 3, first, 2202).len(), 1, "it is on record anew");
    let commands = come_back(&mut machine, 2, 1, waiting(5, 3), 2300);
    assert!(matches!(&commands[..], [Command::Send { message: CoordinatorMessage::End(Ending::Outdated(_)), .. }, _]));
}

#[test]
fn whoever_works_in_another_generation_or_run_is_not_taken_back() {
    let outdated = |commands: &[Command]| {
        matches!(
            commands,
            [Command::Send { message: CoordinatorMessage::End(Ending::Outdated(_)), .. }, Command::Close(_)]
        )
    };
    let mut machine = restarted(2);
    assert!(outdated(&come_back(&mut machine, 0, 0, working(4), 10)));
    assert!(outdated(&come_back(&mut machine, 1, 9, working(5), 10)), "no member");
    come_back(&mut machine, 2, 0, working(5), 20);
    let other_host = Register { host: "elsewhere".into(), ring_address: address(300), ..register(0) };
    let returning = Returning { run: RunId(7), worker: WorkerId(0), prepared: prepared(), whence: working(5) };
    handle(&mut machine, Event::Connected { connection: Connection(3), address: address(3) }, 21);
    let twice = Register { returning: Some(Box::new(returning.clone())), ..other_host };
    assert!(outdated(&say(&mut machine, 3, WorkerMessage::Register(twice.clone()), 22)), "it is here already");
    handle(&mut machine, Event::Connected { connection: Connection(4), address: address(4) }, 23);
    let stranger = Register { returning: Some(Box::new(Returning { run: RunId(8), ..returning })), ..twice };
    let commands = say(&mut machine, 4, WorkerMessage::Register(stranger), 24);
    assert!(matches!(&commands[..], [Command::Send { message: CoordinatorMessage::End(Ending::Refused(_)), .. }, _]));
}

#[test]
fn a_coordinator_that_stood_still_has_its_workers_keep_what_they_hold() {
    // Their sessions broke; they come back to the same coordinator, which has begun to regroup.
    let mut machine = running(2);
    say(&mut machine, 0, WorkerMessage::Step(step_report(1)), 1);
    lost(&mut machine, 0, "reset", 10);
    lost(&mut machine, 1, "reset", 10);
    let commands = come_back(&mut machine, 2, 0, working(5), 20);
    assert_eq!(commands, [taken(2, 1), halt(2, 1)]);
    assert_eq!(say(&mut machine, 2, halted(5, Some((2, 7)), 100), 30), [], "the other is about to come back too");
    let mut alone = machine.clone();
    assert_eq!(come_back(&mut machine, 3, 1, working(5), 40), [taken(3, 1), halt(3, 1)]);
    let commands = say(&mut machine, 3, halted(5, Some((2, 7)), 101), 50);
    assert_eq!(commands[0], persist(6, &[0, 1], 2));
    // It is waited for no longer than a lease.
    for now in [500, 1000, 1500, 2019] {
        assert_eq!(handle(&mut alone, Event::Tick, now), [], "at {now} ms");
    }
    let waits = alone.status(at(2019)).decisions.pop().unwrap();
    assert!(waits.what == "waits for workers" && waits.why.contains("1 of the 2 workers"), "{waits:?}");
    let commands = handle(&mut alone, Event::Tick, 2020);
    assert_eq!(commands[0], persist(6, &[0], 2));
    let kept = |command: &Command| matches!(command, Command::Send { message: CoordinatorMessage::Assign(assign), .. } if assign.keeps && assign.start == Step(2));
    assert!(commands.iter().any(kept), "it goes on from what it holds: {commands:?}");
}

#[test]
fn asked_to_stop_while_nobody_is_back_it_ends_when_their_time_is_over() {
    let mut machine = restarted(2);
    assert_eq!(handle(&mut machine, Event::StopRequested, 10), []);
    assert_eq!(handle(&mut machine, Event::Tick, 2000), [Command::Finish(Outcome::Stopped { step: None })]);
}

#[test]
fn after_a_stall_of_its_own_it_waits_for_those_who_lost_it_and_for_nobody_else() {
    let mut machine = running(3);
    say(&mut machine, 0, WorkerMessage::Step(step_report(1)), 1);
    // It stood still for three seconds; two of three gave it up meanwhile, the third heard nothing of it.
    lost(&mut machine, 0, "reset", 3001);
    lost(&mut machine, 1, "reset", 3001);
    assert_eq!(say(&mut machine, 2, halted(5, Some((1, 7)), 202), 3002), []);
    come_back(&mut machine, 3, 0, working(5), 3010);
    come_back(&mut machine, 4, 1, working(5), 3011);
    assert_eq!(say(&mut machine, 3, halted(5, Some((1, 7)), 100), 3012), []);
    let commands = say(&mut machine, 4, halted(5, Some((1, 7)), 101), 3013);
    assert!(matches!(&commands[0], Command::PersistGeneration { members, .. } if members.len() == 3), "{commands:?}");

    // Without a stall the others go on as soon as they have left the generation.
    let mut machine = running(3);
    lost(&mut machine, 0, "reset", 10);
    say(&mut machine, 1, halted(5, Some((1, 7)), 101), 11);
    let commands = say(&mut machine, 2, halted(5, Some((1, 7)), 102), 12);
    assert_eq!(commands[0], persist(6, &[1, 2], 3));
}

#[test]
fn a_worker_that_comes_back_at_another_address_is_known_before_its_old_session_ends() {
    let mut machine = running(2);
    handle(&mut machine, Event::Connected { connection: Connection(2), address: address(2) }, 10);
    let returning = Returning { run: RunId(7), worker: WorkerId(1), prepared: prepared(), whence: waiting(5, 2) };
    let moved = Register { ring_address: address(300), returning: Some(Box::new(returning)), ..register(1) };
    let commands = say(&mut machine, 2, WorkerMessage::Register(moved.clone()), 10);
    assert_eq!(commands[0], Command::Close(Connection(1)));
    assert!(commands.contains(&taken(2, 0)), "{commands:?}");
    let commands = say(&mut machine, 0, halted(5, Some((2, 7)), 100), 20);
    assert!(matches!(&commands[0], Command::PersistGeneration { members, .. } if members.len() == 2), "{commands:?}");
    // Another process with its number and host is not it: in a container each process has the number 1.
    let mut machine = running(2);
    handle(&mut machine, Event::Connected { connection: Connection(2), address: address(2) }, 10);
    let other = Register { nonce: 99, ..moved };
    let commands = say(&mut machine, 2, WorkerMessage::Register(other), 10);
    assert!(matches!(&commands[..], [Command::Send { message: CoordinatorMessage::End(Ending::Outdated(_)), .. }, _]));
}

#[test]
fn what_a_worker_could_not_keep_is_named_as_missing() {
    let mut machine = restarted(2);
    come_back(&mut machine, 0, 0, working(5), 10);
    come_back(&mut machine, 1, 1, working(5), 20);
    let report = step_report(900);
    let commands = say(&mut machine, 0, WorkerMessage::Step(report.clone()), 30);
    let [Command::Record(Record::Warning(gap)), step] = &commands[..] else { panic!("{commands:?}") };
    assert!(gap.starts_with("steps 3 to 899 are on no record") && gap.contains("newest 4096"), "{gap}");
    assert_eq!(*step, Command::Record(Record::Step(report)));
    let next = WorkerMessage::Step(step_report(901));
    assert_eq!(say(&mut machine, 0, next, 31), [Command::Record(Record::Step(step_report(901)))]);

    // 100 examples in batches of 8: evaluations are due after 12, 25, 37, 50 steps, and after the last, the third.
    let evaluated = |step| EvalReport { step: Step(step), ..eval_report() };
    let commands = say(&mut machine, 0, WorkerMessage::Eval(evaluated(37)), 40);
    let [Command::Record(Record::Warning(gap)), _] = &commands[..] else { panic!("{commands:?}") };
    assert!(gap.starts_with("3 evaluations after steps 3 to 25 are on no record"), "{gap}");
    assert_eq!(say(&mut machine, 0, WorkerMessage::Eval(evaluated(50)), 41).len(), 1);
}

fn eval_report() -> EvalReport {
    EvalReport { generation: Generation(5), step: Step(1), split: Split::Test, loss: 1.0, error: 0.5 }
}
