//! Who may take part, and when enough have come.

use std::time::Duration;

use strath_core::{Digest, Generation, Rank, Step};
use strath_protocol::message::{CoordinatorMessage, Ending, Phase, Prepared, Progress, Register, WorkerMessage};
use strath_protocol::{
    Connection, Coordinator, CoordinatorCommand as Command, CoordinatorEvent as Event, Gather, Outcome, Record,
    Settings, Start,
};

use crate::support::{
    address, at, config, drain, end_of, evaluating, failure, handle, join, lost, persist, prepared, register, running,
    say, send, settings,
};

const QUIET: Duration = Duration::from_millis(100);

fn many() -> Coordinator {
    Coordinator::new(settings(Gather::AtLeast { workers: 1, quiet: QUIET }), at(0))
}

/// The reason, where the commands refuse this worker and do nothing else.
#[track_caller]
fn reason(commands: &[Command], worker: u64) -> &str {
    match commands {
        [
            Command::Send { connection, message: CoordinatorMessage::End(Ending::Refused(reason)) },
            Command::Close(closed),
        ] if (connection.0, closed.0) == (worker, worker) => reason,
        other => panic!("expected a refusal, found {other:?}"),
    }
}

#[test]
fn a_coordinator_of_many_machines_waits_until_none_has_come_for_a_while() {
    let mut machine = many();
    join(&mut machine, 0, 0);
    assert_eq!(say(&mut machine, 0, WorkerMessage::Prepared(prepared()), 10), []);
    join(&mut machine, 1, 60);
    assert_eq!(handle(&mut machine, Event::Tick, 115), [], "one is still preparing");
    assert_eq!(say(&mut machine, 1, WorkerMessage::Prepared(prepared()), 120), []);
    assert_eq!(machine.next_deadline(), Some(at(220)));
    assert_eq!(handle(&mut machine, Event::Tick, 220)[0], persist(5, &[0, 1], 2));
}

#[test]
fn a_coordinator_of_many_machines_gathers_on_without_workers_that_leave_and_says_so() {
    let warned = |commands: Vec<Command>, what: &str| {
        let warning = format!("worker 0 (h0, 127.0.0.1:9000) {what}; gathering goes on without it");
        assert_eq!(commands, [Command::Close(Connection(0)), Command::Record(Record::Warning(warning))]);
    };
    let mut machine = many();
    join(&mut machine, 0, 0);
    let mut left = machine.clone();
    warned(lost(&mut machine, 0, "gone", 1), "was lost at step 0 in phase preparing: gone");
    let leaving = WorkerMessage::Leaving { generation: Generation(0), reason: "terminated".into() };
    warned(say(&mut left, 0, leaving, 1), "left at step 0 in phase preparing: terminated");

    let mut silent = many();
    join(&mut silent, 0, 0);
    for now in (500..2000).step_by(500) {
        assert_eq!(handle(&mut silent, Event::Tick, now), []);
    }
    let what = "was silent for 2000 ms at step 0 in phase preparing (cluster.lease_ms = 2000)";
    warned(handle(&mut silent, Event::Tick, 2000), what);
    assert!(silent.status(at(2000)).workers.is_empty());
}

#[test]
fn those_who_are_ready_wait_for_one_that_prepares_for_a_minute_and_then_begin_without_it() {
    let mut machine = many();
    for worker in [0, 1] {
        join(&mut machine, worker, 0);
    }
    say(&mut machine, 0, WorkerMessage::Prepared(prepared()), 1000);
    let mut beat = |now: u64| {
        let progress =
            Progress { generation: Generation(0), step: Step(0), phase: Phase::Preparing, images_per_s: 0.0 };
        say(&mut machine, 0, WorkerMessage::Heartbeat(Progress { phase: Phase::Waiting, ..progress }), now);
        say(&mut machine, 1, WorkerMessage::Heartbeat(progress), now);
        machine.status(at(now)).stage
    };
    for now in (1250..61_000).step_by(250) {
        assert_eq!(beat(now), "gathering", "{now}");
    }
    assert_eq!(beat(61_000), "connecting");
    assert_eq!(machine.status(at(61_000)).workers[0].rank, Some(Rank(0)));
    assert_eq!(machine.status(at(61_000)).workers[1].rank, None);
}

#[test]
fn a_run_for_which_too_few_come_ends_after_the_gather_timeout_and_says_how_many_came() {
    let mut settings = settings(Gather::AtLeast { workers: 2, quiet: QUIET });
    settings.config = config(&["cluster.gather_timeout_s=5"]);
    let mut machine = Coordinator::new(settings, at(0));
    join(&mut machine, 0, 0);
    say(&mut machine, 0, WorkerMessage::Prepared(prepared()), 1000);
    let beat = |machine: &mut Coordinator, now: u64| {
        let progress = Progress { generation: Generation(0), step: Step(0), phase: Phase::Waiting, images_per_s: 0.0 };
        say(machine, 0, WorkerMessage::Heartbeat(progress), now)
    };
    for now in (1500..5000).step_by(500) {
        assert_eq!(beat(&mut machine, now), [send(0, CoordinatorMessage::Ack)]);
    }
    let message = "1 of the 2 workers that the run begins with were ready after 5 s (cluster.gather_timeout_s), and 0 more loaded data \
                   and model; start them and begin again with --resume, or wait longer";
    let ended = end_of(&[0], &Ending::Failed(message.into()), Outcome::Failed { message: message.into() });
    assert_eq!(beat(&mut machine, 5000)[1..], ended);
}

#[test]
fn a_session_that_never_registers_is_closed_after_a_lease() {
    let mut machine = Coordinator::new(settings(Gather::Exactly(1)), at(0));
    machine.handle(Event::Connected { connection: Connection(4), address: address(4) }, at(0)).unwrap();
    for now in (500..2000).step_by(500) {
        assert_eq!(handle(&mut machine, Event::Tick, now), []);
    }
    assert_eq!(handle(&mut machine, Event::Tick, 2000), [Command::Close(Connection(4))]);
    assert_eq!(join(&mut machine, 0, 2001).len(), 1, "and nobody else is held up");
}

#[test]
fn those_who_do_not_fit_are_refused_with_a_reason_and_the_run_goes_on_gathering() {
    let refused = |change: &dyn Fn(&mut Register), parts: &[&str]| {
        let mut machine = Coordinator::new(settings(Gather::Exactly(2)), at(0));
        join(&mut machine, 0, 0);
        machine.handle(Event::Connected { connection: Connection(1), address: address(1) }, at(0)).unwrap();
        let mut register = register(1);
        change(&mut register);
        let commands = say(&mut machine, 1, WorkerMessage::Register(register), 0);
        let reason = reason(&commands, 1);
        assert!(parts.iter().all(|part| reason.contains(part)), "{reason}");
        assert_eq!(machine.status(at(0)).workers.len(), 1);
    };
    refused(&|r| r.version = "2".into(), &["version 2", "1"]);
    refused(&|r| r.token = Some("guess".into()), &["token"]);
    refused(&|r| r.token = Some("secret and more".into()), &["token"]);
    refused(&|r| r.token = None, &["token"]);
    refused(&|r| r.ring_address = "10.0.0.1:5".parse().unwrap(), &["10.0.0.1:5", "worker 0", "--advertise"]);
    refused(&|r| r.ring_address = "0.0.0.0:5".parse().unwrap(), &["0.0.0.0:5", "--advertise"]);
    refused(&|r| r.ring_address = "127.0.0.1:0".parse().unwrap(), &["127.0.0.1:0", "--advertise"]);
    refused(&|r| r.ring_address = address(100), &["127.0.0.1:9100", "worker 0 (h0) too", "--advertise"]);

    let mut machine = running(2);
    machine.handle(Event::Connected { connection: Connection(2), address: address(2) }, at(0)).unwrap();
    let late = say(&mut machine, 2, WorkerMessage::Register(register(2)), 0);
    assert!(matches!(&late[..], [Command::Send { message: CoordinatorMessage::Admitted(_), .. }]), "{late:?}");
    assert_eq!(machine.status(at(0)).stage, "running", "a newcomer disturbs nobody until it is ready");

    let mut machine = evaluating(2);
    machine.handle(Event::Connected { connection: Connection(2), address: address(2) }, at(0)).unwrap();
    let late = say(&mut machine, 2, WorkerMessage::Register(register(2)), 0);
    assert!(reason(&late, 2).contains("evaluation"), "{late:?}");
}

#[test]
fn a_run_takes_as_many_workers_as_a_ring_connects() {
    let mut machine = Coordinator::new(settings(Gather::Exactly(2)), at(0));
    for worker in 0..64 {
        join(&mut machine, worker, 0);
    }
    let commands = join(&mut machine, 64, 0);
    assert!(reason(&commands, 64).contains("64 workers"), "{commands:?}");
}

#[test]
fn loopback_is_loopback_in_ipv6_clothes_too() {
    let mut machine = Coordinator::new(settings(Gather::Exactly(2)), at(0));
    join(&mut machine, 0, 0);
    machine.handle(Event::Connected { connection: Connection(1), address: address(1) }, at(0)).unwrap();
    let mapped = Register { ring_address: "[::ffff:127.0.0.1]:5".parse().unwrap(), ..register(1) };
    let commands = say(&mut machine, 1, WorkerMessage::Register(mapped), 0);
    assert!(matches!(&commands[..], [Command::Send { message: CoordinatorMessage::Admitted(_), .. }]), "{commands:?}");
}

fn second_with(settings: Settings, change: &dyn Fn(&mut Prepared)) -> Vec<Command> {
    let mut machine = Coordinator::new(settings, at(0));
    join(&mut machine, 0, 0);
    join(&mut machine, 1, 0);
    say(&mut machine, 0, WorkerMessage::Prepared(prepared()), 0);
    let mut other = prepared();
    change(&mut other);
    say(&mut machine, 1, WorkerMessage::Prepared(other), 0)
}

#[test]
fn other_data_and_other_numerics_are_refused_naming_both() {
    let refused = |change: &dyn Fn(&mut Prepared), parts: &[&str]| {
        let commands = second_with(settings(Gather::Exactly(2)), change);
        let reason = reason(&commands, 1);
        assert!(parts.iter().all(|part| reason.contains(part)), "{reason}");
    };
    refused(&|p| p.data.digest = Digest([3; 32]), &["0303", "0101", "worker 1 (h1", "worker 0 (h0"]);
    refused(&|p| p.numerics = Digest([4; 32]), &["0404", "0202", "cluster.numerics"]);
    refused(&|p| p.parameters = 6, &["another size"]);
    refused(&|p| p.statistics = 6, &["another size"]);

    let config = config(&["cluster.numerics=any"]);
    let any = Settings { config, ..settings(Gather::Exactly(2)) };
    let commands = second_with(any, &|p| p.numerics = Digest([4; 32]));
    assert_eq!(commands[0], persist(5, &[0, 1], 2), "whoever asks for it gets it");
}

#[test]
fn data_and_numerics_are_compared_with_those_of_the_checkpoint() {
    let resumed = |data, numerics| {
        let (source, model) = ("step-1".into(), [1].into());
        let start = Start { step: Step(1), source, model, optimizer: Some([2].into()), data, numerics };
        let mut machine = Coordinator::new(Settings { start: Some(start), ..settings(Gather::Exactly(1)) }, at(0));
        join(&mut machine, 0, 0);
        say(&mut machine, 0, WorkerMessage::Prepared(prepared()), 0)
    };
    let other_data = resumed(Some(Digest([8; 32])), None);
    assert!(["step-1", "0808", "0101"].iter().all(|part| reason(&other_data, 0).contains(part)), "{other_data:?}");
    let other_machine = resumed(Some(Digest([1; 32])), Some(Digest([8; 32])));
    let parts = ["step-1", "0808", "0202", "cluster.numerics"];
    assert!(parts.iter().all(|part| reason(&other_machine, 0).contains(part)), "{other_machine:?}");
    let same = resumed(Some(Digest([1; 32])), Some(Digest([2; 32])));
    assert_eq!(same[0], persist(5, &[0], 1));
}

#[test]
fn a_worker_with_the_wrong_data_that_came_first_and_left_is_no_longer_the_measure() {
    let mut machine = many();
    let mut wrong = prepared();
    wrong.data.digest = Digest([7; 32]);
    join(&mut machine, 0, 0);
    say(&mut machine, 0, WorkerMessage::Prepared(wrong), 1);
    lost(&mut machine, 0, "gone", 2);
    join(&mut machine, 1, 3);
    assert_eq!(say(&mut machine, 1, WorkerMessage::Prepared(prepared()), 3), []);
    join(&mut machine, 2, 4);
    say(&mut machine, 2, WorkerMessage::Prepared(prepared()), 4);
    lost(&mut machine, 2, "gone", 5);
    join(&mut machine, 3, 6);
    let mut other = prepared();
    other.data.digest = Digest([7; 32]);
    let commands = say(&mut machine, 3, WorkerMessage::Prepared(other), 6);
    assert!(reason(&commands, 3).contains("worker 1 (h1"), "worker 1 still is: {commands:?}");
}

#[test]
fn more_workers_than_micro_batches_idle_and_are_named() {
    let mut machine = Coordinator::new(settings(Gather::Exactly(5)), at(0));
    let mut commands = Vec::new();
    for worker in 0..5 {
        join(&mut machine, worker, 0);
        commands = say(&mut machine, worker, WorkerMessage::Prepared(prepared()), 0);
    }
    assert!(matches!(commands[0], Command::PersistGeneration { .. }));
    let Command::Record(Record::Warning(warning)) = &commands[1] else { panic!("{commands:?}") };
    assert!(warning.contains("1 of 5 workers idle") && warning.contains("worker 4 (h4"), "{warning}");
    assert_eq!(machine.status(at(0)).workers[4].micro_batches, 0);
}

#[test]
fn a_run_without_steps_is_refused_with_the_numbers() {
    let config = config(&["run.epochs=1", "batch.size=512", "sam.m=512"]);
    let mut machine = Coordinator::new(Settings { config, ..settings(Gather::Exactly(1)) }, at(0));
    join(&mut machine, 0, 0);
    let commands = say(&mut machine, 0, WorkerMessage::Prepared(prepared()), 0);
    assert!(failure(&commands).contains("100 examples in batches of 512"), "{commands:?}");
    assert_eq!(drain(&mut machine), []);
}
