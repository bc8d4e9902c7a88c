//! What a status request shows.

use strath_core::{Generation, Rank, RunId, Step, WorkerId};
use strath_protocol::{ClusterStatus, DecisionStatus, SurveyStatus, WorkerStatus};

use super::telemetry::number;
use super::{address, clipped, finite, phase_in, phase_out, required, text};
use crate::error::RpcError;
use crate::wire;

impl From<ClusterStatus> for wire::ClusterStatus {
    fn from(cluster: ClusterStatus) -> Self {
        let ClusterStatus { run, name, stage, generation, step, steps, last_step, survey, workers, decisions } =
            cluster;
        Self {
            run: run.0,
            name,
            stage,
            generation: generation.0,
            step: step.0,
            steps: steps.0,
            last_step: last_step.map(Into::into),
            survey: survey.map(Into::into),
            workers: workers.into_iter().map(Into::into).collect(),
            decisions: decisions.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::ClusterStatus> for ClusterStatus {
    type Error = RpcError;

    fn try_from(cluster: wire::ClusterStatus) -> Result<Self, RpcError> {
        let wire::ClusterStatus { run, name, stage, generation, step, steps, last_step, survey, workers, decisions } =
            cluster;
        Ok(Self {
            run: RunId(run),
            name: text(name, "ClusterStatus.name")?,
            stage: text(stage, "ClusterStatus.stage")?,
            generation: Generation(generation),
            step: Step(step),
            steps: Step(steps),
            last_step: last_step.map(TryInto::try_into).transpose()?,
            survey: survey.map(TryInto::try_into).transpose()?,
            workers: workers.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            decisions: decisions.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}

impl From<SurveyStatus> for wire::SurveyStatus {
    fn from(survey: SurveyStatus) -> Self {
        let SurveyStatus { step, rho_equivalent, noise_scale, coherence, audit } = survey;
        Self { step: step.0, rho_equivalent, noise_scale, coherence, audit: Some(audit.into()) }
    }
}

impl TryFrom<wire::SurveyStatus> for SurveyStatus {
    type Error = RpcError;

    fn try_from(survey: wire::SurveyStatus) -> Result<Self, RpcError> {
        let wire::SurveyStatus { step, rho_equivalent, noise_scale, coherence, audit } = survey;
        Ok(Self {
            step: Step(step),
            rho_equivalent: number(rho_equivalent, "SurveyStatus.rho_equivalent")?,
            noise_scale: number(noise_scale, "SurveyStatus.noise_scale")?,
            coherence: number(coherence, "SurveyStatus.coherence")?,
            audit: required(audit, "SurveyStatus.audit")?.try_into()?,
        })
    }
}

impl From<DecisionStatus> for wire::Decision {
    fn from(decision: DecisionStatus) -> Self {
        let DecisionStatus { what, why, ago_ms } = decision;
        Self { what: clipped(what), why: clipped(why), ago_ms }
    }
}

impl TryFrom<wire::Decision> for DecisionStatus {
    type Error = RpcError;

    fn try_from(decision: wire::Decision) -> Result<Self, RpcError> {
        let wire::Decision { what, why, ago_ms } = decision;
        Ok(Self { what: text(what, "Decision.what")?, why: text(why, "Decision.why")?, ago_ms })
    }
}

impl From<WorkerStatus> for wire::WorkerStatus {
    fn from(status: WorkerStatus) -> Self {
        let WorkerStatus {
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
        } = status;
        Self {
            worker: worker.0,
            host,
            address: address.to_string(),
            pid,
            rank: rank.map(|rank| rank.0),
            micro_batches,
            step: step.0,
            phase: phase_out(phase).into(),
            images_per_s,
            silent_ms,
            late: clipped(late),
        }
    }
}

impl TryFrom<wire::WorkerStatus> for WorkerStatus {
    type Error = RpcError;

    fn try_from(status: wire::WorkerStatus) -> Result<Self, RpcError> {
        Ok(Self {
            worker: WorkerId(status.worker),
            host: text(status.host, "WorkerStatus.host")?,
            address: address(status.address, "WorkerStatus.address")?,
            pid: status.pid,
            rank: status.rank.map(Rank),
            micro_batches: status.micro_batches,
            step: Step(status.step),
            phase: phase_in(status.phase, "WorkerStatus.phase")?,
            images_per_s: finite(status.images_per_s, "WorkerStatus.images_per_s")?,
            silent_ms: status.silent_ms,
            late: text(status.late, "WorkerStatus.late")?,
        })
    }
}
