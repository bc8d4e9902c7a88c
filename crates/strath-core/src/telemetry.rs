//! What a step tells of its lanes beside its losses: what is always told, and what a survey finds every `telemetry.every` steps.
//!
//! A lane v of `m_v` examples has the ascent gradient `g_v` at w, the radius `rho_v`, epsilon `e_v` and the descent gradient `h_v` at
//! `w + e_v`. Means over lanes weigh each by its examples, `m_v / B`, as the losses do; of equal lanes that is the plain mean. Norms and
//! products are over the perturbed parameters. What has no value (a mean over no lane, a quotient by 0) is absent, never NaN.
//!
//! In a survey every lane is asked for the products of its two gradients, else as many as take 1 % of a run's time: each in its turn.
//!
//! Every value is a function of (configuration, step) to the bit, whatever the number of workers.

/// The largest relative deviation of `||e_v / t||_p` from `rho_v` that an audit passes: some times the rounding of f32.
pub const RADIUS_TOLERANCE: f64 = 1e-6;

/// What a step tells of its lanes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Telemetry {
    /// Mean over lanes of `lift_v / (rho_v ||t g_v||_q)`, where `lift_v` is what epsilon adds to the lane's loss: 1 where the loss is linear.
    pub lift_ratio: Option<f64>,
    /// Mean over the lanes that were asked of `u . (h_v - g_v) / rho_v` with `u = g_v / ||g_v||`: the curvature along the gradient, in loss / weight^2.
    pub curvature: Option<f64>,
    /// Mean of `cos(h_v, g_v)` over those of them that are one micro-batch: of others no vector holds `h_v`.
    pub turn: Option<f64>,
    /// How many lanes `turn` is a mean of.
    pub turn_lanes: u64,
    /// What the survey of this step found, where one was due.
    pub survey: Option<Box<Survey>>,
}

/// What a survey finds: it needs the reduced ascent gradient `G0 = sum_v (m_v / B) g_v`, and more passes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Survey {
    /// `||mean e_v / t||_p / mean rho_v`: 1 where all lanes have one direction, `1 / sqrt(V)` where theirs are orthogonal (p = 2).
    pub coherence: Option<f64>,
    /// `S = (mean ||g_v||^2 - ||G0||^2) m V / (V - 1)`: the trace of the covariance of examples' gradients, estimated without bias. Of at least
    /// two equal lanes.
    pub noise_trace: Option<f64>,
    /// `(V ||G0||^2 - mean ||g_v||^2) / (V - 1)`: the square of the length of the true gradient, estimated without bias; it may come out
    /// negative. Of at least two equal lanes.
    pub signal2: Option<f64>,
    /// `mean ||g_v|| / ||G0||`, at least 1.
    pub amplification: Option<f64>,
    /// `mean rho_v ||g_v|| / ||G0||`, so rho times the amplification: the radius that m = batch needs for the same first-order lift, over the
    /// plain ball of p = 2.
    pub rho_equivalent: Option<f64>,
    /// Mean lift of lane v + 1 (after the last comes the first) under `e_v`, over the mean of the lanes' own lifts. Of at least two equal
    /// lanes.
    pub transfer: Option<f64>,
    /// Whether m was what it says.
    pub audit: Audit,
    /// What coarser lanes would be, where `telemetry.ladder` asks for it: the run's m first, each rung of twice the examples.
    pub ladder: Vec<Rung>,
    /// What the survey took on the reporting rank, seconds: the one figure here that is not the same everywhere.
    pub seconds: f64,
}

/// Lanes of another size, at the weights of the run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rung {
    /// Examples a lane.
    pub m: u64,
    /// Mean length of the lanes' ascent gradients.
    pub gradient_norm: f64,
    /// Mean of what each lane's epsilon adds to its loss; absent as [`Telemetry::lift_ratio`] is.
    pub lift: Option<f64>,
}

/// Most rungs of a ladder: the largest batch is of 2^20 examples.
pub const MOST_RUNGS: usize = 21;

/// The audit of m: a step attests what its epsilons were.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Audit {
    /// Lanes of the batch.
    pub lanes: u64,
    /// Lanes whose ascent gradient, and so epsilon, was zero.
    pub zero_gradient_lanes: u64,
    /// Distinct epsilons that were not zero, by SHA-256. As many as lanes that have one, unless lanes see the same examples, or the ball has
    /// corners (p = 1, inf).
    pub distinct_epsilons: u64,
    /// Lanes that had more than one epsilon: workers that share a lane did not agree on it.
    pub split_lanes: u64,
    /// Largest relative deviation of `||e_v / t||_p` from `rho_v`, in f64.
    pub radius_deviation: f64,
    /// Workers on which SHA-256 of w was another after the step's passes than before.
    pub moved_weights: u64,
}

impl Audit {
    /// Whether each lane had one epsilon of the radius that it should have, and w stayed where it was.
    pub fn passed(&self) -> bool {
        self.split_lanes == 0 && self.radius_deviation <= RADIUS_TOLERANCE && self.moved_weights == 0
    }
}

/// A quotient of exponential moving averages over surveys: `EMA(noise_trace) / EMA(signal2)`, the noise scale in examples.
///
/// Both averages begin with the first survey and forget by 0.9 a survey. It is a function of the surveys on record, so a run that is
/// resumed goes on with the value of one that never stopped.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct NoiseScale {
    trace: f64,
    signal2: f64,
}

impl NoiseScale {
    /// What is left of a survey's weight after the next.
    const KEPT: f64 = 0.9;

    /// Takes in a survey; `None` where the signal is lost in the noise: its average is not positive.
    pub fn push(&mut self, noise_trace: f64, signal2: f64) -> Option<f64> {
        // The weights of both averages sum to the same, which the quotient does not feel.
        self.trace = self.trace * Self::KEPT + noise_trace;
        self.signal2 = self.signal2 * Self::KEPT + signal2;
        let scale = self.trace / self.signal2;
        (self.signal2 > 0.0 && scale.is_finite()).then_some(scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audit_fails_for_each_of_its_reasons() {
        let good = Audit { lanes: 4, distinct_epsilons: 4, radius_deviation: 3e-8, ..Audit::default() };
        assert!(good.passed());
        assert!(!Audit { radius_deviation: 2e-6, ..good }.passed());
        assert!(!Audit { radius_deviation: f64::NAN, ..good }.passed());
        assert!(!Audit { split_lanes: 1, ..good }.passed());
        assert!(!Audit { moved_weights: 1, ..good }.passed());
    }

    #[test]
    fn the_noise_scale_is_a_quotient_of_averages_that_forget() {
        let mut scale = NoiseScale::default();
        assert_eq!(scale.push(8.0, 2.0), Some(4.0));
        assert_eq!(scale.push(0.8, 0.2), Some((8.0 * 0.9 + 0.8) / (2.0 * 0.9 + 0.2)));
        assert_eq!(scale.push(1.0, -9.0), None);
        assert_eq!(NoiseScale::default().push(1.0, 0.0), None);
        let mut settled = NoiseScale::default();
        let last = (0..200).map(|_| settled.push(6.0, 3.0)).last();
        assert!((last.flatten().unwrap() - 2.0).abs() < 1e-12);
    }
}
