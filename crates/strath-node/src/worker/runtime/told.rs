//! What threads have found, as events of the worker's machine and messages for it.

use strath_core::{Generation, Step};
use strath_cuda::Gpu;
use strath_data::SplitName;
use strath_protocol::WorkerEvent;
use strath_protocol::message::{
    DataSummary, EvalReport, FailureKind, FailureReport, Finished, MeasureReport, Phase, Prepared as PreparedMessage,
    Purpose, Split, State, StepReport,
};

use crate::measure::Advance;
use crate::prepare::Prepared;
use crate::trainer::Told;

/// What a word of the training thread of a generation means to the machine.
pub(super) fn translate(generation: Generation, told: Told) -> WorkerEvent {
    match told {
        Told::Stepped { step, outcome, seconds } => WorkerEvent::Stepped(StepReport {
            generation,
            step: Step(step),
            clean_loss: outcome.clean_loss,
            perturbed_loss: outcome.perturbed_loss,
            lr: outcome.lr,
            gradient_norm: outcome.gradient_norm,
            epsilon_norm: outcome.epsilon_norm,
            zero_gradient_lanes: outcome.zero_gradient_lanes,
            telemetry: outcome.telemetry,
            seconds,
            phases: outcome.seconds,
        }),
        Told::Evaluated { step, split, evaluation } => WorkerEvent::Evaluated(EvalReport {
            generation,
            step: Step(step),
            split: match split {
                SplitName::Train => Split::Train,
                SplitName::Validation => Split::Validation,
                SplitName::Test => Split::Test,
                SplitName::Noisy => Split::Noisy,
            },
            loss: evaluation.loss,
            error: evaluation.error,
        }),
        Told::Measuring(Advance { done, of }) => {
            WorkerEvent::Measured(MeasureReport { generation, done, of, result: None })
        }
        Told::Measured(result) => {
            WorkerEvent::Measured(MeasureReport { generation, done: 0, of: 0, result: Some(result) })
        }
        Told::State { step, is_final, model, optimizer } => WorkerEvent::StateReady(State {
            generation,
            step: Step(step),
            purpose: if is_final { Purpose::Final } else { Purpose::Checkpoint },
            model: model.into(),
            optimizer: optimizer.into(),
        }),
        Told::Finished { step, weights, stopped } => {
            WorkerEvent::Finished(Finished { generation, step: Step(step), weights, stopped })
        }
        Told::Paused => WorkerEvent::Paused(generation),
        Told::Failed { step, phase, message, kind } => failed(generation, Step(step), phase, message, kind),
    }
}

/// That this worker has failed in a generation; 0: before the first.
pub(super) fn failed(
    generation: Generation,
    step: Step,
    phase: Phase,
    message: String,
    kind: FailureKind,
) -> WorkerEvent {
    WorkerEvent::Failed(FailureReport { generation, step, phase, kind, message })
}

/// What the coordinator is to know of data, model and machine.
pub(super) fn summarise(prepared: &Prepared, is_encrypted: bool) -> PreparedMessage {
    let dataset = &prepared.dataset;
    let shape = dataset.shape();
    PreparedMessage {
        data: DataSummary {
            digest: dataset.digest(),
            train_examples: dataset.split(SplitName::Train).len() as u64,
            validation_examples: dataset.split(SplitName::Validation).len() as u64,
            test_examples: dataset.split(SplitName::Test).len() as u64,
            channels: shape.channels as u32,
            height: shape.height as u32,
            width: shape.width as u32,
            classes: dataset.classes() as u32,
            mean: dataset.normalisation().mean.clone(),
            std: dataset.normalisation().std.clone(),
        },
        parameters: prepared.model.parameters().len() as u64,
        statistics: prepared.model.statistics().len() as u64,
        numerics: prepared.numerics,
        gpu: prepared.gpu_that_sums(is_encrypted).map(Gpu::identity),
    }
}
