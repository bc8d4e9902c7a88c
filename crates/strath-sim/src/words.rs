//! What workers say whose values the simulation does not look at.

use strath_core::{Digest, Generation, Step, Telemetry};
use strath_protocol::message::{DataSummary, PhaseSeconds, Prepared, StepReport};

/// What every worker has made ready: this many examples to train on, and a model of three values.
pub(crate) fn prepared(train_examples: u64) -> Prepared {
    let data = DataSummary {
        digest: Digest([1; 32]),
        train_examples,
        validation_examples: 0,
        test_examples: 100,
        channels: 1,
        height: 8,
        width: 8,
        classes: 10,
        mean: vec![0.0],
        std: vec![1.0],
    };
    Prepared { data, parameters: 3, statistics: 0, numerics: Digest([2; 32]), gpu: None }
}

/// What a rank says of a step.
pub(crate) fn step_report(generation: Generation, step: Step) -> StepReport {
    StepReport {
        generation,
        step,
        clean_loss: 1.0,
        perturbed_loss: 1.0,
        lr: 0.1,
        gradient_norm: 1.0,
        epsilon_norm: 0.05,
        zero_gradient_lanes: 0,
        telemetry: Telemetry::default(),
        seconds: 0.1,
        phases: PhaseSeconds::default(),
    }
}
