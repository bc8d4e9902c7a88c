//! Every malformed field refused by name.

use strath_core::{Survey, Telemetry};
use strath_protocol::message::{
    Admitted, Assign, CoordinatorMessage, DataSummary, DrainAnswer, DrainRequest, Ending, EvalReport, FailureReport,
    Feed, Finished, Follow, Halted, Holds, PhaseSeconds, Prepared, Progress, Register, StateRef, StepReport,
    WorkerMessage,
};
use strath_protocol::{ClusterStatus, SurveyStatus, WorkerStatus};

use crate::error::RpcError;
use crate::message::Message;
use crate::wire;

/// The field that a conversion complains about.
fn refused<D: TryFrom<W, Error = RpcError> + std::fmt::Debug, W>(wire: W) -> &'static str {
    match D::try_from(wire) {
        Err(RpcError::Malformed { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

/// Asserts that a value breaks when any one of its fields is set as told, and names that field.
macro_rules! each_refused {
    ($domain:ty, $good:expr, $($field:literal: $($path:ident).+ = $bad:expr;)*) => {{
        let good = $good;
        assert!(<$domain>::try_from(good.clone()).is_ok());
        $({
            let mut bad = good.clone();
            bad.$($path).+ = $bad;
            assert_eq!(refused::<$domain, _>(bad), $field);
        })*
    }};
}

fn long() -> String {
    "x".repeat((64 << 10) + 1)
}

#[test]
fn every_malformed_field_of_what_lanes_tell_is_refused_by_name() {
    each_refused!(Telemetry, wire::Telemetry::default(),
        "Telemetry.lift_ratio": lift_ratio = Some(f64::NAN);
        "Telemetry.curvature": curvature = Some(f64::INFINITY);
        "Telemetry.turn": turn = Some(f64::NAN);
        "Survey.audit": survey = Some(wire::Survey::default());
    );
    let audit = Some(wire::Audit::default());
    each_refused!(Survey, wire::Survey { audit, ..Default::default() },
        "Survey.coherence": coherence = Some(f64::NAN);
        "Survey.noise_trace": noise_trace = Some(f64::NAN);
        "Survey.signal2": signal2 = Some(f64::NAN);
        "Survey.amplification": amplification = Some(f64::NAN);
        "Survey.rho_equivalent": rho_equivalent = Some(f64::NAN);
        "Survey.transfer": transfer = Some(f64::NAN);
        "Survey.audit": audit = None;
        "Audit.radius_deviation": audit = Some(wire::Audit { radius_deviation: f64::NAN, ..Default::default() });
        "Survey.ladder": ladder = vec![wire::Rung::default(); 22];
        "Rung.gradient_norm": ladder = vec![wire::Rung { gradient_norm: f64::NAN, ..Default::default() }];
        "Rung.lift": ladder = vec![wire::Rung { lift: Some(f64::NAN), ..Default::default() }];
        "Survey.seconds": seconds = f64::NAN;
    );
    each_refused!(SurveyStatus, wire::SurveyStatus { audit, ..Default::default() },
        "SurveyStatus.rho_equivalent": rho_equivalent = Some(f64::NAN);
        "SurveyStatus.noise_scale": noise_scale = Some(f64::NAN);
        "SurveyStatus.coherence": coherence = Some(f64::NAN);
        "SurveyStatus.audit": audit = None;
    );
}

#[test]
fn every_malformed_field_of_a_worker_is_refused_by_name() {
    let bytes = vec![1; 32];
    let local = "127.0.0.1:80".to_owned();
    let held = wire::HeldState { step: 1, digest: bytes.clone() };
    let halted = wire::Halted { generation: 1, held: Some(held), ring_address: local.clone(), ..Default::default() };
    each_refused!(Halted, halted,
        "Halted.generation": generation = 0;
        "HeldState.digest": held = Some(wire::HeldState { step: 1, digest: vec![1; 31] });
        "Halted.ring_address": ring_address = "localhost:80".into();
        "Halted.unrecorded": unrecorded = vec![wire::StepReport::default(); 4097];
        "Halted.evaluations": evaluations = vec![wire::EvalReport::default(); 257];
        "EvalReport.generation": evaluations = vec![wire::EvalReport::default()];
        "StepReport.generation": unrecorded = vec![wire::StepReport::default()];
    );
    let held = wire::HeldState { step: 1, digest: bytes.clone() };
    each_refused!(Holds, wire::Holds { held: Some(held), ..Default::default() },
        "HeldState.digest": held = Some(wire::HeldState { step: 1, digest: vec![1; 31] });
        "Holds.broken": broken = Some(long());
    );
    each_refused!(Register, wire::Register { ring_address: local, ..Default::default() },
        "Register.version": version = long();
        "Register.token": token = Some(long());
        "Register.ring_address": ring_address = "localhost:80".into();
        "Register.ring_address": ring_address = long();
        "Register.ring_address": ring_address = String::new();
        "Register.host": host = long();
    );
    let data =
        wire::DataSummary { digest: bytes.clone(), channels: 1, mean: vec![0.5], std: vec![1.0], ..Default::default() };
    each_refused!(DataSummary, data.clone(),
        "DataSummary.digest": digest = vec![1; 31];
        "DataSummary.mean": mean = vec![f32::NAN];
        "DataSummary.mean": mean = Vec::new();
        "DataSummary.std": std = vec![f32::INFINITY];
        "DataSummary.std": std = vec![1.0, 1.0];
        "DataSummary.mean": channels = u32::MAX;
    );
    each_refused!(Prepared, wire::Prepared { data: Some(data), numerics: bytes.clone(), ..Default::default() },
        "Prepared.data": data = None;
        "Prepared.numerics": numerics = vec![1; 33];
        "Prepared.gpu": gpu = long();
    );
    each_refused!(Progress, wire::Progress { phase: 1, ..Default::default() },
        "Progress.phase": phase = 0;
        "Progress.phase": phase = 13;
        "Progress.images_per_s": images_per_s = f64::NAN;
    );
    let phases = Some(wire::PhaseSeconds::default());
    each_refused!(StepReport, wire::StepReport { generation: 1, step: 1, phases, ..Default::default() },
        "StepReport.generation": generation = 0;
        "StepReport.step": step = 0;
        "StepReport.clean_loss": clean_loss = f64::NAN;
        "StepReport.perturbed_loss": perturbed_loss = f64::INFINITY;
        "StepReport.lr": lr = f64::NEG_INFINITY;
        "StepReport.gradient_norm": gradient_norm = f64::NAN;
        "StepReport.epsilon_norm": epsilon_norm = f64::NAN;
        "StepReport.seconds": seconds = f64::NAN;
        "StepReport.phases": phases = None;
        "Telemetry.turn": telemetry = Some(Box::new(wire::Telemetry { turn: Some(f64::NAN), ..Default::default() }));
    );
    each_refused!(PhaseSeconds, wire::PhaseSeconds::default(),
        "PhaseSeconds.data": data = f64::NAN;
        "PhaseSeconds.ascent": ascent = f64::NAN;
        "PhaseSeconds.epsilon": epsilon = f64::NAN;
        "PhaseSeconds.exchange": exchange = f64::NAN;
        "PhaseSeconds.descent": descent = f64::NAN;
        "PhaseSeconds.reduce": reduce = f64::NAN;
        "PhaseSeconds.update": update = f64::NAN;
    );
    each_refused!(EvalReport, wire::EvalReport { generation: 1, split: 2, ..Default::default() },
        "EvalReport.generation": generation = 0;
        "EvalReport.split": split = 0;
        "EvalReport.split": split = -1;
        "EvalReport.loss": loss = f64::NAN;
        "EvalReport.error": error = f64::NAN;
        "EvalReport.error": error = -0.1;
        "EvalReport.error": error = 1.1;
    );
    each_refused!(Finished, wire::Finished { generation: 1, weights: bytes, ..Default::default() },
        "Finished.generation": generation = 0;
        "Finished.weights": weights = Vec::new();
    );
    each_refused!(FailureReport, wire::FailureReport { phase: 1, ..Default::default() },
        "FailureReport.phase": phase = 99;
        "FailureReport.message": message = long();
    );
    let message = |kind| WorkerMessage::decode(wire::WorkerMessage { kind }).map(|_| ()).unwrap_err().to_string();
    let leaving = wire::worker_message::Kind::Leaving(wire::Leaving { reason: long(), generation: 1 });
    assert!(message(Some(leaving)).contains("Leaving.reason is a text of 65537 bytes, expected at most 65536 bytes"));
    assert!(message(None).contains("WorkerMessage.kind"));
    let ready = |generation, communicator: Vec<u8>| {
        message(Some(wire::worker_message::Kind::RingReady(wire::RingReady {
            generation,
            gpu: String::new(),
            communicator,
        })))
    };
    assert!(ready(0, Vec::new()).contains("RingReady.generation is 0"));
    for length in [1, 127, 129] {
        assert!(ready(1, vec![0; length]).contains(&format!("RingReady.communicator is {length} bytes, expected 128")));
    }
}

#[test]
fn every_malformed_field_of_the_coordinator_is_refused_by_name() {
    let bytes = vec![1; 32];
    let local = "[::1]:80".to_owned();
    let configuration = "x".repeat(1 << 20);
    each_refused!(Admitted, wire::Admitted { configuration, lease_ms: 1, ..Default::default() },
        "Admitted.configuration": configuration = "x".repeat((1 << 20) + 1);
        "Admitted.evaluate": evaluate = Some(0);
        "Admitted.evaluate": evaluate = Some(5);
        "Admitted.lease_ms": lease_ms = 0;
    );
    let member = wire::Member { worker: 0, ring_address: local.clone() };
    let members = vec![member.clone(), wire::Member { worker: 1, ring_address: local.clone() }];
    each_refused!(Assign, wire::Assign { generation: 1, rank: 1, members, bounds: vec![0, 3, 3], ticket: bytes.clone(), ..Default::default() },
        "Assign.generation": generation = 0;
        "Assign.ticket": ticket = vec![1; 31];
        "Assign.rank": rank = 2;
        "Assign.rank": rank = u32::MAX;
        "Assign.rank": members = Vec::new();
        "Assign.bounds": bounds = Vec::new();
        "Assign.bounds": bounds = vec![0, 3];
        "Assign.bounds": bounds = vec![0, 1, 2, 3];
        "Assign.bounds": bounds = vec![1, 2, 3];
        "Assign.bounds": bounds = vec![0, 3, 2];
        "Member.ring_address": members = vec![member, wire::Member { worker: 1, ring_address: "::1".into() }];
        "StateRef.model": state = Some(wire::StateRef::default());
    );
    let member = wire::Member { worker: 0, ring_address: local.clone() };
    let nowhere = wire::Member { worker: 1, ring_address: "::1".into() };
    each_refused!(Feed, wire::Feed { generation: 1, to: Some(member.clone()), ticket: bytes.clone() },
        "Feed.generation": generation = 0;
        "Feed.to": to = None;
        "Member.ring_address": to = Some(nowhere.clone());
        "Feed.ticket": ticket = vec![1; 33];
    );
    each_refused!(Follow, wire::Follow { generation: 1, from: Some(member), steps: 0, ticket: bytes.clone() },
        "Follow.generation": generation = 0;
        "Follow.from": from = None;
        "Member.ring_address": from = Some(nowhere.clone());
        "Follow.ticket": ticket = Vec::new();
    );
    let named = wire::StateRef { model: bytes.clone(), ..Default::default() };
    let members = vec![wire::Member { worker: 0, ring_address: local.clone() }];
    let (state, ticket) = (Some(named), bytes.clone());
    let both = wire::Assign { generation: 1, members, bounds: vec![0, 1], state, ticket, ..Default::default() };
    each_refused!(Assign, both, "Assign.keeps": keeps = true;);
    each_refused!(StateRef, wire::StateRef { model: bytes.clone(), optimizer: Some(bytes), ..Default::default() },
        "StateRef.source": source = long();
        "StateRef.model": model = vec![0; 16];
        "StateRef.optimizer": optimizer = Some(Vec::new());
    );
    each_refused!(Ending, wire::Ending { kind: 4, ..Default::default() },
        "Ending.kind": kind = 0;
        "Ending.kind": kind = 7;
        "Ending.reason": reason = long();
    );
    let worker = wire::WorkerStatus { address: local, phase: 1, ..Default::default() };
    each_refused!(WorkerStatus, worker.clone(),
        "WorkerStatus.host": host = long();
        "WorkerStatus.address": address = "1.2.3.4".into();
        "WorkerStatus.phase": phase = 0;
        "WorkerStatus.images_per_s": images_per_s = f64::NAN;
        "WorkerStatus.late": late = long();
    );
    each_refused!(ClusterStatus, wire::ClusterStatus { workers: vec![worker], ..Default::default() },
        "ClusterStatus.name": name = long();
        "ClusterStatus.stage": stage = long();
        "StepReport.generation": last_step = Some(wire::StepReport::default());
        "SurveyStatus.audit": survey = Some(wire::SurveyStatus::default());
        "WorkerStatus.address": workers = vec![wire::WorkerStatus::default()];
        "Decision.why": decisions = vec![wire::Decision { why: long(), ..Default::default() }];
    );
    each_refused!(DrainRequest, wire::DrainRequest::default(), "DrainRequest.token": token = Some(long()););
    let left = wire::drain_reply::Answer::HasLeft(wire::DrainHasLeft {});
    each_refused!(DrainAnswer, wire::DrainReply { answer: Some(left) },
        "DrainReply.answer": answer = None;
        "DrainReply.refused": answer = Some(wire::drain_reply::Answer::Refused(long()));
    );
    let none = CoordinatorMessage::decode(wire::CoordinatorMessage { kind: None }).unwrap_err().to_string();
    assert!(none.contains("CoordinatorMessage.kind"), "{none}");
    let start = wire::coordinator_message::Kind::Start(wire::Start { generation: 0, communicator: Vec::new() });
    let start = CoordinatorMessage::decode(wire::CoordinatorMessage { kind: Some(start) }).unwrap_err().to_string();
    assert!(start.contains("Start.generation is 0"), "{start}");
}
