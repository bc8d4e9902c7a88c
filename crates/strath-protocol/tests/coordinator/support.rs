//! A run to play with: its settings, its workers' words, and the machine that hears them.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use strath_core::config::{Config, Layers, MOST_WORKERS};
use strath_core::{Assignment, Digest, Generation, Rank, RingKey, RunId, Step, Telemetry, Timestamp, WorkerId};
use strath_protocol::message::{
    CoordinatorMessage, DataSummary, Ending, FailureKind, FailureReport, Finished, Halted, Job, Member, Phase,
    PhaseSeconds, Prepared, Progress, Purpose, Register, Split, State, StepReport, WorkerMessage,
};
use strath_protocol::{
    Connection, Coordinator, CoordinatorCommand as Command, CoordinatorEvent as Event, Former, Gather, Outcome, Place,
    Settings,
};

pub(crate) fn config(more: &[&str]) -> Config {
    let text =
        "[run]\nsteps = 3\n[data]\nkind = \"digits\"\n[model]\nkind = \"convnet\"\n[batch]\nsize = 8\n[sam]\nm = 2\n";
    let layers = Layers::new().file(text, "run.toml", Path::new("/")).unwrap();
    let layers = more.iter().fold(layers, |layers, set| layers.set(set, Path::new("/")).unwrap());
    layers.resolve().unwrap().config
}

pub(crate) fn settings(gather: Gather) -> Settings {
    let config = config(&[]);
    Settings {
        version: "1".into(),
        token: Some("secret".into()),
        ring_key: RingKey([9; 16]),
        run: RunId(7),
        configuration: config.to_toml(),
        config,
        job: Job::Train,
        gather,
        most_workers: MOST_WORKERS as usize,
        generation: Generation(4),
        start: None,
        former: Former::default(),
    }
}

pub(crate) fn at(ms: u64) -> Timestamp {
    Timestamp(Duration::from_millis(ms))
}

pub(crate) fn address(worker: u64) -> SocketAddr {
    format!("127.0.0.1:{}", 9000 + worker).parse().unwrap()
}

pub(crate) fn register(worker: u64) -> Register {
    Register {
        version: "1".into(),
        token: Some("secret".into()),
        ring_address: address(100 + worker),
        host: format!("h{worker}"),
        pid: worker as u32,
        nonce: worker,
        cores: 2,
        returning: None,
    }
}

pub(crate) fn prepared() -> Prepared {
    let data = DataSummary {
        digest: Digest([1; 32]),
        train_examples: 100,
        validation_examples: 0,
        test_examples: 10,
        channels: 1,
        height: 8,
        width: 8,
        classes: 10,
        mean: vec![0.0],
        std: vec![1.0],
    };
    Prepared { data, parameters: 5, statistics: 0, numerics: Digest([2; 32]), gpu: None }
}

pub(crate) fn drain(machine: &mut Coordinator) -> Vec<Command> {
    std::iter::from_fn(|| machine.poll_command()).collect()
}

pub(crate) fn say(machine: &mut Coordinator, worker: u64, message: WorkerMessage, now: u64) -> Vec<Command> {
    machine.handle(Event::Message { connection: Connection(worker), message }, at(now)).unwrap();
    drain(machine)
}

pub(crate) fn send(worker: u64, message: CoordinatorMessage) -> Command {
    Command::Send { connection: Connection(worker), message }
}

pub(crate) fn join(machine: &mut Coordinator, worker: u64, now: u64) -> Vec<Command> {
    machine.handle(Event::Connected { connection: Connection(worker), address: address(worker) }, at(now)).unwrap();
    say(machine, worker, WorkerMessage::Register(register(worker)), now)
}

pub(crate) fn finished(weights: u8, step: u64, stopped: bool) -> WorkerMessage {
    WorkerMessage::Finished(Finished {
        generation: Generation(5),
        step: Step(step),
        weights: Digest([weights; 32]),
        stopped,
    })
}

pub(crate) fn state(step: u64, purpose: Purpose) -> State {
    State { generation: Generation(5), step: Step(step), purpose, model: [1].into(), optimizer: [2].into() }
}

/// This many workers, running; worker w has rank w.
pub(crate) fn running(workers: u64) -> Coordinator {
    run_with(Settings { gather: Gather::Exactly(workers as usize), ..settings(Gather::Exactly(0)) }, workers)
}

/// The same, evaluating a checkpoint: a job that ends with the first worker that is lost.
pub(crate) fn evaluating(workers: u64) -> Coordinator {
    let gather = Gather::Exactly(workers as usize);
    run_with(Settings { job: Job::Evaluate(Split::Test), ..settings(gather) }, workers)
}

/// The same with other settings.
pub(crate) fn run_with(settings: Settings, workers: u64) -> Coordinator {
    let mut machine = Coordinator::new(settings, at(0));
    for worker in 0..workers {
        join(&mut machine, worker, 0);
        say(&mut machine, worker, WorkerMessage::Prepared(prepared()), 0);
    }
    for worker in 0..workers {
        say(
            &mut machine,
            worker,
            WorkerMessage::RingReady { generation: Generation(5), gpu: None, communicator: None },
            0,
        );
    }
    machine
}

/// Why a run failed, where it ends or its workers are told that it does.
pub(crate) fn failure(commands: &[Command]) -> &str {
    match commands.last() {
        Some(
            Command::Finish(Outcome::Failed { message } | Outcome::Misconfigured { message })
            | Command::Send { message: CoordinatorMessage::End(Ending::Failed(message)), .. },
        ) => message,
        other => panic!("expected a failed run, found {other:?}"),
    }
}

pub(crate) fn progress(step: u64, phase: Phase) -> Progress {
    Progress { generation: Generation(5), step: Step(step), phase, images_per_s: 10.0 }
}

/// A rank's report that it has lost the peer of rank `lost`.
pub(crate) fn peer_lost(lost: u32) -> WorkerMessage {
    failed(FailureKind::PeerLost(Rank(lost)), "reset")
}

pub(crate) fn failed(kind: FailureKind, message: &str) -> WorkerMessage {
    let (generation, step, phase) = (Generation(5), Step(1), Phase::Reduce);
    WorkerMessage::Failed(FailureReport { generation, step, phase, kind, message: message.into() })
}

pub(crate) fn handle(machine: &mut Coordinator, event: Event, now: u64) -> Vec<Command> {
    machine.handle(event, at(now)).unwrap();
    drain(machine)
}

pub(crate) fn saved(machine: &mut Coordinator, step: u64, purpose: Purpose, now: u64) -> Vec<Command> {
    handle(machine, Event::Saved { step: Step(step), purpose }, now)
}

pub(crate) fn lost(machine: &mut Coordinator, worker: u64, cause: &str, now: u64) -> Vec<Command> {
    handle(machine, Event::Disconnected { connection: Connection(worker), cause: cause.into() }, now)
}

/// What a machine with these workers does at its end.
pub(crate) fn end_of(workers: &[u64], ending: &Ending, outcome: Outcome) -> Vec<Command> {
    let say = workers.iter().map(|worker| send(*worker, CoordinatorMessage::End(ending.clone())));
    say.chain(close(workers, outcome)).collect()
}

/// What a machine that failed does first, where rank 0 may owe it a state: these workers hear of it.
pub(crate) fn telling(workers: &[u64], message: &str) -> Vec<Command> {
    workers.iter().map(|worker| send(*worker, CoordinatorMessage::End(Ending::Failed(message.into())))).collect()
}

/// What it does last, with these sessions left.
pub(crate) fn close(workers: &[u64], outcome: Outcome) -> Vec<Command> {
    workers.iter().map(|worker| Command::Close(Connection(*worker))).chain([Command::Finish(outcome)]).collect()
}

/// A worker's word that it has left generation `generation`, with a state of this step, whose digest is made of `state`.
pub(crate) fn halted(generation: u64, held: Option<(u64, u8)>, ring: u64) -> WorkerMessage {
    WorkerMessage::Halted(Halted {
        generation: Generation(generation),
        held: held.map(|(step, state)| (Step(step), Digest([state; 32]))),
        ring_address: address(ring),
        unrecorded: Vec::new(),
        evaluations: Vec::new(),
    })
}

/// What a worker of generation 5 is told when it is to rest, with the steps up to this one on record.
pub(crate) fn pause(worker: u64, recorded: u64) -> Command {
    send(worker, CoordinatorMessage::Pause { generation: Generation(5), recorded: Step(recorded) })
}

/// What rank 0 says of a step.
pub(crate) fn step_report(step: u64) -> StepReport {
    StepReport {
        generation: Generation(5),
        step: Step(step),
        clean_loss: 1.0,
        perturbed_loss: 1.5,
        lr: 0.1,
        gradient_norm: 2.0,
        epsilon_norm: 0.05,
        zero_gradient_lanes: 0,
        telemetry: Telemetry::default(),
        seconds: 0.25,
        phases: PhaseSeconds::default(),
    }
}

/// The ranks of a generation in the run's record, each with so many micro-batches.
pub(crate) fn places(held: &[(u64, usize)]) -> Vec<Place> {
    let place = |(worker, micro_batches): &(u64, usize)| Place {
        worker: WorkerId(*worker),
        host: format!("h{worker}"),
        micro_batches: *micro_batches,
    };
    held.iter().map(place).collect()
}

/// What is written down when a generation of these workers begins, each at its first ring address.
pub(crate) fn persist(generation: u64, workers: &[u64], next_worker: u64) -> Command {
    let member = |worker: &u64| Member { worker: WorkerId(*worker), ring_address: address(100 + worker) };
    let members = workers.iter().map(member).collect();
    let bounds = Assignment::balanced(&config(&[]).plan().unwrap(), workers.len()).bounds().to_vec();
    Command::PersistGeneration { generation: Generation(generation), members, bounds, next_worker }
}
