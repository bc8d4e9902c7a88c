//! A step's telemetry as it stands in `metrics.jsonl`.

use serde::{Deserialize, Serialize};
use strath_core::telemetry::NoiseScale;
use strath_core::{Audit, Rung, Survey, Telemetry};

/// The telemetry of a step, each value under its own key; one that has no value in the step has no key. Means over lanes weigh each by its
/// examples; what each is: [`strath_core::telemetry`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LaneKeys {
    /// Mean of `lift_v / (rho ||t g_v||_q)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lift_ratio: Option<f64>,
    /// Mean of `u . (h_v - g_v) / rho`, loss / weight^2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub curvature: Option<f64>,
    /// Mean of `cos(h_v, g_v)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn: Option<f64>,
    /// Lanes that `turn` is a mean of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn_lanes: Option<u64>,
    /// `||mean e_v / t||_p / rho`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coherence: Option<f64>,
    /// Trace of the covariance of examples' gradients, (loss / weight)^2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise_trace: Option<f64>,
    /// Square of the length of the gradient without noise, (loss / weight)^2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal2: Option<f64>,
    /// `EMA(noise_trace) / EMA(signal2)` over the surveys on record so far, examples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise_scale: Option<f64>,
    /// `mean ||g_v|| / ||G0||`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amplification: Option<f64>,
    /// rho times the amplification.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rho_equivalent: Option<f64>,
    /// Lift of a lane under the epsilon of the one before it, over that under its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transfer: Option<f64>,
    /// What the step attests of its epsilons.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditKeys>,
    /// What coarser lanes would be, the run's m first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ladder: Vec<RungKeys>,
    /// Seconds of the survey on rank 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub survey_s: Option<f64>,
}

/// Lanes of another size, at the weights of the run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RungKeys {
    /// Examples a lane.
    pub m: u64,
    /// Mean length of the lanes' ascent gradients.
    pub gradient_norm: f64,
    /// Mean of what each lane's epsilon adds to its loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lift: Option<f64>,
}

/// The audit of m.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AuditKeys {
    /// Whether each lane had one epsilon of the right radius, and w stayed where it was.
    pub passed: bool,
    /// Lanes of the batch.
    pub lanes: u64,
    /// Lanes whose ascent gradient, and so epsilon, was zero.
    pub zero_gradient_lanes: u64,
    /// Distinct epsilons that were not zero.
    pub distinct_epsilons: u64,
    /// Lanes that had more than one.
    pub split_lanes: u64,
    /// Largest relative deviation of `||e_v / t||_p` from rho.
    pub radius_deviation: f64,
    /// Whether SHA-256 of w was the same after the passes as before, on every worker.
    pub weights_unchanged: bool,
}

impl LaneKeys {
    /// The keys of a step; `noise` is what the surveys before it came to, and takes this one's in.
    pub fn new(telemetry: &Telemetry, noise: &mut NoiseScale) -> Self {
        let Telemetry { lift_ratio, curvature, turn, turn_lanes, survey } = telemetry;
        let turn_lanes = turn.map(|_| *turn_lanes);
        let always =
            Self { lift_ratio: *lift_ratio, curvature: *curvature, turn: *turn, turn_lanes, ..Self::default() };
        let Some(survey) = survey else { return always };
        let Survey { coherence, noise_trace, signal2, amplification, rho_equivalent, transfer, audit, seconds, .. } =
            **survey;
        let mut keys = Self {
            coherence,
            noise_trace,
            signal2,
            amplification,
            rho_equivalent,
            transfer,
            audit: Some(audit.into()),
            ladder: survey.ladder.iter().map(|rung| (*rung).into()).collect(),
            survey_s: Some(seconds),
            ..always
        };
        keys.noise_scale = keys.take_in(noise);
        keys
    }

    /// The noise scale with this step's survey, where it is one.
    pub(crate) fn take_in(&self, noise: &mut NoiseScale) -> Option<f64> {
        self.noise_trace.zip(self.signal2).and_then(|(trace, signal2)| noise.push(trace, signal2))
    }

    /// The numbers that the step has, under their keys.
    pub fn numbers(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let audit = |of: fn(&AuditKeys) -> f64| self.audit.as_ref().map(of);
        [
            ("lift_ratio", self.lift_ratio),
            ("curvature", self.curvature),
            ("turn", self.turn),
            ("coherence", self.coherence),
            ("noise_trace", self.noise_trace),
            ("signal2", self.signal2),
            ("noise_scale", self.noise_scale),
            ("amplification", self.amplification),
            ("rho_equivalent", self.rho_equivalent),
            ("transfer", self.transfer),
            ("audit_passed", audit(|audit| f64::from(u8::from(audit.passed)))),
            ("distinct_epsilons", audit(|audit| audit.distinct_epsilons as f64)),
            ("radius_deviation", audit(|audit| audit.radius_deviation)),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
    }
}

impl From<Rung> for RungKeys {
    fn from(Rung { m, gradient_norm, lift }: Rung) -> Self {
        Self { m, gradient_norm, lift }
    }
}

impl From<Audit> for AuditKeys {
    fn from(audit: Audit) -> Self {
        Self {
            passed: audit.passed(),
            lanes: audit.lanes,
            zero_gradient_lanes: audit.zero_gradient_lanes,
            distinct_epsilons: audit.distinct_epsilons,
            split_lanes: audit.split_lanes,
            radius_deviation: audit.radius_deviation,
            weights_unchanged: audit.moved_weights == 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surveyed(noise_trace: f64) -> Telemetry {
        let audit = Audit { lanes: 4, distinct_epsilons: 4, radius_deviation: 1e-8, ..Audit::default() };
        let survey = Survey { noise_trace: Some(noise_trace), signal2: Some(2.0), audit, ..Survey::default() };
        Telemetry { lift_ratio: Some(1.25), survey: Some(Box::new(survey)), ..Telemetry::default() }
    }

    #[test]
    fn a_value_that_a_step_has_not_has_no_key() {
        let mut noise = NoiseScale::default();
        let text = |keys: &LaneKeys| serde_json::to_string(keys).unwrap();
        assert_eq!(text(&LaneKeys::new(&Telemetry::default(), &mut noise)), "{}");
        let turned = Telemetry { turn: Some(0.5), turn_lanes: 3, ..Telemetry::default() };
        assert_eq!(text(&LaneKeys::new(&turned, &mut noise)), r#"{"turn":0.5,"turn_lanes":3}"#);
        assert_eq!(noise, NoiseScale::default(), "no survey, nothing to average");
        let keys = LaneKeys::new(&surveyed(8.0), &mut noise);
        assert_eq!((keys.noise_scale, keys.audit.map(|audit| audit.passed)), (Some(4.0), Some(true)));
        assert_eq!(serde_json::from_str::<LaneKeys>(&text(&keys)).unwrap(), keys);
        let numbers: Vec<&str> = keys.numbers().map(|(key, _)| key).collect();
        let expected = ["lift_ratio", "noise_trace", "signal2", "noise_scale"];
        assert_eq!(numbers, [&expected[..], &["audit_passed", "distinct_epsilons", "radius_deviation"]].concat());
    }

    #[test]
    fn averages_are_the_same_from_what_was_written_down() {
        let (mut noise, mut read) = (NoiseScale::default(), NoiseScale::default());
        for at in 0..100 {
            let keys = LaneKeys::new(&surveyed(0.1 + f64::from(at) / 3.0), &mut noise);
            let line = serde_json::from_str::<LaneKeys>(&serde_json::to_string(&keys).unwrap()).unwrap();
            assert_eq!(line.take_in(&mut read), keys.noise_scale);
        }
        assert_eq!(noise, read);
    }
}
