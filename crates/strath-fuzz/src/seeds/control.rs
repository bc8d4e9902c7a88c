//! Seeds of the control plane.

use std::net::SocketAddr;
use std::time::Duration;

use strath_core::{Audit, Digest, Generation, Rank, RunId, Rung, Step, Survey, Telemetry, Ticket, WorkerId};
use strath_protocol::message::{
    Admitted, Assign, CoordinatorMessage, DataSummary, DrainAnswer, DrainRequest, Ending, EvalReport, FailureKind,
    FailureReport, Feed, Finished, Follow, Halted, Holds, Job, MeasureReport, Member, Phase, PhaseSeconds, Prepared,
    Progress, Purpose, Register, Returning, Shortage, Split, State, StateRef, StepReport, Whence, WorkerMessage,
};
use strath_protocol::{ClusterStatus, DecisionStatus, SurveyStatus, WorkerStatus};
use strath_rpc::untrusted;

use super::{Inputs, named};
use crate::input::pieces;

const GENERATION: Generation = Generation(5);
/// The certificate of an authority whose key nobody has.
const AUTHORITY: &[u8] = include_bytes!("authority.pem");
const KEY: &[u8] = b"-----BEGIN PRIVATE KEY-----\nMAAwADAAMAAwAA==\n-----END PRIVATE KEY-----\n";

pub(super) fn inputs() -> Vec<(&'static str, Inputs)> {
    let session = |messages: Vec<Vec<Vec<u8>>>| pieces(messages.concat());
    let mut worker =
        named(worker().into_iter().map(|(name, said)| (name, session(vec![untrusted::to_coordinator(said)]))));
    worker.insert("all".into(), session(worker_words().map(untrusted::to_coordinator).collect()));
    worker.insert("empty-steps".into(), pieces([empty(&[11, 4], 4097)]));
    worker.insert("empty-steps-of-old".into(), pieces([empty(&[1, 7, 5, 4], 4096)]));
    let said = coordinator();
    let all = said.iter().map(|(_, message)| untrusted::to_worker(message.clone())).collect();
    let mut coordinator = named(said.into_iter().map(|(name, said)| (name, session(vec![untrusted::to_worker(said)]))));
    coordinator.insert("all".into(), session(all));
    coordinator.insert("empty-members".into(), pieces([empty(&[2, 3], 65)]));
    vec![
        ("worker_session", worker),
        ("coordinator_session", coordinator),
        ("status", statuses()),
        ("drain", drains()),
        ("coordinator", events()),
        ("certificates", certificates()),
    ]
}

/// So many elements of two bytes of the repeated field to which these numbers lead.
fn empty(path: &[u8], elements: usize) -> Vec<u8> {
    path.iter().rev().fold(Vec::new(), |content, number| {
        if content.is_empty() {
            return [number << 3 | 2, 0].repeat(elements);
        }
        let length = content.len();
        let length = [(length & 0x7f) as u8 | 0x80, (length >> 7 & 0x7f) as u8 | 0x80, (length >> 14) as u8];
        [&[number << 3 | 2][..], &length, &content].concat()
    })
}

fn address(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn register(returning: Option<Box<Returning>>) -> Register {
    Register {
        version: "1".into(),
        token: Some("secret".into()),
        ring_address: "[fe80::1%3]:9000".parse().expect("an address"),
        host: "here".into(),
        pid: 42,
        nonce: 7,
        cores: 2,
        returning,
    }
}

fn prepared() -> Prepared {
    let data = DataSummary {
        digest: Digest([1; 32]),
        train_examples: 100,
        validation_examples: 0,
        test_examples: 10,
        channels: 1,
        height: 8,
        width: 8,
        classes: 10,
        mean: vec![0.5],
        std: vec![1.0],
    };
    Prepared { data, parameters: 5, statistics: 2, numerics: Digest([2; 32]), gpu: None }
}

fn step(step: u64) -> StepReport {
    let phases =
        PhaseSeconds { data: 0.1, ascent: 0.2, epsilon: 0.3, exchange: 0.4, descent: 0.5, reduce: 0.6, update: 0.7 };
    StepReport {
        generation: GENERATION,
        step: Step(step),
        clean_loss: 2.25,
        perturbed_loss: 2.5,
        lr: 0.1,
        gradient_norm: 1.5,
        epsilon_norm: 0.05,
        zero_gradient_lanes: 0,
        telemetry: telemetry(),
        seconds: 3.0,
        phases,
    }
}

fn audit() -> Audit {
    Audit { lanes: 4, zero_gradient_lanes: 1, distinct_epsilons: 3, radius_deviation: 3e-8, ..Audit::default() }
}

fn telemetry() -> Telemetry {
    let survey = Survey {
        coherence: Some(0.5),
        noise_trace: Some(2.0),
        signal2: Some(0.25),
        amplification: Some(1.5),
        rho_equivalent: Some(0.075),
        transfer: None,
        audit: audit(),
        ladder: vec![
            Rung { m: 8, gradient_norm: 1.5, lift: Some(0.1) },
            Rung { m: 16, gradient_norm: 1.0, lift: None },
        ],
        seconds: 0.01,
    };
    Telemetry {
        lift_ratio: Some(1.125),
        curvature: Some(3.5),
        turn: Some(0.75),
        turn_lanes: 3,
        survey: Some(Box::new(survey)),
    }
}

fn eval(step: u64) -> EvalReport {
    EvalReport { generation: GENERATION, step: Step(step), split: Split::Test, loss: 0.5, error: 0.25 }
}

fn measured() -> MeasureReport {
    MeasureReport { generation: GENERATION, done: 3, of: 10, result: Some("{}".into()) }
}

fn halted() -> Halted {
    let held = Some((Step(3), Digest([3; 32])));
    let (unrecorded, evaluations) = (vec![step(2), step(3)], vec![eval(3)]);
    Halted { generation: GENERATION, held, ring_address: address(9001), unrecorded, evaluations }
}

fn state(purpose: Purpose) -> State {
    State { generation: GENERATION, step: Step(3), purpose, model: [1; 40].into(), optimizer: [2; 20].into() }
}

fn worker() -> Vec<(&'static str, WorkerMessage)> {
    let progress = Progress { generation: GENERATION, step: Step(1), phase: Phase::Descent, images_per_s: 10.5 };
    let back = |whence| Some(Box::new(Returning { run: RunId(7), worker: WorkerId(1), prepared: prepared(), whence }));
    let failed = |kind| FailureReport {
        generation: GENERATION,
        step: Step(1),
        phase: Phase::Reduce,
        kind,
        message: "it closed the connection".into(),
    };
    let finished = Finished { generation: GENERATION, step: Step(3), weights: Digest([4; 32]), stopped: false };
    let holds = Holds { generation: GENERATION, held: Some((Step(2), Digest([5; 32]))), broken: Some("slow".into()) };
    vec![
        ("register", WorkerMessage::Register(register(None))),
        ("register-working", WorkerMessage::Register(register(back(Whence::Working(GENERATION))))),
        ("register-halted", WorkerMessage::Register(register(back(Whence::Halted(halted()))))),
        ("prepared", WorkerMessage::Prepared(prepared())),
        ("ring-ready", WorkerMessage::RingReady { generation: GENERATION, gpu: None, communicator: None }),
        ("heartbeat", WorkerMessage::Heartbeat(progress)),
        ("step", WorkerMessage::Step(step(1))),
        ("eval", WorkerMessage::Eval(eval(1))),
        ("measured", WorkerMessage::Measured(measured())),
        ("state", WorkerMessage::State(state(Purpose::Final))),
        ("finished", WorkerMessage::Finished(finished)),
        ("failed", WorkerMessage::Failed(failed(FailureKind::PeerLost(Rank(1))))),
        ("failed-machine", WorkerMessage::Failed(failed(FailureKind::Machine))),
        ("deviates", WorkerMessage::Failed(failed(FailureKind::Deviates(Rank(0))))),
        ("halted", WorkerMessage::Halted(halted())),
        ("caught-up", WorkerMessage::CaughtUp { generation: GENERATION, step: Step(2) }),
        ("holds", WorkerMessage::Holds(holds)),
        ("retiring", WorkerMessage::Retiring),
        ("leaving", WorkerMessage::Leaving { generation: GENERATION, reason: "asked to".into() }),
    ]
}

fn worker_words() -> impl Iterator<Item = WorkerMessage> {
    worker().into_iter().map(|(_, message)| message)
}

fn coordinator() -> Vec<(&'static str, CoordinatorMessage)> {
    let member = |worker| Member { worker: WorkerId(worker), ring_address: address(9000 + worker as u16) };
    let admitted = Admitted {
        worker: WorkerId(1),
        run: RunId(7),
        configuration: "[run]\nsteps = 3\n".into(),
        job: Job::Evaluate(Split::Test),
        lease: Duration::from_secs(2),
        rejoin_timeout: Duration::from_secs(300),
    };
    let source = StateRef { source: "step-3".into(), model: Digest([6; 32]), optimizer: Some(Digest([7; 32])) };
    let assign = Assign {
        generation: GENERATION,
        rank: Rank(1),
        members: vec![member(1), member(2)],
        bounds: vec![0, 3, 4],
        start: Step(3),
        steps: Step(300),
        state: Some(source),
        keeps: false,
        unsettled: true,
        some_are_sent: true,
        ticket: Ticket([8; 32]),
    };
    let ticket = Ticket([9; 32]);
    let (generation, recorded) = (GENERATION, Step(3));
    vec![
        ("admitted", CoordinatorMessage::Admitted(admitted)),
        ("assign", CoordinatorMessage::Assign(assign)),
        ("state", CoordinatorMessage::State(state(Purpose::Start))),
        ("start", CoordinatorMessage::Start { generation, communicator: None }),
        ("ack", CoordinatorMessage::Ack),
        ("stop", CoordinatorMessage::Stop { generation }),
        ("pause", CoordinatorMessage::Pause { generation, recorded }),
        ("halt", CoordinatorMessage::Halt { generation, recorded }),
        ("send-state", CoordinatorMessage::SendState { generation }),
        ("taken-back", CoordinatorMessage::TakenBack { generation, recorded }),
        ("feed", CoordinatorMessage::Feed(Feed { generation, to: member(3), ticket })),
        ("follow", CoordinatorMessage::Follow(Follow { generation, from: member(1), steps: Step(300), ticket })),
        ("end", CoordinatorMessage::End(Ending::Failed("a reason".into()))),
    ]
}

fn statuses() -> Inputs {
    let worker = WorkerStatus {
        worker: WorkerId(1),
        host: "here".into(),
        address: address(9001),
        pid: 42,
        rank: Some(Rank(0)),
        micro_batches: 3,
        step: Step(2),
        phase: Phase::Ascent,
        images_per_s: 100.5,
        silent_ms: 12,
        late: "by 3 s".into(),
    };
    let decision = DecisionStatus { what: "drops worker 3".into(), why: "silent".into(), ago_ms: 500 };
    let survey = SurveyStatus {
        step: Step(1),
        rho_equivalent: Some(0.075),
        noise_scale: Some(8.0),
        coherence: None,
        audit: audit(),
    };
    let cluster = ClusterStatus {
        run: RunId(7),
        name: "digits".into(),
        stage: "running".into(),
        generation: GENERATION,
        step: Step(2),
        steps: Step(300),
        last_step: Some(step(2)),
        survey: Some(survey),
        workers: vec![worker; 2],
        decisions: vec![decision; 2],
    };
    named([("cluster", untrusted::to_status(cluster)), ("empty-workers", empty(&[1, 8], 4096))])
}

fn drains() -> Inputs {
    let request = DrainRequest { worker: WorkerId(3), shortage: Shortage::Accept, token: Some("secret".into()) };
    named([
        ("request", untrusted::to_drain_request(request)),
        ("leaves", untrusted::to_drain_answer(DrainAnswer::Leaves)),
        ("has-left", untrusted::to_drain_answer(DrainAnswer::HasLeft)),
        ("refused", untrusted::to_drain_answer(DrainAnswer::Refused("a reason".into()))),
    ])
}

/// Sessions with the coordinator's machine.
fn events() -> Inputs {
    let connect = |worker: u8| vec![0, worker];
    let say = |worker: u8, message: WorkerMessage| {
        let sent = untrusted::to_coordinator(message);
        [vec![4, worker], pieces(sent)].concat()
    };
    let wait = |ms: u16| [&[2, 0][..], &ms.to_le_bytes()].concat();
    let joined = |worker: u8| {
        let register = Register { token: None, ring_address: address(9000 + u16::from(worker)), ..register(None) };
        let words = [WorkerMessage::Register(register), WorkerMessage::Prepared(prepared())];
        [connect(worker), words.map(|word| say(worker, word)).concat()].concat()
    };
    let running = |workers: u8| {
        let ready =
            |worker| say(worker, WorkerMessage::RingReady { generation: GENERATION, gpu: None, communicator: None });
        let all = (0..workers).flat_map(joined).chain((0..workers).flat_map(ready));
        std::iter::once(workers - 1).chain(all).collect::<Vec<u8>>()
    };
    let report = |worker| [1, 2, 3].map(|number| say(worker, WorkerMessage::Step(step(number)))).concat();
    let finish = |worker| {
        say(worker, worker_words().find(|word| matches!(word, WorkerMessage::Finished(_))).expect("it is there"))
    };
    let halt = |worker| say(worker, WorkerMessage::Halted(halted()));
    let lost = FailureReport {
        generation: GENERATION,
        step: Step(1),
        phase: Phase::Reduce,
        kind: FailureKind::PeerLost(Rank(1)),
        message: "it closed the connection".into(),
    };
    let everything = worker_words().flat_map(|word| say(0, word)).collect();
    named([
        ("joined", [vec![1], joined(0), joined(1)].concat()),
        ("silent", [running(2), wait(1000), wait(2000)].concat()),
        ("finished", [running(2), report(0), finish(0), finish(1)].concat()),
        ("one-lost", [running(2), report(0), vec![1, 1], halt(0), wait(3000)].concat()),
        ("blamed", [running(3), say(0, WorkerMessage::Failed(lost)), halt(0), halt(1), halt(2)].concat()),
        ("newcomer", [running(2), joined(2), wait(100), report(0)].concat()),
        ("retiring", [running(3), say(2, WorkerMessage::Retiring), halt(0), halt(1), halt(2)].concat()),
        ("drained", [running(2), vec![0x43, 0], halt(0), halt(1)].concat()),
        ("stopped", [running(2), vec![0x83, 0], report(0), finish(0), finish(1)].concat()),
        ("everything", [running(1), everything].concat()),
    ])
}

fn certificates() -> Inputs {
    named([
        ("set", pieces([AUTHORITY, AUTHORITY, KEY])),
        ("no-key", pieces([AUTHORITY, AUTHORITY, AUTHORITY])),
        ("two-authorities", pieces([&[AUTHORITY, AUTHORITY].concat()[..], AUTHORITY, KEY])),
        ("key-first", pieces([KEY, AUTHORITY, KEY])),
    ])
}
