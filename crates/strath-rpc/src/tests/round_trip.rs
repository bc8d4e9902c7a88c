//! Every message to bytes and back.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;
use prost::Message as _;
use strath_core::{Audit, Digest, Generation, Rank, RunId, Rung, Step, Survey, Telemetry, Ticket, WorkerId};
use strath_protocol::message::{
    Admitted, Assign, CommunicatorId, CoordinatorMessage, DataSummary, DrainAnswer, DrainRequest, Ending, EvalReport,
    FailureKind, FailureReport, Feed, Finished, Follow, Halted, Holds, Job, MeasureReport, Member, Phase, PhaseSeconds,
    Prepared, Progress, Purpose, Register, Returning, Shortage, Split, State, StateRef, StepReport, Whence,
    WorkerMessage,
};
use strath_protocol::{ClusterStatus, DecisionStatus, SurveyStatus, WorkerStatus};

use crate::chunks::{Assembler, CHUNK, STATE_LIMIT};
use crate::message::{Decoded, Encoded, Message};
use crate::wire;

fn number() -> impl Strategy<Value = f64> {
    use prop::num::f64::{NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    NORMAL | SUBNORMAL | ZERO | POSITIVE | NEGATIVE
}

fn value() -> impl Strategy<Value = f32> {
    use prop::num::f32::{NEGATIVE, NORMAL, POSITIVE, ZERO};
    NORMAL | ZERO | POSITIVE | NEGATIVE
}

fn address() -> impl Strategy<Value = SocketAddr> {
    any::<(IpAddr, u16)>().prop_map(Into::into)
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

fn generation() -> impl Strategy<Value = Generation> {
    (1..=u64::MAX).prop_map(Generation)
}

/// 0 stands for "before the first".
fn generation_or_none() -> impl Strategy<Value = Generation> {
    prop_oneof![Just(Generation(0)), generation()]
}

fn step() -> impl Strategy<Value = Step> {
    any::<u64>().prop_map(Step)
}

fn phase() -> impl Strategy<Value = Phase> {
    prop::sample::select(Phase::ALL.to_vec())
}

fn split() -> impl Strategy<Value = Split> {
    prop::sample::select(Split::ALL.to_vec())
}

fn phases() -> impl Strategy<Value = PhaseSeconds> {
    prop::array::uniform7(number()).prop_map(|[data, ascent, epsilon, exchange, descent, reduce, update]| {
        PhaseSeconds { data, ascent, epsilon, exchange, descent, reduce, update }
    })
}

fn failure_kind() -> impl Strategy<Value = FailureKind> {
    prop_oneof![
        Just(FailureKind::Own),
        Just(FailureKind::Machine),
        Just(FailureKind::GpusApart),
        Just(FailureKind::Configuration),
        any::<u32>().prop_map(|rank| FailureKind::PeerLost(Rank(rank))),
        any::<u32>().prop_map(|rank| FailureKind::Deviates(Rank(rank))),
    ]
}

fn maybe() -> impl Strategy<Value = Option<f64>> {
    prop::option::of(number())
}

fn audit() -> impl Strategy<Value = Audit> {
    (any::<[u64; 5]>(), number()).prop_map(|(counts, radius_deviation)| {
        let [lanes, zero_gradient_lanes, distinct_epsilons, split_lanes, moved_weights] = counts;
        Audit { lanes, zero_gradient_lanes, distinct_epsilons, split_lanes, radius_deviation, moved_weights }
    })
}

fn telemetry() -> impl Strategy<Value = Telemetry> {
    let rung = (any::<u64>(), number(), maybe()).prop_map(|(m, gradient_norm, lift)| Rung { m, gradient_norm, lift });
    let ladder = prop::collection::vec(rung, 0..4);
    let survey = (prop::array::uniform6(maybe()), audit(), ladder, number());
    let survey = survey.prop_map(|(numbers, audit, ladder, seconds)| {
        let [coherence, noise_trace, signal2, amplification, rho_equivalent, transfer] = numbers;
        Box::new(Survey {
            coherence,
            noise_trace,
            signal2,
            amplification,
            rho_equivalent,
            transfer,
            audit,
            ladder,
            seconds,
        })
    });
    (prop::array::uniform3(maybe()), any::<u64>(), prop::option::of(survey)).prop_map(
        |([lift_ratio, curvature, turn], turn_lanes, survey)| Telemetry {
            lift_ratio,
            curvature,
            turn,
            turn_lanes,
            survey,
        },
    )
}

fn survey_status() -> impl Strategy<Value = SurveyStatus> {
    (step(), prop::array::uniform3(maybe()), audit()).prop_map(
        |(step, [rho_equivalent, noise_scale, coherence], audit)| SurveyStatus {
            step,
            rho_equivalent,
            noise_scale,
            coherence,
            audit,
        },
    )
}

fn step_report() -> impl Strategy<Value = StepReport> {
    let lanes = (any::<u64>(), telemetry());
    (generation(), (1..=u64::MAX).prop_map(Step), prop::array::uniform6(number()), lanes, phases()).prop_map(
        |(generation, step, numbers, (zero_gradient_lanes, telemetry), phases)| {
            let [clean_loss, perturbed_loss, lr, gradient_norm, epsilon_norm, seconds] = numbers;
            StepReport {
                generation,
                step,
                clean_loss,
                perturbed_loss,
                lr,
                gradient_norm,
                epsilon_norm,
                zero_gradient_lanes,
                telemetry,
                seconds,
                phases,
            }
        },
    )
}

fn state() -> impl Strategy<Value = State> {
    let purpose = prop::sample::select(vec![Purpose::Start, Purpose::Checkpoint, Purpose::Final, Purpose::Handover]);
    let length = || prop_oneof![0..5_usize, (CHUNK - 1)..(CHUNK + 2), (2 * CHUNK - 1)..(2 * CHUNK + 2)];
    (generation_or_none(), step(), purpose, length(), length(), any::<u8>()).prop_map(
        |(generation, step, purpose, model, optimizer, seed)| {
            let bytes = |length: usize| (0..length).map(|i| (i >> 7) as u8 ^ i as u8 ^ seed).collect();
            State { generation, step, purpose, model: bytes(model), optimizer: bytes(optimizer) }
        },
    )
}

fn register() -> impl Strategy<Value = Register> {
    let whence = prop_oneof![generation().prop_map(Whence::Working), halted().prop_map(Whence::Halted)];
    let returning = (any::<[u64; 2]>(), prepared(), whence).prop_map(|([run, worker], prepared, whence)| {
        Box::new(Returning { run: RunId(run), worker: WorkerId(worker), prepared, whence })
    });
    let whose = (any::<String>(), any::<u32>(), any::<u64>(), any::<u32>());
    (any::<String>(), any::<Option<String>>(), address(), whose, prop::option::of(returning)).prop_map(
        |(version, token, ring_address, (host, pid, nonce, cores), returning)| Register {
            version,
            token,
            ring_address,
            host,
            pid,
            nonce,
            cores,
            returning,
        },
    )
}

fn prepared() -> impl Strategy<Value = Prepared> {
    let gpu = prop::option::of("[a-f0-9]{1,40}");
    (data(), any::<[u64; 2]>(), digest(), gpu).prop_map(|(data, [parameters, statistics], numerics, gpu)| Prepared {
        data,
        parameters,
        statistics,
        numerics,
        gpu,
    })
}

fn communicator() -> impl Strategy<Value = Option<CommunicatorId>> {
    prop::option::of(any::<[[u8; 32]; 4]>().prop_map(|id| {
        let bytes: [u8; CommunicatorId::BYTES] = id.concat().try_into().unwrap();
        CommunicatorId(Box::new(bytes))
    }))
}

fn halted() -> impl Strategy<Value = Halted> {
    (generation(), prop::option::of((step(), digest())), address(), prop::collection::vec(step_report(), 0..3))
        .prop_map(|(generation, held, ring_address, unrecorded)| {
            let (split, loss, error) = (Split::Test, 1.0, 0.5);
            let step_of = |report: &StepReport| report.step;
            let evaluation = |step| EvalReport { generation, step, split, loss, error };
            let evaluations = unrecorded.iter().map(step_of).map(evaluation).collect();
            Halted { generation, held, ring_address, unrecorded, evaluations }
        })
}

fn data() -> impl Strategy<Value = DataSummary> {
    let channels = prop::collection::vec((value(), value()), 0..5);
    (digest(), any::<[u64; 3]>(), any::<[u32; 3]>(), channels).prop_map(
        |(digest, [train_examples, validation_examples, test_examples], [height, width, classes], channels)| {
            let (mean, std): (Vec<f32>, Vec<f32>) = channels.into_iter().unzip();
            let channels = mean.len() as u32;
            DataSummary {
                digest,
                train_examples,
                validation_examples,
                test_examples,
                channels,
                height,
                width,
                classes,
                mean,
                std,
            }
        },
    )
}

fn worker_message() -> impl Strategy<Value = WorkerMessage> {
    prop_oneof![
        register().prop_map(WorkerMessage::Register),
        prepared().prop_map(WorkerMessage::Prepared),
        (generation(), prop::option::of("[a-f0-9]{1,40}"), communicator())
            .prop_map(|(generation, gpu, communicator)| { WorkerMessage::RingReady { generation, gpu, communicator } }),
        (generation_or_none(), step(), phase(), number()).prop_map(|(generation, step, phase, images_per_s)| {
            WorkerMessage::Heartbeat(Progress { generation, step, phase, images_per_s })
        }),
        step_report().prop_map(WorkerMessage::Step),
        (generation(), step(), split(), number(), 0.0..=1.0).prop_map(|(generation, step, split, loss, error)| {
            WorkerMessage::Eval(EvalReport { generation, step, split, loss, error })
        }),
        (generation(), any::<[u64; 2]>(), any::<Option<String>>()).prop_map(|(generation, [done, of], result)| {
            WorkerMessage::Measured(MeasureReport { generation, done, of, result })
        }),
        state().prop_map(WorkerMessage::State),
        (generation(), step(), digest(), any::<bool>()).prop_map(|(generation, step, weights, stopped)| {
            WorkerMessage::Finished(Finished { generation, step, weights, stopped })
        }),
        (generation_or_none(), step(), phase(), failure_kind(), any::<String>()).prop_map(
            |(generation, step, phase, kind, message)| {
                WorkerMessage::Failed(FailureReport { generation, step, phase, kind, message })
            }
        ),
        (generation_or_none(), any::<String>())
            .prop_map(|(generation, reason)| WorkerMessage::Leaving { generation, reason }),
        halted().prop_map(WorkerMessage::Halted),
        Just(WorkerMessage::Retiring),
        (generation(), step()).prop_map(|(generation, step)| WorkerMessage::CaughtUp { generation, step }),
        (generation_or_none(), prop::option::of((step(), digest())), any::<Option<String>>())
            .prop_map(|(generation, held, broken)| WorkerMessage::Holds(Holds { generation, held, broken })),
    ]
}

fn member() -> impl Strategy<Value = Member> {
    (any::<u64>(), address()).prop_map(|(worker, ring_address)| Member { worker: WorkerId(worker), ring_address })
}

fn assign() -> impl Strategy<Value = Assign> {
    let source = (any::<String>(), digest(), prop::option::of(digest()))
        .prop_map(|(source, model, optimizer)| StateRef { source, model, optimizer });
    // A member comes with the number of micro-batches it holds.
    let members = prop::collection::vec((member(), 0usize..9), 1..5);
    let origin = (prop::option::of(source), any::<bool>());
    (generation(), any::<prop::sample::Index>(), members, step(), step(), origin, any::<bool>()).prop_map(
        |(generation, rank, members, start, steps, (state, keeps), unsettled)| {
            let rank = Rank(rank.index(members.len()) as u32);
            let (members, held): (Vec<Member>, Vec<usize>) = members.into_iter().unzip();
            let mut bounds = vec![0];
            for held in held {
                bounds.push(bounds[bounds.len() - 1] + held);
            }
            let keeps = keeps && state.is_none();
            let (some_are_sent, ticket) = (keeps, Ticket([7; 32]));
            Assign { generation, rank, members, bounds, start, steps, state, keeps, unsettled, some_are_sent, ticket }
        },
    )
}

fn job() -> impl Strategy<Value = Job> {
    prop_oneof![Just(Job::Train), split().prop_map(Job::Evaluate), any::<String>().prop_map(Job::Measure)]
}

fn coordinator_message() -> impl Strategy<Value = CoordinatorMessage> {
    let ending = prop_oneof![
        Just(Ending::Done),
        Just(Ending::Stopped),
        any::<String>().prop_map(Ending::Failed),
        any::<String>().prop_map(Ending::Refused),
        any::<String>().prop_map(Ending::Outdated),
        Just(Ending::Released),
    ];
    prop_oneof![
        (any::<[u64; 2]>(), any::<String>(), job(), 1..u64::MAX).prop_map(
            |([worker, run], configuration, job, lease_ms)| CoordinatorMessage::Admitted(Admitted {
                worker: WorkerId(worker),
                run: RunId(run),
                configuration,
                job,
                lease: Duration::from_millis(lease_ms),
                rejoin_timeout: Duration::from_secs(lease_ms / 2),
            })
        ),
        assign().prop_map(CoordinatorMessage::Assign),
        state().prop_map(CoordinatorMessage::State),
        (generation(), communicator())
            .prop_map(|(generation, communicator)| CoordinatorMessage::Start { generation, communicator }),
        Just(CoordinatorMessage::Ack),
        generation().prop_map(|generation| CoordinatorMessage::Stop { generation }),
        (generation(), step()).prop_map(|(generation, recorded)| CoordinatorMessage::Pause { generation, recorded }),
        (generation(), step()).prop_map(|(generation, recorded)| CoordinatorMessage::Halt { generation, recorded }),
        generation().prop_map(|generation| CoordinatorMessage::SendState { generation }),
        (generation(), step())
            .prop_map(|(generation, recorded)| CoordinatorMessage::TakenBack { generation, recorded }),
        (generation(), member(), digest())
            .prop_map(|(generation, to, Digest(secret))| Feed { generation, to, ticket: Ticket(secret) })
            .prop_map(CoordinatorMessage::Feed),
        (generation(), member(), step(), digest())
            .prop_map(|(generation, from, steps, Digest(secret))| Follow {
                generation,
                from,
                steps,
                ticket: Ticket(secret)
            })
            .prop_map(CoordinatorMessage::Follow),
        ending.prop_map(CoordinatorMessage::End),
    ]
}

fn cluster() -> impl Strategy<Value = ClusterStatus> {
    let worker = (
        (any::<u64>(), any::<String>(), address(), any::<u32>(), any::<Option<u32>>(), any::<u64>()),
        (step(), phase(), number(), any::<u64>(), any::<String>()),
    )
        .prop_map(
            |((worker, host, address, pid, rank, micro_batches), (step, phase, images_per_s, silent_ms, late))| {
                let (worker, rank) = (WorkerId(worker), rank.map(Rank));
                WorkerStatus {
                    worker,
                    host,
                    address,
                    pid,
                    rank,
                    micro_batches,
                    step,
                    phase,
                    images_per_s,
                    silent_ms,
                    late,
                }
            },
        );
    let decision =
        (any::<[String; 2]>(), any::<u64>()).prop_map(|([what, why], ago_ms)| DecisionStatus { what, why, ago_ms });
    let told = (prop::collection::vec(worker, 0..4), prop::collection::vec(decision, 0..4));
    let newest = (prop::option::of(step_report()), prop::option::of(survey_status()));
    (any::<u64>(), any::<[String; 2]>(), generation_or_none(), step(), step(), newest, told).prop_map(
        |(run, [name, stage], generation, step, steps, (last_step, survey), (workers, decisions))| ClusterStatus {
            run: RunId(run),
            name,
            stage,
            generation,
            step,
            steps,
            last_step,
            survey,
            workers,
            decisions,
        },
    )
}

/// To bytes and back, in pieces where it is a state.
fn through_bytes<M: Message>(message: M) -> M {
    let wires: Vec<M::Wire> = match message.encode() {
        Encoded::Whole(wire) => vec![wire],
        Encoded::State(state) => crate::chunks::Cutter::new(state).map(M::chunk).collect(),
    };
    let mut assembler = Assembler::new(STATE_LIMIT);
    let count = wires.len();
    for (i, wire) in wires.into_iter().enumerate() {
        let bytes = wire.encode_to_vec();
        assert!(bytes.len() <= crate::MESSAGE_LIMIT);
        match M::decode(M::Wire::decode(&*bytes).unwrap()).unwrap() {
            Decoded::Whole(message) => return message,
            Decoded::Chunk(chunk) => match assembler.accept(chunk).unwrap() {
                Some(state) => {
                    assert_eq!(
                        state.model.counted_digest(),
                        Some(Digest::of(&state.model)),
                        "it is counted on its way"
                    );
                    assert_eq!(state.optimizer.counted_digest(), Some(Digest::of(&state.optimizer)));
                    assert_eq!(i + 1, count, "complete before its last piece");
                    return M::state(state);
                }
                None => assert!(i + 1 < count, "incomplete after its last piece"),
            },
        }
    }
    unreachable!()
}

proptest! {
    #[test]
    fn every_message_of_a_worker_survives_the_wire(message in worker_message()) {
        prop_assert_eq!(through_bytes(message.clone()), message);
    }

    #[test]
    fn every_message_of_the_coordinator_survives_the_wire(message in coordinator_message()) {
        prop_assert_eq!(through_bytes(message.clone()), message);
    }

    #[test]
    fn a_status_survives_the_wire(cluster in cluster()) {
        let bytes = wire::ClusterStatus::from(cluster.clone()).encode_to_vec();
        let back: ClusterStatus = wire::ClusterStatus::decode(&*bytes).unwrap().try_into().unwrap();
        prop_assert_eq!(back, cluster);
    }

    #[test]
    fn a_drain_and_its_answer_survive_the_wire(
        worker in any::<u64>(), is_forced in any::<bool>(), token in any::<Option<String>>(), refused in any::<Option<String>>()
    ) {
        let shortage = if is_forced { Shortage::Accept } else { Shortage::Refuse };
        let request = DrainRequest { worker: WorkerId(worker), shortage, token };
        let bytes = wire::DrainRequest::from(request.clone()).encode_to_vec();
        prop_assert_eq!(DrainRequest::try_from(wire::DrainRequest::decode(&*bytes).unwrap()).unwrap(), request);
        let done = if is_forced { DrainAnswer::Leaves } else { DrainAnswer::HasLeft };
        let answer = refused.map_or(done, DrainAnswer::Refused);
        let bytes = wire::DrainReply::from(answer.clone()).encode_to_vec();
        prop_assert_eq!(DrainAnswer::try_from(wire::DrainReply::decode(&*bytes).unwrap()).unwrap(), answer);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(wire) = wire::WorkerMessage::decode(&*bytes) {
            let _ = WorkerMessage::decode(wire);
        }
        if let Ok(wire) = wire::CoordinatorMessage::decode(&*bytes) {
            let _ = CoordinatorMessage::decode(wire);
        }
    }
}

#[test]
fn a_long_reason_is_cut_on_its_way_out_so_that_it_arrives() {
    let reason = format!("x{}", "\u{e9}".repeat(64 << 10));
    let leaving = WorkerMessage::Leaving { generation: Generation(1), reason: reason.clone() };
    let WorkerMessage::Leaving { reason: arrived, .. } = through_bytes(leaving) else { panic!("another message") };
    assert!(reason.starts_with(&arrived));
    assert_eq!(arrived.len(), (64 << 10) - 1);
}

#[test]
fn a_lease_is_never_rounded_to_none() {
    let admitted = Admitted {
        worker: WorkerId(0),
        run: RunId(0),
        configuration: String::new(),
        job: Job::Train,
        lease: Duration::from_micros(1),
        rejoin_timeout: Duration::ZERO,
    };
    assert_eq!(wire::Admitted::from(admitted).lease_ms, 1);
}
