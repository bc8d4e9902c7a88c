//! What a step tells of its lanes.

use strath_core::telemetry::MOST_RUNGS;
use strath_core::{Audit, Rung, Survey, Telemetry};

use super::{finite, required};
use crate::error::RpcError;
use crate::wire;

/// A number that is finite where it is there.
pub(super) fn number(value: Option<f64>, field: &'static str) -> Result<Option<f64>, RpcError> {
    value.map(|value| finite(value, field)).transpose()
}

impl From<Telemetry> for wire::Telemetry {
    fn from(telemetry: Telemetry) -> Self {
        let Telemetry { lift_ratio, curvature, turn, turn_lanes, survey } = telemetry;
        Self { lift_ratio, curvature, turn, turn_lanes, survey: survey.map(|survey| (*survey).into()) }
    }
}

impl TryFrom<wire::Telemetry> for Telemetry {
    type Error = RpcError;

    fn try_from(telemetry: wire::Telemetry) -> Result<Self, RpcError> {
        let wire::Telemetry { lift_ratio, curvature, turn, turn_lanes, survey } = telemetry;
        Ok(Self {
            lift_ratio: number(lift_ratio, "Telemetry.lift_ratio")?,
            curvature: number(curvature, "Telemetry.curvature")?,
            turn: number(turn, "Telemetry.turn")?,
            turn_lanes,
            survey: survey.map(Survey::try_from).transpose()?.map(Box::new),
        })
    }
}

impl From<Survey> for wire::Survey {
    fn from(survey: Survey) -> Self {
        let Survey { coherence, noise_trace, signal2, amplification, rho_equivalent, transfer, audit, ladder, seconds } =
            survey;
        let (audit, ladder) = (Some(audit.into()), ladder.into_iter().map(Into::into).collect());
        Self { coherence, noise_trace, signal2, amplification, rho_equivalent, transfer, audit, seconds, ladder }
    }
}

impl TryFrom<wire::Survey> for Survey {
    type Error = RpcError;

    fn try_from(survey: wire::Survey) -> Result<Self, RpcError> {
        let rungs = survey.ladder.len();
        if rungs > MOST_RUNGS {
            let expected = format!("at most {MOST_RUNGS}");
            return Err(RpcError::malformed("Survey.ladder", format!("{rungs} rungs"), expected));
        }
        Ok(Self {
            coherence: number(survey.coherence, "Survey.coherence")?,
            noise_trace: number(survey.noise_trace, "Survey.noise_trace")?,
            signal2: number(survey.signal2, "Survey.signal2")?,
            amplification: number(survey.amplification, "Survey.amplification")?,
            rho_equivalent: number(survey.rho_equivalent, "Survey.rho_equivalent")?,
            transfer: number(survey.transfer, "Survey.transfer")?,
            audit: required(survey.audit, "Survey.audit")?.try_into()?,
            ladder: survey.ladder.into_iter().map(TryInto::try_into).collect::<Result<_, RpcError>>()?,
            seconds: finite(survey.seconds, "Survey.seconds")?,
        })
    }
}

impl From<Rung> for wire::Rung {
    fn from(rung: Rung) -> Self {
        let Rung { m, gradient_norm, lift } = rung;
        Self { m, gradient_norm, lift }
    }
}

impl TryFrom<wire::Rung> for Rung {
    type Error = RpcError;

    fn try_from(rung: wire::Rung) -> Result<Self, RpcError> {
        let wire::Rung { m, gradient_norm, lift } = rung;
        let gradient_norm = finite(gradient_norm, "Rung.gradient_norm")?;
        Ok(Self { m, gradient_norm, lift: number(lift, "Rung.lift")? })
    }
}

impl From<Audit> for wire::Audit {
    fn from(audit: Audit) -> Self {
        let Audit { lanes, zero_gradient_lanes, distinct_epsilons, split_lanes, radius_deviation, moved_weights } =
            audit;
        Self { lanes, zero_gradient_lanes, distinct_epsilons, split_lanes, radius_deviation, moved_weights }
    }
}

impl TryFrom<wire::Audit> for Audit {
    type Error = RpcError;

    fn try_from(audit: wire::Audit) -> Result<Self, RpcError> {
        let wire::Audit { lanes, zero_gradient_lanes, distinct_epsilons, split_lanes, radius_deviation, moved_weights } =
            audit;
        let radius_deviation = finite(radius_deviation, "Audit.radius_deviation")?;
        Ok(Self { lanes, zero_gradient_lanes, distinct_epsilons, split_lanes, radius_deviation, moved_weights })
    }
}
