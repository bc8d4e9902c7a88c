//! Random events: nothing panics, a rejected event changes nothing, and one end is the last.

use std::time::Duration;

use proptest::prelude::*;
use strath_core::{Digest, Generation, Rank, Step, WorkerId};
use strath_protocol::message::{
    DrainRequest, EvalReport, FailureKind, FailureReport, Phase, Progress, Purpose, Shortage, Split, WorkerMessage,
};
use strath_protocol::{Connection, Coordinator, CoordinatorCommand as Command, CoordinatorEvent as Event, Gather};

use crate::support::{address, at, drain, finished, halted, prepared, register, running, settings, state};

fn purpose() -> impl Strategy<Value = Purpose> {
    prop_oneof![Just(Purpose::Checkpoint), Just(Purpose::Final), Just(Purpose::Handover)]
}

fn failure_kind() -> impl Strategy<Value = FailureKind> {
    prop_oneof![1 => Just(FailureKind::Own), 4 => (0u32..4).prop_map(|lost| FailureKind::PeerLost(Rank(lost))),
        1 => (0u32..4).prop_map(|rank| FailureKind::Deviates(Rank(rank)))]
}

fn shortage() -> impl Strategy<Value = Shortage> {
    prop_oneof![Just(Shortage::Refuse), Just(Shortage::Accept)]
}

fn any_message() -> impl Strategy<Value = WorkerMessage> {
    let generation = (4u64..6).prop_map(Generation);
    prop_oneof![
        4 => (0u64..3).prop_map(|w| WorkerMessage::Register(register(w))),
        4 => prop::bool::weighted(0.9).prop_map(|same| {
            let mut other = prepared();
            other.data.digest = Digest([u8::from(same); 32]);
            WorkerMessage::Prepared(other)
        }),
        4 => generation.clone().prop_map(|generation| WorkerMessage::RingReady { generation, gpu: None, communicator: None }),
        4 => (generation.clone(), 0u64..4).prop_map(|(generation, step)| {
            WorkerMessage::Heartbeat(Progress { generation, step: Step(step), phase: Phase::Reduce, images_per_s: 1.0 })
        }),
        4 => (0u8..2, 2u64..4, any::<bool>()).prop_map(|(weights, step, stopped)| finished(weights, step, stopped)),
        4 => (2u64..4, purpose()).prop_map(|(step, purpose)| WorkerMessage::State(state(step, purpose))),
        2 => (generation.clone(), 0u64..4).prop_map(|(generation, step)| {
            WorkerMessage::Eval(EvalReport { generation, step: Step(step), split: Split::Test, loss: 1.0, error: 0.5 })
        }),
        1 => (generation, failure_kind()).prop_map(|(generation, kind)| {
            WorkerMessage::Failed(FailureReport {
                generation,
                step: Step(1),
                phase: Phase::Ascent,
                kind,
                message: String::new(),
            })
        }),
        6 => (5u64..8, 0u64..4, 0u8..2, 0u64..4).prop_map(|(generation, step, state, ring)| {
            halted(generation, (step > 0).then_some((step, state)), 200 + ring)
        }),
        1 => Just(WorkerMessage::Retiring),
        1 => Just(WorkerMessage::Leaving { generation: Generation(5), reason: String::new() }),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    let connection = (0u64..4).prop_map(Connection);
    prop_oneof![
        8 => connection.clone().prop_map(|connection| Event::Connected { connection, address: address(connection.0) }),
        48 => (connection.clone(), any_message()).prop_map(|(connection, message)| Event::Message { connection, message }),
        2 => connection.prop_map(|connection| Event::Disconnected { connection, cause: String::new() }),
        6 => Just(Event::Tick),
        8 => (2u64..4, purpose()).prop_map(|(step, purpose)| Event::Saved { step: Step(step), purpose }),
        1 => Just(Event::StopRequested),
        2 => (0u64..4, shortage()).prop_map(|(worker, shortage)| {
            Event::DrainRequested(DrainRequest { worker: WorkerId(worker), shortage, token: Some("secret".into()) })
        }),
        1 => Just(Event::WriteFailed { message: String::new() }),
        1 => (0u32..5).prop_map(|pid| Event::ProcessEnded { pid, cause: String::new() }),
    ]
}

/// Where a sequence begins.
#[derive(Debug, Clone, Copy)]
enum From {
    Nothing(Gather),
    Running(u64),
}

fn from() -> impl Strategy<Value = From> {
    let quiet = Duration::from_millis(50);
    prop_oneof![
        Just(From::Nothing(Gather::Exactly(2))),
        Just(From::Nothing(Gather::AtLeast { workers: 1, quiet })),
        (1u64..4).prop_map(From::Running),
    ]
}

proptest! {
    #[test]
    fn no_sequence_of_events_panics_a_rejected_one_changes_nothing_and_one_end_is_the_last(
        from in from(), events in prop::collection::vec((any_event(), 0u64..300), 0..80)
    ) {
        let mut machine = match from {
            From::Nothing(gather) => Coordinator::new(settings(gather), at(0)),
            From::Running(workers) => running(workers),
        };
        let mut now = 0;
        let mut ended = 0;
        for (event, later) in events {
            now += later;
            let before = machine.clone();
            if machine.handle(event, at(now)).is_err() {
                prop_assert_eq!(&machine, &before);
            }
            let commands = drain(&mut machine);
            prop_assert!(ended == 0 || commands.is_empty(), "nothing comes after the end");
            ended += commands.iter().filter(|c| matches!(c, Command::Finish(_))).count();
            prop_assert_eq!(machine.next_deadline().is_none(), ended == 1);
            let _ = machine.status(at(now));
        }
    }

    #[test]
    fn whatever_happens_to_a_machine_that_hears_nothing_more_it_comes_to_an_end(
        from in from(), events in prop::collection::vec((any_event(), 0u64..300), 0..80)
    ) {
        let mut machine = match from {
            From::Nothing(gather) => Coordinator::new(settings(gather), at(0)),
            From::Running(workers) => running(workers),
        };
        let mut now = 0;
        for (event, later) in events {
            now += later;
            // Whether it was rejected is the other property's concern.
            let _ = machine.handle(event, at(now));
        }
        // The deadlines that the machine asks for are enough to wake it: leases run out, suspicions are settled.
        let (begun, mut last) = (at(now), at(now));
        while let Some(deadline) = machine.next_deadline() {
            last = deadline.max(last);
            machine.handle(Event::Tick, last).unwrap();
            prop_assert!(machine.next_deadline().is_none_or(|next| next > last), "a deadline that is over would spin");
            // What is left of a run waits for others, for cluster.rejoin_timeout_s, and for a disk for twice as long.
            prop_assert!(last.since(begun) <= Duration::from_secs(3610), "{} for ever", machine.status(last).stage);
        }
        drain(&mut machine);
        let status = machine.status(last);
        prop_assert_eq!(status.stage.as_str(), "ended");
    }
}
