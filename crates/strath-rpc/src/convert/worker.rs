//! What workers say.

use strath_core::{Digest, Generation, Rank, RunId, Step, WorkerId};
use strath_protocol::message::{
    DataSummary, EvalReport, FailureKind, FailureReport, Finished, Halted, Holds, MOST_EVALUATIONS_TOLD,
    MOST_STEPS_TOLD, MeasureReport, PhaseSeconds, Prepared, Progress, Register, Returning, StepReport, Whence,
};

use super::{
    RESULT_LIMIT, address, all_finite, bounded, clipped, digest, finite, generation, phase_in, phase_out, required,
    split_in, split_out, step, text,
};
use crate::error::RpcError;
use crate::wire;

impl From<Register> for wire::Register {
    fn from(register: Register) -> Self {
        let Register { version, token, ring_address, host, pid, nonce, cores, returning } = register;
        let returning = returning.map(|returning| (*returning).into());
        Self { version, token, ring_address: ring_address.to_string(), host, pid, nonce, cores, returning }
    }
}

impl TryFrom<wire::Register> for Register {
    type Error = RpcError;

    fn try_from(register: wire::Register) -> Result<Self, RpcError> {
        let wire::Register { version, token, ring_address, host, pid, nonce, cores, returning } = register;
        Ok(Self {
            version: text(version, "Register.version")?,
            token: token.map(|token| text(token, "Register.token")).transpose()?,
            ring_address: address(ring_address, "Register.ring_address")?,
            host: text(host, "Register.host")?,
            pid,
            nonce,
            cores,
            returning: returning.map(Returning::try_from).transpose()?.map(Box::new),
        })
    }
}

impl From<Returning> for wire::Returning {
    fn from(returning: Returning) -> Self {
        let Returning { run, worker, prepared, whence } = returning;
        let whence = Some(match whence {
            Whence::Working(generation) => wire::returning::Whence::Working(generation.0),
            Whence::Halted(halted) => wire::returning::Whence::Halted(halted.into()),
        });
        Self { run: run.0, worker: worker.0, prepared: Some(prepared.into()), whence }
    }
}

impl TryFrom<wire::Returning> for Returning {
    type Error = RpcError;

    fn try_from(returning: wire::Returning) -> Result<Self, RpcError> {
        let wire::Returning { run, worker, prepared, whence } = returning;
        let whence = match required(whence, "Returning.whence")? {
            wire::returning::Whence::Working(number) => Whence::Working(generation(number, "Returning.working")?),
            wire::returning::Whence::Halted(halted) => Whence::Halted(halted.try_into()?),
        };
        let prepared = required(prepared, "Returning.prepared")?.try_into()?;
        Ok(Self { run: RunId(run), worker: WorkerId(worker), prepared, whence })
    }
}

impl From<Prepared> for wire::Prepared {
    fn from(prepared: Prepared) -> Self {
        let Prepared { data, parameters, statistics, numerics, gpu } = prepared;
        let gpu = gpu.unwrap_or_default();
        Self { data: Some(data.into()), parameters, statistics, numerics: numerics.0.into(), gpu }
    }
}

impl TryFrom<wire::Prepared> for Prepared {
    type Error = RpcError;

    fn try_from(prepared: wire::Prepared) -> Result<Self, RpcError> {
        let wire::Prepared { data, parameters, statistics, numerics, gpu } = prepared;
        Ok(Self {
            data: required(data, "Prepared.data")?.try_into()?,
            parameters,
            statistics,
            numerics: digest(&numerics, "Prepared.numerics")?,
            gpu: super::gpu(gpu, "Prepared.gpu")?,
        })
    }
}

impl From<DataSummary> for wire::DataSummary {
    fn from(data: DataSummary) -> Self {
        let DataSummary {
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
        } = data;
        let digest = digest.0.into();
        Self { digest, train_examples, test_examples, channels, height, width, classes, mean, std, validation_examples }
    }
}

impl TryFrom<wire::DataSummary> for DataSummary {
    type Error = RpcError;

    fn try_from(data: wire::DataSummary) -> Result<Self, RpcError> {
        let wire::DataSummary {
            digest: sha256,
            train_examples,
            test_examples,
            channels,
            height,
            width,
            classes,
            mean,
            std,
            validation_examples,
        } = data;
        // In the order of the fields; `usize` holds the length of whatever has arrived.
        for (field, length) in [("DataSummary.mean", mean.len()), ("DataSummary.std", std.len())] {
            if length as u64 != u64::from(channels) {
                return Err(RpcError::malformed(
                    field,
                    format!("{length} numbers"),
                    format!("{channels}, one a channel"),
                ));
            }
        }
        Ok(Self {
            digest: digest(&sha256, "DataSummary.digest")?,
            train_examples,
            validation_examples,
            test_examples,
            channels,
            height,
            width,
            classes,
            mean: all_finite(mean, "DataSummary.mean")?,
            std: all_finite(std, "DataSummary.std")?,
        })
    }
}

impl From<Progress> for wire::Progress {
    fn from(progress: Progress) -> Self {
        let Progress { generation, step, phase, images_per_s } = progress;
        Self { generation: generation.0, step: step.0, phase: phase_out(phase).into(), images_per_s }
    }
}

impl TryFrom<wire::Progress> for Progress {
    type Error = RpcError;

    fn try_from(progress: wire::Progress) -> Result<Self, RpcError> {
        let wire::Progress { generation, step, phase, images_per_s } = progress;
        Ok(Self {
            generation: Generation(generation),
            step: Step(step),
            phase: phase_in(phase, "Progress.phase")?,
            images_per_s: finite(images_per_s, "Progress.images_per_s")?,
        })
    }
}

impl From<StepReport> for wire::StepReport {
    fn from(report: StepReport) -> Self {
        let StepReport {
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
        } = report;
        Self {
            generation: generation.0,
            step: step.0,
            clean_loss,
            perturbed_loss,
            lr,
            gradient_norm,
            epsilon_norm,
            zero_gradient_lanes,
            telemetry: Some(Box::new(telemetry.into())),
            seconds,
            phases: Some(phases.into()),
        }
    }
}

impl TryFrom<wire::StepReport> for StepReport {
    type Error = RpcError;

    fn try_from(report: wire::StepReport) -> Result<Self, RpcError> {
        Ok(Self {
            generation: generation(report.generation, "StepReport.generation")?,
            step: step(report.step, "StepReport.step")?,
            clean_loss: finite(report.clean_loss, "StepReport.clean_loss")?,
            perturbed_loss: finite(report.perturbed_loss, "StepReport.perturbed_loss")?,
            lr: finite(report.lr, "StepReport.lr")?,
            gradient_norm: finite(report.gradient_norm, "StepReport.gradient_norm")?,
            epsilon_norm: finite(report.epsilon_norm, "StepReport.epsilon_norm")?,
            zero_gradient_lanes: report.zero_gradient_lanes,
            telemetry: report.telemetry.map(|telemetry| (*telemetry).try_into()).transpose()?.unwrap_or_default(),
            seconds: finite(report.seconds, "StepReport.seconds")?,
            phases: required(report.phases, "StepReport.phases")?.try_into()?,
        })
    }
}

impl From<PhaseSeconds> for wire::PhaseSeconds {
    fn from(phases: PhaseSeconds) -> Self {
        let PhaseSeconds { data, ascent, epsilon, exchange, descent, reduce, update } = phases;
        Self { data, ascent, epsilon, exchange, descent, reduce, update }
    }
}

impl TryFrom<wire::PhaseSeconds> for PhaseSeconds {
    type Error = RpcError;

    fn try_from(phases: wire::PhaseSeconds) -> Result<Self, RpcError> {
        Ok(Self {
            data: finite(phases.data, "PhaseSeconds.data")?,
            ascent: finite(phases.ascent, "PhaseSeconds.ascent")?,
            epsilon: finite(phases.epsilon, "PhaseSeconds.epsilon")?,
            exchange: finite(phases.exchange, "PhaseSeconds.exchange")?,
            descent: finite(phases.descent, "PhaseSeconds.descent")?,
            reduce: finite(phases.reduce, "PhaseSeconds.reduce")?,
            update: finite(phases.update, "PhaseSeconds.update")?,
        })
    }
}

impl From<EvalReport> for wire::EvalReport {
    fn from(report: EvalReport) -> Self {
        let EvalReport { generation, step, split, loss, error } = report;
        Self { generation: generation.0, step: step.0, split: split_out(split).into(), loss, error }
    }
}

impl TryFrom<wire::EvalReport> for EvalReport {
    type Error = RpcError;

    fn try_from(report: wire::EvalReport) -> Result<Self, RpcError> {
        let wire::EvalReport { generation: number, step, split, loss, error } = report;
        if !(0.0..=1.0).contains(&error) {
            return Err(RpcError::malformed("EvalReport.error", error.to_string(), "a share from 0 to 1"));
        }
        Ok(Self {
            generation: generation(number, "EvalReport.generation")?,
            step: Step(step),
            split: split_in(split, "EvalReport.split")?,
            loss: finite(loss, "EvalReport.loss")?,
            error,
        })
    }
}

impl From<MeasureReport> for wire::MeasureReport {
    fn from(report: MeasureReport) -> Self {
        let MeasureReport { generation, done, of, result } = report;
        Self { generation: generation.0, done, of, result }
    }
}

impl TryFrom<wire::MeasureReport> for MeasureReport {
    type Error = RpcError;

    fn try_from(report: wire::MeasureReport) -> Result<Self, RpcError> {
        let wire::MeasureReport { generation: number, done, of, result } = report;
        let result = result.map(|result| bounded(result, RESULT_LIMIT, "MeasureReport.result")).transpose()?;
        Ok(Self { generation: generation(number, "MeasureReport.generation")?, done, of, result })
    }
}

impl From<Finished> for wire::Finished {
    fn from(finished: Finished) -> Self {
        let Finished { generation, step, weights, stopped } = finished;
        Self { generation: generation.0, step: step.0, weights: weights.0.into(), stopped }
    }
}

impl TryFrom<wire::Finished> for Finished {
    type Error = RpcError;

    fn try_from(finished: wire::Finished) -> Result<Self, RpcError> {
        let wire::Finished { generation: number, step, weights, stopped } = finished;
        Ok(Self {
            generation: generation(number, "Finished.generation")?,
            step: Step(step),
            weights: digest(&weights, "Finished.weights")?,
            stopped,
        })
    }
}

impl From<Halted> for wire::Halted {
    fn from(halted: Halted) -> Self {
        let Halted { generation, held, ring_address, unrecorded, evaluations } = halted;
        Self {
            generation: generation.0,
            held: held.map(held_out),
            ring_address: ring_address.to_string(),
            unrecorded: unrecorded.into_iter().map(Into::into).collect(),
            evaluations: evaluations.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::Halted> for Halted {
    type Error = RpcError;

    fn try_from(halted: wire::Halted) -> Result<Self, RpcError> {
        let wire::Halted { generation: number, held, ring_address, unrecorded, evaluations } = halted;
        if evaluations.len() > MOST_EVALUATIONS_TOLD {
            let found = format!("{} reports", evaluations.len());
            return Err(RpcError::malformed("Halted.evaluations", found, format!("at most {MOST_EVALUATIONS_TOLD}")));
        }
        if unrecorded.len() > MOST_STEPS_TOLD {
            let found = format!("{} reports", unrecorded.len());
            return Err(RpcError::malformed("Halted.unrecorded", found, format!("at most {MOST_STEPS_TOLD}")));
        }
        Ok(Self {
            generation: generation(number, "Halted.generation")?,
            held: held.as_ref().map(held_in).transpose()?,
            ring_address: address(ring_address, "Halted.ring_address")?,
            unrecorded: unrecorded.into_iter().map(TryInto::try_into).collect::<Result<_, RpcError>>()?,
            evaluations: evaluations.into_iter().map(TryInto::try_into).collect::<Result<_, RpcError>>()?,
        })
    }
}

fn held_out((step, digest): (Step, Digest)) -> wire::HeldState {
    wire::HeldState { step: step.0, digest: digest.0.into() }
}

fn held_in(held: &wire::HeldState) -> Result<(Step, Digest), RpcError> {
    Ok((Step(held.step), digest(&held.digest, "HeldState.digest")?))
}

impl From<Holds> for wire::Holds {
    fn from(holds: Holds) -> Self {
        let Holds { generation, held, broken } = holds;
        Self { generation: generation.0, held: held.map(held_out), broken: broken.map(clipped) }
    }
}

impl TryFrom<wire::Holds> for Holds {
    type Error = RpcError;

    fn try_from(holds: wire::Holds) -> Result<Self, RpcError> {
        let wire::Holds { generation, held, broken } = holds;
        Ok(Self {
            generation: Generation(generation),
            held: held.as_ref().map(held_in).transpose()?,
            broken: broken.map(|reason| text(reason, "Holds.broken")).transpose()?,
        })
    }
}

impl From<FailureReport> for wire::FailureReport {
    fn from(report: FailureReport) -> Self {
        let FailureReport { generation, step, phase, kind, message } = report;
        let kind = match kind {
            FailureKind::Own => None,
            FailureKind::Machine => Some(wire::failure_report::Kind::Machine(wire::MachineFault {})),
            FailureKind::Configuration => Some(wire::failure_report::Kind::Misconfigured(wire::Misconfigured {})),
            FailureKind::GpusApart => Some(wire::failure_report::Kind::GpusApart(wire::GpusApart {})),
            FailureKind::PeerLost(rank) => Some(wire::failure_report::Kind::LostRank(rank.0)),
            FailureKind::Deviates(rank) => Some(wire::failure_report::Kind::DeviatingRank(rank.0)),
        };
        Self { generation: generation.0, step: step.0, phase: phase_out(phase).into(), kind, message: clipped(message) }
    }
}

impl TryFrom<wire::FailureReport> for FailureReport {
    type Error = RpcError;

    fn try_from(report: wire::FailureReport) -> Result<Self, RpcError> {
        let wire::FailureReport { generation, step, phase, kind, message } = report;
        let kind = match kind {
            None => FailureKind::Own,
            Some(wire::failure_report::Kind::Machine(_)) => FailureKind::Machine,
            Some(wire::failure_report::Kind::Misconfigured(_)) => FailureKind::Configuration,
            Some(wire::failure_report::Kind::GpusApart(_)) => FailureKind::GpusApart,
            Some(wire::failure_report::Kind::LostRank(rank)) => FailureKind::PeerLost(Rank(rank)),
            Some(wire::failure_report::Kind::DeviatingRank(rank)) => FailureKind::Deviates(Rank(rank)),
        };
        Ok(Self {
            generation: Generation(generation),
            step: Step(step),
            phase: phase_in(phase, "FailureReport.phase")?,
            kind,
            message: text(message, "FailureReport.message")?,
        })
    }
}
