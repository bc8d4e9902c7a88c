//! GPUs that sum by themselves: who may, and how they find each other.

use strath_core::{Generation, Step};
use strath_protocol::message::{CommunicatorId, CoordinatorMessage, Ending, FailureKind, Prepared, WorkerMessage};
use strath_protocol::{Coordinator, CoordinatorCommand as Command, Gather, Settings};

use crate::support::{at, config, failed, join, prepared, say, send, settings};

fn id(of: u8) -> CommunicatorId {
    CommunicatorId(Box::new([of; CommunicatorId::BYTES]))
}

fn on(gpu: Option<&str>) -> Prepared {
    Prepared { gpu: gpu.map(Into::into), ..prepared() }
}

/// Two workers on these GPUs are ready; what the last was answered.
fn two(transport: &str, gpus: [Option<&str>; 2]) -> (Coordinator, Vec<Command>) {
    let config = config(&[&format!("cluster.transport={transport}")]);
    let settings = Settings { configuration: config.to_toml(), config, ..settings(Gather::Exactly(2)) };
    let (mut machine, mut answer) = (Coordinator::new(settings, at(0)), Vec::new());
    for (worker, gpu) in (0..).zip(gpus) {
        join(&mut machine, worker, 0);
        answer = say(&mut machine, worker, WorkerMessage::Prepared(on(gpu)), 0);
    }
    (machine, answer)
}

/// What the two are told when their rings are ready, and they sum on these GPUs.
fn start(machine: &mut Coordinator, gpus: [Option<&str>; 2]) -> Vec<Command> {
    let ready = |worker, communicator, gpu: Option<&str>| WorkerMessage::RingReady {
        generation: Generation(5),
        gpu: gpu.map(Into::into),
        communicator: Some(communicator).filter(|_| worker == 0),
    };
    say(machine, 0, ready(0, id(7), gpus[0]), 0);
    say(machine, 1, ready(1, id(7), gpus[1]), 0)
}

#[test]
fn the_name_that_rank_0_gives_goes_to_all_where_each_has_a_gpu_of_its_own() {
    let generation = Generation(5);
    for (transport, gpus, communicator) in [
        ("auto", [Some("a"), Some("b")], Some(id(7))),
        ("nccl", [Some("a"), Some("b")], Some(id(7))),
        ("auto", [Some("a"), Some("a")], None),
        ("auto", [Some("a"), None], None),
        ("tcp", [Some("a"), Some("b")], None),
    ] {
        let (mut machine, _) = two(transport, gpus);
        let told = start(&mut machine, gpus);
        for worker in 0..2 {
            let start = CoordinatorMessage::Start { generation, communicator: communicator.clone() };
            assert!(told.contains(&send(worker, start)), "{transport} {gpus:?}: {told:?}");
        }
    }
}

#[test]
fn a_gpu_that_cannot_sum_by_itself_any_more_has_all_sum_through_their_hosts() {
    for transport in ["auto", "nccl"] {
        let (mut machine, _) = two(transport, [Some("a"), Some("b")]);
        let told = start(&mut machine, [Some("a"), None]);
        let start = CoordinatorMessage::Start { generation: Generation(5), communicator: None };
        assert!(told.contains(&send(0, start)), "{transport}: {told:?}");
    }
}

#[test]
fn gpus_that_come_apart_regroup_and_nobody_is_dropped() {
    let (mut machine, _) = two("auto", [Some("a"), Some("b")]);
    start(&mut machine, [Some("a"), Some("b")]);
    let told = say(&mut machine, 1, failed(FailureKind::GpusApart, "NCCL: remote error"), 10);
    let halt = CoordinatorMessage::Halt { generation: Generation(5), recorded: Step(0) };
    for worker in 0..2 {
        assert!(told.contains(&send(worker, halt.clone())), "{told:?}");
    }
    assert_eq!(say(&mut machine, 0, failed(FailureKind::GpusApart, "NCCL: remote error"), 11), []);
    assert!(!told.iter().any(|command| matches!(command, Command::Send { message: CoordinatorMessage::End(_), .. })));
}

#[test]
fn whoever_cannot_sum_by_itself_is_refused_where_that_is_insisted_on() {
    let refusal = |gpus| {
        let (_, answer) = two("nccl", gpus);
        let refused = answer.iter().find_map(|command| match command {
            Command::Send { message: CoordinatorMessage::End(Ending::Refused(reason)), .. } => Some(reason.clone()),
            _ => None,
        });
        refused.unwrap_or_else(|| panic!("{answer:?}"))
    };
    let none = refusal([Some("a"), None]);
    assert!(none.contains("worker 1") && none.contains("computes on the processor or finds no libnccl"), "{none}");
    let shared = refusal([Some("a"), Some("a")]);
    for part in ["worker 1", "computes on the GPU of worker 0", "one rank a GPU", "cluster.transport = \"auto\""] {
        assert!(shared.contains(part), "{part:?} is not in {shared}");
    }
}
